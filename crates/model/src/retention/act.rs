//! What retention leaves in the ledger: every decision, every mark, every deletion before it is done, and what people have said
//! about it. Marks, holds, approvals and earlier policies are read from these receipts alone; see [`super::Ground`].

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::plan::{Decided, Decision, Evidence, Plan, PlanDigest, Rule, Step, Suspension};
use super::policy::RetentionPolicy;
use super::{COOLING_OFF, Hold};
use crate::id::{CopyId, RunId, ServiceName, SourceName};
use crate::receipt::RepositoryRef;
use crate::service::RetentionSpec;

/// A policy as a receipt keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyInForce {
    /// What was wanted; everything where omitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<RetentionSpec>,
    /// The zone of its days.
    pub zone: String,
}

impl PolicyInForce {
    /// The policy; one that keeps everything where its zone is not known any more.
    pub(super) fn policy(&self) -> RetentionPolicy {
        RetentionPolicy::new(self.keep.clone(), &self.zone).unwrap_or_else(|_| RetentionPolicy::everything())
    }
}

/// What was decided about the copies of one source in one repository. Sealed before anything of it is done: a deletion that is not
/// in the ledger does not happen. What was removed then has a receipt of its own ([`crate::receipt::Gone`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retain {
    /// The run.
    pub run: RunId,
    /// Service.
    pub service: ServiceName,
    /// Source.
    pub source: SourceName,
    /// Repository.
    pub repository: RepositoryRef,
    /// Digest of the plan.
    pub plan: PlanDigest,
    /// Whether a person has approved exactly this plan, so that more than a fifth may go.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_approved: bool,
    /// The policy in force.
    pub policy: PolicyInForce,
    /// Copies that are kept because somebody or something wants them.
    pub kept: u64,
    /// Copies that are marked from now on.
    pub marked: Vec<Leaving>,
    /// Copies whose mark is taken away.
    pub unmarked: Vec<Staying>,
    /// Copies that are marked, and not for long enough.
    pub waiting: u64,
    /// Copies that are removed after this is sealed.
    pub removing: Vec<Leaving>,
    /// Copies that no policy wants and that stay because of a rule.
    pub refused: Vec<Refused>,
    /// Why nothing goes, where nothing does.
    pub suspended: Vec<Suspension>,
    /// Who ran it: user and host.
    pub executor: String,
}

/// A copy that goes, and what makes it dispensable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// The copy.
    pub copy: CopyId,
    /// Sequence of the receipt by which it is known.
    pub known_by: u64,
    /// The instant by which it is young or old.
    pub at: Timestamp,
    /// Bytes that it added to the repository.
    pub stored_bytes: u64,
    /// The newer copy, at least as proven, which stays.
    pub newer: Evidence,
    /// When it was marked; `None` where it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marked: Option<Timestamp>,
}

/// A copy that does not go any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staying {
    /// The copy.
    pub copy: CopyId,
    /// Why.
    pub why: String,
}

/// Copies that stay because of one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The rule.
    pub rule: Rule,
    /// The copies, oldest first.
    pub copies: Vec<CopyId>,
}

impl Retain {
    /// What a plan amounts to.
    #[must_use]
    pub fn of(
        plan: &Plan,
        run: RunId,
        repository: RepositoryRef,
        policy: PolicyInForce,
        executor: &str,
    ) -> Self {
        let leaving = |one: &Decided, marked| match &one.decision {
            Decision::Expire(newer) => Some(Leaving {
                copy: one.copy.clone(),
                known_by: one.sequence,
                at: one.at,
                stored_bytes: one.stored_bytes,
                newer: newer.clone(),
                marked,
            }),
            Decision::Keep(_) | Decision::Refused { .. } | Decision::Absent => None,
        };
        let mut refused: BTreeMap<Rule, Vec<CopyId>> = BTreeMap::new();
        let (mut kept, mut waiting) = (0, 0);
        let (mut marked, mut unmarked, mut removing) = (Vec::new(), Vec::new(), Vec::new());
        for one in &plan.decisions {
            match &one.decision {
                Decision::Keep(_) => kept += 1,
                Decision::Refused { rule, .. } => refused.entry(*rule).or_default().push(one.copy.clone()),
                Decision::Expire(_) | Decision::Absent => {}
            }
            match one.step {
                Some(Step::Mark) => marked.extend(leaving(one, None)),
                Some(Step::Wait { .. }) => waiting += 1,
                Some(Step::Delete { since }) => removing.extend(leaving(one, Some(since))),
                Some(Step::Unmark) => {
                    unmarked.push(Staying { copy: one.copy.clone(), why: one.decision.to_string() });
                }
                None => {}
            }
        }
        Self {
            run,
            service: plan.service.clone(),
            source: plan.source.clone(),
            repository,
            plan: plan.digest(),
            is_approved: plan.is_approved(),
            policy,
            kept,
            marked,
            unmarked,
            waiting,
            removing,
            refused: refused.into_iter().map(|(rule, copies)| Refused { rule, copies }).collect(),
            suspended: plan.suspended.clone(),
            executor: executor.to_owned(),
        }
    }
}

/// Something is held from now on: it stays, whatever a policy says. Named by the sequence of its receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Service.
    pub service: ServiceName,
    /// What, why, and until when.
    pub hold: Hold,
    /// Who said so: user and host.
    pub executor: String,
}

/// A hold has ended. What it kept may be marked from now on, and goes a day later at the earliest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// Service.
    pub service: ServiceName,
    /// Sequence of the receipt of the hold.
    pub hold: u64,
    /// Why.
    pub reason: String,
    /// Who said so: user and host.
    pub executor: String,
}

/// A person lets more than a fifth go at once: exactly what one plan says, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approved {
    /// Service.
    pub service: ServiceName,
    /// Source.
    pub source: SourceName,
    /// Repository.
    pub repository: RepositoryRef,
    /// Digest of the plan.
    pub plan: PlanDigest,
    /// Why.
    pub reason: String,
    /// Who said so: user and host.
    pub executor: String,
}

/// What no copy needs was taken out of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// The run.
    pub run: RunId,
    /// Repository.
    pub repository: RepositoryRef,
    /// Copies whose every piece was looked for, and stays.
    pub copies: u64,
    /// Bytes of packs that were removed.
    pub removed_bytes: u64,
    /// Bytes of packs that are out of the index now, and are removed by a later run.
    pub doomed_bytes: u64,
    /// Bytes of packs whose needed pieces were written anew.
    pub repacked_bytes: u64,
    /// Bytes that nobody needs, in packs that stay.
    pub unused_bytes: u64,
    /// When the run began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// Who ran it: user and host.
    pub executor: String,
}

/// Policies of one source in one repository, as receipts tell of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Policies {
    current: Option<PolicyInForce>,
    earlier: Vec<(PolicyInForce, Timestamp)>,
}

impl Policies {
    /// This one was in force at an instant.
    pub(super) fn saw(&mut self, policy: &PolicyInForce, at: Timestamp) {
        if self.current.as_ref() == Some(policy) {
            return;
        }
        if let Some(before) = self.current.replace(policy.clone()) {
            self.earlier.push((before, at));
        }
        // Dates of another clock are kept: which of them are long ago is decided by the clock of who asks.
        self.earlier.retain(|(_, until)| at.duration_since(*until) < COOLING_OFF);
    }

    /// Those that were exchanged, and when; the one that is in force until now, where it is exchanged for another one now.
    pub(super) fn before(
        &self,
        policy: &PolicyInForce,
        now: Timestamp,
    ) -> impl Iterator<Item = (RetentionPolicy, Timestamp)> {
        let exchanged = self.current.iter().filter(move |current| *current != policy);
        let earlier = self.earlier.iter().map(|(earlier, until)| (earlier.policy(), *until));
        earlier.chain(exchanged.map(move |current| (current.policy(), now)))
    }
}
