//! The kernel's own account of OOM kills, from its log: who was killed, in which cgroup, how large it was.
//! Format: mm/oom_kill.c, `dump_oom_victim` and `__oom_kill_process`; /dev/kmsg gives a record per read
//! (Documentation/ABI/testing/dev-kmsg).

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
};

/// A process the kernel has killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Victim {
    /// The cgroup whose limit it was.
    pub cgroup: String,
    /// The program's name.
    pub name: String,
    /// Its pid on the host.
    pub pid: u32,
    /// Its uid on the host.
    pub uid: u32,
    /// Bytes it had in memory.
    pub bytes: u64,
}

/// The log from the moment it was opened.
#[derive(Debug)]
pub struct KernelLog {
    file: Option<File>,
    kept: VecDeque<Victim>,
}

impl Default for KernelLog {
    fn default() -> Self {
        let open = || -> std::io::Result<File> {
            let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg")?;
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        };
        Self { file: open().ok(), kept: VecDeque::new() }
    }
}

impl KernelLog {
    /// Takes out the victims of this cgroup and those below it.
    pub fn victims_of(&mut self, cgroup: &str) -> Vec<Victim> {
        self.read();
        let is = |v: &Victim| v.cgroup == cgroup || v.cgroup.starts_with(&format!("{cgroup}/"));
        let (his, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.kept).into_iter().partition(is);
        self.kept = rest.into();
        his
    }

    fn read(&mut self) {
        let mut buffer = [0u8; 8192];
        while let Some(file) = self.file.as_mut() {
            match file.read(&mut buffer) {
                Ok(n) if n > 0 => self.record(&String::from_utf8_lossy(&buffer[..n])),
                // EPIPE: records were overwritten before they were read; the next read goes on with what is left.
                Err(e) if e.kind() == ErrorKind::BrokenPipe || e.kind() == ErrorKind::Interrupted => {}
                _ => return,
            }
            // Nobody asks about kills of long ago.
            while self.kept.len() > 256 {
                self.kept.pop_front();
            }
        }
    }
}

impl KernelLog {
    /// Cgroup, name and pid come in one record, the size in the next about the same pid.
    fn record(&mut self, record: &str) {
        let text = record.lines().next().and_then(|l| l.split_once(';')).map_or("", |(_, text)| text);
        if let Some(victim) = named(text) {
            self.kept.push_back(victim);
        } else if let Some((pid, bytes)) = sized(text) {
            if let Some(v) = self.kept.iter_mut().rev().find(|v| v.pid == pid) {
                v.bytes = bytes;
            }
        }
    }
}

/// `oom-kill:constraint=CONSTRAINT_MEMCG,...,oom_memcg=/vz/101,task_memcg=/vz/101/ns,task=stress,pid=77,uid=524288`
fn named(text: &str) -> Option<Victim> {
    let rest = text.strip_prefix("oom-kill:")?;
    let field = |key: &str| rest.split(',').find_map(|f| f.strip_prefix(key)?.strip_prefix('='));
    Some(Victim {
        cgroup: field("oom_memcg")?.to_owned(),
        name: field("task")?.to_owned(),
        pid: field("pid")?.parse().ok()?,
        uid: field("uid")?.trim().parse().ok()?,
        bytes: 0,
    })
}

/// `Memory cgroup out of memory: Killed process 77 (stress) total-vm:1kB, anon-rss:2kB, file-rss:3kB, shmem-rss:0kB, ...`
fn sized(text: &str) -> Option<(u32, u64)> {
    let rest = text.split_once("Killed process ")?.1;
    let pid = rest.split(' ').next()?.parse().ok()?;
    let kib = |key: &str| -> u64 {
        let at = rest.find(key).map(|i| &rest[i + key.len()..]);
        at.and_then(|t| t.split("kB").next()?.parse().ok()).unwrap_or(0)
    };
    Some((pid, (kib("anon-rss:") + kib("file-rss:") + kib("shmem-rss:")) * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_is_read_from_its_two_records() {
        let mut log = KernelLog { file: None, kept: VecDeque::new() };
        log.record("6,1,2,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=ns,mems_allowed=0,oom_memcg=/vz/101,task_memcg=/vz/101/ns/x.service,task=hog,pid=4711,uid=524288");
        log.record("3,2,3,-;Memory cgroup out of memory: Killed process 4711 (hog) total-vm:300000kB, anon-rss:200000kB, file-rss:1000kB, shmem-rss:0kB, UID:524288 pgtables:500kB oom_score_adj:0");
        log.record("3,3,4,-;something else");
        assert!(log.victims_of("/vz/1011").is_empty());
        let v = log.victims_of("/vz/101");
        assert_eq!((v.len(), v[0].name.as_str(), v[0].pid, v[0].bytes), (1, "hog", 4711, 201_000 * 1024));
        assert!(log.victims_of("/vz/101").is_empty());
    }
}
