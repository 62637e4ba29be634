//! All that a ledger says which bears on what may go: copies and what was shown of them, marks, holds, approvals, and which
//! policies were in force.
//!
//! Folded from receipts, in order, and from nothing else: whoever verifies the ledger while folding it plans from what is signed,
//! whatever has become of the tables that are derived from it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::act::Policies;
use super::plan::{Mark, Plan, PlanDigest};
use super::policy::{EarlierPolicy, RetentionPolicy};
use super::{Aside, Case, Hold, Listing, NewestRun, fresh_within, plan};
use crate::assess::Facts;
use crate::finding::FindingCode;
use crate::id::{CopyId, RepositoryId, RunId, ServiceName, SourceName};
use crate::point::{PointStanding, RecoveryPoint};
use crate::receipt::{Act, Drill, Receipt, SourceRef};
use crate::service::Service;
use crate::verdict::Assurance;

/// What receipts say that bears on retention.
#[derive(Debug, Clone, Default)]
pub struct Ground {
    facts: Facts,
    copies: BTreeMap<SourceRef, BTreeSet<(RepositoryId, CopyId)>>,
    newest_receipt: Option<Timestamp>,
    holds: BTreeMap<u64, (ServiceName, Hold)>,
    /// Captures that a restore has shown to be wrong, and none since to be right; kept when the copy that showed it has gone.
    refuted: BTreeMap<(SourceRef, RunId), Refuted>,
    policies: BTreeMap<(ServiceName, SourceName, RepositoryId), Policies>,
    approved: BTreeSet<PlanDigest>,
}

/// That what was captured is wrong: the same lies in every copy of it.
#[derive(Debug, Clone)]
struct Refuted {
    sequence: u64,
    at: Timestamp,
    codes: BTreeSet<FindingCode>,
}

/// Of which copies a plan is made, and what is seen and wanted now.
#[derive(Debug, Clone)]
pub struct Asked<'a> {
    /// Service.
    pub service: &'a Service,
    /// Source.
    pub source: &'a SourceName,
    /// Repository.
    pub repository: &'a RepositoryId,
    /// The policy in force.
    pub policy: &'a RetentionPolicy,
    /// What the repository was seen to hold.
    pub listing: Listing<'a>,
    /// The present, by the controller's clock.
    pub now: Timestamp,
}

impl Ground {
    /// Folds in the next receipt.
    pub fn apply(&mut self, receipt: &Receipt) {
        let is_set_back = {
            let mut dates = self.facts.dates;
            dates.next(receipt.at)
        };
        self.facts.apply(receipt);
        if let Some(point) = RecoveryPoint::made_by(receipt) {
            let of = SourceRef { service: point.service, source: point.source };
            self.copies.entry(of).or_default().insert((point.repository.id, point.copy));
        }
        self.newest_receipt = match self.newest_receipt {
            // The clock had run ahead, and was set right: from here on its dates count.
            Some(newest) if !is_set_back => Some(newest.max(receipt.at)),
            Some(_) | None => Some(receipt.at),
        };
        match &receipt.act {
            Act::Retain(retain) => {
                let key = (retain.service.clone(), retain.source.clone(), retain.repository.id.clone());
                self.policies.entry(key).or_default().saw(&retain.policy, receipt.at);
            }
            Act::Hold(held) => {
                self.holds.insert(receipt.sequence, (held.service.clone(), held.hold.clone()));
            }
            Act::Release(released) => {
                let is_its =
                    self.holds.get(&released.hold).is_some_and(|(service, _)| *service == released.service);
                if is_its {
                    self.holds.remove(&released.hold);
                }
            }
            Act::Approve(approved) => {
                self.approved.insert(approved.plan.clone());
            }
            Act::Drill(drill) => self.drilled(receipt, drill),
            Act::Due(_)
            | Act::Backup(_)
            | Act::Restore(_)
            | Act::Verify(_)
            | Act::Abandoned(_)
            | Act::KeyChange(_)
            | Act::Found(_)
            | Act::Gone(_)
            | Act::Replicate(_)
            | Act::Prune(_)
            | Act::Key(_)
            | Act::Comply(_) => {}
        }
    }

    fn drilled(&mut self, receipt: &Receipt, drill: &Drill) {
        let Some(point) = self.facts.points.get(&(drill.repository.id.clone(), drill.copy.clone())) else {
            return;
        };
        let of = SourceRef { service: point.service.clone(), source: point.source.clone() };
        let capture = (of, point.run.clone());
        if drill.proves().is_some_and(|level| level >= Assurance::A3) {
            self.refuted.remove(&capture);
        } else if drill.blames_the_capture() {
            let codes = drill.findings.iter().map(|finding| finding.code).collect();
            self.refuted.insert(capture, Refuted { sequence: receipt.sequence, at: receipt.at, codes });
        }
    }

    /// A copy as a plan has to see it: one whose capture was shown to be wrong is bad, wherever that was shown.
    fn seen(&self, point: &RecoveryPoint) -> RecoveryPoint {
        let mut seen = point.clone();
        let of = SourceRef { service: point.service.clone(), source: point.source.clone() };
        let Some(refuted) = self.refuted.get(&(of, point.run.clone())) else { return seen };
        match &point.standing {
            PointStanding::Unproven | PointStanding::Proven { .. } => {
                let Refuted { sequence, at, codes } = refuted.clone();
                seen.standing = PointStanding::Failed { sequence, at, codes };
            }
            PointStanding::Failed { .. } | PointStanding::Gone { .. } => {}
        }
        seen
    }

    /// Holds that nobody has released, by the sequence of their receipt; those that have ended by themselves included.
    #[must_use]
    pub fn holds(&self) -> &BTreeMap<u64, (ServiceName, Hold)> {
        &self.holds
    }

    /// Copies of one source, in whatever repository, those that have gone included.
    pub fn points(&self, service: &ServiceName, source: &SourceName) -> impl Iterator<Item = &RecoveryPoint> {
        let of = SourceRef { service: service.clone(), source: source.clone() };
        self.copies.get(&of).into_iter().flatten().filter_map(|name| self.facts.points.get(name))
    }

    /// Copies in one repository that should be there: no receipt says that they have gone, or that they were being removed.
    pub fn expected<'a>(&'a self, repository: &'a RepositoryId) -> impl Iterator<Item = &'a RecoveryPoint> {
        self.facts.points.values().filter(move |point| {
            let is_being_removed = point.mark.as_ref().is_some_and(|mark| mark.is_being_removed);
            point.repository.id == *repository && !is_being_removed && !point.is_gone()
        })
    }

    /// Copies that a receipt says were being removed, and that no receipt says have gone: what an interrupted run owes.
    pub fn owed<'a>(&'a self, repository: &'a RepositoryId) -> impl Iterator<Item = &'a RecoveryPoint> {
        self.facts.points.values().filter(move |point| {
            let is_being_removed = point.mark.as_ref().is_some_and(|mark| mark.is_being_removed);
            point.repository.id == *repository && is_being_removed && !point.is_gone()
        })
    }

    /// The plan of one source in one repository.
    #[must_use]
    pub fn plan(&self, asked: &Asked<'_>) -> Plan {
        let (service, source) = (&asked.service.name, asked.source);
        let points: Vec<RecoveryPoint> = self
            .points(service, source)
            .filter(|point| point.repository.id == *asked.repository)
            .map(|point| self.seen(point))
            .collect();
        let history =
            self.facts.histories.get(&SourceRef { service: service.clone(), source: source.clone() });
        let holds: Vec<Hold> = self.holds.values().map(|(_, hold)| hold.clone()).collect();
        let key = (service.clone(), source.clone(), asked.repository.clone());
        let in_force = asked.policy.in_force();
        let earlier: Vec<EarlierPolicy> = self
            .policies
            .get(&key)
            .into_iter()
            .flat_map(|policies| policies.before(&in_force, asked.now))
            .map(|(policy, until)| EarlierPolicy { policy, until })
            .collect();
        let marks: Vec<Mark> = points
            .iter()
            .filter_map(|point| {
                let mark = point.mark.as_ref()?;
                Some(Mark { copy: point.copy.clone(), at: mark.at, plan: mark.plan.clone() })
            })
            .collect();
        let aside: BTreeMap<CopyId, Aside> = points.iter().filter_map(set_aside).collect();
        let doubted: BTreeSet<CopyId> =
            points.iter().filter(|point| point.is_doubted).map(|point| point.copy.clone()).collect();
        plan(&Case {
            service,
            source,
            repository: asked.repository,
            points: &points,
            policy: asked.policy,
            earlier: &earlier,
            fresh_within: fresh_within(asked.service),
            newest_run: history.map_or(NewestRun::Unknown, NewestRun::of),
            newest_receipt: self.newest_receipt,
            listing: asked.listing.clone(),
            holds: &holds,
            aside: &aside,
            doubted: &doubted,
            marks: &marks,
            approved: &self.approved,
            now: asked.now,
        })
    }
}

/// A copy of something that no healthy source is stands for nothing, and is looked at by a person before it goes.
fn set_aside(point: &RecoveryPoint) -> Option<(CopyId, Aside)> {
    let why = "its capture found what no healthy source has".to_owned();
    point.is_implausible.then(|| (point.copy.clone(), Aside::Quarantined(why)))
}
