//! The journal of one source, in a repository.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use seaworthy_interface::{Cx, DriverError, ErrorKind, HeldPiece, Journal, PieceOf};
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
        Self { repository: repository.clone(), control, lineage }
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
        Id::parse(&piece.key)
            .ok_or_else(|| DriverError::new(ErrorKind::NotFound, format!("find the piece `{}`", piece.key)))
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
        let what = "look what is kept of the log";
        let (mut held, mut apart) = (Vec::new(), BTreeMap::new());
        for listed in self.repository.journal(&self.control).map_err(|error| driver_error(what, error))? {
            let words = match self.repository.journal_words(&listed.id, &self.control) {
                Ok(words) => words,
                // Removed by somebody else meanwhile: a copy holds it.
                Err(RepositoryError::Missing { .. }) => continue,
                Err(error) => return Err(driver_error(what, error)),
            };
            let any: Any = serde_json::from_slice(&words).map_err(|error| wrong(&listed.id, error))?;
            if any.schema != SCHEMA && any.schema != SCHEMA_APART {
                return Err(wrong(&listed.id, format!("a newer version has written it ({})", any.schema)));
            }
            if any.lineage != self.lineage {
                continue;
            }
            if any.schema == SCHEMA_APART {
                for (key, at) in self.apart(&listed.id)? {
                    let first = apart.entry(key).or_insert(at);
                    *first = at.min(*first);
                }
                continue;
            }
            let words: Words = serde_json::from_slice(&words).map_err(|error| wrong(&listed.id, error))?;
            held.push(HeldPiece { of: words.of, key: listed.id.hex(), apart: None });
        }
        for piece in &mut held {
            piece.apart = apart.get(&piece.key).copied();
        }
        held.sort_by(|one, other| {
            let of = |piece: &HeldPiece| (piece.of.system, piece.of.timeline, piece.of.from, piece.of.to);
            of(one).cmp(&of(other)).then_with(|| one.key.cmp(&other.key))
        });
        Ok(held)
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
