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

/// The manager of the log itself, its record that says how large settings are now, and where that begins behind the record's own header and
/// the two bytes that announce it.
const LOG: u8 = 0;
const SETTINGS: u8 = 0x60;
const SETTINGS_AT: usize = 26;
const ANNOUNCED_AT: usize = 24;
/// `XLR_BLOCK_ID_DATA_SHORT`: the record's own data follow.
const OWN_DATA: u8 = 255;

/// What a record says of the settings that a server which recovers needs to be at least as large: `max_connections`, `max_worker_processes`,
/// `max_wal_senders`, `max_prepared_transactions` and `max_locks_per_transaction`. The format is that of `xl_parameter_change` in
/// `src/include/access/xlog_internal.h`.
#[must_use]
pub fn settings(record: &[u8]) -> Option<[u32; 5]> {
    let of = (record.get(MANAGER_AT), record.get(INFO_AT).map(|info| info & 0xf0));
    if of != (Some(&LOG), Some(SETTINGS)) || record.get(ANNOUNCED_AT) != Some(&OWN_DATA) {
        return None;
    }
    let mut settings = [0; 5];
    for (at, setting) in settings.iter_mut().enumerate() {
        let from = SETTINGS_AT + 4 * at;
        *setting = u32::from_le_bytes(record.get(from..from + 4)?.try_into().ok()?);
    }
    Some(settings)
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
        let mut changed = vec![0; 26];
        (changed[16], changed[17], changed[24], changed[25]) = (0x60, 0, 255, 28);
        for number in [200_u32, 8, 10, 0, 64, 1, 0] {
            changed.extend_from_slice(&number.to_le_bytes());
        }
        assert_eq!(settings(&changed), Some([200, 8, 10, 0, 64]));
        assert_eq!((settings(&changed[..40]), settings(&record(1, 0x60))), (None, None));
    }
}
