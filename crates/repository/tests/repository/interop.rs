//! Stock restic is the judge of what we write.

use std::process::Command;

use seaworthy_repository::{
    BlobKind, CheckOptions, CheckRead, Cuts, FileMeta, ParentUse, Repository, RestoreOptions, SessionOptions,
    TreeOptions, TreeOutcome,
};

use crate::common::{
    Fixture, assert_same_tree, at, control, describe, in_memory, judge, noise, odd_directory, options,
    restic_ok, restics, sha256, store_stream, store_tree,
};

fn sample() -> Vec<u8> {
    let mut content = noise(1, 3_000_000);
    content.extend(vec![0; 2_000_000]);
    content.extend(b"the quick brown fox\n".repeat(200_000));
    content.extend(noise(2, 1_234_567));
    content
}

#[test]
fn restic_reads_streams_however_they_are_cut() {
    let fixture = Fixture::new();
    let content = sample();
    for cuts in [Cuts::ContentDefined, Cuts::Rabin, Cuts::Pages { page: 8192, pages_per_piece: 4 }] {
        let id = store_stream(&fixture.repository, "/srv/data/x.dump", &content, cuts);
        for binary in restics() {
            let dumped = restic_ok(&binary, &fixture.path(), &["dump", &id.hex(), "/srv/data/x.dump"]);
            assert_eq!(sha256(&dumped), sha256(&content), "{cuts:?}");
        }
        assert_eq!(
            fixture.repository.read_file(&id, &at("/srv/data/x.dump"), 1 << 30, &control()).unwrap(),
            content
        );
    }
    store_stream(&fixture.repository, "/empty", b"", Cuts::ContentDefined);
    judge(&fixture.path());
    for binary in restics() {
        let listed = restic_ok(&binary, &fixture.path(), &["snapshots", "--json"]);
        let listed: serde_json::Value = serde_json::from_slice(&listed).unwrap();
        assert_eq!(listed.as_array().unwrap().len(), 4);
        assert_eq!(listed[0]["hostname"], "test-host");
        assert_eq!(restic_ok(&binary, &fixture.path(), &["dump", "latest", "/empty"]), b"");
        let listing = restic_ok(&binary, &fixture.path(), &["ls", "latest"]);
        assert!(String::from_utf8_lossy(&listing).contains("/empty"));
    }
}

#[test]
fn restic_restores_a_directory_as_it_was() {
    let fixture = Fixture::new();
    let source = fixture.scratch("source");
    odd_directory(&source);
    let committed = store_tree(&fixture.repository, &source, ParentUse::None);
    assert!(committed.is_complete(), "{:?}", committed.incomplete);
    judge(&fixture.path());
    for (n, binary) in restics().iter().enumerate() {
        let target = fixture.scratch(&format!("restic-{n}"));
        restic_ok(
            binary,
            &fixture.path(),
            &["restore", &committed.id.hex(), "--target", target.to_str().unwrap()],
        );
        assert_same_tree(&source, &target.join(source.strip_prefix("/").unwrap()));
    }
}

#[test]
fn we_restore_a_directory_as_it_was() {
    let fixture = Fixture::new();
    let source = fixture.scratch("source");
    odd_directory(&source);
    let committed = store_tree(&fixture.repository, &source, ParentUse::None);
    for (name, sparse, verify) in [("plain", false, true), ("sparse", true, false)] {
        let target = fixture.scratch(name);
        let restore = RestoreOptions { sparse, verify, ..RestoreOptions::default() };
        let under = at(source.to_str().unwrap());
        let summary =
            fixture.repository.restore(&committed.id, &under, &target, &restore, &control()).unwrap();
        assert!(summary.is_complete(), "{:?}", summary.problems);
        assert_same_tree(&source, &target);
        assert_eq!(summary.hardlinks, 1);
        assert!(summary.bytes_read > 0);
    }
    // The whole snapshot, from its root.
    let target = fixture.scratch("whole");
    let restore = RestoreOptions::default();
    fixture.repository.restore(&committed.id, &at("/"), &target, &restore, &control()).unwrap();
    assert_same_tree(&source, &target.join(source.strip_prefix("/").unwrap()));
}

#[test]
fn what_restic_archives_we_restore() {
    for binary in restics() {
        let fixture = Fixture::new();
        let source = fixture.scratch("source");
        odd_directory(&source);
        restic_ok(&binary, &fixture.path(), &["backup", "-q", source.to_str().unwrap()]);
        let (id, _) = fixture.repository.snapshots(&control()).unwrap().pop().unwrap();
        let target = fixture.scratch("target");
        let under = at(source.to_str().unwrap());
        let restore = RestoreOptions::default();
        let summary = fixture.repository.restore(&id, &under, &target, &restore, &control()).unwrap();
        assert!(summary.is_complete(), "{:?}", summary.problems);
        assert_same_tree(&source, &target);
        let check = CheckOptions { read: CheckRead::All, ..CheckOptions::default() };
        let report = fixture.repository.check(&check, &control()).unwrap();
        assert!(report.is_sound(), "{:?}", report.findings);
    }
}

/// With restic's cuts, the same directory has the same trees and pieces as in restic's own snapshot.
#[test]
fn the_same_directory_has_the_same_tree_as_restics() {
    let fixture = Fixture::new();
    let source = fixture.scratch("source");
    odd_directory(&source);
    let session = fixture.repository.begin(options(source.to_str().unwrap()), &control()).unwrap();
    let tree = TreeOptions { cuts: Some(std::sync::Arc::new(|_, _| Cuts::Rabin)), ..TreeOptions::default() };
    session.tree(&source, &tree, &mut |_| {}).unwrap();
    let ours = session.commit(&control()).unwrap();
    for binary in restics() {
        let output = Command::new(&binary)
            .args(["backup", "-q", "--force", source.to_str().unwrap()])
            .env("RESTIC_REPOSITORY", fixture.path())
            .env("RESTIC_PASSWORD", crate::common::PASSWORD)
            .env("TZ", "UTC")
            .output()
            .unwrap();
        assert!(output.status.success());
        let snapshots = fixture.repository.snapshots(&control()).unwrap();
        let theirs = snapshots.last().unwrap().0;
        assert_ne!(theirs, ours.id);
        let under = at(source.to_str().unwrap());
        let subtree = |id| fixture.repository.node(&id, &under, &control()).unwrap().subtree;
        assert_eq!(subtree(theirs), subtree(ours.id));
    }
}

#[test]
fn an_unchanged_directory_is_not_read_again_and_a_changed_file_is() {
    let fixture = Fixture::new();
    let source = fixture.scratch("source");
    odd_directory(&source);
    let first = store_tree(&fixture.repository, &source, ParentUse::Automatic);
    let second = store_tree(&fixture.repository, &source, ParentUse::Automatic);
    assert_eq!(second.parent, Some(first.id));
    assert_eq!(second.summary.files_unmodified, first.summary.total_files_processed);
    assert_eq!(second.summary.data_blobs, 0);
    // Not the root of the snapshot: it has the directories above, which other programs change.
    let under = at(source.to_str().unwrap());
    let trees =
        [first.id, second.id].map(|id| fixture.repository.node(&id, &under, &control()).unwrap().subtree);
    assert_eq!(trees[0], trees[1]);

    // Same size and mtime: the change is seen nevertheless, because ctime tells.
    let path = source.join("text");
    let before = std::fs::metadata(&path).unwrap();
    let mut content = std::fs::read(&path).unwrap();
    content[1000] ^= 1;
    std::fs::write(&path, &content).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_times(std::fs::FileTimes::new().set_modified(before.modified().unwrap())).unwrap();
    let third = store_tree(&fixture.repository, &source, ParentUse::Automatic);
    assert_eq!(third.summary.files_changed, 1);
    let stored =
        fixture.repository.read_file(&third.id, &at(path.to_str().unwrap()), 1 << 30, &control()).unwrap();
    assert_eq!(sha256(&stored), sha256(&content));
    judge(&fixture.path());
}

#[test]
fn the_observer_is_told_every_entry_with_the_pieces_that_were_stored() {
    let fixture = Fixture::new();
    let source = fixture.scratch("source");
    odd_directory(&source);
    let _socket = std::os::unix::net::UnixListener::bind(source.join("socket")).unwrap();
    for parent in [ParentUse::None, ParentUse::Automatic] {
        let options = SessionOptions { parent, ..options(source.to_str().unwrap()) };
        let session = fixture.repository.begin(options, &control()).unwrap();
        let mut seen = std::collections::BTreeMap::new();
        let report = session
            .tree(&source, &TreeOptions::default(), &mut |event| {
                let pieces = match event.outcome {
                    TreeOutcome::File { pieces, from_parent, changed_while_read, .. } => {
                        assert_eq!(from_parent, parent == ParentUse::Automatic);
                        assert!(!changed_while_read);
                        Some(pieces.to_vec())
                    }
                    TreeOutcome::Directory | TreeOutcome::Special | TreeOutcome::SocketSkipped => None,
                    other => panic!("{other:?}"),
                };
                assert!(seen.insert(event.path.to_vec(), (event.node.unwrap().clone(), pieces)).is_none());
            })
            .unwrap();
        session.commit(&control()).unwrap();
        assert_eq!(report.sockets, 1);
        let mut expected: Vec<Vec<u8>> = describe(&source).into_keys().collect();
        expected.push(Vec::new());
        expected.sort();
        assert_eq!(seen.keys().cloned().collect::<Vec<_>>(), expected);
        for (path, (node, pieces)) in seen {
            use std::os::unix::ffi::OsStrExt as _;
            let Some(pieces) = pieces else { continue };
            let content = std::fs::read(source.join(std::ffi::OsStr::from_bytes(&path))).unwrap();
            assert_eq!(node.size, content.len() as u64);
            let mut rest = &content[..];
            for (length, id) in pieces {
                let (piece, after) = rest.split_at(length as usize);
                assert_eq!(seaworthy_repository::Id::of(piece).0, id);
                rest = after;
            }
            assert!(rest.is_empty());
        }
    }
}

#[test]
fn streams_and_directories_share_a_snapshot() {
    let fixture = Fixture::new();
    let source = fixture.scratch("source");
    odd_directory(&source);
    let session = fixture.repository.begin(options("/srv/shop"), &control()).unwrap();
    let place = TreeOptions { at: Some(at("/srv/shop/files")), ..TreeOptions::default() };
    std::thread::scope(|scope| {
        scope.spawn(|| session.tree(&source, &place, &mut |_| {}).unwrap());
        for n in 0..4u64 {
            let session = &session;
            scope.spawn(move || {
                let path = at(&format!("/srv/shop/tables/{n}"));
                let mut file = session.file(&path, FileMeta::default(), Cuts::ContentDefined).unwrap();
                for part in noise(n, 3_000_000).chunks(70_001) {
                    file.write(part).unwrap();
                }
                file.finish().unwrap();
            });
        }
    });
    let mut file =
        session.file(&at("/.seaworthy/witness.json"), FileMeta::default(), Cuts::ContentDefined).unwrap();
    file.write(b"{}").unwrap();
    file.finish().unwrap();
    let id = session.commit(&control()).unwrap().id;
    judge(&fixture.path());
    for n in 0..4u64 {
        let path = at(&format!("/srv/shop/tables/{n}"));
        assert_eq!(
            fixture.repository.read_file(&id, &path, 1 << 30, &control()).unwrap(),
            noise(n, 3_000_000)
        );
    }
    let target = fixture.scratch("target");
    let restore = RestoreOptions::default();
    fixture.repository.restore(&id, &at("/srv/shop/files"), &target, &restore, &control()).unwrap();
    assert_same_tree(&source, &target);
}

#[test]
fn a_large_file_is_cut_alike_as_file_and_as_stream() {
    let fixture = Fixture::new();
    let source = fixture.scratch("source");
    std::fs::create_dir(&source).unwrap();
    let mut content = noise(9, 40 << 20);
    content.extend(vec![7; 30 << 20]);
    std::fs::write(source.join("large"), &content).unwrap();
    let tree = store_tree(&fixture.repository, &source, ParentUse::None);
    let stream = store_stream(&fixture.repository, "/large", &content, Cuts::ContentDefined);
    let path = at(source.join("large").to_str().unwrap());
    let a = fixture.repository.node(&tree.id, &path, &control()).unwrap();
    let b = fixture.repository.node(&stream, &at("/large"), &control()).unwrap();
    assert_eq!(a.content, b.content);
    assert_eq!(a.size, content.len() as u64);
    let target = fixture.scratch("target");
    let restore = RestoreOptions::default();
    fixture
        .repository
        .restore(&tree.id, &at(source.to_str().unwrap()), &target, &restore, &control())
        .unwrap();
    assert_same_tree(&source, &target);
    judge(&fixture.path());
}

/// Nothing in the design is local: the same through a store that has no files.
#[test]
fn any_object_store_will_do() {
    let (store, repository) = in_memory();
    let content = sample();
    let id = store_stream(&repository, "/x", &content, Cuts::ContentDefined);
    let repository =
        Repository::open(&store, crate::common::PASSWORD.as_bytes(), &Default::default(), &control())
            .unwrap();
    assert_eq!(repository.read_file(&id, &at("/x"), 1 << 30, &control()).unwrap(), content);
    let check = CheckOptions { read: CheckRead::All, ..CheckOptions::default() };
    assert!(repository.check(&check, &control()).unwrap().is_sound());
    let dir = tempfile::tempdir().unwrap();
    let restore = RestoreOptions::default();
    let summary = repository.restore(&id, &at("/"), &dir.path().join("t"), &restore, &control()).unwrap();
    assert!(summary.is_complete());
    assert_eq!(sha256(&std::fs::read(dir.path().join("t/x")).unwrap()), sha256(&content));
    assert_eq!(store.list(seaworthy_repository::FileKind::Lock, &control()).unwrap(), []);
}

/// Traps 13 and 19: pieces that several workers meet at once are stored once, and lie in more than one open pack.
#[test]
fn the_same_piece_from_many_threads_is_stored_once() {
    let fixture = Fixture::new();
    let session = fixture.repository.begin(options("/x"), &control()).unwrap();
    let content = noise(3, 4_000_000);
    std::thread::scope(|scope| {
        for n in 0..6 {
            let (session, content) = (&session, &content);
            scope.spawn(move || {
                let path = at(&format!("/x/{n}"));
                let mut file = session.file(&path, FileMeta::default(), Cuts::ContentDefined).unwrap();
                file.write(content).unwrap();
                file.finish().unwrap();
            });
        }
    });
    let committed = session.commit(&control()).unwrap();
    assert!(committed.summary.data_added < 4_200_000, "{}", committed.summary.data_added);
    let index = fixture.repository.index(&control()).unwrap();
    let ids = index.ids(BlobKind::Data).unwrap();
    assert!(ids.iter().all(|id| index.places(BlobKind::Data, id).unwrap().len() == 1));
    judge(&fixture.path());
}

#[test]
fn excluded_names_are_left_out_and_told() {
    let fixture = Fixture::new();
    let source = fixture.scratch("source");
    odd_directory(&source);
    let session = fixture.repository.begin(options(source.to_str().unwrap()), &control()).unwrap();
    let tree = TreeOptions { excludes: vec!["*.txt".into(), "dir/*".into()], ..TreeOptions::default() };
    let report = session.tree(&source, &tree, &mut |_| {}).unwrap();
    assert_eq!(report.excluded, 4);
    let committed = session.commit(&control()).unwrap();
    // Left out on request is complete; `.gitignore` asks for nothing.
    assert!(committed.is_complete());
    let path = |name: &str| at(source.join(name).to_str().unwrap());
    assert!(fixture.repository.node(&committed.id, &path("a.txt"), &control()).is_err());
    assert!(fixture.repository.node(&committed.id, &path("text"), &control()).is_ok());
    judge(&fixture.path());
}

/// A file system that is mounted below the root is left out where that is asked for: its directory is stored, empty, and told.
#[test]
fn a_mount_point_is_stored_empty_and_told_apart_from_a_directory() {
    use std::os::unix::fs::MetadataExt as _;
    let fixture = Fixture::new();
    // No other directory has mounts below it wherever this runs, and nothing in it is read: it holds devices.
    let root = std::path::Path::new("/dev");
    let device = |path: &std::path::Path| std::fs::metadata(path).unwrap().dev();
    assert_ne!(device(&root.join("pts")), device(root), "nothing is mounted, and this proves nothing");
    let session = fixture.repository.begin(options("/dev"), &control()).unwrap();
    let tree = TreeOptions { one_file_system: true, ..TreeOptions::default() };
    let mut seen = Vec::new();
    let report = session
        .tree(root, &tree, &mut |event| {
            if let TreeOutcome::MountPoint = event.outcome {
                assert!(event.node.is_some());
                seen.push(event.path.to_vec());
            } else {
                assert!(!event.path.starts_with(b"pts"), "{event:?}");
            }
        })
        .unwrap();
    assert!(seen.contains(&b"pts".to_vec()), "{seen:?}");
    assert_eq!(report.mount_points, seen.len() as u64);
    let committed = session.commit(&control()).unwrap();
    let stored = fixture.repository.node(&committed.id, &at("/dev/pts"), &control()).unwrap();
    assert_eq!(stored.subtree, Some(seaworthy_repository::Id::of(seaworthy_repository::tree::EMPTY)));
    judge(&fixture.path());
}
