//! SIGKILL at random moments: the old or the new state, never anything between, and no human needed afterwards.

use std::process::{Command, Stdio};
use std::time::Duration;

use seaworthy_repository::{CheckOptions, CheckRead, Cuts, FileMeta, RestoreOptions, SessionOptions};

use crate::common::{
    Fixture, at, control, files, judge, noise, open, options, restic_ok, restics, sha256, store_stream,
};

const REPOSITORY: &str = "SEAWORTHY_TEST_CRASH_REPOSITORY";
const SEED: &str = "SEAWORTHY_TEST_CRASH_SEED";

fn content(seed: u64) -> Vec<u8> {
    noise(seed, 6_000_000)
}

/// Not a test by itself: the writer that the sweep starts and kills.
#[test]
#[ignore = "it is the child process of the sweep"]
fn writer_for_the_sweep() {
    let path = std::env::var(REPOSITORY).expect("started by the sweep");
    let seed: u64 = std::env::var(SEED).expect("started by the sweep").parse().expect("a number");
    let repository = open(path.as_ref(), crate::common::PASSWORD);
    let options = SessionOptions { pack_size: 256 << 10, ..options("/x") };
    let session = repository.begin(options, &control()).expect("begin");
    let mut file = session.file(&at("/x"), FileMeta::default(), Cuts::ContentDefined).expect("file");
    for part in content(seed).chunks(100_000) {
        file.write(part).expect("write");
    }
    file.finish().expect("finish");
    let id = session.commit(&control()).expect("commit").id;
    println!("ACKNOWLEDGED {id}");
}

#[test]
fn a_writer_killed_at_any_moment_leaves_the_old_or_the_new_state() {
    let fixture = Fixture::new();
    let mut acknowledged =
        vec![(store_stream(&fixture.repository, "/x", &content(0), Cuts::ContentDefined), 0u64)];
    let (mut killed, mut garbage) = (0, 0);
    let mut whole = Duration::ZERO;
    for round in 1..=24u32 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::writer_for_the_sweep", "--ignored", "--nocapture", "--test-threads=1"])
            .env(REPOSITORY, fixture.path())
            .env(SEED, round.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The first and the last come to their end. The others are killed at moments that are spread over all of the time
        // that the first took, the commit included.
        let is_left_alone = round == 1 || round == 24;
        let moment = if is_left_alone { Duration::from_secs(60) } else { whole * (round * 7 % 23) / 23 };
        let started = std::time::Instant::now();
        while started.elapsed() < moment && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        if round == 1 {
            whole = started.elapsed();
        }
        if child.try_wait().unwrap().is_none() {
            child.kill().unwrap();
            killed += 1;
        }
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let snapshots = fixture.repository.snapshots(&control()).unwrap();
        if let Some(line) = text.lines().find_map(|line| line.split("ACKNOWLEDGED ").nth(1)) {
            let id = seaworthy_repository::SnapshotId::parse(line.trim()).unwrap();
            assert!(
                snapshots.iter().any(|(known, _)| *known == id),
                "round {round}: an acknowledged snapshot is gone"
            );
            acknowledged.push((id, u64::from(round)));
        }
        for (id, _) in &snapshots {
            if !acknowledged.iter().any(|(known, _)| known == id) {
                // Durable before the word got out: as good as acknowledged.
                acknowledged.push((*id, u64::from(round)));
            }
        }
        garbage += files(&fixture.path().join("locks")).len();
        let check = CheckOptions { read: CheckRead::All, ..CheckOptions::default() };
        let report = fixture.repository.check(&check, &control()).unwrap();
        assert!(report.is_sound(), "round {round}: {:?}", report.findings);
    }
    assert!(killed >= 8, "only {killed} were killed in time");
    assert!(garbage >= 4, "only {garbage} locks were left behind: the kills came too early or too late");
    for (id, seed) in &acknowledged {
        let stored = fixture.repository.read_file(id, &at("/x"), 1 << 30, &control()).unwrap();
        assert_eq!(sha256(&stored), sha256(&content(*seed)), "snapshot of round {seed}");
    }
    // A new backup needs no human help, and afterwards nothing of ours stops restic.
    let id = store_stream(&fixture.repository, "/x", &content(99), Cuts::ContentDefined);
    assert_eq!(files(&fixture.path().join("locks")), Vec::<std::path::PathBuf>::new());
    judge(&fixture.path());
    let target = fixture.scratch("target");
    fixture.repository.restore(&id, &at("/"), &target, &RestoreOptions::default(), &control()).unwrap();
    for binary in restics() {
        let dumped = restic_ok(&binary, &fixture.path(), &["dump", &acknowledged[0].0.hex(), "/x"]);
        assert_eq!(sha256(&dumped), sha256(&content(0)));
    }
}

/// Section 13: the states between the steps of a commit, made by hand; each is one that restic calls sound.
#[test]
fn every_state_between_two_writes_is_sound() {
    let fixture = Fixture::new();
    let first = store_stream(&fixture.repository, "/x", &content(1), Cuts::ContentDefined);
    let before: Vec<_> = files(&fixture.path());
    store_stream(&fixture.repository, "/x", &content(2), Cuts::ContentDefined);
    let mut new: Vec<_> = files(&fixture.path()).into_iter().filter(|path| !before.contains(path)).collect();
    let rank = |path: &std::path::Path| {
        let text = path.to_string_lossy().into_owned();
        ["/data/", "/index/", "/snapshots/"].iter().position(|part| text.contains(part)).expect("a new file")
    };
    new.sort_by_key(|path| rank(path));
    assert_eq!(rank(new.last().unwrap()), 2);
    // Undone one by one, last written first.
    while let Some(path) = new.pop() {
        std::fs::remove_file(&path).unwrap();
        judge(&fixture.path());
        let stored = fixture.repository.read_file(&first, &at("/x"), 1 << 30, &control()).unwrap();
        assert_eq!(sha256(&stored), sha256(&content(1)));
        let report = fixture.repository.check(&CheckOptions::default(), &control()).unwrap();
        assert!(report.is_sound(), "{:?}", report.findings);
    }
}

/// A left-over temporary file, as a crash between write and rename leaves it, is ignored by everybody.
#[test]
fn temporary_files_are_ignored() {
    let fixture = Fixture::new();
    let id = store_stream(&fixture.repository, "/x", b"x", Cuts::ContentDefined);
    for dir in ["snapshots", "index", "locks", "keys", "data/00"] {
        std::fs::write(fixture.path().join(dir).join(format!("{id}-tmp-0123")), b"half").unwrap();
    }
    std::fs::write(fixture.path().join("locks").join("0".repeat(64)), b"").unwrap();
    assert_eq!(fixture.repository.snapshots(&control()).unwrap().len(), 1);
    store_stream(&fixture.repository, "/x", b"y", Cuts::ContentDefined);
    judge(&fixture.path());
}
