//! The terminal of `enter`: one of the container's own devpts, so that `tty` inside names it and programs can open it by
//! that name. Its master stays with the relay on the host. Where the container has none to give (all are taken, there is no
//! devpts at `/dev/pts`, or its processes are frozen), it is one of the host's, which has no name inside.

use super::{STEP, clone_inside, join};
use crate::{
    error::{At, StepError},
    launch,
};
use rustix::fs::{Mode, OFlags};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};
use vz_sys::{
    inherited,
    process::{self, Cloned, SingleThreaded},
    pty::{self, Pty},
    seqpacket,
};
use vz_types::run::RunRecord;

/// Longest a terminal of the container's own is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Group `tty` on every distribution we know.
const TTY: u32 = 5;

/// A terminal for a program in this container.
pub(super) fn open(one: SingleThreaded, state: &RunRecord, init: &OwnedFd) -> Result<Pty, StepError> {
    if let Ok(pty) = of_container(one, state, init) {
        return Ok(pty);
    }
    let base = state.uid_base.get();
    let pty = pty::open().at(STEP, "open a terminal")?;
    pty::give(&pty.slave, base, base + TTY).at(STEP, "hand over the terminal")?;
    Ok(pty)
}

/// Has it opened by a child that joins the container: only there is its devpts. The child counts towards the container
/// and stays in the host's pid namespace, where nobody inside sees it.
fn of_container(one: SingleThreaded, state: &RunRecord, init: &OwnedFd) -> io::Result<Pty> {
    let (ours, theirs) = seqpacket::pair()?;
    match clone_inside(one, state).map_err(io::Error::other)? {
        Cloned::Child => {
            drop(ours);
            inherited::begin_anew();
            let status = make(init, &theirs);
            process::exit_now(i32::from(status.is_err()))
        }
        Cloned::Parent(_, child) => {
            drop(theirs);
            let said = seqpacket::recv(&ours, Some(PATIENCE));
            let _ = process::pidfd_signal(child.as_fd(), libc::SIGKILL);
            // Killed and not waited for where it is frozen: what was to be had from it is here or is done without.
            if said.is_ok() {
                launch::reap(&child);
            }
            let mut fds = said?.1.into_iter();
            match (fds.next(), fds.next()) {
                (Some(master), Some(slave)) => Ok(Pty { master, slave }),
                _ => Err(io::Error::other("the container has no terminal to give")),
            }
        }
    }
}

fn make(init: &OwnedFd, answer: &OwnedFd) -> io::Result<()> {
    let own_proc = rustix::fs::open("/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    join(init).map_err(io::Error::other)?;
    let pty = pty::open_inside(&own_proc)?;
    // A devpts that was mounted inside need not have the usual owner and mode.
    pty::give(&pty.slave, 0, TTY)?;
    seqpacket::send(answer, b"+", &[pty.master.as_fd(), pty.slave.as_fd()])
}
