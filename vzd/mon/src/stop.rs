//! Asking an init to stop: the table of what each one understands, and the ladder from a polite request to a kill.
//!
//! ```text
//! Asked --(half the time is up)--> PoweroffRun --(all of it is up)--> Killed
//! ```

use std::{
    fs,
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};
use vz_sys::process;

/// What PID 1 really is, by its executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitKind {
    Systemd,
    Sysvinit,
    Openrc,
    Busybox,
    Runit,
    Other,
}

/// How an init is asked to halt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Halt {
    /// `SIGRTMIN+n`.
    RealTime(i32),
    /// A classic signal.
    Signal(i32),
    /// Only by running `poweroff` inside.
    Run,
}

/// One row per init: last path component of its executable, what it is, and how it is asked to halt.
/// Sources: systemd(1) SIGNALS; openrc-init(8); busybox init.c (SIGUSR2 = poweroff).
const INITS: &[(&str, InitKind, Halt)] = &[
    ("systemd", InitKind::Systemd, Halt::RealTime(3)),
    ("openrc-init", InitKind::Openrc, Halt::Signal(libc::SIGUSR2)),
    ("busybox", InitKind::Busybox, Halt::Signal(libc::SIGUSR2)),
    ("runit", InitKind::Runit, Halt::Run),
    ("runit-init", InitKind::Runit, Halt::Run),
    ("init", InitKind::Sysvinit, Halt::Run),
];

fn row(pid: i32) -> (InitKind, Halt) {
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let name = exe.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let name = name.trim_end_matches(" (deleted)");
    INITS.iter().find(|(n, ..)| *n == name).map_or((InitKind::Other, Halt::Run), |(_, kind, halt)| (*kind, *halt))
}

/// What the monitor's loop has to do next for a stop under way.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing before this instant.
    Wait(Instant),
    /// Run `poweroff` inside.
    RunPoweroff,
    /// Kill everything.
    Kill,
}

/// A stop under way.
pub struct Stopping {
    poweroff_at: Option<Instant>,
    kill_at: Instant,
    killed: bool,
    /// Who wants to hear of the end.
    pub waiters: Vec<OwnedFd>,
}

impl Stopping {
    /// Sends the init its own request, unless `fast`.
    pub fn begin(pid: i32, pidfd: BorrowedFd<'_>, timeout: Duration, fast: bool) -> Self {
        let now = Instant::now();
        let mut stopping = Self { poweroff_at: None, kill_at: now + timeout, killed: false, waiters: Vec::new() };
        if fast {
            stopping.kill_at = now;
            return stopping;
        }
        let sent = match row(pid).1 {
            Halt::RealTime(n) => process::pidfd_signal(pidfd, process::sigrtmin(n)).is_ok(),
            Halt::Signal(n) => process::pidfd_signal(pidfd, n).is_ok(),
            Halt::Run => false,
        };
        stopping.poweroff_at = Some(if sent { now + timeout / 2 } else { now });
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

    /// The next rung; called again after it was climbed.
    pub fn next(&mut self) -> Next {
        let now = Instant::now();
        if now >= self.kill_at {
            self.killed = true;
            // Should a process survive in the uninterruptible state, ask again every second.
            self.kill_at = now + Duration::from_secs(1);
            self.poweroff_at = None;
            return Next::Kill;
        }
        match self.poweroff_at {
            Some(at) if now >= at => {
                self.poweroff_at = None;
                Next::RunPoweroff
            }
            Some(at) => Next::Wait(at.min(self.kill_at)),
            None => Next::Wait(self.kill_at),
        }
    }
}

/// Kills everything in our cgroup level of the container, thawing it first: a frozen process cannot die.
pub fn kill_cgroup(cgroup: &Path) -> std::io::Result<()> {
    // Absent on the level itself only when the cgroup is already gone.
    let _ = fs::write(cgroup.join("cgroup.freeze"), "0");
    fs::write(cgroup.join("cgroup.kill"), "1")
}
