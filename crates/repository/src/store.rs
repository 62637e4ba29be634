//! Where the bytes lie: blocking calls over any `ObjectStore`, and a durable local directory.
//!
//! A listing that fails is an error, never an empty list. A write that returned is durable as far as the store can
//! promise it. Nothing here knows what the bytes mean.

use std::fmt;
use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};
use tokio::runtime::Runtime;

use crate::control::{Control, POLL};
use crate::error::{RepositoryError, Result};
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

/// A place for one repository. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    objects: Arc<dyn ObjectStore>,
    local: Option<Arc<LocalStore>>,
    // Only for stores that are not local: it drives their futures.
    runtime: Option<OwnRuntime>,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
}

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
            runtime: None,
            bytes_read: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
        }),
    })
}

impl Store {
    /// Any object store; its futures run on two threads of their own.
    pub fn new(objects: Arc<dyn ObjectStore>) -> Result<Self> {
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
                        source: "the store's task died".into(),
                    });
                }
            }
        }
    }

    fn error(action: &'static str, path: &str, source: object_store::Error) -> RepositoryError {
        RepositoryError::Store { action, path: path.to_owned(), source: Box::new(source) }
    }

    /// Every file of a kind whose name is 64 hex digits, in no particular order.
    ///
    /// Other names are left-overs and ignored. Any failure is an error: an unreadable directory is not an empty one.
    pub fn list(&self, kind: FileKind, control: &Control) -> Result<Vec<Listed>> {
        control.check()?;
        if let Some(local) = &self.inner.local {
            return local.list_ids(kind.directory(), kind == FileKind::Pack);
        }
        let objects = self.objects();
        let found = self.wait(control, async move {
            objects.list(Some(&Path::from(kind.directory()))).try_collect::<Vec<_>>().await
        })?;
        let found = found.map_err(|e| Self::error("list", kind.directory(), e))?;
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
        let objects = self.objects();
        let location = Path::from(path.as_str());
        match self.wait(control, async move { objects.head(&location).await })? {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(Self::error("look at", &path, e)),
        }
    }

    /// The whole file, or `None` when it does not exist.
    pub fn read(&self, kind: FileKind, id: &Id, control: &Control) -> Result<Option<Vec<u8>>> {
        self.fetch(kind, id, None, control)
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
        } else {
            let objects = self.objects();
            let location = Path::from(path.as_str());
            let result = self.wait(control, async move {
                match range {
                    None => objects.get(&location).await?.bytes().await,
                    Some(range) => objects.get_range(&location, range).await,
                }
            })?;
            match result {
                Ok(bytes) => Some(Vec::from(bytes)),
                Err(object_store::Error::NotFound { .. }) => None,
                Err(e) => return Err(Self::error("read", &path, e)),
            }
        };
        if let Some(bytes) = &bytes {
            self.inner.bytes_read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        Ok(bytes)
    }

    /// Stores a file durably. It is complete or absent, whatever happens, and never overwritten.
    pub fn write(&self, kind: FileKind, id: &Id, bytes: Bytes, control: &Control) -> Result<()> {
        control.check()?;
        let path = kind.path(id);
        let length = bytes.len() as u64;
        if let Some(local) = &self.inner.local {
            local.write_file(&path, &bytes[..], true, &|| Ok(()))?;
        } else {
            let objects = self.objects();
            let location = Path::from(path.as_str());
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            let result =
                self.wait(control, async move { objects.put_opts(&location, bytes.into(), options).await })?;
            match result {
                Ok(_) => {}
                // Names are hashes of content, so what is there already is what was meant; `config` is not.
                Err(object_store::Error::AlreadyExists { .. }) if kind != FileKind::Config => {}
                Err(e) => return Err(Self::error("write", &path, e)),
            }
        }
        self.inner.bytes_written.fetch_add(length, Ordering::Relaxed);
        Ok(())
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
            return self.write(kind, id, whole.into(), control);
        } else {
            let objects = self.objects();
            let location = Path::from(path.as_str());
            self.wait(control, async move { write_in_parts(&*objects, &location, &bytes).await })?
                .map_err(|e| Self::error("write", &path, e))?;
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
        let objects = self.objects();
        let location = Path::from(path.as_str());
        match self.wait(control, async move { objects.delete(&location).await })? {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(Self::error("delete", &path, e)),
        }
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
            None => {
                let objects = self.objects();
                self.wait(control, async move { objects.head(&location).await })?
            }
        };
        match found {
            Ok(meta) => Ok(Some(Time::from_unix(
                meta.last_modified.timestamp(),
                meta.last_modified.timestamp_subsec_nanos(),
            ))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(Self::error("look at", &path, e)),
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
