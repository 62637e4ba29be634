//! A repository: opening, keys, snapshots, the index, and reading one blob.
//!
//! All calls block and may be made from any thread that may block. Everything that is read is treated as hostile until
//! its MAC and its hash have been compared.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::blob::{BlobError, Codec, open_unpacked, seal_unpacked};
use crate::chunker::Tables;
use crate::config::Config;
use crate::control::Control;
use crate::crypto::Key;
use crate::error::{Object, RepositoryError, Result};
use crate::id::{BlobKind, Id, KeyId, SnapshotId};
use crate::index::{self, Index, IndexBuilder, Place};
use crate::key::{self, KdfParams, KeyFile};
use crate::large::{self, LargeBox, LargeWriter};
use crate::lock::{Lock, LockContext, LockKind, PendingLock, hostname, username};
use crate::pack::PackedBlob;
use crate::polynomial::Polynomial;
use crate::snapshot::Snapshot;
use crate::spool::Spool;
use crate::store::{FileKind, Listed, Store};
use crate::time::Time;
use crate::tree::Entries;

/// What is fetched at once of a large blob.
const LARGE_STEP: u64 = 4 << 20;

/// At most this many key files are tried, as in restic.
const KEYS_MAX: usize = 20;

/// How a new repository is made.
#[derive(Clone, Debug, Default)]
pub struct InitOptions {
    /// How hard the password hash of the first key is.
    pub kdf: KdfParams,
    /// Where Rabin cuts; `None` makes a random one. Give that of another repository to deduplicate across both.
    pub polynomial: Option<Polynomial>,
    /// Recorded in the key file; `None` takes this host's.
    pub hostname: Option<String>,
    /// Recorded in the key file; `None` takes this process's user.
    pub username: Option<String>,
}

/// How a repository is opened.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// The key file to try first.
    pub key_hint: Option<KeyId>,
    /// Where lists lie that memory should not hold: of more than a million blobs, in files without names. Without one, all of
    /// them are held in memory.
    pub scratch: Option<PathBuf>,
}

/// What is known of a key without its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySummary {
    /// The key file.
    pub id: KeyId,
    /// When it was made, if recorded.
    pub created: Option<Time>,
    /// By whom, if recorded.
    pub username: String,
    /// Where, if recorded.
    pub hostname: String,
    /// Did this key open the repository?
    pub is_current: bool,
}

/// An open repository. Cheap to clone.
#[derive(Clone)]
pub struct Repository {
    pub(crate) inner: Arc<Inner>,
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository")
            .field("id", &self.inner.config.id)
            .field("store", &self.inner.store)
            .finish()
    }
}

pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) key: Key,
    pub(crate) key_id: KeyId,
    pub(crate) config: Config,
    pub(crate) tables: Tables,
    index: Mutex<Option<Arc<Index>>>,
    // Packs in which something was not what its id says, since this repository was opened.
    suspects: RwLock<BTreeSet<Id>>,
    has_suspects: AtomicBool,
    scratch: Option<PathBuf>,
}

impl Repository {
    /// Makes a repository of version 2; refuses where there is one, or the remains of one.
    ///
    /// An earlier `init` that ended between its key and its config is finished, with the key that it left: the password must
    /// open it, and nothing else may be there. [`RepositoryError::WrongKey`] means just that: there are keys without a
    /// config and without data, and none opens.
    pub fn init(store: &Store, password: &[u8], options: &InitOptions, control: &Control) -> Result<Self> {
        let config_id = Id::default();
        store.prepare()?;
        let mut exists = store.read(FileKind::Config, &config_id, control)?.is_some();
        // A lock or a pack without a config is what is left of a repository, and somebody may still want it.
        for kind in [FileKind::Snapshot, FileKind::Index, FileKind::Pack, FileKind::Lock] {
            exists = exists || !store.list(kind, control)?.is_empty();
        }
        if exists {
            return Err(already(store));
        }
        let polynomial = match options.polynomial {
            Some(polynomial) if !polynomial.is_irreducible() => {
                return Err(RepositoryError::refused("the chunker polynomial is not irreducible"));
            }
            Some(polynomial) => polynomial,
            None => Polynomial::random().map_err(RepositoryError::random)?,
        };
        let mut id = Id::default();
        getrandom::fill(&mut id.0).map_err(RepositoryError::random)?;
        let config = Config { version: 2, id, polynomial: Some(polynomial) };
        let keys = store.list(FileKind::Key, control)?;
        let (master, key_id, is_ours) = if keys.is_empty() {
            let master = Key::random().map_err(RepositoryError::random)?;
            let key_file = key::encode(
                &master,
                password,
                options.kdf,
                Time::now(),
                &options.username.clone().unwrap_or_else(username),
                &options.hostname.clone().unwrap_or_else(hostname),
            )?;
            let key_id = KeyId::of(&key_file);
            store.write(FileKind::Key, &key_id, key_file.into(), control)?;
            (master, key_id, true)
        } else {
            let (master, key_id) = open_key(store, keys, password, control)?;
            (master, key_id, false)
        };
        let boxed = Bytes::from(master.seal(&config.encode()).map_err(RepositoryError::random)?);
        let Err(failed) = store.write(FileKind::Config, &config_id, boxed.clone(), control) else {
            return Ok(Self::assemble(store.clone(), master, key_id, config, None));
        };
        // Another `init` may have been faster. Its config is what counts; a key of ours that does not open it never will.
        match store.read(FileKind::Config, &config_id, control)? {
            Some(there) if there != boxed => {
                if is_ours && master.open(&there).is_err() {
                    store.delete(FileKind::Key, &key_id, control)?;
                }
                Err(already(store))
            }
            Some(_) | None => Err(failed),
        }
    }

    fn assemble(store: Store, key: Key, key_id: KeyId, config: Config, scratch: Option<PathBuf>) -> Self {
        let tables = Tables::new(config.polynomial);
        let inner = Inner {
            store,
            key,
            key_id,
            config,
            tables,
            index: Mutex::new(None),
            suspects: RwLock::default(),
            has_suspects: AtomicBool::new(false),
            scratch,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Opens a repository with the first key that the password fits.
    pub fn open(store: &Store, password: &[u8], options: &OpenOptions, control: &Control) -> Result<Self> {
        let Some(boxed) = store.read(FileKind::Config, &Id::default(), control)? else {
            return Err(RepositoryError::NotFound { location: store.to_string() });
        };
        let mut keys = store.list(FileKind::Key, control)?;
        keys.sort_by_key(|listed| (Some(listed.id) != options.key_hint, listed.id));
        let (key, key_id) = open_key(store, keys, password, control)?;
        let mut plain = key.open(&boxed);
        if plain.is_err() && store.is_remote() {
            // It has no name to be compared with, and may have been damaged on its way.
            let again = store.read(FileKind::Config, &Id::default(), control)?;
            plain = key.open(&again.unwrap_or_default());
        }
        let plain = plain.map_err(|e| RepositoryError::damaged(Object::Config, "config", e))?;
        let config = Config::decode(&plain)?;
        Ok(Self::assemble(store.clone(), key, key_id, config, options.scratch.clone()))
    }

    /// The repository's random id, in hex in its config.
    #[must_use]
    pub fn id(&self) -> Id {
        self.inner.config.id
    }

    /// Its format version.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.inner.config.version
    }

    /// Its chunker polynomial, for making another repository that deduplicates with it.
    #[must_use]
    pub fn polynomial(&self) -> Option<Polynomial> {
        self.inner.config.polynomial
    }

    /// The store it lies in.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The key that opened it.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.inner.key_id
    }

    /// All key files; one that cannot be read is an error.
    pub fn keys(&self, control: &Control) -> Result<Vec<KeySummary>> {
        let mut keys = Vec::new();
        for listed in self.inner.store.list(FileKind::Key, control)? {
            let Some(file) = read_key(&self.inner.store, &listed, control)? else { continue };
            keys.push(KeySummary {
                id: listed.id,
                created: file.created,
                username: file.username,
                hostname: file.hostname,
                is_current: listed.id == self.inner.key_id,
            });
        }
        keys.sort_by_key(|key| (key.created.map(|time| time.unix_nanos()), key.id));
        Ok(keys)
    }

    /// Adds a key file for another password; the file is read back and opened before this returns.
    pub fn add_key(&self, password: &[u8], kdf: KdfParams, control: &Control) -> Result<KeyId> {
        let lock = self.lock(LockKind::Shared, control)?;
        let bytes = key::encode(&self.inner.key, password, kdf, Time::now(), &username(), &hostname())?;
        let id = KeyId::of(&bytes);
        self.inner.store.write(FileKind::Key, &id, Bytes::from(bytes), control)?;
        let listed = Listed { id, size: 0 };
        let file = read_key(&self.inner.store, &listed, control)?
            .ok_or_else(|| RepositoryError::missing(Object::Key, id))?;
        if file.open(&id, password)?.is_none() {
            return Err(RepositoryError::damaged(
                Object::Key,
                id,
                "it does not open with the password just given",
            ));
        }
        lock.release()?;
        Ok(id)
    }

    /// Removes a key file; refuses the one in use and the last one. Whoever has seen the master key still has it.
    pub fn remove_key(&self, id: &KeyId, control: &Control) -> Result<()> {
        let lock = self.lock(LockKind::Exclusive, control)?;
        let keys = self.inner.store.list(FileKind::Key, control)?;
        if !keys.iter().any(|listed| listed.id == *id) {
            return Err(RepositoryError::missing(Object::Key, id));
        }
        if *id == self.inner.key_id {
            return Err(RepositoryError::refused(
                "this key opened the repository; open it with another to remove it",
            ));
        }
        if keys.len() < 2 {
            return Err(RepositoryError::refused("this is the last key"));
        }
        self.inner.store.delete(FileKind::Key, id, control)?;
        lock.release()
    }

    /// Replaces the password of the key that opened the repository: the new key first, then the old one goes.
    ///
    /// Returns the repository as opened by the new key.
    pub fn change_key(&self, password: &[u8], kdf: KdfParams, control: &Control) -> Result<Self> {
        let id = self.add_key(password, kdf, control)?;
        let fresh = Self::assemble(
            self.inner.store.clone(),
            self.inner.key.clone(),
            id,
            self.inner.config,
            self.inner.scratch.clone(),
        );
        fresh.remove_key(&self.inner.key_id, control)?;
        Ok(fresh)
    }

    pub(crate) fn lock_begin(&self, kind: LockKind, control: &Control) -> Result<PendingLock> {
        self.lock_context().begin(kind, control)
    }

    pub(crate) fn lock_context(&self) -> LockContext {
        LockContext {
            store: self.inner.store.clone(),
            key: self.inner.key.clone(),
            version: self.inner.config.version,
        }
    }

    /// Takes a lock that stock restic respects; reaps what a crash of this host left; names the holder on a conflict.
    pub fn lock(&self, kind: LockKind, control: &Control) -> Result<Lock> {
        self.lock_begin(kind, control)?.confirm(control)
    }

    /// A shared lock with another refresh interval; only for watching it refresh.
    #[doc(hidden)]
    pub fn lock_for_test(&self, refresh: std::time::Duration) -> Result<Lock> {
        let control = Control::new();
        self.lock_context().begin_with(LockKind::Shared, &control, refresh, refresh * 100)?.confirm(&control)
    }

    /// Every snapshot, oldest first. A listing or a snapshot that cannot be read is an error, never a shorter list.
    pub fn snapshots(&self, control: &Control) -> Result<Vec<(SnapshotId, Snapshot)>> {
        let mut snapshots = Vec::new();
        for listed in self.inner.store.list(FileKind::Snapshot, control)? {
            snapshots.push((listed.id, self.snapshot(&listed.id, control)?));
        }
        snapshots.sort_by_key(|(id, snapshot)| (snapshot.time.unix_nanos(), *id));
        Ok(snapshots)
    }

    /// One snapshot.
    pub fn snapshot(&self, id: &SnapshotId, control: &Control) -> Result<Snapshot> {
        let json = self.inner.read_unpacked(FileKind::Snapshot, id, control)?;
        Snapshot::decode(id, &json)
    }

    /// The union of all index files, as they are now.
    ///
    /// Call it after reading the snapshots that matter: whatever they refer to was indexed before they were written.
    pub fn index(&self, control: &Control) -> Result<Arc<Index>> {
        self.inner.index(control)
    }

    /// Bytes fetched from the store since it was opened.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.inner.store.bytes_read()
    }
}

fn already(store: &Store) -> RepositoryError {
    RepositoryError::refused(format!("there is a repository at `{store}` already"))
}

/// The first of these keys that the password opens.
fn open_key(store: &Store, keys: Vec<Listed>, password: &[u8], control: &Control) -> Result<(Key, KeyId)> {
    let mut tried = 0;
    for listed in keys.into_iter().take(KEYS_MAX) {
        control.check()?;
        let Some(file) = read_key(store, &listed, control)? else { continue };
        tried += 1;
        if let Some(key) = file.open(&listed.id, password)? {
            return Ok((key, listed.id));
        }
    }
    Err(RepositoryError::WrongKey { tried })
}

fn read_key(store: &Store, listed: &Listed, control: &Control) -> Result<Option<KeyFile>> {
    // A key file is about 450 bytes; anything of this size is not one.
    const MAX: u64 = 1 << 20;
    if listed.size > MAX {
        return Err(RepositoryError::inconsistent(Object::Key, listed.id, "it is far too large"));
    }
    match store.read(FileKind::Key, &listed.id, control)? {
        Some(bytes) => KeyFile::decode(&listed.id, &bytes).map(Some),
        None => Ok(None),
    }
}

impl Inner {
    /// Where lists lie that memory should not hold.
    pub(crate) fn scratch(&self) -> Option<&std::path::Path> {
        self.scratch.as_deref()
    }

    /// Remembers that something in these packs is not what its id says: nothing new is to rest on them.
    pub(crate) fn suspect(&self, packs: &[Id]) {
        if packs.is_empty() {
            return;
        }
        self.suspects.write().unwrap_or_else(PoisonError::into_inner).extend(packs);
        self.has_suspects.store(true, Ordering::Release);
    }

    pub(crate) fn is_suspect(&self, pack: &Id) -> bool {
        // Asked for every blob, and nearly always without need.
        self.has_suspects.load(Ordering::Acquire)
            && self.suspects.read().unwrap_or_else(PoisonError::into_inner).contains(pack)
    }

    pub(crate) fn suspects(&self) -> Vec<Id> {
        self.suspects.read().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    pub(crate) fn read_unpacked(&self, kind: FileKind, id: &Id, control: &Control) -> Result<Vec<u8>> {
        let object = kind.object();
        let boxed =
            self.store.read(kind, id, control)?.ok_or_else(|| RepositoryError::missing(object, id))?;
        if Id::of(&boxed) != *id {
            return Err(RepositoryError::damaged(object, id, "its SHA-256 is not its name"));
        }
        open_unpacked(&self.key, self.config.version, &boxed)
            .map_err(|why| RepositoryError::damaged(object, id, why))
    }

    pub(crate) fn write_unpacked(&self, kind: FileKind, json: &[u8], control: &Control) -> Result<Id> {
        let boxed = seal_unpacked(&self.key, self.config.version, json)?;
        // What does not open now will not open later.
        let again = open_unpacked(&self.key, self.config.version, &boxed)
            .map_err(|why| RepositoryError::damaged(kind.object(), "being written", why))?;
        if again != json {
            return Err(RepositoryError::damaged(
                kind.object(),
                "being written",
                "it reads back differently",
            ));
        }
        let id = Id::of(&boxed);
        self.store.write(kind, &id, Bytes::from(boxed), control)?;
        Ok(id)
    }

    pub(crate) fn index(&self, control: &Control) -> Result<Arc<Index>> {
        let listed: BTreeSet<Id> =
            self.store.list(FileKind::Index, control)?.into_iter().map(|listed| listed.id).collect();
        if let Some(index) = &*self.index.lock().unwrap_or_else(PoisonError::into_inner)
            && index.files == listed
        {
            return Ok(Arc::clone(index));
        }
        let index = Arc::new(self.index_of(&listed, control)?);
        *self.index.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&index));
        Ok(index)
    }

    /// The union of these index files.
    pub(crate) fn index_of(&self, files: &BTreeSet<Id>, control: &Control) -> Result<Index> {
        let names: Vec<Id> = files.iter().copied().collect();
        let builder = Mutex::new(IndexBuilder::new(self.scratch()));
        in_parallel(&names, 4, |id| {
            let json = self.read_unpacked(FileKind::Index, id, control)?;
            let packs = index::decode(id, &json)?;
            drop(json);
            if self.config.version < 2
                && packs.iter().flat_map(|pack| &pack.blobs).any(|blob| blob.uncompressed_length.is_some())
            {
                return Err(RepositoryError::inconsistent(
                    Object::Index,
                    id,
                    "a compressed blob in a repository of version 1",
                ));
            }
            builder.lock().unwrap_or_else(PoisonError::into_inner).add(&packs)
        })?;
        let builder = builder.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut index = builder.finish()?;
        index.files.clone_from(files);
        Ok(index)
    }

    /// Each of these packs must be in the store: a client that ignores locks may have deleted some.
    pub(crate) fn ensure_packs(&self, packs: impl Iterator<Item = Id>, control: &Control) -> Result<()> {
        let listed: HashSet<Id> =
            self.store.list(FileKind::Pack, control)?.into_iter().map(|listed| listed.id).collect();
        for pack in packs {
            if !listed.contains(&pack) {
                return Err(RepositoryError::missing(Object::Pack, pack));
            }
        }
        Ok(())
    }

    /// Each of these packs must be listed by an index, as it was by these files: a prune may have taken it out while its
    /// file stays for a while, and its blobs would not be found.
    pub(crate) fn ensure_listed<'a>(
        &self,
        mut files: impl Iterator<Item = &'a Id>,
        mut packs: impl Iterator<Item = Id>,
        control: &Control,
    ) -> Result<()> {
        let there: BTreeSet<Id> =
            self.store.list(FileKind::Index, control)?.into_iter().map(|listed| listed.id).collect();
        if files.all(|file| there.contains(file)) {
            return Ok(());
        }
        let listed: HashSet<Id> = self.index(control)?.packs().iter().copied().collect();
        match packs.find(|pack| !listed.contains(pack)) {
            Some(pack) => Err(RepositoryError::missing(Object::Pack, pack)),
            None => Ok(()),
        }
    }

    pub(crate) fn codec(&self, level: i32) -> Result<Codec> {
        Codec::new(self.key.clone(), level)
    }

    /// Fetches a blob, from any copy that is sound, and gives its verified plaintext to `use_it`.
    pub(crate) fn with_blob<T>(
        &self,
        index: &Index,
        kind: BlobKind,
        id: &Id,
        codec: &mut Codec,
        control: &Control,
        use_it: impl FnOnce(&[u8]) -> T,
    ) -> Result<T> {
        let mut first_failure = None;
        let mut unsound = Vec::new();
        let mut use_it = Some(use_it);
        for place in self.twice(index.places(kind, id)?) {
            match self.fetch(&place, control) {
                Ok(mut boxed) => match codec.open(&place.blob, &mut boxed) {
                    Ok(opened) => {
                        // What was only damaged on its way has been read from the same pack by now.
                        unsound.retain(|pack| *pack != place.pack);
                        self.suspect(&unsound);
                        let use_it = use_it.take().expect("a blob is used once, then the loop ends");
                        return Ok(use_it(opened.plain));
                    }
                    Err(e) => {
                        unsound.push(place.pack);
                        first_failure.get_or_insert(damaged_blob(&place, &e));
                    }
                },
                Err(e) if e.stop().is_some() => return Err(e),
                Err(e) => {
                    if is_of_bytes(&e) {
                        unsound.push(place.pack);
                    }
                    first_failure.get_or_insert(e);
                }
            }
        }
        self.suspect(&unsound);
        Err(first_failure.unwrap_or_else(|| RepositoryError::missing(kind.object(), id)))
    }

    /// What came over a network may have been damaged on its way: each place is asked once more when none of them is sound.
    fn twice(&self, places: Vec<Place>) -> impl Iterator<Item = Place> {
        let again = if self.store.is_remote() { places.clone() } else { Vec::new() };
        places.into_iter().chain(again)
    }

    fn fetch(&self, place: &Place, control: &Control) -> Result<Vec<u8>> {
        let start = u64::from(place.blob.offset);
        let range = start..start + u64::from(place.blob.length);
        let boxed = self
            .store
            .read_range(FileKind::Pack, &place.pack, range, control)?
            .ok_or_else(|| RepositoryError::missing(Object::Pack, place.pack))?;
        if boxed.len() != place.blob.length as usize {
            return Err(too_short(&place.pack));
        }
        Ok(boxed)
    }

    /// Whether what lies at this very place, and not another copy of it, is what its id says. An error when it cannot be had.
    pub(crate) fn is_sound(&self, place: &Place, codec: &mut Codec, control: &Control) -> Result<bool> {
        // What came over a network may have been damaged on its way.
        for _ in 0..if self.store.is_remote() { 2 } else { 1 } {
            let read = if large::is_large_tree(&place.blob) {
                self.read_large_tree(place, control).map(|_| true)
            } else {
                self.fetch(place, control).map(|mut boxed| codec.open(&place.blob, &mut boxed).is_ok())
            };
            match read {
                Ok(true) => return Ok(true),
                Ok(false) | Err(RepositoryError::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// The entries of a tree, from any copy of it that is sound; verified before the first is given.
    pub(crate) fn read_tree(
        &self,
        index: &Index,
        id: &Id,
        codec: &mut Codec,
        control: &Control,
    ) -> Result<Entries> {
        let mut first_failure = None;
        let mut unsound = Vec::new();
        for place in self.twice(index.places(BlobKind::Tree, id)?) {
            let read = if large::is_large_tree(&place.blob) {
                self.read_large_tree(&place, control)
            } else {
                self.fetch(&place, control).and_then(|mut boxed| {
                    let opened = codec.open(&place.blob, &mut boxed);
                    let opened = opened.map_err(|e| damaged_blob(&place, &e))?;
                    Ok(Entries::held(*id, opened.plain.to_vec()))
                })
            };
            match read {
                Ok(entries) => {
                    unsound.retain(|pack| *pack != place.pack);
                    self.suspect(&unsound);
                    return Ok(entries);
                }
                Err(e) if e.stop().is_some() => return Err(e),
                Err(e) => {
                    if is_of_bytes(&e) {
                        unsound.push(place.pack);
                    }
                    first_failure.get_or_insert(e);
                }
            }
        }
        self.suspect(&unsound);
        Err(first_failure.unwrap_or_else(|| RepositoryError::missing(Object::Tree, id)))
    }

    fn read_large_tree(&self, place: &Place, control: &Control) -> Result<Entries> {
        let boxed = self.fetch_large(&place.pack, &place.blob, control)?;
        large::prove(&self.key, &boxed, &place.blob, control)?.map_err(|e| damaged_blob(place, &e))?;
        let json = large::open(&self.key, boxed, &place.blob)?;
        Ok(Entries::streamed(place.blob.id, json))
    }

    /// A large tree for another packer, from any copy of it that is sound.
    pub(crate) fn seal_large_again(
        &self,
        index: &Index,
        id: &Id,
        to: &Inner,
        level: i32,
        control: &Control,
    ) -> Result<LargeBox> {
        let mut first_failure = None;
        for place in index.places(BlobKind::Tree, id)? {
            let sealed = (|| {
                let boxed = self.fetch_large(&place.pack, &place.blob, control)?;
                large::prove(&self.key, &boxed, &place.blob, control)?
                    .map_err(|e| damaged_blob(&place, &e))?;
                let mut json = large::open(&self.key, boxed, &place.blob)?;
                let mut writer = LargeWriter::new(&to.key, level, to.scratch())?;
                let mut buffer = vec![0; 256 << 10];
                loop {
                    control.check()?;
                    match json.read(&mut buffer).map_err(large::unkept)? {
                        0 => return writer.finish(),
                        n => writer.push(&buffer[..n])?,
                    }
                }
            })();
            match sealed {
                Ok(sealed) if sealed.id == *id => return Ok(sealed),
                Ok(_) => {
                    let why = "it changed while it was read";
                    first_failure.get_or_insert(RepositoryError::damaged(Object::Tree, id, why));
                }
                Err(e) if e.stop().is_some() => return Err(e),
                Err(e) => {
                    first_failure.get_or_insert(e);
                }
            }
        }
        Err(first_failure.unwrap_or_else(|| RepositoryError::missing(Object::Tree, id)))
    }

    /// The box of a large blob, on disk.
    pub(crate) fn fetch_large(&self, pack: &Id, blob: &PackedBlob, control: &Control) -> Result<Spool> {
        let mut spool = Spool::new(self.scratch());
        let mut buffer = Vec::new();
        let mut at = u64::from(blob.offset);
        let end = at + u64::from(blob.length);
        // Object stores refuse a range beyond the end, and the refusal says nothing.
        let size = self.store.size(FileKind::Pack, pack, control)?;
        if size.ok_or_else(|| RepositoryError::missing(Object::Pack, pack))? < end {
            return Err(too_short(pack));
        }
        while at < end {
            let until = (at + LARGE_STEP).min(end);
            if !self.store.read_into(FileKind::Pack, pack, at..until, &mut buffer, control)? {
                return Err(RepositoryError::missing(Object::Pack, pack));
            }
            if buffer.len() as u64 != until - at {
                return Err(too_short(pack));
            }
            spool.write_all(&buffer).map_err(large::unkept)?;
            at = until;
        }
        Ok(spool)
    }
}

/// Read at once where a pack is hashed.
const READ_BACK: u64 = 4 << 20;

impl Inner {
    /// The SHA-256 of so many bytes of a pack, or of fewer where it is shorter.
    pub(crate) fn digest(&self, id: &Id, length: u64, control: &Control) -> Result<Id> {
        let mut sha = Sha256::new();
        let mut buffer = Vec::new();
        let mut at = 0;
        while at < length {
            let end = (at + READ_BACK).min(length);
            if !self.store.read_into(FileKind::Pack, id, at..end, &mut buffer, control)? {
                return Err(RepositoryError::missing(Object::Pack, id));
            }
            sha.update(&buffer);
            if buffer.len() as u64 != end - at {
                break;
            }
            at = end;
        }
        Ok(Id(sha.finalize().into()))
    }
}

fn damaged_blob(place: &Place, why: &BlobError) -> RepositoryError {
    let why = format!("{why} (in pack {})", place.pack);
    RepositoryError::damaged(place.blob.kind.object(), place.blob.id, why)
}

/// Whether an error speaks of what is stored, and not of the way to it.
fn is_of_bytes(error: &RepositoryError) -> bool {
    matches!(error, RepositoryError::Damaged { .. })
}

fn too_short(pack: &Id) -> RepositoryError {
    RepositoryError::damaged(Object::Pack, pack, "it is shorter than its index says")
}

/// Runs `work` over `items` on up to `threads` threads; results keep the order of the items; the first error wins.
pub(crate) fn in_parallel<I: Sync, T: Send>(
    items: &[I],
    threads: usize,
    work: impl Fn(&I) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    use std::sync::atomic::AtomicUsize;
    if items.len() < 2 || threads < 2 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<Option<Result<T>>>> = Mutex::new(items.iter().map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..threads.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { return };
                    let result = work(item);
                    if result.is_err() {
                        next.store(items.len(), Ordering::Relaxed);
                    }
                    done.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(result);
                }
            });
        }
    });
    let mut results = Vec::with_capacity(items.len());
    let mut skipped = false;
    for slot in done.into_inner().unwrap_or_else(PoisonError::into_inner) {
        match slot {
            Some(result) => results.push(result?),
            None => skipped = true,
        }
    }
    if skipped {
        return Err(RepositoryError::refused("a part of the work was not done"));
    }
    Ok(results)
}
