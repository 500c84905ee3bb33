//! Taking down goes on whether or not it can be written down: a container that fills the disk can be stopped, and so can
//! one of a manager whose inventory may not be changed. What a stop has done is in memory at once, and in the inventory
//! before the next thing that is written there; a vzd that ends before that is followed by one that finds the same.

use super::{
    Work,
    work::{End, remembers},
};
use crate::{
    ct::settle,
    error::{Error, Result},
    inventory::{self, OperationRow},
};
use serde::Serialize;
use vz_types::{CtState, Ctid, Fact, OpKind, op::Failure, state::Trouble};

/// What has no new state to take back: found again from what runs and what is mounted.
pub(super) fn only_goes_down(kind: OpKind) -> bool {
    matches!(kind, OpKind::Stop | OpKind::Restart | OpKind::Clear)
}

impl Work {
    /// As [`Work::begin`], but it goes on where that cannot be written down.
    ///
    /// # Errors
    /// The inventory's, where it is not for want of being writable.
    pub(super) fn begin_anyway(&self, note: &impl Serialize, state: CtState) -> Result<()> {
        match self.begin(note, Some(state), false, |_| Ok(())) {
            Err(Error::Inventory(e)) if e.is_unwritable() => {
                self.unwritten(&e);
                self.has_begun_as(Some(state));
                Ok(())
            }
            done => done,
        }
    }

    /// As [`Work::finish`] of a container that is down, with how its run ended; where that cannot be written now, later.
    ///
    /// # Errors
    /// The inventory's, where it is not for want of being writable.
    pub(super) fn finish_anyway(&self, end: End, last_exit: Option<String>) -> Result<()> {
        let (ctid, ending) = (self.ctid()?, self.ending(end));
        let write = move |c: &inventory::Change<'_>, ending: &super::work::Ending| {
            last_exit.iter().try_for_each(|text| c.last_exit(ctid, text))?;
            ending.write(c)
        };
        match self.change("ending an operation", ending.durable, |c| write(c, &ending)) {
            Ok(event) => {
                self.has_ended(&ending);
                if event > 0 {
                    self.m.ring(event);
                }
            }
            Err(e) if e.is_unwritable() => {
                self.has_ended(&ending);
                self.unwritten(&e);
                self.m.inventory.owe(Box::new(move |c| write(c, &ending).map(drop)));
            }
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }

    /// A write of a teardown that is made up for later where it cannot be made now.
    ///
    /// # Errors
    /// The inventory's, where it is not for want of being writable.
    pub(super) fn write_anyway(
        &self,
        what: &'static str,
        write: impl Fn(&inventory::Change<'_>) -> inventory::Result<()> + Send + 'static,
    ) -> Result<()> {
        match self.change(what, false, &write) {
            Err(e) if e.is_unwritable() => {
                self.unwritten(&e);
                self.m.inventory.owe(Box::new(write));
                Ok(())
            }
            done => Ok(done?),
        }
    }

    /// It could not be carried through, and that cannot be written down either: it counts from now on.
    pub(super) fn owe_failure(
        &self,
        ctid: Ctid,
        row: &OperationRow,
        failure: &Failure,
        trouble: Option<&Trouble>,
        why: &inventory::Error,
    ) {
        let at = if trouble.is_some() { CtState::Failed } else { settle::found(&self.m, ctid) };
        self.m.cell(ctid).set(at, trouble.cloned());
        tracing::error!(subject = %self.handle.subject, op = self.handle.kind.word(), "its end is not written down yet: {why}");
        let (row, message, trouble) = (row.clone(), failure.message.clone(), trouble.cloned());
        let part = trouble.as_ref().map(|_| self.failed(&message));
        let remembered = remembers(self.handle.kind);
        self.m.inventory.owe(Box::new(move |c| {
            c.operation(&row)?;
            part.iter().try_for_each(|part| c.part(part))?;
            c.state(ctid, at, trouble.as_ref())?;
            if remembered { c.last_failure(ctid, Some(&message)) } else { Ok(()) }
        }));
    }

    /// Told once, whatever of it could not be written.
    fn unwritten(&self, e: &inventory::Error) {
        let kind = self.handle.kind;
        tracing::warn!(subject = %self.handle.subject, op = kind.word(), "it goes on without being written down: {e}");
        let known = |f: &Fact| matches!(f, Fact::LeftBehind { text, .. } if text.contains(UNWRITTEN));
        if !self.handle.snapshot().facts.iter().any(known) {
            let cause = std::error::Error::source(e).map_or_else(String::new, |source| format!(": {source}"));
            let text =
                format!("{} {UNWRITTEN}, which is made up for as soon as it can be: {e}{cause}", self.handle.subject);
            self.tell(Fact::LeftBehind { kind, text });
        }
    }
}

const UNWRITTEN: &str = "is taken down without its being written down";
