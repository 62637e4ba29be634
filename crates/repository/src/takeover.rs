//! Parts of an earlier snapshot in a new one, without being read again.
//!
//! What is taken over is named by the same trees and blobs. Before it gets its place every one of them has been looked up: the index
//! names it, and its pack is in the store; the packs are relied upon like those of anything that is there already, so that a commit
//! refuses when one of them has gone meanwhile.

use crate::control::Control;
use crate::error::{Object, RepositoryError, Result};
use crate::id::{BlobKind, SnapshotId};
use crate::read::Step;
use crate::session::{Session, SnapshotPath, Virtual};
use crate::tree::{Node, NodeKind};

/// What was taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TakenOver {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Session {
    /// Takes over those entries of a directory of an earlier snapshot whose names `keeps` says yes to, each with everything below it,
    /// to the same place in this one.
    ///
    /// Nothing gets its place when anything is missing: that is an error which names it, blames the earlier snapshot, and leaves this
    /// session as it was.
    pub fn take_over(
        &self,
        snapshot: &SnapshotId,
        under: &SnapshotPath,
        keeps: &dyn Fn(&[u8]) -> bool,
        control: &Control,
    ) -> Result<TakenOver> {
        let inner = &self.inner;
        inner.ensure()?;
        let depth = under.components().len();
        let mut taken = TakenOver::default();
        let mut entries: Vec<Node> = Vec::new();
        let mut failed = None;
        inner.repository.walk(snapshot, under, control, |entry| {
            if entry.path.len() <= depth {
                return Step::Enter;
            }
            if entry.path.len() == depth + 1 {
                if !keeps(&entry.node.name) {
                    return Step::Pass;
                }
                entries.push(entry.node.clone());
            }
            match self.relies_on(entry.node, &mut taken) {
                Ok(()) => Step::Enter,
                Err(error) => {
                    failed = Some(error);
                    Step::Stop
                }
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        for node in entries {
            let parts = under.components().iter().cloned().chain([node.name.clone()]);
            inner.place(&SnapshotPath::from_components(parts)?, Virtual::Leaf(Box::new(node)), &[])?;
        }
        Ok(taken)
    }

    /// Marks the packs of what a node names; an error where one of its blobs is not there.
    fn relies_on(&self, node: &Node, taken: &mut TakenOver) -> Result<()> {
        let packer = &self.inner.packer;
        if node.kind == NodeKind::Dir {
            let Some(tree) = &node.subtree else {
                let name = crate::quote::quote(&node.name);
                return Err(RepositoryError::inconsistent(Object::Tree, name, "a directory has no tree"));
            };
            return match packer.stored_length(BlobKind::Tree, tree)? {
                Some(_) => Ok(()),
                None => Err(RepositoryError::missing(Object::Tree, tree)),
            };
        }
        let mut length = 0;
        for id in node.content.iter().flatten() {
            match packer.stored_length(BlobKind::Data, id)? {
                Some(bytes) => length += u64::from(bytes),
                None => return Err(RepositoryError::missing(Object::DataBlob, id)),
            }
        }
        if node.kind == NodeKind::File {
            if length != node.size {
                let name = crate::quote::quote(&node.name);
                let why = format!("its pieces have {length} bytes, the file {}", node.size);
                return Err(RepositoryError::inconsistent(Object::Tree, name, why));
            }
            taken.files += 1;
            taken.bytes += length;
        }
        Ok(())
    }
}
