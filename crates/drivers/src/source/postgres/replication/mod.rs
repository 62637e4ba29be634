//! A connection that speaks the replication protocol: base backups and the log, as a standby asks for them.
//!
//! Own code, because what passes here is hashed, checked and cut into files while it passes; nothing is staged. It needs a role with
//! `REPLICATION` and a line in `pg_hba.conf` for the database `replication`, and no other right.

mod backup;
mod stream;
pub mod tar;
mod wire;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use seaworthy_interface::{Cx, DriverError, ErrorKind};
use seaworthy_model::finding::FindingCode;
use seaworthy_model::wal::{History, Lsn, Timeline};
use secrecy::ExposeSecret as _;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

pub use self::backup::{BackupOptions, BaseBackup, Ended, Event, Tablespace};
pub use self::stream::{Received, Stream};
use self::wire::{Fields, Inbox, Said, WireError, message};
use super::names::is_local;
use super::session::Address;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);
/// Version 3.0 of the protocol.
const PROTOCOL: u32 = 196_608;

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// What a server says of the cluster that it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's identity, made by `initdb`.
    pub system: u64,
    /// Its timeline now.
    pub timeline: Timeline,
    /// How far the log has been flushed (on a standby: replayed or received).
    pub position: Lsn,
}

/// A connection. Dropping it ends what the server does for it.
pub struct Replication {
    stream: Box<dyn Duplex>,
    inbox: Inbox,
    /// The last message's.
    body: Bytes,
    /// `server_version`, as the server reports it when a connection begins.
    version: String,
}

impl fmt::Debug for Replication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replication").field("version", &self.version).finish_non_exhaustive()
    }
}

/// The rows of an answer.
type Rows = Vec<Vec<Option<String>>>;

impl Replication {
    /// Connects and authenticates, for physical replication.
    pub(super) async fn open(cx: &Cx, to: &Address) -> Result<Self, DriverError> {
        let context = format!("connect for replication to {}:{} as {}", to.host, to.port, to.user);
        let limited = cx.within(CONNECT_TIMEOUT);
        limited.run(Self::connect(to, &context)).await.map_err(|stop| {
            // The limit is ours; the run's own end is told as what it is.
            match cx.check() {
                Ok(()) => DriverError::new(ErrorKind::Unreachable, context.clone())
                    .code(FindingCode::Unreachable)
                    .hint("it did not answer within 8 s: is it the right host and port?"),
                Err(_) => DriverError::from(stop),
            }
        })?
    }

    async fn connect(to: &Address, context: &str) -> Result<Self, DriverError> {
        let broken = |error| DriverError::io(context, error).code(FindingCode::Unreachable);
        let stream: Box<dyn Duplex> = if to.host.starts_with('/') {
            let path = Path::new(&to.host).join(format!(".s.PGSQL.{}", to.port));
            Box::new(tokio::net::UnixStream::connect(path).await.map_err(broken)?)
        } else if is_local(&to.host) {
            let stream = tokio::net::TcpStream::connect((to.host.as_str(), to.port)).await.map_err(broken)?;
            stream.set_nodelay(true).map_err(broken)?;
            Box::new(stream)
        } else {
            return Err(DriverError::new(ErrorKind::Unsupported, context).hint(
                "TLS is not built in yet: use a Unix socket, or a loopback address (for example an SSH tunnel)",
            ));
        };
        let mut connection =
            Self { stream, inbox: Inbox::default(), body: Bytes::new(), version: String::new() };
        let mut body = PROTOCOL.to_be_bytes().to_vec();
        for (name, value) in
            [("user", to.user.as_str()), ("replication", "true"), ("application_name", "seaworthy")]
        {
            if value.contains('\0') {
                return Err(DriverError::new(
                    ErrorKind::Refused,
                    format!("{context}: a zero byte in the {name}"),
                ));
            }
            body.extend_from_slice(name.as_bytes());
            body.push(0);
            body.extend_from_slice(value.as_bytes());
            body.push(0);
        }
        body.push(0);
        connection.send(context, 0, &body).await?;
        connection.authenticate(to, context).await?;
        connection.settle(context).await?;
        Ok(connection)
    }

    async fn send(&mut self, context: &str, kind: u8, body: &[u8]) -> Result<(), DriverError> {
        self.send_raw(context, &message(kind, body)).await
    }

    async fn send_raw(&mut self, context: &str, message: &[u8]) -> Result<(), DriverError> {
        self.stream.write_all(message).await.map_err(|error| lost(context, error))?;
        self.stream.flush().await.map_err(|error| lost(context, error))
    }

    /// The kind of the next message, whose body is then in `self.body`. Stopped while it waits, it loses nothing. What a server may say at any time is passed over; what it says
    /// is wrong is an error.
    async fn next(&mut self, context: &str) -> Result<u8, DriverError> {
        loop {
            let Some((kind, body)) = self.inbox.take().map_err(|error| broken(context, error))? else {
                self.inbox.more(&mut self.stream).await.map_err(|error| broken(context, error))?;
                continue;
            };
            self.body = body;
            match kind {
                // Notices, and settings that have changed.
                b'N' => {}
                b'S' => {
                    let mut fields = Fields::of(kind, &self.body);
                    let name = fields.text().map_err(|error| broken(context, error))?;
                    if name == b"server_version" {
                        let value = fields.text().map_err(|error| broken(context, error))?;
                        self.version = String::from_utf8_lossy(value).into_owned();
                    }
                }
                b'E' => {
                    let said =
                        Said::read(Fields::of(kind, &self.body)).map_err(|error| broken(context, error))?;
                    return Err(refused(context, said));
                }
                kind => return Ok(kind),
            }
        }
    }

    async fn authenticate(&mut self, to: &Address, context: &str) -> Result<(), DriverError> {
        let password = || -> Result<Vec<u8>, DriverError> {
            let password = to.password.as_ref().ok_or_else(|| {
                DriverError::new(ErrorKind::Unauthenticated, context)
                    .code(FindingCode::AuthDenied)
                    .hint("the server asks for a password, and none is configured: `password = \"file:…\"`")
            })?;
            Ok(password.expose_secret().as_bytes().to_vec())
        };
        let wrong = |what: &str| {
            DriverError::new(ErrorKind::Unauthenticated, format!("{context}: {what}"))
                .code(FindingCode::AuthDenied)
        };
        let mut scram: Option<ScramSha256> = None;
        loop {
            let kind = self.next(context).await?;
            if kind != b'R' {
                return Err(unexpected(context, kind));
            }
            let body = std::mem::take(&mut self.body);
            let mut fields = Fields::of(kind, &body);
            match fields.i32().map_err(|error| broken(context, error))? {
                0 => return Ok(()),
                3 => {
                    // To this machine alone, see `connect`: nobody else hears it.
                    let mut answer = password()?;
                    answer.push(0);
                    self.send(context, b'p', &answer).await?;
                }
                5 => {
                    let salt = fields.bytes(4).map_err(|error| broken(context, error))?;
                    let salt = [salt[0], salt[1], salt[2], salt[3]];
                    let mut answer = md5_hash(to.user.as_bytes(), &password()?, salt).into_bytes();
                    answer.push(0);
                    self.send(context, b'p', &answer).await?;
                }
                10 => {
                    let mut offers_it = false;
                    loop {
                        let name = fields.text().map_err(|error| broken(context, error))?;
                        if name.is_empty() {
                            break;
                        }
                        offers_it |= name == SCRAM_SHA_256.as_bytes();
                    }
                    if !offers_it {
                        return Err(wrong("the server offers no SCRAM-SHA-256"));
                    }
                    let begun = ScramSha256::new(&password()?, ChannelBinding::unsupported());
                    let first = begun.message();
                    let mut answer = SCRAM_SHA_256.as_bytes().to_vec();
                    answer.push(0);
                    answer.extend_from_slice(&u32::try_from(first.len()).unwrap_or(u32::MAX).to_be_bytes());
                    answer.extend_from_slice(first);
                    self.send(context, b'p', &answer).await?;
                    scram = Some(begun);
                }
                11 => {
                    let begun =
                        scram.as_mut().ok_or_else(|| wrong("the server goes on with what was not begun"))?;
                    begun.update(fields.rest()).map_err(|error| wrong(&error.to_string()))?;
                    let answer = begun.message().to_vec();
                    self.send(context, b'p', &answer).await?;
                }
                12 => {
                    let begun = scram.as_mut().ok_or_else(|| wrong("the server ends what was not begun"))?;
                    // That the server knows the password too: an impostor does not get past this.
                    begun.finish(fields.rest()).map_err(|error| wrong(&error.to_string()))?;
                }
                other => {
                    return Err(wrong(&format!(
                        "the server asks for what is not known here (method {other})"
                    )));
                }
            }
        }
    }

    /// Reads on until the server waits for the next command.
    async fn settle(&mut self, context: &str) -> Result<(), DriverError> {
        while self.next(context).await? != b'Z' {}
        Ok(())
    }

    /// Major version of the server.
    #[must_use]
    pub fn major(&self) -> Option<u32> {
        let digits: String = self.version.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    }

    /// The server's version, as it says itself.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Sends a command; its rows, where it answers with rows alone.
    async fn ask(&mut self, cx: &Cx, command: &str) -> Result<Rows, DriverError> {
        let context = format!("ask `{}`", command.split(' ').next().unwrap_or_default());
        cx.run(async {
            self.command(&context, command).await?;
            let rows = self.rows(&context).await?;
            self.settle(&context).await?;
            Ok(rows)
        })
        .await?
    }

    async fn command(&mut self, context: &str, command: &str) -> Result<(), DriverError> {
        if command.contains('\0') {
            return Err(DriverError::new(
                ErrorKind::Refused,
                format!("{context}: a zero byte in the command"),
            ));
        }
        let mut body = command.as_bytes().to_vec();
        body.push(0);
        self.send(context, b'Q', &body).await
    }

    /// The rows of one answer, up to the word that it is complete.
    async fn rows(&mut self, context: &str) -> Result<Rows, DriverError> {
        let mut rows = Rows::new();
        loop {
            match self.next(context).await? {
                b'T' => {}
                b'D' => {
                    rows.push(Fields::of(b'D', &self.body).row().map_err(|error| broken(context, error))?);
                }
                b'C' => return Ok(rows),
                kind => return Err(unexpected(context, kind)),
            }
        }
    }

    /// Asks the server which cluster it serves, and where that stands.
    pub async fn identify(&mut self, cx: &Cx) -> Result<Identity, DriverError> {
        let rows = self.ask(cx, "IDENTIFY_SYSTEM").await?;
        let wrong = || DriverError::new(ErrorKind::Corrupt, "ask the server which cluster it serves");
        let row = rows.first().ok_or_else(wrong)?;
        let value = |column: usize| row.get(column).and_then(Option::as_deref).ok_or_else(wrong);
        Ok(Identity {
            system: value(0)?.parse().map_err(|_| wrong())?,
            timeline: value(1)?.parse().ok().and_then(Timeline::new).ok_or_else(wrong)?,
            position: value(2)?.parse().map_err(|_| wrong())?,
        })
    }

    /// The value of a setting of the server.
    pub async fn show(&mut self, cx: &Cx, setting: &str) -> Result<String, DriverError> {
        if !setting.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
            return Err(DriverError::new(ErrorKind::Refused, "ask for a setting by a name that is none"));
        }
        let rows = self.ask(cx, &format!("SHOW {setting}")).await?;
        let value = rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten();
        value.ok_or_else(|| DriverError::new(ErrorKind::Corrupt, format!("ask for the setting `{setting}`")))
    }

    /// The history of a timeline; none is asked for of the first, which has none.
    pub async fn history(&mut self, cx: &Cx, timeline: Timeline) -> Result<History, DriverError> {
        if timeline == Timeline::FIRST {
            return Ok(History::of_first());
        }
        let rows = self.ask(cx, &format!("TIMELINE_HISTORY {timeline}")).await?;
        let context = format!("read the history of timeline {timeline}");
        let text = rows.into_iter().next().and_then(|row| row.into_iter().nth(1)).flatten();
        let text = text.ok_or_else(|| DriverError::new(ErrorKind::Corrupt, context.clone()))?;
        History::parse(timeline, &text)
            .map_err(|error| DriverError::new(ErrorKind::Corrupt, context).because(error))
    }
}

/// A position and a timeline, in this order, of the first row of an answer.
fn position(rows: &[Vec<Option<String>>]) -> Option<(Lsn, Timeline)> {
    let row = rows.first()?;
    let position = row.first()?.as_deref()?.parse().ok()?;
    let timeline = row.get(1)?.as_deref()?.parse().ok().and_then(Timeline::new)?;
    Some((position, timeline))
}

/// A connection that is no more, in whichever way: what was being done may be tried again with another one.
fn lost(context: &str, error: std::io::Error) -> DriverError {
    let mut error = DriverError::io(context, error).code(FindingCode::Unreachable);
    if error.kind == ErrorKind::Other {
        error.kind = ErrorKind::Unreachable;
    }
    error
}

fn broken(context: &str, error: WireError) -> DriverError {
    match error {
        WireError::Io(error) => lost(context, error),
        error => DriverError::new(ErrorKind::Corrupt, context).because(error),
    }
}

fn unexpected(context: &str, kind: u8) -> DriverError {
    DriverError::new(
        ErrorKind::Corrupt,
        format!(
            "{context}: the server sends a message of kind {:?}, which has no place there",
            char::from(kind)
        ),
    )
}

/// An error of the server, with what a person can do about it.
fn refused(context: &str, said: Said) -> DriverError {
    let class = said.state.get(..2).unwrap_or_default();
    let (kind, code, hint) = match (said.state.as_str(), class) {
        (_, "28") => (
            ErrorKind::Unauthenticated,
            Some(FindingCode::AuthDenied),
            Some(
                "do the role and its password agree, and has pg_hba.conf a line for the database `replication`? \
                 `all` is not meant by it",
            ),
        ),
        ("42501", _) => (
            ErrorKind::PermissionDenied,
            Some(FindingCode::ScopeNarrow),
            Some("run `ALTER ROLE <backup role> REPLICATION`"),
        ),
        ("53300", _) => (
            ErrorKind::Unreachable,
            None,
            Some("raise max_wal_senders, or max_connections; which standbys and receivers are connected?"),
        ),
        ("57P03" | "57P01" | "57P02", _) => (ErrorKind::Unreachable, Some(FindingCode::Unreachable), None),
        // A slot that another connection receives through.
        ("55006", _) => (ErrorKind::Busy, None, None),
        (_, "53") => (ErrorKind::Exhausted, None, None),
        _ => (ErrorKind::Other, None, None),
    };
    let told = hint.map(str::to_owned).or_else(|| said.hint.clone());
    let mut error = DriverError::new(kind, context).because(said);
    error.code = code;
    error.hint = told;
    error
}
