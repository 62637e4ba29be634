//! `demo`: the main job on a small estate of our own making, then a damaged backup that is caught. No configuration, no
//! server, no network.

mod estate;
mod server;

use std::collections::BTreeSet;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use seaworthy_engine::KnownPlace;
use seaworthy_interface::SandboxProvider as _;
use seaworthy_model::config::{self, SourceText};
use seaworthy_model::ledger::{Known, verify_export};
use seaworthy_model::signature::TrustedKeys;
use seaworthy_model::verdict::{CheckOutcome, Verdict};
use seaworthy_repository::KdfParams;
use tokio_util::sync::CancellationToken;

use self::server::Shop;
use crate::app::{App, Opened, reference, run_failure};
use crate::cli::args::{Choice, Cli, Demo, DrillRun};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, printable};
use crate::output::{Face, Tone, bytes, duration};
use crate::render::drill as render;
use crate::setup::Setup;
use crate::state::{State, private_directory, write_durably};
use crate::{cli, memory, setup, wiring};

/// Where the demo lives, and whether it is removed at the end.
struct Place {
    root: PathBuf,
    keep: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = std::fs::remove_dir_all(&self.root)
        {
            let line = format!("note: `{}` is left over: {error}\n", self.root.display());
            if std::io::stderr().write_all(line.as_bytes()).is_err() {
                // Nobody reads standard error any more.
            }
        }
    }
}

/// Runs the demo. Ends with 0 only if every proof passed and the damage was caught.
pub(crate) async fn run(cli: &Cli, face: &Face, arguments: &Demo, cancel: CancellationToken) -> Outcome {
    let began = Instant::now();
    if cli.global.dry_run {
        return plan(face, arguments);
    }
    let place = place(arguments)?;
    let state = State { directory: place.root.join("state"), scratch: place.root.join("s") };
    private_directory(&state.directory)?;
    let bins = if arguments.no_postgres { None } else { server::binaries() };

    say(face, Tone::Bold, "1. A small estate")?;
    let files = place.root.join("files");
    std::fs::create_dir(&files)
        .map_err(|error| Failure::because(Exit::Unexpected, "make the sample's directory", &error))?;
    estate::files(&files)?;
    face.data(format!(
        "   {} a tree of files with links, holes and names that are not UTF-8: {}",
        mark(face),
        files.display()
    ))?;
    let database = place.root.join("bookings.sqlite");
    let mut live = estate::LiveSqlite::start(&database)?;
    face.data(format!(
        "   {} a SQLite database with a writer that never rests: {}",
        mark(face),
        database.display()
    ))?;
    let cx = cli::silent(&cancel);
    let provider = wiring::sandboxes(&state);
    let shop = match &bins {
        Some(bins) => {
            let needed = 256 << 20;
            let run = seaworthy_model::id::RunId("demo-shop".to_owned());
            let sandbox = provider.open(&cx, &run, needed).await?;
            let shop = Shop::start(&cx, sandbox, bins).await?;
            face.data(format!(
                "   {} a throw-away {} with a shop, sales going on: socket in {}",
                mark(face),
                shop.version,
                shop.socket.display()
            ))?;
            Some(shop)
        }
        None => {
            let why = if arguments.no_postgres {
                "left out on request"
            } else {
                "no PostgreSQL is installed here; the rest does not need it"
            };
            face.data(format!("   {} PostgreSQL: {why}", face.paint(Tone::Dim, "–")))?;
            None
        }
    };

    let setup = configure(face, &place, &state, &files, &database, shop.as_ref())?;
    let app = App::with(setup, face, &cx).await?;
    let result = main_job(face, &app, &cancel, &place).await;
    let written = live.written();
    live.stop()?;
    if let Some(shop) = shop {
        shop.stop().await?;
    }
    let exit = result?;
    face.data(format!(
        "\n   {} in all; the writers committed {written} transactions meanwhile.",
        duration(began.elapsed())
    ))?;
    if place.keep {
        face.data(format!("   Kept in {}.", place.root.display()))?;
    }
    face.data("\nYour own data:\n   seaworthy init      find databases and directories here, write seaworthy.toml\n   seaworthy backup    the first copies\n   seaworthy drill     the first proof")?;
    Ok(exit)
}

fn say(face: &Face, tone: Tone, words: &str) -> Outcome<()> {
    face.data(face.paint(tone, words))
}

fn mark(face: &Face) -> String {
    face.paint(Tone::Good, "✓")
}

/// Says what the demo would do.
fn plan(face: &Face, arguments: &Demo) -> Outcome {
    let root = match &arguments.directory {
        Some(directory) => format!("{}, which is kept", named(directory)?.display()),
        None if arguments.keep => "a new directory in /var/tmp, which is kept".to_owned(),
        None => "a new directory in /var/tmp, which is removed at the end".to_owned(),
    };
    let postgres = match server::binaries() {
        _ if arguments.no_postgres => "PostgreSQL is left out on request",
        Some(_) => "a throw-away PostgreSQL with a shop",
        None => "no PostgreSQL, since none is installed here",
    };
    face.data(format!("would make a small estate in {root}:"))?;
    face.data("  a tree of files, a SQLite database with a writer that never rests")?;
    face.data(format!("  {postgres}"))?;
    face.data("would back each of them up into a local repository there, restore each into isolation and prove that they are equal")?;
    face.data("would then damage a copy and show that the drill fails, and verify all receipts")?;
    face.data("would touch no configuration, no state directory and no network")?;
    Ok(Exit::Ok)
}

/// The directory that was asked for; refused where something lies in it.
fn named(directory: &Path) -> Outcome<PathBuf> {
    let root = crate::state::absolute(directory)?;
    if std::fs::read_dir(&root).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Failure::new(Exit::Refused, format!("`{}` is not empty", root.display()))
            .hint("name a new directory"));
    }
    Ok(root)
}

fn place(arguments: &Demo) -> Outcome<Place> {
    let root = match &arguments.directory {
        Some(directory) => named(directory)?,
        None => {
            let random = getrandom::u32()
                .map_err(|error| Failure::new(Exit::Unexpected, format!("get random bytes: {error}")))?;
            // Short, because a socket's path has 107 bytes; not below a home that other users may not enter.
            PathBuf::from(format!("/var/tmp/swd-{random:08x}"))
        }
    };
    std::fs::create_dir_all(&root)
        .map_err(|error| Failure::because(Exit::Unexpected, format!("make `{}`", root.display()), &error))?;
    // Others may pass through (the sandbox's user must), not look in.
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    std::fs::set_permissions(&root, closed)
        .map_err(|error| Failure::because(Exit::Unexpected, format!("close `{}`", root.display()), &error))?;
    Ok(Place { root, keep: arguments.keep || arguments.directory.is_some() })
}

fn configure(
    face: &Face,
    place: &Place,
    state: &State,
    files: &Path,
    database: &Path,
    shop: Option<&Shop>,
) -> Outcome<Setup> {
    let password = place.root.join("state/repository.key");
    write_durably(&password, b"demo: not a secret\n", 0o600)?;
    let mut text = format!(
        r#"[defaults]
owner = "demo"
tier = "standard"

[repositories.local]
location = "{}"
password = "file:{}"
medium = "disk"
site = "here"

[services.documents.sources.tree]
kind = "files"
paths = ["{}"]

[services.bookings.sources.database]
kind = "sqlite"
path = "{}"
checks = [
  {{ kind = "sql", name = "bookings-have-customers", query = "SELECT count(*) = 0 FROM booking WHERE customer_id NOT IN (SELECT id FROM customer)", expect = "1" }},
  {{ kind = "minimum-rows", name = "bookings", table = "booking", rows = 20000 }},
]
"#,
        place.root.join("repository").display(),
        password.display(),
        files.display(),
        database.display(),
    );
    if let Some(shop) = shop {
        text.push_str(&format!(
            r#"
[services.shop.sources.database]
kind = "postgres"
host = "{}"
port = 5432
user = "postgres"
database = "shop"
checks = [
  {{ kind = "sql", name = "every-line-has-a-product", query = "SELECT NOT EXISTS (SELECT FROM shop.line l LEFT JOIN shop.product p USING (sku) WHERE p.sku IS NULL)" }},
  {{ kind = "minimum-rows", name = "purchases", table = "shop.purchase", rows = 20000 }},
]
"#,
            shop.socket.display()
        ));
    }
    let path = place.root.join("seaworthy.toml");
    write_durably(&path, text.as_bytes(), 0o644)?;
    let parsed = config::parse(&[SourceText::new(path.display().to_string(), text)])
        .map_err(|problems| setup::refused(face, &problems))?;
    for spec in parsed.inventory.repositories.values() {
        let secret = crate::secrets::resolve(&spec.password)?;
        // A small work factor: this password protects nothing, and the demo is not about waiting for it.
        wiring::init_with(spec, &secret, KdfParams { n: 1 << 14, r: 8, p: 1 })?;
    }
    Ok(Setup { path, parsed, state: state.clone() })
}

fn packs(repository: &Path) -> BTreeSet<(u64, PathBuf)> {
    let mut packs = BTreeSet::new();
    for folder in std::fs::read_dir(repository.join("data")).into_iter().flatten().flatten() {
        for pack in std::fs::read_dir(folder.path()).into_iter().flatten().flatten() {
            if let Ok(facts) = pack.metadata() {
                packs.insert((facts.len(), pack.path()));
            }
        }
    }
    packs
}

async fn main_job(face: &Face, app: &App, cancel: &CancellationToken, place: &Place) -> Outcome {
    let repository_path = place.root.join("repository");
    let mut opened = Opened::new(&app.setup.state);
    let mut worst = Exit::Ok;

    say(face, Tone::Bold, "\n2. Back up, while the writers write")?;
    let mut last_packs = BTreeSet::new();
    for service in &app.setup.inventory().services {
        let before = packs(&repository_path);
        for (source, spec) in service.sources.iter().zip(app.setup.repositories(service, None)?) {
            let watch = face.watch(service.name.as_str());
            let cx = cli::context(cancel, watch.sink());
            let repository = opened.get(&cx, spec).await?;
            let subject = wiring::subject(&app.setup.state, service, source)?;
            let sealed = app
                .runner
                .backup(&cx, &subject, &repository, reference(spec, &repository), KnownPlace::default())
                .await
                .map_err(|error| run_failure(&error))?;
            drop(watch);
            if let Some(error) = sealed.error {
                return Err(Failure::from(error));
            }
            let name = format!("{}/{}", service.name, source.name);
            cli::backup_report(face, &name, &sealed.body, &sealed.receipt.digest.0)?;
        }
        last_packs = packs(&repository_path).difference(&before).cloned().collect();
    }

    say(face, Tone::Bold, "\n3. Restore each into isolation, prove that it is equal, doubt the proof")?;
    let latest = || DrillRun {
        services: Vec::new(),
        choice: Choice { point: "latest".to_owned(), window: "30d".to_owned(), seed: None, from: None },
        adopted: None,
        report: None,
        executor: None,
        prove_the_drill: None,
        until: None,
        independent: false,
        password: None,
        restic: None,
    };
    for service in &app.setup.inventory().services {
        for source in &service.sources {
            let sealed =
                cli::drill_one(app, face, &mut opened, service, source, &latest(), None, cancel).await?;
            face.data(render::terminal(face, &sealed.receipt, &sealed.body).trim_end())?;
            if !matches!(sealed.body.verdict, Verdict::Pass(_)) {
                worst = Exit::DrillFailed;
            }
        }
    }

    say(face, Tone::Bold, "\n4. Damage a backup and drill it again")?;
    let victim = app
        .setup
        .inventory()
        .services
        .last()
        .ok_or_else(|| Failure::new(Exit::Unexpected, "the demo has no service"))?;
    let source = victim
        .sources
        .first()
        .ok_or_else(|| Failure::new(Exit::Unexpected, "the demo's service has no source"))?;
    let (size, pack) =
        last_packs.last().ok_or_else(|| Failure::new(Exit::Unexpected, "the last backup stored no pack"))?;
    let offset = size / 2;
    let (before, after) = flip(pack, offset)?;
    face.data(format!(
        "   flipped one bit of byte {offset} of {} ({before:#04x} → {after:#04x}), a pack of {} that {} needs;\n   its name, size and time look as before",
        pack.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
        bytes(*size),
        victim.name
    ))?;
    let sealed = cli::drill_one(app, face, &mut opened, victim, source, &latest(), None, cancel).await?;
    face.data(format!(
        "{}  {}",
        face.paint(Tone::Bad, &render::verdict(sealed.body.verdict)),
        face.paint(Tone::Bold, &render::sentence(&sealed.body))
    ))?;
    for check in sealed.body.checks.iter().filter(|check| check.outcome == CheckOutcome::Failed) {
        for finding in &check.findings {
            face.data(format!("  finding    {}", face.paint(Tone::Bad, &printable(&finding.to_string()))))?;
            face.data(format!("             → {}", finding.code.remedy()))?;
        }
    }
    if sealed.body.verdict == Verdict::Fail {
        face.data(format!("   {} the damage was caught: this is what a drill is for", mark(face)))?;
    } else {
        face.data(format!("   {} the damage was NOT reported as one", face.paint(Tone::Bad, "✗")))?;
        worst = Exit::DrillFailed;
    }

    say(face, Tone::Bold, "\n5. The evidence")?;
    let export = place.root.join("ledger.jsonl");
    let text = memory::export_text(&app.setup.state, false)?;
    write_durably(&export, text.as_bytes(), 0o644)?;
    let key = app.setup.state.public_key()?;
    write_durably(&place.root.join("signing.pub"), key.to_pem().as_bytes(), 0o644)?;
    let report = verify_export(&text, &TrustedKeys::of([key]), &Known::default());
    let head = report.head.as_ref().map_or_else(|| "none".to_owned(), |head| head.digest.to_string());
    let word = if report.is_sound() { mark(face) } else { face.paint(Tone::Bad, "✗") };
    face.data(format!(
        "   {word} {} of {} receipts verified from the public key alone; the newest is\n     {head}",
        report.verified, report.seen
    ))?;
    face.data(format!(
        "   Verify them yourself, offline: seaworthy verify {}{}",
        export.display(),
        if place.keep { "" } else { "   (with `seaworthy demo --keep`)" }
    ))?;
    if !report.is_sound() {
        worst = Exit::Findings;
    }
    Ok(worst)
}

/// Flips the lowest bit of one byte of a file that is otherwise never written again.
fn flip(path: &Path, offset: u64) -> Outcome<(u8, u8)> {
    let failed = |error: std::io::Error| {
        Failure::because(Exit::Unexpected, format!("damage `{}`", path.display()), &error)
    };
    let facts = std::fs::metadata(path).map_err(failed)?;
    let writable = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path, writable).map_err(failed)?;
    let mut file = std::fs::File::options().read(true).write(true).open(path).map_err(failed)?;
    let mut byte = [0_u8];
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    file.read_exact(&mut byte).map_err(failed)?;
    let before = byte[0];
    byte[0] ^= 1;
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    file.write_all(&byte).map_err(failed)?;
    let modified = facts.modified().map_err(failed)?;
    file.set_modified(modified).map_err(failed)?;
    Ok((before, byte[0]))
}
