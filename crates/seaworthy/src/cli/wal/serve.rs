//! `wal serve`: the repository kept open for `wal push` and `wal get`.
//!
//! What is decided is decided as without it; only the key was derived before, the index read, and the newest copies asked. A directory
//! is listed anew for each call, so that what others have stored or let go of meanwhile is seen.

use std::fs::File;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use seaworthy_interface::{LogFile, Pushed};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::call::{ALIVE, Answer, Broken, Call, Line, SCHEMA, Wish};
use super::file::{Desk, Given, give, read_open};
use crate::cli::args::{Cli, WalOf};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, printable};
use crate::output::Face;
use crate::setup;
use crate::wiring;

/// Calls that are answered at once; each may hold a file of the log. Others wait.
const AT_ONCE: usize = 4;

/// A socket that is ours: nobody else listens there, and it is gone when we are.
struct Place {
    path: PathBuf,
    /// Held as long as we listen.
    _lock: File,
}

impl Drop for Place {
    fn drop(&mut self) {
        // The lock stays: who removes it may remove that of the next one.
        drop(std::fs::remove_file(&self.path));
    }
}

fn listen(path: &Path) -> Outcome<(Place, UnixListener)> {
    let shown = printable(&path.to_string_lossy());
    let failed =
        |error: &std::io::Error| Failure::because(Exit::Unexpected, format!("listen at {shown}"), error);
    let mut beside = path.to_path_buf().into_os_string();
    beside.push(".lock");
    let lock = File::options().create(true).append(true).open(&beside).map_err(|error| failed(&error))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            return Err(Failure::new(Exit::Locked, format!("listen at {shown}: another seaworthy does"))
                .hint("end it first, or choose another socket"));
        }
        Err(error) => return Err(failed(&error.into())),
    }
    // One of a process that was killed; anything else stays, and is told.
    match path.symlink_metadata() {
        Ok(there) if there.file_type().is_socket() => {
            std::fs::remove_file(path).map_err(|error| failed(&error))?;
        }
        Ok(_) => {
            return Err(Failure::new(
                Exit::Refused,
                format!("listen at {shown}: something that is no socket is there"),
            )
            .hint("choose another path"));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(&error)),
    }
    let listener = UnixListener::bind(path).map_err(|error| failed(&error))?;
    Ok((Place { path: path.to_path_buf(), _lock: lock }, listener))
}

fn refusal(failure: Failure) -> Answer {
    Answer::Failed { exit: failure.exit.number(), chain: failure.chain, hint: failure.hint }
}

/// What is wrong with a call, whatever it asks for.
fn misdirected(desk: &Desk, call: &Call) -> Option<Failure> {
    if call.schema != SCHEMA {
        return Some(
            Failure::new(
                Exit::Refused,
                format!("answer: `{}` is not understood, only {SCHEMA}", printable(&call.schema)),
            )
            .hint("both sides must be the same version: restart seaworthy wal serve"),
        );
    }
    let is_it = call.service == desk.service.name.as_str()
        && call.source.as_ref().is_none_or(|source| source == desk.source.name.as_str())
        && call.from.as_ref().is_none_or(|from| from == desk.spec.name.as_str());
    (!is_it).then(|| {
        let asked = [Some(&call.service), call.source.as_ref(), call.from.as_ref()];
        let asked = asked.into_iter().flatten().map(|part| printable(part)).collect::<Vec<_>>().join("/");
        Failure::new(
            Exit::Usage,
            format!("answer for {asked}: this is {} in {}", desk.name(), desk.spec.name),
        )
        .hint("each source has a wal serve, and a socket, of its own")
    })
}

/// Does what is asked.
async fn answer(desk: &Desk, call: &Call, open: File) -> Answer {
    let file = LogFile { name: call.name.clone(), system: call.system };
    let done = match call.wish {
        Wish::Keep => keep(desk, &file, open).await,
        Wish::Hand => hand(desk, &file, call.point.as_deref(), open).await,
    };
    done.unwrap_or_else(refusal)
}

async fn keep(desk: &Desk, file: &LogFile, open: File) -> Outcome<Answer> {
    let name = file.name.clone();
    let content = wiring::blocking(move || read_open(open, &name)).await?;
    Ok(match desk.keep(file, content).await? {
        Pushed::Stored(stored) => Answer::Kept { stored: Some(stored) },
        Pushed::Known => Answer::Kept { stored: None },
    })
}

async fn hand(desk: &Desk, file: &LogFile, point: Option<&str>, open: File) -> Outcome<Answer> {
    let handed = desk.hand(file, point).await?;
    let name = file.name.clone();
    Ok(match wiring::blocking(move || give(&open, handed, &name)).await? {
        Given::File(length) => Answer::File { length },
        Given::UpTo(length, until) => Answer::UpTo { length, until },
        Given::Beyond => Answer::Beyond,
    })
}

async fn converse(desk: Arc<Desk>, stream: UnixStream, cancel: CancellationToken) -> Result<(), Broken> {
    let mut line = Line::new(stream, cancel);
    let call: Call = line.hear().await?;
    if let Some(wrong) = misdirected(&desk, &call) {
        // Another version may go on in another way.
        return line.say(&refusal(wrong)).await;
    }
    let open = line.take().await?;
    let work = answer(&desk, &call, open);
    tokio::pin!(work);
    let mut is_heard = true;
    let words = loop {
        tokio::select! {
            done = &mut work => break done,
            // What was begun is ended, also for somebody who has gone.
            () = tokio::time::sleep(ALIVE) => is_heard = is_heard && line.say_alive().await.is_ok(),
        }
    };
    line.say(&words).await?;
    drop(line);
    if matches!(words, Answer::File { .. }) {
        let file = LogFile { name: call.name.clone(), system: call.system };
        desk.read_ahead(&file, call.point.as_deref()).await;
    }
    Ok(())
}

/// Answers until it is asked to stop.
pub(super) async fn run(
    cli: &Cli,
    face: &Face,
    of: &WalOf,
    socket: &Path,
    cancel: &CancellationToken,
) -> Outcome {
    let setup = setup::load(cli, face)?;
    let shown = printable(&socket.to_string_lossy());
    if cli.global.dry_run {
        let chosen = super::chosen(&setup, of)?;
        face.data(format!(
            "would keep {} open for the log of {}/{}, and listen at {shown}",
            chosen.spec.name, chosen.service.name, chosen.source.name
        ))?;
        return Ok(Exit::Ok);
    }
    seaworthy_syscall::heap::keep_heap_warm();
    let desk = Arc::new(Desk::open(cli, &setup, of, cancel).await?);
    let (place, listener) = listen(socket)?;
    face.say(format!(
        "{} is open for the log of {} at {shown}; Ctrl-C or SIGTERM ends it",
        desk.spec.name,
        desk.name()
    ))?;
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut calls = JoinSet::new();
    let ended = loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => break Ok(Exit::Ok),
            accepted = async {
                let permit = Arc::clone(&room).acquire_owned().await.map_err(std::io::Error::other)?;
                Ok::<_, std::io::Error>((listener.accept().await?.0, permit))
            } => accepted,
            Some(ended) = calls.join_next(), if !calls.is_empty() => {
                // A call that breaks is the caller's to tell; one that panics is told here, and the next one is answered.
                if let Err(error) = ended {
                    face.say(format!("a call has panicked: {error}"))?;
                }
                continue;
            }
        };
        match accepted {
            Ok((stream, permit)) => {
                let (desk, cancel) = (Arc::clone(&desk), cancel.clone());
                calls.spawn(async move {
                    let ended = converse(desk, stream, cancel).await;
                    drop(permit);
                    ended
                });
            }
            Err(error) => {
                let failure = Failure::because(Exit::Unexpected, format!("listen at {shown}"), &error);
                break Err(failure);
            }
        }
    };
    drop((listener, place));
    while calls.join_next().await.is_some() {}
    ended
}
