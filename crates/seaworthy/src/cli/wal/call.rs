//! What `wal push` and `wal get` say to `wal serve`, and what it answers.
//!
//! Both sides send words and content. Words: their length in four bytes, little-endian, and so much JSON. Content: its length in eight
//! bytes, and so many bytes. Who calls sends words, and with a file to keep its content. Whoever answers says words without a byte for as long
//! as it works, then words, and with a file its content. Silence for [`SILENCE`] is the end of a call on either side.
//!
//! Whoever may write to the socket may keep and read the log; nothing else can be asked for.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use seaworthy_interface::{Handed, LogFile, Pushed};
use seaworthy_model::wal::Lsn;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use super::file::FILE_BYTES_MAX;
use crate::cli::args::WalOf;
use crate::exit::{Exit, TABLE};
use crate::failure::{Failure, Outcome, printable};

/// What is understood. Another version of this program may understand something else.
pub(super) const SCHEMA: &str = "seaworthy.wal-call/1";
/// How long a side waits for the next sign of life of the other.
pub(super) const SILENCE: Duration = Duration::from_secs(60);
/// How often whoever works on an answer says so.
pub(super) const ALIVE: Duration = Duration::from_secs(5);
/// Longest words: names and errors.
const WORDS_MAX: usize = 64 << 10;
/// What is sent of a content at once, so that a slow reader is not taken for a silent one.
const STEP: usize = 1 << 20;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Wish {
    Keep,
    Hand,
}

/// A call.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Call {
    pub(super) schema: String,
    pub(super) wish: Wish,
    pub(super) service: String,
    pub(super) source: Option<String>,
    pub(super) from: Option<String>,
    pub(super) name: String,
    pub(super) system: Option<u64>,
    pub(super) point: Option<String>,
}

/// An answer.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// It was kept; nothing stored where it had been kept before.
    Kept { stored: Option<u64> },
    /// The file follows.
    File,
    /// Its beginning follows, with zeros behind: what is kept ends there.
    UpTo { until: Lsn },
    /// What is kept of the log ends before it.
    Beyond,
    /// It could not be done.
    Failed { exit: u8, chain: Vec<String>, hint: Option<String> },
}

/// Why a call ended before its answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("nothing came for {} s", SILENCE.as_secs())]
    Silent,
    #[error("stopped")]
    Stopped,
    #[error("what came is not understood: {0}")]
    Unknown(String),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// One side of a call.
pub(super) struct Line<S> {
    stream: S,
    cancel: CancellationToken,
    silence: Duration,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    pub(super) fn new(stream: S, cancel: CancellationToken) -> Self {
        Self { stream, cancel, silence: SILENCE }
    }

    async fn waiting<'a, T, F>(&'a mut self, work: impl FnOnce(&'a mut S) -> F) -> Result<T, Broken>
    where
        F: Future<Output = std::io::Result<T>> + 'a,
    {
        tokio::select! {
            () = self.cancel.cancelled() => Err(Broken::Stopped),
            done = tokio::time::timeout(self.silence, work(&mut self.stream)) => Ok(done.map_err(|_| Broken::Silent)??),
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        for part in bytes.chunks(STEP) {
            self.waiting(|stream| stream.write_all(part)).await?;
        }
        Ok(())
    }

    pub(super) async fn say(&mut self, words: &impl Serialize) -> Result<(), Broken> {
        let words = serde_json::to_vec(words).map_err(std::io::Error::other)?;
        let length = u32::try_from(words.len()).map_err(std::io::Error::other)?;
        self.send(&[&length.to_le_bytes()[..], &words].concat()).await
    }

    /// Says that it is at work still.
    pub(super) async fn say_alive(&mut self) -> Result<(), Broken> {
        self.send(&0_u32.to_le_bytes()).await
    }

    pub(super) async fn hear<T: DeserializeOwned>(&mut self) -> Result<T, Broken> {
        let unknown = |why: String| Broken::Unknown(printable(&why));
        loop {
            let mut length = [0; 4];
            self.waiting(|stream| stream.read_exact(&mut length)).await?;
            let length = u32::from_le_bytes(length) as usize;
            if length == 0 {
                continue;
            }
            if length > WORDS_MAX {
                return Err(unknown(format!("{length} bytes of words")));
            }
            let mut words = vec![0; length];
            self.waiting(|stream| stream.read_exact(&mut words)).await?;
            return serde_json::from_slice(&words).map_err(|error| unknown(error.to_string()));
        }
    }

    pub(super) async fn give(&mut self, content: &[u8]) -> Result<(), Broken> {
        self.send(&(content.len() as u64).to_le_bytes()).await?;
        self.send(content).await
    }

    pub(super) async fn take(&mut self) -> Result<Bytes, Broken> {
        let mut length = [0; 8];
        self.waiting(|stream| stream.read_exact(&mut length)).await?;
        let length = u64::from_le_bytes(length);
        if length > FILE_BYTES_MAX {
            return Err(Broken::Unknown(format!("a file of {length} bytes")));
        }
        let length = usize::try_from(length).map_err(std::io::Error::other)?;
        // What is not sent takes no memory.
        let mut content = Vec::new();
        while content.len() < length {
            let more = STEP.min(length - content.len());
            content.reserve(more);
            let part = async |stream: &mut S| stream.take(more as u64).read_buf(&mut content).await;
            if self.waiting(part).await? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
        }
        Ok(Bytes::from(content))
    }
}

fn nobody(socket: &Path, error: &std::io::Error) -> Failure {
    let what = format!("call {}", printable(&socket.to_string_lossy()));
    let failure = Failure::because(Exit::Unexpected, what, error);
    match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
            failure.hint("nobody listens there: seaworthy wal serve SERVICE --socket SOCKET")
        }
        std::io::ErrorKind::PermissionDenied => failure
            .hint("this user may not write to the socket: run seaworthy wal serve with a umask of 0007 and a group that this user is in"),
        _ => failure,
    }
}

fn broken(error: &Broken) -> Failure {
    let exit = if matches!(error, Broken::Stopped) { Exit::Interrupted } else { Exit::Unexpected };
    Failure::because(exit, "wait for the answer of wal serve", error)
        .hint("what it has done meanwhile is not known; asking again is safe")
}

async fn call(
    cancel: &CancellationToken,
    socket: &Path,
    call: &Call,
    content: Option<Bytes>,
) -> Outcome<(Answer, Option<Bytes>)> {
    let connect = tokio::time::timeout(SILENCE, UnixStream::connect(socket));
    let stream = tokio::select! {
        () = cancel.cancelled() => return Err(broken(&Broken::Stopped)),
        stream = connect => stream
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            .map_err(|error| nobody(socket, &error))?,
    };
    let mut line = Line::new(stream, cancel.clone());
    let asked = async {
        line.say(call).await?;
        if let Some(content) = content {
            line.give(&content).await?;
        }
        Ok(())
    };
    let asked: Result<(), Broken> = asked.await;
    // Whoever refuses a call may hang up before all of it was sent; what it has said is there all the same.
    let answer = match (line.hear().await, asked) {
        (Ok(answer), _) => answer,
        (Err(_), Err(error)) | (Err(error), Ok(())) => return Err(broken(&error)),
    };
    let content = match answer {
        Answer::Failed { exit, chain, hint } => {
            // Another version may end in ways that are not known here.
            let known = TABLE.iter().map(|(known, _)| *known).find(|known| known.number() == exit);
            return Err(Failure { exit: known.unwrap_or(Exit::Unexpected), chain, hint });
        }
        Answer::File | Answer::UpTo { .. } => Some(line.take().await.map_err(|error| broken(&error))?),
        Answer::Kept { .. } | Answer::Beyond => None,
    };
    Ok((answer, content))
}

fn unexpected() -> Failure {
    broken(&Broken::Unknown("the answer to another question".to_owned()))
}

fn of_it(of: &WalOf, wish: Wish, file: &LogFile, point: Option<&str>) -> Call {
    Call {
        schema: SCHEMA.to_owned(),
        wish,
        service: of.service.clone(),
        source: of.source.clone(),
        from: of.from.clone(),
        name: file.name.clone(),
        system: file.system,
        point: point.map(str::to_owned),
    }
}

/// Has a file of the log kept. When this ends well, it is durable in the repository.
pub(super) async fn keep(
    cancel: &CancellationToken,
    socket: &Path,
    of: &WalOf,
    file: &LogFile,
    content: Bytes,
) -> Outcome<Pushed> {
    match call(cancel, socket, &of_it(of, Wish::Keep, file, None), Some(content)).await? {
        (Answer::Kept { stored }, None) => Ok(stored.map_or(Pushed::Known, Pushed::Stored)),
        _ => Err(unexpected()),
    }
}

/// Has a file of the log handed over.
pub(super) async fn hand(
    cancel: &CancellationToken,
    socket: &Path,
    of: &WalOf,
    file: &LogFile,
    point: Option<&str>,
) -> Outcome<Handed> {
    match call(cancel, socket, &of_it(of, Wish::Hand, file, point), None).await? {
        (Answer::File, Some(content)) => Ok(Handed::File(content)),
        (Answer::UpTo { until }, Some(content)) => Ok(Handed::UpTo(content, until)),
        (Answer::Beyond, None) => Ok(Handed::Beyond),
        _ => Err(unexpected()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(capacity: usize) -> (Line<tokio::io::DuplexStream>, Line<tokio::io::DuplexStream>) {
        let (one, other) = tokio::io::duplex(capacity);
        (Line::new(one, CancellationToken::new()), Line::new(other, CancellationToken::new()))
    }

    #[tokio::test]
    async fn what_is_said_and_given_arrives() {
        let (mut one, mut other) = pair(7);
        let content: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        let answer = Answer::UpTo { until: Lsn(0x0123_4567) };
        let (said, heard) = tokio::join!(
            async {
                one.say_alive().await?;
                one.say(&answer).await?;
                one.give(&content).await
            },
            async {
                let heard: Answer = other.hear().await?;
                Ok::<_, Broken>((heard, other.take().await?))
            }
        );
        said.unwrap();
        let (heard, taken) = heard.unwrap();
        assert_eq!(heard, answer);
        assert!(taken == content);
    }

    #[tokio::test]
    async fn what_ends_early_or_says_nothing_is_no_answer() {
        let (mut one, mut other) = pair(100);
        one.say(&Answer::File).await.unwrap();
        one.send(&9_u64.to_le_bytes()).await.unwrap();
        one.send(b"half").await.unwrap();
        drop(one);
        assert_eq!(other.hear::<Answer>().await.unwrap(), Answer::File);
        assert!(matches!(other.take().await, Err(Broken::Io(_))));

        let (_one, mut other) = pair(100);
        other.silence = Duration::from_millis(10);
        assert!(matches!(other.hear::<Answer>().await, Err(Broken::Silent)));

        let (mut one, mut other) = pair(100);
        one.send(&u32::MAX.to_le_bytes()).await.unwrap();
        assert!(matches!(other.hear::<Answer>().await, Err(Broken::Unknown(_))));
        let (mut one, mut other) = pair(100);
        one.send(&u64::MAX.to_le_bytes()).await.unwrap();
        assert!(matches!(other.take().await, Err(Broken::Unknown(_))));

        let (_one, mut other) = pair(100);
        other.cancel.cancel();
        assert!(matches!(other.hear::<Answer>().await, Err(Broken::Stopped)));
    }
}
