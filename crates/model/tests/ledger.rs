//! The chain of receipts: every way of tampering with it is found, and nothing else is.

#![expect(clippy::unwrap_used, reason = "helpers of tests: what cannot be unwrapped is a failed test")]

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use seaworthy_model::example::{self, About};
use seaworthy_model::finding::FindingCode;
use seaworthy_model::id::Digest;
use seaworthy_model::ledger::{ChainReport, Known, verify_chain, verify_export};
use seaworthy_model::receipt::{Act, ActKind, Head, Receipt, SealError, read_unverified, seal, verify_one};
use seaworthy_model::signature::{Envelope, SigningKey, TrustedKeys};
use seaworthy_model::verdict::{Assurance, Verdict};

fn key(seed: u8) -> SigningKey {
    SigningKey::from_random(&[seed; 32])
}

fn trusted() -> TrustedKeys {
    TrustedKeys::of([key(1).public()])
}

fn start() -> Timestamp {
    "2026-11-21T03:00:00Z".parse().unwrap()
}

fn hour(n: i64) -> Timestamp {
    start() + SignedDuration::from_hours(n)
}

#[derive(Default)]
struct Chain {
    envelopes: Vec<Envelope>,
    head: Option<Head>,
}

impl Chain {
    fn add(&mut self, act: &Act, by: &SigningKey) -> Receipt {
        let at = hour(i64::try_from(self.envelopes.len()).unwrap());
        let envelope = seal(act, at, self.head.as_ref(), by).unwrap();
        let receipt = read_unverified(&envelope).unwrap();
        self.head = Some(receipt.head());
        self.envelopes.push(envelope);
        receipt
    }

    /// `backups` slots with their backups, then a slot with its drill.
    fn of(backups: usize) -> Self {
        let mut chain = Self::default();
        let mut last = None;
        for n in 0..backups {
            let about = About::new("shop", "db", hour(i64::try_from(n).unwrap()));
            let slot = chain.add(&Act::Due(example::due(&about, ActKind::Backup)), &key(1)).sequence;
            let backup = example::backup(&about, Some(slot));
            let sequence = chain.add(&Act::Backup(Box::new(backup.clone())), &key(1)).sequence;
            last = Some((backup, sequence));
        }
        let (backup, sequence) = last.unwrap();
        let about = About::new("shop", "db", hour(100));
        let slot = chain.add(&Act::Due(example::due(&about, ActKind::Drill)), &key(1)).sequence;
        chain
            .add(&Act::Drill(Box::new(example::drill(&about, Some(slot), &backup, Some(sequence)))), &key(1));
        chain
    }

    fn verify(&self, head: Option<&Head>) -> ChainReport {
        verify_chain(&self.envelopes, &trusted(), &Known { after: None, head: head.cloned() })
    }
}

fn codes(report: &ChainReport) -> BTreeSet<&'static str> {
    report.findings.iter().map(|finding| finding.code.as_str()).collect()
}

#[test]
fn a_whole_ledger_verifies_from_the_public_key_alone() {
    let chain = Chain::of(3);
    let export: String = chain.envelopes.iter().map(|envelope| envelope.to_json() + "\n").collect();
    let report = verify_export(&export, &trusted(), &Known { after: None, head: chain.head.clone() });
    assert_eq!(report.findings, []);
    assert!(report.is_sound());
    assert_eq!((report.verified, report.seen), (8, 8));
    assert_eq!(report.head, chain.head);
    assert_eq!(report.open, []);
}

#[test]
fn a_receipt_is_read_back_as_it_was_sealed() {
    let about = About::new("shop", "db", start());
    let act = Act::Backup(Box::new(example::backup(&about, None)));
    let envelope = seal(&act, start(), None, &key(1)).unwrap();
    let receipt = verify_one(&envelope, &trusted()).unwrap();
    assert_eq!(receipt.act, act);
    assert_eq!((receipt.sequence, &receipt.previous), (1, &None));
    assert_eq!(receipt.subject.len(), 2, "the copy and its witness");
    assert!(verify_one(&envelope, &TrustedKeys::of([key(2).public()])).is_err());
}

#[test]
fn nothing_to_verify_is_a_finding() {
    let report = verify_export("\n", &trusted(), &Known::default());
    assert!(!report.is_sound());
    assert_eq!(codes(&report), BTreeSet::from(["EV-01"]));
}

#[test]
fn a_slot_that_no_receipt_ends_stays_open() {
    let mut chain = Chain::of(1);
    let about = About::new("shop", "db", hour(200));
    let slot = chain.add(&Act::Due(example::due(&about, ActKind::Drill)), &key(1)).sequence;
    let report = chain.verify(None);
    assert!(report.is_sound());
    assert_eq!(report.open.iter().map(|(slot, _)| *slot).collect::<Vec<_>>(), [slot]);

    chain.add(&Act::Abandoned(example::abandoned(&about, Some(slot))), &key(1));
    let report = chain.verify(None);
    assert!(report.is_sound());
    assert_eq!(report.open, []);
}

#[test]
fn a_slot_is_ended_once_and_by_its_own_run() {
    let mut chain = Chain::of(1);
    let about = About::new("shop", "db", hour(7));
    chain.add(&Act::Backup(Box::new(example::backup(&about, Some(1)))), &key(1));
    assert_eq!(codes(&chain.verify(None)), BTreeSet::from(["EV-07"]));
}

#[test]
fn a_cut_tail_is_noticed_by_whoever_kept_the_head() {
    let whole = Chain::of(3);
    let mut cut = Chain { envelopes: whole.envelopes.clone(), head: None };
    cut.envelopes.truncate(5);
    assert!(cut.verify(None).is_sound(), "without a head nobody can notice");
    let report = cut.verify(whole.head.as_ref());
    assert_eq!(codes(&report), BTreeSet::from(["EV-06"]));
    assert!(!report.is_sound());

    let mut grown = Chain { envelopes: whole.envelopes.clone(), head: whole.head.clone() };
    grown.add(&Act::Due(example::due(&About::new("shop", "db", hour(300)), ActKind::Drill)), &key(1));
    assert!(grown.verify(whole.head.as_ref()).is_sound(), "an older head is still in it");
}

#[test]
fn a_second_chain_by_the_same_key_is_noticed_by_whoever_kept_the_head() {
    let (whole, other) = (Chain::of(3), Chain::of(2));
    let mut longer = other;
    for n in 0..9 {
        let about = About::new("shop", "db", hour(400 + n));
        longer.add(&Act::Due(example::due(&about, ActKind::Drill)), &key(1));
    }
    assert!(longer.verify(None).is_sound());
    assert_eq!(codes(&longer.verify(whole.head.as_ref())), BTreeSet::from(["EV-06", "EV-07"]));
}

#[test]
fn a_part_is_verified_after_the_head_before_it() {
    let whole = Chain::of(3);
    let before = verify_chain(&whole.envelopes[..2], &trusted(), &Known::default()).head;
    let known = Known { after: before, head: whole.head.clone() };
    let report = verify_chain(&whole.envelopes[2..], &trusted(), &known);
    assert_eq!(report.findings, []);
    assert_eq!(report.head, whole.head);
    let alone = verify_chain(&whole.envelopes[2..], &trusted(), &Known::default());
    assert!(codes(&alone).contains("EV-06"));
}

#[test]
fn a_key_is_believed_from_its_introduction_until_its_retirement() {
    let mut chain = Chain::of(1);
    let change = example::key_change(&key(2).public(), Some(&key(1).public()));
    chain.add(&Act::KeyChange(change), &key(1));
    let about = About::new("shop", "db", hour(9));
    chain.add(&Act::Backup(Box::new(example::backup(&about, None))), &key(2));
    let report = chain.verify(None);
    assert!(report.is_sound(), "{:?}", report.findings);
    assert!(report.keys.is_trusted(&key(2).public().id()) && !report.keys.is_trusted(&key(1).public().id()));

    chain.add(&Act::Backup(Box::new(example::backup(&about, None))), &key(1));
    assert_eq!(codes(&chain.verify(None)), BTreeSet::from(["EV-07"]), "the retired key signs on");

    let mut early = Chain::of(1);
    early.add(&Act::Backup(Box::new(example::backup(&about, None))), &key(2));
    assert_eq!(codes(&early.verify(None)), BTreeSet::from(["EV-07"]));

    let mut forged = Chain::of(1);
    let mut change = example::key_change(&key(2).public(), None);
    change.public_key = key(3).public().to_pem();
    forged.add(&Act::KeyChange(change), &key(1));
    assert_eq!(codes(&forged.verify(None)), BTreeSet::from(["EV-07"]));
}

#[test]
fn a_signed_pass_that_its_own_facts_deny_is_found() {
    let about = About::new("shop", "db", start());
    let backup = example::backup(&about, None);
    let good = example::drill(&about, None, &backup, None);
    assert_eq!(good.proves(), Some(Assurance::A4));
    type Spoil = fn(&mut seaworthy_model::receipt::Drill);
    let spoils: [(&str, Spoil); 11] = [
        ("EV-01", |drill| drill.checks.clear()),
        ("EV-02", |drill| drop(drill.checks.pop())),
        ("EV-02", |drill| drill.expected_checks.push("rows:public.lost".to_owned())),
        ("EV-02", |drill| drill.checks[0].outcome = seaworthy_model::verdict::CheckOutcome::Failed),
        ("EV-05", |drill| drill.control = None),
        ("EV-05", |drill| drill.control.as_mut().unwrap().caught = false),
        ("EV-05", |drill| drill.control.as_mut().unwrap().failed.clear()),
        ("EV-05", |drill| drill.control.as_mut().unwrap().expected = vec![FindingCode::Extension]),
        ("CT-18", |drill| drill.witness = None),
        ("EV-04", |drill| drill.fetched_bytes = 0),
        ("EV-03", |drill| drill.teardown.proven = false),
    ];
    for (code, spoil) in spoils {
        let mut drill = good.clone();
        spoil(&mut drill);
        assert_eq!(drill.proves(), None, "{code}");
        let act = Act::Drill(Box::new(drill.clone()));
        assert!(
            matches!(seal(&act, start(), None, &key(1)), Err(SealError::Undeserved(found)) if found.code.as_str() == code)
        );

        let settled = drill.clone().settled();
        assert_eq!(settled.verdict, Verdict::Inconclusive);
        assert!(settled.findings.iter().any(|finding| finding.code.as_str() == code));
        assert!(seal(&Act::Drill(Box::new(settled)), start(), None, &key(1)).is_ok());

        // Whoever holds the key can still sign one; it is authentic, and proves nothing.
        drill.verdict = Verdict::Inconclusive;
        let honest = seal(&Act::Drill(Box::new(drill)), start(), None, &key(1)).unwrap();
        let payload = String::from_utf8(honest.payload_unverified().unwrap()).unwrap();
        let forged = payload.replace(r#"{"word":"inconclusive"}"#, r#"{"level":"A4","word":"pass"}"#);
        assert_ne!(forged, payload);
        let chain = Chain { envelopes: vec![Envelope::sign(forged.as_bytes(), &key(1))], head: None };
        let report = chain.verify(None);
        assert_eq!(codes(&report), BTreeSet::from([code]));
        assert!(report.is_whole && !report.is_sound());
        assert_eq!(report.verified, 0);
    }
    let failed = example::failed_drill(&about, None, &backup, None);
    assert_eq!((failed.verdict, failed.proves(), failed.contradictions()), (Verdict::Fail, None, vec![]));
}

#[test]
fn a_receipt_of_a_later_version_is_named_and_the_chain_goes_on() {
    let mut chain = Chain::of(1);
    let payload = chain.envelopes[1].payload_unverified().unwrap();
    let later = String::from_utf8(payload).unwrap().replace("\"schema\":1", "\"schema\":2");
    let envelope = Envelope::sign(later.as_bytes(), &key(1));
    // What follows is chained to what a later version wrote.
    let digest = seaworthy_model::signature::sha256(later.as_bytes());
    chain.envelopes.truncate(1);
    chain.envelopes.push(envelope);
    chain.head = Some(Head { sequence: 2, digest });
    chain.add(&Act::Due(example::due(&About::new("shop", "db", hour(9)), ActKind::Drill)), &key(1));
    let report = chain.verify(None);
    assert_eq!(codes(&report), BTreeSet::from(["EV-08"]), "{:?}", report.findings);
    assert_eq!((report.seen, report.verified), (3, 2));
    assert!(!report.is_sound());
}

#[test]
fn signed_bytes_in_another_spelling_are_refused() {
    let chain = Chain::of(1);
    let payload = String::from_utf8(chain.envelopes[0].payload_unverified().unwrap()).unwrap();
    for other in [
        payload.replacen(':', ": ", 1),
        payload.replacen("\"sequence\":1", "\"sequence\":2,\"sequence\":1", 1),
    ] {
        assert_ne!(other, payload);
        let envelope = Envelope::sign(other.as_bytes(), &key(1));
        assert!(verify_one(&envelope, &trusted()).is_err());
        assert_eq!(
            codes(&verify_chain([&envelope], &trusted(), &Known::default())),
            BTreeSet::from(["EV-07"])
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_flipped_bit_of_any_payload_or_signature_is_found(at in any::<prop::sample::Index>(), bit in 0_u8..8, which in any::<prop::sample::Index>(), of_signature in any::<bool>()) {
        let mut chain = Chain::of(2);
        let index = which.index(chain.envelopes.len());
        let envelope = &mut chain.envelopes[index];
        let text = if of_signature { &mut envelope.signatures[0].sig } else { &mut envelope.payload };
        use base64::Engine as _;
        let base64 = base64::engine::general_purpose::STANDARD;
        let mut bytes = base64.decode(&*text).unwrap();
        let position = at.index(bytes.len());
        bytes[position] ^= 1 << bit;
        *text = base64.encode(&bytes);
        let report = chain.verify(chain.head.clone().as_ref());
        prop_assert!(!report.is_sound());
        prop_assert!(codes(&report).contains("EV-07"));
        prop_assert!(report.head.map_or(0, |head| head.sequence) <= u64::try_from(index).unwrap());
    }

    #[test]
    fn any_receipt_taken_out_is_found(which in any::<prop::sample::Index>()) {
        let mut chain = Chain::of(2);
        let index = which.index(chain.envelopes.len());
        chain.envelopes.remove(index);
        let report = chain.verify(chain.head.clone().as_ref());
        prop_assert!(!report.is_sound());
        prop_assert!(codes(&report).contains("EV-06"));
    }

    #[test]
    fn any_two_receipts_exchanged_or_any_one_doubled_is_found(a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>(), doubled in any::<bool>()) {
        let mut chain = Chain::of(2);
        let (a, b) = (a.index(chain.envelopes.len()), b.index(chain.envelopes.len()));
        prop_assume!(doubled || a != b);
        if doubled {
            let twice = chain.envelopes[a].clone();
            chain.envelopes.insert(b, twice);
        } else {
            chain.envelopes.swap(a, b);
        }
        let report = chain.verify(chain.head.clone().as_ref());
        prop_assert!(!report.is_sound());
        prop_assert!(codes(&report).contains("EV-07"), "{:?}", report.findings);
    }
}

/// Both halves are authentic and every sequence is right: only the link between them gives the splice away.
#[test]
fn two_authentic_chains_spliced_together_are_found_without_a_head() {
    let (one, mut other) = (Chain::of(3), Chain::default());
    for n in 0..8 {
        other.add(&Act::Due(example::due(&About::new("wiki", "db", hour(n)), ActKind::Drill)), &key(1));
    }
    let mut spliced = Chain { envelopes: one.envelopes[..4].to_vec(), head: None };
    assert!(spliced.verify(None).is_sound());
    spliced.envelopes.extend_from_slice(&other.envelopes[4..]);
    let report = spliced.verify(None);
    assert_eq!(codes(&report), BTreeSet::from(["EV-07"]));
    assert_eq!(report.head.unwrap().sequence, 4);
}

fn details(report: &ChainReport) -> Vec<String> {
    report.findings.iter().map(|finding| format!("{}: {}", finding.subject, finding.detail)).collect()
}

#[test]
fn what_is_missing_is_told_by_its_numbers() {
    let whole = Chain::of(3);
    let without = |gap: std::ops::Range<usize>| {
        let mut chain = Chain { envelopes: whole.envelopes.clone(), head: None };
        chain.envelopes.drain(gap);
        details(&chain.verify(None))
    };
    assert!(without(2..3).contains(&"receipt 4: receipt 3 is missing".to_owned()), "{:?}", without(2..3));
    assert!(
        without(2..5).contains(&"receipt 6: receipts 3 to 5 are missing".to_owned()),
        "{:?}",
        without(2..5)
    );
}

#[test]
fn a_receipt_out_of_its_place_is_told_apart_from_one_of_another_chain() {
    let mut doubled = Chain::of(2);
    doubled.envelopes.insert(2, doubled.envelopes[1].clone());
    assert_eq!(
        details(&doubled.verify(None)),
        ["receipt 2: it stands where receipt 3 belongs: doubled, reordered or of another chain"]
    );
    let mut other = Chain::of(2);
    let mut foreign = Chain::default();
    for n in 0..3 {
        foreign.add(&Act::Due(example::due(&About::new("wiki", "db", hour(n)), ActKind::Drill)), &key(1));
    }
    other.envelopes.truncate(2);
    other.envelopes.push(foreign.envelopes[2].clone());
    assert_eq!(
        details(&other.verify(None)),
        [
            "receipt 3: it does not follow the receipt before it: one of the two was altered, or is of another chain"
        ]
    );
}

#[test]
fn a_head_that_is_not_there_is_told_apart_from_a_tail_that_is_cut() {
    let chain = Chain::of(2);
    let digest = Digest(format!("sha256:{}", "7".repeat(64)));
    let told = |sequence: u64| {
        let known = Head { sequence, digest: digest.clone() };
        details(&chain.verify(Some(&known))).pop().unwrap()
    };
    assert_eq!(chain.head.as_ref().unwrap().sequence, 6);
    assert_eq!(told(7), "ledger: it ends with receipt 6; receipt 7 is known to exist");
    let replaced = format!("the receipt that is known to exist, {digest}, is not in it");
    assert_eq!(told(6), format!("receipt 6: {replaced}"));
    assert_eq!(told(5), format!("receipt 5: {replaced}"));
}

#[test]
fn a_clock_that_runs_backwards_is_told_and_takes_nothing_from_a_ledger() {
    let mut chain = Chain::of(1);
    let due = Act::Due(example::due(&About::new("shop", "db", hour(9)), ActKind::Drill));
    let at = |chain: &Chain, at: Timestamp| seal(&due, at, chain.head.as_ref(), &key(1)).unwrap();
    let last = read_unverified(chain.envelopes.last().unwrap()).unwrap().at;
    let mut same = Chain { envelopes: chain.envelopes.clone(), head: chain.head.clone() };
    same.envelopes.push(at(&chain, last));
    assert_eq!(same.verify(None).findings, [], "two receipts of one moment");

    chain.envelopes.push(at(&chain, last - SignedDuration::from_secs(1)));
    let report = chain.verify(None);
    assert_eq!(codes(&report), BTreeSet::from(["TM-01"]));
    assert!(report.is_sound() && report.is_whole);
    assert_eq!((report.verified, report.seen), (5, 5));
    assert_eq!(report.head.map(|head| head.sequence), Some(5));
}

#[test]
fn lines_that_are_no_envelopes_are_counted_and_told() {
    let chain = Chain::of(1);
    let lines: Vec<String> = chain.envelopes.iter().map(Envelope::to_json).collect();
    let export = format!("{}\n{{}}\n{}\nnothing\n", lines[0], lines[1]);
    let report = verify_export(&export, &trusted(), &Known::default());
    assert_eq!((report.seen, report.verified), (4, 2));
    let told: Vec<&str> = report.findings.iter().map(|finding| finding.subject.as_str()).collect();
    assert_eq!(told, ["receipt in position 2", "receipt in position 4"]);
    assert!(!report.is_sound() && !report.is_whole);
}
