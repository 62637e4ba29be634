//! The journal of one source, in a repository.

use bytes::Bytes;
use seaworthy_interface::{Cx, DriverError, ErrorKind, HeldPiece, Journal, PieceOf};
use seaworthy_model::finding::FindingCode;
use seaworthy_model::id::Digest;
use seaworthy_model::signature::sha256;
use seaworthy_repository::{Control, Id, Repository, RepositoryError};
use serde::{Deserialize, Serialize};

use crate::store::{control, driver_error};

/// The form of the words about a piece.
const SCHEMA: u32 = 1;

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
            .map(|id| HeldPiece { of: *of, key: id.hex() })
            .map_err(|error| driver_error(what, error))
    }

    fn held(&self) -> Result<Vec<HeldPiece>, DriverError> {
        let what = "look what is kept of the log";
        let mut held = Vec::new();
        for listed in self.repository.journal(&self.control).map_err(|error| driver_error(what, error))? {
            let words = match self.repository.journal_words(&listed.id, &self.control) {
                Ok(words) => words,
                // Removed by somebody else meanwhile: a copy holds it.
                Err(RepositoryError::Missing { .. }) => continue,
                Err(error) => return Err(driver_error(what, error)),
            };
            let words: Words = serde_json::from_slice(&words).map_err(|error| wrong(&listed.id, error))?;
            if words.schema != SCHEMA {
                return Err(wrong(&listed.id, format!("a newer version has written it ({})", words.schema)));
            }
            if words.lineage == self.lineage {
                held.push(HeldPiece { of: words.of, key: listed.id.hex() });
            }
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

    fn remove(&self, pieces: &[HeldPiece]) -> Result<(), DriverError> {
        let ids = pieces.iter().map(Self::id).collect::<Result<Vec<_>, _>>()?;
        self.repository
            .journal_remove(&ids, &self.control)
            .map_err(|error| driver_error("let go of pieces of the log that a copy holds", error))
    }
}
