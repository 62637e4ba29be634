//! Restores a copy for people: to a directory, or to a new database on a server of theirs. Never to one that exists.

use std::sync::Arc;

use seaworthy_interface::{CopyReader, Cx, Delivered, DriverError, ErrorKind, NewTarget};
use seaworthy_model::witness::postgres::PostgresWitness;

use super::PostgresSource;

impl PostgresSource {
    pub(super) async fn deliver_to(
        &self,
        _cx: &Cx,
        _witness: &PostgresWitness,
        _from: Arc<dyn CopyReader>,
        _to: &NewTarget,
    ) -> Result<Delivered, DriverError> {
        Err(DriverError::new(ErrorKind::Unsupported, "restore for people"))
    }
}
