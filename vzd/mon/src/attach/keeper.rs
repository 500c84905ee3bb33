//! The program's parent on the host. The end of a container waits until every process in its pid namespace is reaped
//! (pid_namespaces(7)), and only a parent can do that: so this is neither the operator's process, which a Ctrl-Z stops
//! and a pager holds up, nor anything that writes to a client. It reaps, tells, and ends.
//!
//! ```text
//! relay --(number of a signal)--> keeper --(STARTED | a failure, then ENDED and the status)--> relay
//! ```
//! Without a relay it ends as well: the program's parent is then whoever takes in orphans.

use super::{Inside, STEP, clone_inside, join, program, report};
use crate::{
    confine,
    error::{At, StepError},
    launch,
};
use nix::sched::CloneFlags;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{WaitId, WaitIdOptions, waitid},
};
use std::{
    fs::OpenOptions,
    io,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};
use vz_sys::{
    inherited,
    process::{self, Cloned, SingleThreaded},
    seqpacket,
};

/// The program was executed.
pub(super) const STARTED: &[u8] = b"+";
/// First byte of the message that it has ended; the second is its exit status.
pub(super) const ENDED: u8 = b'=';

/// How long an end that shows in other ways already may take to be seen.
const ENDING: Duration = Duration::from_secs(2);

/// Why there is no program.
enum Not {
    /// The message of whoever failed; empty: it was killed.
    Said(Vec<u8>),
    /// A step of ours.
    Step(StepError),
    /// The relay has gone.
    Alone,
}

impl From<StepError> for Not {
    fn from(e: StepError) -> Self {
        Self::Step(e)
    }
}

/// The keeper's whole life. Never returns.
pub(super) fn keep(one: SingleThreaded, what: Inside<'_>, relay: &OwnedFd) -> ! {
    let _ = rustix::process::setsid();
    match start(one, &what, relay) {
        Ok((pid, pidfd)) => {
            // The relay's ends of pipes and terminal are to be the only ones outside.
            drop(what);
            let _ = seqpacket::send(relay, STARTED, &[]);
            watch(relay, pid, &pidfd)
        }
        Err(Not::Alone) => process::exit_now(0),
        Err(Not::Step(e)) => report(relay, Some(e)),
        Err(Not::Said(message)) => {
            let _ = seqpacket::send(relay, &explained(&message, &what.target), &[]);
            process::exit_now(0)
        }
    }
}

/// What a failure comes to when one looks at the container: one that ends has no more room for a program, and kills what
/// has not begun.
fn explained(message: &[u8], init: &OwnedFd) -> Vec<u8> {
    let killed = message.is_empty();
    let patience = if killed || message.first() == Some(&b'g') { ENDING } else { Duration::ZERO };
    if wait(&[init], Some(patience)).is_some() {
        return b"rContainer is not running: it has ended meanwhile....".into();
    }
    if killed {
        return b"eit was killed before it had begun; the container is being stopped, or its processes are killed from \
                 inside...."
            .into();
    }
    message.to_vec()
}

/// The first of these that is readable or hung up; `None`: none within this time.
fn wait(fds: &[&OwnedFd], within: Option<Duration>) -> Option<usize> {
    let until = within.map(|w| Instant::now() + w);
    loop {
        let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::IN)).collect();
        let left = until.map(|at| at.saturating_duration_since(Instant::now()));
        let spec = left.map(|l| Timespec { tv_sec: l.as_secs() as i64, tv_nsec: i64::from(l.subsec_nanos()) });
        match poll(&mut polled, spec.as_ref()) {
            Ok(0) => return None,
            Ok(_) => return polled.iter().position(|fd| !fd.revents().is_empty()),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// Brings the program to its exec. A container that is frozen meanwhile keeps nobody: the relay may go at any moment.
fn start(one: SingleThreaded, what: &Inside<'_>, relay: &OwnedFd) -> Result<(i32, OwnedFd), Not> {
    let (ours, theirs) = seqpacket::pair().at(STEP, "make a channel")?;
    let joiner = match clone_inside(one, &what.state)? {
        Cloned::Child => {
            drop(ours);
            inherited::begin_anew();
            // As root of the host still: the container's limits may be above the operator's own.
            let limited = confine::default_rlimits(&what.state.limits).at(STEP, "set the resource limits");
            let outcome: Result<(), StepError> = limited.and_then(|()| join(&what.target)).and_then(|()| {
                let sibling = CloneFlags::CLONE_PARENT;
                match process::clone3(one, sibling, None).at(STEP, "clone the program")? {
                    Cloned::Child => program(what.plan, &what.state, &what.stdio, what.script.as_ref(), None)
                        .map(|never| match never {}),
                    Cloned::Parent(pid, _) => {
                        let _ = seqpacket::send(&theirs, &pid.to_le_bytes(), &[]);
                        process::exit_now(0)
                    }
                }
            });
            report(&theirs, outcome.err())
        }
        Cloned::Parent(_, pidfd) => pidfd,
    };
    drop(theirs);
    // Nothing of the operator's stays open here: whoever reads from the relay waits for its end.
    own_stdio().at(STEP, "open /dev/null")?;
    let pid = match hear(&ours, relay, &joiner)? {
        m if m.len() == 4 => i32::from_le_bytes([m[0], m[1], m[2], m[3]]),
        m => {
            launch::reap(&joiner);
            return Err(Not::Said(m));
        }
    };
    let pidfd = process::pidfd_open(pid).at(STEP, "open the program's pidfd")?;
    launch::reap(&joiner);
    let message = hear(&ours, relay, &pidfd)?;
    if !message.is_empty() {
        launch::reap(&pidfd);
        return Err(Not::Said(message));
    }
    Ok((pid, pidfd))
}

/// The next message from inside. When the relay has gone first, `child` is killed.
fn hear(channel: &OwnedFd, relay: &OwnedFd, child: &OwnedFd) -> Result<Vec<u8>, Not> {
    match wait(&[channel, relay], None) {
        Some(0) => Ok(seqpacket::try_recv(channel).at(STEP, "hear from inside")?.0),
        _ => {
            let _ = process::pidfd_signal(child.as_fd(), libc::SIGKILL);
            Err(Not::Alone)
        }
    }
}

fn own_stdio() -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(rustix::stdio::dup2_stderr(&null)?)
}

/// Passes signals on until the program has ended, and tells how. `group` is the program's process group, whose number is
/// its own until it is reaped here.
fn watch(relay: &OwnedFd, group: i32, pidfd: &OwnedFd) -> ! {
    loop {
        match wait(&[pidfd, relay], None) {
            Some(0) => break,
            _ => match seqpacket::try_recv(relay) {
                // To the program's whole group, as a terminal would send it.
                Ok((message, _)) if message.len() == 1 => {
                    if let Ok(signal) = nix::sys::signal::Signal::try_from(i32::from(message[0])) {
                        let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(group), signal);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                _ => process::exit_now(0),
            },
        }
    }
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).ok().flatten();
    let status = status.map_or(0, |s| match (s.exit_status(), s.terminating_signal()) {
        (Some(code), _) => code as u8,
        (_, Some(signal)) => 128 + signal as u8,
        _ => 0,
    });
    let _ = seqpacket::send(relay, &[ENDED, status], &[]);
    process::exit_now(0)
}
