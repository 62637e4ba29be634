//! Trees of files between the store and the doors.

use std::path::Path;

use seaworthy_interface::copy::Written;
use seaworthy_interface::{DriverError, ErrorKind, TreeEntry, TreeOptions};
use seaworthy_repository::{Control, Repository, Session, SnapshotId, SnapshotPath};

pub(crate) fn archive(_session: &Session, root: &Path, _options: &TreeOptions, _observe: &(dyn Fn(TreeEntry) + Send + Sync)) -> Result<(), DriverError> {
    Err(DriverError::new(ErrorKind::Unsupported, format!("archive `{}`", root.display())))
}

pub(crate) fn restore(_repository: &Repository, _snapshot: &SnapshotId, _under: &SnapshotPath, into: &Path, _control: &Control) -> Result<Written, DriverError> {
    Err(DriverError::new(ErrorKind::Unsupported, format!("restore into `{}`", into.display())))
}
