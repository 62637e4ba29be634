//! Polynomials over GF(2), as far as the chunker needs them.
//!
//! The polynomial of a repository has degree 53 and is irreducible; a reducible one makes the repository unusable for
//! restic, so it is tested before it is written and after it is read.

use std::fmt;

/// A polynomial over GF(2): bit i is the coefficient of xⁱ.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Polynomial(pub u64);

impl fmt::Debug for Polynomial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It lets an observer of chunk lengths recognise known files, so it is kept out of logs.
        f.write_str("Polynomial(<secret>)")
    }
}

/// The degree that restic requires.
pub const DEGREE: u32 = 53;

impl Polynomial {
    /// A random irreducible polynomial of degree 53.
    pub fn random() -> Result<Self, getrandom::Error> {
        // One in about 53 candidates is irreducible; half of them are excluded by x = 1 and x = 0 already.
        loop {
            let mut raw = [0u8; 8];
            getrandom::fill(&mut raw)?;
            let bits = u64::from_le_bytes(raw) & ((1 << (DEGREE + 1)) - 1) | (1 << DEGREE) | 1;
            let candidate = Self(bits);
            if candidate.is_irreducible() {
                return Ok(candidate);
            }
        }
    }

    /// The position of the highest coefficient, or `None` for zero.
    #[must_use]
    pub fn degree(self) -> Option<u32> {
        self.0.checked_ilog2()
    }

    fn reduce(mut value: u128, modulus: u64) -> u64 {
        let degree = modulus.ilog2();
        while value >> degree != 0 {
            let shift = value.ilog2() - degree;
            value ^= u128::from(modulus) << shift;
        }
        u64::try_from(value).expect("smaller than the modulus")
    }

    /// `self` mod `modulus`, whose highest coefficient must exist.
    #[must_use]
    pub(crate) fn modulo(value: u128, modulus: Polynomial) -> u64 {
        Self::reduce(value, modulus.0)
    }

    fn square_mod(value: u64, modulus: u64) -> u64 {
        // Squaring over GF(2) spreads the bits.
        let mut wide = 0u128;
        for bit in 0..64 {
            wide |= u128::from(value >> bit & 1) << (2 * bit);
        }
        Self::reduce(wide, modulus)
    }

    fn gcd(mut a: u64, mut b: u64) -> u64 {
        while b != 0 {
            let r = Self::reduce(u128::from(a), b);
            a = b;
            b = r;
        }
        a
    }

    /// Ben-Or's test: irreducible when gcd(x^(2^i) − x, p) is 1 for every i up to half the degree.
    #[must_use]
    pub fn is_irreducible(self) -> bool {
        let Some(degree) = self.degree() else { return false };
        if degree == 0 {
            return false;
        }
        let x = Self::reduce(2, self.0);
        let mut power = x;
        for _ in 0..degree / 2 {
            power = Self::square_mod(power, self.0);
            if Self::gcd(self.0, power ^ x) != 1 {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn irreducibility_agrees_with_trial_division_for_small_degrees() {
        for p in 2u64..1 << 10 {
            let degree = p.ilog2();
            let reducible = (2..1u64 << (degree / 2 + 1)).any(|d| {
                d.ilog2() >= 1 && d.ilog2() <= degree / 2 && Polynomial::reduce(u128::from(p), d) == 0
            });
            assert_eq!(Polynomial(p).is_irreducible(), !reducible, "{p:b}");
        }
    }

    #[test]
    fn restic_polynomials_are_irreducible_and_random_ones_have_degree_53() {
        assert!(Polynomial(0x0029_064c_20af_7863).is_irreducible());
        assert!(!Polynomial(0x0029_064c_20af_7862).is_irreducible());
        let p = Polynomial::random().unwrap();
        assert_eq!(p.degree(), Some(53));
        assert!(p.is_irreducible());
    }
}
