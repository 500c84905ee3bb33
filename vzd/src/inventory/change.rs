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
            uid_more: Vec::new(),
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
        let taken = self.ranges()?;
        for base in std::iter::once(&row.uid_base).chain(&row.uid_more) {
            let Some(&holder) = taken.get(base).filter(|holder| **holder != row.ctid.get()) else { continue };
            let bad = |e: vz_types::ctid::CtidError| Error::BadRow { ctid: holder.into(), cause: e.to_string() };
            return Err(Error::UidTaken { base: *base, holder: Ctid::try_from(holder).map_err(bad)? });
        }
        self.insert(row)?;
        self.claim(row.ctid, addresses, true)
    }

    /// Claims ranges of ids for a container until it has `count` besides its first; those it has, it keeps. Answers all
    /// of them. The new ones lie beside each other where so many do: what a user inside is given of them has to (user_namespaces(7)).
    pub fn claim_ids(&self, ctid: Ctid, count: usize, avoid: &[UidBase]) -> Result<Vec<UidBase>> {
        let row = first(self.db, "SELECT uid_base, uid_more FROM container WHERE ctid=?1", [ctid.get()], |r| {
            Ok((r.get::<_, u32>(0)?, r.get::<_, String>(1)?))
        });
        let Some((base, more)) = row.map_err(sqlite(self.what))? else { return Ok(Vec::new()) };
        let mut more = super::ranges(&more).map_err(|cause| Error::BadRow { ctid: ctid.get().into(), cause })?;
        let had = more.len();
        let missing = count.saturating_sub(had) as u32;
        if missing > 0 {
            let taken = self.ranges()?;
            let others: std::collections::BTreeSet<&UidBase> = avoid.iter().collect();
            let is_free = |slot: u32| {
                let range = UidBase::from_slot(slot);
                !taken.contains_key(&range) && !others.contains(&range)
            };
            let next = (more.last().map_or(base, |b| b.get()) - UidBase::MIN) / UidBase::COUNT + 1;
            let slots = || (0..UidBase::SLOTS).map(|n| (next + n) % UidBase::SLOTS);
            let in_a_row = |slot: &u32| slot + missing <= UidBase::SLOTS && (*slot..slot + missing).all(is_free);
            match slots().find(in_a_row) {
                Some(slot) => more.extend((slot..slot + missing).map(UidBase::from_slot)),
                None => more.extend(slots().filter(|s| is_free(*s)).take(missing as usize).map(UidBase::from_slot)),
            }
            if more.len() < count {
                return Err(Error::NoUidRange);
            }
        }
        if more.len() > had {
            let text = more.iter().map(|b| b.get().to_string()).collect::<Vec<_>>().join(" ");
            self.execute("UPDATE container SET uid_more=?2 WHERE ctid=?1", params![ctid.get(), text])?;
        }
        Ok(more)
    }

    /// Every range that is claimed, and by whom.
    fn ranges(&self) -> Result<std::collections::BTreeMap<UidBase, u32>> {
        let what = "looking for a uid range";
        let mut q = self.db.prepare_cached("SELECT ctid, uid_base, uid_more FROM container").map_err(sqlite(what))?;
        let rows: Vec<(u32, u32, String)> = q
            .query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
            .and_then(Iterator::collect)
            .map_err(sqlite(what))?;
        let mut all = std::collections::BTreeMap::new();
        for (ctid, base, more) in rows {
            let bad = |cause: String| Error::BadRow { ctid: ctid.into(), cause };
            all.insert(UidBase::try_from(base).map_err(bad)?, ctid);
            all.extend(super::ranges(&more).map_err(bad)?.into_iter().map(|b| (b, ctid)));
        }
        Ok(all)
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
            "INSERT INTO container(ctid, uuid, name, uid_base, template, template_digest, layout, created, last_exit, last_failure, uid_more) \
             VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)",
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
                row.last_failure,
                row.uid_more.iter().map(|b| b.get().to_string()).collect::<Vec<_>>().join(" ")
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
        let taken = self.ranges()?;
        let avoid: std::collections::BTreeSet<&UidBase> = avoid.iter().collect();
        (0..UidBase::SLOTS)
            .map(|i| UidBase::from_slot((first + i) % UidBase::SLOTS))
            .find(|b| !taken.contains_key(b) && !avoid.contains(b))
            .ok_or(Error::NoUidRange)
    }
}
