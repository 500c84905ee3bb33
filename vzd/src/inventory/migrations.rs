//! The inventory's schema, as the numbered steps that led to it. Append only: a released step never
//! changes, because hosts have run it.

use rusqlite_migration::{M, Migrations};

/// Every step in order; SQLite's `user_version` is how many a database has seen.
pub const STEPS: &[M<'_>] = &[
    M::up(
        "CREATE TABLE host(
        key TEXT PRIMARY KEY,
        value TEXT NOT NULL
     ) STRICT;
     CREATE TABLE container(
        ctid INTEGER PRIMARY KEY,
        uuid TEXT NOT NULL UNIQUE,
        name TEXT UNIQUE,
        uid_base INTEGER NOT NULL UNIQUE,
        template TEXT NOT NULL,
        template_digest TEXT NOT NULL,
        layout TEXT NOT NULL,
        created INTEGER NOT NULL,
        last_exit TEXT,
        last_failure TEXT
     ) STRICT;
     CREATE TABLE address(
        ip TEXT PRIMARY KEY,
        ctid INTEGER NOT NULL REFERENCES container(ctid) ON DELETE CASCADE,
        saved INTEGER NOT NULL
     ) STRICT;
     CREATE INDEX address_ctid ON address(ctid);
     CREATE TABLE journal(
        ctid INTEGER PRIMARY KEY,
        op TEXT NOT NULL,
        step TEXT NOT NULL,
        payload TEXT NOT NULL,
        started INTEGER NOT NULL
     ) STRICT;",
    ),
    M::up(
        "CREATE TABLE counter(
        ctid INTEGER NOT NULL REFERENCES container(ctid) ON DELETE CASCADE,
        name TEXT NOT NULL,
        maxheld INTEGER NOT NULL,
        failcnt INTEGER NOT NULL,
        seen_fails INTEGER NOT NULL,
        peak_base INTEGER NOT NULL,
        PRIMARY KEY(ctid, name)
     ) STRICT;
     CREATE TABLE event(
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        ctid INTEGER NOT NULL REFERENCES container(ctid) ON DELETE CASCADE,
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        kind TEXT NOT NULL,
        counter TEXT,
        count INTEGER NOT NULL,
        text TEXT NOT NULL
     ) STRICT;
     CREATE INDEX event_ctid ON event(ctid, id);",
    ),
    M::up(
        "CREATE TABLE minute(
        ctid INTEGER NOT NULL REFERENCES container(ctid) ON DELETE CASCADE,
        at INTEGER NOT NULL,
        begins INTEGER NOT NULL,
        cpu INTEGER NOT NULL,
        memory INTEGER NOT NULL,
        io INTEGER NOT NULL,
        throttled INTEGER NOT NULL,
        PRIMARY KEY(ctid, at)
     ) STRICT, WITHOUT ROWID;",
    ),
    // Operations take the journal's place, states are stored, and events outlive their container.
    M::up(
        "CREATE TABLE operation(
        id TEXT PRIMARY KEY,
        kind TEXT NOT NULL,
        subject TEXT NOT NULL,
        name TEXT NOT NULL,
        asker TEXT NOT NULL,
        state TEXT NOT NULL,
        step TEXT NOT NULL,
        note TEXT NOT NULL,
        told TEXT NOT NULL,
        error TEXT,
        asked INTEGER NOT NULL,
        begun INTEGER,
        ended INTEGER
     ) STRICT;
     CREATE INDEX operation_open ON operation(subject, name) WHERE ended IS NULL;
     CREATE INDEX operation_ended ON operation(ended) WHERE ended IS NOT NULL;
     CREATE INDEX operation_of ON operation(subject, name, asked);
     CREATE INDEX operation_asked ON operation(asked);
     INSERT INTO operation SELECT '0' || substr(upper(hex(randomblob(13))), 1, 25), op, 'ct', ctid, 'vzd', 'running', step,
        '{\"v\":1,\"is\":' || payload || '}', '{}', NULL, started * 1000, started * 1000, NULL FROM journal;
     DROP TABLE journal;
     ALTER TABLE container ADD COLUMN state TEXT NOT NULL DEFAULT 'stopped';
     ALTER TABLE container ADD COLUMN trouble TEXT;
     CREATE TABLE happened(
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        ctid INTEGER NOT NULL,
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        kind TEXT NOT NULL,
        counter TEXT,
        count INTEGER NOT NULL,
        text TEXT NOT NULL,
        operation TEXT,
        asker TEXT
     ) STRICT;
     INSERT INTO happened SELECT id, ctid, first, last, kind, counter, count, text, NULL, NULL FROM event;
     DROP TABLE event;
     ALTER TABLE happened RENAME TO event;
     CREATE INDEX event_ctid ON event(ctid, id);
     CREATE INDEX event_last ON event(last);",
    ),
    // What was refused is kept as well, the same refusal once with a count; and of which boot was told last.
    M::up(
        "ALTER TABLE operation ADD COLUMN count INTEGER NOT NULL DEFAULT 1;
     ALTER TABLE operation ADD COLUMN refusal TEXT;
     CREATE INDEX operation_refusal ON operation(refusal, ended) WHERE refusal IS NOT NULL;
     CREATE INDEX operation_refused ON operation(subject, name, ended) WHERE refusal IS NOT NULL;
     CREATE INDEX operation_refused_all ON operation(ended) WHERE refusal IS NOT NULL;
     ALTER TABLE container ADD COLUMN boots INTEGER;",
    ),
    // Who joined an operation, made it hurry or cancelled it.
    M::up(
        "CREATE TABLE part(
        operation TEXT NOT NULL,
        how TEXT NOT NULL,
        asker TEXT NOT NULL,
        at INTEGER NOT NULL,
        number TEXT,
        text TEXT
     ) STRICT;
     CREATE INDEX part_operation ON part(operation);
     CREATE INDEX part_number ON part(number) WHERE number IS NOT NULL;
     CREATE INDEX part_at ON part(at);",
    ),
    // Ranges of ids besides the first.
    M::up("ALTER TABLE container ADD COLUMN uid_more TEXT NOT NULL DEFAULT '';"),
];

/// The steps, ready to run.
pub fn migrations() -> Migrations<'static> {
    Migrations::from_slice(STEPS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    #[test]
    fn every_version_reaches_the_latest() {
        migrations().validate().unwrap();
        for version in 0..=STEPS.len() {
            let mut db = Connection::open_in_memory().unwrap();
            migrations().to_version(&mut db, version).unwrap();
            migrations().to_latest(&mut db).unwrap();
            let tables: i64 = db
                .query_row("SELECT count(*) FROM sqlite_master WHERE type='table' AND name IN ('host','container','address','operation','counter','event','minute')", [], |r| r.get(0))
                .unwrap();
            assert_eq!(tables, 7);
        }
    }
}
