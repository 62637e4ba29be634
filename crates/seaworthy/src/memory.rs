//! Our memory as the verbs see it: the ledger in the state directory and what is derived from it.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use seaworthy_catalog::{
    Catalog as _, CatalogError, OpenMode, PointQuery, ReceiptName, ReceiptQuery, SqliteCatalog, export,
    facts_as_of,
};
use seaworthy_engine::{Ledger, NotaryError};
use seaworthy_model::assess::SourceHistory;
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::id::{RepositoryId, ServiceName, SourceName};
use seaworthy_model::point::RecoveryPoint;
use seaworthy_model::receipt::{Act, Head, Receipt, verify_one};
use seaworthy_model::signature::{Envelope, TrustedKeys};

use crate::cli::args::Cli;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::state::State;
use crate::wiring::blocking;

/// Receipts read at once.
const BATCH: u32 = 1_000;

/// The catalogue.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    catalogue: Arc<SqliteCatalog>,
}

pub(crate) fn failure(what: &str, error: &CatalogError) -> Failure {
    let exit = match error {
        CatalogError::Missing(_) => Exit::NotFound,
        CatalogError::Locked | CatalogError::Held { .. } => Exit::Locked,
        CatalogError::Exposed { .. } => Exit::Refused,
        CatalogError::Unsound { .. } | CatalogError::Diverged(_) => Exit::Findings,
        CatalogError::Io { .. }
        | CatalogError::Foreign(_)
        | CatalogError::Newer { .. }
        | CatalogError::Conflict { .. }
        | CatalogError::Unfit { .. }
        | CatalogError::Receipt(_)
        | CatalogError::Fenced { .. }
        | CatalogError::Damaged(_)
        | CatalogError::Closed
        | CatalogError::Sqlite(_) => Exit::Unexpected,
    };
    let failure = Failure::because(exit, what, error);
    match error {
        CatalogError::Missing(_) => failure.hint("nothing has been backed up with this state directory yet: seaworthy backup; on a new machine, for copies that are elsewhere: seaworthy catalogue rebuild"),
        CatalogError::Damaged(_) => failure.hint("move the file away, then: seaworthy catalogue rebuild --receipts EXPORTED-LEDGER"),
        CatalogError::Locked | CatalogError::Held { .. } => failure.hint("another seaworthy holds it: wait for it to end, then run this again"),
        CatalogError::Io { .. } | CatalogError::Sqlite(_) => failure.hint("is the state directory full or read-only? What it holds is untouched; make room and run this again"),
        _ => failure,
    }
}

impl Memory {
    /// Opens the catalogue, and makes it where there is none.
    pub(crate) async fn open(state: &State) -> Outcome<Self> {
        Self::at(state.catalogue().as_path(), OpenMode::OrCreate).await
    }

    /// Opens the catalogue of earlier runs; a private copy of it where nothing at all may change.
    pub(crate) async fn open_to_read(cli: &Cli, state: &State) -> Outcome<Self> {
        Self::open_existing(cli.global.dry_run, state).await
    }

    /// The same for whoever knows whether this is a rehearsal.
    pub(crate) async fn open_existing(is_rehearsal: bool, state: &State) -> Outcome<Self> {
        if is_rehearsal {
            return Self::open_copy(state, OpenMode::Existing).await;
        }
        Self::at(state.catalogue().as_path(), OpenMode::Existing).await
    }

    /// Opens a private copy of the catalogue of earlier runs, for a rehearsal: whatever is done, the catalogue stays as it is.
    pub(crate) async fn open_copy(state: &State, mode: OpenMode) -> Outcome<Self> {
        let path = state.catalogue();
        let catalogue = blocking(move || {
            SqliteCatalog::open_copy(&path, mode).map_err(|error| failure("look at the catalogue", &error))
        })
        .await?;
        Ok(Self { catalogue: Arc::new(catalogue) })
    }

    async fn at(path: &Path, mode: OpenMode) -> Outcome<Self> {
        let path = path.to_owned();
        let catalogue = blocking(move || {
            SqliteCatalog::open(&path, mode).map_err(|error| failure("open the catalogue", &error))
        })
        .await?;
        Ok(Self { catalogue: Arc::new(catalogue) })
    }

    /// The catalogue itself.
    pub(crate) fn catalogue(&self) -> &SqliteCatalog {
        &self.catalogue
    }

    /// The ledger, for the notary.
    pub(crate) fn ledger(&self) -> Arc<dyn Ledger> {
        Arc::new(Pages(Arc::clone(&self.catalogue)))
    }

    /// Histories of all sources as of `now`: the newest ones where `now` is not in the past.
    pub(crate) async fn histories(&self, now: Timestamp) -> Outcome<Vec<SourceHistory>> {
        let what = "read the catalogue";
        let (_, histories) = self.catalogue.histories(None).await.map_err(|error| failure(what, &error))?;
        let is_current = histories.iter().filter_map(|history| history.at).all(|at| at <= now);
        if is_current {
            return Ok(histories);
        }
        let facts = facts_as_of(self.catalogue.as_ref(), now).await.map_err(|error| failure(what, &error))?;
        Ok(facts.histories.into_values().collect())
    }

    /// Recovery points of one source, oldest first.
    pub(crate) async fn points(
        &self,
        service: &ServiceName,
        source: &SourceName,
    ) -> Outcome<Vec<RecoveryPoint>> {
        let query =
            PointQuery { service: Some(service.clone()), source: Some(source.clone()), repository: None };
        self.catalogue.points(&query).await.map_err(|error| failure("read the recovery points", &error))
    }

    /// Every recovery point in one repository, gone ones included.
    pub(crate) async fn points_in(&self, repository: &RepositoryId) -> Outcome<Vec<RecoveryPoint>> {
        let query = PointQuery { repository: Some(repository.clone()), ..PointQuery::default() };
        self.catalogue.points(&query).await.map_err(|error| failure("read the recovery points", &error))
    }

    /// Every recovery point there is, gone ones included.
    pub(crate) async fn every_point(&self) -> Outcome<Vec<RecoveryPoint>> {
        let found = self.catalogue.points(&PointQuery::default()).await;
        found.map_err(|error| failure("read the recovery points", &error))
    }

    /// The last looks at all copies that were sealed until `known_by`, newest first.
    pub(crate) async fn looks(&self, known_by: Timestamp) -> Outcome<Vec<Receipt>> {
        // 16: a service that is looked at by itself is found again among the others' looks; whoever has more services than that looks
        // at all of them at once.
        let query =
            ReceiptQuery { act: Some("comply".to_owned()), newest_first: true, ..ReceiptQuery::after(0, 16) };
        let found =
            self.catalogue.receipts(&query).await.map_err(|error| failure("read the ledger", &error))?;
        let mut looks = Vec::new();
        for stored in found {
            let receipt = stored.receipt().map_err(|error| failure("read a receipt", &error))?;
            if receipt.at <= known_by {
                looks.push(receipt);
            }
        }
        Ok(looks)
    }

    /// Every receipt, in order.
    pub(crate) async fn receipts(&self) -> Outcome<Vec<Receipt>> {
        let mut receipts = Vec::new();
        let mut after = 0;
        loop {
            let batch = self
                .catalogue
                .receipts(&ReceiptQuery::after(after, BATCH))
                .await
                .map_err(|error| failure("read the ledger", &error))?;
            let Some(last) = batch.last() else { return Ok(receipts) };
            after = last.sequence;
            for stored in &batch {
                receipts.push(stored.receipt().map_err(|error| failure("read a receipt", &error))?);
            }
        }
    }

    /// What keeps a point of this source from being believed; `None` where the receipt by which it is known is in the ledger,
    /// is signed by a key that is trusted here, and says the same as the point.
    ///
    /// What is derived from receipts is a convenience: a proof rests on the receipt.
    pub(crate) async fn doubts(
        &self,
        service: &ServiceName,
        source: &SourceName,
        point: &RecoveryPoint,
        keys: &TrustedKeys,
    ) -> Outcome<Option<Finding>> {
        let query =
            ReceiptQuery { name: Some(ReceiptName::Sequence(point.sequence)), ..ReceiptQuery::after(0, 1) };
        let found =
            self.catalogue.receipts(&query).await.map_err(|error| failure("read the ledger", &error))?;
        let subject = format!("receipt {}", point.sequence);
        let altered = |detail: String| Some(Finding::new(FindingCode::ReceiptAltered, &subject, detail));
        let Some(stored) = found.first() else {
            let detail = "the receipt by which the copy is known is not in the ledger";
            return Ok(Some(Finding::new(FindingCode::LedgerCut, subject, detail)));
        };
        let receipt = match stored.envelope() {
            Ok(envelope) => match verify_one(&envelope, keys) {
                Ok(receipt) => receipt,
                Err(error) => {
                    return Ok(altered(format!(
                        "the copy is known by a receipt that does not verify: {error}; if it is of a ledger that was taken \
                         over from another host, name that host's key: seaworthy catalogue rebuild --key FILE"
                    )));
                }
            },
            Err(error) => return Ok(altered(error.to_string())),
        };
        let is_said = RecoveryPoint::made_by(&receipt).is_some_and(|said| {
            (&said.service, &said.source) == (service, source)
                && (&point.service, &point.source) == (service, source)
                && (said.sequence, &said.run, said.point, said.outcome)
                    == (point.sequence, &point.run, point.point, point.outcome)
                && (&said.repository.id, &said.copy, &said.witness)
                    == (&point.repository.id, &point.copy, &point.witness)
        });
        if is_said {
            return Ok(None);
        }
        let detail = "the catalogue's point is not what this receipt says; run `seaworthy catalogue rebuild`";
        Ok(altered(detail.to_owned()))
    }

    /// Identity of the source that a backup captured, from the receipt by which its copy is known.
    pub(crate) async fn source_identity(&self, backup: u64) -> Outcome<Option<String>> {
        let query = ReceiptQuery { name: Some(ReceiptName::Sequence(backup)), ..ReceiptQuery::after(0, 1) };
        let found =
            self.catalogue.receipts(&query).await.map_err(|error| failure("read the ledger", &error))?;
        let Some(stored) = found.first() else { return Ok(None) };
        match stored.receipt().map_err(|error| failure("read a receipt", &error))?.act {
            Act::Backup(backup) => Ok(backup.source_identity),
            Act::Found(found) => Ok(found.source_identity),
            Act::Replicate(replicate) => Ok(replicate.source_identity),
            Act::Due(_)
            | Act::Drill(_)
            | Act::Restore(_)
            | Act::Verify(_)
            | Act::Abandoned(_)
            | Act::KeyChange(_)
            | Act::Gone(_)
            | Act::Retain(_)
            | Act::Hold(_)
            | Act::Release(_)
            | Act::Approve(_)
            | Act::Prune(_)
            | Act::Key(_)
            | Act::Comply(_) => Ok(None),
        }
    }
}

/// The whole ledger, one envelope a line, for verbs that do not wait for anything.
///
/// In a rehearsal it is read from a private copy of the catalogue, so that nothing at all changes.
pub(crate) fn export_text(state: &State, is_rehearsal: bool) -> Outcome<String> {
    let path = state.catalogue();
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .map_err(|error| Failure::because(Exit::Unexpected, "start the runtime", &error))?;
        let opened = if is_rehearsal {
            SqliteCatalog::open_copy(&path, OpenMode::Existing)
        } else {
            SqliteCatalog::open(&path, OpenMode::Existing)
        };
        let catalogue = opened.map_err(|error| failure("open the catalogue", &error))?;
        let mut bytes = Vec::new();
        runtime
            .block_on(export(&catalogue, &mut bytes))
            .map_err(|error| failure("export the ledger", &error))?;
        String::from_utf8(bytes)
            .map_err(|error| Failure::because(Exit::Unexpected, "export the ledger", &error))
    };
    // A thread of its own: the caller may be inside a runtime already.
    std::thread::spawn(work)
        .join()
        .map_err(|_| Failure::new(Exit::Unexpected, "the export's thread panicked"))?
}

/// The catalogue as the notary sees it.
#[derive(Debug)]
struct Pages(Arc<SqliteCatalog>);

#[async_trait]
impl Ledger for Pages {
    async fn head(&self) -> Result<Option<Head>, NotaryError> {
        self.0.head().await.map_err(|error| NotaryError::Ledger(Box::new(error)))
    }

    async fn append(&self, expected: Option<&Head>, envelope: &Envelope) -> Result<bool, NotaryError> {
        match self.0.append(expected, vec![envelope.to_json()], None).await {
            Ok(_) => Ok(true),
            Err(CatalogError::Conflict { .. }) => Ok(false),
            Err(error) => Err(NotaryError::Ledger(Box::new(error))),
        }
    }
}
