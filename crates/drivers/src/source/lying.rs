//! Copies as they lie in a directory: listed, looked at, hashed. Nothing here is ever written to, and no link is followed.
//!
//! What blocks runs on threads of its own and ends with the run's token and deadline.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::OFlags;
use seaworthy_interface::{Cx, DriverError, ErrorKind, Progress};
use seaworthy_model::adopt::judge::{Lying, Sidecar};
use seaworthy_model::adopt::recognise::{DumpHead, HEAD_BYTES, Payload, Shape};
use seaworthy_model::finding::FindingCode;
use sha2::{Digest as _, Sha256};

use super::blocking::{Watch, blocking};

/// Most entries of a directory that are looked at: far above what a set holds, far below what takes long.
const ENTRIES_MAX: usize = 100_000;
/// Bytes read at once.
const BUFFER_BYTES: usize = 1 << 20;
/// Longest digest file: one line for each of many copies.
const SIDECAR_BYTES_MAX: u64 = 1 << 20;
/// Ends of names that lie beside copies and are none.
const BESIDE: [&str; 6] = [".sha256", ".sha256sum", ".sha512", ".md5", ".sig", ".asc"];

/// A copy, and what its first bytes say.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Name, size, times.
    pub lying: Lying,
    /// What it is.
    pub shape: Shape,
    /// What a dump that is not wrapped says of itself.
    pub head: DumpHead,
}

/// What was read of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashed {
    /// Bytes.
    pub bytes: u64,
    /// Their SHA-256, in hexadecimal digits.
    pub sha256: String,
}

/// Opens a file as it is: not what a link leads to, and without waiting for a pipe's writer.
fn open(path: &Path) -> Result<File, DriverError> {
    let failed = |error| DriverError::io(format!("read `{}`", path.display()), error);
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let file = File::options()
        .read(true)
        .custom_flags(i32::try_from(flags).unwrap_or_default())
        .open(path)
        .map_err(failed)?;
    if file.metadata().map_err(failed)?.is_file() {
        return Ok(file);
    }
    Err(DriverError::new(ErrorKind::Unsupported, format!("read `{}`: it is no file", path.display()))
        .code(FindingCode::ReadFailed))
}

/// The first bytes of a file.
pub(super) fn head(path: &Path) -> Result<Vec<u8>, DriverError> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    open(path)?
        .take(HEAD_BYTES as u64)
        .read_to_end(&mut head)
        .map_err(|error| DriverError::io(format!("read `{}`", path.display()), error))?;
    Ok(head)
}

/// The files of a dump in directory format, in order of their names; anything else in there is no part of one.
pub(super) fn parts(directory: &Path) -> Result<Vec<(String, PathBuf)>, DriverError> {
    let failed = |error| DriverError::io(format!("list `{}`", directory.display()), error);
    let mut parts = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_file = entry.file_type().map_err(failed)?.is_file();
        match entry.file_name().into_string() {
            Ok(name) if is_file => parts.push((name, entry.path())),
            Ok(name) => {
                return Err(DriverError::new(
                    ErrorKind::Unsupported,
                    format!("read `{}`: `{}` in it is no file", directory.display(), name.escape_debug()),
                )
                .code(FindingCode::ReadFailed));
            }
            Err(_) => {
                return Err(DriverError::new(
                    ErrorKind::Unsupported,
                    format!("read `{}`: a name in it is not UTF-8", directory.display()),
                )
                .code(FindingCode::ReadFailed));
            }
        }
        if parts.len() > ENTRIES_MAX {
            return Err(DriverError::new(
                ErrorKind::Unsupported,
                format!("read `{}`: it holds more than {ENTRIES_MAX} files", directory.display()),
            )
            .code(FindingCode::ReadFailed));
        }
    }
    parts.sort();
    Ok(parts)
}

/// Copies a file into another, or nowhere, and hashes it.
fn pass(
    from: &Path,
    into: Option<&Path>,
    until: &Watch,
    done: &mut u64,
    total: u64,
) -> Result<Hashed, DriverError> {
    let reading = |error| DriverError::io(format!("read `{}`", from.display()), error);
    let mut source = open(from)?;
    let mut target = match into {
        None => None,
        Some(path) => Some(
            File::create_new(path)
                .map_err(|error| DriverError::io(format!("write `{}`", path.display()), error))?,
        ),
    };
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut bytes = 0;
    loop {
        until.check()?;
        let count = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(reading(error).code(FindingCode::ReadFailed)),
        };
        hash.update(&buffer[..count]);
        if let (Some(target), Some(path)) = (&mut target, into) {
            target.write_all(&buffer[..count]).map_err(|error| {
                let error = DriverError::io(format!("write `{}`", path.display()), error);
                let is_full = error.kind == ErrorKind::Exhausted;
                if is_full { error.code(FindingCode::EnvDisk) } else { error }
            })?;
        }
        bytes += count as u64;
        *done += count as u64;
        until.progress(Progress::Bytes { done: *done, total: Some(total) });
    }
    Ok(Hashed { bytes, sha256: hexadecimal(&hash.finalize()) })
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a copy, a file or a directory of files, to its end; writes the same to `into`, which must not exist, where it is
/// given.
///
/// The digest of a directory is that of a list in the form of `sha256sum`, in order of names.
pub(super) fn read(from: &Path, into: Option<&Path>, until: &Watch) -> Result<Hashed, DriverError> {
    let facts = std::fs::symlink_metadata(from)
        .map_err(|error| DriverError::io(format!("look at `{}`", from.display()), error))?;
    let mut done = 0;
    if !facts.is_dir() {
        return pass(from, into, until, &mut done, facts.len());
    }
    if let Some(into) = into {
        std::fs::create_dir(into)
            .map_err(|error| DriverError::io(format!("make `{}`", into.display()), error))?;
    }
    let parts = parts(from)?;
    let size = |path: &Path| std::fs::symlink_metadata(path).map_or(0, |facts| facts.len());
    let total = parts.iter().map(|(_, path)| size(path)).sum();
    let (mut list, mut bytes) = (Sha256::new(), 0);
    for (name, path) in parts {
        let target = into.map(|into| into.join(&name));
        let hashed = pass(&path, target.as_deref(), until, &mut done, total)?;
        list.update(format!("{}  {name}\n", hashed.sha256).as_bytes());
        bytes += hashed.bytes;
    }
    Ok(Hashed { bytes, sha256: hexadecimal(&list.finalize()) })
}

/// Hashes a copy: its id, taken before anything is done with it.
pub async fn digest(cx: &Cx, path: &Path) -> Result<Hashed, DriverError> {
    let path = path.to_owned();
    blocking(cx, move |until| read(&path, None, until)).await
}

/// What lies beside a copy as its digest.
pub async fn sidecar(cx: &Cx, path: &Path) -> Result<Sidecar, DriverError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".sha256");
    let beside = PathBuf::from(name);
    blocking(cx, move |_| {
        let file = match open(&beside) {
            Ok(file) => file,
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(Sidecar::Absent),
            Err(error) => return Ok(Sidecar::Unreadable(error.to_string())),
        };
        let mut text = String::new();
        Ok(match file.take(SIDECAR_BYTES_MAX).read_to_string(&mut text) {
            Ok(_) => Sidecar::Text(text),
            Err(error) => Sidecar::Unreadable(error.to_string()),
        })
    })
    .await
}

/// Every copy in a directory for whose name `wanted` holds, with what its first bytes say. Files that lie beside copies, hidden
/// ones and links are left out.
///
/// A directory that cannot be listed is an error, never an empty list.
pub async fn look(
    cx: &Cx,
    directory: &Path,
    wanted: impl Fn(&str) -> bool + Send + 'static,
) -> Result<Vec<Seen>, DriverError> {
    let directory = directory.to_owned();
    blocking(cx, move |until| {
        let failed = |error| {
            DriverError::io(format!("list `{}`", directory.display()), error)
                .hint("is the path right, is it mounted, and may this user read it?")
        };
        let (mut names, mut found) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(&directory).map_err(failed)? {
            until.check()?;
            let entry = entry.map_err(failed)?;
            // A name that is not UTF-8 fits no pattern.
            let Ok(name) = entry.file_name().into_string() else { continue };
            names.push(name.clone());
            let kind = entry.file_type().map_err(failed)?;
            let is_beside = BESIDE.iter().any(|end| name.ends_with(end)) || name.starts_with('.');
            if is_beside || !(kind.is_file() || kind.is_dir()) || !wanted(&name) {
                continue;
            }
            if found.len() >= ENTRIES_MAX {
                return Err(DriverError::new(
                    ErrorKind::Unsupported,
                    format!("list `{}`: it holds more than {ENTRIES_MAX} copies", directory.display()),
                ));
            }
            // A file that is removed meanwhile, by whoever rotates them, is no longer there.
            match seen(&entry.path(), name, kind.is_dir()) {
                Ok(seen) => found.push(seen),
                Err(error) if error.kind == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        names.sort();
        for seen in &mut found {
            let beside = format!("{}.sha256", seen.lying.name);
            seen.lying.has_sidecar = names.binary_search(&beside).is_ok();
        }
        found.sort_by(|one, other| one.lying.name.cmp(&other.lying.name));
        Ok(found)
    })
    .await
}

fn seen(path: &Path, name: String, is_directory: bool) -> Result<Seen, DriverError> {
    let failed = |error| DriverError::io(format!("look at `{}`", path.display()), error);
    let facts = std::fs::symlink_metadata(path).map_err(failed)?;
    let modified = |facts: &std::fs::Metadata| {
        let since = facts.modified().map_err(failed)?;
        Timestamp::try_from(since).map_err(|error| {
            DriverError::new(ErrorKind::Other, format!("date `{}`", path.display())).because(error)
        })
    };
    let (mut size, mut when) = (facts.len(), modified(&facts)?);
    let (shape, said) = if is_directory {
        size = 0;
        let is_there = |name: &str| path.join(name).symlink_metadata().is_ok();
        let payload = if is_there("toc.dat") {
            for (_, part) in parts(path)? {
                let facts = std::fs::symlink_metadata(&part).map_err(failed)?;
                size += facts.len();
                when = when.max(modified(&facts)?);
            }
            Some(Payload::PgDirectory)
        } else if is_there("config") && is_there("keys") && is_there("snapshots") {
            Some(Payload::Restic)
        } else if is_there("config") && is_there("data") && is_there("README") {
            Some(Payload::Borg)
        } else {
            None
        };
        let said = if payload == Some(Payload::PgDirectory) {
            DumpHead::of(&head(&path.join("toc.dat"))?)
        } else {
            DumpHead::default()
        };
        (Shape { wrappings: Vec::new(), payload, was_seen: true }, said)
    } else {
        let first = head(path)?;
        (Shape::of(&name, &first), DumpHead::of(&first))
    };
    Ok(Seen {
        lying: Lying { name, size, modified: when, is_directory, has_sidecar: false },
        shape,
        head: said,
    })
}
