//! A copy brought back without our own engine: stock restic, the password that somebody else holds, and what lies in the
//! repository's directory. Nothing else of ours is in reach of it.
//!
//! The directory is carried into a sandbox as a disk would be carried to another machine; restic runs there, under the
//! sandbox's user, without a network and with an environment of a few named variables. What it restored is then read like
//! any other copy, by [`Tree`], and compared with the witness as ever.
//!
//! Never here: our own reading of the repository, the catalogue, a decision about the level.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use seaworthy_interface::copy::Written;
use seaworthy_interface::{
    CopyEntry, CopyPath, CopyReader, Cx, DriverError, EntryKind, ErrorKind, Exec, ExecOutcome, Restoring,
    Sandbox, SandboxProvider,
};
use seaworthy_model::finding::FindingCode;
use seaworthy_model::id::{CopyId, KeyFileId, RepositoryId, RunId};
use seaworthy_model::receipt::Absence;
use seaworthy_model::verdict::{CheckOutcome, CheckReport};
use tokio_util::sync::CancellationToken;

use super::{Phase, Stopwatch};
use crate::store::{WITNESS_PATH, blocking};

/// What of a repository's directory is carried: everything but its locks.
const CARRIED: [&str; 5] = ["config", "keys", "snapshots", "index", "data"];

/// Most bytes of a listing: a line is about 300 bytes, so that this is of 800,000 entries.
const LISTING_BYTES_MAX: usize = 256 << 20;

/// Most bytes of a witness that restic hands out.
const WITNESS_BYTES_MAX: usize = 256 << 20;

/// Most bytes kept of what restic says.
const WORDS_BYTES_MAX: usize = 64 << 10;

/// What is brought back, and by what.
pub struct Bringing {
    /// The program: an absolute path, visible in the sandbox.
    pub program: PathBuf,
    /// The repository's directory.
    pub repository: PathBuf,
    /// The id that its config must hold.
    pub id: RepositoryId,
    /// The password.
    pub password: String,
    /// The copy.
    pub copy: CopyId,
    /// Bytes that its restore needs.
    pub needed_bytes: u64,
    /// What must be out of reach, and its path; `None` where it is not a file, and the environment is what is shown.
    pub absent: Vec<(&'static str, Option<PathBuf>)>,
}

impl std::fmt::Debug for Bringing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bringing")
            .field("program", &self.program)
            .field("copy", &self.copy)
            .finish_non_exhaustive()
    }
}

/// What came of it. Everything is said that was shown before it went wrong.
pub(crate) struct Brought {
    /// The place that it ran in; whoever has this closes it.
    pub(crate) sandbox: Option<Arc<dyn Sandbox>>,
    /// Phases in order; part of the recovery time.
    pub(crate) phases: Vec<Phase>,
    /// The program, as it says itself.
    pub(crate) version: Option<String>,
    /// The key that the password opened, as the program says.
    pub(crate) key: Option<KeyFileId>,
    /// What was looked for.
    pub(crate) absent: Vec<Absence>,
    /// Files restored.
    pub(crate) files: u64,
    /// Bytes of them.
    pub(crate) bytes: u64,
    /// The restored copy and the bytes of its witness, or why there is none.
    pub(crate) result: Result<(Arc<Tree>, Vec<u8>), DriverError>,
}

/// Brings a copy back. Always ends in a [`Brought`].
pub(crate) async fn bring(cx: &Cx, provider: &dyn SandboxProvider, run: &RunId, what: &Bringing) -> Brought {
    let mut brought = Brought {
        sandbox: None,
        phases: Vec::new(),
        version: None,
        key: None,
        absent: Vec::new(),
        files: 0,
        bytes: 0,
        result: Err(DriverError::new(ErrorKind::Other, "bring the copy back")),
    };
    let mut watch = Stopwatch::start();
    brought.result = steps(cx, provider, run, what, &mut watch, &mut brought).await;
    brought.phases = watch.phases;
    brought
}

async fn steps(
    cx: &Cx,
    provider: &dyn SandboxProvider,
    run: &RunId,
    what: &Bringing,
    watch: &mut Stopwatch,
    brought: &mut Brought,
) -> Result<(Arc<Tree>, Vec<u8>), DriverError> {
    cx.phase("carry");
    let (from, token) = (what.repository.clone(), cx.token());
    let stored = cx.run(blocking("measure the repository", move || measured(&from, &token))).await??;
    let needed = stored.saturating_add(what.needed_bytes.saturating_mul(2));
    let sandbox = watch.measure("provision", cx.run(provider.open(cx, run, needed))).await??;
    brought.sandbox = Some(Arc::clone(&sandbox));
    let place = sandbox.root().join("repository");
    let (from, to, token) = (what.repository.clone(), place.clone(), cx.token());
    let carrying = blocking("carry the repository into the sandbox", move || carried(&from, &to, &token));
    let carried_bytes = watch.measure("carry", cx.run(carrying)).await??;
    sandbox.own(cx, &place).await?;

    cx.phase("restic");
    let restic = Restic { sandbox: &sandbox, what, place: &place };
    let out = sandbox.root().join("out");
    let restoring = restic.restore(cx, &out, brought);
    let (witness, owners) = watch.measure("restic", cx.run(restoring)).await??;
    let listing = blocking("list what restic has restored", move || Tree::of(out, owners, carried_bytes));
    let tree = cx.run(listing).await??;
    (brought.files, brought.bytes) = tree.total();
    Ok((Arc::new(tree), witness))
}

/// Owners by path, as restic lists them.
type Owners = BTreeMap<Vec<u8>, (u32, u32)>;

struct Restic<'a> {
    sandbox: &'a Arc<dyn Sandbox>,
    what: &'a Bringing,
    place: &'a Path,
}

impl Restic<'_> {
    async fn run(&self, cx: &Cx, arguments: &[&str], bytes_max: usize) -> Result<ExecOutcome, DriverError> {
        let root = self.sandbox.root();
        let text = |path: &Path| path.display().to_string();
        let mut argv = vec![text(&self.what.program), "--no-cache".to_owned()];
        argv.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let env = vec![
            ("RESTIC_REPOSITORY".to_owned(), text(self.place)),
            ("RESTIC_PASSWORD".to_owned(), self.what.password.clone()),
            ("HOME".to_owned(), text(root)),
            ("TMPDIR".to_owned(), text(root)),
            ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
        ];
        self.sandbox.exec(cx, Exec { argv, env, output_bytes_max: bytes_max, ..Exec::default() }).await
    }

    async fn succeed(
        &self,
        cx: &Cx,
        step: &str,
        arguments: &[&str],
        bytes_max: usize,
    ) -> Result<Vec<u8>, DriverError> {
        let outcome = self.run(cx, arguments, bytes_max).await?;
        if outcome.status != 0 {
            return Err(refusal(step, &outcome));
        }
        if outcome.dropped_bytes > 0 {
            return Err(DriverError::new(ErrorKind::Exhausted, format!("{step} with stock restic"))
                .because(format!("it said more than {bytes_max} bytes"))
                .code(FindingCode::EnvOther));
        }
        Ok(outcome.stdout)
    }

    async fn restore(
        &self,
        cx: &Cx,
        out: &Path,
        brought: &mut Brought,
    ) -> Result<(Vec<u8>, Option<Owners>), DriverError> {
        for (what, path) in &self.what.absent {
            let is_shown = self.is_absent(cx, path.as_deref()).await?;
            brought.absent.push(Absence { what: (*what).to_owned(), is_shown });
        }
        let version = self.succeed(cx, "ask for its version", &["version"], WORDS_BYTES_MAX).await?;
        let version = String::from_utf8_lossy(&version).lines().next().unwrap_or_default().trim().to_owned();
        brought.version = Some(version);

        let config = self.succeed(cx, "open the repository", &["cat", "config"], WORDS_BYTES_MAX).await?;
        let config: serde_json::Value = json("read the repository's config", &config)?;
        if config.get("id").and_then(serde_json::Value::as_str) != Some(self.what.id.0.as_str()) {
            return Err(DriverError::new(ErrorKind::Refused, "open the repository with stock restic")
                .because("it is another repository than the one that was named")
                .code(FindingCode::WrongCopyRead));
        }
        let keys = self.succeed(cx, "list its keys", &["key", "list", "--json"], LISTING_BYTES_MAX).await?;
        brought.key = self.used_key(&json("read the list of keys", &keys)?);

        let copy = self.what.copy.0.as_str();
        let inside = format!("/{WITNESS_PATH}");
        let witness =
            self.succeed(cx, "read the witness", &["dump", copy, &inside], WITNESS_BYTES_MAX).await?;
        let target = out.display().to_string();
        let mut arguments = vec!["restore", copy, "--target", target.as_str()];
        // restic makes holes only where it is told to, and before 0.15 it cannot.
        if has_holes(&witness) {
            arguments.push("--sparse");
        }
        self.succeed(cx, "restore the copy", &arguments, WORDS_BYTES_MAX).await?;
        // Only root can give files to their owners; without it the check of owners says that it could not be made.
        let owners = if is_of_files(&witness) && can_give(self.sandbox) {
            let listed =
                self.succeed(cx, "list the copy", &["ls", "--json", copy], LISTING_BYTES_MAX).await?;
            Some(owners(&listed)?)
        } else {
            None
        };
        Ok((witness, owners))
    }

    /// Whether nothing with content lies there, for the program's user; what is not a file is not in the environment.
    async fn is_absent(&self, cx: &Cx, path: Option<&Path>) -> Result<bool, DriverError> {
        let Some(path) = path else { return Ok(true) };
        let argv = vec!["/usr/bin/test".to_owned(), "-s".to_owned(), path.display().to_string()];
        let exec = Exec { argv, output_bytes_max: WORDS_BYTES_MAX, ..Exec::default() };
        // 1 is the answer; anything else is none.
        Ok(self.sandbox.exec(cx, exec).await?.status == 1)
    }

    /// The key that restic says it uses. Before 0.17 it names the first digits only: one key file must begin like that.
    fn used_key(&self, listed: &serde_json::Value) -> Option<KeyFileId> {
        let used = listed.as_array()?.iter().find(|key| key.get("current") == Some(&true.into()))?;
        let digits = used.get("id")?.as_str()?;
        let mut having = Vec::new();
        for entry in fs::read_dir(self.place.join("keys")).ok()? {
            let name = entry.ok()?.file_name().into_string().ok()?;
            if name.starts_with(digits) {
                having.push(name);
            }
        }
        match having.as_slice() {
            [one] if digits.len() >= 8 => Some(KeyFileId(one.clone())),
            _ => None,
        }
    }
}

/// Whether what we move out of the sandbox can be given to its owners: we are root where the sandbox has another user.
fn can_give(sandbox: &Arc<dyn Sandbox>) -> bool {
    sandbox.facts().mode == "root"
}

fn json(step: &str, bytes: &[u8]) -> Result<serde_json::Value, DriverError> {
    serde_json::from_slice(bytes).map_err(|error| {
        DriverError::new(ErrorKind::Other, format!("{step} with stock restic"))
            .because(error)
            .code(FindingCode::EnvOther)
    })
}

fn totals(witness: &[u8]) -> Option<serde_json::Value> {
    let witness: serde_json::Value = serde_json::from_slice(witness).ok()?;
    (witness.get("kind")? == "files").then(|| witness.pointer("/witness/totals").cloned()).flatten()
}

fn is_of_files(witness: &[u8]) -> bool {
    totals(witness).is_some()
}

fn has_holes(witness: &[u8]) -> bool {
    totals(witness).and_then(|totals| totals.get("sparse")?.as_u64()).is_some_and(|sparse| sparse > 0)
}

/// What restic's refusal amounts to. It blames the copy only where it says that stored bytes are wrong.
fn refusal(step: &str, outcome: &ExecOutcome) -> DriverError {
    let said = String::from_utf8_lossy(&outcome.stderr);
    let folded = said.to_lowercase();
    let last: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let words: String = last.iter().rev().take(3).rev().copied().collect::<Vec<_>>().join("; ");
    let words: String = words.chars().filter(|character| !character.is_control()).take(400).collect();
    let failed = |kind, code| {
        DriverError::new(kind, format!("{step} with stock restic"))
            .because(format!("it ended with {}: {words}", outcome.status))
            .code(code)
    };
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| folded.contains(phrase));
    // 12 since restic 0.17; the words before that.
    if outcome.status == 12 || says(&["wrong password or no key found"]) {
        failed(ErrorKind::Unauthenticated, FindingCode::WrongKey)
            .hint("check the password; `seaworthy keys check NAME` asks its holder")
    } else if says(&["unknown flag"]) {
        failed(ErrorKind::Unsupported, FindingCode::EnvBinary).hint("use a newer restic: --restic PROGRAM")
    } else if says(&[
        "ciphertext verification failed",
        "invalid data returned",
        "wrong hash",
        "hash mismatch",
        "not found in repository",
        "unable to decrypt",
    ]) {
        failed(ErrorKind::Corrupt, FindingCode::ObjectDamaged)
    } else {
        failed(ErrorKind::Other, FindingCode::EnvOther)
    }
}

fn owners(listed: &[u8]) -> Result<Owners, DriverError> {
    let mut owners = Owners::new();
    for line in listed.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let node = json("list the copy", line)?;
        let number = |name: &str| node.get(name)?.as_u64().and_then(|value| u32::try_from(value).ok());
        if let (Some(path), Some(uid), Some(gid)) =
            (node.get("path").and_then(serde_json::Value::as_str), number("uid"), number("gid"))
        {
            owners.insert(path.trim_start_matches('/').as_bytes().to_vec(), (uid, gid));
        }
    }
    Ok(owners)
}

/// Whether what failed is the fault of the program that brought the copy back: every check that failed passes on what our own engine
/// reads. One that fails there too, that was not carried out or that could not be decided leaves the fault with the copy.
pub(crate) fn is_the_programs(checks: &[CheckReport], own: &[CheckReport]) -> bool {
    let passes = |name: &str| {
        own.iter().any(|check| check.name == name)
            && own
                .iter()
                .filter(|check| check.name == name)
                .all(|check| check.outcome == CheckOutcome::Passed)
    };
    let mut failed = checks.iter().filter(|check| check.outcome == CheckOutcome::Failed).peekable();
    failed.peek().is_some() && failed.all(|check| passes(&check.name))
}

// ---------------------------------------------------------------------------------------------------- carrying

fn stopped(token: &CancellationToken) -> Result<(), DriverError> {
    if token.is_cancelled() { Err(seaworthy_interface::Stop::Cancelled.into()) } else { Ok(()) }
}

/// Every regular file of the repository, as a path below it. A listing error is an error.
fn objects(from: &Path, token: &CancellationToken) -> Result<Vec<(PathBuf, u64)>, DriverError> {
    let mut found = Vec::new();
    let mut todo: Vec<PathBuf> = CARRIED.iter().map(PathBuf::from).collect();
    while let Some(below) = todo.pop() {
        stopped(token)?;
        let path = from.join(&below);
        let failed = |error| DriverError::io(format!("read `{}`", path.display()), error);
        let facts = fs::metadata(&path).map_err(failed)?;
        if facts.is_dir() {
            for entry in fs::read_dir(&path).map_err(failed)? {
                todo.push(below.join(entry.map_err(failed)?.file_name()));
            }
        } else {
            found.push((below, facts.len()));
        }
    }
    Ok(found)
}

fn measured(from: &Path, token: &CancellationToken) -> Result<u64, DriverError> {
    Ok(objects(from, token)?.iter().map(|(_, size)| size).sum())
}

fn carried(from: &Path, to: &Path, token: &CancellationToken) -> Result<u64, DriverError> {
    let made = |path: &Path| {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| DriverError::io(format!("make `{}`", path.display()), error))
    };
    for name in CARRIED.iter().skip(1).chain(&["locks"]) {
        made(&to.join(name))?;
    }
    let mut bytes = 0;
    for (below, _) in objects(from, token)? {
        stopped(token)?;
        let target = to.join(&below);
        if let Some(parent) = target.parent() {
            made(parent)?;
        }
        // Shared with the original where the file system can.
        bytes += fs::copy(from.join(&below), &target).map_err(|error| {
            DriverError::io(format!("carry `{}` into the sandbox", below.display()), error)
        })?;
    }
    Ok(bytes)
}

// -------------------------------------------------------------------------------------------------------- the tree

/// A copy that another program has restored into a directory, as a [`CopyReader`]: restic has authenticated what it wrote.
///
/// What is restored from it is moved, so that links, holes and times stay as restic made them; it can be restored once.
pub(crate) struct Tree {
    root: PathBuf,
    entries: BTreeMap<Vec<u8>, CopyEntry>,
    owners: Option<Owners>,
    carried: u64,
}

impl Tree {
    fn of(root: PathBuf, owners: Option<Owners>, carried: u64) -> Result<Self, DriverError> {
        let mut entries = BTreeMap::new();
        let mut todo: Vec<Vec<u8>> = vec![Vec::new()];
        while let Some(below) = todo.pop() {
            let directory = root.join(std::ffi::OsStr::from_bytes(&below));
            let failed = |error: io::Error| DriverError::io("list what restic has restored", error);
            let listed = match fs::read_dir(&directory) {
                // A program that says that all went well and has made nothing.
                Err(error) if below.is_empty() && error.kind() == io::ErrorKind::NotFound => break,
                listed => listed.map_err(failed)?,
            };
            for entry in listed {
                let entry = entry.map_err(failed)?;
                let mut path = below.clone();
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(entry.file_name().as_bytes());
                let facts = fs::symlink_metadata(entry.path()).map_err(failed)?;
                let kind = kind(&facts);
                if kind == EntryKind::Directory {
                    todo.push(path.clone());
                }
                let Some(at) = CopyPath::new(path.clone()) else { continue };
                let modified = Timestamp::new(facts.mtime(), i32::try_from(facts.mtime_nsec()).unwrap_or(0))
                    .unwrap_or(Timestamp::UNIX_EPOCH);
                let size = if kind == EntryKind::File { facts.len() } else { 0 };
                entries.insert(path, CopyEntry { path: at, kind, size, modified });
            }
        }
        Ok(Self { root, entries, owners, carried })
    }

    /// Files, and their bytes.
    fn total(&self) -> (u64, u64) {
        let files = self.entries.values().filter(|entry| entry.kind == EntryKind::File);
        files.fold((0, 0), |(files, bytes), entry| (files + 1, bytes + entry.size))
    }

    fn at(&self, path: &CopyPath) -> PathBuf {
        self.root.join(std::ffi::OsStr::from_bytes(path.as_bytes()))
    }

    fn entry(&self, path: &CopyPath) -> Result<&CopyEntry, DriverError> {
        self.entries.get(path.as_bytes()).ok_or_else(|| {
            DriverError::new(ErrorKind::NotFound, format!("find `{path}` in what restic has restored"))
                .code(FindingCode::ObjectMissing)
        })
    }

    fn below<'t>(&'t self, under: &'t [u8]) -> impl Iterator<Item = &'t CopyEntry> {
        let prefix = [under, b"/"].concat();
        self.entries
            .range(prefix.clone()..)
            .take_while(move |(path, _)| path.starts_with(&prefix))
            .map(|(_, entry)| entry)
    }

    /// Gives what lies at `place`, restored from `path`, to its owner. The bits that a change of owner takes away are set again.
    fn give(&self, path: &[u8], place: &Path) -> Result<(), DriverError> {
        let Some(owners) = &self.owners else { return Ok(()) };
        let shown = path.escape_ascii();
        let Some((uid, gid)) = owners.get(path) else {
            return Err(DriverError::new(ErrorKind::Unsupported, format!("find the owner of `{shown}`"))
                .because("restic's listing spells this name otherwise")
                .code(FindingCode::EnvOther));
        };
        let failed = |error| DriverError::io(format!("give `{shown}` to its owner"), error);
        let mode = fs::symlink_metadata(place).map_err(failed)?;
        std::os::unix::fs::lchown(place, Some(*uid), Some(*gid)).map_err(failed)?;
        if !mode.is_symlink() && mode.mode() & 0o7000 != 0 {
            fs::set_permissions(place, fs::Permissions::from_mode(mode.mode() & 0o7777)).map_err(failed)?;
        }
        Ok(())
    }
}

fn kind(facts: &fs::Metadata) -> EntryKind {
    use std::os::unix::fs::FileTypeExt as _;
    let kind = facts.file_type();
    if kind.is_dir() {
        EntryKind::Directory
    } else if kind.is_symlink() {
        EntryKind::Symlink
    } else if kind.is_fifo() {
        EntryKind::Fifo
    } else if kind.is_char_device() {
        EntryKind::CharDevice
    } else if kind.is_block_device() {
        EntryKind::BlockDevice
    } else if kind.is_socket() {
        EntryKind::Socket
    } else {
        EntryKind::File
    }
}

impl CopyReader for Tree {
    fn list(&self, under: Option<&CopyPath>) -> Result<Vec<CopyEntry>, DriverError> {
        match under {
            None => Ok(self.entries.values().cloned().collect()),
            Some(under) => {
                self.entry(under)?;
                Ok(self.below(under.as_bytes()).cloned().collect())
            }
        }
    }

    fn kind(&self, path: &CopyPath) -> Result<EntryKind, DriverError> {
        Ok(self.entry(path)?.kind)
    }

    fn read(&self, path: &CopyPath, limit_bytes: u64) -> Result<Vec<u8>, DriverError> {
        let mut bytes = Vec::new();
        let failed = |error| DriverError::io(format!("read `{path}` of what restic has restored"), error);
        self.open(path)?.take(limit_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > limit_bytes {
            return Err(DriverError::new(
                ErrorKind::Refused,
                format!("read `{path}` of what restic has restored"),
            )
            .because(format!("it has more than {limit_bytes} bytes"))
            .code(FindingCode::LimitExceeded));
        }
        Ok(bytes)
    }

    fn open(&self, path: &CopyPath) -> Result<Box<dyn Read + Send>, DriverError> {
        let failed = |error| DriverError::io(format!("open `{path}` of what restic has restored"), error);
        // The way there was walked without following a link, and nothing that could turn one runs any more.
        if self.entry(path)?.kind != EntryKind::File {
            return Err(failed(io::Error::other("it is not a file")));
        }
        Ok(Box::new(File::open(self.at(path)).map_err(failed)?))
    }

    fn restore(&self, under: &CopyPath, into: &Path, how: &Restoring) -> Result<Written, DriverError> {
        let moved = |from: &Path, to: &Path| {
            fs::rename(from, to).map_err(|error| DriverError::io(format!("move `{}`", from.display()), error))
        };
        let made = |path: &Path| {
            fs::create_dir_all(path)
                .map_err(|error| DriverError::io(format!("make `{}`", path.display()), error))
        };
        let top = self.entry(under)?;
        let inside: Vec<&CopyEntry> = self.below(under.as_bytes()).collect();
        let place = |entry: &CopyEntry| {
            let rest = entry.path.as_bytes().strip_prefix(under.as_bytes()).unwrap_or_default();
            let rest = rest.strip_prefix(b"/").unwrap_or(rest);
            into.join(std::ffi::OsStr::from_bytes(rest))
        };
        if top.kind != EntryKind::Directory {
            made(into)?;
            let name = under.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            let target = into.join(std::ffi::OsStr::from_bytes(name));
            moved(&self.at(under), &target)?;
            self.give(under.as_bytes(), &target)?;
        } else if how.left_out.is_empty() {
            if let Some(parent) = into.parent() {
                made(parent)?;
            }
            moved(&self.at(under), into)?;
            for entry in &inside {
                self.give(entry.path.as_bytes(), &place(entry))?;
            }
            self.give(under.as_bytes(), into)?;
        } else {
            made(into)?;
            for entry in &inside {
                let target = place(entry);
                if entry.kind == EntryKind::Directory {
                    made(&target)?;
                } else if !how.left_out.contains(&entry.path) {
                    moved(&self.at(&entry.path), &target)?;
                    self.give(entry.path.as_bytes(), &target)?;
                }
            }
        }
        let mut written = Written::default();
        for entry in inside.into_iter().chain([top]) {
            if entry.kind == EntryKind::File && !how.left_out.contains(&entry.path) {
                written.files += 1;
                written.bytes += entry.size;
            }
        }
        Ok(written)
    }

    fn read_rest(&self) -> Result<Written, DriverError> {
        // restic has read and authenticated every byte of what it restored, and it restored all of the copy.
        Ok(Written::default())
    }

    fn fetched_bytes(&self) -> u64 {
        self.carried
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn said(status: i32, words: &str) -> FindingCode {
        let outcome = ExecOutcome {
            status,
            stdout: Vec::new(),
            stderr: words.as_bytes().to_vec(),
            dropped_bytes: 0,
            took: std::time::Duration::ZERO,
        };
        refusal("restore", &outcome).code.expect("every refusal has a code")
    }

    #[test]
    fn only_wrong_bytes_blame_the_copy() {
        assert_eq!(said(1, "Fatal: wrong password or no key found"), FindingCode::WrongKey);
        assert_eq!(said(12, ""), FindingCode::WrongKey);
        assert_eq!(said(1, "ciphertext verification failed"), FindingCode::ObjectDamaged);
        assert_eq!(said(1, "unknown flag: --sparse"), FindingCode::EnvBinary);
        assert_eq!(said(1, "no space left on device"), FindingCode::EnvOther);
        assert_eq!(said(137, ""), FindingCode::EnvOther);
    }

    #[test]
    fn only_what_passes_without_the_program_is_the_programs_fault() {
        use CheckOutcome::{Failed, Inconclusive, Passed};
        let report = |name: &str, outcome| CheckReport {
            name: name.to_owned(),
            outcome,
            detail: String::new(),
            findings: Vec::new(),
        };
        let drilled = |restore, content, question| {
            [report("restore", restore), report("content", content), report("user:open", question)]
        };
        for (with, without, is_the_programs) in [
            (drilled(Passed, Failed, Passed), drilled(Passed, Passed, Passed), true),
            (drilled(Passed, Failed, Failed), drilled(Passed, Passed, Passed), true),
            (drilled(Passed, Failed, Inconclusive), drilled(Passed, Passed, Failed), true),
            (drilled(Passed, Failed, Failed), drilled(Passed, Passed, Failed), false),
            (drilled(Passed, Passed, Failed), drilled(Passed, Passed, Inconclusive), false),
            (drilled(Passed, Failed, Passed), drilled(Passed, Failed, Passed), false),
            (drilled(Failed, Passed, Passed), drilled(Failed, Passed, Passed), false),
            (drilled(Passed, Passed, Passed), drilled(Passed, Passed, Passed), false),
        ] {
            assert_eq!(super::is_the_programs(&with, &without), is_the_programs, "{with:?} {without:?}");
        }
        // What was not carried out has not passed.
        let failed = drilled(Passed, Failed, Passed);
        assert!(!is_the_programs(&failed, &failed[..1]));
        // A restore that comes to nothing is one failed check; our own restores.
        assert!(is_the_programs(&[report("restore", Failed)], &drilled(Passed, Passed, Passed)));
    }

    #[test]
    fn owners_are_read_by_path() {
        let listed = b"{\"struct_type\":\"snapshot\",\"id\":\"x\"}\n{\"path\":\"/a/b\",\"uid\":7,\"gid\":8,\"struct_type\":\"node\"}\n";
        let owners = owners(listed).expect("these are lines of JSON");
        assert_eq!(owners, Owners::from([(b"a/b".to_vec(), (7, 8))]));
        assert!(super::owners(b"no json").is_err());
    }

    #[test]
    fn a_tree_is_listed_read_and_moved_once() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = directory.path().join("out");
        fs::create_dir_all(root.join("a/deep")).expect("make");
        fs::write(root.join("a/deep/file"), "12345").expect("write");
        fs::write(root.join("a/large"), "678").expect("write");
        std::os::unix::fs::symlink("/etc/passwd", root.join("a/link")).expect("link");
        let tree = Tree::of(root.clone(), None, 99).expect("list");
        assert_eq!((tree.total(), tree.fetched_bytes()), ((2, 8), 99));
        let path = |text: &str| CopyPath::new(text).expect("sound");
        assert_eq!(tree.read(&path("a/deep/file"), 5).expect("read"), b"12345");
        assert!(tree.read(&path("a/deep/file"), 4).is_err(), "more than was allowed");
        assert!(tree.open(&path("a/link")).is_err(), "a link is not followed");
        assert!(tree.open(&path("a/nothing")).is_err());
        assert_eq!(tree.list(Some(&path("a/deep"))).expect("list").len(), 1);
        let into = directory.path().join("in");
        let how = Restoring { left_out: BTreeSet::from([path("a/large")]), ..Restoring::default() };
        let written = tree.restore(&path("a"), &into, &how).expect("restore");
        assert_eq!((written.files, written.bytes), (1, 5));
        assert!(into.join("deep/file").exists() && !into.join("large").exists());
        assert_eq!(tree.read(&path("a/large"), 9).expect("read"), b"678", "what was left out is still there");

        // A program that has made nothing has restored nothing.
        let nothing = Tree::of(directory.path().join("none"), None, 0).expect("list");
        assert_eq!(nothing.total(), (0, 0));
        assert!(nothing.restore(&path("a"), &into, &Restoring::default()).is_err());
    }
}
