//! Bytes that may be many: held in memory while they are few, in a file without a name when they are more.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::id::Id;
use crate::records::unnamed;

/// Bytes of a block, which is what is read at once.
pub(crate) const STEP: usize = 1 << 20;

/// Bytes that are held in memory before any of them goes to disk.
const HELD_MAX: usize = 4 * STEP;

/// Takes bytes in order and gives them back in blocks, as often as needed: what comes back from disk is compared with the
/// digest of what went there.
pub(crate) struct Spool {
    scratch: Option<PathBuf>,
    held_max: usize,
    // Whole blocks on disk, by their digests.
    file: Option<File>,
    digests: Vec<Id>,
    // What follows them.
    held: Vec<u8>,
}

impl Spool {
    /// Without a `scratch` directory everything stays in memory.
    pub(crate) fn new(scratch: Option<&Path>) -> Self {
        Self::with(scratch, HELD_MAX)
    }

    fn with(scratch: Option<&Path>, held_max: usize) -> Self {
        let scratch = scratch.map(Path::to_path_buf);
        Self { scratch, held_max: held_max.max(STEP), file: None, digests: Vec::new(), held: Vec::new() }
    }

    fn on_disk(&self) -> u64 {
        self.digests.len() as u64 * STEP as u64
    }

    pub(crate) fn len(&self) -> u64 {
        self.on_disk() + self.held.len() as u64
    }

    /// The block of this number into `out`; all but the last have [`STEP`] bytes, and those beyond it none.
    pub(crate) fn block(&self, number: u64, out: &mut Vec<u8>) -> io::Result<()> {
        out.clear();
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        if let (Some(digest), Some(file)) = (self.digests.get(index), &self.file) {
            out.resize(STEP, 0);
            file.read_exact_at(out, number * STEP as u64)?;
            if Id::of(out) != *digest {
                let why = "a list on disk reads back differently from what was written; is the disk sound?";
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            return Ok(());
        }
        out.extend_from_slice(chunk(&self.held, index - self.digests.len()));
        Ok(())
    }

    /// Gives all blocks in order to `take`.
    pub(crate) fn visit<E: From<io::Error>>(
        &self,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut buffer = Vec::new();
        for number in 0.. {
            self.block(number, &mut buffer)?;
            if buffer.is_empty() {
                break;
            }
            take(&buffer)?;
        }
        Ok(())
    }
}

/// The block of this number of some bytes.
pub(crate) fn chunk(bytes: &[u8], number: usize) -> &[u8] {
    let from = number.saturating_mul(STEP).min(bytes.len());
    &bytes[from..bytes.len().min(from.saturating_add(STEP))]
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.held.extend_from_slice(bytes);
        let Some(scratch) = &self.scratch else { return Ok(bytes.len()) };
        if self.file.is_none() {
            if self.held.len() <= self.held_max {
                return Ok(bytes.len());
            }
            self.file = Some(unnamed(scratch)?);
        }
        let Some(file) = &mut self.file else { return Ok(bytes.len()) };
        let (blocks, rest) = self.held.as_chunks::<STEP>();
        for block in blocks {
            file.write_all(block)?;
            self.digests.push(Id::of(block));
        }
        if !blocks.is_empty() {
            self.held = rest.to_vec();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a file of the store is made of.
pub(crate) trait Content {
    /// Writes all of it; `check` is asked now and then whether to go on.
    fn write_to(&self, file: &mut File, check: &dyn Fn() -> io::Result<()>) -> io::Result<()>;
}

impl Content for [u8] {
    fn write_to(&self, file: &mut File, _: &dyn Fn() -> io::Result<()>) -> io::Result<()> {
        file.write_all(self)
    }
}

impl Content for Spool {
    fn write_to(&self, file: &mut File, check: &dyn Fn() -> io::Result<()>) -> io::Result<()> {
        self.visit(|bytes| {
            check()?;
            file.write_all(bytes)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_comes_back_from_memory_and_from_disk() {
        let scratch = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..900_000u32).flat_map(u32::to_le_bytes).collect();
        for (held_max, step, on_disk) in [
            (0, 777, true),
            (STEP, STEP, true),
            (2 * STEP, 3 * STEP, true),
            (bytes.len() - 1, 70_001, true),
            (bytes.len(), 70_001, false),
        ] {
            let mut spool = Spool::with(Some(scratch.path()), held_max);
            for piece in bytes.chunks(step) {
                spool.write_all(piece).unwrap();
            }
            assert_eq!(spool.file.is_some(), on_disk, "{held_max}");
            assert!(!on_disk || spool.held.len() < STEP);
            assert_eq!(spool.len(), bytes.len() as u64);
            for _ in 0..2 {
                let mut all = Vec::new();
                spool
                    .visit(|piece| {
                        all.extend_from_slice(piece);
                        io::Result::Ok(())
                    })
                    .unwrap();
                assert!(all == bytes);
            }
            let mut block = Vec::new();
            spool.block(1, &mut block).unwrap();
            assert!(block == bytes[STEP..2 * STEP]);
            spool.block(4, &mut block).unwrap();
            assert!(block.is_empty());
        }
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_reads_back_differently_from_disk_is_not_given_out() {
        let scratch = tempfile::tempdir().unwrap();
        let mut spool = Spool::with(Some(scratch.path()), 0);
        spool.write_all(&vec![7; 3 * STEP]).unwrap();
        let mut block = Vec::new();
        spool.block(2, &mut block).unwrap();
        spool.file.as_ref().unwrap().write_all_at(&[8], 2 * STEP as u64 + 5).unwrap();
        spool.block(1, &mut block).unwrap();
        assert!(spool.block(2, &mut block).is_err());
        assert!(spool.visit(|_| io::Result::Ok(())).is_err());
    }
}
