//! What we may claim now, recomputed from receipts.
//!
//! Two steps. Receipts are folded, in order and without a clock, into one [`SourceHistory`] for each source: small, so
//! that it can be kept beside the ledger and `status` need not read the ledger. A history, a policy and an instant are
//! then judged ([`assess`]); nothing judged is ever stored.
//!
//! Laws, each a property test in `tests/assess.rs`: a receipt of something that went well never makes anything worse; time
//! passing without receipts never makes anything better; losing a receipt of something that went well never turns red
//! into green. They hold while the controller's clock does not run backwards.
//!
//! When two clocks disagree the cautious reading is taken: a point dated after its own receipt is as old as the start of its
//! run, a proof is never younger than its receipt, and what a clock that ran ahead has dated is of an unknown age from the
//! moment on at which the clock was set right ([`SourceHistory::set_back`]), however long ago that date is by then.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::finding::{Finding, FindingCode, Severity};
use crate::id::{CopyId, RepositoryId, RepositoryName, RunId, ServiceName, SourceName};
use crate::objective::{Met, Objective, RecoveryObjective, exposure};
use crate::point::{RecoveryPoint, settled};
use crate::receipt::{
    Abandoned, Act, ActKind, Backup, CLOCK_STEP, Drill, Found, Gone, Outcome, Receipt, Replicate,
    RepositoryRef, SourceRef,
};
use crate::service::Service;
use crate::verdict::{Assurance, Verdict};

/// Findings of one run that a history keeps; the receipt has them all.
const FINDINGS_KEPT: usize = 8;

/// How long a committed slot may stay open before it counts as a run that left no receipt.
///
/// Longer than the longest run we expect; the next run's reaper ends a dead one long before.
const SLOT_GRACE: SignedDuration = SignedDuration::from_hours(24);

// --------------------------------------------------------------------------------------------------- the history

/// The newest complete copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewestCopy {
    /// Sequence of its receipt.
    pub sequence: u64,
    /// Repository.
    pub repository: RepositoryId,
    /// Copy.
    pub copy: CopyId,
    /// The instant that it brings the source back to; the start of the run where the source dated it after the receipt.
    pub point: Timestamp,
    /// Whether the source's clock claimed a later instant.
    pub future_dated: bool,
    /// Whether it was dated by a clock that ran ahead, so that its age is not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub doubted: bool,
}

/// The newest complete copy in one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldCopy {
    /// The repository that had the name then: another one may be made in its place.
    pub repository: RepositoryId,
    /// Copy.
    pub copy: CopyId,
    /// The instant that it brings the source back to, as in [`NewestCopy`].
    pub point: Timestamp,
    /// Whether it was dated by a clock that ran ahead, so that its age is not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub doubted: bool,
    /// Whether it was shown to be bad there, and neither it nor a newer one there to be good since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bad: bool,
}

/// The last backup, whatever became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastBackup {
    /// Sequence of its receipt.
    pub sequence: u64,
    /// The run.
    pub run: RunId,
    /// When its receipt was sealed.
    pub at: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
    /// Its first findings.
    pub findings: Vec<Finding>,
}

/// The last drill, whatever became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastDrill {
    /// Sequence of its receipt.
    pub sequence: u64,
    /// The run.
    pub run: RunId,
    /// When its receipt was sealed.
    pub at: Timestamp,
    /// What it has shown; a pass that its own facts deny is kept as inconclusive.
    pub verdict: Verdict,
    /// Its first findings, and what its facts deny.
    pub findings: Vec<Finding>,
}

/// Something shown of a copy that still counts, age permitting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// How far.
    pub level: Assurance,
    /// Sequence of the receipt.
    pub sequence: u64,
    /// When, never later than the receipt.
    pub at: Timestamp,
    /// The copy.
    pub copy: CopyId,
    /// Measured recovery time, where there was a recovery.
    pub rto_ms: Option<u64>,
    /// Whether it was dated by a clock that ran ahead, so that its age is not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub doubted: bool,
}

/// A copy that was shown to be bad; open until it or a newer one is shown to be good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Sequence of the receipt.
    pub sequence: u64,
    /// When its receipt was sealed.
    pub at: Timestamp,
    /// The copy.
    pub copy: CopyId,
    /// Sequence of the receipt by which the copy is known, and its instant, not later than the run that says so. A copy is
    /// newer than another where both are greater: one that was found is known late and may be old.
    pub order: (u64, Timestamp),
    /// The first findings.
    pub findings: Vec<Finding>,
}

impl Failure {
    /// Whether a restore of this copy that went well answers it.
    fn is_answered_by(&self, copy: &CopyId, order: (u64, Timestamp)) -> bool {
        let is_no_older = order.0 >= self.order.0 && order.1 >= self.order.1;
        is_no_older && (*copy == self.copy || is_newer(order, self.order))
    }
}

/// A slot that no receipt ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSlot {
    /// Sequence of its receipt.
    pub sequence: u64,
    /// The run that owes an ending.
    pub run: RunId,
    /// What was due.
    pub act: ActKind,
    /// When the slot was committed.
    pub at: Timestamp,
}

/// A run that somebody else had to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastAbandoned {
    /// Sequence of the receipt.
    pub sequence: u64,
    /// The run.
    pub run: RunId,
    /// When its receipt was sealed.
    pub at: Timestamp,
    /// Why.
    pub reason: String,
}

/// All that `status` needs to know of a source, folded from its receipts; small whatever their number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceHistory {
    /// Service.
    pub service: ServiceName,
    /// Source.
    pub source: SourceName,
    /// Sequence of the last receipt that was folded in.
    pub sequence: u64,
    /// When that receipt was sealed.
    pub at: Option<Timestamp>,
    /// The newest complete copy.
    pub newest: Option<NewestCopy>,
    /// The newest complete copy in each repository; nothing of one whose newest copy has gone, until another one comes there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub held: BTreeMap<RepositoryName, HeldCopy>,
    /// The last backup.
    pub last_backup: Option<LastBackup>,
    /// The last drill.
    pub last_drill: Option<LastDrill>,
    /// Proofs that no newer proof of the same or a higher level has replaced, oldest first; none from before a failure.
    pub proofs: Vec<Proof>,
    /// The newest copy known to be bad.
    pub failure: Option<Failure>,
    /// Open slots, in order.
    pub open: Vec<OpenSlot>,
    /// The last abandoned run of each kind of act that has not been followed by one that ended.
    pub abandoned: BTreeMap<ActKind, LastAbandoned>,
}

impl SourceHistory {
    /// Of a source without receipts.
    #[must_use]
    pub fn new(service: ServiceName, source: SourceName) -> Self {
        Self {
            service,
            source,
            sequence: 0,
            at: None,
            newest: None,
            held: BTreeMap::new(),
            last_backup: None,
            last_drill: None,
            proofs: Vec::new(),
            failure: None,
            open: Vec::new(),
            abandoned: BTreeMap::new(),
        }
    }

    /// Folds in the next receipt. One that does not concern this source, or was folded in before, changes nothing.
    pub fn apply(&mut self, receipt: &Receipt) {
        let own = SourceRef { service: self.service.clone(), source: self.source.clone() };
        if receipt.sequence <= self.sequence || !receipt.act.concerns().contains(&own) {
            return;
        }
        self.sequence = receipt.sequence;
        self.at = Some(receipt.at);
        if let Some(slot) = receipt.act.ends() {
            self.open.retain(|open| open.sequence != slot);
        }
        match &receipt.act {
            Act::Due(due) => self.open.push(OpenSlot {
                sequence: receipt.sequence,
                run: due.run.clone(),
                act: due.act,
                at: receipt.at,
            }),
            Act::Backup(backup) => self.backed_up(receipt, backup),
            Act::Drill(drill) => self.drilled(receipt, drill),
            Act::Restore(_) => {}
            Act::Verify(verify) => {
                for one in verify.copies.iter().filter(|one| one.of.as_ref() == Some(&own)) {
                    if one.intact {
                        self.proven(Proof {
                            level: Assurance::A2,
                            sequence: receipt.sequence,
                            at: verify.finished.min(receipt.at),
                            copy: one.copy.clone(),
                            rto_ms: None,
                            doubted: false,
                        });
                    }
                }
                // Last, because a bad copy outweighs the good ones of the same receipt.
                for one in verify.copies.iter().filter(|one| one.of.as_ref() == Some(&own) && !one.intact) {
                    let order = (one.backup.unwrap_or(0), one.point.min(verify.started));
                    self.failed(receipt, (&verify.repository.id, &one.copy), order, &verify.findings);
                }
            }
            // That a restore was cut off says nothing of what could be restored.
            Act::Abandoned(abandoned) if !matches!(abandoned.act, ActKind::Backup | ActKind::Drill) => {}
            Act::Abandoned(abandoned) => {
                self.abandoned.insert(
                    abandoned.act,
                    LastAbandoned {
                        sequence: receipt.sequence,
                        run: abandoned.run.clone(),
                        at: receipt.at,
                        reason: abandoned.reason.clone(),
                    },
                );
            }
            Act::Found(found) => self.found(receipt, found),
            Act::Gone(gone) => self.gone(receipt, gone),
            Act::Replicate(replicate) => self.replicated(receipt, replicate),
            // What is let go, and why, changes nothing of what is claimed: what has gone is told by its own receipt.
            Act::KeyChange(_)
            | Act::Retain(_)
            | Act::Hold(_)
            | Act::Release(_)
            | Act::Approve(_)
            | Act::Prune(_)
            | Act::Key(_)
            | Act::Comply(_) => {}
        }
    }

    /// A receipt was sealed at `at`, long before the date of the one before it: the clock had run ahead, and was set right.
    ///
    /// What was recorded before and is dated later is of an unknown age: until the next backup, and the next drill.
    pub fn set_back(&mut self, at: Timestamp) {
        let is_ahead = |instant: Timestamp| instant.duration_since(at) > CLOCK_STEP;
        if let Some(newest) = self.newest.as_mut().filter(|newest| is_ahead(newest.point)) {
            newest.doubted = true;
        }
        for held in self.held.values_mut().filter(|held| is_ahead(held.point)) {
            held.doubted = true;
        }
        for proof in self.proofs.iter_mut().filter(|proof| is_ahead(proof.at)) {
            proof.doubted = true;
        }
        // The copy that was shown to be bad was made before this, whatever its date: every later one is newer.
        if let Some(failure) = &mut self.failure {
            failure.order.1 = failure.order.1.min(at);
        }
        for slot in &mut self.open {
            slot.at = slot.at.min(at);
        }
        self.at = self.at.map(|last| last.min(at));
    }

    /// What has to be said of every open slot once it is certain that nobody is at work on it any more.
    #[must_use]
    pub fn cut_off(&self) -> Vec<Abandoned> {
        let ended = |slot: &OpenSlot| Abandoned {
            run: slot.run.clone(),
            due: Some(slot.sequence),
            service: self.service.clone(),
            source: self.source.clone(),
            act: slot.act,
            reason: "the process that ran it ended without a receipt".to_owned(),
        };
        self.open.iter().map(ended).collect()
    }

    /// A copy without a receipt counts by its instant: it may be older than those that have one.
    fn found(&mut self, receipt: &Receipt, found: &Found) {
        if found.outcome == Outcome::Complete {
            let (dated, made) = (found.point, found.finished);
            self.came(receipt, &found.repository, &found.copy, Dated { dated, made, began: None });
        }
    }

    /// A replica makes nothing newer than its original was. Where that is not known any more, the replica is the newest.
    fn replicated(&mut self, receipt: &Receipt, replicate: &Replicate) {
        let is_of_newest = self.newest.as_ref().is_some_and(|newest| newest.sequence == replicate.known_by);
        if let (Outcome::Complete, Some(copy)) = (replicate.outcome, &replicate.copy) {
            let (dated, made, began) = (replicate.point, replicate.captured, replicate.capture_began);
            if is_of_newest || replicate.is_doubted {
                let (point, _) = settled(dated, began, made.min(receipt.at));
                self.holds(&replicate.repository, copy, point, replicate.is_doubted);
            } else {
                self.came(receipt, &replicate.repository, copy, Dated { dated, made, began });
            }
        }
    }

    fn came(
        &mut self,
        receipt: &Receipt,
        repository: &RepositoryRef,
        copy: &CopyId,
        Dated { dated, made, began }: Dated,
    ) {
        let (point, future_dated) = settled(dated, began, made.min(receipt.at));
        self.holds(repository, copy, point, false);
        if self.newest.as_ref().is_none_or(|newest| newest.point < point) {
            self.newest = Some(NewestCopy {
                sequence: receipt.sequence,
                repository: repository.id.clone(),
                copy: copy.clone(),
                point,
                future_dated,
                doubted: false,
            });
        }
    }

    /// A copy came into a repository; it may be older than the newest there.
    fn holds(&mut self, repository: &RepositoryRef, copy: &CopyId, point: Timestamp, doubted: bool) {
        let held =
            HeldCopy { repository: repository.id.clone(), copy: copy.clone(), point, doubted, bad: false };
        let is_other = |before: &HeldCopy| before.repository != repository.id;
        // One that is bad gives way to another of the same capture, too.
        let is_before = |before: &HeldCopy| {
            before.point < point || (before.bad && before.copy != *copy && before.point == point)
        };
        // What is of an unknown age is newer than nothing.
        let is_older = |before: &HeldCopy| before.doubted || (!doubted && is_before(before));
        if self.held.get(&repository.name).is_none_or(|before| is_other(before) || is_older(before)) {
            self.held.insert(repository.name.clone(), held);
        }
    }

    /// That a copy has gone takes nothing from what others have shown, unless it was the last.
    fn gone(&mut self, receipt: &Receipt, gone: &Gone) {
        let before = self
            .newest
            .as_ref()
            .filter(|newest| newest.copy == gone.copy && newest.repository == gone.repository.id);
        if let Some(before) = before {
            // What is left is no less doubtful than what has gone.
            let was_doubted = before.doubted;
            self.newest = gone.newest.as_ref().map(|newest| NewestCopy {
                sequence: newest.sequence,
                repository: newest.repository.clone(),
                copy: newest.copy.clone(),
                point: newest.point,
                future_dated: false,
                doubted: was_doubted || newest.point.duration_since(receipt.at) > CLOCK_STEP,
            });
        }
        if self.newest.is_none() {
            self.proofs.clear();
        }
        let name = &gone.repository.name;
        let is_it = |held: &HeldCopy| held.copy == gone.copy && held.repository == gone.repository.id;
        if self.held.get(name).is_some_and(is_it) {
            let left = gone.newest.as_ref().filter(|left| left.repository == gone.repository.id);
            match left {
                Some(left) => {
                    let doubted = left.point.duration_since(receipt.at) > CLOCK_STEP;
                    let (repository, copy) = (left.repository.clone(), left.copy.clone());
                    let left = HeldCopy { repository, copy, point: left.point, doubted, bad: false };
                    self.held.insert(name.clone(), left);
                }
                None => {
                    self.held.remove(name);
                }
            }
        }
    }

    fn backed_up(&mut self, receipt: &Receipt, backup: &Backup) {
        self.abandoned.remove(&ActKind::Backup);
        self.last_backup = Some(LastBackup {
            sequence: receipt.sequence,
            run: backup.run.clone(),
            at: receipt.at,
            outcome: backup.outcome,
            findings: kept(&backup.findings),
        });
        if let (Outcome::Complete, Some(copy), Some(point)) = (backup.outcome, &backup.copy, backup.point) {
            let ended = backup.finished.min(receipt.at);
            let (point, future_dated) = settled(point, Some(backup.started), ended);
            // What was known to be bad before was captured before, whatever its date.
            if let Some(failure) = &mut self.failure {
                failure.order.1 = failure.order.1.min(point - SignedDuration::from_nanos(1));
            }
            let (repository, copy) = (backup.repository.id.clone(), copy.clone());
            self.held.insert(
                backup.repository.name.clone(),
                HeldCopy {
                    repository: repository.clone(),
                    copy: copy.clone(),
                    point,
                    doubted: false,
                    bad: false,
                },
            );
            self.newest = Some(NewestCopy {
                sequence: receipt.sequence,
                repository,
                copy,
                point,
                future_dated,
                doubted: false,
            });
        }
    }

    fn drilled(&mut self, receipt: &Receipt, drill: &Drill) {
        self.abandoned.remove(&ActKind::Drill);
        let mut findings = drill.contradictions();
        findings.extend(drill.findings.iter().cloned());
        let proves = drill.proves();
        self.last_drill = Some(LastDrill {
            sequence: receipt.sequence,
            run: drill.run.clone(),
            at: receipt.at,
            verdict: match (drill.verdict, proves) {
                (Verdict::Pass(_), None) => Verdict::Inconclusive,
                (verdict, _) => verdict,
            },
            findings: kept(&findings),
        });
        let order = (drill.backup.unwrap_or(0), drill.point.min(drill.started));
        match (drill.verdict, proves) {
            (Verdict::Fail, _) if drill.blames_the_copy() => {
                self.failed(receipt, (&drill.repository.id, &drill.copy), order, &findings);
            }
            (_, Some(level)) => {
                if self.failure.as_ref().is_some_and(|failure| failure.is_answered_by(&drill.copy, order)) {
                    self.failure = None;
                }
                // What one repository holds is answered there, by that copy or by one that is no older.
                for held in self.held.values_mut().filter(|held| held.repository == drill.repository.id) {
                    held.bad &= held.copy != drill.copy && held.point > order.1;
                }
                self.proven(Proof {
                    level,
                    sequence: receipt.sequence,
                    at: drill.finished.min(receipt.at),
                    copy: drill.copy.clone(),
                    rto_ms: drill.rto.measured_ms,
                    doubted: false,
                });
            }
            (Verdict::Pass(_) | Verdict::Inconclusive | Verdict::Fail, None) => {}
        }
    }

    /// A bad copy takes the ground from under every proof before it, and is none in its repository.
    fn failed(
        &mut self,
        receipt: &Receipt,
        (repository, copy): (&RepositoryId, &CopyId),
        order: (u64, Timestamp),
        findings: &[Finding],
    ) {
        self.proofs.clear();
        for held in self.held.values_mut().filter(|held| held.repository == *repository) {
            held.bad |= held.copy == *copy || held.point < order.1;
        }
        let mut failure = Failure {
            sequence: receipt.sequence,
            at: receipt.at,
            copy: copy.clone(),
            order,
            findings: kept(findings),
        };
        if let Some(before) = self.failure.take() {
            // Whatever answers this must answer the one before, too.
            let both = (before.order.0.max(order.0), before.order.1.max(order.1));
            if before.order.1 > order.1 {
                failure = before;
            }
            failure.order = both;
        }
        self.failure = Some(failure);
    }

    fn proven(&mut self, proof: Proof) {
        self.proofs.retain(|before| before.level > proof.level);
        self.proofs.push(proof);
    }
}

/// When a copy was made, as its receipt tells it.
struct Dated {
    /// By the source's clock.
    dated: Timestamp,
    /// When it was durable.
    made: Timestamp,
    /// When the run began that captured it, where that is known.
    began: Option<Timestamp>,
}

/// Whether a copy was made after another. Its receipt alone does not say so of one that was found, nor its instant of one
/// whose source has a wrong clock.
fn is_newer(order: (u64, Timestamp), than: (u64, Timestamp)) -> bool {
    order.0 > than.0 && order.1 > than.1
}

fn kept(findings: &[Finding]) -> Vec<Finding> {
    findings.iter().take(FINDINGS_KEPT).cloned().collect()
}

/// Everything derived from a ledger, in memory: histories and points.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// One history for each source that a receipt names.
    pub histories: BTreeMap<SourceRef, SourceHistory>,
    /// Every copy that a receipt says was stored.
    pub points: BTreeMap<(RepositoryId, CopyId), RecoveryPoint>,
    /// When the receipts were sealed.
    pub dates: Dates,
}

/// No receipt is older than its format: a date before this says that the clock is behind (it may have begun in 1970).
pub const EPOCH: Timestamp = Timestamp::constant(1_767_225_600, 0);

/// When the last receipt of a ledger was sealed: enough to see a clock that was set back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dates {
    last: Option<Timestamp>,
}

impl Dates {
    /// Takes note of the next receipt's date; whether the clock had run ahead and was set back before it.
    ///
    /// A date before [`EPOCH`] says that the clock is behind now, not that it had run ahead: it is passed over.
    pub fn next(&mut self, at: Timestamp) -> bool {
        if at < EPOCH {
            return false;
        }
        self.last.replace(at).is_some_and(|last| last.duration_since(at) > CLOCK_STEP)
    }
}

impl Facts {
    /// Folds receipts, in order. Give only those up to an instant to learn what was known then.
    #[must_use]
    pub fn of<'a>(receipts: impl IntoIterator<Item = &'a Receipt>) -> Self {
        let mut facts = Self::default();
        for receipt in receipts {
            facts.apply(receipt);
        }
        facts
    }

    /// Folds in the next receipt.
    pub fn apply(&mut self, receipt: &Receipt) {
        if self.dates.next(receipt.at) {
            self.histories.values_mut().for_each(|history| history.set_back(receipt.at));
            self.points.values_mut().for_each(|point| point.set_back(receipt.at));
        }
        if let Some(point) = RecoveryPoint::made_by(receipt) {
            let name = (point.repository.id.clone(), point.copy.clone());
            let original = receipt.act.replicates().map(|(from, copy)| (from.clone(), copy.clone()));
            let original = original.and_then(|original| self.points.get(&original));
            let point = point.known_as(self.points.get(&name)).descended_from(original);
            self.points.insert(name, point);
        }
        for (repository, copy) in receipt.act.judges() {
            if let Some(point) = self.points.get_mut(&(repository.clone(), copy.clone())) {
                point.apply(receipt);
            }
        }
        for of in receipt.act.concerns() {
            self.histories
                .entry(of.clone())
                .or_insert_with(|| SourceHistory::new(of.service, of.source))
                .apply(receipt);
        }
    }

    /// The histories of a service's sources.
    pub fn service(&self, name: &ServiceName) -> impl Iterator<Item = &SourceHistory> {
        self.histories.values().filter(move |history| history.service == *name)
    }
}

// -------------------------------------------------------------------------------------------------- the judgement

/// What a service was promised, as far as it is judged here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// RPO and RTO.
    pub objective: RecoveryObjective,
    /// When the newest copy counts as stale.
    pub stale_after: SignedDuration,
    /// Age at which a proof no longer counts.
    pub proof_valid: SignedDuration,
}

impl From<&Service> for Policy {
    fn from(service: &Service) -> Self {
        Self {
            objective: service.objective,
            stale_after: service.stale_after,
            proof_valid: service.drill.proof_valid,
        }
    }
}

/// Whether a service could be recovered, in one word; from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// There is nothing to recover: it has no state, and promises none.
    Nothing,
    /// Shown to be equal, recently enough, and every promise is kept.
    Ready,
    /// Shown to be restorable, and something falls short.
    Attention,
    /// Not shown: never drilled, too long ago, or there is no copy.
    Unproven,
    /// Shown not to be recoverable, or the evidence itself is in doubt.
    Broken,
}

impl Standing {
    /// The word printed for people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Nothing => "NO STATE",
            Self::Ready => "READY",
            Self::Attention => "ATTENTION",
            Self::Unproven => "NOT YET",
            Self::Broken => "BROKEN",
        }
    }
}

/// The last drill, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DrillAge {
    /// The run.
    pub run: RunId,
    /// What it has shown.
    pub verdict: Verdict,
    /// When.
    pub at: Timestamp,
    /// How long ago, in milliseconds; `None` where the clock says that it has yet to come.
    pub age_ms: Option<u64>,
}

/// What may be claimed of a source at an instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceAssessment {
    /// Source.
    pub source: SourceName,
    /// How far a copy is proven, by proofs that still count.
    pub level: Assurance,
    /// In one word.
    pub standing: Standing,
    /// The newest complete copy.
    pub copy: Option<CopyId>,
    /// The instant that it brings the source back to.
    pub point: Option<Timestamp>,
    /// What would be lost now, in milliseconds; `None` where there is no copy, where the newest is known to be bad, or
    /// where the clocks disagree.
    pub exposure_ms: Option<u64>,
    /// The same, against the promise.
    pub rpo: Met,
    /// The last drill.
    pub last_drill: Option<DrillAge>,
    /// When the level was shown; `None` below A2.
    pub proven_at: Option<Timestamp>,
    /// Recovery time as the newest proof measured it, in milliseconds.
    pub rto_ms: Option<u64>,
    /// The same, against the promise.
    pub rto: Met,
    /// Everything that falls short.
    pub findings: Vec<Finding>,
}

/// What may be claimed of a service at an instant: no better than the worst of its sources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServiceAssessment {
    /// Service.
    pub service: ServiceName,
    /// The lowest level of its sources.
    pub level: Assurance,
    /// The worst standing.
    pub standing: Standing,
    /// The oldest of its sources' newest points: the instant that the service as a whole can be brought back to.
    pub point: Option<Timestamp>,
    /// The largest exposure of its sources; `None` where one of them is unknown.
    pub exposure_ms: Option<u64>,
    /// The same, against the promise.
    pub rpo: Met,
    /// Largest loss that was promised.
    pub rpo_target: Objective,
    /// Of its sources' last drills the one with the worst verdict, then the oldest; `None` where one was never drilled.
    pub last_drill: Option<DrillAge>,
    /// Recovery times of its sources, one after the other, in milliseconds; `None` where one of them is unknown.
    pub rto_ms: Option<u64>,
    /// The same, against the promise.
    pub rto: Met,
    /// Longest recovery that was promised.
    pub rto_target: Objective,
    /// Everything that falls short.
    pub findings: Vec<Finding>,
    /// Its sources, in the order of the configuration.
    pub sources: Vec<SourceAssessment>,
}

/// A source that is judged.
#[derive(Debug, Clone, Copy)]
pub struct Judged<'a> {
    /// Its name.
    pub source: &'a SourceName,
    /// The repositories that should each hold a fresh copy of it; nothing is asked of them where there is one or none.
    pub repositories: &'a [RepositoryName],
}

impl<'a> From<&'a SourceName> for Judged<'a> {
    fn from(source: &'a SourceName) -> Self {
        Self { source, repositories: &[] }
    }
}

/// Judges a service. A source without a history is judged as one that has nothing.
#[must_use]
pub fn assess<'a>(
    service: &ServiceName,
    sources: impl IntoIterator<Item = impl Into<Judged<'a>>>,
    policy: &Policy,
    histories: &[SourceHistory],
    now: Timestamp,
) -> ServiceAssessment {
    let mut assessed = Vec::new();
    for judged in sources {
        let Judged { source, repositories } = judged.into();
        let empty;
        let history =
            match histories.iter().find(|history| history.service == *service && history.source == *source) {
                Some(history) => history,
                None => {
                    empty = SourceHistory::new(service.clone(), source.clone());
                    &empty
                }
            };
        assessed.push(assess_source(history, repositories, policy, now));
    }
    combine(service, policy, assessed)
}

fn is_now_or_past(instant: Timestamp, now: Timestamp) -> bool {
    instant.duration_since(now) <= CLOCK_STEP
}

/// Judges one source.
#[must_use]
pub fn assess_source(
    history: &SourceHistory,
    repositories: &[RepositoryName],
    policy: &Policy,
    now: Timestamp,
) -> SourceAssessment {
    let subject = format!("{}/{}", history.service, history.source);
    let mut findings = Vec::new();
    let mut add = |code, detail: String| findings.push(Finding::new(code, subject.clone(), detail));

    if let Some(at) = history.at.filter(|at| !is_now_or_past(*at, now)) {
        add(FindingCode::ClockSkew, format!("the last receipt was sealed at {at}, which is yet to come"));
    }

    // The copy.
    let newest = history.newest.as_ref();
    let is_newest_bad = newest
        .zip(history.failure.as_ref())
        .is_some_and(|(newest, failure)| failure.copy == newest.copy || failure.order.1 >= newest.point);
    let age = newest.filter(|newest| !newest.doubted).and_then(|newest| {
        let now = if is_now_or_past(newest.point, now) { now.max(newest.point) } else { now };
        exposure(newest.point, now)
    });
    let is_fresh = age.is_some_and(|age| age <= policy.stale_after);
    match (newest, age) {
        (None, _) => add(FindingCode::Stale, "there is no complete copy".to_owned()),
        (Some(newest), None) if newest.doubted => add(
            FindingCode::FutureDated,
            format!(
                "the newest copy is dated {} by a clock that ran ahead: its age is not known until the next backup",
                newest.point
            ),
        ),
        (Some(newest), None) => {
            add(
                FindingCode::FutureDated,
                format!("the newest copy is of {}, which is yet to come", newest.point),
            );
        }
        (Some(newest), Some(age)) if age > policy.stale_after => add(
            FindingCode::Stale,
            format!(
                "the newest copy is of {}, {} ago; allowed are {}",
                newest.point,
                spoken(age),
                spoken(policy.stale_after)
            ),
        ),
        (Some(_), Some(_)) => {}
    }
    if let Some(newest) = newest.filter(|newest| newest.future_dated) {
        add(
            FindingCode::FutureDated,
            format!(
                "the source dated its newest copy after its receipt; it is taken to be of {}",
                newest.point
            ),
        );
    }
    // Where there is no fresh copy at all, nothing but a backup helps.
    let asked = repositories.iter().filter(|_| is_fresh && repositories.len() > 1);
    for (repository, why) in asked.filter_map(|name| Some((name, behind(history, name, policy, now)?))) {
        add(FindingCode::LagsBehind, format!("{repository}: {why}"));
    }
    let exposed = age.filter(|_| !is_newest_bad);
    let rpo = policy.objective.rpo.judge(exposed);
    if let (Met::Missed, Some(exposed), Objective::Within(bound)) = (rpo, exposed, policy.objective.rpo) {
        add(
            FindingCode::RpoMissed,
            format!("{} would be lost now; promised are {}", spoken(exposed), spoken(bound)),
        );
    }

    // The proof.
    let counts = |proof: &&Proof| {
        let is_young = now.duration_since(proof.at) <= policy.proof_valid;
        !proof.doubted && is_now_or_past(proof.at, now) && is_young
    };
    let present = if is_fresh { Assurance::A1 } else { Assurance::A0 };
    let best = history.proofs.iter().filter(counts).max_by_key(|proof| (proof.level, proof.sequence));
    let (level, proven_at) = match best {
        Some(proof) if history.failure.is_none() => (proof.level, Some(proof.at)),
        Some(_) | None => (present, None),
    };
    let newest_restore = history.proofs.iter().rev().find(|proof| proof.level >= Assurance::A3);
    if level < Assurance::A3 {
        let detail = match newest_restore {
            Some(proof) if proof.doubted => format!(
                "the last proof is dated {} by a clock that ran ahead: its age is not known",
                proof.at
            ),
            Some(proof) if !is_now_or_past(proof.at, now) => {
                format!("the last proof is of {}, which is yet to come", proof.at)
            }
            Some(proof) => format!(
                "the last proof is of {}, {} ago; allowed are {}",
                proof.at,
                spoken(now.duration_since(proof.at)),
                spoken(policy.proof_valid)
            ),
            None => "no restore is known to have worked".to_owned(),
        };
        add(FindingCode::DrillOverdue, detail);
    } else if level < Assurance::A4 {
        add(FindingCode::NoWitness, format!("proven as far as {level}; equality has not been shown"));
    }
    let rto_ms = newest_restore.and_then(|proof| proof.rto_ms);
    let rto = policy.objective.rto.judge(rto_ms.and_then(span));

    // The runs.
    for slot in history.open.iter().filter(|slot| now.duration_since(slot.at) > SLOT_GRACE) {
        add(
            FindingCode::Interrupted,
            format!(
                "the {} due in slot {} ({}) has left no receipt since {}",
                slot.act, slot.sequence, slot.run, slot.at
            ),
        );
    }
    for (act, abandoned) in &history.abandoned {
        add(
            FindingCode::Interrupted,
            format!("the last {act} ({}) was abandoned: {}", abandoned.run, abandoned.reason),
        );
    }
    if let Some(backup) = &history.last_backup {
        match backup.outcome {
            Outcome::Complete => {}
            Outcome::Incomplete => add(
                FindingCode::ScopeNarrow,
                format!("the last backup ({}) is incomplete and does not count", backup.run),
            ),
            Outcome::Failed => add(
                FindingCode::Interrupted,
                format!("the last backup ({}) failed at {}", backup.run, backup.at),
            ),
        }
        findings.extend(backup.findings.iter().cloned());
    }
    if let Some(failure) = &history.failure {
        let copy = failure.copy.0.get(..12).unwrap_or(&failure.copy.0);
        findings.extend(failure.findings.iter().cloned());
        if failure.findings.iter().all(|finding| finding.code.severity() < Severity::Critical) {
            findings.push(Finding::new(
                FindingCode::CheckFailed,
                subject.clone(),
                format!("copy {copy} failed"),
            ));
        }
    }
    let is_of_log = |drill: &&LastDrill| drill.verdict == Verdict::Fail && history.failure.is_none();
    if let Some(drill) = history.last_drill.as_ref().filter(is_of_log) {
        findings.push(Finding::new(
            FindingCode::MomentMissed,
            subject.clone(),
            format!("the last drill ({}) got no farther than its copy, which is good", drill.run),
        ));
        findings.extend(drill.findings.iter().cloned());
    }
    if let Some(drill) = history.last_drill.as_ref().filter(|drill| drill.verdict == Verdict::Inconclusive) {
        findings.push(Finding::new(
            FindingCode::Interrupted,
            subject,
            format!("the last drill ({}) could not decide", drill.run),
        ));
        findings.extend(drill.findings.iter().cloned());
    }
    SourceAssessment {
        source: history.source.clone(),
        level,
        standing: stand(level, &findings),
        copy: newest.map(|newest| newest.copy.clone()),
        point: newest.map(|newest| newest.point),
        exposure_ms: exposed.and_then(milliseconds),
        rpo,
        last_drill: history.last_drill.as_ref().map(|drill| DrillAge {
            run: drill.run.clone(),
            verdict: drill.verdict,
            at: drill.at,
            age_ms: milliseconds(now.duration_since(drill.at)),
        }),
        proven_at,
        rto_ms,
        rto,
        findings,
    }
}

/// Why a repository does not hold a fresh copy; `None` where it does.
fn behind(
    history: &SourceHistory,
    repository: &RepositoryName,
    policy: &Policy,
    now: Timestamp,
) -> Option<String> {
    let Some(held) = history.held.get(repository) else {
        return Some("no complete copy is known there".to_owned());
    };
    if held.doubted {
        return Some(format!(
            "its newest copy is dated {} by a clock that ran ahead: its age is not known",
            held.point
        ));
    }
    if held.bad {
        let copy = held.copy.0.get(..12).unwrap_or(&held.copy.0);
        return Some(format!("its newest copy, {copy}, is known to be bad there"));
    }
    let age = now.duration_since(held.point);
    (age > policy.stale_after).then(|| {
        format!(
            "its newest copy is of {}, {} ago; allowed are {}",
            held.point,
            spoken(age),
            spoken(policy.stale_after)
        )
    })
}

fn combine(service: &ServiceName, policy: &Policy, sources: Vec<SourceAssessment>) -> ServiceAssessment {
    let mut findings: Vec<Finding> =
        sources.iter().flat_map(|source| source.findings.iter().cloned()).collect();
    // A cache that rebuilds itself says that no loss is one; whoever promises a bound owes a source.
    let has_state = !sources.is_empty() || policy.objective.rpo != Objective::NotApplicable;
    if sources.is_empty() && has_state {
        findings.push(Finding::new(FindingCode::NothingChecked, service.to_string(), "it has no source"));
    }
    let exposure_ms: Option<u64> =
        sources.iter().map(|source| source.exposure_ms).try_fold(0, |most, one| Some(one?.max(most)));
    let exposure_ms = exposure_ms.filter(|_| !sources.is_empty());

    // What is known already counts as missed when it exceeds the promise, even while the rest is unknown.
    let known_ms: u64 = sources.iter().filter_map(|source| source.rto_ms).fold(0, u64::saturating_add);
    let is_known = !sources.is_empty() && sources.iter().all(|source| source.rto_ms.is_some());
    let rto_ms = is_known.then_some(known_ms);
    let rto = match policy.objective.rto.judge(span(known_ms)) {
        Met::Met if !is_known => Met::Unknown,
        met => met,
    };
    if let (Met::Missed, Objective::Within(bound)) = (rto, policy.objective.rto) {
        let measured = span(known_ms).map_or_else(String::new, spoken);
        findings.push(Finding::new(
            FindingCode::RtoMissed,
            service.to_string(),
            format!("the recovery took {measured}; promised are {}", spoken(bound)),
        ));
    }
    let level = sources.iter().map(|source| source.level).min().unwrap_or(Assurance::A0);
    let drills: Option<Vec<&DrillAge>> = sources.iter().map(|source| source.last_drill.as_ref()).collect();
    let worst = |drill: &DrillAge| match drill.verdict {
        Verdict::Fail => 0,
        Verdict::Inconclusive => 1,
        Verdict::Pass(_) => 2,
    };
    ServiceAssessment {
        service: service.clone(),
        level,
        standing: if has_state { stand(level, &findings) } else { Standing::Nothing },
        point: sources
            .iter()
            .map(|source| source.point)
            .collect::<Option<Vec<_>>>()
            .and_then(|points| points.into_iter().min()),
        exposure_ms,
        rpo: policy.objective.rpo.judge(exposure_ms.and_then(span)),
        rpo_target: policy.objective.rpo,
        last_drill: drills
            .and_then(|drills| drills.into_iter().min_by_key(|drill| (worst(drill), drill.at)).cloned()),
        rto_ms,
        rto,
        rto_target: policy.objective.rto,
        findings,
        sources,
    }
}

fn stand(level: Assurance, findings: &[Finding]) -> Standing {
    match findings.iter().map(|finding| finding.code.severity()).max() {
        Some(Severity::Critical) => Standing::Broken,
        _ if level < Assurance::A3 => Standing::Unproven,
        Some(Severity::Warning) => Standing::Attention,
        Some(Severity::Note) | None => Standing::Ready,
    }
}

fn milliseconds(span: SignedDuration) -> Option<u64> {
    u64::try_from(span.as_millis()).ok()
}

fn span(milliseconds: u64) -> Option<SignedDuration> {
    i64::try_from(milliseconds).ok().map(SignedDuration::from_millis)
}

/// A length of time as people say it: the two largest units that matter.
pub(crate) fn spoken(span: SignedDuration) -> String {
    let seconds = span.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{}s", seconds % 60),
        (0, 0, minutes) => format!("{minutes}m{:02}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h{minutes:02}m"),
        (days, hours, _) => format!("{days}d{hours:02}h"),
    }
}
