//! What a continuous copy follows: the copy before it, with the log from there on, or a base backup of its own.
//!
//! The server keeps the log for the next copy by a replication slot that is named after the source. The slot moves forward only to
//! what the copy before holds, and only when a new one is begun: what it has let go of has been durable for a whole interval.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use seaworthy_interface::{
    CopyWriter, Cx, DriverError, EarlierCopy, ErrorKind, HeldPiece, Journal, Released,
};
use seaworthy_model::signature::sha256;
use seaworthy_model::wal::{Lsn, Segment, Timeline, WalFile};
use seaworthy_model::witness::postgres::{PostgresWitness, printable};
use seaworthy_model::witness::{PhysicalFacts, Witness};

use super::super::names::literal;
use super::super::replication::{Identity, Received, Replication};
use super::super::session::{Session, flag, optional, text};
use super::super::wal::page::{self, Expected, Link};
use super::stream::{bytes_of, of_history, without_hole};
use super::{Cluster, DATA, SPACES, named};

/// Longest part of a slot's name that a person recognises the source by.
const NAME_MAX: usize = 40;

/// The copy before.
pub(super) struct Prior {
    earlier: Arc<dyn EarlierCopy>,
    /// What it is.
    pub(super) facts: PhysicalFacts,
    /// Its instant.
    pub(super) at: Timestamp,
    /// Where the file of the log begins that its end lies in: the log is needed from here on.
    pub(super) begin: Lsn,
    /// What the journal keeps of it, without a hole; nothing where the server has all of it.
    pieces: Vec<HeldPiece>,
    journal: Option<Arc<dyn Journal>>,
    /// From where on the server sends it: where the pieces end.
    pub(super) then: Lsn,
    /// The slot that keeps the log meanwhile.
    pub(super) slot: Option<String>,
    /// Whether that one ends with the connection: somebody else receives through the source's own.
    pub(super) is_temporary: bool,
    /// Up to where the server may let go of the log.
    pub(super) durable: Lsn,
}

/// What kind of copy is made.
pub(super) enum Course {
    /// A base backup, with the log since the copy before where there is one to be had.
    Base {
        prior: Option<Prior>,
        /// Why there is none although there is a copy before.
        gap: Option<String>,
    },
    /// The base backup of the copy before, and the log since.
    Log(Prior),
}

/// What is known of the server.
pub(super) struct Asked<'a> {
    pub(super) session: &'a Session,
    pub(super) cluster: &'a Cluster,
    pub(super) identity: &'a Identity,
}

/// A slot as the server tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) is_active: bool,
    pub(super) restart: Option<Lsn>,
    pub(super) is_lost: bool,
}

/// The name of the slot that keeps the log for a source.
pub(super) fn slot_name(lineage: &str) -> String {
    let readable: String = lineage
        .split_once('/')
        .map_or("", |(_, rest)| rest)
        .chars()
        .map(|letter| letter.to_ascii_lowercase())
        .map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' })
        .take(NAME_MAX)
        .collect();
    format!("seaworthy_{readable}_{}", &sha256(lineage.as_bytes()).0[7..15])
}

pub(super) async fn slot(cx: &Cx, session: &Session, name: &str) -> Result<Option<Slot>, DriverError> {
    let sql = format!(
        "SELECT active::text, restart_lsn::text, (wal_status = 'lost')::text FROM pg_replication_slots \
         WHERE slot_name = {}",
        literal(name)
    );
    let rows = session.query(cx, "look for the replication slot", &sql).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let restart = optional(row, 1)?.and_then(|text| text.parse().ok());
    let is_lost = match optional(row, 2)? {
        Some(text) => text == "true",
        // Nothing is kept for it.
        None => true,
    };
    Ok(Some(Slot { is_active: flag(row, 0)?, restart, is_lost }))
}

/// Why the log since a copy is not to be had; nothing where it is.
fn gap(
    facts: &PhysicalFacts,
    then: Lsn,
    identity: &Identity,
    cluster: &Cluster,
    slot: Option<&Slot>,
) -> Option<String> {
    if facts.timeline != identity.timeline {
        return Some(format!(
            "the copy before is of timeline {}, the server is on timeline {}",
            facts.timeline, identity.timeline
        ));
    }
    if facts.segment_bytes != cluster.segment {
        return Some("the files of the log have another length".to_owned());
    }
    if identity.position < facts.until {
        return Some(format!(
            "the copy before ends at {}, the server's log at {}: it was put back",
            facts.until, identity.position
        ));
    }
    let Some(slot) = slot else { return Some("the replication slot is gone".to_owned()) };
    match slot.restart {
        Some(restart) if restart <= then && !slot.is_lost => None,
        Some(restart) if !slot.is_lost => {
            Some(format!("the log is needed from {then} on, and the server keeps it from {restart} on"))
        }
        _ => Some("the server has let go of the log that the replication slot was to keep".to_owned()),
    }
}

/// Why a base backup of its own is due; nothing where the log is enough.
fn due(
    prior: &Prior,
    cluster: &Cluster,
    spaces: &BTreeMap<u32, String>,
    every: SignedDuration,
    now: Timestamp,
) -> Option<String> {
    let Some(base) = &prior.facts.base else {
        return Some("the copy before does not tell its base backup".to_owned());
    };
    if now.duration_since(base.at) >= every {
        return Some(format!("the last base backup is of {}", base.at));
    }
    if prior.earlier.is_left() {
        return Some("the log since the copy before is not enough".to_owned());
    }
    if prior.earlier.newest_bad().is_some_and(|bad| bad >= base.at) {
        return Some("a copy with the same base backup was shown to be bad".to_owned());
    }
    if prior.facts.tablespaces != *spaces {
        return Some("the tablespaces are others than then".to_owned());
    }
    if prior.facts.has_checksums != cluster.has_checksums {
        return Some("page checksums were switched".to_owned());
    }
    None
}

fn postgres(witness: &Witness) -> Option<&PostgresWitness> {
    match witness {
        Witness::Postgres(witness) => Some(witness),
        Witness::Sqlite(_) | Witness::Files(_) => None,
    }
}

/// The copy before, or why none can be built upon.
async fn prior(
    to: &Arc<dyn CopyWriter>,
    cluster: &Cluster,
) -> Result<Result<Option<Prior>, String>, DriverError> {
    let from = Arc::clone(to);
    let found = tokio::task::spawn_blocking(move || from.earlier())
        .await
        .map_err(|error| DriverError::new(ErrorKind::Other, "look for the copy before").because(error))?;
    let earlier = match found {
        Ok(Some(earlier)) => earlier,
        Ok(None) => return Ok(Ok(None)),
        Err(error) if matches!(error.kind, ErrorKind::Stopped(_)) => return Err(error),
        Err(error) => return Ok(Err(format!("could not {error}"))),
    };
    let Some(witness) = postgres(earlier.witness()) else { return Ok(Ok(None)) };
    // A dump, from before the mode was changed: nothing follows it, and nothing is missing behind it.
    let Some(facts) = witness.physical.clone() else { return Ok(Ok(None)) };
    if witness.server.system_identifier != cluster.server.system_identifier {
        return Ok(Err(format!(
            "the copy before is of cluster {}, this is {}",
            printable(&witness.server.system_identifier),
            cluster.server.system_identifier
        )));
    }
    if witness.server.version_num / 10_000 != cluster.major {
        return Ok(Err(format!("the copy before is of PostgreSQL {}", witness.server.version_num / 10_000)));
    }
    let at = witness.snapshot.at;
    // Where its end lies at the end of a file, it is that file's: what both hold can then be compared.
    let inside = Lsn(facts.until.0.saturating_sub(1));
    let begin = Segment::of(facts.timeline, inside, facts.segment_bytes).start(facts.segment_bytes);
    Ok(Ok(Some(Prior {
        earlier,
        facts,
        at,
        begin,
        pieces: Vec::new(),
        journal: None,
        then: begin,
        slot: None,
        is_temporary: false,
        durable: begin,
    })))
}

/// Why the server's log is another one than that of the copy before; nothing where both are the same up to its end.
async fn parted(cx: &Cx, probe: &mut Replication, prior: &Prior) -> Result<Option<String>, DriverError> {
    let facts = &prior.facts;
    let size = facts.segment_bytes;
    let name = Segment::of(facts.timeline, prior.begin, size).name(size);
    let (earlier, path) = (Arc::clone(&prior.earlier), super::log_path(&name)?);
    let read = tokio::task::spawn_blocking(move || earlier.read(&path, size.bytes()));
    let held = match read.await {
        Ok(Ok(held)) => held,
        Ok(Err(error)) if matches!(error.kind, ErrorKind::Stopped(_)) => return Err(error),
        Ok(Err(error)) => return Ok(Some(format!("could not {error}"))),
        Err(error) => return Err(DriverError::new(ErrorKind::Other, "read the copy before").because(error)),
    };
    let wanted = usize::try_from(facts.until.0 - prior.begin.0).unwrap_or(usize::MAX);
    let Some(of_copy) = held.get(..wanted) else {
        return Ok(Some(format!("the copy before holds {} bytes of {name}", held.len())));
    };
    let put_back = |at: Lsn| {
        format!(
            "the server's log before {at} is not the one that is kept of it: it was put back, or is another server's"
        )
    };
    let (mut from, mut known) = (prior.begin, of_copy.to_vec());
    if prior.journal.is_some() && prior.then > prior.begin {
        // The server has let go of some of it; what it has sent then is in the journal.
        let both = match prior.kept_between(prior.begin, facts.until.min(prior.then)).await? {
            Ok(both) => both,
            Err(gap) => return Ok(Some(gap)),
        };
        if of_copy.get(..both.len()) != Some(&both[..]) {
            return Ok(Some(put_back(facts.until)));
        }
        // What it has not let go of must be the same there: it may have been put back since.
        let start = |position: Lsn| Segment::of(facts.timeline, position, size).start(size);
        from = prior.begin.max(start(prior.durable)).max(start(Lsn(prior.then.0 - 1))).min(prior.then);
        known = match prior.kept_between(from, prior.then).await? {
            Ok(last) => last,
            Err(gap) => return Ok(Some(gap)),
        };
        known.extend(of_copy.get(both.len()..).unwrap_or_default());
        if known.is_empty() {
            // It has let go of all of it.
            return Ok(None);
        }
    }
    let end = Lsn(from.0 + known.len() as u64);
    Ok(match sends(cx, probe, facts.timeline, from, &known).await? {
        Sends::Same => None,
        Sends::Another => Some(put_back(end)),
        Sends::Nothing(why) => Some(why),
    })
}

/// What was received of the server's log, of its history as far as that is known, and the last of it.
pub(super) async fn received_so_far(
    to: &Arc<dyn CopyWriter>,
    identity: &Identity,
) -> Result<Option<(Vec<HeldPiece>, HeldPiece)>, DriverError> {
    let Some(journal) = to.journal() else { return Ok(None) };
    let (system, timeline) = (identity.system, identity.timeline);
    let looking = tokio::task::spawn_blocking(move || {
        let all = match journal.held() {
            Ok(all) => all,
            // What is damaged is told where it is needed.
            Err(error) if error.kind == ErrorKind::Corrupt => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut held = of_history(all, None);
        held.retain(|piece| piece.of.system == system && piece.of.timeline == timeline);
        let last = last_told(&*journal, &held)?;
        Ok(last.map(|last| (held, last)))
    });
    looking
        .await
        .map_err(|error| DriverError::new(ErrorKind::Other, "look into the journal").because(error))?
}

/// The last piece that tells two logs apart: behind a switch the rest of a file is zeros, on every server.
pub(super) fn last_told(journal: &dyn Journal, held: &[HeldPiece]) -> Result<Option<HeldPiece>, DriverError> {
    let mut pieces: Vec<&HeldPiece> = held.iter().filter(|piece| !piece.of.is_mark()).collect();
    pieces.sort_by_key(|piece| std::cmp::Reverse(piece.of.to));
    for piece in &pieces {
        match journal.read(piece) {
            Ok(bytes) if bytes.iter().all(|byte| *byte == 0) => {}
            // What is damaged is told by whoever compares it.
            Err(error) if error.kind != ErrorKind::Corrupt => return Err(error),
            Ok(_) | Err(_) => return Ok(Some((*piece).clone())),
        }
    }
    Ok(pieces.first().map(|piece| (*piece).clone()))
}

/// Sets what was received apart where the server has another log now: it was put back, and what is received from here on goes on from what it
/// is. Where its log is not to be had there, nothing that it sends can contradict what was received.
pub(super) async fn set_apart(
    cx: &Cx,
    session: &Session,
    mut probe: Replication,
    to: &Arc<dyn CopyWriter>,
    on_standby: bool,
    (held, last): (Vec<HeldPiece>, HeldPiece),
) -> Result<(), DriverError> {
    let Some(journal) = to.journal() else { return Ok(()) };
    let (position, now) = super::stream::now(cx, session).await?;
    if last.of.to > position && on_standby {
        // A standby that has just started says nothing of what it has.
        return Ok(());
    }
    if last.of.to <= position {
        let (asked, piece) = (Arc::clone(&journal), last.clone());
        let reading = tokio::task::spawn_blocking(move || asked.read(&piece)).await;
        let bytes = match reading {
            Ok(Ok(bytes)) => bytes,
            // What is damaged is told where it is needed.
            Ok(Err(error)) if error.kind == ErrorKind::Corrupt => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(error) => return Err(DriverError::new(ErrorKind::Other, "read the journal").because(error)),
        };
        if sends(cx, &mut probe, last.of.timeline, last.of.from, &bytes).await? != Sends::Another {
            return Ok(());
        }
    }
    // Later than anything that is known of it, also by a clock that was put back, too.
    let known = held.iter().filter_map(|piece| piece.of.complete_at).max();
    let at = known.map_or(now, |known| now.max(known + SignedDuration::from_micros(1)));
    tokio::task::spawn_blocking(move || journal.set_apart(&held, at))
        .await
        .map_err(|error| DriverError::new(ErrorKind::Other, "set the journal's log apart").because(error))?
}

/// What a server sends from a position on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sends {
    /// The same as was expected.
    Same,
    /// Something else.
    Another,
    /// Nothing, and why.
    Nothing(String),
}

/// Compares what the server sends from a position on with what it should be.
pub(super) async fn sends(
    cx: &Cx,
    probe: &mut Replication,
    timeline: Timeline,
    from: Lsn,
    mut expected: &[u8],
) -> Result<Sends, DriverError> {
    let mut stream = match probe.stream(cx, None, timeline, from).await {
        Ok(stream) => stream,
        Err(error) if error.kind == ErrorKind::Unreachable || matches!(error.kind, ErrorKind::Stopped(_)) => {
            return Err(error);
        }
        Err(error) => return Ok(Sends::Nothing(format!("could not {error}"))),
    };
    let limited = cx.within(super::LOG_TIMEOUT);
    while !expected.is_empty() {
        match stream.next(&limited).await {
            Ok(Some(Received::Piece { bytes, .. })) => {
                let (piece, rest) = expected.split_at(bytes.len().min(expected.len()));
                if bytes.get(..piece.len()) != Some(piece) {
                    return Ok(Sends::Another);
                }
                expected = rest;
            }
            Ok(Some(Received::Alive { .. })) => {}
            Ok(Some(Received::Left { .. }) | None) => {
                return Ok(Sends::Nothing(format!("the server left timeline {timeline} after {from}")));
            }
            Err(error)
                if error.kind == ErrorKind::Unreachable || matches!(error.kind, ErrorKind::Stopped(_)) =>
            {
                return Err(error);
            }
            // It has let go of it.
            Err(error) => return Ok(Sends::Nothing(format!("could not {error}"))),
        }
    }
    Ok(Sends::Same)
}

/// What kind of copy is made, and a slot that keeps the log for the next one.
pub(super) async fn course(
    cx: &Cx,
    asked: Asked<'_>,
    line: &mut Replication,
    mut probe: Replication,
    to: &Arc<dyn CopyWriter>,
    every: SignedDuration,
) -> Result<Course, DriverError> {
    let Asked { session, cluster, identity } = asked;
    let name = slot_name(&to.lineage());
    let known = slot(cx, session, &name).await?;
    let is_active = known.as_ref().is_some_and(|slot| slot.is_active);
    // Whoever receives through the slot lets the server go of what is needed here, while it is read.
    let own = if is_active && to.journal().is_some() {
        let own = format!("seaworthy_{}", &sha256(format!("{:?}", Timestamp::now()).as_bytes()).0[7..23]);
        line.create_temporary_slot(cx, &own).await?;
        Some(own)
    } else {
        None
    };
    let found = match prior(to, cluster).await? {
        Ok(None) => Ok(None),
        Err(why) => Err(why),
        Ok(Some(mut prior)) => {
            let (mut damaged, mut ahead) = (None, None);
            if let Some(restart) = known.as_ref().and_then(|slot| slot.restart).filter(|at| *at > prior.begin)
            {
                // What the server has let go of, it has sent to whoever keeps the journal.
                match prior.kept(to, identity.system).await {
                    Ok(()) => {}
                    // What is damaged keeps nothing.
                    Err(error) if error.kind == ErrorKind::Corrupt => {
                        damaged = Some(format!("could not {error}"));
                    }
                    Err(error) => return Err(error),
                }
                prior.durable = restart;
                if prior.then > identity.position && !cluster.on_standby {
                    let (position, _) = super::stream::now(cx, session).await?;
                    ahead = (prior.then > position).then(|| {
                        format!(
                            "the log was received up to {}, the server's ends at {position}: it was put back",
                            prior.then
                        )
                    });
                }
            }
            prior.slot = Some(own.clone().unwrap_or_else(|| name.clone()));
            prior.is_temporary = own.is_some();
            let gap = match gap(&prior.facts, prior.then, identity, cluster, known.as_ref()) {
                Some(gap) => Some(damaged.unwrap_or(gap)),
                None if ahead.is_some() => ahead,
                None => parted(cx, &mut probe, &prior).await?,
            };
            match gap {
                None => prior.readable(identity.system).await?.map(Some),
                Some(why) => Err(why),
            }
        }
    };
    drop(probe);
    let is_kept = known.as_ref().is_some_and(|slot| slot.restart.is_some() && !slot.is_lost);
    if !is_kept {
        if is_active {
            return Err(DriverError::new(
                ErrorKind::Conflict,
                format!("receive the log: the replication slot {name} is in use, and keeps nothing"),
            )
            .hint("end whoever uses it (pg_stat_replication says who), then back up again"));
        }
        if known.is_some() {
            line.drop_slot(cx, &name).await?;
        }
        line.create_slot(cx, &name).await?;
    }
    let prior = match found {
        Err(why) => return Ok(Course::Base { prior: None, gap: Some(why) }),
        Ok(None) => return Ok(Course::Base { prior: None, gap: None }),
        Ok(Some(prior)) => prior,
    };
    let mut spaces = BTreeMap::new();
    let list =
        "SELECT oid::text, pg_tablespace_location(oid) FROM pg_tablespace WHERE oid NOT IN (1663, 1664)";
    for row in session.query(cx, "list the tablespaces", list).await? {
        if let Ok(oid) = text(&row, 0)?.parse() {
            spaces.insert(oid, text(&row, 1)?);
        }
    }
    Ok(match due(&prior, cluster, &spaces, every, Timestamp::now()) {
        Some(why) => {
            cx.phase(format!("take a base backup: {why}"));
            Course::Base { prior: Some(prior), gap: None }
        }
        None => Course::Log(prior),
    })
}

impl Prior {
    /// Looks what the journal keeps of the log since.
    async fn kept(&mut self, to: &Arc<dyn CopyWriter>, system: u64) -> Result<(), DriverError> {
        let Some(journal) = to.journal() else { return Ok(()) };
        let asked = Arc::clone(&journal);
        let held = tokio::task::spawn_blocking(move || asked.held());
        let held = held
            .await
            .map_err(|error| DriverError::new(ErrorKind::Other, "look into the journal").because(error))??;
        let held = of_history(held, Some(self.at));
        let (pieces, then) = without_hole(&held, system, self.facts.timeline, self.begin);
        (self.pieces, self.then, self.journal) = (pieces, then, Some(journal));
        Ok(())
    }

    /// Whether some of the log since comes from the journal.
    pub(super) fn is_fed(&self) -> bool {
        self.journal.is_some() && self.then > self.begin
    }

    /// Itself, where what the journal keeps can be read and is one log; after an attempt that came to nothing that is looked at first.
    async fn readable(self, system: u64) -> Result<Result<Self, String>, DriverError> {
        if !self.earlier.is_left() || !self.is_fed() {
            return Ok(Ok(self));
        }
        let reading = tokio::task::spawn_blocking(move || {
            let read = self.walk(system);
            (self, read)
        });
        match reading.await {
            Ok((prior, Ok(()))) => Ok(Ok(prior)),
            Ok((_, Err(error))) if matches!(error.kind, ErrorKind::Stopped(_)) => Err(error),
            Ok((_, Err(error))) => Ok(Err(format!("could not {error}"))),
            Err(error) => Err(DriverError::new(ErrorKind::Other, "read the journal").because(error)),
        }
    }

    /// What the journal keeps between two positions, or why it cannot be read.
    async fn kept_between(&self, from: Lsn, to: Lsn) -> Result<Result<Vec<u8>, String>, DriverError> {
        let Some(journal) = self.journal.clone() else { return Ok(Ok(Vec::new())) };
        let pieces = self.pieces.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let mut kept = Vec::new();
            bytes_of(&*journal, &pieces, from, to, &mut |bytes| {
                kept.extend_from_slice(&bytes);
                Ok(())
            })
            .map(|()| kept)
        });
        match reading.await {
            Ok(Ok(kept)) => Ok(Ok(kept)),
            Ok(Err(error)) if matches!(error.kind, ErrorKind::Stopped(_)) => Err(error),
            Ok(Err(error)) => Ok(Err(format!("could not {error}"))),
            Err(error) => Err(DriverError::new(ErrorKind::Other, "read the journal").because(error)),
        }
    }

    /// Reads what the journal keeps record by record, as far as files are whole.
    fn walk(&self, system: u64) -> Result<(), DriverError> {
        let size = self.facts.segment_bytes;
        let mut segment = Segment::of(self.facts.timeline, self.begin, size);
        let (mut bytes, mut link) = (Vec::new(), Link::default());
        self.kept_bytes(&mut |mut piece| {
            while !piece.is_empty() {
                let room = usize::try_from(size.bytes()).unwrap_or(usize::MAX) - bytes.len();
                bytes.extend_from_slice(&piece.split_to(room.min(piece.len())));
                if bytes.len() as u64 == size.bytes() {
                    let expected = Expected { segment, size, system: Some(system) };
                    let walked = page::walk(&bytes, &expected, &link).map_err(|wrong| {
                        let name = segment.name(size);
                        DriverError::new(ErrorKind::Corrupt, format!("read the journal: {name}: {wrong}"))
                    })?;
                    link = walked.link;
                    segment = Segment::of(segment.timeline, segment.end(size), size);
                    bytes.clear();
                }
            }
            Ok(())
        })
    }

    /// What the journal keeps, in order: called on a blocking thread.
    pub(super) fn kept_bytes(
        &self,
        take: &mut dyn FnMut(Bytes) -> Result<(), DriverError>,
    ) -> Result<(), DriverError> {
        match &self.journal {
            Some(journal) if self.then > self.begin => {
                bytes_of(&**journal, &self.pieces, self.begin, self.then, take)
            }
            _ => Ok(()),
        }
    }

    /// What the journal keeps of this is in the copy before, and in those before that.
    pub(super) fn released(&self, system: u64) -> Released {
        Released { system, timeline: self.facts.timeline, from: self.since(), before: self.begin }
    }

    /// From where on this and the copies before hold the log without a hole.
    pub(super) fn since(&self) -> Lsn {
        self.facts.since.unwrap_or(self.facts.from)
    }

    /// Whether a file of its log is behind what is received anew.
    fn is_older(&self, name: &[u8]) -> bool {
        let size = self.facts.segment_bytes;
        match std::str::from_utf8(name).ok().map(|name| WalFile::parse(name, size)) {
            Some(Ok(WalFile::Segment(segment))) => segment.start(size) < self.begin,
            // Histories, and directories of the server's.
            _ => true,
        }
    }

    /// Puts the base backup of the copy before, and its log up to where it is received anew, into this one.
    pub(super) fn take_over(&self, to: &dyn CopyWriter) -> Result<(), DriverError> {
        let data = named(DATA)?;
        let log = super::in_data("pg_wal")?;
        self.earlier.take_over(&data, &|name| name != b"pg_wal")?;
        self.earlier.take_over(&log, &|name| self.is_older(name))?;
        to.directory(&data, 0o700)?;
        to.directory(&log, 0o700)?;
        if !self.facts.tablespaces.is_empty() {
            self.earlier.take_over(&named(SPACES)?, &|_| true)?;
        }
        Ok(())
    }

    /// Digests of that log.
    pub(super) fn log(&self) -> BTreeMap<String, seaworthy_model::id::Digest> {
        let kept = self.facts.log.iter().filter(|(name, _)| self.is_older(name.as_bytes()));
        kept.map(|(name, digest)| (name.clone(), digest.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_named_after_their_source_and_never_alike() {
        let long = format!("host/{}/main", "Shop-42".repeat(9));
        let names =
            [slot_name("host/shop/main"), slot_name("other/shop/main"), slot_name(&long), slot_name("")];
        assert!(names[0].starts_with("seaworthy_shop_main_"), "{}", names[0]);
        for (index, name) in names.iter().enumerate() {
            assert!(name.len() <= 63, "{name}");
            assert!(
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            );
            assert_eq!(names.iter().filter(|other| *other == name).count(), 1, "{index}");
        }
    }
}
