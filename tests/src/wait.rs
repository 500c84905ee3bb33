//! Waiting for an event with a deadline. Everything here sleeps in poll(2) on a descriptor that the kernel makes
//! ready: no loop looks at the clock to look again.

use crate::proc::Stat;
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fs::inotify,
    process::{Pid, PidfdFlags},
};
use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

/// Waits until `fd` can be read (or has hung up) or `limit` has passed; says which.
///
/// # Errors
/// poll(2) fails.
pub fn readable(fd: BorrowedFd<'_>, limit: Duration) -> io::Result<bool> {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(n) => return Ok(n > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// A process, held by a descriptor: it cannot be mistaken for a later one of the same number.
#[derive(Debug)]
pub struct Process {
    fd: OwnedFd,
    pid: u32,
}

impl Process {
    /// Takes hold of it.
    ///
    /// # Errors
    /// There is no such process.
    pub fn open(pid: u32) -> io::Result<Self> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { fd: rustix::process::pidfd_open(raw, PidfdFlags::empty())?, pid })
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.pid
    }

    /// Whether a signal stopped it (proc_pid_stat(5), state `T`).
    pub fn is_stopped(&self) -> bool {
        Stat::of(self.pid).is_some_and(|s| s.state() == 'T')
    }

    /// Waits until it has ended or `limit` has passed; says which.
    ///
    /// # Errors
    /// poll(2) fails.
    pub fn ended(&self, limit: Duration) -> io::Result<bool> {
        readable(self.fd.as_fd(), limit)
    }

    /// Kills it. One that has ended already is no error.
    pub fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.fd, rustix::process::Signal::KILL);
    }

    /// Sends it SIGTERM. One that has ended already is no error.
    pub fn terminate(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.fd, rustix::process::Signal::TERM);
    }

    /// Sends it SIGINT, as Ctrl-C does. One that has ended already is no error.
    pub fn interrupt(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.fd, rustix::process::Signal::INT);
    }

    /// Stops it where it is, or lets it go on. One that has ended already is no error.
    pub fn pause(&self, stop: bool) {
        let signal = if stop { rustix::process::Signal::STOP } else { rustix::process::Signal::CONT };
        let _ = rustix::process::pidfd_send_signal(&self.fd, signal);
    }
}

/// Waits until the process `pid` has ended or `limit` has passed; says which. One that is not there has ended.
///
/// # Errors
/// poll(2) fails.
pub fn process(pid: u32, limit: Duration) -> io::Result<bool> {
    match Process::open(pid) {
        Ok(p) => p.ended(limit),
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(true),
        Err(e) => Err(e),
    }
}

/// Waits until `look` finds something, looking again whenever something happens to an entry of the directory
/// `dir` (made, removed, renamed, written, closed), until `limit` has passed.
///
/// # Errors
/// The directory cannot be watched.
pub fn in_dir<T>(dir: &Path, limit: Duration, mut look: impl FnMut() -> Option<T>) -> io::Result<Option<T>> {
    let end = Instant::now() + limit;
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    use inotify::WatchFlags as W;
    let events = W::CREATE | W::DELETE | W::MOVED_TO | W::MOVED_FROM | W::MODIFY | W::CLOSE_WRITE | W::ATTRIB;
    inotify::add_watch(&watch, dir, events)
        .map_err(|e| io::Error::new(io::Error::from(e).kind(), format!("cannot watch {}: {e}", dir.display())))?;
    loop {
        // Looked at after the watch stands, so that nothing between the two is missed.
        if let Some(found) = look() {
            return Ok(Some(found));
        }
        if !readable(watch.as_fd(), end.saturating_duration_since(Instant::now()))? {
            return Ok(look());
        }
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&watch, &mut buffer);
        // Drained to EAGAIN: which entry it was does not matter.
        while reader.next().is_ok() {}
    }
}

/// Does `attempt` until it gives something or `limit` has passed, at most every `pause`: for the few things the
/// kernel sends no event about, such as another network namespace's listening sockets.
pub fn retry<T>(limit: Duration, pause: Duration, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    let (_keep, never) = std::sync::mpsc::channel::<()>();
    loop {
        if let Some(found) = attempt() {
            return Some(found);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        let _ = never.recv_timeout(pause.min(left));
    }
}
