//! The `config` file: version, repository id, chunker polynomial. Bare JSON in a box, never compressed.

use crate::error::{Object, RepositoryError, Result};
use crate::id::Id;
use crate::json::{self, go_struct};
use crate::polynomial::{DEGREE, Polynomial};

/// What a repository says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// 1 (read only) or 2.
    pub version: u32,
    /// The repository's random id.
    pub id: Id,
    /// Where the Rabin chunker cuts; absent in damaged or foreign repositories, which can still be read.
    pub polynomial: Option<Polynomial>,
}

go_struct! {
    #[derive(Default)]
    struct ConfigFile {
        version: u32 = "version",
        id: String = "id",
        polynomial: String = "chunker_polynomial",
    }
}

impl Config {
    /// Reads the plaintext; refuses unknown versions and reducible polynomials.
    pub fn decode(plaintext: &[u8]) -> Result<Self> {
        let bad = |why: String| RepositoryError::inconsistent(Object::Config, "config", why);
        let file: ConfigFile = json::parse(plaintext).map_err(|e| bad(e.to_string()))?;
        if !(1..=2).contains(&file.version) {
            return Err(RepositoryError::Unsupported {
                what: format!("repository version {}", file.version),
            });
        }
        let id = Id::parse(&file.id).ok_or_else(|| bad("its id is not 64 hex digits".into()))?;
        let polynomial = if file.polynomial.is_empty() {
            None
        } else {
            let bits = u64::from_str_radix(&file.polynomial, 16)
                .map_err(|e| bad(format!("its chunker polynomial: {e}")))?;
            let polynomial = Polynomial(bits);
            if polynomial.degree() != Some(DEGREE) || !polynomial.is_irreducible() {
                return Err(bad("its chunker polynomial is not irreducible of degree 53".into()));
            }
            Some(polynomial)
        };
        Ok(Self { version: file.version, id, polynomial })
    }

    /// The plaintext, as restic writes it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let polynomial = self.polynomial.map(|p| format!("{:x}", p.0)).unwrap_or_default();
        format!(r#"{{"version":{},"id":"{}","chunker_polynomial":"{polynomial}"}}"#, self.version, self.id)
            .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_round_trips_and_strange_ones_are_refused() {
        let text =
            format!(r#"{{"version":2,"id":"{}","chunker_polynomial":"29064c20af7863"}}"#, "ab".repeat(32));
        let config = Config::decode(text.as_bytes()).unwrap();
        assert_eq!(config.encode(), text.as_bytes());
        assert!(Config::decode(text.replace("\":2", "\":3").as_bytes()).is_err());
        assert!(Config::decode(text.replace("7863", "7862").as_bytes()).is_err());
        assert!(Config::decode(b"[]").is_err());
        let without = format!(r#"{{"version":2,"id":"{}"}}"#, "ab".repeat(32));
        assert_eq!(Config::decode(without.as_bytes()).unwrap().polynomial, None);
    }
}
