//! Asking an init to stop: the ladder from a polite request to a kill. [`vz_types::inits`] has what each one understands.
//!
//! ```text
//! Asking --(it has surely heard)--> Asked --(half the time is up)--> PoweroffRun --(all of it is up)--> Killed
//! ```
//! Which row applies is read off PID 1's executable each time it is asked: neither the template's word nor what the
//! container was started with counts.

use std::{
    os::fd::{BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};
use vz_sys::{
    proc::{self, Status},
    process,
};
use vz_types::inits::{self, Halt, Request};

/// How the init that is PID 1 now is asked; `None`: only by running `poweroff` inside.
fn halt_of(pid: i32) -> Option<Halt> {
    Some(inits::of_exe(&proc::exe(pid).ok()?)?.halt)
}

/// Whether a signal is sure to arrive: PID 1 of a namespace never gets one that it neither catches nor blocks (to fetch
/// it later), and an init that is still starting has done neither yet (pid_namespaces(7)). One that waits in
/// sigtimedwait(2), as busybox does, hears as well, but the kernel shows its signals as not blocked meanwhile.
fn hears(pid: i32, signal: i32) -> bool {
    proc::status(pid).is_ok_and(|status| hears_in(&status, signal))
}

fn hears_in(status: &Status, signal: i32) -> bool {
    (status.signals("SigCgt") | status.signals("SigBlk")) >> (signal - 1) & 1 == 1
}

/// What the monitor's loop has to do next for a stop under way.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing before this instant.
    Wait(Instant),
    /// Make this request inside.
    Ask(Request),
    /// Run `poweroff` inside.
    RunPoweroff,
    /// Kill everything.
    Kill,
}

/// Between two signals to an init that may not have heard the first.
const AGAIN: Duration = Duration::from_millis(100);

/// A stop under way.
pub struct Stopping {
    /// The init is still to be asked, at this instant or later.
    ask_at: Option<Instant>,
    poweroff_at: Option<Instant>,
    kill_at: Instant,
    killed: bool,
    /// Who wants to hear of the end.
    pub waiters: Vec<OwnedFd>,
}

impl Stopping {
    /// A stop that has `timeout` to go well, none at all if it is to be `fast`.
    pub fn begin(timeout: Duration, fast: bool) -> Self {
        let now = Instant::now();
        let mut stopping = Self { ask_at: None, poweroff_at: None, kill_at: now, killed: false, waiters: Vec::new() };
        if !fast {
            stopping.ask_at = Some(now);
            stopping.poweroff_at = Some(now + timeout / 2);
            stopping.kill_at = now + timeout;
        }
        stopping
    }

    /// A second request: it may only be more urgent.
    pub fn hurry(&mut self, timeout: Duration, fast: bool) {
        let wanted = if fast { Instant::now() } else { Instant::now() + timeout };
        self.kill_at = self.kill_at.min(wanted);
    }

    /// Whether we killed it.
    pub fn killed(&self) -> bool {
        self.killed
    }

    /// The next rung; called again after it was climbed. `pid` and `pidfd` are PID 1's.
    pub fn next(&mut self, pid: i32, pidfd: BorrowedFd<'_>) -> Next {
        let now = Instant::now();
        if now >= self.kill_at {
            self.killed = true;
            // Should a process survive in the uninterruptible state, ask again every second.
            self.kill_at = now + Duration::from_secs(1);
            (self.ask_at, self.poweroff_at) = (None, None);
            return Next::Kill;
        }
        if self.poweroff_at.is_some_and(|at| now >= at) {
            (self.ask_at, self.poweroff_at) = (None, None);
            return Next::RunPoweroff;
        }
        if self.ask_at.is_some_and(|at| now >= at) {
            let signal = match halt_of(pid) {
                Some(Halt::RealTime(n)) => process::sigrtmin(n),
                Some(Halt::Term) => libc::SIGTERM,
                Some(Halt::Usr2) => libc::SIGUSR2,
                Some(Halt::Inside(request)) => {
                    self.ask_at = None;
                    return Next::Ask(request);
                }
                None => {
                    (self.ask_at, self.poweroff_at) = (None, None);
                    return Next::RunPoweroff;
                }
            };
            // Sent in any case; sent again as long as it may have been lost. No init minds being asked twice.
            let sure = hears(pid, signal);
            let sent = process::pidfd_signal(pidfd, signal).is_ok();
            self.ask_at = if sure && sent { None } else { Some(now + AGAIN) };
        }
        let first = [self.ask_at, self.poweroff_at].into_iter().flatten().min();
        Next::Wait(first.map_or(self.kill_at, |at| at.min(self.kill_at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_no_init_we_know_is_asked_by_running_poweroff() {
        assert_eq!(halt_of(std::process::id() as i32), None);
        assert_eq!(halt_of(i32::MAX), None);
    }

    #[test]
    fn a_signal_counts_as_heard_when_it_is_caught_or_blocked() {
        // Bits are signal numbers less one: SIGUSR2 is 12, SIGTERM 15.
        let status = "Name:\tinit\nSigBlk:\t0000000000000800\nSigIgn:\t0000000000004000\nSigCgt:\t0000000000000001\n";
        let status = Status::new(status);
        assert!(hears_in(&status, libc::SIGUSR2));
        assert!(hears_in(&status, libc::SIGHUP));
        assert!(!hears_in(&status, libc::SIGTERM), "ignored is not heard");
        assert!(!hears_in(&Status::new(""), libc::SIGHUP));
    }

    #[test]
    fn a_fast_stop_kills_at_once_and_a_patient_one_runs_poweroff_first() {
        let me = process::pidfd_open(std::process::id() as i32).unwrap();
        // No such process: nothing is known of its init, so the program inside is what is left.
        let next = |s: &mut Stopping| s.next(i32::MAX, std::os::fd::AsFd::as_fd(&me));
        assert_eq!(next(&mut Stopping::begin(Duration::from_secs(60), true)), Next::Kill);
        let mut patient = Stopping::begin(Duration::from_secs(60), false);
        assert_eq!(next(&mut patient), Next::RunPoweroff);
        assert!(matches!(next(&mut patient), Next::Wait(_)));
        patient.hurry(Duration::ZERO, true);
        assert_eq!(next(&mut patient), Next::Kill);
        assert!(patient.killed());
    }
}
