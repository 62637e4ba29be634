//! A base backup on its way into the copy: each file of the server by itself, pages verified while they pass.

use std::sync::Arc;

use bytes::Bytes;
use seaworthy_interface::{CopyFile, CopyWriter, Cuts, DriverError, ErrorKind};
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::id::Digest;
use seaworthy_model::signature::sha256;
use seaworthy_model::wal::Lsn;

use super::super::relation::{self, PAGE, RelationFile};
use super::super::replication::tar::{Part, TarEntry, TarError, TarKind, Untar};
use super::{MANIFEST, data_path, in_data, space_path};

/// Damaged pages that are named.
const NAMED_MAX: usize = 8;
/// Longest manifest: ten million files.
const MANIFEST_BYTES_MAX: usize = 2 << 30;

/// What has gone into the copy.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) manifest: Digest,
    pub(super) bytes: u64,
    /// What is wrong with pages of the source.
    pub(super) findings: Vec<Finding>,
}

/// A file that is being stored.
struct Open {
    file: Box<dyn CopyFile>,
    /// Of a file of pages: where it stands in its relation, the next page's number, and what has come of that page.
    pages: Option<(RelationFile, u32, Vec<u8>)>,
    name: String,
}

/// Takes a base backup as it comes.
pub(super) struct Sink {
    to: Arc<dyn CopyWriter>,
    began: Lsn,
    has_checksums: bool,
    archive: Option<Archive>,
    manifest: Option<Vec<u8>>,
    state: State,
}

struct Archive {
    untar: Untar,
    /// The tablespace; none of the data directory.
    space: Option<u32>,
}

#[derive(Default)]
struct State {
    open: Option<Open>,
    bytes: u64,
    findings: Vec<Finding>,
    damaged: u64,
}

/// An archive that is wrong, or a copy that does not take it.
enum Fault {
    Archive(TarError),
    Copy(DriverError),
}

impl From<TarError> for Fault {
    fn from(error: TarError) -> Self {
        Self::Archive(error)
    }
}

impl From<Fault> for DriverError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Archive(error) => Self::new(ErrorKind::Corrupt, "read the base backup")
                .because(error)
                .code(FindingCode::StreamUnfinished),
            Fault::Copy(error) => error,
        }
    }
}

fn unfinished(what: &str) -> DriverError {
    DriverError::new(ErrorKind::Corrupt, format!("read the base backup: {what}"))
        .code(FindingCode::StreamUnfinished)
}

impl Sink {
    pub(super) fn new(to: Arc<dyn CopyWriter>, began: Lsn, has_checksums: bool) -> Self {
        Self { to, began, has_checksums, archive: None, manifest: None, state: State::default() }
    }

    /// The archive of a tablespace begins, or that of the data directory.
    pub(super) fn archive(&mut self, space: Option<u32>) -> Result<(), DriverError> {
        self.end_archive()?;
        let root = match space {
            None => data_path()?,
            Some(oid) => space_path(oid)?,
        };
        self.to.directory(&root, 0o700)?;
        self.archive = Some(Archive { untar: Untar::default(), space });
        Ok(())
    }

    /// The manifest begins.
    pub(super) fn manifest(&mut self) -> Result<(), DriverError> {
        self.end_archive()?;
        self.manifest = Some(Vec::new());
        Ok(())
    }

    fn end_archive(&mut self) -> Result<(), DriverError> {
        match self.archive.take() {
            Some(archive) => archive.untar.finish().map_err(|error| Fault::from(error).into()),
            None => Ok(()),
        }
    }

    /// Bytes of what has begun.
    pub(super) fn data(&mut self, bytes: &Bytes) -> Result<(), DriverError> {
        if let Some(manifest) = &mut self.manifest {
            if manifest.len() + bytes.len() > MANIFEST_BYTES_MAX {
                return Err(unfinished("its manifest has no end"));
            }
            manifest.extend_from_slice(bytes);
            return Ok(());
        }
        let Some(Archive { untar, space }) = &mut self.archive else {
            return Err(unfinished("bytes of no archive"));
        };
        let (to, state, space) = (&*self.to, &mut self.state, *space);
        let checked = self.has_checksums.then_some(self.began);
        untar
            .push::<Fault>(bytes, &mut |part| {
                match part {
                    Part::Entry(entry) => state.entry(to, space, &entry, checked),
                    Part::Data(bytes) => state.data(bytes, checked),
                    Part::Whole => state.whole(),
                }
                .map_err(Fault::Copy)
            })
            .map_err(DriverError::from)
    }

    /// All has come.
    pub(super) fn finish(mut self) -> Result<Stored, DriverError> {
        self.end_archive()?;
        let manifest = self.manifest.take().ok_or_else(|| unfinished("it has no manifest"))?;
        self.to.put(&in_data(MANIFEST)?, &manifest)?;
        let State { bytes, mut findings, damaged, .. } = self.state;
        if damaged > NAMED_MAX as u64
            && let Some(last) = findings.last_mut()
        {
            last.detail.push_str(&format!("; {damaged} pages in all"));
        }
        Ok(Stored { manifest: sha256(&manifest), bytes, findings })
    }
}

impl State {
    fn entry(
        &mut self,
        to: &dyn CopyWriter,
        space: Option<u32>,
        entry: &TarEntry,
        checked: Option<Lsn>,
    ) -> Result<(), DriverError> {
        let base = match space {
            None => data_path()?,
            Some(oid) => space_path(oid)?,
        };
        if entry.path.is_empty() || entry.path == b"." {
            return Ok(());
        }
        let path = base
            .join(&entry.path)
            .ok_or_else(|| unfinished(&format!("it names `{}`", entry.path.escape_ascii())))?;
        match &entry.kind {
            TarKind::Directory => to.directory(&path, entry.mode),
            // With a map of tablespaces, a server sends no link; without one, we would not know where it leads.
            TarKind::Symlink(_) => Err(unfinished(&format!("`{}` is a link", entry.path.escape_ascii()))),
            TarKind::File => {
                let own = match space {
                    None => entry.path.clone(),
                    Some(oid) => [format!("pg_tblspc/{oid}/").as_bytes(), &entry.path].concat(),
                };
                let relation = RelationFile::of(&own);
                let cuts = match relation {
                    Some(_) => Cuts::Pages { page_bytes: PAGE as u32, size_bytes: entry.size },
                    None => Cuts::ContentDefined,
                };
                let file = to.begin(&path, cuts)?;
                let pages = relation.filter(|_| checked.is_some()).map(|file| (file, 0, Vec::new()));
                let name = own.escape_ascii().to_string();
                self.open = Some(Open { file, pages, name });
                // An empty one has no bytes, and is told to be whole nevertheless.
                Ok(())
            }
        }
    }

    fn data(&mut self, bytes: &[u8], checked: Option<Lsn>) -> Result<(), DriverError> {
        let Some(open) = &mut self.open else { return Err(unfinished("bytes of no file")) };
        open.file.write(bytes)?;
        self.bytes += bytes.len() as u64;
        if let (Some((relation, number, partial)), Some(began)) = (&mut open.pages, checked) {
            let mut rest = bytes;
            while !rest.is_empty() {
                let whole: &[u8; PAGE] = if partial.is_empty() && rest.len() >= PAGE {
                    let (page, later) = rest.split_at(PAGE);
                    rest = later;
                    page.try_into().map_err(|_| unfinished("a page has another length"))?
                } else {
                    let taken = rest.len().min(PAGE - partial.len());
                    partial.extend_from_slice(&rest[..taken]);
                    rest = &rest[taken..];
                    if partial.len() < PAGE {
                        break;
                    }
                    partial.as_slice().try_into().map_err(|_| unfinished("a page has another length"))?
                };
                if let Err(wrong) = relation::judge(whole, relation.block(*number), began) {
                    self.damaged += 1;
                    if self.findings.len() < NAMED_MAX {
                        self.findings.push(Finding::new(
                            FindingCode::Corruption,
                            open.name.clone(),
                            format!("{wrong}: the page is damaged on the source's disk"),
                        ));
                    }
                }
                partial.clear();
                *number += 1;
            }
        }
        Ok(())
    }

    fn whole(&mut self) -> Result<(), DriverError> {
        match self.open.take() {
            Some(open) => open.file.finish().map(drop),
            None => Err(unfinished("the end of no file")),
        }
    }
}
