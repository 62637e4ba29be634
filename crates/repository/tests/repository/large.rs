//! A directory whose tree is too large to be held: made, proven, judged and read back from disk.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use seaworthy_repository::{
    BlobKind, CheckOptions, CheckRead, Cuts, FaultKind, FileKind, FileMeta, Id, Object, OpenOptions,
    ParentUse, Repository, RestoreOptions, Store, open_store,
};

use crate::common::{
    Fixture, PASSWORD, assert_same_tree, at, control, init_options, judge, options, restic_ok, restics,
    store_tree,
};

/// Enough entries for 10 MB of JSON: long names make it few.
const FILES: usize = 12_000;

fn large_directory(path: &Path) {
    std::fs::create_dir(path).unwrap();
    for n in 0..FILES {
        let name = format!("{n:06}-{}", "ö<".repeat(60));
        if n % 1000 == 500 {
            std::fs::create_dir(path.join(&name)).unwrap();
            std::fs::write(path.join(&name).join("inner"), n.to_le_bytes()).unwrap();
        } else if n % 1000 == 501 {
            std::os::unix::fs::symlink("nowhere", path.join(&name)).unwrap();
        } else {
            std::fs::write(path.join(&name), if n % 10 == 0 { &b"x"[..] } else { b"" }).unwrap();
        }
    }
}

fn with_scratch(fixture: &Fixture) -> Repository {
    let store = open_store(fixture.path()).unwrap();
    let options = OpenOptions { scratch: Some(fixture.scratch("lists")), ..OpenOptions::default() };
    Repository::open(&store, PASSWORD.as_bytes(), &options, &control()).unwrap()
}

#[test]
fn a_directory_that_is_too_large_to_be_held_is_as_any_other() {
    let fixture = Fixture::new();
    let source = fixture.scratch("source");
    large_directory(&source);
    let under = at(source.to_str().unwrap());
    // With lists on disk, and without.
    for repository in [with_scratch(&fixture), fixture.reopen()] {
        let first = store_tree(&repository, &source, ParentUse::None);
        let second = store_tree(&repository, &source, ParentUse::Automatic);
        assert!(first.is_complete() && second.is_complete());
        assert_eq!(second.summary.files_unmodified, first.summary.total_files_processed);
        assert_eq!((second.summary.dirs_unmodified, second.summary.dirs_changed), (13, 0));
        let subtree = |id| repository.node(&id, &under, &control()).unwrap().subtree.unwrap();
        let tree = subtree(first.id);
        assert_eq!(tree, subtree(second.id));
        let index = repository.index(&control()).unwrap();
        let places = index.places(BlobKind::Tree, &tree).unwrap();
        assert_eq!(places.len(), 1);
        assert!(places[0].blob.plain_length() > 8 << 20, "{}", places[0].blob.plain_length());

        let mut entries = 0;
        repository
            .list(&first.id, &under, &control(), |_| {
                entries += 1;
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(entries, 1 + FILES + FILES / 1000);
        // One that changed, before thousands that did not.
        std::fs::write(source.join(format!("{:06}-{}", 0, "ö<".repeat(60))), b"changed").unwrap();
        let third = store_tree(&repository, &source, ParentUse::Automatic);
        assert_eq!((third.summary.files_changed, third.summary.files_new), (1, 0));
        assert_eq!(third.summary.files_unmodified + 1, first.summary.total_files_processed);
        let first = third;

        let check = CheckOptions { read: CheckRead::All, ..CheckOptions::default() };
        let report = repository.check(&check, &control()).unwrap();
        assert!(report.is_sound(), "{:?}", report.findings);
        let target = fixture.scratch("target");
        let summary =
            repository.restore(&first.id, &under, &target, &RestoreOptions::default(), &control()).unwrap();
        assert!(summary.is_complete(), "{:?}", summary.problems);
        assert_same_tree(&source, &target);
        std::fs::remove_dir_all(&target).unwrap();
    }
    judge(&fixture.path());
    for binary in restics() {
        // What we wrote is, byte for byte, what restic makes of the same directory. Our times are in UTC.
        let before = fixture.repository.snapshots(&control()).unwrap();
        let output = std::process::Command::new(&binary)
            .args(["backup", "-q", "--force", source.to_str().unwrap()])
            .env("RESTIC_REPOSITORY", fixture.path())
            .env("RESTIC_PASSWORD", PASSWORD)
            .env("TZ", "UTC")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let after = fixture.repository.snapshots(&control()).unwrap();
        assert_eq!(after.len(), before.len() + 1);
        let subtree = |id| fixture.repository.node(&id, &under, &control()).unwrap().subtree;
        let theirs = after.last().unwrap().0;
        assert_eq!(subtree(theirs), subtree(before.last().unwrap().0));
        let listing = restic_ok(&binary, &fixture.path(), &["ls", "latest", source.to_str().unwrap()]);
        assert!(listing.iter().filter(|b| **b == b'\n').count() > FILES);
        let target = fixture.scratch("target");
        let restore = RestoreOptions::default();
        let summary = fixture.repository.restore(&theirs, &under, &target, &restore, &control()).unwrap();
        assert!(summary.is_complete(), "{:?}", summary.problems);
        assert_same_tree(&source, &target);
        std::fs::remove_dir_all(&target).unwrap();
    }
}

#[test]
fn damage_of_a_tree_that_is_too_large_to_be_held_is_found_and_nothing_of_it_is_used() {
    let fixture = Fixture::new();
    let source = fixture.scratch("source");
    large_directory(&source);
    let repository = with_scratch(&fixture);
    let first = store_tree(&repository, &source, ParentUse::None);
    let under = at(source.to_str().unwrap());
    let tree = repository.node(&first.id, &under, &control()).unwrap().subtree.unwrap();
    let place = repository.index(&control()).unwrap().places(BlobKind::Tree, &tree).unwrap()[0];
    let pack = fixture.path().join("data").join(&place.pack.hex()[..2]).join(place.pack.hex());
    let sound = std::fs::read(&pack).unwrap();
    let length = u64::from(place.blob.length);
    std::fs::set_permissions(&pack, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let check = |read| {
        let check = CheckOptions { read, ..CheckOptions::default() };
        with_scratch(&fixture).check(&check, &control()).unwrap()
    };
    let file = std::fs::File::options().write(true).open(&pack).unwrap();
    for bit in [0, 20, length / 2, length - 20, length - 1] {
        file.write_all_at(&sound, 0).unwrap();
        file.write_all_at(&[sound[usize::try_from(bit).unwrap()] ^ 4], bit).unwrap();
        let repository = with_scratch(&fixture);
        let mut seen = 0;
        let listed = repository.list(&first.id, &under, &control(), |_| {
            seen += 1;
            std::ops::ControlFlow::Continue(())
        });
        assert!(matches!(listed.unwrap_err().root(), seaworthy_repository::RepositoryError::Damaged { .. }));
        assert_eq!(seen, 1, "entries of a tree that is not sound were given at byte {bit}");
        let target = fixture.scratch("target");
        repository
            .restore(&first.id, &under, &target, &RestoreOptions::default(), &control())
            .expect_err("a damaged tree");
        std::fs::remove_dir_all(&target).ok();
        for read in [CheckRead::None, CheckRead::All] {
            let report = check(read);
            assert!(!report.snapshots[0].1, "byte {bit}, {read:?}");
            assert!(report.findings.iter().any(|f| f.kind == FaultKind::Damaged), "{:?}", report.findings);
        }
    }
    file.write_all_at(&sound, 0).unwrap();
    assert!(check(CheckRead::All).is_sound());
    file.set_len(length / 2).unwrap();
    let report = check(CheckRead::All);
    assert!(report.findings.iter().any(|f| f.what == Object::Pack && f.id == place.pack), "{report:?}");
    drop(file);
    std::fs::remove_file(&pack).unwrap();
    let report = check(CheckRead::None);
    assert!(report.findings.iter().any(|f| f.kind == FaultKind::Missing), "{report:?}");
    assert!(!report.snapshots[0].1);
    // A parent only saves time: without it, everything is read, and the tree is stored again.
    let mut bytes = sound;
    bytes[usize::try_from(length / 2).unwrap()] ^= 4;
    std::fs::write(&pack, bytes).unwrap();
    let repository = with_scratch(&fixture);
    let again = store_tree(&repository, &source, ParentUse::Automatic);
    assert_eq!(again.summary.files_unmodified, 0);
    let restored = RestoreOptions::default();
    let target = fixture.scratch("again");
    let summary = repository.restore(&again.id, &under, &target, &restored, &control()).unwrap();
    assert!(summary.is_complete(), "{:?}", summary.problems);
}

#[test]
fn a_large_tree_goes_to_any_object_store_in_parts() {
    let objects = Arc::new(object_store::memory::InMemory::new());
    let store = Store::new(objects).unwrap();
    Repository::init(&store, PASSWORD.as_bytes(), &init_options(), &control()).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let lists = scratch.path().join("lists");
    let open = OpenOptions { scratch: Some(lists.clone()), ..OpenOptions::default() };
    let repository = Repository::open(&store, PASSWORD.as_bytes(), &open, &control()).unwrap();
    let session = repository.begin(options("/x"), &control()).unwrap();
    // One file of half a million pieces that do not repeat: its list does not compress, and has more than one part.
    let mut file = session
        .file(&at("/x/large"), FileMeta::default(), Cuts::Pages { page: 64, pages_per_piece: 1 })
        .unwrap();
    let mut content = Vec::with_capacity(64 * 1024);
    for n in 0..600_000u64 {
        content.extend_from_slice(&Id::of(&n.to_le_bytes()).0);
        content.extend_from_slice(&[0; 32]);
        if content.len() >= 64 * 1024 {
            file.write(&content).unwrap();
            content.clear();
        }
    }
    file.write(&content).unwrap();
    let stored = file.finish().unwrap();
    let committed = session.commit(&control()).unwrap();
    let largest = store.list(FileKind::Pack, &control()).unwrap().iter().map(|pack| pack.size).max().unwrap();
    assert!(largest > 17 << 20, "{largest} bytes in {} pieces", stored.pieces.len());
    let node = repository.node(&committed.id, &at("/x/large"), &control()).unwrap();
    let pieces: Vec<Id> = stored.pieces.iter().map(|(_, id)| Id(*id)).collect();
    assert_eq!(node.content.unwrap(), pieces);
    let check = CheckOptions { read: CheckRead::All, ..CheckOptions::default() };
    let report = repository.check(&check, &control()).unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
    // It was made, its files had no names.
    assert_eq!(std::fs::read_dir(&lists).unwrap().count(), 0);
}
