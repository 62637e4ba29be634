//! What a server that recovers is told when it asks for a file of the log.
//!
//! PostgreSQL takes an exit code from 1 to 125 of its `restore_command` for "the log ends here", is promoted there and accepts
//! connections; above 125 it stops ("Continuous Archiving and Point-in-Time Recovery"). So a file may be said not to be there only where
//! nothing behind its first position is kept, and a hole is never the end.

use super::{Coverage, Lsn, Segment, SegmentSize};

/// What is kept of a file of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Supply {
    /// All of it.
    Whole,
    /// Its beginning up to here, where all that is kept of its timeline ends.
    UpTo(Lsn),
    /// Nothing, and nothing behind it: what is kept of its timeline ends before it.
    Beyond,
    /// Something is missing, and there is more behind it.
    Hole {
        /// The first position that is missing.
        from: Lsn,
        /// The first one behind it that is kept.
        to: Lsn,
    },
}

impl Coverage {
    /// What is kept of a file of the log.
    #[must_use]
    pub fn supply(&self, segment: Segment, size: SegmentSize) -> Supply {
        let (start, end) = (segment.start(size), segment.end(size));
        let held = self.held(segment.timeline);
        // The pieces do not touch: behind the end of one something is missing, or nothing is kept.
        let at = held.partition_point(|piece| piece.1 <= start);
        let until = match held.get(at) {
            None => return Supply::Beyond,
            Some((from, _)) if *from > start => return Supply::Hole { from: start, to: *from },
            Some((_, until)) => *until,
        };
        match held.get(at + 1) {
            _ if until >= end => Supply::Whole,
            Some((to, _)) => Supply::Hole { from: until, to: *to },
            None => Supply::UpTo(until),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wal::Timeline;

    const MIB: u64 = 1 << 20;

    fn size() -> SegmentSize {
        SegmentSize::try_from(1 << 20).unwrap()
    }

    fn segment(number: u64) -> Segment {
        Segment { timeline: Timeline::FIRST, number }
    }

    #[test]
    fn a_hole_is_never_the_end() {
        let mut kept = Coverage::default();
        kept.add(Timeline::FIRST, Lsn(MIB + 100), Lsn(3 * MIB));
        kept.add(Timeline::FIRST, Lsn(4 * MIB), Lsn(5 * MIB + 7));
        kept.add(Timeline::FIRST, Lsn(5 * MIB + 9), Lsn(7 * MIB + 1));
        let of = |number| kept.supply(segment(number), size());
        assert_eq!(of(0), Supply::Hole { from: Lsn(0), to: Lsn(MIB + 100) });
        assert_eq!(of(1), Supply::Hole { from: Lsn(MIB), to: Lsn(MIB + 100) });
        assert_eq!(of(2), Supply::Whole);
        assert_eq!(of(3), Supply::Hole { from: Lsn(3 * MIB), to: Lsn(4 * MIB) });
        assert_eq!(of(4), Supply::Whole);
        assert_eq!(of(5), Supply::Hole { from: Lsn(5 * MIB + 7), to: Lsn(5 * MIB + 9) });
        assert_eq!(of(6), Supply::Whole);
        assert_eq!(of(7), Supply::UpTo(Lsn(7 * MIB + 1)));
        assert_eq!((of(8), of(99)), (Supply::Beyond, Supply::Beyond));
        // Another timeline is another log.
        let other = Segment { timeline: Timeline::new(2).unwrap(), number: 2 };
        assert_eq!(kept.supply(other, size()), Supply::Beyond);
        assert_eq!(Coverage::default().supply(segment(0), size()), Supply::Beyond);
    }

    proptest! {
        #[test]
        fn it_is_what_a_look_at_every_byte_says(
            pieces in prop::collection::vec((0_u64..40, 1_u64..12), 0..6),
            number in 0_u64..5,
        ) {
            // A byte stands for an eighth of a file.
            const BYTE: u64 = MIB / 8;
            let mut kept = Coverage::default();
            let mut bytes = [false; 64];
            for (from, length) in pieces {
                kept.add(Timeline::FIRST, Lsn(from * BYTE), Lsn((from + length) * BYTE));
                bytes[usize::try_from(from).unwrap()..usize::try_from(from + length).unwrap()].fill(true);
            }
            let (start, end) = (usize::try_from(number * 8).unwrap(), usize::try_from(number * 8 + 8).unwrap());
            let missing = bytes[start..end].iter().position(|is_kept| !is_kept).map(|at| start + at);
            let expected = match missing {
                None => Supply::Whole,
                Some(from) => match bytes[from..].iter().position(|is_kept| *is_kept) {
                    Some(more) => Supply::Hole { from: Lsn(from as u64 * BYTE), to: Lsn((from + more) as u64 * BYTE) },
                    None if from == start => Supply::Beyond,
                    None => Supply::UpTo(Lsn(from as u64 * BYTE)),
                },
            };
            prop_assert_eq!(kept.supply(segment(number), size()), expected);
        }
    }
}
