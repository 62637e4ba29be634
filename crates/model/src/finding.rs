//! Everything that can be wrong, each with a stable code. Codes are API: documented, tested, never reused.
//!
//! Families: `RP` recovery point · `CT` content · `FS` files · `KY` keys · `RE` replication · `TM` time and objectives ·
//! `EV` evidence · `AD` copies that other tools made · `RT` retention · `PL` placement · `ST` the place a repository lies in ·
//! `SC` security and scope · `LN` texts: runbooks, scripts, workflows · `IO`/`ENV`/`AUTH` the environment, which never blames a copy.

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
    RecoveryEnded = "CT-22", Critical, "recovery ended elsewhere than where the copy ends", "do not use this restore: rows are missing from it or too many; restore from another copy";
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
    RetentionSuspended = "RT-01", Warning, "nothing goes of a source, because a rule says so", "read the reason: copies go again by themselves once it no longer holds";
    KeptTooLong = "RT-02", Warning, "copies are kept for longer than the policy asks, and no later run will change that", "look at them: a drill proves one that was found, and what is proven can go";
    NewerNotWhole = "RT-03", Critical, "the newer copy for which others would go is not all there", "nothing was removed; run `seaworthy check --read-data` on this repository";
    OneRecipient = "KY-03", Warning, "one key, or one person, is all that opens a repository", "add a key with a password of its own for somebody else: `seaworthy keys add`, then name its holder in the register";
    KeyWithBackups = "KY-04", Warning, "a password or key lies with the backups that it protects", "move it to where neither a thief nor a disaster reaches both, and change it where somebody else could copy it";
    CircularCustody = "KY-06", Critical, "a repository's password comes back only out of that repository", "put a key in escrow outside of what is backed up: `seaworthy keys add`, on paper, in a safe";
    EscrowUnchecked = "KY-07", Warning, "a key in escrow has not been shown to open its repository for longer than its register allows", "ask its holder to run `seaworthy keys check NAME`";
    KeyUnregistered = "KY-08", Warning, "the keys of a repository are not those that the register names", "correct the register, or remove the key: `seaworthy keys remove ID`";
    ClockSkew = "TM-01", Warning, "two clocks disagree", "check time synchronisation on the host named here";
    FutureDated = "TM-02", Warning, "a point is dated later than it can be, so that its age is not known", "check the clock of the host that wrote it, then back up again";
    Stale = "TM-03", Warning, "the newest copy is older than allowed", "run `seaworthy backup` and look at why the last run did not";
    DrillOverdue = "TM-05", Warning, "the last proof is older than the policy allows", "run `seaworthy drill`";
    RtoMissed = "TM-08", Warning, "the measured recovery took longer than the objective", "look at the longest phase, or change the promise";
    RpoMissed = "TM-09", Warning, "the newest recoverable data is older than the objective", "back up more often, or change the promise";
    LogGap = "TM-10", Warning, "the server no longer has the log since the copy before, so a base backup was taken", "moments between the two copies cannot be restored: raise max_slot_wal_keep_size, or back up more often";
    MomentMissed = "TM-11", Warning, "the log behind the copy does not lead to the moment", "take a backup: it holds what the log was to hold; moments in between can be restored as far as is said here";
    MethodUnfit = "TM-12", Warning, "the way in which a source is backed up cannot keep its promise, or nothing has shown that it can", "make the change that is named here, or change the promise";
    StandbyBehind = "TM-13", Warning, "a standby does not hold, or cannot be shown to hold, what its primary has written", "look at why replication stands still; `GRANT pg_read_all_stats` lets the backup role see whether it does";
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
    NotIndependent = "EV-13", Critical, "a drill is said to be independent of this program, and its own receipt shows less", "believe the level below; `seaworthy help levels` says what A6 asks for";
    SourceChanged = "EV-14", Warning, "the source is another system than the one that the copy before is of", "check the connection settings; after an upgrade or a recovery this is said once";
    RolesAbsent = "AD-01", Warning, "the dump names roles that it does not hold", "keep the output of `pg_dumpall --globals-only` beside it: a new server needs its roles first";
    Unauthenticated = "AD-02", Warning, "the copy is encrypted without authentication, so decrypting does not notice that bytes were changed", "require a signed digest, or encrypt with gpg or age";
    SidecarMissing = "AD-03", Warning, "the digest beside the copy is missing or unusable", "write `NAME.sha256` beside every copy, or set `sidecar = \"optional\"`";
    SmallerThanUsual = "AD-04", Warning, "the newest copy is much smaller than the ones before it", "compare what the source holds with what the copy holds before trusting it";
    DateDoubtful = "AD-05", Warning, "name, content and file times of a copy disagree about when it is of, or do not say", "look at how the tool names its files; put the date into the name";
    ForeignCommand = "AD-06", Critical, "the dump holds a command of psql's that pg_dump does not write", "do not give this file to psql; find out who wrote it";
    ExcessPrivilege = "SC-02", Note, "the backup role may do more than it needs", "use the grants in the documentation";
    FewCopies = "PL-01", Warning, "there are fewer copies than the policy asks for", "add a repository to the service, and run `seaworthy replicate`";
    FewMedia = "PL-02", Warning, "the copies are on fewer kinds of media than the policy asks for", "add a repository of another medium, e.g. an object store beside disks";
    NotOffsite = "PL-03", Warning, "fewer copies than the policy asks for are at another site than the live data", "add a repository at another site: a NAS in the same room is not offsite";
    SameAccount = "PL-04", Warning, "fewer copies than the policy asks for are in another account than the live data", "add a repository in another account: who takes over one deletes everything in it";
    SameRegion = "PL-05", Warning, "fewer copies than the policy asks for are in another region than the live data", "add a repository in another region";
    RegionNotAllowed = "PL-06", Critical, "a repository is in a region that the policy does not allow", "move its copies to an allowed region: add a repository there, replicate, then take this one out of the service";
    NotImmutable = "PL-07", Warning, "fewer copies than the policy asks for are known to be protected from change and deletion", "lock objects in the bucket for a time, or ask for 0";
    OneDisaster = "PL-08", Critical, "one disaster takes the live data and every copy", "add a repository that this disaster does not reach";
    LossBeyondRpo = "PL-09", Warning, "what one disaster leaves is older than the recovery point objective", "replicate to another place more often, or change the promise";
    PlaceUnsaid = "PL-10", Warning, "where something is has not been said, so that it is not known to be independent", "say site, region and account of `[defaults.production]` and of each repository in seaworthy.toml";
    PlaceContradicted = "PL-11", Warning, "what was seen contradicts where the configuration says that something is", "correct the configuration, or move the repository to where it is said to be";
    LagsBehind = "PL-12", Warning, "a repository of a service holds no fresh and good copy of it", "run `seaworthy replicate`, and look at why the last one did not";
    CopyVanished = "PL-13", Warning, "a copy that receipts put into a repository is not in its list", "find out who deleted it, then run `seaworthy catalogue rebuild`";
    SpaceShort = "PL-14", Warning, "a repository's file system is nearly full, or soon will be", "add room, or keep fewer copies";
    EvidenceOld = "PL-15", Warning, "the last look at the copies is older than the policy allows", "run `seaworthy comply`";
    StoreVersioning = "ST-01", Warning, "the place of a repository keeps no earlier versions", "turn on versioning of the bucket";
    StoreLock = "ST-02", Warning, "objects are not locked against removal for as long as copies are kept", "set object lock with a default retention in mode COMPLIANCE; some providers can do so only for a new bucket";
    StoreLockGovernance = "ST-03", Note, "objects are locked, and somebody may take the lock off", "use mode COMPLIANCE, or give nobody s3:BypassGovernanceRetention";
    StorePublic = "ST-04", Critical, "the place of a repository is open to everybody", "take the public grant away, then change the repository's password";
    StoreAccessBlock = "ST-05", Warning, "nothing keeps a repository's place from being opened to everybody", "turn on all four parts of the public access block";
    StoreExpires = "ST-06", Critical, "a rule of the service removes objects that copies need", "remove the expiration from the rule; retention is done by what knows which packs are needed";
    StoreExpiresEarlier = "ST-07", Warning, "a rule of the service removes earlier versions before the longest-kept copy goes", "raise NoncurrentDays to at least the longest retention";
    StoreFrozen = "ST-08", Warning, "a rule of the service moves objects to where they cannot be read at once", "remove the transition, or move to a class that answers at once";
    StoreIncomplete = "ST-09", Note, "uploads that were cut off are never removed", "add a rule AbortIncompleteMultipartUpload of 7 days";
    StoreEncryption = "ST-10", Note, "the service does not encrypt by itself", "turn on default encryption of the bucket";
    StoreMfaDelete = "ST-11", Note, "earlier versions can be deleted with a credential alone", "set object lock, or MFA delete with the root account";
    StoreRegion = "ST-12", Warning, "a repository lies in another region than configured", "correct `region`, or move the repository if the place matters";
    StoreWriter = "ST-13", Warning, "the credential that backs up can destroy what it has stored", "take s3:DeleteObject and overwriting away from it, locks apart; see the guide on object stores";
    StoreLocks = "ST-14", Note, "the credential that backs up cannot remove its own locks", "allow deleting below locks/ of the repository";
    StoreUnknown = "ST-15", Warning, "something about a repository's place could not be learned", "let the credential read the bucket's settings, or look with another one; unknown is not fine";
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
    EnvSettings = "ENV-SETTINGS", Warning, "a setting of the server stands in the way of backups, or endangers the server", "change the setting named here";
    EnvOther = "ENV-OTHER", Warning, "the environment, not the copy, kept the drill from deciding", "read the detail";
    LintEncryptedInput = "LN-01", Critical, "a tool is given an encrypted file that it cannot read", "decrypt it into the tool: `gpg --decrypt FILE | pg_restore …`";
    LintListIsNoProof = "LN-02", Warning, "a listing or a check of the structure stands where a restore would be the proof", "restore it somewhere and compare: `seaworthy drill`";
    LintBaseBackupFormat = "LN-03", Critical, "pg_basebackup refuses to compress files that it writes one by one", "add `--format=tar`";
    LintOptionUnknown = "LN-04", Critical, "a tool is given an option that it refuses", "take the option away, or call the tool that has it";
    LintRecoveryConf = "LN-05", Critical, "recovery.conf keeps PostgreSQL 12 and newer from starting", "put the settings into postgresql.auto.conf and make an empty `recovery.signal`";
    LintLiveFiles = "LN-06", Critical, "the files of a database are copied while it may be running", "use the engine's own backup, or stop it first";
    LintClusterToken = "LN-07", Critical, "k3s is copied without the token that its database is encrypted with", "copy /var/lib/rancher/k3s/server/token too, apart from the database";
    LintKeptPeriods = "LN-08", Warning, "a text says that the first copy of a period is kept, and the tool keeps the last one", "say which one is meant; `seaworthy retain --simulate 400d` shows the calendar of a policy";
    LintJobsCollide = "LN-09", Warning, "two jobs begin at the same time on the same target", "let one follow the other, or give them different times";
    LintClockChange = "LN-10", Warning, "a schedule is at a time that a change of clocks skips or repeats", "move it out of that hour, or say it in UTC";
    LintErrorsPassed = "LN-11", Critical, "a client goes on after an error and ends as if there had been none", "`psql --set ON_ERROR_STOP=1 --single-transaction`, into a new database";
    LintRestoreOver = "LN-12", Critical, "a restore destroys what is there before it has been shown that the copy is good", "restore into a new database, look at it, then exchange the names";
    LintCountIsNoProof = "LN-13", Warning, "a restore is judged by a count that a wrong restore passes too", "compare with what was measured at the source at the instant of the backup: `seaworthy drill`";
    LintJsonCut = "LN-14", Warning, "lines are cut out of JSON documents that are more than a line long", "choose a file, not a line: `ls -t *.json | head -n 1 | xargs cat | jq .`";
    LintSizeIsNoProof = "LN-15", Warning, "a copy is judged by its size", "compare digests that were taken at the source: `rclone check`, `rsync --checksum`, `seaworthy check --read-data`";
    LintUnauthenticated = "LN-16", Warning, "copies are encrypted in a way that does not notice a change, or the texts disagree about it", "use an authenticated format: age, `gpg`, restic's repository";
    LintNotMeasured = "LN-17", Critical, "a text calls something validated that by its own words was not done", "restore, and let a receipt say how long it took: `seaworthy drill`";
    LintDateArithmetic = "LN-18", Warning, "a date is not the number of days away that the text says, or two texts give two dates", "correct the date, or leave it to `seaworthy status`";
    LintKeepAndClean = "LN-19", Critical, "copies are called immutable or kept for ever, and removed by age", "leave them out of the cleanup, or say how long they are kept";
    LintProviderTime = "LN-20", Critical, "a provider takes snapshots only at full hours", "write a full hour, e.g. 06:00";
    LintSameAccount = "LN-21", Warning, "a copy is said to survive the loss of an account, and nothing names a second one", "keep a copy in another account, and name it";
    LintLogsLocal = "LN-22", Critical, "the logs that a recovery point rests on stay on one site", "send them offsite as they are written, or promise what the offsite copies can keep";
    LintChainTooLong = "LN-23", Warning, "what has to be back first takes so long that the promise cannot be kept", "shorten what comes first, or promise the sum";
    LintControlTitle = "LN-24", Note, "a control of ISO/IEC 27001 is named by another control's title or an old number", "use the number and the title of the 2022 edition";
    LintNotOffsite = "LN-25", Critical, "a copy is called offsite and lies on the same site", "copy it to another site: a fire, a flood or a thief takes all of one";
    LintVerdictAgainstRows = "LN-26", Critical, "a text passes as a whole while rows of it fail", "write down the rule that decides, or let the worst row decide";
    LintRegions = "LN-27", Warning, "copies go to a region that the texts rule out", "choose a region inside, or write down who is exempt";
    LintSecretInArguments = "LN-28", Warning, "a secret is an argument, which every user of the machine can read while the program runs", "hand it over in a file, the environment or a keystore";
    LintKeyBesideAccess = "LN-29", Warning, "one system holds the key of the copies and the credential for them", "give it a public key only, and keep the private one elsewhere";
    LintTestOnLiveServer = "LN-30", Warning, "a restore is tested on a server that is not said to be another one than the live one", "test in isolation: `seaworthy drill`, or a server of its own";
    LintTwoFrequencies = "LN-31", Warning, "one text gives two frequencies for the same duty", "decide for one";
    LintOneKeyForMany = "LN-32", Warning, "several approvals are demanded and one key suffices", "send it through the multi-signature contract, so that it can enforce the number";
    LintNoUnseal = "LN-33", Critical, "Vault is restored and never unsealed", "add `vault operator unseal` with the key shares of the cluster that took the snapshot";
    LintArchiveCommand = "LN-34", Critical, "archive_command leaves a half-written or no segment behind", "use pgBackRest or WAL-G; or copy to a temporary name, sync it, rename it";
    LintExpectedWithoutSource = "LN-35", Warning, "a count is compared with an expected one that comes from nowhere", "record it inside the backup's own snapshot, as `seaworthy backup` does";
    LintDeletesByAge = "LN-36", Critical, "copies are deleted by age, whether or not there is a newer one", "delete only after a newer good copy was seen: `seaworthy retain` shows how";
    LintDumpNotOneInstant = "LN-37", Warning, "a dump of a live database blocks its writers, or is not of one instant", "add `--single-transaction`";
    LintPipeHidesFailure = "LN-38", Critical, "a pipe ends well although the dump in it failed", "put `set -o pipefail` before it (bash), or write to a file first";
    LintFailureIgnored = "LN-39", Critical, "a failure of a backup or a restore is thrown away", "let it fail, and let somebody hear of it";
    LintFollowsDeletions = "LN-40", Critical, "a second copy follows the deletions of the first one", "copy without deleting, or keep what is deleted: versions, `--backup-dir`, `seaworthy replicate`";
    LintPeerUnknown = "LN-41", Warning, "a copy is sent to, or fetched from, a machine that is not authenticated", "trust its certificate or its host key by name";
    LintSnapshotUnseen = "LN-42", Warning, "a snapshot is copied whose age or soundness nobody looked at", "look at it before it counts: `etcdutl snapshot status`, `redis-cli LASTSAVE`";
    LintCronPercent = "LN-43", Critical, "cron ends the command at the first `%`", "write `\\%`, or move the command into a script";
    LintOverwritesLast = "LN-44", Critical, "a dump is written over the one before", "write to a new name, and rename it when it is whole";
    LintKeyWithCopies = "LN-45", Critical, "a key is copied to where the copies are that it opens", "keep it apart from them: another account, paper in a safe";
    LintWrongRestorer = "LN-46", Critical, "an archive is given to a tool that reads another kind", "plain SQL goes into psql, the other formats into pg_restore";
    LintThrownAway = "LN-47", Critical, "a setting or a command removes copies or data together with what they belong to", "take it away before the day on which it is run by mistake";
    LintExceptionIncomplete = "LN-48", Warning, "an exception names no rule or no reason", "write `seaworthy: allow LN-05 because …`";
    LintKeyReadable = "LN-49", Warning, "a key file is made readable by others", "chmod 600";
    LintPromiseDiffers = "LN-50", Warning, "a text promises something else than the configuration", "change one of them";
}

impl FindingCode {
    /// Whether it tells of bytes that are stored: of one copy, and not of the way to it or of what was captured.
    #[must_use]
    pub fn is_of_stored_bytes(self) -> bool {
        matches!(self, Self::ObjectDamaged | Self::ObjectMissing | Self::IndexInconsistent)
    }
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

    #[test]
    fn what_is_stored_wrong_is_told_from_what_was_captured_wrong() {
        for code in [FindingCode::ObjectDamaged, FindingCode::ObjectMissing, FindingCode::IndexInconsistent] {
            assert!(code.is_of_stored_bytes(), "{code}");
        }
        for code in [FindingCode::RowCount, FindingCode::Unreachable, FindingCode::WrongKey] {
            assert!(!code.is_of_stored_bytes(), "{code}");
        }
    }
}
