//! `stop`: ends a container. Once its monitor was asked it only goes forward.

use super::{
    Work,
    down::{self, Down, How},
    machine::{Machine, Run},
    step::{Operation, Resume, Step},
    work::End,
};
use crate::{ct::StopSpec, error::Result};
use vz_types::{CtState, Ctid, Fact, OpKind};

/// A container that is to end.
#[derive(Debug)]
pub struct Stop {
    down: Down,
}

impl Stop {
    /// After every check that changes nothing.
    ///
    /// # Errors
    /// There is no such container.
    pub fn prepare(w: &Work, ctid: Ctid, spec: StopSpec) -> Result<Box<dyn Run>> {
        Ok(Machine::fresh(Self { down: down::begun(w, ctid, spec)? }))
    }
}

impl Operation for Stop {
    const KIND: OpKind = OpKind::Stop;
    type Note = How;

    fn steps() -> Vec<Step<Self>> {
        let mut steps = vec![Step::new("journal", |s: &mut Self, w| w.begin_anyway(&s.down.how, CtState::Stopping))];
        let parts = [down::signal()].into_iter().chain(down::after());
        steps.extend(parts.map(|s| s.part_of(|s: &mut Self| &mut s.down, |s| &s.down)));
        steps.push(Step::new("commit", |s: &mut Self, w| commit(&s.down, w)).onward());
        steps
    }

    fn resume(w: &Work, how: How) -> Result<Self> {
        Ok(Self { down: down::resumed(w, how)? })
    }

    fn how(&mut self, _: &Work, step: &str, onward: bool) -> Result<Resume> {
        Ok(if onward || step != "journal" { down::how(step) } else { down::not_asked_yet(&self.down) })
    }
}

fn commit(down: &Down, w: &Work) -> Result<()> {
    let (kind, text) = down.ended();
    let ran = down.ran();
    w.tell(Fact::Stopped);
    if down.is_lost() {
        w.tell(Fact::MonitorLost);
    }
    let end = End { durable: false, state: Some(down.state(w)), event: ran.then(|| (kind, text.clone())) };
    w.finish_anyway(end, ran.then_some(text))
}
