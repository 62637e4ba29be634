//! Meaning of the register of keys: who holds what. No password is ever written in it.

use std::collections::BTreeMap;

use super::diagnostic::{Draft, Place, quoted};
use super::meaning::{Judge, Sited, sited};
use super::shape::{KeyTable, RepositoryTable, built_in};
use crate::custody::{Custody, KeyPrefix, KeySpec};
use crate::id::KeyName;
use crate::secret::SecretRef;

/// The register of one repository, whose own password is read from `used`. What is wrong in it is reported and left out.
pub(super) fn keys(
    judge: &mut Judge<'_>,
    prefix: &str,
    repository: &str,
    table: Sited<'_, RepositoryTable>,
    used: Option<&SecretRef>,
) -> BTreeMap<KeyName, KeySpec> {
    let mut register: BTreeMap<KeyName, KeySpec> = BTreeMap::new();
    let mut ids: Vec<(KeyPrefix, Place)> = Vec::new();
    for (name_at, entry) in &table.at.value.keys {
        let place = Place { text: table.text, span: name_at.span.clone() };
        let name = judge.name::<KeyName>("key", place.clone(), &name_at.value);
        let entry = Sited { text: table.text, at: entry };
        let at = format!("{prefix}.keys.{}", name_at.value);
        let Some(spec) = key(judge, &at, (repository, &name_at.value), &place, entry, name, used) else {
            continue;
        };
        if let (Some(id), Some(written)) = (&spec.id, sited(table.text, entry.at.value.id.as_ref())) {
            if let Some((_, first)) = ids.iter().find(|(other, _)| other.is_of_one_key_with(id)) {
                Draft::error(written.place(), "two names stand for one key")
                    .label("here again")
                    .with(first.clone(), "first here")
                    .hint("two holders need two keys, each with its own password: seaworthy keys add")
                    .report(judge.sink);
                continue;
            }
            ids.push((id.clone(), written.place()));
        }
        register.insert(spec.name.clone(), spec);
    }
    register
}

fn key(
    judge: &mut Judge<'_>,
    prefix: &str,
    (repository, key): (&str, &str),
    place: &Place,
    entry: Sited<'_, KeyTable>,
    name: Option<KeyName>,
    used: Option<&SecretRef>,
) -> Option<KeySpec> {
    let text = entry.text;
    let written = &entry.at.value;
    // What is missing, and a word that is none of the three, has been reported with the shape.
    let custody = sited(text, written.custody.as_ref());
    let holder = sited(text, written.holder.as_ref());
    for (what, value) in
        [("custody", custody), ("holder", holder), ("place", sited(text, written.place.as_ref()))]
    {
        let Some(value) = value else { continue };
        judge.record(format!("{prefix}.{what}"), Some(&value.place()));
        if value.at.value.trim().is_empty() {
            Draft::error(value.place(), format!("`{what}` is empty"))
                .hint("who is asked for it, and where do they look? Words, never the password")
                .report(judge.sink);
        }
    }
    let custody = custody.and_then(|at| Custody::of_word(&at.at.value))?;
    if custody != Custody::Online && written.place.is_none() {
        Draft::error(
            place.clone(),
            format!("key {} of {} does not say where it is", quoted(key), quoted(repository)),
        )
        .hint("add place = \"safe, room 2\": on the day somebody has to find it")
        .report(judge.sink);
    }
    let id = sited(text, written.id.as_ref());
    if let Some(id) = id {
        judge.record(format!("{prefix}.id"), Some(&id.place()));
    }
    let read_id = id.and_then(|id| match KeyPrefix::new(&id.at.value) {
        Ok(prefix) => Some(prefix),
        Err(error) => {
            Draft::error(
                id.place(),
                format!("{} is not the beginning of a key's id: {error}", quoted(&id.at.value)),
            )
            .hint("copy it from `seaworthy keys list`")
            .report(judge.sink);
            None
        }
    });
    let password = sited(text, written.password.as_ref());
    let read_password = password.and_then(|password| {
        judge.record(format!("{prefix}.password"), Some(&password.place()));
        judge.secret(password)
    });
    if let (Some(password), Some(reference)) = (password, &read_password)
        && custody != Custody::Online
        && Some(reference) == used
    {
        Draft::error(
            password.place(),
            format!("key {} is read from where the repository's own password is", quoted(key)),
        )
        .label("lost with it")
        .hint("a key in escrow has a password of its own, kept elsewhere: seaworthy keys add --password …")
        .report(judge.sink);
    }
    let every = sited(text, written.check_every.as_ref());
    if let (Some(every), Custody::Online) = (every, custody) {
        Draft::error(every.place(), "a key that every run uses needs no `check_every`")
            .hint("take it out, or is this key in escrow?")
            .report(judge.sink);
    }
    let check_every = judge.duration(&format!("{prefix}.check_every"), every, built_in::KEY_CHECK_EVERY);
    Some(KeySpec {
        name: name?,
        custody,
        holder: holder?.at.value.clone(),
        place: written.place.as_ref().map(|at| at.value.clone()),
        password: read_password,
        id: read_id,
        check_every,
    })
}
