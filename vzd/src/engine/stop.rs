//! `stop`, and the teardown that every end of a container goes through: asked for, by itself, by a crash
//! of its monitor, or found at the next start of vzd. Teardown goes on past errors and reports them.

use super::{
    Engine, Error, Outcome, Result, StopSpec, lock, monitor, process,
    run::{Live, Steps, exit_words, read_exit},
    start::clear_run_dir,
};
use crate::inventory::CtRow;
use std::{sync::Arc, time::Duration};
use vz_types::{
    Ctid,
    plan::{ControlReply, ControlRequest},
    run::ExitReason,
    state::Op,
};

/// How long killed processes may take to be gone.
const KILL_DEADLINE: Duration = Duration::from_secs(20);
/// What the monitor needs beyond the time it gives the container.
const GRACE: Duration = Duration::from_secs(15);

impl Engine {
    /// Ends a container.
    pub fn stop(&self, ctid: Ctid, spec: StopSpec) -> Result<Outcome> {
        let _guard = self.take(ctid, Op::Stop)?;
        let row = self.row(ctid)?;
        match self.decide(Op::Stop, &row, false, false)? {
            Some(sentence) => Ok(Outcome::say(sentence)),
            None => self.stop_held(&row, spec),
        }
    }

    /// Stops a running container whose lock the caller holds.
    pub(crate) fn stop_held(&self, row: &CtRow, spec: StopSpec) -> Result<Outcome> {
        let ctid = row.ctid;
        let live = lock(&self.cell(ctid).live).clone();
        // A broken configuration keeps nobody from stopping.
        let config = self.conf.read(ctid).ok();
        let timeout = spec.timeout.unwrap_or_else(|| self.stop_timeout(config.as_deref()));
        let mut steps = Steps::new(self, Op::Stop, ctid);
        steps.run("journal", || Ok(self.inventory.journal_open(Op::Stop, ctid, "{}", false)?))?;
        steps.journalled();
        let mut messages = vec!["Stopping container ...".to_owned()];
        let mut warnings = Vec::new();
        steps.run("signal", || {
            let request = ControlRequest::Stop { fast: spec.fast, timeout: Some(timeout) };
            let deadline = GRACE + Duration::from_secs(if spec.fast { 0 } else { timeout.into() });
            match monitor::control(&self.paths.ct_run(ctid), &request, deadline) {
                Ok(ControlReply::Ended { reason: ExitReason::Killed }) if !spec.fast => {
                    warnings.push(format!("CT {ctid} did not stop by itself within {timeout} s and was killed"));
                }
                // The next step ends it without the monitor's help.
                Err(e) => warnings.push(format!(
                    "CT {ctid} was killed, because its monitor did not answer: {}",
                    Error::from(e).report()
                )),
                Ok(_) => {}
            }
            Ok(())
        })?;
        self.teardown_steps(&mut steps, row, live.as_ref(), true);
        let problems = steps.problems();
        messages.extend(["Container was stopped".into(), "Container is unmounted".into()]);
        problems.map(|()| Outcome { warnings, ..steps.outcome(messages) })
    }

    /// Clears everything away that a container which runs no more has left. What failed, in words.
    pub(crate) fn take_down(&self, row: &CtRow, live: Option<&Live>, umount: bool) -> Vec<String> {
        let mut steps = Steps::new(self, Op::Stop, row.ctid);
        self.teardown_steps(&mut steps, row, live, umount);
        match steps.problems() {
            Err(Error::Teardown { problems, .. }) => problems,
            _ => Vec::new(),
        }
    }

    fn teardown_steps(&self, steps: &mut Steps<'_>, row: &CtRow, live: Option<&Live>, umount: bool) {
        let ctid = row.ctid;
        let run_dir = self.paths.ct_run(ctid);
        steps.attempt("kill", || {
            if let Some(live) = live {
                if !process::wait_end(&live.monitor, Duration::from_secs(5)) {
                    process::kill(&live.monitor);
                    process::wait_end(&live.monitor, KILL_DEADLINE);
                }
            }
            Ok(self.cgroups()?.kill(ctid, KILL_DEADLINE)?)
        });
        self.accounts_close(row);
        self.remove_own_files(ctid);
        let ended = read_exit(&run_dir);
        if umount {
            steps.attempt("umount", || self.hide(&self.storage_plan(row)));
        }
        steps.attempt("network", || {
            let addresses: Vec<_> = self.inventory.addresses(ctid)?.into_iter().map(|(ip, _)| ip).collect();
            Ok(self.network.detach(ctid, &addresses)?)
        });
        steps.attempt("cgroup", || Ok(self.cgroups()?.remove(ctid)?));
        steps.attempt("rundir", || clear_run_dir(&run_dir));
        steps.attempt("commit", || {
            match (&ended, live) {
                (Some(record), _) => self.inventory.set_last_exit(ctid, &exit_words(record))?,
                (None, Some(_)) => {
                    let words = format!("its monitor ended without a record at {}", super::utc(super::now()));
                    self.inventory.set_last_exit(ctid, &words)?;
                }
                (None, None) => {}
            }
            self.drop_unsaved(row)?;
            Ok(self.inventory.journal_close(ctid, false)?)
        });
        *lock(&self.cell(ctid).live) = None;
    }

    /// Gives back addresses that were only for the run that has ended.
    fn drop_unsaved(&self, row: &CtRow) -> Result<()> {
        let all = self.inventory.addresses(row.ctid)?;
        let (saved, unsaved): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, saved)| *saved);
        if unsaved.is_empty() {
            return Ok(());
        }
        let ips = |v: Vec<(vz_types::CtAddr, bool)>| v.into_iter().map(|(ip, _)| ip).collect::<Vec<_>>();
        let name = self.inventory.container(row.ctid)?.and_then(|r| r.name);
        self.inventory.settle(row.ctid, name.as_ref(), &ips(saved), &[], false, false)?;
        Ok(self.network.deny(row.ctid, &ips(unsaved))?)
    }
}

/// Clears away a container whose monitor has ended; the caller holds its lock.
pub(crate) fn reap(engine: &Engine, row: &CtRow) -> Result<()> {
    let live = lock(&engine.cell(row.ctid).live).clone();
    let Some(live) = live.filter(Live::ended) else { return Ok(()) };
    let problems = engine.take_down(row, Some(&live), true);
    let words = engine.inventory.container(row.ctid)?.and_then(|r| r.last_exit).unwrap_or_default();
    tracing::info!(ctid = row.ctid.get(), event = "ended", "{words}");
    if problems.is_empty() { Ok(()) } else { Err(Error::Teardown { ctid: row.ctid, problems }) }
}

/// As [`reap`], from the watcher: takes the lock itself, because an operation may have it.
pub(crate) fn reap_when_free(engine: &Arc<Engine>, ctid: Ctid, deadline: Duration) {
    let Some(_guard) = engine.take_waiting(ctid, Op::Stop, deadline) else { return };
    let reaped = engine
        .inventory
        .container(ctid)
        .map_err(Error::from)
        .and_then(|row| row.map_or(Ok(()), |row| reap(engine, &row)));
    if let Err(e) = reaped {
        tracing::warn!(ctid = ctid.get(), "{}", e.report());
    }
}
