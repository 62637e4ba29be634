//! What is asked of a snapshot before others are removed because of it.

use seaworthy_repository::{
    FileKind, ForgetOptions, LockKind, Object, ParentUse, RepositoryError, SnapshotId,
};

use crate::common::{Fixture, control, files, noise, odd_directory, overwrite, store_tree};

/// A repository with a tree of everything, and a second snapshot of something else.
fn two() -> (Fixture, SnapshotId, SnapshotId) {
    let fixture = Fixture::new();
    let source = fixture.scratch("source");
    odd_directory(&source);
    std::fs::write(source.join("large"), noise(7, 900_000)).unwrap();
    let first = store_tree(&fixture.repository, &source, ParentUse::None).id;
    let other = fixture.scratch("other");
    std::fs::create_dir_all(other.join("deep")).unwrap();
    std::fs::write(other.join("deep/only-here"), noise(8, 300_000)).unwrap();
    let second = store_tree(&fixture.repository, &other, ParentUse::None).id;
    (fixture, first, second)
}

#[test]
fn all_that_a_snapshot_needs_is_looked_for() {
    let (fixture, first, second) = two();
    let repository = fixture.reopen();
    let both = repository.ensure_whole(&[first, second], &control()).unwrap();
    let one = repository.ensure_whole(&[second], &control()).unwrap();
    assert!(one.blobs >= 3 && one.packs >= 1, "{one:?}");
    assert!(both.blobs > one.blobs && both.packs > one.packs, "{both:?}, {one:?}");
    assert_eq!(repository.ensure_whole(&[], &control()).unwrap().blobs, 0);
    let unknown = SnapshotId::parse(&"0".repeat(64)).unwrap();
    assert!(repository.ensure_whole(&[unknown], &control()).is_err());

    // Whatever file one of the two needs: without it, or with half of it, exactly those that need it are not whole.
    let mut concerned = [0, 0];
    for kind in ["data", "index", "snapshots"] {
        for path in files(&fixture.path().join(kind)) {
            let bytes = std::fs::read(&path).unwrap();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            std::fs::remove_file(&path).unwrap();
            let without = [first, second].map(|id| fixture.reopen().ensure_whole(&[id], &control()));
            std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
            let cut = [first, second].map(|id| fixture.reopen().ensure_whole(&[id], &control()));
            overwrite(&path, &bytes);
            for (which, id) in [first, second].iter().enumerate() {
                let is_its = match kind {
                    "snapshots" => name == id.hex(),
                    // An index that is damaged leaves nobody certain.
                    "index" => true,
                    _ => without[which].is_err(),
                };
                if is_its {
                    concerned[which] += 1;
                    assert!(cut[which].is_err(), "{kind} {name} was cut in half");
                }
                if kind == "data" && without[which].is_err() {
                    let error = without[which].as_ref().unwrap_err();
                    let is_told =
                        matches!(error, RepositoryError::Missing { what: Object::Pack, id } if *id == name);
                    // A pack of trees is missed when a tree is read.
                    assert!(is_told || error.to_string().contains(&name), "{error}");
                }
            }
        }
    }
    assert!(concerned.iter().all(|count| *count >= 3), "{concerned:?}");
    repository.ensure_whole(&[first, second], &control()).unwrap();
}

#[test]
fn what_was_seen_under_a_lock_is_removed_under_it_and_only_under_an_exclusive_one() {
    let (fixture, first, second) = two();
    let repository = fixture.reopen();
    let shared = repository.lock(LockKind::Shared, &control()).unwrap();
    let refused = repository.forget_under(&shared, &[first], &ForgetOptions::default(), &control());
    assert!(matches!(refused, Err(RepositoryError::Refused { .. })), "{refused:?}");
    shared.release().unwrap();
    let exclusive = repository.lock(LockKind::Exclusive, &control()).unwrap();
    let report =
        repository.forget_under(&exclusive, &[first], &ForgetOptions::default(), &control()).unwrap();
    assert_eq!((report.removed.len(), report.left), (1, 1));
    // The last one stays, and the lock is still ours.
    let last = repository.forget_under(&exclusive, &[second], &ForgetOptions::default(), &control());
    assert!(matches!(last, Err(RepositoryError::Refused { .. })), "{last:?}");
    assert!(fixture.reopen().lock(LockKind::Shared, &control()).is_err());
    exclusive.release().unwrap();
    assert_eq!(repository.store().list(FileKind::Snapshot, &control()).unwrap().len(), 1);
    repository.ensure_whole(&[second], &control()).unwrap();
}

/// A machine that was asleep does not notice that its lock was taken for that of somebody dead: the file tells.
#[test]
fn under_a_lock_whose_file_is_gone_nothing_is_removed() {
    let (fixture, first, second) = two();
    let repository = fixture.reopen();
    let exclusive = repository.lock(LockKind::Exclusive, &control()).unwrap();
    for lock in files(&fixture.path().join("locks")) {
        std::fs::remove_file(lock).unwrap();
    }
    exclusive.ensure().unwrap();
    let refused = repository.forget_under(&exclusive, &[first], &ForgetOptions::default(), &control());
    assert!(matches!(refused, Err(RepositoryError::Missing { what: Object::Lock, .. })), "{refused:?}");
    assert_eq!(repository.store().list(FileKind::Snapshot, &control()).unwrap().len(), 2);
    repository.ensure_whole(&[first, second], &control()).unwrap();
}
