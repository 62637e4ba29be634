//! Damage to the objects of a repository: what media, administrators and attackers do to them.

use std::fs;
use std::path::{Path, PathBuf};

use seaworthy_repository::{Control, InitOptions, KdfParams, Repository, open_store};
use seaworthy_testkit::estate::Dice;
use seaworthy_testkit::product::PASSWORD;

use crate::Outcome;
use crate::case::{Ask, Case, Kind, Layer, Step};
use crate::stage::{Stage, copy_all, remove};

/// Objects of a kind, sorted.
fn objects(stage: &Stage, kind: &str) -> Outcome<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![stage.product.repository().join(kind)];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn one(stage: &Stage, kind: &str, dice: &mut Dice) -> Outcome<PathBuf> {
    let all = objects(stage, kind)?;
    let index = dice.below(all.len() as u64) as usize;
    all.get(index).cloned().ok_or_else(|| format!("there is nothing in `{kind}`").into())
}

/// Writes an object's bytes anew, whatever its mode.
fn overwrite(path: &Path, bytes: &[u8]) -> Outcome {
    let mode = fs::metadata(path)?.permissions();
    fs::remove_file(path)?;
    fs::write(path, bytes)?;
    fs::set_permissions(path, mode)?;
    Ok(())
}

fn flip(path: &Path, range: std::ops::Range<usize>, dice: &mut Dice) -> Outcome {
    let mut bytes = fs::read(path)?;
    let at = range.start + dice.below((range.end - range.start) as u64) as usize;
    bytes[at] ^= 1 << dice.below(8);
    overwrite(path, &bytes)
}

/// Length of a pack's blobs, which its header follows: four bytes at the end tell the header's length.
fn blobs_end(bytes: &[u8]) -> Outcome<usize> {
    let tail = bytes.last_chunk::<4>().ok_or("a pack of less than four bytes")?;
    let header = u32::from_le_bytes(*tail) as usize;
    bytes.len().checked_sub(header + 4).ok_or_else(|| "a pack with a longer header than itself".into())
}

fn case(
    name: &str,
    what: &str,
    expected: &[&'static str],
    act: impl Fn(&Stage, &mut Dice) -> Outcome + Send + Sync + 'static,
) -> Case {
    Case::new(name, Layer::Repository, what, expected, move |stage, dice| {
        act(stage, dice)?;
        Ok(Ask::drill())
    })
}

/// Damage that only a reading of everything can see, because the restore does not need what is damaged.
fn audited(
    name: &str,
    what: &str,
    expected: &[&'static str],
    act: impl Fn(&Stage, &mut Dice) -> Outcome + Send + Sync + 'static,
) -> Case {
    Case::new(name, Layer::Repository, what, expected, move |stage, dice| {
        act(stage, dice)?;
        Ok(Ask::steps(vec![Step::of(&["check", "--read-data"])]))
    })
}

/// Every case for a kind.
pub(crate) fn cases(_kind: Kind) -> Vec<Case> {
    let mut cases = objects_damaged();
    cases.extend(objects_gone());
    cases.extend(repositories());
    cases
}

fn objects_damaged() -> Vec<Case> {
    vec![
        case("pack-flipped", "one bit in a pack", &["RP-01"], |stage, dice| {
            let path = one(stage, "data", dice)?;
            let end = blobs_end(&fs::read(&path)?)?;
            flip(&path, 0..end, dice)
        }),
        audited(
            "pack-header-flipped",
            "one bit in the header of a pack",
            &["RP-01", "RP-03"],
            |stage, dice| {
                let path = one(stage, "data", dice)?;
                let bytes = fs::read(&path)?;
                flip(&path, blobs_end(&bytes)?..bytes.len(), dice)
            },
        ),
        audited(
            "pack-flipped-for-an-audit",
            "one bit anywhere in a pack",
            &["RP-01", "RP-03"],
            |stage, dice| {
                let path = one(stage, "data", dice)?;
                let length = fs::read(&path)?.len();
                flip(&path, 0..length, dice)
            },
        ),
        case("pack-cut", "a pack is cut off", &["RP-01", "RP-02"], |stage, dice| {
            let path = one(stage, "data", dice)?;
            let bytes = fs::read(&path)?;
            let end = blobs_end(&bytes)?;
            overwrite(&path, &bytes[..dice.below(end as u64) as usize])
        }),
        case("pack-empty", "a pack is an empty file", &["RP-01", "RP-02"], |stage, dice| {
            overwrite(&one(stage, "data", dice)?, &[])
        }),
        case("pack-overwritten", "a pack holds other bytes of the same size", &["RP-01"], |stage, dice| {
            let path = one(stage, "data", dice)?;
            let mut bytes = fs::read(&path)?;
            dice.fill(&mut bytes);
            overwrite(&path, &bytes)
        }),
        case("packs-exchanged", "two packs have each other's name", &["RP-01", "RP-07"], |stage, _| {
            let all = objects(stage, "data")?;
            let (one, other) = match all.as_slice() {
                [one, .., other] => (one, other),
                _ => return Err("less than two packs".into()),
            };
            let (a, b) = (fs::read(one)?, fs::read(other)?);
            overwrite(one, &b)?;
            overwrite(other, &a)
        }),
        case("index-flipped", "one bit in an index", &["RP-01", "RP-03"], |stage, dice| {
            let path = one(stage, "index", dice)?;
            let length = fs::read(&path)?.len();
            flip(&path, 0..length, dice)
        }),
        case("snapshot-flipped", "one bit in a snapshot", &["RP-01"], |stage, dice| {
            let path = one(stage, "snapshots", dice)?;
            let length = fs::read(&path)?.len();
            flip(&path, 0..length, dice)
        }),
        case(
            "config-flipped",
            "one bit in the repository's configuration",
            &["RP-01", "KY-01"],
            |stage, dice| {
                let path = stage.product.repository().join("config");
                let length = fs::read(&path)?.len();
                flip(&path, 0..length, dice)
            },
        ),
        case(
            "key-overwritten",
            "the file of the key holds other bytes",
            &["KY-01", "RP-01"],
            |stage, dice| {
                let path = one(stage, "keys", dice)?;
                let mut bytes = fs::read(&path)?;
                dice.fill(&mut bytes);
                overwrite(&path, &bytes)
            },
        ),
    ]
}

fn objects_gone() -> Vec<Case> {
    vec![
        case("pack-gone", "a pack is missing", &["RP-02"], |stage, dice| {
            Ok(fs::remove_file(one(stage, "data", dice)?)?)
        }),
        case("indexes-gone", "every index is missing", &["RP-02", "RP-03"], |stage, _| {
            objects(stage, "index")?.iter().try_for_each(|path| Ok(fs::remove_file(path)?))
        }),
        case("snapshot-gone", "only the files of one snapshot were deleted", &["RP-02"], |stage, dice| {
            Ok(fs::remove_file(one(stage, "snapshots", dice)?)?)
        }),
        case("key-gone", "the key is missing", &["KY-01"], |stage, dice| {
            Ok(fs::remove_file(one(stage, "keys", dice)?)?)
        }),
        case(
            "everything-gone",
            "the repository is an empty directory",
            &["RP-02", "IO-UNREACHABLE"],
            |stage, _| {
                let repository = stage.product.repository();
                remove(&repository)?;
                Ok(fs::create_dir(repository)?)
            },
        ),
        case(
            "unmounted",
            "the directory of the repository is missing",
            &["RP-02", "IO-UNREACHABLE"],
            |stage, _| remove(&stage.product.repository()),
        ),
    ]
}

fn repositories() -> Vec<Case> {
    vec![
        case(
            "rolled-back",
            "the repository is that of before the last backup",
            &["RP-02", "RP-06"],
            |stage, _| {
                let kept = stage.scrap().join("older");
                copy_all(&stage.product.repository(), &kept)?;
                stage.product.backup("it")?;
                remove(&stage.product.repository())?;
                copy_all(&kept, &stage.product.repository())
            },
        ),
        case(
            "packs-of-the-last-backup-gone",
            "the packs of the last backup never reached the disk",
            &["RP-02"],
            |stage, dice| {
                let before = objects(stage, "data")?;
                change_source(stage, dice)?;
                stage.product.backup("it")?;
                let mut lost = 0;
                for path in objects(stage, "data")? {
                    if !before.contains(&path) {
                        fs::remove_file(path)?;
                        lost += 1;
                    }
                }
                if lost == 0 { Err("the backup wrote no packs".into()) } else { Ok(()) }
            },
        ),
        case(
            "another-repository",
            "another repository with the same password lies in its place",
            &["EV-04", "RP-02"],
            |stage, _| {
                let repository = stage.product.repository();
                remove(&repository)?;
                let store = open_store(&repository)?;
                let options = InitOptions { kdf: KdfParams::fast_and_weak(), ..InitOptions::default() };
                Repository::init(&store, PASSWORD.as_bytes(), &options, &Control::new())?;
                Ok(())
            },
        ),
    ]
}

/// Changes something that the next backup has to store.
pub(crate) fn change_source(stage: &Stage, dice: &mut Dice) -> Outcome {
    let word = dice.roll();
    match stage.kind {
        Kind::Postgres | Kind::Cluster | Kind::Log => stage
            .server()?
            .sql("shop", &format!("UPDATE cargo SET word = md5(word || '{word}') WHERE id % 3 = 0"))
            .map(drop)?,
        Kind::Sqlite => {
            let connection = rusqlite::Connection::open(&stage.source)?;
            connection.execute("INSERT INTO audit VALUES (1, hex(randomblob(20000)))", [])?;
        }
        Kind::Files => {
            let mut bytes = vec![0; 50_000];
            dice.fill(&mut bytes);
            fs::write(stage.source.join("ledger.csv"), bytes)?;
        }
    }
    Ok(())
}
