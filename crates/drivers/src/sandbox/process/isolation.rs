//! The proof of isolation: what can be reached from outside must be out of reach inside.
//!
//! Every target is shown to answer before and after the attempt (the positive control), so that "refused" cannot mean
//! "nobody was there". The judgement itself is pure.

use std::fs;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use seaworthy_interface::cx::Cx;
use seaworthy_interface::error::{DriverError, ErrorKind};
use seaworthy_interface::sandbox::{Exec, SandboxFacts};
use seaworthy_model::finding::FindingCode;
use seaworthy_syscall::sandbox::probe::{Outcome, Report, Targets, start_time};
use seaworthy_syscall::sandbox::{Mode, VERB_PROBE};

use super::running::Keep;
use super::{KILL_PATIENCE, ProcessSandbox, blocking};

/// Longest time for one proof: starting a process twice and some attempts that fail at once.
const PROOF_MAX: Duration = Duration::from_secs(30);

/// Proofs that are tried where somebody came whom nobody sent.
const TRIES: u32 = 3;

/// Proves that `sandbox` is isolated, or says why it is not shown to be.
///
/// The baits lie where anybody on this machine may come by: a client that tries a port again which was somebody else's before. A visit that the probe
/// knows nothing of is unknown, not an escape and not a proof; everything is tried once more, at other ports, and only a proof without such a
/// visit is one.
pub(super) async fn prove(cx: &Cx, sandbox: &ProcessSandbox) -> Result<SandboxFacts, DriverError> {
    let cx = &cx.within(PROOF_MAX);
    let mut tries = 0;
    loop {
        let shown = once(cx, sandbox).await?;
        if let Some(ended) = ended(shown, &mut tries) {
            return ended;
        }
    }
}

/// What a proof has shown, where no other is to be tried after it.
fn ended<T>(shown: Result<T, Vec<String>>, tries: &mut u32) -> Option<Result<T, DriverError>> {
    *tries += 1;
    match shown {
        Ok(facts) => Some(Ok(facts)),
        Err(visitors) => (*tries >= TRIES).then(|| Err(not_isolated(&visitors))),
    }
}

fn not_isolated(holes: &[String]) -> DriverError {
    DriverError::new(ErrorKind::Refused, "prove the sandbox isolated")
        .because(holes.join("; "))
        .hint("run `seaworthy doctor`")
        .code(FindingCode::NotIsolated)
}

/// One proof; or the visits that nobody explains, where there is nothing else against it.
async fn once(cx: &Cx, sandbox: &ProcessSandbox) -> Result<Result<SandboxFacts, Vec<String>>, DriverError> {
    let shared = &sandbox.shared;
    let outer = shared.place.outer.clone();
    let control = |error: io::Error| {
        DriverError::new(ErrorKind::Refused, "show that the targets of the isolation proof answer outside")
            .because(error)
            .code(FindingCode::NotIsolated)
    };
    let baits = blocking(cx, move || Baits::lay(&outer).map_err(control)).await?;
    let targets = serde_json::to_string(&baits.targets().map_err(control)?)
        .map_err(|error| DriverError::new(ErrorKind::Other, "describe the targets").because(error))?;
    let probe = Exec {
        argv: vec!["/proc/self/exe".into(), VERB_PROBE.into(), targets],
        output_bytes_max: 1 << 20,
        ..Exec::default()
    };
    let running = sandbox.start(cx, probe, Keep::First(1 << 20)).await?;
    if let Err(stop) = cx.run(running.finished()).await {
        running.kill();
        running.gone(KILL_PATIENCE).await?;
        return Err(stop.into());
    }
    shared.measure();
    shared.check_room()?;
    let closed_descriptors = running.closed_descriptors();
    let outcome = running.outcome()?;
    let unknown = |why: String| {
        DriverError::new(ErrorKind::Refused, "prove the sandbox isolated")
            .because(why)
            .hint("the program that plays init must be executable by the sandbox's user")
            .code(FindingCode::NotIsolated)
    };
    let said = || String::from_utf8_lossy(&outcome.stderr).trim().to_owned();
    if outcome.status != 0 {
        return Err(unknown(format!("the probe ended with status {}: {}", outcome.status, said())));
    }
    let report: Report = serde_json::from_slice(&outcome.stdout)
        .map_err(|error| unknown(format!("the probe's report is unreadable: {error}")))?;
    let visitors = blocking(cx, move || baits.gather().map_err(control)).await?;
    let mut holes = holes(&report, shared.mode, shared.user.uid, shared.user.gid);
    if !holes.is_empty() {
        holes.extend(visitors);
        return Err(not_isolated(&holes));
    }
    if !visitors.is_empty() {
        return Ok(Err(visitors));
    }
    let mut limits = report.limits;
    limits.push(format!("/tmp and /dev/shm: {} bytes each", shared.settings.limits.temporary_bytes));
    limits.push(format!("disk: ends when fewer than {} bytes are free", shared.settings.reserve_bytes));
    limits.push(format!(
        "memory: ends when fewer than {} bytes are free",
        shared.settings.memory_reserve_bytes
    ));
    limits.push(format!("descriptors closed before the start: {closed_descriptors}"));
    Ok(Ok(SandboxFacts {
        provider: "process".into(),
        mode: match shared.mode {
            Mode::Root => "root".into(),
            Mode::UserNamespace => "user-namespace".into(),
        },
        uid: shared.user.uid,
        interfaces: report.network.interfaces,
        refused_connections: report
            .attempts
            .into_iter()
            .filter_map(|attempt| match attempt.outcome {
                Outcome::Refused(error) => Some(format!("{}: {error}", attempt.what)),
                Outcome::Reached | Outcome::Unanswered(_) => None,
            })
            .collect(),
        limits,
        inherited_descriptors: report.descriptors,
    }))
}

/// Every way in which the report shows less than isolation.
fn holes(report: &Report, mode: Mode, uid: u32, gid: u32) -> Vec<String> {
    let mut found = Vec::new();
    for attempt in &report.attempts {
        match &attempt.outcome {
            Outcome::Refused(_) => {}
            Outcome::Reached => found.push(format!("{}: reached", attempt.what)),
            Outcome::Unanswered(error) => found.push(format!("{}: sent out, {error}", attempt.what)),
        }
    }
    // A probe that tried nothing has shown nothing.
    if report.attempts.len() < Baits::ATTEMPTS_MIN {
        found.push(format!("only {} attempts were made", report.attempts.len()));
    }
    found.extend(report.network.excess());
    found.extend(report.privileges.excess(mode, uid, gid));
    if report.descriptors != 0 {
        found.push(format!("{} inherited descriptors", report.descriptors));
    }
    if !report.environment.is_empty() {
        found.push(format!("inherited environment: {}", report.environment.join(", ")));
    }
    found
}

/// Things outside that answer, for the probe to try and fail to reach.
struct Baits {
    tcp: Vec<TcpListener>,
    udp: UdpSocket,
    abstract_name: String,
    abstract_socket: UnixListener,
    path: PathBuf,
    path_socket: UnixListener,
    file: PathBuf,
}

impl Baits {
    /// One stream bait and two outside, one datagram bait and one outside, two sockets, a file, the two ways around
    /// namespaces, the process. An IPv6 bait where the machine has IPv6 is one more.
    const ATTEMPTS_MIN: usize = 11;

    fn lay(outer: &Path) -> io::Result<Self> {
        let name = outer.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut tcp = vec![TcpListener::bind(("127.0.0.1", 0))?];
        match TcpListener::bind(("::1", 0)) {
            Ok(listener) => tcp.push(listener),
            // A machine without IPv6.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported) => {}
            Err(error) => return Err(error),
        }
        let abstract_name = format!("seaworthy-{name}");
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&abstract_name)?;
        let path = outer.join("bait.sock");
        let file = outer.join("bait");
        let mut secret = fs::File::options().write(true).create_new(true).mode(0o600).open(&file)?;
        secret.write_all(name.as_bytes())?;
        let baits = Self {
            tcp,
            udp: UdpSocket::bind(("127.0.0.1", 0))?,
            abstract_name,
            abstract_socket: UnixListener::bind_addr(&address)?,
            path_socket: UnixListener::bind(&path)?,
            path,
            file,
        };
        for listener in &baits.tcp {
            listener.set_nonblocking(true)?;
        }
        baits.udp.set_nonblocking(true)?;
        baits.abstract_socket.set_nonblocking(true)?;
        baits.path_socket.set_nonblocking(true)?;
        baits.visit()?;
        Ok(baits)
    }

    fn targets(&self) -> io::Result<Targets> {
        let pid = std::process::id();
        let mut tcp = Vec::new();
        for listener in &self.tcp {
            tcp.push(listener.local_addr()?);
        }
        // Reserved for documentation (RFC 5737, RFC 3849): nobody is there, and only a route would let us find out.
        tcp.push(SocketAddr::from(([192, 0, 2, 1], 9)));
        tcp.push(SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 9)));
        Ok(Targets {
            tcp,
            udp: vec![self.udp.local_addr()?, SocketAddr::from(([192, 0, 2, 1], 53))],
            unix_abstract: vec![self.abstract_name.clone()],
            unix: vec![self.path.clone()],
            files: vec![self.file.clone()],
            process: (pid, start_time(pid)?),
        })
    }

    /// Reaches every bait from here: the positive control.
    fn visit(&self) -> io::Result<()> {
        for listener in &self.tcp {
            TcpStream::connect_timeout(&listener.local_addr()?, Duration::from_secs(2))?;
        }
        UdpSocket::bind(("127.0.0.1", 0))?.send_to(b"seaworthy", self.udp.local_addr()?)?;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&self.abstract_name)?;
        UnixStream::connect_addr(&address)?;
        UnixStream::connect(&self.path)?;
        fs::read(&self.file).map(|_| ())
    }

    /// Shows that every bait still answers, then counts who came: twice us, nobody else.
    fn gather(self) -> io::Result<Vec<String>> {
        self.visit()?;
        let mut found = Vec::new();
        let mut count = |what: String, visits: usize| {
            if visits != 2 {
                found.push(format!("{what} was reached {visits} times instead of 2"));
            }
        };
        for listener in &self.tcp {
            count(format!("tcp {}", listener.local_addr()?), drain(|| listener.accept().map(|_| ()))?);
        }
        let mut buffer = [0; 64];
        count(format!("udp {}", self.udp.local_addr()?), drain(|| self.udp.recv(&mut buffer).map(|_| ()))?);
        count("the abstract unix socket".into(), drain(|| self.abstract_socket.accept().map(|_| ()))?);
        count("the unix socket".into(), drain(|| self.path_socket.accept().map(|_| ()))?);
        Ok(found)
    }
}

impl Drop for Baits {
    fn drop(&mut self) {
        // What cannot be removed here goes with the sandbox.
        fs::remove_file(&self.path).unwrap_or_default();
        fs::remove_file(&self.file).unwrap_or_default();
    }
}

fn drain(mut one: impl FnMut() -> io::Result<()>) -> io::Result<usize> {
    let mut count = 0;
    loop {
        match one() {
            Ok(()) => count += 1,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use seaworthy_syscall::sandbox::probe::{Attempt, Network, Privileges, report};

    use super::*;

    fn isolated() -> Report {
        let refused =
            |number| Attempt { what: format!("attempt {number}"), outcome: Outcome::Refused("no".into()) };
        Report {
            attempts: (0..Baits::ATTEMPTS_MIN).map(refused).collect(),
            network: Network { interfaces: Vec::new(), routes: Vec::new() },
            privileges: Privileges {
                uids: vec![7; 4],
                gids: vec![8; 4],
                groups: Vec::new(),
                capabilities: vec![0; 5],
                no_new_privs: 1,
                seccomp: 2,
            },
            descriptors: 0,
            environment: Vec::new(),
            limits: Vec::new(),
        }
    }

    #[test]
    fn every_single_hole_is_seen() {
        assert_eq!(holes(&isolated(), Mode::Root, 7, 8), Vec::<String>::new());
        let damages: [fn(&mut Report); 14] = [
            |report| report.attempts[3].outcome = Outcome::Reached,
            |report| report.attempts[0].outcome = Outcome::Unanswered("timed out".into()),
            |report| drop(report.attempts.pop()),
            |report| report.network.interfaces.push("eth0".into()),
            |report| report.network.routes.push("default".into()),
            |report| report.privileges.uids[1] = 0,
            |report| report.privileges.gids[3] = 0,
            |report| report.privileges.uids.clear(),
            |report| report.privileges.groups.push(4),
            |report| report.privileges.capabilities[3] = 1,
            |report| report.privileges.no_new_privs = 0,
            |report| report.privileges.seccomp = 0,
            |report| report.descriptors = 1,
            |report| report.environment.push("AWS_SECRET_ACCESS_KEY".into()),
        ];
        for (number, damage) in damages.iter().enumerate() {
            let mut report = isolated();
            damage(&mut report);
            assert_eq!(holes(&report, Mode::Root, 7, 8).len(), 1, "damage {number}");
        }
    }

    #[test]
    fn a_probe_that_runs_outside_is_not_taken_for_isolated() {
        let directory = tempfile::tempdir().unwrap();
        let baits = Baits::lay(directory.path()).unwrap();
        let targets = baits.targets().unwrap();
        let found = holes(&report(&targets).unwrap(), Mode::Root, 65534, 65534).join("\n");
        for target in targets.tcp.iter().take(targets.tcp.len() - 2) {
            assert!(found.contains(&format!("tcp {target}: reached")), "{found}");
        }
        for hole in [
            "udp 127.0.0.1",
            "abstract unix socket",
            "bait.sock: reached",
            "bait: reached",
            "the caller",
            "inherited",
        ] {
            assert!(found.contains(hole), "{hole} not in {found}");
        }
        // And the baits noticed, whatever the probe says.
        let visitors = baits.gather().unwrap();
        assert!(visitors.len() >= 4, "{visitors:?}");
        assert!(visitors.iter().all(|visitor| visitor.contains("3 times")), "{visitors:?}");
    }

    #[test]
    fn a_visit_that_nobody_explains_is_neither_a_proof_nor_an_escape() {
        let directory = tempfile::tempdir().unwrap();
        // Once, each time, never: whoever comes by at one port need not come by at the next.
        for (comes, is_proven, expected) in [(1, true, 2), (TRIES, false, TRIES), (0, true, 1)] {
            let mut tries = 0;
            let ended = loop {
                let baits = Baits::lay(directory.path()).unwrap();
                if tries < comes {
                    TcpStream::connect(baits.tcp[0].local_addr().unwrap()).unwrap();
                }
                let visitors = baits.gather().unwrap();
                let shown = if visitors.is_empty() { Ok(()) } else { Err(visitors) };
                if let Some(ended) = ended(shown, &mut tries) {
                    break ended;
                }
            };
            assert_eq!((ended.is_ok(), tries), (is_proven, expected));
            if let Err(error) = ended {
                assert_eq!(error.code, Some(FindingCode::NotIsolated));
            }
        }
    }
}
