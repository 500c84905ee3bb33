//! Room in the inventory that only what makes room may use. On a full disk containers are to be stopped, unmounted and
//! destroyed all the same, and each of these is written down before it begins. Whatever lies on the same filesystem takes
//! every block that is freed, so that room is not given back and taken again: it is allocated in the inventory's own files
//! all the time.
//!
//! - The log (`inventory.db-wal`) has [`LOG`] bytes allocated beyond its end. SQLite writes it from the start again after each
//!   checkpoint, which comes after 1000 pages (`wal_autocheckpoint`), and never truncates it while it is open.
//! - The database has [`LOW`] free pages within itself. A checkpoint truncates the file behind its last page, so blocks
//!   beyond that would not stay; free pages do, and are used before the file grows
//!   (<https://sqlite.org/fileformat2.html#the_freelist>).
//!
//! - The index of the log (`inventory.db-shm`) has blocks for all it may come to.
//!
//! Filesystems that write nothing in place (btrfs, ZFS) or allocate nothing ahead (NFS before 4.2) promise less than this.

use super::{Change, Error, Inventory, Result, sqlite};
use rusqlite::{Connection, ErrorCode, ffi};
use rustix::{
    fs::{FallocateFlags, fallocate, fstat, fstatvfs, statvfs},
    io::Errno,
};
use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Who may use the reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Not this: it is refused, as on a full disk, once less than the reserve is left.
    Common,
    /// This may: it makes room, or ends what has begun already.
    Reserve,
}

/// Bytes allocated for the log: the pages after which it is written from its start again, and one large transaction.
const LOG: u64 = 6 << 20;
/// What its name ends with.
const LOG_NAME: &str = "-wal";
/// Bytes allocated for the index: 32 KiB for each 4096 pages in the log (<https://sqlite.org/walformat.html>).
const INDEX: u64 = 64 << 10;
/// Free pages in the database that are kept for what makes room: a stop takes about two, and a destroy gives some back.
const LOW: u64 = 128;
/// Free pages that are made at a time.
const MORE: u64 = 64;
/// Bytes of a page, as SQLite makes them where nothing else is said.
const PAGE: u64 = 4096;

/// The files the reserve is in. A descriptor of the database is never closed while SQLite has it open: by POSIX that would
/// end SQLite's own locks (<https://sqlite.org/howtocorrupt.html>, 2.2).
#[derive(Debug)]
pub(super) struct Reserve {
    db: File,
    log: File,
    /// Kept open for the same reason. `None`: nobody else may have it open, and it is in memory.
    _index: Option<File>,
    path: PathBuf,
}

impl Reserve {
    /// Of the inventory at `path`, whose log is there already. `None`: it may not be written to.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let db = OpenOptions::new().read(true).write(true).open(path).ok()?;
        let index = beside(path, "-shm").ok();
        if let Some(Err(e)) = index.as_ref().map(|f| fallocate(f, FallocateFlags::KEEP_SIZE, 0, INDEX)) {
            tracing::debug!("the inventory's index has no reserve: {e}");
        }
        Some(Self { db, log: beside(path, LOG_NAME).ok()?, _index: index, path: path.to_owned() })
    }

    /// Whether all of it is there; takes back what is missing of it where there is space again.
    fn is_whole(&mut self, change: &Change<'_>) -> Result<bool> {
        let log = self.log_is_whole().or_else(forgive);
        Ok(matches!(log, Ok(true)) && self.pages_are_free(change)?)
    }

    fn log_is_whole(&mut self) -> rustix::io::Result<bool> {
        let mut at = fstat(&self.log)?;
        if at.st_nlink == 0 {
            // Whoever else had it open last removed it: SQLite has made another.
            self.log = beside(&self.path, LOG_NAME).map_err(|_| Errno::NOENT)?;
            at = fstat(&self.log)?;
        }
        let has = u64::try_from(at.st_blocks).unwrap_or(0) * 512;
        if has >= LOG {
            return Ok(true);
        }
        if !has_space(&self.log, LOG - has)? {
            return Ok(false);
        }
        fallocate(&self.log, FallocateFlags::KEEP_SIZE, 0, LOG).map(|()| true)
    }

    fn pages_are_free(&self, change: &Change<'_>) -> Result<bool> {
        let free = change.number("PRAGMA freelist_count")?;
        if free >= LOW + MORE / 2 {
            return Ok(true);
        }
        let more = LOW + MORE - free;
        let grown = self.grow(change.number("PRAGMA page_count")?, more);
        match grown.or_else(forgive) {
            // The pages of a table that is dropped are free.
            Ok(true) => change.batch(&format!(
                "CREATE TABLE reserve(room BLOB); INSERT INTO reserve VALUES(zeroblob({})); DROP TABLE reserve",
                // A page holds somewhat less than its size, and its table has one of its own.
                more * (PAGE - 4)
            ))?,
            _ => return Ok(free >= LOW),
        }
        Ok(true)
    }

    /// Allocates the blocks of pages that are to be behind the last one.
    fn grow(&self, pages: u64, more: u64) -> rustix::io::Result<bool> {
        let wanted = (pages + more + 4) * PAGE;
        let has = u64::try_from(fstat(&self.db)?.st_size).unwrap_or(0);
        if !has_space(&self.db, wanted.saturating_sub(has))? {
            return Ok(false);
        }
        let from = has.min(pages * PAGE);
        fallocate(&self.db, FallocateFlags::empty(), from, wanted - from).map(|()| true)
    }
}

/// One of the files that SQLite keeps beside the database.
fn beside(path: &Path, suffix: &str) -> std::io::Result<File> {
    let mut name = OsString::from(path);
    name.push(suffix);
    OpenOptions::new().read(true).write(true).open(PathBuf::from(name))
}

/// Asked first, because a filesystem without space looks long for some.
fn has_space(file: &File, bytes: u64) -> rustix::io::Result<bool> {
    let fs = fstatvfs(file)?;
    Ok(fs.f_bfree.saturating_mul(fs.f_frsize) > bytes)
}

/// A full disk is one; whatever else keeps a reserve from being made keeps nobody from writing.
fn forgive(e: Errno) -> rustix::io::Result<bool> {
    match e {
        Errno::NOSPC | Errno::DQUOT => Ok(false),
        e => {
            tracing::debug!("the inventory has no reserve: {e}");
            Ok(true)
        }
    }
}

impl Inventory {
    /// Looks after the reserve at the beginning of a transaction.
    ///
    /// # Errors
    /// The disk is full, and this may not use what is left.
    pub(super) fn keep_reserve(&self, share: Share, change: &Change<'_>, what: &'static str) -> Result<()> {
        let mut reserve = self.reserve.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(reserve) = &mut *reserve else { return Ok(()) };
        match (reserve.is_whole(change), share) {
            (Ok(false), Share::Common) => {
                let full = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_FULL), Some(FULL.into()));
                Err(sqlite(what)(full))
            }
            (done, _) => done.map(drop),
        }
    }

    /// It was opened anew.
    pub(super) fn reserve_anew(&self) {
        *self.reserve.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Reserve::of(&self.path);
    }
}

impl Inventory {
    /// The last that is done with it. All of the log goes into the database, so that this is whole by itself; the log stays as
    /// it is with its room, and is made to say nothing, whatever is put in the database's place meanwhile.
    ///
    /// # Errors
    /// Somebody else is at work on it, or the disk's: then the log says what it said.
    pub fn leave(&self) -> Result<()> {
        let what = "leaving it";
        let mut db = self.db();
        let reserve = self.reserve.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(Reserve { log, .. }) = &*reserve else { return Ok(()) };
        let header = || {
            let mut header = [0; HEADER];
            log.read_exact_at(&mut header, 0).map(|()| header).ok()
        };
        let before = header();
        let busy: i64 = db.query_row("PRAGMA wal_checkpoint(RESTART)", [], |r| r.get(0)).map_err(sqlite(what))?;
        let change = Change::begin(&db, what)?;
        // Whoever has written since then has begun the log anew.
        if busy == 0 && before.is_some() && header() == before {
            log.write_all_at(&[0; HEADER], 0).map_err(|source| Error::Unsynced { path: self.path.clone(), source })?;
        }
        drop(change);
        let nothing = Connection::open_in_memory().map_err(sqlite(what))?;
        // Who closes a log last removes it.
        std::mem::forget(std::mem::replace(&mut *db, nothing));
        Ok(())
    }
}

/// Bytes of a log that say that it is one (<https://sqlite.org/fileformat2.html#the_write_ahead_log>).
const HEADER: usize = 32;

/// Whether there is room for an index of the log in a file (`inventory.db-shm`). SQLite maps it, and a page for which the disk
/// has no block ends the process with SIGBUS. Each who opens it first makes it anew.
pub(super) fn has_room_to_share(path: &Path) -> bool {
    let dir = path.parent().unwrap_or(Path::new("/"));
    // One that does not exist yet is made, or told, by who opens the file.
    statvfs(dir).map_or(true, |fs| fs.f_bavail.saturating_mul(fs.f_frsize) >= SHARED)
}

/// Bytes that are to be free for that, most of them because others take them at the same moment.
const SHARED: u64 = 4 << 20;

const FULL: &str = "database or disk is full";

/// Whether SQLite says so.
pub(super) fn is_full(e: &rusqlite::Error) -> bool {
    e.sqlite_error_code() == Some(ErrorCode::DiskFull)
}
