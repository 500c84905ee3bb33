//! Processes that must be recognised after a restart of ours: by pid, start time and host boot.

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};
use vz_types::run::ProcessId;

/// Identifies this boot of the host (random(4)).
pub fn host_boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|s| s.trim().to_owned()).unwrap_or_default()
}

/// A fresh random UUID from the kernel.
pub fn new_uuid() -> std::io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned())
}

/// Field 22 of `/proc/PID/stat`. The name in field 2 may hold anything, so fields count from its last `)`.
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// A pidfd of exactly that process, if it is alive.
pub fn open(id: ProcessId) -> Option<OwnedFd> {
    let fd = pidfd_open(Pid::from_raw(id.pid)?, PidfdFlags::empty()).ok()?;
    // Checked after the pidfd is open: from then on the pid cannot become somebody else's.
    (start_time(id.pid)? == id.start_time && !ended(&fd)).then_some(fd)
}

/// Whether the process of a pidfd has ended.
pub fn ended(pidfd: &OwnedFd) -> bool {
    wait_end(pidfd, Duration::ZERO)
}

/// Waits for the process of a pidfd to end; false at the deadline.
pub fn wait_end(pidfd: impl AsFd, deadline: Duration) -> bool {
    let timeout = Timespec::try_from(deadline).unwrap_or(Timespec { tv_sec: 3600, tv_nsec: 0 });
    loop {
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(n) => return n > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// Kills the process of a pidfd; one that has ended is fine.
pub fn kill(pidfd: &OwnedFd) {
    let _ = pidfd_send_signal(pidfd, Signal::KILL);
}
