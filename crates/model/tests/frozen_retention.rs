//! Receipts about what is let go that were written once must be readable for ever; see `frozen.rs`.

#![expect(clippy::unwrap_used, reason = "helpers of tests: what cannot be unwrapped is a failed test")]

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use seaworthy_model::example::{self, About};
use seaworthy_model::ledger::{Known, verify_export};
use seaworthy_model::point::RecoveryPoint;
use seaworthy_model::receipt::{Act, Head, Receipt, read_unverified, seal};
use seaworthy_model::retention::{HeldThing, Hold};
use seaworthy_model::signature::{Envelope, PublicKey, SigningKey, TrustedKeys};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../formats/v1/retention")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}

fn written_today() -> (String, SigningKey) {
    let key = SigningKey::from_random(&[44; 32]);
    let start: Timestamp = "2026-11-29T03:00:00Z".parse().unwrap();
    let hour = |n: i64| start + SignedDuration::from_hours(n);
    let about = |n| About::new("shop", "orders-db", hour(n));
    let copies = [0, 1, 2].map(|n| example::backup(&about(n), None));
    let [first, second, third] = &copies;
    let mut held = example::hold(&about(6));
    held.hold = Hold {
        thing: HeldThing::Capture(second.run.clone()),
        reason: "an audit".to_owned(),
        until: Some(hour(99)),
    };
    let acts = [
        Act::Backup(Box::new(first.clone())),
        Act::Backup(Box::new(second.clone())),
        Act::Backup(Box::new(third.clone())),
        Act::Retain(Box::new(example::retain(&about(3), &[first, second], &[], &[]))),
        Act::Hold(example::hold(&about(4))),
        Act::Release(example::release(&about(5), 5)),
        Act::Hold(held),
        Act::Approve(Box::new(example::approve(&about(7)))),
        Act::Retain(Box::new(example::retain(&about(30), &[], &[second], &[first]))),
        Act::Gone(Box::new(example::gone(first, 1))),
        Act::Prune(Box::new(example::prune(&about(31)))),
    ];
    let (mut lines, mut head) = (String::new(), None::<Head>);
    for (act, n) in acts.into_iter().zip(3_i64..) {
        let envelope = seal(&act, hour(n), head.as_ref(), &key).unwrap();
        let receipt = read_unverified(&envelope).unwrap();
        assert_eq!(receipt.act, act);
        head = Some(receipt.head());
        lines.push_str(&(envelope.to_json() + "\n"));
    }
    (lines, key)
}

#[test]
fn receipts_about_what_is_let_go_of_version_1_mean_what_they_meant() {
    let keys = TrustedKeys::of([PublicKey::from_pem(&read("key.pub")).unwrap()]);
    let report = verify_export(&read("receipts.jsonl"), &keys, &Known::default());
    assert_eq!((report.findings.as_slice(), report.verified), ([].as_slice(), 11));
    let receipts: Vec<Receipt> = read("receipts.jsonl")
        .lines()
        .map(|line| read_unverified(&Envelope::from_json(line.as_bytes()).unwrap()).unwrap())
        .collect();
    let words: Vec<&str> = receipts.iter().map(|receipt| receipt.act.word()).collect();
    assert_eq!(
        words,
        [
            "backup", "backup", "backup", "retain", "hold", "release", "hold", "approve", "retain", "gone",
            "prune"
        ]
    );
    let mut points: Vec<RecoveryPoint> = receipts.iter().filter_map(RecoveryPoint::made_by).collect();
    let mut marks = Vec::new();
    for receipt in &receipts {
        points.iter_mut().for_each(|point| point.apply(receipt));
        let is_marked = |point: &RecoveryPoint| point.mark.as_ref().map(|mark| mark.is_being_removed);
        marks.push(points.iter().map(is_marked).collect::<Vec<_>>());
    }
    assert_eq!(marks[3], [Some(false), Some(false), None]);
    assert_eq!(marks[8], [Some(true), None, None]);
    assert_eq!(marks[9], [None, None, None]);
    assert!(points[0].is_gone());
}

#[test]
fn this_version_writes_receipts_about_what_is_let_go_as_version_1_did() {
    assert_eq!(written_today().0, read("receipts.jsonl"));
}

#[test]
#[ignore = "writes the frozen files of a new format, once"]
fn freeze() {
    let (lines, key) = written_today();
    assert!(!folder().exists(), "frozen files are never written again");
    std::fs::create_dir_all(folder()).unwrap();
    std::fs::write(folder().join("key.pub"), key.public().to_pem()).unwrap();
    std::fs::write(folder().join("receipts.jsonl"), lines).unwrap();
}
