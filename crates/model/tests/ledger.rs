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
use seaworthy_model::verdict::{Assurance, CheckReport, Verdict};
use seaworthy_model::wal::{Lsn, MOMENT, Reached, Target};

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
fn every_kind_of_act_is_read_back_as_it_was_sealed() {
    let about = About::new("shop", "db", start());
    let backup = example::backup(&about, None);
    let acts = [
        Act::Due(example::due(&about, ActKind::Backup)),
        Act::Backup(Box::new(backup.clone())),
        Act::Backup(Box::new(example::failed_backup(&about, None))),
        Act::Drill(Box::new(example::drill(&about, None, &backup, Some(2)))),
        Act::Drill(Box::new(example::failed_drill(&about, None, &backup, Some(2)))),
        Act::Restore(Box::new(example::restore(&about, None, &backup, Some(2)))),
        Act::Verify(Box::new(example::verify(&about, &[(&backup, Some(2))], true))),
        Act::Verify(Box::new(example::verify(&about, &[(&backup, Some(2))], false))),
        Act::Abandoned(example::abandoned(&about, None)),
        Act::KeyChange(example::key_change(&key(2).public(), Some(&key(3).public()))),
        Act::Found(Box::new(example::found(&backup))),
        Act::Gone(Box::new(example::gone(&backup, 2))),
        Act::Key(Box::new(example::key_check(start()))),
    ];
    let mut chain = Chain::default();
    for act in &acts {
        let receipt = chain.add(act, &key(1));
        assert_eq!(&receipt.act, act);
        let envelope = chain.envelopes.last().unwrap();
        assert_eq!(&Envelope::from_json(envelope.to_json().as_bytes()).unwrap(), envelope);
        assert_eq!(verify_one(envelope, &trusted()).unwrap(), receipt);
    }
    assert_eq!(chain.verify(None).findings, []);
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
        // Nor beside receipts that say nothing wrong, however mild the code.
        let mut beside = Chain::of(1);
        let sealed = payload.replace(
            "\"previous\":null",
            &format!("\"previous\":\"{}\"", beside.head.as_ref().unwrap().digest),
        );
        let sealed = sealed.replace("\"sequence\":1", "\"sequence\":5");
        let forged = sealed.replace(r#"{"word":"inconclusive"}"#, r#"{"level":"A4","word":"pass"}"#);
        beside.envelopes.push(Envelope::sign(forged.as_bytes(), &key(1)));
        let report = beside.verify(None);
        assert_eq!((report.verified, report.seen), (4, 5));
        assert!(codes(&report).contains(code) && !report.is_sound());
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

    let mut stepped = Chain { envelopes: chain.envelopes.clone(), head: chain.head.clone() };
    stepped.envelopes.push(at(&chain, last - SignedDuration::from_mins(2)));
    assert_eq!(stepped.verify(None).findings, [], "clocks that are set right step by seconds");

    chain.envelopes.push(at(&chain, last - SignedDuration::from_secs(121)));
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

#[test]
fn every_act_says_what_it_is_of_and_what_it_ends() {
    let about = About::new("shop", "db", start());
    let backup = example::backup(&about, Some(4));
    let acts = [
        Act::Due(example::due(&about, ActKind::Backup)),
        Act::Backup(Box::new(backup.clone())),
        Act::Backup(Box::new(example::failed_backup(&about, None))),
        Act::Drill(Box::new(example::drill(&about, Some(5), &backup, Some(2)))),
        Act::Restore(Box::new(example::restore(&about, Some(6), &backup, Some(2)))),
        Act::Verify(Box::new(example::verify(&about, &[(&backup, Some(2)), (&backup, None)], true))),
        Act::Abandoned(example::abandoned(&about, Some(7))),
        Act::KeyChange(example::key_change(&key(2).public(), None)),
        Act::Found(Box::new(example::found(&backup))),
        Act::Gone(Box::new(example::gone(&backup, 2))),
        Act::Key(Box::new(example::key_check(start()))),
    ];
    let mut chain = Chain::default();
    let lines: Vec<String> = acts
        .iter()
        .map(|act| {
            let of = act.about().map_or("-".to_owned(), |(service, source)| format!("{service}/{source}"));
            let run = act.run().map_or("-", |run| run.0.split('-').next().unwrap());
            let envelope = seal(act, start(), chain.head.as_ref(), &key(1)).unwrap();
            let receipt = read_unverified(&envelope).unwrap();
            chain.head = Some(receipt.head());
            let subjects: Vec<&str> =
                receipt.subject.iter().map(|subject| subject.name.split(':').next().unwrap()).collect();
            format!(
                "{} {of} {run} ends {:?} judges {} concerns {} subjects {}",
                act.word(),
                act.ends(),
                act.judges().len(),
                act.concerns().len(),
                subjects.join("+")
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            "due shop/db backup ends None judges 0 concerns 1 subjects act",
            "backup shop/db backup ends Some(4) judges 0 concerns 1 subjects copy+witness",
            "backup shop/db backup ends None judges 0 concerns 1 subjects act",
            "drill shop/db drill ends Some(5) judges 1 concerns 1 subjects copy+witness",
            "restore shop/db restore ends Some(6) judges 0 concerns 1 subjects copy",
            "verify - verify ends None judges 2 concerns 1 subjects copy+copy",
            "abandoned shop/db drill ends Some(7) judges 0 concerns 1 subjects act",
            "key-change - - ends None judges 0 concerns 0 subjects act",
            "found shop/db - ends None judges 0 concerns 1 subjects copy+witness",
            "gone shop/db - ends None judges 1 concerns 1 subjects copy",
            "key - - ends None judges 0 concerns 0 subjects key",
        ]
    );
    let kinds =
        [ActKind::Backup, ActKind::Drill, ActKind::Restore, ActKind::Verify].map(|kind| kind.to_string());
    assert_eq!(kinds, ["backup", "drill", "restore", "verify"]);
}

#[test]
fn why_a_pass_is_denied_is_told_with_numbers() {
    let about = About::new("shop", "db", start());
    let good = example::drill(&about, None, &example::backup(&about, None), None);
    let told = |change: fn(&mut seaworthy_model::receipt::Drill)| {
        let mut drill = good.clone();
        change(&mut drill);
        drill.contradictions().into_iter().map(|finding| finding.detail).collect::<Vec<_>>()
    };
    assert_eq!(told(|_| {}), Vec::<String>::new());
    assert_eq!(
        told(|drill| drill.checks[1].outcome = seaworthy_model::verdict::CheckOutcome::Inconclusive),
        ["a pass that its checks do not bear out: 3 expected, 3 carried out, 2 passed"]
    );
    assert_eq!(told(|drill| drill.checks.clear()), ["a pass without a check"]);
    assert_eq!(told(|drill| drill.control = None), ["A4 without a control line"]);
    assert_eq!(told(|drill| drill.witness = None), ["A4 without a witness"]);
    let blind = "a pass whose checks did not notice a damage made on purpose";
    assert_eq!(told(|drill| drill.control.as_mut().unwrap().caught = false), [blind]);
    // What did not pass must have failed, and under a code that the damage is known by.
    assert_eq!(
        told(|drill| {
            let failed = &mut drill.control.as_mut().unwrap().failed[0];
            failed.outcome = seaworthy_model::verdict::CheckOutcome::Inconclusive;
        }),
        [blind]
    );
    // A restore without a witness needs neither; less than a restore is no drill.
    let restored = |level| {
        let mut drill = good.clone();
        (drill.verdict, drill.witness, drill.control) = (Verdict::Pass(level), None, None);
        drill.contradictions().into_iter().map(|finding| finding.detail).collect::<Vec<_>>()
    };
    assert_eq!(restored(Assurance::A3), Vec::<String>::new());
    assert_eq!(restored(Assurance::A2), ["a drill cannot show less than A3, this one says A2"]);
    assert_eq!(told(|drill| drill.fetched_bytes = 0), ["nothing was fetched from the repository"]);
    assert_eq!(told(|drill| drill.teardown.proven = false), ["the sandbox was not shown to be gone"]);
    // A clock that is set right while a short drill runs steps by seconds.
    assert_eq!(
        told(|drill| drill.finished = drill.started - SignedDuration::from_mins(2)),
        Vec::<String>::new()
    );
    assert_eq!(
        told(|drill| drill.finished = drill.started - SignedDuration::from_secs(121)),
        ["the run ended before it began"]
    );
    use seaworthy_model::finding::Finding;
    assert_eq!(
        told(|drill| drill.findings.push(Finding::new(FindingCode::EnvDisk, "x", "y"))),
        Vec::<String>::new()
    );
    assert_eq!(
        told(|drill| drill.findings.push(Finding::new(FindingCode::RowCount, "x", "one is missing"))),
        ["a pass beside a critical finding: one is missing"]
    );
    // A moment that was asked for has to be shown, and the one that was reached has to be that one.
    let until = |drill: &mut seaworthy_model::receipt::Drill| drill.until = Some(Target::Latest);
    let unshown = "a moment was asked for, and nothing was to show it";
    let nowhere = "a pass that does not say where recovery ended";
    let reached = |target| Reached { target, at: start(), position: Lsn(7), bytes: 1 };
    let moment = |change: &dyn Fn(&mut seaworthy_model::receipt::Drill)| {
        let mut drill = good.clone();
        until(&mut drill);
        change(&mut drill);
        drill.contradictions().into_iter().map(|finding| finding.detail).collect::<Vec<_>>()
    };
    let asked = |drill: &mut seaworthy_model::receipt::Drill| {
        drill.expected_checks.push(MOMENT.to_owned());
        let own = CheckReport { name: MOMENT.to_owned(), ..drill.checks[0].clone() };
        drill.checks.push(own);
    };
    assert_eq!(moment(&|_| {}), [unshown, nowhere]);
    assert_eq!(moment(&|drill| asked(drill)), [nowhere]);
    assert_eq!(moment(&|drill| drill.reached = Some(reached(Target::Latest))), [unshown]);
    let right = |target: Target| {
        moment(&|drill| {
            asked(drill);
            drill.reached = Some(reached(target.clone()));
        })
    };
    assert_eq!(right(Target::Latest), Vec::<String>::new());
    assert_eq!(right(Target::Immediate), [nowhere]);
    let mut worse = good.clone();
    (worse.verdict, worse.fetched_bytes) = (Verdict::Fail, 0);
    assert_eq!((worse.contradictions(), worse.proves()), (Vec::new(), None));
    assert_eq!(worse.clone().settled(), worse);
}

#[test]
fn a_receipt_of_another_chain_in_between_is_one_finding() {
    let whole = Chain::of(2);
    let mut other = Chain { envelopes: whole.envelopes[..1].to_vec(), head: None };
    other.head = Some(read_unverified(&whole.envelopes[0]).unwrap().head());
    other.add(&Act::Due(example::due(&About::new("wiki", "db", hour(1)), ActKind::Drill)), &key(1));
    let mut forked = Chain { envelopes: whole.envelopes.clone(), head: None };
    forked.envelopes.insert(2, other.envelopes[1].clone());
    assert_eq!(
        details(&forked.verify(None)),
        ["receipt 2: it stands where receipt 3 belongs: doubled, reordered or of another chain"]
    );
}

#[test]
fn a_slot_that_is_open_is_ended_by_its_own_run_alone() {
    let mut chain = Chain::default();
    let about = About::new("shop", "db", hour(0));
    let slot = chain.add(&Act::Due(example::due(&about, ActKind::Backup)), &key(1)).sequence;
    let other = About::new("shop", "db", hour(5));
    chain.add(&Act::Backup(Box::new(example::backup(&other, Some(slot)))), &key(1));
    let report = chain.verify(None);
    assert_eq!(details(&report), ["receipt 2: it ends slot 1, which is not open or is another run's"]);
    assert_eq!(report.open.len(), 1);
}

#[test]
fn a_part_may_end_slots_from_before_it_and_no_others() {
    let whole = Chain::of(1);
    let head = |number: usize| read_unverified(&whole.envelopes[number - 1]).unwrap().head();
    let part = |from: usize| {
        let known = Known { after: Some(head(from)), head: None };
        details(&verify_chain(&whole.envelopes[from..], &trusted(), &known))
    };
    assert_eq!(part(1), Vec::<String>::new(), "slot 1 lies before");
    let about = About::new("shop", "db", hour(9));
    let mut later = Chain { envelopes: Vec::new(), head: Some(head(4)) };
    later.add(&Act::Backup(Box::new(example::backup(&about, Some(5)))), &key(1));
    let known = Known { after: Some(head(4)), head: None };
    let report = verify_chain(&later.envelopes, &trusted(), &known);
    assert_eq!(details(&report), ["receipt 5: it ends slot 5, which is not open or is another run's"]);
}
