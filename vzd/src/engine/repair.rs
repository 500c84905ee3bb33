//! A thread that puts back what others take away of the host's side of the network: a flushed table, a
//! deleted link. Asleep until the kernel reports a change, and at most half a minute.

use super::{Engine, Error, lock, monitor};
use crate::network::Expected;
use std::{path::PathBuf, sync::Arc, time::Duration};
use vz_types::{Ctid, plan::ControlRequest};

/// Longest time between two looks.
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
        loop {
            if let Err(e) = watch.wait(AT_MOST) {
                return tracing::error!("the host's network is guarded no more: {e}");
            }
            let repaired = match self.network.verify_and_repair(&self.connected()) {
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

    /// Running containers no operation is changing.
    fn connected(&self) -> Vec<Expected> {
        let cells: Vec<_> = lock(&self.cells).iter().map(|(ctid, cell)| (*ctid, cell.clone())).collect();
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
