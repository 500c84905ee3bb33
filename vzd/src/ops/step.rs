//! Steps: what an operation is made of. Order, fault points, progress, undo and recovery are all read off the one list
//! of them ([`Operation::steps`]).

use super::Work;
use crate::{
    error::Result,
    inventory::{self, Change},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{os::fd::OwnedFd, sync::Arc, time::Instant};
use vz_types::{CtState, OpKind};

/// What came of a step so far.
#[derive(Debug)]
pub enum Flow {
    /// It is done.
    Done,
    /// It waits for somebody else; it is called again then. No thread is held meanwhile.
    Wait(Wait),
}

/// What a step waits for, and how long at most.
#[derive(Clone, Debug)]
pub struct Wait {
    /// Until this is readable.
    pub fd: Arc<OwnedFd>,
    /// At the latest until then.
    pub until: Instant,
}

type Does<O> = Box<dyn Fn(&mut O, &Work) -> Result<Flow> + Send>;
type Undoes<O> = Box<dyn Fn(&mut O, &Work) -> Result<()> + Send>;

/// One step of an operation.
pub struct Step<O> {
    /// Its name, unique in its operation: part of the names of its fault points.
    pub name: &'static str,
    /// What it does.
    pub(super) does: Does<O>,
    pub(super) undoes: Option<Undoes<O>>,
    pub(super) when: Box<dyn Fn(&O) -> bool + Send>,
    pub(super) onward: bool,
    pub(super) tolerant: bool,
    pub(super) forgiven: bool,
}

impl<O: 'static> Step<O> {
    /// A step that does its work at once.
    pub fn new(name: &'static str, does: impl Fn(&mut O, &Work) -> Result<()> + Send + 'static) -> Self {
        Self::waiting(name, move |o, w| does(o, w).map(|()| Flow::Done))
    }

    /// A step that may have to wait.
    pub fn waiting(name: &'static str, does: impl Fn(&mut O, &Work) -> Result<Flow> + Send + 'static) -> Self {
        Self {
            name,
            does: Box::new(does),
            undoes: None,
            when: Box::new(|_| true),
            onward: false,
            tolerant: false,
            forgiven: false,
        }
    }

    /// How it is taken back, whatever of it was done: after a failure, on a cancel, and by the next vzd.
    pub fn undo(mut self, undoes: impl Fn(&mut O, &Work) -> Result<()> + Send + 'static) -> Self {
        self.undoes = Some(Box::new(undoes));
        self
    }

    /// What belongs to it once it is done.
    pub fn then(mut self, then: impl Fn(&mut O, &Work) -> Result<()> + Send + 'static) -> Self {
        let does = self.does;
        self.does = Box::new(move |o, w| match does(o, w)? {
            Flow::Done => then(o, w).map(|()| Flow::Done),
            wait => Ok(wait),
        });
        self
    }

    /// It is only part of the operation where this holds.
    pub fn when(mut self, when: impl Fn(&O) -> bool + Send + 'static) -> Self {
        self.when = Box::new(when);
        self
    }

    /// It is only part of the operation where this holds as well.
    pub fn also_when(mut self, also: impl Fn(&O) -> bool + Send + 'static) -> Self {
        let when = self.when;
        self.when = Box::new(move |o| when(o) && also(o));
        self
    }

    /// From here on the operation only goes forward: it can no longer be cancelled, and one that was cut short here is
    /// finished from this step on.
    pub fn onward(mut self) -> Self {
        self.onward = true;
        self
    }

    /// Its failure is kept and told at the end, and the next step goes on: the temper of taking down. The operation stays
    /// open for what is left.
    pub fn tolerant(mut self) -> Self {
        self.tolerant = true;
        self
    }

    /// The same, and what is left is a state of its own that others know how to leave: nothing stays open for it.
    pub fn forgiven(mut self) -> Self {
        (self.tolerant, self.forgiven) = (true, true);
        self
    }

    /// The same step of an operation that has this one's subject as a part of it.
    pub fn part_of<P: 'static>(self, part: fn(&mut P) -> &mut O, seen: fn(&P) -> &O) -> Step<P> {
        let Self { name, does, undoes, when, onward, tolerant, forgiven } = self;
        Step {
            name,
            does: Box::new(move |p, w| does(part(p), w)),
            undoes: undoes.map(|undoes| -> Undoes<P> { Box::new(move |p, w| undoes(part(p), w)) }),
            when: Box::new(move |p| when(seen(p))),
            onward,
            tolerant,
            forgiven,
        }
    }
}

/// How an operation that was cut short goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Everything up to this step is taken back.
    Back,
    /// It goes on with this step.
    Forward,
    /// Everything from this step on is taken back, and then done again.
    Again(&'static str),
    /// It goes on with the step of this name.
    At(&'static str),
}

/// An operation. One file has all of one: what it needs to know, its steps, and how it goes on after a crash. To add
/// one: a file with an `impl` of this, a kind in `vz_types::op`, a row in `rows` of `ops/mod.rs`.
pub trait Operation: Send + Sized + 'static {
    /// What kind of operation it is.
    const KIND: OpKind;
    /// What recovery must know beyond what is on disk; kept with the operation, with its version.
    type Note: Serialize + DeserializeOwned;

    /// Its steps, in order. The first one begins it ([`Work::begin`]); [`Work::finish`] in the last one that counts makes
    /// it the new state.
    fn steps() -> Vec<Step<Self>>;

    /// The same operation after a crash.
    ///
    /// # Errors
    /// Something it needs cannot be read: then nothing is done, and that is told.
    fn resume(work: &Work, note: Self::Note) -> Result<Self>;

    /// How it goes on after a crash in or after this step; `onward`: as the step declares.
    fn how(&mut self, _work: &Work, _step: &str, onward: bool) -> Result<Resume> {
        Ok(if onward { Resume::Forward } else { Resume::Back })
    }

    /// What of it stays although the rest was taken back, as a sentence.
    fn stays(&self) -> Option<&'static str> {
        None
    }

    /// It was taken back: what is to be written in the transaction that says so. Answers the container's state, where
    /// that is not simply what is found.
    ///
    /// # Errors
    /// The inventory's.
    fn taken_back(&self, _work: &Work, _change: &Change<'_>) -> inventory::Result<Option<CtState>> {
        Ok(None)
    }
}
