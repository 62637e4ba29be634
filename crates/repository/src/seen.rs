//! Which blobs a session has given to a pack: every one once, whoever asks at the same time.
//!
//! A first backup gives all of them. Beyond a bound they go to disk, sorted, where asking for one is a short read.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use crate::error::{RepositoryError, Result};
use crate::id::{BlobKind, Id};
use crate::packer::locked;
use crate::records::{self, Disk, Record};

/// Blobs that are held in memory before they go to disk: about 20 MiB of them.
const HELD_MAX: usize = 400_000;

/// Files that are asked one after the other; then they become one.
const RUNS_MAX: usize = 8;

/// Parts of the set, so that workers seldom wait for each other.
const SHARDS: usize = 64;

pub(crate) struct Seen {
    scratch: Option<PathBuf>,
    held_max: usize,
    shards: Vec<Mutex<HashSet<(BlobKind, Id)>>>,
    held: AtomicUsize,
    runs: RwLock<Vec<Disk>>,
}

fn record(kind: BlobKind, id: &Id) -> Record {
    let mut record = [0; records::SIZE];
    record[..32].copy_from_slice(&id.0);
    record[32] = u8::from(kind == BlobKind::Tree);
    record
}

fn failed(error: io::Error) -> RepositoryError {
    RepositoryError::io("keep", "the list of what was stored", error)
}

impl Seen {
    /// Without a `scratch` directory everything stays in memory.
    pub(crate) fn new(scratch: Option<PathBuf>) -> Self {
        Self::with(scratch, HELD_MAX)
    }

    fn with(scratch: Option<PathBuf>, held_max: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { scratch, held_max, shards, held: AtomicUsize::new(0), runs: RwLock::default() }
    }

    /// Whether the blob is new; it is not any more.
    pub(crate) fn insert(&self, kind: BlobKind, id: &Id) -> Result<bool> {
        let is_new = {
            let mut shard = locked(&self.shards[usize::from(id.0[31]) % SHARDS]);
            if shard.contains(&(kind, *id)) {
                return Ok(false);
            }
            // Its last byte before the zeros tells trees from data, so that all of it is asked for.
            let asked = record(kind, id);
            for run in self.runs.read().unwrap_or_else(PoisonError::into_inner).iter() {
                if run.has(&asked).map_err(failed)? {
                    return Ok(false);
                }
            }
            shard.insert((kind, *id))
        };
        if self.held.fetch_add(1, Ordering::AcqRel) + 1 >= self.held_max && self.scratch.is_some() {
            self.spill()?;
        }
        Ok(is_new)
    }

    /// Moves what is held to disk. Whoever holds a shard waits for nobody who holds one, so that all of them can be had.
    fn spill(&self) -> Result<()> {
        let Some(scratch) = &self.scratch else { return Ok(()) };
        let mut shards: Vec<_> = self.shards.iter().map(locked).collect();
        if self.held.load(Ordering::Acquire) < self.held_max {
            return Ok(()); // Somebody else was first.
        }
        let mut held = Vec::with_capacity(self.held_max);
        for shard in &mut shards {
            held.extend(shard.drain().map(|(kind, id)| record(kind, &id)));
        }
        let mut runs = self.runs.write().unwrap_or_else(PoisonError::into_inner);
        runs.push(Disk::of(scratch, held).map_err(failed)?);
        if runs.len() >= RUNS_MAX {
            let merged = records::merge(scratch, &runs, true).map_err(failed)?;
            *runs = vec![merged];
        }
        self.held.store(0, Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_blob_is_new_once_wherever_it_is_kept() {
        let scratch = tempfile::tempdir().unwrap();
        for place in [None, Some(scratch.path().to_path_buf())] {
            let seen = Seen::with(place, 100);
            let id = |n: u32| Id::of(&n.to_le_bytes());
            let fresh = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for n in 0..3_000 {
                            for kind in [BlobKind::Data, BlobKind::Tree] {
                                let is_new = seen.insert(kind, &id(n)).unwrap();
                                fresh.fetch_add(usize::from(is_new), Ordering::Relaxed);
                            }
                        }
                    });
                }
            });
            assert_eq!(fresh.into_inner(), 6_000);
            let runs = seen.runs.into_inner().unwrap();
            assert_eq!(runs.is_empty(), seen.scratch.is_none());
            assert!(runs.len() < RUNS_MAX);
        }
    }
}
