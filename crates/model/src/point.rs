//! Recovery points, and which of them to take. A choice is made from facts that are given and can be replayed.
//!
//! How a point is drawn at random (kept stable for ever, because receipts record only seed and candidates):
//! 1. The candidates are the complete points with `now − within ≤ point ≤ now`, each copy once, in order of the sequence
//!    of their receipts.
//! 2. For `k` = 0, 1, 2, …: `x` is the first eight bytes, big endian, of SHA-256 over the text `seaworthy-draw-v1`, the
//!    seed (eight bytes, big endian) and `k` (four bytes, big endian).
//! 3. With `n` candidates, `x` is thrown away where it is not below the largest multiple of `n` that 64 bits can hold,
//!    so that every candidate is equally likely. Otherwise the candidate in position `x mod n`, from zero, is taken.
//!
//! A point is never chosen because nothing better was found: absence and ambiguity are errors that carry the facts.

use std::collections::BTreeSet;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::finding::{FindingCode, Severity};
use crate::id::{CopyId, Digest, RunId, ServiceName, SourceName};
use crate::receipt::{Act, CLOCK_STEP, Found, Outcome, Receipt, Replicate, RepositoryRef, Seed, Selection};
use crate::retention::{PlanDigest, Retain};
use crate::signature::sha256;
use crate::verdict::{Assurance, Verdict};

/// What is known of a copy beyond that it was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PointStanding {
    /// Nobody has looked.
    Unproven,
    /// Shown to be good.
    Proven {
        /// The highest level shown since it last failed.
        level: Assurance,
        /// Sequence of the receipt that shows it.
        sequence: u64,
        /// When.
        at: Timestamp,
    },
    /// Shown to be bad, and not shown to be good since.
    Failed {
        /// Sequence of the receipt that shows it.
        sequence: u64,
        /// When.
        at: Timestamp,
        /// Under which codes.
        codes: BTreeSet<FindingCode>,
    },
    /// No longer in its repository.
    Gone {
        /// Sequence of the receipt that says so.
        sequence: u64,
        /// When.
        at: Timestamp,
        /// Whether it was shown to be bad before that, and not to be good since.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        was_bad: bool,
        /// Whether retention had let it go: then it is not missed.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        was_let_go: bool,
    },
}

/// An instant to which a source can be brought, and the copy that does it; derived from receipts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryPoint {
    /// Service.
    pub service: ServiceName,
    /// Source.
    pub source: SourceName,
    /// Sequence of the receipt of the backup, or of the one that says that the copy was found. Points are ordered by it,
    /// see [`in_order`]: a source's clock may be wrong.
    pub sequence: u64,
    /// The run that made it.
    pub run: RunId,
    /// Where the copy lies.
    pub repository: RepositoryRef,
    /// The copy.
    pub copy: CopyId,
    /// The instant, by the source's clock.
    pub point: Timestamp,
    /// When the copy was durable.
    pub finished: Timestamp,
    /// When the run that captured it began; not known of one that was found or is a replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// Whether all of the declared scope is in it.
    pub outcome: Outcome,
    /// Bytes that a restore needs.
    pub restore_bytes: u64,
    /// Bytes that it added to the repository.
    pub stored_bytes: u64,
    /// Digest of its witness.
    pub witness: Option<Digest>,
    /// What has been shown of it.
    pub standing: PointStanding,
    /// Whether it was found in its repository without a receipt of the backup, or is a replica of such a one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was_found: bool,
    /// The copy in another repository that it is a replica of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica_of: Option<CopyId>,
    /// Whether its capture found something that no healthy source has, e.g. that it is empty: it may be restored, and never stands for
    /// a good copy where copies are let go.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_implausible: bool,
    /// That it is to go, where a plan has said so and none has taken it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<PointMark>,
    /// Whether it was dated by a clock that ran ahead and was set right since, so that its age is not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_doubted: bool,
}

/// That a copy is to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointMark {
    /// When that was sealed.
    pub at: Timestamp,
    /// The plan that says so.
    pub plan: PlanDigest,
    /// Sequence of the receipt.
    pub sequence: u64,
    /// Whether a later receipt says that it is being removed: then it may have gone already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_being_removed: bool,
}

/// The latest instant that a copy brings its source back to for certain, and whether the source dated it after its end: such a copy is
/// of when its run began, or of when it was durable where that is not known.
#[must_use]
pub fn settled(dated: Timestamp, began: Option<Timestamp>, ended: Timestamp) -> (Timestamp, bool) {
    let is_future_dated = dated.duration_since(ended) > CLOCK_STEP;
    let latest = if is_future_dated { began.unwrap_or(ended) } else { dated };
    (latest.min(ended), is_future_dated)
}

impl RecoveryPoint {
    /// The point that a receipt has made; `None` unless it is of a backup that stored a copy, or of a copy that was found.
    #[must_use]
    pub fn made_by(receipt: &Receipt) -> Option<Self> {
        let backup = match &receipt.act {
            Act::Backup(backup) => backup,
            Act::Found(found) => return Some(Self::found(receipt, found)),
            Act::Replicate(replicate) => return Self::replicated(receipt, replicate),
            Act::Due(_)
            | Act::Drill(_)
            | Act::Restore(_)
            | Act::Verify(_)
            | Act::Abandoned(_)
            | Act::KeyChange(_)
            | Act::Gone(_)
            | Act::Retain(_)
            | Act::Hold(_)
            | Act::Release(_)
            | Act::Approve(_)
            | Act::Prune(_)
            | Act::Key(_)
            | Act::Comply(_) => return None,
        };
        Some(Self {
            service: backup.service.clone(),
            source: backup.source.clone(),
            sequence: receipt.sequence,
            run: backup.run.clone(),
            repository: backup.repository.clone(),
            copy: backup.copy.clone()?,
            point: backup.point?,
            finished: backup.finished,
            started: Some(backup.started),
            outcome: backup.outcome,
            restore_bytes: backup.sizes.restore_bytes,
            stored_bytes: backup.sizes.stored_bytes,
            witness: backup.witness.clone(),
            standing: PointStanding::Unproven,
            was_found: false,
            replica_of: None,
            is_implausible: backup.findings.iter().any(|one| one.code.severity() == Severity::Critical),
            mark: None,
            is_doubted: false,
        })
    }

    /// The same, where the copy was known before: that it is found again does not answer that it was shown to be bad.
    #[must_use]
    pub fn known_as(mut self, before: Option<&Self>) -> Self {
        self.is_doubted |= before.is_some_and(|before| before.is_doubted);
        match before.map(|before| &before.standing) {
            Some(failed @ PointStanding::Failed { .. }) => self.standing = failed.clone(),
            Some(PointStanding::Gone { sequence, at, was_bad: true, .. }) => {
                let codes = BTreeSet::new();
                self.standing = PointStanding::Failed { sequence: *sequence, at: *at, codes };
            }
            Some(_) | None => {}
        }
        self
    }

    /// The same, where it is a replica of `original`: a second copy says no more of who wrote it, and of its age, than the first.
    #[must_use]
    pub fn descended_from(mut self, original: Option<&Self>) -> Self {
        if let Some(original) = original {
            self.was_found |= original.was_found;
            self.is_doubted |= original.is_doubted;
        }
        self
    }

    fn found(receipt: &Receipt, found: &Found) -> Self {
        Self {
            service: found.service.clone(),
            source: found.source.clone(),
            sequence: receipt.sequence,
            run: found.run.clone(),
            repository: found.repository.clone(),
            copy: found.copy.clone(),
            point: found.point,
            finished: found.finished.min(receipt.at),
            started: None,
            outcome: found.outcome,
            restore_bytes: found.restore_bytes,
            stored_bytes: found.stored_bytes,
            witness: found.witness.clone(),
            standing: PointStanding::Unproven,
            was_found: true,
            replica_of: None,
            is_implausible: false,
            mark: None,
            is_doubted: false,
        }
    }

    fn replicated(receipt: &Receipt, replicate: &Replicate) -> Option<Self> {
        Some(Self {
            service: replicate.service.clone(),
            source: replicate.source.clone(),
            sequence: receipt.sequence,
            run: replicate.captured_by.clone(),
            repository: replicate.repository.clone(),
            copy: replicate.copy.clone()?,
            point: replicate.point,
            // What it holds is as old as the original, whenever it came here.
            finished: replicate.captured.min(receipt.at),
            started: replicate.capture_began,
            outcome: replicate.outcome,
            restore_bytes: replicate.restore_bytes,
            // Of what several have added together, an equal part.
            stored_bytes: replicate.moved.stored_bytes / replicate.moved.copies.max(1),
            witness: replicate.witness.clone(),
            standing: PointStanding::Unproven,
            was_found: false,
            replica_of: Some(replicate.original.clone()),
            is_implausible: replicate.is_implausible,
            mark: None,
            is_doubted: replicate.is_doubted,
        })
    }

    /// The latest instant that it brings the source back to for certain ([`settled`]).
    #[must_use]
    pub fn instant(&self) -> Timestamp {
        settled(self.point, self.started, self.finished).0
    }

    /// Whether its receipt was written when the copy was captured, so that the order of receipts is that of the captures.
    #[must_use]
    pub fn is_captured(&self) -> bool {
        !self.was_found && self.replica_of.is_none()
    }

    /// Takes over what a later receipt shows of this copy; receipts of other copies change nothing.
    pub fn apply(&mut self, receipt: &Receipt) {
        match &receipt.act {
            Act::Drill(drill) if drill.copy == self.copy && drill.repository.id == self.repository.id => {
                match drill.verdict {
                    Verdict::Fail if !drill.blames_the_copy() => {}
                    Verdict::Fail => {
                        self.failed(receipt, drill.findings.iter().map(|finding| finding.code).collect());
                    }
                    Verdict::Inconclusive => {}
                    Verdict::Pass(_) => {
                        if let Some(level) = drill.proves() {
                            self.proven(receipt, level);
                        }
                    }
                }
            }
            Act::Verify(verify) if verify.repository.id == self.repository.id => {
                match verify.copies.iter().find(|one| one.copy == self.copy) {
                    Some(one) if one.intact => self.proven(receipt, Assurance::A2),
                    Some(_) => {
                        self.failed(receipt, verify.findings.iter().map(|finding| finding.code).collect());
                    }
                    None => {}
                }
            }
            Act::Gone(gone) if gone.copy == self.copy && gone.repository.id == self.repository.id => {
                let was_bad = match &self.standing {
                    PointStanding::Failed { .. } => true,
                    PointStanding::Gone { was_bad, .. } => *was_bad,
                    PointStanding::Unproven | PointStanding::Proven { .. } => false,
                };
                // That it was marked says no more than that it was to go: somebody else may have removed it.
                let was_let_go = matches!(self.standing, PointStanding::Gone { was_let_go: true, .. })
                    || self.mark.as_ref().is_some_and(|mark| mark.is_being_removed);
                let (sequence, at) = (receipt.sequence, receipt.at);
                self.standing = PointStanding::Gone { sequence, at, was_bad, was_let_go };
                self.mark = None;
            }
            Act::Retain(retain) if retain.repository.id == self.repository.id => {
                self.retained(receipt, retain);
            }
            Act::Due(_)
            | Act::Backup(_)
            | Act::Drill(_)
            | Act::Restore(_)
            | Act::Verify(_)
            | Act::Abandoned(_)
            | Act::KeyChange(_)
            | Act::Found(_)
            | Act::Gone(_)
            | Act::Replicate(_)
            | Act::Retain(_)
            | Act::Hold(_)
            | Act::Release(_)
            | Act::Approve(_)
            | Act::Prune(_)
            | Act::Key(_)
            | Act::Comply(_) => {}
        }
    }

    fn retained(&mut self, receipt: &Receipt, retain: &Retain) {
        if retain.unmarked.iter().any(|one| one.copy == self.copy) {
            self.mark = None;
        }
        if retain.marked.iter().any(|one| one.copy == self.copy) {
            self.mark = Some(PointMark {
                at: receipt.at,
                plan: retain.plan.clone(),
                sequence: receipt.sequence,
                is_being_removed: false,
            });
        }
        if let Some(mark) = &mut self.mark
            && retain.removing.iter().any(|one| one.copy == self.copy)
        {
            mark.is_being_removed = true;
        }
    }

    /// A receipt was sealed at `at`, long before the date of the one before it: the clock had run ahead, and was set right. What it
    /// had dated is of an unknown age, for good.
    pub fn set_back(&mut self, at: Timestamp) {
        self.is_doubted |= self.point.max(self.finished).duration_since(at) > CLOCK_STEP;
        if let Some(mark) = &mut self.mark
            && mark.at.duration_since(at) > CLOCK_STEP
        {
            // It has been marked since now, as far as anybody knows.
            mark.at = at;
        }
    }

    fn failed(&mut self, receipt: &Receipt, codes: BTreeSet<FindingCode>) {
        self.standing = PointStanding::Failed { sequence: receipt.sequence, at: receipt.at, codes };
    }

    fn proven(&mut self, receipt: &Receipt, level: Assurance) {
        // That the bytes are intact does not answer a restore that went wrong.
        let is_enough = match &self.standing {
            // A copy that can be read has come back.
            PointStanding::Unproven | PointStanding::Gone { .. } => true,
            PointStanding::Proven { level: before, .. } => level >= *before,
            PointStanding::Failed { .. } => level >= Assurance::A3,
        };
        if is_enough {
            self.standing = PointStanding::Proven { level, sequence: receipt.sequence, at: receipt.at };
        }
    }

    /// Whether the copy was no longer in its repository when somebody last looked.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self.standing, PointStanding::Gone { .. })
    }

    /// Whether a restore of this very copy has been shown to work, and nothing since has shown otherwise.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        matches!(self.standing, PointStanding::Proven { level, .. } if level >= Assurance::A3)
    }
}

/// Which point to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PointRule {
    /// The newest complete one.
    Latest,
    /// The newest complete one whose restore has been shown to work.
    LatestProven,
    /// The one whose copy's id begins so; an incomplete one too, since it was asked for by name.
    Copy(String),
    /// The newest complete one that is not after this instant.
    Before(Timestamp),
    /// A complete one from this window, drawn.
    Random {
        /// Length of the window that ends now.
        within: SignedDuration,
        /// What is drawn from.
        seed: Seed,
    },
}

/// Why a text is not a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` names no point; use `latest`, `latest-proven`, `random`, `before:2026-11-21T03:00:00Z` or the first 4 or more digits of a copy's id"
)]
pub struct PointRuleError(pub String);

impl PointRule {
    /// Reads `latest`, `latest-proven`, `random`, `before:<instant>` or the beginning of a copy's id; window and seed are
    /// used by `random` alone.
    pub fn parse(text: &str, within: SignedDuration, seed: Seed) -> Result<Self, PointRuleError> {
        let wrong = || PointRuleError(text.to_owned());
        match text {
            "latest" => Ok(Self::Latest),
            "latest-proven" => Ok(Self::LatestProven),
            "random" => Ok(Self::Random { within, seed }),
            _ => match text.strip_prefix("before:") {
                Some(instant) => instant.parse().map(Self::Before).map_err(|_| wrong()),
                None if (4..=64).contains(&text.len())
                    && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) =>
                {
                    Ok(Self::Copy(text.to_owned()))
                }
                None => Err(wrong()),
            },
        }
    }
}

impl fmt::Display for PointRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::LatestProven => f.write_str("latest-proven"),
            Self::Copy(prefix) => write!(f, "copy {prefix}"),
            Self::Before(instant) => write!(f, "before {instant}"),
            Self::Random { within, .. } => write!(f, "random in {within}"),
        }
    }
}

/// The point that was taken, and what goes into the receipt about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected<'a> {
    /// The point.
    pub point: &'a RecoveryPoint,
    /// How it was chosen.
    pub selection: Selection,
    /// Points newer than it that the rule did not allow: incomplete, or not proven.
    pub passed_over: usize,
}

/// Why no point was taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// There is none at all.
    #[error("there is no recovery point; run `seaworthy backup` first")]
    NoPoint,
    /// There are some, and the rule allows none of them.
    #[error(
        "none of {known} recovery points is `{rule}` (oldest {oldest}, newest {newest}, {incomplete} incomplete, {proven} proven)"
    )]
    NoneAllowed {
        /// The rule.
        rule: String,
        /// How many there are.
        known: usize,
        /// The first instant.
        oldest: Timestamp,
        /// The last instant.
        newest: Timestamp,
        /// How many are incomplete.
        incomplete: usize,
        /// How many are proven.
        proven: usize,
    },
    /// Several copies' ids begin so.
    #[error("`{prefix}` is the beginning of {} copies: {}", matches.len(), matches.join(", "))]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// The ids.
        matches: Vec<String>,
    },
}

/// Puts points in the order in which they were made.
///
/// That of their receipts. A copy that was found later, and a replica, have no receipt of their making: they stand where the
/// time of their capture puts them among the others, never before a point whose receipt is older than that time.
pub fn in_order(points: &mut Vec<&RecoveryPoint>) {
    points.sort_by(|a, b| (a.sequence, &a.copy).cmp(&(b.sequence, &b.copy)));
    let mut made: Vec<(Timestamp, &RecoveryPoint)> = Vec::with_capacity(points.len());
    let mut latest = Timestamp::MIN;
    for point in points.drain(..) {
        // Of points with receipts the order is that of the receipts, whatever their clocks said.
        let at = if point.is_captured() { latest.max(point.finished) } else { point.finished };
        if point.is_captured() {
            latest = at;
        }
        made.push((at, point));
    }
    made.sort_by(|(a, one), (b, other)| (a, one.sequence, &one.copy).cmp(&(b, other.sequence, &other.copy)));
    points.extend(made.into_iter().map(|(_, point)| point));
}

/// Of the points of one source in one repository, the one that a new copy may build upon, and the newest instant of one that was shown
/// to be bad: the last one captured, unless it was shown to be bad, has gone, or is about to.
#[must_use]
pub fn to_build_upon(points: &[RecoveryPoint]) -> (Option<&RecoveryPoint>, Option<Timestamp>) {
    let is_bad = |point: &&RecoveryPoint| match &point.standing {
        PointStanding::Failed { .. } => true,
        PointStanding::Gone { was_bad, .. } => *was_bad,
        PointStanding::Unproven | PointStanding::Proven { .. } => false,
    };
    let last = points.iter().filter(|point| point.is_captured()).max_by_key(|point| point.sequence);
    let is_sound = |point: &&RecoveryPoint| {
        let goes = point.mark.as_ref().is_some_and(|mark| mark.is_being_removed);
        !is_bad(point) && !point.is_gone() && !goes && point.outcome != Outcome::Failed
    };
    (last.filter(is_sound), points.iter().filter(is_bad).map(|point| point.point).max())
}

/// Takes a point by a rule. The order in which points are given does not matter, and one that is gone is not taken.
pub fn select<'a>(
    points: &'a [RecoveryPoint],
    rule: &PointRule,
    now: Timestamp,
) -> Result<Selected<'a>, SelectError> {
    let mut known: Vec<&RecoveryPoint> = points.iter().filter(|point| !point.is_gone()).collect();
    in_order(&mut known);
    let mut seen = BTreeSet::new();
    known.retain(|point| seen.insert((&point.repository.id, &point.copy)));

    let mut allowed: Vec<&RecoveryPoint> = known
        .iter()
        .copied()
        .filter(|point| {
            let is_complete = point.outcome == Outcome::Complete;
            match rule {
                PointRule::Latest => is_complete,
                PointRule::LatestProven => is_complete && point.is_proven(),
                PointRule::Copy(prefix) => point.copy.0.starts_with(prefix.as_str()),
                PointRule::Before(instant) => is_complete && point.point <= *instant,
                PointRule::Random { within, .. } => {
                    let age = now.duration_since(point.point);
                    is_complete && !age.is_negative() && age <= *within
                }
            }
        })
        .collect();
    if let PointRule::Before(_) = rule {
        allowed.sort_by_key(|point| (point.point, point.sequence));
    }

    let (first, last) = match (known.first(), allowed.last()) {
        (None, _) => return Err(SelectError::NoPoint),
        (Some(first), None) => return Err(none_allowed(&known, first, rule)),
        (Some(_), Some(last)) => (allowed[0], *last),
    };
    if let PointRule::Copy(prefix) = rule
        && first.copy != last.copy
    {
        let matches = allowed.iter().map(|point| point.copy.0.clone()).collect();
        return Err(SelectError::Ambiguous { prefix: prefix.clone(), matches });
    }
    let (point, seed) = match rule {
        PointRule::Random { seed, .. } => (allowed[draw(*seed, allowed.len())], Some(*seed)),
        PointRule::Latest | PointRule::LatestProven | PointRule::Copy(_) | PointRule::Before(_) => {
            (last, None)
        }
    };
    let passed_over = match rule {
        PointRule::Latest | PointRule::LatestProven => {
            known.iter().rev().take_while(|other| other.copy != point.copy).count()
        }
        PointRule::Copy(_) | PointRule::Before(_) | PointRule::Random { .. } => 0,
    };
    let ids: String = allowed.iter().map(|point| format!("{}\n", point.copy)).collect();
    Ok(Selected {
        point,
        selection: Selection {
            rule: rule.to_string(),
            seed,
            candidates: u64::try_from(allowed.len()).expect("a list in memory has fewer than 2^64 items"),
            candidates_digest: sha256(ids.as_bytes()),
        },
        passed_over,
    })
}

fn none_allowed(known: &[&RecoveryPoint], first: &RecoveryPoint, rule: &PointRule) -> SelectError {
    let instants = || known.iter().map(|point| point.point);
    SelectError::NoneAllowed {
        rule: rule.to_string(),
        known: known.len(),
        oldest: instants().min().unwrap_or(first.point),
        newest: instants().max().unwrap_or(first.point),
        incomplete: known.iter().filter(|point| point.outcome != Outcome::Complete).count(),
        proven: known.iter().filter(|point| point.is_proven()).count(),
    }
}

/// A position below `count`, which must not be zero; see the module's story for the algorithm.
#[must_use]
pub fn draw(seed: Seed, count: usize) -> usize {
    let count = u64::try_from(count).unwrap_or(u64::MAX).max(1);
    let mut attempt = 0_u32;
    loop {
        let mut hash = Sha256::new();
        hash.update(b"seaworthy-draw-v1");
        hash.update(seed.0.to_be_bytes());
        hash.update(attempt.to_be_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&hash.finalize()[..8]);
        let x = u64::from_be_bytes(first);
        if is_fair(x, count) {
            return usize::try_from(x % count).expect("below a count that was a usize");
        }
        attempt = attempt.wrapping_add(1);
    }
}

/// Whether `x` lies below the largest multiple of `count` that 64 bits can hold; `count` is not zero.
fn is_fair(x: u64, count: u64) -> bool {
    let thrown_away = (u64::MAX % count + 1) % count;
    x <= u64::MAX - thrown_away
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::wal::{MOMENT, Target};

    use super::*;
    use crate::example::{self, About};
    use crate::finding::Finding;
    use crate::receipt::{read_unverified, seal};
    use crate::signature::SigningKey;

    fn day(n: i64) -> Timestamp {
        "2026-11-01T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_hours(24 * n)
    }

    fn receipt(act: &Act, sequence: u64) -> Receipt {
        let envelope = seal(act, day(30), None, &SigningKey::from_random(&[1; 32])).unwrap();
        Receipt { sequence, ..read_unverified(&envelope).unwrap() }
    }

    fn points(count: u64) -> Vec<RecoveryPoint> {
        (0..count)
            .map(|n| {
                let about = About::new("shop", "db", day(i64::try_from(n).unwrap()));
                let act = Act::Backup(Box::new(example::backup(&about, None)));
                RecoveryPoint::made_by(&receipt(&act, n + 1)).unwrap()
            })
            .collect()
    }

    #[test]
    fn only_the_last_copy_is_built_upon_and_only_while_it_is_good() {
        let mut all = points(3);
        let of = |points: &[RecoveryPoint]| {
            let (upon, bad) = to_build_upon(points);
            (upon.map(|point| point.sequence), bad)
        };
        assert_eq!(of(&[]), (None, None));
        assert_eq!(of(&all), (Some(3), None));
        drilled(&mut all[1], false, 7);
        assert_eq!(of(&all), (Some(3), Some(day(1))));
        drilled(&mut all[2], false, 8);
        // Nothing is built upon one before it: what lies between would be missing.
        assert_eq!(of(&all), (None, Some(day(2))));
        drilled(&mut all[2], true, 9);
        assert_eq!(of(&all), (Some(3), Some(day(1))));
        all[2].mark = Some(PointMark {
            at: day(4),
            plan: PlanDigest(sha256(b"plan")),
            sequence: 10,
            is_being_removed: true,
        });
        assert_eq!(of(&all), (None, Some(day(1))));
        all[2].mark = None;
        all[2].replica_of = Some(CopyId("x".to_owned()));
        assert_eq!(of(&all), (None, Some(day(1))));
    }

    #[test]
    fn a_log_that_leads_nowhere_says_nothing_of_the_copy_before_it() {
        let standing = |until: Option<Target>, name: &str| {
            let mut point = points(1).remove(0);
            let about = About::new("shop", "db", point.point);
            let mut drill = example::failed_drill(&about, None, &example::backup(&about, None), None);
            drill.until = until;
            drill.checks[1].name = name.to_owned();
            point.apply(&receipt(&Act::Drill(Box::new(drill)), 9));
            matches!(point.standing, PointStanding::Failed { .. })
        };
        assert!(!standing(Some(Target::Latest), MOMENT));
        assert!(standing(None, MOMENT) && standing(Some(Target::Latest), "rows:public.orders"));
    }

    fn drilled(point: &mut RecoveryPoint, is_good: bool, sequence: u64) {
        let about = About::new("shop", "db", point.point);
        let (backup, about) = (example::backup(&about, None), About::new("shop", "db", day(29)));
        let drill = if is_good {
            example::drill(&about, None, &backup, None)
        } else {
            example::failed_drill(&about, None, &backup, None)
        };
        point.apply(&receipt(&Act::Drill(Box::new(drill)), sequence));
    }

    #[test]
    fn a_copy_that_is_later_than_its_run_is_of_when_that_began() {
        let nano = SignedDuration::from_nanos(1);
        let (began, ended) = (day(1), day(2));
        assert_eq!(settled(began, Some(began), ended), (began, false));
        // A clock may be a little ahead; then it is of when it ended.
        assert_eq!(settled(ended + CLOCK_STEP, Some(began), ended), (ended, false));
        assert_eq!(settled(ended + CLOCK_STEP + nano, Some(began), ended), (began, true));
        assert_eq!(settled(ended + CLOCK_STEP + nano, None, ended), (ended, true));
        let mut point = points(1).remove(0);
        assert_eq!(point.instant(), point.point);
        point.point = point.finished + CLOCK_STEP + nano;
        assert_eq!(Some(point.instant()), point.started);
    }

    #[test]
    fn a_doubt_about_a_copy_goes_on_to_its_replicas_and_outlives_a_second_look() {
        let all = points(2);
        let with = |is_doubted: bool| RecoveryPoint { is_doubted, ..all[0].clone() };
        for (own, before, expected) in
            [(false, false, false), (false, true, true), (true, false, true), (true, true, true)]
        {
            assert_eq!(with(own).known_as(Some(&with(before))).is_doubted, expected);
            assert_eq!(with(own).descended_from(Some(&with(before))).is_doubted, expected);
            let found = |was_found: bool| RecoveryPoint { was_found, ..all[0].clone() };
            assert_eq!(found(own).descended_from(Some(&found(before))).was_found, expected);
        }
        assert!(with(true).known_as(None).is_doubted && with(true).descended_from(None).is_doubted);
    }

    #[test]
    fn what_several_replicas_have_stored_together_is_shared_out() {
        let backup = example::backup(&About::new("shop", "db", day(1)), None);
        let mut replicate = example::replicate(&backup, 1, day(2));
        (replicate.moved.copies, replicate.moved.stored_bytes) = (4, 100);
        let made = |replicate: &Replicate| {
            let act = Act::Replicate(Box::new(replicate.clone()));
            RecoveryPoint::made_by(&receipt(&act, 2)).unwrap().stored_bytes
        };
        assert_eq!(made(&replicate), 25);
        replicate.moved.copies = 0;
        assert_eq!(made(&replicate), 100);
    }

    #[test]
    fn a_mark_is_of_one_copy_in_one_repository() {
        let (of, other) = (
            example::backup(&About::new("shop", "db", day(1)), None),
            example::backup(&About::new("shop", "db", day(2)), None),
        );
        let act = Act::Backup(Box::new(of.clone()));
        let made = RecoveryPoint::made_by(&receipt(&act, 1)).unwrap();
        let about = About::new("shop", "db", day(3));
        let told = |point: &mut RecoveryPoint, retain: Retain, sequence: u64| {
            point.apply(&receipt(&Act::Retain(Box::new(retain)), sequence));
        };
        let mut point = made.clone();
        told(&mut point, example::retain(&about, &[&other], &[], &[]), 4);
        assert_eq!(point.mark, None);
        let mut elsewhere = example::retain(&about, &[&of], &[], &[]);
        elsewhere.repository.id = crate::id::RepositoryId("9".repeat(64));
        told(&mut point, elsewhere, 5);
        assert_eq!(point.mark, None);
        told(&mut point, example::retain(&about, &[&of], &[], &[]), 6);
        let mark = point.mark.clone().unwrap();
        assert_eq!((mark.sequence, mark.at, mark.is_being_removed), (6, day(30), false));
        told(&mut point, example::retain(&about, &[], &[&other], &[&other]), 7);
        assert_eq!(point.mark.as_ref(), Some(&mark));
        told(&mut point, example::retain(&about, &[], &[], &[&of]), 8);
        assert!(point.mark.as_ref().unwrap().is_being_removed);
        told(&mut point, example::retain(&about, &[], &[&of], &[]), 9);
        assert_eq!(point.mark, None);
    }

    #[test]
    fn what_a_clock_that_ran_ahead_has_dated_is_of_an_unknown_age() {
        let nano = SignedDuration::from_nanos(1);
        let made = points(1).remove(0);
        let set_back = |point: &RecoveryPoint, at: Timestamp| {
            let mut point = point.clone();
            point.set_back(at);
            point
        };
        let last = made.point.max(made.finished);
        assert!(!set_back(&made, last - CLOCK_STEP).is_doubted);
        let doubted = set_back(&made, last - CLOCK_STEP - nano);
        assert!(doubted.is_doubted && set_back(&doubted, last).is_doubted, "for good");
        let plan = PlanDigest(sha256(b"plan"));
        let mark = PointMark { at: day(20), plan, sequence: 3, is_being_removed: false };
        let marked = RecoveryPoint { mark: Some(mark), ..made };
        let at = |when: Timestamp| set_back(&marked, when).mark.unwrap().at;
        assert_eq!(at(day(20) - CLOCK_STEP), day(20));
        assert_eq!(at(day(20) - CLOCK_STEP - nano), day(20) - CLOCK_STEP - nano);
        assert_eq!(at(day(25)), day(20));
    }

    fn random(seed: u64) -> PointRule {
        PointRule::Random { within: SignedDuration::from_hours(24 * 10), seed: Seed(seed) }
    }

    #[test]
    fn latest_is_the_newest_complete_point_and_says_what_it_passed_over() {
        let mut points = points(5);
        points[4].outcome = Outcome::Incomplete;
        let selected = select(&points, &PointRule::Latest, day(9)).unwrap();
        assert_eq!((selected.point.sequence, selected.passed_over), (4, 1));
        assert_eq!(selected.selection.candidates, 4);
    }

    #[test]
    fn a_source_whose_clock_runs_ahead_does_not_hide_newer_points() {
        let mut points = points(3);
        points[0].point = day(4_000);
        assert_eq!(select(&points, &PointRule::Latest, day(9)).unwrap().point.sequence, 3);
    }

    #[test]
    fn latest_proven_needs_a_restore_that_worked_and_nothing_since_that_did_not() {
        let mut points = points(4);
        assert!(matches!(
            select(&points, &PointRule::LatestProven, day(9)),
            Err(SelectError::NoneAllowed { known: 4, proven: 0, .. })
        ));
        drilled(&mut points[1], true, 10);
        drilled(&mut points[2], true, 11);
        drilled(&mut points[2], false, 12);
        let of = example::backup(&About::new("shop", "db", points[3].point), None);
        let verify = example::verify(&About::new("x", "x", day(9)), &[(&of, None)], true);
        let verify = receipt(&Act::Verify(Box::new(verify)), 13);
        points.iter_mut().for_each(|point| point.apply(&verify));
        assert!(matches!(points[3].standing, PointStanding::Proven { level: Assurance::A2, .. }));
        assert_eq!(select(&points, &PointRule::LatestProven, day(9)).unwrap().point.sequence, 2);
    }

    #[test]
    fn intact_bytes_do_not_answer_a_restore_that_went_wrong() {
        let mut point = points(1).remove(0);
        drilled(&mut point, false, 2);
        let of = example::backup(&About::new("shop", "db", point.point), None);
        let verify = example::verify(&About::new("x", "x", day(9)), &[(&of, None)], true);
        point.apply(&receipt(&Act::Verify(Box::new(verify)), 3));
        assert!(matches!(point.standing, PointStanding::Failed { sequence: 2, .. }));
        drilled(&mut point, true, 4);
        assert!(point.is_proven());
    }

    #[test]
    fn a_beginning_of_an_id_must_name_one_copy() {
        let mut points = points(3);
        points[0].copy = CopyId(format!("aaaa0{}", "0".repeat(59)));
        points[1].copy = CopyId(format!("aaaa1{}", "0".repeat(59)));
        points[1].outcome = Outcome::Incomplete;
        let by = |prefix: &str| select(&points, &PointRule::Copy(prefix.to_owned()), day(9));
        assert_eq!(by("aaaa1").unwrap().point.sequence, 2, "asked for by name, incomplete or not");
        assert!(matches!(by("aaaa"), Err(SelectError::Ambiguous { matches, .. }) if matches.len() == 2));
        assert!(matches!(by("ffff00000000"), Err(SelectError::NoneAllowed { .. })));
        assert_eq!(select(&[], &PointRule::Latest, day(9)), Err(SelectError::NoPoint));
    }

    #[test]
    fn before_an_instant_means_not_after_it() {
        let points = points(5);
        let before =
            |instant| select(&points, &PointRule::Before(instant), day(9)).map(|one| one.point.sequence);
        assert_eq!(before(day(2)), Ok(3));
        assert_eq!(before(day(2) - SignedDuration::from_nanos(1)), Ok(2));
        assert!(before(day(0) - SignedDuration::from_nanos(1)).is_err());
    }

    fn found(point: Timestamp, sequence: u64) -> RecoveryPoint {
        let backup = example::backup(&About::new("shop", "db", point), None);
        let act = Act::Found(Box::new(example::found(&backup)));
        RecoveryPoint::made_by(&receipt(&act, sequence)).unwrap()
    }

    #[test]
    fn a_copy_that_was_found_later_stands_where_its_own_time_puts_it() {
        let mut points = points(3);
        points.push(found(day(1) + SignedDuration::from_hours(1), 9));
        assert_eq!(select(&points, &PointRule::Latest, day(9)).unwrap().point.sequence, 3);
        points.push(found(day(8), 8));
        let selected = select(&points, &PointRule::Latest, day(9)).unwrap();
        assert_eq!((selected.point.sequence, selected.passed_over), (8, 0));
        // The order of receipts stands, whatever their clocks said.
        points[0].finished = day(20);
        let mut order: Vec<&RecoveryPoint> = points.iter().collect();
        in_order(&mut order);
        let sequences: Vec<u64> = order.iter().map(|point| point.sequence).collect();
        assert_eq!(sequences, [9, 8, 1, 2, 3]);
    }

    #[test]
    fn a_replica_is_as_old_as_its_original_and_nothing_is_shown_of_it_yet() {
        let backup = |n| example::backup(&About::new("shop", "db", day(n)), None);
        let replica = |n, sequence| {
            let act = Act::Replicate(Box::new(example::replicate(&backup(n), 1, day(9))));
            RecoveryPoint::made_by(&receipt(&act, sequence)).unwrap()
        };
        let (newer, older) = (replica(5, 20), replica(2, 21));
        assert_eq!((newer.point, newer.finished), (day(5), backup(5).finished));
        assert_eq!((newer.run.clone(), newer.replica_of.clone()), (backup(5).run, backup(5).copy));
        assert!(newer.copy != backup(5).copy.unwrap() && newer.standing == PointStanding::Unproven);
        assert!(!newer.was_found && !newer.is_captured());
        // Newest first is how a backlog is replicated.
        let both = [older, newer];
        assert_eq!(select(&both, &PointRule::Latest, day(9)).unwrap().point.point, day(5));
        assert!(!both[0].is_implausible);
        let mut odd = backup(1);
        odd.findings.push(Finding::new(FindingCode::PointImplausible, "shop/db", "it is empty"));
        let made = |act| RecoveryPoint::made_by(&receipt(&act, 22)).unwrap().is_implausible;
        assert!(made(Act::Backup(Box::new(odd.clone()))));
        let passed_on = Replicate { is_implausible: true, ..example::replicate(&odd, 1, day(9)) };
        assert!(made(Act::Replicate(Box::new(passed_on))));
        odd.findings = vec![Finding::new(FindingCode::ScopeNarrow, "shop/db", "a warning")];
        assert!(!made(Act::Backup(Box::new(odd))));
        let mut failed = example::replicate(&backup(1), 1, day(9));
        failed.copy = None;
        assert!(RecoveryPoint::made_by(&receipt(&Act::Replicate(Box::new(failed)), 22)).is_none());
    }

    #[test]
    fn a_copy_that_is_gone_is_not_taken_and_may_come_back() {
        let mut points = points(2);
        let backup = example::backup(&About::new("shop", "db", day(1)), None);
        points[1].apply(&receipt(&Act::Gone(Box::new(example::gone(&backup, 2))), 7));
        assert!(points[1].is_gone() && !points[0].is_gone());
        assert_eq!(select(&points, &PointRule::Latest, day(9)).unwrap().point.sequence, 1);
        let by_name = PointRule::Copy(points[1].copy.0.clone());
        assert!(select(&points, &by_name, day(9)).is_err());
        drilled(&mut points[1], true, 8);
        assert!(points[1].is_proven());
    }

    #[test]
    fn only_receipts_of_this_very_copy_change_what_is_known_of_it() {
        let of = |n| example::backup(&About::new("shop", "db", day(n)), None);
        let about = About::new("shop", "db", day(29));
        let elsewhere =
            RepositoryRef { id: crate::id::RepositoryId("other".to_owned()), ..example::repository() };
        let drills = [(0, None), (1, None), (0, Some(&elsewhere))].map(|(n, place)| {
            let mut drill = example::drill(&about, None, &of(n), None);
            drill.repository = place.cloned().unwrap_or(drill.repository);
            Act::Drill(Box::new(drill))
        });
        let verifies = [(0, None), (1, None), (0, Some(&elsewhere))].map(|(n, place)| {
            let mut verify = example::verify(&about, &[(&of(n), None)], true);
            verify.repository = place.cloned().unwrap_or(verify.repository);
            Act::Verify(Box::new(verify))
        });
        let gone = [(0, None), (1, None), (0, Some(&elsewhere))].map(|(n, place)| {
            let mut gone = example::gone(&of(n), 1);
            gone.repository = place.cloned().unwrap_or(gone.repository);
            Act::Gone(Box::new(gone))
        });
        for acts in [drills, verifies, gone] {
            let changed = acts.map(|act| {
                let mut point = points(1).remove(0);
                point.apply(&receipt(&act, 9));
                point.standing != PointStanding::Unproven
            });
            assert_eq!(changed, [true, false, false]);
        }
        // What was read and is damaged is bad.
        let mut point = points(1).remove(0);
        let damaged = example::verify(&about, &[(&of(0), None)], false);
        point.apply(&receipt(&Act::Verify(Box::new(damaged)), 9));
        assert!(matches!(point.standing, PointStanding::Failed { sequence: 9, .. }));
    }

    #[test]
    fn what_shows_less_does_not_replace_what_shows_more() {
        let mut point = points(1).remove(0);
        drilled(&mut point, true, 2);
        let of = example::backup(&About::new("shop", "db", point.point), None);
        let verify = example::verify(&About::new("x", "x", day(9)), &[(&of, None)], true);
        point.apply(&receipt(&Act::Verify(Box::new(verify)), 3));
        assert!(matches!(point.standing, PointStanding::Proven { level: Assurance::A4, sequence: 2, .. }));
        drilled(&mut point, true, 4);
        assert!(matches!(point.standing, PointStanding::Proven { level: Assurance::A4, sequence: 4, .. }));
    }

    #[test]
    fn the_draw_is_the_documented_one_for_ever() {
        // Computed by another program (Python's hashlib) from the algorithm in the module's story.
        let drawn: Vec<usize> = (0..8).map(|seed| draw(Seed(seed), 400)).collect();
        assert_eq!(drawn, [241, 250, 9, 215, 110, 43, 62, 142]);
    }

    #[test]
    fn what_would_make_some_candidates_likelier_is_thrown_away() {
        for (count, last) in [
            (1, u64::MAX),
            (2, u64::MAX),
            (3, u64::MAX - 1),
            (10, u64::MAX - 6),
            (1 << 63, u64::MAX),
            ((1 << 63) + 1, 1 << 63),
            (u64::MAX, u64::MAX - 1),
        ] {
            assert_eq!((last - (count - 1)) % count, 0, "a wrong example");
            assert!(is_fair(0, count) && is_fair(last, count), "{count}");
            assert!(last == u64::MAX || !is_fair(last + 1, count), "{count}");
        }
        // Computed by another program (Python's hashlib); about half of these first numbers are thrown away.
        let drawn: Vec<usize> = (0..6).map(|seed| draw(Seed(seed), (1 << 63) + 1)).collect();
        assert_eq!(
            drawn,
            [
                983_153_760_318_878_159,
                1_849_880_169_971_476_095,
                8_701_157_820_314_527_209,
                1_858_108_143_252_823_122,
                5_266_491_289_936_854_661,
                8_389_987_811_436_710_517
            ]
        );
    }

    #[test]
    fn a_refusal_counts_what_there_is() {
        let mut points = points(5);
        points[1].outcome = Outcome::Incomplete;
        drilled(&mut points[2], true, 10);
        let refused = select(&points, &PointRule::Before(day(-1)), day(9)).unwrap_err();
        let rule = PointRule::Before(day(-1)).to_string();
        let (oldest, newest) = (day(0), day(4));
        assert_eq!(
            refused,
            SelectError::NoneAllowed { rule, known: 5, oldest, newest, incomplete: 1, proven: 1 }
        );
    }

    #[test]
    fn only_the_window_is_drawn_from_and_every_point_in_it_is_drawn() {
        let points = points(20);
        let mut counts = [0_u32; 21];
        for seed in 0..11_000 {
            let selected = select(&points, &random(seed), day(19)).unwrap();
            assert_eq!((selected.selection.candidates, selected.selection.seed), (11, Some(Seed(seed))));
            counts[usize::try_from(selected.point.sequence).unwrap()] += 1;
        }
        assert!(counts[..10].iter().all(|count| *count == 0), "older than the window");
        // 1,000 expected each; six standard deviations are 181.
        assert!(counts[10..].iter().all(|count| (819..=1_181).contains(count)), "{counts:?}");
    }

    #[test]
    fn rules_are_read_as_they_are_documented() {
        let parse = |text: &str| PointRule::parse(text, SignedDuration::from_hours(1), Seed(1));
        assert_eq!(parse("latest"), Ok(PointRule::Latest));
        assert_eq!(parse(&"a".repeat(64)), Ok(PointRule::Copy("a".repeat(64))));
        assert_eq!(parse("latest-proven"), Ok(PointRule::LatestProven));
        let random = PointRule::Random { within: SignedDuration::from_hours(1), seed: Seed(1) };
        assert_eq!(parse("random"), Ok(random.clone()));
        let words = [
            PointRule::Latest,
            PointRule::LatestProven,
            PointRule::Copy("abc4".to_owned()),
            PointRule::Before(day(0)),
            random,
        ]
        .map(|rule| rule.to_string());
        assert_eq!(
            words,
            ["latest", "latest-proven", "copy abc4", "before 2026-11-01T00:00:00Z", "random in PT1H"]
        );
        assert_eq!(parse("before:2026-11-01T00:00:00Z"), Ok(PointRule::Before(day(0))));
        assert_eq!(parse("abc4"), Ok(PointRule::Copy("abc4".to_owned())));
        for wrong in ["", "abc", "newest", "before:yesterday", "ABCD", "abcg", &"a".repeat(65)] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn the_order_of_listing_and_doubled_listings_do_not_matter(seed: u64, order in Just((0..12_usize).collect::<Vec<_>>()).prop_shuffle(), rule in 0..4) {
            let mut points = points(12);
            drilled(&mut points[5], true, 40);
            let rule = match rule {
                0 => PointRule::Latest,
                1 => PointRule::LatestProven,
                2 => PointRule::Before(day(i64::try_from(seed % 12).unwrap())),
                _ => random(seed),
            };
            let mut shuffled: Vec<_> = order.iter().map(|index| points[*index].clone()).collect();
            shuffled.push(points[usize::try_from(seed % 12).unwrap()].clone());
            prop_assert_eq!(select(&points, &rule, day(11)), select(&shuffled, &rule, day(11)));
        }

        #[test]
        fn a_draw_is_below_its_count(seed: u64, count in 1_usize..5_000) {
            prop_assert!(draw(Seed(seed), count) < count);
        }
    }
}
