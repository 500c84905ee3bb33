//! What /proc tells of processes and of the host (proc(5)), read in one place.
//!
//! A process that is not there is `NotFound`, whatever the kernel calls it. Every other error is a failure to look
//! (too many open files, no memory) and never means that a process has ended.

use rustix::io::Errno;
use std::{
    ffi::OsString,
    fs,
    io::{self, BufRead, ErrorKind, Read},
    os::unix::ffi::OsStringExt,
    path::PathBuf,
    time::Duration,
};

/// Of `/proc/PID/stat` (proc_pid_stat(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The program's name, which the process may have chosen.
    pub comm: String,
    /// One letter.
    pub state: char,
    /// Pid of its parent; 0: outside this pid namespace.
    pub ppid: i32,
    /// Clock ticks since the host's boot: tells it from a later process with its pid.
    pub start_time: u64,
}

impl Stat {
    /// Whether it runs no more and only waits to be reaped.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }

    fn parse(text: &str) -> Option<Self> {
        // The name stands in parentheses and may itself hold spaces and parentheses.
        let (before, after) = (text.split_once('(')?.1.rsplit_once(')')?.0, text.rsplit_once(')')?.1);
        let fields: Vec<&str> = after.split_ascii_whitespace().collect();
        let field = |n: usize| fields.get(n - 3);
        Some(Self {
            comm: before.to_owned(),
            state: field(3)?.chars().next()?,
            ppid: field(4)?.parse().ok()?,
            start_time: field(22)?.parse().ok()?,
        })
    }
}

/// Name, state, parent and start time of a process.
///
/// # Errors
/// `NotFound` when there is no such process.
pub fn stat(pid: i32) -> io::Result<Stat> {
    let text = String::from_utf8_lossy(&read(pid, "stat")?).into_owned();
    Stat::parse(&text).ok_or_else(|| invalid(format!("/proc/{pid}/stat makes no sense")))
}

/// Start time of a process in clock ticks since the host's boot; that of a zombie too.
///
/// # Errors
/// `NotFound` when there is no such process.
pub fn start_time(pid: i32) -> io::Result<u64> {
    Ok(stat(pid)?.start_time)
}

/// Whether the process with this pid is the one that started then, and has not ended.
///
/// # Errors
/// It could not be looked at; this says nothing about the process.
pub fn is_alive(pid: i32, start_time: u64) -> io::Result<bool> {
    match stat(pid) {
        Ok(stat) => Ok(stat.start_time == start_time && !stat.has_ended()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// `/proc/PID/status` (proc_pid_status(5)).
#[derive(Clone, Debug)]
pub struct Status(String);

impl Status {
    /// From its text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// What stands behind `key:`.
    pub fn field(&self, key: &str) -> Option<&str> {
        self.0.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
    }

    /// The signals of a mask: bit n-1 is signal n.
    pub fn signals(&self, key: &str) -> u64 {
        self.field(key).and_then(|m| u64::from_str_radix(m, 16).ok()).unwrap_or(0)
    }

    /// An amount of memory, in bytes; kernel threads have none.
    pub fn bytes(&self, key: &str) -> Option<u64> {
        Some(self.field(key)?.strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
    }
}

/// The status of a process.
///
/// # Errors
/// `NotFound` when there is no such process.
pub fn status(pid: i32) -> io::Result<Status> {
    Ok(Status(String::from_utf8_lossy(&read(pid, "status")?).into_owned()))
}

/// The words a process was started with; none for a zombie or a kernel thread. It may have changed them.
///
/// # Errors
/// `NotFound` when there is no such process.
pub fn cmdline(pid: i32) -> io::Result<Vec<String>> {
    let bytes = read(pid, "cmdline")?;
    let words = bytes.strip_suffix(&[0]).unwrap_or(&bytes);
    let words = words.split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned());
    Ok(if bytes.is_empty() { Vec::new() } else { words.collect() })
}

/// The file a process executes, as its own mount namespace names it and without the mark of one that was replaced.
///
/// # Errors
/// `NotFound` when there is no such process, or it is a zombie or a kernel thread.
pub fn exe(pid: i32) -> io::Result<PathBuf> {
    let link = fs::read_link(format!("/proc/{pid}/exe")).map_err(absent)?.into_os_string().into_vec();
    Ok(path(link.strip_suffix(b" (deleted)").unwrap_or(&link)))
}

/// The last component of [`exe`].
///
/// # Errors
/// As there.
pub fn exe_name(pid: i32) -> io::Result<String> {
    Ok(exe(pid)?.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default())
}

/// The system call a process is in (proc_pid_syscall(5)): number and arguments. None while it runs, or blocks outside of one.
///
/// # Errors
/// `NotFound` when there is no such process; the kernel may not say, or not to us.
pub fn syscall(pid: i32) -> io::Result<Option<(i64, [u64; 6])>> {
    Ok(parse_syscall(&String::from_utf8_lossy(&read(pid, "syscall")?)))
}

fn parse_syscall(text: &str) -> Option<(i64, [u64; 6])> {
    let mut words = text.split_ascii_whitespace();
    let number = words.next()?.parse().ok().filter(|n| *n >= 0)?;
    let mut arguments = [0; 6];
    for argument in &mut arguments {
        *argument = u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
    }
    Some((number, arguments))
}

/// A line of mountinfo (proc_pid_mountinfo(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its number.
    pub id: u64,
    /// What of the filesystem is mounted.
    pub root: PathBuf,
    /// Where.
    pub mount_point: PathBuf,
    /// Of this mount, as `rw,nosuid`.
    pub options: String,
    /// The filesystem's type.
    pub fs_type: String,
    /// What it is on: a device, or whatever word was given.
    pub source: OsString,
    /// Of the filesystem.
    pub super_options: String,
}

impl Mount {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|b| *b == b' ');
        let text = |raw: &[u8]| String::from_utf8_lossy(&unescape(raw)).into_owned();
        let id = text(fields.next()?).parse().ok()?;
        let mut fields = fields.skip(2);
        let (root, mount_point, options) = (path(fields.next()?), path(fields.next()?), text(fields.next()?));
        // Any number of optional fields ends with a dash.
        let mut fields = fields.skip_while(|f| *f != b"-").skip(1);
        let (fs_type, source) = (text(fields.next()?), OsString::from_vec(unescape(fields.next()?)));
        Some(Self { id, root, mount_point, options, fs_type, source, super_options: text(fields.next()?) })
    }

    /// Whether the filesystem has this option.
    pub fn has_super_option(&self, option: &str) -> bool {
        self.super_options.split(',').any(|o| o == option)
    }
}

/// The mounts of this process's mount namespace; later ones may lie over earlier ones.
///
/// # Errors
/// It cannot be read, which does not mean that nothing is mounted.
pub fn mountinfo() -> io::Result<Vec<Mount>> {
    Ok(parse_mountinfo(&fs::read("/proc/self/mountinfo")?))
}

/// The mount of this number in this process's mount namespace. The table is long on a host with many containers, so it is
/// read only up to that line.
///
/// # Errors
/// As [`mountinfo`].
pub fn mount(id: u64) -> io::Result<Option<Mount>> {
    for line in io::BufReader::new(fs::File::open("/proc/self/mountinfo")?).split(b'\n') {
        if let Some(mount) = Mount::parse(&line?).filter(|m| m.id == id) {
            return Ok(Some(mount));
        }
    }
    Ok(None)
}

/// The mounts in a text of that form.
pub fn parse_mountinfo(text: &[u8]) -> Vec<Mount> {
    text.split(|b| *b == b'\n').filter_map(Mount::parse).collect()
}

/// Figures of `/proc/meminfo`, in bytes, all of one moment: the kernel makes the whole file for each look at it.
///
/// # Errors
/// It cannot be read, or the kernel does not tell one of these.
pub fn meminfo<const N: usize>(keys: [&str; N]) -> io::Result<[u64; N]> {
    let figures = Status(text("/proc/meminfo")?);
    let mut found = [0; N];
    for (figure, key) in found.iter_mut().zip(keys) {
        *figure = figures.bytes(key).ok_or_else(|| invalid(format!("/proc/meminfo has no {key}")))?;
    }
    Ok(found)
}

/// A small file of /proc or /sys, which say of themselves that they are empty: with room for it from the start it is one
/// read instead of eight.
fn text(file: &str) -> io::Result<String> {
    let mut text = String::with_capacity(4096);
    fs::File::open(file)?.read_to_string(&mut text)?;
    Ok(text)
}

/// A file of /proc or /sys that holds one number.
///
/// # Errors
/// It cannot be read, or holds something else.
pub fn number(file: &str) -> io::Result<u64> {
    let text = text(file)?;
    text.trim().parse().map_err(|_| invalid(format!("{file} holds no number")))
}

/// Identifies this boot of the host (random(4)).
///
/// # Errors
/// It cannot be read.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Time since the host's boot, suspend included: no change of the wall clock moves it (clock_gettime(2),
/// `CLOCK_BOOTTIME`). In a time namespace of its own a process sees another one.
pub fn boottime() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(now.tv_sec.try_into().unwrap_or(0), now.tv_nsec.try_into().unwrap_or(0))
}

fn read(pid: i32, file: &str) -> io::Result<Vec<u8>> {
    fs::read(format!("/proc/{pid}/{file}")).map_err(absent)
}

/// A process that ends between open and read is told by another word than one that is not there.
fn absent(e: io::Error) -> io::Error {
    if e.raw_os_error() == Some(Errno::SRCH.raw_os_error()) { ErrorKind::NotFound.into() } else { e }
}

fn invalid(why: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

fn path(raw: &[u8]) -> PathBuf {
    OsString::from_vec(unescape(raw)).into()
}

/// Undoes the kernel's octal escapes of blanks and backslashes.
fn unescape(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let [first, after @ ..] = rest {
        let digits = after.get(..3).filter(|d| *first == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        let byte = digits.and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        out.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[3..] } else { after };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_call_is_number_and_arguments() {
        let line = "128 0x5eb308 0x0 0x0 0x8 0x5e27a0 0x1b0 0x7ffc620893f0 0x41675f\n";
        assert_eq!(parse_syscall(line), Some((128, [0x5e_b308, 0, 0, 8, 0x5e_27a0, 0x1b0])));
        assert_eq!(parse_syscall("running\n"), None);
        assert_eq!(parse_syscall("-1 0x7ffc620893f0 0x41675f\n"), None);
        assert_eq!(parse_syscall(""), None);
    }

    #[test]
    fn this_process_is_found_and_alive_and_an_ended_one_is_not() {
        let me = std::process::id() as i32;
        let stat = stat(me).unwrap();
        assert_eq!(stat.ppid, nix::unistd::getppid().as_raw());
        assert_eq!(start_time(me).unwrap(), stat.start_time);
        assert!(is_alive(me, stat.start_time).unwrap() && !is_alive(me, stat.start_time + 1).unwrap());
        assert_eq!(exe(me).unwrap(), std::env::current_exe().unwrap());
        assert_eq!(cmdline(me).unwrap(), std::env::args().collect::<Vec<_>>());
        assert_eq!(status(me).unwrap().field("Pid"), Some(me.to_string().as_str()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id() as i32;
        let started = start_time(pid).unwrap();
        let pidfd = crate::process::pidfd_open(pid).unwrap();
        rustix::event::poll(&mut [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)], None).unwrap();
        assert!(self::stat(pid).unwrap().has_ended() && !is_alive(pid, started).unwrap(), "a zombie");
        child.wait().unwrap();
        assert_eq!(self::stat(pid).unwrap_err().kind(), ErrorKind::NotFound);
        assert!(!is_alive(pid, started).unwrap());
        assert!(start_time(0).is_err());
    }

    #[test]
    fn a_name_of_spaces_and_parentheses_shifts_no_field() {
        let text = "7 (a) Z 1 (b) S 42 7 7 0 -1 4194560 1 0 0 0 1 2 0 0 20 0 1 0 9876 1 1\n";
        let want = Stat { comm: "a) Z 1 (b".into(), state: 'S', ppid: 42, start_time: 9876 };
        assert_eq!(Stat::parse(text), Some(want));
        assert_eq!(Stat::parse(""), None);
        assert_eq!(Stat::parse("7 (x) S 1"), None);
    }

    #[test]
    fn mounts_with_escapes_and_optional_fields_are_read() {
        let text = br"36 35 98:0 /mnt1 /a\040b\134c rw,nosuid shared:1 master:2 - ext3 /dev/root rw,errors=continue
40 35 0:5 / /sys/fs/cgroup rw - cgroup2 none rw,nsdelegate,memory_recursiveprot
nonsense
";
        let mounts = parse_mountinfo(text);
        assert_eq!(mounts.len(), 2);
        let [first, second] = &mounts[..] else { panic!() };
        assert_eq!((first.id, first.mount_point.to_str(), first.root.to_str()), (36, Some(r"/a b\c"), Some("/mnt1")));
        assert_eq!((first.fs_type.as_str(), first.source.to_str()), ("ext3", Some("/dev/root")));
        assert_eq!((first.options.as_str(), first.super_options.as_str()), ("rw,nosuid", "rw,errors=continue"));
        assert!(second.has_super_option("memory_recursiveprot") && !second.has_super_option("memory"));
        let one = mountinfo().unwrap().pop().unwrap();
        assert_eq!(mount(one.id).unwrap(), Some(one));
        assert_eq!(mount(u64::MAX).unwrap(), None);
        assert!(mountinfo().unwrap().iter().any(|m| m.mount_point == std::path::Path::new("/proc")));
    }

    #[test]
    fn the_host_tells_its_figures() {
        let [total, free] = meminfo(["MemTotal", "MemFree"]).unwrap();
        assert!(total > 1 << 20 && total > free);
        assert!(meminfo(["MemTotal", "Mem"]).is_err());
        assert!(number("/proc/sys/kernel/pid_max").unwrap() > 0);
        assert!(number("/proc/version").is_err());
        assert_eq!(boot_id().unwrap().len(), 36);
        assert!(boottime() > Duration::ZERO && boottime() <= boottime());
    }

    #[test]
    fn figures_of_a_status_have_their_units() {
        let status = Status::new("Name:\tx\nUid:\t524288\t0\nVmData:\t     12 kB\nSigCgt:\t0000000000000800\n");
        assert_eq!(status.bytes("VmData"), Some(12 << 10));
        assert_eq!(status.bytes("Vm"), None);
        assert_eq!(status.signals("SigCgt"), 1 << 11);
        assert_eq!(status.signals("SigBlk"), 0);
        assert_eq!(status.field("Uid"), Some("524288\t0"));
    }
}
