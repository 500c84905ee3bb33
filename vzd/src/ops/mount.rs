//! `mount` and `umount`: a stopped container's files, shown on the host for the operator.

use super::{
    Work,
    machine::{Machine, Run},
    step::{Operation, Step},
    work::End,
};
use crate::{
    ct::settle,
    error::{Error, Result},
    inventory::CtRow,
    storage::spare,
};
use vz_types::{CtState, Ctid, Fact, OpKind};

/// Files that are to be shown.
#[derive(Debug)]
pub struct Mount {
    row: CtRow,
}

impl Mount {
    /// After every check that changes nothing.
    ///
    /// # Errors
    /// There is no such container, no private area, or no vzmon.
    pub fn prepare(w: &Work, ctid: Ctid) -> Result<Box<dyn Run>> {
        let row = w.m.row(ctid)?;
        settle::private_area(&w.m, &row)?;
        w.m.hands.monitor.program()?;
        Ok(Machine::fresh(Self { row }))
    }
}

impl Operation for Mount {
    const KIND: OpKind = OpKind::Mount;
    type Note = serde_json::Value;

    fn steps() -> Vec<Step<Self>> {
        vec![
            Step::new("journal", |_, w| w.begin(&serde_json::json!({}), None, false, |_| Ok(()))),
            Step::new("mount", |m: &mut Self, w| {
                let plan = w.m.mount_plan(&m.row);
                let storage = &plan.storage;
                spare::make(&w.m.paths, &storage.root).map_err(Error::io("making", &storage.root))?;
                // It is shown all the same: it may be what somebody wants to look at for that.
                if let Err(e) = w.m.hands.storage.check(storage) {
                    tracing::warn!(ctid = m.row.ctid.get(), "it is mounted without being in order: {e}");
                }
                Ok(w.m.hands.monitor.mount(&plan)?)
            })
            .undo(|m, w| settle::hide(&w.m, &w.m.storage_plan(&m.row))),
            Step::new("commit", |_, w| {
                w.tell(Fact::Mounted);
                w.finish(End { state: Some(CtState::Mounted), ..End::default() }, |_| Ok(()))
            }),
        ]
    }

    fn resume(w: &Work, _: serde_json::Value) -> Result<Self> {
        Ok(Self { row: w.m.row(w.ctid()?)? })
    }
}

/// Files that are to be hidden again.
#[derive(Debug)]
pub struct Umount {
    row: CtRow,
}

impl Umount {
    /// After every check that changes nothing.
    ///
    /// # Errors
    /// There is no such container.
    pub fn prepare(w: &Work, ctid: Ctid) -> Result<Box<dyn Run>> {
        Ok(Machine::fresh(Self { row: w.m.row(ctid)? }))
    }
}

impl Operation for Umount {
    const KIND: OpKind = OpKind::Umount;
    type Note = serde_json::Value;

    fn steps() -> Vec<Step<Self>> {
        vec![
            Step::new("journal", |_, w| w.begin(&serde_json::json!({}), None, false, |_| Ok(()))),
            Step::new("umount", |u: &mut Self, w| settle::hide(&w.m, &w.m.storage_plan(&u.row))),
            Step::new("commit", |_, w| {
                w.tell(Fact::Unmounted);
                w.finish(End { state: Some(CtState::Stopped), ..End::default() }, |_| Ok(()))
            }),
        ]
    }

    fn resume(w: &Work, _: serde_json::Value) -> Result<Self> {
        Ok(Self { row: w.m.row(w.ctid()?)? })
    }

    fn how(&mut self, _: &Work, step: &str, _: bool) -> Result<super::step::Resume> {
        // Hidden it shall be, unless nothing of that has happened yet.
        Ok(match step {
            "journal" => super::step::Resume::Back,
            _ => super::step::Resume::Forward,
        })
    }
}
