//! `start`: runs a container. Once its monitor has the word to go it runs with or without us, so an interrupted start
//! either finds it running or is taken back.

use super::{
    Work,
    machine::{Machine, Run},
    step::{Operation, Resume, Step},
    up::{self, Up},
};
use crate::error::Result;
use vz_types::{CtState, Ctid, OpKind};

/// A container that is to run.
#[derive(Debug)]
pub struct Start {
    up: Up,
}

impl Start {
    /// After every check that changes nothing.
    ///
    /// # Errors
    /// Why it cannot be started.
    pub fn prepare(w: &Work, ctid: Ctid) -> Result<Box<dyn Run>> {
        Ok(Machine::fresh(Self { up: Up::prepare(w, ctid)? }))
    }
}

impl Operation for Start {
    const KIND: OpKind = OpKind::Start;
    type Note = up::Note;

    fn steps() -> Vec<Step<Self>> {
        let mut steps = vec![Step::new("journal", |s: &mut Self, w| {
            w.begin(&s.up.note, Some(CtState::Starting), false, |_| Ok(()))
        })];
        steps.extend(up::steps().into_iter().map(|s| {
            let step = s.part_of(|s: &mut Self| &mut s.up, |s| &s.up);
            match step.name {
                up::LAUNCHED => step.then(|s, w| w.note(&s.up.note)),
                _ => step,
            }
        }));
        steps.push(Step::new("commit", |s: &mut Self, w| up::commit(&mut s.up, w)));
        steps
    }

    fn resume(w: &Work, note: up::Note) -> Result<Self> {
        Ok(Self { up: Up::resumed(&w.m, w.ctid()?, note)? })
    }

    fn how(&mut self, w: &Work, step: &str, _: bool) -> Result<Resume> {
        Ok(if self.up.is_up(&w.m, step)? { Resume::At("disks") } else { Resume::Back })
    }
}
