//! `mount` and `umount`: a stopped container's files, shown on the host for the operator.

use super::{Engine, Outcome, Result, run::Steps};
use vz_types::{Ctid, state::Op};

impl Engine {
    /// Shows a container's files at its root on the host.
    pub fn mount(&self, ctid: Ctid) -> Result<Outcome> {
        let _guard = self.take(ctid, Op::Mount)?;
        let row = self.row(ctid)?;
        self.decide(Op::Mount, &row, false, false)?;
        self.private_area(&row)?;
        let (monitor, plan) = (self.monitor()?, self.storage_plan(&row));
        let mut steps = Steps::new(self, Op::Mount, ctid);
        steps.run("journal", || Ok(self.inventory.journal_open(Op::Mount, ctid, "{}", false)?))?;
        steps.journalled();
        let done = steps.run("mount", || {
            self.make_root(&plan.root)?;
            Ok(monitor.task("mount", &plan, &self.paths)?)
        });
        if done.is_err() {
            self.undo_mount(ctid);
        }
        done?;
        steps.run("commit", || Ok(self.inventory.journal_close(ctid, false)?))?;
        Ok(steps.outcome(vec!["Container is mounted".into()]))
    }

    /// Hides them again.
    pub fn umount(&self, ctid: Ctid) -> Result<Outcome> {
        let _guard = self.take(ctid, Op::Umount)?;
        let row = self.row(ctid)?;
        self.decide(Op::Umount, &row, false, false)?;
        let plan = self.storage_plan(&row);
        let mut steps = Steps::new(self, Op::Umount, ctid);
        steps.run("journal", || Ok(self.inventory.journal_open(Op::Umount, ctid, "{}", false)?))?;
        steps.journalled();
        let done = steps.run("umount", || self.hide(&plan));
        steps.run("commit", || Ok(self.inventory.journal_close(ctid, false)?))?;
        done?;
        Ok(steps.outcome(vec!["Container is unmounted".into()]))
    }

    /// Takes back a mount that was interrupted or failed.
    pub(crate) fn undo_mount(&self, ctid: Ctid) {
        if let Ok(Some(row)) = self.inventory.container(ctid) {
            if let Err(e) = self.hide(&self.storage_plan(&row)) {
                tracing::warn!(ctid = ctid.get(), "undo of a mount: {}", e.report());
            }
        }
        if let Err(e) = self.inventory.journal_close(ctid, false) {
            tracing::warn!(ctid = ctid.get(), "undo of a mount: {e}");
        }
    }
}
