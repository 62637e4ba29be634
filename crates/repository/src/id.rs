//! Names: every stored thing is called by a SHA-256, written as 64 lowercase hex digits.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// A SHA-256 that names a blob, a pack, an index, a snapshot, a key or a lock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Id(pub [u8; 32]);

/// The name of a snapshot file.
pub type SnapshotId = Id;
/// The name of a key file.
pub type KeyId = Id;

const HEX: &[u8; 16] = b"0123456789abcdef";

impl Id {
    /// The id of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The ids of two contents, in little more than the time of one where both are about as long.
    #[must_use]
    pub fn of_two(one: &[u8], other: &[u8]) -> [Self; 2] {
        seaworthy_digest::sha256_pair(one, other).map(Self)
    }

    /// The 64 hex digits, lowercase.
    #[must_use]
    pub fn hex(&self) -> String {
        let mut text = String::with_capacity(64);
        self.push_hex(&mut text);
        text
    }

    pub(crate) fn push_hex(&self, text: &mut String) {
        for byte in self.0 {
            text.push(char::from(HEX[usize::from(byte >> 4)]));
            text.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }

    /// Parses 64 hex digits of either case; anything else is `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut id = [0u8; 32];
        let mut all = 0;
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            let (high, low) = (DIGITS[usize::from(pair[0])], DIGITS[usize::from(pair[1])]);
            all |= high | low;
            *byte = (high << 4) | (low & 15);
        }
        (all < 16).then_some(Self(id))
    }
}

/// What each character is worth as a hex digit of either case; 255 for those that are none. An index has millions.
const DIGITS: [u8; 256] = {
    let mut table = [u8::MAX; 256];
    let mut value = 0;
    while value < 16 {
        table[HEX[value] as usize] = value as u8;
        table[HEX[value].to_ascii_uppercase() as usize] = value as u8;
        value += 1;
    }
    table
};

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.hex())
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Id;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("64 hex digits")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Id, E> {
                Id::parse(text).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// The two kinds of blobs. The kind is part of a blob's identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum BlobKind {
    /// A piece of a file.
    Data,
    /// One directory.
    Tree,
}

impl BlobKind {
    pub(crate) fn object(self) -> crate::error::Object {
        match self {
            BlobKind::Data => crate::error::Object::DataBlob,
            BlobKind::Tree => crate::error::Object::Tree,
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            BlobKind::Data => "data",
            BlobKind::Tree => "tree",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_accepts_upper_case() {
        let id = Id::of(b"abc");
        assert_eq!(id.hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(Id::parse(&id.hex()), Some(id));
        assert_eq!(Id::parse(&id.hex().to_uppercase()), Some(id));
    }

    #[test]
    fn other_lengths_and_digits_are_refused() {
        assert_eq!(Id::parse(""), None);
        assert_eq!(Id::parse(&"g".repeat(64)), None);
        assert_eq!(Id::parse(&"a".repeat(63)), None);
        assert_eq!(Id::parse(&"é".repeat(32)), None);
    }
}
