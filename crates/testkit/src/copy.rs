//! A copy as a plain directory: what a driver writes lies there as real files, so that a test can read and damage it.
//!
//! It keeps the promises of the doors that drivers rely on (a dropped file spoils the copy, every piece is hashed, a
//! restore refuses a place that holds anything) and none of a repository: no encryption, no deduplication.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid};
use seaworthy_interface::copy::{EntryState, LeftOut, Written};
use seaworthy_interface::{
    CopyEntry, CopyFile, CopyPath, CopyReader, CopyWriter, Cuts, DriverError, EntryKind, ErrorKind, Piece,
    Restoring, StoredFile, TreeEntry, TreeOptions,
};
use sha2::{Digest as _, Sha256};

/// Bytes of a content-defined piece here: fixed, and small enough that modest test files have several.
const PIECE_BYTES: usize = 256 * 1024;

/// Called with the absolute path of each regular file between the first look at it and its reading.
///
/// An error stands for one of reading; a change made to the file stands for a writer in the middle of it.
pub type ReadHook = Arc<dyn Fn(&Path) -> io::Result<()> + Send + Sync>;

#[derive(Debug, Default)]
struct State {
    is_spoiled: AtomicBool,
    fetched: AtomicU64,
}

/// Writes a copy into a directory.
pub struct FsCopyWriter {
    root: PathBuf,
    state: Arc<State>,
    before_read: Option<ReadHook>,
}

impl std::fmt::Debug for FsCopyWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FsCopyWriter").field("root", &self.root).finish_non_exhaustive()
    }
}

impl FsCopyWriter {
    /// Writes below `root`, which is made where it does not exist.
    pub fn new(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        fs::create_dir_all(&root)?;
        Ok(Self { root, state: Arc::new(State::default()), before_read: None })
    }

    /// With faults put into the reading of trees.
    #[must_use]
    pub fn before_read(mut self, hook: ReadHook) -> Self {
        self.before_read = Some(hook);
        self
    }

    /// The finished copy; refuses one that a dropped file has spoiled.
    pub fn commit(&self) -> Result<FsCopyReader, DriverError> {
        if self.state.is_spoiled.load(Ordering::SeqCst) {
            return Err(DriverError::new(ErrorKind::Refused, "commit a copy with an unfinished file"));
        }
        Ok(FsCopyReader::open(&self.root))
    }
}

fn below(root: &Path, path: &CopyPath) -> PathBuf {
    root.join(OsStr::from_bytes(path.as_bytes()))
}

fn failed(context: &str, path: &Path) -> impl FnOnce(io::Error) -> DriverError {
    let context = format!("{context} `{}`", path.display());
    move |error| DriverError::io(context, error)
}

struct OpenFile {
    file: File,
    partial: PathBuf,
    path: PathBuf,
    cutter: Cutter,
    state: Arc<State>,
    is_finished: bool,
}

/// Cuts and hashes what it is fed.
struct Cutter {
    piece_bytes: usize,
    hash: Sha256,
    filled: usize,
    stored: StoredFile,
}

impl Cutter {
    fn new(cuts: Cuts) -> Self {
        let piece_bytes = match cuts {
            Cuts::ContentDefined => PIECE_BYTES,
            Cuts::Pages { page_bytes, size_bytes: _ } => {
                let page = usize::try_from(page_bytes.max(1)).unwrap_or(PIECE_BYTES);
                page * (PIECE_BYTES / page).max(1)
            }
        };
        Self {
            piece_bytes,
            hash: Sha256::new(),
            filled: 0,
            stored: StoredFile { size: 0, pieces: Vec::new() },
        }
    }

    fn feed(&mut self, mut bytes: &[u8]) {
        self.stored.size += bytes.len() as u64;
        while !bytes.is_empty() {
            let take = bytes.len().min(self.piece_bytes - self.filled);
            self.hash.update(&bytes[..take]);
            self.filled += take;
            bytes = &bytes[take..];
            if self.filled == self.piece_bytes {
                self.cut();
            }
        }
    }

    fn cut(&mut self) {
        let hash = std::mem::take(&mut self.hash);
        let length = u32::try_from(self.filled).unwrap_or(u32::MAX);
        self.stored.pieces.push(Piece { length, sha256: hash.finalize().into() });
        self.filled = 0;
    }

    fn finish(mut self) -> StoredFile {
        if self.filled > 0 {
            self.cut();
        }
        self.stored
    }
}

impl CopyFile for OpenFile {
    fn write(&mut self, bytes: &[u8]) -> Result<(), DriverError> {
        self.file.write_all(bytes).map_err(failed("write", &self.path))?;
        self.cutter.feed(bytes);
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<StoredFile, DriverError> {
        fs::rename(&self.partial, &self.path).map_err(failed("finish", &self.path))?;
        self.is_finished = true;
        let cutter = std::mem::replace(&mut self.cutter, Cutter::new(Cuts::ContentDefined));
        Ok(cutter.finish())
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if !self.is_finished {
            self.state.is_spoiled.store(true, Ordering::SeqCst);
        }
    }
}

impl CopyWriter for FsCopyWriter {
    fn begin(&self, path: &CopyPath, cuts: Cuts) -> Result<Box<dyn CopyFile>, DriverError> {
        let path = below(&self.root, path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed("make", parent))?;
        }
        if path.symlink_metadata().is_ok() {
            return Err(DriverError::new(ErrorKind::Conflict, format!("store `{}` twice", path.display())));
        }
        let mut partial = path.clone().into_os_string();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::create_new(&partial).map_err(failed("create", &partial))?;
        Ok(Box::new(OpenFile {
            file,
            partial,
            path,
            cutter: Cutter::new(cuts),
            state: Arc::clone(&self.state),
            is_finished: false,
        }))
    }

    fn directory(&self, path: &CopyPath, mode: u32) -> Result<(), DriverError> {
        let path = below(&self.root, path);
        fs::create_dir_all(&path).map_err(failed("make", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(failed("make", &path))
    }

    fn tree(
        &self,
        root: &Path,
        options: &TreeOptions,
        observe: &(dyn Fn(TreeEntry) + Send + Sync),
    ) -> Result<(), DriverError> {
        let Some(inside) = root.as_os_str().as_bytes().strip_prefix(b"/").and_then(CopyPath::new) else {
            return Err(DriverError::new(ErrorKind::Refused, format!("archive `{}`", root.display())));
        };
        let metadata = fs::symlink_metadata(root).map_err(failed("look at", root))?;
        let target = below(&self.root, &inside);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(failed("make", parent))?;
        }
        let mut archiver = Archiver {
            root,
            options,
            observe,
            device: metadata.dev(),
            links: HashMap::new(),
            before_read: self.before_read.as_ref(),
        };
        archiver.entry(root, &target)
    }
}

struct Archiver<'a> {
    root: &'a Path,
    options: &'a TreeOptions,
    observe: &'a (dyn Fn(TreeEntry) + Send + Sync),
    device: u64,
    links: HashMap<(u64, u64), PathBuf>,
    before_read: Option<&'a ReadHook>,
}

impl Archiver<'_> {
    fn entry(&mut self, from: &Path, to: &Path) -> Result<(), DriverError> {
        let metadata = match fs::symlink_metadata(from) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound && from != self.root => {
                (self.observe)(blank(from, EntryState::Vanished));
                return Ok(());
            }
            Err(error) => return Err(failed("look at", from)(error)),
        };
        let mut entry = describe(from, &metadata).map_err(failed("look at", from))?;
        let relative = from.strip_prefix(self.root).unwrap_or(from).as_os_str().as_bytes();
        if self.options.exclude.iter().any(|pattern| glob(pattern.as_bytes(), relative)) {
            entry.state = EntryState::Excluded(LeftOut::Pattern);
        } else if entry.kind == EntryKind::Socket {
            entry.state = EntryState::Excluded(LeftOut::Socket);
        }
        if entry.state != EntryState::Stored {
            (self.observe)(entry);
            return Ok(());
        }
        if entry.kind == EntryKind::Directory && self.options.one_file_system && metadata.dev() != self.device
        {
            fs::create_dir(to).map_err(failed("make", to))?;
            apply(to, &entry, None).map_err(failed("describe", to))?;
            entry.state = EntryState::MountPoint;
            (self.observe)(entry);
            return Ok(());
        }
        if entry.kind == EntryKind::Directory {
            let names = match fs::read_dir(from).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
                Ok(names) => names,
                Err(error) => {
                    entry.state = EntryState::Unreadable(error.to_string());
                    (self.observe)(entry);
                    return Ok(());
                }
            };
            fs::create_dir(to).map_err(failed("make", to))?;
            let mut names: Vec<OsString> = names.into_iter().map(|name| name.file_name()).collect();
            names.sort();
            for name in names {
                self.entry(&from.join(&name), &to.join(&name))?;
            }
            apply(to, &entry, None).map_err(failed("describe", to))?;
            (self.observe)(entry);
            return Ok(());
        }
        if entry.kind == EntryKind::File {
            self.file(from, to, &mut entry)?;
        } else {
            apply(to, &entry, None).map_err(failed("store", to))?;
        }
        (self.observe)(entry);
        Ok(())
    }

    fn file(&mut self, from: &Path, to: &Path, entry: &mut TreeEntry) -> Result<(), DriverError> {
        for _ in 0..3 {
            let outcome = match self.before_read.map_or(Ok(()), |hook| hook(from)) {
                Ok(()) => read_once(from),
                Err(error) => Err(error),
            };
            match outcome {
                Ok((bytes, was, is)) => {
                    entry.size = bytes.len() as u64;
                    let mut cutter = Cutter::new(Cuts::ContentDefined);
                    cutter.feed(&bytes);
                    entry.pieces = cutter.finish().pieces;
                    let seen = (entry.size, entry.mtime_ns);
                    let same = was == is && seen == (is.0, is.1);
                    entry.mtime_ns = is.1;
                    let earlier =
                        self.links.entry((entry.inode.1, entry.inode.0)).or_insert_with(|| to.to_owned());
                    if entry.inode.2 > 1 && earlier != to {
                        match fs::remove_file(to) {
                            Ok(()) => {}
                            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                            Err(error) => return Err(failed("replace", to)(error)),
                        }
                        fs::hard_link(&*earlier, to).map_err(failed("link", to))?;
                    } else {
                        apply(to, entry, Some(&bytes)).map_err(failed("store", to))?;
                    }
                    if same {
                        entry.state = EntryState::Stored;
                        return Ok(());
                    }
                    entry.state = EntryState::ChangedWhileRead;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    entry.state = EntryState::Vanished;
                    return Ok(());
                }
                Err(error) => {
                    entry.state = EntryState::Unreadable(error.to_string());
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

type Seen = (u64, i128);

fn read_once(path: &Path) -> io::Result<(Vec<u8>, Seen, Seen)> {
    let mut file = File::open(path)?;
    let seen = |file: &File| file.metadata().map(|now| (now.size(), mtime_ns(&now)));
    let before = seen(&file)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let after = seen(&file)?;
    Ok((bytes, before, after))
}

fn mtime_ns(metadata: &fs::Metadata) -> i128 {
    i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec())
}

fn kind_of(kind: fs::FileType) -> EntryKind {
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

fn blank(path: &Path, state: EntryState) -> TreeEntry {
    TreeEntry {
        path: path.as_os_str().as_bytes().to_vec(),
        kind: EntryKind::File,
        mode: 0,
        uid: 0,
        gid: 0,
        mtime_ns: 0,
        size: 0,
        inode: (0, 0, 1),
        link_target: None,
        rdev: 0,
        xattrs: Vec::new(),
        blocks_512: 0,
        pieces: Vec::new(),
        state,
    }
}

fn describe(path: &Path, metadata: &fs::Metadata) -> io::Result<TreeEntry> {
    let kind = kind_of(metadata.file_type());
    let mut xattrs = Vec::new();
    match xattr::list(path) {
        Ok(names) => {
            for name in names {
                if let Some(value) = xattr::get(path, &name)? {
                    xattrs.push((name.into_vec(), value));
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
        Err(error) => return Err(error),
    }
    xattrs.sort();
    let link_target = match kind {
        EntryKind::Symlink => Some(fs::read_link(path)?.into_os_string().into_vec()),
        EntryKind::File
        | EntryKind::Directory
        | EntryKind::Fifo
        | EntryKind::CharDevice
        | EntryKind::BlockDevice
        | EntryKind::Socket => None,
    };
    Ok(TreeEntry {
        path: path.as_os_str().as_bytes().to_vec(),
        kind,
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime_ns: mtime_ns(metadata),
        size: if kind == EntryKind::File { metadata.size() } else { 0 },
        inode: (metadata.ino(), metadata.dev(), metadata.nlink()),
        link_target,
        rdev: metadata.rdev(),
        xattrs,
        blocks_512: metadata.blocks(),
        pieces: Vec::new(),
        state: EntryState::Stored,
    })
}

/// Makes `to` what `entry` describes: its content (for a file), owner, mode, attributes and times, in this order.
fn apply(to: &Path, entry: &TreeEntry, content: Option<&[u8]>) -> io::Result<()> {
    let node = |kind| {
        rustix::fs::mknodat(CWD, to, kind, Mode::from_raw_mode(0o600), entry.rdev).map_err(io::Error::from)
    };
    match entry.kind {
        EntryKind::File => {
            let file = File::create(to)?;
            let content = content.unwrap_or_default();
            let sparse = entry.blocks_512 * 512 < entry.size;
            for (number, block) in content.chunks(4096).enumerate() {
                if !sparse || block.iter().any(|byte| *byte != 0) {
                    file.write_all_at(block, number as u64 * 4096)?;
                }
            }
            file.set_len(content.len() as u64)?;
        }
        EntryKind::Directory => fs::set_permissions(to, fs::Permissions::from_mode(0o700))?,
        EntryKind::Symlink => {
            std::os::unix::fs::symlink(
                OsStr::from_bytes(entry.link_target.as_deref().unwrap_or_default()),
                to,
            )?;
        }
        EntryKind::Fifo => node(FileType::Fifo)?,
        EntryKind::CharDevice => node(FileType::CharacterDevice)?,
        EntryKind::BlockDevice => node(FileType::BlockDevice)?,
        EntryKind::Socket => return Ok(()),
    }
    let owner = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
    match rustix::fs::chownat(CWD, to, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(()) => {}
        Err(rustix::io::Errno::PERM) if !rustix::process::geteuid().is_root() => {}
        Err(error) => return Err(error.into()),
    }
    for (name, value) in &entry.xattrs {
        xattr::set(to, OsStr::from_bytes(name), value)?;
    }
    if entry.kind != EntryKind::Symlink {
        fs::set_permissions(to, fs::Permissions::from_mode(entry.mode))?;
    }
    let seconds = i64::try_from(entry.mtime_ns.div_euclid(1_000_000_000)).unwrap_or(i64::MAX);
    let nanos = i64::try_from(entry.mtime_ns.rem_euclid(1_000_000_000)).unwrap_or(0);
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// `*` within a component, `**` across them, `?` one byte; a pattern without `/` matches at any depth.
fn glob(pattern: &[u8], path: &[u8]) -> bool {
    fn matches(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', b'*', rest @ ..] => (0..=text.len()).any(|skip| matches(rest, &text[skip..])),
            [b'*', rest @ ..] => (0..=text.len())
                .take_while(|skip| !text[..*skip].contains(&b'/'))
                .any(|skip| matches(rest, &text[skip..])),
            [b'?', rest @ ..] => {
                text.split_first().is_some_and(|(byte, text)| *byte != b'/' && matches(rest, text))
            }
            [byte, rest @ ..] => {
                text.split_first().is_some_and(|(first, text)| byte == first && matches(rest, text))
            }
        }
    }
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    matches(pattern, path) || (!pattern.contains(&b'/') && matches(pattern, name))
}

/// Reads a copy that lies in a directory.
#[derive(Debug, Clone)]
pub struct FsCopyReader {
    root: PathBuf,
    state: Arc<State>,
}

impl FsCopyReader {
    /// Where it lies, to be damaged.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Reads the copy below `root`, whatever a test has done to it.
    #[must_use]
    pub fn open(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), state: Arc::new(State::default()) }
    }

    /// Where a file of the copy lies, for a test that damages it.
    #[must_use]
    pub fn path_of(&self, path: &CopyPath) -> PathBuf {
        below(&self.root, path)
    }
}

fn walk(path: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut names: Vec<PathBuf> =
        fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
    names.sort();
    for name in names {
        let is_directory = fs::symlink_metadata(&name)?.is_dir();
        found.push(name.clone());
        if is_directory {
            walk(&name, found)?;
        }
    }
    Ok(())
}

fn copy_entry(
    from: &Path,
    to: &Path,
    left_out: &BTreeSet<PathBuf>,
    links: &mut HashMap<(u64, u64), PathBuf>,
    written: &Mutex<Written>,
) -> io::Result<()> {
    if left_out.contains(from) {
        return Ok(());
    }
    let metadata = fs::symlink_metadata(from)?;
    let entry = describe(from, &metadata)?;
    match entry.kind {
        EntryKind::Directory => {
            if !to.is_dir() {
                fs::create_dir(to)?;
            }
            let mut names: Vec<OsString> = fs::read_dir(from)?
                .map(|name| name.map(|name| name.file_name()))
                .collect::<io::Result<_>>()?;
            names.sort();
            for name in names {
                copy_entry(&from.join(&name), &to.join(&name), left_out, links, written)?;
            }
            apply(to, &entry, None)
        }
        EntryKind::File => {
            let earlier = links.entry((metadata.dev(), metadata.ino())).or_insert_with(|| to.to_owned());
            if metadata.nlink() > 1 && earlier != to {
                return fs::hard_link(&*earlier, to);
            }
            let content = fs::read(from)?;
            let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
            written.files += 1;
            written.bytes += content.len() as u64;
            apply(to, &entry, Some(&content))
        }
        EntryKind::Symlink
        | EntryKind::Fifo
        | EntryKind::CharDevice
        | EntryKind::BlockDevice
        | EntryKind::Socket => apply(to, &entry, None),
    }
}

impl CopyReader for FsCopyReader {
    fn kind(&self, path: &CopyPath) -> Result<EntryKind, DriverError> {
        let path = below(&self.root, path);
        let metadata = fs::symlink_metadata(&path).map_err(failed("look at", &path))?;
        Ok(kind_of(metadata.file_type()))
    }

    fn list(&self, under: Option<&CopyPath>) -> Result<Vec<CopyEntry>, DriverError> {
        let start = under.map_or_else(|| self.root.clone(), |under| below(&self.root, under));
        let mut found = Vec::new();
        walk(&start, &mut found).map_err(failed("list", &start))?;
        let mut entries = Vec::new();
        for path in found {
            let metadata = fs::symlink_metadata(&path).map_err(failed("look at", &path))?;
            let inside = path.strip_prefix(&self.root).unwrap_or(&path);
            let Some(inside) = CopyPath::new(inside.as_os_str().as_bytes()) else { continue };
            let modified = Timestamp::from_nanosecond(mtime_ns(&metadata)).unwrap_or(Timestamp::UNIX_EPOCH);
            let kind = kind_of(metadata.file_type());
            let size = if kind == EntryKind::File { metadata.size() } else { 0 };
            entries.push(CopyEntry { path: inside, kind, size, modified });
        }
        entries.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(entries)
    }

    fn read(&self, path: &CopyPath, limit_bytes: u64) -> Result<Vec<u8>, DriverError> {
        let path = below(&self.root, path);
        let size = fs::metadata(&path).map_err(failed("look at", &path))?.len();
        if size > limit_bytes {
            return Err(DriverError::new(
                ErrorKind::Refused,
                format!("read {size} bytes of `{}`", path.display()),
            ));
        }
        self.state.fetched.fetch_add(size, Ordering::Relaxed);
        fs::read(&path).map_err(failed("read", &path))
    }

    fn open(&self, path: &CopyPath) -> Result<Box<dyn Read + Send>, DriverError> {
        let path = below(&self.root, path);
        let file = File::open(&path).map_err(failed("open", &path))?;
        let size = file.metadata().map_err(failed("look at", &path))?.len();
        self.state.fetched.fetch_add(size, Ordering::Relaxed);
        Ok(Box::new(BufReader::new(file)))
    }

    fn restore(&self, under: &CopyPath, into: &Path, how: &Restoring) -> Result<Written, DriverError> {
        fs::create_dir_all(into).map_err(failed("make", into))?;
        if fs::read_dir(into).map_err(failed("list", into))?.next().is_some() {
            return Err(DriverError::new(ErrorKind::Conflict, format!("restore into `{}`", into.display())));
        }
        let from = below(&self.root, under);
        let left_out = how.left_out.iter().map(|path| below(&self.root, path)).collect();
        let written = Mutex::new(Written::default());
        let is_directory = fs::symlink_metadata(&from).map_err(failed("look at", &from))?.is_dir();
        let to = match from.file_name() {
            Some(name) if !is_directory => into.join(name),
            Some(_) | None => into.to_owned(),
        };
        copy_entry(&from, &to, &left_out, &mut HashMap::new(), &written).map_err(failed("restore", &to))?;
        let written = written.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.state.fetched.fetch_add(written.bytes, Ordering::Relaxed);
        Ok(written)
    }

    fn read_rest(&self) -> Result<Written, DriverError> {
        // Nothing here is authenticated, so there is nothing that a reading could show.
        Ok(Written::default())
    }

    fn fetched_bytes(&self) -> u64 {
        self.state.fetched.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> CopyPath {
        CopyPath::new(text).expect("sound")
    }

    #[test]
    fn a_dropped_file_spoils_the_copy() {
        let place = tempfile::tempdir().unwrap();
        let writer = FsCopyWriter::new(place.path()).unwrap();
        let mut file = writer.begin(&path("database/a"), Cuts::ContentDefined).unwrap();
        file.write(b"half").unwrap();
        drop(file);
        assert_eq!(writer.commit().unwrap_err().kind, ErrorKind::Refused);
    }

    #[test]
    fn what_was_written_comes_back_in_pieces_that_add_up() {
        let place = tempfile::tempdir().unwrap();
        let writer = FsCopyWriter::new(place.path()).unwrap();
        let bytes = vec![7_u8; PIECE_BYTES * 2 + 5];
        let stored = writer.put(&path("database/a"), &bytes).unwrap();
        assert_eq!(stored.pieces.len(), 3);
        assert_eq!(stored.pieces.iter().map(|piece| u64::from(piece.length)).sum::<u64>(), stored.size);
        let reader = writer.commit().unwrap();
        assert_eq!(reader.read(&path("database/a"), 1 << 20).unwrap(), bytes);
        assert!(reader.read(&path("database/a"), 10).is_err());
    }

    #[test]
    fn a_tree_keeps_links_modes_and_times_and_a_restore_refuses_a_full_place() {
        let source = tempfile::tempdir().unwrap();
        let copy = tempfile::tempdir().unwrap();
        let target = tempfile::tempdir().unwrap();
        fs::write(source.path().join("a"), b"content").unwrap();
        fs::hard_link(source.path().join("a"), source.path().join("b")).unwrap();
        fs::set_permissions(source.path().join("a"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::write(source.path().join("skipped.tmp"), b"x").unwrap();
        let writer = FsCopyWriter::new(copy.path()).unwrap();
        let seen = Mutex::new(Vec::new());
        let options = TreeOptions { exclude: vec!["*.tmp".to_owned()], one_file_system: false };
        writer.tree(source.path(), &options, &|entry| seen.lock().unwrap().push(entry)).unwrap();
        assert_eq!(seen.lock().unwrap().len(), 4);
        let reader = writer.commit().unwrap();
        let inside = path(source.path().to_str().unwrap().trim_start_matches('/'));
        reader.restore(&inside, target.path(), &Restoring::default()).unwrap();
        let a = fs::metadata(target.path().join("a")).unwrap();
        assert_eq!(
            (a.ino(), a.mode() & 0o7777),
            (fs::metadata(target.path().join("b")).unwrap().ino(), 0o640)
        );
        assert_eq!(mtime_ns(&a), mtime_ns(&fs::metadata(source.path().join("a")).unwrap()));
        assert!(!target.path().join("skipped.tmp").exists());
        assert_eq!(
            reader.restore(&inside, target.path(), &Restoring::default()).unwrap_err().kind,
            ErrorKind::Conflict
        );
    }
}
