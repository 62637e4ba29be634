//! The SQLite source against real databases: writers that write, restores that were tampered with, healthy oddities.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use seaworthy_drivers::source::sqlite::{PageRoute, SqliteSource};
use seaworthy_interface::{Captured, CopyPath, Cx, DriverError, ErrorKind, NewTarget, Restored, Source as _};
use seaworthy_model::check::{Question, UserCheck};
use seaworthy_model::finding::FindingCode;
use seaworthy_model::id::CheckName;
use seaworthy_model::receipt::is_found;
use seaworthy_model::source::SqliteSpec;
use seaworthy_model::verdict::{Assurance, CheckOutcome, CheckReport, Verdict, judge};
use seaworthy_model::witness::Witness;
use seaworthy_testkit::copy::{FsCopyReader, FsCopyWriter};
use seaworthy_testkit::sandbox::DirectorySandbox;

const ROUTES: [PageRoute; 2] = [PageRoute::Direct, PageRoute::Staged];

struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn database(&self) -> PathBuf {
        self.root.path().join("shop.db")
    }

    fn open(&self) -> Connection {
        let connection = Connection::open(self.database()).unwrap();
        connection.busy_timeout(Duration::from_secs(30)).unwrap();
        connection
    }

    fn with(sql: &str) -> Self {
        let place = Self::new();
        place.open().execute_batch(sql).unwrap();
        place
    }

    fn source(&self) -> SqliteSource {
        let spec = SqliteSpec {
            path: self.database().to_str().unwrap().to_owned(),
            busy_timeout: SignedDuration::from_secs(30),
            may_be_empty: false,
        };
        SqliteSource::new(spec, self.root.path().join("scratch"))
    }

    async fn capture(&self, route: PageRoute) -> Result<(Captured, FsCopyReader), DriverError> {
        let place = tempfile::tempdir_in(self.root.path()).unwrap().keep();
        let writer = Arc::new(FsCopyWriter::new(place).unwrap());
        let captured = self.source().with_route(route).capture(&Cx::unbounded(), writer.clone()).await?;
        Ok((captured, writer.commit()?))
    }

    async fn restore(&self, witness: &Witness, reader: &FsCopyReader) -> Scratch {
        let sandbox = Arc::new(DirectorySandbox::new().unwrap());
        let path = seaworthy_interface::Sandbox::root(&*sandbox).join("restored.sqlite");
        let restored = self
            .source()
            .restore(&Cx::unbounded(), witness, Arc::new(reader.clone()), sandbox)
            .await
            .unwrap();
        Scratch { restored, path }
    }

    /// Backup, restore, all checks.
    async fn drill(&self, route: PageRoute) -> (Captured, Vec<CheckReport>, Scratch) {
        let (captured, reader) = self.capture(route).await.unwrap();
        let scratch = self.restore(&captured.witness, &reader).await;
        let reports = scratch.compare(&captured.witness).await;
        (captured, reports, scratch)
    }
}

struct Scratch {
    restored: Box<dyn Restored>,
    path: PathBuf,
}

impl Scratch {
    async fn compare(&self, expected: &Witness) -> Vec<CheckReport> {
        self.restored.compare(&Cx::unbounded(), expected).await.unwrap()
    }

    /// Opens the restore the way a saboteur would: nothing forbidden.
    fn tamper(&self, sql: &str) {
        let connection = Connection::open(&self.path).unwrap();
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false).unwrap();
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false).unwrap();
        connection.execute_batch(sql).unwrap();
    }
}

fn verdict(expected: &Witness, reports: &[CheckReport]) -> Verdict {
    judge(&expected.checks(), reports, Assurance::A4)
}

fn assert_equal(captured: &Captured, reports: &[CheckReport]) {
    let bad: Vec<_> = reports.iter().filter(|report| report.outcome != CheckOutcome::Passed).collect();
    assert_eq!(verdict(&captured.witness, reports), Verdict::Pass(Assurance::A4), "{bad:#?}");
}

fn codes(reports: &[CheckReport]) -> Vec<FindingCode> {
    reports.iter().flat_map(|report| &report.findings).map(|finding| finding.code).collect()
}

fn rows(path: &Path, table: &str) -> i64 {
    let connection = Connection::open(path).unwrap();
    connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

/// Writes in pairs of tables that must agree, until told to stop. Returns how many transactions it committed.
fn writer(path: PathBuf, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut connection = Connection::open(path).unwrap();
        connection.busy_timeout(Duration::from_secs(60)).unwrap();
        connection.pragma_update(None, "synchronous", "OFF").unwrap();
        let mut committed = 0;
        while !stop.load(Ordering::Relaxed) {
            let transaction =
                connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
            for _ in 0..5 {
                transaction.execute("INSERT INTO orders(note) VALUES (hex(randomblob(200)))", []).unwrap();
                transaction.execute("INSERT INTO payments(note) VALUES (hex(randomblob(200)))", []).unwrap();
            }
            transaction
                .execute("UPDATE orders SET note = note || '.' WHERE id % 7 = 0 AND id < 200", [])
                .unwrap();
            transaction.commit().unwrap();
            committed += 1;
        }
        committed
    })
}

const SHOP: &str = "
    CREATE TABLE orders(id INTEGER PRIMARY KEY AUTOINCREMENT, note TEXT);
    CREATE TABLE payments(id INTEGER PRIMARY KEY AUTOINCREMENT, note TEXT);
    CREATE INDEX orders_by_note ON orders(note);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
    INSERT INTO orders(note) SELECT hex(randomblob(100)) FROM n;
    INSERT INTO payments(note) SELECT note FROM orders;";

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_written_to_comes_back_equal_and_consistent() {
    for (journal, route) in [
        ("WAL", PageRoute::Direct),
        ("WAL", PageRoute::Staged),
        ("DELETE", PageRoute::Direct),
        ("DELETE", PageRoute::Staged),
        ("WAL", PageRoute::Automatic),
        ("DELETE", PageRoute::Automatic),
    ] {
        let place = Place::with(&format!("PRAGMA journal_mode = {journal}; {SHOP}"));
        let stop = Arc::new(AtomicBool::new(false));
        let writing = writer(place.database(), Arc::clone(&stop));
        for _ in 0..5 {
            let before = rows(&place.database(), "orders");
            let (captured, reports, scratch) = place.drill(route).await;
            assert_equal(&captured, &reports);
            assert!(captured.findings.is_empty(), "{:?}", captured.findings);
            assert_eq!(rows(&scratch.path, "orders"), rows(&scratch.path, "payments"), "torn across tables");
            assert!(rows(&scratch.path, "orders") >= before);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(writing.join().unwrap() > 0, "the writer must have written");
        assert!(!place.root.path().join("scratch").exists() || is_empty(&place.root.path().join("scratch")));
    }
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}

#[tokio::test(flavor = "multi_thread")]
async fn copying_the_file_loses_what_the_log_holds_and_we_do_not() {
    let place = Place::with(&format!("PRAGMA journal_mode = WAL; {SHOP}"));
    let connection = place.open();
    connection.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    for _ in 0..5000 {
        connection.execute("INSERT INTO orders(note) VALUES ('committed')", []).unwrap();
    }
    let copied = place.root.path().join("copied.db");
    fs::copy(place.database(), &copied).unwrap();
    assert_eq!(rows(&copied, "orders"), 2000);
    for route in ROUTES {
        let (captured, reports, scratch) = place.drill(route).await;
        assert_equal(&captured, &reports);
        assert_eq!(rows(&scratch.path, "orders"), 7000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_line_is_always_noticed_with_the_right_code() {
    let place = Place::with(&format!("PRAGMA journal_mode = WAL; {SHOP}"));
    let (captured, reader) = place.capture(PageRoute::Automatic).await.unwrap();
    let mut kinds = std::collections::BTreeSet::new();
    for seed in 0..24 {
        let scratch = place.restore(&captured.witness, &reader).await;
        assert_equal(&captured, &scratch.compare(&captured.witness).await);
        let damage = scratch.restored.damage(&Cx::unbounded(), &captured.witness, seed).await.unwrap();
        let reports = scratch.compare(&captured.witness).await;
        assert_eq!(verdict(&captured.witness, &reports), Verdict::Fail, "{damage:?}");
        let is_found = is_found(&reports, &damage.expected, &damage.checks);
        assert!(is_found && !damage.checks.is_empty(), "{damage:?} found {:?}", codes(&reports));
        kinds.insert(damage.expected[0]);
    }
    assert_eq!(kinds.len(), 4, "each kind of damage must have been tried: {kinds:?}");
}

/// Everything a healthy database may hold.
const ODDITIES: &str = "
    PRAGMA application_id = 1279349571; PRAGMA user_version = -7;
    CREATE TABLE numbers(a, b);
    INSERT INTO numbers VALUES (NULL, ''), ('', NULL), (1, 1.0), ('1', x'31'), (-0.0, 0.0), (9e999, -9e999),
        (9223372036854775807, -9223372036854775808), (1, 1.0), (1e-320, 'nul' || char(0) || 'inside');
    CREATE TABLE wanting_rowid(k TEXT PRIMARY KEY, v BLOB) WITHOUT ROWID;
    INSERT INTO wanting_rowid VALUES ('b', zeroblob(300000)), ('a', randomblob(70000));
    CREATE TABLE shadowed(rowid TEXT, _rowid_ TEXT, oid TEXT);
    INSERT INTO shadowed VALUES ('x', 'y', 'z');
    CREATE TABLE \"odd \"\"name\n🐳\"(\"col \"\"x\" TEXT, \"select\" INT);
    INSERT INTO \"odd \"\"name\n🐳\" VALUES ('é', 1);
    CREATE TABLE generated(a INT, v INT AS (a * 2) VIRTUAL, s TEXT AS (a || 's') STORED);
    INSERT INTO generated(a) VALUES (1), (2);
    CREATE TABLE strictly(i INTEGER PRIMARY KEY, t TEXT NOT NULL CHECK (length(t) < 10), n ANY) STRICT;
    INSERT INTO strictly VALUES (5, 'five', 5.0);
    CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT, x);
    INSERT INTO counted(id, x) VALUES (41, 'a'); DELETE FROM counted; INSERT INTO counted(x) VALUES ('b');
    CREATE TABLE empty(a);
    CREATE TABLE parent(id INTEGER PRIMARY KEY); INSERT INTO parent VALUES (1);
    CREATE TABLE child(p INTEGER REFERENCES parent(id) DEFERRABLE); INSERT INTO child VALUES (1), (NULL);
    CREATE UNIQUE INDEX partial ON numbers(a) WHERE a > 100;
    CREATE INDEX expression ON strictly(upper(t) COLLATE NOCASE DESC);
    CREATE VIEW doubled AS SELECT a * 2 AS twice FROM generated;
    CREATE TRIGGER follows AFTER INSERT ON child BEGIN INSERT INTO empty VALUES (1); DELETE FROM empty; END;
    CREATE VIRTUAL TABLE found USING fts5(body, title); INSERT INTO found VALUES ('the sea is worthy', 'sea');
    CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1); INSERT INTO boxes VALUES (1, 0, 2);
    ANALYZE;";

#[tokio::test(flavor = "multi_thread")]
async fn odd_but_healthy_databases_come_back_equal_and_silent() {
    for setup in [
        "PRAGMA journal_mode = WAL;",
        "PRAGMA page_size = 512; PRAGMA auto_vacuum = FULL;",
        "PRAGMA page_size = 65536; PRAGMA auto_vacuum = INCREMENTAL; VACUUM; PRAGMA journal_mode = WAL;",
        "PRAGMA encoding = 'UTF-16le'; PRAGMA journal_mode = TRUNCATE;",
        "PRAGMA encoding = 'UTF-16be'; PRAGMA journal_mode = PERSIST;",
    ] {
        let place = Place::with(&format!("{setup} {ODDITIES}"));
        place
            .open()
            .execute_batch("DROP TABLE IF EXISTS gone; CREATE TABLE gone(a); DROP TABLE gone;")
            .unwrap();
        for route in ROUTES {
            let (captured, reports, scratch) = place.drill(route).await;
            assert_equal(&captured, &reports);
            assert!(captured.findings.is_empty(), "{setup}: {:?}", captured.findings);
            let report = scratch.restored.write_probe(&Cx::unbounded()).await.unwrap();
            assert_eq!(report.outcome, CheckOutcome::Passed, "{report:?}");
            assert_equal(&captured, &scratch.compare(&captured.witness).await);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_routes_measure_the_same_database_alike() {
    let place = Place::with(&format!("PRAGMA journal_mode = WAL; {ODDITIES}"));
    let tables = |captured: &Captured| match &captured.witness {
        Witness::Sqlite(witness) => {
            (witness.tables.clone(), witness.objects.clone(), witness.properties.clone())
        }
        Witness::Postgres(_) | Witness::Files(_) => panic!("not SQLite"),
    };
    let (direct, _) = place.capture(PageRoute::Direct).await.unwrap();
    let (staged, _) = place.capture(PageRoute::Staged).await.unwrap();
    assert_eq!(tables(&direct), tables(&staged));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_leaves_nothing_beside_the_source_and_does_not_change_it() {
    for journal in ["WAL", "DELETE"] {
        let place = Place::with(&format!("PRAGMA journal_mode = {journal}; {SHOP}"));
        let names = || {
            let mut names: Vec<_> =
                fs::read_dir(place.root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.retain(|name| name.to_str().unwrap().starts_with("shop"));
            names.sort();
            names
        };
        let (before, bytes) = (names(), fs::read(place.database()).unwrap());
        for route in ROUTES {
            place.capture(route).await.unwrap();
            assert_eq!(fs::read(place.database()).unwrap(), bytes, "{journal} {route:?}");
        }
        assert_eq!(names(), before, "{journal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sabotage_is_found_under_its_code() {
    let place = Place::with(&format!("PRAGMA journal_mode = WAL; {ODDITIES}"));
    place
        .open()
        .execute_batch(
            "CREATE TABLE twin(id INTEGER PRIMARY KEY, x TEXT); INSERT INTO twin VALUES (1, 'left'), (2, 'same');
             CREATE TABLE other(id INTEGER PRIMARY KEY, x TEXT); INSERT INTO other VALUES (1, 'right'), (2, 'same');
             CREATE INDEX by_x ON twin(x);",
        )
        .unwrap();
    let (captured, reader) = place.capture(PageRoute::Automatic).await.unwrap();
    let rows = [
        ("a value changed", "UPDATE strictly SET t = 'fixe'", FindingCode::RowContent),
        ("a row lost", "DELETE FROM numbers WHERE rowid = 3", FindingCode::RowCount),
        (
            "one row lost, another doubled",
            "DELETE FROM numbers WHERE rowid = 1; INSERT INTO numbers(rowid, a, b) SELECT 1, a, b FROM numbers WHERE rowid = 3",
            FindingCode::RowContent,
        ),
        (
            "rows swapped between twin tables",
            "UPDATE twin SET x = 'right' WHERE id = 1; UPDATE other SET x = 'left' WHERE id = 1",
            FindingCode::RowContent,
        ),
        ("minus zero became zero", "UPDATE numbers SET a = 0.0 WHERE rowid = 5", FindingCode::RowContent),
        ("empty became NULL", "UPDATE numbers SET a = NULL WHERE rowid = 2", FindingCode::RowContent),
        ("text became a blob", "UPDATE numbers SET a = x'31' WHERE rowid = 4", FindingCode::RowContent),
        ("an integer became a real", "UPDATE numbers SET a = 1.0 WHERE rowid = 3", FindingCode::RowContent),
        ("a table lost", "DROP TABLE twin", FindingCode::RelationMissing),
        ("an empty table lost", "DROP TABLE empty", FindingCode::RelationMissing),
        ("a table that was never there", "CREATE TABLE planted(a)", FindingCode::RelationMissing),
        ("an index lost", "DROP INDEX by_x", FindingCode::ConstraintOrIndex),
        (
            "a unique index made plain",
            "DROP INDEX partial; CREATE INDEX partial ON numbers(a) WHERE a > 100",
            FindingCode::ConstraintOrIndex,
        ),
        ("a trigger lost", "DROP TRIGGER follows", FindingCode::RoutineOrTrigger),
        (
            "a trigger made a no-op",
            "DROP TRIGGER follows; CREATE TRIGGER follows AFTER INSERT ON child BEGIN SELECT 1; END",
            FindingCode::RoutineOrTrigger,
        ),
        (
            "a view changed",
            "DROP VIEW doubled; CREATE VIEW doubled AS SELECT a * 3 AS twice FROM generated",
            FindingCode::DefinitionDiffers,
        ),
        ("a column added", "ALTER TABLE empty ADD COLUMN b", FindingCode::DefinitionDiffers),
        ("a sequence rewound", "UPDATE sqlite_sequence SET seq = 1", FindingCode::SequencePosition),
        ("the version lost", "PRAGMA user_version = 0", FindingCode::SettingsDiffer),
        ("the application id lost", "PRAGMA application_id = 0", FindingCode::SettingsDiffer),
        ("orphans", "INSERT INTO child VALUES (99)", FindingCode::ReferenceBroken),
        ("one orphan for one row", "UPDATE child SET p = 99 WHERE p = 1", FindingCode::ReferenceBroken),
        (
            "a full-text index out of step",
            "DELETE FROM found_data WHERE id > 10",
            FindingCode::ObjectUnusable,
        ),
        (
            "an entry of an index removed",
            // The index is hidden while the row is put back, so that only its entry is missing.
            "PRAGMA writable_schema = ON; DELETE FROM twin WHERE id = 1;
             CREATE TEMP TABLE kept AS SELECT * FROM sqlite_schema WHERE name = 'by_x';
             DELETE FROM sqlite_schema WHERE name = 'by_x'; PRAGMA writable_schema = RESET;
             INSERT INTO twin VALUES (1, 'left');
             PRAGMA writable_schema = ON; INSERT INTO sqlite_schema SELECT * FROM kept;",
            FindingCode::Corruption,
        ),
        ("repacked", "VACUUM", FindingCode::FileContent),
    ];
    for (what, sql, code) in rows {
        let scratch = place.restore(&captured.witness, &reader).await;
        scratch.tamper(sql);
        let reports = scratch.compare(&captured.witness).await;
        assert_eq!(verdict(&captured.witness, &reports), Verdict::Fail, "{what}");
        assert!(codes(&reports).contains(&code), "{what}: {reports:#?}");
    }
}

/// Damage below SQL: every byte of the image counts, whether or not a query would ever meet it.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_image_never_passes() {
    let place = Place::with(&format!("PRAGMA journal_mode = WAL; {SHOP}"));
    let (captured, reader) = place.capture(PageRoute::Automatic).await.unwrap();
    let stored = reader.path_of(&CopyPath::new("shop.sqlite").unwrap());
    let whole = fs::read(&stored).unwrap();
    let swapped = {
        let mut bytes = whole.clone();
        let (one, other) = bytes.split_at_mut(4096 * 3);
        one[4096 * 2..].swap_with_slice(&mut other[..4096]);
        bytes
    };
    let flipped = |offset: usize| {
        let mut bytes = whole.clone();
        bytes[offset] ^= 0x10;
        bytes
    };
    let images =
        [swapped, flipped(18), flipped(4096 + 3), flipped(4096 * 4 + 2000), flipped(whole.len() - 1)];
    for (number, image) in images.into_iter().chain([whole[..whole.len() - 4096].to_vec()]).enumerate() {
        fs::write(&stored, image).unwrap();
        let sandbox = Arc::new(DirectorySandbox::new().unwrap());
        let path = seaworthy_interface::Sandbox::root(&*sandbox).join("restored.sqlite");
        let reader = Arc::new(reader.clone());
        match place.source().restore(&Cx::unbounded(), &captured.witness, reader, sandbox).await {
            Ok(restored) => {
                let scratch = Scratch { restored, path };
                match scratch.restored.compare(&Cx::unbounded(), &captured.witness).await {
                    Ok(reports) => {
                        assert_eq!(verdict(&captured.witness, &reports), Verdict::Fail, "image {number}");
                    }
                    Err(error) => assert_eq!(error.kind, ErrorKind::Corrupt, "image {number}: {error:?}"),
                }
            }
            Err(error) => assert_eq!(error.kind, ErrorKind::Corrupt, "image {number}: {error:?}"),
        }
    }
    fs::write(&stored, [whole.as_slice(), b"more"].concat()).unwrap();
    let sandbox = Arc::new(DirectorySandbox::new().unwrap());
    let reader = Arc::new(reader.clone());
    let error =
        place.source().restore(&Cx::unbounded(), &captured.witness, reader, sandbox).await.unwrap_err();
    assert_eq!(error.code, Some(FindingCode::LimitExceeded));
}

/// One bit anywhere in the page that SQLite reads first: whatever it then says, or refuses to say, the copy is blamed.
#[tokio::test]
async fn a_flipped_bit_in_the_schema_is_seen_though_nothing_can_be_opened() {
    let place = Place::with(
        "CREATE TABLE orders(id INTEGER PRIMARY KEY, note TEXT);
         CREATE TABLE audit(id INTEGER PRIMARY KEY, at TEXT);
         CREATE TRIGGER order_audit AFTER INSERT ON orders BEGIN INSERT INTO audit(at) VALUES ('now'); END;
         CREATE INDEX orders_by_note ON orders(note);
         INSERT INTO orders(note) VALUES ('a'), ('b'), ('c');",
    );
    let (captured, _, scratch) = place.drill(PageRoute::Staged).await;
    let whole = fs::read(&scratch.path).unwrap();
    let mut refused = 0;
    let header = (0..100).flat_map(|offset| (0..8).map(move |bit| (offset, bit)));
    let cells = (100..4096).filter(|offset| whole[*offset] != 0).map(|offset| (offset, offset % 8));
    for (offset, bit) in header.chain(cells) {
        let mut bytes = whole.clone();
        bytes[offset] ^= 1 << bit;
        fs::write(&scratch.path, bytes).unwrap();
        let found = match scratch.restored.compare(&Cx::unbounded(), &captured.witness).await {
            Ok(reports) => codes(&reports),
            Err(error) => {
                refused += 1;
                error.code.into_iter().collect()
            }
        };
        assert!(found.contains(&FindingCode::FileContent), "byte {offset}, bit {bit}: {found:?}");
    }
    assert!(refused > 20, "only {refused} of them could not be opened: nothing was shown about those");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flaw_of_the_source_is_told_at_the_backup_and_corruption_fails_the_drill() {
    let place = Place::with(&format!(
        "{SHOP} PRAGMA foreign_keys = OFF;
         CREATE TABLE child(p INTEGER REFERENCES orders(id)); INSERT INTO child VALUES (-1);"
    ));
    let (captured, reports, _) = place.drill(PageRoute::Automatic).await;
    assert_eq!(captured.findings.iter().map(|f| f.code).collect::<Vec<_>>(), [FindingCode::SourceFlawed]);
    assert_equal(&captured, &reports);
    let connection = place.open();
    connection
        .execute_batch(
            "PRAGMA writable_schema = ON;
             CREATE TEMP TABLE kept AS SELECT * FROM sqlite_schema WHERE name = 'orders_by_note';
             DELETE FROM sqlite_schema WHERE name = 'orders_by_note'; PRAGMA writable_schema = RESET;
             INSERT INTO orders(note) VALUES ('not in the index');
             PRAGMA writable_schema = ON; INSERT INTO sqlite_schema SELECT * FROM kept;",
        )
        .unwrap();
    drop(connection);
    for route in ROUTES {
        let (captured, reports, _) = place.drill(route).await;
        let told: Vec<_> = captured.findings.iter().map(|finding| finding.code).collect();
        assert_eq!(told, [FindingCode::SourceFlawed, FindingCode::SourceFlawed], "{route:?}");
        assert_eq!(verdict(&captured.witness, &reports), Verdict::Fail);
        assert!(codes(&reports).contains(&FindingCode::Corruption));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_is_implausible_unless_declared() {
    for sql in ["", "CREATE TABLE t(a);"] {
        let place = Place::with(sql);
        if sql.is_empty() {
            fs::write(place.database(), b"").unwrap();
        }
        for route in ROUTES {
            let (captured, reports, _) = place.drill(route).await;
            assert_eq!(captured.findings[0].code, FindingCode::PointImplausible, "{sql:?} {route:?}");
            assert_eq!(verdict(&captured.witness, &reports), Verdict::Fail);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_usable_database_is_refused_with_a_kind() {
    let place = Place::with(SHOP);
    let kind = async |place: &Place| {
        let error = place.capture(PageRoute::Automatic).await.unwrap_err();
        (error.kind, error.hint)
    };
    // A crash in the middle of a commit leaves a hot journal, which only a writer may roll back.
    let connection = place.open();
    connection
        .execute_batch(
            "PRAGMA cache_size = 2; PRAGMA cache_spill = 2; BEGIN; UPDATE orders SET note = 'x'; UPDATE payments SET note = 'y';",
        )
        .unwrap();
    let crashed = Place::new();
    fs::copy(place.database(), crashed.database()).unwrap();
    fs::copy(place.root.path().join("shop.db-journal"), crashed.root.path().join("shop.db-journal")).unwrap();
    let before = fs::read(crashed.database()).unwrap();
    let (found, hint) = kind(&crashed).await;
    assert_eq!(found, ErrorKind::Conflict);
    assert!(hint.unwrap().contains("journal"), "names the way out");
    assert_eq!(fs::read(crashed.database()).unwrap(), before, "the source is not rolled back by us");
    drop(connection);

    let text = Place::new();
    fs::write(text.database(), "not a database ".repeat(1000)).unwrap();
    assert_eq!(kind(&text).await.0, ErrorKind::Corrupt);
    assert_eq!(kind(&Place::new()).await.0, ErrorKind::NotFound);
    let directory = Place::new();
    fs::create_dir(directory.database()).unwrap();
    assert_eq!(kind(&directory).await.0, ErrorKind::Refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_stays_locked_is_a_conflict_after_the_timeout() {
    let place = Place::with(SHOP);
    let connection = place.open();
    connection.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let spec = SqliteSpec {
        path: place.database().to_str().unwrap().to_owned(),
        busy_timeout: SignedDuration::from_millis(50),
        may_be_empty: false,
    };
    let source = SqliteSource::new(spec, place.root.path());
    let writer = Arc::new(FsCopyWriter::new(place.root.path().join("copy")).unwrap());
    let error = source.capture(&Cx::unbounded(), writer).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_capture_ends_and_holds_nothing() {
    let place = Place::with(SHOP);
    for cx in [Cx::unbounded().within(Duration::from_millis(1)), {
        let (cx, token) = Cx::unbounded().child();
        token.cancel();
        cx
    }] {
        let writer =
            Arc::new(FsCopyWriter::new(tempfile::tempdir_in(place.root.path()).unwrap().keep()).unwrap());
        let error = place.source().capture(&cx, writer).await.unwrap_err();
        assert!(matches!(error.kind, ErrorKind::Stopped(_)), "{error:?}");
    }
    place.open().execute_batch("BEGIN EXCLUSIVE; ROLLBACK").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_schema_runs_nothing() {
    let schema = "CREATE TABLE t(a, b AS (abs(a)) VIRTUAL); INSERT INTO t VALUES (1), (2);
         CREATE VIEW v AS SELECT load_extension('/tmp/evil'), fts3_tokenizer('simple');
         CREATE TRIGGER g AFTER UPDATE ON t BEGIN SELECT load_extension('/tmp/evil'); END;
         CREATE TRIGGER h AFTER DELETE ON t BEGIN INSERT INTO t(a) SELECT 1; END;";
    let evil = "PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = replace(sql, 'abs(a)', 'load_extension(''/tmp/evil'')') WHERE name = 't';";
    let refused = Place::with(&format!("{schema} {evil}")).capture(PageRoute::Automatic).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Corrupt);
    let place = Place::with(schema);
    let (captured, reports, scratch) = place.drill(PageRoute::Automatic).await;
    assert_ne!(verdict(&captured.witness, &reports), Verdict::Fail, "{:?}", codes(&reports));
    for query in [
        "SELECT * FROM v",
        "ATTACH '/tmp/seaworthy-attached' AS other",
        "VACUUM INTO '/tmp/seaworthy-vacuumed'",
        "DELETE FROM t",
        "SELECT writefile('/tmp/seaworthy-written', 'x')",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n",
    ] {
        let report =
            ask(&scratch, Question::Sql { database: None, query: query.to_owned(), expect: None }).await;
        assert_ne!(report.outcome, CheckOutcome::Passed, "{query}");
    }
    for left in ["attached", "vacuumed", "written"] {
        assert!(!Path::new(&format!("/tmp/seaworthy-{left}")).exists());
    }
    let (captured, reader) = place.capture(PageRoute::Automatic).await.unwrap();
    for seed in 0..8 {
        let scratch = place.restore(&captured.witness, &reader).await;
        let damage = scratch.restored.damage(&Cx::unbounded(), &captured.witness, seed).await.unwrap();
        let found = codes(&scratch.compare(&captured.witness).await);
        assert!(damage.expected.iter().any(|code| found.contains(code)), "{damage:?} {found:?}");
    }
}

async fn ask_at(scratch: &Scratch, question: Question, point: Timestamp) -> CheckReport {
    let check = UserCheck {
        name: CheckName::new("probe").unwrap(),
        question,
        timeout: SignedDuration::from_millis(500),
    };
    scratch.restored.answer(&Cx::unbounded(), &check, point).await.unwrap()
}

async fn ask(scratch: &Scratch, question: Question) -> CheckReport {
    ask_at(scratch, question, Timestamp::now()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_questions_are_answered() {
    let place = Place::with(
        "CREATE TABLE orders(id INTEGER PRIMARY KEY, at TEXT, unix INT, ms INT, julian REAL, word TEXT);
         INSERT INTO orders VALUES
            (1, '2026-11-20 10:00:00', 1, 1, 1.0, 'x'),
            (2, '2026-11-21 10:00:00', 1795255200, 1795255200000, 2461365.916666667, 'y');
         CREATE TABLE alembic_version(version_num TEXT); INSERT INTO alembic_version VALUES ('a1b2');
         CREATE TABLE quiet(at TEXT);
         CREATE TABLE plans AS SELECT * FROM orders;
         INSERT INTO plans VALUES (3, '2099-11-21 10:00:00', 4098938400, 4098938400000, 2487891.5, 'z');
         CREATE TABLE wishes AS SELECT * FROM plans WHERE id = 3;
         CREATE TABLE mixed(at);
         INSERT INTO mixed VALUES (17), ('2026-11-20 10:00:00'), ('2026-11-21T10:31:30Z'), ('2099-01-01');
         CREATE TABLE odd(at); INSERT INTO odd VALUES ('soon'), ('wann?'), (NULL), ('2099-01-01'), (x'00');",
    );
    let (_, _, scratch) = place.drill(PageRoute::Automatic).await;
    let point: Timestamp = "2026-11-21T10:30:00Z".parse().unwrap();
    let outcome = async |question| ask_at(&scratch, question, point).await.outcome;
    let sql = |query: &str, expect: Option<&str>| Question::Sql {
        database: None,
        query: query.to_owned(),
        expect: expect.map(str::to_owned),
    };
    assert_eq!(outcome(sql("SELECT count(*) = 2 FROM orders", None)).await, CheckOutcome::Passed);
    assert_eq!(outcome(sql("SELECT count(*) = 3 FROM orders", None)).await, CheckOutcome::Failed);
    assert_eq!(outcome(sql("SELECT word FROM orders WHERE id = 2", Some("y"))).await, CheckOutcome::Passed);
    assert_eq!(outcome(sql("SELECT word FROM orders", Some("x"))).await, CheckOutcome::Failed);
    assert_eq!(outcome(sql("SELECT 1, 1", None)).await, CheckOutcome::Failed);
    assert_eq!(outcome(sql("SELECT 1 WHERE 0", None)).await, CheckOutcome::Failed);
    assert_eq!(outcome(sql("SELECT nothing FROM nowhere", None)).await, CheckOutcome::Failed);
    let rows = |rows| Question::MinimumRows { table: "orders".to_owned(), rows };
    assert_eq!(outcome(rows(2)).await, CheckOutcome::Passed);
    assert_eq!(outcome(rows(3)).await, CheckOutcome::Failed);
    let fresh = |table: &str, column: &str, minutes| Question::Freshness {
        table: table.to_owned(),
        column: column.to_owned(),
        within: SignedDuration::from_mins(minutes),
    };
    for column in ["at", "unix", "ms", "julian"] {
        assert_eq!(outcome(fresh("orders", column, 31)).await, CheckOutcome::Passed, "{column}");
        assert_eq!(outcome(fresh("orders", column, 29)).await, CheckOutcome::Failed, "{column}");
        // An expiry keeps nothing fresh, and where there is nothing else there is nothing.
        assert_eq!(outcome(fresh("plans", column, 31)).await, CheckOutcome::Passed, "{column}");
        assert_eq!(outcome(fresh("plans", column, 29)).await, CheckOutcome::Failed, "{column}");
        let report = ask_at(&scratch, fresh("wishes", column, 31), point).await;
        assert_eq!(report.outcome, CheckOutcome::Failed, "{column}");
        assert!(report.findings.iter().all(|finding| finding.code == FindingCode::ContentStale), "{column}");
    }
    // Of a minute later by another clock: a record, no plan.
    assert_eq!(outcome(fresh("mixed", "at", 0)).await, CheckOutcome::Passed);
    assert_eq!(outcome(fresh("odd", "at", 31)).await, CheckOutcome::Inconclusive);
    assert_eq!(outcome(fresh("orders", "absent", 31)).await, CheckOutcome::Failed);
    assert_eq!(outcome(fresh("orders", "word", 31)).await, CheckOutcome::Inconclusive);
    assert_eq!(outcome(fresh("quiet", "at", 31)).await, CheckOutcome::Failed);
    let migration =
        |revision: &str| Question::Migration { tool: "alembic".to_owned(), revision: revision.to_owned() };
    assert_eq!(outcome(migration("a1b2")).await, CheckOutcome::Passed);
    assert_eq!(outcome(migration("other")).await, CheckOutcome::Failed);
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
    assert_eq!(outcome(sql(endless, None)).await, CheckOutcome::Inconclusive);
    let report = ask(&scratch, Question::Command { argv: vec!["/bin/true".to_owned()] }).await;
    assert_eq!(report.outcome, CheckOutcome::Passed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_goes_to_a_new_place_only_and_is_verified() {
    let place = Place::with(&format!("PRAGMA journal_mode = WAL; {SHOP}"));
    let (captured, reader) = place.capture(PageRoute::Automatic).await.unwrap();
    let target = place.root.path().join("restored");
    let to = NewTarget::Directory(target.clone());
    let deliver = async || {
        place.source().deliver(&Cx::unbounded(), &captured.witness, Arc::new(reader.clone()), &to).await
    };
    let delivered = deliver().await.unwrap();
    assert!(delivered.findings.is_empty(), "{:?}", delivered.findings);
    let names: Vec<_> = fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["shop.db"]);
    assert_eq!(rows(&target.join("shop.db"), "orders"), 2000);
    let error = deliver().await.unwrap_err();
    assert_eq!((error.kind, error.code), (ErrorKind::Conflict, Some(FindingCode::LiveTarget)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_tells_what_it_is_without_reading_it() {
    let place = Place::with(&format!("PRAGMA journal_mode = WAL; {SHOP}"));
    let facts = place.source().probe(&Cx::unbounded()).await.unwrap();
    assert!(facts.summary.contains("WAL") && facts.findings.is_empty(), "{facts:?}");
    assert!(facts.size_bytes > 0 && facts.identity.starts_with("file:"));
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_lock_ends_with_the_deadline() {
    let place = Place::with(SHOP);
    let connection = place.open();
    connection.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let began = std::time::Instant::now();
    let cx = Cx::unbounded().within(Duration::from_millis(300));
    let writer = Arc::new(FsCopyWriter::new(place.root.path().join("copy")).unwrap());
    let error = place.source().capture(&cx, writer).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Stopped(_)), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(10), "the timeout of 30 s is not waited out");
}
