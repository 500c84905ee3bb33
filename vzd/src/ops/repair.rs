//! `repair`: puts back what others took away of a running container's link, by what the container has when it is its turn.
//! The network guard only looks, and posts this: nobody else changes the container meanwhile, so that no address comes
//! back that a `set` has just taken away. Nothing is written down, and nothing has to be taken back.

use super::{
    Work,
    machine::{Machine, Run},
    step::{Operation, Step},
};
use crate::{error::Result, network::Expected};
use vz_types::{CtAddr, Ctid, OpKind, plan::ControlRequest};

/// A container whose link lacks something.
#[derive(Debug)]
pub struct Repair {
    ctid: Ctid,
}

impl Repair {
    /// There is nothing to check: one that runs no more needs no link.
    ///
    /// # Errors
    /// None.
    pub fn prepare(_: &Work, ctid: Ctid) -> Result<Box<dyn Run>> {
        Ok(Machine::fresh(Self { ctid }))
    }

    fn link(&mut self, w: &Work) -> Result<()> {
        let cell = w.m.known(self.ctid);
        let live = cell.and_then(|cell| cell.live_now(&w.m.paths.ct_run(self.ctid)));
        let Some(expected) = live.map(|live| Expected::of(live.record)) else { return Ok(()) };
        let repaired = w.m.hands.network.repair(&expected)?;
        for said in repaired.said {
            tracing::warn!(ctid = self.ctid.get(), event = "repaired", "CT {}: {said}", self.ctid);
        }
        match repaired.relinked {
            true => inside(w, expected.addresses),
            false => Ok(()),
        }
    }
}

/// A new link has no addresses inside yet.
fn inside(w: &Work, addresses: Vec<CtAddr>) -> Result<()> {
    w.ask(&ControlRequest::SetAddresses { addresses })
}

impl Operation for Repair {
    const KIND: OpKind = OpKind::Repair;
    type Note = ();

    fn steps() -> Vec<Step<Self>> {
        vec![Step::new("link", Self::link).onward()]
    }

    /// It has never begun: a vzd that starts looks at everybody.
    fn resume(w: &Work, (): ()) -> Result<Self> {
        Ok(Self { ctid: w.ctid()? })
    }
}
