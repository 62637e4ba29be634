//! A store in memory that counts what it is asked, and fails at a chosen moment.

use std::path::Path as FilePath;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use seaworthy_repository::{Control, OpenOptions, Repository, Store};
use tokio_util::sync::CancellationToken;

use crate::common::{PASSWORD, control};

/// What happens at the chosen moment.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Nothing is done any more, as when the process is killed before the call.
    Dies,
    /// It is done, and nothing more, as when the process is killed after the call.
    DiesAfter,
    /// Only this call fails.
    Fails,
    /// It is done, and its answer is lost.
    DoneButFails,
    /// Another bit is stored.
    Flips,
    /// A listing tells of nothing.
    Hides,
    /// The caller is told to stop.
    Cancels(CancellationToken),
}

/// Which calls are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// What changes something: writing and deleting, locks included.
    Changes,
    /// Writing packs.
    Packs,
    /// Writing snapshots.
    Snapshots,
    /// Listings.
    Listings,
    /// Everything.
    All,
}

#[derive(Debug, Default)]
pub(crate) struct Frail {
    pub(crate) inner: InMemory,
    plan: Mutex<Option<(Counted, u64, Fault)>>,
    counted: AtomicU64,
    dead: AtomicBool,
    struck: Mutex<Option<String>>,
    deletes_nothing: AtomicBool,
}

impl std::fmt::Display for Frail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a frail store")
    }
}

fn no_route() -> object_store::Error {
    object_store::Error::Generic { store: "frail", source: "no route to host".into() }
}

enum Act {
    Do,
    Fail,
    DoAndFail,
    Flip,
    Hide,
}

impl Frail {
    /// A copy of its content, which knows no fault.
    pub(crate) fn fork(&self) -> Arc<Self> {
        Arc::new(Self { inner: self.inner.fork(), ..Self::default() })
    }

    /// The fault happens at the call of this number.
    pub(crate) fn plan(&self, counted: Counted, number: u64, fault: Fault) {
        *self.plan.lock().unwrap() = Some((counted, number, fault));
        self.counted.store(0, Ordering::SeqCst);
    }

    /// No fault any more; returns how many calls were counted.
    pub(crate) fn heal(&self) -> u64 {
        *self.plan.lock().unwrap() = None;
        self.dead.store(false, Ordering::SeqCst);
        self.counted.swap(0, Ordering::SeqCst)
    }

    /// As an append-only store does.
    pub(crate) fn refuse_deletions(&self, refuse: bool) {
        self.deletes_nothing.store(refuse, Ordering::SeqCst);
    }

    /// The call that the fault happened at, if there was one.
    pub(crate) fn struck(&self) -> Option<String> {
        self.struck.lock().unwrap().clone()
    }

    pub(crate) fn store(self: &Arc<Self>) -> Store {
        Store::new(Arc::clone(self) as Arc<dyn ObjectStore>).unwrap()
    }

    pub(crate) fn open(self: &Arc<Self>) -> Repository {
        self.try_open(&control()).unwrap()
    }

    pub(crate) fn try_open(self: &Arc<Self>, control: &Control) -> seaworthy_repository::Result<Repository> {
        Repository::open(&self.store(), PASSWORD.as_bytes(), &OpenOptions::default(), control)
    }

    /// Names of all files of a directory, sorted.
    pub(crate) fn names(&self, directory: &str) -> Vec<String> {
        let listed =
            futures::executor::block_on(self.inner.list(Some(&Path::from(directory))).collect::<Vec<_>>());
        let mut names: Vec<String> =
            listed.into_iter().map(|meta| meta.unwrap().location.to_string()).collect();
        names.sort();
        names
    }

    /// Writes everything but locks into a directory, for stock restic.
    pub(crate) fn dump(&self, directory: &FilePath) {
        for kind in ["data", "index", "snapshots", "keys", "locks"] {
            std::fs::create_dir_all(directory.join(kind)).unwrap();
        }
        for name in self.names("").into_iter().filter(|name| !name.starts_with("locks/")) {
            let bytes = self.bytes(&name);
            let path = directory.join(&name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }

    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        futures::executor::block_on(async {
            self.inner.get(&Path::from(name)).await.unwrap().bytes().await.unwrap().to_vec()
        })
    }

    pub(crate) fn put(&self, name: &str, bytes: Vec<u8>) {
        futures::executor::block_on(self.inner.put(&Path::from(name), bytes.into())).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        futures::executor::block_on(self.inner.delete(&Path::from(name))).unwrap();
    }

    fn act(&self, kind: &str, location: &str) -> Act {
        let is_refused = kind == "delete" && self.deletes_nothing.load(Ordering::SeqCst);
        if self.dead.load(Ordering::SeqCst) || is_refused {
            return Act::Fail;
        }
        let plan = self.plan.lock().unwrap();
        let Some((counted, number, fault)) = &*plan else { return Act::Do };
        let is_counted = match counted {
            Counted::Changes => kind == "put" || kind == "delete",
            Counted::Packs => kind == "put" && location.starts_with("data/"),
            Counted::Snapshots => kind == "put" && location.starts_with("snapshots/"),
            Counted::Listings => kind == "list",
            Counted::All => true,
        };
        if !is_counted || self.counted.fetch_add(1, Ordering::SeqCst) != *number {
            return Act::Do;
        }
        *self.struck.lock().unwrap() = Some(format!("{kind} {location}"));
        match fault {
            Fault::Dies => {
                self.dead.store(true, Ordering::SeqCst);
                Act::Fail
            }
            Fault::DiesAfter => {
                self.dead.store(true, Ordering::SeqCst);
                Act::DoAndFail
            }
            Fault::Fails => Act::Fail,
            Fault::DoneButFails => Act::DoAndFail,
            Fault::Flips => Act::Flip,
            Fault::Hides => Act::Hide,
            Fault::Cancels(token) => {
                token.cancel();
                Act::Do
            }
        }
    }
}

#[async_trait::async_trait]
impl ObjectStore for Frail {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        how: PutOptions,
    ) -> object_store::Result<PutResult> {
        match self.act("put", location.as_ref()) {
            Act::Do | Act::Hide => self.inner.put_opts(location, payload, how).await,
            Act::Fail => Err(no_route()),
            Act::DoAndFail => {
                self.inner.put_opts(location, payload, how).await?;
                Err(no_route())
            }
            Act::Flip => {
                let mut bytes: Vec<u8> = payload.iter().flat_map(|part| part.to_vec()).collect();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 4;
                self.inner.put_opts(location, bytes.into(), how).await
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        how: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, how).await
    }

    async fn get_opts(&self, location: &Path, how: GetOptions) -> object_store::Result<GetResult> {
        match self.act("get", location.as_ref()) {
            Act::Do | Act::Flip | Act::Hide => self.inner.get_opts(location, how).await,
            Act::Fail | Act::DoAndFail => Err(no_route()),
        }
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        // One name is all that is ever given.
        let path = futures::executor::block_on(locations.collect::<Vec<_>>()).pop().unwrap().unwrap();
        let act = self.act("delete", path.as_ref());
        let given = futures::stream::once(std::future::ready(Ok(path))).boxed();
        let failed = futures::stream::once(std::future::ready(Err(no_route()))).boxed();
        match act {
            Act::Do | Act::Flip | Act::Hide => self.inner.delete_stream(given),
            Act::Fail => failed,
            Act::DoAndFail => {
                futures::executor::block_on(self.inner.delete_stream(given).collect::<Vec<_>>());
                failed
            }
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let location = prefix.map(ToString::to_string).unwrap_or_default();
        match self.act("list", &location) {
            Act::Do | Act::Flip => self.inner.list(prefix),
            Act::Hide => futures::stream::empty().boxed(),
            // A page of results, then the fault.
            Act::Fail | Act::DoAndFail => self
                .inner
                .list(prefix)
                .take(1)
                .chain(futures::stream::once(std::future::ready(Err(no_route()))))
                .boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, how: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, how).await
    }
}
