//! `start` and `restart`: cgroup, monitor, network, go. See the drawing in [`vz_types::plan`].

use super::{
    Engine, Error, Outcome, Result, StartSpec, StopSpec, disk_spec, edits,
    limits::LimitSet,
    process,
    run::{Live, Steps},
    watch,
};
use crate::{inventory::CtRow, network, storage};
use serde::{Deserialize, Serialize};
use std::{fs, os::fd::AsFd, os::unix::fs::DirBuilderExt, sync::Arc};
use vz_sys::spawn::Spawned;
use vz_types::{
    CtAddr, CtConfig, CtState, Ctid, ExitCode, limits::kernel::Inside, plan::LaunchPlan, run::ProcessId, state::Op,
};

/// What recovery must know of an interrupted start.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct StartNote {
    /// The files were mounted by the operator before.
    pub(crate) was_mounted: bool,
    /// The monitor, once there is one.
    pub(crate) monitor: Option<ProcessId>,
}

impl Engine {
    /// Runs a container.
    pub fn start(self: &Arc<Self>, ctid: Ctid, spec: StartSpec) -> Result<Outcome> {
        let guard = self.take(ctid, Op::Start)?;
        let outcome = self.start_held(ctid, spec.force)?;
        drop(guard);
        self.after_start(ctid, spec.wait, outcome)
    }

    /// Stops a container if it runs, then runs it.
    pub fn restart(self: &Arc<Self>, ctid: Ctid, start: StartSpec, fast: bool) -> Result<Outcome> {
        let guard = self.take(ctid, Op::Restart)?;
        let row = self.row(ctid)?;
        let config = self.conf.read(ctid)?;
        self.decide(Op::Restart, &row, config.disabled, start.force)?;
        let stopped = match self.settled_state(&row) {
            CtState::Running => self.stop_held(&row, StopSpec { fast, timeout: None })?,
            _ => Outcome::default(),
        };
        guard.becomes(Op::Start);
        let outcome = stopped.and(self.start_held(ctid, start.force)?);
        drop(guard);
        self.after_start(ctid, start.wait, outcome)
    }

    fn after_start(&self, ctid: Ctid, wait: bool, mut outcome: Outcome) -> Result<Outcome> {
        if wait {
            outcome.messages.push(self.wait_booted(ctid)?);
        }
        Ok(outcome)
    }

    /// Starts a container whose lock the caller holds.
    pub(crate) fn start_held(self: &Arc<Self>, ctid: Ctid, force: bool) -> Result<Outcome> {
        let row = self.row(ctid)?;
        let config = self.conf.read(ctid)?;
        self.decide(Op::Start, &row, config.disabled, force)?;
        self.private_area(&row)?;
        let storage = self.storage_plan(&row);
        if !storage.template_root.is_dir() {
            let message = format!("CT {ctid}: its OS template's files {} are missing", storage.template_root.display());
            let hint =
                format!("`vzctl template build {}` may bring them back, or restore them from a backup", row.template);
            return Err(Error::refused(ExitCode::NoTemplate, message, &hint));
        }
        self.check_host_size(&config, ExitCode::BadConfig)?;
        let mut warnings = self.accept_gaps(ctid, &self.gaps(ctid, &config)?)?;
        self.admit(ctid, &config)?;
        let monitor = self.monitor()?;
        let cgroups = self.cgroups()?;
        let mut note = StartNote { was_mounted: self.settled_state(&row) == CtState::Mounted, monitor: None };
        let addresses = config.network.ip.clone();
        for ip in &addresses {
            self.network.free_on_host(ip)?;
        }

        let mut steps = Steps::new(self, Op::Start, ctid);
        steps.run("journal", || Ok(self.inventory.journal_open(Op::Start, ctid, &json(&note), false)?))?;
        steps.journalled();
        let done = (|| {
            steps.run("claims", || self.sync_claims(&row, &config))?;
            let cgroup = steps.run("cgroup", || Ok(cgroups.create(ctid, row.uid_base)?))?;
            let run_dir = self.paths.ct_run(ctid);
            steps.run("rundir", || {
                clear_run_dir(&run_dir)?;
                fs::DirBuilder::new().mode(0o700).create(&run_dir).map_err(Error::io("making", &run_dir))?;
                self.note_limits(ctid, &LimitSet::of(&config))?;
                self.make_root(&storage.root)
            })?;
            let own_files = self.make_own_files(&row, &config)?;
            let plan = LaunchPlan {
                ctid,
                uuid: row.uuid.clone(),
                hostname: config.hostname.clone(),
                storage,
                cgroup,
                run_dir,
                stop_timeout: self.stop_timeout(Some(&config)),
                features: config.features.clone(),
                console_log: self.config.defaults.console_log.0,
                link: Some(self.paths.link(ctid)),
                inside_link: network::INSIDE_LINK.into(),
                addresses: addresses.clone(),
                edits: edits::boot(&config),
                fault: self.fault.monitor_step(),
                limits: Inside::of(&config),
                own_files: Some(own_files),
            };
            let mut launching = steps.run("launch", || {
                let monitors = self.monitors_cgroup();
                let launching = monitor.launch(&plan, monitors.as_ref().map(AsFd::as_fd))?;
                note.monitor =
                    launching.pid().and_then(|pid| Some(ProcessId { pid, start_time: process::start_time(pid)? }));
                self.inventory.journal_payload(ctid, &json(&note))?;
                Ok(launching)
            })?;
            // While the monitor makes the namespaces. Nothing of the container runs before "go".
            let limited = steps.run("limits", || {
                self.accounts_fresh(ctid);
                self.limit_new(ctid, &config)
            });
            let attached = limited.and_then(|()| {
                let netns = steps.run("namespaces", || Ok(launching.net_ready()?))?;
                steps.run("network", || Ok(self.network.attach(ctid, netns.as_fd(), &addresses)?))
            });
            if let Err(e) = attached {
                launching.abort();
                return Err(e);
            }
            let launched = steps.run("running", || Ok(launching.go()?))?;
            steps.add_monitor_steps(&launched.steps);
            steps.run("disks", || self.limit_disks(ctid, &config))?;
            let live = Live::find(&plan.run_dir, &self.boot_id);
            steps.run("commit", || {
                self.inventory.set_last_failure(ctid, None)?;
                Ok(self.inventory.journal_close(ctid, false)?)
            })?;
            Ok((launched, live))
        })();
        match done {
            Ok((launched, live)) => {
                self.became_live(ctid, live, Some(launched.child));
                let mut outcome = steps.outcome(vec![
                    "Starting container...".into(),
                    "Container is mounted".into(),
                    "Container start in progress...".into(),
                ]);
                warnings.extend(launched.warnings);
                outcome.warnings = warnings;
                Ok(outcome)
            }
            Err(e) => {
                tracing::warn!(ctid = ctid.get(), op = "start", "{}", e.report());
                self.undo_start(&row, note);
                if let Err(e) = self.inventory.set_last_failure(ctid, Some(&e.report())) {
                    tracing::warn!(ctid = ctid.get(), "{e}");
                }
                Err(e)
            }
        }
    }

    /// Where monitors are born, out of the service's cgroup.
    fn monitors_cgroup(&self) -> Option<fs::File> {
        let found = self.cgroups().and_then(|c| Ok(c.monitors()?));
        found.inspect_err(|e| tracing::warn!("no cgroup for monitors: {}", e.report())).ok()
    }

    /// Takes a monitor that an earlier version left in the service's cgroup out of it. Where that fails it still outlives vzd, unless
    /// somebody ends all of the service's processes.
    pub(crate) fn keep_monitor(&self, pid: i32) {
        if let Err(e) = self.cgroups().and_then(|c| Ok(c.keep_monitor(pid)?)) {
            tracing::warn!(monitor = pid, "it stays in the cgroup of vzd: {}", e.report());
        }
    }

    /// Notes a running container and has its end watched.
    pub(crate) fn became_live(self: &Arc<Self>, ctid: Ctid, live: Option<Live>, child: Option<Spawned>) {
        let cell = self.cell(ctid);
        let monitor = live.as_ref().map(|l| l.monitor.clone());
        *super::lock(&cell.live) = live;
        match monitor {
            Some(monitor) => self.watcher.add(self, ctid, monitor, child),
            // It ended between its answer and our look at its record.
            None => watch::bury(self, ctid, child),
        }
    }

    /// Takes back whatever an interrupted or failed start has done.
    pub(crate) fn undo_start(&self, row: &CtRow, note: StartNote) {
        if let Some(pidfd) = note.monitor.and_then(process::open) {
            // Without us it unwinds by itself; one that does not is stuck.
            if !process::wait_end(&pidfd, std::time::Duration::from_secs(5)) {
                process::kill(&pidfd);
                process::wait_end(&pidfd, std::time::Duration::from_secs(5));
            }
        }
        for problem in self.take_down(row, None, !note.was_mounted) {
            tracing::warn!(ctid = row.ctid.get(), "undo of a start: {problem}");
        }
        if let Err(e) = self.inventory.journal_close(row.ctid, false) {
            tracing::warn!(ctid = row.ctid.get(), "undo of a start: {e}");
        }
    }

    /// Brings claims and filter to what the configuration says now: it may have been edited by hand.
    pub(crate) fn sync_claims(&self, row: &CtRow, config: &CtConfig) -> Result<()> {
        let had = self.inventory.addresses(row.ctid)?;
        let want: &[CtAddr] = &config.network.ip;
        let same = had.len() == want.len() && had.iter().all(|(ip, saved)| *saved && want.contains(ip));
        if same && row.name == config.name {
            return Ok(());
        }
        let new: Vec<CtAddr> = want.iter().filter(|ip| !had.iter().any(|(h, _)| h == *ip)).copied().collect();
        let gone: Vec<CtAddr> = had.iter().map(|(ip, _)| *ip).filter(|ip| !want.contains(ip)).collect();
        self.probe(&new)?;
        self.inventory.settle(row.ctid, config.name.as_ref(), want, &[], false, true)?;
        if !new.is_empty() {
            self.network.allow(row.ctid, &new)?;
        }
        if !gone.is_empty() {
            self.network.deny(row.ctid, &gone)?;
        }
        Ok(())
    }

    /// Refuses when the private area is missing.
    pub(crate) fn private_area(&self, row: &CtRow) -> Result<()> {
        let private = self.paths.private(row.ctid);
        if private.is_dir() {
            return Ok(());
        }
        let message = format!("CT {}: its private area {} is missing", row.ctid, private.display());
        Err(Error::refused(
            ExitCode::NoPrivateArea,
            message,
            "restore it from a backup, or `vzctl destroy` what is left",
        ))
    }

    pub(crate) fn stop_timeout(&self, config: Option<&CtConfig>) -> u32 {
        config.and_then(|c| c.stop_timeout).unwrap_or(self.config.defaults.stop_timeout)
    }

    /// How full the writable layer is, while it is mounted.
    pub(crate) fn disk_usage(&self, row: &CtRow, config: &CtConfig) -> Option<storage::DiskUsage> {
        storage::usage(&self.storage_plan(row), &disk_spec(config))
    }
}

/// Removes the remains of an earlier run: files of ours in a directory of ours.
pub(crate) fn clear_run_dir(dir: &std::path::Path) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::Io { what: "listing", path: dir.into(), source: e }),
    };
    for entry in entries.flatten() {
        fs::remove_file(entry.path()).map_err(Error::io("removing", entry.path()))?;
    }
    fs::remove_dir(dir).map_err(Error::io("removing", dir))
}

fn json(note: &StartNote) -> String {
    // A struct of numbers and booleans always has a JSON form.
    serde_json::to_string(note).unwrap_or_default()
}
