//! A repository is hostile input: no panic, no name outside the target, bounded memory (trap 20; section 21, test 7).

use std::ops::ControlFlow;

use proptest::prelude::*;
use seaworthy_repository::{
    BlobKind, CheckOptions, CheckRead, Cuts, FileKind, Id, OpenOptions, Repository, RestoreOptions,
    open_store,
};

use crate::common::{Fixture, Forge, at, control, file_node, files, noise, overwrite, store_stream};

#[test]
fn names_never_leave_the_target() {
    for name in ["..", ".", "", "a/b", "../escaped", "/escaped", "a\\\\x00b", "\\\\x2e\\\\x2e"] {
        let mut forge = Forge::new();
        let data = forge.blob(BlobKind::Data, b"evil");
        let inner =
            forge.tree(&format!("{{\"nodes\":[{}]}}\n", file_node("escaped", &[data], r#","size":4"#)));
        let file = file_node(name, &[data], r#","size":4"#);
        let dir = file
            .replace("\"file\"", "\"dir\"")
            .replace(&format!("[\"{data}\"]"), &format!("null,\"subtree\":\"{inner}\""));
        for node in [file, dir] {
            let fine = file_node("fine", &[data], r#","size":4"#);
            let tree = forge.tree(&format!("{{\"nodes\":[{node},{fine}]}}\n"));
            let id = forge.commit(tree);
            let scratch = tempfile::tempdir().unwrap();
            let target = scratch.path().join("deep/target");
            std::fs::create_dir_all(&target).unwrap();
            let summary = forge
                .fixture
                .repository
                .restore(&id, &at("/"), &target, &RestoreOptions::default(), &control())
                .unwrap();
            assert_eq!(summary.problem_count, 1, "{name:?}");
            assert_eq!(files(scratch.path()), [target.join("fine")], "{name:?}");
            let report = forge.fixture.repository.check(&CheckOptions::default(), &control()).unwrap();
            assert!(!report.is_sound(), "{name:?}");
        }
    }
}

/// A link and a directory of the same name: what lies below does not go through the link.
#[test]
fn links_are_never_followed() {
    let scratch = tempfile::tempdir().unwrap();
    let outside = scratch.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let mut forge = Forge::new();
    let data = forge.blob(BlobKind::Data, b"evil");
    let inner = forge.tree(&format!("{{\"nodes\":[{}]}}\n", file_node("escaped", &[data], r#","size":4"#)));
    let link = file_node("a", &[], "")
        .replace("\"file\"", "\"symlink\"")
        .replace("\"content\":[]", &format!("\"linktarget\":\"{}\",\"content\":null", outside.display()));
    let dir = file_node("a", &[], "")
        .replace("\"file\"", "\"dir\"")
        .replace("\"content\":[]", &format!("\"content\":null,\"subtree\":\"{inner}\""));
    let file = file_node("a", &[data], r#","size":4"#);
    for nodes in [[&link, &dir], [&dir, &link], [&link, &file], [&file, &link]] {
        let tree = forge.tree(&format!("{{\"nodes\":[{},{}]}}\n", nodes[0], nodes[1]));
        let id = forge.commit(tree);
        let target = tempfile::tempdir().unwrap();
        let summary = forge
            .fixture
            .repository
            .restore(&id, &at("/"), target.path(), &RestoreOptions::default(), &control())
            .unwrap();
        assert!(!summary.is_complete());
        assert_eq!(files(&outside).len(), 0);
    }
}

/// An authentic tree whose JSON breaks off: what came before is restored as it was, and what is missing is told once.
#[test]
fn a_tree_that_breaks_off_is_a_problem_and_the_rest_is_restored() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let mut forge = Forge::new();
    let data = forge.blob(BlobKind::Data, b"good");
    let file = |name| file_node(name, &[data], r#","size":4"#);
    let directory = |name, tree: Id| {
        file_node(name, &[], "")
            .replace("\"file\"", "\"dir\"")
            .replace("\"content\":[]", &format!("\"content\":null,\"subtree\":\"{tree}\""))
    };
    let link = file_node("link", &[], "")
        .replace("\"file\"", "\"symlink\"")
        .replace("\"content\":[]", "\"linktarget\":\"nowhere\",\"content\":null");
    let sound = forge.tree(&format!("{{\"nodes\":[{}]}}\n", file("inner")));
    let first = [directory("a", sound), file("b"), link].join(",");
    let bad = forge.tree(&format!("{{\"nodes\":[{first},{{\"name\":7}},{}]}}\n", file("z")));
    for (tree, below) in [(bad, ""), (forge.tree(&format!("{{\"nodes\":[{}]}}\n", directory("d", bad))), "d")]
    {
        let id = forge.commit(tree);
        let repository = &forge.fixture.repository;
        let target = tempfile::tempdir().unwrap();
        let options = RestoreOptions::default();
        let summary = repository.restore(&id, &at("/"), target.path(), &options, &control()).unwrap();
        assert_eq!(summary.problem_count, 1, "{:?}", summary.problems);
        assert_eq!(summary.problems[0].path, below.as_bytes());
        let there = target.path().join(below);
        assert_eq!(files(target.path()), ["a/inner", "b", "link"].map(|name| there.join(name)));
        assert!(there.join("link").is_symlink());
        for made in [there.join("a"), there.join("b")] {
            let meta = std::fs::metadata(&made).unwrap();
            assert_eq!((meta.permissions().mode() & 0o777, meta.mtime()), (0o644, 1_767_225_600), "{made:?}");
        }
        assert!(repository.list(&id, &at("/"), &control(), |_| ControlFlow::Continue(())).is_err());
        let report = repository.check(&CheckOptions::default(), &control()).unwrap();
        assert!(!report.is_sound());
        assert!(report.snapshots.iter().all(|(_, whole)| !whole), "{report:?}");
    }
}

#[test]
fn only_a_new_or_empty_directory_is_restored_into() {
    let fixture = Fixture::new();
    let id = store_stream(&fixture.repository, "/x", b"x", Cuts::ContentDefined);
    let target = fixture.scratch("target");
    std::fs::create_dir(&target).unwrap();
    let restore =
        || fixture.repository.restore(&id, &at("/"), &target, &RestoreOptions::default(), &control());
    restore().unwrap();
    assert!(restore().is_err(), "it is not empty any more");
    assert_eq!(std::fs::read(target.join("x")).unwrap(), b"x");
}

/// A tree that contains itself cannot be made (its id is its hash), but a very deep one can.
#[test]
fn endless_depth_is_refused() {
    let mut forge = Forge::new();
    let mut tree = forge.tree("{\"nodes\":[]}\n");
    for _ in 0..3000 {
        let dir = file_node("d", &[], "").replace("\"file\"", "\"dir\"");
        let dir = dir.replace("\"content\":[]", &format!("\"content\":null,\"subtree\":\"{tree}\""));
        tree = forge.tree(&format!("{{\"nodes\":[{dir}]}}\n"));
    }
    let id = forge.commit(tree);
    let repository = &forge.fixture.repository;
    assert!(repository.list(&id, &at("/"), &control(), |_| ControlFlow::Continue(())).is_err());
    assert!(!repository.check(&CheckOptions::default(), &control()).unwrap().is_sound());
    let target = forge.fixture.scratch("target");
    let restored = repository.restore(&id, &at("/"), &target, &RestoreOptions::default(), &control());
    assert!(restored.is_err() || restored.is_ok_and(|summary| !summary.is_complete()));
}

/// Every operation on a mutated repository ends in an answer; what it says is never "sound" when content is wrong.
fn survive(fixture: &Fixture) -> bool {
    let store = open_store(fixture.path()).unwrap();
    let Ok(repository) =
        Repository::open(&store, crate::common::PASSWORD.as_bytes(), &OpenOptions::default(), &control())
    else {
        return false;
    };
    let check = CheckOptions { read: CheckRead::All, ..CheckOptions::default() };
    let sound = repository.check(&check, &control()).is_ok_and(|report| report.is_sound());
    for (id, _) in repository.snapshots(&control()).unwrap_or_default() {
        let listed = repository.list(&id, &at("/"), &control(), |_| ControlFlow::Continue(()));
        let target = tempfile::tempdir().unwrap();
        let restored =
            repository.restore(&id, &at("/"), target.path(), &RestoreOptions::default(), &control());
        if sound {
            listed.unwrap();
            assert!(restored.unwrap().is_complete());
            assert_eq!(std::fs::read(target.path().join("x")).unwrap(), noise(1, 200_000));
        }
    }
    sound
}

#[test]
fn every_kind_of_file_cut_or_flipped_is_noticed_and_survived() {
    let original = Fixture::new();
    store_stream(&original.repository, "/x", &noise(1, 200_000), Cuts::ContentDefined);
    assert!(survive(&original));
    let names: Vec<_> = files(&original.path());
    for path in names {
        let whole = std::fs::read(&path).unwrap();
        let mut mutants: Vec<Vec<u8>> =
            vec![vec![], whole[..whole.len() / 2].to_vec(), [&whole[..], b"more"].concat()];
        for at in [0, 17, whole.len() / 3, whole.len() - 20, whole.len() - 1] {
            let mut mutant = whole.clone();
            mutant[at] ^= 0x40;
            mutants.push(mutant);
        }
        for mutant in mutants {
            overwrite(&path, &mutant);
            assert!(!survive(&original), "{} unnoticed", path.display());
        }
        overwrite(&path, &whole);
        assert!(survive(&original));
        std::fs::remove_file(&path).unwrap();
        // Without its snapshot file there is nothing left that could be wrong.
        assert_eq!(survive(&original), path.parent().unwrap().ends_with("snapshots"), "{}", path.display());
        std::fs::write(&path, &whole).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Authentic nonsense: what a writer with the key could put there.
    #[test]
    fn authentic_nonsense_is_survived(
        mutations in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        which in 0usize..3,
    ) {
        let mut forge = Forge::new();
        let data = forge.blob(BlobKind::Data, &noise(1, 200_000));
        let json = format!("{{\"nodes\":[{}]}}\n", file_node("x", &[data], r#","size":200000"#));
        let mutate = |text: &str| {
            let mut bytes = text.as_bytes().to_vec();
            for (at, byte) in &mutations {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            bytes
        };
        let tree_bytes = if which == 0 { mutate(&json) } else { json.into_bytes() };
        let tree = forge.blob(BlobKind::Tree, &tree_bytes);
        forge.commit(tree);
        for (n, kind, dir) in [(1, FileKind::Index, "index"), (2, FileKind::Snapshot, "snapshots")] {
            if which == n {
                let path = files(&forge.fixture.path().join(dir)).remove(0);
                let plain = forge.key.open(&std::fs::read(&path).unwrap()).unwrap();
                std::fs::remove_file(&path).unwrap();
                let mutant = mutate(&String::from_utf8(plain).unwrap());
                forge.unpacked(kind, &mutant);
            }
        }
        let store = open_store(forge.fixture.path()).unwrap();
        let repository = Repository::open(&store, crate::common::PASSWORD.as_bytes(), &OpenOptions::default(), &control()).unwrap();
        let check = CheckOptions { read: CheckRead::All, ..CheckOptions::default() };
        // Any answer will do; a panic, or a name outside the target, will not.
        repository.check(&check, &control()).ok();
        for (id, _) in repository.snapshots(&control()).unwrap_or_default() {
            let scratch = tempfile::tempdir().unwrap();
            let target = scratch.path().join("target");
            repository.restore(&id, &at("/"), &target, &RestoreOptions::default(), &control()).ok();
            for path in files(scratch.path()) {
                prop_assert!(path.starts_with(&target));
                let content = std::fs::read(&path).unwrap();
                prop_assert!(content.is_empty() || Id::of(&content) == data || content.len() % 200_000 == 0);
            }
        }
    }
}

/// A part of a file must not pass for the file: with one piece damaged, the others are not left behind.
#[test]
fn a_file_of_which_one_piece_is_damaged_is_not_left_behind() {
    let fixture = Fixture::new();
    let id = store_stream(&fixture.repository, "/x", &noise(1, 8_000_000), Cuts::ContentDefined);
    let node = fixture.repository.node(&id, &at("/x"), &control()).unwrap();
    assert!(node.content.unwrap().len() > 3);
    let largest = files(&fixture.path().join("data"))
        .into_iter()
        .max_by_key(|path| std::fs::metadata(path).unwrap().len())
        .unwrap();
    let mut bytes = std::fs::read(&largest).unwrap();
    // Within the last blob of the pack, so that others are written before.
    let at_byte = bytes.len() - 5000;
    bytes[at_byte] ^= 1;
    overwrite(&largest, &bytes);
    let target = fixture.scratch("target");
    let repository = fixture.reopen();
    let summary = repository.restore(&id, &at("/"), &target, &RestoreOptions::default(), &control()).unwrap();
    assert_eq!((summary.problem_count, summary.files), (1, 0));
    assert_eq!(files(&target), Vec::<std::path::PathBuf>::new());
    let mut reader = repository.open_file(&id, &at("/x"), &control()).unwrap();
    assert!(std::io::copy(&mut reader, &mut std::io::sink()).is_err());
}
