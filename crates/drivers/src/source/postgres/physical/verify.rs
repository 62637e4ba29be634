//! A base backup on disk, before a server touches it: every file against the server's manifest, every page against its checksum, every
//! record of the log against its own.
//!
//! A server that recovers looks at a tenth of this. What it would pass over is found here, and named.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crc_fast::{CrcAlgorithm, Digest};
use seaworthy_interface::{DriverError, ErrorKind};
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::id::Digest as SeaDigest;
use seaworthy_model::signature::sha256;
use seaworthy_model::wal::{Lsn, SegmentSize, WalFile};
use seaworthy_model::witness::postgres::printable;
use seaworthy_model::witness::{PhysicalFacts, PhysicalSeen};
use serde::Deserialize;

use super::super::relation::{self, PAGE, RelationFile};
use super::super::wal::page::{self, Expected, Link, Record, Wrong};
use super::{BETWEEN, DATA, MANIFEST, SPACES};

/// Files that are read at once.
const WORKERS: usize = 2;
/// Bytes read at once: a multiple of a page's.
const READ_BYTES: usize = 1 << 20;
/// Findings that are kept of each kind.
const KEPT_MAX: usize = 64;
/// Longest manifest that is read.
const MANIFEST_BYTES_MAX: u64 = 2 << 30;

/// One file of a manifest.
#[derive(Debug, Deserialize)]
struct Listed {
    #[serde(rename = "Path")]
    path: Option<String>,
    #[serde(rename = "Encoded-Path")]
    encoded: Option<String>,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "Checksum-Algorithm")]
    algorithm: Option<String>,
    #[serde(rename = "Checksum")]
    checksum: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    #[serde(rename = "Files")]
    files: Vec<Listed>,
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|pair| std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2))
        .map(|pair| pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()))
        .collect()
}

/// What a manifest says of a file: its bytes, and its CRC-32C where it is known.
type Told = (u64, Option<u32>);

/// The files of a manifest, by their paths in the data directory.
fn listed(json: &[u8]) -> Result<BTreeMap<Vec<u8>, Told>, String> {
    let manifest: Manifest = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let mut files = BTreeMap::new();
    for file in manifest.files {
        let path = match (file.path, file.encoded) {
            (Some(path), None) => path.into_bytes(),
            (None, Some(encoded)) => unhex(&encoded).ok_or("an encoded path is not hexadecimal")?,
            _ => return Err("a file has no path, or two".to_owned()),
        };
        // The server writes the bytes of the checksum as they lie in its memory.
        let sum = match (file.algorithm.as_deref(), file.checksum) {
            (Some("CRC32C"), Some(text)) => {
                let bytes: Option<[u8; 4]> = unhex(&text).and_then(|bytes| bytes.try_into().ok());
                Some(u32::from_le_bytes(bytes.ok_or("a checksum has another length")?))
            }
            _ => None,
        };
        if files.insert(path, (file.size, sum)).is_some() {
            return Err("a file is listed twice".to_owned());
        }
    }
    Ok(files)
}

/// Where a file of the data directory lies: below a tablespace of its own where its path says so.
fn place(root: &Path, path: &[u8]) -> PathBuf {
    if let Some(rest) = path.strip_prefix(b"pg_tblspc/") {
        return root.join(SPACES).join(std::ffi::OsStr::from_bytes(rest));
    }
    root.join(DATA).join(std::ffi::OsStr::from_bytes(path))
}

fn open(path: &Path) -> std::io::Result<File> {
    let follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
    std::fs::OpenOptions::new().read(true).custom_flags(follow).open(path)
}

fn failed(path: &Path, error: std::io::Error) -> DriverError {
    DriverError::io(format!("read {}", path.display()), error)
}

/// What one worker has found.
#[derive(Default)]
struct Found {
    files: u64,
    bytes: u64,
    pages: u64,
    files_wrong: Vec<Finding>,
    pages_wrong: Vec<Finding>,
}

fn add(findings: &mut Vec<Finding>, code: FindingCode, subject: &str, detail: String) {
    if findings.len() < KEPT_MAX {
        findings.push(Finding::new(code, subject, detail));
    }
}

impl Found {
    /// Reads one file to its end.
    fn file(
        &mut self,
        root: &Path,
        path: &[u8],
        expected: Told,
        physical: &PhysicalFacts,
    ) -> Result<(), DriverError> {
        let name = path.escape_ascii().to_string();
        let at = place(root, path);
        let mut file = match open(&at) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                add(&mut self.files_wrong, FindingCode::FileMissing, &name, "is not in the copy".to_owned());
                return Ok(());
            }
            Err(error) => return Err(failed(&at, error)),
        };
        let relation = RelationFile::of(path).filter(|_| physical.has_checksums);
        let mut sum = Digest::new(CrcAlgorithm::Crc32Iscsi);
        let (mut size, mut block) = (0_u64, 0_u32);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let mut filled = 0;
            while filled < buffer.len() {
                match file.read(&mut buffer[filled..]).map_err(|error| failed(&at, error))? {
                    0 => break,
                    count => filled += count,
                }
            }
            if filled == 0 {
                break;
            }
            sum.update(&buffer[..filled]);
            size += filled as u64;
            if let Some(relation) = relation {
                for page in buffer[..filled].chunks(PAGE) {
                    let judged = <&[u8; PAGE]>::try_from(page)
                        .map(|page| relation::judge(page, relation.block(block), physical.from));
                    match judged {
                        Ok(Ok(())) => {}
                        Ok(Err(wrong)) => {
                            add(&mut self.pages_wrong, FindingCode::Corruption, &name, wrong.to_string());
                        }
                        Err(_) => add(
                            &mut self.pages_wrong,
                            FindingCode::Corruption,
                            &name,
                            format!("ends within block {}", relation.block(block)),
                        ),
                    }
                    block = block.wrapping_add(1);
                    self.pages += 1;
                }
            }
        }
        self.files += 1;
        self.bytes += size;
        let found = u32::try_from(sum.finalize()).unwrap_or(0);
        if size != expected.0 {
            let detail = format!("has {size} bytes, the manifest says {}", expected.0);
            add(&mut self.files_wrong, FindingCode::FileContent, &name, detail);
        } else if expected.1.is_some_and(|sum| sum != found) {
            let detail = "its CRC-32C is not that of the manifest".to_owned();
            add(&mut self.files_wrong, FindingCode::FileContent, &name, detail);
        }
        Ok(())
    }
}

/// Every file below a directory, by its path there.
fn files_below(root: &Path) -> Result<Vec<Vec<u8>>, DriverError> {
    let mut found = Vec::new();
    let mut left = vec![(root.to_path_buf(), Vec::new())];
    while let Some((directory, name)) = left.pop() {
        for entry in std::fs::read_dir(&directory).map_err(|error| failed(&directory, error))? {
            let entry = entry.map_err(|error| failed(&directory, error))?;
            let mut path: Vec<u8> = name.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(entry.file_name().as_bytes());
            let kind = entry.file_type().map_err(|error| failed(&entry.path(), error))?;
            if kind.is_dir() {
                left.push((entry.path(), path));
            } else if kind.is_file() {
                found.push(path);
            } else {
                // A server sends none; whoever follows one reads what is not of the copy, without end where it likes.
                let what = format!("verify the base backup: `{}` is no file", path.escape_ascii());
                return Err(DriverError::new(ErrorKind::Corrupt, what).code(FindingCode::FileType));
            }
        }
    }
    Ok(found)
}

/// Reads everything below `root` that a base backup consists of. Blocks; `stopped` is asked between files.
pub(super) fn verify(
    root: &Path,
    physical: &PhysicalFacts,
    stopped: &(dyn Fn() -> Result<(), DriverError> + Sync),
) -> Result<PhysicalSeen, DriverError> {
    let mut seen = PhysicalSeen::default();
    files(root, physical, stopped, &mut seen)?;
    own_log(root, physical, stopped, &mut seen)?;
    Ok(seen)
}

fn files(
    root: &Path,
    physical: &PhysicalFacts,
    stopped: &(dyn Fn() -> Result<(), DriverError> + Sync),
    seen: &mut PhysicalSeen,
) -> Result<(), DriverError> {
    // Before anything is opened.
    let mut present: Vec<Vec<u8>> = files_below(&root.join(DATA))?;
    for oid in physical.tablespaces.keys() {
        let space = root.join(SPACES).join(oid.to_string());
        if space.is_dir() {
            let below = files_below(&space)?;
            present.extend(
                below.into_iter().map(|path| [format!("pg_tblspc/{oid}/").as_bytes(), &path].concat()),
            );
        }
    }
    let at = root.join(DATA).join(MANIFEST);
    let mut json = Vec::new();
    match open(&at) {
        Ok(file) => {
            file.take(MANIFEST_BYTES_MAX).read_to_end(&mut json).map_err(|error| failed(&at, error))?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            add(&mut seen.files_wrong, FindingCode::FileMissing, MANIFEST, "is not in the copy".to_owned());
            return Ok(());
        }
        Err(error) => return Err(failed(&at, error)),
    }
    let digest = sha256(&json);
    if digest != physical.manifest {
        let detail = format!("is {digest}, the witness says {}", physical.manifest);
        add(&mut seen.files_wrong, FindingCode::ObjectSwapped, MANIFEST, detail);
        return Ok(());
    }
    let listed = listed(&json).map_err(|error| {
        DriverError::new(ErrorKind::Corrupt, format!("read the manifest: {}", printable(&error)))
            .code(FindingCode::Corruption)
    })?;
    let all: Vec<(&Vec<u8>, &Told)> = listed.iter().collect();
    let next = AtomicUsize::new(0);
    let outcome: Mutex<Result<Vec<Found>, DriverError>> = Mutex::new(Ok(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let mut found = Found::default();
                let mut work = || {
                    while let Some((path, expected)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                        stopped()?;
                        found.file(root, path, **expected, physical)?;
                    }
                    Ok(())
                };
                let worked = work();
                let mut outcome = outcome.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                match (worked, &mut *outcome) {
                    (Ok(()), Ok(all)) => all.push(found),
                    (Err(error), _) => *outcome = Err(error),
                    (Ok(()), Err(_)) => {}
                }
            });
        }
    });
    for found in outcome.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)? {
        seen.files.0 += found.files;
        seen.files.1 += found.bytes;
        seen.pages += found.pages;
        seen.files_wrong.extend(found.files_wrong);
        seen.pages_wrong.extend(found.pages_wrong);
    }
    // What nobody has listed.
    let known: BTreeSet<&[u8]> = listed.keys().map(Vec::as_slice).collect();
    for path in present {
        let is_log = path.starts_with(b"pg_wal/");
        if !is_log && path != MANIFEST.as_bytes() && !known.contains(path.as_slice()) {
            let detail = "is in the copy, and not in the manifest".to_owned();
            add(&mut seen.files_wrong, FindingCode::FileMissing, &path.escape_ascii().to_string(), detail);
        }
    }
    seen.files_wrong.sort_by(|one, other| one.subject.cmp(&other.subject));
    seen.pages_wrong.sort_by(|one, other| one.subject.cmp(&other.subject));
    Ok(())
}

/// What a wrong segment amounts to.
fn code_of(wrong: &Wrong) -> FindingCode {
    match wrong {
        Wrong::System(..) => FindingCode::WrongSource,
        _ => FindingCode::Corruption,
    }
}

/// Reads files of the log, which adjoin, record by record, up to `until`.
pub(super) fn log<'a>(
    files: impl Iterator<Item = (PathBuf, &'a String, &'a SeaDigest)>,
    size: SegmentSize,
    until: Lsn,
    stopped: &(dyn Fn() -> Result<(), DriverError> + Sync),
    seen: &mut PhysicalSeen,
    tell: &mut dyn FnMut(Record<'_>),
) -> Result<(), DriverError> {
    let mut link = Link::default();
    for (at, name, digest) in files {
        stopped()?;
        let mut bytes = Vec::new();
        match open(&at) {
            Ok(file) => {
                file.take(size.bytes() + 1).read_to_end(&mut bytes).map_err(|error| failed(&at, error))?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                add(&mut seen.log_wrong, FindingCode::ObjectMissing, name, "is not in the copy".to_owned());
                link = Link::default();
                continue;
            }
            Err(error) => return Err(failed(&at, error)),
        }
        seen.log.0 += 1;
        let found = sha256(&bytes);
        if found != *digest {
            let detail = format!("is {found}, the witness says {digest}");
            add(&mut seen.log_wrong, FindingCode::ObjectSwapped, name, detail);
        }
        let Ok(WalFile::Segment(segment)) = WalFile::parse(name, size) else { continue };
        let expected = Expected { segment, size, system: None };
        let mut last = Lsn(0);
        let mut records = 0;
        let walked = page::walk_telling(&bytes, &expected, &link, &mut |record| {
            last = record.end;
            records += 1;
            tell(record);
        });
        seen.log.1 += records;
        match walked {
            Ok(walked) => link = walked.link,
            // The log of the copy ends in this file.
            Err(_) if last == until => link = Link::default(),
            Err(wrong) => {
                add(&mut seen.log_wrong, code_of(&wrong), name, wrong.to_string());
                link = Link::default();
            }
        }
    }
    Ok(())
}

/// The log of a copy: what leads to it from the one before, and its own.
fn own_log(
    root: &Path,
    physical: &PhysicalFacts,
    stopped: &(dyn Fn() -> Result<(), DriverError> + Sync),
    seen: &mut PhysicalSeen,
) -> Result<(), DriverError> {
    let own = (root.join(DATA).join("pg_wal"), &physical.log);
    let between = physical.between.as_ref().map(|between| (root.join(BETWEEN), &between.log));
    let files = between.iter().chain([&own]).flat_map(|(directory, log)| {
        log.iter().map(move |(name, digest)| (directory.join(name), name, digest))
    });
    log(files, physical.segment_bytes, physical.until, stopped, seen, &mut |_| {})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_read_as_servers_write_it() {
        let json = br#"{ "PostgreSQL-Backup-Manifest-Version": 1, "Files": [
            { "Path": "backup_label", "Size": 226, "Last-Modified": "2026-11-30 10:00:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "01020304" },
            { "Encoded-Path": "ff", "Size": 0, "Last-Modified": "2026-11-30 10:00:00 GMT" }],
            "WAL-Ranges": [{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000100" }],
            "Manifest-Checksum": "00"}"#;
        let files = listed(json).unwrap();
        assert_eq!(files[b"backup_label".as_slice()], (226, Some(0x0403_0201)));
        assert_eq!(files[[0xff].as_slice()], (0, None));
        for wrong in [
            r#"{"Files":[{"Size":1}]}"#,
            r#"{"Files":[{"Path":"a","Encoded-Path":"61","Size":1}]}"#,
            r#"{"Files":[{"Path":"a","Size":1},{"Encoded-Path":"61","Size":1}]}"#,
            r#"{"Files":[{"Path":"a","Size":1,"Checksum-Algorithm":"CRC32C","Checksum":"0102"}]}"#,
            r#"{"Files":[{"Encoded-Path":"6","Size":1}]}"#,
            "{}",
        ] {
            assert!(listed(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn files_of_tablespaces_lie_beside_the_data_directory() {
        let root = Path::new("/r");
        assert_eq!(place(root, b"base/1/2"), Path::new("/r/data/base/1/2"));
        assert_eq!(place(root, b"pg_tblspc/9/PG_15/1/2"), Path::new("/r/tablespaces/9/PG_15/1/2"));
    }
}
