//! What a check of a repository says of the copies in it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::id::{CopyId, RunId};
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

/// What has to be sealed of a check: copies that are damaged, and, where every byte was read, copies that are whole. `None` where
/// neither is known: then nothing was shown.
///
/// `points` are those in the repository. One that is known to be gone, or that the check has not seen, is not told of.
#[must_use]
pub fn verified(
    report: &CheckReport,
    read: CheckRead,
    points: &[RecoveryPoint],
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
            (is_all || !intact).then(|| VerifiedCopy {
                copy: point.copy.clone(),
                of: Some(SourceRef { service: point.service.clone(), source: point.source.clone() }),
                backup: Some(point.sequence),
                point: point.point,
                intact,
            })
        })
        .collect();
    if copies.is_empty() {
        return None;
    }
    let findings = report.findings.iter().take(NAMED_MAX).map(|finding| {
        let subject = format!("{} {}", finding.what, finding.id.hex());
        Finding::new(code(finding.kind), subject, finding.why.clone())
    });
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
    use seaworthy_model::point::PointStanding;
    use seaworthy_model::receipt::{Act, Receipt};
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
        let act = verified(&report, read, &points, checked)?;
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
        let gone = PointStanding::Gone { sequence: 9, at: EPOCH, was_bad: false };
        assert_eq!(
            told(&both, CheckRead::All, |points| points[1].standing = gone.clone()),
            Some(vec![(1, true)])
        );
        let elsewhere = seaworthy_model::id::RepositoryId("other".to_owned());
        let other = |points: &mut [RecoveryPoint]| points[0].repository.id = elsewhere.clone();
        assert_eq!(told(&[Some(false)], CheckRead::All, other), None);
    }
}
