//! Acts as they look: for the reference, for the frozen files in `formats/`, and for tests. Nothing here is real.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::finding::{Finding, FindingCode};
use crate::id::{CopyId, Digest, RepositoryId, RepositoryName, RunId, ServiceName, SourceName};
use crate::objective::Objective;
use crate::receipt::{
    Abandoned, ActKind, Backup, Control, Drill, Due, Engine, Found, Gone, KeyChange, Measured, Moved,
    Observed, Outcome, Phase, RecoveryPointMeasured, Replicate, RepositoryRef, Restore, Seed, Selection,
    Sizes, SourceRef, Teardown, Tool, VerifiedCopy, Verify,
};
use crate::signature::{PublicKey, sha256};
use crate::verdict::{Assurance, CheckOutcome, CheckReport, Verdict};

/// What an example is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Service.
    pub service: ServiceName,
    /// Source.
    pub source: SourceName,
    /// Begin of the run.
    pub started: Timestamp,
}

impl About {
    /// Of these names, at this instant.
    ///
    /// # Panics
    ///
    /// Where a text is not a name.
    #[must_use]
    pub fn new(service: &str, source: &str, started: Timestamp) -> Self {
        Self {
            service: ServiceName::new(service).expect("an example's name is a name"),
            source: SourceName::new(source).expect("an example's name is a name"),
            started,
        }
    }

    /// The run's id: act, instant and eight digits that follow from both and from the names.
    #[must_use]
    pub fn run(&self, act: ActKind) -> RunId {
        let stamp = self.started.strftime("%Y%m%dT%H%M%SZ");
        let tail = sha256(format!("{act} {} {} {}", self.service, self.source, self.started).as_bytes()).0;
        RunId(format!("{act}-{stamp}-{}", &tail[7..15]))
    }

    fn after(&self, seconds: i64) -> Timestamp {
        self.started + SignedDuration::from_secs(seconds)
    }
}

/// The repository of the examples.
#[must_use]
pub fn repository() -> RepositoryRef {
    RepositoryRef {
        id: RepositoryId("5e".repeat(32)),
        name: RepositoryName::new("vault-1").expect("an example's name is a name"),
        medium: Some("disk".to_owned()),
        site: Some("ams".to_owned()),
    }
}

/// A copy id that follows from a text.
#[must_use]
pub fn copy_id(text: &str) -> CopyId {
    CopyId(sha256(text.as_bytes()).0.trim_start_matches("sha256:").to_owned())
}

fn tools() -> Vec<Tool> {
    vec![
        Tool { name: "seaworthy".to_owned(), version: "0.1.0".to_owned() },
        Tool { name: "postgres".to_owned(), version: "15.18".to_owned() },
    ]
}

fn phases(names: &[&str]) -> Vec<Phase> {
    names.iter().map(|name| Phase { name: (*name).to_owned(), took_ms: 1_250 }).collect()
}

fn witness(copy: &CopyId) -> Digest {
    sha256(format!("witness of {copy}").as_bytes())
}

/// A committed slot.
#[must_use]
pub fn due(about: &About, act: ActKind) -> Due {
    Due {
        run: about.run(act),
        service: about.service.clone(),
        source: about.source.clone(),
        act,
        due_at: about.started,
    }
}

/// A complete backup, two minutes long, of the instant at which it began.
#[must_use]
pub fn backup(about: &About, due: Option<u64>) -> Backup {
    let run = about.run(ActKind::Backup);
    let copy = copy_id(&run.0);
    Backup {
        due,
        service: about.service.clone(),
        source: about.source.clone(),
        source_kind: "postgres".to_owned(),
        source_identity: Some("7311895544123456789".to_owned()),
        repository: repository(),
        witness: Some(witness(&copy)),
        copy: Some(copy),
        point: Some(about.started),
        started: about.started,
        finished: about.after(120),
        outcome: Outcome::Complete,
        sizes: Sizes {
            restore_bytes: 1_500_000_000,
            read_bytes: 1_500_000_000,
            added_bytes: 31_000_000,
            stored_bytes: 12_000_000,
            items: 41,
        },
        findings: Vec::new(),
        tools: tools(),
        phases: phases(&["probe", "capture", "commit"]),
        executor: "backup@db-2".to_owned(),
        run,
    }
}

/// A backup that failed because the database did not answer.
#[must_use]
pub fn failed_backup(about: &About, due: Option<u64>) -> Backup {
    Backup {
        copy: None,
        point: None,
        witness: None,
        outcome: Outcome::Failed,
        sizes: Sizes::default(),
        findings: vec![Finding::new(
            FindingCode::Unreachable,
            format!("{}/{}", about.service, about.source),
            "connection refused on 10.0.0.2:5432",
        )],
        phases: phases(&["probe"]),
        ..backup(about, due)
    }
}

/// A drill of that backup that passed at A4 with both lines, in six minutes of an objective of two hours.
#[must_use]
pub fn drill(about: &About, due: Option<u64>, of: &Backup, backup: Option<u64>) -> Drill {
    let copy = of.copy.clone().unwrap_or_else(|| copy_id("none"));
    let point = of.point.unwrap_or(about.started);
    let names = ["schema", "rows:public.orders", "rows:public.line_items"];
    let exposure = about.started.duration_since(point).as_millis();
    Drill {
        run: about.run(ActKind::Drill),
        due,
        service: about.service.clone(),
        source: about.source.clone(),
        source_kind: of.source_kind.clone(),
        repository: of.repository.clone(),
        backup,
        point,
        selection: Selection {
            rule: "random in PT720H".to_owned(),
            seed: Some(Seed(0x9f3a_01bc_5d00_77e1)),
            candidates: 1,
            candidates_digest: sha256(format!("{copy}\n").as_bytes()),
        },
        started: about.started,
        finished: about.after(372),
        phases: phases(&["fetch", "provision", "restore", "checks", "control", "teardown"]),
        sandbox: Observed::from(json!({
            "provider": "process", "mode": "user-namespace", "uid": 65_534, "interfaces": [],
            "refused_connections": ["1.1.1.1:53: network is unreachable"],
            "limits": ["memory 2 GiB"], "inherited_descriptors": 0
        })),
        engine: Some(Engine {
            summary: "PostgreSQL 15.18 on a Unix socket".to_owned(),
            identity: Some("7566120045678901234".to_owned()),
        }),
        expected_checks: names.iter().map(|name| (*name).to_owned()).collect(),
        checks: names
            .iter()
            .map(|name| CheckReport {
                name: (*name).to_owned(),
                outcome: CheckOutcome::Passed,
                detail: "120000 rows, 120000 expected; sums equal".to_owned(),
                findings: Vec::new(),
            })
            .collect(),
        control: Some(Control {
            seed: Seed(7),
            damage: "one row of public.orders changed".to_owned(),
            expected: vec![FindingCode::RowContent],
            executed: 3,
            failed: vec![CheckReport {
                name: "rows:public.orders".to_owned(),
                outcome: CheckOutcome::Failed,
                detail: "120000 rows, 120000 expected; sums differ".to_owned(),
                findings: vec![Finding::new(
                    FindingCode::RowContent,
                    "public.orders",
                    "120000 rows, 120000 expected; sums differ",
                )],
            }],
            caught: true,
            answers: Vec::new(),
        }),
        verdict: Verdict::Pass(Assurance::A4),
        rto: Measured::new(Some(360_000), Objective::Within(SignedDuration::from_hours(2))),
        rpo: RecoveryPointMeasured {
            newest: Some(point),
            exposure: Measured::new(
                u64::try_from(exposure).ok(),
                Objective::Within(SignedDuration::from_hours(24)),
            ),
        },
        findings: Vec::new(),
        fetched_bytes: 12_000_000,
        restored_bytes: 1_500_000_000,
        witness: Some(witness(&copy)),
        copy,
        tools: tools(),
        executor: "drill@db-3".to_owned(),
        teardown: Teardown { proven: true, removed_bytes: 1_600_000_000, detail: String::new() },
        next_due: None,
    }
}

/// A drill of that backup that found a table with other rows.
#[must_use]
pub fn failed_drill(about: &About, due: Option<u64>, of: &Backup, backup: Option<u64>) -> Drill {
    let mut drill = drill(about, due, of, backup);
    let finding = Finding::new(FindingCode::RowCount, "public.orders", "119999 rows, 120000 expected");
    if let Some(check) = drill.checks.get_mut(1) {
        check.outcome = CheckOutcome::Failed;
        check.detail = finding.detail.clone();
        check.findings = vec![finding.clone()];
    }
    drill.control = None;
    drill.findings = vec![finding];
    drill.verdict = Verdict::Fail;
    drill.rto = Measured::new(None, drill.rto.target);
    drill
}

/// A restore of that backup into a directory.
#[must_use]
pub fn restore(about: &About, due: Option<u64>, of: &Backup, backup: Option<u64>) -> Restore {
    let copy = of.copy.clone().unwrap_or_else(|| copy_id("none"));
    Restore {
        run: about.run(ActKind::Restore),
        due,
        service: about.service.clone(),
        source: about.source.clone(),
        source_kind: of.source_kind.clone(),
        repository: of.repository.clone(),
        backup,
        point: of.point.unwrap_or(about.started),
        selection: Selection {
            rule: "latest".to_owned(),
            seed: None,
            candidates: 1,
            candidates_digest: sha256(format!("{copy}\n").as_bytes()),
        },
        copy,
        target: "database shop_restored on db-3".to_owned(),
        scope: Vec::new(),
        started: about.started,
        finished: about.after(300),
        phases: phases(&["fetch", "restore"]),
        outcome: Outcome::Complete,
        written_files: 41,
        written_bytes: 1_500_000_000,
        fetched_bytes: 12_000_000,
        findings: Vec::new(),
        tools: tools(),
        executor: "maria@db-3".to_owned(),
    }
}

/// A verification of the whole repository that found these backups' copies intact, or all of them damaged.
#[must_use]
pub fn verify(about: &About, of: &[(&Backup, Option<u64>)], intact: bool) -> Verify {
    Verify {
        run: about.run(ActKind::Verify),
        due: None,
        repository: repository(),
        copies: of
            .iter()
            .filter_map(|(backup, sequence)| {
                Some(VerifiedCopy {
                    copy: backup.copy.clone()?,
                    of: Some(SourceRef { service: backup.service.clone(), source: backup.source.clone() }),
                    backup: *sequence,
                    point: backup.point?,
                    intact,
                })
            })
            .collect(),
        read_percent: 100,
        read_bytes: 12_000_000,
        started: about.started,
        finished: about.after(60),
        outcome: Outcome::Complete,
        findings: if intact {
            Vec::new()
        } else {
            vec![Finding::new(FindingCode::ObjectDamaged, "pack 5e5e5e5e", "its SHA-256 is not its name")]
        },
        executor: "drill@db-3".to_owned(),
    }
}

/// A drill that nobody ended.
#[must_use]
pub fn abandoned(about: &About, due: Option<u64>) -> Abandoned {
    Abandoned {
        run: about.run(ActKind::Drill),
        due,
        service: about.service.clone(),
        source: about.source.clone(),
        act: ActKind::Drill,
        reason: "its process is gone; sandbox removed".to_owned(),
    }
}

/// A change to that key.
#[must_use]
pub fn key_change(to: &PublicKey, retires: Option<&PublicKey>) -> KeyChange {
    KeyChange {
        introduces: to.id(),
        public_key: to.to_pem(),
        retires: retires.map(PublicKey::id),
        reason: "yearly rotation".to_owned(),
    }
}

/// The copy of a backup, found without its receipt.
#[must_use]
pub fn found(of: &Backup) -> Found {
    Found {
        service: of.service.clone(),
        source: of.source.clone(),
        run: of.run.clone(),
        repository: of.repository.clone(),
        copy: of.copy.clone().unwrap_or_else(|| copy_id("none")),
        point: of.point.unwrap_or(of.started),
        finished: of.finished,
        outcome: of.outcome,
        restore_bytes: of.sizes.restore_bytes,
        stored_bytes: of.sizes.stored_bytes,
        witness: of.witness.clone(),
        source_identity: of.source_identity.clone(),
        executor: of.executor.clone(),
    }
}

/// The copy of a backup, replicated into another repository.
#[must_use]
pub fn replicate(of: &Backup, known_by: u64, at: Timestamp) -> Replicate {
    let original = of.copy.clone().unwrap_or_else(|| copy_id("none"));
    Replicate {
        run: RunId(format!("replicate-{known_by}")),
        due: None,
        service: of.service.clone(),
        source: of.source.clone(),
        from: of.repository.clone(),
        known_by,
        captured_by: of.run.clone(),
        repository: RepositoryRef { id: RepositoryId("2".repeat(64)), ..of.repository.clone() },
        copy: Some(copy_id(&format!("replica of {original}"))),
        original,
        was_there: false,
        is_implausible: false,
        point: of.point.unwrap_or(of.started),
        captured: of.finished,
        outcome: of.outcome,
        restore_bytes: of.sizes.restore_bytes,
        moved: Moved {
            copies: 1,
            read_bytes: 10,
            stored_bytes: 10,
            packs: 1,
            packs_verified: 1,
            packs_attested: 0,
            blobs: 2,
            blobs_verified: 1,
        },
        witness: of.witness.clone(),
        source_identity: of.source_identity.clone(),
        started: at,
        finished: at,
        findings: Vec::new(),
        executor: of.executor.clone(),
    }
}

/// The copy of a backup, no longer there; no other remains.
#[must_use]
pub fn gone(of: &Backup, known_by: u64) -> Gone {
    Gone {
        service: of.service.clone(),
        source: of.source.clone(),
        repository: of.repository.clone(),
        copy: of.copy.clone().unwrap_or_else(|| copy_id("none")),
        known_by,
        newest: None,
        executor: of.executor.clone(),
    }
}
