//! A thread that notices what others take away of the host's side of the network: a flushed table, a deleted link. What
//! is the host's own it puts back itself; what concerns a container is posted to that container's driver
//! ([`crate::ops::repair`]), which looks again when it is its turn: the guard changes no container, so that nothing it
//! believed a moment ago can undo what an operation does. Asleep until the kernel reports a change; then only those it
//! concerns are looked at, and everybody each half minute.

use crate::{
    error::{Error, Result},
    manager::Manager,
    network::{Concern, Expected, Network},
    ops::{self, Ops},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use vz_types::{CtState, Ctid};

/// Before the first look at everybody.
const FIRST: Duration = Duration::from_secs(2);
/// Longest time between two of them.
const AT_MOST: Duration = Duration::from_secs(30);

/// Starts the thread. It ends with the process.
///
/// # Errors
/// The kernel gives no thread.
pub fn start(ops: &Arc<Ops>, network: Arc<Network>) -> std::io::Result<()> {
    let ops = ops.clone();
    std::thread::Builder::new()
        .name("repair".into())
        .stack_size(256 << 10)
        .spawn(move || guard(&ops, &network))
        .map(drop)
}

fn guard(ops: &Arc<Ops>, network: &Network) {
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
        let everything = concern == Concern::Everything;
        match network.repair_host(everything) {
            Ok(all) => all.iter().for_each(|said| tracing::warn!(event = "repaired", "{said}")),
            Err(e) => tracing::warn!("the host's network cannot be looked at: {}", Error::from(e).report()),
        }
        if let Err(e) = look(ops, &concern) {
            tracing::warn!("the links of containers cannot be looked at: {}", e.report());
        }
        if everything {
            due = Instant::now() + AT_MOST;
            // That and long lists in between leave much free memory, which nobody else would give back.
            vz_sys::heap::give_back();
        }
    }
}

/// Posts a repair to each running container that lacks something, or may.
///
/// # Errors
/// Links or routes cannot be listed.
pub(crate) fn look(ops: &Arc<Ops>, concern: &Concern) -> Result<()> {
    let m = &ops.m;
    let lacking: Vec<Ctid> = match concern {
        Concern::Everything => {
            let all: Vec<Expected> = m.cells().iter().filter_map(|(ctid, _)| running(m, *ctid)).collect();
            m.hands.network.lacking(&all)?
        }
        // Something of theirs went: the driver asks what.
        Concern::Only(these) => these.iter().filter_map(|c| Some(running(m, *c)?.ctid)).collect(),
    };
    for ctid in lacking {
        if let Err(e) = ops.ask(ops::repair(ctid)) {
            tracing::debug!(ctid = ctid.get(), "its link is looked at later: {}", e.report());
        }
    }
    Ok(())
}

/// A container that has a link, as far as can be told from here. One on its way up or down has none to be guarded.
fn running(m: &Manager, ctid: Ctid) -> Option<Expected> {
    let cell = m.known(ctid)?;
    match cell.state().0 {
        CtState::Running | CtState::Failed => Some(Expected::of(cell.live_now(&m.paths.ct_run(ctid))?.record)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
