//! A look at one repository: what it lists, and whether a random piece of each source's newest copy can be read back.
//!
//! Reads only, and takes no lock: what a prune removes meanwhile is a piece that could not be read. Whatever does not work is said
//! of the copy or of the look, and never makes a copy look gone.

use std::collections::BTreeSet;

use jiff::Timestamp;
use seaworthy_interface::{Cx, DriverError, ErrorKind};
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::id::{CopyId, RunId, ServiceName, SourceName};
use seaworthy_model::placement::{ReadBack, SeenCopy, candidates, why_bad};
use seaworthy_model::point::{PointStanding, RecoveryPoint, draw};
use seaworthy_model::receipt::{Outcome, RepositoryRef, Seed, SourceRef, VerifiedCopy, Verify};
use seaworthy_repository::{Control, FileKind, Node, NodeKind, Repository, SnapshotId, SnapshotPath, Step};

use super::finding_of;
use crate::store::{STATEMENT_PATH, blocking, control, driver_error};

/// Ways from the root that are tried before the copy's own statement is read: a tree may be full of empty directories.
const WAYS: u64 = 8;
/// Deepest directory that is entered; each level is walked from the root again.
const DEPTH: usize = 64;
/// A statement is some 400 bytes.
const STATEMENT_BYTES_MAX: u64 = 1 << 16;

/// The points of one source in the repository that is looked at.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Service.
    pub service: ServiceName,
    /// Source.
    pub source: SourceName,
    /// What receipts have put there, known before the look begins.
    pub points: Vec<RecoveryPoint>,
}

/// What was seen of one source.
#[derive(Debug, Clone)]
pub struct SeenSource {
    /// Service.
    pub service: ServiceName,
    /// Source.
    pub source: SourceName,
    /// Of the known copies, those that are listed.
    pub listed: u64,
    /// Of the known copies that are not known to be gone, those that are not listed.
    pub vanished: u64,
    /// The newest complete ones, each with what came of reading a piece of it; none after the first good one.
    pub copies: Vec<SeenCopy>,
}

/// What was seen of a repository.
#[derive(Debug, Clone, Default)]
pub struct Glance {
    /// Snapshots in it, whosever they are.
    pub snapshots: u64,
    /// Keys that open it.
    pub keys: u64,
    /// Bytes read from it.
    pub read_bytes: u64,
    /// Every source that was asked for.
    pub sources: Vec<SeenSource>,
}

/// A new run's id.
pub fn run_id(at: Timestamp) -> Result<RunId, getrandom::Error> {
    let random = getrandom::u32()?;
    Ok(RunId(format!("comply-{}-{random:08x}", at.strftime("%Y%m%dT%H%M%SZ"))))
}

/// Looks into a repository. An error says that nothing is known of it.
pub async fn glance(
    cx: &Cx,
    repository: &Repository,
    wanted: Vec<Wanted>,
    seed: u64,
) -> Result<Glance, DriverError> {
    let (repository, control) = (repository.clone(), control(cx));
    let work = blocking("look into the repository", move || {
        let before = repository.bytes_read();
        let listed = repository
            .store()
            .list(FileKind::Snapshot, &control)
            .map_err(|error| driver_error("list the copies", error))?;
        let listed: BTreeSet<CopyId> = listed.into_iter().map(|one| CopyId(one.id.hex())).collect();
        let keys = repository.keys(&control).map_err(|error| driver_error("list the keys", error))?;
        let mut glance =
            Glance { snapshots: listed.len() as u64, keys: keys.len() as u64, ..Glance::default() };
        for one in wanted {
            let is_listed = |point: &&RecoveryPoint| listed.contains(&point.copy);
            let mut copies = Vec::new();
            for point in candidates(&one.points, &listed) {
                let read = read_piece(&repository, point, seed, &control)?;
                let is_good = matches!(read, ReadBack::Authentic { .. }) && why_bad(point).is_none();
                copies.push(seen(point, read));
                if is_good {
                    break;
                }
            }
            glance.sources.push(SeenSource {
                listed: one.points.iter().filter(is_listed).count() as u64,
                vanished: one.points.iter().filter(|point| !point.is_gone() && !is_listed(point)).count()
                    as u64,
                service: one.service,
                source: one.source,
                copies,
            });
        }
        glance.read_bytes = repository.bytes_read().saturating_sub(before);
        Ok(glance)
    });
    // A file system that hangs answers no cancellation: whoever waits goes on, and the thread ends with the process.
    cx.run(work).await.map_err(DriverError::from).and_then(|looked| looked)
}

fn seen(point: &RecoveryPoint, read: ReadBack) -> SeenCopy {
    SeenCopy {
        copy: point.copy.clone(),
        sequence: point.sequence,
        run: point.run.clone(),
        point: point.point,
        proven: match &point.standing {
            PointStanding::Proven { level, at, .. } => Some((*level, *at)),
            PointStanding::Unproven | PointStanding::Failed { .. } | PointStanding::Gone { .. } => None,
        },
        is_bad: why_bad(point),
        doubt: None,
        read,
    }
}

/// Reads a random piece of a copy. An error is that somebody wants it to end.
fn read_piece(
    repository: &Repository,
    point: &RecoveryPoint,
    seed: u64,
    control: &Control,
) -> Result<ReadBack, DriverError> {
    let subject =
        format!("copy {} in {}", point.copy.0.get(..12).unwrap_or(&point.copy.0), point.repository.name);
    match random_piece(repository, &point.copy, seed, control) {
        Ok(bytes) => Ok(ReadBack::Authentic { bytes }),
        Err(error) if error.kind == ErrorKind::Stopped(seaworthy_interface::Stop::Cancelled) => Err(error),
        Err(error) => {
            let finding = finding_of(&error, &subject);
            Ok(if finding.code.is_of_stored_bytes() {
                ReadBack::Damaged(finding)
            } else {
                ReadBack::NotRead(finding)
            })
        }
    }
}

/// Numbers that follow from a seed; see [`draw`].
struct Dice {
    seed: u64,
    drawn: u64,
}

impl Dice {
    fn below(&mut self, count: usize) -> usize {
        self.drawn = self.drawn.wrapping_add(1);
        draw(Seed(self.seed ^ self.drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15)), count)
    }
}

/// Goes down a random way to a file, and reads a random piece of it: every tree on the way, and the piece, are compared with their
/// hashes. Answers the length of the piece.
fn random_piece(
    repository: &Repository,
    copy: &CopyId,
    seed: u64,
    control: &Control,
) -> Result<u64, DriverError> {
    let failed = |error| driver_error("read a piece of the copy", error);
    let snapshot = SnapshotId::parse(&copy.0).ok_or_else(|| {
        DriverError::new(ErrorKind::NotFound, format!("find the copy `{copy}`: this is not the id of one"))
            .code(FindingCode::ObjectMissing)
    })?;
    let mut dice = Dice { seed, drawn: 0 };
    for _ in 0..WAYS {
        let mut way: Vec<Vec<u8>> = Vec::new();
        while way.len() < DEPTH {
            let chosen = choose(repository, &snapshot, &way, &mut dice, control).map_err(failed)?;
            match chosen {
                Some(node) if node.kind == NodeKind::Dir => way.push(node.name),
                Some(mut node) => {
                    let pieces = node.content.take().unwrap_or_default();
                    let Some(piece) = pieces.get(dice.below(pieces.len())).copied() else { break };
                    node.content = Some(vec![piece]);
                    let mut reader = repository.open_node(&node, control).map_err(failed)?;
                    let mut bytes = 0;
                    while let Some(window) = reader.next_window().map_err(failed)? {
                        bytes += window.len() as u64;
                    }
                    return Ok(bytes);
                }
                None => break,
            }
        }
    }
    // A copy of empty directories, links and empty files.
    let statement = SnapshotPath::new(STATEMENT_PATH).map_err(failed)?;
    let bytes = repository.read_file(&snapshot, &statement, STATEMENT_BYTES_MAX, control).map_err(failed)?;
    Ok(bytes.len() as u64)
}

/// A directory, or a file that has content, directly below `way`; each is as likely. What is ours is left for last.
fn choose(
    repository: &Repository,
    snapshot: &SnapshotId,
    way: &[Vec<u8>],
    dice: &mut Dice,
    control: &Control,
) -> seaworthy_repository::Result<Option<Node>> {
    let under = SnapshotPath::from_components(way.iter().cloned())?;
    let mut chosen = None;
    let mut met = 0;
    repository.walk(snapshot, &under, control, |entry| {
        if entry.path.len() <= way.len() {
            return Step::Enter;
        }
        let is_content = match entry.node.kind {
            NodeKind::Dir => !(way.is_empty() && entry.node.name.starts_with(b".seaworthy")),
            NodeKind::File => entry.node.content.as_ref().is_some_and(|pieces| !pieces.is_empty()),
            _ => false,
        };
        if is_content {
            met += 1;
            if dice.below(met) == 0 {
                chosen = Some(entry.node.clone());
            }
        }
        Step::Pass
    })?;
    Ok(chosen)
}

/// What has to be sealed of a copy of which a piece is damaged, so that nobody relies on it.
#[must_use]
pub fn damaged(
    run: RunId,
    place: RepositoryRef,
    of: SourceRef,
    copy: &SeenCopy,
    finding: &Finding,
    when: (Timestamp, Timestamp),
    executor: &str,
) -> Verify {
    Verify {
        run,
        due: None,
        repository: place,
        copies: vec![VerifiedCopy {
            copy: copy.copy.clone(),
            of: Some(of),
            backup: Some(copy.sequence),
            point: copy.point,
            intact: false,
        }],
        read_percent: 0,
        read_bytes: 0,
        started: when.0,
        finished: when.1,
        outcome: Outcome::Complete,
        findings: vec![finding.clone()],
        executor: executor.to_owned(),
    }
}
