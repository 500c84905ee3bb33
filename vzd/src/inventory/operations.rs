//! Operations, under way, ended and refused: what a killed vzd left half done is known at the next start, and who asked for
//! what, when and with what outcome is known for as long as vz.toml says. Journal, audit log and history are one table.

use super::{Change, Error, Inventory, Result, sqlite};
use rusqlite::{OptionalExtension, Row, params};
use vz_types::{Ctid, OpId, OpKind, OpState, Subject};

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationRow {
    /// Its number.
    pub id: OpId,
    /// What it is.
    pub kind: OpKind,
    /// What it is about.
    pub subject: Subject,
    /// Who asked: `uid 0`, `vzd`.
    pub asker: String,
    /// Where it is.
    pub state: OpState,
    /// The step it is at, or ended at.
    pub step: String,
    /// What recovery needs beyond the facts on disk (JSON with its version).
    pub note: String,
    /// What it has told: facts and the times of its steps (JSON).
    pub told: String,
    /// Why it was not carried through (JSON).
    pub error: Option<String>,
    /// When it was asked for, in milliseconds since the epoch.
    pub asked: u64,
    /// When it began.
    pub begun: Option<u64>,
    /// When it ended.
    pub ended: Option<u64>,
    /// How often: more than once for what was refused again and again; `asked` and `ended` are the first and last time.
    pub count: u64,
}

/// Which operations are wanted. The default: all, the newest thousand.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Of this subject.
    pub subject: Option<Subject>,
    /// In one of these states; none of them and not `open`: any.
    pub states: Vec<OpState>,
    /// As well: those that have not ended, among them those that could be neither finished nor taken back.
    pub open: bool,
    /// The newest so many; 0: a thousand.
    pub most: u32,
}

const COLUMNS: &str = "id, kind, subject, name, asker, state, step, note, told, error, asked, begun, ended, count";

/// Refusals kept of one subject, and of all; the oldest go.
const REFUSALS: (u32, u32) = (100, 2000);
/// One like the last within this time, in milliseconds, adds to that one's count.
const SAME: u64 = 3_600_000;

impl Change<'_> {
    /// Writes an operation down as it is now. One that is gone on with and has not come to a step yet keeps the one it was
    /// cut short at: whoever goes on next has nothing else to go by.
    pub fn operation(&self, o: &OperationRow) -> Result<()> {
        let (subject, name) = o.subject.parts();
        self.execute(
            "INSERT INTO operation(id, kind, subject, name, asker, state, step, note, told, error, asked, begun, ended) \
             VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13) ON CONFLICT(id) DO UPDATE SET \
             state=?6, step=CASE ?7 WHEN '' THEN step ELSE ?7 END, note=?8, told=?9, error=?10, begun=?12, ended=?13",
            params![
                o.id.to_string(),
                o.kind.word(),
                subject,
                name,
                o.asker,
                o.state.word(),
                o.step,
                o.note,
                o.told,
                o.error,
                o.asked as i64,
                o.begun.map(|t| t as i64),
                o.ended.map(|t| t as i64)
            ],
        )
        .map(drop)
    }

    /// Keeps what came to nothing before it began: who asked for what, and why not. `cause` tells one refusal from
    /// another. The same one within an hour adds to the count of the last, unless this one is `kept` under its own number
    /// already. However often and however differently somebody is refused, the rows are bounded.
    pub fn refused(&self, o: &OperationRow, cause: &str, kept: bool) -> Result<()> {
        let (subject, name) = o.subject.parts();
        let key = format!("{subject}\n{name}\n{}\n{}\n{cause}", o.kind.word(), o.asker);
        let at = o.ended.unwrap_or(o.asked);
        if !kept {
            let again = self.execute(
                "UPDATE operation SET count=count+1, ended=?2, error=?3 WHERE id=\
                 (SELECT id FROM operation WHERE refusal=?1 AND ended>=?4 ORDER BY ended DESC LIMIT 1)",
                params![key, at as i64, o.error, at.saturating_sub(SAME) as i64],
            )?;
            if again > 0 {
                return Ok(());
            }
        }
        self.operation(o)?;
        self.execute("UPDATE operation SET refusal=?2 WHERE id=?1", params![o.id.to_string(), key])?;
        let (of_one, of_all) = REFUSALS;
        self.execute(
            "DELETE FROM operation WHERE id IN (SELECT id FROM operation \
             WHERE refusal IS NOT NULL AND subject=?1 AND name=?2 AND ended IS NOT NULL ORDER BY ended DESC LIMIT -1 OFFSET ?3)",
            params![subject, name, of_one],
        )?;
        self.execute(
            "DELETE FROM operation WHERE id IN (SELECT id FROM operation \
             WHERE refusal IS NOT NULL AND ended IS NOT NULL ORDER BY ended DESC LIMIT -1 OFFSET ?1)",
            params![of_all],
        )
        .map(drop)
    }

    /// Notes the step an operation has begun.
    pub fn operation_step(&self, id: OpId, step: &str) -> Result<()> {
        self.execute("UPDATE operation SET step=?2 WHERE id=?1", params![id.to_string(), step]).map(drop)
    }

    /// Replaces what recovery is told.
    pub fn operation_note(&self, id: OpId, note: &str) -> Result<()> {
        self.execute("UPDATE operation SET note=?2 WHERE id=?1", params![id.to_string(), note]).map(drop)
    }

    /// Ends what was left open on a container by others than this one: there is nothing left of it to be finished.
    pub fn end_operations(&self, ctid: Ctid, but: OpId, now: u64) -> Result<()> {
        self.execute(
            "UPDATE operation SET ended=?3 WHERE ended IS NULL AND state<>'queued' AND subject='ct' AND name=?1 AND id<>?2",
            params![ctid.to_string(), but.to_string(), now as i64],
        )
        .map(drop)
    }

    /// Forgets operations that ended before this moment (milliseconds since the epoch). Says how many.
    pub fn prune_operations(&self, before: u64) -> Result<usize> {
        self.execute("DELETE FROM operation WHERE ended < ?1", [before as i64])
    }
}

impl Inventory {
    /// The operation of this number, or the one that whoever asked under it joined.
    pub fn operation(&self, id: OpId) -> Result<Option<OperationRow>> {
        match self.operation_itself(id)? {
            None => match self.joined(id)? {
                Some(other) => self.operation_itself(other),
                None => Ok(None),
            },
            found => Ok(found),
        }
    }

    fn operation_itself(&self, id: OpId) -> Result<Option<OperationRow>> {
        let what = "looking an operation up";
        let db = self.db();
        let mut q = db.prepare_cached(&format!("SELECT {COLUMNS} FROM operation WHERE id=?1")).map_err(sqlite(what))?;
        q.query_row([id.to_string()], |r| Ok(operation_row(r))).optional().map_err(sqlite(what))?.transpose()
    }

    /// Every operation that has not ended, the oldest first. A row that cannot be read is an error of its own, so that
    /// one does not hide the others.
    pub fn open_operations(&self) -> Result<Vec<Result<OperationRow>>> {
        let what = "reading operations";
        let db = self.db();
        let mut q = db
            .prepare(&format!("SELECT {COLUMNS} FROM operation WHERE ended IS NULL ORDER BY asked, id"))
            .map_err(sqlite(what))?;
        let rows = q.query_map([], |r| Ok(operation_row(r))).map_err(sqlite(what))?;
        rows.map(|r| r.map_err(sqlite(what))).collect()
    }

    /// The operations wanted, the newest first.
    pub fn operations(&self, wanted: &Wanted) -> Result<Vec<OperationRow>> {
        let what = "reading operations";
        let (subject, name) = wanted.subject.as_ref().map(Subject::parts).unzip();
        let states: Vec<&str> = wanted.states.iter().map(|s| s.word()).collect();
        // Words of an enum: nothing of a client's is in the text.
        let of = match (states.is_empty(), wanted.open) {
            (true, false) => String::new(),
            (_, open) => {
                let open = if open { "OR ended IS NULL" } else { "" };
                format!("AND (state IN ('{}') {open})", states.join("','"))
            }
        };
        let most = if wanted.most == 0 { 1000 } else { wanted.most.min(10_000) };
        let db = self.db();
        let mut q = db
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM operation WHERE (?1 IS NULL OR (subject=?1 AND name=?2)) {of} \
                 ORDER BY asked DESC, id DESC LIMIT ?3"
            ))
            .map_err(sqlite(what))?;
        let rows = q.query_map(params![subject, name, most], |r| Ok(operation_row(r))).map_err(sqlite(what))?;
        // One that no version of ours has written is left out of a list.
        Ok(rows.filter_map(|r| r.ok()?.ok()).collect())
    }

    /// The operation of a container that has not ended, or could be neither finished nor taken back.
    pub fn operation_open_on(&self, ctid: Ctid) -> Result<Option<OperationRow>> {
        let what = "looking for an open operation";
        let db = self.db();
        let mut q = db
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM operation WHERE ended IS NULL AND state<>'queued' AND subject='ct' AND name=?1 \
                 ORDER BY asked LIMIT 1"
            ))
            .map_err(sqlite(what))?;
        q.query_row([ctid.to_string()], |r| Ok(operation_row(r))).optional().map_err(sqlite(what))?.transpose()
    }
}

fn operation_row(r: &Row<'_>) -> Result<OperationRow> {
    let what = "reading an operation";
    let text = |i: usize| r.get::<_, String>(i).map_err(sqlite(what));
    let time = |i: usize| r.get::<_, Option<i64>>(i).map(|t| t.map(i64::unsigned_abs)).map_err(sqlite(what));
    let id = text(0)?;
    let bad = |cause: &str| Error::BadOperation { id: id.clone(), cause: cause.to_owned() };
    Ok(OperationRow {
        id: id.parse().map_err(|_| bad("its number is none"))?,
        kind: OpKind::of(&text(1)?).ok_or_else(|| bad("it is of a kind this version does not know"))?,
        subject: Subject::of(&text(2)?, &text(3)?).ok_or_else(|| bad("its subject is none"))?,
        asker: text(4)?,
        state: OpState::of(&text(5)?).ok_or_else(|| bad("its state is none"))?,
        step: text(6)?,
        note: text(7)?,
        told: text(8)?,
        error: r.get(9).map_err(sqlite(what))?,
        asked: time(10)?.unwrap_or_default(),
        begun: time(11)?,
        ended: time(12)?,
        count: time(13)?.unwrap_or(1),
    })
}
