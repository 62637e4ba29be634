//! The log file by file, as a server's `archive_command` hands it over and its `restore_command` asks for it.
//!
//! What is kept of a file may lie in several places: a copy holds its beginning up to the copy's end, the journal what was received or
//! handed over since. All of it is one history of the cluster, so that two places never say different things of one position; whoever
//! hands over something else is told.
//!
//! A server takes almost every failure of its `restore_command` for the end of the log. So nothing is handed over that was not read record by
//! record, and a file is only said not to be there where nothing behind its beginning is kept.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use seaworthy_interface::{
    CopyReader, DriverError, ErrorKind, Handed, HeldFile, HeldPiece, Journal, LogFile, PieceOf, Pushed,
};
use seaworthy_model::finding::FindingCode;
use seaworthy_model::wal::{Coverage, Lsn, Segment, SegmentSize, Supply, Timeline, WalFile};
use seaworthy_model::witness::FileOfLog;
use seaworthy_model::witness::postgres::printable;

use super::super::wal::page::{self, Expected, Link};
use super::deliver::Copy;
use super::restore::physical_of;
use super::stream::{of_history, without_hole};
use super::{between_path, log_path};

/// Longest file that is kept whole: one of the log.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// A file of the log in a copy.
struct InCopy {
    from: Arc<dyn CopyReader>,
    is_between: bool,
    segment: Segment,
    /// The position behind what the copy holds of it.
    until: Lsn,
}

/// What is kept of one history of a cluster's log, wherever it lies.
struct Kept {
    system: u64,
    size: SegmentSize,
    copies: Vec<InCopy>,
    pieces: Vec<HeldPiece>,
    journal: Arc<dyn Journal>,
    coverage: Coverage,
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn conflict(detail: String) -> DriverError {
    DriverError::new(ErrorKind::Conflict, detail).code(FindingCode::WrongSource)
}

fn system_of(copy: &Copy) -> Option<u64> {
    copy.0.server.system_identifier.parse().ok()
}

/// The cluster that is asked for; where nobody says, the only one of which anything is kept.
fn system(
    asked: Option<u64>,
    copies: &[Copy],
    held: &[HeldPiece],
    files: &[HeldFile],
) -> Result<u64, DriverError> {
    let known: BTreeSet<u64> = copies
        .iter()
        .filter_map(system_of)
        .chain(held.iter().map(|piece| piece.of.system))
        .chain(files.iter().map(|file| file.system))
        .collect();
    let names = || known.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    match (asked, known.first()) {
        (_, None) => Err(DriverError::new(ErrorKind::NotFound, "find the log: nothing of it is kept").hint(
            "a copy of a source with mode = \"continuous\" holds it, and `seaworthy wal stream` keeps it",
        )),
        (Some(asked), _) if known.contains(&asked) => Ok(asked),
        (Some(asked), _) => Err(conflict(format!(
            "find the log: what is kept is of cluster {}, and this is cluster {asked}",
            names()
        ))
        .hint("name the service that is backed up from this cluster; of a new one, take a copy first")),
        (None, Some(only)) if known.len() == 1 => Ok(*only),
        (None, _) => Err(conflict(format!("find the log: it is kept of several clusters ({})", names()))
            .hint("run this in the data directory of the server that asks, as PostgreSQL does")),
    }
}

impl Kept {
    fn new(
        copies: &[Copy],
        journal: Arc<dyn Journal>,
        held: Vec<HeldPiece>,
        system: u64,
    ) -> Result<Self, DriverError> {
        let pieces: Vec<HeldPiece> = held.into_iter().filter(|piece| piece.of.system == system).collect();
        let mut sizes: BTreeSet<u32> = pieces.iter().map(|piece| piece.of.segment_bytes.into()).collect();
        let copies: Vec<&Copy> = copies.iter().filter(|copy| system_of(copy) == Some(system)).collect();
        for (witness, _) in &copies {
            sizes.insert(physical_of(witness)?.segment_bytes.into());
        }
        let size = match sizes.first() {
            Some(only) if sizes.len() == 1 => SegmentSize::try_from(*only)
                .map_err(|error| DriverError::new(ErrorKind::Corrupt, "find the log").because(error))?,
            None => SegmentSize::USUAL,
            Some(_) => {
                return Err(DriverError::new(
                    ErrorKind::Unsupported,
                    format!("find the log: the files of cluster {system} have had several lengths"),
                )
                .hint("seaworthy restore --until finds the moment in it"));
            }
        };
        let mut kept =
            Self { system, size, copies: Vec::new(), pieces, journal, coverage: Coverage::default() };
        for piece in &kept.pieces {
            kept.coverage.add(piece.of.timeline, piece.of.from, piece.of.to);
        }
        for (witness, from) in copies {
            let facts = physical_of(witness)?;
            for FileOfLog { is_between, segment, until, .. } in facts.log_files() {
                kept.coverage.add(segment.timeline, segment.start(size), until);
                kept.copies.push(InCopy { from: Arc::clone(from), is_between, segment, until });
            }
        }
        Ok(kept)
    }

    /// The bytes from a position of a file to a later one, all of which are kept.
    fn read(&self, segment: Segment, from: Lsn, until: Lsn) -> Result<Vec<u8>, DriverError> {
        let (start, mut at) = (segment.start(self.size), from);
        let mut all = Vec::with_capacity(to_usize(until.0 - from.0));
        while at < until {
            let in_copies = self.copies.iter().filter(|copy| copy.segment == segment && copy.until > at);
            if let Some(copy) = in_copies.max_by_key(|copy| copy.until) {
                let name = segment.name(self.size);
                let path = if copy.is_between { between_path(&name)? } else { log_path(&name)? };
                let file = copy.from.read(&path, self.size.bytes())?;
                let end = copy.until.min(until);
                let part =
                    file.get(to_usize(at.0 - start.0)..to_usize(end.0 - start.0)).ok_or_else(|| {
                        DriverError::new(
                            ErrorKind::Corrupt,
                            format!("read the log's file {name} of a copy: it has {} bytes", file.len()),
                        )
                        .code(FindingCode::ObjectDamaged)
                    })?;
                all.extend_from_slice(part);
                at = end;
                continue;
            }
            let (pieces, reached) = without_hole(&self.pieces, self.system, segment.timeline, at);
            let end = reached.min(until);
            if end <= at {
                // It was covered, and is not any more.
                return Err(DriverError::new(
                    ErrorKind::NotFound,
                    format!("read the log: nothing is kept at {at}"),
                )
                .code(FindingCode::LogGap));
            }
            for part in self.parts(&pieces, at, end)? {
                all.extend_from_slice(&part);
            }
            at = end;
        }
        Ok(all)
    }

    /// What pieces that lie beside each other hold between two positions, in order; each is read by itself.
    fn parts(&self, pieces: &[HeldPiece], from: Lsn, to: Lsn) -> Result<Vec<Bytes>, DriverError> {
        // One may begin before the one before it ends: a stream that was cut off has sent it twice.
        let mut at = from;
        let mut wanted = Vec::new();
        for piece in pieces.iter().filter(|piece| piece.of.to > from && piece.of.from < to) {
            let end = piece.of.to.min(to);
            if end > at {
                wanted.push((piece, at, end));
                at = end;
            }
        }
        let parts = Mutex::new(vec![None; wanted.len()]);
        at_once(wanted.len(), |index| {
            let (piece, from, to) = &wanted[index];
            let bytes = self.journal.read(piece)?;
            let part = to_usize(from.0 - piece.of.from.0)..to_usize(to.0 - piece.of.from.0);
            if part.end > bytes.len() {
                return Err(DriverError::new(
                    ErrorKind::Corrupt,
                    format!("read the journal: nothing is kept at {from}"),
                )
                .code(FindingCode::ObjectMissing));
            }
            parts.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(bytes.slice(part));
            Ok(())
        })?;
        let parts = parts.into_inner().unwrap_or_else(PoisonError::into_inner);
        // Only a hole that was not there when the pieces were chosen leaves less.
        let parts: Vec<Bytes> = parts.into_iter().flatten().collect();
        if parts.iter().map(|part| part.len() as u64).sum::<u64>() != to.0 - from.0 {
            return Err(DriverError::new(
                ErrorKind::NotFound,
                format!("read the log: nothing is kept at {at}"),
            )
            .code(FindingCode::LogGap));
        }
        Ok(parts)
    }

    /// What is missing of a file, in order.
    fn missing(&self, segment: Segment) -> Vec<(Lsn, Lsn)> {
        let (mut at, end) = (segment.start(self.size), segment.end(self.size));
        let mut missing = Vec::new();
        for (from, to) in self.coverage.held(segment.timeline) {
            if *to <= at || *from >= end {
                continue;
            }
            if *from > at {
                missing.push((at, *from));
            }
            at = *to;
        }
        if at < end {
            missing.push((at, end));
        }
        missing
    }
}

/// Reads a file as the server that recovers will; of one that is not whole everything up to the last record that is.
fn walked(bytes: &[u8], segment: Segment, kept: &Kept, come: Option<Lsn>) -> Result<(), DriverError> {
    let start = segment.start(kept.size);
    let expected = Expected { segment, size: kept.size, system: Some(kept.system) };
    let mut last = page::first_record(bytes, start);
    let walked = page::walk_telling(bytes, &expected, &Link::default(), &mut |record| last = record.end);
    match (walked, come) {
        (Ok(_), _) => Ok(()),
        (Err(_), Some(come)) if page::ends_before(bytes, start, last, come) => Ok(()),
        (Err(wrong), _) => Err(DriverError::new(
            ErrorKind::Corrupt,
            format!("read the log's file {}: {wrong}", segment.name(kept.size)),
        )
        .code(FindingCode::Corruption)),
    }
}

fn unknown(file: &LogFile, error: &dyn std::fmt::Display) -> DriverError {
    DriverError::new(ErrorKind::Refused, format!("understand the name `{}`: {error}", printable(&file.name)))
        .hint("write the command as it is in the guide: %f is the name, %p the place")
}

/// Where a file of the log is kept under its name and not by its positions, all that is kept under it.
fn named(
    journal: &dyn Journal,
    files: &[HeldFile],
    system: u64,
    name: &str,
) -> Result<Option<Bytes>, DriverError> {
    let mut found: Option<Bytes> = None;
    for file in files.iter().filter(|file| file.system == system && file.name == name) {
        let bytes = journal.read_file(file)?;
        if found.as_ref().is_some_and(|found| *found != bytes) {
            return Err(conflict(format!("read {name}: two different ones are kept")));
        }
        found = Some(bytes);
    }
    Ok(found)
}

/// The history of a timeline, from the journal or from a copy of it or of one that came from it.
fn history(
    journal: &dyn Journal,
    files: &[HeldFile],
    copies: &[Copy],
    system: u64,
    name: &str,
) -> Result<Option<Bytes>, DriverError> {
    let mut found = named(journal, files, system, name)?;
    for copy in copies.iter().filter(|copy| system_of(copy) == Some(system)) {
        if !physical_of(&copy.0)?.log.contains_key(name) {
            continue;
        }
        let bytes = Bytes::from(copy.1.read(&log_path(name)?, FILE_BYTES_MAX)?);
        if found.as_ref().is_some_and(|found| *found != bytes) {
            return Err(conflict(format!("read {name}: two different ones are kept")));
        }
        found = Some(bytes);
    }
    Ok(found)
}

/// See [`seaworthy_interface::Source::log_file`].
pub(in super::super) fn hand(
    copies: &[Copy],
    journal: &Arc<dyn Journal>,
    file: &LogFile,
    of: Option<Timestamp>,
) -> Result<Handed, DriverError> {
    let (all, files) = journal.all()?;
    let system = system(file.system, copies, &all, &files)?;
    let is_of_it = |piece: &&HeldPiece| piece.of.system == system && piece.apart.is_some();
    if of.is_none()
        && let Some(apart) = all.iter().find(is_of_it).and_then(|piece| piece.apart)
    {
        return Err(conflict(format!(
            "hand the log's file {} over: the server was put back at {apart}, and its log goes on otherwise since",
            printable(&file.name)
        ))
        .hint("say which copy is recovered: --point ID (seaworthy points lists them)"));
    }
    let kept = Kept::new(copies, Arc::clone(journal), of_history(all, of), system)?;
    match WalFile::parse(&file.name, kept.size).map_err(|error| unknown(file, &error))? {
        WalFile::Segment(segment) => segment_of(&kept, segment),
        WalFile::History(_) => {
            Ok(history(&**journal, &files, copies, system, &file.name)?.map_or(Handed::Beyond, Handed::File))
        }
        WalFile::Partial(_) | WalFile::Backup(..) => {
            Ok(named(&**journal, &files, system, &file.name)?.map_or(Handed::Beyond, Handed::File))
        }
    }
}

fn segment_of(kept: &Kept, segment: Segment) -> Result<Handed, DriverError> {
    let (start, end) = (segment.start(kept.size), segment.end(kept.size));
    let name = segment.name(kept.size);
    match kept.coverage.supply(segment, kept.size) {
        Supply::Beyond => Ok(Handed::Beyond),
        Supply::Hole { from, to } => Err(DriverError::new(
            ErrorKind::NotFound,
            format!(
                "hand the log's file {name} over: from {from} on it is missing, and more is kept from {to} on"
            ),
        )
        .code(FindingCode::LogGap)
        .hint("what lies before the hole can be restored: seaworthy restore --until")),
        Supply::Whole => {
            let bytes = kept.read(segment, start, end)?;
            walked(&bytes, segment, kept, None)?;
            Ok(Handed::File(Bytes::from(bytes)))
        }
        Supply::UpTo(until) => {
            let mut bytes = kept.read(segment, start, until)?;
            bytes.resize(to_usize(kept.size.bytes()), 0);
            walked(&bytes, segment, kept, Some(until))?;
            Ok(Handed::UpTo(Bytes::from(bytes), until))
        }
    }
}

/// See [`seaworthy_interface::Source::keep_log_file`].
pub(in super::super) fn keep(
    copies: &[Copy],
    journal: &Arc<dyn Journal>,
    file: &LogFile,
    bytes: &Bytes,
) -> Result<Pushed, DriverError> {
    let (all, files) = journal.all()?;
    let all = of_history(all, None);
    let is_whole = !file.name.contains('.');
    let origin = if is_whole {
        let origin = page::origin(bytes).map_err(|wrong| {
            DriverError::new(
                ErrorKind::Corrupt,
                format!("read the log's file {}: {wrong}", printable(&file.name)),
            )
            .code(FindingCode::Corruption)
        })?;
        if let Some(asked) = file.system.filter(|asked| *asked != origin.system) {
            return Err(conflict(format!(
                "keep the log's file {}: it is of cluster {}, and the server's is {asked}",
                printable(&file.name),
                origin.system
            )));
        }
        Some(origin)
    } else {
        None
    };
    let asked = origin.map(|origin| origin.system).or(file.system);
    let system = system(asked, copies, &all, &files)?;
    let Some(origin) = origin else {
        return whole(copies, journal, &files, system, file, bytes);
    };
    let kept = Kept::new(copies, Arc::clone(journal), all, system)?;
    let WalFile::Segment(segment) =
        WalFile::parse(&file.name, origin.size).map_err(|error| unknown(file, &error))?
    else {
        return Err(unknown(file, &"it is none of the log's files"));
    };
    if origin.size != kept.size && !(kept.pieces.is_empty() && kept.copies.is_empty()) {
        return Err(conflict(format!(
            "keep the log's file {}: it has {} bytes, those before it have {}",
            file.name,
            origin.size.bytes(),
            kept.size.bytes()
        )));
    }
    let kept = Kept { size: origin.size, ..kept };
    walked(bytes, segment, &kept, None)?;
    let start = segment.start(kept.size);
    let part = |from: Lsn, to: Lsn| to_usize(from.0 - start.0)..to_usize(to.0 - start.0);
    let missing = kept.missing(segment);
    let mut at = start;
    for (from, to) in missing.iter().copied().chain([(segment.end(kept.size), segment.end(kept.size))]) {
        if from > at && kept.read(segment, at, from)?[..] != bytes[part(at, from)] {
            return Err(conflict(format!(
                "keep the log's file {}: other bytes are kept from {at} to {from}: the server was put back, or two servers \
                 write into one journal",
                file.name
            ))
            .hint("nothing was stored; a copy finds out what the server is now: seaworthy backup"));
        }
        at = to;
    }
    let mut pieces = Vec::new();
    for (from, to) in missing {
        let mut at = from;
        while at < to {
            let end = Lsn((at.0 + PUSHED_BYTES_MAX).min(to.0));
            pieces.push((
                PieceOf {
                    system,
                    timeline: segment.timeline,
                    segment_bytes: kept.size,
                    from: at,
                    to: end,
                    complete_at: None,
                },
                bytes.slice(part(at, end)),
            ));
            at = end;
        }
    }
    // One after the other: whoever looks meanwhile, or after this was killed, sees no hole before a piece. Which of them are durable
    // where one fails is not known; asking again is safe.
    for (of, bytes) in &pieces {
        journal.put(of, bytes)?;
    }
    let stored: u64 = pieces.iter().map(|(of, _)| of.to.0 - of.from.0).sum();
    Ok(if stored == 0 { Pushed::Known } else { Pushed::Stored(stored) })
}

/// Longest piece that is stored of a file: of files of the usual length, the whole.
const PUSHED_BYTES_MAX: u64 = 16 << 20;

/// Threads that read pieces at least: while one waits for the disk another computes.
const AT_ONCE: usize = 4;

/// Does so many things, several at once; each is begun at most once, and none after one has failed on the same thread.
fn at_once(things: usize, work: impl Fn(usize) -> Result<(), DriverError> + Sync) -> Result<(), DriverError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).max(AT_ONCE).min(things);
    let next = AtomicUsize::new(0);
    let turn = || {
        loop {
            let thing = next.fetch_add(1, Ordering::Relaxed);
            if thing >= things {
                return Ok(());
            }
            work(thing)?;
        }
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(turn)).collect();
        let own = turn();
        others.into_iter().fold(own, |ended, other| {
            let panicked = || DriverError::new(ErrorKind::Other, "read or store the log: it has panicked");
            ended.and(other.join().unwrap_or_else(|_| Err(panicked())))
        })
    })
}

/// Keeps a file that has no positions of its own.
fn whole(
    copies: &[Copy],
    journal: &Arc<dyn Journal>,
    files: &[HeldFile],
    system: u64,
    file: &LogFile,
    bytes: &Bytes,
) -> Result<Pushed, DriverError> {
    // A name says where it is in the log by the length of the cluster's files: any of the usual ones will do to see that it is a name.
    let parsed = WalFile::parse(&file.name, SegmentSize::USUAL).or_else(|error| {
        let small = SegmentSize::try_from(1 << 20).map_err(|_| error.clone())?;
        WalFile::parse(&file.name, small).map_err(|_| error)
    });
    let known = match parsed.map_err(|error| unknown(file, &error))? {
        WalFile::History(timeline) => {
            sound_history(timeline, bytes)?;
            history(&**journal, files, copies, system, &file.name)?
        }
        _ => named(&**journal, files, system, &file.name)?,
    };
    match known {
        Some(known) if known == *bytes => Ok(Pushed::Known),
        Some(_) => Err(conflict(format!("keep {}: another one is kept under this name", file.name))
            .hint("two servers took the same number for their timeline, or the server was put back")),
        None => {
            journal.put_file(system, &file.name, bytes)?;
            Ok(Pushed::Stored(bytes.len() as u64))
        }
    }
}

fn sound_history(timeline: Timeline, bytes: &[u8]) -> Result<(), DriverError> {
    let what = || format!("read the history of timeline {timeline}");
    let wrong = |error: &dyn std::fmt::Display| {
        DriverError::new(ErrorKind::Corrupt, format!("{}: {error}", what())).code(FindingCode::Corruption)
    };
    let text = std::str::from_utf8(bytes).map_err(|error| wrong(&error))?;
    seaworthy_model::wal::History::parse(timeline, text).map(|_| ()).map_err(|error| wrong(&error))
}
