//! A backup into a repository that is damaged: nothing new rests on what is known to be damaged, or was just seen to be.

use std::path::PathBuf;

use seaworthy_repository::{
    BlobKind, Committed, Id, ParentUse, Repository, RestoreOptions, SessionOptions, TreeOptions,
};

use crate::common::{
    Fixture, assert_same_tree, at, control, files, judge, noise, options, overwrite, store_tree,
};

/// A repository, and a directory with others in it that was stored there once.
fn stored() -> (Fixture, PathBuf, Committed) {
    let fixture = Fixture::new();
    let source = fixture.scratch("source");
    for name in ["a", "b/c"] {
        std::fs::create_dir_all(source.join(name)).unwrap();
        std::fs::write(source.join(name).join("file"), noise(name.len() as u64, 300_000)).unwrap();
    }
    let first = store_tree(&fixture.repository, &source, ParentUse::None);
    (fixture, source, first)
}

/// Every pack that holds blobs of a kind, with the places of these in it: the file, and each blob's first byte and length.
fn packs(fixture: &Fixture, kind: BlobKind) -> Vec<(Id, PathBuf, u32, u32)> {
    let index = fixture.repository.index(&control()).unwrap();
    let ids = index.ids(kind).unwrap();
    let places = ids.iter().map(|id| index.find(kind, id).unwrap().unwrap());
    places
        .map(|place| {
            let path = fixture.path().join("data").join(&place.pack.hex()[..2]).join(place.pack.hex());
            (place.pack, path, place.blob.offset, place.blob.length)
        })
        .collect()
}

/// The next backup of the same directory, and the packs that it has found to be damaged.
fn again(repository: &Repository, source: &std::path::Path, distrust: bool) -> (Committed, Vec<Id>) {
    let options = SessionOptions { distrust, ..options(source.to_str().unwrap()) };
    let session = repository.begin(options, &control()).unwrap();
    session.tree(source, &TreeOptions::default(), &mut |_| {}).unwrap();
    let committed = session.commit(&control()).unwrap();
    (committed, session.damaged_packs())
}

/// Whether a snapshot of the directory comes back as it is.
fn comes_back(fixture: &Fixture, source: &std::path::Path, made: &Committed) -> bool {
    let target = fixture.scratch("target");
    let restore = RestoreOptions::default();
    let under = at(source.to_str().unwrap());
    let restored = fixture.reopen().restore(&made.id, &under, &target, &restore, &control());
    let is_complete = restored.is_ok_and(|summary| summary.is_complete());
    if is_complete {
        assert_same_tree(source, &target);
    }
    std::fs::remove_dir_all(&target).ok();
    is_complete
}

#[test]
fn a_tree_that_could_not_be_authenticated_is_stored_again() {
    let (fixture, ..) = stored();
    let count = packs(&fixture, BlobKind::Tree).len();
    assert!(count >= 6, "{count}");
    let mut told = 0;
    for number in 0..count {
        let (fixture, source, first) = stored();
        let (pack, path, offset, length) = packs(&fixture, BlobKind::Tree).swap_remove(number);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[(offset + length / 2) as usize] ^= 1;
        overwrite(&path, &bytes);
        let repository = fixture.reopen();
        let (second, damaged) = again(&repository, &source, false);
        assert_eq!(second.parent, Some(first.id));
        assert!(comes_back(&fixture, &source, &second), "tree {number}");
        assert_eq!(damaged, [pack], "tree {number}");
        told += 1;
    }
    assert_eq!(told, count);
}

#[test]
fn what_lies_in_a_pack_that_is_too_short_is_stored_again() {
    for kind in [BlobKind::Data, BlobKind::Tree] {
        let (fixture, source, _) = stored();
        let (pack, path, ..) = packs(&fixture, kind).swap_remove(0);
        let bytes = std::fs::read(&path).unwrap();
        // A single byte, and half of it.
        for length in [bytes.len() - 1, bytes.len() / 2] {
            overwrite(&path, &bytes[..length]);
            let (made, damaged) = again(&fixture.reopen(), &source, false);
            assert!(comes_back(&fixture, &source, &made), "{kind:?} {length}");
            assert!(damaged.contains(&pack), "{kind:?} {length}: {damaged:?}");
        }
        overwrite(&path, &bytes);
        judge(&fixture.path());
    }
}

/// What is not read cannot be seen to be damaged: where it is known, everything that is relied on is read.
#[test]
fn in_a_repository_that_is_not_trusted_what_is_damaged_is_found_and_stored_again() {
    for distrust in [false, true] {
        let (fixture, source, _) = stored();
        let (pack, path, offset, length) = packs(&fixture, BlobKind::Data).swap_remove(0);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[(offset + length / 2) as usize] ^= 1;
        overwrite(&path, &bytes);
        let (made, damaged) = again(&fixture.reopen(), &source, distrust);
        assert_eq!(comes_back(&fixture, &source, &made), distrust);
        assert_eq!(damaged, if distrust { vec![pack] } else { Vec::new() });
        // Once it lies there soundly, nothing is stored any more.
        if distrust {
            let before = files(&fixture.path().join("data")).len();
            let (third, _) = again(&fixture.reopen(), &source, true);
            assert!(comes_back(&fixture, &source, &third));
            assert_eq!(third.summary.data_blobs, 0);
            assert!(files(&fixture.path().join("data")).len() <= before + 1, "only trees are new");
        }
    }
}
