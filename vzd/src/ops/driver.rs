//! One driver per container (or template, or the host), alive only while it has work: it alone changes what it is
//! for. Requests become operations here; what waits, waits in a queue and not on a thread.

use super::{
    Ask, Asked, Handle, Work,
    machine::{Advance, Run},
    queue::{Job, Queue},
    turn::{First, advance, begin, in_turn, mend, nothing_to_do, until},
};
use crate::{
    error::{Error, Result},
    inventory::{OperationRow, Part, Share},
    manager::{Manager, lock, new_operation},
    pool::Pools,
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Notify, time::timeout_at};
use vz_types::{
    CtState, Ctid, Fact, OpId, OpKind, OpState, Reason, Subject,
    judge::{self, Request, Verdict, judge},
    op::Failure,
};

/// Operations that may wait at once; each is a few hundred bytes.
const WAITING: usize = 20_000;

/// Everything that can be asked of a manager to change.
pub struct Ops {
    /// What it is asked of.
    pub m: Arc<Manager>,
    /// Where it is done.
    pub pools: Pools,
    runtime: tokio::runtime::Handle,
    queues: Mutex<HashMap<Subject, Queue>>,
    live: Mutex<HashMap<OpId, Arc<Handle>>>,
    count: AtomicUsize,
    /// Told whenever a driver has parked or ended.
    changed: Notify,
}

impl std::fmt::Debug for Ops {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ops").field("m", &self.m.paths.base).finish_non_exhaustive()
    }
}

impl Ops {
    /// With its threads.
    ///
    /// # Errors
    /// The kernel gives no thread.
    pub fn new(m: Arc<Manager>, runtime: tokio::runtime::Handle) -> std::io::Result<Arc<Self>> {
        let pools = Pools::new()?;
        m.lend(pools.aside.clone());
        Ok(Self::with(m, runtime, pools))
    }

    /// With threads that are there already.
    pub(super) fn with(m: Arc<Manager>, runtime: tokio::runtime::Handle, pools: Pools) -> Arc<Self> {
        Arc::new(Self {
            m,
            pools,
            runtime,
            queues: Mutex::default(),
            live: Mutex::default(),
            count: AtomicUsize::new(0),
            changed: Notify::new(),
        })
    }

    /// From now on the ends of monitors are cleared away after.
    pub fn attend(self: &Arc<Self>) {
        // The watcher is the manager's, which is ours.
        let ops = Arc::downgrade(self);
        self.m.watcher.on_end(move |ctid| {
            let Some(ops) = ops.upgrade() else { return };
            let request = Request::plain(OpKind::Clear);
            let ask = Ask::new(Subject::Ct(ctid), request, move |w| super::clear::Clear::prepare(w, ctid));
            if let Err(e) = ops.ask(ask) {
                tracing::warn!(ctid = ctid.get(), "its end is not cleared away yet: {}", e.report());
            }
        });
    }

    /// Asks for a change. What is answered is an operation under way or waiting, or that there is nothing to do.
    ///
    /// # Errors
    /// The rules refuse it. What is wrong with the request itself is the operation's failure.
    pub fn ask(self: &Arc<Self>, ask: Ask) -> Result<Asked> {
        let (kind, subject, asker) = (ask.request.kind, ask.subject.clone(), ask.asker.clone());
        self.take(ask).inspect_err(|e| super::refused::by_the_rules(&self.m, kind, subject, asker, e))
    }

    fn take(self: &Arc<Self>, ask: Ask) -> Result<Asked> {
        self.m.may_begin(&ask.subject)?;
        let seen = match ask.subject.ctid() {
            Some(ctid) => self.m.seen(ctid)?,
            None => nothing(),
        };
        let id = match ask.id {
            Some(id) => {
                self.is_new(id, &ask.subject)?;
                id
            }
            None => new_operation()?,
        };
        let mut queues = lock(&self.queues);
        // A client that asks again for what it asked already gets that.
        if let Some(known) = lock(&self.live).get(&id) {
            return Ok(Asked::Operation(known.clone()));
        }
        let queue = queues.get(&ask.subject);
        if let Some(handle) = queue.and_then(|q| q.waiting_repair(&ask.request)) {
            return Ok(Asked::Operation(handle));
        }
        let mut interrupted = None;
        let verdict = judge(&seen, &queue.map(Queue::pending).unwrap_or_default(), &ask.request);
        let find = |id: OpId| queue?.handles().find(|h| h.id == id).cloned();
        match verdict {
            Verdict::Accept => {}
            Verdict::AlreadySo => return Ok(Asked::AlreadySo(Fact::NothingToStop)),
            Verdict::Deny(Reason::Absent) => {
                return Err(ask.subject.ctid().map_or_else(
                    || Error::Denied { reason: Reason::Absent, subject: ask.subject.clone() },
                    |ctid| self.m.absent(ctid),
                ));
            }
            Verdict::Deny(reason) => return Err(Error::Denied { reason, subject: ask.subject }),
            Verdict::Join(other) | Verdict::Hurry(other) => {
                if let Some(handle) = find(other) {
                    let hurries = verdict == Verdict::Hurry(other);
                    if hurries {
                        handle.hurry();
                    }
                    // Under the number of whoever asked it is found as well.
                    lock(&self.live).insert(id, handle.clone());
                    drop(queues);
                    self.takes_part(&handle, if hurries { "hurried" } else { "joined" }, &ask.asker, Some(id));
                    return Ok(Asked::Operation(handle));
                }
            }
            Verdict::Interrupt(other) => {
                interrupted = find(other);
                if let Some(handle) = &interrupted {
                    // Its way down, if it is on one, is ours: in no more time than we would give.
                    if ask.request.fast {
                        handle.hurry();
                    }
                    // One that only goes forward by now is waited for, until it may be.
                    handle.interrupt();
                }
            }
        }
        if self.count.load(Ordering::Acquire) >= WAITING {
            let reason = Reason::TooMany { waiting: WAITING as u64 };
            return Err(Error::Denied { reason, subject: ask.subject });
        }
        let ask = ask.numbered(Some(id));
        let mut kept = ask.keep;
        if let Some(row) = super::work::waiting(&ask).filter(|_| ask.keep) {
            let share = share_of(ask.request.kind);
            match self.m.inventory.change_from(share, "keeping an operation", false, |c| c.operation(&row)) {
                Err(e) if e.is_unwritable() && ask.request.kind == OpKind::Stop => kept = false,
                done => done?,
            }
        }
        let handle = Handle::new(id, ask.request.kind, ask.subject.clone(), ask.asker.clone(), ask.request.fast);
        handle.kept.store(kept, Ordering::Release);
        if let Some(other) = &interrupted {
            handle.change(|s| s.interrupts = Some((other.kind, other.id)));
        }
        let job = Job { handle: handle.clone(), make: ask.make, request: ask.request, resumed: None };
        self.push(&mut queues, &ask.subject, job);
        drop(queues);
        if let Some(other) = interrupted {
            self.takes_part(&other, "interrupted", &ask.asker, Some(id));
        }
        Ok(Asked::Operation(handle))
    }

    /// Keeps who else had a part in an operation.
    fn takes_part(&self, of: &Handle, how: &str, asker: &str, number: Option<OpId>) {
        if of.kind.is_internal() {
            return;
        }
        let at = crate::manager::now_ms();
        let part = Part { operation: of.id, how: how.into(), asker: asker.into(), at, number, text: None };
        let share = if how == "cancelled" { Share::Reserve } else { share_of(of.kind) };
        if let Err(e) = self.m.inventory.change_from(share, "keeping who had a part", false, |c| c.part(&part)) {
            tracing::warn!(id = %of.id, how, asker, "it cannot be kept: {e}");
        }
    }

    /// A number is given once: what has ended under it is not asked for again, but looked at.
    fn is_new(&self, id: OpId, subject: &Subject) -> Result<()> {
        if self.live(id).is_some() {
            return Ok(());
        }
        match self.m.inventory.operation(id)? {
            Some(row) if row.state.has_ended() => {
                Err(Error::Denied { reason: Reason::HasEnded { state: row.state }, subject: subject.clone() })
            }
            _ => Ok(()),
        }
    }

    /// It has ended, under every number it was asked for.
    fn forget(&self, handle: &Handle) {
        lock(&self.live).retain(|_, h| h.id != handle.id);
    }

    /// Goes on with an operation an earlier vzd has begun.
    pub(super) fn carry_on(self: &Arc<Self>, row: OperationRow) {
        let job = Job {
            handle: Handle::again(&row),
            make: Box::new(|_| Err(Error::refused(vz_types::ExitCode::System, "it cannot begin twice", ""))),
            request: Request::plain(row.kind),
            resumed: Some(Box::new(row)),
        };
        let subject = job.handle.subject.clone();
        self.push(&mut lock(&self.queues), &subject, job);
    }

    fn push(self: &Arc<Self>, queues: &mut HashMap<Subject, Queue>, subject: &Subject, job: Job) {
        let queue = queues.entry(subject.clone()).or_default();
        self.count.fetch_add(1, Ordering::AcqRel);
        lock(&self.live).insert(job.handle.id, job.handle.clone());
        queue.jobs.push_back(job);
        if !queue.driven {
            queue.driven = true;
            self.runtime.spawn(drive(self.clone(), subject.clone()));
        }
    }

    /// What an operation has asked for to follow it is next, and can be seen before that one is told to have ended. Whoever
    /// wants the container down meanwhile does not wait for it.
    fn follow(&self, of: &Handle, ask: Ask) {
        let Some(id) = ask.id else { return };
        let handle = Handle::new(id, ask.request.kind, ask.subject.clone(), ask.asker, ask.request.fast);
        handle.kept.store(true, Ordering::Release);
        of.change(|s| s.then = Some(handle.clone()));
        let mut queues = lock(&self.queues);
        // Its driver is who calls this.
        let Some(queue) = queues.get_mut(&ask.subject) else { return };
        if queue.is_to_stop() {
            handle.interrupt();
        }
        self.count.fetch_add(1, Ordering::AcqRel);
        lock(&self.live).insert(id, handle.clone());
        queue.jobs.push_front(Job { handle, make: ask.make, request: ask.request, resumed: None });
    }

    /// An operation that is carried out by somebody else than a driver can be seen from now on.
    pub(super) fn enlist(&self, handle: &Arc<Handle>) {
        handle.change(|s| s.cancellable = false);
        lock(&self.live).insert(handle.id, handle.clone());
    }

    /// It has ended.
    pub(super) fn dismiss(&self, handle: &Arc<Handle>, result: Result<()>) {
        self.forget(handle);
        conclude(handle, result);
    }

    /// An operation that has not ended.
    pub fn live(&self, id: OpId) -> Option<Arc<Handle>> {
        lock(&self.live).get(&id).cloned()
    }

    /// All of them, the oldest first.
    pub fn all_live(&self) -> Vec<Arc<Handle>> {
        let mut all: Vec<_> = lock(&self.live).values().cloned().collect();
        all.sort_by_key(|h| (h.asked, h.id));
        all.dedup_by_key(|h| h.id);
        all
    }

    /// What is under way on a container, its own housekeeping left out.
    pub fn under_way(&self, ctid: Ctid) -> Option<Arc<Handle>> {
        let queues = lock(&self.queues);
        queues.get(&Subject::Ct(ctid))?.current.clone().filter(|h| !h.kind.is_internal() && !h.has_ended())
    }

    /// Cancels an operation.
    ///
    /// # Errors
    /// It is at a step that cannot be taken back, or has ended.
    pub fn cancel(&self, id: OpId, asker: &str) -> Result<Arc<Handle>> {
        let Some(handle) = self.live(id) else {
            let Some(row) = self.m.inventory.operation(id)? else {
                return Err(self.m.no_operation(id));
            };
            return Err(Error::Denied { reason: Reason::HasEnded { state: row.state }, subject: row.subject });
        };
        match handle.cancel() {
            Ok(()) => {
                self.takes_part(&handle, "cancelled", asker, None);
                self.withdraw(&handle);
                Ok(handle)
            }
            Err(step) => {
                let snapshot = handle.snapshot();
                let reason = match snapshot.state.has_ended() {
                    true => Reason::HasEnded { state: snapshot.state },
                    false => Reason::NotCancellable { kind: handle.kind, step: step.to_owned() },
                };
                Err(Error::Denied { reason, subject: handle.subject.clone() })
            }
        }
    }

    /// One that is cancelled behind another does not wait for that one's end.
    fn withdraw(&self, handle: &Arc<Handle>) {
        let withdrawn = {
            let mut queues = lock(&self.queues);
            let Some(queue) = queues.get_mut(&handle.subject) else { return };
            let at = queue.jobs.iter().position(|j| j.handle.id == handle.id && j.resumed.is_none());
            at.and_then(|at| queue.jobs.remove(at))
        };
        if withdrawn.is_some() {
            let result = unbegun(&self.m, handle);
            self.forget(handle);
            self.count.fetch_sub(1, Ordering::AcqRel);
            conclude(handle, result);
            self.told();
        }
    }

    /// Cancels what takes minutes: it would not be done before vzd has to be gone.
    pub fn give_up_heavy(&self) {
        for handle in self.all_live().iter().filter(|h| h.kind.is_heavy()) {
            let _ = handle.cancel();
        }
    }

    /// Waits until everything that was to be done at once is done: drivers have ended or wait for somebody. At most so
    /// long.
    pub async fn settled(&self, most: Duration) {
        let until = tokio::time::Instant::now() + most;
        let settled = async {
            loop {
                let changed = self.changed.notified();
                if lock(&self.queues).values().all(|q| q.settled || !q.driven) {
                    return;
                }
                changed.await;
            }
        };
        let _ = timeout_at(until, settled).await;
    }

    /// Waits until recovery has nothing more to do at once for a container; at most so long.
    pub async fn settled_ct(&self, ctid: Ctid, most: Duration) {
        let until = tokio::time::Instant::now() + most;
        let subject = Subject::Ct(ctid);
        let settled = async {
            loop {
                let changed = self.changed.notified();
                if lock(&self.queues).get(&subject).is_none_or(|q| q.settled || !q.driven || !q.is_resuming()) {
                    return;
                }
                changed.await;
            }
        };
        let _ = timeout_at(until, settled).await;
    }

    /// Waits until no operation is being carried out any more: those that only wait for somebody are left to the next
    /// vzd, which goes on with them. At most so long.
    pub async fn quiet(&self, most: Duration) {
        self.settled(most).await;
    }

    fn told(&self) {
        self.changed.notify_waiters();
    }
}

/// What of the inventory an operation of this kind may use before it has begun.
pub(super) fn share_of(kind: OpKind) -> Share {
    if kind.makes_room() { Share::Reserve } else { Share::Common }
}

/// For what is no container: there is no state.
fn nothing() -> judge::Seen {
    judge::Seen { state: CtState::Stopped, trouble: None, disabled: false }
}

/// Carries out what is asked for one subject, one after the other, until nothing is.
async fn drive(ops: Arc<Ops>, subject: Subject) {
    loop {
        let job = {
            let mut queues = lock(&ops.queues);
            let Some(queue) = queues.get_mut(&subject) else { return };
            queue.current = None;
            match queue.jobs.pop_front() {
                Some(job) => {
                    queue.current = Some(job.handle.clone());
                    queue.settled = false;
                    job
                }
                None => {
                    queues.remove(&subject);
                    drop(queues);
                    ops.told();
                    return;
                }
            }
        };
        let handle = job.handle.clone();
        let result = carry_out(&ops, job).await;
        ops.forget(&handle);
        ops.count.fetch_sub(1, Ordering::AcqRel);
        conclude(&handle, result);
        ops.told();
    }
}

/// The last that is told of an operation.
pub(super) fn conclude(handle: &Handle, result: Result<()>) {
    let failure: Option<Failure> = result.as_ref().err().map(Error::failure);
    let cancelled = matches!(failure.as_ref().and_then(|f| f.reason.as_ref()), Some(Reason::Cancelled { .. }));
    let took: u64 = handle.snapshot().times.iter().filter(|(n, _)| !n.starts_with("vzmon.")).map(|(_, us)| us).sum();
    match &failure {
        None if handle.kind.is_internal() => {
            tracing::debug!(subject = %handle.subject, op = handle.kind.word(), took_us = took, "done");
        }
        None => {
            tracing::info!(subject = %handle.subject, op = handle.kind.word(), id = %handle.id, by = handle.asker, took_us = took, "done");
        }
        Some(f) => {
            tracing::warn!(subject = %handle.subject, op = handle.kind.word(), id = %handle.id, by = handle.asker, took_us = took, "{}", f.message);
        }
    }
    handle.change(|s| {
        s.state = match (&failure, cancelled) {
            (None, _) => OpState::Done,
            (Some(_), true) => OpState::Cancelled,
            (Some(_), false) => OpState::Failed,
        };
        s.failure = failure;
        s.ended = Some(crate::manager::now_ms());
        s.cancellable = false;
    });
}

async fn carry_out(ops: &Arc<Ops>, job: Job) -> Result<()> {
    let Job { handle, make, request, resumed } = job;
    if let Some(row) = resumed {
        return go_on(ops, &handle, *row).await;
    }
    if handle.is_cancelled() {
        return unbegun(&ops.m, &handle);
    }
    let work = Arc::new(Work::new(ops.m.clone(), handle.clone()));
    let refused = |e: Error| {
        work.fail(OpState::Failed, &e.failure(), None, |_| Ok(None));
        Err(e)
    };
    let mut make = make;
    let mut mended = false;
    loop {
        let first = {
            let work = work.clone();
            ops.pools.work.run(move || begin(&work, &request, make, mended)).await
        };
        match first {
            Ok(First::Refused(e)) => return refused(e),
            Ok(First::NothingToDo(fact)) => {
                nothing_to_do(ops, &handle, fact);
                return Ok(());
            }
            Ok(First::Mend(row, unmade)) => {
                make = unmade;
                match mend(ops, &handle, &request, *row).await {
                    Ok(None) => mended = true,
                    Ok(Some(fact)) => {
                        nothing_to_do(ops, &handle, fact);
                        return Ok(());
                    }
                    Err(e) => return refused(e),
                }
            }
            Ok(First::Made(machine)) => return run(ops, &work, machine, None).await,
            Ok(First::Begun(machine, advance)) => return run(ops, &work, machine, Some(advance)).await,
            Err(_) => return Err(panicked(&work)),
        }
    }
}

/// The end of one that was cancelled before it began.
fn unbegun(m: &Arc<Manager>, handle: &Arc<Handle>) -> Result<()> {
    let reason = Reason::Cancelled { kind: handle.kind };
    let e = Error::Denied { reason, subject: handle.subject.clone() };
    Work::new(m.clone(), handle.clone()).fail(OpState::Cancelled, &e.failure(), None, |_| Ok(None));
    Err(e)
}

/// Carries on with what was cut short. What cannot be read is not guessed: the container stays where it is, and says why.
pub(super) async fn go_on(ops: &Arc<Ops>, handle: &Arc<Handle>, row: OperationRow) -> Result<()> {
    let work = Arc::new(Work::resumed(ops.m.clone(), handle.clone(), &row.note));
    let step = row.step.clone();
    handle.change(|s| {
        s.state = OpState::Running;
        s.begun = row.begun.or(Some(row.asked));
    });
    let made = {
        let work = work.clone();
        ops.pools.work.run(move || super::resume(&work, &row)).await
    };
    let machine = match made {
        Ok(Ok(machine)) => machine,
        Ok(Err(e)) => {
            let trouble = vz_types::state::Trouble {
                operation: Some(handle.id),
                kind: Some(handle.kind),
                step,
                cause: e.report(),
            };
            tracing::error!(subject = %handle.subject, op = handle.kind.word(), "it is left as it is: {}", e.report());
            let runs = handle.subject.ctid().is_some_and(|c| ops.m.is_running(c));
            let at = if runs { CtState::Unknown } else { CtState::Failed };
            work.fail(OpState::Failed, &e.failure(), Some(&trouble), |_| Ok(Some(at)));
            return Err(e);
        }
        Err(_) => return Err(panicked(&work)),
    };
    run(ops, &work, machine, None).await
}

/// `begun`: what it came to where it has been advanced once already.
async fn run(ops: &Arc<Ops>, work: &Arc<Work>, mut machine: Box<dyn Run>, mut begun: Option<Advance>) -> Result<()> {
    let handle = work.handle.clone();
    loop {
        let at = work.clone();
        let advanced = match begun.take() {
            Some(advance) => Ok((machine, advance)),
            None => {
                let advance = move || {
                    let advance = advance(&at, &mut *machine);
                    (machine, advance)
                };
                match handle.kind.is_heavy() {
                    true => in_turn(ops, &handle, advance).await,
                    false => ops.pools.work.run(advance).await,
                }
            }
        };
        match advanced {
            Ok((_, Advance::Ended(result))) => {
                if let Some(next) = work.next().filter(|_| result.is_ok()) {
                    ops.follow(&handle, next);
                }
                return result;
            }
            Ok((same, Advance::Parked(wait))) => {
                machine = same;
                settle(ops, &handle.subject);
                until(&wait, &handle).await;
            }
            Err(_) => return Err(panicked(work)),
        }
    }
}

/// It waits for somebody now.
fn settle(ops: &Ops, subject: &Subject) {
    if let Some(queue) = lock(&ops.queues).get_mut(subject) {
        queue.settled = true;
    }
    ops.told();
}

pub(super) fn broken() -> Error {
    Error::refused(vz_types::ExitCode::System, "vzd failed inside; its log says where", "please report it")
}

/// What a piece of work that panicked leaves behind: the operation is open in the inventory, and finished by whoever
/// comes next.
fn panicked(work: &Work) -> Error {
    if let Some(ctid) = work.handle.subject.ctid().filter(|_| work.has_begun()) {
        let trouble = vz_types::state::Trouble {
            operation: Some(work.handle.id),
            kind: Some(work.handle.kind),
            step: work.handle.snapshot().step.to_owned(),
            cause: "vzd failed inside; its log says where".into(),
        };
        work.m.cell(ctid).set(CtState::Failed, Some(trouble));
    }
    broken()
}
