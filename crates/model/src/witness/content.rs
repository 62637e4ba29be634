//! The digest of a file's bytes that costs no second reading: computed from the pieces that it was stored in.
//!
//! A store hashes every piece anyway. Of a file of one piece the digest is its SHA-256, which any tool can recompute;
//! of a longer one it is the SHA-256 of the list of lengths and hashes. The lengths are kept, so that what a restore
//! yields is cut, and hashed, in the same places.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Bytes of a file, as lengths and one digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Bytes.
    pub size: u64,
    /// Where it was cut.
    pub cuts: CutList,
    /// Lowercase hexadecimal SHA-256: of the bytes where there is at most one piece, else of the list of pieces.
    pub digest: String,
}

/// Lengths of pieces, in order, runs of equal ones written once: `1048576*12,4096`. A single piece is not listed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CutList(Vec<(u32, u32)>);

/// Why a text is not a list of cuts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cuts are written `length*times,length`")]
pub struct CutListError;

impl CutList {
    /// The list of these lengths.
    #[must_use]
    pub fn new(lengths: impl IntoIterator<Item = u32>) -> Self {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for length in lengths {
            match runs.last_mut() {
                Some((last, times)) if *last == length && *times < u32::MAX => *times += 1,
                Some(_) | None => runs.push((length, 1)),
            }
        }
        if let [(_, 1)] = runs[..] {
            runs.clear();
        }
        Self(runs)
    }

    /// The lengths, in order; none where the file is one piece.
    pub fn lengths(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().flat_map(|(length, times)| std::iter::repeat_n(*length, *times as usize))
    }
}

impl fmt::Display for CutList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (length, times)) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            match times {
                1 => write!(f, "{length}")?,
                times => write!(f, "{length}*{times}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for CutList {
    type Err = CutListError;

    fn from_str(text: &str) -> Result<Self, CutListError> {
        let mut runs = Vec::new();
        for run in text.split(',').filter(|run| !run.is_empty()) {
            let (length, times) = run.split_once('*').unwrap_or((run, "1"));
            let length = length.parse().map_err(|_| CutListError)?;
            let times = times.parse().map_err(|_| CutListError)?;
            runs.push((length, times));
        }
        Ok(Self(runs))
    }
}

impl TryFrom<String> for CutList {
    type Error = CutListError;

    fn try_from(text: String) -> Result<Self, CutListError> {
        text.parse()
    }
}

impl From<CutList> for String {
    fn from(cuts: CutList) -> Self {
        cuts.to_string()
    }
}

impl Content {
    /// The content that was stored in these pieces, in order.
    #[must_use]
    pub fn of_pieces(pieces: impl IntoIterator<Item = (u32, [u8; 32])>) -> Self {
        let mut list = PieceList::default();
        for (length, sha256) in pieces {
            list.push(length, sha256);
        }
        list.finish()
    }
}

#[derive(Default)]
struct PieceList {
    size: u64,
    lengths: Vec<u32>,
    single: Option<[u8; 32]>,
    list: Sha256,
}

impl PieceList {
    fn push(&mut self, length: u32, sha256: [u8; 32]) {
        if length == 0 {
            return;
        }
        self.single = self.lengths.is_empty().then_some(sha256);
        self.size += u64::from(length);
        self.lengths.push(length);
        self.list.update(length.to_le_bytes());
        self.list.update(sha256);
    }

    fn finish(self) -> Content {
        let digest: [u8; 32] = match (self.lengths.len(), self.single) {
            (0, _) => Sha256::digest(b"").into(),
            (_, Some(single)) => single,
            (_, None) => self.list.finalize().into(),
        };
        Content { size: self.size, cuts: CutList::new(self.lengths), digest: hex(&digest) }
    }
}

/// Lowercase hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Measures bytes that were restored, cutting where the witness says that the stored file was cut.
///
/// Bytes beyond the recorded cuts form further pieces, so that a longer or shorter file never measures equal.
pub struct Measure {
    lengths: std::iter::Peekable<std::vec::IntoIter<u32>>,
    left: u32,
    filled: u32,
    hash: Sha256,
    pieces: PieceList,
}

impl Measure {
    /// Begins; `expected` is what the witness says of this file.
    #[must_use]
    pub fn new(expected: Option<&CutList>) -> Self {
        let lengths: Vec<u32> = expected.into_iter().flat_map(CutList::lengths).collect();
        let mut measure = Self {
            lengths: lengths.into_iter().peekable(),
            left: 0,
            filled: 0,
            hash: Sha256::new(),
            pieces: PieceList::default(),
        };
        measure.left = measure.next_length();
        measure
    }

    fn next_length(&mut self) -> u32 {
        // A file of one piece is not listed; whatever its size, it is hashed as one. A piece without bytes is none.
        self.lengths.next().unwrap_or(u32::MAX)
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let take = bytes.len().min(self.left as usize);
            self.hash.update(&bytes[..take]);
            let taken = u32::try_from(take).unwrap_or(u32::MAX);
            self.filled += taken;
            self.left -= taken;
            bytes = &bytes[take..];
            if self.left == 0 {
                self.cut();
            }
        }
    }

    fn cut(&mut self) {
        let sha256 = std::mem::take(&mut self.hash).finalize().into();
        self.pieces.push(self.filled, sha256);
        self.filled = 0;
        self.left = self.next_length();
    }

    /// What was measured.
    #[must_use]
    pub fn finish(mut self) -> Content {
        self.cut();
        self.pieces.finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(bytes: &[u8], lengths: &[usize]) -> Vec<(u32, [u8; 32])> {
        let mut rest = bytes;
        let mut pieces = Vec::new();
        let mut turn = lengths.iter().cycle();
        while !rest.is_empty() {
            let take = (*turn.next().unwrap()).min(rest.len());
            pieces.push((u32::try_from(take).unwrap(), Sha256::digest(&rest[..take]).into()));
            rest = &rest[take..];
        }
        pieces
    }

    proptest! {
        #[test]
        fn measuring_at_the_recorded_cuts_gives_the_recorded_content(
            bytes in proptest::collection::vec(any::<u8>(), 0..2000),
            lengths in proptest::collection::vec(1_usize..300, 1..5),
            reads in 1_usize..500,
            flipped in any::<proptest::sample::Index>(),
        ) {
            let stored = Content::of_pieces(pieces(&bytes, &lengths));
            let again = |bytes: &[u8]| {
                let mut measure = Measure::new(Some(&stored.cuts));
                bytes.chunks(reads).for_each(|bytes| measure.feed(bytes));
                measure.finish()
            };
            prop_assert_eq!(&again(&bytes), &stored);
            let read: CutList = stored.cuts.to_string().parse().unwrap();
            prop_assert_eq!(&read, &stored.cuts);
            let mut longer = bytes.clone();
            longer.push(0);
            prop_assert_ne!(&again(&longer), &stored);
            if !bytes.is_empty() {
                let mut other = bytes.clone();
                other[flipped.index(bytes.len())] ^= 1;
                prop_assert_ne!(&again(&other), &stored);
                prop_assert_ne!(&again(&bytes[1..]), &stored);
            }
        }
    }

    #[test]
    fn cuts_are_written_as_runs_and_read_back() {
        let cuts = CutList::new([7, 7, 7, 5, 7]);
        assert_eq!(cuts.to_string(), "7*3,5,7");
        assert_eq!(cuts.lengths().collect::<Vec<_>>(), [7, 7, 7, 5, 7]);
        assert_eq!(serde_json::to_string(&cuts).unwrap(), "\"7*3,5,7\"");
        assert_eq!(serde_json::from_str::<CutList>("\"7*3,5,7\"").unwrap(), cuts);
        assert_eq!(CutList::new([9]), CutList::default());
        for wrong in ["x", "7*", "*3", "7*x", "-1"] {
            assert!(serde_json::from_str::<CutList>(&format!("\"{wrong}\"")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pieces_without_bytes_are_none_and_what_is_beyond_the_cuts_is_one_more() {
        let one = Content::of_pieces([(0, [9; 32]), (3, [1; 32]), (0, [9; 32])]);
        assert_eq!(one, Content::of_pieces([(3, [1; 32])]));
        let two = Content::of_pieces([(3, [1; 32]), (4, [2; 32])]);
        assert_eq!((two.size, two.cuts.to_string().as_str()), (7, "3,4"));
        let measured = |bytes: &[u8], cuts: &str| {
            let cuts: CutList = cuts.parse().unwrap();
            let mut measure = Measure::new(Some(&cuts));
            measure.feed(bytes);
            measure.finish()
        };
        assert_eq!(measured(b"abcdefg", "3,4"), Content::of_pieces(pieces(b"abcdefg", &[3, 4])));
        assert_eq!(measured(b"abcdefghi", "3,4").cuts.to_string(), "3,4,2");
        assert_eq!(measured(b"ab", "0,3").cuts.to_string(), "");
        assert_eq!(measured(b"", "3"), Content::of_pieces([]));
    }

    #[test]
    fn the_digest_of_a_file_of_one_piece_is_its_sha256() {
        let stored = Content::of_pieces(pieces(b"abc", &[10]));
        assert_eq!(stored.digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(stored.cuts.to_string(), "");
        let empty = Content::of_pieces([]);
        assert_eq!(empty.digest, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
