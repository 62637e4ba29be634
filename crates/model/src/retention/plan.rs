//! What becomes of each copy, and why; the digest by which exactly this plan is carried out and no other.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::bucket::Bucket;
use crate::canonical;
use crate::id::{CopyId, Digest, RepositoryId, ServiceName, SourceName};
use crate::signature::sha256;
use crate::verdict::Assurance;

/// A rule that outranks every policy. The text form (`R1`) is API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Rule {
    /// The last good copy stays.
    #[serde(rename = "R1")]
    LastGood,
    /// A source that is not being backed up keeps what it has.
    #[serde(rename = "R2")]
    FreshSource,
    /// Marked first, deleted a day later.
    #[serde(rename = "R3")]
    TwoPhases,
    /// Not much at once.
    #[serde(rename = "R4")]
    NotMuchAtOnce,
    /// What was listed in doubt is not deleted from.
    #[serde(rename = "R5")]
    WholeListing,
    /// Each repository by itself.
    #[serde(rename = "R6")]
    OwnRepository,
    /// Doubted clocks delete nothing.
    #[serde(rename = "R7")]
    BelievedClock,
    /// A period that holds a good copy keeps one.
    #[serde(rename = "R8")]
    FirstOfPeriod,
    /// What is held stays.
    #[serde(rename = "R9")]
    Held,
    /// The order of receipts, not of dates.
    #[serde(rename = "R10")]
    OrderOfReceipts,
    /// A weaker policy begins three days later.
    #[serde(rename = "R11")]
    CoolingOff,
    /// What is set aside neither counts nor goes.
    #[serde(rename = "R12")]
    SetAside,
}

impl Rule {
    /// Every rule, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::LastGood,
        Self::FreshSource,
        Self::TwoPhases,
        Self::NotMuchAtOnce,
        Self::WholeListing,
        Self::OwnRepository,
        Self::BelievedClock,
        Self::FirstOfPeriod,
        Self::Held,
        Self::OrderOfReceipts,
        Self::CoolingOff,
        Self::SetAside,
    ];

    /// The stable text, e.g. `R1`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LastGood => "R1",
            Self::FreshSource => "R2",
            Self::TwoPhases => "R3",
            Self::NotMuchAtOnce => "R4",
            Self::WholeListing => "R5",
            Self::OwnRepository => "R6",
            Self::BelievedClock => "R7",
            Self::FirstOfPeriod => "R8",
            Self::Held => "R9",
            Self::OrderOfReceipts => "R10",
            Self::CoolingOff => "R11",
            Self::SetAside => "R12",
        }
    }

    /// What it says, in one sentence.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::LastGood => {
                "a copy goes only while a newer one is known that is good and at least as proven"
            }
            Self::FreshSource => {
                "nothing goes unless the newest run was good and the newest copy is fresh, whole and not known to be bad"
            }
            Self::TwoPhases => "a copy is marked a day before it is deleted, and looked at again then",
            Self::NotMuchAtOnce => {
                "at most a fifth of a source's copies, and of their bytes, is on the way out at once; more needs an approval"
            }
            Self::WholeListing => "nothing goes while it is doubted what the repository holds",
            Self::OwnRepository => "what one repository holds or has lost decides nothing in another",
            Self::BelievedClock => "nothing goes while dates and the clock contradict each other",
            Self::FirstOfPeriod => "the first good copy of a period stands for it",
            Self::Held => "a copy that is held stays",
            Self::OrderOfReceipts => "newer is what a later receipt tells of, whatever its date",
            Self::CoolingOff => "what an earlier policy kept stays for 72 hours after it was exchanged",
            Self::SetAside => {
                "what is quarantined, unsigned, or found and never restored neither counts nor goes"
            }
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a copy is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// No policy says what is kept, or it says "nothing": then nothing expires.
    NoPolicy,
    /// The policy says that nothing expires.
    Forever,
    /// Younger than the policy's `within`.
    Within,
    /// Among the newest good copies; 1 is the newest.
    Last(u32),
    /// The first good copy of a period that the policy keeps.
    First(Bucket),
    /// No newer copy is known that is good.
    LastGood,
    /// No newer copy is known that is good and whose restore has been shown to work.
    NewestProven,
    /// Incomplete, and no newer copy of any kind is there.
    NewestOfSource,
    /// Incomplete, and young enough that somebody may need what is in it.
    YoungAndIncomplete,
    /// Held, and why.
    Held(String),
    /// In quarantine, and why.
    Quarantined(String),
    /// Not vouched for by a receipt that is signed by a trusted key.
    Unsigned,
    /// Found in its repository, and never shown to restore.
    FoundUnproven,
    /// Of an unknown age.
    Doubted,
}

impl Reason {
    /// Whether the policy itself wants the copy; all other reasons keep it longer.
    #[must_use]
    pub fn is_of_policy(&self) -> bool {
        match self {
            Self::NoPolicy | Self::Forever | Self::Within | Self::Last(_) | Self::First(_) => true,
            Self::LastGood
            | Self::NewestProven
            | Self::NewestOfSource
            | Self::YoungAndIncomplete
            | Self::Held(_)
            | Self::Quarantined(_)
            | Self::Unsigned
            | Self::FoundUnproven
            | Self::Doubted => false,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPolicy => f.write_str("no policy says what expires"),
            Self::Forever => f.write_str("kept for ever"),
            Self::Within => f.write_str("young"),
            Self::Last(1) => f.write_str("the newest"),
            Self::Last(position) => write!(f, "number {position} of the newest"),
            Self::First(bucket) => write!(f, "first good one of {bucket}"),
            Self::LastGood => f.write_str("last good copy"),
            Self::NewestProven => f.write_str("newest proven copy"),
            Self::NewestOfSource => f.write_str("incomplete, and the newest of its source"),
            Self::YoungAndIncomplete => f.write_str("incomplete, and young"),
            Self::Held(why) => write!(f, "held: {why}"),
            Self::Quarantined(why) => write!(f, "in quarantine: {why}"),
            Self::Unsigned => f.write_str("not signed by a trusted key"),
            Self::FoundUnproven => f.write_str("found, and never shown to restore"),
            Self::Doubted => f.write_str("of an unknown age"),
        }
    }
}

/// The newer copy that makes another one dispensable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The copy.
    pub copy: CopyId,
    /// How far it is proven; `None` where nobody has looked.
    pub level: Option<Assurance>,
    /// Sequence of the receipt by which it is known.
    pub sequence: u64,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "copy {} of receipt {}, ", self.copy, self.sequence)?;
        match self.level {
            Some(level) => write!(f, "{level}"),
            None => f.write_str("not yet proven"),
        }
    }
}

/// What becomes of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// It stays, for each of these reasons.
    Keep(Vec<Reason>),
    /// It may go, because of this newer one, which stays.
    Expire(Evidence),
    /// No policy wants it, and it stays because a rule says so.
    Refused {
        /// The rule.
        rule: Rule,
        /// The newest of the most proven good copies that are newer; `None` where there is none.
        newer: Option<Evidence>,
    },
    /// It is not in its repository; there is nothing to decide.
    Absent,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep(reasons) => {
                f.write_str("kept: ")?;
                for (place, reason) in reasons.iter().enumerate() {
                    write!(f, "{}{reason}", if place == 0 { "" } else { "; " })?;
                }
                Ok(())
            }
            Self::Expire(newer) => write!(f, "expires: {newer}, is newer"),
            Self::Refused { rule, .. } => write!(f, "stays by {rule}: {}", rule.words()),
            Self::Absent => f.write_str("gone"),
        }
    }
}

/// What is done about a copy now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// It expires, and is marked.
    Mark,
    /// It expires, and its mark is younger than a day.
    Wait {
        /// When it was marked.
        since: Timestamp,
    },
    /// It expires, and has been marked for a day: it is deleted.
    Delete {
        /// When it was marked.
        since: Timestamp,
    },
    /// It does not expire any more: its mark is taken away, and another day begins if it ever does.
    Unmark,
}

/// A copy, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decided {
    /// The copy.
    pub copy: CopyId,
    /// Sequence of the receipt by which it is known.
    pub sequence: u64,
    /// The instant by which it is young or old, and belongs to a day.
    pub at: Timestamp,
    /// Bytes that it added to the repository.
    pub stored_bytes: u64,
    /// What becomes of it.
    pub decision: Decision,
    /// What is done about that now; `None` where nothing is.
    pub step: Option<Step>,
}

impl Decided {
    /// Whether it is there and no policy wants it: it is kept for longer than was asked for, and the decision says why.
    #[must_use]
    pub fn is_kept_longer(&self) -> bool {
        match &self.decision {
            Decision::Keep(reasons) => !reasons.iter().any(Reason::is_of_policy),
            Decision::Expire(_) | Decision::Refused { .. } => true,
            Decision::Absent => false,
        }
    }
}

impl Decided {
    /// Whether it is kept although no policy wants it, for reasons that time does not take away.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        let Decision::Keep(reasons) = &self.decision else { return false };
        let is_lasting = |reason: &Reason| match reason {
            Reason::Quarantined(_) | Reason::Unsigned | Reason::FoundUnproven | Reason::Doubted => true,
            Reason::NoPolicy
            | Reason::Forever
            | Reason::Within
            | Reason::Last(_)
            | Reason::First(_)
            | Reason::LastGood
            | Reason::NewestProven
            | Reason::NewestOfSource
            | Reason::YoungAndIncomplete
            | Reason::Held(_) => false,
        };
        !reasons.is_empty() && reasons.iter().all(is_lasting)
    }
}

/// A rule that lets nothing of a source go for now, with the facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    /// The rule.
    pub rule: Rule,
    /// The facts; names no age, which would be another one a moment later.
    pub why: String,
}

/// The SHA-256 of a plan: carrying out and approving refer to exactly the plan that was shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlanDigest(pub Digest);

impl fmt::Display for PlanDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// That a copy is to be deleted, said at least a day before. Of one copy's marks the latest is the greatest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark {
    /// The copy.
    pub copy: CopyId,
    /// When it was marked, by the controller's clock.
    pub at: Timestamp,
    /// The plan that marked it.
    pub plan: PlanDigest,
}

/// What becomes of every copy of one source in one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Service.
    pub service: ServiceName,
    /// Source.
    pub source: SourceName,
    /// Repository.
    pub repository: RepositoryId,
    /// Every copy once, in the order in which they were made.
    pub decisions: Vec<Decided>,
    /// Why nothing goes, where nothing does.
    pub suspended: Vec<Suspension>,
    /// The plan that a person has approved, where this is the one: then more than a fifth may go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) approved: Option<PlanDigest>,
}

impl Plan {
    /// The same for the same decisions, whenever they are made, and for no others; an approval does not change it.
    #[must_use]
    pub fn digest(&self) -> PlanDigest {
        if let Some(approved) = &self.approved {
            return approved.clone();
        }
        let value = serde_json::to_value(self).expect("a plan is texts, numbers and lists");
        let bytes = canonical::to_bytes(&canonical::exact(value)).expect("inexact numbers were made texts");
        PlanDigest(sha256(&bytes))
    }

    /// Whether a person has approved exactly this plan.
    #[must_use]
    pub fn is_approved(&self) -> bool {
        self.approved.is_some()
    }

    /// Marks for the copies that expire and have none yet.
    #[must_use]
    pub fn marks(&self, now: Timestamp) -> Vec<Mark> {
        let marked: Vec<&Decided> = self.with(|step| step == Step::Mark).collect();
        if marked.is_empty() {
            return Vec::new();
        }
        let plan = self.digest();
        marked.into_iter().map(|one| Mark { copy: one.copy.clone(), at: now, plan: plan.clone() }).collect()
    }

    /// Copies whose mark is taken away.
    pub fn unmarked(&self) -> impl Iterator<Item = &Decided> {
        self.with(|step| step == Step::Unmark)
    }

    /// Copies that are deleted now: they expire, have been marked for a day, and were looked at again.
    pub fn deleted(&self) -> impl Iterator<Item = &Decided> {
        self.with(|step| matches!(step, Step::Delete { .. }))
    }

    /// The newer copies because of which others are deleted now.
    pub fn newer(&self) -> impl Iterator<Item = &Evidence> {
        self.deleted().filter_map(|one| match &one.decision {
            Decision::Expire(newer) => Some(newer),
            Decision::Keep(_) | Decision::Refused { .. } | Decision::Absent => None,
        })
    }

    /// Copies that stay only because more than a fifth would be on the way out, until this very plan is approved.
    pub fn awaiting_approval(&self) -> impl Iterator<Item = &Decided> {
        self.decisions
            .iter()
            .filter(|one| matches!(one.decision, Decision::Refused { rule: Rule::NotMuchAtOnce, .. }))
    }

    /// Copies that no policy wants, and that no later run will let go unless somebody does something about them.
    pub fn stuck(&self) -> impl Iterator<Item = &Decided> {
        self.decisions.iter().filter(|one| one.is_stuck())
    }

    /// Copies that are kept longer than the policy asks for; the decision of each says why.
    pub fn kept_longer(&self) -> impl Iterator<Item = &Decided> {
        self.decisions.iter().filter(|one| one.is_kept_longer())
    }

    fn with(&self, is_meant: impl Fn(Step) -> bool) -> impl Iterator<Item = &Decided> {
        self.decisions.iter().filter(move |one| one.step.is_some_and(&is_meant))
    }
}
