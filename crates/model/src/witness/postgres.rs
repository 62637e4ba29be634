//! The truth about a postgres source at one instant.

use serde::{Deserialize, Serialize};

use crate::verdict::CheckReport;

/// Placeholder, replaced by the postgres room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostgresWitness {
    /// Version of this shape.
    pub version: u32,
}

impl PostgresWitness {
    /// Names of the checks that a drill of this witness must carry out, in order.
    #[must_use]
    pub fn checks(&self) -> Vec<String> {
        Vec::new()
    }

    /// Compares what was observed in a restore with this witness: one report for each of [].
    #[must_use]
    pub fn compare(&self, _observed: &Self) -> Vec<CheckReport> {
        Vec::new()
    }
}
