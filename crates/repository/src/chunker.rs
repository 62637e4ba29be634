//! Where files are cut into pieces. Any cut is readable by everybody; what differs is what deduplicates. Pure.
//!
//! * [`Cuts::ContentDefined`]: gear hashing, several times as fast as Rabin. The table is derived from the repository's
//!   polynomial, so that lengths of pieces say nothing to somebody without the key. Every 32 MiB of a file there is a
//!   cut whatever the content, so that the parts of a large file can be read by several workers at once.
//! * [`Cuts::Rabin`]: restic's cuts, bit for bit, for repositories shared with restic.
//! * [`Cuts::Pages`]: every n pages, for files that change in place, page by page.

use std::sync::Arc;

use crate::polynomial::{DEGREE, Polynomial};

/// How a file is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Cuts {
    /// Where the content says so; an insertion moves only the cuts near it.
    #[default]
    ContentDefined,
    /// Where stock restic would cut.
    Rabin,
    /// Every `page × pages_per_piece` bytes.
    Pages {
        /// Size of a page in bytes.
        page: u32,
        /// How many pages one piece has.
        pages_per_piece: u32,
    },
}

/// No piece is longer, whatever the cuts: readers hold whole pieces in memory.
pub const PIECE_MAX: usize = 8 << 20;
/// Content-defined cuts begin anew at every multiple of this.
pub const SEGMENT: u64 = 32 << 20;

const GEAR_MIN: usize = 512 << 10;
const GEAR_NORMAL: usize = 768 << 10;
const GEAR_MAX: usize = 4 << 20;
// Before the normal size a cut is rarer, after it more frequent (normalised chunking): about 0.9 MiB on average.
const GEAR_MASK_EARLY: u64 = 0xffff_fc00_0000_0000; // 22 bits
const GEAR_MASK_LATE: u64 = 0xffff_8000_0000_0000; // 17 bits

const RABIN_WINDOW: usize = 64;
const RABIN_MIN: usize = 512 << 10;
const RABIN_MAX: usize = 8 << 20;
const RABIN_MASK: u64 = (1 << 20) - 1;
const RABIN_SHIFT: u32 = DEGREE - 8;

/// Tables that are made once per repository and shared by all workers.
#[derive(Clone)]
pub struct Tables {
    gear: Arc<[u64; 256]>,
    rabin: Option<Arc<RabinTables>>,
}

impl std::fmt::Debug for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tables(<secret>)")
    }
}

struct RabinTables {
    out: [u64; 256],
    modulo: [u64; 256],
}

impl Tables {
    /// The tables for this polynomial. Without one there are no Rabin cuts.
    #[must_use]
    pub fn new(polynomial: Option<Polynomial>) -> Self {
        let mut gear = [0u64; 256];
        for (i, word) in gear.iter_mut().enumerate() {
            let mut seed = b"seaworthy gear table 1".to_vec();
            seed.extend_from_slice(&polynomial.map_or(0, |p| p.0).to_le_bytes());
            seed.push(u8::try_from(i).expect("256 entries"));
            let id = crate::id::Id::of(&seed);
            *word =
                u64::from_le_bytes([id.0[0], id.0[1], id.0[2], id.0[3], id.0[4], id.0[5], id.0[6], id.0[7]]);
        }
        let rabin = polynomial.map(|p| {
            let mut tables = RabinTables { out: [0; 256], modulo: [0; 256] };
            for b in 0..256u64 {
                // The fingerprint of b followed by 63 zero bytes.
                let mut hash = Polynomial::modulo(u128::from(b), p);
                for _ in 0..RABIN_WINDOW - 1 {
                    hash = Polynomial::modulo(u128::from(hash) << 8, p);
                }
                let at = usize::try_from(b).expect("a byte");
                tables.out[at] = hash;
                let high = u128::from(b) << DEGREE;
                tables.modulo[at] = Polynomial::modulo(high, p) | (b << DEGREE);
            }
            Arc::new(tables)
        });
        Self { gear: Arc::new(gear), rabin }
    }

    /// A cutter that begins at `offset` of a file; `None` when Rabin cuts are asked of a repository without polynomial.
    #[must_use]
    pub fn cutter(&self, cuts: Cuts, offset: u64) -> Option<Cutter> {
        let kind = match cuts {
            Cuts::ContentDefined => Kind::Gear { table: Arc::clone(&self.gear), hash: 0, offset },
            Cuts::Rabin => Kind::Rabin { tables: Arc::clone(self.rabin.as_ref()?), state: RabinState::new() },
            Cuts::Pages { page, pages_per_piece } => {
                let size = (page.max(1) as usize).saturating_mul(pages_per_piece.max(1) as usize);
                Kind::Pages { size: size.min(PIECE_MAX) }
            }
        };
        Some(Cutter { kind, length: 0 })
    }
}

/// Finds cuts in a stream that arrives in slices of any size.
pub struct Cutter {
    kind: Kind,
    // Bytes in the current piece so far.
    length: usize,
}

impl std::fmt::Debug for Cutter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cutter").field("length", &self.length).finish_non_exhaustive()
    }
}

enum Kind {
    Gear { table: Arc<[u64; 256]>, hash: u64, offset: u64 },
    Rabin { tables: Arc<RabinTables>, state: RabinState },
    Pages { size: usize },
}

struct RabinState {
    window: [u8; RABIN_WINDOW],
    position: usize,
    digest: u64,
}

impl RabinState {
    fn new() -> Self {
        let mut window = [0; RABIN_WINDOW];
        // restic slides in one byte 0x01 first, which leaves digest 1.
        window[0] = 1;
        Self { window, position: 1, digest: 1 }
    }
}

impl Cutter {
    /// The longest piece of these cuts.
    #[must_use]
    pub fn longest(&self) -> usize {
        match &self.kind {
            Kind::Gear { .. } => GEAR_MAX,
            Kind::Rabin { .. } => RABIN_MAX,
            Kind::Pages { size } => *size,
        }
    }

    /// Takes the next bytes. `Some(n)`: the piece ends after `n` of them, and the next call begins with the rest.
    /// `None`: all were taken and the piece goes on.
    pub fn next_cut(&mut self, data: &[u8]) -> Option<usize> {
        let cut = match &mut self.kind {
            Kind::Pages { size } => {
                let left = *size - self.length;
                (data.len() >= left).then_some(left)
            }
            Kind::Gear { table, hash, offset } => {
                let to_boundary = SEGMENT - (*offset + self.length as u64) % SEGMENT;
                let limit = usize::try_from(to_boundary).unwrap_or(usize::MAX).min(GEAR_MAX - self.length);
                let cut = gear(table, hash, self.length, &data[..data.len().min(limit)]);
                let cut = cut.or_else(|| (data.len() >= limit).then_some(limit));
                if let Some(n) = cut {
                    *offset += (self.length + n) as u64;
                    *hash = 0;
                }
                cut
            }
            Kind::Rabin { tables, state } => {
                let cut = rabin(tables, state, self.length, data);
                if cut.is_some() {
                    *state = RabinState::new();
                }
                cut
            }
        };
        self.length = if cut.is_some() { 0 } else { self.length + data.len() };
        cut
    }
}

fn gear(table: &[u64; 256], hash: &mut u64, length: usize, data: &[u8]) -> Option<usize> {
    let mut h = *hash;
    // 64 bytes fill the hash; what lies before them cannot matter.
    let skip = (GEAR_MIN - 64).saturating_sub(length).min(data.len());
    let mut at = skip;
    let minimum = GEAR_MIN.saturating_sub(length).min(data.len());
    for &byte in &data[at..minimum.max(at)] {
        h = (h << 1).wrapping_add(table[usize::from(byte)]);
    }
    at = minimum.max(at);
    let normal = GEAR_NORMAL.saturating_sub(length).clamp(at, data.len());
    for (mask, end) in [(GEAR_MASK_EARLY, normal), (GEAR_MASK_LATE, data.len())] {
        // Four bytes a step: the sums of the table's words do not depend on the hash, so the chain from one step to the
        // next is one shift and one addition instead of four.
        let word = |byte: u8| table[usize::from(byte)];
        for four in data[at..end].chunks_exact(4) {
            let one = word(four[0]);
            let two = (one << 1).wrapping_add(word(four[1]));
            let three = (two << 1).wrapping_add(word(four[2]));
            let all = (three << 1).wrapping_add(word(four[3]));
            let hashes = [
                (h << 1).wrapping_add(one),
                (h << 2).wrapping_add(two),
                (h << 3).wrapping_add(three),
                (h << 4).wrapping_add(all),
            ];
            let any = hashes.iter().fold(false, |any, hash| any | (hash & mask == 0));
            if any && let Some(i) = hashes.iter().position(|hash| hash & mask == 0) {
                return Some(at + i + 1);
            }
            h = hashes[3];
            at += 4;
        }
        for &byte in &data[at..end] {
            h = (h << 1).wrapping_add(word(byte));
            at += 1;
            if h & mask == 0 {
                return Some(at);
            }
        }
    }
    *hash = h;
    None
}

fn rabin(tables: &RabinTables, state: &mut RabinState, length: usize, data: &[u8]) -> Option<usize> {
    let skip = (RABIN_MIN - RABIN_WINDOW).saturating_sub(length).min(data.len());
    let mut digest = state.digest;
    let mut position = state.position;
    let window = &mut state.window;
    for (i, &byte) in data[skip..].iter().enumerate() {
        let leaving = std::mem::replace(&mut window[position % RABIN_WINDOW], byte);
        position = (position + 1) % RABIN_WINDOW;
        digest ^= tables.out[usize::from(leaving)];
        let high = usize::try_from(digest >> RABIN_SHIFT).unwrap_or(0) & 0xff;
        digest = ((digest << 8) | u64::from(byte)) ^ tables.modulo[high];
        let n = length + skip + i + 1;
        if (digest & RABIN_MASK == 0 && n >= RABIN_MIN) || n >= RABIN_MAX {
            return Some(skip + i + 1);
        }
    }
    state.digest = digest;
    state.position = position;
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> Tables {
        Tables::new(Some(Polynomial(0x0029_064c_20af_7863)))
    }

    fn noise(n: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        (0..n)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 24) as u8
            })
            .collect()
    }

    fn lengths(cuts: Cuts, data: &[u8], step: usize) -> Vec<usize> {
        let mut cutter = tables().cutter(cuts, 0).unwrap();
        let mut out = Vec::new();
        let mut piece = 0;
        for mut slice in data.chunks(step) {
            while let Some(n) = cutter.next_cut(slice) {
                out.push(piece + n);
                piece = 0;
                slice = &slice[n..];
            }
            piece += slice.len();
        }
        if piece > 0 {
            out.push(piece);
        }
        out
    }

    #[test]
    fn cuts_do_not_depend_on_how_the_stream_arrives() {
        let data = noise(9_000_000);
        for cuts in [Cuts::ContentDefined, Cuts::Rabin, Cuts::Pages { page: 8192, pages_per_piece: 4 }] {
            let whole = lengths(cuts, &data, data.len());
            assert!(whole.len() > 2, "{cuts:?}");
            assert_eq!(whole.iter().sum::<usize>(), data.len());
            for step in [1 << 20, 65_536, 1_000_003, 777] {
                assert_eq!(lengths(cuts, &data, step), whole, "{cuts:?} {step}");
            }
        }
    }

    /// Section 11: zeros cut at exactly 512 KiB.
    #[test]
    fn rabin_cuts_zeros_where_restic_does() {
        assert_eq!(lengths(Cuts::Rabin, &vec![0; 3 << 20], 1 << 20), vec![524_288; 6]);
    }

    #[test]
    fn the_unrolled_loop_cuts_where_the_plain_one_does() {
        let (tables, data) = (tables(), noise(12 << 20));
        let mut from = 0;
        for length in lengths(Cuts::ContentDefined, &data, 999_983) {
            let mut hash = 0u64;
            let mut expected = 0;
            for (i, byte) in data[from..].iter().enumerate() {
                expected = i + 1;
                if expected <= GEAR_MIN - 64 {
                    continue;
                }
                hash = (hash << 1).wrapping_add(tables.gear[usize::from(*byte)]);
                let mask = if expected <= GEAR_NORMAL { GEAR_MASK_EARLY } else { GEAR_MASK_LATE };
                if expected > GEAR_MIN && hash & mask == 0 || expected == GEAR_MAX {
                    break;
                }
            }
            assert_eq!(length, expected);
            from += length;
        }
    }

    #[test]
    fn an_insertion_moves_only_the_cuts_near_it() {
        let data = noise(20 << 20);
        let mut shifted = b"twenty-one more bytes".to_vec();
        shifted.extend_from_slice(&data);
        let ids = |data: &[u8]| {
            let mut at = 0;
            lengths(Cuts::ContentDefined, data, 1 << 20)
                .into_iter()
                .map(|n| {
                    at += n;
                    crate::id::Id::of(&data[at - n..at])
                })
                .collect::<std::collections::HashSet<_>>()
        };
        let (a, b) = (ids(&data), ids(&shifted));
        assert!(a.len() > 12, "{}", a.len());
        assert!(a.intersection(&b).count() + 3 >= a.len(), "{} of {}", a.intersection(&b).count(), a.len());
    }

    #[test]
    fn segments_of_a_large_file_are_cut_alike_alone_and_in_sequence() {
        let data = noise(usize::try_from(SEGMENT).unwrap() + (5 << 20));
        let whole = lengths(Cuts::ContentDefined, &data, 1 << 20);
        let first: usize = usize::try_from(SEGMENT).unwrap();
        let mut parts = lengths(Cuts::ContentDefined, &data[..first], 1 << 20);
        let mut cutter = tables().cutter(Cuts::ContentDefined, SEGMENT).unwrap();
        let mut rest = &data[first..];
        while let Some(n) = cutter.next_cut(rest) {
            parts.push(n);
            rest = &rest[n..];
        }
        parts.push(rest.len());
        assert_eq!(whole, parts);
    }
}
