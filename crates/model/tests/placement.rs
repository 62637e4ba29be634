//! Placement: a matrix of what people build, each with its answer; and the laws, asked of many estates.

#![expect(clippy::unwrap_used, reason = "helpers of tests: what cannot be unwrapped is a failed test")]

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use seaworthy_model::config::{SourceText, parse};
use seaworthy_model::example::{self, About, look, somewhere};
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::id::{CopyId, Digest, RepositoryName, RunId, ServiceName, SourceName};
use seaworthy_model::objective::{Met, Objective};
use seaworthy_model::placement::{
    Answer, Case, Comply, DisasterKind, Fate, LastLook, Look, Place, Placement, ReadBack, Rule, Seen, Space,
    allows, candidates, place,
};
use seaworthy_model::point::{PointStanding, RecoveryPoint};
use seaworthy_model::receipt::{Act, Backup, Outcome, Receipt, SealError, read_unverified, seal};
use seaworthy_model::service::Service;
use seaworthy_model::signature::SigningKey;
use seaworthy_model::verdict::Assurance;

const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);

fn now() -> Timestamp {
    "2026-11-29T12:00:00Z".parse().unwrap()
}

/// A backup so many hours ago.
fn backup(hours: i64) -> Backup {
    example::backup(&About::new("shop", "db", now() - HOUR * i32::try_from(hours).unwrap()), None)
}

/// The live data and two repositories, as the documents of 3-2-1 ask for: nothing is wrong with it.
fn sound() -> Case {
    example::case(&backup(6), now())
}

fn codes(placement: &Placement) -> BTreeSet<&'static str> {
    placement.findings.iter().map(|finding| finding.code.as_str()).collect()
}

fn answer(placement: &Placement, rule: Rule) -> Answer {
    placement.rules.iter().find(|one| one.rule == rule).unwrap().answer
}

fn finding(code: FindingCode) -> Finding {
    Finding::new(code, "repository away", "it did not answer within 60 s")
}

/// Changes the sound case, and says what has to come of it.
#[track_caller]
fn of(change: impl Fn(&mut Case), wanted: Answer, wanted_codes: &[&str]) -> Placement {
    let mut case = sound();
    change(&mut case);
    let placement = place(&case);
    assert_eq!(placement.answer, wanted, "{placement:#?}");
    assert_eq!(codes(&placement), wanted_codes.iter().copied().collect(), "{placement:#?}");
    placement
}

#[test]
fn three_two_one_is_met_where_everything_was_seen() {
    let placement = of(|_| {}, Answer::Met, &[]);
    assert_eq!(placement.rules.len(), 7);
    let own = &placement.disasters[0];
    assert_eq!((own.kind, own.production, own.answer), (DisasterKind::Site, Fate::Lost, Answer::Met));
    let left = own.left.as_ref().unwrap();
    assert_eq!((left.repository.as_str(), left.level, own.rpo), ("away", Assurance::A1, Met::Met));
    assert_eq!(left.age_ms, 6 * 3_600_000);
    let newest = placement.newest.unwrap();
    assert_eq!(newest.repositories.len(), 2, "one recovery point, in two places");
}

#[test]
fn a_nas_in_the_same_room_is_not_offsite() {
    let nas = |case: &mut Case| case.looks[1].place = somewhere("nas", " DE-fra1", "eu-de", "other");
    let placement = of(nas, Answer::Violated, &["PL-03", "PL-08"]);
    assert_eq!(answer(&placement, Rule::Copies), Answer::Met);
    assert_eq!(answer(&placement, Rule::Media), Answer::Met);
    assert!(placement.rules.iter().any(|rule| rule.facts.contains("away, local: at the live data's site")));
}

#[test]
fn an_export_into_the_same_account_is_not_independent() {
    let same = |case: &mut Case| case.looks[1].place.account = Some("WORKS".to_owned());
    let placement = of(same, Answer::Violated, &["PL-04", "PL-08"]);
    let taken = placement.disasters.iter().find(|one| one.kind == DisasterKind::Account).unwrap();
    assert_eq!((taken.production, taken.left.as_ref()), (Fate::Lost, None));
}

#[test]
fn a_second_region_is_asked_for_by_name_only() {
    let one_region = |case: &mut Case| case.looks[1].place.region = Some("eu-de".to_owned());
    of(one_region, Answer::Met, &[]);
    let asked = |case: &mut Case| {
        one_region(case);
        case.policy.other_region = 1;
    };
    of(asked, Answer::Violated, &["PL-05", "PL-08"]);
}

#[test]
fn another_region_is_another_site_and_a_site_named_after_its_region_says_no_more() {
    let unsaid = |case: &mut Case| case.looks[1].place.site = None;
    of(unsaid, Answer::Met, &[]);
    // The site of an object store is its region, where nobody says it: that may well be where the live data is.
    let coarse = |case: &mut Case| {
        case.looks[1].place.site = Some("eu-de".to_owned());
        case.looks[1].place.region = Some("eu-de".to_owned());
    };
    let placement = of(coarse, Answer::Unknown, &["PL-03"]);
    assert_eq!(answer(&placement, Rule::Offsite), Answer::Unknown);
    let local = |case: &mut Case| {
        case.looks[1].place.site = Some("local".to_owned());
        case.looks[1].place.region = None;
        case.policy.regions.clear();
    };
    of(local, Answer::Unknown, &["PL-10"]);
}

#[test]
fn us_east_1_is_no_place_for_what_may_be_in_the_eu_only() {
    let there = |case: &mut Case| case.looks[1].place.region = Some("us-east-1".to_owned());
    of(there, Answer::Violated, &["PL-06"]);
    // What the store says outweighs what is said of it.
    let seen = |case: &mut Case| case.looks[1].region_seen = Some("us-east-1".to_owned());
    of(seen, Answer::Violated, &["PL-06", "PL-11"]);
    let unsaid = |case: &mut Case| case.looks[0].place.region = None;
    of(unsaid, Answer::Unknown, &["PL-10"]);
    // A repository in a forbidden region is wrong whether it answers or not.
    let silent = |case: &mut Case| {
        there(case);
        case.looks[1].seen = Seen::Silent(finding(FindingCode::Unreachable));
    };
    of(silent, Answer::Violated, &["IO-UNREACHABLE", "PL-01", "PL-02", "PL-03", "PL-04", "PL-06"]);
}

#[test]
fn a_repository_that_does_not_answer_is_unknown_and_not_empty() {
    let silent = |case: &mut Case| case.looks[1].seen = Seen::Silent(finding(FindingCode::Unreachable));
    let placement = of(silent, Answer::Unknown, &["IO-UNREACHABLE", "PL-01", "PL-02", "PL-03", "PL-04"]);
    assert!(
        placement
            .findings
            .iter()
            .all(|one| !one.code.as_str().starts_with("PL") || one.detail.starts_with("not known"))
    );
    assert!(placement.rows[1].why.contains("not known"), "{placement:#?}");
    assert!(placement.disasters[0].is_unseen && placement.disasters[0].answer == Answer::Unknown);
    // Not even a third copy too many makes up for it.
    let spare = |case: &mut Case| {
        silent(case);
        case.looks.push(look("spare", somewhere("tape", "vault", "eu-fi", "bank"), &backup(6), now()));
    };
    of(spare, Answer::Unknown, &["IO-UNREACHABLE"]);
}

#[test]
fn a_repository_that_was_emptied_is_seen_to_be_empty() {
    let deleted = |case: &mut Case| {
        case.looks[1].copies.clear();
        case.looks[1].listed = 0;
        case.looks[1].vanished = 14;
    };
    let wanted = &["PL-01", "PL-02", "PL-03", "PL-04", "PL-08", "PL-12", "PL-13"];
    let placement = of(deleted, Answer::Violated, wanted);
    assert!(
        placement.findings.iter().any(|one| one.detail.contains("14 copies that receipts put into away"))
    );
}

#[test]
fn a_stale_copy_counts_for_nothing_and_is_still_what_a_disaster_leaves() {
    let stale = |case: &mut Case| case.looks[1].copies[0].point = now() - DAY * 9;
    let placement = of(stale, Answer::Violated, &["PL-01", "PL-02", "PL-03", "PL-04", "PL-09", "PL-12"]);
    let lost = &placement.disasters[0];
    assert_eq!((lost.answer, lost.rpo), (Answer::Violated, Met::Missed));
    assert_eq!(lost.left.as_ref().unwrap().age_ms, 9 * 24 * 3_600_000);
}

#[test]
fn logs_that_stay_at_the_site_keep_no_promise_of_an_hour() {
    // The copies are fresh by their own rule, and would lose six hours where an hour is promised.
    let hour = |case: &mut Case| case.rpo = Objective::Within(HOUR);
    let placement = of(hour, Answer::Violated, &["PL-09"]);
    let told = placement.findings.iter().find(|one| one.detail.contains("site de-fra1")).unwrap();
    assert!(told.detail.contains("6h00m") && told.detail.contains("promised are 1h"), "{told}");
    let any = |case: &mut Case| case.rpo = Objective::NotApplicable;
    of(any, Answer::Met, &[]);
}

#[test]
fn bad_copies_count_for_nothing() {
    let wanted: &[&str] = &["PL-01", "PL-02", "PL-03", "PL-04", "PL-08", "PL-12"];
    let bad = |case: &mut Case| case.looks[1].copies[0].is_bad = Some("it was shown to be bad".to_owned());
    of(bad, Answer::Violated, wanted);
    let damaged = |case: &mut Case| {
        case.looks[1].copies[0].read = ReadBack::Damaged(finding(FindingCode::ObjectDamaged));
    };
    let wanted: Vec<&str> = wanted.iter().copied().chain(["RP-01"]).collect();
    let placement = of(damaged, Answer::Violated, &wanted);
    assert_eq!(answer(&placement, Rule::Reachable), Answer::Violated);
    // An older one that is good and fresh stands in; what is damaged is told all the same.
    let older = |case: &mut Case| {
        let mut older = case.looks[1].copies[0].clone();
        older.point -= HOUR * 5;
        damaged(case);
        case.looks[1].copies.push(older);
    };
    let placement = of(older, Answer::Violated, &["RP-01"]);
    assert_eq!(answer(&placement, Rule::Copies), Answer::Met);
}

#[test]
fn what_could_not_be_read_or_is_not_believed_is_unknown() {
    let unread = |case: &mut Case| {
        case.looks[1].copies[0].read = ReadBack::NotRead(finding(FindingCode::Interrupted));
    };
    of(unread, Answer::Unknown, &["EV-10", "PL-01", "PL-02", "PL-03", "PL-04"]);
    let doubted = |case: &mut Case| {
        case.looks[1].copies[0].doubt = Some(finding(FindingCode::ReceiptAltered));
    };
    of(doubted, Answer::Unknown, &["EV-07", "PL-01", "PL-02", "PL-03", "PL-04"]);
    let future = |case: &mut Case| case.looks[1].copies[0].point = now() + DAY;
    let placement = of(future, Answer::Unknown, &["PL-01", "PL-02", "PL-03", "PL-04"]);
    assert!(placement.rows[1].why.contains("yet to come"));
    let long_ago = |case: &mut Case| case.looks[1].at = now() - DAY * 9;
    of(long_ago, Answer::Unknown, &["PL-01", "PL-02", "PL-03", "PL-04", "PL-15"]);
}

#[test]
fn what_is_not_said_is_not_independent() {
    let nothing = |case: &mut Case| case.production = Place::default();
    let placement = of(nothing, Answer::Unknown, &["PL-10"]);
    assert!(placement.findings.iter().any(|one| one.detail.contains("live data's account")));
    assert_eq!(answer(&placement, Rule::Media), Answer::Met, "two media are there without the live data's");
    let account = |case: &mut Case| case.looks[1].place.account = None;
    of(account, Answer::Unknown, &["PL-10"]);
    // Who does not ask for it is not asked.
    let unasked = |case: &mut Case| {
        account(case);
        case.policy.other_account = 0;
    };
    of(unasked, Answer::Met, &[]);
}

#[test]
fn one_file_system_is_one_copy_whatever_is_said_of_it() {
    let device = |case: &mut Case| {
        case.looks[0].device = Some("8:1".to_owned());
        case.looks[1].device = Some("8:1".to_owned());
    };
    let placement = of(device, Answer::Violated, &["PL-01", "PL-02", "PL-03", "PL-04", "PL-11"]);
    assert_eq!(answer(&placement, Rule::Copies), Answer::Violated);
    assert_eq!(answer(&placement, Rule::Offsite), Answer::Unknown, "one of the two sites is wrong");
    let beside = |case: &mut Case| {
        case.device = Some("8:1".to_owned());
        case.looks[0].device = Some("8:1".to_owned());
    };
    let placement = of(beside, Answer::Violated, &["PL-01", "PL-11"]);
    assert!(placement.rows[0].why.contains("same file system as the live data"));
    assert_eq!(placement.newest.unwrap().repositories.len(), 1);
    // One repository under two names, wherever the names say that it is.
    let twice = |case: &mut Case| case.looks[1].id = case.looks[0].id.clone();
    of(twice, Answer::Violated, &["PL-01", "PL-02", "PL-03", "PL-04", "PL-11"]);
    // Other devices say nothing against anybody.
    let apart = |case: &mut Case| {
        case.device = Some("8:1".to_owned());
        case.looks[0].device = Some("8:17".to_owned());
        case.looks[1].device = Some("0:51".to_owned());
    };
    of(apart, Answer::Met, &[]);
}

#[test]
fn a_copy_beside_a_part_of_the_live_data_is_none() {
    let on = |text: &str| Some(text.to_owned());
    let beside = |parts: Vec<Option<String>>| {
        move |case: &mut Case| {
            case.lies_on(parts.clone());
            case.looks[0].device = Some("8:1".to_owned());
        }
    };
    for parts in [vec![on("8:1")], vec![on("8:1"), on("8:17")], vec![on("8:1"), None]] {
        let placement = of(beside(parts), Answer::Violated, &["PL-01", "PL-11"]);
        assert!(placement.rows[0].why.contains("same file system as the live data"));
        assert_eq!(placement.rows[0].counts, Answer::Violated);
    }
    of(beside(vec![on("8:17"), on("8:18")]), Answer::Met, &[]);
    of(beside(Vec::new()), Answer::Met, &[]);
    // One that could not be asked may be anywhere on this machine, and on no object store.
    for parts in [vec![None], vec![on("8:17"), None]] {
        let mut case = sound();
        beside(parts)(&mut case);
        let placement = place(&case);
        assert_eq!((placement.answer, answer(&placement, Rule::Copies)), (Answer::Unknown, Answer::Unknown));
        let counts: Vec<Answer> = placement.rows.iter().map(|row| row.counts).collect();
        assert_eq!(counts, [Answer::Unknown, Answer::Met]);
        assert!(placement.rows[0].why.contains("could not be seen"), "{}", placement.rows[0].why);
        // What one disaster takes with the live data is not said to be kept.
        case.looks.remove(1);
        case.looks[0].place.site = Some("elsewhere".to_owned());
        case.looks[0].place.region = None;
        assert_ne!(answer(&place(&case), Rule::Offsite), Answer::Met);
    }
    // One device is written as it always was.
    let mut case = sound();
    case.lies_on([on("8:1"), on("8:1")]);
    assert_eq!((case.device.as_deref(), case.devices.len(), case.is_partly_unseen), (Some("8:1"), 0, false));
}

#[test]
fn a_lock_on_objects_is_asked_for_by_name_and_never_assumed() {
    let asked = |case: &mut Case| case.policy.immutable = 1;
    of(asked, Answer::Unknown, &["PL-07"]);
    let until = |then: Timestamp| {
        move |case: &mut Case| {
            asked(case);
            case.looks[1].immutable_until = Some(then);
            case.looks[0].immutable_until = Some(now() - HOUR);
        }
    };
    of(until(now() + DAY), Answer::Met, &[]);
    of(until(now() - DAY), Answer::Violated, &["PL-07"]);
}

#[test]
fn a_lost_password_is_told_and_another_key_is_no_certainty() {
    let shared = |keys| {
        move |case: &mut Case| {
            let both: BTreeSet<RepositoryName> =
                case.looks.iter().map(|look| look.repository.clone()).collect();
            for look in &mut case.looks {
                look.password = both.clone();
                look.keys = Some(keys);
            }
        }
    };
    let of_password = |placement: &Placement| {
        let one = placement.disasters.iter().find(|one| one.kind == DisasterKind::Password).unwrap();
        (one.left.is_some(), one.perhaps.is_some(), one.production, one.what.clone().unwrap())
    };
    let lost = of(shared(1), Answer::Met, &[]);
    assert_eq!(of_password(&lost), (false, false, Fate::Kept, "away, local".to_owned()));
    assert!(of_password(&of(shared(2), Answer::Met, &[])).1);
    assert!(of_password(&of(|_| {}, Answer::Met, &[])).0, "each has its own");
}

#[test]
fn a_proof_counts_until_it_is_too_old() {
    let proven = |days: i32| {
        move |case: &mut Case| {
            case.looks[1].copies[0].proven = Some((Assurance::A4, now() - DAY * days));
        }
    };
    let level = |days| of(proven(days), Answer::Met, &[]).disasters[0].left.clone().unwrap().level;
    assert_eq!((level(35), level(36)), (Assurance::A4, Assurance::A1));
}

#[test]
fn no_repository_at_all_is_no_pass() {
    let none = |case: &mut Case| case.looks.clear();
    of(none, Answer::Violated, &["PL-01", "PL-02", "PL-03", "PL-04", "PL-08"]);
    let asks_nothing = |case: &mut Case| {
        case.looks.clear();
        (case.policy.copies, case.policy.media, case.policy.offsite) = (0, 0, 0);
        (case.policy.other_account, case.policy.regions) = (0, Vec::new());
    };
    of(asks_nothing, Answer::Violated, &[]);
}

#[test]
fn regions_are_patterns() {
    let patterns = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
    let eu = patterns(&["eu-*", "de-fra1", "*-eu", "n*-ams*"]);
    for region in ["eu-west-1", "EU-CENTRAL-1", "de-fra1", "west-eu", "nl-ams1", " eu-"] {
        assert!(allows(&eu, region), "{region}");
    }
    for region in ["us-east-1", "eu", "de-fra10", "xde-fra1", "europe-west4", "", "nl-am"] {
        assert!(!allows(&eu, region), "{region}");
    }
    assert!(allows(&[], "anywhere"));
    assert!(!allows(&patterns(&["a*a"]), "a"));
}

// --------------------------------------------------------------------------------------------------------- candidates

fn point(hours: i64) -> RecoveryPoint {
    let digest = Digest(String::new());
    let act = Act::Backup(Box::new(backup(hours)));
    let sequence = u64::try_from(1_000 - hours).unwrap();
    let (previous, at, subject) = (None, now(), Vec::new());
    RecoveryPoint::made_by(&Receipt { sequence, previous, at, subject, act, digest }).unwrap()
}

#[test]
fn the_newest_complete_copies_are_looked_at_and_a_good_one_among_them() {
    let mut points: Vec<RecoveryPoint> = (1..=6).map(point).collect();
    let listed: BTreeSet<CopyId> = points.iter().map(|point| point.copy.clone()).collect();
    let hours = |points: &[RecoveryPoint], listed: &BTreeSet<CopyId>| -> Vec<u64> {
        candidates(points, listed).into_iter().map(|point| 1_000 - point.sequence).collect()
    };
    assert_eq!(hours(&points, &listed), [1, 2, 3]);
    points[0].outcome = Outcome::Incomplete;
    points.reverse();
    assert_eq!(hours(&points, &listed), [2, 3, 4]);
    for point in &mut points {
        if point.sequence > 995 {
            point.standing = PointStanding::Failed { sequence: 1, at: now(), codes: BTreeSet::new() };
        }
    }
    assert_eq!(hours(&points, &listed), [2, 3, 5], "a bad one makes room for the newest good one");
    let only: BTreeSet<CopyId> = points.iter().skip(2).map(|point| point.copy.clone()).take(1).collect();
    assert_eq!(hours(&points, &only), [4]);
    assert!(hours(&points, &BTreeSet::new()).is_empty());
}

// --------------------------------------------------------------------------------------------------------------- space

#[test]
fn days_until_full_come_from_what_was_stored() {
    let free = 100_000_000;
    let mut points: Vec<RecoveryPoint> = (0..20).map(|day| point(day * 24 + 1)).collect();
    points.iter_mut().for_each(|point| point.stored_bytes = 1_000_000);
    points[19].stored_bytes = 900_000_000;
    let forecast = |points: &[RecoveryPoint], free| Space::forecast(free, 100_000_000, points, now());
    let space = forecast(&points, free);
    assert_eq!(space.grows_bytes_a_day, Some(19 * 1_000_000 / 18), "the first copy is not growth");
    assert_eq!(space.days_left, Some(94));
    let name = RepositoryName::new("local").unwrap();
    assert!(space.findings(&name).is_empty());
    let soon = forecast(&points, 20_000_000).findings(&name);
    assert!(
        soon[0].code == FindingCode::SpaceShort && soon[0].detail.contains("full in 18 days"),
        "{soon:?}"
    );
    let tight = Space { days_left: None, ..forecast(&points, 4_000_000) };
    assert_eq!(tight.findings(&name).len(), 1);
    let sick = Space { health: Some("it is mounted read-only".to_owned()), ..space.clone() };
    assert_eq!(sick.findings(&name)[0].code, FindingCode::ReadFailed);
    // What went is taken off: a repository that keeps as many as it adds does not grow.
    let mut steady = points.clone();
    for point in &mut steady[..19] {
        point.standing = PointStanding::Gone { sequence: 1, at: now(), was_bad: false, was_let_go: false };
    }
    assert_eq!(
        (forecast(&steady, free).grows_bytes_a_day, forecast(&steady, free).days_left),
        (Some(0), None)
    );
    // Two days of receipts say nothing of a day.
    let young = forecast(&points[..3], free);
    assert_eq!((young.grows_bytes_a_day, young.days_left), (None, None));
    assert_eq!(forecast(&[], free).days_left, None);
}

// ----------------------------------------------------------------------------------------------------------- receipts

#[test]
fn a_claim_that_was_not_seen_cannot_be_sealed() {
    let key = SigningKey::from_random(&[7; 32]);
    let sealed = |comply: &Comply| seal(&Act::Comply(Box::new(comply.clone())), now(), None, &key);
    let met = example::comply(sound());
    let read = read_unverified(&sealed(&met).unwrap()).unwrap();
    assert_eq!(read.act, Act::Comply(Box::new(met.clone())));
    assert_eq!(read.subject.len(), 2, "the copies that count");
    let mut case = sound();
    case.looks[1].place.site = Some("de-fra1".to_owned());
    let violated = example::comply(case);
    assert_eq!(violated.answer, Answer::Violated);
    sealed(&violated).unwrap();
    let denied = |change: fn(&mut Comply)| {
        let mut forged = violated.clone();
        change(&mut forged);
        matches!(sealed(&forged), Err(SealError::Undeserved(_)))
    };
    assert!(denied(|forged| forged.answer = Answer::Met));
    assert!(denied(|forged| {
        forged.answer = Answer::Met;
        forged.sources[0].placement.answer = Answer::Met;
    }));
    assert!(denied(|forged| forged.sources[0].placement.rules.clear()));
    assert!(denied(|forged| {
        forged.answer = Answer::Met;
        forged.sources.clear();
    }));
    // What later rules have judged is read, and not repeated.
    assert!(!denied(|forged| {
        forged.rules += 1;
        forged.sources[0].placement.rules.clear();
    }));
    // A claim that is worse than the facts is believed.
    let mut modest = met;
    modest.answer = Answer::Unknown;
    sealed(&modest).unwrap();
}

// --------------------------------------------------------------------------------------------------------------- laws

/// Numbers that look random and are the same every time (SplitMix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, count: u64) -> u64 {
        self.next() % count
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// A place of a world in which a site lies in one region.
fn anywhere(dice: &mut Dice, unsaid_one_in: u64) -> Place {
    let site = dice.below(4);
    let mut word = |text: String| if dice.one_in(unsaid_one_in) { "-".to_owned() } else { text };
    // Drawn in one order whether it is said or not, so that the same dice give the same place.
    let (site, region) = (word(format!("site-{site}")), word(format!("region-{}", site % 2)));
    let medium = ["disk", "object-store", "nas"][usize::try_from(dice.below(3)).unwrap()];
    let account = format!("account-{}", dice.below(3));
    let account = if dice.one_in(unsaid_one_in) { "-".to_owned() } else { account };
    somewhere(medium, &site, &region, &account)
}

const CERTAIN: u64 = u64::MAX;

fn good(dice: &mut Dice, name: &str) -> Look {
    let hours = i64::try_from(dice.below(20)).unwrap();
    look(name, anywhere(dice, CERTAIN), &backup(hours), now())
}

fn any_look(dice: &mut Dice, name: &str) -> Look {
    let hours = i64::try_from(dice.below(40)).unwrap();
    let before = dice.0;
    let mut look = look(name, anywhere(dice, 4), &backup(hours), now());
    // The same place, of which nothing is left unsaid.
    let truth = anywhere(&mut Dice(before), CERTAIN);
    look.copies[0].run = RunId(format!("run-{hours}"));
    match dice.below(12) {
        0 => look.seen = Seen::Silent(finding(FindingCode::Unreachable)),
        1 => look.copies[0].is_bad = Some("bad".to_owned()),
        2 => look.copies[0].read = ReadBack::NotRead(finding(FindingCode::Interrupted)),
        3 => look.copies[0].read = ReadBack::Damaged(finding(FindingCode::ObjectDamaged)),
        4 => look.copies.clear(),
        5 => look.at = now() - DAY * 30,
        6 => look.copies[0].point = now() + DAY,
        7 => look.region_seen = truth.region,
        _ => {}
    }
    if dice.one_in(6) {
        look.device = Some(format!("8:{}", dice.below(3)));
    }
    look
}

fn any_case(dice: &mut Dice) -> Case {
    let mut case = sound();
    case.production = anywhere(dice, 5);
    if dice.one_in(5) {
        case.production.medium = None;
    }
    if dice.one_in(4) {
        case.device = Some(format!("8:{}", dice.below(3)));
    }
    if dice.one_in(12) {
        case.lies_on([Some(format!("8:{}", dice.below(3))), Some(format!("8:{}", dice.below(3)))]);
    }
    case.is_partly_unseen = dice.one_in(12);
    let number = |dice: &mut Dice, most: u64| u32::try_from(dice.below(most)).unwrap();
    case.policy.copies = number(dice, 5);
    case.policy.media = number(dice, 3);
    case.policy.offsite = number(dice, 3);
    case.policy.other_account = number(dice, 2);
    case.policy.other_region = number(dice, 2);
    case.policy.regions = if dice.one_in(3) { vec!["region-0".to_owned()] } else { Vec::new() };
    case.rpo = match dice.below(3) {
        0 => Objective::NotApplicable,
        1 => Objective::Within(HOUR * 4),
        _ => Objective::Within(DAY),
    };
    let count = dice.below(5);
    case.looks = (0..count).map(|n| any_look(dice, &format!("vault-{n}"))).collect();
    case
}

/// Asks `law` of many cases; it answers whether its premise held.
fn asked(law: impl Fn(&mut Dice, Case) -> bool, at_least: usize) {
    let held = (0..4_000).filter(|seed| {
        let mut dice = Dice(*seed);
        let case = any_case(&mut dice);
        law(&mut dice, case)
    });
    let held = held.count();
    assert!(held >= at_least, "the premise held {held} times");
}

/// Every answer of `after` is at least as good as that of `before`.
fn is_no_worse(before: &Placement, after: &Placement) -> bool {
    after.answer <= before.answer
        && before.rules.iter().all(|rule| {
            after.rules.iter().find(|one| one.rule == rule.rule).is_some_and(|one| one.answer <= rule.answer)
        })
}

#[test]
fn adding_a_good_copy_makes_nothing_worse() {
    asked(
        |dice, mut case| {
            let before = place(&case);
            let added = good(dice, "added");
            // A place that the policy forbids is no good place.
            if !allows(&case.policy.regions, added.place.region.as_ref().unwrap()) || case.looks.is_empty() {
                return false;
            }
            case.looks.push(added);
            let after = place(&case);
            assert!(is_no_worse(&before, &after), "{case:#?}\n{before:#?}\n{after:#?}");
            before.answer != Answer::Met && after.answer < before.answer
        },
        40,
    );
}

#[test]
fn losing_a_look_makes_nothing_met() {
    asked(
        |dice, mut case| {
            if case.looks.is_empty() {
                return false;
            }
            let before = place(&case);
            let lost = usize::try_from(dice.below(u64::try_from(case.looks.len()).unwrap())).unwrap();
            let look = &mut case.looks[lost];
            look.seen = Seen::Silent(finding(FindingCode::Unreachable));
            (look.id, look.device, look.region_seen, look.keys) = (None, None, None, None);
            let after = place(&case);
            assert!(after.answer != Answer::Met, "{case:#?}\n{after:#?}");
            before.answer == Answer::Met
        },
        60,
    );
}

#[test]
fn a_copy_that_counted_and_is_lost_makes_no_rule_better() {
    asked(
        |_, mut case| {
            let before = place(&case);
            let Some(lost) = before.rows.iter().position(|row| row.counts == Answer::Met) else {
                return false;
            };
            if case.looks[lost].device.is_some() || case.looks[lost].region_seen.is_some() {
                return false;
            }
            case.looks[lost].copies.clear();
            let after = place(&case);
            let is_place = |rule: Rule| matches!(rule, Rule::Regions | Rule::Reachable);
            for rule in before.rules.iter().filter(|rule| !is_place(rule.rule)) {
                let now = answer(&after, rule.rule);
                assert!(now >= rule.answer, "{:?}\n{case:#?}\n{before:#?}\n{after:#?}", rule.rule);
            }
            true
        },
        800,
    );
}

#[test]
fn unknown_never_counts() {
    asked(
        |_, mut case| {
            if case.policy.copies + case.policy.media + case.policy.offsite == 0 {
                return false;
            }
            for look in &mut case.looks {
                look.seen = Seen::Silent(finding(FindingCode::AuthDenied));
            }
            let placement = place(&case);
            assert!(placement.answer != Answer::Met);
            assert!(placement.rows.iter().all(|row| row.counts == Answer::Unknown));
            assert!(placement.disasters.iter().all(|disaster| disaster.left.is_none()));
            assert!(placement.newest.is_none());
            true
        },
        2_000,
    );
}

#[test]
fn other_words_for_the_same_places_change_nothing() {
    let renamed = |word: &mut Option<String>| {
        if let Some(word) = word {
            *word = format!("The {} ", word.to_uppercase());
        }
    };
    let relabel = |place: &mut Place| {
        renamed(&mut place.site);
        renamed(&mut place.region);
        renamed(&mut place.account);
        renamed(&mut place.medium);
    };
    asked(
        |_, case| {
            let mut other = case.clone();
            relabel(&mut other.production);
            for look in &mut other.looks {
                relabel(&mut look.place);
                renamed(&mut look.region_seen);
            }
            for pattern in &mut other.policy.regions {
                *pattern = format!("The {}", pattern.to_uppercase());
            }
            let (before, after) = (place(&case), place(&other));
            let answers = |placement: &Placement| -> Vec<(Rule, Answer)> {
                placement.rules.iter().map(|rule| (rule.rule, rule.answer)).collect()
            };
            let left = |placement: &Placement| {
                placement
                    .disasters
                    .iter()
                    .map(|one| (one.kind, one.production, one.left.clone(), one.perhaps.clone(), one.answer))
                    .collect::<Vec<_>>()
            };
            assert_eq!(answers(&before), answers(&after), "{case:#?}");
            assert_eq!(left(&before), left(&after), "{case:#?}");
            assert_eq!(codes(&before), codes(&after));
            !case.looks.is_empty()
        },
        2_000,
    );
}

#[test]
fn the_order_of_the_repositories_changes_nothing() {
    let sorted = |mut placement: Placement| {
        placement.rows.sort_by(|a, b| a.repository.cmp(&b.repository));
        placement.findings.sort_by_key(ToString::to_string);
        placement
    };
    asked(
        |dice, case| {
            let mut other = case.clone();
            for last in (1..other.looks.len()).rev() {
                let with = usize::try_from(dice.below(u64::try_from(last + 1).unwrap())).unwrap();
                other.looks.swap(last, with);
            }
            assert_eq!(sorted(place(&case)), sorted(place(&other)));
            other.looks != case.looks
        },
        1_000,
    );
}

#[test]
fn a_met_promise_is_one_that_the_plain_reading_keeps() {
    asked(
        |_, case| {
            let placement = place(&case);
            let is_plain = |look: &Look| look.device.is_none() && look.region_seen.is_none();
            if placement.answer != Answer::Met || !case.looks.iter().all(is_plain) {
                return false;
            }
            // Read off the rows, without units, answers or counts.
            let fresh: Vec<&Look> = case
                .looks
                .iter()
                .zip(&placement.rows)
                .filter(|(look, _)| {
                    look.seen == Seen::Answered
                        && look.copies.iter().any(|copy| {
                            let age = now().duration_since(copy.point);
                            !age.is_negative() && age <= case.fresh_within && copy.is_bad.is_none()
                        })
                        && (look.device.is_none() || look.device != case.device)
                })
                .map(|(look, _)| look)
                .collect();
            assert!(fresh.len() + 1 >= usize::try_from(case.policy.copies).unwrap(), "{case:#?}");
            let others = |of: fn(&Place) -> Option<&String>| {
                let own = of(&case.production);
                fresh.iter().filter(|look| of(&look.place).is_some() && of(&look.place) != own).count()
            };
            let apart = others(|place| place.site.as_ref()).max(others(|place| place.region.as_ref()));
            assert!(apart >= usize::try_from(case.policy.offsite).unwrap(), "{case:#?}");
            let accounts = others(|place| place.account.as_ref());
            assert!(accounts >= usize::try_from(case.policy.other_account).unwrap(), "{case:#?}");
            true
        },
        30,
    );
}

// ----------------------------------------------------------------------------------------------------------- last looks

#[test]
fn the_last_look_is_as_old_as_the_oldest_and_as_bad_as_the_worst() {
    let text = "[defaults]\nowner = \"crew\"\n[repositories.local]\nlocation = \"/srv/copies\"\npassword = \"env:P\"\n\
                [services.shop.sources.db]\nkind = \"sqlite\"\npath = \"/srv/shop\"\n\
                [services.post.sources.db]\nkind = \"sqlite\"\npath = \"/srv/post\"\n";
    let parsed = parse(&[SourceText::new("seaworthy.toml", text)]).unwrap();
    let services: Vec<&Service> = parsed.inventory.services.iter().collect();
    let of = |name: &str, change: fn(&mut Case), sequence: u64, days: i32| {
        let mut case = sound();
        case.service = ServiceName::new(name).unwrap();
        case.source = SourceName::new("db").unwrap();
        change(&mut case);
        let (act, at) = (Act::Comply(Box::new(example::comply(case))), now() - DAY * days);
        let (previous, subject, digest) = (None, Vec::new(), Digest(String::new()));
        Receipt { sequence, previous, at, subject, act, digest }
    };
    let last = |receipts: &[Receipt]| {
        let look = LastLook::of(receipts, &services, now())?;
        Some((look.answer, look.sequence, look.is_valid))
    };
    assert_eq!(last(&[of("shop", |_| {}, 5, 1)]), None, "the post was never looked for");
    let receipts =
        [of("shop", |_| {}, 9, 1), of("post", |_| {}, 7, 3), of("shop", |case| case.looks.clear(), 5, 4)];
    assert_eq!(last(&receipts), Some((Answer::Met, 7, true)));
    assert_eq!(last(&receipts[1..]), Some((Answer::Violated, 5, true)));
    // Eight days, where nobody says otherwise.
    let receipts = [of("shop", |_| {}, 9, 1), of("post", |_| {}, 7, 8)];
    assert_eq!(last(&receipts), Some((Answer::Met, 7, true)));
    let receipts = [of("shop", |_| {}, 9, 1), of("post", |_| {}, 7, 9)];
    assert_eq!(last(&receipts), Some((Answer::Met, 7, false)));
    let yet_to_come = [of("shop", |_| {}, 9, -1), of("post", |_| {}, 7, 1)];
    assert_eq!(last(&yet_to_come), Some((Answer::Met, 9, false)));
}
