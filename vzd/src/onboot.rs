//! After a boot of the host: `onboot = true` containers are started, higher `bootorder` first, those of
//! one order at the same time. One that fails does not hold the others up.

use crate::engine::{Engine, Extent, StartSpec, process};
use std::{collections::BTreeMap, sync::Arc};
use vz_types::Ctid;

/// Where the host boot that was last served is kept.
const FACT: &str = "boot_id";

/// Starts them if the host has booted since vzd last ran here. A first start of all counts as a boot.
/// Blocks until all are tried.
pub fn run(engine: &Arc<Engine>) {
    let boot = process::host_boot_id();
    match engine.inventory.host_fact(FACT) {
        Ok(known) if known.as_deref() == Some(&boot) => return,
        Ok(_) => {}
        Err(e) => return tracing::error!("onboot: {e}"),
    }
    for (order, ctids) in plan(engine).into_iter().rev() {
        tracing::info!(bootorder = order, cts = ctids.len(), "starting at host boot");
        std::thread::scope(|scope| {
            for ctid in ctids {
                scope.spawn(move || {
                    if let Err(e) = engine.start(ctid, StartSpec::default()) {
                        tracing::error!(ctid = ctid.get(), "not started at host boot: {}", e.report());
                    }
                });
            }
        });
    }
    // Last: a vzd that is killed half-way goes on with those that do not run yet.
    if let Err(e) = engine.inventory.set_host_fact(FACT, &boot) {
        tracing::error!("onboot: {e}");
    }
}

/// Who is to be started, by order.
fn plan(engine: &Engine) -> BTreeMap<u32, Vec<Ctid>> {
    let mut by_order: BTreeMap<u32, Vec<Ctid>> = BTreeMap::new();
    for view in engine.list(Extent::Brief).unwrap_or_default() {
        match &view.config {
            Ok(c) if c.onboot == Some(true) && !c.disabled && view.live.is_none() => {
                by_order.entry(c.bootorder.unwrap_or(0)).or_default().push(view.row.ctid);
            }
            Ok(_) => {}
            Err(e) => tracing::error!(ctid = view.row.ctid.get(), "not considered at host boot: {e}"),
        }
    }
    by_order
}
