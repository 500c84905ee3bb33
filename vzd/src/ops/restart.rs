//! `restart`: one operation of two halves. Killed between them, or in either, it still ends with the container up.

use super::{
    Work,
    down::{self, Down, How},
    machine::{Machine, Run},
    step::{Operation, Resume, Step},
    up::{self, Up},
};
use crate::{ct::StopSpec, error::Result, inventory::NewEvent, manager::now};
use serde::{Deserialize, Serialize};
use vz_types::{CtState, Ctid, Fact, OpKind};

/// What recovery must know of it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Note {
    how: How,
    /// Of the second half, once it has begun.
    up: Option<up::Note>,
    /// It ran when it was asked for.
    ran: bool,
    /// Nobody waits for it who would repeat it.
    insists: bool,
}

/// A container that is to be down and then up.
#[derive(Debug)]
pub struct Restart {
    down: Down,
    up: Option<Up>,
    ran: bool,
    insists: bool,
}

impl Restart {
    /// After every check that changes nothing: it is not stopped when it could not be started again. `insists`: cut short
    /// before it has done anything, it is gone on with.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn prepare(w: &Work, ctid: Ctid, fast: bool, insists: bool) -> Result<Box<dyn Run>> {
        let ran = matches!(w.m.seen(ctid)?.state, CtState::Running | CtState::Unknown);
        let down = down::begun(w, ctid, StopSpec { fast, timeout: None })?;
        let mut restart = Self { down, up: None, ran, insists };
        if !ran {
            restart.up = Some(Up::prepare(w, ctid)?);
        }
        Ok(Machine::fresh(restart))
    }

    fn note(&self) -> Note {
        Note { how: self.down.how, up: self.up.as_ref().map(|u| u.note), ran: self.ran, insists: self.insists }
    }

    /// The part that is always there by the time its steps are reached.
    fn up(&mut self, w: &Work) -> Result<&mut Up> {
        if self.up.is_none() {
            self.up = Some(Up::prepare(w, w.ctid()?)?);
        }
        self.up.as_mut().ok_or_else(|| unreachable!("it was just made"))
    }
}

/// The first step of the second half.
const TURN: &str = "turn";

impl Operation for Restart {
    const KIND: OpKind = OpKind::Restart;
    type Note = Note;

    fn steps() -> Vec<Step<Self>> {
        let mut steps = vec![Step::new("journal", |r: &mut Self, w| {
            let state = if r.ran { CtState::Stopping } else { CtState::Starting };
            w.begin(&r.note(), Some(state), false, |_| Ok(()))
        })];
        let parts = [down::signal()].into_iter().chain(down::after());
        steps.extend(parts.map(|s| s.part_of(|r: &mut Self| &mut r.down, |r| &r.down).also_when(|r: &Self| r.ran)));
        steps.push(Step::new(TURN, |r: &mut Self, w| {
            if r.ran {
                w.tell(Fact::Stopped);
                if r.down.is_lost() {
                    w.tell(Fact::MonitorLost);
                }
                let (kind, text) = r.down.ended();
                let ctid = r.down.row.ctid;
                // Owed where it cannot be written: then the second half fails at its own note, and takes nothing back.
                let by = (w.handle.id, w.handle.asker.clone());
                w.write_anyway("noting how a run ended", move |c| {
                    c.last_exit(ctid, &text)?;
                    c.state(ctid, CtState::Starting, None)?;
                    let by = Some((by.0, by.1.as_str()));
                    c.event(&NewEvent { ctid, at: now(), kind, counter: None, count: 1, text: &text, by }).map(drop)
                })?;
                w.m.cell(ctid).set(CtState::Starting, None);
            }
            r.up(w)?;
            w.note(&r.note())
        }));
        steps.extend(up::steps().into_iter().map(|s| {
            let Step { name, does, undoes, .. } = s;
            let step = Step::waiting(name, move |r: &mut Self, w| {
                let flow = does(r.up(w)?, w)?;
                if name == up::LAUNCHED {
                    w.note(&r.note())?;
                }
                Ok(flow)
            });
            match undoes {
                Some(undoes) => step.undo(move |r, w| match &mut r.up {
                    Some(up) => undoes(up, w),
                    None => Ok(()),
                }),
                None => step,
            }
        }));
        steps.push(Step::new("commit", |r: &mut Self, w| up::commit(r.up(w)?, w)));
        steps
    }

    fn resume(w: &Work, note: Note) -> Result<Self> {
        let up = note.up.map(|up| Up::resumed(&w.m, w.ctid()?, up)).transpose()?;
        Ok(Self { down: down::resumed(w, note.how)?, up, ran: note.ran, insists: note.insists })
    }

    fn how(&mut self, w: &Work, step: &str, onward: bool) -> Result<Resume> {
        if self.ran && step == "journal" {
            return Ok(if self.insists { Resume::Forward } else { down::not_asked_yet(&self.down) });
        }
        let up = match &mut self.up {
            Some(up) => up.is_up(&w.m, step)?,
            None => false,
        };
        Ok(match (onward, up) {
            (true, _) => down::how(step),
            (false, true) => Resume::At("disks"),
            (false, false) => Resume::Again(TURN),
        })
    }
}
