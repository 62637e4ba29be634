//! The doors: what the engine asks of the world, and the context every long call is given.
//!
//! Drivers implement these traits; the engine calls them and knows no driver's name. Drivers do not retry, schedule,
//! log outcomes or read the environment.

pub mod adopted;
pub mod copy;
pub mod cx;
pub mod error;
pub mod journal;
pub mod sandbox;
pub mod source;

pub use adopted::{Adopted, AdoptedRestore, Fetched};
pub use copy::{
    CopyEntry, CopyFile, CopyPath, CopyReader, CopyWriter, Cuts, EarlierCopy, EntryKind, Piece, Restoring,
    StoredFile, TreeEntry, TreeOptions,
};
pub use cx::{Cx, Progress, Stop};
pub use error::{DriverError, ErrorKind};
pub use journal::{Handed, HeldFile, HeldPiece, Journal, PieceOf, Pushed, Streamed};
pub use sandbox::{Exec, ExecOutcome, Sandbox, SandboxFacts, SandboxProcess, SandboxProvider};
pub use source::{
    Captured, Damage, Delivered, Following, LogFile, NewTarget, Opening, Released, Restored, Source,
    SourceFacts,
};
