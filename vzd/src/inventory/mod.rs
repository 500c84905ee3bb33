//! Which containers exist and what they have claimed: SQLite in WAL mode at `/var/lib/vz/inventory.db`,
//! with the journal of operations under way. May be imported by the engine; imports vz-types alone.
//!
//! Durability: commits that decide something (a container exists, is being destroyed, has new claims)
//! are written with `synchronous=FULL`; everything else with `NORMAL`, which survives a kill and may lose
//! only its last commits at a power cut, when nothing runs any more anyway.

mod accounts;
mod journal;
mod migrations;

pub use accounts::{CounterRow, EventRow, Minute};
pub use journal::JournalRow;
pub use migrations::{STEPS, migrations};

use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use serde::{Deserialize, Serialize};
use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};
use vz_types::{CtAddr, CtName, Ctid, ExitCode, TemplateName, UidBase, config::Layout, state::Op};

/// Why the inventory did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is no database, or a damaged one.
    #[error("the inventory {path} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// The file is gone although containers exist.
    #[error("the inventory {path} is missing, but {private} holds containers' private areas")]
    Missing {
        /// The file.
        path: PathBuf,
        /// What shows that there were containers.
        private: PathBuf,
    },
    /// Written by a later version.
    #[error(
        "the inventory {path} was written by a later version of vz: it has schema {there}, and this vzd knows up to {known}"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        there: u32,
        /// Ours.
        known: u32,
    },
    /// A migration failed.
    #[error("the inventory {path} cannot be brought to this version")]
    Migration {
        /// The file.
        path: PathBuf,
        /// What the migration said.
        #[source]
        source: rusqlite_migration::Error,
    },
    /// Another container has the address.
    #[error("address {ip} belongs to CT {holder}")]
    AddressTaken {
        /// The address.
        ip: CtAddr,
        /// Whose it is.
        holder: Ctid,
    },
    /// Another container has the name.
    #[error("the name `{name}` belongs to CT {holder}")]
    NameTaken {
        /// The name.
        name: CtName,
        /// Whose it is.
        holder: Ctid,
    },
    /// There is such a container.
    #[error("CT {0} exists")]
    Exists(Ctid),
    /// Every uid range is given away.
    #[error("all {} uid ranges are in use", UidBase::SLOTS)]
    NoUidRange,
    /// SQLite failed.
    #[error("the inventory failed while {what}")]
    Sqlite {
        /// What it was doing.
        what: &'static str,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// A row holds what no version of ours writes.
    #[error("the inventory's row of CT {ctid} is unusable: {cause}")]
    BadRow {
        /// Which.
        ctid: i64,
        /// Why.
        cause: String,
    },
}

impl Error {
    /// What `vzctl` exits with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::AddressTaken { .. } => ExitCode::IpInUse,
            Self::NameTaken { .. } => ExitCode::SetName,
            Self::Exists(_) => ExitCode::Exists,
            Self::Sqlite { source: rusqlite::Error::SqliteFailure(e, _), .. } if e.code == ErrorCode::DiskFull => {
                ExitCode::NoSpace
            }
            _ => ExitCode::System,
        }
    }

    /// Whether opening it again would end the same way until somebody does something.
    pub fn needs_operator(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Missing { .. } | Self::Newer { .. } | Self::Migration { .. })
    }

    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Damaged { .. } | Self::Missing { .. } => {
                Some("`vzd recover` builds it again from the configuration files and the private areas".into())
            }
            Self::Newer { .. } => Some(
                "install the version of vz that wrote it, or a later one; nothing was changed, and containers keep running"
                    .into(),
            ),
            Self::Sqlite { .. } if self.exit_code() == ExitCode::NoSpace => {
                Some("free some space on the filesystem the inventory is on and try again".into())
            }
            Self::AddressTaken { holder, ip } => {
                Some(format!("choose another address, or `vzctl set {holder} --ipdel {ip} --save`"))
            }
            Self::NameTaken { holder, .. } => {
                Some(format!("choose another name, or `vzctl set {holder} --name '' --save`"))
            }
            _ => None,
        }
    }
}

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
#[derive(Debug)]
pub struct Inventory {
    db: Mutex<Connection>,
    path: PathBuf,
}

type Result<T> = std::result::Result<T, Error>;

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
    /// [`Error::Missing`] when there is no file although `private` has private areas in it;
    /// [`Error::Damaged`] and [`Error::Migration`] as they say.
    pub fn open(path: &Path, private: &Path) -> Result<Self> {
        if !path.exists() && has_private_areas(private) {
            return Err(Error::Missing { path: path.into(), private: private.into() });
        }
        Self::open_or_make(path)
    }

    /// As [`Inventory::open`], without asking whether there were containers: for rebuilding.
    pub fn open_or_make(path: &Path) -> Result<Self> {
        let damaged = |source| Error::Damaged { path: path.into(), source };
        let mut db = Connection::open(path).map_err(damaged)?;
        // The first statement is what finds out that the file is no database.
        db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).map_err(damaged)?;
        let verdict: String = db.query_row("PRAGMA quick_check(1)", [], |r| r.get(0)).map_err(damaged)?;
        if verdict != "ok" {
            return Err(damaged(rusqlite::Error::InvalidColumnName(verdict)));
        }
        let there: u32 = db.query_row("PRAGMA user_version", [], |r| r.get(0)).map_err(damaged)?;
        let known = u32::try_from(STEPS.len()).unwrap_or(u32::MAX);
        if there > known {
            return Err(Error::Newer { path: path.into(), there, known });
        }
        Self::prepare(&mut db).map_err(damaged)?;
        migrations().to_latest(&mut db).map_err(|source| Error::Migration { path: path.into(), source })?;
        if there < known {
            // Into the file itself, where the package's scripts look for the schema before they let an older version in.
            db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(damaged)?;
        }
        db.pragma_update(None, "synchronous", "NORMAL").map_err(damaged)?;
        Ok(Self { db: Mutex::new(db), path: path.into() })
    }

    fn prepare(db: &mut Connection) -> rusqlite::Result<()> {
        db.busy_timeout(std::time::Duration::from_secs(5))?;
        db.pragma_update(None, "foreign_keys", true)?;
        // 256 KiB of page cache: the whole inventory of some hundred containers.
        db.pragma_update(None, "cache_size", -256)?;
        db.pragma_update(None, "synchronous", "FULL")
    }

    fn db(&self) -> MutexGuard<'_, Connection> {
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `f` in one IMMEDIATE transaction; a durable one is on disk when this returns.
    fn transaction<T>(
        &self,
        what: &'static str,
        durable: bool,
        f: impl FnOnce(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut db = self.db();
        db.pragma_update(None, "synchronous", if durable { "FULL" } else { "NORMAL" }).map_err(sqlite(what))?;
        let t = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite(what))?;
        let out = f(&t)?;
        t.commit().map_err(sqlite(what))?;
        Ok(out)
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
        let n: Option<u32> = self
            .db()
            .query_row("SELECT ctid FROM container WHERE name=?1", [name], |r| r.get(0))
            .optional()
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

    /// Claims everything a new container needs, all or nothing, and opens its journal row.
    pub fn claim_create(&self, new: &NewCt, payload: &str) -> Result<CtRow> {
        self.transaction("claiming a new container", false, |t| {
            let exists: bool = t
                .query_row("SELECT EXISTS(SELECT 1 FROM container WHERE ctid=?1)", [new.ctid.get()], |r| r.get(0))
                .map_err(sqlite("claiming a new container"))?;
            if exists {
                return Err(Error::Exists(new.ctid));
            }
            name_is_free(t, new.name.as_ref(), new.ctid)?;
            let row = CtRow {
                ctid: new.ctid,
                uuid: new.uuid.clone(),
                name: new.name.clone(),
                uid_base: free_uid_base(t, new.first_slot)?,
                template: new.template.clone(),
                template_digest: new.template_digest.clone(),
                layout: new.layout,
                created: now(),
                last_exit: None,
                last_failure: None,
            };
            insert_ct(t, &row)?;
            claim_addresses(t, new.ctid, &new.addresses, true)?;
            journal::open(t, Op::Create, new.ctid, payload)?;
            Ok(row)
        })
    }

    /// Puts a container found on disk into the inventory: for rebuilding.
    pub fn adopt(&self, row: &CtRow, addresses: &[CtAddr]) -> Result<()> {
        self.transaction("adopting a container", true, |t| {
            name_is_free(t, row.name.as_ref(), row.ctid)?;
            insert_ct(t, row)?;
            claim_addresses(t, row.ctid, addresses, true)
        })
    }

    /// Forgets a container with everything it claimed, and its journal row.
    pub fn forget(&self, ctid: Ctid, durable: bool) -> Result<()> {
        self.transaction("forgetting a container", durable, |t| {
            t.execute("DELETE FROM container WHERE ctid=?1", [ctid.get()]).map_err(sqlite("forgetting a container"))?;
            journal::close(t, ctid)
        })
    }

    /// Claims addresses beside those a container has; `saved`: they are in its configuration.
    pub fn claim(&self, ctid: Ctid, addresses: &[CtAddr], saved: bool) -> Result<()> {
        self.transaction("claiming addresses", false, |t| claim_addresses(t, ctid, addresses, saved))
    }

    /// Checks a name and addresses against everybody else's claims, claims the new ones beside the old
    /// ones, and opens the journal row of a `set`.
    pub fn claim_set(&self, ctid: Ctid, name: Option<&CtName>, addresses: &[CtAddr], payload: &str) -> Result<()> {
        self.transaction("claiming for set", false, |t| {
            name_is_free(t, name, ctid)?;
            claim_addresses(t, ctid, addresses, false)?;
            journal::open(t, Op::Set, ctid, payload)
        })
    }

    /// Makes a container's claims exactly these, and closes its journal row when `close`.
    pub fn settle(
        &self,
        ctid: Ctid,
        name: Option<&CtName>,
        saved: &[CtAddr],
        unsaved: &[CtAddr],
        close: bool,
        durable: bool,
    ) -> Result<()> {
        self.transaction("settling claims", durable, |t| {
            name_is_free(t, name, ctid)?;
            t.execute("UPDATE container SET name=?2 WHERE ctid=?1", params![ctid.get(), name.map(CtName::as_str)])
                .map_err(sqlite("settling claims"))?;
            t.execute("DELETE FROM address WHERE ctid=?1", [ctid.get()]).map_err(sqlite("settling claims"))?;
            claim_addresses(t, ctid, saved, true)?;
            claim_addresses(t, ctid, unsaved, false)?;
            if close { journal::close(t, ctid) } else { Ok(()) }
        })
    }

    /// Remembers how the last run ended; a fresh end clears no failure.
    pub fn set_last_exit(&self, ctid: Ctid, text: &str) -> Result<()> {
        self.set_text("UPDATE container SET last_exit=?2 WHERE ctid=?1", ctid, Some(text))
    }

    /// Remembers what failed last, or that nothing did.
    pub fn set_last_failure(&self, ctid: Ctid, text: Option<&str>) -> Result<()> {
        self.set_text("UPDATE container SET last_failure=?2 WHERE ctid=?1", ctid, text)
    }

    fn set_text(&self, sql: &'static str, ctid: Ctid, text: Option<&str>) -> Result<()> {
        self.transaction("recording an outcome", false, |t| {
            t.execute(sql, params![ctid.get(), text]).map_err(sqlite("recording an outcome")).map(drop)
        })
    }
}

const SELECT_CT: &str = "SELECT ctid, uuid, name, uid_base, template, template_digest, layout, created, last_exit, last_failure FROM container";

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
        template: text(4)?.parse().map_err(|e: vz_types::names::NameError| bad(e.to_string()))?,
        template_digest: text(5)?,
        layout: text(6)?.parse().map_err(bad)?,
        created: r.get::<_, i64>(7).map_err(|e| bad(e.to_string()))?.unsigned_abs(),
        last_exit: maybe(8)?,
        last_failure: maybe(9)?,
    })
}

fn insert_ct(t: &Transaction<'_>, row: &CtRow) -> Result<()> {
    t.execute(
        "INSERT INTO container VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)",
        params![
            row.ctid.get(),
            row.uuid,
            row.name.as_ref().map(CtName::as_str),
            row.uid_base.get(),
            row.template.as_str(),
            row.template_digest,
            row.layout.to_string(),
            row.created as i64,
            row.last_exit,
            row.last_failure
        ],
    )
    .map_err(sqlite("adding a container"))
    .map(drop)
}

fn name_is_free(t: &Transaction<'_>, name: Option<&CtName>, ctid: Ctid) -> Result<()> {
    let Some(name) = name else { return Ok(()) };
    let holder: Option<u32> = t
        .query_row("SELECT ctid FROM container WHERE name=?1 AND ctid<>?2", params![name.as_str(), ctid.get()], |r| {
            r.get(0)
        })
        .optional()
        .map_err(sqlite("looking a name up"))?;
    match holder.map(Ctid::try_from) {
        None => Ok(()),
        Some(Ok(holder)) => Err(Error::NameTaken { name: name.clone(), holder }),
        Some(Err(e)) => Err(Error::BadRow { ctid: 0, cause: e.to_string() }),
    }
}

fn claim_addresses(t: &Transaction<'_>, ctid: Ctid, addresses: &[CtAddr], saved: bool) -> Result<()> {
    for ip in addresses {
        let holder: Option<u32> = t
            .query_row("SELECT ctid FROM address WHERE ip=?1", [ip.to_string()], |r| r.get(0))
            .optional()
            .map_err(sqlite("claiming addresses"))?;
        match holder {
            Some(n) if n != ctid.get() => {
                let holder = Ctid::try_from(n).map_err(|e| Error::BadRow { ctid: n.into(), cause: e.to_string() })?;
                return Err(Error::AddressTaken { ip: *ip, holder });
            }
            Some(_) if !saved => {}
            _ => {
                t.execute(
                    "INSERT INTO address VALUES(?1,?2,?3) ON CONFLICT(ip) DO UPDATE SET saved=?3",
                    params![ip.to_string(), ctid.get(), saved],
                )
                .map_err(sqlite("claiming addresses"))?;
            }
        }
    }
    Ok(())
}

/// The first uid range nobody has, from `first` on, wrapping.
fn free_uid_base(t: &Transaction<'_>, first: u32) -> Result<UidBase> {
    let mut q = t.prepare("SELECT uid_base FROM container").map_err(sqlite("looking for a uid range"))?;
    let taken: std::collections::BTreeSet<u32> =
        q.query_map([], |r| r.get(0)).and_then(Iterator::collect).map_err(sqlite("looking for a uid range"))?;
    (0..UidBase::SLOTS)
        .map(|i| UidBase::from_slot((first + i) % UidBase::SLOTS))
        .find(|b| !taken.contains(&b.get()))
        .ok_or(Error::NoUidRange)
}

/// Whether private areas lie below `dir`.
fn has_private_areas(dir: &Path) -> bool {
    std::fs::read_dir(dir)
        .map(|entries| entries.flatten().any(|e| e.file_name().to_string_lossy().parse::<Ctid>().is_ok()))
        .unwrap_or(false)
}

#[cfg(test)]
mod tests;
