//! From finished boxes to durable packs and index files.
//!
//! | thread           | does                                              | may wait for          |
//! |------------------|---------------------------------------------------|-----------------------|
//! | worker or caller | seals a blob, appends it to an open pack          | a place in the queue  |
//! | uploader         | stores packs, then lists them; stores index files | the store             |
//!
//! There are two uploaders; four where a network answers late and nothing has to be read back. A pack is listed in the index only after it is durable. After a failure the uploaders keep emptying the queue, so
//! that nobody waits for ever, and nothing is committed.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};
use sha2::{Digest as _, Sha256};

use crate::blob::{Codec, Opened, Sealed};
use crate::control::{Control, POLL};
use crate::copy::Share;
use crate::error::{Object, RepositoryError, Result};
use crate::id::{BlobKind, Id};
use crate::index::{self, Index, IndexedPack};
use crate::large::{self, LargeBox};
use crate::marks::Marks;
use crate::pack::{self, PackedBlob};
use crate::repository::Inner;
use crate::seen::Seen;
use crate::store::FileKind;

/// Blobs of one index file. restic writes up to 50,000; of smaller ones several are read at once.
const INDEX_BLOBS: usize = 20_000;
const INDEX_AGE: Duration = Duration::from_secs(600);
/// What is read back at once of a pack.
/// Blobs of one pack: of very small ones a pack of 16 MiB would hold hundreds of thousands, and the index file that lists it
/// is made, sealed and read back in memory.
pub(crate) const PACK_BLOBS: usize = 20_000;

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked with the lock held has also failed the session, which is looked at before any commit.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a session has stored.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) data_blobs: AtomicU64,
    pub(crate) tree_blobs: AtomicU64,
    pub(crate) data_added: AtomicU64,
    pub(crate) data_added_packed: AtomicU64,
    pub(crate) duplicate_blobs: AtomicU64,
    pub(crate) packs: AtomicU64,
    pub(crate) packs_read_back: AtomicU64,
    pub(crate) bytes_read_back: AtomicU64,
    pub(crate) packs_attested: AtomicU64,
}

/// How a packer works.
#[derive(Clone, Copy)]
pub(crate) struct PackerOptions {
    /// Open every box again before it is stored, and compare.
    pub(crate) verify: bool,
    /// Target size of a pack in bytes.
    pub(crate) pack_size: usize,
    /// Read every pack back from the store, and compare its SHA-256 with its name, before an index lists it.
    pub(crate) read_back: bool,
    /// Where packs are read back: whether a digest that the store itself tells is taken for that, but for the first pack and this
    /// share of the others, which are read all the same.
    pub(crate) believe: Option<Share>,
    /// Packs that may wait for an uploader.
    pub(crate) waiting: usize,
    /// Write an index file at the latest after this many packs.
    pub(crate) index_packs: usize,
    /// List the packs first, and store again what the index names and the store does not hold. Whoever decides that by himself
    /// does not ask.
    pub(crate) look: bool,
    /// Of those that are there, read each that would be relied on, and store again what is in those that are not what their names say.
    pub(crate) distrust: bool,
}

#[derive(Default)]
struct OpenPack {
    bytes: Vec<u8>,
    blobs: Vec<PackedBlob>,
}

struct FullPack {
    bytes: Vec<u8>,
    blobs: Vec<PackedBlob>,
}

struct Listing {
    packs: Vec<IndexedPack>,
    blobs: usize,
    since: Instant,
}

pub(crate) struct Packer {
    pub(crate) repository: Arc<Inner>,
    pub(crate) index: Arc<Index>,
    pub(crate) counters: Counters,
    pub(crate) control: Control,
    options: PackerOptions,
    // Ids given to a pack of this session, durable or not. A commit waits until all are.
    seen: Seen,
    // Two for data, so that the order of lengths says little to an observer; one for trees.
    open: [Mutex<OpenPack>; 3],
    queue: Mutex<Option<Sender<FullPack>>>,
    uploaders: Mutex<Vec<JoinHandle<()>>>,
    spare: Mutex<Vec<Vec<u8>>>,
    listing: Mutex<Listing>,
    failure: Mutex<Option<Arc<RepositoryError>>>,
    // Whether a pack has been read back although the store had told its digest; whether one was not what had been told.
    has_tested: AtomicBool,
    has_lied: AtomicBool,
    // By number of pack in the index: what the store really held when this began, as long as its blobs make it; and its size then.
    there: Marks,
    sizes: Vec<u64>,
    // Packs that are shorter than that.
    short: Vec<Id>,
    // By the same numbers, those that were read whole because nothing is trusted: whether they are what their names say.
    proofs: Mutex<HashMap<u32, Arc<Mutex<Option<bool>>>>>,
    used_packs: Marks,
    own_packs: Mutex<Vec<Id>>,
    own_indexes: Mutex<Vec<Id>>,
}

/// The open pack for a blob: of two for data, either.
fn which(codec: &mut Codec, kind: BlobKind) -> Result<usize> {
    match kind {
        BlobKind::Tree => Ok(2),
        BlobKind::Data => Ok(usize::from(codec.coin()?)),
    }
}

/// The size that each pack has at the least: its blobs, their entries in its header, and what is around these. By number of pack.
fn least_sizes(index: &Index) -> Result<Vec<u64>> {
    let mut sizes = vec![pack::size(&[]); index.pack_count()];
    index.visit(|_, places| {
        for place in places {
            sizes[place.pack_number as usize] +=
                u64::from(place.blob.length) + u64::from(place.blob.entry_size());
        }
        Ok(())
    })?;
    Ok(sizes)
}

impl Packer {
    pub(crate) fn start(
        repository: Arc<Inner>,
        index: Arc<Index>,
        control: Control,
        mut options: PackerOptions,
    ) -> Result<Arc<Self>> {
        options.pack_size = options.pack_size.clamp(64 << 10, 128 << 20);
        let repository_scratch = repository.scratch().map(std::path::Path::to_path_buf);
        let (sender, receiver) = crossbeam_channel::bounded::<FullPack>(options.waiting);
        let there = Marks::new(index.pack_count());
        let (mut sizes, mut short) = (vec![0; index.pack_count()], Vec::new());
        if options.look {
            let listed: HashMap<Id, u64> = repository
                .store
                .list(FileKind::Pack, &control)?
                .into_iter()
                .map(|listed| (listed.id, listed.size))
                .collect();
            let least = least_sizes(&index)?;
            for (number, least) in least.into_iter().enumerate() {
                let pack = index.pack(number);
                match listed.get(&pack) {
                    Some(size) if *size >= least => {
                        sizes[number] = *size;
                        there.set(number);
                    }
                    Some(_) => short.push(pack),
                    None => {}
                }
            }
        } else {
            for number in 0..index.pack_count() {
                there.set(number);
            }
        }
        let used_packs = Marks::new(index.pack_count());
        let packer = Arc::new(Self {
            repository,
            index,
            counters: Counters::default(),
            control,
            options,
            seen: Seen::new(repository_scratch),
            open: Default::default(),
            queue: Mutex::new(Some(sender)),
            uploaders: Mutex::default(),
            spare: Mutex::default(),
            listing: Mutex::new(Listing { packs: Vec::new(), blobs: 0, since: Instant::now() }),
            failure: Mutex::new(None),
            has_tested: AtomicBool::new(false),
            has_lied: AtomicBool::new(false),
            there,
            sizes,
            short,
            proofs: Mutex::default(),
            used_packs,
            own_packs: Mutex::default(),
            own_indexes: Mutex::default(),
        });
        // Reading back keeps a line busy by itself. A third and a fourth pack on their way cost their bytes in memory.
        let uploaders =
            if packer.repository.store.attests() && packer.options.believe.is_some() { 4 } else { 2 };
        for n in 0..uploaders {
            let uploader = Arc::clone(&packer);
            let receiver: Receiver<FullPack> = receiver.clone();
            let handle = std::thread::Builder::new()
                .name(format!("repository-upload-{n}"))
                .spawn(move || uploader.upload(&receiver))
                .map_err(|e| RepositoryError::io("start", "an uploader thread", e))?;
            locked(&packer.uploaders).push(handle);
        }
        Ok(packer)
    }

    /// The first failure decides the fate of the session; later ones are its consequences.
    pub(crate) fn fail(&self, error: RepositoryError) -> Arc<RepositoryError> {
        let mut failure = locked(&self.failure);
        Arc::clone(failure.get_or_insert_with(|| Arc::new(error)))
    }

    /// Returns the session's failure, or the caller's wish to stop.
    pub(crate) fn ensure(&self) -> Result<()> {
        if let Some(cause) = &*locked(&self.failure) {
            return Err(RepositoryError::Failed { cause: Arc::clone(cause) });
        }
        self.control.check().inspect_err(|stop| {
            if let Some(stop) = stop.stop() {
                self.fail(RepositoryError::Stopped(stop));
            }
        })
    }

    /// Remembers the failure of anything that makes the session worthless.
    pub(crate) fn guard<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| match error {
            RepositoryError::Failed { .. } => error,
            error => RepositoryError::Failed { cause: self.fail(error) },
        })
    }

    /// Whether a pack of the index may be relied on: it was there when this began, and as long as it has to be; nothing in it has been
    /// found to be damaged since; and where nothing is trusted, all of it was read.
    fn holds(&self, number: u32) -> Result<bool> {
        let is_there =
            self.there.has(number as usize) && !self.repository.is_suspect(&self.index.pack(number as usize));
        Ok(is_there && (!self.options.distrust || self.is_proven(number)?))
    }

    /// Whether the bytes of a pack are what its name says; each is read once.
    fn is_proven(&self, number: u32) -> Result<bool> {
        let proof = Arc::clone(locked(&self.proofs).entry(number).or_default());
        // Whoever asks for the same pack meanwhile waits for the answer instead of reading it, too.
        let mut proof = locked(&proof);
        if let Some(known) = *proof {
            return Ok(known);
        }
        let (pack, size) = (self.index.pack(number as usize), self.sizes[number as usize]);
        let mut is_sound = false;
        // What came over a network may have been damaged on its way.
        for _ in 0..if self.repository.store.is_remote() { 2 } else { 1 } {
            is_sound = match self.repository.digest(&pack, size, &self.control) {
                Ok(found) => found == pack,
                Err(RepositoryError::Missing { .. }) => false,
                Err(error) => return Err(error),
            };
            if is_sound {
                break;
            }
        }
        if !is_sound {
            self.repository.suspect(&[pack]);
        }
        *proof = Some(is_sound);
        Ok(is_sound)
    }

    /// Packs on which nothing was built because they are damaged: those that were too short, and those in which something was not what
    /// its id says.
    pub(crate) fn damaged_packs(&self) -> Vec<Id> {
        let mut packs = self.repository.suspects();
        packs.extend(&self.short);
        packs.sort_unstable();
        packs.dedup();
        packs
    }

    /// The length of a blob's plaintext when an earlier session stored it; marks the packs that hold it as relied upon.
    pub(crate) fn stored_length(&self, kind: BlobKind, id: &Id) -> Result<Option<u32>> {
        let Some(mut place) = self.index.find(kind, id)? else { return Ok(None) };
        // What an index names and the store does not hold, or holds damaged, is stored again.
        if !self.holds(place.pack_number)? {
            let mut another = None;
            for one in self.index.places(kind, id)? {
                if self.holds(one.pack_number)? {
                    another = Some(one);
                    break;
                }
            }
            let Some(another) = another else { return Ok(None) };
            place = another;
        }
        self.used_packs.set(place.pack_number as usize);
        Ok(Some(place.blob.plain_length()))
    }

    /// Stores a blob unless it is there; returns its id.
    pub(crate) fn store(&self, codec: &mut Codec, kind: BlobKind, plain: &[u8]) -> Result<Id> {
        self.store_as(codec, kind, Id::of(plain), plain)
    }

    /// [`Self::store`] for a content whose id is known.
    pub(crate) fn store_as(&self, codec: &mut Codec, kind: BlobKind, id: Id, plain: &[u8]) -> Result<Id> {
        self.ensure()?;
        if self.guard(self.stored_length(kind, &id))?.is_some() || !self.guard(self.seen.insert(kind, &id))? {
            self.counters.duplicate_blobs.fetch_add(1, Ordering::Relaxed);
            return Ok(id);
        }
        let stored = (|| {
            let which = which(codec, kind)?;
            self.append(which, kind, id, plain.len(), &codec.seal(kind, plain, self.options.verify)?)
        })();
        self.guard(stored)?;
        Ok(id)
    }

    /// Stores a blob that was opened in another repository or another pack, whatever the index says; the caller gives each
    /// once.
    pub(crate) fn store_again(
        &self,
        codec: &mut Codec,
        kind: BlobKind,
        id: Id,
        opened: &Opened<'_>,
    ) -> Result<()> {
        self.ensure()?;
        let stored = (|| {
            let which = which(codec, kind)?;
            let sealed = codec.seal_again(kind, opened, self.options.verify)?;
            self.append(which, kind, id, opened.plain.len(), &sealed)
        })();
        self.guard(stored)
    }

    /// [`Self::store_again`] for a tree that was made outside of memory.
    pub(crate) fn store_large_again(&self, tree: LargeBox) -> Result<()> {
        self.ensure()?;
        let stored = self.append_large(tree);
        self.guard(stored)
    }

    fn append(
        &self,
        which: usize,
        kind: BlobKind,
        id: Id,
        plain_length: usize,
        sealed: &Sealed<'_>,
    ) -> Result<()> {
        let length = u32::try_from(sealed.boxed.len())
            .map_err(|_| RepositoryError::refused("a blob of 4 GiB or more cannot be stored"))?;
        let blobs = match kind {
            BlobKind::Data => &self.counters.data_blobs,
            BlobKind::Tree => &self.counters.tree_blobs,
        };
        blobs.fetch_add(1, Ordering::Relaxed);
        self.counters.data_added.fetch_add(plain_length as u64, Ordering::Relaxed);
        self.counters.data_added_packed.fetch_add(u64::from(length), Ordering::Relaxed);
        let full = {
            let mut open = locked(&self.open[which]);
            if open.bytes.capacity() == 0 {
                open.bytes = locked(&self.spare).pop().unwrap_or_default();
            }
            let offset = u32::try_from(open.bytes.len())
                .map_err(|_| RepositoryError::refused("a pack of 4 GiB or more cannot be stored"))?;
            open.bytes.extend_from_slice(sealed.boxed);
            open.blobs.push(PackedBlob {
                kind,
                id,
                offset,
                length,
                uncompressed_length: sealed.uncompressed_length,
            });
            (open.bytes.len() >= self.options.pack_size || open.blobs.len() >= PACK_BLOBS)
                .then(|| std::mem::take(&mut *open))
        };
        match full {
            Some(pack) => self.finish_pack(pack),
            None => Ok(()),
        }
    }

    /// Stores a tree that was made outside of memory, in a pack of its own, unless it is there; returns its id.
    ///
    /// It is durable when this returns, and proven like every other blob: its box is opened again and hashed.
    pub(crate) fn store_large_tree(&self, tree: LargeBox) -> Result<Id> {
        self.ensure()?;
        let id = tree.id;
        if self.guard(self.stored_length(BlobKind::Tree, &id))?.is_some()
            || !self.guard(self.seen.insert(BlobKind::Tree, &id))?
        {
            self.counters.duplicate_blobs.fetch_add(1, Ordering::Relaxed);
            return Ok(id);
        }
        let stored = self.append_large(tree);
        self.guard(stored)?;
        Ok(id)
    }

    fn append_large(&self, tree: LargeBox) -> Result<()> {
        let LargeBox { id, plain_length, mut boxed } = tree;
        let blob = PackedBlob {
            kind: BlobKind::Tree,
            id,
            offset: 0,
            length: u32::try_from(boxed.len())
                .map_err(|_| RepositoryError::refused("a blob of 4 GiB or more cannot be stored"))?,
            uncompressed_length: Some(plain_length),
        };
        if self.options.verify {
            let broken = |why: String| RepositoryError::damaged(Object::Tree, "being written", why);
            let length_is_wrong = large::prove(&self.repository.key, &boxed, &blob, &self.control)?
                .map_err(|e| broken(e.to_string()))?;
            if length_is_wrong {
                return Err(broken("its length differs from what was packed; is the memory sound?".into()));
            }
        }
        let blobs = vec![blob];
        let trailer = pack::trailer(&self.repository.key, &blobs).map_err(RepositoryError::random)?;
        if self.options.verify && pack::read_trailer(&self.repository.key, &trailer) != Ok(blobs.clone()) {
            let why = "its header reads back differently";
            return Err(RepositoryError::damaged(Object::Pack, "being written", why));
        }
        boxed.write_all(&trailer).map_err(large::unkept)?;
        let mut sha = Sha256::new();
        boxed
            .visit(|bytes| {
                sha.update(bytes);
                std::io::Result::Ok(())
            })
            .map_err(large::unkept)?;
        self.control.check()?;
        let pack = Id(sha.finalize().into());
        let length = boxed.len();
        self.repository.store.write_spool(FileKind::Pack, &pack, Arc::new(boxed), &self.control)?;
        self.read_back(&pack, length, None)?;
        self.counters.tree_blobs.fetch_add(1, Ordering::Relaxed);
        self.counters.data_added.fetch_add(u64::from(plain_length), Ordering::Relaxed);
        self.counters.data_added_packed.fetch_add(u64::from(blob.length), Ordering::Relaxed);
        self.list_pack(pack, blobs)
    }

    fn finish_pack(&self, open: OpenPack) -> Result<()> {
        let OpenPack { mut bytes, blobs } = open;
        pack::finish(&self.repository.key, &mut bytes, &blobs).map_err(RepositoryError::random)?;
        if self.options.verify {
            let read = pack::read(&self.repository.key, &bytes)
                .map_err(|e| RepositoryError::damaged(Object::Pack, "being written", e))?;
            if read != blobs {
                return Err(RepositoryError::damaged(
                    Object::Pack,
                    "being written",
                    "its header reads back differently",
                ));
            }
        }
        let Some(queue) = locked(&self.queue).clone() else {
            return Err(RepositoryError::refused("the session is closed"));
        };
        let mut full = FullPack { bytes, blobs };
        loop {
            match queue.send_timeout(full, POLL) {
                Ok(()) => return Ok(()),
                Err(crossbeam_channel::SendTimeoutError::Timeout(back)) => {
                    full = back;
                    self.ensure()?;
                }
                Err(crossbeam_channel::SendTimeoutError::Disconnected(_)) => {
                    return Err(RepositoryError::refused("the uploaders are gone"));
                }
            }
        }
    }

    fn upload(&self, queue: &Receiver<FullPack>) {
        while let Ok(pack) = queue.recv() {
            if locked(&self.failure).is_some() {
                continue;
            }
            if let Err(error) = self.upload_one(pack) {
                self.fail(error);
            }
        }
    }

    fn upload_one(&self, pack: FullPack) -> Result<()> {
        let id = Id::of(&pack.bytes);
        let bytes = Bytes::from(pack.bytes);
        let told = self.repository.store.put(FileKind::Pack, &id, bytes.clone(), &self.control)?;
        let length = bytes.len() as u64;
        if let Ok(mut again) = bytes.try_into_mut() {
            // The buffer's pages are kept: faulting them in again costs as much as hashing them.
            again.clear();
            let mut spare = locked(&self.spare);
            if spare.len() < 3 {
                spare.push(again.into());
            }
        }
        self.read_back(&id, length, told)?;
        self.list_pack(id, pack.blobs)
    }

    /// Whether the store's word about its digest of a pack is enough: it says exactly the pack's name, it may be believed, and the pack
    /// is not one of those that are read to see whether it says the truth.
    fn is_believed(&self, id: &Id, told: Option<Id>) -> bool {
        match self.options.believe {
            Some(share) => {
                told == Some(*id) && self.has_tested.swap(true, Ordering::Relaxed) && !share.has(id)
            }
            None => false,
        }
    }

    /// Proves that the store gives back what it was given, where that was asked for. What came over a network is asked for once more
    /// before the store is blamed.
    ///
    /// `told` is the SHA-256 that the store tells of it. Another one than the pack's name proves nothing, and neither does none: then it
    /// is read.
    fn read_back(&self, id: &Id, length: u64, told: Option<Id>) -> Result<()> {
        if !self.options.read_back {
            return Ok(());
        }
        if self.is_believed(id, told) {
            self.counters.packs_attested.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let store = &self.repository.store;
        let mut found = self.repository.digest(id, length, &self.control)?;
        if found != *id && store.is_remote() {
            found = self.repository.digest(id, length, &self.control)?;
        }
        let there = store.size(FileKind::Pack, id, &self.control)?;
        if found != *id || there != Some(length) {
            let has_lied = told == Some(*id);
            self.has_lied.fetch_or(has_lied, Ordering::Relaxed);
            let why = if has_lied {
                "the store tells the right SHA-256 of it and gives back other bytes: believe nothing that it says of itself"
            } else {
                "the store gives back other bytes than it was given"
            };
            return Err(RepositoryError::damaged(Object::Pack, id, why));
        }
        self.counters.packs_read_back.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes_read_back.fetch_add(length, Ordering::Relaxed);
        Ok(())
    }

    /// Lists a durable pack; writes what is listed when that is enough for an index file.
    fn list_pack(&self, id: Id, blobs: Vec<PackedBlob>) -> Result<()> {
        self.counters.packs.fetch_add(1, Ordering::Relaxed);
        locked(&self.own_packs).push(id);
        let full = {
            let mut listing = locked(&self.listing);
            listing.blobs += blobs.len();
            listing.packs.push(IndexedPack { id, blobs });
            let due = listing.blobs >= INDEX_BLOBS
                || listing.packs.len() >= self.options.index_packs
                || listing.since.elapsed() > INDEX_AGE;
            due.then(|| listing.take())
        };
        match full {
            Some(packs) => self.write_index(&packs),
            None => Ok(()),
        }
    }

    fn write_index(&self, packs: &[IndexedPack]) -> Result<()> {
        if !packs.is_empty() {
            let id = self.repository.write_unpacked(FileKind::Index, &index::encode(packs), &self.control)?;
            locked(&self.own_indexes).push(id);
        }
        Ok(())
    }

    /// After a failure: lists the packs that are durable, so that who tries again need not store them again.
    ///
    /// Best effort: it was not asked for, and without it nothing is lost but time.
    pub(crate) fn salvage(&self) {
        self.stop();
        // Of a store that has lied once, what was only told is no pack that anybody may rest on.
        if self.has_lied.load(Ordering::Relaxed) {
            return;
        }
        let packs = locked(&self.listing).take();
        if !packs.is_empty() {
            let json = index::encode(&packs);
            self.repository.write_unpacked(FileKind::Index, &json, &Control::brief()).ok();
        }
    }

    /// The packs that were stored and listed.
    pub(crate) fn own_packs(&self) -> Vec<Id> {
        locked(&self.own_packs).clone()
    }

    /// The index files that were stored.
    pub(crate) fn own_indexes(&self) -> Vec<Id> {
        locked(&self.own_indexes).clone()
    }

    /// Packs durable, then the rest of the index durable. Nothing may be stored afterwards.
    pub(crate) fn flush(&self) -> Result<()> {
        self.ensure()?;
        for open in &self.open {
            let pack = std::mem::take(&mut *locked(open));
            if !pack.blobs.is_empty() {
                let finished = self.finish_pack(pack);
                self.guard(finished)?;
            }
        }
        self.stop();
        self.ensure()?;
        let packs = locked(&self.listing).take();
        let written = self.write_index(&packs);
        self.guard(written)
    }

    /// Ends the uploaders after what is queued.
    pub(crate) fn stop(&self) {
        locked(&self.queue).take();
        for handle in std::mem::take(&mut *locked(&self.uploaders)) {
            if handle.join().is_err() {
                self.fail(RepositoryError::refused("an uploader died"));
            }
        }
    }

    /// Every pack that the snapshot will rely on, own or older, must still exist and be listed by an index: a client that
    /// ignores locks, or that took ours for that of somebody dead, may have pruned while we worked.
    pub(crate) fn ensure_packs_exist(&self) -> Result<()> {
        let relied = || {
            let used = self.used_packs.iter().map(|number| self.index.pack(number));
            used.chain(self.own_packs())
        };
        self.repository.ensure_packs(relied(), &self.control)?;
        let own = self.own_indexes();
        self.repository.ensure_listed(self.index.files.iter().chain(&own), relied(), &self.control)
    }
}

impl Listing {
    fn take(&mut self) -> Vec<IndexedPack> {
        self.blobs = 0;
        self.since = Instant::now();
        std::mem::take(&mut self.packs)
    }
}
