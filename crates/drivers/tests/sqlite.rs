//! The SQLite source against real databases: writers that write, restores that were tampered with, healthy oddities.

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
        let observed = self.restored.witness(&Cx::unbounded(), expected).await.unwrap();
        expected.compare(&observed)
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
        let found = codes(&reports);
        assert!(damage.expected.iter().any(|code| found.contains(code)), "{damage:?} found {found:?}");
        kinds.insert(damage.expected[0]);
    }
    assert_eq!(kinds.len(), 4, "each kind of damage must have been tried: {kinds:?}");
}
