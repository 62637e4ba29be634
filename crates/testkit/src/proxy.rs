//! A network that fails: a TCP proxy on this host in front of a Unix socket, with one fault at one byte.
//!
//! What the server says is counted over all connections; when the fault's byte is reached it happens once, and for ever after
//! where its nature is so. The client's own words pass unharmed: what is asked is what a client makes of a broken answer.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// What happens to what a server says. Bytes are counted from the last [`FaultProxy::set`], over all connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Every piece comes later.
    Latency(Duration),
    /// No more than so many bytes a second.
    Rate(u64),
    /// The connection is closed in order, after so many bytes.
    Cut(u64),
    /// The connection is reset, after so many bytes.
    Reset(u64),
    /// Nothing comes any more on any connection, after so many bytes, and none is closed.
    BlackHole(u64),
    /// One bit of this byte is another.
    Corrupt(u64),
}

#[derive(Debug)]
struct Shared {
    fault: Mutex<Fault>,
    said: AtomicU64,
    happened: AtomicBool,
    stop: AtomicBool,
}

impl Shared {
    fn fault(&self) -> Fault {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The proxy. Its connections end when it is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    port: u16,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// How long a thread waits before it looks whether it should end.
const TICK: Duration = Duration::from_millis(20);

impl FaultProxy {
    /// Listens on a port of the loopback address and passes everything on to the socket at `to`.
    pub fn start(to: &Path) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            fault: Mutex::new(Fault::None),
            said: AtomicU64::new(0),
            happened: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let (to, of_thread) = (to.to_owned(), Arc::clone(&shared));
        let thread = std::thread::spawn(move || {
            while !of_thread.stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((client, _)) => {
                        let (to, shared) = (to.clone(), Arc::clone(&of_thread));
                        // A connection that breaks has broken: that is what this is for.
                        std::thread::spawn(move || drop(serve(&client, &to, &shared)));
                    }
                    Err(_) => std::thread::sleep(TICK),
                }
            }
        });
        Ok(Self { port, shared, thread: Some(thread) })
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on this happens; counts from zero.
    pub fn set(&self, fault: Fault) {
        *self.shared.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
        self.shared.said.store(0, Ordering::SeqCst);
        self.shared.happened.store(false, Ordering::SeqCst);
    }

    /// Bytes that the server has said since.
    #[must_use]
    pub fn said(&self) -> u64 {
        self.shared.said.load(Ordering::SeqCst)
    }

    /// Whether the fault has happened.
    #[must_use]
    pub fn happened(&self) -> bool {
        self.shared.happened.load(Ordering::SeqCst)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the proxy does not panic");
        }
    }
}

fn serve(client: &TcpStream, to: &Path, shared: &Arc<Shared>) -> io::Result<()> {
    // What is accepted may inherit that it does not block.
    client.set_nonblocking(false)?;
    let server = UnixStream::connect(to)?;
    let (mut asks, mut hears) = (client.try_clone()?, server.try_clone()?);
    let asking = std::thread::spawn(move || {
        let copied = io::copy(&mut asks, &mut hears);
        // The end of the client's words is passed on, and so is its death.
        drop(hears.shutdown(Shutdown::Write));
        copied.map(drop)
    });
    let answered = answer(client, &server, shared);
    // A shutdown for writing would end the connection in order, where a reset was to be sent.
    let is_reset = matches!(shared.fault(), Fault::Reset(_)) && shared.happened.load(Ordering::SeqCst);
    drop(client.shutdown(if is_reset { Shutdown::Read } else { Shutdown::Both }));
    drop(server.shutdown(Shutdown::Both));
    drop(asking.join());
    answered
}

fn answer(mut client: &TcpStream, mut server: &UnixStream, shared: &Shared) -> io::Result<()> {
    server.set_read_timeout(Some(TICK))?;
    let mut buffer = vec![0; 16 << 10];
    loop {
        if shared.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let count = match server.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                continue;
            }
            Err(error) => return Err(error),
        };
        let begin = shared.said.fetch_add(count as u64, Ordering::SeqCst);
        let end = begin + count as u64;
        let words = &mut buffer[..count];
        match shared.fault() {
            Fault::None => {}
            Fault::Latency(latency) => std::thread::sleep(latency),
            Fault::Rate(rate) => {
                std::thread::sleep(Duration::from_secs_f64(count as f64 / rate.max(1) as f64));
            }
            Fault::Corrupt(at) => {
                if (begin..end).contains(&at) && !shared.happened.swap(true, Ordering::SeqCst) {
                    words[(at - begin) as usize] ^= 1;
                }
            }
            Fault::Cut(at) if end > at => {
                shared.happened.store(true, Ordering::SeqCst);
                client.write_all(&words[..at.saturating_sub(begin) as usize])?;
                return Ok(());
            }
            Fault::Reset(at) if end > at => {
                shared.happened.store(true, Ordering::SeqCst);
                client.write_all(&words[..at.saturating_sub(begin) as usize])?;
                // With nothing to linger for, closing sends a reset.
                return rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO))
                    .map_err(Into::into);
            }
            Fault::BlackHole(at) if end > at => {
                shared.happened.store(true, Ordering::SeqCst);
                while matches!(shared.fault(), Fault::BlackHole(_)) && !shared.stop.load(Ordering::Relaxed) {
                    std::thread::sleep(TICK);
                }
                return Ok(());
            }
            Fault::Cut(_) | Fault::Reset(_) | Fault::BlackHole(_) => {}
        }
        client.write_all(words)?;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// What a client hears of `0123456789` behind a fault, and whether it heard a proper end.
    fn heard(fault: Fault) -> (Vec<u8>, io::Result<usize>) {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let proxy = FaultProxy::start(&path).unwrap();
        proxy.set(fault);
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"0123456789").unwrap();
        });
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut words = Vec::new();
        let ended = client.read_to_end(&mut words);
        server.join().unwrap();
        assert_eq!(
            proxy.happened(),
            !matches!(fault, Fault::None | Fault::Rate(_) | Fault::Latency(_)),
            "{fault:?}"
        );
        (words, ended)
    }

    #[test]
    fn each_fault_is_what_it_says() {
        assert_eq!(heard(Fault::None).0, b"0123456789");
        assert_eq!(heard(Fault::Latency(Duration::from_millis(5))).0, b"0123456789");
        assert_eq!(heard(Fault::Rate(1_000)).0, b"0123456789");
        assert_eq!(heard(Fault::Corrupt(3)).0, b"0122456789");
        let (words, ended) = heard(Fault::Cut(4));
        assert!(words == b"0123" && ended.is_ok());
        let (_, ended) = heard(Fault::Reset(4));
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let (words, ended) = heard(Fault::BlackHole(4));
        assert!(words.is_empty() && ended.is_err(), "nothing comes, and no end");
    }
}
