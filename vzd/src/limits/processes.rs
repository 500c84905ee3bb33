//! What is counted by looking at a container's processes: descriptors, address space, locks, terminals. Costs some
//! system calls per process, so it is done when asked and once a minute.

use rustix::{
    fd::AsFd,
    fs::{Mode, OFlags, ResolveFlags},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};
use vz_sys::{proc, rlimits::pids};
use vz_types::limits::PAGE;

/// The figures of one look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Open descriptors of all processes.
    pub numfile: u64,
    /// Pages of VmData of all processes.
    pub privvmpages: u64,
    /// Locks held by its processes.
    pub numflock: u64,
    /// Entries of its /dev/pts.
    pub numpty: u64,
    /// Signals queued for its processes.
    pub numsiginfo: u64,
    /// nft rules of its network; `None`: they cannot be counted.
    pub numiptent: Option<u64>,
    /// TCP sockets of its network.
    pub numtcpsock: u64,
    /// Every other socket of its network.
    pub numothersock: u64,
}

/// Who holds file locks on this host: one pid for each lock, and for each that waits.
#[derive(Clone, Debug, Default)]
pub struct Locks(Vec<i32>);

impl Locks {
    /// Reads them: one text for the whole host, so it is read once for all containers that are looked at together.
    pub fn read() -> Self {
        Self::parse(&fs::read_to_string("/proc/locks").unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        // "1: POSIX  ADVISORY  WRITE 1234 ..." (proc_locks(5)); a waiter has "->" after the number.
        let holder = |l: &str| l.split_whitespace().filter(|w| *w != "->").nth(4)?.parse::<i32>().ok();
        Self(text.lines().filter_map(holder).collect())
    }

    /// How many are held by these processes.
    fn of(&self, pids: &BTreeSet<i32>) -> u64 {
        self.0.iter().filter(|p| pids.contains(p)).count() as u64
    }
}

/// Looks at every process of a container; `init` is its first.
pub fn sample(cgroup: &Path, init: i32, locks: &Locks) -> Sample {
    let pids = pids(cgroup);
    let mut s = Sample::default();
    // By user: the kernel counts a user's signals, not a process's.
    let mut queued: BTreeMap<u32, u64> = BTreeMap::new();
    for pid in &pids {
        s.numfile += fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |d| d.count() as u64);
        // One that has ended meanwhile counts no more.
        let Ok(status) = proc::status(*pid) else { continue };
        s.privvmpages += status.bytes("VmData").unwrap_or(0) / PAGE;
        if let Some((uid, n)) = signals(&status) {
            let most = queued.entry(uid).or_default();
            *most = n.max(*most);
        }
    }
    s.numsiginfo = queued.values().sum();
    s.numflock = locks.of(&pids);
    s.numpty = terminals(init);
    s.numiptent = rules(init);
    let net = |file: &str| fs::read_to_string(format!("/proc/{init}/net/{file}")).unwrap_or_default();
    let (v4, v6) = (net("sockstat"), net("sockstat6"));
    let in_use = |text: &str, proto: &str| -> u64 {
        let line = text.lines().find_map(|l| l.strip_prefix(proto)?.strip_prefix(": inuse "));
        line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    s.numtcpsock = in_use(&v4, "TCP") + in_use(&v6, "TCP6");
    let other4: u64 = ["UDP", "UDPLITE", "RAW"].iter().map(|p| in_use(&v4, p)).sum();
    let other6: u64 = ["UDP6", "UDPLITE6", "RAW6"].iter().map(|p| in_use(&v6, p)).sum();
    s.numothersock = other4 + other6;
    s
}

/// Terminals in the container's /dev/pts. Its root may have put a link or anything else there: none is followed, and what is
/// no devpts counts nothing.
fn terminals(init: i32) -> u64 {
    const DEVPTS: u64 = 0x1cd1;
    let look = || -> rustix::io::Result<u64> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(format!("/proc/{init}/root"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let pts = vz_sys::open::inside(root, "dev/pts", flags, ResolveFlags::NO_SYMLINKS)?;
        if rustix::fs::fstatfs(&pts)?.f_type as u64 != DEVPTS {
            return Ok(0);
        }
        let names = rustix::fs::Dir::read_from(&pts)?.flatten();
        Ok(names.filter(|e| e.file_name().to_bytes().iter().all(u8::is_ascii_digit)).count() as u64)
    };
    look().unwrap_or(0)
}

/// More are not counted: a look must not take long.
const MOST_RULES: u64 = 100_000;

/// Counts in the container's network, from a thread of its own that ends with it. Where there is no thread to be had, they
/// are not counted.
fn rules(init: i32) -> Option<u64> {
    let net = fs::File::open(format!("/proc/{init}/ns/net")).ok()?;
    let count = || {
        let joined = move_into_link_name_space(net.as_fd(), Some(LinkNameSpaceType::Network));
        joined.ok().and_then(|()| vz_sys::netlink::count_nft_rules(MOST_RULES).ok())
    };
    let thread = || std::thread::Builder::new().name("rules".into()).stack_size(256 << 10);
    std::thread::scope(|s| thread().spawn_scoped(s, count).ok()?.join().ok().flatten())
}

/// Real uid of a process, and the signals queued for that user (`SigQ` of proc_pid_status(5)).
fn signals(status: &proc::Status) -> Option<(u32, u64)> {
    let uid = status.field("Uid")?.split_whitespace().next()?.parse().ok()?;
    Some((uid, status.field("SigQ")?.split('/').next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_counted_by_who_holds_or_waits_for_them() {
        let locks = Locks::parse(
            "1: POSIX  ADVISORY  WRITE 1234 08:01:5 0 EOF\n1: -> POSIX  ADVISORY  WRITE 77 08:01:5 0 EOF\n2: FLOCK  ADVISORY  READ 1234 08:01:6 0 EOF\nx\n",
        );
        assert_eq!(locks.of(&[1234].into()), 2);
        assert_eq!(locks.of(&[77, 5].into()), 1);
    }

    #[test]
    fn queued_signals_are_a_users() {
        let signals = |text: &str| super::signals(&vz_sys::proc::Status::new(text));
        assert_eq!(signals("Name:\tx\nUid:\t524288\t524289\t0\t0\nSigQ:\t17/100\n"), Some((524_288, 17)));
        assert_eq!(signals("Name:\tx\n"), None);
    }
}
