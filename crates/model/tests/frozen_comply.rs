//! Looks at all copies that were sealed once must be readable for ever, and judged as they were; see `frozen.rs`.

#![expect(clippy::unwrap_used, reason = "helpers of tests: what cannot be unwrapped is a failed test")]

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use seaworthy_model::example::{self, About};
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::ledger::{Known, verify_export};
use seaworthy_model::placement::{Answer, Comply, ReadBack, Seen};
use seaworthy_model::receipt::{Act, Head, read_unverified, seal};
use seaworthy_model::signature::{Envelope, PublicKey, SigningKey, TrustedKeys};
use seaworthy_model::verdict::Assurance;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../formats/v1/comply")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}

/// One of each answer, with every member that a look may have.
fn looks() -> Vec<Comply> {
    let start: Timestamp = "2026-11-29T06:00:00Z".parse().unwrap();
    let backup =
        example::backup(&About::new("shop", "orders-db", start - SignedDuration::from_hours(4)), None);
    let met = example::case(&backup, start);
    let mut unknown = met.clone();
    let silent = Finding::new(FindingCode::Unreachable, "repository away", "it did not answer within 1m");
    unknown.looks[1].seen = Seen::Silent(silent);
    (unknown.looks[1].id, unknown.looks[1].keys) = (None, None);
    let mut violated = met.clone();
    (violated.device, violated.looks[0].device) = (Some("8:1".to_owned()), Some("8:1".to_owned()));
    violated.policy.immutable = 1;
    violated.looks[1].immutable_until = Some(start);
    violated.looks[1].region_seen = Some("us-east-1".to_owned());
    violated.looks[1].vanished = 2;
    let copy = &mut violated.looks[1].copies[0];
    copy.proven = Some((Assurance::A4, start));
    copy.read = ReadBack::Damaged(Finding::new(FindingCode::ObjectDamaged, "copy", "its MAC does not match"));
    copy.doubt = Some(Finding::new(FindingCode::LedgerCut, "receipt 2", "it is not in the ledger"));
    copy.is_bad = Some("it was shown to be bad".to_owned());
    [met, unknown, violated].into_iter().map(example::comply).collect()
}

fn written_today() -> (String, SigningKey) {
    let key = SigningKey::from_random(&[43; 32]);
    let (mut lines, mut head) = (String::new(), None::<Head>);
    for comply in looks() {
        let at = comply.finished;
        let act = Act::Comply(Box::new(comply));
        let envelope = seal(&act, at, head.as_ref(), &key).unwrap();
        let receipt = read_unverified(&envelope).unwrap();
        assert_eq!(receipt.act, act);
        head = Some(receipt.head());
        lines.push_str(&(envelope.to_json() + "\n"));
    }
    (lines, key)
}

#[test]
fn looks_of_version_1_are_read_verified_and_judged_as_they_were() {
    let keys = TrustedKeys::of([PublicKey::from_pem(&read("key.pub")).unwrap()]);
    let head: Head = serde_json::from_str(&read("head.json")).unwrap();
    let report =
        verify_export(&read("receipts.jsonl"), &keys, &Known { after: None, head: Some(head.clone()) });
    assert_eq!(report.findings, []);
    assert_eq!((report.verified, report.head), (3, Some(head)));
    let answers: Vec<Answer> = read("receipts.jsonl")
        .lines()
        .map(|line| match read_unverified(&Envelope::from_json(line.as_bytes()).unwrap()).unwrap().act {
            Act::Comply(comply) => comply.answer,
            other => panic!("a look, not a {}", other.word()),
        })
        .collect();
    assert_eq!(answers, [Answer::Met, Answer::Unknown, Answer::Violated]);
}

/// A difference is a change of the rules or of their words: raise `placement::RULES`, and freeze beside these.
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
