//! What can be seen of a container at a moment: nothing here changes anything or waits for a lock that
//! an operation holds, so listing works whatever is under way.

use super::{Engine, Result, lock};
use crate::{conf, inventory::CtRow, storage};
use std::sync::Arc;
use vz_types::{CtAddr, CtConfig, CtState, Ctid, run::RunRecord};

/// How much of a container is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// What it is, and whether it runs.
    Brief,
    /// Its counters and limits too, which takes some hundred system calls for each that runs.
    Whole,
}

/// One container, seen.
#[derive(Clone, Debug)]
pub struct View {
    /// The inventory's account.
    pub row: CtRow,
    /// What the operator wants, or why it cannot be read.
    pub config: std::result::Result<Arc<CtConfig>, conf::Error>,
    /// Where it is.
    pub state: CtState,
    /// Its run record, while it runs.
    pub live: Option<RunRecord>,
    /// Addresses it has now: live ones while it runs, else configured ones.
    pub addresses: Vec<CtAddr>,
    /// Processes and threads inside.
    pub numproc: Option<u64>,
    /// How full its writable layer is, where that is known without mounting.
    pub usage: Option<storage::DiskUsage>,
    /// Its counters.
    pub beans: Vec<super::Bean>,
    /// Limits it has now: its configuration's, with what was changed without saving.
    pub limits: Option<CtConfig>,
    /// Limits asked for that cannot be enforced here: name and reason.
    pub unenforced: Vec<(String, String)>,
    /// Our cgroup level, while it runs.
    pub cgroup: Option<std::path::PathBuf>,
}

impl Engine {
    /// Every container in CTID order, seen that far.
    pub fn list(&self, extent: Extent) -> Result<Vec<View>> {
        Ok(self.inventory.containers()?.into_iter().map(|row| self.view(row, extent)).collect())
    }

    /// One container.
    pub fn show(&self, ctid: Ctid) -> Result<View> {
        Ok(self.view(self.row(ctid)?, Extent::Whole))
    }

    fn view(&self, row: CtRow, extent: Extent) -> View {
        let config = self.conf.read(row.ctid);
        let state = self.state(&row);
        let live = match lock(&self.cell(row.ctid).live).as_mut() {
            Some(live) if !live.ended() => {
                live.refresh(&self.paths.ct_run(row.ctid));
                Some(live.record.clone())
            }
            _ => None,
        };
        let addresses = match (&live, &config) {
            (Some(live), _) => live.addresses.clone(),
            (None, Ok(config)) => config.network.ip.clone(),
            (None, Err(_)) => Vec::new(),
        };
        let usage = config.as_ref().ok().and_then(|c| self.disk_usage(&row, c));
        let numproc = live.as_ref().and_then(|_| self.cgroups().ok()?.count(row.ctid));
        let cgroup = live.as_ref().map(|l| l.cgroup.clone());
        let looked_at = config.as_ref().ok().filter(|_| extent == Extent::Whole);
        let beans = looked_at.map_or_else(Vec::new, |c| self.beans(&row, Some(c), false));
        let limits = looked_at.map(|c| {
            let set = live.as_ref().and_then(|_| self.live_limits(row.ctid));
            set.map_or_else(|| (**c).clone(), |set| set.in_config(c))
        });
        let gaps = limits.as_ref().and_then(|c| self.gaps(row.ctid, c).ok()).unwrap_or_default();
        let unenforced = gaps.into_iter().map(|g| (g.name.to_owned(), g.reason)).collect();
        View { beans, limits, unenforced, config, state, live, addresses, numproc, usage, cgroup, row }
    }

    /// Containers made from a template, with the digest of the build each was made from.
    pub fn made_from(&self, template: &vz_types::TemplateName) -> Result<Vec<(Ctid, String)>> {
        let rows = self.inventory.containers()?.into_iter().filter(|r| r.template == *template);
        Ok(rows.map(|r| (r.ctid, r.template_digest)).collect())
    }
}
