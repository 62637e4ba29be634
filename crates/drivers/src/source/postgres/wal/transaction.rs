//! Which records end a transaction: the order in which they stand in the log is the order in which a server that recovers makes
//! them visible.
//!
//! The layout is that of PostgreSQL 13 to 18, `src/include/access/xlogrecord.h` and `src/include/access/xact.h`.

/// Where a record names its transaction.
const TRANSACTION_AT: usize = 4;
/// Where it says what it does.
const INFO_AT: usize = 16;
/// Where it says who wrote it.
const MANAGER_AT: usize = 17;
/// The manager of transactions.
const TRANSACTIONS: u8 = 1;
/// The part of the information that says what is done to a transaction.
const OPERATION: u8 = 0x70;

/// How a record ends a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// What it did is visible from here on.
    Committed(u32),
    /// What it did never was.
    Aborted(u32),
    /// One that had been prepared is committed; which one stands deep in the record.
    PreparedCommitted,
    /// One that had been prepared is given up.
    PreparedAborted,
}

/// How a record ends a transaction; nothing where it ends none.
#[must_use]
pub fn ending(record: &[u8]) -> Option<Ending> {
    let (info, manager) = (*record.get(INFO_AT)?, *record.get(MANAGER_AT)?);
    if manager != TRANSACTIONS {
        return None;
    }
    let number = record.get(TRANSACTION_AT..TRANSACTION_AT + 4)?;
    let number = u32::from_le_bytes(number.try_into().ok()?);
    match info & OPERATION {
        0x00 => Some(Ending::Committed(number)),
        0x20 => Some(Ending::Aborted(number)),
        0x30 => Some(Ending::PreparedCommitted),
        0x40 => Some(Ending::PreparedAborted),
        _ => None,
    }
}

/// The manager of tablespaces, and its record that makes one.
const TABLESPACES: u8 = 5;
const MAKES_ONE: u8 = 0x00;

/// Whether a record makes a tablespace. A server that replays it uses the directory that the source has named, wherever it is itself:
/// the format is that of `src/include/access/rmgrlist.h` and `src/include/commands/tablespace.h`.
#[must_use]
pub fn makes_tablespace(record: &[u8]) -> bool {
    let of = (record.get(MANAGER_AT), record.get(INFO_AT).map(|info| info & 0xf0));
    of == (Some(&TABLESPACES), Some(MAKES_ONE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_records_of_the_manager_of_transactions_end_one() {
        let record = |manager, info| {
            let mut record = [0; 24];
            record[4..8].copy_from_slice(&741_u32.to_le_bytes());
            (record[16], record[17]) = (info, manager);
            record
        };
        for (manager, info, expected) in [
            (1, 0x00, Some(Ending::Committed(741))),
            // With more information, as most have.
            (1, 0x80, Some(Ending::Committed(741))),
            (1, 0xa0, Some(Ending::Aborted(741))),
            (1, 0x10, None),
            (1, 0xb0, Some(Ending::PreparedCommitted)),
            (1, 0x40, Some(Ending::PreparedAborted)),
            (1, 0x50, None),
            (1, 0x60, None),
            (0, 0x00, None),
            (10, 0x00, None),
        ] {
            assert_eq!(ending(&record(manager, info)), expected, "{manager} {info:#x}");
        }
        for (manager, info, makes) in [(5, 0x00, true), (5, 0x01, true), (5, 0x10, false), (4, 0x00, false)] {
            assert_eq!(makes_tablespace(&record(manager, info)), makes, "{manager} {info:#x}");
        }
        assert_eq!(ending(&[0; 10]), None);
    }
}
