//! A prune takes what nobody needs, and nothing else, whenever it ends and whoever else is at work.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use seaworthy_repository::index::{self, DoomedPack, IndexedPack};
use seaworthy_repository::pack::{self, PackedBlob};
use seaworthy_repository::{
    Amount, BlobKind, CheckOptions, CheckRead, Control, Cuts, FileKind, FileMeta, ForgetOptions, Id, Object,
    ParentUse, PruneOptions, PruneReport, Repository, RepositoryError, RestoreOptions, SessionOptions,
    SnapshotId, Time, tree,
};

use crate::common::{
    Fixture, Forge, PASSWORD, assert_same_tree, at, control, file_node, files, golden, init_options, judge,
    master_key, noise, odd_directory, options, restic_ok, restics, store_stream, store_tree,
};
use crate::copy::trials;
use crate::frail::{Counted, Fault, Frail};

const CUTS: Cuts = Cuts::Pages { page: 4096, pages_per_piece: 4 };

/// Everything that is not needed goes, at once, and packs are small.
fn at_once() -> PruneOptions {
    PruneOptions {
        max_unused: 0.0,
        delete_after: Duration::ZERO,
        unlisted_after: Duration::ZERO,
        pack_size: 64 << 10,
        workers: 2,
        ..PruneOptions::default()
    }
}

/// In two phases, as by default.
fn in_phases() -> PruneOptions {
    PruneOptions { max_unused: 0.0, pack_size: 64 << 10, workers: 2, ..PruneOptions::default() }
}

fn prune(repository: &Repository, options: &PruneOptions) -> PruneReport {
    repository.prune(options, &control()).unwrap()
}

fn forget(repository: &Repository, ids: &[SnapshotId]) {
    repository.forget(ids, &ForgetOptions { may_leave_none: true }, &control()).unwrap();
}

/// A snapshot of a stream in small packs.
fn store(repository: &Repository, path: &str, content: &[u8]) -> SnapshotId {
    let options = SessionOptions { pack_size: 64 << 10, ..options(path) };
    let session = repository.begin(options, &control()).unwrap();
    let mut file = session.file(&at(path), FileMeta::default(), CUTS).unwrap();
    file.write(content).unwrap();
    file.finish().unwrap();
    session.commit(&control()).unwrap().id
}

fn read(repository: &Repository, id: &SnapshotId, path: &str) -> Vec<u8> {
    repository.read_file(id, &at(path), 1 << 30, &control()).unwrap()
}

fn assert_sound(repository: &Repository, what: &str) {
    let check = CheckOptions { read: CheckRead::All, ..CheckOptions::default() };
    let report = repository.check(&check, &control()).unwrap();
    assert!(report.is_sound(), "{what}: {:?}", report.findings);
}

/// Nothing is listed that is not needed, and each blob once.
fn assert_tight(repository: &Repository) {
    let index = repository.index(&control()).unwrap();
    let distinct = index.ids(BlobKind::Data).unwrap().len() + index.ids(BlobKind::Tree).unwrap().len();
    assert_eq!(index.len(), distinct, "a blob has two copies");
}

/// Names of everything but locks.
fn content_of(path: &Path) -> Vec<PathBuf> {
    files(path).into_iter().filter(|file| !file.starts_with(path.join("locks"))).collect()
}

/// A part that both contents have, then what only one has, in pieces that share packs.
fn interleaved(seed: u64) -> Vec<u8> {
    let (common, own) = (noise(1, 600_000), noise(seed, 600_000));
    common.chunks(16384).zip(own.chunks(16384)).flat_map(|(a, b)| [a, b].concat()).collect()
}

#[test]
fn what_nobody_needs_goes_and_what_somebody_needs_stays() {
    let fixture = Fixture::new();
    let first = store(&fixture.repository, "/x", &interleaved(2));
    let second = store(&fixture.repository, "/x", &interleaved(3));
    let whole = prune(&fixture.repository, &at_once());
    assert!(whole.is_unchanged(), "{whole:?}");
    forget(&fixture.repository, &[first]);

    let before = content_of(&fixture.path());
    let dry = prune(&fixture.repository, &PruneOptions { dry_run: true, ..at_once() });
    assert!(dry.is_dry_run && !dry.is_unchanged());
    assert_eq!(content_of(&fixture.path()), before, "a dry run changes nothing");
    let report = prune(&fixture.repository, &at_once());
    let expected =
        PruneReport { is_dry_run: true, written: Amount::default(), indexes_written: 0, ..report.clone() };
    assert_eq!(dry, expected, "a dry run tells what is done");
    assert!(report.repacked.packs >= 8 && report.written.packs >= 5, "{report:?}");
    assert_eq!(report.snapshots, 1);
    let sizes: u64 = files(&fixture.path().join("data")).iter().map(|f| f.metadata().unwrap().len()).sum();
    assert!(sizes < 1_350_000, "{sizes}");
    assert_eq!(report.unused_bytes, 0);
    assert!(read(&fixture.repository, &second, "/x") == interleaved(3));
    assert_tight(&fixture.repository);
    judge(&fixture.path());
    for binary in restics() {
        assert!(restic_ok(&binary, &fixture.path(), &["dump", &second.hex(), "/x"]) == interleaved(3));
    }

    // Once more changes nothing, and restic finds nothing to do.
    let before = content_of(&fixture.path());
    assert!(prune(&fixture.repository, &at_once()).is_unchanged());
    assert_eq!(content_of(&fixture.path()), before);
    let newest = restics().pop().unwrap();
    restic_ok(&newest, &fixture.path(), &["prune", "--max-unused", "5%"]);
    assert!(read(&fixture.reopen(), &second, "/x") == interleaved(3));
    assert!(files(&fixture.path().join("locks")).is_empty());
}

#[test]
fn what_is_not_needed_may_stay_up_to_a_share() {
    let (fixture, other) = (Fixture::new(), Fixture::new());
    for (fixture, max_unused) in [(&fixture, 0.3), (&other, 0.05)] {
        let first = store(&fixture.repository, "/x", &interleaved(2));
        store(&fixture.repository, "/x", &interleaved(3));
        forget(&fixture.repository, &[first]);
        let options = PruneOptions { max_unused, ..at_once() };
        let report = prune(&fixture.repository, &options);
        let share = report.unused_bytes as f64 / (report.unused_bytes + report.needed_bytes) as f64;
        assert!(share > 0.0 && share <= max_unused, "{max_unused}: {share}");
        judge(&fixture.path());
        assert!(prune(&fixture.repository, &options).is_unchanged());
    }
    let size = |fixture: &Fixture| -> u64 {
        files(&fixture.path().join("data")).iter().map(|file| file.metadata().unwrap().len()).sum()
    };
    assert!(size(&fixture) > size(&other));
}

#[test]
fn a_directory_comes_back_as_it_was_after_its_neighbours_went() {
    let fixture = Fixture::new();
    let directory = fixture.scratch("source");
    odd_directory(&directory);
    let mut old = vec![store_tree(&fixture.repository, &directory, ParentUse::None).id];
    for n in 0..3 {
        std::fs::write(directory.join("text"), format!("{n}").repeat(100_000)).unwrap();
        std::fs::write(directory.join(format!("new-{n}")), noise(n, 700_000)).unwrap();
        old.push(store_tree(&fixture.repository, &directory, ParentUse::Automatic).id);
        std::fs::remove_file(directory.join(format!("new-{n}"))).unwrap();
    }
    let last = store_tree(&fixture.repository, &directory, ParentUse::Automatic);
    forget(&fixture.repository, &old);
    let report = prune(&fixture.repository, &at_once());
    assert!(!report.is_unchanged());
    judge(&fixture.path());
    assert_sound(&fixture.repository, "after the prune");
    for (n, binary) in restics().iter().enumerate() {
        let target = fixture.scratch(&format!("restic-{n}"));
        restic_ok(
            binary,
            &fixture.path(),
            &["restore", &last.id.hex(), "--target", target.to_str().unwrap()],
        );
        assert_same_tree(&directory, &target.join(directory.strip_prefix("/").unwrap()));
    }
}

#[test]
fn repositories_of_restic_are_pruned_and_their_duplicates_are_resolved() {
    let judge = |path: &Path| {
        for binary in restics() {
            let output = std::process::Command::new(binary)
                .args(["check", "--read-data", "--no-cache"])
                .env("RESTIC_REPOSITORY", path)
                .env("RESTIC_PASSWORD", "golden-password")
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
        }
    };
    for gone in [0..0, 0..1, 1..6, 2..7, 0..6] {
        let (dir, repository) = golden("v2");
        let path = dir.path().join("v2");
        let all: Vec<SnapshotId> =
            repository.snapshots(&control()).unwrap().into_iter().map(|(id, _)| id).collect();
        let what = format!("without {gone:?}");
        let (old, kept): (Vec<_>, Vec<_>) = all.iter().enumerate().partition(|(n, _)| gone.contains(n));
        let old: Vec<SnapshotId> = old.into_iter().map(|(_, id)| *id).collect();
        let kept: Vec<SnapshotId> = kept.into_iter().map(|(_, id)| *id).collect();
        let restored = |place: &str| {
            std::fs::create_dir(dir.path().join(place)).unwrap();
            for id in &kept {
                let into = dir.path().join(place).join(id.hex());
                let restore = RestoreOptions::default();
                let summary = repository.restore(id, &at("/"), &into, &restore, &control()).unwrap();
                assert!(summary.is_complete(), "{:?}", summary.problems);
            }
        };
        restored("before");
        forget(&repository, &old);
        let report = prune(&repository, &at_once());
        assert!(report.duplicates > 0 || gone.contains(&6), "{what}: {report:?}");
        restored("after");
        for id in &kept {
            let place = |place: &str| dir.path().join(place).join(id.hex());
            assert_same_tree(&place("before"), &place("after"));
        }
        judge(&path);
        assert_sound(&repository, &what);
        let before = content_of(&path);
        assert!(prune(&repository, &at_once()).is_unchanged(), "{what}");
        assert_eq!(content_of(&path), before, "{what}");
    }
    let (_dir, old) = golden("v1");
    assert!(matches!(old.prune(&at_once(), &control()), Err(RepositoryError::Unsupported { .. })));
}

/// Two writers who did not see each other: every blob twice.
#[test]
fn of_duplicates_exactly_one_is_kept() {
    let fixture = Fixture::new();
    let content = noise(4, 500_000);
    let aside = fixture.scratch("aside");
    let mut ids = vec![store(&fixture.repository, "/x", &content)];
    let hidden = files(&fixture.path().join("index"));
    std::fs::create_dir(&aside).unwrap();
    for file in &hidden {
        std::fs::rename(file, aside.join(file.file_name().unwrap())).unwrap();
    }
    ids.push(store(&fixture.repository, "/x", &[content.clone(), noise(5, 100_000)].concat()));
    for file in &hidden {
        std::fs::rename(aside.join(file.file_name().unwrap()), file).unwrap();
    }
    let report = prune(&fixture.repository, &at_once());
    assert!(report.duplicates >= 30, "{report:?}");
    assert_tight(&fixture.repository);
    judge(&fixture.path());
    assert!(read(&fixture.repository, &ids[0], "/x") == content);
    assert!(read(&fixture.repository, &ids[1], "/x")[..500_000] == content);
    assert!(prune(&fixture.repository, &at_once()).is_unchanged());
}

/// Writes one pack of these plaintexts, raw or compressed, and returns how it is to be listed.
fn pack_of(fixture: &Fixture, blobs: &[(BlobKind, &[u8])]) -> IndexedPack {
    let key = master_key(fixture);
    let (mut bytes, mut listed) = (Vec::new(), Vec::new());
    for (kind, plain) in blobs {
        let boxed = key.seal(&zstd::bulk::compress(plain, 1).unwrap()).unwrap();
        listed.push(PackedBlob {
            kind: *kind,
            id: Id::of(plain),
            offset: u32::try_from(bytes.len()).unwrap(),
            length: u32::try_from(boxed.len()).unwrap(),
            uncompressed_length: Some(u32::try_from(plain.len()).unwrap()),
        });
        bytes.extend_from_slice(&boxed);
    }
    pack::finish(&key, &mut bytes, &listed).unwrap();
    let id = Id::of(&bytes);
    fixture.repository.store().write(FileKind::Pack, &id, bytes.into(), &control()).unwrap();
    IndexedPack { id, blobs: listed }
}

fn write_index(fixture: &Fixture, packs: &[IndexedPack], doomed: &[DoomedPack]) {
    write(fixture, FileKind::Index, &index::encode_with(packs, doomed));
}

fn write(fixture: &Fixture, kind: FileKind, json: &[u8]) -> Id {
    let boxed = master_key(fixture).seal(json).unwrap();
    let id = Id::of(&boxed);
    fixture.repository.store().write(kind, &id, boxed.into(), &control()).unwrap();
    id
}

/// What the index files say.
fn index_json(fixture: &Fixture) -> Vec<Vec<u8>> {
    let key = master_key(fixture);
    let open = |file: PathBuf| {
        let plain = key.open(&std::fs::read(file).unwrap()).unwrap();
        match plain[0] {
            2 => zstd::stream::decode_all(&plain[1..]).unwrap(),
            _ => plain,
        }
    };
    files(&fixture.path().join("index")).into_iter().map(open).collect()
}

/// A tree with one file of these pieces.
fn tree_of(content: &[&[u8]]) -> Vec<u8> {
    let pieces: Vec<Id> = content.iter().map(|piece| Id::of(piece)).collect();
    let size: usize = content.iter().map(|piece| piece.len()).sum();
    format!("{{\"nodes\":[{}]}}\n", file_node("x", &pieces, &format!(r#","size":{size}"#))).into_bytes()
}

fn snapshot_of(fixture: &Fixture, tree: &[u8]) -> SnapshotId {
    let json = format!(
        r#"{{"time":"2026-01-01T00:00:00Z","tree":"{}","paths":["/x"],"hostname":"forged"}}"#,
        Id::of(tree)
    );
    write(fixture, FileKind::Snapshot, json.as_bytes())
}

#[test]
fn packs_that_mix_trees_and_data_or_are_listed_in_parts_are_written_anew() {
    let fixture = Fixture::new();
    let tree = tree_of(&[b"one", b"two", b"three"]);
    let mixed = pack_of(&fixture, &[(BlobKind::Tree, &tree), (BlobKind::Data, b"one")]);
    let split = pack_of(&fixture, &[(BlobKind::Data, b"two"), (BlobKind::Data, b"three")]);
    let part =
        |range: std::ops::Range<usize>| IndexedPack { id: split.id, blobs: split.blobs[range].to_vec() };
    write_index(&fixture, &[mixed.clone(), part(0..1)], &[]);
    write_index(&fixture, &[part(1..2)], &[]);
    let id = snapshot_of(&fixture, &tree);
    let report = prune(&fixture.repository, &at_once());
    assert_eq!(report.repacked.packs, 2);
    assert_eq!(read(&fixture.repository, &id, "/x"), b"onetwothree");
    judge(&fixture.path());
    let check = fixture.repository.check(&CheckOptions::default(), &control()).unwrap();
    assert_eq!(check.hints, Vec::<String>::new());
    assert!(prune(&fixture.repository, &at_once()).is_unchanged());
}

#[test]
fn a_doomed_pack_is_out_of_the_index_and_its_file_goes_later() {
    let fixture = Fixture::new();
    let first = store(&fixture.repository, "/x", &interleaved(2));
    let second = store(&fixture.repository, "/x", &interleaved(3));
    let packs = files(&fixture.path().join("data"));
    forget(&fixture.repository, &[first]);
    let report = prune(&fixture.repository, &in_phases());
    assert!(report.doomed.packs > 0 && report.removed == Amount::default(), "{report:?}");
    assert!(packs.iter().all(|pack| pack.exists()), "no file went");
    judge(&fixture.path());
    assert!(read(&fixture.repository, &second, "/x") == interleaved(3));

    // Until the time has come, a prune changes nothing.
    let before = content_of(&fixture.path());
    let waiting = prune(&fixture.repository, &in_phases());
    assert!(waiting.is_unchanged(), "{waiting:?}");
    assert_eq!(waiting.waiting, report.doomed);
    assert_eq!(content_of(&fixture.path()), before);

    // Then they go.
    let due = prune(&fixture.repository, &at_once());
    assert_eq!(due.removed, report.doomed);
    assert_eq!(packs.iter().filter(|pack| !pack.exists()).count() as u64, report.doomed.packs);
    judge(&fixture.path());
    assert!(prune(&fixture.repository, &in_phases()).is_unchanged());
    assert!(read(&fixture.repository, &second, "/x") == interleaved(3));
}

/// restic does not know what is doomed: its own prune takes it away at once, and harms nothing.
#[test]
fn restic_goes_on_where_packs_are_doomed() {
    for binary in restics() {
        let fixture = Fixture::new();
        let first = store(&fixture.repository, "/x", &interleaved(2));
        let second = store(&fixture.repository, "/x", &interleaved(3));
        forget(&fixture.repository, &[first]);
        let doomed = prune(&fixture.repository, &in_phases()).doomed;
        assert!(doomed.packs > 0);
        let source = fixture.scratch("source");
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("file"), noise(9, 100_000)).unwrap();
        restic_ok(&binary, &fixture.path(), &["backup", "-q", source.to_str().unwrap()]);
        restic_ok(&binary, &fixture.path(), &["prune"]);
        judge(&fixture.path());
        assert!(read(&fixture.reopen(), &second, "/x") == interleaved(3));
        assert_sound(&fixture.reopen(), "after restic's prune");
        prune(&fixture.reopen(), &in_phases());
        judge(&fixture.path());
    }
}

/// A client that ignores locks has written a snapshot that needs what was doomed meanwhile.
#[test]
fn a_doomed_pack_that_a_snapshot_needs_comes_back() {
    let fixture = Fixture::new();
    let tree = tree_of(&[b"one", b"two"]);
    let trees = pack_of(&fixture, &[(BlobKind::Tree, &tree)]);
    let data = pack_of(&fixture, &[(BlobKind::Data, b"one"), (BlobKind::Data, b"two")]);
    write_index(&fixture, &[trees, data.clone()], &[]);
    let first = snapshot_of(&fixture, &tree);
    forget(&fixture.repository, &[first]);
    let allowed = PruneOptions { may_leave_nothing: true, ..in_phases() };
    assert_eq!(prune(&fixture.repository, &allowed).doomed.packs, 2);
    // Its writer knew the old index. No reader finds what it needs now, and no check calls that sound.
    let id = snapshot_of(&fixture, &tree);
    assert!(!fixture.repository.check(&CheckOptions::default(), &control()).unwrap().is_sound());
    let report = prune(&fixture.repository, &in_phases());
    assert_eq!((report.recovered.packs, report.waiting.packs), (2, 0));
    assert_eq!(read(&fixture.repository, &id, "/x"), b"onetwo");
    judge(&fixture.path());
    assert!(prune(&fixture.repository, &at_once()).is_unchanged(), "it is as if it had never been doomed");
}

/// What rustic writes: a list with times, or without; an age that is not known is not old.
#[test]
fn the_list_of_another_writer_is_respected() {
    let now = Time::now();
    let day = 24 * 60 * 60;
    for (since, removed) in [
        (Some(Time::from_unix(now.seconds - 2 * day, 0)), true),
        (Some(Time::from_unix(now.seconds - day / 2, 0)), false),
        (Some(Time::from_unix(now.seconds + 2 * day, 0)), false),
        (None, false),
    ] {
        let fixture = Fixture::new();
        let kept = store(&fixture.repository, "/x", b"kept");
        let pack = pack_of(&fixture, &[(BlobKind::Data, b"doomed")]);
        write_index(&fixture, &[], &[DoomedPack { pack: pack.clone(), since }]);
        let report = prune(&fixture.repository, &in_phases());
        assert_eq!((report.removed.packs, report.waiting.packs), if removed { (1, 0) } else { (0, 1) });
        assert_eq!(report.unlisted_young.packs + report.unlisted.packs, 0, "it is known");
        let there = fixture.path().join("data").join(&pack.id.hex()[..2]).join(pack.id.hex()).exists();
        assert_eq!(there, !removed, "{since:?}");
        assert_eq!(read(&fixture.repository, &kept, "/x"), b"kept");
        judge(&fixture.path());
        assert!(prune(&fixture.repository, &in_phases()).is_unchanged(), "{since:?}");
        // From now on its age is known.
        let known: Vec<Option<Time>> = index_json(&fixture)
            .iter()
            .flat_map(|json| index::decode_doomed(&Id::default(), json).unwrap())
            .map(|doomed| doomed.since)
            .collect();
        assert_eq!(known.len(), usize::from(!removed));
        assert!(known.iter().all(Option::is_some), "{since:?}");
    }
    // Listed as well, it is not doomed, whatever the other list says; unneeded, its time begins now.
    let fixture = Fixture::new();
    store(&fixture.repository, "/x", b"kept");
    let pack = pack_of(&fixture, &[(BlobKind::Data, b"both")]);
    let long_ago = DoomedPack { pack: pack.clone(), since: Some(Time::from_unix(0, 0)) };
    write_index(&fixture, std::slice::from_ref(&pack), &[]);
    write_index(&fixture, &[], &[long_ago]);
    let report = prune(&fixture.repository, &in_phases());
    assert_eq!((report.removed.packs, report.doomed.packs), (0, 1));
    assert!(prune(&fixture.repository, &in_phases()).is_unchanged());
}

/// A client that takes no lock has stored packs, and not yet its index.
#[test]
fn packs_that_no_index_names_yet_stay_until_they_are_old() {
    let fixture = Fixture::new();
    let other = store(&fixture.repository, "/other", b"other");
    let tree = tree_of(&[b"one"]);
    let packs =
        [pack_of(&fixture, &[(BlobKind::Tree, &tree)]), pack_of(&fixture, &[(BlobKind::Data, b"one")])];
    let report = prune(&fixture.repository, &PruneOptions { delete_after: Duration::ZERO, ..in_phases() });
    assert_eq!((report.unlisted_young.packs, report.unlisted.packs), (2, 0));
    assert!(report.is_unchanged());
    write_index(&fixture, &packs, &[]);
    let id = snapshot_of(&fixture, &tree);
    assert_eq!(read(&fixture.repository, &id, "/x"), b"one");
    judge(&fixture.path());

    // Nobody's, and old enough by the clock of the store.
    let garbage = pack_of(&fixture, &[(BlobKind::Data, b"nobody's")]);
    let path = fixture.path().join("data").join(&garbage.id.hex()[..2]).join(garbage.id.hex());
    let set = |age: u64| {
        let time = std::time::SystemTime::now() - Duration::from_secs(age);
        let file = std::fs::File::open(&path).unwrap();
        file.set_times(std::fs::FileTimes::new().set_modified(time)).unwrap();
    };
    set(23 * 60 * 60);
    assert_eq!(prune(&fixture.repository, &in_phases()).unlisted_young.packs, 1);
    set(25 * 60 * 60);
    assert_eq!(prune(&fixture.repository, &in_phases()).unlisted.packs, 1);
    assert!(!path.exists());
    judge(&fixture.path());
    assert_eq!(read(&fixture.repository, &other, "/other"), b"other");
}

#[test]
fn without_a_snapshot_nothing_goes_unless_that_is_allowed() {
    let fixture = Fixture::new();
    assert!(prune(&fixture.repository, &at_once()).is_unchanged(), "of nothing there is nothing to take");
    let id = store(&fixture.repository, "/x", &noise(6, 100_000));
    forget(&fixture.repository, &[id]);
    let before = content_of(&fixture.path());
    for options in [at_once(), in_phases(), PruneOptions { dry_run: true, ..at_once() }] {
        let error = fixture.repository.prune(&options, &control()).unwrap_err();
        assert!(matches!(error, RepositoryError::Refused { .. }), "{error}");
    }
    assert_eq!(content_of(&fixture.path()), before);
    let report = prune(&fixture.repository, &PruneOptions { may_leave_nothing: true, ..at_once() });
    assert!(report.removed.packs > 0 && report.blobs == 0);
    assert!(
        files(&fixture.path().join("data")).is_empty() && files(&fixture.path().join("index")).is_empty()
    );
    judge(&fixture.path());
    store(&fixture.repository, "/x", b"again");
    judge(&fixture.path());
}

/// What cannot be read is never unneeded: nothing is deleted, whatever it is.
#[test]
fn whatever_cannot_be_read_stops_it_with_nothing_deleted() {
    let fixture = Fixture::new();
    let first = store(&fixture.repository, "/x", &interleaved(2));
    let second = store(&fixture.repository, "/x", &interleaved(3));
    let third = store(&fixture.repository, "/y", &noise(7, 200_000));
    forget(&fixture.repository, &[first]);
    let index = fixture.repository.index(&control()).unwrap();
    let pack_of_blob = |kind, id: &Id| {
        let place = index.find(kind, id).unwrap().unwrap();
        fixture.path().join("data").join(&place.pack.hex()[..2]).join(place.pack.hex())
    };
    let root = fixture.repository.snapshot(&third, &control()).unwrap().tree.unwrap();
    let piece = fixture.repository.node(&third, &at("/y"), &control()).unwrap().content.unwrap()[0];
    let mut hurt: Vec<(PathBuf, &str)> = vec![
        (fixture.path().join("snapshots").join(third.hex()), "a snapshot"),
        (pack_of_blob(BlobKind::Tree, &root), "a tree"),
    ];
    hurt.extend(files(&fixture.path().join("index")).into_iter().map(|file| (file, "an index")));
    let mut stopped = 0;
    for (path, what) in hurt {
        let sound = std::fs::read(&path).unwrap();
        let mut bytes = sound.clone();
        bytes[20] ^= 1;
        for spoilt in [Some(bytes), None] {
            if spoilt.is_none() && what == "a snapshot" {
                continue; // Who removes a snapshot has forgotten it.
            }
            std::fs::remove_file(&path).unwrap();
            if let Some(bytes) = &spoilt {
                std::fs::write(&path, bytes).unwrap();
            }
            let before = content_of(&fixture.path());
            for options in [at_once(), in_phases()] {
                let what = format!("{what}, gone {}", spoilt.is_none());
                match fixture.reopen().prune(&options, &control()) {
                    Err(error) => {
                        assert!(
                            matches!(
                                error.root(),
                                RepositoryError::Damaged { .. } | RepositoryError::Missing { .. }
                            ),
                            "{what}: {error:?}"
                        );
                        stopped += 1;
                    }
                    // An index of which nothing is needed may be gone: what it listed was garbage.
                    Ok(report) => panic!("{what}: {report:?}"),
                }
                assert_eq!(content_of(&fixture.path()), before, "{what}");
            }
            overwrite_if_there(&path, &sound);
        }
    }
    assert!(stopped >= 12, "{stopped}");
    // A needed pack that is gone, or of another size.
    let path = pack_of_blob(BlobKind::Data, &piece);
    let sound = std::fs::read(&path).unwrap();
    for (spoilt, is_damaged) in [(None, false), (Some(&sound[..sound.len() - 1]), true)] {
        std::fs::remove_file(&path).unwrap();
        if let Some(bytes) = spoilt {
            std::fs::write(&path, bytes).unwrap();
        }
        let before = content_of(&fixture.path());
        let error = fixture.reopen().prune(&at_once(), &control()).unwrap_err();
        let told = match error.root() {
            RepositoryError::Damaged { what: Object::Pack, .. } => is_damaged,
            RepositoryError::Missing { what: Object::Pack, .. } => !is_damaged,
            _ => false,
        };
        assert!(told, "{error:?}");
        assert_eq!(content_of(&fixture.path()), before);
        overwrite_if_there(&path, &sound);
    }
    prune(&fixture.repository, &at_once());
    assert!(read(&fixture.repository, &second, "/x") == interleaved(3));
    judge(&fixture.path());
}

fn overwrite_if_there(path: &Path, bytes: &[u8]) {
    std::fs::remove_file(path).ok();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_blob_is_taken_from_another_copy_or_stops_it_with_nothing_deleted() {
    let fixture = Fixture::new();
    let tree = tree_of(&[b"one", b"two"]);
    let trees = pack_of(&fixture, &[(BlobKind::Tree, &tree)]);
    let half = pack_of(
        &fixture,
        &[(BlobKind::Data, b"one"), (BlobKind::Data, b"two"), (BlobKind::Data, b"garbage")],
    );
    write_index(&fixture, &[trees, half.clone()], &[]);
    let id = snapshot_of(&fixture, &tree);
    let path = fixture.path().join("data").join(&half.id.hex()[..2]).join(half.id.hex());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[half.blobs[1].offset as usize + 20] ^= 1;
    overwrite_if_there(&path, &bytes);
    let before = content_of(&fixture.path());
    let error = fixture.repository.prune(&at_once(), &control()).unwrap_err();
    match error.root() {
        RepositoryError::Damaged { what: Object::DataBlob, id, .. } => assert_eq!(*id, Id::of(b"two").hex()),
        other => panic!("{other:?}"),
    }
    assert_eq!(content_of(&fixture.path()), before);
    // Another pack has it: one that would be given up, too.
    let other = pack_of(
        &fixture,
        &[(BlobKind::Data, b"two"), (BlobKind::Data, b"more garbage than two can outweigh")],
    );
    write_index(&fixture, &[other], &[]);
    let report = prune(&fixture.repository, &at_once());
    assert_eq!(report.duplicates, 1);
    assert_eq!(read(&fixture.repository, &id, "/x"), b"onetwo");
    judge(&fixture.path());
    assert_sound(&fixture.repository, "after the prune");
}

/// The size of a pack shows nothing of a bit that has flipped in it: before another copy of a needed blob is given up, the one that
/// stays is read.
#[test]
fn the_last_sound_copy_of_a_blob_is_never_given_up_for_one_that_is_damaged() {
    for options in [at_once(), in_phases(), PruneOptions { max_unused: 0.9, ..at_once() }] {
        let fixture = Fixture::new();
        let tree = tree_of(&[b"one", b"two", b"three"]);
        let trees = pack_of(&fixture, &[(BlobKind::Tree, &tree)]);
        let large = pack_of(
            &fixture,
            &[(BlobKind::Data, b"one"), (BlobKind::Data, b"two"), (BlobKind::Data, b"three")],
        );
        let small = pack_of(&fixture, &[(BlobKind::Data, b"two")]);
        write_index(&fixture, &[trees, large.clone(), small.clone()], &[]);
        let id = snapshot_of(&fixture, &tree);
        let plan = prune(&fixture.repository, &PruneOptions { dry_run: true, ..options });
        assert_eq!((plan.duplicates, plan.spoilt), (1, 0));
        assert_eq!(plan.removed.packs + plan.doomed.packs, 1, "without damage the small one goes: {plan:?}");
        let pack =
            |pack: &IndexedPack| fixture.path().join("data").join(&pack.id.hex()[..2]).join(pack.id.hex());
        let path = pack(&large);
        let sound = std::fs::read(&path).unwrap();
        let mut bytes = sound.clone();
        bytes[large.blobs[1].offset as usize + 20] ^= 1;
        overwrite_if_there(&path, &bytes);
        let report = prune(&fixture.repository, &options);
        assert_eq!(report.spoilt, 1, "{report:?}");
        assert_eq!(read(&fixture.reopen(), &id, "/x"), b"onetwothree");
        let after = prune(&fixture.reopen(), &options);
        assert!(after.is_unchanged(), "{after:?}");
        assert_eq!(read(&fixture.reopen(), &id, "/x"), b"onetwothree");
    }
}

/// Where no copy is sound that could stay, it stops, and whatever may still be saved is left.
#[test]
fn a_blob_of_which_no_copy_is_sound_stops_it_with_nothing_deleted() {
    let fixture = Fixture::new();
    let tree = tree_of(&[b"one", b"two"]);
    let trees = pack_of(&fixture, &[(BlobKind::Tree, &tree)]);
    let packs = [
        pack_of(&fixture, &[(BlobKind::Data, b"one"), (BlobKind::Data, b"two")]),
        pack_of(&fixture, &[(BlobKind::Data, b"two")]),
    ];
    write_index(&fixture, &[trees, packs[0].clone(), packs[1].clone()], &[]);
    snapshot_of(&fixture, &tree);
    for pack in &packs {
        let path = fixture.path().join("data").join(&pack.id.hex()[..2]).join(pack.id.hex());
        let blob = pack.blobs.last().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[blob.offset as usize + 20] ^= 1;
        overwrite_if_there(&path, &bytes);
    }
    let before = content_of(&fixture.path());
    for dry_run in [true, false] {
        let error = fixture.repository.prune(&PruneOptions { dry_run, ..at_once() }, &control()).unwrap_err();
        assert!(matches!(error.root(), RepositoryError::Damaged { what: Object::DataBlob, .. }), "{error:?}");
        assert_eq!(content_of(&fixture.path()), before);
    }
}

#[test]
fn a_pack_that_is_gone_and_that_nobody_needs_is_no_longer_mentioned() {
    let fixture = Fixture::new();
    let first = store(&fixture.repository, "/x", &noise(2, 200_000));
    let old = files(&fixture.path().join("data"));
    let second = store(&fixture.repository, "/y", &noise(3, 200_000));
    forget(&fixture.repository, &[first]);
    std::fs::remove_file(&old[0]).unwrap();
    for options in [in_phases(), at_once()] {
        let report = prune(&fixture.repository, &options);
        assert_eq!(report.absent, u64::from(options.delete_after > Duration::ZERO));
        judge(&fixture.path());
    }
    assert!(read(&fixture.repository, &second, "/y") == noise(3, 200_000));
}

#[test]
fn locks_keep_a_prune_and_everybody_else_apart() {
    let fixture = Fixture::new();
    store(&fixture.repository, "/x", b"x");
    let run = || fixture.repository.prune(&at_once(), &control());
    let session = fixture.repository.begin(options("/y"), &control()).unwrap();
    assert!(matches!(run(), Err(RepositoryError::Locked { .. })));
    // Looking at what would be done disturbs nobody.
    prune(&fixture.repository, &PruneOptions { dry_run: true, ..at_once() });
    session.abort().unwrap();
    run().unwrap();
    // During a prune nobody begins anything.
    let repository = fixture.repository.clone();
    forget(&fixture.repository, &[store(&fixture.repository, "/x", &interleaved(2))]);
    store(&fixture.repository, "/x", &interleaved(3));
    let (asked, path) = (Arc::new(AtomicU64::new(0)), fixture.path());
    let for_progress = Arc::clone(&asked);
    let during = Control {
        progress: Some(Arc::new(move |_| {
            let refused = repository.begin(options("/z"), &Control::new());
            assert!(matches!(refused, Err(RepositoryError::Locked { .. })));
            if for_progress.fetch_add(1, Ordering::SeqCst) == 0 {
                let newest = restics().pop().unwrap();
                let output =
                    crate::common::restic(&newest, &path, &["backup".as_ref(), "/etc/hostname".as_ref()]);
                assert!(String::from_utf8_lossy(&output.stderr).contains("locked"), "{output:?}");
            }
        })),
        ..Control::new()
    };
    fixture.repository.prune(&at_once(), &during).unwrap();
    assert!(asked.load(Ordering::SeqCst) > 0);
    // What a crash on another host left is respected, however old.
    let json =
        r#"{"time":"2020-01-01T00:00:00Z","exclusive":false,"hostname":"another","username":"x","pid":1}"#;
    write(&fixture, FileKind::Lock, json.as_bytes());
    assert!(matches!(run(), Err(RepositoryError::Locked { .. })));
    for lock in files(&fixture.path().join("locks")) {
        std::fs::remove_file(lock).unwrap();
    }
    // What a crash on this host left is reaped.
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let dead = child.id();
    child.wait().unwrap();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let now = Time::now();
    let json = format!(
        r#"{{"time":"{now}","exclusive":true,"hostname":"{}","username":"x","pid":{dead}}}"#,
        host.trim()
    );
    write(&fixture, FileKind::Lock, json.as_bytes());
    run().unwrap();
    assert!(files(&fixture.path().join("locks")).is_empty());
}

/// Fault 36: a writer that was frozen so long that its lock was taken for that of somebody dead. It has relied on a piece that a
/// prune has removed since, or will: it must not acknowledge.
#[test]
fn a_frozen_writer_whose_pieces_were_pruned_fails_at_its_commit() {
    let mut told = BTreeSet::new();
    for options_of_prune in [at_once(), in_phases()] {
        for lock_is_gone in [true, false] {
            let fixture = Fixture::new();
            let content = noise(8, 300_000);
            let first = store(&fixture.repository, "/x", &content);
            store(&fixture.repository, "/y", b"another");
            // It goes to its work, and stores nothing new: every piece is there.
            let session = fixture.reopen().begin(options("/z"), &control()).unwrap();
            let mut file = session.file(&at("/z"), FileMeta::default(), CUTS).unwrap();
            file.write(&content).unwrap();
            file.finish().unwrap();
            // Time for its second look at the locks of others. Then it is frozen for half an hour; `restic unlock` removes its lock. Or somebody ignores locks.
            std::thread::sleep(Duration::from_millis(300));
            let lock = files(&fixture.path().join("locks")).pop().unwrap();
            let bytes = std::fs::read(&lock).unwrap();
            std::fs::remove_file(&lock).unwrap();
            forget(&fixture.repository, &[first]);
            prune(&fixture.repository, &options_of_prune);
            if !lock_is_gone {
                std::fs::write(&lock, &bytes).unwrap();
            }
            let error = session.commit(&control()).unwrap_err();
            told.insert(match error.root() {
                RepositoryError::Missing { what: Object::Pack, .. } => "pack",
                RepositoryError::Missing { what: Object::Lock, .. } => "lock",
                // It was frozen before it had looked a second time for the locks of others.
                RepositoryError::Locked { .. } => "locked",
                other => panic!("{other:?}"),
            });
            assert_eq!(fixture.repository.snapshots(&control()).unwrap().len(), 1);
            drop(session);
            for lock in files(&fixture.path().join("locks")) {
                std::fs::remove_file(lock).unwrap();
            }
            judge(&fixture.path());
        }
    }
    assert!(told.contains("pack"), "{told:?}");
}

/// Our own lock, removed by somebody who took us for dead: nothing may be deleted any more.
#[test]
fn a_prune_that_has_lost_its_lock_deletes_nothing() {
    let fixture = Fixture::new();
    let first = store(&fixture.repository, "/x", &interleaved(2));
    let second = store(&fixture.repository, "/x", &interleaved(3));
    forget(&fixture.repository, &[first]);
    let before: BTreeSet<PathBuf> = content_of(&fixture.path()).into_iter().collect();
    let locks = fixture.path().join("locks");
    let robbed = Control {
        progress: Some(Arc::new(move |_| {
            for lock in files(&locks) {
                std::fs::remove_file(lock).ok();
            }
        })),
        ..Control::new()
    };
    let error = fixture.repository.prune(&at_once(), &robbed).unwrap_err();
    assert!(matches!(error, RepositoryError::Missing { what: Object::Lock, .. }), "{error:?}");
    let after: BTreeSet<PathBuf> = content_of(&fixture.path()).into_iter().collect();
    assert!(after.is_superset(&before));
    judge(&fixture.path());
    prune(&fixture.repository, &at_once());
    assert!(read(&fixture.repository, &second, "/x") == interleaved(3));
    assert!(prune(&fixture.repository, &at_once()).is_unchanged());
    judge(&fixture.path());
}

#[test]
fn many_small_packs_and_index_files_become_few() {
    let fixture = Fixture::new();
    let contents: Vec<(SnapshotId, Vec<u8>)> = (0..20u64)
        .map(|n| {
            let content = noise(n, 3000);
            (store_stream(&fixture.repository, "/x", &content, Cuts::ContentDefined), content)
        })
        .collect();
    assert!(files(&fixture.path().join("index")).len() == 20);
    assert!(files(&fixture.path().join("data")).len() >= 40);
    let options = PruneOptions { delete_after: Duration::ZERO, ..PruneOptions::default() };
    let report = prune(&fixture.repository, &options);
    assert_eq!(report.repacked.packs, report.listed.packs);
    assert!(files(&fixture.path().join("index")).len() <= 2);
    assert!(files(&fixture.path().join("data")).len() <= 3);
    for (id, content) in &contents {
        assert!(read(&fixture.repository, id, "/x") == *content);
    }
    judge(&fixture.path());
    assert!(prune(&fixture.repository, &options).is_unchanged());
    // Index files alone: packs of a good size, each listed by a file of its own.
    let fixture = Fixture::new();
    for n in 0..20u64 {
        store(&fixture.repository, "/x", &noise(n, 20_000));
    }
    let report = prune(&fixture.repository, &PruneOptions { pack_size: 256, ..at_once() });
    assert_eq!((report.repacked.packs, report.indexes_replaced, report.indexes_written), (0, 20, 1));
    judge(&fixture.path());
}

#[test]
fn a_directory_that_is_too_large_to_be_held_is_written_anew() {
    let fixture = Fixture::new();
    let session = fixture.repository.begin(options("/x"), &control()).unwrap();
    let mut file =
        session.file(&at("/x"), FileMeta::default(), Cuts::Pages { page: 64, pages_per_piece: 1 }).unwrap();
    let mut content = Vec::new();
    for n in 0..130_000u32 {
        content.extend_from_slice(&n.to_le_bytes());
        content.resize(content.len() + 60, 0);
    }
    file.write(&content).unwrap();
    file.finish().unwrap();
    let id = session.commit(&control()).unwrap().id;
    let index = fixture.repository.index(&control()).unwrap();
    let trees = index.ids(BlobKind::Tree).unwrap();
    let large = trees
        .iter()
        .map(|id| index.find(BlobKind::Tree, id).unwrap().unwrap())
        .max_by_key(|place| place.blob.plain_length())
        .unwrap();
    assert!(large.blob.plain_length() > 8 << 20);
    // Its pack is listed in parts, so that it cannot stay: a box of nobody's follows the tree.
    let path = fixture.path().join("data").join(&large.pack.hex()[..2]).join(large.pack.hex());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.truncate(large.blob.length as usize);
    let key = master_key(&fixture);
    let boxed = key.seal(b"nobody's").unwrap();
    let more = PackedBlob {
        kind: BlobKind::Data,
        id: Id::of(b"nobody's"),
        offset: large.blob.length,
        length: u32::try_from(boxed.len()).unwrap(),
        uncompressed_length: None,
    };
    bytes.extend_from_slice(&boxed);
    let blobs = vec![large.blob, more];
    pack::finish(&key, &mut bytes, &blobs).unwrap();
    let pack = IndexedPack { id: Id::of(&bytes), blobs };
    fixture.repository.store().write(FileKind::Pack, &pack.id, bytes.into(), &control()).unwrap();
    let mut packs = vec![pack];
    for json in index_json(&fixture) {
        packs
            .extend(index::decode(&Id::default(), &json).unwrap().into_iter().filter(|p| p.id != large.pack));
    }
    for file in files(&fixture.path().join("index")) {
        std::fs::remove_file(&file).unwrap();
    }
    write_index(&fixture, &packs, &[]);
    let report = prune(&fixture.repository, &at_once());
    assert!(report.repacked.packs >= 1, "{report:?}");
    assert!(read(&fixture.repository, &id, "/x") == content);
    judge(&fixture.path());
    assert!(prune(&fixture.repository, &at_once()).is_unchanged());
}

/// An estate in memory: of three snapshots one was forgotten, packs of an earlier one are doomed, one pack is nobody's, and
/// some pieces have two copies.
struct Estate {
    frail: Arc<Frail>,
    kept: Vec<(SnapshotId, &'static str, Vec<u8>)>,
}

impl Estate {
    fn new() -> Self {
        let frail = Arc::new(Frail::default());
        let repository =
            Repository::init(&frail.store(), PASSWORD.as_bytes(), &init_options(), &control()).unwrap();
        let small = |seed: u64| {
            let (common, own) = (noise(1, 150_000), noise(seed, 150_000));
            common
                .chunks(16384)
                .zip(own.chunks(16384))
                .flat_map(|(a, b)| [a, b].concat())
                .collect::<Vec<u8>>()
        };
        let gone = store(&repository, "/gone", &noise(9, 100_000));
        let first = store(&repository, "/first", &small(2));
        forget(&repository, &[gone]);
        prune(&repository, &in_phases());
        let old = store(&repository, "/old", &small(3));
        // An index that the next writer does not see.
        let hidden: Vec<(String, Vec<u8>)> =
            frail.names("index").into_iter().map(|name| (name.clone(), frail.bytes(&name))).collect();
        for (name, _) in &hidden {
            frail.remove(name);
        }
        let last = store(&frail.open(), "/last", &small(4));
        for (name, bytes) in hidden {
            frail.put(&name, bytes);
        }
        forget(&repository, &[old]);
        // A pack of a writer that was killed, or has not come to its index.
        let bytes = noise(99, 70_000);
        let id = Id::of(&bytes).hex();
        frail.put(&format!("data/{}/{id}", &id[..2]), bytes);
        Self { frail, kept: vec![(first, "/first", small(2)), (last, "/last", small(4))] }
    }

    fn assert_whole(&self, frail: &Arc<Frail>, what: &str) {
        let repository = frail.open();
        assert_eq!(repository.snapshots(&control()).unwrap().len(), self.kept.len(), "{what}");
        for (id, path, content) in &self.kept {
            let stored = repository.read_file(id, &at(path), 1 << 30, &control());
            assert!(stored.unwrap_or_else(|e| panic!("{what}: {e}")) == *content, "{what}");
        }
        assert_sound(&repository, what);
    }

    fn restic_agrees(frail: &Frail, what: &str) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("repo");
        frail.dump(&path);
        let newest = restics().pop().unwrap();
        let output = crate::common::restic(&newest, &path, &["check".as_ref(), "--read-data".as_ref()]);
        assert!(output.status.success(), "{what}: {output:?}");
    }

    /// What a run that ended somewhere leaves is whole, and the next ends the work.
    fn assert_finished_by_the_next(&self, frail: &Arc<Frail>, options: &PruneOptions, what: &str) {
        for lock in frail.names("locks") {
            frail.remove(&lock);
        }
        self.assert_whole(frail, what);
        let repository = frail.open();
        repository.prune(options, &control()).unwrap_or_else(|e| panic!("{what}: {e}"));
        self.assert_whole(frail, what);
        assert_tight(&repository);
        let names = |frail: &Frail| (frail.names("data"), frail.names("index"));
        let before = names(frail);
        assert!(prune(&repository, options).is_unchanged(), "{what}: a second one changes something");
        assert_eq!(names(frail), before, "{what}");
    }
}

/// Killed before and after each change, a change that fails, an answer that is lost: nothing needed is lost, stock restic finds
/// the repository whole, and the next prune ends the work.
#[test]
fn a_prune_that_ends_at_any_moment_loses_nothing_and_is_finished_by_the_next() {
    let estate = Estate::new();
    for options in [at_once(), in_phases()] {
        let changes = {
            let frail = estate.frail.fork();
            let repository = frail.open();
            frail.plan(Counted::Changes, u64::MAX, Fault::Dies);
            let report = prune(&repository, &options);
            assert!(report.repacked.packs > 1 && report.duplicates > 3, "{report:?}");
            assert_eq!(report.unlisted.packs > 0, options.delete_after.is_zero(), "{report:?}");
            frail.heal()
        };
        assert!(changes > 7, "{changes}");
        let (failed, deleted) = (AtomicU64::new(0), AtomicU64::new(0));
        trials(4 * changes, |trial| {
            let fault = [Fault::Dies, Fault::DiesAfter, Fault::Fails, Fault::DoneButFails]
                [(trial % 4) as usize]
                .clone();
            let what = format!("change {} {fault:?}, {:?}", trial / 4, options.delete_after);
            let frail = estate.frail.fork();
            let repository = frail.open();
            frail.plan(Counted::Changes, trial / 4, fault);
            let result = repository.prune(&options, &control());
            let struck = frail.struck();
            frail.heal();
            let is_lock = struck.as_ref().is_none_or(|call| call.starts_with("delete locks/"));
            assert_eq!(result.is_ok(), is_lock, "{what} {struck:?}: {result:?}");
            failed.fetch_add(u64::from(result.is_err()), Ordering::SeqCst);
            let is_deletion = struck.is_some_and(|call| call.starts_with("delete data/"));
            deleted.fetch_add(u64::from(is_deletion), Ordering::SeqCst);
            if trial % 4 == 1 {
                Estate::restic_agrees(&frail, &what);
            }
            estate.assert_finished_by_the_next(&frail, &options, &what);
        });
        assert!(failed.into_inner() > 2 * changes);
        assert_eq!(deleted.into_inner() > 8, options.delete_after.is_zero());
    }
}

#[test]
fn a_prune_that_is_cancelled_at_any_call_loses_nothing() {
    let estate = Estate::new();
    let calls = {
        let frail = estate.frail.fork();
        let repository = frail.open();
        frail.plan(Counted::All, u64::MAX, Fault::Dies);
        prune(&repository, &at_once());
        frail.heal()
    };
    let stopped = AtomicU64::new(0);
    // Every third: reads are many.
    trials(calls.div_ceil(3), |trial| {
        let frail = estate.frail.fork();
        let repository = frail.open();
        let asked = Control::new();
        frail.plan(Counted::All, trial * 3, Fault::Cancels(asked.cancel.clone()));
        let result = repository.prune(&at_once(), &asked);
        frail.heal();
        let what = format!("call {}", trial * 3);
        if let Err(error) = &result {
            assert!(error.stop().is_some(), "{what}: {error:?}");
            stopped.fetch_add(1, Ordering::SeqCst);
        }
        drop(repository);
        assert!(frail.names("locks").is_empty(), "{what}: a lock stays");
        estate.assert_finished_by_the_next(&frail, &at_once(), &what);
    });
    assert!(stopped.into_inner() * 3 + 9 > calls, "of {calls}");
}

/// Fault 22 and failure 4: a listing that fails is never a shorter list, and one that tells of nothing is not believed.
#[test]
fn listings_that_fail_or_are_empty_delete_nothing() {
    let estate = Estate::new();
    let listings = {
        let frail = estate.frail.fork();
        let repository = frail.open();
        frail.plan(Counted::Listings, u64::MAX, Fault::Fails);
        prune(&repository, &at_once());
        frail.heal()
    };
    assert!(listings >= 6, "{listings}");
    let before = estate.frail.names("");
    let kinds: Mutex<BTreeSet<String>> = Mutex::default();
    trials(2 * listings, |trial| {
        let frail = estate.frail.fork();
        let repository = frail.open();
        let fault = if trial % 2 == 0 { Fault::Fails } else { Fault::Hides };
        let what = format!("listing {} {fault:?}", trial / 2);
        frail.plan(Counted::Listings, trial / 2, fault);
        let result = repository.prune(&at_once(), &control());
        let struck = frail.struck().unwrap();
        frail.heal();
        // A list of locks that hides those of others is no different from one without any.
        if trial % 2 == 0 || !struck.contains("locks") {
            assert!(result.is_err(), "{what} {struck}: {result:?}");
            let after: BTreeSet<String> = frail.names("").into_iter().collect();
            assert!(before.iter().all(|name| after.contains(name)), "{what} {struck}: something is gone");
        }
        kinds.lock().unwrap().insert(struck);
        estate.assert_finished_by_the_next(&frail, &at_once(), &what);
    });
    assert_eq!(kinds.into_inner().unwrap().len(), 4, "locks, snapshots, index and packs");
}

/// An append-only store: that it deletes nothing is said, and harms nothing.
#[test]
fn a_store_that_refuses_to_delete_is_an_error() {
    let estate = Estate::new();
    let frail = estate.frail.fork();
    let repository = frail.open();
    frail.refuse_deletions(true);
    let error = repository.prune(&at_once(), &control()).unwrap_err();
    assert!(matches!(error, RepositoryError::Store { action: "delete", .. }), "{error:?}");
    let ids: Vec<SnapshotId> = estate.kept.iter().map(|(id, _, _)| *id).collect();
    for lock in frail.names("locks") {
        frail.remove(&lock);
    }
    let error = repository.forget(&ids[..1], &ForgetOptions::default(), &control()).unwrap_err();
    assert!(matches!(error, RepositoryError::Store { action: "delete", .. }), "{error:?}");
    frail.refuse_deletions(false);
    Estate::restic_agrees(&frail, "append-only");
    estate.assert_finished_by_the_next(&frail, &at_once(), "append-only");
}

/// What was written anew before a failure is not written again.
#[test]
fn a_prune_that_failed_goes_on_where_it_was() {
    let origin = Arc::new(Frail::default());
    let repository =
        Repository::init(&origin.store(), PASSWORD.as_bytes(), &init_options(), &control()).unwrap();
    let first = store(&repository, "/x", &interleaved(2));
    let second = store(&repository, "/x", &interleaved(3));
    forget(&repository, &[first]);
    let whole = prune(&origin.fork().open(), &at_once()).written;
    let frail = origin.fork();
    let repository = frail.open();
    frail.plan(Counted::Packs, 4, Fault::Fails);
    repository.prune(&at_once(), &control()).unwrap_err();
    frail.heal();
    let rest = prune(&repository, &at_once()).written;
    assert!(rest.bytes < whole.bytes * 2 / 3, "{rest:?} of {whole:?}");
    assert!(read(&repository, &second, "/x") == interleaved(3));
    assert_sound(&repository, "after the second");
    assert_tight(&repository);
}

/// A store that keeps other bytes of a new pack than it was given: the old ones are still there.
#[test]
fn new_packs_that_the_store_has_spoilt_cost_nothing() {
    let estate = Estate::new();
    // At least one pack of data and one of trees is written; which data goes into which is drawn.
    trials(2, |number| {
        let frail = estate.frail.fork();
        let repository = frail.open();
        frail.plan(Counted::Packs, number, Fault::Flips);
        let error = repository.prune(&at_once(), &control()).unwrap_err();
        assert!(matches!(error.root(), RepositoryError::Damaged { what: Object::Pack, .. }), "{error:?}");
        frail.heal();
        estate.assert_finished_by_the_next(&frail, &at_once(), "spoilt");
    });
}

/// The tree of an empty directory, and a file without content, need nothing more; a directory without a tree stops it.
#[test]
fn trees_that_make_no_sense_stop_it() {
    for (node, is_fine) in [
        (file_node("a", &[], ""), true),
        (format!(r#"{{"name":"a","type":"dir","subtree":"{}","content":null}}"#, Id::of(tree::EMPTY)), true),
        (r#"{"name":"a","type":"dir","content":null}"#.to_owned(), false),
        (r#"{"name":"a","type":"dir","subtree":null}"#.to_owned(), false),
        (r#"{"name":"a","type":"file","content":["00"]}"#.to_owned(), false),
        (r#"{"name":"a\"b","type":"file","content":[]}"#.to_owned(), false),
    ] {
        let mut forge = Forge::new();
        forge.blob(BlobKind::Tree, tree::EMPTY);
        let tree = forge.tree(&format!("{{\"nodes\":[{node}]}}\n"));
        forge.commit(tree);
        let before = content_of(&forge.fixture.path());
        let result = forge.fixture.repository.prune(&at_once(), &control());
        assert_eq!(result.is_ok(), is_fine, "{node}: {result:?}");
        if !is_fine {
            assert!(matches!(result, Err(RepositoryError::Inconsistent { what: Object::Tree, .. })));
            assert_eq!(content_of(&forge.fixture.path()), before);
        }
    }
}
