//! Receipts about keys, and of a drill without our engine, that were written once must be readable for ever; see `frozen.rs`.

#![expect(clippy::unwrap_used, reason = "helpers of tests: what cannot be unwrapped is a failed test")]

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use seaworthy_model::example::{self, About};
use seaworthy_model::ledger::{Known, verify_export};
use seaworthy_model::objective::Objective;
use seaworthy_model::receipt::{Act, Drill, Head, KeyDeed, Measured, RepositoryKey, read_unverified, seal};
use seaworthy_model::signature::{Envelope, PublicKey, SigningKey, TrustedKeys};
use seaworthy_model::verdict::{Assurance, CheckOutcome, CheckReport, Verdict};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../formats/v1/keys")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}

fn start() -> Timestamp {
    "2026-11-29T03:00:00Z".parse().unwrap()
}

/// A drill that has shown everything that A6 asks for.
fn independent() -> Drill {
    let about = About::new("shop", "orders-db", start());
    let backup = example::backup(&about, None);
    let mut drill = example::drill(&about, None, &backup, None);
    let passed = CheckReport {
        name: "user:orders-exist".to_owned(),
        outcome: CheckOutcome::Passed,
        detail: "true".to_owned(),
        findings: Vec::new(),
    };
    drill.expected_checks.push(passed.name.clone());
    drill.checks.push(passed);
    drill.rto = Measured::new(drill.rto.measured_ms, Objective::Within(SignedDuration::from_hours(1)));
    drill.verdict = Verdict::Pass(Assurance::A6);
    drill.independence = Some(example::independence());
    drill
}

fn written_today() -> (String, SigningKey) {
    let key = SigningKey::from_random(&[43; 32]);
    let check = example::key_check(start());
    let acts = [
        Act::Key(Box::new(RepositoryKey {
            deed: KeyDeed::Added,
            other: check.keys.first().cloned(),
            ..check.clone()
        })),
        Act::Key(Box::new(check.clone())),
        Act::Key(Box::new(RepositoryKey { key: None, read: None, ..check.clone() })),
        Act::Key(Box::new(RepositoryKey {
            deed: KeyDeed::Removed,
            name: None,
            custody: None,
            holder: None,
            read: None,
            ..check
        })),
        Act::Drill(Box::new(independent())),
    ];
    let (mut lines, mut head) = (String::new(), None::<Head>);
    for act in acts {
        let envelope = seal(&act, start(), head.as_ref(), &key).unwrap();
        let receipt = read_unverified(&envelope).unwrap();
        assert_eq!(receipt.act, act);
        head = Some(receipt.head());
        lines.push_str(&(envelope.to_json() + "\n"));
    }
    (lines, key)
}

#[test]
fn receipts_about_keys_of_version_1_mean_what_they_meant() {
    let keys = TrustedKeys::of([PublicKey::from_pem(&read("key.pub")).unwrap()]);
    let report = verify_export(&read("receipts.jsonl"), &keys, &Known::default());
    assert_eq!((report.findings.as_slice(), report.verified), ([].as_slice(), 5));
    let acts: Vec<Act> = read("receipts.jsonl")
        .lines()
        .map(|line| read_unverified(&Envelope::from_json(line.as_bytes()).unwrap()).unwrap().act)
        .collect();
    let deeds: Vec<KeyDeed> = acts
        .iter()
        .filter_map(|act| match act {
            Act::Key(act) => Some(act.deed),
            _ => None,
        })
        .collect();
    assert_eq!(deeds, [KeyDeed::Added, KeyDeed::Checked, KeyDeed::Checked, KeyDeed::Removed]);
    let Some(Act::Drill(drill)) = acts.last() else { panic!("the last act is a drill") };
    assert_eq!(drill.proves(), Some(Assurance::A6));
}

#[test]
fn this_version_writes_receipts_about_keys_as_version_1_did() {
    assert_eq!(written_today().0, read("receipts.jsonl"));
}

/// The highest level is denied to a receipt that lacks any of what it asks for.
#[test]
fn independence_that_was_not_shown_is_never_sealed() {
    let key = SigningKey::from_random(&[43; 32]);
    let spoilt: [fn(&mut Drill); 5] = [
        |drill| drill.independence = None,
        |drill| drill.independence.as_mut().unwrap().is_other_password = false,
        |drill| drill.rto = Measured::new(None, drill.rto.target),
        |drill| {
            drill.checks.retain(|check| !check.name.starts_with("user:"));
            drill.expected_checks.retain(|name| !name.starts_with("user:"));
        },
        |drill| drill.witness = None,
    ];
    assert_eq!(independent().proves(), Some(Assurance::A6));
    for spoil in spoilt {
        let mut drill = independent();
        spoil(&mut drill);
        assert_eq!(drill.proves(), None, "{drill:?}");
        assert!(seal(&Act::Drill(Box::new(drill.clone())), start(), None, &key).is_err());
        assert_eq!(drill.clone().settled().verdict, Verdict::Inconclusive);
        // The same facts at the level below are believed, where they bear that out.
        drill.verdict = Verdict::Pass(Assurance::A3);
        assert_eq!(drill.proves(), Some(Assurance::A3));
    }
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
