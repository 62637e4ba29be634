//! Meaning of what a repository says about its object store: what each provider takes, and what must not be.

use std::collections::BTreeMap;

use super::diagnostic::{Draft, Place, quoted};
use super::meaning::{Judge, Sited, sited};
use super::shape::{At, RepositoryTable, SecretText, built_in};
use crate::remote::{Credential, Provider, RemoteSpec, is_loopback};

/// Classes whose objects must be thawed for hours before they can be read: nothing in them can be drilled, or restored in time.
const FROZEN: &[(Provider, &str)] =
    &[(Provider::S3, "GLACIER"), (Provider::S3, "DEEP_ARCHIVE"), (Provider::Azure, "Archive")];

/// What a key of the table is, and which providers take it.
struct Key {
    name: &'static str,
    place: Option<Place>,
    takers: &'static [Provider],
}

const ALL: &[Provider] = &[Provider::S3, Provider::Google, Provider::Azure];

fn secret_of(table: &RepositoryTable, credential: Credential) -> Option<&At<SecretText>> {
    match credential {
        Credential::AccessKey => table.access_key.as_ref(),
        Credential::SecretKey => table.secret_key.as_ref(),
        Credential::SessionToken => table.session_token.as_ref(),
        Credential::ServiceAccount => table.service_account.as_ref(),
        Credential::AccountKey => table.account_key.as_ref(),
        Credential::SasToken => table.sas_token.as_ref(),
    }
}

/// The keys that say something about an object store, whether given or not.
fn keys(table: &RepositoryTable, text: usize) -> Vec<Key> {
    fn place<T>(text: usize, at: Option<&At<T>>) -> Option<Place> {
        sited(text, at).map(|at| at.place())
    }
    let mut keys = vec![
        Key { name: "endpoint", place: place(text, table.endpoint.as_ref()), takers: ALL },
        Key { name: "path_style", place: place(text, table.path_style.as_ref()), takers: &[Provider::S3] },
        Key { name: "storage_class", place: place(text, table.storage_class.as_ref()), takers: ALL },
        Key {
            name: "server_side_encryption",
            place: place(text, table.server_side_encryption.as_ref()),
            takers: &[Provider::S3],
        },
        Key {
            name: "storage_account",
            place: place(text, table.storage_account.as_ref()),
            takers: &[Provider::Azure],
        },
        Key { name: "timeout", place: place(text, table.timeout.as_ref()), takers: ALL },
    ];
    for credential in Credential::ALL {
        let takers: &[Provider] = match credential {
            Credential::AccessKey | Credential::SecretKey | Credential::SessionToken => &[Provider::S3],
            Credential::ServiceAccount => &[Provider::Google],
            Credential::AccountKey | Credential::SasToken => &[Provider::Azure],
        };
        keys.push(Key {
            name: credential.as_str(),
            place: place(text, secret_of(table, credential)),
            takers,
        });
    }
    keys
}

/// Reads how an object store is reached; `None` for a path, of which none of it may be said.
pub(super) fn remote(
    judge: &mut Judge<'_>,
    prefix: &str,
    location: &str,
    table: Sited<'_, RepositoryTable>,
) -> Option<RemoteSpec> {
    let provider = Provider::of(location).map(|(provider, _, _)| provider);
    let (text, table) = (table.text, &table.at.value);
    for key in keys(table, text) {
        let Some(place) = key.place else { continue };
        if provider.is_some_and(|provider| key.takers.contains(&provider)) {
            judge.record(format!("{prefix}.{}", key.name), Some(&place));
            continue;
        }
        let takers: Vec<&str> = key.takers.iter().map(|taker| taker.name()).collect();
        let draft = Draft::error(
            place,
            match provider {
                Some(provider) => format!("{} knows no `{}`", provider.name(), key.name),
                None => format!("a directory has no `{}`", key.name),
            },
        );
        draft.hint(format!("it is for {}; take it out", takers.join(", "))).report(judge.sink);
    }
    let provider = provider?;
    let mut spec =
        RemoteSpec { path_style: table.path_style.as_ref().map(|at| at.value), ..RemoteSpec::default() };
    for (what, value, into) in [
        ("endpoint", &table.endpoint, &mut spec.endpoint),
        ("storage_class", &table.storage_class, &mut spec.storage_class),
        ("server_side_encryption", &table.server_side_encryption, &mut spec.encryption),
        ("storage_account", &table.storage_account, &mut spec.storage_account),
    ] {
        let Some(value) = sited(text, value.as_ref()) else { continue };
        let is_word = |character: char| !character.is_control() && !character.is_whitespace();
        if value.at.value.is_empty() || !value.at.value.chars().all(is_word) {
            Draft::error(value.place(), format!("`{what}` is empty or holds white space"))
                .hint("write it as the provider does, or leave it out")
                .report(judge.sink);
        } else {
            *into = Some(value.at.value.clone());
        }
    }
    if let (Some(endpoint), Some(value)) = (sited(text, table.endpoint.as_ref()), &spec.endpoint) {
        endpoint_is_right(judge, endpoint, value);
    }
    if let (Some(at), Some(class)) = (sited(text, table.storage_class.as_ref()), &spec.storage_class)
        && FROZEN.iter().any(|(whose, frozen)| *whose == provider && frozen.eq_ignore_ascii_case(class))
    {
        Draft::error(
            at.place(),
            format!("what lies in {} must be thawed for hours before it is read", quoted(class)),
        )
        .label("no drill can read it, and no restore in time")
        .hint("use a class that is read at once: STANDARD_IA or GLACIER_IR at S3, Cool or Cold at Azure")
        .report(judge.sink);
    }
    if let (Some(at), Some(encryption)) =
        (sited(text, table.server_side_encryption.as_ref()), &spec.encryption)
    {
        let is_known = matches!(encryption.as_str(), "AES256" | "aws:kms")
            || encryption.strip_prefix("aws:kms:").is_some_and(|key| !key.is_empty());
        if !is_known {
            Draft::error(at.place(), format!("{} is no encryption that S3 knows", quoted(encryption)))
                .hint("write \"AES256\", \"aws:kms\", or \"aws:kms:\" and the id of a key; it comes on top of ours")
                .report(judge.sink);
        }
    }
    spec.credentials = credentials(judge, text, table, provider);
    spec.timeout = judge.duration(
        &format!("{prefix}.timeout"),
        sited(text, table.timeout.as_ref()),
        built_in::STORE_TIMEOUT,
    );
    Some(spec)
}

fn endpoint_is_right(judge: &mut Judge<'_>, at: Sited<'_, String>, endpoint: &str) {
    let scheme = endpoint.split_once("://").map(|(scheme, _)| scheme);
    let authority = endpoint.split_once("://").map_or("", |(_, rest)| rest).split('/').next().unwrap_or("");
    if authority.contains('@') {
        judge.sink.mask(at.place());
        Draft::error(at.place(), "the endpoint carries credentials")
            .label("not shown")
            .hint("take them out of the URL; if this file was shared, change them")
            .report(judge.sink);
        return;
    }
    let wrong = match scheme {
        _ if endpoint.contains(['?', '#']) => Some("the endpoint holds `?` or `#`"),
        Some("https" | "http") if authority.is_empty() => Some("the endpoint names no host"),
        Some("https") => None,
        Some("http") if is_loopback(endpoint) => None,
        Some("http") => Some("the endpoint is not encrypted, and leads off this machine"),
        Some(_) | None => Some("the endpoint is no URL"),
    };
    if let Some(wrong) = wrong {
        Draft::error(at.place(), wrong)
            .hint("write \"https://\" and the host, e.g. \"https://de-fra1.upcloudobjects.com\"")
            .report(judge.sink);
    }
}

fn credentials(
    judge: &mut Judge<'_>,
    text: usize,
    table: &RepositoryTable,
    provider: Provider,
) -> BTreeMap<Credential, crate::secret::SecretRef> {
    let mut read = BTreeMap::new();
    for credential in provider.credentials() {
        let Some(at) = sited(text, secret_of(table, *credential)) else { continue };
        if let Some(reference) = judge.secret(at) {
            read.insert(*credential, reference);
        }
    }
    let mut needs = |one: Credential, other: Credential| {
        if let (Some(at), None) = (secret_of(table, one), secret_of(table, other)) {
            let place = Place { text, span: at.span.clone() };
            Draft::error(place, format!("`{}` without `{}` identifies nobody", one.as_str(), other.as_str()))
                .hint("give both, or neither: then the environment or the machine's own role is asked")
                .report(judge.sink);
        }
    };
    needs(Credential::AccessKey, Credential::SecretKey);
    needs(Credential::SecretKey, Credential::AccessKey);
    needs(Credential::SessionToken, Credential::AccessKey);
    if let (Some(_), Some(at)) = (&table.account_key, sited(text, table.sas_token.as_ref())) {
        Draft::error(at.place(), "`account_key` and `sas_token` are two ways to be the same")
            .hint("keep one of them; a signature that may not delete is the safer one")
            .report(judge.sink);
    }
    read
}
