//! What restic 0.14, 0.18 and 0.19.1 wrote, we read; never regenerated.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use seaworthy_repository::crypto::Key;
use seaworthy_repository::{
    BlobKind, CheckOptions, CheckRead, Cuts, FaultKind, Object, OpenOptions, Repository, RepositoryError,
    RestoreOptions, SnapshotId, chunker, open_store, pack, tree,
};

use crate::common::{ManifestEntry, at, base64, control, golden, golden_dir, manifest, noise, sha256};

fn by_tag(repository: &Repository, tag: &str) -> SnapshotId {
    let snapshots = repository.snapshots(&control()).unwrap();
    snapshots
        .iter()
        .find(|(_, s)| s.tags.first().is_some_and(|t| t == tag))
        .map(|(id, _)| *id)
        .expect("the tag")
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn assert_manifest(root: &Path, entries: &[ManifestEntry], lossy_links: bool) {
    assert!(rustix_is_root(), "owners and devices need root");
    for entry in entries {
        let path = root.join(entry.path());
        let name = path.display().to_string();
        let meta = path.symlink_metadata().unwrap_or_else(|e| panic!("{name}: {e}"));
        let mode = u32::from_str_radix(entry.mode.trim_start_matches("0o"), 8).unwrap();
        if entry.kind != "symlink" {
            assert_eq!(meta.mode() & 0o7777, mode & 0o7777, "{name}: {entry:?}");
        }
        assert_eq!((meta.uid(), meta.gid()), (entry.uid, entry.gid), "{name}");
        assert_eq!(
            i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec()),
            entry.mtime_ns,
            "{name}"
        );
        if let Some(sum) = &entry.sha256 {
            assert_eq!(&sha256(&std::fs::read(&path).unwrap()), sum, "{name}");
            assert_eq!(Some(meta.size()), entry.size, "{name}");
            assert_eq!(Some(meta.nlink()), entry.nlink, "{name}");
        }
        for (key, value) in &entry.rest {
            match key.as_str() {
                "xattrs_base64" => {
                    for (attribute, expected) in value.as_object().unwrap() {
                        let actual = xattr::get(&path, attribute).unwrap().expect("the attribute");
                        assert_eq!(actual, base64(expected.as_str().unwrap()), "{name} {attribute}");
                    }
                }
                "target_base64" => {
                    use std::os::unix::ffi::OsStrExt as _;
                    let actual = std::fs::read_link(&path).unwrap();
                    let expected = base64(value.as_str().unwrap());
                    if lossy_links {
                        assert_eq!(actual.to_string_lossy(), String::from_utf8_lossy(&expected), "{name}");
                    } else {
                        assert_eq!(actual.as_os_str().as_bytes(), expected, "{name}");
                    }
                }
                _ => {}
            }
        }
    }
}

fn rustix_is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

fn restore_and_compare(archive: &str, tag: &str, name: &str, keep: impl Fn(&Path) -> bool) {
    let (dir, repository) = golden(archive);
    let id = by_tag(&repository, tag);
    let target = dir.path().join("restored");
    let summary =
        repository.restore(&id, &at("/srv/golden"), &target, &RestoreOptions::default(), &control()).unwrap();
    assert!(summary.is_complete(), "{:?}", summary.problems);
    let entries: Vec<_> = manifest(name).into_iter().filter(|entry| keep(&entry.path())).collect();
    assert!(!entries.is_empty());
    assert_manifest(&target, &entries, tag == "by-0.14");
}

#[test]
fn version_1_restores_to_its_manifest() {
    restore_and_compare("v1", "v1", "v1", |_| true);
}

#[test]
fn every_snapshot_of_version_2_restores_to_its_manifest() {
    restore_and_compare("v2", "first", "v2-first", |_| true);
    restore_and_compare("v2", "nightly", "v2-second", |_| true);
    restore_and_compare("v2", "by-0.14", "v2-second", |_| true);
    restore_and_compare("v2", "by-0.18", "v2-second", |_| true);
    restore_and_compare("v2", "uncompressed", "v2-third", |p| {
        p.starts_with("dup") || p == Path::new("text.txt")
    });
}

#[test]
fn blobs_with_several_copies_restore() {
    let (dir, repository) = golden("v2");
    let id = by_tag(&repository, "duplicates");
    let target = dir.path().join("restored");
    repository.restore(&id, &at("/srv/golden/dup"), &target, &RestoreOptions::default(), &control()).unwrap();
    for entry in manifest("v2-third").iter().filter(|e| e.path().starts_with("dup/") && e.sha256.is_some()) {
        let path = target.join(entry.path().strip_prefix("dup").unwrap());
        assert_eq!(Some(sha256(&std::fs::read(path).unwrap())), entry.sha256);
    }
}

#[test]
fn the_stream_snapshot_reads_back() {
    let (_dir, repository) = golden("v2");
    let id = by_tag(&repository, "dump");
    let content = repository.read_file(&id, &at("/dump.sql"), 1 << 30, &control()).unwrap();
    assert_eq!(content, std::fs::read(golden_dir().join("v2-stdin.dump.sql")).unwrap());
    let refused = repository.read_file(&id, &at("/dump.sql"), 10, &control());
    assert!(matches!(refused, Err(RepositoryError::Refused { .. })), "{refused:?}");
}

#[test]
fn snapshots_are_listed_as_restic_lists_them() {
    for archive in ["v1", "v2", "damaged"] {
        let (_dir, repository) = golden(archive);
        let text = std::fs::read_to_string(golden_dir().join(format!("{archive}.snapshots.json"))).unwrap();
        let expected: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        let actual = repository.snapshots(&control()).unwrap();
        assert_eq!(actual.len(), expected.len());
        for ((id, snapshot), expected) in actual.iter().zip(&expected) {
            assert_eq!(id.hex(), expected["id"]);
            assert_eq!(snapshot.time.to_string(), expected["time"]);
            assert_eq!(snapshot.tree.unwrap().hex(), expected["tree"]);
            assert_eq!(snapshot.hostname, expected["hostname"]);
            // restic sorts them for display.
            let mut paths = snapshot.paths.clone();
            paths.sort();
            assert_eq!(serde_json::json!(paths), expected["paths"]);
            assert_eq!(snapshot.original.map(|id| id.hex()).as_deref(), expected["original"].as_str());
        }
    }
}

/// Section 21, test 4: parse and re-serialise every tree, and compare ids.
#[test]
fn every_tree_serialises_to_the_bytes_that_restic_wrote() {
    for archive in ["v1", "v2", "damaged"] {
        let (_dir, repository) = golden(archive);
        let mut trees = 0;
        repository
            .visit_trees(&control(), |id, bytes| {
                let nodes = tree::decode(id, bytes).unwrap();
                assert_eq!(
                    String::from_utf8_lossy(&tree::encode_unchecked(&nodes)),
                    String::from_utf8_lossy(bytes),
                    "{archive} {id}"
                );
                trees += 1;
            })
            .unwrap();
        assert!(trees >= 3, "{archive}: {trees}");
    }
}

#[test]
fn a_check_finds_nothing_in_what_is_whole() {
    for archive in ["v1", "v2"] {
        let (_dir, repository) = golden(archive);
        let options = CheckOptions { read: CheckRead::All, ..CheckOptions::default() };
        let report = repository.check(&options, &control()).unwrap();
        assert!(report.is_sound(), "{archive}: {:?}", report.findings);
        assert_eq!(report.packs_read, report.packs);
        assert!(report.snapshots.iter().all(|(_, whole)| *whole));
    }
}

/// Section 21, test 2: exactly the two faults, told apart, with their reach.
#[test]
fn the_damaged_repository_has_exactly_its_two_faults() {
    let (dir, repository) = golden("damaged");
    let truth: serde_json::Value =
        serde_json::from_slice(&std::fs::read(golden_dir().join("damaged.json")).unwrap()).unwrap();
    let snapshots: Vec<&str> =
        truth["snapshots_in_order"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
    let options = CheckOptions { read: CheckRead::All, ..CheckOptions::default() };
    let report = repository.check(&options, &control()).unwrap();
    assert_eq!(report.findings.len(), 2, "{:#?}", report.findings);
    let [missing, damaged] = &report.findings[..] else { unreachable!() };

    assert_eq!((missing.kind, missing.what), (FaultKind::Missing, Object::Pack));
    assert_eq!(missing.id.hex(), truth["missing_pack"]);
    let blobs: Vec<String> = missing.blobs.iter().map(|(_, id)| id.hex()).collect();
    assert_eq!(serde_json::json!(blobs), truth["blobs_in_missing_pack"]);
    let reach: Vec<_> = missing
        .reach
        .iter()
        .map(|r| (r.snapshot.hex(), String::from_utf8(r.path.clone()).unwrap()))
        .collect();
    assert_eq!(
        reach,
        [
            (snapshots[1].into(), "/srv/golden/two.bin".into()),
            (snapshots[1].into(), "/srv/golden/two.txt".into())
        ]
    );

    assert_eq!((damaged.kind, damaged.what), (FaultKind::Damaged, Object::Pack));
    assert_eq!(damaged.id.hex(), truth["flipped_pack"]);
    assert_eq!(damaged.blobs.len(), 1);
    assert_eq!(
        (damaged.blobs[0].0, damaged.blobs[0].1.hex()),
        (BlobKind::Data, truth["flipped_blob"].as_str().unwrap().into())
    );
    let reach: Vec<_> = damaged
        .reach
        .iter()
        .map(|r| (r.snapshot.hex(), String::from_utf8(r.path.clone()).unwrap()))
        .collect();
    assert_eq!(reach, [(snapshots[0].to_owned(), "/srv/golden/one.bin".to_owned())]);

    let whole: BTreeMap<String, bool> =
        report.snapshots.iter().map(|(id, whole)| (id.hex(), *whole)).collect();
    assert_eq!(snapshots.iter().map(|id| whole[*id]).collect::<Vec<_>>(), [false, false, true]);

    // Without reading, the flipped byte cannot be known.
    let report = repository.check(&CheckOptions::default(), &control()).unwrap();
    assert_eq!(report.findings.len(), 1);

    for (number, id) in snapshots.iter().enumerate() {
        let target = dir.path().join(format!("restored-{number}"));
        let id = SnapshotId::parse(id).unwrap();
        let summary = repository
            .restore(&id, &at("/srv/golden"), &target, &RestoreOptions::default(), &control())
            .unwrap();
        let lost: usize = [1, 2, 0][number];
        assert_eq!(summary.problem_count, lost as u64, "{:?}", summary.problems);
        // What could not be restored whole is not there.
        let there = std::fs::read_dir(&target).unwrap().count();
        assert_eq!(there, 2 - lost);
        if lost == 0 {
            assert_manifest(
                &target,
                &manifest("damaged-3")
                    .into_iter()
                    .filter(|e| !e.path().as_os_str().is_empty())
                    .collect::<Vec<_>>(),
                false,
            );
        }
    }
}

/// Section 21, test 1.
#[test]
fn byte_vectors_agree() {
    let v: serde_json::Value =
        serde_json::from_slice(&std::fs::read(golden_dir().join("v2-vectors.json")).unwrap()).unwrap();
    let text = |value: &serde_json::Value| hex(value.as_str().unwrap());
    let (dir, repository) = golden("v2");
    let root = dir.path().join("v2");

    // The user key is the scrypt output as it is, whatever bits of r are set.
    let key_file: serde_json::Value = serde_json::from_slice(
        &std::fs::read(root.join("keys").join(v["key_file"].as_str().unwrap())).unwrap(),
    )
    .unwrap();
    let user = Key::from_bytes(&text(&v["scrypt_output_hex"]).try_into().unwrap());
    let data = base64(key_file["data"].as_str().unwrap());
    assert_eq!(data[..16], text(&v["key_data"]["iv"])[..]);
    assert_eq!(data[data.len() - 16..], text(&v["key_data"]["mac"])[..]);
    assert_eq!(user.open(&data).unwrap(), text(&v["key_data"]["plaintext_hex"]));

    for r in ["r_raw", "r_clamped"] {
        let raw = [text(&v["master"]["encrypt"]), text(&v["master"]["k"]), text(&v["master"][r])].concat();
        let master = Key::from_bytes(&raw.try_into().unwrap());
        let config = std::fs::read(root.join("config")).unwrap();
        assert_eq!(master.open(&config).unwrap(), text(&v["config"]["plaintext_hex"]));
        let id = v["pack"]["id"].as_str().unwrap();
        let bytes = std::fs::read(root.join("data").join(&id[..2]).join(id)).unwrap();
        assert_eq!(sha256(&bytes), id);
        let blobs = pack::read(&master, &bytes).unwrap();
        assert_eq!(pack::encode_header(&blobs), text(&v["pack"]["header"]["plaintext_hex"]));
        assert_eq!(pack::size(&blobs), v["pack"]["file_size"].as_u64().unwrap());
        let second = &bytes[blobs[1].offset as usize..][..blobs[1].length as usize];
        assert_eq!(second[..16], text(&v["pack"]["blob_1"]["iv"])[..]);
        assert_eq!(second[second.len() - 16..], text(&v["pack"]["blob_1"]["mac"])[..]);
        assert_eq!(master.open(second).unwrap(), text(&v["pack"]["blob_1"]["plaintext_hex"]));
    }

    let id = SnapshotId::parse(v["snapshot"]["id"].as_str().unwrap()).unwrap();
    let snapshot = repository.snapshot(&id, &control()).unwrap();
    assert_eq!(String::from_utf8(snapshot.encode()).unwrap(), v["snapshot"]["json"].as_str().unwrap());
    assert_eq!(sha256(&vec![0; 524_288]), v["known_ids"]["chunk_of_524288_zero_bytes"].as_str().unwrap());
}

/// Section 21, test 5: the same polynomial cuts where restic cut.
#[test]
fn rabin_cuts_are_those_of_restic() {
    let (_dir, repository) = golden("v2");
    let tables = chunker::Tables::new(repository.polynomial());
    for (tag, name) in
        [("first", "big.bin"), ("nightly", "big.bin"), ("first", "sparse.bin"), ("first", "text.txt")]
    {
        let id = by_tag(&repository, tag);
        let path = at(&format!("/srv/golden/{name}"));
        let content = repository.read_file(&id, &path, 1 << 30, &control()).unwrap();
        let mut cutter = tables.cutter(Cuts::Rabin, 0).unwrap();
        let mut rest = &content[..];
        let mut ids = Vec::new();
        while let Some(n) = cutter.next_cut(rest) {
            ids.push(seaworthy_repository::Id::of(&rest[..n]));
            rest = &rest[n..];
        }
        if !rest.is_empty() {
            ids.push(seaworthy_repository::Id::of(rest));
        }
        assert_eq!(Some(ids), repository.node(&id, &path, &control()).unwrap().content, "{tag} {name}");
    }
}

#[test]
fn both_keys_open_and_others_do_not() {
    let (dir, repository) = golden("v2");
    let store = open_store(dir.path().join("v2")).unwrap();
    let other = Repository::open(&store, b"second-password", &OpenOptions::default(), &control()).unwrap();
    assert_eq!(other.id(), repository.id());
    assert_ne!(other.key_id(), repository.key_id());
    assert_eq!(repository.keys(&control()).unwrap().len(), 2);
    // Trap 17: no newline, no normalisation.
    for wrong in [&b"golden-password\n"[..], b"Golden-password", b"", &noise(1, 2000)] {
        let error = Repository::open(&store, wrong, &OpenOptions::default(), &control()).err();
        assert!(matches!(error, Some(RepositoryError::WrongKey { tried: 2 })), "{error:?}");
    }
}
