//! Replication: copies of one repository into another, under another key.
//!
//! What is missing is decided from points alone; the repositories are asked when it is carried out. A copy that lacks in the first
//! repository is no reason to remove it from the second: nothing here removes anything.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use seaworthy_interface::{Cx, DriverError, ErrorKind};
use seaworthy_model::finding::FindingCode;
use seaworthy_model::id::{CopyId, RepositoryId, RunId, ServiceName, SourceName};
use seaworthy_model::point::{PointStanding, RecoveryPoint, in_order};
use seaworthy_model::receipt::{Moved, Outcome};
use seaworthy_repository::{CopyOf, CopyOptions, CopyReport, Repository, Share, SnapshotId, copy};

use crate::store::{blocking, control, driver_error};

/// What one repository has that another lacks.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Missing<'a> {
    /// To be replicated, newest first.
    pub wanted: Vec<&'a RecoveryPoint>,
    /// Known to be bad, and therefore not replicated.
    pub bad: Vec<&'a RecoveryPoint>,
    /// Let go by the retention of the second repository, and therefore not sent there again.
    pub let_go: Vec<&'a RecoveryPoint>,
    /// Of each source that has anything to be replicated: how much younger its newest complete copy here is than the newest there.
    /// `None` where there is none at all over there.
    pub lag: BTreeMap<(ServiceName, SourceName), Option<SignedDuration>>,
}

/// Compares two repositories by the points that are known of them. The order in which points are given does not matter.
///
/// Copies are the same where one capture made them. Those that are gone from the first repository are not wanted, and those that are
/// only in the second are none of this act's business. What retention has let go over there stays away. `lost` are copies of the
/// second that were not found there.
#[must_use]
pub fn missing<'a>(
    points: &'a [RecoveryPoint],
    from: &RepositoryId,
    to: &RepositoryId,
    lost: &BTreeSet<CopyId>,
) -> Missing<'a> {
    let is_lost = |point: &RecoveryPoint| point.repository.id == *to && lost.contains(&point.copy);
    // A replica that is known to be bad is none.
    let is_there = |point: &&RecoveryPoint| {
        let is_bad = matches!(point.standing, PointStanding::Failed { .. });
        point.repository.id == *to && !point.is_gone() && !is_bad && !is_lost(point)
    };
    let there: BTreeSet<&RunId> = points.iter().filter(is_there).map(|point| &point.run).collect();
    let was_let_go = |point: &&RecoveryPoint| {
        point.repository.id == *to && matches!(point.standing, PointStanding::Gone { was_let_go: true, .. })
    };
    let let_go: BTreeSet<&RunId> = points.iter().filter(was_let_go).map(|point| &point.run).collect();
    let mut here: Vec<&RecoveryPoint> =
        points.iter().filter(|point| point.repository.id == *from && !point.is_gone()).collect();
    in_order(&mut here);
    here.dedup_by_key(|point| &point.copy);
    let mut missing = Missing::default();
    for point in here.iter().rev().filter(|point| !there.contains(&point.run)) {
        if let_go.contains(&point.run) {
            missing.let_go.push(point);
            continue;
        }
        match point.standing {
            PointStanding::Failed { .. } => missing.bad.push(point),
            PointStanding::Unproven | PointStanding::Proven { .. } | PointStanding::Gone { .. } => {
                missing.wanted.push(point);
            }
        }
    }
    let newest = |repository: &RepositoryId, service: &ServiceName, source: &SourceName| {
        let of_source = points.iter().filter(|point| {
            point.repository.id == *repository
                && (&point.service, &point.source) == (service, source)
                && !point.is_gone()
                && !is_lost(point)
                && point.outcome == Outcome::Complete
        });
        of_source.map(RecoveryPoint::instant).max()
    };
    for point in &missing.wanted {
        let source = (point.service.clone(), point.source.clone());
        missing.lag.entry(source).or_insert_with(|| {
            let of = |repository| newest(repository, &point.service, &point.source);
            Some(of(from)?.duration_since(of(to)?).max(SignedDuration::ZERO))
        });
    }
    missing
}

/// How copies are read back after they were stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReadBack {
    /// Of what was sent, the share that is found by the other repository's index, decrypted and hashed again; between 0 and 1. The
    /// digests of all new packs are compared in any case.
    pub share: f64,
    /// Chooses the share.
    pub seed: u64,
    /// Whether the other repository is known to be damaged: then everything in it that is relied on is read, and sent again where it is
    /// not what it should be.
    pub distrust: bool,
}

/// Whether something that lies in a repository has been shown to be damaged there: new replicas must not rest on it.
#[must_use]
pub fn is_damaged(points: &[RecoveryPoint], repository: &RepositoryId) -> bool {
    points.iter().filter(|point| point.repository.id == *repository).any(|point| match &point.standing {
        // Without codes it is known to be bad and not why.
        PointStanding::Failed { codes: found, .. } => {
            found.is_empty() || found.iter().any(|code| code.is_of_stored_bytes())
        }
        PointStanding::Unproven | PointStanding::Proven { .. } | PointStanding::Gone { .. } => false,
    })
}

/// What became of some copies.
#[derive(Debug, Default)]
pub struct Replicated {
    /// By original: the replica, and whether it was there already.
    pub copies: BTreeMap<CopyId, (CopyId, bool)>,
    /// What was moved for all of them.
    pub moved: Moved,
    /// Snapshot files over there that cannot be read.
    pub damaged: Vec<CopyId>,
}

/// Replicates copies. All of them are durable over there, and read back as far as asked, or this is an error; then some may be there,
/// and the next attempt finds them.
pub async fn replicate(
    cx: &Cx,
    from: &Repository,
    to: &Repository,
    copies: &[&CopyId],
    read_back: ReadBack,
) -> Result<Replicated, DriverError> {
    let ids: Vec<SnapshotId> = copies
        .iter()
        .map(|copy| {
            SnapshotId::parse(&copy.0).ok_or_else(|| {
                DriverError::new(ErrorKind::Other, format!("name copy {copy}"))
                    .code(FindingCode::IndexInconsistent)
                    .because("it is no name of a snapshot")
            })
        })
        .collect::<Result<_, _>>()?;
    let (from, to, control) = (from.clone(), to.clone(), control(cx));
    let count = copies.len() as u64;
    blocking("replicate copies", move || {
        let options = CopyOptions {
            verify: Share { part: read_back.share, seed: read_back.seed },
            distrust: read_back.distrust,
            ..CopyOptions::default()
        };
        let report = copy(&from, CopyOf::These(&ids), &to, &options, &control)
            .map_err(|error| driver_error("replicate copies", error))?;
        Ok(replicated(&report, count))
    })
    .await
}

fn replicated(report: &CopyReport, copies: u64) -> Replicated {
    let named = |one: &seaworthy_repository::Copied, was_there: bool| {
        (CopyId(one.source.hex()), (CopyId(one.target.hex()), was_there))
    };
    Replicated {
        copies: report
            .copied
            .iter()
            .map(|one| named(one, false))
            .chain(report.present.iter().map(|one| named(one, true)))
            .collect(),
        moved: Moved {
            copies,
            read_bytes: report.bytes_read,
            stored_bytes: report.bytes_written,
            packs: report.packs,
            packs_verified: report.packs_verified,
            packs_attested: report.packs_attested,
            blobs: report.blobs,
            blobs_verified: report.blobs_verified,
        },
        damaged: report.damaged.iter().map(|id| CopyId(id.hex())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use seaworthy_model::assess::EPOCH;
    use seaworthy_model::example::{self, About};
    use seaworthy_model::id::Digest;
    use seaworthy_model::receipt::{Act, Backup, Receipt};
    use seaworthy_model::retention::Retain;

    use super::*;

    fn at(hours: i64) -> Timestamp {
        EPOCH + SignedDuration::from_hours(hours)
    }

    fn made(act: Act, sequence: u64) -> RecoveryPoint {
        let digest = Digest(String::new());
        let receipt = Receipt { sequence, previous: None, at: at(1_000), subject: Vec::new(), act, digest };
        RecoveryPoint::made_by(&receipt).unwrap()
    }

    fn original(hours: i64) -> RecoveryPoint {
        let act = Act::Backup(Box::new(example::backup(&About::new("shop", "db", at(hours)), None)));
        made(act, u64::try_from(hours).unwrap())
    }

    fn replica(hours: i64) -> RecoveryPoint {
        let backup = example::backup(&About::new("shop", "db", at(hours)), None);
        made(Act::Replicate(Box::new(example::replicate(&backup, 1, at(900)))), 500)
    }

    fn places() -> (RepositoryId, RepositoryId) {
        (original(1).repository.id, replica(1).repository.id)
    }

    #[test]
    fn what_lacks_over_there_is_wanted_newest_first_and_once() {
        let points = [original(3), original(1), original(2), original(2), replica(1)];
        let (from, to) = places();
        let found = missing(&points, &from, &to, &BTreeSet::new());
        let hours: Vec<Timestamp> = found.wanted.iter().map(|point| point.point).collect();
        assert_eq!(hours, [at(3), at(2)]);
        assert_eq!(found.lag.values().copied().collect::<Vec<_>>(), [Some(SignedDuration::from_hours(2))]);
        // Backwards there is nothing to do; and a first time there is nothing to compare with.
        assert_eq!(missing(&points, &to, &from, &BTreeSet::new()), Missing::default());
        let first = missing(&points[..3], &from, &to, &BTreeSet::new());
        assert_eq!((first.wanted.len(), first.lag.into_values().next()), (3, Some(None)));
    }

    #[test]
    fn what_is_gone_here_is_not_wanted_and_what_is_gone_there_is_wanted_again() {
        let gone = |mut point: RecoveryPoint| {
            point.standing =
                PointStanding::Gone { sequence: 9, at: at(9), was_bad: false, was_let_go: false };
            point
        };
        let (from, to) = places();
        let points = [gone(original(1)), original(2), gone(replica(2))];
        let found = missing(&points, &from, &to, &BTreeSet::new());
        assert_eq!(found.wanted.iter().map(|point| point.point).collect::<Vec<_>>(), [at(2)]);
        assert_eq!(found.lag.into_values().next(), Some(None));
    }

    #[test]
    fn a_replica_that_is_known_to_be_bad_is_none_and_its_repository_is_not_trusted() {
        let (from, to) = places();
        let failed = |codes: &[FindingCode]| PointStanding::Failed {
            sequence: 9,
            at: at(9),
            codes: codes.iter().copied().collect(),
        };
        let mut points = [original(1), replica(1)];
        assert!(
            missing(&points, &from, &to, &BTreeSet::new()).wanted.is_empty() && !is_damaged(&points, &to)
        );
        points[1].standing = failed(&[FindingCode::ObjectDamaged]);
        assert_eq!(missing(&points, &from, &to, &BTreeSet::new()).wanted.len(), 1);
        assert!(is_damaged(&points, &to) && !is_damaged(&points, &from));
        points[1].standing = failed(&[]);
        assert!(is_damaged(&points, &to));
        // That content differs says nothing of the bytes that are stored.
        points[1].standing = failed(&[FindingCode::RowContent]);
        assert!(!is_damaged(&points, &to));
    }

    #[test]
    fn what_retention_has_let_go_over_there_is_not_brought_back() {
        let (from, to) = places();
        let sealed = |act: Act, sequence| {
            let digest = Digest(String::new());
            Receipt { sequence, previous: None, at: at(1_000), subject: Vec::new(), act, digest }
        };
        let about = About::new("shop", "db", at(2));
        let as_backup = |point: &RecoveryPoint| Backup {
            repository: point.repository.clone(),
            copy: Some(point.copy.clone()),
            ..example::backup(&About::new("shop", "db", point.point), None)
        };
        // Marked, told to be removed, gone; and one that went without a word of retention's, or was only marked.
        let ended = |hours: i64, is_marked: bool, is_removed: bool| {
            let mut point = replica(hours);
            let there = as_backup(&point);
            let retain = |marked: &[&Backup], removing: &[&Backup]| Retain {
                repository: there.repository.clone(),
                ..example::retain(&about, marked, &[], removing)
            };
            if is_marked {
                point.apply(&sealed(Act::Retain(Box::new(retain(&[&there], &[]))), 600));
            }
            if is_removed {
                point.apply(&sealed(Act::Retain(Box::new(retain(&[], &[&there]))), 601));
            }
            point.apply(&sealed(Act::Gone(Box::new(example::gone(&there, 500))), 602));
            assert!(point.is_gone());
            point
        };
        let points = [
            original(1),
            original(2),
            original(3),
            ended(1, true, true),
            ended(2, false, false),
            ended(3, true, false),
        ];
        let found = missing(&points, &from, &to, &BTreeSet::new());
        assert_eq!(found.wanted.iter().map(|point| point.point).collect::<Vec<_>>(), [at(3), at(2)]);
        assert_eq!(found.let_go.iter().map(|point| point.point).collect::<Vec<_>>(), [at(1)]);
    }

    #[test]
    fn a_replica_that_was_not_found_there_is_none_and_is_wanted_again() {
        let (from, to) = places();
        let points = [original(1), original(2), replica(1), replica(2)];
        assert_eq!(missing(&points, &from, &to, &BTreeSet::new()), Missing::default());
        let lost = BTreeSet::from([replica(2).copy]);
        let found = missing(&points, &from, &to, &lost);
        assert_eq!(found.wanted.iter().map(|point| point.point).collect::<Vec<_>>(), [at(2)]);
        assert_eq!(found.lag.into_values().next(), Some(Some(SignedDuration::from_hours(1))));
        // An id that is another's says nothing of an original.
        let other = BTreeSet::from([original(2).copy]);
        assert_eq!(missing(&points, &from, &to, &other), Missing::default());
    }

    #[test]
    fn what_is_known_to_be_bad_is_told_and_not_spread() {
        let mut bad = original(2);
        bad.standing = PointStanding::Failed { sequence: 9, at: at(9), codes: BTreeSet::new() };
        let (from, to) = places();
        let points = [original(1), bad];
        let found = missing(&points, &from, &to, &BTreeSet::new());
        assert_eq!((found.wanted.len(), found.bad.len()), (1, 1));
        assert_eq!(found.bad[0].point, at(2));
    }
}
