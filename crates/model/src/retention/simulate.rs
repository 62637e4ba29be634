//! A calendar of what would be left, so that a policy can be looked at before it decides.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{Case, Decision, Listing, NewestRun, Reason, RetentionPolicy, plan};
use crate::assess::EPOCH;
use crate::id::{CopyId, RepositoryId, RepositoryName, RunId, ServiceName, SourceName};
use crate::point::{PointStanding, RecoveryPoint};
use crate::receipt::{Outcome, RepositoryRef};
use crate::service::ScheduleSpec;

/// Hourly copies of two years, daily ones of fifty.
const COPIES_MAX: usize = 20_000;

/// Why nothing was simulated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SimulateError {
    /// It would begin before there were receipts.
    #[error("a simulation begins in 2026 or later, not at {0}")]
    TooEarly(Timestamp),
    /// The schedule comes due too often in this time.
    #[error("a simulation has at most {COPIES_MAX} copies; simulate a shorter time or fewer copies")]
    TooMany,
}

/// A copy that would be left, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Survivor {
    /// When it would have been made.
    pub at: Timestamp,
    /// Every reason to keep it.
    pub reasons: Vec<Reason>,
}

/// What a policy would have left at `to` of the copies that a schedule makes after `from`, oldest first, were every one good
/// and nothing held back for a while: not by a mark, not by the fifth that may go at once.
pub fn simulate(
    policy: &RetentionPolicy,
    schedule: &ScheduleSpec,
    from: Timestamp,
    to: Timestamp,
) -> Result<Vec<Survivor>, SimulateError> {
    if from < EPOCH {
        return Err(SimulateError::TooEarly(from));
    }
    let due = std::iter::successors(schedule.next_after(from), |at| schedule.next_after(*at));
    left(policy, due.take_while(|at| *at <= to), to)
}

fn left(
    policy: &RetentionPolicy,
    due: impl Iterator<Item = Timestamp>,
    to: Timestamp,
) -> Result<Vec<Survivor>, SimulateError> {
    let due: Vec<Timestamp> = due.take(COPIES_MAX + 1).collect();
    if due.len() > COPIES_MAX {
        return Err(SimulateError::TooMany);
    }
    let service = ServiceName::new("simulated").expect("a name");
    let source = SourceName::new("simulated").expect("a name");
    let repository = RepositoryRef {
        id: RepositoryId(String::new()),
        name: RepositoryName::new("simulated").expect("a name"),
        medium: None,
        site: None,
    };
    let made = |(sequence, at): (u64, Timestamp)| RecoveryPoint {
        service: service.clone(),
        source: source.clone(),
        sequence,
        run: RunId(String::new()),
        repository: repository.clone(),
        copy: CopyId(format!("{sequence:064x}")),
        point: at,
        finished: at,
        started: None,
        outcome: Outcome::Complete,
        restore_bytes: 0,
        stored_bytes: 0,
        witness: None,
        standing: PointStanding::Unproven,
        was_found: false,
        replica_of: None,
        is_implausible: false,
        mark: None,
        is_doubted: false,
    };
    let points: Vec<RecoveryPoint> = (1..).zip(due).map(made).collect();
    let listed: BTreeSet<CopyId> = points.iter().map(|point| point.copy.clone()).collect();
    let planned = plan(&Case {
        service: &service,
        source: &source,
        repository: &repository.id,
        points: &points,
        policy,
        earlier: &[],
        fresh_within: SignedDuration::MAX,
        newest_run: NewestRun::Ended(Outcome::Complete),
        newest_receipt: None,
        listing: Listing::Whole(&listed),
        holds: &[],
        aside: &BTreeMap::new(),
        doubted: &BTreeSet::new(),
        marks: &[],
        approved: &BTreeSet::new(),
        now: to,
    });
    let survives = planned.decisions.into_iter().filter_map(|one| match one.decision {
        Decision::Keep(reasons) => Some(Survivor { at: one.at, reasons }),
        // What awaits an approval would go with it.
        Decision::Expire(_) | Decision::Refused { .. } | Decision::Absent => None,
    });
    Ok(survives.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::RetentionSpec;

    #[test]
    fn more_copies_than_it_is_made_for_are_refused() {
        let spec = RetentionSpec { last: Some(2), ..RetentionSpec::default() };
        let policy = RetentionPolicy::new(Some(spec), "UTC").unwrap();
        let every_hour = |count: i32| (1..=count).map(|hour| EPOCH + SignedDuration::from_hours(1) * hour);
        let to = EPOCH + SignedDuration::from_hours(30_000);
        assert_eq!(left(&policy, every_hour(20_000), to).map(|left| left.len()), Ok(2));
        assert_eq!(left(&policy, every_hour(20_001), to), Err(SimulateError::TooMany));
        assert_eq!(
            left(&policy, std::iter::repeat(EPOCH), to),
            Err(SimulateError::TooMany),
            "an end of them is not awaited"
        );
    }
}
