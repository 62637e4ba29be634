//! `adopt`: what other tools have made. Looks at a directory and says which sets of copies lie there, or at the sets that the
//! configuration has adopted. Their drills are here, too; `drill` calls them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use comfy_table::{Table, presets};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use seaworthy_drivers::source::lying::{self, Seen};
use seaworthy_engine::act::adopt::Judging;
use seaworthy_engine::{AdoptedJob, Sealed};
use seaworthy_interface::{Cx, DriverError};
use seaworthy_model::adopt::judge::{self, Dated, Lying, SIDECAR, Sidecar};
use seaworthy_model::adopt::recognise::{Payload, Shape, Wrapping};
use seaworthy_model::adopt::{AdoptedKind, AdoptedSet, Pattern, SidecarRule, pattern};
use seaworthy_model::config::{self, SourceText};
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::id::{CopyId, RepositoryId, RepositoryName, RunId, ServiceName, SourceName};
use seaworthy_model::point::{PointRule, PointStanding, RecoveryPoint, select};
use seaworthy_model::receipt::{Drill, Outcome as Ending, RepositoryRef, Seed, Selection};
use seaworthy_model::secret::SecretRef;
use seaworthy_model::service::Service;
use seaworthy_model::signature::sha256;
use seaworthy_model::verdict::{CheckOutcome, CheckReport};
use tokio_util::sync::CancellationToken;

use crate::app::{App, run_failure};
use crate::cli::args::{self, Cli, DrillRun};
use crate::cli::drill;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, printable};
use crate::output::{Face, Tone, bytes, count, duration};
use crate::render::drill::instant;
use crate::setup::{self, Setup};
use crate::{state, wiring};

/// Name of the check that a copy is of when it says it is.
const DATE: &str = "date";

/// Looks at a directory, or at the adopted sets of the configuration.
pub(crate) async fn run(
    cli: &Cli,
    face: &Face,
    arguments: &args::Adopt,
    cancel: CancellationToken,
) -> Outcome {
    let cx = super::silent(&cancel);
    match &arguments.path {
        Some(path) => directory(cli, face, &cx, path, arguments).await,
        None => configured(cli, face, &cx).await,
    }
}

// ------------------------------------------------------------------------------------------ a directory

/// Copies of one pattern and one shape.
struct Group {
    pattern: Pattern,
    shape: Shape,
    /// Oldest first.
    copies: Vec<Seen>,
}

/// Groups what lies in a directory by the pattern of its names and by what it is.
fn grouped(seen: Vec<Seen>) -> (Vec<Group>, Vec<Seen>) {
    let (mut groups, mut strangers): (BTreeMap<(String, Shape), Group>, Vec<Seen>) = Default::default();
    for one in seen {
        let Some(pattern) = pattern::suggest(&one.lying.name)
            .filter(|_| one.shape.payload.is_some() || one.shape.is_encrypted())
        else {
            strangers.push(one);
            continue;
        };
        let shape = one.shape.clone();
        groups
            .entry((pattern.as_str().to_owned(), shape.clone()))
            .or_insert_with(|| Group { pattern, shape, copies: Vec::new() })
            .copies
            .push(one);
    }
    (groups.into_values().collect(), strangers)
}

/// A set as it would be configured for a group.
fn suggested(group: &Group, location: &str, zone: &str, name: &str) -> Option<AdoptedSet> {
    let kind = match group.shape.payload? {
        Payload::PgCustom | Payload::PgTar | Payload::PgDirectory | Payload::PgPlain
            if !group.shape.wrappings.contains(&Wrapping::Age) =>
        {
            AdoptedKind::PgDump
        }
        _ => return None,
    };
    let with_digest = group.copies.iter().filter(|copy| copy.lying.has_sidecar).count();
    Some(AdoptedSet {
        name: SourceName::new(name).ok()?,
        kind,
        location: location.to_owned(),
        pattern: group.pattern.clone(),
        zone: group.pattern.is_local().then(|| zone.to_owned()),
        decrypt: group
            .shape
            .is_encrypted()
            .then(|| SecretRef::File("/etc/seaworthy/backup-passphrase".to_owned())),
        iterations: 10_000,
        sidecar: if with_digest == group.copies.len() {
            SidecarRule::Required
        } else {
            SidecarRule::Optional
        },
        stale_after: jiff::SignedDuration::from_hours(26),
        without_rows: Vec::new(),
        may_be_empty: false,
        bin_dir: None,
        checks: Vec::new(),
    })
}

/// A name for a set: the letters of its pattern before the date.
fn name_of(pattern: &Pattern, taken: &[String]) -> String {
    let begin = pattern.as_str().split('{').next().unwrap_or_default();
    let mut name: String = begin
        .to_lowercase()
        .chars()
        .map(|character| if character.is_ascii_alphanumeric() { character } else { '-' })
        .collect();
    name = name.trim_matches('-').chars().take(40).collect();
    if name.is_empty() {
        "nightly".clone_into(&mut name);
    }
    let mut unique = name.clone();
    let mut number = 2;
    while taken.contains(&unique) {
        unique = format!("{name}-{number}");
        number += 1;
    }
    unique
}

/// The set as text for the configuration.
fn as_configuration(service: &str, set: &AdoptedSet) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let part = |name: &str| if name.contains('.') { quoted(name) } else { name.to_owned() };
    let mut text = format!(
        "[services.{}.adopted.{}]\nkind = {}\nlocation = {}\npattern = {}\n",
        part(service),
        part(set.name.as_str()),
        quoted(set.kind.as_str()),
        quoted(&set.location),
        quoted(set.pattern.as_str())
    );
    if let Some(zone) = &set.zone {
        text.push_str(&format!("zone = {}              # of the host that names them\n", quoted(zone)));
    }
    if let Some(decrypt) = &set.decrypt {
        text.push_str(&format!(
            "decrypt = {}   # the passphrase, or the private key: name where yours is\n",
            quoted(&decrypt.to_string())
        ));
    }
    text.push_str(&format!("sidecar = {}\n", quoted(set.sidecar.as_str())));
    text
}

async fn directory(cli: &Cli, face: &Face, cx: &Cx, path: &Path, arguments: &args::Adopt) -> Outcome {
    let path = state::absolute(path)?;
    let now = super::as_of(cli)?;
    let seen = lying::look(cx, &path, |_| true).await?;
    let (groups, strangers) = grouped(seen);
    let zone = TimeZone::system().iana_name().unwrap_or("UTC").to_owned();
    let location = path.display().to_string();
    let service = arguments.service.clone().unwrap_or_else(|| "SERVICE".to_owned());
    let mut names = Vec::new();
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["SET", "PATTERN", "COPIES", "NEWEST", "AGE", "SIZE", "DIGESTS", "WHAT"]);
    let (mut rows, mut sets, mut findings) = (Vec::new(), Vec::new(), Vec::new());
    for group in &groups {
        let name = name_of(&group.pattern, &names);
        names.push(name.clone());
        let set = suggested(group, &location, &zone, &name);
        // A group that cannot be adopted is dated all the same.
        let dating = set.clone().unwrap_or_else(|| AdoptedSet {
            name: SourceName::new("group").expect("`group` is a name"),
            kind: AdoptedKind::PgDump,
            location: location.clone(),
            pattern: group.pattern.clone(),
            zone: Some(zone.clone()),
            decrypt: None,
            iterations: 10_000,
            sidecar: SidecarRule::Optional,
            stale_after: jiff::SignedDuration::from_hours(26),
            without_rows: Vec::new(),
            may_be_empty: false,
            bin_dir: None,
            checks: Vec::new(),
        });
        let heads: BTreeMap<&str, &Seen> =
            group.copies.iter().map(|seen| (seen.lying.name.as_str(), seen)).collect();
        let ordered = judge::in_order(&dating, group.copies.iter().map(|seen| seen.lying.clone()).collect());
        let Some((newest, before)) = ordered.split_last() else { continue };
        let dated = judge::dated(&dating, newest, heads.get(newest.name.as_str()).map(|seen| &seen.head));
        let with_digest = ordered.iter().filter(|copy| copy.has_sidecar).count();
        findings.extend(
            dated
                .findings
                .iter()
                .filter(|finding| finding.code != FindingCode::DateDoubtful || group.pattern.is_dated())
                .cloned(),
        );
        findings.extend(judge::sized(newest, before));
        table.add_row([
            name.clone(),
            printable(group.pattern.as_str()),
            ordered.len().to_string(),
            instant(dated.at),
            age(dated.at, now),
            bytes(newest.size),
            format!("{with_digest} of {}", ordered.len()),
            group.shape.to_string(),
        ]);
        rows.push(serde_json::json!({
            "set": name, "pattern": group.pattern, "copies": ordered.len(), "newest": newest.name, "point": dated.at,
            "size": newest.size, "digests": with_digest, "what": group.shape.to_string(), "can_be_drilled": set.is_some(),
        }));
        sets.push((set, group.shape.to_string(), name));
    }
    if face.json {
        face.json(&serde_json::json!({
            "schema": "seaworthy.adopt/1", "location": location, "data": rows, "findings": findings,
            "not_recognised": strangers.iter().map(|seen| &seen.lying.name).collect::<Vec<_>>(),
        }))?;
    } else {
        let copies: usize = groups.iter().map(|group| group.copies.len()).sum();
        let kinds = count(groups.len(), "set");
        let copies = if copies == 1 { "1 copy".to_owned() } else { format!("{copies} copies") };
        let others = if strangers.is_empty() {
            String::new()
        } else {
            format!(", {} not recognised", strangers.len())
        };
        face.data(format!("{}: {copies} in {kinds}{others}", printable(&location)))?;
        if !rows.is_empty() {
            face.data("")?;
            face.table(&mut table)?;
        }
        for finding in &findings {
            face.data(format!(
                "  {}  → {}",
                face.paint(Tone::Warn, &printable(&finding.to_string())),
                finding.code.remedy()
            ))?;
        }
        for (_, what, name) in sets.iter().filter(|(set, ..)| set.is_none()) {
            face.data(format!("  {name}: {what}: this version does not drill it"))?;
        }
    }
    let texts: Vec<String> =
        sets.iter().filter_map(|(set, ..)| Some(as_configuration(&service, set.as_ref()?))).collect();
    if groups.is_empty() {
        return Err(Failure::new(Exit::NotFound, format!("no copy that is known lies in `{location}`"))
            .hint("directories below it are not searched: name the one that holds the copies"));
    }
    if arguments.write {
        return write(cli, face, arguments.service.as_deref(), &texts);
    }
    if !face.json && !texts.is_empty() {
        face.data(format!(
            "\nto drill {}, add to seaworthy.toml (or let --service NAME --write add it):\n",
            if texts.len() == 1 { "it" } else { "them" }
        ))?;
        for text in &texts {
            face.data(text)?;
        }
        face.data(format!("then: seaworthy drill {service}"))?;
    }
    Ok(if findings.is_empty() { Exit::Ok } else { Exit::Findings })
}

fn age(at: Timestamp, now: Timestamp) -> String {
    Duration::try_from(now.duration_since(at)).map_or_else(|_| "in the future".to_owned(), duration)
}

/// Appends sets to the configuration, after it was read with them and found sound.
fn write(cli: &Cli, face: &Face, service: Option<&str>, texts: &[String]) -> Outcome {
    let Some(service) = service else {
        return Err(Failure::new(Exit::Usage, "--write needs the service that the copies are of")
            .hint("seaworthy adopt PATH --service NAME --write"));
    };
    if texts.is_empty() {
        return Err(Failure::new(Exit::NotFound, "there is no set here that this version can drill"));
    }
    let path = setup::locate(cli)?;
    let mut files = setup::texts(&path)?;
    let root = files.first_mut().ok_or_else(|| Failure::new(Exit::Usage, "there is no configuration"))?;
    let mut text = root.text.clone();
    let gap = if text.ends_with('\n') { "\n" } else { "\n\n" };
    text.push_str(gap);
    text.push_str(&texts.join("\n"));
    *root = SourceText::new(root.name.clone(), text.clone());
    config::parse(&files).map_err(|problems| {
        let failure = setup::refused(face, &problems);
        failure.hint(format!(
            "nothing was written; is `{service}` a service with an owner? Add the sets by hand where they belong"
        ))
    })?;
    if cli.global.dry_run {
        face.data(format!("would add to {}:\n", path.display()))?;
        for text in texts {
            face.data(text)?;
        }
        return Ok(Exit::Ok);
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(&path)
            .map_err(|error| {
                Failure::because(Exit::Unexpected, format!("look at `{}`", path.display()), &error)
            })?
            .permissions(),
    );
    state::write_durably(&path, text.as_bytes(), mode & 0o777)?;
    face.data(format!(
        "added {} to {}; next: seaworthy drill {service}",
        count(texts.len(), "set"),
        path.display()
    ))?;
    Ok(Exit::Ok)
}

// ----------------------------------------------------------------------------------- the configured sets

/// What lies in a set's place, oldest first, and what is wrong with the newest.
struct Look {
    copies: Vec<Seen>,
    newest: Option<Dated>,
    findings: Vec<Finding>,
}

async fn look(cx: &Cx, set: &AdoptedSet, now: Timestamp) -> Result<Look, DriverError> {
    let wanted = set.pattern.clone();
    let seen = lying::look(cx, Path::new(&set.location), move |name| wanted.read(name).is_some()).await?;
    let mut by_name: BTreeMap<String, Seen> =
        seen.into_iter().map(|seen| (seen.lying.name.clone(), seen)).collect();
    let lying: Vec<Lying> = by_name.values().map(|seen| seen.lying.clone()).collect();
    let ordered = judge::in_order(set, lying);
    let copies: Vec<Seen> = ordered.iter().filter_map(|copy| by_name.remove(&copy.name)).collect();
    let mut findings = Vec::new();
    let newest = copies.last().map(|newest| judge::dated(set, &newest.lying, Some(&newest.head)));
    match (&newest, ordered.split_last()) {
        (Some(dated), Some((newest, before))) => {
            findings.extend(dated.findings.iter().cloned());
            findings.extend(judge::aged(set, &newest.name, dated.at, now));
            findings.extend(judge::sized(newest, before));
            if set.sidecar == SidecarRule::Required && !newest.has_sidecar {
                findings.push(Finding::new(
                    FindingCode::SidecarMissing,
                    newest.name.clone(),
                    format!("`{}.sha256` is required and not there", newest.name),
                ));
            }
        }
        _ => findings.push(Finding::new(
            FindingCode::Stale,
            set.name.as_str(),
            format!("nothing in `{}` has a name like `{}`", set.location, set.pattern),
        )),
    }
    Ok(Look { copies, newest, findings })
}

async fn configured(cli: &Cli, face: &Face, cx: &Cx) -> Outcome {
    let setup = setup::load(cli, face)?;
    let now = super::as_of(cli)?;
    let sets: Vec<(&Service, &AdoptedSet)> = setup
        .inventory()
        .services
        .iter()
        .flat_map(|service| service.adopted.iter().map(move |set| (service, set)))
        .collect();
    if sets.is_empty() {
        return Err(Failure::new(Exit::Usage, format!("`{}` adopts nothing", setup.path.display()))
            .hint("look at a directory of copies first: seaworthy adopt PATH"));
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "SERVICE/SET",
        "COPIES",
        "NEWEST",
        "OF",
        "AGE",
        "SIZE",
        "FINDINGS",
    ]);
    let (mut rows, mut all) = (Vec::new(), Vec::new());
    for (service, set) in sets {
        let subject = format!("{}/{}", service.name, set.name);
        let look = match look(cx, set, now).await {
            Ok(look) => look,
            Err(error) => {
                let finding = seaworthy_engine::act::finding_of(&error, &subject);
                let code = if error.code.is_none() { FindingCode::ReadFailed } else { finding.code };
                Look { copies: Vec::new(), newest: None, findings: vec![Finding { code, ..finding }] }
            }
        };
        let codes: Vec<String> = look.findings.iter().map(|finding| finding.code.to_string()).collect();
        let newest = look.copies.last();
        table.add_row([
            subject,
            look.copies.len().to_string(),
            newest.map_or_else(|| "none".to_owned(), |seen| printable(&seen.lying.name)),
            look.newest.as_ref().map_or_else(|| "–".to_owned(), |dated| instant(dated.at)),
            look.newest.as_ref().map_or_else(|| "–".to_owned(), |dated| age(dated.at, now)),
            newest.map_or_else(|| "–".to_owned(), |seen| bytes(seen.lying.size)),
            if codes.is_empty() { "–".to_owned() } else { codes.join(" ") },
        ]);
        rows.push(serde_json::json!({
            "service": service.name, "set": set.name, "copies": look.copies.len(),
            "newest": newest.map(|seen| &seen.lying.name), "point": look.newest.as_ref().map(|dated| dated.at),
            "findings": look.findings,
        }));
        all.extend(look.findings);
    }
    if face.json {
        face.json(&serde_json::json!({ "schema": "seaworthy.adopted/1", "as_of": now, "data": rows }))?;
    } else {
        face.table(&mut table)?;
        for finding in &all {
            face.data(format!(
                "  {}  → {}",
                face.paint(Tone::Warn, &printable(&finding.to_string())),
                finding.code.remedy()
            ))?;
        }
    }
    Ok(if all.is_empty() { Exit::Ok } else { Exit::Findings })
}

// ------------------------------------------------------------------------------------------- their drills

/// How a receipt names the place of a set.
fn place(set: &AdoptedSet) -> Outcome<RepositoryRef> {
    let identity = sha256(format!("adopted\n{}\n{}\n", set.location, set.pattern).as_bytes());
    let name = RepositoryName::new(set.name.as_str())
        .map_err(|error| Failure::because(Exit::Unexpected, "name the set's place", &error))?;
    let hex = identity.0.strip_prefix("sha256:").unwrap_or(&identity.0).to_owned();
    Ok(RepositoryRef { id: RepositoryId(hex), name, medium: None, site: None })
}

/// Says what a drill of the set would do.
pub(crate) async fn plan(face: &Face, cx: &Cx, service: &Service, set: &AdoptedSet) -> Outcome<()> {
    let look = look(cx, set, Timestamp::now()).await?;
    face.data(format!(
        "would drill {}/{}: the newest of {} copies in {}: {}, {} checks of your own, deadline {}",
        service.name,
        set.name,
        look.copies.len(),
        set.location,
        look.copies.last().map_or_else(|| "none".to_owned(), |seen| printable(&seen.lying.name)),
        set.checks.len(),
        duration(drill::deadline(service))
    ))
}

/// Chooses a copy by the rule that a person gave: by its whole name, or by a rule for points.
fn choose<'a>(
    service: &Service,
    set: &AdoptedSet,
    look: &'a Look,
    place: &RepositoryRef,
    arguments: &DrillRun,
) -> Outcome<(&'a Seen, Selection)> {
    let choice = &arguments.choice;
    let window = jiff::SignedDuration::try_from(super::span(&choice.window)?)
        .map_err(|_| Failure::new(Exit::Usage, "--window is too long"))?;
    let seed = match choice.seed {
        Some(seed) => seed,
        None => drill::random()?,
    };
    let is_named = look.copies.iter().any(|seen| seen.lying.name == choice.point);
    let rule = if is_named {
        PointRule::Copy(choice.point.clone())
    } else {
        PointRule::parse(&choice.point, window, Seed(seed))
            .map_err(|error| Failure::because(Exit::Usage, "understand --point", &error))?
    };
    let points: Vec<RecoveryPoint> = look
        .copies
        .iter()
        .enumerate()
        .map(|(index, seen)| {
            let at = judge::dated(set, &seen.lying, Some(&seen.head)).at;
            RecoveryPoint {
                service: service.name.clone(),
                source: set.name.clone(),
                sequence: index as u64,
                run: RunId(String::new()),
                repository: place.clone(),
                copy: CopyId(seen.lying.name.clone()),
                point: at,
                finished: at,
                started: None,
                outcome: Ending::Complete,
                restore_bytes: seen.lying.size,
                stored_bytes: seen.lying.size,
                witness: None,
                standing: PointStanding::Unproven,
                was_found: true,
                replica_of: None,
                is_implausible: false,
                mark: None,
                is_doubted: false,
            }
        })
        .collect();
    let now = Timestamp::now();
    // The newest is the newest by what names say, in the order in which they were given.
    if rule == PointRule::Latest
        && let Some(newest) = look.copies.last()
    {
        let names: String = points.iter().map(|point| format!("{}\n", point.copy)).collect();
        let selection = Selection {
            rule: rule.to_string(),
            seed: None,
            candidates: points.len() as u64,
            candidates_digest: sha256(names.as_bytes()),
        };
        return Ok((newest, selection));
    }
    let chosen = select(&points, &rule, now).map_err(|error| {
        Failure::because(
            Exit::NotFound,
            format!("choose a copy of {}/{} in `{}`", service.name, set.name, set.location),
            &error,
        )
        .hint("--point latest, random, before:TIME, or the whole name of a file there; see `seaworthy adopt`")
    })?;
    let seen = look.copies.iter().find(|seen| seen.lying.name == chosen.point.copy.0);
    let seen = seen.ok_or_else(|| Failure::new(Exit::Unexpected, "the chosen copy is not in the list"))?;
    Ok((seen, chosen.selection))
}

/// Drills one copy of a set and prints what came of it.
pub(crate) async fn drill(
    app: &App,
    face: &Face,
    service: &Service,
    set: &AdoptedSet,
    arguments: &DrillRun,
    cancel: &CancellationToken,
) -> Outcome<Sealed<Drill>> {
    let watch = face.watch(&format!("{}/{}", service.name, set.name));
    let cx = super::context(cancel, watch.sink());
    let now = Timestamp::now();
    let look = look(&cx, set, now).await?;
    if look.copies.is_empty() {
        return Err(Failure::new(
            Exit::NotFound,
            format!(
                "nothing in `{}` has a name like `{}` [{}]",
                set.location,
                set.pattern,
                FindingCode::Stale
            ),
        )
        .hint(format!("seaworthy adopt {}", set.location)));
    }
    let place = place(set)?;
    let (seen, selection) = choose(service, set, &look, &place, arguments)?;
    let name = seen.lying.name.clone();
    watch.step(&format!("chose {name} of {}", count(look.copies.len(), "candidate")));
    let path: PathBuf = Path::new(&set.location).join(&name);
    cx.phase("digest");
    let hashed = lying::digest(&cx, &path).await?;
    let sidecar = lying::sidecar(&cx, &path).await?;
    let dated = judge::dated(set, &seen.lying, Some(&seen.head));
    let is_newest = look.copies.last().is_some_and(|newest| newest.lying.name == name);
    let index = look.copies.iter().position(|other| other.lying.name == name).unwrap_or(0);
    let before: Vec<Lying> = look.copies[..index].iter().map(|seen| seen.lying.clone()).collect();
    let mut findings: Vec<Finding> = judge::sized(&seen.lying, &before).into_iter().collect();
    if is_newest {
        findings.extend(judge::aged(set, &name, dated.at, now));
    }
    let copy = wiring::adopted(set, path)?;
    // A file is some times larger when it is opened, and its database holds indexes, too.
    let factor = if seen.shape.wrappings.is_empty() { 4 } else { 12 };
    let mut judged: Vec<String> = vec![DATE.to_owned()];
    if set.sidecar != SidecarRule::Ignored {
        judged.push(SIDECAR.to_owned());
    }
    let known = app.memory.points(&service.name, &set.name).await?;
    let known = known.iter().find(|point| point.repository.id == place.id && point.copy.0 == hashed.sha256);
    let mut job = AdoptedJob {
        service: service.name.clone(),
        set: set.name.clone(),
        kind: set.kind.as_str().to_owned(),
        place,
        copy: copy.as_ref(),
        sha256: hashed.sha256,
        stored_bytes: hashed.bytes,
        known_by: known.map(|point| point.sequence),
        point: dated.at,
        selection,
        findings,
        judged,
        judging: judging(set.clone(), seen.lying.clone(), sidecar),
        checks: set.checks.clone(),
        objective: service.objective,
        deadline: drill::deadline(service),
        needed_bytes: hashed.bytes.saturating_mul(factor),
        control_seed: drill::random()?,
        next_due: service.drill.schedule.as_ref().and_then(|schedule| schedule.next_after(now)),
        proof_valid: service.drill.proof_valid,
    };
    if job.known_by.is_none() {
        job.known_by = Some(app.runner.found(&job).await.map_err(|error| run_failure(&error))?);
    }
    let sealed =
        app.runner.drill_adopted(&cx, &app.sandboxes, job).await.map_err(|error| run_failure(&error))?;
    watch.sealed(&sealed.receipt, &sealed.body.phases);
    Ok(sealed)
}

/// Judges what was read of a copy: its date, by what it says of itself, and the digest beside it.
fn judging(set: AdoptedSet, copy: Lying, sidecar: Sidecar) -> Judging {
    Box::new(move |fetched| {
        let dated = judge::dated(&set, &copy, Some(&fetched.head));
        let (blaming, beside): (Vec<Finding>, Vec<Finding>) =
            dated.findings.into_iter().partition(|finding| finding.code == FindingCode::PointRolledBack);
        let mut reports = vec![CheckReport {
            name: DATE.to_owned(),
            outcome: if blaming.is_empty() { CheckOutcome::Passed } else { CheckOutcome::Failed },
            detail: format!("`{}` is of {}, {}", printable(&copy.name), instant(dated.at), dated.by.words()),
            findings: blaming,
        }];
        reports.extend(judge::beside(set.sidecar, &copy.name, &sidecar, &fetched.sha256));
        (reports, beside)
    })
}

/// Names of a service's sets, as `status` and `points` list them after its sources.
pub(crate) fn names(service: &Service) -> impl Iterator<Item = &SourceName> {
    service.sources.iter().map(|source| &source.name).chain(service.adopted.iter().map(|set| &set.name))
}

/// Whether a set of this name is wanted.
pub(crate) fn is_wanted(set: &AdoptedSet, arguments: &DrillRun) -> bool {
    arguments.adopted.as_ref().is_none_or(|name| name == set.name.as_str())
}

/// Refuses the name of a set that no service has.
pub(crate) fn known(setup: &Setup, arguments: &DrillRun) -> Outcome<()> {
    let Some(name) = &arguments.adopted else { return Ok(()) };
    let services = setup.services(&arguments.services)?;
    let sets: Vec<&str> =
        services.iter().flat_map(|service| &service.adopted).map(|set| set.name.as_str()).collect();
    if sets.contains(&name.as_str()) {
        return Ok(());
    }
    Err(Failure::new(Exit::Usage, format!("no set of copies is named `{}`", printable(name))).hint(
        if sets.is_empty() {
            "none is adopted yet: seaworthy adopt PATH".to_owned()
        } else {
            format!("known: {}", sets.join(", "))
        },
    ))
}

/// The service of a set, for messages.
pub(crate) fn subject(service: &ServiceName, set: &AdoptedSet) -> String {
    format!("{service}/{}", set.name)
}
