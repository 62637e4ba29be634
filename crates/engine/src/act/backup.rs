//! The backup: capture a source into a session of the repository, take the witness in the same snapshot, commit.
//!
//! Order: the source's end is known, the witness is stored, packs are durable, then the index, then the snapshot. Whoever
//! calls this writes the receipt last. Nothing before the snapshot is visible to anybody.

use std::sync::Arc;

use jiff::Timestamp;
use seaworthy_interface::{
    Captured, CopyPath, Cx, DriverError, ErrorKind, HeldPiece, Journal, Released, Source,
};
use seaworthy_model::canonical;
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::id::{CopyId, Digest, RunId, ServiceName, SourceName};
use seaworthy_model::signature::{Envelope, SigningKey, sha256};
use seaworthy_model::wal::Lsn;
use seaworthy_repository::Repository;

use super::{Phase, Stopwatch};
use crate::store::{STATEMENT_PATH, Session, WITNESS_PATH, begin, blocking};

/// What is backed up, and under which names.
#[derive(Debug)]
pub struct BackupRequest {
    /// The run.
    pub run: RunId,
    /// Service.
    pub service: ServiceName,
    /// Source.
    pub source: SourceName,
    /// Host recorded in the snapshot: with the paths it is the identity that restic groups by.
    pub host: String,
    /// Paths recorded in the snapshot: the roots of a tree, `/<service>/<source>` for a stream.
    pub paths: Vec<String>,
    /// `seaworthy 0.1.0`.
    pub program: String,
    /// Identity of what holds the state, where it is known.
    pub source_identity: Option<String>,
    /// Signs the witness, so that a copy can be trusted without the ledger.
    pub key: Arc<SigningKey>,
    /// When it began, by the wall clock.
    pub started: Timestamp,
    /// What is known of the repository.
    pub known: KnownPlace,
}

/// What is known of a repository before a copy is made in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownPlace {
    /// The newest earlier copy of the same source in it that is complete and not known to be bad: a source may build upon it.
    pub earlier: Option<Earlier>,
    /// Whether something that lies in it has been shown to be damaged: then whatever a new copy would rely on is read, and stored again
    /// where it must be.
    pub distrust: bool,
}

/// An earlier copy, as its receipt tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    /// The copy.
    pub copy: CopyId,
    /// Digest of its witness.
    pub witness: Digest,
    /// The newest instant of a copy of the same source in the same repository that was shown to be bad.
    pub newest_bad: Option<Timestamp>,
    /// Identity of the source that it is of; `None` where it is not known.
    pub source_identity: Option<String>,
}

/// What is said of a source that is another system than the one that its newest copy is of; only PostgreSQL's identities are of the
/// system, a file's is of the place where it lies.
pub(crate) fn another_system(
    kind: &str,
    subject: &str,
    earlier: Option<&Earlier>,
    now: Option<&str>,
) -> Option<Finding> {
    let before = earlier?.source_identity.as_deref()?;
    // Behind the system stands the database, which is a matter of the configuration.
    let system = |identity: &str| identity.split('/').next().unwrap_or(identity).to_owned();
    let (before, now) = (system(before), system(now?));
    (kind == "postgres" && before != now).then(|| {
        let detail = format!(
            "the cluster {now} was backed up, and the newest copy before is of the cluster {before}; was it made anew or upgraded, or \
             is this another server? The copies of both stand side by side"
        );
        Finding::new(FindingCode::SourceChanged, subject, detail)
    })
}

/// What a backup has made. The copy is durable.
#[derive(Debug)]
pub struct BackupDone {
    /// The copy.
    pub copy: CopyId,
    /// What the source put into it.
    pub captured: Captured,
    /// Digest of the witness as stored.
    pub witness: Digest,
    /// Bytes read from the source.
    pub read_bytes: u64,
    /// Bytes that were new to the repository, before compression.
    pub added_bytes: u64,
    /// Bytes written to the repository.
    pub stored_bytes: u64,
    /// Files or streams.
    pub items: u64,
    /// Phases in order.
    pub phases: Vec<Phase>,
}

/// Backs up one source into one repository. `Err` means that no copy is visible.
///
/// Where a copy cannot be built upon the earlier one, one that stands alone is made instead.
pub async fn backup(
    cx: &Cx,
    source: &dyn Source,
    repository: &Repository,
    request: &BackupRequest,
) -> Result<BackupDone, DriverError> {
    match once(cx, source, repository, request, false).await {
        Err(error) if error.kind == ErrorKind::Unfollowable && request.known.earlier.is_some() => {
            cx.phase(format!("begin anew: {error}"));
            once(cx, source, repository, request, true).await
        }
        done => done,
    }
}

async fn once(
    cx: &Cx,
    source: &dyn Source,
    repository: &Repository,
    request: &BackupRequest,
    is_left: bool,
) -> Result<BackupDone, DriverError> {
    let mut watch = Stopwatch::start();
    cx.phase("open");
    let session = watch.measure("open", begin(cx, repository, request, is_left)).await?;
    cx.phase("capture");
    let capturing = cx.run(source.capture(cx, session.writer()));
    let mut captured = match watch
        .measure("capture", capturing)
        .await
        .map_err(DriverError::from)
        .and_then(|captured| captured)
    {
        Ok(captured) => captured,
        Err(error) => return Err(given_up(session, error).await),
    };
    captured.findings.extend(session.damage_beside());
    cx.phase("commit");
    let sealed = match watch.measure("commit", seal(cx, &session, &captured, request)).await {
        Ok(witness) => witness,
        Err(error) => return Err(given_up(session, error).await),
    };
    let journal = session.writer().journal();
    let committing = session.commit(cx);
    let committed = watch.measure("store", committing).await?;
    if let (Some(released), Some(journal)) = (captured.released, journal) {
        captured.findings.extend(let_go(journal, released).await);
    }
    Ok(BackupDone {
        copy: committed.copy,
        captured,
        witness: sealed,
        read_bytes: committed.read_bytes,
        added_bytes: committed.added_bytes,
        stored_bytes: committed.stored_bytes,
        items: committed.items,
        phases: watch.phases,
    })
}

/// Removes from the journal what earlier copies hold. The copy is durable, whatever comes of it.
async fn let_go(journal: Arc<dyn Journal>, released: Released) -> Option<Finding> {
    let removing = blocking("let go of the log that copies hold", move || {
        journal.remove(&of_copies(journal.held()?, released))
    });
    match removing.await {
        Ok(()) => None,
        // Whoever may only add leaves it to somebody who may delete.
        Err(error) if error.kind == ErrorKind::PermissionDenied => None,
        Err(error) => Some(super::finding_of(&error, "journal")),
    }
}

/// Pieces that copies hold.
///
/// A file of the log is received from its beginning, and copies may hold it from within. What comes before that is held by no copy, and
/// is of use only behind an older one: where nothing leads to it from the file before, it goes, too.
fn of_copies(held: Vec<HeldPiece>, released: Released) -> Vec<HeldPiece> {
    let is_of = |piece: &HeldPiece| {
        (piece.of.system, piece.of.timeline) == (released.system, released.timeline) && piece.apart.is_none()
    };
    let own: Vec<HeldPiece> = held.into_iter().filter(is_of).collect();
    let start = own.first().map_or(released.from, |piece| {
        Lsn(released.from.0 - released.from.0 % piece.of.segment_bytes.bytes())
    });
    let is_led_to = own.iter().any(|piece| piece.of.from < start && piece.of.to == start);
    let from = if is_led_to { released.from } else { start };
    own.into_iter().filter(|piece| piece.of.from >= from && piece.of.to <= released.before).collect()
}

/// The error that ended a backup, after the session was given up. That it could not be given up is said beside it: packs
/// and a lock may be left, and neither makes a copy visible.
async fn given_up(session: Session, error: DriverError) -> DriverError {
    match session.abort().await {
        Ok(()) => error,
        Err(left) => {
            let hint =
                format!("the repository may hold a lock and packs of this run: {}", super::chain(&left));
            error.hint(hint)
        }
    }
}

/// Puts the witness, its signature, and how to restore without us, into the copy.
async fn seal(
    cx: &Cx,
    session: &Session,
    captured: &Captured,
    request: &BackupRequest,
) -> Result<Digest, DriverError> {
    cx.check()?;
    let cannot = |error: canonical::CanonicalError| {
        DriverError::new(ErrorKind::Other, "spell the witness").because(error)
    };
    let bytes = canonical::of(&captured.witness).map_err(cannot)?;
    let digest = sha256(&bytes);
    let statement = serde_json::json!({
        "schema": 1, "run": request.run, "service": request.service, "source": request.source,
        "point": captured.point, "witness": digest, "size_bytes": captured.size_bytes,
        "complete": captured.is_complete, "source_identity": request.source_identity,
    });
    let payload = canonical::of(&statement).map_err(cannot)?;
    let envelope = Envelope::sign(&payload, &request.key).to_json();
    let notes = notes(captured, request);
    let writer = session.writer();
    tokio::task::spawn_blocking(move || {
        let path = |name: &str| {
            CopyPath::new(name)
                .ok_or_else(|| DriverError::new(ErrorKind::Other, format!("name `{name}` in the copy")))
        };
        writer.put(&path(WITNESS_PATH)?, &bytes)?;
        writer.put(&path(STATEMENT_PATH)?, envelope.as_bytes())?;
        writer.put(&path(".seaworthy/RESTORE.txt")?, notes.as_bytes())
    })
    .await
    .map_err(|error| DriverError::new(ErrorKind::Other, "store the witness").because(error))??;
    Ok(digest)
}

/// How to restore this copy with stock tools, for the day on which there is nothing else.
fn notes(captured: &Captured, request: &BackupRequest) -> String {
    let is_cluster = matches!(&captured.witness, seaworthy_model::witness::Witness::Postgres(postgres) if postgres.physical.is_some());
    let how = match captured.witness.kind() {
        "postgres" if is_cluster => {
            "1. restic -r REPOSITORY restore SNAPSHOT --target DIR\n\
             2. README.txt says where each tablespace goes; where it cannot go there, correct DIR/data/tablespace_map\n\
             3. chown -R postgres DIR/data DIR/tablespaces; chmod 700 DIR/data\n\
             4. pg_ctl -D DIR/data start, with the major version that README.txt names: the server recovers to the end of the log\n\
             \x20  in DIR/data/pg_wal, which is the end of this copy. Where its settings name files that are not there, give it others:\n\
             \x20  -o '-c config_file=FILE -c hba_file=FILE'\n"
        }
        "postgres" => {
            "1. restic -r REPOSITORY restore SNAPSHOT --target DIR\n\
             2. psql -X -d postgres -f DIR/globals.sql makes the roles and the empty database, with its encoding, locale,\n\
             \x20  owner and settings; read it first: it must not be run where roles of these names are somebody else's\n\
             3. pg_restore -Fd -j 4 --exit-on-error -d DATABASE DIR/database\n"
        }
        "sqlite" => {
            "1. restic -r REPOSITORY restore SNAPSHOT --target DIR\n2. the database is the .sqlite file in DIR; open it with any sqlite3\n"
        }
        _ => {
            "1. restic -r REPOSITORY restore SNAPSHOT --target DIR (with --sparse where disk images have holes)\n\
             2. the files are in DIR under their own absolute paths; .seaworthy/manifest.tsv has a line for each of them, with\n\
             \x20  mode, owner, time, size and SHA-256\n"
        }
    };
    format!(
        "This snapshot holds {}/{} as of {}.\nTo restore it without Seaworthy:\n\n{how}\nwitness.json says what a faithful restore holds.\n",
        request.service, request.source, captured.point
    )
}

#[cfg(test)]
mod tests {
    use seaworthy_interface::PieceOf;
    use seaworthy_model::wal::{SegmentSize, Timeline};

    use super::*;

    #[test]
    fn a_source_that_is_another_system_is_said_where_identities_are_of_systems() {
        let earlier = |identity: Option<&str>| Earlier {
            copy: CopyId("copy".to_owned()),
            witness: sha256(b"witness"),
            newest_bad: None,
            source_identity: identity.map(str::to_owned),
        };
        for (kind, before, now, is_said) in [
            ("postgres", Some("71/shop"), Some("72/shop"), true),
            ("postgres", Some("71/shop"), Some("71/shop"), false),
            // Another database, or another way to back it up, is what somebody has written down.
            ("postgres", Some("71/shop"), Some("71/store"), false),
            ("postgres", Some("71/shop"), Some("71"), false),
            ("postgres", Some("71"), Some("72/shop"), true),
            ("postgres", None, Some("72"), false),
            ("postgres", Some("71"), None, false),
            ("sqlite", Some("file:1:2"), Some("file:3:2"), false),
            ("files", Some("a"), Some("b"), false),
        ] {
            let said = another_system(kind, "shop/db", Some(&earlier(before)), now);
            assert_eq!(said.is_some(), is_said, "{kind} {before:?} {now:?}");
            assert!(said.is_none_or(|finding| finding.code == FindingCode::SourceChanged));
        }
        assert_eq!(another_system("postgres", "shop/db", None, Some("72")), None);
    }

    #[test]
    fn what_no_copy_holds_stays_where_something_leads_to_it() {
        let file = SegmentSize::USUAL.bytes();
        let piece = |from: u64, to: u64| HeldPiece {
            of: PieceOf {
                system: 7,
                timeline: Timeline::FIRST,
                segment_bytes: SegmentSize::USUAL,
                from: Lsn(from),
                to: Lsn(to),
                complete_at: None,
            },
            key: format!("{from}"),
            apart: None,
        };
        let released =
            Released { system: 7, timeline: Timeline::FIRST, from: Lsn(file + 50), before: Lsn(2 * file) };
        let gone = |held: &[HeldPiece]| -> Vec<u64> {
            of_copies(held.to_vec(), released).iter().map(|piece| piece.of.from.0).collect()
        };
        let own = [piece(file, file + 40), piece(file + 40, file + 60), piece(file + 60, 2 * file)];
        assert_eq!(gone(&own), [file, file + 40, file + 60]);
        let with = |piece: HeldPiece| [&[piece][..], &own[..]].concat();
        assert_eq!(gone(&with(piece(file - 10, file))), [file + 60]);
        // There is a hole before the file.
        assert_eq!(gone(&with(piece(file - 10, file - 1))), [file, file + 40, file + 60]);
        // What is behind the copies, of another cluster, of another timeline, or set apart stays.
        let mut others = [piece(2 * file - 1, 2 * file + 1), own[2].clone(), own[2].clone(), own[2].clone()];
        others[1].of.system = 8;
        others[2].of.timeline = Timeline::new(2).unwrap();
        others[3].apart = Some(Timestamp::UNIX_EPOCH);
        assert!(gone(&others).is_empty());
    }
}
