//! An operation under way, for everybody who looks at it: waits for it, follows it, cancels it.

use crate::{inventory::OperationRow, manager::now_ms};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::sync::{Notify, broadcast, watch};
use vz_types::{Fact, OpId, OpKind, OpState, Subject, judge::Pending, op::Failure, op::Progress};

/// How far an operation is.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Where it is.
    pub state: OpState,
    /// The step it is at.
    pub step: &'static str,
    /// Steps done, and how many there are in all.
    pub steps: (usize, usize),
    /// How far that step is, where there is a measure.
    pub progress: Option<Progress>,
    /// A line of what it is doing, as it says itself.
    pub line: String,
    /// What it has to tell.
    pub facts: Vec<Fact>,
    /// Steps done, with microseconds.
    pub times: Vec<(String, u64)>,
    /// Why it was not carried through.
    pub failure: Option<Failure>,
    /// An answer of its own, where it has one (JSON).
    pub result: Option<serde_json::Value>,
    /// What it has cancelled.
    pub interrupts: Option<(OpKind, OpId)>,
    /// The operation that follows it at once, where it has asked for one.
    pub then: Option<Arc<Handle>>,
    /// When it began, in milliseconds since the epoch.
    pub begun: Option<u64>,
    /// When it ended.
    pub ended: Option<u64>,
    /// It can be cancelled now.
    pub cancellable: bool,
}

/// Lines of a log that are kept for somebody who follows slowly; one who is slower misses some.
const LINES: usize = 256;

/// An operation under way.
#[derive(Debug)]
pub struct Handle {
    /// Its number.
    pub id: OpId,
    /// What it is.
    pub kind: OpKind,
    /// What it is about.
    pub subject: Subject,
    /// Who asked.
    pub asker: String,
    /// When, in milliseconds since the epoch.
    pub asked: u64,
    /// It is in the inventory.
    pub kept: AtomicBool,
    fast: AtomicBool,
    cancel: Arc<AtomicBool>,
    nudge: Notify,
    now: watch::Sender<Snapshot>,
    /// Told once, when it has ended: whoever only waits for that is not woken at each step.
    end: watch::Sender<bool>,
    lines: Option<broadcast::Sender<Arc<str>>>,
}

impl Handle {
    /// One that waits its turn.
    pub fn new(id: OpId, kind: OpKind, subject: Subject, asker: String, fast: bool) -> Arc<Self> {
        Self::asked_at(id, kind, subject, asker, fast, now_ms())
    }

    /// One that is gone on with.
    pub fn again(row: &OperationRow) -> Arc<Self> {
        let handle = Self::asked_at(row.id, row.kind, row.subject.clone(), row.asker.clone(), false, row.asked);
        handle.kept.store(true, Ordering::Release);
        handle
    }

    fn asked_at(id: OpId, kind: OpKind, subject: Subject, asker: String, fast: bool, asked: u64) -> Arc<Self> {
        let first = Snapshot {
            state: OpState::Queued,
            step: "",
            steps: (0, 0),
            progress: None,
            line: String::new(),
            facts: Vec::new(),
            times: Vec::new(),
            failure: None,
            result: None,
            interrupts: None,
            then: None,
            begun: None,
            ended: None,
            cancellable: true,
        };
        Arc::new(Self {
            id,
            kind,
            subject,
            asker,
            asked,
            kept: AtomicBool::new(false),
            fast: AtomicBool::new(fast),
            cancel: Arc::default(),
            nudge: Notify::new(),
            now: watch::Sender::new(first),
            end: watch::Sender::new(false),
            lines: kind.is_heavy().then(|| broadcast::Sender::new(LINES)),
        })
    }

    /// As the rules see it.
    pub fn pending(&self) -> Pending {
        let seconds = now_ms().saturating_sub(self.asked) / 1000;
        Pending { id: self.id, kind: self.kind, fast: self.is_fast(), seconds }
    }

    /// How far it is.
    pub fn snapshot(&self) -> Snapshot {
        self.now.borrow().clone()
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.now.borrow().state.has_ended()
    }

    /// Every state of it from now on; the last one says that it has ended.
    pub fn follow(&self) -> watch::Receiver<Snapshot> {
        self.now.subscribe()
    }

    /// A line of its log.
    pub fn log(&self, line: &str) {
        if let Some(lines) = &self.lines {
            // Nobody may be listening.
            let _ = lines.send(line.into());
        }
    }

    /// Lines of its log from now on, where it has one.
    pub fn lines(&self) -> Option<broadcast::Receiver<Arc<str>>> {
        self.lines.as_ref().map(broadcast::Sender::subscribe)
    }

    /// Waits until it has ended.
    pub async fn ended(&self) -> Snapshot {
        // The sender is in `self`, so it cannot be gone.
        let _ = self.end.subscribe().wait_for(|ended| *ended).await;
        self.snapshot()
    }

    /// Tells something new about it.
    pub fn change(&self, change: impl FnOnce(&mut Snapshot)) {
        self.now.send_modify(change);
        if self.has_ended() {
            self.end.send_if_modified(|ended| !std::mem::replace(ended, true));
        }
    }

    /// It is to give no more time.
    pub fn hurry(&self) {
        self.fast.store(true, Ordering::Release);
        self.nudge.notify_one();
    }

    /// Whether it gives no time.
    pub fn is_fast(&self) -> bool {
        self.fast.load(Ordering::Acquire)
    }

    /// It is to end, and to be taken back. Where it is at a step that cannot be, that is the answer.
    pub fn cancel(&self) -> Result<(), &'static str> {
        let mut refused = None;
        self.now.send_modify(|s| match s.state {
            OpState::Queued | OpState::Running if s.cancellable => {
                self.cancel.store(true, Ordering::Release);
                if s.state == OpState::Running {
                    s.state = OpState::Cancelling;
                }
            }
            OpState::Cancelling => {}
            _ => refused = Some(s.step),
        });
        self.nudge.notify_one();
        refused.map_or(Ok(()), Err)
    }

    /// The same, as soon as it comes to a step that can be taken back.
    pub fn interrupt(&self) {
        if self.cancel().is_err() {
            self.cancel.store(true, Ordering::Release);
        }
    }

    /// Whether it is to end.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Acquire)
    }

    /// The same, for what looks at it while it works.
    pub fn cancelled(&self) -> Arc<AtomicBool> {
        self.cancel.clone()
    }

    /// Waits until somebody has hurried or cancelled it.
    pub async fn nudged(&self) {
        self.nudge.notified().await;
    }
}
