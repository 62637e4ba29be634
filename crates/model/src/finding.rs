//! Everything that can be wrong, each with a stable code. Codes are API: documented, tested, never reused.
//!
//! Families: `RP` recovery point · `CT` content · `FS` files · `KY` keys · `RE` replication · `TM` time and objectives ·
//! `EV` evidence · `AD` copies that other tools made · `RT` retention · `SC` security and scope · `IO`/`ENV`/`AUTH` the environment, which never blames a copy.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a finding asks of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing; no action.
    Note,
    /// To be read tomorrow.
    Warning,
    /// A recovery is, or may be, impossible or wrong.
    Critical,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $severity:ident, $meaning:literal, $remedy:literal;)*) => {
        /// A stable code. The text form (`CT-02`) is what reports, receipts and exit paths carry.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum FindingCode {
            $(#[doc = $meaning] #[serde(rename = $text)] $variant,)*
        }

        impl FindingCode {
            /// Every code, in the order of the reference.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable text, e.g. `CT-02`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// How urgent it is.
            #[must_use]
            pub fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity,)* }
            }

            /// What it means, in one sentence.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }

            /// What to do about it.
            #[must_use]
            pub fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }
        }
    };
}

codes! {
    ObjectDamaged = "RP-01", Critical, "a stored object fails authentication or its hash", "restore from another copy, then run `seaworthy check --read-data` on this repository";
    ObjectMissing = "RP-02", Critical, "a stored object that the copy needs is not there", "restore from another copy; find out who deleted it before the next prune";
    IndexInconsistent = "RP-03", Critical, "the repository's index disagrees with what it names", "run `seaworthy check --read-data`, then restic's `repair index` if the packs are whole";
    ArchiveTruncated = "RP-04", Critical, "an archive ends before its end", "back up again; the producer or the medium cut it short";
    WitnessNotOurs = "RP-05", Critical, "the witness is unsigned, or signed by a key that is not trusted", "find out who wrote this copy before restoring it";
    PointRolledBack = "RP-06", Critical, "the copy is older than the point it is said to be", "compare the repository with the ledger; somebody may have rolled it back";
    ObjectSwapped = "RP-07", Critical, "a stored object is authentic but not the one named", "restore from another copy; treat the repository as tampered with";
    StreamUnfinished = "RP-10", Critical, "a stream ended without its end marker or with a failed producer", "read the producer's message, fix it, back up again";
    PointImplausible = "RP-11", Critical, "the copy is empty or implausibly small", "check what the source holds before trusting any newer copy";
    RowCount = "CT-01", Critical, "a table holds another number of rows than the witness", "treat this copy as unusable for that table; drill the previous point";
    RowContent = "CT-02", Critical, "a table holds other content than the witness", "treat this copy as unusable for that table; drill the previous point";
    RelationMissing = "CT-03", Critical, "an object of the witness was not restored, or one was restored that it does not know", "look at the restore's messages for the first error";
    DefinitionDiffers = "CT-04", Critical, "a table, column, view or type is defined otherwise than in the witness", "compare the definitions named here; drill the previous point";
    ConstraintOrIndex = "CT-05", Critical, "a constraint or an index is missing, invalid or not validated", "look for the first error in the restore's post-data phase";
    ReferenceBroken = "CT-06", Critical, "rows refer to rows that are not there", "find the orphans named here; the constraint cannot be trusted";
    SequencePosition = "CT-07", Critical, "a sequence stands where it would hand out used values, or where it never stood", "do not let an application write; set the sequence by hand";
    ContentStale = "CT-08", Critical, "the newest data in the restore is older than the recovery point allows", "check the clock and whether writes reached this database";
    RowsFiltered = "CT-09", Critical, "row security filtered what the backup could see", "give the backup role BYPASSRLS or make it the owner";
    LargeObjects = "CT-10", Critical, "large objects are missing or differ", "check that the dump included them";
    OwnersOrGrants = "CT-11", Critical, "owners, grants, roles, memberships or policies differ", "restore the globals first; check that the backup role may read pg_roles";
    Extension = "CT-12", Critical, "an extension is missing or older", "install the extension of the recorded version where you restore";
    Corruption = "CT-13", Critical, "the engine's own integrity check failed", "treat this copy as corrupt; check the source with the same tool at once";
    EncodingOrLocale = "CT-14", Critical, "encoding, collation or locale provider differ", "restore into a database created with the recorded properties";
    ObjectUnusable = "CT-15", Critical, "an object was restored but fails when used", "call it by hand in a scratch restore and read the error";
    SettingsDiffer = "CT-16", Critical, "properties or settings of the database or its roles differ", "re-apply the recorded settings";
    RoutineOrTrigger = "CT-17", Critical, "a function, procedure, trigger or event differs or is not enabled as it was", "compare the definitions named here";
    NoWitness = "CT-18", Warning, "there is no witness, so equality cannot be shown", "back up once with this version to get a witness";
    ScopeNarrow = "CT-19", Warning, "part of the source is outside the copy", "grant the backup role access, or declare the exclusion";
    SourceFlawed = "CT-20", Warning, "the source itself holds something invalid, which the copy repeats", "repair the source: REINDEX, VALIDATE CONSTRAINT, or delete the orphans";
    CheckFailed = "CT-21", Critical, "a check declared by the user failed", "read the check's detail; the restore may be complete and the application still broken";
    FileMissing = "FS-01", Critical, "a file of the witness was not restored, or one was restored that it does not know", "drill the previous point; look for an exclude pattern that is too broad";
    FileContent = "FS-02", Critical, "a file's bytes differ from the witness", "treat this copy as unusable for that file; drill the previous point";
    FileMetadata = "FS-03", Critical, "a file's mode, owner, times, or extended attributes differ", "restore as a user who may set them";
    FileType = "FS-04", Critical, "a link points elsewhere, or an entry has another type", "compare the entries named here";
    FileTorn = "FS-06", Warning, "a file changed while it was read", "quiesce its writer or back it up with the engine that owns it";
    FileUnreadable = "FS-05", Warning, "a file could not be read", "grant the backup user access, or declare the exclusion";
    FileLinks = "FS-07", Critical, "hard links or holes differ", "compare the entries named here";
    LimitExceeded = "FS-08", Critical, "an input asks for more than the declared bounds", "treat the repository as hostile";
    WrongKey = "KY-01", Critical, "no key opens the repository or the copy", "check the secret's reference; another key may be in escrow";
    SecretUnreadable = "KY-02", Critical, "a password or key cannot be read from where it is kept", "check the secret's reference, and that what it names is there and not empty";
    KeyExposed = "KY-05", Warning, "a key file can be read by others, or belongs to somebody else", "chmod 600 and chown it to the user that runs the backup";
    ClockSkew = "TM-01", Warning, "two clocks disagree", "check time synchronisation on the host named here";
    FutureDated = "TM-02", Warning, "a point is dated later than it can be, so that its age is not known", "check the clock of the host that wrote it, then back up again";
    Stale = "TM-03", Warning, "the newest copy is older than allowed", "run `seaworthy backup` and look at why the last run did not";
    DrillOverdue = "TM-05", Warning, "the last proof is older than the policy allows", "run `seaworthy drill`";
    RtoMissed = "TM-08", Warning, "the measured recovery took longer than the objective", "look at the longest phase, or change the promise";
    RpoMissed = "TM-09", Warning, "the newest recoverable data is older than the objective", "back up more often, or change the promise";
    NothingChecked = "EV-01", Critical, "no check was carried out", "run the drill again with checks";
    ChecksMissing = "EV-02", Critical, "fewer checks were carried out than the witness asks for", "look at the first check that is missing";
    ScratchNotFresh = "EV-03", Critical, "the scratch place was not empty and new", "remove what is left and run the drill again";
    WrongCopyRead = "EV-04", Critical, "the bytes did not come from the copy that was named", "check the repository's location";
    CheckerBlind = "EV-05", Critical, "the checks did not notice a damage made on purpose", "report this: a check cannot fail, so its passes mean nothing";
    LedgerCut = "EV-06", Critical, "receipts are missing from the ledger", "compare with an exported copy of the ledger";
    ReceiptAltered = "EV-07", Critical, "a receipt's signature or chain does not verify", "treat the ledger as tampered with; use an exported copy";
    ToolRefused = "EV-08", Critical, "a tool is missing, too old for the server, or has a known hole on this path", "install the version named here";
    WrongSource = "EV-09", Critical, "the copy is of another system than the one named", "check the connection settings";
    Interrupted = "EV-10", Warning, "the run was stopped or ran out of time", "run it again; raise the deadline if it was too short";
    NotIsolated = "EV-11", Critical, "the sandbox could not show that it is isolated", "run `seaworthy doctor`";
    LiveTarget = "EV-12", Critical, "the target is, or could be, a live source", "restore into a new place";
    RolesAbsent = "AD-01", Warning, "the dump names roles that it does not hold", "keep the output of `pg_dumpall --globals-only` beside it: a new server needs its roles first";
    Unauthenticated = "AD-02", Warning, "the copy is encrypted without authentication, so decrypting does not notice that bytes were changed", "require a signed digest, or encrypt with gpg or age";
    SidecarMissing = "AD-03", Warning, "the digest beside the copy is missing or unusable", "write `NAME.sha256` beside every copy, or set `sidecar = \"optional\"`";
    SmallerThanUsual = "AD-04", Warning, "the newest copy is much smaller than the ones before it", "compare what the source holds with what the copy holds before trusting it";
    DateDoubtful = "AD-05", Warning, "name, content and file times of a copy disagree about when it is of, or do not say", "look at how the tool names its files; put the date into the name";
    ForeignCommand = "AD-06", Critical, "the dump holds a command of psql's that pg_dump does not write", "do not give this file to psql; find out who wrote it";
    ExcessPrivilege = "SC-02", Note, "the backup role may do more than it needs", "use the grants in the documentation";
    NoSpace = "IO-ENOSPC", Warning, "the disk is full", "free space or move the repository";
    ReadFailed = "IO-READ", Warning, "reading or writing failed", "look at the system's log for the device";
    Unreachable = "IO-UNREACHABLE", Warning, "the other side does not answer", "check that it runs and that the address is right";
    AuthDenied = "AUTH-DENIED", Warning, "the other side refused the credentials", "check the user and the secret's reference";
    EnvDisk = "ENV-DISK", Warning, "there is not enough room for a scratch restore", "free space or set another scratch directory";
    EnvBinary = "ENV-BINARY", Warning, "a program that the restore needs is not installed", "install the version named here";
    EnvExtension = "ENV-EXTENSION", Warning, "an extension that the restore needs is not installed here", "install the extension's package";
    EnvLocale = "ENV-LOCALE", Warning, "a locale that the restore needs is not installed here", "install the locale";
    EnvNamespace = "ENV-NAMESPACE", Warning, "this machine does not let us isolate a process", "run as root or allow unprivileged user namespaces";
    EnvPermission = "ENV-PERMISSION", Warning, "this user may not do what the restore needs", "run the drill as root to compare owners";
    EnvTimeout = "ENV-TIMEOUT", Warning, "the machine was too slow for the deadline", "raise the deadline or use a faster machine";
    EnvOther = "ENV-OTHER", Warning, "the environment, not the copy, kept the drill from deciding", "read the detail";
}

impl fmt::Display for FindingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A statement that facts fall short of intent: which rule, about what, with which facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The rule.
    pub code: FindingCode,
    /// What it is about: a table, a file, a pack. Never a row's value.
    pub subject: String,
    /// The facts, with numbers and units. Never a row's value, never a secret.
    pub detail: String,
}

impl Finding {
    /// A finding of `code` about `subject`.
    #[must_use]
    pub fn new(code: FindingCode, subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { code, subject: subject.into(), detail: detail.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.code, self.subject, self.detail)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_unique_and_every_one_says_what_to_do() {
        let texts: BTreeSet<_> = FindingCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(texts.len(), FindingCode::ALL.len());
        for code in FindingCode::ALL {
            assert!(!code.meaning().is_empty() && !code.remedy().is_empty(), "{code}");
        }
    }

    #[test]
    fn a_finding_is_told_by_code_subject_and_detail() {
        let finding = Finding::new(FindingCode::RowCount, "orders", "one is missing");
        assert_eq!(finding.to_string(), "CT-01 orders: one is missing");
    }
}
