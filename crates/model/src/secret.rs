//! References to secrets. A secret itself never enters this crate.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a secret is to be read when it is needed; never the secret.
///
/// Written `file:/path`, `env:NAME`, `cmd:program arg…` (split on white space, no shell), `systemd:name`
/// (from `$CREDENTIALS_DIRECTORY`), `vault:path#key`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SecretRef {
    /// A file, which must belong to us and be closed to group and others.
    File(String),
    /// An environment variable.
    Env(String),
    /// The standard output of a program, run without a shell.
    Cmd(Vec<String>),
    /// A systemd credential.
    Systemd(String),
    /// A field of a secret in Vault.
    Vault {
        /// Path of the secret.
        path: String,
        /// Field of the secret.
        key: String,
    },
}

/// Why a text is not a reference to a secret. Does not repeat the text: it may be the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretRefError {
    /// No known scheme.
    #[error("a secret is given by reference (file:, env:, cmd:, systemd:, vault:), never in plain text")]
    PlainText,
    /// A scheme with nothing, or something unusable, after it.
    #[error("nothing usable follows `{0}:`")]
    Empty(&'static str),
}

impl TryFrom<String> for SecretRef {
    type Error = SecretRefError;

    fn try_from(text: String) -> Result<Self, SecretRefError> {
        let (scheme, rest) = text.split_once(':').ok_or(SecretRefError::PlainText)?;
        let some = |what: &'static str| {
            if rest.is_empty() { Err(SecretRefError::Empty(what)) } else { Ok(rest.to_owned()) }
        };
        match scheme {
            "file" => Ok(Self::File(some("file")?)),
            "env" => Ok(Self::Env(some("env")?)),
            "cmd" => {
                let argv: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
                if argv.is_empty() { Err(SecretRefError::Empty("cmd")) } else { Ok(Self::Cmd(argv)) }
            }
            "systemd" => Ok(Self::Systemd(some("systemd")?)),
            "vault" => match rest.split_once('#') {
                Some((path, key)) if !path.is_empty() && !key.is_empty() => {
                    Ok(Self::Vault { path: path.to_owned(), key: key.to_owned() })
                }
                _ => Err(SecretRefError::Empty("vault")),
            },
            _ => Err(SecretRefError::PlainText),
        }
    }
}

impl From<SecretRef> for String {
    fn from(reference: SecretRef) -> Self {
        reference.to_string()
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{path}"),
            Self::Env(name) => write!(f, "env:{name}"),
            Self::Cmd(argv) => write!(f, "cmd:{}", argv.join(" ")),
            Self::Systemd(name) => write!(f, "systemd:{name}"),
            Self::Vault { path, key } => write!(f, "vault:{path}#{key}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_refused_and_not_repeated() {
        let error = SecretRef::try_from("hunter2".to_owned()).unwrap_err();
        assert_eq!(error, SecretRefError::PlainText);
        assert!(!error.to_string().contains("hunter2"));
        assert!(SecretRef::try_from("postgres:hunter2".to_owned()).is_err());
    }

    #[test]
    fn references_round_trip() {
        for text in ["file:/etc/key", "env:PW", "cmd:pass show x", "systemd:repo", "vault:kv/db#password"] {
            assert_eq!(SecretRef::try_from(text.to_owned()).unwrap().to_string(), text);
        }
    }
}
