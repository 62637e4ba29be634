//! A directory on its way into the repository: its entries come in order, and none of them is kept.

use crate::blob::Codec;
use crate::error::Result;
use crate::id::{BlobKind, Id};
use crate::large::{HELD_MAX, LargeWriter};
use crate::packer::Packer;
use crate::tree::{Encoder, Node};

/// Encoded entries of a large tree that are given on at once.
const BATCH: usize = 256 << 10;

/// Takes the entries of one directory; holds at most [`HELD_MAX`] bytes of them.
#[derive(Default)]
pub(crate) struct TreeWriter {
    encoder: Encoder,
    large: Option<Box<LargeWriter>>,
}

impl TreeWriter {
    /// Appends an entry; refuses names out of order, duplicates, and names that are not one safe component.
    pub(crate) fn push(&mut self, node: &Node, packer: &Packer, level: i32) -> Result<()> {
        self.encoder.push(node)?;
        let bytes = self.encoder.bytes();
        if self.large.is_none() && bytes.len() > HELD_MAX as usize {
            let repository = &packer.repository;
            let large = LargeWriter::new(&repository.key, level, repository.scratch())?;
            self.large = Some(Box::new(large));
        }
        if let Some(large) = &mut self.large
            && bytes.len() >= BATCH
        {
            large.push(bytes)?;
            if bytes.capacity() > 4 * BATCH {
                *bytes = Vec::new();
            } else {
                bytes.clear();
            }
        }
        Ok(())
    }

    /// Stores the tree unless it is there; returns its id.
    pub(crate) fn finish(self, packer: &Packer, codec: &mut Codec) -> Result<Id> {
        let rest = self.encoder.finish();
        match self.large {
            None => packer.store(codec, BlobKind::Tree, &rest),
            Some(mut large) => {
                large.push(&rest)?;
                packer.store_large_tree(large.finish()?)
            }
        }
    }
}
