//! The comparison of a restore with its manifest: entry by entry, in order of path, in the same memory at any size.

use std::collections::{BTreeMap, BTreeSet};

use super::{FileEntry, FileKind, FilesWitness, Link, MeasuredBy, OutsideState, shown};
use crate::finding::{Finding, FindingCode};
use crate::verdict::{CheckOutcome, CheckReport};
use crate::witness::report::Findings;

/// Name of the check of that every entry is there, and no other.
pub const ENTRIES: &str = "entries";
/// Name of the check of what kind an entry is, and where a link points.
pub const TYPES: &str = "types-and-links";
/// Name of the check of the bytes of files.
pub const CONTENT: &str = "content";
/// Name of the check of modes and times.
pub const METADATA: &str = "metadata";
const OWNERS: &str = "owners";
/// Name of the check of which names are one file.
pub const HARDLINKS: &str = "hardlinks";
const SCOPE: &str = "scope";

/// Names of the checks, in order.
pub(super) const CHECKS: [&str; 7] = [ENTRIES, TYPES, CONTENT, METADATA, OWNERS, HARDLINKS, SCOPE];

/// Findings of one check, and what only the environment is to blame for.
#[derive(Debug, Default)]
struct Column {
    wrong: Findings,
    excused: Findings,
    compared: u64,
}

impl Column {
    fn report(self, name: &str, what: &str) -> CheckReport {
        let detail = format!("{} {what} compared", self.compared);
        if self.wrong.is_empty() && !self.excused.is_empty() {
            return self.excused.conclude(name, CheckOutcome::Inconclusive, detail);
        }
        self.wrong.report(name, detail)
    }

    fn wrong(&mut self, code: FindingCode, path: &[u8], detail: impl Into<String>) {
        self.wrong.push(Finding::new(code, shown(path), detail));
    }

    fn excused(&mut self, code: FindingCode, path: &[u8], detail: impl Into<String>) {
        self.excused.push(Finding::new(code, shown(path), detail));
    }
}

#[derive(Debug, Default)]
struct Columns {
    entries: Column,
    types: Column,
    content: Column,
    metadata: Column,
    owners: Column,
    hardlinks: Column,
    filled: u64,
}

/// Compares what was found in a restore with the entries of a witness.
///
/// The caller walks both side by side in order of path, tells every entry that is on one side or on both, and then the
/// groups of hard links. Entries and groups that it never tells pass nothing: they are counted.
pub struct Comparison {
    by: MeasuredBy,
    columns: Columns,
    /// Entries of the witness that were told.
    told: u64,
    /// Files on both sides that the witness has in a group, and how many of them were told as such.
    grouped: (u64, u64),
    /// The directory that could not be listed last: nobody knows what of it is there.
    unlisted: Option<Vec<u8>>,
}

impl Comparison {
    /// Nothing compared yet.
    #[must_use]
    pub fn new(by: MeasuredBy) -> Self {
        Self { by, columns: Columns::default(), told: 0, grouped: (0, 0), unlisted: None }
    }

    /// The next path: what the witness says of it, and what was found there.
    pub fn pair(&mut self, expected: Option<&FileEntry>, found: Option<&FileEntry>) {
        let columns = &mut self.columns;
        self.told += u64::from(expected.is_some());
        columns.entries.compared += u64::from(expected.is_some() || found.is_some());
        if let (Some(FileEntry { link: Link::Group(_), .. }), Some(FileEntry { kind: FileKind::File, .. })) =
            (expected, found)
        {
            self.grouped.0 += 1;
        }
        match (expected, found) {
            (Some(one), Some(other)) => columns.pair(one, other, self.by),
            (Some(one), None) if is_within(self.unlisted.as_deref(), &one.path) => {}
            (Some(one), None) => {
                let is_device = matches!(one.kind, FileKind::CharDevice | FileKind::BlockDevice);
                if is_device && self.by.uid != 0 {
                    let detail = "a device cannot be made by this user";
                    columns.entries.excused(FindingCode::EnvPermission, &one.path, detail);
                } else {
                    let detail = format!("the {} was not restored", one.kind.word());
                    columns.entries.wrong(FindingCode::FileMissing, &one.path, detail);
                }
            }
            (None, Some(other)) => {
                let detail = format!("a {} that is not in the witness was restored", other.kind.word());
                columns.entries.wrong(FindingCode::FileMissing, &other.path, detail);
            }
            (None, None) => {}
        }
    }

    /// The next path is there and could not be read back; `expected` is what the witness says of it.
    pub fn unread(&mut self, expected: Option<&FileEntry>, path: &[u8], reason: &str) {
        self.told += u64::from(expected.is_some());
        self.excuse(path, reason);
    }

    /// The directory that was the last path to be told cannot be listed: nothing below it is known.
    pub fn unlisted(&mut self, path: &[u8], reason: &str) {
        self.excuse(path, reason);
        self.unlisted = Some(path.to_vec());
    }

    fn excuse(&mut self, path: &[u8], reason: &str) {
        let code = if self.by.uid == 0 { FindingCode::ReadFailed } else { FindingCode::EnvPermission };
        self.columns.content.excused(code, path, format!("could not be read back: {reason}"));
    }

    /// The hard links of a file: the first path of its group in the witness, and in the restore.
    ///
    /// For every file that was a pair and is in a group on either side.
    pub fn group(&mut self, path: &[u8], was: Option<&[u8]>, is: Option<&[u8]>) {
        self.grouped.1 += u64::from(was.is_some());
        if was != is {
            let words = |group: Option<&[u8]>| {
                group.map_or("on its own".to_owned(), |first| format!("a hard link of {}", shown(first)))
            };
            let detail = format!("is {}, was {}", words(is), words(was));
            self.columns.hardlinks.wrong(FindingCode::FileLinks, path, detail);
        }
    }

    /// One report for each of [`FilesWitness::checks`], in order.
    #[must_use]
    pub fn finish(self, expected: &FilesWitness) -> Vec<CheckReport> {
        let mut columns = self.columns;
        let untold = |column: &mut Column, what: &str, told: u64, all: u64| {
            if told != all {
                let detail = format!("{told} of {all} {what} of the witness were compared");
                column.excused.push(Finding::new(FindingCode::NothingChecked, "manifest", detail));
            }
        };
        for column in columns.all() {
            untold(column, "entries", self.told, expected.totals.entries);
        }
        untold(&mut columns.hardlinks, "hard links", self.grouped.1, self.grouped.0);
        let mut hardlinks = columns.hardlinks.report(HARDLINKS, "files");
        if expected.totals.sparse > 0 {
            // How much is allocated is the file system's affair (compression, block size), so it is told, not judged.
            hardlinks.detail = format!(
                "{}; {} sparse files, {} came back filled",
                hardlinks.detail, expected.totals.sparse, columns.filled
            );
        }
        vec![
            columns.entries.report(ENTRIES, "entries"),
            columns.types.report(TYPES, "types and link targets"),
            columns.content.report(CONTENT, "files"),
            columns.metadata.report(METADATA, "modes, times and attributes"),
            columns.owners.report(OWNERS, "owners"),
            hardlinks,
            scope(expected),
        ]
    }
}

fn is_within(above: Option<&[u8]>, path: &[u8]) -> bool {
    above.and_then(|above| path.strip_prefix(above)).is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
}

fn scope(expected: &FilesWitness) -> CheckReport {
    let mut column = Column::default();
    for problem in &expected.problems {
        let finding = problem.finding();
        match problem.state {
            OutsideState::Unreadable | OutsideState::Omitted => column.wrong.push(finding),
            OutsideState::Torn | OutsideState::Vanished => column.excused.push(finding),
            OutsideState::Excluded => {}
        }
    }
    for root in expected.empty_roots() {
        column.wrong.push(Finding::new(
            FindingCode::PointImplausible,
            root.as_str(),
            "holds nothing and is not declared `may_be_empty`",
        ));
    }
    let mut report = column.report(SCOPE, "");
    report.detail = format!(
        "{} roots, {} entries, {} bytes; {} left out on purpose, {} not certain",
        expected.roots.len(),
        expected.totals.entries,
        expected.totals.bytes,
        expected.left_out_count,
        expected.problem_count
    );
    report
}

impl Columns {
    fn all(&mut self) -> [&mut Column; 6] {
        [
            &mut self.entries,
            &mut self.types,
            &mut self.content,
            &mut self.metadata,
            &mut self.owners,
            &mut self.hardlinks,
        ]
    }

    fn pair(&mut self, one: &FileEntry, other: &FileEntry, by: MeasuredBy) {
        let path = &one.path;
        self.types.compared += 1;
        if one.kind != other.kind {
            let detail = format!("is a {}, was a {}", other.kind.word(), one.kind.word());
            self.types.wrong(FindingCode::FileType, path, detail);
            return;
        }
        match (&one.link, &other.link) {
            (Link::Target(was), Link::Target(is)) if was != is => {
                self.types.wrong(
                    FindingCode::FileType,
                    path,
                    format!("leads to {}, led to {}", shown(is), shown(was)),
                );
            }
            (Link::Device(was), Link::Device(is)) if was != is => {
                self.types.wrong(FindingCode::FileType, path, format!("is device {is}, was {was}"));
            }
            _ => {}
        }
        if let (Some(was), Some(is)) = (&one.content, &other.content) {
            self.content.compared += 1;
            self.hardlinks.compared += 1;
            self.filled += u64::from(one.has_holes && !other.has_holes);
            if was != is {
                let detail = if was.size == is.size {
                    format!("{} bytes, but others", is.size)
                } else {
                    format!("{} bytes, were {}", is.size, was.size)
                };
                self.content.wrong(FindingCode::FileContent, path, detail);
            }
        }
        self.metadata(one, other, by);
        self.owners.compared += 1;
        if (one.uid, one.gid) != (other.uid, other.gid) {
            let detail =
                format!("belongs to {}:{}, belonged to {}:{}", other.uid, other.gid, one.uid, one.gid);
            if by.uid == 0 {
                self.owners.wrong(FindingCode::FileMetadata, path, detail);
            } else {
                self.owners.excused(
                    FindingCode::EnvPermission,
                    path,
                    format!("{detail}; user {} may not set it", by.uid),
                );
            }
        }
    }

    fn metadata(&mut self, one: &FileEntry, other: &FileEntry, by: MeasuredBy) {
        let path = &one.path;
        let is_owner_known = (one.uid, one.gid) == (other.uid, other.gid);
        self.metadata.compared += 1;
        if one.mode != other.mode {
            let detail = format!("mode is {:o}, was {:o}", other.mode, one.mode);
            // The kernel takes set-id bits from whoever may not set the owner.
            if by.uid != 0 && !is_owner_known && one.mode & 0o1777 == other.mode & 0o1777 {
                self.metadata.excused(FindingCode::EnvPermission, path, detail);
            } else {
                self.metadata.wrong(FindingCode::FileMetadata, path, detail);
            }
        }
        if one.mtime != other.mtime {
            let time = |(seconds, nanos): (i64, u32)| format!("{seconds}.{nanos:09}");
            let detail = format!("modification time is {}, was {}", time(other.mtime), time(one.mtime));
            self.metadata.wrong(FindingCode::FileMetadata, path, detail);
        }
        if one.attributes != other.attributes {
            let was: BTreeMap<_, _> = one.attributes.iter().cloned().collect();
            let is: BTreeMap<_, _> = other.attributes.iter().cloned().collect();
            for name in was.keys().chain(is.keys()).collect::<BTreeSet<_>>() {
                if was.get(name) == is.get(name) {
                    continue;
                }
                let detail = format!("attribute {} differs or is missing", shown(name));
                let is_privileged = name.starts_with(b"security.") || name.starts_with(b"trusted.");
                if !by.keeps_attributes {
                    let detail = format!("{detail}: the file system here keeps none");
                    self.metadata.excused(FindingCode::EnvOther, path, detail);
                } else if is_privileged && by.uid != 0 {
                    self.metadata.excused(FindingCode::EnvPermission, path, detail);
                } else {
                    self.metadata.wrong(FindingCode::FileMetadata, path, detail);
                }
            }
        }
    }
}
