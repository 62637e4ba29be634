//! Parts of an earlier snapshot in a new one: byte for byte the same, nothing read, and refused where anything of it is missing.

use std::fs;

use seaworthy_repository::{
    Cuts, FileMeta, ForgetOptions, PruneOptions, Repository, RepositoryError, Session, SnapshotId, TakenOver,
};

use crate::common::{Fixture, at, control, files, judge, noise, options, restic_ok, restics};

fn put(session: &Session, path: &str, content: &[u8]) {
    let mut file = session.file(&at(path), FileMeta::default(), Cuts::ContentDefined).unwrap();
    file.write(content).unwrap();
    file.finish().unwrap();
}

/// `/data` with a directory, a file and a log of two files.
fn first(repository: &Repository) -> SnapshotId {
    let session = repository.begin(options("/x"), &control()).unwrap();
    put(&session, "/data/base/1/a", &noise(1, 3 << 20));
    put(&session, "/data/base/2/b", &noise(2, 70_000));
    put(&session, "/data/version", b"15");
    put(&session, "/data/log/1", &noise(3, 200_000));
    put(&session, "/data/log/2", &noise(4, 100_000));
    session.directory(&at("/data/empty"), &FileMeta { mode: 0o700, ..FileMeta::default() }).unwrap();
    session.commit(&control()).unwrap().id
}

fn taken(session: &Session, from: &SnapshotId) -> seaworthy_repository::Result<[TakenOver; 2]> {
    let all = session.take_over(from, &at("/data"), &|name| name != b"log", &control())?;
    Ok([all, session.take_over(from, &at("/data/log"), &|name| name == b"1", &control())?])
}

#[test]
fn what_is_taken_over_is_the_same_and_nothing_of_it_is_stored_again() {
    let fixture = Fixture::new();
    let repository = &fixture.repository;
    let earlier = first(repository);
    let repository = fixture.reopen();
    let session = repository.begin(options("/x"), &control()).unwrap();
    let [all, log] = taken(&session, &earlier).unwrap();
    assert_eq!(all, TakenOver { files: 3, bytes: (3 << 20) + 70_000 + 2 });
    assert_eq!(log, TakenOver { files: 1, bytes: 200_000 });
    put(&session, "/data/log/2", &noise(5, 150_000));
    let done = session.commit(&control()).unwrap();
    assert!(done.summary.data_added < 200_000, "{:?}", done.summary);
    // The earlier one may go: what was taken over stays.
    repository.forget(&[earlier], &ForgetOptions::default(), &control()).unwrap();
    repository
        .prune(
            &PruneOptions {
                delete_after: std::time::Duration::ZERO,
                unlisted_after: std::time::Duration::ZERO,
                ..PruneOptions::default()
            },
            &control(),
        )
        .unwrap();
    judge(&fixture.path());
    for binary in restics() {
        for (path, content) in [
            ("/data/base/1/a", noise(1, 3 << 20)),
            ("/data/base/2/b", noise(2, 70_000)),
            ("/data/version", b"15".to_vec()),
            ("/data/log/1", noise(3, 200_000)),
            ("/data/log/2", noise(5, 150_000)),
        ] {
            let dumped = restic_ok(&binary, &fixture.path(), &["dump", &done.id.hex(), path]);
            assert!(dumped == content, "{path}");
        }
        let listed = restic_ok(&binary, &fixture.path(), &["ls", "-l", &done.id.hex(), "/data"]);
        assert!(
            String::from_utf8_lossy(&listed)
                .lines()
                .any(|line| line.starts_with("drwx------") && line.ends_with("/data/empty"))
        );
    }
}

#[test]
fn what_is_there_already_and_what_is_no_directory_is_refused() {
    let fixture = Fixture::new();
    let earlier = first(&fixture.repository);
    let session = fixture.repository.begin(options("/x"), &control()).unwrap();
    put(&session, "/data/version", b"17");
    let error =
        session.take_over(&earlier, &at("/data"), &|name| name == b"version", &control()).unwrap_err();
    assert!(error.to_string().contains("/data/version"), "{error}");
    let error = session.take_over(&earlier, &at("/nowhere"), &|_| true, &control()).unwrap_err();
    assert!(matches!(error, RepositoryError::Missing { .. }), "{error}");
    // Neither has spoiled the session.
    session.take_over(&earlier, &at("/data"), &|name| name == b"base", &control()).unwrap();
    session.commit(&control()).unwrap();
    judge(&fixture.path());
}

#[test]
fn a_part_of_which_anything_is_missing_is_not_taken_over() {
    for number in 0.. {
        let fixture = Fixture::new();
        let earlier = first(&fixture.repository);
        let mut packs = files(&fixture.path().join("data"));
        packs.sort();
        let Some(pack) = packs.get(number) else {
            assert!(number >= 2, "data and trees lie in packs of their own");
            break;
        };
        fs::remove_file(pack).unwrap();
        let repository = fixture.reopen();
        let session = repository.begin(options("/x"), &control()).unwrap();
        let error = taken(&session, &earlier).unwrap_err();
        assert!(matches!(error, RepositoryError::Missing { .. }), "{number}: {error}");
        session.abort().unwrap();
    }
}
