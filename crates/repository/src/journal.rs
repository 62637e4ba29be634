//! A journal beside the snapshots: what is durable at once, and will be part of a snapshot later.
//!
//! An entry is a file in `journal/`, named by the SHA-256 of what is stored: the length of a box (four bytes, little-endian), that box,
//! which holds a few words about the entry, and the entry itself, compressed and boxed as an index is, but for that it is compressed in
//! frames of 4 MiB, one behind the other, by all cores at once. The words can be read without the entry. Other clients of the format do
//! not look there, no snapshot refers to it, and no prune removes it: whoever wrote it does, once a snapshot holds the same.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use zstd::zstd_safe;

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
/// What stands before what is compressed, as in an index.
const COMPRESSED: u8 = 0x02;
/// Bytes of an entry that are compressed by themselves.
const FRAME_BYTES: usize = 4 << 20;
/// Longest entry.
const ENTRY_BYTES_MAX: usize = 64 << 20;

/// Does something with each of so many things, on all cores; what came of each, in their order.
fn each<T: Send>(things: usize, work: impl Fn(usize) -> Result<T, String> + Sync) -> Result<Vec<T>, String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(things);
    let next = AtomicUsize::new(0);
    let turn = || {
        let mut done = Vec::new();
        loop {
            let thing = next.fetch_add(1, Ordering::Relaxed);
            if thing >= things {
                return Ok::<_, String>(done);
            }
            done.push((thing, work(thing)?));
        }
    };
    let mut done = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(turn)).collect();
        let mut done: Vec<(usize, T)> = turn()?;
        for other in others {
            done.extend(other.join().map_err(|_| "it has panicked".to_owned())??);
        }
        Ok::<_, String>(done)
    })?;
    done.sort_by_key(|(thing, _)| *thing);
    Ok(done.into_iter().map(|(_, of)| of).collect())
}

/// An entry, compressed, and seen to be what it was.
fn compressed(entry: &[u8]) -> Result<Vec<u8>, String> {
    if entry.len() > ENTRY_BYTES_MAX {
        return Err(format!("an entry has at most {ENTRY_BYTES_MAX} bytes"));
    }
    // An empty one has one frame too.
    let frames = entry.len().div_ceil(FRAME_BYTES).max(1);
    let frames = each(frames, |frame| {
        let begin = frame * FRAME_BYTES;
        let plain = &entry[begin..entry.len().min(begin + FRAME_BYTES)];
        let frame = zstd::bulk::compress(plain, LEVEL).map_err(|error| error.to_string())?;
        // What does not open now will not open later.
        let again = zstd::bulk::decompress(&frame, plain.len()).map_err(|error| error.to_string())?;
        if again == plain { Ok(frame) } else { Err("it reads back differently".to_owned()) }
    })?;
    let mut all = Vec::with_capacity(1 + frames.iter().map(Vec::len).sum::<usize>());
    all.push(COMPRESSED);
    frames.iter().for_each(|frame| all.extend_from_slice(frame));
    Ok(all)
}

/// Where each frame is, and how long it says that it becomes.
fn frames(mut rest: &[u8]) -> Result<Vec<(Range<usize>, usize)>, String> {
    let (mut frames, mut at, mut length) = (Vec::new(), 0, 0_usize);
    while !rest.is_empty() || frames.is_empty() {
        let size = zstd_safe::find_frame_compressed_size(rest).map_err(zstd_safe::get_error_name)?;
        let plain = zstd_safe::get_frame_content_size(rest).ok().flatten();
        let plain = plain
            .and_then(|plain| usize::try_from(plain).ok())
            .ok_or("a frame does not say how long it is")?;
        length = length.saturating_add(plain);
        if length > ENTRY_BYTES_MAX {
            return Err(format!("it is longer than {ENTRY_BYTES_MAX} bytes"));
        }
        frames.push((at..at + size, plain));
        at += size;
        rest = rest.get(size..).ok_or("a frame is cut off")?;
    }
    Ok(frames)
}

/// What [`compressed`] has compressed.
fn uncompressed(stored: &[u8]) -> Result<Vec<u8>, String> {
    let Some((&COMPRESSED, stored)) = stored.split_first() else {
        return Err("it is not compressed".to_owned());
    };
    let frames = frames(stored)?;
    let mut parts = each(frames.len(), |index| {
        let (range, length) = &frames[index];
        let plain =
            zstd::bulk::decompress(&stored[range.clone()], *length).map_err(|error| error.to_string())?;
        if plain.len() == *length { Ok(plain) } else { Err("a frame is shorter than it says".to_owned()) }
    })?;
    Ok(if parts.len() == 1 { parts.swap_remove(0) } else { parts.concat() })
}

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
        let damaged = |why: String| RepositoryError::damaged(Object::Journal, "being written", why);
        let plain = compressed(entry).map_err(damaged)?;
        let boxed = inner.key.seal(&plain).map_err(random)?;
        let again = inner.key.open(&boxed).map_err(|why| damaged(why.to_string()))?;
        if again != plain {
            return Err(damaged("it reads back differently".to_owned()));
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
        let plain = self.inner.key.open(&stored[end..]).map_err(|why| damaged(&why))?;
        Ok((words, uncompressed(&plain).map_err(|why| damaged(&why))?))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_any_length_is_what_it_was() {
        let noise: Vec<u8> = (0..FRAME_BYTES * 2 + 9).map(|at| ((at * at) >> 7) as u8).collect();
        for length in [0, 1, 9, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, noise.len()] {
            let stored = compressed(&noise[..length]).unwrap();
            assert_eq!(frames(&stored[1..]).unwrap().len(), length.div_ceil(FRAME_BYTES).max(1));
            assert!(uncompressed(&stored).unwrap() == noise[..length], "{length}");
            // As one frame, as it was written before.
            let one = [&[COMPRESSED][..], &zstd::bulk::compress(&noise[..length], 3).unwrap()].concat();
            assert!(uncompressed(&one).unwrap() == noise[..length], "{length}");
        }
        assert!(compressed(&vec![0; ENTRY_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        let stored = compressed(&vec![7; FRAME_BYTES + 1]).unwrap();
        for cut in [0, 1, 2, stored.len() / 2, stored.len() - 1] {
            assert!(uncompressed(&stored[..cut]).is_err(), "{cut}");
        }
        assert!(uncompressed(&[&stored[..], b"x"].concat()).is_err());
        assert!(uncompressed(&[&[3], &stored[1..]].concat()).is_err());
        // One that would become too long is refused before it does.
        let long = zstd::bulk::compress(&vec![0; 40 << 20], 1).unwrap();
        let twice = [&[COMPRESSED][..], &long, &long].concat();
        assert!(uncompressed(&twice).unwrap_err().contains("longer"), "{twice:?}");
    }
}
