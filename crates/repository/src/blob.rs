//! One blob from plaintext to box and back, with contexts and buffers that are made once per worker.
//!
//! Nothing leaves here unverified: a sealed box is opened again and compared before it is handed on, an opened one is
//! hashed and compared with its id before anybody sees a byte of it.

use std::io::Read as _;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe;

use crate::crypto::{IvPool, Key, OVERHEAD};
use crate::error::{RepositoryError, Result};
use crate::id::{BlobKind, Id};
use crate::pack::PackedBlob;

/// No plaintext of a data blob may be longer: readers hold whole blobs in memory.
pub(crate) const DATA_MAX: usize = 128 << 20;
/// No plaintext of a tree that is declared short enough to be held may be longer; of others see [`crate::large`].
pub(crate) const TREE_MAX: usize = 1 << 30;

pub(crate) fn limit(kind: BlobKind) -> usize {
    match kind {
        BlobKind::Data => DATA_MAX,
        BlobKind::Tree => TREE_MAX,
    }
}

/// Why a blob is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BlobError {
    #[error(transparent)]
    Box(#[from] crate::crypto::BoxError),
    #[error("its compression is broken: {0}")]
    Compression(String),
    #[error("its plaintext is longer than {0} bytes")]
    TooLong(usize),
    #[error("its content has another SHA-256: {0}")]
    Hash(Id),
}

/// Everything one worker needs for blobs.
pub(crate) struct Codec {
    key: Key,
    ivs: IvPool,
    compressor: Compressor<'static>,
    decompressor: Decompressor<'static>,
    boxed: Vec<u8>,
    verify: Vec<u8>,
    plain: Vec<u8>,
    fetched: Vec<u8>,
}

/// A finished box, borrowed from the codec's buffer.
pub(crate) struct Sealed<'a> {
    pub(crate) boxed: &'a [u8],
    pub(crate) uncompressed_length: Option<u32>,
}

/// A verified plaintext.
pub(crate) struct Opened<'a> {
    pub(crate) plain: &'a [u8],
    /// What it was decompressed from; `None` when it was stored raw.
    pub(crate) packed: Option<&'a [u8]>,
    /// The declared length was another; the content is right nevertheless.
    pub(crate) length_is_wrong: bool,
}

fn grow(buffer: &mut Vec<u8>, length: usize) {
    if buffer.len() < length {
        // Exactly: doubling would take twice the memory for the largest blob.
        buffer.reserve_exact(length - buffer.len());
        buffer.resize(length, 0);
    }
}

impl Codec {
    pub(crate) fn new(key: Key, level: i32) -> Result<Self> {
        let failed = |e| RepositoryError::io("prepare", "zstd", e);
        Ok(Self {
            key,
            ivs: IvPool::new(),
            compressor: Compressor::new(level).map_err(failed)?,
            decompressor: Decompressor::new().map_err(failed)?,
            boxed: Vec::new(),
            verify: Vec::new(),
            plain: Vec::new(),
            fetched: Vec::new(),
        })
    }

    /// The buffer for what is fetched, which is kept from one fetch to the next.
    pub(crate) fn take_fetched(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.fetched)
    }

    pub(crate) fn give_fetched(&mut self, buffer: Vec<u8>) {
        self.fetched = buffer;
    }

    /// A random bit for spreading blobs over packs.
    pub(crate) fn coin(&mut self) -> Result<bool> {
        self.ivs.bit().map_err(RepositoryError::random)
    }

    /// Compresses, encrypts, and (unless told not to) opens the result again and compares it with `plain`.
    ///
    /// Data that does not shrink by at least one part in 64 stays raw; trees are always compressed.
    pub(crate) fn seal(&mut self, kind: BlobKind, plain: &[u8], verify: bool) -> Result<Sealed<'_>> {
        let bound = zstd_safe::compress_bound(plain.len()).max(plain.len());
        grow(&mut self.boxed, bound + OVERHEAD);
        // Given too little room, zstd stops early: that is the test for data that does not shrink.
        let room = match kind {
            BlobKind::Tree => bound,
            BlobKind::Data => plain.len() - plain.len() / 64,
        };
        let packed = if plain.is_empty() {
            None // Trap 16: a zero-length blob cannot be of a compressed type.
        } else {
            match self.compressor.compress_to_buffer(plain, &mut self.boxed[16..16 + room]) {
                Ok(n) => Some(n),
                Err(_) if kind == BlobKind::Data => None,
                Err(e) => return Err(RepositoryError::io("compress", "a tree", e)),
            }
        };
        let inner = match packed {
            Some(n) => n,
            None => {
                self.boxed[16..16 + plain.len()].copy_from_slice(plain);
                plain.len()
            }
        };
        let end = inner + OVERHEAD;
        let iv = self.ivs.next().map_err(RepositoryError::random)?;
        self.key.seal_in_place(iv, &mut self.boxed[..end]);
        let uncompressed_length = packed.map(|_| short(plain)).transpose()?;
        if verify {
            let broken = |why: String| RepositoryError::damaged(kind.object(), "being written", why);
            let opened = reopened(&self.key, &mut self.verify, &self.boxed[..end]).map_err(broken)?;
            let equal = match packed {
                None => opened == plain,
                Some(_) => {
                    grow(&mut self.plain, plain.len());
                    let n = self
                        .decompressor
                        .decompress_to_buffer(opened, &mut self.plain[..plain.len()])
                        .map_err(|e| broken(e.to_string()))?;
                    self.plain[..n] == *plain
                }
            };
            if !equal {
                return Err(broken(
                    "what was packed differs from what was read; is the memory sound?".into(),
                ));
            }
        }
        Ok(Sealed { boxed: &self.boxed[..end], uncompressed_length })
    }

    /// Encrypts again what was opened and verified: what is compressed stays as it is, what is raw goes through
    /// [`Self::seal`].
    ///
    /// Compressing is by far the most work of a copy, and any frame may stand in any repository.
    pub(crate) fn seal_again(
        &mut self,
        kind: BlobKind,
        opened: &Opened<'_>,
        verify: bool,
    ) -> Result<Sealed<'_>> {
        // Trap 16: nothing may be declared as compressed to no length.
        let Some(packed) = opened.packed.filter(|_| !opened.plain.is_empty()) else {
            return self.seal(kind, opened.plain, verify);
        };
        let end = packed.len() + OVERHEAD;
        grow(&mut self.boxed, end);
        self.boxed[16..16 + packed.len()].copy_from_slice(packed);
        let iv = self.ivs.next().map_err(RepositoryError::random)?;
        self.key.seal_in_place(iv, &mut self.boxed[..end]);
        if verify {
            let broken = |why: String| RepositoryError::damaged(kind.object(), "being written", why);
            if reopened(&self.key, &mut self.verify, &self.boxed[..end]).map_err(broken)? != packed {
                return Err(broken(
                    "what was encrypted differs from what was read; is the memory sound?".into(),
                ));
            }
        }
        let uncompressed_length = Some(short(opened.plain)?);
        Ok(Sealed { boxed: &self.boxed[..end], uncompressed_length })
    }

    /// Decrypts where the box lies, decompresses, and compares the hash with the id.
    pub(crate) fn open<'a>(
        &'a mut self,
        blob: &PackedBlob,
        boxed: &'a mut [u8],
    ) -> Result<Opened<'a>, BlobError> {
        let opened = unpack(&self.key, &mut self.decompressor, blob, boxed, &mut self.plain)?;
        confirmed(blob, Id::of(opened.plain), opened)
    }

    /// [`Self::open`] for two blobs, whose hashes cost little more than one.
    pub(crate) fn open_two<'a>(
        &'a mut self,
        (one, one_boxed): (&PackedBlob, &'a mut [u8]),
        (other, other_boxed): (&PackedBlob, &'a mut [u8]),
    ) -> [Result<Opened<'a>, BlobError>; 2] {
        let decompressor = &mut self.decompressor;
        let first = unpack(&self.key, decompressor, one, one_boxed, &mut self.plain);
        let second = unpack(&self.key, decompressor, other, other_boxed, &mut self.verify);
        match (first, second) {
            (Ok(first), Ok(second)) => {
                let [first_id, second_id] = Id::of_two(first.plain, second.plain);
                [confirmed(one, first_id, first), confirmed(other, second_id, second)]
            }
            (first, second) => [
                first.and_then(|opened| confirmed(one, Id::of(opened.plain), opened)),
                second.and_then(|opened| confirmed(other, Id::of(opened.plain), opened)),
            ],
        }
    }
}

/// The length of a plaintext that the format can tell.
fn short(plain: &[u8]) -> Result<u32> {
    u32::try_from(plain.len())
        .map_err(|_| RepositoryError::refused("a blob of 4 GiB or more cannot be stored"))
}

/// What a finished box opens to.
fn reopened<'a>(key: &Key, buffer: &'a mut Vec<u8>, boxed: &[u8]) -> Result<&'a [u8], String> {
    grow(buffer, boxed.len());
    buffer[..boxed.len()].copy_from_slice(boxed);
    key.open_in_place(&mut buffer[..boxed.len()]).map(|opened| &*opened).map_err(|e| e.to_string())
}

/// Decrypts and decompresses. The content is authentic, but not yet known to be what its id says.
fn unpack<'a>(
    key: &Key,
    decompressor: &mut Decompressor<'static>,
    blob: &PackedBlob,
    boxed: &'a mut [u8],
    out: &'a mut Vec<u8>,
) -> Result<Opened<'a>, BlobError> {
    let inner: &'a [u8] = key.open_in_place(boxed)?;
    let Some(declared) = blob.uncompressed_length else {
        return Ok(Opened { plain: inner, packed: None, length_is_wrong: false });
    };
    let declared = declared as usize;
    let n = decompress(decompressor, inner, declared, limit(blob.kind), out)?;
    Ok(Opened { plain: &out[..n], packed: Some(inner), length_is_wrong: n != declared })
}

/// The only way out: what was opened, when its hash is its id.
fn confirmed<'a>(blob: &PackedBlob, id: Id, opened: Opened<'a>) -> Result<Opened<'a>, BlobError> {
    if id == blob.id { Ok(opened) } else { Err(BlobError::Hash(id)) }
}

/// Where two blobs lie in what was fetched, when they do not overlap.
pub(crate) fn two_of(
    bytes: &mut [u8],
    first: std::ops::Range<usize>,
    second: std::ops::Range<usize>,
) -> Option<(&mut [u8], &mut [u8])> {
    if first.end > second.start {
        return None;
    }
    let (left, right) = bytes.split_at_mut_checked(second.start)?;
    Some((left.get_mut(first)?, right.get_mut(..second.end.checked_sub(second.start)?)?))
}

/// Decompresses into `out`, which only grows as far as real output needs; returns the length.
fn decompress(
    decompressor: &mut Decompressor<'static>,
    packed: &[u8],
    declared: usize,
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<usize, BlobError> {
    // A declared length is believed as far as an honest writer needs it; a lie beyond that costs only what is there.
    const BELIEVED: usize = 16 << 20;
    if declared <= BELIEVED {
        grow(out, declared);
        if let Ok(n) = decompressor.decompress_to_buffer(packed, &mut out[..declared]) {
            return Ok(n);
        }
    }
    let broken = |e: std::io::Error| BlobError::Compression(e.to_string());
    let decoder = zstd::stream::read::Decoder::with_buffer(packed).map_err(broken)?;
    let mut produced = Vec::new();
    let n = decoder.take(limit as u64 + 1).read_to_end(&mut produced).map_err(broken)?;
    if n > limit {
        return Err(BlobError::TooLong(limit));
    }
    if produced.len() > out.len() {
        *out = produced;
    } else {
        out[..n].copy_from_slice(&produced);
    }
    Ok(n)
}

/// How hard what lies outside of packs is compressed; restic's usual level.
pub(crate) const UNPACKED_LEVEL: i32 = 3;

/// The box of an unpacked file: JSON, compressed behind a 0x02 in version 2.
pub(crate) fn seal_unpacked(key: &Key, version: u32, json: &[u8]) -> Result<Vec<u8>> {
    if version < 2 {
        return key.seal(json).map_err(RepositoryError::random);
    }
    let compressed = zstd::bulk::compress(json, UNPACKED_LEVEL)
        .map_err(|e| RepositoryError::io("compress", "a file", e))?;
    let plain = [&[0x02][..], &compressed].concat();
    key.seal(&plain).map_err(RepositoryError::random)
}

/// The JSON of an unpacked file.
pub(crate) fn open_unpacked(key: &Key, version: u32, boxed: &[u8]) -> Result<Vec<u8>, String> {
    // An index of the largest size that a reader must expect is far below.
    const MAX: u64 = 512 << 20;
    let plain = key.open(boxed).map_err(|e| e.to_string())?;
    match plain.first() {
        Some(b'{' | b'[') => Ok(plain),
        Some(0x02) if version >= 2 => {
            let length = zstd_safe::get_frame_content_size(&plain[1..]).ok().flatten();
            if let Some(length) = length.filter(|length| *length <= MAX).and_then(|n| usize::try_from(n).ok())
            {
                // Twice as fast as piece by piece; what is longer or shorter than it says is an error.
                return zstd::bulk::decompress(&plain[1..], length).map_err(|e| e.to_string());
            }
            let decoder = zstd::stream::read::Decoder::with_buffer(&plain[1..]).map_err(|e| e.to_string())?;
            let mut json = Vec::new();
            let n = decoder.take(MAX + 1).read_to_end(&mut json).map_err(|e| e.to_string())?;
            if n as u64 > MAX { Err(format!("it is longer than {MAX} bytes")) } else { Ok(json) }
        }
        _ => Err("it is neither JSON nor compressed JSON".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codec() -> Codec {
        Codec::new(Key::from_bytes(&[5; 64]), 1).unwrap()
    }

    fn packed(kind: BlobKind, plain: &[u8], sealed: &Sealed<'_>) -> PackedBlob {
        PackedBlob {
            kind,
            id: Id::of(plain),
            offset: 0,
            length: u32::try_from(sealed.boxed.len()).unwrap(),
            uncompressed_length: sealed.uncompressed_length,
        }
    }

    #[test]
    fn blobs_round_trip_compressed_and_raw() {
        let mut noise = vec![0u8; 100_000];
        getrandom::fill(&mut noise).unwrap();
        let mut codec = codec();
        for (plain, compressed) in
            [(vec![7u8; 100_000], true), (noise, false), (vec![], false), (vec![1], false)]
        {
            let sealed = codec.seal(BlobKind::Data, &plain, true).unwrap();
            assert_eq!(sealed.uncompressed_length.is_some(), compressed, "{}", plain.len());
            let blob = packed(BlobKind::Data, &plain, &sealed);
            let mut boxed = sealed.boxed.to_vec();
            let opened = codec.open(&blob, &mut boxed).unwrap();
            assert_eq!(opened.plain, plain);
            assert!(!opened.length_is_wrong);
        }
    }

    /// Traps 4 and 11: the id is of the plaintext, and an authentic box under another id is refused.
    #[test]
    fn an_authentic_box_of_another_blob_is_refused() {
        let mut codec = codec();
        let sealed = codec.seal(BlobKind::Data, b"a", true).unwrap();
        let mut blob = packed(BlobKind::Data, b"a", &sealed);
        blob.id = Id::of(b"b");
        let mut boxed = sealed.boxed.to_vec();
        assert_eq!(codec.open(&blob, &mut boxed).err(), Some(BlobError::Hash(Id::of(b"a"))));
    }

    #[test]
    fn of_two_blobs_each_is_judged_alone() {
        let contents = [vec![1u8; 40_000], vec![2u8; 70_000], vec![]];
        for one in &contents {
            for other in &contents {
                for (spoil_one, spoil_other, foreign) in [
                    (false, false, false),
                    (true, false, false),
                    (false, true, false),
                    (true, true, false),
                    (false, false, true),
                ] {
                    let mut codec = codec();
                    let sealed = codec.seal(BlobKind::Data, one, true).unwrap();
                    let (first, mut first_boxed) =
                        (packed(BlobKind::Data, one, &sealed), sealed.boxed.to_vec());
                    let sealed = codec.seal(BlobKind::Data, other, true).unwrap();
                    let (mut second, mut second_boxed) =
                        (packed(BlobKind::Data, other, &sealed), sealed.boxed.to_vec());
                    first_boxed[20] ^= u8::from(spoil_one);
                    second_boxed[20] ^= u8::from(spoil_other);
                    if foreign {
                        second.id = Id::of(b"another");
                    }
                    let [a, b] = codec.open_two((&first, &mut first_boxed), (&second, &mut second_boxed));
                    assert_eq!(a.ok().map(|opened| opened.plain), (!spoil_one).then_some(&one[..]));
                    let wanted = (!spoil_other && !foreign).then_some(&other[..]);
                    assert_eq!(b.ok().map(|opened| opened.plain), wanted);
                }
            }
        }
    }

    #[test]
    fn two_places_are_given_only_when_they_are_apart_and_there() {
        let mut bytes = [0u8; 10];
        let mut lengths = |first, second| two_of(&mut bytes, first, second).map(|(a, b)| (a.len(), b.len()));
        assert_eq!(lengths(0..4, 4..10), Some((4, 6)));
        assert_eq!(lengths(1..3, 5..6), Some((2, 1)));
        assert_eq!(lengths(0..5, 4..10), None);
        assert_eq!(lengths(4..10, 0..4), None);
        assert_eq!(lengths(0..4, 4..11), None);
        assert_eq!(lengths(0..4, 11..12), None);
    }

    #[test]
    fn a_wrong_declared_length_is_survived_and_reported() {
        let plain = vec![3u8; 50_000];
        for lie in [1, 49_999, 50_001, 1_000_000, u32::MAX] {
            let mut codec = codec();
            let sealed = codec.seal(BlobKind::Data, &plain, true).unwrap();
            let mut blob = packed(BlobKind::Data, &plain, &sealed);
            blob.uncompressed_length = Some(lie);
            let mut boxed = sealed.boxed.to_vec();
            let opened = codec.open(&blob, &mut boxed).unwrap();
            assert_eq!(opened.plain, plain);
            assert!(opened.length_is_wrong, "{lie}");
        }
    }

    /// Trap 20: output is bounded, whatever a frame promises.
    #[test]
    fn a_decompression_bomb_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0u8; DATA_MAX + 1], 1).unwrap();
        let mut out = Vec::new();
        let mut decompressor = Decompressor::new().unwrap();
        for declared in [1usize, usize::MAX] {
            assert_eq!(
                decompress(&mut decompressor, &bomb, declared, DATA_MAX, &mut out),
                Err(BlobError::TooLong(DATA_MAX))
            );
        }
    }

    #[test]
    fn concatenated_frames_are_read() {
        let mut two = zstd::bulk::compress(b"hello ", 1).unwrap();
        two.extend(zstd::bulk::compress(b"world", 1).unwrap());
        let mut out = Vec::new();
        let n = decompress(&mut Decompressor::new().unwrap(), &two, 11, DATA_MAX, &mut out).unwrap();
        assert_eq!(&out[..n], b"hello world");
    }

    #[test]
    fn unpacked_files_are_read_bare_and_compressed() {
        let key = Key::from_bytes(&[5; 64]);
        for version in [1, 2] {
            let boxed = seal_unpacked(&key, version, b"{}").unwrap();
            assert_eq!(open_unpacked(&key, version, &boxed).unwrap(), b"{}");
        }
        assert!(open_unpacked(&key, 2, &key.seal(b"{}").unwrap()).is_ok());
        assert!(open_unpacked(&key, 2, &key.seal(b"x").unwrap()).is_err());
        assert!(open_unpacked(&key, 2, &key.seal(b"").unwrap()).is_err());
    }
}
