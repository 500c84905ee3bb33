//! What has happened and could not be written down: a container that was taken down stays down whether or not the disk
//! has room for saying so. It is kept in memory, and goes in front of the next thing that can be written, in the same
//! transaction; so nothing that is written later is ever overwritten by it. A vzd that ends before that leaves the next
//! one to find the same from the facts.

use super::{Change, Error, Inventory, Result, Share};
use rusqlite::{Connection, ErrorCode};
use std::sync::{MutexGuard, PoisonError};

/// One thing that is to be written yet. It may be tried more than once.
pub type Debt = Box<dyn Fn(&Change<'_>) -> Result<()> + Send>;

impl Error {
    /// Nothing can be written at the moment (a full disk, a file that may not be changed), whatever it is; as opposed to
    /// this one thing being refused.
    pub fn is_unwritable(&self) -> bool {
        use ErrorCode::{
            CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, FileLockingProtocolFailed, OutOfMemory,
            PermissionDenied, ReadOnly, SystemIoFailure,
        };
        let Self::Sqlite { source: rusqlite::Error::SqliteFailure(e, _), .. } = self else { return false };
        matches!(
            e.code,
            CannotOpen
                | DatabaseBusy
                | DatabaseLocked
                | DiskFull
                | FileLockingProtocolFailed
                | OutOfMemory
                | PermissionDenied
                | ReadOnly
                | SystemIoFailure
        )
    }
}

impl Inventory {
    pub(super) fn owed(&self) -> MutexGuard<'_, Vec<Debt>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be written before anything else is.
    pub fn owe(&self, debt: Debt) {
        self.owed().push(debt);
    }

    /// Writes what could not be written before, if there is something.
    ///
    /// # Errors
    /// It still cannot be.
    pub fn pay(&self) -> Result<()> {
        let nothing = self.owed().is_empty();
        if nothing {
            Ok(())
        } else {
            self.change_from(Share::Reserve, "writing down what has happened", true, |_| Ok(()))
        }
    }

    /// SQLite opens a file that may not be changed for reading, and stays so. Once it may be, it is opened anew.
    pub(super) fn reopen_if_it_was_locked(&self, db: &mut Connection) {
        use rusqlite::MAIN_DB;
        let writable = || rustix::fs::access(&self.path, rustix::fs::Access::WRITE_OK).is_ok();
        if matches!(db.is_readonly(MAIN_DB), Ok(true)) && writable() {
            match Self::connect(&self.path) {
                Ok(anew) => {
                    *db = anew;
                    self.reserve_anew();
                    self.full.store(true, std::sync::atomic::Ordering::Release);
                }
                Err(e) => tracing::warn!("{e}"),
            }
        }
    }
}

/// What is owed, in front of something else. One that the rules refuse by now is dropped: it would be in the way of
/// everything.
pub(super) fn pay(owed: &[Debt], change: &Change<'_>) -> Result<()> {
    for debt in owed {
        match debt(change) {
            Err(e) if e.is_unwritable() => return Err(e),
            Err(e) => tracing::warn!("something that has happened is not written down: {e}"),
            Ok(()) => {}
        }
    }
    Ok(())
}
