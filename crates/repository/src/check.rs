//! Is everything there, whole, and consistent?
//!
//! Three kinds of faults are told apart: *missing* (perhaps another place has it), *damaged* (its storage changed bytes),
//! *inconsistent* (its writer was wrong). One finding names one cause with all blobs it takes away, and which snapshots
//! and paths that reaches. Beyond what restic checks: sizes against pieces, the order and uniqueness of names, declared
//! plaintext lengths, links without an inode.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};

use crate::blob::{BlobError, Codec, Opened, two_of};
use crate::control::{Control, Progress};
use crate::crypto::BoxError;
use crate::error::{Object, RepositoryError, Result};
use crate::id::{BlobKind, Id, SnapshotId};
use crate::index::{self, Index, IndexBuilder};
use crate::large;
use crate::lock::LockKind;
use crate::pack::{self, PackedBlob};
use crate::packer::locked;
use crate::packs::{Listed, ListedPack, Packs, PacksBuilder};
use crate::read::DEPTH_MAX;
use crate::repository::{Repository, in_parallel};
use crate::snapshot::Snapshot;
use crate::store::FileKind;
use crate::tree::{Node, NodeKind};

/// Paths that one finding names; the rest is counted.
const REACH: usize = 1000;
/// Packs up to this size are read at once, others blob by blob …
const WHOLE_PACK: u64 = 64 << 20;
/// … and all that are held at once have at most about this many bytes: of very large packs fewer are read at a time.
const PACKS_HELD: u64 = 128 << 20;

/// Which packs are read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum CheckRead {
    /// None: structure and trees only. A flipped byte in a data blob stays unnoticed.
    #[default]
    None,
    /// Every pack.
    All,
    /// A random share of the packs; the same seed chooses the same packs.
    Subset {
        /// Between 0 and 1.
        share: f64,
        /// Recorded, so that the choice can be repeated.
        seed: u64,
    },
}

/// Which lock a check takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CheckLock {
    /// Backups may go on meanwhile.
    #[default]
    Shared,
    /// As restic does.
    Exclusive,
    /// For media that cannot be written.
    None,
}

/// How a check is done.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckOptions {
    /// What is read.
    pub read: CheckRead,
    /// What is locked.
    pub lock: CheckLock,
    /// Worker threads; 0 takes the number of processors.
    pub workers: usize,
}

/// The kind of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// It is not there.
    Missing,
    /// Its bytes are not what was written.
    Damaged,
    /// Authentic, but contradictory or against the format.
    Inconsistent,
}

/// A snapshot and path that a fault reaches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reach {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The path in it, raw bytes with a leading `/`.
    pub path: Vec<u8>,
}

/// One fault.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Missing, damaged or inconsistent.
    pub kind: FaultKind,
    /// What kind of thing.
    pub what: Object,
    /// Its name.
    pub id: Id,
    /// The blobs concerned.
    pub blobs: Vec<(BlobKind, Id)>,
    /// What showed it.
    pub why: String,
    /// Where it is felt; empty when nothing refers to it or another copy is whole. At most 1,000 are named.
    pub reach: Vec<Reach>,
    /// How many there are.
    pub reach_count: u64,
}

/// What a check has found.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// Every fault, missing first.
    pub findings: Vec<Finding>,
    /// What is unusual but harmless.
    pub hints: Vec<String>,
    /// Every snapshot that is listed, and whether it and everything in it is whole as far as was checked; those that cannot be read
    /// come last.
    pub snapshots: Vec<(SnapshotId, bool)>,
    /// Packs in the store.
    pub packs: u64,
    /// Packs read.
    pub packs_read: u64,
    /// Blobs read, decrypted, decompressed and hashed, those of trees in the walk not counted.
    pub blobs_read: u64,
    /// Distinct trees walked.
    pub trees: u64,
    /// Bytes fetched from the store.
    pub bytes_read: u64,
}

impl CheckReport {
    /// No fault was found in what was checked.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

struct Check<'a> {
    repository: &'a Repository,
    control: &'a Control,
    workers: usize,
    findings: Mutex<Vec<Finding>>,
    hints: Mutex<Vec<String>>,
    // Blobs whose only places are known to be gone, by the finding that took them.
    lost: Mutex<HashMap<(BlobKind, Id), BTreeSet<usize>>>,
    // Trees that are themselves at fault.
    bad_trees: Mutex<HashMap<Id, BTreeSet<usize>>>,
}

impl Repository {
    /// Checks the repository; faults are findings, and an error means that the check could not be carried out.
    pub fn check(&self, options: &CheckOptions, control: &Control) -> Result<CheckReport> {
        let lock = match options.lock {
            CheckLock::Shared => Some(self.lock(LockKind::Shared, control)?),
            CheckLock::Exclusive => Some(self.lock(LockKind::Exclusive, control)?),
            CheckLock::None => None,
        };
        let workers = match options.workers {
            0 => std::thread::available_parallelism().map_or(2, usize::from).min(8),
            n => n,
        };
        let check = Check {
            repository: self,
            control,
            workers,
            findings: Mutex::default(),
            hints: Mutex::default(),
            lost: Mutex::default(),
            bad_trees: Mutex::default(),
        };
        let report = check.run(options)?;
        if let Some(lock) = lock {
            lock.ensure()?;
            // What was seen is true, whether or not the lock's file can be removed: it is reaped later.
            lock.release().ok();
        }
        Ok(report)
    }
}

fn fault_of(error: &RepositoryError) -> FaultKind {
    match error.root() {
        RepositoryError::Missing { .. } => FaultKind::Missing,
        RepositoryError::Inconsistent { .. } | RepositoryError::Unsupported { .. } => FaultKind::Inconsistent,
        _ => FaultKind::Damaged,
    }
}

/// Errors that say something about the repository, not about the way to it.
fn is_finding(error: &RepositoryError) -> bool {
    matches!(
        error.root(),
        RepositoryError::Missing { .. }
            | RepositoryError::Damaged { .. }
            | RepositoryError::Inconsistent { .. }
            | RepositoryError::Unsupported { .. }
    )
}

impl Check<'_> {
    fn find(&self, kind: FaultKind, what: Object, id: Id, why: String, blobs: Vec<(BlobKind, Id)>) -> usize {
        let mut findings = locked(&self.findings);
        findings.push(Finding { kind, what, id, blobs, why, reach: Vec::new(), reach_count: 0 });
        findings.len() - 1
    }

    fn hint(&self, text: String) {
        let mut hints = locked(&self.hints);
        if hints.len() < 1000 {
            hints.push(text);
        }
    }

    fn run(&self, options: &CheckOptions) -> Result<CheckReport> {
        let (repository, control) = (self.repository, self.control);
        let before = repository.bytes_read();
        self.keys()?;
        // The snapshots before the index: what they refer to was indexed before they were written.
        let mut unreadable = Vec::new();
        let snapshots = self.snapshots(&mut unreadable)?;
        let (index, packs) = self.index_files()?;
        let sizes: HashMap<Id, u64> = repository
            .inner
            .store
            .list(FileKind::Pack, control)?
            .into_iter()
            .map(|listed| (listed.id, listed.size))
            .collect();
        self.packs(&packs, &sizes)?;
        let gone: HashSet<Id> =
            packs.list.iter().filter(|pack| !sizes.contains_key(&pack.id)).map(|pack| pack.id).collect();
        self.report_gone(&packs, &gone, &index)?;

        let trees = self.walk(&snapshots, &index)?;

        let mut chosen: Vec<&ListedPack> = packs
            .list
            .iter()
            .filter(|pack| !gone.contains(&pack.id))
            .filter(|pack| match options.read {
                CheckRead::None => false,
                CheckRead::All => true,
                CheckRead::Subset { share, seed } => is_chosen(&pack.id, share, seed),
            })
            .collect();
        // The most work first: the last pack that is begun decides how long the other workers wait.
        chosen.sort_by_key(|pack| std::cmp::Reverse(pack.plain_bytes));
        let blobs_read = self.read_packs(&packs, &chosen, &sizes, &index, &gone)?;
        let broken = self.reaches(&snapshots, &index)?;

        let mut findings = std::mem::take(&mut *locked(&self.findings));
        findings.sort_by_key(|finding| (finding.kind, finding.what, finding.id));
        Ok(CheckReport {
            findings,
            hints: std::mem::take(&mut *locked(&self.hints)),
            snapshots: snapshots
                .iter()
                .map(|(id, _)| (*id, !broken.contains(id)))
                .chain(unreadable.into_iter().map(|id| (id, false)))
                .collect(),
            packs: sizes.len() as u64,
            packs_read: chosen.len() as u64,
            blobs_read,
            trees,
            bytes_read: repository.bytes_read() - before,
        })
    }

    fn keys(&self) -> Result<()> {
        match self.repository.keys(self.control) {
            Ok(_) => Ok(()),
            Err(e) if is_finding(&e) => {
                let id = named(&e).unwrap_or_default();
                self.find(fault_of(&e), Object::Key, id, e.to_string(), Vec::new());
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// The snapshots, oldest first; the names of those that are listed and cannot be read go into `unreadable`.
    fn snapshots(&self, unreadable: &mut Vec<SnapshotId>) -> Result<Vec<(SnapshotId, Snapshot)>> {
        let mut snapshots = Vec::new();
        for listed in self.repository.inner.store.list(FileKind::Snapshot, self.control)? {
            match self.repository.snapshot(&listed.id, self.control) {
                Ok(snapshot) => snapshots.push((listed.id, snapshot)),
                Err(e) if is_finding(&e) => {
                    self.find(fault_of(&e), Object::Snapshot, listed.id, e.to_string(), Vec::new());
                    unreadable.push(listed.id);
                }
                Err(e) => return Err(e),
            }
        }
        snapshots.sort_by_key(|(id, snapshot)| (snapshot.time.unix_nanos(), *id));
        unreadable.sort_unstable();
        Ok(snapshots)
    }

    /// The index, and the same by pack.
    fn index_files(&self) -> Result<(Index, Packs)> {
        let inner = &self.repository.inner;
        let listed = inner.store.list(FileKind::Index, self.control)?;
        let scratch = inner.scratch();
        let builders = Mutex::new((IndexBuilder::new(scratch), PacksBuilder::new(scratch)));
        in_parallel(&listed, self.workers, |listed| {
            let read = inner
                .read_unpacked(FileKind::Index, &listed.id, self.control)
                .and_then(|json| index::decode(&listed.id, &json));
            match read {
                Ok(packs) => {
                    let mut builders = locked(&builders);
                    let (index, by_pack) = &mut *builders;
                    by_pack.add(&listed.id, &packs, index)?;
                    index.add(&packs)
                }
                Err(e) if is_finding(&e) => {
                    self.find(fault_of(&e), Object::Index, listed.id, e.to_string(), Vec::new());
                    Ok(())
                }
                Err(e) => Err(e),
            }
        })?;
        let (index, packs) = builders.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok((index.finish()?, packs.finish()?))
    }

    /// What the index says about each pack, against itself and the listed sizes.
    fn packs(&self, packs: &Packs, sizes: &HashMap<Id, u64>) -> Result<()> {
        for pack in &packs.list {
            let id = pack.id;
            self.control.check()?;
            let blobs = packs.blobs(pack)?;
            match &pack.listed {
                Listed::Once => {}
                Listed::Alike { file } => {
                    self.hint(format!("pack {id} is listed by several index files, one is {file}"));
                }
                Listed::Differently => {
                    let why = "several index files list different parts of it".to_owned();
                    self.find(FaultKind::Inconsistent, Object::Pack, id, why, Vec::new());
                }
            }
            if self.repository.version() > 1 && blobs.iter().any(|blob| blob.kind != blobs[0].kind) {
                self.hint(format!("pack {id} mixes data and trees"));
            }
            let Some(size) = sizes.get(&id) else { continue };
            let mut end = 0u64;
            let in_order = blobs.iter().all(|blob| {
                let fits = u64::from(blob.offset) == end;
                end += u64::from(blob.length);
                fits
            });
            let expected = pack::size(&blobs);
            if *size < expected {
                // A cut pack may still hold most of its blobs; reading tells which.
                let why = format!("it has {size} bytes instead of {expected}");
                let lost =
                    blobs.iter().filter(|blob| u64::from(blob.offset) + u64::from(blob.length) > *size);
                let lost: Vec<_> = lost.map(|blob| (blob.kind, blob.id)).collect();
                let number = self.find(FaultKind::Damaged, Object::Pack, id, why, lost.clone());
                self.lose(&lost, number);
            } else if *size > expected || !in_order {
                let why = format!("it has {size} bytes; its index lists blobs for {expected}");
                self.find(FaultKind::Inconsistent, Object::Pack, id, why, Vec::new());
            }
        }
        let unlisted = sizes.keys().filter(|id| packs.find(id).is_none()).count();
        if unlisted > 0 {
            self.hint(format!("{unlisted} packs are in no index, as after an interrupted backup"));
        }
        Ok(())
    }

    fn lose(&self, blobs: &[(BlobKind, Id)], finding: usize) {
        let mut lost = locked(&self.lost);
        for blob in blobs {
            lost.entry(*blob).or_default().insert(finding);
        }
    }

    fn report_gone(&self, packs: &Packs, gone: &HashSet<Id>, index: &Index) -> Result<()> {
        for id in gone {
            let Some(pack) = packs.find(id) else { continue };
            let blobs: Vec<_> = packs.blobs(pack)?.iter().map(|blob| (blob.kind, blob.id)).collect();
            let why = "the index lists it, the store does not have it".to_owned();
            let number = self.find(FaultKind::Missing, Object::Pack, *id, why, blobs.clone());
            let mut lost = Vec::new();
            for (kind, blob) in blobs {
                if index.places(kind, &blob)?.iter().all(|place| gone.contains(&place.pack)) {
                    lost.push((kind, blob));
                }
            }
            self.lose(&lost, number);
        }
        Ok(())
    }

    /// Reads every reachable tree once; returns how many.
    fn walk(&self, snapshots: &[(SnapshotId, Snapshot)], index: &Index) -> Result<u64> {
        let mut seen: HashSet<Id> = HashSet::new();
        let mut level: Vec<Id> =
            snapshots.iter().filter_map(|(_, s)| s.tree).filter(|id| seen.insert(*id)).collect();
        let mut depth = 0;
        while !level.is_empty() {
            depth += 1;
            if depth > DEPTH_MAX {
                let why = "trees are nested too deeply".to_owned();
                self.find(FaultKind::Inconsistent, Object::Tree, level[0], why, Vec::new());
                break;
            }
            let groups: Vec<&[Id]> = level.chunks(64).collect();
            let found = in_parallel(&groups, self.workers, |ids| {
                let mut codec = self.repository.inner.codec(1)?;
                let mut subtrees = Vec::new();
                for id in *ids {
                    self.control.check()?;
                    self.tree(id, index, &mut codec, &mut subtrees)?;
                }
                Ok(subtrees)
            })?;
            level = found.into_iter().flatten().filter(|id| seen.insert(*id)).collect();
        }
        Ok(seen.len() as u64)
    }

    fn tree(&self, id: &Id, index: &Index, codec: &mut Codec, subtrees: &mut Vec<Id>) -> Result<()> {
        if locked(&self.lost).contains_key(&(BlobKind::Tree, *id)) {
            return Ok(()); // Told already, with its pack.
        }
        let unsound = |e: RepositoryError| {
            if !is_finding(&e) {
                return Err(e);
            }
            let number =
                self.find(fault_of(&e), Object::Tree, *id, e.to_string(), vec![(BlobKind::Tree, *id)]);
            self.lose(&[(BlobKind::Tree, *id)], number);
            Ok(())
        };
        let nodes = match self.repository.inner.read_tree(index, id, codec, self.control) {
            Ok(nodes) => nodes,
            Err(e) => return unsound(e),
        };
        let mut last: Option<Vec<u8>> = None;
        for node in nodes {
            let node = match node {
                Ok(node) => node,
                Err(e) => return unsound(e),
            };
            self.control.check()?;
            for why in self.node(&node, index)? {
                self.bad_tree(id, &node, &why);
            }
            match last {
                Some(last) if last == node.name => self.bad_tree(id, &node, "the name occurs twice"),
                Some(last) if last > node.name => self.bad_tree(id, &node, "it is out of order"),
                _ => {}
            }
            if node.kind == NodeKind::Dir
                && let Some(subtree) = node.subtree
            {
                subtrees.push(subtree);
            }
            last = Some(node.name);
        }
        Ok(())
    }

    fn bad_tree(&self, id: &Id, node: &Node, why: &str) {
        let why = format!("entry \"{}\": {why}", crate::quote::quote(&node.name));
        let number = self.find(FaultKind::Inconsistent, Object::Tree, *id, why, Vec::new());
        locked(&self.bad_trees).entry(*id).or_default().insert(number);
    }

    fn node(&self, node: &Node, index: &Index) -> Result<Vec<String>> {
        let mut faults = Vec::new();
        if !node.name_is_safe() {
            faults.push("it is not one path component".to_owned());
        }
        match &node.kind {
            NodeKind::File => {
                let mut size = 0;
                let mut whole = true;
                let Some(content) = &node.content else {
                    faults.push("a file without a list of pieces".to_owned());
                    return Ok(faults);
                };
                for id in content {
                    match index.find(BlobKind::Data, id)? {
                        Some(place) => size += u64::from(place.blob.plain_length()),
                        None => {
                            whole = false;
                            self.unindexed(id);
                        }
                    }
                }
                if whole && size != node.size {
                    faults.push(format!("its size is recorded as {}, its pieces have {size}", node.size));
                }
                if node.links > 1 && node.inode == 0 {
                    // Trap 1: restic would link it to any other such file of the device.
                    faults.push(format!("{} links without an inode", node.links));
                }
            }
            NodeKind::Dir if node.subtree.is_none() => faults.push("a directory without a tree".to_owned()),
            NodeKind::Other(kind) => faults.push(format!("unknown type {kind:?}")),
            _ => {}
        }
        Ok(faults)
    }

    /// A piece that no index knows; told once.
    fn unindexed(&self, id: &Id) {
        let blob = (BlobKind::Data, *id);
        let mut lost = locked(&self.lost);
        if !lost.contains_key(&blob) {
            let why = "a file refers to it, no index lists it".to_owned();
            let number = self.find(FaultKind::Missing, Object::DataBlob, *id, why, vec![blob]);
            lost.entry(blob).or_default().insert(number);
        }
    }

    fn read_packs(
        &self,
        packs: &Packs,
        chosen: &[&ListedPack],
        sizes: &HashMap<Id, u64>,
        index: &Index,
        gone: &HashSet<Id>,
    ) -> Result<u64> {
        let largest =
            chosen.iter().filter_map(|pack| sizes.get(&pack.id)).map(|size| *size.min(&WHOLE_PACK)).max();
        let held_at_once = PACKS_HELD / largest.unwrap_or(1).max(1);
        let workers = self.workers.min(chosen.len()).min(usize::try_from(held_at_once).unwrap_or(usize::MAX));
        let total: u64 = chosen.iter().filter_map(|pack| sizes.get(&pack.id)).sum();
        let blobs_read = AtomicU64::new(0);
        let bytes_done = AtomicU64::new(0);
        let next = std::sync::atomic::AtomicUsize::new(0);
        let failed: Mutex<Option<RepositoryError>> = Mutex::new(None);
        // Bad copies, by blob: a blob is lost only when every copy is bad or gone.
        let bad: Mutex<Vec<(usize, BlobKind, Id, Id)>> = Mutex::default();
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    let run = || -> Result<()> {
                        let mut codec = self.repository.inner.codec(1)?;
                        let mut buffer = Vec::new();
                        loop {
                            let Some(pack) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) else {
                                return Ok(());
                            };
                            self.control.check()?;
                            let (id, blobs) = (&pack.id, packs.blobs(pack)?);
                            let size = sizes.get(id).copied().unwrap_or(0);
                            let broken = self.read_pack(id, size, &blobs, &mut codec, &mut buffer)?;
                            blobs_read.fetch_add(blobs.len() as u64, Ordering::Relaxed);
                            if let Some((number, broken)) = broken {
                                locked(&bad)
                                    .extend(broken.into_iter().map(|(kind, blob)| (number, kind, blob, *id)));
                            }
                            let bytes = bytes_done.fetch_add(size, Ordering::Relaxed) + size;
                            self.control.report(Progress {
                                files: 0,
                                bytes,
                                files_total: None,
                                bytes_total: Some(total),
                            });
                        }
                    };
                    if let Err(e) = run() {
                        next.store(chosen.len(), Ordering::Relaxed);
                        locked(&failed).get_or_insert(e);
                    }
                });
            }
        });
        if let Some(e) = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            return Err(e);
        }
        let bad = bad.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let bad_copies: HashSet<(BlobKind, Id, Id)> =
            bad.iter().map(|(_, kind, blob, pack)| (*kind, *blob, *pack)).collect();
        for (number, kind, blob, _) in &bad {
            let sound = index.places(*kind, blob)?.iter().any(|place| {
                !gone.contains(&place.pack) && !bad_copies.contains(&(*kind, *blob, place.pack))
            });
            if !sound {
                self.lose(&[(*kind, *blob)], *number);
            }
        }
        Ok(blobs_read.into_inner())
    }

    /// Reads one pack whole; returns its finding and the blobs that are bad in it.
    #[expect(clippy::type_complexity, reason = "used once, two lines above")]
    fn read_pack(
        &self,
        id: &Id,
        size: u64,
        blobs: &[PackedBlob],
        codec: &mut Codec,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<(usize, Vec<(BlobKind, Id)>)>> {
        let inner = &self.repository.inner;
        let mut reasons: Vec<String> = Vec::new();
        let mut broken: Vec<(BlobKind, Id)> = Vec::new();
        let mut kind = FaultKind::Inconsistent;
        let mut damaged = |reasons: &mut Vec<String>, why: String| {
            kind = FaultKind::Damaged;
            reasons.push(why);
        };
        let mut lengths = Vec::new();
        let mut judge = |blob: &PackedBlob,
                         opened: std::result::Result<bool, BlobError>,
                         reasons: &mut Vec<String>| match opened {
            Ok(false) => {}
            Ok(true) => {
                lengths.push(format!("{} {}: its declared length is wrong", blob.kind.object(), blob.id));
            }
            Err(e) => {
                broken.push((blob.kind, blob.id));
                damaged(reasons, format!("{} {}: {e}", blob.kind.object(), blob.id));
            }
        };
        let header;
        let hash;
        if size <= WHOLE_PACK {
            let there = inner.store.read_into(FileKind::Pack, id, 0..size, buffer, self.control)?;
            if !there {
                let blobs: Vec<_> = blobs.iter().map(|blob| (blob.kind, blob.id)).collect();
                let why = "it vanished during the check".to_owned();
                return Ok(Some((
                    self.find(FaultKind::Missing, Object::Pack, *id, why, blobs.clone()),
                    blobs,
                )));
            }
            let mut found = Id::of(buffer);
            // What came over a network may have been damaged on its way.
            if found != *id && inner.store.is_remote() {
                inner.store.read_into(FileKind::Pack, id, 0..size, buffer, self.control)?;
                found = Id::of(buffer);
            }
            hash = found;
            header = pack::read(&inner.key, buffer);
            let place = |blob: &PackedBlob| {
                let from = blob.offset as usize;
                from..from.saturating_add(blob.length as usize)
            };
            let verdict = |opened: std::result::Result<Opened<'_>, BlobError>| {
                opened.map(|opened| opened.length_is_wrong)
            };
            let mut left = blobs;
            while let Some((one, rest)) = left.split_first() {
                left = rest;
                if large::is_large_tree(one) {
                    let proven = match buffer.get(place(one)) {
                        Some(boxed) => large::prove(&inner.key, &boxed, one, self.control)?,
                        None => Err(BlobError::Box(BoxError::TooShort(0))),
                    };
                    judge(one, proven, &mut reasons);
                    continue;
                }
                if let Some((other, rest)) = rest.split_first()
                    && !large::is_large_tree(other)
                    && let Some((one_boxed, other_boxed)) = two_of(buffer, place(one), place(other))
                {
                    let [first, second] = codec.open_two((one, one_boxed), (other, other_boxed)).map(verdict);
                    judge(one, first, &mut reasons);
                    judge(other, second, &mut reasons);
                    left = rest;
                    continue;
                }
                let opened = match buffer.get_mut(place(one)) {
                    Some(boxed) => verdict(codec.open(one, boxed)),
                    None => Err(BlobError::Box(BoxError::TooShort(0))),
                };
                judge(one, opened, &mut reasons);
            }
        } else {
            let mut sha = Sha256::new();
            let mut at = 0;
            while at < size {
                let end = (at + (8 << 20)).min(size);
                self.control.check()?;
                if !inner.store.read_into(FileKind::Pack, id, at..end, buffer, self.control)?
                    || buffer.is_empty()
                {
                    break;
                }
                sha.update(&buffer[..]);
                at += buffer.len() as u64;
            }
            hash = Id(sha.finalize().into());
            inner.store.read_into(FileKind::Pack, id, size.saturating_sub(4)..size, buffer, self.control)?;
            let last = buffer.first_chunk::<4>().copied().unwrap_or_default();
            header = match pack::header_range(size, last) {
                Ok(range) => {
                    inner.store.read_into(FileKind::Pack, id, range, buffer, self.control)?;
                    inner.key.open(buffer).map_err(Into::into).and_then(|plain| pack::decode_header(&plain))
                }
                Err(e) => Err(e),
            };
            for blob in blobs {
                self.control.check()?;
                if large::is_large_tree(blob) {
                    let proven = match inner.fetch_large(id, blob, self.control) {
                        Ok(boxed) => large::prove(&inner.key, &boxed, blob, self.control)?,
                        // The pack is shorter, or gone.
                        Err(e) if is_finding(&e) => Err(BlobError::Box(BoxError::TooShort(0))),
                        Err(e) => return Err(e),
                    };
                    judge(blob, proven, &mut reasons);
                    continue;
                }
                let from = u64::from(blob.offset);
                let range = from..from + u64::from(blob.length);
                inner.store.read_into(FileKind::Pack, id, range, buffer, self.control)?;
                let opened = codec.open(blob, buffer).map(|opened| opened.length_is_wrong);
                judge(blob, opened, &mut reasons);
            }
        }
        if hash != *id {
            damaged(&mut reasons, format!("its SHA-256 is {hash}"));
        }
        match header {
            Ok(mut listed) => {
                listed.sort_by_key(|blob| blob.offset);
                if listed != blobs {
                    reasons.push("its header lists other blobs than its index".to_owned());
                }
            }
            Err(e) if hash == *id => reasons.push(e.to_string()),
            Err(e) => damaged(&mut reasons, e.to_string()),
        }
        reasons.extend(lengths);
        if reasons.is_empty() {
            return Ok(None);
        }
        if reasons.len() > 20 {
            let more = reasons.len() - 20;
            reasons.truncate(20);
            reasons.push(format!("and {more} more"));
        }
        // A pack that was found too short already is the same fault.
        let known = locked(&self.findings).iter().position(|f| f.what == Object::Pack && f.id == *id);
        if let Some(number) = known {
            let finding = &mut locked(&self.findings)[number];
            finding.kind = finding.kind.min(kind);
            finding.why = format!("{}; {}", finding.why, reasons.join("; "));
            finding.blobs.extend(broken.iter().copied());
            finding.blobs.sort_unstable();
            finding.blobs.dedup();
            return Ok(Some((number, broken)));
        }
        let number = self.find(kind, Object::Pack, *id, reasons.join("; "), broken.clone());
        Ok(Some((number, broken)))
    }

    /// Follows each fault up to the snapshots and paths that feel it; returns the snapshots that are not whole.
    fn reaches(&self, snapshots: &[(SnapshotId, Snapshot)], index: &Index) -> Result<HashSet<SnapshotId>> {
        let lost = std::mem::take(&mut *locked(&self.lost));
        let bad_trees = std::mem::take(&mut *locked(&self.bad_trees));
        let mut broken = HashSet::new();
        if lost.is_empty() && bad_trees.is_empty() {
            return Ok(broken);
        }
        let mut codec = self.repository.inner.codec(1)?;
        let mut felt = Felt { check: self, index, lost: &lost, bad_trees: &bad_trees, whole: HashSet::new() };
        for (id, snapshot) in snapshots {
            let Some(tree) = snapshot.tree else { continue };
            let mut path = Vec::new();
            if felt.visit(id, &tree, &mut path, 0, &mut codec)? {
                broken.insert(*id);
            }
        }
        Ok(broken)
    }
}

struct Felt<'a, 'b> {
    check: &'a Check<'b>,
    index: &'a Index,
    lost: &'a HashMap<(BlobKind, Id), BTreeSet<usize>>,
    bad_trees: &'a HashMap<Id, BTreeSet<usize>>,
    // Trees known to be whole; most are, and none is visited twice.
    whole: HashSet<Id>,
}

impl Felt<'_, '_> {
    fn feel(&self, snapshot: &SnapshotId, path: &[u8], numbers: &BTreeSet<usize>) {
        let mut findings = locked(&self.check.findings);
        for number in numbers {
            let finding = &mut findings[*number];
            finding.reach_count += 1;
            if finding.reach.len() < REACH {
                let path = if path.is_empty() { b"/".to_vec() } else { path.to_vec() };
                finding.reach.push(Reach { snapshot: *snapshot, path });
            }
        }
    }

    fn visit(
        &mut self,
        snapshot: &SnapshotId,
        tree: &Id,
        path: &mut Vec<u8>,
        depth: usize,
        codec: &mut Codec,
    ) -> Result<bool> {
        if self.whole.contains(tree) {
            return Ok(false);
        }
        self.check.control.check()?;
        if let Some(numbers) = self.lost.get(&(BlobKind::Tree, *tree)) {
            self.feel(snapshot, path, numbers);
            // Entries of it that were at fault before it could not be read on.
            if let Some(numbers) = self.bad_trees.get(tree) {
                self.feel(snapshot, path, numbers);
            }
            return Ok(true);
        }
        if depth > DEPTH_MAX.min(512) {
            // Deeper than the thread's stack should go; the fault above it is told without its path.
            return Ok(true);
        }
        let mut broken = false;
        if let Some(numbers) = self.bad_trees.get(tree) {
            self.feel(snapshot, path, numbers);
            broken = true;
        }
        let nodes = match self.check.repository.inner.read_tree(self.index, tree, codec, self.check.control) {
            Ok(nodes) => nodes,
            Err(e) if is_finding(&e) => return Ok(true),
            Err(e) => return Err(e),
        };
        for node in nodes {
            let node = match node {
                Ok(node) => node,
                Err(e) if is_finding(&e) => return Ok(true),
                Err(e) => return Err(e),
            };
            self.check.control.check()?;
            let length = path.len();
            path.push(b'/');
            path.extend_from_slice(&node.name);
            let numbers: BTreeSet<usize> = node
                .content
                .iter()
                .flatten()
                .filter_map(|id| self.lost.get(&(BlobKind::Data, *id)))
                .flatten()
                .copied()
                .collect();
            if !numbers.is_empty() {
                self.feel(snapshot, path, &numbers);
                broken = true;
            }
            if node.kind == NodeKind::Dir
                && let Some(subtree) = node.subtree
            {
                broken |= self.visit(snapshot, &subtree, path, depth + 1, codec)?;
            }
            path.truncate(length);
        }
        if !broken {
            self.whole.insert(*tree);
        }
        Ok(broken)
    }
}

fn named(error: &RepositoryError) -> Option<Id> {
    match error.root() {
        RepositoryError::Missing { id, .. }
        | RepositoryError::Damaged { id, .. }
        | RepositoryError::Inconsistent { id, .. } => Id::parse(id),
        _ => None,
    }
}

/// The same seed chooses the same packs; each pack is chosen with the same chance, whatever the others.
pub(crate) fn is_chosen(id: &Id, share: f64, seed: u64) -> bool {
    let mut bytes = seed.to_le_bytes().to_vec();
    bytes.extend_from_slice(&id.0);
    let draw = Id::of(&bytes);
    let number = u32::from_le_bytes([draw.0[0], draw.0[1], draw.0[2], draw.0[3]]);
    f64::from(number) < share.clamp(0.0, 1.0) * f64::from(u32::MAX) || share >= 1.0
}
