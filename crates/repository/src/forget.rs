//! Removing snapshots. What only they referred to stays until a prune.

use std::cmp::Reverse;

use crate::control::Control;
use crate::error::{Object, RepositoryError, Result};
use crate::id::SnapshotId;
use crate::lock::{Lock, LockKind};
use crate::repository::Repository;
use crate::snapshot::Snapshot;
use crate::store::FileKind;

/// What removing snapshots may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForgetOptions {
    /// Nothing that can be read need be left.
    pub may_leave_none: bool,
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ForgetReport {
    /// The snapshots, oldest first.
    pub removed: Vec<(SnapshotId, Snapshot)>,
    /// How many are left.
    pub left: u64,
}

impl Repository {
    /// Removes these snapshots under an exclusive lock, oldest first, and durably; none of them when one is not there or
    /// cannot be read.
    ///
    /// Refuses to leave no snapshot that can be read, unless that is allowed. After an error of the store, or a stop, some of
    /// them may be gone: what is listed then is what is there. A store that refuses to delete is such an error. On a store that
    /// keeps versions, or holds them, deleting only hides.
    pub fn forget(
        &self,
        ids: &[SnapshotId],
        options: &ForgetOptions,
        control: &Control,
    ) -> Result<ForgetReport> {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() {
            return Ok(ForgetReport {
                left: self.store().list(FileKind::Snapshot, control)?.len() as u64,
                removed: Vec::new(),
            });
        }
        let lock = self.lock(LockKind::Exclusive, control)?;
        let report = self.forget_under(&lock, &ids, options, control)?;
        // They are gone: a lock file that stays is no reason to call it failed. It is reaped later.
        lock.release().ok();
        Ok(report)
    }

    /// The same, under a lock that is held already and must be exclusive: whoever has looked under it removes what they saw.
    ///
    /// Before each snapshot the lock file is looked for; once it is gone nothing more is removed, and that is an error.
    pub fn forget_under(
        &self,
        lock: &Lock,
        ids: &[SnapshotId],
        options: &ForgetOptions,
        control: &Control,
    ) -> Result<ForgetReport> {
        if lock.kind() != LockKind::Exclusive {
            return Err(RepositoryError::refused("the lock is a shared one, and others may be writing"));
        }
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids.dedup();
        let listed: Vec<SnapshotId> =
            self.store().list(FileKind::Snapshot, control)?.into_iter().map(|listed| listed.id).collect();
        let mut doomed = Vec::with_capacity(ids.len());
        for id in &ids {
            if !listed.contains(id) {
                return Err(RepositoryError::missing(Object::Snapshot, id));
            }
            doomed.push((*id, self.snapshot(id, control)?));
        }
        let left: Vec<SnapshotId> = listed.into_iter().filter(|id| ids.binary_search(id).is_err()).collect();
        if !options.may_leave_none && !self.is_any_readable(&left, control)? {
            let why = match left.len() {
                0 => "no snapshot would be left".to_owned(),
                n => format!("none of the {n} snapshots that would be left can be read"),
            };
            return Err(RepositoryError::refused(why));
        }
        // A stop in between leaves the newest.
        doomed.sort_by_key(|(id, snapshot)| Reverse((snapshot.time.unix_nanos(), *id)));
        let mut removed = Vec::with_capacity(doomed.len());
        while let Some((id, snapshot)) = doomed.pop() {
            // A machine that slept does not notice by its own clock how long: who took our lock for that of somebody dead may be
            // writing by now.
            lock.ensure_now(control)?;
            control.check()?;
            self.store().delete(FileKind::Snapshot, &id, control)?;
            removed.push((id, snapshot));
        }
        self.store().settle(FileKind::Snapshot)?;
        Ok(ForgetReport { removed, left: left.len() as u64 })
    }

    fn is_any_readable(&self, ids: &[SnapshotId], control: &Control) -> Result<bool> {
        for id in ids {
            match self.snapshot(id, control) {
                Ok(_) => return Ok(true),
                Err(RepositoryError::Damaged { .. } | RepositoryError::Inconsistent { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}
