//! Everything that is written, as parts of one transaction: an operation puts together what belongs together (its own
//! row, a claim, a state), and all of it is there or none.

use super::{CtRow, Error, NewCt, Result, first, now, sqlite};
use rusqlite::{Connection, params};
use vz_types::{CtAddr, CtName, CtState, Ctid, UidBase, state::Trouble};

/// A transaction under way.
#[derive(Debug)]
pub struct Change<'a> {
    db: &'a Connection,
    what: &'static str,
}

impl Drop for Change<'_> {
    /// What was not committed is taken back.
    fn drop(&mut self) {
        if !self.db.is_autocommit()
            && let Err(e) = self.execute("ROLLBACK", [])
        {
            tracing::error!("{e}");
        }
    }
}

impl<'a> Change<'a> {
    /// Begins it. By statements that stay prepared: a `rusqlite::Transaction` has all of its own parsed each time, which
    /// costs a third of a short one.
    pub(super) fn begin(db: &'a Connection, what: &'static str) -> Result<Self> {
        let change = Self { db, what };
        change.execute("BEGIN IMMEDIATE", [])?;
        Ok(change)
    }

    pub(super) fn commit(self) -> Result<()> {
        self.execute("COMMIT", []).map(drop)
    }

    pub(super) fn db(&self) -> &'a Connection {
        self.db
    }

    /// One statement.
    pub(crate) fn execute(&self, sql: &str, params: impl rusqlite::Params) -> Result<usize> {
        self.db.prepare_cached(sql).and_then(|mut q| q.execute(params)).map_err(sqlite(self.what))
    }

    /// What a statement that answers one number answers.
    pub(super) fn number(&self, sql: &str) -> Result<u64> {
        let n = first(self.db, sql, [], |r| r.get::<_, i64>(0)).map_err(sqlite(self.what))?;
        Ok(n.map_or(0, i64::unsigned_abs))
    }

    /// Statements of ours, one after the other.
    pub(super) fn batch(&self, sql: &str) -> Result<()> {
        self.db.execute_batch(sql).map_err(sqlite(self.what))
    }

    /// Claims everything a new container needs, all or nothing.
    pub fn claim_create(&self, new: &NewCt) -> Result<CtRow> {
        let exists = first(self.db, "SELECT 1 FROM container WHERE ctid=?1", [new.ctid.get()], |_| Ok(()));
        if exists.map_err(sqlite(self.what))?.is_some() {
            return Err(Error::Exists(new.ctid));
        }
        self.name_is_free(new.name.as_ref(), new.ctid)?;
        let row = CtRow {
            ctid: new.ctid,
            uuid: new.uuid.clone(),
            name: new.name.clone(),
            uid_base: self.free_uid_base(new.first_slot, &new.avoid)?,
            template: new.template.clone(),
            template_digest: new.template_digest.clone(),
            layout: new.layout,
            created: now(),
            last_exit: None,
            last_failure: None,
        };
        self.insert(&row)?;
        self.claim(new.ctid, &new.addresses, true)?;
        Ok(row)
    }

    /// Puts a container found on disk into the inventory.
    pub fn adopt(&self, row: &CtRow, addresses: &[CtAddr]) -> Result<()> {
        self.name_is_free(row.name.as_ref(), row.ctid)?;
        let holder: Option<u32> =
            first(self.db, "SELECT ctid FROM container WHERE uid_base=?1", [row.uid_base.get()], |r| r.get(0))
                .map_err(sqlite("looking for a uid range"))?;
        if let Some(holder) = holder.filter(|holder| *holder != row.ctid.get()) {
            let bad = |e: vz_types::ctid::CtidError| Error::BadRow { ctid: holder.into(), cause: e.to_string() };
            return Err(Error::UidTaken { base: row.uid_base, holder: Ctid::try_from(holder).map_err(bad)? });
        }
        self.insert(row)?;
        self.claim(row.ctid, addresses, true)
    }

    /// Forgets a container with everything it claimed. Its operations and events stay.
    pub fn forget(&self, ctid: Ctid) -> Result<()> {
        self.execute("DELETE FROM container WHERE ctid=?1", [ctid.get()]).map(drop)
    }

    /// Where a container is from now on.
    pub fn state(&self, ctid: Ctid, state: CtState, trouble: Option<&Trouble>) -> Result<()> {
        // A struct of strings always has a JSON form.
        let trouble = trouble.map(|t| serde_json::to_string(t).unwrap_or_default());
        self.execute(
            "UPDATE container SET state=?2, trouble=?3 WHERE ctid=?1",
            params![ctid.get(), state.word(), trouble],
        )
        .map(drop)
    }

    /// Checks a name and addresses against everybody else's claims, and claims the new ones beside the old ones.
    pub fn claim_set(&self, ctid: Ctid, name: Option<&CtName>, addresses: &[CtAddr]) -> Result<()> {
        self.name_is_free(name, ctid)?;
        self.claim(ctid, addresses, false)
    }

    /// Makes a container's claims exactly these.
    pub fn settle(&self, ctid: Ctid, name: Option<&CtName>, saved: &[CtAddr], unsaved: &[CtAddr]) -> Result<()> {
        self.name_is_free(name, ctid)?;
        self.execute("UPDATE container SET name=?2 WHERE ctid=?1", params![ctid.get(), name.map(CtName::as_str)])?;
        self.execute("DELETE FROM address WHERE ctid=?1", [ctid.get()])?;
        self.claim(ctid, saved, true)?;
        self.claim(ctid, unsaved, false)
    }

    /// Remembers how the last run ended; a fresh end clears no failure.
    pub fn last_exit(&self, ctid: Ctid, text: &str) -> Result<()> {
        self.execute("UPDATE container SET last_exit=?2 WHERE ctid=?1", params![ctid.get(), text]).map(drop)
    }

    /// It runs: nothing has failed since, and it has booted once.
    pub fn started(&self, ctid: Ctid) -> Result<()> {
        self.execute("UPDATE container SET last_failure=NULL, boots=1 WHERE ctid=?1", [ctid.get()]).map(drop)
    }

    /// So many boots of its run have been told of.
    pub fn boots(&self, ctid: Ctid, boots: u32) -> Result<()> {
        self.execute("UPDATE container SET boots=?2 WHERE ctid=?1", [ctid.get(), boots]).map(drop)
    }

    /// Remembers what failed last, or that nothing did.
    pub fn last_failure(&self, ctid: Ctid, text: Option<&str>) -> Result<()> {
        self.execute("UPDATE container SET last_failure=?2 WHERE ctid=?1", params![ctid.get(), text]).map(drop)
    }

    fn insert(&self, row: &CtRow) -> Result<()> {
        self.execute(
            "INSERT INTO container(ctid, uuid, name, uid_base, template, template_digest, layout, created, last_exit, last_failure) \
             VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)",
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
        .map(drop)
    }

    fn name_is_free(&self, name: Option<&CtName>, ctid: Ctid) -> Result<()> {
        let Some(name) = name else { return Ok(()) };
        let sql = "SELECT ctid FROM container WHERE name=?1 AND ctid<>?2";
        let holder: Option<u32> = first(self.db, sql, params![name.as_str(), ctid.get()], |r| r.get(0))
            .map_err(sqlite("looking a name up"))?;
        match holder.map(Ctid::try_from) {
            None => Ok(()),
            Some(Ok(holder)) => Err(Error::NameTaken { name: name.clone(), holder }),
            Some(Err(e)) => Err(Error::BadRow { ctid: 0, cause: e.to_string() }),
        }
    }

    /// Claims addresses beside those a container has; `saved`: they are in its configuration.
    fn claim(&self, ctid: Ctid, addresses: &[CtAddr], saved: bool) -> Result<()> {
        for ip in addresses {
            let holder: Option<u32> =
                first(self.db, "SELECT ctid FROM address WHERE ip=?1", [ip.to_string()], |r| r.get(0))
                    .map_err(sqlite("claiming addresses"))?;
            match holder {
                Some(n) if n != ctid.get() => {
                    let holder =
                        Ctid::try_from(n).map_err(|e| Error::BadRow { ctid: n.into(), cause: e.to_string() })?;
                    return Err(Error::AddressTaken { ip: *ip, holder });
                }
                Some(_) if !saved => {}
                _ => {
                    self.execute(
                        "INSERT INTO address VALUES(?1,?2,?3) ON CONFLICT(ip) DO UPDATE SET saved=?3",
                        params![ip.to_string(), ctid.get(), saved],
                    )?;
                }
            }
        }
        Ok(())
    }

    /// The first uid range nobody has, from `first` on, wrapping.
    fn free_uid_base(&self, first: u32, avoid: &[UidBase]) -> Result<UidBase> {
        let what = "looking for a uid range";
        let mut q = self.db.prepare_cached("SELECT uid_base FROM container").map_err(sqlite(what))?;
        let taken: std::collections::BTreeSet<u32> =
            q.query_map([], |r| r.get(0)).and_then(Iterator::collect).map_err(sqlite(what))?;
        (0..UidBase::SLOTS)
            .map(|i| UidBase::from_slot((first + i) % UidBase::SLOTS))
            .find(|b| !taken.contains(&b.get()) && !avoid.contains(b))
            .ok_or(Error::NoUidRange)
    }
}
