//! Where the bytes lie: blocking calls over any `ObjectStore`, and a durable local directory.
//!
//! A listing that fails is an error, never an empty list. A write that returned is durable as far as the store can
//! promise it. Nothing here knows what the bytes mean.

use std::fmt;
use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};
use tokio::runtime::Runtime;

use crate::control::{Control, POLL};
use crate::error::{RepositoryError, Result};
use crate::fault::{self, StoreFault, StoreWords};
use crate::id::Id;
use crate::local::LocalStore;
use crate::spool::Spool;
use crate::time::Time;

/// The kinds of files of a repository, which are also its directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// `config`, alone.
    Config,
    /// Packs.
    Pack,
    /// Index files.
    Index,
    /// Snapshots.
    Snapshot,
    /// Keys.
    Key,
    /// Locks.
    Lock,
    /// Entries of the journal: of this engine only.
    Journal,
}

impl FileKind {
    fn directory(self) -> &'static str {
        match self {
            FileKind::Config => "config",
            FileKind::Pack => "data",
            FileKind::Index => "index",
            FileKind::Snapshot => "snapshots",
            FileKind::Key => "keys",
            FileKind::Lock => "locks",
            FileKind::Journal => "journal",
        }
    }

    fn path(self, id: &Id) -> String {
        match self {
            FileKind::Config => "config".into(),
            FileKind::Pack => {
                let hex = id.hex();
                format!("data/{}/{hex}", &hex[..2])
            }
            other => format!("{}/{id}", other.directory()),
        }
    }

    pub(crate) fn object(self) -> crate::error::Object {
        use crate::error::Object;
        match self {
            FileKind::Config => Object::Config,
            FileKind::Pack => Object::Pack,
            FileKind::Index => Object::Index,
            FileKind::Snapshot => Object::Snapshot,
            FileKind::Key => Object::Key,
            FileKind::Lock => Object::Lock,
            FileKind::Journal => Object::Journal,
        }
    }
}

/// One listed file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub id: Id,
    /// Its size in bytes.
    pub size: u64,
}

/// What a store says of a file, without giving it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attested {
    /// Its size in bytes.
    pub size: u64,
    /// The SHA-256 of all of it, as the store itself computed it of what it was sent; `None` where the store does not say. It is the
    /// store's word: no byte was read for it.
    pub sha256: Option<[u8; 32]>,
}

/// Asks a store what it says of the file at a path. A file that is not there is `NotFound`.
pub type Attest =
    Arc<dyn Fn(Path) -> BoxFuture<'static, object_store::Result<Attested>> + Send + Sync + 'static>;

/// A place for one repository. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    objects: Arc<dyn ObjectStore>,
    local: Option<Arc<LocalStore>>,
    // Where the store tells digests of what it holds.
    attest: Option<Attest>,
    // It was asked and refused that, for a reason that stays.
    attests_nothing: AtomicBool,
    // Only for stores that are not local: it drives their futures.
    runtime: Option<OwnRuntime>,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
}

/// Requests for one file or list, where the answer was lost.
const TRIES: u32 = 4;
/// Before the second try; twice as long before each later one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// A runtime that may be dropped anywhere, also inside another runtime.
struct OwnRuntime(Option<Runtime>);

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.inner.objects)
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.inner.objects)
    }
}

/// Opens a local directory as a store; nothing is created or looked at yet.
pub fn open_store(location: impl AsRef<FilePath>) -> Result<Store> {
    let local = Arc::new(LocalStore::new(location.as_ref())?);
    Ok(Store {
        inner: Arc::new(Inner {
            objects: Arc::clone(&local) as Arc<dyn ObjectStore>,
            local: Some(local),
            attest: None,
            attests_nothing: AtomicBool::new(false),
            runtime: None,
            bytes_read: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
        }),
    })
}

impl Store {
    /// Any object store; its futures run on two threads of their own.
    pub fn new(objects: Arc<dyn ObjectStore>) -> Result<Self> {
        Self::with(objects, None)
    }

    /// An object store that tells digests of what it holds. What it tells is used only where [`crate::CopyOptions`] allow it.
    pub fn attesting(objects: Arc<dyn ObjectStore>, attest: Attest) -> Result<Self> {
        Self::with(objects, Some(attest))
    }

    fn with(objects: Arc<dyn ObjectStore>, attest: Option<Attest>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("repository-store")
            .enable_all()
            .build()
            .map_err(|e| RepositoryError::io("start threads for", &objects, e))?;
        Ok(Self {
            inner: Arc::new(Inner {
                objects,
                local: None,
                attest,
                attests_nothing: AtomicBool::new(false),
                runtime: Some(OwnRuntime(Some(runtime))),
                bytes_read: AtomicU64::new(0),
                bytes_written: AtomicU64::new(0),
            }),
        })
    }

    /// The store as `object_store` sees it.
    #[must_use]
    pub fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.inner.objects)
    }

    /// Bytes fetched through this store since it was opened.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.inner.bytes_read.load(Ordering::Relaxed)
    }

    /// Bytes stored through this store since it was opened.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.inner.bytes_written.load(Ordering::Relaxed)
    }

    /// Waits for a future of the store on its own runtime, from whatever thread, stopping when asked.
    fn wait<T: Send + 'static>(
        &self,
        control: &Control,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        let runtime =
            self.inner.runtime.as_ref().and_then(|own| own.0.as_ref()).expect("only local stores have none");
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let task = runtime.spawn(async move {
            // The receiver is gone only when the caller was stopped.
            sender.send(future.await).ok();
        });
        loop {
            match receiver.recv_timeout(POLL) {
                Ok(value) => return Ok(value),
                Err(crossbeam_channel::RecvTimeoutError::Timeout) => {
                    if let Err(stop) = control.check() {
                        task.abort();
                        return Err(stop);
                    }
                }
                Err(crossbeam_channel::RecvTimeoutError::Disconnected) => {
                    return Err(RepositoryError::Store {
                        action: "wait for",
                        path: self.to_string(),
                        fault: StoreFault::Other,
                        source: StoreWords::new("the store's task died"),
                    });
                }
            }
        }
    }

    fn error(action: &'static str, path: &str, error: &object_store::Error) -> RepositoryError {
        let (fault, source) = fault::read(error);
        let path = path.to_owned();
        match fault {
            StoreFault::Full => RepositoryError::NoSpace { action, path },
            _ => RepositoryError::Store { action, path, fault, source },
        }
    }

    /// Asks until it is answered, or the answer is one that waiting does not change.
    ///
    /// The client tries again by itself where it knows that nothing was sent or nothing can be done twice; this is for what
    /// breaks in the middle.
    fn asked<T: Send + 'static, F: Future<Output = object_store::Result<T>> + Send + 'static>(
        &self,
        control: &Control,
        ask: impl Fn(Arc<dyn ObjectStore>) -> F,
    ) -> Result<object_store::Result<T>> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..TRIES {
            match self.wait(control, ask(self.objects()))? {
                Err(error) if helps(&error) => self.pause(control, &mut pause)?,
                answer => return Ok(answer),
            }
        }
        self.wait(control, ask(self.objects()))
    }

    /// Waits a while before the next try, twice as long each time; ends at once when asked to stop.
    fn pause(&self, control: &Control, pause: &mut Duration) -> Result<()> {
        let time = *pause;
        // Made where the runtime is, which a timer needs.
        self.wait(control, async move { tokio::time::sleep(time).await })?;
        *pause *= 2;
        Ok(())
    }

    /// Whether a repository has been made here; a store that cannot be asked is an error.
    pub fn has_repository(&self, control: &Control) -> Result<bool> {
        // Read and not looked at: only an answer with a body says why it is a refusal.
        Ok(self.read(FileKind::Config, &Id::of(b""), control)?.is_some())
    }

    /// Every file of a kind whose name is 64 hex digits, in no particular order.
    ///
    /// Other names are left-overs and ignored. Any failure is an error: an unreadable directory is not an empty one.
    pub fn list(&self, kind: FileKind, control: &Control) -> Result<Vec<Listed>> {
        control.check()?;
        if let Some(local) = &self.inner.local {
            return local.list_ids(kind.directory(), kind == FileKind::Pack);
        }
        let found = self.asked(control, move |objects| async move {
            objects.list(Some(&Path::from(kind.directory()))).try_collect::<Vec<_>>().await
        })?;
        let found = found.map_err(|e| Self::error("list", kind.directory(), &e))?;
        let mut listed = Vec::with_capacity(found.len());
        for meta in found {
            let name = meta.location.filename().unwrap_or_default();
            if let Some(id) = Id::parse(name)
                && id.hex() == name
            {
                listed.push(Listed { id, size: meta.size });
            }
        }
        Ok(listed)
    }

    /// The size of a file in bytes, or `None` when it does not exist.
    pub(crate) fn size(&self, kind: FileKind, id: &Id, control: &Control) -> Result<Option<u64>> {
        control.check()?;
        let path = kind.path(id);
        if let Some(local) = &self.inner.local {
            return local.size(&path);
        }
        self.remote_size(&path, control)
    }

    fn remote_size(&self, path: &str, control: &Control) -> Result<Option<u64>> {
        let location = Path::from(path);
        let answer = self.asked(control, |objects| {
            let location = location.clone();
            async move { objects.head(&location).await }
        })?;
        match answer {
            Ok(meta) => Ok(Some(meta.size)),
            // An answer without a body does not say whether it is the bucket that is missing.
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(Self::error("look at", path, &e)),
        }
    }

    /// What the store says of a file, with its digest where it tells one of packs; `None` when it does not exist.
    fn look(&self, kind: FileKind, path: &str, control: &Control) -> Result<Option<Attested>> {
        if let (FileKind::Pack, Some(attest)) = (kind, &self.inner.attest)
            && !self.inner.attests_nothing.load(Ordering::Relaxed)
        {
            let location = Path::from(path);
            match self.asked(control, |_| attest(location.clone()))? {
                Ok(attested) => return Ok(Some(attested)),
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                Err(error) if fault::read(&error).0.is_transient() => {
                    return Err(Self::error("look at", path, &error));
                }
                // Whoever may not hear digests (a key of encryption that may only be used to write) may still look.
                Err(_) => self.inner.attests_nothing.store(true, Ordering::Relaxed),
            }
        }
        Ok(self.remote_size(path, control)?.map(|size| Attested { size, sha256: None }))
    }

    /// The whole file, or `None` when it does not exist.
    pub fn read(&self, kind: FileKind, id: &Id, control: &Control) -> Result<Option<Vec<u8>>> {
        let read = self.fetch(kind, id, None, control)?;
        // What came over a network may have been damaged on its way; asked once more, the store itself is at fault.
        let is_damaged = |bytes: &Vec<u8>| kind != FileKind::Config && Id::of(bytes) != *id;
        if self.is_remote() && read.as_ref().is_some_and(is_damaged) {
            return self.fetch(kind, id, None, control);
        }
        Ok(read)
    }

    /// A part of the file; fewer bytes than asked for mean that it is shorter.
    pub fn read_range(
        &self,
        kind: FileKind,
        id: &Id,
        range: Range<u64>,
        control: &Control,
    ) -> Result<Option<Vec<u8>>> {
        self.fetch(kind, id, Some(range), control)
    }

    /// A part of the file into a buffer that is reused; `false` when the file does not exist.
    pub(crate) fn read_into(
        &self,
        kind: FileKind,
        id: &Id,
        range: Range<u64>,
        buffer: &mut Vec<u8>,
        control: &Control,
    ) -> Result<bool> {
        if let Some(local) = &self.inner.local {
            control.check()?;
            let there = local.read_range_into(&kind.path(id), range, buffer)?;
            self.inner.bytes_read.fetch_add(buffer.len() as u64, Ordering::Relaxed);
            return Ok(there);
        }
        match self.fetch(kind, id, Some(range), control)? {
            Some(bytes) => {
                *buffer = bytes;
                Ok(true)
            }
            None => {
                buffer.clear();
                Ok(false)
            }
        }
    }

    fn fetch(
        &self,
        kind: FileKind,
        id: &Id,
        range: Option<Range<u64>>,
        control: &Control,
    ) -> Result<Option<Vec<u8>>> {
        control.check()?;
        let path = kind.path(id);
        let bytes = if let Some(local) = &self.inner.local {
            local.read_file(&path, range)?
        } else if range.as_ref().is_some_and(Range::is_empty) {
            // Nothing is asked for but whether it is there: no client sends such a range.
            self.remote_size(&path, control)?.map(|_| Vec::new())
        } else {
            let location = Path::from(path.as_str());
            let result = self.asked(control, |objects| {
                let (location, range) = (location.clone(), range.clone());
                async move {
                    match range {
                        None => objects.get(&location).await?.bytes().await,
                        Some(range) => objects.get_range(&location, range).await,
                    }
                }
            })?;
            match result {
                Ok(bytes) => Some(Vec::from(bytes)),
                // A bucket that is not there says nothing of what was in it.
                Err(e @ object_store::Error::NotFound { .. })
                    if fault::read(&e).0 != StoreFault::NoBucket =>
                {
                    None
                }
                // It is there, and ends before what was asked for begins.
                Err(e) if range.is_some() && fault::is_beyond_the_end(&e) => Some(Vec::new()),
                Err(e) => return Err(Self::error("read", &path, &e)),
            }
        };
        if let Some(bytes) = &bytes {
            self.inner.bytes_read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        Ok(bytes)
    }

    /// Stores a file durably. It is complete or absent, whatever happens, and never overwritten.
    pub fn write(&self, kind: FileKind, id: &Id, bytes: Bytes, control: &Control) -> Result<()> {
        self.put(kind, id, bytes, control).map(drop)
    }

    /// [`Self::write`]; returns the SHA-256 that the store now tells of a pack, if it tells one.
    #[expect(clippy::needless_pass_by_value, reason = "a handle; whoever gives it has no more use for it")]
    pub(crate) fn put(&self, kind: FileKind, id: &Id, bytes: Bytes, control: &Control) -> Result<Option<Id>> {
        control.check()?;
        let path = kind.path(id);
        let length = bytes.len() as u64;
        let told = if let Some(local) = &self.inner.local {
            local.write_file(&path, &bytes[..], true, &|| Ok(()))?;
            None
        } else {
            self.write_remote(kind, &path, &bytes, control)?
        };
        self.inner.bytes_written.fetch_add(length, Ordering::Relaxed);
        Ok(told)
    }

    /// Creates a file in an object store, trying again where it is not known what became of a try, and where the store
    /// acknowledges a file that it then does not have. An acknowledgement is believed only after a look.
    ///
    /// So is "it is there already": names are hashes of content, so a file of the same name and length is the one that was
    /// meant, perhaps from a try whose answer was lost. `config` has no such name and is compared.
    fn write_remote(
        &self,
        kind: FileKind,
        path: &str,
        bytes: &Bytes,
        control: &Control,
    ) -> Result<Option<Id>> {
        let length = bytes.len() as u64;
        let location = Path::from(path);
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            let (objects, at, payload) = (self.objects(), location.clone(), bytes.clone());
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            let answer =
                self.wait(control, async move { objects.put_opts(&at, payload.into(), options).await })?;
            let refused = match answer {
                // Nothing depends on a lock's bytes; whether it is there is what the next listing asks.
                Ok(_) if kind == FileKind::Lock => return Ok(None),
                Ok(_) => None,
                Err(error @ object_store::Error::AlreadyExists { .. }) => Some(error),
                Err(error) if attempt < TRIES && helps(&error) => {
                    self.pause(control, &mut pause)?;
                    continue;
                }
                Err(error) => return Err(Self::error("write", path, &error)),
            };
            let seen = self.look(kind, path, control)?;
            let there = seen.map(|seen| seen.size);
            let is_ours = match (&refused, kind) {
                // Ours, if an answer to an earlier try was lost.
                (Some(_), FileKind::Config) => {
                    attempt > 1 && self.read(kind, &Id::of(b""), control)?.as_deref() == Some(&bytes[..])
                }
                _ => there == Some(length),
            };
            match (there, refused) {
                _ if is_ours => return Ok(seen.and_then(|seen| seen.sha256).map(Id)),
                // Forgotten, or somebody else was about to make it and did not.
                (None, _) if attempt < TRIES => self.pause(control, &mut pause)?,
                (None, None) => {
                    return Err(RepositoryError::Store {
                        action: "write",
                        path: path.to_owned(),
                        fault: StoreFault::Forgotten,
                        source: StoreWords::new(format!(
                            "it was acknowledged {attempt} times and is not there"
                        )),
                    });
                }
                (Some(size), _) if kind != FileKind::Config => {
                    let why = format_args!("{size} bytes are stored under the name of {length}");
                    return Err(RepositoryError::damaged(kind.object(), path, why));
                }
                (_, Some(error)) => return Err(Self::error("write", path, &error)),
                (Some(size), None) => {
                    let why = format_args!("{size} bytes are stored where {length} were written");
                    return Err(RepositoryError::damaged(kind.object(), path, why));
                }
            }
        }
        unreachable!("the loop ends by returning")
    }

    /// [`Self::write`] for a file that need not be in memory.
    ///
    /// A stop leaves the parts that an object store has got: no file, but room, until a lifecycle rule for incomplete uploads
    /// removes them.
    pub(crate) fn write_spool(
        &self,
        kind: FileKind,
        id: &Id,
        bytes: Arc<Spool>,
        control: &Control,
    ) -> Result<()> {
        control.check()?;
        let path = kind.path(id);
        let length = bytes.len();
        if let Some(local) = &self.inner.local {
            let check = || control.check().map_err(std::io::Error::other);
            // A stop is told as a stop, not as the failure to write that it caused.
            local.write_file(&path, &*bytes, true, &check).map_err(|e| control.check().err().unwrap_or(e))?;
        } else if length <= PART as u64 {
            let mut whole = Vec::new();
            bytes
                .visit(|block| {
                    whole.extend_from_slice(block);
                    std::io::Result::Ok(())
                })
                .map_err(crate::large::unkept)?;
            return self.write(kind, id, whole.into(), control); // Read back in any case: what is told of it is not needed.
        } else {
            let objects = self.objects();
            let location = Path::from(path.as_str());
            self.wait(control, async move { write_in_parts(&*objects, &location, &bytes).await })?
                .map_err(|e| Self::error("write", &path, &e))?;
        }
        self.inner.bytes_written.fetch_add(length, Ordering::Relaxed);
        Ok(())
    }

    /// Removes a file; one that is not there is already removed. It may come back after a power cut, before
    /// `settle`.
    pub fn delete(&self, kind: FileKind, id: &Id, control: &Control) -> Result<()> {
        let path = kind.path(id);
        if let Some(local) = &self.inner.local {
            return local.delete_file(&path);
        }
        let location = Path::from(path.as_str());
        let answer = self.asked(control, |objects| {
            let location = location.clone();
            async move { objects.delete(&location).await }
        })?;
        match answer {
            Ok(()) => Ok(()),
            Err(e @ object_store::Error::NotFound { .. }) if fault::read(&e).0 != StoreFault::NoBucket => {
                Ok(())
            }
            Err(e) => Err(Self::error("delete", &path, &e)),
        }
    }

    /// Whether the store may tell digests of packs.
    pub(crate) fn attests(&self) -> bool {
        self.inner.attest.is_some()
    }

    /// Whether bytes come over a network.
    pub(crate) fn is_remote(&self) -> bool {
        self.inner.local.is_none()
    }

    /// Makes what was deleted of a kind stay deleted, also after a power cut.
    pub(crate) fn settle(&self, kind: FileKind) -> Result<()> {
        match &self.inner.local {
            Some(local) => local.settle(kind.directory()),
            None => Ok(()),
        }
    }

    /// When a file was written, by the store's own clock; `None` when it does not exist.
    pub(crate) fn written(&self, kind: FileKind, id: &Id, control: &Control) -> Result<Option<Time>> {
        control.check()?;
        let path = kind.path(id);
        let location = Path::from(path.as_str());
        let found = match &self.inner.local {
            Some(local) => local.meta(&location),
            None => self.asked(control, |objects| {
                let location = location.clone();
                async move { objects.head(&location).await }
            })?,
        };
        match found {
            Ok(meta) => Ok(Some(Time::from_unix(
                meta.last_modified.timestamp(),
                meta.last_modified.timestamp_subsec_nanos(),
            ))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(Self::error("look at", &path, &e)),
        }
    }

    /// Whether a listing that begins after a file was made is known to show that file.
    pub(crate) fn lists_at_once(&self) -> bool {
        self.inner.local.as_ref().is_some_and(|local| local.lists_at_once())
    }

    /// Makes the directories of a new repository where there are directories.
    pub(crate) fn prepare(&self) -> Result<()> {
        match &self.inner.local {
            Some(local) => local.prepare(),
            None => Ok(()),
        }
    }
}

/// Whether trying again may help: it may pass by itself, and the client has not waited for that already.
fn helps(error: &object_store::Error) -> bool {
    fault::read(error).0.is_transient() && !fault::was_retried(error)
}

/// Parts of an upload, in whole blocks. S3 takes no smaller ones than 5 MiB, and at most 10,000 of them.
const PART: usize = 16 << 20;

async fn write_in_parts(objects: &dyn ObjectStore, path: &Path, bytes: &Spool) -> object_store::Result<()> {
    let mut upload = objects.put_multipart(path).await?;
    let sent = async {
        let mut number = 0;
        loop {
            let mut part = Vec::with_capacity(PART);
            let mut block = Vec::new();
            while part.len() < PART {
                bytes
                    .block(number, &mut block)
                    .map_err(|e| object_store::Error::Generic { store: "scratch", source: Box::new(e) })?;
                if block.is_empty() {
                    break;
                }
                number += 1;
                part.extend_from_slice(&block);
            }
            if part.is_empty() {
                break;
            }
            upload.put_part(part.into()).await?;
        }
        upload.complete().await
    }
    .await;
    match sent {
        Ok(_) => Ok(()),
        Err(e) => {
            // The failure is what matters; parts that stay are no file.
            upload.abort().await.ok();
            Err(e)
        }
    }
}
