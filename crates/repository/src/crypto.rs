//! The box: `IV (16) ‖ AES-256-CTR ciphertext ‖ Poly1305-AES tag (16)`.
//!
//! The tag covers the ciphertext only and its nonce is `AES-128(k, IV)`. A box carries neither type nor name nor position:
//! whoever opens one must compare the hash of what came out with the name under which it was asked for.

use aes::cipher::{BlockCipherEncrypt as _, InnerIvInit as _, KeyInit as _, StreamCipher as _};
use aes::{Aes128, Aes256};
use poly1305::Poly1305;
use poly1305::universal_hash::UniversalHash as _;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// Bytes that a box adds to its plaintext.
pub const OVERHEAD: usize = 32;
/// Bytes of the IV, with which a box begins.
pub(crate) const IV: usize = 16;
/// Bytes of the tag, with which it ends.
pub(crate) const TAG: usize = 16;

/// Why a box does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BoxError {
    /// Fewer than 32 bytes.
    #[error("{0} bytes are too few to be encrypted")]
    TooShort(usize),
    /// The IV is all zero, which no writer produces.
    #[error("its IV is all zero")]
    ZeroIv,
    /// The tag does not match: damage, or another key.
    #[error("its MAC does not match")]
    Mac,
}

/// The key of a repository, or of one key file, expanded once.
#[derive(Clone)]
pub struct Key {
    encrypt: Aes256,
    mac_k: Aes128,
    // Kept for writing key files.
    raw: Zeroizing<[u8; 64]>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(<secret>)")
    }
}

impl Key {
    /// From 64 bytes: 32 for AES-256, 16 for the MAC's AES-128, 16 for Poly1305's `r`.
    #[must_use]
    pub fn from_bytes(raw: &[u8; 64]) -> Self {
        let mut encrypt = Zeroizing::new([0u8; 32]);
        encrypt.copy_from_slice(&raw[..32]);
        let mut k = Zeroizing::new([0u8; 16]);
        k.copy_from_slice(&raw[32..48]);
        Self {
            encrypt: Aes256::new(&(*encrypt).into()),
            mac_k: Aes128::new(&(*k).into()),
            raw: Zeroizing::new(*raw),
        }
    }

    /// A fresh key from the system's generator.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut raw = Zeroizing::new([0u8; 64]);
        getrandom::fill(raw.as_mut())?;
        Ok(Self::from_bytes(&raw))
    }

    pub(crate) fn encrypt_part(&self) -> &[u8] {
        &self.raw[..32]
    }
    pub(crate) fn mac_k_part(&self) -> &[u8] {
        &self.raw[32..48]
    }
    pub(crate) fn mac_r_part(&self) -> &[u8] {
        &self.raw[48..]
    }

    /// `AES-128(k, IV)`, the one-time half of the MAC's key.
    fn nonce(&self, iv: &[u8; IV]) -> [u8; 16] {
        let mut block = (*iv).into();
        self.mac_k.encrypt_block(&mut block);
        block.into()
    }

    /// The MAC of a ciphertext that comes piece by piece.
    pub(crate) fn mac(&self, iv: &[u8; IV]) -> Mac {
        let mut key = Zeroizing::new([0u8; 32]);
        key[..16].copy_from_slice(&self.raw[48..]); // the crate clamps r on use
        key[16..].copy_from_slice(&self.nonce(iv));
        Mac { poly: Poly1305::new(&(*key).into()), rest: [0; 16], held: 0 }
    }

    fn tag(&self, iv: &[u8; IV], ciphertext: &[u8]) -> [u8; TAG] {
        let mut mac = self.mac(iv);
        mac.update(ciphertext);
        mac.finish()
    }

    /// What turns a plaintext that comes piece by piece into ciphertext, and back.
    pub(crate) fn keystream(&self, iv: &[u8; IV]) -> Keystream {
        let core = ctr::CtrCore::inner_iv_init(self.encrypt.clone(), &(*iv).into());
        Keystream(ctr::cipher::StreamCipherCoreWrapper::from_core(core))
    }

    fn apply(&self, iv: &[u8; IV], bytes: &mut [u8]) {
        self.keystream(iv).apply(bytes);
    }

    /// Encrypts in place: `boxed` is 16 bytes of room, the plaintext, 16 bytes of room.
    ///
    /// Panics when `boxed` is shorter than the two rooms, and when the IV is all zero.
    pub fn seal_in_place(&self, iv: [u8; IV], boxed: &mut [u8]) {
        assert!(iv != [0; IV], "an all-zero IV must never be written");
        assert!(boxed.len() >= OVERHEAD, "room for IV and tag");
        let end = boxed.len() - TAG;
        self.apply(&iv, &mut boxed[IV..end]);
        let tag = self.tag(&iv, &boxed[IV..end]);
        boxed[..IV].copy_from_slice(&iv);
        boxed[end..].copy_from_slice(&tag);
    }

    /// A new box around `plaintext`, with a fresh IV.
    pub fn seal(&self, plaintext: &[u8]) -> Result<Vec<u8>, getrandom::Error> {
        let mut boxed = vec![0u8; plaintext.len() + OVERHEAD];
        boxed[IV..IV + plaintext.len()].copy_from_slice(plaintext);
        self.seal_in_place(fresh_iv()?, &mut boxed);
        Ok(boxed)
    }

    fn authenticate(&self, boxed: &[u8]) -> Result<[u8; IV], BoxError> {
        if boxed.len() < OVERHEAD {
            return Err(BoxError::TooShort(boxed.len()));
        }
        let mut iv = [0u8; IV];
        iv.copy_from_slice(&boxed[..IV]);
        if iv == [0; IV] {
            return Err(BoxError::ZeroIv);
        }
        let end = boxed.len() - TAG;
        let tag = self.tag(&iv, &boxed[IV..end]);
        if bool::from(tag.ct_eq(&boxed[end..])) { Ok(iv) } else { Err(BoxError::Mac) }
    }

    /// The plaintext, decrypted where it lies; nothing is decrypted before the MAC has matched.
    pub fn open_in_place<'b>(&self, boxed: &'b mut [u8]) -> Result<&'b mut [u8], BoxError> {
        let iv = self.authenticate(boxed)?;
        let end = boxed.len() - TAG;
        let inner = &mut boxed[IV..end];
        self.apply(&iv, inner);
        Ok(inner)
    }

    /// The plaintext in a new buffer.
    pub fn open(&self, boxed: &[u8]) -> Result<Vec<u8>, BoxError> {
        let iv = self.authenticate(boxed)?;
        let mut plain = boxed[IV..boxed.len() - TAG].to_vec();
        self.apply(&iv, &mut plain);
        Ok(plain)
    }
}

/// AES-256-CTR from one IV on, applied to one piece after the other.
pub(crate) struct Keystream(ctr::Ctr128BE<Aes256>);

impl Keystream {
    pub(crate) fn apply(&mut self, bytes: &mut [u8]) {
        self.0.apply_keystream(bytes);
    }
}

/// Poly1305-AES over one piece after the other.
pub(crate) struct Mac {
    poly: Poly1305,
    // The beginning of a block that is not whole yet.
    rest: [u8; 16],
    held: usize,
}

impl Mac {
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        if self.held > 0 {
            let more = bytes.len().min(16 - self.held);
            self.rest[self.held..self.held + more].copy_from_slice(&bytes[..more]);
            self.held += more;
            bytes = &bytes[more..];
            if self.held < 16 {
                return;
            }
            self.poly.update(&[self.rest.into()]);
            self.held = 0;
        }
        let (blocks, rest) = poly1305::Block::slice_as_chunks(bytes);
        self.poly.update(blocks);
        self.rest[..rest.len()].copy_from_slice(rest);
        self.held = rest.len();
    }

    pub(crate) fn finish(self) -> [u8; TAG] {
        // Not the padded update of ChaCha20-Poly1305: the last block is the plain Poly1305 one.
        self.poly.compute_unpadded(&self.rest[..self.held]).into()
    }
}

/// Sixteen fresh bytes, never all zero.
pub fn fresh_iv() -> Result<[u8; IV], getrandom::Error> {
    let mut iv = [0u8; IV];
    while iv == [0; IV] {
        getrandom::fill(&mut iv)?;
    }
    Ok(iv)
}

/// Fresh IVs without a system call for each.
pub(crate) struct IvPool {
    bytes: Vec<u8>,
    next: usize,
}

impl IvPool {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; 4096], next: 4096 }
    }

    pub(crate) fn next(&mut self) -> Result<[u8; IV], getrandom::Error> {
        loop {
            if self.next + IV > self.bytes.len() {
                getrandom::fill(&mut self.bytes)?;
                self.next = 0;
            }
            let mut iv = [0u8; IV];
            iv.copy_from_slice(&self.bytes[self.next..self.next + IV]);
            self.next += IV;
            if iv != [0; IV] {
                return Ok(iv);
            }
        }
    }

    /// One random bit source for choices that an observer should not predict.
    pub(crate) fn bit(&mut self) -> Result<bool, getrandom::Error> {
        Ok(self.next()?[0] & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        let mut raw = [0u8; 64];
        for (i, byte) in raw.iter_mut().enumerate() {
            *byte = u8::try_from(i).unwrap() ^ 0xa5;
        }
        Key::from_bytes(&raw)
    }

    #[test]
    fn a_box_opens_to_its_plaintext_at_every_length_around_a_block() {
        for n in [0usize, 1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 1000, 4096] {
            let plain: Vec<u8> = (0..n).map(|i| (i % 251) as u8).collect();
            let boxed = key().seal(&plain).unwrap();
            assert_eq!(boxed.len(), n + 32);
            assert_eq!(key().open(&boxed).unwrap(), plain);
            let mut again = boxed.clone();
            assert_eq!(key().open_in_place(&mut again).unwrap(), &plain[..]);
        }
    }

    #[test]
    fn a_box_made_piece_by_piece_is_the_box_made_at_once() {
        let plain: Vec<u8> = (0..200u8).collect();
        let iv = [9u8; IV];
        let mut whole = vec![0u8; plain.len() + OVERHEAD];
        whole[IV..IV + plain.len()].copy_from_slice(&plain);
        key().seal_in_place(iv, &mut whole);
        for step in 1..=plain.len() {
            let (mut keystream, mut mac) = (key().keystream(&iv), key().mac(&iv));
            let mut boxed = iv.to_vec();
            for piece in plain.chunks(step) {
                let mut piece = piece.to_vec();
                keystream.apply(&mut piece);
                mac.update(&piece);
                boxed.extend(piece);
            }
            boxed.extend(mac.finish());
            assert_eq!(boxed, whole, "in steps of {step}");
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let boxed = key().seal(b"seaworthy").unwrap();
        for bit in 0..boxed.len() * 8 {
            let mut bad = boxed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key().open(&bad), Err(BoxError::Mac), "bit {bit}");
        }
    }

    #[test]
    fn short_boxes_and_zero_ivs_are_refused() {
        assert_eq!(key().open(&[1; 31]), Err(BoxError::TooShort(31)));
        assert_eq!(key().open(&[0; 40]), Err(BoxError::ZeroIv));
    }

    /// Trap 3: the counter is 128 bits wide, so a carry passes every 32- and 64-bit boundary.
    #[test]
    fn the_counter_carries_through_all_128_bits() {
        let mut iv = [0xff; 16];
        let plain = [0u8; 64];
        let mut boxed = vec![0u8; 96];
        boxed[16..80].copy_from_slice(&plain);
        key().seal_in_place(iv, &mut boxed);
        // By hand: block i is AES(E, IV + i mod 2^128).
        let aes = Aes256::new(&{
            let mut e = [0u8; 32];
            e.copy_from_slice(key().encrypt_part());
            e.into()
        });
        for i in 0..4usize {
            let mut block = iv.into();
            aes.encrypt_block(&mut block);
            let block: [u8; 16] = block.into();
            assert_eq!(boxed[16 + 16 * i..32 + 16 * i], block);
            iv = u128::from_be_bytes(iv).wrapping_add(1).to_be_bytes();
        }
    }

    /// Trap 3: an unclamped r (all ones) gives the same tag as the clamped one.
    #[test]
    fn r_is_clamped_on_use() {
        let mut raw = [7u8; 64];
        raw[48..].copy_from_slice(&[0xff; 16]);
        let open = Key::from_bytes(&raw);
        raw[48..].copy_from_slice(&0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff_u128.to_le_bytes());
        let clamped = Key::from_bytes(&raw);
        let boxed = open.seal(b"x").unwrap();
        assert_eq!(clamped.open(&boxed).unwrap(), b"x");
    }
}
