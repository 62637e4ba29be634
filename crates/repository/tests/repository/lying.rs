//! A store that fails and lies: whatever it does, no call is `Ok` with other bytes than were stored, what was there before is
//! there afterwards, and the next call works.
//!
//! `SEAWORTHY_FAULTS` says how many plans are drawn, `SEAWORTHY_SEED` which.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use seaworthy_repository::{
    CheckOptions, CheckRead, Cuts, FileMeta, Repository, RepositoryError, SnapshotId, Store,
};

use crate::common::{PASSWORD, at, control, init_options, noise, options, store_stream};

/// What a store does that is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// Fails without doing anything: 500, 503, no route.
    Fail,
    /// Does it and says that it failed: an answer that was lost.
    DoAndFail,
    /// Says that it did it, and did not.
    Forget,
    /// Stores or returns only a half.
    Half,
    /// Stores or returns another bit.
    Flip,
    /// Lists what was there a while ago, but for the newest.
    Stale,
    /// Lists nothing.
    Nothing,
    /// Lists everything twice.
    Twice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Put,
    Get,
    List,
}

/// Which calls are answered otherwise.
#[derive(Debug, Clone, Copy)]
struct Plan {
    call: Call,
    lie: Lie,
    /// From which of them on.
    first: u64,
    /// How many of them.
    times: u64,
}

#[derive(Debug, Default)]
struct Liar {
    inner: InMemory,
    plan: Mutex<Option<Plan>>,
    calls: AtomicU64,
    lies: AtomicU64,
}

impl std::fmt::Display for Liar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a store that lies")
    }
}

fn unreachable_now() -> object_store::Error {
    object_store::Error::Generic { store: "liar", source: "503 Slow Down".into() }
}

impl Liar {
    fn tell(&self, plan: Option<Plan>) {
        *self.plan.lock().unwrap() = plan;
        self.calls.store(0, Ordering::SeqCst);
        self.lies.store(0, Ordering::SeqCst);
    }

    /// Whether this call is lied to. Locks are left alone: they are asked for by the clock, and would make runs differ.
    fn lie(&self, call: Call, location: Option<&Path>) -> Option<Lie> {
        let plan = (*self.plan.lock().unwrap())?;
        if plan.call != call || location.is_some_and(|location| location.as_ref().starts_with("locks")) {
            return None;
        }
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        let is_now = (plan.first..plan.first.saturating_add(plan.times)).contains(&number);
        is_now.then(|| {
            self.lies.fetch_add(1, Ordering::SeqCst);
            plan.lie
        })
    }
}

fn altered(lie: Lie, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    match lie {
        Lie::Half => bytes.truncate(bytes.len() / 2),
        Lie::Flip => {
            let middle = bytes.len() / 2;
            if let Some(byte) = bytes.get_mut(middle) {
                *byte ^= 4;
            }
        }
        _ => {}
    }
    bytes
}

#[async_trait::async_trait]
impl ObjectStore for Liar {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        how: PutOptions,
    ) -> object_store::Result<PutResult> {
        let nothing = || PutResult { e_tag: None, version: None, extensions: Default::default() };
        match self.lie(Call::Put, Some(location)) {
            None | Some(Lie::Stale | Lie::Nothing | Lie::Twice) => {
                self.inner.put_opts(location, payload, how).await
            }
            Some(Lie::Fail) => Err(unreachable_now()),
            Some(Lie::DoAndFail) => {
                self.inner.put_opts(location, payload, how).await?;
                Err(unreachable_now())
            }
            Some(Lie::Forget) => Ok(nothing()),
            Some(lie @ (Lie::Half | Lie::Flip)) => {
                let bytes: Vec<u8> = payload.iter().flat_map(|part| part.to_vec()).collect();
                self.inner.put_opts(location, altered(lie, &bytes).into(), how).await
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
        let is_head = how.head;
        match self.lie(Call::Get, Some(location)) {
            Some(Lie::Fail | Lie::DoAndFail | Lie::Forget) => Err(unreachable_now()),
            Some(lie @ (Lie::Half | Lie::Flip)) if !is_head => {
                let mut got = self.inner.get_opts(location, how).await?;
                let bytes = self.inner.get_range(location, got.range.clone()).await?;
                let bytes = altered(lie, &bytes);
                got.payload =
                    GetResultPayload::Stream(futures::stream::once(async move { Ok(bytes.into()) }).boxed());
                Ok(got)
            }
            None | Some(_) => self.inner.get_opts(location, how).await,
        }
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let lie = self.lie(Call::List, prefix);
        let listed = self.inner.list(prefix);
        match lie {
            Some(Lie::Fail | Lie::DoAndFail | Lie::Forget | Lie::Half | Lie::Flip) => {
                listed.take(1).chain(futures::stream::once(async { Err(unreachable_now()) })).boxed()
            }
            Some(Lie::Nothing) => futures::stream::empty().boxed(),
            Some(Lie::Twice) => {
                let again = self.inner.list(prefix);
                listed.chain(again).boxed()
            }
            Some(Lie::Stale) => futures::stream::once(async move {
                let mut all: Vec<ObjectMeta> = listed.try_collect().await?;
                all.sort_by_key(|object| object.last_modified);
                all.pop();
                Ok::<_, object_store::Error>(futures::stream::iter(all.into_iter().map(Ok)))
            })
            .try_flatten()
            .boxed(),
            None => listed,
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, how: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, how).await
    }
}

struct Estate {
    liar: Arc<Liar>,
    store: Store,
    first: SnapshotId,
    content: Vec<u8>,
}

impl Estate {
    fn new() -> Self {
        let liar = Arc::new(Liar::default());
        let store = Store::new(Arc::clone(&liar) as Arc<dyn ObjectStore>).unwrap();
        let repository = Repository::init(&store, PASSWORD.as_bytes(), &init_options(), &control()).unwrap();
        let content = noise(11, 3 << 20);
        let first = store_stream(&repository, "/first", &content, Cuts::ContentDefined);
        Self { liar, store, first, content }
    }

    fn open(&self) -> seaworthy_repository::Result<Repository> {
        Repository::open(&self.store, PASSWORD.as_bytes(), &Default::default(), &control())
    }

    fn is_sound(&self) -> bool {
        let options = CheckOptions { read: CheckRead::All, ..CheckOptions::default() };
        self.open()
            .and_then(|repository| repository.check(&options, &control()))
            .is_ok_and(|report| report.is_sound())
    }

    fn read(&self, copy: &SnapshotId, path: &str) -> seaworthy_repository::Result<Vec<u8>> {
        self.open()?.read_file(copy, &at(path), 1 << 30, &control())
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn whatever_a_store_does_nothing_is_ok_that_is_not() {
    let seed = number("SEAWORTHY_SEED", 8);
    let plans = number("SEAWORTHY_FAULTS", 40);
    let mut state = seed;
    let mut dice = |bound: u64| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    };
    let (mut told, mut ok, mut failed) = (0, 0, 0);
    for trial in 0..plans {
        let estate = Estate::new();
        let call = [Call::Put, Call::Get, Call::List][dice(3) as usize];
        let lies: &[Lie] = match call {
            Call::Put => &[Lie::Fail, Lie::DoAndFail, Lie::Forget, Lie::Half, Lie::Flip],
            Call::Get => &[Lie::Fail, Lie::Half, Lie::Flip],
            Call::List => &[Lie::Fail, Lie::Stale, Lie::Nothing, Lie::Twice],
        };
        let lie = lies[dice(lies.len() as u64) as usize];
        let times = if dice(2) == 0 { 1 } else { u64::MAX };
        let plan = Plan { call, lie, first: dice(6), times };
        let what = format!("seed {seed}, trial {trial}: {plan:?}");
        estate.liar.tell(Some(plan));

        // A copy, under lies.
        let second = noise(100 + trial, 2 << 20);
        let stored = estate.open().and_then(|repository| {
            let session = repository.begin(options("/second"), &control())?;
            let mut file = session.file(&at("/second"), FileMeta::default(), Cuts::ContentDefined)?;
            file.write(&second)?;
            file.finish()?;
            session.commit(&control())
        });
        let lied = estate.liar.lies.load(Ordering::SeqCst);
        estate.liar.tell(None);
        told += u64::from(lied > 0);
        let is_deceived = call == Call::Put && lied > 0 && matches!(lie, Lie::Forget | Lie::Half | Lie::Flip);
        match &stored {
            Ok(committed) => {
                ok += 1;
                let read = estate.read(&committed.id, "/second");
                if is_deceived {
                    // Who says that it stored and did not is found by whoever reads, and nothing false is handed out.
                    assert!(read.as_ref().map_or(true, |bytes| *bytes == second), "{what}");
                    // Only a snapshot that is gone leaves no trace in the repository: whoever knows of it finds it missing.
                    let is_gone = matches!(read, Err(RepositoryError::Missing { .. }));
                    assert!(read.is_ok() || is_gone || !estate.is_sound(), "{what}");
                } else {
                    assert_eq!(read.unwrap(), second, "{what}");
                }
            }
            Err(_) => failed += 1,
        }
        // What was there is there; a lie that has damaged an index stops whoever needs it, and never deceives.
        match estate.read(&estate.first, "/first") {
            Ok(bytes) => assert_eq!(bytes, estate.content, "{what}"),
            Err(error) => {
                assert!(
                    is_deceived && matches!(error.root(), RepositoryError::Damaged { .. }),
                    "{what}: {error}"
                );
            }
        }
        if !is_deceived {
            assert!(estate.is_sound(), "{what}");
        }

        // A reading, under lies: the truth or an error.
        estate.liar.tell(Some(plan));
        if let Ok(bytes) = estate.read(&estate.first, "/first") {
            assert_eq!(bytes, estate.content, "{what}");
        }
        let lies_of_check = estate.liar.lies.load(Ordering::SeqCst);
        let everything = CheckOptions { read: CheckRead::All, ..CheckOptions::default() };
        let checked = estate.open().and_then(|repository| repository.check(&everything, &control()));
        let is_misread = call == Call::Get
            && times == u64::MAX
            && estate.liar.lies.load(Ordering::SeqCst) > lies_of_check
            && matches!(lie, Lie::Half | Lie::Flip | Lie::Fail);
        if is_misread {
            assert!(
                checked.is_err() || !checked.unwrap().is_sound(),
                "{what}: a check that could not read is sound"
            );
        }
        estate.liar.tell(None);

        // And then all is well again: even beside a snapshot that a lie has damaged, something new can be stored.
        let fresh = noise(5_000 + trial, 1 << 20);
        let again = estate.open().and_then(|repository| {
            let session = repository.begin(options("/third"), &control())?;
            let mut file = session.file(&at("/third"), FileMeta::default(), Cuts::ContentDefined)?;
            file.write(&fresh)?;
            file.finish()?;
            session.commit(&control())
        });
        match again {
            Ok(third) => assert_eq!(estate.read(&third.id, "/third").unwrap(), fresh, "{what}"),
            Err(error) => {
                assert!(
                    is_deceived && matches!(error.root(), RepositoryError::Damaged { .. }),
                    "{what}: {error}"
                );
            }
        }
        assert!(is_deceived || estate.is_sound(), "{what}");
    }
    assert!(told * 2 > plans, "only {told} of {plans} plans came to a lie");
    println!(
        "figure: a store that lies: {plans} plans, {told} came to a lie; {failed} copies refused, {ok} stored; nothing false was handed out"
    );
}
