//! What snapshots refer to: every tree and every piece below their roots, each once.
//!
//! Whoever deletes what is not reached, or copies what is, relies on it being complete: a tree that cannot be read, an entry
//! of it that makes no sense, a blob that no index lists each end the walk with an error, and nothing is passed over.
//! Memory holds a bit for each blob of the index and the trees that are still to be read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::control::{Control, POLL};
use crate::error::{Object, RepositoryError, Result};
use crate::id::{BlobKind, Id};
use crate::index::{Index, Place};
use crate::marks::Marks;
use crate::packer::locked;
use crate::repository::Inner;
use crate::tree::NodeKind;

/// A walk that can be added to and paused.
pub(crate) struct Walk<'a> {
    inner: &'a Inner,
    index: &'a Index,
    control: &'a Control,
    workers: usize,
    reached: Marks,
    open: Mutex<Open>,
    changed: Condvar,
}

#[derive(Default)]
struct Open {
    // The last is read first: a walk in depth knows few trees that it has not read.
    trees: Vec<Id>,
    // Trees that are being read, and may add others.
    reading: usize,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(inner: &'a Inner, index: &'a Index, control: &'a Control, workers: usize) -> Self {
        Self {
            inner,
            index,
            control,
            workers,
            reached: Marks::new(index.len()),
            open: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Marks a blob; gives it to `found` when it was not reached before.
    fn reach(
        &self,
        kind: BlobKind,
        id: &Id,
        found: &(impl Fn(usize, &Place) -> Result<()> + Sync),
    ) -> Result<bool> {
        let Some((number, place)) = self.index.find_numbered(kind, id)? else {
            // The index is not complete; what it lacks may lie in packs that look like garbage.
            return Err(RepositoryError::missing(kind.object(), id));
        };
        let is_new = self.reached.set(number);
        if is_new {
            found(number, &place)?;
        }
        Ok(is_new)
    }

    /// Adds the root of a snapshot.
    pub(crate) fn enter(
        &self,
        root: &Id,
        found: &(impl Fn(usize, &Place) -> Result<()> + Sync),
    ) -> Result<()> {
        if self.reach(BlobKind::Tree, root, found)? {
            locked(&self.open).trees.push(*root);
        }
        Ok(())
    }

    /// Reads all trees that are reached, and gives the number of the first record and the first place of every blob that was
    /// not reached before to `found`, on several threads. Stops between two trees once `is_enough`; whether it came to the end.
    pub(crate) fn run(
        &self,
        is_enough: &(impl Fn() -> bool + Sync),
        found: &(impl Fn(usize, &Place) -> Result<()> + Sync),
    ) -> Result<bool> {
        let failed: Mutex<Option<RepositoryError>> = Mutex::new(None);
        let stopped = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..self.workers.max(1) {
                scope.spawn(|| {
                    if let Err(error) = self.work(&stopped, is_enough, found) {
                        stopped.store(true, Ordering::Release);
                        locked(&failed).get_or_insert(error);
                    }
                    self.changed.notify_all();
                });
            }
        });
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(locked(&self.open).trees.is_empty()),
        }
    }

    fn work(
        &self,
        stopped: &AtomicBool,
        is_enough: &impl Fn() -> bool,
        found: &(impl Fn(usize, &Place) -> Result<()> + Sync),
    ) -> Result<()> {
        let mut codec = self.inner.codec(1)?;
        let mut subtrees = Vec::new();
        loop {
            let tree = {
                let mut open = locked(&self.open);
                loop {
                    if stopped.load(Ordering::Acquire) || is_enough() {
                        return Ok(());
                    }
                    if let Some(tree) = open.trees.pop() {
                        open.reading += 1;
                        break tree;
                    }
                    if open.reading == 0 {
                        return Ok(());
                    }
                    open = self.changed.wait_timeout(open, POLL).unwrap_or_else(PoisonError::into_inner).0;
                }
            };
            subtrees.clear();
            let read = self.control.check().and_then(|()| self.tree(&tree, &mut codec, &mut subtrees, found));
            let mut open = locked(&self.open);
            open.reading -= 1;
            open.trees.append(&mut subtrees);
            drop(open);
            self.changed.notify_all();
            read?;
        }
    }

    fn tree(
        &self,
        id: &Id,
        codec: &mut crate::blob::Codec,
        subtrees: &mut Vec<Id>,
        found: &(impl Fn(usize, &Place) -> Result<()> + Sync),
    ) -> Result<()> {
        for node in self.inner.read_tree(self.index, id, codec, self.control)? {
            let node = node?;
            if node.kind == NodeKind::Dir && node.subtree.is_none() {
                let name = crate::quote::quote(&node.name);
                let why = format!("entry \"{name}\": a directory without a tree");
                return Err(RepositoryError::inconsistent(Object::Tree, id, why));
            }
            self.control.check()?;
            // Of a kind that we do not know we keep whatever it refers to.
            for piece in node.content.iter().flatten() {
                self.reach(BlobKind::Data, piece, found)?;
            }
            if let Some(subtree) = node.subtree
                && self.reach(BlobKind::Tree, &subtree, found)?
            {
                subtrees.push(subtree);
            }
        }
        Ok(())
    }

    /// Of every blob that was reached, the number of its first record is marked.
    pub(crate) fn into_reached(self) -> Marks {
        self.reached
    }
}
