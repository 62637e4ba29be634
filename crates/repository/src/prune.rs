//! Taking out what no snapshot needs.
//!
//! | step | what                                                          | what a crash after it leaves                   |
//! |------|---------------------------------------------------------------|------------------------------------------------|
//! | 1    | exclusive lock; snapshots, index, packs, every tree are read, | nothing                                        |
//! |      | and of blobs with copies that are given up the one that stays |                                                |
//! | 2    | kept blobs of half-empty packs into new packs, read back      | packs that no index names                      |
//! | 3    | index files of the new packs                                  | blobs with two copies                          |
//! | 4    | new index files without what is given up                      | packs that two index files list alike          |
//! | 5    | proof: every needed blob is found by what will be left        | the same                                       |
//! | 6    | the old index files go                                        | packs that no index names                      |
//! | 7    | packs that were doomed for long enough go                     | fewer of them                                  |
//!
//! Whoever lists snapshots, then reads the index, finds every blob at every moment. Whatever cannot be read before step 6
//! stops the run, and nothing has been deleted. No pack is deleted that an index still names.
//!
//! Locks are advice: a client that ignores them, or one that was frozen until its lock was taken for that of somebody dead, may
//! rely on a pack that looks unneeded. So a pack is first *doomed*: taken out of the index, and named with the time in a list
//! that stands beside it (`packs_to_delete`, as rustic writes it; restic does not look at it). A later prune removes it, unless
//! a snapshot needs it by then: then it is listed again. Packs that no index names at all are garbage of a crash, or
//! belong to a writer that has not written its index yet; they are removed when the store has had them for long enough.
//!
//! That a pack is there and has the right size shows nothing of its bytes. So before a copy of a needed blob is given up, the copy
//! that stays is read; where it is not sound, another is kept, and when there is none the run stops.
//!
//! Every age is measured by one clock, the store's: the present is the time that it has given to our own lock.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::control::{Control, Progress};
use crate::error::{Object, RepositoryError, Result};
use crate::id::{Id, SnapshotId};
use crate::index::{self, DoomedPack, Index, IndexBuilder, IndexedPack, Place};
use crate::large;
use crate::lock::{Lock, LockKind};
use crate::marks::Marks;
use crate::packer::{Packer, PackerOptions, locked};
use crate::packs;
use crate::plan::{Fate, Needed, Pack, Plan, Wishes, is_past, plan};
use crate::reach::Walk;
use crate::read::plan_ranges;
use crate::records;
use crate::repository::{Repository, in_parallel};
use crate::session::DEFAULT_LEVEL;
use crate::snapshot::Snapshot;
use crate::store::{FileKind, Store};
use crate::time::Time;
use crate::transfer::{Transfer, WORKERS_MAX};

/// A day: longer than the longest backup, and a prune a day removes what that of the day before has doomed.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Blobs of one index file that is written anew.
const INDEX_BLOBS: usize = 20_000;
/// Index files with fewer blobs and fewer packs are small …
const INDEX_SMALL: (usize, usize) = (INDEX_BLOBS / 4, INDEX_PACKS / 4);
/// … and become one when there are so many: each costs a read whenever a repository is opened.
const INDEX_SMALL_MIN: usize = 16;
/// An index file of new packs is written at the latest after this many: a gigabyte.
const INDEX_PACKS: usize = 64;
/// Blobs whose ranges are planned together.
const PART: usize = 2048;
/// Copies that are read together before others are given up: 8 MiB of places.
const PROVED_TOGETHER: usize = 50_000;
/// Ranges of them that one worker reads with one decoder.
const PROVED_RANGES: usize = 16;
/// Deletions under way at once.
const DELETIONS: usize = 4;

/// How a repository is pruned.
#[derive(Clone, Copy, Debug)]
pub struct PruneOptions {
    /// Change nothing, not even by a lock, and tell what would be done. What is removed by somebody else meanwhile is an error.
    pub dry_run: bool,
    /// The share of what stays that may be unneeded; between 0 and 1.
    pub max_unused: f64,
    /// How long a pack is out of the index before its file is removed. Zero removes it at once: only where every client
    /// respects locks and none is ever frozen.
    pub delete_after: Duration,
    /// How long the store must have had a pack that no index names before it is removed: longer than any backup goes on without
    /// writing an index.
    pub unlisted_after: Duration,
    /// There may be no snapshot at all: then everything goes.
    pub may_leave_nothing: bool,
    /// Target size of a pack in bytes.
    pub pack_size: usize,
    /// zstd level for what is not compressed. What is, stays as it is.
    pub compression_level: i32,
    /// Worker threads; 0 takes the number of processors, but at most two: the third would cost 40 MiB of memory.
    pub workers: usize,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self {
            dry_run: false,
            // restic's: below it, more is written than is won.
            max_unused: 0.05,
            delete_after: DAY,
            unlisted_after: DAY,
            may_leave_nothing: false,
            pack_size: 16 << 20,
            compression_level: DEFAULT_LEVEL,
            workers: 0,
        }
    }
}

/// Some packs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub packs: u64,
    /// Bytes of their files.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.packs += 1;
        self.bytes += bytes;
    }
}

/// What a prune has done, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// Nothing of it was done.
    pub is_dry_run: bool,
    /// Snapshots whose trees were all read.
    pub snapshots: u64,
    /// Blobs that they need.
    pub blobs: u64,
    /// Their bytes, as stored.
    pub needed_bytes: u64,
    /// Further copies of them, which are not kept.
    pub duplicates: u64,
    /// Copies of them that were to stay in place of others, were read, and are not what their ids say: others are kept.
    pub spoilt: u64,
    /// Packs that an index listed.
    pub listed: Amount,
    /// Of these, those whose needed blobs were written anew …
    pub repacked: Amount,
    /// … and the new packs; unknown (zero) in a dry run.
    pub written: Amount,
    /// Packs that are out of the index now, and are removed by a later prune.
    pub doomed: Amount,
    /// Packs that an earlier prune has doomed, not long enough ago.
    pub waiting: Amount,
    /// Doomed packs that a snapshot needs: they are listed again.
    pub recovered: Amount,
    /// Packs that are removed: doomed for long enough, or at once where that was asked for.
    pub removed: Amount,
    /// Packs that no index named for long enough: they are removed.
    pub unlisted: Amount,
    /// Packs that no index names, and that the store has not had for long enough: perhaps of a backup that goes on.
    pub unlisted_young: Amount,
    /// Packs that an index listed, nobody needs, and the store does not have.
    pub absent: u64,
    /// Bytes that nobody needs, in packs that stay.
    pub unused_bytes: u64,
    /// Index files that are replaced …
    pub indexes_replaced: u64,
    /// … and those that were written; unknown (zero) in a dry run.
    pub indexes_written: u64,
}

impl PruneReport {
    /// Nothing had to be changed.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        let idle = Amount::default();
        self.indexes_replaced == 0 && [self.repacked, self.removed, self.unlisted, self.doomed] == [idle; 4]
    }
}

impl Repository {
    /// Takes out what no snapshot needs, under an exclusive lock. Stock restic finds the repository whole at every moment.
    ///
    /// Refuses, with nothing deleted, when a snapshot, a tree or an index cannot be read, when a needed blob is in no index or in
    /// no pack that is there and of the right size, when of one with several copies none that could stay is sound, when there are packs and no snapshots (unless that is allowed), and when
    /// what is to be left does not hold every needed blob. An error of the store later, a stop, or a lock that could not be
    /// refreshed ends it where it stands: nothing needed is lost, and the next prune ends the work. On a store that keeps versions,
    /// or holds them, deleting only hides; one that refuses to delete is an error.
    pub fn prune(&self, options: &PruneOptions, control: &Control) -> Result<PruneReport> {
        if self.version() != 2 {
            return Err(RepositoryError::Unsupported { what: "pruning a repository of version 1".into() });
        }
        let lock = if options.dry_run { None } else { Some(self.lock(LockKind::Exclusive, control)?) };
        let now = match &lock {
            Some(lock) => {
                let own = lock.id();
                let now = self.store().written(FileKind::Lock, &own, control)?;
                now.ok_or_else(|| RepositoryError::missing(Object::Lock, own))?
            }
            // Nothing is removed by it.
            None => Time::now(),
        };
        let prune = Prune {
            repository: self,
            store: self.store(),
            options,
            control,
            lock: lock.as_ref(),
            now,
            workers: match options.workers {
                0 => std::thread::available_parallelism().map_or(2, usize::from).min(WORKERS_MAX),
                n => n,
            },
        };
        let report = prune.run()?;
        // What was to be done is done: a lock file that stays is no reason to call it failed. It is reaped later.
        if let Some(lock) = lock {
            lock.release().ok();
        }
        Ok(report)
    }
}

struct Prune<'a> {
    repository: &'a Repository,
    store: &'a Store,
    options: &'a PruneOptions,
    control: &'a Control,
    /// None in a rehearsal.
    lock: Option<&'a Lock>,
    now: Time,
    workers: usize,
}

/// An index file, its packs by their numbers in the order in which it lists them.
struct File {
    id: Id,
    blobs: usize,
    listed: Vec<u32>,
    doomed: Vec<u32>,
}

/// What index files say of a pack.
#[derive(Clone, Copy, Default)]
struct Listing {
    /// How many list it.
    files: u32,
    /// The fewest blobs that one of them lists.
    fewest: u64,
    /// The latest time at which one of them dooms it.
    doomed: Option<Time>,
    /// One of them dooms it and does not say since when.
    is_timeless: bool,
}

/// Everything that the index files say.
struct Found {
    index: Arc<Index>,
    files: Vec<File>,
    listings: Vec<Listing>,
}

impl Prune<'_> {
    fn run(&self) -> Result<PruneReport> {
        // The snapshots before the index, and the index before the packs.
        let snapshots = self.snapshots()?;
        let found = self.index_files()?;
        let stored: HashMap<Id, u64> = self
            .store
            .list(FileKind::Pack, self.control)?
            .into_iter()
            .map(|listed| (listed.id, listed.size))
            .collect();
        if snapshots.is_empty() && !stored.is_empty() && !self.options.may_leave_nothing {
            return Err(RepositoryError::refused(format!(
                "there are {} packs and no snapshot, so everything would go",
                stored.len()
            )));
        }
        let used = self.used(&snapshots, &found.index)?;
        let packs = self.packs(&found, &stored);
        let wishes = Wishes {
            max_unused: self.options.max_unused,
            pack_size: self.options.pack_size as u64,
            delete_after: self.options.delete_after,
            now: self.now,
            is_version_2: true,
        };
        let (spoilt, proven) = (Marks::new(found.index.len()), Marks::new(found.index.len()));
        let needed = Needed { used: &used, spoilt: &spoilt };
        let plan = loop {
            let plan = plan(needed, &found.index, packs.clone(), &wishes)?;
            // Each time round there is a copy less that could be kept.
            if !self.find_spoilt(needed, &proven, &plan, &found.index)? {
                break plan;
            }
        };
        let mut report = PruneReport {
            is_dry_run: self.options.dry_run,
            snapshots: snapshots.len() as u64,
            spoilt: spoilt.iter().count() as u64,
            ..self.report(&plan, &found)
        };
        let unlisted = self.unlisted(&found.index, &stored, &mut report)?;
        drop((snapshots, stored));
        let replaced = replaced(&plan, &found);
        report.indexes_replaced = replaced.len() as u64;
        if self.options.dry_run {
            return Ok(report);
        }
        let mut fresh = self.repack(&found.index, &plan, &mut report)?;
        fresh.extend(self.rewrite(&replaced, &plan, &found)?);
        report.indexes_written = fresh.len() as u64;
        let gone = self.gone(&plan, unlisted);
        if !replaced.is_empty() || !gone.is_empty() {
            let left: BTreeSet<Id> = found
                .files
                .iter()
                .filter(|file| !replaced.iter().any(|replaced| replaced.id == file.id))
                .map(|file| file.id)
                .chain(fresh)
                .collect();
            self.prove(&left, &gone, &used, &found.index)?;
            let replaced: Vec<Id> = replaced.iter().map(|file| file.id).collect();
            self.delete(FileKind::Index, &replaced)?;
            self.delete(FileKind::Pack, &gone)?;
        }
        Ok(report)
    }

    fn snapshots(&self) -> Result<Vec<(SnapshotId, Snapshot)>> {
        let listed = self.store.list(FileKind::Snapshot, self.control)?;
        in_parallel(&listed, 4, |listed| Ok((listed.id, self.repository.snapshot(&listed.id, self.control)?)))
    }

    fn index_files(&self) -> Result<Found> {
        let inner = &self.repository.inner;
        let listed = self.store.list(FileKind::Index, self.control)?;
        let read: Mutex<(IndexBuilder, Vec<Listing>)> =
            Mutex::new((IndexBuilder::new(inner.scratch()), Vec::new()));
        let files = in_parallel(&listed, 4, |listed| {
            let id = listed.id;
            let (packs, doomed) = self.read_index(&id)?;
            let mut read = locked(&read);
            let (builder, listings) = &mut *read;
            let mut file = File { id, blobs: 0, listed: Vec::new(), doomed: Vec::new() };
            let mut number = |builder: &mut IndexBuilder, pack: &IndexedPack| {
                let number = builder.number(&pack.id);
                listings.resize(listings.len().max(number as usize + 1), Listing::default());
                file.blobs += pack.blobs.len();
                number
            };
            for pack in &packs {
                let at = number(builder, pack);
                file.listed.push(at);
            }
            let numbers: Vec<u32> = doomed.iter().map(|doomed| number(builder, &doomed.pack)).collect();
            file.doomed = numbers;
            for (pack, at) in packs.iter().zip(&file.listed) {
                let listing = &mut listings[*at as usize];
                let blobs = pack.blobs.len() as u64;
                listing.fewest = if listing.files == 0 { blobs } else { listing.fewest.min(blobs) };
                listing.files += 1;
            }
            for (doomed, at) in doomed.iter().zip(&file.doomed) {
                let listing = &mut listings[*at as usize];
                listing.is_timeless |= doomed.since.is_none();
                // Not known is not long ago.
                let since = doomed.since.unwrap_or(self.now);
                let latest = listing.doomed.filter(|known| known.unix_nanos() > since.unix_nanos());
                listing.doomed = Some(latest.unwrap_or(since));
            }
            builder.add(&packs)?;
            let doomed: Vec<IndexedPack> = doomed.into_iter().map(|doomed| doomed.pack).collect();
            builder.add(&doomed)?;
            Ok(file)
        })?;
        let (builder, listings) = read.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Found { index: Arc::new(builder.finish()?), files, listings })
    }

    fn read_index(&self, id: &Id) -> Result<(Vec<IndexedPack>, Vec<DoomedPack>)> {
        let json = self.repository.inner.read_unpacked(FileKind::Index, id, self.control)?;
        Ok((index::decode(id, &json)?, index::decode_doomed(id, &json)?))
    }

    /// The numbers of the first records of all blobs that snapshots refer to.
    fn used(&self, snapshots: &[(SnapshotId, Snapshot)], index: &Index) -> Result<Marks> {
        let walk = Walk::new(&self.repository.inner, index, self.control, self.workers);
        let nothing_more = |_: usize, _: &Place| Ok(());
        for (id, snapshot) in snapshots {
            let root = snapshot
                .tree
                .ok_or_else(|| RepositoryError::inconsistent(Object::Snapshot, id, "it has no tree"))?;
            walk.enter(&root, &nothing_more)?;
        }
        if !walk.run(&|| false, &nothing_more)? {
            return Err(RepositoryError::refused("not every tree was read; this is a bug"));
        }
        Ok(walk.into_reached())
    }

    /// Reads the copies that a plan keeps in place of others that it gives up, each once; marks those that are not what their ids say,
    /// and tells whether there are any. What is written anew is read on the way, and taken from a sound copy.
    fn find_spoilt(&self, needed: Needed<'_>, proven: &Marks, plan: &Plan, index: &Index) -> Result<bool> {
        let mut has_spoilt = false;
        let mut wanted: Vec<(Place, usize)> = Vec::new();
        let is_given_up = |place: &Place| match plan.fates[place.pack_number as usize] {
            Fate::Doom | Fate::Repack | Fate::Remove => true,
            // What waits is looked at again before it is removed; what is dropped is not there.
            Fate::Keep | Fate::Wait | Fate::Drop => false,
        };
        index.visit(|number, places| {
            if places.len() < 2 || !needed.used.has(number) || !places.iter().any(is_given_up) {
                return Ok(());
            }
            let kept = places.iter().enumerate().find(|(at, _)| plan.kept.has(number + at));
            if let Some((at, place)) = kept
                && plan.fates[place.pack_number as usize] == Fate::Keep
                && proven.set(number + at)
            {
                wanted.push((*place, number + at));
            }
            if wanted.len() >= PROVED_TOGETHER {
                has_spoilt |= self.read_kept(std::mem::take(&mut wanted), needed.spoilt)?;
            }
            Ok(())
        })?;
        has_spoilt |= self.read_kept(wanted, needed.spoilt)?;
        Ok(has_spoilt)
    }

    /// Reads these places, and marks those that are not what their ids say; whether there are any.
    fn read_kept(&self, wanted: Vec<(Place, usize)>, spoilt: &Marks) -> Result<bool> {
        let inner = &self.repository.inner;
        let places = wanted.into_iter().map(|(place, number)| (place, (place, number)));
        let (large, others): (Vec<_>, Vec<_>) =
            places.partition(|(place, _)| large::is_large_tree(&place.blob));
        let mut codec = inner.codec(1)?;
        let mut has_spoilt = false;
        for (place, (_, number)) in large {
            self.control.check()?;
            if !inner.is_sound(&place, &mut codec, self.control)? {
                spoilt.set(number);
                has_spoilt = true;
            }
        }
        let jobs = plan_ranges(others);
        let parts: Vec<_> = jobs.chunks(PROVED_RANGES).collect();
        let found = in_parallel(&parts, self.workers, |part| {
            let mut codec = inner.codec(1)?;
            let mut bytes = Vec::new();
            let mut has_spoilt = false;
            for job in *part {
                self.control.check()?;
                let range = job.start..job.end;
                if !self.store.read_into(FileKind::Pack, &job.pack, range, &mut bytes, self.control)? {
                    return Err(RepositoryError::missing(Object::Pack, job.pack));
                }
                for (blob, targets) in &job.blobs {
                    let from = usize::try_from(u64::from(blob.offset) - job.start).unwrap_or(usize::MAX);
                    let boxed = bytes.get_mut(from..from.saturating_add(blob.length as usize));
                    if boxed.is_some_and(|boxed| codec.open(blob, boxed).is_ok()) {
                        continue;
                    }
                    for (place, number) in targets {
                        if !inner.is_sound(place, &mut codec, self.control)? {
                            spoilt.set(*number);
                            has_spoilt = true;
                        }
                    }
                }
            }
            Ok(has_spoilt)
        })?;
        Ok(has_spoilt || found.contains(&true))
    }

    /// What the index does not tell of each pack.
    fn packs(&self, found: &Found, stored: &HashMap<Id, u64>) -> Vec<Pack> {
        let packs = found.index.packs().iter().zip(&found.listings);
        packs
            .map(|(id, listing)| Pack {
                id: *id,
                stored: stored.get(id).copied(),
                // What an index lists is not doomed, whatever another says: somebody may rely on it since.
                doomed: listing.doomed.filter(|_| listing.files == 0),
                fewest: (listing.files > 0).then_some(listing.fewest),
                ..Pack::default()
            })
            .collect()
    }

    fn report(&self, plan: &Plan, found: &Found) -> PruneReport {
        let mut report =
            PruneReport { blobs: plan.blobs, duplicates: plan.duplicates, ..PruneReport::default() };
        let at_once = self.options.delete_after.is_zero();
        for ((pack, fate), listing) in plan.packs.iter().zip(&plan.fates).zip(&found.listings) {
            let bytes = pack.stored.unwrap_or(0);
            if listing.files > 0 {
                report.listed.add(bytes);
            }
            report.needed_bytes += pack.kept;
            match fate {
                Fate::Keep => report.unused_bytes += pack.bytes - pack.kept,
                Fate::Repack => report.repacked.add(bytes),
                Fate::Doom => {}
                Fate::Wait => report.waiting.add(bytes),
                Fate::Remove => report.removed.add(bytes),
                Fate::Drop => report.absent += u64::from(listing.files > 0),
            }
            match fate {
                Fate::Keep | Fate::Repack if pack.doomed.is_some() => report.recovered.add(bytes),
                _ => {}
            }
            match fate {
                Fate::Repack | Fate::Doom if at_once => report.removed.add(bytes),
                Fate::Repack | Fate::Doom => report.doomed.add(bytes),
                _ => {}
            }
        }
        report
    }

    /// Packs that no index names, and that are old enough to be nobody's.
    fn unlisted(
        &self,
        index: &Index,
        stored: &HashMap<Id, u64>,
        report: &mut PruneReport,
    ) -> Result<Vec<Id>> {
        let known: HashSet<&Id> = index.packs().iter().collect();
        let mut unknown: Vec<(Id, u64)> =
            stored.iter().filter(|(id, _)| !known.contains(id)).map(|(id, size)| (*id, *size)).collect();
        unknown.sort_unstable();
        let written =
            in_parallel(&unknown, DELETIONS, |(id, _)| self.store.written(FileKind::Pack, id, self.control))?;
        let mut old = Vec::new();
        for ((id, size), written) in unknown.into_iter().zip(written) {
            let Some(written) = written else { continue };
            if is_past(written, self.options.unlisted_after, self.now) {
                report.unlisted.add(size);
                old.push(id);
            } else {
                report.unlisted_young.add(size);
            }
        }
        Ok(old)
    }

    /// Writes anew what is kept of packs that are given up; returns the index files of the new packs.
    fn repack(&self, index: &Arc<Index>, plan: &Plan, report: &mut PruneReport) -> Result<Vec<Id>> {
        let inner = &self.repository.inner;
        let unsorted = |e| RepositoryError::io("sort", "the blobs that are written anew", e);
        // By pack, so that each is read once.
        let mut builder = records::Builder::new(inner.scratch());
        let mut bytes_total = 0;
        index.visit(|number, places| {
            for (at, place) in places.iter().enumerate() {
                if plan.fates[place.pack_number as usize] == Fate::Repack && plan.kept.has(number + at) {
                    bytes_total += u64::from(place.blob.length);
                    builder.push(packs::record(place.pack_number, &place.blob)).map_err(unsorted)?;
                }
            }
            Ok(())
        })?;
        let kept = builder.finish(false).map_err(unsorted)?;
        if kept.len() == 0 {
            return Ok(Vec::new());
        }
        let packer = Packer::start(
            Arc::clone(inner),
            Arc::clone(index),
            self.control.child(),
            PackerOptions {
                verify: true,
                pack_size: self.options.pack_size,
                // The only other copy is going to be deleted.
                read_back: true,
                believe: None,
                waiting: 0,
                index_packs: INDEX_PACKS,
                look: false,
                distrust: false,
            },
        )?;
        let done = AtomicU64::new(0);
        let moved = |bytes| {
            let bytes = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
            self.control.report(Progress {
                files: 0,
                bytes,
                files_total: None,
                bytes_total: Some(bytes_total),
            });
        };
        let transfer = Transfer {
            from: inner,
            index,
            packer: &packer,
            workers: self.workers,
            level: self.options.compression_level,
            control: self.control,
            moved: &moved,
        };
        let mut at = 0;
        let next = || {
            let end = (at + PART).min(kept.len());
            let records = kept.read(at..end).map_err(unsorted)?;
            at = end;
            Ok(records
                .iter()
                .map(|record| {
                    let pack_number = packs::pack_of(record);
                    Place {
                        pack: index.pack(pack_number as usize),
                        pack_number,
                        blob: packs::blob_of(record),
                    }
                })
                .collect())
        };
        if let Err(error) = transfer.run(next).and_then(|()| packer.flush()) {
            // What is durable need not be written again.
            packer.salvage();
            return Err(error);
        }
        report.written = Amount {
            packs: packer.counters.packs.load(Ordering::Relaxed),
            bytes: packer.counters.bytes_read_back.load(Ordering::Relaxed),
        };
        Ok(packer.own_indexes())
    }

    /// Writes index files that say what these say, without what is given up; returns their names.
    fn rewrite(&self, replaced: &[&File], plan: &Plan, found: &Found) -> Result<Vec<Id>> {
        let keeps_doomed = !self.options.delete_after.is_zero();
        let mut fresh =
            Fresh { prune: self, packs: Vec::new(), doomed: Vec::new(), blobs: 0, written: Vec::new() };
        let mut told: HashSet<u32> = HashSet::new();
        for file in replaced {
            self.control.check()?;
            self.lock.map_or(Ok(()), Lock::ensure)?;
            let (listed, doomed) = self.read_index(&file.id)?;
            let doomed = doomed.into_iter().map(|doomed| (doomed.pack, doomed.since.unwrap_or(self.now)));
            let doomed = file.doomed.iter().zip(doomed).filter(|(number, _)| {
                // Of what is listed as well, the list counts.
                found.listings[**number as usize].files == 0
            });
            let listed = file.listed.iter().zip(listed).map(|(number, pack)| (*number, pack, self.now));
            for (number, pack, since) in
                listed.chain(doomed.map(|(number, (pack, since))| (*number, pack, since)))
            {
                if !told.insert(number) {
                    continue;
                }
                match plan.fates[number as usize] {
                    Fate::Keep => fresh.list(pack)?,
                    Fate::Wait => fresh.doom(DoomedPack { pack, since: Some(since) })?,
                    Fate::Repack | Fate::Doom if keeps_doomed => {
                        fresh.doom(DoomedPack { pack, since: Some(self.now) })?;
                    }
                    Fate::Repack | Fate::Doom | Fate::Remove | Fate::Drop => {}
                }
            }
        }
        fresh.flush()?;
        Ok(fresh.written)
    }

    /// The packs whose files are deleted.
    fn gone(&self, plan: &Plan, unlisted: Vec<Id>) -> Vec<Id> {
        let at_once = self.options.delete_after.is_zero();
        let mut gone = unlisted;
        for (pack, fate) in plan.packs.iter().zip(&plan.fates) {
            match fate {
                Fate::Remove => gone.push(pack.id),
                Fate::Doom | Fate::Repack if at_once => gone.push(pack.id),
                Fate::Doom | Fate::Repack | Fate::Keep | Fate::Wait | Fate::Drop => {}
            }
        }
        gone
    }

    /// Proves from the store that the index files that will be left find every needed blob, in packs that are there and whole
    /// and are not going to be deleted.
    fn prove(&self, left: &BTreeSet<Id>, gone: &[Id], used: &Marks, index: &Index) -> Result<()> {
        let proof = self.repository.inner.index_of(left, self.control)?;
        let gone: HashSet<&Id> = gone.iter().collect();
        if let Some(pack) = proof.packs().iter().find(|pack| gone.contains(pack)) {
            let why = "an index would name it after its removal; this is a bug";
            return Err(RepositoryError::inconsistent(Object::Pack, pack, why));
        }
        let mut sizes = vec![36u64; proof.pack_count()];
        proof.visit(|_, places| {
            for place in places {
                sizes[place.pack_number as usize] +=
                    u64::from(place.blob.length) + u64::from(place.blob.entry_size());
            }
            Ok(())
        })?;
        let stored = crate::copy::pack_sizes(self.repository, &proof, self.control)?;
        let is_whole = |place: &Place| {
            let number = place.pack_number as usize;
            stored[number] == Some(sizes[number])
        };
        let needed: Vec<usize> = used.iter().collect();
        let parts: Vec<&[usize]> = needed.chunks(1 << 14).collect();
        in_parallel(&parts, self.workers, |part| {
            self.control.check()?;
            for number in *part {
                let blob = index.numbered(*number)?.blob;
                if !proof.places(blob.kind, &blob.id)?.iter().any(is_whole) {
                    return Err(RepositoryError::missing(blob.kind.object(), blob.id));
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    fn delete(&self, kind: FileKind, ids: &[Id]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        // Who took our lock for that of somebody dead may rely by now on what we are about to delete.
        self.lock.map_or(Ok(()), |lock| lock.ensure_now(self.control))?;
        in_parallel(ids, DELETIONS, |id| {
            self.control.check()?;
            self.lock.map_or(Ok(()), Lock::ensure)?;
            self.store.delete(kind, id, self.control)
        })?;
        if kind == FileKind::Index {
            // A pack must not be gone while an index that names it comes back with a power cut.
            self.store.settle(kind)?;
        }
        Ok(())
    }
}

/// The index files that say something that is no longer so, or are better together.
fn replaced<'f>(plan: &Plan, found: &'f Found) -> Vec<&'f File> {
    let is_old = |file: &File| {
        let listed = file.listed.iter().any(|number| {
            plan.fates[*number as usize] != Fate::Keep || found.listings[*number as usize].files > 1
        });
        let doomed = file.doomed.iter().any(|number| {
            let listing = &found.listings[*number as usize];
            plan.fates[*number as usize] != Fate::Wait || listing.files > 0 || listing.is_timeless
        });
        listed || doomed
    };
    let is_small =
        |file: &File| file.blobs < INDEX_SMALL.0 && file.listed.len() + file.doomed.len() < INDEX_SMALL.1;
    let small = found.files.iter().filter(|file| is_small(file)).count();
    found.files.iter().filter(|file| is_old(file) || small >= INDEX_SMALL_MIN && is_small(file)).collect()
}

/// Index files that are being made.
struct Fresh<'a, 'p> {
    prune: &'a Prune<'p>,
    packs: Vec<IndexedPack>,
    doomed: Vec<DoomedPack>,
    blobs: usize,
    written: Vec<Id>,
}

impl Fresh<'_, '_> {
    fn list(&mut self, pack: IndexedPack) -> Result<()> {
        self.blobs += pack.blobs.len();
        self.packs.push(pack);
        self.flush_full()
    }

    fn doom(&mut self, doomed: DoomedPack) -> Result<()> {
        self.blobs += doomed.pack.blobs.len();
        self.doomed.push(doomed);
        self.flush_full()
    }

    fn flush_full(&mut self) -> Result<()> {
        if self.blobs >= INDEX_BLOBS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let (packs, doomed) = (std::mem::take(&mut self.packs), std::mem::take(&mut self.doomed));
        self.blobs = 0;
        if packs.is_empty() && doomed.is_empty() {
            return Ok(());
        }
        let json = index::encode_with(&packs, &doomed);
        let id = self.prune.repository.inner.write_unpacked(FileKind::Index, &json, self.prune.control)?;
        self.written.push(id);
        Ok(())
    }
}
