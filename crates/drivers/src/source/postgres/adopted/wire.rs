//! A connection to a scratch engine that sends statements as the bytes that a dump holds, as psql does.
//!
//! The client library speaks UTF-8 only; a dump of a LATIN1 database is written in LATIN1 and says so itself. So this is the
//! simple query protocol and nothing else: over a Unix socket, without authentication, in a sandbox.
//!
//! What the server says is kept without its detail, hint and context, which may repeat a row.

use seaworthy_interface::{Cx, DriverError, ErrorKind};
use seaworthy_model::finding::FindingCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::super::session::Address;

/// Version 3.0 of the protocol.
const PROTOCOL: i32 = 196_608;
/// Longest message that a server may send: a row has at most a gigabyte.
const MESSAGE_BYTES_MAX: usize = 1 << 30;
/// Bytes asked of the socket at once.
const BUFFER_BYTES: usize = 256 << 10;

/// What the server did not accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// SQLSTATE.
    pub(super) state: String,
    /// What it said.
    pub(super) message: String,
}

impl Refused {
    /// What may be told: in classes of errors about values, only the class.
    pub(super) fn shown(&self) -> String {
        let has_no_values =
            ["08", "0A", "25", "28", "2B", "3D", "3F", "40", "42", "53", "54", "55", "57", "58"].iter();
        if has_no_values.clone().any(|class| self.state.starts_with(class)) {
            format!("{} (SQLSTATE {})", self.message, self.state)
        } else {
            format!("the server refused it (SQLSTATE {})", self.state)
        }
    }
}

/// The answer to a statement.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Answer {
    /// Why the server refused it; `None` where it did not.
    pub(super) refused: Option<Refused>,
    /// The last tag, e.g. `COPY 12`.
    pub(super) tag: String,
    /// Lines that were copied out.
    pub(super) lines: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// Whether the server waits for rows.
    pub(super) wants_rows: bool,
}

impl Answer {
    /// The number at the end of the tag.
    pub(super) fn rows(&self) -> u64 {
        self.tag.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0)
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Wire {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    inbox: Vec<u8>,
    begin: usize,
}

fn broken(what: &str, error: std::io::Error) -> DriverError {
    DriverError::new(ErrorKind::Unreachable, what.to_owned())
        .because(error)
        .code(FindingCode::EnvOther)
        .hint("the scratch engine ended; look at its memory limit")
}

impl Wire {
    /// Connects to a database as the role of the address.
    pub(super) async fn open(cx: &Cx, to: &Address) -> Result<Self, DriverError> {
        let what = format!("connect to {to:?}");
        let path = format!("{}/.s.PGSQL.{}", to.host, to.port);
        let stream = cx.run(UnixStream::connect(path)).await?.map_err(|error| broken(&what, error))?;
        let (from, to_server) = stream.into_split();
        let mut wire = Self { from, to: to_server, inbox: Vec::new(), begin: 0 };
        let mut body = PROTOCOL.to_be_bytes().to_vec();
        // Settings that were restored with a role or a database must not load a library into this session.
        for (name, value) in [
            ("user", to.user.as_str()),
            ("database", &to.database),
            ("application_name", "seaworthy"),
            ("options", "-c session_preload_libraries= -c local_preload_libraries= -c statement_timeout=0"),
        ] {
            body.extend(name.bytes().chain([0]).chain(value.bytes()).chain([0]));
        }
        body.push(0);
        let mut message = length_of(&body)?.to_vec();
        message.extend(body);
        wire.send(cx, &message).await?;
        let answer = wire.answer(cx).await?;
        match answer.refused {
            None => Ok(wire),
            Some(refused) => Err(DriverError::new(ErrorKind::Other, format!("{what}: {}", refused.shown()))
                .code(FindingCode::EnvOther)),
        }
    }

    /// Runs one statement to its end, or up to where its rows are wanted.
    pub(super) async fn run(&mut self, cx: &Cx, statement: &[u8]) -> Result<Answer, DriverError> {
        let mut body = Vec::with_capacity(statement.len() + 6);
        body.extend_from_slice(statement);
        body.push(0);
        self.message(cx, b'Q', &body).await?;
        self.answer(cx).await
    }

    /// Sends rows; what the server thinks of them comes with [`Self::end_rows`].
    pub(super) async fn rows(&mut self, cx: &Cx, rows: &[u8]) -> Result<(), DriverError> {
        self.message(cx, b'd', rows).await
    }

    /// Ends the rows.
    pub(super) async fn end_rows(&mut self, cx: &Cx) -> Result<Answer, DriverError> {
        self.message(cx, b'c', &[]).await?;
        self.answer(cx).await
    }

    async fn message(&mut self, cx: &Cx, kind: u8, body: &[u8]) -> Result<(), DriverError> {
        let mut head = vec![kind];
        head.extend(length_of(body)?);
        self.send(cx, &head).await?;
        self.send(cx, body).await
    }

    /// Sends bytes, and takes in what the server says meanwhile: were it not read, both could wait for each other.
    async fn send(&mut self, cx: &Cx, mut bytes: &[u8]) -> Result<(), DriverError> {
        let what = "write to the scratch engine";
        while !bytes.is_empty() {
            let mut space = [0_u8; 8 << 10];
            let step = async {
                tokio::select! {
                    biased;
                    written = self.to.write(bytes) => written.map(|count| (count, 0)),
                    read = self.from.read(&mut space) => read.map(|count| (0, count)),
                }
            };
            let (written, read) = cx.run(step).await?.map_err(|error| broken(what, error))?;
            if (written, read) == (0, 0) {
                return Err(broken(what, std::io::ErrorKind::UnexpectedEof.into()));
            }
            self.inbox.extend_from_slice(&space[..read]);
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Reads messages until the server is ready for the next statement, or waits for rows.
    async fn answer(&mut self, cx: &Cx) -> Result<Answer, DriverError> {
        let mut answer = Answer::default();
        loop {
            let (kind, range) = self.next(cx).await?;
            let body = &self.inbox[range];
            match kind {
                b'Z' => return Ok(answer),
                b'G' => {
                    answer.wants_rows = true;
                    return Ok(answer);
                }
                b'C' => {
                    let tag = body.strip_suffix(&[0]).unwrap_or(body);
                    answer.tag = String::from_utf8_lossy(tag).into_owned();
                }
                b'E' => {
                    // The first error is the reason for those that follow.
                    answer.refused.get_or_insert(refused(body));
                }
                b'd' => {
                    answer.lines += 1;
                    answer.bytes += body.len() as u64;
                }
                b'R' if body != [0, 0, 0, 0] => {
                    return Err(DriverError::new(ErrorKind::Other, "the scratch engine asks for a password")
                        .code(FindingCode::EnvOther));
                }
                _ => {}
            }
        }
    }

    /// The next message: its kind, and where its body lies in the inbox.
    async fn next(&mut self, cx: &Cx) -> Result<(u8, std::ops::Range<usize>), DriverError> {
        loop {
            let held = &self.inbox[self.begin..];
            if let [kind, a, b, c, d, ..] = held {
                let length = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX);
                if !(4..=MESSAGE_BYTES_MAX).contains(&length) {
                    return Err(broken(
                        "read from the scratch engine",
                        std::io::ErrorKind::InvalidData.into(),
                    ));
                }
                if held.len() > length {
                    let (kind, from) = (*kind, self.begin + 5);
                    self.begin += 1 + length;
                    return Ok((kind, from..self.begin));
                }
            }
            self.inbox.drain(..self.begin);
            self.begin = 0;
            let held = self.inbox.len();
            self.inbox.resize(held + BUFFER_BYTES, 0);
            let read = cx.run(self.from.read(&mut self.inbox[held..])).await;
            let count = match read {
                Ok(Ok(count)) => count,
                Ok(Err(error)) => return Err(broken("read from the scratch engine", error)),
                Err(stop) => return Err(stop.into()),
            };
            self.inbox.truncate(held + count);
            if count == 0 {
                return Err(broken("read from the scratch engine", std::io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

fn length_of(body: &[u8]) -> Result<[u8; 4], DriverError> {
    let length = i32::try_from(body.len() + 4).map_err(|_| {
        DriverError::new(ErrorKind::Unsupported, "send a statement longer than two gigabytes")
            .code(FindingCode::EnvOther)
    })?;
    Ok(length.to_be_bytes())
}

fn refused(body: &[u8]) -> Refused {
    let mut refused = Refused { state: String::new(), message: String::new() };
    for field in body.split(|byte| *byte == 0) {
        let Some((kind, value)) = field.split_first() else { continue };
        let value = String::from_utf8_lossy(value).into_owned();
        match kind {
            b'C' => refused.state = value,
            b'M' => refused.message = value,
            _ => {}
        }
    }
    refused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_hold_a_value_is_not_told() {
        let error =
            |state: &str| refused(format!("SERROR\0C{state}\0Msecret 4711\0Drow (4711)\0\0").as_bytes());
        assert_eq!(error("42P01").shown(), "secret 4711 (SQLSTATE 42P01)");
        assert_eq!(error("22P02").shown(), "the server refused it (SQLSTATE 22P02)");
        assert_eq!(error("P0001").shown(), "the server refused it (SQLSTATE P0001)");
    }
}
