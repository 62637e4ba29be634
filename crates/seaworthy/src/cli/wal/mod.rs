//! `wal`: a server's log, received all the time; and what of it is kept outside of copies.

mod call;
mod file;
mod serve;

use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use seaworthy_engine::journal::RepositoryJournal;
use seaworthy_engine::store::lineage;
use seaworthy_interface::{Cx, HeldPiece, Journal, Streamed};
use seaworthy_model::service::{RepositorySpec, Service, ServiceSource};
use seaworthy_model::wal::{Stretch, adrift};
use seaworthy_repository::Repository;
use tokio_util::sync::CancellationToken;

use self::file::{Desk, Map};
use crate::app::Opened;
use crate::cli::args::{self, Cli, WalAction};
use crate::cli::restore::pick;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, printable};
use crate::output::{Face, Tone, bytes, count, duration};
use crate::render::drill::instant;
use crate::setup::{self, Setup};
use crate::wiring;

/// How long a byte of the log may wait before it is stored: where that costs a file, and where it costs a request.
const EVERY_LOCAL: Duration = Duration::from_millis(250);
const EVERY_REMOTE: Duration = Duration::from_secs(5);
/// Before the first try to connect again, and at most before every other.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often it is said how far it is: to somebody who watches, and in a log.
const SAY_WATCHED: Duration = Duration::from_secs(1);
const SAY_LOGGED: Duration = Duration::from_secs(60);

/// The journal of a source in a repository.
pub(crate) fn journal(
    cx: &Cx,
    repository: &Repository,
    service: &Service,
    source: &ServiceSource,
) -> Arc<dyn Journal> {
    let lineage = lineage(&wiring::host(), &service.name, &source.name);
    Arc::new(RepositoryJournal::new(cx, repository, lineage))
}

/// What is kept in it, in order.
pub(crate) async fn held(journal: &Arc<dyn Journal>) -> Outcome<Vec<HeldPiece>> {
    let asked = Arc::clone(journal);
    wiring::blocking(move || asked.held().map_err(Failure::from)).await
}

struct Chosen<'s> {
    service: &'s Service,
    source: &'s ServiceSource,
    spec: &'s RepositorySpec,
}

fn chosen<'s>(setup: &'s Setup, of: &args::WalOf) -> Outcome<Chosen<'s>> {
    let service = setup.service(&of.service)?;
    let source = pick(service, of.source.as_deref())?;
    let spec = *setup
        .repositories(service, of.from.as_deref())?
        .first()
        .ok_or_else(|| Failure::new(Exit::Usage, format!("service `{}` has no repository", service.name)))?;
    Ok(Chosen { service, source, spec })
}

/// Carries out one of the actions.
pub(crate) async fn run(cli: &Cli, face: &Face, arguments: &args::Wal, cancel: CancellationToken) -> Outcome {
    match &arguments.action {
        WalAction::Stream { of } => {
            let setup = setup::load(cli, face)?;
            let chosen = chosen(&setup, of)?;
            if cli.global.dry_run {
                face.data(format!(
                    "would receive the log of {}/{} and keep it in {} until a copy holds it",
                    chosen.service.name, chosen.source.name, chosen.spec.name
                ))?;
                return Ok(Exit::Ok);
            }
            stream(face, &setup, &chosen, &cancel).await
        }
        WalAction::Push { of, socket, file } => {
            let asked = file::Asked { cli, face, of, socket: socket.as_deref(), cancel: &cancel };
            file::push(&asked, file).await
        }
        WalAction::Get { of, socket, name, to, point } => {
            let asked = file::Asked { cli, face, of, socket: socket.as_deref(), cancel: &cancel };
            file::get(&asked, name, to, point.as_deref()).await
        }
        WalAction::Serve { of, socket } => serve::run(cli, face, of, socket, &cancel).await,
        WalAction::Status { of } => {
            let setup = setup::load(cli, face)?;
            status(face, &Desk::open(cli, &setup, of, &cancel).await?).await
        }
    }
}

/// How long pieces have waited until they were durable: the last so many of them.
#[derive(Default)]
struct Waits(std::collections::VecDeque<u64>);

impl Waits {
    const KEPT: usize = 100_000;

    fn add(&mut self, waited: Option<Duration>) {
        let Some(waited) = waited else { return };
        if self.0.len() == Self::KEPT {
            self.0.pop_front();
        }
        self.0.push_back(u64::try_from(waited.as_millis()).unwrap_or(u64::MAX));
    }

    /// The longest of the shortest so many per cent; nothing where there are none.
    fn share(&self, percent: usize) -> Option<u64> {
        let mut sorted: Vec<u64> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        let at = (sorted.len() * percent).div_ceil(100).checked_sub(1)?;
        sorted.get(at).copied()
    }
}

/// What is said of a stream.
fn words(told: &Streamed, now: Timestamp) -> String {
    let age = told.complete_at.map_or_else(
        || "not all of the log was here yet".to_owned(),
        |at| {
            let age = Duration::try_from(now.duration_since(at)).unwrap_or_default();
            format!("complete as of {} ago", duration(age))
        },
    );
    let left = told.server.0.saturating_sub(told.durable.0);
    format!(
        "durable to {} ({age}), {} behind the server; {} stored",
        told.durable,
        bytes(left),
        bytes(told.stored.1)
    )
}

/// Receives until it is asked to stop. A connection that breaks is made again; anything else ends it.
async fn stream(face: &Face, setup: &Setup, chosen: &Chosen<'_>, cancel: &CancellationToken) -> Outcome {
    let Chosen { service, source, spec } = *chosen;
    let name = format!("{}/{}", service.name, source.name);
    let watch = face.watch(&name);
    let cx = super::context(cancel, watch.sink());
    let repository = Opened::new(&setup.state).get(&cx, spec).await?;
    let driver = wiring::driver(&setup.state, &source.spec)?;
    let journal = journal(&cx, &repository, service, source);
    let is_local = spec.location.starts_with('/');
    let every = if is_local { EVERY_LOCAL } else { EVERY_REMOTE };
    let say_every = if std::io::stderr().is_terminal() { SAY_WATCHED } else { SAY_LOGGED };
    let last: Mutex<(Option<Streamed>, Option<std::time::Instant>)> = Mutex::default();
    let waits: Mutex<Waits> = Mutex::default();
    let told = |streamed: Streamed| {
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0.is_none_or(|before| before.stored != streamed.stored) {
            waits.lock().unwrap_or_else(PoisonError::into_inner).add(streamed.waited);
        }
        last.0 = Some(streamed);
        if last.1.is_none_or(|said| said.elapsed() >= say_every) {
            last.1 = Some(std::time::Instant::now());
            cx.phase(words(&streamed, Timestamp::now()));
        }
    };
    let lineage = lineage(&wiring::host(), &service.name, &source.name);
    let mut pause = PAUSE;
    loop {
        let began = std::time::Instant::now();
        let ended = driver.stream(&cx, &lineage, Arc::clone(&journal), every, &told).await;
        let known = last.lock().unwrap_or_else(PoisonError::into_inner).0;
        if cancel.is_cancelled() {
            drop(watch);
            let known = known
                .map_or_else(|| "nothing was received".to_owned(), |known| words(&known, Timestamp::now()));
            let waits = waits.lock().unwrap_or_else(PoisonError::into_inner);
            if face.json {
                face.json(&serde_json::json!({
                    "schema": "seaworthy.wal/1", "event": "stopped", "source": name, "state": known,
                    "waited_ms": { "median": waits.share(50), "p99": waits.share(99), "max": waits.share(100) },
                }))?;
            } else {
                face.data(format!(
                    "stopped receiving the log of {name}: {known}; the server keeps the rest"
                ))?;
            }
            return Ok(Exit::Ok);
        }
        let error = match ended {
            Ok(()) => continue,
            Err(error) => error,
        };
        if !error.kind.is_transient() {
            let mut failure = Failure::from(error);
            failure.chain.insert(0, format!("receive the log of {name}"));
            return Err(failure);
        }
        // Whoever received for a while begins anew with short pauses.
        if began.elapsed() > PAUSE_MAX {
            pause = PAUSE;
        }
        cx.phase(format!("connect again in {}: {error}", duration(pause)));
        if cx.run(tokio::time::sleep(pause)).await.is_ok() {
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// Says which moments can be restored, from copies and what is kept behind them. What goes on behind a hole is a finding.
async fn status(face: &Face, desk: &Desk) -> Outcome {
    let Map { stretches: map, apart, untold } = desk.map().await?;
    let adrift = adrift(&map);
    let ended = match (untold.is_empty(), adrift.is_empty()) {
        // What the others hold may lead there.
        (false, _) => Exit::Unknown,
        (true, false) => Exit::Findings,
        (true, true) => Exit::Ok,
    };
    let name = desk.name();
    if face.json {
        let data: Vec<_> = map
            .iter()
            .map(|stretch| {
                serde_json::json!({
                    "system": stretch.system.to_string(), "timeline": stretch.timeline, "from": stretch.from, "to": stretch.to,
                    "copies": stretch.copies, "pieces": stretch.pieces, "is_adrift": adrift.contains(&stretch),
                    "first_moment": stretch.moments.map(|moments| moments.0), "last_moment": stretch.moments.map(|moments| moments.1),
                })
            })
            .collect();
        face.json(&serde_json::json!({
            "schema": "seaworthy.wal/1", "source": name, "repository": desk.spec.name, "data": data,
            "holes": holes(&map).count(), "apart": apart.len(), "untold": untold,
        }))?;
        return Ok(ended);
    }
    if map.is_empty() {
        face.data(format!(
            "nothing of the log of {name} is kept in {}: a copy of a source with mode = \"continuous\" holds it, and seaworthy wal stream {} \
             keeps it from then on",
            desk.spec.name, desk.service.name
        ))?;
    }
    let mut before: Option<&Stretch> = None;
    for stretch in &map {
        let is_same = |other: &&Stretch| (other.system, other.timeline) == (stretch.system, stretch.timeline);
        match before.filter(is_same) {
            None => face.data(format!(
                "{name} in {}: cluster {}, timeline {}",
                desk.spec.name, stretch.system, stretch.timeline
            ))?,
            Some(before) => face.data(format!(
                "  {} to {}  not kept ({})",
                before.to,
                stretch.from,
                bytes(stretch.from.0 - before.to.0)
            ))?,
        }
        let from_where = match (stretch.copies, stretch.pieces) {
            (copies, 0) => count(copies, "copy"),
            (0, pieces) => count(pieces, "piece"),
            (copies, pieces) => format!("{} and {}", count(copies, "copy"), count(pieces, "piece")),
        };
        let moments = stretch.moments.map_or_else(
            || "no copy leads to it".to_owned(),
            |(first, last)| {
                if first == last {
                    format!("the moment {}", instant(first))
                } else {
                    format!("any moment from {} to {}", instant(first), instant(last))
                }
            },
        );
        face.data(format!(
            "  {} to {}  {moments}; {} in {from_where}",
            stretch.from,
            stretch.to,
            bytes(stretch.to.0 - stretch.from.0)
        ))?;
        before = Some(stretch);
    }
    for why in &untold {
        face.data(face.paint(Tone::Warn, &format!("{why}; seaworthy check says what is damaged")))?;
    }
    for stretch in adrift {
        let words = format!(
            "what is received from {} on lies behind a hole: no moment in it can be restored until there is a new copy: seaworthy backup {}",
            stretch.from, desk.service.name
        );
        face.data(face.paint(Tone::Warn, &printable(&words)))?;
    }
    if let Some(last) = apart.iter().filter_map(|piece| piece.apart).max() {
        let size = apart.iter().map(|piece| piece.of.to.0 - piece.of.from.0).sum();
        face.data(format!(
            "  {} ({}) from before the server was put back, last at {}: copies from before lead on to them",
            count(apart.len(), "piece"),
            bytes(size),
            instant(last)
        ))?;
    }
    Ok(ended)
}

/// What is missing between stretches of one timeline.
fn holes(map: &[Stretch]) -> impl Iterator<Item = &[Stretch]> {
    map.windows(2).filter(|pair| (pair[0].system, pair[0].timeline) == (pair[1].system, pair[1].timeline))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_waits_are_those_of_the_last_ones() {
        let mut waits = Waits::default();
        assert_eq!(waits.share(99), None);
        for wait in (1..=200_u64).rev() {
            waits.add(Some(Duration::from_millis(wait)));
        }
        waits.add(None);
        assert_eq!((waits.share(50), waits.share(99), waits.share(100)), (Some(100), Some(198), Some(200)));
        for _ in 0..Waits::KEPT {
            waits.add(Some(Duration::from_millis(7)));
        }
        assert_eq!(waits.share(100), Some(7));
    }
}
