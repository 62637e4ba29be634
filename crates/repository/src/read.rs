//! Reading what a snapshot holds: listing, whole files, streams.
//!
//! Every byte that leaves here was decrypted, decompressed and hashed, and its hash equals the id it was asked for by. Names
//! leave here as stored; whoever creates files from them uses `restore`, which refuses the unsafe ones.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::blob::{Codec, Opened, two_of};
use crate::control::{Control, POLL};
use crate::error::{Object, RepositoryError, Result};
use crate::id::{BlobKind, Id, SnapshotId};
use crate::index::{Index, Place};
use crate::pack::PackedBlob;
use crate::packer::locked;
use crate::repository::{Inner, Repository};
use crate::session::SnapshotPath;
use crate::store::FileKind;
use crate::tree::{Node, NodeKind};

/// Directories deeper than this are refused: no real tree is, and a hostile one could be endless.
pub(crate) const DEPTH_MAX: usize = 2048;
/// One fetch from a pack is at most about this long.
const RANGE_MAX: u64 = 8 << 20;
/// Blobs of one pack with a smaller gap between them are fetched together.
const GAP_MAX: u64 = 128 << 10;
/// Content of a stream that is decoded at once.
const WINDOW: u64 = 4 << 20;

/// How a walk goes on after an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// With what lies below it, where it is a directory.
    Enter,
    /// With what comes after it.
    Pass,
    /// Not at all.
    Stop,
}

/// One entry of a snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotEntry<'a> {
    /// Its place, from the root of the snapshot.
    pub path: &'a [Vec<u8>],
    /// Its metadata.
    pub node: &'a Node,
}

/// Blobs of one pack that are fetched together.
pub(crate) struct RangeJob<T> {
    pub(crate) pack: Id,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) blobs: Vec<(PackedBlob, Vec<T>)>,
}

/// Groups blobs by pack and place, so that each is fetched and decoded once.
pub(crate) fn plan_ranges<T>(wanted: Vec<(Place, T)>) -> Vec<RangeJob<T>> {
    plan_ranges_up_to(RANGE_MAX, wanted)
}

/// The same with ranges of at most about `most` bytes.
pub(crate) fn plan_ranges_up_to<T>(most: u64, mut wanted: Vec<(Place, T)>) -> Vec<RangeJob<T>> {
    wanted.sort_by_key(|(place, _)| (place.pack, place.blob.offset));
    let mut jobs: Vec<RangeJob<T>> = Vec::new();
    for (place, target) in wanted {
        let start = u64::from(place.blob.offset);
        let end = start + u64::from(place.blob.length);
        if let Some(job) = jobs.last_mut()
            && job.pack == place.pack
        {
            if let Some((last, targets)) = job.blobs.last_mut()
                && *last == place.blob
            {
                targets.push(target);
                continue;
            }
            if start <= job.end + GAP_MAX && end.saturating_sub(job.start) <= most {
                job.end = job.end.max(end);
                job.blobs.push((place.blob, vec![target]));
                continue;
            }
        }
        jobs.push(RangeJob { pack: place.pack, start, end, blobs: vec![(place.blob, vec![target])] });
    }
    jobs
}

impl Inner {
    /// Fetches a range and gives every blob's plaintext to `sink`, or why there is none; a damaged blob is looked for in
    /// other packs first. An error of the sink, and a stop, end the job.
    pub(crate) fn run_range<T>(
        &self,
        index: &Index,
        job: &RangeJob<T>,
        codec: &mut Codec,
        control: &Control,
        mut sink: impl FnMut(&[T], Result<&[u8]>) -> Result<()>,
    ) -> Result<()> {
        let mut bytes = codec.take_fetched();
        self.fetch_range(job, &mut bytes, control)?;
        self.open_range(index, job, &mut bytes, codec, control, |targets, opened| {
            sink(targets, opened.map(|opened| opened.plain))
        })?;
        codec.give_fetched(bytes);
        Ok(())
    }

    /// Fetches a range, or what there is of it: what is missing is told by [`Self::open_range`], blob by blob.
    pub(crate) fn fetch_range<T>(
        &self,
        job: &RangeJob<T>,
        bytes: &mut Vec<u8>,
        control: &Control,
    ) -> Result<()> {
        match self.store.read_into(FileKind::Pack, &job.pack, job.start..job.end, bytes, control) {
            Ok(_) => {}
            Err(e) if e.stop().is_some() => return Err(e),
            // Another pack may have a copy; if none has, the blob's own error is given to the sink.
            Err(_) => bytes.clear(),
        }
        Ok(())
    }

    /// [`Self::run_range`] for what was fetched.
    pub(crate) fn open_range<T>(
        &self,
        index: &Index,
        job: &RangeJob<T>,
        bytes: &mut [u8],
        codec: &mut Codec,
        control: &Control,
        mut sink: impl FnMut(&[T], Result<Opened<'_>>) -> Result<()>,
    ) -> Result<()> {
        let place = |blob: &PackedBlob| {
            let from = usize::try_from(u64::from(blob.offset) - job.start).unwrap_or(usize::MAX);
            from..from.saturating_add(blob.length as usize)
        };
        let mut unread = Vec::new();
        let mut left = &job.blobs[..];
        while let Some(((blob, targets), rest)) = left.split_first() {
            control.check()?;
            left = rest;
            if let Some(((other, other_targets), rest)) = rest.split_first()
                && let Some((boxed, other_boxed)) = two_of(bytes, place(blob), place(other))
            {
                left = rest;
                let [first, second] = codec.open_two((blob, boxed), (other, other_boxed));
                match first {
                    Ok(opened) => sink(targets, Ok(opened))?,
                    Err(_) => unread.push((blob, targets)),
                }
                match second {
                    Ok(opened) => sink(other_targets, Ok(opened))?,
                    Err(_) => unread.push((other, other_targets)),
                }
                continue;
            }
            match bytes.get_mut(place(blob)).map(|boxed| codec.open(blob, boxed)) {
                Some(Ok(opened)) => sink(targets, Ok(opened))?,
                Some(Err(_)) | None => unread.push((blob, targets)),
            }
        }
        for (blob, targets) in unread {
            control.check()?;
            let again = self.with_blob(index, blob.kind, &blob.id, codec, control, |plain| {
                sink(targets, Ok(Opened { plain, packed: None, length_is_wrong: false }))
            });
            match again {
                Ok(result) => result?,
                Err(e) if e.stop().is_some() => return Err(e),
                Err(e) => sink(targets, Err(e))?,
            }
        }
        Ok(())
    }
}

impl Repository {
    /// Visits every entry at and below `under`, parents before children, in the order of the trees.
    ///
    /// A tree that cannot be read is an error, whatever was visited before: only what ends without one is complete. Nothing
    /// of a tree is visited before all of it is known to be what its id says.
    pub fn list(
        &self,
        snapshot: &SnapshotId,
        under: &SnapshotPath,
        control: &Control,
        mut visit: impl FnMut(SnapshotEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        self.walk(snapshot, under, control, |entry| match visit(entry) {
            ControlFlow::Continue(()) => Step::Enter,
            ControlFlow::Break(()) => Step::Stop,
        })
    }

    /// The same, but a directory for which `visit` answers [`Step::Pass`] is not entered: its trees are not read.
    pub fn walk(
        &self,
        snapshot: &SnapshotId,
        under: &SnapshotPath,
        control: &Control,
        mut visit: impl FnMut(SnapshotEntry<'_>) -> Step,
    ) -> Result<()> {
        let tree = self.root(snapshot, control)?;
        let index = self.index(control)?;
        let mut codec = self.inner.codec(1)?;
        let (mut path, start) = match self.find(&index, &tree, under, &mut codec, control)? {
            None => (Vec::new(), tree),
            Some(node) => {
                let path = under.components().to_vec();
                match visit(SnapshotEntry { path: &path, node: &node }) {
                    Step::Enter => {}
                    Step::Pass | Step::Stop => return Ok(()),
                }
                match node.subtree {
                    Some(subtree) if node.kind == NodeKind::Dir => (path, subtree),
                    _ => return Ok(()),
                }
            }
        };
        let mut stack = vec![self.inner.read_tree(&index, &start, &mut codec, control)?];
        while let Some(level) = stack.last_mut() {
            control.check()?;
            let Some(node) = level.next() else {
                stack.pop();
                path.pop();
                continue;
            };
            let node = node?;
            path.push(node.name.clone());
            let step = visit(SnapshotEntry { path: &path, node: &node });
            if step == Step::Stop {
                return Ok(());
            }
            if node.kind == NodeKind::Dir && step == Step::Enter {
                if stack.len() >= DEPTH_MAX {
                    return Err(RepositoryError::inconsistent(
                        Object::Tree,
                        start,
                        "it is nested too deeply",
                    ));
                }
                let subtree = node.subtree.ok_or_else(|| {
                    RepositoryError::inconsistent(Object::Tree, start, "a directory in it has no tree")
                })?;
                stack.push(self.inner.read_tree(&index, &subtree, &mut codec, control)?);
            } else {
                path.pop();
            }
        }
        Ok(())
    }

    /// The bytes of every indexed tree; only for proving that decoding loses nothing.
    #[doc(hidden)]
    pub fn visit_trees(&self, control: &Control, mut visit: impl FnMut(&Id, &[u8])) -> Result<()> {
        let index = self.index(control)?;
        let mut codec = self.inner.codec(1)?;
        for id in index.ids(BlobKind::Tree)? {
            self.inner
                .with_blob(&index, BlobKind::Tree, &id, &mut codec, control, |plain| visit(&id, plain))?;
        }
        Ok(())
    }

    pub(crate) fn root(&self, snapshot: &SnapshotId, control: &Control) -> Result<Id> {
        self.snapshot(snapshot, control)?
            .tree
            .ok_or_else(|| RepositoryError::inconsistent(Object::Snapshot, snapshot, "it has no tree"))
    }

    /// The node at a path; `None` for the root itself.
    pub(crate) fn find(
        &self,
        index: &Index,
        root: &Id,
        path: &SnapshotPath,
        codec: &mut Codec,
        control: &Control,
    ) -> Result<Option<Node>> {
        let mut tree = *root;
        let mut found = None;
        for (depth, name) in path.components().iter().enumerate() {
            let missing = || RepositoryError::missing(Object::Path, path);
            if depth > 0 && found.as_ref().is_some_and(|node: &Node| node.kind != NodeKind::Dir) {
                return Err(missing());
            }
            let mut nodes = self.inner.read_tree(index, &tree, codec, control)?;
            let node = nodes
                .find(|node| node.as_ref().map_or(true, |node| node.name == *name))
                .ok_or_else(missing)??;
            if let Some(subtree) = node.subtree {
                tree = subtree;
            }
            found = Some(node);
        }
        Ok(found)
    }

    /// The node at a path inside a snapshot; refuses the root, which has none.
    pub fn node(&self, snapshot: &SnapshotId, path: &SnapshotPath, control: &Control) -> Result<Node> {
        let tree = self.root(snapshot, control)?;
        let index = self.index(control)?;
        let mut codec = self.inner.codec(1)?;
        self.find(&index, &tree, path, &mut codec, control)?
            .ok_or_else(|| RepositoryError::refused("the root of a snapshot has no node"))
    }

    /// The whole content of a small file; refuses one above `limit` bytes before reading it.
    pub fn read_file(
        &self,
        snapshot: &SnapshotId,
        path: &SnapshotPath,
        limit: u64,
        control: &Control,
    ) -> Result<Vec<u8>> {
        let mut reader = self.open_file(snapshot, path, control)?;
        if reader.size() > limit {
            let why = format!("{path} has {} bytes, more than {limit}", reader.size());
            return Err(RepositoryError::refused(why));
        }
        let mut content = Vec::new();
        while let Some(piece) = reader.next_window()? {
            content.extend_from_slice(&piece);
        }
        Ok(content)
    }

    /// A file as a stream, prefetched by a few threads; every byte is verified before it comes out.
    pub fn open_file(
        &self,
        snapshot: &SnapshotId,
        path: &SnapshotPath,
        control: &Control,
    ) -> Result<FileReader> {
        let node = self.node(snapshot, path, control)?;
        self.open_node(&node, control)
    }

    /// The content of a file node, as a stream.
    pub fn open_node(&self, node: &Node, control: &Control) -> Result<FileReader> {
        if node.kind != NodeKind::File {
            return Err(RepositoryError::refused(format!("a {} has no content", node.kind.word())));
        }
        let index = self.index(control)?;
        FileReader::start(
            Arc::clone(&self.inner),
            index,
            node.content.as_deref().unwrap_or_default(),
            control.clone(),
        )
    }
}

struct Shared {
    inner: Arc<Inner>,
    index: Arc<Index>,
    control: Control,
    content: Vec<Id>,
    // Pieces that are decoded together, by their places in `content`.
    windows: Vec<Range<usize>>,
    ahead: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    next: usize,
    consumed: usize,
    ready: BTreeMap<usize, Result<Vec<u8>>>,
    stop: bool,
}

/// A file's content, in order.
pub struct FileReader {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    size: u64,
    current: Vec<u8>,
    at: usize,
    failed: bool,
}

impl std::fmt::Debug for FileReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileReader").field("size", &self.size).finish_non_exhaustive()
    }
}

fn piece(index: &Index, id: &Id) -> Result<Place> {
    index.find(BlobKind::Data, id)?.ok_or_else(|| RepositoryError::missing(Object::DataBlob, id))
}

impl FileReader {
    fn start(inner: Arc<Inner>, index: Arc<Index>, content: &[Id], control: Control) -> Result<Self> {
        let mut windows: Vec<Range<usize>> = Vec::new();
        let (mut size, mut room) = (0u64, 0u64);
        for (number, id) in content.iter().enumerate() {
            let length = u64::from(piece(&index, id)?.blob.plain_length());
            size += length;
            match windows.last_mut() {
                Some(window) if room >= length => window.end += 1,
                _ => {
                    windows.push(number..number + 1);
                    room = WINDOW;
                }
            }
            room = room.saturating_sub(length);
        }
        let count = std::thread::available_parallelism().map_or(2, usize::from).min(4).min(windows.len());
        let shared = Arc::new(Shared {
            inner,
            index,
            control,
            content: content.to_vec(),
            windows,
            ahead: count + 1,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let mut reader =
            Self { shared, threads: Vec::new(), size, current: Vec::new(), at: 0, failed: false };
        if count > 1 {
            for n in 0..count {
                let shared = Arc::clone(&reader.shared);
                let thread = std::thread::Builder::new()
                    .name(format!("repository-read-{n}"))
                    .spawn(move || shared.prefetch())
                    .map_err(|e| RepositoryError::io("start", "a reading thread", e))?;
                reader.threads.push(thread);
            }
        }
        Ok(reader)
    }

    /// The size of the content: the sum of its pieces as the index declares them.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The next few megabytes, or `None` at the end.
    pub fn next_window(&mut self) -> Result<Option<Vec<u8>>> {
        if self.failed {
            return Err(RepositoryError::refused("the reader has failed before"));
        }
        if self.at < self.current.len() {
            let rest = self.current.split_off(self.at);
            self.current.clear();
            self.at = 0;
            return Ok(Some(rest));
        }
        let result = self.take();
        self.failed = result.is_err();
        result
    }

    fn take(&mut self) -> Result<Option<Vec<u8>>> {
        let shared = &self.shared;
        let mut state = locked(&shared.state);
        let number = state.consumed;
        if number >= shared.windows.len() {
            return Ok(None);
        }
        if self.threads.is_empty() {
            state.consumed += 1;
            drop(state);
            let mut codec = shared.inner.codec(1)?;
            return shared.decode(number, &mut codec).map(Some);
        }
        loop {
            if let Some(result) = state.ready.remove(&number) {
                state.consumed += 1;
                drop(state);
                shared.changed.notify_all();
                return result.map(Some);
            }
            shared.control.check()?;
            if self.threads.iter().all(JoinHandle::is_finished) && !state.ready.contains_key(&number) {
                return Err(RepositoryError::refused("the reading threads died; this is a bug"));
            }
            state = shared.changed.wait_timeout(state, POLL).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl io::Read for FileReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at >= self.current.len() {
            match self.next_window().map_err(io::Error::other)? {
                Some(window) => {
                    self.current = window;
                    self.at = 0;
                }
                None => return Ok(0),
            }
        }
        let n = out.len().min(self.current.len() - self.at);
        out[..n].copy_from_slice(&self.current[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

impl Drop for FileReader {
    fn drop(&mut self) {
        locked(&self.shared.state).stop = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // A panic there has been noticed by the reader already, or nobody reads any more.
            thread.join().ok();
        }
    }
}

impl Shared {
    fn prefetch(&self) {
        let mut codec = self.inner.codec(1);
        loop {
            let number = {
                let mut state = locked(&self.state);
                loop {
                    if state.stop || state.next >= self.windows.len() {
                        return;
                    }
                    if state.next < state.consumed + self.ahead {
                        break;
                    }
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                state.next += 1;
                state.next - 1
            };
            let result = match &mut codec {
                Ok(codec) => self.decode(number, codec),
                Err(e) => Err(RepositoryError::refused(format!("no decoder: {e}"))),
            };
            locked(&self.state).ready.insert(number, result);
            self.changed.notify_all();
        }
    }

    fn decode(&self, number: usize, codec: &mut Codec) -> Result<Vec<u8>> {
        let window = &self.content[self.windows[number].clone()];
        let mut pieces: HashMap<usize, Vec<u8>> = HashMap::new();
        let wanted = window.iter().enumerate().map(|(i, id)| Ok((piece(&self.index, id)?, i)));
        let jobs = plan_ranges(wanted.collect::<Result<_>>()?);
        for job in &jobs {
            self.inner.run_range(&self.index, job, codec, &self.control, |targets, plain| {
                let plain = plain?;
                for target in targets {
                    pieces.insert(*target, plain.to_vec());
                }
                Ok(())
            })?;
        }
        let mut content = Vec::with_capacity(pieces.values().map(Vec::len).sum());
        for i in 0..window.len() {
            let piece =
                pieces.remove(&i).ok_or_else(|| RepositoryError::refused("a piece was not decoded"))?;
            content.extend_from_slice(&piece);
        }
        Ok(content)
    }
}
