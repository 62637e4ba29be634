//! The laws of judging: evidence only helps, time only harms, and losing good evidence never looks like an improvement.

#![expect(clippy::unwrap_used, reason = "helpers of tests: what cannot be unwrapped is a failed test")]

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use seaworthy_model::assess::{
    Dates, EPOCH, Facts, Judged, Policy, ServiceAssessment, SourceHistory, Standing, assess, assess_source,
};
use seaworthy_model::example::{self, About};
use seaworthy_model::finding::{Finding, FindingCode, Severity};
use seaworthy_model::id::{CopyId, Digest, RepositoryName, ServiceName, SourceName};
use seaworthy_model::objective::{Met, Objective, RecoveryObjective};
use seaworthy_model::point::RecoveryPoint;
use seaworthy_model::receipt::{Act, ActKind, Backup, CLOCK_STEP, Drill, Gone, Outcome, Receipt, Remaining};
use seaworthy_model::verdict::{Assurance, Verdict};
use seaworthy_model::wal::{MOMENT, Target};

fn hour(n: u32) -> Timestamp {
    "2026-11-01T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_hours(n.into())
}

fn hours(n: i64) -> SignedDuration {
    SignedDuration::from_hours(n)
}

fn policy() -> Policy {
    Policy {
        objective: RecoveryObjective { rpo: Objective::Within(hours(24)), rto: Objective::Within(hours(2)) },
        stale_after: hours(36),
        proof_valid: hours(24 * 30),
    }
}

fn receipt(sequence: u64, at: Timestamp, act: Act) -> Receipt {
    let digest = Digest(format!("sha256:{sequence:064x}"));
    Receipt { sequence, previous: None, at, subject: Vec::new(), act, digest }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    GoodBackup,
    IncompleteBackup,
    FailedBackup,
    FutureDatedBackup,
    GoodDrill { of: usize, level: Assurance },
    FailedDrill { of: usize },
    UndecidedDrill { of: usize },
    HollowDrill { of: usize },
    Intact { of: usize },
    Damaged { of: usize },
    Due,
    Abandoned,
    Found,
    Replicated { of: usize },
    Gone { of: usize },
}

impl Event {
    /// Whether it shows that something went well.
    fn is_passing(self) -> bool {
        matches!(
            self,
            Self::GoodBackup
                | Self::GoodDrill { .. }
                | Self::Intact { .. }
                | Self::Found
                | Self::Replicated { .. }
        )
    }
}

/// The receipts of these events, each the given number of hours after the one before.
fn receipts(events: &[(Event, u32)]) -> Vec<Receipt> {
    let mut made: Vec<Receipt> = Vec::new();
    let mut backups: Vec<(u64, Backup)> = Vec::new();
    let mut gone: Vec<Option<CopyId>> = Vec::new();
    let mut clock = 0;
    for (n, (event, later)) in events.iter().enumerate() {
        clock += later;
        let sequence = u64::try_from(n).unwrap() + 1;
        let about = About::new(
            "shop",
            "db",
            hour(clock) - hours(1) + SignedDuration::from_secs(i64::try_from(n).unwrap()),
        );
        let of = |of: usize| match backups.get(of % backups.len().max(1)) {
            Some((sequence, backup)) => (Some(*sequence), backup.clone()),
            None => (None, example::backup(&About::new("shop", "db", hour(0) - hours(10)), None)),
        };
        let act = match *event {
            Event::GoodBackup | Event::IncompleteBackup | Event::FutureDatedBackup => {
                let mut backup = example::backup(&about, None);
                if *event == Event::IncompleteBackup {
                    backup.outcome = Outcome::Incomplete;
                }
                if *event == Event::FutureDatedBackup {
                    backup.point = Some(about.started + hours(500));
                }
                backups.push((sequence, backup.clone()));
                Act::Backup(Box::new(backup))
            }
            Event::FailedBackup => Act::Backup(Box::new(example::failed_backup(&about, None))),
            Event::GoodDrill { of: which, level } => {
                let (stored, backup) = of(which);
                let mut drill = example::drill(&about, None, &backup, stored);
                drill.verdict = Verdict::Pass(level);
                assert_eq!(drill.proves(), Some(level));
                Act::Drill(Box::new(drill))
            }
            Event::HollowDrill { of: which } => {
                let (stored, backup) = of(which);
                let mut drill = example::drill(&about, None, &backup, stored);
                drill.checks.clear();
                Act::Drill(Box::new(drill))
            }
            Event::FailedDrill { of: which } => {
                let (stored, backup) = of(which);
                Act::Drill(Box::new(example::failed_drill(&about, None, &backup, stored)))
            }
            Event::UndecidedDrill { of: which } => {
                let (stored, backup) = of(which);
                let mut drill = example::drill(&about, None, &backup, stored);
                drill.verdict = Verdict::Inconclusive;
                drill.findings = vec![Finding::new(FindingCode::EnvDisk, "scratch", "3 GB short")];
                Act::Drill(Box::new(drill))
            }
            Event::Intact { of: which } | Event::Damaged { of: which } => {
                let (stored, backup) = of(which);
                let is_intact = matches!(event, Event::Intact { .. });
                Act::Verify(Box::new(example::verify(&about, &[(&backup, stored)], is_intact)))
            }
            Event::Due => Act::Due(example::due(&about, ActKind::Drill)),
            Event::Abandoned => Act::Abandoned(example::abandoned(&about, None)),
            Event::Found => {
                let backup = example::backup(&about, None);
                backups.push((sequence, backup.clone()));
                Act::Found(Box::new(example::found(&backup)))
            }
            Event::Replicated { of: which } => {
                let (stored, backup) = of(which);
                let mut replicate = example::replicate(&backup, stored.unwrap_or(0), about.started);
                replicate.repository.name = away();
                let (copy, repository) = (replicate.copy.clone(), replicate.repository.clone());
                backups.push((sequence, Backup { copy, repository, ..backup }));
                Act::Replicate(Box::new(replicate))
            }
            Event::Gone { of: which } => {
                let (stored, backup) = of(which);
                gone.push(backup.copy.clone());
                let remaining = backups.iter().filter(|(_, one)| {
                    one.outcome == Outcome::Complete && one.point.is_some() && !gone.contains(&one.copy)
                });
                let instant = |one: &Backup| {
                    let act = Act::Backup(Box::new(one.clone()));
                    RecoveryPoint::made_by(&receipt(1, one.finished, act)).unwrap().instant()
                };
                let newest = remaining.max_by_key(|(sequence, one)| (instant(one), *sequence)).map(
                    |(sequence, one)| Remaining {
                        sequence: *sequence,
                        repository: one.repository.id.clone(),
                        copy: one.copy.clone().unwrap(),
                        point: instant(one),
                    },
                );
                Act::Gone(Box::new(Gone { newest, ..example::gone(&backup, stored.unwrap_or(0)) }))
            }
        };
        made.push(receipt(sequence, hour(clock), act));
    }
    made
}

fn judged<'a>(
    receipts: impl IntoIterator<Item = &'a Receipt>,
    policy: &Policy,
    now: Timestamp,
) -> ServiceAssessment {
    asked(receipts, &[], policy, now)
}

/// The same, where copies should also be in a second repository.
fn everywhere<'a>(
    receipts: impl IntoIterator<Item = &'a Receipt>,
    policy: &Policy,
    now: Timestamp,
) -> ServiceAssessment {
    asked(receipts, &[example::repository().name, away()], policy, now)
}

fn asked<'a>(
    receipts: impl IntoIterator<Item = &'a Receipt>,
    repositories: &[RepositoryName],
    policy: &Policy,
    now: Timestamp,
) -> ServiceAssessment {
    let facts = Facts::of(receipts);
    let (service, source) = (ServiceName::new("shop").unwrap(), SourceName::new("db").unwrap());
    let histories: Vec<SourceHistory> = facts.service(&service).cloned().collect();
    assess(&service, [Judged { source: &source, repositories }], policy, &histories, now)
}

/// The repository that copies are replicated into.
fn away() -> RepositoryName {
    RepositoryName::new("away").unwrap()
}

fn after(events: &[(Event, u32)], later: u32) -> ServiceAssessment {
    judged(&receipts(events), &policy(), hour(events.iter().map(|(_, later)| later).sum::<u32>() + later))
}

fn severity(assessment: &ServiceAssessment) -> Option<Severity> {
    assessment.findings.iter().map(|finding| finding.code.severity()).max()
}

fn codes(assessment: &ServiceAssessment) -> Vec<&'static str> {
    assessment.findings.iter().map(|finding| finding.code.as_str()).collect()
}

/// Every respect in which `later` is better than `earlier`.
fn improvements(earlier: &ServiceAssessment, later: &ServiceAssessment) -> Vec<&'static str> {
    let exposure = |assessment: &ServiceAssessment| assessment.exposure_ms.unwrap_or(u64::MAX);
    [
        ("standing", later.standing < earlier.standing),
        ("level", later.level > earlier.level),
        ("exposure", exposure(later) < exposure(earlier)),
        ("severity", severity(later) < severity(earlier)),
    ]
    .into_iter()
    .filter_map(|(name, is_better)| is_better.then_some(name))
    .collect()
}

fn events() -> impl Strategy<Value = Vec<(Event, u32)>> {
    let level = prop_oneof![Just(Assurance::A3), Just(Assurance::A4), Just(Assurance::A5)];
    let event = prop_oneof![
        4 => Just(Event::GoodBackup),
        1 => Just(Event::IncompleteBackup),
        1 => Just(Event::FailedBackup),
        1 => Just(Event::FutureDatedBackup),
        4 => (0..8_usize, level).prop_map(|(of, level)| Event::GoodDrill { of, level }),
        2 => (0..8_usize).prop_map(|of| Event::FailedDrill { of }),
        1 => (0..8_usize).prop_map(|of| Event::UndecidedDrill { of }),
        1 => (0..8_usize).prop_map(|of| Event::HollowDrill { of }),
        1 => (0..8_usize).prop_map(|of| Event::Intact { of }),
        1 => (0..8_usize).prop_map(|of| Event::Damaged { of }),
        1 => Just(Event::Due),
        1 => Just(Event::Abandoned),
        1 => Just(Event::Found),
        2 => (0..8_usize).prop_map(|of| Event::Replicated { of }),
        1 => (0..8_usize).prop_map(|of| Event::Gone { of }),
    ];
    let later = prop_oneof![Just(0_u32), 1..30_u32, Just(36), 100..900_u32];
    prop::collection::vec((event, later), 1..9)
}

fn policies() -> impl Strategy<Value = Policy> {
    let bound =
        prop_oneof![Just(Objective::NotApplicable), (1..200_i64).prop_map(|n| Objective::Within(hours(n)))];
    (bound, 1..200_i64, 1..1_500_i64).prop_map(|(rpo, stale, valid)| Policy {
        objective: RecoveryObjective { rpo, rto: Objective::Within(hours(2)) },
        stale_after: hours(stale),
        proof_valid: hours(valid),
    })
}

/// Asks a law 2,000 times, or as often as `SEAWORTHY_CASES` says, and returns how often it had something to say: how often the two
/// sides differed at all.
fn law<S: Strategy>(
    given: S,
    holds: impl Fn(S::Value) -> Option<(ServiceAssessment, ServiceAssessment)>,
) -> u32 {
    let cases = std::env::var("SEAWORTHY_CASES").map_or(2_000, |cases| cases.parse().unwrap());
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let told = std::cell::Cell::new(0);
    let outcome = TestRunner::new(config).run(&given, |value| {
        if let Some((better, worse)) = holds(value) {
            prop_assert_eq!(improvements(&better, &worse), Vec::<&str>::new(), "{:?}\n{:?}", better, worse);
            told.set(told.get() + u32::from(better != worse));
        }
        Ok(())
    });
    outcome.unwrap();
    told.get()
}

#[test]
fn a_receipt_of_something_that_went_well_never_makes_anything_worse() {
    let given = (events(), 0..4, 0..8_usize, policies(), 0..50_u32);
    let told = law(given, |(mut events, what, of, policy, later)| {
        let event = match what {
            0 => Event::GoodBackup,
            1 => Event::GoodDrill { of, level: Assurance::A4 },
            2 => Event::Found,
            _ => Event::Intact { of },
        };
        events.push((event, later));
        let receipts = receipts(&events);
        let now = receipts.last().unwrap().at;
        let without = everywhere(&receipts[..receipts.len() - 1], &policy, now);
        Some((everywhere(&receipts, &policy, now), without))
    });
    assert!(told >= 800, "only {told} receipts changed anything");
}

#[test]
fn time_passing_without_receipts_never_makes_anything_better() {
    let told = law((events(), policies(), 0..2_000_u32, 0..2_000_u32), |(events, policy, first, then)| {
        let receipts = receipts(&events);
        let last = receipts.last().unwrap().at;
        let early = everywhere(&receipts, &policy, last + hours(first.into()));
        Some((early, everywhere(&receipts, &policy, last + hours((first + then).into()))))
    });
    assert!(told >= 800, "time changed anything only {told} times");
}

#[test]
fn losing_a_receipt_of_something_that_went_well_never_looks_like_an_improvement() {
    let given = (events(), policies(), any::<prop::sample::Index>(), 0..2_000_u32);
    let told = law(given, |(events, policy, which, later)| {
        let passing: Vec<usize> = (0..events.len()).filter(|n| events[*n].0.is_passing()).collect();
        if passing.is_empty() {
            return None;
        }
        let index = passing[which.index(passing.len())];
        let receipts = receipts(&events);
        let now = receipts.last().unwrap().at + hours(later.into());
        let torn = receipts.iter().enumerate().filter(|(n, _)| *n != index).map(|(_, one)| one);
        Some((everywhere(&receipts, &policy, now), everywhere(torn, &policy, now)))
    });
    assert!(told >= 400, "only {told} lost receipts changed anything");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_history_is_the_same_however_often_a_receipt_is_folded_in(events in events()) {
        let receipts = receipts(&events);
        let once = Facts::of(&receipts);
        for history in once.histories.values() {
            let mut again = history.clone();
            for receipt in &receipts {
                again.apply(receipt);
            }
            prop_assert_eq!(&again, history);
        }
    }
}

/// The laws say nothing where their premises never hold: all standings must turn up among the generated histories.
#[test]
fn the_generator_reaches_every_standing() {
    use proptest::strategy::ValueTree as _;
    let mut runner = TestRunner::deterministic();
    let mut counts = std::collections::BTreeMap::new();
    for _ in 0..2_000 {
        let events = events().new_tree(&mut runner).unwrap().current();
        *counts.entry(after(&events, 0).standing).or_insert(0) += 1;
    }
    for standing in [Standing::Ready, Standing::Attention, Standing::Unproven, Standing::Broken] {
        assert!(counts.get(&standing).is_some_and(|count| *count >= 40), "{counts:?}");
    }
}

const GOOD: Event = Event::GoodDrill { of: 0, level: Assurance::A4 };

#[test]
fn a_fresh_copy_with_a_recent_proof_is_ready() {
    let assessment = after(&[(Event::GoodBackup, 1), (GOOD, 1)], 3);
    assert_eq!(assessment.findings, []);
    assert_eq!((assessment.standing, assessment.level), (Standing::Ready, Assurance::A4));
    assert_eq!((assessment.rpo, assessment.rto), (Met::Met, Met::Met));
    assert_eq!(assessment.exposure_ms, Some(5 * 3_600_000));
    assert_eq!(assessment.rto_ms, Some(360_000));
    assert_eq!(assessment.last_drill.unwrap().verdict, Verdict::Pass(Assurance::A4));
}

#[test]
fn a_clock_that_steps_back_by_seconds_is_no_finding_and_one_that_is_an_hour_off_is() {
    let receipts = receipts(&[(Event::GoodBackup, 1), (GOOD, 1)]);
    let sealed = receipts.last().unwrap().at;
    let stepped = judged(&receipts, &policy(), sealed - SignedDuration::from_secs(2));
    assert_eq!((stepped.findings.as_slice(), stepped.standing), (&[][..], Standing::Ready));
    let behind = judged(&receipts, &policy(), sealed - SignedDuration::from_mins(3));
    assert_eq!((codes(&behind), behind.standing), (vec!["TM-01"], Standing::Attention));
}

#[test]
fn a_service_without_receipts_is_not_silent() {
    let assessment = judged([], &policy(), hour(0));
    assert_eq!((assessment.standing, assessment.level), (Standing::Unproven, Assurance::A0));
    assert_eq!(codes(&assessment), ["TM-03", "TM-05"]);
    assert_eq!((assessment.rpo, assessment.rto, assessment.exposure_ms), (Met::Unknown, Met::Unknown, None));
    let nothing = assess(&ServiceName::new("shop").unwrap(), [] as [&SourceName; 0], &policy(), &[], hour(0));
    assert_eq!((codes(&nothing), nothing.standing), (vec!["EV-01"], Standing::Broken));
}

#[test]
fn a_service_that_has_no_state_and_promises_none_is_not_broken() {
    let promise = |rpo| Policy { objective: RecoveryObjective { rpo, ..policy().objective }, ..policy() };
    let of = |policy: &Policy, sources: &[SourceName]| {
        let judged = assess(&ServiceName::new("cache").unwrap(), sources, policy, &[], hour(0));
        (judged.standing, codes(&judged).join(" "), judged.rpo)
    };
    let none = promise(Objective::NotApplicable);
    assert_eq!(of(&none, &[]), (Standing::Nothing, String::new(), Met::NotApplicable));
    assert!(Standing::Nothing < Standing::Ready, "it makes no other service look worse");
    // Who promises a bound owes a source, and who has one is asked for its copies.
    let (broken, told, _) = of(&promise(Objective::Within(hours(24))), &[]);
    assert_eq!((broken, told.as_str()), (Standing::Broken, "EV-01"));
    let (standing, told, _) = of(&none, &[SourceName::new("db").unwrap()]);
    assert!(standing == Standing::Unproven && told.contains("TM-03"), "{standing:?} {told}");
}

#[test]
fn proofs_decay_and_copies_go_stale() {
    let events = [(Event::GoodBackup, 1), (GOOD, 1)];
    assert_eq!(codes(&after(&events, 30)), ["TM-09"], "31 hours exposed, 24 promised");
    assert_eq!(codes(&after(&events, 40)), ["TM-03", "TM-09"]);
    let old = after(&events, 24 * 31);
    assert_eq!((codes(&old), old.level), (vec!["TM-03", "TM-09", "TM-05"], Assurance::A0));
    let told: Vec<&str> = old.findings.iter().map(|finding| finding.detail.as_str()).collect();
    assert_eq!(
        told,
        [
            "the newest copy is of 2026-11-01T00:00:00Z, 31d02h ago; allowed are 1d12h",
            "31d02h would be lost now; promised are 1d00h",
            "the last proof is of 2026-11-01T01:06:13Z, 31d00h ago; allowed are 30d00h",
        ]
    );
}

#[test]
fn a_copy_that_is_bad_in_one_repository_is_not_answered_by_a_pass_in_another() {
    let mut receipts: Vec<Receipt> = Vec::new();
    let add = |receipts: &mut Vec<Receipt>, n: u32, act: Act| {
        let sequence = u64::try_from(receipts.len()).unwrap() + 1;
        receipts.push(receipt(sequence, hour(n), act));
        sequence
    };
    let told = |receipts: &[Receipt], n: u32| {
        let judged = everywhere(receipts, &policy(), hour(n));
        let behind = judged.findings.iter().any(|one| one.code == FindingCode::LagsBehind);
        (behind, judged.standing)
    };
    let backup = |n: u32| example::backup(&About::new("shop", "db", hour(n)), None);
    let about = |n: u32| About::new("shop", "db", hour(n));
    let (first, second) = (backup(0), backup(3));
    let replicate = |of: &Backup, known_by, n| {
        let mut replicate = example::replicate(of, known_by, hour(n));
        replicate.repository.name = away();
        replicate
    };
    let stored = add(&mut receipts, 1, Act::Backup(Box::new(first.clone())));
    let replica = replicate(&first, stored, 1);
    let there =
        Backup { repository: replica.repository.clone(), copy: replica.copy.clone(), ..first.clone() };
    let known = add(&mut receipts, 2, Act::Replicate(Box::new(replica.clone())));
    let mut verify = example::verify(&about(2), &[(&there, Some(known))], false);
    verify.repository = replica.repository.clone();
    add(&mut receipts, 3, Act::Verify(Box::new(verify)));
    assert_eq!(told(&receipts, 3), (true, Standing::Broken));
    // The next backup goes to the first repository alone, and is proven there.
    let stored = add(&mut receipts, 4, Act::Backup(Box::new(second.clone())));
    let drill = example::drill(&about(5), None, &second, Some(stored));
    add(&mut receipts, 6, Act::Drill(Box::new(drill)));
    assert_eq!(judged(&receipts, &policy(), hour(6)).standing, Standing::Ready, "the premise");
    assert_eq!(told(&receipts, 6), (true, Standing::Attention));
    // It is over once that copy is proven there, the same is sent again, or a newer one comes.
    let proven = example::drill(&about(6), None, &there, Some(known));
    let again = Act::Replicate(Box::new(seaworthy_model::receipt::Replicate {
        copy: Some(example::copy_id("sent again")),
        ..replica.clone()
    }));
    let newer = Act::Replicate(Box::new(replicate(&second, stored, 6)));
    for act in [Act::Drill(Box::new(proven)), again, newer] {
        let mut then = receipts.clone();
        add(&mut then, 7, act.clone());
        assert_eq!(told(&then, 7), (false, Standing::Ready), "{act:?}");
    }
    // That the very same copy is told of again says nothing of its bytes.
    let mut then = receipts.clone();
    add(&mut then, 7, Act::Replicate(Box::new(replica)));
    assert!(told(&then, 7).0);
}

#[test]
fn a_replica_of_a_copy_of_an_unknown_age_makes_nothing_fresh() {
    let mut receipts = receipts(&[(Event::GoodBackup, 1), (GOOD, 1)]);
    let now = hour(60);
    let old = example::backup(&About::new("shop", "db", hour(500)), None);
    let mut replicate = example::replicate(&old, 99, now);
    replicate.repository.name = away();
    let plain =
        [receipts.clone(), vec![receipt(3, now, Act::Replicate(Box::new(replicate.clone())))]].concat();
    assert!(
        !codes(&judged(&plain, &policy(), now)).contains(&"TM-03"),
        "the premise: it would be the newest"
    );
    replicate.is_doubted = true;
    receipts.push(receipt(3, now, Act::Replicate(Box::new(replicate))));
    assert!(codes(&judged(&receipts, &policy(), now)).contains(&"TM-03"));
    let held = Facts::of(&receipts).histories.into_values().next().unwrap().held;
    assert!(held[&away()].doubted);
}

#[test]
fn a_second_repository_that_was_left_behind_is_told_for_as_long_as_it_is() {
    let told = |events: &[(Event, u32)], later: u32| -> Vec<String> {
        let receipts = receipts(events);
        let now = hour(events.iter().map(|(_, later)| later).sum::<u32>() + later);
        let judged = everywhere(&receipts, &policy(), now);
        let lags = judged.findings.iter().filter(|finding| finding.code == FindingCode::LagsBehind);
        lags.map(|finding| finding.detail.clone()).collect()
    };
    let nothing = "away: no complete copy is known there";
    let mut events = vec![(Event::GoodBackup, 1), (GOOD, 1)];
    assert_eq!(told(&events, 0), [nothing]);
    assert_eq!(everywhere(&receipts(&events), &policy(), hour(2)).standing, Standing::Attention);
    events.push((Event::Replicated { of: 0 }, 1));
    assert_eq!(told(&events, 0), [""; 0]);
    // Where nothing is fresh, it is the backup that is missing.
    assert_eq!(told(&events, 48), [""; 0]);
    events.push((Event::GoodBackup, 40));
    assert_eq!(
        told(&events, 0),
        ["away: its newest copy is of 2026-11-01T00:00:00Z, 1d19h ago; allowed are 1d12h"]
    );
    events.push((Event::Replicated { of: 2 }, 1));
    assert_eq!(told(&events, 0), [""; 0]);
    // One that is older than what is there makes nothing newer, and its going nothing older.
    events.push((Event::Replicated { of: 0 }, 0));
    events.push((Event::Gone { of: 1 }, 0));
    assert_eq!(told(&events, 0), [""; 0]);
    events.push((Event::Gone { of: 3 }, 0));
    assert_eq!(told(&events, 0), [nothing], "{:?}", receipts(&events).last());
}

#[test]
fn a_failed_copy_stays_red_until_it_or_a_newer_one_passes() {
    let mut events =
        vec![(Event::GoodBackup, 1), (GOOD, 1), (Event::GoodBackup, 1), (Event::FailedDrill { of: 1 }, 1)];
    let red = after(&events, 0);
    assert_eq!((red.standing, red.level, red.exposure_ms), (Standing::Broken, Assurance::A1, None));
    assert_eq!(codes(&red), ["TM-05", "CT-01"]);
    events.push((GOOD, 1));
    assert_eq!(after(&events, 0).standing, Standing::Broken, "an older copy that passes answers nothing");
    events.push((Event::GoodBackup, 1));
    assert_eq!(after(&events, 0).standing, Standing::Broken, "nor does a newer one that nobody tried");
    events.push((Event::GoodDrill { of: 2, level: Assurance::A4 }, 1));
    assert_eq!(after(&events, 0).standing, Standing::Ready);
}

#[test]
fn a_pass_that_its_own_facts_deny_proves_nothing() {
    let assessment = after(&[(Event::GoodBackup, 1), (Event::HollowDrill { of: 0 }, 1)], 0);
    assert_eq!((assessment.standing, assessment.level), (Standing::Broken, Assurance::A1));
    assert!(codes(&assessment).contains(&"EV-01"));
    assert_eq!(assessment.last_drill.unwrap().verdict, Verdict::Inconclusive);
}

#[test]
fn runs_that_fail_stop_or_vanish_are_named() {
    let base = [(Event::GoodBackup, 1), (GOOD, 1)];
    let with = |event, later| after(&[base[0], base[1], (event, 0)], later);
    assert_eq!(codes(&with(Event::FailedBackup, 0)), ["EV-10", "IO-UNREACHABLE"]);
    assert_eq!(codes(&with(Event::IncompleteBackup, 0)), ["CT-19"]);
    assert_eq!(codes(&with(Event::UndecidedDrill { of: 0 }, 0)), ["EV-10", "ENV-DISK"]);
    assert_eq!(codes(&with(Event::Abandoned, 0)), ["EV-10"]);
    assert_eq!(codes(&with(Event::Due, 10)), Vec::<&str>::new(), "it may still be running");
    assert!(codes(&with(Event::Due, 25)).contains(&"EV-10"));
}

#[test]
fn a_point_from_the_future_is_no_younger_than_its_receipt() {
    let assessment = after(&[(Event::FutureDatedBackup, 1), (GOOD, 1)], 3);
    assert_eq!(codes(&assessment), ["TM-02"]);
    assert!(assessment.exposure_ms.unwrap() > 3 * 3_600_000);
}

#[test]
fn damage_found_while_reading_back_is_a_failure() {
    let assessment = after(&[(Event::GoodBackup, 1), (GOOD, 1), (Event::Damaged { of: 0 }, 1)], 0);
    assert_eq!((assessment.standing, assessment.level), (Standing::Broken, Assurance::A1));
    let intact = after(&[(Event::GoodBackup, 1), (Event::Intact { of: 0 }, 1)], 0);
    assert_eq!((intact.standing, intact.level), (Standing::Unproven, Assurance::A2));
}

#[test]
fn a_slow_recovery_is_measured_and_missed() {
    let mut receipts = receipts(&[(Event::GoodBackup, 1), (GOOD, 1)]);
    let slow = Policy {
        objective: RecoveryObjective {
            rto: Objective::Within(SignedDuration::from_mins(5)),
            ..policy().objective
        },
        ..policy()
    };
    let assessment = judged(&receipts, &slow, hour(3));
    assert_eq!((codes(&assessment), assessment.rto), (vec!["TM-08"], Met::Missed));
    assert_eq!(assessment.standing, Standing::Attention);
    assert_eq!(assessment.findings[0].detail, "the recovery took 6m00s; promised are 5m00s");
    receipts.pop();
    assert_eq!(judged(&receipts, &slow, hour(3)).rto, Met::Unknown);
}

#[test]
fn a_service_is_no_better_than_its_worst_source() {
    let receipts = receipts(&[(Event::GoodBackup, 1), (GOOD, 1)]);
    let facts = Facts::of(&receipts);
    let service = ServiceName::new("shop").unwrap();
    let histories: Vec<SourceHistory> = facts.service(&service).cloned().collect();
    let (db, files) = (SourceName::new("db").unwrap(), SourceName::new("files").unwrap());
    let assessment = assess(&service, [&db, &files], &policy(), &histories, hour(3));
    assert_eq!((assessment.standing, assessment.level), (Standing::Unproven, Assurance::A0));
    assert_eq!((assessment.point, assessment.exposure_ms, assessment.rto_ms), (None, None, None));
    assert!(assessment.last_drill.is_none());
    assert_eq!(assessment.sources[0].standing, Standing::Ready);
}

#[test]
fn a_copy_id_that_is_too_short_to_print_is_not_a_panic() {
    let mut receipts = receipts(&[(Event::GoodBackup, 1), (Event::Damaged { of: 0 }, 1)]);
    for receipt in &mut receipts {
        match &mut receipt.act {
            Act::Backup(backup) => backup.copy = Some(CopyId("é".to_owned())),
            Act::Verify(verify) => verify.copies[0].copy = CopyId("é".to_owned()),
            _ => {}
        }
    }
    assert_eq!(judged(&receipts, &policy(), hour(3)).standing, Standing::Broken);
}

#[test]
fn a_proof_from_before_a_failure_does_not_count_again_after_it() {
    let usable = Event::GoodDrill { of: 0, level: Assurance::A5 };
    let mut events = vec![(Event::GoodBackup, 1), (usable, 1)];
    assert_eq!(after(&events, 0).level, Assurance::A5);
    events.extend([(Event::FailedDrill { of: 0 }, 1), (GOOD, 1)]);
    assert_eq!(after(&events, 0).level, Assurance::A4);
}

#[test]
fn a_copy_that_has_gone_is_claimed_no_longer() {
    let good = (Event::GoodBackup, 1);
    let drilled = (Event::GoodDrill { of: 0, level: Assurance::A4 }, 1);
    let one_left = after(&[good, drilled, good, (Event::Gone { of: 1 }, 1)], 1);
    assert_eq!((one_left.standing, one_left.level), (Standing::Ready, Assurance::A4));
    assert_eq!(one_left.point, after(&[good], 0).point, "the older copy is the newest again");
    let none_left = after(&[good, drilled, (Event::Gone { of: 0 }, 1)], 1);
    assert_eq!((none_left.standing, none_left.point), (Standing::Unproven, None));
    let found_again = after(&[good, (Event::Gone { of: 0 }, 1), (Event::Found, 1)], 1);
    assert!(found_again.point.is_some());
}

#[test]
fn the_words_of_a_standing_are_those_on_the_screen() {
    let words =
        [Standing::Nothing, Standing::Ready, Standing::Attention, Standing::Unproven, Standing::Broken]
            .map(Standing::word);
    assert_eq!(words, ["NO STATE", "READY", "ATTENTION", "NOT YET", "BROKEN"]);
}

/// The history of one source after these acts, one an hour.
fn history(acts: Vec<Act>) -> SourceHistory {
    let receipts = acts.into_iter().zip(1..).map(|(act, n)| receipt(u64::from(n), hour(n), act));
    let facts = Facts::of(&receipts.collect::<Vec<_>>());
    facts.histories.into_values().next().unwrap()
}

fn about(n: u32) -> About {
    About::new("shop", "db", hour(n) - SignedDuration::from_mins(10))
}

#[test]
fn an_ending_closes_its_own_slot_and_no_other() {
    let backup = example::backup(&about(3), Some(1));
    let open = history(vec![
        Act::Due(example::due(&about(1), ActKind::Backup)),
        Act::Due(example::due(&about(2), ActKind::Drill)),
        Act::Backup(Box::new(backup)),
    ])
    .open;
    assert_eq!(open.iter().map(|slot| (slot.sequence, slot.act)).collect::<Vec<_>>(), [(2, ActKind::Drill)]);
    let cut = history(vec![
        Act::Due(example::due(&about(1), ActKind::Drill)),
        Act::Due(example::due(&about(2), ActKind::Backup)),
    ])
    .cut_off();
    let told: Vec<_> =
        cut.iter().map(|one| (one.due, one.act, one.service.as_str(), one.source.as_str())).collect();
    assert_eq!(told, [(Some(1), ActKind::Drill, "shop", "db"), (Some(2), ActKind::Backup, "shop", "db")]);
    assert_eq!(cut[0].run, example::due(&about(1), ActKind::Drill).run);
}

#[test]
fn a_copy_that_is_found_is_the_newest_only_where_it_is_complete_and_of_a_later_instant() {
    let known = example::backup(&about(1), None);
    let newest = |change: fn(&mut seaworthy_model::receipt::Found)| {
        let mut found = example::found(&example::backup(&about(2), None));
        found.point = known.point.unwrap() + hours(1);
        change(&mut found);
        let acts = vec![Act::Backup(Box::new(known.clone())), Act::Found(Box::new(found))];
        let newest = history(acts).newest.unwrap();
        (newest.sequence, newest.future_dated)
    };
    assert_eq!(newest(|_| {}), (2, false));
    assert_eq!(newest(|found| found.outcome = Outcome::Incomplete), (1, false));
    assert_eq!(newest(|found| found.point -= hours(1)), (1, false), "of the same instant");
    assert_eq!(newest(|found| found.point -= hours(2)), (1, false));
    assert_eq!(newest(|found| found.point += hours(500)), (2, true));
}

#[test]
fn a_copy_of_the_same_name_in_another_repository_is_another_copy() {
    let backup = example::backup(&about(1), None);
    let mut gone = example::gone(&backup, 1);
    gone.newest = None;
    let acts = |gone: Gone| vec![Act::Backup(Box::new(backup.clone())), Act::Gone(Box::new(gone))];
    assert!(history(acts(gone.clone())).newest.is_none());
    gone.repository.id.0 = "other".to_owned();
    assert!(history(acts(gone)).newest.is_some());
}

#[test]
fn a_point_at_the_very_end_of_its_run_is_not_of_the_future() {
    let mut backup = example::backup(&about(1), None);
    backup.point = Some(backup.finished);
    let newest = history(vec![Act::Backup(Box::new(backup.clone()))]).newest.unwrap();
    assert_eq!((newest.point, newest.future_dated), (backup.finished, false));
}

#[test]
fn only_the_bad_copy_itself_or_a_newer_one_answers_a_failure() {
    let backup = example::backup(&about(1), None);
    let drill = |n: u32, of: &Backup| example::drill(&about(n), None, of, None);
    let mut other = backup.clone();
    other.copy = Some(example::copy_id("another of the same instant"));
    let failed = Act::Drill(Box::new(example::failed_drill(&about(2), None, &backup, None)));
    let after =
        |answer: &Backup| history(vec![failed.clone(), Act::Drill(Box::new(drill(3, answer)))]).failure;
    assert!(after(&backup).is_none());
    assert!(after(&other).is_some(), "it is not newer");
    // Of the order of receipts and the order of instants, one alone makes no copy newer.
    let known = |act: &Act, backup: u64| {
        let Act::Drill(drill) = act else { unreachable!() };
        Act::Drill(Box::new(Drill { backup: Some(backup), ..(**drill).clone() }))
    };
    let later = example::backup(&about(2), None);
    let answer = |of: &Backup, backup| {
        let passed = Act::Drill(Box::new(drill(3, of)));
        history(vec![known(&failed, 5), known(&passed, backup)]).failure.is_none()
    };
    assert_eq!([answer(&other, 6), answer(&later, 5), answer(&later, 6)], [false, false, true]);
    // Of two that are bad and of one instant, the one that was found last is told.
    let both = history(vec![
        failed.clone(),
        Act::Drill(Box::new(example::failed_drill(&about(3), None, &other, None))),
    ]);
    assert_eq!(both.failure.unwrap().copy, other.copy.clone().unwrap());
}

#[test]
fn of_proofs_of_one_level_the_last_is_kept() {
    let backup = example::backup(&about(1), None);
    let drill = |n| Act::Drill(Box::new(example::drill(&about(n), None, &backup, Some(1))));
    let proofs = history(vec![Act::Backup(Box::new(backup.clone())), drill(2), drill(3)]).proofs;
    assert_eq!(proofs.iter().map(|proof| proof.sequence).collect::<Vec<_>>(), [3]);
}

#[test]
fn an_older_copy_that_is_bad_does_not_take_the_newest_away() {
    let events = [(Event::GoodBackup, 1), (Event::GoodBackup, 1), (Event::FailedDrill { of: 0 }, 1)];
    assert!(after(&events, 0).exposure_ms.is_some());
    let newest = [(Event::GoodBackup, 1), (Event::GoodBackup, 1), (Event::FailedDrill { of: 1 }, 1)];
    assert_eq!(after(&newest, 0).exposure_ms, None);
}

#[test]
fn bounds_are_kept_to_the_last_moment() {
    let receipts = receipts(&[(Event::GoodBackup, 1), (GOOD, 1), (Event::Due, 0)]);
    let point = Facts::of(&receipts).histories.into_values().next().unwrap().newest.unwrap().point;
    let loose = Policy {
        objective: RecoveryObjective { rpo: Objective::NotApplicable, rto: Objective::NotApplicable },
        ..policy()
    };
    let millisecond = SignedDuration::from_millis(1);
    assert!(!codes(&judged(&receipts, &loose, point + hours(36))).contains(&"TM-03"));
    assert!(codes(&judged(&receipts, &loose, point + hours(36) + millisecond)).contains(&"TM-03"));
    let due = receipts.last().unwrap().at;
    assert!(!codes(&judged(&receipts, &loose, due + hours(24))).contains(&"EV-10"));
    assert!(codes(&judged(&receipts, &loose, due + hours(24) + millisecond)).contains(&"EV-10"));
}

#[test]
fn bytes_that_can_be_read_do_not_answer_a_restore_that_went_wrong() {
    let events = [
        (Event::GoodBackup, 1),
        (Event::GoodBackup, 1),
        (Event::FailedDrill { of: 1 }, 1),
        (Event::Intact { of: 0 }, 1),
    ];
    let assessment = after(&events, 0);
    assert_eq!((assessment.level, assessment.standing), (Assurance::A1, Standing::Broken));
}

#[test]
fn a_restore_without_a_comparison_is_told_apart_from_none() {
    let restored = [(Event::GoodBackup, 1), (Event::GoodDrill { of: 0, level: Assurance::A3 }, 1)];
    let assessment = after(&restored, 0);
    assert_eq!(codes(&assessment), ["CT-18"]);
    assert_eq!((assessment.level, assessment.standing), (Assurance::A3, Standing::Attention));
}

#[test]
fn a_failure_that_names_nothing_grave_is_told_all_the_same() {
    let backup = example::backup(&about(1), None);
    let codes_of = |findings: Vec<Finding>| {
        let mut drill = example::failed_drill(&about(2), None, &backup, Some(1));
        drill.findings = findings;
        let history = history(vec![Act::Backup(Box::new(backup.clone())), Act::Drill(Box::new(drill))]);
        let assessment =
            assess(&history.service.clone(), [&history.source.clone()], &policy(), &[history], hour(3));
        codes(&assessment)
    };
    let note = Finding::new(FindingCode::NoWitness, "copy", "");
    assert!(note.code.severity() < Severity::Critical);
    assert_eq!(codes_of(vec![note.clone()]), ["TM-05", "CT-18", "CT-21"]);
    assert_eq!(codes_of(vec![]), ["TM-05", "CT-21"]);
    let grave = Finding::new(FindingCode::RowCount, "orders", "");
    assert_eq!(codes_of(vec![grave.clone(), note]), ["TM-05", "CT-01", "CT-18"]);
}

#[test]
fn a_log_that_leads_nowhere_leaves_its_copy_as_good_as_it_was() {
    let backup = example::backup(&about(1), None);
    let proof = Act::Drill(Box::new(example::drill(&about(2), None, &backup, Some(1))));
    let failed = |name: &str, until: Option<Target>| {
        let mut drill = example::failed_drill(&about(3), None, &backup, Some(1));
        drill.checks[1].name = name.to_owned();
        (drill.until, drill.findings) = (until, Vec::new());
        drill
    };
    let told = |drill: Drill| {
        let acts = vec![Act::Backup(Box::new(backup.clone())), proof.clone(), Act::Drill(Box::new(drill))];
        let history = history(acts);
        let of = (history.service.clone(), history.source.clone());
        let assessment = assess(&of.0, [&of.1], &policy(), std::slice::from_ref(&history), hour(4));
        (history.failure.is_some(), assessment.level, assessment.standing, codes(&assessment))
    };
    let spared = told(failed(MOMENT, Some(Target::Latest)));
    assert_eq!(spared, (false, Assurance::A4, Standing::Attention, vec!["TM-11"]));
    // Anything else that failed is the copy's, and so is what failed before anything was looked at.
    let blamed = (true, Assurance::A1, Standing::Broken, vec!["TM-05", "CT-21"]);
    assert_eq!(told(failed("rows:public.orders", Some(Target::Latest))), blamed);
    assert_eq!(told(failed(MOMENT, None)), blamed);
    let mut empty = failed(MOMENT, Some(Target::Latest));
    empty.checks.clear();
    assert_eq!(told(empty), blamed);
}

#[test]
fn spans_are_told_in_the_two_units_that_matter() {
    let receipts = receipts(&[(Event::GoodBackup, 1)]);
    let point = Facts::of(&receipts).histories.into_values().next().unwrap().newest.unwrap().point;
    let strict = Policy { stale_after: SignedDuration::ZERO, ..policy() };
    let told = |seconds: i64| {
        let assessment = judged(&receipts, &strict, point + SignedDuration::from_secs(seconds));
        let stale = assessment.findings.iter().find(|finding| finding.code == FindingCode::Stale).unwrap();
        stale.detail.split(", ").nth(1).unwrap().split(" ago").next().unwrap().to_owned()
    };
    const HOUR: i64 = 3_600;
    assert_eq!(told(2 * HOUR + 3 * 60 + 9), "2h03m");
    assert_eq!(told(23 * HOUR + 59 * 60), "23h59m");
    assert_eq!(told(49 * HOUR + 59 * 60), "2d01h");
    let slow = |seconds: i64| {
        let mut drill = example::drill(&about(2), None, &example::backup(&about(1), None), Some(1));
        drill.rto.measured_ms = Some(u64::try_from(seconds).unwrap() * 1_000);
        let history = history(vec![Act::Drill(Box::new(drill))]);
        let strict = Policy {
            objective: RecoveryObjective {
                rpo: Objective::NotApplicable,
                rto: Objective::Within(SignedDuration::ZERO),
            },
            ..policy()
        };
        let assessment =
            assess(&history.service.clone(), [&history.source.clone()], &strict, &[history], hour(3));
        let missed =
            assessment.findings.into_iter().find(|finding| finding.code == FindingCode::RtoMissed).unwrap();
        missed.detail.split("took ").nth(1).unwrap().split(';').next().unwrap().to_owned()
    };
    assert_eq!((slow(7), slow(4 * 60 + 5)), ("7s".to_owned(), "4m05s".to_owned()));
}

/// A copy and its proof, dated by a clock that ran ahead by forty days.
fn ahead() -> Vec<Receipt> {
    let mut receipts = receipts(&[(Event::GoodBackup, 1), (GOOD, 1)]);
    let ahead = hours(24 * 40);
    for receipt in &mut receipts {
        receipt.at += ahead;
        match &mut receipt.act {
            Act::Backup(backup) => {
                backup.point = backup.point.map(|point| point + ahead);
                backup.started += ahead;
                backup.finished += ahead;
            }
            Act::Drill(drill) => drill.finished += ahead,
            _ => {}
        }
    }
    let first = receipt(1, hour(0), Act::Due(example::due(&about(1), ActKind::Restore)));
    receipts.insert(0, first);
    for (receipt, sequence) in receipts.iter_mut().zip(1..) {
        receipt.sequence = sequence;
    }
    receipts
}

#[test]
fn what_a_clock_that_ran_ahead_has_dated_is_of_an_unknown_age() {
    let mut receipts = ahead();
    let right = hour(5);
    assert_eq!(codes(&judged(&receipts, &policy(), right)), ["TM-01", "TM-02", "TM-05"]);
    // The clock is set right, and something is sealed, of whatever source.
    let other = About::new("wiki", "db", right);
    receipts.push(receipt(4, right, Act::Due(example::due(&other, ActKind::Drill))));
    for later in [right, right + hours(24 * 39), right + hours(24 * 41), right + hours(24 * 400)] {
        let claimed = judged(&receipts, &policy(), later);
        assert!(claimed.standing > Standing::Ready && claimed.level < Assurance::A3, "{claimed:?}");
        assert_eq!((claimed.exposure_ms, claimed.rpo), (None, Met::Unknown));
        assert!(codes(&claimed).contains(&"TM-02") && codes(&claimed).contains(&"TM-05"));
    }
    let claimed = judged(&receipts, &policy(), right);
    let details: Vec<&str> = claimed.findings.iter().map(|finding| finding.detail.as_str()).collect();
    let dated = |at: Timestamp| format!("dated {at} by a clock that ran ahead: its age is not known");
    assert_eq!(
        details,
        [
            format!("the newest copy is {} until the next backup", dated(hour(0) + hours(24 * 40))),
            format!("the last proof is {}", dated(hour(1) + hours(24 * 40) + SignedDuration::from_secs(373))),
        ]
    );
    // The next backup and the next drill are dated right.
    let backup = example::backup(&About::new("shop", "db", right + hours(1)), None);
    receipts.push(receipt(5, right + hours(1), Act::Backup(Box::new(backup.clone()))));
    let half = judged(&receipts, &policy(), right + hours(2));
    assert_eq!((codes(&half), half.exposure_ms.is_some()), (vec!["TM-05"], true));
    let drill = example::drill(&About::new("shop", "db", right + hours(2)), None, &backup, Some(5));
    receipts.push(receipt(6, right + hours(2), Act::Drill(Box::new(drill))));
    assert_eq!(judged(&receipts, &policy(), right + hours(3)).standing, Standing::Ready);
}

#[test]
fn a_clock_that_steps_by_seconds_or_begins_in_1970_takes_nothing_away() {
    let receipts = receipts(&[(Event::GoodBackup, 1), (GOOD, 1)]);
    let after = |at: Timestamp| {
        let mut receipts = receipts.clone();
        receipts.push(receipt(3, at, Act::Due(example::due(&About::new("wiki", "db", at), ActKind::Drill))));
        receipts.push(receipt(
            4,
            hour(3),
            Act::Due(example::due(&About::new("wiki", "db", hour(3)), ActKind::Drill)),
        ));
        judged(&receipts, &policy(), hour(3)).standing
    };
    let last = receipts.last().unwrap().at;
    assert_eq!(after(last - SignedDuration::from_mins(2)), Standing::Ready);
    assert_eq!(after(Timestamp::UNIX_EPOCH), Standing::Ready);
    assert_eq!(after("2025-12-31T23:59:59Z".parse().unwrap()), Standing::Ready);
    // An hour before is nothing that a clock does by itself.
    assert_ne!(after(last - hours(1)), Standing::Ready);
    assert_ne!(after("2026-01-01T00:00:00Z".parse().unwrap()), Standing::Ready);
}

#[test]
fn a_ledger_that_was_begun_by_a_clock_that_ran_ahead_is_no_better() {
    let mut receipts = ahead()[1..].to_vec();
    receipts.push(receipt(
        4,
        hour(5),
        Act::Due(example::due(&About::new("wiki", "db", hour(5)), ActKind::Drill)),
    ));
    for later in [0, 24 * 39, 24 * 41] {
        let claimed = judged(&receipts, &policy(), hour(5) + hours(later));
        assert!(claimed.level < Assurance::A3 && claimed.exposure_ms.is_none(), "{claimed:?}");
    }
}

#[test]
fn what_is_left_is_no_less_doubtful_than_what_has_gone() {
    let mut receipts = ahead();
    let Act::Backup(backup) = receipts[1].act.clone() else { unreachable!() };
    let due = |n| Act::Due(example::due(&About::new("wiki", "db", hour(n)), ActKind::Drill));
    receipts.push(receipt(4, hour(5), due(5)));
    let mut gone = example::gone(&backup, 2);
    gone.newest = Some(Remaining {
        sequence: 1,
        repository: backup.repository.id.clone(),
        copy: example::copy_id("left"),
        point: backup.finished,
    });
    receipts.push(receipt(5, hour(6), Act::Gone(Box::new(gone.clone()))));
    assert_eq!(judged(&receipts, &policy(), hour(24 * 41)).exposure_ms, None);
    // Nor is what the look itself dates later than it was taken.
    let mut sound = self::receipts(&[(Event::GoodBackup, 1)]);
    let Act::Backup(backup) = sound[0].act.clone() else { unreachable!() };
    gone.copy = backup.copy.clone().unwrap();
    gone.newest.as_mut().unwrap().point = hour(900);
    sound.push(receipt(2, hour(2), Act::Gone(Box::new(gone))));
    assert_eq!(judged(&sound, &policy(), hour(901)).exposure_ms, None);
}

#[test]
fn a_failure_from_a_clock_that_ran_ahead_is_answered_by_later_copies() {
    let ahead = |n: u32| About::new("shop", "db", hour(24 * 365 + n));
    let bad = example::backup(&ahead(1), None);
    let good = example::backup(&about(3), None);
    let acts = [
        (hour(0), Act::Due(example::due(&about(1), ActKind::Backup))),
        (hour(24 * 365 + 1), Act::Backup(Box::new(bad.clone()))),
        (hour(24 * 365 + 2), Act::Drill(Box::new(example::failed_drill(&ahead(2), None, &bad, Some(2))))),
        (hour(2), Act::Due(example::due(&about(2), ActKind::Backup))),
        (hour(3), Act::Backup(Box::new(good.clone()))),
        (hour(4), Act::Drill(Box::new(example::drill(&about(4), None, &good, Some(5))))),
    ];
    let receipts: Vec<Receipt> =
        acts.into_iter().zip(1..).map(|((at, act), n)| receipt(n, at, act)).collect();
    assert_eq!(judged(&receipts, &policy(), hour(5)).standing, Standing::Ready);
}

#[test]
fn what_answers_a_failure_answers_those_before_it_too() {
    // Known in one order, of instants in the other.
    let (long, short) = (example::backup(&about(2), None), example::backup(&about(3), None));
    let drill = |n, of: &Backup, sequence, is_good| {
        let drill = if is_good { example::drill } else { example::failed_drill };
        Act::Drill(Box::new(drill(&about(n), None, of, Some(sequence))))
    };
    let after = |acts: &[Act]| {
        let mut all = vec![Act::Backup(Box::new(short.clone())), Act::Backup(Box::new(long.clone()))];
        all.extend(acts.iter().cloned());
        history(all).failure.map(|failure| failure.copy)
    };
    let both = [drill(5, &long, 2, false), drill(6, &short, 1, false)];
    assert_eq!(after(&both), short.copy);
    for answer in [drill(7, &short, 1, true), drill(7, &long, 2, true)] {
        assert!(after(&[both[0].clone(), both[1].clone(), answer]).is_some());
    }
    assert_eq!(after(&[both[1].clone(), drill(7, &short, 1, true)]), None);
}

#[test]
fn a_slot_from_a_clock_that_ran_ahead_is_missed_in_time() {
    let due =
        |n: u32, source: &str| Act::Due(example::due(&About::new("shop", source, hour(n)), ActKind::Drill));
    let receipts = [
        receipt(1, hour(0), due(0, "db")),
        receipt(2, hour(900), due(900, "db")),
        receipt(3, hour(1), due(1, "tree")),
    ];
    let assessment = judged(&receipts, &policy(), hour(26));
    assert_eq!(codes(&assessment).iter().filter(|code| **code == "EV-10").count(), 2, "{assessment:?}");
}

#[test]
fn an_older_copy_that_is_known_later_answers_no_failure() {
    let old = example::backup(&about(1), None);
    let new = example::backup(&about(3), None);
    let failed = Act::Drill(Box::new(example::failed_drill(&about(4), None, &new, Some(2))));
    let found = Act::Found(Box::new(example::found(&old)));
    let passed = |sequence| Act::Drill(Box::new(example::drill(&about(6), None, &old, sequence)));
    let acts = vec![
        Act::Due(example::due(&about(1), ActKind::Backup)),
        Act::Backup(Box::new(new.clone())),
        failed,
        found,
        passed(Some(4)),
    ];
    let claimed = history(acts.clone());
    assert!(claimed.failure.is_some(), "the older copy was found after the newer one");
    // Nor does its failure take the place of the newer one's, which its own pass would then answer.
    let mut both = acts[..4].to_vec();
    both.push(Act::Drill(Box::new(example::failed_drill(&about(5), None, &old, Some(4)))));
    both.push(passed(Some(4)));
    assert_eq!(history(both).failure.unwrap().copy, new.copy.unwrap());
    // A copy that the source dates in the future is as old as the drill that says so.
    let mut ahead = example::backup(&about(3), None);
    ahead.point = Some(hour(900));
    let later = example::backup(&about(5), None);
    let acts = vec![
        Act::Due(example::due(&about(1), ActKind::Backup)),
        Act::Backup(Box::new(ahead.clone())),
        Act::Drill(Box::new(example::failed_drill(&about(4), None, &ahead, Some(2)))),
        Act::Backup(Box::new(later.clone())),
        Act::Drill(Box::new(example::drill(&about(6), None, &later, Some(4)))),
    ];
    assert!(history(acts).failure.is_none());
}

#[test]
fn that_a_bad_copy_is_found_again_does_not_make_it_good() {
    let backup = example::backup(&about(1), None);
    let gone = Act::Gone(Box::new(example::gone(&backup, 1)));
    let found = Act::Found(Box::new(example::found(&backup)));
    let bad = Act::Drill(Box::new(example::failed_drill(&about(2), None, &backup, Some(1))));
    let good = Act::Drill(Box::new(example::drill(&about(2), None, &backup, Some(1))));
    let is_bad = |acts: &[&Act]| {
        let first = Act::Backup(Box::new(backup.clone()));
        let acts = std::iter::once(&first).chain(acts.iter().copied());
        let receipts: Vec<Receipt> =
            acts.zip(1..).map(|(act, n)| receipt(u64::from(n), hour(n), act.clone())).collect();
        let points = Facts::of(&receipts).points;
        assert_eq!(points.len(), 1);
        matches!(
            points.values().next().unwrap().standing,
            seaworthy_model::point::PointStanding::Failed { .. }
        )
    };
    assert!(
        is_bad(&[&bad, &found]) && is_bad(&[&bad, &gone, &found]) && is_bad(&[&bad, &gone, &gone, &found])
    );
    assert!(!is_bad(&[&found]) && !is_bad(&[&good, &found]) && !is_bad(&[&gone, &found]));
    assert!(!is_bad(&[&bad, &good, &gone, &found]) && !is_bad(&[&bad, &gone, &found, &good]));
}

#[test]
fn a_source_whose_clock_is_seconds_ahead_is_no_finding() {
    let newest = |seconds: i64| {
        let mut backup = example::backup(&about(1), None);
        backup.point = Some(backup.finished + SignedDuration::from_secs(seconds));
        let newest = history(vec![Act::Backup(Box::new(backup.clone()))]).newest.unwrap();
        (newest.point == backup.finished, newest.future_dated)
    };
    assert_eq!(newest(120), (true, false));
    assert_eq!(newest(121), (false, true));
}

#[test]
fn a_restore_that_was_cut_off_says_nothing_of_what_can_be_restored() {
    let cut = |act| {
        let mut abandoned = example::abandoned(&about(2), None);
        abandoned.act = act;
        let acts = vec![Act::Backup(Box::new(example::backup(&about(1), None))), Act::Abandoned(abandoned)];
        history(acts).abandoned.len()
    };
    let kinds = [ActKind::Backup, ActKind::Drill, ActKind::Restore, ActKind::Verify].map(cut);
    assert_eq!(kinds, [1, 1, 0, 0]);
}

#[test]
fn a_proof_of_a_moment_ago_counts_while_the_clock_is_set_right() {
    let mut drill = example::drill(&about(2), None, &example::backup(&about(1), None), Some(1));
    drill.finished = hour(2);
    let history =
        history(vec![Act::Backup(Box::new(example::backup(&about(1), None))), Act::Drill(Box::new(drill))]);
    let at =
        |now| assess(&history.service, [&history.source], &policy(), std::slice::from_ref(&history), now);
    assert_eq!(at(hour(2) - SignedDuration::from_secs(90)).standing, Standing::Ready);
    let behind = at(hour(2) - SignedDuration::from_mins(3));
    assert_eq!(behind.level, Assurance::A1);
    let overdue = behind.findings.iter().find(|finding| finding.code == FindingCode::DrillOverdue).unwrap();
    assert_eq!(overdue.detail, format!("the last proof is of {}, which is yet to come", hour(2)));
}

#[test]
fn a_clock_that_is_off_by_the_very_bound_is_set_right_as_clocks_are() {
    let (bound, more) = (CLOCK_STEP, CLOCK_STEP + SignedDuration::from_nanos(1));
    let stepped = |from: Timestamp, to: Timestamp| {
        let mut dates = Dates::default();
        assert!(!dates.next(from), "nothing came before it");
        dates.next(to)
    };
    let at = hour(9);
    assert_eq!([bound, more].map(|step| stepped(at, at - step)), [false, true]);
    assert!(stepped(EPOCH + hours(1), EPOCH), "the first moment that a receipt can be of");
    assert!(!stepped(EPOCH + hours(1), EPOCH - SignedDuration::from_nanos(1)));

    let backup = example::backup(&about(1), None);
    let drill = example::drill(&about(2), None, &backup, Some(1));
    let known = history(vec![Act::Backup(Box::new(backup)), Act::Drill(Box::new(drill))]);
    let doubted = |at: Timestamp| {
        let mut known = known.clone();
        known.set_back(at);
        (known.newest.unwrap().doubted, known.proofs[0].doubted)
    };
    let (point, proof) = (known.newest.as_ref().unwrap().point, known.proofs[0].at);
    assert_eq!([bound, more].map(|step| doubted(point - step).0), [false, true]);
    assert_eq!([bound, more].map(|step| doubted(proof - step).1), [false, true]);
}

#[test]
fn a_point_that_is_later_than_its_run_by_the_very_bound_is_not_of_the_future() {
    let (bound, more) = (CLOCK_STEP, CLOCK_STEP + SignedDuration::from_nanos(1));
    for (step, is_future) in [(bound, false), (more, true)] {
        let mut backup = example::backup(&about(1), None);
        backup.point = Some(backup.finished + step);
        let mut found = example::found(&backup);
        found.finished = backup.finished;
        found.point = backup.finished + step;
        for act in [Act::Backup(Box::new(backup.clone())), Act::Found(Box::new(found))] {
            let newest = history(vec![act]).newest.unwrap();
            assert_eq!(newest.future_dated, is_future, "{step:?}");
        }
        // What is left after the newest has gone is doubted by the same bound.
        let gone = Gone {
            newest: Some(Remaining {
                sequence: 1,
                repository: backup.repository.id.clone(),
                copy: example::copy_id("left"),
                point: hour(2) + step,
            }),
            ..example::gone(&example::backup(&about(1), None), 1)
        };
        let mut first = example::backup(&about(1), None);
        first.finished = hour(1);
        let history = history(vec![Act::Backup(Box::new(first)), Act::Gone(Box::new(gone))]);
        assert_eq!(history.newest.unwrap().doubted, is_future, "{step:?}");
    }
}

#[test]
fn a_bad_copy_that_was_found_late_and_is_older_does_not_take_the_newest_away() {
    let (old, new) = (example::backup(&about(1), None), example::backup(&about(3), None));
    let known = history(vec![
        Act::Due(example::due(&about(1), ActKind::Backup)),
        Act::Due(example::due(&about(1), ActKind::Backup)),
        Act::Backup(Box::new(new.clone())),
        Act::Found(Box::new(example::found(&old))),
        Act::Drill(Box::new(example::failed_drill(&about(5), None, &old, Some(4)))),
    ]);
    let assessed = assess_source(&known, &[], &policy(), hour(5));
    assert_eq!(known.newest.unwrap().copy, new.copy.unwrap());
    assert!(known.failure.is_some() && assessed.exposure_ms.is_some());
}

#[test]
fn a_copy_that_is_yet_to_come_is_told_from_one_that_a_clock_ran_ahead_of() {
    let known = history(vec![Act::Backup(Box::new(example::backup(&about(1), None)))]);
    let said = |known: &SourceHistory| {
        let assessed = assess_source(known, &[], &policy(), known.newest.as_ref().unwrap().point - hours(1));
        assessed
            .findings
            .into_iter()
            .filter(|one| one.code == FindingCode::FutureDated)
            .map(|one| one.detail)
            .collect::<Vec<_>>()
    };
    let point = known.newest.as_ref().unwrap().point;
    assert_eq!(said(&known), [format!("the newest copy is of {point}, which is yet to come")]);
    let mut doubted = known;
    doubted.newest.as_mut().unwrap().doubted = true;
    let words = "by a clock that ran ahead: its age is not known until the next backup";
    assert_eq!(said(&doubted), [format!("the newest copy is dated {point} {words}")]);
}

#[test]
fn a_replica_makes_nothing_newer_and_proves_nothing_of_its_original() {
    let (old, new) = (example::backup(&about(1), None), example::backup(&about(3), None));
    let replica = |of: &Backup| Act::Replicate(Box::new(example::replicate(of, 1, hour(4))));
    let due = || Act::Due(example::due(&about(1), ActKind::Backup));
    let known = history(vec![due(), due(), Act::Backup(Box::new(new.clone())), replica(&new), replica(&old)]);
    assert_eq!(known.newest.as_ref().unwrap().copy, new.copy.clone().unwrap());
    assert!(known.proofs.is_empty());
    // Where nothing is known of the original any more, the replica is what there is; an incomplete one is nothing.
    let alone = history(vec![due(), due(), due(), replica(&old), replica(&new), replica(&old)]);
    assert_eq!(alone.newest.unwrap().point, new.point.unwrap());
    let mut part = example::replicate(&new, 1, hour(4));
    part.outcome = Outcome::Incomplete;
    assert!(history(vec![due(), due(), due(), Act::Replicate(Box::new(part))]).newest.is_none());
    // A failure of the original is not answered by a replica of the same instant, only by a newer copy.
    let failed = Act::Drill(Box::new(example::failed_drill(&about(4), None, &new, Some(1))));
    let known = history(vec![Act::Backup(Box::new(new.clone())), failed, replica(&new)]);
    assert!(known.failure.is_some());
}
