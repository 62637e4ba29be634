//! What `wal push` and `wal get` say to `wal serve`, and what it answers.
//!
//! Words are sent as their length in four bytes, little-endian, and so much JSON. Who calls sends words, and then one byte with an open file: the
//! one that is to be kept, or the one that is to be written. The file's content never goes through the socket. Whoever answers says words
//! without a byte for as long as it works, then words. Silence for [`SILENCE`] is the end of a call on either side.
//!
//! Whoever may write to the socket may keep and read the log; nothing else can be asked for.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use seaworthy_interface::{LogFile, Pushed};
use seaworthy_model::wal::Lsn;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use super::file::Given;
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
    /// The file was written.
    File { length: u64 },
    /// Its beginning was written, with zeros behind: what is kept ends there.
    UpTo { length: u64, until: Lsn },
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
pub(super) struct Line {
    stream: UnixStream,
    cancel: CancellationToken,
    silence: Duration,
}

impl Line {
    pub(super) fn new(stream: UnixStream, cancel: CancellationToken) -> Self {
        Self { stream, cancel, silence: SILENCE }
    }

    async fn waiting<'a, T, F>(&'a mut self, work: impl FnOnce(&'a mut UnixStream) -> F) -> Result<T, Broken>
    where
        F: Future<Output = std::io::Result<T>> + 'a,
    {
        tokio::select! {
            () = self.cancel.cancelled() => Err(Broken::Stopped),
            done = tokio::time::timeout(self.silence, work(&mut self.stream)) => Ok(done.map_err(|_| Broken::Silent)??),
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.waiting(|stream| stream.write_all(bytes)).await
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

    /// Sends an open file.
    pub(super) async fn give(&mut self, file: &File) -> Result<(), Broken> {
        let send = |stream: &UnixStream| {
            let files = [file.as_fd()];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(&files)) {
                return Err(std::io::Error::other("no room for an open file"));
            }
            Ok(sendmsg(stream, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?)
        };
        self.waiting(|stream| stream.async_io(Interest::WRITABLE, || send(stream))).await.map(|_| ())
    }

    /// Receives an open file.
    pub(super) async fn take(&mut self) -> Result<File, Broken> {
        let receive = |stream: &UnixStream| {
            let mut byte = [0; 1];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
            let mut files = control.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(files) => Some(files),
                _ => None,
            });
            Ok(files.next().and_then(|mut files| files.next()))
        };
        let file = self.waiting(|stream| stream.async_io(Interest::READABLE, || receive(stream))).await?;
        file.map(File::from).ok_or_else(|| Broken::Unknown("no open file".to_owned()))
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

async fn call(cancel: &CancellationToken, socket: &Path, call: &Call, file: &File) -> Outcome<Answer> {
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
        line.give(file).await
    };
    let asked: Result<(), Broken> = asked.await;
    // Whoever refuses a call may hang up before all of it was sent; what was said is there all the same.
    let answer: Answer = match (line.hear().await, asked) {
        (Ok(answer), _) => answer,
        (Err(_), Err(error)) | (Err(error), Ok(())) => return Err(broken(&error)),
    };
    match answer {
        Answer::Failed { exit, chain, hint } => {
            // Another version may end in ways that are not known here.
            let known = TABLE.iter().map(|(known, _)| *known).find(|known| known.number() == exit);
            Err(Failure { exit: known.unwrap_or(Exit::Unexpected), chain, hint })
        }
        answer => Ok(answer),
    }
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
    content: &File,
) -> Outcome<Pushed> {
    match call(cancel, socket, &of_it(of, Wish::Keep, file, None), content).await? {
        Answer::Kept { stored } => Ok(stored.map_or(Pushed::Known, Pushed::Stored)),
        _ => Err(unexpected()),
    }
}

/// Has a file of the log written into an empty one.
pub(super) async fn hand(
    cancel: &CancellationToken,
    socket: &Path,
    of: &WalOf,
    file: &LogFile,
    point: Option<&str>,
    into: &File,
) -> Outcome<Given> {
    let (length, given) = match call(cancel, socket, &of_it(of, Wish::Hand, file, point), into).await? {
        Answer::File { length } => (length, Given::File(length)),
        Answer::UpTo { length, until } => (length, Given::UpTo(length, until)),
        Answer::Beyond => return Ok(Given::Beyond),
        _ => return Err(unexpected()),
    };
    let metadata = into.metadata().map_err(|error| broken(&error.into()))?;
    if metadata.len() != length { Err(unexpected()) } else { Ok(given) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _, Write as _};

    use super::*;

    fn pair() -> (Line, Line) {
        let (one, other) = UnixStream::pair().unwrap();
        (Line::new(one, CancellationToken::new()), Line::new(other, CancellationToken::new()))
    }

    #[tokio::test]
    async fn words_and_open_files_arrive() {
        let (mut one, mut other) = pair();
        let mut file = tempfile::tempfile().unwrap();
        let answer = Answer::UpTo { length: 3, until: Lsn(0x0123_4567) };
        one.say_alive().await.unwrap();
        one.say(&answer).await.unwrap();
        one.give(&file).await.unwrap();
        one.say(&answer).await.unwrap();
        assert_eq!(other.hear::<Answer>().await.unwrap(), answer);
        let mut same = other.take().await.unwrap();
        same.write_all(b"log").unwrap();
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "log");
        assert_eq!(other.hear::<Answer>().await.unwrap(), answer);
    }

    #[tokio::test]
    async fn what_ends_early_or_says_nothing_is_no_answer() {
        let (mut one, mut other) = pair();
        one.send(&[9, 0, 0, 0, b'{']).await.unwrap();
        drop(one);
        assert!(matches!(other.hear::<Answer>().await, Err(Broken::Io(_))));

        let (_one, mut other) = pair();
        other.silence = Duration::from_millis(10);
        assert!(matches!(other.hear::<Answer>().await, Err(Broken::Silent)));
        assert!(matches!(other.take().await, Err(Broken::Silent)));

        let (mut one, mut other) = pair();
        one.send(&u32::MAX.to_le_bytes()).await.unwrap();
        assert!(matches!(other.hear::<Answer>().await, Err(Broken::Unknown(_))));
        // A byte without a file, and no byte.
        let (mut one, mut other) = pair();
        one.send(&[0]).await.unwrap();
        drop(one);
        assert!(matches!(other.take().await, Err(Broken::Unknown(_))));
        assert!(matches!(other.take().await, Err(Broken::Unknown(_))));

        let (_one, mut other) = pair();
        other.cancel.cancel();
        assert!(matches!(other.hear::<Answer>().await, Err(Broken::Stopped)));
    }
}
