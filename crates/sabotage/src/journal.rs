//! Wrong logs: what was received behind the newest copy, and a drill to a moment in it.
//!
//! The copy itself is as it was. Pieces of the log are damaged where they are stored, or stored anew with the repository's own key: damaged before
//! they were kept, or by whoever kept them.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use seaworthy_model::signature::sha256;
use seaworthy_repository::{Control, Id, Repository, SnapshotPath};
use seaworthy_testkit::estate::Dice;
use serde_json::Value;

use crate::Outcome;
use crate::case::{Ask, Case, Layer, Step};
use crate::forge::{copy_of, opened};
use crate::stage::Stage;
use crate::tools::{VERSION, replaced};

/// Bytes of a page of the log, and where its timeline and, on the first page of a file, its cluster stand.
const PAGE: u64 = 8_192;
const TIMELINE_AT: usize = 4;
const CLUSTER_AT: usize = 24;
/// Bytes of a file of the log.
const FILE: u64 = 16 << 20;
/// A service of which these estates have none.
const ELSEWHERE: &str = "elsewhere/other/it";
/// Longest witness that is read.
const WITNESS_MAX: u64 = 64 << 20;
/// How long the log may take to arrive.
const RECEIVED: Duration = Duration::from_secs(60);

fn position(value: &Value) -> Outcome<u64> {
    let text = value.as_str().ok_or("a position is no text")?.trim();
    let (high, low) = text.split_once('/').ok_or("a position has no stroke")?;
    Ok(u64::from_str_radix(high, 16)? << 32 | u64::from_str_radix(low, 16)?)
}

fn spelt(position: u64) -> String {
    format!("{:X}/{:X}", position >> 32, position & 0xffff_ffff)
}

/// Writes and receives a few files of the log behind the newest copy, and a mark that it is complete.
pub(crate) fn receive(stage: &Stage) -> Outcome {
    let server = stage.server()?;
    let mut command = stage.product.command(&["wal", "stream", "it"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let received = (|| -> Outcome {
        for round in 0..4 {
            let insert =
                format!("INSERT INTO events SELECT i, 'round {round}' FROM generate_series(1, 3000) i");
            server.sql("shop", &insert)?;
            // Each in a piece of its own.
            std::thread::sleep(Duration::from_millis(350));
            if round % 2 == 1 {
                server.sql("shop", "SELECT pg_switch_wal()")?;
            }
        }
        server.sql("shop", "INSERT INTO events VALUES (9, 'last')")?;
        let wanted = position(&Value::from(server.sql("shop", "SELECT pg_current_wal_flush_lsn()")?))?;
        let began = Instant::now();
        while pieces(stage)?.iter().map(|piece| piece.to).max() < Some(wanted) {
            if began.elapsed() > RECEIVED {
                return Err("the log has not come".into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    })();
    child.kill()?;
    child.wait()?;
    received?;
    let last = pieces(stage)?.pop().ok_or("no piece has come")?;
    let mark = Piece { from: last.to, words: last.words.clone(), ..last };
    let mut words = mark.placed();
    words["complete_at"] = Value::from(jiff::Timestamp::now().to_string());
    kept(&opened(&stage.product)?, words, &[])
}

/// A piece of the log as it is kept.
struct Piece {
    id: Id,
    path: PathBuf,
    words: Value,
    from: u64,
    to: u64,
}

impl Piece {
    /// The words about a piece between these positions.
    fn placed(&self) -> Value {
        let mut words = self.words.clone();
        (words["from"], words["to"]) = (spelt(self.from).into(), spelt(self.to).into());
        words
    }

    fn bytes(&self, repository: &Repository) -> Outcome<Vec<u8>> {
        Ok(repository.journal_get(&self.id, &Control::new())?.1)
    }
}

/// Keeps bytes under words, of which the digest is made right.
fn kept(repository: &Repository, mut words: Value, bytes: &[u8]) -> Outcome {
    words["sha256"] = serde_json::to_value(sha256(bytes))?;
    repository.journal_put(&serde_json::to_vec(&words)?, bytes, &Control::new())?;
    Ok(())
}

fn found(directory: &Path, name: &str) -> Outcome<Option<PathBuf>> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            if let Some(below) = found(&path, name)? {
                return Ok(Some(below));
            }
        } else if path.file_name().is_some_and(|file| file == name) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Every piece, in order, without marks.
fn pieces(stage: &Stage) -> Outcome<Vec<Piece>> {
    let repository = opened(&stage.product)?;
    let mut pieces = Vec::new();
    for listed in repository.journal(&Control::new())? {
        let words: Value = serde_json::from_slice(&repository.journal_words(&listed.id, &Control::new())?)?;
        let (from, to) = (position(&words["from"])?, position(&words["to"])?);
        let path = found(&stage.product.repository().join("journal"), &listed.id.hex())?;
        let path = path.ok_or("a piece has no file")?;
        if from < to {
            pieces.push(Piece { id: listed.id, path, words, from, to });
        }
    }
    pieces.sort_by_key(|piece| (piece.from, piece.to));
    Ok(pieces)
}

/// The log as an archive of files that nobody has looked into holds it: whatever can be read lies where it is said to lie, the
/// rest of a file is zeros, and a file of which nothing can be read is not there.
pub(crate) fn archive(stage: &Stage, directory: &Path) -> Outcome {
    std::fs::create_dir(directory)?;
    let repository = opened(&stage.product)?;
    for listed in repository.journal(&Control::new())? {
        let Ok((words, bytes)) = repository.journal_get(&listed.id, &Control::new()) else { continue };
        let words: Value = serde_json::from_slice(&words)?;
        if words["lineage"] == ELSEWHERE {
            continue;
        }
        let (mut at, mut rest) = (position(&words["from"])?, &bytes[..]);
        while !rest.is_empty() {
            let (file, within) = (at / FILE, at % FILE);
            let name = format!("{:08X}{:08X}{:08X}", 1, file >> 8, file & 0xff);
            let mut options = std::fs::OpenOptions::new();
            let open = options.write(true).create(true).truncate(false).open(directory.join(name))?;
            open.set_len(FILE)?;
            let (now, later) = rest.split_at(rest.len().min(usize::try_from(FILE - within)?));
            open.write_all_at(now, within)?;
            (at, rest) = (at + now.len() as u64, later);
        }
    }
    Ok(())
}

/// Settings with which stock PostgreSQL recovers to what a run was asked for, from such an archive.
pub(crate) fn recovery(ask: &Ask, archive: &Path) -> String {
    let moment = ask.steps.last().and_then(|step| step.arguments.last()).map_or("latest", String::as_str);
    let target = match moment.split_once(':') {
        _ if moment == "latest" => String::new(),
        Some((kind @ ("lsn" | "xid" | "name"), value)) => format!("recovery_target_{kind} = '{value}'\n"),
        _ => format!("recovery_target_time = '{moment}'\n"),
    };
    format!("restore_command = 'cp {}/%f %p'\n{target}recovery_target_action = promote\n", archive.display())
}

/// Where the copy's own log ends.
fn end_of_copy(stage: &Stage) -> Outcome<u64> {
    let path = SnapshotPath::new(".seaworthy/witness.json")?;
    let copy = copy_of(&stage.original)?;
    let bytes = opened(&stage.product)?.read_file(&copy, &path, WITNESS_MAX, &Control::new())?;
    let witness: Value = serde_json::from_slice(&bytes)?;
    position(&witness["witness"]["physical"]["until"])
}

/// Pieces that lead on from the copy.
fn behind(stage: &Stage) -> Outcome<Vec<Piece>> {
    let end = end_of_copy(stage)?;
    let mut pieces = pieces(stage)?;
    pieces.retain(|piece| piece.to > end);
    if pieces.len() < 3 { Err(format!("only {} pieces lead on", pieces.len()).into()) } else { Ok(pieces) }
}

fn drawn(dice: &mut Dice, mut pieces: Vec<Piece>) -> Outcome<Piece> {
    let chosen = usize::try_from(dice.below(pieces.len().max(1) as u64))?;
    if chosen < pieces.len() { Ok(pieces.swap_remove(chosen)) } else { Err("there is no piece".into()) }
}

/// Everything that was received.
pub(crate) fn latest() -> Ask {
    until("latest")
}

fn until(moment: &str) -> Ask {
    Ask { steps: vec![Step::of(&["drill", "it", "--until", moment])], has_copy: true }
}

/// A piece is damaged where it is stored.
fn stored(name: &str, what: &str, change: fn(&mut Vec<u8>, &mut Dice)) -> Case {
    Case::new(name, Layer::Repository, what, &["TM-11"], move |stage, dice| {
        let piece = drawn(dice, behind(stage)?)?;
        let mut bytes = std::fs::read(&piece.path)?;
        let before = bytes.clone();
        change(&mut bytes, dice);
        if bytes == before {
            return Err("the mutation changed nothing".into());
        }
        std::fs::remove_file(&piece.path)?;
        std::fs::write(&piece.path, bytes)?;
        Ok(latest())
    })
}

/// A piece is another one, and is kept as if it were right.
fn kept_so(
    name: &str,
    what: &str,
    is_fit: fn(&Piece) -> bool,
    change: fn(&Piece, &mut Vec<u8>, &mut Value, &mut Dice),
) -> Case {
    Case::new(name, Layer::Content, what, &["TM-11"], move |stage, dice| {
        let (mut fit, end) = (behind(stage)?, end_of_copy(stage)?);
        // What the copy holds itself is not taken from a piece.
        fit.retain(|piece| piece.from >= end && is_fit(piece));
        let repository = opened(&stage.product)?;
        let mut told = Vec::new();
        for piece in fit {
            // Behind the record that switches to the next file lie zeros, which mean nothing.
            let bytes = piece.bytes(&repository)?;
            let page = if has_page(&piece) { bytes.get(first_page(&piece)) } else { bytes.first() };
            if page.is_some_and(|byte| *byte != 0) {
                told.push(piece);
            }
        }
        let piece = drawn(dice, told)?;
        let (mut bytes, mut words) = (piece.bytes(&repository)?, piece.words.clone());
        change(&piece, &mut bytes, &mut words, dice);
        if words == piece.words && bytes == piece.bytes(&repository)? {
            return Err("the mutation changed nothing".into());
        }
        std::fs::remove_file(&piece.path)?;
        kept(&repository, words, &bytes)?;
        Ok(latest())
    })
}

/// The server that recovers does otherwise than it is told.
fn lies(name: &str, what: &str, script: &'static str, expected: &[&'static str]) -> Case {
    Case::new(name, Layer::Tool, what, expected, move |stage, _| {
        replaced(stage, "postgres", &format!("{VERSION}{script}"))?;
        Ok(Ask { has_copy: false, ..latest() })
    })
}

/// Where the first page begins that begins in a piece.
fn first_page(piece: &Piece) -> usize {
    usize::try_from(piece.from.next_multiple_of(PAGE) - piece.from).unwrap_or(usize::MAX)
}

fn has_page(piece: &Piece) -> bool {
    (first_page(piece) as u64) + PAGE <= piece.to - piece.from
}

fn begins_a_file(piece: &Piece) -> bool {
    piece.from.is_multiple_of(FILE) && has_page(piece)
}

/// Every case.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "piece-missing",
            Layer::Repository,
            "a piece of the log is missing",
            &["TM-11"],
            |stage, dice| {
                std::fs::remove_file(drawn(dice, behind(stage)?)?.path)?;
                Ok(latest())
            },
        ),
        Case::new(
            "last-piece-missing",
            Layer::Repository,
            "the last piece is missing",
            &["TM-11"],
            |stage, _| {
                std::fs::remove_file(behind(stage)?.pop().ok_or("there is no piece")?.path)?;
                Ok(latest())
            },
        ),
        Case::new(
            "every-piece-missing",
            Layer::Repository,
            "all pieces are missing",
            &["TM-11"],
            |stage, _| {
                for piece in pieces(stage)? {
                    std::fs::remove_file(piece.path)?;
                }
                Ok(latest())
            },
        ),
        Case::new(
            "pieces-exchanged",
            Layer::Repository,
            "two pieces have each other's name",
            &["TM-11"],
            |stage, dice| {
                let pieces = behind(stage)?;
                let one = usize::try_from(dice.below(pieces.len() as u64))?;
                let other = (one + 1) % pieces.len();
                let (first, second) =
                    (std::fs::read(&pieces[one].path)?, std::fs::read(&pieces[other].path)?);
                for (path, bytes) in [(&pieces[one].path, second), (&pieces[other].path, first)] {
                    std::fs::remove_file(path)?;
                    std::fs::write(path, bytes)?;
                }
                Ok(latest())
            },
        ),
        stored("piece-flipped", "a bit of a piece is another", |bytes, dice| {
            let at = usize::try_from(dice.below(bytes.len() as u64)).unwrap_or(0);
            bytes[at] ^= 1 << (at % 8);
        }),
        stored("words-flipped", "a bit of what is said of a piece is another", |bytes, dice| {
            let at = 4 + usize::try_from(dice.below(60)).unwrap_or(0);
            bytes[at] ^= 1 << (at % 8);
        }),
        stored("piece-cut", "a piece is cut off", |bytes, dice| {
            let keep = dice.below(bytes.len() as u64 - 1);
            bytes.truncate(usize::try_from(keep).unwrap_or(0));
        }),
        stored("piece-empty", "a piece is an empty file", |bytes, _| bytes.clear()),
        stored("piece-zeroed", "a piece is all zeros", |bytes, _| bytes.fill(0)),
        kept_so("zeros-kept", "zeros were received for a piece", |_| true, |_, bytes, _, _| bytes.fill(0)),
        kept_so(
            "record-flipped",
            "a bit of the log was another when it was kept",
            // Behind the last record of a file that was switched lies nothing that means anything.
            |piece| !has_page(piece) || !piece.to.is_multiple_of(FILE),
            |_, bytes, _, dice| {
                let last = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
                let at = last.saturating_sub(usize::try_from(dice.below(16)).unwrap_or(0));
                bytes[at] ^= 1;
            },
        ),
        kept_so(
            "piece-foreign",
            "a piece is of another cluster's log",
            begins_a_file,
            |_, bytes, _, dice| {
                for (byte, mix) in bytes[CLUSTER_AT..].iter_mut().zip((1 + dice.below(1 << 40)).to_le_bytes())
                {
                    *byte ^= mix;
                }
            },
        ),
        kept_so(
            "piece-of-a-fork",
            "a piece is of a later timeline's log",
            has_page,
            |piece, bytes, _, dice| {
                bytes[first_page(piece) + TIMELINE_AT] = 2 + u8::try_from(dice.below(5)).unwrap_or(0);
            },
        ),
        kept_so(
            "piece-said-longer",
            "a piece holds less than is said of it",
            |_| true,
            |_, bytes, _, dice| {
                let keep = dice.below(bytes.len() as u64);
                bytes.truncate(usize::try_from(keep).unwrap_or(0));
            },
        ),
        kept_so(
            "piece-of-another-service",
            "a piece belongs to another service",
            |_| true,
            |_, _, words, _| {
                words["lineage"] = Value::from(ELSEWHERE);
            },
        ),
        kept_so(
            "piece-moved",
            "a piece is said to lie elsewhere",
            |_| true,
            |piece, _, words, dice| {
                let by = PAGE * (1 + dice.below(100));
                words["from"] = spelt(piece.from + by).into();
                words["to"] = spelt(piece.to + by).into();
            },
        ),
        Case::new(
            "content-exchanged",
            Layer::Content,
            "a piece holds what another one should",
            &["TM-11"],
            |stage, _| {
                let repository = opened(&stage.product)?;
                let mut pieces = behind(stage)?;
                pieces.sort_by_key(|piece| std::cmp::Reverse(piece.to - piece.from));
                let (one, other) = (&pieces[0], &pieces[1]);
                let (mut first, mut second) = (one.bytes(&repository)?, other.bytes(&repository)?);
                let both = first.len().min(second.len());
                first[..both].swap_with_slice(&mut second[..both]);
                for (piece, bytes) in [(one, first), (other, second)] {
                    std::fs::remove_file(&piece.path)?;
                    kept(&repository, piece.words.clone(), &bytes)?;
                }
                Ok(latest())
            },
        ),
        Case::new(
            "time-to-come",
            Layer::Clock,
            "a time that the log has not reached",
            &["TM-11"],
            |_, dice| {
                let ahead = jiff::SignedDuration::from_secs(600 + i64::try_from(dice.below(80_000))?);
                Ok(until(&(jiff::Timestamp::now() + ahead).to_string()))
            },
        ),
        Case::new(
            "name-unknown",
            Layer::Content,
            "a restore point that nobody has made",
            &["TM-11"],
            |_, dice| Ok(until(&format!("name:never-{}", dice.roll()))),
        ),
        Case::new(
            "slot-lost",
            Layer::Tool,
            "the server has let go of the log since",
            &["TM-11"],
            |stage, _| {
                let server = stage.server()?;
                server.sql("shop", "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")?;
                server.sql("shop", "INSERT INTO events VALUES (10, 'never received')")?;
                Ok(until(&jiff::Timestamp::now().to_string()))
            },
        ),
        lies(
            "signal-lost",
            "the file is lost that makes a server recover to a moment",
            "for word; do [ \"$before\" = -D ] && rm -f \"$word/recovery.signal\"; before=$word; done; exec REAL \"$@\"",
            &["CT-22"],
        ),
        lies(
            "target-immediate",
            "the server recovers to the first moment that it can",
            "for word; do shift; case $word in recovery_target_lsn=*) word=recovery_target=immediate;; esac; set -- \"$@\" \"$word\"; done; exec REAL \"$@\"",
            &["CT-22"],
        ),
        lies(
            "target-exclusive",
            "the server stops before the moment's own record",
            "for word; do shift; case $word in recovery_target_inclusive=*) word=recovery_target_inclusive=off;; esac; set -- \"$@\" \"$word\"; done; exec REAL \"$@\"",
            &["CT-22"],
        ),
        Case::new(
            "transaction-unknown",
            Layer::Content,
            "a transaction that never was",
            &["TM-11"],
            |_, dice| Ok(until(&format!("xid:{}", 4_000_000_000 + dice.below(1_000)))),
        ),
    ]
}

/// Every healthy variation.
pub(crate) fn healthy() -> Vec<Case> {
    vec![
        Case::healthy("as-it-came", "nothing is otherwise", |_, _| Ok(latest())),
        Case::healthy("older-pieces-gone", "what the copy holds is not kept any more", |stage, _| {
            let end = end_of_copy(stage)?;
            for piece in pieces(stage)?.into_iter().filter(|piece| piece.to <= end) {
                std::fs::remove_file(piece.path)?;
            }
            Ok(latest())
        }),
        Case::healthy("piece-twice", "a piece was kept twice", |stage, dice| {
            let piece = drawn(dice, behind(stage)?)?;
            let repository = opened(&stage.product)?;
            kept(&repository, piece.words.clone(), &piece.bytes(&repository)?)?;
            Ok(latest())
        }),
        Case::healthy("piece-in-halves", "a piece was kept in two", |stage, dice| {
            let piece = drawn(dice, behind(stage)?)?;
            let repository = opened(&stage.product)?;
            let bytes = piece.bytes(&repository)?;
            let half = 1 + dice.below(bytes.len() as u64 - 1);
            let (first, second) = bytes.split_at(usize::try_from(half)?);
            std::fs::remove_file(&piece.path)?;
            let mut words = piece.words.clone();
            words["to"] = spelt(piece.from + half).into();
            if let Some(words) = words.as_object_mut() {
                words.remove("complete_at");
            }
            kept(&repository, words, first)?;
            let mut words = piece.words.clone();
            words["from"] = spelt(piece.from + half).into();
            kept(&repository, words, second)?;
            Ok(latest())
        }),
        Case::healthy("pieces-overlap", "a longer piece was kept beside two", |stage, _| {
            let pieces = behind(stage)?;
            let repository = opened(&stage.product)?;
            let at = pieces.windows(2).position(|pair| pair[0].to == pair[1].from).ok_or("no two adjoin")?;
            let mut bytes = pieces[at].bytes(&repository)?;
            bytes.extend(pieces[at + 1].bytes(&repository)?);
            let mut words = pieces[at + 1].words.clone();
            words["from"] = pieces[at].words["from"].clone();
            kept(&repository, words, &bytes)?;
            Ok(latest())
        }),
        Case::healthy(
            "others-beside",
            "another service's and another cluster's log lie beside it",
            |stage, dice| {
                let piece = drawn(dice, behind(stage)?)?;
                let repository = opened(&stage.product)?;
                let noise = vec![7; usize::try_from(piece.to - piece.from)?];
                let mut words = piece.words.clone();
                words["lineage"] = Value::from(ELSEWHERE);
                kept(&repository, words, &noise)?;
                let mut words = piece.words.clone();
                words["system"] = Value::from(7_000_000_000_000_000_000_u64 + dice.below(1_000_000));
                kept(&repository, words, &noise)?;
                Ok(latest())
            },
        ),
        Case::healthy("a-moment-ago", "a time that the log has reached", |stage, _| {
            let times: Vec<String> = pieces(stage)?
                .iter()
                .filter_map(|piece| piece.words["complete_at"].as_str().map(str::to_owned))
                .collect();
            Ok(until(times.last().ok_or("nothing was complete")?))
        }),
        Case::healthy("a-position", "a position in the log", |stage, dice| {
            let piece = drawn(dice, behind(stage)?)?;
            // What is switched away behind a file's last record holds no record.
            Ok(until(&format!("lsn:{}", spelt(piece.from.max(end_of_copy(stage)?)))))
        }),
        Case::healthy("taken-over", "the next copy holds what was kept", |_, _| {
            let drill = Step::of(&["drill", "it", "--until", "latest"]);
            Ok(Ask { steps: vec![Step::of(&["backup", "it"]), drill], has_copy: true })
        }),
    ]
}
