//! What a provider tells of how a bucket is set up. Reads only; whether that is right is judged in the model.
//!
//! Each fact is one request of its own, so that one that is refused leaves the others. What is refused (403), not there to be asked
//! (405, 501) or not understood is unknown, never the opposite of what was looked for.

use jiff::SignedDuration;
use object_store::ClientOptions;
use object_store::client::{HttpClient, HttpConnector as _, HttpRequest, HttpRequestBody};
use seaworthy_interface::{Cx, DriverError, ErrorKind};
use seaworthy_model::posture::{LifecycleRule, ObjectLock, PublicAccessBlock, Seen, StoreFacts, Versioning};
use seaworthy_model::remote::{Provider, is_loopback};

use super::{StoreRequest, Traffic};

/// An answer, whole.
#[derive(Debug)]
pub(super) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

/// A body of an answer that is longer is none of a bucket's settings.
const BODY_MAX: usize = 1 << 20;
/// Times that a request is made: what breaks once may not break again.
const TRIES: u32 = 3;

/// Asks the provider for everything that is judged of the bucket that a location names.
///
/// An error is one of what was given; a service that does not answer leaves facts that are not known.
pub async fn look(cx: &Cx, request: &StoreRequest<'_>) -> Result<StoreFacts, DriverError> {
    let Some((provider, bucket, _)) = Provider::of(request.location) else {
        return Err(DriverError::new(ErrorKind::Unsupported, format!("look at {}", request.location))
            .because("a directory has no such settings"));
    };
    match provider {
        #[cfg(feature = "s3")]
        Provider::S3 => s3(cx, super::s3::Signer::new(request, bucket)?).await,
        #[cfg(feature = "google")]
        Provider::Google => google(cx, super::google::Signer::new(request, bucket)?).await,
        #[cfg(feature = "azure")]
        Provider::Azure => azure(cx, super::azure::Signer::new(request, bucket)?).await,
        #[cfg(not(all(feature = "s3", feature = "google", feature = "azure")))]
        _ => Err(DriverError::new(ErrorKind::Unsupported, format!("look at {}", request.location))
            .because(format!("this program was built without {}", provider.name()))),
    }
}

/// The client that requests of our own are sent by.
pub(super) fn client(request: &StoreRequest<'_>, endpoint: Option<&str>) -> Result<HttpClient, DriverError> {
    let options = ClientOptions::new().with_allow_http(endpoint.is_some_and(is_loopback));
    request
        .connector(endpoint, Traffic::Reads)
        .connect(&options)
        .map_err(|error| DriverError::new(ErrorKind::Other, "make a client of HTTP").because(error))
}

/// A request that is to be signed; an address that is none is a fault of what was given.
pub(super) fn get(url: &str) -> Result<HttpRequest, String> {
    let mut request = HttpRequest::new(HttpRequestBody::empty());
    *request.uri_mut() = url.parse().map_err(|_| "the endpoint makes no address".to_owned())?;
    Ok(request)
}

/// Sends what `make` makes, signed anew each time, until there is an answer; the reason is a word for a person.
async fn ask<M, F>(cx: &Cx, client: &HttpClient, make: M) -> Result<Answer, String>
where
    M: Fn() -> F,
    F: Future<Output = Result<HttpRequest, String>>,
{
    let mut why = String::new();
    for _ in 0..TRIES {
        let request = cx.run(make()).await.map_err(|stop| stop.to_string())??;
        let sent = cx.run(client.execute(request)).await.map_err(|stop| stop.to_string())?;
        match sent {
            Err(_) => why = "no answer".to_owned(),
            Ok(answer) => {
                let (parts, body) = answer.into_parts();
                let status = parts.status.as_u16();
                let body = cx.run(body.bytes()).await.map_err(|stop| stop.to_string())?;
                match body {
                    Ok(body) if status < 500 || status == 501 => {
                        let headers = parts.headers.iter();
                        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
                        return Ok(Answer {
                            status,
                            headers: headers
                                .map(|(name, value)| (name.to_string(), text(value.as_bytes())))
                                .collect(),
                            body: text(&body[..body.len().min(BODY_MAX)]),
                        });
                    }
                    Ok(_) => why = format!("HTTP {status}"),
                    Err(_) => why = "an answer that broke off".to_owned(),
                }
            }
        }
    }
    Err(why)
}

impl Answer {
    fn code(&self) -> &str {
        element(&self.body, "Code").unwrap_or_default()
    }

    /// Why this is not the answer that was asked for.
    fn refusal(&self) -> String {
        match self.code() {
            "" => format!("HTTP {}", self.status),
            code => format!("HTTP {}, {code}", self.status),
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What an answer says: of one that says "there is none" (one of `none`), the default.
fn seen<T>(
    answer: &Result<Answer, String>,
    none: &[&str],
    absent: T,
    read: impl FnOnce(&Answer) -> Option<T>,
) -> Seen<T> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(why) => return Seen::Unknown(why.clone()),
    };
    match answer.status {
        200 => read(answer)
            .map_or_else(|| Seen::Unknown("an answer that is not understood".to_owned()), Seen::Known),
        404 if none.contains(&answer.code()) => Seen::Known(absent),
        _ => Seen::Unknown(answer.refusal()),
    }
}

/// The text of the first element of a name, without what stands around it; of an empty one, nothing.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    elements(text, name).next()
}

/// The texts of all elements of a name that are not nested in one another, as providers write them.
fn elements<'a>(text: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (open, close) = (format!("<{name}"), format!("</{name}>"));
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let (_, after) = rest.split_once(&open)?;
            let (attributes, inside) = after.split_once('>')?;
            // Another name may begin alike.
            if !(attributes.is_empty() || attributes.starts_with([' ', '/'])) {
                rest = after;
                continue;
            }
            if attributes.ends_with('/') {
                rest = inside;
                return Some("");
            }
            let (inside, after) = inside.split_once(&close)?;
            rest = after;
            return Some(inside.trim());
        }
    })
}

fn number(text: &str, name: &str) -> Option<u32> {
    element(text, name)?.parse().ok()
}

fn is_true(text: &str, name: &str) -> bool {
    element(text, name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// Rules as S3 and Google write them.
fn lifecycle(body: &str) -> Vec<LifecycleRule> {
    elements(body, "Rule")
        .map(|rule| {
            let within = |name: &str| element(rule, name).unwrap_or_default();
            let expiration = within("Expiration");
            let moves = ["Transition", "NoncurrentVersionTransition"];
            let narrowing = ["Tag", "ObjectSizeGreaterThan", "ObjectSizeLessThan", "And"];
            LifecycleRule {
                id: element(rule, "ID").unwrap_or("without a name").to_owned(),
                is_enabled: element(rule, "Status") == Some("Enabled"),
                prefix: element(rule, "Prefix").unwrap_or_default().to_owned(),
                is_narrowed: narrowing.iter().any(|name| element(rule, name).is_some()),
                expires_days: number(expiration, "Days").or(element(expiration, "Date").map(|_| 0)),
                expires_earlier_days: number(within("NoncurrentVersionExpiration"), "NoncurrentDays"),
                aborts_days: number(within("AbortIncompleteMultipartUpload"), "DaysAfterInitiation"),
                moves_to: moves
                    .iter()
                    .flat_map(|name| elements(rule, name))
                    .filter_map(|one| element(one, "StorageClass"))
                    .map(str::to_owned)
                    .collect(),
            }
        })
        .collect()
}

fn versioning(answer: &Answer) -> Option<Versioning> {
    element(&answer.body, "VersioningConfiguration")?;
    match element(&answer.body, "Status") {
        None => Some(Versioning::Off),
        Some("Enabled") => Some(Versioning::Enabled),
        Some("Suspended") => Some(Versioning::Suspended),
        Some(_) => None,
    }
}

/// Whether a policy allows something to everybody; `None` where that hangs on conditions, or it is not understood.
fn is_public(policy: &str) -> Option<bool> {
    let policy: serde_json::Value = serde_json::from_str(policy).ok()?;
    let statements = match policy.get("Statement")? {
        serde_json::Value::Array(statements) => statements.clone(),
        one => vec![one.clone()],
    };
    let is_anybody = |principal: &serde_json::Value| match principal {
        serde_json::Value::String(name) => name == "*",
        serde_json::Value::Object(kinds) => kinds.values().any(|named| {
            named == "*" || named.as_array().is_some_and(|names| names.iter().any(|name| name == "*"))
        }),
        _ => false,
    };
    let mut hangs = false;
    for statement in &statements {
        if statement.get("Effect")? != "Allow" {
            continue;
        }
        // Everybody but some is everybody.
        if !statement.get("Principal").is_some_and(is_anybody) && statement.get("NotPrincipal").is_none() {
            continue;
        }
        if statement.get("Condition").is_none() {
            return Some(true);
        }
        hangs = true;
    }
    (!hangs).then_some(false)
}

#[cfg(feature = "s3")]
async fn s3(cx: &Cx, signer: super::s3::Signer) -> Result<StoreFacts, DriverError> {
    let client = &signer.client;
    let of = |query: &'static str| ask(cx, client, || signer.bucket(query));
    let versions = of("versioning").await;
    Ok(StoreFacts {
        versioning: seen(&versions, &[], Versioning::Off, versioning),
        mfa_delete: seen(&versions, &[], false, |answer| {
            let configuration = element(&answer.body, "VersioningConfiguration")?;
            Some(element(configuration, "MfaDelete") == Some("Enabled"))
        }),
        object_lock: seen(
            &of("object-lock").await,
            &["ObjectLockConfigurationNotFoundError"],
            None,
            |answer| {
                let configuration = element(&answer.body, "ObjectLockConfiguration")?;
                if element(configuration, "ObjectLockEnabled") != Some("Enabled") {
                    return Some(None);
                }
                let days = number(configuration, "Days").map(i64::from);
                let years = number(configuration, "Years").map(|years| i64::from(years) * 365);
                Some(Some(ObjectLock {
                    is_compliance: element(configuration, "Mode") == Some("COMPLIANCE"),
                    retention: days.or(years).map(|days| SignedDuration::from_hours(24 * days)),
                }))
            },
        ),
        public_access_block: seen(
            &of("publicAccessBlock").await,
            &["NoSuchPublicAccessBlockConfiguration"],
            None,
            |answer| {
                let block = element(&answer.body, "PublicAccessBlockConfiguration")?;
                Some(Some(PublicAccessBlock {
                    block_acls: is_true(block, "BlockPublicAcls"),
                    ignore_acls: is_true(block, "IgnorePublicAcls"),
                    block_policy: is_true(block, "BlockPublicPolicy"),
                    restrict_buckets: is_true(block, "RestrictPublicBuckets"),
                }))
            },
        ),
        is_public_by_policy: match seen(&of("policyStatus").await, &["NoSuchBucketPolicy"], false, |answer| {
            element(&answer.body, "PolicyStatus")?;
            Some(is_true(&answer.body, "IsPublic"))
        }) {
            // Much that speaks like S3 has policies and does not judge them itself.
            Seen::Unknown(why) => match of("policy").await {
                Ok(answer) if answer.status == 404 && answer.code() == "NoSuchBucketPolicy" => {
                    Seen::Known(false)
                }
                Ok(answer) if answer.status == 200 => is_public(&answer.body).map_or_else(
                    || Seen::Unknown("a policy whose conditions are not judged here".to_owned()),
                    Seen::Known,
                ),
                Ok(_) | Err(_) => Seen::Unknown(why),
            },
            seen => seen,
        },
        open_to: seen(&of("acl").await, &[], Vec::new(), |answer| {
            element(&answer.body, "AccessControlList")?;
            // Everybody in the world, and everybody who has an account of the provider.
            let groups = ["AllUsers", "AuthenticatedUsers"];
            let open = groups.into_iter().filter(|group| answer.body.contains(&format!("/global/{group}<")));
            Some(open.map(str::to_owned).collect())
        }),
        lifecycle: seen(&of("lifecycle").await, &["NoSuchLifecycleConfiguration"], Vec::new(), |answer| {
            element(&answer.body, "LifecycleConfiguration")?;
            Some(lifecycle(&answer.body))
        }),
        encryption: seen(
            &of("encryption").await,
            &["ServerSideEncryptionConfigurationNotFoundError"],
            None,
            |answer| {
                element(&answer.body, "ServerSideEncryptionConfiguration")?;
                Some(element(&answer.body, "SSEAlgorithm").map(str::to_owned))
            },
        ),
        region: seen(&of("location").await, &[], String::new(), |answer| {
            // The oldest region has no name there.
            let place = element(&answer.body, "LocationConstraint")?;
            Some(match place {
                "" => "us-east-1".to_owned(),
                "EU" => "eu-west-1".to_owned(),
                place => place.to_owned(),
            })
        }),
    })
}

/// As far as Google's XML interface tells. What only the JSON interface has is not known.
#[cfg(feature = "google")]
async fn google(cx: &Cx, signer: super::google::Signer) -> Result<StoreFacts, DriverError> {
    let client = &signer.client;
    let of = |query: &'static str| ask(cx, client, || signer.bucket(query));
    let unasked = || "told by the JSON interface alone".to_owned();
    Ok(StoreFacts {
        versioning: seen(&of("versioning").await, &[], Versioning::Off, versioning),
        mfa_delete: Seen::NotApplicable,
        object_lock: Seen::Unknown(unasked()),
        public_access_block: Seen::Unknown(unasked()),
        is_public_by_policy: Seen::Unknown(unasked()),
        open_to: seen(&of("acl").await, &[], Vec::new(), |answer| {
            element(&answer.body, "AccessControlList")?;
            let groups = ["AllUsers", "AllAuthenticatedUsers"];
            let open = groups.into_iter().filter(|group| answer.body.contains(&format!("\"{group}\"")));
            Some(open.map(str::to_owned).collect())
        }),
        lifecycle: seen(&of("lifecycle").await, &[], Vec::new(), |answer| {
            element(&answer.body, "LifecycleConfiguration")?;
            // Its rules are written otherwise: an action and conditions. Rules that are there are not understood.
            (!answer.body.contains("<Rule>")).then(Vec::new)
        }),
        // Everything is encrypted there, always.
        encryption: Seen::NotApplicable,
        region: seen(&of("location").await, &[], String::new(), |answer| {
            element(&answer.body, "LocationConstraint").map(str::to_owned)
        }),
    })
}

/// As far as Azure's data plane tells. Versioning, lifecycle rules and the region are told by the management plane alone.
#[cfg(feature = "azure")]
async fn azure(cx: &Cx, signer: super::azure::Signer) -> Result<StoreFacts, DriverError> {
    let client = &signer.client;
    let unasked = || "told by the management interface alone".to_owned();
    let container = ask(cx, client, || signer.container()).await;
    let (lock, open_to) = match container {
        Err(why) => (Seen::Unknown(why.clone()), Seen::Unknown(why)),
        Ok(answer) if answer.status != 200 => {
            (Seen::Unknown(answer.refusal()), Seen::Unknown(answer.refusal()))
        }
        Ok(answer) => (
            // That there is a policy is told, and neither how long it holds nor whether it can be taken off.
            match answer.header("x-ms-has-immutability-policy") {
                Some("false") => Seen::Known(None),
                Some(_) => Seen::Unknown(
                    "there is an immutability policy; how long it holds is not told here".to_owned(),
                ),
                None => Seen::Unknown("not told".to_owned()),
            },
            Seen::Known(
                answer
                    .header("x-ms-blob-public-access")
                    .map(|level| format!("everybody ({level})"))
                    .into_iter()
                    .collect(),
            ),
        ),
    };
    Ok(StoreFacts {
        versioning: Seen::Unknown(unasked()),
        mfa_delete: Seen::NotApplicable,
        object_lock: lock,
        public_access_block: Seen::NotApplicable,
        is_public_by_policy: Seen::NotApplicable,
        open_to,
        lifecycle: Seen::Unknown(unasked()),
        // Everything is encrypted there, always.
        encryption: Seen::NotApplicable,
        region: Seen::Unknown(unasked()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Result<Answer, String> {
        Ok(Answer { status, headers: Vec::new(), body: body.to_owned() })
    }

    #[test]
    fn elements_are_found_with_attributes_empty_and_beside_others_that_begin_alike() {
        let text = "<A xmlns=\"x\"><RuleName>n</RuleName><Rule> one </Rule><Rule/><Rule>two</Rule></A>";
        assert_eq!(elements(text, "Rule").collect::<Vec<_>>(), ["one", "", "two"]);
        assert_eq!(element(text, "A").map(|inside| inside.starts_with("<RuleName>")), Some(true));
        assert_eq!((element(text, "B"), element("<A>", "A")), (None, None));
    }

    #[test]
    fn what_is_refused_or_not_understood_is_unknown_and_what_is_not_there_is_not_there() {
        let read = |answer: &Answer| element(&answer.body, "X").map(str::to_owned);
        let of = |answer| seen(&answer, &["NoSuchX"], "none".to_owned(), read);
        assert_eq!(of(answer(200, "<X>x</X>")), Seen::Known("x".to_owned()));
        assert_eq!(of(answer(404, "<Error><Code>NoSuchX</Code></Error>")), Seen::Known("none".to_owned()));
        for (status, body) in [
            (404, "<Error><Code>NoSuchBucket</Code></Error>"),
            (403, "<Error><Code>AccessDenied</Code></Error>"),
            (501, "<Error><Code>NotImplemented</Code></Error>"),
            (404, ""),
            (200, "<Y/>"),
            (204, "<X>x</X>"),
        ] {
            assert!(matches!(of(answer(status, body)), Seen::Unknown(_)), "{status} {body}");
        }
        assert_eq!(of(Err("no answer".to_owned())), Seen::Unknown("no answer".to_owned()));
    }

    #[test]
    fn a_policy_is_public_where_it_allows_something_to_everybody() {
        let of = |statement: &str| is_public(&format!("{{\"Statement\":[{statement}]}}"));
        assert_eq!(of(r#"{"Effect":"Allow","Principal":"*","Action":"s3:GetObject"}"#), Some(true));
        assert_eq!(of(r#"{"Effect":"Allow","Principal":{"AWS":["*"]}}"#), Some(true));
        assert_eq!(of(r#"{"Effect":"Allow","NotPrincipal":{"AWS":"x"}}"#), Some(true));
        assert_eq!(of(r#"{"Effect":"Deny","Principal":"*"}"#), Some(false));
        assert_eq!(of(r#"{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::1:root"}}"#), Some(false));
        assert_eq!(of(r#"{"Effect":"Allow","Principal":"*","Condition":{}}"#), None);
        assert_eq!(is_public("{}"), None);
        assert_eq!(is_public("<Error/>"), None);
        assert_eq!(is_public(r#"{"Statement":{"Effect":"Allow","Principal":"*"}}"#), Some(true));
    }

    #[test]
    fn rules_are_read_as_they_are_written() {
        let body = "<LifecycleConfiguration><Rule><ID>a</ID><Filter><Prefix>ships/</Prefix></Filter><Status>Enabled</Status>\
                    <Expiration><Days>30</Days></Expiration><Transition><Days>1</Days><StorageClass>GLACIER</StorageClass></Transition>\
                    <NoncurrentVersionTransition><NoncurrentDays>1</NoncurrentDays><StorageClass>DEEP_ARCHIVE</StorageClass>\
                    </NoncurrentVersionTransition></Rule><Rule><ID>b</ID><Filter><And><Prefix>x</Prefix><Tag><Key>k</Key></Tag></And></Filter>\
                    <Status>Disabled</Status><NoncurrentVersionExpiration><NoncurrentDays>7</NoncurrentDays></NoncurrentVersionExpiration>\
                    <AbortIncompleteMultipartUpload><DaysAfterInitiation>3</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule>\
                    </LifecycleConfiguration>";
        let rules = lifecycle(body);
        assert_eq!(
            rules[0],
            LifecycleRule {
                id: "a".to_owned(),
                is_enabled: true,
                prefix: "ships/".to_owned(),
                expires_days: Some(30),
                moves_to: vec!["GLACIER".to_owned(), "DEEP_ARCHIVE".to_owned()],
                ..LifecycleRule::default()
            }
        );
        assert_eq!(
            rules[1],
            LifecycleRule {
                id: "b".to_owned(),
                prefix: "x".to_owned(),
                is_narrowed: true,
                expires_earlier_days: Some(7),
                aborts_days: Some(3),
                ..LifecycleRule::default()
            }
        );
        let marker = "<Rule><Status>Enabled</Status><Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration></Rule>";
        assert_eq!(lifecycle(marker)[0].expires_days, None);
        let dated = "<Rule><Expiration><Date>2027-01-01T00:00:00Z</Date></Expiration></Rule>";
        assert_eq!(lifecycle(dated)[0].expires_days, Some(0));
    }
}
