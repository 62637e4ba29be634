//! Where sandboxes live: making their directories, knowing whose they are, and removing what a crash left.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FlockOperation, Gid, Mode as FileMode, OFlags, Uid};
use rustix::process::{Pid, Signal};
use seaworthy_interface::error::{DriverError, ErrorKind};
use seaworthy_model::finding::FindingCode;
use seaworthy_model::id::RunId;
use seaworthy_syscall::sandbox::probe::start_time;
use seaworthy_syscall::sandbox::{Mode, User, VERB_INIT, VERB_KEEPER};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::tree;

const PREFIX: &str = "sw-";
const PREFIX_NEW: &str = ".sw-new-";
const MARKER: &str = "owner";
const PRIVATE: &str = "r";
const VIEW: &str = "v";

/// A Unix socket's path has at most 107 bytes; this leaves room for `/socket/.s.PGSQL.65535`.
const ROOT_BYTES_MAX: usize = 107 - "/socket/.s.PGSQL.65535".len();

/// Whose a sandbox is. Version 1.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Marker {
    version: u32,
    run: RunId,
    pid: u32,
    start_ticks: u64,
    boot: String,
}

impl Marker {
    fn of_this_process(run: &RunId) -> io::Result<Self> {
        let pid = std::process::id();
        Ok(Self { version: 1, run: run.clone(), pid, start_ticks: start_time(pid)?, boot: boot_id()? })
    }

    /// Whether another process that is still there made it.
    fn is_of_another_living_process(&self) -> io::Result<bool> {
        if self.pid == std::process::id() || self.boot != boot_id()? {
            return Ok(false);
        }
        match start_time(self.pid) {
            Ok(ticks) => Ok(ticks == self.start_ticks),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            // It ended while we read.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// The directories of one open sandbox. While it exists its marker is locked, and no reaper touches it.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) outer: PathBuf,
    pub(super) root: PathBuf,
    pub(super) view: PathBuf,
    _lock: File,
}

impl Place {
    pub(super) fn create(scratch: &Path, run: &RunId, mode: Mode, user: &User) -> Result<Self, DriverError> {
        let name = random_hex()?;
        let outer = scratch.join(format!("{PREFIX}{name}"));
        let length = outer.join(PRIVATE).as_os_str().len();
        if length > ROOT_BYTES_MAX {
            return Err(DriverError::new(
                ErrorKind::Unsupported,
                format!("make a sandbox in {}", scratch.display()),
            )
            .because(format!(
                "a Unix socket in it would have too long a path ({length} bytes, {ROOT_BYTES_MAX} at most)"
            ))
            .hint("set a scratch directory with a shorter path")
            .code(FindingCode::EnvOther));
        }
        let new = scratch.join(format!("{PREFIX_NEW}{name}"));
        // Held until the sandbox is whole; the kernel gives it back when we die.
        let making = File::open(scratch)
            .and_then(|directory| {
                rustix::fs::flock(&directory, FlockOperation::LockShared)?;
                Ok(directory)
            })
            .map_err(|error| DriverError::io(format!("lock {}", scratch.display()), error))?;
        let attempt = || -> io::Result<File> {
            private_directory(&new)?;
            let mut marker =
                File::options().write(true).create_new(true).mode(0o600).open(new.join(MARKER))?;
            rustix::fs::flock(&marker, FlockOperation::LockExclusive)?;
            marker.write_all(&serde_json::to_vec(&Marker::of_this_process(run)?)?)?;
            private_directory(&new.join(VIEW))?;
            private_directory(&new.join(PRIVATE))?;
            Ok(marker)
        };
        let failed = |error| DriverError::io(format!("make {}", outer.display()), error);
        let lock = attempt().map_err(failed)?;
        if mode == Mode::Root {
            let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
            rustix::fs::chown(new.join(PRIVATE), Some(uid), Some(gid)).map_err(|error| {
                DriverError::new(ErrorKind::PermissionDenied, format!("give a directory to user {}", user.name))
                    .because(io::Error::from(error))
                    .hint("this root may not act for other users, as in a container without their ids: run as an ordinary user")
                    .code(FindingCode::EnvPermission)
            })?;
        }
        // From here on it is whole.
        fs::rename(&new, &outer).map_err(failed)?;
        drop(making);
        Ok(Self { root: outer.join(PRIVATE), view: outer.join(VIEW), outer, _lock: lock })
    }

    /// Removes everything, and says how many bytes of disk that gave back.
    pub(super) fn remove(&self, token: &CancellationToken) -> Result<u64, DriverError> {
        remove(&self.outer, token)
    }
}

fn remove(outer: &Path, token: &CancellationToken) -> Result<u64, DriverError> {
    end_leftovers(&outer.join(PRIVATE))?;
    // The marker goes last: without it nobody would know whose the rest is.
    let mut bytes = tree::remove(&outer.join(PRIVATE), token)?;
    bytes += tree::remove(&outer.join(VIEW), token)?;
    bytes += tree::remove(outer, token)?;
    match fs::symlink_metadata(outer) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(bytes),
        Err(error) => Err(DriverError::io(format!("remove {}", outer.display()), error)),
        Ok(_) => Err(DriverError::new(ErrorKind::Conflict, format!("remove {}", outer.display()))
            .because("it is still there")
            .code(FindingCode::EnvOther)),
    }
}

fn private_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)
}

fn random_hex() -> Result<String, DriverError> {
    let mut bytes = [0_u8; 5];
    getrandom::fill(&mut bytes)
        .map_err(|error| DriverError::new(ErrorKind::Other, "read random bytes").because(error))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Makes the scratch directory if it is not there, and refuses one that another user could tamper with.
///
/// Returns it without symbolic links: what is checked is what is used.
pub(super) fn prepare(scratch: &Path) -> Result<PathBuf, DriverError> {
    let unsafe_place = |path: &Path, why: String| {
        DriverError::new(ErrorKind::Refused, format!("use {} for sandboxes", scratch.display()))
            .because(format!("{}: {why}", path.display()))
            .hint("set a scratch directory that only this user can write to")
            .code(FindingCode::EnvPermission)
    };
    let (Some(parent), Some(name), true) = (scratch.parent(), scratch.file_name(), scratch.is_absolute())
    else {
        return Err(unsafe_place(scratch, "not an absolute path of a directory".into()));
    };
    let failed = |error| DriverError::io(format!("use {} for sandboxes", scratch.display()), error);
    let parent = fs::canonicalize(parent).map_err(failed)?;
    let scratch_true = parent.join(name);
    match private_directory(&scratch_true) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let me = rustix::process::geteuid().as_raw();
    let metadata = fs::symlink_metadata(&scratch_true).map_err(failed)?;
    if !metadata.is_dir() {
        return Err(unsafe_place(&scratch_true, "not a directory, or a link to one".into()));
    }
    if metadata.uid() != me {
        return Err(unsafe_place(
            &scratch_true,
            format!("it belongs to user {}, we are {me}", metadata.uid()),
        ));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(unsafe_place(
            &scratch_true,
            format!("others may write to it (mode {:o})", metadata.mode() & 0o7777),
        ));
    }
    for ancestor in parent.ancestors() {
        let metadata = fs::symlink_metadata(ancestor).map_err(failed)?;
        let (owner, mode) = (metadata.uid(), metadata.mode());
        if owner != 0 && owner != me {
            return Err(unsafe_place(
                ancestor,
                format!("it belongs to user {owner}, who could replace what is in it"),
            ));
        }
        // In a sticky directory such as /tmp others can add, but not rename or remove what is ours.
        if mode & 0o022 != 0 && mode & 0o1000 == 0 {
            return Err(unsafe_place(ancestor, format!("others may write to it (mode {:o})", mode & 0o7777)));
        }
    }
    Ok(scratch_true)
}

/// Bytes that an unprivileged user can still write to the file system that `path` is on.
pub(super) fn free_bytes(path: &Path) -> Result<u64, DriverError> {
    let failed = |error: rustix::io::Errno| {
        DriverError::io(format!("read the free space of {}", path.display()), error.into())
    };
    let room = rustix::fs::statvfs(path).map_err(failed)?;
    Ok(room.f_bavail.saturating_mul(room.f_frsize))
}

/// Bytes of memory that programs on this machine can still have without pushing others out.
pub(super) fn available_memory() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    Ok(kibibytes.ok_or_else(|| io::Error::other("/proc/meminfo does not show MemAvailable"))? << 10)
}

/// Refuses a disk with less than `needed_bytes` besides what must stay free.
pub(super) fn check_room(scratch: &Path, needed_bytes: u64, reserve_bytes: u64) -> Result<(), DriverError> {
    let free = free_bytes(scratch)?;
    let wanted = needed_bytes.saturating_add(reserve_bytes);
    if free >= wanted {
        return Ok(());
    }
    Err(DriverError::new(ErrorKind::Exhausted, format!("make a sandbox in {}", scratch.display()))
        .because(format!(
            "{free} bytes are free, {needed_bytes} are needed and {reserve_bytes} are to stay free"
        ))
        .hint("free space, or set another scratch directory")
        .code(FindingCode::EnvDisk))
}

/// Removes the sandboxes that a dead process, or a forgetful caller in this one, left; returns how many.
///
/// Never touches what is not ours by owner, name and marker, what is open, what another living process made, or `live` runs.
pub(super) fn reap(scratch: &Path, live: &[RunId], token: &CancellationToken) -> Result<usize, DriverError> {
    if !scratch.exists() {
        return Ok(0);
    }
    let scratch = prepare(scratch)?;
    let failed = |error| DriverError::io(format!("list {}", scratch.display()), error);
    let mut removed = 0;
    let mut first_error = None;
    for entry in fs::read_dir(&scratch).map_err(failed)? {
        if token.is_cancelled() {
            return Err(seaworthy_interface::cx::Stop::Cancelled.into());
        }
        let entry = entry.map_err(failed)?;
        if !is_sandbox_name(&entry.file_name()) {
            continue;
        }
        match reap_one(&entry.path(), live, token) {
            Ok(true) => removed += 1,
            Ok(false) => {}
            // One that resists must not keep the others.
            Err(error) => drop(first_error.get_or_insert(error)),
        }
    }
    first_error.map_or(Ok(removed), Err)
}

fn is_sandbox_name(name: &std::ffi::OsStr) -> bool {
    let name = name.as_bytes();
    let rest = name.strip_prefix(PREFIX.as_bytes()).or_else(|| name.strip_prefix(PREFIX_NEW.as_bytes()));
    rest.is_some_and(|rest| rest.len() == 10 && rest.iter().all(u8::is_ascii_hexdigit))
}

fn reap_one(outer: &Path, live: &[RunId], token: &CancellationToken) -> Result<bool, DriverError> {
    let failed = |error: io::Error| DriverError::io(format!("look at {}", outer.display()), error);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory: OwnedFd = match rustix::fs::openat(CWD, outer, flags, FileMode::empty()) {
        Ok(directory) => directory,
        // Closed by its owner meanwhile, or not a directory and so not ours.
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
            return Ok(false);
        }
        // Another user's.
        Err(rustix::io::Errno::ACCESS) => return Ok(false),
        Err(error) => return Err(failed(error.into())),
    };
    let status = rustix::fs::fstat(&directory).map_err(|error| failed(error.into()))?;
    if status.st_uid != rustix::process::geteuid().as_raw() {
        return Ok(false);
    }
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match rustix::fs::openat(&directory, MARKER, flags, FileMode::empty()) {
        Ok(marker) => {
            let mut marker = File::from(marker);
            match rustix::fs::flock(&marker, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
                Err(error) => return Err(failed(error.into())),
            }
            let mut text = Vec::new();
            marker.read_to_end(&mut text).map_err(failed)?;
            match serde_json::from_slice::<Marker>(&text) {
                Ok(marker) => {
                    if live.contains(&marker.run) || marker.is_of_another_living_process().map_err(failed)? {
                        return Ok(false);
                    }
                }
                Err(_) if is_being_made(outer).map_err(failed)? => return Ok(false),
                // Its maker died while writing it.
                Err(_) => {}
            }
            // The lock is held until everything is gone, so that two reapers do not meet.
            remove(outer, token)?;
            drop(marker);
            Ok(true)
        }
        // Its maker died before writing a marker, or a remover after removing it; either way there is nothing else in it.
        Err(rustix::io::Errno::NOENT) if is_being_made(outer).map_err(failed)? => Ok(false),
        Err(rustix::io::Errno::NOENT) => match fs::remove_dir(outer) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            // Something without a marker is in it: not ours.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
            Err(error) => Err(failed(error)),
        },
        Err(error) => Err(failed(error.into())),
    }
}

/// Whether somebody may be between two steps of making a sandbox beside `outer`: makers hold a lock on the directory.
fn is_being_made(outer: &Path) -> io::Result<bool> {
    let directory = File::open(outer.parent().unwrap_or(Path::new("/")))?;
    match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Kills keeper and init of the sandbox with this private directory, and with them all that runs in it.
///
/// They have ended already when their caller died; this is for a kernel or a machine that was slow to do so.
fn end_leftovers(root: &Path) -> Result<(), DriverError> {
    let failed =
        |error: io::Error| DriverError::io(format!("look for processes of {}", root.display()), error);
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let found = leftovers(root).map_err(failed)?;
        if found.is_empty() {
            return Ok(());
        }
        for pid in &found {
            match rustix::process::kill_process(*pid, Signal::KILL) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(failed(error.into())),
            }
        }
        if Instant::now() > deadline {
            return Err(DriverError::new(
                ErrorKind::Conflict,
                format!("end what runs in {}", root.display()),
            )
            .because(format!("{} processes are still there", found.len()))
            .code(FindingCode::EnvOther));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Keepers and inits are known by their arguments, which name their sandbox. They are the caller's own program, so nothing
/// that was restored can pass for one outside its namespace, where it would matter.
fn leftovers(root: &Path) -> io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // It may end at any moment, and then there is nothing to find.
        let Ok(arguments) = fs::read(entry.path().join("cmdline")) else { continue };
        let mut arguments = arguments.split(|byte| *byte == 0).skip(1);
        let verb = arguments.next();
        let ours = verb == Some(VERB_KEEPER.as_bytes()) || verb == Some(VERB_INIT.as_bytes());
        if ours && arguments.next() == Some(root.as_os_str().as_bytes()) {
            found.extend(Pid::from_raw(pid));
        }
    }
    Ok(found)
}
