//! The layout of the database. A layout is never changed once released; a new one is a migration at the end of the list.

use rusqlite::{Connection, TransactionBehavior};

use crate::CatalogError;

/// `SEAW`: marks the file as ours.
pub(super) const APPLICATION_ID: i32 = 0x5345_4157;

/// Each brings the layout from its position to the next.
const MIGRATIONS: &[&str] = &["
    -- The truth. `ends` is the slot that a receipt ends: each slot once.
    CREATE TABLE receipt (
        sequence INTEGER PRIMARY KEY CHECK (sequence > 0),
        digest   TEXT NOT NULL UNIQUE,
        act      TEXT NOT NULL,
        service  TEXT,
        run      TEXT,
        ends     INTEGER REFERENCES receipt (sequence),
        line     TEXT NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX receipt_ends ON receipt (ends) WHERE ends IS NOT NULL;
    CREATE INDEX receipt_run ON receipt (run) WHERE run IS NOT NULL;
    CREATE INDEX receipt_service ON receipt (service, act, sequence);
    CREATE TRIGGER receipt_is_never_changed BEFORE UPDATE ON receipt
        BEGIN SELECT RAISE (ABORT, 'a receipt is never changed'); END;
    CREATE TRIGGER receipt_is_never_removed BEFORE DELETE ON receipt
        BEGIN SELECT RAISE (ABORT, 'a receipt is never removed'); END;

    -- Derived. `fact` is canonical JSON.
    CREATE TABLE recovery_point (
        repository TEXT NOT NULL,
        copy       TEXT NOT NULL,
        service    TEXT NOT NULL,
        source     TEXT NOT NULL,
        sequence   INTEGER NOT NULL,
        fact       TEXT NOT NULL,
        PRIMARY KEY (repository, copy)
    ) STRICT;
    CREATE INDEX recovery_point_service ON recovery_point (service, source, sequence);
    CREATE TABLE service_state (
        service TEXT NOT NULL,
        source  TEXT NOT NULL,
        fact    TEXT NOT NULL,
        PRIMARY KEY (service, source)
    ) STRICT, WITHOUT ROWID;

    -- Who does what. One generation for all names, so that released claims need not be remembered.
    CREATE TABLE generation (last INTEGER NOT NULL) STRICT;
    INSERT INTO generation VALUES (0);
    CREATE TABLE claim (
        name       TEXT PRIMARY KEY,
        generation INTEGER NOT NULL,
        holder     TEXT NOT NULL,
        until      TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE journal (
        position   INTEGER PRIMARY KEY,
        name       TEXT NOT NULL REFERENCES claim (name) ON DELETE CASCADE,
        generation INTEGER NOT NULL,
        event      BLOB NOT NULL
    ) STRICT;
    CREATE INDEX journal_name ON journal (name, position);
"];

/// The newest layout that this version knows.
pub(super) fn known() -> u32 {
    u32::try_from(MIGRATIONS.len()).expect("a handful of migrations")
}

/// Brings the layout up to date, or says why that is impossible.
pub(super) fn migrate(connection: &mut Connection, path: &std::path::Path) -> Result<(), CatalogError> {
    let read = |connection: &Connection| -> rusqlite::Result<(i32, u32, u32)> {
        Ok((
            connection.query_row("PRAGMA application_id", [], |row| row.get(0))?,
            connection.query_row("PRAGMA user_version", [], |row| row.get(0))?,
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?,
        ))
    };
    let check = |(application, layout, objects): (i32, u32, u32)| {
        if application != APPLICATION_ID && (application != 0 || layout != 0 || objects != 0) {
            return Err(CatalogError::Foreign(path.to_owned()));
        }
        if layout > known() {
            return Err(CatalogError::Newer { found: layout, known: known() });
        }
        Ok(layout)
    };
    if check(read(connection)?)? == known() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been faster.
    let layout = check(read(&transaction)?)?;
    for migration in MIGRATIONS.iter().skip(usize::try_from(layout).unwrap_or(usize::MAX)) {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", known())?;
    transaction.commit()?;
    Ok(())
}
