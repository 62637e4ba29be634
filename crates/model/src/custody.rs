//! Custody: who can open a repository, from where, and what is wrong with that.
//!
//! The register says which keys are meant to exist and who holds them; what was seen says which there are. A key is a key
//! file of the repository: the master key, encrypted by a password. Whoever holds a key file and its password has the master
//! key, for good: removing a key file takes nothing back from them.
//!
//! Pure: what was seen of files, mounts, repositories and the ledger is handed in. What was not seen is never taken for good.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::config::format_duration;
use crate::finding::{Finding, FindingCode};
use crate::id::{KeyFileId, KeyName, RepositoryName, ServiceName};
use crate::receipt::CLOCK_STEP;
use crate::secret::SecretRef;
use crate::service::{Inventory, RepositorySpec};
use crate::source::{FilesSpec, SourceSpec};

/// What a key is for, and so where it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Custody {
    /// This program uses it for every run.
    Online,
    /// A person or a safe holds it, away from what is backed up.
    Escrow,
    /// Made for drills and for the day of a disaster; no backup uses it.
    Recovery,
}

impl Custody {
    /// The word of the configuration.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Escrow => "escrow",
            Self::Recovery => "recovery",
        }
    }

    /// The custody that a word of the configuration means.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Online, Self::Escrow, Self::Recovery].into_iter().find(|custody| custody.word() == word)
    }
}

impl fmt::Display for Custody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The first digits of a key's id: 8 to 64, lowercase hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyPrefix(String);

/// Why a text is not the beginning of a key's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyPrefixError {
    /// Fewer than 8 digits, or more than 64.
    #[error("it has 8 to 64 digits, this has {0}")]
    Length(usize),
    /// Not a digit.
    #[error("its digits are 0-9 and a-f")]
    Digit,
}

impl KeyPrefix {
    /// Accepts 8 to 64 hexadecimal digits in lower case.
    pub fn new(text: &str) -> Result<Self, KeyPrefixError> {
        if !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(KeyPrefixError::Digit);
        }
        if !(8..=64).contains(&text.len()) {
            return Err(KeyPrefixError::Length(text.len()));
        }
        Ok(Self(text.to_owned()))
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the key's id begins like this.
    #[must_use]
    pub fn is_of(&self, id: &KeyFileId) -> bool {
        id.0.starts_with(&self.0)
    }

    /// Whether one key's id could begin like both.
    #[must_use]
    pub fn is_of_one_key_with(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0) || other.0.starts_with(&self.0)
    }
}

impl TryFrom<String> for KeyPrefix {
    type Error = KeyPrefixError;

    fn try_from(text: String) -> Result<Self, KeyPrefixError> {
        Self::new(&text)
    }
}

impl From<KeyPrefix> for String {
    fn from(prefix: KeyPrefix) -> Self {
        prefix.0
    }
}

/// A key that is meant to exist, and who holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySpec {
    /// Its name in the register.
    pub name: KeyName,
    /// What it is for.
    pub custody: Custody,
    /// Who holds it: a role.
    pub holder: String,
    /// Where it is, in words.
    pub place: Option<String>,
    /// Where its password can be read without a person.
    pub password: Option<SecretRef>,
    /// The beginning of its id in the repository, once it is known.
    pub id: Option<KeyPrefix>,
    /// How often its holder has to show that it opens the repository; means nothing for an online key.
    pub check_every: SignedDuration,
}

/// A key file that lies in a repository, as far as it can be read without its password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySeen {
    /// Its id.
    pub id: KeyFileId,
    /// When it was made, where it says so.
    pub created: Option<Timestamp>,
    /// By whom: user and host, where it says so.
    pub made_by: String,
    /// Whether it is the one that the configured password opens.
    pub is_used: bool,
}

/// A check of a key that the ledger knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckKnown {
    /// Its name in the register, at that time.
    pub name: Option<KeyName>,
    /// The key that opened; `None` where none did.
    pub key: Option<KeyFileId>,
    /// When.
    pub at: Timestamp,
    /// Whether nothing was wrong with it.
    pub is_good: bool,
}

/// What was seen of a file that holds a password or a private key. The file is never read for this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSeen {
    /// What it holds, for people: `the password of repository `local``.
    pub what: String,
    /// Where it truly lies: absolute, without links.
    pub path: String,
    /// The file system that it lies on.
    pub device: Option<u64>,
    /// Who else could read, write or exchange it; empty where nobody could.
    pub exposures: Vec<String>,
    /// Whether it is the signing key.
    pub is_signing_key: bool,
}

/// Everything that was seen of the keys of one repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sighting {
    /// Its key files; `None` where nobody could look.
    pub keys: Option<Vec<KeySeen>>,
    /// Files that hold its passwords, and the signing key.
    pub files: Vec<FileSeen>,
    /// Where it lies on this machine: path without links, and file system.
    pub place: Option<(String, Option<u64>)>,
    /// Checks of its keys, in the order of the ledger.
    pub checks: Vec<CheckKnown>,
}

/// A line of the register beside what was seen of it, or a key that the register does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The register's line; `None` for a key that it does not name.
    pub registered: Option<KeySpec>,
    /// The key file; `None` where none of them is it.
    pub seen: Option<KeySeen>,
    /// When it was last shown to open the repository.
    pub checked: Option<Timestamp>,
    /// What is wrong with this key alone; what is wrong with all of them together is in [`Standing::findings`].
    pub findings: Vec<Finding>,
}

/// The custody of one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// The register and the keys, side by side: the register's lines first, by name.
    pub rows: Vec<Row>,
    /// What is wrong with the repository's keys as a whole.
    pub findings: Vec<Finding>,
}

impl Standing {
    /// Everything that is wrong.
    pub fn all(&self) -> impl Iterator<Item = &Finding> {
        self.rows.iter().flat_map(|row| &row.findings).chain(&self.findings)
    }
}

/// Judges the custody of a repository at `now`: the register, beside what was seen.
#[must_use]
pub fn judge(inventory: &Inventory, spec: &RepositorySpec, seen: &Sighting, now: Timestamp) -> Standing {
    let mut findings = Vec::new();
    let rows = seen.keys.as_ref().map_or_else(Vec::new, |keys| rows(spec, keys, &seen.checks, now));
    if let Some(keys) = &seen.keys {
        findings.extend(too_few(spec, keys));
    }
    findings.extend(with_backups(inventory, spec, seen));
    for file in &seen.files {
        findings.extend(
            file.exposures.iter().map(|exposure| Finding::new(FindingCode::KeyExposed, &file.what, exposure)),
        );
    }
    findings.extend(circular(inventory, &spec.name));
    Standing { rows, findings }
}

/// `3f2a9c01`: what people compare.
fn short(id: &KeyFileId) -> &str {
    id.0.get(..8).unwrap_or(&id.0)
}

/// The key file that a line of the register means: by its id, else by the last check of that name; the one in use where the
/// line is the only one that is online.
fn of_entry<'k>(
    spec: &RepositorySpec,
    entry: &KeySpec,
    keys: &'k [KeySeen],
    checks: &[CheckKnown],
) -> Option<&'k KeySeen> {
    if let Some(prefix) = &entry.id {
        return keys.iter().find(|key| prefix.is_of(&key.id));
    }
    if entry.custody == Custody::Online {
        let is_only = spec.keys.values().filter(|other| other.custody == Custody::Online).count() == 1;
        return keys.iter().find(|key| key.is_used && is_only);
    }
    let last = checks.iter().rev().find(|check| check.is_good && check.name.as_ref() == Some(&entry.name))?;
    keys.iter().find(|key| Some(&key.id) == last.key.as_ref())
}

fn rows(spec: &RepositorySpec, keys: &[KeySeen], checks: &[CheckKnown], now: Timestamp) -> Vec<Row> {
    let mut known: BTreeSet<&KeyFileId> = BTreeSet::new();
    let mut rows = Vec::new();
    for entry in spec.keys.values() {
        let found = of_entry(spec, entry, keys, checks);
        let subject = format!("{} of {}", entry.name, spec.name);
        let mut findings = Vec::new();
        let mut wrong = |code, detail: String| findings.push(Finding::new(code, &subject, detail));
        match (found, &entry.id) {
            (Some(key), _) => {
                known.insert(&key.id);
                if key.is_used && entry.custody != Custody::Online {
                    wrong(
                        FindingCode::KeyUnregistered,
                        format!(
                            "it is in {} by the register, and this program opens the repository with it: nobody holds it apart",
                            entry.custody
                        ),
                    );
                }
            }
            (None, Some(prefix)) => wrong(
                FindingCode::KeyUnregistered,
                format!("no key {} is in the repository: its holder could open nothing", prefix.as_str()),
            ),
            (None, None) => wrong(
                FindingCode::KeyUnregistered,
                "the register does not say which key it is: give its id, or have its holder run `seaworthy keys check`"
                    .to_owned(),
            ),
        }
        let checked = found.and_then(|key| checked(key, checks, now));
        if entry.custody != Custody::Online
            && let Some(key) = found
        {
            findings.extend(overdue(entry, &subject, key, checks, now));
        }
        rows.push(Row { registered: Some(entry.clone()), seen: found.cloned(), checked, findings });
    }
    for key in keys.iter().filter(|key| !known.contains(&key.id)) {
        let mut findings = Vec::new();
        // Where there is no register, that is said once, of the repository.
        if !spec.keys.is_empty() {
            findings.push(Finding::new(
                FindingCode::KeyUnregistered,
                format!("key {} of {}", short(&key.id), spec.name),
                "it opens the repository, and the register does not name it",
            ));
        }
        let checked = checked(key, checks, now);
        rows.push(Row { registered: None, seen: Some(key.clone()), checked, findings });
    }
    rows
}

/// A check that is dated in the future is of an unknown age.
fn is_dated(check: &CheckKnown, now: Timestamp) -> bool {
    check.at.duration_since(now) <= CLOCK_STEP
}

fn checked(key: &KeySeen, checks: &[CheckKnown], now: Timestamp) -> Option<Timestamp> {
    let good = checks
        .iter()
        .filter(|check| check.is_good && check.key.as_ref() == Some(&key.id) && is_dated(check, now));
    good.map(|check| check.at).max()
}

fn overdue(
    entry: &KeySpec,
    subject: &str,
    key: &KeySeen,
    checks: &[CheckKnown],
    now: Timestamp,
) -> Option<Finding> {
    let of_it =
        |check: &&CheckKnown| check.name.as_ref() == Some(&entry.name) || check.key.as_ref() == Some(&key.id);
    let every = format_duration(entry.check_every);
    let days = |at: Timestamp| now.duration_since(at).as_hours() / 24;
    let detail = match (checks.iter().rev().find(of_it), checked(key, checks, now)) {
        (Some(last), _) if !last.is_good => {
            format!(
                "when its holder last tried, {} days ago, it was not shown to open the repository",
                days(last.at)
            )
        }
        (Some(last), None) if !is_dated(last, now) => {
            format!("its last check is dated {}, which has yet to come: its age is not known", last.at)
        }
        (_, None) => {
            format!("{} has never shown that it opens the repository; due every {every}", entry.holder)
        }
        (_, Some(at)) if now.duration_since(at) > entry.check_every => format!(
            "{} last showed that it opens the repository {} days ago; due every {every}",
            entry.holder,
            days(at)
        ),
        (_, Some(_)) => return None,
    };
    Some(Finding::new(FindingCode::EscrowUnchecked, subject, detail))
}

fn too_few(spec: &RepositorySpec, keys: &[KeySeen]) -> Option<Finding> {
    let subject = format!("repository {}", spec.name);
    if keys.len() < 2 {
        return Some(Finding::new(
            FindingCode::OneRecipient,
            subject,
            format!(
                "{} opens it: with its password lost, every copy is",
                if keys.is_empty() { "no key" } else { "one key" }
            ),
        ));
    }
    if spec.keys.is_empty() {
        return Some(Finding::new(
            FindingCode::KeyUnregistered,
            subject,
            format!(
                "{} keys open it, and there is no register: nobody is known to hold any of them; write [repositories.{}.keys.NAME]",
                keys.len(),
                spec.name
            ),
        ));
    }
    let holders: BTreeSet<String> = spec.keys.values().map(|key| key.holder.trim().to_lowercase()).collect();
    let is_held_apart = spec.keys.values().any(|key| key.custody != Custody::Online);
    match (spec.keys.values().next(), holders.len(), is_held_apart) {
        (Some(first), 1, _) => Some(Finding::new(
            FindingCode::OneRecipient,
            subject,
            format!("{} holds every key: without them nobody opens it", first.holder),
        )),
        (_, _, false) => Some(Finding::new(
            FindingCode::OneRecipient,
            subject,
            "no key is in escrow: without this machine nobody opens it",
        )),
        _ => None,
    }
}

fn is_below(inner: &str, outer: &str) -> bool {
    let outer = outer.trim_end_matches('/');
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The root under which a tree of files takes `path` into its copies; `None` where it does not.
fn taken_by<'f>(files: &'f FilesSpec, path: &str) -> Option<&'f str> {
    let root = files.paths.iter().find(|root| is_below(path, root))?;
    let inside = path.strip_prefix(root.trim_end_matches('/')).unwrap_or(path).trim_start_matches('/');
    // Only what a pattern names outright is surely left out; a finding too many is better than a key too many.
    let is_left_out = files.exclude.iter().any(|pattern| {
        let named = pattern.trim_end_matches("/**").trim_matches('/');
        !named.is_empty() && (inside == named || inside.starts_with(&format!("{named}/")))
    });
    (!is_left_out).then_some(root.as_str())
}

/// Never with the backups: inside the repository, on its disk, or inside what is stored in it.
fn with_backups(inventory: &Inventory, spec: &RepositorySpec, seen: &Sighting) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &seen.files {
        let mut wrong = |detail: String| {
            findings.push(Finding::new(FindingCode::KeyWithBackups, &file.what, detail));
        };
        match &seen.place {
            Some((place, _)) if is_below(&file.path, place) => {
                wrong(format!(
                    "`{}` lies inside repository {}: who copies it has both",
                    file.path, spec.name
                ));
            }
            Some((place, Some(device))) if file.device == Some(*device) && !file.is_signing_key => {
                wrong(format!(
                    "`{}` is on the same disk as repository {} (`{place}`): one theft takes both",
                    file.path, spec.name
                ));
            }
            Some(_) | None => {}
        }
        let services = inventory.services.iter().filter(|service| service.repositories.contains(&spec.name));
        let trees = services.flat_map(|service| service.sources.iter().map(move |source| (service, source)));
        for (service, source) in trees {
            let SourceSpec::Files(files) = &source.spec else { continue };
            let Some(root) = taken_by(files, &file.path) else { continue };
            let of = format!("{}/{}", service.name, source.name);
            wrong(if file.is_signing_key {
                format!(
                    "`{}` is copied with `{root}` of {of} into {}: who opens a copy can sign receipts",
                    file.path, spec.name
                )
            } else {
                format!("`{}` is copied with `{root}` of {of} into {}, which it opens", file.path, spec.name)
            });
        }
    }
    findings
}

/// Whether the password of `repository` can only be had out of `repository`, by way of the services that hold it.
///
/// A key that somebody holds apart, or a password that no service of the inventory gives, ends every circle. What a `vault:`
/// is without a service that is named for it is not known, and so no way out either.
fn circular(inventory: &Inventory, repository: &RepositoryName) -> Option<Finding> {
    let spec = inventory.repositories.get(repository)?;
    let is_vault = matches!(spec.password, SecretRef::Vault { .. });
    if spec.opened_by.is_none() {
        return (is_vault && !is_held_apart(spec)).then(|| {
            Finding::new(
                FindingCode::CircularCustody,
                format!("repository {repository}"),
                "its password comes from a Vault, and nothing says where that is brought back from: name its service with opened_by, or put a key in escrow",
            )
        });
    }
    let (open, _) = reachable(inventory);
    let service = spec.opened_by.as_ref().filter(|_| !open.contains(repository))?;
    let only: Vec<&str> = inventory
        .service(service)
        .map(|service| service.repositories.iter().map(RepositoryName::as_str).collect())
        .unwrap_or_default();
    let how = if only == [repository.as_str()] {
        format!("whose copies are in {repository} alone")
    } else if only.contains(&repository.as_str()) {
        format!("whose copies are in {}, none of which opens without it", only.join(", "))
    } else {
        format!("which comes back only after something that {repository} holds")
    };
    Some(Finding::new(
        FindingCode::CircularCustody,
        format!("repository {repository}"),
        format!("its password is given by {service}, {how}"),
    ))
}

fn is_held_apart(spec: &RepositorySpec) -> bool {
    spec.keys.values().any(|key| key.custody != Custody::Online)
}

/// What can be had from nothing but what people and files outside the estate hold: repositories that open, services that
/// come back. The smallest such sets, so that nothing in them rests on itself.
fn reachable(inventory: &Inventory) -> (BTreeSet<RepositoryName>, BTreeSet<ServiceName>) {
    let mut open: BTreeSet<RepositoryName> = BTreeSet::new();
    let mut back: BTreeSet<ServiceName> = BTreeSet::new();
    let services: BTreeMap<_, _> =
        inventory.services.iter().map(|service| (&service.name, service)).collect();
    loop {
        let before = (open.len(), back.len());
        for (name, spec) in &inventory.repositories {
            let is_given = match &spec.opened_by {
                None => !matches!(spec.password, SecretRef::Vault { .. }),
                Some(service) => back.contains(service),
            };
            if is_given || is_held_apart(spec) {
                open.insert(name.clone());
            }
        }
        for (name, service) in &services {
            let is_stored = service.repositories.iter().any(|repository| open.contains(repository));
            let has_all = service.depends_on.iter().all(|needed| back.contains(needed));
            if has_all && (service.sources.is_empty() || is_stored) {
                back.insert((*name).clone());
            }
        }
        if before == (open.len(), back.len()) {
            return (open, back);
        }
    }
}
