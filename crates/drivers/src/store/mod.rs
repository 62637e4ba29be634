//! Object stores: from what the configuration says to something that holds a repository. Nothing is asked of the provider here.
//!
//! Requests are tried again by the client: server errors, throttling, broken connections, with jitter, for three times the
//! longest silence. What is wrong for good (credentials, bucket, region) is told at once.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::client::{HttpClient, HttpConnector};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    Attribute, Attributes, BackoffConfig, ClientConfigKey, ClientOptions, CopyOptions, GetOptions, GetResult,
    ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, RetryConfig,
};
use seaworthy_interface::{DriverError, ErrorKind};
use seaworthy_model::remote::{Credential, Provider, RemoteSpec, is_loopback};
use secrecy::{ExposeSecret, SecretString};

#[cfg(feature = "azure")]
mod azure;
mod digest;
#[cfg(feature = "google")]
mod google;
mod posture;
mod probe;
#[cfg(feature = "s3")]
mod s3;

/// What a store is made from.
#[derive(Debug)]
pub struct StoreRequest<'a> {
    /// `s3://bucket/prefix`, `gs://…`, `az://…`.
    pub location: &'a str,
    /// The provider's region.
    pub region: Option<&'a str>,
    /// How it is reached.
    pub remote: &'a RemoteSpec,
    /// What the references of `remote` hold.
    pub secrets: BTreeMap<Credential, SecretString>,
    /// Those of the variables [`ENVIRONMENT`] that are set. What is configured comes before them.
    pub environment: BTreeMap<&'static str, SecretString>,
    /// How long it is tried.
    pub patience: Patience,
}

/// Where a store is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reached {
    /// At this URL, which the configuration gives.
    Configured(String),
    /// At this URL, which a variable of the environment gives where the configuration gives none.
    Environment {
        /// Its name.
        variable: &'static str,
        /// What it says.
        url: String,
    },
    /// At the provider's own address.
    Provider,
}

/// The environment variables that are looked at, where the configuration says nothing.
pub const ENVIRONMENT: &[&str] = &[
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "S3_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_ENDPOINT_URL_STS",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "AZURE_STORAGE_ACCOUNT",
    "AZURE_STORAGE_KEY",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_TENANT_ID",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_AUTHORITY_HOST",
];

impl StoreRequest<'_> {
    fn secret(&self, credential: Credential) -> Option<&str> {
        self.secrets.get(&credential).map(|secret| secret.expose_secret().trim())
    }

    /// A variable that is set and not empty.
    fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(ExposeSecret::expose_secret).filter(|value| !value.is_empty())
    }

    /// The endpoint, configured or from the environment; one that is not encrypted only on this machine.
    fn endpoint(&self) -> Result<Option<String>, DriverError> {
        match self.reached() {
            Reached::Configured(url) => Ok(Some(url)),
            Reached::Provider => Ok(None),
            Reached::Environment { variable, url } => {
                let is_private =
                    url.starts_with("https://") || (url.starts_with("http://") && is_loopback(&url));
                if is_private {
                    return Ok(Some(url));
                }
                Err(DriverError::new(ErrorKind::Refused, format!("use the endpoint in {variable}"))
                    .because("it is not encrypted, and leads off this machine")
                    .hint("give an https:// URL, or take the variable away"))
            }
        }
    }

    /// Where the store is asked, and who says so. Asks nothing.
    #[must_use]
    pub fn reached(&self) -> Reached {
        let trimmed = |url: &str| url.trim_end_matches('/').to_owned();
        if let Some(configured) = &self.remote.endpoint {
            return Reached::Configured(trimmed(configured));
        }
        // The other providers' own programs know no such variable.
        let variables: &[&'static str] = match Provider::of(self.location) {
            Some((Provider::S3, ..)) => &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"],
            Some((Provider::Google | Provider::Azure, ..)) | None => &[],
        };
        let set = variables.iter().find_map(|&variable| Some((variable, self.variable(variable)?)));
        match set {
            Some((variable, url)) => Reached::Environment { variable, url: trimmed(url) },
            None => Reached::Provider,
        }
    }

    fn client(&self, endpoint: Option<&str>, traffic: Traffic) -> ClientOptions {
        let options = ClientOptions::new().with_allow_http(endpoint.is_some_and(is_loopback));
        match traffic {
            Traffic::Looks => options.with_default_headers(digest::wanted()),
            Traffic::Reads | Traffic::Writes => options,
        }
    }

    /// Makes the connections: see [`Connector`].
    fn connector(&self, endpoint: Option<&str>, traffic: Traffic) -> Connector {
        Connector { is_loopback: endpoint.is_some_and(is_loopback), traffic, silence: self.silence() }
    }
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Traffic {
    /// Answers are waited for, and may not be silent for long.
    Reads,
    /// What is sent takes as long as it takes: the silence of the other side meanwhile says nothing.
    Writes,
    /// Objects are looked at, with the digests that the provider has of them.
    Looks,
}

/// Makes the HTTP clients, because the usual ones would do two things that are wrong here: count the time that a slow line needs for
/// an upload as silence, and send what is for this machine alone through a proxy.
#[derive(Debug, Clone)]
struct Connector {
    is_loopback: bool,
    traffic: Traffic,
    silence: Duration,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        // Only the first call of a process installs it; a later one finds it there.
        rustls::crypto::ring::default_provider().install_default().ok();
        // Addresses of a machine's own credentials are asked without encryption, which the client's own options then allow.
        let allows_http =
            options.get_config_value(&ClientConfigKey::AllowHttp).is_some_and(|value| value == "true");
        let mut client = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .timeout(WHOLE_REQUEST.max(self.silence))
            .https_only(!allows_http)
            .user_agent("seaworthy");
        if self.traffic != Traffic::Writes {
            client = client.read_timeout(self.silence);
        }
        if self.is_loopback {
            client = client.no_proxy();
        }
        let client = client
            .build()
            .map_err(|error| object_store::Error::Generic { store: "HTTP", source: Box::new(error) })?;
        Ok(match self.traffic {
            Traffic::Reads | Traffic::Writes => HttpClient::new(client),
            Traffic::Looks => HttpClient::new(digest::Listening(client)),
        })
    }
}

/// Where the configuration's silence is no span of time; the parser lets none such through.
const DEFAULT_SILENCE: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(10);
/// 20 min: a part of an upload or a download, 16 MiB, at 14 kB/s.
const WHOLE_REQUEST: Duration = Duration::from_secs(1_200);
/// Bytes a second of the slowest line that is waited for: half a megabit, of which a pack of 16 MiB takes four minutes.
const SLOWEST: u64 = 64 << 10;

/// How long something that may pass by itself is waited out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// For a first look: two more tries in seconds. Who mistypes an endpoint wants to hear of it.
    Look,
    /// For work: an outage that is over within three times the longest silence ends nothing.
    Work,
}

impl StoreRequest<'_> {
    fn silence(&self) -> Duration {
        Duration::try_from(self.remote.timeout).unwrap_or(DEFAULT_SILENCE)
    }

    fn retry(&self) -> RetryConfig {
        let (max_retries, most) = match self.patience {
            Patience::Look => (2, Duration::from_secs(10)),
            // At a service that refuses every other request, one in eight thousand is given up.
            Patience::Work => (12, Duration::from_secs(600)),
        };
        RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(200),
                max_backoff: self.silence().min(Duration::from_secs(15)),
                base: 2.0,
            },
            max_retries,
            retry_timeout: (self.silence() * 3).min(most),
        }
    }
}

/// A store, and what it tells of itself.
#[derive(Debug)]
pub struct Opened {
    /// The part of the bucket that the location names.
    pub objects: Arc<dyn ObjectStore>,
    /// Where the provider can tell the SHA-256 of what it holds. That it does so for any one object is not said by this.
    pub digests: Option<Digests>,
}

pub use digest::Digests;
pub use posture::look;
pub use probe::{PROBE, probe_writer};

/// Makes the client of the store that a location names. Asks nothing of the network; what the provider says comes later.
pub fn open(request: &StoreRequest<'_>) -> Result<Opened, DriverError> {
    let Some((provider, bucket, prefix)) = Provider::of(request.location) else {
        return Err(DriverError::new(ErrorKind::Unsupported, format!("open the store {}", request.location))
            .hint("give s3://, gs:// or az:// and a bucket"));
    };
    let of = |traffic| -> Result<PrefixStore<Arc<dyn ObjectStore>>, DriverError> {
        let store: Arc<dyn ObjectStore> = match provider {
            #[cfg(feature = "s3")]
            Provider::S3 => Arc::new(s3::store(request, bucket, traffic)?),
            #[cfg(feature = "google")]
            Provider::Google => Arc::new(google::store(request, bucket, traffic)?),
            #[cfg(feature = "azure")]
            Provider::Azure => Arc::new(azure::store(request, bucket, traffic)?),
            #[cfg(not(all(feature = "s3", feature = "google", feature = "azure")))]
            _ => {
                return Err(DriverError::new(
                    ErrorKind::Unsupported,
                    format!("open the store {}", request.location),
                )
                .because(format!("this program was built without {}", provider.name())));
            }
        };
        Ok(PrefixStore::new(store, Path::from(prefix)))
    };
    let digests = match provider {
        Provider::S3 => Some(Digests::new(of(Traffic::Looks)?)),
        // Azure tells an MD5, Google an MD5 or a CRC: neither is the name of a pack, and both can be met by other bytes.
        Provider::Google | Provider::Azure => None,
    };
    let objects = Arc::new(Placed {
        name: request.location.to_owned(),
        class: request.remote.storage_class.clone(),
        silence: request.silence(),
        reads: of(Traffic::Reads)?,
        writes: of(Traffic::Writes)?,
    });
    Ok(Opened { objects, digests })
}

/// A client that cannot be made: something given is not what it should be. The client's own words may repeat it, so they are not shown.
fn unusable(provider: Provider, what: &str) -> DriverError {
    DriverError::new(ErrorKind::Unauthenticated, format!("make a client of {}", provider.name()))
        .because(format!("what was given as {what} cannot be read as that"))
        .hint("check the credentials that the repository refers to, and the variables of the environment")
}

/// A part of a bucket, in which packs are stored in a class of their own.
#[derive(Debug)]
struct Placed {
    name: String,
    class: Option<String>,
    silence: Duration,
    reads: PrefixStore<Arc<dyn ObjectStore>>,
    writes: PrefixStore<Arc<dyn ObjectStore>>,
}

impl Placed {
    fn attributes(&self, location: &Path, mut attributes: Attributes) -> Attributes {
        if let Some(class) = &self.class
            && location.as_ref().starts_with("data/")
        {
            attributes.insert(Attribute::StorageClass, class.clone().into());
        }
        attributes
    }
}

impl fmt::Display for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[async_trait]
impl ObjectStore for Placed {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> object_store::Result<PutResult> {
        options.attributes = self.attributes(location, options.attributes);
        // With the client's own tries, and the time that a slow line needs for the bytes.
        let bytes = u64::try_from(payload.content_length()).unwrap_or(u64::MAX);
        let allowed = self.silence * 4 + Duration::from_secs(bytes / SLOWEST);
        match tokio::time::timeout(allowed, self.writes.put_opts(location, payload, options)).await {
            Ok(answer) => answer,
            Err(_) => Err(object_store::Error::Generic {
                store: "HTTP",
                source: format!("timed out: no answer in {} s", allowed.as_secs()).into(),
            }),
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        mut options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        options.attributes = self.attributes(location, options.attributes);
        self.writes.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.reads.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.reads.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.reads.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.reads.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.reads.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.reads.copy_opts(from, to, options).await
    }
}
