//! What comes before the first step of an operation whose turn has come: what an earlier one left open is finished, and
//! the rules are asked once more. And how an operation waits: for its turn, for room, for somebody else.

use super::{
    Handle, Ops, Work,
    ask::Make,
    driver::{broken, conclude, go_on, share_of},
    machine::{Advance, Run},
    step::Wait,
};
use crate::{
    error::{Error, Result},
    inventory::OperationRow,
    manager::{Manager, lock},
    pool::Panicked,
    ready::readable,
};
use std::sync::{Arc, Mutex, atomic::Ordering};
use tokio::time::timeout_at;
use vz_types::{
    CtState, Ctid, Fact, OpKind, OpState, Reason,
    judge::{Request, Seen, Verdict, judge},
};

/// What the first look at an operation whose turn has come leads to. All of it that needs nobody else is one piece of
/// work: each change of threads costs as much as a step.
pub(super) enum First {
    /// The rules, or its own checks, refuse it.
    Refused(Error),
    /// It is so already.
    NothingToDo(Fact),
    /// What an earlier one left open comes first; it is yet to be made.
    Mend(Box<OperationRow>, Make),
    /// It is ready to be carried out where there is room for it.
    Made(Box<dyn Run>),
    /// It has begun, and come so far.
    Begun(Box<dyn Run>, Advance),
}

/// Looks where things are now that it is its turn, judges once more, checks, and begins. `mended`: nothing is open any
/// more, and the rules have been asked. A repair takes up nothing of what it is not about.
pub(super) fn begin(work: &Work, request: &Request, make: Make, mended: bool) -> First {
    let about = work.handle.subject.ctid().filter(|_| work.handle.kind != OpKind::Repair && !mended);
    if let Some(ctid) = about {
        // What is not written down yet has ended all the same.
        if let Err(e) = work.m.inventory.pay() {
            tracing::debug!(ctid = ctid.get(), "{e}");
        }
        match work.m.inventory.operation_open_on(ctid) {
            Ok(Some(row)) if row.id != work.handle.id => return First::Mend(Box::new(row), make),
            Ok(_) => {}
            Err(e) => return First::Refused(e.into()),
        }
        match work.m.seen(ctid).and_then(|seen| may_go(&work.m, ctid, &seen, request)) {
            Ok(None) => {}
            Ok(Some(fact)) => return First::NothingToDo(fact),
            Err(e) => return First::Refused(e),
        }
    }
    match make(work) {
        Err(e) => First::Refused(e),
        Ok(machine) if work.handle.kind.is_heavy() => First::Made(machine),
        Ok(mut machine) => {
            let advance = advance(work, &mut *machine);
            First::Begun(machine, advance)
        }
    }
}

/// Goes on with it until it has to wait or has ended.
pub(super) fn advance(work: &Work, machine: &mut dyn Run) -> Advance {
    work.handle.change(|s| {
        if s.state == OpState::Queued {
            s.state = if work.is_cancelled() { OpState::Cancelling } else { OpState::Running };
        }
    });
    machine.advance(work)
}

/// The rules' last word; a fact where there is nothing left to do.
fn may_go(m: &Manager, ctid: Ctid, seen: &Seen, request: &Request) -> Result<Option<Fact>> {
    match judge(seen, &[], request) {
        Verdict::Accept | Verdict::Join(_) | Verdict::Hurry(_) | Verdict::Interrupt(_) => Ok(None),
        Verdict::AlreadySo => Ok(Some(Fact::NothingToStop)),
        Verdict::Deny(Reason::Absent) => Err(m.absent(ctid)),
        Verdict::Deny(reason) => Err(Error::denied(reason, ctid)),
    }
}

/// Finishes what an earlier operation left open on its container, and judges once more. A fact where there is nothing
/// left to do.
pub(super) async fn mend(
    ops: &Arc<Ops>,
    handle: &Arc<Handle>,
    request: &Request,
    row: OperationRow,
) -> Result<Option<Fact>> {
    let Some(ctid) = handle.subject.ctid() else { return Ok(None) };
    tracing::warn!(ctid = ctid.get(), op = row.kind.word(), step = row.step, "was left open");
    let (kind, step) = (row.kind, row.step.clone());
    let mending = Handle::again(&row);
    let result = go_on(ops, &mending, row).await;
    let ended = mending.snapshot();
    conclude(
        &mending,
        match &result {
            Ok(()) => Ok(()),
            Err(e) => Err(Error::refused(e.code(), e.report(), "")),
        },
    );
    let trouble = ops.m.cell(ctid).state();
    if trouble.0 == CtState::Failed && !(request.kind == OpKind::Destroy && kind != OpKind::Destroy) {
        let cause = trouble.1.map_or_else(|| "it is open still".to_owned(), |t| t.cause);
        return Err(Error::denied(Reason::Trouble { kind, step, cause }, ctid));
    }
    // It was to do the same, and has now been done. Two that bring values of their own are never the same.
    let alike = kind == request.kind && !matches!(kind, OpKind::Create | OpKind::Set);
    if alike && result.is_ok() {
        let facts = ended.facts;
        handle.change(|s| s.facts.extend(facts));
        return Ok(Some(Fact::Joined { operation: mending.id }));
    }
    let m = ops.m.clone();
    let seen = ops.pools.work.run(move || m.seen(ctid)).await.unwrap_or_else(|_| Err(broken()))?;
    // What was half made has gone while it was taken back: that is what was asked for.
    if request.kind == OpKind::Destroy && seen.state == CtState::Absent {
        let private = ops.m.paths.private(ctid).display().to_string();
        return Ok(Some(Fact::Destroyed { private }));
    }
    may_go(&ops.m, ctid, &seen, request)
}

/// One whose turn came and that has nothing left to do. That there was nothing to stop is no news to anybody who did not
/// leave it behind; the rest is on record like what was done.
pub(super) fn nothing_to_do(ops: &Arc<Ops>, handle: &Arc<Handle>, fact: Fact) {
    // That there is nothing to stop any more is our own doing.
    let fact = match (fact, handle.snapshot().interrupts) {
        (Fact::NothingToStop, Some((kind, operation))) => Fact::Interrupted { kind, operation },
        (fact, _) => fact,
    };
    handle.change(|s| s.facts.push(fact));
    let news = handle.snapshot().facts.iter().any(|f| !matches!(f, Fact::NothingToStop));
    if news || handle.kept.load(Ordering::Acquire) {
        let row = Work::new(ops.m.clone(), handle.clone()).row(OpState::Done, None, true);
        if let Err(e) =
            ops.m.inventory.change_from(share_of(row.kind), "ending an operation", false, |c| c.operation(&row))
        {
            tracing::warn!(id = %handle.id, "{e}");
        }
    }
}

/// Does a piece of a heavy operation when there is room for it. One that is cancelled before does not wait for room: what
/// is left to be done is to end it.
pub(super) async fn in_turn<T: Send + 'static>(
    ops: &Arc<Ops>,
    handle: &Handle,
    piece: impl FnOnce() -> T + Send + 'static,
) -> std::result::Result<T, Panicked> {
    let piece = Arc::new(Mutex::new(Some(piece)));
    let take = |piece: &Mutex<Option<_>>| lock(piece).take();
    let room = {
        let piece = piece.clone();
        ops.pools.heavy.run(move || take(&piece).map(|piece: _| piece()))
    };
    let mut room = std::pin::pin!(room);
    loop {
        tokio::select! {
            done = &mut room => return done.and_then(|done| done.ok_or(Panicked)),
            () = handle.nudged(), if !handle.has_ended() => {
                if let Some(piece) = handle.is_cancelled().then(|| lock(&piece).take()).flatten() {
                    return ops.pools.work.run(piece).await;
                }
            }
        }
    }
}

/// Waits for what a step waits for, for somebody to hurry or cancel it, or for the end of its time.
pub(super) async fn until(wait: &Wait, handle: &Handle) {
    let either = async {
        tokio::select! {
            () = readable(Some(wait.fd.clone())) => {}
            () = handle.nudged() => {}
        }
    };
    let _ = timeout_at(wait.until.into(), either).await;
}
