//! SHA-256 of two byte strings at a time, in little more than the time of one.
//!
//! A processor's SHA instructions take several cycles, and each waits for the one before: one stream uses half of what
//! the unit can do. Two streams whose rounds alternate use all of it (measured on an AMD EPYC: 1.8 GB/s for one, 3.5 for
//! two). Where there are no such instructions, the strings are hashed one after the other by [`sha2`].
//!
//! Unsafe code stands here: one call of a function that needs those instructions,
//! after they were found. No pointer is touched.

use sha2::{Digest as _, Sha256};

/// Bytes of a block.
const BLOCK: usize = 64;

/// FIPS 180-4, 5.3.3.
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// The SHA-256 of each: what [`Sha256::digest`] says.
///
/// Fastest where both are about as long; what one is longer than the other is hashed alone.
#[must_use]
pub fn sha256_pair(one: &[u8], other: &[u8]) -> [[u8; 32]; 2] {
    let (one_blocks, _) = one.as_chunks::<BLOCK>();
    let (other_blocks, _) = other.as_chunks::<BLOCK>();
    let common = one_blocks.len().min(other_blocks.len());
    let mut states = [INITIAL; 2];
    if common == 0 || !interleaved(&mut states, &one_blocks[..common], &other_blocks[..common]) {
        return [Sha256::digest(one).into(), Sha256::digest(other).into()];
    }
    let [first, second] = states;
    let done = common * BLOCK;
    [finished(first, one, done), finished(second, other, done)]
}

/// The digest, after the first `done` bytes, whole blocks, went into `state`.
fn finished(mut state: [u32; 8], bytes: &[u8], done: usize) -> [u8; 32] {
    let (blocks, rest) = bytes[done..].as_chunks::<BLOCK>();
    sha2::block_api::compress256(&mut state, blocks);
    // FIPS 180-4, 5.1.1: a one bit, zeros, the length in bits.
    let mut last = [[0u8; BLOCK]; 2];
    let ends_in = usize::from(rest.len() + 9 > BLOCK);
    last[0][..rest.len()].copy_from_slice(rest);
    last[0][rest.len()] = 0x80;
    last[ends_in][BLOCK - 8..].copy_from_slice(&(bytes.len() as u64 * 8).to_be_bytes());
    sha2::block_api::compress256(&mut state, &last[..=ends_in]);
    let mut digest = [0; 32];
    for (out, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *out = word.to_be_bytes();
    }
    digest
}

/// Compresses the blocks of two strings by turns; `false`, and nothing done, where the processor cannot.
#[cfg(target_arch = "x86_64")]
fn interleaved(states: &mut [[u32; 8]; 2], one: &[[u8; BLOCK]], other: &[[u8; BLOCK]]) -> bool {
    let can = std::arch::is_x86_feature_detected!("sha")
        && std::arch::is_x86_feature_detected!("ssse3")
        && std::arch::is_x86_feature_detected!("sse4.1");
    if can {
        // SAFETY: the function's one condition is that the processor has these instructions, which was asked just now.
        unsafe { x86::compress_pair(states, one, other) };
    }
    can
}

#[cfg(not(target_arch = "x86_64"))]
fn interleaved(_: &mut [[u32; 8]; 2], _: &[[u8; BLOCK]], _: &[[u8; BLOCK]]) -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x,
        _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8,
        _mm_shuffle_epi32,
    };

    use super::BLOCK;

    /// FIPS 180-4, 4.2.2, four at a time.
    const ROUNDS: [[u32; 4]; 16] = [
        [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
        [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
        [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
        [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
        [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
        [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
        [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
        [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
        [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
        [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
        [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
        [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
        [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
        [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
        [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
        [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
    ];

    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn vector(words: [u32; 4]) -> __m128i {
        let [a, b, c, d] = words.map(u32::cast_signed);
        _mm_set_epi32(d, c, b, a)
    }

    /// Sixteen bytes of a block as four big-endian words.
    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn words(block: &[u8; BLOCK], at: usize) -> __m128i {
        let quarter = block.as_chunks::<16>().0[at];
        let (low, high) = (u128::from_le_bytes(quarter) as u64, (u128::from_le_bytes(quarter) >> 64) as u64);
        let bytes = _mm_set_epi64x(high.cast_signed(), low.cast_signed());
        let order = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        _mm_shuffle_epi8(bytes, order)
    }

    /// The state as the instructions want it: words a, b, e, f and words c, d, g, h.
    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn packed(state: &[u32; 8]) -> [__m128i; 2] {
        let [a, b, c, d, e, f, g, h] = *state;
        [vector([f, e, b, a]), vector([h, g, d, c])]
    }

    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn unpacked([abef, cdgh]: [__m128i; 2]) -> [u32; 8] {
        [
            _mm_extract_epi32::<3>(abef),
            _mm_extract_epi32::<2>(abef),
            _mm_extract_epi32::<3>(cdgh),
            _mm_extract_epi32::<2>(cdgh),
            _mm_extract_epi32::<1>(abef),
            _mm_extract_epi32::<0>(abef),
            _mm_extract_epi32::<1>(cdgh),
            _mm_extract_epi32::<0>(cdgh),
        ]
        .map(i32::cast_unsigned)
    }

    /// Four rounds.
    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn rounds([abef, cdgh]: [__m128i; 2], words: __m128i, number: usize) -> [__m128i; 2] {
        let mixed = _mm_add_epi32(words, vector(ROUNDS[number]));
        let cdgh = _mm_sha256rnds2_epu32(cdgh, abef, mixed);
        let mixed = _mm_shuffle_epi32::<0x0e>(mixed);
        [_mm_sha256rnds2_epu32(abef, cdgh, mixed), cdgh]
    }

    /// The next four words of the message schedule after these sixteen.
    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn scheduled([a, b, c, d]: [__m128i; 4]) -> __m128i {
        let partial = _mm_add_epi32(_mm_sha256msg1_epu32(a, b), _mm_alignr_epi8::<4>(d, c));
        _mm_sha256msg2_epu32(partial, d)
    }

    #[target_feature(enable = "sha,ssse3,sse4.1")]
    pub(super) fn compress_pair(states: &mut [[u32; 8]; 2], one: &[[u8; BLOCK]], other: &[[u8; BLOCK]]) {
        let (mut first, mut second) = (packed(&states[0]), packed(&states[1]));
        for (one, other) in one.iter().zip(other) {
            let (kept_first, kept_second) = (first, second);
            let mut m = [words(one, 0), words(one, 1), words(one, 2), words(one, 3)];
            let mut n = [words(other, 0), words(other, 1), words(other, 2), words(other, 3)];
            // Written out by the macro: an array that is indexed by a loop's variable would live in memory.
            macro_rules! step {
                ($number:literal) => {
                    first = rounds(first, m[0], $number);
                    second = rounds(second, n[0], $number);
                    m = [m[1], m[2], m[3], if $number < 12 { scheduled(m) } else { m[0] }];
                    n = [n[1], n[2], n[3], if $number < 12 { scheduled(n) } else { n[0] }];
                };
            }
            step!(0);
            step!(1);
            step!(2);
            step!(3);
            step!(4);
            step!(5);
            step!(6);
            step!(7);
            step!(8);
            step!(9);
            step!(10);
            step!(11);
            step!(12);
            step!(13);
            step!(14);
            first = rounds(first, m[0], 15);
            second = rounds(second, n[0], 15);
            for (now, kept) in first.iter_mut().zip(kept_first).chain(second.iter_mut().zip(kept_second)) {
                *now = _mm_add_epi32(*now, kept);
            }
        }
        *states = [unpacked(first), unpacked(second)];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn alone(bytes: &[u8]) -> [u8; 32] {
        Sha256::digest(bytes).into()
    }

    #[test]
    fn every_pair_of_lengths_around_blocks_has_the_digests_of_each_alone() {
        let bytes: Vec<u8> = (0..400u32).map(|i| (i * 131 % 251) as u8).collect();
        for one in 0..200 {
            for other in (0..200).step_by(7) {
                let (one, other) = (&bytes[..one], &bytes[200 - other.min(200)..200]);
                assert_eq!(
                    sha256_pair(one, other),
                    [alone(one), alone(other)],
                    "{} {}",
                    one.len(),
                    other.len()
                );
            }
        }
    }

    /// FIPS 180-4's own examples, so that the oracle is not only the library beside us.
    #[test]
    fn the_standards_examples() {
        let long = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        let hex = |digest: [u8; 32]| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let million = vec![b'a'; 1_000_000];
        let [one, other] = sha256_pair(long, &million);
        assert_eq!(hex(one), "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
        assert_eq!(hex(other), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
        let [one, other] = sha256_pair(&million, &million);
        assert_eq!(one, other);
        assert_eq!(hex(one), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    }

    proptest! {
        #[test]
        fn any_two_strings(one in proptest::collection::vec(any::<u8>(), 0..5_000), other in proptest::collection::vec(any::<u8>(), 0..5_000)) {
            prop_assert_eq!(sha256_pair(&one, &other), [alone(&one), alone(&other)]);
        }
    }

    /// `cargo test --release -p seaworthy-digest -- --ignored --nocapture`: what is gained here.
    #[test]
    #[ignore = "a measurement"]
    fn throughput() {
        let bytes = vec![7u8; 64 << 10];
        let (one, other) = bytes.split_at(32 << 10);
        let rate = |work: &dyn Fn()| {
            let began = std::time::Instant::now();
            for _ in 0..8_000 {
                work();
            }
            8_000.0 * 65_536.0 / 1e9 / began.elapsed().as_secs_f64()
        };
        let apart = rate(&|| {
            std::hint::black_box([alone(std::hint::black_box(one)), alone(std::hint::black_box(other))]);
        });
        let paired = rate(&|| {
            std::hint::black_box(sha256_pair(std::hint::black_box(one), std::hint::black_box(other)));
        });
        println!("apart {apart:.2} GB/s, paired {paired:.2} GB/s");
    }
}
