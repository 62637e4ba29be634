//! What a policy wants to keep, apart from every rule that outranks it.

use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::act::PolicyInForce;
use super::bucket::{Bucket, Rung};
use super::plan::Reason;
use crate::service::{RepositorySpec, RetentionSpec, Service, ServiceSource};

/// Why a policy cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the IANA name of a time zone")]
pub struct UnknownZone(pub String);

/// What a service wants to keep, and the zone whose days, weeks, months and years are meant.
///
/// A service without one, or one that keeps nothing, wants everything: nothing expires by omission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RetentionPolicy {
    spec: Option<RetentionSpec>,
    zone: String,
    #[serde(skip)]
    time_zone: TimeZone,
}

/// A policy that was in force until it was exchanged for another one.
///
/// One that was exchanged before 2026 was exchanged by a clock that was behind, at an unknown time: it is heeded as long as it
/// is named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EarlierPolicy {
    /// What was wanted.
    pub policy: RetentionPolicy,
    /// When it was exchanged, by the controller's clock.
    pub until: Timestamp,
}

/// A copy as far as a policy sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// When it was made; `None` where that is doubted.
    pub(super) at: Option<Timestamp>,
    /// Whether it may stand for a period.
    pub(super) is_good: bool,
    /// Whether a receipt tells of its making. A copy that was found takes no place from one that has one.
    pub(super) has_receipt: bool,
}

impl RetentionPolicy {
    /// A policy whose periods are those of a zone of this IANA name.
    pub fn new(spec: Option<RetentionSpec>, zone: &str) -> Result<Self, UnknownZone> {
        // The zones that travel with the binary: what expires must not depend on the machine that asks.
        let time_zone = TimeZoneDatabase::bundled().get(zone).map_err(|_| UnknownZone(zone.to_owned()))?;
        Ok(Self { spec, zone: zone.to_owned(), time_zone })
    }

    /// A service's policy, in the zone of its schedule; UTC where it has none.
    pub fn of(service: &Service) -> Result<Self, UnknownZone> {
        let zone = service.schedule.as_ref().map_or("UTC", |schedule| schedule.zone.as_str());
        Self::new(service.retention.clone(), zone)
    }

    /// The policy of one source in one repository: the repository's, otherwise the source's, otherwise the service's. What keeps
    /// everything for ever outranks the repository's: a place that keeps ninety days keeps such a source for ever too.
    pub fn within(
        service: &Service,
        source: &ServiceSource,
        repository: &RepositorySpec,
    ) -> Result<Self, UnknownZone> {
        let own = source.retention.as_ref().or(service.retention.as_ref());
        let is_forever = own.is_some_and(|own| own.forever);
        let here = repository.retention.as_ref().filter(|_| !is_forever);
        Ok(Self { spec: here.or(own).cloned(), ..Self::of(service)? })
    }

    /// One that keeps everything.
    pub(super) fn everything() -> Self {
        Self { spec: None, zone: "UTC".to_owned(), time_zone: TimeZone::UTC }
    }

    /// As a receipt keeps it.
    #[must_use]
    pub fn in_force(&self) -> PolicyInForce {
        PolicyInForce { keep: self.spec.clone(), zone: self.zone.clone() }
    }

    /// Names to `keep` each copy that is wanted, by its position, with each reason; copies come oldest first.
    pub(super) fn want(&self, copies: &[Seen], now: Timestamp, mut keep: impl FnMut(usize, Reason)) {
        let spec = match &self.spec {
            Some(spec) if spec.forever => {
                return (0..copies.len()).for_each(|index| keep(index, Reason::Forever));
            }
            Some(spec) if !keeps_nothing(spec) => spec,
            Some(_) | None => return (0..copies.len()).for_each(|index| keep(index, Reason::NoPolicy)),
        };
        if let Some(within) = spec.within {
            for (index, copy) in copies.iter().enumerate() {
                if copy.at.is_some_and(|at| now.duration_since(at) < within) {
                    keep(index, Reason::Within);
                }
            }
        }
        let mut newer = 0;
        for (index, copy) in copies.iter().enumerate().rev().filter(|(_, copy)| copy.is_good) {
            if newer >= spec.last.unwrap_or(0) {
                break;
            }
            keep(index, Reason::Last(newer + 1));
            newer += u32::from(copy.has_receipt);
        }
        let numbers = [spec.daily, spec.weekly, spec.monthly, spec.yearly];
        if numbers == [None; 4] {
            return;
        }
        let days: Vec<_> = copies
            .iter()
            .enumerate()
            .filter(|(_, copy)| copy.is_good)
            .filter_map(|(index, copy)| {
                Some((index, copy.has_receipt, self.time_zone.to_datetime(copy.at?).date()))
            })
            .collect();
        for (rung, number) in Rung::ALL.into_iter().zip(numbers) {
            // Of a period the first stands for it: one with a receipt before one that was found.
            let mut places: Vec<(Bucket, bool, usize)> =
                days.iter().map(|(index, made, day)| (rung.bucket(*day), !made, *index)).collect();
            places.sort_unstable();
            places.dedup_by_key(|(bucket, ..)| *bucket);
            let mut newer = 0;
            for (bucket, was_found, index) in places.into_iter().rev() {
                if newer >= number.unwrap_or(0) {
                    break;
                }
                keep(index, Reason::First(bucket));
                newer += u32::from(!was_found);
            }
        }
    }
}

fn keeps_nothing(spec: &RetentionSpec) -> bool {
    let numbers = [spec.last, spec.daily, spec.weekly, spec.monthly, spec.yearly];
    numbers.iter().all(|number| number.unwrap_or(0) == 0)
        && spec.within.is_none_or(|within| within <= SignedDuration::ZERO)
}
