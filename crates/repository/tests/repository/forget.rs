//! Removing snapshots: the named ones, and no others, and never silently the last.

use std::sync::Arc;

use seaworthy_repository::{
    Control, Cuts, FileMeta, ForgetOptions, Id, LockKind, Repository, RepositoryError, SessionOptions,
    SnapshotId, Time,
};

use crate::common::{
    Fixture, PASSWORD, at, control, files, golden, init_options, judge, open, options, restic_ok, restics,
    store_stream,
};
use crate::copy::trials;
use crate::frail::{Counted, Fault, Frail};

fn forget(repository: &Repository, ids: &[SnapshotId]) -> seaworthy_repository::Result<Vec<SnapshotId>> {
    let report = repository.forget(ids, &ForgetOptions::default(), &control())?;
    Ok(report.removed.into_iter().map(|(id, _)| id).collect())
}

fn ids(repository: &Repository) -> Vec<SnapshotId> {
    repository.snapshots(&control()).unwrap().into_iter().map(|(id, _)| id).collect()
}

/// Snapshots of the seconds after each other.
fn snapshots(repository: &Repository, count: i64) -> Vec<SnapshotId> {
    (0..count)
        .map(|n| {
            let options =
                SessionOptions { time: Some(Time::from_unix(1_700_000_000 + n, 0)), ..options("/x") };
            let session = repository.begin(options, &control()).unwrap();
            let mut file = session
                .file(&at("/x"), FileMeta::default(), Cuts::Pages { page: 512, pages_per_piece: 1 })
                .unwrap();
            file.write(&n.to_le_bytes().repeat(200)).unwrap();
            file.finish().unwrap();
            session.commit(&control()).unwrap().id
        })
        .collect()
}

#[test]
fn the_named_snapshots_go_and_the_others_stay() {
    let fixture = Fixture::new();
    let all = snapshots(&fixture.repository, 5);
    assert_eq!(forget(&fixture.repository, &[all[3], all[0], all[3]]).unwrap(), [all[0], all[3]]);
    assert_eq!(ids(&fixture.repository), [all[1], all[2], all[4]]);
    assert_eq!(forget(&fixture.repository, &[]).unwrap(), []);
    judge(&fixture.path());
    for binary in restics() {
        for (n, id) in [(1i64, all[1]), (2, all[2]), (4, all[4])] {
            let dumped = restic_ok(&binary, &fixture.path(), &["dump", &id.hex(), "/x"]);
            assert_eq!(dumped, n.to_le_bytes().repeat(200));
        }
    }
    assert!(files(&fixture.path().join("locks")).is_empty());
}

#[test]
fn an_id_that_is_not_there_or_unreadable_keeps_all_of_them() {
    let fixture = Fixture::new();
    let all = snapshots(&fixture.repository, 4);
    let error = forget(&fixture.repository, &[all[0], Id::of(b"nobody")]).unwrap_err();
    assert!(matches!(error, RepositoryError::Missing { .. }), "{error}");
    let path = fixture.path().join("snapshots").join(all[1].hex());
    let sound = std::fs::read(&path).unwrap();
    crate::common::overwrite(&path, b"damaged");
    let error = forget(&fixture.repository, &[all[0], all[1]]).unwrap_err();
    assert!(matches!(error, RepositoryError::Damaged { .. }), "{error}");
    crate::common::overwrite(&path, &sound);
    assert_eq!(ids(&fixture.repository), all);
    // One that nobody named may be damaged.
    crate::common::overwrite(&path, b"damaged");
    assert_eq!(forget(&fixture.repository, &[all[0]]).unwrap(), [all[0]]);
}

#[test]
fn the_last_snapshots_that_can_be_read_stay_unless_that_is_allowed() {
    let fixture = Fixture::new();
    let all = snapshots(&fixture.repository, 3);
    assert!(matches!(forget(&fixture.repository, &all), Err(RepositoryError::Refused { .. })));
    // A ruin is not something that is left.
    crate::common::overwrite(&fixture.path().join("snapshots").join(all[0].hex()), b"damaged");
    let error = forget(&fixture.repository, &all[1..]).unwrap_err();
    assert!(error.to_string().contains("none of the 1 snapshots that would be left"), "{error}");
    assert_eq!(files(&fixture.path().join("snapshots")).len(), 3);
    let allowed = ForgetOptions { may_leave_none: true };
    let report = fixture.repository.forget(&all[1..], &allowed, &control()).unwrap();
    assert_eq!((report.removed.len(), report.left), (2, 1));
}

#[test]
fn nothing_is_removed_beside_a_backup() {
    let fixture = Fixture::new();
    let all = snapshots(&fixture.repository, 2);
    let session = fixture.repository.begin(options("/y"), &control()).unwrap();
    assert!(matches!(forget(&fixture.repository, &all[..1]), Err(RepositoryError::Locked { .. })));
    session.abort().unwrap();
    let lock = fixture.repository.lock(LockKind::Exclusive, &control()).unwrap();
    assert!(matches!(forget(&fixture.repository, &all[..1]), Err(RepositoryError::Locked { .. })));
    lock.release().unwrap();
    assert_eq!(forget(&fixture.repository, &all[..1]).unwrap(), [all[0]]);
}

/// Removing is no writing: a repository of version 1 can be forgotten of, too.
#[test]
fn snapshots_that_restic_wrote_are_removed() {
    let (dir, repository) = golden("v2");
    let all = ids(&repository);
    assert_eq!(forget(&repository, &all[..3]).unwrap(), all[..3]);
    assert_eq!(ids(&open(&dir.path().join("v2"), "golden-password")), all[3..]);
    let (_dir, old) = golden("v1");
    let all = ids(&old);
    assert!(matches!(forget(&old, &all), Err(RepositoryError::Refused { .. })));
    old.forget(&all, &ForgetOptions { may_leave_none: true }, &control()).unwrap();
    assert!(ids(&old).is_empty());
}

fn frail() -> (Arc<Frail>, Vec<SnapshotId>) {
    let frail = Arc::new(Frail::default());
    let repository =
        Repository::init(&frail.store(), PASSWORD.as_bytes(), &init_options(), &control()).unwrap();
    let all = snapshots(&repository, 4);
    (frail, all)
}

/// At every call that the store fails, or after which nothing happens any more: the others are whole, and what went is the oldest.
#[test]
fn whenever_it_ends_only_named_snapshots_are_gone_and_the_oldest_first() {
    let (origin, all) = frail();
    let calls = {
        let store = origin.fork();
        let repository = store.open();
        store.plan(Counted::All, u64::MAX, Fault::Dies);
        forget(&repository, &all[..3]).unwrap();
        store.heal()
    };
    assert!(calls > 8, "{calls}");
    let gone = std::sync::Mutex::new([0; 4]);
    trials(5 * calls, |trial| {
        let store = origin.fork();
        let repository = store.open();
        let asked = Control::new();
        let fault = match trial % 5 {
            0 => Fault::Dies,
            1 => Fault::DiesAfter,
            2 => Fault::Fails,
            3 => Fault::DoneButFails,
            _ => Fault::Cancels(asked.cancel.clone()),
        };
        let what = format!("call {} {fault:?}", trial / 5);
        store.plan(Counted::All, trial / 5, fault);
        let result = repository.forget(&all[..3], &ForgetOptions::default(), &asked);
        let struck = store.struck().unwrap();
        store.heal();
        let left = ids(&store.open());
        assert_eq!(left, all[4 - left.len()..], "{what}");
        assert!(!left.is_empty());
        if result.is_ok() {
            assert_eq!(left.len(), 1, "{what}");
            assert!(struck.starts_with("delete locks/") || struck.contains("snapshots/"), "{what} {struck}");
        } else if struck.starts_with("list") {
            assert_eq!(left.len(), 4, "{what}: a listing that fails is never a shorter list");
        }
        gone.lock().unwrap()[4 - left.len()] += 1;
        for lock in store.names("locks") {
            store.remove(&lock);
        }
        let left = left.into_iter().filter(|id| *id != all[3]).collect::<Vec<_>>();
        assert_eq!(forget(&store.open(), &left).unwrap(), left, "{what}");
        let check = store.open().check(&Default::default(), &control()).unwrap();
        assert!(check.is_sound(), "{what}: {:?}", check.findings);
    });
    assert!(gone.into_inner().unwrap().iter().all(|times| *times > 0));
}

#[test]
fn what_is_forgotten_frees_nothing_by_itself() {
    let fixture = Fixture::new();
    let all = snapshots(&fixture.repository, 2);
    let before = files(&fixture.path().join("data"));
    forget(&fixture.repository, &all[..1]).unwrap();
    assert_eq!(files(&fixture.path().join("data")), before);
    // And is taken up again by whoever stores the same.
    store_stream(
        &fixture.repository,
        "/z",
        &0i64.to_le_bytes().repeat(200),
        Cuts::Pages { page: 512, pages_per_piece: 1 },
    );
    judge(&fixture.path());
}
