//! The notary: seals what was done as the next receipt of the ledger.

use std::sync::Arc;

use jiff::Timestamp;
use seaworthy_model::receipt::{Act, Head, Receipt, SealError, read_unverified, seal};
use seaworthy_model::signature::{Envelope, SigningKey};

/// Why something could not be put into the ledger.
#[derive(Debug, thiserror::Error)]
pub enum NotaryError {
    /// The ledger refused or failed.
    #[error("write to the ledger")]
    Ledger(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It has no canonical form.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A receipt of our own cannot be read back.
    #[error("read back a receipt")]
    ReadBack(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Somebody else kept appending.
    #[error("the ledger's head moved {0} times while a receipt was being appended")]
    Contended(u32),
}

/// What the notary needs of a ledger: its head, and appending on the condition that the head has not moved.
#[async_trait::async_trait]
pub trait Ledger: Send + Sync {
    /// The newest receipt's place; `None` for an empty ledger.
    async fn head(&self) -> Result<Option<Head>, NotaryError>;

    /// Appends durably if the head is still `expected`; `false` when it has moved.
    async fn append(&self, expected: Option<&Head>, envelope: &Envelope) -> Result<bool, NotaryError>;
}

/// How often an append is tried against a moving head.
const TRIES: u32 = 20;

/// Seals acts.
pub struct Notary {
    ledger: Arc<dyn Ledger>,
    key: Arc<SigningKey>,
}

impl std::fmt::Debug for Notary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notary").finish_non_exhaustive()
    }
}

impl Notary {
    /// A notary that writes to `ledger` with `key`.
    #[must_use]
    pub fn new(ledger: Arc<dyn Ledger>, key: Arc<SigningKey>) -> Self {
        Self { ledger, key }
    }

    /// The key that it signs with.
    #[must_use]
    pub fn key(&self) -> Arc<SigningKey> {
        Arc::clone(&self.key)
    }

    /// Seals `act` as the next receipt; it is durable when this returns.
    pub async fn commit(&self, act: &Act, at: Timestamp) -> Result<Receipt, NotaryError> {
        for _ in 0..TRIES {
            let head = self.ledger.head().await?;
            let envelope = seal(act, at, head.as_ref(), &self.key)?;
            if self.ledger.append(head.as_ref(), &envelope).await? {
                return read_unverified(&envelope).map_err(|error| NotaryError::ReadBack(Box::new(error)));
            }
        }
        Err(NotaryError::Contended(TRIES))
    }
}
