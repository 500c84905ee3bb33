//! A user namespace around the container's own, for the limits that its root must not raise.
//!
//! The kernel counts namespaces at every level of user namespaces upwards and refuses at the first one whose
//! `user.max_*_namespaces` is reached (user_namespaces(7), namespaces(7)). In its own namespace the container's root
//! may write those files; in the one around it, which no process stays in, it has no capability.
//!
//! ```text
//! vzmon: clone3 NEWUSER, as the container's own uid
//!   v
//! fence: waits for its maps (the container's ids, unchanged), writes the limits,
//!        clone3 NEWUSER NEWNET CLONE_PARENT: the stage, a child of vzmon; writes its maps, tells its pid, exits
//! ```

use crate::{
    error::{At, StepError},
    launch,
};
use nix::sched::CloneFlags;
use rustix::{
    fs::{Mode, OFlags, openat},
    mount::MountAttrFlags,
};
use std::{
    fs,
    io::{self, Write},
    os::fd::{BorrowedFd, OwnedFd},
    time::Duration,
};
use vz_sys::{
    mount,
    process::{self, ActingAs, Cloned, SingleThreaded},
    seqpacket,
};
use vz_types::{
    UidBase,
    policy::NAMESPACE_CAPS,
    size::{Extent, id_map},
};

const STEP: &str = "namespaces";
/// Longest either side may be silent: it is a dozen system calls.
const SILENCE: Duration = Duration::from_secs(30);

/// Makes a fence and in it, with new user and network namespaces of the container's own, a child of this process that
/// runs `inside` and nothing after it. Answers the child's pid and pidfd; its id maps are written.
pub fn clone_inside(
    one: SingleThreaded,
    (base, more): (UidBase, &[UidBase]),
    cgroup: BorrowedFd<'_>,
    inside: impl FnOnce(),
) -> Result<(i32, OwnedFd), StepError> {
    let (ours, theirs) = seqpacket::pair().at(STEP, "make a channel")?;
    let map = id_map(base, more);
    let proc = own_proc().at(STEP, "look at /proc")?;
    let cloned = {
        let _owner = ActingAs::ids(one, base.get(), base.get()).at(STEP, format!("act as uid {}", base.get()))?;
        match process::clone3(one, CloneFlags::CLONE_NEWUSER, Some(cgroup)) {
            // The child leaves the guard's scope by never returning.
            Ok(Cloned::Child) => {
                drop(ours);
                fence(one, &map, &proc, &theirs, inside)
            }
            other => other,
        }
    };
    let what = "clone into a new user namespace (is user.max_user_namespaces large enough?)";
    let Cloned::Parent(fence, fence_pidfd) = cloned.at(STEP, what)? else { process::exit_now(70) };
    drop((theirs, proc));
    let outer: Vec<Extent> = map.iter().map(|(_, outside, count)| (*outside, *outside, *count)).collect();
    let made = process::write_id_map(fence, &outer)
        .at(STEP, "write the outer id maps")
        .and_then(|()| seqpacket::send(&ours, b"maps", &[]).at(STEP, "let the outer user namespace go on"))
        .and_then(|()| hear(&ours));
    if made.is_err() {
        let _ = process::pidfd_signal(std::os::fd::AsFd::as_fd(&fence_pidfd), libc::SIGKILL);
    }
    launch::reap(&fence_pidfd);
    let pid = made?;
    Ok((pid, process::pidfd_open(pid).at(STEP, "open the first process's pidfd")?))
}

/// A procfs that nobody else has. In the host's all containers' files of the same name are one chain in the kernel's cache
/// of names (proc_sys_compare), which each look at one goes through: beside a thousand it costs 0.3 ms for each file.
fn own_proc() -> io::Result<OwnedFd> {
    let inert =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    // A host that allows none has the other one.
    mount::new_mount("proc", &[], inert).or_else(|_| Ok(fs::File::open("/proc")?.into()))
}

/// The first process's pid, or what the fence says went wrong.
fn hear(ours: &OwnedFd) -> Result<i32, StepError> {
    const WHAT: &str = "make the container's namespaces";
    let (message, _) = seqpacket::recv(ours, Some(SILENCE)).at(STEP, WHAT)?;
    match serde_json::from_slice::<Result<i32, String>>(&message) {
        Ok(Ok(pid)) => Ok(pid),
        Ok(Err(cause)) => Err(io::Error::other(cause)).at(STEP, WHAT),
        Err(_) => Err(io::Error::other("it ended without a word")).at(STEP, WHAT),
    }
}

/// The fence's whole life.
fn fence(one: SingleThreaded, map: &[Extent], proc: &OwnedFd, channel: &OwnedFd, inside: impl FnOnce()) -> ! {
    let made = match seqpacket::recv(channel, Some(SILENCE)) {
        Ok((word, _)) if word.is_empty() => process::exit_now(0),
        Ok(_) => fence_steps(one, map, proc, inside),
        Err(e) => Err(e),
    };
    let made = made.map_err(|e| e.to_string());
    let code = i32::from(made.is_err());
    if let Ok(text) = serde_json::to_vec(&made) {
        let _ = seqpacket::send(channel, &text, &[]);
    }
    process::exit_now(code)
}

fn fence_steps(one: SingleThreaded, map: &[Extent], proc: &OwnedFd, inside: impl FnOnce()) -> io::Result<i32> {
    for (kind, cap) in NAMESPACE_CAPS {
        let name = format!("sys/user/max_{kind}_namespaces");
        let write = || -> io::Result<()> {
            let file = openat(proc, name.as_str(), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
            fs::File::from(file).write_all(cap.to_string().as_bytes())
        };
        match write() {
            // A kind this kernel does not have needs no limit.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            done => done.map_err(|e| io::Error::new(e.kind(), format!("/proc/{name}: {e}")))?,
        }
    }
    // The files below the child's /proc/PID belong to root of the host while it is not dumpable, and this process is
    // root of nothing but its own namespace. No process of the container exists yet that could trace it.
    nix::sys::prctl::set_dumpable(true)?;
    let spaces = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_PARENT;
    match process::clone3(one, spaces, None)? {
        Cloned::Child => {
            inside();
            process::exit_now(0)
        }
        Cloned::Parent(pid, pidfd) => {
            process::write_id_map(pid, map).inspect_err(|_| {
                let _ = process::pidfd_signal(std::os::fd::AsFd::as_fd(&pidfd), libc::SIGKILL);
            })?;
            Ok(pid)
        }
    }
}
