//! Copies that other tools have made: what a set of them is called, how old one is, and what may be said of it.
//!
//! An adopted set is a place and a pattern of names. Nothing of it was made by us, so nothing of it has a witness: that
//! a copy comes back is shown by restoring it (A3 at best), that it is equal to its source never is.
//!
//! Nothing here opens a file: names, first bytes, sizes, times and texts are given, judgements are returned.

pub mod judge;
pub mod pattern;
pub mod recognise;
pub mod said;
pub mod script;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::check::UserCheck;
use crate::finding::FindingCode;
use crate::id::SourceName;
use crate::secret::SecretRef;

pub use pattern::{Pattern, PatternError, Window};

/// A set of copies that another tool makes of one thing, as the configuration describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptedSet {
    /// Its name within the service; a source's name in receipts.
    pub name: SourceName,
    /// What its copies are.
    pub kind: AdoptedKind,
    /// Absolute path of the directory that they lie in.
    pub location: String,
    /// Which names in there are copies of this set, and where they say when.
    pub pattern: Pattern,
    /// IANA name of the zone whose wall clock the names (and what a dump says of itself) are written in.
    pub zone: Option<String>,
    /// Where the passphrase or the private key is to be had that opens them.
    pub decrypt: Option<SecretRef>,
    /// Rounds of PBKDF2 of `openssl enc`.
    pub iterations: u32,
    /// What is asked of `NAME.sha256` beside a copy.
    pub sidecar: SidecarRule,
    /// Age at which the newest copy counts as stale.
    pub stale_after: SignedDuration,
    /// Tables whose rows are left out on purpose, `schema.table`.
    pub without_rows: Vec<String>,
    /// Whether a copy without a row is healthy.
    pub may_be_empty: bool,
    /// Directory with PostgreSQL's programs; searched for where omitted.
    pub bin_dir: Option<String>,
    /// Questions asked of a restore.
    pub checks: Vec<UserCheck>,
}

/// What the copies of a set are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdoptedKind {
    /// What `pg_dump` and `pg_dumpall` write: custom, directory, tar and plain format.
    #[serde(rename = "pg_dump")]
    PgDump,
}

impl AdoptedKind {
    /// Every kind.
    pub const ALL: [Self; 1] = [Self::PgDump];

    /// The kind's word in the configuration and in receipts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PgDump => "pg_dump",
        }
    }

    /// The kind of this word.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// What is asked of the file `NAME.sha256` beside a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SidecarRule {
    /// It is not looked at.
    Ignored,
    /// It must hold where it is there.
    Optional,
    /// It must be there and hold.
    Required,
}

impl SidecarRule {
    /// Every rule.
    pub const ALL: [Self; 3] = [Self::Ignored, Self::Optional, Self::Required];

    /// The word in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ignored => "ignored",
            Self::Optional => "optional",
            Self::Required => "required",
        }
    }
}

/// Whether a finding says something about a restored copy without denying that it was restored: a pass may carry it.
#[must_use]
pub fn is_beside(code: FindingCode) -> bool {
    matches!(
        code,
        FindingCode::NoWitness
            | FindingCode::Stale
            | FindingCode::FutureDated
            | FindingCode::RolesAbsent
            | FindingCode::Unauthenticated
            | FindingCode::SmallerThanUsual
            | FindingCode::DateDoubtful
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Severity;

    #[test]
    fn what_a_pass_may_carry_is_never_critical() {
        for code in FindingCode::ALL {
            assert!(!is_beside(*code) || code.severity() != Severity::Critical, "{code}");
        }
    }

    #[test]
    fn words_name_their_kind() {
        for kind in AdoptedKind::ALL {
            assert_eq!(AdoptedKind::named(kind.as_str()), Some(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
        assert_eq!(AdoptedKind::named("mysqldump"), None, "what is not built is not accepted");
    }
}
