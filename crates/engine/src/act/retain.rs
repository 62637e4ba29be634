//! Letting copies go: what a plan says is sealed, then done, then what has gone is sealed.
//!
//! | step | what                                                             | what a crash after it leaves                        |
//! |------|------------------------------------------------------------------|-----------------------------------------------------|
//! | 1    | exclusive lock; the copies are listed; a plan is made            | nothing                                             |
//! | 2    | of each newer copy that is named as the reason, all is there     | nothing                                             |
//! | 3    | the decision is sealed                                           | copies that are said to be going, and are there     |
//! | 4    | the copies are removed                                           | copies that are said to be going, and have gone     |
//! | 5    | of each that has gone, that is sealed                            | the same, fewer                                     |
//!
//! The next run ends 5 first. Until then a copy that is said to be going and is not listed is no reason to doubt the listing;
//! any other one that lacks is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use seaworthy_interface::{Cx, DriverError, ErrorKind};
use seaworthy_model::finding::FindingCode;
use seaworthy_model::id::CopyId;
use seaworthy_model::point::RecoveryPoint;
use seaworthy_model::receipt::{Gone, RepositoryRef};
use seaworthy_model::retention::{Plan, Retain};
use seaworthy_repository::{Control, FileKind, ForgetOptions, Lock, LockKind, Repository, SnapshotId};

use crate::act::survey::Survey;
use crate::store::{blocking, control, driver_error};

/// How long we look for what has gone, whatever else has run out of time.
const LOOK: Duration = Duration::from_secs(60);

/// A repository under an exclusive lock, and what it was seen to hold under it.
#[derive(Debug)]
pub struct Locked {
    repository: Repository,
    place: RepositoryRef,
    lock: Arc<Lock>,
    listed: BTreeSet<CopyId>,
}

impl Locked {
    /// Locks a repository against everybody, and lists its copies.
    pub async fn new(cx: &Cx, repository: Repository, place: RepositoryRef) -> Result<Self, DriverError> {
        let control = control(cx);
        let (locking, name) = (repository.clone(), place.name.clone());
        let (lock, listed) = blocking("lock the repository and list its copies", move || {
            let lock = locking
                .lock(LockKind::Exclusive, &control)
                .map_err(|error| driver_error(format!("lock repository {name} against everybody"), error))?;
            let listed = list(&locking, &control)?;
            Ok((lock, listed))
        })
        .await?;
        Ok(Self { repository, place, lock: Arc::new(lock), listed })
    }

    /// The repository as receipts name it.
    #[must_use]
    pub fn place(&self) -> &RepositoryRef {
        &self.place
    }

    /// The copies that are in it, and nobody but us can change that.
    #[must_use]
    pub fn listed(&self) -> &BTreeSet<CopyId> {
        &self.listed
    }

    /// What has to be said of copies that an interrupted run was removing, and that are not there any more.
    ///
    /// `owed` are those copies, `known` all copies of their sources, in whatever repository.
    #[must_use]
    pub fn owed(&self, owed: &[RecoveryPoint], known: &[RecoveryPoint], executor: &str) -> Vec<Gone> {
        Survey { present: self.listed.clone(), ..Survey::default() }.gone(&self.place, owed, known, executor)
    }

    /// Shows that all that the newer copies need is there, without which nothing may go because of them.
    pub async fn ensure_newer(&self, cx: &Cx, plan: &Plan) -> Result<(), DriverError> {
        let newer: BTreeSet<CopyId> = plan.newer().map(|newer| newer.copy.clone()).collect();
        if newer.is_empty() {
            return Ok(());
        }
        let ids = snapshots(newer.iter())?;
        let (repository, control) = (self.repository.clone(), control(cx));
        blocking("look at the newer copies", move || {
            repository
                .ensure_whole(&ids, &control)
                .map_err(|error| driver_error("look at the newer copies, for which others would go", error))
        })
        .await?;
        Ok(())
    }

    /// Removes the copies that a sealed decision names; which of them have gone, whatever became of the rest.
    pub async fn remove(&mut self, cx: &Cx, retain: &Retain) -> (Vec<CopyId>, Option<DriverError>) {
        let wanted: Vec<CopyId> = retain.removing.iter().map(|one| one.copy.clone()).collect();
        if wanted.is_empty() {
            return (Vec::new(), None);
        }
        let (repository, lock, control) = (self.repository.clone(), Arc::clone(&self.lock), control(cx));
        let ids = snapshots(wanted.iter());
        let done = match ids {
            Ok(ids) => {
                blocking("remove copies", move || {
                    let removed = repository
                        .forget_under(&lock, &ids, &ForgetOptions::default(), &control)
                        .map_err(|error| driver_error("remove copies", error));
                    // Whatever became of it: what is listed is there. A stop must not keep us from looking.
                    let deadline = Instant::now().checked_add(LOOK);
                    let listed = list(&repository, &Control { deadline, ..Control::default() });
                    Ok((removed.err(), listed))
                })
                .await
            }
            Err(error) => Err(error),
        };
        match done {
            Ok((error, Ok(listed))) => {
                let gone = wanted.into_iter().filter(|copy| !listed.contains(copy)).collect();
                self.listed = listed;
                (gone, error)
            }
            // Nobody knows: the next run sees what has gone, and says so.
            Ok((error, Err(looking))) => (Vec::new(), Some(error.unwrap_or(looking))),
            Err(error) => (Vec::new(), Some(error)),
        }
    }

    /// Lets others in again. What was done stays done: a lock that stays is reaped when this process has ended.
    pub async fn release(self) {
        let lock = self.lock;
        if let Ok(lock) = Arc::try_unwrap(lock) {
            blocking("unlock the repository", move || {
                lock.release().ok();
                Ok(())
            })
            .await
            .ok();
        }
    }
}

/// What has to be said of copies that were just removed.
#[must_use]
pub fn gone(locked: &Locked, removed: &[CopyId], known: &[RecoveryPoint], executor: &str) -> Vec<Gone> {
    let removed: Vec<RecoveryPoint> = known
        .iter()
        .filter(|point| point.repository.id == locked.place.id && removed.contains(&point.copy))
        .cloned()
        .collect();
    locked.owed(&removed, known, executor)
}

/// The names of all copies in a repository, in one request; a listing that fails is an error and never a shorter list.
pub async fn listed(cx: &Cx, repository: &Repository) -> Result<BTreeSet<CopyId>, DriverError> {
    let (repository, control) = (repository.clone(), control(cx));
    blocking("list the copies", move || list(&repository, &control)).await
}

fn list(repository: &Repository, control: &Control) -> Result<BTreeSet<CopyId>, DriverError> {
    let listed = repository
        .store()
        .list(FileKind::Snapshot, control)
        .map_err(|error| driver_error("list the copies", error))?;
    Ok(listed.into_iter().map(|one| CopyId(one.id.hex())).collect())
}

fn snapshots<'a>(copies: impl Iterator<Item = &'a CopyId>) -> Result<Vec<SnapshotId>, DriverError> {
    copies
        .map(|copy| {
            SnapshotId::parse(&copy.0).ok_or_else(|| {
                DriverError::new(ErrorKind::Other, format!("name copy {copy}"))
                    .code(FindingCode::IndexInconsistent)
                    .because("it is no name of a snapshot")
            })
        })
        .collect()
}
