//! A bad line to a real service: an HTTP gateway on this host that passes requests on, and some of them not, or not whole.
//!
//! Which requests are hurt is counted, not drawn: every so many-th, with one kind of fault after the other. Each request has a
//! connection of its own, so that a fault hurts no other.

use std::io::{self, Read, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

/// What happens to a request that is hurt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hurt {
    /// It is answered with 503 `SlowDown`, and does not reach the service.
    Throttled,
    /// Its connection is reset before it reaches the service.
    Reset,
    /// The service does what it is asked; the connection is reset before its answer comes.
    AnswerLost,
    /// The answer ends within its body.
    Truncated,
    /// It is answered with 500, and does not reach the service.
    Broken,
}

const TURNS: [Hurt; 5] = [Hurt::Throttled, Hurt::Reset, Hurt::AnswerLost, Hurt::Truncated, Hurt::Broken];

#[derive(Debug, Default)]
struct Shared {
    /// One in so many is hurt; none where it is 0.
    every: AtomicU32,
    asked: AtomicU64,
    hurt: Mutex<Vec<Hurt>>,
    stop: AtomicBool,
}

/// The gateway. It takes no more connections when it is dropped.
#[derive(Debug)]
pub struct Gateway {
    port: u16,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Gateway {
    /// Listens on a port of the loopback address and passes requests on to that port of it.
    ///
    /// # Errors
    ///
    /// Where no port can be had.
    pub fn start(to: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            while !of_thread.stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((client, _)) => {
                        let shared = Arc::clone(&of_thread);
                        // A connection that breaks has broken: that is what this is for.
                        std::thread::spawn(move || drop(serve(client, to, &shared)));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        Ok(Self { port, shared, thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on one request in so many is hurt; none with 0.
    pub fn hurts(&self, every: u32) {
        self.shared.every.store(every, Ordering::SeqCst);
    }

    /// How many requests there have been.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// What has happened to requests so far.
    #[must_use]
    pub fn hurt(&self) -> Vec<Hurt> {
        self.shared.hurt.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the gateway does not panic");
        }
    }
}

impl Shared {
    /// What happens to the next request.
    fn next(&self) -> Option<Hurt> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let every = u64::from(self.every.load(Ordering::SeqCst));
        if every == 0 || !number.is_multiple_of(every) {
            return None;
        }
        let mut hurt = self.hurt.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = TURNS[hurt.len() % TURNS.len()];
        hurt.push(turn);
        Some(turn)
    }
}

fn serve(mut client: TcpStream, to: u16, shared: &Shared) -> io::Result<()> {
    // What is accepted may inherit that it does not block.
    client.set_nonblocking(false)?;
    let (head, mut body) = head(&mut client)?;
    if head.is_empty() {
        return Ok(());
    }
    let hurt = shared.next();
    match hurt {
        Some(Hurt::Reset) => return reset(&client),
        Some(Hurt::Throttled) => return refuse(client, &head, &body, "503 Slow Down", "SlowDown"),
        Some(Hurt::Broken) => {
            return refuse(client, &head, &body, "500 Internal Server Error", "InternalError");
        }
        Some(Hurt::AnswerLost | Hurt::Truncated) | None => {}
    }
    let mut service = TcpStream::connect((Ipv4Addr::LOCALHOST, to))?;
    service.write_all(&closing(&head))?;
    service.write_all(&body)?;
    let (mut more, mut there) = (client.try_clone()?, service.try_clone()?);
    // What is left of its body; the end of it is the end of the client's words, or of the connection.
    let pump = std::thread::spawn(move || drop(io::copy(&mut more, &mut there)));
    let passed = match hurt {
        Some(Hurt::AnswerLost) => io::copy(&mut service, &mut io::sink()).and_then(|_| reset(&client)),
        Some(Hurt::Truncated) => {
            body.clear();
            service.read_to_end(&mut body)?;
            let begins = body.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |at| at + 4);
            let kept = begins + (body.len() - begins) / 2;
            client.write_all(&body[..kept]).and_then(|()| reset(&client))
        }
        _ => io::copy(&mut service, &mut client).map(drop),
    };
    // Whoever is still being listened to is not any more. What is to be reset must not be closed in order before.
    drop(client.shutdown(if hurt.is_some() { Shutdown::Read } else { Shutdown::Both }));
    drop(service.shutdown(Shutdown::Both));
    pump.join().map_err(|_| io::Error::other("a thread has panicked"))?;
    passed
}

/// The head of a request, and what came of its body with it.
fn head(client: &mut TcpStream) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut read = Vec::new();
    let mut part = [0_u8; 8_192];
    loop {
        if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let body = read.split_off(at + 4);
            return Ok((read, body));
        }
        match client.read(&mut part)? {
            0 => return Ok((Vec::new(), Vec::new())),
            length => read.extend_from_slice(&part[..length]),
        }
        if read.len() > 1 << 16 {
            return Err(io::Error::other("the head of a request is too long"));
        }
    }
}

/// The head with the wish that the connection ends with the answer.
fn closing(head: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(head);
    let mut lines: Vec<&str> = text.trim_end().split("\r\n").collect();
    lines.retain(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    lines.push("Connection: close");
    format!("{}\r\n\r\n", lines.join("\r\n")).into_bytes()
}

/// Answers without asking the service; the body is read first, so that the answer is.
fn refuse(mut client: TcpStream, head: &[u8], body: &[u8], status: &str, code: &str) -> io::Result<()> {
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length = length.and_then(|length| length.trim().parse::<u64>().ok()).unwrap_or(0);
    let left = length.saturating_sub(body.len() as u64);
    io::copy(&mut Read::by_ref(&mut client).take(left), &mut io::sink())?;
    let words =
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>not now</Message></Error>");
    let words = if text.starts_with("head ") { String::new() } else { words };
    write!(
        client,
        "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{words}",
        words.len()
    )
}

/// Ends a connection as a machine does that has lost it.
fn reset(client: &TcpStream) -> io::Result<()> {
    set_socket_linger(client, Some(Duration::ZERO)).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service that says what it was sent, and counts.
    fn echo() -> (u16, Arc<AtomicU64>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (port, count) = (listener.local_addr().unwrap().port(), Arc::new(AtomicU64::new(0)));
        let served = Arc::clone(&count);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                let (head, mut body) = head(&mut client).unwrap();
                assert!(String::from_utf8_lossy(&head).contains("Connection: close"));
                while body.len() < 6 {
                    let mut part = [0_u8; 6];
                    let length = client.read(&mut part).unwrap();
                    body.extend_from_slice(&part[..length]);
                }
                served.fetch_add(1, Ordering::SeqCst);
                client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n").unwrap();
                client.write_all(&body).unwrap();
            }
        });
        (port, count)
    }

    fn ask(gateway: &Gateway) -> String {
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, gateway.port)).unwrap();
        client
            .write_all(b"PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nConnection: keep-alive\r\n\r\nab")
            .unwrap();
        client.write_all(b"cdef").unwrap();
        let mut bytes = Vec::new();
        match client.read_to_end(&mut bytes) {
            Ok(_) => String::from_utf8(bytes).unwrap(),
            Err(error) => format!("{}|{:?}", String::from_utf8_lossy(&bytes), error.kind()),
        }
    }

    #[test]
    fn one_in_so_many_is_hurt_and_the_rest_pass_whole() {
        let (port, served) = echo();
        let gateway = Gateway::start(port).unwrap();
        assert!(ask(&gateway).ends_with("\r\n\r\nabcdef"));
        gateway.hurts(2);
        let said: Vec<String> = (0..10).map(|_| ask(&gateway)).collect();
        for (n, said) in said.iter().enumerate() {
            let (expected, never) = match n {
                0 => ("503 Slow Down", "abcdef"),
                2 | 4 => ("ConnectionReset", "abcdef"),
                6 => ("\r\n\r\nabc", "abcdef"),
                8 => ("500 Internal", "abcdef"),
                _ => ("\r\n\r\nabcdef", "Reset"),
            };
            assert!(said.contains(expected) && !said.contains(never), "{n}: {said:?}");
        }
        assert_eq!((gateway.hurt(), gateway.asked()), (TURNS.to_vec(), 11));
        assert_eq!(served.load(Ordering::SeqCst), 11 - 3, "three never reached it");
    }
}
