//! Typed names: a name that reached this type is safe in a path, a log line and a file name.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or more than 63 bytes.
    #[error("a name has 1 to 63 characters, this one has {0}")]
    Length(usize),
    /// A character outside the alphabet.
    #[error(
        "a name is made of a-z, 0-9, `-`, `_` and `.` and begins with a letter or digit; `{0}` is not allowed here"
    )]
    Character(char),
}

fn validated(text: &str) -> Result<(), NameError> {
    let count = text.chars().count();
    if count == 0 || text.len() > 63 {
        return Err(NameError::Length(count));
    }
    for (position, character) in text.chars().enumerate() {
        let alphanumeric = character.is_ascii_lowercase() || character.is_ascii_digit();
        let inner = position > 0 && matches!(character, '-' | '_' | '.');
        if !alphanumeric && !inner {
            return Err(NameError::Character(character));
        }
    }
    Ok(())
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Accepts a text that is a name: 1 to 63 of `a-z 0-9 - _ .`, beginning with a letter or digit.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                validated(&text)?;
                Ok(Self(text))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

names! {
    /// A service: something the business would miss.
    ServiceName;
    /// A source of a service: one thing holding state.
    SourceName;
    /// A repository: where copies live.
    RepositoryName;
    /// A tier: a named class of objectives.
    TierName;
    /// A check: one question asked of a restored source.
    CheckName;
    /// A key of a repository, as the register names it.
    KeyName;
}

macro_rules! opaque {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

opaque! {
    /// One execution of an act. Sorts by time: `<act>-<UTC yyyymmddThhmmssZ>-<8 hex>`, e.g. `drill-20261121T030000Z-9f3a01bc`.
    RunId;
    /// A copy: the id of its snapshot in its repository, 64 lowercase hexadecimal digits.
    CopyId;
    /// A repository's own identity (the random id in its `config`), 64 lowercase hexadecimal digits.
    RepositoryId;
    /// A key of a repository: the name of its key file, 64 lowercase hexadecimal digits.
    KeyFileId;
    /// A SHA-256, written `sha256:` and 64 lowercase hexadecimal digits.
    Digest;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_a_directory_are_refused() {
        for hostile in ["", "..", "../x", "a/b", "A", "a b", "a\nb", "-rf", "a;b", &"x".repeat(64), "é"] {
            assert!(ServiceName::new(hostile).is_err(), "{hostile:?}");
        }
        for plain in ["a", "orders-db", "k3s.state", "7z"] {
            assert!(ServiceName::new(plain).is_ok(), "{plain:?}");
        }
    }
}
