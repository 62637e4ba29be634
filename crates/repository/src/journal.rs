//! A journal beside the snapshots: what is durable at once, and will be part of a snapshot later.
//!
//! An entry is a file in `journal/`, named by the SHA-256 of what is stored: the length of a box (four bytes, little-endian), that box,
//! which holds a few words about the entry, and the entry itself, compressed and boxed as an index is. The words can be read without the
//! entry. Other clients of the format do not look there, no snapshot refers to it, and no prune removes it: whoever wrote it does, once
//! a snapshot holds the same.

use bytes::Bytes;

use crate::blob::{open_unpacked, seal_unpacked_at};
use crate::control::Control;
use crate::error::{Object, RepositoryError, Result};
use crate::id::Id;
use crate::repository::Repository;
use crate::store::{FileKind, Listed};

/// Longest box of words.
const WORDS_MAX: usize = 4_092;
/// Bytes before it.
const LENGTH: usize = 4;
/// zstd's fastest usual level: an entry is waited for, and is stored again, compressed as everything else, once it is part of a snapshot.
const LEVEL: i32 = 1;

/// The box of words at the beginning of an entry, and where it ends.
fn words_of<'a>(id: &Id, stored: &'a [u8]) -> Result<(&'a [u8], usize)> {
    let damaged = || RepositoryError::damaged(Object::Journal, id, "it ends before its words do");
    let length = stored.first_chunk::<LENGTH>().ok_or_else(damaged)?;
    let end = usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length <= WORDS_MAX);
    let end = LENGTH
        + end.ok_or_else(|| RepositoryError::damaged(Object::Journal, id, "its words are too long"))?;
    Ok((stored.get(LENGTH..end).ok_or_else(damaged)?, end))
}

impl Repository {
    /// Stores an entry and a few words about it; durable when this returns. The same twice makes two entries.
    pub fn journal_put(&self, words: &[u8], entry: &[u8], control: &Control) -> Result<Id> {
        let inner = &self.inner;
        let random = |error: getrandom::Error| RepositoryError::refused(format!("no random bytes: {error}"));
        let words = inner.key.seal(words).map_err(random)?;
        let length = u32::try_from(words.len()).ok().filter(|length| *length as usize <= WORDS_MAX);
        let length =
            length.ok_or_else(|| RepositoryError::refused("the words about an entry are too long"))?;
        let boxed = seal_unpacked_at(LEVEL, &inner.key, inner.config.version, entry)?;
        // What does not open now will not open later.
        let again = open_unpacked(&inner.key, inner.config.version, &boxed);
        if again.map_err(|why| RepositoryError::damaged(Object::Journal, "being written", why))? != entry {
            return Err(RepositoryError::damaged(
                Object::Journal,
                "being written",
                "it reads back differently",
            ));
        }
        let stored = [&length.to_le_bytes()[..], &words, &boxed].concat();
        let id = Id::of(&stored);
        self.store().write(FileKind::Journal, &id, Bytes::from(stored), control)?;
        Ok(id)
    }

    /// All entries, in no particular order; never a part of them.
    pub fn journal(&self, control: &Control) -> Result<Vec<Listed>> {
        self.store().list(FileKind::Journal, control)
    }

    /// The words about an entry, authenticated; the entry itself is not read.
    pub fn journal_words(&self, id: &Id, control: &Control) -> Result<Vec<u8>> {
        let range = 0..(LENGTH + WORDS_MAX) as u64;
        let stored = self.store().read_range(FileKind::Journal, id, range, control)?;
        let stored = stored.ok_or_else(|| RepositoryError::missing(Object::Journal, id))?;
        let (words, _) = words_of(id, &stored)?;
        self.inner.key.open(words).map_err(|why| RepositoryError::damaged(Object::Journal, id, why))
    }

    /// An entry and the words about it, authenticated.
    pub fn journal_get(&self, id: &Id, control: &Control) -> Result<(Vec<u8>, Vec<u8>)> {
        let damaged = |why: &dyn std::fmt::Display| RepositoryError::damaged(Object::Journal, id, why);
        let stored = self.store().read(FileKind::Journal, id, control)?;
        let stored = stored.ok_or_else(|| RepositoryError::missing(Object::Journal, id))?;
        if Id::of(&stored) != *id {
            return Err(damaged(&"its SHA-256 is not its name"));
        }
        let (words, end) = words_of(id, &stored)?;
        let words = self.inner.key.open(words).map_err(|why| damaged(&why))?;
        let entry = open_unpacked(&self.inner.key, self.inner.config.version, &stored[end..]);
        Ok((words, entry.map_err(|why| damaged(&why))?))
    }

    /// Removes entries, for good when this returns. One that is not there is removed already.
    pub fn journal_remove(&self, ids: &[Id], control: &Control) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        for id in ids {
            control.check()?;
            self.store().delete(FileKind::Journal, id, control)?;
        }
        self.store().settle(FileKind::Journal)
    }
}
