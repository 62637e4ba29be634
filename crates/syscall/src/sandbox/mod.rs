//! A program in a place of its own: no network, an unprivileged user, a private view of the file system, limits.
//!
//! The caller starts its own binary under [`VERB_KEEPER`] with one end of a socket pair as standard input (the *line*) and
//! sends the [`Order`] twice. Two processes of the same binary follow:
//!
//! | process | is | does | dies when |
//! |---|---|---|---|
//! | keeper | the caller's child | leaves the caller's namespaces, starts init, waits for it | init has died, and with it all that ran |
//! | init | process 1 of a new process namespace | builds the view, gives up every privilege, starts the program, reaps | the program ends, the line closes, or the keeper dies |
//!
//! When init dies the kernel kills everything in its namespace, whatever it forked or detached. The line closes when the
//! caller dies, however it dies, so nothing outlives the caller and no signal handler has to run for that. (A parent-death
//! signal alone would not do between caller and keeper: it fires when the *thread* that forked ends.)
//!
//! Nothing here starts a shell, and nothing here talks to a network except to show that it cannot.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

mod filter;
mod identity;
mod init;
mod keeper;
pub mod probe;
mod view;

/// First argument of a process that is to be the keeper.
pub const VERB_KEEPER: &str = "__sandbox-keeper";
/// First argument of a process that is to be init.
pub const VERB_INIT: &str = "__sandbox-init";
/// First argument of a process that tries to break out and says how far it came.
pub const VERB_PROBE: &str = "__sandbox-probe";

/// Exit status of a keeper or init that could not do its work.
const STATUS_FAILED: u8 = 125;

/// How the program's user relates to the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// The caller is root; the program runs as another user.
    Root,
    /// The caller is an ordinary user; the program runs as that user in a user namespace that maps it to itself
    /// (not to root: PostgreSQL refuses to run as user 0).
    UserNamespace,
}

/// Bounds on what a program may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Open files per process.
    pub open_files: u64,
    /// Processes and threads of the program's user.
    pub processes: u64,
    /// Size of one file, in bytes.
    pub file_bytes: Option<u64>,
    /// Address space of one process, in bytes.
    pub memory_bytes: Option<u64>,
    /// Processor time of one process, in seconds.
    pub cpu_seconds: Option<u64>,
    /// Size of the private `/tmp`, and of the private `/dev/shm`, in bytes; both live in memory.
    pub temporary_bytes: u64,
}

/// Everything that the keeper and init need to know. Sent twice over the line: once for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// How the program's user relates to the caller's.
    pub mode: Mode,
    /// User to run as, never 0.
    pub uid: u32,
    /// Group to run as, never 0.
    pub gid: u32,
    /// Name of that user in the `/etc/passwd` that the program sees.
    pub user_name: String,
    /// The private directory: visible inside at this same absolute path, writable.
    pub root: PathBuf,
    /// An empty directory over which the private view is built; the caller's view of it does not change.
    pub view: PathBuf,
    /// Further directories shown read-only at their own paths.
    pub read_only: Vec<PathBuf>,
    /// Files that are empty inside, although a directory that is shown holds them. Those that do not exist are left out.
    pub hidden: Vec<PathBuf>,
    /// Bounds.
    pub limits: Limits,
    /// Program and arguments; `argv[0]` is an absolute path.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Working directory; `root` where omitted.
    pub cwd: Option<PathBuf>,
    /// File given as standard input; nothing where omitted. A path inside `root` is opened without following links.
    pub stdin: Option<PathBuf>,
}

/// What init may be told while the program runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Send the program this signal.
    Signal(i32),
}

/// What a failure asks of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The kernel does not let us isolate.
    Isolation,
    /// The isolation was built and does not hold what it promises.
    NotIsolated,
    /// The program could not be started.
    Start,
    /// The order is wrong.
    Order,
}

/// What keeper and init say over the line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The program runs.
    Started {
        /// Its process id inside.
        pid: i32,
        /// Descriptors besides the standard three that the caller had leaked and that were closed.
        closed_descriptors: u32,
    },
    /// The program ended: its exit status, or 128 + signal.
    Ended {
        /// The status.
        status: i32,
    },
    /// It could not be done.
    Failed {
        /// What it asks of the caller.
        kind: FailureKind,
        /// What was attempted.
        step: String,
        /// The error's number, where it came from the kernel.
        errno: Option<i32>,
        /// The error in words.
        error: String,
    },
}

/// Why a step could not be done.
#[derive(Debug, thiserror::Error)]
#[error("{step}")]
struct Failure {
    kind: FailureKind,
    step: String,
    #[source]
    source: io::Error,
}

impl Failure {
    fn isolation(step: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let step = step.into();
        move |source| Self { kind: FailureKind::Isolation, step, source }
    }

    fn start(step: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let step = step.into();
        move |source| Self { kind: FailureKind::Start, step, source }
    }

    fn order(step: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let step = step.into();
        move |source| Self { kind: FailureKind::Order, step, source }
    }

    fn not_isolated(step: impl Into<String>, found: impl Into<String>) -> Self {
        Self { kind: FailureKind::NotIsolated, step: step.into(), source: io::Error::other(found.into()) }
    }

    fn reply(&self) -> Reply {
        Reply::Failed {
            kind: self.kind,
            step: self.step.clone(),
            errno: self.source.raw_os_error(),
            error: self.source.to_string(),
        }
    }
}

/// Plays the hidden part that the arguments ask for and returns its exit status; `None` when they ask for none.
///
/// Must be the first thing `main` does: a user namespace can only be entered by a process with a single thread, and what
/// the caller inherited must not have been touched.
#[must_use]
pub fn enter() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let verb = arguments.next()?;
    match verb.to_str()? {
        VERB_KEEPER => Some(keeper::main()),
        VERB_INIT => Some(init::main(arguments.next().as_deref())),
        VERB_PROBE => Some(probe::main(arguments.next().as_deref())),
        _ => None,
    }
}

/// A user of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its number.
    pub uid: u32,
    /// Its first group.
    pub gid: u32,
    /// Its name; made up where the machine has none for it.
    pub name: String,
}

/// Looks a user up by name; `None` when this machine does not know it.
pub fn user_named(name: &str) -> io::Result<Option<User>> {
    let found = nix::unistd::User::from_name(name)?;
    Ok(found.map(|user| User { uid: user.uid.as_raw(), gid: user.gid.as_raw(), name: user.name }))
}

/// The user that this process runs as.
pub fn user_self() -> io::Result<User> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let name = nix::unistd::User::from_uid(uid)?.map_or_else(|| "sandbox".to_owned(), |user| user.name);
    Ok(User { uid: uid.as_raw(), gid: gid.as_raw(), name })
}

/// Largest message on the line: an order with a long command line, and nothing that could exhaust memory.
const FRAME_BYTES_MAX: u32 = 4 << 20;

/// Writes one message.
pub fn send(line: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let body = serde_json::to_vec(message).map_err(io::Error::other)?;
    let length = u32::try_from(body.len()).ok().filter(|length| *length <= FRAME_BYTES_MAX);
    let length = length.ok_or_else(|| io::Error::other("message too long"))?;
    let mut frame = Vec::with_capacity(body.len() + 4);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&body);
    line.write_all(&frame)
}

/// Reads one message; `None` when the line is closed between messages.
pub fn receive<T: DeserializeOwned>(line: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0_u8; 4];
    let mut have = 0;
    while have < length.len() {
        match line.read(&mut length[have..]) {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A peer that died with unread messages resets the line instead of closing it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset && have == 0 => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let length = u32::from_le_bytes(length);
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::other("message too long"));
    }
    let mut body = vec![0; length as usize];
    line.read_exact(&mut body)?;
    serde_json::from_slice(&body).map(Some).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_as_sent_and_a_closed_line_is_not_an_error() {
        let mut wire = Vec::new();
        send(&mut wire, &Request::Signal(2)).unwrap();
        send(&mut wire, &Request::Signal(15)).unwrap();
        let mut reader = wire.as_slice();
        assert_eq!(receive::<Request>(&mut reader).unwrap(), Some(Request::Signal(2)));
        assert_eq!(receive::<Request>(&mut reader).unwrap(), Some(Request::Signal(15)));
        assert_eq!(receive::<Request>(&mut reader).unwrap(), None);
    }

    #[test]
    fn a_message_cut_short_or_too_long_is_an_error() {
        let mut wire = Vec::new();
        send(&mut wire, &Request::Signal(2)).unwrap();
        assert!(receive::<Request>(&mut &wire[..wire.len() - 1]).is_err());
        assert!(receive::<Request>(&mut &wire[..3]).is_err());
        assert!(receive::<Request>(&mut u32::MAX.to_le_bytes().as_slice()).is_err());
    }
}
