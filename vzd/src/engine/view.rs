//! What can be seen of a container at a moment: nothing here changes anything or waits for a lock that
//! an operation holds, so listing works whatever is under way.

use super::{Engine, Result, accounts::Round, lock};
use crate::{conf, inventory::CtRow, storage};
use std::{collections::BTreeSet, sync::Arc};
use vz_types::{CtAddr, CtConfig, CtState, Ctid, run::RunRecord};

/// How much of a container is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// What it is, and whether it runs.
    Brief,
    /// Its counters and limits too, which takes some hundred system calls for each that runs.
    Whole,
}

/// What of which containers is wanted.
#[derive(Clone, Debug)]
pub struct Wants {
    /// These, or all.
    pub these: Option<BTreeSet<Ctid>>,
    /// How much of each.
    pub extent: Extent,
    /// How full its disk is.
    pub disk: bool,
    /// Its sockets at this moment, where counters are wanted at all.
    pub sockets: bool,
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
        let mut all = Vec::new();
        self.look_over(&Wants { these: None, extent, disk: true, sockets: true }, |view| all.push(view))?;
        Ok(all)
    }

    /// Shows `each` container that is wanted, in CTID order, one after the other, so that a thousand are not held in
    /// memory at once.
    pub fn look_over(&self, wants: &Wants, mut each: impl FnMut(View)) -> Result<()> {
        let extent = wants.extent;
        let round = Round::asked(wants.sockets);
        match &wants.these {
            None => self
                .inventory
                .containers()?
                .into_iter()
                .for_each(|row| each(self.view(&round, row, extent, wants.disk))),
            Some(these) => {
                for ctid in these {
                    if let Some(row) = self.inventory.container(*ctid)? {
                        each(self.view(&round, row, extent, wants.disk));
                    }
                }
            }
        }
        if extent == Extent::Whole {
            self.commit_accounts();
        }
        Ok(())
    }

    /// One container.
    pub fn show(&self, ctid: Ctid) -> Result<View> {
        let view = self.view(&Round::asked(true), self.row(ctid)?, Extent::Whole, true);
        self.commit_accounts();
        Ok(view)
    }

    fn view(&self, round: &Round, row: CtRow, extent: Extent, disk: bool) -> View {
        let config = self.conf.read(row.ctid);
        let state = self.state(&row);
        let live = match lock(&self.cell(row.ctid).live).as_mut() {
            Some(live) if !live.ended() => {
                live.refresh(&self.paths.ct_run(row.ctid));
                Some(live.clone())
            }
            _ => None,
        };
        let addresses = match (&live, &config) {
            (Some(live), _) => live.record.addresses.clone(),
            (None, Ok(config)) => config.network.ip.clone(),
            (None, Err(_)) => Vec::new(),
        };
        let usage = config.as_ref().ok().filter(|_| disk).and_then(|c| self.disk_usage(&row, c));
        let files = live.as_ref().map(|l| self.files(&l.record.cgroup));
        let numproc = files.as_ref().and_then(|files| self.count(row.ctid, files));
        let cgroup = live.as_ref().map(|l| l.record.cgroup.clone());
        let looked_at = config.as_ref().ok().filter(|_| extent == Extent::Whole);
        let limits = looked_at.map(|c| match live {
            Some(_) => self.limits_now(row.ctid, c),
            None => c.clone(),
        });
        let beans = limits
            .as_ref()
            .map_or_else(Vec::new, |set| self.beans_at(round, row.ctid, live.as_ref().zip(files.as_ref()), set, false));
        let gaps = limits.as_ref().and_then(|c| self.gaps(row.ctid, c).ok()).unwrap_or_default();
        let unenforced = gaps.into_iter().map(|g| (g.name.to_owned(), g.reason)).collect();
        let limits = limits.map(|c| (*c).clone());
        let live = live.map(|l| l.record);
        View { beans, limits, unenforced, config, state, live, addresses, numproc, usage, cgroup, row }
    }

    /// Containers made from a template, with the digest of the build each was made from.
    pub fn made_from(&self, template: &vz_types::TemplateName) -> Result<Vec<(Ctid, String)>> {
        let rows = self.inventory.containers()?.into_iter().filter(|r| r.template == *template);
        Ok(rows.map(|r| (r.ctid, r.template_digest)).collect())
    }
}
