//! Acts as they look: for the reference, for the frozen files in `formats/`, and for tests. Nothing here is real.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::custody::Custody;
use crate::finding::{Finding, FindingCode};
use crate::id::{
    CopyId, Digest, KeyFileId, KeyName, RepositoryId, RepositoryName, RunId, ServiceName, SourceName,
};
use crate::objective::Objective;
use crate::placement::{
    Case, Comply, Look, Looked, Place, Placed, PlacementPolicy, PlacementSpec, RULES, ReadBack, Seen,
    SeenCopy, Space, place,
};
use crate::receipt::{
    ABSENT, Abandoned, Absence, ActKind, Backup, Control, Drill, Due, Engine, Found, Gone, Independence,
    KeyChange, KeyDeed, Measured, Moved, Observed, Outcome, Phase, RecoveryPointMeasured, Replicate,
    RepositoryKey, RepositoryRef, Restore, Seed, Selection, Sizes, SourceRef, Teardown, Tool, VerifiedCopy,
    Verify,
};
use crate::retention::{
    Approved, Evidence, Held, HeldThing, Hold, Leaving, PlanDigest, PolicyInForce, Pruned, Refused, Released,
    Retain, Rule, Staying, Suspension,
};
use crate::service::RetentionSpec;
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
            checks: Vec::new(),
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
        independence: None,
        until: None,
        reached: None,
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
        until: None,
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
        is_doubted: false,
        point: of.point.unwrap_or(of.started),
        capture_began: Some(of.started),
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

/// A decision by which the copies of `marked` are marked, those of `unmarked` are not any more, and those of `removing` go.
#[must_use]
pub fn retain(about: &About, marked: &[&Backup], unmarked: &[&Backup], removing: &[&Backup]) -> Retain {
    let id = |of: &Backup| of.copy.clone().unwrap_or_else(|| copy_id("none"));
    let newer = Evidence { copy: copy_id("newer"), level: Some(Assurance::A4), sequence: 9 };
    let leaving = |of: &&Backup, marked| Leaving {
        copy: id(of),
        known_by: 1,
        at: of.started,
        stored_bytes: of.sizes.stored_bytes,
        newer: newer.clone(),
        marked,
    };
    Retain {
        run: RunId(format!("retain-{}", about.started.strftime("%Y%m%dT%H%M%SZ"))),
        service: about.service.clone(),
        source: about.source.clone(),
        repository: repository(),
        plan: PlanDigest(sha256(b"a plan")),
        is_approved: false,
        policy: PolicyInForce {
            keep: Some(RetentionSpec { daily: Some(30), monthly: Some(12), ..RetentionSpec::default() }),
            zone: "Europe/Amsterdam".to_owned(),
        },
        kept: 42,
        marked: marked.iter().map(|of| leaving(of, None)).collect(),
        unmarked: unmarked
            .iter()
            .map(|of| Staying { copy: id(of), why: "held: a case".to_owned() })
            .collect(),
        waiting: 1,
        removing: removing.iter().map(|of| leaving(of, Some(of.started))).collect(),
        refused: vec![Refused { rule: Rule::LastGood, copies: vec![copy_id("the last good one")] }],
        suspended: vec![Suspension { rule: Rule::FreshSource, why: "the newest run failed".to_owned() }],
        executor: "ops@host".to_owned(),
    }
}

/// A service is held.
#[must_use]
pub fn hold(about: &About) -> Held {
    let thing = HeldThing::Service(about.service.clone());
    let hold = Hold { thing, reason: "a dispute".to_owned(), until: None };
    Held { service: about.service.clone(), hold, executor: "ops@host".to_owned() }
}

/// A hold is over.
#[must_use]
pub fn release(about: &About, hold: u64) -> Released {
    let (service, executor) = (about.service.clone(), "ops@host".to_owned());
    Released { service, hold, reason: "the dispute is over".to_owned(), executor }
}

/// A plan is approved.
#[must_use]
pub fn approve(about: &About) -> Approved {
    Approved {
        service: about.service.clone(),
        source: about.source.clone(),
        repository: repository(),
        plan: PlanDigest(sha256(b"a plan")),
        reason: "another scheme".to_owned(),
        executor: "ops@host".to_owned(),
    }
}

/// A repository is pruned.
#[must_use]
pub fn prune(about: &About) -> Pruned {
    Pruned {
        run: RunId(format!("prune-{}", about.started.strftime("%Y%m%dT%H%M%SZ"))),
        repository: repository(),
        copies: 42,
        removed_bytes: 1_000_000,
        doomed_bytes: 2_000_000,
        repacked_bytes: 3_000_000,
        unused_bytes: 4_000,
        started: about.started,
        finished: about.after(60),
        executor: "ops@host".to_owned(),
    }
}

/// A key of the examples' repository: one in escrow, shown to open it.
#[must_use]
pub fn key_check(at: Timestamp) -> RepositoryKey {
    let id = |text: &str| KeyFileId(copy_id(text).0);
    RepositoryKey {
        repository: repository(),
        deed: KeyDeed::Checked,
        key: Some(id("escrow")),
        other: None,
        name: Some(KeyName::new("safe").expect("an example's name is a name")),
        custody: Some(Custody::Escrow),
        holder: Some("head of finance".to_owned()),
        read: Some(format!("snapshot {}", copy_id("read"))),
        keys: vec![id("online"), id("escrow")],
        findings: Vec::new(),
        finished: at,
        executor: "ops@vault-host".to_owned(),
    }
}

/// How a copy at another site was brought back by stock restic, with nothing missing.
#[must_use]
pub fn independence() -> Independence {
    Independence {
        program: Some(Tool { name: "restic".to_owned(), version: "restic 0.18.0".to_owned() }),
        program_digest: Some(sha256(b"restic")),
        key: Some(KeyFileId(copy_id("escrow").0)),
        key_name: Some(KeyName::new("safe").expect("an example's name is a name")),
        custody: Some(Custody::Escrow),
        production_key: KeyFileId(copy_id("online").0),
        is_other_password: true,
        home_site: Some("ams".to_owned()),
        copy_site: Some("fra".to_owned()),
        absent: ABSENT.iter().map(|what| Absence { what: (*what).to_owned(), is_shown: true }).collect(),
        restored_files: 12,
        restored_bytes: 1_500_000_000,
    }
}

/// What is asked of copies where nobody says otherwise; nothing is said of the live data.
#[must_use]
pub fn placement() -> PlacementSpec {
    PlacementSpec {
        production: Place::default(),
        policy: PlacementPolicy {
            copies: 3,
            media: 2,
            offsite: 1,
            other_account: 1,
            other_region: 0,
            immutable: 0,
            regions: Vec::new(),
            evidence_age: SignedDuration::from_hours(8 * 24),
        },
    }
}

/// A place of these words; `-` says nothing.
#[must_use]
pub fn somewhere(medium: &str, site: &str, region: &str, account: &str) -> Place {
    let said = |word: &str| (word != "-").then(|| word.to_owned());
    Place { medium: said(medium), site: said(site), region: said(region), account: said(account) }
}

/// A look at a repository that answered, and holds a copy of `backup` a piece of which was read back.
///
/// # Panics
///
/// Where a text is not a name, or the backup stored nothing.
#[must_use]
pub fn look(repository: &str, place: Place, backup: &Backup, at: Timestamp) -> Look {
    let name = RepositoryName::new(repository).expect("an example's name is a name");
    Look {
        repository: name.clone(),
        id: Some(RepositoryId(sha256(repository.as_bytes()).0.trim_start_matches("sha256:").to_owned())),
        place,
        at,
        seen: Seen::Answered,
        device: None,
        region_seen: None,
        immutable_until: None,
        password: [name].into(),
        keys: Some(1),
        listed: 1,
        vanished: 0,
        copies: vec![SeenCopy {
            copy: copy_id(&format!("{repository} {}", backup.run)),
            sequence: 2,
            run: backup.run.clone(),
            point: backup.point.expect("an example's backup has a point"),
            proven: None,
            is_bad: None,
            doubt: None,
            read: ReadBack::Authentic { bytes: 524_288 },
        }],
    }
}

/// What was seen of the copies of one source: the live data, a disk beside it, an object store elsewhere.
#[must_use]
pub fn case(backup: &Backup, now: Timestamp) -> Case {
    Case {
        service: backup.service.clone(),
        source: backup.source.clone(),
        production: somewhere("disk", "de-fra1", "eu-de", "works"),
        device: None,
        devices: std::collections::BTreeSet::new(),
        is_partly_unseen: false,
        policy: PlacementPolicy { regions: vec!["eu-*".to_owned()], ..placement().policy },
        rpo: Objective::Within(SignedDuration::from_hours(24)),
        fresh_within: SignedDuration::from_hours(26),
        proof_valid: SignedDuration::from_hours(35 * 24),
        looks: vec![
            look("local", somewhere("disk", "de-fra1", "eu-de", "works"), backup, now),
            look("away", somewhere("object-store", "nl-ams1", "eu-nl", "vault"), backup, now),
        ],
        now,
    }
}

/// A look at all copies that found what was asked for.
#[must_use]
pub fn comply(case: Case) -> Comply {
    let repositories = case.looks.iter().map(|look| Looked {
        repository: look.repository.clone(),
        id: look.id.clone(),
        seen: look.seen.clone(),
        took_ms: 1_200,
        snapshots: 14,
        read_bytes: 540_000,
        space: (look.repository.as_str() == "local").then_some(Space {
            free_bytes: 800_000_000_000,
            total_bytes: 1_000_000_000_000,
            grows_bytes_a_day: Some(2_000_000_000),
            days_left: Some(400),
            health: None,
        }),
    });
    let (started, repositories) = (case.now, repositories.collect());
    let placed = Placed { placement: place(&case), case };
    Comply {
        run: RunId(format!("comply-{}-5ea50a4d", started.strftime("%Y%m%dT%H%M%SZ"))),
        rules: RULES,
        answer: placed.placement.answer,
        repositories,
        sources: vec![placed],
        findings: Vec::new(),
        started,
        finished: started + SignedDuration::from_secs(4),
        executor: "crew@harbour".to_owned(),
    }
}
