//! The position in the log at which a server that recovers shows what one snapshot of a running server has shown.
//!
//! A snapshot shows the transactions that had left the server's list of running ones when it was taken, and the log holds them in the
//! order in which their commits were written. The two orders differ a little: whoever writes first may leave the list last. So not
//! every snapshot has such a position; but whether it has, and where, the log itself tells. Where it has none, another snapshot is
//! taken: under load one in a few fits, on a quiet server every one.

use std::collections::BTreeSet;
use std::str::FromStr;

use seaworthy_model::wal::Lsn;

use super::super::wal::transaction::Ending;

/// What a snapshot shows: everything before `until`, but for what was running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    until: u64,
    running: BTreeSet<u64>,
}

/// A text that no server writes as a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a snapshot is written as xmin:xmax:running,…")]
pub(super) struct ShownError;

impl FromStr for Shown {
    type Err = ShownError;

    fn from_str(text: &str) -> Result<Self, ShownError> {
        let mut parts = text.split(':');
        let (Some(_), Some(until), Some(running), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(ShownError);
        };
        let number = |text: &str| text.parse::<u64>().map_err(|_| ShownError);
        let running = running.split(',').filter(|text| !text.is_empty()).map(number);
        Ok(Self { until: number(until)?, running: running.collect::<Result<_, _>>()? })
    }
}

impl Shown {
    /// The whole number of a transaction of which the log holds the lower half: the nearest to this snapshot's.
    fn whole(&self, number: u32) -> u64 {
        const ROUND: u64 = 1 << 32;
        let near = self.until & !(ROUND - 1) | u64::from(number);
        if near > self.until + ROUND / 2 {
            near.saturating_sub(ROUND)
        } else if near + ROUND / 2 < self.until {
            near + ROUND
        } else {
            near
        }
    }

    /// Whether it shows a transaction that was committed at some time.
    fn shows(&self, number: u32) -> bool {
        let number = self.whole(number);
        number < self.until && !self.running.contains(&number)
    }

    /// What was running in both: its end may have been written before either.
    pub(super) fn running_since(&self, earlier: &Self) -> BTreeSet<u64> {
        self.running.intersection(&earlier.running).copied().collect()
    }
}

/// The end of a transaction, in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) at: Lsn,
    pub(super) end: Lsn,
    pub(super) how: Ending,
}

/// What was read of the log, from some position on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Read {
    /// Ends of transactions, in order.
    pub(super) ended: Vec<Ended>,
    /// Where the last records begin and end, in order.
    pub(super) records: Vec<(Lsn, Lsn)>,
}

/// Why a snapshot has no position in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    /// One that it does not show was committed before one that it shows.
    #[error("a transaction that the snapshot does not show was committed before one that it shows")]
    OutOfOrder,
    /// A prepared transaction was ended meanwhile, and which one is not known.
    #[error("a prepared transaction was ended meanwhile")]
    Prepared,
    /// One that it does not show was committed before something else that was measured.
    #[error("a transaction that the snapshot does not show was committed while it was prepared")]
    TooEarly,
    /// Something was committed between the snapshots of two databases.
    #[error("the snapshots of the cluster's databases do not show the same")]
    NotOne,
    /// No record that was read ends there.
    #[error("no record ends where the snapshot's position is")]
    NoRecord,
}

/// The last record that may be applied, by its beginning and end, so that what is visible is what the snapshot shows.
///
/// `read` must hold everything from before the snapshot on, and reach to `reached` at least, a position that the server had reached
/// when the snapshot had been taken. Everything that had been written at `since` is before the position that is found.
pub(super) fn last_record(shown: &Shown, read: &Read, since: Lsn, reached: Lsn) -> Result<(Lsn, Lsn), Unfit> {
    let mut shown_until = Lsn(0);
    let mut hidden_from = None;
    for ended in &read.ended {
        match ended.how {
            Ending::Committed(number) if shown.shows(number) => shown_until = ended.end,
            Ending::Committed(_) => hidden_from = hidden_from.or(Some(ended.at)),
            Ending::PreparedCommitted => return Err(Unfit::Prepared),
            Ending::Aborted(_) | Ending::PreparedAborted => {}
        }
    }
    let bound = hidden_from.map_or(reached, |from| from.min(reached).max(Lsn(0)));
    if hidden_from.is_some_and(|from| from < shown_until) {
        return Err(Unfit::OutOfOrder);
    }
    if hidden_from.is_some_and(|from| from < since) {
        return Err(Unfit::TooEarly);
    }
    // A commit that it shows may have been written right behind the position that the server told.
    let bound = bound.max(shown_until);
    let last = read.records.iter().rev().find(|(_, end)| *end <= bound).copied().ok_or(Unfit::NoRecord)?;
    if last.1 < shown_until { Err(Unfit::NoRecord) } else { Ok(last) }
}

/// The same on a standby, where snapshots do not say what was running: what had been replayed when it was taken is visible in it.
///
/// `before` and `after` are how far the standby had replayed before and after the snapshot was taken; the record that begins at `after`
/// may have been replayed, and not been counted yet.
pub(super) fn last_replayed(read: &Read, before: Lsn, after: Lsn) -> Result<(Lsn, Lsn), Unfit> {
    for ended in read.ended.iter().filter(|ended| (before..=after).contains(&ended.at)) {
        match ended.how {
            Ending::Committed(_) => return Err(Unfit::OutOfOrder),
            Ending::PreparedCommitted => return Err(Unfit::Prepared),
            Ending::Aborted(_) | Ending::PreparedAborted => {}
        }
    }
    read.records.iter().rev().find(|(_, end)| *end <= before).copied().ok_or(Unfit::NoRecord)
}

/// Whether an end of each of these transactions was read.
pub(super) fn unknown(read: &Read, shown: &Shown, running: &BTreeSet<u64>) -> BTreeSet<u64> {
    let known: BTreeSet<u64> = read
        .ended
        .iter()
        .filter_map(|ended| match ended.how {
            Ending::Committed(number) | Ending::Aborted(number) => Some(shown.whole(number)),
            Ending::PreparedCommitted | Ending::PreparedAborted => None,
        })
        .collect();
    running.difference(&known).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Shown {
        text.parse().unwrap()
    }

    fn read(ends: &[(u64, Ending)]) -> Read {
        let ended: Vec<Ended> =
            ends.iter().map(|(at, how)| Ended { at: Lsn(*at), end: Lsn(at + 8), how: *how }).collect();
        // Something else is written between any two.
        let records = (0..40).map(|at| (Lsn(at * 8), Lsn(at * 8 + 8))).collect();
        Read { ended, records }
    }

    #[test]
    fn a_snapshot_is_read_as_servers_write_it() {
        assert_eq!(shown("10:20:10,12"), Shown { until: 20, running: [10, 12].into() });
        assert_eq!(shown("20:20:"), Shown { until: 20, running: BTreeSet::new() });
        for wrong in ["", "1:2", "1:2:3:4", "1:x:", "1:2:x"] {
            assert!(wrong.parse::<Shown>().is_err(), "{wrong}");
        }
        assert!(shown("10:20:12").shows(19) && !shown("10:20:12").shows(12) && !shown("10:20:12").shows(20));
    }

    #[test]
    fn numbers_of_transactions_go_round() {
        let round = 1_u64 << 32;
        let young = shown(&format!("{}:{}:{}", 3 * round - 2, 3 * round + 5, 3 * round - 1));
        assert!(young.shows(u32::MAX - 1) && !young.shows(u32::MAX) && young.shows(4) && !young.shows(5));
        assert_eq!(young.whole(u32::MAX), 3 * round - 1);
        let old = shown(&format!("0:{}:", 3 * round - 5));
        assert!(!old.shows(1) && old.shows(u32::MAX - 20));
        assert_eq!(old.whole(1), 3 * round + 1);
    }

    #[test]
    fn the_position_lies_between_what_is_shown_and_what_is_not() {
        use Ending::{Aborted, Committed};
        let snapshot = shown("10:14:11,13");
        // 10 and 12 are shown, 11, 13 and 14 not.
        let fits =
            read(&[(16, Committed(10)), (48, Committed(12)), (96, Committed(11)), (120, Committed(14))]);
        assert_eq!(last_record(&snapshot, &fits, Lsn(0), Lsn(300)), Ok((Lsn(88), Lsn(96))));
        assert_eq!(last_record(&snapshot, &fits, Lsn(0), Lsn(80)), Ok((Lsn(72), Lsn(80))));
        assert_eq!(last_record(&snapshot, &fits, Lsn(96), Lsn(300)), Ok((Lsn(88), Lsn(96))));
        assert_eq!(last_record(&snapshot, &fits, Lsn(97), Lsn(300)), Err(Unfit::TooEarly));
        // The server said how far it was a little too early.
        assert_eq!(last_record(&snapshot, &fits, Lsn(0), Lsn(48)), Ok((Lsn(48), Lsn(56))));
        let quiet = read(&[]);
        assert_eq!(last_record(&snapshot, &quiet, Lsn(0), Lsn(80)), Ok((Lsn(72), Lsn(80))));
        assert_eq!(last_record(&snapshot, &quiet, Lsn(0), Lsn(3)), Err(Unfit::NoRecord));
        let swapped = read(&[(16, Committed(11)), (48, Committed(12))]);
        assert_eq!(last_record(&snapshot, &swapped, Lsn(0), Lsn(300)), Err(Unfit::OutOfOrder));
        let aborted = read(&[(16, Aborted(11)), (48, Committed(12)), (200, Committed(15))]);
        assert_eq!(last_record(&snapshot, &aborted, Lsn(0), Lsn(300)), Ok((Lsn(192), Lsn(200))));
        let prepared = read(&[(16, Ending::PreparedCommitted)]);
        assert_eq!(last_record(&snapshot, &prepared, Lsn(0), Lsn(300)), Err(Unfit::Prepared));
    }

    #[test]
    fn on_a_standby_nothing_may_have_been_committed_while_the_snapshot_was_taken() {
        use Ending::{Aborted, Committed};
        let log = read(&[(16, Committed(10)), (96, Committed(11)), (136, Aborted(12))]);
        assert_eq!(last_replayed(&log, Lsn(40), Lsn(88)), Ok((Lsn(32), Lsn(40))));
        // Counted after it was replayed.
        assert_eq!(last_replayed(&log, Lsn(40), Lsn(96)), Err(Unfit::OutOfOrder));
        assert_eq!(last_replayed(&log, Lsn(96), Lsn(96)), Err(Unfit::OutOfOrder));
        assert_eq!(last_replayed(&log, Lsn(104), Lsn(200)), Ok((Lsn(96), Lsn(104))));
        assert_eq!(last_replayed(&log, Lsn(4), Lsn(8)), Err(Unfit::NoRecord));
    }

    #[test]
    fn what_was_running_all_the_time_is_known_once_its_end_was_read() {
        let (first, second) = (shown("10:14:11,12,13"), shown("11:20:11,13,15"));
        let running = second.running_since(&first);
        assert_eq!(running, [11, 13].into());
        let log = read(&[(16, Ending::Committed(11))]);
        assert_eq!(unknown(&log, &second, &running), [13].into());
        let log = read(&[(16, Ending::Committed(11)), (48, Ending::Aborted(13))]);
        assert!(unknown(&log, &second, &running).is_empty());
    }

    #[test]
    fn any_order_of_commits_and_departures_gives_the_truth_or_none() {
        // Up to four transactions write their commits in order 0..n and leave the list in any order; a snapshot is taken after any
        // number of departures. What is visible at the position must be what had left.
        fn permutations(left: &[u32]) -> Vec<Vec<u32>> {
            if left.is_empty() {
                return vec![Vec::new()];
            }
            left.iter()
                .flat_map(|first| {
                    let rest: Vec<u32> = left.iter().copied().filter(|one| one != first).collect();
                    permutations(&rest).into_iter().map(move |rest| [&[*first], rest.as_slice()].concat())
                })
                .collect()
        }
        let (mut found, mut none) = (0, 0);
        for count in 0..=4_u32 {
            let all: Vec<u32> = (0..count).collect();
            for order in permutations(&all) {
                for taken in 0..=order.len() {
                    let running: BTreeSet<u64> = order[taken..].iter().map(|one| u64::from(*one)).collect();
                    let snapshot = Shown { until: u64::from(count), running: running.clone() };
                    let ends: Vec<(u64, Ending)> =
                        (0..count).map(|n| (u64::from(n) * 24 + 24, Ending::Committed(n))).collect();
                    let log = read(&ends);
                    match last_record(&snapshot, &log, Lsn(0), Lsn(300)) {
                        Ok((_, until)) => {
                            found += 1;
                            for ended in &log.ended {
                                let Ending::Committed(number) = ended.how else { unreachable!() };
                                let is_visible = ended.end <= until;
                                assert_eq!(
                                    is_visible,
                                    !running.contains(&u64::from(number)),
                                    "{order:?} {taken}"
                                );
                            }
                        }
                        Err(_) => none += 1,
                    }
                }
            }
        }
        assert!(found > 30 && none > 30, "{found} {none}");
    }
}
