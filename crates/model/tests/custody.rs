//! Custody: for every way in which keys are kept wrongly a case that is found, and for every healthy oddity one without alarm.

#![expect(clippy::unwrap_used, reason = "a test whose case cannot be set up must fail")]

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use seaworthy_model::config::{SourceText, parse};
use seaworthy_model::custody::Custody;
use seaworthy_model::custody::{CheckKnown, FileSeen, KeySeen, Sighting, Standing, judge};
use seaworthy_model::example;
use seaworthy_model::finding::FindingCode;
use seaworthy_model::id::{KeyFileId, KeyName, RepositoryName};
use seaworthy_model::receipt::{ABSENT, Absence, Independence};
use seaworthy_model::service::Inventory;

const SOUND: &str = r#"
[defaults]
owner = "operations"

[repositories.local]
location = "/srv/backups"
password = "file:/etc/seaworthy/password"

[repositories.local.keys.daily]
custody = "online"
holder = "operations"

[repositories.local.keys.safe]
custody = "escrow"
holder = "head of finance"
place = "safe"
id = "eeeeeeee"
check_every = "180d"

[services.papers.sources.files]
kind = "files"
paths = ["/srv/papers"]
"#;

fn inventory(text: &str) -> Inventory {
    parse(&[SourceText::new("seaworthy.toml", text)]).unwrap_or_else(|errors| panic!("{errors}")).inventory
}

fn now() -> Timestamp {
    "2026-11-21T03:00:00Z".parse().unwrap()
}

fn days(count: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * count)
}

fn id(digit: &str) -> KeyFileId {
    KeyFileId(digit.repeat(64))
}

fn key(digit: &str, is_used: bool) -> KeySeen {
    KeySeen { id: id(digit), created: None, made_by: "root@host".to_owned(), is_used }
}

fn check(name: &str, digit: Option<&str>, days_ago: i64, is_good: bool) -> CheckKnown {
    CheckKnown {
        name: Some(KeyName::new(name).unwrap()),
        key: digit.map(id),
        at: now() - days(days_ago),
        is_good,
    }
}

fn file(path: &str, device: u64) -> FileSeen {
    FileSeen {
        what: "the password of repository local".to_owned(),
        path: path.to_owned(),
        device: Some(device),
        exposures: Vec::new(),
        is_signing_key: false,
    }
}

/// Two keys, the one in escrow shown a month ago; the password on another disk than the repository.
fn healthy() -> Sighting {
    Sighting {
        keys: Some(vec![key("a", true), key("e", false)]),
        files: vec![file("/etc/seaworthy/password", 1)],
        place: Some(("/srv/backups".to_owned(), Some(2))),
        checks: vec![check("safe", Some("e"), 30, true)],
    }
}

fn standing(text: &str, seen: &Sighting) -> Standing {
    let inventory = inventory(text);
    let spec = inventory.repositories.get(&RepositoryName::new("local").unwrap()).unwrap();
    judge(&inventory, spec, seen, now())
}

fn codes(standing: &Standing) -> BTreeSet<&'static str> {
    standing.all().map(|finding| finding.code.as_str()).collect()
}

#[track_caller]
fn finds(text: &str, seen: &Sighting, expected: &[&str], words: &str) {
    let standing = standing(text, seen);
    assert_eq!(
        codes(&standing),
        expected.iter().copied().collect(),
        "{:?}",
        standing.all().collect::<Vec<_>>()
    );
    assert!(standing.all().any(|finding| finding.to_string().contains(words)), "{standing:?}");
}

#[test]
fn what_is_kept_well_raises_no_alarm() {
    assert_eq!(codes(&standing(SOUND, &healthy())), BTreeSet::new());
    // The online key's id may be written down, and the repository may lie in a bucket.
    let with_id = SOUND.replace("holder = \"operations\"\n", "holder = \"operations\"\nid = \"aaaaaaaa\"\n");
    assert_eq!(codes(&standing(&with_id, &healthy())), BTreeSet::new());
    let bucket = SOUND.replace("location = \"/srv/backups\"", "location = \"s3://b/p\"\nsite = \"fra\"");
    let seen = Sighting { place: None, ..healthy() };
    assert_eq!(codes(&standing(&bucket, &seen)), BTreeSet::new());
    // A check on the last day still counts; so does one by a clock that is seconds ahead.
    for check in [
        check("safe", Some("e"), 180, true),
        CheckKnown { at: now() + SignedDuration::from_secs(9), ..check("safe", Some("e"), 0, true) },
    ] {
        assert_eq!(codes(&standing(SOUND, &Sighting { checks: vec![check], ..healthy() })), BTreeSet::new());
    }
    // Without an id in the register, the last good check says which key it is.
    let without_id = SOUND.replace("id = \"eeeeeeee\"\n", "");
    assert_eq!(codes(&standing(&without_id, &healthy())), BTreeSet::new());
}

#[test]
fn one_key_or_one_holder_is_too_few() {
    let one = Sighting { keys: Some(vec![key("a", true)]), ..healthy() };
    let alone = &SOUND[..SOUND.find("[repositories.local.keys.daily]").unwrap()].to_owned();
    let rest = &SOUND[SOUND.find("[services").unwrap()..];
    finds(&format!("{alone}{rest}"), &one, &["KY-03"], "one key opens it");
    finds(&SOUND.replace("head of finance", "Operations "), &healthy(), &["KY-03"], "holds every key");
    // Two keys without a register: nobody is known to hold any.
    finds(&format!("{alone}{rest}"), &healthy(), &["KY-08"], "there is no register");
    let online = SOUND
        .replace("custody = \"escrow\"", "custody = \"online\"")
        .replace("check_every = \"180d\"\n", "")
        .replace("holder = \"operations\"\n", "holder = \"operations\"\nid = \"aaaaaaaa\"\n");
    finds(&online, &healthy(), &["KY-03"], "no key is in escrow");
}

#[test]
fn a_password_with_the_backups_is_found() {
    let at = |path: &str, device: u64| Sighting { files: vec![file(path, device)], ..healthy() };
    finds(SOUND, &at("/srv/backups/password", 1), &["KY-04"], "lies inside repository local");
    finds(SOUND, &at("/etc/seaworthy/password", 2), &["KY-04"], "on the same disk");
    finds(SOUND, &at("/srv/papers/deep/password", 1), &["KY-04"], "is copied with `/srv/papers`");
    assert_eq!(
        codes(&standing(SOUND, &at("/srv/backups-password", 1))),
        BTreeSet::new(),
        "beside it, not in it"
    );
    let excluding =
        SOUND.replace("paths = [\"/srv/papers\"]", "paths = [\"/srv/papers\"]\nexclude = [\"deep/**\"]");
    assert_eq!(codes(&standing(&excluding, &at("/srv/papers/deep/password", 1))), BTreeSet::new());
    // The signing key may be on the repository's disk; in a copy it lets others sign.
    let signing = |path: &str| Sighting {
        files: vec![FileSeen { is_signing_key: true, ..file(path, 2) }],
        ..healthy()
    };
    assert_eq!(codes(&standing(SOUND, &signing("/var/lib/seaworthy/signing.key"))), BTreeSet::new());
    finds(SOUND, &signing("/srv/papers/state/signing.key"), &["KY-04"], "can sign receipts");
}

#[test]
fn a_file_that_others_can_read_is_found() {
    let mut open = file("/etc/seaworthy/password", 1);
    open.exposures.push("`/etc/seaworthy/password` has mode 0644".to_owned());
    finds(SOUND, &Sighting { files: vec![open], ..healthy() }, &["KY-05"], "0644");
}

#[test]
fn an_escrow_that_nobody_has_shown_is_found() {
    let with = |checks: Vec<CheckKnown>| Sighting { checks, ..healthy() };
    finds(SOUND, &with(Vec::new()), &["KY-07"], "has never shown");
    finds(SOUND, &with(vec![check("safe", Some("e"), 181, true)]), &["KY-07"], "181 days ago");
    // That another key works says nothing of this one.
    finds(SOUND, &with(vec![check("daily", Some("a"), 1, true)]), &["KY-07"], "has never shown");
    // A holder whose last try failed is not held up by an older one that did not.
    let tried = vec![check("safe", Some("e"), 30, true), check("safe", None, 2, false)];
    finds(SOUND, &with(tried), &["KY-07"], "when its holder last tried");
    let ahead = CheckKnown { at: now() + days(9), ..check("safe", Some("e"), 0, true) };
    finds(SOUND, &with(vec![ahead]), &["KY-07"], "its age is not known");
}

#[test]
fn keys_and_register_that_differ_are_found() {
    let with = |keys: Vec<KeySeen>| Sighting { keys: Some(keys), ..healthy() };
    let stranger = vec![key("a", true), key("e", false), key("b", false)];
    finds(SOUND, &with(stranger), &["KY-08"], "the register does not name it");
    finds(
        SOUND,
        &with(vec![key("a", true), key("b", false)]),
        &["KY-08"],
        "no key eeeeeeee is in the repository",
    );
    // This program uses the key that should be in a safe.
    let used = vec![key("a", false), key("e", true)];
    finds(SOUND, &with(used), &["KY-08"], "nobody holds it apart");
    let nameless = SOUND.replace("id = \"eeeeeeee\"\n", "");
    finds(
        &nameless,
        &Sighting { checks: Vec::new(), ..healthy() },
        &["KY-08"],
        "does not say which key it is",
    );
}

const VAULT: &str = r#"
[defaults]
owner = "operations"

[repositories.local]
location = "/srv/backups"
password = "vault:kv/backup#local"
opened_by = "vault"

[repositories.away]
location = "s3://away/all"
site = "fra"
password = "env:AWAY"

[services.vault]
repositories = ["local"]
[services.vault.sources.files]
kind = "files"
paths = ["/srv/vault"]

[services.network]
repositories = ["local"]
[services.network.sources.files]
kind = "files"
paths = ["/srv/network"]
"#;

fn circle(text: &str) -> Option<String> {
    let standing = standing(text, &Sighting::default());
    standing
        .findings
        .iter()
        .find(|finding| finding.code == FindingCode::CircularCustody)
        .map(|finding| finding.detail.clone())
}

#[test]
fn a_password_that_comes_back_only_out_of_its_own_repository_is_found() {
    assert!(circle(VAULT).unwrap().contains("whose copies are in local alone"));
    // A second repository that opens by itself ends the circle, unless what the Vault needs is in it.
    let twice = VAULT.replacen(
        "[services.vault]\nrepositories = [\"local\"]",
        "[services.vault]\nrepositories = [\"local\", \"away\"]",
        1,
    );
    assert_eq!(circle(&twice), None);
    let needing = twice.replace("[services.vault]\n", "[services.vault]\ndepends_on = [\"network\"]\n");
    assert!(circle(&needing).is_some(), "the network that the Vault needs comes back out of `local` alone");
    // Two repositories whose passwords lie in one Vault that lies in both.
    let both = twice
        .replace("password = \"env:AWAY\"", "password = \"vault:kv/backup#away\"\nopened_by = \"vault\"");
    assert!(circle(&both).unwrap().contains("none of which opens without it"));
    // A key that a person holds ends it.
    let held = format!(
        "{VAULT}\n[repositories.local.keys.safe]\ncustody = \"escrow\"\nholder = \"finance\"\nplace = \"safe\"\n"
    );
    assert_eq!(circle(&held), None);
    // A Vault of which nobody says where it comes back from is no way out; another's service is not known to be one.
    let unnamed = VAULT.replace("opened_by = \"vault\"\n", "");
    assert!(circle(&unnamed).unwrap().contains("nothing says where that is brought back from"));
    let plain = unnamed.replace("vault:kv/backup#local", "systemd:local");
    assert_eq!(circle(&plain), None);
}

#[test]
fn nobody_who_could_look_is_told_that_all_is_well_with_the_keys() {
    let unseen = Sighting { keys: None, ..healthy() };
    assert!(standing(SOUND, &unseen).rows.is_empty(), "no line claims anything");
}

#[test]
fn every_condition_of_independence_is_missed() {
    assert_eq!(example::independence().shortfalls(), Vec::<String>::new());
    type Spoil = fn(&mut Independence);
    let broken: [(&str, Spoil); 12] = [
        ("which program", |it| it.program = None),
        ("which program", |it| it.program_digest = None),
        ("where the service's first repository is too", |it| it.copy_site.clone_from(&it.home_site)),
        ("at which site", |it| it.home_site = None),
        ("at which site", |it| it.copy_site = None),
        ("which key opened", |it| it.key = None),
        ("the key that this program itself uses", |it| it.key = Some(it.production_key.clone())),
        ("the password is the one", |it| it.is_other_password = false),
        ("is online", |it| it.custody = Some(Custody::Online)),
        ("names no holder", |it| it.custody = None),
        ("restored no file", |it| it.restored_files = 0),
        ("catalogue was out of reach", |it| {
            it.absent = ABSENT
                .iter()
                .map(|what| Absence { what: (*what).to_owned(), is_shown: *what != "catalogue" })
                .collect();
        }),
    ];
    for (words, spoil) in broken {
        let mut independence = example::independence();
        spoil(&mut independence);
        let reasons = independence.shortfalls();
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        assert!(reasons[0].contains(words), "{reasons:?}");
    }
    for what in ABSENT {
        let mut independence = example::independence();
        independence.absent.retain(|absence| absence.what != what);
        assert_eq!(independence.shortfalls().len(), 1, "{what}");
    }
}
