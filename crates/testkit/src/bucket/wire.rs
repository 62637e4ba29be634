//! HTTP/1.1, as much of it as a client of an object store speaks.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Operation, PATIENCE};

/// A request, whole.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    /// Path and query as they were sent.
    pub(super) target: String,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// What is said to it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    pub(super) fn xml(text: &str) -> Self {
        let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>{text}").into_bytes();
        Self { status: 200, headers: vec![("Content-Type".to_owned(), "application/xml".to_owned())], body }
    }

    pub(super) fn error(status: u16, code: &str) -> Self {
        let text = format!("<Error><Code>{code}</Code><Message>The test says {code}.</Message></Error>");
        Self { status, ..Self::xml(&text) }
    }

    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// Names and values of the query, as they were sent.
    pub(super) fn queries(&self) -> impl Iterator<Item = (&str, &str)> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    pub(super) fn has_query(&self, name: &str) -> bool {
        self.queries().any(|(known, _)| known == name)
    }

    pub(super) fn query(&self, name: &str) -> Option<String> {
        self.queries().find(|(known, _)| *known == name).map(|(_, value)| decoded(value))
    }

    pub(super) fn bucket_and_key(&self) -> (String, String) {
        let path = decoded(self.path());
        let path = path.trim_start_matches('/');
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        (bucket.to_owned(), key.to_owned())
    }

    pub(super) fn operation(&self) -> Operation {
        let (_, key) = self.bucket_and_key();
        match self.method.as_str() {
            "HEAD" => Operation::Head,
            "GET" if key.is_empty() => Operation::List,
            "GET" => Operation::Get,
            "POST" => Operation::Multipart,
            "DELETE" if self.has_query("uploadId") => Operation::Multipart,
            "DELETE" => Operation::Delete,
            _ => Operation::Put,
        }
    }

    /// The part that is asked for: none, one that there is, or one that there is not.
    pub(super) fn range(&self, whole: usize) -> Option<Option<Range<usize>>> {
        let (from, to) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        let from: usize = from.parse().ok()?;
        let to = to.parse().map_or(whole, |last: usize| (last + 1).min(whole));
        Some((from < to).then_some(from..to))
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex =
            after.get(..2).and_then(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A body that was sent in signed chunks, whose signatures are not looked at.
fn unchunked(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&body[..end]).ok()?.split(';').next()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(body.get(end + 2..end + 2 + size)?);
        body = body.get(end + 4 + size..)?;
    }
}

pub(super) struct Wire {
    input: BufReader<TcpStream>,
    output: TcpStream,
}

impl Wire {
    pub(super) fn new(connection: TcpStream) -> io::Result<Self> {
        Ok(Self { output: connection.try_clone()?, input: BufReader::new(connection) })
    }

    /// The next request; `None` when the client has closed.
    pub(super) fn read(&mut self) -> io::Result<Option<Request>> {
        let mut line = String::new();
        if self.input.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let (Some(method), Some(target)) = (words.next(), words.next()) else {
            return Err(io::Error::other("no request line"));
        };
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            self.input.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut request = Request { method, target, headers, body: Vec::new() };
        if request.header("expect").is_some() {
            self.output.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        request.body.resize(length, 0);
        self.input.read_exact(&mut request.body)?;
        if request.header("x-amz-content-sha256").is_some_and(|hash| hash.starts_with("STREAMING-")) {
            request.body = unchunked(&request.body).ok_or_else(|| io::Error::other("no chunks"))?;
        }
        Ok(Some(request))
    }

    pub(super) fn write(&mut self, request: &Request, answer: &Answer) -> io::Result<()> {
        self.write_part(request, answer, usize::MAX)
    }

    /// The whole head, and so many bytes of the body.
    pub(super) fn write_part(&mut self, request: &Request, answer: &Answer, length: usize) -> io::Result<()> {
        let mut head = format!("HTTP/1.1 {} X\r\nContent-Length: {}\r\n", answer.status, answer.body.len());
        for (name, value) in &answer.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.output.write_all(head.as_bytes())?;
        if request.method != "HEAD" {
            self.output.write_all(&answer.body[..length.min(answer.body.len())])?;
        }
        self.output.flush()
    }

    /// Keeps the connection and says nothing, until the service ends or its patience does.
    pub(super) fn silence(&mut self, stop: &AtomicBool) {
        let began = Instant::now();
        while !stop.load(Ordering::Relaxed) && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
