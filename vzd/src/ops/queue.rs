//! What is asked for one subject and waits its turn: an entry each, in memory, without a thread.

use super::{Handle, ask::Make};
use crate::inventory::OperationRow;
use std::{collections::VecDeque, sync::Arc};
use vz_types::{
    OpKind,
    judge::{Pending, Request},
};

/// One operation that waits.
pub(super) struct Job {
    pub handle: Arc<Handle>,
    pub make: Make,
    pub request: Request,
    /// It goes on with what an earlier vzd began: nothing is judged again.
    pub resumed: Option<Box<OperationRow>>,
}

/// Everything that is asked for one subject.
#[derive(Default)]
pub(super) struct Queue {
    pub jobs: VecDeque<Job>,
    pub current: Option<Arc<Handle>>,
    pub driven: bool,
    /// It has parked or has been idle since vzd started: what recovery had to do at once is done.
    pub settled: bool,
}

impl Queue {
    pub fn handles(&self) -> impl Iterator<Item = &Arc<Handle>> {
        self.current.iter().chain(self.jobs.iter().map(|j| &j.handle))
    }

    /// What the rules look at, in order. What is being cancelled does not count any more, nor what has ended: whoever
    /// was told so may ask for the next thing before the driver has put it away.
    pub fn pending(&self) -> Vec<Pending> {
        let counts = |h: &&Arc<Handle>| !h.kind.is_internal() && !h.is_cancelled() && !h.has_ended();
        self.handles().filter(counts).map(|h| h.pending()).collect()
    }

    pub fn is_resuming(&self) -> bool {
        self.jobs.iter().any(|j| j.resumed.is_some())
            || self.current.as_ref().is_some_and(|h| h.snapshot().begun.is_none())
    }

    /// One of the same kind that waits and has not looked at anything yet: a repair, which sees whatever another would.
    pub fn waiting_repair(&self, request: &Request) -> Option<Arc<Handle>> {
        let same = |j: &&Job| request.kind == OpKind::Repair && j.request == *request;
        self.jobs.iter().find(same).map(|j| j.handle.clone())
    }

    /// Somebody wants it down.
    pub fn is_to_stop(&self) -> bool {
        self.jobs.iter().any(|j| j.request.kind == OpKind::Stop && !j.handle.is_cancelled())
    }
}
