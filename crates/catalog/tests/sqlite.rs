//! What only the SQLite catalogue promises: a file closed to others, layouts that are refused rather than guessed,
//! receipts that SQL cannot change, and the old state or the new one after a kill at any moment.

#![expect(clippy::unwrap_used, reason = "helpers of tests: what cannot be unwrapped is a failed test")]

mod support;

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rusqlite::Connection;
use seaworthy_catalog::{Catalog as _, CatalogError, OpenMode, ReceiptQuery, SqliteCatalog};
use seaworthy_model::ledger::{Known, verify_chain};
use seaworthy_model::signature::Envelope;
use support::Scribe;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn open(path: &Path) -> Result<SqliteCatalog, CatalogError> {
    SqliteCatalog::open(path, OpenMode::OrCreate)
}

#[tokio::test]
async fn the_file_is_closed_to_others_and_so_are_its_companions() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state/deep/catalogue.sqlite");
    let catalog = open(&path).unwrap();
    catalog.append(None, Scribe::new().cycle("shop", "db"), None).await.unwrap();
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for suffix in ["", "-wal", "-shm"] {
        let file = path.with_file_name(format!("catalogue.sqlite{suffix}"));
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[test]
fn what_is_open_to_others_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state/catalogue.sqlite");
    drop(open(&path).unwrap());
    for (exposed, bits) in [(path.as_path(), 0o640), (path.parent().unwrap(), 0o701)] {
        let before = mode(exposed);
        std::fs::set_permissions(exposed, std::fs::Permissions::from_mode(bits)).unwrap();
        let error = open(&path).unwrap_err();
        assert!(
            matches!(&error, CatalogError::Exposed { path, mode } if path == exposed && *mode == bits),
            "{error}"
        );
        std::fs::set_permissions(exposed, std::fs::Permissions::from_mode(before)).unwrap();
    }
    open(&path).unwrap();
}

#[test]
fn a_missing_catalogue_is_not_made_by_those_who_only_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state/catalogue.sqlite");
    assert!(matches!(SqliteCatalog::open(&path, OpenMode::Existing), Err(CatalogError::Missing(_))));
    assert!(!path.parent().unwrap().exists());
}

/// Name, content and time of change of every file in a directory.
fn everything(directory: &Path) -> Vec<(std::ffi::OsString, Vec<u8>, std::time::SystemTime)> {
    let mut found: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let changed = entry.metadata().unwrap().modified().unwrap();
            (entry.file_name(), std::fs::read(entry.path()).unwrap(), changed)
        })
        .collect();
    found.sort();
    found
}

#[tokio::test]
async fn a_copy_holds_what_the_log_holds_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state/catalogue.sqlite");
    let state = path.parent().unwrap();
    let missing = SqliteCatalog::open_copy(&path, OpenMode::Existing);
    assert!(matches!(missing, Err(CatalogError::Missing(_))));
    let empty = SqliteCatalog::open_copy(&path, OpenMode::OrCreate).unwrap();
    assert_eq!(empty.head().await.unwrap(), None);
    assert!(!state.exists());

    let catalog = open(&path).unwrap();
    let mut scribe = Scribe::new();
    catalog.append(None, scribe.cycle("shop", "db"), None).await.unwrap();
    // The catalogue is open: what was appended lies in its log, as after a crash.
    assert!(std::fs::metadata(state.join("catalogue.sqlite-wal")).unwrap().len() > 0);
    let before = everything(state);
    let copy = SqliteCatalog::open_copy(&path, OpenMode::Existing).unwrap();
    let borrowed = copy.path().parent().unwrap().to_owned();
    assert_eq!(copy.head().await.unwrap(), scribe.head);
    let head = scribe.head.clone();
    copy.append(head.as_ref(), scribe.cycle("shop", "db"), None).await.unwrap();
    copy.rebuild().await.unwrap();
    drop(copy);
    assert!(!borrowed.exists(), "the copy is removed");
    assert_eq!(everything(state), before);
    assert_eq!(catalog.head().await.unwrap(), head);
}

#[test]
fn a_newer_layout_and_another_programs_database_are_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state/catalogue.sqlite");
    drop(open(&path).unwrap());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(open(&path), Err(CatalogError::Newer { found: 99, known: 1 })));

    let other = directory.path().join("state/other.sqlite");
    Connection::open(&other)
        .unwrap()
        .execute_batch("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)")
        .unwrap();
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(open(&other), Err(CatalogError::Foreign(_))));
    let tables: u32 = Connection::open(&other)
        .unwrap()
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .unwrap();
    assert_eq!(tables, 1);

    let garbage = directory.path().join("state/garbage.sqlite");
    std::fs::write(&garbage, vec![0x5a; 8_192]).unwrap();
    std::fs::set_permissions(&garbage, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(open(&garbage), Err(CatalogError::Damaged(_))));
}

#[tokio::test]
async fn sql_cannot_change_or_remove_a_receipt() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state/catalogue.sqlite");
    let catalog = open(&path).unwrap();
    let mut scribe = Scribe::new();
    catalog.append(None, scribe.cycle("shop", "db"), None).await.unwrap();
    let vandal = Connection::open(&path).unwrap();
    for sql in ["DELETE FROM receipt WHERE sequence = 4", "UPDATE receipt SET line = '' WHERE sequence = 4"] {
        assert!(vandal.execute(sql, []).is_err(), "{sql}");
    }
    // Whoever takes the trigger away first is found by whoever kept the head.
    vandal
        .execute_batch("DROP TRIGGER receipt_is_never_removed; DELETE FROM receipt WHERE sequence = 4")
        .unwrap();
    let kept = catalog.receipts(&ReceiptQuery::after(0, 100)).await.unwrap();
    let envelopes: Vec<Envelope> = kept.iter().map(|one| one.envelope().unwrap()).collect();
    let report =
        verify_chain(&envelopes, &scribe.trusted(), &Known { after: None, head: scribe.head.clone() });
    assert_eq!(report.findings[0].code.as_str(), "EV-06");
}

#[tokio::test]
async fn a_damaged_line_keeps_nothing_from_being_appended() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state/catalogue.sqlite");
    let catalog = open(&path).unwrap();
    let mut scribe = Scribe::new();
    let head = catalog.append(None, scribe.cycle("shop", "db"), None).await.unwrap();
    let vandal = Connection::open(&path).unwrap();
    vandal.execute_batch("DROP TRIGGER receipt_is_never_changed; UPDATE receipt SET line = '{'").unwrap();
    catalog.append(Some(&head), scribe.cycle("shop", "db"), None).await.unwrap();
}

#[tokio::test]
async fn damaged_derived_rows_are_named_and_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state/catalogue.sqlite");
    let catalog = open(&path).unwrap();
    catalog.append(None, Scribe::new().cycle("shop", "db"), None).await.unwrap();
    let before = catalog.derived().await.unwrap();
    Connection::open(&path).unwrap().execute("UPDATE service_state SET fact = '{'", []).unwrap();
    assert!(matches!(catalog.histories(None).await, Err(CatalogError::Damaged(_))));
    catalog.rebuild().await.unwrap();
    assert_eq!(catalog.derived().await.unwrap(), before);
}

#[tokio::test]
async fn a_catalogue_that_another_process_holds_is_locked_and_not_waited_for_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state/catalogue.sqlite");
    let catalog = open(&path).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let result = catalog.append(None, Scribe::new().cycle("shop", "db"), None).await;
    assert!(matches!(result, Err(CatalogError::Locked)), "{result:?}");
    assert_eq!(catalog.head().await.unwrap(), None, "readers are not kept waiting");
}

/// Run by the test below in a process of its own: appends until it is killed, and says what is acknowledged.
#[tokio::test]
#[ignore = "the child of `a_kill_at_any_moment_leaves_the_old_state_or_the_new`"]
async fn append_until_killed() {
    let path = std::env::var("SEAWORTHY_TEST_CATALOGUE").unwrap();
    let catalog = open(Path::new(&path)).unwrap();
    let mut scribe = Scribe::new();
    for line in catalog.receipts(&ReceiptQuery::after(0, u32::MAX)).await.unwrap() {
        let receipt = line.receipt().unwrap();
        scribe.head = Some(receipt.head());
        scribe.clock = receipt.at;
    }
    loop {
        let expected = scribe.head.clone();
        let lines = scribe.cycle("shop", if scribe.sequence().is_multiple_of(8) { "db" } else { "files" });
        let head = catalog.append(expected.as_ref(), lines, None).await.unwrap();
        println!("acknowledged {}", head.sequence);
    }
}

#[tokio::test]
async fn a_kill_at_any_moment_leaves_the_old_state_or_the_new() {
    const KILLS: u64 = 50;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state/catalogue.sqlite");
    drop(open(&path).unwrap());
    let mut torn_between = 0;
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "append_until_killed", "--ignored", "--nocapture", "--test-threads=1"])
            .env("SEAWORTHY_TEST_CATALOGUE", &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged = None;
        // The libtest harness prints lines of its own.
        let number =
            |line: String| line.rsplit_once("acknowledged ").and_then(|(_, n)| n.parse::<u64>().ok());
        while acknowledged.is_none() {
            acknowledged = number(lines.next().expect("the child appends").unwrap());
        }
        // A different moment of the append each time: 37 is coprime to the spread.
        std::thread::sleep(Duration::from_micros(kill * 37 % KILLS * 211));
        child.kill().unwrap();
        child.wait().unwrap();
        let acknowledged = lines.map_while(Result::ok).filter_map(number).last().or(acknowledged).unwrap();

        let check: String = Connection::open(&path)
            .unwrap()
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .unwrap();
        assert_eq!(check, "ok");
        let catalog = SqliteCatalog::open(&path, OpenMode::Existing).unwrap();
        let head = catalog.head().await.unwrap().unwrap();
        assert!(head.sequence >= acknowledged, "{acknowledged} was acknowledged, {head} is there");
        assert!(head.sequence <= acknowledged + 8 && head.sequence.is_multiple_of(4), "whole batches only");
        torn_between += u32::from(head.sequence > acknowledged);
        let kept = catalog.receipts(&ReceiptQuery::after(0, u32::MAX)).await.unwrap();
        let envelopes: Vec<Envelope> = kept.iter().map(|one| one.envelope().unwrap()).collect();
        let known = Known { after: None, head: Some(head) };
        // The whole chain is verified once in ten kills: it grows, and its last part is what a kill can spoil.
        let from = if kill % 10 == 9 { 0 } else { envelopes.len().saturating_sub(40) };
        let after = from.checked_sub(1).map(|last| kept[last].receipt().unwrap().head());
        let report = verify_chain(&envelopes[from..], &Scribe::new().trusted(), &Known { after, ..known });
        assert_eq!(report.findings, []);
        if kill % 10 == 9 {
            let derived = catalog.derived().await.unwrap();
            catalog.rebuild().await.unwrap();
            assert_eq!(catalog.derived().await.unwrap(), derived);
        }
    }
    println!("{KILLS} kills, {torn_between} between durable and acknowledged");
}
