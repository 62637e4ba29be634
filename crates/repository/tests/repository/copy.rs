//! Copies between repositories: what arrives is what was there, whatever happens on the way.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use seaworthy_repository::{
    BlobKind, CheckOptions, CheckRead, Control, CopyOf, CopyOptions, CopyReport, Cuts, FileKind, FileMeta,
    Id, LockKind, Object, ParentUse, Repository, RepositoryError, RestoreOptions, SessionOptions, Share,
    SnapshotId, SourceLock, Time, copy,
};

use crate::common::{
    Fixture, Forge, PASSWORD, assert_same_tree, at, control, file_node, files, golden, in_memory, judge,
    noise, odd_directory, open, options, restic_ok, restics, store_stream, store_tree,
};
use crate::frail::{Counted, Fault, Frail};

fn thorough() -> CopyOptions {
    CopyOptions { verify: Share::ALL, pack_size: 64 << 10, workers: 2, ..CopyOptions::default() }
}

fn copy_all(from: &Repository, to: &Repository) -> CopyReport {
    copy(from, CopyOf::All, to, &thorough(), &control()).unwrap()
}

fn assert_sound(repository: &Repository) {
    let check = CheckOptions { read: CheckRead::All, ..CheckOptions::default() };
    let report = repository.check(&check, &control()).unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
}

/// Names of everything but locks.
fn content_of(path: &Path) -> Vec<std::path::PathBuf> {
    files(path).into_iter().filter(|file| !file.starts_with(path.join("locks"))).collect()
}

#[test]
fn what_is_copied_is_what_was_there() {
    let (source, target) = (Fixture::new(), Fixture::new());
    let directory = source.scratch("source");
    odd_directory(&directory);
    let first = store_tree(&source.repository, &directory, ParentUse::None);
    std::fs::write(directory.join("a"), b"changed").unwrap();
    let session = source
        .repository
        .begin(
            SessionOptions {
                tags: vec!["one".into(), "two".into()],
                excludes: vec!["*.tmp".into()],
                ..options(directory.to_str().unwrap())
            },
            &control(),
        )
        .unwrap();
    session.tree(&directory, &Default::default(), &mut |_| {}).unwrap();
    let second = session.commit(&control()).unwrap();
    let third = store_stream(&source.repository, "/dump", &noise(3, 2 << 20), Cuts::Rabin);

    let report = copy_all(&source.repository, &target.repository);
    let order: Vec<SnapshotId> = report.copied.iter().map(|copied| copied.source).collect();
    assert_eq!(order, [third, second.id, first.id], "newest first");
    assert_eq!((report.packs_verified, report.blobs_verified), (report.packs, report.blobs));
    assert!(report.packs > 7 && report.bytes_verified > report.bytes_written, "{report:?}");
    assert!(report.bytes_read > 0 && report.bytes_written > 0);
    judge(&target.path());
    assert_sound(&target.repository);
    for copied in &report.copied {
        let before = source.repository.snapshot(&copied.source, &control()).unwrap();
        let after = target.repository.snapshot(&copied.target, &control()).unwrap();
        assert_eq!(after.parent, None);
        assert_eq!(after.original, Some(copied.source));
        let expected = seaworthy_repository::Snapshot { parent: None, original: after.original, ..before };
        assert_eq!(after, expected, "everything else is as it was");
    }
    // The ids of all blobs are the same, each is there once, and what restic restores is what was there.
    let (ours, theirs) =
        (source.repository.index(&control()).unwrap(), target.repository.index(&control()).unwrap());
    for kind in [BlobKind::Data, BlobKind::Tree] {
        assert_eq!(ours.ids(kind).unwrap(), theirs.ids(kind).unwrap());
    }
    assert_eq!(theirs.len() as u64, report.blobs);
    let newest = report.copied.iter().find(|copied| copied.source == second.id).unwrap().target;
    for (n, binary) in restics().iter().enumerate() {
        let into = target.scratch(&format!("restic-{n}"));
        restic_ok(binary, &target.path(), &["restore", &newest.hex(), "--target", into.to_str().unwrap()]);
        assert_same_tree(&directory, &into.join(directory.strip_prefix("/").unwrap()));
    }

    // And once more: nothing is sent, nothing is written.
    let before = content_of(&target.path());
    let again = copy_all(&source.repository, &target.repository);
    assert_eq!((again.copied.len(), again.present.len(), again.blobs, again.packs), (0, 3, 0, 0));
    let mut present = again.present.clone();
    let mut copied = report.copied.clone();
    present.sort_by_key(|pair| pair.source);
    copied.sort_by_key(|pair| pair.source);
    assert_eq!(present, copied);
    assert_eq!(content_of(&target.path()), before);
    assert!(files(&target.path().join("locks")).is_empty() && files(&source.path().join("locks")).is_empty());
}

#[test]
fn what_restic_wrote_is_copied_from_every_version() {
    for name in ["v1", "v2"] {
        let (dir, source) = golden(name);
        let target = Fixture::new();
        let report = copy_all(&source, &target.repository);
        assert_eq!(report.copied.len(), if name == "v1" { 1 } else { 7 });
        judge(&target.path());
        assert_sound(&target.repository);
        for copied in &report.copied {
            let mut restored = Vec::new();
            for (repository, id, place) in
                [(&source, copied.source, "before"), (&target.repository, copied.target, "after")]
            {
                let into = dir.path().join(format!("{place}-{id}"));
                let restore = RestoreOptions::default();
                let summary = repository.restore(&id, &at("/"), &into, &restore, &control()).unwrap();
                assert!(summary.is_complete(), "{:?}", summary.problems);
                restored.push(into);
            }
            assert_same_tree(&restored[0], &restored[1]);
            // What was retagged keeps the name that it had first.
            let before = source.snapshot(&copied.source, &control()).unwrap();
            let after = target.repository.snapshot(&copied.target, &control()).unwrap();
            assert_eq!(after.original, before.original.or(Some(copied.source)));
        }
        // Each blob once, also where the source has several copies.
        let index = target.repository.index(&control()).unwrap();
        let distinct = index.ids(BlobKind::Data).unwrap().len() + index.ids(BlobKind::Tree).unwrap().len();
        assert_eq!(index.len(), distinct);
    }
}

fn restic_copy(binary: &Path, from: &Path, to: &Path) -> String {
    let output = Command::new(binary)
        .arg("copy")
        .arg("--from-repo")
        .arg(from)
        .env("RESTIC_REPOSITORY", to)
        .env("RESTIC_PASSWORD", PASSWORD)
        .env("RESTIC_FROM_PASSWORD", PASSWORD)
        .env("RESTIC_CACHE_DIR", to.parent().unwrap().join("cache"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What counts as copied is decided as restic decides it: each takes the other's copies for its own.
#[test]
fn restic_and_we_know_each_others_copies() {
    for binary in restics() {
        let source = Fixture::new();
        store_stream(&source.repository, "/one", &noise(1, 300_000), Cuts::ContentDefined);
        store_stream(&source.repository, "/two", &noise(2, 300_000), Cuts::ContentDefined);
        let ours = Fixture::new();
        copy_all(&source.repository, &ours.repository);
        let before = content_of(&ours.path());
        restic_copy(&binary, &source.path(), &ours.path());
        assert_eq!(content_of(&ours.path()), before, "restic copied again what we had copied");

        let theirs = Fixture::new();
        restic_copy(&binary, &source.path(), &theirs.path());
        let before = content_of(&theirs.path());
        let report = copy_all(&source.repository, &theirs.repository);
        assert_eq!((report.copied.len(), report.present.len()), (0, 2));
        assert_eq!(content_of(&theirs.path()), before, "we copied again what restic had copied");

        // From the copy onwards, the first name stays.
        let further = Fixture::new();
        let report = copy_all(&theirs.repository, &further.repository);
        assert_eq!(report.copied.len(), 2);
        assert_eq!(copy_all(&source.repository, &further.repository).present.len(), 2);
    }
}

#[test]
fn snapshots_that_differ_in_anything_are_not_the_same() {
    let (source, target) = (Fixture::new(), Fixture::new());
    let id = store_stream(&source.repository, "/x", b"x", Cuts::ContentDefined);
    copy_all(&source.repository, &target.repository);
    // Retagged: the same first name, another snapshot.
    restic_ok(&restics()[0], &source.path(), &["tag", "--add", "kept"]);
    let (retagged, snapshot) = source.repository.snapshots(&control()).unwrap().pop().unwrap();
    assert_ne!(retagged, id);
    assert_eq!(snapshot.original, Some(id));
    let report = copy_all(&source.repository, &target.repository);
    assert_eq!((report.copied.len(), report.blobs), (1, 0));
    let copied = target.repository.snapshot(&report.copied[0].target, &control()).unwrap();
    assert_eq!((copied.original, copied.tags), (Some(id), vec!["kept".to_owned()]));
    assert_eq!(
        copy_all(&source.repository, &target.repository).present.len(),
        1,
        "it is known by its first name"
    );
    judge(&target.path());
}

#[test]
fn only_what_is_asked_for_is_copied_and_nothing_that_is_not_there() {
    let (source, target) = (Fixture::new(), Fixture::new());
    let first = store_stream(&source.repository, "/one", &noise(1, 300_000), Cuts::ContentDefined);
    let second = store_stream(&source.repository, "/two", &noise(2, 300_000), Cuts::ContentDefined);
    let these = |ids: &[SnapshotId]| {
        copy(&source.repository, CopyOf::These(ids), &target.repository, &thorough(), &control())
    };
    let error = these(&[first, Id::of(b"nobody")]).unwrap_err();
    assert!(matches!(error, RepositoryError::Missing { what: Object::Snapshot, .. }), "{error}");
    assert!(target.repository.snapshots(&control()).unwrap().is_empty());
    assert_eq!(these(&[]).unwrap().copied, []);
    let report = these(&[second, second]).unwrap();
    assert_eq!(report.copied.iter().map(|c| c.source).collect::<Vec<_>>(), [second]);
    assert!(report.present.is_empty(), "named twice, copied once");
    assert_eq!(target.repository.snapshots(&control()).unwrap().len(), 1);
    judge(&target.path());
}

/// Of many small snapshots several are made durable together; of none is anything lost.
#[test]
fn many_small_snapshots_share_packs() {
    let (source, target) = (Fixture::new(), Fixture::new());
    let ids: BTreeSet<SnapshotId> = (0..40)
        .map(|n| store_stream(&source.repository, "/x", &noise(n, 2000), Cuts::ContentDefined))
        .collect();
    let report =
        copy(&source.repository, CopyOf::All, &target.repository, &CopyOptions::default(), &control());
    let report = report.unwrap();
    assert_eq!(report.copied.iter().map(|c| c.source).collect::<BTreeSet<_>>(), ids);
    assert!(report.packs <= 9, "{report:?}");
    judge(&target.path());
    assert_sound(&target.repository);
}

#[test]
fn a_pack_that_the_target_has_lost_is_not_relied_upon() {
    let (source, target) = (Fixture::new(), Fixture::new());
    let content = noise(5, 1 << 20);
    store_stream(&source.repository, "/x", &content, Cuts::ContentDefined);
    copy_all(&source.repository, &target.repository);
    let packs = files(&target.path().join("data"));
    std::fs::remove_file(&packs[0]).unwrap();
    // The same content once more, as another snapshot.
    let again = store_stream(&source.repository, "/y", &content, Cuts::ContentDefined);
    let report =
        copy(&source.repository, CopyOf::These(&[again]), &target.repository, &thorough(), &control())
            .unwrap();
    assert!(report.blobs >= 1 && report.blobs < 10, "{report:?}");
    let stored = target.repository.read_file(&report.copied[0].target, &at("/y"), 1 << 30, &control());
    assert!(stored.unwrap() == content);
    for binary in restics() {
        let id = report.copied[0].target.hex();
        assert!(restic_ok(&binary, &target.path(), &["dump", &id, "/y"]) == content);
    }
}

#[test]
fn damage_at_the_source_fails_the_copy_and_is_named() {
    let (source, target) = (Fixture::new(), Fixture::new());
    let whole = store_stream(&source.repository, "/whole", &noise(6, 300_000), Cuts::ContentDefined);
    let hurt = store_stream(&source.repository, "/hurt", &noise(7, 300_000), Cuts::ContentDefined);
    let node = source.repository.node(&hurt, &at("/hurt"), &control()).unwrap();
    let piece = node.content.unwrap()[0];
    let place = source.repository.index(&control()).unwrap().find(BlobKind::Data, &piece).unwrap().unwrap();
    let path = source.path().join("data").join(&place.pack.hex()[..2]).join(place.pack.hex());
    let sound = std::fs::read(&path).unwrap();
    let mut bytes = sound.clone();
    bytes[place.blob.offset as usize + 30] ^= 1;
    crate::common::overwrite(&path, &bytes);
    let error =
        copy(&source.repository, CopyOf::All, &target.repository, &thorough(), &control()).unwrap_err();
    match error.root() {
        RepositoryError::Damaged { what: Object::DataBlob, id, .. } => assert_eq!(*id, piece.hex()),
        other => panic!("{other:?}"),
    }
    assert!(target.repository.snapshots(&control()).unwrap().is_empty());
    judge(&target.path());
    // What does not need it is copied.
    let report =
        copy(&source.repository, CopyOf::These(&[whole]), &target.repository, &thorough(), &control())
            .unwrap();
    assert_eq!(report.copied.len(), 1);

    // Gone is as bad, and told as such.
    std::fs::remove_file(&path).unwrap();
    let error =
        copy(&source.repository, CopyOf::All, &target.repository, &thorough(), &control()).unwrap_err();
    assert!(matches!(error.root(), RepositoryError::Missing { what: Object::Pack, .. }), "{error:?}");
    // So is a blob that no index knows.
    std::fs::write(&path, &sound).unwrap();
    let index = files(&source.path().join("index"));
    for file in &index {
        let away = source.scratch("away");
        std::fs::rename(file, &away).unwrap();
        let target = Fixture::new();
        let result = copy(&source.repository, CopyOf::All, &target.repository, &thorough(), &control());
        let error = result.unwrap_err();
        assert!(matches!(error.root(), RepositoryError::Missing { what: Object::Tree, .. }), "{error:?}");
        std::fs::rename(&away, file).unwrap();
    }
    assert_eq!(copy_all(&source.repository, &target.repository).copied.len(), 1);
}

/// A second copy of a blob at the source is as good as the first.
#[test]
fn a_damaged_blob_is_taken_from_another_pack_of_the_source() {
    let (dir, source) = golden("v2");
    let index = source.index(&control()).unwrap();
    let mut hurt = 0;
    for kind in [BlobKind::Data, BlobKind::Tree] {
        for id in index.ids(kind).unwrap() {
            let places = index.places(kind, &id).unwrap();
            if places.len() > 1 {
                let pack = places[0].pack.hex();
                let path = dir.path().join("v2/data").join(&pack[..2]).join(&pack);
                let mut bytes = std::fs::read(&path).unwrap();
                bytes[places[0].blob.offset as usize + 20] ^= 1;
                crate::common::overwrite(&path, &bytes);
                hurt += 1;
            }
        }
    }
    assert_eq!(hurt, 4);
    let target = Fixture::new();
    assert_eq!(copy_all(&source, &target.repository).copied.len(), 7);
    judge(&target.path());
}

/// What the source says wrongly about a blob, and what only an odd writer does, does not get into the target.
#[test]
fn what_the_source_declares_wrongly_is_right_in_the_target() {
    let mut forge = Forge::new();
    let wrong = forge.blob_with(BlobKind::Data, b"ten bytes.", |blob| blob.uncompressed_length = Some(5));
    let empty = forge.blob_with(BlobKind::Data, b"", |blob| blob.uncompressed_length = Some(1));
    let tree = forge.tree(&format!("{{\"nodes\":[{}]}}\n", file_node("a", &[wrong, empty], r#","size":10"#)));
    forge.commit(tree);
    let target = Fixture::new();
    let report = copy_all(&forge.fixture.repository, &target.repository);
    let index = target.repository.index(&control()).unwrap();
    let of = |id| index.find(BlobKind::Data, &id).unwrap().unwrap().blob;
    assert_eq!(of(wrong).uncompressed_length, Some(10).filter(|_| of(wrong).length != 42));
    assert_eq!(of(empty).uncompressed_length, None);
    assert_sound(&target.repository);
    judge(&target.path());
    let stored = target.repository.read_file(&report.copied[0].target, &at("/a"), 100, &control()).unwrap();
    assert_eq!(stored, b"ten bytes.");
}

#[test]
fn a_directory_that_is_too_large_to_be_held_is_copied() {
    let (source, target) = (Fixture::new(), Fixture::new());
    let session = source.repository.begin(options("/x"), &control()).unwrap();
    let cuts = Cuts::Pages { page: 64, pages_per_piece: 1 };
    let mut file = session.file(&at("/x"), FileMeta::default(), cuts).unwrap();
    let mut content = Vec::new();
    for n in 0..130_000u32 {
        content.extend_from_slice(&n.to_le_bytes());
        content.resize(content.len() + 60, 0);
    }
    file.write(&content).unwrap();
    file.finish().unwrap();
    session.commit(&control()).unwrap();
    let report = copy(
        &source.repository,
        CopyOf::All,
        &target.repository,
        &CopyOptions { verify: Share { part: 0.05, seed: 9 }, ..CopyOptions::default() },
        &control(),
    )
    .unwrap();
    assert!(report.blobs_verified > 5_000 && report.blobs_verified < 8_000, "{report:?}");
    let index = target.repository.index(&control()).unwrap();
    let trees = index.ids(BlobKind::Tree).unwrap();
    let lengths = trees.iter().map(|id| index.find(BlobKind::Tree, id).unwrap().unwrap().blob.plain_length());
    assert!(lengths.max().unwrap() > 8 << 20);
    let id = report.copied[0].target;
    assert!(target.repository.read_file(&id, &at("/x"), 1 << 30, &control()).unwrap() == content);
    judge(&target.path());
}

#[test]
fn locks_keep_copies_and_prunes_apart() {
    let (source, target) = (Fixture::new(), Fixture::new());
    store_stream(&source.repository, "/x", b"x", Cuts::ContentDefined);
    let run = |source_lock| {
        let options = CopyOptions { source_lock, ..thorough() };
        copy(&source.repository, CopyOf::All, &target.repository, &options, &control())
    };
    let lock = target.repository.lock(LockKind::Exclusive, &control()).unwrap();
    assert!(matches!(run(SourceLock::Shared), Err(RepositoryError::Locked { .. })));
    lock.release().unwrap();
    let lock = source.repository.lock(LockKind::Exclusive, &control()).unwrap();
    assert!(matches!(run(SourceLock::Shared), Err(RepositoryError::Locked { .. })));
    assert!(files(&target.path().join("locks")).is_empty());
    assert_eq!(run(SourceLock::None).unwrap().copied.len(), 1);
    lock.release().unwrap();
    // A repository of version 1 is read and never written.
    let (_dir, old) = golden("v1");
    let refused = copy(&source.repository, CopyOf::All, &old, &thorough(), &control());
    assert!(matches!(refused, Err(RepositoryError::Unsupported { .. })));
}

#[test]
fn a_damaged_snapshot_of_the_target_is_told_and_copied_anew() {
    let (source, target) = (Fixture::new(), Fixture::new());
    store_stream(&source.repository, "/x", b"x", Cuts::ContentDefined);
    let first = copy_all(&source.repository, &target.repository).copied[0].target;
    let path = target.path().join("snapshots").join(first.hex());
    crate::common::overwrite(&path, b"damaged");
    let report = copy_all(&source.repository, &target.repository);
    assert_eq!(report.damaged, [first]);
    assert_eq!((report.copied.len(), report.blobs), (1, 0));
}

/// A source in memory with three snapshots, and what is in each.
struct Origin {
    frail: Arc<Frail>,
    contents: Vec<(String, Vec<u8>)>,
}

fn frail_repository() -> (Arc<Frail>, Repository) {
    let frail = Arc::new(Frail::default());
    let repository =
        Repository::init(&frail.store(), PASSWORD.as_bytes(), &crate::common::init_options(), &control())
            .unwrap();
    (frail, repository)
}

impl Origin {
    fn new() -> Self {
        let (frail, repository) = frail_repository();
        let mut contents = Vec::new();
        let shared = noise(1, 200_000);
        for n in 0..3u64 {
            let path = format!("/{n}");
            let content = [shared.clone(), noise(10 + n, 150_000)].concat();
            let time = Some(Time::from_unix(1_700_000_000 + i64::try_from(n).unwrap(), 0));
            let session = repository.begin(SessionOptions { time, ..options(&path) }, &control()).unwrap();
            let cuts = Cuts::Pages { page: 4096, pages_per_piece: 4 };
            let mut file = session.file(&at(&path), FileMeta::default(), cuts).unwrap();
            file.write(&content).unwrap();
            file.finish().unwrap();
            session.commit(&control()).unwrap();
            contents.push((path, content));
        }
        Self { frail, contents }
    }

    /// Everything that is shown in a target is whole; returns how many snapshots that are.
    fn assert_whole(&self, target: &Repository, what: &str) -> usize {
        let snapshots = target.snapshots(&control()).unwrap();
        for (id, snapshot) in &snapshots {
            let (path, content) =
                self.contents.iter().find(|(path, _)| *path == snapshot.paths[0]).expect("one of ours");
            let stored = target.read_file(id, &at(path), 1 << 30, &control());
            assert!(stored.unwrap_or_else(|e| panic!("{what}: {e}")) == *content, "{what}: {path}");
        }
        // The newest is copied first.
        let paths: Vec<&str> = snapshots.iter().map(|(_, s)| s.paths[0].as_str()).collect();
        assert_eq!(paths, ["/0", "/1", "/2"][3 - paths.len()..], "{what}");
        snapshots.len()
    }
}

/// Runs `trial` for each number on a few threads: most of the time of each is the wait for competing locks.
pub(crate) fn trials(count: u64, trial: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= count {
                        return;
                    }
                    trial(number);
                }
            });
        }
    });
}

/// Killed before and after each change of the target, or a change that fails: what is shown is whole, and the next copy ends the
/// work. Stock restic judges every one of them.
#[test]
fn a_copy_that_ends_at_any_moment_shows_only_what_is_whole_and_is_finished_by_the_next() {
    let origin = Origin::new();
    let (empty, _) = frail_repository();
    let quick = CopyOptions { pack_size: 64 << 10, workers: 2, ..CopyOptions::default() };
    let changes = {
        let target = empty.fork();
        target.plan(Counted::Changes, u64::MAX, Fault::Dies);
        copy(&origin.frail.open(), CopyOf::All, &target.open(), &quick, &control()).unwrap();
        target.heal()
    };
    assert!(changes > 12, "{changes}");
    let (ended, shown) = (AtomicU64::new(0), Mutex::new([0u64; 4]));
    trials(4 * changes, |trial| {
        let fault =
            [Fault::Dies, Fault::DiesAfter, Fault::Fails, Fault::DoneButFails][(trial % 4) as usize].clone();
        let what = format!("change {} {fault:?}", trial / 4);
        let target = empty.fork();
        let repository = target.open();
        target.plan(Counted::Changes, trial / 4, fault);
        let result = copy(&origin.frail.open(), CopyOf::All, &repository, &quick, &control());
        target.heal();
        drop(repository);
        // Only a lock that cannot be removed is no reason to fail. How many packs there are, chance decides.
        let struck = target.struck();
        let is_lock = struck.as_ref().is_none_or(|call| call.starts_with("delete locks/"));
        assert!(result.is_err() != is_lock, "{what}, {struck:?}: {result:?}");
        let count = origin.assert_whole(&target.open(), &what);
        shown.lock().unwrap()[count] += 1;
        ended.fetch_add(u64::from(result.is_err()), Ordering::SeqCst);
        if trial % 4 == 1 {
            let dir = tempfile::tempdir().unwrap();
            target.dump(&dir.path().join("repo"));
            let newest = restics().pop().unwrap();
            restic_ok(&newest, &dir.path().join("repo"), &["check", "--read-data"]);
        }
        // What died has left its lock; it is this process's own, and would be reaped if the process were dead.
        for lock in target.names("locks") {
            target.remove(&lock);
        }
        let again = copy(&origin.frail.open(), CopyOf::All, &target.open(), &thorough(), &control()).unwrap();
        assert_eq!(again.copied.len() + again.present.len(), 3, "{what}");
        assert_eq!(again.present.len(), count, "{what}");
        assert_eq!(origin.assert_whole(&target.open(), &what), 3);
        assert_sound(&target.open());
    });
    let shown = shown.into_inner().unwrap();
    assert!(shown[0] > 0 && shown[3] > 0 && ended.into_inner() > 4 * (changes - 3), "{shown:?}");
}

/// What was made durable before the cut is not sent again.
#[test]
fn a_copy_that_was_cut_off_is_continued() {
    let (source, repository) = frail_repository();
    let content = noise(20, 8 << 20);
    let session = repository.begin(options("/x"), &control()).unwrap();
    let cuts = Cuts::Pages { page: 8192, pages_per_piece: 4 };
    let mut file = session.file(&at("/x"), FileMeta::default(), cuts).unwrap();
    file.write(&content).unwrap();
    file.finish().unwrap();
    session.commit(&control()).unwrap();
    let (empty, _) = frail_repository();
    for (fault, at_pack, most) in [
        // A failure lists what is durable; a crash leaves what was listed on the way.
        (Fault::Fails, 60, 0.65),
        (Fault::Dies, 100, 0.55),
    ] {
        let target = empty.fork();
        target.plan(Counted::Packs, at_pack, fault.clone());
        let options = CopyOptions { pack_size: 64 << 10, ..CopyOptions::default() };
        copy(&source.open(), CopyOf::All, &target.open(), &options, &control()).unwrap_err();
        target.heal();
        for lock in target.names("locks") {
            target.remove(&lock);
        }
        let report = copy(&source.open(), CopyOf::All, &target.open(), &options, &control()).unwrap();
        let all = source.open().index(&control()).unwrap().len();
        assert!((report.blobs as f64) < most * all as f64, "{fault:?}: {} of {all} sent again", report.blobs);
        assert!((report.bytes_read as f64) < (most + 0.1) * content.len() as f64, "{fault:?}: {report:?}");
        let id = report.copied[0].target;
        assert!(target.open().read_file(&id, &at("/x"), 1 << 30, &control()).unwrap() == content);
        assert_sound(&target.open());
    }
}

#[test]
fn a_copy_that_is_cancelled_at_any_moment_ends_at_once_and_is_finished_by_the_next() {
    let origin = Origin::new();
    let (empty, _) = frail_repository();
    let quick = CopyOptions { pack_size: 64 << 10, workers: 2, ..CopyOptions::default() };
    trials(36, |trial| {
        let (source, target) = (origin.frail.fork(), empty.fork());
        let (from, to) = (source.open(), target.open());
        let control = Control::new();
        let at = if trial % 2 == 0 { &source } else { &target };
        at.plan(Counted::All, trial, Fault::Cancels(control.cancel.clone()));
        let started = std::time::Instant::now();
        let result = copy(&from, CopyOf::All, &to, &quick, &control);
        let what = format!("call {trial}");
        let calls = at.heal();
        if calls > trial + 2 && result.is_ok() {
            panic!("{what}: it went on");
        }
        if let Err(error) = &result {
            assert!(error.stop().is_some(), "{what}: {error:?}");
        }
        assert!(started.elapsed().as_secs() < 20, "{what}");
        drop((from, to));
        assert!(source.names("locks").is_empty() && target.names("locks").is_empty(), "{what}");
        origin.assert_whole(&target.open(), &what);
        let again = copy(&source.open(), CopyOf::All, &target.open(), &quick, &Control::new()).unwrap();
        assert_eq!(again.copied.len() + again.present.len(), 3, "{what}");
        assert_eq!(origin.assert_whole(&target.open(), &what), 3);
    });
}

/// Fault 22: a listing that fails, on either side, is never a shorter list.
#[test]
fn a_listing_that_fails_fails_the_copy() {
    let origin = Origin::new();
    let (empty, _) = frail_repository();
    let quick = CopyOptions { pack_size: 64 << 10, workers: 2, ..CopyOptions::default() };
    let listings = |is_source: bool| {
        let (source, target) = (origin.frail.fork(), empty.fork());
        let (from, to) = (source.open(), target.open());
        let counted = if is_source { &source } else { &target };
        counted.plan(Counted::Listings, u64::MAX, Fault::Fails);
        copy(&from, CopyOf::All, &to, &quick, &control()).unwrap();
        counted.heal()
    };
    let (of_source, of_target) = (listings(true), listings(false));
    assert!(of_source >= 4 && of_target >= 6, "{of_source} {of_target}");
    trials(of_source + of_target, |trial| {
        let (source, target) = (origin.frail.fork(), empty.fork());
        let (from, to) = (source.open(), target.open());
        let (failing, number) =
            if trial < of_source { (&source, trial) } else { (&target, trial - of_source) };
        failing.plan(Counted::Listings, number, Fault::Fails);
        let result = copy(&from, CopyOf::All, &to, &quick, &control());
        assert!(matches!(result, Err(RepositoryError::Store { .. })), "listing {trial}: {result:?}");
        failing.heal();
        origin.assert_whole(&target.open(), &format!("listing {trial}"));
    });
}

/// A store that keeps other bytes than it was given is found out before anything refers to them.
#[test]
fn a_target_that_keeps_other_bytes_gets_no_snapshot_and_no_index_of_them() {
    let origin = Origin::new();
    let (empty, _) = frail_repository();
    let quick =
        CopyOptions { pack_size: 64 << 10, workers: 2, verify: Share::NONE, ..CopyOptions::default() };
    trials(3, |number| {
        let target = empty.fork();
        target.plan(Counted::Packs, number, Fault::Flips);
        let to = target.open();
        let error = copy(&origin.frail.open(), CopyOf::All, &to, &quick, &control()).unwrap_err();
        assert!(matches!(error.root(), RepositoryError::Damaged { what: Object::Pack, .. }), "{error:?}");
        target.heal();
        assert!(target.names("snapshots").is_empty());
        let report = copy(&origin.frail.open(), CopyOf::All, &target.open(), &quick, &control()).unwrap();
        assert_eq!(report.copied.len(), 3);
        assert_sound(&target.open());
        origin.assert_whole(&target.open(), "after a lie");
    });
}

/// A snapshot is what makes a copy: one that the store keeps otherwise than it was given is none.
#[test]
fn a_snapshot_that_the_target_keeps_otherwise_is_not_called_copied() {
    let origin = Origin::new();
    let (empty, _) = frail_repository();
    let quick = CopyOptions { pack_size: 64 << 10, workers: 2, ..CopyOptions::default() };
    trials(3, |number| {
        let target = empty.fork();
        target.plan(Counted::Snapshots, number, Fault::Flips);
        let error = copy(&origin.frail.open(), CopyOf::All, &target.open(), &quick, &control()).unwrap_err();
        assert!(matches!(error.root(), RepositoryError::Damaged { what: Object::Snapshot, .. }), "{error:?}");
        target.heal();
        // The next one tells of it, and sends it again.
        let report = copy(&origin.frail.open(), CopyOf::All, &target.open(), &quick, &control()).unwrap();
        let whole = usize::try_from(number).unwrap();
        assert_eq!((report.damaged.len(), report.present.len(), report.copied.len()), (1, whole, 3 - whole));
    });
}

/// What a prune of a client that ignores locks takes away meanwhile is not relied upon.
#[test]
fn packs_that_vanish_during_a_copy_keep_the_snapshot_out() {
    let (store, target) = in_memory();
    let source = Fixture::new();
    let content = noise(30, 600_000);
    let cuts = Cuts::Pages { page: 4096, pages_per_piece: 4 };
    store_stream(&source.repository, "/x", &content, cuts);
    copy_all(&source.repository, &target);
    let more = [content, noise(31, 600_000)].concat();
    let second = store_stream(&source.repository, "/x", &more, cuts);
    let old = store.list(FileKind::Pack, &control()).unwrap();
    let once = std::sync::Once::new();
    let for_progress = store.clone();
    let control = Control {
        progress: Some(Arc::new(move |_| {
            once.call_once(|| {
                for pack in &old {
                    for_progress.delete(FileKind::Pack, &pack.id, &Control::new()).unwrap();
                }
            });
        })),
        ..Control::new()
    };
    let error =
        copy(&source.repository, CopyOf::These(&[second]), &target, &thorough(), &control).unwrap_err();
    assert!(matches!(error.root(), RepositoryError::Missing { what: Object::Pack, .. }), "{error:?}");
    assert_eq!(target.snapshots(&Control::new()).unwrap().len(), 1);
    drop(open(&source.path(), PASSWORD));
}
