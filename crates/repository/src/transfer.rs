//! Blobs on their way from the packs of one repository to a packer, of another repository or of the same.
//!
//! | thread      | does                                              | may wait for               |
//! |-------------|---------------------------------------------------|----------------------------|
//! | fetcher (2) | plans ranges, reads them from the source          | the source, a free worker  |
//! | worker      | opens each blob, compares its hash, gives it on   | a fetched range, the packer|
//! | uploader    | stores packs: see [`crate::packer`]               | the target                 |
//!
//! A blob whose bytes are not what its id says is looked for in other packs; when there is no sound copy the transfer
//! fails and names it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender};

use crate::control::{Control, POLL};
use crate::error::{RepositoryError, Result};
use crate::id::{BlobKind, Id};
use crate::index::{Index, Place};
use crate::large;
use crate::packer::{Packer, locked};
use crate::read::{RangeJob, plan_ranges_up_to};
use crate::repository::Inner;

const FETCHERS: usize = 2;
/// Bytes that are fetched at once: of several stages each holds one such range.
const RANGE: u64 = 4 << 20;

/// Workers unless more are asked for: each holds some 40 MiB of buffers where blobs are large, and two open and seal more than
/// most networks carry (measured: 500 MB/s of files).
pub(crate) const WORKERS_MAX: usize = 2;

/// What is moved from where.
pub(crate) struct Transfer<'a> {
    pub(crate) from: &'a Inner,
    pub(crate) index: &'a Index,
    pub(crate) packer: &'a Packer,
    pub(crate) workers: usize,
    pub(crate) level: i32,
    pub(crate) control: &'a Control,
    /// Is told the bytes of boxes that were moved, now and then.
    pub(crate) moved: &'a (dyn Fn(u64) + Sync),
}

enum Job {
    Range(RangeJob<(BlobKind, Id)>),
    /// A tree that is too large to be held.
    Large(Id),
}

struct Feed<N> {
    next: N,
    ready: VecDeque<Job>,
    ended: bool,
}

impl<N: FnMut() -> Result<Vec<Place>>> Feed<N> {
    fn job(&mut self) -> Result<Option<Job>> {
        while self.ready.is_empty() && !self.ended {
            let places = (self.next)()?;
            self.ended = places.is_empty();
            let (large, others): (Vec<_>, Vec<_>) =
                places.into_iter().partition(|place| large::is_large_tree(&place.blob));
            self.ready.extend(large.into_iter().map(|place| Job::Large(place.blob.id)));
            let wanted = others.into_iter().map(|place| (place, (place.blob.kind, place.blob.id)));
            self.ready.extend(plan_ranges_up_to(RANGE, wanted.collect()).into_iter().map(Job::Range));
        }
        Ok(self.ready.pop_front())
    }
}

/// What the threads of one run share.
struct Shared {
    failed: Mutex<Option<RepositoryError>>,
    stopped: AtomicBool,
    // Stops the reads of a run that has failed, not its uploads.
    reading: Control,
    spare: Mutex<Vec<Vec<u8>>>,
}

impl Shared {
    fn fail(&self, error: RepositoryError) {
        locked(&self.failed).get_or_insert(error);
        self.stopped.store(true, Ordering::Release);
        self.reading.cancel.cancel();
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}

impl Transfer<'_> {
    /// Gives every blob to the packer, which has them then, but not yet durably. `next` gives some places, best in order of
    /// packs, and none at the end.
    pub(crate) fn run(&self, next: impl FnMut() -> Result<Vec<Place>> + Send) -> Result<()> {
        let feed = Mutex::new(Feed { next, ready: VecDeque::new(), ended: false });
        let shared = Shared {
            failed: Mutex::default(),
            stopped: AtomicBool::new(false),
            reading: self.control.child(),
            spare: Mutex::default(),
        };
        // Nothing waits but in the hands of a fetcher: a range of one large blob has 8 MiB and more.
        let (sender, receiver) = crossbeam_channel::bounded::<(Job, Vec<u8>)>(0);
        std::thread::scope(|scope| {
            for _ in 0..FETCHERS {
                let sender = sender.clone();
                let (feed, shared) = (&feed, &shared);
                scope.spawn(move || {
                    if let Err(error) = self.fetch(feed, shared, &sender) {
                        shared.fail(error);
                    }
                });
            }
            drop(sender);
            for _ in 0..self.workers.max(1) {
                let receiver = receiver.clone();
                let shared = &shared;
                scope.spawn(move || {
                    if let Err(error) = self.work(shared, &receiver) {
                        shared.fail(error);
                    }
                });
            }
        });
        match shared.failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn fetch<N: FnMut() -> Result<Vec<Place>>>(
        &self,
        feed: &Mutex<Feed<N>>,
        shared: &Shared,
        sender: &Sender<(Job, Vec<u8>)>,
    ) -> Result<()> {
        while !shared.is_stopped() {
            let Some(job) = locked(feed).job()? else { return Ok(()) };
            let mut bytes = locked(&shared.spare).pop().unwrap_or_default();
            if let Job::Range(range) = &job {
                self.from.fetch_range(range, &mut bytes, &shared.reading)?;
            }
            let mut fetched = (job, bytes);
            loop {
                match sender.send_timeout(fetched, POLL) {
                    Ok(()) => break,
                    Err(SendTimeoutError::Timeout(back)) if !shared.is_stopped() => fetched = back,
                    Err(_) => return Ok(()), // Whoever stopped has said why.
                }
            }
        }
        Ok(())
    }

    fn work(&self, shared: &Shared, receiver: &Receiver<(Job, Vec<u8>)>) -> Result<()> {
        let mut opener = self.from.codec(1)?;
        let mut sealer = self.packer.repository.codec(self.level)?;
        loop {
            let (job, mut bytes) = match receiver.recv_timeout(POLL) {
                Ok(fetched) => fetched,
                Err(RecvTimeoutError::Timeout) if !shared.is_stopped() => continue,
                Err(_) => return Ok(()),
            };
            if shared.is_stopped() {
                return Ok(());
            }
            match job {
                Job::Range(range) => {
                    self.from.open_range(
                        self.index,
                        &range,
                        &mut bytes,
                        &mut opener,
                        &shared.reading,
                        |targets, opened| {
                            let opened = opened?;
                            for (kind, id) in targets {
                                self.packer.store_again(&mut sealer, *kind, *id, &opened)?;
                            }
                            Ok(())
                        },
                    )?;
                    let moved = range.blobs.iter().map(|(blob, _)| u64::from(blob.length)).sum();
                    (self.moved)(moved);
                }
                Job::Large(id) => {
                    let tree = self.from.seal_large_again(
                        self.index,
                        &id,
                        &self.packer.repository,
                        self.level,
                        &shared.reading,
                    )?;
                    (self.moved)(tree.boxed.len());
                    self.packer.store_large_again(tree)?;
                }
            }
            bytes.clear();
            let mut spare = locked(&shared.spare);
            if spare.len() < FETCHERS {
                spare.push(bytes);
            }
        }
    }
}
