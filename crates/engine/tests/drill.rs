//! The drill against doubles that can be told to lie: every way in which a pass would be undeserved ends in no pass.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use seaworthy_engine::{DrillDone, DrillRequest, Moment, drill};
use seaworthy_interface::copy::Written;
use seaworthy_interface::{
    Captured, CopyEntry, CopyPath, CopyReader, CopyWriter, Cx, Damage, Delivered, DriverError, EntryKind,
    ErrorKind, Exec, ExecOutcome, HeldFile, HeldPiece, Journal, NewTarget, PieceOf, Restored, Restoring,
    Sandbox, SandboxFacts, SandboxProcess, SandboxProvider, Source, SourceFacts,
};
use seaworthy_model::check::{Question, UserCheck};
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::id::{CheckName, RunId};
use seaworthy_model::objective::{Objective, RecoveryObjective};
use seaworthy_model::verdict::{Assurance, CheckOutcome, CheckReport, Verdict};
use seaworthy_model::wal::{Lsn, MOMENT, Reached, Target};
use seaworthy_model::witness::Witness;
use seaworthy_model::witness::content::{Content, CutList};
use seaworthy_model::witness::sqlite::{Integrity, Orphans, SqliteWitness, TableContent, rows_check};

/// How the doubles behave; everything is healthy by default.
#[derive(Debug, Clone, Default)]
struct Lies {
    sandbox: Option<ErrorKind>,
    teardown_fails: bool,
    restore: Option<(ErrorKind, Option<FindingCode>)>,
    restore_hangs: bool,
    rows_lost: u64,
    same_engine: bool,
    damage_does_nothing: bool,
    damage_fails: bool,
    /// Whether the damage leaves no trace, and something else differs meanwhile.
    damage_elsewhere: bool,
    damage_ruins: Option<(ErrorKind, FindingCode)>,
    witness_fails: bool,
    table_not_measured: bool,
    nothing_fetched: bool,
    user_check: Option<CheckOutcome>,
    write_probe: Option<CheckOutcome>,
    rest: Option<(ErrorKind, FindingCode)>,
    /// Why the log does not lead to a moment.
    astray: Option<ErrorKind>,
    /// Whether what is found at a moment is damaged.
    moment_damaged: bool,
    /// Whether it is not told where recovery ended.
    moment_untold: bool,
    /// Whether nothing is looked at there.
    moment_unseen: bool,
    /// Whether the engine complained while it was restored to a moment.
    moment_murmurs: bool,
}

fn witness(rows: u64) -> Witness {
    Witness::Sqlite(Box::new(SqliteWitness {
        version: 1,
        file: "state.sqlite".to_owned(),
        image: Content { size: 0, cuts: CutList::default(), digest: String::new() },
        properties: BTreeMap::new(),
        objects: Vec::new(),
        tables: vec![TableContent {
            name: "booking".to_owned(),
            rows: Some(rows),
            sum: format!("{rows:032x}"),
            unreadable: None,
        }],
        sequences: BTreeMap::new(),
        integrity: Integrity::Sound,
        orphans: Orphans::Counted { by_reference: BTreeMap::new() },
        may_be_empty: false,
    }))
}

#[derive(Debug)]
struct Double {
    lies: Lies,
    closed: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Scratch {
    lies: Lies,
    facts: SandboxFacts,
    closed: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Engine {
    lies: Lies,
    damaged: AtomicBool,
    reached: Option<Reached>,
}

struct NoJournal;

impl Journal for NoJournal {
    fn put(&self, of: &PieceOf, _: &bytes::Bytes) -> Result<HeldPiece, DriverError> {
        Ok(HeldPiece { of: *of, key: String::new(), apart: None })
    }
    fn held(&self) -> Result<Vec<HeldPiece>, DriverError> {
        Ok(Vec::new())
    }
    fn read(&self, _: &HeldPiece) -> Result<bytes::Bytes, DriverError> {
        Ok(bytes::Bytes::new())
    }
    fn put_file(&self, system: u64, name: &str, _: &bytes::Bytes) -> Result<HeldFile, DriverError> {
        Ok(HeldFile { system, name: name.to_owned(), key: String::new() })
    }

    fn files(&self) -> Result<Vec<HeldFile>, DriverError> {
        Ok(Vec::new())
    }

    fn read_file(&self, _: &HeldFile) -> Result<bytes::Bytes, DriverError> {
        Ok(bytes::Bytes::new())
    }

    fn set_apart(&self, _: &[HeldPiece], _: Timestamp) -> Result<(), DriverError> {
        Ok(())
    }

    fn remove(&self, _: &[HeldPiece]) -> Result<(), DriverError> {
        Ok(())
    }
}

struct Reader {
    /// By each restore, and so far.
    each: u64,
    fetched: AtomicU64,
    rest: Option<(ErrorKind, FindingCode)>,
}

impl CopyReader for Reader {
    fn kind(&self, path: &CopyPath) -> Result<EntryKind, DriverError> {
        Err(DriverError::new(ErrorKind::NotFound, path.to_string()))
    }
    fn list(&self, _: Option<&CopyPath>) -> Result<Vec<CopyEntry>, DriverError> {
        Ok(Vec::new())
    }
    fn read(&self, path: &CopyPath, _: u64) -> Result<Vec<u8>, DriverError> {
        Err(DriverError::new(ErrorKind::NotFound, path.to_string()))
    }
    fn open(&self, path: &CopyPath) -> Result<Box<dyn Read + Send>, DriverError> {
        Err(DriverError::new(ErrorKind::NotFound, path.to_string()))
    }
    fn restore(&self, _: &CopyPath, _: &Path, _: &Restoring) -> Result<Written, DriverError> {
        self.fetched.fetch_add(self.each, Ordering::SeqCst);
        Ok(Written::default())
    }
    fn read_rest(&self) -> Result<Written, DriverError> {
        match self.rest {
            None => Ok(Written { files: 3, bytes: 500 }),
            Some((kind, code)) => Err(DriverError::new(kind, "read `globals.sql` of the copy").code(code)),
        }
    }
    fn fetched_bytes(&self) -> u64 {
        self.fetched.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl SandboxProvider for Double {
    async fn open(&self, _: &Cx, _: &RunId, _: u64) -> Result<Arc<dyn Sandbox>, DriverError> {
        if let Some(kind) = self.lies.sandbox {
            return Err(DriverError::new(kind, "open a sandbox").code(FindingCode::EnvDisk));
        }
        let facts = SandboxFacts {
            provider: "double".to_owned(),
            mode: "none".to_owned(),
            uid: 1,
            interfaces: Vec::new(),
            refused_connections: Vec::new(),
            limits: Vec::new(),
            inherited_descriptors: 0,
        };
        Ok(Arc::new(Scratch { lies: self.lies.clone(), facts, closed: Arc::clone(&self.closed) }))
    }
    async fn reap(&self, _: &Cx, _: &[RunId]) -> Result<usize, DriverError> {
        Ok(0)
    }
    async fn probe(&self, _: &Cx) -> Result<Vec<Finding>, DriverError> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Sandbox for Scratch {
    fn root(&self) -> &Path {
        Path::new("/nowhere")
    }
    fn facts(&self) -> &SandboxFacts {
        &self.facts
    }
    async fn own(&self, _: &Cx, _: &Path) -> Result<(), DriverError> {
        Ok(())
    }
    async fn exec(&self, _: &Cx, _: Exec) -> Result<ExecOutcome, DriverError> {
        Err(DriverError::new(ErrorKind::Unsupported, "run a program in a double"))
    }
    async fn spawn(&self, _: &Cx, _: Exec) -> Result<Box<dyn SandboxProcess>, DriverError> {
        Err(DriverError::new(ErrorKind::Unsupported, "start a program in a double"))
    }
    async fn close(&self, _: &Cx) -> Result<u64, DriverError> {
        self.closed.fetch_add(1, Ordering::SeqCst);
        if self.lies.teardown_fails {
            Err(DriverError::new(ErrorKind::Other, "remove the sandbox"))
        } else {
            Ok(4096)
        }
    }
}

#[async_trait]
impl Source for Double {
    async fn probe(&self, _: &Cx) -> Result<SourceFacts, DriverError> {
        Err(DriverError::new(ErrorKind::Unsupported, "probe a double"))
    }
    async fn capture(&self, _: &Cx, _: Arc<dyn CopyWriter>) -> Result<Captured, DriverError> {
        Err(DriverError::new(ErrorKind::Unsupported, "capture a double"))
    }
    async fn restore(
        &self,
        _: &Cx,
        _: &Witness,
        from: Arc<dyn CopyReader>,
        _: Arc<dyn Sandbox>,
    ) -> Result<Box<dyn Restored>, DriverError> {
        from.restore(&CopyPath::new("all").unwrap(), Path::new("/nowhere"), &Restoring::default())?;
        if self.lies.restore_hangs {
            std::future::pending::<()>().await;
        }
        if let Some((kind, code)) = self.lies.restore {
            let error = DriverError::new(kind, "restore the copy");
            return Err(match code {
                Some(code) => error.code(code),
                None => error,
            });
        }
        let damaged = AtomicBool::new(false);
        Ok(Box::new(Engine { lies: self.lies.clone(), damaged, reached: None }))
    }
    async fn restore_until(
        &self,
        _: &Cx,
        _: &[(Witness, Arc<dyn CopyReader>)],
        _: Arc<dyn Journal>,
        _: Arc<dyn Sandbox>,
        until: &Target,
    ) -> Result<Box<dyn Restored>, DriverError> {
        if let Some(kind) = self.lies.astray {
            return Err(DriverError::new(kind, "go on").code(FindingCode::MomentMissed));
        }
        let at = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(9);
        let reached = Reached { target: until.clone(), at, position: Lsn(7), bytes: 3 };
        Ok(Box::new(Engine {
            lies: Lies { write_probe: None, ..self.lies.clone() },
            damaged: AtomicBool::new(self.lies.moment_damaged),
            reached: Some(reached).filter(|_| !self.lies.moment_untold),
        }))
    }
    async fn deliver(
        &self,
        _: &Cx,
        _: &Witness,
        _: Arc<dyn CopyReader>,
        _: &NewTarget,
    ) -> Result<Delivered, DriverError> {
        Err(DriverError::new(ErrorKind::Unsupported, "deliver a double"))
    }
}

fn report(outcome: Option<CheckOutcome>) -> CheckReport {
    CheckReport {
        name: "x".to_owned(),
        outcome: outcome.unwrap_or(CheckOutcome::Passed),
        detail: String::new(),
        findings: Vec::new(),
    }
}

#[async_trait]
impl Restored for Engine {
    fn summary(&self) -> String {
        "a double".to_owned()
    }
    fn findings(&self) -> Vec<Finding> {
        let murmurs = self.reached.is_some() && self.lies.moment_murmurs;
        let murmur = murmurs.then(|| Finding::new(FindingCode::Corruption, "engine", "it complained"));
        murmur.into_iter().collect()
    }
    fn engine_identity(&self) -> Option<String> {
        Some(if self.lies.same_engine { "live" } else { "scratch" }.to_owned())
    }
    fn reached(&self) -> Option<Reached> {
        self.reached.clone()
    }
    async fn compare(&self, _: &Cx, expected: &Witness) -> Result<Vec<CheckReport>, DriverError> {
        if self.lies.witness_fails {
            return Err(DriverError::new(ErrorKind::Unreachable, "ask the scratch engine"));
        }
        if let (Some((kind, code)), true) = (self.lies.damage_ruins, self.damaged.load(Ordering::SeqCst)) {
            return Err(DriverError::new(kind, "measure what the damage has left").code(code));
        }
        if self.reached.is_some() && self.lies.moment_unseen {
            return Ok(Vec::new());
        }
        let lost = self.lies.rows_lost + u64::from(self.damaged.load(Ordering::SeqCst));
        let mut observed = witness(100 - lost);
        if let (Witness::Sqlite(sqlite), true) = (&mut observed, self.lies.table_not_measured) {
            sqlite.tables.clear();
        }
        let (Witness::Sqlite(expected), Witness::Sqlite(observed)) = (expected, observed) else {
            return Err(DriverError::new(ErrorKind::Refused, "compare another kind"));
        };
        Ok(expected.compare(&observed))
    }
    async fn newest(&self, _: &Cx) -> Result<Option<Timestamp>, DriverError> {
        Ok(None)
    }
    async fn answer(&self, _: &Cx, _: &UserCheck, _: Timestamp) -> Result<CheckReport, DriverError> {
        Ok(report(self.lies.user_check))
    }
    async fn write_probe(&self, _: &Cx) -> Result<CheckReport, DriverError> {
        Ok(report(self.lies.write_probe))
    }
    async fn damage(&self, _: &Cx, _: &Witness, _: u64) -> Result<Damage, DriverError> {
        if self.lies.damage_fails {
            return Err(DriverError::new(ErrorKind::Other, "damage the restore"));
        }
        self.damaged.store(!self.lies.damage_does_nothing, Ordering::SeqCst);
        Ok(Damage {
            description: "deleted one row".to_owned(),
            expected: vec![FindingCode::RowCount],
            checks: vec![rows_check(if self.lies.damage_elsewhere { "cabin" } else { "booking" })],
        })
    }
    async fn close(self: Box<Self>, _: &Cx) -> Result<(), DriverError> {
        Ok(())
    }
}

fn request(checks: usize) -> DrillRequest {
    DrillRequest {
        onward: None,
        run: RunId("drill-test".to_owned()),
        point: Timestamp::UNIX_EPOCH,
        witness: Some(witness(100)),
        checks: (0..checks)
            .map(|number| UserCheck {
                name: CheckName::new(format!("check-{number}")).unwrap(),
                question: Question::MinimumRows { table: "booking".to_owned(), rows: 1 },
                timeout: SignedDuration::from_secs(5),
            })
            .collect(),
        objective: RecoveryObjective {
            rpo: Objective::NotApplicable,
            rto: Objective::Within(SignedDuration::from_hours(1)),
        },
        needed_bytes: 1,
        deadline: Duration::from_secs(5),
        control_seed: 1,
        doubts_checks: false,
        source_identity: Some("live".to_owned()),
    }
}

async fn drilled_as(lies: Lies, request: DrillRequest, cx: &Cx) -> (DrillDone, u64) {
    let closed = Arc::new(AtomicU64::new(0));
    let double = Double { lies: lies.clone(), closed: Arc::clone(&closed) };
    let each = if lies.nothing_fetched { 0 } else { 4096 };
    let reader = Arc::new(Reader { each, fetched: AtomicU64::new(0), rest: lies.rest });
    let done = drill(cx, &double, reader, &double, request, Vec::new()).await;
    (done, closed.load(Ordering::SeqCst))
}

async fn drilled(lies: Lies) -> DrillDone {
    drilled_as(lies, request(1), &Cx::unbounded()).await.0
}

fn codes(done: &DrillDone) -> Vec<FindingCode> {
    done.checks
        .iter()
        .flat_map(|check| &check.findings)
        .chain(&done.findings)
        .map(|finding| finding.code)
        .collect()
}

#[tokio::test]
async fn a_healthy_restore_passes_and_the_doubt_is_answered() {
    let done = drilled(Lies::default()).await;
    assert_eq!(done.verdict, Verdict::Pass(Assurance::A5), "{done:#?}");
    assert!(done.control.unwrap().caught);
    assert_eq!(done.removed_bytes, Some(4096));
}

/// The drill of a copy and of a moment, and what came of the moment.
async fn went(lies: Lies) -> (DrillDone, Option<CheckOutcome>) {
    let moment = Moment { until: Target::Latest, behind: Vec::new(), journal: Arc::new(NoJournal) };
    let (done, closed) =
        drilled_as(lies, DrillRequest { onward: Some(moment), ..request(1) }, &Cx::unbounded()).await;
    assert_eq!(closed, 2, "each in a sandbox of its own");
    let outcome = done.checks.iter().find(|check| check.name == MOMENT).map(|check| check.outcome);
    (done, outcome)
}

#[tokio::test]
async fn a_moment_is_one_check_more_and_never_passes_by_itself() {
    use CheckOutcome::{Failed, Inconclusive, Passed};
    let (done, moment) = went(Lies::default()).await;
    assert_eq!((done.verdict, moment), (Verdict::Pass(Assurance::A5), Some(Passed)), "{done:#?}");
    assert!(done.reached.is_some() && done.control.is_some());
    // What the moment has fetched does not count for the copy.
    assert_eq!((done.fetched_bytes, done.removed_bytes), (4096, Some(8192)));
    assert_eq!(done.phases[0].name, MOMENT);
    // The log is damaged; or holds no such moment; or nothing can be said.
    for (lies, verdict, outcome) in [
        (Lies { astray: Some(ErrorKind::Corrupt), ..Lies::default() }, Verdict::Fail, Failed),
        (Lies { moment_damaged: true, ..Lies::default() }, Verdict::Fail, Failed),
        (Lies { astray: Some(ErrorKind::Refused), ..Lies::default() }, Verdict::Inconclusive, Inconclusive),
        (Lies { astray: Some(ErrorKind::Exhausted), ..Lies::default() }, Verdict::Inconclusive, Inconclusive),
        (Lies { moment_murmurs: true, ..Lies::default() }, Verdict::Fail, Failed),
        (Lies { moment_unseen: true, ..Lies::default() }, Verdict::Inconclusive, Inconclusive),
        (Lies { moment_untold: true, ..Lies::default() }, Verdict::Inconclusive, Inconclusive),
        (Lies { teardown_fails: true, ..Lies::default() }, Verdict::Inconclusive, Inconclusive),
    ] {
        let (done, moment) = went(lies.clone()).await;
        assert_eq!((done.verdict, moment), (verdict, Some(outcome)), "{lies:?}: {done:#?}");
        assert!(done.reached.is_none() && codes(&done).contains(&FindingCode::MomentMissed), "{lies:?}");
    }
    // A good moment says nothing of a copy that is bad.
    let (done, moment) = went(Lies { write_probe: Some(Failed), ..Lies::default() }).await;
    assert_eq!((done.verdict, moment), (Verdict::Fail, Some(Passed)));
    // Without the truth about the copy nothing is gone on with.
    let moment = Moment { until: Target::Latest, behind: Vec::new(), journal: Arc::new(NoJournal) };
    let blind = DrillRequest { witness: None, onward: Some(moment), ..request(1) };
    let (done, _) = drilled_as(Lies::default(), blind, &Cx::unbounded()).await;
    assert_eq!(done.verdict, Verdict::Inconclusive);
}

#[tokio::test]
async fn what_differs_elsewhere_is_not_the_damage_that_was_made() {
    let done = drilled(Lies { damage_elsewhere: true, ..Lies::default() }).await;
    assert_eq!((done.verdict, codes(&done)), (Verdict::Inconclusive, vec![FindingCode::CheckerBlind]));
    let control = done.control.unwrap();
    assert!(!control.caught, "{control:?}");
    // It was found under the code of the damage, and of another table.
    assert_eq!(control.failed[0].name, "rows:booking");
    assert_eq!(control.failed[0].findings[0].code, control.expected[0]);
    assert_eq!(control.checks, ["rows:cabin"]);
}

#[tokio::test]
async fn damage_in_what_the_restore_did_not_need_is_found() {
    let done =
        drilled(Lies { rest: Some((ErrorKind::Corrupt, FindingCode::ObjectDamaged)), ..Lies::default() })
            .await;
    assert_eq!(done.verdict, Verdict::Fail);
    assert_eq!(codes(&done), [FindingCode::ObjectDamaged]);
    assert!(done.control.is_none() && done.rto.is_some());
    // A medium that cannot be read now has not shown that the copy is bad.
    let done =
        drilled(Lies { rest: Some((ErrorKind::Other, FindingCode::ReadFailed)), ..Lies::default() }).await;
    assert_eq!(done.verdict, Verdict::Inconclusive);
}

#[tokio::test]
async fn questions_are_asked_again_after_the_damage_only_where_they_are_doubted() {
    let done = drilled(Lies::default()).await;
    assert!(done.control.unwrap().answers.is_empty());
    let doubting = DrillRequest { doubts_checks: true, ..request(2) };
    let (done, _) = drilled_as(Lies::default(), doubting, &Cx::unbounded()).await;
    assert_eq!(done.verdict, Verdict::Pass(Assurance::A5));
    let names: Vec<String> = done.control.unwrap().answers.into_iter().map(|answer| answer.name).collect();
    assert_eq!(names, ["user:check-0", "user:check-1"]);
}

#[tokio::test]
async fn without_a_question_of_the_users_nobody_has_shown_that_it_is_usable() {
    let (done, _) = drilled_as(Lies::default(), request(0), &Cx::unbounded()).await;
    assert_eq!(done.verdict, Verdict::Pass(Assurance::A4));
}

#[tokio::test]
async fn beyond_the_objective_it_is_equal_and_not_usable() {
    let mut slow = request(1);
    slow.objective.rto = Objective::Within(SignedDuration::ZERO);
    let (done, _) = drilled_as(Lies::default(), slow, &Cx::unbounded()).await;
    assert_eq!(done.verdict, Verdict::Pass(Assurance::A4));
}

#[tokio::test]
async fn a_lost_row_fails_and_needs_no_control_line() {
    let done = drilled(Lies { rows_lost: 1, ..Lies::default() }).await;
    assert_eq!(done.verdict, Verdict::Fail);
    assert!(codes(&done).contains(&FindingCode::RowCount));
    assert!(done.control.is_none());
}

#[tokio::test]
async fn checks_that_do_not_notice_a_damage_pass_nothing() {
    let done = drilled(Lies { damage_does_nothing: true, ..Lies::default() }).await;
    assert_eq!(done.verdict, Verdict::Inconclusive);
    assert!(codes(&done).contains(&FindingCode::CheckerBlind));
}

#[tokio::test]
async fn a_control_line_that_cannot_be_drawn_passes_nothing() {
    let done = drilled(Lies { damage_fails: true, ..Lies::default() }).await;
    assert_eq!(done.verdict, Verdict::Inconclusive);
    assert!(codes(&done).contains(&FindingCode::CheckerBlind));
}

#[tokio::test]
async fn a_damage_that_leaves_nothing_to_measure_is_noticed() {
    let seen =
        drilled(Lies { damage_ruins: Some((ErrorKind::Corrupt, FindingCode::RowCount)), ..Lies::default() })
            .await;
    assert_eq!(seen.verdict, Verdict::Pass(Assurance::A5), "{seen:#?}");
    let control = seen.control.unwrap();
    assert!(control.caught);
    assert_eq!(control.executed, 1);
    // Another code than the damage's, or an excuse, is no answer.
    for (kind, code) in [
        (ErrorKind::Corrupt, FindingCode::ObjectDamaged),
        (ErrorKind::Exhausted, FindingCode::EnvDisk),
        (ErrorKind::Unreachable, FindingCode::Unreachable),
    ] {
        let blind = drilled(Lies { damage_ruins: Some((kind, code)), ..Lies::default() }).await;
        assert_eq!(blind.verdict, Verdict::Inconclusive, "{kind:?}");
        assert!(codes(&blind).contains(&FindingCode::CheckerBlind));
    }
}

#[tokio::test]
async fn a_table_that_nobody_measured_passes_nothing() {
    let done = drilled(Lies { table_not_measured: true, ..Lies::default() }).await;
    assert!(!matches!(done.verdict, Verdict::Pass(_)), "{:?}", done.verdict);
}

#[tokio::test]
async fn an_engine_that_does_not_answer_is_not_the_copys_fault_and_no_pass() {
    let done = drilled(Lies { witness_fails: true, ..Lies::default() }).await;
    assert_eq!(done.verdict, Verdict::Inconclusive);
}

#[tokio::test]
async fn without_a_witness_there_is_no_pass() {
    let blind = DrillRequest { witness: None, ..request(1) };
    let (done, closed) = drilled_as(Lies::default(), blind, &Cx::unbounded()).await;
    assert_eq!(done.verdict, Verdict::Inconclusive);
    assert!(codes(&done).contains(&FindingCode::NoWitness));
    assert_eq!(closed, 1);
}

#[tokio::test]
async fn a_witness_that_is_damaged_or_not_ours_blames_the_copy() {
    for code in [FindingCode::ObjectDamaged, FindingCode::WitnessNotOurs] {
        let double = Double { lies: Lies::default(), closed: Arc::default() };
        let blind = DrillRequest { witness: None, ..request(1) };
        let before = vec![Finding::new(code, "witness", "as it was read")];
        let done = drill(
            &Cx::unbounded(),
            &double,
            Arc::new(Reader { each: 4096, fetched: AtomicU64::new(0), rest: None }),
            &double,
            blind,
            before,
        )
        .await;
        assert_eq!(done.verdict, Verdict::Fail, "{code}");
    }
}

#[tokio::test]
async fn a_disk_that_is_full_blames_the_environment() {
    let done = drilled(Lies { sandbox: Some(ErrorKind::Exhausted), ..Lies::default() }).await;
    assert_eq!(done.verdict, Verdict::Inconclusive);
    assert!(codes(&done).iter().all(|code| code.as_str().starts_with("ENV-")), "{:?}", codes(&done));
}

#[tokio::test]
async fn damaged_bytes_blame_the_copy() {
    for (kind, code) in [
        (ErrorKind::Corrupt, None),
        (ErrorKind::NotFound, None),
        (ErrorKind::Other, Some(FindingCode::RelationMissing)),
    ] {
        let done = drilled(Lies { restore: Some((kind, code)), ..Lies::default() }).await;
        assert_eq!(done.verdict, Verdict::Fail, "{kind:?}");
        assert!(done.rto.is_none(), "a recovery time was claimed for a restore that failed");
    }
}

#[tokio::test]
async fn an_environment_that_cannot_restore_blames_nobody() {
    for (kind, code) in [
        (ErrorKind::Unsupported, Some(FindingCode::EnvBinary)),
        (ErrorKind::Exhausted, None),
        (ErrorKind::Other, None),
    ] {
        let done = drilled(Lies { restore: Some((kind, code)), ..Lies::default() }).await;
        assert_eq!(done.verdict, Verdict::Inconclusive, "{kind:?}");
    }
}

#[tokio::test]
async fn the_live_engine_is_never_taken_for_a_scratch_one() {
    let done = drilled(Lies { same_engine: true, ..Lies::default() }).await;
    assert_eq!(done.verdict, Verdict::Inconclusive);
    assert!(codes(&done).contains(&FindingCode::LiveTarget));
}

#[tokio::test]
async fn bytes_that_were_not_fetched_prove_nothing() {
    let done = drilled(Lies { nothing_fetched: true, ..Lies::default() }).await;
    assert_eq!(done.verdict, Verdict::Inconclusive);
    assert!(codes(&done).contains(&FindingCode::WrongCopyRead));
}

#[tokio::test]
async fn evidence_is_open_while_the_sandbox_is() {
    let done = drilled(Lies { teardown_fails: true, ..Lies::default() }).await;
    assert_eq!(done.verdict, Verdict::Inconclusive);
    assert_eq!(done.removed_bytes, None);
}

#[tokio::test]
async fn the_users_questions_and_the_write_probe_count() {
    for outcome in [CheckOutcome::Failed, CheckOutcome::Inconclusive] {
        let expected = if outcome == CheckOutcome::Failed { Verdict::Fail } else { Verdict::Inconclusive };
        let by_user = drilled(Lies { user_check: Some(outcome), ..Lies::default() }).await;
        assert_eq!(by_user.verdict, expected);
        let by_probe = drilled(Lies { write_probe: Some(outcome), ..Lies::default() }).await;
        assert_eq!(by_probe.verdict, expected);
    }
}

#[tokio::test]
async fn out_of_time_is_inconclusive_and_the_sandbox_is_taken_down() {
    let hurried = DrillRequest { deadline: Duration::from_millis(50), ..request(1) };
    let (done, closed) =
        drilled_as(Lies { restore_hangs: true, ..Lies::default() }, hurried, &Cx::unbounded()).await;
    assert_eq!(done.verdict, Verdict::Inconclusive);
    assert!(codes(&done).contains(&FindingCode::Interrupted));
    assert_eq!(closed, 1);
}

#[tokio::test]
async fn cancelled_is_inconclusive_and_the_sandbox_is_taken_down() {
    let (cx, token) = Cx::unbounded().child();
    token.cancel();
    let (done, _) = drilled_as(Lies::default(), request(1), &cx).await;
    assert_eq!(done.verdict, Verdict::Inconclusive);
    assert!(codes(&done).contains(&FindingCode::Interrupted));
}
