//! The door to what is kept of a server's log until a copy holds it.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use seaworthy_model::wal::{Lsn, SegmentSize, Timeline};
use serde::{Deserialize, Serialize};

use crate::error::DriverError;

/// Where a piece of a log belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PieceOf {
    /// The cluster.
    pub system: u64,
    /// The timeline.
    pub timeline: Timeline,
    /// How long the log's files are; a piece lies in one of them.
    pub segment_bytes: SegmentSize,
    /// Its first position.
    pub from: Lsn,
    /// The position behind its last.
    pub to: Lsn,
    /// When the server's log ended where this ends, by the server's clock: nothing that was written before then lies behind it. Unknown where the
    /// server had more already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete_at: Option<Timestamp>,
}

impl PieceOf {
    /// Whether it holds nothing and only says when the log ended there: an idle server writes nothing that would say so.
    #[must_use]
    pub fn is_mark(&self) -> bool {
        self.from == self.to
    }
}

/// A piece that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldPiece {
    /// Where it belongs.
    pub of: PieceOf,
    /// Its name where it is kept.
    pub key: String,
    /// When it was set apart: the server was put back then, and its log goes on otherwise. Copies from before lead on to it, later ones
    /// do not.
    pub apart: Option<Timestamp>,
}

/// A file that is kept beside the pieces of a log, whole and by its name: where timelines left one another, the note of a base backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldFile {
    /// The cluster.
    pub system: u64,
    /// The name that the server gave it.
    pub name: String,
    /// Its name where it is kept.
    pub key: String,
}

/// What is kept of one source's log, outside of copies. Calls block.
pub trait Journal: Send + Sync {
    /// Keeps a piece: durable when this returns.
    fn put(&self, of: &PieceOf, bytes: &Bytes) -> Result<HeldPiece, DriverError>;

    /// Everything that is kept of this source, in the order of its positions. An error is never an empty list.
    fn held(&self) -> Result<Vec<HeldPiece>, DriverError>;

    /// The bytes of a piece, authenticated.
    fn read(&self, piece: &HeldPiece) -> Result<Bytes, DriverError>;

    /// Lets go of pieces that copies hold.
    fn remove(&self, pieces: &[HeldPiece]) -> Result<(), DriverError>;

    /// Keeps a file whole, under a name: durable when this returns.
    fn put_file(&self, system: u64, name: &str, bytes: &Bytes) -> Result<HeldFile, DriverError>;

    /// The files that are kept whole. An error is never an empty list.
    fn files(&self) -> Result<Vec<HeldFile>, DriverError>;

    /// [`Self::held`] and [`Self::files`] of one look.
    fn all(&self) -> Result<(Vec<HeldPiece>, Vec<HeldFile>), DriverError> {
        Ok((self.held()?, self.files()?))
    }

    /// The bytes of such a file, authenticated.
    fn read_file(&self, file: &HeldFile) -> Result<Bytes, DriverError>;

    /// Says that the log of these pieces is not the server's any more; they stay where they are. All of them or none: durable when
    /// this returns.
    fn set_apart(&self, pieces: &[HeldPiece], at: Timestamp) -> Result<(), DriverError>;
}

/// What became of a file of its log that a server handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// So many bytes of it were stored; what was kept of it before is the same.
    Stored(u64),
    /// All of it was kept before, and is the same.
    Known,
}

/// What a server that recovers is handed when it asks for a file of its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handed {
    /// The file.
    File(Bytes),
    /// Its beginning, with zeros behind it: all that is kept of its timeline ends there.
    UpTo(Bytes, Lsn),
    /// Nothing: what is kept of the log ends before it.
    Beyond,
}

/// How far a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streamed {
    /// Everything before it is durable.
    pub durable: Lsn,
    /// The server's own log goes as far as this.
    pub server: Lsn,
    /// When the server's log ended where what is durable ends, by its clock: nothing older is missing. Unknown where that was never so.
    pub complete_at: Option<Timestamp>,
    /// Pieces and bytes that were stored.
    pub stored: (u64, u64),
    /// How long the first byte of the last piece had been here before it was durable; unknown where nothing was stored yet.
    pub waited: Option<Duration>,
}
