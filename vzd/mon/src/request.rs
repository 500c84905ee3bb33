//! Requests to halt that an init takes through its own files and not by a signal: sysvinit's control channel and
//! runit's stop file. Made by a process of ours that is the container's root inside, in all of its namespaces and
//! confined like any program there: nothing a tenant lays in its way leads further than he could go himself, and
//! no program of his is needed.

use rustix::{
    event::{Timespec, poll},
    fs::{self, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
    process::{Pid, Signal},
};
use std::time::{Duration, Instant};
use vz_types::inits::Request;

/// How long an init that is not ready for requests yet (it is still starting) is tried.
const PATIENCE: Duration = Duration::from_secs(50);
/// Between two tries.
const AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Makes the request of the init whose files these are, trying again while it is not ready for it. Says whether it
/// was made.
pub fn make(request: Request) -> bool {
    let until = Instant::now() + PATIENCE;
    loop {
        let made = match request {
            Request::Runlevel0(channels) => sysvinit(channels),
            Request::StopFile(files) => runit(files),
        };
        if made || Instant::now() >= until {
            return made;
        }
        let _ = poll(&mut [], Some(&AGAIN));
    }
}

fn sysvinit(channels: &[&str]) -> bool {
    channels.iter().any(|path| {
        // A FIFO nobody reads refuses at once, and one that is full is no way to be heard.
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let Ok(fifo) = fs::openat2(CWD, *path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS) else { return false };
        let is_fifo = fs::fstat(&fifo).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Fifo);
        is_fifo && rustix::io::write(&fifo, &runlevel_0()) == Ok(REQUEST_LEN)
    })
}

/// Size of sysvinit's `struct init_request` (initreq.h): four ints and 368 bytes of data. Less than `PIPE_BUF`, so it
/// arrives as a whole.
const REQUEST_LEN: usize = 384;

/// `INIT_CMD_RUNLVL` to runlevel 0, with telinit's usual three seconds between SIGTERM and SIGKILL to what init
/// itself has started.
fn runlevel_0() -> [u8; REQUEST_LEN] {
    const MAGIC: i32 = 0x0309_1969;
    const RUNLEVEL: i32 = 1;
    let mut message = [0; REQUEST_LEN];
    for (at, word) in [MAGIC, RUNLEVEL, i32::from(b'0'), 3].into_iter().enumerate() {
        message[at * 4..at * 4 + 4].copy_from_slice(&word.to_ne_bytes());
    }
    message
}

fn runit(files: &[(&str, &str)]) -> bool {
    files.iter().any(|(stop, reboot)| {
        let mode = || {
            let stat = fs::statat(CWD, *stop, AtFlags::empty()).ok()?;
            let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            regular.then(|| Mode::from_raw_mode(stat.st_mode))
        };
        // An executable reboot file turns a halt into a reboot.
        let asked = mode().is_some()
            && matches!(fs::chmodat(CWD, *reboot, Mode::empty(), AtFlags::empty()), Ok(()) | Err(Errno::NOENT))
            && fs::chmodat(CWD, *stop, Mode::XUSR, AtFlags::empty()).is_ok()
            && rustix::process::kill_process(Pid::INIT, Signal::CONT).is_ok();
        // It listens in its second stage only, and takes the permission back when it has heard.
        asked && {
            let _ = poll(&mut [], Some(&AGAIN));
            mode().is_none_or(|m| !m.contains(Mode::XUSR))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_what_telinit_0_writes() {
        let message = runlevel_0();
        assert_eq!(message[..4], 0x0309_1969_i32.to_ne_bytes());
        assert_eq!(message[4..8], 1_i32.to_ne_bytes());
        assert_eq!(message[8..12], 48_i32.to_ne_bytes());
        assert!(message[16..].iter().all(|b| *b == 0));
    }
}
