//! What a check of a repository says of the copies in it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::id::{CopyId, RepositoryId, RunId};
use seaworthy_model::point::RecoveryPoint;
use seaworthy_model::receipt::{Outcome, RepositoryRef, SourceRef, VerifiedCopy, Verify};
use seaworthy_repository::{CheckRead, CheckReport, FaultKind};

/// Most findings that a receipt names; the check itself tells all of them.
const NAMED_MAX: usize = 100;

/// When a check ran, and who ran it.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The run.
    pub run: RunId,
    /// The repository.
    pub place: RepositoryRef,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// User and host.
    pub executor: String,
}

/// The names of the snapshots that a check was told of, readable or not.
#[must_use]
pub fn listed(report: &CheckReport) -> BTreeSet<CopyId> {
    report.snapshots.iter().map(|(snapshot, _)| CopyId(snapshot.hex())).collect()
}

/// The copies that should be in a repository and were not listed there.
///
/// `before` is what was known before the listing began, and `points` what is known after it: what has come or was let go meanwhile is
/// no loss.
#[must_use]
pub fn unlisted<'a>(
    before: &[RecoveryPoint],
    points: &'a [RecoveryPoint],
    repository: &RepositoryId,
    listed: &BTreeSet<CopyId>,
) -> Vec<&'a RecoveryPoint> {
    let is_there = |point: &&RecoveryPoint| point.repository.id == *repository && !point.is_gone();
    let watched: BTreeSet<&CopyId> = before.iter().filter(is_there).map(|point| &point.copy).collect();
    let is_lost = |point: &&RecoveryPoint| {
        is_there(point)
            && !is_being_removed(point)
            && watched.contains(&point.copy)
            && !listed.contains(&point.copy)
    };
    points.iter().filter(is_lost).collect()
}

fn is_being_removed(point: &RecoveryPoint) -> bool {
    point.mark.as_ref().is_some_and(|mark| mark.is_being_removed)
}

/// What is wrong with a copy that was not listed where a receipt says that it is.
#[must_use]
pub fn lost(point: &RecoveryPoint) -> Finding {
    Finding::new(
        FindingCode::ObjectMissing,
        format!("snapshot {}", point.copy),
        format!("receipt {} tells of it, and it was not listed", point.sequence),
    )
}

/// What is wrong with a copy whose snapshot file was met and could not be read.
#[must_use]
pub fn unreadable(point: &RecoveryPoint) -> Finding {
    Finding::new(
        FindingCode::ObjectDamaged,
        format!("snapshot {}", point.copy),
        "it is listed, and its bytes are not what was written",
    )
}

fn said(point: &RecoveryPoint, intact: bool) -> VerifiedCopy {
    VerifiedCopy {
        copy: point.copy.clone(),
        of: Some(SourceRef { service: point.service.clone(), source: point.source.clone() }),
        backup: Some(point.sequence),
        point: point.point,
        intact,
    }
}

/// What has to be sealed of copies that were seen not to be whole while something else was done; nothing is read for it.
#[must_use]
pub fn refuted(bad: &[(&RecoveryPoint, Finding)], seen: Checked) -> Option<Verify> {
    if bad.is_empty() {
        return None;
    }
    Some(Verify {
        run: seen.run,
        due: None,
        repository: seen.place,
        copies: bad.iter().map(|(point, _)| said(point, false)).collect(),
        read_percent: 0,
        read_bytes: 0,
        started: seen.started,
        finished: seen.finished,
        outcome: Outcome::Complete,
        findings: bad.iter().take(NAMED_MAX).map(|(_, finding)| finding.clone()).collect(),
        executor: seen.executor,
    })
}

/// What has to be sealed of a check: copies that are damaged or lost, and, where every byte was read, copies that are whole. `None`
/// where neither is known: then nothing was shown.
///
/// `points` are those in the repository, and `missing` those of them that should be there and were not listed ([`unlisted`]). Of one
/// that is known to be gone nothing is said.
#[must_use]
pub fn verified(
    report: &CheckReport,
    read: CheckRead,
    points: &[RecoveryPoint],
    missing: &[&RecoveryPoint],
    checked: Checked,
) -> Option<Verify> {
    let is_all = read == CheckRead::All;
    let whole: BTreeMap<CopyId, bool> =
        report.snapshots.iter().map(|(snapshot, is_whole)| (CopyId(snapshot.hex()), *is_whole)).collect();
    let copies: Vec<VerifiedCopy> = points
        .iter()
        .filter(|point| !point.is_gone() && point.repository.id == checked.place.id)
        .filter_map(|point| {
            let intact = *whole.get(&point.copy)?;
            // One that is being removed may go while it is looked at.
            (if intact { is_all } else { !is_being_removed(point) }).then(|| said(point, intact))
        })
        .chain(missing.iter().map(|point| said(point, false)))
        .collect();
    if copies.is_empty() {
        return None;
    }
    let seen = report.findings.iter().map(|finding| {
        let subject = format!("{} {}", finding.what, finding.id.hex());
        Finding::new(code(finding.kind), subject, finding.why.clone())
    });
    let findings = missing.iter().map(|point| lost(point)).chain(seen).take(NAMED_MAX);
    Some(Verify {
        run: checked.run,
        due: None,
        repository: checked.place,
        copies,
        read_percent: match read {
            CheckRead::All => 100,
            CheckRead::None => 0,
            // Rounded down: a share that was not read is not claimed.
            CheckRead::Subset { share, .. } => (share * 100.0) as u32,
        },
        read_bytes: report.bytes_read,
        started: checked.started,
        finished: checked.finished,
        outcome: Outcome::Complete,
        findings: findings.collect(),
        executor: checked.executor,
    })
}

/// The code that drills use for a fault of the store.
#[must_use]
pub fn code(kind: FaultKind) -> FindingCode {
    match kind {
        FaultKind::Missing => FindingCode::ObjectMissing,
        FaultKind::Damaged => FindingCode::ObjectDamaged,
        FaultKind::Inconsistent => FindingCode::IndexInconsistent,
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use seaworthy_model::assess::EPOCH;
    use seaworthy_model::example::{self, About};
    use seaworthy_model::id::Digest;
    use seaworthy_model::point::{PointMark, PointStanding};
    use seaworthy_model::receipt::{Act, Receipt};
    use seaworthy_model::retention::PlanDigest;
    use seaworthy_repository::SnapshotId;

    use super::*;

    fn point(n: i64) -> RecoveryPoint {
        let about = About::new("shop", "db", EPOCH + SignedDuration::from_hours(n));
        let act = Act::Backup(Box::new(example::backup(&about, None)));
        let (at, digest) = (EPOCH, Digest(String::new()));
        let sequence = u64::try_from(n).unwrap();
        RecoveryPoint::made_by(&Receipt { sequence, previous: None, at, subject: Vec::new(), act, digest })
            .unwrap()
    }

    fn told(
        whole: &[Option<bool>],
        read: CheckRead,
        change: impl Fn(&mut [RecoveryPoint]),
    ) -> Option<Vec<(u64, bool)>> {
        let mut points: Vec<RecoveryPoint> = (1..).take(whole.len()).map(point).collect();
        let id = |point: &RecoveryPoint| SnapshotId::parse(&point.copy.0).unwrap();
        let seen = points.iter().zip(whole).filter_map(|(point, whole)| Some((id(point), (*whole)?)));
        let report = CheckReport { snapshots: seen.collect(), ..CheckReport::default() };
        change(&mut points);
        let checked = Checked {
            run: RunId("verify-1".to_owned()),
            place: example::repository(),
            started: EPOCH,
            finished: EPOCH,
            executor: "x".to_owned(),
        };
        let act = verified(&report, read, &points, &[], checked)?;
        Some(act.copies.iter().map(|copy| (copy.backup.unwrap(), copy.intact)).collect())
    }

    #[test]
    fn what_is_damaged_is_told_always_and_what_is_whole_where_all_was_read() {
        let part = CheckRead::Subset { share: 0.5, seed: 1 };
        let both = [Some(true), Some(false)];
        assert_eq!(told(&both, CheckRead::All, |_| {}), Some(vec![(1, true), (2, false)]));
        for read in [CheckRead::None, part] {
            assert_eq!(told(&both, read, |_| {}), Some(vec![(2, false)]));
            assert_eq!(told(&[Some(true)], read, |_| {}), None);
        }
        assert_eq!(told(&[None, Some(true)], CheckRead::All, |_| {}), Some(vec![(2, true)]), "not seen");
        let gone = PointStanding::Gone { sequence: 9, at: EPOCH, was_bad: false, was_let_go: false };
        assert_eq!(
            told(&both, CheckRead::All, |points| points[1].standing = gone.clone()),
            Some(vec![(1, true)])
        );
        let elsewhere = RepositoryId("other".to_owned());
        let other = |points: &mut [RecoveryPoint]| points[0].repository.id = elsewhere.clone();
        assert_eq!(told(&[Some(false)], CheckRead::All, other), None);
    }

    fn being_removed(mut point: RecoveryPoint) -> RecoveryPoint {
        point.mark = Some(PointMark {
            at: EPOCH,
            plan: PlanDigest(Digest(String::new())),
            sequence: 8,
            is_being_removed: true,
        });
        point
    }

    #[test]
    fn a_copy_that_was_known_before_and_is_not_listed_is_lost() {
        let gone = PointStanding::Gone { sequence: 9, at: EPOCH, was_bad: false, was_let_go: false };
        let (known, came, listed) = (point(1), point(2), point(3));
        let lost_of = |before: &[RecoveryPoint], points: &[RecoveryPoint]| -> Vec<u64> {
            let there = BTreeSet::from([listed.copy.clone()]);
            let lost = unlisted(before, points, &example::repository().id, &there);
            lost.iter().map(|point| point.sequence).collect()
        };
        let before = [known.clone(), listed.clone()];
        let after = [known.clone(), came.clone(), listed.clone()];
        assert_eq!(lost_of(&before, &after), [1], "what came meanwhile is none");
        let let_go = RecoveryPoint { standing: gone.clone(), ..known.clone() };
        for went in [let_go.clone(), being_removed(known.clone())] {
            assert_eq!(lost_of(&before, &[went, listed.clone()]), [0; 0]);
        }
        assert_eq!(lost_of(&[let_go], &after), [0; 0], "it has come back meanwhile");
        let mut elsewhere = known.clone();
        elsewhere.repository.id = RepositoryId("other".to_owned());
        assert_eq!(lost_of(&[elsewhere.clone()], &[elsewhere]), [0; 0]);
    }

    #[test]
    fn what_is_lost_is_sealed_as_not_intact_and_says_why() {
        let points = [point(1), point(2)];
        let checked = || Checked {
            run: RunId("verify-1".to_owned()),
            place: example::repository(),
            started: EPOCH,
            finished: EPOCH,
            executor: "x".to_owned(),
        };
        let report = CheckReport::default();
        let act = verified(&report, CheckRead::None, &points, &[&points[0]], checked()).unwrap();
        let said: Vec<(&CopyId, bool)> = act.copies.iter().map(|copy| (&copy.copy, copy.intact)).collect();
        assert_eq!(said, [(&points[0].copy, false)]);
        assert_eq!(act.findings, [lost(&points[0])]);
        let bad = [(&points[1], unreadable(&points[1]))];
        let act = refuted(&bad, checked()).unwrap();
        assert!(!act.copies[0].intact && act.copies[0].copy == points[1].copy && act.read_percent == 0);
        assert_eq!(act.findings[0].code, FindingCode::ObjectDamaged);
        assert!(refuted(&[], checked()).is_none());
        // What is being removed may be half gone when it is looked at.
        let id = SnapshotId::parse(&points[0].copy.0).unwrap();
        let report = CheckReport { snapshots: vec![(id, false)], ..CheckReport::default() };
        let going = [being_removed(points[0].clone())];
        assert!(verified(&report, CheckRead::All, &going, &[], checked()).is_none());
        assert_eq!(listed(&report), BTreeSet::from([points[0].copy.clone()]));
    }
}
