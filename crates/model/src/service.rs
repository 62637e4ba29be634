//! The inventory: what we promised to be able to bring back. Cannot be built wrong; see `config`.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::adopt::AdoptedSet;
use crate::check::UserCheck;
use crate::custody::KeySpec;
use crate::id::{KeyName, RepositoryName, ServiceName, SourceName, TierName};
use crate::objective::RecoveryObjective;
use crate::placement::{Place, PlacementSpec};
use crate::remote::RemoteSpec;
use crate::secret::SecretRef;
use crate::source::SourceSpec;

/// Everything that the configuration promises, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Services in the order of the file.
    pub services: Vec<Service>,
    /// Repositories by name.
    pub repositories: BTreeMap<RepositoryName, RepositorySpec>,
    /// Tiers by name: `critical`, `standard`, `low` and the user's own.
    pub tiers: BTreeMap<TierName, RecoveryObjective>,
}

impl Inventory {
    /// The service of this name.
    #[must_use]
    pub fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.services.iter().find(|service| &service.name == name)
    }
}

/// Services in the order in which they are brought back: each after those of them that it depends on, else as they were given.
#[must_use]
pub fn in_recovery_order<'s>(services: &[&'s Service]) -> Vec<&'s Service> {
    let mut left = services.to_vec();
    let here: BTreeSet<&ServiceName> = services.iter().map(|service| &service.name).collect();
    let mut ordered: Vec<&Service> = Vec::new();
    while !left.is_empty() {
        let is_ready = |service: &&Service| {
            let mut needed = service.depends_on.iter();
            needed.all(|one| !here.contains(one) || ordered.iter().any(|before| &before.name == one))
        };
        // The configuration refuses circles; were there one, its services would follow in the order of the file.
        let next = left.iter().position(is_ready).unwrap_or(0);
        ordered.push(left.remove(next));
    }
    ordered
}

/// Something the business would miss.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// Who is asked.
    pub owner: String,
    /// Its tier.
    pub tier: TierName,
    /// The promise: the tier's, or its own.
    pub objective: RecoveryObjective,
    /// Why the promise is what it is.
    pub rationale: Option<String>,
    /// Services that must be back before this one.
    pub depends_on: Vec<ServiceName>,
    /// What holds its state.
    pub sources: Vec<ServiceSource>,
    /// Copies of its state that other tools make.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adopted: Vec<AdoptedSet>,
    /// Repositories that receive its copies; the first is the primary.
    pub repositories: Vec<RepositoryName>,
    /// When it is captured, as written (`cron` in a time zone); checked, not yet acted upon.
    pub schedule: Option<ScheduleSpec>,
    /// What is kept, where neither a source nor a repository says otherwise.
    pub retention: Option<RetentionSpec>,
    /// When its newest copy counts as stale.
    pub stale_after: SignedDuration,
    /// How it is drilled.
    pub drill: DrillPolicy,
    /// Where its live data is, and what is asked of its copies.
    pub placement: PlacementSpec,
    /// Whether this is the single source of truth for its data.
    pub ssot: bool,
}

/// One source of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSource {
    /// Its name within the service.
    pub name: SourceName,
    /// What it is.
    pub spec: SourceSpec,
    /// Questions asked of a restore beside those of the witness.
    pub checks: Vec<UserCheck>,
    /// What is kept of it, in place of what the service says.
    pub retention: Option<RetentionSpec>,
}

/// Where copies live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositorySpec {
    /// Its name.
    pub name: RepositoryName,
    /// A path, or the URL of an object store.
    pub location: String,
    /// Where its password is to be had.
    pub password: SecretRef,
    /// `disk`, `object-store`, `tape`, `nas`.
    pub medium: String,
    /// The place one disaster can reach at once.
    pub site: String,
    /// The provider's region.
    pub region: Option<String>,
    /// The account whose loss loses this copy.
    pub account: Option<String>,
    /// What is kept here, in place of what services say that do not keep everything.
    pub retention: Option<RetentionSpec>,
    /// How the object store is reached; `None` exactly where the location is a path.
    pub remote: Option<RemoteSpec>,
    /// The service of this inventory that gives its password, where one does.
    pub opened_by: Option<ServiceName>,
    /// The register: the keys that are meant to exist, and who holds them. Nobody has said where it is empty.
    pub keys: BTreeMap<KeyName, KeySpec>,
}

impl RepositorySpec {
    /// Where its copies lie, as the configuration says.
    #[must_use]
    pub fn place(&self) -> Place {
        Place {
            medium: Some(self.medium.clone()),
            site: Some(self.site.clone()),
            region: self.region.clone(),
            account: self.account.clone(),
        }
    }
}

/// When something is due: a cron expression in a named time zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleSpec {
    /// Five fields; `MON#1`, `L` and `W` are understood.
    pub cron: String,
    /// IANA name of the zone. Mandatory: a schedule without one runs at another hour after a move.
    pub zone: String,
}

impl ScheduleSpec {
    /// The first time after `instant` that it comes due, on the wall clock of its zone.
    ///
    /// A time that a change of clocks skips comes due right after the gap; one that it repeats comes due once. `None` for
    /// an expression that is no schedule, which no inventory holds, or where the calendar ends.
    #[must_use]
    pub fn next_after(&self, instant: Timestamp) -> Option<Timestamp> {
        crate::config::next_after(&self.cron, &self.zone, instant)
    }
}

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RetentionSpec {
    /// Newest copies kept whatever their age.
    pub last: Option<u32>,
    /// Days of which the first good copy is kept.
    pub daily: Option<u32>,
    /// ISO weeks of which the first good copy is kept.
    pub weekly: Option<u32>,
    /// Months of which the first good copy is kept.
    pub monthly: Option<u32>,
    /// Years of which the first good copy is kept.
    pub yearly: Option<u32>,
    /// Everything younger than this is kept.
    pub within: Option<SignedDuration>,
    /// Nothing expires.
    pub forever: bool,
}

/// How a service is drilled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillPolicy {
    /// When drills are due.
    pub schedule: Option<ScheduleSpec>,
    /// Age at which a proof no longer counts.
    pub proof_valid: SignedDuration,
    /// Window from which a random point is drawn.
    pub random_within: SignedDuration,
    /// Deadline of a drill as a multiple of the RTO, so that a miss is measured; in percent, 300 is three times.
    pub deadline_percent: u32,
    /// Deadline where no RTO applies.
    pub deadline: SignedDuration,
}
