//! The truth about a base backup: where recovery begins and where it must end, and what has to be there.
//!
//! A server that recovers takes whatever it cannot read for the end of its log, opens, and says that all is well. So the copy says
//! beforehand at which record recovery ends, and a restore that ended anywhere else is wrong whatever it holds. The end is chosen
//! so that what is visible there is what one snapshot of the source has shown: every transaction that it shows was committed
//! before, every other one after it. Rows are therefore compared exactly, although the source was never stopped.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::finding::{Finding, FindingCode};
use crate::id::Digest;
use crate::verdict::{CheckOutcome, CheckReport};
use crate::wal::{Lsn, Segment, SegmentSize, Timeline, WalFile};
use crate::witness::postgres::{PostgresWitness, printable};

/// Most findings that one report repeats.
const NAMED_MAX: usize = 8;

/// What a base backup is, beside what its databases hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhysicalFacts {
    /// The timeline of the backup; recovery follows no other.
    pub timeline: Timeline,
    /// Where recovery begins.
    pub from: Lsn,
    /// From where on the data are consistent: the end of the base backup.
    pub consistent: Lsn,
    /// Where the last record begins that is to be applied.
    pub last: Lsn,
    /// Where that record ends: the log of the copy holds nothing behind it.
    pub until: Lsn,
    /// How long the log's files are.
    pub segment_bytes: SegmentSize,
    /// Whether every page carries a checksum.
    pub has_checksums: bool,
    /// Settings that a server needs to be at least as large as here to recover.
    pub settings: BTreeMap<String, String>,
    /// SHA-256 of each file of the log, by name.
    pub log: BTreeMap<String, Digest>,
    /// SHA-256 of the server's own manifest of the backup.
    pub manifest: Digest,
    /// The base backup that the copy begins with; unknown of copies of earlier versions, which are each a base backup of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<BaseFacts>,
    /// The log between the copy before and this base backup, where one is beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub between: Option<Between>,
    /// From where on this copy and those before it hold the log without a hole, zero where no copy was before them; unknown of copies of earlier
    /// versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Lsn>,
    /// Where tablespaces lay on the source, by object identifier.
    pub tablespaces: BTreeMap<u32, String>,
    /// The other databases of the cluster, by name, in the same snapshot.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub others: BTreeMap<String, PostgresWitness>,
    /// Databases that could not be looked into: they are in the copy, and what they hold is not compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unseen: Vec<String>,
}

/// The base backup that a copy begins with. What was written between it and the copy's own instant is in the copy as log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseFacts {
    /// The instant of the copy that it was taken for: from here on, any moment up to the copy's own can be restored.
    pub at: Timestamp,
    /// Its files, in bytes, without the log.
    pub bytes: u64,
}

/// The log between the copy before and the base backup of this one: with it, the copy before can be taken to any moment up to this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Between {
    /// The instant of the copy before.
    pub since: Timestamp,
    /// Where that one ends.
    pub from: Lsn,
    /// SHA-256 of each file of the log, by name. What this copy's own log begins with is not among them.
    pub log: BTreeMap<String, Digest>,
}

/// What a restore of a base backup has shown of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PhysicalSeen {
    /// Files that were compared with the manifest, and their bytes.
    pub files: (u64, u64),
    /// What is wrong with them.
    pub files_wrong: Vec<Finding>,
    /// Files of the log that were read record by record, and their records.
    pub log: (u64, u64),
    /// What is wrong with them.
    pub log_wrong: Vec<Finding>,
    /// Pages whose checksums were computed.
    pub pages: u64,
    /// What is wrong with them.
    pub pages_wrong: Vec<Finding>,
    /// The timeline that was followed, and the position at which recovery ended; unknown where the server did not say.
    pub ended: Option<(Timeline, Lsn)>,
    /// Relations and indexes that the engine's own tool has checked; unknown where it could not.
    pub checked: Option<(u64, u64)>,
    /// What it has found, or why it could not look.
    pub checked_wrong: Vec<Finding>,
}

/// The name of a check of one of several databases.
#[must_use]
pub fn of_database(database: &str, check: &str) -> String {
    format!("{}/{check}", printable(database))
}

fn report(name: &str, detail: String, findings: &[Finding]) -> CheckReport {
    let outcome = if findings.is_empty() { CheckOutcome::Passed } else { CheckOutcome::Failed };
    let mut kept: Vec<Finding> = findings.iter().take(NAMED_MAX).cloned().collect();
    if let (true, Some(last)) = (findings.len() > NAMED_MAX, kept.last_mut()) {
        last.detail.push_str(&format!("; and {} more", findings.len() - NAMED_MAX));
    }
    CheckReport { name: name.to_owned(), outcome, detail, findings: kept }
}

/// A file of the log in a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileOfLog<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether it lies between the copy before and this one's base backup, and not with this one's own log.
    pub is_between: bool,
    /// Which part of the log it is.
    pub segment: Segment,
    /// The position behind what the copy holds of it.
    pub until: Lsn,
}

impl PhysicalFacts {
    /// The files of its log, what lies between the copy before and the base backup included; histories are none.
    pub fn log_files(&self) -> impl Iterator<Item = FileOfLog<'_>> {
        let own = self.log.keys().map(|name| (name, false));
        let between = self.between.iter().flat_map(|between| between.log.keys());
        own.chain(between.map(|name| (name, true))).filter_map(|(name, is_between)| {
            let Ok(WalFile::Segment(segment)) = WalFile::parse(name, self.segment_bytes) else { return None };
            let until = segment.end(self.segment_bytes).min(self.until);
            Some(FileOfLog { name, is_between, segment, until })
        })
    }

    /// Names of the checks that a drill must carry out beside those of databases, in order.
    #[must_use]
    pub fn checks(&self) -> Vec<String> {
        ["base-backup", "log", "pages", "recovery", "integrity"].map(str::to_owned).to_vec()
    }

    /// Names of the checks of the other databases, in order: each begins with its database's.
    #[must_use]
    pub fn checks_of_others(&self) -> Vec<String> {
        let of = |(name, witness): (&String, &PostgresWitness)| -> Vec<String> {
            witness.checks().iter().map(|check| of_database(name, check)).collect()
        };
        self.others.iter().flat_map(of).collect()
    }

    /// One report for each of [`Self::checks`], in order.
    #[must_use]
    pub fn compare(&self, seen: &PhysicalSeen) -> Vec<CheckReport> {
        let (files, bytes) = seen.files;
        let base = format!("{files} files with {bytes} bytes compared with the server's manifest");
        let (segments, records) = seen.log;
        let log = format!("{records} records in {segments} files from {} to {}", self.from, self.until);
        let pages = if self.has_checksums {
            format!("checksums of {} pages computed", seen.pages)
        } else {
            "the cluster has no page checksums; the engine's own tool looks at the pages instead".to_owned()
        };
        vec![
            report("base-backup", base, &seen.files_wrong),
            self.counted(report("log", log, &seen.log_wrong), segments),
            report("pages", pages, &seen.pages_wrong),
            self.recovery(seen.ended),
            integrity(seen),
        ]
    }

    /// A log of fewer files than the copy says was not read whole.
    fn counted(&self, mut checked: CheckReport, segments: u64) -> CheckReport {
        let between = self.between.as_ref().map_or(0, |between| between.log.len());
        let expected = (self.log.len() + between) as u64;
        if segments < expected && checked.findings.is_empty() {
            checked.outcome = CheckOutcome::Inconclusive;
            checked.findings.push(Finding::new(
                FindingCode::ChecksMissing,
                "log",
                format!("{segments} of {expected} files were read"),
            ));
        }
        checked
    }

    fn recovery(&self, ended: Option<(Timeline, Lsn)>) -> CheckReport {
        let expected = format!("timeline {} to {}", self.timeline, self.until);
        let finding = |detail: String| Finding::new(FindingCode::RecoveryEnded, "recovery", detail);
        match ended {
            None => CheckReport {
                name: "recovery".to_owned(),
                outcome: CheckOutcome::Inconclusive,
                detail: format!("{expected} expected; the server does not say where it ended"),
                findings: vec![finding(format!("{expected} expected, and nothing is known"))],
            },
            Some((timeline, at)) if (timeline, at) == (self.timeline, self.until) => {
                report("recovery", format!("followed {expected}, which is where the copy ends"), &[])
            }
            Some((timeline, at)) => {
                let found = format!("{expected} expected, timeline {timeline} to {at} found");
                report("recovery", found.clone(), &[finding(found)])
            }
        }
    }
}

fn integrity(seen: &PhysicalSeen) -> CheckReport {
    match seen.checked {
        Some((tables, indexes)) => report(
            "integrity",
            format!("amcheck read {tables} tables and {indexes} B-tree indexes"),
            &seen.checked_wrong,
        ),
        None => CheckReport {
            name: "integrity".to_owned(),
            outcome: CheckOutcome::Inconclusive,
            detail: "amcheck could not be run".to_owned(),
            findings: seen.checked_wrong.clone(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> PhysicalFacts {
        PhysicalFacts {
            timeline: Timeline::FIRST,
            from: Lsn(0x200_0028),
            consistent: Lsn(0x200_0100),
            last: Lsn(0x200_0140),
            until: Lsn(0x200_0178),
            segment_bytes: SegmentSize::USUAL,
            has_checksums: true,
            settings: BTreeMap::new(),
            log: BTreeMap::from([("000000010000000000000002".to_owned(), crate::signature::sha256(b"x"))]),
            manifest: crate::signature::sha256(b"{}"),
            base: None,
            between: None,
            since: Some(Lsn(0x0200_0028)),
            tablespaces: BTreeMap::new(),
            others: BTreeMap::new(),
            unseen: Vec::new(),
        }
    }

    fn seen() -> PhysicalSeen {
        PhysicalSeen {
            files: (900, 1 << 20),
            log: (1, 5),
            pages: 100,
            ended: Some((Timeline::FIRST, Lsn(0x200_0178))),
            checked: Some((80, 160)),
            ..PhysicalSeen::default()
        }
    }

    fn outcomes(seen: &PhysicalSeen) -> Vec<CheckOutcome> {
        let reports = facts().compare(seen);
        let names: Vec<String> = reports.iter().map(|report| report.name.clone()).collect();
        assert_eq!(names, facts().checks(), "the executed list is the derived list");
        reports.iter().map(|report| report.outcome).collect()
    }

    #[test]
    fn only_a_restore_that_ended_where_the_copy_ends_passes() {
        use CheckOutcome::{Failed, Inconclusive, Passed};
        assert_eq!(outcomes(&seen()), [Passed; 5]);
        let second = Timeline::new(2).unwrap();
        for (ended, outcome) in [
            (Some((Timeline::FIRST, Lsn(0x200_0140))), Failed),
            (Some((Timeline::FIRST, Lsn(0x200_0180))), Failed),
            (Some((second, Lsn(0x200_0178))), Failed),
            (None, Inconclusive),
        ] {
            assert_eq!(outcomes(&PhysicalSeen { ended, ..seen() })[3], outcome, "{ended:?}");
        }
    }

    #[test]
    fn what_was_not_looked_at_is_no_pass_and_what_is_wrong_fails() {
        use CheckOutcome::{Failed, Inconclusive};
        assert_eq!(outcomes(&PhysicalSeen { log: (0, 0), ..seen() })[1], Inconclusive);
        assert_eq!(outcomes(&PhysicalSeen { checked: None, ..seen() })[4], Inconclusive);
        let wrong = vec![Finding::new(FindingCode::Corruption, "base/1/1259", "x"); 20];
        let all = PhysicalSeen {
            files_wrong: wrong.clone(),
            log_wrong: wrong.clone(),
            pages_wrong: wrong.clone(),
            checked_wrong: wrong,
            ..seen()
        };
        let reports = facts().compare(&all);
        for at in [0, 1, 2, 4] {
            assert_eq!(reports[at].outcome, Failed, "{}", reports[at].name);
            assert_eq!(reports[at].findings.len(), 8);
            assert!(reports[at].findings[7].detail.ends_with("and 12 more"));
        }
    }

    #[test]
    fn as_many_findings_as_are_named_are_named_as_they_are() {
        let wrong = vec![Finding::new(FindingCode::Corruption, "base/1/1259", "x"); NAMED_MAX];
        let reports = facts().compare(&PhysicalSeen { pages_wrong: wrong.clone(), ..seen() });
        assert_eq!(reports[2].findings, wrong);
    }

    #[test]
    fn the_log_between_two_copies_is_counted_too() {
        let digest = crate::signature::sha256(b"x");
        let name = "000000010000000000000001".to_owned();
        let since = Timestamp::UNIX_EPOCH;
        let log = BTreeMap::from([(name.clone(), digest.clone()), ("00000001.history".to_owned(), digest)]);
        let facts = PhysicalFacts { between: Some(Between { since, from: Lsn(0x100_0000), log }), ..facts() };
        let counted = |files: u64| facts.compare(&PhysicalSeen { log: (files, 5), ..seen() })[1].outcome;
        assert_eq!([counted(2), counted(3)], [CheckOutcome::Inconclusive, CheckOutcome::Passed]);
        // A history is none of the log's files.
        let files: Vec<(&str, bool, Lsn)> =
            facts.log_files().map(|file| (file.name, file.is_between, file.until)).collect();
        assert_eq!(
            files,
            [("000000010000000000000002", false, Lsn(0x200_0178)), (name.as_str(), true, Lsn(0x200_0000)),]
        );
    }

    #[test]
    fn checks_of_other_databases_begin_with_their_names() {
        let mut facts = facts();
        assert!(facts.checks_of_others().is_empty());
        let witness = crate::witness::postgres::tests::witness();
        let checks = witness.checks();
        assert!(!checks.is_empty());
        facts.others.insert("other\n".to_owned(), witness);
        let expected: Vec<String> =
            checks.iter().map(|check| format!("{}/{check}", printable("other\n"))).collect();
        assert_eq!(facts.checks_of_others(), expected);
    }
}
