//! Our memory: the ledger of receipts, and what is derived from it.
//!
//! Receipts are the truth and are kept as they came, byte for byte; they are never changed or removed. Points and
//! histories are derived from them in the same transaction, so that `status` reads one small row for each source, and can
//! be made anew at any time ([`Catalog::rebuild`]). Claims and journals coordinate runs; losing them loses no evidence.
//!
//! One trait, one contract suite (`tests/contract.rs`) for every implementation. This crate does not judge, does not
//! know keys, and does not know what an act means beyond what `seaworthy_model` derives from its receipt. It has no
//! clock: instants are given.

use std::collections::VecDeque;
use std::fmt;
use std::io::{BufRead, Write};
use std::path::PathBuf;

use async_trait::async_trait;
use jiff::Timestamp;
use seaworthy_model::assess::{Facts, SourceHistory};
use seaworthy_model::finding::Finding;
use seaworthy_model::id::{RepositoryId, RunId, ServiceName, SourceName};
use seaworthy_model::ledger::{ChainReport, ChainVerifier, Known};
use seaworthy_model::point::RecoveryPoint;
use seaworthy_model::receipt::{Head, Receipt, ReceiptError, read_unverified};
use seaworthy_model::signature::{Envelope, TrustedKeys};

mod sqlite;

pub use sqlite::{OpenMode, SqliteCatalog};

/// Receipts moved at once by [`import`], [`export`] and [`facts_as_of`]: a few megabytes.
const BATCH: u32 = 1_000;

/// Why the catalogue did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// There is no catalogue.
    #[error("there is no catalogue at `{0}`")]
    Missing(PathBuf),
    /// Others could read it, or put another in its place.
    #[error("`{path}` is open to others (mode {mode:04o}); close it with `chmod go= {path}`")]
    Exposed {
        /// File or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file system refused.
    #[error("{attempt} `{path}`")]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A database of another program.
    #[error("`{0}` is not a catalogue of this program")]
    Foreign(PathBuf),
    /// Written by a later version.
    #[error(
        "the catalogue has layout {found}, this version knows layouts up to {known}; use the newer version"
    )]
    Newer {
        /// Layout found.
        found: u32,
        /// Newest known.
        known: u32,
    },
    /// Somebody else held it for longer than we wait.
    #[error("the catalogue is locked by another process")]
    Locked,
    /// The ledger has moved on since it was looked at: look again, seal again, append again.
    #[error("the ledger ends with {}, not with {}", shown(found.as_ref()), shown(expected.as_ref()))]
    Conflict {
        /// The head that was expected.
        expected: Option<Head>,
        /// The head that it has.
        found: Option<Head>,
    },
    /// A receipt that does not follow the ledger's head, or ends a slot that it may not end. It would not verify.
    #[error("receipt {sequence} does not fit the ledger: {detail}")]
    Unfit {
        /// Its sequence.
        sequence: u64,
        /// Why.
        detail: String,
    },
    /// Not a receipt, or one that cannot be read.
    #[error("read a receipt")]
    Receipt(#[from] ReceiptError),
    /// Somebody holds this claim.
    #[error("`{name}` is claimed by {holder} until {until}")]
    Held {
        /// What was claimed.
        name: String,
        /// By whom.
        holder: String,
        /// Until when.
        until: Timestamp,
    },
    /// The claim has been taken over or given up; whoever held it must stop.
    #[error("the claim on `{name}` (generation {generation}) is no longer held")]
    Fenced {
        /// What was claimed.
        name: String,
        /// The generation that is over.
        generation: u64,
    },
    /// What is stored cannot be read. `seaworthy catalogue rebuild` makes derived rows anew.
    #[error("the catalogue is damaged: {0}")]
    Damaged(String),
    /// The imported ledger does not verify. What was verified before that is kept.
    #[error("the ledger does not verify: {}", findings.first().map_or_else(String::new, ToString::to_string))]
    Unsound {
        /// Everything that is wrong.
        findings: Vec<Finding>,
    },
    /// The imported ledger and the one here are different chains.
    #[error("receipt {0} is another one here: the two ledgers are different chains")]
    Diverged(u64),
    /// The catalogue has been closed, or a defect ended its thread.
    #[error("the catalogue is closed")]
    Closed,
    /// SQLite refused.
    #[error("use the catalogue")]
    Sqlite(#[source] rusqlite::Error),
}

fn shown(head: Option<&Head>) -> String {
    head.map_or_else(|| "nothing".to_owned(), |head| format!("receipt {head}"))
}

impl CatalogError {
    /// Whether the same call may succeed later without anybody doing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Locked | Self::Held { .. })
    }
}

/// A receipt as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredReceipt {
    /// Its place in the ledger.
    pub sequence: u64,
    /// The envelope, byte for byte as it was appended.
    pub line: String,
}

impl StoredReceipt {
    /// The envelope, to be verified.
    pub fn envelope(&self) -> Result<Envelope, CatalogError> {
        Envelope::from_json(self.line.as_bytes()).map_err(|error| CatalogError::Receipt(error.into()))
    }

    /// The receipt; its signature is NOT verified.
    pub fn receipt(&self) -> Result<Receipt, CatalogError> {
        Ok(read_unverified(&self.envelope()?)?)
    }
}

/// A name of one receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReceiptName {
    /// Its place.
    Sequence(u64),
    /// The beginning of its digest, with or without `sha256:`.
    Digest(String),
    /// The run that it is of; there may be several.
    Run(RunId),
}

/// Which receipts to return, in order of their sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptQuery {
    /// Only those after this one.
    pub after: u64,
    /// At most this many.
    pub limit: u32,
    /// Only those about this service.
    pub service: Option<ServiceName>,
    /// Only those of this act, by its word: `backup`, `drill`, …
    pub act: Option<String>,
    /// Only those of this name.
    pub name: Option<ReceiptName>,
    /// The newest first.
    pub newest_first: bool,
}

impl ReceiptQuery {
    /// The next receipts after one.
    #[must_use]
    pub fn after(after: u64, limit: u32) -> Self {
        Self { after, limit, service: None, act: None, name: None, newest_first: false }
    }
}

/// Which points to return, in order of their receipts' sequence.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PointQuery {
    /// Only those of this service.
    pub service: Option<ServiceName>,
    /// Only those of this source.
    pub source: Option<SourceName>,
    /// Only those in this repository.
    pub repository: Option<RepositoryId>,
}

/// The right to do something alone. Later claims on the same name have higher generations and fence this one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Claim {
    /// What is claimed: `run/<id>`, `source/<service>/<source>`.
    pub name: String,
    /// Never given out twice.
    pub generation: u64,
}

/// A claim that somebody holds, or held until it ran out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldClaim {
    /// The claim. Whoever knows that its holder is dead may release it.
    pub claim: Claim,
    /// Who claimed it: host, process, and when it was started.
    pub holder: String,
    /// When it runs out.
    pub until: Timestamp,
}

/// One entry of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalEntry {
    /// Generation of the claim under which it was written.
    pub generation: u64,
    /// What was written.
    pub event: Vec<u8>,
}

/// Where receipts, and what is derived from them, are kept.
///
/// Every method either happens as a whole or not at all, also across a crash. A caller that stops waiting does not know
/// which, and looks: [`Catalog::head`] says whether an append happened.
#[async_trait]
pub trait Catalog: fmt::Debug + Send + Sync {
    /// The last receipt; `None` while there is none.
    async fn head(&self) -> Result<Option<Head>, CatalogError>;

    /// Appends receipts, each an envelope as one line of JSON, if the ledger still ends with `expected` and, where a claim
    /// is given, it is still held. Durable when this returns.
    ///
    /// A receipt that would not verify in its place (wrong sequence or previous digest, a slot that is not open) is
    /// refused. Signatures are not verified here: whoever appends has sealed them, or verified them ([`import`]).
    async fn append(
        &self,
        expected: Option<&Head>,
        lines: Vec<String>,
        claim: Option<&Claim>,
    ) -> Result<Head, CatalogError>;

    /// Receipts.
    async fn receipts(&self, query: &ReceiptQuery) -> Result<Vec<StoredReceipt>, CatalogError>;

    /// Recovery points.
    async fn points(&self, query: &PointQuery) -> Result<Vec<RecoveryPoint>, CatalogError>;

    /// The head, and the histories of a service's sources or of all, as of that head. What `status` reads.
    async fn histories(
        &self,
        service: Option<&ServiceName>,
    ) -> Result<(Option<Head>, Vec<SourceHistory>), CatalogError>;

    /// Claims a name until an instant. Refused while anybody, this process included, holds it.
    async fn claim(
        &self,
        name: &str,
        holder: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Claim, CatalogError>;

    /// Prolongs a claim that has not been taken over.
    async fn renew(&self, claim: &Claim, until: Timestamp) -> Result<(), CatalogError>;

    /// Gives up a claim and forgets its journal.
    async fn release(&self, claim: &Claim) -> Result<(), CatalogError>;

    /// Claims that have not been released, those that ran out included: what the reaper looks at.
    async fn claims(&self) -> Result<Vec<HeldClaim>, CatalogError>;

    /// Writes to the journal of what is claimed, durably; refused once the claim has been taken over.
    async fn journal(&self, claim: &Claim, event: &[u8]) -> Result<(), CatalogError>;

    /// The journal of a name, in order, of all generations since its last release.
    async fn journal_of(&self, name: &str) -> Result<Vec<JournalEntry>, CatalogError>;

    /// Makes points and histories anew from the receipts that are kept.
    async fn rebuild(&self) -> Result<(), CatalogError>;

    /// Points and histories as canonical JSON lines in a fixed order: equal ledgers yield equal bytes.
    async fn derived(&self) -> Result<Vec<u8>, CatalogError>;
}

/// Writes the ledger, one envelope in each line, and returns its head. What is appended meanwhile may be missing.
pub async fn export<C: Catalog + ?Sized>(
    catalog: &C,
    to: &mut (dyn Write + Send),
) -> Result<Option<Head>, CatalogError> {
    let failed = |source| CatalogError::Io { attempt: "export to", path: PathBuf::from("<export>"), source };
    let head = catalog.head().await?;
    let last = head.as_ref().map_or(0, |head| head.sequence);
    let mut after = 0;
    while after < last {
        let batch = catalog.receipts(&ReceiptQuery::after(after, BATCH)).await?;
        for receipt in batch.iter().filter(|receipt| receipt.sequence <= last) {
            to.write_all(receipt.line.as_bytes()).and_then(|()| to.write_all(b"\n")).map_err(failed)?;
        }
        match batch.last() {
            Some(receipt) => after = receipt.sequence,
            None => return Err(CatalogError::Damaged(format!("receipts after {after} are missing"))),
        }
    }
    to.flush().map_err(failed)?;
    Ok(head)
}

/// Takes over an exported ledger, verifying it on the way. What is here already must be the beginning of it, or it the
/// beginning of what is here; otherwise [`CatalogError::Diverged`].
///
/// Receipts are appended as they are verified: after an error those before it are kept, and importing again goes on. What
/// an authentic receipt says is not judged here, only reported.
pub async fn import<C: Catalog + ?Sized>(
    catalog: &C,
    from: &mut (dyn BufRead + Send),
    keys: &TrustedKeys,
    head: Option<&Head>,
) -> Result<ChainReport, CatalogError> {
    let mut verifier = ChainVerifier::new(keys.clone(), Known { after: None, head: head.cloned() });
    let mut here = catalog.head().await?;
    let mut known: VecDeque<StoredReceipt> = VecDeque::new();
    let mut pending: Vec<String> = Vec::new();
    let mut pending_head = here.clone();
    let mut line = String::new();
    let mut is_sound = true;
    loop {
        line.clear();
        let read = from.read_line(&mut line).map_err(|source| CatalogError::Io {
            attempt: "import from",
            path: PathBuf::from("<import>"),
            source,
        })?;
        let text = line.trim();
        if !text.is_empty() {
            let receipt = match Envelope::from_json(text.as_bytes()) {
                Ok(envelope) => verifier.next(&envelope),
                Err(error) => {
                    verifier.next_unreadable(&error);
                    None
                }
            };
            match receipt {
                Some(receipt) if is_sound => {
                    if here.as_ref().is_some_and(|head| receipt.sequence <= head.sequence) {
                        if known.is_empty() {
                            let query = ReceiptQuery::after(receipt.sequence - 1, BATCH);
                            known = catalog.receipts(&query).await?.into();
                        }
                        let is_same = match known.pop_front() {
                            Some(stored) => stored.receipt()?.digest == receipt.digest,
                            None => false,
                        };
                        if !is_same {
                            return Err(CatalogError::Diverged(receipt.sequence));
                        }
                    } else {
                        pending_head = Some(receipt.head());
                        pending.push(text.to_owned());
                    }
                }
                Some(_) => {}
                // Nothing after the first receipt that is wrong is taken over, but all that is wrong is reported.
                None => is_sound = false,
            }
        }
        let is_full = pending.len() >= usize::try_from(BATCH).unwrap_or(usize::MAX);
        if !pending.is_empty() && (is_full || read == 0) {
            catalog.append(here.as_ref(), std::mem::take(&mut pending), None).await?;
            here = pending_head.clone();
        }
        if read == 0 {
            break;
        }
    }
    let report = verifier.end();
    if !report.is_whole || report.seen == 0 {
        return Err(CatalogError::Unsound { findings: report.findings });
    }
    Ok(report)
}

/// What was known at an instant: the facts of all receipts sealed by then. Reads the whole ledger.
pub async fn facts_as_of<C: Catalog + ?Sized>(
    catalog: &C,
    instant: Timestamp,
) -> Result<Facts, CatalogError> {
    let mut facts = Facts::default();
    let mut after = 0;
    loop {
        let batch = catalog.receipts(&ReceiptQuery::after(after, BATCH)).await?;
        let Some(last) = batch.last() else { return Ok(facts) };
        after = last.sequence;
        for stored in &batch {
            let receipt = stored.receipt()?;
            if receipt.at <= instant {
                facts.apply(&receipt);
            }
        }
    }
}
