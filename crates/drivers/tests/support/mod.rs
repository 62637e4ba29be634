//! Test doubles: a copy that is a plain directory, and a sandbox that isolates nothing.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;
use seaworthy_interface::copy::Written;
use seaworthy_interface::{
    CopyEntry, CopyFile, CopyPath, CopyReader, CopyWriter, Cuts, Cx, DriverError, EntryKind, ErrorKind, Exec,
    ExecOutcome, Restoring, Sandbox, SandboxFacts, SandboxProcess, StoredFile, TreeEntry, TreeOptions,
};
use seaworthy_model::finding::FindingCode;
use seaworthy_testkit::postgres::{Ids, server_user};

/// A copy in a directory of its own.
#[derive(Debug)]
pub(crate) struct DiskCopy {
    pub(crate) root: PathBuf,
    /// Files begun and not finished; a dropped one stays counted.
    pub(crate) unfinished: Arc<AtomicU64>,
    /// Bytes that still fit.
    pub(crate) room: Arc<AtomicU64>,
    /// Files that were read as streams, in the order in which they were opened.
    pub(crate) opened: Mutex<Vec<CopyPath>>,
    /// How many bytes of a stream can be read; what follows is damaged.
    pub(crate) sound: AtomicU64,
}

/// A stream that is damaged after some bytes, as a repository tells it.
struct Damaged {
    from: File,
    sound: u64,
}

impl Read for Damaged {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.sound == 0 {
            let error = DriverError::new(ErrorKind::Corrupt, "read a blob").code(FindingCode::ObjectDamaged);
            return Err(io::Error::other(error));
        }
        let limit = usize::try_from(self.sound).unwrap_or(usize::MAX).min(into.len());
        let count = self.from.read(&mut into[..limit])?;
        self.sound -= count as u64;
        Ok(count)
    }
}

struct DiskFile {
    file: File,
    size: u64,
    unfinished: Arc<AtomicU64>,
    room: Arc<AtomicU64>,
}

impl DiskCopy {
    pub(crate) fn new(root: &Path) -> Self {
        fs::create_dir_all(root).unwrap();
        Self {
            root: root.to_owned(),
            unfinished: Arc::default(),
            room: Arc::new(AtomicU64::new(u64::MAX / 2)),
            opened: Mutex::default(),
            sound: AtomicU64::new(u64::MAX),
        }
    }

    pub(crate) fn at(&self, path: &CopyPath) -> PathBuf {
        self.root.join(std::ffi::OsStr::from_bytes(path.as_bytes()))
    }
}

impl CopyFile for DiskFile {
    fn write(&mut self, bytes: &[u8]) -> Result<(), DriverError> {
        let length = bytes.len() as u64;
        if self.room.fetch_sub(length, Ordering::SeqCst) < length {
            return Err(DriverError::new(ErrorKind::Exhausted, "write a file of the copy"));
        }
        self.size += length;
        self.file.write_all(bytes).map_err(|error| DriverError::io("write a file of the copy", error))
    }

    fn finish(self: Box<Self>) -> Result<StoredFile, DriverError> {
        self.unfinished.fetch_sub(1, Ordering::SeqCst);
        Ok(StoredFile { size: self.size, pieces: Vec::new() })
    }
}

impl CopyWriter for DiskCopy {
    fn begin(&self, path: &CopyPath, _: Cuts) -> Result<Box<dyn CopyFile>, DriverError> {
        let at = self.at(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        let file = File::create_new(&at).map_err(|error| DriverError::io(at.display().to_string(), error))?;
        self.unfinished.fetch_add(1, Ordering::SeqCst);
        let (unfinished, room) = (Arc::clone(&self.unfinished), Arc::clone(&self.room));
        Ok(Box::new(DiskFile { file, size: 0, unfinished, room }))
    }

    fn directory(&self, path: &CopyPath, mode: u32) -> Result<(), DriverError> {
        let at = self.at(path);
        let made =
            fs::create_dir_all(&at).and_then(|()| fs::set_permissions(&at, fs::Permissions::from_mode(mode)));
        made.map_err(|error| DriverError::io(at.display().to_string(), error))
    }

    fn tree(
        &self,
        _: &Path,
        _: &TreeOptions,
        _: &(dyn Fn(TreeEntry) + Send + Sync),
    ) -> Result<(), DriverError> {
        Err(DriverError::new(ErrorKind::Unsupported, "a database is not a tree"))
    }
}

impl CopyReader for DiskCopy {
    fn kind(&self, path: &CopyPath) -> Result<EntryKind, DriverError> {
        let is_directory = self.at(path).is_dir();
        Ok(if is_directory { EntryKind::Directory } else { EntryKind::File })
    }

    fn list(&self, under: Option<&CopyPath>) -> Result<Vec<CopyEntry>, DriverError> {
        let base = under.map_or_else(|| self.root.clone(), |under| self.at(under));
        let mut entries = Vec::new();
        for entry in fs::read_dir(base).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            let path = match under {
                Some(under) => under.join(name.as_bytes()),
                None => CopyPath::new(name.as_bytes()),
            };
            entries.push(CopyEntry {
                path: path.unwrap(),
                kind: EntryKind::File,
                size: entry.metadata().unwrap().len(),
                modified: Timestamp::UNIX_EPOCH,
            });
        }
        entries.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(entries)
    }

    fn read(&self, path: &CopyPath, limit_bytes: u64) -> Result<Vec<u8>, DriverError> {
        let bytes = fs::read(self.at(path)).map_err(|error| DriverError::io(path.to_string(), error))?;
        assert!(bytes.len() as u64 <= limit_bytes);
        Ok(bytes)
    }

    fn open(&self, path: &CopyPath) -> Result<Box<dyn Read + Send>, DriverError> {
        self.opened.lock().unwrap().push(path.clone());
        let from = File::open(self.at(path)).map_err(|error| DriverError::io(path.to_string(), error))?;
        Ok(Box::new(Damaged { from, sound: self.sound.load(Ordering::SeqCst) }))
    }

    fn restore(&self, under: &CopyPath, into: &Path, how: &Restoring) -> Result<Written, DriverError> {
        fs::create_dir_all(into).unwrap();
        let mut written = Written::default();
        for entry in fs::read_dir(self.at(under)).unwrap() {
            let entry = entry.unwrap();
            if entry.path().is_dir() {
                let below = under.join(entry.file_name().as_bytes()).unwrap();
                let part = self.restore(&below, &into.join(entry.file_name()), how)?;
                written.files += part.files;
                written.bytes += part.bytes;
                continue;
            }
            if how.left_out.contains(&under.join(entry.file_name().as_bytes()).unwrap()) {
                continue;
            }
            written.files += 1;
            if let Ok(target) = fs::read_link(entry.path()) {
                std::os::unix::fs::symlink(target, into.join(entry.file_name())).unwrap();
                continue;
            }
            written.bytes += fs::copy(entry.path(), into.join(entry.file_name())).unwrap();
        }
        Ok(written)
    }

    fn read_rest(&self) -> Result<Written, DriverError> {
        Ok(Written::default())
    }

    fn fetched_bytes(&self) -> u64 {
        0
    }
}

/// A sandbox that isolates nothing: a directory, and another user where we are root.
#[derive(Debug)]
pub(crate) struct OpenSandbox {
    directory: tempfile::TempDir,
    facts: SandboxFacts,
    user: Option<Ids>,
}

#[derive(Debug)]
struct OpenProcess {
    child: std::process::Child,
    log: PathBuf,
}

impl OpenSandbox {
    pub(crate) fn new() -> Arc<Self> {
        let user = server_user().unwrap();
        let directory = tempfile::Builder::new().prefix("swsb").tempdir_in("/tmp").unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        if let Some(user) = user {
            std::os::unix::fs::chown(directory.path(), Some(user.uid), Some(user.gid)).unwrap();
        }
        let facts = SandboxFacts {
            provider: "none".to_owned(),
            mode: "none".to_owned(),
            uid: 0,
            interfaces: Vec::new(),
            refused_connections: Vec::new(),
            limits: Vec::new(),
            inherited_descriptors: 0,
        };
        Arc::new(Self { directory, facts, user })
    }

    fn command(&self, exec: &Exec) -> std::process::Command {
        use std::os::unix::process::CommandExt as _;
        assert!(exec.argv[0].starts_with('/'), "a program is named by its absolute path");
        let mut command = std::process::Command::new(&exec.argv[0]);
        command
            .args(&exec.argv[1..])
            .env_clear()
            .envs(exec.env.iter().map(|(name, value)| (name, value)))
            .current_dir(self.directory.path())
            .stdin(exec.stdin.as_ref().map_or_else(Stdio::null, |path| File::open(path).unwrap().into()));
        if let Some(user) = self.user {
            command.uid(user.uid).gid(user.gid);
        }
        command
    }
}

#[async_trait]
impl SandboxProcess for OpenProcess {
    fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    async fn stop(&mut self, _: &Cx, signal: i32, grace: Duration) -> Result<i32, DriverError> {
        let pid = self.child.id().to_string();
        std::process::Command::new("/bin/kill").args([&format!("-{signal}"), &pid]).status().unwrap();
        let begun = Instant::now();
        while self.is_running() && begun.elapsed() < grace {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if self.is_running() {
            self.child.kill().unwrap();
        }
        Ok(self.child.wait().unwrap().code().unwrap_or(128))
    }

    fn stderr_tail(&self) -> Vec<u8> {
        fs::read(&self.log).unwrap_or_default()
    }
}

impl Drop for OpenProcess {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[async_trait]
impl Sandbox for OpenSandbox {
    fn root(&self) -> &Path {
        self.directory.path()
    }

    fn facts(&self) -> &SandboxFacts {
        &self.facts
    }

    async fn own(&self, _: &Cx, path: &Path) -> Result<(), DriverError> {
        if let Some(user) = self.user {
            let mut waiting = vec![path.to_owned()];
            while let Some(path) = waiting.pop() {
                std::os::unix::fs::lchown(&path, Some(user.uid), Some(user.gid)).unwrap();
                if fs::symlink_metadata(&path).unwrap().is_dir() {
                    waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                }
            }
        }
        Ok(())
    }

    async fn exec(&self, cx: &Cx, exec: Exec) -> Result<ExecOutcome, DriverError> {
        let begun = Instant::now();
        let mut command = tokio::process::Command::from(self.command(&exec));
        let output = cx.run(command.kill_on_drop(true).output()).await?.unwrap();
        Ok(ExecOutcome {
            status: output.status.code().unwrap_or(137),
            stdout: output.stdout,
            stderr: output.stderr,
            dropped_bytes: 0,
            took: begun.elapsed(),
        })
    }

    async fn spawn(&self, _: &Cx, exec: Exec) -> Result<Box<dyn SandboxProcess>, DriverError> {
        let log = self.directory.path().join("stderr");
        let mut command = self.command(&exec);
        command.stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        Ok(Box::new(OpenProcess { child: command.spawn().unwrap(), log }))
    }

    async fn close(&self, _: &Cx) -> Result<u64, DriverError> {
        Ok(0)
    }
}
