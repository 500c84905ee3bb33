//! Processes that must be recognised after a restart of ours: by pid, start time and host boot.

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Resource, Signal, getrlimit, pidfd_open, pidfd_send_signal},
};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::{Duration, Instant},
};
use vz_types::run::ProcessId;

/// Whether a process is there.
#[derive(Debug)]
pub enum Process {
    /// It is; with a descriptor, where one could be spared.
    Alive(Option<OwnedFd>),
    /// It is not, or its number is another's by now.
    Gone,
}

/// Field 22 of `/proc/PID/stat`; `None`: there is no such process.
///
/// # Errors
/// It cannot be read, which says nothing about the process.
pub fn start_time(pid: i32) -> io::Result<Option<u64>> {
    match vz_sys::proc::start_time(pid) {
        Ok(time) => Ok(Some(time)),
        // ESRCH: it ended while its file was open.
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Looks for exactly that process, to keep what is found.
///
/// # Errors
/// It cannot be looked at (no descriptor, no memory), which says nothing about it.
pub fn find(id: ProcessId) -> io::Result<Process> {
    Ok(match find_for_now(id)? {
        Process::Alive(fd) => Process::Alive(fd.filter(can_be_spared)),
        Process::Gone => Process::Gone,
    })
}

/// As [`find`], for a moment: any descriptor will do.
///
/// # Errors
/// As [`find`].
pub fn find_for_now(id: ProcessId) -> io::Result<Process> {
    let Some(pid) = Pid::from_raw(id.pid) else { return Ok(Process::Gone) };
    let fd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(fd) => Some(fd),
        Err(Errno::SRCH) => return Ok(Process::Gone),
        // It is known by number and start time as well.
        Err(Errno::MFILE | Errno::NFILE) => None,
        Err(e) => return Err(e.into()),
    };
    // Checked after the pidfd is open: from then on the pid cannot become somebody else's.
    match start_time(id.pid)? {
        Some(time) if time == id.start_time && fd.as_ref().is_none_or(|fd| !ended(fd)) => Ok(Process::Alive(fd)),
        _ => Ok(Process::Gone),
    }
}

/// Whether a descriptor is among the lower half of those we may have (numbers are given from the lowest): the other half is
/// for our own work, however many containers run.
fn can_be_spared(fd: &OwnedFd) -> bool {
    let most = getrlimit(Resource::Nofile).current;
    most.is_none_or(|most| u64::try_from(fd.as_raw_fd()).is_ok_and(|n| n < most / 2))
}

/// Whether the process of a pidfd has ended.
pub fn ended(pidfd: impl AsFd) -> bool {
    wait_end(pidfd, Duration::ZERO)
}

/// Waits for the process of a pidfd to end; false at the deadline.
pub fn wait_end(pidfd: impl AsFd, deadline: Duration) -> bool {
    let timeout = Timespec::try_from(deadline).unwrap_or(Timespec { tv_sec: 3600, tv_nsec: 0 });
    loop {
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(n) => return n > 0,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

fn is_stopped(pid: i32) -> bool {
    vz_sys::proc::stat(pid).is_ok_and(|stat| stat.state == 'T')
}

/// Between two looks at whether a process is stopped.
const LOOK: Duration = Duration::from_millis(200);

/// The same as [`wait_end`] of a process that is about to end by itself. One that a signal has stopped (proc_pid_stat(5),
/// state `T`) will not: it is not waited for.
pub fn wait_unless_stopped(pidfd: impl AsFd, pid: i32, deadline: Duration) -> bool {
    let until = Instant::now() + deadline;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if wait_end(&pidfd, LOOK.min(left)) {
            return true;
        }
        if left <= LOOK || is_stopped(pid) {
            return false;
        }
    }
}

/// Kills the process of a pidfd; one that has ended is fine.
pub fn kill(pidfd: impl AsFd) {
    let _ = pidfd_send_signal(pidfd, Signal::KILL);
}
