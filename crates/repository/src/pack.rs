//! Pack files: boxes of blobs, then the box of the header, then the header's length. Pure.
//!
//! A pack has no gap, no padding and no trailing bytes: its size follows from its header, and both are checked.

use crate::crypto::{Key, OVERHEAD};
use crate::id::{BlobKind, Id};

/// One blob in a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedBlob {
    /// Data or tree.
    pub kind: BlobKind,
    /// SHA-256 of the plaintext.
    pub id: Id,
    /// Where its box begins.
    pub offset: u32,
    /// Length of the whole box.
    pub length: u32,
    /// Length of the plaintext when it is compressed; `None` when stored raw.
    pub uncompressed_length: Option<u32>,
}

impl PackedBlob {
    /// Length of the plaintext, as declared.
    #[must_use]
    pub fn plain_length(&self) -> u32 {
        self.uncompressed_length.unwrap_or(self.length.saturating_sub(OVERHEAD as u32))
    }

    /// Size of its header entry.
    #[must_use]
    pub fn entry_size(&self) -> u32 {
        if self.uncompressed_length.is_some() { 41 } else { 37 }
    }
}

/// The header's box may not be longer.
pub const HEADER_MAX: usize = 16 << 20;
/// The smallest pack: one raw blob of no bytes... and its header.
pub const SIZE_MIN: u64 = 73;

/// What is wrong with a header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The file is too short, or its header length does not fit it.
    #[error("its header length {0} does not fit its size {1}")]
    Length(u64, u64),
    /// The header's box does not open.
    #[error("header: {0}")]
    Box(#[from] crate::crypto::BoxError),
    /// An entry type that the format does not have.
    #[error("header entry of unknown type {0}")]
    Type(u8),
    /// The header ends within an entry, or is empty.
    #[error("header of {0} bytes is not a whole number of entries")]
    Cut(usize),
    /// The blobs do not fill the file exactly.
    #[error("its blobs end at {0}, its header begins at {1}")]
    Gap(u64, u64),
    /// An entry shorter than an empty box.
    #[error("blob of {0} bytes is shorter than its encryption")]
    Short(u32),
}

/// The size of a pack file with these blobs.
pub fn size<'a>(blobs: impl IntoIterator<Item = &'a PackedBlob>) -> u64 {
    36 + blobs.into_iter().map(|blob| u64::from(blob.length) + u64::from(blob.entry_size())).sum::<u64>()
}

/// The plaintext of the header of these blobs, which must be in the order of their offsets.
#[must_use]
pub fn encode_header(blobs: &[PackedBlob]) -> Vec<u8> {
    let mut out = Vec::with_capacity(blobs.len() * 41);
    for blob in blobs {
        let kind = match (blob.kind, blob.uncompressed_length.is_some()) {
            (BlobKind::Data, false) => 0,
            (BlobKind::Tree, false) => 1,
            (BlobKind::Data, true) => 2,
            (BlobKind::Tree, true) => 3,
        };
        out.push(kind);
        out.extend_from_slice(&blob.length.to_le_bytes());
        if let Some(length) = blob.uncompressed_length {
            out.extend_from_slice(&length.to_le_bytes());
        }
        out.extend_from_slice(&blob.id.0);
    }
    out
}

/// The blobs that a header's plaintext lists, with their running offsets.
pub fn decode_header(mut plain: &[u8]) -> Result<Vec<PackedBlob>, HeaderError> {
    let total = plain.len();
    let mut blobs = Vec::with_capacity(total / 37);
    let mut offset = 0u32;
    while let Some((&kind, rest)) = plain.split_first() {
        let (kind, compressed) = match kind {
            0 => (BlobKind::Data, false),
            1 => (BlobKind::Tree, false),
            2 => (BlobKind::Data, true),
            3 => (BlobKind::Tree, true),
            other => return Err(HeaderError::Type(other)),
        };
        let size = if compressed { 40 } else { 36 };
        let Some((entry, rest)) = rest.split_at_checked(size) else { return Err(HeaderError::Cut(total)) };
        let word = |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
        let length = word(0);
        if (length as usize) < OVERHEAD {
            return Err(HeaderError::Short(length));
        }
        // 0 means "not compressed", wherever it stands.
        let uncompressed_length = if compressed && word(4) != 0 { Some(word(4)) } else { None };
        let mut id = Id::default();
        id.0.copy_from_slice(&entry[size - 32..]);
        blobs.push(PackedBlob { kind, id, offset, length, uncompressed_length });
        offset = offset
            .checked_add(length)
            .ok_or(HeaderError::Gap(u64::from(offset) + u64::from(length), u64::from(u32::MAX)))?;
        plain = rest;
    }
    if blobs.is_empty() {
        return Err(HeaderError::Cut(total));
    }
    Ok(blobs)
}

/// Where the header's box lies in a file of this size, from its last four bytes.
pub fn header_range(file_size: u64, last_four: [u8; 4]) -> Result<std::ops::Range<u64>, HeaderError> {
    let length = u64::from(u32::from_le_bytes(last_four));
    let fits = file_size >= SIZE_MIN
        && length >= (OVERHEAD + 37) as u64
        && length <= HEADER_MAX as u64
        && length + 4 <= file_size;
    if !fits {
        return Err(HeaderError::Length(length, file_size));
    }
    Ok(file_size - 4 - length..file_size - 4)
}

/// Appends header box and length to a pack whose blobs are complete.
pub fn finish(key: &Key, pack: &mut Vec<u8>, blobs: &[PackedBlob]) -> Result<(), getrandom::Error> {
    pack.extend_from_slice(&trailer(key, blobs)?);
    Ok(())
}

/// Header box and length, which follow the blobs of a pack.
pub(crate) fn trailer(key: &Key, blobs: &[PackedBlob]) -> Result<Vec<u8>, getrandom::Error> {
    let mut trailer = key.seal(&encode_header(blobs))?;
    let length = u32::try_from(trailer.len()).expect("bounded by the number of blobs in a pack");
    trailer.extend_from_slice(&length.to_le_bytes());
    Ok(trailer)
}

/// The blobs that header box and length list.
pub(crate) fn read_trailer(key: &Key, trailer: &[u8]) -> Result<Vec<PackedBlob>, HeaderError> {
    let size = trailer.len() as u64;
    let (header, length) = trailer.split_last_chunk::<4>().ok_or(HeaderError::Length(0, size))?;
    if u32::from_le_bytes(*length) as usize != header.len() {
        return Err(HeaderError::Length(u64::from(u32::from_le_bytes(*length)), size));
    }
    decode_header(&key.open(header)?)
}

/// The blobs of a whole pack file; refuses gaps.
pub fn read(key: &Key, pack: &[u8]) -> Result<Vec<PackedBlob>, HeaderError> {
    let size = pack.len() as u64;
    let last = pack.last_chunk::<4>().ok_or(HeaderError::Length(0, size))?;
    let range = header_range(size, *last)?;
    let start = usize::try_from(range.start).map_err(|_| HeaderError::Length(0, size))?;
    let plain = key.open(&pack[start..pack.len() - 4])?;
    let blobs = decode_header(&plain)?;
    let end = blobs.iter().map(|blob| u64::from(blob.length)).sum::<u64>();
    if end != range.start {
        return Err(HeaderError::Gap(end, range.start));
    }
    Ok(blobs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn blobs() -> impl Strategy<Value = Vec<PackedBlob>> {
        let one = (any::<bool>(), any::<[u8; 32]>(), 32u32..100_000, proptest::option::of(1u32..1_000_000));
        proptest::collection::vec(one, 1..50).prop_map(|list| {
            let mut offset = 0;
            list.into_iter()
                .map(|(tree, id, length, uncompressed_length)| {
                    let kind = if tree { BlobKind::Tree } else { BlobKind::Data };
                    let blob = PackedBlob { kind, id: Id(id), offset, length, uncompressed_length };
                    offset += length;
                    blob
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn headers_round_trip(blobs in blobs()) {
            prop_assert_eq!(decode_header(&encode_header(&blobs)), Ok(blobs));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            // A refusal is as good as a result; a panic is not.
            decode_header(&bytes).ok();
            read(&Key::from_bytes(&[3; 64]), &bytes).ok();
        }
    }

    /// Trap 5: the length counts the box, not its own four bytes, and is little-endian.
    #[test]
    fn the_length_of_the_header_counts_its_box_only() {
        let key = Key::from_bytes(&[9; 64]);
        let blob = PackedBlob {
            kind: BlobKind::Data,
            id: Id::of(b"x"),
            offset: 0,
            length: 33,
            uncompressed_length: None,
        };
        let mut pack = key.seal(b"x").unwrap();
        finish(&key, &mut pack, &[blob]).unwrap();
        assert_eq!(pack.len() as u64, size(&[blob]));
        assert_eq!(pack[pack.len() - 4..], 69u32.to_le_bytes());
        assert_eq!(read(&key, &pack), Ok(vec![blob]));
        pack.insert(33, 0);
        assert_eq!(read(&key, &pack), Err(HeaderError::Gap(33, 34)));
    }
}
