//! Which copies expire, and why each other one stays. The worst that can happen here is that the last good copy goes.
//!
//! A plan is made for the copies of one source in one repository, from facts that are given: no clock, no disk, no network.
//! It decides about every copy once. A copy *expires* only where no policy wants it, no rule keeps it, and a newer one is
//! named that is good, at least as proven, and stays. The rules, which outrank every policy:
//!
//! - R1 ([`Rule::LastGood`]): the newest good copy and the newest proven one stay. A copy goes only while a newer one is
//!   good and at least as proven; one that is known to be bad goes only while a newer one is good and has been restored,
//!   and is never that newer one.
//! - R2: nothing goes unless the newest run was good, and the newest copy is fresh, whole and not known to be bad.
//! - R3: a copy is marked, and deleted a day later by a plan that still lets it go. Every look that does not
//!   takes the mark away.
//! - R4: at most a fifth of the copies, and of their bytes, is on the way out at once, marked ones included, however often
//!   plans are made; one copy always may be. The rest waits for an approval of exactly this plan, or for its turn.
//! - R5: nothing goes while the listing of the repository is doubted, or lacks a copy that should be there.
//! - R6: copies in other repositories are not looked at. What one place has lost is no reason to delete in another. That a capture is
//!   wrong is said of every copy of it, wherever one was restored: the caller gives those as bad.
//! - R7: nothing goes while a copy, a mark or a receipt is dated later than now, or copies are dated against their order.
//!   Copies whose dates are known to be wrong are named by the caller: they stay, and do not count.
//! - R8: of a day, an ISO week, a month, a year in the policy's zone the first good copy stands for it, and the next
//!   good one where that is not good any more. The newest periods *that hold a good copy* are counted, so that an outage, or
//!   a clock that ran ahead, pushes nothing out.
//! - R9: what is held stays.
//! - R10: newer is what a later receipt tells of. A copy is as old as the source says only where that is believable;
//!   one that was found takes neither a place nor a period from one that has a receipt, and makes none dispensable.
//! - R11: for 72 hours after a policy was exchanged, what it kept stays too.
//! - R12: what is quarantined, unsigned, or found and never restored neither counts nor goes.
//!
//! Laws, each asked in `tests/retention.rs`: the last good copy and the best proven one outlive every plan; what a plan
//! names as the newer copy stays; a looser policy expires nothing that a tighter one keeps; the order in which copies are
//! listed changes nothing.

mod act;
mod bucket;
mod ground;
mod plan;
mod policy;
mod simulate;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use act::{Approved, Held, Leaving, PolicyInForce, Pruned, Refused, Released, Retain, Staying};
pub use bucket::{Bucket, Rung};
pub use ground::{Asked, Ground};
pub use plan::{Decided, Decision, Evidence, Mark, Plan, PlanDigest, Reason, Rule, Step, Suspension};
pub use policy::{EarlierPolicy, RetentionPolicy, UnknownZone};
pub use simulate::{SimulateError, Survivor, simulate};

use crate::assess::{EPOCH, SourceHistory};
use crate::id::{CopyId, RepositoryId, RunId, ServiceName, SourceName};
use crate::objective::Objective;
use crate::point::{PointStanding, RecoveryPoint, in_order};
use crate::receipt::{ActKind, CLOCK_STEP, Outcome};
use crate::service::Service;
use crate::verdict::Assurance;
use policy::Seen;

/// How long a copy is marked before it is deleted: a working day in which somebody can say no.
pub const MARKED_FOR: SignedDuration = SignedDuration::from_hours(24);

/// How long an exchanged policy is still heeded: what is locked against deletion elsewhere has as long a second thought.
pub const COOLING_OFF: SignedDuration = SignedDuration::from_hours(72);

/// How long an incomplete copy stays although a newer complete one is there: what is in it may be in no other copy.
pub const INCOMPLETE_KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);

/// At most one in so many copies, and bytes, is on the way out at once.
const ONE_IN: usize = 5;

/// How far before its end a capture may have begun: longer than nearly every one. What lies further back is a wrong clock.
const CAPTURE_MAX: SignedDuration = SignedDuration::from_hours(24);

/// How the newest run ended that was to make a copy of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NewestRun {
    /// No run is known.
    Unknown,
    /// It ended.
    Ended(Outcome),
    /// It left no receipt of its own.
    CutOff,
}

impl NewestRun {
    /// The newest one that a history knows.
    #[must_use]
    pub fn of(history: &SourceHistory) -> Self {
        match (history.abandoned.contains_key(&ActKind::Backup), &history.last_backup) {
            (true, _) => Self::CutOff,
            (false, Some(backup)) => Self::Ended(backup.outcome),
            (false, None) => Self::Unknown,
        }
    }
}

/// What a repository was seen to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listing<'a> {
    /// All of it: the ids of the copies that were seen.
    Whole(&'a BTreeSet<CopyId>),
    /// Something, and why it may not be all.
    Doubtful(String),
}

/// What is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeldThing {
    /// One copy.
    Copy(CopyId),
    /// What one run has captured: every copy of it, in whatever repository, those included that are yet to be made.
    Capture(RunId),
    /// Every copy of a service.
    Service(ServiceName),
}

impl fmt::Display for HeldThing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copy(copy) => write!(f, "copy {copy}"),
            Self::Capture(run) => write!(f, "every copy of {run}"),
            Self::Service(service) => write!(f, "every copy of service {service}"),
        }
    }
}

/// That something stays until somebody lets it go: a legal dispute, an investigation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// What.
    pub thing: HeldThing,
    /// Why, for people.
    pub reason: String,
    /// The instant at which it ends by itself; `None` where a person has to end it.
    pub until: Option<Timestamp>,
}

/// Why a copy neither counts nor goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aside {
    /// It is in quarantine, and why.
    Quarantined(String),
    /// No receipt that is signed by a trusted key vouches for it.
    Unsigned,
}

/// All that a plan is made from: copies, what is wanted, and what is known and doubted at one instant.
#[derive(Debug, Clone)]
pub struct Case<'a> {
    /// Service.
    pub service: &'a ServiceName,
    /// Source.
    pub source: &'a SourceName,
    /// Repository.
    pub repository: &'a RepositoryId,
    /// Copies, in any order. Those of another source or in another repository are not looked at. Those that have gone may be
    /// left out, but for the newest: that it has gone is a reason to let nothing else go.
    pub points: &'a [RecoveryPoint],
    /// The policy in force.
    pub policy: &'a RetentionPolicy,
    /// Policies before it, as far as they were exchanged less than [`COOLING_OFF`] ago; older ones change nothing.
    pub earlier: &'a [EarlierPolicy],
    /// Largest age of the newest copy at which anything may go; see [`fresh_within`].
    pub fresh_within: SignedDuration,
    /// How the newest run of the source ended.
    pub newest_run: NewestRun,
    /// The latest date of a receipt that is known; `None` where there is none.
    pub newest_receipt: Option<Timestamp>,
    /// What the repository was seen to hold.
    pub listing: Listing<'a>,
    /// What is held.
    pub holds: &'a [Hold],
    /// Copies that are set aside.
    pub aside: &'a BTreeMap<CopyId, Aside>,
    /// Copies that were dated by a wrong clock, so that their age is not known.
    pub doubted: &'a BTreeSet<CopyId>,
    /// Marks that were made before.
    pub marks: &'a [Mark],
    /// Plans that a person has approved.
    pub approved: &'a BTreeSet<PlanDigest>,
    /// The present, by the controller's clock.
    pub now: Timestamp,
}

/// The largest age of the newest copy at which anything of a service may go: twice its RPO, and where no RPO applies the age
/// at which a copy counts as stale.
#[must_use]
pub fn fresh_within(service: &Service) -> SignedDuration {
    match service.objective.rpo {
        Objective::Within(rpo) => rpo.saturating_mul(2),
        Objective::NotApplicable => service.stale_after,
    }
}

/// Decides about every copy of one source in one repository, once.
///
/// The same facts yield the same plan, in whatever order copies are listed. Nothing is carried out: the caller marks,
/// unmarks and deletes by each copy's [`Step`], after it has planned again and found the same digest.
#[must_use]
pub fn plan(case: &Case<'_>) -> Plan {
    let (copies, listed_twice) = copies(case);
    let marks = marks(case);
    let mut suspended = Vec::new();
    let suspensions = [
        (Rule::WholeListing, listed_twice.or_else(|| doubt_of_listing(case, &copies))),
        (Rule::BelievedClock, doubt_of_clock(case, &copies, &marks)),
        (Rule::FreshSource, staleness(case, &copies)),
    ];
    for (rule, why) in suspensions {
        suspended.extend(why.map(|why| Suspension { rule, why }));
    }

    let mut reasons = reasons(case, &copies);
    let kept_before = kept_by_earlier(case, &copies);
    let mut newer = Newer::default();
    let mut verdicts: Vec<Decision> = Vec::with_capacity(copies.len());
    for (index, copy) in copies.iter().enumerate().rev() {
        let own = std::mem::take(&mut reasons[index]);
        verdicts.push(if copy.class == Class::Absent {
            Decision::Absent
        } else if !own.is_empty() {
            Decision::Keep(own)
        } else {
            let refused = |rule, newer| Decision::Refused { rule, newer };
            match newer.at_least(copy.needs()) {
                None => refused(Rule::LastGood, newer.best(&copies)),
                Some(other) => match suspended.first() {
                    Some(suspension) => refused(suspension.rule, Some(copies[other].evidence())),
                    None if kept_before.contains(&index) => {
                        refused(Rule::CoolingOff, Some(copies[other].evidence()))
                    }
                    None => Decision::Expire(copies[other].evidence()),
                },
            }
        });
        newer.meet(index, copy);
    }
    verdicts.reverse();

    let mut plan = Plan {
        service: case.service.clone(),
        source: case.source.clone(),
        repository: case.repository.clone(),
        decisions: copies.iter().zip(verdicts).map(|(copy, decision)| copy.decided(decision)).collect(),
        suspended,
        approved: None,
    };
    let uncapped: Option<Vec<Decided>> = (!case.approved.is_empty()).then(|| plan.decisions.clone());
    cap(case, &mut plan.decisions, &marks);
    take_steps(&mut plan.decisions, &marks, case.now);
    if let Some(mut uncapped) = uncapped {
        let digest = plan.digest();
        if case.approved.contains(&digest) {
            take_steps(&mut uncapped, &marks, case.now);
            plan.decisions = uncapped;
            plan.approved = Some(digest);
        }
    }
    plan
}

// ----------------------------------------------------------------------------------------------------- what is seen

/// What a copy counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Not in its repository.
    Absent,
    /// There, and of nothing known that could be counted.
    Aside,
    /// Known to be bad.
    Bad,
    /// Not known to be bad, and not all of the declared scope.
    Incomplete,
    /// All of the declared scope, not known to be bad.
    Good,
}

/// A copy, and what follows from it alone.
struct Known<'a> {
    point: &'a RecoveryPoint,
    class: Class,
    /// Why it is set aside.
    aside: Vec<Reason>,
    level: Option<Assurance>,
    /// Whether a receipt tells of its making: only then it can make another one dispensable.
    has_receipt: bool,
    /// When it was made, as far as that is believed.
    at: Timestamp,
}

impl<'a> Known<'a> {
    fn new(case: &Case<'_>, point: &'a RecoveryPoint) -> Self {
        let mut aside = Vec::new();
        match case.aside.get(&point.copy) {
            Some(Aside::Quarantined(why)) => aside.push(Reason::Quarantined(why.clone())),
            Some(Aside::Unsigned) => aside.push(Reason::Unsigned),
            None => {}
        }
        // That its bytes are intact does not say who wrote a copy that was found.
        if point.was_found && !point.is_proven() {
            aside.push(Reason::FoundUnproven);
        }
        if case.doubted.contains(&point.copy) {
            aside.push(Reason::Doubted);
        }
        let level = match &point.standing {
            PointStanding::Proven { level, .. } => Some(*level),
            PointStanding::Unproven | PointStanding::Failed { .. } | PointStanding::Gone { .. } => None,
        };
        let class = match &point.standing {
            PointStanding::Gone { .. } => Class::Absent,
            _ if !aside.is_empty() => Class::Aside,
            PointStanding::Failed { .. } => Class::Bad,
            PointStanding::Unproven | PointStanding::Proven { .. } => match point.outcome {
                Outcome::Complete => Class::Good,
                Outcome::Incomplete | Outcome::Failed => Class::Incomplete,
            },
        };
        Self { point, class, aside, level, has_receipt: !point.was_found, at: believed(point) }
    }

    fn is_there(&self) -> bool {
        self.class != Class::Absent
    }

    fn is_counted(&self) -> bool {
        !matches!(self.class, Class::Absent | Class::Aside)
    }

    fn is_incomplete(&self) -> bool {
        self.is_counted() && self.point.outcome != Outcome::Complete
    }

    /// How far a newer copy must be proven before this one is dispensable.
    fn needs(&self) -> Option<Assurance> {
        if self.class == Class::Bad { Some(Assurance::A3) } else { self.level }
    }

    fn evidence(&self) -> Evidence {
        Evidence { copy: self.point.copy.clone(), level: self.level, sequence: self.point.sequence }
    }

    fn decided(&self, decision: Decision) -> Decided {
        Decided {
            copy: self.point.copy.clone(),
            sequence: self.point.sequence,
            at: self.at,
            stored_bytes: self.point.stored_bytes,
            decision,
            step: None,
        }
    }
}

/// The source's own date where it lies shortly before the end of the run, otherwise that end.
fn believed(point: &RecoveryPoint) -> Timestamp {
    let took = point.finished.duration_since(point.point);
    if took.is_negative() || took > CAPTURE_MAX { point.finished } else { point.point }
}

/// The copies that are meant, each once and oldest first, and a copy of which two different things are said.
fn copies<'a>(case: &Case<'a>) -> (Vec<Known<'a>>, Option<String>) {
    let is_meant = |point: &&RecoveryPoint| {
        point.service == *case.service
            && point.source == *case.source
            && point.repository.id == *case.repository
    };
    let mut points: Vec<&RecoveryPoint> = case.points.iter().filter(is_meant).collect();
    let mut first: BTreeMap<&CopyId, &RecoveryPoint> = BTreeMap::new();
    let mut contradicted: BTreeSet<&CopyId> = BTreeSet::new();
    for &point in &points {
        let other = *first.entry(&point.copy).or_insert(point);
        if other != point {
            contradicted.insert(&point.copy);
            // Whichever is listed first, the same one is taken.
            let taken = [point, other].into_iter().min_by_key(|one| format!("{one:?}"));
            first.extend(taken.map(|one| (&one.copy, one)));
        }
    }
    points.retain(|point| first.get(&point.copy).is_some_and(|one| std::ptr::eq(*one, *point)));
    let why = contradicted.first().map(|copy| format!("two different things are said of copy {copy}"));
    (ordered(case, &points), why)
}

/// Oldest first. The date of a copy that is not counted may be wrong and moves none that is: it stands by its receipt alone.
fn ordered<'a>(case: &Case<'_>, points: &[&'a RecoveryPoint]) -> Vec<Known<'a>> {
    let (counted, mut others): (Vec<Known<'_>>, Vec<Known<'_>>) =
        points.iter().map(|point| Known::new(case, point)).partition(Known::is_counted);
    others.sort_by_key(|copy| (copy.point.sequence, &copy.point.copy));
    let mut order: Vec<&RecoveryPoint> = counted.iter().map(|copy| copy.point).collect();
    in_order(&mut order);
    let mut others = others.into_iter().peekable();
    let mut copies = Vec::with_capacity(points.len());
    for point in order {
        while let Some(other) =
            others.next_if(|other| !point.was_found && other.point.sequence < point.sequence)
        {
            copies.push(other);
        }
        copies.push(Known::new(case, point));
    }
    copies.extend(others);
    copies
}

// ------------------------------------------------------------------------------------------- why nothing goes at all

fn doubt_of_listing(case: &Case<'_>, copies: &[Known<'_>]) -> Option<String> {
    match &case.listing {
        Listing::Doubtful(why) => Some(why.clone()),
        Listing::Whole(listed) => {
            let mut there = copies.iter().filter(|copy| copy.is_there());
            let lacking = there.find(|copy| !listed.contains(&copy.point.copy))?;
            Some(format!("copy {} should be in the repository and was not listed", lacking.point.copy))
        }
    }
}

fn is_ahead(instant: Timestamp, of: Timestamp) -> bool {
    instant.duration_since(of) > CLOCK_STEP
}

fn doubt_of_clock(case: &Case<'_>, copies: &[Known<'_>], marks: &Marks<'_>) -> Option<String> {
    if case.now < EPOCH {
        return Some(format!("the clock says {}, when there was no receipt yet", case.now));
    }
    if let Some(at) = case.newest_receipt.filter(|at| is_ahead(*at, case.now)) {
        return Some(format!("a receipt was sealed at {at}, which is yet to come"));
    }
    let mut latest: Option<&RecoveryPoint> = None;
    for copy in copies.iter().filter(|copy| copy.is_counted()) {
        let point = copy.point;
        let date = point.finished.max(point.point);
        if is_ahead(date, case.now) {
            return Some(format!("copy {} is dated {date}, which is yet to come", point.copy));
        }
        if !copy.has_receipt {
            continue;
        }
        if point.finished < EPOCH {
            return Some(format!(
                "copy {} is dated {}, when there was no receipt yet",
                point.copy, point.finished
            ));
        }
        if let Some(before) = latest.filter(|before| is_ahead(before.finished, point.finished)) {
            return Some(format!(
                "copy {} is dated {}, and copy {}, which was made after it, {}",
                before.copy, before.finished, point.copy, point.finished
            ));
        }
        if latest.is_none_or(|before| before.finished < point.finished) {
            latest = Some(point);
        }
    }
    let mut marks = copies.iter().filter_map(|copy| marks.get(&copy.point.copy));
    let wrong = marks.find(|mark| is_ahead(mark.at, case.now) || mark.at < EPOCH)?;
    Some(format!("the mark of copy {} is dated {}", wrong.copy, wrong.at))
}

fn staleness(case: &Case<'_>, copies: &[Known<'_>]) -> Option<String> {
    match case.newest_run {
        NewestRun::Ended(Outcome::Complete) => {}
        NewestRun::Ended(Outcome::Incomplete) => return Some("the newest run left something out".to_owned()),
        NewestRun::Ended(Outcome::Failed) => return Some("the newest run failed".to_owned()),
        NewestRun::CutOff => return Some("the newest run was cut off".to_owned()),
        NewestRun::Unknown => return Some("no run is known".to_owned()),
    }
    // One that was found is not what a run has made.
    let Some(newest) = copies.iter().rev().find(|copy| copy.has_receipt) else {
        return Some("no run has made a copy in this repository".to_owned());
    };
    let is = match newest.class {
        Class::Good if case.now.duration_since(newest.at) <= case.fresh_within => return None,
        Class::Good => return Some(format!("the newest copy is of {}, which is too long ago", newest.at)),
        Class::Absent => "no longer there",
        Class::Aside => "set aside",
        Class::Bad => "known to be bad",
        Class::Incomplete => "incomplete",
    };
    Some(format!("the newest copy, {}, is {is}", newest.point.copy))
}

// ------------------------------------------------------------------------------------------------- why a copy stays

/// Every reason to keep each copy that is there.
fn reasons(case: &Case<'_>, copies: &[Known<'_>]) -> Vec<Vec<Reason>> {
    let mut reasons: Vec<Vec<Reason>> = copies.iter().map(|_| Vec::new()).collect();
    case.policy.want(&seen(copies), case.now, |index, reason| reasons[index].push(reason));

    let holds: Vec<&Hold> =
        case.holds.iter().filter(|hold| hold.until.is_none_or(|until| case.now < until)).collect();
    let mut held: BTreeMap<&CopyId, Vec<&str>> = BTreeMap::new();
    let mut captured: BTreeMap<&RunId, Vec<&str>> = BTreeMap::new();
    let mut all: Vec<&str> = Vec::new();
    for hold in holds {
        match &hold.thing {
            HeldThing::Copy(copy) => held.entry(copy).or_default().push(&hold.reason),
            HeldThing::Capture(run) => captured.entry(run).or_default().push(&hold.reason),
            HeldThing::Service(service) if service == case.service => all.push(&hold.reason),
            HeldThing::Service(_) => {}
        }
    }

    let (mut good, mut proven, mut any) = (false, false, false);
    for (copy, reasons) in copies.iter().zip(&mut reasons).rev().filter(|(copy, _)| copy.is_there()) {
        let is_proven = copy.class == Class::Good && copy.point.is_proven();
        let is_incomplete = copy.is_incomplete();
        let own = [
            (copy.class == Class::Good && !good, Reason::LastGood),
            (is_proven && !proven, Reason::NewestProven),
            (is_incomplete && !any, Reason::NewestOfSource),
            (is_incomplete && case.now.duration_since(copy.at) < INCOMPLETE_KEPT, Reason::YoungAndIncomplete),
        ];
        reasons.extend(own.into_iter().filter_map(|(is_one, reason)| is_one.then_some(reason)));
        reasons.extend(copy.aside.iter().cloned());
        let holds = held.get(&copy.point.copy).into_iter().flatten();
        let holds = holds.chain(captured.get(&copy.point.run).into_iter().flatten()).chain(&all);
        reasons.extend(holds.map(|why| Reason::Held((*why).to_owned())));
        if copy.has_receipt {
            good |= copy.class == Class::Good;
            proven |= is_proven;
            any |= copy.is_counted();
        }
    }
    reasons
}

fn seen(copies: &[Known<'_>]) -> Vec<Seen> {
    let of = |copy: &Known<'_>| Seen {
        at: (!copy.aside.contains(&Reason::Doubted)).then_some(copy.at),
        is_good: copy.class == Class::Good,
        has_receipt: copy.has_receipt,
    };
    copies.iter().map(of).collect()
}

/// Positions of the copies that a policy wanted which was exchanged less than [`COOLING_OFF`] ago.
fn kept_by_earlier(case: &Case<'_>, copies: &[Known<'_>]) -> BTreeSet<usize> {
    let mut kept = BTreeSet::new();
    for earlier in case.earlier {
        // A date that is no date says that the policy was exchanged at an unknown time.
        let is_heeded = earlier.until < EPOCH || case.now.duration_since(earlier.until) < COOLING_OFF;
        if is_heeded {
            earlier.policy.want(&seen(copies), case.now, |index, _| {
                kept.insert(index);
            });
        }
    }
    kept
}

/// Of the copies met so far, which come newest first, the newest one that is proven at least so far, for each level.
#[derive(Default)]
struct Newer {
    /// In the first place whatever its level, then A0 or more, A1 or more, …
    at_least: [Option<usize>; Assurance::ALL.len() + 1],
}

impl Newer {
    fn meet(&mut self, index: usize, copy: &Known<'_>) {
        if copy.class == Class::Good && copy.has_receipt {
            for newest in &mut self.at_least[..=place(copy.level)] {
                newest.get_or_insert(index);
            }
        }
    }

    fn at_least(&self, level: Option<Assurance>) -> Option<usize> {
        self.at_least[place(level)]
    }

    /// The newest of those that are proven furthest.
    fn best(&self, copies: &[Known<'_>]) -> Option<Evidence> {
        let best = self.at_least.iter().rev().find_map(|newest| *newest)?;
        Some(copies[best].evidence())
    }
}

fn place(level: Option<Assurance>) -> usize {
    level.map_or(0, |level| level as usize + 1)
}

// ------------------------------------------------------------------------------------------------ how much, and when

/// The latest mark of each copy.
type Marks<'a> = BTreeMap<&'a CopyId, &'a Mark>;

fn marks<'a>(case: &Case<'a>) -> Marks<'a> {
    let mut marks: Marks<'_> = BTreeMap::new();
    for mark in case.marks {
        let latest = marks.entry(&mark.copy).or_insert(mark);
        *latest = mark.max(latest);
    }
    marks
}

/// Lets only so many go that a fifth of the copies and of the bytes is on the way out; those that are marked come first.
fn cap(case: &Case<'_>, decisions: &mut [Decided], marks: &Marks<'_>) {
    let there = || decisions.iter().filter(|one| one.decision != Decision::Absent);
    let count_max = there().count() / ONE_IN;
    let bytes_max = there().map(|one| u128::from(one.stored_bytes)).sum::<u128>() / ONE_IN as u128;

    let is_approved = |mark: &&Mark| case.approved.contains(&mark.plan);
    let mut expiring: Vec<usize> = (0..decisions.len())
        .filter(|index| matches!(decisions[*index].decision, Decision::Expire(_)))
        .filter(|index| !marks.get(&decisions[*index].copy).is_some_and(is_approved))
        .collect();
    expiring.sort_by_key(|index| !marks.contains_key(&decisions[*index].copy));

    let (mut count, mut bytes) = (0, 0);
    for index in expiring {
        let one = &mut decisions[index];
        count += 1;
        bytes += u128::from(one.stored_bytes);
        // One may always go. What does not fit keeps the rest waiting too, otherwise a large copy would wait for ever.
        let is_too_much = count > 1 && (count > count_max || bytes > bytes_max);
        if let (true, Decision::Expire(newer)) = (is_too_much, &one.decision) {
            one.decision = Decision::Refused { rule: Rule::NotMuchAtOnce, newer: Some(newer.clone()) };
        }
    }
}

fn take_steps(decisions: &mut [Decided], marks: &Marks<'_>, now: Timestamp) {
    for one in decisions {
        let mark = marks.get(&one.copy).map(|mark| mark.at);
        one.step = match (&one.decision, mark) {
            (Decision::Expire(_), None) => Some(Step::Mark),
            (Decision::Expire(_), Some(since)) if now.duration_since(since) < MARKED_FOR => {
                Some(Step::Wait { since })
            }
            (Decision::Expire(_), Some(since)) => Some(Step::Delete { since }),
            (Decision::Keep(_) | Decision::Refused { .. } | Decision::Absent, Some(_)) => Some(Step::Unmark),
            (Decision::Keep(_) | Decision::Refused { .. } | Decision::Absent, None) => None,
        };
    }
}

#[cfg(test)]
mod tests;
