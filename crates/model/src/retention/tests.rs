//! Every rule in both directions: what it keeps, and what it lets go.

use jiff::civil::date;
use jiff::tz::TimeZoneDatabase;

use super::*;
use crate::example::{self, About};
use crate::id::{Digest, RunId};
use crate::receipt::{Act, Receipt};
use crate::service::{RetentionSpec, ScheduleSpec};

const HOUR: SignedDuration = SignedDuration::from_hours(1);
const NANO: SignedDuration = SignedDuration::from_nanos(1);

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn days(count: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * count)
}

/// 03:00 of a day of November 2026.
fn day(number: i64) -> Timestamp {
    at("2026-11-01T03:00:00Z") + days(number - 1)
}

fn id(sequence: u64) -> CopyId {
    CopyId(format!("{sequence:064x}"))
}

/// A complete copy of which nothing more is known.
fn copy(sequence: u64, at: Timestamp) -> RecoveryPoint {
    RecoveryPoint {
        service: ServiceName::new("shop").unwrap(),
        source: SourceName::new("db").unwrap(),
        sequence,
        run: RunId(format!("backup-{sequence}")),
        repository: example::repository(),
        copy: id(sequence),
        point: at,
        finished: at,
        started: None,
        outcome: Outcome::Complete,
        restore_bytes: 1_000,
        stored_bytes: 100,
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
    PointStanding::Proven { level, sequence: 900, at: day(1) }
}

fn bad() -> PointStanding {
    PointStanding::Failed { sequence: 900, at: day(1), codes: BTreeSet::new() }
}

fn gone() -> PointStanding {
    PointStanding::Gone { sequence: 900, at: day(1), was_bad: false, was_let_go: false }
}

fn spec() -> RetentionSpec {
    RetentionSpec::default()
}

fn last(count: u32) -> RetentionSpec {
    RetentionSpec { last: Some(count), ..spec() }
}

type Change<'a> = &'a dyn Fn(&mut Given);

/// A case that can be changed: daily copies in November, a fresh source, a believed clock, no mark, no hold.
#[derive(Clone)]
struct Given {
    service: ServiceName,
    source: SourceName,
    repository: RepositoryId,
    points: Vec<RecoveryPoint>,
    policy: RetentionPolicy,
    earlier: Vec<EarlierPolicy>,
    fresh_within: SignedDuration,
    newest_run: NewestRun,
    newest_receipt: Option<Timestamp>,
    unlisted: BTreeSet<CopyId>,
    doubtful: Option<String>,
    holds: Vec<Hold>,
    aside: BTreeMap<CopyId, Aside>,
    doubted: BTreeSet<CopyId>,
    marks: Vec<Mark>,
    approved: BTreeSet<PlanDigest>,
    now: Timestamp,
}

impl Given {
    fn daily(count: u64, spec: RetentionSpec) -> Self {
        let points = (1..=count).map(|n| copy(n, day(i64::try_from(n).unwrap()))).collect();
        Self::of(points, spec)
    }

    fn of(points: Vec<RecoveryPoint>, spec: RetentionSpec) -> Self {
        let now = points.iter().map(|point| point.finished).max().unwrap() + HOUR;
        Self {
            service: ServiceName::new("shop").unwrap(),
            source: SourceName::new("db").unwrap(),
            repository: example::repository().id,
            points,
            policy: RetentionPolicy::new(Some(spec), "UTC").unwrap(),
            earlier: Vec::new(),
            fresh_within: days(2),
            newest_run: NewestRun::Ended(Outcome::Complete),
            newest_receipt: Some(now),
            unlisted: BTreeSet::new(),
            doubtful: None,
            holds: Vec::new(),
            aside: BTreeMap::new(),
            doubted: BTreeSet::new(),
            marks: Vec::new(),
            approved: BTreeSet::new(),
            now,
        }
    }

    fn plan(&self) -> Plan {
        let listed = self.points.iter().map(|point| point.copy.clone());
        let listed: BTreeSet<CopyId> = listed.filter(|copy| !self.unlisted.contains(copy)).collect();
        let listing = match &self.doubtful {
            Some(why) => Listing::Doubtful(why.clone()),
            None => Listing::Whole(&listed),
        };
        plan(&Case {
            service: &self.service,
            source: &self.source,
            repository: &self.repository,
            points: &self.points,
            policy: &self.policy,
            earlier: &self.earlier,
            fresh_within: self.fresh_within,
            newest_run: self.newest_run,
            newest_receipt: self.newest_receipt,
            listing,
            holds: &self.holds,
            aside: &self.aside,
            doubted: &self.doubted,
            marks: &self.marks,
            approved: &self.approved,
            now: self.now,
        })
    }

    /// What becomes of a copy.
    fn decision(&self, sequence: u64) -> Decision {
        decision(&self.plan(), sequence)
    }

    /// One letter for each copy, oldest first: kept, expires, absent; or the number of the rule.
    fn letters(&self) -> String {
        letters(&self.plan())
    }

    fn is_suspended_by(&self, rule: Rule) -> bool {
        let plan = self.plan();
        assert!(plan.suspended.iter().all(|suspension| !suspension.why.is_empty()));
        let rules: Vec<Rule> = plan.suspended.iter().map(|suspension| suspension.rule).collect();
        assert!(
            rules.is_empty() || plan.decisions.iter().all(|one| !matches!(one.decision, Decision::Expire(_)))
        );
        rules == [rule]
    }

    fn mark(&mut self, sequence: u64, at: Timestamp) {
        self.marks.push(Mark { copy: id(sequence), at, plan: digest("some plan") });
    }
}

fn digest(text: &str) -> PlanDigest {
    PlanDigest(Digest(text.to_owned()))
}

fn decision(plan: &Plan, sequence: u64) -> Decision {
    plan.decisions.iter().find(|one| one.sequence == sequence).unwrap().decision.clone()
}

fn letters(plan: &Plan) -> String {
    let letter = |one: &Decided| match &one.decision {
        Decision::Keep(_) => "k".to_owned(),
        Decision::Expire(_) => "x".to_owned(),
        Decision::Absent => "-".to_owned(),
        Decision::Refused { rule, .. } => rule.as_str()[1..].to_owned(),
    };
    plan.decisions.iter().map(letter).collect()
}

fn steps(plan: &Plan) -> Vec<Option<Step>> {
    plan.decisions.iter().map(|one| one.step).collect()
}

fn kept(reasons: &[Reason]) -> Decision {
    Decision::Keep(reasons.to_vec())
}

fn evidence(sequence: u64, level: Option<Assurance>) -> Evidence {
    Evidence { copy: id(sequence), level, sequence }
}

fn expires(sequence: u64, level: Option<Assurance>) -> Decision {
    Decision::Expire(evidence(sequence, level))
}

fn refused(rule: Rule, newer: Option<Evidence>) -> Decision {
    Decision::Refused { rule, newer }
}

// ------------------------------------------------------------------------------------------------------------- R1

#[test]
fn the_last_good_copy_stays_whatever_the_policy_says() {
    let mut given = Given::daily(1, RetentionSpec { within: Some(HOUR), ..spec() });
    assert_eq!(given.decision(1), kept(&[Reason::LastGood]));
    given.points.push(copy(2, day(2)));
    given.now = day(2) + HOUR;
    assert_eq!(given.decision(1), expires(2, None));
    assert_eq!(given.decision(2), kept(&[Reason::LastGood]));
}

#[test]
fn an_unproven_newer_copy_does_not_replace_a_proven_one() {
    let mut given = Given::daily(3, last(1));
    given.points[0].standing = proven(Assurance::A4);
    assert_eq!(given.decision(1), kept(&[Reason::NewestProven]));
    assert_eq!(given.decision(2), expires(3, None));
    assert_eq!(given.decision(3), kept(&[Reason::Last(1), Reason::LastGood]));
    // Read back and not restored is less than restored, and more than nothing.
    given.points[0].standing = proven(Assurance::A2);
    assert_eq!(given.decision(1), refused(Rule::LastGood, Some(evidence(3, None))));
}

#[test]
fn newer_means_at_least_as_proven() {
    let levels = Assurance::ALL;
    for (older, newer) in levels.into_iter().flat_map(|older| levels.map(|newer| (older, newer))) {
        let mut given = Given::daily(4, last(1));
        given.points[0].standing = proven(older);
        given.points[2].standing = proven(newer);
        let decided = match (older > newer, newer >= Assurance::A3) {
            (false, _) => expires(3, Some(newer)),
            (true, true) => refused(Rule::LastGood, Some(evidence(3, Some(newer)))),
            (true, false) if older >= Assurance::A3 => kept(&[Reason::NewestProven]),
            (true, false) => refused(Rule::LastGood, Some(evidence(3, Some(newer)))),
        };
        assert_eq!(given.decision(1), decided, "{older} and then {newer}");
    }
}

#[test]
fn the_newest_copy_that_is_proven_enough_is_named() {
    let mut given = Given::daily(6, last(1));
    for (index, level) in [(0, Assurance::A3), (1, Assurance::A5), (3, Assurance::A3)] {
        given.points[index].standing = proven(level);
    }
    assert_eq!(given.decision(1), expires(4, Some(Assurance::A3)));
    assert_eq!(given.decision(2), refused(Rule::LastGood, Some(evidence(4, Some(Assurance::A3)))));
    assert_eq!(given.decision(3), refused(Rule::NotMuchAtOnce, Some(evidence(6, None))));
}

#[test]
fn a_copy_that_is_known_to_be_bad_never_counts_as_the_newer_one() {
    let mut given = Given::daily(2, RetentionSpec { within: Some(HOUR), ..spec() });
    given.points[1].standing = bad();
    assert_eq!(given.decision(1), kept(&[Reason::LastGood]));
    assert_eq!(given.decision(2), refused(Rule::LastGood, None));
    given.points.push(copy(3, day(3)));
    given.now = day(3) + HOUR;
    assert_eq!(given.decision(1), expires(3, None));
}

#[test]
fn a_bad_copy_goes_only_while_a_newer_one_has_been_restored() {
    let mut given = Given::daily(3, last(1));
    given.points[0].standing = bad();
    given.points[1].standing = gone();
    assert_eq!(given.decision(1), refused(Rule::LastGood, Some(evidence(3, None))));
    given.points[2].standing = proven(Assurance::A2);
    assert_eq!(given.decision(1), refused(Rule::LastGood, Some(evidence(3, Some(Assurance::A2)))));
    given.points[2].standing = proven(Assurance::A3);
    assert_eq!(given.decision(1), expires(3, Some(Assurance::A3)));
}

#[test]
fn an_incomplete_copy_stays_while_nothing_newer_is_there() {
    let mut given = Given::daily(2, last(1));
    given.points[1].outcome = Outcome::Incomplete;
    given.now = day(30);
    assert_eq!(given.decision(2), kept(&[Reason::NewestOfSource]));
    assert_eq!(given.decision(1), kept(&[Reason::Last(1), Reason::LastGood]), "it takes no place");
    given.now = day(3);
    assert_eq!(given.decision(2), kept(&[Reason::NewestOfSource, Reason::YoungAndIncomplete]));
}

#[test]
fn an_incomplete_copy_stays_a_week_and_then_goes_where_a_complete_one_is_newer() {
    for outcome in [Outcome::Incomplete, Outcome::Failed] {
        let mut given = Given::daily(2, last(1));
        given.points[0].outcome = outcome;
        given.points[1] = copy(2, day(8));
        given.now = day(8) - NANO;
        assert_eq!(given.decision(1), kept(&[Reason::YoungAndIncomplete]));
        given.now = day(8);
        assert_eq!(given.decision(1), expires(2, None));
        given.points[1].outcome = Outcome::Incomplete;
        assert_eq!(given.decision(1), refused(Rule::LastGood, None));
        given.points[1] = RecoveryPoint { standing: gone(), ..copy(2, day(8)) };
        assert_eq!(given.decision(1), kept(&[Reason::NewestOfSource]), "what has gone is no newer thing");
    }
}

#[test]
fn an_incomplete_copy_that_was_restored_goes_only_for_one_that_was_too() {
    let mut given = Given::daily(3, last(1));
    given.points[0].outcome = Outcome::Incomplete;
    given.points[0].standing = proven(Assurance::A4);
    given.points[2] = copy(3, day(20));
    given.now = day(20) + HOUR;
    assert_eq!(given.decision(1), refused(Rule::LastGood, Some(evidence(3, None))));
    given.points[2].standing = proven(Assurance::A4);
    assert_eq!(given.decision(1), expires(3, Some(Assurance::A4)));
    // And it is not the newest proven one, whatever was shown of it.
    given.points[2].standing = PointStanding::Unproven;
    given.points[1].standing = proven(Assurance::A3);
    assert_eq!(given.decision(2), kept(&[Reason::NewestProven]));
}

// ------------------------------------------------------------------------------------------------------------- R2

#[test]
fn nothing_goes_unless_the_newest_run_was_good() {
    let mut given = Given::daily(3, last(2));
    assert_eq!(given.letters(), "xkk");
    for run in [
        NewestRun::Unknown,
        NewestRun::CutOff,
        NewestRun::Ended(Outcome::Incomplete),
        NewestRun::Ended(Outcome::Failed),
    ] {
        given.newest_run = run;
        assert!(given.is_suspended_by(Rule::FreshSource), "{run:?}");
        assert_eq!(given.letters(), "2kk");
        assert_eq!(given.decision(1), refused(Rule::FreshSource, Some(evidence(3, None))));
    }
}

#[test]
fn nothing_goes_while_the_newest_copy_is_too_old() {
    let mut given = Given::daily(3, last(2));
    given.now = day(5);
    assert_eq!((given.plan().suspended.len(), given.letters()), (0, "xkk".to_owned()));
    given.now = day(5) + NANO;
    assert!(given.is_suspended_by(Rule::FreshSource));
    // The date of what was captured counts, not that of the end.
    given.now = day(5);
    given.points[2].point = day(3) - HOUR;
    assert!(given.is_suspended_by(Rule::FreshSource));
}

#[test]
fn nothing_goes_while_the_newest_copy_is_not_good() {
    let whys = |change: &dyn Fn(&mut Given)| {
        let mut given = Given::daily(4, last(1));
        given.points[2].standing = proven(Assurance::A4);
        change(&mut given);
        assert!(given.is_suspended_by(Rule::FreshSource));
        assert_eq!(given.letters()[..1], *"2");
        given.plan().suspended[0].why.rsplit(", is ").next().unwrap().to_owned()
    };
    assert_eq!(whys(&|given| given.points[3].standing = bad()), "known to be bad");
    assert_eq!(whys(&|given| given.points[3].standing = gone()), "no longer there");
    assert_eq!(whys(&|given| given.points[3].outcome = Outcome::Incomplete), "incomplete");
    let set_aside = |given: &mut Given| {
        given.aside.insert(id(4), Aside::Unsigned);
    };
    assert_eq!(whys(&set_aside), "set aside");
    let set_aside_and_bad = |given: &mut Given| {
        given.aside.insert(id(4), Aside::Unsigned);
        given.points[3].standing = bad();
    };
    assert_eq!(whys(&set_aside_and_bad), "set aside");
    // One that was found is no sign that the source is being backed up, and none that it is not.
    let found = |given: &mut Given| given.points.iter_mut().for_each(|point| point.was_found = true);
    let mut given = Given::daily(3, last(1));
    given.points.iter_mut().for_each(|point| point.standing = proven(Assurance::A4));
    found(&mut given);
    assert!(given.is_suspended_by(Rule::FreshSource));
    given.points.insert(0, copy(9, day(1) - HOUR));
    given.points.push(RecoveryPoint { standing: proven(Assurance::A4), ..copy(10, day(3) + HOUR) });
    given.now = day(3) + HOUR;
    assert_eq!(given.plan().suspended, []);
}

#[test]
fn how_old_the_newest_copy_may_be_follows_from_the_promise() {
    let mut service = service(Objective::Within(HOUR));
    assert_eq!(fresh_within(&service), HOUR * 2);
    service.objective.rpo = Objective::NotApplicable;
    assert_eq!(fresh_within(&service), HOUR * 30);
    service.objective.rpo = Objective::Within(SignedDuration::MAX);
    assert_eq!(fresh_within(&service), SignedDuration::MAX);
}

fn service(rpo: Objective) -> Service {
    Service {
        name: ServiceName::new("shop").unwrap(),
        owner: "somebody".to_owned(),
        tier: crate::id::TierName::new("standard").unwrap(),
        objective: crate::objective::RecoveryObjective { rpo, rto: Objective::NotApplicable },
        rationale: None,
        depends_on: Vec::new(),
        sources: Vec::new(),
        adopted: Vec::new(),
        repositories: Vec::new(),
        schedule: None,
        retention: Some(last(3)),
        stale_after: HOUR * 30,
        drill: crate::service::DrillPolicy {
            schedule: None,
            proof_valid: days(30),
            random_within: days(30),
            deadline_percent: 300,
            deadline: HOUR,
        },
        placement: example::placement(),
        ssot: false,
    }
}

#[test]
fn the_newest_run_is_the_one_that_a_history_knows() {
    let about = About::new("shop", "db", day(1));
    let receipt = |sequence, act| {
        let digest = Digest(format!("sha256:{sequence:064x}"));
        Receipt { sequence, previous: None, at: day(1), subject: Vec::new(), act, digest }
    };
    let mut history = SourceHistory::new(about.service.clone(), about.source.clone());
    assert_eq!(NewestRun::of(&history), NewestRun::Unknown);
    history.apply(&receipt(1, Act::Backup(Box::new(example::backup(&about, None)))));
    assert_eq!(NewestRun::of(&history), NewestRun::Ended(Outcome::Complete));
    history.apply(&receipt(2, Act::Backup(Box::new(example::failed_backup(&about, None)))));
    assert_eq!(NewestRun::of(&history), NewestRun::Ended(Outcome::Failed));
    let drill = example::abandoned(&about, None);
    assert_eq!(drill.act, ActKind::Drill);
    history.apply(&receipt(3, Act::Abandoned(drill.clone())));
    assert_eq!(
        NewestRun::of(&history),
        NewestRun::Ended(Outcome::Failed),
        "a drill that was cut off is no backup"
    );
    let backup = crate::receipt::Abandoned { act: ActKind::Backup, ..drill };
    history.apply(&receipt(4, Act::Abandoned(backup)));
    assert_eq!(NewestRun::of(&history), NewestRun::CutOff);
    history.apply(&receipt(5, Act::Backup(Box::new(example::backup(&about, None)))));
    assert_eq!(NewestRun::of(&history), NewestRun::Ended(Outcome::Complete));
}

// ------------------------------------------------------------------------------------------------------------- R3

#[test]
fn a_copy_is_marked_and_deleted_a_day_later() {
    let mut given = Given::daily(3, last(2));
    let plan = given.plan();
    assert_eq!(steps(&plan), [Some(Step::Mark), None, None]);
    let marks = plan.marks(given.now);
    assert_eq!(marks, [Mark { copy: id(1), at: given.now, plan: plan.digest() }]);
    assert_eq!((plan.deleted().count(), plan.unmarked().count()), (0, 0));

    let since = given.now;
    given.marks = marks;
    given.now = since + MARKED_FOR - NANO;
    assert_eq!(steps(&given.plan()), [Some(Step::Wait { since }), None, None]);
    assert_eq!((given.plan().marks(given.now), given.plan().deleted().count()), (Vec::new(), 0));
    given.now = since + MARKED_FOR;
    let plan = given.plan();
    assert_eq!(steps(&plan), [Some(Step::Delete { since }), None, None]);
    assert_eq!(plan.deleted().map(|one| one.sequence).collect::<Vec<_>>(), [1]);
}

#[test]
fn whatever_does_not_expire_any_more_loses_its_mark() {
    let mut given = Given::daily(3, last(2));
    given.mark(1, day(1));
    given.mark(2, day(1));
    given.mark(3, day(1));
    assert_eq!(steps(&given.plan())[1..], [Some(Step::Unmark), Some(Step::Unmark)]);
    assert_eq!(given.plan().unmarked().map(|one| one.sequence).collect::<Vec<_>>(), [2, 3]);
    given.newest_run = NewestRun::CutOff;
    assert_eq!(steps(&given.plan()), [Some(Step::Unmark); 3], "refused");
    given.newest_run = NewestRun::Ended(Outcome::Complete);
    given.points[0].standing = gone();
    assert_eq!(steps(&given.plan())[0], Some(Step::Unmark), "gone");
}

#[test]
fn of_several_marks_the_latest_counts() {
    let mut given = Given::daily(3, last(2));
    given.now = day(4);
    for marks in [[day(2), day(3) + HOUR], [day(3) + HOUR, day(2)]] {
        given.marks.clear();
        marks.into_iter().for_each(|at| given.mark(1, at));
        assert_eq!(steps(&given.plan())[0], Some(Step::Wait { since: day(3) + HOUR }));
    }
    // Of one instant: the same one, in whatever order they are listed.
    let mut given = Given::daily(10, last(1));
    let plans = ["one plan", "some plan"].map(digest);
    for order in [[0, 1], [1, 0]] {
        given.marks = order.map(|n| Mark { copy: id(9), at: day(9), plan: plans[n].clone() }).to_vec();
        given.approved = BTreeSet::from([plans[1].clone()]);
        assert_eq!(given.letters(), "xx444444xk", "9 was marked by a plan that was approved");
    }
}

#[test]
fn a_mark_of_a_copy_that_is_not_meant_changes_nothing() {
    let mut given = Given::daily(3, last(2));
    let plan = given.plan();
    given.mark(77, day(400));
    assert_eq!(given.plan(), plan);
}

// ------------------------------------------------------------------------------------------------------------- R4

#[test]
fn at_most_a_fifth_goes_at_once_and_one_always_may() {
    let of = |count| Given::daily(count, last(1)).letters();
    assert_eq!(of(2), "xk");
    assert_eq!(of(3), "x4k");
    assert_eq!(of(9), "x4444444k");
    assert_eq!(of(10), "xx4444444k");
    assert_eq!(of(14), "xx44444444444k");
    assert_eq!(of(15), "xxx44444444444k");
    let given = Given::daily(10, last(1));
    assert_eq!(given.decision(3), refused(Rule::NotMuchAtOnce, Some(evidence(10, None))));
    let waiting: Vec<u64> = given.plan().awaiting_approval().map(|one| one.sequence).collect();
    assert_eq!(waiting, [3, 4, 5, 6, 7, 8, 9]);
    // So it is where the bytes say nothing.
    let mut given = Given::daily(10, last(1));
    given.points.iter_mut().for_each(|point| point.stored_bytes = 0);
    assert_eq!(given.letters(), "xx4444444k");
    // What has gone is not counted.
    let mut given = Given::daily(10, last(1));
    given.points[0].standing = gone();
    assert_eq!(given.letters(), "-x4444444k");
}

#[test]
fn at_most_a_fifth_of_the_bytes_goes_at_once() {
    let mut given = Given::daily(10, last(1));
    // 100 bytes each and 500 in all: the second one would be within the fifth of copies, not within that of bytes.
    given.points.iter_mut().for_each(|point| point.stored_bytes = 50);
    given.points[0].stored_bytes = 51;
    assert_eq!(given.letters(), "x44444444k");
    given.points[0].stored_bytes = 50;
    assert_eq!(given.letters(), "xx4444444k");
    // One copy that is most of everything may go alone, and what is behind it waits.
    given.points[0].stored_bytes = 5_000;
    assert_eq!(given.letters(), "x44444444k");
    given.points[0].stored_bytes = 50;
    given.points[1].stored_bytes = 5_000;
    assert_eq!(given.letters(), "x44444444k", "it does not wait for ever: the next time it is the first");
    given.points[0].stored_bytes = u64::MAX;
    given.points[1].stored_bytes = u64::MAX;
    given.points[2].stored_bytes = u64::MAX;
    assert_eq!(given.letters(), "x44444444k");
}

#[test]
fn what_is_marked_is_a_part_of_the_fifth_and_comes_first() {
    let mut given = Given::daily(10, last(1));
    given.mark(5, given.now - HOUR);
    assert_eq!(given.letters(), "x444x4444k");
    given.mark(7, given.now - MARKED_FOR);
    assert_eq!(given.letters(), "4444x4x44k");
    let plan = given.plan();
    assert_eq!(plan.deleted().map(|one| one.sequence).collect::<Vec<_>>(), [7]);
    assert_eq!(plan.marks(given.now), []);
}

#[test]
fn an_approval_of_exactly_this_plan_lets_all_of_it_go() {
    let mut given = Given::daily(10, last(1));
    let shown = given.plan();
    given.approved = BTreeSet::from([digest("another plan"), shown.digest()]);
    let approved = given.plan();
    assert_eq!(letters(&approved), "xxxxxxxxxk");
    assert_eq!(approved.digest(), shown.digest());
    assert_ne!(approved, shown);
    let marks = approved.marks(given.now);
    assert_eq!(marks.len(), 9);
    assert!(marks.iter().all(|mark| mark.plan == shown.digest()));

    // A day and a copy later it is another plan; what the approved one has marked goes all the same.
    given.points.push(copy(11, day(11)));
    given.now = day(11) + HOUR;
    given.marks = marks;
    let later = given.plan();
    assert_eq!(letters(&later), "xxxxxxxxxxk", "and one more, which has a fifth for itself");
    assert_ne!(later.digest(), shown.digest());
    assert_eq!((later.deleted().count(), later.marks(given.now).len()), (9, 1));
    given.approved.clear();
    assert_eq!(given.letters(), "xx44444444k");

    // An approval of what was shown is none of what has become of it since.
    let mut given = Given::daily(10, last(1));
    given.approved = BTreeSet::from([shown.digest()]);
    given.points[4].standing = proven(Assurance::A4);
    assert_eq!(given.letters(), "xx44k4444k");
}

#[test]
fn an_approval_outranks_no_other_rule() {
    let mut given = Given::daily(10, last(1));
    given.newest_run = NewestRun::CutOff;
    given.approved = BTreeSet::from([given.plan().digest()]);
    assert_eq!(given.letters(), "222222222k");
}

// ------------------------------------------------------------------------------------------------------------- R5

#[test]
fn nothing_goes_while_the_listing_is_doubted() {
    let mut given = Given::daily(3, last(2));
    given.doubtful = Some("the connection broke after 2 pages".to_owned());
    assert!(given.is_suspended_by(Rule::WholeListing));
    assert_eq!(given.letters(), "5kk");
    assert_eq!(given.plan().suspended[0].why, "the connection broke after 2 pages");
}

#[test]
fn nothing_goes_while_a_copy_is_not_listed_that_should_be_there() {
    for lacking in 1..=3 {
        let mut given = Given::daily(3, last(2));
        given.unlisted.insert(id(lacking));
        assert!(given.is_suspended_by(Rule::WholeListing), "{lacking}");
        assert!(given.plan().suspended[0].why.contains(&id(lacking).0));
    }
    let mut given = Given::daily(4, last(2));
    given.unlisted.insert(id(2));
    given.points[1].standing = gone();
    assert_eq!(given.letters(), "x-kk", "it is known to be gone");
    // What is set aside must be there too.
    given.unlisted.insert(id(1));
    given.aside.insert(id(1), Aside::Unsigned);
    assert!(given.is_suspended_by(Rule::WholeListing));
}

#[test]
fn a_copy_that_is_listed_twice_is_decided_once() {
    let mut given = Given::daily(3, last(2));
    let once = given.plan();
    given.points.push(given.points[1].clone());
    assert_eq!(given.plan(), once);
    let mut other = given.points[1].clone();
    other.standing = bad();
    given.points.push(other);
    assert!(given.is_suspended_by(Rule::WholeListing));
    let plan = given.plan();
    assert_eq!(plan.decisions.len(), 3);
    assert!(plan.suspended[0].why.contains(&id(2).0));
    given.points.reverse();
    assert_eq!(given.plan(), plan, "in whatever order");
}

// ------------------------------------------------------------------------------------------------------------- R6

#[test]
fn what_one_repository_has_lost_is_no_reason_in_another() {
    let elsewhere = RepositoryId("offsite".to_owned());
    let mut given = Given::daily(3, last(2));
    let alone = given.plan();
    for point in given.points.clone() {
        let mut there = point.clone();
        there.repository.id = elsewhere.clone();
        there.standing = gone();
        given.points.push(there);
    }
    assert_eq!(given.plan(), alone);
    // Seen from there: all is gone here, and nothing goes there.
    given.points.iter_mut().for_each(|point| {
        point.standing = if point.repository.id == elsewhere { PointStanding::Unproven } else { gone() };
    });
    assert_eq!(given.letters(), "---");
    given.repository = elsewhere.clone();
    assert_eq!(given.letters(), "xkk");
    assert_eq!((given.plan().repository, given.plan().service), (elsewhere.clone(), given.service.clone()));
    // And better copies here make none dispensable there.
    let mut given = Given::daily(3, RetentionSpec { within: Some(NANO), ..spec() });
    given.points.iter_mut().for_each(|point| point.standing = proven(Assurance::A6));
    assert_eq!(given.letters(), "x4k");
    given.points[0].repository.id = elsewhere.clone();
    given.repository = elsewhere;
    given.fresh_within = SignedDuration::MAX;
    assert_eq!(given.letters(), "k");
}

#[test]
fn copies_of_other_sources_and_services_are_not_looked_at() {
    let mut given = Given::daily(3, last(2));
    let alone = given.plan();
    let mut other = copy(4, day(4));
    other.source = SourceName::new("files").unwrap();
    given.points.push(other);
    let mut other = copy(5, day(5));
    other.service = ServiceName::new("till").unwrap();
    given.points.push(other);
    assert_eq!(given.plan(), alone);
}

// ------------------------------------------------------------------------------------------------------------- R7

#[test]
fn nothing_goes_while_the_clock_is_before_every_receipt() {
    let mut given = Given::daily(3, last(2));
    given.points.iter_mut().for_each(|point| {
        point.finished -= days(304);
        point.point = point.finished;
    });
    given.newest_receipt = None;
    given.now = EPOCH + days(3);
    assert_eq!(given.points[0].point, EPOCH + HOUR * 3);
    assert_eq!(given.letters(), "xkk");
    given.now = EPOCH - NANO;
    assert_eq!(given.plan().suspended[0].rule, Rule::BelievedClock);
    assert_eq!(given.letters(), "7kk");
    // Within the two minutes that a clock may step, too.
    let mut first = Given::of(vec![copy(1, EPOCH), copy(2, EPOCH)], last(1));
    first.newest_receipt = None;
    first.now = EPOCH;
    assert_eq!(first.letters(), "xk");
    first.now = EPOCH - NANO;
    assert!(first.is_suspended_by(Rule::BelievedClock));
    // A copy of the time before was dated by a clock that was behind.
    given.now = EPOCH + days(3);
    given.points[0].finished = EPOCH;
    assert_eq!(given.letters(), "xkk");
    given.points[0].finished = EPOCH - NANO;
    assert!(given.is_suspended_by(Rule::BelievedClock));
    given.doubted.insert(id(1));
    assert_eq!(given.decision(1), kept(&[Reason::Doubted]));
    assert_eq!(given.plan().suspended, []);
}

#[test]
fn nothing_goes_while_a_receipt_is_yet_to_come() {
    let mut given = Given::daily(3, last(2));
    given.newest_receipt = Some(given.now + CLOCK_STEP);
    assert_eq!(given.letters(), "xkk");
    given.newest_receipt = Some(given.now + CLOCK_STEP + NANO);
    assert!(given.is_suspended_by(Rule::BelievedClock));
    given.newest_receipt = None;
    assert_eq!(given.letters(), "xkk");
}

#[test]
fn nothing_goes_while_a_copy_is_yet_to_come() {
    let mut given = Given::daily(3, last(2));
    let ahead = given.now + CLOCK_STEP;
    given.points[2].point = ahead;
    assert_eq!(given.letters(), "xkk");
    given.points[2].point = ahead + NANO;
    assert!(given.is_suspended_by(Rule::BelievedClock), "by the source's clock");
    given.points[2].point = day(3);
    given.points[2].finished = ahead;
    assert_eq!(given.letters(), "xkk");
    given.points[2].finished = ahead + NANO;
    assert!(given.is_suspended_by(Rule::BelievedClock), "by the controller's clock");
    // One that has gone is no longer asked, nor is one that is set aside.
    given.points.push(RecoveryPoint { standing: gone(), ..given.points[2].clone() });
    given.points[2] = copy(3, day(3));
    given.points[3].copy = id(4);
    given.points[3].sequence = 0;
    assert_eq!(given.plan().suspended, []);
    given.points[3].standing = PointStanding::Unproven;
    assert!(given.is_suspended_by(Rule::BelievedClock));
    given.aside.insert(id(4), Aside::Unsigned);
    assert_eq!(given.plan().suspended, []);
    // One that was found may not be dated ahead either, and has no place in the order of dates.
    given.aside.clear();
    given.points[3].standing = proven(Assurance::A3);
    given.points[3].was_found = true;
    assert!(given.is_suspended_by(Rule::BelievedClock));
    given.points[3].finished = day(2);
    given.points[3].point = EPOCH - days(9);
    assert_eq!(given.plan().suspended, []);
    given.points[3].finished = EPOCH - days(9);
    assert_eq!(given.plan().suspended, []);
}

#[test]
fn nothing_goes_while_dates_and_order_contradict_each_other() {
    let mut given = Given::daily(4, last(3));
    given.points[1].finished = day(3) + CLOCK_STEP;
    assert_eq!(given.letters(), "xkkk");
    given.points[1].finished = day(3) + CLOCK_STEP + NANO;
    assert!(given.is_suspended_by(Rule::BelievedClock));
    assert_eq!(given.letters(), "7kkk");
    let why = &given.plan().suspended[0].why;
    assert!(why.contains(&id(2).0) && why.contains(&id(3).0), "{why}");
    // Somebody says which of them is wrong.
    given.doubted.insert(id(2));
    assert_eq!(given.plan().suspended, []);
    assert_eq!(given.decision(2), kept(&[Reason::Doubted]));
    assert_eq!(given.letters(), "kkkk", "and it takes no place");
    // Not only from one to the next.
    given.doubted.clear();
    given.points[0].finished = day(4) + CLOCK_STEP + NANO;
    given.points[1].finished = given.points[0].finished;
    given.points[2].finished = given.points[0].finished - CLOCK_STEP;
    given.now = day(5);
    assert!(given.is_suspended_by(Rule::BelievedClock));
    let why = &given.plan().suspended[0].why;
    assert!(why.contains(&id(1).0) && why.contains(&id(4).0), "{why}");
    given.points[3].finished += NANO;
    assert_eq!(given.plan().suspended, []);
}

#[test]
fn a_doubted_copy_neither_counts_nor_goes() {
    let mut given = Given::daily(4, RetentionSpec { within: Some(HOUR * 2), ..spec() });
    assert_eq!(given.letters(), "x44k");
    given.doubted.insert(id(2));
    assert_eq!(given.letters(), "xk4k");
    assert_eq!(given.decision(2), kept(&[Reason::Doubted]));
    given.doubted.insert(id(4));
    assert_eq!(
        given.decision(4),
        kept(&[Reason::Doubted]),
        "its age is not known, so it is not known to be young"
    );
    assert_eq!(given.decision(3), kept(&[Reason::LastGood]));
    assert!(given.is_suspended_by(Rule::FreshSource));
}

#[test]
fn nothing_goes_while_a_mark_is_dated_wrongly() {
    let mut given = Given::daily(4, last(2));
    given.mark(1, given.now + CLOCK_STEP);
    assert_eq!(steps(&given.plan())[0], Some(Step::Wait { since: given.now + CLOCK_STEP }));
    given.marks.clear();
    given.mark(1, given.now + CLOCK_STEP + NANO);
    assert!(given.is_suspended_by(Rule::BelievedClock));
    assert_eq!(given.letters(), "77kk");
    assert_eq!(steps(&given.plan())[0], Some(Step::Unmark));
    given.marks.clear();
    given.mark(1, EPOCH);
    assert_eq!(steps(&given.plan())[0], Some(Step::Delete { since: EPOCH }));
    given.marks.clear();
    given.mark(1, EPOCH - NANO);
    assert!(given.is_suspended_by(Rule::BelievedClock));
}

#[test]
fn a_date_of_the_source_is_believed_where_it_lies_shortly_before_the_end() {
    let of = |point: Timestamp| believed(&RecoveryPoint { point, ..copy(1, day(9)) });
    assert_eq!(of(day(9)), day(9));
    assert_eq!(of(day(9) - HOUR), day(9) - HOUR);
    assert_eq!(of(day(8)), day(8));
    assert_eq!(of(day(8) - NANO), day(9));
    assert_eq!(of(day(9) + NANO), day(9));
    assert_eq!(of(Timestamp::MIN), day(9));
    assert_eq!(of(Timestamp::MAX), day(9));
}

// ------------------------------------------------------------------------------------------------------------- R8

/// Two copies a day, from the last days of 2026 to those of January 2027.
fn around_the_year(spec: RetentionSpec) -> Given {
    let start = at("2026-12-20T06:00:00Z");
    Given::of((0..80).map(|n| copy(n + 1, start + HOUR * 12 * i32::try_from(n).unwrap())).collect(), spec)
}

fn firsts(plan: &Plan) -> Vec<(u64, String)> {
    let mut firsts = Vec::new();
    for one in &plan.decisions {
        if let Decision::Keep(reasons) = &one.decision {
            firsts.extend(reasons.iter().filter_map(|reason| match reason {
                Reason::First(bucket) => Some((one.sequence, bucket.to_string())),
                _ => None,
            }));
        }
    }
    firsts
}

fn named(expected: &[(u64, &str)]) -> Vec<(u64, String)> {
    expected.iter().map(|(sequence, bucket)| (*sequence, (*bucket).to_owned())).collect()
}

#[test]
fn the_first_copy_of_each_period_stands_for_it() {
    let given =
        around_the_year(RetentionSpec { weekly: Some(4), monthly: Some(5), yearly: Some(2), ..spec() });
    assert_eq!(
        firsts(&given.plan()),
        named(&[
            (1, "2026-12"),
            (1, "2026"),
            (25, "2027-01"),
            (25, "2027"),
            (31, "2027-W01"),
            (45, "2027-W02"),
            (59, "2027-W03"),
            (73, "2027-W04"),
        ])
    );
    let given = around_the_year(RetentionSpec { weekly: Some(5), daily: Some(2), ..spec() });
    assert_eq!(firsts(&given.plan())[0], (17, "2026-W53".to_owned()));
    assert_eq!(
        firsts(&given.plan())[5..],
        named(&[(77, "2027-01-27"), (79, "2027-01-28")]),
        "the morning's, not the evening's"
    );
}

#[test]
fn a_period_whose_first_copy_is_not_good_is_kept_by_the_next_good_one() {
    let monthly = RetentionSpec { monthly: Some(2), ..spec() };
    let january = |change: &dyn Fn(&mut Given)| {
        let mut given = around_the_year(monthly.clone());
        change(&mut given);
        firsts(&given.plan()).pop().unwrap()
    };
    assert_eq!(january(&|_| {}), (25, "2027-01".to_owned()));
    let changes: [Change<'_>; 7] = [
        &|given| given.points[24].standing = bad(),
        &|given| given.points[24].standing = gone(),
        &|given| given.points[24].outcome = Outcome::Incomplete,
        &|given| given.points[24].was_found = true,
        &|given| drop(given.aside.insert(id(25), Aside::Quarantined("looked at".to_owned()))),
        &|given| drop(given.aside.insert(id(25), Aside::Unsigned)),
        &|given| given.doubted.extend([id(25)]),
    ];
    for change in changes {
        assert_eq!(january(change), (26, "2027-01".to_owned()));
    }
}

#[test]
fn periods_are_counted_that_hold_a_good_copy() {
    // An outage of three weeks in the middle, and a bad day.
    let mut points: Vec<RecoveryPoint> =
        (1..=3).chain(25..=29).map(|n: i64| copy(n.unsigned_abs(), day(n))).collect();
    points[4].standing = bad();
    let given = Given::of(points, RetentionSpec { daily: Some(6), ..spec() });
    let sequences: Vec<u64> = firsts(&given.plan()).iter().map(|(sequence, _)| *sequence).collect();
    assert_eq!(sequences, [2, 3, 25, 27, 28, 29]);
}

#[test]
fn days_are_those_of_the_policys_zone() {
    let instants =
        ["2026-12-31T09:00:00Z", "2026-12-31T11:00:00Z", "2027-01-01T09:00:00Z", "2027-01-01T11:00:00Z"];
    let points: Vec<RecoveryPoint> = (1..).zip(instants).map(|(n, instant)| copy(n, at(instant))).collect();
    let of = |zone: &str| {
        let mut given = Given::of(points.clone(), spec());
        let yearly = RetentionSpec { daily: Some(9), yearly: Some(9), ..spec() };
        given.policy = RetentionPolicy::new(Some(yearly), zone).unwrap();
        firsts(&given.plan())
    };
    assert_eq!(of("UTC"), named(&[(1, "2026-12-31"), (1, "2026"), (3, "2027-01-01"), (3, "2027")]));
    // Fourteen hours ahead, and ten behind.
    assert_eq!(
        of("Pacific/Kiritimati"),
        named(&[(1, "2026-12-31"), (1, "2026"), (2, "2027-01-01"), (2, "2027"), (4, "2027-01-02")])
    );
    assert_eq!(
        of("Pacific/Honolulu"),
        named(&[(1, "2026-12-30"), (1, "2026"), (2, "2026-12-31"), (4, "2027-01-01"), (4, "2027")])
    );
}

#[test]
fn a_policys_zone_is_that_of_the_schedule() {
    let mut service = service(Objective::NotApplicable);
    let of = |service: &Service| RetentionPolicy::of(service).unwrap();
    assert_eq!(of(&service), RetentionPolicy::new(Some(last(3)), "UTC").unwrap());
    let zone = "Europe/Amsterdam".to_owned();
    service.schedule = Some(ScheduleSpec { cron: "0 3 * * *".to_owned(), zone });
    assert_eq!(of(&service), RetentionPolicy::new(Some(last(3)), "Europe/Amsterdam").unwrap());
    assert_ne!(of(&service), RetentionPolicy::new(Some(last(3)), "UTC").unwrap());
    service.retention = None;
    assert_eq!(of(&service), RetentionPolicy::new(None, "Europe/Amsterdam").unwrap());
    let wrong = RetentionPolicy::new(None, "Mars/Olympus").unwrap_err();
    assert_eq!(wrong.to_string(), "`Mars/Olympus` is not the IANA name of a time zone");
    let written = serde_json::to_value(of(&service)).unwrap();
    assert_eq!(written, serde_json::json!({ "spec": null, "zone": "Europe/Amsterdam" }));
}

// ------------------------------------------------------------------------------------------- what a policy wants

#[test]
fn nothing_expires_by_omission() {
    let within = |within| RetentionSpec { within: Some(within), ..spec() };
    let zero = RetentionSpec {
        last: Some(0),
        daily: Some(0),
        weekly: Some(0),
        monthly: Some(0),
        yearly: Some(0),
        within: Some(SignedDuration::ZERO),
        forever: false,
    };
    for nothing in [None, Some(spec()), Some(zero.clone()), Some(within(-HOUR))] {
        let mut given = Given::daily(3, spec());
        given.policy = RetentionPolicy::new(nothing, "UTC").unwrap();
        assert_eq!(given.letters(), "kkk");
        assert_eq!(given.decision(1), kept(&[Reason::NoPolicy]));
    }
    let mut given = Given::daily(3, RetentionSpec { forever: true, ..last(1) });
    given.points[1].standing = bad();
    assert_eq!(given.decision(1), kept(&[Reason::Forever]));
    assert_eq!(given.decision(2), kept(&[Reason::Forever]));
    // One of them is enough.
    let somethings = [
        RetentionSpec { last: Some(1), ..zero.clone() },
        RetentionSpec { daily: Some(1), ..zero.clone() },
        RetentionSpec { weekly: Some(1), ..zero.clone() },
        RetentionSpec { monthly: Some(1), ..zero.clone() },
        RetentionSpec { yearly: Some(1), ..zero.clone() },
        RetentionSpec { within: Some(NANO), ..zero },
        within(NANO),
    ];
    for (n, something) in somethings.into_iter().enumerate() {
        let given = Given::daily(3, something.clone());
        // The first copy of a week, a month or a year: 1 November 2026 is a Sunday.
        let expected = match n {
            0 | 1 | 5 | 6 => "x4k",
            2 => "xkk",
            _ => "kxk",
        };
        assert_eq!(given.letters(), expected, "{something:?}");
    }
}

#[test]
fn the_newest_good_copies_are_kept_whatever_their_age() {
    let mut given = Given::daily(6, last(3));
    given.points[4].standing = bad();
    given.points[3].outcome = Outcome::Incomplete;
    given.now = day(900);
    given.newest_receipt = None;
    let reasons = [2, 3, 6].map(|sequence| given.decision(sequence));
    assert_eq!(
        reasons,
        [kept(&[Reason::Last(3)]), kept(&[Reason::Last(2)]), kept(&[Reason::Last(1), Reason::LastGood])]
    );
    assert!(matches!(given.decision(1), Decision::Refused { rule: Rule::FreshSource, .. }));
}

#[test]
fn whatever_is_younger_is_kept() {
    let mut given = Given::daily(3, RetentionSpec { within: Some(days(2)), ..spec() });
    given.newest_receipt = None;
    given.now = day(3);
    assert_eq!(given.letters(), "xkk");
    given.now = day(3) - NANO;
    assert_eq!(given.letters(), "kkk");
    given.points[0].standing = bad();
    given.points[1].outcome = Outcome::Incomplete;
    assert_eq!(given.decision(1), kept(&[Reason::Within]), "whatever is known of it");
    assert_eq!(given.decision(2), kept(&[Reason::Within, Reason::YoungAndIncomplete]));
}

#[test]
fn what_is_kept_for_several_reasons_has_them_all() {
    let mut given = Given::daily(
        1,
        RetentionSpec {
            last: Some(1),
            daily: Some(1),
            weekly: Some(1),
            monthly: Some(1),
            yearly: Some(1),
            within: Some(days(1)),
            forever: false,
        },
    );
    given.points[0].standing = proven(Assurance::A4);
    given.holds.push(Hold { thing: HeldThing::Copy(id(1)), reason: "a dispute".to_owned(), until: None });
    let Decision::Keep(reasons) = given.decision(1) else { panic!() };
    let words: Vec<String> = reasons.iter().map(ToString::to_string).collect();
    assert_eq!(
        words,
        [
            "young",
            "the newest",
            "first good one of 2026-11-01",
            "first good one of 2026-W44",
            "first good one of 2026-11",
            "first good one of 2026",
            "last good copy",
            "newest proven copy",
            "held: a dispute",
        ]
    );
}

// ------------------------------------------------------------------------------------------------------------- R9

#[test]
fn what_is_held_stays_until_the_hold_ends() {
    let mut given = Given::daily(3, last(2));
    let hold = |thing, until| Hold { thing, reason: "a dispute".to_owned(), until };
    let held = kept(&[Reason::Held("a dispute".to_owned())]);
    given.holds = vec![hold(HeldThing::Copy(id(1)), None)];
    assert_eq!(given.decision(1), held);
    given.holds = vec![hold(HeldThing::Service(given.service.clone()), None)];
    assert_eq!(given.decision(1), held);
    assert_eq!(given.letters(), "kkk");
    given.holds = vec![hold(HeldThing::Copy(id(1)), Some(given.now + NANO))];
    assert_eq!(given.decision(1), held);
    given.holds = vec![hold(HeldThing::Copy(id(1)), Some(given.now))];
    assert_eq!(given.decision(1), expires(3, None));
    given.holds = vec![
        hold(HeldThing::Copy(id(2)), None),
        hold(HeldThing::Copy(id(44)), None),
        hold(HeldThing::Service(ServiceName::new("till").unwrap()), None),
    ];
    assert_eq!(given.decision(1), expires(3, None));
    // Every hold is told.
    given.holds = vec![
        hold(HeldThing::Service(given.service.clone()), None),
        Hold { reason: "an audit".to_owned(), ..hold(HeldThing::Copy(id(1)), None) },
        Hold { reason: "a second one".to_owned(), ..hold(HeldThing::Copy(id(1)), None) },
    ];
    let reasons = ["an audit", "a second one", "a dispute"].map(|why| Reason::Held(why.to_owned()));
    assert_eq!(given.decision(1), kept(&reasons));
    given.points[0].standing = gone();
    assert_eq!(given.decision(1), Decision::Absent);
}

// ------------------------------------------------------------------------------------------------------------ R10

#[test]
fn newer_is_what_a_later_receipt_tells_of() {
    // Written in another order than made, and dated in yet another.
    let mut given = Given::daily(4, last(1));
    given.points.reverse();
    given.points[0].point = day(4) - days(900);
    given.points[3].point = day(1) - days(900);
    let order = |given: &Given| given.plan().decisions.iter().map(|one| one.sequence).collect::<Vec<_>>();
    assert_eq!(order(&given), [1, 2, 3, 4]);
    assert_eq!(given.letters(), "x44k");
    let mut without = given.clone();
    without.points.iter_mut().skip(1).for_each(|point| point.standing = gone());
    assert_eq!((order(&without), without.letters().as_str()), (vec![1, 2, 3, 4], "---k"));
    assert_eq!(given.plan().decisions[0].at, day(1));
}

#[test]
fn copies_that_were_found_take_no_place_and_no_period_from_those_with_a_receipt() {
    let both = RetentionSpec { last: Some(2), daily: Some(3), ..spec() };
    let mut given = Given::daily(4, both);
    let alone = given.plan();
    // One is put into every day, earlier than the one that is there, and many into today; all were restored.
    for n in 1..=4 {
        given.points.push(found(100 + n, day(n.cast_signed()) - HOUR));
    }
    given.points.extend((1..9).map(|n| found(200 + n, day(4) + HOUR)));
    let plan = given.plan();
    for one in &alone.decisions {
        match &one.decision {
            Decision::Keep(reasons) => {
                let Decision::Keep(now) = decision(&plan, one.sequence) else { panic!("{one:?}") };
                assert!(reasons.iter().all(|reason| now.contains(reason)), "{reasons:?}, then {now:?}");
            }
            other => assert_eq!(decision(&plan, one.sequence), *other),
        }
    }
    // They make none dispensable.
    let mut given = Given::daily(1, RetentionSpec { within: Some(NANO), ..spec() });
    given.points.push(found(50, day(1) + HOUR));
    given.points.push(found(51, day(1) + HOUR));
    given.now += HOUR;
    assert_eq!(given.decision(1), kept(&[Reason::LastGood]));
    assert_eq!(given.decision(50), kept(&[Reason::LastGood, Reason::NewestProven]));
    given.points[0].standing = proven(Assurance::A3);
    assert_eq!(given.decision(1), kept(&[Reason::LastGood, Reason::NewestProven]));
}

fn found(sequence: u64, at: Timestamp) -> RecoveryPoint {
    RecoveryPoint { was_found: true, standing: proven(Assurance::A4), ..copy(sequence, at) }
}

#[test]
fn a_copy_that_was_found_and_restored_may_stand_for_an_empty_period_and_goes_in_its_turn() {
    let mut points: Vec<RecoveryPoint> = [1, 3, 4].map(|n: i64| copy(n.unsigned_abs(), day(n))).to_vec();
    points.push(found(9, day(2)));
    points.push(found(8, day(2) + HOUR));
    let mut given = Given::of(points, RetentionSpec { daily: Some(3), ..spec() });
    given.points[2].standing = proven(Assurance::A4);
    assert_eq!(firsts(&given.plan()).len(), 4, "three with receipts, and one beside them");
    assert_eq!(given.decision(9), kept(&[Reason::First(Rung::Daily.bucket(date(2026, 11, 2)))]));
    assert_eq!(given.decision(8), expires(4, Some(Assurance::A4)));
    let mut given = Given::of(given.points, RetentionSpec { daily: Some(2), ..spec() });
    assert_eq!(given.decision(9), refused(Rule::NotMuchAtOnce, Some(evidence(4, Some(Assurance::A4)))));
    assert_eq!(given.decision(1), expires(4, Some(Assurance::A4)));
    given.policy = RetentionPolicy::new(Some(last(2)), "UTC").unwrap();
    assert_eq!(given.letters(), "x44kk");
    given.policy = RetentionPolicy::new(Some(last(3)), "UTC").unwrap();
    assert_eq!(given.letters(), "kkkkk");
    assert_eq!([1, 9, 8].map(|sequence| given.decision(sequence)), [3; 3].map(|n| kept(&[Reason::Last(n)])));
}

#[test]
fn a_date_that_is_not_believed_moves_no_other_copy() {
    // The first is dated by a clock that ran ahead; the last was found, restored, and is younger than all with a receipt.
    let mut given = Given::daily(3, RetentionSpec { within: Some(NANO), ..spec() });
    given.points[1].standing = proven(Assurance::A4);
    given.points.push(found(9, day(3) + HOUR));
    given.now = day(4);
    assert_eq!(given.decision(9), kept(&[Reason::LastGood, Reason::NewestProven]));
    given.points[0].finished = day(900);
    let changes: [Change<'_>; 3] = [
        &|given| given.doubted.extend([id(1)]),
        &|given| drop(given.aside.insert(id(1), Aside::Unsigned)),
        &|given| given.points[0].standing = gone(),
    ];
    for change in changes {
        let mut given = given.clone();
        change(&mut given);
        assert_eq!(given.decision(9), kept(&[Reason::LastGood, Reason::NewestProven]));
        let order: Vec<u64> = given.plan().decisions.iter().map(|one| one.sequence).collect();
        assert_eq!(order, [1, 2, 3, 9]);
        // The same, where it is the newest.
        given.points[0].sequence = 4;
        let order: Vec<u64> = given.plan().decisions.iter().map(|one| one.sequence).collect();
        assert_eq!(order, [2, 3, 9, 4]);
        given.points[0].sequence = 3;
        let order: Vec<CopyId> = given.plan().decisions.into_iter().map(|one| one.copy).collect();
        assert_eq!(order, [2, 3, 9, 1].map(id));
        assert!(given.is_suspended_by(Rule::FreshSource));
    }
}

#[test]
fn a_flood_of_wrongly_dated_copies_expires_no_genuine_one() {
    let spec = RetentionSpec { daily: Some(7), weekly: Some(4), monthly: Some(6), yearly: Some(2), ..spec() };
    let genuine = Given::daily(28, spec);
    let before = genuine.plan();
    let is_kept = |plan: &Plan, n| matches!(decision(plan, n), Decision::Keep(_));
    let survivors: Vec<u64> = (1..=28).filter(|n| is_kept(&before, *n)).collect();
    assert!(survivors.len() >= 10, "{survivors:?}");

    // By somebody who may write to the repository: a copy for every day of three years, past and to come.
    let mut given = genuine.clone();
    given.points.extend((0..1_000).map(|n| RecoveryPoint {
        standing: PointStanding::Unproven,
        point: day(-500 + i64::try_from(n).unwrap()),
        finished: day(-500 + i64::try_from(n).unwrap()).min(given.now),
        ..found(1_000 + n, day(1))
    }));
    let plan = given.plan();
    assert!(survivors.iter().all(|n| is_kept(&plan, *n)));
    assert!((1_000..2_000).all(|n| decision(&plan, n) == kept(&[Reason::FoundUnproven])));

    // By somebody who rules the source and its clock: a copy every minute, each of another day, of the past.
    let mut given = genuine;
    let burst = given.now;
    given.points.extend((0..500).map(|n| {
        let made = burst + SignedDuration::from_mins(i64::try_from(n).unwrap());
        RecoveryPoint { point: made - days(i64::try_from(n).unwrap()), ..copy(1_000 + n, made) }
    }));
    given.now = burst + HOUR * 9;
    given.newest_receipt = None;
    let plan = given.plan();
    assert!(survivors.iter().all(|n| is_kept(&plan, *n)), "a day of copies is one day, whatever they claim");
    // Of days to come: nothing goes at all.
    for point in given.points.iter_mut().skip(28) {
        point.point = point.finished + days(30);
    }
    assert!(given.is_suspended_by(Rule::BelievedClock));
    assert!(survivors.iter().all(|n| is_kept(&given.plan(), *n)));
}

// ------------------------------------------------------------------------------------------------------------ R11

#[test]
fn what_an_earlier_policy_kept_stays_for_three_days() {
    let mut given = Given::daily(5, last(2));
    let earlier = |spec, until| EarlierPolicy { policy: RetentionPolicy::new(spec, "UTC").unwrap(), until };
    assert_eq!(given.letters(), "x44kk");
    given.earlier = vec![earlier(Some(last(4)), given.now - COOLING_OFF + NANO)];
    assert_eq!(given.letters(), "x1111kk");
    assert_eq!(given.decision(2), refused(Rule::CoolingOff, Some(evidence(5, None))));
    given.earlier = vec![earlier(Some(last(4)), given.now - COOLING_OFF)];
    assert_eq!(given.letters(), "x44kk");
    assert_eq!(COOLING_OFF, days(3));
    // Its own reasons are heeded, not its size: a policy may be weaker in one respect only.
    given.policy = RetentionPolicy::new(Some(RetentionSpec { daily: Some(4), ..spec() }), "UTC").unwrap();
    given.earlier = vec![earlier(Some(RetentionSpec { monthly: Some(1), ..spec() }), given.now)];
    assert_eq!(given.letters(), "11kkkk");
    // One that kept everything, one of an unknown time, one from a clock that ran ahead, several at once.
    given.policy = RetentionPolicy::new(Some(last(1)), "UTC").unwrap();
    given.earlier = vec![earlier(None, given.now)];
    assert_eq!(given.letters(), "11111111k");
    given.earlier = vec![earlier(Some(last(4)), EPOCH)];
    assert_eq!(given.letters(), "x444k");
    given.earlier = vec![earlier(Some(last(4)), EPOCH - NANO)];
    assert_eq!(given.letters(), "x111111k");
    given.earlier = vec![earlier(Some(last(3)), day(900)), earlier(Some(last(4)), given.now)];
    assert_eq!(given.letters(), "x111111k");
}

#[test]
fn another_zone_is_another_policy() {
    // At 23:30 in Amsterdam and a day later at 00:30: one day in UTC, two in Amsterdam.
    let instants = ["2026-11-01T22:30:00Z", "2026-11-01T23:30:00Z", "2026-11-03T12:00:00Z"];
    let points = (1..).zip(instants).map(|(n, instant)| copy(n, at(instant))).collect();
    let daily = || Some(RetentionSpec { daily: Some(9), ..spec() });
    let mut given = Given::of(points, spec());
    given.policy = RetentionPolicy::new(daily(), "UTC").unwrap();
    assert_eq!(given.letters(), "kxk");
    let policy = RetentionPolicy::new(daily(), "Europe/Amsterdam").unwrap();
    given.earlier = vec![EarlierPolicy { policy, until: given.now - HOUR }];
    assert_eq!(given.letters(), "k11k");
}

#[test]
fn what_only_an_earlier_policy_kept_is_subject_to_the_other_rules_first() {
    let mut given = Given::daily(3, last(1));
    given.earlier =
        vec![EarlierPolicy { policy: RetentionPolicy::new(None, "UTC").unwrap(), until: given.now }];
    given.newest_run = NewestRun::CutOff;
    assert_eq!(given.letters(), "22k");
}

// ------------------------------------------------------------------------------------------------------------ R12

#[test]
fn what_is_set_aside_neither_counts_nor_goes() {
    let changes: [(Change<'_>, Reason); 4] = [
        (
            &|given| drop(given.aside.insert(id(2), Aside::Quarantined("odd entropy".to_owned()))),
            Reason::Quarantined("odd entropy".to_owned()),
        ),
        (&|given| drop(given.aside.insert(id(2), Aside::Unsigned)), Reason::Unsigned),
        (&|given| given.points[1].was_found = true, Reason::FoundUnproven),
        (
            &|given| {
                given.points[1].was_found = true;
                given.points[1].standing = proven(Assurance::A2);
            },
            Reason::FoundUnproven,
        ),
    ];
    for (change, reason) in changes {
        let mut given = Given::daily(4, last(3));
        assert_eq!(given.letters(), "xkkk");
        change(&mut given);
        assert_eq!(given.letters(), "kkkk", "it takes no place: {reason}");
        assert_eq!(given.decision(2), kept(std::slice::from_ref(&reason)));
        // However old, and known to be bad or incomplete.
        given.policy = RetentionPolicy::new(Some(last(1)), "UTC").unwrap();
        given.points[1].outcome = Outcome::Incomplete;
        given.points[2] = copy(3, day(40));
        given.points[3] = copy(4, day(41));
        given.now = day(41) + HOUR;
        assert_eq!(given.decision(2), kept(std::slice::from_ref(&reason)));
        given.points[1].standing = bad();
        assert_eq!(given.decision(2), kept(&[reason]));
    }
    // It makes none dispensable.
    let mut given = Given::daily(2, RetentionSpec { within: Some(NANO), ..spec() });
    given.aside.insert(id(2), Aside::Unsigned);
    assert_eq!(given.decision(1), kept(&[Reason::LastGood]));
    // And is kept because it is young too, where the policy says so of everything.
    given.policy =
        RetentionPolicy::new(Some(RetentionSpec { within: Some(days(9)), ..spec() }), "UTC").unwrap();
    assert_eq!(given.decision(2), kept(&[Reason::Within, Reason::Unsigned]));
    given.doubted.insert(id(2));
    assert_eq!(given.decision(2), kept(&[Reason::Unsigned, Reason::Doubted]));
}

// -------------------------------------------------------------------------------------------------- plans and words

#[test]
fn a_plan_lists_what_is_kept_longer_than_was_asked_for() {
    let mut given = Given::daily(9, last(3));
    given.points[0].standing = proven(Assurance::A5);
    given.points[1].standing = gone();
    given.points[2].standing = bad();
    given.holds.push(Hold { thing: HeldThing::Copy(id(4)), reason: "a dispute".to_owned(), until: None });
    assert_eq!(given.letters(), "k-1kx4kkk");
    let longer: Vec<u64> = given.plan().kept_longer().map(|one| one.sequence).collect();
    assert_eq!(longer, [1, 3, 4, 5, 6]);
    let waiting: Vec<u64> = given.plan().awaiting_approval().map(|one| one.sequence).collect();
    assert_eq!(waiting, [6]);
}

#[test]
fn a_digest_names_decisions_whenever_they_are_made() {
    let mut given = Given::daily(3, last(2));
    let plan = given.plan();
    given.now += HOUR;
    assert_eq!(given.plan().digest(), plan.digest());
    assert!(plan.digest().to_string().starts_with("sha256:"));
    assert_eq!(plan.digest().to_string().len(), 71);
    let mut others = vec![plan.digest()];
    let mut other = |change: &dyn Fn(&mut Given)| {
        let mut given = given.clone();
        change(&mut given);
        let digest = given.plan().digest();
        assert!(!others.contains(&digest));
        others.push(digest);
    };
    other(&|given| given.mark(1, day(2)));
    other(&|given| given.points[0].standing = proven(Assurance::A2));
    other(&|given| given.newest_run = NewestRun::Unknown);
    other(&|given| drop(given.points.pop()));
    other(&|given| given.points[0].stored_bytes = u64::MAX);
    other(&|given| {
        given.holds.push(Hold { thing: HeldThing::Copy(id(1)), reason: String::new(), until: None });
    });
    other(&|given| given.repository = RepositoryId("another".to_owned()));
}

#[test]
fn a_plan_is_written_as_it_is_documented() {
    let mut given = Given::daily(3, last(2));
    given.points[1].standing = bad();
    given.points[0].outcome = Outcome::Incomplete;
    given.now = day(3) + MARKED_FOR;
    given.mark(1, day(3));
    given.mark(2, day(3));
    let written = serde_json::to_value(given.plan()).unwrap();
    let newer = serde_json::json!({ "copy": id(3).0, "level": null, "sequence": 3 });
    assert_eq!(
        written["decisions"][1]["decision"],
        serde_json::json!({ "refused": { "rule": "R1", "newer": newer } })
    );
    assert_eq!(written["decisions"][0]["decision"], serde_json::json!({ "keep": ["young-and-incomplete"] }));
    assert_eq!(written["decisions"][0]["step"], "unmark");
    assert_eq!(
        written["decisions"][2]["decision"],
        serde_json::json!({ "keep": [{ "last": 1 }, "last-good"] })
    );
    assert_eq!(written["decisions"][2]["step"], serde_json::Value::Null);
    assert_eq!(written["suspended"], serde_json::json!([]));
    assert!(written.get("approved").is_none());
    given.points[0].outcome = Outcome::Complete;
    given.policy = RetentionPolicy::new(Some(RetentionSpec { daily: Some(1), ..spec() }), "UTC").unwrap();
    let written = serde_json::to_value(given.plan()).unwrap();
    assert_eq!(written["decisions"][0]["decision"], serde_json::json!({ "expire": newer }));
    assert_eq!(
        written["decisions"][0]["step"],
        serde_json::json!({ "delete": { "since": "2026-11-03T03:00:00Z" } })
    );
    assert_eq!(
        written["decisions"][2]["decision"],
        serde_json::json!({ "keep": [{ "first": "2026-11-03" }, "last-good"] })
    );
    let mark = given.marks[0].clone();
    assert_eq!(serde_json::from_value::<Mark>(serde_json::to_value(&mark).unwrap()).unwrap(), mark);
}

#[test]
fn every_rule_has_its_number_and_its_words() {
    let numbers: Vec<&str> = Rule::ALL.iter().map(|rule| rule.as_str()).collect();
    assert_eq!(numbers, ["R1", "R2", "R3", "R4", "R5", "R6", "R7", "R8", "R9", "R10", "R11", "R12"]);
    for rule in Rule::ALL {
        assert_eq!(serde_json::to_value(rule).unwrap(), rule.as_str());
        assert!(rule.words().len() > 20);
    }
    let words: BTreeSet<&str> = Rule::ALL.iter().map(|rule| rule.words()).collect();
    assert_eq!(words.len(), 12);
    assert!(Rule::ALL.is_sorted());
}

#[test]
fn every_decision_has_its_words() {
    let newer = Evidence { copy: CopyId("abc".to_owned()), level: Some(Assurance::A4), sequence: 7 };
    let decisions = [
        kept(&[Reason::Last(1)]),
        kept(&[Reason::Last(2), Reason::Forever, Reason::NoPolicy]),
        kept(&[Reason::NewestOfSource, Reason::YoungAndIncomplete]),
        kept(&[
            Reason::Quarantined("odd".to_owned()),
            Reason::Unsigned,
            Reason::FoundUnproven,
            Reason::Doubted,
        ]),
        Decision::Expire(newer.clone()),
        Decision::Expire(Evidence { level: None, ..newer }),
        refused(Rule::Held, None),
        Decision::Absent,
    ];
    assert_eq!(
        decisions.map(|decision| decision.to_string()),
        [
            "kept: the newest",
            "kept: number 2 of the newest; kept for ever; no policy says what expires",
            "kept: incomplete, and the newest of its source; incomplete, and young",
            "kept: in quarantine: odd; not signed by a trusted key; found, and never shown to restore; of an unknown age",
            "expires: copy abc of receipt 7, A4 Equal, is newer",
            "expires: copy abc of receipt 7, not yet proven, is newer",
            "stays by R9: a copy that is held stays",
            "gone",
        ]
    );
}

// ------------------------------------------------------------------------------------------------------- calendars

fn survivors(spec: RetentionSpec, zone: &str, from: &str, to: &str) -> Vec<String> {
    let policy = RetentionPolicy::new(Some(spec), zone).unwrap();
    let schedule = ScheduleSpec { cron: "0 3 * * *".to_owned(), zone: zone.to_owned() };
    let survivors = simulate(&policy, &schedule, at(from), at(to)).unwrap();
    let zone = TimeZoneDatabase::bundled().get(zone).unwrap();
    survivors.iter().map(|one| zone.to_datetime(one.at).date().to_string()).collect()
}

#[test]
fn a_calendar_shows_what_would_be_left() {
    let gfs = RetentionSpec { daily: Some(3), weekly: Some(3), monthly: Some(3), yearly: Some(3), ..spec() };
    assert_eq!(
        survivors(gfs, "Europe/Amsterdam", "2026-01-01T00:00:00Z", "2028-03-02T12:00:00Z"),
        [
            "2026-01-01",
            "2027-01-01",
            "2028-01-01",
            "2028-02-01",
            "2028-02-14",
            "2028-02-21",
            "2028-02-28",
            "2028-02-29",
            "2028-03-01",
            "2028-03-02"
        ]
    );
    let weekly = RetentionSpec { weekly: Some(3), ..spec() };
    assert_eq!(
        survivors(weekly, "UTC", "2026-12-01T00:00:00Z", "2027-01-05T12:00:00Z"),
        ["2026-12-21", "2026-12-28", "2027-01-04", "2027-01-05"],
        "week 53 has one, and the newest stays"
    );
    let reasons = |spec: RetentionSpec| {
        let policy = RetentionPolicy::new(Some(spec), "UTC").unwrap();
        let schedule = ScheduleSpec { cron: "0 3 * * *".to_owned(), zone: "UTC".to_owned() };
        simulate(&policy, &schedule, day(1) - NANO, day(3)).unwrap()
    };
    assert_eq!(
        reasons(last(1)),
        [Survivor { at: day(3), reasons: vec![Reason::Last(1), Reason::LastGood] }],
        "from just before the first to just after the last"
    );
    assert_eq!(reasons(last(9)).len(), 3);
}

#[test]
fn a_calendar_has_its_limits() {
    let policy = RetentionPolicy::new(Some(last(1)), "UTC").unwrap();
    let daily = ScheduleSpec { cron: "0 3 * * *".to_owned(), zone: "UTC".to_owned() };
    let early = EPOCH - NANO;
    assert_eq!(simulate(&policy, &daily, early, day(1)), Err(SimulateError::TooEarly(early)));
    assert_eq!(simulate(&policy, &daily, EPOCH, EPOCH), Ok(Vec::new()));
    assert_eq!(simulate(&policy, &daily, EPOCH, EPOCH + days(2)).map(|left| left.len()), Ok(1));
}
