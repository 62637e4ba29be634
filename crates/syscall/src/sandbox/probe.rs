//! The attempt to break out: what a hostile program would try, tried on purpose, with the result said aloud.
//!
//! The caller proves at the same time and from outside that each target *can* be reached, so that a refusal inside means
//! isolation and not a dead target.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use super::identity::Privileges;
use super::{STATUS_FAILED, identity};

/// What to try to reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Targets {
    /// Stream addresses to connect to.
    pub tcp: Vec<SocketAddr>,
    /// Datagram addresses to send to.
    pub udp: Vec<SocketAddr>,
    /// Names of abstract Unix sockets to connect to.
    pub unix_abstract: Vec<String>,
    /// Unix sockets in the file system to connect to.
    pub unix: Vec<PathBuf>,
    /// Files to read.
    pub files: Vec<PathBuf>,
    /// Process to signal and to read the environment of, with its start time in clock ticks.
    pub process: (u32, u64),
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It was refused at once, with this error.
    Refused(String),
    /// It got through.
    Reached,
    /// It was neither refused nor answered: something was sent somewhere, so it counts as out.
    Unanswered(String),
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// What was tried.
    pub what: String,
    /// How it ended.
    pub outcome: Outcome,
}

/// The network as a process sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Interfaces besides the loopback.
    pub interfaces: Vec<String>,
    /// Routes, and addresses in use.
    pub routes: Vec<String>,
}

impl Network {
    /// Reads it from the kernel.
    pub fn read() -> io::Result<Self> {
        let devices = fs::read_to_string("/proc/self/net/dev")?;
        let interfaces =
            devices.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
        let mut routes = Vec::new();
        let table = fs::read_to_string("/proc/self/net/route")?;
        routes.extend(table.lines().skip(1).map(|line| line.trim().to_owned()));
        for file in ["ipv6_route", "if_inet6"] {
            match fs::read_to_string(format!("/proc/self/net/{file}")) {
                // The kernel's own entries that lead nowhere are those of `lo`, present even while it is down.
                Ok(text) => routes.extend(
                    text.lines().map(str::trim).filter(|line| !line.ends_with(" lo")).map(ToOwned::to_owned),
                ),
                // A kernel without IPv6.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { interfaces: interfaces.filter(|name| name != "lo").collect(), routes })
    }

    /// What there is that should not be.
    #[must_use]
    pub fn excess(&self) -> Vec<String> {
        // Tunnel drivers that are built in put a dead device into every namespace; without a route it reaches nothing, and
        // the attempts to connect show that.
        const FALLBACK: &[&str] =
            &["tunl0", "sit0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "ip6tnl0", "ip6gre0"];
        let extra = self.interfaces.iter().filter(|name| !FALLBACK.contains(&name.as_str()));
        let mut found: Vec<_> = extra.map(|name| format!("network interface {name}")).collect();
        found.extend(self.routes.iter().map(|route| format!("route {route}")));
        found
    }
}

/// All that the probe found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What was tried, and how it ended.
    pub attempts: Vec<Attempt>,
    /// The network.
    pub network: Network,
    /// Privileges of a program started here.
    pub privileges: Privileges,
    /// Descriptors open besides the standard three.
    pub descriptors: u32,
    /// Names of environment variables that were not asked for.
    pub environment: Vec<String>,
    /// Limits as the kernel shows them: name, soft limit, unit.
    pub limits: Vec<String>,
}

pub(super) fn main(targets: Option<&OsStr>) -> ExitCode {
    let attempt = || -> io::Result<()> {
        let targets = targets.and_then(OsStr::to_str).ok_or_else(|| io::Error::other("no targets"))?;
        let report = report(&serde_json::from_str(targets)?)?;
        io::stdout().write_all(&serde_json::to_vec(&report)?)
    };
    match attempt() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Its absence from standard output is what counts.
            drop(writeln!(io::stderr(), "probe: {error}"));
            ExitCode::from(STATUS_FAILED)
        }
    }
}

/// Tries everything in `targets` from where this process stands.
pub fn report(targets: &Targets) -> io::Result<Report> {
    // Before anything is opened here.
    let descriptors = open_descriptors()?;
    let mut attempts = Vec::new();
    let mut note = |what: String, outcome: Outcome| attempts.push(Attempt { what, outcome });
    for address in &targets.tcp {
        note(format!("tcp {address}"), outcome(TcpStream::connect_timeout(address, Duration::from_secs(2))));
    }
    for address in &targets.udp {
        let local: SocketAddr =
            if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        let sent = UdpSocket::bind(local).and_then(|socket| socket.send_to(b"seaworthy", address));
        note(format!("udp {address}"), outcome(sent));
    }
    for name in &targets.unix_abstract {
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name);
        let reached = address.and_then(|address| UnixStream::connect_addr(&address));
        note(format!("abstract unix socket {name}"), outcome(reached));
    }
    for path in &targets.unix {
        note(format!("unix socket {}", path.display()), outcome(UnixStream::connect(path)));
    }
    for path in &targets.files {
        note(format!("read {}", path.display()), outcome(fs::read(path)));
    }
    // Not separated by a network namespace: it leads to the hypervisor and its other guests.
    let vsock = rustix::net::socket(rustix::net::AddressFamily::VSOCK, rustix::net::SocketType::STREAM, None);
    note("vsock".to_owned(), outcome(vsock.map_err(io::Error::from)));
    let namespace = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER);
    note("new user namespace".to_owned(), outcome(namespace.map_err(io::Error::from)));
    let caller = foreign_process(targets.process);
    note(format!("see process {}, the caller, its environment and files", targets.process.0), caller);
    Ok(Report {
        attempts,
        network: Network::read()?,
        privileges: identity::read_privileges()?,
        descriptors,
        environment: std::env::vars_os().map(|(key, _)| key.to_string_lossy().into_owned()).collect(),
        limits: limits()?,
    })
}

fn outcome<T>(result: io::Result<T>) -> Outcome {
    match result {
        Ok(_) => Outcome::Reached,
        Err(error) if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => {
            Outcome::Unanswered(error.to_string())
        }
        Err(error) => Outcome::Refused(error.to_string()),
    }
}

/// Whoever sees a process of its own user in `/proc` can read its environment and open its files there, and signal it.
/// The caller's number may belong to another process in here; only one with its start time is the caller.
fn foreign_process((pid, start_ticks): (u32, u64)) -> Outcome {
    match start_time(pid) {
        Ok(found) if found == start_ticks => Outcome::Reached,
        Ok(_) => Outcome::Refused("the number belongs to another process here".into()),
        Err(error) => Outcome::Refused(error.to_string()),
    }
}

/// When process `pid` started, in clock ticks since the machine did.
pub fn start_time(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name is in parentheses and may hold spaces and parentheses; the 20th field after it is field 22.
    let rest = text.rsplit_once(')').map(|(_, rest)| rest);
    rest.and_then(|rest| rest.split_whitespace().nth(19))
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is unreadable")))
}

fn open_descriptors() -> io::Result<u32> {
    let mut count: u32 = 0;
    for entry in fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        if name.to_str().and_then(|name| name.parse::<u32>().ok()).is_none_or(|number| number > 2) {
            count += 1;
        }
    }
    // One of them is the listing's own.
    Ok(count.saturating_sub(1))
}

fn limits() -> io::Result<Vec<String>> {
    let text = fs::read_to_string("/proc/self/limits")?;
    let shown = [
        "Max core file size",
        "Max open files",
        "Max processes",
        "Max file size",
        "Max address space",
        "Max cpu time",
    ];
    let mut lines = Vec::new();
    for name in shown {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|line| line.split_whitespace().next());
        let value =
            value.ok_or_else(|| io::Error::other(format!("/proc/self/limits does not show {name}")))?;
        lines.push(format!("{}: {value}", name.trim_start_matches("Max ")));
    }
    Ok(lines)
}
