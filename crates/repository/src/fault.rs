//! What an object store says when it refuses, in terms that a person or a retry can act upon.
//!
//! Providers speak XML with a code in it; the codes are documented by them ("Error responses" of the Amazon S3 API reference,
//! "Blob service error codes" of Azure Storage, "HTTP status and error codes for XML" of Google Cloud Storage). Clients wrap
//! that in pages of their own. Of all this a code, a sentence and a status are kept: never a URL, which may be signed.

use std::error::Error;
use std::fmt;

/// Why an object store refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreFault {
    /// It did not answer, or broke off.
    Unreachable,
    /// It answers that it is too busy, or that it fails itself.
    Busy,
    /// It does not believe who we are: unknown, wrong or expired credentials.
    Unauthenticated,
    /// It knows us and forbids this.
    Denied,
    /// There is no such bucket or container.
    NoBucket,
    /// Its clock and ours disagree.
    ClockSkew,
    /// The bucket lies in another region than the one that was asked.
    WrongRegion,
    /// A quota is reached.
    Full,
    /// It acknowledged a file and does not have it.
    Forgotten,
    /// Anything else.
    Other,
}

impl StoreFault {
    /// Whether trying again may help without anybody changing anything.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unreachable | Self::Busy)
    }
}

/// The store's own words, without addresses and credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreWords(String);

impl StoreWords {
    pub(crate) fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }
}

impl fmt::Display for StoreWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for StoreWords {}

/// Longest sentence of a store that is shown, in characters.
const LONGEST: usize = 200;

/// What an error of a store amounts to.
pub(crate) fn read(error: &object_store::Error) -> (StoreFault, StoreWords) {
    let mut texts = vec![error.to_string()];
    let mut next: Option<&dyn Error> = error.source();
    while let Some(cause) = next {
        texts.push(cause.to_string());
        next = cause.source();
    }
    let whole = texts.join("\n");
    let code = element(&whole, "Code");
    let status = status(&whole);
    let kind = match error {
        object_store::Error::PermissionDenied { .. } => Some(403),
        object_store::Error::Unauthenticated { .. } => Some(401),
        object_store::Error::NotFound { .. } => Some(404),
        _ => status,
    };
    let fault = fault(code, kind, &whole);
    (fault, StoreWords(words(code, status, &whole, texts.last().map_or("", String::as_str), fault)))
}

/// Whether a range was asked for that begins where the file has ended already.
pub(crate) fn is_beyond_the_end(error: &object_store::Error) -> bool {
    let mut next: Option<&dyn Error> = Some(error);
    while let Some(cause) = next {
        let text = cause.to_string();
        // By the status, or as the client itself puts it where the answer tells the length.
        if status(&text) == Some(416) || text.starts_with("Wanted range starting at ") {
            return true;
        }
        next = cause.source();
    }
    false
}

/// Whether the client itself has tried this again already, for as long as it may.
pub(crate) fn was_retried(error: &object_store::Error) -> bool {
    let mut next: Option<&dyn Error> = Some(error);
    while let Some(cause) = next {
        if cause.to_string().contains(" retries, max_retries: ") {
            return true;
        }
        next = cause.source();
    }
    false
}

fn fault(code: Option<&str>, status: Option<u16>, whole: &str) -> StoreFault {
    let by_code = code.and_then(|code| {
        Some(match code {
            "NoSuchBucket" | "ContainerNotFound" | "ContainerBeingDeleted" => StoreFault::NoBucket,
            "RequestTimeTooSkewed" | "RequestExpired" => StoreFault::ClockSkew,
            "PermanentRedirect"
            | "TemporaryRedirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException" => StoreFault::WrongRegion,
            "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "InvalidToken"
            | "ExpiredToken"
            | "TokenRefreshRequired"
            | "InvalidSecurity"
            | "AuthenticationRequired"
            | "AuthenticationFailed"
            | "InvalidAuthenticationInfo"
            | "NoAuthenticationInformation" => StoreFault::Unauthenticated,
            "SlowDown" | "ServiceUnavailable" | "InternalError" | "Throttling" | "ServerBusy"
            | "RequestTimeout" | "OperationTimedOut" => StoreFault::Busy,
            "QuotaExceeded" | "XMinioStorageFull" | "InsufficientStorage" | "StorageQuotaExceeded" => {
                StoreFault::Full
            }
            _ => return None,
        })
    });
    // Azure and Google's token service have one code for every refusal, and say only in words that it is about time.
    let is_about_time = [
        "date header too old",
        "date header is too",
        "reasonable timeframe",
        "Signature not valid in the specified time frame",
    ]
    .iter()
    .any(|words| whole.contains(words));
    if matches!(by_code, Some(StoreFault::Unauthenticated) | None) && is_about_time {
        return StoreFault::ClockSkew;
    }
    if let Some(fault) = by_code {
        return fault;
    }
    // Azure's words where a signature is wrong, under more than one code.
    if whole.contains("failed to authenticate the request") {
        return StoreFault::Unauthenticated;
    }
    match status {
        Some(401) => StoreFault::Unauthenticated,
        Some(403) => StoreFault::Denied,
        Some(301 | 307) => StoreFault::WrongRegion,
        Some(408 | 429 | 500 | 502..=504) => StoreFault::Busy,
        Some(507) => StoreFault::Full,
        Some(_) => StoreFault::Other,
        None if whole.contains("redirect without LOCATION") => StoreFault::WrongRegion,
        None if whole.contains("invalid_grant") => StoreFault::Unauthenticated,
        None if is_broken_connection(whole) => StoreFault::Unreachable,
        None => StoreFault::Other,
    }
}

/// As the HTTP client and the resolver put it.
fn is_broken_connection(whole: &str) -> bool {
    [
        "error sending request",
        "HTTP error",
        "request or response body",
        "connection",
        "Connection",
        "dns error",
        "timed out",
        "end of file before message length",
    ]
    .iter()
    .any(|words| whole.contains(words))
}

fn words(code: Option<&str>, status: Option<u16>, whole: &str, last: &str, fault: StoreFault) -> String {
    let said = match (code, element(whole, "Message")) {
        (Some(code), Some(message)) => format!("{code}: {}", message.lines().next().unwrap_or_default()),
        (Some(code), None) => code.to_owned(),
        // What a client or a system says last is the cause itself; an address in it is taken out.
        (None, _) => {
            let line = last.lines().next().unwrap_or_default();
            // A status without a body is told by its number alone.
            if line.trim_end().ends_with(':') && line.contains("status code: ") {
                String::new()
            } else {
                without_addresses(line)
            }
        }
    };
    let mut said: String = said.chars().filter(|character| !character.is_control()).take(LONGEST).collect();
    if said.is_empty() {
        said = match fault {
            StoreFault::Denied => "it forbids this".to_owned(),
            _ => "it gave no reason".to_owned(),
        };
    }
    match status {
        Some(status) => format!("HTTP {status}, {said}"),
        None => said,
    }
}

/// The text of the first element of a name, as providers write it: without attributes.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inside, _) = rest.split_once(&format!("</{name}>"))?;
    Some(inside.trim()).filter(|inside| !inside.is_empty())
}

fn status(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

fn without_addresses(text: &str) -> String {
    let shown: Vec<&str> =
        text.split_whitespace().map(|word| if word.contains("://") { "(address)" } else { word }).collect();
    shown.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: text.into() }
    }

    fn answer(status: u16, code: &str, message: &str) -> object_store::Error {
        generic(&format!(
            "Error performing GET https://bucket.example.org/x?X-Amz-Signature=secret in 1ms - Server returned non-2xx status \
             code: {status} Reason: <?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}\nRequestId:1</Message></Error>"
        ))
    }

    #[test]
    fn what_providers_say_is_told_in_their_words_and_sorted() {
        for (status, code, message, fault) in [
            (404, "NoSuchBucket", "The specified bucket does not exist", StoreFault::NoBucket),
            (404, "ContainerNotFound", "The specified container does not exist.", StoreFault::NoBucket),
            (403, "AccessDenied", "Access Denied", StoreFault::Denied),
            (403, "AuthorizationPermissionMismatch", "This request is not authorized", StoreFault::Denied),
            (403, "InvalidAccessKeyId", "The key does not exist", StoreFault::Unauthenticated),
            (400, "ExpiredToken", "The provided token has expired.", StoreFault::Unauthenticated),
            (
                403,
                "AuthenticationFailed",
                "Server failed to authenticate the request.",
                StoreFault::Unauthenticated,
            ),
            (403, "AuthenticationFailed", "Request date header too old: 'x'", StoreFault::ClockSkew),
            (403, "RequestTimeTooSkewed", "The difference is too large", StoreFault::ClockSkew),
            (301, "PermanentRedirect", "The bucket must be addressed elsewhere", StoreFault::WrongRegion),
            (
                400,
                "AuthorizationHeaderMalformed",
                "the region 'a' is wrong; expecting 'b'",
                StoreFault::WrongRegion,
            ),
            (503, "SlowDown", "Please reduce your request rate.", StoreFault::Busy),
            (500, "InternalError", "We encountered an internal error.", StoreFault::Busy),
            (403, "QuotaExceeded", "full", StoreFault::Full),
            (507, "Odd", "full", StoreFault::Full),
            (429, "Odd", "often", StoreFault::Busy),
            (400, "Odd", "odd", StoreFault::Other),
        ] {
            let (found, words) = read(&answer(status, code, message));
            assert_eq!(found, fault, "{code}");
            assert_eq!(words.to_string(), format!("HTTP {status}, {code}: {message}"));
        }
        assert!(StoreFault::Busy.is_transient() && !StoreFault::Denied.is_transient());
    }

    #[test]
    fn a_range_behind_the_end_is_no_fault_of_the_store() {
        assert!(is_beyond_the_end(&answer(416, "InvalidRange", "The requested range is not satisfiable")));
        assert!(!is_beyond_the_end(&answer(404, "NoSuchKey", "no 416 here")));
        assert!(!is_beyond_the_end(&answer(500, "InternalError", "InvalidRange")));
    }

    #[test]
    fn what_never_answered_is_unreachable() {
        for text in [
            "error sending request",
            "dns error: no record",
            "operation timed out",
            "HTTP error: connection closed",
        ] {
            assert_eq!(read(&generic(text)).0, StoreFault::Unreachable, "{text}");
        }
        assert_eq!(read(&generic("a redirect without LOCATION, this normally")).0, StoreFault::WrongRegion);
        assert_eq!(read(&generic("token: invalid_grant")).0, StoreFault::Unauthenticated);
        assert_eq!(
            read(&generic("Invalid JWT: Token must be in a reasonable timeframe, invalid_grant")).0,
            StoreFault::ClockSkew
        );
        assert_eq!(read(&generic("something else")), (StoreFault::Other, StoreWords::new("something else")));
    }

    #[test]
    fn no_address_and_no_page_is_shown() {
        let (_, words) = read(&generic("error sending request for url (https://a.example/?sig=hunter2) now"));
        assert!(!words.to_string().contains("hunter2"), "{words}");
        let (_, words) = read(&answer(403, "AccessDenied", &"x".repeat(5_000)));
        assert!(words.to_string().chars().count() < 250, "{words}");
        let denied = object_store::Error::PermissionDenied { path: "x".to_owned(), source: "".into() };
        assert_eq!(read(&denied), (StoreFault::Denied, StoreWords::new("it forbids this")));
    }
}
