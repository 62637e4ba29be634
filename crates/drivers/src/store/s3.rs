//! Amazon S3, and what speaks like it.

use std::sync::Arc;

use object_store::aws::{
    AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsAuthorizer, AwsCredentialProvider, Checksum,
};
use object_store::client::{HttpClient, HttpRequest};
use seaworthy_interface::{DriverError, ErrorKind};
use seaworthy_model::remote::{Credential, Provider};

use super::{StoreRequest, Traffic, posture, unusable};

/// Where a compatible service is asked and no region is given: the one that all of them take.
const ANY_REGION: &str = "us-east-1";

/// Variables that lead to a role's credentials; the client itself knows what to do with them.
const ROLES: &[(&str, &str)] = &[
    ("AWS_WEB_IDENTITY_TOKEN_FILE", "aws_web_identity_token_file"),
    ("AWS_ROLE_ARN", "aws_role_arn"),
    ("AWS_ROLE_SESSION_NAME", "aws_role_session_name"),
    ("AWS_ENDPOINT_URL_STS", "aws_endpoint_url_sts"),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "aws_container_credentials_relative_uri"),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "aws_container_credentials_full_uri"),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "aws_container_authorization_token_file"),
];

pub(super) fn store(
    request: &StoreRequest<'_>,
    bucket: &str,
    traffic: Traffic,
) -> Result<AmazonS3, DriverError> {
    let endpoint = request.endpoint()?;
    let region = region(request, bucket, endpoint.as_deref())?;
    let is_path_style = request.remote.path_style.unwrap_or(endpoint.is_some());
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(region)
        .with_virtual_hosted_style_request(!is_path_style)
        // Buckets with object lock take nothing without one, and a body that was damaged on its way is refused.
        .with_checksum_algorithm(Checksum::SHA256)
        // One at a time is understood everywhere, and we remove little.
        .with_disable_bulk_delete(true)
        .with_retry(request.retry())
        .with_client_options(request.client(endpoint.as_deref(), traffic))
        .with_http_connector(request.connector(endpoint.as_deref(), traffic));
    if let Some(endpoint) = &endpoint {
        // A bucket that stands in the name of the host is no part of what the client is told to sign.
        builder = builder.with_endpoint(match (is_path_style, endpoint.split_once("://")) {
            (false, Some((scheme, host))) => format!("{scheme}://{bucket}.{host}"),
            _ => endpoint.clone(),
        });
    }
    builder = match request.remote.encryption.as_deref() {
        None => builder,
        Some("AES256") => set(builder, "aws_server_side_encryption", "AES256")?,
        Some("aws:kms") => set(builder, "aws_server_side_encryption", "aws:kms")?,
        Some(other) => {
            let key = other.strip_prefix("aws:kms:").unwrap_or(other);
            builder.with_sse_kms_encryption(key)
        }
    };
    if let (Some(id), Some(key)) =
        (request.secret(Credential::AccessKey), request.secret(Credential::SecretKey))
    {
        builder = builder.with_access_key_id(id).with_secret_access_key(key);
        if let Some(token) = request.secret(Credential::SessionToken) {
            builder = builder.with_token(token);
        }
    } else if let (Some(id), Some(key)) =
        (request.variable("AWS_ACCESS_KEY_ID"), request.variable("AWS_SECRET_ACCESS_KEY"))
    {
        builder = builder.with_access_key_id(id).with_secret_access_key(key);
        if let Some(token) = request.variable("AWS_SESSION_TOKEN") {
            builder = builder.with_token(token);
        }
    } else {
        for (variable, key) in ROLES {
            if let Some(value) = request.variable(variable) {
                builder = set(builder, key, value)?;
            }
        }
    }
    builder.build().map_err(|_| unusable(Provider::S3, "region, endpoint, credentials or encryption"))
}

/// Makes requests about the bucket itself, signed as those about its objects are.
pub(super) struct Signer {
    pub(super) client: HttpClient,
    credentials: AwsCredentialProvider,
    region: String,
    bucket: String,
}

impl Signer {
    pub(super) fn new(request: &StoreRequest<'_>, bucket: &str) -> Result<Self, DriverError> {
        let endpoint = request.endpoint()?;
        let region = region(request, bucket, endpoint.as_deref())?;
        let is_path_style = request.remote.path_style.unwrap_or(endpoint.is_some());
        let address = match (&endpoint, is_path_style) {
            (Some(endpoint), true) => format!("{endpoint}/{bucket}"),
            (Some(endpoint), false) => match endpoint.split_once("://") {
                Some((scheme, host)) => format!("{scheme}://{bucket}.{host}/"),
                None => endpoint.clone(),
            },
            (None, true) => format!("https://s3.{region}.amazonaws.com/{bucket}"),
            (None, false) => format!("https://{bucket}.s3.{region}.amazonaws.com/"),
        };
        let store = store(request, bucket, Traffic::Reads)?;
        Ok(Self {
            client: posture::client(request, endpoint.as_deref())?,
            credentials: Arc::clone(store.credentials()),
            region,
            bucket: address,
        })
    }

    /// A signed request for one of the bucket's settings.
    pub(super) async fn bucket(&self, query: &str) -> Result<HttpRequest, String> {
        let mut request = posture::get(&format!("{}?{query}", self.bucket))?;
        let credential = self.credentials.get_credential().await.map_err(|_| "no credentials".to_owned())?;
        AwsAuthorizer::new(&credential, "s3", &self.region)
            .try_authorize(&mut request, None)
            .map_err(|_| "the request cannot be signed".to_owned())?;
        Ok(request)
    }
}

/// The region: configured, from the environment, or any where the service is another one.
fn region(request: &StoreRequest<'_>, bucket: &str, endpoint: Option<&str>) -> Result<String, DriverError> {
    let variables = ["AWS_REGION", "AWS_DEFAULT_REGION", "S3_REGION"];
    request
        .region
        .or_else(|| variables.iter().find_map(|name| request.variable(name)))
        .or(endpoint.map(|_| ANY_REGION))
        .map(str::to_owned)
        .ok_or_else(|| {
            DriverError::new(ErrorKind::Unsupported, format!("open the bucket {bucket}"))
                .because("its region is not known")
                .hint("add region = \"…\" to the repository")
        })
}

fn set(builder: AmazonS3Builder, key: &str, value: &str) -> Result<AmazonS3Builder, DriverError> {
    let key: AmazonS3ConfigKey =
        key.parse().map_err(|_| unusable(Provider::S3, "region, endpoint, credentials or encryption"))?;
    Ok(builder.with_config(key, value))
}
