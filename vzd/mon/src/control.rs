//! Requests on `control.sock`: reading them, and the work that is done by a child in the container's namespaces while
//! the monitor's loop goes on.

use crate::{
    edit::{Due, Last, Outcome},
    error::{At, StepError},
    inside_net, launch,
};
use nix::sched::CloneFlags;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};
use vz_sys::{
    process::{self, Cloned, SingleThreaded},
    seqpacket,
};
use vz_types::{
    CtAddr, Hostname, UidBase,
    limits::kernel::Inside,
    plan::{ControlReply, ControlRequest, FileEdit},
    run::ProcessId,
};

/// A request, and until when whoever made it waits for an answer, by the clock that [`now`] reads.
pub type Heard = (ControlRequest, Option<u64>);

/// Milliseconds of `CLOCK_BOOTTIME`, which every process of the host reads alike and a suspended host does not stop.
pub fn now() -> u64 {
    u64::try_from(vz_sys::proc::boottime().as_millis()).unwrap_or(u64::MAX)
}

/// Whether whoever made this connection has closed it, or ended: nobody waits for an answer, and what was asked for has
/// been reported as failed.
pub fn is_gone(client: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(client, PollFlags::empty())];
    // A hang-up is always told (poll(2)).
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|n| n > 0)
}

/// Reads the request of a client that has just spoken; `WouldBlock` when there is none yet.
pub fn read(client: &OwnedFd) -> io::Result<Heard> {
    let (message, _) = seqpacket::try_recv(client)?;
    if message.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(ControlRequest::read(&message)?)
}

/// Answers; a client that has gone away is its own business. There is room for the one answer that each gets, so the
/// monitor's loop never waits here.
pub fn reply(client: &OwnedFd, reply: &ControlReply) {
    if let Ok(text) = serde_json::to_vec(reply) {
        let _ = seqpacket::try_send(client, &text, &[]);
    }
}

/// Work under way in a child, and who waits for it.
pub struct Job {
    pub pidfd: OwnedFd,
    pub result: OwnedFd,
    pub deadline: Instant,
    pub client: OwnedFd,
    /// The edits among it.
    pub due: Vec<Due>,
}

impl Job {
    /// What the child said, which has spoken, ended or run out of time.
    pub fn outcome(&self) -> Outcome {
        match seqpacket::try_recv(&self.result) {
            Ok((message, _)) => launch::read_outcome(&message),
            Err(_) => Outcome::of(Err("it took too long inside the container and was given up".into())),
        }
    }

    /// Answers and kills it. Gives it back, to be reaped when it has ended, which one that hangs in the kernel may take
    /// its time for.
    pub fn conclude(self, outcome: Outcome) -> OwnedFd {
        let answer = match outcome.failed.into_iter().next() {
            None => ControlReply::Done,
            Some(cause) => ControlReply::Failed { cause },
        };
        let _ = process::pidfd_signal(self.pidfd.as_fd(), libc::SIGKILL);
        reply(&self.client, &answer);
        self.pidfd
    }
}

/// Other limits than before.
pub struct Limits<'a> {
    /// The container's ids.
    pub owner: UidBase,
    /// Our level of its cgroup.
    pub cgroup: &'a std::path::Path,
    /// What holds now.
    pub old: &'a Inside,
    /// What is to hold.
    pub new: &'a Inside,
}

/// What a job does once it is in the container's namespaces.
pub enum Work<'a> {
    /// File edits, in the mount namespace; a host name that is asked for now in the UTS namespace too.
    Edit(&'a [Due]),
    /// The addresses of a link, in the network namespace.
    Addresses(&'a str, &'a [CtAddr]),
    /// Limits of its network and ipc namespaces, and of two filesystems in the mount namespace.
    Limits(&'a Limits<'a>),
    /// The running host name, in the UTS namespace.
    Hostname(&'a Hostname),
}

/// Starts a child that joins the namespaces the work needs (user always, pid never: so nothing inside can see it) and
/// does it as the container's root. It is given up after [`launch::EDIT_DEADLINE`], and before whoever asks is gone.
pub fn start(
    one: SingleThreaded,
    init: ProcessId,
    work: &Work<'_>,
    client: OwnedFd,
    until: Option<u64>,
) -> Result<Job, StepError> {
    const STEP: &str = "control";
    let open = |name: &str| {
        fs::File::open(format!("/proc/{}/ns/{name}", init.pid))
            .at(STEP, format!("open the container's {name} namespace"))
    };
    if let Work::Limits(l) = work {
        crate::limits::apply_parameters(one, init.pid, l.owner, l.new, true)?;
    }
    let user = open("user")?;
    let mut others = Vec::new();
    match work {
        Work::Edit(due) => {
            if asked_name(due).is_some() {
                others.push((open("uts")?, CloneFlags::CLONE_NEWUTS));
            }
            others.push((open("mnt")?, CloneFlags::CLONE_NEWNS));
        }
        Work::Limits(..) => others.push((open("mnt")?, CloneFlags::CLONE_NEWNS)),
        Work::Addresses(..) => others.push((open("net")?, CloneFlags::CLONE_NEWNET)),
        Work::Hostname(_) => others.push((open("uts")?, CloneFlags::CLONE_NEWUTS)),
    }
    let (result, theirs) = seqpacket::pair().at(STEP, "make a channel")?;
    match process::clone3(one, CloneFlags::empty(), None).at(STEP, "clone")? {
        Cloned::Child => {
            let outcome = (|| {
                nix::sched::setns(&user, CloneFlags::CLONE_NEWUSER).at(STEP, "join the user namespace")?;
                process::become_root().at(STEP, "become root inside")?;
                if let Work::Limits(l) = work {
                    // Lowering is within the rights of the container's root; raising is left to vzd.
                    vz_sys::rlimits::limit(l.cgroup, l.new, l.old, true).at(STEP, "limit the container's processes")?;
                }
                for (space, flag) in &others {
                    nix::sched::setns(space, *flag).at(STEP, "join the container")?;
                }
                Ok(perform(work))
            })();
            let outcome = outcome.unwrap_or_else(|e: StepError| Outcome::of(Err(e.source.to_string())));
            launch::tell_outcome(&theirs, &outcome);
            process::exit_now(0)
        }
        Cloned::Parent(_, pidfd) => {
            let left = until.map(|until| Duration::from_millis(until.saturating_sub(now())));
            let patience = left.map_or(launch::EDIT_DEADLINE, |left| left.min(launch::EDIT_DEADLINE));
            let due = if let Work::Edit(due) = work { due.to_vec() } else { Vec::new() };
            Ok(Job { pidfd, result, deadline: Instant::now() + patience, client, due })
        }
    }
}

/// The host name among edits that the operator asks for now: it is the running one too.
fn asked_name(due: &[Due]) -> Option<&Hostname> {
    due.iter().find_map(|due| match due {
        Due { edit: FileEdit::Hostname { hostname }, last: Last::Asked } => Some(hostname),
        _ => None,
    })
}

fn perform(work: &Work<'_>) -> Outcome {
    let name = |name: &Hostname| nix::unistd::sethostname(name.as_str()).map_err(|e| format!("set the host name: {e}"));
    match work {
        Work::Edit(due) => {
            if let Err(e) = crate::confine::for_edits() {
                return Outcome::of(Err(e.to_string()));
            }
            let mut outcome = crate::edit::apply(due);
            if let (Some(asked), true) = (asked_name(due), outcome.failed.is_empty()) {
                outcome.failed.extend(name(asked).err());
            }
            outcome
        }
        Work::Limits(l) => Outcome::of(crate::limits::remount(l.new)),
        Work::Addresses(link, addresses) => {
            Outcome::of(inside_net::configure(Some(link), addresses).map_err(|e| e.to_string()))
        }
        Work::Hostname(asked) => Outcome::of(name(asked)),
    }
}
