//! Bringing a container up: cgroup, monitor, network, go. The half that `start` and `restart` have in common; see the
//! drawing in [`vz_types::plan`]. Until it runs, everything is taken back.

use super::{
    Work,
    down::{Down, How},
    step::{Flow, Step, Wait},
    work::End,
};
use crate::{
    accounts,
    ct::{
        edits, ids,
        limits::{self, LimitSet},
        outside, settle,
    },
    error::{Error, Result},
    hands::{Launch, Launched},
    inventory::CtRow,
    manager::Manager,
    monitor::{Found, Live, live::read_record},
    network,
};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::DirBuilderExt,
    },
    sync::Arc,
    time::{Duration, Instant},
};
use vz_sys::spawn::Spawned;
use vz_types::{
    CtAddr, CtConfig, CtState, Ctid, ExitCode, Fact,
    limits::kernel::Inside,
    plan::{LaunchPlan, StoragePlan},
    run::ProcessId,
};

/// What mounting (a journal replay included) and every step of the monitor may take at most.
const LAUNCH: Duration = Duration::from_secs(90);
/// How long killed processes may take to be gone.
const KILLED: Duration = Duration::from_secs(20);
/// How long a step holds a thread for what comes at once, as a rule.
const AT_ONCE: Duration = Duration::from_millis(400);

/// What recovery must know of an interrupted start.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Note {
    /// The files were mounted by the operator before.
    pub was_mounted: bool,
    /// The monitor, once there is one.
    pub monitor: Option<ProcessId>,
}

/// A container on its way up.
#[derive(Debug)]
pub struct Up {
    /// Which.
    pub row: CtRow,
    config: Arc<CtConfig>,
    /// For recovery.
    pub note: Note,
    storage: StoragePlan,
    addresses: Vec<CtAddr>,
    cgroup: std::path::PathBuf,
    launching: Option<Box<dyn Launch>>,
    netns: Option<OwnedFd>,
    gone: bool,
    deadline: Option<Instant>,
    child: Option<Spawned>,
    /// It was found running: it is not brought up but taken in.
    found: bool,
}

impl Up {
    /// After every check that changes nothing.
    ///
    /// # Errors
    /// Why it cannot be started on this host now.
    pub fn prepare(w: &Work, ctid: Ctid) -> Result<Self> {
        let m = &w.m;
        let row = m.row(ctid)?;
        let config = m.conf.read(ctid)?;
        settle::private_area(m, &row)?;
        outside::refuse_shared_uids(m, &row)?;
        let storage = m.storage_plan(&row);
        if !storage.template_root.is_dir() {
            let message = format!("CT {ctid}: its OS template's files {} are missing", storage.template_root.display());
            let hint =
                format!("`vzctl template build {}` may bring them back, or restore them from a backup", row.template);
            return Err(Error::refused(ExitCode::NoTemplate, message, &hint));
        }
        limits::check_host_size(&config, ExitCode::BadConfig)?;
        let gaps = limits::gaps(m, ctid, &config)?;
        for fact in limits::accept_gaps(m, ctid, &gaps)? {
            w.tell(fact);
        }
        limits::admit(m, ctid, &config)?;
        m.hands.monitor.program()?;
        m.tree()?;
        for ip in &config.network.ip {
            m.hands.network.free_on_host(ip)?;
        }
        let was_mounted = m.is_mounted(&row)?;
        Ok(Self::with(row, config, storage, Note { was_mounted, monitor: None }))
    }

    fn with(row: CtRow, config: Arc<CtConfig>, storage: StoragePlan, note: Note) -> Self {
        Self {
            addresses: config.network.ip.clone(),
            row,
            config,
            note,
            storage,
            cgroup: std::path::PathBuf::new(),
            launching: None,
            netns: None,
            gone: false,
            deadline: None,
            child: None,
            found: false,
        }
    }

    /// After a crash: enough of it to take it back, or to take in what runs.
    ///
    /// # Errors
    /// There is no such container, or its configuration cannot be read.
    pub fn resumed(m: &Manager, ctid: Ctid, note: Note) -> Result<Self> {
        let row = m.row(ctid)?;
        // To be taken back it needs no configuration that can be read.
        let config = match m.conf.read(ctid) {
            Ok(config) => config,
            Err(_) => Arc::new(crate::conf::parse(&m.paths.conf(ctid), &format!("ostemplate = '{}'", row.template))?),
        };
        let storage = m.storage_plan(&row);
        Ok(Self::with(row, config, storage, note))
    }

    /// Whether it runs by now: its monitor had the word to go already.
    pub fn is_up(&mut self, m: &Manager, step: &str) -> Result<bool> {
        match settle::runs(m, self.row.ctid) {
            settle::Runs::Yes(live) => {
                m.cell(self.row.ctid).set_live(Some(*live));
                self.found = true;
                Ok(true)
            }
            settle::Runs::No => Ok(false),
            // A monitor that has not written its record yet is one on its way, which ends without us.
            settle::Runs::Unclear(_) if self.is_on_its_way(m, step) => Ok(false),
            settle::Runs::Unclear(cause) => Err(Error::refused(ExitCode::System, cause, "")),
        }
    }

    /// It writes its record before init is executed. One that cannot be read is that of a container that runs.
    fn is_on_its_way(&self, m: &Manager, step: &str) -> bool {
        let launched = self.note.monitor.is_some() || step == LAUNCHED;
        launched && matches!(read_record(&m.paths.ct_run(self.row.ctid)), Ok(None))
    }

    fn claims(&mut self, w: &Work) -> Result<()> {
        sync_claims(&w.m, &self.row, &self.config)?;
        self.row.uid_more = ids::claim(&w.m, &self.row, self.config.ids)?;
        Ok(())
    }

    fn rundir(&mut self, w: &Work) -> Result<()> {
        let run_dir = w.m.paths.ct_run(self.row.ctid);
        settle::clear_run_dir(&run_dir)?;
        fs::DirBuilder::new().mode(0o700).create(&run_dir).map_err(Error::io("making", &run_dir))?;
        limits::note(&w.m, self.row.ctid, &LimitSet::of(&self.config))?;
        settle::make_root(&self.storage.root)
    }

    fn launch(&mut self, w: &Work) -> Result<()> {
        let m = &w.m;
        let ctid = self.row.ctid;
        let plan = LaunchPlan {
            ctid,
            uuid: self.row.uuid.clone(),
            hostname: self.config.hostname.clone(),
            storage: self.storage.clone(),
            cgroup: self.cgroup.clone(),
            run_dir: m.paths.ct_run(ctid),
            stop_timeout: settle::stop_timeout(m, Some(&self.config)),
            features: self.config.features.clone(),
            console_log: m.config.defaults.console_log.0,
            link: Some(m.paths.link(ctid)),
            inside_link: network::INSIDE_LINK.into(),
            addresses: self.addresses.clone(),
            edits: edits::boot(&self.config),
            fault: m.fault.monitor_step(),
            limits: Inside::of(&self.config),
            more: self.row.uid_more.clone(),
            own_files: Some(m.paths.bc(ctid)),
        };
        // Out of the service's cgroup; where there is none it still outlives vzd, unless somebody ends all of the
        // service's processes.
        let monitors = m.tree().and_then(|t| Ok(t.monitors()?));
        let monitors = monitors.inspect_err(|e| tracing::warn!("no cgroup for monitors: {}", e.report())).ok();
        let launching = m.hands.monitor.launch(&plan, monitors.as_ref().map(AsFd::as_fd))?;
        self.note.monitor = launching.id();
        self.launching = Some(launching);
        self.deadline = Some(Instant::now() + LAUNCH);
        Ok(())
    }

    /// Before anything of the container runs: nothing does before "go".
    fn limits(&mut self, w: &Work) -> Result<()> {
        accounts::fresh(&w.m, self.row.ctid);
        limits::limit_new(&w.m, self.row.ctid, &self.config)
    }

    fn namespaces(&mut self, _: &Work) -> Result<Flow> {
        let (Some(launching), Some(until)) = (&mut self.launching, self.deadline) else { return Ok(Flow::Done) };
        if let Some(netns) = launching.net_ready(AT_ONCE)? {
            self.netns = Some(netns);
            self.deadline = Some(Instant::now() + LAUNCH);
            return Ok(Flow::Done);
        }
        waiting(&**launching, until, "making its namespaces")
    }

    fn network(&mut self, w: &Work) -> Result<()> {
        let Some(netns) = self.netns.take() else { return Ok(()) };
        w.m.hands.network.attach(self.row.ctid, netns.as_fd(), &self.addresses)?;
        Ok(())
    }

    fn running(&mut self, w: &Work) -> Result<Flow> {
        let (Some(launching), Some(until)) = (&mut self.launching, self.deadline) else { return Ok(Flow::Done) };
        if !self.gone {
            launching.go()?;
            self.gone = true;
        }
        let Some(Launched { child, steps, warnings }) = launching.running(AT_ONCE)? else {
            return waiting(&**launching, until, "booting");
        };
        self.launching = None;
        self.child = child;
        let mut before = 0;
        let steps: Vec<(String, u64)> = steps
            .into_iter()
            .map(|(name, at)| (format!("vzmon.{name}"), at.saturating_sub(std::mem::replace(&mut before, at))))
            .collect();
        w.handle.change(|s| s.times.extend(steps));
        for text in warnings {
            w.tell(Fact::LeftOut { text });
        }
        Ok(Flow::Done)
    }

    /// Takes it in: from now on it is known to run, and its end is noticed. Answers its monitor's child, to be watched.
    pub fn take_in(&mut self, w: &Work) -> (Option<Live>, Option<Spawned>) {
        let cell = w.m.cell(self.row.ctid);
        let live = match cell.live().filter(|_| self.found) {
            Some(live) => Some(live),
            None => match w.m.hands.monitor.find(&w.m.paths.ct_run(self.row.ctid), &w.m.boot_id) {
                Found::Live(live) => Some(*live),
                // It ended between its answer and our look at its record.
                Found::Nothing | Found::Stale => None,
                // It has just said that it runs.
                Found::Unclear(cause) => {
                    tracing::warn!(ctid = self.row.ctid.get(), "it runs, and cannot be looked at yet: {cause}");
                    None
                }
            },
        };
        cell.set_live(live.clone());
        (live, self.child.take())
    }

    /// Takes back whatever a monitor on its way has done.
    fn unlaunch(&mut self, w: &Work) -> Result<()> {
        if self.gone {
            // Its init runs, or is about to, and has served nobody yet; its monitor ends by itself with that.
            let killed = w.m.tree().and_then(|t| Ok(t.kill(self.row.ctid, KILLED)?));
            if let Err(e) = killed {
                tracing::warn!(ctid = self.row.ctid.get(), "it is ended with its monitor: {}", e.report());
            }
        }
        if let Some(launching) = self.launching.take() {
            launching.abort();
        }
        if let Some(id) = self.note.monitor {
            // Without us it unwinds by itself; one that does not is stuck.
            w.m.hands.monitor.end_process(id, Duration::from_secs(5));
        }
        if let Some(mut child) = self.child.take() {
            child.kill();
            if let Err(e) = child.wait() {
                tracing::warn!(ctid = self.row.ctid.get(), "its monitor could not be reaped: {e}");
            }
        }
        let mut down = Down::new(self.row.clone(), None, How::default());
        if self.note.was_mounted {
            down = down.keep_mounted();
        }
        match down.clear(w) {
            problems if problems.is_empty() => Ok(()),
            problems => Err(Error::Teardown { ctid: self.row.ctid, problems }),
        }
    }
}

fn waiting(launching: &dyn Launch, until: Instant, what: &str) -> Result<Flow> {
    if Instant::now() < until {
        return Ok(Flow::Wait(Wait { fd: launching.fd(), until }));
    }
    let message = format!("its monitor was not done with {what} after {} s", LAUNCH.as_secs());
    Err(Error::refused(ExitCode::Environment, message, "look at the host's load and disks, and try again"))
}

/// The step after which recovery must know which process the monitor is: whoever has these steps notes it then.
pub const LAUNCHED: &str = "launch";

/// Its steps, in order, up to the one that says it is done.
pub fn steps() -> Vec<Step<Up>> {
    vec![
        Step::new("claims", Up::claims),
        Step::new("cgroup", |u: &mut Up, w| {
            u.cgroup = w.m.tree()?.create(u.row.ctid, u.row.uid_base)?;
            Ok(())
        })
        .undo(|u, w| Ok(w.m.tree()?.remove(u.row.ctid)?)),
        Step::new("rundir", Up::rundir).undo(|u, w| {
            settle::clear_run_dir(&w.m.paths.ct_run(u.row.ctid))?;
            if !u.note.was_mounted {
                let _ = fs::remove_dir(&u.storage.root);
            }
            Ok(())
        }),
        Step::new("own-files", |u: &mut Up, w| accounts::texts::make(&w.m, &u.row, &u.config)).undo(|u, w| {
            w.m.hands.storage.remove_small_filesystem(&w.m.paths.bc(u.row.ctid));
            Ok(())
        }),
        Step::new("check-disk", |u: &mut Up, w| Ok(w.m.hands.storage.check(&u.storage)?)),
        Step::new(LAUNCHED, Up::launch).undo(Up::unlaunch),
        Step::new("limits", Up::limits),
        Step::waiting("namespaces", Up::namespaces),
        Step::new("network", Up::network),
        Step::waiting("running", Up::running),
        Step::new("disks", |u: &mut Up, w| limits::limit_disks(&w.m, u.row.ctid, &u.config)),
    ]
}

/// Brings claims and filter to what the configuration says now: it may have been edited by hand.
fn sync_claims(m: &Manager, row: &CtRow, config: &CtConfig) -> Result<()> {
    let had = m.inventory.addresses(row.ctid)?;
    let want: &[CtAddr] = &config.network.ip;
    let same = had.len() == want.len() && had.iter().all(|(ip, saved)| *saved && want.contains(ip));
    if same && row.name == config.name {
        return Ok(());
    }
    let new: Vec<CtAddr> = want.iter().filter(|ip| !had.iter().any(|(h, _)| h == *ip)).copied().collect();
    let gone: Vec<CtAddr> = had.iter().map(|(ip, _)| *ip).filter(|ip| !want.contains(ip)).collect();
    settle::probe(m, &new)?;
    m.inventory.change("claiming what the configuration says", true, |c| {
        c.settle(row.ctid, config.name.as_ref(), want, &[])
    })?;
    if !new.is_empty() {
        m.hands.network.allow(row.ctid, &new)?;
    }
    if !gone.is_empty() {
        m.hands.network.deny(row.ctid, &gone)?;
    }
    Ok(())
}

/// It runs: that is the new state, and its end will be noticed.
pub fn commit(up: &mut Up, w: &Work) -> Result<()> {
    let ctid = up.row.ctid;
    w.nothing_is_left();
    w.tell(Fact::Started);
    let end = End {
        durable: false,
        state: Some(CtState::Running),
        event: Some(("started", format!("started by `{}`", w.handle.kind))),
    };
    w.finish(end, |c| c.started(ctid))?;
    w.m.cell(ctid).set_boots(1);
    let (live, child) = up.take_in(w);
    w.m.watcher.add(ctid, live, child);
    Ok(())
}
