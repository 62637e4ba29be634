//! Object stores: whose they are, and how they are reached. What is said here is what was configured, not what was observed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::secret::SecretRef;

/// How an object store is reached. What is not given is left to the provider's own environment variables and metadata services.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RemoteSpec {
    /// URL of the service, where it is not the provider's own.
    pub endpoint: Option<String>,
    /// Whether the bucket stands in the path of a request and not in the name of the host.
    pub path_style: Option<bool>,
    /// The class that packs are stored in. Indexes, snapshots and keys are read often and stay in the standard one.
    pub storage_class: Option<String>,
    /// What the service encrypts with, on top of what we do.
    pub encryption: Option<String>,
    /// Azure's storage account.
    pub storage_account: Option<String>,
    /// Who we are.
    pub credentials: BTreeMap<Credential, SecretRef>,
    /// The longest silence that is waited through before a request is given up.
    pub timeout: SignedDuration,
}

/// What an object store asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credential {
    /// S3: id of the access key.
    AccessKey,
    /// S3: its secret.
    SecretKey,
    /// S3: token of a session that ends.
    SessionToken,
    /// Google: the JSON of a service account's key.
    ServiceAccount,
    /// Azure: key of the storage account.
    AccountKey,
    /// Azure: a shared access signature.
    SasToken,
}

impl Credential {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::AccessKey,
        Self::SecretKey,
        Self::SessionToken,
        Self::ServiceAccount,
        Self::AccountKey,
        Self::SasToken,
    ];

    /// Its key in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AccessKey => "access_key",
            Self::SecretKey => "secret_key",
            Self::SessionToken => "session_token",
            Self::ServiceAccount => "service_account",
            Self::AccountKey => "account_key",
            Self::SasToken => "sas_token",
        }
    }
}

/// Whose object store a location names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Provider {
    /// Amazon S3, and what speaks like it.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
}

impl Provider {
    /// The provider, the bucket and the prefix (without slashes around it, perhaps empty) of a location; `None` for a path.
    #[must_use]
    pub fn of(location: &str) -> Option<(Self, &str, &str)> {
        let (scheme, rest) = location.split_once("://")?;
        let provider = match scheme {
            "s3" => Self::S3,
            "gs" => Self::Google,
            "az" => Self::Azure,
            _ => return None,
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        Some((provider, bucket, prefix.trim_matches('/')))
    }

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::S3 => "S3",
            Self::Google => "Google Cloud Storage",
            Self::Azure => "Azure Blob Storage",
        }
    }

    /// What it may be told to identify us by.
    #[must_use]
    pub fn credentials(self) -> &'static [Credential] {
        match self {
            Self::S3 => &[Credential::AccessKey, Credential::SecretKey, Credential::SessionToken],
            Self::Google => &[Credential::ServiceAccount],
            Self::Azure => &[Credential::AccountKey, Credential::SasToken],
        }
    }
}

/// Whether a URL may be spoken to without encryption: it leads to this machine.
#[must_use]
pub fn is_loopback(url: &str) -> bool {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest).split('/').next().unwrap_or_default();
    // Before an `@` stand credentials, and after it the host that is really asked.
    if authority.contains('@') {
        return false;
    }
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_names_its_provider_bucket_and_prefix() {
        assert_eq!(Provider::of("s3://vault"), Some((Provider::S3, "vault", "")));
        assert_eq!(Provider::of("gs://vault/a/b/"), Some((Provider::Google, "vault", "a/b")));
        assert_eq!(Provider::of("az://vault//a"), Some((Provider::Azure, "vault", "a")));
        assert_eq!(Provider::of("/srv/vault"), None);
        assert_eq!(Provider::of("ftp://vault"), None);
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for ours in ["http://localhost", "http://localhost:9000/x", "http://127.0.0.1:1", "http://[::1]:9000"]
        {
            assert!(is_loopback(ours), "{ours}");
        }
        for other in [
            "http://localhost.example.org",
            "http://10.0.0.1",
            "http://[::2]:1",
            "http://127.0.0.1.example.org:1",
            "http://127.0.0.1:80@example.org",
        ] {
            assert!(!is_loopback(other), "{other}");
        }
    }
}
