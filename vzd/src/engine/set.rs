//! `set`: what the running container can take is changed live, and the configuration with `--save`.
//!
//! The configuration file's rename is what makes a saved change the new state. After a failure or a kill,
//! [`Engine::converge`] brings everything else to what the file then says, so it ends old or new.

use super::{
    Changes, Engine, Error, Outcome, Result, SetMode, SetSpec, StopSpec,
    create::check_config,
    disk_spec, edits,
    limits::LimitSet,
    lock, monitor,
    run::{Live, Steps},
};
use crate::{inventory::CtRow, storage};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use vz_types::{CtAddr, CtConfig, CtState, Ctid, ExitCode, limits::Ub, plan::ControlRequest, state::Op};

/// The classic sentence of a change that is not in the configuration.
const NOT_SAVED: &str =
    "WARNING: Settings were not saved and will be resetted to original values on next start (use --save flag)";
/// What one request to the monitor may take: its own limit for edits is 5 s.
const CONTROL: Duration = Duration::from_secs(20);

/// What recovery must know of an interrupted set.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct SetNote {
    /// Text of the configuration that is to be, when it is to be saved.
    new_conf: Option<String>,
    /// Addresses of the running container before and after.
    live_before: Vec<CtAddr>,
    live_after: Vec<CtAddr>,
    /// Whether files inside or the disk's size are touched.
    files: bool,
    disk: bool,
    /// Limits of the running container before and after, when they change.
    #[serde(default)]
    limits: Option<(LimitSet, LimitSet)>,
}

/// Limits of a running container before and after a change of them, and what is to be said about it.
type PlannedLimits = (Option<(LimitSet, LimitSet)>, Vec<String>);

/// A set with everything decided and nothing done.
struct Plan {
    old: Arc<CtConfig>,
    old_conf: String,
    new: CtConfig,
    live: Option<Live>,
    save: bool,
    note: SetNote,
    /// Addresses nobody had before.
    claims: Vec<CtAddr>,
    /// Limits that are not what they may seem.
    warnings: Vec<String>,
}

impl Plan {
    fn boot_changed(&self) -> bool {
        let (old, new) = (&self.old, &self.new);
        old.hostname != new.hostname
            || old.network.nameserver != new.network.nameserver
            || old.network.searchdomain != new.network.searchdomain
    }

    /// What only the next start can change.
    fn not_live(&self) -> Vec<&'static str> {
        let signals = |c: &CtConfig| c.limits.get(Ub::Numsiginfo);
        let features = (self.old.features != self.new.features).then_some("features");
        let signals = (signals(&self.old) != signals(&self.new)).then_some("numsiginfo");
        features.into_iter().chain(signals).collect()
    }

    fn shrinks(&self) -> bool {
        let (old, new) = (&self.old.disk, &self.new.disk);
        new.space < old.space || new.inodes < old.inodes
    }

    /// Addresses claimed once it is done: (saved, only for the running container).
    fn claims_after(&self) -> (Vec<CtAddr>, Vec<CtAddr>) {
        let saved = if self.save { &self.new.network.ip } else { &self.old.network.ip };
        let unsaved = self.note.live_after.iter().filter(|ip| !saved.contains(ip)).copied().collect();
        (saved.clone(), unsaved)
    }
}

impl Engine {
    /// Changes a container.
    pub fn set(self: &Arc<Self>, ctid: Ctid, spec: &SetSpec) -> Result<Outcome> {
        let guard = self.take(ctid, Op::Set)?;
        let row = self.row(ctid)?;
        self.decide(Op::Set, &row, false, false)?;
        let plan = self.plan_set(&row, spec)?;
        let running = plan.live.is_some();
        let later = plan.not_live();
        let held_back = running && !later.is_empty();
        if held_back && spec.mode.is_none() {
            let message = format!("CT {ctid}: {} cannot change while it is running", later.join(" and "));
            return Err(Error::refused(
                ExitCode::Running,
                message,
                "add --setmode restart to restart it, or --setmode ignore to change them at its next start",
            ));
        }
        let mut steps = Steps::new(self, Op::Set, ctid);
        if let Err(e) = self.set_steps(&mut steps, &row, &plan, &spec.changes) {
            if steps.is_journalled() {
                self.restore_conf(ctid, &plan);
                self.converge(&row, &plan.note);
            }
            return Err(e);
        }
        let mut outcome = steps.outcome(self.set_messages(&plan, ctid));
        let config_changed = *plan.old != plan.new;
        if !plan.save && config_changed {
            outcome.warnings.push(NOT_SAVED.into());
        }
        if held_back && plan.save && spec.mode == Some(SetMode::Restart) {
            let stopped = self.stop_held(&row, StopSpec::default())?;
            guard.becomes(Op::Start);
            outcome = outcome.and(stopped).and(self.start_held(ctid, true)?);
        } else if held_back {
            let what = later.join(" and ");
            outcome.warnings.push(format!("{what} of the running CT {ctid} stay as they are until its next start"));
        }
        outcome.warnings.extend(plan.warnings);
        Ok(outcome)
    }

    fn plan_set(&self, row: &CtRow, spec: &SetSpec) -> Result<Plan> {
        let changes = &spec.changes;
        let old = self.conf.read(row.ctid)?;
        let new = self.changed(changes, &old)?;
        check_config(&new)?;
        let mut live = lock(&self.cell(row.ctid).live).clone();
        if let Some(live) = live.as_mut() {
            live.refresh(&self.paths.ct_run(row.ctid));
        }
        let live_before = live.as_ref().map(|l| l.record.addresses.clone()).unwrap_or_default();
        let live_after = if live.is_some() { changes.addresses(&live_before) } else { Vec::new() };
        let had: Vec<CtAddr> = self.inventory.addresses(row.ctid)?.into_iter().map(|(ip, _)| ip).collect();
        let saved: &[CtAddr] = if spec.save { &new.network.ip } else { &[] };
        let mut claims: Vec<CtAddr> = saved.iter().chain(&live_after).filter(|ip| !had.contains(ip)).copied().collect();
        claims.sort_unstable();
        claims.dedup();
        self.probe(&claims)?;
        if changes.touches_files() {
            self.private_area(row)?;
        }
        let new_conf = match spec.save && new != *old {
            true => Some(self.conf.edited(row.ctid, &new)?),
            false => None,
        };
        let (limits, warnings) = self.plan_limits(row, changes, &old, &new, live.is_some())?;
        let note = SetNote {
            new_conf,
            live_before,
            live_after,
            files: changes.touches_files(),
            disk: old.disk != new.disk,
            limits,
        };
        let old_conf = self.conf.text(row.ctid)?;
        Ok(Plan { old, old_conf, new, live, save: spec.save, note, claims, warnings })
    }

    /// The limits of the running container before and after, and what is to be said of them; refuses what is above
    /// the host, below the use, or not to be had.
    fn plan_limits(
        &self,
        row: &CtRow,
        changes: &Changes,
        old: &CtConfig,
        new: &CtConfig,
        running: bool,
    ) -> Result<PlannedLimits> {
        if changes.limits.is_empty() && LimitSet::of(old) == LimitSet::of(new) {
            return Ok((None, Vec::new()));
        }
        self.check_host_size(new, ExitCode::BadValue)?;
        let mut warnings = super::limits::remarks(&changes.limits);
        if !running {
            // It may be started on another day, or another host: said now, refused then.
            let gaps = self.gaps(row.ctid, new)?;
            let said = gaps.iter().map(|g| format!("{} cannot be enforced on this host: {}", g.name, g.reason));
            warnings.extend(said);
            return Ok((None, warnings));
        }
        let before = self.live_limits(row.ctid).unwrap_or_else(|| LimitSet::of(old));
        let now = before.in_config(old);
        let after = self.changed(changes, &now)?;
        self.check_host_size(&after, ExitCode::BadValue)?;
        let had = self.gaps(row.ctid, &now)?;
        let fresh: Vec<_> = self.gaps(row.ctid, &after)?.into_iter().filter(|g| !had.contains(g)).collect();
        warnings.extend(self.accept_gaps(row.ctid, &fresh)?);
        self.check_shrink(row, &now, &after)?;
        if after.limits.get(Ub::Oomguarpages).barrier > now.limits.get(Ub::Oomguarpages).barrier {
            self.admit(row.ctid, &after)?;
        }
        Ok((Some((before, LimitSet::of(&after))), warnings))
    }

    /// A configuration with changes: first those of a sample, then the request's own.
    pub(crate) fn changed(&self, changes: &Changes, config: &CtConfig) -> Result<CtConfig> {
        let base = match &changes.sample {
            None => config.clone(),
            Some(name) => self.sample(name)?.apply(config),
        };
        Ok(changes.apply(&base))
    }

    fn set_steps(&self, steps: &mut Steps<'_>, row: &CtRow, plan: &Plan, changes: &Changes) -> Result<()> {
        let ctid = row.ctid;
        let name = if plan.save { &plan.new.name } else { &plan.old.name };
        steps.run("claim", || {
            // A struct of strings, numbers and booleans always has a JSON form.
            let note = serde_json::to_string(&plan.note).unwrap_or_default();
            Ok(self.inventory.claim_set(ctid, name.as_ref(), &plan.claims, &note)?)
        })?;
        steps.journalled();
        steps.run("filter", || Ok(self.network.allow(ctid, &plan.claims)?))?;
        steps.run("live", || self.set_live(row, plan, changes))?;
        if let (Some((before, after)), Some(live)) = (&plan.note.limits, &plan.live) {
            let (old, new) = (before.in_config(&plan.old), after.in_config(&plan.old));
            steps.run("limits", || self.limit_running(row, live, &old, &new))?;
        }
        if changes.reset_ub {
            self.reset_counters(ctid)?;
        }
        if let Some(text) = &plan.note.new_conf {
            steps.run("conf", || Ok(self.conf.replace(ctid, text)?))?;
        }
        // A size cannot always be taken back (a mounted layer does not shrink, one that has shrunk has lost inodes), so
        // it changes when the file that recovery goes by says the new one.
        if plan.note.disk && (plan.save || plan.live.is_some()) {
            let step = if plan.shrinks() { "shrink" } else { "grow" };
            steps.run(step, || self.resize(row, &plan.new, plan.old.disk.inodes != plan.new.disk.inodes))?;
        }
        let before: Vec<CtAddr> = self.inventory.addresses(ctid)?.into_iter().map(|(ip, _)| ip).collect();
        let (saved, unsaved) = plan.claims_after();
        steps.run("commit", || Ok(self.inventory.settle(ctid, name.as_ref(), &saved, &unsaved, true, true)?))?;
        let gone: Vec<CtAddr> = before.into_iter().filter(|ip| !saved.contains(ip) && !unsaved.contains(ip)).collect();
        // The container has lost them already: a filter element too many lets nothing of use through.
        steps.attempt("release", || Ok(self.network.deny(ctid, &gone)?));
        Ok(())
    }

    /// Gives a container's writable layer the size its configuration says. An image's inodes are fixed when it is made:
    /// unless another number is wanted, the one it has counts.
    fn resize(&self, row: &CtRow, config: &CtConfig, inodes_wanted: bool) -> Result<()> {
        let storage = self.storage_plan(row);
        if self.settled_state(row) == CtState::Stopped {
            // Nobody else may have the image open while its filesystem is rewritten.
            storage::umount(&storage)?;
        }
        let mut spec = disk_spec(config);
        if !inodes_wanted && storage.private.join("disk.img").exists() {
            spec.inodes = storage::usage(&storage, &spec).map_or(spec.inodes, |u| u.inodes_limit);
        }
        Ok(storage::resize(&storage, &spec)?)
    }

    /// Everything a running container is changed in; passwords and keys of a stopped one as well.
    fn set_live(&self, row: &CtRow, plan: &Plan, changes: &Changes) -> Result<()> {
        let at_once = edits::now(changes);
        if plan.live.is_none() {
            return if at_once.is_empty() {
                Ok(())
            } else {
                self.edit_stopped(row, at_once).map_err(password_code(changes))
            };
        }
        let mut edit_now = at_once;
        if plan.boot_changed() {
            self.set_boot(row.ctid, &plan.new)?;
            edit_now.extend(edits::changed(&plan.old, &plan.new));
        }
        if !edit_now.is_empty() {
            self.ask(row.ctid, &ControlRequest::Edit { edits: edit_now }).map_err(password_code(changes))?;
        }
        let (before, after) = (&plan.note.live_before, &plan.note.live_after);
        if before != after {
            self.set_addresses(row.ctid, before, after)?;
        }
        Ok(())
    }

    /// Gives a running container exactly `after`; `before` may be more than it has.
    fn set_addresses(&self, ctid: Ctid, before: &[CtAddr], after: &[CtAddr]) -> Result<()> {
        let new: Vec<CtAddr> = after.iter().filter(|ip| !before.contains(ip)).copied().collect();
        let gone: Vec<CtAddr> = before.iter().filter(|ip| !after.contains(ip)).copied().collect();
        if !new.is_empty() {
            self.network.add_addresses(ctid, &new)?;
        }
        self.ask(ctid, &ControlRequest::SetAddresses { addresses: after.to_vec() })?;
        if !gone.is_empty() {
            self.network.del_addresses(ctid, &gone)?;
        }
        Ok(())
    }

    /// Puts the old configuration back when the new one was in place already.
    fn restore_conf(&self, ctid: Ctid, plan: &Plan) {
        if plan.note.new_conf.is_some() && self.conf.text(ctid).ok() == plan.note.new_conf {
            if let Err(e) = self.conf.replace(ctid, &plan.old_conf) {
                tracing::error!(ctid = ctid.get(), op = "set", "{e}");
            }
        }
    }

    fn set_boot(&self, ctid: Ctid, config: &CtConfig) -> Result<()> {
        self.ask(ctid, &ControlRequest::SetBoot { hostname: config.hostname.clone(), edits: edits::boot(config) })
    }

    fn ask(&self, ctid: Ctid, request: &ControlRequest) -> Result<()> {
        monitor::control(&self.paths.ct_run(ctid), request, CONTROL)?;
        Ok(())
    }

    fn set_messages(&self, plan: &Plan, ctid: Ctid) -> Vec<String> {
        let words = |ips: Vec<&CtAddr>| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let (before, after) = match &plan.live {
            Some(_) => (&plan.note.live_before, &plan.note.live_after),
            None if plan.save => (&plan.old.network.ip, &plan.new.network.ip),
            // Neither the container nor its configuration changes.
            None => (&plan.old.network.ip, &plan.old.network.ip),
        };
        let gone: Vec<&CtAddr> = before.iter().filter(|ip| !after.contains(ip)).collect();
        let new: Vec<&CtAddr> = after.iter().filter(|ip| !before.contains(ip)).collect();
        let mut messages = Vec::new();
        if !gone.is_empty() {
            messages.push(format!("Deleting IP address(es): {}", words(gone)));
        }
        if !new.is_empty() {
            messages.push(format!("Adding IP address(es): {}", words(new)));
        }
        if plan.save {
            messages.push(format!("CT configuration saved to {}", self.paths.conf(ctid).display()));
        }
        messages
    }

    /// After a failure or a kill: claims, filter, disk, running container and files inside become what the
    /// configuration file now says, and the journal row is closed. Problems are logged.
    pub(crate) fn converge(&self, row: &CtRow, note: &SetNote) {
        let ctid = row.ctid;
        let mut problems: Vec<String> = Vec::new();
        let mut attempt = |r: Result<()>| problems.extend(r.err().map(|e| e.report()));
        let saved_now = note.new_conf.is_some() && self.conf.text(ctid).ok() == note.new_conf;
        let config = self.conf.read(ctid);
        let live = lock(&self.cell(ctid).live).clone().filter(|l| !l.ended());
        let target = if saved_now { &note.live_after } else { &note.live_before };
        if let Ok(config) = &config {
            // Before the file says the new size, nothing has been resized.
            if note.disk && saved_now {
                attempt(self.resize(row, config, false));
            }
            if live.is_some() {
                attempt(self.set_boot(ctid, config));
                let edits = edits::boot(config);
                if !edits.is_empty() {
                    attempt(self.ask(ctid, &ControlRequest::Edit { edits }));
                }
            }
        }
        if live.is_some() && note.live_before != note.live_after {
            let other = if saved_now { &note.live_before } else { &note.live_after };
            attempt(self.set_addresses(ctid, other, target));
        }
        if let (Some((before, after)), Some(live), Ok(config)) = (&note.limits, &live, &config) {
            attempt(self.converge_limits(row, live, config, if saved_now { after } else { before }));
        }
        let had: Vec<CtAddr> =
            self.inventory.addresses(ctid).unwrap_or_default().into_iter().map(|(ip, _)| ip).collect();
        let saved: Vec<CtAddr> = config.as_ref().map(|c| c.network.ip.clone()).unwrap_or_default();
        let running: &[CtAddr] = if live.is_some() { target } else { &[] };
        let unsaved: Vec<CtAddr> = running.iter().filter(|ip| !saved.contains(ip)).copied().collect();
        let name = config.as_ref().map_or(row.name.clone(), |c| c.name.clone());
        attempt(self.inventory.settle(ctid, name.as_ref(), &saved, &unsaved, true, true).map_err(Error::from));
        let gone: Vec<CtAddr> = had.into_iter().filter(|ip| !saved.contains(ip) && !unsaved.contains(ip)).collect();
        if !gone.is_empty() {
            attempt(self.network.deny(ctid, &gone).map_err(Error::from));
        }
        if note.files && self.settled_state(row) == CtState::Mounted {
            // A stopped container's files were being edited: the mount was ours.
            attempt(self.hide(&self.storage_plan(row)));
        }
        for p in problems {
            tracing::warn!(ctid = ctid.get(), op = "set", "after a failure: {p}");
        }
    }
}

/// A failed edit is exit code 74 when a password was to be changed.
fn password_code(changes: &Changes) -> impl Fn(Error) -> Error + '_ {
    move |e| match changes.passwords.is_empty() {
        true => e,
        false => Error::Refused { code: ExitCode::PasswordFailed, message: e.report(), hint: e.hint() },
    }
}
