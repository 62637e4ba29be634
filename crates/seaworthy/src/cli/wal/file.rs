//! `wal push` and `wal get`: what a server runs as its `archive_command` and its `restore_command`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{IsTerminal as _, Read as _, Seek as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use seaworthy_engine::act::retain::listed;
use seaworthy_engine::store::{SnapshotReader, control};
use seaworthy_interface::{
    CopyReader, Cx, DriverError, ErrorKind, Handed, HeldPiece, Journal, LogFile, Pushed, Source,
};
use seaworthy_model::finding::FindingCode;
use seaworthy_model::id::CopyId;
use seaworthy_model::point::RecoveryPoint;
use seaworthy_model::service::{RepositorySpec, Service, ServiceSource};
use seaworthy_model::wal::{
    LogCopy, LogPiece, Lsn, Segment, SegmentSize, Stretch, Timeline, WalFile, stretches,
};
use seaworthy_model::witness::Witness;
use seaworthy_repository::{Repository, SnapshotId};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::{Chosen, call, held, journal};
use crate::app::{self, Opened, reference};
use crate::cli::args::{Cli, WalOf};
use crate::cli::drill;
use crate::cli::restore::facts;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, printable};
use crate::memory::Memory;
use crate::output::{Face, bytes};
use crate::setup::{self, Setup};
use crate::state::State;
use crate::wiring;

/// Longest file that a server archives: one of a log whose files are as long as they can be.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Files that are read before they are asked for, and what they may take of memory.
const AHEAD: usize = 2;
const AHEAD_BYTES: u64 = 64 << 20;

/// A copy, and what it says of itself.
type Copy = (Witness, Arc<dyn CopyReader>);

/// Which part of the log a copy holds: where that ends, and how long the log's files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    until: (Timeline, Lsn),
    segment: SegmentSize,
}

/// What was learnt of copies. A copy never changes, so that none of it grows old.
#[derive(Default)]
struct Learnt {
    /// Nothing for a copy that holds no log.
    spans: BTreeMap<CopyId, Option<Span>>,
    /// The copies that were asked last, in order: a server asks for one file of the log after another.
    last: (Vec<CopyId>, Arc<Vec<Copy>>),
}

/// A file of the log that was read before it was asked for.
struct Ahead {
    wanted: Wanted,
    /// Nothing where it is not kept whole, or could not be read: whoever asks is told why.
    content: OnceCell<Option<Bytes>>,
}

/// What a file that is handed over depends on. As long as none of it changes, what was read before is what would be read now.
struct Wanted {
    file: LogFile,
    of: Option<Timestamp>,
    /// When anything was set apart.
    apart: BTreeSet<Timestamp>,
    copies: Arc<Vec<Copy>>,
}

impl PartialEq for Wanted {
    fn eq(&self, other: &Self) -> bool {
        (&self.file, self.of, &self.apart) == (&other.file, other.of, &other.apart)
            && Arc::ptr_eq(&self.copies, &other.copies)
    }
}

/// Where the files of one source's log are kept and asked for, opened: everything that can be told again and again.
pub(super) struct Desk {
    is_rehearsal: bool,
    state: State,
    pub(super) service: Service,
    pub(super) source: ServiceSource,
    pub(super) spec: RepositorySpec,
    cx: Cx,
    repository: Repository,
    journal: Arc<dyn Journal>,
    driver: Arc<dyn Source>,
    learnt: Mutex<Learnt>,
    ahead: Mutex<VecDeque<Arc<Ahead>>>,
}

/// Copies of one history of the log, oldest first.
struct Ground<'a> {
    desk: &'a Desk,
    points: Vec<RecoveryPoint>,
}

/// The instant at which the log that leads on from a copy was set apart; nothing where it is the server's still.
fn apart(held: &[HeldPiece], copy: Timestamp) -> Option<Timestamp> {
    held.iter().filter_map(|piece| piece.apart).filter(|apart| *apart > copy).min()
}

impl Ground<'_> {
    async fn read(&self, point: &RecoveryPoint) -> Outcome<Copy> {
        let reader: Arc<dyn CopyReader> =
            Arc::new(SnapshotReader::new(&self.desk.cx, &self.desk.repository, &point.copy)?);
        let (witness, doubts) = drill::witness(&reader, point).await;
        if let Some((witness, _)) = witness {
            let span = facts(&witness)
                .map(|facts| Span { until: (facts.timeline, facts.until), segment: facts.segment_bytes });
            self.desk.learnt().spans.insert(point.copy.clone(), span);
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

    /// What a copy holds of the log; nothing for a dump, from while the mode was another.
    async fn span(&self, at: usize) -> Outcome<Option<Span>> {
        let point = &self.points[at];
        let known = self.desk.learnt().spans.get(&point.copy).copied();
        if let Some(known) = known {
            return Ok(known);
        }
        let (witness, _) = self.read(point).await?;
        Ok(facts(&witness)
            .map(|facts| Span { until: (facts.timeline, facts.until), segment: facts.segment_bytes }))
    }

    /// The newest copy in a range that holds a log, and what it holds of it.
    async fn logged(&self, from: usize, to: usize) -> Outcome<Option<(usize, Span)>> {
        for at in (from..to).rev() {
            if let Some(span) = self.span(at).await? {
                return Ok(Some((at, span)));
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
                Some((at, span)) if span.until >= position => to = at,
                Some(_) | None => from = middle + 1,
            }
        }
        let before = self.logged(0, from).await?.map(|(at, _)| at);
        Ok(before.into_iter().chain((from < self.points.len()).then_some(from)).collect())
    }

    /// The copies that may hold a file, and the newest of its timeline and of all, in order.
    async fn around(&self, name: &str) -> Outcome<Arc<Vec<Copy>>> {
        let Some((newest, span)) = self.logged(0, self.points.len()).await? else {
            return Ok(Arc::default());
        };
        let mut chosen = BTreeSet::from([newest]);
        match WalFile::parse(name, span.segment) {
            Ok(WalFile::Segment(segment) | WalFile::Partial(segment) | WalFile::Backup(segment, _)) => {
                chosen.extend(self.beside((segment.timeline, segment.end(span.segment))).await?);
                chosen.extend(self.beside((segment.timeline, Lsn(u64::MAX))).await?);
            }
            Ok(WalFile::History(timeline)) => {
                chosen.extend(self.beside((timeline, Lsn(u64::MAX))).await?);
            }
            // What is wrong with the name is told by whoever reads it.
            Err(_) => {}
        }
        let points: Vec<&RecoveryPoint> = chosen.into_iter().filter_map(|at| self.points.get(at)).collect();
        let ids: Vec<CopyId> = points.iter().map(|point| point.copy.clone()).collect();
        {
            let learnt = self.desk.learnt();
            if learnt.last.0 == ids {
                return Ok(Arc::clone(&learnt.last.1));
            }
        }
        let mut copies = Vec::new();
        for point in points {
            copies.push(self.read(point).await?);
        }
        let copies = Arc::new(copies);
        self.desk.learnt().last = (ids, Arc::clone(&copies));
        Ok(copies)
    }
}

impl Desk {
    fn learnt(&self) -> MutexGuard<'_, Learnt> {
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the repository: from here on it answers without a password.
    pub(super) async fn open(
        cli: &Cli,
        setup: &Setup,
        of: &WalOf,
        cancel: &CancellationToken,
    ) -> Outcome<Self> {
        let Chosen { service, source, spec } = super::chosen(setup, of)?;
        let cx = crate::cli::silent(cancel);
        let repository = Opened::new(&setup.state).get(&cx, spec).await?;
        Ok(Self {
            is_rehearsal: cli.global.dry_run,
            state: setup.state.clone(),
            journal: journal(&cx, &repository, service, source),
            driver: wiring::driver(&setup.state, &source.spec)?,
            service: service.clone(),
            source: source.clone(),
            spec: spec.clone(),
            cx,
            repository,
            learnt: Mutex::default(),
            ahead: Mutex::default(),
        })
    }

    /// `service/source`.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.service.name, self.source.name)
    }

    /// Copies that are looked at: those of this history of the log, and none that are gone.
    async fn points(&self) -> Outcome<Vec<RecoveryPoint>> {
        let memory = Memory::open_existing(self.is_rehearsal, &self.state).await?;
        let id = reference(&self.spec, &self.repository).id;
        let mut points = app::points(&memory, &self.service.name, &self.source.name, Some(&id)).await?;
        points.retain(|point| !point.is_gone());
        points.sort_by_key(|point| (point.point, point.sequence));
        Ok(points)
    }

    /// Refuses where the repository holds copies of this source that this machine does not know of: they may hold more of the log.
    async fn all_are_known(&self) -> Outcome<()> {
        let memory = Memory::open_existing(self.is_rehearsal, &self.state).await?;
        let there = listed(&self.cx, &self.repository).await?;
        let known = memory.points_in(&reference(&self.spec, &self.repository).id).await?;
        let known: BTreeSet<&CopyId> = known.iter().map(|point| &point.copy).collect();
        let unknown: Vec<CopyId> = there.into_iter().filter(|copy| !known.contains(copy)).collect();
        let own = [format!("service={}", self.service.name), format!("source={}", self.source.name)];
        let (from, control) = (self.repository.clone(), control(&self.cx));
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
                    "say where the log of {} ends: {} holds copies of it that are not known here",
                    self.name(),
                    self.spec.name
                ),
            )
            .hint("seaworthy catalogue rebuild"));
        }
        Ok(())
    }

    /// What is kept of the log as it goes on now, in copies and outside of them.
    pub(super) async fn map(&self) -> Outcome<Map> {
        let (apart_from, pieces): (Vec<_>, Vec<_>) =
            held(&self.journal).await?.into_iter().partition(|piece| piece.apart.is_some());
        let mut points = self.points().await?;
        points.retain(|point| apart(&apart_from, point.point).is_none());
        let ground = Ground { desk: self, points };
        let (mut copies, mut untold) = (Vec::new(), Vec::new());
        for point in &ground.points {
            self.cx.check().map_err(DriverError::from)?;
            let witness = match ground.read(point).await {
                Ok((witness, _)) => witness,
                // One copy that is damaged does not hide what the others hold.
                Err(failure) => {
                    untold.push(failure.chain.join(": "));
                    continue;
                }
            };
            if let (Some(facts), Some(system)) = (facts(&witness), system_of(&witness)) {
                copies.push(LogCopy::new(system, facts, point.point));
            }
        }
        let loose = pieces.iter().map(|piece| LogPiece {
            system: piece.of.system,
            timeline: piece.of.timeline,
            from: piece.of.from,
            to: piece.of.to,
            complete_at: piece.of.complete_at,
        });
        let stretches = stretches(&copies, &loose.collect::<Vec<_>>());
        Ok(Map { stretches, apart: apart_from, untold })
    }

    /// Keeps a file of the log. When this ends well, it is durable in the repository.
    pub(super) async fn keep(&self, file: &LogFile, content: Bytes) -> Outcome<Pushed> {
        let mut points = self.points().await?;
        let pieces = held(&self.journal).await?;
        points.retain(|point| apart(&pieces, point.point).is_none());
        let copies = Ground { desk: self, points }.around(&file.name).await?;
        let journal = Arc::clone(&self.journal);
        Ok(self.driver.keep_log_file(&self.cx, &copies, journal, file, content).await?)
    }

    fn ahead(&self) -> MutexGuard<'_, VecDeque<Arc<Ahead>>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What handing a file over depends on.
    async fn wanted(
        &self,
        file: &LogFile,
        of: Option<Timestamp>,
        mut points: Vec<RecoveryPoint>,
    ) -> Outcome<Wanted> {
        let pieces = held(&self.journal).await?;
        let history = of.and_then(|of| apart(&pieces, of));
        points.retain(|point| apart(&pieces, point.point) == history);
        let copies = Ground { desk: self, points }.around(&file.name).await?;
        let apart = pieces.iter().filter_map(|piece| piece.apart).collect();
        Ok(Wanted { file: file.clone(), of, apart, copies })
    }

    async fn asked(&self, wanted: &Wanted) -> Outcome<Handed> {
        let Wanted { file, of, copies, .. } = wanted;
        let handed = self.driver.log_file(&self.cx, copies, Arc::clone(&self.journal), file, *of).await;
        handed.map_err(|error| {
            let is_hole = error.kind == ErrorKind::NotFound && error.code == Some(FindingCode::LogGap);
            let failure = Failure::from(error);
            if is_hole { Failure { exit: Exit::Withheld, ..failure } } else { failure }
        })
    }

    /// The file, where it is kept whole.
    async fn whole(&self, wanted: &Wanted) -> Option<Bytes> {
        match self.asked(wanted).await {
            Ok(Handed::File(content)) => Some(content),
            Ok(Handed::UpTo(..) | Handed::Beyond) | Err(_) => None,
        }
    }

    /// Reads the files behind one that was handed over: a server asks for one after the other, and waits for each. What goes wrong is told when they
    /// are asked for.
    pub(super) async fn read_ahead(&self, file: &LogFile, point: Option<&str>) {
        let Some(size) = self.learnt().spans.values().flatten().next_back().map(|span| span.segment) else {
            return;
        };
        let many = usize::try_from(AHEAD_BYTES / size.bytes()).unwrap_or(0).min(AHEAD);
        let Ok(WalFile::Segment(mut segment)) = WalFile::parse(&file.name, size) else { return };
        for _ in 0..many {
            segment = Segment::of(segment.timeline, segment.end(size), size);
            let next = LogFile { name: segment.name(size), system: file.system };
            let Ok(points) = self.points().await else { return };
            let Ok(of) = moment_of(&points, point) else { return };
            let Ok(wanted) = self.wanted(&next, of, points).await else { return };
            let one = {
                let mut ahead = self.ahead();
                if ahead.iter().any(|known| known.wanted == wanted) {
                    continue;
                }
                let one = Arc::new(Ahead { wanted, content: OnceCell::new() });
                ahead.push_back(Arc::clone(&one));
                while ahead.len() > many {
                    ahead.pop_front();
                }
                one
            };
            if one.content.get_or_init(|| self.whole(&one.wanted)).await.is_none() {
                self.ahead().retain(|other| !Arc::ptr_eq(other, &one));
                return;
            }
        }
    }

    /// Hands a file of the log over. It is [`Handed::Beyond`] only where nothing of it, and nothing behind it, is kept anywhere.
    pub(super) async fn hand(&self, file: &LogFile, point: Option<&str>) -> Outcome<Handed> {
        let points = self.points().await?;
        if points.is_empty() {
            // Without them nobody knows how far the log goes that copies hold, and its end must not be guessed.
            return Err(Failure::new(
                Exit::NotFound,
                format!("hand {} over: no copy of {} is known here", printable(&file.name), self.name()),
            )
            .hint("on a machine that has not made the backups, first: seaworthy catalogue rebuild"));
        }
        let of = moment_of(&points, point)?;
        let wanted = self.wanted(file, of, points).await?;
        let before = {
            let mut ahead = self.ahead();
            let at = ahead.iter().position(|ahead| ahead.wanted == wanted);
            at.and_then(|at| ahead.remove(at))
        };
        if let Some(before) = before
            && let Some(content) = before.content.get_or_init(|| self.whole(&wanted)).await
        {
            return Ok(Handed::File(content.clone()));
        }
        let handed = self.asked(&wanted).await?;
        if !matches!(handed, Handed::File(_)) {
            self.all_are_known().await?;
        }
        Ok(handed)
    }
}

/// The instant of the copy that is recovered, where one is named.
fn moment_of(points: &[RecoveryPoint], point: Option<&str>) -> Outcome<Option<Timestamp>> {
    let Some(id) = point else { return Ok(None) };
    let found: Vec<&RecoveryPoint> = points.iter().filter(|point| point.copy.0.starts_with(id)).collect();
    match found.as_slice() {
        [only] => Ok(Some(only.point)),
        _ => Err(Failure::new(
            Exit::NotFound,
            format!("{} copies are called `{}`", found.len(), printable(id)),
        )
        .hint("seaworthy points lists them")),
    }
}

/// What is kept of a log.
pub(super) struct Map {
    pub(super) stretches: Vec<Stretch>,
    /// Pieces that are set apart: from before the server was put back.
    pub(super) apart: Vec<HeldPiece>,
    /// Copies that do not tell what they hold of it, and why.
    pub(super) untold: Vec<String>,
}

/// What was written into a server's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    /// The file of the log, of so many bytes.
    File(u64),
    /// Its beginning, with zeros behind it: all that is kept ends there.
    UpTo(u64, Lsn),
    /// Nothing: what is kept ends before it.
    Beyond,
}

/// What a command is run with.
pub(super) struct Asked<'a> {
    pub(super) cli: &'a Cli,
    pub(super) face: &'a Face,
    pub(super) of: &'a WalOf,
    /// Where a resident process listens, if that is asked and not the repository.
    pub(super) socket: Option<&'a Path>,
    pub(super) cancel: &'a CancellationToken,
}

/// The cluster that a copy is of.
fn system_of(witness: &Witness) -> Option<u64> {
    match witness {
        Witness::Postgres(witness) => witness.server.system_identifier.parse().ok(),
        Witness::Sqlite(_) | Witness::Files(_) => None,
    }
}

/// The cluster in whose data directory this runs, as a server runs it; unknown anywhere else.
fn system_here() -> Option<u64> {
    // The first eight bytes of the control file, in the machine's own order (`src/include/catalog/pg_control.h`).
    let mut first = [0; 8];
    File::open("global/pg_control").and_then(|mut file| file.read_exact(&mut first)).ok()?;
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

fn open(path: &Path) -> Outcome<File> {
    let what = || format!("read {}", printable(&path.to_string_lossy()));
    File::open(path).map_err(|error| Failure::because(Exit::Unexpected, what(), &error))
}

/// What an open file holds, from its beginning.
pub(super) fn read_open(mut file: File, name: &str) -> Outcome<Bytes> {
    let what = || format!("read {}", printable(name));
    let failed = |error: std::io::Error| Failure::because(Exit::Unexpected, what(), &error);
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        let why = if metadata.is_file() { "it is too long" } else { "it is no regular file" };
        return Err(Failure::new(Exit::Usage, format!("{}: it is no file of the log: {why}", what())));
    }
    file.rewind().map_err(failed)?;
    let mut all = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    file.take(FILE_BYTES_MAX).read_to_end(&mut all).map_err(failed)?;
    Ok(Bytes::from(all))
}

/// Writes what is handed over into an open file that is empty. Only [`Handed::Beyond`] is the end of the log, never a file without bytes.
pub(super) fn give(file: &File, handed: Handed, name: &str) -> Outcome<Given> {
    Ok(match handed {
        Handed::File(content) => {
            write_open(file, &content, name)?;
            Given::File(content.len() as u64)
        }
        Handed::UpTo(content, until) => {
            write_open(file, &content, name)?;
            Given::UpTo(content.len() as u64, until)
        }
        Handed::Beyond => Given::Beyond,
    })
}

fn write_open(file: &File, content: &[u8], name: &str) -> Outcome<()> {
    let failed = |error: std::io::Error| {
        Failure::because(Exit::Unexpected, format!("write {}", printable(name)), &error)
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(Failure::new(Exit::Usage, format!("write {}: it is no regular file", printable(name))));
    }
    file.write_all_at(content, 0).map_err(failed)
}

/// Keeps a file of the log. When this ends well, it is durable in the repository.
pub(super) async fn push(asked: &Asked<'_>, path: &Path) -> Outcome {
    let file = LogFile { name: name_of(path)?, system: system_here() };
    let content = open(path)?;
    let metadata = content.metadata();
    let size =
        metadata.map_err(|error| Failure::because(Exit::Unexpected, "look at the file", &error))?.len();
    let (name, to, pushed) = if let Some(socket) = asked.socket {
        let name = name_asked(asked.of);
        let to = format!("what listens at {}", printable(&socket.to_string_lossy()));
        if asked.cli.global.dry_run {
            (name, to, None)
        } else {
            let pushed = call::keep(asked.cancel, socket, asked.of, &file, &content).await?;
            (name, to, Some(pushed))
        }
    } else {
        let setup = setup::load(asked.cli, asked.face)?;
        if asked.cli.global.dry_run {
            let chosen = super::chosen(&setup, asked.of)?;
            (format!("{}/{}", chosen.service.name, chosen.source.name), chosen.spec.name.to_string(), None)
        } else {
            let own = file.name.clone();
            let content = wiring::blocking(move || read_open(content, &own)).await?;
            let desk = Desk::open(asked.cli, &setup, asked.of, asked.cancel).await?;
            let pushed = desk.keep(&file, content).await?;
            (desk.name(), desk.spec.name.to_string(), Some(pushed))
        }
    };
    let Some(pushed) = pushed else {
        asked.face.data(format!(
            "would keep {} ({}) of the log of {name} in {to}",
            printable(&file.name),
            bytes(size)
        ))?;
        return Ok(Exit::Ok);
    };
    if asked.face.json {
        let stored = if let Pushed::Stored(stored) = pushed { stored } else { 0 };
        asked.face.json(&serde_json::json!({
            "schema": "seaworthy.wal/1", "event": "pushed", "source": name, "file": file.name, "stored": stored,
        }))?;
    } else if std::io::stdout().is_terminal() {
        // A server writes what it is told here into its own log, once for each file.
        asked.face.data(match pushed {
            Pushed::Stored(stored) => {
                format!("kept {} of the log of {name} in {to}: {} stored", file.name, bytes(stored))
            }
            Pushed::Known => {
                format!("{} of the log of {name} was kept in {to} before, and is the same", file.name)
            }
        })?;
    }
    Ok(Exit::Ok)
}

/// The source as whoever asks names it.
fn name_asked(of: &WalOf) -> String {
    of.source.as_ref().map_or_else(|| of.service.clone(), |source| format!("{}/{source}", of.service))
}

/// A file that is not yet in its place; gone when it is dropped before that.
struct Part {
    file: File,
    /// Nothing where it is only looked at.
    at: Option<PathBuf>,
}

impl Part {
    fn beside(to: &Path) -> Outcome<Self> {
        let mut part = to.to_path_buf().into_os_string();
        part.push(".seaworthy");
        let part = PathBuf::from(part);
        match File::create(&part) {
            Ok(file) => Ok(Self { file, at: Some(part) }),
            Err(error) => Err(Self::failed(to, &error)),
        }
    }

    /// One that no directory names.
    fn nowhere() -> Outcome<Self> {
        let made = rustix::fs::memfd_create("log", rustix::fs::MemfdFlags::CLOEXEC);
        let failed =
            |error: std::io::Error| Failure::because(Exit::Unexpected, "make room for a file", &error);
        Ok(Self { file: File::from(made.map_err(|error| failed(error.into()))?), at: None })
    }

    fn failed(to: &Path, error: &std::io::Error) -> Failure {
        Failure::because(Exit::Unexpected, format!("write {}", printable(&to.to_string_lossy())), error)
    }

    /// Puts it into its place.
    fn put(mut self, to: &Path) -> Outcome<()> {
        let Some(at) = self.at.take() else { return Ok(()) };
        std::fs::rename(&at, to).map_err(|error| {
            self.at = Some(at);
            Self::failed(to, &error)
        })
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Nobody takes it for the file.
        if let Some(at) = &self.at {
            drop(std::fs::remove_file(at));
        }
    }
}

/// Hands a file of the log to a server that recovers. Exit code 1, and no error, only where nothing of it and nothing behind it is kept:
/// for the server the log ends there. Every error has a code above 125, which stops it.
pub(super) async fn get(asked: &Asked<'_>, name: &str, to: &Path, point: Option<&str>) -> Outcome {
    let file = LogFile { name: name.to_owned(), system: system_here() };
    let part = if asked.cli.global.dry_run { Part::nowhere()? } else { Part::beside(to)? };
    let given = if let Some(socket) = asked.socket {
        call::hand(asked.cancel, socket, asked.of, &file, point, &part.file).await?
    } else {
        let setup = setup::load(asked.cli, asked.face)?;
        let desk = Desk::open(asked.cli, &setup, asked.of, asked.cancel).await?;
        give(&part.file, desk.hand(&file, point).await?, name)?
    };
    let length = match given {
        Given::File(length) => length,
        Given::UpTo(length, until) => {
            asked.face.say(format!("{name}: what is kept of the log ends in it, at {until}"))?;
            length
        }
        Given::Beyond => {
            asked.face.say(format!("{name}: what is kept of the log ends before it"))?;
            return Ok(Exit::Unexpected);
        }
    };
    if asked.cli.global.dry_run {
        asked.face.data(format!("would write {name} ({})", bytes(length)))?;
        return Ok(Exit::Ok);
    }
    part.put(to)?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_put_into_place_whole_or_not_at_all() {
        let place = tempfile::tempdir().unwrap();
        let to = place.path().join("RECOVERYXLOG");
        let part = Part::beside(&to).unwrap();
        write_open(&part.file, b"log", "log").unwrap();
        part.put(&to).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"log");
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
        drop(Part::beside(&to).unwrap());
        let part = Part::beside(&to).unwrap();
        assert!(part.put(&place.path().join("nowhere/RECOVERYXLOG")).is_err());
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
        assert!(Part::beside(&place.path().join("nowhere/RECOVERYXLOG")).is_err());
        // A file without bytes is a file.
        let empty = Part::nowhere().unwrap();
        assert_eq!(give(&empty.file, Handed::File(Bytes::new()), "log").unwrap(), Given::File(0));
        assert_eq!(give(&empty.file, Handed::Beyond, "log").unwrap(), Given::Beyond);
        // What is no file is neither read nor written.
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let socket = File::from(std::os::fd::OwnedFd::from(one));
        assert!(write_open(&socket, b"log", "log").is_err());
        assert!(read_open(socket, "log").is_err());
    }

    #[test]
    fn names_of_files_are_the_last_part_of_a_path() {
        let name = |path: &str| name_of(Path::new(path)).ok();
        assert_eq!(name("pg_wal/000000010000000000000007").as_deref(), Some("000000010000000000000007"));
        assert_eq!(name("/"), None);
    }
}
