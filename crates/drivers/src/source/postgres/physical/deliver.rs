//! A cluster for people, recovered by its own server to the end of a copy or to a moment before it: a directory that is ready to start.
//!
//! The log is fetched first and read whole. Where the moment is not in it, nothing else is fetched. Where it is, the log is ended behind
//! the record that is the last one of it, so that no setting that somebody leaves out can take the server farther; and the server is
//! told to recover to that record, and to go on upon a timeline of its own, so that what it writes is never taken for the source's.
//!
//! Or it is made a standby: all of the log that there is is put into place, and the server asks its primary, or the repository, for the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use seaworthy_interface::copy::{Restoring, Written};
use seaworthy_interface::{
    CopyPath, CopyReader, Cx, Delivered, DriverError, ErrorKind, Following, HeldPiece, Journal, Opening,
};
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::id::Digest;
use seaworthy_model::signature::sha256;
use seaworthy_model::wal::{Lsn, Segment, Target, WalFile};
use seaworthy_model::witness::postgres::{PostgresWitness, printable};
use seaworthy_model::witness::{PhysicalFacts, PhysicalSeen};

use super::super::restore::blocking;
use super::super::wal::page::{self, Expected, Link};
use super::super::wal::stop::{NoStop, Search};
use super::super::wal::transaction;
use super::restore::{physical_of, remap, removed, stopping, written};
use super::stream::{bytes_of, complete_at, of_history, without_hole};
use super::{BETWEEN, DATA, SPACES, data_path, in_data, log_path, named, space_path, verify};

/// The log while it is looked through, beside the data directory.
pub(super) const LOG: &str = "log";
/// What a data directory must not say of itself when its server starts anew.
const SILENCED: &[&str] = &["standby.signal", "recovery.signal", "postmaster.pid", "postmaster.opts"];
/// Settings that a standby must not have lower than its primary, which the log tells when they change (`xl_parameter_change` of
/// `src/include/access/xlog_internal.h`).
const RAISED: &[&str] = &[
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
];
/// Settings that would speak for another recovery.
const RECOVERY: &[&str] = &[
    "recovery_target",
    "restore_command",
    "recovery_end_command",
    "archive_cleanup_command",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "hot_standby =",
];
/// Longest file of settings that a server writes by itself.
const SETTINGS_BYTES_MAX: u64 = 1 << 20;

/// A copy, and where its bytes come from.
pub(in super::super) type Copy = (PostgresWitness, Arc<dyn CopyReader>);

fn refused(what: String) -> DriverError {
    DriverError::new(ErrorKind::Refused, what).code(FindingCode::ObjectMissing)
}

/// Joins the logs of copies that follow one another.
pub(super) fn chain(copies: &[Copy]) -> Result<PhysicalFacts, DriverError> {
    let (first, behind) =
        copies.split_first().ok_or_else(|| DriverError::new(ErrorKind::Other, "restore no copy"))?;
    let mut facts = PhysicalFacts { between: None, ..physical_of(&first.0)?.clone() };
    for (witness, _) in behind {
        let next = physical_of(witness)?;
        let between = next.between.as_ref().filter(|between| {
            between.from == facts.until
                && next.timeline == facts.timeline
                && next.segment_bytes == facts.segment_bytes
                && witness.server.system_identifier == first.0.server.system_identifier
        });
        let between = between.ok_or_else(|| {
            refused(format!(
                "join the log up to {} with that of the copy of {}",
                facts.until, witness.snapshot.at
            ))
            .hint("the copies do not adjoin: some log between them is in neither")
        })?;
        for (name, digest) in between.log.iter().chain(&next.log) {
            facts.log.insert(name.clone(), digest.clone());
        }
        (facts.last, facts.until) = (next.last, next.until);
        super::raise(
            &mut facts.settings,
            next.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())),
        );
    }
    Ok(facts)
}

/// Fetches the logs of all copies into one directory: of files that several hold, the last one's, which is the fullest.
fn fetch_log(copies: &[Copy], root: &Path, log: &BTreeMap<String, Digest>) -> Result<(), DriverError> {
    let into = root.join(LOG);
    std::fs::create_dir(&into).map_err(|error| DriverError::io("make a directory for the log", error))?;
    let part = root.join("log.part");
    for (index, (witness, from)) in copies.iter().enumerate() {
        let facts = physical_of(witness)?;
        let mut parts = vec![(in_data("pg_wal")?, &facts.log)];
        if let Some(between) = facts.between.as_ref().filter(|between| index > 0 && !between.log.is_empty()) {
            parts.insert(0, (named(BETWEEN)?, &between.log));
        }
        for (under, names) in parts {
            let unneeded = names.keys().filter(|name| !log.contains_key(*name));
            let left_out = unneeded
                .map(|name| under.join(name))
                .collect::<Option<_>>()
                .ok_or_else(|| DriverError::new(ErrorKind::Other, "name a file of the log"))?;
            from.restore(&under, &part, &Restoring { left_out, ..Restoring::default() })?;
            for name in names.keys().filter(|name| log.contains_key(*name)) {
                // What is missing is told when the log is read.
                match std::fs::rename(part.join(name), into.join(name)) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(DriverError::io(format!("put {name} into the log"), error));
                    }
                    Ok(()) | Err(_) => {}
                }
            }
            std::fs::remove_dir_all(&part)
                .map_err(|error| DriverError::io("remove what is not needed", error))?;
        }
    }
    Ok(())
}

/// Ends the log behind a position.
pub(super) fn cut(log: &Path, facts: &mut PhysicalFacts, until: Lsn) -> Result<(), DriverError> {
    let size = facts.segment_bytes;
    let inside = Segment::of(facts.timeline, Lsn(until.0.saturating_sub(1)), size);
    let last = inside.name(size);
    let failed = |error| DriverError::io("end the log", error);
    for name in facts.log.keys().filter(|name| name.len() == last.len() && **name > last) {
        std::fs::remove_file(log.join(name)).map_err(failed)?;
    }
    let file = std::fs::OpenOptions::new().write(true).open(log.join(&last)).map_err(failed)?;
    // Shortened and made long again: what was behind it is zeros now.
    file.set_len(until.0 - inside.start(size).0).map_err(failed)?;
    file.set_len(size.bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    facts.log.retain(|name, _| name.len() != last.len() || *name <= last);
    Ok(())
}

/// What was found in a journal behind the copies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tail {
    /// Up to when nothing is missing, by the server's clock; unknown where the journal does not say.
    complete_at: Option<Timestamp>,
    /// Where more of it begins that does not adjoin: something is missing before.
    beyond: Option<Lsn>,
}

/// Puts what the journal keeps behind the copies into the log.
fn tail(
    journal: &dyn Journal,
    log: &Path,
    facts: &mut PhysicalFacts,
    system: u64,
    copy: Timestamp,
) -> Result<Tail, DriverError> {
    let size = facts.segment_bytes;
    let failed = |error| DriverError::io("put the journal's log into place", error);
    let begin = Segment::of(facts.timeline, Lsn(facts.until.0.saturating_sub(1)), size);
    let held = of_history(journal.held()?, Some(copy));
    let (pieces, end) = without_hole(&held, system, facts.timeline, facts.until);
    let is_beyond = |piece: &&HeldPiece| {
        piece.of.system == system && piece.of.timeline == facts.timeline && piece.of.from > end
    };
    let beyond = held.iter().filter(is_beyond).map(|piece| piece.of.from).min();
    if end <= facts.until {
        return Ok(Tail { complete_at: complete_at(&held, system, facts.timeline, facts.until), beyond });
    }
    let mut segment = begin;
    let mut bytes = std::fs::read(log.join(begin.name(size))).map_err(failed)?;
    bytes.truncate(usize::try_from(facts.until.0 - begin.start(size).0).unwrap_or(usize::MAX));
    let mut link = Link::default();
    let mut last = (facts.last, facts.until);
    let mut whole = |segment: Segment, bytes: &mut Vec<u8>, is_last: bool| -> Result<(), DriverError> {
        let come = Lsn(segment.start(size).0 + bytes.len() as u64);
        bytes.resize(usize::try_from(size.bytes()).unwrap_or(usize::MAX), 0);
        let expected = Expected { segment, size, system: Some(system) };
        // A record may be longer than a file, and not all of it have come.
        let first = page::first_record(bytes, segment.start(size));
        let walked = page::walk_telling(bytes, &expected, &link, &mut |record| {
            last = (record.at, record.end);
            if let Some(seen) = transaction::settings(record.bytes) {
                super::raise_to(&mut facts.settings, &seen);
            }
        });
        match walked {
            Ok(walked) => link = walked.link,
            // What is behind the last whole record has not all come yet.
            Err(_) if is_last && page::ends_before(bytes, segment.start(size), last.1.max(first), come) => {}
            Err(wrong) => {
                return Err(DriverError::new(
                    ErrorKind::Corrupt,
                    format!("read the journal: {}: {wrong}", segment.name(size)),
                )
                .code(FindingCode::Corruption)
                .hint("a moment before it can be restored"));
            }
        }
        let name = segment.name(size);
        facts.log.insert(name.clone(), sha256(bytes));
        std::fs::write(log.join(name), &*bytes).map_err(failed)?;
        bytes.clear();
        Ok(())
    };
    bytes_of(journal, &pieces, facts.until, end, &mut |mut piece| {
        while !piece.is_empty() {
            let room = usize::try_from(size.bytes()).unwrap_or(usize::MAX) - bytes.len();
            bytes.extend_from_slice(&piece.split_to(room.min(piece.len())));
            if bytes.len() as u64 == size.bytes() {
                whole(segment, &mut bytes, false)?;
                segment = Segment::of(segment.timeline, segment.end(size), size);
            }
        }
        Ok(())
    })?;
    if !bytes.is_empty() {
        whole(segment, &mut bytes, true)?;
    }
    (facts.last, facts.until) = last;
    // Files that hold nothing but the beginning of a record that has not all come.
    facts.log.retain(|name, _| match WalFile::parse(name, size) {
        Ok(WalFile::Segment(segment)) => segment.start(size) < facts.until,
        _ => true,
    });
    Ok(Tail { complete_at: complete_at(&held, system, facts.timeline, end), beyond })
}

/// The first thing that is wrong, as an error: a server would start on it, and say that all is well.
fn sound(seen: &PhysicalSeen, root: &Path) -> Result<(), DriverError> {
    let wrong: Vec<&Finding> =
        [&seen.log_wrong, &seen.files_wrong, &seen.pages_wrong].into_iter().flatten().collect();
    let Some(first) = wrong.first() else { return Ok(()) };
    Err(DriverError::new(
        ErrorKind::Corrupt,
        format!(
            "restore the base backup: {}: {} ({} things are wrong with it)",
            first.subject,
            first.detail,
            wrong.len()
        ),
    )
    .code(first.code)
    .hint(format!("restore from another copy; what came of this one is left in {}", root.display())))
}

/// A value as the server's configuration reads it.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// What a standby is told; whatever else its files say of recovery is without effect.
fn following(facts: &PhysicalFacts, words: &str, how: &Following) -> String {
    let mut text = format!("# {words}, as a standby.\n");
    let value = |value: &Option<String>| quoted(value.as_deref().unwrap_or_default());
    text.push_str(&format!(
        "primary_conninfo = {}\nprimary_slot_name = {}\nrestore_command = {}\nrecovery_target_timeline = 'latest'\n",
        value(&how.primary),
        value(&how.slot),
        value(&how.fetch)
    ));
    for name in ["", "_name", "_time", "_xid", "_lsn"] {
        text.push_str(&format!("recovery_target{name} = ''\n"));
    }
    // What it does not need is still another's, as long as that one lives.
    text.push_str("archive_cleanup_command = ''\nrecovery_end_command = ''\nhot_standby = 'on'\n");
    for (name, value) in &facts.settings {
        if RAISED.contains(&name.as_str()) {
            text.push_str(&format!("{name} = {}\n", quoted(value)));
        }
    }
    text
}

/// What a server is told that recovers and opens.
fn alone(facts: &PhysicalFacts, stop: (Lsn, Lsn), words: &str) -> String {
    format!(
        "# {words}. These lines are without effect once the server has opened.\n\
         restore_command = '/bin/false'\n\
         recovery_target_timeline = '{}'\n\
         recovery_target_lsn = '{}'\n\
         recovery_target_inclusive = 'on'\n\
         recovery_target_action = 'promote'\n\
         # So that settings that are smaller than the source's do not hold it up.\n\
         hot_standby = 'off'\n",
        facts.timeline, stop.0
    )
}

/// Tells the server how far to recover, or whom to follow.
fn settings(data: &Path, own: &str, signal: &str) -> Result<(), DriverError> {
    let path = data.join("postgresql.auto.conf");
    let known = match std::fs::metadata(&path) {
        Ok(meta) if meta.len() > SETTINGS_BYTES_MAX => {
            return Err(DriverError::new(ErrorKind::Corrupt, "read postgresql.auto.conf: it is too long")
                .code(FindingCode::LimitExceeded));
        }
        Ok(_) => std::fs::read_to_string(&path)
            .map_err(|error| DriverError::io("read postgresql.auto.conf", error))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(DriverError::io("read postgresql.auto.conf", error)),
    };
    let is_of_recovery = |line: &&str| {
        let name = line.trim_start().to_ascii_lowercase();
        RECOVERY.iter().any(|setting| name.starts_with(setting))
    };
    let mut text: String =
        known.lines().filter(|line| !is_of_recovery(line)).map(|line| format!("{line}\n")).collect();
    text.push_str(own);
    removed(&path)?;
    written(&path, &text, 0o600)?;
    for name in SILENCED {
        removed(&data.join(name))?;
    }
    written(&data.join(signal), "", 0o600)
}

/// Restores a cluster into an empty directory for people: ready to start.
pub(in super::super) async fn deliver(
    cx: &Cx,
    copies: &[Copy],
    journal: Option<Arc<dyn Journal>>,
    root: &Path,
    until: &Target,
    opening: &Opening,
) -> Result<Delivered, DriverError> {
    if matches!(opening, Opening::Standby(_)) && *until != Target::Latest {
        return Err(DriverError::new(ErrorKind::Refused, format!("make a standby that stops at {until}"))
            .hint("a standby goes on to what its primary writes: leave the moment out"));
    }
    let mut facts = chain(copies)?;
    let of_copies = facts.until;
    let (witness, from) =
        copies.first().ok_or_else(|| DriverError::new(ErrorKind::Other, "restore no copy"))?;
    let place = root.to_path_buf();
    blocking(cx, move || {
        let failed = |error| DriverError::io(format!("make {}", place.display()), error);
        std::fs::create_dir_all(&place).map_err(failed)?;
        if std::fs::read_dir(&place).map_err(failed)?.next().is_some() {
            return Err(DriverError::new(
                ErrorKind::Conflict,
                format!("restore to {}: it holds something", place.display()),
            )
            .code(FindingCode::LiveTarget)
            .hint("name a directory that does not exist or is empty; a live one is never written to"));
        }
        Ok(())
    })
    .await?;
    cx.phase("log");
    let found = look(cx, copies, journal, root, &mut facts, until).await;
    let (seen, beyond, stop) = match found {
        Ok(Looked { seen, beyond, stop: Ok(stop), .. }) => (seen, beyond, stop),
        refusal => {
            // Nothing but the log is there: the place is as empty as it was.
            let place = root.join(LOG);
            blocking(&Cx::unbounded(), move || {
                for path in [place.clone(), place.with_extension("part")] {
                    match std::fs::remove_dir_all(&path) {
                        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                            return Err(DriverError::io("remove the log", error));
                        }
                        Ok(()) | Err(_) => {}
                    }
                }
                Ok(())
            })
            .await?;
            let known = format!(
                "the log is there from {}, consistent from {} on, to {} ({})",
                facts.from,
                facts.consistent,
                facts.until,
                copies.last().map_or(witness.snapshot.at, |(last, _)| last.snapshot.at)
            );
            return Err(match refusal {
                Err(error) => error,
                Ok(looked) => {
                    let why = looked.stop.err().unwrap_or(NoStop::Nothing);
                    DriverError::new(ErrorKind::Refused, format!("restore to {until}: {why}"))
                        .code(FindingCode::RecoveryEnded)
                        .hint(known)
                }
            });
        }
    };
    sound(&seen, root)?;
    let is_all = stop.1 == facts.until && stop.1 == of_copies;
    let (place, mut kept, end) = (root.join(LOG), facts.clone(), stop.1);
    facts = blocking(cx, move || {
        if stop.1 < kept.until {
            cut(&place, &mut kept, end)?;
        }
        Ok(kept)
    })
    .await?;
    cx.phase("fetch");
    let done = fetch(cx, physical_of(witness)?, from, root).await?;
    cx.phase("verify");
    put_into_place(cx, root, &facts).await?;
    let rest = PhysicalFacts { log: BTreeMap::new(), ..facts.clone() };
    let (place, stopped) = (root.to_path_buf(), stopping(cx));
    let files = blocking(cx, move || verify::verify(&place, &rest, &stopped)).await?;
    sound(&files, root)?;
    let words = if is_all {
        format!("Restored by seaworthy to the end of the copy, {}", facts.until)
    } else {
        format!("Restored by seaworthy to {until}, which is {} in the log", stop.1)
    };
    let (place, kept) = (root.to_path_buf(), facts.clone());
    let said = printable(&words);
    let (own, signal) = match opening {
        Opening::Alone => (alone(&facts, stop, &said), "recovery.signal"),
        Opening::Standby(how) => (following(&facts, &said, how), "standby.signal"),
    };
    blocking(cx, move || {
        let data = place.join(DATA);
        settings(&data, &own, signal)?;
        remap(&place, &kept)?;
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(&data, private)
            .map_err(|error| DriverError::io("make the data directory private", error))
    })
    .await?;
    let data = root.join(DATA);
    let to = if is_all { stop.1.to_string() } else { format!("{until} ({})", stop.1) };
    Ok(Delivered {
        written: Written {
            files: done.files + facts.log.len() as u64,
            bytes: done.bytes + facts.log.len() as u64 * facts.segment_bytes.bytes(),
        },
        summary: format!(
            "PostgreSQL {} cluster {} to {to}; give {} to the server's user and start it: pg_ctl -D {} start; {}",
            witness.server.version,
            witness.server.system_identifier,
            root.display(),
            data.display(),
            match opening {
                Opening::Alone => "it recovers to there and opens on a timeline of its own",
                Opening::Standby(_) =>
                    "it recovers to there and follows on; look how far behind it is: SELECT pg_last_xact_replay_timestamp()",
            }
        ),
        findings: beyond
            .filter(|_| stop.1 == facts.until)
            .map(|at| hole(facts.until, at))
            .into_iter()
            .collect(),
    })
}

/// The log goes on behind something that is missing.
fn hole(from: Lsn, to: Lsn) -> Finding {
    Finding::new(
        FindingCode::MomentMissed,
        "log",
        format!("it ends at {from}; more of it is kept from {to} on, and what lies between is not"),
    )
}

/// What was found in the log.
pub(super) struct Looked {
    /// What is wrong with it.
    pub(super) seen: PhysicalSeen,
    /// Where more of it begins behind something that is missing.
    pub(super) beyond: Option<Lsn>,
    /// Up to when it is known, by the source's clock.
    pub(super) known: Timestamp,
    /// When the last transaction ended that is before the moment.
    pub(super) last: Option<Timestamp>,
    /// The record at which the moment is: where it begins, and where it ends.
    pub(super) stop: Result<(Lsn, Lsn), NoStop>,
}

/// Where the moment is in the log, which comes to lie in [`LOG`]; and what is wrong with the log.
pub(super) async fn look(
    cx: &Cx,
    copies: &[Copy],
    journal: Option<Arc<dyn Journal>>,
    root: &Path,
    facts: &mut PhysicalFacts,
    until: &Target,
) -> Result<Looked, DriverError> {
    let (all, place, log) = (copies.to_vec(), root.to_path_buf(), facts.log.clone());
    blocking(cx, move || fetch_log(&all, &place, &log)).await?;
    let newest = copies.last().map_or(Timestamp::MIN, |(witness, _)| witness.snapshot.at);
    // A moment within the copies needs nothing of what came behind them.
    let is_behind = match until {
        Target::Time(time) => *time > newest,
        Target::Position(position) => *position >= facts.until,
        Target::Transaction(_) | Target::Name(_) | Target::Latest => true,
        Target::Immediate => false,
    };
    let system = copies.first().and_then(|(witness, _)| witness.server.system_identifier.parse().ok());
    let (mut known, mut beyond) = (newest, None);
    if let (Some(journal), Some(system), true) = (journal, system, is_behind) {
        let (place, mut longer) = (root.join(LOG), facts.clone());
        let (longer, told) = blocking(cx, move || {
            let told = tail(&*journal, &place, &mut longer, system, newest)?;
            Ok((longer, told))
        })
        .await?;
        *facts = longer;
        known = told.complete_at.map_or(known, |at| at.max(known));
        beyond = told.beyond;
    }
    // A time may be reached by a transaction behind it, or by knowing that there was none: not by the end of what was received.
    let is_known = !matches!(until, Target::Time(time) if *time > known);
    let (place, facts, stopped) = (root.join(LOG), facts.clone(), stopping(cx));
    let mut search = Search::new(until.clone(), facts.consistent);
    blocking(cx, move || {
        let mut seen = PhysicalSeen::default();
        let files = facts.log.iter().map(|(name, digest)| (place.join(name), name, digest));
        verify::log(files, facts.segment_bytes, facts.until, &stopped, &mut seen, &mut |record| {
            if record.at >= facts.from {
                search.see(record);
            }
        })?;
        if let Some(first) = seen.log_wrong.first() {
            return Err(DriverError::new(
                ErrorKind::Corrupt,
                format!("read the log: {}: {}", first.subject, first.detail),
            )
            .code(first.code)
            .hint("restore from another copy"));
        }
        let last = search.ended().1.map(|(_, last)| last);
        let stop = search.finish(is_known);
        Ok(Looked { seen, beyond, known, last, stop })
    })
    .await
}

/// Puts the log into the data directory.
pub(super) async fn put_into_place(cx: &Cx, root: &Path, facts: &PhysicalFacts) -> Result<(), DriverError> {
    let (place, log) = (root.to_path_buf(), facts.log.clone());
    blocking(cx, move || {
        let failed = |error| DriverError::io("put the log into place", error);
        let directory = place.join(DATA).join("pg_wal");
        for name in log.keys() {
            std::fs::rename(place.join(LOG).join(name), directory.join(name)).map_err(failed)?;
        }
        std::fs::remove_dir(place.join(LOG)).map_err(failed)
    })
    .await
}

/// Where in a data directory, as a server had it, the parts of a copy lie.
pub(in super::super) fn old_places(witness: &PostgresWitness, old: &Path) -> Vec<(CopyPath, PathBuf)> {
    let Some(facts) = &witness.physical else { return Vec::new() };
    let data = data_path().map(|path| (path, old.to_path_buf()));
    // A server reaches a tablespace by a link in there.
    let spaces = facts
        .tablespaces
        .keys()
        .map(|oid| space_path(*oid).map(|path| (path, old.join("pg_tblspc").join(oid.to_string()))));
    std::iter::once(data).chain(spaces).filter_map(Result::ok).collect()
}

/// Fetches data directory and tablespaces, without the log.
pub(super) async fn fetch(
    cx: &Cx,
    own: &PhysicalFacts,
    from: &Arc<dyn CopyReader>,
    root: &Path,
) -> Result<Written, DriverError> {
    let left_out: BTreeSet<CopyPath> =
        own.log.keys().map(|name| log_path(name)).collect::<Result<_, DriverError>>()?;
    let mut parts: Vec<(CopyPath, PathBuf)> = vec![(data_path()?, root.join(DATA))];
    for oid in own.tablespaces.keys() {
        parts.push((space_path(*oid)?, root.join(SPACES).join(oid.to_string())));
    }
    let reader = Arc::clone(from);
    let spaces = (!own.tablespaces.is_empty()).then(|| root.join(SPACES));
    blocking(cx, move || {
        if let Some(spaces) = spaces {
            std::fs::create_dir(&spaces)
                .map_err(|error| DriverError::io("make a directory for tablespaces", error))?;
        }
        let how = Restoring { left_out, ..Restoring::default() };
        let mut done = Written::default();
        for (under, into) in parts {
            let part = reader.restore(&under, &into, &how)?;
            done.files += part.files;
            done.bytes += part.bytes;
        }
        Ok(done)
    })
    .await
}
