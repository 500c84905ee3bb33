//! A thread that puts back what others take away of the host's side of the network: a flushed table, a
//! deleted link. Asleep until the kernel reports a change; then only those it concerns are looked at, and everybody each
//! half minute.

use crate::{
    error::Error,
    manager::Manager,
    network::{Concern, Expected, Network},
    ops::Ops,
};
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

/// How long a monitor may take to set the inside of a new link up.
const CONTROL: Duration = Duration::from_secs(7);

/// Starts the thread. It ends with the process.
///
/// # Errors
/// The kernel gives no thread.
pub fn start(ops: &Arc<Ops>, network: Arc<Network>) -> std::io::Result<()> {
    let ops = ops.clone();
    std::thread::Builder::new()
        .name("repair".into())
        .stack_size(256 << 10)
        .spawn(move || repair(&ops, &network))
        .map(drop)
}

fn repair(ops: &Ops, network: &Network) {
    let m = &ops.m;
    let mut watch = match network.watch() {
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
        let concern = if Instant::now() >= due { Concern::Everything } else { network.concerns(&seen) };
        let looked = match &concern {
            Concern::Everything => {
                due = Instant::now() + AT_MOST;
                let looked = network.verify_and_repair(&connected(ops, None));
                // That and long lists in between leave much free memory, which nobody else would give back.
                vz_sys::heap::give_back();
                looked
            }
            Concern::Only(cts) => network.repair_some(&connected(ops, Some(cts))),
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
            set_up_inside(m, ctid);
        }
    }
}

/// Running containers, of `these` or all, that no operation is changing.
fn connected(ops: &Ops, these: Option<&BTreeSet<Ctid>>) -> Vec<Expected> {
    let m = &ops.m;
    let cells = match these {
        None => m.cells(),
        Some(these) => these.iter().filter_map(|c| Some((*c, m.known(*c)?))).collect(),
    };
    let idle = cells.into_iter().filter(|(ctid, _)| ops.under_way(*ctid).is_none());
    idle.filter_map(|(ctid, cell)| {
        let live = cell.live_now(&m.paths.ct_run(ctid))?;
        let netns = PathBuf::from(format!("/proc/{}/ns/net", live.record.init.pid));
        Some(Expected { ctid, addresses: live.record.addresses, netns })
    })
    .collect()
}

fn set_up_inside(m: &Manager, ctid: Ctid) {
    let addresses = m.cell(ctid).live().map(|l| l.record.addresses).unwrap_or_default();
    let request = ControlRequest::SetAddresses { addresses };
    if let Err(e) = m.hands.monitor.control(&m.paths.ct_run(ctid), &request, CONTROL) {
        tracing::warn!(ctid = ctid.get(), "its new link has no addresses: {e}");
    }
}
