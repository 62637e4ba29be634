//! What is left of an old place is taken instead of being fetched, where it is the same, and never where it is not.

use std::fs;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::Path;

use seaworthy_repository::{ParentUse, RestoreOptions};

use crate::common::{Fixture, assert_same_tree, at, control, noise, odd_directory, store_tree};

fn from(old: &Path) -> RestoreOptions {
    RestoreOptions { reuse: Some(old.to_path_buf()), ..RestoreOptions::default() }
}

#[test]
fn what_is_the_same_is_not_fetched_and_what_is_not_is() {
    let fixture = Fixture::new();
    let source = fixture.scratch("source");
    odd_directory(&source);
    fs::create_dir(source.join("large")).unwrap();
    for name in ["same", "flipped", "cut", "longer", "gone", "led-astray", "pipe", "directory"] {
        fs::write(source.join("large").join(name), noise(u64::from(name.as_bytes()[0]), 5 << 20)).unwrap();
    }
    fs::write(source.join("large/exchanged-a"), noise(1, 3 << 20)).unwrap();
    fs::write(source.join("large/exchanged-b"), noise(2, 3 << 20)).unwrap();
    let committed = store_tree(&fixture.repository, &source, ParentUse::None);
    let under = at(source.to_str().unwrap());
    let restore = |name: &str, options: &RestoreOptions| {
        let target = fixture.scratch(name);
        let summary =
            fixture.repository.restore(&committed.id, &under, &target, options, &control()).unwrap();
        assert!(summary.is_complete(), "{:?}", summary.problems);
        assert_same_tree(&source, &target);
        summary
    };
    let whole = restore("whole", &RestoreOptions::default());
    assert_eq!(whole.bytes_reused, 0);
    // Everything is there: nothing but trees is fetched.
    let all = restore("all", &from(&source));
    assert_eq!(all.bytes_reused, all.bytes);
    assert!(all.bytes_read * 20 < whole.bytes_read, "{} of {}", all.bytes_read, whole.bytes_read);

    // What is left of it, in every state.
    let old = fixture.scratch("old");
    fixture.repository.restore(&committed.id, &under, &old, &RestoreOptions::default(), &control()).unwrap();
    let big = old.join("large");
    fs::File::options().write(true).open(big.join("flipped")).unwrap().write_all_at(b"?", 1 << 20).unwrap();
    fs::File::options().write(true).open(big.join("cut")).unwrap().set_len(2 << 20).unwrap();
    fs::File::options().write(true).open(big.join("longer")).unwrap().set_len(9 << 20).unwrap();
    fs::remove_file(big.join("gone")).unwrap();
    fs::rename(big.join("exchanged-a"), big.join("x")).unwrap();
    fs::rename(big.join("exchanged-b"), big.join("exchanged-a")).unwrap();
    fs::rename(big.join("x"), big.join("exchanged-b")).unwrap();
    let elsewhere = fixture.scratch("elsewhere");
    fs::copy(source.join("large/led-astray"), &elsewhere).unwrap();
    fs::remove_file(big.join("led-astray")).unwrap();
    symlink(&elsewhere, big.join("led-astray")).unwrap();
    for name in ["pipe", "directory"] {
        fs::remove_file(big.join(name)).unwrap();
    }
    rustix::fs::mknodat(
        rustix::fs::CWD,
        big.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    fs::create_dir(big.join("directory")).unwrap();
    let some = restore("some", &from(&old));
    // Of what was changed the rest is the same, but nothing is taken by way of a link.
    // Surely fetched: `gone`, `led-astray`, `pipe`, `directory`, and both that were exchanged. Surely not: `same`, `longer`.
    let (fetched, taken) = ((4 * 5 + 2 * 3) << 20, (2 * 5) << 20);
    assert!(some.bytes_reused >= taken, "{}", some.bytes_reused);
    assert!(some.bytes - some.bytes_reused >= fetched, "{} of {}", some.bytes_reused, some.bytes);
    assert!(some.bytes_read >= fetched && some.bytes_read < whole.bytes_read - taken, "{}", some.bytes_read);
    assert_eq!(fs::metadata(big.join("cut")).unwrap().len(), 2 << 20, "it is only read");

    // A place that is named and not there is no place to take anything from.
    let nowhere = fixture.scratch("nowhere");
    let (target, options) = (fixture.scratch("never"), from(&nowhere));
    let error = fixture.repository.restore(&committed.id, &under, &target, &options, &control()).unwrap_err();
    assert!(error.to_string().contains("old place"), "{error}");
}
