//! An object store of our own making, which fails on request: it speaks S3 and, as far as a repository needs it, the XML
//! interface of Google Cloud Storage. It checks signatures, dates, regions and rights, which the emulators do not.
//!
//! Everything is in memory; every connection has a thread. What is asked of it is written down, so that a test can say how
//! often something was tried.

mod sign;
mod wire;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

pub(crate) use sign::hmac;
use wire::{Answer, Request};

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Create or replace an object, or a part of one.
    Put,
    /// Read one, or a part of one.
    Get,
    /// Look at one.
    Head,
    /// Page through names.
    List,
    /// Remove one.
    Delete,
    /// Begin or end an upload of parts.
    Multipart,
}

/// What goes wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// It is answered with this status and code, and not carried out.
    Refused(u16, &'static str),
    /// It is answered with success, and a body that says otherwise; not carried out.
    ErrorInSuccess(&'static str),
    /// The connection breaks before it is carried out.
    Broken,
    /// It is carried out, and the connection breaks before the answer.
    AnswerLost,
    /// It is answered with success and not carried out.
    Forgotten,
    /// It is carried out with one bit of the body changed, and whatever is told of its digest later is that of the right one.
    Damaged(usize),
    /// The answer's body ends after so many bytes, and the connection with it.
    Truncated(usize),
    /// One bit of the answer's body is another.
    Corrupt(usize),
    /// The answer comes so much later.
    Late(Duration),
    /// Nothing comes, and nothing is closed.
    Silent,
    /// A page of names lacks the last so many, and does not say so.
    Partial(usize),
}

/// Which requests go wrong, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Of which kind.
    pub operation: Operation,
    /// Only those whose key contains this.
    pub key: &'static str,
    /// How many of them pass first.
    pub after: u32,
    /// How many of them then go wrong; `u32::MAX` is for ever.
    pub times: u32,
    /// How.
    pub wrong: Wrong,
}

impl Plan {
    /// The first `times` of an operation go wrong.
    #[must_use]
    pub fn first(times: u32, operation: Operation, wrong: Wrong) -> Self {
        Self { operation, key: "", after: 0, times, wrong }
    }

    /// Every one of them.
    #[must_use]
    pub fn every(operation: Operation, wrong: Wrong) -> Self {
        Self::first(u32::MAX, operation, wrong)
    }
}

/// What is told of the SHA-256 of an object that is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksums {
    /// What the sender had said and was compared with what came, as S3 does it; of an upload in parts one of parts.
    Told,
    /// Nothing: much that speaks like S3.
    Untold,
    /// Another one.
    Wrong,
    /// Who asks for one is refused, as where the key of an encryption may not be used to read.
    Denied,
}

/// A request at which everything stands still: see [`Bucket::hold`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Before the request that changes something is carried out.
    Before,
    /// When it has been carried out, and before its answer.
    Behind,
}

/// How the service is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The region that requests must be signed for.
    pub region: String,
    /// Access keys and their secrets; none: nobody is asked who he is.
    pub keys: BTreeMap<String, String>,
    /// Sessions that have ended, by their tokens.
    pub expired_tokens: Vec<String>,
    /// How far its clock is ahead of ours.
    pub clock_ahead: Duration,
    /// Bytes that it holds at most.
    pub quota: u64,
    /// Whether an object can be removed or replaced, locks apart.
    pub may_delete: bool,
    /// Names on a page.
    pub page: usize,
    /// What is told of digests.
    pub checksums: Checksums,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            region: "us-east-1".to_owned(),
            keys: BTreeMap::new(),
            expired_tokens: Vec::new(),
            clock_ahead: Duration::ZERO,
            quota: u64::MAX,
            may_delete: true,
            page: 1000,
            checksums: Checksums::Told,
        }
    }
}

/// A stored object, as an administrator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The class it is stored in.
    pub class: Option<String>,
    /// What it is encrypted with.
    pub encryption: Option<String>,
    /// What is told of its SHA-256.
    pub checksum: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    settings: Settings,
    buckets: BTreeMap<String, BTreeMap<String, Object>>,
    uploads: BTreeMap<String, BTreeMap<u32, Vec<u8>>>,
    plans: Vec<Plan>,
    asked: BTreeMap<Operation, u64>,
    next_upload: u64,
    // The moment, and how many requests that change something pass before it.
    hold: Option<(Hold, u32)>,
    is_held: bool,
}

/// The service. Its connections end when it is dropped.
#[derive(Debug)]
pub struct Bucket {
    port: u16,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Bucket {
    /// Listens on a port of the loopback address, with an empty bucket of this name.
    pub fn new(bucket: &str, settings: Settings) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let state = State {
            settings,
            buckets: BTreeMap::from([(bucket.to_owned(), BTreeMap::new())]),
            ..State::default()
        };
        let (state, stop) = (Arc::new(Mutex::new(state)), Arc::new(AtomicBool::new(false)));
        let (shared, until) = (Arc::clone(&state), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for connection in listener.incoming() {
                if until.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(connection) = connection else { continue };
                let (shared, until) = (Arc::clone(&shared), Arc::clone(&until));
                std::thread::spawn(move || serve(connection, &shared, &until));
            }
        });
        Ok(Self { port, state, stop, thread: Some(thread) })
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on requests go wrong so, counted anew.
    pub fn plan(&self, plans: Vec<Plan>) {
        self.state().plans = plans;
    }

    /// Changes how the service is set up.
    pub fn set(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.state().settings);
    }

    /// Lets this many requests that change something pass. The next one is never answered, and neither is any other after it:
    /// whoever asks can be killed there. `None` ends that.
    pub fn hold(&self, hold: Option<(Hold, u32)>) {
        let mut state = self.state();
        (state.hold, state.is_held) = (hold, false);
    }

    /// Whether everything stands still.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.state().is_held
    }

    /// How often something was asked, since the beginning.
    #[must_use]
    pub fn asked(&self, operation: Operation) -> u64 {
        self.state().asked.get(&operation).copied().unwrap_or(0)
    }

    /// Every object of a bucket, past all rights: for a test that plays the administrator, or the disaster.
    #[must_use]
    pub fn objects(&self, bucket: &str) -> BTreeMap<String, Object> {
        self.state().buckets.get(bucket).cloned().unwrap_or_default()
    }

    /// Changes the objects of a bucket, past all rights; `None` removes the bucket.
    pub fn change(&self, bucket: &str, change: impl FnOnce(&mut BTreeMap<String, Object>)) {
        change(self.state().buckets.entry(bucket.to_owned()).or_default());
    }

    /// Removes a bucket with all that is in it.
    pub fn remove(&self, bucket: &str) {
        self.state().buckets.remove(bucket);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the listener, which then sees that it should end.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Longest that a connection is kept waiting for the next request, and that silence lasts.
const PATIENCE: Duration = Duration::from_secs(120);

fn serve(connection: TcpStream, state: &Mutex<State>, stop: &AtomicBool) {
    connection.set_nodelay(true).ok();
    connection.set_read_timeout(Some(PATIENCE)).ok();
    let Ok(mut wire) = wire::Wire::new(connection) else { return };
    while !stop.load(Ordering::Relaxed) {
        let Ok(Some(request)) = wire.read() else { return };
        let (operation, wrong, held) = {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let operation = request.operation();
            *state.asked.entry(operation).or_default() += 1;
            (operation, state.goes_wrong(operation, &request), state.is_to_be_held(operation))
        };
        let answer = |keeps: bool| {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.answer(operation, &request, keeps, &wrong)
        };
        if let Some(hold) = held {
            if hold == Hold::Behind {
                answer(true);
            }
            state.lock().unwrap_or_else(PoisonError::into_inner).is_held = true;
            wire.silence(stop);
            return;
        }
        let sent = match &wrong {
            Some(Wrong::Refused(status, code)) => wire.write(&request, &Answer::error(*status, code)),
            Some(Wrong::ErrorInSuccess(code)) => {
                wire.write(&request, &Answer { status: 200, ..Answer::error(200, code) })
            }
            Some(Wrong::Broken) => return,
            Some(Wrong::AnswerLost) => {
                answer(true);
                return;
            }
            Some(Wrong::Forgotten) => wire.write(&request, &answer(false)),
            Some(Wrong::Truncated(length)) => {
                wire.write_part(&request, &answer(true), *length).ok();
                return;
            }
            Some(Wrong::Corrupt(position)) => {
                let mut answer = answer(true);
                if !answer.body.is_empty() {
                    let position = *position % answer.body.len();
                    answer.body[position] ^= 1;
                }
                wire.write(&request, &answer)
            }
            Some(Wrong::Late(time)) => {
                std::thread::sleep(*time);
                wire.write(&request, &answer(true))
            }
            Some(Wrong::Silent) => {
                wire.silence(stop);
                return;
            }
            Some(Wrong::Partial(_) | Wrong::Damaged(_)) | None => wire.write(&request, &answer(true)),
        };
        if sent.is_err() {
            return;
        }
    }
}

impl State {
    /// Whether this request is the one at which everything stands still, or comes after it.
    fn is_to_be_held(&mut self, operation: Operation) -> Option<Hold> {
        let (hold, left) = self.hold.as_mut()?;
        if self.is_held {
            return Some(Hold::Before);
        }
        if !matches!(operation, Operation::Put | Operation::Delete | Operation::Multipart) {
            return None;
        }
        if *left > 0 {
            *left -= 1;
            return None;
        }
        Some(*hold)
    }

    fn goes_wrong(&mut self, operation: Operation, request: &Request) -> Option<Wrong> {
        let plan = self.plans.iter_mut().find(|plan| {
            plan.operation == operation && plan.times > 0 && request.target.contains(plan.key)
        })?;
        if plan.after > 0 {
            plan.after -= 1;
            return None;
        }
        if plan.times != u32::MAX {
            plan.times -= 1;
        }
        Some(plan.wrong.clone())
    }

    fn answer(
        &mut self,
        operation: Operation,
        request: &Request,
        keeps: bool,
        wrong: &Option<Wrong>,
    ) -> Answer {
        if let Err((status, code)) = sign::check(request, &self.settings) {
            return Answer::error(status, code);
        }
        let (bucket, key) = request.bucket_and_key();
        if !self.buckets.contains_key(&bucket) {
            return Answer::error(404, "NoSuchBucket");
        }
        let held: u64 =
            self.buckets.values().flat_map(BTreeMap::values).map(|object| object.bytes.len() as u64).sum();
        if operation == Operation::Put && held + request.body.len() as u64 > self.settings.quota {
            return Answer::error(403, "QuotaExceeded");
        }
        let may_delete = self.settings.may_delete;
        let page = self.settings.page;
        let checksums = self.settings.checksums;
        match operation {
            Operation::Multipart => self.multipart(request, &bucket, &key),
            Operation::Put if request.query("uploadId").is_some() => self.part(request),
            _ => {
                let objects = self.buckets.entry(bucket).or_default();
                match operation {
                    Operation::Put => {
                        let answer = put(objects, request, &key, keeps, may_delete);
                        if let (Some(Wrong::Damaged(position)), Some(object)) = (wrong, objects.get_mut(&key))
                            && !object.bytes.is_empty()
                        {
                            let position = *position % object.bytes.len();
                            object.bytes[position] ^= 1;
                        }
                        answer
                    }
                    Operation::Get | Operation::Head => {
                        let is_asked = request.header("x-amz-checksum-mode") == Some("ENABLED");
                        if is_asked && checksums == Checksums::Denied {
                            return Answer::error(403, "AccessDenied");
                        }
                        let answer = get(objects, request, &key);
                        let told = objects.get(&key).and_then(|object| object.checksum.clone());
                        match (is_asked.then_some(told).flatten(), checksums) {
                            (Some(told), Checksums::Told) => answer.with("x-amz-checksum-sha256", &told),
                            (Some(_), Checksums::Wrong) => {
                                answer.with("x-amz-checksum-sha256", &BASE64.encode(sign::sha256(b"other")))
                            }
                            (_, Checksums::Untold | Checksums::Denied) | (None, _) => answer,
                        }
                    }
                    Operation::List => {
                        let lacks = if let Some(Wrong::Partial(lacks)) = wrong { *lacks } else { 0 };
                        list(objects, request, page, lacks)
                    }
                    Operation::Delete if !may_delete => Answer::error(403, "AccessDenied"),
                    Operation::Delete => {
                        if keeps {
                            objects.remove(&key);
                        }
                        Answer::empty(204)
                    }
                    Operation::Multipart => Answer::error(500, "InternalError"),
                }
            }
        }
    }

    fn part(&mut self, request: &Request) -> Answer {
        let id = request.query("uploadId").unwrap_or_default();
        let number = request.query("partNumber").and_then(|number| number.parse().ok()).unwrap_or(0);
        match self.uploads.get_mut(&id) {
            Some(parts) => {
                parts.insert(number, request.body.clone());
                Answer::empty(200).with("ETag", &etag(&request.body))
            }
            None => Answer::error(404, "NoSuchUpload"),
        }
    }

    fn multipart(&mut self, request: &Request, bucket: &str, key: &str) -> Answer {
        if request.has_query("uploads") {
            self.next_upload += 1;
            let id = format!("upload-{}", self.next_upload);
            self.uploads.insert(id.clone(), BTreeMap::new());
            return Answer::xml(&format!(
                "<InitiateMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{key}</Key><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
            ));
        }
        let Some(parts) = self.uploads.remove(&request.query("uploadId").unwrap_or_default()) else {
            return Answer::error(404, "NoSuchUpload");
        };
        if request.method == "DELETE" {
            return Answer::empty(204);
        }
        let count = parts.len();
        let bytes: Vec<u8> = parts.into_values().flatten().collect();
        let checksum = Some(format!("{}-{count}", BASE64.encode(sign::sha256(&bytes))));
        let tag = etag(&bytes);
        let objects = self.buckets.entry(bucket.to_owned()).or_default();
        objects.insert(key.to_owned(), Object { bytes, class: None, encryption: None, checksum });
        Answer::xml(&format!(
            "<CompleteMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{key}</Key><ETag>{tag}</ETag></CompleteMultipartUploadResult>"
        ))
        .with("x-goog-generation", "1")
    }
}

/// Longer than an MD5, which clients would take it for and compare.
fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", &sign::hex(&sign::sha256(bytes))[..40])
}

fn put(
    objects: &mut BTreeMap<String, Object>,
    request: &Request,
    key: &str,
    keeps: bool,
    may_replace: bool,
) -> Answer {
    let only_new = request.header("if-none-match") == Some("*")
        || request.header("x-goog-if-generation-match") == Some("0");
    if objects.contains_key(key) && only_new {
        return Answer::error(412, "PreconditionFailed");
    }
    if objects.contains_key(key) && !may_replace {
        return Answer::error(403, "AccessDenied");
    }
    let header = |names: [&str; 2]| names.iter().find_map(|name| request.header(name)).map(str::to_owned);
    let checksum = request.header("x-amz-checksum-sha256").map(str::to_owned);
    if checksum.as_ref().is_some_and(|told| *told != BASE64.encode(sign::sha256(&request.body))) {
        return Answer::error(400, "BadDigest");
    }
    let object = Object {
        checksum,
        bytes: request.body.clone(),
        class: header(["x-amz-storage-class", "x-goog-storage-class"]),
        encryption: header(["x-amz-server-side-encryption", "x-goog-encryption-algorithm"]),
    };
    let tag = etag(&object.bytes);
    if keeps {
        objects.insert(key.to_owned(), object);
    }
    Answer::empty(200).with("ETag", &tag).with("x-goog-generation", "1")
}

fn get(objects: &BTreeMap<String, Object>, request: &Request, key: &str) -> Answer {
    let Some(object) = objects.get(key) else { return Answer::error(404, "NoSuchKey") };
    let whole = object.bytes.len();
    let answer = |status, body: &[u8]| {
        Answer { status, body: body.to_vec(), headers: Vec::new() }
            .with("ETag", &etag(&object.bytes))
            .with("Last-Modified", "Sun, 29 Nov 2026 00:00:00 GMT")
            .with("x-goog-generation", "1")
    };
    match request.range(whole) {
        None => answer(200, &object.bytes),
        Some(Some(range)) => {
            let shown = format!("bytes {}-{}/{whole}", range.start, range.end - 1);
            answer(206, &object.bytes[range]).with("Content-Range", &shown)
        }
        Some(None) => Answer::error(416, "InvalidRange"),
    }
}

fn list(objects: &BTreeMap<String, Object>, request: &Request, page: usize, lacks: usize) -> Answer {
    let prefix = request.query("prefix").unwrap_or_default();
    let after =
        request.query("continuation-token").or_else(|| request.query("start-after")).unwrap_or_default();
    let named: Vec<(&String, &Object)> =
        objects.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > after).collect();
    let shown = &named[..page.min(named.len())];
    let is_truncated = shown.len() < named.len();
    let shown = &shown[..shown.len() - lacks.min(shown.len())];
    let mut text = format!("<ListBucketResult><Prefix>{prefix}</Prefix><KeyCount>{}</KeyCount>", shown.len());
    for (key, object) in shown {
        text.push_str(&format!(
            "<Contents><Key>{key}</Key><LastModified>2026-11-29T00:00:00.000Z</LastModified><ETag>{}</ETag><Size>{}</Size></Contents>",
            etag(&object.bytes),
            object.bytes.len()
        ));
    }
    text.push_str(&format!("<IsTruncated>{is_truncated}</IsTruncated>"));
    if let (true, Some((last, _))) = (is_truncated, named.get(page.saturating_sub(1))) {
        text.push_str(&format!("<NextContinuationToken>{last}</NextContinuationToken>"));
    }
    text.push_str("</ListBucketResult>");
    Answer::xml(&text)
}
