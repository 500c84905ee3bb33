//! The short modes: `vzmon blank`, `vzmon mount` and `vzmon edit`. One plan on standard input, one answer, done.

use crate::{
    edit::{self, Due, Last, Outcome},
    error::{At, StepError},
    launch, setup, storage,
};
use nix::sched::CloneFlags;
use rustix::{
    fs::CWD,
    mount::{OpenTreeFlags, open_tree},
};
use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    process::ExitCode,
    time::Duration,
};
use vz_sys::{
    process::{self, ActingAs, Cloned, SingleThreaded},
    seqpacket,
};
use vz_types::{
    plan::{EditPlan, MountPlan, TaskReply},
    size::{Extent, id_map},
};

const STEP: &str = "task";

/// Makes the mount namespace that containers' are copied from, and hands it over.
pub fn blank(one: SingleThreaded) -> ExitCode {
    task(|_| vz_sys::blank::enter_new(one).at("namespaces", "make the mount namespace containers begin in").map(Some))
}

/// Mounts a container's files on the host.
pub fn mount(one: SingleThreaded) -> ExitCode {
    task(|channel| {
        let (plan, _): (MountPlan, _) = hear(channel)?;
        let space = TemporaryUserns::make(one, &id_map(plan.storage.uid_base, &plan.more))?;
        storage::show(&plan.storage, space.fd.as_fd())
            .map_err(io::Error::other)
            .at("storage", "mount the container's files")?;
        Ok(None)
    })
}

/// Edits files of a stopped container, from inside a pair of namespaces made for it.
pub fn edit(one: SingleThreaded) -> ExitCode {
    task(|channel| {
        let (plan, blank): (EditPlan, _) = hear(channel)?;
        let base = plan.storage.uid_base.get();
        let shown = plan.storage.root.display();
        let root =
            open_tree(CWD, &plan.storage.root, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
                .map_err(io::Error::from)
                .and_then(|tree| vz_sys::mount::make_private(tree.as_fd()).map(|()| tree))
                .at(STEP, format!("clone the mount at {shown}"))?;
        let (ours, theirs) = seqpacket::pair().at(STEP, "make a channel")?;
        let cloned = {
            let _there = launch::visit(one, blank.as_ref())?;
            let _owner = ActingAs::ids(one, base, base).at(STEP, format!("act as uid {base}"))?;
            match process::clone3(one, CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS, None) {
                Ok(Cloned::Child) => inside(one, &plan, root, &theirs),
                other => other,
            }
        };
        let Cloned::Parent(pid, pidfd) = cloned.at(STEP, "clone into temporary namespaces")? else {
            process::exit_now(70)
        };
        drop(theirs);
        process::write_id_map(pid, &id_map(plan.storage.uid_base, &plan.more)).at(STEP, "write the id maps")?;
        seqpacket::send(&ours, b"go", &[]).at(STEP, "go on")?;
        let outcome = seqpacket::recv(&ours, Some(launch::EDIT_DEADLINE + Duration::from_secs(2)));
        let _ = process::pidfd_signal(pidfd.as_fd(), libc::SIGKILL);
        launch::reap(&pidfd);
        let (message, _) = outcome.at(STEP, "edit the container's files")?;
        match launch::read_outcome(&message).failed.into_iter().next() {
            None => Ok(None),
            Some(cause) => Err(io::Error::other(cause)).at(STEP, "edit the container's files"),
        }
    })
}

/// The temporary namespaces' one process. Never returns.
fn inside(one: SingleThreaded, plan: &EditPlan, root: OwnedFd, channel: &OwnedFd) -> ! {
    let outcome = (|| {
        seqpacket::recv(channel, Some(Duration::from_secs(10))).at(STEP, "wait for the id maps")?;
        process::become_root().at(STEP, "become root inside")?;
        setup::enter_root(root)?;
        setup::leave_old_root()?;
        let due: Vec<Due> = plan.edits.iter().map(|edit| Due { edit: edit.clone(), last: Last::Asked }).collect();
        Ok(launch::apply_edits(one, &due, edit::apply))
    })();
    let outcome = outcome.unwrap_or_else(|e: StepError| Outcome::of(Err(e.source.to_string())));
    launch::tell_outcome(channel, &outcome);
    process::exit_now(0)
}

/// A user namespace with a container's maps, kept by a descriptor: idmapped mounts take their map from one.
struct TemporaryUserns {
    fd: OwnedFd,
}

impl TemporaryUserns {
    fn make(one: SingleThreaded, map: &[Extent]) -> Result<Self, StepError> {
        let (ours, theirs) = seqpacket::pair().at(STEP, "make a channel")?;
        match process::clone3(one, CloneFlags::CLONE_NEWUSER, None).at(STEP, "clone into a user namespace")? {
            Cloned::Child => {
                drop(ours);
                let _ = seqpacket::recv(&theirs, Some(Duration::from_secs(10)));
                process::exit_now(0)
            }
            Cloned::Parent(pid, pidfd) => {
                process::write_id_map(pid, map).at(STEP, "write the id maps")?;
                let fd = File::open(format!("/proc/{pid}/ns/user"))
                    .map(OwnedFd::from)
                    .at(STEP, "open the user namespace")?;
                drop(ours);
                launch::reap(&pidfd);
                Ok(Self { fd })
            }
        }
    }
}

/// The plan, and the mount namespace that containers' are copied from where one came with it.
fn hear<T: serde::de::DeserializeOwned>(channel: &OwnedFd) -> Result<(T, Option<OwnedFd>), StepError> {
    let (message, fds) = seqpacket::recv(channel, Some(Duration::from_secs(10))).at(STEP, "read the plan")?;
    let plan = serde_json::from_slice(&message).map_err(io::Error::from).at(STEP, "read the plan")?;
    Ok((plan, fds.into_iter().next()))
}

fn task(work: impl FnOnce(&OwnedFd) -> Result<Option<OwnedFd>, StepError>) -> ExitCode {
    let Ok(channel) = process::inherited_fd(0) else { return ExitCode::FAILURE };
    let _ = process::close_from(3);
    let (reply, made) = match work(&channel) {
        Ok(made) => (TaskReply::Done, made),
        Err(e) => (TaskReply::Failed { cause: e.to_string() }, None),
    };
    if let Ok(text) = serde_json::to_vec(&reply) {
        let fds: Vec<_> = made.iter().map(AsFd::as_fd).collect();
        let _ = seqpacket::send(&channel, &text, &fds);
    }
    ExitCode::SUCCESS
}
