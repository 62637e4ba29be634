//! Walking trees that hostile code may have written: no link is ever followed, no depth is too deep to remove.

use std::collections::VecDeque;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use seaworthy_interface::cx::Stop;
use seaworthy_interface::error::{DriverError, ErrorKind};
use tokio_util::sync::CancellationToken;

const OPEN_DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Gives `path`, which is in `root`, and everything below it to a user. Links themselves change hands, not what they name.
pub(super) fn own(
    root: &Path,
    path: &Path,
    uid: u32,
    gid: u32,
    token: &CancellationToken,
) -> Result<(), DriverError> {
    let refused = || {
        DriverError::new(ErrorKind::Refused, format!("give {} to user {uid}", path.display()))
            .because(format!("it is not below {}", root.display()))
    };
    let failed = |path: &Path, error: Errno| {
        DriverError::io(format!("give {} to user {uid}", path.display()), error.into())
    };
    let relative = path.strip_prefix(root).map_err(|_| refused())?;
    if !relative.components().all(|part| matches!(part, std::path::Component::Normal(_))) {
        return Err(refused());
    }
    let (uid_new, gid_new) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    let top = rustix::fs::open(root, OPEN_DIRECTORY, Mode::empty()).map_err(|error| failed(root, error))?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let start = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };

    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let first = rustix::fs::openat2(&top, start, flags, Mode::empty(), resolve)
        .map_err(|error| failed(path, error))?;
    rustix::fs::chownat(&first, c"", uid_new, gid_new, AtFlags::EMPTY_PATH)
        .map_err(|error| failed(path, error))?;
    let kind_first =
        FileType::from_raw_mode(rustix::fs::fstat(&first).map_err(|error| failed(path, error))?.st_mode);
    if kind_first != FileType::Directory {
        return Ok(());
    }
    // Directories by path, not by open descriptor: a tree can be wider and deeper than the number of descriptors.
    let mut waiting = VecDeque::from([start.to_owned()]);
    while let Some(relative) = waiting.pop_front() {
        let here = root.join(&relative);
        let directory = rustix::fs::openat2(&top, &relative, OPEN_DIRECTORY, Mode::empty(), resolve)
            .map_err(|error| failed(&here, error))?;
        for name in names(&directory).map_err(|error| failed(&here, error))? {
            if token.is_cancelled() {
                return Err(Stop::Cancelled.into());
            }
            let below = || relative.join(to_path(&name));
            rustix::fs::chownat(&directory, &name, uid_new, gid_new, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| failed(&root.join(below()), error))?;
            let kind_below = kind(&directory, &name).map_err(|error| failed(&root.join(below()), error))?;
            if kind_below == FileType::Directory {
                waiting.push_back(below());
            }
        }
    }
    Ok(())
}

/// Removes `path` and everything below it, whatever its modes; returns the bytes of disk that its files held. A path that
/// is not there is removed already.
///
/// Subdirectories are moved up before they are emptied, so that a tree deeper than any path can name goes in constant
/// memory and with three descriptors. Nothing may write to the tree meanwhile.
pub(super) fn remove(path: &Path, token: &CancellationToken) -> Result<u64, DriverError> {
    let failed = |error: Errno| DriverError::io(format!("remove {}", path.display()), error.into());
    let top = match rustix::fs::openat(CWD, path, OPEN_DIRECTORY, Mode::empty()) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(0),
        Err(Errno::ACCESS) => {
            let parent = path.parent().unwrap_or(Path::new("/"));
            let parent = rustix::fs::open(parent, OPEN_DIRECTORY, Mode::empty()).map_err(failed)?;
            let name = path.file_name().unwrap_or_default();
            open_forced(&parent, name).map_err(failed)?
        }
        Err(error) => return Err(failed(error)),
    };
    make_writable(&top).map_err(failed)?;
    let mut bytes = 0;
    let mut moved: u64 = 0;
    loop {
        let listed = names(&top).map_err(failed)?;
        if listed.is_empty() {
            break;
        }
        for name in listed {
            if token.is_cancelled() {
                return Err(Stop::Cancelled.into());
            }
            if kind(&top, &name).map_err(failed)? != FileType::Directory {
                bytes += unlink(&top, &name).map_err(failed)?;
                continue;
            }
            let directory = open_forced(&top, name.as_c_str()).map_err(failed)?;
            make_writable(&directory).map_err(failed)?;
            for child in names(&directory).map_err(failed)? {
                if kind(&directory, &child).map_err(failed)? != FileType::Directory {
                    bytes += unlink(&directory, &child).map_err(failed)?;
                    continue;
                }
                // Moving a directory changes its `..`, so it must be writable.
                make_writable(&open_forced(&directory, child.as_c_str()).map_err(failed)?).map_err(failed)?;
                loop {
                    moved += 1;
                    let name = format!(".removing-{moved}");
                    match rustix::fs::renameat_with(
                        &directory,
                        &child,
                        &top,
                        name,
                        rustix::fs::RenameFlags::NOREPLACE,
                    ) {
                        Ok(()) => break,
                        Err(Errno::EXIST) => {}
                        Err(error) => return Err(failed(error)),
                    }
                }
            }
            rustix::fs::unlinkat(&top, &name, AtFlags::REMOVEDIR).map_err(failed)?;
        }
    }
    match rustix::fs::rmdir(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(bytes),
        Err(error) => Err(failed(error)),
    }
}

fn names(directory: impl AsFd) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

fn kind(directory: impl AsFd, name: &CString) -> Result<FileType, Errno> {
    let status = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(status.st_mode))
}

fn unlink(directory: impl AsFd, name: &CString) -> Result<u64, Errno> {
    let status = rustix::fs::statat(directory.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::unlinkat(directory, name, AtFlags::empty())?;
    // The last name of a file frees its blocks of 512 bytes.
    Ok(if status.st_nlink <= 1 { u64::try_from(status.st_blocks).unwrap_or(0) * 512 } else { 0 })
}

/// Opens a directory even if its mode forbids it to its owner, following no link.
fn open_forced(parent: impl AsFd, name: impl rustix::path::Arg + Copy) -> Result<OwnedFd, Errno> {
    match rustix::fs::openat(parent.as_fd(), name, OPEN_DIRECTORY, Mode::empty()) {
        Err(Errno::ACCESS) => {}
        other => return other,
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = rustix::fs::openat(parent.as_fd(), name, flags, Mode::empty())?;
    // A handle without rights cannot change the mode itself; its name in /proc can, and leads to it and nowhere else.
    let number = std::os::fd::AsRawFd::as_raw_fd(&handle);
    rustix::fs::chmod(format!("/proc/self/fd/{number}"), Mode::RWXU)?;
    rustix::fs::openat(parent, name, OPEN_DIRECTORY, Mode::empty())
}

fn make_writable(directory: impl AsFd) -> Result<(), Errno> {
    let status = rustix::fs::fstat(directory.as_fd())?;
    if status.st_mode & 0o700 == 0o700 {
        return Ok(());
    }
    rustix::fs::fchmod(directory, Mode::RWXU)
}

fn to_path(name: &CString) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes()))
}
