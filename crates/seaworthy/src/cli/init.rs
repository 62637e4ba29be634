//! `init`: finds what can be backed up here, writes a commented configuration, makes the repository.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use inquire::CustomUserError;
use inquire::ui::RenderConfig;
use inquire::validator::Validation;
use seaworthy_model::config::{self, Discovered, DiscoveredPostgres, SCHEMA_FILE, SourceText};
use seaworthy_model::service::RepositorySpec;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::cli::args::{Cli, Init};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, printable};
use crate::output::{Face, count};
use crate::secrets::resolve;
use crate::state::{State, absolute, private_directory, write_durably};
use crate::{discover, setup, wiring};

/// Writes `seaworthy.toml` and makes its repository.
pub(crate) async fn run(cli: &Cli, face: &Face, arguments: &Init, cancel: CancellationToken) -> Outcome {
    let path = match &cli.global.config {
        Some(path) => absolute(path)?,
        None => absolute(Path::new("seaworthy.toml"))?,
    };
    if arguments.missing_repositories {
        return missing_repositories(cli, face, &cancel).await;
    }
    if path.exists() {
        return Err(Failure::new(Exit::Refused, format!("`{}` is there already", path.display()))
            .hint("edit it, or name another one with --config FILE; for repositories that it names and that are not there yet: seaworthy init --missing-repositories"));
    }
    let state = setup::bare_state(cli, face)?;
    let discovered = gather(cli, face, arguments, &state)?;
    let text = config::template(&discovered);
    let parsed = config::parse(&[SourceText::new(path.display().to_string(), text.clone())])
        .map_err(|problems| setup::refused(face, &problems))?;
    if cli.global.dry_run {
        face.data(text)?;
        face.say(format!("would write this to {}", path.display()))?;
        return Ok(Exit::Ok);
    }
    private_directory(&state.directory)?;
    let password_file = PathBuf::from(&discovered.password_file);
    if arguments.password.is_none() && !password_file.exists() {
        write_durably(&password_file, new_password()?.as_bytes(), 0o600)?;
    }
    for spec in parsed.inventory.repositories.values() {
        make(face, spec, &cancel).await?;
    }
    let schema = serde_json::to_string_pretty(&config::schema())
        .map_err(|error| Failure::because(Exit::Unexpected, "spell the schema", &error))?;
    let beside = path.with_file_name(SCHEMA_FILE);
    if !beside.exists() {
        write_durably(&beside, schema.as_bytes(), 0o644)?;
    }
    write_durably(&path, text.as_bytes(), 0o644)?;
    face.say(format!("wrote {} with {}", path.display(), count(parsed.inventory.services.len(), "service")))?;
    face.say(format!(
        "the repository's password is in {}: keep a copy of it where a fire here does not reach it",
        discovered.password_file
    ))?;
    if parsed.inventory.services.is_empty() {
        face.say(format!("next: name what is to be backed up in {}; it holds examples", path.display()))?;
        return Ok(Exit::Ok);
    }
    face.say("next:")?;
    face.say("  seaworthy doctor    what would keep a backup from working here")?;
    face.say("  seaworthy backup    the first copies")?;
    face.say("  seaworthy drill     the first proof")?;
    Ok(Exit::Ok)
}

/// Makes a repository where there is none, and says whether it did.
async fn make(face: &Face, spec: &RepositorySpec, cancel: &CancellationToken) -> Outcome<()> {
    let cx = super::silent(cancel);
    let control = seaworthy_engine::store::control(&cx);
    let secret = resolve(&spec.password)?;
    let making = spec.clone();
    let making = move || match wiring::open(&making, None, &control) {
        Ok(_) => Ok("found"),
        Err(failure) if failure.exit == Exit::NotFound => {
            wiring::init(&making, &secret, &control).map(|_| "made")
        }
        Err(failure) => Err(failure),
    };
    let done = wiring::blocking(making).await?;
    face.say(format!("{done} repository {} at {}", spec.name, spec.location))
}

/// Makes the repositories of an existing configuration; touches nothing else.
async fn missing_repositories(cli: &Cli, face: &Face, cancel: &CancellationToken) -> Outcome {
    let setup = setup::load(cli, face)?;
    for spec in setup.inventory().repositories.values() {
        if cli.global.dry_run {
            face.data(format!("would make repository {} at {} if there is none", spec.name, spec.location))?;
            continue;
        }
        make(face, spec, cancel).await?;
    }
    Ok(Exit::Ok)
}

fn new_password() -> Outcome<Zeroizing<String>> {
    let mut random = Zeroizing::new([0_u8; 32]);
    getrandom::fill(&mut *random)
        .map_err(|error| Failure::new(Exit::Unexpected, format!("get random bytes: {error}")))?;
    let mut text = Zeroizing::new(String::with_capacity(65));
    for byte in random.iter() {
        text.push(char::from_digit(u32::from(byte >> 4), 16).expect("a nibble is a digit"));
        text.push(char::from_digit(u32::from(byte & 15), 16).expect("a nibble is a digit"));
    }
    text.push('\n');
    Ok(text)
}

fn gather(cli: &Cli, face: &Face, arguments: &Init, state: &State) -> Outcome<Discovered> {
    let interactive = std::io::stdin().is_terminal()
        && std::io::stderr().is_terminal()
        && !arguments.non_interactive
        && !cli.global.yes
        && !face.json;
    let mut postgres = Vec::new();
    for address in &arguments.postgres {
        postgres.push(parse_postgres(address)?);
    }
    let mut sqlite: Vec<PathBuf> =
        arguments.sqlite.iter().map(|path| absolute(path)).collect::<Outcome<_>>()?;
    let mut directories: Vec<PathBuf> =
        arguments.files.iter().map(|path| absolute(path)).collect::<Outcome<_>>()?;
    let starts = arguments.look_in.iter().map(|path| absolute(path)).collect::<Outcome<Vec<_>>>()?;
    let found = discover::sqlite_files(&starts);
    for path in found {
        if !sqlite.contains(&path) {
            sqlite.push(path);
        }
    }
    let mut repository = match &arguments.repository {
        Some(path) => {
            let path = absolute(path)?;
            no_store(&path.to_string_lossy())?;
            path
        }
        None => wiring::default_repository(state),
    };
    let is_told = !arguments.postgres.is_empty() || !sqlite.is_empty() || !directories.is_empty();
    if interactive && !is_told {
        ask(face, &mut postgres, &mut sqlite, &mut directories, &mut repository)?;
    }
    if let Some(path) = sqlite.iter().find(|path| !discover::is_sqlite(path)) {
        return Err(Failure::new(Exit::Usage, format!("`{}` is not a SQLite database", path.display())));
    }
    if let Some(path) = directories.iter().find(|path| !path.is_dir()) {
        return Err(Failure::new(Exit::Usage, format!("`{}` is not a directory", path.display())));
    }
    let password_file = match &arguments.password {
        Some(reference) => match reference.strip_prefix("file:") {
            Some(path) => PathBuf::from(path),
            None => {
                return Err(Failure::new(Exit::Usage, "--password takes file:PATH here")
                    .hint("edit the configuration for env:, cmd:, systemd:"));
            }
        },
        None => state.directory.join("repository.key"),
    };
    let text = |path: &PathBuf| {
        path.to_str().map(str::to_owned).ok_or_else(|| {
            Failure::new(
                Exit::Usage,
                format!("`{}` is not valid UTF-8, which a configuration must be", path.display()),
            )
        })
    };
    Ok(Discovered {
        owner: std::env::var("USER").unwrap_or_else(|_| "operations".to_owned()),
        zone: jiff::tz::TimeZone::system().iana_name().unwrap_or("UTC").to_owned(),
        repository: text(&repository)?,
        password_file: text(&password_file)?,
        postgres,
        sqlite: sqlite.iter().map(text).collect::<Outcome<_>>()?,
        directories: directories.iter().map(text).collect::<Outcome<_>>()?,
    })
}

/// `[USER@]HOST[:PORT]/DATABASE`, where HOST may be the directory of a socket.
fn parse_postgres(address: &str) -> Outcome<DiscoveredPostgres> {
    let wrong = || {
        Failure::new(Exit::Usage, format!("`{}` is not an address of a database", printable(address)))
            .hint("write [USER@]HOST[:PORT]/DATABASE, e.g. backup@/run/postgresql/shop")
    };
    let (user, rest) = address.split_once('@').map_or(("postgres", address), |(user, rest)| (user, rest));
    let (place, database) = rest.rsplit_once('/').ok_or_else(wrong)?;
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| wrong())?),
        None => (place, 5432),
    };
    if host.is_empty() || database.is_empty() || user.is_empty() {
        return Err(wrong());
    }
    Ok(DiscoveredPostgres {
        host: host.to_owned(),
        port,
        user: user.to_owned(),
        database: database.to_owned(),
    })
}

pub(super) fn asked<T>(answer: Result<T, inquire::InquireError>) -> Outcome<T> {
    answer.map_err(|error| match error {
        inquire::InquireError::OperationCanceled | inquire::InquireError::OperationInterrupted => {
            Failure::new(Exit::Interrupted, "interrupted; nothing was done")
        }
        error => Failure::because(Exit::Unexpected, "ask", &error)
            .hint("every question has a flag: seaworthy init --help"),
    })
}

/// A bucket needs more than its name: it is written into the configuration.
fn no_store(place: &str) -> Outcome<()> {
    if !["s3:/", "gs:/", "az:/"].iter().any(|scheme| place.contains(scheme)) {
        return Ok(());
    }
    Err(Failure::new(Exit::Usage, "the first repository is made in a directory, not in an object store").hint(
        "begin with a directory; then add the bucket to seaworthy.toml (docs/guide/object-stores.md) and run: seaworthy init --missing-repositories",
    ))
}

/// A path as a person types it: `~/` is the home, which no shell has put in here.
fn typed(text: &str) -> Outcome<PathBuf> {
    let text = text.trim();
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    match (text.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => Ok(home.join(rest)),
        _ => absolute(Path::new(text)),
    }
}

/// Accepts nothing, or a directory that is there: a person who mistyped is asked again, not sent back to the start.
fn nothing_or_directory(text: &str) -> Result<Validation, CustomUserError> {
    if text.trim().is_empty() || typed(text).is_ok_and(|path| path.is_dir()) {
        return Ok(Validation::Valid);
    }
    Ok(Validation::Invalid("there is no such directory".into()))
}

fn ask(
    face: &Face,
    postgres: &mut Vec<DiscoveredPostgres>,
    sqlite: &mut Vec<PathBuf>,
    directories: &mut Vec<PathBuf>,
    repository: &mut PathBuf,
) -> Outcome<()> {
    if face.is_plain() {
        inquire::set_global_render_config(RenderConfig::empty());
    }
    for socket in discover::postgres_sockets() {
        let question = format!(
            "PostgreSQL listens in {} on port {}. Database to back up (empty: none):",
            socket.directory, socket.port
        );
        let database = asked(inquire::Text::new(&question).prompt())?;
        if !database.trim().is_empty() {
            let user = asked(inquire::Text::new("Role that reads it:").with_default("postgres").prompt())?;
            postgres.push(DiscoveredPostgres {
                host: socket.directory,
                port: socket.port,
                user,
                database: database.trim().to_owned(),
            });
        }
    }
    let here = inquire::Text::new("Look for SQLite databases below (empty: nowhere):")
        .with_validator(nothing_or_directory);
    let here = asked(here.prompt())?;
    if !here.trim().is_empty() {
        let found = discover::sqlite_files(&[typed(&here)?]);
        if found.is_empty() {
            face.say("  none there")?;
        } else {
            let names: Vec<String> = found.iter().map(|path| path.display().to_string()).collect();
            let question = inquire::MultiSelect::new("SQLite databases to back up:", names);
            let chosen = asked(question.with_all_selected_by_default().raw_prompt())?;
            sqlite.extend(chosen.into_iter().map(|choice| found[choice.index].clone()));
        }
    }
    loop {
        let directory =
            inquire::Text::new("Directory to back up (empty: no more):").with_validator(nothing_or_directory);
        let directory = asked(directory.prompt())?;
        if directory.trim().is_empty() {
            break;
        }
        let directory = typed(&directory)?;
        if !directories.contains(&directory) {
            directories.push(directory);
        }
    }
    let place = asked(
        inquire::Text::new("Where copies go:").with_default(&repository.display().to_string()).prompt(),
    )?;
    no_store(&place)?;
    *repository = typed(&place)?;
    Ok(())
}
