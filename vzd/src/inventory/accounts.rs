//! What outlives a run of a container: peaks and fail counts of its beancounters, and its events.

use super::{Inventory, Result, sqlite};
use rusqlite::{Transaction, params};
use vz_types::{Ctid, limits::Ub};

/// Events kept per container; older ones go.
const KEPT: i64 = 500;

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

/// Something that happened to a container because of a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// Its number, rising.
    pub id: i64,
    /// The container.
    pub ctid: Ctid,
    /// Seconds since the epoch, of the first and the last time.
    pub first: u64,
    /// See [`EventRow::first`].
    pub last: u64,
    /// What kind, a word.
    pub kind: String,
    /// The counter or parameter behind it.
    pub counter: Option<String>,
    /// How many times.
    pub count: u64,
    /// What happened, for people.
    pub text: String,
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
    pub fn flush(&self) {
        let log = format!("{}-wal", self.path.display());
        if let Err(e) = std::fs::File::open(&log).and_then(|f| f.sync_data()) {
            tracing::warn!("cannot make {} durable: {e}", self.path.display());
        }
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

    /// Keeps an event. One like the last of its container within a minute adds to that one's count instead. Answers
    /// its number.
    pub fn add_event(
        &self,
        ctid: Ctid,
        at: u64,
        kind: &str,
        counter: Option<&str>,
        count: u64,
        text: &str,
    ) -> Result<i64> {
        let what = "keeping an event";
        self.transaction(what, false, |t| {
            let same = t
                .query_row(
                    "SELECT id FROM event WHERE ctid=?1 AND kind=?2 AND text=?3 AND last>=?4 ORDER BY id DESC LIMIT 1",
                    params![ctid.get(), kind, text, at.saturating_sub(60) as i64],
                    |r| r.get::<_, i64>(0),
                )
                .ok();
            if let Some(id) = same {
                t.execute("UPDATE event SET count=count+?2, last=?3 WHERE id=?1", params![id, count as i64, at as i64])
                    .map_err(sqlite(what))?;
                return Ok(id);
            }
            t.execute(
                "INSERT INTO event(ctid, first, last, kind, counter, count, text) VALUES(?1,?2,?2,?3,?4,?5,?6)",
                params![ctid.get(), at as i64, kind, counter, count as i64, text],
            )
            .map_err(sqlite(what))?;
            let id = t.last_insert_rowid();
            t.execute(
                "DELETE FROM event WHERE ctid=?1 AND id <= (SELECT id FROM event WHERE ctid=?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
                params![ctid.get(), KEPT],
            )
            .map_err(sqlite(what))?;
            Ok(id)
        })
    }

    /// Events after number `after`, of one container or of all, oldest first, at most `most` of the newest.
    pub fn events(&self, ctid: Option<Ctid>, after: i64, most: u32) -> Result<Vec<EventRow>> {
        let what = "reading events";
        let db = self.db();
        let mut q = db
            .prepare_cached(
                "SELECT id, ctid, first, last, kind, counter, count, text FROM event \
                 WHERE id>?1 AND (?2 IS NULL OR ctid=?2) ORDER BY id DESC LIMIT ?3",
            )
            .map_err(sqlite(what))?;
        let rows = q
            .query_map(params![after, ctid.map(Ctid::get), most], |r| {
                Ok((
                    r.get::<_, u32>(1)?,
                    EventRow {
                        id: r.get(0)?,
                        // Replaced below; a row without a valid one is left out.
                        ctid: ctid.unwrap_or_else(first_ctid),
                        first: r.get::<_, i64>(2)?.unsigned_abs(),
                        last: r.get::<_, i64>(3)?.unsigned_abs(),
                        kind: r.get(4)?,
                        counter: r.get(5)?,
                        count: r.get::<_, i64>(6)?.unsigned_abs(),
                        text: r.get(7)?,
                    },
                ))
            })
            .map_err(sqlite(what))?;
        let mut out = Vec::new();
        for row in rows {
            let (n, row) = row.map_err(sqlite(what))?;
            out.extend(Ctid::try_from(n).ok().map(|ctid| EventRow { ctid, ..row }));
        }
        out.reverse();
        Ok(out)
    }
}

fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn put_counter(t: &Transaction<'_>, ctid: Ctid, ub: Ub, r: &CounterRow) -> rusqlite::Result<()> {
    t.prepare_cached(
        "INSERT INTO counter SELECT ?1,?2,?3,?4,?5,?6 WHERE EXISTS(SELECT 1 FROM container WHERE ctid=?1) \
         ON CONFLICT(ctid,name) DO UPDATE SET maxheld=?3, failcnt=?4, seen_fails=?5, peak_base=?6",
    )?
    .execute(params![ctid.get(), ub.name(), int(r.maxheld), int(r.failcnt), int(r.seen_fails), int(r.peak_base)])
    .map(drop)
}

fn first_ctid() -> Ctid {
    Ctid::try_from(Ctid::MIN).unwrap_or_else(|_| unreachable!("the smallest CTID is one"))
}
