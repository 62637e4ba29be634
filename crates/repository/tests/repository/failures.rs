//! The seven failures of other engines, and what a failure must never look like.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use seaworthy_repository::{
    Control, Cuts, FileKind, FileMeta, IncompleteReason, LockKind, ParentUse, Repository, RepositoryError,
    RestoreOptions, SessionOptions, Stop, Store, TreeOptions, TreeOutcome,
};

use crate::common::{
    Fixture, PASSWORD, at, control, files, init_options, judge, noise, odd_directory, options, restic_ok,
    restics, sha256, store_stream, store_tree,
};

/// Failure 1: a stream that dies half-way is not a snapshot without the file, nor with half of it.
#[test]
fn failure_1_a_stream_that_dies_makes_the_commit_refuse() {
    let fixture = Fixture::new();
    let session = fixture.repository.begin(options("/x"), &control()).unwrap();
    let mut other = session.file(&at("/fine"), FileMeta::default(), Cuts::ContentDefined).unwrap();
    other.write(b"fine").unwrap();
    other.finish().unwrap();
    let mut file = session.file(&at("/dump"), FileMeta::default(), Cuts::ContentDefined).unwrap();
    file.write(&noise(1, 32 << 20)).unwrap();
    drop(file);
    let error = session.commit(&control()).unwrap_err();
    assert!(error.root().to_string().contains("/dump"), "{}", error.root());
    assert!(fixture.repository.snapshots(&control()).unwrap().is_empty());
    drop(session);
    assert_eq!(files(&fixture.path().join("locks")), Vec::<std::path::PathBuf>::new());
    judge(&fixture.path());
}

/// Failure 2: whoever learns late that the source failed aborts, and nothing stays that looks like a backup.
#[test]
fn failure_2_an_aborted_or_dropped_session_leaves_no_snapshot() {
    let fixture = Fixture::new();
    let good = store_stream(&fixture.repository, "/x", b"good", Cuts::ContentDefined);
    for abort in [true, false] {
        let session = fixture.repository.begin(options("/x"), &control()).unwrap();
        let mut file = session.file(&at("/x"), FileMeta::default(), Cuts::ContentDefined).unwrap();
        file.write(&noise(2, 20 << 20)).unwrap();
        file.finish().unwrap();
        if abort {
            session.abort().unwrap();
            assert!(session.commit(&control()).is_err());
        }
        drop(session);
        let snapshots = fixture.repository.snapshots(&control()).unwrap();
        assert_eq!(snapshots.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [good]);
        assert_eq!(files(&fixture.path().join("locks")).len(), 0);
    }
    judge(&fixture.path());
}

#[test]
fn a_commit_with_an_open_file_is_refused() {
    let fixture = Fixture::new();
    let session = fixture.repository.begin(options("/x"), &control()).unwrap();
    let file = session.file(&at("/x"), FileMeta::default(), Cuts::ContentDefined).unwrap();
    assert!(matches!(session.commit(&control()), Err(RepositoryError::Refused { .. })));
    file.finish().unwrap();
    session.commit(&control()).unwrap();
    assert!(session.commit(&control()).is_err());
}

/// Failure 3: an unreadable file is told, listed, and makes the run incomplete; so are those that vanish and change.
#[test]
fn failure_3_unreadable_vanished_and_changing_files_make_the_run_incomplete() {
    let fixture = Fixture::new();
    let source = fixture.scratch("source");
    odd_directory(&source);
    // Root reads everything that has permissions, so the file is made unreadable in a way that holds for root too.
    std::os::unix::fs::symlink("/proc/self/mem", source.join("zz-link")).unwrap();
    let growing = source.join("growing");
    // Long enough to be read that its writer gets a turn meanwhile, on a machine that does other things too.
    let begun = 24 << 20;
    std::fs::write(&growing, noise(4, begun)).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (stop, growing) = (Arc::clone(&stop), growing.clone());
        std::thread::spawn(move || {
            use std::io::Write as _;
            let mut file = std::fs::File::options().append(true).open(growing).unwrap();
            while !stop.load(Ordering::Relaxed) {
                file.write_all(b"more").unwrap();
            }
        })
    };
    while std::fs::metadata(&growing).unwrap().len() <= begun as u64 {
        std::thread::yield_now();
    }
    let session = fixture.repository.begin(options(source.to_str().unwrap()), &control()).unwrap();
    let mut changed = Vec::new();
    let report = session
        .tree(&source, &TreeOptions::default(), &mut |event| {
            if let TreeOutcome::File { changed_while_read: true, .. } = event.outcome {
                changed.push(event.path.to_vec());
            }
        })
        .unwrap();
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    assert_eq!(changed, [b"growing".to_vec()]);
    assert_eq!(report.incomplete_count, 1);
    let committed = session.commit(&control()).unwrap();
    assert!(!committed.is_complete());
    assert_eq!(committed.incomplete[0].why, IncompleteReason::ChangedWhileRead);
    assert!(committed.incomplete[0].path.ends_with(b"/growing"));
    // What is stored is consistent in itself.
    judge(&fixture.path());

    // /proc/self has files that even root cannot read, and others that vanish.
    let session = fixture.repository.begin(options("/proc/self"), &control()).unwrap();
    let mut unreadable = Vec::new();
    let tree = TreeOptions {
        excludes: ["task", "cwd", "root", "map_files", "fd", "fdinfo", "net", "ns", "pagemap", "kcore"]
            .map(String::from)
            .to_vec(),
        ..TreeOptions::default()
    };
    session
        .tree(std::path::Path::new("/proc/self"), &tree, &mut |event| {
            if let TreeOutcome::Unreadable(_) = event.outcome {
                unreadable.push(event.path.to_vec());
            }
        })
        .unwrap();
    assert!(unreadable.contains(&b"mem".to_vec()), "{unreadable:?}");
    let committed = session.commit(&control()).unwrap();
    assert!(
        committed
            .incomplete
            .iter()
            .any(|i| i.path == b"/proc/self/mem" && matches!(i.why, IncompleteReason::Unreadable(_)))
    );
    judge(&fixture.path());
}

/// Rewrites the first byte of a file in place, once whenever it has been opened and a part of it was read: its beginning is by
/// then of the past, and its end is not read yet. Returns how often that was.
fn rewriter(path: &std::path::Path, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<u8> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};
    use std::mem::MaybeUninit;
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::options().write(true).open(path).unwrap();
    let events = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
    add_watch(&events, path, WatchFlags::OPEN | WatchFlags::ACCESS).unwrap();
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let mut buffer = [const { MaybeUninit::uninit() }; 4096];
        let mut news = Reader::new(&events, &mut buffer);
        let (mut is_opened, mut rewritten) = (false, 0);
        while !stop.load(Ordering::Relaxed) {
            let flags = match news.next() {
                Ok(event) => event.events(),
                Err(rustix::io::Errno::AGAIN) => {
                    // Woken by the event: one that is asleep runs at once, one that asks again and again waits for its turn.
                    let a_while = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
                    poll(&mut [PollFd::new(&events, PollFlags::IN)], Some(&a_while)).unwrap();
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            if flags.contains(ReadFlags::OPEN) {
                is_opened = true;
            } else if std::mem::take(&mut is_opened) {
                rewritten += 1;
                file.write_all_at(&[rewritten], 0).unwrap();
            }
        }
        rewritten
    })
}

/// What was torn is told, and is not taken over by the next backup as if it were the file: that one reads it, and is complete.
#[test]
fn a_file_that_was_rewritten_during_each_reading_is_read_again_by_the_next_backup() {
    // One that a worker reads as a whole, and one that is read in segments.
    for size in [12 << 20, 40 << 20] {
        // The writer has to be awake within each reading, which a busy machine does not promise: a try in which it was not proves
        // nothing.
        assert!(
            (0..20).any(|_| is_read_again_by_the_next_backup(size)),
            "the writer never wrote in each of the readings"
        );
    }
}

/// Whether the file of `size` bytes was rewritten during each reading, as was to be tried.
fn is_read_again_by_the_next_backup(size: u64) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let fixture = Fixture::new();
    let source = fixture.scratch("source");
    std::fs::create_dir(&source).unwrap();
    let path = source.join("f");
    std::fs::write(&path, noise(size, usize::try_from(size).unwrap())).unwrap();
    let place = at(path.to_str().unwrap());
    // One worker: segments are read one after the other.
    let options = SessionOptions { workers: 1, ..options(source.to_str().unwrap()) };
    let session = fixture.repository.begin(options.clone(), &control()).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = rewriter(&path, &stop);
    let mut torn = None;
    session
        .tree(&source, &TreeOptions::default(), &mut |event| {
            if let TreeOutcome::File { changed_while_read: true, .. } = event.outcome {
                torn = event.node.map(|node| node.ctime.unix_nanos());
            }
        })
        .unwrap();
    stop.store(true, Ordering::Relaxed);
    let rewritten = writer.join().unwrap();
    assert!(rewritten <= 3, "it was read {rewritten} times");
    let Some(torn) = torn else {
        // What was written after a reading had ended is none of its business.
        return false;
    };
    assert_eq!(rewritten, 3, "told as torn after fewer readings than it has");
    let first = session.commit(&control()).unwrap();
    assert!(!first.is_complete());
    let read = |id| fixture.repository.read_file(id, &place, 1 << 30, &control()).unwrap();
    let now = std::fs::read(&path).unwrap();
    assert!(read(&first.id) != now, "nothing was torn, and this proves nothing");
    let changed = std::fs::metadata(&path).unwrap();
    let changed = i128::from(changed.ctime()) * 1_000_000_000 + i128::from(changed.ctime_nsec());
    assert!(torn < changed, "what was stored must not look like what is there");

    let session = fixture.repository.begin(options, &control()).unwrap();
    session.tree(&source, &TreeOptions::default(), &mut |_| {}).unwrap();
    let second = session.commit(&control()).unwrap();
    assert_eq!(second.parent, Some(first.id));
    assert!(second.is_complete());
    assert!(read(&second.id) == now, "the next backup has the bytes that are there");
    judge(&fixture.path());
    true
}

/// A store that fails on demand.
#[derive(Debug, Default)]
struct Faulty {
    inner: InMemory,
    fail_list: AtomicBool,
    fail_put: AtomicBool,
    hang: AtomicBool,
    puts: AtomicUsize,
}

impl std::fmt::Display for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("faulty store")
    }
}

fn fault() -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: "no route to host".into() }
}

#[async_trait::async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.puts.fetch_add(1, Ordering::Relaxed);
        if self.hang.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        if self.fail_put.load(Ordering::Relaxed) && location.as_ref().starts_with("data/") {
            return Err(fault());
        }
        self.inner.put_opts(location, payload, opts).await
    }
    async fn put_multipart_opts(
        &self,
        l: &Path,
        o: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(l, o).await
    }
    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.inner.get_opts(location, options).await
    }
    fn delete_stream(
        &self,
        locations: futures::stream::BoxStream<'static, object_store::Result<Path>>,
    ) -> futures::stream::BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }
    fn list(
        &self,
        prefix: Option<&Path>,
    ) -> futures::stream::BoxStream<'static, object_store::Result<ObjectMeta>> {
        if self.fail_list.load(Ordering::Relaxed) {
            // Worse than failing at once: a page of results, then the fault.
            use futures::StreamExt as _;
            return self
                .inner
                .list(prefix)
                .take(1)
                .chain(futures::stream::once(async { Err(fault()) }))
                .boxed();
        }
        self.inner.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn faulty() -> (Arc<Faulty>, Store, Repository) {
    let faulty = Arc::new(Faulty::default());
    let store = Store::new(Arc::clone(&faulty) as Arc<dyn ObjectStore>).unwrap();
    let repository = Repository::init(&store, PASSWORD.as_bytes(), &init_options(), &control()).unwrap();
    (faulty, store, repository)
}

/// Failure 4: a listing that fails is an error everywhere, never a shorter list.
#[test]
fn failure_4_a_failed_listing_is_never_an_empty_list() {
    let (faulty, _store, repository) = faulty();
    for _ in 0..3 {
        store_stream(&repository, "/x", b"x", Cuts::ContentDefined);
    }
    faulty.fail_list.store(true, Ordering::Relaxed);
    assert!(matches!(repository.snapshots(&control()), Err(RepositoryError::Store { .. })));
    assert!(repository.index(&control()).is_err());
    assert!(repository.keys(&control()).is_err());
    assert!(repository.check(&Default::default(), &control()).is_err());
    assert!(repository.begin(options("/x"), &control()).is_err());
    faulty.fail_list.store(false, Ordering::Relaxed);
    assert_eq!(repository.snapshots(&control()).unwrap().len(), 3);

    // Locally: a directory that is not there, or is no directory, is not an empty one.
    let fixture = Fixture::new();
    store_stream(&fixture.repository, "/x", b"x", Cuts::ContentDefined);
    let path = fixture.path().join("snapshots");
    std::fs::rename(&path, fixture.path().join("elsewhere")).unwrap();
    std::fs::write(&path, b"not a directory").unwrap();
    assert!(fixture.repository.snapshots(&control()).is_err());
}

/// Failure 5 and 6: our lock stops restic's prune, and restic's lock stops our removals.
#[test]
fn failures_5_and_6_locks_keep_prune_and_writers_apart() {
    let fixture = Fixture::new();
    let session = fixture.repository.begin(options("/x"), &control()).unwrap();
    for binary in restics() {
        let output = crate::common::restic(&binary, &fixture.path(), &["prune".as_ref()]);
        assert!(!output.status.success(), "prune ran beside a writer");
        assert!(String::from_utf8_lossy(&output.stderr).contains("locked"), "{output:?}");
    }
    session.abort().unwrap();
    for binary in restics() {
        restic_ok(&binary, &fixture.path(), &["prune"]);
    }
}

/// Failure 5 and 6, from a client that ignores locks: packs that vanish while we write are noticed before the snapshot.
#[test]
fn failures_5_and_6_packs_deleted_behind_our_back_make_the_commit_refuse() {
    let fixture = Fixture::new();
    let content = noise(6, 3_000_000);
    store_stream(&fixture.repository, "/x", &content, Cuts::ContentDefined);
    let session = fixture.repository.begin(options("/x"), &control()).unwrap();
    let mut file = session.file(&at("/x"), FileMeta::default(), Cuts::ContentDefined).unwrap();
    file.write(&content).unwrap();
    file.finish().unwrap();
    for pack in files(&fixture.path().join("data")) {
        std::fs::remove_file(pack).unwrap();
    }
    let error = session.commit(&control()).unwrap_err();
    assert!(matches!(error, RepositoryError::Missing { .. }), "{error:?}");
    assert_eq!(fixture.repository.snapshots(&control()).unwrap().len(), 1);

    // And so is a lock that somebody removed: they think us dead, and may prune.
    let fixture = Fixture::new();
    let session = fixture.repository.begin(options("/x"), &control()).unwrap();
    let mut file = session.file(&at("/x"), FileMeta::default(), Cuts::ContentDefined).unwrap();
    file.write(&content).unwrap();
    file.finish().unwrap();
    for lock in files(&fixture.path().join("locks")) {
        std::fs::remove_file(lock).unwrap();
    }
    assert!(session.commit(&control()).is_err());
    assert!(fixture.repository.snapshots(&control()).unwrap().is_empty());
}

/// Failure 7: a stream is always read, whatever an earlier snapshot says about its name.
#[test]
fn failure_7_a_second_stream_of_the_same_name_is_read() {
    let fixture = Fixture::new();
    let (first, second) = (noise(7, 9 << 20), noise(8, 9 << 20));
    let time = seaworthy_repository::Time::now();
    for content in [&first, &second] {
        let options = SessionOptions { parent: ParentUse::Automatic, ..options("/dump") };
        let session = fixture.repository.begin(options, &control()).unwrap();
        let meta = FileMeta { mtime: Some(time), ..FileMeta::default() };
        let mut file = session.file(&at("/dump"), meta, Cuts::ContentDefined).unwrap();
        file.write(content).unwrap();
        file.finish().unwrap();
        let committed = session.commit(&control()).unwrap();
        let stored = fixture.repository.read_file(&committed.id, &at("/dump"), 1 << 30, &control()).unwrap();
        assert_eq!(sha256(&stored), sha256(content));
    }
}

#[test]
fn a_store_that_fails_to_write_fails_the_commit() {
    let (faulty, _store, repository) = faulty();
    let session = repository.begin(options("/x"), &control()).unwrap();
    faulty.fail_put.store(true, Ordering::Relaxed);
    let mut file = session.file(&at("/x"), FileMeta::default(), Cuts::ContentDefined).unwrap();
    // The failure comes back at some write, at the end of the file, or at the latest with the commit.
    let mut result = Ok(());
    for part in noise(9, 60 << 20).chunks(1 << 20) {
        result = result.and_then(|()| file.write(part));
    }
    let result =
        result.and_then(|()| file.finish().map(|_| ())).and_then(|()| session.commit(&control()).map(|_| ()));
    let error = result.unwrap_err();
    assert!(matches!(error.root(), RepositoryError::Store { .. }), "{error:?}");
    faulty.fail_put.store(false, Ordering::Relaxed);
    assert!(session.commit(&control()).is_err(), "the session is lost for good");
    assert!(repository.snapshots(&control()).unwrap().is_empty());
}

#[test]
fn a_full_disk_is_told_as_such_and_leaves_no_snapshot() {
    let fixture = Fixture::new();
    let disk = fixture.scratch("disk");
    std::fs::create_dir(&disk).unwrap();
    let mount =
        |arguments: &[&str]| std::process::Command::new(arguments[0]).args(&arguments[1..]).status().unwrap();
    let path = disk.to_str().unwrap().to_owned();
    assert!(
        mount(&["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", &path]).success(),
        "a small disk needs root"
    );
    struct Unmount(String);
    impl Drop for Unmount {
        fn drop(&mut self) {
            std::process::Command::new("umount").args(["-l", &self.0]).status().unwrap();
        }
    }
    let _unmount = Unmount(path);
    let store = seaworthy_repository::open_store(disk.join("repo")).unwrap();
    let repository = Repository::init(&store, PASSWORD.as_bytes(), &init_options(), &control()).unwrap();
    let small = store_stream(&repository, "/small", b"small", Cuts::ContentDefined);
    let session =
        repository.begin(SessionOptions { pack_size: 1 << 20, ..options("/x") }, &control()).unwrap();
    let mut file = session.file(&at("/x"), FileMeta::default(), Cuts::ContentDefined).unwrap();
    let mut result = Ok(());
    for part in noise(9, 30 << 20).chunks(1 << 20) {
        result = result.and_then(|()| file.write(part));
    }
    let error = result
        .and_then(|()| file.finish().map(|_| ()))
        .and_then(|()| session.commit(&control()).map(|_| ()))
        .unwrap_err();
    assert!(matches!(error.root(), RepositoryError::NoSpace { .. }), "{error:?}");
    drop(session);
    assert_eq!(repository.read_file(&small, &at("/small"), 100, &control()).unwrap(), b"small");
    assert_eq!(repository.snapshots(&control()).unwrap().len(), 1);
    // Nor does a restore onto a full disk pass for one.
    let id = store_stream(&fixture.repository, "/x", &noise(9, 30 << 20), Cuts::ContentDefined);
    let error = fixture
        .repository
        .restore(&id, &at("/"), &disk.join("t"), &RestoreOptions::default(), &control())
        .unwrap_err();
    assert!(matches!(error.root(), RepositoryError::NoSpace { .. }), "{error:?}");
    let left = files(&disk.join("t"));
    assert!(left.is_empty(), "a file without its content is left: {left:?}");
}

#[test]
fn every_long_call_stops_when_asked_and_at_its_deadline() {
    let fixture = Fixture::new();
    let source = fixture.scratch("source");
    odd_directory(&source);
    let committed = store_tree(&fixture.repository, &source, ParentUse::None);
    let cancelled = Control::new();
    cancelled.cancel.cancel();
    let late = Control::new().with_deadline(Instant::now());
    for (control, stop) in [(&cancelled, Stop::Cancelled), (&late, Stop::DeadlineExceeded)] {
        let stopped =
            |result: Result<(), RepositoryError>| assert_eq!(result.unwrap_err().stop(), Some(stop));
        let repository = &fixture.repository;
        stopped(repository.snapshots(control).map(|_| ()));
        stopped(repository.begin(options("/x"), control).map(|_| ()));
        stopped(repository.check(&Default::default(), control).map(|_| ()));
        stopped(
            repository
                .restore(&committed.id, &at("/"), &fixture.scratch("t"), &RestoreOptions::default(), control)
                .map(|_| ()),
        );
        stopped(repository.open_file(&committed.id, &at("/x"), control).map(|_| ()));
        stopped(repository.lock(LockKind::Shared, control).map(|_| ()));
    }
    // In the middle of a stream.
    let control = Control::new();
    let session = fixture.repository.begin(options("/x"), &control).unwrap();
    let mut file = session.file(&at("/x"), FileMeta::default(), Cuts::ContentDefined).unwrap();
    file.write(&noise(1, 5 << 20)).unwrap();
    control.cancel.cancel();
    assert_eq!(file.write(b"more").unwrap_err().stop(), Some(Stop::Cancelled));
    drop(file);
    assert_eq!(session.commit(&Control::new()).unwrap_err().stop(), Some(Stop::Cancelled));
    drop(session);
    assert_eq!(fixture.repository.snapshots(&Control::new()).unwrap().len(), 1);
    assert_eq!(files(&fixture.path().join("locks")).len(), 0);
}

#[test]
fn a_store_that_hangs_is_left_at_the_deadline() {
    let (faulty, store, repository) = faulty();
    let started = Instant::now();
    let control = Control::new().with_deadline(started + Duration::from_millis(1500));
    let session = repository.begin(options("/x"), &control).unwrap();
    faulty.hang.store(true, Ordering::Relaxed);
    let mut file = session.file(&at("/x"), FileMeta::default(), Cuts::ContentDefined).unwrap();
    let mut result = Ok(());
    for part in noise(9, 100 << 20).chunks(1 << 20) {
        result = result.and_then(|()| file.write(part));
    }
    let result =
        result.and_then(|()| file.finish().map(|_| ())).and_then(|()| session.commit(&control).map(|_| ()));
    assert_eq!(result.unwrap_err().stop(), Some(Stop::DeadlineExceeded));
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    faulty.hang.store(false, Ordering::Relaxed);
    drop(session);

    // The commit has a deadline of its own.
    let session = repository.begin(options("/x"), &Control::new()).unwrap();
    let mut file = session.file(&at("/x"), FileMeta::default(), Cuts::ContentDefined).unwrap();
    file.write(&noise(10, 1 << 20)).unwrap();
    file.finish().unwrap();
    faulty.hang.store(true, Ordering::Relaxed);
    let started = Instant::now();
    let control = Control::new().with_deadline(started + Duration::from_millis(300));
    assert_eq!(session.commit(&control).unwrap_err().stop(), Some(Stop::DeadlineExceeded));
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    faulty.hang.store(false, Ordering::Relaxed);
    drop(session);
    assert_eq!(store.list(FileKind::Snapshot, &Control::new()).unwrap().len(), 0);
}
