//! The truth about trees of files at one instant: one line for every entry, one digest for all of them.
//!
//! The manifest is text that can be read without this program. It is a file of the copy, for no witness of millions of
//! entries fits into memory: whoever makes one, reads one or compares one does so line by line. (In version 1 it stood in
//! the witness.) Entries stand in order of path, a directory before what it holds. Fields, separated by tabs: kind, mode (octal), owner, group, modification time, size, digest, cuts, link (target of a symbolic link, device number, or the
//! first path of a group of hard links), attributes, allocation (`h` where the file has holes), path. `-` stands for
//! nothing; paths and names are escaped as in a byte string literal.
//!
//! Above the manifest stands a Merkle digest: a directory's is that of its own line and of its children's digests.

mod compare;
mod manifest;

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::content::Content;
use crate::finding::{Finding, FindingCode};

pub use compare::{CONTENT, Comparison, ENTRIES, HARDLINKS, METADATA, TYPES};
pub use manifest::{MANIFEST_PATH, ManifestBuilder, ManifestError, ManifestFacts, ManifestParser};

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
    /// Where the entries are; see the module's story.
    pub manifest: ManifestAt,
    /// Merkle digest over the manifest.
    pub digest: String,
    /// Sums over the manifest.
    pub totals: Totals,
    /// What each root is, in the order of `roots`. Not in version 1: see [`FilesWitness::held`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<RootHeld>,
    /// What the declared scope leaves out, at most [`LISTED_MAX`] of them.
    pub left_out: Vec<Outside>,
    /// All that the declared scope leaves out.
    pub left_out_count: u64,
    /// What should be in the copy, or be certain, and is not; at most [`LISTED_MAX`] of them.
    pub problems: Vec<Outside>,
    /// All of those.
    pub problem_count: u64,
}

/// Where a manifest is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ManifestAt {
    /// A file of the copy that the witness belongs to.
    File {
        /// Its path in the copy.
        path: String,
        /// Its bytes.
        size_bytes: u64,
        /// Lowercase hexadecimal SHA-256 of them, as `sha256sum` prints it.
        sha256: String,
    },
    /// In the witness itself, as in version 1.
    Text(String),
}

/// What a root is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootHeld {
    /// Its kind; `None` where it could not be read.
    pub kind: Option<FileKind>,
    /// Whether anything lies below it.
    pub has_entries: bool,
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

/// What the user who measured a restore could see and set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeasuredBy {
    /// Its number; 0 may set every owner.
    pub uid: u32,
    /// Whether the place restored to keeps extended attributes.
    pub keeps_attributes: bool,
}

/// Kind of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FileKind {
    /// Regular file.
    #[serde(rename = "f")]
    File,
    /// Directory.
    #[serde(rename = "d")]
    Directory,
    /// Symbolic link.
    #[serde(rename = "l")]
    Symlink,
    /// Named pipe.
    #[serde(rename = "p")]
    Fifo,
    /// Character device.
    #[serde(rename = "c")]
    CharDevice,
    /// Block device.
    #[serde(rename = "b")]
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

impl FilesWitness {
    /// Names of the checks that a drill of this witness must carry out, in order.
    #[must_use]
    pub fn checks(&self) -> Vec<String> {
        compare::CHECKS.map(str::to_owned).to_vec()
    }

    /// What each root is, in the order of `roots`; of version 1, as its text says.
    #[must_use]
    pub fn held(&self) -> Vec<RootHeld> {
        match &self.manifest {
            ManifestAt::Text(text) if self.held.is_empty() => manifest::held_by_text(&self.roots, text),
            ManifestAt::Text(_) | ManifestAt::File { .. } => self.held.clone(),
        }
    }

    /// Roots that hold nothing though the declaration does not allow it.
    #[must_use]
    pub fn empty_roots(&self) -> Vec<String> {
        if self.may_be_empty {
            return Vec::new();
        }
        // A root that is itself a file or a link holds itself.
        let holds =
            |held: &RootHeld| held.has_entries || held.kind.is_some_and(|kind| kind != FileKind::Directory);
        let held = self.held();
        let of =
            |number: usize| held.get(number).copied().unwrap_or(RootHeld { kind: None, has_entries: false });
        self.roots
            .iter()
            .enumerate()
            .filter(|(number, _)| !holds(&of(*number)))
            .map(|(_, root)| root.clone())
            .collect()
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::verdict::{CheckOutcome, CheckReport};

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

    /// The manifest of these entries, in whatever order they come, and its facts.
    fn manifest(mut entries: Vec<FileEntry>) -> (String, ManifestFacts) {
        entries.sort_by(|one, other| path_order(&one.path, &other.path));
        let mut builder = ManifestBuilder::new([b"/srv".to_vec()]);
        let text = entries.iter().map(|entry| builder.push(entry).unwrap()).collect();
        (text, builder.finish())
    }

    fn witness(entries: Vec<FileEntry>) -> FilesWitness {
        let (_, facts) = manifest(entries);
        FilesWitness {
            version: 2,
            roots: vec!["/srv".to_owned()],
            exclude: Vec::new(),
            one_file_system: false,
            may_be_empty: false,
            manifest: facts.at(MANIFEST_PATH),
            digest: facts.digest,
            totals: facts.totals,
            held: facts.held,
            left_out: Vec::new(),
            left_out_count: 0,
            problems: Vec::new(),
            problem_count: 0,
        }
    }

    fn group(entry: &FileEntry) -> Option<&[u8]> {
        match &entry.link {
            Link::Group(first) => Some(first),
            Link::None | Link::Target(_) | Link::Device(_) => None,
        }
    }

    /// Compares entries with what the witness of others says, as whoever reads both side by side does.
    fn compare(
        witness: &FilesWitness,
        expected: Vec<FileEntry>,
        found: Vec<FileEntry>,
        uid: u32,
    ) -> Vec<CheckReport> {
        let mut comparison = Comparison::new(MeasuredBy { uid, keeps_attributes: true });
        let sides = |entries: Vec<FileEntry>| -> std::collections::BTreeMap<Vec<u8>, FileEntry> {
            let key = |path: &[u8]| path.iter().map(|byte| if *byte == b'/' { 0 } else { *byte }).collect();
            entries.into_iter().map(|entry| (key(&entry.path), entry)).collect()
        };
        let (expected, found) = (sides(expected), sides(found));
        for path in expected.keys().chain(found.keys()).collect::<std::collections::BTreeSet<_>>() {
            let (one, other) = (expected.get(path), found.get(path));
            comparison.pair(one, other);
            if let (Some(one), Some(other)) = (one, other)
                && one.kind == other.kind
            {
                comparison.group(&one.path, group(one), group(other));
            }
        }
        comparison.finish(witness)
    }

    fn outcome(change: impl FnOnce(&mut Vec<FileEntry>), uid: u32) -> Vec<(String, CheckOutcome, String)> {
        let mut entries = tree();
        change(&mut entries);
        let expected = witness(tree());
        let reports = compare(&expected, tree(), entries, uid);
        assert_eq!(reports.iter().map(|report| report.name.clone()).collect::<Vec<_>>(), expected.checks());
        reports
            .into_iter()
            .filter(|report| report.outcome != CheckOutcome::Passed)
            .map(|report| (report.name, report.outcome, report.findings[0].code.to_string()))
            .collect()
    }

    const ENTRIES: &str = "entries";
    const TYPES: &str = "types-and-links";
    const CONTENT: &str = "content";
    const METADATA: &str = "metadata";
    const OWNERS: &str = "owners";
    const HARDLINKS: &str = "hardlinks";

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
            let report = compare(&expected, tree(), tree(), 0).pop().unwrap();
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
        let scope = |empty: &FilesWitness| {
            let entries = vec![directory(b"/srv")];
            compare(empty, entries.clone(), entries, 0).pop().unwrap()
        };
        let report = scope(&empty);
        assert_eq!((report.outcome, report.findings[0].code.as_str()), (CheckOutcome::Failed, "RP-11"));
        empty.may_be_empty = true;
        assert_eq!(scope(&empty).outcome, CheckOutcome::Passed);
        // A root that is a file holds itself; one that could not be read holds nothing.
        assert_eq!(witness(vec![file(b"/srv", 1)]).empty_roots(), Vec::<String>::new());
        assert_eq!(witness(Vec::new()).empty_roots(), ["/srv"]);
    }

    #[test]
    fn what_was_never_told_passes_nothing() {
        let expected = witness(tree());
        let nothing = Comparison::new(MeasuredBy { uid: 0, keeps_attributes: true }).finish(&expected);
        for report in nothing.iter().filter(|report| report.name != "scope") {
            assert_eq!(report.outcome, CheckOutcome::Inconclusive, "{report:?}");
        }
        let mut entries = tree();
        entries.sort_by(|one, other| path_order(&one.path, &other.path));
        let mut without_groups = Comparison::new(MeasuredBy { uid: 0, keeps_attributes: true });
        entries.iter().for_each(|entry| without_groups.pair(Some(entry), Some(entry)));
        let reports = without_groups.finish(&expected);
        let open: Vec<_> =
            reports.iter().filter(|report| report.outcome != CheckOutcome::Passed).map(|r| &r.name).collect();
        assert_eq!(open, [HARDLINKS]);
    }

    #[test]
    fn what_could_not_be_read_back_is_there_and_undecided() {
        let expected =
            witness(vec![directory(b"/srv"), directory(b"/srv/d"), file(b"/srv/d/x", 1), file(b"/srv/e", 1)]);
        let (above, inside, beside) = (directory(b"/srv/d"), file(b"/srv/d/x", 1), file(b"/srv/e", 1));
        let mut comparison = Comparison::new(MeasuredBy { uid: 0, keeps_attributes: true });
        comparison.pair(Some(&directory(b"/srv")), Some(&directory(b"/srv")));
        comparison.pair(Some(&above), Some(&above));
        comparison.unlisted(b"/srv/d", "permission denied");
        comparison.pair(Some(&inside), None);
        comparison.unread(Some(&beside), b"/srv/e", "input/output error");
        let reports = comparison.finish(&expected);
        assert_eq!(reports[0].outcome, CheckOutcome::Passed, "{:?}", reports[0]);
        assert_eq!((reports[2].outcome, reports[2].findings.len()), (CheckOutcome::Inconclusive, 2));
    }

    /// Reads the lines of a manifest; what whoever wrote it knows decides whether it is the one.
    fn read(text: &str, witness: &FilesWitness) -> Result<Vec<FileEntry>, ManifestError> {
        let mut parser = ManifestParser::default();
        let entries =
            text.split_inclusive('\n').map(|line| parser.line(line.as_bytes())).collect::<Result<_, _>>()?;
        parser.finish(witness)?;
        Ok(entries)
    }

    #[test]
    fn a_manifest_that_is_not_the_one_is_not_believed() {
        let (text, _) = manifest(tree());
        let expected = witness(tree());
        assert_eq!(read(&text, &expected).unwrap().len(), 5);
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let without = |number: usize| {
            let mut lines = lines.clone();
            lines.remove(number);
            lines.concat()
        };
        for number in 0..lines.len() {
            assert!(read(&without(number), &expected).is_err(), "line {number} is missing");
        }
        let mut swapped = lines.clone();
        swapped.swap(1, 3);
        assert_eq!(read(&swapped.concat(), &expected), Err(ManifestError::Order { line: 3 }));
        assert_eq!(
            read(&text.replacen("644", "600", 1), &expected),
            Err(ManifestError::Other { what: "SHA-256" })
        );
        assert_eq!(read("nonsense\n", &expected), Err(ManifestError::Line { line: 1 }));
        assert_eq!(read(text.trim_end(), &expected), Err(ManifestError::Line { line: 5 }));
    }

    #[test]
    fn a_witness_of_version_1_is_still_read() {
        let (text, facts) = manifest(tree());
        let json = serde_json::json!({
            "version": 1, "roots": ["/srv"], "exclude": [], "one_file_system": false, "may_be_empty": false,
            "manifest": text, "digest": facts.digest, "totals": facts.totals, "left_out": [], "left_out_count": 0,
            "problems": [], "problem_count": 0, "measured_by": null,
        });
        let old: FilesWitness = serde_json::from_value(json).unwrap();
        assert_eq!(old.manifest, ManifestAt::Text(text.clone()));
        assert_eq!(old.held(), witness(tree()).held);
        assert_eq!(old.empty_roots(), Vec::<String>::new());
        assert_eq!(read(&text, &old).unwrap().len(), 5);
        assert_eq!(
            read(&text.replacen("644", "600", 1), &old),
            Err(ManifestError::Other { what: "Merkle digest" })
        );
        let (text, facts) = manifest(vec![directory(b"/srv")]);
        let hollow = FilesWitness { manifest: ManifestAt::Text(text), digest: facts.digest, ..old };
        assert_eq!(hollow.empty_roots(), ["/srv"]);
    }

    #[test]
    fn the_digest_knows_every_field_and_every_place() {
        let digest = |change: &dyn Fn(&mut Vec<FileEntry>)| {
            let mut entries = tree();
            change(&mut entries);
            manifest(entries).1.digest
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
        let many = |bytes| -> Vec<FileEntry> {
            (0..500).map(|n| file(format!("/srv/{n:03}").as_bytes(), bytes)).collect()
        };
        let report = compare(&witness(many(1)), many(1), many(2), 0).swap_remove(2);
        assert_eq!(report.findings.len(), 20);
        assert!(report.detail.contains("500 findings, 20 named"), "{}", report.detail);
    }

    /// What every check says, and what it found, of a restore that was changed so.
    fn told(change: impl FnOnce(&mut Vec<FileEntry>), by: MeasuredBy) -> Vec<String> {
        let mut entries = tree();
        change(&mut entries);
        let expected = witness(tree());
        let mut comparison = Comparison::new(by);
        let (mut one, mut other) = (tree().into_iter().peekable(), entries.into_iter().peekable());
        loop {
            let order = match (one.peek(), other.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(one), Some(other)) => path_order(&one.path, &other.path),
            };
            let was = if order.is_le() { one.next() } else { None };
            let is = if order.is_ge() { other.next() } else { None };
            comparison.pair(was.as_ref(), is.as_ref());
            if let (Some(was), Some(is)) = (&was, &is)
                && was.kind == is.kind
            {
                comparison.group(&was.path, group(was), group(is));
            }
        }
        crate::witness::report::told(comparison.finish(&expected))
    }

    #[test]
    fn a_difference_is_told_with_what_is_and_what_was() {
        let root = MeasuredBy { uid: 0, keeps_attributes: true };
        let user = MeasuredBy { uid: 1000, keeps_attributes: true };
        let of = |change: fn(&mut Vec<FileEntry>), by| told(change, by).join("; ");
        type Change = fn(&mut Vec<FileEntry>);
        let cases: [(Change, MeasuredBy, &str); 24] = [
            (|e| drop(e.remove(3)), root, "entries Failed FS-01 /srv/l: the symbolic link was not restored"),
            (
                |e| drop(e.remove(4)),
                root,
                "entries Failed FS-01 /srv/n: the character device was not restored",
            ),
            (
                |e| drop(e.remove(4)),
                user,
                "entries Inconclusive ENV-PERMISSION /srv/n: a device cannot be made by this user",
            ),
            (
                |e| e.push(FileEntry { kind: FileKind::Fifo, content: None, ..file(b"/srv/x", 0) }),
                root,
                "entries Failed FS-01 /srv/x: a named pipe that is not in the witness was restored",
            ),
            (
                |e| e.push(FileEntry { kind: FileKind::BlockDevice, content: None, ..file(b"/srv/x", 0) }),
                user,
                "entries Failed FS-01 /srv/x: a block device that is not in the witness was restored",
            ),
            (
                |e| e[1] = directory(b"/srv/a"),
                root,
                "types-and-links Failed FS-04 /srv/a: is a directory, was a file",
            ),
            (
                |e| e[3].link = Link::Target(b"z\n".to_vec()),
                root,
                "types-and-links Failed FS-04 /srv/l: leads to z\\n, led to ../x y",
            ),
            (
                |e| e[4].link = Link::Device(1),
                root,
                "types-and-links Failed FS-04 /srv/n: is device 1, was 259",
            ),
            (|e| e[1] = file(b"/srv/a", 2), root, "content Failed FS-02 /srv/a: 10 bytes, but others"),
            (
                |e| e[1].content = Some(Content::of_pieces([(11, [1; 32])])),
                root,
                "content Failed FS-02 /srv/a: 11 bytes, were 10",
            ),
            (|e| e[1].mode = 0o4755, root, "metadata Failed FS-03 /srv/a: mode is 4755, was 644"),
            (
                |e| e[1].mtime = (-1, 7),
                root,
                "metadata Failed FS-03 /srv/a: modification time is -1.000000007, was 1700000000.000000005",
            ),
            (
                |e| e[1].attributes[0].1 = "01".to_owned(),
                root,
                "metadata Failed FS-03 /srv/a: attribute user.a=b,c differs or is missing",
            ),
            (
                |e| e[1].attributes.push((b"user.z".to_vec(), "02".to_owned())),
                user,
                "metadata Failed FS-03 /srv/a: attribute user.z differs or is missing",
            ),
            (
                |e| e[1].attributes.push((b"security.x".to_vec(), "02".to_owned())),
                user,
                "metadata Inconclusive ENV-PERMISSION /srv/a: attribute security.x differs or is missing",
            ),
            (
                |e| e[1].attributes.push((b"trusted.x".to_vec(), "02".to_owned())),
                user,
                "metadata Inconclusive ENV-PERMISSION /srv/a: attribute trusted.x differs or is missing",
            ),
            (
                |e| e[1].attributes.push((b"trusted.x".to_vec(), "02".to_owned())),
                root,
                "metadata Failed FS-03 /srv/a: attribute trusted.x differs or is missing",
            ),
            (
                |e| e[1].attributes.clear(),
                MeasuredBy { uid: 0, keeps_attributes: false },
                "metadata Inconclusive ENV-OTHER /srv/a: attribute user.a=b,c differs or is missing: the file system here keeps none",
            ),
            (|e| e[1].gid = 7, root, "owners Failed FS-03 /srv/a: belongs to 0:7, belonged to 0:0"),
            (
                |e| e[1].uid = 7,
                user,
                "owners Inconclusive ENV-PERMISSION /srv/a: belongs to 7:0, belonged to 0:0; user 1000 may not set it",
            ),
            // Set-id bits go with the owner; others do not.
            (
                |e| (e[1].uid, e[1].mode) = (7, 0o6644),
                user,
                "metadata Inconclusive ENV-PERMISSION /srv/a: mode is 6644, was 644; \
                 owners Inconclusive ENV-PERMISSION /srv/a: belongs to 7:0, belonged to 0:0; user 1000 may not set it",
            ),
            (
                |e| (e[1].gid, e[1].mode) = (7, 0o1644),
                user,
                "metadata Failed FS-03 /srv/a: mode is 1644, was 644; \
                 owners Inconclusive ENV-PERMISSION /srv/a: belongs to 0:7, belonged to 0:0; user 1000 may not set it",
            ),
            (|e| e[1].mode = 0o4644, user, "metadata Failed FS-03 /srv/a: mode is 4644, was 644"),
            (
                |e| e[2].link = Link::None,
                root,
                "hardlinks Failed FS-07 /srv/b\\n\\xff\\t: is on its own, was a hard link of /srv/a",
            ),
        ];
        for (change, by, expected) in cases {
            assert_eq!(of(change, by), expected);
        }
    }

    #[test]
    fn what_was_compared_is_counted() {
        let mut entries = tree();
        entries[1].has_holes = true;
        let expected = witness(entries.clone());
        let mut filled = entries.clone();
        filled[1].has_holes = false;
        let details = |found: Vec<FileEntry>| -> Vec<String> {
            compare(&expected, entries.clone(), found, 0).into_iter().map(|report| report.detail).collect()
        };
        let expected_details = [
            "5 entries compared",
            "5 types and link targets compared",
            "2 files compared",
            "5 modes, times and attributes compared",
            "5 owners compared",
            "2 files compared; 1 sparse files, 0 came back filled",
            "1 roots, 5 entries, 20 bytes; 0 left out on purpose, 0 not certain",
        ];
        assert_eq!(details(entries.clone()), expected_details);
        assert_eq!(details(filled)[5], "2 files compared; 1 sparse files, 1 came back filled");
        let mut denser = entries.clone();
        denser[2].has_holes = true;
        assert_eq!(details(denser)[5], "2 files compared; 1 sparse files, 0 came back filled");
        let totals = Totals { entries: 5, files: 2, directories: 1, symlinks: 1, bytes: 20, sparse: 1 };
        assert_eq!(expected.totals, totals);
    }

    #[test]
    fn what_could_not_be_read_back_is_blamed_on_whoever_read_it() {
        let told = |uid: u32| {
            let mut comparison = Comparison::new(MeasuredBy { uid, keeps_attributes: true });
            comparison.unread(Some(&file(b"/srv", 1)), b"/srv", "input/output error");
            comparison.finish(&witness(vec![file(b"/srv", 1)])).swap_remove(2).findings[0].to_string()
        };
        assert_eq!(told(0), "IO-READ /srv: could not be read back: input/output error");
        assert_eq!(told(7), "ENV-PERMISSION /srv: could not be read back: input/output error");
    }

    #[test]
    fn only_what_lies_below_a_directory_that_could_not_be_listed_is_excused() {
        let names: [&[u8]; 4] = [b"/srv/d", b"/srv/d/x", b"/srv/d-x", b"/srv/dx"];
        let mut entries: Vec<FileEntry> = vec![directory(b"/srv")];
        entries.extend(names.iter().map(|name| file(name, 1)));
        entries[1] = directory(b"/srv/d");
        let expected = witness(entries.clone());
        let mut comparison = Comparison::new(MeasuredBy { uid: 0, keeps_attributes: true });
        comparison.pair(Some(&entries[0]), Some(&entries[0]));
        comparison.pair(Some(&entries[1]), Some(&entries[1]));
        comparison.unlisted(b"/srv/d", "permission denied");
        for entry in &entries[2..] {
            comparison.pair(Some(entry), None);
        }
        let missing: Vec<String> = comparison
            .finish(&expected)
            .swap_remove(0)
            .findings
            .into_iter()
            .map(|finding| finding.subject)
            .collect();
        assert_eq!(missing, ["/srv/d-x", "/srv/dx"]);
    }

    #[test]
    fn an_entry_outside_the_copy_is_told_under_the_code_of_why() {
        let told = |state| {
            let outside = Outside { path: "/srv/\\xff".to_owned(), state, reason: "because".to_owned() };
            outside.finding().to_string()
        };
        assert_eq!(told(OutsideState::Excluded), "CT-19 /srv/\\xff: left out: because");
        assert_eq!(told(OutsideState::Unreadable), "FS-05 /srv/\\xff: could not be read: because");
        assert_eq!(told(OutsideState::Torn), "FS-06 /srv/\\xff: changed while it was read: because");
        assert_eq!(
            told(OutsideState::Vanished),
            "FS-06 /srv/\\xff: vanished while the tree was read: because"
        );
        assert_eq!(told(OutsideState::Omitted), "FS-01 /srv/\\xff: was passed over: because");
    }

    #[test]
    fn every_kind_has_a_letter_and_a_word_of_its_own() {
        let words: Vec<(&str, &str)> =
            FileKind::ALL.iter().map(|(kind, _)| (kind.letter(), kind.word())).collect();
        let expected = [
            ("f", "file"),
            ("d", "directory"),
            ("l", "symbolic link"),
            ("p", "named pipe"),
            ("c", "character device"),
            ("b", "block device"),
        ];
        assert_eq!(words, expected);
    }

    #[test]
    fn a_root_is_not_confused_with_what_only_begins_like_it() {
        let mut builder = ManifestBuilder::new([b"/srv".to_vec(), b"/sr".to_vec()]);
        for entry in [directory(b"/srv"), file(b"/srv2", 1)] {
            builder.push(&entry).unwrap();
        }
        let held = builder.finish().held;
        let nothing = RootHeld { kind: None, has_entries: false };
        assert_eq!(held, [RootHeld { kind: Some(FileKind::Directory), has_entries: false }, nothing]);
        // Of a witness that knows what its roots hold, that is believed, wherever its manifest stands.
        let (text, facts) = manifest(tree());
        let known = FilesWitness { manifest: ManifestAt::Text(text), held: vec![nothing], ..witness(tree()) };
        assert_eq!(known.held(), [nothing]);
        assert_eq!(known.empty_roots(), ["/srv"]);
        assert_eq!(facts.held, [RootHeld { kind: Some(FileKind::Directory), has_entries: true }]);
        let old = ["/srv", "/sr"].map(str::to_owned);
        let line = |entry: FileEntry| entry.line() + "\n";
        let text = line(directory(b"/srv")) + &line(file(b"/srv2", 1));
        assert_eq!(manifest::held_by_text(&old, &text)[1], nothing);
        assert!(!manifest::held_by_text(&old, &text)[0].has_entries);
    }

    #[test]
    fn a_line_that_is_almost_an_entry_is_none() {
        let line = file(b"/srv/a", 1).line();
        assert!(FileEntry::parse(&line).is_some());
        let fields: Vec<&str> = line.split('\t').collect();
        for (at, wrong) in [
            (0, "q"),
            (1, "9"),
            (2, "-1"),
            (3, "x"),
            (4, "5"),
            (4, "a.5"),
            (4, "5.a"),
            (5, "x"),
            (7, "x"),
            (8, "x"),
            (8, "q:x"),
            (8, "d:x"),
            (8, "t:\\q"),
            (9, "x"),
            (9, "\\q=00"),
            (10, "x"),
            (11, "\\x4"),
        ] {
            let mut fields = fields.clone();
            fields[at] = wrong;
            assert_eq!(FileEntry::parse(&fields.join("\t")), None, "field {at}: {wrong}");
        }
        assert_eq!(FileEntry::parse(&fields[..11].join("\t")), None);
        assert_eq!(FileEntry::parse(&format!("{line}\tmore")), None);
        assert_eq!(fields.len(), 12);
    }

    #[test]
    fn a_line_of_a_manifest_is_what_the_format_says() {
        let mut entry = file(b"/srv/a b\n", 1);
        entry.content = Some(Content::of_pieces([(10, [1; 32]), (10, [2; 32]), (3, [3; 32])]));
        entry.has_holes = true;
        let digest = entry.content.as_ref().unwrap().digest.clone();
        assert_eq!(
            entry.line(),
            format!(
                "f\t644\t0\t0\t1700000000.000000005\t23\t{digest}\t10*2,3\t-\tuser.a\\x3db\\x2cc=00\th\t/srv/a b\\n"
            )
        );
        assert_eq!(FileEntry::parse(&entry.line()), Some(entry));
        let device = FileEntry {
            kind: FileKind::BlockDevice,
            content: None,
            link: Link::Device(7),
            ..directory(b"/d")
        };
        assert_eq!(device.line(), "b\t644\t0\t0\t1700000000.000000005\t-\t-\t-\td:7\t-\t-\t/d");
        assert_eq!(FileEntry::parse(&device.line()), Some(device));
        let linked = FileEntry { link: Link::Group(b"/a".to_vec()), ..file(b"/b", 1) };
        assert_eq!(FileEntry::parse(&linked.line()), Some(linked));
    }

    #[test]
    fn the_digest_is_a_tree_of_names_and_lines() {
        let hash = |parts: &[&[u8]]| -> [u8; 32] {
            let mut hash = sha2::Sha256::default();
            parts.iter().for_each(|part| sha2::Digest::update(&mut hash, part));
            sha2::Digest::finalize(hash).into()
        };
        let length = |bytes: &[u8]| (bytes.len() as u64).to_le_bytes();
        let own = |entry: &FileEntry| {
            let line = entry.line();
            line.rsplit_once('\t').unwrap().0.to_owned()
        };
        let (above, inner, deep, last) =
            (directory(b"/srv"), directory(b"/srv/d"), file(b"/srv/d/x", 1), file(b"/srv/e", 2));
        let leaf = |entry: &FileEntry| hash(&[&length(own(entry).as_bytes()), own(entry).as_bytes()]);
        let child = |name: &[u8], digest: [u8; 32]| [&length(name)[..], name, &digest[..]].concat();
        let inner_digest =
            hash(&[&length(own(&inner).as_bytes()), own(&inner).as_bytes(), &child(b"x", leaf(&deep))]);
        let above_digest = hash(&[
            &length(own(&above).as_bytes()),
            own(&above).as_bytes(),
            &child(b"d", inner_digest),
            &child(b"e", leaf(&last)),
        ]);
        let top = hash(&[&child(b"/srv", above_digest)]);
        let (text, facts) = manifest(vec![above, inner, deep, last]);
        assert_eq!(facts.digest, super::super::content::hex(&top));
        assert_eq!(facts.size_bytes, text.len() as u64);
        assert_eq!(facts.sha256, super::super::content::hex(&hash(&[text.as_bytes()])));
    }

    #[test]
    fn a_manifest_of_another_size_is_told_apart_from_one_of_other_bytes() {
        let (text, facts) = manifest(tree());
        let expected = witness(tree());
        let ManifestAt::File { size_bytes, sha256, path } = facts.at(MANIFEST_PATH) else { unreachable!() };
        let with = |size_bytes: u64, sha256: &str, digest: &str| {
            let manifest = ManifestAt::File { path: path.clone(), size_bytes, sha256: sha256.to_owned() };
            let told = FilesWitness { manifest, digest: digest.to_owned(), ..expected.clone() };
            read(&text, &told).map(|entries| entries.len())
        };
        let other = |what| Err(ManifestError::Other { what });
        assert_eq!(with(size_bytes, &sha256, &facts.digest), Ok(5));
        assert_eq!(with(size_bytes + 1, &sha256, &facts.digest), other("size"));
        assert_eq!(with(size_bytes, &facts.digest, &facts.digest), other("SHA-256"));
        assert_eq!(with(size_bytes, &sha256, &sha256), other("Merkle digest"));
        // Two roots may name one place.
        let mut parser = ManifestParser::default();
        let line = directory(b"/srv").line() + "\n";
        assert!(parser.line(line.as_bytes()).is_ok() && parser.line(line.as_bytes()).is_ok());
        assert_eq!(parser.line(b"/"), Err(ManifestError::Line { line: 3 }));
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
            let line = entry.line();
            prop_assert!(!line.contains('\n'));
            prop_assert_eq!(FileEntry::parse(&line), Some(entry));
        }
    }
}
