//! What a `set` comes to: everything that is decided before anything is done.

use super::Work;
use crate::{
    ct::{
        Changes,
        limits::{self, LimitSet},
        samples,
    },
    error::Result,
    inventory::CtRow,
    monitor::Live,
};
use std::sync::Arc;
use vz_types::{
    CtAddr, CtConfig, ExitCode, Fact,
    limits::Ub,
    plan::FileEdit,
    settings::{self, Applies},
};

/// Limits of a running container before and after a change of them.
type PlannedLimits = Option<(LimitSet, LimitSet)>;

/// A set with everything decided and nothing done.
pub(super) struct Plan {
    /// What its configuration says.
    pub(super) old: Arc<CtConfig>,
    /// Its text.
    pub(super) old_conf: String,
    /// What it is to say.
    pub(super) new: CtConfig,
    /// The monitor of a running one.
    pub(super) live: Option<Live>,
    /// Whether it is to be saved.
    pub(super) save: bool,
    /// Addresses nobody had before.
    pub(super) claims: Vec<CtAddr>,
    /// What was asked for.
    pub(super) changes: Changes,
    /// Edited at once, whatever is saved.
    pub(super) at_once: Vec<FileEdit>,
    /// What a running container stays without until its next start.
    pub(super) later: Vec<&'static str>,
}

impl Plan {
    pub(super) fn boot_changed(&self) -> bool {
        let (old, new) = (&self.old, &self.new);
        old.hostname != new.hostname
            || old.network.nameserver != new.network.nameserver
            || old.network.searchdomain != new.network.searchdomain
    }

    pub(super) fn shrinks(&self) -> bool {
        let (old, new) = (&self.old.disk, &self.new.disk);
        new.space < old.space || new.inodes < old.inodes
    }
}

/// What only the next start can change.
pub(super) fn not_live(old: &CtConfig, new: &CtConfig) -> Vec<&'static str> {
    let rows = settings::differing(old, new).filter(|s| s.applies == Applies::NextStart).map(|s| s.name);
    // The one limit among them: a monitor has it from its start on.
    let signals = |c: &CtConfig| c.limits.get(Ub::Numsiginfo);
    rows.chain((signals(old) != signals(new)).then_some("numsiginfo")).collect()
}

/// A configuration with changes: first those of a sample, then the request's own.
pub(super) fn changed(w: &Work, changes: &Changes, config: &CtConfig) -> Result<CtConfig> {
    let base = match &changes.sample {
        None => config.clone(),
        Some(name) => samples::find(&w.m, name)?.apply(config),
    };
    Ok(changes.apply(&base))
}

/// The limits of the running container before and after; refuses what is above the host, below the use, or not to be had.
pub(super) fn plan_limits(
    w: &Work,
    row: &CtRow,
    changes: &Changes,
    old: &CtConfig,
    new: &CtConfig,
    running: bool,
) -> Result<PlannedLimits> {
    let m = &w.m;
    if changes.limits.is_empty() && LimitSet::of(old) == LimitSet::of(new) {
        return Ok(None);
    }
    limits::check_host_size(new, ExitCode::BadValue)?;
    for fact in limits::remarks(&changes.limits) {
        w.tell(fact);
    }
    if !running {
        // It may be started on another day, or another host: said now, refused then.
        for g in limits::gaps(m, row.ctid, new)? {
            w.tell(Fact::Unenforced { name: g.name.to_owned(), cause: g.reason, runs: false });
        }
        return Ok(None);
    }
    let before = limits::live(m, row.ctid).unwrap_or_else(|| LimitSet::of(old));
    let now = before.in_config(old);
    let after = changed(w, changes, &now)?;
    limits::check_host_size(&after, ExitCode::BadValue)?;
    let had = limits::gaps(m, row.ctid, &now)?;
    let fresh: Vec<_> = limits::gaps(m, row.ctid, &after)?.into_iter().filter(|g| !had.contains(g)).collect();
    for fact in limits::accept_gaps(m, row.ctid, &fresh)? {
        w.tell(fact);
    }
    limits::check_shrink(m, row, &now, &after)?;
    if after.limits.get(Ub::Oomguarpages).barrier > now.limits.get(Ub::Oomguarpages).barrier {
        limits::admit(m, row.ctid, &after)?;
    }
    Ok(Some((before, LimitSet::of(&after))))
}
