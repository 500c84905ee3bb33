//! `set`: what the running container can take is changed live, and the configuration with `--save`.
//!
//! The configuration file's rename is what makes a saved change the new state. After a failure or a kill,
//! [`Set::converge`] brings everything else to what the file then says, so it ends old or new.

use super::{
    Work,
    machine::{Machine, Run},
    planned::{Plan, changed, not_live, plan_limits},
    step::{Operation, Resume, Step},
    work::End,
};
use crate::{
    accounts, conf,
    ct::{
        Changes, SetMode, SetSpec, edits,
        limits::{self, LimitSet},
        outside, settle,
    },
    error::{Error, Result},
    inventory::{self, Change, CtRow},
    manager::disk_spec,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use vz_types::{CtAddr, CtConfig, CtState, Ctid, ExitCode, Fact, OpKind, plan::ControlRequest};

/// What recovery must know of an interrupted set.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Note {
    /// Text of the configuration that is to be, when it is to be saved.
    new_conf: Option<String>,
    /// Addresses of the running container before and after.
    live_before: Vec<CtAddr>,
    live_after: Vec<CtAddr>,
    /// Whether files inside or the disk's size are touched.
    files: bool,
    disk: bool,
    /// Text of the configuration that is to be and not to be saved, when the disk's size is touched.
    unsaved: Option<String>,
    /// The operator had it mounted before.
    was_mounted: bool,
    /// Limits of the running container before and after, when they change.
    limits: Option<(LimitSet, LimitSet)>,
    /// It is restarted for what it cannot take while it runs.
    restart: bool,
    /// Passwords or keys are among what changes: what they were before nobody knows, so they are not taken back.
    secrets: bool,
}

/// A container that is to be changed.
pub struct Set {
    row: CtRow,
    note: Note,
    /// Absent after a crash: what is left then is to converge.
    plan: Option<Plan>,
    /// Its monitor did not answer once: it is not asked again.
    silent: bool,
    /// Addresses the filter has lost already.
    gone: Vec<CtAddr>,
    /// The size of its layer may have changed.
    sized: bool,
    /// It goes on after a crash, whatever the file says.
    forward: bool,
    /// Passwords and keys have been set.
    entered: bool,
}

impl Set {
    /// After every check that changes nothing.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn prepare(w: &Work, ctid: Ctid, spec: &SetSpec) -> Result<Box<dyn Run>> {
        let m = &w.m;
        w.asked_for(&spec.changes);
        let row = m.row(ctid)?;
        let changes = spec.changes.clone();
        let old = m.conf.read(ctid)?;
        let new = changed(w, &changes, &old)?;
        conf::check(&new).map_err(|why| Error::refused(ExitCode::BadValue, why, ""))?;
        let live = m.cell(ctid).live_now(&m.paths.ct_run(ctid));
        let live_before = live.as_ref().map(|l| l.record.addresses.clone()).unwrap_or_default();
        let live_after = if live.is_some() { changes.addresses(&live_before) } else { Vec::new() };
        let had: Vec<CtAddr> = m.inventory.addresses(ctid)?.into_iter().map(|(ip, _)| ip).collect();
        let saved: &[CtAddr] = if spec.save { &new.network.ip } else { &[] };
        let mut claims: Vec<CtAddr> = saved.iter().chain(&live_after).filter(|ip| !had.contains(ip)).copied().collect();
        claims.sort_unstable();
        claims.dedup();
        let renamed = new.name.as_ref().filter(|_| spec.save && new.name != old.name);
        if renamed.is_some() || !claims.is_empty() {
            outside::refuse_theirs(m, &outside::all(m)?, renamed, &claims)?;
        }
        settle::probe(m, &claims)?;
        if changes.touches_files() {
            settle::private_area(m, &row)?;
        }
        let new_conf = match spec.save && new != *old {
            true => Some(m.conf.edited(ctid, &new)?),
            false => None,
        };
        if new.ids < old.ids {
            let message = format!("CT {ctid}: --ids {} is less than it has, {}", new.ids.get(), old.ids.get());
            return Err(Error::refused(
                ExitCode::BadValue,
                message,
                "ids can only grow: files of those that are taken away would be nobody's",
            ));
        }
        let later = not_live(&old, &new);
        if live.is_some() && !later.is_empty() && spec.mode.is_none() {
            let message = format!("CT {ctid}: {} cannot change while it is running", later.join(" and "));
            return Err(Error::refused(
                ExitCode::Running,
                message,
                "add --setmode restart to restart it, or --setmode ignore to change them at its next start",
            ));
        }
        let held_back = live.is_some() && !later.is_empty();
        let limits = plan_limits(w, &row, &changes, &old, &new, live.is_some())?;
        let note = Note {
            new_conf,
            live_before,
            live_after,
            files: changes.touches_files(),
            disk: old.disk != new.disk,
            unsaved: match !spec.save && old.disk != new.disk {
                true => Some(m.conf.render(ctid, &new)?),
                false => None,
            },
            was_mounted: m.is_mounted(&row)?,
            limits,
            restart: held_back && spec.save && spec.mode == Some(SetMode::Restart),
            secrets: !edits::now(&changes).is_empty(),
        };
        let old_conf = m.conf.text(ctid)?;
        let at_once = edits::now(&changes);
        let plan = Plan { old, old_conf, new, live, save: spec.save, claims, changes, at_once, later };
        Ok(Machine::fresh(Self::with(row, note, Some(plan))))
    }

    fn with(row: CtRow, note: Note, plan: Option<Plan>) -> Self {
        Self { row, note, plan, silent: false, gone: Vec::new(), sized: false, forward: false, entered: false }
    }

    fn plan(&self) -> Result<&Plan> {
        self.plan.as_ref().ok_or_else(|| {
            Error::refused(ExitCode::System, "a set that was interrupted is not gone on with, it converges", "")
        })
    }

    fn ctid(&self) -> Ctid {
        self.row.ctid
    }

    fn claim(&mut self, w: &Work) -> Result<()> {
        let plan = self.plan()?;
        let name = if plan.save { &plan.new.name } else { &plan.old.name };
        // What outlives a power cut is never there without the operation that recovery knows it by.
        let durable = self.note.new_conf.is_some() || self.note.disk;
        w.begin(&self.note, None, durable, |c| c.claim_set(self.ctid(), name.as_ref(), &plan.claims))?;
        // What cannot be saved changes nothing at all.
        match &self.note.new_conf {
            Some(text) => Ok(w.m.conf.stage(self.ctid(), text)?),
            None => Ok(()),
        }
    }

    fn live(&mut self, w: &Work) -> Result<()> {
        let done = self.change_live(w);
        self.silent = done.as_ref().is_err_and(is_silence);
        done
    }

    /// Everything a running container is changed in that can be taken back.
    fn change_live(&self, w: &Work) -> Result<()> {
        let plan = self.plan()?;
        if plan.live.is_none() {
            return Ok(());
        }
        if plan.boot_changed() {
            set_boot(w, &plan.new)?;
        }
        let edits = edits::changed(&plan.old, &plan.new, &plan.changes);
        if !edits.is_empty() {
            w.ask(&ControlRequest::Edit { edits, as_for_boot: false })?;
        }
        let (before, after) = (&self.note.live_before, &self.note.live_after);
        if before != after {
            set_addresses(w, self.ctid(), before, after)?;
        }
        Ok(())
    }

    /// Passwords and keys. They are not taken back, so everything that may fail as a rule was done before.
    fn secrets(&mut self, w: &Work) -> Result<()> {
        let plan = self.plan()?;
        let edits = plan.at_once.clone();
        if edits.is_empty() {
            return Ok(());
        }
        let done = match plan.live {
            Some(_) => w.ask(&ControlRequest::Edit { edits, as_for_boot: false }),
            None => settle::edit_stopped(&w.m, &self.row, edits),
        };
        let silent = done.as_ref().is_err_and(is_silence);
        let done = done.map_err(password_code(&plan.changes));
        // One that did not answer may have done it.
        (self.silent, self.entered) = (silent, done.is_ok() || silent);
        done
    }

    fn limits(&mut self, w: &Work) -> Result<()> {
        let plan = self.plan()?;
        if let (Some((before, after)), Some(live)) = (&self.note.limits, &plan.live) {
            let (old, new) = (before.in_config(&plan.old), after.in_config(&plan.old));
            limits::limit_running(&w.m, &self.row, live, &old, &new)?;
        }
        match plan.changes.reset_ub {
            true => accounts::reset(&w.m, self.ctid()),
            false => Ok(()),
        }
    }

    /// Gives a container's writable layer the size its configuration says. An image's inodes are fixed when it is made:
    /// unless another number is wanted, the one it has counts.
    fn resize(&self, w: &Work, config: &CtConfig, inodes_wanted: bool) -> Result<()> {
        let storage = w.m.storage_plan(&self.row);
        if !w.m.is_running(self.ctid()) && !w.m.is_mounted(&self.row)? {
            // Nobody else may have the image open while its filesystem is rewritten.
            w.m.hands.storage.umount(&storage)?;
        }
        let mut spec = disk_spec(config);
        if !inodes_wanted && storage.private.join("disk.img").exists() {
            spec.inodes = w.m.hands.storage.usage(&storage).map_or(spec.inodes, |u| u.inodes_limit);
        }
        Ok(w.m.hands.storage.resize(&storage, &spec)?)
    }

    fn size(&mut self, w: &Work) -> Result<()> {
        self.sized = true;
        let plan = self.plan()?;
        self.resize(w, &plan.new, plan.old.disk.inodes != plan.new.disk.inodes)
    }

    fn resizes(&self) -> bool {
        self.note.disk && self.plan.as_ref().is_none_or(|p| p.save || p.live.is_some())
    }

    /// Addresses it has for good, and until it ends, once it is done.
    fn addresses(&self, plan: &Plan) -> (Vec<CtAddr>, Vec<CtAddr>) {
        let saved = if plan.save { &plan.new.network.ip } else { &plan.old.network.ip };
        let unsaved = self.note.live_after.iter().filter(|ip| !saved.contains(ip)).copied().collect();
        (saved.clone(), unsaved)
    }

    /// Before the claims are given back: then they are anybody's.
    fn release(&mut self, w: &Work) -> Result<()> {
        let (saved, unsaved) = self.addresses(self.plan()?);
        let before = w.m.inventory.addresses(self.ctid())?.into_iter().map(|(ip, _)| ip);
        self.gone = before.filter(|ip| !saved.contains(ip) && !unsaved.contains(ip)).collect();
        match self.gone.is_empty() {
            true => Ok(()),
            false => Ok(w.m.hands.network.deny(self.ctid(), &self.gone)?),
        }
    }

    fn commit(&mut self, w: &Work) -> Result<()> {
        let ctid = self.ctid();
        let Some(plan) = &self.plan else {
            let state = Some(settle::found(&w.m, ctid));
            if self.note.restart && w.m.is_running(ctid) {
                w.then(super::restart_for(ctid))?;
            }
            return w.finish(End { durable: true, state, event: None }, |c| {
                c.last_failure(ctid, Some("set was interrupted, because vzd ended; it was carried through"))?;
                self.settle_claims(w, c)
            });
        };
        let name = if plan.save { &plan.new.name } else { &plan.old.name };
        let (saved, unsaved) = self.addresses(plan);
        if plan.save && plan.live.is_none() {
            edits::forget(&w.m.paths.private(ctid), &plan.changes)?;
        }
        self.tell(w, plan)?;
        let event = plan.save.then(|| ("changed", "its configuration was changed".to_owned()));
        w.finish(End { durable: true, state: None, event }, |c| c.settle(ctid, name.as_ref(), &saved, &unsaved))
    }

    fn tell(&self, w: &Work, plan: &Plan) -> Result<()> {
        let (before, after) = match &plan.live {
            Some(_) => (&self.note.live_before, &self.note.live_after),
            None if plan.save => (&plan.old.network.ip, &plan.new.network.ip),
            // Neither the container nor its configuration changes.
            None => (&plan.old.network.ip, &plan.old.network.ip),
        };
        let gone: Vec<CtAddr> = before.iter().filter(|ip| !after.contains(ip)).copied().collect();
        let new: Vec<CtAddr> = after.iter().filter(|ip| !before.contains(ip)).copied().collect();
        if !gone.is_empty() {
            w.tell(Fact::AddressesDeleted { ips: gone });
        }
        if !new.is_empty() {
            w.tell(Fact::AddressesAdded { ips: new });
        }
        if plan.save {
            w.tell(Fact::Saved { file: w.m.paths.conf(self.ctid()).display().to_string() });
        } else if *plan.old != plan.new {
            w.tell(Fact::NotSaved);
        }
        if self.note.restart {
            w.then(super::restart_for(self.ctid()))?;
        } else if plan.live.is_some() && !plan.later.is_empty() {
            w.tell(Fact::AtNextStart { names: plan.later.iter().map(|s| (*s).to_owned()).collect() });
        }
        Ok(())
    }

    /// Puts the old configuration back when the new one was in place already.
    fn restore_conf(&self, w: &Work) -> Result<()> {
        let Some(plan) = &self.plan else { return Ok(()) };
        if self.note.new_conf.is_some() && w.m.conf.text(self.ctid()).ok() == self.note.new_conf {
            w.m.conf.replace(self.ctid(), &plan.old_conf)?;
        }
        Ok(())
    }

    /// Gives the layer its old size back. While it is mounted it cannot shrink: then the file keeps the new size, and the
    /// operation stays open and is finished forward.
    fn unsize(&mut self, w: &Work) -> Result<()> {
        let Some(plan) = self.plan.as_ref().filter(|_| self.sized) else { return Ok(()) };
        let old = plan.old.clone();
        let holds = w.m.hands.storage.usage(&w.m.storage_plan(&self.row)).map(|u| u.space_limit);
        if holds == Some(old.disk.space) && old.disk.inodes == plan.new.disk.inodes {
            return Ok(());
        }
        if plan.live.is_none() && !w.m.is_mounted(&self.row)? {
            w.m.hands.storage.mend(&w.m.storage_plan(&self.row))?;
        }
        self.resize(w, &old, false)?;
        self.sized = false;
        Ok(())
    }

    /// Whether what was to be is what counts: the configuration that was to be is there.
    fn is_new(&self, w: &Work) -> bool {
        self.forward || self.is_saved(w)
    }

    fn is_saved(&self, w: &Work) -> bool {
        self.note.new_conf.is_some() && w.m.conf.text(self.ctid()).ok() == self.note.new_conf
    }

    /// After a failure or a kill: filter, disk, running container and files inside become what the configuration file
    /// now says. What could not be is logged, and met again at the next start of the container.
    fn converge(&mut self, w: &Work) -> Result<()> {
        self.unsize(w)?;
        self.restore_conf(w)?;
        let ctid = self.ctid();
        // A directory that cannot be written to has nothing of ours in it, or loses it at the next start of vzd.
        if let Err(e) = w.m.conf.unstage(ctid) {
            tracing::debug!(ctid = ctid.get(), "{e}");
        }
        let mut problems: Vec<String> = Vec::new();
        let saved_now = self.is_new(w);
        let config = match &self.note.unsaved {
            Some(text) if self.forward => conf::parse(&w.m.paths.conf(ctid), text).map(Arc::new),
            _ => w.m.conf.read(ctid),
        };
        if self.plan.is_none() || !self.gone.is_empty() {
            // The filter may have lost what is claimed still and routed again below.
            let (keep, _) = self.kept_and_gone(w)?;
            w.m.hands.network.allow(ctid, &keep)?;
        }
        let live = w.m.cell(ctid).live_now(&w.m.paths.ct_run(ctid));
        let (target, other) = match saved_now {
            true => (self.note.live_after.clone(), self.note.live_before.clone()),
            false => (self.note.live_before.clone(), self.note.live_after.clone()),
        };
        if let Ok(config) = &config {
            // Before the file says the new size, nothing has been resized.
            if self.note.disk && saved_now {
                if self.plan.is_none() && live.is_none() && !w.m.is_mounted(&self.row)? {
                    let storage = w.m.storage_plan(&self.row);
                    w.m.hands.storage.umount(&storage)?;
                    w.m.hands.storage.mend(&storage)?;
                }
                problems.extend(self.resize(w, config, false).err().map(|e| e.report()));
            }
            if live.is_some() {
                self.told(&mut problems, || set_boot(w, config));
                let edits = edits::boot(config);
                if !edits.is_empty() {
                    self.told(&mut problems, || w.ask(&ControlRequest::Edit { edits, as_for_boot: true }));
                }
            }
        }
        if live.is_some() && self.note.live_before != self.note.live_after {
            self.told(&mut problems, || set_addresses(w, ctid, &other, &target));
        }
        if let (Some((before, after)), Some(live), Ok(config)) = (self.note.limits.clone(), &live, &config) {
            let set = if saved_now { after } else { before };
            let row = self.row.clone();
            self.told(&mut problems, || limits::converge(&w.m, &row, live, config, &set));
        }
        if self.note.files && !self.note.was_mounted && live.is_none() {
            // A stopped container's files were being edited: the mount was ours.
            problems.extend(settle::hide(&w.m, &w.m.storage_plan(&self.row)).err().map(|e| e.report()));
        }
        for p in problems {
            tracing::warn!(ctid = ctid.get(), op = "set", "after a failure: {p}");
        }
        Ok(())
    }

    /// Asks the monitor, unless it did not answer before: each time would take as long.
    fn told(&mut self, problems: &mut Vec<String>, ask: impl FnOnce() -> Result<()>) {
        if self.silent {
            return;
        }
        if let Err(e) = ask() {
            self.silent = is_silence(&e);
            problems.push(e.report());
        }
    }

    /// Claims as the configuration and the running container now have them.
    fn settle_claims(&self, w: &Work, c: &Change<'_>) -> inventory::Result<()> {
        let ctid = self.ctid();
        let Ok(config) = w.m.conf.read(ctid) else {
            // Claims of a container whose configuration cannot be read are not given up on the strength of that.
            return Ok(());
        };
        let running: &[CtAddr] = match (w.m.is_running(ctid), self.is_new(w)) {
            (false, _) => &[],
            (true, true) => &self.note.live_after,
            (true, false) => &self.note.live_before,
        };
        let saved = &config.network.ip;
        let unsaved: Vec<CtAddr> = running.iter().filter(|ip| !saved.contains(ip)).copied().collect();
        c.settle(ctid, config.name.as_ref(), saved, &unsaved)
    }

    /// Claims that the configuration or the running container has, and those that neither has.
    fn kept_and_gone(&self, w: &Work) -> Result<(Vec<CtAddr>, Vec<CtAddr>)> {
        let had = w.m.inventory.addresses(self.ctid())?.into_iter().map(|(ip, _)| ip);
        let Ok(config) = w.m.conf.read(self.ctid()) else { return Ok((had.collect(), Vec::new())) };
        let running = if self.is_new(w) { &self.note.live_after } else { &self.note.live_before };
        Ok(had.partition(|ip| config.network.ip.contains(ip) || running.contains(ip)))
    }

    /// Takes what is claimed no more out of the filter.
    fn deny_rest(&self, w: &Work) -> Result<()> {
        let (_, gone) = self.kept_and_gone(w)?;
        if gone.is_empty() { Ok(()) } else { Ok(w.m.hands.network.deny(self.ctid(), &gone)?) }
    }
}

impl Operation for Set {
    const KIND: OpKind = OpKind::Set;
    type Note = Note;

    fn steps() -> Vec<Step<Self>> {
        vec![
            Step::new("claim", Self::claim).undo(|s, w| {
                s.converge(w)?;
                s.deny_rest(w)
            }),
            Step::new("filter", |s: &mut Self, w| {
                let plan = s.plan()?;
                Ok(w.m.hands.network.allow(s.ctid(), &plan.claims)?)
            }),
            Step::new("live", Self::live),
            Step::new("limits", Self::limits)
                .when(|s| s.note.limits.is_some() || s.plan.as_ref().is_some_and(|p| p.changes.reset_ub)),
            Step::new("secrets", Self::secrets),
            Step::new("release", Self::release),
            Step::new("conf", |s: &mut Self, w| Ok(w.m.conf.place(s.ctid())?)).when(|s| s.note.new_conf.is_some()),
            // A size cannot always be taken back (a mounted layer does not shrink, one that has shrunk has lost inodes), so
            // it changes when the file that recovery goes by says the new one.
            Step::new("shrink", Self::size).when(|s| s.resizes() && s.plan.as_ref().is_some_and(Plan::shrinks)),
            Step::new("grow", Self::size).when(|s| s.resizes() && s.plan.as_ref().is_some_and(|p| !p.shrinks())),
            Step::new("commit", Self::commit),
        ]
    }

    fn resume(w: &Work, note: Note) -> Result<Self> {
        Ok(Self::with(w.m.row(w.ctid()?)?, note, None))
    }

    fn how(&mut self, w: &Work, step: &str, _: bool) -> Result<Resume> {
        // No file says a size that is not saved, and one that has grown does not shrink while it runs.
        let sized = matches!(step, "shrink" | "grow" | "commit");
        self.forward = self.note.unsaved.is_some() && sized;
        if !self.is_new(w) {
            return Ok(Resume::Back);
        }
        // The file says the new state: the rest follows it.
        self.converge(w)?;
        self.deny_rest(w)?;
        Ok(Resume::At("commit"))
    }

    fn stays(&self) -> Option<&'static str> {
        match (self.entered, self.plan.is_none() && self.note.secrets) {
            (true, _) => Some("the passwords and keys given with it were set, and stay so"),
            (_, true) => Some("the passwords and keys given with it may have been set"),
            _ => None,
        }
    }

    fn taken_back(&self, w: &Work, c: &Change<'_>) -> inventory::Result<Option<CtState>> {
        self.settle_claims(w, c)?;
        Ok(None)
    }
}

/// Its monitor does not answer.
fn is_silence(e: &Error) -> bool {
    matches!(e, Error::Monitor(e) if e.is_silence())
}

fn set_boot(w: &Work, config: &CtConfig) -> Result<()> {
    w.ask(&ControlRequest::SetBoot { hostname: config.hostname.clone(), edits: edits::boot(config) })
}

/// Gives a running container exactly `after`; `before` may be more than it has.
fn set_addresses(w: &Work, ctid: Ctid, before: &[CtAddr], after: &[CtAddr]) -> Result<()> {
    let new: Vec<CtAddr> = after.iter().filter(|ip| !before.contains(ip)).copied().collect();
    let gone: Vec<CtAddr> = before.iter().filter(|ip| !after.contains(ip)).copied().collect();
    if !new.is_empty() {
        w.m.hands.network.add_addresses(ctid, &new)?;
    }
    w.ask(&ControlRequest::SetAddresses { addresses: after.to_vec() })?;
    if !gone.is_empty() {
        w.m.hands.network.del_addresses(ctid, &gone)?;
    }
    Ok(())
}

/// A failed edit is exit code 74 when a password was to be changed.
fn password_code(changes: &Changes) -> impl Fn(Error) -> Error + '_ {
    move |e| match changes.passwords.is_empty() {
        true => e,
        false => Error::Refused { code: ExitCode::PasswordFailed, message: e.report(), hint: e.hint() },
    }
}
