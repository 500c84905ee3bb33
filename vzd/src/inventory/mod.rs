//! Which containers exist, where each is and what it has claimed; every operation there was; what happened: SQLite in
//! WAL mode at `/var/lib/vz/inventory.db`. Imports vz-types alone.
//!
//! | module | story |
//! |---|---|
//! | [`change`] | everything that is written, in transactions an operation puts together |
//! | [`operations`] | operations under way and ended: journal, audit log and history in one |
//! | [`parts`] | who else had a part in them |
//! | [`error`] | why it did not do as asked |
//! | [`events`] | what happened to containers |
//! | [`owed`] | what could not be written when it happened |
//! | [`reserve`] | room that only what makes room may use |
//! | [`accounts`] | counters over all runs |
//! | [`migrations`] | the schema |
//!
//! Durability: commits that decide something (a container exists, is being destroyed, has new claims)
//! are written with `synchronous=FULL`; everything else with `NORMAL`, which survives a kill and may lose
//! only its last commits at a power cut, when nothing runs any more anyway.

mod accounts;
mod change;
mod error;
mod events;
mod migrations;
mod operations;
mod owed;
mod parts;
mod reserve;

pub use accounts::{CounterRow, Minute};
pub use change::Change;
pub use error::Error;
pub use events::{EventRow, NewEvent};
pub use migrations::{STEPS, migrations};
pub use operations::{OperationRow, Wanted};
pub use owed::Debt;
pub use parts::Part;
pub use reserve::Share;

use rusqlite::{Connection, ErrorCode, OptionalExtension, Row};
use serde::{Deserialize, Serialize};
use std::{
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};
use vz_types::{CtAddr, CtName, CtState, Ctid, TemplateName, UidBase, config::Layout, state::Trouble};

/// One container as the inventory knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CtRow {
    /// Its number.
    pub ctid: Ctid,
    /// Stable for life: 32 hex digits with dashes.
    pub uuid: String,
    /// The name it has claimed.
    pub name: Option<CtName>,
    /// Its uid range.
    pub uid_base: UidBase,
    /// Its ranges besides that one, in the order of the ids inside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uid_more: Vec<UidBase>,
    /// The OS template it was made from.
    pub template: TemplateName,
    /// Which build of it.
    pub template_digest: String,
    /// How its files are stored.
    pub layout: Layout,
    /// Seconds since the epoch.
    pub created: u64,
    /// How the last run ended.
    pub last_exit: Option<String>,
    /// What failed last: operation, step, cause.
    pub last_failure: Option<String>,
}

impl CtRow {
    /// All its uid ranges, in the order of the ids inside.
    pub fn all_uids(&self) -> Vec<UidBase> {
        std::iter::once(self.uid_base).chain(self.uid_more.iter().copied()).collect()
    }
}

/// What a new container is to claim.
#[derive(Clone, Debug)]
pub struct NewCt {
    /// Its number.
    pub ctid: Ctid,
    /// Its uuid.
    pub uuid: String,
    /// Its name.
    pub name: Option<CtName>,
    /// Where to start looking for a uid range ([`vz_types::Paths::first_uid_slot`]).
    pub first_slot: u32,
    /// Ranges of containers that run and are not in the inventory.
    pub avoid: Vec<UidBase>,
    /// Its OS template.
    pub template: TemplateName,
    /// Which build of it.
    pub template_digest: String,
    /// Its layout.
    pub layout: Layout,
    /// Its addresses.
    pub addresses: Vec<CtAddr>,
}

/// The open inventory.
pub struct Inventory {
    db: Mutex<Connection>,
    /// How the connection writes now: `synchronous=FULL`, else `NORMAL`. Changed while the connection is locked.
    full: AtomicBool,
    path: PathBuf,
    /// Locked before the connection, where both are.
    owed: Mutex<Vec<Debt>>,
    /// Locked after the connection. `None`: the file may not be written to.
    reserve: Mutex<Option<reserve::Reserve>>,
    /// Asked before everything that is written whether the disk has room for it.
    #[cfg(test)]
    room: std::sync::OnceLock<Room>,
}

#[cfg(test)]
type Room = Box<dyn Fn(&str) -> bool + Send + Sync>;

impl std::fmt::Debug for Inventory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Inventory").field(&self.path).finish()
    }
}

/// What the inventory answers with.
pub type Result<T> = std::result::Result<T, Error>;

fn sqlite(what: &'static str) -> impl FnOnce(rusqlite::Error) -> Error {
    move |source| Error::Sqlite { what, source }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

impl Inventory {
    /// Opens or makes the inventory at `path` and brings it to this version.
    ///
    /// # Errors
    /// [`Error::Missing`] and [`Error::Empty`] when there is no file, or nothing in it, although `private` has private
    /// areas in it; [`Error::Damaged`], [`Error::Unopened`] and [`Error::Migration`] as they say.
    pub fn open(path: &Path, private: &Path) -> Result<Self> {
        if has_private_areas(private) {
            let (path, private) = (PathBuf::from(path), PathBuf::from(private));
            match std::fs::metadata(&path) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(Error::Missing { path, private }),
                // Before SQLite throws its log away.
                Ok(file) if file.len() == 0 => return Err(Error::Empty { path, private }),
                _ => {}
            }
            // A file without our tables: SQLite had made it one before something else went wrong.
            let db = Self::connect(&path)?;
            if version(&db).map_err(|e| unopened(&path, e))? == 0 {
                return Err(Error::Empty { path, private });
            }
            // Closed and opened again it would lose its log, and the room in it.
            return Self::of(db, &path);
        }
        Self::open_or_make(path)
    }

    /// A connection, with what holds for every one of ours. On a full disk there is no room for the index that it would
    /// share with others (`inventory.db-shm`): then it has one of its own, and the file to itself until vzd ends.
    fn connect(path: &Path) -> Result<Connection> {
        if reserve::has_room_to_share(path) {
            return Self::connect_as(path, "NORMAL");
        }
        tracing::warn!("the disk is full: the inventory is opened without an index to share");
        Self::connect_as(path, "EXCLUSIVE")
    }

    fn connect_as(path: &Path, locking: &str) -> Result<Connection> {
        let failed = |source| unopened(path, source);
        let mut db = Connection::open(path).map_err(failed)?;
        db.pragma_update_and_check(None, "locking_mode", locking, |_| Ok(())).map_err(failed)?;
        // The first statement is what finds out that the file is no database.
        db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).map_err(failed)?;
        Self::prepare(&mut db).map_err(failed)?;
        Ok(db)
    }

    /// As [`Inventory::open`], without asking whether there were containers: for rebuilding.
    pub fn open_or_make(path: &Path) -> Result<Self> {
        Self::of(Self::connect(path)?, path)
    }

    fn of(mut db: Connection, path: &Path) -> Result<Self> {
        let failed = |source| unopened(path, source);
        let verdict: String = db.query_row("PRAGMA quick_check(1)", [], |r| r.get(0)).map_err(failed)?;
        if verdict != "ok" {
            return Err(Error::Damaged { path: path.into(), source: rusqlite::Error::InvalidColumnName(verdict) });
        }
        let there = version(&db).map_err(failed)?;
        let known = u32::try_from(STEPS.len()).unwrap_or(u32::MAX);
        if there > known {
            return Err(Error::Newer { path: path.into(), there, known });
        }
        migrations().to_latest(&mut db).map_err(|source| Error::Migration { path: path.into(), source })?;
        if there < known {
            // Into the file itself, where the package's scripts look for the schema before they let an older version in.
            db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(failed)?;
        }
        db.pragma_update(None, "synchronous", "NORMAL").map_err(failed)?;
        Ok(Self {
            db: Mutex::new(db),
            full: AtomicBool::new(false),
            path: path.into(),
            owed: Mutex::default(),
            reserve: Mutex::new(reserve::Reserve::of(path)),
            #[cfg(test)]
            room: std::sync::OnceLock::new(),
        })
    }

    fn prepare(db: &mut Connection) -> rusqlite::Result<()> {
        db.busy_timeout(std::time::Duration::from_secs(5))?;
        db.pragma_update(None, "foreign_keys", true)?;
        // Nothing of it goes to a disk that may be full.
        db.pragma_update(None, "temp_store", "MEMORY")?;
        // All there are: each is parsed once.
        db.set_prepared_statement_cache_capacity(128);
        // 256 KiB of page cache: the whole inventory of some hundred containers.
        db.pragma_update(None, "cache_size", -256)?;
        db.pragma_update(None, "synchronous", "FULL")
    }

    fn db(&self) -> MutexGuard<'_, Connection> {
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this says whether there is room for what is to be written.
    #[cfg(test)]
    pub fn ask_for_room(&self, room: impl Fn(&str) -> bool + Send + Sync + 'static) {
        let _ = self.room.set(Box::new(room));
    }

    #[cfg(test)]
    fn has_room(&self, what: &'static str) -> Result<()> {
        match self.room.get().is_none_or(|room| room(what)) {
            true => Ok(()),
            false => {
                let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
                Err(sqlite(what)(rusqlite::Error::SqliteFailure(full, None)))
            }
        }
    }

    /// Changes what is written in one IMMEDIATE transaction; a durable one is on disk when this returns. `what` is for
    /// the error: "the inventory failed while ...".
    pub fn change<T>(&self, what: &'static str, durable: bool, f: impl FnOnce(&Change<'_>) -> Result<T>) -> Result<T> {
        self.change_from(Share::Common, what, durable, f)
    }

    /// As [`Inventory::change`], by somebody who may use the reserve.
    pub fn change_from<T>(
        &self,
        share: Share,
        what: &'static str,
        durable: bool,
        f: impl FnOnce(&Change<'_>) -> Result<T>,
    ) -> Result<T> {
        #[cfg(test)]
        self.has_room(what)?;
        let mut owed = self.owed();
        let mut db = self.db();
        self.reopen_if_it_was_locked(&mut db);
        let durable = durable || !owed.is_empty();
        if self.full.swap(durable, Ordering::AcqRel) != durable {
            let synchronous = if durable { "FULL" } else { "NORMAL" };
            db.pragma_update(None, "synchronous", synchronous).map_err(|e| {
                self.full.store(!durable, Ordering::Release);
                sqlite(what)(e)
            })?;
        }
        let change = Change::begin(&db, what)?;
        self.keep_reserve(share, &change, what)?;
        owed::pay(&owed, &change)?;
        let out = f(&change)?;
        change.commit()?;
        owed.clear();
        Ok(out)
    }

    /// As [`Inventory::change`], for the rooms of this one that write by themselves.
    fn transaction<T>(&self, what: &'static str, durable: bool, f: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.change(what, durable, |c| f(c.db()))
    }

    /// A fact about the host (`boot_id`).
    pub fn host_fact(&self, key: &str) -> Result<Option<String>> {
        self.db()
            .query_row("SELECT value FROM host WHERE key=?1", [key], |r| r.get(0))
            .optional()
            .map_err(sqlite("reading a host fact"))
    }

    /// Remembers a fact about the host.
    pub fn set_host_fact(&self, key: &str, value: &str) -> Result<()> {
        self.transaction("writing a host fact", true, |t| {
            t.execute("INSERT INTO host VALUES(?1,?2) ON CONFLICT(key) DO UPDATE SET value=?2", [key, value])
                .map_err(sqlite("writing a host fact"))
                .map(drop)
        })
    }

    /// Every container in CTID order.
    pub fn containers(&self) -> Result<Vec<CtRow>> {
        let db = self.db();
        let mut q = db.prepare_cached(&format!("{SELECT_CT} ORDER BY ctid")).map_err(sqlite("listing containers"))?;
        let rows = q.query_map([], |r| Ok(ct_row(r))).map_err(sqlite("listing containers"))?;
        rows.map(|r| r.map_err(sqlite("listing containers"))?).collect()
    }

    /// One container.
    pub fn container(&self, ctid: Ctid) -> Result<Option<CtRow>> {
        let db = self.db();
        let mut q =
            db.prepare_cached(&format!("{SELECT_CT} WHERE ctid=?1")).map_err(sqlite("looking a container up"))?;
        q.query_row([ctid.get()], |r| Ok(ct_row(r))).optional().map_err(sqlite("looking a container up"))?.transpose()
    }

    /// The container that has claimed `name`.
    pub fn by_name(&self, name: &str) -> Result<Option<Ctid>> {
        let n: Option<u32> = first(&self.db(), "SELECT ctid FROM container WHERE name=?1", [name], |r| r.get(0))
            .map_err(sqlite("looking a name up"))?;
        n.map(|n| Ctid::try_from(n).map_err(|e| Error::BadRow { ctid: n.into(), cause: e.to_string() })).transpose()
    }

    /// The addresses a container has claimed, and whether each is in its configuration.
    pub fn addresses(&self, ctid: Ctid) -> Result<Vec<(CtAddr, bool)>> {
        let db = self.db();
        let mut q = db
            .prepare_cached("SELECT ip, saved FROM address WHERE ctid=?1 ORDER BY rowid")
            .map_err(sqlite("listing addresses"))?;
        let rows = q
            .query_map([ctid.get()], |r| Ok((r.get::<_, String>(0)?, r.get::<_, bool>(1)?)))
            .map_err(sqlite("listing addresses"))?;
        rows.map(|r| {
            let (ip, saved) = r.map_err(sqlite("listing addresses"))?;
            let ip = ip.parse().map_err(|e: vz_types::addr::AddrError| Error::BadRow {
                ctid: ctid.get().into(),
                cause: e.to_string(),
            })?;
            Ok((ip, saved))
        })
        .collect()
    }

    /// How many boots of a container's run have been told of; `None`: an earlier version started it.
    pub fn boots(&self, ctid: Ctid) -> Result<Option<u32>> {
        let what = "reading how often a container has booted";
        let row = first(&self.db(), "SELECT boots FROM container WHERE ctid=?1", [ctid.get()], |r| r.get(0));
        Ok(row.map_err(sqlite(what))?.flatten())
    }

    /// Where every container is, and what keeps it in trouble.
    pub fn states(&self) -> Result<Vec<(Ctid, CtState, Option<Trouble>)>> {
        let what = "reading states";
        let db = self.db();
        let mut q = db.prepare("SELECT ctid, state, trouble FROM container").map_err(sqlite(what))?;
        let rows = q
            .query_map([], |r| Ok((r.get::<_, u32>(0)?, r.get::<_, String>(1)?, r.get::<_, Option<String>>(2)?)))
            .map_err(sqlite(what))?;
        rows.map(|r| {
            let (ctid, state, trouble) = r.map_err(sqlite(what))?;
            let bad = |cause: String| Error::BadRow { ctid: ctid.into(), cause };
            let state = CtState::of(&state).ok_or_else(|| bad(format!("there is no state `{state}`")))?;
            let trouble = trouble.map(|t| serde_json::from_str(&t)).transpose().map_err(|e| bad(e.to_string()))?;
            Ok((Ctid::try_from(ctid).map_err(|e| bad(e.to_string()))?, state, trouble))
        })
        .collect()
    }
}

const SELECT_CT: &str = "SELECT ctid, uuid, name, uid_base, template, template_digest, layout, created, last_exit, last_failure, uid_more FROM container";

fn ct_row(r: &Row<'_>) -> Result<CtRow> {
    let ctid: i64 = r.get(0).map_err(sqlite("reading a row"))?;
    let bad = |cause: String| Error::BadRow { ctid, cause };
    let text = |i: usize| r.get::<_, String>(i).map_err(|e| bad(e.to_string()));
    let maybe = |i: usize| r.get::<_, Option<String>>(i).map_err(|e| bad(e.to_string()));
    Ok(CtRow {
        ctid: r
            .get::<_, u32>(0)
            .map_err(|e| bad(e.to_string()))?
            .try_into()
            .map_err(|e: vz_types::ctid::CtidError| bad(e.to_string()))?,
        uuid: text(1)?,
        name: maybe(2)?.map(|n| n.parse()).transpose().map_err(|e: vz_types::names::NameError| bad(e.to_string()))?,
        uid_base: r.get::<_, u32>(3).map_err(|e| bad(e.to_string()))?.try_into().map_err(bad)?,
        uid_more: ranges(&text(10)?).map_err(bad)?,
        template: text(4)?.parse().map_err(|e: vz_types::names::NameError| bad(e.to_string()))?,
        template_digest: text(5)?,
        layout: text(6)?.parse().map_err(bad)?,
        created: r.get::<_, i64>(7).map_err(|e| bad(e.to_string()))?.unsigned_abs(),
        last_exit: maybe(8)?,
        last_failure: maybe(9)?,
    })
}

/// Ranges as a row keeps them.
pub(super) fn ranges(text: &str) -> std::result::Result<Vec<UidBase>, String> {
    text.split_whitespace().map(|n| n.parse::<u32>().map_err(|e| e.to_string())?.try_into()).collect()
}

/// Which version of the schema a file has; 0: none yet.
/// What the first row of an answer says, where there is one; the statement stays prepared.
fn first<T>(
    db: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    db.prepare_cached(sql)?.query_row(params, read).optional()
}

fn version(db: &Connection) -> rusqlite::Result<u32> {
    db.query_row("PRAGMA user_version", [], |r| r.get(0))
}

/// What it means that an inventory could not be opened. Only what SQLite calls corrupt is damaged; of the rest it says too
/// little, so that the files are tried here.
fn unopened(path: &Path, source: rusqlite::Error) -> Error {
    if matches!(source.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)) {
        return Error::Damaged { path: path.into(), source };
    }
    let tried = ["", "-wal", "-shm"].iter().find_map(|suffix| {
        let mut file = path.as_os_str().to_owned();
        file.push(suffix);
        let file = PathBuf::from(file);
        match std::fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&file) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Some(format!("{}: {e}", file.display())),
            _ => None,
        }
    });
    Error::Unopened { cause: tried.unwrap_or_else(|| path.display().to_string()), source }
}

/// Whether private areas lie below `dir`.
fn has_private_areas(dir: &Path) -> bool {
    !private_areas(dir).is_empty()
}

/// The containers whose private areas lie below `dir`.
pub fn private_areas(dir: &Path) -> Vec<Ctid> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut all: Vec<Ctid> = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests;
