//! Files of tables and indexes, and the checksums of their pages, as a running server's files are read.
//!
//! The checksum is PostgreSQL's own: 32 interleaved FNV-1a sums over the page, with the checksum's place read as zero, folded, mixed
//! with the number of the block, and brought into 16 bits without zero (`src/include/storage/checksum_impl.h` of PostgreSQL 13 to 18).

use seaworthy_model::wal::Lsn;

/// Bytes of a page; servers can be built with others, and are refused then.
pub const PAGE: usize = 8_192;
/// Pages of a full segment of a relation: 1 GiB.
pub const SEGMENT_PAGES: u32 = 131_072;

const SUMS: usize = 32;
const PRIME: u32 = 16_777_619;
/// Where a page keeps its checksum.
const CHECKSUM_AT: usize = 8;
/// Where it says how much of it is in use.
const UPPER_AT: usize = 14;

const OFFSETS: [u32; SUMS] = [
    0x5b1f_36e9,
    0xb852_5960,
    0x02ab_50aa,
    0x1de6_6d2a,
    0x79ff_467a,
    0x9bb9_f8a3,
    0x217e_7cd2,
    0x83e1_3d2c,
    0xf8d4_474f,
    0xe39e_b970,
    0x42c6_ae16,
    0x9932_16fa,
    0x7b09_3b5d,
    0x98da_ff3c,
    0xf718_902a,
    0x0b1c_9cdb,
    0xe58f_764b,
    0x1876_36bc,
    0x5d7b_3bb1,
    0xe73d_e7de,
    0x92be_c979,
    0xcca6_c0b2,
    0x304a_0979,
    0x85aa_43d4,
    0x7831_25bb,
    0x6ca8_eaa2,
    0xe407_eac6,
    0x4b5c_fc3e,
    0x9fbf_8c76,
    0x15ca_20be,
    0xf2ca_9fd3,
    0x959b_d756,
];

/// The checksum that a page has when it is right. `block` is its number in the relation, over all segments.
#[must_use]
pub fn checksum(page: &[u8; PAGE], block: u32) -> u16 {
    let mut sums = OFFSETS;
    let mut mix = |column: usize, value: u32| {
        let mixed = sums[column] ^ value;
        sums[column] = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
    };
    for (number, word) in page.chunks_exact(4).enumerate() {
        let value = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        // The checksum and the flags beside it are one word.
        mix(number % SUMS, if number == CHECKSUM_AT / 4 { value & 0xffff_0000 } else { value });
    }
    for _ in 0..2 {
        for column in 0..SUMS {
            mix(column, 0);
        }
    }
    let folded = sums.iter().fold(0, |sum, one| sum ^ one) ^ block;
    u16::try_from(folded % 65_535).unwrap_or(0) + 1
}

/// Where a file of a relation stands in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationFile {
    /// Number of the segment; 0 is the first.
    pub segment: u32,
}

impl RelationFile {
    /// Whether a path in a data directory is of a file of pages: of a table, an index, or a map that belongs to one.
    #[must_use]
    pub fn of(path: &[u8]) -> Option<Self> {
        let path = std::str::from_utf8(path).ok()?;
        let mut parts: Vec<&str> = path.split('/').collect();
        let name = parts.pop()?;
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let is_place = match parts.as_slice() {
            ["global"] => true,
            ["base", database] => is_number(database),
            ["pg_tblspc", space, version, database] => {
                is_number(space) && version.starts_with("PG_") && is_number(database)
            }
            _ => false,
        };
        let (relation, segment) = match name.split_once('.') {
            Some((relation, segment)) => (relation, Some(segment)),
            None => (name, None),
        };
        let (relation, fork) = match relation.split_once('_') {
            Some((relation, fork)) => (relation, Some(fork)),
            None => (relation, None),
        };
        let is_fork = fork.is_none_or(|fork| matches!(fork, "fsm" | "vm" | "init"));
        if !(is_place && is_number(relation) && is_fork) {
            return None;
        }
        let segment = match segment {
            None => 0,
            Some(number) if is_number(number) => number.parse().ok()?,
            Some(_) => return None,
        };
        Some(Self { segment })
    }

    /// The number of a page of this file in its relation.
    #[must_use]
    pub fn block(self, page: u32) -> u32 {
        self.segment.wrapping_mul(SEGMENT_PAGES).wrapping_add(page)
    }
}

/// Something wrong with a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PageWrong {
    /// It is not what was written.
    #[error("block {block} has the checksum {found:#06x}, its content {expected:#06x}")]
    Checksum {
        /// Number in the relation.
        block: u32,
        /// What it says.
        found: u16,
        /// What its content amounts to.
        expected: u16,
    },
    /// It says that it is new, and is not empty.
    #[error("block {0} says that it is new, and holds something")]
    NotNew(u32),
}

/// What a page's last change is said to be: the position in the log behind it.
#[must_use]
pub fn changed_at(page: &[u8; PAGE]) -> Lsn {
    let half = |at: usize| u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]);
    Lsn(u64::from(half(0)) << 32 | u64::from(half(4)))
}

/// Whether a page of a running server with page checksums can be trusted, read by somebody else while a backup runs that began at
/// `began`.
///
/// A page that was changed since may have been read half old and half new: the log of the backup holds it whole, and brings it back
/// whole. One that was not is right, or damaged on the disk.
///
/// # Errors
///
/// What is wrong with it.
pub fn judge(page: &[u8; PAGE], block: u32, began: Lsn) -> Result<(), PageWrong> {
    if page[UPPER_AT] == 0 && page[UPPER_AT + 1] == 0 {
        return if page.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(PageWrong::NotNew(block)) };
    }
    if changed_at(page) >= began {
        return Ok(());
    }
    let found = u16::from_le_bytes([page[CHECKSUM_AT], page[CHECKSUM_AT + 1]]);
    let expected = checksum(page, block);
    if found == expected { Ok(()) } else { Err(PageWrong::Checksum { block, found, expected }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_pages_are_told_from_others() {
        for (path, segment) in [
            ("base/1/1259", Some(0)),
            ("base/16384/16385.12", Some(12)),
            ("base/16384/16385_fsm", Some(0)),
            ("base/16384/16385_vm.1", Some(1)),
            ("base/16384/16385_init", Some(0)),
            ("global/1260", Some(0)),
            ("pg_tblspc/16400/PG_15_202209061/16384/16484.3", Some(3)),
            ("global/pg_control", None),
            ("global/pg_filenode.map", None),
            ("base/1/PG_VERSION", None),
            ("base/1/pg_internal.init", None),
            ("base/1/t3_16385", None),
            ("base/1/16385.x", None),
            ("base/1/16385_", None),
            ("pg_xact/0000", None),
            ("pg_wal/000000010000000000000001", None),
            ("16385", None),
            ("base/x/16385", None),
        ] {
            assert_eq!(RelationFile::of(path.as_bytes()).map(|file| file.segment), segment, "{path}");
        }
        assert_eq!(RelationFile { segment: 2 }.block(7), 262_151);
    }

    #[test]
    fn a_page_that_was_changed_during_the_backup_is_no_alarm_and_an_older_one_is() {
        let mut page = [0; PAGE];
        assert_eq!(judge(&page, 3, Lsn(9)), Ok(()));
        page[4_000] = 1;
        assert_eq!(judge(&page, 3, Lsn(9)), Err(PageWrong::NotNew(3)));
        page[UPPER_AT] = 0x10;
        page[4] = 8;
        assert_eq!(changed_at(&page), Lsn(8));
        let sum = checksum(&page, 3);
        page[8..10].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(judge(&page, 3, Lsn(9)), Ok(()));
        let moved = PageWrong::Checksum { block: 4, found: sum, expected: checksum(&page, 4) };
        assert_eq!(judge(&page, 4, Lsn(9)), Err(moved));
        page[4_000] = 2;
        assert!(judge(&page, 3, Lsn(9)).is_err());
        assert_eq!(judge(&page, 3, Lsn(8)), Ok(()));
    }
}
