//! Exit codes. They are API: a script or an alert may depend on each of them.

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    /// Done, and nothing to report.
    Ok = 0,
    /// It could not be carried out, for a reason without a code of its own.
    Unexpected = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// A backup was stored but does not hold everything.
    Incomplete = 3,
    /// A reading verb found something.
    Findings = 4,
    /// A drill showed that the restore is wrong.
    DrillFailed = 5,
    /// A drill passed but an objective was missed.
    ObjectiveMissed = 6,
    /// It could not be decided. Never a pass.
    Unknown = 7,
    /// No repository or catalogue there.
    NotFound = 10,
    /// Somebody holds a lock.
    Locked = 11,
    /// No key opens the repository.
    WrongKey = 12,
    /// A safety rule forbids it.
    Refused = 20,
    /// Stopped by a signal.
    Interrupted = 130,
    /// A server that recovers is not told that its log has ended: every failure of `wal get`.
    Withheld = 200,
}

/// Every code with what it means, for `seaworthy help exit-codes` and the reference.
pub(crate) const TABLE: &[(Exit, &str)] = &[
    (Exit::Ok, "done, and nothing to report"),
    (Exit::Unexpected, "it could not be carried out; the message says why"),
    (Exit::Usage, "the command line or the configuration is wrong"),
    (
        Exit::Incomplete,
        "the copy is stored but INCOMPLETE or implausible: something could not be read, changed while it was read, or is empty",
    ),
    (
        Exit::Findings,
        "a reading verb (doctor, status, wal status, comply, posture, adopt, verify, check, keys, kit, config check, lint, catalogue rebuild) found something",
    ),
    (Exit::DrillFailed, "a drill FAILED: what was restored is wrong"),
    (
        Exit::ObjectiveMissed,
        "a drill passed, but the RTO or RPO objective was missed, or an adopted copy is stale",
    ),
    (Exit::Unknown, "it could not be decided (INCONCLUSIVE): never a pass"),
    (Exit::NotFound, "no repository, catalogue or recovery point there"),
    (Exit::Locked, "locked by somebody else"),
    (Exit::WrongKey, "no key opens the repository, or the adopted copy"),
    (Exit::Refused, "refused by a safety rule"),
    (Exit::Interrupted, "interrupted by a signal"),
    (
        Exit::Withheld,
        "wal get: a file of the log could not be handed over; it has no other code for a failure, and 1 only where the log that is kept ends before the file",
    ),
];

impl Exit {
    /// The number.
    pub(crate) fn number(self) -> u8 {
        self as u8
    }
}
