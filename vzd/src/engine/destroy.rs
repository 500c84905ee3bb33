//! `destroy`: from its journal row on it only goes forward, so that a kill at any point ends with the
//! container gone. The configuration stays as `.destroyed`.

use super::{Engine, Outcome, Result, create::joined, run::Steps};
use crate::storage;
use std::{fs, path::Path};
use vz_types::{Ctid, state::Op};

impl Engine {
    /// Removes a container.
    pub fn destroy(&self, ctid: Ctid) -> Result<Outcome> {
        let _guard = self.take(ctid, Op::Destroy)?;
        let row = self.row(ctid)?;
        self.decide(Op::Destroy, &row, false, false)?;
        let mut steps = Steps::new(self, Op::Destroy, ctid);
        steps.run("journal", || Ok(self.inventory.journal_open(Op::Destroy, ctid, "{}", true)?))?;
        steps.journalled();
        self.finish_destroy(&mut steps, ctid)?;
        let private = self.paths.private(ctid);
        Ok(steps.outcome(vec![
            format!("Destroying container private area: {}", private.display()),
            "Container private area was destroyed".into(),
        ]))
    }

    /// Everything after the journal row: also how recovery finishes an interrupted one.
    pub(crate) fn finish_destroy(&self, steps: &mut Steps<'_>, ctid: Ctid) -> Result<()> {
        let private = self.paths.private(ctid);
        let addresses: Vec<_> = self.inventory.addresses(ctid)?.into_iter().map(|(ip, _)| ip).collect();
        let trash = std::thread::scope(|scope| {
            let filter = scope.spawn(|| self.network.deny(ctid, &addresses));
            steps.run("conf", || Ok(self.conf.retire(ctid)?))?;
            let trash = steps.run("trash", || {
                let _ = fs::remove_dir(self.paths.root(ctid));
                Ok(storage::move_to_trash(&private, &self.paths.trash_dir(), ctid)?)
            })?;
            steps.attempt("filter", || Ok(joined(filter)?));
            Result::Ok(trash)
        })?;
        steps.run("commit", || Ok(self.inventory.forget(ctid, false)?))?;
        self.accounts.forget(ctid);
        // The container is gone already; what cannot be deleted now is swept at the next start.
        steps.attempt("delete", || trash.map_or(Ok(()), |trash| self.delete(&trash)));
        Ok(())
    }

    /// Removes a private area from the trash. Giving an image's blocks back takes the kernel longer than all the
    /// rest, and happens when its last descriptor is closed: by a thread nobody waits for, or by the end of vzd.
    fn delete(&self, trash: &Path) -> Result<()> {
        let image = fs::File::open(trash.join("disk.img")).ok();
        storage::remove_tree(trash)?;
        self.runtime.spawn_blocking(move || drop(image));
        Ok(())
    }
}
