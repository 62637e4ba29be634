//! The laws of retention: the last good copy and the best proven one outlive every plan, every period that holds a good copy
//! keeps one, and nothing goes that a rule keeps. Asked of every small estate, and of many histories of years.
//!
//! `SEAWORTHY_HISTORIES=1000000` asks it of as many histories, of ten years in forty zones, and of every policy below.

#![expect(clippy::unwrap_used, reason = "helpers of tests: what cannot be unwrapped is a failed test")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};
use seaworthy_model::id::{CopyId, RepositoryId, RepositoryName, RunId, ServiceName, SourceName};
use seaworthy_model::point::{PointStanding, RecoveryPoint};
use seaworthy_model::receipt::{Outcome, RepositoryRef};
use seaworthy_model::retention::{
    Aside, Bucket, Case, Decision, EarlierPolicy, HeldThing, Hold, Listing, Mark, NewestRun, Plan,
    PlanDigest, Reason, RetentionPolicy, Rule, Step, plan, simulate,
};
use seaworthy_model::service::{RetentionSpec, ScheduleSpec};
use seaworthy_model::verdict::Assurance;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);
const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// The long form, where it is asked for.
fn histories() -> Option<u64> {
    std::env::var("SEAWORTHY_HISTORIES").ok().map(|text| text.parse().unwrap())
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

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

    fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(count).unwrap()).unwrap()
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

fn repository(name: &str) -> RepositoryRef {
    RepositoryRef {
        id: RepositoryId(name.to_owned()),
        name: RepositoryName::new(name).unwrap(),
        medium: None,
        site: None,
    }
}

fn copy(sequence: u64, at: Timestamp) -> RecoveryPoint {
    RecoveryPoint {
        service: ServiceName::new("shop").unwrap(),
        source: SourceName::new("db").unwrap(),
        sequence,
        run: RunId(format!("run-{sequence}")),
        repository: repository("vault"),
        copy: CopyId(format!("{sequence:08x}")),
        point: at,
        finished: at,
        started: None,
        outcome: Outcome::Complete,
        restore_bytes: 0,
        stored_bytes: 1,
        witness: None,
        standing: PointStanding::Unproven,
        was_found: false,
        replica_of: None,
        is_implausible: false,
        mark: None,
        is_doubted: false,
    }
}

fn proven(level: Assurance) -> PointStanding {
    PointStanding::Proven { level, sequence: 0, at: Timestamp::UNIX_EPOCH }
}

fn bad() -> PointStanding {
    PointStanding::Failed { sequence: 0, at: Timestamp::UNIX_EPOCH, codes: BTreeSet::new() }
}

fn gone() -> PointStanding {
    PointStanding::Gone { sequence: 0, at: Timestamp::UNIX_EPOCH, was_bad: false, was_let_go: false }
}

/// All that a plan is made from, owned.
#[derive(Clone)]
struct Shelf {
    service: ServiceName,
    source: SourceName,
    repository: RepositoryId,
    points: Vec<RecoveryPoint>,
    listed: BTreeSet<CopyId>,
    is_listing_doubtful: bool,
    spec: Option<RetentionSpec>,
    policy: RetentionPolicy,
    /// Each with what it was made from.
    earlier: Vec<(Option<RetentionSpec>, EarlierPolicy)>,
    zone: TimeZone,
    fresh_within: SignedDuration,
    newest_run: NewestRun,
    newest_receipt: Option<Timestamp>,
    holds: Vec<Hold>,
    aside: BTreeMap<CopyId, Aside>,
    doubted: BTreeSet<CopyId>,
    marks: Vec<Mark>,
    approved: BTreeSet<PlanDigest>,
    now: Timestamp,
    /// The day, week, month and year of each copy, by the oracle.
    names: HashMap<CopyId, [String; 4]>,
}

impl Shelf {
    fn new(points: Vec<RecoveryPoint>, spec: Option<RetentionSpec>, zone: &str, now: Timestamp) -> Self {
        let listed = points.iter().filter(|point| !point.is_gone()).map(|point| point.copy.clone()).collect();
        let mut shelf = Self {
            service: ServiceName::new("shop").unwrap(),
            source: SourceName::new("db").unwrap(),
            repository: RepositoryId("vault".to_owned()),
            points: Vec::new(),
            names: HashMap::new(),
            listed,
            is_listing_doubtful: false,
            policy: RetentionPolicy::new(spec.clone(), zone).unwrap(),
            spec,
            earlier: Vec::new(),
            // Not those of this machine, which may be of another year.
            zone: TimeZoneDatabase::bundled().get(zone).unwrap(),
            fresh_within: SignedDuration::MAX,
            newest_run: NewestRun::Ended(Outcome::Complete),
            newest_receipt: None,
            holds: Vec::new(),
            aside: BTreeMap::new(),
            doubted: BTreeSet::new(),
            marks: Vec::new(),
            approved: BTreeSet::new(),
            now,
        };
        points.into_iter().for_each(|point| shelf.add(point));
        shelf
    }

    fn add(&mut self, point: RecoveryPoint) {
        self.names.insert(point.copy.clone(), oracle::names(&point, &self.zone));
        self.points.push(point);
    }

    fn name(&self, point: &RecoveryPoint, rung: usize) -> &str {
        &self.names[&point.copy][rung]
    }

    fn plan(&self) -> Plan {
        self.plan_of(&self.points, &self.policy)
    }

    fn plan_of(&self, points: &[RecoveryPoint], policy: &RetentionPolicy) -> Plan {
        let earlier: Vec<EarlierPolicy> = self.earlier.iter().map(|(_, earlier)| earlier.clone()).collect();
        plan(&Case {
            service: &self.service,
            source: &self.source,
            repository: &self.repository,
            points,
            policy,
            earlier: &earlier,
            fresh_within: self.fresh_within,
            newest_run: self.newest_run,
            newest_receipt: self.newest_receipt,
            listing: match self.is_listing_doubtful {
                true => Listing::Doubtful("half of it".to_owned()),
                false => Listing::Whole(&self.listed),
            },
            holds: &self.holds,
            aside: &self.aside,
            doubted: &self.doubted,
            marks: &self.marks,
            approved: &self.approved,
            now: self.now,
        })
    }

    fn point(&self, copy: &CopyId) -> &RecoveryPoint {
        self.points.iter().find(|point| point.copy == *copy).unwrap()
    }
}

// ------------------------------------------------------------------------------------------------------- the oracle

/// The rules once more, as naively as they can be written: every question is asked of every pair of copies.
mod oracle {
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    pub(super) enum Expected {
        Absent,
        Keep(BTreeSet<String>),
        Refused(&'static str),
        Expire(CopyId),
    }

    pub(super) fn is_there(point: &RecoveryPoint) -> bool {
        !matches!(point.standing, PointStanding::Gone { .. })
    }

    pub(super) fn level(point: &RecoveryPoint) -> u8 {
        match point.standing {
            PointStanding::Proven { level, .. } => {
                1 + u8::try_from(Assurance::ALL.iter().position(|one| *one == level).unwrap()).unwrap()
            }
            _ => 0,
        }
    }

    /// A level at which the real engine has started on it.
    const RESTORED: u8 = 4;

    pub(super) fn is_aside(shelf: &Shelf, point: &RecoveryPoint) -> bool {
        shelf.aside.contains_key(&point.copy)
            || shelf.doubted.contains(&point.copy)
            || (point.was_found && level(point) < RESTORED)
    }

    pub(super) fn is_counted(shelf: &Shelf, point: &RecoveryPoint) -> bool {
        is_there(point) && !is_aside(shelf, point)
    }

    fn is_bad(point: &RecoveryPoint) -> bool {
        matches!(point.standing, PointStanding::Failed { .. })
    }

    pub(super) fn is_good(shelf: &Shelf, point: &RecoveryPoint) -> bool {
        is_counted(shelf, point) && !is_bad(point) && point.outcome == Outcome::Complete
    }

    /// Where a copy stands: one with a receipt is not older than any whose receipt came before.
    fn standing(shelf: &Shelf, point: &RecoveryPoint) -> (Timestamp, u64) {
        let before = shelf.points.iter().filter(|other| {
            !point.was_found
                && !other.was_found
                && is_counted(shelf, other)
                && other.sequence <= point.sequence
        });
        (before.map(|other| other.finished).fold(point.finished, Timestamp::max), point.sequence)
    }

    pub(super) fn is_newer(shelf: &Shelf, one: &RecoveryPoint, than: &RecoveryPoint) -> bool {
        if one.was_found || than.was_found {
            standing(shelf, one) > standing(shelf, than)
        } else {
            one.sequence > than.sequence
        }
    }

    fn date(point: &RecoveryPoint) -> Timestamp {
        let is_believable = point.point <= point.finished && point.point >= point.finished - DAY;
        if is_believable { point.point } else { point.finished }
    }

    pub(super) fn names(point: &RecoveryPoint, zone: &TimeZone) -> [String; 4] {
        let local = date(point).to_zoned(zone.clone());
        ["%F", "%G-W%V", "%Y-%m", "%Y"].map(|format| local.strftime(format).to_string())
    }

    /// Why a policy wants a copy.
    pub(super) fn wants(
        shelf: &Shelf,
        spec: Option<&RetentionSpec>,
        point: &RecoveryPoint,
    ) -> BTreeSet<String> {
        let one = |text: &str| BTreeSet::from([text.to_owned()]);
        let Some(spec) = spec else { return one("no policy") };
        if spec.forever {
            return one("forever");
        }
        let numbers = [spec.daily, spec.weekly, spec.monthly, spec.yearly].map(|number| number.unwrap_or(0));
        let within = spec.within.unwrap_or(SignedDuration::ZERO);
        if spec.last.unwrap_or(0) == 0 && numbers == [0; 4] && within <= SignedDuration::ZERO {
            return one("no policy");
        }
        let mut wanted = BTreeSet::new();
        if !shelf.doubted.contains(&point.copy)
            && spec.within.is_some()
            && shelf.now.duration_since(date(point)) < within
        {
            wanted.insert("within".to_owned());
        }
        if !is_good(shelf, point) {
            return wanted;
        }
        let receipted: Vec<&RecoveryPoint> =
            shelf.points.iter().filter(|other| is_good(shelf, other) && !other.was_found).collect();
        let newer = receipted.iter().filter(|other| is_newer(shelf, other, point)).count();
        if newer < usize::try_from(spec.last.unwrap_or(0)).unwrap() {
            wanted.insert(format!("last {}", newer + 1));
        }
        for (rung, number) in numbers.into_iter().enumerate() {
            let own = shelf.name(point, rung);
            let is_before = |other: &RecoveryPoint| match (other.was_found, point.was_found) {
                (true, false) => false,
                (false, true) => true,
                _ => is_newer(shelf, point, other),
            };
            let is_first = !shelf
                .points
                .iter()
                .any(|other| is_good(shelf, other) && shelf.name(other, rung) == own && is_before(other));
            let later: BTreeSet<&str> =
                receipted.iter().map(|other| shelf.name(other, rung)).filter(|name| *name > own).collect();
            if is_first && later.len() < usize::try_from(number).unwrap() {
                wanted.insert(format!("first {own}"));
            }
        }
        wanted
    }

    pub(super) fn is_held(shelf: &Shelf, point: &RecoveryPoint) -> bool {
        shelf.holds.iter().any(|hold| {
            let is_meant = match &hold.thing {
                HeldThing::Copy(copy) => *copy == point.copy,
                HeldThing::Capture(run) => *run == point.run,
                HeldThing::Service(service) => *service == point.service,
            };
            is_meant && hold.until.is_none_or(|until| until > shelf.now)
        })
    }

    /// Whether some rule lets nothing go, and which is told.
    pub(super) fn suspended(shelf: &Shelf) -> Option<&'static str> {
        let there: Vec<&RecoveryPoint> = shelf.points.iter().filter(|point| is_there(point)).collect();
        if shelf.is_listing_doubtful || there.iter().any(|point| !shelf.listed.contains(&point.copy)) {
            return Some("R5");
        }
        let steps = MINUTE * 2;
        let first = at("2026-01-01T00:00:00Z");
        let counted: Vec<&RecoveryPoint> =
            there.iter().copied().filter(|point| is_counted(shelf, point)).collect();
        let receipted: Vec<&RecoveryPoint> =
            counted.iter().copied().filter(|point| !point.was_found).collect();
        let is_to_come = |instant: Timestamp| instant > shelf.now + steps;
        let marks =
            shelf.marks.iter().filter(|mark| shelf.points.iter().any(|point| point.copy == mark.copy));
        let is_against_order = receipted.iter().any(|one| {
            receipted
                .iter()
                .any(|other| other.sequence > one.sequence && other.finished + steps < one.finished)
        });
        if shelf.now < first
            || shelf.newest_receipt.is_some_and(is_to_come)
            || counted.iter().any(|point| is_to_come(point.finished) || is_to_come(point.point))
            || receipted.iter().any(|point| point.finished < first)
            || is_against_order
            || marks.into_iter().any(|mark| is_to_come(mark.at) || mark.at < first)
        {
            return Some("R7");
        }
        let newest = shelf.points.iter().filter(|point| !point.was_found).max_by_key(|point| point.sequence);
        let is_fresh = newest.is_some_and(|newest| {
            is_good(shelf, newest) && shelf.now.duration_since(date(newest)) <= shelf.fresh_within
        });
        (shelf.newest_run != NewestRun::Ended(Outcome::Complete) || !is_fresh).then_some("R2")
    }

    pub(super) fn decide(shelf: &Shelf) -> BTreeMap<CopyId, Expected> {
        let suspended = suspended(shelf);
        let mut decided = BTreeMap::new();
        let mut expiring: Vec<(&RecoveryPoint, &RecoveryPoint)> = Vec::new();
        for point in &shelf.points {
            if !is_there(point) {
                decided.insert(point.copy.clone(), Expected::Absent);
                continue;
            }
            let mut reasons = wants(shelf, shelf.spec.as_ref(), point);
            let newer: Vec<&RecoveryPoint> = shelf
                .points
                .iter()
                .filter(|other| {
                    is_good(shelf, other)
                        && !other.was_found
                        && is_counted(shelf, point)
                        && is_newer(shelf, other, point)
                })
                .collect();
            let mut add = |is_one: bool, reason: &str| {
                if is_one {
                    reasons.insert(reason.to_owned());
                }
            };
            add(is_good(shelf, point) && newer.is_empty(), "last good");
            let is_restored = level(point) >= RESTORED;
            add(
                is_good(shelf, point) && is_restored && newer.iter().all(|other| level(other) < RESTORED),
                "newest proven",
            );
            let is_incomplete = is_counted(shelf, point) && point.outcome != Outcome::Complete;
            let anything_newer = shelf.points.iter().any(|other| {
                is_counted(shelf, other)
                    && !other.was_found
                    && is_counted(shelf, point)
                    && is_newer(shelf, other, point)
            });
            add(is_incomplete && !anything_newer, "newest of source");
            add(is_incomplete && shelf.now.duration_since(date(point)) < DAY * 7, "young");
            add(shelf.aside.contains_key(&point.copy), "aside");
            add(point.was_found && level(point) < RESTORED, "found");
            add(shelf.doubted.contains(&point.copy), "doubted");
            add(is_held(shelf, point), "held");
            if !reasons.is_empty() {
                decided.insert(point.copy.clone(), Expected::Keep(reasons));
                continue;
            }
            let needed = if is_bad(point) { RESTORED } else { level(point) };
            let mut enough = newer.iter().copied().filter(|other| level(other) >= needed);
            let Some(first) = enough.next() else {
                decided.insert(point.copy.clone(), Expected::Refused("R1"));
                continue;
            };
            let named =
                enough.fold(first, |best, other| if is_newer(shelf, other, best) { other } else { best });
            let is_cooling = shelf.earlier.iter().any(|(spec, earlier)| {
                let is_recent = shelf.now.duration_since(earlier.until) < DAY * 3;
                (is_recent || earlier.until < at("2026-01-01T00:00:00Z"))
                    && !wants(shelf, spec.as_ref(), point).is_empty()
            });
            match suspended {
                Some(rule) => drop(decided.insert(point.copy.clone(), Expected::Refused(rule))),
                None if is_cooling => drop(decided.insert(point.copy.clone(), Expected::Refused("R11"))),
                None => expiring.push((point, named)),
            }
        }
        let is_marked = |point: &RecoveryPoint| shelf.marks.iter().any(|mark| mark.copy == point.copy);
        let is_ahead = |one: &RecoveryPoint, other: &RecoveryPoint| match (is_marked(one), is_marked(other)) {
            (true, false) => true,
            (false, true) => false,
            _ => is_newer(shelf, other, one),
        };
        let there: Vec<&RecoveryPoint> = shelf.points.iter().filter(|point| is_there(point)).collect();
        let bytes = |points: &[&RecoveryPoint]| points.iter().map(|point| point.stored_bytes).sum::<u64>();
        for (point, named) in &expiring {
            let mut with: Vec<&RecoveryPoint> =
                expiring.iter().map(|(other, _)| *other).filter(|other| is_ahead(other, point)).collect();
            with.push(point);
            let is_little = with.len() * 5 <= there.len() && bytes(&with) * 5 <= bytes(&there);
            let expected = match with.len() == 1 || is_little {
                true => Expected::Expire(named.copy.clone()),
                false => Expected::Refused("R4"),
            };
            decided.insert(point.copy.clone(), expected);
        }
        decided
    }

    pub(super) fn word(reason: &Reason) -> String {
        match reason {
            Reason::NoPolicy => "no policy".to_owned(),
            Reason::Forever => "forever".to_owned(),
            Reason::Within => "within".to_owned(),
            Reason::Last(position) => format!("last {position}"),
            Reason::First(bucket) => format!("first {bucket}"),
            Reason::LastGood => "last good".to_owned(),
            Reason::NewestProven => "newest proven".to_owned(),
            Reason::NewestOfSource => "newest of source".to_owned(),
            Reason::YoungAndIncomplete => "young".to_owned(),
            Reason::Held(_) => "held".to_owned(),
            Reason::Quarantined(_) | Reason::Unsigned => "aside".to_owned(),
            Reason::FoundUnproven => "found".to_owned(),
            Reason::Doubted => "doubted".to_owned(),
        }
    }

    /// The same of a plan; every copy must be in it once.
    pub(super) fn read(plan: &Plan) -> BTreeMap<CopyId, Expected> {
        let mut read = BTreeMap::new();
        for one in &plan.decisions {
            let decision = match &one.decision {
                Decision::Keep(reasons) => Expected::Keep(reasons.iter().map(word).collect()),
                Decision::Expire(newer) => Expected::Expire(newer.copy.clone()),
                Decision::Refused { rule, .. } => Expected::Refused(rule.as_str()),
                Decision::Absent => Expected::Absent,
            };
            assert!(read.insert(one.copy.clone(), decision).is_none(), "decided twice");
        }
        read
    }
}

// ------------------------------------------------------------------------------------------- every small estate

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    Proven,
    Bad,
    Incomplete,
    Gone,
    Quarantined,
    Intact,
    Found,
    FoundAndRestored,
}

const STATES: [State; 9] = [
    State::Good,
    State::Proven,
    State::Bad,
    State::Incomplete,
    State::Gone,
    State::Quarantined,
    State::Intact,
    State::Found,
    State::FoundAndRestored,
];

/// Two in one day, a week of two years, and a Monday; the last but one and the last are what is fresh.
const INSTANTS: [&str; 6] = [
    "2026-12-20T10:00:00Z",
    "2026-12-28T10:00:00Z",
    "2026-12-28T20:00:00Z",
    "2026-12-31T10:00:00Z",
    "2027-01-01T10:00:00Z",
    "2027-01-04T10:00:00Z",
];

fn small_policies() -> Vec<RetentionSpec> {
    let none = RetentionSpec::default();
    vec![
        RetentionSpec { last: Some(1), ..none.clone() },
        RetentionSpec { weekly: Some(1), monthly: Some(2), ..none.clone() },
        RetentionSpec { daily: Some(2), ..none.clone() },
        RetentionSpec { last: Some(2), yearly: Some(1), within: Some(DAY * 4), ..none.clone() },
        RetentionSpec { daily: Some(3), weekly: Some(2), monthly: Some(1), yearly: Some(2), ..none },
    ]
}

/// Every estate of so many copies in these states, under a policy; told the shelf and what is decided.
fn every_estate(count: usize, states: &[State], spec: &RetentionSpec, mut tell: impl FnMut(&Shelf, &Plan)) {
    let now = at(INSTANTS[5]) + HOUR;
    let points = INSTANTS[6 - count..].iter().zip(1..).map(|(instant, n)| copy(n, at(instant))).collect();
    let mut shelf = Shelf::new(points, Some(spec.clone()), "UTC", now);
    let all = states.len().pow(u32::try_from(count).unwrap());
    for number in 0..all {
        let mut rest = number;
        shelf.aside.clear();
        shelf.listed.clear();
        for point in &mut shelf.points {
            let state = states[rest % states.len()];
            rest /= states.len();
            point.outcome = if state == State::Incomplete { Outcome::Incomplete } else { Outcome::Complete };
            point.was_found = matches!(state, State::Found | State::FoundAndRestored);
            point.standing = match state {
                State::Good | State::Incomplete | State::Quarantined | State::Found => {
                    PointStanding::Unproven
                }
                State::Proven | State::FoundAndRestored => proven(Assurance::A4),
                State::Intact => proven(Assurance::A2),
                State::Bad => bad(),
                State::Gone => gone(),
            };
            if state == State::Quarantined {
                shelf.aside.insert(point.copy.clone(), Aside::Quarantined(String::new()));
            }
            if state != State::Gone {
                shelf.listed.insert(point.copy.clone());
            }
        }
        tell(&shelf, &shelf.plan());
    }
}

/// What must hold of every plan, asked of what would be left.
fn assert_safe(shelf: &Shelf, plan: &Plan) {
    let goes: HashSet<&CopyId> = plan
        .decisions
        .iter()
        .filter(|one| matches!(one.decision, Decision::Expire(_)))
        .map(|one| &one.copy)
        .collect();
    let stays = |point: &RecoveryPoint| !goes.contains(&point.copy);
    let good: Vec<&RecoveryPoint> =
        shelf.points.iter().filter(|point| oracle::is_good(shelf, point)).collect();
    let receipted: Vec<&RecoveryPoint> = good.iter().copied().filter(|point| !point.was_found).collect();
    for level in 0..=7 {
        // Of those that are proven at least so far the newest stays.
        let newest =
            receipted.iter().filter(|point| oracle::level(point) >= level).max_by_key(|point| point.sequence);
        assert!(newest.is_none_or(|newest| stays(newest)), "level {level} of {:?}", shelf.points);
    }
    let best = |is_meant: &dyn Fn(&RecoveryPoint) -> bool| {
        good.iter().filter(|point| is_meant(point)).map(|point| oracle::level(point)).max()
    };
    assert_eq!(best(&|_| true), best(&stays), "what was proven best is still there");
    let Some(spec) = shelf.spec.as_ref().filter(|spec| !spec.forever) else { return };
    let numbers = [spec.daily, spec.weekly, spec.monthly, spec.yearly];
    for (rung, number) in numbers.into_iter().enumerate() {
        let mut held: BTreeMap<&str, bool> = BTreeMap::new();
        for point in &receipted {
            *held.entry(shelf.name(point, rung)).or_default() |= stays(point);
        }
        let counted = held.iter().rev().take(usize::try_from(number.unwrap_or(0)).unwrap());
        for (name, is_held) in counted {
            assert!(
                is_held,
                "{name} has no copy any more\n{:?}\n{:?}\n{:#?}",
                shelf.policy, shelf.now, plan.decisions
            );
        }
    }
}

#[test]
fn every_estate_of_six_copies_keeps_its_last_good_copy_and_its_periods() {
    let policies = small_policies();
    let asked = if histories().is_some() { &policies[..] } else { &policies[1..3] };
    let (mut estates, mut with_one_that_goes, mut with_a_refusal) = (0, 0, 0);
    for spec in asked {
        every_estate(6, &STATES[..6], spec, |shelf, plan| {
            assert_safe(shelf, plan);
            assert_eq!(oracle::read(plan), oracle::decide(shelf), "{spec:?} {:?}", shelf.points);
            estates += 1;
            let has = |is_meant: &dyn Fn(&Decision) -> bool| {
                u32::from(plan.decisions.iter().any(|one| is_meant(&one.decision)))
            };
            with_one_that_goes += has(&|decision| matches!(decision, Decision::Expire(_)));
            with_a_refusal += has(&|decision| matches!(decision, Decision::Refused { .. }));
        });
    }
    assert!(estates >= 2 * 46_656, "{estates}");
    assert!(
        with_one_that_goes * 10 > estates && with_a_refusal * 10 > estates,
        "{with_one_that_goes}, {with_a_refusal}"
    );
}

#[test]
fn every_estate_of_up_to_four_copies_is_decided_as_the_rules_say() {
    let counts = if histories().is_some() { 1..=5 } else { 1..=4 };
    let mut told: BTreeMap<String, u32> = BTreeMap::new();
    for count in counts {
        for spec in small_policies() {
            every_estate(count, &STATES, &spec, |shelf, plan| {
                assert_safe(shelf, plan);
                assert_eq!(oracle::read(plan), oracle::decide(shelf), "{spec:?} {:?}", shelf.points);
                for one in &plan.decisions {
                    let word = match &one.decision {
                        Decision::Keep(reasons) => {
                            reasons.iter().map(oracle::word).collect::<Vec<_>>().join(" ")
                        }
                        Decision::Expire(newer) => format!("expires {:?}", newer.level),
                        Decision::Refused { rule, .. } => rule.to_string(),
                        Decision::Absent => "absent".to_owned(),
                    };
                    *told.entry(word).or_default() += 1;
                }
            });
        }
    }
    for word in [
        "absent",
        "aside",
        "found",
        "last good",
        "newest proven",
        "R1",
        "R2",
        "R4",
        "expires None",
        "expires Some(A4)",
    ] {
        assert!(told.get(word).is_some_and(|count| *count >= 100), "{word}: {told:?}");
    }
}

// ------------------------------------------------------------------------------------------------------- calendars

/// With and without summer time, north and south, of half an hour too, before and after Greenwich, with changes at midnight.
const ZONES: [&str; 40] = [
    "Africa/Cairo",
    "Africa/Casablanca",
    "Africa/Johannesburg",
    "Africa/Lagos",
    "America/Anchorage",
    "America/Asuncion",
    "America/Bogota",
    "America/Chicago",
    "America/Godthab",
    "America/Halifax",
    "America/Havana",
    "America/Los_Angeles",
    "America/New_York",
    "America/Phoenix",
    "America/Santiago",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Asia/Beirut",
    "Asia/Gaza",
    "Asia/Jerusalem",
    "Asia/Kathmandu",
    "Asia/Kolkata",
    "Asia/Shanghai",
    "Asia/Tehran",
    "Asia/Tokyo",
    "Atlantic/Azores",
    "Australia/Adelaide",
    "Australia/Lord_Howe",
    "Australia/Sydney",
    "Europe/Berlin",
    "Europe/Dublin",
    "Europe/Istanbul",
    "Europe/Lisbon",
    "Europe/London",
    "Europe/Moscow",
    "Pacific/Apia",
    "Pacific/Auckland",
    "Pacific/Chatham",
    "Pacific/Kiritimati",
    "UTC",
];

#[test]
fn in_every_zone_the_first_copy_of_every_period_is_left() {
    // A year and a quarter with its week 53 and its leap day; ten years in the long form.
    let (until, pause) = match histories() {
        None => (at("2028-03-08T00:00:00Z"), HOUR * 31),
        Some(_) => (at("2036-12-31T00:00:00Z"), HOUR * 7),
    };
    let spec = RetentionSpec {
        daily: Some(30),
        weekly: Some(70),
        monthly: Some(12),
        yearly: Some(7),
        ..RetentionSpec::default()
    };
    let (mut weeks_53, mut leap_days) = (0, 0);
    for zone in ZONES {
        let instants = std::iter::successors(Some(at("2026-11-20T00:00:00Z")), |at| Some(*at + pause));
        let points: Vec<RecoveryPoint> =
            instants.take_while(|at| *at < until).zip(1..).map(|(at, n)| copy(n, at)).collect();
        let shelf = Shelf::new(points, Some(spec.clone()), zone, until);
        let mut expected: BTreeSet<(&CopyId, &str)> = BTreeSet::new();
        for (rung, number) in [30, 70, 12, 7].into_iter().enumerate() {
            let mut first: BTreeMap<&str, &CopyId> = BTreeMap::new();
            for point in &shelf.points {
                first.entry(shelf.name(point, rung)).or_insert(&point.copy);
            }
            expected.extend(first.into_iter().rev().take(number).map(|(name, copy)| (copy, name)));
        }
        let plan = shelf.plan();
        let mut left: BTreeSet<(&CopyId, String)> = BTreeSet::new();
        for one in &plan.decisions {
            if let Decision::Keep(reasons) = &one.decision {
                left.extend(reasons.iter().filter_map(|reason| match reason {
                    Reason::First(bucket) => Some((&one.copy, bucket.to_string())),
                    _ => None,
                }));
            }
        }
        let expected: BTreeSet<_> =
            expected.into_iter().map(|(copy, name)| (copy, name.to_owned())).collect();
        assert_eq!(left, expected, "{zone}");
        let has = |name: &str| u32::from(left.iter().any(|(_, other)| other.ends_with(name)));
        weeks_53 += has("-W53");
        leap_days += has("-02-29");
    }
    assert!(histories().is_some() || (weeks_53 == 40 && leap_days >= 20), "{weeks_53}, {leap_days}");
}

#[test]
fn what_is_left_day_by_day_is_what_is_left_at_once() {
    let specs = [
        RetentionSpec { daily: Some(5), weekly: Some(4), monthly: Some(3), ..RetentionSpec::default() },
        RetentionSpec { last: Some(3), yearly: Some(2), within: Some(DAY * 9), ..RetentionSpec::default() },
    ];
    let from = at("2026-10-01T00:00:00Z");
    for (spec, zone) in specs.into_iter().zip(["Australia/Lord_Howe", "America/New_York"]) {
        let schedule = ScheduleSpec { cron: "0 */11 * * *".to_owned(), zone: zone.to_owned() };
        let mut shelf = Shelf::new(Vec::new(), Some(spec), zone, from);
        let mut due = schedule.next_after(from).unwrap();
        let mut looked_at = 0;
        for n in 1..=600 {
            let point = copy(n, due);
            shelf.listed.insert(point.copy.clone());
            shelf.add(point);
            shelf.now = due;
            let plan = shelf.plan();
            let stays: BTreeSet<&CopyId> = plan
                .decisions
                .iter()
                .filter(|one| matches!(one.decision, Decision::Keep(_)))
                .map(|one| &one.copy)
                .collect();
            shelf.points.retain(|point| stays.contains(&point.copy));
            if n % 50 == 0 {
                let left: Vec<Timestamp> = shelf.points.iter().map(|point| point.finished).collect();
                let at_once = simulate(&shelf.policy, &schedule, from, due).unwrap();
                assert_eq!(at_once.iter().map(|one| one.at).collect::<Vec<_>>(), left, "after {n} copies");
                looked_at += 1;
            }
            due = schedule.next_after(due).unwrap();
        }
        assert!(looked_at == 12 && shelf.points.len() > 8, "{looked_at}, {}", shelf.points.len());
    }
}

// ------------------------------------------------------------------------------------------------------- histories

/// How often each law had something to say.
#[derive(Default)]
struct Told(RefCell<BTreeMap<&'static str, u64>>);

impl Told {
    fn that(&self, what: &'static str, is_so: bool) {
        if is_so {
            *self.0.borrow_mut().entry(what).or_default() += 1;
        }
    }
}

/// Instants around which clocks are changed, a leap day, a week 53, a year's end, the end of 32 bits.
const BEGINNINGS: [&str; 8] = [
    "2026-12-24T01:00:00Z",
    "2026-03-27T23:30:00Z",
    "2026-10-23T22:30:00Z",
    "2028-02-27T12:00:00Z",
    "2027-12-29T10:00:00Z",
    "2038-01-17T00:00:00Z",
    "2032-12-25T00:00:00Z",
    "2026-01-02T00:00:00Z",
];

fn any_spec(dice: &mut Dice) -> Option<RetentionSpec> {
    if dice.one_in(12) {
        return dice.of(&[
            None,
            Some(RetentionSpec { forever: true, ..RetentionSpec::default() }),
            Some(RetentionSpec { last: Some(0), ..RetentionSpec::default() }),
            Some(RetentionSpec { daily: Some(1_000_000_000), ..RetentionSpec::default() }),
            Some(RetentionSpec { within: Some(-DAY), ..RetentionSpec::default() }),
        ]);
    }
    let mut number = |choices: &[Option<u32>]| dice.of(choices);
    let last = number(&[None, None, Some(1), Some(2), Some(5)]);
    let daily = number(&[None, Some(1), Some(3), Some(7)]);
    let weekly = number(&[None, None, Some(1), Some(4)]);
    let monthly = number(&[None, None, Some(1), Some(6)]);
    let yearly = number(&[None, None, None, Some(2)]);
    let within = dice.of(&[None, None, Some(DAY), Some(DAY * 9)]);
    Some(RetentionSpec { last, daily, weekly, monthly, yearly, within, forever: false })
}

/// A policy that wants all that another one wants.
fn looser(dice: &mut Dice, spec: &RetentionSpec) -> RetentionSpec {
    let mut more = |number: Option<u32>| match dice.below(3) {
        0 => number,
        by => Some(number.unwrap_or(0).saturating_add(u32::try_from(by).unwrap())),
    };
    let mut loose = RetentionSpec {
        last: more(spec.last),
        daily: more(spec.daily),
        weekly: more(spec.weekly),
        monthly: more(spec.monthly),
        yearly: more(spec.yearly),
        ..spec.clone()
    };
    loose.within = if dice.one_in(2) { spec.within } else { Some(spec.within.unwrap_or(DAY).max(DAY) * 2) };
    loose
}

fn keeps_nothing(spec: &RetentionSpec) -> bool {
    [spec.last, spec.daily, spec.weekly, spec.monthly, spec.yearly]
        .iter()
        .all(|number| number.is_none_or(|n| n == 0))
        && spec.within.is_none_or(|within| within <= SignedDuration::ZERO)
        && !spec.forever
}

/// A source over years: what happens to it, and the copies that are left.
struct World<'a> {
    dice: Dice,
    shelf: Shelf,
    zone: &'static str,
    /// The true time, and by how much the controller's clock is wrong.
    time: Timestamp,
    wrong: SignedDuration,
    was_wrong: bool,
    sequence: u64,
    began: Timestamp,
    told: &'a Told,
}

impl<'a> World<'a> {
    fn new(seed: u64, told: &'a Told) -> Self {
        let mut dice = Dice(seed);
        let zone = dice.of(&ZONES);
        let began = at(dice.of(&BEGINNINGS));
        let spec = any_spec(&mut dice);
        let mut shelf = Shelf::new(Vec::new(), spec, zone, began);
        shelf.newest_run = NewestRun::Unknown;
        shelf.fresh_within = dice.of(&[DAY * 2, DAY * 20, DAY * 20]);
        Self {
            dice,
            shelf,
            zone,
            time: began,
            wrong: SignedDuration::ZERO,
            was_wrong: false,
            sequence: 0,
            began,
            told,
        }
    }

    fn clock(&self) -> Timestamp {
        self.time + self.wrong
    }

    fn sealed(&mut self) -> u64 {
        self.sequence += 1;
        self.shelf.newest_receipt = Some(self.clock());
        self.sequence
    }

    fn any_copy(&mut self) -> Option<usize> {
        let there: Vec<usize> = (0..self.shelf.points.len())
            .filter(|index| oracle::is_there(&self.shelf.points[*index]))
            .collect();
        (!there.is_empty()).then(|| self.dice.of(&there))
    }

    fn back_up(&mut self) {
        let sequence = self.sealed();
        let clock = self.clock();
        let mut point = copy(sequence, clock);
        point.point = match self.dice.below(12) {
            0 => clock - HOUR * 23,
            1 => clock - DAY * 4_000,
            2 if self.dice.one_in(8) => clock + DAY * 20,
            _ => clock - MINUTE * 20,
        };
        point.stored_bytes = self.dice.of(&[1, 1, 1, 2, 40]);
        self.shelf.newest_run = NewestRun::Ended(match self.dice.below(14) {
            0 => Outcome::Failed,
            1 => Outcome::Incomplete,
            _ => Outcome::Complete,
        });
        match self.shelf.newest_run {
            NewestRun::Ended(Outcome::Failed) => return,
            NewestRun::Ended(outcome) => point.outcome = outcome,
            NewestRun::Unknown | NewestRun::CutOff => {}
        }
        self.shelf.listed.insert(point.copy.clone());
        self.shelf.add(point);
    }

    fn drill(&mut self) {
        if let Some(index) = self.any_copy() {
            self.sealed();
            self.shelf.points[index].standing = match self.dice.below(6) {
                0 => bad(),
                1 => proven(Assurance::A2),
                2 => proven(Assurance::A3),
                _ => proven(Assurance::A4),
            };
        }
    }

    fn find(&mut self) {
        let sequence = self.sealed();
        let mut point = copy(sequence, self.clock());
        // Its date is what whoever wrote it says, and never later than the receipt.
        point.finished -= self.dice.of(&[SignedDuration::ZERO, HOUR, DAY * 3, DAY * 40, DAY * 20_000]);
        point.point = point.finished;
        point.was_found = true;
        self.shelf.listed.insert(point.copy.clone());
        self.shelf.add(point);
    }

    fn lose(&mut self) {
        if let Some(index) = self.any_copy() {
            self.shelf.listed.remove(&self.shelf.points[index].copy);
            // Sometimes nobody has noticed yet.
            if !self.dice.one_in(3) {
                self.sealed();
                self.shelf.points[index].standing = gone();
            }
        }
    }

    /// What somebody was shown as wrong is put right: lost copies, wrong dates.
    fn look_after(&mut self) {
        self.shelf.is_listing_doubtful = false;
        for point in &mut self.shelf.points {
            if oracle::is_there(point) && !self.shelf.listed.contains(&point.copy) {
                point.standing = gone();
            }
        }
        let step = MINUTE * 2;
        let clock = self.clock();
        let mut earliest = clock;
        for point in self.shelf.points.iter().rev().filter(|point| !point.was_found) {
            let is_wrong = point.finished > earliest + step || point.point > clock + step;
            if is_wrong || point.finished < at("2026-01-01T00:00:00Z") {
                self.shelf.doubted.insert(point.copy.clone());
            } else if !self.shelf.doubted.contains(&point.copy) {
                earliest = earliest.min(point.finished);
            }
        }
    }

    fn change_policy(&mut self) {
        let spec = any_spec(&mut self.dice);
        let policy = RetentionPolicy::new(spec.clone(), self.zone).unwrap();
        let before = std::mem::replace(&mut self.shelf.policy, policy);
        let spec_before = std::mem::replace(&mut self.shelf.spec, spec);
        let until = self.clock();
        self.shelf.earlier.push((spec_before, EarlierPolicy { policy: before, until }));
    }

    fn happen(&mut self) {
        match self.dice.below(40) {
            0..=5 => self.drill(),
            6 => self.find(),
            7 => self.lose(),
            8 if self.dice.one_in(2) => self.shelf.is_listing_doubtful = true,
            9 => self.change_policy(),
            10 => {
                if let Some(index) = self.any_copy() {
                    let copy = self.shelf.points[index].copy.clone();
                    let aside = self.dice.of(&[Aside::Unsigned, Aside::Quarantined("odd".to_owned())]);
                    self.shelf.aside.insert(copy, aside);
                }
            }
            11 => {
                if let Some(index) = self.any_copy() {
                    let thing = match self.dice.one_in(5) {
                        true => HeldThing::Service(self.shelf.service.clone()),
                        false if index % 2 == 0 => HeldThing::Capture(self.shelf.points[index].run.clone()),
                        false => HeldThing::Copy(self.shelf.points[index].copy.clone()),
                    };
                    let until = self.clock() + self.dice.of(&[HOUR, DAY * 3, DAY * 90]);
                    self.shelf.holds.push(Hold { thing, reason: String::new(), until: Some(until) });
                }
            }
            12 => self.shelf.newest_run = NewestRun::CutOff,
            13 if self.dice.one_in(2) => {
                // The clock jumps, or is set right.
                let jumps = [HOUR, DAY * 3, DAY * 365, DAY * 3650, -HOUR, -DAY * 3, -DAY * 30_000];
                self.wrong = match self.wrong == SignedDuration::ZERO {
                    true => self.dice.of(&jumps),
                    false => SignedDuration::ZERO,
                };
                self.was_wrong = true;
            }
            14..=17 => self.look_after(),
            18 => self.wrong = SignedDuration::ZERO,
            _ => {}
        }
    }

    /// Plans, and carries the plan out as far as this run comes.
    fn retain(&mut self) {
        self.shelf.now = self.clock();
        let shown = self.shelf.plan();
        self.ask(&shown);
        if !self.shelf.approved.is_empty() && self.dice.one_in(3) {
            self.shelf.approved.clear();
        }
        let is_asked = shown.awaiting_approval().next().is_some() && self.dice.one_in(4);
        if is_asked {
            self.shelf.approved.insert(shown.digest());
        }
        // Between the plan and its carrying out something may happen: then it is another plan, and is not carried out.
        let has_happened = self.dice.one_in(8);
        if has_happened {
            self.happen();
            self.time += MINUTE;
            self.shelf.now = self.clock();
        }
        let plan = self.shelf.plan();
        let is_outdated = (is_asked || has_happened) && plan.digest() != shown.digest();
        self.told.that("a plan was outdated when it was to be carried out", is_outdated);
        self.told
            .that("a plan was carried out although something had happened", has_happened && !is_outdated);
        assert_safe(&self.shelf, &plan);
        if !is_outdated {
            self.carry_out(&plan);
        }
    }

    fn carry_out(&mut self, plan: &Plan) {
        let deleted: Vec<CopyId> = plan.deleted().map(|one| one.copy.clone()).collect();
        self.assert_nothing_precious_goes(plan, &deleted);
        // A run that dies half-way has done a part.
        let ends_after = if self.dice.one_in(10) { self.dice.below(4) } else { usize::MAX };
        self.shelf.marks.extend(plan.marks(self.shelf.now).into_iter().take(ends_after));
        for one in plan.unmarked().take(ends_after) {
            self.shelf.marks.retain(|mark| mark.copy != one.copy);
        }
        for copy in deleted.iter().take(ends_after) {
            self.shelf.listed.remove(copy);
            self.shelf.marks.retain(|mark| mark.copy != *copy);
            self.shelf.points.iter_mut().find(|point| point.copy == *copy).unwrap().standing = gone();
        }
        if ends_after == usize::MAX && self.dice.one_in(4) {
            let again = self.shelf.plan();
            assert_eq!(
                again.deleted().filter(|one| !deleted.contains(&one.copy)).count(),
                0,
                "what is marked now is not deleted now"
            );
            assert_safe(&self.shelf, &again);
            self.told.that("a plan was made right after another one", !deleted.is_empty());
        }
    }

    fn assert_nothing_precious_goes(&self, plan: &Plan, deleted: &[CopyId]) {
        let (told, before) = (self.told, &self.shelf);
        told.that("something was deleted", !deleted.is_empty());
        let left = |point: &RecoveryPoint| !deleted.contains(&point.copy);
        let good = |is_meant: &dyn Fn(&RecoveryPoint) -> bool| {
            before.points.iter().filter(|point| oracle::is_good(before, point) && is_meant(point)).count()
        };
        assert!(good(&|_| true) == 0 || good(&left) > 0, "the last good copy");
        let suspended = if deleted.is_empty() { None } else { oracle::suspended(before) };
        for copy in deleted {
            let point = before.point(copy);
            assert!(suspended.is_none(), "{suspended:?}");
            assert!(oracle::is_counted(before, point) && !oracle::is_held(before, point));
            let marked =
                before.marks.iter().filter(|mark| mark.copy == *copy).map(|mark| mark.at).max().unwrap();
            assert!(before.now.duration_since(marked) >= DAY);
            let one = plan.decisions.iter().find(|one| one.copy == *copy).unwrap();
            let Decision::Expire(newer) = &one.decision else { panic!("{one:?}") };
            assert!(left(before.point(&newer.copy)) && before.listed.contains(&newer.copy));
            told.that("a bad copy was deleted", matches!(point.standing, PointStanding::Failed { .. }));
            told.that("an incomplete copy was deleted", point.outcome != Outcome::Complete);
            told.that("a proven copy was deleted", point.is_proven());
            told.that("a copy that was found was deleted", point.was_found);
            let after_years = before.now.duration_since(self.began) > DAY * 366;
            told.that("a copy was deleted after more than a year", after_years);
            told.that("a copy was deleted after the clock had been wrong", self.was_wrong);
        }
        let there = before.points.iter().filter(|point| oracle::is_there(point)).count();
        let is_approved = !before.approved.is_empty() && !deleted.is_empty();
        told.that("something was deleted that was approved", is_approved && deleted.len() * 5 > there);
        let on_the_way =
            plan.decisions.iter().filter(|one| matches!(one.decision, Decision::Expire(_))).count();
        assert!(on_the_way <= (there / 5).max(1) || !before.approved.is_empty());
    }

    /// The laws of a plan that need not be carried out.
    fn ask(&mut self, plan: &Plan) {
        let Self { told, shelf, dice, zone, .. } = self;
        let copies: BTreeSet<&CopyId> = plan.decisions.iter().map(|one| &one.copy).collect();
        assert_eq!(copies.len(), shelf.points.len());
        assert_eq!(plan.decisions.len(), shelf.points.len());
        let decision = |plan: &Plan, copy: &CopyId| {
            plan.decisions.iter().find(|one| one.copy == *copy).unwrap().decision.clone()
        };
        for one in &plan.decisions {
            if let Decision::Expire(newer) = &one.decision {
                assert!(!matches!(decision(plan, &newer.copy), Decision::Expire(_)), "what is named stays");
            }
            told.that(
                "a copy was held",
                matches!(&one.decision, Decision::Keep(reasons) if matches!(reasons[..], [Reason::Held(_)])),
            );
            for (rule, what) in [
                (Rule::LastGood, "R1 refused"),
                (Rule::FreshSource, "R2 refused"),
                (Rule::NotMuchAtOnce, "R4 refused"),
                (Rule::WholeListing, "R5 refused"),
                (Rule::BelievedClock, "R7 refused"),
                (Rule::CoolingOff, "R11 refused"),
            ] {
                told.that(
                    what,
                    matches!(one.decision, Decision::Refused { rule: refused, .. } if refused == rule),
                );
            }
            told.that("a mark was taken away", one.step == Some(Step::Unmark));
            if let Decision::Keep(reasons) = &one.decision {
                for reason in reasons {
                    let Reason::First(bucket) = reason else { continue };
                    told.that("week 53 was kept", matches!(bucket, Bucket::Week { week: 53, .. }));
                    told.that("a leap day was kept", bucket.to_string().ends_with("-02-29"));
                    told.that("a period was kept by a copy that was found", shelf.point(&one.copy).was_found);
                }
            }
        }

        if dice.one_in(8) && shelf.approved.is_empty() && shelf.points.len() <= 30 {
            assert_eq!(oracle::read(plan), oracle::decide(shelf), "{:?}", shelf.points);
            told.that("the oracle was asked", true);
        }
        if dice.one_in(6) {
            let mut points = shelf.points.clone();
            dice.shuffle(&mut points);
            points.extend(points.first().cloned());
            assert_eq!(shelf.plan_of(&points, &shelf.policy), *plan, "the order of listing");
            told.that("the order of listing was changed", points.len() > 2);
        }
        if dice.one_in(6) {
            // What stands elsewhere, or is of another source, is not looked at.
            let mut points = shelf.points.clone();
            for point in &shelf.points {
                let mut other = RecoveryPoint { standing: gone(), ..point.clone() };
                other.repository = repository("offsite");
                points.push(other);
            }
            assert_eq!(shelf.plan_of(&points, &shelf.policy), *plan, "another repository");
        }
        if let Some(spec) = shelf.spec.as_ref().filter(|spec| !keeps_nothing(spec))
            && shelf.approved.is_empty()
            && dice.one_in(3)
        {
            let loose = looser(dice, spec);
            let policy = RetentionPolicy::new(Some(loose), zone).unwrap();
            let loosened = shelf.plan_of(&shelf.points, &policy);
            for (tight, loose) in plan.decisions.iter().zip(&loosened.decisions) {
                assert_eq!(tight.copy, loose.copy);
                let could_go = |decision: &Decision| {
                    matches!(
                        decision,
                        Decision::Expire(_) | Decision::Refused { rule: Rule::NotMuchAtOnce, .. }
                    )
                };
                assert!(could_go(&tight.decision) || !could_go(&loose.decision), "{tight:?}, then {loose:?}");
                told.that(
                    "a looser policy kept more",
                    could_go(&tight.decision) && matches!(loose.decision, Decision::Keep(_)),
                );
            }
        }
    }

    fn live(mut self) {
        let steps = 12 + self.dice.below(40);
        for _ in 0..steps {
            let pauses = [HOUR, HOUR * 7, DAY, DAY, DAY + MINUTE, DAY + MINUTE, DAY * 8, DAY * 31, DAY * 200];
            self.time += match self.dice.one_in(4) {
                true => self.dice.of(&pauses),
                false => DAY + MINUTE,
            };
            if !self.dice.one_in(7) {
                self.back_up();
            }
            self.happen();
            self.retain();
        }
        let age = self.time.duration_since(self.began);
        self.told.that("a history of more than a year", age > DAY * 366);
        self.told.that("a history with a wrong clock", self.was_wrong);
        self.told.that("a history", true);
    }
}

#[test]
fn whatever_happens_over_years_nothing_precious_goes() {
    let count = histories().unwrap_or(1_000);
    let threads =
        std::thread::available_parallelism().map_or(1, |threads| u64::try_from(threads.get()).unwrap());
    let mut told: BTreeMap<&'static str, u64> = BTreeMap::new();
    std::thread::scope(|scope| {
        let lived = |first: u64| {
            let told = Told::default();
            for seed in (first..count).step_by(usize::try_from(threads).unwrap()) {
                World::new(seed, &told).live();
            }
            told.0.into_inner()
        };
        let parts: Vec<_> = (0..threads).map(|first| scope.spawn(move || lived(first))).collect();
        for part in parts {
            for (what, times) in part.join().unwrap() {
                *told.entry(what).or_default() += times;
            }
        }
    });
    // A law says nothing where its premise never holds. So often at least in a thousand histories:
    let expected = [
        ("a history", 1_000),
        ("a history of more than a year", 100),
        ("a history with a wrong clock", 100),
        ("something was deleted", 300),
        ("a copy was deleted after more than a year", 50),
        ("a copy was deleted after the clock had been wrong", 30),
        ("a proven copy was deleted", 20),
        ("a bad copy was deleted", 5),
        ("an incomplete copy was deleted", 5),
        ("a copy that was found was deleted", 1),
        ("a copy was held", 100),
        ("a mark was taken away", 100),
        ("something was deleted that was approved", 5),
        ("a plan was made right after another one", 50),
        ("a plan was carried out although something had happened", 100),
        ("a plan was outdated when it was to be carried out", 100),
        ("R1 refused", 100),
        ("R2 refused", 1_000),
        ("R4 refused", 500),
        ("R5 refused", 100),
        ("R7 refused", 500),
        ("R11 refused", 100),
        ("week 53 was kept", 20),
        ("a leap day was kept", 20),
        ("a period was kept by a copy that was found", 1),
        ("the oracle was asked", 1_000),
        ("the order of listing was changed", 500),
        ("a looser policy kept more", 300),
    ];
    for (what, least) in expected {
        let times = told.get(what).copied().unwrap_or(0);
        assert!(times * 1_000 >= least * count.min(1_000_000), "{what}: only {times} times of {told:#?}");
    }
}
