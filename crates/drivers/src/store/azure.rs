//! Azure Blob Storage.

use std::sync::Arc;

use object_store::azure::{
    AzureAuthorizer, AzureConfigKey, AzureCredentialProvider, MicrosoftAzure, MicrosoftAzureBuilder,
};
use object_store::client::{HttpClient, HttpRequest};
use seaworthy_interface::{DriverError, ErrorKind};
use seaworthy_model::remote::{Credential, Provider};

use super::{StoreRequest, Traffic, posture, unusable};

/// Variables that lead to an identity's token.
const IDENTITIES: &[(&str, AzureConfigKey)] = &[
    ("AZURE_CLIENT_ID", AzureConfigKey::ClientId),
    ("AZURE_CLIENT_SECRET", AzureConfigKey::ClientSecret),
    ("AZURE_TENANT_ID", AzureConfigKey::AuthorityId),
    ("AZURE_FEDERATED_TOKEN_FILE", AzureConfigKey::FederatedTokenFile),
    ("AZURE_AUTHORITY_HOST", AzureConfigKey::AuthorityHost),
];

pub(super) fn store(
    request: &StoreRequest<'_>,
    container: &str,
    traffic: Traffic,
) -> Result<MicrosoftAzure, DriverError> {
    let account = account(request, container)?;
    let endpoint = request.endpoint()?;
    let mut builder = MicrosoftAzureBuilder::new()
        .with_account(account)
        .with_container_name(container)
        .with_retry(request.retry())
        .with_client_options(request.client(endpoint.as_deref(), traffic))
        .with_http_connector(request.connector(endpoint.as_deref(), traffic));
    if let Some(endpoint) = &endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    if let Some(key) = request.secret(Credential::AccountKey) {
        builder = builder.with_access_key(key);
    } else if let Some(signature) = request.secret(Credential::SasToken) {
        builder = builder.with_config(AzureConfigKey::SasKey, signature);
    } else if let Some(key) = request.variable("AZURE_STORAGE_KEY") {
        builder = builder.with_access_key(key);
    } else {
        for (variable, key) in IDENTITIES {
            if let Some(value) = request.variable(variable) {
                builder = builder.with_config(*key, value);
            }
        }
    }
    builder.build().map_err(|_| unusable(Provider::Azure, "endpoint, base64 key or signature"))
}

fn account<'a>(request: &'a StoreRequest<'_>, container: &str) -> Result<&'a str, DriverError> {
    request
        .remote
        .storage_account
        .as_deref()
        .or_else(|| request.variable("AZURE_STORAGE_ACCOUNT"))
        .ok_or_else(|| {
            DriverError::new(ErrorKind::Unsupported, format!("open the container {container}"))
                .because("its storage account is not known")
                .hint("add storage_account = \"…\" to the repository")
        })
}

/// Makes requests about the container itself, signed as those about its objects are.
pub(super) struct Signer {
    pub(super) client: HttpClient,
    credentials: AzureCredentialProvider,
    account: String,
    container: String,
}

impl Signer {
    pub(super) fn new(request: &StoreRequest<'_>, container: &str) -> Result<Self, DriverError> {
        let endpoint = request.endpoint()?;
        let account = account(request, container)?;
        let store = store(request, container, Traffic::Reads)?;
        let host = endpoint.clone().unwrap_or_else(|| format!("https://{account}.blob.core.windows.net"));
        Ok(Self {
            client: posture::client(request, endpoint.as_deref())?,
            credentials: Arc::clone(store.credentials()),
            account: account.to_owned(),
            container: format!("{host}/{container}"),
        })
    }

    /// A signed request for the container's properties.
    pub(super) async fn container(&self) -> Result<HttpRequest, String> {
        let mut request = posture::get(&format!("{}?restype=container", self.container))?;
        let credential = self.credentials.get_credential().await.map_err(|_| "no credentials".to_owned())?;
        AzureAuthorizer::new(&credential, &self.account)
            .try_authorize(&mut request)
            .map_err(|_| "the request cannot be signed".to_owned())?;
        Ok(request)
    }
}
