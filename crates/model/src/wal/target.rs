//! The moment to which a cluster is to be recovered, as a person names it.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Lsn;

/// Longest name of a restore point: servers cut nothing off, they refuse (`MAXFNAMELEN` of `src/include/access/xlog_internal.h`).
const NAME_BYTES_MAX: usize = 63;

/// Where recovery stops. Each of them includes what it names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Target {
    /// Before the first transaction that ended later than this, by the server's clock.
    Time(Timestamp),
    /// Behind the first record at this position or later.
    Position(Lsn),
    /// Behind the end of a transaction.
    Transaction(u32),
    /// Behind a restore point (`pg_create_restore_point`).
    Name(String),
    /// As soon as the data are consistent: the end of the base backup.
    Immediate,
    /// The end of the log, as far as it is held.
    Latest,
}

/// Name of the check that a recovery went on to a moment behind its copy, and ended there.
pub const MOMENT: &str = "moment";

/// Where a recovery that went on behind its copy has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// The moment that was asked for.
    pub target: Target,
    /// The instant as of which the restored data stand, by the source's clock: nothing that was committed later is in them. Of the end of
    /// a log, up to when it is known to be complete, or its last transaction where that ended later.
    pub at: Timestamp,
    /// Where the last record ends that was applied.
    pub position: Lsn,
    /// Bytes of the log that were applied behind the copy.
    pub bytes: u64,
}

/// A text that names no moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// A time that is another moment wherever one is.
    #[error(
        "`{0}` does not say its time zone: write it with one, as 2026-11-30T12:00:00+01:00 or 2026-11-30T11:00:00Z"
    )]
    NoZone(String),
    /// Anything else.
    #[error(
        "`{0}` is no moment: write a time with its zone (2026-11-30T12:00:00+01:00), lsn:0/3000148, xid:741, name:RESTORE-POINT, immediate or latest"
    )]
    Unknown(String),
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let unknown = || TargetError::Unknown(text.escape_debug().collect());
        if let Some(position) = text.strip_prefix("lsn:") {
            return position.parse().map(Self::Position).map_err(|_| unknown());
        }
        if let Some(number) = text.strip_prefix("xid:") {
            let is_spelt = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            // 0, 1 and 2 end no transaction.
            let number = number.parse().ok().filter(|number| is_spelt && *number > 2);
            return number.map(Self::Transaction).ok_or_else(unknown);
        }
        if let Some(name) = text.strip_prefix("name:") {
            let is_one = !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains('\0');
            return is_one.then(|| Self::Name(name.to_owned())).ok_or_else(unknown);
        }
        match text {
            "immediate" => return Ok(Self::Immediate),
            "latest" => return Ok(Self::Latest),
            _ => {}
        }
        if let Ok(time) = text.parse() {
            return Ok(Self::Time(time));
        }
        let is_local = text.parse::<jiff::civil::DateTime>().is_ok();
        Err(if is_local { TargetError::NoZone(text.escape_debug().collect()) } else { unknown() })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) => write!(f, "{time}"),
            Self::Position(position) => write!(f, "lsn:{position}"),
            Self::Transaction(number) => write!(f, "xid:{number}"),
            Self::Name(name) => write!(f, "name:{name}"),
            Self::Immediate => f.write_str("immediate"),
            Self::Latest => f.write_str("latest"),
        }
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

impl TryFrom<String> for Target {
    type Error = TargetError;

    fn try_from(text: String) -> Result<Self, TargetError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_and_written_the_same() {
        for text in [
            "2026-11-30T11:00:00Z",
            "2026-11-30T11:00:00.123456Z",
            "lsn:16/B374D848",
            "xid:741",
            "name:before the deploy",
            "immediate",
            "latest",
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        let there = "2026-11-30T12:00:00+01:00".parse::<Target>().unwrap();
        assert_eq!(there.to_string(), "2026-11-30T11:00:00Z");
        assert_eq!("2026-11-30 12:00:00+01".parse::<Target>().unwrap(), there);
    }

    #[test]
    fn a_time_without_a_zone_and_anything_else_is_refused() {
        for text in ["2026-11-30T12:00:00", "2026-11-30 12:00", "2026-11-30"] {
            assert!(matches!(text.parse::<Target>(), Err(TargetError::NoZone(_))), "{text}");
        }
        let long = format!("name:{}", "x".repeat(64));
        for text in [
            "",
            "now",
            "lsn:",
            "lsn:12",
            "xid:",
            "xid:2",
            "xid:-5",
            "xid:+5",
            "xid:4294967296",
            "name:",
            &long,
            "Latest",
        ] {
            assert!(matches!(text.parse::<Target>(), Err(TargetError::Unknown(_))), "{text}");
        }
    }
}
