//! What of a cluster's log an archive holds, and how far a backup can be taken with it.
//!
//! A server that recovers reads on until a piece is missing, takes that for the end of the log, and is promoted there without a word.
//! So the end is computed here, before and after a recovery: a position can be reached when every byte from the beginning of the backup
//! up to it is held, on the way that leads to the wanted timeline.
//!
//! Laws, each a property below against one byte after the other: adding pieces takes nothing away; the order in which they come makes no
//! difference; nothing beyond a hole is reached; what is reached is held.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::history::History;
use super::{Lsn, Timeline};

/// Pieces of the log that an archive holds, and the histories that it knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// Of each timeline the pieces, each from its first position to the one behind its last; in order, none touching the next.
    held: BTreeMap<Timeline, Vec<(Lsn, Lsn)>>,
    histories: BTreeMap<Timeline, History>,
}

/// Positions of a timeline that are missing before others that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    /// Timeline.
    pub timeline: Timeline,
    /// The first position that is missing.
    pub from: Lsn,
    /// The first one behind it that is there.
    pub to: Lsn,
}

/// Why a recovery gets no farther.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ends {
    /// Nothing behind it has come yet.
    Archive,
    /// Something is missing, and there is more behind it.
    Hole(Hole),
}

/// How far a backup can be taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// The timeline that is wanted.
    pub timeline: Timeline,
    /// Where recovery begins.
    pub from: Lsn,
    /// The position up to which everything is held.
    pub until: Lsn,
    /// The timeline that `until` is on.
    pub on: Timeline,
    /// Why there.
    pub ends: Ends,
}

/// A timeline that a backup cannot be taken to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// Its history is not in the archive.
    #[error("the archive has no history of timeline {0}")]
    NoHistory(Timeline),
    /// The backup's timeline is none of its ancestors.
    #[error("timeline {wanted} does not come from timeline {from}")]
    NoAncestor {
        /// The wanted one.
        wanted: Timeline,
        /// The backup's.
        from: Timeline,
    },
    /// The backup began after its timeline was left for the wanted one.
    #[error("timeline {from} was left for timeline {wanted} at {left}, before the backup began at {began}")]
    LeftBefore {
        /// The wanted one.
        wanted: Timeline,
        /// The backup's.
        from: Timeline,
        /// Where it was left.
        left: Lsn,
        /// Where the backup began.
        began: Lsn,
    },
}

/// Two histories of one timeline: two servers were promoted to the same number, and archive into one place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("timeline {0} has two histories: two servers took the same number, and archive into one place")]
pub struct TwoHistories(pub Timeline);

impl Coverage {
    /// Takes note of a piece. An empty one changes nothing.
    pub fn add(&mut self, timeline: Timeline, from: Lsn, to: Lsn) {
        if from >= to {
            return;
        }
        let held = self.held.entry(timeline).or_default();
        // Those that it touches become one with it.
        let first = held.partition_point(|piece| piece.1 < from);
        let last = held.partition_point(|piece| piece.0 <= to);
        let merged =
            held[first..last].iter().fold((from, to), |sum, piece| (sum.0.min(piece.0), sum.1.max(piece.1)));
        held.splice(first..last, [merged]);
    }

    /// Takes note of a history.
    ///
    /// # Errors
    ///
    /// Where another one is known of the same timeline; the known one stays.
    pub fn learn(&mut self, history: History) -> Result<(), TwoHistories> {
        match self.histories.get(&history.timeline) {
            Some(known) if *known != history => Err(TwoHistories(history.timeline)),
            Some(_) => Ok(()),
            None => {
                self.histories.insert(history.timeline, history);
                Ok(())
            }
        }
    }

    /// The pieces of a timeline, in order.
    #[must_use]
    pub fn held(&self, timeline: Timeline) -> &[(Lsn, Lsn)] {
        self.held.get(&timeline).map_or(&[], Vec::as_slice)
    }

    /// Timelines of which something is known, in order.
    pub fn timelines(&self) -> impl Iterator<Item = Timeline> {
        let mut known: Vec<Timeline> = self.held.keys().chain(self.histories.keys()).copied().collect();
        known.sort_unstable();
        known.dedup();
        known.into_iter()
    }

    /// What is missing between the first and the last piece of each timeline.
    #[must_use]
    pub fn holes(&self) -> Vec<Hole> {
        let between = |(timeline, held): (&Timeline, &Vec<(Lsn, Lsn)>)| -> Vec<Hole> {
            let pairs = held.windows(2);
            pairs.map(|pair| Hole { timeline: *timeline, from: pair[0].1, to: pair[1].0 }).collect()
        };
        self.held.iter().flat_map(between).collect()
    }

    /// How far a backup that began at `from` on a timeline can be taken on the way to `wanted`.
    ///
    /// Where a timeline was left, the rest of its segment may be held as the beginning of the next timeline's only: the server copies
    /// what came before into the new file, so that either will do.
    ///
    /// # Errors
    ///
    /// Where no way leads there, or none is known.
    pub fn reach(&self, timeline: Timeline, from: Lsn, wanted: Timeline) -> Result<Reach, Unreachable> {
        let first;
        let history = match self.histories.get(&wanted) {
            Some(history) => history,
            None if wanted == Timeline::FIRST || wanted == timeline => {
                first = History { timeline: wanted, switches: Vec::new() };
                &first
            }
            None => return Err(Unreachable::NoHistory(wanted)),
        };
        let stretches = history.stretches();
        let own = stretches
            .iter()
            .position(|stretch| stretch.0 == timeline)
            .ok_or(Unreachable::NoAncestor { wanted, from: timeline })?;
        let left = stretches[own].2;
        if from >= left {
            return Err(Unreachable::LeftBefore { wanted, from: timeline, left, began: from });
        }
        let mut until = from;
        for (index, (on, _, end)) in stretches.iter().enumerate().skip(own) {
            while until < *end {
                let Some(next) = self.held_until(&stretches[index..], until) else {
                    let ends = self
                        .beyond(&stretches[index..], until)
                        .map_or(Ends::Archive, |to| Ends::Hole(Hole { timeline: *on, from: until, to }));
                    return Ok(Reach { timeline: wanted, from, until, on: *on, ends });
                };
                until = next.min(*end);
            }
        }
        // The whole log is held, to the last position that there can be.
        Ok(Reach { timeline: wanted, from, until, on: wanted, ends: Ends::Archive })
    }

    /// The end of the longest piece of any of these timelines that holds a position.
    fn held_until(&self, stretches: &[(Timeline, Lsn, Lsn)], at: Lsn) -> Option<Lsn> {
        let of = |stretch: &(Timeline, Lsn, Lsn)| {
            let held = self.held(stretch.0);
            let piece = held.get(held.partition_point(|piece| piece.1 <= at))?;
            (piece.0 <= at).then_some(piece.1)
        };
        stretches.iter().filter_map(of).max()
    }

    /// The first position behind a missing one that is held on the way.
    fn beyond(&self, stretches: &[(Timeline, Lsn, Lsn)], at: Lsn) -> Option<Lsn> {
        let of = |(timeline, _, end): &(Timeline, Lsn, Lsn)| {
            let held = self.held(*timeline);
            let piece = held.get(held.partition_point(|piece| piece.0 <= at))?;
            (piece.0 < *end).then_some(piece.0)
        };
        stretches.iter().filter_map(of).min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(number: u32) -> Timeline {
        Timeline::new(number).unwrap()
    }

    fn history(of: u32, switches: &[(u32, u64)]) -> History {
        let switches =
            switches.iter().map(|(from, at)| super::super::Switch { from: line(*from), at: Lsn(*at) });
        History { timeline: line(of), switches: switches.collect() }
    }

    #[test]
    fn a_recovery_ends_before_the_first_hole() {
        let mut archive = Coverage::default();
        archive.add(line(1), Lsn(10), Lsn(20));
        archive.add(line(1), Lsn(20), Lsn(30));
        archive.add(line(1), Lsn(40), Lsn(50));
        assert_eq!(archive.held(line(1)), [(Lsn(10), Lsn(30)), (Lsn(40), Lsn(50))]);
        let hole = Hole { timeline: line(1), from: Lsn(30), to: Lsn(40) };
        let reach = archive.reach(line(1), Lsn(12), line(1)).unwrap();
        assert_eq!((reach.until, reach.on, reach.ends), (Lsn(30), line(1), Ends::Hole(hole)));
        assert_eq!(archive.holes(), [hole]);
        let reach = archive.reach(line(1), Lsn(45), line(1)).unwrap();
        assert_eq!((reach.until, reach.ends), (Lsn(50), Ends::Archive));
        // A backup whose first position is not held reaches nothing.
        let reach = archive.reach(line(1), Lsn(5), line(1)).unwrap();
        assert_eq!(
            (reach.until, reach.ends),
            (Lsn(5), Ends::Hole(Hole { timeline: line(1), from: Lsn(5), to: Lsn(10) }))
        );
        archive.add(line(1), Lsn(30), Lsn(40));
        assert_eq!(archive.held(line(1)), [(Lsn(10), Lsn(50))]);
        archive.add(line(1), Lsn(9), Lsn(9));
        assert_eq!(archive.held(line(1)), [(Lsn(10), Lsn(50))]);
    }

    #[test]
    fn a_promotion_is_followed_and_what_was_written_behind_it_is_not() {
        let mut archive = Coverage::default();
        // Segments of ten. The old primary wrote on to 40; the new one left it at 25 and copied the beginning of its segment.
        archive.add(line(1), Lsn(0), Lsn(20));
        archive.add(line(1), Lsn(30), Lsn(40));
        archive.add(line(2), Lsn(20), Lsn(60));
        assert_eq!(archive.reach(line(1), Lsn(5), line(2)), Err(Unreachable::NoHistory(line(2))));
        archive.learn(history(2, &[(1, 25)])).unwrap();
        let reach = archive.reach(line(1), Lsn(5), line(2)).unwrap();
        assert_eq!((reach.until, reach.on, reach.ends), (Lsn(60), line(2), Ends::Archive));
        // On its own timeline it ends where the old primary's archive has a hole.
        let reach = archive.reach(line(1), Lsn(5), line(1)).unwrap();
        assert_eq!((reach.until, reach.on), (Lsn(20), line(1)));
        // A backup that was taken of the old primary after that is on no way to the new one.
        let left = Unreachable::LeftBefore { wanted: line(2), from: line(1), left: Lsn(25), began: Lsn(25) };
        assert_eq!(archive.reach(line(1), Lsn(25), line(2)), Err(left));
        archive.learn(history(3, &[(2, 45)])).unwrap();
        assert_eq!(
            archive.reach(line(1), Lsn(5), line(3)),
            Err(Unreachable::NoAncestor { wanted: line(3), from: line(1) })
        );
    }

    #[test]
    fn two_servers_of_one_number_are_told_from_one() {
        let mut archive = Coverage::default();
        archive.learn(history(2, &[(1, 25)])).unwrap();
        archive.learn(history(2, &[(1, 25)])).unwrap();
        assert_eq!(archive.learn(history(2, &[(1, 26)])), Err(TwoHistories(line(2))));
        assert_eq!(archive.timelines().collect::<Vec<_>>(), [line(2)]);
    }

    #[test]
    fn the_end_of_the_log_is_an_end() {
        let mut archive = Coverage::default();
        archive.add(line(1), Lsn(0), Lsn(u64::MAX));
        let reach = archive.reach(line(1), Lsn(7), line(1)).unwrap();
        assert_eq!((reach.until, reach.ends), (Lsn(u64::MAX), Ends::Archive));
    }

    const END: u64 = 48;

    fn pieces() -> impl Strategy<Value = Vec<(u32, u64, u64)>> {
        prop::collection::vec((1_u32..4, 0..END, 0_u64..12), 0..14)
            .prop_map(|pieces| pieces.into_iter().map(|(of, from, long)| (of, from, from + long)).collect())
    }

    fn of(pieces: &[(u32, u64, u64)], switches: (u64, u64)) -> Coverage {
        let mut archive = Coverage::default();
        for (timeline, from, to) in pieces {
            archive.add(line(*timeline), Lsn(*from), Lsn(*to));
        }
        archive.learn(history(2, &[(1, switches.0)])).unwrap();
        archive.learn(history(3, &[(1, switches.0), (2, switches.1)])).unwrap();
        archive
    }

    /// One position after the other.
    fn plainly(pieces: &[(u32, u64, u64)], switches: (u64, u64), from: u64) -> (u64, bool) {
        let on = |at: u64| 1 + u32::from(at >= switches.0) + u32::from(at >= switches.1);
        let has = |at: u64| pieces.iter().any(|piece| piece.0 >= on(at) && piece.1 <= at && at < piece.2);
        let until = (from..).find(|at| !has(*at)).unwrap();
        // Something of the way is held behind it.
        (until, (until..END + 12).any(has))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_reached_is_what_is_held_without_a_hole(
            pieces in pieces(), first in 1..END, more in 0..END, from in 0..END,
        ) {
            let switches = (first, first + more);
            let reach = of(&pieces, switches).reach(line(1), Lsn(from), line(3));
            if from >= first {
                let is_left = matches!(reach, Err(Unreachable::LeftBefore { .. }));
                prop_assert!(is_left, "{:?}", reach);
            } else {
                let (until, is_hole) = plainly(&pieces, switches, from);
                let reach = reach.unwrap();
                prop_assert_eq!(reach.until, Lsn(until));
                prop_assert_eq!(matches!(reach.ends, Ends::Hole(_)), is_hole, "{:?}", reach);
            }
        }

        #[test]
        fn more_pieces_in_any_order_reach_no_less(mut pieces in pieces(), more in pieces(), from in 0..10_u64) {
            let switches = (20, 30);
            let before = of(&pieces, switches).reach(line(1), Lsn(from), line(3)).unwrap();
            pieces.extend(more);
            let after = of(&pieces, switches);
            prop_assert!(after.reach(line(1), Lsn(from), line(3)).unwrap().until >= before.until);
            pieces.reverse();
            prop_assert_eq!(of(&pieces, switches), after.clone());
            for timeline in after.timelines() {
                prop_assert!(after.held(timeline).windows(2).all(|pair| pair[0].1 < pair[1].0));
                prop_assert!(after.held(timeline).iter().all(|piece| piece.0 < piece.1));
            }
        }
    }
}
