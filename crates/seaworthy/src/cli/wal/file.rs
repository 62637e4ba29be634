//! `wal push` and `wal get`: what a server runs as its `archive_command` and its `restore_command`.

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use seaworthy_engine::act::retain::listed;
use seaworthy_engine::store::{SnapshotReader, control};
use seaworthy_interface::{CopyReader, Cx, ErrorKind, Handed, HeldPiece, LogFile, Pushed};
use seaworthy_model::finding::FindingCode;
use seaworthy_model::id::CopyId;
use seaworthy_model::point::RecoveryPoint;
use seaworthy_model::wal::{Lsn, Timeline, WalFile};
use seaworthy_model::witness::Witness;
use seaworthy_repository::{Repository, SnapshotId};
use tokio_util::sync::CancellationToken;

use super::{Chosen, held, journal};
use crate::app::{self, Opened, reference};
use crate::cli::args::{Cli, WalOf};
use crate::cli::drill;
use crate::cli::restore::facts;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, printable};
use crate::memory::Memory;
use crate::output::{Face, bytes};
use crate::setup::Setup;
use crate::wiring;

/// Longest file that a server archives: one of a log whose files are as long as they can be.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// A copy, and what it says of itself.
type Copy = (Witness, Arc<dyn CopyReader>);

/// Everything that is asked again and again.
struct Ground<'a> {
    cx: &'a Cx,
    repository: &'a Repository,
    /// Copies of one history of the log, oldest first.
    points: Vec<RecoveryPoint>,
}

/// The instant at which the log that leads on from a copy was set apart; nothing where it is the server's still.
fn apart(held: &[HeldPiece], copy: Timestamp) -> Option<Timestamp> {
    held.iter().filter_map(|piece| piece.apart).filter(|apart| *apart > copy).min()
}

impl Ground<'_> {
    async fn read(&self, point: &RecoveryPoint) -> Outcome<Copy> {
        let reader: Arc<dyn CopyReader> =
            Arc::new(SnapshotReader::new(self.cx, self.repository, &point.copy)?);
        let (witness, doubts) = drill::witness(&reader, point).await;
        if let Some((witness, _)) = witness {
            return Ok((witness, reader));
        }
        let doubt = doubts.first().map_or_else(|| "it has no witness".to_owned(), ToString::to_string);
        let copy = point.copy.0.get(..12).unwrap_or(&point.copy.0);
        Err(Failure::new(
            Exit::Unknown,
            format!("the copy {copy} does not tell what it holds of the log: {}", printable(&doubt)),
        )
        .hint("seaworthy check says what is damaged"))
    }

    /// The newest copy in a range that holds a log, and where that ends; dumps, from while the mode was another, hold none.
    async fn logged(&self, from: usize, to: usize) -> Outcome<Option<(usize, (Timeline, Lsn))>> {
        for at in (from..to).rev() {
            let (witness, _) = self.read(&self.points[at]).await?;
            if let Some(facts) = facts(&witness) {
                return Ok(Some((at, (facts.timeline, facts.until))));
            }
        }
        Ok(None)
    }

    /// The first copy that does not end before a position, and the last one with a log before it; each where there is one.
    async fn beside(&self, position: (Timeline, Lsn)) -> Outcome<Vec<usize>> {
        let (mut from, mut to) = (0, self.points.len());
        while from < to {
            let middle = from + (to - from) / 2;
            match self.logged(from, middle + 1).await? {
                Some((at, until)) if until >= position => to = at,
                Some(_) | None => from = middle + 1,
            }
        }
        let before = self.logged(0, from).await?.map(|(at, _)| at);
        Ok(before.into_iter().chain((from < self.points.len()).then_some(from)).collect())
    }

    /// The copies that may hold a file, and the newest of its timeline and of all, in order.
    async fn around(&self, name: &str) -> Outcome<Vec<Copy>> {
        let Some((newest, _)) = self.logged(0, self.points.len()).await? else { return Ok(Vec::new()) };
        let (witness, _) = self.read(&self.points[newest]).await?;
        let Some(size) = facts(&witness).map(|facts| facts.segment_bytes) else { return Ok(Vec::new()) };
        let mut chosen = BTreeSet::from([newest]);
        match WalFile::parse(name, size) {
            Ok(WalFile::Segment(segment) | WalFile::Partial(segment) | WalFile::Backup(segment, _)) => {
                chosen.extend(self.beside((segment.timeline, segment.end(size))).await?);
                chosen.extend(self.beside((segment.timeline, Lsn(u64::MAX))).await?);
            }
            Ok(WalFile::History(timeline)) => {
                chosen.extend(self.beside((timeline, Lsn(u64::MAX))).await?);
            }
            // What is wrong with the name is told by whoever reads it.
            Err(_) => {}
        }
        let mut copies = Vec::new();
        for at in chosen {
            if let Some(point) = self.points.get(at) {
                copies.push(self.read(point).await?);
            }
        }
        Ok(copies)
    }
}

/// What a command is run with.
pub(super) struct Asked<'a> {
    pub(super) cli: &'a Cli,
    pub(super) face: &'a Face,
    pub(super) setup: &'a Setup,
    pub(super) of: &'a WalOf,
    pub(super) cancel: &'a CancellationToken,
}

/// Copies that are looked at: those of this history of the log, and none that are gone.
async fn points(
    asked: &Asked<'_>,
    chosen: &Chosen<'_>,
    repository: &Repository,
) -> Outcome<Vec<RecoveryPoint>> {
    let memory = Memory::open_to_read(asked.cli, &asked.setup.state).await?;
    let id = reference(chosen.spec, repository).id;
    let mut points = app::points(&memory, &chosen.service.name, &chosen.source.name, Some(&id)).await?;
    points.retain(|point| !point.is_gone());
    points.sort_by_key(|point| (point.point, point.sequence));
    Ok(points)
}

/// Refuses where the repository holds copies of this source that this machine does not know of: they may hold more of the log.
async fn all_are_known(
    asked: &Asked<'_>,
    chosen: &Chosen<'_>,
    cx: &Cx,
    repository: &Repository,
) -> Outcome<()> {
    let memory = Memory::open_to_read(asked.cli, &asked.setup.state).await?;
    let there = listed(cx, repository).await?;
    let known = memory.points_in(&reference(chosen.spec, repository).id).await?;
    let known: BTreeSet<&CopyId> = known.iter().map(|point| &point.copy).collect();
    let unknown: Vec<CopyId> = there.into_iter().filter(|copy| !known.contains(copy)).collect();
    let own = [format!("service={}", chosen.service.name), format!("source={}", chosen.source.name)];
    let (from, control) = (repository.clone(), control(cx));
    let is_more = wiring::blocking(move || {
        for copy in &unknown {
            let Some(id) = SnapshotId::parse(&copy.0) else { continue };
            let snapshot = from.snapshot(&id, &control).map_err(|error| {
                wiring::repository_failure("look at a copy that is not known here", error)
            })?;
            if own.iter().all(|tag| snapshot.tags.contains(tag)) {
                return Ok::<_, Failure>(true);
            }
        }
        Ok(false)
    });
    if is_more.await? {
        return Err(Failure::new(
            Exit::Unknown,
            format!(
                "say where the log of {}/{} ends: {} holds copies of it that are not known here",
                chosen.service.name, chosen.source.name, chosen.spec.name
            ),
        )
        .hint("seaworthy catalogue rebuild"));
    }
    Ok(())
}

/// The cluster in whose data directory this runs, as a server runs it; unknown anywhere else.
fn system_here() -> Option<u64> {
    // The first eight bytes of the control file, in the machine's own order (`src/include/catalog/pg_control.h`).
    let mut first = [0; 8];
    std::fs::File::open("global/pg_control").and_then(|mut file| file.read_exact(&mut first)).ok()?;
    Some(u64::from_ne_bytes(first))
}

fn name_of(path: &Path) -> Outcome<String> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned).ok_or_else(|| {
        Failure::new(
            Exit::Usage,
            format!("`{}` names no file of the log", printable(&path.to_string_lossy())),
        )
    })
}

fn read(path: &Path) -> Outcome<Bytes> {
    let what = || format!("read {}", printable(&path.to_string_lossy()));
    let failed = |error: std::io::Error| Failure::because(Exit::Unexpected, what(), &error);
    let mut all = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut all).map_err(failed)?;
    if all.len() as u64 > FILE_BYTES_MAX {
        return Err(Failure::new(
            Exit::Usage,
            format!("{}: it is no file of the log: it is too long", what()),
        ));
    }
    Ok(Bytes::from(all))
}

/// Keeps a file of the log. When this ends well, it is durable in the repository.
pub(super) async fn push(asked: &Asked<'_>, path: &Path) -> Outcome {
    let chosen = super::chosen(asked.setup, asked.of)?;
    let file = LogFile { name: name_of(path)?, system: system_here() };
    let own = path.to_path_buf();
    let content = wiring::blocking(move || read(&own)).await?;
    let name = format!("{}/{}", chosen.service.name, chosen.source.name);
    if asked.cli.global.dry_run {
        asked.face.data(format!(
            "would keep {} ({}) of the log of {name} in {}",
            printable(&file.name),
            bytes(content.len() as u64),
            chosen.spec.name
        ))?;
        return Ok(Exit::Ok);
    }
    let cx = crate::cli::silent(asked.cancel);
    let repository = Opened::new(&asked.setup.state).get(&cx, chosen.spec).await?;
    let journal = journal(&cx, &repository, chosen.service, chosen.source);
    let mut points = points(asked, &chosen, &repository).await?;
    let pieces = held(&journal).await?;
    points.retain(|point| apart(&pieces, point.point).is_none());
    let ground = Ground { cx: &cx, repository: &repository, points };
    let copies = ground.around(&file.name).await?;
    let driver = wiring::driver(&asked.setup.state, &chosen.source.spec)?;
    let pushed = driver.keep_log_file(&cx, &copies, journal, &file, content).await?;
    if asked.face.json {
        let stored = if let Pushed::Stored(stored) = pushed { stored } else { 0 };
        asked.face.json(&serde_json::json!({
            "schema": "seaworthy.wal/1", "event": "pushed", "source": name, "file": file.name, "stored": stored,
        }))?;
    } else if std::io::stdout().is_terminal() {
        // A server writes what it is told here into its own log, once for each file.
        asked.face.data(match pushed {
            Pushed::Stored(stored) => {
                format!(
                    "kept {} of the log of {name} in {}: {} stored",
                    file.name,
                    chosen.spec.name,
                    bytes(stored)
                )
            }
            Pushed::Known => format!(
                "{} of the log of {name} was kept in {} before, and is the same",
                file.name, chosen.spec.name
            ),
        })?;
    }
    Ok(Exit::Ok)
}

/// Puts what was handed over into its place, whole or not at all.
fn put(content: &[u8], to: &Path) -> Outcome<()> {
    let mut part = to.to_path_buf().into_os_string();
    part.push(".seaworthy");
    let part = PathBuf::from(part);
    let written = std::fs::write(&part, content).and_then(|()| std::fs::rename(&part, to));
    written.map_err(|error| {
        // Nobody takes it for the file.
        drop(std::fs::remove_file(&part));
        Failure::because(Exit::Unexpected, format!("write {}", printable(&to.to_string_lossy())), &error)
    })
}

/// Hands a file of the log to a server that recovers. Exit code 1, and no error, only where nothing of it and nothing behind it is kept:
/// for the server the log ends there. Every error has a code above 125, which stops it.
pub(super) async fn get(asked: &Asked<'_>, name: &str, to: &Path, point: Option<&str>) -> Outcome {
    let chosen = super::chosen(asked.setup, asked.of)?;
    let file = LogFile { name: name.to_owned(), system: system_here() };
    let cx = crate::cli::silent(asked.cancel);
    let repository = Opened::new(&asked.setup.state).get(&cx, chosen.spec).await?;
    let journal = journal(&cx, &repository, chosen.service, chosen.source);
    let mut points = points(asked, &chosen, &repository).await?;
    if points.is_empty() {
        // Without them nobody knows how far the log goes that copies hold, and its end must not be guessed.
        return Err(Failure::new(
            Exit::NotFound,
            format!(
                "hand {} over: no copy of {}/{} is known here",
                printable(name),
                chosen.service.name,
                chosen.source.name
            ),
        )
        .hint("on a machine that has not made the backups, first: seaworthy catalogue rebuild"));
    }
    let of = point.map(|id| {
        let found: Vec<&RecoveryPoint> = points.iter().filter(|point| point.copy.0.starts_with(id)).collect();
        match found.as_slice() {
            [only] => Ok(only.point),
            _ => Err(Failure::new(
                Exit::NotFound,
                format!("{} copies are called `{}`", found.len(), printable(id)),
            )
            .hint("seaworthy points lists them")),
        }
    });
    let of = of.transpose()?;
    let pieces = held(&journal).await?;
    let history = of.and_then(|of| apart(&pieces, of));
    points.retain(|point| apart(&pieces, point.point) == history);
    let ground = Ground { cx: &cx, repository: &repository, points };
    let copies = ground.around(name).await?;
    let driver = wiring::driver(&asked.setup.state, &chosen.source.spec)?;
    let handed = driver.log_file(&cx, &copies, journal, &file, of).await;
    let handed = handed.map_err(|error| {
        let is_hole = error.kind == ErrorKind::NotFound && error.code == Some(FindingCode::LogGap);
        let failure = Failure::from(error);
        if is_hole { Failure { exit: Exit::Withheld, ..failure } } else { failure }
    })?;
    if !matches!(handed, Handed::File(_)) {
        all_are_known(asked, &chosen, &cx, &repository).await?;
    }
    let content = match handed {
        Handed::File(content) => content,
        Handed::UpTo(content, until) => {
            asked.face.say(format!("{name}: what is kept of the log ends in it, at {until}"))?;
            content
        }
        Handed::Beyond => {
            asked.face.say(format!("{name}: what is kept of the log ends before it"))?;
            return Ok(Exit::Unexpected);
        }
    };
    if asked.cli.global.dry_run {
        asked.face.data(format!("would write {name} ({})", bytes(content.len() as u64)))?;
        return Ok(Exit::Ok);
    }
    let to = to.to_path_buf();
    wiring::blocking(move || put(&content, &to)).await?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_put_into_place_whole_or_not_at_all() {
        let place = tempfile::tempdir().unwrap();
        let to = place.path().join("RECOVERYXLOG");
        put(b"log", &to).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"log");
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
        assert!(put(b"log", &place.path().join("nowhere/RECOVERYXLOG")).is_err());
    }

    #[test]
    fn names_of_files_are_the_last_part_of_a_path() {
        let name = |path: &str| name_of(Path::new(path)).ok();
        assert_eq!(name("pg_wal/000000010000000000000007").as_deref(), Some("000000010000000000000007"));
        assert_eq!(name("/"), None);
    }
}
