//! A bit for each of many things that have numbers; several threads may set them at once.

use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) struct Marks(Vec<AtomicU64>);

impl Marks {
    /// None of `count` is marked.
    pub(crate) fn new(count: usize) -> Self {
        Self((0..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    /// Marks one; whether it was not marked before.
    pub(crate) fn set(&self, number: usize) -> bool {
        let bit = 1 << (number % 64);
        self.0[number / 64].fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    pub(crate) fn has(&self, number: usize) -> bool {
        self.0[number / 64].load(Ordering::Relaxed) >> (number % 64) & 1 == 1
    }

    /// All that are marked, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(word, bits)| {
            let bits = bits.load(Ordering::Relaxed);
            (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| word * 64 + bit)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_marked_is_marked_once_and_nothing_else_is() {
        let marks = Marks::new(200);
        let chosen = [0, 1, 63, 64, 130, 199];
        for number in chosen {
            assert!(marks.set(number) && !marks.set(number));
        }
        assert_eq!(marks.iter().collect::<Vec<_>>(), chosen);
        assert!((0..200).all(|number| marks.has(number) == chosen.contains(&number)));
    }
}
