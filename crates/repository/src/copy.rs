//! Snapshots from one repository into another.
//!
//! Every blob is decrypted with the key of the source, its hash is compared with its id, and it is encrypted with the key of
//! the target. Ids of blobs stay, and so do the bytes of trees; packs, index files and snapshots get new names. What the
//! target has is not sent again: its index is believed, and each pack that is relied upon must be there.
//!
//! A snapshot is written last, after everything under it is durable in the target: packs, whose SHA-256 was compared with their
//! names, then index, then snapshot. Whatever interrupts a copy leaves whole snapshots and garbage that every client ignores,
//! and what was listed before counts for the next attempt.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::check::is_chosen;
use crate::control::{Control, Progress};
use crate::error::{Object, RepositoryError, Result};
use crate::id::{Id, SnapshotId};
use crate::index::{Index, Place};
use crate::lock::{Lock, LockKind};
use crate::marks::Marks;
use crate::packer::{Packer, PackerOptions, locked};
use crate::reach::Walk;
use crate::read::plan_ranges;
use crate::repository::{Repository, in_parallel};
use crate::session::DEFAULT_LEVEL;
use crate::snapshot::Snapshot;
use crate::store::FileKind;
use crate::transfer::{Transfer, WORKERS_MAX};

/// Blobs that are known to be missing before some of them are sent: 4 MiB of them.
const PENDING: usize = 250_000;
/// Small snapshots are made durable together, up to this many bytes …
const GROUP_BYTES: u64 = 64 << 20;
/// … and this many of them.
const GROUP: usize = 32;
/// An index file is written at the latest after this many packs, a gigabyte: what was listed need not be sent again.
const INDEX_PACKS: usize = 64;
/// Blobs whose ranges are planned together.
const PART: usize = 2048;

/// Which snapshots are copied. Newer ones are copied first.
#[derive(Clone, Copy, Debug)]
pub enum CopyOf<'a> {
    /// All that the source has.
    All,
    /// These; one that is not there is an error.
    These(&'a [SnapshotId]),
}

/// A random share of many things; the same seed chooses the same ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// Between 0 and 1.
    pub part: f64,
    /// Recorded, so that the choice can be repeated.
    pub seed: u64,
}

impl Share {
    /// Nothing.
    pub const NONE: Self = Self { part: 0.0, seed: 0 };
    /// Everything.
    pub const ALL: Self = Self { part: 1.0, seed: 0 };

    pub(crate) fn has(&self, id: &Id) -> bool {
        is_chosen(id, self.part, self.seed)
    }
}

/// What is locked at the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceLock {
    /// Backups may go on there, a prune may not.
    #[default]
    Shared,
    /// Nothing, for media that cannot be written. What a prune takes away meanwhile fails the copy.
    None,
}

/// How snapshots are copied.
#[derive(Clone, Copy, Debug)]
pub struct CopyOptions {
    /// Read every new pack back from the target and compare its SHA-256 with its name, before an index lists it.
    pub read_back: bool,
    /// Where the target tells a SHA-256 that it has computed itself of a new pack, that is compared instead, and only the first pack of
    /// each group of snapshots and the share `verify` of the others are read back: see [`crate::Attest`].
    pub believe_target: bool,
    /// Of the blobs that were sent, those that are found by the target's index afterwards, read, decrypted and hashed.
    pub verify: Share,
    /// Read each pack of the target that would be relied on, and send again what is in those that are not what their names say: for a
    /// target that is known to be damaged.
    pub distrust: bool,
    /// What is locked at the source; the target always gets a shared lock.
    pub source_lock: SourceLock,
    /// Target size of a pack in bytes.
    pub pack_size: usize,
    /// zstd level for what is not compressed at the source. What is, stays as it is.
    pub compression_level: i32,
    /// Worker threads; 0 takes the number of processors, but at most two: the third would cost 40 MiB of memory.
    pub workers: usize,
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self {
            read_back: true,
            believe_target: true,
            // One in a hundred: of a terabyte of new data that is 10 GB to read, and what it finds beyond the packs' digests are
            // faults of the index, which are seldom alone.
            verify: Share { part: 0.01, seed: 0 },
            distrust: false,
            source_lock: SourceLock::Shared,
            pack_size: 16 << 20,
            compression_level: DEFAULT_LEVEL,
            workers: 0,
        }
    }
}

/// A snapshot of the source and the same in the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Its name in the source.
    pub source: SnapshotId,
    /// Its name in the target.
    pub target: SnapshotId,
}

/// What a copy has made durable, and what it took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyReport {
    /// Snapshots that are in the target now and were not before, newest first.
    pub copied: Vec<Copied>,
    /// Snapshots that the target had already.
    pub present: Vec<Copied>,
    /// Snapshot files of the target that are damaged, and therefore not what anything was compared with.
    pub damaged: Vec<SnapshotId>,
    /// Blobs that were sent; the others were there.
    pub blobs: u64,
    /// Their bytes, decompressed.
    pub plain_bytes: u64,
    /// Packs that were stored.
    pub packs: u64,
    /// Bytes fetched from the source.
    pub bytes_read: u64,
    /// Bytes stored in the target.
    pub bytes_written: u64,
    /// Packs that were read back whole and have the SHA-256 that is their name, and those of which the target told that SHA-256.
    pub packs_verified: u64,
    /// Of these, those of which the target told it and nothing was read.
    pub packs_attested: u64,
    /// Blobs that were found by the target's index, read back, decrypted and hashed.
    pub blobs_verified: u64,
    /// Bytes read back from the target for both.
    pub bytes_verified: u64,
}

/// Copies snapshots, newest first; those that the target has are passed over, as restic decides it.
///
/// What is reported as copied is durable, and read back as far as the options ask. After an error there may be snapshots that
/// were copied before it: they are whole, and the next call finds them present. A blob that is damaged at the source, in every
/// copy that is there, fails the copy and is named by the error; no snapshot that needs it appears in the target.
pub fn copy(
    from: &Repository,
    what: CopyOf<'_>,
    to: &Repository,
    options: &CopyOptions,
    control: &Control,
) -> Result<CopyReport> {
    if to.version() != 2 {
        return Err(RepositoryError::Unsupported { what: "writing to a repository of version 1".into() });
    }
    let (read, written) = (from.bytes_read(), to.store().bytes_written());
    let source_lock = match options.source_lock {
        SourceLock::Shared => Some(from.lock(LockKind::Shared, control)?),
        SourceLock::None => None,
    };
    let target_lock = to.lock(LockKind::Shared, control)?;
    let mut report = CopyReport::default();
    let mut wanted = wanted(from, what, control)?;
    wanted.sort_by_key(|(id, snapshot)| std::cmp::Reverse((snapshot.time.unix_nanos(), *id)));
    let mut there = There::read(to, control, &mut report)?;
    // What is asked for by name is looked through also where its snapshot is there already: packs may have gone since, and are sent again.
    let is_named = matches!(what, CopyOf::These(_));
    wanted.retain(|(id, snapshot)| match there.find(id, snapshot) {
        Some(target) if !is_named => {
            report.present.push(Copied { source: *id, target });
            false
        }
        Some(_) | None => true,
    });
    if !wanted.is_empty() {
        Copier::new(from, to, options, control, &target_lock)?.run(&wanted, &mut there, &mut report)?;
    }
    // Everything is durable: a lock file that stays is no reason to call it failed. It is reaped later.
    target_lock.release().ok();
    source_lock.map_or(Ok(()), Lock::release).ok();
    report.bytes_read = from.bytes_read() - read;
    report.bytes_written = to.store().bytes_written() - written;
    Ok(report)
}

fn wanted(from: &Repository, what: CopyOf<'_>, control: &Control) -> Result<Vec<(SnapshotId, Snapshot)>> {
    match what {
        CopyOf::All => from.snapshots(control),
        CopyOf::These(ids) => {
            let mut ids = ids.to_vec();
            ids.sort_unstable();
            ids.dedup();
            ids.into_iter().map(|id| Ok((id, from.snapshot(&id, control)?))).collect()
        }
    }
}

/// The snapshots of the target, by what they were first.
struct There(HashMap<SnapshotId, Vec<(SnapshotId, Snapshot)>>);

impl There {
    /// A listing that fails is an error. A snapshot that is damaged is told, and is none.
    fn read(to: &Repository, control: &Control, report: &mut CopyReport) -> Result<Self> {
        let listed = to.store().list(FileKind::Snapshot, control)?;
        let read = in_parallel(&listed, 4, |listed| match to.snapshot(&listed.id, control) {
            Ok(snapshot) => Ok((listed.id, Some(snapshot))),
            Err(RepositoryError::Damaged { .. } | RepositoryError::Inconsistent { .. }) => {
                Ok((listed.id, None))
            }
            Err(error) => Err(error),
        })?;
        let mut there = Self(HashMap::new());
        for (id, snapshot) in read {
            match snapshot {
                Some(snapshot) => there.add(id, &snapshot),
                None => report.damaged.push(id),
            }
        }
        Ok(there)
    }

    fn add(&mut self, id: SnapshotId, snapshot: &Snapshot) {
        for name in [Some(id), snapshot.original].into_iter().flatten() {
            self.0.entry(name).or_default().push((id, snapshot.clone()));
        }
    }

    /// The one that is the same as this one of the source.
    fn find(&self, id: &SnapshotId, snapshot: &Snapshot) -> Option<SnapshotId> {
        let first = snapshot.original.unwrap_or(*id);
        let found = self.0.get(&first)?.iter().find(|(_, other)| is_same(snapshot, other))?;
        Some(found.0)
    }
}

/// Everything but the parent, the first name and the summary, as restic compares: paths and tags in any order.
fn is_same(one: &Snapshot, other: &Snapshot) -> bool {
    let same_set = |one: &[String], other: &[String]| {
        one.len() == other.len() && one.iter().all(|text| other.contains(text))
    };
    one.time.unix_nanos() == other.time.unix_nanos()
        && one.tree == other.tree
        && one.hostname == other.hostname
        && one.username == other.username
        && (one.uid, one.gid) == (other.uid, other.gid)
        && same_set(&one.paths, &other.paths)
        && same_set(&one.tags, &other.tags)
        && one.excludes == other.excludes
}

/// A blob that the target does not have: where it lies at the source, and the number of its record there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Missing {
    pack: u32,
    offset: u32,
    number: u64,
}

struct Copier<'a> {
    from: &'a Repository,
    to: &'a Repository,
    options: &'a CopyOptions,
    control: &'a Control,
    lock: &'a Lock,
    workers: usize,
    source: Arc<Index>,
    target: Arc<Index>,
    // Of the target's packs, by number: the size of those that are there.
    sizes: Vec<Option<u64>>,
    // The target's packs that the copied snapshots rely on, by number.
    relied: Marks,
    // The blobs that are sent, by the number of their record at the source; those of them that were up for reading back.
    sent: Marks,
    verified: Marks,
    // The target's packs that were read whole because they are not trusted: whether they are sound.
    read: Mutex<HashMap<usize, bool>>,
    pending: Mutex<Vec<Missing>>,
    // What this run has stored.
    made: Vec<Id>,
    made_indexes: Vec<Id>,
    moved: AtomicU64,
}

impl<'a> Copier<'a> {
    fn new(
        from: &'a Repository,
        to: &'a Repository,
        options: &'a CopyOptions,
        control: &'a Control,
        lock: &'a Lock,
    ) -> Result<Self> {
        // The snapshots have been read: whatever they refer to is in an index that is read later.
        let source = from.index(control)?;
        let target = to.index(control)?;
        let sizes = pack_sizes(to, &target, control)?;
        let workers = match options.workers {
            0 => std::thread::available_parallelism().map_or(2, usize::from).min(WORKERS_MAX),
            n => n,
        };
        Ok(Self {
            from,
            to,
            options,
            control,
            lock,
            workers,
            relied: Marks::new(target.pack_count()),
            sent: Marks::new(source.len()),
            verified: Marks::new(source.len()),
            read: Mutex::default(),
            source,
            target,
            sizes,
            pending: Mutex::default(),
            made: Vec::new(),
            made_indexes: Vec::new(),
            moved: AtomicU64::new(0),
        })
    }

    fn run(
        mut self,
        wanted: &[(SnapshotId, Snapshot)],
        there: &mut There,
        report: &mut CopyReport,
    ) -> Result<()> {
        let (source, control, from) = (Arc::clone(&self.source), self.control, self.from);
        let walk = Walk::new(&from.inner, &source, control, self.workers);
        let mut rest = wanted;
        let mut is_first = true;
        while !rest.is_empty() {
            let packer = self.packer()?;
            let done = self.fill(&packer, &walk, rest, is_first).and_then(|count| {
                packer.flush()?;
                Ok(count)
            });
            let count = match done {
                Ok(count) => count,
                Err(error) => {
                    // What is durable need not be sent again.
                    packer.salvage();
                    return Err(error);
                }
            };
            self.made.extend(packer.own_packs());
            self.made_indexes.extend(packer.own_indexes());
            let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            let counters = &packer.counters;
            report.blobs += get(&counters.data_blobs) + get(&counters.tree_blobs);
            report.plain_bytes += get(&counters.data_added);
            report.packs += get(&counters.packs);
            report.packs_verified += get(&counters.packs_read_back) + get(&counters.packs_attested);
            report.packs_attested += get(&counters.packs_attested);
            report.bytes_verified += get(&counters.bytes_read_back);
            let (group, later) = rest.split_at(count);
            // Before any snapshot says that it is here.
            self.verify(report)?;
            self.commit(group, there, report)?;
            (rest, is_first) = (later, false);
        }
        drop(walk);
        Ok(())
    }

    fn packer(&self) -> Result<Arc<Packer>> {
        Packer::start(
            Arc::clone(&self.to.inner),
            Arc::clone(&self.target),
            self.control.child(),
            PackerOptions {
                verify: true,
                pack_size: self.options.pack_size,
                read_back: self.options.read_back,
                believe: self.options.believe_target.then_some(self.options.verify),
                // The workers who have filled one wait, and hold no more than that.
                waiting: 0,
                index_packs: INDEX_PACKS,
                look: false,
                // What is relied on is decided here, and not by the packer.
                distrust: false,
            },
        )
    }

    /// Gives everything that some of the next snapshots need and the target lacks to the packer; returns of how many.
    fn fill(
        &self,
        packer: &Packer,
        walk: &Walk<'_>,
        rest: &[(SnapshotId, Snapshot)],
        is_first: bool,
    ) -> Result<usize> {
        let found = |number: usize, place: &Place| self.found(number, place);
        let is_enough = || locked(&self.pending).len() >= PENDING;
        for (count, (id, snapshot)) in rest.iter().enumerate() {
            let root = snapshot
                .tree
                .ok_or_else(|| RepositoryError::inconsistent(Object::Snapshot, id, "it has no tree"))?;
            walk.enter(&root, &found)?;
            loop {
                let is_whole = walk.run(&is_enough, &found)?;
                self.send(packer)?;
                if is_whole {
                    break;
                }
            }
            // The newest is what matters most: it waits for no other.
            let stored = packer.counters.data_added_packed.load(Ordering::Relaxed);
            if is_first || stored >= GROUP_BYTES || count + 1 >= GROUP {
                return Ok(count + 1);
            }
        }
        Ok(rest.len())
    }

    /// Whether a pack of the target may be relied on: where the target is not trusted, only when it is what its name says.
    fn is_trusted(&self, pack: usize) -> Result<bool> {
        if !self.options.distrust {
            return Ok(true);
        }
        if let Some(known) = locked(&self.read).get(&pack) {
            return Ok(*known);
        }
        let (id, size) = (self.target.pack(pack), self.sizes[pack].unwrap_or(0));
        let is_sound = self.to.inner.digest(&id, size, self.control)? == id;
        locked(&self.read).insert(pack, is_sound);
        Ok(is_sound)
    }

    /// Called once for each blob that the snapshots refer to.
    fn found(&self, number: usize, place: &Place) -> Result<()> {
        for there in self.target.places(place.blob.kind, &place.blob.id)? {
            let end = u64::from(there.blob.offset) + u64::from(there.blob.length);
            let pack = there.pack_number as usize;
            if self.sizes[pack].is_some_and(|size| size > end) && self.is_trusted(pack)? {
                self.relied.set(pack);
                return Ok(());
            }
        }
        self.sent.set(number);
        locked(&self.pending).push(Missing {
            pack: place.pack_number,
            offset: place.blob.offset,
            number: number as u64,
        });
        Ok(())
    }

    /// Gives what is pending to the packer.
    fn send(&self, packer: &Packer) -> Result<()> {
        let mut missing = std::mem::take(&mut *locked(&self.pending));
        if missing.is_empty() {
            return Ok(());
        }
        missing.sort_unstable();
        let moved = |bytes| {
            let bytes = self.moved.fetch_add(bytes, Ordering::Relaxed) + bytes;
            self.control.report(Progress { files: 0, bytes, files_total: None, bytes_total: None });
        };
        let transfer = Transfer {
            from: &self.from.inner,
            index: &self.source,
            packer,
            workers: self.workers,
            level: self.options.compression_level,
            control: self.control,
            moved: &moved,
        };
        let mut parts = missing.chunks(PART);
        transfer.run(|| {
            let part = parts.next().unwrap_or_default();
            part.iter()
                .map(|blob| self.source.numbered(usize::try_from(blob.number).unwrap_or(usize::MAX)))
                .collect()
        })
    }

    /// Writes the snapshots of a group whose packs and index files are durable.
    fn commit(
        &self,
        group: &[(SnapshotId, Snapshot)],
        there: &mut There,
        report: &mut CopyReport,
    ) -> Result<()> {
        let inner = &self.to.inner;
        let relied = || self.relied.iter().map(|number| self.target.pack(number));
        inner.ensure_packs(relied().chain(self.made.iter().copied()), self.control)?;
        let files = self.target.files.iter().chain(&self.made_indexes);
        inner.ensure_listed(files, relied().chain(self.made.iter().copied()), self.control)?;
        for (source, snapshot) in group {
            // Of two names of one snapshot the second finds the first.
            if let Some(target) = there.find(source, snapshot) {
                report.present.push(Copied { source: *source, target });
                continue;
            }
            self.lock.ensure_now(self.control)?;
            let copy = Snapshot {
                parent: None,
                original: Some(snapshot.original.unwrap_or(*source)),
                ..snapshot.clone()
            };
            let target = inner.write_unpacked(FileKind::Snapshot, &copy.encode(), self.control)?;
            // It is what makes the rest a copy: one that is stored and cannot be read again is none.
            if !is_same(&self.to.snapshot(&target, self.control)?, &copy) {
                return Err(RepositoryError::inconsistent(
                    Object::Snapshot,
                    target,
                    "it was read back as something else than was written",
                ));
            }
            report.copied.push(Copied { source: *source, target });
            there.add(target, &copy);
        }
        Ok(())
    }

    /// Reads a share of what was sent, by the index that is in the target now.
    fn verify(&self, report: &mut CopyReport) -> Result<()> {
        let share = &self.options.verify;
        if share.part <= 0.0 {
            return Ok(());
        }
        let before = self.to.bytes_read();
        let index = self.to.index(self.control)?;
        let mut chosen: Vec<Missing> = Vec::new();
        for number in self.sent.iter() {
            // Those of the groups before were looked at then.
            if !self.verified.set(number) {
                continue;
            }
            let blob = self.source.numbered(number)?.blob;
            if share.has(&blob.id) {
                let (number, place) = index
                    .find_numbered(blob.kind, &blob.id)?
                    .ok_or_else(|| RepositoryError::missing(blob.kind.object(), blob.id))?;
                chosen.push(Missing {
                    pack: place.pack_number,
                    offset: place.blob.offset,
                    number: number as u64,
                });
            }
            if chosen.len() >= PENDING {
                report.blobs_verified += self.read_back(&index, std::mem::take(&mut chosen))?;
            }
        }
        report.blobs_verified += self.read_back(&index, chosen)?;
        report.bytes_verified += self.to.bytes_read() - before;
        Ok(())
    }

    fn read_back(&self, index: &Index, mut blobs: Vec<Missing>) -> Result<u64> {
        blobs.sort_unstable();
        let parts: Vec<&[Missing]> = blobs.chunks(PART).collect();
        let inner = &self.to.inner;
        let read = in_parallel(&parts, self.workers, |part| {
            let mut codec = inner.codec(1)?;
            let mut wanted = Vec::new();
            let mut count = 0;
            for blob in *part {
                let place = index.numbered(usize::try_from(blob.number).unwrap_or(usize::MAX))?;
                if crate::large::is_large_tree(&place.blob) {
                    inner.read_tree(index, &place.blob.id, &mut codec, self.control)?;
                    count += 1;
                } else {
                    wanted.push((place, ()));
                }
            }
            for job in plan_ranges(wanted) {
                inner.run_range(index, &job, &mut codec, self.control, |_, plain| {
                    plain?;
                    count += 1;
                    Ok(())
                })?;
            }
            Ok(count)
        })?;
        Ok(read.into_iter().sum())
    }
}

/// The sizes of an index's packs, by number; `None` for those that the store does not have.
pub(crate) fn pack_sizes(
    repository: &Repository,
    index: &Index,
    control: &Control,
) -> Result<Vec<Option<u64>>> {
    let listed: HashMap<Id, u64> = repository
        .store()
        .list(FileKind::Pack, control)?
        .into_iter()
        .map(|listed| (listed.id, listed.size))
        .collect();
    Ok((0..index.pack_count()).map(|number| listed.get(&index.pack(number)).copied()).collect())
}
