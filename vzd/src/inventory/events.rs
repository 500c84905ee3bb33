//! What happened to containers: limits hit, and every change of state with who caused it. One stream, numbered, kept
//! after a container is gone.

use super::{Change, Inventory, Result, first, sqlite};
use rusqlite::params;
use vz_types::{Ctid, OpId};

/// Events kept per container; older ones go.
const KEPT: i64 = 500;

/// Something that happened to a container.
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
    /// The operation that did it.
    pub operation: Option<String>,
    /// Who asked for that.
    pub asker: Option<String>,
}

/// Something that has just happened.
#[derive(Clone, Copy, Debug)]
pub struct NewEvent<'a> {
    /// To which container.
    pub ctid: Ctid,
    /// Seconds since the epoch.
    pub at: u64,
    /// What kind, a word.
    pub kind: &'a str,
    /// The counter or parameter behind it.
    pub counter: Option<&'a str>,
    /// How many times.
    pub count: u64,
    /// What happened, for people.
    pub text: &'a str,
    /// The operation that did it, and who asked for that.
    pub by: Option<(OpId, &'a str)>,
}

impl Change<'_> {
    /// Keeps an event. One like the last of its container within a minute adds to that one's count instead, unless an
    /// operation did it. Answers its number.
    pub fn event(&self, e: &NewEvent<'_>) -> Result<i64> {
        let what = "keeping an event";
        let t = self.db();
        let operation = e.by.map(|(id, _)| id.to_string());
        let same = match operation {
            Some(_) => None,
            None => first(
                t,
                "SELECT id FROM event WHERE ctid=?1 AND kind=?2 AND text=?3 AND last BETWEEN ?4-60 AND ?4+60 \
                 AND operation IS NULL ORDER BY id DESC LIMIT 1",
                params![e.ctid.get(), e.kind, e.text, e.at as i64],
                |r| r.get::<_, i64>(0),
            )
            .ok()
            .flatten(),
        };
        if let Some(id) = same {
            self.execute(
                "UPDATE event SET count=count+?2, last=?3 WHERE id=?1",
                params![id, e.count as i64, e.at as i64],
            )?;
            return Ok(id);
        }
        t.prepare_cached(
            "INSERT INTO event(ctid, first, last, kind, counter, count, text, operation, asker) \
             VALUES(?1,?2,?2,?3,?4,?5,?6,?7,?8)",
        )
        .and_then(|mut q| {
            q.execute(params![
                e.ctid.get(),
                e.at as i64,
                e.kind,
                e.counter,
                e.count as i64,
                e.text,
                operation,
                e.by.map(|(_, asker)| asker)
            ])
        })
        .map_err(sqlite(what))?;
        let id = t.last_insert_rowid();
        // Not at each one: a container has room for some more than are kept.
        if id % 64 == 0 {
            self.execute(
                "DELETE FROM event WHERE ctid=?1 AND id <= (SELECT id FROM event WHERE ctid=?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
                params![e.ctid.get(), KEPT],
            )?;
        }
        Ok(id)
    }
}

/// Kinds of changes of state; every other kind is about a limit.
pub const CHANGES: &[&str] =
    &["created", "started", "booted", "rebooted", "stopped", "crashed", "changed", "destroyed", "found"];

impl EventRow {
    /// It is about a limit, and not about a change of state.
    pub fn is_limit(&self) -> bool {
        !CHANGES.contains(&self.kind.as_str())
    }
}

impl Inventory {
    /// Keeps an event. Answers its number.
    pub fn add_event(&self, e: &NewEvent<'_>) -> Result<i64> {
        self.change("keeping an event", false, |c| c.event(e))
    }

    /// The number of the newest event; 0 where there is none.
    pub fn last_event(&self) -> Result<i64> {
        self.db()
            .query_row("SELECT coalesce(max(id), 0) FROM event", [], |r| r.get(0))
            .map_err(sqlite("reading events"))
    }

    /// Forgets events that were over before this moment, in seconds since the epoch.
    pub fn prune_events(&self, before: u64) -> Result<usize> {
        let what = "forgetting old events";
        self.transaction(what, false, |t| {
            t.execute("DELETE FROM event WHERE last < ?1", [before as i64]).map_err(sqlite(what))
        })
    }

    /// Events after number `after`, of one container or of all, oldest first, at most `most` of the newest.
    pub fn events(&self, ctid: Option<Ctid>, after: i64, most: u32) -> Result<Vec<EventRow>> {
        let what = "reading events";
        let db = self.db();
        let mut q = db
            .prepare_cached(
                // After a number: on from there. Else the newest.
                "SELECT id, ctid, first, last, kind, counter, count, text, operation, asker FROM event \
                 WHERE id>?1 AND (?2 IS NULL OR ctid=?2) ORDER BY CASE WHEN ?1>0 THEN id ELSE -id END LIMIT ?3",
            )
            .map_err(sqlite(what))?;
        let rows = q
            .query_map(params![after, ctid.map(Ctid::get), most], |r| {
                let n = r.get::<_, u32>(1)?;
                // A row without a valid CTID is none of ours and left out.
                let Ok(ctid) = Ctid::try_from(n) else { return Ok(None) };
                Ok(Some(EventRow {
                    id: r.get(0)?,
                    ctid,
                    first: r.get::<_, i64>(2)?.unsigned_abs(),
                    last: r.get::<_, i64>(3)?.unsigned_abs(),
                    kind: r.get(4)?,
                    counter: r.get(5)?,
                    count: r.get::<_, i64>(6)?.unsigned_abs(),
                    text: r.get(7)?,
                    operation: r.get(8)?,
                    asker: r.get(9)?,
                }))
            })
            .map_err(sqlite(what))?;
        let mut out = Vec::new();
        for row in rows {
            out.extend(row.map_err(sqlite(what))?);
        }
        out.sort_unstable_by_key(|e: &EventRow| e.id);
        Ok(out)
    }
}
