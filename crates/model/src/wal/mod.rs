//! PostgreSQL's write-ahead log as an archive keeps it: positions, timelines, names of files, and which instants can be reached.
//!
//! A position in the log ([`Lsn`]) means nothing without its timeline: after a promotion two servers may write different records at
//! the same position. What an archive holds is therefore kept for each timeline by itself, and joined only where a history file
//! says at which position one timeline left another ([`coverage`]).
//!
//! Formats are those of PostgreSQL 13 to 18, from its documentation ("WAL Internals", "Continuous Archiving") and
//! `src/include/access/xlog_internal.h`.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

mod coverage;
mod history;
mod map;
mod supply;
mod target;

pub use self::coverage::{Coverage, Ends, Hole, Reach, TwoHistories, Unreachable};
pub use self::history::{History, HistoryError, Switch};
pub use self::map::{LogCopy, LogPiece, Stretch, adrift, stretches};
pub use self::supply::Supply;
pub use self::target::{MOMENT, Reached, Target, TargetError};

/// A position in the log: bytes since its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// A text that is no position in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a position in the log is written as two hexadecimal numbers of at most eight digits: 16/B374D848")]
pub struct LsnError;

impl FromStr for Lsn {
    type Err = LsnError;

    fn from_str(text: &str) -> Result<Self, LsnError> {
        let (high, low) = text.split_once('/').ok_or(LsnError)?;
        let half = |text: &str| -> Result<u64, LsnError> {
            let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !is_hex || text.is_empty() || text.len() > 8 {
                return Err(LsnError);
            }
            u64::from_str_radix(text, 16).map_err(|_| LsnError)
        };
        Ok(Self(half(high)? << 32 | half(low)?))
    }
}

impl Serialize for Lsn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A line of history of a cluster: a new one begins with every promotion and every recovery to a point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timeline(NonZeroU32);

impl Timeline {
    /// The one that a new cluster begins with.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// The timeline of this number; there is no timeline 0.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How long the log's files are in a cluster: a power of two from 1 MiB to 1 GiB, 16 MiB unless `initdb` was told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct SegmentSize(u32);

/// A number that is no length of the log's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no segment size: a power of two from 1 MiB to 1 GiB is one")]
pub struct SegmentSizeError(u32);

impl SegmentSize {
    /// 16 MiB.
    pub const USUAL: Self = Self(16 << 20);

    /// In bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        u64::from(self.0)
    }

    /// How many files share the first two numbers of their name.
    fn per_log(self) -> u64 {
        (1 << 32) / self.bytes()
    }
}

impl TryFrom<u32> for SegmentSize {
    type Error = SegmentSizeError;

    fn try_from(bytes: u32) -> Result<Self, SegmentSizeError> {
        let is_size = bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes);
        is_size.then_some(Self(bytes)).ok_or(SegmentSizeError(bytes))
    }
}

impl From<SegmentSize> for u32 {
    fn from(size: SegmentSize) -> Self {
        size.0
    }
}

/// A file of the log, of a cluster whose segment size is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Segment {
    /// Timeline.
    pub timeline: Timeline,
    /// How many segments come before it.
    pub number: u64,
}

impl Segment {
    /// The segment that holds a position.
    #[must_use]
    pub fn of(timeline: Timeline, position: Lsn, size: SegmentSize) -> Self {
        Self { timeline, number: position.0 / size.bytes() }
    }

    /// Where it begins.
    #[must_use]
    pub fn start(self, size: SegmentSize) -> Lsn {
        Lsn(self.number.saturating_mul(size.bytes()))
    }

    /// Where the next one begins.
    #[must_use]
    pub fn end(self, size: SegmentSize) -> Lsn {
        Lsn(self.number.saturating_add(1).saturating_mul(size.bytes()))
    }

    /// The name of its file: 24 hexadecimal digits.
    #[must_use]
    pub fn name(self, size: SegmentSize) -> String {
        let (log, within) = (self.number / size.per_log(), self.number % size.per_log());
        format!("{:08X}{log:08X}{within:08X}", self.timeline.number())
    }
}

/// What the name of a file says that PostgreSQL archives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WalFile {
    /// A whole segment.
    Segment(Segment),
    /// The last, unfinished segment of a timeline that was left: its server was promoted elsewhere.
    Partial(Segment),
    /// Where a timeline, and those before it, left their parents.
    History(Timeline),
    /// The note of a base backup that ended: from which position it began, in the segment.
    Backup(Segment, u64),
}

/// A name that PostgreSQL gives to no file that it archives.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is the name of no file that PostgreSQL archives, with segments of {1} bytes")]
pub struct WalFileError(String, u32);

impl WalFile {
    /// Reads a name, exactly as PostgreSQL writes it.
    ///
    /// # Errors
    ///
    /// Where it is another name, or one that a cluster of this segment size has no file of.
    pub fn parse(name: &str, size: SegmentSize) -> Result<Self, WalFileError> {
        let wrong = || WalFileError(name.chars().take(80).collect(), size.into());
        let (stem, kind) = name.split_once('.').map_or((name, None), |(stem, kind)| (stem, Some(kind)));
        let is_spelt =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte));
        if !is_spelt(stem) {
            return Err(wrong());
        }
        let number = |text: &str| u32::from_str_radix(text, 16).map_err(|_| wrong());
        let timeline = |text: &str| Timeline::new(number(text)?).ok_or_else(wrong);
        if kind == Some("history") {
            return if stem.len() == 8 { Ok(Self::History(timeline(stem)?)) } else { Err(wrong()) };
        }
        if stem.len() != 24 {
            return Err(wrong());
        }
        let (log, within) = (u64::from(number(&stem[8..16])?), u64::from(number(&stem[16..])?));
        if within >= size.per_log() {
            return Err(wrong());
        }
        let segment = Segment { timeline: timeline(&stem[..8])?, number: log * size.per_log() + within };
        match kind {
            None => Ok(Self::Segment(segment)),
            Some("partial") => Ok(Self::Partial(segment)),
            Some(kind) => {
                let offset =
                    kind.strip_suffix(".backup").filter(|offset| offset.len() == 8 && is_spelt(offset));
                let offset = u64::from(number(offset.ok_or_else(wrong)?)?);
                if offset >= size.bytes() { Err(wrong()) } else { Ok(Self::Backup(segment, offset)) }
            }
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self, size: SegmentSize) -> String {
        match self {
            Self::Segment(segment) => segment.name(size),
            Self::Partial(segment) => format!("{}.partial", segment.name(size)),
            Self::History(timeline) => format!("{:08X}.history", timeline.number()),
            Self::Backup(segment, offset) => format!("{}.{offset:08X}.backup", segment.name(size)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(number: u32) -> Timeline {
        Timeline::new(number).unwrap()
    }

    #[test]
    fn names_are_those_that_postgresql_writes() {
        // SELECT pg_walfile_name('16/B374D848') of a cluster on timeline 1; initdb --wal-segsize=1 for the second.
        let position: Lsn = "16/B374D848".parse().unwrap();
        let small = SegmentSize::try_from(1 << 20).unwrap();
        assert_eq!(
            Segment::of(Timeline::FIRST, position, SegmentSize::USUAL).name(SegmentSize::USUAL),
            "0000000100000016000000B3"
        );
        assert_eq!(Segment::of(Timeline::FIRST, position, small).name(small), "000000010000001600000B37");
        for (name, file) in [
            ("00000002000000160000FFFF", None),
            (
                "0000000200000016000000FF",
                Some(WalFile::Segment(Segment { timeline: line(2), number: 0x16ff })),
            ),
            ("000000020000001600000100", None),
            ("0000000000000016000000FF", None),
            ("0000000200000016000000ff", None),
            (
                "0000000200000016000000FF.partial",
                Some(WalFile::Partial(Segment { timeline: line(2), number: 0x16ff })),
            ),
            ("0000000A.history", Some(WalFile::History(line(10)))),
            ("00000000.history", None),
            ("0000000200000016000000FF.history", None),
            (
                "0000000200000016000000FF.00000028.backup",
                Some(WalFile::Backup(Segment { timeline: line(2), number: 0x16ff }, 0x28)),
            ),
            ("0000000200000016000000FF.01000000.backup", None),
            ("0000000200000016000000FF.28.backup", None),
            ("0000000200000016000000FF.backup", None),
            ("0000000200000016000000FF.gz", None),
            ("../000000020000001600000", None),
            ("é00000020000001600000F", None),
            ("", None),
        ] {
            assert_eq!(WalFile::parse(name, SegmentSize::USUAL).ok(), file, "{name}");
        }
    }

    #[test]
    fn positions_are_read_strictly() {
        assert_eq!("0/0".parse(), Ok(Lsn(0)));
        assert_eq!("FFFFFFFF/FFFFFFFF".parse(), Ok(Lsn(u64::MAX)));
        assert_eq!("16/b374d848".parse::<Lsn>().unwrap().to_string(), "16/B374D848");
        for wrong in ["", "/", "16", "16/", "/B374D848", "1/2/3", "+1/2", "100000000/0", " 1/2", "1/G"] {
            assert_eq!(wrong.parse::<Lsn>(), Err(LsnError), "{wrong}");
        }
        assert_eq!(serde_json::to_string(&Lsn(0x16_b374_d848)).unwrap(), "\"16/B374D848\"");
        assert_eq!(serde_json::from_str::<Lsn>("\"16/B374D848\"").unwrap(), Lsn(0x16_b374_d848));
    }

    #[test]
    fn sizes_are_powers_of_two_that_postgresql_takes() {
        for right in [1_u32 << 20, 16 << 20, 1 << 30] {
            assert_eq!(u32::from(SegmentSize::try_from(right).unwrap()), right);
        }
        for wrong in [0, 1, 1 << 19, (1 << 20) + 1, 3 << 20, 1 << 31, u32::MAX] {
            assert!(SegmentSize::try_from(wrong).is_err(), "{wrong}");
        }
    }

    fn sizes() -> impl Strategy<Value = SegmentSize> {
        (20_u32..=30).prop_map(|power| SegmentSize::try_from(1 << power).unwrap())
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(timeline in 1_u32.., position: u64, offset: u32, size in sizes()) {
            let segment = Segment::of(line(timeline), Lsn(position), size);
            prop_assert!(segment.start(size).0 <= position && position - segment.start(size).0 < size.bytes());
            let offset = u64::from(offset) % size.bytes();
            for file in [
                WalFile::Segment(segment),
                WalFile::Partial(segment),
                WalFile::History(segment.timeline),
                WalFile::Backup(segment, offset),
            ] {
                prop_assert_eq!(WalFile::parse(&file.name(size), size), Ok(file));
            }
            prop_assert_eq!(Lsn(position).to_string().parse(), Ok(Lsn(position)));
        }

        #[test]
        fn a_name_that_is_read_is_written_the_same(name in "[0-9A-F]{8}([0-9A-F]{16})?(\\.history|\\.partial|\\.[0-9A-F]{8}\\.backup)?", size in sizes()) {
            if let Ok(file) = WalFile::parse(&name, size) {
                prop_assert_eq!(file.name(size), name);
            }
        }
    }
}
