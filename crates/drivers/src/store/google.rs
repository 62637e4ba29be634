//! Google Cloud Storage.

use std::sync::Arc;

use object_store::StaticCredentialProvider;
use object_store::gcp::{GcpCredential, GoogleCloudStorage, GoogleCloudStorageBuilder};
use seaworthy_interface::DriverError;
use seaworthy_model::remote::{Credential, Provider, is_loopback};

use super::{StoreRequest, Traffic, unusable};

pub(super) fn store(
    request: &StoreRequest<'_>,
    bucket: &str,
    traffic: Traffic,
) -> Result<GoogleCloudStorage, DriverError> {
    let endpoint = request.endpoint(&[])?;
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(bucket)
        .with_retry(request.retry())
        .with_client_options(request.client(endpoint.as_deref()))
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
