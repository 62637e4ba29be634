//! Google Cloud Storage.

use std::sync::Arc;

use object_store::StaticCredentialProvider;
use object_store::client::{HttpClient, HttpRequest};
use object_store::gcp::{
    GcpCredential, GcpCredentialProvider, GoogleCloudStorage, GoogleCloudStorageBuilder,
};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use seaworthy_interface::DriverError;
use seaworthy_model::remote::{Credential, Provider, is_loopback};

use super::{StoreRequest, Traffic, posture, unusable};

pub(super) fn store(
    request: &StoreRequest<'_>,
    bucket: &str,
    traffic: Traffic,
) -> Result<GoogleCloudStorage, DriverError> {
    let endpoint = request.endpoint()?;
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(bucket)
        .with_retry(request.retry())
        .with_client_options(request.client(endpoint.as_deref(), traffic))
        .with_http_connector(request.connector(endpoint.as_deref(), traffic));
    if let Some(endpoint) = &endpoint {
        builder = builder.with_base_url(endpoint);
    }
    if let Some(key) = request.secret(Credential::ServiceAccount) {
        builder = builder.with_service_account_key(key);
    } else if let Some(path) = request.variable("GOOGLE_APPLICATION_CREDENTIALS") {
        builder = builder.with_application_credentials(path);
    } else if endpoint.as_deref().is_some_and(is_loopback) {
        // A service on this machine knows nobody.
        let nobody = GcpCredential { bearer: String::new() };
        builder = builder
            .with_credentials(Arc::new(StaticCredentialProvider::new(nobody)))
            .with_skip_signature(true);
    }
    builder.build().map_err(|_| unusable(Provider::Google, "the JSON of a key"))
}

/// Makes requests about the bucket itself, by the XML interface.
pub(super) struct Signer {
    pub(super) client: HttpClient,
    credentials: GcpCredentialProvider,
    bucket: String,
}

impl Signer {
    pub(super) fn new(request: &StoreRequest<'_>, bucket: &str) -> Result<Self, DriverError> {
        let endpoint = request.endpoint()?;
        let store = store(request, bucket, Traffic::Reads)?;
        let host = endpoint.as_deref().unwrap_or("https://storage.googleapis.com");
        Ok(Self {
            client: posture::client(request, endpoint.as_deref())?,
            credentials: Arc::clone(store.credentials()),
            bucket: format!("{host}/{bucket}"),
        })
    }

    /// A request for one of the bucket's settings.
    pub(super) async fn bucket(&self, query: &str) -> Result<HttpRequest, String> {
        let mut request = posture::get(&format!("{}?{query}", self.bucket))?;
        let credential = self.credentials.get_credential().await.map_err(|_| "no credentials".to_owned())?;
        if !credential.bearer.is_empty() {
            let mut value = HeaderValue::try_from(format!("Bearer {}", credential.bearer))
                .map_err(|_| "the token is no header".to_owned())?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        Ok(request)
    }
}
