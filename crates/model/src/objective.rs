//! Objectives, and what was achieved against them.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// An upper bound, or the statement that none applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// Wall-clock upper bound.
    Within(SignedDuration),
    /// Declared as not applicable, e.g. a cache that is rebuilt; never an omission.
    NotApplicable,
}

/// What a service was promised: how much may be lost, how long it may be down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryObjective {
    /// Largest tolerated age of the newest recoverable data.
    pub rpo: Objective,
    /// Longest tolerated time from the start of a recovery to a verified service.
    pub rto: Objective,
}

/// Whether a measurement keeps a promise. There is no "nearly".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Met {
    /// Measured, and within the bound (equal counts).
    Met,
    /// Measured, and beyond the bound.
    Missed,
    /// Nothing was measured: never a pass.
    Unknown,
    /// No objective applies.
    NotApplicable,
}

impl Objective {
    /// Judges a measurement; without one the answer is [`Met::Unknown`].
    #[must_use]
    pub fn judge(self, measured: Option<SignedDuration>) -> Met {
        match (self, measured) {
            (Self::NotApplicable, _) => Met::NotApplicable,
            (Self::Within(_), None) => Met::Unknown,
            (Self::Within(bound), Some(measured)) if measured <= bound => Met::Met,
            (Self::Within(_), Some(_)) => Met::Missed,
        }
    }
}

/// Exposure: how much would be lost if the source vanished at `now` and `newest` were the newest recoverable instant.
///
/// Never negative; a `newest` in the future of `now` is `None` (the clocks disagree, which is not a small exposure).
#[must_use]
pub fn exposure(newest: Timestamp, now: Timestamp) -> Option<SignedDuration> {
    let age = now.duration_since(newest);
    (!age.is_negative()).then_some(age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_met_up_to_its_last_nanosecond() {
        let bound = Objective::Within(SignedDuration::from_hours(2));
        assert_eq!(bound.judge(Some(SignedDuration::from_hours(2))), Met::Met);
        assert_eq!(
            bound.judge(Some(SignedDuration::from_hours(2) + SignedDuration::from_nanos(1))),
            Met::Missed
        );
        assert_eq!(bound.judge(None), Met::Unknown);
        assert_eq!(Objective::NotApplicable.judge(None), Met::NotApplicable);
    }

    #[test]
    fn what_lies_in_the_future_is_no_small_exposure() {
        let now = Timestamp::UNIX_EPOCH;
        let hour = SignedDuration::from_hours(1);
        assert_eq!(exposure(now - hour, now), Some(hour));
        assert_eq!(exposure(now, now), Some(SignedDuration::ZERO));
        assert_eq!(exposure(now + SignedDuration::from_nanos(1), now), None);
    }
}
