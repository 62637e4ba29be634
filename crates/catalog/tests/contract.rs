//! The contract of every catalogue, as code: each clause is given a fresh, empty one. An implementation passes all of it.

#![expect(clippy::unwrap_used, reason = "helpers of tests: what cannot be unwrapped is a failed test")]

mod support;

use jiff::{SignedDuration, Timestamp};
use seaworthy_catalog::{
    Catalog, CatalogError, OpenMode, PointQuery, ReceiptName, ReceiptQuery, SqliteCatalog, StoredReceipt,
    export, facts_as_of, import,
};
use seaworthy_model::assess::Facts;
use seaworthy_model::canonical;
use seaworthy_model::example::{self, About};
use seaworthy_model::id::ServiceName;
use seaworthy_model::receipt::{Act, ActKind};
use support::Scribe;

/// What every clause is given.
trait Fresh {
    type Catalog: Catalog;
    fn fresh(&self) -> Self::Catalog;
}

struct Sqlite(tempfile::TempDir, std::cell::Cell<u32>);

impl Fresh for Sqlite {
    type Catalog = SqliteCatalog;
    fn fresh(&self) -> SqliteCatalog {
        self.1.set(self.1.get() + 1);
        let path = self.0.path().join(format!("{}/catalogue.sqlite", self.1.get()));
        SqliteCatalog::open(&path, OpenMode::OrCreate).unwrap()
    }
}

macro_rules! contract {
    ($($clause:ident),* $(,)?) => {
        mod sqlite {
            use super::*;
            $(#[tokio::test]
            async fn $clause() {
                super::$clause(&Sqlite(tempfile::tempdir().unwrap(), std::cell::Cell::new(0))).await;
            })*
        }
    };
}

contract!(
    receipts_come_back_byte_for_byte_and_in_order,
    an_append_needs_the_head_that_it_was_sealed_after,
    a_receipt_that_would_not_verify_is_refused,
    a_batch_is_appended_as_a_whole_or_not_at_all,
    a_slot_ends_once_and_by_its_own_run,
    receipts_are_found_by_what_they_are_called,
    what_is_derived_equals_the_fold_of_all_receipts,
    rebuilding_yields_the_same_bytes,
    a_claim_excludes_others_until_it_runs_out,
    a_fenced_writer_is_refused,
    a_journal_survives_a_takeover_and_ends_with_the_release,
    an_export_imported_elsewhere_is_the_same_ledger,
    an_import_continues_and_refuses_another_chain,
    an_import_that_does_not_verify_keeps_what_did,
    facts_as_of_an_instant_ignore_what_came_later,
    of_two_writers_at_once_one_wins_and_the_other_is_told,
);

async fn all<C: Catalog>(catalog: &C) -> Vec<StoredReceipt> {
    catalog.receipts(&ReceiptQuery::after(0, 10_000)).await.unwrap()
}

async fn receipts_come_back_byte_for_byte_and_in_order<F: Fresh>(fresh: &F) {
    let catalog = fresh.fresh();
    assert_eq!(catalog.head().await.unwrap(), None);
    let mut scribe = Scribe::new();
    let mut lines = scribe.cycle("shop", "db");
    // Another program's spelling of an envelope, with a member that we do not know.
    let mut value: serde_json::Value = serde_json::from_str(&lines[3]).unwrap();
    value["countersigned"] = serde_json::Value::Bool(true);
    lines[3] = value.to_string().replace(":", " : ");
    let head = catalog.append(None, lines.clone(), None).await.unwrap();
    assert_eq!(Some(&head), scribe.head.as_ref());
    assert_eq!(catalog.head().await.unwrap(), scribe.head);
    let kept = all(&catalog).await;
    assert_eq!(kept.iter().map(|one| one.line.clone()).collect::<Vec<_>>(), lines);
    assert_eq!(kept.iter().map(|one| one.sequence).collect::<Vec<_>>(), [1, 2, 3, 4]);
}

async fn an_append_needs_the_head_that_it_was_sealed_after<F: Fresh>(fresh: &F) {
    let catalog = fresh.fresh();
    let mut scribe = Scribe::new();
    let first = scribe.cycle("shop", "db");
    let mut rival = scribe.clone();
    let old = catalog.append(None, first, None).await.unwrap();
    let next = scribe.cycle("shop", "db");
    catalog.append(Some(&old), next.clone(), None).await.unwrap();
    let late = rival.cycle("other", "db");
    let error = catalog.append(Some(&old), late, None).await.unwrap_err();
    assert!(
        matches!(&error, CatalogError::Conflict { expected, found } if *expected == Some(old.clone()) && *found == scribe.head),
        "{error}"
    );
    assert!(matches!(catalog.append(None, next, None).await, Err(CatalogError::Conflict { .. })));
    assert_eq!(all(&catalog).await.len(), 8);
}

async fn a_receipt_that_would_not_verify_is_refused<F: Fresh>(fresh: &F) {
    let catalog = fresh.fresh();
    let mut scribe = Scribe::new();
    let lines = scribe.cycle("shop", "db");
    for unfit in [
        lines[1..].to_vec(),
        vec![lines[0].clone(), lines[0].clone()],
        vec![lines[0].clone(), lines[2].clone()],
        vec![],
    ] {
        let result = catalog.append(None, unfit, None).await;
        assert!(matches!(result, Err(CatalogError::Unfit { .. })), "{result:?}");
    }
    for unreadable in ["", "{}", "[]", "receipt"] {
        let result = catalog.append(None, vec![unreadable.to_owned()], None).await;
        assert!(matches!(result, Err(CatalogError::Receipt(_))), "{result:?}");
    }
    let two_lines = lines[0].replacen(',', ",\n", 1);
    assert!(matches!(catalog.append(None, vec![two_lines], None).await, Err(CatalogError::Unfit { .. })));
    // A second chain with the same sequence.
    let head = catalog.append(None, lines, None).await.unwrap();
    let mut other = Scribe::new();
    other.cycle("other", "db");
    let foreign =
        other.seal(&Act::Due(example::due(&About::new("other", "db", other.clock), ActKind::Drill)));
    assert!(matches!(
        catalog.append(Some(&head), vec![foreign], None).await,
        Err(CatalogError::Unfit { .. })
    ));
    assert_eq!(all(&catalog).await.len(), 4);
}

async fn a_batch_is_appended_as_a_whole_or_not_at_all<F: Fresh>(fresh: &F) {
    let catalog = fresh.fresh();
    let mut scribe = Scribe::new();
    let mut lines = scribe.cycle("shop", "db");
    lines.push("{}".to_owned());
    assert!(catalog.append(None, lines, None).await.is_err());
    assert_eq!(catalog.head().await.unwrap(), None);
    assert!(catalog.derived().await.unwrap().is_empty());
}

async fn a_slot_ends_once_and_by_its_own_run<F: Fresh>(fresh: &F) {
    let catalog = fresh.fresh();
    let mut scribe = Scribe::new();
    let about = About::new("shop", "db", scribe.clock);
    let slot = scribe.seal(&Act::Due(example::due(&about, ActKind::Backup)));
    let head = catalog.append(None, vec![slot], None).await.unwrap();
    let stranger = About::new("shop", "db", scribe.clock + SignedDuration::from_hours(1));
    for (act, slot) in [(&stranger, 1), (&about, 2), (&about, 9)] {
        let ending = scribe.clone().seal(&Act::Backup(Box::new(example::backup(act, Some(slot)))));
        let result = catalog.append(Some(&head), vec![ending], None).await;
        assert!(matches!(result, Err(CatalogError::Unfit { .. })), "slot {slot}: {result:?}");
    }
    let good = scribe.seal(&Act::Backup(Box::new(example::backup(&about, Some(1)))));
    let head = catalog.append(Some(&head), vec![good], None).await.unwrap();
    let again = scribe.seal(&Act::Backup(Box::new(example::backup(&about, Some(1)))));
    assert!(matches!(catalog.append(Some(&head), vec![again], None).await, Err(CatalogError::Unfit { .. })));
}

async fn receipts_are_found_by_what_they_are_called<F: Fresh>(fresh: &F) {
    let catalog = fresh.fresh();
    let mut scribe = Scribe::new();
    let mut lines = scribe.cycle("shop", "db");
    lines.extend(scribe.cycle("wiki", "files"));
    catalog.append(None, lines, None).await.unwrap();
    let found = |query: ReceiptQuery| {
        let catalog = &catalog;
        async move { catalog.receipts(&query).await.unwrap().iter().map(|one| one.sequence).collect::<Vec<_>>() }
    };
    let base = ReceiptQuery::after(0, 100);
    let named = |name| ReceiptQuery { name: Some(name), ..ReceiptQuery::after(0, 100) };
    let sixth = all(&catalog).await[5].receipt().unwrap();
    assert_eq!(
        found(ReceiptQuery { service: Some(ServiceName::new("wiki").unwrap()), ..base.clone() }).await,
        [5, 6, 7, 8]
    );
    assert_eq!(
        found(ReceiptQuery { act: Some("drill".to_owned()), newest_first: true, ..base.clone() }).await,
        [8, 4]
    );
    assert_eq!(found(ReceiptQuery { after: 3, limit: 2, ..base }).await, [4, 5]);
    assert_eq!(found(named(ReceiptName::Sequence(3))).await, [3]);
    assert_eq!(found(named(ReceiptName::Digest(sixth.digest.0.clone()))).await, [6]);
    assert_eq!(found(named(ReceiptName::Digest(sixth.digest.0[7..19].to_owned()))).await, [6]);
    assert_eq!(found(named(ReceiptName::Digest("%".to_owned()))).await, Vec::<u64>::new());
    assert_eq!(
        found(named(ReceiptName::Run(sixth.act.run().unwrap().clone()))).await,
        [5, 6],
        "the slot and its ending"
    );
}

/// Backups, drills, a failed drill, a verification, an abandoned slot, of several sources.
fn mixed(scribe: &mut Scribe) -> Vec<String> {
    let mut lines = Vec::new();
    for (service, source) in [("shop", "db"), ("wiki", "files"), ("shop", "db"), ("shop", "media")] {
        lines.extend(scribe.cycle(service, source));
    }
    let about = About::new("shop", "db", scribe.clock);
    let backup = example::backup(&about, None);
    lines.push(scribe.seal(&Act::Backup(Box::new(backup.clone()))));
    let stored = Some(scribe.sequence());
    lines.push(scribe.seal(&Act::Drill(Box::new(example::failed_drill(&about, None, &backup, stored)))));
    lines.push(scribe.seal(&Act::Verify(Box::new(example::verify(&about, &[(&backup, stored)], true)))));
    lines.push(scribe.seal(&Act::Gone(Box::new(example::gone(&backup, scribe.sequence() - 2)))));
    lines.push(scribe.seal(&Act::Found(Box::new(example::found(&backup)))));
    let about = About::new("wiki", "files", scribe.clock);
    lines.push(scribe.seal(&Act::Due(example::due(&about, ActKind::Drill))));
    let slot = Some(scribe.sequence());
    lines.push(scribe.seal(&Act::Abandoned(example::abandoned(&about, slot))));
    lines
}

fn spelled(facts: &Facts) -> String {
    let line = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap() + "\n";
    let histories = facts.histories.values().map(|one| line(canonical::of(one).unwrap()));
    histories.chain(facts.points.values().map(|one| line(canonical::of(one).unwrap()))).collect()
}

async fn what_is_derived_equals_the_fold_of_all_receipts<F: Fresh>(fresh: &F) {
    let catalog = fresh.fresh();
    let mut scribe = Scribe::new();
    catalog.append(None, mixed(&mut scribe), None).await.unwrap();
    let receipts: Vec<_> = all(&catalog).await.iter().map(|one| one.receipt().unwrap()).collect();
    let facts = Facts::of(&receipts);
    assert_eq!(String::from_utf8(catalog.derived().await.unwrap()).unwrap(), spelled(&facts));

    let (head, histories) = catalog.histories(None).await.unwrap();
    assert_eq!(head, scribe.head);
    assert_eq!(histories, facts.histories.values().cloned().collect::<Vec<_>>());
    let shop = ServiceName::new("shop").unwrap();
    assert_eq!(catalog.histories(Some(&shop)).await.unwrap().1.len(), 2);
    let points = catalog.points(&PointQuery { service: Some(shop), ..PointQuery::default() }).await.unwrap();
    assert_eq!(
        points.iter().map(|point| point.sequence).collect::<Vec<_>>(),
        [2, 10, 14, 21],
        "found again after it had gone"
    );
    assert_eq!(catalog.points(&PointQuery::default()).await.unwrap().len(), 5);
}

async fn rebuilding_yields_the_same_bytes<F: Fresh>(fresh: &F) {
    let catalog = fresh.fresh();
    let mut scribe = Scribe::new();
    catalog.append(None, mixed(&mut scribe), None).await.unwrap();
    let before = catalog.derived().await.unwrap();
    assert!(before.len() > 1_000);
    catalog.rebuild().await.unwrap();
    assert_eq!(catalog.derived().await.unwrap(), before);
    assert_eq!(catalog.head().await.unwrap(), scribe.head);
}

fn at(minutes: i64) -> Timestamp {
    "2026-11-21T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_mins(minutes)
}

async fn a_claim_excludes_others_until_it_runs_out<F: Fresh>(fresh: &F) {
    let catalog = fresh.fresh();
    let first = catalog.claim("source/shop/db", "a", at(0), at(10)).await.unwrap();
    let error = catalog.claim("source/shop/db", "b", at(9), at(20)).await.unwrap_err();
    assert!(matches!(&error, CatalogError::Held { holder, until, .. } if holder == "a" && *until == at(10)));
    assert!(error.is_transient());
    assert!(
        catalog.claim("source/shop/db", "a", at(9), at(20)).await.is_err(),
        "not even by the same holder"
    );
    catalog.claim("source/shop/files", "b", at(0), at(10)).await.unwrap();

    catalog.renew(&first, at(30)).await.unwrap();
    assert!(catalog.claim("source/shop/db", "b", at(29), at(40)).await.is_err());
    let second = catalog.claim("source/shop/db", "b", at(30), at(40)).await.unwrap();
    assert!(second.generation > first.generation);
    catalog.release(&second).await.unwrap();
    let third = catalog.claim("source/shop/db", "a", at(31), at(40)).await.unwrap();
    assert!(third.generation > second.generation, "a generation is never given out twice");
    let held = catalog.claims().await.unwrap();
    assert_eq!(
        held.iter().map(|one| one.claim.name.as_str()).collect::<Vec<_>>(),
        ["source/shop/db", "source/shop/files"]
    );
}

async fn a_fenced_writer_is_refused<F: Fresh>(fresh: &F) {
    let catalog = fresh.fresh();
    let mut scribe = Scribe::new();
    let slow = catalog.claim("run/1", "a", at(0), at(10)).await.unwrap();
    let quick = catalog.claim("run/1", "b", at(11), at(20)).await.unwrap();
    let mut lines = scribe.cycle("shop", "db");
    let fenced = |result: Result<(), CatalogError>| {
        assert!(matches!(result, Err(CatalogError::Fenced { .. })), "{result:?}");
    };
    fenced(catalog.append(None, lines.clone(), Some(&slow)).await.map(|_| ()));
    fenced(catalog.journal(&slow, b"x").await);
    fenced(catalog.renew(&slow, at(30)).await);
    fenced(catalog.release(&slow).await);
    assert_eq!(catalog.head().await.unwrap(), None);
    let head = catalog.append(None, lines, Some(&quick)).await.unwrap();
    catalog.release(&quick).await.unwrap();
    lines = scribe.cycle("shop", "db");
    fenced(catalog.append(Some(&head), lines, Some(&quick)).await.map(|_| ()));
}

async fn a_journal_survives_a_takeover_and_ends_with_the_release<F: Fresh>(fresh: &F) {
    let catalog = fresh.fresh();
    let dead = catalog.claim("run/1", "a", at(0), at(10)).await.unwrap();
    catalog.journal(&dead, b"sandbox /tmp/x").await.unwrap();
    catalog.journal(&dead, b"\x00\xff").await.unwrap();
    let reaper = catalog.claim("run/1", "b", at(10), at(20)).await.unwrap();
    catalog.journal(&reaper, b"reaped").await.unwrap();
    let entries = catalog.journal_of("run/1").await.unwrap();
    assert_eq!(
        entries.iter().map(|entry| (entry.generation, entry.event.as_slice())).collect::<Vec<_>>(),
        [
            (dead.generation, b"sandbox /tmp/x".as_slice()),
            (dead.generation, b"\x00\xff"),
            (reaper.generation, b"reaped")
        ]
    );
    catalog.release(&reaper).await.unwrap();
    assert_eq!(catalog.journal_of("run/1").await.unwrap(), []);
}

async fn an_export_imported_elsewhere_is_the_same_ledger<F: Fresh>(fresh: &F) {
    let (here, there) = (fresh.fresh(), fresh.fresh());
    let mut scribe = Scribe::new();
    here.append(None, mixed(&mut scribe), None).await.unwrap();
    let mut bytes = Vec::new();
    assert_eq!(export(&here, &mut bytes).await.unwrap(), scribe.head);
    let report =
        import(&there, &mut bytes.as_slice(), &scribe.trusted(), scribe.head.as_ref()).await.unwrap();
    assert_eq!((report.verified, report.findings), (23, vec![]));
    assert_eq!(all(&there).await, all(&here).await);
    assert_eq!(there.derived().await.unwrap(), here.derived().await.unwrap());
    let mut again = Vec::new();
    export(&there, &mut again).await.unwrap();
    assert_eq!(again, bytes);
}

async fn an_import_continues_and_refuses_another_chain<F: Fresh>(fresh: &F) {
    let (here, there) = (fresh.fresh(), fresh.fresh());
    let mut scribe = Scribe::new();
    let beginning = scribe.cycle("shop", "db");
    let head = here.append(None, beginning.clone(), None).await.unwrap();
    there.append(None, beginning, None).await.unwrap();
    here.append(Some(&head), scribe.cycle("wiki", "files"), None).await.unwrap();
    let mut bytes = Vec::new();
    export(&here, &mut bytes).await.unwrap();
    for _ in 0..2 {
        import(&there, &mut bytes.as_slice(), &scribe.trusted(), None).await.unwrap();
        assert_eq!(there.head().await.unwrap(), scribe.head, "and a second import changes nothing");
    }
    let elsewhere = fresh.fresh();
    let mut rival = Scribe::new();
    elsewhere.append(None, rival.cycle("other", "db"), None).await.unwrap();
    let error = import(&elsewhere, &mut bytes.as_slice(), &scribe.trusted(), None).await.unwrap_err();
    assert!(matches!(error, CatalogError::Diverged(1)), "{error}");
    assert_eq!(elsewhere.head().await.unwrap(), rival.head);
}

async fn an_import_that_does_not_verify_keeps_what_did<F: Fresh>(fresh: &F) {
    let here = fresh.fresh();
    let mut scribe = Scribe::new();
    let mut lines = mixed(&mut scribe);
    lines[6] = lines[6].replace("\"sig\":\"", "\"sig\":\"A");
    let text = lines.join("\n");
    let error = import(&here, &mut text.as_bytes(), &scribe.trusted(), None).await.unwrap_err();
    assert!(
        matches!(&error, CatalogError::Unsound { findings } if findings[0].code.as_str() == "EV-07" && findings[0].subject == "receipt 7"),
        "{error:?}"
    );
    assert_eq!(here.head().await.unwrap().unwrap().sequence, 6);

    let empty = fresh.fresh();
    let strangers = seaworthy_model::signature::TrustedKeys::default();
    assert!(import(&empty, &mut text.as_bytes(), &strangers, None).await.is_err());
    assert!(
        import(&empty, &mut "".as_bytes(), &scribe.trusted(), None).await.is_err(),
        "nothing is not a ledger"
    );
    assert_eq!(empty.head().await.unwrap(), None);
}

async fn facts_as_of_an_instant_ignore_what_came_later<F: Fresh>(fresh: &F) {
    let catalog = fresh.fresh();
    let mut scribe = Scribe::new();
    let head = catalog.append(None, scribe.cycle("shop", "db"), None).await.unwrap();
    let then = scribe.clock;
    let before = catalog.derived().await.unwrap();
    catalog.append(Some(&head), mixed(&mut scribe), None).await.unwrap();
    let facts = facts_as_of(&catalog, then).await.unwrap();
    assert_eq!(spelled(&facts).as_bytes(), before);
}

async fn of_two_writers_at_once_one_wins_and_the_other_is_told<F: Fresh>(fresh: &F) {
    let catalog = fresh.fresh();
    let mut scribe = Scribe::new();
    let mut head = catalog.append(None, scribe.cycle("shop", "db"), None).await.unwrap();
    for _ in 0..20 {
        let (mut one, mut other) = (scribe.clone(), scribe.clone());
        let results = tokio::join!(
            catalog.append(Some(&head), one.cycle("a", "db"), None),
            catalog.append(Some(&head), other.cycle("b", "db"), None)
        );
        scribe = match results {
            (Ok(_), Err(CatalogError::Conflict { .. })) => one,
            (Err(CatalogError::Conflict { .. }), Ok(_)) => other,
            results => panic!("{results:?}"),
        };
        head = catalog.head().await.unwrap().unwrap();
        assert_eq!(Some(&head), scribe.head.as_ref());
    }
}
