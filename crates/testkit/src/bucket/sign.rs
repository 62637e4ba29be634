//! Signatures of requests: AWS Signature Version 4, as the service checks it. Written from its description in the AWS
//! documentation ("Create a signed AWS API request") and tested with the example there.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::Settings;
use super::wire::Request;

/// Dates of requests may be off by 15 minutes.
const TOLERANCE_SECONDS: i64 = 900;

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}

/// HMAC with SHA-256 (RFC 2104).
pub(crate) fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0_u8; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&sha256(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let with = |pad: u8, message: &[u8]| {
        let mut hash = Sha256::new();
        hash.update(block.map(|byte| byte ^ pad));
        hash.update(message);
        <[u8; 32]>::from(hash.finalize())
    };
    let inner = with(0x36, message);
    with(0x5c, &inner)
}

/// Whether a request may be carried out, as far as it is about who asks and when; otherwise what is answered.
pub(super) fn check(request: &Request, settings: &Settings) -> Result<(), (u16, &'static str)> {
    if settings.keys.is_empty() {
        return Ok(());
    }
    let denied = (403, "AccessDenied");
    let authorization = request.header("authorization").ok_or(denied)?;
    let field = |name: &str| {
        let (_, rest) = authorization.split_once(&format!("{name}="))?;
        rest.split(',').next().map(str::trim)
    };
    let scope = field("Credential").ok_or(denied)?;
    let [id, day, region, service, end] =
        <[&str; 5]>::try_from(scope.split('/').collect::<Vec<_>>()).map_err(|_| denied)?;
    let secret = settings.keys.get(id).ok_or((403, "InvalidAccessKeyId"))?;
    if region != settings.region {
        return Err((400, "AuthorizationHeaderMalformed"));
    }
    if request
        .header("x-amz-security-token")
        .is_some_and(|token| settings.expired_tokens.iter().any(|one| one == token))
    {
        return Err((400, "ExpiredToken"));
    }
    let date = request.header("x-amz-date").ok_or(denied)?;
    let ahead = i64::try_from(settings.clock_ahead.as_secs()).unwrap_or(i64::MAX);
    let ours = jiff::Timestamp::now().as_second().saturating_add(ahead);
    let theirs = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", date)
        .ok()
        .and_then(|date| date.to_zoned(jiff::tz::TimeZone::UTC).ok())
        .ok_or(denied)?
        .timestamp()
        .as_second();
    if (ours - theirs).abs() > TOLERANCE_SECONDS {
        return Err((403, "RequestTimeTooSkewed"));
    }
    let names = field("SignedHeaders").ok_or(denied)?;
    let body = request.header("x-amz-content-sha256").ok_or(denied)?;
    if body != "UNSIGNED-PAYLOAD" && !body.starts_with("STREAMING-") && body != hex(&sha256(&request.body)) {
        return Err((400, "XAmzContentSHA256Mismatch"));
    }
    // Headers of the service that were not signed may have been added on the way.
    let is_signed = |name: &str| names.split(';').any(|signed| signed == name);
    if request.headers.iter().any(|(name, _)| name.starts_with("x-amz-") && !is_signed(name)) {
        return Err(denied);
    }
    let ours = signature(&canonical(request, names, body), secret, date, [day, region, service, end]);
    if Some(ours.as_str()) == field("Signature") { Ok(()) } else { Err((403, "SignatureDoesNotMatch")) }
}

fn signature(canonical: &str, secret: &str, date: &str, scope: [&str; 4]) -> String {
    let [day, rest @ ..] = scope;
    let to_sign =
        format!("AWS4-HMAC-SHA256\n{date}\n{}\n{}", scope.join("/"), hex(&sha256(canonical.as_bytes())));
    let mut key = hmac(format!("AWS4{secret}").as_bytes(), day.as_bytes());
    for part in rest.into_iter().chain([to_sign.as_str()]) {
        key = hmac(&key, part.as_bytes());
    }
    hex(&key)
}

fn canonical(request: &Request, names: &str, body: &str) -> String {
    let mut queries: Vec<(&str, &str)> = request.queries().collect();
    queries.sort_unstable();
    let queries: Vec<String> = queries.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let headers: String = names
        .split(';')
        .map(|name| format!("{name}:{}\n", request.header(name).unwrap_or_default()))
        .collect();
    format!("{}\n{}\n{}\n{headers}\n{names}\n{body}", request.method, request.path(), queries.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_that_of_the_standard() {
        // RFC 4231, test cases 2 and 6.
        let mac = hmac(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(hex(&mac), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        let mac = hmac(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First");
        assert_eq!(hex(&mac), "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    }

    #[test]
    fn a_signature_is_that_of_the_documentation() {
        // "GET Object" in "Signature Calculations for the Authorization Header" of the Amazon S3 API reference.
        let empty = hex(&sha256(b""));
        let headers = [
            ("host", "examplebucket.s3.amazonaws.com"),
            ("range", "bytes=0-9"),
            ("x-amz-content-sha256", &empty),
            ("x-amz-date", "20130524T000000Z"),
        ];
        let request = Request {
            method: "GET".to_owned(),
            target: "/test.txt".to_owned(),
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            body: Vec::new(),
        };
        let text = canonical(&request, "host;range;x-amz-content-sha256;x-amz-date", &empty);
        let scope = ["20130524", "us-east-1", "s3", "aws4_request"];
        let found = signature(&text, "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "20130524T000000Z", scope);
        assert_eq!(found, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
    }
}
