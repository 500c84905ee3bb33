//! Two small things every operation uses: [`Steps`], which walks the table's steps with their fault
//! points, times and journal notes, and [`Live`], what is known of a running container.

use super::{Engine, Error, Outcome, Result, process, steps::Fault};
use crate::inventory::Inventory;
use std::{
    fs,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::Path,
    sync::Arc,
    time::Instant,
};
use vz_types::{
    Ctid,
    run::{ExitReason, ExitRecord, RunRecord},
    state::Op,
};

/// The steps of one operation under way.
#[derive(Debug)]
pub(crate) struct Steps<'e> {
    fault: &'e Fault,
    inventory: &'e Inventory,
    op: Op,
    ctid: Ctid,
    journalled: bool,
    times: Vec<(String, u64)>,
    problems: Vec<String>,
}

impl<'e> Steps<'e> {
    /// Of `op` on `ctid`; its journal row is opened by its own first step.
    pub(crate) fn new(engine: &'e Engine, op: Op, ctid: Ctid) -> Self {
        Self {
            fault: &engine.fault,
            inventory: &engine.inventory,
            op,
            ctid,
            journalled: false,
            times: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// The journal row is open: later steps are noted in it.
    pub(crate) fn journalled(&mut self) {
        self.journalled = true;
    }

    /// Whether there is a journal row to be closed.
    pub(crate) fn is_journalled(&self) -> bool {
        self.journalled
    }

    /// Carries out one step; its failure names it.
    pub(crate) fn run<T>(&mut self, step: &'static str, f: impl FnOnce() -> Result<T>) -> Result<T> {
        self.fault.reach(self.op, step, true);
        self.note(step)?;
        self.carry_out(step, f)
    }

    fn note(&self, step: &str) -> Result<()> {
        match self.journalled {
            true => Ok(self.inventory.journal_step(self.ctid, step)?),
            false => Ok(()),
        }
    }

    fn carry_out<T>(&mut self, step: &'static str, f: impl FnOnce() -> Result<T>) -> Result<T> {
        let began = Instant::now();
        let out = f().map_err(|e| match e {
            // A refusal that comes out of the first step (a claim) is no failure of a step.
            e @ (Error::Refused { .. } | Error::Busy { .. }) => e,
            Error::Inventory(e) if !self.journalled => Error::Inventory(e),
            e => Error::Step { op: self.op, ctid: self.ctid, step: step.into(), source: Box::new(e) },
        })?;
        let us = began.elapsed().as_micros() as u64;
        tracing::debug!(ctid = self.ctid.get(), op = self.op.word(), step, took_us = us);
        self.times.push((step.into(), us));
        self.fault.reach(self.op, step, false);
        Ok(out)
    }

    /// Carries out one step of a teardown: its failure is kept and the next one goes on. That it cannot be noted (a full
    /// disk) keeps nothing from being taken down.
    pub(crate) fn attempt(&mut self, step: &'static str, f: impl FnOnce() -> Result<()>) {
        self.fault.reach(self.op, step, true);
        if let Err(e) = self.note(step) {
            tracing::warn!(ctid = self.ctid.get(), op = self.op.word(), step, "{}", e.report());
        }
        if let Err(e) = self.carry_out(step, f) {
            tracing::warn!(ctid = self.ctid.get(), op = self.op.word(), step, "{}", e.report());
            self.problems.push(e.report());
        }
    }

    /// The monitor's own steps, in place of ours around them.
    pub(crate) fn add_monitor_steps(&mut self, steps: &[(String, u64)]) {
        let mut before = 0;
        for (name, at) in steps {
            self.times.push((format!("vzmon.{name}"), at.saturating_sub(before)));
            before = *at;
        }
    }

    /// What went wrong in teardown steps, and that it did.
    pub(crate) fn problems(&mut self) -> Result<()> {
        match std::mem::take(&mut self.problems) {
            p if p.is_empty() => Ok(()),
            problems => Err(Error::Teardown { ctid: self.ctid, problems }),
        }
    }

    /// The steps with their times, and sentences.
    pub(crate) fn outcome(self, messages: Vec<String>) -> Outcome {
        let total: u64 = self.times.iter().filter(|(n, _)| !n.starts_with("vzmon.")).map(|(_, us)| us).sum();
        tracing::info!(ctid = self.ctid.get(), op = self.op.word(), took_us = total, "done");
        Outcome { messages, warnings: Vec::new(), steps: self.times }
    }
}

/// A container that runs, as its monitor's record says.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    /// The record, as of [`Live::refresh`].
    pub(crate) record: RunRecord,
    /// The monitor.
    pub(crate) monitor: Arc<OwnedFd>,
    stamp: (u64, i64, i64),
}

impl Live {
    /// From a run directory, if its record is of this host boot and its monitor is alive.
    pub(crate) fn find(run_dir: &Path, boot_id: &str) -> Option<Self> {
        let stamp = stamp(run_dir)?;
        let record = read_record(run_dir)?;
        if record.host_boot_id != boot_id {
            return None;
        }
        let monitor = Arc::new(process::open(record.monitor)?);
        Some(Self { record, monitor, stamp })
    }

    /// Whether the monitor has ended: the container runs no more, its remains may still be there.
    pub(crate) fn ended(&self) -> bool {
        process::ended(&self.monitor)
    }

    /// Takes the record in again when the monitor has replaced it (a reboot from inside, an address change).
    pub(crate) fn refresh(&mut self, run_dir: &Path) {
        let Some(now) = stamp(run_dir) else { return };
        if now != self.stamp {
            if let Some(record) = read_record(run_dir) {
                (self.record, self.stamp) = (record, now);
            }
        }
    }
}

fn stamp(run_dir: &Path) -> Option<(u64, i64, i64)> {
    fs::metadata(run_dir.join("state.json")).ok().map(|m| (m.ino(), m.mtime(), m.mtime_nsec()))
}

/// Why the run record that is there cannot be read. It may be of a container that runs, so nothing may be cleared away
/// on the strength of it.
pub(crate) fn illegible(run_dir: &Path) -> Option<String> {
    let text = fs::read(run_dir.join("state.json")).ok()?;
    serde_json::from_slice::<RunRecord>(&text).err().map(|e| e.to_string())
}

/// The run record of a run directory, whoever it belongs to.
pub(crate) fn read_record(run_dir: &Path) -> Option<RunRecord> {
    serde_json::from_slice(&fs::read(run_dir.join("state.json")).ok()?).ok()
}

/// The exit record of a run directory.
pub(crate) fn read_exit(run_dir: &Path) -> Option<ExitRecord> {
    serde_json::from_slice(&fs::read(run_dir.join("exit.json")).ok()?).ok()
}

/// How a run ended, for people.
pub(crate) fn exit_words(record: &ExitRecord) -> String {
    let how = match &record.reason {
        ExitReason::Poweroff => "powered off".into(),
        ExitReason::Killed => "killed by a stop".into(),
        ExitReason::Exited { status } => format!("init exited with status {status}"),
        ExitReason::Crashed { signal } => format!("init died of signal {signal}"),
        ExitReason::RebootFailed { cause } => format!("reboot from inside failed: {cause}"),
    };
    format!("{how} at {}", super::utc(record.at))
}
