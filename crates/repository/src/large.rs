//! A tree that is too large to be held: made, proven and read back without ever being whole in memory.
//!
//! A directory is one blob, whatever it holds: of a million files it has about 400 MB of JSON. Such a blob is hashed,
//! compressed and encrypted as it grows; what is kept is its box, on disk when it is long. It is read the same way, twice:
//! once to prove that it is what its id says, and only then to be used.

use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::blob::BlobError;
use crate::control::Control;
use crate::crypto::{BoxError, IV, Key, Keystream, Mac, OVERHEAD, TAG, fresh_iv};
use crate::error::{RepositoryError, Result};
use crate::id::{BlobKind, Id};
use crate::pack::PackedBlob;
use crate::spool::{STEP, Spool, chunk};

/// Trees up to this size, compressed or not, are made and read in memory.
pub(crate) const HELD_MAX: u32 = 8 << 20;

/// No tree is longer: the format counts its bytes in 32 bits. That is a directory of about ten million files.
pub(crate) const LENGTH_MAX: u64 = u32::MAX as u64;

/// Is this blob treated here?
pub(crate) fn is_large_tree(blob: &PackedBlob) -> bool {
    blob.kind == BlobKind::Tree && (blob.length > HELD_MAX || blob.plain_length() > HELD_MAX)
}

/// A finished box with what its pack and index must say about it.
pub(crate) struct LargeBox {
    pub(crate) id: Id,
    pub(crate) plain_length: u32,
    pub(crate) boxed: Spool,
}

/// Makes a box from a plaintext that comes piece by piece.
pub(crate) struct LargeWriter {
    sha: Sha256,
    length: u64,
    compressor: zstd::stream::write::Encoder<'static, Sealing>,
}

struct Sealing {
    keystream: Keystream,
    mac: Mac,
    spool: Spool,
    buffer: Vec<u8>,
}

impl Write for Sealing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.clear();
        self.buffer.extend_from_slice(bytes);
        self.keystream.apply(&mut self.buffer);
        self.mac.update(&self.buffer);
        self.spool.write_all(&self.buffer)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The box could not be put where it is kept, or not be fetched from there.
pub(crate) fn unkept(error: io::Error) -> RepositoryError {
    RepositoryError::io("keep", "the list of a large directory", error)
}

fn unread(error: io::Error) -> RepositoryError {
    RepositoryError::io("read", "the list of a large directory", error)
}

impl LargeWriter {
    pub(crate) fn new(key: &Key, level: i32, scratch: Option<&Path>) -> Result<Self> {
        let iv = fresh_iv().map_err(RepositoryError::random)?;
        let mut spool = Spool::new(scratch);
        spool.write_all(&iv).map_err(unkept)?;
        let sealing = Sealing { keystream: key.keystream(&iv), mac: key.mac(&iv), spool, buffer: Vec::new() };
        let compressor = zstd::stream::write::Encoder::new(sealing, level)
            .map_err(|e| RepositoryError::io("prepare", "zstd", e))?;
        Ok(Self { sha: Sha256::new(), length: 0, compressor })
    }

    pub(crate) fn push(&mut self, plain: &[u8]) -> Result<()> {
        self.length += plain.len() as u64;
        if self.length > LENGTH_MAX {
            return Err(RepositoryError::refused(format!(
                "its list of entries is longer than {LENGTH_MAX} bytes, about ten million files or files of 60 million \
                 pieces together; divide it"
            )));
        }
        self.sha.update(plain);
        self.compressor.write_all(plain).map_err(unkept)
    }

    pub(crate) fn finish(self) -> Result<LargeBox> {
        let plain_length = u32::try_from(self.length)
            .map_err(|_| RepositoryError::refused("a blob of 4 GiB or more cannot be stored"))?;
        let Sealing { mac, mut spool, .. } = self.compressor.finish().map_err(unkept)?;
        spool.write_all(&mac.finish()).map_err(unkept)?;
        Ok(LargeBox { id: Id(self.sha.finalize().into()), plain_length, boxed: spool })
    }
}

/// Where the blocks of a box are read from, as often as needed.
pub(crate) trait BoxSource {
    fn length(&self) -> u64;
    /// The block of this number, of [`STEP`] bytes but for the last; nothing beyond it.
    fn block(&self, number: u64, out: &mut Vec<u8>) -> io::Result<()>;
}

impl BoxSource for &[u8] {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn block(&self, number: u64, out: &mut Vec<u8>) -> io::Result<()> {
        out.clear();
        out.extend_from_slice(chunk(self, usize::try_from(number).unwrap_or(usize::MAX)));
        Ok(())
    }
}

impl BoxSource for Spool {
    fn length(&self) -> u64 {
        self.len()
    }

    fn block(&self, number: u64, out: &mut Vec<u8>) -> io::Result<()> {
        Spool::block(self, number, out)
    }
}

impl<S: BoxSource + ?Sized> BoxSource for &S {
    fn length(&self) -> u64 {
        (**self).length()
    }

    fn block(&self, number: u64, out: &mut Vec<u8>) -> io::Result<()> {
        (**self).block(number, out)
    }
}

/// The ciphertext of a box, block by block, without IV and tag.
struct Ciphertext<S> {
    source: S,
    next: u64,
    // Of the ciphertext, what no block has given yet.
    left: u64,
}

impl<S: BoxSource> Ciphertext<S> {
    /// Of a box that is long enough; also its IV and its tag.
    fn new(source: S) -> io::Result<(Self, [u8; IV], [u8; TAG])> {
        let length = source.length();
        let mut block = Vec::new();
        source.block(0, &mut block)?;
        let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let iv = *block.first_chunk::<IV>().ok_or_else(short)?;
        // The tag may begin in the block before the last.
        let mut tail = Vec::new();
        let last = length.saturating_sub(1) / STEP as u64;
        for number in last.saturating_sub(1)..=last {
            source.block(number, &mut block)?;
            tail.extend_from_slice(&block);
        }
        let tag = *tail.last_chunk::<TAG>().ok_or_else(short)?;
        Ok((Self { source, next: 0, left: length.saturating_sub(OVERHEAD as u64) }, iv, tag))
    }

    /// The next bytes; none at the end.
    fn next(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        out.clear();
        if self.left == 0 {
            return Ok(());
        }
        self.source.block(self.next, out)?;
        if self.next == 0 {
            out.drain(..IV);
        }
        self.next += 1;
        out.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= out.len() as u64;
        if out.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

/// The decrypted inside of a box.
struct Inside<S> {
    ciphertext: Ciphertext<S>,
    keystream: Keystream,
    block: Vec<u8>,
    at: usize,
}

impl<S: BoxSource> Inside<S> {
    /// Whether the box is authentic is asked elsewhere.
    fn new(key: &Key, source: S) -> io::Result<Self> {
        let (ciphertext, iv, _) = Ciphertext::new(source)?;
        Ok(Self { ciphertext, keystream: key.keystream(&iv), block: Vec::new(), at: 0 })
    }
}

impl<S: BoxSource> Read for Inside<S> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.block.len() {
            self.ciphertext.next(&mut self.block)?;
            self.keystream.apply(&mut self.block);
            self.at = 0;
        }
        let n = out.len().min(self.block.len() - self.at);
        out[..n].copy_from_slice(&self.block[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// The plaintext of a box.
fn plain<'s, S: BoxSource + Send + 's>(
    key: &Key,
    source: S,
    is_compressed: bool,
) -> io::Result<Box<dyn Read + Send + 's>> {
    let inside = Inside::new(key, source)?;
    if !is_compressed {
        return Ok(Box::new(inside));
    }
    Ok(Box::new(zstd::stream::read::Decoder::with_buffer(io::BufReader::with_capacity(256 << 10, inside))?))
}

/// Proves that a box is authentic and that its content is what its id says; whether its length was declared wrongly.
///
/// The outer error is one of reading the source, or a stop.
pub(crate) fn prove(
    key: &Key,
    source: &(impl BoxSource + Sync + ?Sized),
    blob: &PackedBlob,
    control: &Control,
) -> Result<Result<bool, BlobError>> {
    let length = source.length();
    if length < OVERHEAD as u64 {
        return Ok(Err(BoxError::TooShort(usize::try_from(length).unwrap_or(0)).into()));
    }
    let (mut ciphertext, iv, tag) = Ciphertext::new(source).map_err(unread)?;
    if iv == [0; IV] {
        return Ok(Err(BoxError::ZeroIv.into()));
    }
    let mut buffer = Vec::new();
    let mut mac = key.mac(&iv);
    loop {
        control.check()?;
        ciphertext.next(&mut buffer).map_err(unread)?;
        if buffer.is_empty() {
            break;
        }
        mac.update(&buffer);
    }
    if !bool::from(mac.finish().ct_eq(&tag)) {
        return Ok(Err(BoxError::Mac.into()));
    }
    buffer.resize(STEP, 0);
    let broken = |e: io::Error| BlobError::Compression(e.to_string());
    let mut plain = plain(key, source, blob.uncompressed_length.is_some()).map_err(unread)?;
    let mut sha = Sha256::new();
    let mut produced = 0u64;
    loop {
        control.check()?;
        let n = match plain.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            // Errors of the source, not of what is in it: the system's have a number, and a spool says what was not the same.
            Err(e) if e.raw_os_error().is_some() || e.kind() == io::ErrorKind::InvalidData => {
                return Err(unread(e));
            }
            Err(e) => return Ok(Err(broken(e))),
        };
        produced += n as u64;
        if produced > LENGTH_MAX {
            return Ok(Err(BlobError::TooLong(usize::try_from(LENGTH_MAX).unwrap_or(usize::MAX))));
        }
        sha.update(&buffer[..n]);
    }
    let id = Id(sha.finalize().into());
    if id != blob.id {
        return Ok(Err(BlobError::Hash(id)));
    }
    Ok(Ok(produced != u64::from(blob.plain_length())))
}

/// The plaintext of a box that was proven.
pub(crate) fn open(key: &Key, boxed: Spool, blob: &PackedBlob) -> Result<Box<dyn Read + Send>> {
    plain(key, boxed, blob.uncompressed_length.is_some()).map_err(unread)
}
