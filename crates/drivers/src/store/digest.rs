//! What S3 tells of the content of an object without giving it: the SHA-256 that the service computed of what it was sent, and
//! refused to store where that was not what the sender had said.
//!
//! It is the service's word about the moment of storing. It is not a reading of what lies there now.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use object_store::client::{HttpError, HttpRequest, HttpResponse, HttpService};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{GetOptions, ObjectStore};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

const MODE: HeaderName = HeaderName::from_static("x-amz-checksum-mode");
const SHA256: HeaderName = HeaderName::from_static("x-amz-checksum-sha256");
const KIND: HeaderName = HeaderName::from_static("x-amz-checksum-type");

/// What is sent, and signed, with each look so that the digest is told.
pub(super) fn wanted() -> HeaderMap {
    HeaderMap::from_iter([(MODE, HeaderValue::from_static("ENABLED"))])
}

/// The SHA-256 of a whole object, as an answer tells it; `None` where it tells none, one of parts, or anything that is not exactly one.
fn told(headers: &HeaderMap) -> Option<[u8; 32]> {
    let mut values = headers.get_all(SHA256).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    if headers.get(KIND).is_some_and(|kind| kind != "FULL_OBJECT") {
        return None;
    }
    // That of an upload in parts ends in a hyphen and their number.
    BASE64.decode(value.as_bytes()).ok()?.try_into().ok()
}

#[derive(Clone, Copy)]
struct Told([u8; 32]);

/// Passes on what is asked, and notes a digest beside the answer, where the client of the store leaves it.
#[derive(Debug)]
pub(super) struct Listening(pub(super) reqwest::Client);

#[async_trait]
impl HttpService for Listening {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let mut answer = self.0.call(request).await?;
        if let Some(digest) = told(answer.headers()) {
            answer.extensions_mut().insert(Told(digest));
        }
        Ok(answer)
    }
}

/// Asks a store for the digests that it has.
#[derive(Debug, Clone)]
pub struct Digests(Arc<PrefixStore<Arc<dyn ObjectStore>>>);

impl Digests {
    pub(super) fn new(store: PrefixStore<Arc<dyn ObjectStore>>) -> Self {
        Self(Arc::new(store))
    }

    /// The size of an object in bytes, and its SHA-256 where the store tells that of the whole object. No byte of it is read.
    pub async fn of(&self, path: &Path) -> object_store::Result<(u64, Option<[u8; 32]>)> {
        let options = GetOptions { head: true, ..GetOptions::default() };
        let answer = self.0.get_opts(path, options).await?;
        Ok((answer.meta.size, answer.extensions.get::<Told>().map(|told| told.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_whole_digest_of_the_whole_object_is_one() {
        let digest = [7_u8; 32];
        let text = BASE64.encode(digest);
        let of = |pairs: &[(HeaderName, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(name.clone(), value.parse().unwrap());
            }
            told(&headers)
        };
        assert_eq!(of(&[(SHA256, &text)]), Some(digest));
        assert_eq!(of(&[(SHA256, &text), (KIND, "FULL_OBJECT")]), Some(digest));
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[(SHA256, &text), (KIND, "COMPOSITE")]), None);
        assert_eq!(of(&[(SHA256, &format!("{text}-2"))]), None);
        assert_eq!(of(&[(SHA256, &text), (SHA256, &text)]), None);
        assert_eq!(of(&[(SHA256, &text[..40])]), None);
        assert_eq!(of(&[(SHA256, "")]), None);
    }
}
