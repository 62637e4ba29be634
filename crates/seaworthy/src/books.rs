//! The ledger, verified receipt by receipt and folded into what bears on retention: nothing is let go on the word of a table that is
//! only derived from it.

use seaworthy_catalog::{Catalog as _, ReceiptQuery};
use seaworthy_model::ledger::{ChainVerifier, Known};
use seaworthy_model::retention::Ground;
use seaworthy_model::signature::TrustedKeys;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::memory::{Memory, failure};

/// Receipts read at once.
const BATCH: u32 = 1_000;

/// What the ledger says, as far as it was read.
pub(crate) struct Books {
    verifier: ChainVerifier,
    ground: Ground,
    after: u64,
}

impl Books {
    /// Verifies the whole ledger.
    pub(crate) async fn open(memory: &Memory, keys: TrustedKeys) -> Outcome<Self> {
        let verifier = ChainVerifier::new(keys, Known::default());
        let mut books = Self { verifier, ground: Ground::default(), after: 0 };
        books.catch_up(memory).await?;
        Ok(books)
    }

    /// Reads on, to the ledger's present end.
    pub(crate) async fn catch_up(&mut self, memory: &Memory) -> Outcome<()> {
        loop {
            let query = ReceiptQuery::after(self.after, BATCH);
            let batch = memory
                .catalogue()
                .receipts(&query)
                .await
                .map_err(|error| failure("read the ledger", &error))?;
            let Some(last) = batch.last() else { return Ok(()) };
            self.after = last.sequence;
            for stored in &batch {
                let envelope =
                    stored.envelope().map_err(|error| unsound(stored.sequence, &error.to_string()))?;
                match self.verifier.next(&envelope) {
                    Some(receipt) => self.ground.apply(&receipt),
                    None => {
                        let why = self.verifier.worst().unwrap_or_else(|| "it does not verify".to_owned());
                        return Err(unsound(stored.sequence, &why));
                    }
                }
            }
        }
    }

    /// What the receipts say.
    pub(crate) fn ground(&self) -> &Ground {
        &self.ground
    }
}

fn unsound(sequence: u64, why: &str) -> Failure {
    Failure::new(
        Exit::Refused,
        format!("receipt {sequence} of the ledger does not verify: {why}; what is in doubt lets nothing go"),
    )
    .hint("seaworthy verify")
}
