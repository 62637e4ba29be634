//! The truth about trees of files at one instant: one line for every entry, one digest for all of them.
//!
//! The manifest is text, so that it stays small in memory and in JSON with hundreds of thousands of entries and can be
//! read without this program. Entries stand in order of path, a directory before what it holds. Fields, separated by
//! tabs: kind, mode (octal), owner, group, modification time, size, digest, cuts, link (target of a symbolic link,
//! device number, or the first path of a group of hard links), attributes, allocation (`h` where the file has holes),
//! path. `-` stands for nothing; paths and names are escaped as in a byte string literal.
//!
//! Above the manifest stands a Merkle digest: a directory's is that of its own line and of its children's digests.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::content::{Content, CutList, hex};
use super::report::Findings;
use crate::finding::{Finding, FindingCode};
use crate::verdict::{CheckOutcome, CheckReport};

/// Most entries outside the copy that a witness names; the rest is counted.
pub const LISTED_MAX: usize = 1000;

/// Trees of files, measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesWitness {
    /// Version of this shape.
    pub version: u32,
    /// Absolute paths of the roots, escaped.
    pub roots: Vec<String>,
    /// Patterns that were left out on purpose.
    pub exclude: Vec<String>,
    /// Whether each root's file system was not left.
    pub one_file_system: bool,
    /// Whether an empty tree is healthy.
    pub may_be_empty: bool,
    /// The entries; see the module's story.
    pub manifest: String,
    /// Merkle digest over the manifest.
    pub digest: String,
    /// Sums over the manifest.
    pub totals: Totals,
    /// What the declared scope leaves out, at most [`LISTED_MAX`] of them.
    pub left_out: Vec<Outside>,
    /// All that the declared scope leaves out.
    pub left_out_count: u64,
    /// What should be in the copy, or be certain, and is not; at most [`LISTED_MAX`] of them.
    pub problems: Vec<Outside>,
    /// All of those.
    pub problem_count: u64,
    /// Who measured, where it was a restore that was measured.
    pub measured_by: Option<MeasuredBy>,
}

/// Sums over a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Entries of every kind.
    pub entries: u64,
    /// Regular files.
    pub files: u64,
    /// Directories, roots included.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Bytes of regular files, each hard link counted.
    pub bytes: u64,
    /// Regular files with holes.
    pub sparse: u64,
}

/// An entry that is not in the manifest, or not for certain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outside {
    /// Its path, escaped.
    pub path: String,
    /// Why.
    pub state: OutsideState,
    /// For people.
    pub reason: String,
}

/// Why an entry is outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutsideState {
    /// The declared scope leaves it out.
    Excluded,
    /// It could not be read.
    Unreadable,
    /// It changed while it was read.
    Torn,
    /// It was listed and then gone.
    Vanished,
    /// It was there before and after, and the archive does not know it.
    Omitted,
}

/// What the measuring user could see and set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeasuredBy {
    /// Its number; 0 may set every owner.
    pub uid: u32,
    /// Whether the place restored to keeps extended attributes.
    pub keeps_attributes: bool,
}

/// Kind of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
}

impl FileKind {
    const ALL: [(Self, &'static str); 6] = [
        (Self::File, "f"),
        (Self::Directory, "d"),
        (Self::Symlink, "l"),
        (Self::Fifo, "p"),
        (Self::CharDevice, "c"),
        (Self::BlockDevice, "b"),
    ];

    fn letter(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("?", |(_, letter)| letter)
    }

    /// For people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Symlink => "symbolic link",
            Self::Fifo => "named pipe",
            Self::CharDevice => "character device",
            Self::BlockDevice => "block device",
        }
    }
}

/// One entry, as it was seen and stored, or as it was found in a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Absolute path on the source.
    pub path: Vec<u8>,
    /// Its kind.
    pub kind: FileKind,
    /// Permission bits (`0o7777`); of a symbolic link, nothing.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time: seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// Bytes, for regular files.
    pub content: Option<Content>,
    /// Target of a symbolic link, device number, or first path of a group of hard links.
    pub link: Link,
    /// Names and SHA-256 of the values of extended attributes, in order of name.
    pub attributes: Vec<(Vec<u8>, String)>,
    /// Whether fewer bytes are allocated than the file is long.
    pub has_holes: bool,
}

/// What an entry leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// Nothing.
    None,
    /// Target of a symbolic link.
    Target(Vec<u8>),
    /// A device's number.
    Device(u64),
    /// The first path, in order, of the hard links to this file; at least two of them lie in the tree.
    Group(Vec<u8>),
}

/// Why a line is not one of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the manifest of files cannot be read")]
pub struct ManifestError {
    /// Counted from one.
    pub line: usize,
}

/// In order of path with directories before what they hold: `a`, `a/b`, `a-b`.
#[must_use]
pub fn path_order(one: &[u8], other: &[u8]) -> Ordering {
    let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    one.iter().map(key).cmp(other.iter().map(key))
}

/// Escapes a path or a name for one field of a line.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// Takes back what [`escape`] wrote.
#[must_use]
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next()? {
            b't' => b'\t',
            b'r' => b'\r',
            b'n' => b'\n',
            b'x' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            quoted @ (b'\'' | b'"' | b'\\') => quoted,
            _ => return None,
        });
    }
    Some(bytes)
}

/// A path as findings show it: readable where it is UTF-8, on one line.
fn shown(path: &[u8]) -> String {
    match std::str::from_utf8(path) {
        Ok(text) => text.escape_debug().to_string(),
        Err(_) => escape(path),
    }
}

impl FileEntry {
    /// Everything but the path, as it stands in a line.
    fn fields(&self) -> String {
        let mut line = format!(
            "{}\t{:o}\t{}\t{}\t{}.{:09}\t",
            self.kind.letter(),
            self.mode,
            self.uid,
            self.gid,
            self.mtime.0,
            self.mtime.1
        );
        let dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        match &self.content {
            Some(content) => {
                let cuts = dash(content.cuts.to_string());
                line.push_str(&format!("{}\t{}\t{cuts}\t", content.size, content.digest));
            }
            None => line.push_str("-\t-\t-\t"),
        }
        match &self.link {
            Link::None => line.push('-'),
            Link::Target(target) => line.push_str(&format!("t:{}", escape(target))),
            Link::Device(number) => line.push_str(&format!("d:{number}")),
            Link::Group(first) => line.push_str(&format!("g:{}", escape(first))),
        }
        let attributes: Vec<String> = self
            .attributes
            .iter()
            .map(|(name, digest)| {
                format!("{}={digest}", escape(name).replace('=', "\\x3d").replace(',', "\\x2c"))
            })
            .collect();
        line.push('\t');
        line.push_str(&dash(attributes.join(",")));
        line.push('\t');
        line.push(if self.has_holes { 'h' } else { '-' });
        line
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split('\t');
        let mut next = || fields.next();
        let letter = next()?;
        let kind = FileKind::ALL.iter().find(|(_, one)| *one == letter)?.0;
        let mode = u32::from_str_radix(next()?, 8).ok()?;
        let (uid, gid) = (next()?.parse().ok()?, next()?.parse().ok()?);
        let (seconds, nanos) = next()?.split_once('.')?;
        let mtime = (seconds.parse().ok()?, nanos.parse().ok()?);
        let (size, digest, cuts) = (next()?, next()?, next()?);
        let content = if size == "-" {
            None
        } else {
            let cuts: CutList = if cuts == "-" { CutList::default() } else { cuts.parse().ok()? };
            Some(Content { size: size.parse().ok()?, cuts, digest: digest.to_owned() })
        };
        let link = match next()? {
            "-" => Link::None,
            text => match text.split_once(':')? {
                ("t", target) => Link::Target(unescape(target)?),
                ("d", number) => Link::Device(number.parse().ok()?),
                ("g", first) => Link::Group(unescape(first)?),
                _ => return None,
            },
        };
        let attributes = match next()? {
            "-" => Vec::new(),
            text => text
                .split(',')
                .map(|one| {
                    one.split_once('=').and_then(|(name, digest)| Some((unescape(name)?, digest.to_owned())))
                })
                .collect::<Option<_>>()?,
        };
        let has_holes = match next()? {
            "h" => true,
            "-" => false,
            _ => return None,
        };
        let path = unescape(next()?)?;
        if fields.next().is_some() {
            return None;
        }
        Some(Self { path, kind, mode, uid, gid, mtime, content, link, attributes, has_holes })
    }
}

/// A manifest, its digest and its sums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The lines.
    pub text: String,
    /// Merkle digest.
    pub digest: String,
    /// Sums.
    pub totals: Totals,
}

impl Manifest {
    /// The manifest of these entries, in whatever order they come.
    #[must_use]
    pub fn of(mut entries: Vec<FileEntry>) -> Self {
        entries.sort_unstable_by(|one, other| path_order(&one.path, &other.path));
        let mut text = String::new();
        let mut totals = Totals::default();
        let mut merkle = Merkle::default();
        for entry in entries {
            totals.entries += 1;
            match entry.kind {
                FileKind::File => totals.files += 1,
                FileKind::Directory => totals.directories += 1,
                FileKind::Symlink => totals.symlinks += 1,
                FileKind::Fifo | FileKind::CharDevice | FileKind::BlockDevice => {}
            }
            totals.bytes += entry.content.as_ref().map_or(0, |content| content.size);
            totals.sparse += u64::from(entry.has_holes);
            let fields = entry.fields();
            merkle.push(&entry.path, entry.kind, &fields);
            text.push_str(&fields);
            text.push('\t');
            text.push_str(&escape(&entry.path));
            text.push('\n');
        }
        Self { text, digest: merkle.finish(), totals }
    }
}

/// Directories that are still open, and what is known of each.
#[derive(Default)]
struct Merkle {
    open: Vec<(Vec<u8>, Sha256)>,
    top: Sha256,
}

impl Merkle {
    fn push(&mut self, path: &[u8], kind: FileKind, fields: &str) {
        while let Some((directory, _)) = self.open.last() {
            if path.strip_prefix(directory.as_slice()).is_some_and(|rest| rest.first() == Some(&b'/')) {
                break;
            }
            self.close();
        }
        let mut own = Sha256::new();
        own.update((fields.len() as u64).to_le_bytes());
        own.update(fields);
        if kind == FileKind::Directory {
            self.open.push((path.to_vec(), own));
        } else {
            self.add(path, &own.finalize().into());
        }
    }

    fn close(&mut self) {
        if let Some((path, own)) = self.open.pop() {
            self.add(&path, &own.finalize().into());
        }
    }

    /// Adds a finished entry to its parent.
    fn add(&mut self, path: &[u8], digest: &[u8; 32]) {
        let (name, parent) = match self.open.last_mut() {
            Some((directory, parent)) => (path.get(directory.len() + 1..).unwrap_or(path), parent),
            None => (path, &mut self.top),
        };
        parent.update((name.len() as u64).to_le_bytes());
        parent.update(name);
        parent.update(digest);
    }

    fn finish(mut self) -> String {
        while !self.open.is_empty() {
            self.close();
        }
        hex(&self.top.finalize())
    }
}

const ENTRIES: &str = "entries";
const TYPES: &str = "types-and-links";
const CONTENT: &str = "content";
const METADATA: &str = "metadata";
const OWNERS: &str = "owners";
const HARDLINKS: &str = "hardlinks";
const SCOPE: &str = "scope";

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

impl FilesWitness {
    /// Names of the checks that a drill of this witness must carry out, in order.
    #[must_use]
    pub fn checks(&self) -> Vec<String> {
        [ENTRIES, TYPES, CONTENT, METADATA, OWNERS, HARDLINKS, SCOPE].map(str::to_owned).to_vec()
    }

    /// The entries, in order of path.
    pub fn entries(&self) -> impl Iterator<Item = Result<FileEntry, ManifestError>> + '_ {
        self.manifest
            .lines()
            .enumerate()
            .map(|(position, line)| FileEntry::parse(line).ok_or(ManifestError { line: position + 1 }))
    }

    /// Compares what was observed in a restore with this witness: one report for each of [`Self::checks`], in order.
    #[must_use]
    pub fn compare(&self, observed: &Self) -> Vec<CheckReport> {
        let mut columns = Columns::default();
        let by = observed.measured_by.unwrap_or(MeasuredBy { uid: 0, keeps_attributes: true });
        if let Err(error) = self.join(observed, &mut columns, by) {
            return self.undecided(&error);
        }
        for problem in &observed.problems {
            let path = unescape(&problem.path).unwrap_or_default();
            let detail = format!("could not be read back: {}", problem.reason);
            let code = if by.uid == 0 { FindingCode::ReadFailed } else { FindingCode::EnvPermission };
            columns.content.excused(code, &path, detail);
        }
        let mut hardlinks = columns.hardlinks.report(HARDLINKS, "files");
        if self.totals.sparse > 0 {
            // How much is allocated is the file system's affair (compression, block size), so it is told, not judged.
            hardlinks.detail = format!(
                "{}; {} sparse files, {} came back filled",
                hardlinks.detail, self.totals.sparse, columns.filled
            );
        }
        vec![
            columns.entries.report(ENTRIES, "entries"),
            columns.types.report(TYPES, "types and link targets"),
            columns.content.report(CONTENT, "files"),
            columns.metadata.report(METADATA, "modes, times and attributes"),
            columns.owners.report(OWNERS, "owners"),
            hardlinks,
            self.scope(),
        ]
    }

    /// Walks both manifests side by side.
    fn join(&self, observed: &Self, columns: &mut Columns, by: MeasuredBy) -> Result<(), ManifestError> {
        let mut expected = self.entries().peekable();
        let mut found = observed.entries().peekable();
        // Files that could not be read back are known to be there.
        let unread: BTreeSet<&str> = observed.problems.iter().map(|problem| problem.path.as_str()).collect();
        loop {
            let order = match (expected.peek(), found.peek()) {
                (None, None) => return Ok(()),
                (Some(Err(error)), _) | (_, Some(Err(error))) => return Err(error.clone()),
                (Some(Ok(_)), None) => Ordering::Less,
                (None, Some(Ok(_))) => Ordering::Greater,
                (Some(Ok(one)), Some(Ok(other))) => path_order(&one.path, &other.path),
            };
            let one = if order.is_le() { expected.next().transpose()? } else { None };
            let other = if order.is_ge() { found.next().transpose()? } else { None };
            columns.entries.compared += 1;
            match (one, other) {
                (Some(one), Some(other)) => columns.pair(&one, &other, by),
                (Some(one), None) if is_under(&unread, &one.path) => {}
                (Some(one), None) => {
                    let is_device = matches!(one.kind, FileKind::CharDevice | FileKind::BlockDevice);
                    if is_device && by.uid != 0 {
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
                (None, None) => return Ok(()),
            }
        }
    }

    fn scope(&self) -> CheckReport {
        let mut column = Column::default();
        for problem in &self.problems {
            let finding = problem.finding();
            match problem.state {
                OutsideState::Unreadable | OutsideState::Omitted => column.wrong.push(finding),
                OutsideState::Torn | OutsideState::Vanished => column.excused.push(finding),
                OutsideState::Excluded => {}
            }
        }
        for root in self.empty_roots() {
            column.wrong.push(Finding::new(
                FindingCode::PointImplausible,
                root.as_str(),
                "holds nothing and is not declared `may_be_empty`",
            ));
        }
        let mut report = column.report(SCOPE, "");
        report.detail = format!(
            "{} roots, {} entries, {} bytes; {} left out on purpose, {} not certain",
            self.roots.len(),
            self.totals.entries,
            self.totals.bytes,
            self.left_out_count,
            self.problem_count
        );
        report
    }

    /// Roots that hold nothing though the declaration does not allow it.
    #[must_use]
    pub fn empty_roots(&self) -> Vec<String> {
        if self.may_be_empty {
            return Vec::new();
        }
        let mut held: BTreeMap<&str, (bool, bool)> =
            self.roots.iter().map(|root| (root.as_str(), (false, false))).collect();
        for line in self.manifest.lines() {
            let kind = line.split('\t').next().unwrap_or_default();
            let path = line.rsplit('\t').next().unwrap_or_default();
            for (root, (is_there, holds)) in &mut held {
                match path.strip_prefix(root) {
                    Some("") => *is_there = kind != "d",
                    Some(rest) if rest.starts_with('/') => *holds = true,
                    Some(_) | None => {}
                }
            }
        }
        // A root that is itself a file or a link holds itself.
        held.into_iter()
            .filter(|(_, (is_there, holds))| !is_there && !holds)
            .map(|(root, _)| root.to_owned())
            .collect()
    }

    fn undecided(&self, error: &ManifestError) -> Vec<CheckReport> {
        let report = |name: String| CheckReport {
            outcome: CheckOutcome::Inconclusive,
            detail: error.to_string(),
            findings: vec![Finding::new(FindingCode::NoWitness, name.clone(), error.to_string())],
            name,
        };
        self.checks().into_iter().map(report).collect()
    }
}

impl Outside {
    /// As a finding of a backup.
    #[must_use]
    pub fn finding(&self) -> Finding {
        let path = unescape(&self.path).unwrap_or_default();
        let (code, words) = match self.state {
            OutsideState::Excluded => (FindingCode::ScopeNarrow, "left out"),
            OutsideState::Unreadable => (FindingCode::FileUnreadable, "could not be read"),
            OutsideState::Torn => (FindingCode::FileTorn, "changed while it was read"),
            OutsideState::Vanished => (FindingCode::FileTorn, "vanished while the tree was read"),
            OutsideState::Omitted => (FindingCode::FileMissing, "was passed over"),
        };
        Finding::new(code, shown(&path), format!("{words}: {}", self.reason))
    }
}

impl Columns {
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
            let group = |entry: &FileEntry| match &entry.link {
                Link::Group(first) => Some(first.clone()),
                Link::None | Link::Target(_) | Link::Device(_) => None,
            };
            let (was, is) = (group(one), group(other));
            if was != is {
                let words = |group: Option<Vec<u8>>| {
                    group.map_or("on its own".to_owned(), |first| format!("a hard link of {}", shown(&first)))
                };
                self.hardlinks.wrong(
                    FindingCode::FileLinks,
                    path,
                    format!("is {}, was {}", words(is), words(was)),
                );
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

/// Whether a path, or a directory above it, is one of these (escaped) paths.
fn is_under(paths: &BTreeSet<&str>, path: &[u8]) -> bool {
    let above = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(cut, _)| &path[..cut]);
    !paths.is_empty() && above.chain([path]).any(|path| paths.contains(escape(path).as_str()))
}

/// Adds the group of each hard-linked file of one root; beside each entry stands what identifies its inode.
///
/// Links between two roots are not groups: each root is restored by itself.
#[must_use]
pub fn with_groups(mut entries: Vec<(FileEntry, Option<(u64, u64)>)>) -> Vec<FileEntry> {
    let mut groups: BTreeMap<(u64, u64), (Vec<u8>, u64)> = BTreeMap::new();
    for (entry, inode) in &entries {
        let Some(inode) = inode else { continue };
        let group = groups.entry(*inode).or_insert_with(|| (entry.path.clone(), 0));
        group.1 += 1;
        if path_order(&entry.path, &group.0).is_lt() {
            group.0.clone_from(&entry.path);
        }
    }
    for (entry, inode) in &mut entries {
        // A file whose other links lie outside the tree is on its own.
        if let Some((first, 2..)) = inode.and_then(|inode| groups.get(&inode)) {
            entry.link = Link::Group(first.clone());
        }
    }
    entries.into_iter().map(|(entry, _)| entry).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(path: &[u8], bytes: u8) -> FileEntry {
        FileEntry {
            path: path.to_vec(),
            kind: FileKind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: (1_700_000_000, 5),
            content: Some(Content::of_pieces([(10, [bytes; 32])])),
            link: Link::None,
            attributes: vec![(b"user.a=b,c".to_vec(), "00".to_owned())],
            has_holes: false,
        }
    }

    fn directory(path: &[u8]) -> FileEntry {
        FileEntry { kind: FileKind::Directory, content: None, attributes: Vec::new(), ..file(path, 0) }
    }

    fn tree() -> Vec<FileEntry> {
        vec![
            directory(b"/srv"),
            file(b"/srv/a", 1),
            FileEntry { link: Link::Group(b"/srv/a".to_vec()), ..file(b"/srv/b\n\xff\t", 1) },
            FileEntry {
                kind: FileKind::Symlink,
                content: None,
                link: Link::Target(b"../x y".to_vec()),
                ..file(b"/srv/l", 0)
            },
            FileEntry {
                kind: FileKind::CharDevice,
                content: None,
                link: Link::Device(259),
                ..file(b"/srv/n", 0)
            },
        ]
    }

    fn witness(entries: Vec<FileEntry>) -> FilesWitness {
        let manifest = Manifest::of(entries);
        FilesWitness {
            version: 1,
            roots: vec!["/srv".to_owned()],
            exclude: Vec::new(),
            one_file_system: false,
            may_be_empty: false,
            manifest: manifest.text,
            digest: manifest.digest,
            totals: manifest.totals,
            left_out: Vec::new(),
            left_out_count: 0,
            problems: Vec::new(),
            problem_count: 0,
            measured_by: None,
        }
    }

    fn outcome(change: impl FnOnce(&mut Vec<FileEntry>), uid: u32) -> Vec<(String, CheckOutcome, String)> {
        let mut entries = tree();
        change(&mut entries);
        let mut observed = witness(entries);
        observed.measured_by = Some(MeasuredBy { uid, keeps_attributes: true });
        let expected = witness(tree());
        let reports = expected.compare(&observed);
        assert_eq!(reports.iter().map(|report| report.name.clone()).collect::<Vec<_>>(), expected.checks());
        reports
            .into_iter()
            .filter(|report| report.outcome != CheckOutcome::Passed)
            .map(|report| (report.name, report.outcome, report.findings[0].code.to_string()))
            .collect()
    }

    fn failed(name: &str, code: &str) -> Vec<(String, CheckOutcome, String)> {
        vec![(name.to_owned(), CheckOutcome::Failed, code.to_owned())]
    }

    #[test]
    fn every_difference_has_its_check_and_its_code() {
        assert_eq!(outcome(|_| {}, 0), []);
        assert_eq!(outcome(|e| drop(e.remove(1)), 0), failed(ENTRIES, "FS-01"));
        assert_eq!(outcome(|e| e.push(file(b"/srv/new", 1)), 0), failed(ENTRIES, "FS-01"));
        assert_eq!(outcome(|e| e[1] = file(b"/srv/a", 2), 0), failed(CONTENT, "FS-02"));
        assert_eq!(outcome(|e| e[1].mode = 0o600, 0), failed(METADATA, "FS-03"));
        assert_eq!(outcome(|e| e[1].mtime.1 = 6, 0), failed(METADATA, "FS-03"));
        assert_eq!(outcome(|e| e[1].attributes.clear(), 0), failed(METADATA, "FS-03"));
        assert_eq!(outcome(|e| e[1].uid = 7, 0), failed(OWNERS, "FS-03"));
        assert_eq!(outcome(|e| e[3].link = Link::Target(b"z".to_vec()), 0), failed(TYPES, "FS-04"));
        assert_eq!(outcome(|e| e[3].kind = FileKind::Fifo, 0), failed(TYPES, "FS-04"));
        assert_eq!(outcome(|e| e[4].link = Link::Device(1), 0), failed(TYPES, "FS-04"));
        assert_eq!(outcome(|e| e[2].link = Link::None, 0), failed(HARDLINKS, "FS-07"));
    }

    #[test]
    fn what_an_ordinary_user_cannot_set_is_undecided_and_never_passed() {
        let excused =
            |name: &str| vec![(name.to_owned(), CheckOutcome::Inconclusive, "ENV-PERMISSION".to_owned())];
        assert_eq!(outcome(|e| e[1].uid = 1000, 1000), excused(OWNERS));
        assert_eq!(outcome(|e| drop(e.remove(4)), 1000), excused(ENTRIES));
        assert_eq!(outcome(|e| e[1] = file(b"/srv/a", 2), 1000), failed(CONTENT, "FS-02"));
        assert_eq!(outcome(|e| drop(e.remove(1)), 1000), failed(ENTRIES, "FS-01"));
    }

    #[test]
    fn what_is_not_in_the_copy_for_certain_is_never_passed() {
        let state = |state, outcome, code: &str| {
            let mut expected = witness(tree());
            expected.problems.push(Outside {
                path: "/srv/x".to_owned(),
                state,
                reason: "because".to_owned(),
            });
            let report = expected.compare(&witness(tree())).pop().unwrap();
            assert_eq!((report.outcome, report.findings[0].code.as_str()), (outcome, code));
        };
        state(OutsideState::Unreadable, CheckOutcome::Failed, "FS-05");
        state(OutsideState::Omitted, CheckOutcome::Failed, "FS-01");
        state(OutsideState::Torn, CheckOutcome::Inconclusive, "FS-06");
        state(OutsideState::Vanished, CheckOutcome::Inconclusive, "FS-06");
    }

    #[test]
    fn an_empty_root_is_implausible_unless_declared() {
        let mut empty = witness(vec![directory(b"/srv")]);
        let report = empty.compare(&empty).pop().unwrap();
        assert_eq!((report.outcome, report.findings[0].code.as_str()), (CheckOutcome::Failed, "RP-11"));
        empty.may_be_empty = true;
        assert_eq!(empty.compare(&empty).pop().unwrap().outcome, CheckOutcome::Passed);
    }

    #[test]
    fn the_digest_knows_every_field_and_every_place() {
        let digest = |change: &dyn Fn(&mut Vec<FileEntry>)| {
            let mut entries = tree();
            change(&mut entries);
            Manifest::of(entries).digest
        };
        let plain = digest(&|_| {});
        assert_eq!(digest(&|entries| entries.reverse()), plain);
        for change in [
            &(|entries: &mut Vec<FileEntry>| entries[1].mode = 0) as &dyn Fn(&mut Vec<FileEntry>),
            &|entries| entries[1].path = b"/srv/aa".to_vec(),
            &|entries| entries[0].uid = 1,
            &|entries| drop(entries.pop()),
        ] {
            assert_ne!(digest(change), plain);
        }
    }

    #[test]
    fn directories_come_before_what_they_hold() {
        let mut paths: Vec<&[u8]> = vec![b"/a-b", b"/a/x", b"/a", b"/a/x/y", b"/a!"];
        paths.sort_by(|one, other| path_order(one, other));
        assert_eq!(paths, [&b"/a"[..], b"/a/x", b"/a/x/y", b"/a!", b"/a-b"]);
    }

    #[test]
    fn many_findings_are_counted_and_twenty_named() {
        let many =
            |bytes| witness((0..500).map(|n| file(format!("/srv/{n:03}").as_bytes(), bytes)).collect());
        let report = many(1).compare(&many(2)).swap_remove(2);
        assert_eq!(report.findings.len(), 20);
        assert!(report.detail.contains("500 findings, 20 named"), "{}", report.detail);
    }

    proptest! {
        #[test]
        fn a_line_gives_back_its_entry(
            path in proptest::collection::vec(1_u8..=255, 0..20),
            target in proptest::collection::vec(1_u8..=255, 0..20),
            name in proptest::collection::vec(1_u8..=255, 1..20),
            mtime in (any::<i64>(), 0_u32..1_000_000_000),
            mode in 0_u32..0o10000,
        ) {
            let entry = FileEntry {
                path, mtime, mode,
                kind: FileKind::Symlink,
                link: Link::Target(target),
                attributes: vec![(name, "ab".to_owned())],
                ..file(b"", 3)
            };
            let line = format!("{}\t{}", entry.fields(), escape(&entry.path));
            prop_assert!(!line.contains('\n'));
            prop_assert_eq!(FileEntry::parse(&line), Some(entry));
        }
    }
}
