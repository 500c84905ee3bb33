//! After a boot of the host: `onboot = true` containers are started, higher `bootorder` first, those of one order side by
//! side, a few at a time. One that fails does not hold the others up.

use super::{Asked, Ops, Work, work::End};
use crate::{
    manager::{Manager, new_operation},
    view::{self, Extent},
};
use futures::{StreamExt, stream};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::time::timeout;
use vz_types::{CtState, Ctid, Fact, OpKind, OpState, Reason, Subject};

/// Where the host boot that was last served is kept.
const FACT: &str = "boot_id";
/// How long one waits for what was under way on a container when the host went down to be finished or taken back.
const RECOVERY: Duration = Duration::from_secs(60);
/// Containers brought up side by side: each is work for processors and disks.
const WIDTH: usize = 8;

/// Starts them if the host has booted since vzd last ran here. A first start of all counts as a boot. Ends when all are
/// tried.
pub async fn boot(ops: Arc<Ops>) {
    let m = ops.m.clone();
    let look = m.clone();
    let plan = ops.pools.look.run(move || match look.inventory.host_fact(FACT) {
        Ok(known) if known.as_deref() == Some(&look.boot_id) => None,
        Ok(_) => Some(plan(&look)),
        Err(e) => {
            tracing::error!("onboot: {e}");
            None
        }
    });
    let Ok(Some(plan)) = plan.await else { return };
    let all: u64 = plan.values().map(|v| v.len() as u64).sum();
    let Ok(id) = new_operation() else { return };
    let handle = super::Handle::new(id, OpKind::Onboot, Subject::Host, "vzd".into(), false);
    ops.enlist(&handle);
    let work = Arc::new(Work::new(m.clone(), handle.clone()));
    if all > 0 {
        if let Err(e) = work.begin(&(), None, false, |_| Ok(())) {
            tracing::warn!("onboot: {}", e.report());
        }
    }
    handle.change(|s| s.state = OpState::Running);
    let done = Arc::new(AtomicU64::new(0));
    let mut failed: Vec<u32> = Vec::new();
    for (order, ctids) in plan.into_iter().rev() {
        tracing::info!(bootorder = order, cts = ctids.len(), "starting at host boot");
        let started = stream::iter(ctids).map(|ctid| {
            let (ops, work, done) = (ops.clone(), work.clone(), done.clone());
            async move {
                let good = start(&ops, ctid).await;
                work.progress(done.fetch_add(1, Ordering::AcqRel) + 1, Some(all), "containers");
                (ctid, good)
            }
        });
        let outcomes: Vec<(Ctid, bool)> = started.buffer_unordered(WIDTH).collect().await;
        failed.extend(outcomes.iter().filter(|(_, good)| !good).map(|(c, _)| c.get()));
        if m.is_quitting() {
            break;
        }
    }
    failed.sort_unstable();
    let started = all.saturating_sub(failed.len() as u64);
    // Last: a vzd that is killed half-way goes on with those that do not run yet.
    let ended = ops.pools.work.run(move || {
        if !m.is_quitting() {
            m.inventory.set_host_fact(FACT, &m.boot_id)?;
        }
        work.tell(Fact::StartedAtBoot { started, failed });
        work.finish(End::default(), |_| Ok(()))
    });
    let result = match ended.await {
        Ok(result) => result,
        Err(_) => return,
    };
    ops.dismiss(&handle, result);
}

async fn start(ops: &Arc<Ops>, ctid: Ctid) -> bool {
    let until = Instant::now() + RECOVERY;
    let failed = loop {
        // Until then it is where that operation says, and not where it is.
        ops.settled_ct(ctid, until.saturating_duration_since(Instant::now())).await;
        if runs(&ops.m, ctid) {
            return true;
        }
        let e = match ops.ask(super::start(ctid, false).by("vzd onboot")) {
            Ok(Asked::Operation(handle)) => match handle.ended().await.failure {
                None => return true,
                // One that was under way when the host went down has been joined, and was taken back.
                Some(f) if matches!(f.reason, Some(Reason::VzdEnded { .. })) && Instant::now() < until => continue,
                Some(f) => break f.message,
            },
            Ok(Asked::AlreadySo(_)) => return true,
            Err(e) => e,
        };
        let busy = match e.reason() {
            Some(Reason::Busy { operation, .. }) if Instant::now() < until => ops.live(*operation),
            _ => break e.report(),
        };
        if let Some(handle) = busy {
            let _ = timeout(until.saturating_duration_since(Instant::now()), handle.ended()).await;
        }
        // It is put away a moment after its end was told.
        tokio::task::yield_now().await;
    };
    tracing::error!(ctid = ctid.get(), "not started at host boot: {failed}");
    false
}

fn runs(m: &Manager, ctid: Ctid) -> bool {
    m.cell(ctid).live().is_some_and(|l| !l.ended())
}

/// Who is to be started, by order. What the inventory says of one on which an operation was under way is of before the
/// boot.
fn plan(m: &Manager) -> BTreeMap<u32, Vec<Ctid>> {
    let mut by_order: BTreeMap<u32, Vec<Ctid>> = BTreeMap::new();
    for view in view::list(m, Extent::Brief, &[]).unwrap_or_default() {
        match &view.config {
            Ok(c) if c.onboot == Some(true) && !c.disabled => {
                let ctid = view.row.ctid;
                if !runs(m, ctid) && view.state != CtState::Unknown {
                    by_order.entry(c.bootorder.unwrap_or(0)).or_default().push(ctid);
                }
            }
            Ok(_) => {}
            Err(e) => tracing::error!(ctid = view.row.ctid.get(), "not considered at host boot: {e}"),
        }
    }
    by_order
}
