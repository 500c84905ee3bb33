//! `clear`: clears away after an end nobody asked for. It only goes forward.

use super::{
    Work,
    down::{self, Down, How},
    machine::{Machine, Run},
    step::{Operation, Resume, Step},
    work::End,
};
use crate::{ct::settle, error::Result};
use vz_types::{CtState, Ctid, OpKind};

/// A container that has ended by itself.
#[derive(Debug)]
pub struct Clear {
    down: Option<Down>,
    /// It has ended and is not in the inventory.
    stranger: Option<Ctid>,
}

impl Clear {
    /// What there is to clear away, if there is something.
    ///
    /// # Errors
    /// The inventory cannot be read.
    pub fn prepare(w: &Work, ctid: Ctid) -> Result<Box<dyn Run>> {
        let cell = w.m.cell(ctid);
        let live = cell.live();
        let ended = match &live {
            Some(live) => live.ended(),
            // It ended before anybody could look at its record.
            None => cell.state().0 == CtState::Running && matches!(settle::runs(&w.m, ctid), settle::Runs::No),
        };
        let unknown = cell.state().0 == CtState::Unknown;
        let (down, stranger) = match w.m.inventory.container(ctid)? {
            None if unknown && matches!(settle::runs(&w.m, ctid), settle::Runs::No) => (None, Some(ctid)),
            // An operation has cleared away already, or has brought it up again.
            Some(row) if ended => (Some(Down::new(row, live, How::default())), None),
            _ => (None, None),
        };
        Ok(Machine::fresh(Self { down, stranger }))
    }

    /// Whatever is left of a container that is known not to run.
    ///
    /// # Errors
    /// There is no such container.
    pub fn remains(w: &Work, ctid: Ctid) -> Result<Box<dyn Run>> {
        let row = w.m.row(ctid)?;
        Ok(Machine::fresh(Self { down: Some(Down::new(row, None, How::default())), stranger: None }))
    }

    fn part(step: Step<Down>) -> Step<Self> {
        let Step { name, does, tolerant, forgiven, .. } = step;
        let mut step = Step::waiting(name, move |c: &mut Self, w| match &mut c.down {
            Some(down) => does(down, w),
            None => Ok(super::step::Flow::Done),
        })
        .onward();
        (step.tolerant, step.forgiven) = (tolerant, forgiven);
        step
    }
}

impl Operation for Clear {
    const KIND: OpKind = OpKind::Clear;
    type Note = ();

    fn steps() -> Vec<Step<Self>> {
        let mut steps: Vec<Step<Self>> = down::after().into_iter().map(Self::part).collect();
        steps.push(
            Step::new("commit", |c: &mut Self, w| {
                if let Some(ctid) = c.stranger {
                    super::recover::clear_stranger(&w.m, ctid);
                }
                let Some(down) = &c.down else { return Ok(()) };
                let ctid = down.row.ctid;
                let (kind, text) = down.ended();
                let ran = down.ran();
                if ran {
                    tracing::info!(ctid = ctid.get(), event = "ended", "{text}");
                }
                let end = End { durable: false, state: Some(down.state(w)), event: ran.then(|| (kind, text.clone())) };
                w.finish_anyway(end, ran.then_some(text))
            })
            .onward(),
        );
        steps
    }

    fn resume(w: &Work, (): ()) -> Result<Self> {
        let row = w.m.row(w.ctid()?)?;
        Ok(Self { down: Some(Down::new(row, None, How::default())), stranger: None })
    }

    fn how(&mut self, _: &Work, step: &str, _: bool) -> Result<Resume> {
        Ok(down::how(step))
    }
}
