//! A cgroup2 directory with all below it, ended by its own files (cgroup-v2, "Core Interface Files"). Making, limiting and
//! removing cgroups is vzd's.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    fs::{self, File},
    io::{self, Read, Seek},
    path::Path,
    time::{Duration, Instant},
};

/// Kills every process in it and below it, thawing it first: a frozen process cannot die.
///
/// # Errors
/// `cgroup.kill` cannot be written: the cgroup is gone, or the kernel is older than 5.14.
pub fn kill(dir: &Path) -> io::Result<()> {
    // Absent only when the cgroup itself is gone.
    let _ = fs::write(dir.join("cgroup.freeze"), "0");
    fs::write(dir.join("cgroup.kill"), "1")
}

/// Waits until no process is left in it and below it. One that is gone is empty.
///
/// # Errors
/// `TimedOut` when processes are left after `within`, else what reading `cgroup.events` says.
pub fn wait_empty(dir: &Path, within: Duration) -> io::Result<()> {
    let until = Instant::now() + within;
    let mut file = match File::open(dir.join("cgroup.events")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    loop {
        let mut text = String::new();
        let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
        match read {
            // Removed while it was open.
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => return Ok(()),
            read => read?,
        };
        if text.lines().any(|l| l == "populated 0") {
            return Ok(());
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // The kernel tells of a change as an exceptional condition (cgroup-v2, "cgroup.events").
        let look = left.min(Duration::from_millis(100));
        let spec = Timespec { tv_sec: 0, tv_nsec: i64::from(look.subsec_nanos()) };
        match poll(&mut [PollFd::new(&file, PollFlags::PRI)], Some(&spec)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_that_is_gone_is_empty_and_cannot_be_killed() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        wait_empty(&gone, Duration::ZERO).unwrap();
        assert_eq!(kill(&gone).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn one_that_stays_populated_is_waited_for_no_longer_than_told() {
        let dir = tempfile::tempdir().unwrap();
        let events = dir.path().join("cgroup.events");
        fs::write(&events, "populated 1\nfrozen 0\n").unwrap();
        assert_eq!(wait_empty(dir.path(), Duration::from_millis(5)).unwrap_err().kind(), io::ErrorKind::TimedOut);
        fs::write(&events, "populated 0\nfrozen 0\n").unwrap();
        wait_empty(dir.path(), Duration::ZERO).unwrap();
    }
}
