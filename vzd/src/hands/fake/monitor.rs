//! Monitors: processes that are only noted, with descriptors that become readable at their end and with the records a
//! real one writes.

use super::{Seat, State, ready};
use crate::{
    hands::{Asked, Launch, Launched, Monitors},
    monitor::{Error, Found, Live, live::read_record},
};
use rustix::event::{EventfdFlags, eventfd};
use std::{
    fs::{self, File},
    io,
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use vz_types::{
    CtAddr, Ctid, Hostname,
    plan::{ControlReply, ControlRequest, EditPlan, FileEdit, LaunchPlan, MountPlan},
    run::{ExitReason, ExitRecord, ProcessId, RunRecord},
};

/// How far a monitor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It waits for the word to go.
    Waiting,
    /// It has it.
    Going,
    /// Its container runs.
    Running,
    /// It is gone.
    Ended,
}

/// One monitor with its container.
#[derive(Clone)]
pub struct Process {
    /// Whose it is.
    pub ctid: Ctid,
    /// How far it is.
    pub phase: Phase,
    /// Addresses inside.
    pub addresses: Vec<CtAddr>,
    /// Host name inside.
    pub hostname: Option<Hostname>,
    /// What is edited before each boot.
    pub boot: Vec<FileEdit>,
    record: RunRecord,
    run_dir: PathBuf,
    root: PathBuf,
    has_mounted: bool,
    stopping: bool,
    pidfd: Arc<OwnedFd>,
}

fn pidfd(ended: bool) -> Arc<OwnedFd> {
    Arc::new(eventfd(ended.into(), EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap())
}

fn broke(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Talk { what, source }
}

fn silent(run_dir: &Path) -> Error {
    let source = io::Error::from(io::ErrorKind::ConnectionRefused);
    Error::Unreachable { path: run_dir.join("control.sock"), source }
}

impl Process {
    /// With a descriptor of its own, which nobody has read.
    pub(super) fn renew(&mut self) {
        self.pidfd = pidfd(self.phase == Phase::Ended);
    }

    fn write(&self, file: &str, text: impl serde::Serialize) {
        // The directory may be gone already.
        let _ = fs::write(self.run_dir.join(file), serde_json::to_vec(&text).unwrap());
    }

    fn boots(&mut self) {
        self.phase = Phase::Running;
        self.record.addresses.clone_from(&self.addresses);
        self.write("state.json", &self.record);
    }

    /// As the real one: the record is replaced, so that a look at the file tells.
    fn reboots(&mut self) {
        self.record.boots += 1;
        self.write("state.json.new", &self.record);
        fs::rename(self.run_dir.join("state.json.new"), self.run_dir.join("state.json")).unwrap();
    }

    fn ends(&mut self, reason: Option<ExitReason>) {
        if let (Phase::Running, Some(reason)) = (self.phase, reason) {
            self.write("exit.json", ExitRecord { ctid: self.ctid, reason, at: 1, boots: 1 });
        }
        self.phase = Phase::Ended;
        rustix::io::write(&self.pidfd, &1u64.to_ne_bytes()).unwrap();
    }

    /// The vzd it talked with is gone: it goes on with what it has the word for, and else takes everything back.
    /// Answers what it unmounts.
    pub(super) fn orphaned(&mut self, slow: bool) -> Option<PathBuf> {
        match self.phase {
            _ if slow => None,
            Phase::Waiting => {
                self.ends(None);
                self.has_mounted.then(|| self.root.clone())
            }
            Phase::Going => {
                self.boots();
                None
            }
            Phase::Running if self.stopping => {
                self.ends(Some(ExitReason::Poweroff));
                None
            }
            Phase::Running | Phase::Ended => None,
        }
    }
}

impl State {
    pub(super) fn runs(&self, ctid: Ctid) -> bool {
        self.monitors.values().any(|p| p.ctid == ctid && p.phase == Phase::Running)
    }

    pub(super) fn is_populated(&self, ctid: Ctid) -> bool {
        self.monitors.values().any(|p| p.ctid == ctid && p.phase != Phase::Ended)
    }

    pub(super) fn end_of(&mut self, ctid: Ctid, reason: ExitReason) {
        for process in self.monitors.values_mut().filter(|p| p.ctid == ctid && p.phase != Phase::Ended) {
            process.ends(Some(reason.clone()));
        }
    }

    pub(super) fn reboot_of(&mut self, ctid: Ctid) {
        self.monitors.values_mut().filter(|p| p.ctid == ctid && p.phase == Phase::Running).for_each(Process::reboots);
    }

    /// Monitors that were slow are done now.
    pub fn catch_up(&mut self) {
        let gone: Vec<_> = self.monitors.values_mut().filter_map(|p| p.orphaned(false)).collect();
        gone.iter().for_each(|root| _ = self.unmount(root));
    }

    fn killed(&mut self, pid: i32) {
        if let Some(process) = self.monitors.get_mut(&pid).filter(|p| p.phase != Phase::Ended) {
            process.ends(None);
        }
    }

    /// Told to unwind, or unwinding by itself.
    fn unwinds(&mut self, pid: i32) {
        let Some(process) = self.monitors.get_mut(&pid).filter(|p| p.phase != Phase::Ended) else { return };
        if let Some(root) = process.has_mounted.then(|| process.root.clone()) {
            self.unmount(&root);
        }
        self.killed(pid);
    }

    fn running(&mut self, run_dir: &Path) -> Result<&mut Process, Error> {
        let running = |p: &&mut Process| p.run_dir == run_dir && p.phase == Phase::Running;
        self.monitors.values_mut().find(running).ok_or_else(|| silent(run_dir))
    }
}

impl Monitors for Seat {
    fn launch(&self, plan: &LaunchPlan, _: Option<BorrowedFd<'_>>) -> Result<Box<dyn Launch>, Error> {
        let spawn = |state: &mut State| {
            if state.is_populated(plan.ctid) {
                state.wrongs.push(format!("CT {} has two monitors", plan.ctid));
            }
            let pid = 1_500_000_000 + i32::try_from(state.monitors.len()).unwrap();
            state.monitors.insert(pid, process(plan, pid));
            Ok(pid)
        };
        let pid = self.call("launch", spawn, broke("sending the plan"))?;
        let ready = if self.state().never_ready { pidfd(false) } else { ready() };
        Ok(Box::new(Launching { seat: self.clone(), pid, asked: 0, ready }))
    }

    fn mount(&self, plan: &MountPlan) -> Result<(), Error> {
        let mount = |state: &mut State| {
            state.mount(&plan.storage.root);
            Ok(())
        };
        self.call("mount", mount, broke("mount"))
    }

    fn edit(&self, plan: &EditPlan) -> Result<(), Error> {
        self.call(
            "edit",
            |state| {
                if !state.mounted.contains(&plan.storage.root) {
                    state.wrongs.push(format!("CT {} was edited without being mounted", plan.ctid));
                }
                Ok(())
            },
            broke("edit"),
        )
    }

    fn control(&self, run_dir: &Path, request: &ControlRequest, _: Duration) -> Result<ControlReply, Error> {
        self.call("control", |state| state.running(run_dir).map(|p| p.does(request)), broke("asking the monitor"))
    }

    fn ask(&self, run_dir: &Path, _: &ControlRequest) -> Result<Box<dyn Asked>, Error> {
        let begin = |state: &mut State| state.running(run_dir).map(|p| p.stopping = true);
        self.call("ask", begin, broke("asking the monitor"))?;
        Ok(Box::new(Stopping { seat: self.clone(), run_dir: run_dir.into(), asked: 0, ready: ready() }))
    }

    fn find(&self, run_dir: &Path, _: &str) -> Found {
        let look = |state: &mut State| {
            let Ok(Some(record)) = read_record(run_dir) else { return Ok(Found::Nothing) };
            let alive = state.monitors.get(&record.monitor.pid).filter(|p| p.phase != Phase::Ended);
            Ok(match alive {
                Some(process) => Found::Live(Box::new(Live::new(record, Some(process.pidfd.clone()), run_dir))),
                None => Found::Stale,
            })
        };
        self.call("find", look, |e| Found::Unclear(e.to_string())).unwrap_or_else(|unclear| unclear)
    }

    fn end(&self, monitor: &Live, _: Duration) -> bool {
        self.end_process(monitor.record.monitor, Duration::ZERO)
    }

    fn end_process(&self, id: ProcessId, _: Duration) -> bool {
        let end = |state: &mut State| {
            state.killed(id.pid);
            Ok(())
        };
        self.call("end", end, |_| ()).is_ok()
    }

    fn program(&self) -> Result<PathBuf, Error> {
        self.call("program", |_| Ok("/vzmon".into()), |_| Error::NoProgram(Vec::new()))
    }
}

fn process(plan: &LaunchPlan, pid: i32) -> Process {
    let id = |pid| ProcessId { pid, start_time: 1 };
    Process {
        ctid: plan.ctid,
        phase: Phase::Waiting,
        addresses: plan.addresses.clone(),
        hostname: plan.hostname.clone(),
        boot: plan.edits.clone(),
        record: RunRecord {
            ctid: plan.ctid,
            init: id(pid + 100_000_000),
            monitor: id(pid),
            cgroup: plan.cgroup.clone(),
            uid_base: plan.storage.uid_base,
            uid_more: plan.more.clone(),
            boots: 1,
            booted_at: 1,
            booted_monotonic: None,
            started_at: 1,
            link: plan.link.clone(),
            addresses: plan.addresses.clone(),
            features: plan.features.clone(),
            guards: Vec::new(),
            protocol: 1,
            version: String::new(),
            limits: plan.limits.clone(),
            host_boot_id: String::new(),
        },
        run_dir: plan.run_dir.clone(),
        root: plan.storage.root.clone(),
        has_mounted: false,
        stopping: false,
        pidfd: pidfd(false),
    }
}

impl Process {
    fn does(&mut self, request: &ControlRequest) -> ControlReply {
        match request {
            ControlRequest::SetAddresses { addresses } => self.addresses.clone_from(addresses),
            ControlRequest::SetBoot { hostname, edits } => {
                self.hostname.clone_from(hostname);
                self.boot.clone_from(edits);
            }
            ControlRequest::SetLimits { limits } => self.record.limits = limits.clone(),
            ControlRequest::Edit { .. } | ControlRequest::Console { .. } | ControlRequest::Stop { .. } => {}
        }
        // As a real one it replaces the record, so that whoever looks sees another file.
        let _ = fs::remove_file(self.run_dir.join("state.json"));
        self.boots();
        ControlReply::Done
    }
}

/// A monitor on its way. Everything it is asked takes it two tries.
#[derive(Debug)]
struct Launching {
    seat: Seat,
    pid: i32,
    asked: u32,
    /// Whether it says something soon.
    ready: Arc<OwnedFd>,
}

impl Launching {
    fn is_first(&mut self) -> bool {
        self.asked += 1;
        self.asked % 2 == 1
    }
}

impl Launch for Launching {
    fn net_ready(&mut self, _: Duration) -> Result<Option<OwnedFd>, Error> {
        let (pid, first, never) = (self.pid, self.is_first(), self.seat.state().never_ready);
        let mount = |state: &mut State| {
            let Some(root) = state.monitors.get(&pid).filter(|_| !first && !never).map(|p| p.root.clone()) else {
                return Ok(None);
            };
            let has_mounted = state.mount(&root);
            state.monitors.entry(pid).and_modify(|p| p.has_mounted = has_mounted);
            Ok(Some(File::open("/dev/null").unwrap().into()))
        };
        self.seat.call("net_ready", mount, broke("making its namespaces"))
    }

    fn go(&mut self) -> Result<(), Error> {
        let go = |state: &mut State| {
            state.monitors.get_mut(&self.pid).unwrap().phase = Phase::Going;
            Ok(())
        };
        self.seat.call("go", go, broke("saying go"))
    }

    fn running(&mut self, _: Duration) -> Result<Option<Launched>, Error> {
        let (pid, first) = (self.pid, self.is_first());
        let boot = |state: &mut State| {
            if first {
                return Ok(None);
            }
            let short_lived = state.short_lived;
            let process = state.monitors.get_mut(&pid).unwrap();
            process.boots();
            if short_lived {
                process.ends(Some(ExitReason::Poweroff));
            }
            Ok(Some(Launched { child: None, steps: vec![("init".into(), 1)], warnings: Vec::new() }))
        };
        self.seat.call("running", boot, broke("booting"))
    }

    fn abort(self: Box<Self>) {
        self.seat.sure("abort", |state| state.unwinds(self.pid));
    }

    fn id(&self) -> Option<ProcessId> {
        Some(ProcessId { pid: self.pid, start_time: 1 })
    }

    fn fd(&self) -> Arc<OwnedFd> {
        self.ready.clone()
    }
}

impl Drop for Launching {
    fn drop(&mut self) {
        let mut state = self.seat.world.state();
        // A vzd that was killed drops nothing; what runs is its taker's.
        let waits = state.monitors.get(&self.pid).is_some_and(|p| matches!(p.phase, Phase::Waiting | Phase::Going));
        if waits && state.vzd == self.seat.vzd {
            state.killed(self.pid);
        }
    }
}

/// A monitor that ends its container: not at once.
#[derive(Debug)]
struct Stopping {
    seat: Seat,
    run_dir: PathBuf,
    asked: u32,
    ready: Arc<OwnedFd>,
}

impl Asked for Stopping {
    fn answer(&mut self) -> Result<Option<ControlReply>, Error> {
        self.asked += 1;
        let first = self.asked == 1;
        let end = |state: &mut State| {
            if first {
                return Ok(None);
            }
            state.running(&self.run_dir)?.ends(Some(ExitReason::Poweroff));
            Ok(Some(ControlReply::Ended { reason: ExitReason::Poweroff }))
        };
        self.seat.call("answer", end, broke("asking the monitor"))
    }

    fn fd(&self) -> Arc<OwnedFd> {
        self.ready.clone()
    }
}
