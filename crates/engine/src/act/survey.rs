//! The survey: which copies lie in a repository, and what those say of themselves that no receipt has made.
//!
//! Reads only. A copy is believed as far as it is signed: without a signature that is trusted here it may be what it says,
//! and its witness counts for nothing. Whatever cannot be read is a finding, and never makes a copy look gone.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use seaworthy_interface::{Cx, DriverError, ErrorKind, Progress};
use seaworthy_model::assess::EPOCH;
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::id::{CopyId, Digest, RunId, ServiceName, SourceName};
use seaworthy_model::point::{PointStanding, RecoveryPoint};
use seaworthy_model::receipt::{CLOCK_STEP, Found, Gone, Outcome, Remaining, RepositoryRef};
use seaworthy_model::signature::{Envelope, KeyId, SignatureError, TrustedKeys};
use seaworthy_repository::{Control, FileKind, Repository, Snapshot, SnapshotId, SnapshotPath};
use serde::Deserialize;

use super::finding_of;
use crate::store::{STATEMENT_PATH, blocking, control, driver_error};

/// A statement is some 400 bytes.
const STATEMENT_BYTES_MAX: u64 = 1 << 16;

/// What a repository holds.
#[derive(Debug, Default)]
pub struct Survey {
    /// Every snapshot in it, ours or not, readable or not.
    pub present: BTreeSet<CopyId>,
    /// Copies of ours that were not known, in the order in which they were made.
    pub found: Vec<Found>,
    /// Snapshots that another program made.
    pub foreign: u64,
    /// Keys that have signed copies and are not trusted here, with the number of those copies.
    pub strangers: Vec<(KeyId, u64)>,
    /// Snapshots that could not be read.
    pub findings: Vec<Finding>,
}

impl Survey {
    /// What has to be said of copies that were known before the snapshots were listed, and are not among them.
    ///
    /// `known` are all points of their sources, in whatever repository, as they are after what was found has been entered: the
    /// newest complete one that is still there, and was not shown to be bad, is what a source has left.
    #[must_use]
    pub fn gone(
        &self,
        place: &RepositoryRef,
        before: &[RecoveryPoint],
        known: &[RecoveryPoint],
        executor: &str,
    ) -> Vec<Gone> {
        let watched: BTreeSet<&CopyId> = before.iter().map(|point| &point.copy).collect();
        let is_lost = |point: &RecoveryPoint| {
            point.repository.id == place.id
                && watched.contains(&point.copy)
                && !self.present.contains(&point.copy)
        };
        let mut by_source: BTreeMap<(&ServiceName, &SourceName), Vec<&RecoveryPoint>> = BTreeMap::new();
        for point in known {
            by_source.entry((&point.service, &point.source)).or_default().push(point);
        }
        let mut left: BTreeMap<(&ServiceName, &SourceName), Remaining> = BTreeMap::new();
        for (source, mut points) in by_source {
            points.sort_by_key(|point| point.sequence);
            let dates = dated(&points);
            let is_left = |point: &RecoveryPoint| {
                let is_bad = matches!(point.standing, PointStanding::Failed { .. });
                point.outcome == Outcome::Complete && !point.is_gone() && !is_bad && !is_lost(point)
            };
            let remaining = points.iter().zip(dates).filter(|(point, _)| is_left(point));
            if let Some((newest, point)) = remaining.max_by_key(|(point, date)| (*date, point.sequence)) {
                let (repository, copy) = (newest.repository.id.clone(), newest.copy.clone());
                left.insert(source, Remaining { sequence: newest.sequence, repository, copy, point });
            }
        }
        let lost = before.iter().filter(|point| !point.is_gone() && is_lost(point));
        lost.map(|point| Gone {
            service: point.service.clone(),
            source: point.source.clone(),
            repository: place.clone(),
            copy: point.copy.clone(),
            known_by: point.sequence,
            newest: left.get(&(&point.service, &point.source)).cloned(),
            executor: executor.to_owned(),
        })
        .collect()
    }
}

/// The instants of points that stand in the order of their receipts: of each the latest that it can be of for certain.
///
/// A point that is dated after a backup that was made later was dated by a clock that ran ahead: it is as old as the newest
/// backup before it that is not.
fn dated(points: &[&RecoveryPoint]) -> Vec<Timestamp> {
    let mut limit = Timestamp::MAX;
    let mut limits: Vec<Timestamp> = points
        .iter()
        .rev()
        .map(|point| {
            let here = limit;
            // A clock that begins in 1970 says nothing of what was before.
            if point.is_captured() && point.finished >= EPOCH {
                limit = limit.min(point.finished);
            }
            here
        })
        .collect();
    limits.reverse();
    let mut certain = Timestamp::UNIX_EPOCH;
    points
        .iter()
        .zip(limits)
        .map(|(point, limit)| {
            let date = point.instant();
            if date.duration_since(limit) <= CLOCK_STEP {
                certain = certain.max(date);
                date
            } else {
                certain
            }
        })
        .collect()
}

/// What a copy says of itself.
#[derive(Deserialize)]
struct Statement {
    run: RunId,
    service: ServiceName,
    source: SourceName,
    point: Timestamp,
    witness: Digest,
    size_bytes: u64,
    /// Copies made before this was written do not say it.
    #[serde(default)]
    complete: bool,
    #[serde(default)]
    source_identity: Option<String>,
}

/// Looks through a repository. Copies in `known` are not opened: of them only their presence is reported.
pub async fn survey(
    cx: &Cx,
    repository: &Repository,
    place: &RepositoryRef,
    known: BTreeSet<CopyId>,
    keys: &TrustedKeys,
    executor: &str,
) -> Result<Survey, DriverError> {
    let (sink, control) = (cx.sink(), control(cx));
    let (repository, place, keys, executor) =
        (repository.clone(), place.clone(), keys.clone(), executor.to_owned());
    blocking("look through the repository", move || {
        let listed = repository
            .store()
            .list(FileKind::Snapshot, &control)
            .map_err(|error| driver_error("list the snapshots", error))?;
        let mut survey = Survey::default();
        let mut unknown = Vec::new();
        for listed in listed {
            let copy = CopyId(listed.id.hex());
            if !known.contains(&copy) {
                unknown.push((listed.id, copy.clone()));
            }
            survey.present.insert(copy);
        }
        let total = unknown.len() as u64;
        for (done, (id, copy)) in unknown.into_iter().enumerate() {
            control.check().map_err(|error| driver_error("look through the repository", error))?;
            sink(Progress::Items { done: done as u64, total: Some(total) });
            let opened = repository
                .snapshot(&id, &control)
                .map_err(|error| driver_error("read the snapshot", error))
                .and_then(|snapshot| look(&repository, &id, snapshot, &keys, &control));
            match opened {
                Ok(Looked::Foreign) => survey.foreign += 1,
                Ok(Looked::Ours { statement, snapshot, stranger }) => {
                    let is_trusted = stranger.is_none();
                    if let Some(key) = stranger {
                        count(&mut survey.strangers, key);
                    }
                    survey.found.push(found(*statement, &snapshot, copy, is_trusted, &place, &executor));
                }
                Err(error) if matches!(error.kind, ErrorKind::Stopped(_)) => return Err(error),
                Err(error) => survey.findings.push(finding_of(&error, &format!("copy {copy}"))),
            }
        }
        survey.found.sort_by(|a, b| (a.finished, &a.copy).cmp(&(b.finished, &b.copy)));
        Ok(survey)
    })
    .await
}

fn count(strangers: &mut Vec<(KeyId, u64)>, key: KeyId) {
    match strangers.iter_mut().find(|(known, _)| *known == key) {
        Some((_, copies)) => *copies += 1,
        None => strangers.push((key, 1)),
    }
}

enum Looked {
    Foreign,
    Ours { statement: Box<Statement>, snapshot: Box<Snapshot>, stranger: Option<KeyId> },
}

fn look(
    repository: &Repository,
    id: &SnapshotId,
    snapshot: Snapshot,
    keys: &TrustedKeys,
    control: &Control,
) -> Result<Looked, DriverError> {
    if !snapshot.tags.iter().any(|tag| tag == "seaworthy") {
        return Ok(Looked::Foreign);
    }
    let wrong = |what: &str| {
        DriverError::new(ErrorKind::Corrupt, format!("understand what the copy says of itself: {what}"))
            .code(FindingCode::WitnessNotOurs)
    };
    let bytes = SnapshotPath::new(STATEMENT_PATH)
        .and_then(|path| repository.read_file(id, &path, STATEMENT_BYTES_MAX, control))
        .map_err(|error| driver_error("read what the copy says of itself", error))?;
    let envelope = Envelope::from_json(&bytes).map_err(|error| wrong(&error.to_string()))?;
    let (payload, stranger) = match envelope.verified_payload(keys) {
        Ok((payload, _)) => (payload, None),
        // One by another key is a stranger's; one that names a trusted key and does not fit is a forgery.
        Err(error @ SignatureError::Foreign(_)) => {
            let payload = envelope.payload_unverified().map_err(|error| wrong(&error.to_string()))?;
            let signature = envelope.signatures.first().ok_or_else(|| wrong(&error.to_string()))?;
            (payload, Some(signature.keyid.clone()))
        }
        Err(error) => return Err(wrong(&error.to_string())),
    };
    let statement: Statement = serde_json::from_slice(&payload).map_err(|error| wrong(&error.to_string()))?;
    if !snapshot.tags.contains(&format!("run={}", statement.run)) {
        return Err(wrong("the snapshot is of another run than its statement"));
    }
    Ok(Looked::Ours { statement: Box::new(statement), snapshot: Box::new(snapshot), stranger })
}

fn found(
    statement: Statement,
    snapshot: &Snapshot,
    copy: CopyId,
    is_trusted: bool,
    place: &RepositoryRef,
    executor: &str,
) -> Found {
    let ended = snapshot.summary.as_ref().map_or(snapshot.time, |summary| summary.backup_end);
    Found {
        service: statement.service,
        source: statement.source,
        run: statement.run,
        repository: place.clone(),
        copy,
        point: statement.point,
        finished: Timestamp::from_nanosecond(ended.unix_nanos()).unwrap_or(Timestamp::UNIX_EPOCH),
        outcome: if statement.complete { Outcome::Complete } else { Outcome::Incomplete },
        restore_bytes: statement.size_bytes,
        stored_bytes: snapshot.summary.as_ref().map_or(0, |summary| summary.data_added_packed),
        witness: is_trusted.then_some(statement.witness),
        source_identity: statement.source_identity,
        executor: executor.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use seaworthy_model::example::{self, About};
    use seaworthy_model::receipt::{Act, Receipt};

    use super::*;

    fn point(sequence: u64, source: &str, hour: i64, repository: &str, outcome: Outcome) -> RecoveryPoint {
        let about = About::new("shop", source, EPOCH + SignedDuration::from_hours(hour));
        let mut backup = example::backup(&about, None);
        backup.repository.id.0 = repository.to_owned();
        backup.outcome = outcome;
        let receipt = Receipt {
            sequence,
            previous: None,
            at: backup.finished,
            subject: Vec::new(),
            digest: Digest(String::new()),
            act: Act::Backup(Box::new(backup)),
        };
        RecoveryPoint::made_by(&receipt).unwrap()
    }

    #[test]
    fn what_is_left_is_the_newest_complete_copy_of_the_same_source_that_is_there() {
        let here =
            RepositoryRef { id: seaworthy_model::id::RepositoryId("a".to_owned()), ..example::repository() };
        let known = [
            point(1, "db", 1, "b", Outcome::Complete),
            point(2, "db", 2, "a", Outcome::Complete),
            point(3, "db", 3, "a", Outcome::Incomplete),
            point(4, "tree", 9, "a", Outcome::Complete),
            point(5, "db", 5, "a", Outcome::Complete),
            // Ended after the snapshots were listed.
            point(6, "tree", 10, "a", Outcome::Complete),
        ];
        let before = &known[1..5];
        let present = |kept: &[usize]| Survey {
            present: kept.iter().map(|n| known[*n].copy.clone()).collect(),
            ..Survey::default()
        };
        let left = |kept: &[usize]| -> Vec<(u64, Option<u64>)> {
            let gone = present(kept).gone(&here, before, &known, "x");
            gone.into_iter().map(|gone| (gone.known_by, gone.newest.map(|newest| newest.sequence))).collect()
        };
        assert_eq!(left(&[1, 2, 3, 4]), []);
        assert_eq!(left(&[1, 2, 3]), [(5, Some(2))]);
        assert_eq!(left(&[2, 3]), [(2, Some(1)), (5, Some(1))], "an incomplete copy is nothing that is left");
        assert_eq!(left(&[1, 2, 4]), [(4, Some(6))]);
        // One that was shown to be bad is nothing that is left, newest or not.
        let mut bad = known.clone();
        let codes = BTreeSet::new();
        bad[1].standing = PointStanding::Failed { sequence: 9, at: Timestamp::UNIX_EPOCH, codes };
        let gone = present(&[1, 2, 3]).gone(&here, before, &bad, "x");
        assert_eq!(gone[0].newest.as_ref().map(|newest| newest.sequence), Some(1));
        // One that a clock that ran ahead has dated is as old as what came before it.
        let mut ahead = known.clone();
        let hours = SignedDuration::from_hours;
        (ahead[1].point, ahead[1].finished) = (ahead[1].point + hours(900), ahead[1].finished + hours(900));
        let gone = present(&[1, 2, 3]).gone(&here, before, &ahead, "x");
        let newest = gone[0].newest.as_ref().unwrap();
        assert_eq!((newest.sequence, newest.point), (2, known[0].point));
        // A copy that is known to be gone is not told of twice, and is nothing that is left.
        let mut marked = known[1..5].to_vec();
        marked[3].standing =
            PointStanding::Gone { sequence: 9, at: Timestamp::UNIX_EPOCH, was_bad: false, was_let_go: false };
        let gone = present(&[2, 3]).gone(&here, &marked, &marked, "x");
        assert_eq!(gone.len(), 1);
        assert_eq!((gone[0].known_by, &gone[0].newest), (2, &None));
    }
}
