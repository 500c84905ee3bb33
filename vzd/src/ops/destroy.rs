//! `destroy`: from its first step on it only goes forward, so that a kill at any point ends with the container gone. Its
//! claims are given back when its files are gone, not before: what cannot be deleted is not forgotten. The configuration
//! stays as `.destroyed`.

use super::{
    Work,
    down::{Down, How},
    machine::{Machine, Run},
    step::{Operation, Resume, Step},
    work::End,
};
use crate::{
    error::{Error, Result},
    manager::{Manager, now_ms},
    pool::Aside,
    storage::StorageError,
};
use std::fs;
use vz_types::{CtAddr, CtState, Ctid, Fact, OpKind, Reason};

/// A container that is to be gone.
#[derive(Debug)]
pub struct Destroy {
    ctid: Ctid,
    /// Another operation has left something.
    troubled: bool,
    /// Under way beside the other steps: they have nothing to wait for in each other.
    filter: Option<Aside<Result<()>>>,
}

impl Destroy {
    /// After every check that changes nothing.
    ///
    /// # Errors
    /// There is no such container.
    pub fn prepare(w: &Work, ctid: Ctid) -> Result<Box<dyn Run>> {
        w.m.row(ctid)?;
        // In trouble it may run all the same.
        if w.m.cell(ctid).live().is_some_and(|l| !l.ended()) {
            return Err(Error::denied(Reason::Runs { kind: OpKind::Destroy }, ctid));
        }
        let troubled = w.m.cell(ctid).state().0 == CtState::Failed;
        Ok(Machine::fresh(Self { ctid, troubled, filter: None }))
    }

    /// What is left of an operation that could not be finished goes with the container.
    fn remains(&mut self, w: &Work) -> Result<()> {
        if !self.troubled {
            return Ok(());
        }
        let row = w.m.row(self.ctid)?;
        match Down::new(row, None, How::default()).clear(w) {
            problems if problems.is_empty() => Ok(()),
            problems => Err(Error::Teardown { ctid: self.ctid, problems }),
        }
    }

    fn trash(&mut self, w: &Work) -> Result<()> {
        let m = &w.m;
        let _ = fs::remove_dir(m.paths.root(self.ctid));
        let private = m.paths.private(self.ctid);
        match m.hands.storage.move_to_trash(&private, self.ctid) {
            // A name in the trash may take a block as well, which its image has. It is to go in any case.
            Err(e @ StorageError::Full { .. }) => {
                tracing::warn!(ctid = self.ctid.get(), "its image is deleted first: {e}");
                fs::remove_file(private.join("disk.img")).map_err(Error::io("deleting the image in", &private))?;
                m.hands.storage.remove_tree(&private)?;
            }
            done => drop(done?),
        }
        // What a create left that could not be taken back.
        m.hands.storage.remove_tree(&crate::ct::settle::staging(m, self.ctid))?;
        Ok(())
    }

    /// Giving an image's blocks back takes the kernel longer than all the rest, and happens when its last descriptor is
    /// closed: by a thread nobody waits for, or by the end of vzd.
    fn delete(&mut self, w: &Work) -> Result<()> {
        for trash in w.m.hands.storage.in_trash(self.ctid) {
            let image = vz_sys::records::open(&trash.join("disk.img")).ok();
            w.m.hands.storage.remove_tree(&trash)?;
            drop(w.m.aside(move || drop(image)));
        }
        Ok(())
    }
}

impl Operation for Destroy {
    const KIND: OpKind = OpKind::Destroy;
    type Note = serde_json::Value;

    fn steps() -> Vec<Step<Self>> {
        vec![
            Step::new("journal", |_, w| w.begin(&serde_json::json!({}), Some(CtState::Destroying), true, |_| Ok(())))
                .onward(),
            Step::new("remains", Self::remains).onward(),
            Step::new("conf", |d: &mut Self, w| {
                let (m, ctid) = (w.m.clone(), d.ctid);
                d.filter = Some(w.m.aside(move || deny(&m, ctid)));
                Ok(w.m.conf.retire(d.ctid)?)
            })
            .onward(),
            Step::new("trash", Self::trash).onward(),
            // Its addresses are anybody's when it is forgotten: until the filter has lost them it is not.
            Step::new("filter", |d: &mut Self, w| match d.filter.take().map(Aside::fetch) {
                Some(Ok(done)) => done,
                _ => deny(&w.m, d.ctid),
            })
            .onward(),
            Step::new("delete", Self::delete).onward(),
            Step::new("commit", |d: &mut Self, w| {
                let private = w.m.paths.private(d.ctid).display().to_string();
                w.tell(Fact::Destroyed { private });
                let end = End { durable: false, state: None, event: Some(("destroyed", "destroyed".into())) };
                w.finish(end, |c| {
                    c.end_operations(d.ctid, w.handle.id, now_ms())?;
                    c.forget(d.ctid)
                })?;
                w.m.forget(d.ctid);
                Ok(())
            })
            .onward(),
        ]
    }

    fn resume(w: &Work, _: serde_json::Value) -> Result<Self> {
        Ok(Self { ctid: w.ctid()?, troubled: true, filter: None })
    }

    fn how(&mut self, _: &Work, step: &str, _: bool) -> Result<Resume> {
        // The filter has its addresses again: a vzd that starts puts in what is claimed.
        Ok(match step {
            "delete" | "commit" => Resume::At("filter"),
            _ => Resume::Forward,
        })
    }
}

fn deny(m: &Manager, ctid: Ctid) -> Result<()> {
    let addresses: Vec<CtAddr> = m.inventory.addresses(ctid)?.into_iter().map(|(ip, _)| ip).collect();
    Ok(m.hands.network.deny(ctid, &addresses)?)
}
