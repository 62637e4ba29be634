//! Whether all that snapshots need is there, without reading all of it: what is asked before others are removed because of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::control::Control;
use crate::error::{Object, RepositoryError, Result};
use crate::id::{Id, SnapshotId};
use crate::index::Place;
use crate::reach::Walk;
use crate::repository::Repository;
use crate::store::FileKind;
use crate::transfer::WORKERS_MAX;

/// What some snapshots need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Distinct trees and pieces.
    pub blobs: u64,
    /// Packs that they lie in.
    pub packs: u64,
}

impl Repository {
    /// Everything that these snapshots need is there: each is authentic, every tree below its root was read, every piece is
    /// named by the index and ends within a pack that the store lists now.
    ///
    /// Pieces of data are not read: that their bytes are what they were is not shown. The first thing that lacks or cannot be
    /// read is the error.
    pub fn ensure_whole(&self, ids: &[SnapshotId], control: &Control) -> Result<Needs> {
        let snapshots: Vec<_> =
            ids.iter().map(|id| Ok((*id, self.snapshot(id, control)?))).collect::<Result<_>>()?;
        let index = self.inner.index(control)?;
        let ends: Vec<AtomicU64> = (0..index.pack_count()).map(|_| AtomicU64::new(0)).collect();
        let blobs = AtomicU64::new(0);
        let found = |_: usize, place: &Place| {
            blobs.fetch_add(1, Ordering::Relaxed);
            let end = u64::from(place.blob.offset) + u64::from(place.blob.length);
            ends[place.pack_number as usize].fetch_max(end, Ordering::Relaxed);
            Ok(())
        };
        let workers = std::thread::available_parallelism().map_or(2, usize::from).min(WORKERS_MAX);
        let walk = Walk::new(&self.inner, &index, control, workers);
        for (id, snapshot) in &snapshots {
            let root = snapshot
                .tree
                .ok_or_else(|| RepositoryError::inconsistent(Object::Snapshot, id, "it has no tree"))?;
            walk.enter(&root, &found)?;
        }
        if !walk.run(&|| false, &found)? {
            return Err(RepositoryError::refused("not every tree was read; this is a bug"));
        }
        // After the trees were read: a pack that went meanwhile is missing.
        let listed: HashMap<Id, u64> = self
            .store()
            .list(FileKind::Pack, control)?
            .into_iter()
            .map(|pack| (pack.id, pack.size))
            .collect();
        let mut needs = Needs { blobs: blobs.into_inner(), packs: 0 };
        for (number, end) in ends.into_iter().enumerate() {
            let end = end.into_inner();
            if end == 0 {
                continue;
            }
            let pack = index.pack(number);
            match listed.get(&pack) {
                Some(size) if *size >= end => needs.packs += 1,
                Some(size) => {
                    let why = format!("it has {size} bytes, and a piece in it ends at {end}");
                    return Err(RepositoryError::damaged(Object::Pack, pack, &why));
                }
                None => return Err(RepositoryError::missing(Object::Pack, pack)),
            }
        }
        Ok(needs)
    }
}
