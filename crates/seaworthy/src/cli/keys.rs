//! `keys`: who can open a repository. Every change, and every check, is sealed in the ledger; no password is shown or kept.

use std::io::IsTerminal as _;
use std::ops::ControlFlow;
use std::time::Duration;

use jiff::Timestamp;
use seaworthy_interface::Cx;
use seaworthy_model::custody::{Custody, KeySpec, Row, Standing};
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::id::{KeyFileId, KeyName};
use seaworthy_model::receipt::{Act, KeyDeed, Receipt, RepositoryKey};
use seaworthy_model::secret::{SecretRef, SecretRefError};
use seaworthy_model::service::RepositorySpec;
use seaworthy_repository::{
    Control, FileKind, KdfParams, KeyId, LockKind, Repository, RepositoryError, SnapshotPath,
};
use tokio_util::sync::CancellationToken;

use crate::app::{App, reference};
use crate::cli::args::{Cli, Keys, KeysAction, Whose};
use crate::custody;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, printable};
use crate::output::{Face, Tone, count, duration};
use crate::render::drill::instant;
use crate::secrets::{Secret, resolve};
use crate::setup::{self, Setup};
use crate::wiring;

/// Lists, adds, rotates, checks or removes keys.
pub(crate) async fn run(cli: &Cli, face: &Face, arguments: &Keys, cancel: CancellationToken) -> Outcome {
    let cx = super::silent(&cancel);
    // It may stand before the action, as it always could, or after it.
    let only = |of: &Whose| of.repository.clone().or_else(|| arguments.of.repository.clone());
    match &arguments.action {
        KeysAction::List { of } => list(cli, face, only(of).as_deref(), &cx).await,
        KeysAction::Add { password, name, of } => {
            add(cli, face, only(of).as_deref(), password, name.as_deref(), &cx).await
        }
        KeysAction::Rotate { password, now, of } => {
            rotate(cli, face, only(of).as_deref(), password, *now, &cx).await
        }
        KeysAction::Check { name, password, of } => {
            check(cli, face, only(of).as_deref(), name, password.as_deref(), &cx).await
        }
        KeysAction::Remove { id, of } => remove(cli, face, only(of).as_deref(), id, &cx).await,
    }
}

/// One line about a key's receipt.
pub(super) fn sentence(act: &RepositoryKey) -> String {
    let key = act.key.as_ref().map_or_else(|| "a key".to_owned(), |key| format!("key {}", short(key)));
    let held = match (&act.name, &act.holder) {
        (Some(name), Some(holder)) => format!(" ({name}, held by {holder})"),
        (Some(name), None) => format!(" ({name})"),
        (None, _) => String::new(),
    };
    let place = &act.repository.name;
    match (act.deed, &act.key, act.findings.first()) {
        (KeyDeed::Added, _, _) => format!("{key}{held} was added to repository {place}"),
        (KeyDeed::Removed, _, _) => format!("{key}{held} was removed from repository {place}"),
        (KeyDeed::Checked, Some(_), None) => format!("{key}{held} opens repository {place}"),
        (KeyDeed::Checked, Some(_), Some(finding)) => {
            format!(
                "{key}{held} opens repository {place}, and is not the one that was asked for ({})",
                finding.code
            )
        }
        (KeyDeed::Checked, None, _) => {
            format!("the password of {key}{held} opens NOTHING in repository {place}")
        }
    }
}

fn short(id: &KeyFileId) -> &str {
    id.0.get(..8).unwrap_or(&id.0)
}

/// The repository that was named, or the only one.
pub(super) fn one<'s>(setup: &'s Setup, only: Option<&str>) -> Outcome<&'s RepositorySpec> {
    if let Some(name) = only {
        return setup.repository(name);
    }
    let mut all = setup.inventory().repositories.values();
    match (all.next(), all.next()) {
        (Some(spec), None) => Ok(spec),
        (None, _) => Err(Failure::new(Exit::Usage, "the configuration names no repository")),
        (Some(_), Some(_)) => Err(Failure::new(Exit::Usage, "there are several repositories")
            .hint("name one with --repository NAME")),
    }
}

fn reference_of(text: &str, flag: &str) -> Outcome<SecretRef> {
    text.to_owned()
        .try_into()
        .map_err(|error: SecretRefError| Failure::because(Exit::Usage, format!("understand {flag}"), &error))
}

// ------------------------------------------------------------------------------------------------------- list

async fn list(cli: &Cli, face: &Face, only: Option<&str>, cx: &Cx) -> Outcome {
    let setup = setup::load(cli, face)?;
    let specs: Vec<&RepositorySpec> = match only {
        Some(name) => vec![setup.repository(name)?],
        None => setup.inventory().repositories.values().collect(),
    };
    let receipts = custody::receipts(&setup).await?;
    let (mut rows, mut findings) = (Vec::new(), Vec::new());
    let mut worst = Exit::Ok;
    for spec in &specs {
        let looked = async {
            let repository = wiring::open_repository(cx, spec, None).await?;
            custody::look(cx, &setup, spec, &repository, &receipts).await
        };
        let standing = match looked.await {
            Ok(standing) => standing,
            Err(failure) => {
                let mark = face.paint(Tone::Bad, "✗ NOT LOOKED AT");
                face.fail(&format!("repository {}", spec.name), &mark, &failure)?;
                worst = failure.exit;
                continue;
            }
        };
        if standing.all().next().is_some() && worst == Exit::Ok {
            worst = Exit::Findings;
        }
        if face.json {
            rows.extend(standing.rows.iter().map(|row| json(spec, row)));
            findings.extend(standing.all().cloned());
        } else if !face.is_quiet() || standing.all().next().is_some() {
            show(face, spec, &standing)?;
        }
    }
    if face.json {
        let name = match specs.as_slice() {
            [spec] => Some(&spec.name),
            _ => None,
        };
        face.json(&serde_json::json!({
            "schema": "seaworthy.keys/1", "repository": name, "data": rows, "findings": findings,
        }))?;
    }
    Ok(worst)
}

fn json(spec: &RepositorySpec, row: &Row) -> serde_json::Value {
    let key = row.seen.as_ref();
    let entry = row.registered.as_ref();
    let maker = key.and_then(|key| key.made_by.split_once('@'));
    serde_json::json!({
        "repository": spec.name,
        "id": key.map(|key| &key.id),
        "username": maker.map(|(user, _)| user),
        "hostname": maker.map(|(_, host)| host),
        "created": key.and_then(|key| key.created),
        "current": key.is_some_and(|key| key.is_used),
        "name": entry.map(|entry| &entry.name),
        "custody": entry.map(|entry| entry.custody),
        "holder": entry.map(|entry| &entry.holder),
        "place": entry.and_then(|entry| entry.place.as_ref()),
        "checked": row.checked,
        "findings": row.findings,
    })
}

fn ago(at: Timestamp) -> String {
    let age = Duration::try_from(Timestamp::now().duration_since(at)).unwrap_or_default();
    format!("{} ago", duration(age))
}

fn show(face: &Face, spec: &RepositorySpec, standing: &Standing) -> Outcome<()> {
    let keys = standing.rows.iter().filter(|row| row.seen.is_some()).count();
    let title = format!("repository {}", spec.name);
    face.data(format!(
        "{}  {} in {}, {} in the register",
        face.paint(Tone::Bold, &title),
        count(keys, "key"),
        printable(&spec.location),
        spec.keys.len()
    ))?;
    let cells: Vec<[String; 4]> = standing.rows.iter().map(cells).collect();
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    for (row, [name, key, held, how]) in standing.rows.iter().zip(&cells) {
        let mark = match (&row.registered, row.findings.is_empty()) {
            (_, false) => face.paint(Tone::Warn, "!"),
            (Some(_), true) => face.paint(Tone::Good, "✓"),
            // Nobody has said whose it is: that is neither good nor this key's fault.
            (None, true) => "·".to_owned(),
        };
        let [first, second, third] = widths;
        face.data(format!("  {mark} {name:<first$}  {key:<second$}  {held:<third$}  {how}").trim_end())?;
    }
    for finding in standing.all() {
        face.data(format!("  {} {}", face.paint(Tone::Warn, "finding"), printable(&finding.to_string())))?;
        face.data(format!("          → {}", finding.code.remedy()))?;
    }
    Ok(())
}

/// Name and custody, key, holder and place, how it was last seen to work.
fn cells(row: &Row) -> [String; 4] {
    let name = row
        .registered
        .as_ref()
        .map_or_else(|| "not registered".to_owned(), |entry| format!("{} ({})", entry.name, entry.custody));
    let key = row.seen.as_ref().map_or_else(|| "no such key".to_owned(), |key| short(&key.id).to_owned());
    let held = match (&row.registered, &row.seen) {
        (Some(entry), _) => match &entry.place {
            Some(place) => format!("{}; {}", printable(&entry.holder), printable(place)),
            None => printable(&entry.holder),
        },
        (None, Some(key)) => format!(
            "made by {}{}",
            printable(&key.made_by),
            key.created.map_or_else(String::new, |at| format!(" at {}", instant(at)))
        ),
        (None, None) => String::new(),
    };
    let how = match (&row.seen, row.checked) {
        (Some(key), _) if key.is_used => "opened the repository just now".to_owned(),
        (_, Some(at)) => format!("shown to open it {}", ago(at)),
        (Some(_), None) => "not shown to open it".to_owned(),
        (None, None) => String::new(),
    };
    [name, key, held, how]
}

// ------------------------------------------------------------------------------------------------ what is shared

/// What a receipt says of a key: who holds it, by the register.
fn body(
    spec: &RepositorySpec,
    repository: &Repository,
    deed: KeyDeed,
    key: Option<KeyFileId>,
    entry: Option<&KeySpec>,
    keys: Vec<KeyFileId>,
) -> RepositoryKey {
    RepositoryKey {
        repository: reference(spec, repository),
        deed,
        key,
        other: None,
        name: entry.map(|entry| entry.name.clone()),
        custody: entry.map(|entry| entry.custody),
        holder: entry.map(|entry| entry.holder.clone()),
        read: None,
        keys,
        findings: Vec::new(),
        finished: Timestamp::now(),
        executor: wiring::executor(),
    }
}

async fn seal(app: &App, body: RepositoryKey) -> Outcome<Receipt> {
    let act = Act::Key(Box::new(body));
    app.runner.notary().commit(&act, Timestamp::now()).await.map_err(|error| {
        Failure::because(Exit::Unexpected, "seal what was done with the key", &error)
            .hint("`seaworthy keys list` shows the keys that are there now")
    })
}

async fn ids(cx: &Cx, spec: &RepositorySpec, repository: &Repository) -> Outcome<Vec<KeyFileId>> {
    Ok(custody::keys(cx, spec, repository).await?.into_iter().map(|key| key.id).collect())
}

/// The line of the register that means this key.
fn entry_of<'s>(spec: &'s RepositorySpec, id: &KeyFileId) -> Option<&'s KeySpec> {
    spec.keys.values().find(|entry| entry.id.as_ref().is_some_and(|prefix| prefix.is_of(id)))
}

fn named<'s>(spec: &'s RepositorySpec, name: &str) -> Option<&'s KeySpec> {
    KeyName::new(name).ok().and_then(|name| spec.keys.get(&name))
}

/// Opens the repository anew with a password, and reads something with it: a snapshot, and the first entry of its tree.
fn prove(
    spec: &RepositorySpec,
    secret: &Secret,
    hint: Option<KeyId>,
    control: &Control,
) -> Outcome<Option<(Repository, String)>> {
    let what = format!("open repository `{}` with that password", spec.name);
    let repository = match wiring::open_with(spec, secret, hint, control)? {
        Ok(repository) => repository,
        Err(RepositoryError::WrongKey { .. }) => return Ok(None),
        Err(error) => return Err(wiring::repository_failure(&what, error)),
    };
    let failed = |error| wiring::repository_failure("read something with that key", error);
    let listed = repository.store().list(FileKind::Snapshot, control).map_err(failed)?;
    let Some(first) = listed.iter().map(|one| one.id).max() else {
        return Ok(Some((repository, "no snapshot is there; its config was decrypted".to_owned())));
    };
    let root = SnapshotPath::new("").map_err(failed)?;
    repository.list(&first, &root, control, |_| ControlFlow::Break(())).map_err(failed)?;
    Ok(Some((repository, format!("snapshot {}", first.hex()))))
}

async fn proven(
    cx: &Cx,
    spec: &RepositorySpec,
    secret: &Secret,
    hint: Option<KeyId>,
) -> Outcome<Option<(Repository, String)>> {
    let (spec, secret, control) = (spec.clone(), secret.clone(), seaworthy_engine::store::control(cx));
    wiring::blocking(move || prove(&spec, &secret, hint, &control)).await
}

// ---------------------------------------------------------------------------------------------- add and remove

async fn new_key(cx: &Cx, spec: &RepositorySpec, repository: &Repository, secret: &Secret) -> Outcome<KeyId> {
    let what = format!("add a key to repository `{}`", spec.name);
    let (adding, secret, control) =
        (repository.clone(), secret.clone(), seaworthy_engine::store::control(cx));
    wiring::blocking(move || {
        adding
            .add_key(secret.expose(), KdfParams::default(), &control)
            .map_err(|error| wiring::repository_failure(&what, error))
    })
    .await
}

async fn add(
    cli: &Cli,
    face: &Face,
    only: Option<&str>,
    password: &str,
    name: Option<&str>,
    cx: &Cx,
) -> Outcome {
    let reference = reference_of(password, "--password")?;
    let setup = setup::load(cli, face)?;
    let spec = one(&setup, only)?.clone();
    let entry = match name {
        None => None,
        Some(name) => Some(named(&spec, name).cloned().ok_or_else(|| unregistered(&spec, name))?),
    };
    if cli.global.dry_run {
        face.say(format!("would add a key to repository `{}`", spec.name))?;
        return Ok(Exit::Ok);
    }
    let secret = resolve(&reference)?;
    let app = App::with(setup, face, cx).await?;
    let repository = wiring::open_repository(cx, &spec, None).await?;
    // One that is there already is what a start of this that was cut off has left: it is not added twice.
    let there = proven(cx, &spec, &secret, None).await?.map(|(there, _)| KeyFileId(there.key_id().hex()));
    if there.as_ref() == Some(&KeyFileId(repository.key_id().hex())) {
        return Err(Failure::new(
            Exit::Refused,
            format!("this password is the one by which this program opens repository `{}`", spec.name),
        )
        .hint("two holders need two passwords; make a new one, e.g. with `openssl rand -base64 33`"));
    }
    if there.is_some() {
        reap(cx, &spec, &repository).await?;
    }
    if let Some(there) = &there
        && is_sealed(&app.memory.receipts().await?, &spec, &repository, there)
    {
        face.say(format!("key {} of repository `{}` is there already", short(there), spec.name))?;
        return Ok(Exit::Ok);
    }
    let id = match there {
        Some(there) => there,
        None => KeyFileId(new_key(cx, &spec, &repository, &secret).await?.hex()),
    };
    let keys = ids(cx, &spec, &repository).await?;
    let receipt =
        seal(&app, body(&spec, &repository, KeyDeed::Added, Some(id.clone()), entry.as_ref(), keys)).await?;
    face.say(format!(
        "added key {} to repository `{}`; receipt {}",
        short(&id),
        spec.name,
        receipt.sequence
    ))?;
    match entry {
        Some(entry) => face.say(format!(
            "next: write id = \"{}\" into [repositories.{}.keys.{}], and have {} run: seaworthy keys check {}",
            &id.0[..16],
            spec.name,
            entry.name,
            printable(&entry.holder),
            entry.name
        ))?,
        None => face.say(format!(
            "next: name its holder in [repositories.{}.keys.NAME] with id = \"{}\"",
            spec.name,
            &id.0[..16]
        ))?,
    }
    Ok(Exit::Ok)
}

/// Removes the lock that a start which was cut off has left: what it began is not done again, which would remove it.
async fn reap(cx: &Cx, spec: &RepositorySpec, repository: &Repository) -> Outcome<()> {
    let what = format!("lock repository `{}`", spec.name);
    let (locking, control) = (repository.clone(), seaworthy_engine::store::control(cx));
    let lock = wiring::blocking(move || {
        locking.lock(LockKind::Shared, &control).map_err(|error| wiring::repository_failure(&what, error))
    })
    .await?;
    wiring::unlock(lock).await
}

async fn delete(cx: &Cx, spec: &RepositorySpec, repository: &Repository, id: KeyId) -> Outcome<()> {
    let what = format!("remove a key of repository `{}`", spec.name);
    let (removing, control) = (repository.clone(), seaworthy_engine::store::control(cx));
    wiring::blocking(move || {
        removing.remove_key(&id, &control).map_err(|error| wiring::repository_failure(&what, error))
    })
    .await
}

async fn remove(cli: &Cli, face: &Face, only: Option<&str>, id: &str, cx: &Cx) -> Outcome {
    let setup = setup::load(cli, face)?;
    let spec = one(&setup, only)?.clone();
    let repository = wiring::open_repository(cx, &spec, None).await?;
    let keys = ids(cx, &spec, &repository).await?;
    let matching: Vec<&KeyFileId> = keys.iter().filter(|key| key.0.starts_with(id)).collect();
    let [only] = matching.as_slice() else {
        return Err(Failure::new(
            Exit::Usage,
            format!("`{}` is the beginning of {} keys of `{}`", printable(id), matching.len(), spec.name),
        )
        .hint("seaworthy keys list"));
    };
    let only = (*only).clone();
    if cli.global.dry_run {
        face.say(format!("would remove key {} of repository `{}`", short(&only), spec.name))?;
        return Ok(Exit::Ok);
    }
    let app = App::with(setup, face, cx).await?;
    delete(cx, &spec, &repository, key_id(&only)?).await?;
    let left = ids(cx, &spec, &repository).await?;
    let entry = entry_of(&spec, &only);
    let receipt =
        seal(&app, body(&spec, &repository, KeyDeed::Removed, Some(only.clone()), entry, left.clone()))
            .await?;
    face.say(format!(
        "removed key {} of repository `{}`; {} left; receipt {}",
        short(&only),
        spec.name,
        count(left.len(), "key"),
        receipt.sequence
    ))?;
    face.say(STILL_READS)?;
    Ok(Exit::Ok)
}

/// What removing a key does not do.
const STILL_READS: &str = "note: the data are as they were. Whoever has copied the old key file and knows its password can still read \
     what lies here; against them only a new repository helps";

fn key_id(id: &KeyFileId) -> Outcome<KeyId> {
    KeyId::parse(&id.0)
        .ok_or_else(|| Failure::new(Exit::Unexpected, format!("`{id}` is not the id of a key")))
}

// ------------------------------------------------------------------------------------------------------ rotate

/// Whether the ledger knows that this key was added.
fn is_sealed(receipts: &[Receipt], spec: &RepositorySpec, repository: &Repository, id: &KeyFileId) -> bool {
    let place = reference(spec, repository);
    receipts.iter().any(|receipt| {
        let Act::Key(act) = &receipt.act else { return false };
        act.deed == KeyDeed::Added && act.repository.id == place.id && act.key.as_ref() == Some(id)
    })
}

/// The key whose place this one was made to take, by the ledger.
fn replaced_by(
    receipts: &[Receipt],
    spec: &RepositorySpec,
    repository: &Repository,
    new: &KeyFileId,
) -> Option<KeyFileId> {
    let place = reference(spec, repository);
    receipts.iter().rev().find_map(|receipt| {
        let Act::Key(act) = &receipt.act else { return None };
        let is_it =
            act.deed == KeyDeed::Added && act.repository.id == place.id && act.key.as_ref() == Some(new);
        act.other.clone().filter(|_| is_it)
    })
}

async fn rotate(
    cli: &Cli,
    face: &Face,
    only: Option<&str>,
    password: &str,
    is_now: bool,
    cx: &Cx,
) -> Outcome {
    let new_reference = reference_of(password, "--password")?;
    let setup = setup::load(cli, face)?;
    let spec = one(&setup, only)?.clone();
    let secret = resolve(&new_reference)?;
    let repository = wiring::open_repository(cx, &spec, None).await?;
    let used = KeyFileId(repository.key_id().hex());
    let opened = proven(cx, &spec, &secret, None).await?;
    let existing = opened.as_ref().map(|(opened, _)| KeyFileId(opened.key_id().hex()));
    let is_switched = existing.as_ref() == Some(&used);
    let held =
        existing.as_ref().and_then(|id| entry_of(&spec, id)).filter(|entry| entry.custody != Custody::Online);
    if let Some(held) = held.filter(|_| !is_switched) {
        return Err(Failure::new(
            Exit::Refused,
            format!(
                "this is the password of key `{}`, which {} holds in {}",
                held.name,
                printable(&held.holder),
                held.custody
            ),
        )
        .hint("a key that this program uses is held apart no longer: make a new password"));
    }
    if cli.global.dry_run {
        face.say(match (&existing, is_switched) {
            (None, _) => {
                format!("would add a key beside {}, and show that it opens `{}`", short(&used), spec.name)
            }
            (Some(_), true) => "would remove the key that this one takes the place of".to_owned(),
            (Some(new), false) => format!(
                "key {} is there; the configuration still names the password of {}",
                short(new),
                short(&used)
            ),
        })?;
        return Ok(Exit::Ok);
    }
    let app = App::with(setup, face, cx).await?;
    let receipts = app.memory.receipts().await?;
    let (new, old) = if is_switched {
        let old = replaced_by(&receipts, &spec, &repository, &used).ok_or_else(|| {
            Failure::new(
                Exit::Usage,
                format!(
                    "the configuration names this password already, and the ledger knows of no key that {} takes the place of",
                    short(&used)
                ),
            )
            .hint("give a new password with --password; or remove an old key: seaworthy keys remove ID")
        })?;
        (used.clone(), old)
    } else {
        let (new, read) = match opened {
            Some((opened, read)) => (KeyFileId(opened.key_id().hex()), read),
            None => {
                let id = new_key(cx, &spec, &repository, &secret).await?;
                let new = KeyFileId(id.hex());
                let Some((_, read)) = proven(cx, &spec, &secret, Some(id)).await? else {
                    let words = format!(
                        "key {} was added and does not open the repository; the old one still does",
                        short(&new)
                    );
                    return Err(Failure::new(Exit::Unexpected, words));
                };
                (new, read)
            }
        };
        // One that is there already may be what a start that was cut off has left, without its receipt.
        if !is_sealed(&receipts, &spec, &repository, &new) {
            let keys = ids(cx, &spec, &repository).await?;
            let entry = entry_of(&spec, &new);
            let mut made = body(&spec, &repository, KeyDeed::Added, Some(new.clone()), entry, keys);
            made.other = Some(used.clone());
            made.read = Some(read.clone());
            let receipt = seal(&app, made).await?;
            face.say(format!(
                "added key {}, which opens repository `{}` and read {read} with it; receipt {}",
                short(&new),
                spec.name,
                receipt.sequence
            ))?;
        }
        (new, used.clone())
    };
    if !is_switched && !is_now {
        face.say(format!(
            "the old key {} stays until the configuration names the new password. next: set password of [repositories.{}] to where \
             the new one is, then run the same command again",
            short(&old),
            spec.name
        ))?;
        return Ok(Exit::Ok);
    }
    // By the new key: that it can do this is one more proof, and nobody removes the key that they stand on.
    let Some((by_new, _)) = proven(cx, &spec, &secret, Some(key_id(&new)?)).await? else {
        return Err(Failure::new(Exit::WrongKey, "the new password no longer opens the repository [KY-01]"));
    };
    if !ids(cx, &spec, &by_new).await?.contains(&old) {
        face.say(format!("key {} is gone already; {} is in its place", short(&old), short(&new)))?;
        return Ok(Exit::Ok);
    }
    delete(cx, &spec, &by_new, key_id(&old)?).await?;
    let left = ids(cx, &spec, &by_new).await?;
    let mut gone =
        body(&spec, &by_new, KeyDeed::Removed, Some(old.clone()), entry_of(&spec, &old), left.clone());
    gone.other = Some(new.clone());
    let receipt = seal(&app, gone).await?;
    face.say(format!(
        "removed the old key {}; {} left; receipt {}",
        short(&old),
        count(left.len(), "key"),
        receipt.sequence
    ))?;
    if !is_switched {
        face.say(format!(
            "NOTHING RUNS HERE until password of [repositories.{}] names the new one; then: seaworthy doctor",
            spec.name
        ))?;
    }
    face.say(STILL_READS)?;
    Ok(Exit::Ok)
}

// ------------------------------------------------------------------------------------------------------- check

fn unregistered(spec: &RepositorySpec, name: &str) -> Failure {
    let known: Vec<&str> = spec.keys.keys().map(KeyName::as_str).collect();
    let hint = if known.is_empty() {
        format!("write [repositories.{}.keys.{}] with custody, holder and place", spec.name, printable(name))
    } else {
        format!("known: {}", known.join(", "))
    };
    Failure::new(
        Exit::Usage,
        format!("the register of repository `{}` has no key `{}`", spec.name, printable(name)),
    )
    .hint(hint)
}

/// The repository whose register has a key of this name.
fn with_key<'s>(
    setup: &'s Setup,
    only: Option<&str>,
    name: &str,
) -> Outcome<(&'s RepositorySpec, &'s KeySpec)> {
    if let Some(only) = only {
        let spec = setup.repository(only)?;
        return named(spec, name).map(|entry| (spec, entry)).ok_or_else(|| unregistered(spec, name));
    }
    let having: Vec<_> =
        setup.inventory().repositories.values().filter_map(|spec| Some((spec, named(spec, name)?))).collect();
    match having.as_slice() {
        [one] => Ok(*one),
        [] => Err(unregistered(one(setup, None)?, name)),
        _ => Err(Failure::new(Exit::Usage, format!("several repositories have a key `{}`", printable(name)))
            .hint("name one with --repository NAME")),
    }
}

/// The password of a key: by reference, or typed by its holder.
fn password_of(spec: &RepositorySpec, entry: &KeySpec, given: Option<&str>) -> Outcome<Secret> {
    let given = given.map(|text| reference_of(text, "--password")).transpose()?;
    if let Some(reference) = given.as_ref().or(entry.password.as_ref()) {
        return resolve(reference);
    }
    typed(spec, entry)
}

/// The password of a key, typed by its holder.
pub(super) fn typed(spec: &RepositorySpec, entry: &KeySpec) -> Outcome<Secret> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Usage, "nobody is here to type the password")
            .hint("run it in a terminal, or give --password REFERENCE"));
    }
    let question = format!(
        "Password of key `{}` of repository `{}`, held by {}:",
        entry.name,
        spec.name,
        printable(&entry.holder)
    );
    let answer = super::init::asked(
        inquire::Password::new(&question)
            .without_confirmation()
            .with_display_mode(inquire::PasswordDisplayMode::Hidden)
            .prompt(),
    )?;
    if answer.is_empty() {
        return Err(Failure::new(Exit::Usage, "no password was typed"));
    }
    Ok(Secret::typed(answer))
}

async fn check(
    cli: &Cli,
    face: &Face,
    only: Option<&str>,
    name: &str,
    password: Option<&str>,
    cx: &Cx,
) -> Outcome {
    let setup = setup::load(cli, face)?;
    let (spec, entry) = with_key(&setup, only, name)?;
    let (spec, entry) = (spec.clone(), entry.clone());
    if cli.global.dry_run {
        face.say(format!(
            "would ask {} for the password of key `{}`, and see whether it opens repository `{}`",
            printable(&entry.holder),
            entry.name,
            spec.name
        ))?;
        return Ok(Exit::Ok);
    }
    let app = App::with(setup, face, cx).await?;
    let used = wiring::open_repository(cx, &spec, None).await?;
    let keys = custody::keys(cx, &spec, &used).await?;
    let meant = entry.id.as_ref().and_then(|prefix| keys.iter().find(|key| prefix.is_of(&key.id)));
    let hint = meant.map(|key| key_id(&key.id)).transpose()?;
    let secret = password_of(&spec, &entry, password)?;
    let opened = proven(cx, &spec, &secret, hint).await?;
    drop(secret);
    let key = opened.as_ref().map(|(opened, _)| KeyFileId(opened.key_id().hex()));
    let subject = format!("{} of {}", entry.name, spec.name);
    let all = keys.iter().map(|key| key.id.clone()).collect();
    let mut body = body(&spec, &used, KeyDeed::Checked, key.clone(), Some(&entry), all);
    body.read = opened.map(|(_, read)| read);
    body.findings = judged(&entry, &subject, key.as_ref(), &KeyFileId(used.key_id().hex()));
    let findings = body.findings.clone();
    let receipt = seal(&app, body).await?;
    if face.json {
        face.json(&serde_json::json!({
            "schema": "seaworthy.key-check/1", "repository": spec.name, "name": entry.name, "key": key,
            "findings": findings, "receipt": receipt.sequence, "digest": receipt.digest,
        }))?;
    }
    let Some(key) = key else {
        return Err(Failure::new(
            Exit::WrongKey,
            format!(
                "the password given for key `{}` opens nothing in repository `{}` [KY-01]; receipt {}",
                entry.name, spec.name, receipt.sequence
            ),
        )
        .hint(format!(
            "was it typed right? If {} has no other, add a new key for them: seaworthy keys add --name {}",
            printable(&entry.holder),
            entry.name
        )));
    };
    if !face.json {
        let mark =
            if findings.is_empty() { face.paint(Tone::Good, "✓") } else { face.paint(Tone::Warn, "!") };
        let words = if findings.is_empty() {
            format!("{} holds a password that works", printable(&entry.holder))
        } else {
            format!("this is NOT what {} should hold", printable(&entry.holder))
        };
        face.data(format!(
            "{mark} key {} opens repository {}: {words}; receipt {} {}",
            short(&key),
            spec.name,
            receipt.sequence,
            receipt.digest
        ))?;
        for finding in &findings {
            face.data(format!("  finding {}", printable(&finding.to_string())))?;
            face.data(format!("          → {}", finding.code.remedy()))?;
        }
        if entry.id.is_none() {
            face.say(format!(
                "next: write id = \"{}\" into [repositories.{}.keys.{}]",
                &key.0[..16],
                spec.name,
                entry.name
            ))?;
        } else if entry.custody != Custody::Online && findings.is_empty() {
            let every = Duration::try_from(entry.check_every).unwrap_or_default();
            face.say(format!("next check within {}", duration(every)))?;
        }
    }
    Ok(if findings.is_empty() { Exit::Ok } else { Exit::Findings })
}

/// What is wrong with the answer of a holder, beyond that it opens nothing.
fn judged(entry: &KeySpec, subject: &str, key: Option<&KeyFileId>, used: &KeyFileId) -> Vec<Finding> {
    let wrong = |code, detail: String| vec![Finding::new(code, subject, detail)];
    let Some(key) = key else {
        return wrong(FindingCode::WrongKey, "the password opens no key of the repository".to_owned());
    };
    match &entry.id {
        Some(prefix) if !prefix.is_of(key) => wrong(
            FindingCode::KeyUnregistered,
            format!("it opened key {}, the register says {}", short(key), prefix.as_str()),
        ),
        _ if key == used && entry.custody != Custody::Online => wrong(
            FindingCode::KeyUnregistered,
            "it opened the key that this program uses: nobody holds it apart".to_owned(),
        ),
        _ => Vec::new(),
    }
}
