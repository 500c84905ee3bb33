//! From a plan to a running init, for the first boot and for every reboot from inside.
//!
//! ```text
//! vzmon (root of the host), in the blank mount namespace for this one call
//!   | clone3 into ns/ [the first time through the fence, with NEWUSER NEWNET owned by the container's own uid]
//!   v
//! stage: waits for its id maps, writes oom score, joins user+net (reboot), NEWCGROUP, becomes root inside
//!   | clone3 NEWPID NEWNS NEWUTS NEWIPC, CLONE_PARENT: a child of vzmon, not of the stage, which exits
//!   v
//! init: makes its view (setup), waits for the mounts vzmon makes meanwhile, edits files, waits for "go", sets
//!       addresses, confines itself, execs
//! ```
//! One seqpacket pair carries it all: pid of init, errors and warnings up, "maps", the mounts and "go" down. It is close-on-exec, so its end
//! means that init was executed.

use crate::{
    confine,
    edit::{self, Done, Due, Outcome},
    error::{At, StepError},
    fence, inside_net,
    setup::{self, Trees, View},
};
use nix::sched::CloneFlags;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    ffi::CString,
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};
use vz_sys::{
    blank::Visit,
    proc,
    process::{self, Cloned, SingleThreaded},
    seccomp::Filter,
    seqpacket,
};
use vz_types::{UidBase, plan::LaunchPlan, policy::Guard, run::ProcessId};

/// Longest a stage or a waiting init may be silent. They do some dozens of system calls; a host that needs longer than
/// this is one on which a start should fail and say so.
const SILENCE: Duration = Duration::from_secs(30);
/// Longest init waits for the mounts: what vzd gives a step, and a little.
const MOUNTS: Duration = Duration::from_secs(100);
/// Deadline for edits of the container's own files.
pub const EDIT_DEADLINE: Duration = Duration::from_secs(5);

/// What of a boot the next one needs: the user namespace, which stays, and the network namespace, out of which the link
/// moves into a fresh one. So a reboot from inside ends rules, links and settings made inside, as it does on a machine,
/// while the link, its counters and all of the host's side of it stay.
pub struct Kept {
    pub user: OwnedFd,
    pub net: OwnedFd,
}

impl Kept {
    /// Another boot's network namespace took the place of the last one's.
    pub fn renewed(&mut self, init: i32) -> Result<(), StepError> {
        const STEP: &str = "namespaces";
        self.net = fs::File::open(format!("/proc/{init}/ns/net")).at(STEP, "open the network namespace")?.into();
        Ok(())
    }
}

/// The process between vzmon and init.
pub struct Stage {
    pidfd: OwnedFd,
    channel: OwnedFd,
}

impl Stage {
    /// Lets the stage go on: its id maps are written.
    fn begin(pidfd: OwnedFd, channel: OwnedFd) -> Result<Self, StepError> {
        seqpacket::send(&channel, b"maps", &[]).at("namespaces", "let the first process go on")?;
        Ok(Self { pidfd, channel })
    }
}

/// An init that has built its view and waits for the word.
pub struct Waiting {
    pub init: ProcessId,
    pub pidfd: OwnedFd,
    channel: OwnedFd,
    /// Edits that failed; the boot goes on without them.
    pub warnings: Vec<String>,
    /// What became of each edit.
    pub edited: Vec<Done>,
}

/// Messages from below to vzmon.
#[derive(serde::Serialize, serde::Deserialize)]
enum Up {
    /// Pid of init, as the stage sees it.
    Init(i32),
    /// Something the boot goes on without.
    Warning(String),
    /// What became of each edit.
    Edited(Vec<Done>),
    /// The view is built.
    Ready,
    /// It is over.
    Failed(String),
}

/// Enters the mount namespace that containers' are copied from, where vzd gave one, for as long as something is cloned.
pub fn visit(one: SingleThreaded, blank: Option<&OwnedFd>) -> Result<Option<Visit>, StepError> {
    let enter = |there: &OwnedFd| Visit::to(one, there.as_fd());
    blank.map(enter).transpose().at("namespaces", "enter the mount namespace containers begin in")
}

/// The last id of those that lie in the same order outside as inside: the kernel compares those outside.
fn last_in_a_row(plan: &LaunchPlan) -> u32 {
    let all: Vec<_> =
        std::iter::once(plan.storage.uid_base).chain(plan.more.iter().copied()).map(UidBase::get).collect();
    let ascending = 1 + all.windows(2).take_while(|w| w[0] < w[1]).count();
    ascending as u32 * UidBase::COUNT - 1
}

/// The first stage, with new user and network namespaces, in the `blank` mount namespace. It makes init, which waits for
/// [`boot`].
pub fn first_stage(
    one: SingleThreaded,
    plan: &LaunchPlan,
    due: &[Due],
    blank: Option<&OwnedFd>,
    cgroup: BorrowedFd<'_>,
) -> Result<(Stage, Kept), StepError> {
    const STEP: &str = "namespaces";
    let (ours, theirs) = seqpacket::pair().at(STEP, "make a channel")?;
    let me = ourselves()?;
    let (pid, pidfd) = {
        let _there = visit(one, blank)?;
        fence::clone_inside(one, (plan.storage.uid_base, &plan.more), cgroup, move || {
            stage(one, plan, due, None, &me, theirs)
        })?
    };
    let ns = |name: &str| {
        fs::File::open(format!("/proc/{pid}/ns/{name}"))
            .map(OwnedFd::from)
            .at(STEP, format!("open the {name} namespace"))
    };
    // Opened before the stage goes on, and away.
    let kept = Kept { user: ns("user")?, net: ns("net")? };
    Ok((Stage::begin(pidfd, ours)?, kept))
}

/// A stage for a reboot, to join the kept namespaces.
pub fn next_stage(
    one: SingleThreaded,
    plan: &LaunchPlan,
    due: &[Due],
    kept: &Kept,
    blank: Option<&OwnedFd>,
    cgroup: BorrowedFd<'_>,
) -> Result<Stage, StepError> {
    const STEP: &str = "namespaces";
    let (ours, theirs) = seqpacket::pair().at(STEP, "make a channel")?;
    let me = ourselves()?;
    let _there = visit(one, blank)?;
    match process::clone3(one, CloneFlags::empty(), Some(cgroup)) {
        Ok(Cloned::Child) => stage(one, plan, due, Some(kept), &me, theirs),
        Ok(Cloned::Parent(_, pidfd)) => Stage::begin(pidfd, ours),
        Err(e) => Err(e).at(STEP, "clone for the reboot"),
    }
}

/// Hands the mounts to init and waits until it has built its view. `meanwhile` is done beside that.
pub fn boot(stage: Stage, trees: Trees, meanwhile: impl FnOnce()) -> Result<Waiting, StepError> {
    const STEP: &str = "init";
    let Stage { pidfd: stage_pidfd, channel } = stage;
    // Nobody there to take them has left word why.
    let mut sent = Some(trees.send(&channel));
    meanwhile();
    // The stage and init write to one socket, and nothing orders them: init may be ready before the stage has told
    // who it is.
    let (mut pid, mut ready, mut warnings, mut edited) = (None, false, Vec::new(), Vec::new());
    let pid = loop {
        if let (Some(pid), true) = (pid, ready) {
            break pid;
        }
        let (step, what) = if pid.is_none() { ("namespaces", "the stage") } else { (STEP, "prepare init") };
        match receive(&channel).at(step, format!("hear from {what}"))? {
            Some(Up::Init(it)) => {
                pid = Some(it);
                reap(&stage_pidfd);
            }
            Some(Up::Ready) => ready = true,
            Some(Up::Warning(text)) => warnings.push(text),
            Some(Up::Edited(done)) => edited = done,
            Some(Up::Failed(cause)) => return Err(io::Error::other(cause)).at(step, what),
            None => {
                let ended = || Err(io::Error::other("it ended without a word"));
                return sent.take().and_then(Result::err).map_or_else(ended, Err).at(step, what);
            }
        }
    };
    let pidfd = process::pidfd_open(pid).at(STEP, "open init's pidfd")?;
    let start_time = proc::start_time(pid).at(STEP, "read init's start time")?;
    Ok(Waiting { init: ProcessId { pid, start_time }, pidfd, channel, warnings, edited })
}

impl Waiting {
    /// Lets init go, bounded by these besides seccomp, and waits until it was executed.
    pub fn go(self, guards: &[Guard]) -> Result<(ProcessId, OwnedFd), StepError> {
        const STEP: &str = "init";
        let word = serde_json::to_vec(guards).map_err(io::Error::from).at(STEP, "let init go")?;
        seqpacket::send(&self.channel, &word, &[]).at(STEP, "let init go")?;
        match receive(&self.channel).at(STEP, "wait for init's exec")? {
            None => Ok((self.init, self.pidfd)),
            Some(Up::Failed(cause)) => {
                reap(&self.pidfd);
                Err(io::Error::other(cause)).at(STEP, "execute init")
            }
            Some(_) => Err(io::Error::other("unexpected message")).at(STEP, "execute init"),
        }
    }
}

fn receive(channel: &OwnedFd) -> io::Result<Option<Up>> {
    let (message, _) = match seqpacket::recv(channel, Some(SILENCE)) {
        // The peer was killed with unread data of ours in its queue.
        Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
        other => other?,
    };
    if message.is_empty() { Ok(None) } else { Ok(Some(serde_json::from_slice(&message)?)) }
}

/// Longest a child that is about to end, or was killed, is waited for. One that is frozen or hangs in the kernel is left
/// a zombie until this process ends.
const ENDING: Duration = Duration::from_secs(10);

/// Waits for a child's end and forgets how it ended.
pub fn reap(pidfd: &OwnedFd) {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let until = Instant::now() + ENDING;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let spec = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        if !matches!(poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&spec)), Err(rustix::io::Errno::INTR)) {
            break;
        }
    }
    let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
}

fn tell(channel: &OwnedFd, up: &Up) -> io::Result<()> {
    seqpacket::send(channel, &serde_json::to_vec(up)?, &[])
}

/// Tells vzmon why, and ends.
fn give_up(channel: &OwnedFd, e: &StepError) -> ! {
    let _ = tell(channel, &Up::Failed(e.to_string()));
    process::exit_now(1)
}

/// A pidfd of the monitor, for its children.
fn ourselves() -> Result<OwnedFd, StepError> {
    process::pidfd_open(std::process::id() as i32).at("namespaces", "open our own pidfd")
}

/// A container without its monitor has no console and nobody to notice its end: this process goes with the monitor. It
/// holds copies of the monitor's sockets, whose other sides wait for their end.
pub fn tie_to(monitor: &OwnedFd) -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    // It may have ended before that.
    let mut fds = [PollFd::new(monitor, PollFlags::IN)];
    if poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0 {
        process::exit_now(0);
    }
    Ok(())
}

/// The stage's whole life. Never returns.
fn stage(
    one: SingleThreaded,
    plan: &LaunchPlan,
    due: &[Due],
    kept: Option<&Kept>,
    monitor: &OwnedFd,
    channel: OwnedFd,
) -> ! {
    match stage_steps(one, plan, due, kept, monitor, &channel) {
        Ok(()) => process::exit_now(0),
        Err(e) => give_up(&channel, &e),
    }
}

fn stage_steps(
    one: SingleThreaded,
    plan: &LaunchPlan,
    due: &[Due],
    kept: Option<&Kept>,
    monitor: &OwnedFd,
    channel: &OwnedFd,
) -> Result<(), StepError> {
    const STEP: &str = "namespaces";
    tie_to(monitor).at(STEP, "tie the first process to its monitor")?;
    // Whatever protects vzd from the OOM killer is not for tenants. Raising is always allowed; a host that started
    // vzd with a positive score keeps it.
    let _ = fs::write("/proc/self/oom_score_adj", "0");
    let (go, _) = seqpacket::recv(channel, Some(SILENCE)).at(STEP, "wait for the id maps")?;
    if go.is_empty() {
        process::exit_now(0);
    }
    if kept.is_none() {
        fresh_clock().at(STEP, "make a time namespace")?;
    }
    // Until now the fence needed it (see there).
    nix::sys::prctl::set_dumpable(false).at(STEP, "stop being dumpable")?;
    let mut linked = plan.link.is_some();
    if let Some(kept) = kept {
        nix::sched::setns(&kept.user, CloneFlags::CLONE_NEWUSER).at(STEP, "join the user namespace")?;
        nix::sched::setns(&kept.net, CloneFlags::CLONE_NEWNET).at(STEP, "join the last network namespace")?;
        fresh_clock().at(STEP, "make a time namespace")?;
        linked = inside_net::renew(plan.link.as_ref().map(|_| plan.inside_link.as_str()))
            .map_err(io::Error::other)
            .at(STEP, "make a fresh network namespace")?;
    }
    nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP).at(STEP, "make a cgroup namespace")?;
    process::become_root().at(STEP, "become root inside")?;
    let spaces = CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_PARENT;
    match process::clone3(one, spaces, None).at(STEP, "clone init")? {
        Cloned::Child => match init(one, plan, due, linked, monitor, channel) {
            Ok(never) => match never {},
            Err(e) => give_up(channel, &e),
        },
        Cloned::Parent(pid, _) => tell(channel, &Up::Init(pid)).at(STEP, "report init"),
    }
}

/// Children of this process count time since boot from now on: uptime(1) and the start times of processes are the
/// container's own. The monotonic clock stays the host's, which programs take for nothing but differences. A kernel
/// without time namespaces, or a container that may have no more of them, goes on with the host's uptime.
fn fresh_clock() -> io::Result<()> {
    use nix::errno::Errno;
    match nix::sched::unshare(CloneFlags::from_bits_retain(libc::CLONE_NEWTIME)) {
        Err(Errno::EINVAL | Errno::ENOSPC) => return Ok(()),
        other => other?,
    }
    let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    // Format: time_namespaces(7). Nanoseconds count forward from the seconds, also when those are negative.
    let (seconds, nanoseconds) = match up.tv_nsec {
        0 => (-up.tv_sec, 0),
        n => (-up.tv_sec - 1, 1_000_000_000 - n),
    };
    fs::write("/proc/self/timens_offsets", format!("boottime {seconds} {nanoseconds}"))
}

/// PID 1 until exec.
fn init(
    one: SingleThreaded,
    plan: &LaunchPlan,
    due: &[Due],
    linked: bool,
    monitor: &OwnedFd,
    channel: &OwnedFd,
) -> Result<std::convert::Infallible, StepError> {
    const STEP: &str = "init";
    tie_to(monitor).at(STEP, "tie init to its monitor")?;
    rustix::process::setsid().at(STEP, "start a session")?;
    let view = View::make(one, &plan.limits, &plan.features)?;
    // Mounting may have to replay a journal: the monitor's own deadline counts.
    let Some(trees) = Trees::receive(channel, plan, MOUNTS)? else { process::exit_now(0) };
    let console = trees.console.try_clone().at(STEP, "keep the console")?;
    view.attach(trees, &plan.features)?;
    let name = plan.hostname.as_ref().map_or_else(|| format!("ct{}", plan.ctid), ToString::to_string);
    nix::unistd::sethostname(&name).at(STEP, "set the host name")?;
    let path = setup::find_init()?;
    let outcome = apply_edits(one, due, edit::apply_for_boot);
    tell(channel, &Up::Edited(outcome.done)).at(STEP, "report the edits")?;
    for warning in outcome.failed {
        tell(channel, &Up::Warning(warning)).at(STEP, "report a warning")?;
    }
    if plan.link.is_some() && !linked {
        let text = format!("link {} was deleted inside; `vzctl restart` makes it anew", plan.inside_link);
        tell(channel, &Up::Warning(text)).at(STEP, "report a warning")?;
    }
    tell(channel, &Up::Ready).at(STEP, "report ready")?;
    let (go, _) = seqpacket::recv(channel, None).at(STEP, "wait for the word")?;
    let Ok(guards) = serde_json::from_slice::<Vec<Guard>>(&go) else { process::exit_now(0) };
    let link = linked.then_some(plan.inside_link.as_str());
    inside_net::configure(link, &plan.addresses).map_err(io::Error::other).at(STEP, "set up the network inside")?;
    // systemd means to let everybody ping, and names more groups than there are here, which the kernel refuses (icmp(7)).
    let _ = fs::write("/proc/sys/net/ipv4/ping_group_range", format!("0 {}", last_in_a_row(plan)));
    let console = rustix::fs::openat(
        rustix::fs::CWD,
        "/dev/console",
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY,
        rustix::fs::Mode::empty(),
    )
    .inspect(|_| drop(console))
    .at(STEP, "open the console")?;
    setup::console_as_stdio(&console)?;
    drop(console);
    let text = |s: String| CString::new(s).at(STEP, "make init's environment");
    let argv = [text(path.to_owned())?];
    // HOME as the kernel gives it to a machine's (init/main.c), whose scripts count on one.
    let environment = ["HOME=/".to_owned(), "container=lxc".to_owned(), format!("container_uuid={}", plan.uuid)];
    let environment = environment.into_iter().map(text).collect::<Result<Vec<_>, _>>()?;
    confine::for_exec(&Filter::compile(&plan.features, &guards), 3)?;
    nix::unistd::execve(&argv[0], &argv, &environment).at(STEP, format!("execute {path}"))
}

/// Carries out edits in a child of this process, which is root of the container with its root as `/`.
pub fn apply_edits(one: SingleThreaded, edits: &[Due], apply: Apply) -> Outcome {
    if edits.is_empty() {
        return Outcome::default();
    }
    match start_edits(one, edits, apply) {
        Ok(job) => job.finish(),
        Err(e) => Outcome::of(Err(e.to_string())),
    }
}

/// [`edit::apply`] or [`edit::apply_for_boot`].
pub type Apply = fn(&[Due]) -> Outcome;

/// Edits under way in a child.
struct EditJob {
    pidfd: OwnedFd,
    result: OwnedFd,
    deadline: Instant,
}

/// Starts the child. The caller is inside already.
fn start_edits(one: SingleThreaded, edits: &[Due], apply: Apply) -> Result<EditJob, StepError> {
    const STEP: &str = "edit";
    let (result, theirs) = seqpacket::pair().at(STEP, "make a channel")?;
    match process::clone3(one, CloneFlags::empty(), None).at(STEP, "clone for the edits")? {
        Cloned::Child => {
            let outcome = match confine::for_edits() {
                Ok(()) => apply(edits),
                Err(e) => Outcome::of(Err(e.to_string())),
            };
            tell_outcome(&theirs, &outcome);
            process::exit_now(0)
        }
        Cloned::Parent(_, pidfd) => Ok(EditJob { pidfd, result, deadline: Instant::now() + EDIT_DEADLINE }),
    }
}

impl EditJob {
    /// Waits for the end or the deadline; kills at the deadline.
    fn finish(self) -> Outcome {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let outcome = match seqpacket::recv(&self.result, Some(left)) {
            Ok((message, _)) => read_outcome(&message),
            Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                Outcome::of(Err("editing the container's files took longer than 5 s and was given up".to_owned()))
            }
            Err(e) => Outcome::of(Err(format!("editing the container's files: {e}"))),
        };
        let _ = process::pidfd_signal(self.pidfd.as_fd(), libc::SIGKILL);
        reap(&self.pidfd);
        outcome
    }
}

/// The last word of a child that works inside.
pub fn tell_outcome(channel: &OwnedFd, outcome: &Outcome) {
    if let Ok(message) = serde_json::to_vec(outcome) {
        let _ = seqpacket::send(channel, &message, &[]);
    }
}

/// What such a child said.
pub fn read_outcome(message: &[u8]) -> Outcome {
    serde_json::from_slice(message)
        .unwrap_or_else(|_| Outcome::of(Err("the process editing the container's files died".to_owned())))
}
