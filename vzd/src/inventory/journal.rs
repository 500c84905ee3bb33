//! The journal: one open row per container with an operation under way, so that whatever a killed vzd left half done is
//! known at the next start.

use super::{Error, Inventory, Result, now, sqlite};
use rusqlite::{Transaction, params};
use vz_types::{Ctid, state::Op};

/// One operation under way, or interrupted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalRow {
    /// The container.
    pub ctid: Ctid,
    /// The operation.
    pub op: Op,
    /// The last step that was begun.
    pub step: String,
    /// What recovery needs beyond the facts on disk (JSON).
    pub payload: String,
    /// Seconds since the epoch.
    pub started: u64,
}

impl Inventory {
    /// Opens the journal row of an operation; `durable` when this is the operation's point of no return.
    pub fn journal_open(&self, op: Op, ctid: Ctid, payload: &str, durable: bool) -> Result<()> {
        self.transaction("opening the journal", durable, |t| open(t, op, ctid, payload))
    }

    /// Notes the step an operation has begun.
    pub fn journal_step(&self, ctid: Ctid, step: &str) -> Result<()> {
        self.transaction("noting a step", false, |t| {
            t.prepare_cached("UPDATE journal SET step=?2 WHERE ctid=?1")
                .and_then(|mut q| q.execute(params![ctid.get(), step]))
                .map_err(sqlite("noting a step"))
                .map(drop)
        })
    }

    /// Replaces what recovery is told.
    pub fn journal_payload(&self, ctid: Ctid, payload: &str) -> Result<()> {
        self.set_text("UPDATE journal SET payload=?2 WHERE ctid=?1", ctid, Some(payload))
    }

    /// Closes a container's journal row.
    pub fn journal_close(&self, ctid: Ctid, durable: bool) -> Result<()> {
        self.transaction("closing the journal", durable, |t| close(t, ctid))
    }

    /// The open journal row of a container.
    pub fn journal_of(&self, ctid: Ctid) -> Result<Option<JournalRow>> {
        let open = {
            let db = self.db();
            let mut q = db
                .prepare_cached("SELECT 1 FROM journal WHERE ctid=?1")
                .map_err(sqlite("looking for an open operation"))?;
            q.exists([ctid.get()]).map_err(sqlite("looking for an open operation"))?
        };
        // The rare case: the whole table is a handful of rows.
        if !open {
            return Ok(None);
        }
        Ok(self.journal()?.into_iter().find(|row| row.ctid == ctid))
    }

    /// Every open journal row.
    pub fn journal(&self) -> Result<Vec<JournalRow>> {
        let db = self.db();
        let mut q = db
            .prepare_cached("SELECT ctid, op, step, payload, started FROM journal ORDER BY started, ctid")
            .map_err(sqlite("reading the journal"))?;
        let rows = q
            .query_map([], |r| {
                Ok((
                    r.get::<_, i64>(0)?,
                    r.get::<_, String>(1)?,
                    r.get::<_, String>(2)?,
                    r.get::<_, String>(3)?,
                    r.get::<_, i64>(4)?,
                ))
            })
            .map_err(sqlite("reading the journal"))?;
        rows.map(|r| {
            let (ctid, op, step, payload, started) = r.map_err(sqlite("reading the journal"))?;
            let bad = |cause: String| Error::BadRow { ctid, cause };
            Ok(JournalRow {
                ctid: u32::try_from(ctid)
                    .map_err(|e| bad(e.to_string()))?
                    .try_into()
                    .map_err(|e: vz_types::ctid::CtidError| bad(e.to_string()))?,
                op: serde_json::from_value(op.into()).map_err(|e| bad(e.to_string()))?,
                step,
                payload,
                started: started.unsigned_abs(),
            })
        })
        .collect()
    }
}

pub(super) fn open(t: &Transaction<'_>, op: Op, ctid: Ctid, payload: &str) -> Result<()> {
    t.execute(
        "INSERT INTO journal VALUES(?1,?2,'journal',?3,?4)",
        params![ctid.get(), op.word(), payload, now() as i64],
    )
    .map_err(sqlite("opening the journal"))
    .map(drop)
}

pub(super) fn close(t: &Transaction<'_>, ctid: Ctid) -> Result<()> {
    t.execute("DELETE FROM journal WHERE ctid=?1", [ctid.get()]).map_err(sqlite("closing the journal")).map(drop)
}
