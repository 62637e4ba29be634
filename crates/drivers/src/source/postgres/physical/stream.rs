//! Receives a server's log all the time, and keeps it in a journal until copies hold it.
//!
//! What is acknowledged is durable, and nothing else: the server lets go of what was acknowledged. Pieces are kept after a fixed time
//! at the latest. Before the first position of the next file is acknowledged, the file has been read record by record: what arrived
//! otherwise than it was written is still on the server then.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use seaworthy_interface::{Cx, DriverError, ErrorKind, HeldPiece, Journal, PieceOf, Streamed};
use seaworthy_model::finding::FindingCode;
use seaworthy_model::wal::{Lsn, Segment, SegmentSize, Timeline};

use super::super::PostgresSource;
use super::super::replication::{Received, Stream};
use super::super::session::{Purpose, Session, parsed};
use super::super::wal::page::{self, Expected, Link};
use super::follow::{Sends, last_told, sends, slot, slot_name};
use super::{ALIVE_EVERY, ended_early};

/// Longest piece: several copies of one are in memory while it is stored.
pub(super) const PIECE_BYTES_MAX: usize = 4 << 20;
/// An idle server is marked after so many times the longest wait of a byte, and not more often than it is told that we are there: a mark is a file.
const MARK_RATIO: u32 = 12;
/// A server that is asked answers at once; after so long without a word the line is taken for broken.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Bytes that are handed on at once: whoever takes them has a queue for small ones.
const AT_ONCE: usize = 128 << 10;

/// The pieces to which a copy of this instant leads on; without one, those of the server as it is.
///
/// Pieces that were set apart are of the log that a server had before it was put back: only copies from before lead on to them.
pub(super) fn of_history(held: Vec<HeldPiece>, copy: Option<Timestamp>) -> Vec<HeldPiece> {
    let next =
        copy.and_then(|at| held.iter().filter_map(|piece| piece.apart).filter(|apart| *apart > at).min());
    held.into_iter().filter(|piece| piece.apart == next).collect()
}

/// Pieces of one timeline that reach from a position without a hole, and how far.
pub(super) fn without_hole(
    held: &[HeldPiece],
    system: u64,
    timeline: Timeline,
    from: Lsn,
) -> (Vec<HeldPiece>, Lsn) {
    let mut reached = from;
    let mut used: Vec<HeldPiece> = Vec::new();
    // They are in order of their first positions; of two that begin alike the longer one comes last.
    for piece in held.iter().filter(|piece| piece.of.system == system && piece.of.timeline == timeline) {
        if piece.of.from > reached {
            break;
        }
        if piece.of.to > reached {
            reached = piece.of.to;
            used.push(piece.clone());
        }
    }
    (used, reached)
}

/// Up to when nothing of the log before a position is missing, by the server's clock; unknown where nothing says so.
pub(super) fn complete_at(
    held: &[HeldPiece],
    system: u64,
    timeline: Timeline,
    until: Lsn,
) -> Option<Timestamp> {
    let is_before = |piece: &&HeldPiece| {
        piece.of.system == system && piece.of.timeline == timeline && piece.of.to <= until
    };
    held.iter().filter(is_before).filter_map(|piece| piece.of.complete_at).max()
}

/// The bytes of pieces from one position to another; `pieces` reach from the one to the other.
pub(super) fn bytes_of(
    journal: &dyn Journal,
    pieces: &[HeldPiece],
    from: Lsn,
    to: Lsn,
    take: &mut dyn FnMut(Bytes) -> Result<(), DriverError>,
) -> Result<(), DriverError> {
    let mut at = from;
    for piece in pieces.iter().filter(|piece| piece.of.to > from && piece.of.from < to) {
        let bytes = journal.read(piece)?;
        let part = |position: Lsn| usize::try_from(position.0 - piece.of.from.0).unwrap_or(usize::MAX);
        let (begin, end) = (part(at.max(piece.of.from)), part(to.min(piece.of.to)));
        if piece.of.from > at || end > bytes.len() {
            return Err(DriverError::new(
                ErrorKind::Corrupt,
                format!("read the journal: nothing is kept at {at}"),
            )
            .code(FindingCode::ObjectMissing));
        }
        if end > begin {
            at = Lsn(piece.of.from.0 + end as u64);
            for part in (begin..end).step_by(AT_ONCE) {
                take(bytes.slice(part..end.min(part + AT_ONCE)))?;
            }
        }
    }
    if at < to {
        return Err(DriverError::new(
            ErrorKind::Corrupt,
            format!("read the journal: nothing is kept at {at}"),
        )
        .code(FindingCode::ObjectMissing));
    }
    Ok(())
}

/// What has come of the file that is being received.
struct Current {
    segment: Segment,
    bytes: BytesMut,
    link: Link,
    /// How much of it is kept.
    kept: usize,
    /// What an earlier stream has kept of it: the server must send the same again.
    known: Bytes,
}

fn another(at: Lsn) -> DriverError {
    DriverError::new(
        ErrorKind::Conflict,
        format!(
            "receive the log: at {at} the server sends another log than before: it was put back, or is another server"
        ),
    )
    .code(FindingCode::WrongSource)
    .hint("take a copy: it begins with a base backup of what the server is now")
}

struct Keeping<'a> {
    cx: &'a Cx,
    journal: Arc<dyn Journal>,
    system: u64,
    size: SegmentSize,
    current: Current,
    /// When the first byte came that is not kept.
    since: Option<tokio::time::Instant>,
    told: Streamed,
    /// Where the server's log ended when it last sent all of it, and when that was.
    ended: Option<(Lsn, Timestamp)>,
    /// Whether a standby sends it: where its log ends says nothing of what the primary has written.
    on_standby: bool,
    /// Marks of an idle server that the next one replaces; nothing where they cannot be removed, and so are not made.
    marks: Option<Vec<HeldPiece>>,
}

impl Keeping<'_> {
    fn start(&self) -> Lsn {
        self.current.segment.start(self.size)
    }

    /// Everything before it is durable.
    fn durable(&self) -> Lsn {
        Lsn(self.start().0 + self.current.kept as u64)
    }

    /// What the server is told that it may let go of: nothing until it has sent the same as before, because one that was put back would
    /// let go of what nobody has received.
    fn acknowledged(&self) -> Lsn {
        // A server takes zero for a sign of life.
        if self.is_compared() { self.told.durable } else { Lsn(0) }
    }

    /// Whether the server has sent again what is kept of the file.
    fn is_compared(&self) -> bool {
        self.current.bytes.len() >= self.current.known.len()
    }

    /// Keeps what has come and is not kept yet; never more than a piece of it is in memory twice.
    async fn keep(&mut self) -> Result<(), DriverError> {
        while self.current.kept < self.current.bytes.len() {
            let rest = &self.current.bytes[self.current.kept..];
            let bytes = Bytes::copy_from_slice(&rest[..rest.len().min(PIECE_BYTES_MAX)]);
            self.put(bytes).await?;
        }
        self.since = None;
        self.told.durable = self.told.durable.max(self.durable());
        Ok(())
    }

    /// When the server's log ended at a position.
    fn complete_at(&self, position: Lsn) -> Option<Timestamp> {
        self.ended.filter(|(end, _)| *end <= position).map(|(_, at)| at)
    }

    /// Says that the server had written nothing more at an instant.
    async fn mark(&mut self, at: Timestamp) -> Result<(), DriverError> {
        let position = self.durable();
        let of = PieceOf {
            system: self.system,
            timeline: self.current.segment.timeline,
            segment_bytes: self.size,
            from: position,
            to: position,
            complete_at: Some(at),
        };
        let Some(before) = self.marks.take() else { return Ok(()) };
        let journal = Arc::clone(&self.journal);
        let made = tokio::task::spawn_blocking(move || {
            let mark = journal.put(&of, &Bytes::new())?;
            match journal.remove(&before) {
                Ok(()) => Ok(Some(vec![mark])),
                // Whoever may not remove would gather thousands of them a day.
                Err(error) if error.kind == ErrorKind::PermissionDenied => Ok(None),
                Err(error) => Err(error),
            }
        });
        self.marks = made
            .await
            .map_err(|error| DriverError::new(ErrorKind::Other, "keep the log").because(error))??;
        self.told.complete_at = Some(at);
        Ok(())
    }

    /// Keeps what comes behind what is kept.
    async fn put(&mut self, mut rest: Bytes) -> Result<(), DriverError> {
        while !rest.is_empty() {
            let bytes = rest.split_to(rest.len().min(PIECE_BYTES_MAX));
            let begin = self.current.kept;
            let end = begin + bytes.len();
            let of = PieceOf {
                system: self.system,
                timeline: self.current.segment.timeline,
                segment_bytes: self.size,
                from: Lsn(self.start().0 + begin as u64),
                to: Lsn(self.start().0 + end as u64),
                complete_at: self.complete_at(Lsn(self.start().0 + end as u64)),
            };
            let (journal, piece) = (Arc::clone(&self.journal), bytes.clone());
            let put = tokio::task::spawn_blocking(move || journal.put(&of, &piece));
            // It watches the same control, and ends soon after a stop.
            put.await
                .map_err(|error| DriverError::new(ErrorKind::Other, "keep the log").because(error))??;
            self.current.kept = end;
            self.told.waited = self.since.map(|since| since.elapsed());
            self.told.stored = (self.told.stored.0 + 1, self.told.stored.1 + bytes.len() as u64);
            self.told.complete_at = of.complete_at.or(self.told.complete_at);
        }
        Ok(())
    }

    /// Takes what has come. Whole files are read, and kept.
    async fn take(&mut self, mut piece: Bytes) -> Result<(), DriverError> {
        while !piece.is_empty() {
            let room = self.size.bytes() - self.current.bytes.len() as u64;
            let taken = piece.split_to(usize::try_from(room).unwrap_or(usize::MAX).min(piece.len()));
            let at = self.current.bytes.len();
            if let Some(known) = self.current.known.get(at..) {
                let both = known.len().min(taken.len());
                if known[..both] != taken[..both] {
                    return Err(another(Lsn(self.start().0 + at as u64)));
                }
            }
            self.current.bytes.extend_from_slice(&taken);
            if self.current.bytes.len() > self.current.kept {
                self.since.get_or_insert_with(tokio::time::Instant::now);
            }
            if self.current.bytes.len() as u64 == self.size.bytes() {
                self.ended().await?;
            }
        }
        Ok(())
    }

    /// The file is whole.
    async fn ended(&mut self) -> Result<(), DriverError> {
        let expected = Expected { segment: self.current.segment, size: self.size, system: Some(self.system) };
        let whole = std::mem::take(&mut self.current.bytes).freeze();
        let (bytes, link) = (whole.clone(), std::mem::take(&mut self.current.link));
        let walked = tokio::task::spawn_blocking(move || page::walk(&bytes, &expected, &link))
            .await
            .map_err(|error| DriverError::new(ErrorKind::Other, "read the log").because(error))?;
        let walked = walked.map_err(|wrong| {
            let name = self.current.segment.name(self.size);
            DriverError::new(ErrorKind::Corrupt, format!("receive the log's file {name}: {wrong}"))
                .code(FindingCode::Corruption)
                .hint("nothing of it is lost while the server lives; look at its disk and at the line to it")
        })?;
        self.put(whole.slice(self.current.kept.min(whole.len())..)).await?;
        self.since = None;
        let next = Segment::of(self.current.segment.timeline, self.current.segment.end(self.size), self.size);
        self.current = Current {
            segment: next,
            bytes: BytesMut::new(),
            link: walked.link,
            kept: 0,
            known: Bytes::new(),
        };
        self.told.durable = self.told.durable.max(self.durable());
        Ok(())
    }
}

impl PostgresSource {
    /// Compares the last of what was received with what the server has there. Where it has let go of it, nothing contradicts.
    async fn same_as_received(
        &self,
        cx: &Cx,
        session: &Session,
        on_standby: bool,
        journal: &Arc<dyn Journal>,
        received: &[HeldPiece],
    ) -> Result<(), DriverError> {
        let (asked, pieces) = (Arc::clone(journal), received.to_vec());
        let reading = tokio::task::spawn_blocking(move || {
            let Some(last) = last_told(&*asked, &pieces)? else { return Ok(None) };
            let bytes = asked.read(&last)?;
            Ok::<_, DriverError>(Some((last, bytes)))
        });
        let read = reading
            .await
            .map_err(|error| DriverError::new(ErrorKind::Other, "read the journal").because(error))??;
        let Some((last, bytes)) = read else { return Ok(()) };
        let (position, _) = now(cx, session).await?;
        let is_another = if last.of.to > position {
            // A standby that has just started says nothing of what it has.
            !on_standby
        } else {
            let mut probe = self.replication(cx).await?;
            sends(cx, &mut probe, last.of.timeline, last.of.from, &bytes).await? == Sends::Another
        };
        if is_another { Err(another(last.of.from)) } else { Ok(()) }
    }

    /// See [`seaworthy_interface::Source::stream`].
    pub(in super::super) async fn stream_log(
        &self,
        cx: &Cx,
        lineage: &str,
        journal: Arc<dyn Journal>,
        every: Duration,
        told: &(dyn Fn(Streamed) + Send + Sync),
    ) -> Result<(), DriverError> {
        let session = Session::open(cx, &self.address(), Purpose::Source).await?;
        let cluster = self.cluster(cx, &session).await?;
        let mut line = self.replication(cx).await?;
        let identity = line.identify(cx).await?;
        let name = slot_name(lineage);
        let backup = "take a copy first, of which the log goes on: seaworthy backup";
        let found = slot(cx, &session, &name).await?;
        let restart = match &found {
            Some(slot) if slot.is_active => {
                return Err(DriverError::new(
                    ErrorKind::Busy,
                    format!("receive the log: the replication slot {name} is in use"),
                )
                .hint(
                    "it is received already, or a backup is running; pg_stat_replication says from where",
                ));
            }
            Some(slot) => slot.restart.filter(|_| !slot.is_lost).ok_or_else(|| {
                DriverError::new(
                    ErrorKind::Conflict,
                    format!("receive the log: the server has let go of what the slot {name} was to keep"),
                )
                .code(FindingCode::LogGap)
                .hint(backup)
            })?,
            None => {
                return Err(DriverError::new(
                    ErrorKind::Refused,
                    format!("receive the log: there is no replication slot {name}"),
                )
                .hint(backup));
            }
        };
        let (size, timeline, system) = (cluster.segment, identity.timeline, identity.system);
        let asked = Arc::clone(&journal);
        let held = tokio::task::spawn_blocking(move || asked.held()).await;
        let held = held
            .map_err(|error| DriverError::new(ErrorKind::Other, "look into the journal").because(error))??;
        let held = of_history(held, None);
        let begin = Segment::of(timeline, restart, size).start(size);
        let (_, reached) = without_hole(&held, system, timeline, begin);
        // From the beginning of the file in which it ended: what is sent again must be the same. Where it ended with the file, or more is kept
        // behind a hole, nothing would be sent again, and the last that is kept is compared before.
        let segment = Segment::of(timeline, reached, size);
        let start = segment.start(size);
        let before = Segment::of(timeline, Lsn(reached.0.saturating_sub(1)), size).start(size);
        let compared = if reached == start { before } else { reached };
        let of_now = |piece: &&HeldPiece| {
            piece.of.system == system && piece.of.timeline == timeline && piece.of.to > compared
        };
        let last: Vec<HeldPiece> = held.iter().filter(of_now).cloned().collect();
        if !last.is_empty() {
            self.same_as_received(cx, &session, cluster.on_standby, &journal, &last).await?;
        }
        let (pieces, _) = without_hole(&held, system, timeline, start);
        let asked = Arc::clone(&journal);
        let known = tokio::task::spawn_blocking(move || {
            let mut known = BytesMut::new();
            bytes_of(&*asked, &pieces, start, reached, &mut |bytes| {
                known.extend_from_slice(&bytes);
                Ok(())
            })?;
            Ok::<_, DriverError>(known.freeze())
        });
        let known = known
            .await
            .map_err(|error| DriverError::new(ErrorKind::Other, "read the journal").because(error))??;
        let current =
            Current { segment, bytes: BytesMut::new(), link: Link::default(), kept: known.len(), known };
        let streamed = Streamed {
            durable: reached,
            server: identity.position,
            complete_at: complete_at(&held, system, timeline, reached),
            stored: (0, 0),
            waited: None,
        };
        let is_mark_of_it = |piece: &HeldPiece| {
            piece.of.is_mark() && piece.of.system == system && piece.of.timeline == timeline
        };
        let marks = held.into_iter().filter(is_mark_of_it).collect();
        let mut keeping = Keeping {
            cx,
            journal,
            system,
            size,
            current,
            since: None,
            told: streamed,
            ended: None,
            marks: (!cluster.on_standby).then_some(marks),
            on_standby: cluster.on_standby,
        };
        told(keeping.told);
        let mut stream = line.stream(cx, Some(&name), timeline, start).await?;
        follow(&mut keeping, &mut stream, &session, every, told).await
    }
}

/// The error of a server that has not said anything for too long, although it was asked to.
fn silent(since: Duration) -> DriverError {
    DriverError::new(
        ErrorKind::Unreachable,
        format!("receive the log: the server has not said anything for {} s", since.as_secs()),
    )
}

/// Where the server's log ends, and when that is by its clock.
pub(super) async fn now(cx: &Cx, session: &Session) -> Result<(Lsn, Timestamp), DriverError> {
    let sql = "SELECT (CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) \
               ELSE pg_current_wal_flush_lsn() END)::text, \
               to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    let row = session.row(cx, "ask where the log ends", sql).await?;
    Ok((parsed(&row, 0)?, parsed(&row, 1)?))
}

async fn follow(
    keeping: &mut Keeping<'_>,
    stream: &mut Stream<'_>,
    session: &Session,
    every: Duration,
    told: &(dyn Fn(Streamed) + Send + Sync),
) -> Result<(), DriverError> {
    let cx = keeping.cx;
    let mut acknowledged = tokio::time::Instant::now();
    let mut asked = tokio::time::Instant::now();
    let mark_every = ALIVE_EVERY.max(every.saturating_mul(MARK_RATIO));
    let mut heard = tokio::time::Instant::now();
    loop {
        let wait = keeping.since.map_or(ALIVE_EVERY, |since| every.saturating_sub(since.elapsed()));
        let limited = cx.within(wait);
        let received = stream.next(&limited).await;
        cx.check()?;
        if received.is_ok() {
            heard = tokio::time::Instant::now();
        } else if heard.elapsed() >= SILENCE_MAX {
            // The line may be gone without a word: a tunnel whose far end has vanished.
            return Err(silent(heard.elapsed()));
        }
        let mut is_asked = false;
        match received {
            Ok(Some(Received::Piece { at, bytes, end, sent_us })) => {
                keeping.told.server = end;
                // Nothing more was there when it was sent: what comes before is all that was written until then.
                if at.0 + bytes.len() as u64 >= end.0 && !keeping.on_standby {
                    keeping.ended = Timestamp::from_microsecond(sent_us).ok().map(|sent| (end, sent));
                }
                keeping.take(bytes).await?;
                asked = tokio::time::Instant::now();
            }
            Ok(Some(Received::Alive { end, asks })) => {
                keeping.told.server = end;
                is_asked = asks;
            }
            Ok(Some(Received::Left { timeline, at })) => {
                return Err(DriverError::new(
                    ErrorKind::Conflict,
                    format!("receive the log: the server was promoted to timeline {timeline} at {at}"),
                )
                .code(FindingCode::LogGap)
                .hint("take a copy, which begins with a base backup of the new timeline: seaworthy backup"));
            }
            Ok(None) => return Err(ended_early("receive the log")),
            // Nothing has come for a while.
            Err(error) if matches!(error.kind, ErrorKind::Stopped(_)) => {}
            Err(error) => return Err(error),
        }
        let is_due = keeping.since.is_some_and(|since| since.elapsed() >= every);
        if is_due || is_asked {
            keeping.keep().await?;
        }
        if asked.elapsed() >= mark_every && keeping.since.is_none() && keeping.is_compared() {
            // Nothing has come for a while: is that because nothing was written?
            let limited = cx.within(SILENCE_MAX);
            let answer = now(&limited, session).await;
            cx.check()?;
            let (end, at) = answer.map_err(|error| match error.kind {
                ErrorKind::Stopped(_) => silent(SILENCE_MAX),
                _ => error,
            })?;
            if end <= keeping.durable() {
                keeping.mark(at).await?;
            }
            asked = tokio::time::Instant::now();
        }
        if is_due || is_asked || acknowledged.elapsed() >= ALIVE_EVERY || keeping.since.is_none() {
            let asks = heard.elapsed() >= ALIVE_EVERY;
            let limited = cx.within(SILENCE_MAX);
            let said =
                stream.acknowledge(&limited, keeping.acknowledged(), Timestamp::now().as_microsecond(), asks);
            let said = said.await;
            cx.check()?;
            said.map_err(|error| match error.kind {
                ErrorKind::Stopped(_) => silent(SILENCE_MAX),
                _ => error,
            })?;
            acknowledged = tokio::time::Instant::now();
            told(keeping.told);
        }
    }
}

#[cfg(test)]
mod tests {
    use seaworthy_interface::HeldFile;

    use super::*;

    fn piece(timeline: u32, from: u64, to: u64) -> HeldPiece {
        let of = PieceOf {
            system: 7,
            timeline: Timeline::new(timeline).unwrap(),
            segment_bytes: SegmentSize::USUAL,
            from: Lsn(from),
            to: Lsn(to),
            complete_at: Timestamp::from_second(to.cast_signed()).ok(),
        };
        HeldPiece { of, key: format!("{timeline}-{from}-{to}"), apart: None }
    }

    struct Kept;

    impl Journal for Kept {
        fn put(&self, of: &PieceOf, _: &Bytes) -> Result<HeldPiece, DriverError> {
            Ok(HeldPiece { of: *of, key: String::new(), apart: None })
        }

        fn held(&self) -> Result<Vec<HeldPiece>, DriverError> {
            Ok(Vec::new())
        }

        fn read(&self, piece: &HeldPiece) -> Result<Bytes, DriverError> {
            // Every byte is its position.
            Ok((piece.of.from.0..piece.of.to.0).map(|at| at.to_le_bytes()[0]).collect())
        }

        fn put_file(&self, system: u64, name: &str, _: &Bytes) -> Result<HeldFile, DriverError> {
            Ok(HeldFile { system, name: name.to_owned(), key: String::new() })
        }

        fn files(&self) -> Result<Vec<HeldFile>, DriverError> {
            Ok(Vec::new())
        }

        fn read_file(&self, _: &HeldFile) -> Result<Bytes, DriverError> {
            Ok(Bytes::new())
        }

        fn set_apart(&self, _: &[HeldPiece], _: Timestamp) -> Result<(), DriverError> {
            Ok(())
        }

        fn remove(&self, _: &[HeldPiece]) -> Result<(), DriverError> {
            Ok(())
        }
    }

    #[test]
    fn what_is_kept_reaches_to_the_first_hole() {
        let held = [
            piece(1, 5, 10),
            piece(1, 10, 20),
            piece(1, 10, 25),
            piece(1, 12, 22),
            piece(1, 30, 40),
            piece(2, 25, 50),
        ];
        let of = |from: u64| {
            let (used, reached) = without_hole(&held, 7, Timeline::FIRST, Lsn(from));
            (used.len(), reached.0)
        };
        assert_eq!(
            (of(5), of(7), of(24), of(25), of(31), of(4)),
            ((3, 25), (3, 25), (1, 25), (0, 25), (1, 40), (0, 4))
        );
        assert_eq!(without_hole(&held, 8, Timeline::FIRST, Lsn(5)).1, Lsn(5));
        // What lies behind a position says nothing of what is before it.
        let complete =
            |until: u64| complete_at(&held, 7, Timeline::FIRST, Lsn(until)).map(Timestamp::as_second);
        assert_eq!(
            (complete(9), complete(10), complete(24), complete(40)),
            (None, Some(10), Some(22), Some(40))
        );
        assert_eq!(complete_at(&held, 8, Timeline::FIRST, Lsn(99)), None);
        let mark = piece(1, 25, 25);
        assert!(mark.of.is_mark() && held.iter().all(|piece| !piece.of.is_mark()));
        let (used, reached) = without_hole(&[piece(1, 5, 25), mark], 7, Timeline::FIRST, Lsn(5));
        assert_eq!((used.len(), reached.0), (1, 25));
    }

    #[test]
    fn a_copy_leads_on_to_the_log_of_its_own_time() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let apart =
            |from: u64, second: i64| HeldPiece { apart: Some(at(second)), ..piece(1, from, from + 5) };
        let held = vec![apart(5, 100), apart(10, 100), apart(7, 200), piece(1, 6, 9)];
        let of = |copy: Option<i64>| -> Vec<u64> {
            of_history(held.clone(), copy.map(at)).iter().map(|piece| piece.of.from.0).collect()
        };
        assert_eq!((of(Some(90)), of(Some(100)), of(Some(199))), (vec![5, 10], vec![7], vec![7]));
        assert_eq!((of(Some(200)), of(Some(900)), of(None)), (vec![6], vec![6], vec![6]));
    }

    #[test]
    fn pieces_that_overlap_give_each_byte_once() {
        let held = [piece(1, 5, 10), piece(1, 8, 20), piece(1, 15, 30)];
        let read = |from: u64, to: u64| {
            let mut all = Vec::new();
            let read = bytes_of(&Kept, &held, Lsn(from), Lsn(to), &mut |bytes| {
                all.extend_from_slice(&bytes);
                Ok(())
            });
            read.map(|()| all)
        };
        for (from, to) in [(5, 30), (6, 7), (9, 16), (10, 30), (29, 30), (12, 12)] {
            let expected: Vec<u8> = (from..to).map(|at: u64| at.to_le_bytes()[0]).collect();
            assert_eq!(read(from, to).unwrap(), expected, "{from} {to}");
        }
        assert!(read(5, 31).is_err());
        assert!(read(4, 9).is_err());
    }
}
