//! Locks that restic respects, and several keys.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use seaworthy_repository::{
    CheckLock, CheckOptions, Control, Cuts, FileKind, KdfParams, LockKind, OpenOptions, Repository,
    RepositoryError, Time, open_store,
};

use crate::common::{
    Fixture, PASSWORD, control, files, init_options, master_key, restic, restic_ok, restics, store_stream,
};

#[test]
fn shared_locks_tolerate_each_other_and_exclusive_ones_nobody() {
    let fixture = Fixture::new();
    let repository = &fixture.repository;
    let a = repository.lock(LockKind::Shared, &control()).unwrap();
    let b = repository.lock(LockKind::Shared, &control()).unwrap();
    match repository.lock(LockKind::Exclusive, &control()) {
        Err(RepositoryError::Locked { holder }) => {
            assert_eq!(holder.pid, i64::from(std::process::id()));
            assert!(!holder.hostname.is_empty());
            assert!(!holder.exclusive);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(files(&fixture.path().join("locks")).len(), 2, "the refused lock is not left behind");
    a.release().unwrap();
    drop(b);
    let exclusive = repository.lock(LockKind::Exclusive, &control()).unwrap();
    let error = repository.lock(LockKind::Shared, &control()).unwrap_err();
    assert!(matches!(error, RepositoryError::Locked { .. }) && error.is_transient());
    exclusive.release().unwrap();
    assert_eq!(files(&fixture.path().join("locks")).len(), 0);
}

/// On a local file system nobody waits between writing a lock and looking for others: that must still keep them apart.
#[test]
fn of_many_who_hurry_none_holds_an_exclusive_lock_beside_another() {
    let fixture = Fixture::new();
    let (holding, excluding) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (granted, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (holding, excluding, granted, refused) = (&holding, &excluding, &granted, &refused);
            let repository = &fixture.repository;
            scope.spawn(move || {
                for turn in 0..100 {
                    let kind = if (worker + turn) % 3 == 0 { LockKind::Exclusive } else { LockKind::Shared };
                    let lock = match repository.lock(kind, &control()) {
                        Ok(lock) => lock,
                        Err(RepositoryError::Locked { .. }) => {
                            refused.fetch_add(1, Ordering::SeqCst);
                            continue;
                        }
                        Err(other) => panic!("{other}"),
                    };
                    granted.fetch_add(1, Ordering::SeqCst);
                    let others = holding.fetch_add(1, Ordering::SeqCst);
                    if kind == LockKind::Exclusive {
                        excluding.fetch_add(1, Ordering::SeqCst);
                        assert_eq!(others, 0, "exclusive beside {others} others");
                    } else {
                        assert_eq!(excluding.load(Ordering::SeqCst), 0, "shared beside an exclusive one");
                    }
                    std::thread::yield_now();
                    if kind == LockKind::Exclusive {
                        excluding.fetch_sub(1, Ordering::SeqCst);
                    }
                    holding.fetch_sub(1, Ordering::SeqCst);
                    lock.release().unwrap();
                }
            });
        }
    });
    assert!(granted.into_inner() > 0 && refused.into_inner() > 0, "they never met");
    assert_eq!(files(&fixture.path().join("locks")).len(), 0);
}

#[test]
fn restic_respects_our_locks() {
    // `restic unlock` sends us SIGHUP to see whether we live.
    seaworthy_repository::survive_hangup().unwrap();
    let fixture = Fixture::new();
    store_stream(&fixture.repository, "/x", b"x", Cuts::ContentDefined);
    for binary in restics() {
        let shared = fixture.repository.lock(LockKind::Shared, &control()).unwrap();
        restic_ok(&binary, &fixture.path(), &["snapshots"]);
        assert!(!restic(&binary, &fixture.path(), &["check".as_ref()]).status.success());
        // A live lock of ours survives `unlock`.
        restic_ok(&binary, &fixture.path(), &["unlock"]);
        shared.ensure_now(&control()).unwrap();
        shared.release().unwrap();
        let exclusive = fixture.repository.lock(LockKind::Exclusive, &control()).unwrap();
        assert!(!restic(&binary, &fixture.path(), &["snapshots".as_ref()]).status.success());
        exclusive.release().unwrap();
        restic_ok(&binary, &fixture.path(), &["check"]);
    }
}

/// Writes a lock file as another process would have.
fn plant(fixture: &Fixture, hostname: &str, pid: u32, age: i64, exclusive: bool) {
    let now = Time::now();
    let time = Time::from_unix(now.seconds - age, 0);
    let json = format!(
        r#"{{"time":"{time}","exclusive":{exclusive},"hostname":"{hostname}","username":"somebody","pid":{pid}}}"#
    );
    let boxed = master_key(fixture).seal(json.as_bytes()).unwrap();
    let id = seaworthy_repository::Id::of(&boxed);
    fixture.repository.store().write(FileKind::Lock, &id, boxed.into(), &control()).unwrap();
}

fn dead_pid() -> u32 {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    pid
}

fn this_host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned()
}

/// Trap 14: what a crash of ours left does not stop the next run; what may be alive, or is another host's, does.
#[test]
fn our_stale_locks_are_reaped_and_foreign_ones_respected() {
    let live = std::process::id();
    for (hostname, pid, age, reaped) in [
        (this_host(), dead_pid(), 0, true),
        (this_host(), live, 31 * 60, true),
        (this_host(), live, 0, false),
        (this_host(), live, 29 * 60, false),
        ("another-host".into(), dead_pid(), 0, false),
        ("another-host".into(), dead_pid(), 3600, false),
        ("another-host".into(), dead_pid(), -3600, false),
    ] {
        let fixture = Fixture::new();
        plant(&fixture, &hostname, pid, age, true);
        let result = fixture.repository.lock(LockKind::Shared, &control());
        match result {
            Ok(lock) => {
                assert!(reaped, "{hostname} {age}");
                lock.release().unwrap();
                assert_eq!(files(&fixture.path().join("locks")).len(), 0);
            }
            Err(RepositoryError::Locked { holder }) => {
                assert!(!reaped, "{hostname} {age}");
                assert_eq!(holder.hostname, hostname);
                assert!(holder.to_string().contains("somebody"), "{holder}");
                assert_eq!(files(&fixture.path().join("locks")).len(), 1);
            }
            Err(e) => panic!("{e:?}"),
        }
    }
}

#[test]
fn a_lock_that_cannot_be_read_stops_us() {
    let fixture = Fixture::new();
    let id = seaworthy_repository::Id::of(b"?");
    fixture
        .repository
        .store()
        .write(FileKind::Lock, &id, b"neither lock nor anything".to_vec().into(), &control())
        .unwrap();
    assert!(matches!(
        fixture.repository.lock(LockKind::Shared, &control()),
        Err(RepositoryError::Locked { .. })
    ));
}

#[test]
fn a_lock_is_refreshed_and_its_loss_is_noticed() {
    let fixture = Fixture::new();
    let lock = fixture.repository.lock_for_test(Duration::from_millis(60)).unwrap();
    let first = lock.id();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while lock.id() == first {
        assert!(std::time::Instant::now() < deadline, "never refreshed");
        std::thread::sleep(Duration::from_millis(5));
    }
    lock.ensure().unwrap();
    // New first, then the old one goes: there is a lock at every moment, and one in the end.
    while files(&fixture.path().join("locks")).len() != 1 {
        assert!(std::time::Instant::now() < deadline, "the old lock stays");
    }
    while lock.ensure().is_ok() {
        assert!(std::time::Instant::now() < deadline, "the loss is not noticed");
        for path in files(&fixture.path().join("locks")) {
            // It may have been refreshed away just now.
            std::fs::remove_file(path).ok();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(matches!(lock.ensure(), Err(RepositoryError::Missing { .. })));
}

#[test]
fn a_check_runs_beside_a_backup_and_without_any_lock() {
    let fixture = Fixture::new();
    store_stream(&fixture.repository, "/x", b"x", Cuts::ContentDefined);
    let session = fixture.repository.begin(crate::common::options("/x"), &control()).unwrap();
    let check =
        |lock| fixture.repository.check(&CheckOptions { lock, ..CheckOptions::default() }, &control());
    assert!(check(CheckLock::Shared).unwrap().is_sound());
    assert!(check(CheckLock::None).unwrap().is_sound());
    assert!(matches!(check(CheckLock::Exclusive), Err(RepositoryError::Locked { .. })));
    session.abort().unwrap();
    assert!(check(CheckLock::Exclusive).unwrap().is_sound());
}

#[test]
fn keys_are_added_listed_changed_and_removed() {
    let fixture = Fixture::new();
    let repository = &fixture.repository;
    let weak = KdfParams::fast_and_weak();
    let id = store_stream(repository, "/x", b"x", Cuts::ContentDefined);
    let second = repository.add_key(b"second", weak, &control()).unwrap();
    let other = crate::common::open(&fixture.path(), "second");
    assert_eq!(other.key_id(), second);
    let keys = repository.keys(&control()).unwrap();
    assert_eq!(keys.len(), 2);
    assert_eq!(keys.iter().filter(|key| key.is_current).count(), 1);
    for binary in restics() {
        assert_eq!(
            String::from_utf8_lossy(&restic_ok(&binary, &fixture.path(), &["key", "list"]))
                .matches(&this_host())
                .count(),
            2
        );
    }
    // Neither the one in use nor the last one.
    assert!(matches!(
        repository.remove_key(&repository.key_id(), &control()),
        Err(RepositoryError::Refused { .. })
    ));
    other.remove_key(&repository.key_id(), &control()).unwrap();
    assert!(matches!(other.remove_key(&second, &control()), Err(RepositoryError::Refused { .. })));
    let store = open_store(fixture.path()).unwrap();
    let wrong = Repository::open(&store, PASSWORD.as_bytes(), &OpenOptions::default(), &control());
    assert!(matches!(wrong, Err(RepositoryError::WrongKey { tried: 1 })));
    let changed = other.change_key(PASSWORD.as_bytes(), weak, &control()).unwrap();
    assert_eq!(changed.keys(&control()).unwrap().len(), 1);
    assert_eq!(fixture.reopen().read_file(&id, &crate::common::at("/x"), 10, &control()).unwrap(), b"x");
    crate::common::judge(&fixture.path());
}

#[test]
fn init_refuses_what_exists_and_open_names_what_is_missing() {
    let fixture = Fixture::new();
    let store = open_store(fixture.path()).unwrap();
    let again = Repository::init(&store, b"x", &init_options(), &control());
    assert!(matches!(again, Err(RepositoryError::Refused { .. })));
    let nowhere = open_store(fixture.scratch("nowhere")).unwrap();
    let missing = Repository::open(&nowhere, b"x", &OpenOptions::default(), &Control::new());
    assert!(matches!(missing, Err(RepositoryError::NotFound { .. })), "{missing:?}");
    assert!(!fixture.scratch("nowhere").exists(), "looking creates nothing");
}

/// What an `init` leaves that is killed between its key and its config.
fn unfinished() -> Fixture {
    let fixture = Fixture::new();
    std::fs::remove_file(fixture.path().join("config")).unwrap();
    fixture
}

#[test]
fn an_init_that_was_cut_off_after_its_key_is_finished_with_that_key() {
    let fixture = unfinished();
    let store = open_store(fixture.path()).unwrap();
    let wrong = Repository::init(&store, b"another", &init_options(), &control());
    assert!(matches!(wrong, Err(RepositoryError::WrongKey { tried: 1 })), "{wrong:?}");
    assert!(!fixture.path().join("config").exists());
    let made = Repository::init(&store, PASSWORD.as_bytes(), &init_options(), &control()).unwrap();
    assert_eq!(made.key_id(), fixture.repository.key_id());
    assert_eq!(made.keys(&control()).unwrap().len(), 1);
    let id = store_stream(&made, "/x", b"x", Cuts::ContentDefined);
    assert_eq!(fixture.reopen().read_file(&id, &crate::common::at("/x"), 10, &control()).unwrap(), b"x");
    crate::common::judge(&fixture.path());
}

#[test]
fn the_remains_of_a_repository_are_no_unfinished_init() {
    for left in ["snapshots", "index", "data", "locks"] {
        let fixture = Fixture::new();
        store_stream(&fixture.repository, "/x", b"x", Cuts::ContentDefined);
        let lock = fixture.repository.lock(LockKind::Shared, &control()).unwrap();
        std::fs::remove_file(fixture.path().join("config")).unwrap();
        for path in files(&fixture.path()) {
            let kind = path.strip_prefix(fixture.path()).unwrap().iter().next().unwrap().to_owned();
            if kind != "keys" && kind != left {
                std::fs::remove_file(path).unwrap();
            }
        }
        let before = files(&fixture.path());
        assert!(before.len() > 1, "{left}: {before:?}");
        let store = open_store(fixture.path()).unwrap();
        for password in [PASSWORD, "another"] {
            let refused = Repository::init(&store, password.as_bytes(), &init_options(), &control());
            assert!(matches!(refused, Err(RepositoryError::Refused { .. })), "{left}: {refused:?}");
        }
        assert_eq!(files(&fixture.path()), before, "{left}: a refusal changes nothing");
        drop(lock);
    }
}

#[test]
fn of_inits_that_race_one_wins_and_every_key_that_stays_opens_what_it_made() {
    for round in 0..8 {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("repo");
        let start = std::sync::Barrier::new(4);
        let made: Vec<bool> = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let store = open_store(&place).unwrap();
                        start.wait();
                        let made = Repository::init(&store, PASSWORD.as_bytes(), &init_options(), &control());
                        assert!(
                            matches!(made, Ok(_) | Err(RepositoryError::Refused { .. })),
                            "round {round}: {made:?}"
                        );
                        made.is_ok()
                    })
                })
                .collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        assert_eq!(made.iter().filter(|is_made| **is_made).count(), 1, "round {round}: {made:?}");
        let repository = crate::common::open(&place, PASSWORD);
        for key in repository.keys(&control()).unwrap() {
            let store = open_store(&place).unwrap();
            let options = OpenOptions { key_hint: Some(key.id), ..OpenOptions::default() };
            Repository::open(&store, PASSWORD.as_bytes(), &options, &control()).unwrap();
        }
        crate::common::judge(&place);
    }
}

#[test]
fn files_of_a_repository_are_private_and_read_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = Fixture::new();
    store_stream(&fixture.repository, "/x", b"x", Cuts::ContentDefined);
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    for path in files(&fixture.path()) {
        assert_eq!(mode(&path), 0o400, "{}", path.display());
    }
    assert_eq!(std::fs::read_dir(fixture.path().join("data")).unwrap().count(), 256);
    for dir in ["", "data", "data/ff", "keys", "snapshots"] {
        assert_eq!(mode(&fixture.path().join(dir)), 0o700, "{dir}");
    }
}
