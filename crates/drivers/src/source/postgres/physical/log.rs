//! The log of a base backup on its way into the copy: verified record by record, kept to the byte at which recovery is to end.
//!
//! Files of the log go into the copy as they become whole. From [`Keeper::watch`] on they are held back until it is known where the
//! copy ends, so that it holds nothing behind that position: a server that simply reads on to the end of what it finds stops there
//! by itself.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use seaworthy_interface::{CopyWriter, Cuts, DriverError, ErrorKind};
use seaworthy_model::finding::FindingCode;
use seaworthy_model::id::Digest;
use seaworthy_model::signature::sha256;
use seaworthy_model::wal::{Lsn, Segment, SegmentSize, Timeline};

use super::super::wal::page::{self, Expected, Link, Record, Wrong};
use super::super::wal::transaction::{ending, makes_tablespace, settings};
use super::moment::{Ended, Read};
use super::{between_path, in_data, log_path};

/// Most bytes of whole files that are held back.
const HELD_BYTES_MAX: u64 = 64 << 20;
/// Records of which beginning and end are remembered: those of the last two files at least.
const RECORDS_MAX: usize = 1 << 20;

/// A file of the log that is held back.
#[derive(Debug)]
struct Held {
    segment: Segment,
    bytes: Vec<u8>,
}

/// Takes the log as it comes.
pub(super) struct Keeper {
    to: Arc<dyn CopyWriter>,
    size: SegmentSize,
    timeline: Timeline,
    system: u64,
    /// The file that comes, and what has come of it.
    current: Held,
    /// How it goes on from the one before.
    link: Link,
    held: VecDeque<Held>,
    /// From where on ends of transactions are remembered.
    watched: Option<Lsn>,
    read: Read,
    /// Files that begin before it lie between the copy before and this one's base backup: they are kept beside it.
    own: Lsn,
    digests: Digests,
    told: Told,
    /// The last record of the files that are whole: of an idle server there may be none behind it.
    last: Option<(Lsn, Lsn)>,
}

/// SHA-256 of the files of the log, by name.
#[derive(Debug, Default)]
pub(super) struct Digests {
    /// Those that the base backup is recovered with.
    pub(super) own: BTreeMap<String, Digest>,
    /// Those between the copy before and this base backup.
    pub(super) before: BTreeMap<String, Digest>,
    /// Where tablespaces were made, in order.
    pub(super) spaces: Vec<Lsn>,
    /// The largest that the settings of [`super::AT_LEAST`] were, where the log says so; zero where it does not.
    pub(super) settings: [u32; 5],
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("current", &self.current.segment).finish_non_exhaustive()
    }
}

/// More of the log has come than is held back: where the copy ends has to be found anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overtaken;

fn wrong(segment: Segment, size: SegmentSize, wrong: &Wrong) -> DriverError {
    DriverError::new(ErrorKind::Corrupt, format!("read the log's file {}: {wrong}", segment.name(size)))
        .code(FindingCode::Corruption)
        .hint("the server sends a log that it could not recover with itself; look at its disk")
}

/// What the log says that a restore needs to know.
#[derive(Debug, Default)]
struct Told {
    /// Where tablespaces were made.
    spaces: Vec<Lsn>,
    /// The largest that the settings were which a server needs to recover.
    settings: [u32; 5],
}

fn remember(read: &mut Read, told: &mut Told, watched: Option<Lsn>, record: Record<'_>) {
    if makes_tablespace(record.bytes) {
        told.spaces.push(record.at);
    }
    if let Some(settings) = settings(record.bytes) {
        for (kept, setting) in told.settings.iter_mut().zip(settings) {
            *kept = setting.max(*kept);
        }
    }
    let Some(watched) = watched else { return };
    read.records.push((record.at, record.end));
    if record.at >= watched
        && let Some(how) = ending(record.bytes)
    {
        read.ended.push(Ended { at: record.at, end: record.end, how });
    }
}

impl Keeper {
    /// Takes the log of a cluster from the beginning of the file on that holds `from`; what it is recovered with begins with the file
    /// that holds `own`.
    pub(super) fn new(
        to: Arc<dyn CopyWriter>,
        size: SegmentSize,
        timeline: Timeline,
        system: u64,
        from: Lsn,
        own: Lsn,
    ) -> Self {
        Self {
            to,
            size,
            timeline,
            system,
            current: Held { segment: Segment::of(timeline, from, size), bytes: Vec::new() },
            link: Link::default(),
            held: VecDeque::new(),
            watched: None,
            read: Read::default(),
            own,
            digests: Digests::default(),
            told: Told::default(),
            last: None,
        }
    }

    /// The same, behind a record that is known to be the last one so far.
    pub(super) fn behind(self, last: (Lsn, Lsn)) -> Self {
        Self { last: Some(last), ..self }
    }

    /// The timeline, and where the log is expected to begin.
    pub(super) fn begins(&self) -> (Timeline, Lsn) {
        (self.timeline, self.current.segment.start(self.size))
    }

    /// Takes the next piece.
    pub(super) fn take(&mut self, piece: &[u8]) -> Result<(), DriverError> {
        let mut rest = piece;
        while !rest.is_empty() {
            let room = self.size.bytes() - self.current.bytes.len() as u64;
            let (taken, later) = rest.split_at(usize::try_from(room).unwrap_or(usize::MAX).min(rest.len()));
            self.current.bytes.extend_from_slice(taken);
            if self.current.bytes.len() as u64 == self.size.bytes() {
                self.whole()?;
            }
            rest = later;
        }
        Ok(())
    }

    fn expected(&self, segment: Segment) -> Expected {
        Expected { segment, size: self.size, system: Some(self.system) }
    }

    /// The file that came is whole.
    fn whole(&mut self) -> Result<(), DriverError> {
        let next = Segment::of(self.timeline, self.current.segment.end(self.size), self.size);
        let done = std::mem::replace(&mut self.current, Held { segment: next, bytes: Vec::new() });
        let expected = self.expected(done.segment);
        let walked = page::walk_telling(&done.bytes, &expected, &self.link, &mut |record| {
            remember(&mut self.read, &mut self.told, self.watched, record);
            self.last = Some((record.at, record.end));
        });
        self.link = walked.map_err(|error| wrong(done.segment, self.size, &error))?.link;
        if self.watched.is_none() {
            return self.store(&done);
        }
        if self.read.records.len() > RECORDS_MAX {
            self.read.records.drain(..self.read.records.len() - RECORDS_MAX);
        }
        self.held.push_back(done);
        Ok(())
    }

    fn store(&mut self, file: &Held) -> Result<(), DriverError> {
        let name = file.segment.name(self.size);
        let cuts = Cuts::Pages { page_bytes: 8_192, size_bytes: self.size.bytes() };
        let is_own = file.segment.end(self.size) > self.own;
        let path = if is_own { log_path(&name)? } else { between_path(&name)? };
        let mut into = self.to.begin(&path, cuts)?;
        into.write(&file.bytes)?;
        into.finish()?;
        let digests = if is_own { &mut self.digests.own } else { &mut self.digests.before };
        digests.insert(name, sha256(&file.bytes));
        Ok(())
    }

    /// From here on files are held back, and the ends of transactions behind `from` are remembered.
    pub(super) fn watch(&mut self, from: Lsn) -> Result<(), DriverError> {
        self.watched = Some(from);
        self.read = Read::default();
        while let Some(file) = self.held.pop_front() {
            self.store(&file)?;
        }
        Ok(())
    }

    /// What has come since, as far as it is whole.
    pub(super) fn read(&mut self) -> Result<Read, Overtaken> {
        let held: u64 = self.held.iter().map(|file| file.bytes.len() as u64).sum();
        if held > HELD_BYTES_MAX.max(2 * self.size.bytes()) {
            return Err(Overtaken);
        }
        let mut read = self.read.clone();
        let Some(watched) = self.watched else { return Ok(read) };
        let mut padded = self.current.bytes.clone();
        padded.resize(usize::try_from(self.size.bytes()).unwrap_or(usize::MAX), 0);
        let expected = self.expected(self.current.segment);
        // It ends where nothing has come yet: the first thing that is wrong is that end. What is wrong before it is found when the
        // file is whole, or missing from what is remembered, so that no position is found.
        let mut told = Told::default();
        let ended = page::walk_telling(&padded, &expected, &self.link, &mut |record| {
            remember(&mut read, &mut told, Some(watched), record);
        });
        drop(ended);
        if read.records.is_empty() {
            read.records.extend(self.last);
        }
        Ok(read)
    }

    /// Ends the log of the copy behind `until`, and puts what was held back into it. Returns the digests of its files.
    pub(super) fn finish(mut self, until: Lsn) -> Result<Digests, DriverError> {
        let current = std::mem::replace(
            &mut self.current,
            Held { segment: Segment::of(self.timeline, until, self.size), bytes: Vec::new() },
        );
        let mut files: Vec<Held> = self.held.drain(..).collect();
        files.push(current);
        for mut file in files {
            let start = file.segment.start(self.size);
            if start >= until {
                continue;
            }
            let kept = usize::try_from(until.0 - start.0).unwrap_or(usize::MAX).min(file.bytes.len());
            file.bytes.truncate(kept);
            file.bytes.resize(usize::try_from(self.size.bytes()).unwrap_or(usize::MAX), 0);
            self.store(&file)?;
            if file.segment == self.current.segment {
                // It ends where the copy does, so that its walk ends there.
                let (expected, link) = (self.expected(file.segment), std::mem::take(&mut self.link));
                let ended = page::walk_telling(&file.bytes, &expected, &link, &mut |record| {
                    remember(&mut self.read, &mut self.told, None, record);
                });
                drop(ended);
            }
        }
        self.told.spaces.retain(|at| *at < until);
        Ok(Digests { spaces: self.told.spaces, settings: self.told.settings, ..self.digests })
    }

    /// Puts the history of the timeline into the copy: a server follows no other one than the first without it.
    pub(super) fn history(&mut self, text: &str) -> Result<(), DriverError> {
        let name = format!("{:08X}.history", self.timeline.number());
        self.to.put(&in_data(&format!("pg_wal/{name}"))?, text.as_bytes())?;
        self.digests.own.insert(name, sha256(text.as_bytes()));
        Ok(())
    }
}
