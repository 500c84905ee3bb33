//! What outlives a run of a container: peaks and fail counts of its beancounters, and its pressure of the last hour.

use super::{Error, Inventory, Result, sqlite};
use rusqlite::{Connection, params};
use vz_types::{Ctid, limits::Ub};

/// One counter over all runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterRow {
    /// The most that was held since the last reset.
    pub maxheld: u64,
    /// Refusals since the last reset.
    pub failcnt: u64,
    /// What the kernel's own fail count of this run was when it was last looked at.
    pub seen_fails: u64,
    /// The kernel's own peak at the last reset: below it, the peak says nothing about the time since.
    pub peak_base: u64,
}

/// A container's kernel totals at one moment, for what is said of the last hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Minute {
    /// Seconds since the epoch.
    pub at: u64,
    /// The first of a run: the kernel counts from zero again.
    pub begins: bool,
    /// Microseconds in which some waited: processor, memory, disk, and for cpulimit.
    pub totals: [u64; 4],
}

impl Inventory {
    /// What is remembered of a container from `since` on, oldest first.
    pub fn minutes(&self, ctid: Ctid, since: u64) -> Result<Vec<Minute>> {
        let what = "reading pressure";
        let db = self.db();
        let mut q = db
            .prepare_cached(
                "SELECT at, begins, cpu, memory, io, throttled FROM minute WHERE ctid=?1 AND at>=?2 ORDER BY at",
            )
            .map_err(sqlite(what))?;
        let n = |r: &rusqlite::Row<'_>, i: usize| r.get::<_, i64>(i).map(i64::unsigned_abs);
        let rows = q
            .query_map(params![ctid.get(), since as i64], |r| {
                let totals = [n(r, 2)?, n(r, 3)?, n(r, 4)?, n(r, 5)?];
                Ok(Minute { at: n(r, 0)?, begins: n(r, 1)? != 0, totals })
            })
            .map_err(sqlite(what))?;
        rows.map(|r| r.map_err(sqlite(what))).collect()
    }

    /// Remembers counters and moments of any number of containers that still exist, all at once, and forgets moments of
    /// these before `since`.
    pub fn keep(&self, counters: &[(Ctid, Ub, CounterRow)], minutes: &[(Ctid, Minute)], since: u64) -> Result<()> {
        if counters.is_empty() && minutes.is_empty() {
            return Ok(());
        }
        let what = "remembering counters and pressure";
        self.transaction(what, false, |t| {
            for (ctid, ub, r) in counters {
                put_counter(t, *ctid, *ub, r).map_err(sqlite(what))?;
            }
            for (ctid, m) in minutes {
                let [cpu, memory, io, throttled] = m.totals.map(int);
                t.prepare_cached(
                    "INSERT OR REPLACE INTO minute SELECT ?1,?2,?3,?4,?5,?6,?7 WHERE EXISTS(SELECT 1 FROM container WHERE ctid=?1)",
                )
                .and_then(|mut q| q.execute(params![ctid.get(), int(m.at), m.begins, cpu, memory, io, throttled]))
                .map_err(sqlite(what))?;
                t.prepare_cached("DELETE FROM minute WHERE ctid=?1 AND at<?2")
                    .and_then(|mut q| q.execute(params![ctid.get(), int(since)]))
                    .map_err(sqlite(what))?;
            }
            Ok(())
        })
    }

    /// Makes durable what was only written so far, without keeping anybody from the database meanwhile: commits are in
    /// the log beside it, and the log is what is read after a power cut.
    ///
    /// # Errors
    /// The disk's.
    pub fn flush(&self) -> Result<()> {
        let log = format!("{}-wal", self.path.display());
        std::fs::File::open(&log)
            .and_then(|f| f.sync_data())
            .map_err(|source| Error::Unsynced { path: self.path.clone(), source })
    }

    /// Every counter of a container that has ever counted anything.
    pub fn counters(&self, ctid: Ctid) -> Result<Vec<(Ub, CounterRow)>> {
        let what = "reading counters";
        let db = self.db();
        let mut q = db
            .prepare_cached("SELECT name, maxheld, failcnt, seen_fails, peak_base FROM counter WHERE ctid=?1")
            .map_err(sqlite(what))?;
        let n = |r: &rusqlite::Row<'_>, i: usize| r.get::<_, i64>(i).map(i64::unsigned_abs);
        let rows = q
            .query_map([ctid.get()], |r| {
                let row =
                    CounterRow { maxheld: n(r, 1)?, failcnt: n(r, 2)?, seen_fails: n(r, 3)?, peak_base: n(r, 4)? };
                Ok((r.get::<_, String>(0)?, row))
            })
            .map_err(sqlite(what))?;
        let mut out = Vec::new();
        for row in rows {
            let (name, row) = row.map_err(sqlite(what))?;
            // A name of another version of ours counts nothing here.
            out.extend(name.parse().ok().map(|ub: Ub| (ub, row)));
        }
        Ok(out)
    }

    /// Remembers counters of a container that still exists.
    pub fn set_counters(&self, ctid: Ctid, rows: &[(Ub, CounterRow)]) -> Result<()> {
        let what = "remembering counters";
        if rows.is_empty() {
            return Ok(());
        }
        self.transaction(what, false, |t| {
            rows.iter().try_for_each(|(ub, r)| put_counter(t, ctid, *ub, r).map_err(sqlite(what)))
        })
    }
}

fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn put_counter(t: &Connection, ctid: Ctid, ub: Ub, r: &CounterRow) -> rusqlite::Result<()> {
    t.prepare_cached(
        "INSERT INTO counter SELECT ?1,?2,?3,?4,?5,?6 WHERE EXISTS(SELECT 1 FROM container WHERE ctid=?1) \
         ON CONFLICT(ctid,name) DO UPDATE SET maxheld=?3, failcnt=?4, seen_fails=?5, peak_base=?6",
    )?
    .execute(params![ctid.get(), ub.name(), int(r.maxheld), int(r.failcnt), int(r.seen_fails), int(r.peak_base)])
    .map(drop)
}
