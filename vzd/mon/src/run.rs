//! `vzmon run`: the monitor of one container.
//!
//! ```text
//!            plan                     go                 reboot inside
//!  vzd -----------> launching -----------------> running <-----------+
//!                       | failed                  |   |              |
//!                       v                         |   +--> booting --+
//!                 all undone, exit                | poweroff, crash, kill
//!                                                 v
//!                                   exit.json on disk, waiters told, exit
//! ```
//! Restart rule: none. A monitor is never restarted; if it dies, its container dies with it (PDEATHSIG) and vzd
//! clears up. vzd may come and go as it likes once "go" was given.

use crate::{
    confine,
    console::Console,
    control::{self, Job, Work},
    edit::{Due, Last},
    error::{At, StepError},
    launch::{self, Kept},
    limits, nudge, record,
    rings::{self, Rings},
    setup::Trees,
    stop::{Next, Stopping},
    storage,
    written::Record,
};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    process::ExitCode,
    time::{Duration, Instant},
};
use vz_sys::{cgroup, device_bpf, inherited, proc, process, process::SingleThreaded, seqpacket};
use vz_types::{
    plan::{ControlReply, ControlRequest, LaunchAnswer, LaunchPlan, MonitorEvent, NOT_UNDERSTOOD, PROTOCOL},
    policy::device_rules,
    run::{ExitReason, ExitRecord, ProcessId, RunRecord},
};

const STATE: &str = "state.json";
const EXIT: &str = "exit.json";
const CONTROL: &str = "control.sock";
/// What is left when an init cannot be asked itself.
const POWEROFF: &[&str] = &["/sbin/poweroff"];
/// How long vzd may take for the host's side of the network.
const NETWORK_DEADLINE: Duration = Duration::from_secs(60);

/// Runs one container from the plan on standard input to its end.
pub fn main(one: SingleThreaded) -> ExitCode {
    let _ = process::close_from(3);
    // Away from standard input, which becomes /dev/null.
    let Ok(vzd) = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3) else { return ExitCode::FAILURE };
    let _ = rustix::process::setsid();
    let launch = Launch { vzd, begun: Instant::now(), fault: None, going: false };
    match launch.run(one) {
        Ok(monitor) => monitor.run(one),
        Err(()) => ExitCode::FAILURE,
    }
}

/// The launch: talks to vzd, dies at fault points.
struct Launch {
    vzd: OwnedFd,
    begun: Instant,
    fault: Option<String>,
    /// "Go" was given: the container boots with or without vzd.
    going: bool,
}

impl Launch {
    fn run(mut self, one: SingleThreaded) -> Result<Monitor, ()> {
        match self.steps(one) {
            Ok(monitor) => Ok(monitor),
            Err(e) => {
                // Untold, vzd sees our end and shows the last line of monitor.log.
                eprintln!("{e}");
                let _ = self.tell(&MonitorEvent::Failed { step: e.step.into(), cause: e.to_string() }, &[]);
                Err(())
            }
        }
    }

    /// Fails where vzd would wait for what it never hears of.
    fn tell(&self, event: &MonitorEvent, fds: &[std::os::fd::BorrowedFd<'_>]) -> io::Result<()> {
        match seqpacket::send(&self.vzd, &serde_json::to_vec(event)?, fds) {
            Err(e) if self.going && e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            told => told,
        }
    }

    fn done(&self, step: &'static str) -> Result<(), StepError> {
        if self.fault.as_deref() == Some(step) {
            let _ = nix::sys::signal::raise(Signal::SIGKILL);
        }
        let at_us = self.begun.elapsed().as_micros() as u64;
        self.tell(&MonitorEvent::Step { name: step.into(), at_us }, &[]).at(step, "tell vzd of a step")
    }

    fn hear<T: serde::de::DeserializeOwned>(
        &self,
        step: &'static str,
        what: &str,
        within: Duration,
    ) -> Result<(T, Option<OwnedFd>), StepError> {
        let (message, fds) = seqpacket::recv(&self.vzd, Some(within)).at(step, what)?;
        if message.is_empty() {
            return Err(io::Error::other("vzd went away")).at(step, what);
        }
        let said = serde_json::from_slice(&message).map_err(io::Error::from).at(step, what)?;
        Ok((said, fds.into_iter().next()))
    }

    fn steps(&mut self, one: SingleThreaded) -> Result<Monitor, StepError> {
        let (plan, blank): (LaunchPlan, _) = self.hear("plan", "read the launch plan", Duration::from_secs(10))?;
        self.begun = Instant::now();
        self.fault.clone_from(&plan.fault);
        let run_dir = open_dir(&plan.run_dir).at("plan", format!("open {}", plan.run_dir.display()))?;
        own_stdio(&run_dir).at("plan", "open monitor.log")?;
        inherited::begin_anew();
        confine::default_rlimits(&plan.limits).at("plan", "set the resource limits")?;
        let signals = termination_signals().at("plan", "block the termination signals")?;
        let listener = seqpacket::listen(run_dir.as_fd(), CONTROL).at("plan", "listen on control.sock")?;
        record::remove(&run_dir, EXIT);
        self.done("plan")?;

        let base = plan.storage.uid_base.get();
        let console = Console::open(run_dir.as_fd(), base, plan.console_log).at("console", "open the console")?;
        self.done("console")?;

        let cgroup = plan.cgroup.join("ns");
        let cgroup = open_dir(&cgroup).at("namespaces", format!("open {}", cgroup.display()))?;
        let mut written = Record::open(&plan.storage.private);
        let due = written.due(&plan.edits);
        let (stage, kept) = launch::first_stage(one, &plan, &due, blank.as_ref(), cgroup.as_fd())?;
        self.done("namespaces")?;
        // vzd makes the link while the storage is mounted here.
        self.tell(&MonitorEvent::NetReady, &[kept.net.as_fd()])
            .at("namespaces", "hand the network namespace to vzd")?;

        let level = open_dir(&plan.cgroup).at("namespaces", format!("open {}", plan.cgroup.display()))?;
        device_bpf::attach(level.as_fd(), &device_rules(&plan.features))
            .at("namespaces", "attach the device program")?;
        storage::mount(&plan.storage, kept.user.as_fd())
            .map_err(io::Error::other)
            .at("storage", "mount the container's files")?;
        self.done("storage")?;
        let trees = Trees::open(console.slave(), &plan)?;
        let mut rings = None;
        let waiting = launch::boot(stage, trees, || rings = Rings::attach(level.as_fd()))?;
        let guards = rings::guards(rings.as_ref());
        limits::apply_parameters(one, waiting.init.pid, plan.storage.uid_base, &plan.limits, false)?;
        written.booted(&due, &waiting.edited);
        for text in waiting.warnings.iter().chain(&written.trouble()) {
            self.tell(&MonitorEvent::Warning { text: text.clone() }, &[]).at("init", "tell vzd of a warning")?;
        }
        match self.hear("network", "wait for the host's side of the network", NETWORK_DEADLINE)?.0 {
            LaunchAnswer::Go => self.going = true,
            LaunchAnswer::Abort => return Err(io::Error::other("vzd gave up")).at("network", "start"),
        }
        self.done("network")?;

        let now = record::now();
        let me = std::process::id() as i32;
        let state = RunRecord {
            ctid: plan.ctid,
            init: waiting.init,
            monitor: ProcessId { pid: me, start_time: proc::start_time(me).at("record", "read our start time")? },
            cgroup: plan.cgroup.clone(),
            uid_base: plan.storage.uid_base,
            uid_more: plan.more.clone(),
            boots: 1,
            booted_at: now,
            booted_monotonic: Some(proc::boottime().as_secs()),
            started_at: now,
            link: plan.link.clone(),
            addresses: plan.addresses.clone(),
            host_boot_id: proc::boot_id().at("record", "read the host's boot id")?,
            features: plan.features.clone(),
            guards: guards.clone(),
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").into(),
            limits: plan.limits.clone(),
        };
        record::write_json(run_dir.as_fd(), STATE, &state, false).at("record", "write state.json")?;
        let told = self.done("record").and_then(|()| self.done("go"));
        let (init, pidfd) = told.and_then(|()| waiting.go(&guards)).inspect_err(|_| record::remove(&run_dir, STATE))?;
        // A vzd that is not told sees the channel's end now that init runs, and ends us.
        let _ = self.done("init").map(|()| self.tell(&MonitorEvent::Running { init }, &[]));
        Ok(Monitor {
            plan,
            state,
            kept,
            blank,
            cgroup,
            run_dir,
            console,
            rings,
            listener,
            signals,
            pidfd,
            written,
            stopping: None,
            jobs: Vec::new(),
            helpers: Vec::new(),
            newcomers: Vec::new(),
        })
    }
}

fn open_dir(path: &std::path::Path) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?)
}

/// Nothing of whoever started us stays open: a pipe held for the container's whole life would keep its reader waiting.
fn own_stdio(run_dir: &OwnedFd) -> io::Result<()> {
    use rustix::fs::{Mode, OFlags};
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let log = rustix::fs::openat(run_dir, "monitor.log", flags, Mode::RUSR | Mode::WUSR)?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&log)?;
    Ok(())
}

fn termination_signals() -> io::Result<SignalFd> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGINT);
    set.add(Signal::SIGHUP);
    set.thread_block()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// A running container's monitor.
struct Monitor {
    plan: LaunchPlan,
    state: RunRecord,
    kept: Kept,
    /// The mount namespace each boot's is copied from.
    blank: Option<OwnedFd>,
    cgroup: OwnedFd,
    run_dir: OwnedFd,
    console: Console,
    rings: Option<Rings>,
    listener: OwnedFd,
    signals: SignalFd,
    pidfd: OwnedFd,
    written: Record,
    stopping: Option<Stopping>,
    jobs: Vec<Job>,
    /// Children that are to end and to be reaped then, by their pidfds. Those that are inside may be frozen there for as
    /// long as somebody likes: the loop never waits for one.
    helpers: Vec<OwnedFd>,
    /// Connected, nothing said yet.
    newcomers: Vec<OwnedFd>,
}

/// What woke the loop.
#[derive(Clone, Copy)]
enum Source {
    Init,
    Signal,
    Listener,
    Console,
    Client(usize),
    Newcomer(usize),
    Job(usize),
    Helper(usize),
    Rings,
    Writer,
}

impl Monitor {
    fn run(mut self, one: SingleThreaded) -> ExitCode {
        loop {
            let deadline = self.climb(one);
            self.written.begin(one);
            for source in self.wait(deadline) {
                match source {
                    Source::Init => {
                        if let Some(reason) = self.init_ended(one) {
                            return self.finish(one, reason);
                        }
                    }
                    Source::Signal => {
                        while let Ok(Some(_)) = self.signals.read_signal() {
                            self.begin_stop(None, false, None);
                        }
                    }
                    Source::Listener => {
                        while let Ok(client) = seqpacket::accept(&self.listener) {
                            self.newcomers.push(client);
                        }
                    }
                    Source::Console => self.console.output(),
                    Source::Client(i) => self.console.client_input(i),
                    Source::Newcomer(i) => {
                        let client = self.newcomers.remove(i);
                        match control::read(&client) {
                            // Woken for nothing: it has still to speak.
                            Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.newcomers.insert(i, client),
                            // It was told, or has told, that this has failed.
                            _ if control::is_gone(&client) => {}
                            request => self.request(one, client, request),
                        }
                    }
                    Source::Job(i) => self.conclude(i),
                    Source::Helper(i) => launch::reap(&self.helpers.remove(i)),
                    Source::Rings => self.rings.iter_mut().for_each(Rings::rung),
                    Source::Writer => self.written.written(),
                }
            }
            self.expire_jobs();
            self.rings.iter_mut().for_each(Rings::turn);
        }
    }

    /// Takes the stop's next rungs; says when to look again.
    fn climb(&mut self, one: SingleThreaded) -> Option<Instant> {
        loop {
            let pid = self.state.init.pid;
            match self.stopping.as_mut()?.next(pid, self.pidfd.as_fd()) {
                Next::Wait(until) => return Some(until),
                Next::Ask(request) => {
                    self.helpers.extend(crate::attach::run_detached(one, &self.state, Some(request), POWEROFF));
                }
                Next::RunPoweroff => {
                    self.helpers.extend(crate::attach::run_detached(one, &self.state, None, POWEROFF));
                }
                Next::Kill => {
                    let _ = cgroup::kill(&self.plan.cgroup);
                    // Where cgroup.kill is missing, ending PID 1 ends its namespace.
                    let _ = process::pidfd_signal(self.pidfd.as_fd(), libc::SIGKILL);
                }
            }
        }
    }

    /// Waits for events, those with indexes highest first so that removing one does not shift another.
    fn wait(&self, deadline: Option<Instant>) -> Vec<Source> {
        let mut sources = vec![Source::Console, Source::Init, Source::Signal, Source::Listener];
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.console.master(), PollFlags::IN),
            PollFd::new(&self.pidfd, PollFlags::IN),
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.listener, PollFlags::IN),
        ];
        for (i, fd) in self.console.clients().enumerate() {
            sources.push(Source::Client(i));
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        }
        for (i, fd) in self.newcomers.iter().enumerate() {
            sources.push(Source::Newcomer(i));
            fds.push(PollFd::new(fd, PollFlags::IN));
        }
        for (i, job) in self.jobs.iter().enumerate() {
            sources.push(Source::Job(i));
            fds.push(PollFd::new(&job.result, PollFlags::IN));
        }
        for (i, helper) in self.helpers.iter().enumerate() {
            sources.push(Source::Helper(i));
            fds.push(PollFd::new(helper, PollFlags::IN));
        }
        if let Some(rings) = &self.rings {
            sources.push(Source::Rings);
            fds.push(PollFd::from_borrowed_fd(rings.bell(), PollFlags::IN));
        }
        if let Some(writer) = self.written.writer() {
            sources.push(Source::Writer);
            fds.push(PollFd::new(writer, PollFlags::IN));
        }
        let first_job = self.jobs.iter().map(|j| j.deadline).min();
        let until = deadline.into_iter().chain(first_job).chain(self.rings.as_ref().and_then(Rings::deadline)).min();
        let spec = until.map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
        });
        if poll(&mut fds, spec.as_ref()).is_err() {
            return Vec::new();
        }
        let mut woken: Vec<Source> =
            sources.into_iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty()).map(|(s, _)| s).collect();
        // Init's end last: what the console still holds belongs to this boot.
        woken.reverse();
        woken.sort_by_key(|s| matches!(s, Source::Init));
        woken
    }

    fn expire_jobs(&mut self) {
        let now = Instant::now();
        while let Some(i) = self.jobs.iter().position(|j| j.deadline <= now) {
            self.conclude(i);
        }
    }

    /// A job is over: whoever asked is told, once what follows from it has begun.
    fn conclude(&mut self, i: usize) {
        let job = self.jobs.remove(i);
        let outcome = job.outcome();
        self.written.edited(&job.due, &outcome);
        if nudge::is_due(&job.due, &outcome) {
            nudge::resolver(&self.plan.cgroup.join("ns"));
        }
        self.helpers.push(job.conclude(outcome));
    }

    fn request(&mut self, one: SingleThreaded, client: OwnedFd, heard: io::Result<control::Heard>) {
        let (request, until) = match heard {
            Ok((_, Some(until))) if until <= control::now() => {
                let cause = "the request came to its monitor too late, and was not begun".into();
                return control::reply(&client, &ControlReply::Failed { cause });
            }
            Ok(heard) => heard,
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return,
            Err(e) => {
                return control::reply(&client, &ControlReply::Failed { cause: format!("{NOT_UNDERSTOOD}: {e}") });
            }
        };
        match request {
            ControlRequest::Console { replay } => {
                control::reply(&client, &ControlReply::Done);
                self.console.join(client, replay);
            }
            ControlRequest::Stop { fast, timeout } => self.begin_stop(Some(client), fast, timeout),
            ControlRequest::SetAddresses { addresses } => {
                self.plan.addresses.clone_from(&addresses);
                self.state.addresses = addresses;
                let _ = record::write_json(self.run_dir.as_fd(), STATE, &self.state, false);
                let link = self.plan.inside_link.clone();
                let addresses = self.plan.addresses.clone();
                self.start(one, &Work::Addresses(&link, &addresses), client, until);
            }
            ControlRequest::SetBoot { hostname, edits } => {
                self.plan.edits = edits;
                match hostname {
                    Some(name) if self.plan.hostname.as_ref() != Some(&name) => {
                        self.plan.hostname = Some(name.clone());
                        self.start(one, &Work::Hostname(&name), client, until);
                    }
                    _ => control::reply(&client, &ControlReply::Done),
                }
            }
            ControlRequest::SetLimits { limits: new } => {
                self.plan.limits.clone_from(&new);
                let old = std::mem::replace(&mut self.state.limits, new.clone());
                let _ = record::write_json(self.run_dir.as_fd(), STATE, &self.state, false);
                let (owner, cgroup) = (self.plan.storage.uid_base, self.plan.cgroup.clone());
                let work = control::Limits { owner, cgroup: &cgroup, old: &old, new: &new };
                self.start(one, &Work::Limits(&work), client, until);
            }
            ControlRequest::Edit { edits, as_for_boot } => {
                let due = match as_for_boot {
                    true => self.written.due(&edits),
                    false => edits.into_iter().map(|edit| Due { edit, last: Last::Asked }).collect(),
                };
                self.start(one, &Work::Edit(&due), client, until);
            }
        }
    }

    fn start(&mut self, one: SingleThreaded, work: &Work<'_>, client: OwnedFd, until: Option<u64>) {
        // The job needs the client; a second descriptor answers if it cannot even be started.
        let spare = client.try_clone();
        match control::start(one, self.state.init, work, client, until) {
            Ok(job) => self.jobs.push(job),
            Err(e) => {
                if let Ok(client) = spare {
                    control::reply(&client, &ControlReply::Failed { cause: e.to_string() });
                }
            }
        }
    }

    fn begin_stop(&mut self, waiter: Option<OwnedFd>, fast: bool, timeout: Option<u32>) {
        let timeout = Duration::from_secs(timeout.unwrap_or(self.plan.stop_timeout).into());
        match &mut self.stopping {
            Some(stopping) => stopping.hurry(timeout, fast),
            None => self.stopping = Some(Stopping::begin(timeout, fast)),
        }
        if let (Some(stopping), Some(waiter)) = (&mut self.stopping, waiter) {
            stopping.waiters.push(waiter);
        }
    }

    /// Init is dead. `None`: it rebooted and runs again.
    fn init_ended(&mut self, one: SingleThreaded) -> Option<ExitReason> {
        self.console.output();
        let status = rustix::process::waitid(
            rustix::process::WaitId::PidFd(self.pidfd.as_fd()),
            rustix::process::WaitIdOptions::EXITED,
        );
        let status = status.ok().flatten();
        let killed_by_us = self.stopping.as_ref().is_some_and(Stopping::killed);
        let reason = match status.as_ref().map(|s| (s.exit_status(), s.terminating_signal())) {
            _ if killed_by_us => ExitReason::Killed,
            // reboot(2): in a pid namespace, LINUX_REBOOT_CMD_RESTART ends init with SIGHUP, HALT and POWER_OFF with SIGINT.
            Some((_, Some(libc::SIGINT))) => ExitReason::Poweroff,
            Some((_, Some(libc::SIGHUP))) if self.stopping.is_some() => ExitReason::Poweroff,
            Some((_, Some(libc::SIGHUP))) => match self.reboot(one) {
                Ok(()) => return None,
                Err(e) => ExitReason::RebootFailed { cause: e.to_string() },
            },
            Some((_, Some(signal))) => ExitReason::Crashed { signal },
            Some((Some(status), _)) => ExitReason::Exited { status },
            _ => ExitReason::Crashed { signal: 0 },
        };
        Some(reason)
    }

    /// The same container again: user namespace, link, addresses, counters and console stay.
    fn reboot(&mut self, one: SingleThreaded) -> Result<(), StepError> {
        self.console.say("rebooting");
        let ns = self.plan.cgroup.join("ns");
        empty_cgroup(&ns)
            .and_then(|()| take_back_controllers(&ns))
            .at("namespaces", format!("clear {}", ns.display()))?;
        let due = self.written.due(&self.plan.edits);
        let stage = launch::next_stage(one, &self.plan, &due, &self.kept, self.blank.as_ref(), self.cgroup.as_fd())?;
        let trees = Trees::open(self.console.slave(), &self.plan)?;
        let waiting = launch::boot(stage, trees, || {})?;
        // The network and ipc namespaces are new.
        let base = self.plan.storage.uid_base;
        limits::apply_parameters(one, waiting.init.pid, base, &self.plan.limits, false)?;
        self.written.booted(&due, &waiting.edited);
        for text in waiting.warnings.iter().chain(&self.written.trouble()) {
            self.console.say(text);
        }
        self.kept.renewed(waiting.init.pid)?;
        self.state.init = waiting.init;
        self.state.boots += 1;
        self.state.booted_at = record::now();
        self.state.booted_monotonic = Some(proc::boottime().as_secs());
        record::write_json(self.run_dir.as_fd(), STATE, &self.state, false).at("record", "write state.json")?;
        let (_, pidfd) = waiting.go(&self.state.guards)?;
        self.pidfd = pidfd;
        Ok(())
    }

    /// Nothing of the container runs any more: put it on record, then tell.
    fn finish(mut self, one: SingleThreaded, reason: ExitReason) -> ExitCode {
        let _ = cgroup::kill(&self.plan.cgroup);
        self.written.finish(one);
        self.console.output();
        let exit =
            ExitRecord { ctid: self.plan.ctid, reason: reason.clone(), at: record::now(), boots: self.state.boots };
        let _ = record::write_json(self.run_dir.as_fd(), EXIT, &exit, true);
        record::remove(&self.run_dir, STATE);
        record::remove(&self.run_dir, CONTROL);
        for job in self.jobs.drain(..) {
            control::reply(&job.client, &ControlReply::Failed { cause: "the container ended".into() });
        }
        for waiter in self.stopping.iter().flat_map(|s| &s.waiters) {
            control::reply(waiter, &ControlReply::Ended { reason: reason.clone() });
        }
        ExitCode::SUCCESS
    }
}

/// Removes what the last boot left below the delegated cgroup; its processes are dead.
fn empty_cgroup(dir: &std::path::Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            empty_cgroup(&entry.path())?;
            // The last processes of a killed namespace leave their cgroup a moment after they are reaped.
            cgroup::wait_empty(&entry.path(), Duration::from_secs(5))?;
            std::fs::remove_dir(entry.path())?;
        }
    }
    Ok(())
}

/// Takes back the controllers that the last boot's init gave to cgroups of its own: while a cgroup gives any on, no
/// process can be born in it (EBUSY; cgroups(7), "no internal processes").
fn take_back_controllers(dir: &std::path::Path) -> io::Result<()> {
    let file = dir.join("cgroup.subtree_control");
    let given: String = std::fs::read_to_string(&file)?.split_whitespace().map(|c| format!("-{c} ")).collect();
    if given.is_empty() { Ok(()) } else { std::fs::write(&file, given.trim_end()) }
}
