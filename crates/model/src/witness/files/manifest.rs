//! The manifest's lines, made and read one at a time, and the digests above them.
//!
//! Nothing here holds more than the directories that are open: a tree of any size is measured in the same memory.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    FileEntry, FileKind, FilesWitness, Link, ManifestAt, RootHeld, Totals, escape, path_order, unescape,
};
use crate::witness::content::{Content, CutList, hex};

/// Where the manifest lies in every copy of files.
pub const MANIFEST_PATH: &str = ".seaworthy/manifest.tsv";

/// Why a manifest is not the one that a witness names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// A line that says nothing.
    #[error("line {line} of the manifest of files cannot be read")]
    Line {
        /// Counted from one.
        line: u64,
    },
    /// An entry that stands before one that it should follow.
    #[error("entry {line} of the manifest of files is out of order")]
    Order {
        /// Counted from one.
        line: u64,
    },
    /// Every line can be read, and they are not those that were written.
    #[error("the manifest of files is not the one that its witness was taken with: {what} differs")]
    Other {
        /// `size`, `SHA-256`, `Merkle digest`.
        what: &'static str,
    },
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

    /// The entry as its line in a manifest says it, without the line's end; [`FileEntry::parse`] takes it back.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{}\t{}", self.fields(), escape(&self.path))
    }

    /// The entry of a line; `None` where it is none.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
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

/// What is known of a manifest when its last line has been made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFacts {
    /// Its bytes.
    pub size_bytes: u64,
    /// Lowercase hexadecimal SHA-256 of them.
    pub sha256: String,
    /// Merkle digest.
    pub digest: String,
    /// Sums.
    pub totals: Totals,
    /// What each root is, in the order in which they were given.
    pub held: Vec<RootHeld>,
}

impl ManifestFacts {
    /// Where the manifest is, once it lies in a copy.
    #[must_use]
    pub fn at(&self, path: impl Into<String>) -> ManifestAt {
        ManifestAt::File { path: path.into(), size_bytes: self.size_bytes, sha256: self.sha256.clone() }
    }
}

/// Makes a manifest of entries that come in order of path.
pub struct ManifestBuilder {
    chain: Chain,
    totals: Totals,
    roots: Vec<(Vec<u8>, RootHeld)>,
}

impl ManifestBuilder {
    /// A manifest without entries, of trees with these roots (absolute paths, not escaped).
    #[must_use]
    pub fn new(roots: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let nothing = RootHeld { kind: None, has_entries: false };
        let roots = roots.into_iter().map(|root| (root, nothing)).collect();
        Self { chain: Chain::default(), totals: Totals::default(), roots }
    }

    /// The line of the next entry, with its end; refuses one that does not follow the last.
    pub fn push(&mut self, entry: &FileEntry) -> Result<String, ManifestError> {
        self.totals.entries += 1;
        match entry.kind {
            FileKind::File => self.totals.files += 1,
            FileKind::Directory => self.totals.directories += 1,
            FileKind::Symlink => self.totals.symlinks += 1,
            FileKind::Fifo | FileKind::CharDevice | FileKind::BlockDevice => {}
        }
        self.totals.bytes += entry.content.as_ref().map_or(0, |content| content.size);
        self.totals.sparse += u64::from(entry.has_holes);
        for (root, held) in &mut self.roots {
            match entry.path.strip_prefix(root.as_slice()) {
                Some([]) => held.kind = Some(entry.kind),
                Some([b'/', ..]) => held.has_entries = true,
                Some(_) | None => {}
            }
        }
        let fields = entry.fields();
        let line = format!("{fields}\t{}\n", escape(&entry.path));
        self.chain.push(entry, &fields, line.as_bytes())?;
        Ok(line)
    }

    /// What there is to know of the lines that were made.
    #[must_use]
    pub fn finish(self) -> ManifestFacts {
        let (size_bytes, sha256, digest) = self.chain.finish();
        let held = self.roots.into_iter().map(|(_, held)| held).collect();
        ManifestFacts { size_bytes, sha256, digest, totals: self.totals, held }
    }
}

/// Reads a manifest line by line. What was read is to be believed only after [`ManifestParser::finish`].
#[derive(Default)]
pub struct ManifestParser {
    chain: Chain,
}

impl ManifestParser {
    /// The entry of the next line, which is given with its end; one without was cut.
    pub fn line(&mut self, line: &[u8]) -> Result<FileEntry, ManifestError> {
        let unreadable = ManifestError::Line { line: self.chain.entries + 1 };
        let text = line.strip_suffix(b"\n").and_then(|text| std::str::from_utf8(text).ok());
        let text = text.ok_or_else(|| unreadable.clone())?;
        let entry = FileEntry::parse(text).ok_or_else(|| unreadable.clone())?;
        let (fields, _) = text.rsplit_once('\t').ok_or(unreadable)?;
        self.chain.push(&entry, fields, line)?;
        Ok(entry)
    }

    /// Whether these were all the lines of the manifest that `witness` names, and no others.
    pub fn finish(self, witness: &FilesWitness) -> Result<(), ManifestError> {
        let other = |what| Err(ManifestError::Other { what });
        let (size, sum, digest) = self.chain.finish();
        if let ManifestAt::File { size_bytes, sha256, .. } = &witness.manifest {
            if size != *size_bytes {
                return other("size");
            }
            if sum != *sha256 {
                return other("SHA-256");
            }
        }
        if digest == witness.digest { Ok(()) } else { other("Merkle digest") }
    }
}

/// The digests over lines in order.
#[derive(Default)]
struct Chain {
    merkle: Merkle,
    text: Sha256,
    size_bytes: u64,
    entries: u64,
    last: Option<Vec<u8>>,
}

impl Chain {
    fn push(&mut self, entry: &FileEntry, fields: &str, line: &[u8]) -> Result<(), ManifestError> {
        self.entries += 1;
        // Two roots may name one place: where one lies in the other, on another file system.
        if self.last.as_ref().is_some_and(|last| path_order(last, &entry.path).is_gt()) {
            return Err(ManifestError::Order { line: self.entries });
        }
        self.text.update(line);
        self.size_bytes += line.len() as u64;
        self.merkle.push(&entry.path, entry.kind, fields);
        self.last = Some(entry.path.clone());
        Ok(())
    }

    fn finish(self) -> (u64, String, String) {
        (self.size_bytes, hex(&self.text.finalize()), self.merkle.finish())
    }
}

/// What the roots of a witness of version 1 are.
pub(super) fn held_by_text(roots: &[String], text: &str) -> Vec<RootHeld> {
    let mut held = vec![RootHeld { kind: None, has_entries: false }; roots.len()];
    for line in text.lines() {
        let path = line.rsplit('\t').next().unwrap_or_default();
        for (root, held) in roots.iter().zip(&mut held) {
            match path.strip_prefix(root.as_str()) {
                Some("") => held.kind = FileEntry::parse(line).map(|entry| entry.kind),
                Some(rest) if rest.starts_with('/') => held.has_entries = true,
                Some(_) | None => {}
            }
        }
    }
    held
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
