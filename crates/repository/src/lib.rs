//! The store: restic's repository format version 2, read and written byte for byte.
//!
//! The promise: what this crate writes, stock restic restores; what restic wrote, this crate restores. It depends on
//! nothing else of ours. Codecs ([`crypto`], [`pack`], [`index`], [`tree`], [`snapshot`], [`chunker`]) are pure
//! functions; input and output are a thin shell over `object_store`.
//!
//! What it never does: it never takes a listing error for an empty list, never reports a stream that broke off as
//! stored, never shows a snapshot before everything under it is durable, never hands out a byte whose hash it has not
//! compared, never creates a name outside the directory it restores into, and never deletes a pack that an index names.
//!
//! All calls block; make them from threads that may.

pub mod chunker;
pub mod config;
pub mod crypto;
pub mod index;
pub mod key;
pub mod pack;
pub mod polynomial;
pub mod quote;
pub mod snapshot;
pub mod time;
pub mod tree;

mod archiver;
mod blob;
mod check;
mod control;
mod copy;
mod error;
mod fault;
mod forget;
mod id;
mod journal;
mod json;
mod large;
mod local;
mod lock;
mod marks;
mod names;
mod packer;
mod packs;
mod plan;
mod printable;
mod prune;
mod reach;
mod read;
mod records;
mod repository;
mod restore;
mod seen;
mod session;
mod spool;
mod store;
mod takeover;
mod transfer;
mod treewriter;
mod whole;

pub use archiver::{ChooseCuts, TreeEvent, TreeOptions, TreeOutcome, TreeReport};
pub use check::{CheckLock, CheckOptions, CheckRead, CheckReport, FaultKind, Finding, Reach};
pub use chunker::Cuts;
pub use control::{Control, Progress};
pub use copy::{Copied, CopyOf, CopyOptions, CopyReport, Share, SourceLock, copy};
pub use error::{Object, RepositoryError, Result, Stop};
pub use fault::{StoreFault, StoreWords};
pub use forget::{ForgetOptions, ForgetReport};
pub use id::{BlobKind, Id, KeyId, SnapshotId};
pub use json::Base64;
pub use key::KdfParams;
pub use local::LocalStore;
pub use lock::{Lock, LockHolder, LockKind, survive_hangup};
pub use prune::{Amount, PruneOptions, PruneReport};
pub use read::{FileReader, SnapshotEntry, Step};
pub use repository::{InitOptions, KeySummary, OpenOptions, Repository};
pub use restore::{Owners, RestoreOptions, RestoreProblem, RestoreSummary};
pub use session::{
    Committed, FileMeta, FileWriter, Incomplete, IncompleteReason, ParentUse, Piece, SETTLED, Session,
    SessionOptions, SnapshotPath, StoredFile,
};
pub use snapshot::{Snapshot, SnapshotSummary};
pub use store::{Attest, Attested, FileKind, Listed, Store, open_store};
pub use takeover::TakenOver;
pub use time::Time;
pub use tree::{Node, NodeKind, Xattr};
pub use whole::Needs;
