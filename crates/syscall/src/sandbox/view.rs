//! The file system that a restored program sees: system programs read-only, its private directory, and nothing else.
//!
//! A list of what is shown, not of what is hidden: home directories, `/run` with its sockets (a network namespace does not
//! separate sockets in the file system), `/var`, the caller's state and other sandboxes are not there to be opened,
//! whoever owns them. `/etc` is made of a few public files, with a user list that holds the program's user.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use super::{Failure, Order};

/// Where programs and their libraries live. Those that do not exist here are left out.
const PROGRAMS: &[&str] =
    &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"];

/// What of `/etc` programs need and everybody may read.
const SETTINGS: &[&str] = &[
    "alternatives",
    "host.conf",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "localtime",
    "postgresql-common",
    "protocols",
    "services",
    "timezone",
];

const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom"];

/// Builds the view over `order.view` and makes it this process's root. Needs a mount namespace of its own.
pub(super) fn build(order: &Order) -> Result<(), Failure> {
    let at = |path: &Path| order.view.join(path.strip_prefix("/").unwrap_or(path));
    let step = |what: &str, path: &Path| format!("{what} {} in the sandbox", path.display());
    let root = Path::new("/");

    // First, so that nothing below reaches the caller's mount table.
    rustix::mount::mount_change(root, MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|error| Failure::isolation("make mounts private")(error.into()))?;
    // 16 MiB: room for a few small files of /etc.
    temporary(&order.view, 16 << 20, "0755")?;

    // Before what is shown and the private directory, either of which may be below /tmp.
    for memory in ["/dev/shm", "/tmp"] {
        let target = at(Path::new(memory));
        directory(&target)?;
        temporary(&target, order.limits.temporary_bytes, "1777")?;
    }

    let mut shown = BTreeSet::new();
    for path in PROGRAMS.iter().map(PathBuf::from).chain(order.read_only.iter().cloned()) {
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            if order.read_only.contains(&path) {
                let missing = io::Error::from(io::ErrorKind::NotFound);
                return Err(Failure::order(step("show", &path))(missing));
            }
            continue;
        };
        if metadata.is_symlink() && PROGRAMS.iter().any(|program| Path::new(program) == path) {
            let target = fs::read_link(&path).map_err(Failure::isolation(step("read", &path)))?;
            symlink(target, at(&path)).map_err(Failure::isolation(step("link", &path)))?;
        } else {
            bind(&path, &at(&path))?;
            shown.insert(path);
        }
    }

    hide(order, &at)?;
    settings(order, &at(Path::new("/etc")))?;
    shown.insert(PathBuf::from("/etc"));
    for device in DEVICES {
        let device = Path::new("/dev").join(device);
        bind(&device, &at(&device))?;
    }
    for (link, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        let link = Path::new("/dev").join(link);
        symlink(target, at(&link)).map_err(Failure::isolation(step("link", &link)))?;
    }
    directory(&at(Path::new("/run")))?;
    directory(&at(Path::new("/var")))?;
    // A private directory below /var/tmp needs that to be a directory of its own: through a link its path would lead
    // out of the view, to the host's /tmp.
    if order.root.starts_with("/var/tmp") {
        directory(&at(Path::new("/var/tmp")))?;
    } else {
        symlink("/tmp", at(Path::new("/var/tmp")))
            .map_err(Failure::isolation("link /var/tmp in the sandbox"))?;
    }
    bind(&order.root, &at(&order.root))?;
    let processes = at(Path::new("/proc"));
    directory(&processes)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("proc", &processes, "proc", flags, None)
        .map_err(|error| Failure::isolation("mount /proc in the sandbox")(error.into()))?;

    std::env::set_current_dir(&order.view).map_err(Failure::isolation("enter the view"))?;
    nix::unistd::pivot_root(".", ".")
        .map_err(|error| Failure::isolation("pivot into the view")(error.into()))?;
    // The old root lies over the new one now; without it there is no way back.
    rustix::mount::unmount(".", UnmountFlags::DETACH)
        .map_err(|error| Failure::isolation("leave the old root")(error.into()))?;
    std::env::set_current_dir(root).map_err(Failure::isolation("enter the new root"))?;
    seal(&shown, &order.root)
}

/// Puts an empty file over each that is not to be seen.
fn hide(order: &Order, at: &impl Fn(&Path) -> PathBuf) -> Result<(), Failure> {
    let nothing = at(Path::new("/.hidden"));
    for path in &order.hidden {
        let place = at(path);
        if !fs::symlink_metadata(&place).is_ok_and(|metadata| metadata.is_file()) {
            continue;
        }
        fs::write(&nothing, b"").map_err(Failure::isolation("make an empty file in the sandbox"))?;
        rustix::mount::mount_bind(&nothing, &place).map_err(|error| {
            Failure::isolation(format!("hide {} in the sandbox", path.display()))(error.into())
        })?;
    }
    Ok(())
}

fn directory(path: &Path) -> Result<(), Failure> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .map_err(Failure::isolation(format!("make {}", path.display())))
}

fn temporary(path: &Path, bytes_max: u64, mode: &str) -> Result<(), Failure> {
    let options = std::ffi::CString::new(format!("mode={mode},size={bytes_max}"))
        .map_err(|error| Failure::order("check the order")(io::Error::other(error)))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("tmpfs", path, "tmpfs", flags, options.as_c_str())
        .map_err(|error| Failure::isolation(format!("mount {}", path.display()))(error.into()))
}

fn bind(source: &Path, target: &Path) -> Result<(), Failure> {
    let step = || format!("show {} in the sandbox", source.display());
    let metadata = fs::metadata(source).map_err(Failure::isolation(step()))?;
    if metadata.is_dir() {
        directory(target)?;
    } else {
        if let Some(parent) = target.parent() {
            directory(parent)?;
        }
        fs::write(target, b"").map_err(Failure::isolation(step()))?;
    }
    // Recursive, because a user namespace may not show a directory without what is mounted over parts of it.
    rustix::mount::mount_bind_recursive(source, target)
        .map_err(|error| Failure::isolation(step())(error.into()))
}

fn settings(order: &Order, etc: &Path) -> Result<(), Failure> {
    directory(etc)?;
    for name in SETTINGS {
        let source = Path::new("/etc").join(name);
        let Ok(metadata) = fs::metadata(&source) else { continue };
        if metadata.is_dir() {
            bind(&source, &etc.join(name))?;
        } else {
            fs::copy(&source, etc.join(name))
                .map_err(Failure::isolation(format!("copy {}", source.display())))?;
        }
    }
    let Order { user_name, uid, gid, root, .. } = order;
    let home = root.display();
    let made = [
        (
            "passwd",
            format!("root:x:0:0:root:/:/bin/false\n{user_name}:x:{uid}:{gid}:sandbox:{home}:/bin/false\n"),
        ),
        ("group", format!("root:x:0:\n{user_name}:x:{gid}:\n")),
        ("nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files\n".into()),
        ("hosts", "127.0.0.1 localhost\n::1 localhost\n".into()),
    ];
    for (name, text) in made {
        fs::write(etc.join(name), text).map_err(Failure::isolation(format!("write /etc/{name}")))?;
    }
    Ok(())
}

/// Makes everything read-only except the private directory, `/tmp` and `/dev/shm`; set-user-id and device files mean
/// nothing anywhere.
fn seal(shown: &BTreeSet<PathBuf>, private: &Path) -> Result<(), Failure> {
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(Failure::isolation("list mounts"))?;
    for line in table.lines() {
        let mut fields = line.split(' ').skip(4);
        let (Some(point), Some(options)) = (fields.next(), fields.next()) else {
            return Err(Failure::isolation("list mounts")(io::Error::other("unreadable line")));
        };
        let point = PathBuf::from(unescape(point));
        let read_only = point == Path::new("/") || shown.iter().any(|path| point.starts_with(path));
        if !read_only && !point.starts_with(private) {
            continue;
        }
        // What is set already must be repeated: in a user namespace it is locked.
        let mut flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV;
        if read_only {
            flags |= MountFlags::RDONLY;
        }
        for option in options.split(',') {
            flags |= match option {
                "ro" => MountFlags::RDONLY,
                "noexec" => MountFlags::NOEXEC,
                "noatime" => MountFlags::NOATIME,
                "nodiratime" => MountFlags::NODIRATIME,
                "relatime" => MountFlags::RELATIME,
                _ => MountFlags::empty(),
            };
        }
        rustix::mount::mount_remount(&point, flags, c"")
            .map_err(|error| Failure::isolation(format!("seal {}", point.display()))(error.into()))?;
    }
    Ok(())
}

/// The kernel writes space, tab, newline and backslash in mount points as three octal digits.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}
