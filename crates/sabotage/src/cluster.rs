//! Wrong base backups: files, pages and the log of a whole cluster.

use std::collections::BTreeSet;

use crc_fast::{CrcAlgorithm, Digest};
use seaworthy_repository::FileMeta;
use seaworthy_testkit::estate::Dice;

use crate::Outcome;
use crate::case::{Ask, Case, Layer};
use crate::forge::{Files, Papers, forge, put_all};
use crate::stage::Stage;

/// Bytes of a page of tables, of indexes and of the log.
const PAGE: usize = 8_192;
/// Path of the server's own list of the files.
const MANIFEST: &[u8] = b"data/backup_manifest";

/// The files of a copy that a mutation changes.
struct Copy<'a> {
    stage: &'a Stage,
    files: Files,
    /// What was changed.
    changed: BTreeSet<Vec<u8>>,
}

impl<'a> Copy<'a> {
    fn of(stage: &'a Stage) -> Self {
        Self { stage, files: stage.whole.clone(), changed: BTreeSet::new() }
    }

    /// The path of a table or an index of the shop.
    fn relation(&self, name: &str) -> Outcome<Vec<u8>> {
        let said = self.stage.relations.get(name).ok_or("there is no such relation")?;
        let path = format!("data/{said}").into_bytes();
        if self.files.contains_key(&path) {
            Ok(path)
        } else {
            Err(format!("{name} is not in the copy").into())
        }
    }

    /// The files of the log, in order.
    fn log(&self) -> Vec<Vec<u8>> {
        self.files.keys().filter(|path| path.starts_with(b"data/pg_wal/0")).cloned().collect()
    }

    /// One of the files of the log.
    fn any_of_log(&self, dice: &mut Dice) -> Outcome<Vec<u8>> {
        let log = self.log();
        let chosen = usize::try_from(dice.below(log.len().max(1) as u64))?;
        log.into_iter().nth(chosen).ok_or_else(|| "the copy has no log".into())
    }

    fn last_of_log(&self) -> Outcome<Vec<u8>> {
        self.log().pop().ok_or_else(|| "the copy has no log".into())
    }

    fn change(&mut self, path: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Outcome {
        let bytes = self.files.get_mut(path).ok_or("what is to be changed is not in the copy")?;
        let before = bytes.clone();
        change(bytes);
        if *bytes == before {
            return Err("the mutation changed nothing".into());
        }
        self.changed.insert(path.to_vec());
        Ok(())
    }

    fn remove(&mut self, path: &[u8]) -> Outcome {
        self.files.remove(path).ok_or("what is to be removed is not in the copy")?;
        self.changed.insert(path.to_vec());
        Ok(())
    }

    fn put(&self, session: &seaworthy_repository::Session) -> Outcome {
        for path in &self.stage.directories {
            let meta = FileMeta { mode: 0o700, ..FileMeta::default() };
            session.directory(&seaworthy_repository::SnapshotPath::new(path)?, &meta)?;
        }
        put_all(session, &self.files)
    }

    /// The copy as it is now, under the original's papers: damaged after it was captured.
    fn forged(self) -> Outcome<Ask> {
        forge(&self.stage.product, &self.stage.original, Papers::default(), |session| self.put(session))?;
        Ok(Ask::drill())
    }

    /// The copy as it is now, under papers that say so: damaged before it was captured, or by whoever captured it.
    fn captured_so(mut self) -> Outcome<Ask> {
        let mut manifest = String::from_utf8(self.files[MANIFEST].clone())?;
        for path in self.changed.clone() {
            let Some(name) = path.strip_prefix(b"data/") else { continue };
            if name.starts_with(b"pg_wal/") {
                continue;
            }
            let name = String::from_utf8(name.to_vec())?;
            let at = manifest.find(&format!("\"Path\": \"{name}\"")).ok_or("it is not in the manifest")?;
            let begin = manifest[..at].rfind('{').ok_or("no entry")?;
            let end = at + manifest[at..].find('}').ok_or("no entry")? + 1;
            let entry = match self.files.get(&path) {
                Some(bytes) => {
                    let mut sum = Digest::new(CrcAlgorithm::Crc32Iscsi);
                    sum.update(bytes);
                    let sum = u32::try_from(sum.finalize())?.to_le_bytes();
                    let hex: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
                    format!(
                        "{{ \"Path\": \"{name}\", \"Size\": {}, \"Last-Modified\": \"2026-11-30 00:00:00 GMT\", \
                         \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"{hex}\" }}",
                        bytes.len()
                    )
                }
                None => String::new(),
            };
            manifest.replace_range(begin..end, &entry);
            if entry.is_empty() {
                // The comma behind it, or before it.
                let rest = manifest.split_off(begin);
                manifest = match rest.trim_start().strip_prefix(',') {
                    Some(rest) => manifest + rest,
                    None => manifest.trim_end().trim_end_matches(',').to_owned() + &rest,
                };
            }
        }
        self.files.insert(MANIFEST.to_vec(), manifest.clone().into_bytes());
        let digest = seaworthy_model::signature::sha256(manifest.as_bytes());
        let logs: Vec<(String, seaworthy_model::id::Digest)> = self
            .log()
            .iter()
            .map(|path| {
                let name = String::from_utf8_lossy(&path[b"data/pg_wal/".len()..]).into_owned();
                (name, seaworthy_model::signature::sha256(&self.files[path]))
            })
            .collect();
        let follow = move |witness: Vec<u8>| -> Option<Vec<u8>> {
            let mut witness: serde_json::Value = serde_json::from_slice(&witness).ok()?;
            let physical = witness.pointer_mut("/witness/physical")?;
            physical["manifest"] = serde_json::to_value(&digest).ok()?;
            for (name, digest) in &logs {
                physical["log"][name] = serde_json::to_value(digest).ok()?;
            }
            serde_json::to_vec(&witness).ok()
        };
        let papers = Papers { witness: Some(&follow), receipt_follows: true, ..Papers::default() };
        forge(&self.stage.product, &self.stage.original, papers, |session| self.put(session))?;
        Ok(Ask::drill())
    }
}

type Change = fn(&mut Copy<'_>, &mut Dice) -> Outcome;

fn after(name: &str, what: &str, expected: &[&'static str], change: Change) -> Case {
    Case::new(name, Layer::Dump, what, expected, move |stage, dice| {
        let mut copy = Copy::of(stage);
        change(&mut copy, dice)?;
        copy.forged()
    })
}

fn before(name: &str, what: &str, expected: &[&'static str], change: Change) -> Case {
    Case::new(name, Layer::Content, what, expected, move |stage, dice| {
        let mut copy = Copy::of(stage);
        change(&mut copy, dice)?;
        copy.captured_so()
    })
}

/// A byte of a page that holds something: its tuples lie at its end.
fn in_tuples(dice: &mut Dice, bytes: &[u8]) -> usize {
    let pages = (bytes.len() / PAGE).max(1) as u64;
    let page = usize::try_from(dice.below(pages)).unwrap_or(0);
    page * PAGE + PAGE - 40 - usize::try_from(dice.below(64)).unwrap_or(0)
}

/// A byte of the text of a row: what lies between values, to align them, means nothing.
fn in_words(dice: &mut Dice, page: &[u8]) -> Outcome<usize> {
    let is_word = |at: &usize| page[*at..*at + 16].iter().all(u8::is_ascii_hexdigit);
    let found: Vec<usize> = (0..page.len() - 16).filter(is_word).collect();
    let chosen = usize::try_from(dice.below(found.len().max(1) as u64))?;
    found.get(chosen).copied().ok_or_else(|| "the page holds no text".into())
}

/// Where the log's last records lie in its last file: before the zeros at its end.
fn end_of(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1)
}

/// Every case.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        after("segment-missing", "a file of the log is missing", &["RP-02"], |copy, dice| {
            let path = copy.any_of_log(dice)?;
            copy.remove(&path)
        }),
        after("segment-zeroed", "a file of the log is all zeros", &["RP-07"], |copy, dice| {
            let path = copy.any_of_log(dice)?;
            copy.change(&path, |bytes| bytes.fill(0))
        }),
        after("segment-cut", "a file of the log is cut off", &["RP-07"], |copy, dice| {
            let path = copy.any_of_log(dice)?;
            let keep = dice.below(2_000_000);
            copy.change(&path, |bytes| bytes.truncate(usize::try_from(keep).unwrap_or(0)))
        }),
        after("record-flipped", "a bit of the log is another", &["RP-07", "CT-13"], |copy, dice| {
            let path = copy.any_of_log(dice)?;
            let back = 1 + usize::try_from(dice.below(200))?;
            copy.change(&path, |bytes| {
                let at = end_of(bytes).saturating_sub(back);
                bytes[at] ^= 1 << (back % 8);
            })
        }),
        after(
            "segment-foreign",
            "a file of the log is another cluster's",
            &["RP-07", "EV-09"],
            |copy, dice| {
                let path = copy.any_of_log(dice)?;
                let other = 1 + dice.below(1 << 40);
                copy.change(&path, |bytes| {
                    for (byte, mix) in bytes[24..32].iter_mut().zip(other.to_le_bytes()) {
                        *byte ^= mix;
                    }
                })
            },
        ),
        after("segment-of-a-fork", "a file of the log is of a later timeline", &["RP-07"], |copy, dice| {
            let path = copy.any_of_log(dice)?;
            let line = 2 + u8::try_from(dice.below(5))?;
            copy.change(&path, |bytes| bytes[4] = line)
        }),
        after("label-removed", "backup_label is gone", &["FS-01"], |copy, _| {
            copy.remove(b"data/backup_label")
        }),
        after("page-flipped", "a bit of a table is another", &["FS-02"], |copy, dice| {
            let path = copy.relation("orders")?;
            let at = in_tuples(dice, &copy.files[&path]);
            copy.change(&path, |bytes| bytes[at] ^= 4)
        }),
        after("page-zeroed", "a page of a table is empty", &["FS-02"], |copy, _| {
            let path = copy.relation("orders")?;
            copy.change(&path, |bytes| bytes[..PAGE].fill(0))
        }),
        after("table-cut", "a table has lost its last page", &["FS-02"], |copy, _| {
            let path = copy.relation("orders")?;
            copy.change(&path, |bytes| bytes.truncate(bytes.len() - PAGE))
        }),
        after("table-missing", "the file of a table is gone", &["FS-01"], |copy, _| {
            let path = copy.relation("cargo")?;
            copy.remove(&path)
        }),
        after("table-empty", "the file of a table is empty", &["FS-02"], |copy, _| {
            let path = copy.relation("cargo")?;
            copy.change(&path, Vec::clear)
        }),
        after("tables-exchanged", "the files of two tables are exchanged", &["FS-02"], |copy, _| {
            let (one, two) = (copy.relation("twin_a")?, copy.relation("twin_b")?);
            let (first, second) = (copy.files[&one].clone(), copy.files[&two].clone());
            copy.change(&one, |bytes| *bytes = second)?;
            copy.change(&two, |bytes| *bytes = first)
        }),
        after("commits-damaged", "what was committed is forgotten", &["FS-02"], |copy, dice| {
            let at = 100 + usize::try_from(dice.below(60))?;
            copy.change(b"data/pg_xact/0000", |bytes| bytes[at] ^= 0x55)
        }),
        after("control-damaged", "the control file is damaged", &["FS-02"], |copy, dice| {
            let at = usize::try_from(dice.below(200))?;
            copy.change(b"data/global/pg_control", |bytes| bytes[at] ^= 1)
        }),
        after("file-added", "a file too many", &["FS-01"], |copy, _| {
            copy.files.insert(b"data/base/1/99999".to_vec(), vec![0; PAGE]);
            Ok(())
        }),
        after("manifest-missing", "the server's manifest is gone", &["FS-01"], |copy, _| {
            copy.remove(MANIFEST)
        }),
        after("manifest-edited", "the server's manifest says otherwise", &["RP-07"], |copy, dice| {
            let at = 300 + usize::try_from(dice.below(5_000))?;
            copy.change(MANIFEST, |bytes| bytes[at] ^= 1)
        }),
        before(
            "row-page-flipped",
            "a table was damaged before it was captured",
            &["CT-02", "CT-13", "CT-01"],
            |copy, dice| {
                let path = copy.relation("cargo")?;
                let at = in_words(dice, &copy.files[&path][..PAGE])?;
                copy.change(&path, |bytes| bytes[at] ^= 4)
            },
        ),
        before(
            "row-page-zeroed",
            "a page was empty before it was captured",
            &["CT-01", "CT-13"],
            |copy, _| {
                let path = copy.relation("cargo")?;
                copy.change(&path, |bytes| bytes[..PAGE].fill(0))
            },
        ),
        before(
            "table-cut-before",
            "a table ended early before it was captured",
            &["CT-01", "CT-13"],
            |copy, _| {
                let path = copy.relation("cargo")?;
                copy.change(&path, |bytes| bytes.truncate(bytes.len() - PAGE))
            },
        ),
        before(
            "tables-exchanged-before",
            "two tables were exchanged before they were captured",
            &["CT-02"],
            |copy, _| {
                let (one, two) = (copy.relation("twin_a")?, copy.relation("twin_b")?);
                let (first, second) = (copy.files[&one].clone(), copy.files[&two].clone());
                copy.change(&one, |bytes| *bytes = second)?;
                copy.change(&two, |bytes| *bytes = first)
            },
        ),
        before("index-damaged-before", "an index does not agree with its table", &["CT-13"], |copy, _| {
            let path = copy.relation("cargo_pkey")?;
            copy.change(&path, |bytes| {
                // The second page is the first of its leaves.
                let page = &mut bytes[PAGE..2 * PAGE];
                let (lower, upper) = (24_usize, PAGE - 200);
                page.copy_within(lower..lower + 4, lower + 8);
                page[upper..upper + 8].fill(0x7f);
            })
        }),
        before(
            "log-ends-early",
            "the log that was captured ends before its last record",
            &["CT-22", "CT-13"],
            |copy, _| {
                let path = copy.last_of_log()?;
                copy.change(&path, |bytes| {
                    let end = end_of(bytes);
                    bytes[end - 24..end].fill(0);
                })
            },
        ),
    ]
}

/// Every healthy variation.
pub(crate) fn healthy() -> Vec<Case> {
    let shop = |name: &str, what: &str, script: &'static str| {
        Case::healthy(name, what, move |stage, dice| {
            let n = 1 + dice.below(40);
            for statement in script.split(";;") {
                stage.server()?.sql("shop", &statement.replace("{n}", &n.to_string()))?;
            }
            Ok(Ask::backup_and_drill())
        })
    };
    vec![
        shop(
            "log-switched",
            "the log went on in a new file",
            "SELECT pg_switch_wal();;SELECT pg_switch_wal()",
        ),
        shop(
            "sequence-moved",
            "numbers of a sequence were skipped",
            // The database was made from a template. Its servers, 15 and later, forget numbers that are taken before the next checkpoint,
            // which is no health: that it is told is tested by itself (`numbers_that_recovery_would_give_again_are_told`).
            "CHECKPOINT;;SELECT nextval('orders_id_seq') FROM generate_series(1, {n})",
        ),
        shop("table-emptied", "a table was emptied", "TRUNCATE events"),
        shop(
            "unlogged-table",
            "a table that no recovery brings back",
            "CREATE UNLOGGED TABLE gone AS SELECT generate_series(1, {n}) n",
        ),
        shop("rewritten", "tables were rewritten", "VACUUM FULL"),
        shop("checkpointed", "a checkpoint right before", "CHECKPOINT"),
        shop("dead-rows", "rows were changed and taken back", "BEGIN; UPDATE cargo SET word = 'x'; ROLLBACK"),
        shop(
            "obeys-nobody",
            "settings that a copy must not obey",
            "ALTER SYSTEM SET archive_command = 'false';;ALTER SYSTEM SET restore_command = 'false'",
        ),
    ]
}
