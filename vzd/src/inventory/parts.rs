//! Who else had a part in an operation than who asked for it: joined it, made it hurry, cancelled it, or found it failed. A
//! part of the audit log; and under the number of whoever joined the operation is found.

use super::{Change, Inventory, Result, sqlite};
use rusqlite::{OptionalExtension, Row, params};
use vz_types::OpId;

/// Parts kept of one operation: a client that asks in a loop fills nothing.
const MOST: u32 = 50;

/// A part somebody had in an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Of which.
    pub operation: OpId,
    /// `joined`, `hurried`, `cancelled`, `interrupted` or `failed`.
    pub how: String,
    /// Who.
    pub asker: String,
    /// When, in milliseconds since the epoch.
    pub at: u64,
    /// The number it was asked for under, or what interrupted it.
    pub number: Option<OpId>,
    /// What it came to then.
    pub text: Option<String>,
}

impl Change<'_> {
    /// Keeps a part.
    pub fn part(&self, p: &Part) -> Result<()> {
        self.execute(
            "INSERT INTO part(operation, how, asker, at, number, text) SELECT ?1,?2,?3,?4,?5,?6 \
             WHERE (SELECT count(*) FROM part WHERE operation=?1) < ?7",
            params![
                p.operation.to_string(),
                p.how,
                p.asker,
                p.at as i64,
                p.number.map(|n| n.to_string()),
                p.text,
                MOST
            ],
        )
        .map(drop)
    }

    /// Forgets parts of before this moment.
    pub fn prune_parts(&self, before: u64) -> Result<usize> {
        self.execute("DELETE FROM part WHERE at < ?1", [before as i64])
    }
}

impl Inventory {
    /// The operation that whoever asked under this number joined.
    pub fn joined(&self, number: OpId) -> Result<Option<OpId>> {
        let what = "looking up who joined";
        let db = self.db();
        let mut q = db
            .prepare_cached("SELECT operation FROM part WHERE number=?1 AND how IN ('joined', 'hurried') LIMIT 1")
            .map_err(sqlite(what))?;
        let id: Option<String> = q.query_row([number.to_string()], |r| r.get(0)).optional().map_err(sqlite(what))?;
        Ok(id.and_then(|id| id.parse().ok()))
    }

    /// Parts in one operation, or in any that was asked for since `since`; the oldest first.
    pub fn parts(&self, of: Option<OpId>, since: u64) -> Result<Vec<Part>> {
        let what = "reading who had a part";
        let db = self.db();
        let mut q = db
            .prepare_cached(
                "SELECT operation, how, asker, at, number, text FROM part \
                 WHERE (?1 IS NULL OR operation=?1) AND at>=?2 ORDER BY at, rowid",
            )
            .map_err(sqlite(what))?;
        let rows = q
            .query_map(params![of.map(|id| id.to_string()), since as i64], |r| Ok(part_row(r)))
            .map_err(sqlite(what))?;
        // One that no version of ours has written is left out.
        Ok(rows.filter_map(|r| r.ok()?).collect())
    }
}

fn part_row(r: &Row<'_>) -> Option<Part> {
    let id = |i: usize| r.get::<_, Option<String>>(i).ok()?.and_then(|text| text.parse().ok());
    Some(Part {
        operation: id(0)?,
        how: r.get(1).ok()?,
        asker: r.get(2).ok()?,
        at: r.get::<_, i64>(3).ok()?.unsigned_abs(),
        number: id(4),
        text: r.get(5).ok()?,
    })
}
