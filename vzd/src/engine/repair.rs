//! A thread that puts back what others take away of the host's side of the network: a flushed table, a
//! deleted link. Asleep until the kernel reports a change; then only those it concerns are looked at, and everybody each
//! half minute.

use super::{Engine, Error, lock, monitor};
use crate::network::{Concern, Expected};
use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use vz_types::{Ctid, plan::ControlRequest};

/// Before the first look at everybody.
const FIRST: Duration = Duration::from_secs(2);
/// Longest time between two of them.
const AT_MOST: Duration = Duration::from_secs(30);

impl Engine {
    /// Starts the thread. It ends with the process.
    pub fn guard_network(self: &Arc<Self>) -> std::io::Result<()> {
        let engine = self.clone();
        std::thread::Builder::new()
            .name("repair".into())
            .stack_size(256 << 10)
            .spawn(move || engine.repair_loop())
            .map(drop)
    }

    fn repair_loop(&self) {
        let mut watch = match self.network.watch() {
            Ok(watch) => watch,
            Err(e) => return tracing::error!("the host's network is not guarded: {}", Error::from(e).report()),
        };
        // Soon after the beginning, when whoever waits for vzd has had its answer.
        let mut due = Instant::now() + FIRST;
        loop {
            let seen = match watch.wait(due.saturating_duration_since(Instant::now())) {
                Ok(seen) => seen,
                Err(e) => return tracing::error!("the host's network is guarded no more: {e}"),
            };
            let concern = if Instant::now() >= due { Concern::Everything } else { self.network.concerns(&seen) };
            let looked = match &concern {
                Concern::Everything => {
                    due = Instant::now() + AT_MOST;
                    let looked = self.network.verify_and_repair(&self.connected(None));
                    // That and long lists in between leave much free memory, which nobody else would give back.
                    vz_sys::heap::give_back();
                    looked
                }
                Concern::Only(cts) => self.network.repair_some(&self.connected(Some(cts))),
            };
            let repaired = match looked {
                Ok(repaired) => repaired,
                Err(e) => {
                    tracing::warn!("the host's network cannot be looked at: {}", Error::from(e).report());
                    continue;
                }
            };
            for said in repaired.said {
                tracing::warn!(event = "repaired", "{said}");
            }
            for ctid in repaired.relinked {
                self.set_up_inside(ctid);
            }
        }
    }

    /// Running containers, of `these` or all, that no operation is changing.
    fn connected(&self, these: Option<&BTreeSet<Ctid>>) -> Vec<Expected> {
        let cells: Vec<_> = {
            let all = lock(&self.cells);
            match these {
                None => all.iter().map(|(ctid, cell)| (*ctid, cell.clone())).collect(),
                Some(these) => these.iter().filter_map(|c| Some((*c, all.get(c)?.clone()))).collect(),
            }
        };
        let idle = cells.into_iter().filter(|(_, cell)| lock(&cell.busy).is_none());
        idle.filter_map(|(ctid, cell)| {
            let mut live = lock(&cell.live);
            let live = live.as_mut().filter(|l| !l.ended())?;
            live.refresh(&self.paths.ct_run(ctid));
            let netns = PathBuf::from(format!("/proc/{}/ns/net", live.record.init.pid));
            Some(Expected { ctid, addresses: live.record.addresses.clone(), netns })
        })
        .collect()
    }

    fn set_up_inside(&self, ctid: Ctid) {
        let addresses = lock(&self.cell(ctid).live).as_ref().map(|l| l.record.addresses.clone()).unwrap_or_default();
        let request = ControlRequest::SetAddresses { addresses };
        if let Err(e) = monitor::control(&self.paths.ct_run(ctid), &request, Duration::from_secs(20)) {
            tracing::warn!(ctid = ctid.get(), "its new link has no addresses: {e}");
        }
    }
}
