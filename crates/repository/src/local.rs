//! A local directory in restic's layout, with durable writes.
//!
//! Each file is written without a name, synced, linked to its name, and its directory synced: after a power cut it is whole
//! or absent, and whoever is killed in between leaves nothing. Where a file system knows no files without names, a
//! temporary name in the same directory and a rename take their place; what a kill leaves then is ignored by everybody.
//! `object_store`'s own local store does not sync, so this one takes its place.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path as FilePath, PathBuf};

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};

use crate::error::{RepositoryError, Result};
use crate::id::Id;
use crate::spool::Content;
use crate::store::Listed;

/// `f_type` of file systems that no other machine writes to (linux/magic.h, and the projects' own for those outside of
/// the kernel): ext2 to ext4, XFS, Btrfs, tmpfs, F2FS, overlayfs, bcachefs, ZFS.
const MAGIC_OF_LOCAL: [u64; 8] =
    [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0xf2f5_2010, 0x794c_7630, 0xca45_1a4e, 0x2fc1_2fc1];

/// A directory that holds one repository.
#[derive(Clone)]
pub struct LocalStore {
    root: PathBuf,
}

impl fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalStore({})", self.root.display())
    }
}

impl fmt::Display for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.root.display())
    }
}

impl LocalStore {
    /// The directory need not exist yet.
    pub fn new(root: &FilePath) -> Result<Self> {
        let root = std::path::absolute(root).map_err(|e| RepositoryError::io("open", root.display(), e))?;
        Ok(Self { root })
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Whether a listing that begins after a file was made shows that file, whoever made it: so it is on file systems of this
    /// machine. Of all others (network, FUSE) nothing is believed.
    pub(crate) fn lists_at_once(&self) -> bool {
        rustix::fs::statfs(&self.root).is_ok_and(|found| {
            let magic = found.f_type as u64 & 0xffff_ffff;
            MAGIC_OF_LOCAL.contains(&magic)
        })
    }

    pub(crate) fn prepare(&self) -> Result<()> {
        let mut directories = vec![PathBuf::new()];
        directories.extend(["index", "snapshots", "keys", "locks", "data"].map(PathBuf::from));
        directories.extend((0..=255u8).map(|n| PathBuf::from(format!("data/{n:02x}"))));
        for directory in directories {
            make_directory(&self.root.join(directory))?;
        }
        for directory in ["data", ""] {
            sync_directory(&self.root.join(directory))?;
        }
        if let Some(above) = self.root.parent() {
            sync_directory(above)?;
        }
        Ok(())
    }

    pub(crate) fn list_ids(&self, directory: &str, nested: bool) -> Result<Vec<Listed>> {
        let mut listed = Vec::new();
        let top = self.at(directory);
        let read = |path: &FilePath| match std::fs::read_dir(path) {
            Ok(entries) => Ok(Some(entries)),
            // Object stores know no empty directories, and neither may a copy made by them.
            Err(e) if e.kind() == io::ErrorKind::NotFound && self.root.join("config").exists() => Ok(None),
            Err(e) => Err(RepositoryError::io("list", path.display(), e)),
        };
        let Some(entries) = read(&top)? else { return Ok(listed) };
        for entry in entries {
            let entry = entry.map_err(|e| RepositoryError::io("list", top.display(), e))?;
            let kind = entry.file_type().map_err(|e| RepositoryError::io("list", top.display(), e))?;
            if nested && kind.is_dir() {
                let Some(inner) = read(&entry.path())? else { continue };
                for entry in inner {
                    let entry = entry.map_err(|e| RepositoryError::io("list", top.display(), e))?;
                    push_listed(&mut listed, &entry)?;
                }
            } else if !nested {
                push_listed(&mut listed, &entry)?;
            }
        }
        Ok(listed)
    }

    pub(crate) fn read_file(&self, path: &str, range: Option<Range<u64>>) -> Result<Option<Vec<u8>>> {
        let full = self.at(path);
        let failed = |e| RepositoryError::io("read", full.display(), e);
        let mut file = match File::open(&full) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(e)),
        };
        match range {
            None => {
                let size = file.metadata().map_err(failed)?.len();
                let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0).saturating_add(1));
                file.read_to_end(&mut bytes).map_err(failed)?;
                Ok(Some(bytes))
            }
            Some(range) => {
                let mut bytes = Vec::new();
                fill(&file, range, &mut bytes).map_err(failed)?;
                Ok(Some(bytes))
            }
        }
    }

    /// Like `read_file`, into a buffer whose pages are there already: faulting in fresh ones costs as much as hashing.
    pub(crate) fn read_range_into(
        &self,
        path: &str,
        range: Range<u64>,
        buffer: &mut Vec<u8>,
    ) -> Result<bool> {
        let full = self.at(path);
        let failed = |e| RepositoryError::io("read", full.display(), e);
        let file = match File::open(&full) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                buffer.clear();
                return Ok(false);
            }
            Err(e) => return Err(failed(e)),
        };
        fill(&file, range, buffer).map_err(failed)?;
        Ok(true)
    }

    pub(crate) fn write_file(
        &self,
        path: &str,
        bytes: &(impl Content + ?Sized),
        create_only: bool,
        check: &dyn Fn() -> io::Result<()>,
    ) -> Result<()> {
        let target = self.at(path);
        let directory = target.parent().unwrap_or(&self.root).to_path_buf();
        let failed = |e| RepositoryError::io("write", target.display(), e);
        // A second `init` must lose, also in a race; all other names are hashes of content.
        let is_first = create_only && path == "config";
        if write_unnamed(&directory, &target, bytes, is_first, check).map_err(failed)? {
            return sync_directory(&directory);
        }
        let mut random = [0u8; 8];
        getrandom::fill(&mut random).map_err(RepositoryError::random)?;
        let mut temporary = target.clone().into_os_string();
        temporary.push(format!("-tmp-{:016x}", u64::from_le_bytes(random)));
        let temporary = PathBuf::from(temporary);
        let open = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary);
        let mut file = match open() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                make_directory(&directory)?;
                sync_directory(directory.parent().unwrap_or(&self.root))?;
                open()
            }
            other => other,
        }
        .map_err(failed)?;
        let written = (|| {
            bytes.write_to(&mut file, check)?;
            file.sync_all()?;
            file.set_permissions(std::fs::Permissions::from_mode(0o400))?;
            drop(file);
            if is_first {
                std::fs::hard_link(&temporary, &target)?;
                std::fs::remove_file(&temporary)
            } else {
                std::fs::rename(&temporary, &target)
            }
        })();
        if let Err(e) = written {
            // The left-over is harmless (its name is not an id); the first failure is what matters.
            std::fs::remove_file(&temporary).ok();
            return Err(failed(e));
        }
        sync_directory(&directory)
    }

    /// Makes deletions in a directory durable.
    pub(crate) fn settle(&self, directory: &str) -> Result<()> {
        sync_directory(&self.at(directory))
    }

    pub(crate) fn size(&self, path: &str) -> Result<Option<u64>> {
        let full = self.at(path);
        match std::fs::metadata(&full) {
            Ok(meta) => Ok(Some(meta.len())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(RepositoryError::io("look at", full.display(), e)),
        }
    }

    pub(crate) fn delete_file(&self, path: &str) -> Result<()> {
        let target = self.at(path);
        match std::fs::remove_file(&target) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(RepositoryError::io("delete", target.display(), e)),
        }
    }
}

/// Writes a file that has no name before it is whole and durable; whether that could be done here.
///
/// `false` leaves nothing behind: the directory is missing, the file system knows no such files, the link is refused, or the
/// name is taken and may be replaced: unlike the others, the first file of a name (`is_first`) may not.
fn write_unnamed(
    directory: &FilePath,
    target: &FilePath,
    bytes: &(impl Content + ?Sized),
    is_first: bool,
    check: &dyn Fn() -> io::Result<()>,
) -> io::Result<bool> {
    use rustix::fs::{AtFlags, CWD, Mode, OFlags};
    use rustix::io::Errno;
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let mut file = match rustix::fs::openat(CWD, directory, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => File::from(file),
        // Kernels and file systems that do not know the flag take it for an attempt to write to a directory.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    bytes.write_to(&mut file, check)?;
    file.sync_all()?;
    file.set_permissions(std::fs::Permissions::from_mode(0o400))?;
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    match rustix::fs::linkat(CWD, open.as_str(), CWD, target, AtFlags::SYMLINK_FOLLOW) {
        Ok(()) => {
            // Once more, now that it has a name: Btrfs (until June 2025, commit 5e85262e542d) logs nothing of a file without
            // one, and after a power cut its name would lead to no bytes. Elsewhere there is hardly anything left to write.
            file.sync_all()?;
            Ok(true)
        }
        Err(Errno::EXIST) if is_first => Err(Errno::EXIST.into()),
        // Whatever forbids the link, the temporary name may still be had; what forbids that too, says so there.
        Err(_) => Ok(false),
    }
}

fn fill(file: &File, range: Range<u64>, bytes: &mut Vec<u8>) -> io::Result<()> {
    let wanted = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
    // What an index promises is not allocated before the file is known to have it.
    let there = file.metadata()?.len().saturating_sub(range.start);
    let wanted = wanted.min(usize::try_from(there).unwrap_or(usize::MAX));
    bytes.resize(wanted, 0);
    let mut filled = 0;
    while filled < wanted {
        match file.read_at(&mut bytes[filled..], range.start + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    bytes.truncate(filled);
    Ok(())
}

fn push_listed(listed: &mut Vec<Listed>, entry: &std::fs::DirEntry) -> Result<()> {
    let name = entry.file_name();
    let Some(name) = name.to_str() else { return Ok(()) };
    let Some(id) = Id::parse(name) else { return Ok(()) };
    if id.hex() != name {
        return Ok(());
    }
    match entry.metadata() {
        Ok(meta) if meta.is_file() => listed.push(Listed { id, size: meta.len() }),
        Ok(_) => {}
        // Removed between listing and looking, as locks are: it is not there.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(RepositoryError::io("look at", entry.path().display(), e)),
    }
    Ok(())
}

fn make_directory(path: &FilePath) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| RepositoryError::io("create directory", path.display(), e))
}

fn sync_directory(path: &FilePath) -> Result<()> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|e| RepositoryError::io("sync directory", path.display(), e))
}

fn to_store(path: &str, error: RepositoryError) -> object_store::Error {
    match &error {
        RepositoryError::Io { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => {
            object_store::Error::AlreadyExists { path: path.to_owned(), source: Box::new(error) }
        }
        RepositoryError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            object_store::Error::PermissionDenied { path: path.to_owned(), source: Box::new(error) }
        }
        _ => object_store::Error::Generic { store: "local", source: Box::new(error) },
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> object_store::Result<T> + Send + 'static,
) -> object_store::Result<T> {
    tokio::task::spawn_blocking(work).await?
}

impl LocalStore {
    pub(crate) fn meta(&self, location: &Path) -> object_store::Result<ObjectMeta> {
        let path = location.as_ref();
        let meta = std::fs::metadata(self.at(path)).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => {
                object_store::Error::NotFound { path: path.to_owned(), source: Box::new(e) }
            }
            _ => to_store(path, RepositoryError::io("look at", path, e)),
        })?;
        let modified =
            meta.modified().map_err(|e| to_store(path, RepositoryError::io("look at", path, e)))?;
        Ok(ObjectMeta {
            location: location.clone(),
            last_modified: modified.into(),
            size: meta.size(),
            e_tag: None,
            version: None,
        })
    }

    fn walk(&self, prefix: &str) -> object_store::Result<Vec<ObjectMeta>> {
        let mut found = Vec::new();
        let mut open = vec![prefix.trim_matches('/').to_owned()];
        while let Some(directory) = open.pop() {
            let entries = match std::fs::read_dir(self.at(&directory)) {
                Ok(entries) => entries,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(to_store(&directory, RepositoryError::io("list", &directory, e))),
            };
            for entry in entries {
                let entry =
                    entry.map_err(|e| to_store(&directory, RepositoryError::io("list", &directory, e)))?;
                let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
                let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
                let kind =
                    entry.file_type().map_err(|e| to_store(&path, RepositoryError::io("list", &path, e)))?;
                if kind.is_dir() {
                    open.push(path);
                } else if !path.contains("-tmp-") {
                    match self.meta(&Path::from(path.as_str())) {
                        Ok(meta) => found.push(meta),
                        Err(object_store::Error::NotFound { .. }) => {}
                        Err(e) => return Err(e),
                    }
                }
            }
        }
        Ok(found)
    }
}

#[async_trait]
impl ObjectStore for LocalStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let create = match options.mode {
            PutMode::Overwrite => false,
            PutMode::Create => true,
            PutMode::Update(_) => {
                return Err(object_store::Error::NotSupported { source: "conditional update".into() });
            }
        };
        let store = self.clone();
        let path = location.to_string();
        blocking(move || {
            if create && store.at(&path).exists() {
                return Err(object_store::Error::AlreadyExists { path, source: "it exists".into() });
            }
            let bytes: Vec<u8> = payload.iter().flatten().copied().collect();
            store.write_file(&path, &bytes[..], create, &|| Ok(())).map_err(|e| to_store(&path, e))?;
            Ok(PutResult { e_tag: None, version: None, extensions: options.extensions })
        })
        .await
    }

    async fn put_multipart_opts(
        &self,
        _location: &Path,
        _options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        // Files of a repository are small and whole.
        Err(object_store::Error::NotSupported { source: "multipart upload to a local directory".into() })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        let store = self.clone();
        let location = location.clone();
        blocking(move || {
            let meta = store.meta(&location)?;
            options.check_preconditions(&meta)?;
            let range = match &options.range {
                None => 0..meta.size,
                Some(range) => range
                    .as_range(meta.size)
                    .map_err(|e| object_store::Error::Generic { store: "local", source: Box::new(e) })?,
            };
            let full = store.at(location.as_ref());
            let file = File::open(&full).map_err(|e| match e.kind() {
                io::ErrorKind::NotFound => {
                    object_store::Error::NotFound { path: location.to_string(), source: Box::new(e) }
                }
                _ => to_store(location.as_ref(), RepositoryError::io("read", full.display(), e)),
            })?;
            Ok(GetResult {
                payload: GetResultPayload::File(file, full),
                meta,
                range,
                attributes: object_store::Attributes::default(),
                extensions: options.extensions,
            })
        })
        .await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        let store = self.clone();
        locations
            .then(move |location| {
                let store = store.clone();
                async move {
                    let location = location?;
                    let path = location.to_string();
                    blocking(move || store.delete_file(&path).map_err(|e| to_store(&path, e))).await?;
                    Ok(location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let store = self.clone();
        let prefix = prefix.map(ToString::to_string).unwrap_or_default();
        futures::stream::once(blocking(move || store.walk(&prefix)))
            .flat_map(|found| match found {
                Ok(metas) => futures::stream::iter(metas.into_iter().map(Ok)).boxed(),
                Err(e) => futures::stream::once(async { Err(e) }).boxed(),
            })
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        let store = self.clone();
        let prefix = prefix.map(ToString::to_string).unwrap_or_default();
        blocking(move || {
            let mut objects = Vec::new();
            let mut prefixes = std::collections::BTreeSet::new();
            for meta in store.walk(&prefix)? {
                let rest =
                    meta.location.as_ref().strip_prefix(&prefix).unwrap_or_default().trim_start_matches('/');
                match rest.split_once('/') {
                    None => objects.push(meta),
                    Some((first, _)) => {
                        let path =
                            if prefix.is_empty() { first.to_owned() } else { format!("{prefix}/{first}") };
                        prefixes.insert(Path::from(path));
                    }
                }
            }
            Ok(ListResult {
                common_prefixes: prefixes.into_iter().collect(),
                objects,
                extensions: object_store::Extensions::default(),
            })
        })
        .await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        let store = self.clone();
        let (from, to) = (from.to_string(), to.to_string());
        blocking(move || {
            if matches!(options.mode, CopyMode::Create) && store.at(&to).exists() {
                return Err(object_store::Error::AlreadyExists { path: to, source: "it exists".into() });
            }
            let bytes = store.read_file(&from, None).map_err(|e| to_store(&from, e))?;
            let Some(bytes) = bytes else {
                return Err(object_store::Error::NotFound { path: from, source: "nothing there".into() });
            };
            store.write_file(&to, &bytes[..], false, &|| Ok(())).map_err(|e| to_store(&to, e))
        })
        .await
    }
}
