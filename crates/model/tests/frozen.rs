//! Receipts that were written once must be readable for ever. The files are never changed: a format that moves on gets
//! a folder of its own, and this test goes on reading the old one.

#![expect(clippy::unwrap_used, reason = "helpers of tests: what cannot be unwrapped is a failed test")]

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use seaworthy_model::example::{self, About};
use seaworthy_model::ledger::{Known, verify_export};
use seaworthy_model::receipt::{Act, ActKind, Head, read_unverified, seal};
use seaworthy_model::signature::{Envelope, PublicKey, SigningKey, TrustedKeys};
use seaworthy_model::verdict::Assurance;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../formats/v1/ledger")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}

/// One receipt of every act, as this version writes them.
fn written_today() -> (String, SigningKey) {
    let (first, second) = (SigningKey::from_random(&[41; 32]), SigningKey::from_random(&[42; 32]));
    let start: Timestamp = "2026-11-21T03:00:00Z".parse().unwrap();
    let hour = |n: i64| start + SignedDuration::from_hours(n);
    let (mut lines, mut head) = (String::new(), None::<Head>);
    let mut add = |act: Act, n: i64, key: &SigningKey| {
        let envelope = seal(&act, hour(n), head.as_ref(), key).unwrap();
        let receipt = read_unverified(&envelope).unwrap();
        assert_eq!(receipt.act, act);
        head = Some(receipt.head());
        lines.push_str(&(envelope.to_json() + "\n"));
        receipt.sequence
    };
    let about = |n| About::new("shop", "orders-db", hour(n));
    let slot = add(Act::Due(example::due(&about(0), ActKind::Backup)), 0, &first);
    let backup = example::backup(&about(0), Some(slot));
    let stored = add(Act::Backup(Box::new(backup.clone())), 1, &first);
    let slot = add(Act::Due(example::due(&about(2), ActKind::Drill)), 2, &first);
    add(Act::Drill(Box::new(example::drill(&about(2), Some(slot), &backup, Some(stored)))), 3, &first);
    add(Act::Backup(Box::new(example::failed_backup(&about(4), None))), 4, &first);
    add(Act::Drill(Box::new(example::failed_drill(&about(5), None, &backup, Some(stored)))), 5, &first);
    add(Act::Restore(Box::new(example::restore(&about(6), None, &backup, Some(stored)))), 6, &first);
    add(Act::Verify(Box::new(example::verify(&about(7), &[(&backup, Some(stored))], true))), 7, &first);
    let slot = add(Act::Due(example::due(&about(8), ActKind::Drill)), 8, &first);
    add(Act::Abandoned(example::abandoned(&about(8), Some(slot))), 9, &first);
    add(Act::KeyChange(example::key_change(&second.public(), Some(&first.public()))), 10, &first);
    add(Act::Due(example::due(&about(11), ActKind::Backup)), 11, &second);
    (lines, first)
}

#[test]
fn the_ledger_of_version_1_is_read_and_verified() {
    let keys = TrustedKeys::of([PublicKey::from_pem(&read("key.pub")).unwrap()]);
    let head: Head = serde_json::from_str(&read("head.json")).unwrap();
    let report =
        verify_export(&read("receipts.jsonl"), &keys, &Known { after: None, head: Some(head.clone()) });
    assert_eq!(report.findings, []);
    assert_eq!((report.verified, report.head), (12, Some(head)));
    assert_eq!(report.open.len(), 1);
}

#[test]
fn every_act_of_version_1_means_what_it_meant() {
    let acts: Vec<Act> = read("receipts.jsonl")
        .lines()
        .map(|line| read_unverified(&Envelope::from_json(line.as_bytes()).unwrap()).unwrap().act)
        .collect();
    let words: Vec<&str> = acts.iter().map(Act::word).collect();
    assert_eq!(
        words,
        [
            "due",
            "backup",
            "due",
            "drill",
            "backup",
            "drill",
            "restore",
            "verify",
            "due",
            "abandoned",
            "key-change",
            "due"
        ]
    );
    let Act::Drill(drill) = &acts[3] else { panic!("the fourth act is a drill") };
    assert_eq!(drill.proves(), Some(Assurance::A4));
    assert_eq!((drill.rto.measured_ms, drill.fetched_bytes), (Some(360_000), 12_000_000));
    assert_eq!(drill.sandbox.value()["mode"], "user-namespace");
}

/// Also holds the spelling of what is written today: a receipt made of the same facts has the same bytes.
#[test]
fn this_version_writes_what_version_1_wrote() {
    assert_eq!(written_today().0, read("receipts.jsonl"));
}

#[test]
#[ignore = "writes the frozen files of a new format, once"]
fn freeze() {
    let (lines, key) = written_today();
    let folder = folder();
    assert!(!folder.exists(), "frozen files are never written again");
    std::fs::create_dir_all(&folder).unwrap();
    let report = verify_export(&lines, &TrustedKeys::of([key.public()]), &Known::default());
    std::fs::write(folder.join("head.json"), serde_json::to_string(&report.head.unwrap()).unwrap() + "\n")
        .unwrap();
    std::fs::write(folder.join("key.pub"), key.public().to_pem()).unwrap();
    std::fs::write(folder.join("receipts.jsonl"), lines).unwrap();
}
