//! Repositories in object stores: the main job on each kind, a service that fails, lies or refuses, and what is said about it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use seaworthy_testkit::bucket::{Bucket, Checksums, Hold, Operation, Plan, Settings, Wrong};
use seaworthy_testkit::components::restics;
use seaworthy_testkit::emulator::{Emulator, Kind};
use seaworthy_testkit::estate::Dice;
use seaworthy_testkit::product::{PASSWORD, Product, Ran, run};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_seaworthy");
const KEY: &str = "AKIDTEST";
const SECRET: &str = "canary-wJalrXUtnFEMI-canary";

/// The product with a tree of files and one repository somewhere else.
struct Away {
    product: Product,
    environment: Vec<(String, String)>,
}

impl Away {
    /// `repository` is what stands in the repository's table.
    fn new(repository: &str, environment: &[(&str, &str)]) -> Self {
        let product = Product::new(PROGRAM, "").unwrap();
        let files = product.path().join("files");
        fs::create_dir(&files).unwrap();
        for n in 0..40_u32 {
            let bytes: Vec<u8> = (0..n * 1_000).map(|at| u8::try_from((at * 7 + n) % 251).unwrap()).collect();
            fs::write(files.join(format!("file-{n}")), bytes).unwrap();
        }
        let away = Self {
            product,
            environment: environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        };
        away.configure(repository);
        away
    }

    fn configure(&self, repository: &str) {
        let path = self.product.path().display().to_string();
        let text = format!(
            "[defaults]\nowner = \"crew\"\ntier = \"low\"\n\n[repositories.away]\npassword = \"file:{path}/password\"\nsite = \"away\"\n\
             {repository}\n[services.docs.sources.files]\nkind = \"files\"\npaths = [\"{path}/files\"]\n"
        );
        fs::write(self.product.path().join("seaworthy.toml"), text).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = self.product.command(arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        run(command).unwrap()
    }

    fn done(&self, arguments: &[&str]) -> String {
        self.run(arguments).expect(0).unwrap()
    }

    fn init(&self) {
        self.done(&["init", "--missing-repositories"]);
    }

    fn summary(&self, arguments: &[&str], code: i32) -> Value {
        let stdout = self.run(&[&["--json"], arguments].concat()).expect(code).unwrap();
        stdout
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .find(|one| one["event"] == "summary")
            .unwrap()
    }

    /// A drill of the newest copy, which must be equal.
    fn proves(&self) {
        assert_eq!(
            self.summary(&["drill"], 0)["drill"]["verdict"],
            serde_json::json!({ "word": "pass", "level": "A4" })
        );
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.product.path().join("files").join(name), text).unwrap();
    }
}

/// A service of our own that checks who asks, and pages often.
fn bucket() -> Bucket {
    let keys = BTreeMap::from([(KEY.to_owned(), SECRET.to_owned())]);
    Bucket::new("vault", Settings { keys, page: 3, ..Settings::default() }).unwrap()
}

fn s3(bucket: &Bucket) -> String {
    format!(
        "location = \"s3://vault/ships/one\"\nendpoint = \"{}\"\naccess_key = \"env:KEY\"\nsecret_key = \"env:SECRET\"\ntimeout = \"1s\"\n",
        bucket.endpoint()
    )
}

fn away(bucket: &Bucket) -> Away {
    Away::new(&s3(bucket), &[("KEY", KEY), ("SECRET", SECRET)])
}

/// Two backups, a drill, a restore and a check; everything that is asked of a place.
fn does_the_main_job(away: &Away) {
    away.init();
    let again = away.run(&["init", "--missing-repositories"]);
    let said = format!("{}{}", again.stdout, again.stderr);
    assert!(again.code == Some(0) && !said.contains("made repository"), "{said}");
    away.done(&["backup"]);
    away.write("file-1", "changed");
    away.write("new", "new");
    away.done(&["backup"]);
    away.proves();
    away.done(&["check", "--read-data"]);
    let to = away.product.path().join("back");
    away.done(&["restore", "docs", "--to", to.to_str().unwrap()]);
    let found = Command::new("diff")
        .arg("-r")
        .arg(away.product.path().join("files"))
        .arg(inner(&to))
        .output()
        .unwrap();
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stdout));
}

/// The one directory of files below a place.
fn inner(place: &Path) -> std::path::PathBuf {
    let mut place = place.to_owned();
    while !place.join("new").exists() {
        let mut entries = fs::read_dir(&place).unwrap().flatten().filter(|entry| entry.path().is_dir());
        place = entries.next().unwrap().path();
    }
    place
}

fn restic(location: &str, key: &str, secret: &str) {
    for program in restics().unwrap() {
        let mut command = Command::new(program);
        command.args(["-r", location, "--no-cache", "check", "--read-data"]);
        command
            .env_remove("AWS_CA_BUNDLE")
            .env("AWS_ACCESS_KEY_ID", key)
            .env("AWS_SECRET_ACCESS_KEY", secret);
        run({
            command.env("RESTIC_PASSWORD", PASSWORD);
            command
        })
        .unwrap()
        .expect(0)
        .unwrap();
    }
}

#[test]
fn the_main_job_runs_on_a_service_that_checks_who_asks() {
    let bucket = bucket();
    let away = away(&bucket);
    away.configure(&format!(
        "{}storage_class = \"STANDARD_IA\"\nserver_side_encryption = \"AES256\"\n",
        s3(&bucket)
    ));
    does_the_main_job(&away);
    let objects = bucket.objects("vault");
    assert!(objects.len() > 5);
    for (key, object) in &objects {
        let is_pack = key.starts_with("ships/one/data/");
        assert_eq!(object.class.as_deref(), is_pack.then_some("STANDARD_IA"), "{key}");
        assert_eq!(object.encryption.as_deref(), Some("AES256"), "{key}");
        assert!(key.starts_with("ships/one/"), "{key}");
    }
    restic(&format!("s3:{}/vault/ships/one", bucket.endpoint()), KEY, SECRET);
    // Another repository whose prefix begins alike is another repository.
    away.configure(&s3(&bucket).replace("ships/one", "ships/on"));
    assert_eq!(away.run(&["drill"]).code, Some(10));
    away.init();
    assert_eq!(bucket.objects("vault").keys().filter(|key| key.ends_with("/config")).count(), 2);
}

#[test]
fn the_main_job_runs_on_what_speaks_like_google() {
    let bucket = Bucket::new("vault", Settings { page: 3, ..Settings::default() }).unwrap();
    let repository = format!(
        "location = \"gs://vault/ships\"\nendpoint = \"{}\"\nstorage_class = \"NEARLINE\"\n",
        bucket.endpoint()
    );
    let away = Away::new(&repository, &[]);
    does_the_main_job(&away);
    let objects = bucket.objects("vault");
    let nearline = objects.iter().filter(|(_, object)| object.class.as_deref() == Some("NEARLINE"));
    assert!(nearline.clone().count() > 0 && nearline.clone().all(|(key, _)| key.starts_with("ships/data/")));
}

#[test]
fn the_main_job_runs_on_localstack() {
    let emulator = Emulator::start(Kind::LocalStack, "vault").unwrap();
    let repository = format!(
        "location = \"{}/ships\"\n{}storage_class = \"STANDARD_IA\"\nserver_side_encryption = \"AES256\"\n",
        emulator.location("vault"),
        emulator.configuration()
    );
    let away = Away::new(&repository, &[emulator.environment()]);
    does_the_main_job(&away);
    restic(&format!("s3:{}/vault/ships", emulator.endpoint()), "test", "test");
}

#[test]
fn the_main_job_runs_on_azurite() {
    let emulator = Emulator::start(Kind::Azurite, "vault").unwrap();
    let repository = format!(
        "location = \"{}/ships\"\n{}storage_class = \"Cool\"\n",
        emulator.location("vault"),
        emulator.configuration()
    );
    let away = Away::new(&repository, &[emulator.environment()]);
    does_the_main_job(&away);
    // Who has another key is told so, and nothing else.
    let mut other = Away::new(&repository, &[("EMULATOR_KEY", "aGVsbG8=")]);
    let refused = other.run(&["init", "--missing-repositories"]);
    assert!(refused.stderr.contains("AUTH-DENIED"), "{}", refused.stderr);
    other.environment[0].1 = "no base64 at all: canary".to_owned();
    let refused = other.run(&["init", "--missing-repositories"]);
    assert!(
        refused.stderr.contains("AUTH-DENIED") && !refused.stderr.contains("canary"),
        "{}",
        refused.stderr
    );
}

#[test]
fn what_is_wrong_for_good_is_told_with_what_to_do() {
    let bucket = bucket();
    let away = away(&bucket);
    away.init();
    away.done(&["backup"]);
    let keys = BTreeMap::from([(KEY.to_owned(), SECRET.to_owned())]);
    let sane = Settings { keys, page: 3, ..Settings::default() };
    type Case<'a> = (&'a str, i32, &'a dyn Fn(&mut Settings), &'a str, &'a str);
    let cases: [Case<'_>; 6] = [
        (
            "unknown key",
            1,
            &|now| now.keys = BTreeMap::from([("other".to_owned(), SECRET.to_owned())]),
            "AUTH-DENIED",
            "InvalidAccessKeyId",
        ),
        (
            "wrong secret",
            1,
            &|now| drop(now.keys.insert(KEY.to_owned(), "other".to_owned())),
            "AUTH-DENIED",
            "SignatureDoesNotMatch",
        ),
        (
            "another region",
            1,
            &|now| now.region = "eu-central-1".to_owned(),
            "region = ",
            "AuthorizationHeaderMalformed",
        ),
        ("clock", 20, &|now| now.clock_ahead = Duration::from_secs(3_600), "TM-01", "RequestTimeTooSkewed"),
        ("quota", 1, &|now| now.quota = 10, "IO-ENOSPC", "no space left"),
        ("expired", 1, &|now| now.expired_tokens = vec!["session".to_owned()], "AUTH-DENIED", "ExpiredToken"),
    ];
    for (case, exit, change, code, words) in cases {
        bucket.set(change);
        let token = if case == "expired" { "session_token = \"env:TOKEN\"\n" } else { "" };
        away.configure(&format!("{}{token}", s3(&bucket)));
        let mut command = away.product.command(&["backup"]);
        command.envs(away.environment.iter().map(|(name, value)| (name, value))).env("TOKEN", "session");
        let asked =
            bucket.asked(Operation::Head) + bucket.asked(Operation::Get) + bucket.asked(Operation::Put);
        let refused = run(command).unwrap();
        let said = format!("{}{}", refused.stdout, refused.stderr);
        assert!(refused.code == Some(exit) && said.contains(code) && said.contains(words), "{case}: {said}");
        assert!(!said.contains("canary"), "{case}: {said}");
        let asked =
            bucket.asked(Operation::Head) + bucket.asked(Operation::Get) + bucket.asked(Operation::Put)
                - asked;
        assert!(case == "quota" || asked <= 4, "{case}: asked {asked} times what waiting does not change");
        bucket.set(|now| *now = sane.clone());
    }
    away.configure(&s3(&bucket));
    let gone =
        Away::new(&s3(&bucket).replace("s3://vault", "s3://elsewhere"), &[("KEY", KEY), ("SECRET", SECRET)]);
    let refused = gone.run(&["init", "--missing-repositories"]);
    assert!(
        refused.stderr.contains("NoSuchBucket") && refused.stderr.contains("never made for you"),
        "{}",
        refused.stderr
    );
    // A place where nobody listens.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    away.configure(&s3(&bucket).replace(&bucket.endpoint(), &format!("http://{closed}")));
    let refused = away.run(&["backup"]);
    assert!(refused.stderr.contains("IO-UNREACHABLE"), "{}", refused.stderr);
    // Who may not delete can back up and drill.
    away.configure(&s3(&bucket));
    bucket.set(|now| now.may_delete = false);
    for n in 0..2 {
        away.write("more", &format!("more {n}"));
        away.done(&["backup"]);
        away.proves();
        away.done(&["check", "--read-data"]);
    }
    let to = away.product.path().join("back");
    away.done(&["restore", "docs", "--to", to.to_str().unwrap()]);
}

#[test]
fn a_service_that_fails_now_and_then_costs_time_and_nothing_else() {
    let wrongs = [
        Wrong::Refused(503, "SlowDown"),
        Wrong::Refused(500, "InternalError"),
        Wrong::Refused(429, "TooManyRequests"),
        Wrong::Broken,
        Wrong::AnswerLost,
        Wrong::Truncated(10),
        Wrong::Corrupt(77),
        Wrong::Late(Duration::from_millis(300)),
        Wrong::Silent,
    ];
    let clean = bucket();
    let away_clean = away(&clean);
    away_clean.init();
    away_clean.done(&["backup"]);
    let packs = |bucket: &Bucket| bucket.objects("vault").keys().filter(|key| key.contains("/data/")).count();
    let kinds =
        |bucket: &Bucket, kind: &str| bucket.objects("vault").keys().filter(|key| key.contains(kind)).count();
    for (n, wrong) in (1..).zip(wrongs) {
        let bucket = bucket();
        let away = away(&bucket);
        let mut dice = Dice::new(n);
        let mut plans = Vec::new();
        for operation in [Operation::Put, Operation::Get, Operation::Head, Operation::List, Operation::Delete]
        {
            let is_read = matches!(operation, Operation::Get | Operation::List);
            if matches!(wrong, Wrong::Truncated(_) | Wrong::Corrupt(_)) && !is_read {
                continue;
            }
            plans.push(Plan {
                after: u32::try_from(dice.below(2)).unwrap(),
                ..Plan::first(1, operation, wrong.clone())
            });
        }
        // A page of names that is damaged is no XML, or other names: see the next test.
        plans.retain(|plan| !(plan.operation == Operation::List && matches!(wrong, Wrong::Corrupt(_))));
        if n < 4 {
            bucket.plan(plans.clone());
        }
        away.init();
        bucket.plan(plans.clone());
        away.done(&["backup"]);
        bucket.plan(plans.clone());
        away.proves();
        bucket.plan(plans);
        away.done(&["check", "--read-data"]);
        assert_eq!(packs(&bucket), packs(&clean), "{wrong:?}: something was stored twice");
        assert_eq!(kinds(&bucket, "/snapshots/"), 1, "{wrong:?}");
        assert_eq!(kinds(&bucket, "/locks/"), 0, "{wrong:?}");
    }
}

#[test]
fn a_service_that_is_down_ends_the_run_and_the_next_one_needs_no_human() {
    let bucket = bucket();
    let away = away(&bucket);
    away.init();
    away.done(&["backup"]);
    let busy = || Wrong::Refused(503, "SlowDown");
    for (n, (wrong, operation, key)) in (1..).zip([
        (busy(), Operation::Put, "/data/"),
        (busy(), Operation::Put, "/snapshots/"),
        (busy(), Operation::List, ""),
        (Wrong::Broken, Operation::Put, "/data/"),
        (Wrong::Silent, Operation::Get, "/index/"),
    ]) {
        bucket.plan(vec![Plan { key, ..Plan::every(operation, wrong.clone()) }]);
        away.write("file-2", &format!("{n} {}", "x".repeat(3_000)));
        let failed = away.run(&["backup"]);
        let said = format!("{}{}", failed.stdout, failed.stderr);
        let case = format!("{wrong:?} {operation:?} {key}");
        assert!(
            failed.code == Some(1) && said.contains("IO-UNREACHABLE"),
            "{case}: {:?} {said}",
            failed.code
        );
        bucket.plan(Vec::new());
        away.done(&["backup"]);
    }
    away.proves();
    restic(&format!("s3:{}/vault/ships/one", bucket.endpoint()), KEY, SECRET);
}

#[test]
fn a_service_that_lies_makes_no_false_copy() {
    let bucket = bucket();
    let away = away(&bucket);
    away.init();
    away.done(&["backup"]);
    // What it acknowledges and forgets is stored again, or is no copy.
    for key in ["/data/", "/index/", "/snapshots/"] {
        for times in [1, 3] {
            bucket.plan(vec![Plan { key, ..Plan::first(times, Operation::Put, Wrong::Forgotten) }]);
            away.write("file-3", &format!("{key} {times} {}", "y".repeat(3_000)));
            away.done(&["backup"]);
            away.proves();
        }
        bucket.plan(vec![Plan { key, ..Plan::every(Operation::Put, Wrong::Forgotten) }]);
        away.write("file-3", &format!("{key} {}", "z".repeat(3_000)));
        let failed = away.run(&["backup"]);
        assert_eq!(failed.code, Some(1), "{key}: {} {}", failed.stdout, failed.stderr);
        assert!(failed.stderr.contains("do not trust this store"), "{}", failed.stderr);
        bucket.plan(Vec::new());
        away.done(&["backup"]);
        away.proves();
    }
    // What an index names and is gone is stored again: the next run needs no human.
    let newest_pack =
        bucket.objects("vault").into_keys().filter(|key| key.contains("/data/")).collect::<Vec<_>>();
    bucket.change("vault", |objects| newest_pack.iter().for_each(|key| drop(objects.remove(key))));
    away.done(&["backup"]);
    away.proves();
    // A refusal that comes as a success is none of the two: nothing is believed that was not seen.
    bucket.plan(vec![Plan {
        key: "/snapshots/",
        ..Plan::first(1, Operation::Put, Wrong::ErrorInSuccess("InternalError"))
    }]);
    away.write("file-3", "once more");
    assert_eq!(away.run(&["backup"]).code, Some(1));
    // A list that breaks off, or is damaged, is no shorter list. (A drill that knows its copy needs none.)
    for wrong in
        [Wrong::Refused(403, "AccessDenied"), Wrong::Truncated(60), Wrong::Refused(404, "NoSuchBucket")]
    {
        bucket.plan(vec![Plan { key: "snapshots", ..Plan::every(Operation::List, wrong.clone()) }]);
        let failed = away.run(&["check"]);
        let said = format!("{}{}", failed.stdout, failed.stderr);
        assert!([Some(1), Some(10)].contains(&failed.code), "{wrong:?}: {:?} {said}", failed.code);
    }
    bucket.plan(Vec::new());
    // Damage that stays is a failure with the object's name; damage of one answer was no alarm (above).
    away.done(&["backup"]);
    away.proves();
    bucket.plan(vec![Plan { key: "/data/", ..Plan::every(Operation::Get, Wrong::Corrupt(50)) }]);
    let failed = away.summary(&["drill"], 5);
    let codes: Vec<&str> = failed["drill"]["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one["code"].as_str())
        .collect();
    assert!(codes.contains(&"RP-01"), "{codes:?}");
    bucket.plan(Vec::new());
    away.proves();
    // What is no longer there is missing.
    bucket.change("vault", |objects| objects.retain(|key, _| !key.contains("/data/")));
    let failed = away.summary(&["drill"], 5);
    assert!(failed["drill"]["findings"].to_string().contains("RP-02"), "{failed}");
    // A bucket that is gone blames nothing that was in it.
    bucket.remove("vault");
    let undecided = away.run(&["drill"]);
    assert!(
        undecided.code != Some(5) && undecided.code != Some(0),
        "{:?} {}",
        undecided.code,
        undecided.stdout
    );
}

/// The product with a directory and two object stores, which its copies are replicated into.
fn three_places(bucket: &Bucket, azurite: &Emulator) -> Away {
    let key = azurite.environment();
    let away = Away::new(&s3(bucket), &[("KEY", KEY), ("SECRET", SECRET), key]);
    let path = away.product.path().display().to_string();
    let password = format!("password = \"file:{path}/password\"\n");
    let s3 = s3(bucket).replace("vault/ships/one", "vault/replica");
    let text = format!(
        "[defaults]\nowner = \"crew\"\ntier = \"low\"\n\n[repositories.near]\nlocation = \"{path}/near\"\n{password}site = \"here\"\n\n\
         [repositories.far]\n{password}site = \"far\"\n{s3}\n[repositories.farther]\n{password}site = \"farther\"\nlocation = \"{}/ships\"\n{}\n\
         [services.docs.sources.files]\nkind = \"files\"\npaths = [\"{path}/files\"]\n",
        azurite.location("vault"),
        azurite.configuration()
    );
    fs::write(away.product.path().join("seaworthy.toml"), text).unwrap();
    away
}

/// What the receipts of a run say, in order.
fn replicated(ran: &Ran) -> Vec<Value> {
    let events = ran.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events
        .filter(|one| one["schema"] == "seaworthy.replicate/1" && one["event"] == "summary")
        .map(|one| one["replicate"].clone())
        .collect()
}

#[test]
fn what_is_replicated_outlives_its_original_and_is_proven_by_itself() {
    let bucket = bucket();
    let azurite = Emulator::start(Kind::Azurite, "vault").unwrap();
    let away = three_places(&bucket, &azurite);
    away.init();
    let first = away.run(&["--json", "backup"]);
    assert_eq!(first.code, Some(0), "{} {}", first.stdout, first.stderr);
    let there = replicated(&first);
    assert_eq!(there.len(), 2, "{}", first.stdout);
    assert!(
        there
            .iter()
            .all(|one| one["copy"].is_string() && one["moved"]["packs_verified"] == one["moved"]["packs"])
    );
    // The source was read once.
    let captures = first.stdout.lines().filter(|line| line.contains("seaworthy.backup/1")).count();
    assert_eq!(captures, 1, "{}", first.stdout);
    // Nothing is missing now, and a backlog is caught up with.
    assert_eq!(replicated(&away.run(&["--json", "replicate"])), Vec::<Value>::new());
    for n in 0..3 {
        away.write("file-5", &format!("change {n}"));
        away.done(&["backup", "--no-replicate"]);
    }
    let rehearsal = away.done(&["replicate", "--dry-run"]);
    assert_eq!(rehearsal.matches("would replicate").count(), 6, "{rehearsal}");
    let caught_up = away.run(&["--json", "replicate", "--to", "far"]);
    let points: Vec<String> = replicated(&caught_up).iter().map(|one| one["point"].to_string()).collect();
    assert!(points.len() == 3 && points.is_sorted_by(|a, b| a >= b), "newest first: {points:?}");
    away.done(&["replicate", "--read-back", "100%"]);
    for from in ["near", "far", "farther"] {
        away.done(&["drill", "--from", from]);
    }
    restic(&format!("s3:{}/vault/replica", bucket.endpoint()), KEY, SECRET);
    // What lacks here is not taken away there, and there is enough of it.
    fs::remove_dir_all(away.product.path().join("near")).unwrap();
    assert_ne!(away.run(&["replicate"]).code, Some(0), "a repository that is gone is not an empty one");
    for from in ["far", "farther"] {
        let drill = away.summary(&["drill", "--from", from], 0);
        assert_eq!(drill["drill"]["verdict"]["level"], "A4", "{from}");
        let to = away.product.path().join(format!("back-{from}"));
        away.done(&["restore", "docs", "--from", from, "--to", to.to_str().unwrap()]);
        let found = Command::new("diff")
            .arg("-r")
            .arg(away.product.path().join("files"))
            .arg(root_of(&to))
            .output()
            .unwrap();
        assert!(found.status.success(), "{from}: {}", String::from_utf8_lossy(&found.stdout));
    }
    // A backup goes to the next place while the first is gone; and the ledger is whole.
    let without = away.run(&["backup"]);
    assert!(
        without.code == Some(10) && without.stdout.contains("in far"),
        "{:?} {} {}",
        without.code,
        without.stdout,
        without.stderr
    );
    away.done(&["verify"]);
}

/// The directory of files below a place.
fn root_of(place: &Path) -> std::path::PathBuf {
    let mut place = place.to_owned();
    while !place.join("file-1").exists() {
        let mut entries = fs::read_dir(&place).unwrap().flatten().filter(|entry| entry.path().is_dir());
        place = entries.next().unwrap().path();
    }
    place
}

#[test]
fn nothing_is_called_replicated_that_is_not() {
    let bucket = bucket();
    let away = Away::new(&s3(&bucket), &[("KEY", KEY), ("SECRET", SECRET)]);
    let path = away.product.path().display().to_string();
    let text = format!(
        "[defaults]\nowner = \"crew\"\ntier = \"low\"\n\n[repositories.near]\nlocation = \"{path}/near\"\npassword = \"file:{path}/password\"\n\
         site = \"here\"\n\n[repositories.far]\npassword = \"file:{path}/password\"\nsite = \"far\"\n{}\n\
         [services.docs.sources.files]\nkind = \"files\"\npaths = [\"{path}/files\"]\n",
        s3(&bucket)
    );
    fs::write(away.product.path().join("seaworthy.toml"), text).unwrap();
    away.init();
    let wrongs = [
        ("/data/", Wrong::Forgotten),
        ("/snapshots/", Wrong::Forgotten),
        ("/data/", Wrong::Refused(503, "SlowDown")),
        ("/index/", Wrong::Refused(403, "AccessDenied")),
        ("/data/", Wrong::Broken),
    ];
    for (n, (key, wrong)) in (1..).zip(wrongs) {
        bucket.plan(vec![Plan { key, ..Plan::every(Operation::Put, wrong.clone()) }]);
        away.write("file-6", &format!("{n} {}", "r".repeat(5_000)));
        let ran = away.run(&["--json", "backup"]);
        assert!(ran.code == Some(1), "{key} {wrong:?}: {:?} {}", ran.code, ran.stderr);
        let told = replicated(&ran);
        assert!(
            told.iter().all(|one| one["copy"].is_null() && one["outcome"] == "failed"),
            "{key} {wrong:?}: {told:?}"
        );
        // The backup itself is safe.
        assert!(ran.stdout.contains("seaworthy.backup/1"), "{}", ran.stdout);
        bucket.plan(Vec::new());
        let again = replicated(&away.run(&["--json", "replicate"]));
        assert!(again.len() == 1 && again[0]["copy"].is_string(), "{key} {wrong:?}: {again:?}");
        assert_eq!(away.summary(&["drill", "--from", "far"], 0)["drill"]["verdict"]["level"], "A4");
    }
    // A read that is damaged on its way back is no pack that was verified; one answer is asked for again.
    bucket.plan(vec![Plan { key: "/data/", ..Plan::every(Operation::Get, Wrong::Corrupt(40)) }]);
    away.write("file-6", "damaged on its way");
    let ran = away.run(&["--json", "backup"]);
    assert!(
        ran.code == Some(1) && replicated(&ran).iter().all(|one| one["copy"].is_null()),
        "{} {}",
        ran.stdout,
        ran.stderr
    );
    bucket.plan(vec![Plan { key: "/data/", ..Plan::first(1, Operation::Get, Wrong::Corrupt(40)) }]);
    away.done(&["replicate"]);
    bucket.plan(Vec::new());
    // A copy whose original is damaged is named, and keeps no other from being safe.
    away.write("file-7", "to be damaged");
    away.done(&["backup", "--no-replicate"]);
    let data = away.product.path().join("near/data");
    let mut packs: Vec<_> = fs::read_dir(&data)
        .unwrap()
        .flatten()
        .flat_map(|one| fs::read_dir(one.path()).unwrap().flatten())
        .map(|one| one.path())
        .collect();
    packs.sort_by_key(|pack| fs::metadata(pack).unwrap().modified().unwrap());
    away.write("file-8", "sound");
    for pack in packs.iter().rev().take(2) {
        let mut bytes = fs::read(pack).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let mut open = fs::metadata(pack).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut open, 0o600);
        fs::set_permissions(pack, open).unwrap();
        fs::write(pack, bytes).unwrap();
    }
    let ran = away.run(&["--json", "replicate"]);
    let told = replicated(&ran);
    assert!(
        ran.code != Some(0) && told.len() == 1 && told[0]["findings"].to_string().contains("RP-01"),
        "{:?} {} {}",
        ran.code,
        ran.stdout,
        ran.stderr
    );
}

/// The product with a directory and one object store.
fn two_places(bucket: &Bucket) -> Away {
    let away = Away::new(&s3(bucket), &[("KEY", KEY), ("SECRET", SECRET)]);
    let path = away.product.path().display().to_string();
    let text = format!(
        "[defaults]\nowner = \"crew\"\ntier = \"low\"\n\n[repositories.near]\nlocation = \"{path}/near\"\npassword = \"file:{path}/password\"\n\
         site = \"here\"\n\n[repositories.far]\npassword = \"file:{path}/password\"\nsite = \"far\"\n{}\n\
         [services.docs.sources.files]\nkind = \"files\"\npaths = [\"{path}/files\"]\n",
        s3(bucket)
    );
    fs::write(away.product.path().join("seaworthy.toml"), text).unwrap();
    away.init();
    away
}

#[test]
fn what_is_not_read_back_as_it_was_asked_for_is_not_replicated() {
    let bucket = bucket();
    let away = two_places(&bucket);
    let mut refused = 0;
    for after in 0..8 {
        away.write("file-9", &format!("{after} {}", "q".repeat(4_000)));
        away.done(&["backup", "--no-replicate"]);
        let wrong = Wrong::Corrupt(33);
        bucket.plan(vec![Plan { key: "/data/", after, ..Plan::every(Operation::Get, wrong) }]);
        // Twice: what a first run leaves must not be taken for done by the next one.
        for _ in 0..2 {
            for one in replicated(&away.run(&["--json", "replicate", "--read-back", "100%"])) {
                let moved = &one["moved"];
                let is_read =
                    moved["packs_verified"] == moved["packs"] && moved["blobs_verified"] == moved["blobs"];
                assert!(one["copy"].is_null() || (is_read && one["was_there"].is_null()), "{after}: {one}");
                refused += u32::from(one["copy"].is_null());
            }
            bucket.plan(vec![Plan {
                key: "/data/",
                after,
                ..Plan::every(Operation::Get, Wrong::Corrupt(33))
            }]);
        }
        bucket.plan(Vec::new());
        away.done(&["replicate"]);
        assert_eq!(away.summary(&["drill", "--from", "far"], 0)["drill"]["verdict"]["level"], "A4");
    }
    assert!(refused >= 2, "the damage was never met");
}

#[test]
fn nothing_rests_on_a_repository_that_is_known_to_be_damaged() {
    let bucket = bucket();
    let away = two_places(&bucket);
    away.done(&["backup"]);
    // One bit in the largest pack: names, sizes and times stay.
    bucket.change("vault", |objects| {
        let packs = objects.iter_mut().filter(|(key, _)| key.contains("/data/"));
        let (_, pack) = packs.max_by_key(|(_, object)| object.bytes.len()).unwrap();
        let middle = pack.bytes.len() / 2;
        pack.bytes[middle] ^= 1;
    });
    assert_eq!(away.run(&["check", "--read-data", "far"]).code, Some(4));
    // Most of the next copy's content is in that pack.
    away.write("file-1", "one more change");
    let ran = away.run(&["backup"]);
    assert!(ran.stderr.contains("known to be damaged"), "{} {}", ran.stdout, ran.stderr);
    assert_eq!(away.summary(&["drill", "--from", "far"], 0)["drill"]["verdict"]["level"], "A4");
    // And where a pack has gone, what it held is sent again, under the snapshot that is there.
    bucket.change("vault", |objects| objects.retain(|key, _| !key.contains("/data/")));
    assert_eq!(away.run(&["check", "far"]).code, Some(4));
    away.run(&["replicate"]);
    assert_eq!(away.summary(&["drill", "--from", "far"], 0)["drill"]["verdict"]["level"], "A4");
}

/// One replica more, of a copy that differs from the ones before.
fn one_more(away: &Away, n: u32) -> (String, Value) {
    away.write("file-3", &format!("{n} {}", "s".repeat(4_000)));
    let ran = away.run(&["--json", "backup"]);
    let told = replicated(&ran);
    assert!(ran.code == Some(0) && told.len() == 1, "{} {}", ran.stdout, ran.stderr);
    (told[0]["copy"].as_str().unwrap().to_owned(), told[0]["original"].clone())
}

#[test]
fn a_replica_that_is_gone_or_damaged_is_told_and_sent_again() {
    let bucket = bucket();
    let away = two_places(&bucket);
    let replicas: Vec<(String, Value)> = (0..4).map(|n| one_more(&away, n)).collect();
    let name = |copy: &str| format!("ships/one/snapshots/{copy}");
    let delete = |copy: &str| {
        let removed = std::cell::Cell::new(false);
        bucket.change("vault", |objects| removed.set(objects.remove(&name(copy)).is_some()));
        assert!(removed.get(), "{copy} was not there");
    };
    let flip = |copy: &str| {
        bucket.change("vault", |objects| {
            let bytes = &mut objects.get_mut(&name(copy)).unwrap().bytes;
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        });
    };
    // What is sent again, and the exit code of that.
    let sent = |arguments: &[&str]| {
        let ran = away.run(arguments);
        let told = replicated(&ran);
        assert!(told.iter().all(|one| one["copy"].is_string()), "{} {}", ran.stdout, ran.stderr);
        let originals: Vec<Value> = told.iter().map(|one| one["original"].clone()).collect();
        (ran.code, originals, told)
    };
    // One that nobody but the listing tells of.
    delete(&replicas[0].0);
    let (code, originals, told) = sent(&["--json", "replicate"]);
    assert_eq!((code, originals), (Some(4), vec![replicas[0].1.clone()]));
    let again = told[0]["copy"].as_str().unwrap().to_owned();
    assert_ne!(again, replicas[0].0);
    assert_eq!(sent(&["--json", "replicate"]).1, Vec::<Value>::new(), "once is enough");
    // A check goes on telling of it until somebody says that it is gone.
    assert_eq!(away.run(&["check", "far"]).code, Some(4));
    away.done(&["catalogue", "rebuild"]);
    away.done(&["check", "far"]);
    // One that a check tells of, gone and damaged.
    for (n, harm) in [(1, &delete as &dyn Fn(&str)), (2, &flip)] {
        harm(&replicas[n].0);
        let check = away.run(&["check", "far"]);
        assert!(check.code == Some(4) && check.stdout.contains(&replicas[n].0), "{n}: {}", check.stdout);
        let (code, originals, _) = sent(&["--json", "replicate"]);
        assert_eq!((code, originals), (Some(0), vec![replicas[n].1.clone()]), "{n}");
    }
    // One that is met when something else is sent.
    flip(&replicas[3].0);
    away.write("file-3", "the last one");
    let (code, originals, _) = sent(&["--json", "backup"]);
    assert!(code == Some(4) && originals.len() == 2 && originals.contains(&replicas[3].1), "{originals:?}");
    assert_eq!(sent(&["--json", "replicate"]).1, Vec::<Value>::new());
    assert_eq!(away.summary(&["drill", "--from", "far"], 0)["drill"]["verdict"]["level"], "A4");
    // A listing that fails is no empty one: nothing is sent, and nothing is said of any copy.
    bucket.plan(vec![Plan {
        key: "snapshots",
        ..Plan::every(Operation::List, Wrong::Refused(403, "AccessDenied"))
    }]);
    let ran = away.run(&["--json", "replicate"]);
    bucket.plan(Vec::new());
    assert!(ran.code != Some(0) && ran.code != Some(4), "{:?} {} {}", ran.code, ran.stdout, ran.stderr);
    assert!(!ran.stdout.contains("seaworthy.replicate/1"), "{}", ran.stdout);
}

#[test]
fn a_digest_that_a_store_tells_is_taken_for_reading_but_for_a_share() {
    for checksums in [Checksums::Told, Checksums::Untold, Checksums::Wrong, Checksums::Denied] {
        let bucket = bucket();
        bucket.set(|now| now.checksums = checksums);
        let away = two_places(&bucket);
        let moved = |ran: &Ran| {
            let told = replicated(ran);
            assert!(
                told.len() == 1 && told[0]["copy"].is_string(),
                "{checksums:?}: {} {}",
                ran.stdout,
                ran.stderr
            );
            let of = |name: &str| told[0]["moved"][name].as_u64().unwrap_or(0);
            (of("packs"), of("packs_verified"), of("packs_attested"))
        };
        let (packs, verified, attested) = moved(&away.run(&["--json", "backup"]));
        assert!(packs > 1 && verified == packs, "{checksums:?}: {verified} of {packs}");
        // The first one is read in any case.
        let expected = if checksums == Checksums::Told { packs - 1 } else { 0 };
        assert_eq!(attested, expected, "{checksums:?}");
        away.write("file-4", &format!("{checksums:?} {}", "w".repeat(9_000)));
        away.done(&["backup", "--no-replicate"]);
        let (packs, verified, attested) = moved(&away.run(&["--json", "replicate", "--read-back", "100%"]));
        assert_eq!((verified, attested), (packs, 0), "{checksums:?}: all of it was to be read");
        assert_eq!(away.summary(&["drill", "--from", "far"], 0)["drill"]["verdict"]["level"], "A4");
        // Backups themselves ask for no digests, and nobody's answer is asked for twice.
        restic(&format!("s3:{}/vault/ships/one", bucket.endpoint()), KEY, SECRET);
    }
}

#[test]
fn a_store_that_tells_the_right_digest_of_damaged_packs_is_found_by_what_is_read() {
    let bucket = bucket();
    let away = two_places(&bucket);
    let damaged = |after| Plan { key: "/data/", after, ..Plan::every(Operation::Put, Wrong::Damaged(50)) };
    // The first pack is read: nothing is called replicated.
    bucket.plan(vec![damaged(0)]);
    let ran = away.run(&["--json", "backup"]);
    let told = replicated(&ran);
    assert!(
        ran.code == Some(1) && told[0]["copy"].is_null() && told[0]["findings"].to_string().contains("RP-01"),
        "{} {}",
        ran.stdout,
        ran.stderr
    );
    assert!(!bucket.objects("vault").keys().any(|key| key.contains("/snapshots/")));
    // Where all packs are read, one that is not the first is found as well.
    bucket.plan(vec![damaged(1)]);
    let ran = away.run(&["--json", "replicate", "--read-back", "100%"]);
    assert!(replicated(&ran).iter().all(|one| one["copy"].is_null()), "{} {}", ran.stdout, ran.stderr);
    // With the usual share it may be believed. Then the receipt says whose word it is, and no drill passes.
    bucket.plan(vec![damaged(1)]);
    let told = replicated(&away.run(&["--json", "replicate"]));
    bucket.plan(Vec::new());
    let is_believed = told.iter().any(|one| one["copy"].is_string());
    assert!(!is_believed || told[0]["moved"]["packs_attested"].as_u64() > Some(0), "{told:?}");
    if is_believed {
        let failed = away.summary(&["drill", "--from", "far"], 5);
        assert!(failed["drill"].to_string().contains("RP-01"), "{failed}");
    }
    // And from then on it is read before anything rests on it.
    away.run(&["replicate", "--read-back", "100%"]);
    assert_eq!(away.summary(&["drill", "--from", "far"], 0)["drill"]["verdict"]["level"], "A4");
}

/// After whatever: what is over there is whole, and the next run completes.
fn is_whole_and_goes_on(away: &Away, bucket: &Bucket, case: &str) {
    // A snapshot is what makes a copy: with none there, nothing is called one.
    if bucket.objects("vault").keys().any(|key| key.contains("/snapshots/")) {
        away.done(&["check", "--read-data", "far"]);
    }
    let ran = away.run(&["--json", "replicate"]);
    assert_eq!(ran.code, Some(0), "{case}: {} {}", ran.stdout, ran.stderr);
}

/// Every copy that a receipt calls replicated is there.
fn nothing_acknowledged_is_lost(away: &Away, bucket: &Bucket) {
    let rows: Value = serde_json::from_str(&away.done(&["receipts", "list", "--json"])).unwrap();
    let objects = bucket.objects("vault");
    let mut copies = 0;
    for row in rows["data"].as_array().unwrap().iter().filter(|row| row["act"] == "replicate") {
        let shown = away.done(&["receipts", "show", &row["sequence"].to_string(), "--json"]);
        let receipt: Value = serde_json::from_str(&shown).unwrap();
        let Some(copy) = receipt["act"]["replicate"]["copy"].as_str() else { continue };
        assert!(objects.contains_key(&format!("ships/one/snapshots/{copy}")), "{copy}");
        copies += 1;
    }
    assert!(copies > 10, "only {copies} copies: where do receipts tell of them?");
    away.done(&["check", "--read-data", "far"]);
}

#[test]
fn a_replication_that_is_killed_anywhere_loses_nothing_and_the_next_one_completes() {
    let bucket = bucket();
    let away = two_places(&bucket);
    let start = |arguments: &[&str]| {
        let mut command = away.product.command(arguments);
        command.envs(away.environment.iter().map(|(name, value)| (name, value)));
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
    };
    let mut moments = 0;
    for hold in [Hold::Before, Hold::Behind] {
        for after in 0.. {
            let case = format!("{hold:?} request {after}");
            away.write("file-2", &format!("{case} {}", "k".repeat(6_000)));
            away.done(&["backup", "--no-replicate"]);
            bucket.hold(Some((hold, after)));
            let mut child = start(&["replicate"]);
            let ended = loop {
                if bucket.is_held() {
                    break false;
                }
                if child.try_wait().unwrap().is_some() {
                    break true;
                }
                std::thread::sleep(Duration::from_millis(2));
            };
            child.kill().ok();
            child.wait().unwrap();
            bucket.hold(None);
            is_whole_and_goes_on(&away, &bucket, &case);
            if ended {
                break;
            }
            moments += 1;
        }
    }
    assert!(moments >= 10, "only {moments} moments were met");
    // Wherever it happens to be: after so many requests of any kind, which go on.
    let mut dice = Dice::new(7);
    let asked = || {
        let all = [Operation::Put, Operation::Get, Operation::Head, Operation::List, Operation::Delete];
        all.iter().map(|operation| bucket.asked(*operation)).sum::<u64>()
    };
    for n in 0..4 {
        away.write("file-3", &format!("{n} {}", "i".repeat(6_000)));
        away.done(&["backup", "--no-replicate"]);
        let until = asked() + dice.below(30);
        let mut child = start(&["replicate"]);
        while asked() < until && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().ok();
        child.wait().unwrap();
        is_whole_and_goes_on(&away, &bucket, &format!("killed after {until}"));
    }
    nothing_acknowledged_is_lost(&away, &bucket);
    assert_eq!(away.summary(&["drill", "--from", "far"], 0)["drill"]["verdict"]["level"], "A4");
    away.done(&["verify"]);
    restic(&format!("s3:{}/vault/ships/one", bucket.endpoint()), KEY, SECRET);
}

#[test]
fn each_kind_of_store_can_lose_the_original_and_the_two_others_prove_their_own() {
    let localstack = Emulator::start(Kind::LocalStack, "first").unwrap();
    let azurite = Emulator::start(Kind::Azurite, "first").unwrap();
    let google = Bucket::new("first", Settings { page: 3, ..Settings::default() }).unwrap();
    let azure_key = azurite.environment().1;
    for (round, name) in ["first", "second", "third"].into_iter().enumerate() {
        if round > 0 {
            localstack.make(name).unwrap();
            azurite.make(name).unwrap();
            google.change(name, |_| ());
        }
        let away = Away::new("", &[localstack.environment(), ("AZURE_KEY", azure_key)]);
        let path = away.product.path().display().to_string();
        let password = format!("password = \"file:{path}/password\"\n");
        let mut tables = [
            format!(
                "site = \"s3\"\nlocation = \"{}/ships\"\n{}",
                localstack.location(name),
                localstack.configuration()
            ),
            format!(
                "site = \"azure\"\nlocation = \"{}/ships\"\n{}",
                azurite.location(name),
                azurite.configuration().replace("EMULATOR_KEY", "AZURE_KEY")
            ),
            format!(
                "site = \"google\"\nlocation = \"gs://{name}/ships\"\nendpoint = \"{}\"\n",
                google.endpoint()
            ),
        ];
        tables.rotate_left(round);
        let [original, far, farther] = &tables;
        let text = format!(
            "[defaults]\nowner = \"crew\"\ntier = \"low\"\n\n[repositories.original]\n{password}{original}\n\
             [repositories.far]\n{password}{far}\n[repositories.farther]\n{password}{farther}\n\
             [services.docs]\nrepositories = [\"original\", \"far\", \"farther\"]\n\
             [services.docs.sources.files]\nkind = \"files\"\npaths = [\"{path}/files\"]\n"
        );
        fs::write(away.product.path().join("seaworthy.toml"), text).unwrap();
        away.init();
        // The service of our own fails now and then meanwhile.
        google.plan(vec![
            Plan::first(1, Operation::Put, Wrong::Refused(503, "SlowDown")),
            Plan { after: 3, ..Plan::first(1, Operation::Put, Wrong::AnswerLost) },
            Plan { after: 2, ..Plan::first(1, Operation::Get, Wrong::Truncated(10)) },
            Plan { after: 1, ..Plan::first(1, Operation::Head, Wrong::Broken) },
        ]);
        let ran = away.run(&["--json", "backup"]);
        assert_eq!(ran.code, Some(0), "{name}: {} {}", ran.stdout, ran.stderr);
        let there = replicated(&ran);
        assert!(there.len() == 2 && there.iter().all(|one| one["copy"].is_string()), "{}", ran.stdout);
        google.plan(Vec::new());
        match round {
            0 => localstack.remove(name).unwrap(),
            1 => azurite.remove(name).unwrap(),
            _ => google.remove(name),
        }
        assert_ne!(away.run(&["drill", "--from", "original"]).code, Some(0), "{name}: it is gone");
        for from in ["far", "farther"] {
            let drill = away.summary(&["drill", "--from", from], 0);
            assert_eq!(drill["drill"]["verdict"]["level"], "A4", "{name}: {from}");
            let to = away.product.path().join(format!("back-{from}"));
            away.done(&["restore", "docs", "--from", from, "--to", to.to_str().unwrap()]);
            let found = Command::new("diff")
                .arg("-r")
                .arg(away.product.path().join("files"))
                .arg(root_of(&to))
                .output()
                .unwrap();
            assert!(found.status.success(), "{name} {from}: {}", String::from_utf8_lossy(&found.stdout));
        }
        away.done(&["verify"]);
    }
}

#[test]
fn a_store_that_does_not_take_a_lock_is_out_of_reach_and_no_deadline_has_passed() {
    let bucket = bucket();
    let away = away(&bucket);
    // Longer than a small act may take, so that it is the act that ends and not the client.
    away.configure(&s3(&bucket).replace("timeout = \"1s\"", "timeout = \"1m\""));
    away.init();
    away.done(&["backup"]);
    bucket.plan(vec![Plan { key: "/locks/", ..Plan::every(Operation::Put, Wrong::Silent) }]);
    let failed = away.run(&["backup"]);
    let said = format!("{}{}", failed.stdout, failed.stderr);
    assert!(failed.code == Some(1) && said.contains("IO-UNREACHABLE"), "{:?} {said}", failed.code);
    assert!(said.contains("locks/") && said.contains("30 s"), "{said}");
    bucket.plan(Vec::new());
    away.done(&["backup"]);
}

#[test]
fn a_pack_that_was_cut_off_is_damaged_and_the_store_is_not_blamed() {
    for keeps in [0, 1, 1_000] {
        let bucket = bucket();
        let away = away(&bucket);
        away.init();
        away.done(&["backup"]);
        bucket.change("vault", |objects| {
            for (_, object) in objects.iter_mut().filter(|(key, _)| key.contains("/data/")) {
                object.bytes.truncate(keeps);
            }
        });
        let failed = away.summary(&["drill"], 5);
        let found = failed["drill"]["findings"].to_string();
        assert!(found.contains("RP-01") && !found.contains("IO-READ"), "{keeps}: {found}");
        assert_eq!(away.run(&["check", "--read-data"]).code, Some(4), "{keeps}");
    }
}

#[test]
fn doctor_names_where_a_store_is_asked_and_who_says_so() {
    let bucket = bucket();
    let mut away = away(&bucket);
    away.init();
    let said = away.done(&["doctor"]);
    assert!(said.contains(&format!("{}, by the configuration", bucket.endpoint())), "{said}");
    // The same, by a variable that somebody set for another program.
    let without = s3(&bucket).replace(&format!("endpoint = \"{}\"\n", bucket.endpoint()), "");
    away.configure(&format!("{without}path_style = true\n"));
    let url = bucket.endpoint().replace("http://", "http://canary:canary@");
    for (url, is_hidden) in [(bucket.endpoint(), false), (url, true)] {
        away.environment.retain(|(name, _)| name != "AWS_ENDPOINT_URL");
        away.environment.push(("AWS_ENDPOINT_URL".to_owned(), url));
        let ran = away.run(&["doctor"]);
        assert!(
            ran.stdout.contains("by AWS_ENDPOINT_URL in the environment"),
            "{} {}",
            ran.stdout,
            ran.stderr
        );
        assert!(!is_hidden || !format!("{}{}", ran.stdout, ran.stderr).contains("canary:"), "{}", ran.stdout);
    }
}

/// What `posture` finds: the exit code and the codes, in order.
fn posture(away: &Away, arguments: &[&str]) -> (i32, Vec<String>, Value) {
    let ran = away.run(&[&["--json", "posture"], arguments].concat());
    let said: Value = serde_json::from_str(ran.stdout.lines().next().unwrap_or_default())
        .unwrap_or_else(|error| panic!("{error}: {} {}", ran.stdout, ran.stderr));
    let of = |part: &Value| -> Vec<String> {
        let findings = part["findings"].as_array().into_iter().flatten();
        findings.map(|one| one["code"].as_str().unwrap().to_owned()).collect()
    };
    let codes = [of(&said["posture"]), of(&said["writer"]["posture"])].concat();
    (ran.code.unwrap(), codes, said)
}

#[test]
fn a_bucket_that_is_set_up_right_is_silent_and_each_thing_that_is_wrong_is_found() {
    let emulator = Emulator::start(Kind::LocalStack, "open").unwrap();
    emulator.make_lockable("vault").unwrap();
    let lock = |mode: &str, days: u32| {
        format!(
            "<ObjectLockConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><ObjectLockEnabled>Enabled</ObjectLockEnabled>\
             <Rule><DefaultRetention><Mode>{mode}</Mode><Days>{days}</Days></DefaultRetention></Rule></ObjectLockConfiguration>"
        )
    };
    let lifecycle = |rules: &str| {
        format!(
            "<LifecycleConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Rule><ID>abort</ID><Filter><Prefix></Prefix></Filter>\
             <Status>Enabled</Status><AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation>\
             </AbortIncompleteMultipartUpload></Rule>{rules}</LifecycleConfiguration>"
        )
    };
    let rule = |prefix: &str, inside: &str| {
        lifecycle(&format!(
            "<Rule><ID>rule</ID><Filter><Prefix>{prefix}</Prefix></Filter><Status>Enabled</Status>{inside}</Rule>"
        ))
    };
    let block = |all: bool| {
        let parts = ["BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"];
        let parts: String = parts.iter().map(|part| format!("<{part}>{all}</{part}>")).collect();
        format!(
            "<PublicAccessBlockConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{parts}</PublicAccessBlockConfiguration>"
        )
    };
    let repository = format!(
        "location = \"{}/ships\"\nregion = \"us-east-1\"\n{}",
        emulator.location("vault"),
        emulator.configuration()
    );
    let away = Away::new(&repository, &[emulator.environment()]);
    let keeps = |retention: &str| {
        let path = away.product.path().join("seaworthy.toml");
        let text = fs::read_to_string(&path).unwrap();
        let text = text.replace(
            "[services.docs.sources",
            &format!("[services.docs]\nretention = {retention}\n[services.docs.sources"),
        );
        fs::write(path, text).unwrap();
    };
    keeps("{ daily = 14, weekly = 8 }");
    let right = || {
        emulator.set("vault", "object-lock", &lock("COMPLIANCE", 60)).unwrap();
        emulator.set("vault", "lifecycle", &lifecycle("")).unwrap();
        emulator.set("vault", "publicAccessBlock", &block(true)).unwrap();
    };
    right();
    let (code, codes, said) = posture(&away, &[]);
    assert_eq!((code, codes), (0, Vec::new()), "{said}");
    assert!(said["posture"]["known"] == 9 && said["posture"]["asked"] == 9, "{said}");
    let screen = away.done(&["posture"]);
    assert!(screen.contains("9 of 9 settings known, 0 findings"), "{screen}");
    let settings = [
        ("object-lock", lock("COMPLIANCE", 55), "ST-02", 4),
        ("object-lock", lock("GOVERNANCE", 60), "ST-03", 0),
        ("publicAccessBlock", block(false), "ST-05", 4),
        ("lifecycle", rule("", "<Expiration><Days>3650</Days></Expiration>"), "ST-06", 4),
        (
            "lifecycle",
            rule(
                "ships/",
                "<NoncurrentVersionExpiration><NoncurrentDays>55</NoncurrentDays></NoncurrentVersionExpiration>",
            ),
            "ST-07",
            4,
        ),
        (
            "lifecycle",
            rule(
                "ships/data/",
                "<Transition><Days>1</Days><StorageClass>GLACIER</StorageClass></Transition>",
            ),
            "ST-08",
            4,
        ),
    ];
    for (setting, document, wrong, exit) in settings {
        emulator.set("vault", setting, &document).unwrap();
        let (code, codes, said) = posture(&away, &[]);
        assert_eq!((code, codes), (exit, vec![wrong.to_owned()]), "{document}: {said}");
        right();
    }
    // What touches something else is no finding, and neither is what goes after the longest-kept copy.
    emulator.set("vault", "lifecycle", &rule("logs/", "<Expiration><Days>1</Days></Expiration>")).unwrap();
    assert_eq!(posture(&away, &[]).1, Vec::<String>::new());
    emulator.unset("vault", "lifecycle").unwrap();
    assert_eq!((posture(&away, &[]).0, posture(&away, &[]).1), (0, vec!["ST-09".to_owned()]));
    // One in which nothing is right, seen from outside of the region that is configured.
    let away = Away::new(
        &repository.replace("vault", "open").replace("us-east-1", "eu-west-1"),
        &[emulator.environment()],
    );
    let policy = "{\"Version\":\"2012-10-17\",\"Statement\":[{\"Effect\":\"Allow\",\"Principal\":\"*\",\"Action\":\"s3:GetObject\",\"Resource\":\"arn:aws:s3:::open/*\"}]}";
    emulator.unset("open", "publicAccessBlock").unwrap();
    emulator.set("open", "policy", policy).unwrap();
    let (code, codes, said) = posture(&away, &["--probe-writer"]);
    assert_eq!(code, 4, "{said}");
    assert_eq!(codes, ["ST-01", "ST-02", "ST-11", "ST-04", "ST-05", "ST-09", "ST-12", "ST-13"], "{said}");
    let screen = away.run(&["posture", "--probe-writer"]).stdout;
    assert!(
        screen.contains("arn:aws:s3:::open/ships/locks/*") && screen.contains("if-none-match"),
        "{screen}"
    );
}

#[test]
fn what_a_service_does_not_tell_is_unknown_and_what_the_credential_may_not_do_is_told() {
    let bucket = bucket();
    let away = away(&bucket);
    away.init();
    away.done(&["backup"]);
    // Our own service tells nothing about itself.
    let (code, codes, said) = posture(&away, &["--probe-writer"]);
    assert_eq!((code, codes), (7, vec!["ST-15".to_owned(), "ST-13".to_owned()]), "{said}");
    assert_eq!(said["writer"]["facts"]["may_overwrite"]["known"], true, "{said}");
    assert_eq!(said["writer"]["facts"]["may_delete"]["known"], true, "{said}");
    let names =
        |bucket: &Bucket| bucket.objects("vault").into_keys().filter(|key| key.contains("probe")).count();
    assert_eq!(names(&bucket), 0, "the probe was to be removed");
    // Who may only add: twice, because what stays of a probe must not confuse the next.
    bucket.set(|now| now.may_delete = false);
    for _ in 0..2 {
        let (code, codes, said) = posture(&away, &["--probe-writer"]);
        assert_eq!((code, codes), (7, vec!["ST-15".to_owned(), "ST-14".to_owned()]), "{said}");
        assert_eq!(said["writer"]["facts"]["may_overwrite"]["known"], false, "{said}");
    }
    assert_eq!(names(&bucket), 2);
    // Nobody who reads the repository minds what stays.
    bucket.set(|now| now.may_delete = true);
    restic(&format!("s3:{}/vault/ships/one", bucket.endpoint()), KEY, SECRET);
    away.done(&["check", "--read-data"]);
    away.proves();
    assert_eq!(names(&bucket), 2);
    // Who may not even write has shown nothing.
    bucket.plan(vec![Plan {
        key: "probe",
        ..Plan::every(Operation::Put, Wrong::Refused(403, "AccessDenied"))
    }]);
    let refused = away.run(&["posture", "--probe-writer"]);
    assert!(
        refused.code == Some(1) && refused.stderr.contains("AUTH-DENIED"),
        "{:?} {}",
        refused.code,
        refused.stderr
    );
    // A directory has no such settings, and nothing looked at is no pass.
    let path = away.product.path().display().to_string();
    away.configure(&format!("location = \"{path}/near\"\n"));
    assert_eq!(away.run(&["posture"]).code, Some(10));
    assert_eq!(away.run(&["posture", "away"]).code, Some(2));
}

#[test]
fn azure_and_google_tell_what_their_data_plane_knows() {
    let emulator = Emulator::start(Kind::Azurite, "vault").unwrap();
    let repository =
        format!("location = \"{}/ships\"\n{}", emulator.location("vault"), emulator.configuration());
    let away = Away::new(&repository, &[emulator.environment()]);
    let (code, codes, said) = posture(&away, &["--probe-writer"]);
    assert_eq!(code, 4, "{said}");
    assert_eq!(codes, ["ST-02", "ST-15", "ST-13"], "{said}");
    let google = Bucket::new("vault", Settings::default()).unwrap();
    let away =
        Away::new(&format!("location = \"gs://vault/ships\"\nendpoint = \"{}\"\n", google.endpoint()), &[]);
    let (code, codes, said) = posture(&away, &[]);
    assert_eq!((code, codes), (7, vec!["ST-15".to_owned()]), "{said}");
}
