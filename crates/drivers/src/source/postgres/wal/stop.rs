//! Where a recovery to a moment stops, found by reading the log before any server does.
//!
//! A server that is given a moment reads on until it comes; where it does not come, it has replayed everything and fails, or worse,
//! opens elsewhere. So the record is found here, and the server is given its position: what it reached is then compared with what was
//! asked for, to the byte.
//!
//! The rules are those of `recoveryStopsBefore` and `recoveryStopsAfter` in `src/backend/access/transam/xlogrecovery.c`; the layouts
//! those of `xlogrecord.h`, `xact.h` and `xlog_internal.h`, PostgreSQL 13 to 18.

use jiff::Timestamp;
use seaworthy_model::wal::{Lsn, Target};

use super::page::Record;
use super::transaction::{Ending, ending, makes_tablespace};

/// Where a record says what it does, and who wrote it.
const INFO_AT: usize = 16;
const MANAGER_AT: usize = 17;
/// Bytes of a record's head.
const HEAD: usize = 24;
/// The log's own manager, and its record of a restore point.
const LOG: u8 = 0;
const RESTORE_POINT: u8 = 0x70;
/// What precedes a record's own data: nothing else is in those that are read here.
const SHORT_DATA: u8 = 255;
const LONG_DATA: u8 = 254;
const ORIGIN: u8 = 253;
const TOP_TRANSACTION: u8 = 252;
/// Seconds between 1970 and 2000, from where servers count their microseconds.
const EPOCH_S: i64 = 946_684_800;
/// Bytes of a restore point's name, its end included.
const NAME_BYTES: usize = 64;

/// A record's own data; nothing where it refers to pages.
fn data(record: &[u8]) -> Option<&[u8]> {
    let mut rest = record.get(HEAD..)?;
    loop {
        let (id, behind) = rest.split_first()?;
        rest = match *id {
            SHORT_DATA => return behind.get(1..),
            LONG_DATA => return behind.get(4..),
            ORIGIN => behind.get(2..)?,
            TOP_TRANSACTION => behind.get(4..)?,
            _ => return None,
        };
    }
}

fn time_of(data: &[u8]) -> Option<Timestamp> {
    let micros = i64::from_le_bytes(data.get(..8)?.try_into().ok()?);
    Timestamp::from_microsecond(micros.checked_add(EPOCH_S * 1_000_000)?).ok()
}

/// When a record says that a transaction ended.
fn ended_at(record: &[u8]) -> Option<(Ending, Timestamp)> {
    let how = ending(record)?;
    Some((how, time_of(data(record)?)?))
}

/// The name of the restore point that a record makes.
fn restore_point(record: &[u8]) -> Option<&[u8]> {
    let of = (*record.get(MANAGER_AT)?, record.get(INFO_AT)? & 0xf0);
    if of != (LOG, RESTORE_POINT) {
        return None;
    }
    let name = data(record)?.get(8..8 + NAME_BYTES)?;
    name.split(|byte| *byte == 0).next()
}

/// Looks for the record at which recovery stops.
#[derive(Debug, Clone)]
pub struct Search {
    target: Target,
    /// From where on the data are consistent.
    consistent: Lsn,
    last: Option<(Lsn, Lsn)>,
    found: Option<(Lsn, Lsn)>,
    /// Where a tablespace is made.
    barrier: Option<Lsn>,
    is_early: bool,
    /// Transactions that were prepared and whose end does not say who they are.
    prepared: u64,
    ended: u64,
    times: Option<(Timestamp, Timestamp)>,
}

/// Why there is no such record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoStop {
    /// It lies before the end of the base backup.
    #[error("it lies before {0}, where the base backup becomes consistent")]
    Early(Lsn),
    /// The log ends before it.
    #[error("the log ends at {until} before it comes{}", if *.prepared == 0 { String::new() } else { format!("; {} prepared transactions were committed or given up in it, which cannot be told apart here", .prepared) })]
    Never {
        /// Where the log ends.
        until: Lsn,
        /// Ends of prepared transactions.
        prepared: u64,
    },
    /// What is made before it is made where the source has it, by whichever server replays it.
    #[error(
        "a tablespace is made at {0}, and a server that replays that would use the source's own directory: a moment before it, or a copy that was made after it, can be restored"
    )]
    Tablespace(Lsn),
    /// There is no record at all.
    #[error("the log holds no record")]
    Nothing,
}

impl Search {
    /// Looks for a moment behind `consistent`.
    #[must_use]
    pub fn new(target: Target, consistent: Lsn) -> Self {
        Self {
            target,
            consistent,
            last: None,
            found: None,
            barrier: None,
            is_early: false,
            prepared: 0,
            ended: 0,
            times: None,
        }
    }

    /// Takes the next record.
    pub fn see(&mut self, record: Record<'_>) {
        if self.found.is_some() || self.is_early || self.barrier.is_some() {
            return;
        }
        if makes_tablespace(record.bytes) {
            self.barrier = Some(record.at);
            return;
        }
        let here = (record.at, record.end);
        let ended = ended_at(record.bytes);
        if let Some((how, at)) = ended {
            self.ended += 1;
            self.prepared += u64::from(matches!(how, Ending::PreparedCommitted | Ending::PreparedAborted));
            self.times = Some(self.times.map_or((at, at), |(from, to)| (from.min(at), to.max(at))));
        }
        let stops = match &self.target {
            Target::Time(time) => {
                // Before it: the record before this one is the last.
                if ended.is_some_and(|(_, at)| at > *time) {
                    match self.last {
                        Some(last) => self.stop(last),
                        None => self.is_early = true,
                    }
                    return;
                }
                false
            }
            Target::Position(position) => record.at >= *position,
            Target::Transaction(number) => {
                let wanted = [Ending::Committed(*number), Ending::Aborted(*number)];
                ended.is_some_and(|(how, _)| wanted.contains(&how))
            }
            Target::Name(name) => restore_point(record.bytes) == Some(name.as_bytes()),
            Target::Immediate => record.end >= self.consistent,
            Target::Latest => false,
        };
        if stops {
            self.stop(here);
        }
        self.last = Some(here);
    }

    fn stop(&mut self, at: (Lsn, Lsn)) {
        if at.1 < self.consistent {
            self.is_early = true;
        } else {
            self.found = Some(at);
        }
    }

    /// When transactions ended in what was seen, from the first to the last by their own clocks, and how many.
    #[must_use]
    pub fn ended(&self) -> (u64, Option<(Timestamp, Timestamp)>) {
        (self.ended, self.times)
    }

    /// Where recovery stops: where the last record begins that is applied, and where it ends. All of the log has been seen.
    ///
    /// A time up to which the log `is_known` to go needs no transaction behind it: of an idle server, everything is before it.
    ///
    /// # Errors
    ///
    /// Where it does not stop there.
    pub fn finish(self, is_known: bool) -> Result<(Lsn, Lsn), NoStop> {
        if self.is_early {
            return Err(NoStop::Early(self.consistent));
        }
        if let Some(at) = self.barrier {
            return Err(NoStop::Tablespace(at));
        }
        let last = self.last.ok_or(NoStop::Nothing)?;
        let ends_with_log = match self.target {
            Target::Time(_) => is_known,
            Target::Latest => true,
            _ => false,
        };
        match self.found {
            Some(found) => Ok(found),
            None if ends_with_log && last.1 >= self.consistent => Ok(last),
            None if ends_with_log => Err(NoStop::Early(self.consistent)),
            None => Err(NoStop::Never { until: last.1, prepared: self.prepared }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record: who wrote it, what it does, its transaction, and its own data.
    fn record(manager: u8, info: u8, transaction: u32, own: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEAD];
        bytes[4..8].copy_from_slice(&transaction.to_le_bytes());
        (bytes[INFO_AT], bytes[MANAGER_AT]) = (info, manager);
        bytes.extend([
            ORIGIN,
            0,
            0,
            TOP_TRANSACTION,
            1,
            0,
            0,
            0,
            SHORT_DATA,
            u8::try_from(own.len()).unwrap(),
        ]);
        bytes.extend_from_slice(own);
        bytes
    }

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(EPOCH_S + second).unwrap()
    }

    fn end(how: u8, transaction: u32, second: i64) -> Vec<u8> {
        record(1, how, transaction, &(second * 1_000_000).to_le_bytes())
    }

    fn point(name: &str) -> Vec<u8> {
        let mut own = vec![0; 8];
        own.extend_from_slice(name.as_bytes());
        own.resize(8 + NAME_BYTES, 0);
        record(0, 0x70, 0, &own)
    }

    fn found(target: &str, consistent: u64, log: &[Vec<u8>]) -> Result<u64, NoStop> {
        found_as(target, consistent, log, true)
    }

    fn found_as(target: &str, consistent: u64, log: &[Vec<u8>], is_known: bool) -> Result<u64, NoStop> {
        let mut search = Search::new(target.parse().unwrap(), Lsn(consistent));
        for (number, bytes) in (1_u64..).zip(log) {
            search.see(Record { at: Lsn(number * 10), end: Lsn(number * 10 + 8), bytes });
        }
        search.finish(is_known).map(|(at, end)| {
            assert_eq!(end.0, at.0 + 8);
            at.0
        })
    }

    #[test]
    fn recovery_stops_where_a_server_would() {
        let heap = record(10, 0, 7, b"row");
        let log = [
            end(0x00, 7, 100),
            heap.clone(),
            end(0x80, 8, 200),
            point("before"),
            end(0x20, 9, 300),
            heap.clone(),
            // Committed later in the log, earlier by the clock.
            end(0x00, 10, 250),
            point("before"),
            end(0x30, 0, 400),
            heap,
        ];
        let of = |target: &str| found(target, 0, &log);
        let at = |second: i64| of(&time(second).to_string());
        assert_eq!((at(100), at(199), at(200), at(299)), (Ok(20), Ok(20), Ok(40), Ok(40)));
        // The first one that ended later ends it, whatever comes behind.
        assert_eq!(
            (at(260), at(300), at(399), at(400), at(9_999)),
            (Ok(40), Ok(80), Ok(80), Ok(100), Ok(100))
        );
        assert_eq!(at(99), Err(NoStop::Early(Lsn(0))));
        // Where more may have been written, only a transaction behind it shows that a time has come.
        let unknown = |second: i64| found_as(&time(second).to_string(), 0, &log, false);
        let never = Err(NoStop::Never { until: Lsn(108), prepared: 1 });
        assert_eq!((unknown(100), unknown(399), unknown(400)), (Ok(20), Ok(80), never));
        assert_eq!(found_as("latest", 0, &log, false), Ok(100));
        assert_eq!((of("xid:8"), of("xid:9"), of("xid:10")), (Ok(30), Ok(50), Ok(70)));
        assert_eq!(of("xid:11"), Err(NoStop::Never { until: Lsn(108), prepared: 1 }));
        assert_eq!(of("name:before"), Ok(40));
        assert_eq!(of("name:befor"), Err(NoStop::Never { until: Lsn(108), prepared: 1 }));
        assert_eq!((of("lsn:0/1E"), of("lsn:0/1F"), of("lsn:0/0")), (Ok(30), Ok(40), Ok(10)));
        assert!(of("lsn:0/65").is_err());
        assert_eq!(of("latest"), Ok(100));
        assert_eq!(found("immediate", 28, &log), Ok(20));
        assert_eq!(found("immediate", 29, &log), Ok(30));
    }

    #[test]
    fn nothing_before_the_end_of_the_base_backup_is_reached() {
        let log = [end(0x00, 7, 100), end(0x00, 8, 200), end(0x00, 9, 300)];
        let early = Err(NoStop::Early(Lsn(38)));
        for target in ["xid:7", "xid:8", "lsn:0/A", &time(150).to_string(), &time(250).to_string()] {
            assert_eq!(found(target, 38, &log), early, "{target}");
        }
        assert_eq!(found("xid:9", 38, &log), Ok(30));
        assert_eq!(found(&time(300).to_string(), 38, &log), Ok(30));
        assert_eq!(found("latest", 39, &log), Err(NoStop::Early(Lsn(39))));
        assert_eq!(found("latest", 0, &[]), Err(NoStop::Nothing));
    }

    #[test]
    fn nothing_is_replayed_beyond_where_a_tablespace_is_made() {
        let log = [end(0x00, 7, 100), record(5, 0x00, 0, b"place"), end(0x00, 8, 200)];
        for target in ["latest", "xid:8", &time(150).to_string(), "lsn:0/14", "lsn:0/1E", "immediate"] {
            assert_eq!(found(target, 38, &log), Err(NoStop::Tablespace(Lsn(20))), "{target}");
        }
        assert_eq!(found("xid:7", 0, &log), Ok(10));
        // One that is dropped is no matter.
        let log = [end(0x00, 7, 100), record(5, 0x10, 0, b"place"), end(0x00, 8, 200)];
        assert_eq!(found("latest", 0, &log), Ok(30));
    }

    #[test]
    fn records_that_end_in_their_middle_say_nothing() {
        let whole = end(0x00, 7, 100);
        for length in 0..whole.len() {
            assert!(ended_at(&whole[..length]).is_none(), "{length}");
        }
        assert!(ended_at(&whole).is_some());
        let name = point("x");
        assert_eq!(restore_point(&name[..name.len() - 1]), None);
        assert_eq!(restore_point(&name), Some(b"x".as_slice()));
    }
}
