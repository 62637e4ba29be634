//! Placement: which copies of a source there are, where, and what each single disaster would leave.
//!
//! 3-2-1 is computed from what was seen, never from configuration alone. A copy counts where somebody has looked at it lately,
//! listed it, read a piece of it back and authenticated that, and where no receipt says that it is bad. The configuration adds
//! what nobody can see: at which site, in which region, in whose account a thing is. What it does not say is not independent: it
//! is unknown, and unknown never counts.
//!
//! Three answers, and what they mean of a rule that asks for a number:
//!
//! - *met*: so many are certain;
//! - *violated*: even with everything that is unknown there are fewer;
//! - *unknown*: it depends on what is not known.
//!
//! Laws, each a property in `tests/placement.rs`: adding a good copy makes nothing worse; losing a look makes nothing met; what
//! is unknown never counts; other words for the same places change nothing, nor does the order of the repositories.
//!
//! A receipt holds the [`Case`] with its judgement, so that whoever has the receipt can judge again. [`RULES`] is raised when a
//! case would be judged otherwise than before: a judgement by other rules is read, and not repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::assess::spoken;
use crate::config::format_duration;
use crate::finding::{Finding, FindingCode};
use crate::id::{CopyId, RepositoryId, RepositoryName, RunId, ServiceName, SourceName};
use crate::objective::{Met, Objective};
use crate::point::{PointStanding, RecoveryPoint, in_order};
use crate::receipt::{Act, CLOCK_STEP, Outcome, Receipt};
use crate::service::Service;
use crate::verdict::Assurance;

/// The rules that this version judges by.
pub const RULES: u32 = 1;

/// Copies of one source in one repository that are looked at: the newest, and what may stand in for it.
const CANDIDATES: usize = 3;

/// The word that stands for a site that nobody has named: it is another place on every machine.
pub const UNNAMED_SITE: &str = "local";

// ----------------------------------------------------------------------------------------------------- what is said

/// Where something is, as the configuration says. What is not said is unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// `disk`, `object-store`, `tape`, `nas`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub medium: Option<String>,
    /// The place that one disaster can reach at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// The provider's region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The account whose loss loses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
}

impl Place {
    /// Whether nothing is said of it.
    #[must_use]
    pub fn is_unsaid(&self) -> bool {
        *self == Self::default()
    }
}

/// What is asked of the copies of a service. A number of 0 asks for nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementPolicy {
    /// Copies, the live data among them.
    pub copies: u32,
    /// Kinds of media, that of the live data among them.
    pub media: u32,
    /// Copies at another site than the live data.
    pub offsite: u32,
    /// Copies in another account than the live data.
    pub other_account: u32,
    /// Copies in another region than the live data.
    pub other_region: u32,
    /// Copies that nobody can change or delete for a time.
    pub immutable: u32,
    /// Regions that copies may be in, as patterns in which `*` stands for any text; any region where empty.
    pub regions: Vec<String>,
    /// How old a look may be to count.
    pub evidence_age: SignedDuration,
}

impl Place {
    /// Whether a place is at another site than this one; unknown where not enough has been said of either.
    #[must_use]
    pub fn is_at_another_site(&self, other: &Self) -> Answer {
        other_site(self, other)
    }
}

/// Where the live data of a service is, and what is asked of its copies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementSpec {
    /// Where the live data is.
    pub production: Place,
    /// What is asked of the copies.
    pub policy: PlacementPolicy,
}

/// Whether a region is one of those that patterns allow; letters of either case are the same, and no pattern allows any.
#[must_use]
pub fn allows(patterns: &[String], region: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| fits(&folded(pattern), &folded(region)))
}

fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

/// Words for places are written by hand: neither case nor blanks make two places of one.
fn folded(word: &str) -> String {
    word.trim().to_lowercase()
}

// ----------------------------------------------------------------------------------------------------- what was seen

/// Whether a repository answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seen {
    /// It was opened with its key, and its copies were listed.
    Answered,
    /// It was not, and why. What is in it is unknown.
    Silent(Finding),
}

/// What came of reading a random piece of a copy back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadBack {
    /// The way from the snapshot to the piece, and the piece, are authentic.
    Authentic {
        /// Length of the piece.
        bytes: u64,
    },
    /// Something on the way is not.
    Damaged(Finding),
    /// It could not be read, and why.
    NotRead(Finding),
}

/// A complete copy that is in its repository's list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenCopy {
    /// The copy.
    pub copy: CopyId,
    /// Sequence of the receipt by which it is known.
    pub sequence: u64,
    /// The run that captured it: the same for all copies of one recovery point.
    pub run: RunId,
    /// The instant that it brings the source back to.
    pub point: Timestamp,
    /// How far it was shown to be good, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven: Option<(Assurance, Timestamp)>,
    /// Why it does not count whatever was read of it: it was shown to be bad, or is of something that no healthy source is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_bad: Option<String>,
    /// Why the receipt by which it is known is not believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<Finding>,
    /// What came of reading a piece of it.
    pub read: ReadBack,
}

/// One look into one repository, as far as it concerns one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// The repository's name.
    pub repository: RepositoryName,
    /// Its own identity; `None` where it did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<RepositoryId>,
    /// Where it is, as configured.
    pub place: Place,
    /// When somebody looked.
    pub at: Timestamp,
    /// Whether it answered.
    pub seen: Seen,
    /// The device that its directory lies on; `None` where that is not known, and for what is not a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The region as the store itself says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region_seen: Option<String>,
    /// Until when the newest copy can be neither changed nor deleted, as the store says; `None` where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub immutable_until: Option<Timestamp>,
    /// The repositories whose password it shares, its own name among them; never the password, nor where it is.
    pub password: BTreeSet<RepositoryName>,
    /// Keys that open it, where it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<u64>,
    /// Copies of the source that were listed, incomplete ones included.
    pub listed: u64,
    /// Copies of the source that receipts put there, and that were not listed.
    pub vanished: u64,
    /// The newest complete ones, newest first.
    pub copies: Vec<SeenCopy>,
}

/// Everything that is judged of one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// Service.
    pub service: ServiceName,
    /// Source.
    pub source: SourceName,
    /// Where the live data is, as configured.
    pub production: Place,
    /// The device that the live data lies on, where that could be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// All of them, where parts of it lie on several; empty where it is one.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub devices: BTreeSet<String>,
    /// Whether a part of it is kept in files of which nobody could see what they lie on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_partly_unseen: bool,
    /// What is asked.
    pub policy: PlacementPolicy,
    /// The largest loss that was promised.
    pub rpo: Objective,
    /// Age at which a copy is stale.
    pub fresh_within: SignedDuration,
    /// Age at which a proof no longer counts.
    pub proof_valid: SignedDuration,
    /// The looks, one for each repository of the service.
    pub looks: Vec<Look>,
    /// When it is judged.
    pub now: Timestamp,
}

impl Case {
    /// Takes note of what each part of the live data lies on; `None` of one that could not be asked.
    pub fn lies_on(&mut self, parts: impl IntoIterator<Item = Option<String>>) {
        let mut devices = BTreeSet::new();
        self.is_partly_unseen = false;
        for part in parts {
            self.is_partly_unseen |= part.is_none();
            devices.extend(part);
        }
        self.device = if devices.len() == 1 { devices.pop_first() } else { None };
        self.devices = devices;
    }

    fn is_beside(&self, look: &Look) -> bool {
        let is_its = |device: &String| self.device.as_ref() == Some(device) || self.devices.contains(device);
        look.device.as_ref().is_some_and(is_its)
    }
}

/// The copies of one repository that are to be looked at, newest first: the newest complete ones, at least one of them, where
/// there is one, not known to be bad. `listed` are those that the repository has.
#[must_use]
pub fn candidates<'a>(points: &'a [RecoveryPoint], listed: &BTreeSet<CopyId>) -> Vec<&'a RecoveryPoint> {
    let mut there: Vec<&RecoveryPoint> = points
        .iter()
        .filter(|point| point.outcome == Outcome::Complete && listed.contains(&point.copy))
        .collect();
    in_order(&mut there);
    there.reverse();
    let newest_good = there.iter().position(|point| why_bad(point).is_none());
    let mut chosen: Vec<&RecoveryPoint> = there.iter().take(CANDIDATES).copied().collect();
    if let Some(good) = newest_good.filter(|good| *good >= CANDIDATES) {
        chosen.pop();
        chosen.push(there[good]);
    }
    chosen
}

/// Why a copy counts for nothing, as its receipts say.
#[must_use]
pub fn why_bad(point: &RecoveryPoint) -> Option<String> {
    match &point.standing {
        PointStanding::Failed { at, codes, .. } => {
            let codes: Vec<String> = codes.iter().map(ToString::to_string).collect();
            Some(format!("it was shown to be bad at {at} ({})", codes.join(", ")))
        }
        PointStanding::Gone { was_bad: true, at, .. } => {
            Some(format!("it was shown to be bad before it was missed at {at}"))
        }
        PointStanding::Unproven | PointStanding::Proven { .. } | PointStanding::Gone { .. } => {
            point.is_implausible.then(|| "its capture found what no healthy source has".to_owned())
        }
    }
}

// ------------------------------------------------------------------------------------------------------- the answer

/// What is known of a question. Later ones are worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It is so.
    Met,
    /// It may be so: never a pass.
    Unknown,
    /// It is not so.
    Violated,
}

impl Answer {
    /// The word for people: `met`, `UNKNOWN`, `VIOLATED`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Unknown => "UNKNOWN",
            Self::Violated => "VIOLATED",
        }
    }
}

/// What is asked of the copies of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Every repository answered, and a piece of what counts in it was read back.
    Reachable,
    /// So many copies, the live data among them.
    Copies,
    /// So many kinds of media.
    Media,
    /// So many at another site than the live data.
    Offsite,
    /// So many in another account.
    OtherAccount,
    /// So many in another region.
    OtherRegion,
    /// No repository in a region that is not allowed.
    Regions,
    /// So many that can be neither changed nor deleted.
    Immutable,
    /// Of each single disaster that could take the live data, something is left that is within the RPO.
    OneDisaster,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reachable => "reachable",
            Self::Copies => "copies",
            Self::Media => "media",
            Self::Offsite => "offsite",
            Self::OtherAccount => "other account",
            Self::OtherRegion => "other region",
            Self::Regions => "allowed regions",
            Self::Immutable => "immutable",
            Self::OneDisaster => "one disaster",
        })
    }
}

/// What is known of one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleAnswer {
    /// The rule.
    pub rule: Rule,
    /// Whether it is kept.
    pub answer: Answer,
    /// The facts, with numbers.
    pub facts: String,
}

/// What one repository has of the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The repository.
    pub repository: RepositoryName,
    /// Whether it holds a copy that counts.
    pub counts: Answer,
    /// Why it does not, or may not; empty where it does.
    pub why: String,
    /// The newest copy that is known to be there.
    pub copy: Option<CopyId>,
    /// The instant that it brings the source back to.
    pub point: Option<Timestamp>,
    /// How old that is, in milliseconds.
    pub age_ms: Option<u64>,
    /// How far it is proven, by a proof that still counts.
    pub level: Assurance,
    /// Whether it is at another site than the live data.
    pub offsite: Answer,
    /// Whether it is in another account than the live data.
    pub other_account: Answer,
}

/// Kinds of disasters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DisasterKind {
    /// Everything at a site is lost.
    Site,
    /// Everything in an account is deleted by somebody who has taken it over.
    Account,
    /// Everything in a region is lost.
    Region,
    /// Every medium of a kind fails.
    Medium,
    /// A password is lost, and what only it opens with it.
    Password,
}

/// What becomes of something in a disaster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It is not reached.
    Kept,
    /// Nobody knows.
    Unknown,
    /// It is lost.
    Lost,
}

/// The newest copy that is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Where.
    pub repository: RepositoryName,
    /// The instant that it brings the source back to.
    pub point: Timestamp,
    /// How old that is, in milliseconds: what would be lost.
    pub age_ms: u64,
    /// How far it is proven.
    pub level: Assurance,
}

/// A single disaster, and what it leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disaster {
    /// Its kind.
    pub kind: DisasterKind,
    /// What it strikes; `None` is where the live data is, which nobody has said.
    pub what: Option<String>,
    /// What becomes of the live data.
    pub production: Fate,
    /// The newest copy that is certainly left.
    pub left: Option<Left>,
    /// The newest one that may be left, where that is another one.
    pub perhaps: Option<Left>,
    /// Whether something that did not answer, and is not certainly lost, may hold a copy too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_unseen: bool,
    /// Whether what is certainly left is within the RPO.
    pub rpo: Met,
    /// Whether the policy asks that this is survived.
    pub is_judged: bool,
    /// Whether it is.
    pub answer: Answer,
}

impl fmt::Display for Disaster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.what.as_deref();
        match (self.kind, what) {
            (DisasterKind::Site, Some(what)) => write!(f, "site {what} is lost"),
            (DisasterKind::Site, None) => f.write_str("the live data's site (not said) is lost"),
            (DisasterKind::Account, Some(what)) => write!(f, "account {what} is taken over"),
            (DisasterKind::Account, None) => f.write_str("the live data's account (not said) is taken over"),
            (DisasterKind::Region, Some(what)) => write!(f, "region {what} is lost"),
            (DisasterKind::Region, None) => f.write_str("the live data's region (not said) is lost"),
            (DisasterKind::Medium, Some(what)) => write!(f, "every {what} fails"),
            (DisasterKind::Medium, None) => f.write_str("every medium like the live data's (not said) fails"),
            (DisasterKind::Password, what) => {
                write!(f, "the password of {} is lost", what.unwrap_or("nothing"))
            }
        }
    }
}

/// The newest recovery point that any repository has, and where that very point lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewestPoint {
    /// The run that captured it.
    pub run: RunId,
    /// The instant.
    pub point: Timestamp,
    /// Repositories in which a copy of it counts.
    pub repositories: BTreeSet<RepositoryName>,
}

/// What is known of where the copies of a source are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The worst of its rules.
    pub answer: Answer,
    /// What each repository has, in the order of the looks.
    pub rows: Vec<Row>,
    /// The newest recovery point that counts somewhere.
    pub newest: Option<NewestPoint>,
    /// Every rule that is asked.
    pub rules: Vec<RuleAnswer>,
    /// What each single disaster leaves.
    pub disasters: Vec<Disaster>,
    /// Everything that falls short.
    pub findings: Vec<Finding>,
}

// ------------------------------------------------------------------------------------------------------ the judgement

/// Judges where the copies of a source are. Total: every case has an answer.
#[must_use]
pub fn place(case: &Case) -> Placement {
    let looks: Vec<Judged<'_>> = case.looks.iter().map(|look| Judged::of(case, look)).collect();
    let units = units(case, &looks);
    let disasters = disasters(case, &units);
    let rules = rules(case, &looks, &units, &disasters);
    let answer = rules.iter().map(|rule| rule.answer).max().unwrap_or(Answer::Unknown);
    let rows: Vec<Row> = looks.iter().map(|look| look.row(case, &units)).collect();
    Placement {
        answer,
        newest: newest(&looks, &rows),
        rows,
        findings: findings(case, &looks, &units, &rules, &disasters),
        rules,
        disasters,
    }
}

/// A look, judged by itself.
#[derive(Debug)]
struct Judged<'a> {
    look: &'a Look,
    /// Whether there is a copy, of whatever age, that could be restored.
    there: Answer,
    /// Whether there is one that is fresh too.
    counts: Answer,
    /// Why not; empty where it counts.
    why: String,
    /// The newest that is there for certain; the newest that may be, where none is.
    copy: Option<&'a SeenCopy>,
    age: Option<SignedDuration>,
    level: Assurance,
}

impl<'a> Judged<'a> {
    fn of(case: &Case, look: &'a Look) -> Self {
        let mut judged = Self {
            look,
            there: Answer::Unknown,
            counts: Answer::Unknown,
            why: String::new(),
            copy: None,
            age: None,
            level: Assurance::A0,
        };
        let looked = case.now.duration_since(look.at);
        if let Seen::Silent(finding) = &look.seen {
            judged.why = format!("it did not answer ({}): what is in it is not known", finding.code);
            return judged;
        }
        if looked > case.policy.evidence_age || -looked > CLOCK_STEP {
            judged.why = format!(
                "the last look is of {}; allowed are {}",
                look.at,
                format_duration(case.policy.evidence_age)
            );
            return judged;
        }
        judged.there = Answer::Violated;
        judged.why = match look.listed {
            0 => "it holds no copy".to_owned(),
            listed => format!("it holds no complete copy ({listed} listed)"),
        };
        let mut best: Option<(Answer, &SeenCopy)> = None;
        for copy in &look.copies {
            let (there, why) = is_there(case, copy);
            if best.is_none_or(|(before, _)| there < before) {
                if best.is_none() || there < Answer::Violated {
                    judged.why = why;
                }
                best = Some((there, copy));
            }
            if there == Answer::Met {
                break;
            }
        }
        let Some((there, copy)) = best else {
            judged.counts = Answer::Violated;
            return judged;
        };
        judged.there = there;
        judged.counts = there;
        judged.copy = Some(copy);
        judged.age = age(case.now, copy.point);
        if there == Answer::Met {
            judged.level = level(case, copy);
            if let Some(age) = judged.age.filter(|age| *age > case.fresh_within) {
                judged.counts = Answer::Violated;
                judged.why = format!(
                    "its newest good copy is of {}, {} ago; allowed are {}",
                    copy.point,
                    spoken(age),
                    format_duration(case.fresh_within)
                );
            }
        }
        judged
    }

    fn row(&self, case: &Case, units: &[Unit<'_>]) -> Row {
        let name = &self.look.repository;
        let unit =
            units.iter().find(|unit| unit.members.iter().any(|member| member.look.repository == *name));
        let relation = |of: fn(&Place, &Place) -> Answer| {
            unit.map_or(Answer::Unknown, |unit| match unit.is_with_production {
                true => Answer::Violated,
                false => of(&case.production, &unit.place).max(unit.apart()),
            })
        };
        let (counts, why) = match (self.counts, unit) {
            (Answer::Met, Some(unit)) if unit.is_with_production => {
                (Answer::Violated, "it lies on the same file system as the live data".to_owned())
            }
            (Answer::Met, Some(unit)) if unit.may_be_with_production => (Answer::Unknown, UNSEEN.to_owned()),
            (counts, Some(_) | None) => (counts, self.why.clone()),
        };
        Row {
            repository: name.clone(),
            counts,
            why,
            copy: self.copy.map(|copy| copy.copy.clone()),
            point: self.copy.map(|copy| copy.point),
            age_ms: self.age.and_then(milliseconds),
            level: self.level,
            offsite: relation(other_site),
            other_account: relation(other_account),
        }
    }
}

/// Whether a copy, of whatever age, could be restored, and why not.
fn is_there(case: &Case, copy: &SeenCopy) -> (Answer, String) {
    if let Some(why) = &copy.is_bad {
        return (Answer::Violated, format!("its newest copy does not count: {why}"));
    }
    if let ReadBack::Damaged(finding) = &copy.read {
        return (Answer::Violated, format!("a piece of its newest copy is damaged ({})", finding.code));
    }
    if let Some(doubt) = &copy.doubt {
        return (
            Answer::Unknown,
            format!("the receipt of its newest copy is not believed ({}: {})", doubt.code, doubt.detail),
        );
    }
    if let ReadBack::NotRead(finding) = &copy.read {
        return (Answer::Unknown, format!("no piece of its newest copy could be read ({})", finding.code));
    }
    if age(case.now, copy.point).is_none() {
        return (Answer::Unknown, format!("its newest copy is of {}, which is yet to come", copy.point));
    }
    (Answer::Met, String::new())
}

/// How far a copy that is there is proven.
fn level(case: &Case, copy: &SeenCopy) -> Assurance {
    match copy.proven {
        Some((level, at)) if age(case.now, at).is_some_and(|age| age <= case.proof_valid) => {
            level.max(Assurance::A1)
        }
        Some(_) | None => Assurance::A1,
    }
}

/// How long ago; `None` where it has yet to come by more than clocks differ.
fn age(now: Timestamp, then: Timestamp) -> Option<SignedDuration> {
    let age = now.duration_since(then);
    (-age <= CLOCK_STEP).then(|| age.max(SignedDuration::ZERO))
}

// ------------------------------------------------------------------------------------------------------------- units

/// Copies that nothing keeps apart: in one repository under several names, or on one file system.
#[derive(Debug)]
struct Unit<'a> {
    members: Vec<&'a Judged<'a>>,
    counts: Answer,
    /// What its members agree on.
    place: Place,
    /// What they do not agree on: `site`, `region`, `account`.
    contradictions: Vec<&'static str>,
    is_with_production: bool,
    /// Whether it may be, for all that could be seen.
    may_be_with_production: bool,
}

/// Why a copy in a directory may be none.
const UNSEEN: &str = "what a part of the live data lies on could not be seen: it may be the same file system";

impl Unit<'_> {
    /// Whether it lies apart from the live data, as far as their file systems say.
    fn apart(&self) -> Answer {
        match (self.is_with_production, self.may_be_with_production) {
            (true, _) => Answer::Violated,
            (false, true) => Answer::Unknown,
            (false, false) => Answer::Met,
        }
    }

    fn names(&self) -> String {
        let names: BTreeSet<&str> =
            self.members.iter().map(|member| member.look.repository.as_str()).collect();
        names.into_iter().collect::<Vec<_>>().join(" with ")
    }
}

fn units<'a>(case: &Case, looks: &'a [Judged<'a>]) -> Vec<Unit<'a>> {
    let mut sorted: Vec<&Judged<'_>> = looks.iter().collect();
    sorted.sort_by(|a, b| a.look.repository.cmp(&b.look.repository));
    let mut groups: Vec<Vec<&Judged<'_>>> = Vec::new();
    for one in sorted {
        let is_with = |group: &Vec<&Judged<'_>>| group.iter().any(|other| is_one(one.look, other.look));
        let (mut together, apart): (Vec<_>, Vec<_>) = groups.into_iter().partition(is_with);
        let mut joined: Vec<&Judged<'_>> = together.drain(..).flatten().collect();
        joined.push(one);
        groups = apart;
        groups.push(joined);
    }
    let mut units: Vec<Unit<'_>> = groups.into_iter().map(|members| unit(case, members)).collect();
    units.sort_by_key(Unit::names);
    units
}

fn is_one(one: &Look, other: &Look) -> bool {
    let is_same = |a: Option<&str>, b: Option<&str>| a.is_some() && a == b;
    is_same(one.device.as_deref(), other.device.as_deref())
        || is_same(one.id.as_ref().map(|id| id.0.as_str()), other.id.as_ref().map(|id| id.0.as_str()))
}

fn unit<'a>(case: &Case, members: Vec<&'a Judged<'a>>) -> Unit<'a> {
    let is_with_production = members.iter().any(|member| case.is_beside(member.look));
    // An object store is on no file system of the live data's.
    let may_be_with_production = !is_with_production
        && case.is_partly_unseen
        && members.iter().any(|member| member.look.device.is_some());
    let mut contradictions = Vec::new();
    let mut agreed = |what: &'static str, of: fn(&Place) -> Option<&String>| {
        let said: BTreeMap<String, &String> = members
            .iter()
            .filter_map(|member| of(&member.look.place))
            .filter(|word| what != "site" || folded(word) != UNNAMED_SITE)
            .map(|word| (folded(word), word))
            .collect();
        if said.len() > 1 {
            contradictions.push(what);
            return None;
        }
        said.into_values().next().cloned()
    };
    let mut place = Place {
        medium: agreed("medium", |place| place.medium.as_ref()),
        site: agreed("site", |place| place.site.as_ref()),
        region: agreed("region", |place| place.region.as_ref()),
        account: agreed("account", |place| place.account.as_ref()),
    };
    // What the store says of itself outweighs what is said of it.
    let seen: BTreeSet<&String> =
        members.iter().filter_map(|member| member.look.region_seen.as_ref()).collect();
    if let Some(region) = seen.into_iter().next() {
        place.region = Some(region.clone());
    }
    if is_with_production {
        place = Place { medium: place.medium, ..case.production.clone() };
    }
    Unit {
        counts: if is_with_production {
            Answer::Violated
        } else {
            let best = members.iter().map(|member| member.counts).min().unwrap_or(Answer::Violated);
            if may_be_with_production { best.max(Answer::Unknown) } else { best }
        },
        members,
        place,
        contradictions,
        is_with_production,
        may_be_with_production,
    }
}

// --------------------------------------------------------------------------------------------------------- relations

fn site(place: &Place) -> Option<String> {
    place.site.as_deref().map(folded).filter(|site| site != UNNAMED_SITE)
}

fn label(word: Option<&String>) -> Option<String> {
    word.map(|word| folded(word))
}

/// Whether two words are said and differ; unknown where one is not said.
fn differ(one: Option<&String>, other: Option<&String>) -> Answer {
    match (label(one), label(other)) {
        (Some(one), Some(other)) if one == other => Answer::Violated,
        (Some(_), Some(_)) => Answer::Met,
        (None, _) | (_, None) => Answer::Unknown,
    }
}

/// Whether two places are at different sites.
///
/// A site lies in one region, so that different regions are different sites. A site that is only named after its region says
/// no more than the region does.
fn other_site(one: &Place, other: &Place) -> Answer {
    let regions = differ(one.region.as_ref(), other.region.as_ref());
    let is_region = |place: &Place| site(place).is_some() && site(place) == label(place.region.as_ref());
    match (site(one), site(other)) {
        (Some(a), Some(b)) if a == b => Answer::Violated,
        (Some(_), Some(_)) if is_region(one) || is_region(other) => match regions {
            Answer::Met => Answer::Met,
            Answer::Violated | Answer::Unknown => Answer::Unknown,
        },
        (Some(_), Some(_)) => Answer::Met,
        (None, _) | (_, None) => match regions {
            Answer::Met => Answer::Met,
            Answer::Violated | Answer::Unknown => Answer::Unknown,
        },
    }
}

fn other_account(one: &Place, other: &Place) -> Answer {
    differ(one.account.as_ref(), other.account.as_ref())
}

fn other_region(one: &Place, other: &Place) -> Answer {
    differ(one.region.as_ref(), other.region.as_ref())
}

fn other_medium(one: &Place, other: &Place) -> Answer {
    differ(one.medium.as_ref(), other.medium.as_ref())
}

// ------------------------------------------------------------------------------------------------------------- rules

/// How many are certain, and how many there are at most.
struct Count {
    sure: u32,
    most: u32,
}

impl Count {
    fn judge(&self, wanted: u32) -> Answer {
        if self.sure >= wanted {
            Answer::Met
        } else if self.most >= wanted {
            Answer::Unknown
        } else {
            Answer::Violated
        }
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn rules(case: &Case, looks: &[Judged<'_>], units: &[Unit<'_>], disasters: &[Disaster]) -> Vec<RuleAnswer> {
    let policy = &case.policy;
    let mut rules = vec![reachable(looks)];
    if policy.copies > 0 {
        rules.push(copies(policy.copies, units));
    }
    if policy.media > 0 {
        rules.push(media(case, units));
    }
    let related: [(Rule, u32, Relation); 3] = [
        (Rule::Offsite, policy.offsite, other_site),
        (Rule::OtherAccount, policy.other_account, other_account),
        (Rule::OtherRegion, policy.other_region, other_region),
    ];
    for (rule, wanted, relation) in related {
        if wanted > 0 {
            rules.push(elsewhere(case, units, rule, wanted, relation));
        }
    }
    if !policy.regions.is_empty() {
        rules.push(regions(case, looks));
    }
    if policy.immutable > 0 {
        rules.push(immutable(case, units));
    }
    if disasters.iter().any(|disaster| disaster.is_judged) {
        rules.push(one_disaster(disasters));
    }
    rules
}

type Relation = fn(&Place, &Place) -> Answer;

fn reachable(looks: &[Judged<'_>]) -> RuleAnswer {
    let mut not = BTreeMap::new();
    let mut answer = if looks.is_empty() { Answer::Violated } else { Answer::Met };
    for one in looks {
        let is_damaged = one.look.copies.iter().any(|copy| matches!(copy.read, ReadBack::Damaged(_)));
        let own = match one.there {
            _ if is_damaged => Answer::Violated,
            // That nothing is there is said by the rules that miss it.
            Answer::Met | Answer::Violated => Answer::Met,
            Answer::Unknown => Answer::Unknown,
        };
        if own != Answer::Met {
            let why = if is_damaged { "a piece of a copy is damaged" } else { one.why.as_str() };
            not.insert(one.look.repository.as_str(), format!("{}: {why}", one.look.repository));
        }
        answer = answer.max(own);
    }
    let facts = if looks.is_empty() {
        "the service has no repository".to_owned()
    } else if not.is_empty() {
        format!("{} of {} answered", looks.len(), looks.len())
    } else {
        not.into_values().collect::<Vec<_>>().join("; ")
    };
    RuleAnswer { rule: Rule::Reachable, answer, facts }
}

/// `3 of 3: live data, away, local`, and what may count besides.
fn told(count: &Count, wanted: u32, sure: &[String], perhaps: &[String]) -> String {
    let mut text = format!("{} of {wanted}", count.sure);
    if !sure.is_empty() {
        text.push_str(&format!(": {}", sure.join(", ")));
    }
    if !perhaps.is_empty() {
        text.push_str(&format!("; not known of {}", perhaps.join(", ")));
    }
    text
}

fn copies(wanted: u32, units: &[Unit<'_>]) -> RuleAnswer {
    let of = |answer: Answer| -> Vec<String> {
        units.iter().filter(|unit| unit.counts == answer).map(Unit::names).collect()
    };
    let (certain, perhaps) = (of(Answer::Met), of(Answer::Unknown));
    let sure: Vec<String> = std::iter::once("live data".to_owned()).chain(certain).collect();
    let count = Count { sure: number(sure.len()), most: number(sure.len() + perhaps.len()) };
    let facts = told(&count, wanted, &sure, &perhaps);
    RuleAnswer { rule: Rule::Copies, answer: count.judge(wanted), facts }
}

fn media(case: &Case, units: &[Unit<'_>]) -> RuleAnswer {
    let wanted = case.policy.media;
    let mut sure: BTreeSet<String> = label(case.production.medium.as_ref()).into_iter().collect();
    sure.extend(
        units
            .iter()
            .filter(|unit| unit.counts == Answer::Met)
            .filter_map(|unit| label(unit.place.medium.as_ref())),
    );
    let possible = || units.iter().filter(|unit| unit.counts != Answer::Violated);
    let mut most: BTreeSet<String> = sure.clone();
    most.extend(possible().filter_map(|unit| label(unit.place.medium.as_ref())));
    let mut perhaps: Vec<String> =
        possible().filter(|unit| unit.place.medium.is_none()).map(Unit::names).collect();
    if case.production.medium.is_none() {
        perhaps.insert(0, "the live data's".to_owned());
    }
    let count = Count { sure: number(sure.len()), most: number(most.len() + perhaps.len()) };
    perhaps.extend(most.difference(&sure).cloned());
    let answer = count.judge(wanted);
    if answer == Answer::Met {
        perhaps.clear();
    }
    let sure: Vec<String> = sure.into_iter().collect();
    RuleAnswer { rule: Rule::Media, answer, facts: told(&count, wanted, &sure, &perhaps) }
}

fn elsewhere(case: &Case, units: &[Unit<'_>], rule: Rule, wanted: u32, relation: Relation) -> RuleAnswer {
    let answers: Vec<(&Unit<'_>, Answer)> =
        units.iter().map(|unit| (unit, unit.counts.max(relation(&case.production, &unit.place)))).collect();
    let of = |wanted: Answer| -> Vec<String> {
        answers.iter().filter(|(_, answer)| *answer == wanted).map(|(unit, _)| unit.names()).collect()
    };
    let (sure, perhaps) = (of(Answer::Met), of(Answer::Unknown));
    let count = Count { sure: number(sure.len()), most: number(sure.len() + perhaps.len()) };
    let answer = count.judge(wanted);
    let mut facts = told(&count, wanted, &sure, if answer == Answer::Met { &[] } else { &perhaps });
    if answer != Answer::Met {
        let same: Vec<String> = answers
            .iter()
            .filter(|(unit, answer)| *answer == Answer::Violated && unit.counts == Answer::Met)
            .map(|(unit, _)| unit.names())
            .collect();
        if !same.is_empty() {
            let what = match rule {
                Rule::OtherAccount => ("in the live data's account", case.production.account.as_deref()),
                Rule::OtherRegion => ("in the live data's region", case.production.region.as_deref()),
                _ => ("at the live data's site", case.production.site.as_deref()),
            };
            let word = what.1.map_or_else(String::new, |word| format!(" ({word})"));
            facts.push_str(&format!("; {}: {}{word}", same.join(", "), what.0));
        }
    }
    RuleAnswer { rule, answer, facts }
}

fn regions(case: &Case, looks: &[Judged<'_>]) -> RuleAnswer {
    let (mut wrong, mut unsaid) = (BTreeSet::new(), BTreeSet::new());
    for one in looks {
        let name = &one.look.repository;
        let said = [one.look.region_seen.as_ref(), one.look.place.region.as_ref()];
        match said.into_iter().flatten().find(|region| !allows(&case.policy.regions, region)) {
            Some(region) => {
                wrong.insert(format!("{name} is in {region}"));
            }
            None if said.iter().all(Option::is_none) => {
                unsaid.insert(format!("{name} does not say its region"));
            }
            None => {}
        }
    }
    let allowed = case.policy.regions.join(", ");
    let (answer, told) = match (wrong.is_empty(), unsaid.is_empty()) {
        (false, _) => (Answer::Violated, wrong),
        (true, false) => (Answer::Unknown, unsaid),
        (true, true) => (Answer::Met, BTreeSet::new()),
    };
    let facts = match answer {
        Answer::Met => format!("every repository is in one of {allowed}"),
        Answer::Unknown | Answer::Violated => {
            format!("{}; allowed are {allowed}", told.into_iter().collect::<Vec<_>>().join("; "))
        }
    };
    RuleAnswer { rule: Rule::Regions, answer, facts }
}

fn immutable(case: &Case, units: &[Unit<'_>]) -> RuleAnswer {
    let of_unit = |unit: &Unit<'_>| {
        let held =
            unit.members.iter().filter(|member| member.counts == Answer::Met).map(|member| {
                match member.look.immutable_until {
                    Some(until) if until > case.now => Answer::Met,
                    Some(_) => Answer::Violated,
                    None => Answer::Unknown,
                }
            });
        unit.counts.max(held.min().unwrap_or(Answer::Unknown))
    };
    let of = |wanted: Answer| -> Vec<String> {
        units.iter().filter(|unit| of_unit(unit) == wanted).map(Unit::names).collect()
    };
    let (sure, perhaps) = (of(Answer::Met), of(Answer::Unknown));
    let count = Count { sure: number(sure.len()), most: number(sure.len() + perhaps.len()) };
    let facts = told(&count, case.policy.immutable, &sure, &perhaps);
    RuleAnswer { rule: Rule::Immutable, answer: count.judge(case.policy.immutable), facts }
}

fn one_disaster(disasters: &[Disaster]) -> RuleAnswer {
    let judged = || disasters.iter().filter(|disaster| disaster.is_judged);
    let answer = judged().map(|disaster| disaster.answer).max().unwrap_or(Answer::Unknown);
    let worst: Vec<String> = judged()
        .filter(|disaster| disaster.answer == answer && answer != Answer::Met)
        .map(|disaster| format!("{disaster}: {}", left(disaster)))
        .collect();
    let facts = if answer == Answer::Met {
        format!("each of {} leaves enough", judged().count())
    } else {
        worst.join("; ")
    };
    RuleAnswer { rule: Rule::OneDisaster, answer, facts }
}

/// What a disaster leaves, in words.
#[must_use]
pub fn left(disaster: &Disaster) -> String {
    let copy = match (&disaster.left, &disaster.perhaps) {
        (Some(left), _) => format!("{} is left in {}", ago(left), left.repository),
        (None, Some(left)) => format!("whether {} in {} is left is not known", ago(left), left.repository),
        (None, None) if disaster.is_unseen => "whether a copy is left is not known".to_owned(),
        (None, None) => "no copy is left".to_owned(),
    };
    match disaster.production {
        Fate::Kept => format!("the live data is left; {copy}"),
        Fate::Unknown => format!("whether the live data is left is not known; {copy}"),
        Fate::Lost => copy,
    }
}

fn ago(left: &Left) -> String {
    let age = i64::try_from(left.age_ms).map_or(SignedDuration::MAX, SignedDuration::from_millis);
    format!("a copy {} old", spoken(age))
}

// --------------------------------------------------------------------------------------------------------- disasters

fn disasters(case: &Case, units: &[Unit<'_>]) -> Vec<Disaster> {
    let policy = &case.policy;
    let by_place: [(DisasterKind, bool, Relation, Named); 4] = [
        (DisasterKind::Site, policy.offsite > 0, other_site, |place| {
            place.site.as_ref().filter(|site| folded(site) != UNNAMED_SITE)
        }),
        (DisasterKind::Account, policy.other_account > 0, other_account, |place| place.account.as_ref()),
        (DisasterKind::Region, policy.other_region > 0, other_region, |place| place.region.as_ref()),
        (DisasterKind::Medium, false, other_medium, |place| place.medium.as_ref()),
    ];
    let mut disasters = Vec::new();
    for (kind, is_judged, relation, named) in by_place {
        let of = |struck: &Place, what: Option<String>, is_own: bool| {
            let fate = |place: &Place| match relation(struck, place) {
                Answer::Met => Fate::Kept,
                Answer::Unknown => Fate::Unknown,
                Answer::Violated => Fate::Lost,
            };
            let production = if is_own { Fate::Lost } else { fate(&case.production) };
            // What lies on the live data's own file system goes where that goes.
            let fates = units.iter().map(|unit| {
                let fate = match (unit.apart(), fate(&unit.place)) {
                    (Answer::Violated, _) => production,
                    (Answer::Unknown, Fate::Kept) if production != Fate::Kept => Fate::Unknown,
                    (Answer::Met | Answer::Unknown, fate) => fate,
                };
                (unit, fate)
            });
            disaster(case, kind, what, production, is_judged, fates)
        };
        // The live data's own place comes first, whether it is said or not.
        let own = named(&case.production);
        if own.is_some() || is_judged {
            disasters.push(of(&case.production, own.cloned(), true));
        }
        let mut others: BTreeMap<String, Place> = BTreeMap::new();
        for unit in units {
            let Some(word) = named(&unit.place) else { continue };
            if own.is_some_and(|own| folded(own) == folded(word)) {
                continue;
            }
            let known = others.entry(folded(word)).or_insert_with(|| unit.place.clone());
            if label(known.region.as_ref()) != label(unit.place.region.as_ref()) {
                known.region = None;
            }
        }
        for place in others.values() {
            disasters.push(of(place, named(place).cloned(), false));
        }
    }
    let passwords: BTreeSet<&BTreeSet<RepositoryName>> =
        case.looks.iter().map(|look| &look.password).filter(|names| !names.is_empty()).collect();
    for names in passwords {
        let fates = units.iter().map(|unit| {
            // One member that another password opens is enough.
            let fates = unit.members.iter().map(|member| match member.look.keys {
                _ if member.look.password != *names => Fate::Kept,
                Some(1) => Fate::Lost,
                // Another key is there; who has its password is not known here.
                Some(_) | None => Fate::Unknown,
            });
            (unit, fates.fold(Fate::Lost, better))
        });
        let what = names.iter().map(RepositoryName::as_str).collect::<Vec<_>>().join(", ");
        disasters.push(disaster(case, DisasterKind::Password, Some(what), Fate::Kept, false, fates));
    }
    disasters
}

type Named = fn(&Place) -> Option<&String>;

fn better(one: Fate, other: Fate) -> Fate {
    match (one, other) {
        (Fate::Kept, _) | (_, Fate::Kept) => Fate::Kept,
        (Fate::Unknown, _) | (_, Fate::Unknown) => Fate::Unknown,
        (Fate::Lost, Fate::Lost) => Fate::Lost,
    }
}

fn disaster<'u>(
    case: &Case,
    kind: DisasterKind,
    what: Option<String>,
    production: Fate,
    is_judged: bool,
    fates: impl Iterator<Item = (&'u Unit<'u>, Fate)>,
) -> Disaster {
    let (mut left, mut perhaps): (Option<Left>, Option<Left>) = (None, None);
    let newer = |known: &mut Option<Left>, one: Left| {
        let key = |left: &Left| (left.point, left.level, std::cmp::Reverse(left.repository.clone()));
        if known.as_ref().is_none_or(|known| key(known) < key(&one)) {
            *known = Some(one);
        }
    };
    // What did not answer may hold anything.
    let mut could = false;
    for (unit, fate) in fates {
        for member in &unit.members {
            let known = member.copy.zip(member.age.and_then(milliseconds)).map(|(copy, age_ms)| Left {
                repository: member.look.repository.clone(),
                point: copy.point,
                age_ms,
                level: member.level,
            });
            match (member.there, fate, known) {
                (Answer::Violated, _, _) | (_, Fate::Lost, _) => {}
                (_, Fate::Kept | Fate::Unknown, None) => could = true,
                (Answer::Met, Fate::Kept, Some(one)) => newer(&mut left, one),
                (Answer::Met | Answer::Unknown, Fate::Kept | Fate::Unknown, Some(one)) => {
                    newer(&mut perhaps, one);
                }
            }
        }
    }
    let perhaps = perhaps.filter(|perhaps| left.as_ref().is_none_or(|left| left.point < perhaps.point));
    let judge = |left: &Option<Left>| match left {
        Some(left) => case.rpo.judge(i64::try_from(left.age_ms).ok().map(SignedDuration::from_millis)),
        None => Met::Unknown,
    };
    let rpo = judge(&left);
    let is_enough = |met: Met| matches!(met, Met::Met | Met::NotApplicable);
    let answer = match production {
        Fate::Kept => Answer::Met,
        Fate::Lost | Fate::Unknown if is_enough(rpo) => Answer::Met,
        Fate::Unknown => Answer::Unknown,
        Fate::Lost if could || is_enough(judge(&perhaps)) => Answer::Unknown,
        Fate::Lost => Answer::Violated,
    };
    Disaster { kind, what, production, left, perhaps, is_unseen: could, rpo, is_judged, answer }
}

// ---------------------------------------------------------------------------------------------------------- findings

fn newest(looks: &[Judged<'_>], rows: &[Row]) -> Option<NewestPoint> {
    let counting = || {
        let those = looks.iter().zip(rows).filter(|(_, row)| row.counts == Answer::Met);
        those.filter_map(|(one, _)| Some((one, one.copy?)))
    };
    let (_, newest) = counting().max_by_key(|(_, copy)| (copy.point, &copy.run))?;
    let holding = counting().filter(|(_, copy)| copy.run == newest.run);
    Some(NewestPoint {
        run: newest.run.clone(),
        point: newest.point,
        repositories: holding.map(|(one, _)| one.look.repository.clone()).collect(),
    })
}

fn findings(
    case: &Case,
    looks: &[Judged<'_>],
    units: &[Unit<'_>],
    rules: &[RuleAnswer],
    disasters: &[Disaster],
) -> Vec<Finding> {
    let subject = format!("{}/{}", case.service, case.source);
    let mut findings = Vec::new();
    for one in looks {
        seen(&subject, one, &mut findings);
    }
    for unit in units {
        if unit.is_with_production {
            findings.push(Finding::new(
                FindingCode::PlaceContradicted,
                &subject,
                format!(
                    "{} lies on the same file system as the live data: it is no second copy",
                    unit.names()
                ),
            ));
        } else if !unit.contradictions.is_empty() {
            findings.push(Finding::new(
                FindingCode::PlaceContradicted,
                &subject,
                format!(
                    "{} are one file system or one repository, and the configuration gives them different {}s",
                    unit.names(),
                    unit.contradictions.join("s and ")
                ),
            ));
        }
    }
    for rule in rules {
        let code = match rule.rule {
            // What did not answer, and what is damaged, has been told by itself; disasters follow one by one.
            Rule::Reachable | Rule::OneDisaster => continue,
            Rule::Copies => FindingCode::FewCopies,
            Rule::Media => FindingCode::FewMedia,
            Rule::Offsite => FindingCode::NotOffsite,
            Rule::OtherAccount => FindingCode::SameAccount,
            Rule::OtherRegion => FindingCode::SameRegion,
            Rule::Regions => FindingCode::RegionNotAllowed,
            Rule::Immutable => FindingCode::NotImmutable,
        };
        match rule.answer {
            Answer::Met => {}
            Answer::Violated => findings.push(Finding::new(code, &subject, rule.facts.clone())),
            Answer::Unknown => {
                let unsaid = unsaid(case, looks, rule.rule);
                findings.push(if unsaid.is_empty() {
                    Finding::new(code, &subject, format!("not known: {}", rule.facts))
                } else {
                    let detail = format!("{} is not known: {}", rule.rule, unsaid.join("; "));
                    Finding::new(FindingCode::PlaceUnsaid, &subject, detail)
                });
            }
        }
    }
    for disaster in disasters.iter().filter(|disaster| disaster.is_judged) {
        let promised = match case.rpo {
            Objective::Within(bound) => format!("; promised are {}", format_duration(bound)),
            Objective::NotApplicable => String::new(),
        };
        match (disaster.answer, &disaster.left) {
            (Answer::Violated, None) => findings.push(Finding::new(
                FindingCode::OneDisaster,
                &subject,
                format!("where {disaster}, the live data and every copy are lost"),
            )),
            (Answer::Violated, Some(_)) => findings.push(Finding::new(
                FindingCode::LossBeyondRpo,
                &subject,
                format!("where {disaster}, {}{promised}", left(disaster)),
            )),
            (Answer::Met | Answer::Unknown, _) => {}
        }
    }
    findings
}

/// What one look itself has shown.
fn seen(subject: &str, one: &Judged<'_>, findings: &mut Vec<Finding>) {
    let look = one.look;
    if let Seen::Silent(finding) = &look.seen {
        findings.push(finding.clone());
        return;
    }
    for copy in &look.copies {
        if let ReadBack::Damaged(finding) | ReadBack::NotRead(finding) = &copy.read {
            findings.push(finding.clone());
        }
        findings.extend(copy.doubt.clone());
    }
    match one.counts {
        Answer::Met => {}
        Answer::Unknown if one.copy.is_none() => {
            findings.push(Finding::new(
                FindingCode::EvidenceOld,
                subject,
                format!("{}: {}", look.repository, one.why),
            ));
        }
        Answer::Unknown => {}
        Answer::Violated => findings.push(Finding::new(
            FindingCode::LagsBehind,
            subject,
            format!("{}: {}", look.repository, one.why),
        )),
    }
    if look.vanished > 0 {
        let copies = if look.vanished == 1 { "copy" } else { "copies" };
        findings.push(Finding::new(
            FindingCode::CopyVanished,
            subject,
            format!(
                "{} {copies} that receipts put into {} are not in its list",
                look.vanished, look.repository
            ),
        ));
    }
    if let (Some(seen), Some(said)) = (&look.region_seen, &look.place.region)
        && folded(seen) != folded(said)
    {
        findings.push(Finding::new(
            FindingCode::PlaceContradicted,
            subject,
            format!("{} is said to be in region {said}, and its store says {seen}", look.repository),
        ));
    }
}

/// What is not said, and would answer a rule.
fn unsaid(case: &Case, looks: &[Judged<'_>], rule: Rule) -> Vec<String> {
    let of = |place: &Place| -> Option<&'static str> {
        match rule {
            Rule::Offsite => site(place).is_none().then_some("site"),
            Rule::OtherAccount => place.account.is_none().then_some("account"),
            Rule::OtherRegion | Rule::Regions => place.region.is_none().then_some("region"),
            Rule::Media => place.medium.is_none().then_some("medium"),
            Rule::Reachable | Rule::Copies | Rule::Immutable | Rule::OneDisaster => None,
        }
    };
    let mut unsaid = BTreeSet::new();
    if rule != Rule::Regions
        && let Some(what) = of(&case.production)
    {
        unsaid.insert(format!("the configuration does not say the live data's {what}"));
    }
    for one in looks {
        let is_seen = matches!(rule, Rule::OtherRegion | Rule::Regions) && one.look.region_seen.is_some();
        if let Some(what) = of(&one.look.place).filter(|_| !is_seen) {
            unsaid.insert(format!("the {what} of {} is not said", one.look.repository));
        }
    }
    unsaid.into_iter().collect()
}

fn milliseconds(span: SignedDuration) -> Option<u64> {
    u64::try_from(span.as_millis()).ok()
}

// ------------------------------------------------------------------------------------------------------- the receipt

/// A repository that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looked {
    /// Its name.
    pub repository: RepositoryName,
    /// Its own identity, where it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<RepositoryId>,
    /// Whether it answered.
    pub seen: Seen,
    /// Milliseconds until it had answered, or was given up.
    pub took_ms: u64,
    /// Snapshots in it, whosever they are.
    pub snapshots: u64,
    /// Bytes read from it.
    pub read_bytes: u64,
    /// Room on its file system; `None` for an object store, and where nobody can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<Space>,
}

/// A source whose copies were looked for, and what that says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// What was seen.
    pub case: Case,
    /// What it says.
    pub placement: Placement,
}

/// Somebody looked where all copies are, and judged it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comply {
    /// The run.
    pub run: RunId,
    /// The rules it was judged by: [`RULES`] of the version that judged.
    pub rules: u32,
    /// The worst of its sources.
    pub answer: Answer,
    /// Every repository that was looked at.
    pub repositories: Vec<Looked>,
    /// Every source.
    pub sources: Vec<Placed>,
    /// What falls short of the repositories themselves.
    pub findings: Vec<Finding>,
    /// When the run began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// Who ran it: user and host.
    pub executor: String,
}

impl Comply {
    /// The worst answer of some sources; unknown where there is none: nothing was looked at.
    #[must_use]
    pub fn worst(sources: &[Placed]) -> Answer {
        sources.iter().map(|source| source.placement.answer).max().unwrap_or(Answer::Unknown)
    }

    /// The copies that count for something.
    #[must_use]
    pub fn counted(&self) -> BTreeSet<CopyId> {
        let rows = self.sources.iter().flat_map(|source| &source.placement.rows);
        rows.filter(|row| row.counts == Answer::Met).filter_map(|row| row.copy.clone()).collect()
    }

    /// Every finding, each once.
    #[must_use]
    pub fn every_finding(&self) -> Vec<&Finding> {
        let mut every: Vec<&Finding> = Vec::new();
        let of_sources = self.sources.iter().flat_map(|source| &source.placement.findings);
        for finding in of_sources.chain(&self.findings) {
            if !every.contains(&finding) {
                every.push(finding);
            }
        }
        every
    }

    /// What it claims and its own facts deny: each source is judged again. Empty where it was judged by other rules than those of this
    /// version, which cannot repeat it.
    #[must_use]
    pub fn contradictions(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut add = |subject: String, stated: Answer, found: Answer, what: &str| {
            if stated < found {
                let detail = format!(
                    "{what} is said to be {}, and what was seen makes it {}",
                    stated.word(),
                    found.word()
                );
                findings.push(Finding::new(FindingCode::NothingChecked, subject, detail));
            }
        };
        add(self.run.to_string(), self.answer, Self::worst(&self.sources), "all of it");
        if self.rules != RULES {
            return findings;
        }
        for Placed { case, placement } in &self.sources {
            let subject = format!("{}/{}", case.service, case.source);
            let again = place(case);
            add(subject.clone(), placement.answer, again.answer, "its placement");
            for rule in &again.rules {
                let stated = placement.rules.iter().find(|stated| stated.rule == rule.rule);
                let stated = stated.map_or(Answer::Met, |stated| stated.answer);
                add(subject.clone(), stated, rule.answer, &rule.rule.to_string());
            }
        }
        findings
    }
}

/// What the last looks say of some services: no better than the worst of them, no younger than the oldest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastLook {
    /// What it said.
    pub answer: Answer,
    /// Sequence of the receipt.
    pub sequence: u64,
    /// When it was sealed.
    pub at: Timestamp,
    /// How long ago, in milliseconds; `None` where that has yet to come.
    pub age_ms: Option<u64>,
    /// How old it may be, in milliseconds.
    pub valid_ms: Option<u64>,
    /// Whether it still counts.
    pub is_valid: bool,
}

impl LastLook {
    /// Of `receipts`, newest first; `None` where one of the services was never looked for as a whole.
    #[must_use]
    pub fn of(receipts: &[Receipt], services: &[&Service], now: Timestamp) -> Option<Self> {
        let of_service = |service: &&Service| {
            let found = receipts.iter().find_map(|receipt| {
                let Act::Comply(comply) = &receipt.act else { return None };
                let answers = service.sources.iter().map(|source| {
                    let is_it = |placed: &&Placed| {
                        (&placed.case.service, &placed.case.source) == (&service.name, &source.name)
                    };
                    comply.sources.iter().find(is_it).map(|placed| placed.placement.answer)
                });
                let answers: Option<Vec<Answer>> = answers.collect();
                Some((receipt, answers?.into_iter().max()?))
            });
            let (receipt, answer) = found?;
            let (valid, age) = (service.placement.policy.evidence_age, age(now, receipt.at));
            Some(Self {
                answer,
                sequence: receipt.sequence,
                at: receipt.at,
                age_ms: age.and_then(milliseconds),
                valid_ms: milliseconds(valid),
                is_valid: age.is_some_and(|age| age <= valid),
            })
        };
        let looks: Option<Vec<Self>> =
            services.iter().filter(|service| !service.sources.is_empty()).map(of_service).collect();
        let looks = looks?;
        let oldest = looks.iter().min_by_key(|look| (look.is_valid, look.at))?;
        let answer = looks.iter().map(|look| look.answer).max()?;
        Some(Self { answer, ..oldest.clone() })
    }
}

// ------------------------------------------------------------------------------------------------------------- space

/// Room on the file system that a repository lies on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// Bytes that may still be written by who looked.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Bytes that backups and replications have stored there a day; `None` where there are too few to say.
    pub grows_bytes_a_day: Option<u64>,
    /// Days until it is full if that goes on; `None` where it does not grow, or nobody knows.
    pub days_left: Option<u64>,
    /// What the system says of the device's health: nothing where it says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
}

/// Receipts that tell how a repository grows: a month, so that a weekly full run counts as often as it should.
const GROWTH_WITHIN: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Fewer days of receipts than this say nothing of a day: the first backup is not growth.
const GROWTH_DAYS_MIN: u64 = 3;
/// Fewer days than this until it is full are a finding: two weekly looks, and time to act.
const DAYS_LEFT_MIN: u64 = 21;

impl Space {
    /// How long the room is enough if the repository goes on to grow as receipts say that it did.
    ///
    /// The first copy of each source is left out: it is what there was, not what is added. What went in the same time is taken off.
    #[must_use]
    pub fn forecast(free_bytes: u64, total_bytes: u64, points: &[RecoveryPoint], now: Timestamp) -> Self {
        let mut sorted: Vec<&RecoveryPoint> = points.iter().filter(|point| point.finished <= now).collect();
        sorted.sort_by_key(|point| (point.finished, point.sequence));
        let mut started = BTreeSet::new();
        sorted.retain(|point| !started.insert((&point.service, &point.source)));
        let went = sorted.iter().fold(0_u64, |sum, point| match &point.standing {
            PointStanding::Gone { at, .. } if now.duration_since(*at) <= GROWTH_WITHIN => {
                sum.saturating_add(point.stored_bytes)
            }
            PointStanding::Gone { .. }
            | PointStanding::Unproven
            | PointStanding::Proven { .. }
            | PointStanding::Failed { .. } => sum,
        });
        sorted.retain(|point| now.duration_since(point.finished) <= GROWTH_WITHIN);
        let days = sorted.first().map_or(0, |first| {
            u64::try_from(now.duration_since(first.finished).as_secs() / 86_400).unwrap_or(0)
        });
        let stored = sorted.iter().fold(0_u64, |sum, point| sum.saturating_add(point.stored_bytes));
        let stored = stored.saturating_sub(went);
        let grows_bytes_a_day = (days >= GROWTH_DAYS_MIN).then(|| stored / days.max(1));
        let days_left = grows_bytes_a_day.filter(|grows| *grows > 0).map(|grows| free_bytes / grows);
        Self { free_bytes, total_bytes, grows_bytes_a_day, days_left, health: None }
    }

    /// What falls short of a repository.
    #[must_use]
    pub fn findings(&self, repository: &RepositoryName) -> Vec<Finding> {
        let subject = format!("repository {repository}");
        let mut findings = Vec::new();
        // A twentieth: below it file systems slow down, and some keep it for root.
        let is_nearly_full = self.free_bytes < self.total_bytes / 20;
        let is_soon_full = self.days_left.is_some_and(|days| days < DAYS_LEFT_MIN);
        if is_nearly_full || is_soon_full {
            let days = self.days_left.map_or_else(String::new, |days| {
                format!("; it will be full in {days} days if it grows on as in the last month")
            });
            findings.push(Finding::new(
                FindingCode::SpaceShort,
                &subject,
                format!("{} of {} bytes are free{days}", self.free_bytes, self.total_bytes),
            ));
        }
        if let Some(health) = &self.health {
            findings.push(Finding::new(FindingCode::ReadFailed, subject, health.clone()));
        }
        findings
    }
}
