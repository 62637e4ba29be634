//! What is kept of a log, copies and what was received behind them side by side: which stretches of it have no hole, and which moments
//! each of them can be restored to.
//!
//! Laws, each a property below: a stretch holds just what some copy or piece holds; two stretches never touch; a stretch without a copy can be
//! restored to no moment; another copy or piece never takes a moment away.

use jiff::Timestamp;

use super::{Coverage, Lsn, Timeline};
use crate::witness::PhysicalFacts;

/// A copy that holds a part of a cluster's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogCopy {
    /// The cluster.
    pub system: u64,
    /// The timeline.
    pub timeline: Timeline,
    /// What it holds of the log: from a position up to the one behind it.
    pub parts: Vec<(Lsn, Lsn)>,
    /// Where it ends.
    pub until: Lsn,
    /// From when on it can be restored to any moment.
    pub since: Timestamp,
    /// Its own instant.
    pub at: Timestamp,
}

/// A piece of a cluster's log that lies outside of copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPiece {
    /// The cluster.
    pub system: u64,
    /// The timeline.
    pub timeline: Timeline,
    /// Its first position.
    pub from: Lsn,
    /// The position behind its last.
    pub to: Lsn,
    /// Nothing that was written before then lies behind it; unknown of most.
    pub complete_at: Option<Timestamp>,
}

/// A part of a log without a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The cluster.
    pub system: u64,
    /// The timeline.
    pub timeline: Timeline,
    /// Its first position.
    pub from: Lsn,
    /// The position behind its last.
    pub to: Lsn,
    /// Copies in it.
    pub copies: usize,
    /// Pieces in it that lie outside of copies, those aside that hold nothing.
    pub pieces: usize,
    /// The first and the last moment that it can surely be restored to; nothing where no copy leads to it.
    pub moments: Option<(Timestamp, Timestamp)>,
}

impl LogCopy {
    /// What a copy of a cluster at `at` holds of its log.
    #[must_use]
    pub fn new(system: u64, facts: &PhysicalFacts, at: Timestamp) -> Self {
        let size = facts.segment_bytes;
        Self {
            system,
            timeline: facts.timeline,
            parts: facts.log_files().map(|file| (file.segment.start(size), file.until)).collect(),
            until: facts.until,
            since: facts.base.as_ref().map_or(at, |base| base.at),
            at,
        }
    }
}

/// The stretches of each cluster's timelines, in order.
#[must_use]
pub fn stretches(copies: &[LogCopy], pieces: &[LogPiece]) -> Vec<Stretch> {
    let mut systems: Vec<u64> = copies.iter().map(|copy| copy.system).collect();
    systems.extend(pieces.iter().map(|piece| piece.system));
    systems.sort_unstable();
    systems.dedup();
    let mut stretches = Vec::new();
    for system in systems {
        let copies: Vec<&LogCopy> = copies.iter().filter(|copy| copy.system == system).collect();
        let pieces: Vec<&LogPiece> = pieces.iter().filter(|piece| piece.system == system).collect();
        let mut coverage = Coverage::default();
        for copy in &copies {
            for (from, to) in &copy.parts {
                coverage.add(copy.timeline, *from, *to);
            }
        }
        for piece in &pieces {
            coverage.add(piece.timeline, piece.from, piece.to);
        }
        for timeline in coverage.timelines() {
            for (from, to) in coverage.held(timeline).iter().copied() {
                let is_in = |at: Lsn| from <= at && at <= to;
                let copies: Vec<&&LogCopy> =
                    copies.iter().filter(|copy| copy.timeline == timeline && is_in(copy.until)).collect();
                let pieces: Vec<&&LogPiece> =
                    pieces.iter().filter(|piece| piece.timeline == timeline && is_in(piece.to)).collect();
                let since = copies.iter().map(|copy| copy.since).min();
                let ends = copies.iter().map(|copy| copy.at);
                let last = ends.chain(pieces.iter().filter_map(|piece| piece.complete_at)).max();
                stretches.push(Stretch {
                    system,
                    timeline,
                    from,
                    to,
                    copies: copies.len(),
                    pieces: pieces.iter().filter(|piece| piece.from < piece.to).count(),
                    moments: since.zip(last),
                });
            }
        }
    }
    stretches
}

/// The newest stretch of a cluster where no copy leads to it although there is one before it on the same timeline: what is received goes on behind a
/// hole, and none of it can be restored until there is another copy.
#[must_use]
pub fn adrift(stretches: &[Stretch]) -> Vec<&Stretch> {
    let is_last = |at: usize, stretch: &Stretch| {
        stretches
            .get(at + 1)
            .is_none_or(|next| (next.system, next.timeline) != (stretch.system, stretch.timeline))
    };
    let has_copy_before = |at: usize, stretch: &Stretch| {
        stretches[..at].iter().any(|before| {
            (before.system, before.timeline) == (stretch.system, stretch.timeline) && before.copies > 0
        })
    };
    let is_adrift = |(at, stretch): &(usize, &Stretch)| {
        stretch.copies == 0 && is_last(*at, stretch) && has_copy_before(*at, stretch)
    };
    stretches.iter().enumerate().filter(is_adrift).map(|(_, stretch)| stretch).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: Timeline = Timeline::FIRST;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn copy(parts: &[(u64, u64)], since: i64, moment: i64) -> LogCopy {
        let parts: Vec<(Lsn, Lsn)> = parts.iter().map(|(from, to)| (Lsn(*from), Lsn(*to))).collect();
        let until = parts.iter().map(|part| part.1).max().unwrap();
        LogCopy { system: 7, timeline: ONE, parts, until, since: at(since), at: at(moment) }
    }

    fn piece(from: u64, to: u64, complete: Option<i64>) -> LogPiece {
        LogPiece { system: 7, timeline: ONE, from: Lsn(from), to: Lsn(to), complete_at: complete.map(at) }
    }

    #[test]
    fn what_a_copy_holds_is_no_hole_between_pieces() {
        let copies = [copy(&[(16, 31)], 100, 200)];
        let pieces = [piece(0, 16, None), piece(31, 40, Some(300)), piece(40, 40, Some(310))];
        let map = stretches(&copies, &pieces);
        assert_eq!(map.len(), 1);
        assert_eq!((map[0].from, map[0].to, map[0].copies, map[0].pieces), (Lsn(0), Lsn(40), 1, 2));
        assert_eq!(map[0].moments, Some((at(100), at(310))));
        assert!(adrift(&map).is_empty());
    }

    #[test]
    fn what_goes_on_behind_a_hole_is_adrift_until_there_is_a_copy() {
        let (first, second) = (copy(&[(16, 31)], 100, 200), copy(&[(36, 50)], 400, 400));
        let pieces = [piece(0, 8, None), piece(33, 38, Some(300))];
        let map = stretches(std::slice::from_ref(&first), &pieces);
        assert_eq!(
            map.iter().map(|stretch| stretch.moments).collect::<Vec<_>>(),
            [None, Some((at(100), at(200))), None]
        );
        assert_eq!(adrift(&map), [&map[2]]);
        // What lies before the first copy is nobody's loss, and neither is a hole between two copies.
        let map = stretches(&[first, second], &pieces);
        assert_eq!(map[2].moments, Some((at(400), at(400))));
        assert!(adrift(&map).is_empty());
        // Nothing is known of a cluster but its log: it is not said to be adrift from anything.
        assert!(adrift(&stretches(&[], &pieces)).is_empty());
        // Of two clusters, each for itself.
        let other = LogPiece { system: 8, ..piece(60, 70, None) };
        let map = stretches(&[copy(&[(16, 31)], 100, 200)], &[other]);
        assert!(adrift(&map).is_empty());
    }

    fn parts() -> impl Strategy<Value = Vec<(u64, u64)>> {
        prop::collection::vec((0..40_u64, 1..8_u64), 1..4)
            .prop_map(|parts| parts.into_iter().map(|(from, length)| (from, from + length)).collect())
    }

    proptest! {
        #[test]
        fn a_map_holds_what_is_kept_and_nothing_else(
            held in prop::collection::vec((parts(), 0..50_i64, 0..50_i64), 0..4),
            loose in prop::collection::vec((0..40_u64, 0..8_u64, prop::option::of(0..90_i64)), 0..6),
        ) {
            let copies: Vec<LogCopy> =
                held.iter().map(|(parts, since, more)| copy(parts, *since, since + more)).collect();
            let pieces: Vec<LogPiece> =
                loose.iter().map(|(from, length, at)| piece(*from, from + length, *at)).collect();
            let map = stretches(&copies, &pieces);
            for byte in 0..50_u64 {
                let is_kept = copies.iter().any(|copy| copy.parts.iter().any(|part| part.0.0 <= byte && byte < part.1.0))
                    || pieces.iter().any(|piece| piece.from.0 <= byte && byte < piece.to.0);
                let times = map.iter().filter(|stretch| stretch.from.0 <= byte && byte < stretch.to.0).count();
                prop_assert_eq!(times, usize::from(is_kept));
            }
            for pair in map.windows(2) {
                prop_assert!(pair[0].to < pair[1].from);
            }
            for stretch in &map {
                prop_assert_eq!(stretch.moments.is_none(), stretch.copies == 0);
                if let Some((first, last)) = stretch.moments {
                    prop_assert!(first <= last);
                }
            }
            prop_assert_eq!(map.iter().map(|stretch| stretch.copies).sum::<usize>(), copies.len());
            // More of either never takes a moment away.
            if let Some((last, fewer)) = pieces.split_last() {
                let smaller = stretches(&copies, fewer);
                for (first, end) in smaller.iter().filter_map(|stretch| stretch.moments) {
                    let is_there = |moments: Option<(Timestamp, Timestamp)>| moments.is_some_and(|(from, to)| from <= first && end <= to);
                    prop_assert!(map.iter().any(|stretch| is_there(stretch.moments)), "{:?}", last);
                }
            }
        }
    }
}
