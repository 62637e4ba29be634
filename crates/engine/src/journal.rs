//! The journal of one source, in a repository.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use seaworthy_interface::{Cx, DriverError, ErrorKind, HeldFile, HeldPiece, Journal, PieceOf};
use seaworthy_model::finding::FindingCode;
use seaworthy_model::id::Digest;
use seaworthy_model::signature::sha256;
use seaworthy_repository::{Control, Id, Repository, RepositoryError};
use serde::{Deserialize, Serialize};

use crate::store::{control, driver_error};

/// The form of the words about a piece.
const SCHEMA: u32 = 1;
/// The form of the words that set pieces apart; versions that do not know them refuse the whole journal.
const SCHEMA_APART: u32 = 2;
/// The form of the words about a file that is kept whole; the same holds of them.
const SCHEMA_FILE: u32 = 3;

/// Entries that are looked at at once.
const LOOKS_AT_ONCE: usize = 16;

/// What is said of a piece.
#[derive(Serialize, Deserialize)]
struct Words {
    schema: u32,
    lineage: String,
    #[serde(flatten)]
    of: PieceOf,
    /// Of the piece: what is boxed beside it belongs to it.
    sha256: Digest,
}

/// Pieces that are set apart; what is boxed beside it is the list of their names.
#[derive(Serialize, Deserialize)]
struct Apart {
    schema: u32,
    lineage: String,
    apart: Timestamp,
    sha256: Digest,
}

/// A file that is kept whole.
#[derive(Serialize, Deserialize)]
struct Named {
    schema: u32,
    lineage: String,
    system: u64,
    name: String,
    sha256: Digest,
}

/// What every entry says of itself.
#[derive(Deserialize)]
struct Any {
    schema: u32,
    lineage: String,
}

/// The journal of one source. Reads and writes block.
pub struct RepositoryJournal {
    repository: Repository,
    control: Control,
    lineage: String,
    /// Forms and words of entries that were looked at: an entry never changes. Of other sources' entries no words.
    known: Mutex<BTreeMap<Id, (u32, Vec<u8>)>>,
}

impl std::fmt::Debug for RepositoryJournal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RepositoryJournal").field("lineage", &self.lineage).finish_non_exhaustive()
    }
}

fn wrong(id: &Id, why: impl std::fmt::Display) -> DriverError {
    DriverError::new(ErrorKind::Corrupt, format!("read the piece {} of the log: {why}", id.hex()))
        .code(FindingCode::ObjectDamaged)
}

impl RepositoryJournal {
    /// The journal of the source that `lineage` tells from all others.
    #[must_use]
    pub fn new(cx: &Cx, repository: &Repository, lineage: String) -> Self {
        Self::with(repository, control(cx), lineage)
    }

    pub(crate) fn with(repository: &Repository, control: Control, lineage: String) -> Self {
        Self { repository: repository.clone(), control, lineage, known: Mutex::default() }
    }

    /// The names of pieces that an entry sets apart.
    fn apart(&self, id: &Id) -> Result<Vec<(String, Timestamp)>, DriverError> {
        let (words, list) = self
            .repository
            .journal_get(id, &self.control)
            .map_err(|error| driver_error("read which pieces of the log are set apart", error))?;
        let words: Apart = serde_json::from_slice(&words).map_err(|error| wrong(id, error))?;
        if words.sha256 != sha256(&list) {
            return Err(wrong(id, "its list is another one than it was").code(FindingCode::ObjectSwapped));
        }
        let keys: Vec<String> = serde_json::from_slice(&list).map_err(|error| wrong(id, error))?;
        Ok(keys.into_iter().map(|key| (key, words.apart)).collect())
    }

    fn id(piece: &HeldPiece) -> Result<Id, DriverError> {
        Self::named(&piece.key)
    }

    fn named(key: &str) -> Result<Id, DriverError> {
        Id::parse(key).ok_or_else(|| DriverError::new(ErrorKind::NotFound, format!("find the piece `{key}`")))
    }

    /// Every entry of this source: its name, its form and its words.
    fn entries(&self) -> Result<Vec<(Id, u32, Vec<u8>)>, DriverError> {
        let what = "look what is kept of the log";
        let listed = self.repository.journal(&self.control).map_err(|error| driver_error(what, error))?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let there: BTreeSet<Id> = listed.iter().map(|listed| listed.id).collect();
        known.retain(|id, _| there.contains(id));
        let new: Vec<Id> = there.into_iter().filter(|id| !known.contains_key(id)).collect();
        // On an object store each is a request, and there may be thousands of them.
        let share = new.len().div_ceil(LOOKS_AT_ONCE).max(1);
        let read = std::thread::scope(|scope| {
            let looks: Vec<_> = new
                .chunks(share)
                .map(|part| {
                    scope.spawn(|| part.iter().map(|id| self.look(id)).collect::<Result<Vec<_>, _>>())
                })
                .collect();
            looks
                .into_iter()
                .map(|look| {
                    look.join().unwrap_or_else(|_| {
                        Err(DriverError::new(
                            ErrorKind::Other,
                            "look what is kept of the log: a look has panicked",
                        ))
                    })
                })
                .collect::<Result<Vec<_>, _>>()
        });
        for (id, words) in read?.into_iter().flatten().flatten() {
            let any: Any = serde_json::from_slice(&words).map_err(|error| wrong(&id, error))?;
            if ![SCHEMA, SCHEMA_APART, SCHEMA_FILE].contains(&any.schema) {
                return Err(wrong(&id, format!("a newer version has written it ({})", any.schema)));
            }
            // Of another source it is enough to know that it is not of this one.
            let words = if any.lineage == self.lineage { words } else { Vec::new() };
            known.insert(id, (any.schema, words));
        }
        let own = known.iter().filter(|(_, (_, words))| !words.is_empty());
        Ok(own.map(|(id, (schema, words))| (*id, *schema, words.clone())).collect())
    }

    /// The words of an entry; nothing where somebody else has removed it meanwhile: a copy holds it.
    fn look(&self, id: &Id) -> Result<Option<(Id, Vec<u8>)>, DriverError> {
        match self.repository.journal_words(id, &self.control) {
            Ok(words) => Ok(Some((*id, words))),
            Err(RepositoryError::Missing { .. }) => Ok(None),
            Err(error) => Err(driver_error("look what is kept of the log", error)),
        }
    }
}

impl Journal for RepositoryJournal {
    fn put(&self, of: &PieceOf, bytes: &Bytes) -> Result<HeldPiece, DriverError> {
        let what = "store a piece of the log";
        let words = Words { schema: SCHEMA, lineage: self.lineage.clone(), of: *of, sha256: sha256(bytes) };
        let words = serde_json::to_vec(&words)
            .map_err(|error| DriverError::new(ErrorKind::Other, what).because(error))?;
        self.repository
            .journal_put(&words, bytes, &self.control)
            .map(|id| HeldPiece { of: *of, key: id.hex(), apart: None })
            .map_err(|error| driver_error(what, error))
    }

    fn held(&self) -> Result<Vec<HeldPiece>, DriverError> {
        Ok(self.all()?.0)
    }

    fn all(&self) -> Result<(Vec<HeldPiece>, Vec<HeldFile>), DriverError> {
        let (mut held, mut files, mut apart) = (Vec::new(), Vec::new(), BTreeMap::new());
        for (id, schema, words) in self.entries()? {
            match schema {
                SCHEMA_APART => {
                    for (key, at) in self.apart(&id)? {
                        let first = apart.entry(key).or_insert(at);
                        *first = at.min(*first);
                    }
                }
                SCHEMA_FILE => {
                    let words: Named = serde_json::from_slice(&words).map_err(|error| wrong(&id, error))?;
                    files.push(HeldFile { system: words.system, name: words.name, key: id.hex() });
                }
                _ => {
                    let words: Words = serde_json::from_slice(&words).map_err(|error| wrong(&id, error))?;
                    held.push(HeldPiece { of: words.of, key: id.hex(), apart: None });
                }
            }
        }
        for piece in &mut held {
            piece.apart = apart.get(&piece.key).copied();
        }
        held.sort_by(|one, other| {
            let of = |piece: &HeldPiece| (piece.of.system, piece.of.timeline, piece.of.from, piece.of.to);
            of(one).cmp(&of(other)).then_with(|| one.key.cmp(&other.key))
        });
        files.sort_by(|one, other| {
            (one.system, &one.name, &one.key).cmp(&(other.system, &other.name, &other.key))
        });
        Ok((held, files))
    }

    fn read(&self, piece: &HeldPiece) -> Result<Bytes, DriverError> {
        let id = Self::id(piece)?;
        let (words, bytes) = self
            .repository
            .journal_get(&id, &self.control)
            .map_err(|error| driver_error("read a piece of the log", error))?;
        let words: Words = serde_json::from_slice(&words).map_err(|error| wrong(&id, error))?;
        let length = piece.of.to.0.saturating_sub(piece.of.from.0);
        let is_it = words.of == piece.of && words.lineage == self.lineage && words.sha256 == sha256(&bytes);
        if !is_it || bytes.len() as u64 != length {
            return Err(wrong(&id, "it is another piece than it was").code(FindingCode::ObjectSwapped));
        }
        Ok(Bytes::from(bytes))
    }

    fn put_file(&self, system: u64, name: &str, bytes: &Bytes) -> Result<HeldFile, DriverError> {
        let what = "store a file of the log";
        let (lineage, own) = (self.lineage.clone(), name.to_owned());
        let words = Named { schema: SCHEMA_FILE, lineage, system, name: own, sha256: sha256(bytes) };
        let words = serde_json::to_vec(&words)
            .map_err(|error| DriverError::new(ErrorKind::Other, what).because(error))?;
        self.repository
            .journal_put(&words, bytes, &self.control)
            .map(|id| HeldFile { system, name: name.to_owned(), key: id.hex() })
            .map_err(|error| driver_error(what, error))
    }

    fn files(&self) -> Result<Vec<HeldFile>, DriverError> {
        Ok(self.all()?.1)
    }

    fn read_file(&self, file: &HeldFile) -> Result<Bytes, DriverError> {
        let id = Self::named(&file.key)?;
        let (words, bytes) = self
            .repository
            .journal_get(&id, &self.control)
            .map_err(|error| driver_error("read a file of the log", error))?;
        let words: Named = serde_json::from_slice(&words).map_err(|error| wrong(&id, error))?;
        let is_it = words.system == file.system && words.name == file.name && words.lineage == self.lineage;
        if !is_it || words.sha256 != sha256(&bytes) {
            return Err(wrong(&id, "it is another file than it was").code(FindingCode::ObjectSwapped));
        }
        Ok(Bytes::from(bytes))
    }

    fn set_apart(&self, pieces: &[HeldPiece], at: Timestamp) -> Result<(), DriverError> {
        let what = "set pieces of the log apart";
        let failed = |error| DriverError::new(ErrorKind::Other, what).because(error);
        let keys: Vec<&str> = pieces.iter().map(|piece| piece.key.as_str()).collect();
        let list = serde_json::to_vec(&keys).map_err(failed)?;
        let lineage = self.lineage.clone();
        let words = Apart { schema: SCHEMA_APART, lineage, apart: at, sha256: sha256(&list) };
        let words = serde_json::to_vec(&words).map_err(failed)?;
        let put = self.repository.journal_put(&words, &list, &self.control);
        put.map(|_| ()).map_err(|error| driver_error(what, error))
    }

    fn remove(&self, pieces: &[HeldPiece]) -> Result<(), DriverError> {
        let ids = pieces.iter().map(Self::id).collect::<Result<Vec<_>, _>>()?;
        self.repository
            .journal_remove(&ids, &self.control)
            .map_err(|error| driver_error("let go of pieces of the log that a copy holds", error))
    }
}
