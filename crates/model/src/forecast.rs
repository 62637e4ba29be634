//! How long a restore will take, from what drills of the same source have measured.
//!
//! A forecast is no promise, so it is a range: what the fastest and the slowest of the newest drills would have taken for a copy of
//! this size. Without a drill there is none: an estimate that nobody has measured is a wish.

use serde::Serialize;

use crate::id::RepositoryId;
use crate::point::RecoveryPoint;
use crate::receipt::{Act, Drill, Receipt};
use crate::verdict::Verdict;

/// Newest drills that a forecast rests on; older ones were of another size, on another machine.
pub const DRILLS_MAX: usize = 5;

/// Phases of a drill that a restore goes through too, in proportion to its bytes.
const BY_SIZE: [&str; 2] = ["fetch", "restore"];
/// The phase that takes as long for a small copy as for a large one.
const FIXED: &str = "provision";

/// What drills say of a restore that is yet to come: until the data is there, before anybody has checked it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Forecast {
    /// Sequences of the receipts that it rests on, newest first; at least one.
    pub drills: Vec<u64>,
    /// By the fastest of them, in milliseconds.
    pub from_ms: u64,
    /// By the slowest of them, in milliseconds.
    pub to_ms: u64,
    /// Whether they read from the same repository; one that is farther away is slower.
    pub is_of_repository: bool,
    /// Whether the copy is more than twice as large as any that they restored.
    pub is_stretched: bool,
}

impl Forecast {
    /// The forecast of a restore of `point`, given every receipt and point that is known; `None` where no drill of the source has
    /// passed.
    ///
    /// Drills from the repository that holds the copy count; where there are none, those from others do. The time of fetching and
    /// restoring is scaled by the bytes that a restore needs, the rest is not.
    #[must_use]
    pub fn of<'a>(
        receipts: impl IntoIterator<Item = &'a Receipt>,
        points: &[RecoveryPoint],
        point: &RecoveryPoint,
    ) -> Option<Self> {
        let mut drills: Vec<(u64, &Drill)> = receipts
            .into_iter()
            .filter_map(|receipt| match &receipt.act {
                Act::Drill(drill) if is_of(drill, point) => Some((receipt.sequence, &**drill)),
                _ => None,
            })
            .collect();
        drills.sort_by_key(|(sequence, _)| std::cmp::Reverse(*sequence));
        let is_from = |id: &RepositoryId| drills.iter().any(|(_, drill)| drill.repository.id == *id);
        let is_of_repository = is_from(&point.repository.id);
        if is_of_repository {
            drills.retain(|(_, drill)| drill.repository.id == point.repository.id);
        }
        drills.truncate(DRILLS_MAX);
        let needed = |drill: &Drill| {
            let of = |known: &&RecoveryPoint| {
                known.copy == drill.copy && known.repository.id == drill.repository.id
            };
            points.iter().find(of).map_or(drill.restored_bytes, |known| known.restore_bytes)
        };
        let took: Vec<u64> =
            drills.iter().map(|(_, drill)| scaled(drill, needed(drill), point.restore_bytes)).collect();
        let largest = drills.iter().map(|(_, drill)| needed(drill)).max()?;
        Some(Self {
            drills: drills.iter().map(|(sequence, _)| *sequence).collect(),
            from_ms: took.iter().copied().min()?,
            to_ms: took.iter().copied().max()?,
            is_of_repository,
            is_stretched: point.restore_bytes > largest.saturating_mul(2),
        })
    }
}

/// Whether a drill has restored a copy of the same source with this program, to the end.
fn is_of(drill: &Drill, point: &RecoveryPoint) -> bool {
    drill.service == point.service
        && drill.source == point.source
        && drill.independence.is_none()
        && drill.until.is_none()
        && matches!(drill.verdict, Verdict::Pass(_))
}

fn scaled(drill: &Drill, had: u64, needs: u64) -> u64 {
    let of = |wanted: &[&str]| -> u64 {
        let phases = drill.phases.iter().filter(|phase| wanted.contains(&phase.name.as_str()));
        phases.fold(0, |sum, phase| sum.saturating_add(phase.took_ms))
    };
    let by_size = u128::from(of(&BY_SIZE)) * u128::from(needs) / u128::from(had.max(1));
    of(&[FIXED]).saturating_add(u64::try_from(by_size).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::example::{About, backup, drill, failed_drill};
    use crate::id::{RunId, SourceName};
    use crate::receipt::Phase;
    use crate::signature::sha256;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + hour * 3_600).unwrap()
    }

    fn receipt(sequence: u64, at: Timestamp, act: Act) -> Receipt {
        Receipt { sequence, previous: None, at, subject: Vec::new(), act, digest: sha256(b"receipt") }
    }

    fn copy_of(hour: i64, bytes: u64) -> RecoveryPoint {
        let mut made = backup(&About::new("shop", "db", at(hour)), None);
        made.sizes.restore_bytes = bytes;
        let receipt = receipt(u64::try_from(hour).unwrap(), at(hour), Act::Backup(Box::new(made)));
        RecoveryPoint::made_by(&receipt).unwrap()
    }

    /// A drill of the copy of `hour` that took so many milliseconds to provision and to restore.
    fn drilled(sequence: u64, hour: i64, provision: u64, restore: u64) -> Receipt {
        let made = backup(&About::new("shop", "db", at(hour)), None);
        let mut drill = drill(&About::new("shop", "db", at(50)), None, &made, None);
        drill.run = RunId(format!("drill-{sequence}"));
        let phase = |name: &str, took_ms| Phase { name: name.to_owned(), took_ms };
        drill.phases = vec![phase("provision", provision), phase("restore", restore), phase("checks", 777)];
        receipt(sequence, at(51), Act::Drill(Box::new(drill)))
    }

    #[test]
    fn what_has_never_been_drilled_has_no_forecast() {
        let wanted = copy_of(3, 1_000);
        assert_eq!(Forecast::of(&[], &[], &wanted), None);
        let made = backup(&About::new("shop", "db", at(3)), None);
        let failed = failed_drill(&About::new("shop", "db", at(4)), None, &made, None);
        let failed = receipt(9, at(5), Act::Drill(Box::new(failed)));
        assert_eq!(Forecast::of(&[failed], &[], &wanted), None);
        let mut other = copy_of(3, 1_000);
        other.source = SourceName::new("files").unwrap();
        assert_eq!(Forecast::of(&[drilled(9, 3, 1, 1)], &[], &other), None);
    }

    #[test]
    fn the_newest_five_drills_make_a_range_and_only_what_grows_with_the_data_is_scaled() {
        let points = [copy_of(3, 1_000), copy_of(4, 2_000)];
        let receipts = [drilled(10, 3, 400, 100), drilled(11, 4, 300, 600)];
        let told = Forecast::of(&receipts, &points, &copy_of(5, 4_000)).unwrap();
        assert_eq!((told.from_ms, told.to_ms), (400 + 400, 300 + 1_200));
        assert_eq!((told.drills.as_slice(), told.is_stretched), (&[11, 10][..], false));
        assert!(Forecast::of(&receipts, &points, &copy_of(5, 4_001)).unwrap().is_stretched);
        let many: Vec<Receipt> =
            (10..17).map(|n| drilled(n, 3, if n == 10 { 90_000 } else { 1 }, 1)).collect();
        let told = Forecast::of(&many, &points, &copy_of(5, 1_000)).unwrap();
        assert_eq!((told.drills.as_slice(), told.to_ms), (&[16, 15, 14, 13, 12][..], 2));
    }

    #[test]
    fn drills_from_where_the_copy_lies_come_before_those_from_elsewhere() {
        let points = [copy_of(3, 1_000)];
        let mut away = copy_of(5, 1_000);
        away.repository.id = RepositoryId("ee".repeat(32));
        let near = drilled(10, 3, 0, 100);
        let told = Forecast::of(std::slice::from_ref(&near), &points, &away).unwrap();
        assert_eq!((told.to_ms, told.is_of_repository), (100, false));
        let mut far = drilled(9, 3, 0, 9_000);
        if let Act::Drill(drill) = &mut far.act {
            drill.repository.id = away.repository.id.clone();
            drill.restored_bytes = 1_000;
        }
        let told = Forecast::of(&[near, far], &points, &away).unwrap();
        assert_eq!((told.from_ms, told.to_ms, told.is_of_repository), (9_000, 9_000, true));
    }

    #[test]
    fn an_empty_copy_and_a_huge_one_end_in_a_number() {
        let mut empty = drilled(10, 3, 5, 7);
        if let Act::Drill(drill) = &mut empty.act {
            drill.restored_bytes = 0;
        }
        let told = Forecast::of(&[empty], &[], &copy_of(5, u64::MAX)).unwrap();
        assert_eq!(told.to_ms, u64::MAX);
    }
}
