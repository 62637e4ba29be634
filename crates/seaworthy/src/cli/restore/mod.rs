//! `restore`: a copy to a new place, for people. Never to a live source, never over anything.

mod menu;
mod standby;
pub(super) mod until;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use seaworthy_engine::store::SnapshotReader;
use seaworthy_engine::{Moment, RestoreJob};
use seaworthy_interface::{CopyPath, CopyReader, ErrorKind, NewTarget, Opening};
use seaworthy_model::finding::FindingCode;
use seaworthy_model::id::{ServiceName, SourceName};
use seaworthy_model::placement::Answer;
use seaworthy_model::point::RecoveryPoint;
use seaworthy_model::service::{Service, ServiceSource, in_recovery_order};
use seaworthy_model::source::SourceSpec;
use seaworthy_model::wal::{Target, TargetError};
use seaworthy_model::witness::Witness;
use seaworthy_repository::LockKind;
use tokio_util::sync::CancellationToken;

use self::until::Ground;
pub(crate) use self::until::facts;
use crate::app::{App, Opened, reference, run_failure};
use crate::cli::args::{Choice, Cli, Restore};
use crate::cli::drill::Chosen;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, printable};
use crate::memory::Memory;
use crate::output::{Face, Tone, bytes, count, duration};
use crate::render::drill::instant;
use crate::setup::{self, Setup};
use crate::state::absolute;
use crate::wiring;

/// One restore that was asked for.
#[derive(Debug)]
struct Order {
    service: ServiceName,
    source: SourceName,
    choice: Choice,
    /// Whether the copy must come from another site than the live data's.
    offsite: bool,
    to: String,
    tables: Vec<String>,
    files: Vec<PathBuf>,
    /// The moment, where it is not the copy's own.
    until: Option<Target>,
    /// What a server does that is started there.
    opening: Opening,
    /// Where the source lay, of which what is the same is taken.
    reuse: Option<PathBuf>,
}

/// Restores, or says what would be restored; asks a person what was left out.
pub(crate) async fn run(cli: &Cli, face: &Face, arguments: &Restore, cancel: CancellationToken) -> Outcome {
    let setup = setup::load(cli, face)?;
    let orders = orders(cli, face, &setup, arguments).await?;
    if cli.global.dry_run {
        let memory = Memory::open_to_read(cli, &setup.state).await?;
        let mut opened = Opened::new(&setup.state);
        for order in &orders {
            rehearse(face, &setup, &memory, &mut opened, order, &cancel).await?;
        }
        return Ok(Exit::Ok);
    }
    if orders.is_empty() {
        face.say("nothing was restored")?;
        return Ok(Exit::Ok);
    }
    let app = App::with(setup, face, &super::silent(&cancel)).await?;
    let mut opened = Opened::new(&app.setup.state);
    if let [only] = orders.as_slice() {
        return one(face, &app, &mut opened, only, &cancel).await;
    }
    let (mut worst, mut restored) = (Exit::Ok, 0);
    for order in &orders {
        let exit = match one(face, &app, &mut opened, order, &cancel).await {
            Ok(exit) => exit,
            Err(failure) => {
                face.fail(&format!("{}/{}", order.service, order.source), "✗", &failure)?;
                failure.exit
            }
        };
        restored += usize::from(exit == Exit::Ok);
        worst = worst.max(exit);
        if cancel.is_cancelled() {
            break;
        }
    }
    face.say(format!("{restored} of {} restored", count(orders.len(), "source")))?;
    Ok(worst)
}

/// What is to be restored: what the options say, and what a person at a terminal answers where they do not say it all.
async fn orders(cli: &Cli, face: &Face, setup: &Setup, arguments: &Restore) -> Outcome<Vec<Order>> {
    let named = arguments.service.as_deref().map(|name| setup.service(name)).transpose()?;
    if arguments.all {
        let services: Vec<&Service> = match named {
            Some(service) => vec![service],
            None => setup.services(&[])?,
        };
        let to = arguments.to.as_deref().ok_or_else(no_target)?;
        let mut orders = Vec::new();
        for service in in_recovery_order(&services) {
            for source in &service.sources {
                let choice = arguments.choice.clone();
                let order = below(to, &service.name, &source.name, choice, arguments.offsite)?;
                orders.push(Order { until: moment(arguments.until.as_deref())?, ..order });
            }
        }
        if orders.is_empty() {
            return Err(Failure::new(Exit::NotFound, "no source is configured that could be restored")
                .hint("copies that other tools made are restored by those tools; see docs/guide/adopt.md"));
        }
        return Ok(orders);
    }
    if let (Some(service), Some(to)) = (named, &arguments.to) {
        let source = pick(service, arguments.source.as_deref())?;
        let opening = standby::opening(service, source, arguments)?;
        let until = match opening {
            Opening::Alone => moment(arguments.until.as_deref())?,
            Opening::Standby(_) => Some(Target::Latest),
        };
        return Ok(vec![Order {
            service: service.name.clone(),
            source: source.name.clone(),
            choice: arguments.choice.clone(),
            offsite: arguments.offsite,
            to: to.clone(),
            tables: arguments.table.clone(),
            files: arguments.file.clone(),
            until,
            opening,
            reuse: arguments.reuse.as_deref().map(absolute).transpose()?,
        }]);
    }
    let is_watched = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if !is_watched || cli.global.yes || face.json {
        return Err(match named {
            Some(_) => no_target(),
            None => Failure::new(Exit::Usage, "which service is to be restored was not said")
                .hint(format!("name one, or give --all: {}", menu::known(&setup.services(&[])?))),
        });
    }
    let memory = Memory::open_to_read(cli, &setup.state).await?;
    menu::Menu::new(face, setup, &memory, named).await?.ask(cli, arguments)
}

/// The moment that `--until` names.
pub(super) fn moment(until: Option<&str>) -> Outcome<Option<Target>> {
    let parse = |text: &str| {
        text.parse().map_err(|error: TargetError| Failure::because(Exit::Usage, "understand --until", &error))
    };
    until.map(parse).transpose()
}

fn no_target() -> Failure {
    Failure::new(Exit::Usage, "where it is to be restored was not said")
        .hint("name a new directory with --to, or a new database with --to postgres:NAME")
}

/// The restore of one of several sources: each goes to a place of its own.
fn below(
    to: &str,
    service: &ServiceName,
    source: &SourceName,
    choice: Choice,
    offsite: bool,
) -> Outcome<Order> {
    if to.starts_with("postgres:") {
        return Err(Failure::new(Exit::Usage, "several sources do not fit into one database")
            .hint("give a new directory with --to: each goes to SERVICE/SOURCE in it"));
    }
    let to = Path::new(to).join(service.as_str()).join(source.as_str());
    let (tables, files) = (Vec::new(), Vec::new());
    let to = to.to_string_lossy().into_owned();
    Ok(Order {
        service: service.clone(),
        source: source.clone(),
        choice,
        offsite,
        to,
        tables,
        files,
        until: None,
        opening: Opening::Alone,
        reuse: None,
    })
}

/// The source that an order means, and how its copy is chosen.
fn meant<'s>(setup: &'s Setup, order: &Order) -> Outcome<(&'s Service, &'s ServiceSource, Choice)> {
    let service = setup.service(order.service.as_str())?;
    let source = pick(service, Some(order.source.as_str()))?;
    let mut choice = order.choice.clone();
    if order.offsite {
        choice.from = Some(offsite(setup, service)?);
    }
    Ok((service, source, choice))
}

/// The first repository of a service that is known to be at another site than its live data.
fn offsite(setup: &Setup, service: &Service) -> Outcome<String> {
    let live = &service.placement.production;
    for spec in setup.repositories(service, None)? {
        if live.is_at_another_site(&spec.place()) == Answer::Met {
            return Ok(spec.name.to_string());
        }
    }
    Err(Failure::new(
        Exit::NotFound,
        format!("no repository of `{}` is known to be at another site than its live data", service.name),
    )
    .hint(
        "say where both are: `site` of [defaults.production] and of each repository; or name one with --from",
    ))
}

async fn rehearse(
    face: &Face,
    setup: &Setup,
    memory: &Memory,
    opened: &mut Opened,
    order: &Order,
    cancel: &CancellationToken,
) -> Outcome<()> {
    let watch = face.watch(&printable(order.service.as_str()));
    let cx = super::context(cancel, watch.sink());
    let (service, source, choice) = meant(setup, order)?;
    let target = target(source, order)?;
    let ground = Ground { face, setup, memory, cx: &cx, service, source, choice: &choice };
    let (chosen, _) = chosen(&ground, opened, order).await?;
    watch.step(&chosen.words());
    vacant(&target)?;
    if let Some(old) = &order.reuse {
        readable(old)?;
    }
    let words = describe(&target);
    if matches!(target, NewTarget::Database { .. }) {
        let reader: Arc<dyn CopyReader> =
            Arc::new(SnapshotReader::new(&cx, &chosen.repository, &chosen.point.copy)?);
        let witness = witness_of(face, &reader, &chosen.point).await?;
        wiring::driver(&setup.state, &source.spec)?.ready(&cx, &witness, &target).await?;
    }
    drop(watch);
    let moment = order
        .until
        .as_ref()
        .map_or_else(String::new, |until| format!(", recovered to {}", printable(&until.to_string())));
    face.data(format!(
        "would {} {}/{} as of {}{moment} ({}) from repository {} to {words}; nothing there may exist yet",
        match order.opening {
            Opening::Alone => "restore",
            Opening::Standby(_) => "make a standby of",
        },
        service.name,
        source.name,
        instant(chosen.point.point),
        bytes(chosen.point.restore_bytes),
        chosen.spec.name
    ))
}

/// The copy that an order means, and those behind it whose logs lead to its moment.
async fn chosen(
    ground: &Ground<'_>,
    opened: &mut Opened,
    order: &Order,
) -> Outcome<(Chosen, Vec<(Witness, Arc<dyn CopyReader>)>)> {
    if let Some(until) = &order.until {
        return ground.choose(opened, until).await;
    }
    let Ground { setup, memory, cx, service, source, choice, .. } = *ground;
    let chosen = super::drill::choose(setup, memory, cx, opened, service, source, choice).await?;
    Ok((chosen, Vec::new()))
}

async fn one(
    face: &Face,
    app: &App,
    opened: &mut Opened,
    order: &Order,
    cancel: &CancellationToken,
) -> Outcome {
    let watch = face.watch(&printable(order.service.as_str()));
    let cx = super::context(cancel, watch.sink());
    let (service, source, choice) = meant(&app.setup, order)?;
    let target = target(source, order)?;
    let ground =
        Ground { face, setup: &app.setup, memory: &app.memory, cx: &cx, service, source, choice: &choice };
    let (chosen, behind) = chosen(&ground, opened, order).await?;
    watch.step(&chosen.words());
    let words = describe(&target);
    let subject = wiring::subject(&app.setup.state, service, source)?;
    let locked = chosen.repository.clone();
    let control = seaworthy_engine::store::control(&cx);
    let what = format!("lock repository `{}` for reading", chosen.spec.name);
    let lock = wiring::blocking(move || {
        locked.lock(LockKind::Shared, &control).map_err(|error| wiring::repository_failure(&what, error))
    })
    .await?;
    let mut reader: Arc<dyn CopyReader> =
        Arc::new(SnapshotReader::new(&cx, &chosen.repository, &chosen.point.copy)?);
    let witness = witness_of(face, &reader, &chosen.point).await?;
    let mut reused = None;
    if let Some(old) = &order.reuse {
        let places = subject.driver.old_places(&witness, old);
        let reusing = SnapshotReader::new(&cx, &chosen.repository, &chosen.point.copy)?;
        let reusing = reusing.reusing(reusable(&target, old, places)?);
        reused = Some(reusing.reused());
        reader = Arc::new(reusing);
    }
    let paths = order.files.iter().map(|path| copy_path(path)).collect::<Outcome<Vec<_>>>()?;
    let job = RestoreJob {
        copy: chosen.point.copy.clone(),
        backup: Some(chosen.point.sequence),
        point: chosen.point.point,
        selection: chosen.selection,
        witness,
        reader,
        target,
        target_words: words.clone(),
        paths,
        until: order.until.clone().map(|until| Moment {
            until,
            behind,
            journal: crate::cli::wal::journal(&cx, &chosen.repository, service, source),
        }),
        opening: order.opening.clone(),
    };
    let place = reference(&chosen.spec, &chosen.repository);
    let sealed = app.runner.restore(&cx, &subject, place, job).await.map_err(|error| run_failure(&error))?;
    watch.sealed(&sealed.receipt, &sealed.body.phases);
    drop(watch);
    wiring::unlock(lock).await?;
    if face.json {
        face.json(&serde_json::json!({ "schema": "seaworthy.restore/1", "event": "summary", "receipt": sealed.receipt.sequence, "digest": sealed.receipt.digest, "restore": sealed.body }))?;
    }
    if let Some(mut error) = sealed.error {
        // A path that a person asked for and that the copy does not hold is no damage.
        let is_unknown_path = !order.files.is_empty()
            && error.kind == ErrorKind::NotFound
            && error.code == Some(FindingCode::ObjectMissing);
        if is_unknown_path {
            error.code = None;
        }
        let mut failure = Failure::from(error);
        if is_unknown_path {
            failure.hint = Some(
                "--file takes a path as it was when it was backed up, e.g. /srv/files/letter.txt".to_owned(),
            );
        }
        failure.chain.insert(0, format!("restore {}/{} to {words}", service.name, source.name));
        return Err(failure);
    }
    if !face.json {
        let took = std::time::Duration::try_from(Timestamp::now().duration_since(sealed.body.started))
            .unwrap_or_default();
        face.data(format!(
            "{} restored {}/{} as of {} to {words} in {}: {} files, {}",
            face.paint(Tone::Good, "✓"),
            service.name,
            source.name,
            sealed
                .body
                .until
                .as_ref()
                .map_or_else(|| instant(sealed.body.point), |until| printable(&until.to_string())),
            duration(took),
            sealed.body.written_files,
            bytes(sealed.body.written_bytes)
        ))?;
        if let (Some(reused), Some(old)) = (reused, &order.reuse) {
            face.data(format!(
                "    {} of it were the same in `{}`, {} were fetched",
                bytes(reused.load(std::sync::atomic::Ordering::Relaxed)),
                printable(&old.to_string_lossy()),
                bytes(sealed.body.fetched_bytes)
            ))?;
        }
        for finding in &sealed.body.findings {
            face.data(format!("    {}", face.paint(Tone::Warn, &printable(&finding.to_string()))))?;
        }
        if !sealed.summary.is_empty() {
            face.say(printable(&sealed.summary))?;
        }
        if !sealed.summary.contains("equal to its witness") {
            face.say(
                "this restore was not compared with its witness; `seaworthy drill` does that in isolation",
            )?;
        }
    }
    Ok(Exit::Ok)
}

/// What a copy says of itself; without it this program cannot restore the copy.
async fn witness_of(face: &Face, reader: &Arc<dyn CopyReader>, point: &RecoveryPoint) -> Outcome<Witness> {
    let (witness, doubts) = super::drill::witness(reader, point).await;
    if let Some((witness, _)) = witness {
        return Ok(witness);
    }
    if let Some(said) = super::drill::witness_unsigned(reader, point).await {
        face.say("note: this copy was found without a receipt, and nobody known here has signed it; it is restored as it says itself")?;
        return Ok(said);
    }
    let doubt = doubts.first();
    let words = doubt.map_or_else(|| "the copy has no witness".to_owned(), ToString::to_string);
    let is_unreadable = doubt.is_some_and(|doubt| doubt.code != FindingCode::NoWitness);
    let (what, hint) = if is_unreadable {
        (
            "the copy cannot be restored whole: what it says of itself cannot be read",
            "take another copy (seaworthy points); what is left of this one stock restic restores: restic restore SNAPSHOT",
        )
    } else {
        (
            "this version does not know how to restore the copy",
            "stock restic can: restic restore SNAPSHOT, then read .seaworthy/RESTORE.txt",
        )
    };
    Err(Failure::new(Exit::Unknown, format!("{what}: {}", printable(&words))).hint(hint))
}

pub(crate) fn pick<'a>(service: &'a Service, name: Option<&str>) -> Outcome<&'a ServiceSource> {
    let known: Vec<&str> = service.sources.iter().map(|source| source.name.as_str()).collect();
    match (name, service.sources.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => {
            Err(Failure::new(Exit::Usage, format!("service `{}` has several sources", service.name))
                .hint(format!("name one with --source: {}", known.join(", "))))
        }
        (Some(name), sources) => {
            sources.iter().find(|source| source.name.as_str() == name).ok_or_else(|| {
                Failure::new(
                    Exit::Usage,
                    format!("service `{}` has no source `{}`", service.name, printable(name)),
                )
                .hint(format!("known: {}", known.join(", ")))
            })
        }
    }
}

/// Where parts of the copy lie already. What cannot be taken from there is refused before anything is done.
fn reusable(
    target: &NewTarget,
    old: &Path,
    places: Vec<(CopyPath, PathBuf)>,
) -> Outcome<Vec<(CopyPath, PathBuf)>> {
    if places.is_empty() || !matches!(target, NewTarget::Directory(_)) {
        return Err(Failure::new(
            Exit::Usage,
            "--reuse is for a tree of files and for a base backup of PostgreSQL, into a directory: nothing else lies in a copy as it lies on a disk",
        ));
    }
    readable(old)?;
    Ok(places)
}

/// Refuses an old place that is not there.
fn readable(old: &Path) -> Outcome<()> {
    std::fs::read_dir(old).map(drop).map_err(|error| {
        let named = printable(&old.to_string_lossy());
        Failure::because(Exit::NotFound, format!("read `{named}`, which is to be reused"), &error)
            .hint("without --reuse all of the copy is fetched")
    })
}

/// Refuses a directory in which something lies, as the restore itself would.
fn vacant(target: &NewTarget) -> Outcome<()> {
    let NewTarget::Directory(directory) = target else { return Ok(()) };
    match std::fs::read_dir(directory).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Ok(false) => Err(Failure::new(
            Exit::Refused,
            format!("would be refused: `{}` is not empty", printable(&directory.to_string_lossy())),
        )
        .hint("name a new directory with --to")),
        Err(error) => Err(Failure::because(
            Exit::Refused,
            format!("would be refused: look into `{}`", printable(&directory.to_string_lossy())),
            &error,
        )),
    }
}

fn copy_path(path: &Path) -> Outcome<CopyPath> {
    use std::os::unix::ffi::OsStrExt as _;
    let bytes = path.as_os_str().as_bytes();
    let relative = bytes.strip_prefix(b"/").unwrap_or(bytes);
    CopyPath::new(relative).ok_or_else(|| {
        Failure::new(
            Exit::Usage,
            format!("`{}` is not a path inside a copy", printable(&path.to_string_lossy())),
        )
    })
}

/// Reads `--to`. What looks like a database is one only for a source that is one.
fn target(source: &ServiceSource, order: &Order) -> Outcome<NewTarget> {
    let to = order.to.as_str();
    let is_postgres = matches!(source.spec, SourceSpec::Postgres(_));
    if let Some(address) = to.strip_prefix("postgres:") {
        if !is_postgres {
            return Err(Failure::new(
                Exit::Usage,
                format!("source `{}` is not a PostgreSQL database", source.name),
            )
            .hint("give a new directory with --to"));
        }
        if !order.files.is_empty() {
            return Err(Failure::new(Exit::Usage, "--file restores into a directory, not into a database"));
        }
        return database(address, order.tables.clone());
    }
    if !order.tables.is_empty() {
        return Err(
            Failure::new(Exit::Usage, "--table restores into a new database").hint("--to postgres:NAME")
        );
    }
    Ok(NewTarget::Directory(absolute(&PathBuf::from(to))?))
}

/// `NAME`, or `//[USER@]HOST[:PORT]/NAME`.
fn database(address: &str, tables: Vec<String>) -> Outcome<NewTarget> {
    let wrong = || {
        Failure::new(
            Exit::Usage,
            format!("`postgres:{}` is not an address of a database", printable(address)),
        )
        .hint("write postgres:NAME or postgres://[USER@]HOST[:PORT]/NAME")
    };
    let (server, name) = match address.strip_prefix("//") {
        None => (None, address),
        Some(rest) => {
            let (server, name) = rest.rsplit_once('/').ok_or_else(wrong)?;
            (Some(server), name)
        }
    };
    if name.is_empty() || name.starts_with('-') || name.contains(['=', '/', '\0']) {
        return Err(wrong());
    }
    let (user, place) = match server
        .map(|server| server.split_once('@').map_or((None, server), |(user, place)| (Some(user), place)))
    {
        None => (None, None),
        Some((user, place)) => (user, Some(place)),
    };
    let (host, port) = match place {
        None => (None, None),
        Some(place) => match place.rsplit_once(':') {
            Some((host, port)) => (Some(host), Some(port.parse().map_err(|_| wrong())?)),
            None => (Some(place), None),
        },
    };
    Ok(NewTarget::Database {
        host: host.filter(|host| !host.is_empty()).map(str::to_owned),
        port,
        user: user.map(str::to_owned),
        database: name.to_owned(),
        tables,
    })
}

fn describe(target: &NewTarget) -> String {
    match target {
        NewTarget::Directory(path) => format!("`{}`", printable(&path.to_string_lossy())),
        NewTarget::Database { host, database, tables, .. } => {
            let place = host.as_deref().unwrap_or("the source's own server");
            let what = if tables.is_empty() { String::new() } else { format!(" ({} tables)", tables.len()) };
            format!("the new database `{}` on {}{what}", printable(database), printable(place))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_a_name_never_a_connection_string() {
        assert!(database("restored", Vec::new()).is_ok());
        assert!(database("//me@db:5433/restored", Vec::new()).is_ok());
        for hostile in ["", "-x", "host=evil dbname=x", "//h:p/x", "//h/", "a/b"] {
            assert!(database(hostile, Vec::new()).is_err(), "{hostile:?}");
        }
    }
}
