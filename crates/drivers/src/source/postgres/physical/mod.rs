//! A whole cluster, captured as a base backup with the log that makes it consistent, and its databases witnessed at the very position
//! in the log at which the copy ends.
//!
//! The server sends its files and, beside them, its log; both go into the copy as they come, nothing is staged. When the files are
//! there, snapshots of all databases are taken for which the log has a position that shows the same ([`moment`]): the copy's log is
//! ended there, and the witness is measured in the snapshot. A restore that recovers to the copy's end must therefore equal it row for
//! row, whatever was written meanwhile.
//!
//! A continuous copy takes the base backup of the copy before it over, if that is young enough, and adds the log since ([`follow`]).
//!
//! In a copy: `data/` (the data directory, its log in `pg_wal/`), `tablespaces/` by object identifier, and `README.txt`. Stock tools
//! restore it by putting the directories into their places and starting the server: `backup_label` is there, and the log ends where
//! the copy does.
//!
//! A least-privileged role: `LOGIN REPLICATION` and a line of `pg_hba.conf` for `replication`; for the witness `CONNECT` and
//! `GRANT pg_read_all_data TO role` (PostgreSQL 14 and newer), as for a dump.

pub(super) mod archived;
pub(super) mod deliver;
mod follow;
mod log;
mod moment;
pub(super) mod onward;
pub(super) mod restore;
mod sink;
mod stream;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::SignedDuration;
use seaworthy_interface::{Captured, CopyPath, CopyWriter, Cx, DriverError, ErrorKind, Progress};
use seaworthy_model::advice;
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::signature::sha256;
use seaworthy_model::source::PostgresMode;
use seaworthy_model::wal::{Lsn, Segment, SegmentSize, Timeline};
use seaworthy_model::witness::postgres::{
    PostgresWitness, Scope, SequenceBracket, SequencePosition, ServerFacts, SnapshotFacts, VERSION, printable,
};
use seaworthy_model::witness::{BaseFacts, Between, PhysicalFacts, Witness};
use tokio::sync::{mpsc, oneshot, watch};

use self::follow::{Course, Prior};
use self::log::{Digests, Keeper, Overtaken};
use self::moment::{Read, Shown, Unfit};
use self::sink::{Sink, Stored};
use super::catalog::{self, View};
use super::globals::{self, Globals};
use super::measure::{self, Beside};
use super::replication::{BackupOptions, Ended, Event, Received, Replication};
use super::session::{Address, Purpose, Session, flag, parsed, text};
use super::{MAJOR_MAX, MAJOR_MIN, PostgresSource, capture, flaws, standby};

/// The data directory inside a copy.
const DATA: &str = "data";
/// The tablespaces inside a copy.
const SPACES: &str = "tablespaces";
/// The log between the copy before and the base backup, inside a copy.
const BETWEEN: &str = "log-between";
/// The server's manifest inside the data directory.
const MANIFEST: &str = "backup_manifest";
/// For people.
const README: &str = "README.txt";
/// Pieces that wait for the copy to take them: 32 to 128 KiB each.
const QUEUE: usize = 64;
/// Snapshots that are taken until one fits.
const ATTEMPTS_MAX: usize = 500;
/// Databases of a cluster that are looked into: each takes a connection while the snapshots are held.
const ROOMS_MAX: usize = 32;
/// Bytes of a page of the log, of the header of a file's first page, and of the others.
const PAGE_BYTES: u64 = 8_192;
const LONG_HEADER: u64 = 40;
const SHORT_HEADER: u64 = 24;
/// How long the log may take to arrive that was written already. An idle server writes it out within a second.
const LOG_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the server is told that we are there.
const ALIVE_EVERY: Duration = Duration::from_secs(10);
/// What a sequence may stand ahead of after a recovery: a server writes so many of its values into the log in advance
/// (`SEQ_LOG_VALS` of `src/backend/commands/sequence.c`).
const SEQUENCE_AHEAD: i64 = 32;
/// Settings that a recovering server needs to be as large as the source's, in the order in which the log names them.
pub(super) const AT_LEAST: [&str; 5] = [
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
];

/// Makes settings at least as large as others.
fn raise<'a>(settings: &mut BTreeMap<String, String>, others: impl Iterator<Item = (&'a str, &'a str)>) {
    let number = |value: &str| value.parse::<u64>().unwrap_or(0);
    for (name, value) in others {
        if number(value) > settings.get(name).map_or(0, |kept| number(kept)) {
            settings.insert(name.to_owned(), value.to_owned());
        }
    }
}

/// The same, with what the log has said of them: a server that was restarted with larger ones in between.
fn raise_to(settings: &mut BTreeMap<String, String>, seen: &[u32; 5]) {
    let seen = seen.map(|value| value.to_string());
    raise(settings, AT_LEAST.into_iter().zip(seen.iter().map(String::as_str)));
}

fn named(name: &str) -> Result<CopyPath, DriverError> {
    CopyPath::new(name)
        .ok_or_else(|| DriverError::new(ErrorKind::Other, format!("name `{}` in a copy", printable(name))))
}

/// The data directory inside a copy.
pub(super) fn data_path() -> Result<CopyPath, DriverError> {
    named(DATA)
}

/// A tablespace inside a copy.
pub(super) fn space_path(oid: u32) -> Result<CopyPath, DriverError> {
    named(&format!("{SPACES}/{oid}"))
}

/// A file of the data directory inside a copy.
pub(super) fn in_data(name: &str) -> Result<CopyPath, DriverError> {
    named(&format!("{DATA}/{name}"))
}

/// A file of the log inside a copy.
fn log_path(name: &str) -> Result<CopyPath, DriverError> {
    in_data(&format!("pg_wal/{name}"))
}

/// A file of the log between the copy before and the base backup of this one.
pub(super) fn between_path(name: &str) -> Result<CopyPath, DriverError> {
    named(&format!("{BETWEEN}/{name}"))
}

/// What the server is asked before anything is sent.
struct Cluster {
    major: u32,
    server: ServerFacts,
    on_standby: bool,
    has_checksums: bool,
    segment: SegmentSize,
    settings: BTreeMap<String, String>,
    /// Databases beside the one that is named.
    others: Vec<String>,
}

impl Cluster {
    fn system(&self) -> Result<u64, DriverError> {
        let identifier = &self.server.system_identifier;
        identifier.parse().map_err(|error: std::num::ParseIntError| {
            DriverError::new(ErrorKind::Corrupt, format!("read the cluster's identity `{identifier}`"))
                .because(error)
        })
    }
}

/// What is done with the log, in order.
enum Task {
    Take(Bytes),
    Watch(Lsn, oneshot::Sender<()>),
    Read(oneshot::Sender<Result<Read, Overtaken>>),
    Finish(Lsn, oneshot::Sender<Digests>),
}

fn keep(mut keeper: Keeper, mut inbox: mpsc::Receiver<Task>) -> Result<(), DriverError> {
    // Whoever does not wait for an answer any more has been stopped, and the inbox ends with it.
    while let Some(task) = inbox.blocking_recv() {
        match task {
            Task::Take(piece) => keeper.take(&piece)?,
            Task::Watch(from, done) => {
                keeper.watch(from)?;
                done.send(()).ok();
            }
            Task::Read(answer) => drop(answer.send(keeper.read())),
            Task::Finish(until, answer) => {
                drop(answer.send(keeper.finish(until)?));
                // What still comes lies behind the end of the copy.
                while inbox.blocking_recv().is_some() {}
                return Ok(());
            }
        }
    }
    Ok(())
}

fn ended_early(what: &str) -> DriverError {
    DriverError::new(ErrorKind::Other, format!("{what}: its thread has ended"))
}

/// The log as it is received, and what can be asked of it.
struct Log {
    tasks: mpsc::Sender<Task>,
    position: watch::Receiver<Lsn>,
}

impl Log {
    async fn ask<T>(&self, cx: &Cx, task: impl FnOnce(oneshot::Sender<T>) -> Task) -> Result<T, DriverError> {
        let (answer, answered) = oneshot::channel();
        let ask = async {
            self.tasks.send(task(answer)).await.map_err(|_| ended_early("keep the log"))?;
            answered.await.map_err(|_| ended_early("keep the log"))
        };
        cx.run(ask).await?
    }

    /// Waits until the log is there up to a position.
    async fn reaches(&mut self, cx: &Cx, until: Lsn) -> Result<(), DriverError> {
        let limited = cx.within(LOG_TIMEOUT);
        let reached = limited.run(self.position.wait_for(|position| *position >= until)).await;
        match reached.map(|reached| reached.is_ok()) {
            Ok(true) => Ok(()),
            Ok(false) => Err(ended_early("receive the log")),
            Err(stop) => {
                cx.check()?;
                Err(DriverError::new(
                    ErrorKind::Unreachable,
                    format!(
                        "receive the log up to {until}: it goes no further than {}",
                        *self.position.borrow()
                    ),
                )
                .because(DriverError::from(stop))
                .code(FindingCode::StreamUnfinished)
                .hint("does the server write its log out, and to a disk that answers?"))
            }
        }
    }
}

impl Log {
    /// Waits until the log is there up to a position, for as long as it comes nearer.
    async fn catches_up(&mut self, cx: &Cx, until: Lsn) -> Result<(), DriverError> {
        loop {
            let before = *self.position.borrow();
            match self.reaches(cx, until).await {
                Err(error)
                    if error.code == Some(FindingCode::StreamUnfinished)
                        && *self.position.borrow() > before => {}
                done => return done,
            }
        }
    }
}

/// What keeps the log while it is received.
struct Keeping {
    /// The slot.
    slot: Option<String>,
    /// Up to where it is held elsewhere for good: the server may let go of that, and of nothing behind it. Nothing where the slot
    /// ends with the connection.
    durable: Option<Lsn>,
    /// The copy before: what the journal keeps since then comes first.
    prior: Option<Arc<Prior>>,
}

impl Keeping {
    fn behind(prior: &Arc<Prior>) -> Self {
        Self {
            slot: prior.slot.clone(),
            durable: (!prior.is_temporary).then_some(prior.durable),
            prior: Some(Arc::clone(prior)),
        }
    }
}

/// A log that does not go on as it was received is no reason to take no copy: one that stands alone leaves it out.
fn of_what_is_fed(error: DriverError, is_fed: bool) -> DriverError {
    if is_fed && error.kind == ErrorKind::Corrupt {
        return DriverError::new(ErrorKind::Unfollowable, "follow the log that was received").because(error);
    }
    error
}

/// Receives the log until it is stopped; only an error ends it otherwise.
async fn receive(
    cx: &Cx,
    connection: &mut Replication,
    keeping: &Keeping,
    timeline: Timeline,
    from: Lsn,
    tasks: mpsc::Sender<Task>,
    position: watch::Sender<Lsn>,
) -> Result<(), DriverError> {
    let mut from = from;
    if let Some(prior) = keeping.prior.clone().filter(|prior| prior.then > prior.begin) {
        from = prior.then;
        let (into, told, mut fed) = (tasks.clone(), position.clone(), prior.begin);
        let feeding = tokio::task::spawn_blocking(move || {
            prior.kept_bytes(&mut |bytes| {
                fed = Lsn(fed.0 + bytes.len() as u64);
                into.blocking_send(Task::Take(bytes)).map_err(|_| ended_early("keep the log"))?;
                told.send_replace(fed);
                Ok(())
            })
        });
        let fed = cx.run(feeding).await?;
        let fed =
            fed.map_err(|error| DriverError::new(ErrorKind::Other, "read the journal").because(error))?;
        fed.map_err(|error| match error.kind {
            ErrorKind::Corrupt | ErrorKind::NotFound => {
                DriverError::new(ErrorKind::Unfollowable, "read the journal").because(error)
            }
            _ => error,
        })?;
        position.send_replace(from);
    }
    let mut stream = connection.stream(cx, keeping.slot.as_deref(), timeline, from).await?;
    if let Some(durable) = keeping.durable {
        // At once: a short backup would never come to say it.
        stream.acknowledge(cx, durable, jiff::Timestamp::now().as_microsecond(), false).await?;
    }
    let mut told = tokio::time::Instant::now();
    loop {
        let limited = cx.within(ALIVE_EVERY);
        let received = stream.next(&limited).await;
        cx.check()?;
        let (mut at, mut must_tell) = (None, false);
        match received {
            Ok(Some(Received::Piece { bytes, .. })) => {
                at = Some(stream.position());
                cx.run(tasks.send(Task::Take(bytes))).await?.map_err(|_| ended_early("keep the log"))?;
            }
            Ok(Some(Received::Alive { asks, .. })) => must_tell = asks,
            Ok(Some(Received::Left { timeline, at })) => {
                return Err(DriverError::new(
                    ErrorKind::Conflict,
                    format!("receive the log: the server was promoted to timeline {timeline} at {at} during the backup"),
                )
                .hint("back up again: the new timeline has a history of its own"));
            }
            Ok(None) => {
                return Err(DriverError::new(ErrorKind::Corrupt, "receive the log: the server has ended it")
                    .code(FindingCode::StreamUnfinished));
            }
            // Nothing has come for a while.
            Err(error) if matches!(error.kind, ErrorKind::Stopped(_)) => must_tell = true,
            Err(error) => return Err(error),
        }
        if let Some(at) = at {
            position.send_replace(at);
        }
        if must_tell || told.elapsed() >= ALIVE_EVERY {
            // Where the slot ends with this connection, nothing is asked of the server that was sent before.
            let safe = keeping.durable.unwrap_or_else(|| stream.position());
            stream.acknowledge(cx, safe, jiff::Timestamp::now().as_microsecond(), false).await?;
            told = tokio::time::Instant::now();
        }
    }
}

/// The end of a base backup's own part.
struct Based {
    stored: Stored,
    ended: Ended,
}

/// The end of a copy, and when its search began.
struct Seen {
    moment: Moment,
    digests: Digests,
    began: std::time::Instant,
}

/// Receives the log while `work` is done, and ends with it.
async fn received<T>(
    cx: &Cx,
    line: &mut Replication,
    keeping: &Keeping,
    keeper: Keeper,
    work: impl AsyncFnOnce(&mut Log) -> Result<T, DriverError>,
) -> Result<T, DriverError> {
    let (timeline, from) = keeper.begins();
    let (tasks, inbox) = mpsc::channel(QUEUE);
    let (told, position) = watch::channel(Lsn(0));
    let kept = tokio::task::spawn_blocking(move || keep(keeper, inbox));
    let mut log = Log { tasks: tasks.clone(), position };
    let (log_cx, enough) = cx.child();
    let receiving = receive(&log_cx, line, keeping, timeline, from, tasks, told);
    let outcome = tokio::select! {
        biased;
        received = receiving => Err(received.err().unwrap_or_else(|| ended_early("receive the log"))),
        worked = work(&mut log) => worked,
    };
    enough.cancel();
    drop(log);
    let kept =
        kept.await.map_err(|error| DriverError::new(ErrorKind::Other, "keep the log").because(error))?;
    match (outcome, kept) {
        (Ok(done), Ok(())) => Ok(done),
        // Where the copy did not take it, everybody else only heard that nobody listens any more.
        (_, Err(error)) | (Err(error), Ok(())) => Err(error),
    }
}

/// A database of the cluster, and the session that holds its snapshot.
struct Room {
    address: Address,
    session: Session,
}

/// What was measured of a database before its snapshot, and the snapshot's name for other sessions.
struct Held {
    objects: capture::Objects,
    sequences: BTreeMap<String, SequenceBracket>,
    exported: String,
}

/// The snapshots that fit: one for each database, all of one instant.
struct Moment {
    /// Where the last record begins and ends.
    last: (Lsn, Lsn),
    snapshot: SnapshotFacts,
    held: Vec<Held>,
    attempts: usize,
    /// Why the copy of a standby is that old, or not known better.
    behind: Option<Finding>,
}

/// What no snapshot fits, and why, in the end.
fn unfit(error: Unfit) -> DriverError {
    DriverError::new(
        ErrorKind::Conflict,
        format!("find a position in the log for a snapshot, in {ATTEMPTS_MAX} attempts"),
    )
    .because(error)
    .hint("back up again when fewer transactions end at once")
}

impl PostgresSource {
    /// What stands in the way of a base backup of this server by this role.
    pub(super) async fn obstacles(
        &self,
        cx: &Cx,
        session: &Session,
        log_bytes_per_hour: Option<u64>,
    ) -> Result<Vec<Finding>, DriverError> {
        let mut findings = Vec::new();
        let subject = printable(&self.spec.database);
        let mut add = |code, detail: String| findings.push(Finding::new(code, subject.clone(), detail));
        let row = session
            .row(
                cx,
                "ask what the server allows",
                "SELECT current_setting('wal_level'), current_setting('max_wal_senders'), \
                 current_setting('max_replication_slots'), current_setting('full_page_writes'), \
                 current_setting('max_slot_wal_keep_size')",
            )
            .await?;
        if text(&row, 0)? == "minimal" {
            add(FindingCode::EnvSettings, "wal_level is minimal: base backups need `replica`".to_owned());
        }
        for (column, name, least) in [(1, "max_wal_senders", 2_u32), (2, "max_replication_slots", 1)] {
            if parsed::<u32>(&row, column)? < least {
                add(FindingCode::EnvSettings, format!("{name} is below {least}: a backup would be refused"));
            }
        }
        if matches!(self.spec.mode, PostgresMode::Continuous { .. }) && text(&row, 4)? == "-1" {
            let enough = advice::to_keep(log_bytes_per_hour).map_or_else(
                || "for example to 20GB".to_owned(),
                |size| format!("to {size} at least, which is a day of it"),
            );
            add(
                FindingCode::EnvSettings,
                format!(
                    "max_slot_wal_keep_size is -1: were backups to stop, the log that is kept for the next one would fill the server's \
                     disk; set it, {enough}"
                ),
            );
        }
        if !flag(&row, 3)? && text(&row, 3)? != "on" {
            let detail = "full_page_writes is off: a page that is read while it is written stays torn";
            add(FindingCode::EnvSettings, detail.to_owned());
        }
        match self.replication(cx).await {
            Ok(_) => {}
            Err(error) if matches!(error.kind, ErrorKind::Stopped(_)) => return Err(error),
            Err(error) => {
                let hint = error.hint.clone().unwrap_or_default();
                add(error.code.unwrap_or(FindingCode::ScopeNarrow), format!("could not {error}; {hint}"));
            }
        }
        Ok(findings)
    }

    async fn cluster(&self, cx: &Cx, session: &Session) -> Result<Cluster, DriverError> {
        let row = session
            .row(
                cx,
                "ask what the cluster is",
                "SELECT (SELECT system_identifier::text FROM pg_control_system()), current_setting('server_version'), \
                 pg_is_in_recovery()::text, current_setting('data_checksums'), \
                 (SELECT (setting::int8 * CASE unit WHEN '8kB' THEN 8192 ELSE 1 END)::text FROM pg_settings \
                 WHERE name = 'wal_segment_size'), current_setting('wal_level')",
            )
            .await?;
        if text(&row, 5)? == "minimal" {
            return Err(DriverError::new(ErrorKind::Refused, "take a base backup: wal_level is minimal")
                .hint("set `wal_level = replica` (a restart), or back up with `mode = \"logical\"`"));
        }
        let bytes: u32 = parsed(&row, 4)?;
        let segment = SegmentSize::try_from(bytes)
            .map_err(|error| DriverError::new(ErrorKind::Unsupported, "take a base backup").because(error))?;
        let mut settings = BTreeMap::new();
        for name in AT_LEAST {
            let sql = format!("SELECT current_setting({})", super::names::literal(name));
            settings.insert(name.to_owned(), text(&session.row(cx, "read a setting", &sql).await?, 0)?);
        }
        let mut others = Vec::new();
        let list = "SELECT datname::text FROM pg_database WHERE datallowconn AND NOT datistemplate \
                    AND datname <> current_database() ORDER BY 1";
        for row in session.query(cx, "list the databases", list).await? {
            others.push(text(&row, 0)?);
        }
        Ok(Cluster {
            major: session.version / 10_000,
            server: ServerFacts {
                system_identifier: text(&row, 0)?,
                version_num: session.version,
                version: text(&row, 1)?,
                bootstrap_role: globals::bootstrap_role(cx, session).await?,
            },
            on_standby: flag(&row, 2)?,
            has_checksums: flag(&row, 3)? || text(&row, 3)? == "on",
            segment,
            settings,
            others,
        })
    }

    /// Captures the cluster: by a base backup, or, with `every`, by the log since the copy before where the base backup that it begins
    /// with is younger than that.
    pub(super) async fn capture_cluster(
        &self,
        cx: &Cx,
        to: Arc<dyn CopyWriter>,
        every: Option<SignedDuration>,
    ) -> Result<Captured, DriverError> {
        cx.phase("connect");
        let keeper = Session::open(cx, &self.address(), Purpose::Source).await?;
        let cluster = self.cluster(cx, &keeper).await?;
        if !(MAJOR_MIN..=MAJOR_MAX).contains(&cluster.major) {
            return Err(DriverError::new(
                ErrorKind::Unsupported,
                format!("back up PostgreSQL {}", cluster.major),
            )
            .hint(format!("majors {MAJOR_MIN} to {MAJOR_MAX} are understood")));
        }
        let mut rooms = vec![Room { address: self.address(), session: keeper }];
        let mut unseen = Vec::new();
        for name in &cluster.others {
            let address = Address { database: name.clone(), ..self.address() };
            if rooms.len() >= ROOMS_MAX {
                unseen.push((name.clone(), format!("{ROOMS_MAX} databases are looked into at once")));
                continue;
            }
            match Session::open(cx, &address, Purpose::Source).await {
                Ok(session) => rooms.push(Room { address, session }),
                Err(error) => {
                    cx.check()?;
                    unseen.push((name.clone(), format!("could not {error}")));
                }
            }
        }
        let mut line = self.replication(cx).await?;
        let identity = line.identify(cx).await?;
        let system = identity.system.to_string();
        if system != cluster.server.system_identifier {
            return Err(DriverError::new(
                ErrorKind::Conflict,
                format!("take a base backup: {system} answers for {}", cluster.server.system_identifier),
            )
            .code(FindingCode::WrongSource)
            .hint("two servers share this address; name one of them"));
        }
        let mut was_received = false;
        let course = match (every, rooms.first()) {
            (Some(every), Some(room)) => {
                cx.phase("look at the copy before");
                let probe = self.replication(cx).await?;
                if let Some(received) = follow::received_so_far(&to, &identity).await? {
                    was_received = true;
                    let probe = self.replication(cx).await?;
                    follow::set_apart(cx, &room.session, probe, &to, cluster.on_standby, received).await?;
                }
                let asked = follow::Asked { session: &room.session, cluster: &cluster, identity: &identity };
                follow::course(cx, asked, &mut line, probe, &to, every).await?
            }
            _ => Course::Base { prior: None, gap: None },
        };
        let (mut captured, gap) = match course {
            Course::Base { prior, gap } => {
                // What was received belongs to copies from before: it is not thrown away as if there had been none.
                let gap = gap.or_else(|| {
                    (prior.is_none() && was_received).then(|| {
                        "the log was received before, and no copy that is good leads on to it up to here"
                            .to_owned()
                    })
                });
                let since = (prior.is_none() && gap.is_none()).then_some(Lsn(0));
                let is_fed = prior.as_ref().is_some_and(Prior::is_fed);
                let based = self.based(cx, &rooms, cluster, &mut line, prior, since, &unseen, to).await;
                (based.map_err(|error| of_what_is_fed(error, is_fed))?, gap)
            }
            Course::Log(prior) => {
                let is_fed = prior.is_fed();
                let followed = self.followed(cx, &rooms, cluster, &mut line, prior, &unseen, to).await;
                (followed.map_err(|error| of_what_is_fed(error, is_fed))?, None)
            }
        };
        captured.is_complete = unseen.is_empty();
        captured.findings.extend(unseen.into_iter().map(|(name, why)| {
            let detail = format!("is in the copy, and what it holds is not compared: {why}");
            Finding::new(FindingCode::ScopeNarrow, printable(&name), detail)
        }));
        captured
            .findings
            .extend(gap.map(|why| Finding::new(FindingCode::LogGap, printable(&self.spec.database), why)));
        Ok(captured)
    }

    /// A base backup, with the log since the copy before where there is one.
    #[expect(clippy::too_many_arguments, reason = "one call, split off for its length")]
    async fn based(
        &self,
        cx: &Cx,
        rooms: &[Room],
        cluster: Cluster,
        line: &mut Replication,
        prior: Option<Prior>,
        since: Option<Lsn>,
        unseen: &[(String, String)],
        to: Arc<dyn CopyWriter>,
    ) -> Result<Captured, DriverError> {
        let mut files = self.replication(cx).await?;
        let prior = prior.map(Arc::new);
        let mut keeping = match &prior {
            Some(prior) => Keeping::behind(prior),
            None => {
                let own = sha256(format!("{:?}", jiff::Timestamp::now()).as_bytes());
                let slot = format!("seaworthy_{}", &own.0[7..23]);
                line.create_temporary_slot(cx, &slot).await?;
                Keeping { slot: Some(slot), durable: None, prior: None }
            }
        };
        cx.phase("checkpoint");
        let options =
            BackupOptions { label: "seaworthy".to_owned(), fast: true, max_rate: None, wait: false };
        let mut backup = files.base_backup(cx, &options).await?;
        let (from, timeline) = (backup.from, backup.timeline);
        let tablespaces: BTreeMap<u32, String> =
            backup.tablespaces.iter().map(|space| (space.oid, space.location.clone())).collect();
        let own = Segment::of(timeline, from, cluster.segment).start(cluster.segment);
        let begin = prior.as_ref().map_or(own, |prior| prior.begin.min(own));
        if own <= begin {
            // A server always has the log from its last checkpoint on: there is nothing that the journal would have to add.
            keeping.prior = None;
        }
        let system = cluster.system()?;
        let mut keeper = Keeper::new(Arc::clone(&to), cluster.segment, timeline, system, begin, own);
        if timeline != Timeline::FIRST {
            // On a connection of its own: this one is about to send the log.
            let history = self.replication(cx).await?.history(cx, timeline).await?.text();
            let task = tokio::task::spawn_blocking(move || keeper.history(&history).map(|()| keeper));
            keeper = task.await.map_err(|error| {
                DriverError::new(ErrorKind::Other, "store the timeline's history").because(error)
            })??;
        }
        let files_to = Arc::clone(&to);
        let working = async |log: &mut Log| {
            cx.phase("base backup");
            let based = base(cx, &mut backup, files_to, from, cluster.has_checksums).await?;
            if based.ended.timeline != timeline {
                return Err(DriverError::new(
                    ErrorKind::Conflict,
                    format!(
                        "take a base backup: it began on timeline {timeline} and ended on {}",
                        based.ended.timeline
                    ),
                )
                .hint("the server was promoted meanwhile; back up again"));
            }
            let consistent = based.ended.until;
            Ok((based, self.witnessed(cx, rooms, &cluster, consistent, log).await?))
        };
        let (based, seen) = received(cx, line, &keeping, keeper, working).await?;
        if seen.digests.spaces.iter().any(|at| *at >= from) {
            return Err(DriverError::new(
                ErrorKind::Conflict,
                "take a base backup: a tablespace was made meanwhile, which is not in it",
            )
            .hint("back up again"));
        }
        let mut settings = cluster.settings.clone();
        raise_to(&mut settings, &seen.digests.settings);
        // Of a standby no file may lie between: what leads here is then in the first of its own.
        let between = prior.as_ref().map(|prior| Between {
            since: prior.at,
            from: prior.facts.until,
            log: seen.digests.before.clone(),
        });
        let physical = PhysicalFacts {
            timeline,
            from,
            consistent: based.ended.until,
            last: seen.moment.last.0,
            until: seen.moment.last.1,
            segment_bytes: cluster.segment,
            has_checksums: cluster.has_checksums,
            settings,
            log: seen.digests.own,
            manifest: based.stored.manifest,
            base: Some(BaseFacts { at: seen.moment.snapshot.at, bytes: based.stored.bytes }),
            // Before the first copy there is nothing that would lead to anything.
            since: Some(since.unwrap_or_else(|| prior.as_ref().map_or(from, |prior| prior.since()))),
            between,
            tablespaces,
            others: BTreeMap::new(),
            unseen: unseen.iter().map(|(name, _)| name.clone()).collect(),
        };
        let findings = based.stored.findings;
        let released = prior.map(|prior| prior.released(system));
        let captured =
            self.measured(cx, rooms, cluster, findings, seen.moment, physical, to, seen.began).await?;
        Ok(Captured { released, ..captured })
    }

    /// The base backup of the copy before, and the log since.
    #[expect(clippy::too_many_arguments, reason = "one call, split off for its length")]
    async fn followed(
        &self,
        cx: &Cx,
        rooms: &[Room],
        cluster: Cluster,
        line: &mut Replication,
        prior: Prior,
        unseen: &[(String, String)],
        to: Arc<dyn CopyWriter>,
    ) -> Result<Captured, DriverError> {
        let unfollowable = |what: &str| DriverError::new(ErrorKind::Unfollowable, what.to_owned());
        let what = "take over the copy before";
        let into = Arc::clone(&to);
        let taking = tokio::task::spawn_blocking(move || prior.take_over(&*into).map(|()| prior));
        let prior = match taking.await {
            Ok(Ok(prior)) => prior,
            Ok(Err(error)) if matches!(error.kind, ErrorKind::Stopped(_)) => return Err(error),
            Ok(Err(error)) => return Err(unfollowable(what).because(error)),
            Err(error) => return Err(DriverError::new(ErrorKind::Other, what).because(error)),
        };
        let system = cluster.system()?;
        let keeper = Keeper::new(
            Arc::clone(&to),
            cluster.segment,
            prior.facts.timeline,
            system,
            prior.begin,
            prior.begin,
        )
        .behind((prior.facts.last, prior.facts.until));
        let prior = Arc::new(prior);
        let before = &prior.facts;
        let keeping = Keeping::behind(&prior);
        let working =
            async |log: &mut Log| Ok(((), self.witnessed(cx, rooms, &cluster, before.until, log).await?));
        let ((), seen) = received(cx, line, &keeping, keeper, working).await?;
        if seen.digests.spaces.iter().any(|at| *at >= before.until) {
            return Err(unfollowable(
                "follow the log: a tablespace was made, and its replay needs its place",
            ));
        }
        let mut log = prior.log();
        log.extend(seen.digests.own);
        let mut settings = cluster.settings.clone();
        raise(&mut settings, before.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        raise_to(&mut settings, &seen.digests.settings);
        let physical = PhysicalFacts {
            last: seen.moment.last.0,
            until: seen.moment.last.1,
            settings,
            log,
            since: Some(prior.since()),
            between: None,
            others: BTreeMap::new(),
            unseen: unseen.iter().map(|(name, _)| name.clone()).collect(),
            ..before.clone()
        };
        let released = Some(prior.released(system));
        let captured =
            self.measured(cx, rooms, cluster, Vec::new(), seen.moment, physical, to, seen.began).await?;
        Ok(Captured { released, ..captured })
    }

    /// The end of the copy: snapshots of all databases, and the log ended at the position that shows the same.
    async fn witnessed(
        &self,
        cx: &Cx,
        rooms: &[Room],
        cluster: &Cluster,
        consistent: Lsn,
        log: &mut Log,
    ) -> Result<Seen, DriverError> {
        cx.phase("witness");
        let began = std::time::Instant::now();
        let moment = self.moment(cx, rooms, cluster, consistent, log).await?;
        let until = moment.last.1;
        let digests = log.ask(cx, |answer| Task::Finish(until, answer)).await?;
        Ok(Seen { moment, digests, began })
    }

    /// Of which instant a standby's content is; nothing of a primary, which is of now.
    async fn dated(
        &self,
        cx: &Cx,
        session: &Session,
        cluster: &Cluster,
    ) -> Result<Option<standby::Dated>, DriverError> {
        if !cluster.on_standby {
            return Ok(None);
        }
        let Some(said) = standby::read(cx, session).await? else { return Ok(None) };
        let dated = standby::dated(&said, &printable(&self.spec.database));
        dated.map(Some).map_err(|undated| undated.refusal("date what the standby holds"))
    }

    /// Snapshots of all databases that show the same, and that the log has a position for; held by their sessions.
    async fn moment(
        &self,
        cx: &Cx,
        rooms: &[Room],
        cluster: &Cluster,
        consistent: Lsn,
        log: &mut Log,
    ) -> Result<Moment, DriverError> {
        let here =
            if cluster.on_standby { "pg_last_wal_replay_lsn()" } else { "pg_current_wal_insert_lsn()" };
        let here = format!("SELECT ({here})::text, pg_current_snapshot()::text");
        let view = view();
        let keeper = &rooms.first().ok_or_else(|| ended_early("hold a snapshot"))?.session;
        let place = async |what: &str| -> Result<(Lsn, Shown), DriverError> {
            let row = keeper.row(cx, what, &here).await?;
            Ok((parsed(&row, 0)?, parsed(&row, 1)?))
        };
        let mut last_unfit = Unfit::NoRecord;
        let mut attempts = 0;
        while attempts < ATTEMPTS_MAX {
            // A standby may not have replayed yet what makes the backup consistent.
            let (mut watched, mut earlier) = place("ask how far the log goes").await?;
            while watched < consistent {
                cx.run(tokio::time::sleep(Duration::from_millis(20))).await?;
                (watched, earlier) = place("ask how far the log goes").await?;
            }
            // What comes after this is held back: everything before it must have gone into the copy.
            log.catches_up(cx, written(watched, cluster.segment)).await?;
            log.ask(cx, |answer| Task::Watch(watched, answer)).await?;
            let mut held = Vec::new();
            for room in rooms {
                let objects = catalog::objects(cx, &room.session, &view).await?;
                let sequences = measure::sequences(cx, &room.session, &view).await?;
                held.push(Held { objects, sequences, exported: String::new() });
            }
            let (since, _) = place("ask how far the log goes").await?;
            loop {
                attempts += 1;
                // Before everything else: what is taken afterwards holds at least what this says.
                let dated = self.dated(cx, keeper, cluster).await?;
                let (before, _) = place("ask how far the log goes").await?;
                for room in rooms {
                    room.session
                        .execute(cx, "begin", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                        .await?;
                }
                // All at once. A statement's own timestamp precedes its snapshot, so nothing older than it is missing from the copy.
                let rows = futures::future::try_join_all(rooms.iter().map(|room| {
                    room.session.row(
                        cx,
                        "take a snapshot",
                        "SELECT pg_current_snapshot()::text, \
                         to_char(statement_timestamp(), 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
                    )
                }))
                .await?;
                let mut taken = Vec::new();
                for row in &rows {
                    taken.push((text(row, 0)?, text(row, 1)?));
                }
                let are_one = taken.windows(2).all(|pair| pair[0].0 == pair[1].0);
                let (shown, at) =
                    taken.into_iter().min_by(|one, other| one.1.cmp(&other.1)).unwrap_or_default();
                let shown: Shown = shown.parse().map_err(|error: moment::ShownError| {
                    DriverError::new(ErrorKind::Corrupt, "read a snapshot").because(error)
                })?;
                let (reached, _) = place("ask how far the log goes").await?;
                log.reaches(cx, written(reached, cluster.segment)).await?;
                let found = match log.ask(cx, Task::Read).await? {
                    Err(Overtaken) => None,
                    Ok(_) if !are_one => Some(Err(Unfit::NotOne)),
                    Ok(read) if cluster.on_standby => Some(moment::last_replayed(&read, before, reached)),
                    Ok(read) => {
                        let running = shown.running_since(&earlier);
                        let unknown = moment::unknown(&read, &shown, &running);
                        let settled = self.is_settled(cx, keeper, &unknown).await?;
                        match moment::last_record(&shown, &read, since, reached) {
                            Ok(_) if !settled => Some(Err(Unfit::OutOfOrder)),
                            found => Some(found),
                        }
                    }
                };
                if let Some(Ok(last)) = found
                    && last.1 >= consistent
                {
                    for (room, held) in rooms.iter().zip(&mut held) {
                        let row = room.session.row(cx, "export the snapshot", "SELECT pg_export_snapshot()");
                        held.exported = text(&row.await?, 0)?;
                    }
                    let clock = at.parse().map_err(|error: jiff::Error| {
                        DriverError::new(ErrorKind::Corrupt, format!("read the server's clock `{at}`"))
                            .because(error)
                    })?;
                    // The clock of a standby goes on when nothing reaches it any more.
                    let (at, behind) = dated.map_or((clock, None), |dated| (dated.point, dated.finding));
                    let snapshot =
                        SnapshotFacts { at, lsn: last.1.to_string(), on_standby: cluster.on_standby };
                    return Ok(Moment { last, snapshot, held, attempts, behind });
                }
                for room in rooms {
                    room.session.execute(cx, "let go of the snapshot", "ROLLBACK").await?;
                }
                match found {
                    Some(Err(error)) => last_unfit = error,
                    Some(Ok(_)) => last_unfit = Unfit::NoRecord,
                    // What is held back has become too much: begin anew from here.
                    None => break,
                }
                if attempts >= ATTEMPTS_MAX || last_unfit == Unfit::TooEarly {
                    break;
                }
            }
        }
        Err(unfit(last_unfit))
    }

    /// Whether transactions that were running all the time, and of which no end was read, run on. One that has ended has ended before
    /// what was read; and one that waits for a standby may have written its end long before.
    async fn is_settled(
        &self,
        cx: &Cx,
        session: &Session,
        unknown: &BTreeSet<u64>,
    ) -> Result<bool, DriverError> {
        if unknown.is_empty() {
            return Ok(true);
        }
        let numbers: Vec<String> = unknown.iter().map(u64::to_string).collect();
        let sql = format!(
            "SELECT (SELECT bool_and(coalesce(pg_xact_status(x::xid8) = 'in progress', false)) \
             FROM unnest(ARRAY['{}']) x)::text, (current_setting('synchronous_standby_names') = '')::text",
            numbers.join("','")
        );
        let row = session.row(cx, "ask which transactions run on", &sql).await?;
        Ok(flag(&row, 0)? && flag(&row, 1)?)
    }

    /// What one database holds, measured in the snapshot that its session holds.
    async fn database(
        &self,
        cx: &Cx,
        room: &Room,
        held: Held,
        server: &ServerFacts,
        snapshot: &SnapshotFacts,
    ) -> Result<(PostgresWitness, Vec<Finding>, usize), DriverError> {
        let (view, session) = (view(), &room.session);
        let database = globals::database(cx, session).await?;
        let globals = Globals::read(cx, session, database.clone()).await?;
        let tables = measure::tables(cx, session, &view, Beside::Others).await?;
        let findings = flaws(cx, session, &view).await?;
        let measured = self.measure(cx, &room.address, &held.exported, session, &tables).await?;
        let sequences = measure::sequences(cx, session, &view).await?;
        let after = catalog::objects(cx, session, &view).await?;
        session.execute(cx, "end the snapshot", "COMMIT").await?;
        let (objects, changed) = capture::both_forms(held.objects, &after);
        let witness = PostgresWitness {
            version: VERSION,
            snapshot: snapshot.clone(),
            scope: Scope {
                dump_version: String::new(),
                dump_options: Vec::new(),
                exclude_schemas: Vec::new(),
                exclude_tables: Vec::new(),
                notes: Vec::new(),
            },
            tables: measured.rows,
            objects,
            sequences: ahead(capture::brackets(held.sequences, sequences)),
            large_objects: measured.large_objects,
            roles: globals.role_digests(),
            settings: globals.setting_digests(),
            may_be_empty: true,
            beside: BTreeMap::new(),
            physical: None,
            database,
            server: server.clone(),
        };
        Ok((witness, findings, changed))
    }

    /// The witness, measured in the snapshots that the sessions hold.
    #[expect(clippy::too_many_arguments, reason = "one call, split off for its length")]
    async fn measured(
        &self,
        cx: &Cx,
        rooms: &[Room],
        cluster: Cluster,
        mut findings: Vec<Finding>,
        moment: Moment,
        mut physical: PhysicalFacts,
        to: Arc<dyn CopyWriter>,
        began: std::time::Instant,
    ) -> Result<Captured, DriverError> {
        findings.extend(moment.behind.clone());
        let mut notes = vec!["rows of unlogged tables do not survive a recovery".to_owned()];
        let log = physical.log.len() as u64 * physical.segment_bytes.bytes();
        let files = physical.base.as_ref().map_or(0, |base| base.bytes);
        if let Some(base) = physical.base.as_ref().filter(|base| base.at != moment.snapshot.at) {
            notes.push(format!("the base backup is that of {}; the rest is log", base.at));
        }
        let mut own = None;
        let mut changed = 0;
        for (room, held) in rooms.iter().zip(moment.held) {
            let measured = self.database(cx, room, held, &cluster.server, &moment.snapshot).await?;
            let (witness, flawed, forms) = measured;
            changed += forms;
            if own.is_none() {
                findings.extend(flawed);
                own = Some(witness);
                continue;
            }
            let name = &room.address.database;
            findings.extend(flawed.into_iter().map(|mut finding| {
                finding.subject = format!("{}: {}", printable(name), finding.subject);
                finding
            }));
            physical.others.insert(name.clone(), witness);
        }
        let mut witness = own.ok_or_else(|| ended_early("measure the database"))?;
        if changed > 0 {
            notes.push(format!("{changed} definitions changed meanwhile and have two lawful forms"));
        }
        if moment.attempts > 1 {
            notes.push(format!(
                "{} snapshots were taken until the log had a position for one",
                moment.attempts
            ));
        }
        witness.scope.notes = notes;
        witness.may_be_empty = self.spec.may_be_empty;
        witness.physical = Some(physical);
        findings.extend(witness.plausibility());
        let readme = readme(&witness);
        witness.beside.insert(README.to_owned(), sha256(readme.as_bytes()));
        let task = tokio::task::spawn_blocking(move || to.put(&named(README)?, readme.as_bytes()));
        task.await
            .map_err(|error| DriverError::new(ErrorKind::Other, "store the readme").because(error))??;
        Ok(Captured {
            point: witness.snapshot.at,
            size_bytes: files + log,
            witness: Witness::Postgres(Box::new(witness)),
            findings,
            is_complete: true,
            witness_took: began.elapsed(),
            released: None,
        })
    }
}

/// What must have arrived before everything in front of `position` has: a server counts the header of a page to its position before
/// it writes the page.
fn written(position: Lsn, segment: SegmentSize) -> Lsn {
    let (in_segment, in_page) = (position.0 % segment.bytes(), position.0 % PAGE_BYTES);
    let header = if in_segment == in_page { LONG_HEADER } else { SHORT_HEADER };
    if in_page <= header { Lsn(position.0 - in_page) } else { position }
}

/// What of a database is looked at, here and in what was restored.
pub(super) fn view() -> View {
    View { with_invalid_indexes: true, without_unlogged: true, ..View::default() }
}

/// A recovered sequence stands where the log says, which is ahead of what was handed out.
fn ahead(brackets: BTreeMap<String, SequenceBracket>) -> BTreeMap<String, SequenceBracket> {
    brackets
        .into_iter()
        .map(|(name, mut bracket)| {
            let forward = bracket.increment.saturating_mul(SEQUENCE_AHEAD);
            bracket.after = SequencePosition {
                last_value: bracket.after.last_value.saturating_add(forward),
                is_called: true,
            };
            (name, bracket)
        })
        .collect()
}

fn readme(witness: &PostgresWitness) -> String {
    let Some(physical) = &witness.physical else { return String::new() };
    let spaces: String = physical
        .tablespaces
        .iter()
        .map(|(oid, place)| format!("tablespaces/{oid}  goes to {}\n", printable(place)))
        .collect();
    let since = physical.base.as_ref().filter(|base| base.at != witness.snapshot.at).map_or_else(String::new, |base| {
        format!(
            "It can be recovered to any moment since {}: before its start, make data/recovery.signal, and write into\n\
             data/postgresql.auto.conf restore_command = 'false' and recovery_target_time = '...+00'.\n\n",
            base.at
        )
    });
    let between = physical.between.as_ref().map_or_else(String::new, |between| {
        format!(
            "log-between/ the log since the copy of {}: with it in that copy's data/pg_wal, and the log of this one,\n\
             \x20            that copy is recovered to any moment up to this one\n",
            between.since
        )
    });
    format!(
        "A PostgreSQL {} cluster as of {}, system {}, timeline {}, to {}.\n{since}\n\
         data/        its data directory: put it into place, owned by the server's user, mode 0700, and start\n\
         \x20            the server. It recovers to the end of the log in data/pg_wal, which is the end of the copy.\n\
         {spaces}{between}\n\
         pg_verifybackup -n data          compares the files with the server's own manifest\n",
        witness.server.version,
        witness.snapshot.at,
        witness.server.system_identifier,
        physical.timeline,
        physical.until
    )
}

/// Puts the files of a base backup into the copy as they come.
async fn base(
    cx: &Cx,
    backup: &mut super::replication::BaseBackup<'_>,
    to: Arc<dyn CopyWriter>,
    from: Lsn,
    has_checksums: bool,
) -> Result<Based, DriverError> {
    let (events, mut inbox) = mpsc::channel::<Event>(QUEUE);
    let storing = tokio::task::spawn_blocking(move || {
        let mut sink = Sink::new(to, from, has_checksums);
        while let Some(event) = inbox.blocking_recv() {
            match event {
                Event::Archive(space) => sink.archive(space)?,
                Event::Data(bytes) => sink.data(&bytes)?,
                Event::Manifest => sink.manifest()?,
                Event::Ended(ended) => return sink.finish().map(|stored| Some(Based { stored, ended })),
            }
        }
        // Whoever sent has been stopped, and says so.
        Ok::<_, DriverError>(None)
    });
    let mut done = 0;
    let sent = async {
        loop {
            let Some(event) = backup.next(cx).await? else { return Ok(()) };
            if let Event::Data(bytes) = &event {
                done += bytes.len() as u64;
                cx.progress(Progress::Bytes { done, total: None });
            }
            let is_end = matches!(event, Event::Ended(_));
            // It takes nothing any more only after an error, which it tells itself.
            if cx.run(events.send(event)).await?.is_err() || is_end {
                return Ok(());
            }
        }
    }
    .await;
    drop(events);
    let stored = storing
        .await
        .map_err(|error| DriverError::new(ErrorKind::Other, "store the base backup").because(error))?;
    match (sent, stored) {
        (_, Err(error)) | (Err(error), Ok(_)) => Err(error),
        (Ok::<(), DriverError>(()), Ok(Some(based))) => Ok(based),
        (Ok(()), Ok(None)) => Err(ended_early("store the base backup")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_a_page_that_is_not_written_is_not_waited_for() {
        let segment = SegmentSize::USUAL;
        for (position, until) in [
            (0x300_0028, 0x300_0000),
            (0x300_0000, 0x300_0000),
            (0x300_0029, 0x300_0029),
            (0x300_2018, 0x300_2000),
            (0x300_2020, 0x300_2020),
            (0x300_2019, 0x300_2019),
            (0x300_3ff8, 0x300_3ff8),
        ] {
            assert_eq!(written(Lsn(position), segment), Lsn(until), "{position:x}");
        }
    }
}
