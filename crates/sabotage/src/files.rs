//! Wrong copies of a tree.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use seaworthy_repository::TreeOptions;
use seaworthy_testkit::estate::Dice;

use crate::Outcome;
use crate::case::{Ask, Case, Layer};
use crate::forge::{Papers, forge};
use crate::stage::Stage;

/// Stores the tree as it is now, with the original's papers.
pub(crate) fn forged(stage: &Stage, papers: Papers<'_>) -> Outcome<Ask> {
    let mut failed = None;
    forge(&stage.product, &stage.original, papers, |session| {
        if let Err(error) = session.tree(&stage.source, &TreeOptions::default(), &mut |_| {}) {
            failed = Some(error);
        }
        Ok(())
    })?;
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(Ask::drill()),
    }
}

fn change(
    name: &str,
    layer: Layer,
    what: &str,
    expected: &[&'static str],
    change: impl Fn(&Stage, &Path, &mut Dice) -> Outcome + Send + Sync + 'static,
) -> Case {
    Case::new(name, layer, what, expected, move |stage, dice| {
        change(stage, &stage.source, dice)?;
        forged(stage, Papers::default())
    })
}

/// Changes content in place and puts the times back, so that only the bytes tell.
fn alter(path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Outcome {
    let then = fs::metadata(path)?.modified()?;
    let mut bytes = fs::read(path)?;
    change(&mut bytes);
    fs::write(path, bytes)?;
    fs::File::open(path)?.set_modified(then)?;
    Ok(())
}

/// Puts the time of a directory back whose entries were changed.
fn settle(stage: &Stage, directory: &Path) -> Outcome {
    fs::File::open(directory)?.set_modified(stage.began())?;
    Ok(())
}

fn some_file(root: &Path, dice: &mut Dice) -> PathBuf {
    let names = ["ledger.csv", "inner/notes.txt", "inner/deep/log", "noise.bin"];
    root.join(names[dice.below(names.len() as u64) as usize])
}

/// Every case.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = content();
    cases.extend(metadata());
    cases.push(Case::new(
        "manifest-follows",
        Layer::Witness,
        "the manifest was changed with the file that it tells of",
        &["RP-05"],
        |stage, dice| {
            let path = some_file(&stage.source, dice);
            alter(&path, |bytes| bytes[7] ^= 1)?;
            let name = path.strip_prefix(&stage.source)?.to_string_lossy().into_owned();
            let without = |manifest: Vec<u8>| {
                let text = String::from_utf8_lossy(&manifest).into_owned();
                let kept = text.split_inclusive('\n').filter(|line| !line.trim_end().ends_with(&name));
                kept.collect::<String>().into_bytes()
            };
            forged(stage, Papers { manifest: Some(&without), ..Papers::default() })
        },
    ));
    cases
}

fn content() -> Vec<Case> {
    let dump = Layer::Dump;
    vec![
        change("one-bit", dump, "one bit, size and times kept", &["FS-02"], |_, root, dice| {
            let path = some_file(root, dice);
            let (at, bit) = (dice.roll(), dice.below(8));
            alter(&path, |bytes| {
                let at = (at % bytes.len() as u64) as usize;
                bytes[at] ^= 1 << bit;
            })
        }),
        change("byte-short", dump, "a byte short", &["FS-02"], |_, root, dice| {
            alter(&some_file(root, dice), |bytes| bytes.truncate(bytes.len() - 1))
        }),
        change("byte-long", dump, "a byte more", &["FS-02"], |_, root, dice| {
            alter(&some_file(root, dice), |bytes| bytes.push(b'\n'))
        }),
        change("zeroed", dump, "a block of zeroes, as after a crash", &["FS-02"], |_, root, dice| {
            alter(&some_file(root, dice), |bytes| bytes[..512].fill(0))
        }),
        change("emptied", dump, "a file is empty", &["FS-02"], |_, root, dice| {
            alter(&some_file(root, dice), Vec::clear)
        }),
        change("exchanged", dump, "two files have each other's content", &["FS-02"], |_, root, _| {
            let (one, other) = (root.join("ledger.csv"), root.join("inner/notes.txt"));
            let (a, b) = (fs::read(&one)?, fs::read(&other)?);
            alter(&one, |bytes| *bytes = b)?;
            alter(&other, |bytes| *bytes = a)
        }),
        change("file-gone", dump, "a file is missing", &["FS-01"], |stage, root, dice| {
            let path = some_file(root, dice);
            fs::remove_file(&path)?;
            settle(stage, path.parent().unwrap_or(root))
        }),
        change("empty-file-gone", dump, "an empty file is missing", &["FS-01"], |stage, root, _| {
            fs::remove_file(root.join("empty"))?;
            settle(stage, root)
        }),
        change(
            "directory-gone",
            dump,
            "an exclude pattern was too broad: a directory is missing",
            &["FS-01"],
            |stage, root, _| {
                fs::remove_dir_all(root.join("inner/deep"))?;
                settle(stage, &root.join("inner"))
            },
        ),
        change("file-too-many", dump, "a file too many", &["FS-01"], |stage, root, _| {
            fs::write(root.join("intruder"), "x")?;
            settle(stage, root)
        }),
        change("file-renamed", dump, "a file has another name", &["FS-01"], |stage, root, _| {
            fs::rename(root.join("ledger.csv"), root.join("Ledger.csv"))?;
            settle(stage, root)
        }),
        change("hole-filled-with-data", dump, "a hole has content", &["FS-02"], |_, root, dice| {
            let at = 10_000 + dice.below(200_000) as usize;
            alter(&root.join("disk.img"), |bytes| bytes[at] = 1)
        }),
    ]
}

fn metadata() -> Vec<Case> {
    let dump = Layer::Dump;
    vec![
        change("mode", dump, "another mode", &["FS-03"], |_, root, dice| {
            fs::set_permissions(some_file(root, dice), fs::Permissions::from_mode(0o777))?;
            Ok(())
        }),
        change("mode-of-directory", dump, "a directory has another mode", &["FS-03"], |_, root, _| {
            fs::set_permissions(root.join("inner"), fs::Permissions::from_mode(0o700))?;
            Ok(())
        }),
        change("owner", dump, "another owner", &["FS-03"], |_, root, dice| {
            std::os::unix::fs::chown(some_file(root, dice), Some(12_345), None)?;
            Ok(())
        }),
        change("group", dump, "another group", &["FS-03"], |_, root, dice| {
            std::os::unix::fs::chown(some_file(root, dice), None, Some(12_345))?;
            Ok(())
        }),
        change("one-nanosecond", dump, "one nanosecond", &["FS-03"], |stage, root, dice| {
            fs::File::open(some_file(root, dice))?.set_modified(stage.began() + Duration::from_nanos(1))?;
            Ok(())
        }),
        change("attribute-gone", dump, "an extended attribute is missing", &["FS-03"], |_, root, _| {
            xattr::remove(root.join("other"), "user.origin")?;
            Ok(())
        }),
        change(
            "attribute-otherwise",
            dump,
            "an extended attribute has another value",
            &["FS-03"],
            |_, root, _| {
                xattr::set(root.join("other"), "user.origin", b"tset")?;
                Ok(())
            },
        ),
        change("link-elsewhere", dump, "a link points elsewhere", &["FS-04"], |stage, root, _| {
            fs::remove_file(root.join("current"))?;
            std::os::unix::fs::symlink("other", root.join("current"))?;
            stage.settle_link(&root.join("current"))?;
            settle(stage, root)
        }),
        change("file-for-link", dump, "a file for a link", &["FS-04"], |stage, root, _| {
            fs::remove_file(root.join("current"))?;
            fs::write(root.join("current"), "ledger.csv")?;
            settle(stage, &root.join("current"))?;
            settle(stage, root)
        }),
        change("directory-for-file", dump, "a directory for a file", &["FS-04"], |stage, root, _| {
            fs::remove_file(root.join("empty"))?;
            fs::create_dir(root.join("empty"))?;
            settle(stage, &root.join("empty"))?;
            settle(stage, root)
        }),
        change("link-broken", dump, "a hard link became two files", &["FS-07"], |stage, root, _| {
            let twin = root.join("inner/twin");
            let bytes = fs::read(&twin)?;
            fs::remove_file(&twin)?;
            fs::write(&twin, bytes)?;
            xattr::set(&twin, "user.origin", b"test")?;
            settle(stage, &twin)?;
            settle(stage, &root.join("inner"))
        }),
        change("link-joined", dump, "two files became one", &["FS-07", "FS-02"], |stage, root, _| {
            let notes = root.join("inner/notes.txt");
            fs::remove_file(&notes)?;
            fs::hard_link(root.join("ledger.csv"), &notes)?;
            settle(stage, &root.join("inner"))
        }),
    ]
}
