//! The program as its user meets it: the real binary, its screens, its exit codes, and what it does with bad input.

#![expect(clippy::unwrap_used, reason = "helpers of tests: what cannot be unwrapped is a failed test")]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use seaworthy_testkit::postgres::Server;
use support::{CANARY, Estate, finish, flip};

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// Two backups and two drills, all of them good.
fn proven() -> Estate {
    let estate = Estate::new();
    estate.run(&["backup"]).exits(0);
    estate.run(&["drill", "-q"]).exits(0);
    estate
}

// The way of a new user.

#[test]
fn init_by_flags_writes_a_configuration_that_works() {
    let estate = Estate::empty();
    estate.sources();
    let dry = estate
        .run(&["init", "--files", "files", "--sqlite", "shop.db", "--repository", "repository", "--dry-run"])
        .exits(0);
    assert!(dry.out.contains("[services.files.sources.files]"), "{dry}");
    assert!(
        !estate.path("seaworthy.toml").exists()
            && !estate.path("repository").exists()
            && !estate.path("state").exists()
    );

    estate
        .run(&["init", "--files", "files", "--sqlite", "shop.db", "--repository", "repository"])
        .exits(0)
        .says(&["2 services", "seaworthy drill"]);
    let bucket =
        estate.run(&["init", "--files", "files", "--repository", "s3://vault/ships", "--config", "b.toml"]);
    bucket.exits(2).hints().says(&["not in an object store"]);
    let again = estate.run(&["init", "--files", "files"]).exits(20).hints();
    assert!(again.err.contains("is there already"), "{again}");
    estate.run(&["config", "check"]).exits(0).says(&["2 services, 1 repository, 0 warnings"]);
    let shown = estate.run(&["config", "show", "--origin"]).exits(0);
    assert!(
        shown.out.contains("# flag --state-dir")
            && shown.out.contains("seaworthy.toml:")
            && shown.out.contains("# default"),
        "{shown}"
    );
    let schema: serde_json::Value =
        serde_json::from_str(&estate.run(&["config", "schema"]).exits(0).out).unwrap();
    assert!(schema.get("properties").is_some());
    estate.run(&["doctor"]).exits(0).says(&["0 failed", "isolation works"]);
    estate.run(&["backup"]).exits(0);
    estate.run(&["drill"]).exits(0).says(&["PASS", "control"]);
}

#[test]
fn status_says_with_its_exit_code_what_may_be_claimed() {
    let estate = Estate::new();
    estate.run(&["status"]).exits(10).hints().says(&["seaworthy backup"]);
    estate.run(&["backup"]).exits(0);
    let unproven = estate.run(&["status"]).exits(7);
    assert!(unproven.out.contains("NOT YET") && unproven.out.contains("2 not yet proven"), "{unproven}");
    let between = jiff::Timestamp::now().to_string();
    estate.run(&["drill", "-q"]).exits(0);
    estate.run(&["status"]).exits(0).says(&["READY A4", "2 ready"]);
    estate.run(&["status", "papers"]).exits(0).says(&["1 service: 1 ready"]);
    // What rebuilds itself has nothing that could be recovered.
    let sound = text(&estate.path("seaworthy.toml"));
    let cache = "\n[services.cache]\nowner = \"crew\"\ntier = \"low\"\nrpo = \"not-applicable\"\nrationale = \"rebuilds itself\"\n";
    std::fs::write(estate.path("seaworthy.toml"), format!("{sound}{cache}")).unwrap();
    estate.run(&["status"]).exits(0).says(&["NO STATE", "3 services: 2 ready", "0 broken, 1 without state"]);
    estate.run(&["status", "cache"]).exits(0);
    std::fs::write(estate.path("seaworthy.toml"), sound).unwrap();
    estate.run(&["status", "--as-of", &between]).exits(7).says(&["2 not yet proven"]);
    let in_three_days = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(72)).to_string();
    let late = estate.run(&["status", "--as-of", &in_three_days, "--json"]).exits(4).json();
    assert_eq!(late["schema"], "seaworthy.status/1");
    // A proof that is older than the policy allows no longer counts.
    estate.run(&["status", "--as-of", "2099-01-01T00:00:00Z"]).exits(7);
    let before = estate.run(&["status", "--as-of", "2020-01-01T00:00:00Z"]);
    assert_ne!(before.code, 0, "{before}");
    estate.run(&["status", "--as-of", "yesterday"]).exits(2).hints();
}

#[test]
fn a_drill_tells_people_machines_and_auditors_the_same() {
    let estate = Estate::new();
    estate.run(&["backup", "papers"]).exits(0).says(&["✓", "papers/files", "next: seaworthy drill papers"]);
    let told = estate.run(&["drill", "papers", "--report", "reports"]).exits(0).says(&[
        "PASS A4 Equal",
        "control",
        "caught",
        "RTO",
        "RPO",
        "receipt",
    ]);
    assert!(!told.out.contains('\u{1b}'), "colour without a terminal: {told}");
    let mut kinds: Vec<String> = std::fs::read_dir(estate.path("reports"))
        .unwrap()
        .map(|entry| entry.unwrap().path().extension().unwrap().to_string_lossy().into_owned())
        .collect();
    kinds.sort();
    assert_eq!(kinds, ["html", "json", "md"]);

    let events = estate.run(&["drill", "papers", "--json"]).exits(0);
    let lines: Vec<serde_json::Value> =
        events.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["event"] == "phase"), "{events}");
    let summary = lines.last().unwrap();
    assert_eq!(summary["event"], "summary");
    assert_eq!(summary["schema"], "seaworthy.drill/1");
    let run = summary["drill"]["run"].as_str().unwrap();
    estate.run(&["drill", "list"]).exits(0).says(&[run]);
    estate.run(&["drill", "show", run]).exits(0).says(&["PASS A4 Equal"]);
    estate
        .run(&["drill", "show", run, "--format", "markdown"])
        .exits(0)
        .says(&["# Restore Test", "TESTED_BY"]);
    estate.run(&["drill", "show", "no-such"]).exits(10).hints();
    let html = estate.run(&["drill", "show", run, "--format", "html"]).exits(0).out;
    assert!(
        html.starts_with("<!doctype html>")
            && !html.contains("<script")
            && !html.contains("http://")
            && !html.contains("https://")
    );
}

#[test]
fn two_drills_of_a_day_do_not_overwrite_each_others_report() {
    let estate = Estate::new();
    estate.run(&["backup", "papers"]).exits(0);
    estate.run(&["drill", "papers", "--report", "reports"]).exits(0);
    estate.run(&["drill", "papers", "--report", "reports"]).exits(0);
    assert_eq!(std::fs::read_dir(estate.path("reports")).unwrap().count(), 6);
}

#[test]
fn a_restore_goes_to_a_new_place_only() {
    let estate = proven();
    let plan = estate.run(&["restore", "papers", "--to", "out", "--dry-run"]).exits(0);
    assert!(plan.out.contains("would restore papers/files") && !estate.path("out").exists(), "{plan}");
    estate.run(&["restore", "papers", "--to", "out"]).exits(0).says(&["restored papers/files"]);
    let source = estate.path("files");
    let back = estate.path("out");
    assert_eq!(
        std::fs::read(back.join("noise.bin")).unwrap(),
        std::fs::read(source.join("noise.bin")).unwrap()
    );
    assert_eq!(std::fs::read_link(back.join("link")).unwrap(), Path::new("letter.txt"));

    estate.run(&["restore", "papers", "--to", "out"]).exits(20).hints();
    estate.run(&["restore", "papers", "--to", "files"]).exits(20);
    assert!(source.join("letter.txt").exists());

    let one = source.join("letter.txt");
    estate.run(&["restore", "papers", "--to", "single", "--file", one.to_str().unwrap()]).exits(0);
    let single = estate.path("single");
    let mut found = Vec::new();
    let mut todo = vec![single];
    while let Some(directory) = todo.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { todo.push(path) } else { found.push(path) }
        }
    }
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(text(&found[0]), text(&one));

    estate.run(&["restore", "shop", "--to", "db"]).exits(0);
    estate.run(&["restore", "shop", "--to", "postgres:x"]).exits(2).hints();
    estate.run(&["restore", "papers", "--to", "nope", "--file", "/no/such/file"]).says(&["no/such/file"]);
    estate.run(&["restore", "papers", "--to", "nope2", "--point", "ffffffffffff"]).exits(10).hints();
    estate
        .run(&["restore", "papers", "--to", "nope3", "--point", "before:2020-01-01T00:00:00Z"])
        .exits(10)
        .hints();
}

#[test]
fn verify_sees_an_altered_receipt_a_cut_tail_and_another_key() {
    let estate = proven();
    estate.run(&["verify"]).exits(0).says(&["8 of 8 receipts verified"]);
    // A bare file name, beside which the key lands.
    estate.run(&["receipts", "export", "ledger.jsonl"]).exits(0).says(&["8 receipts"]);
    let head = estate.run(&["verify", "ledger.jsonl", "--json"]).exits(0).json()["head"]["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    estate.run(&["verify", "ledger.jsonl", "--key", "signing.pub", "--head", &head]).exits(0);

    let whole = text(&estate.path("ledger.jsonl"));
    for keep in [7, 3, 1] {
        let cut: String = whole.lines().take(keep).map(|line| format!("{line}\n")).collect();
        std::fs::write(estate.path("cut.jsonl"), cut).unwrap();
        estate.run(&["verify", "cut.jsonl", "--head", &head]).exits(4).says(&["EV-06"]);
    }
    let holed: String =
        whole.lines().enumerate().filter(|(at, _)| *at != 3).map(|(_, line)| format!("{line}\n")).collect();
    std::fs::write(estate.path("holed.jsonl"), holed).unwrap();
    estate.run(&["verify", "holed.jsonl"]).exits(4).says(&["EV-0"]);

    // One character of one payload.
    let mut lines: Vec<String> = whole.lines().map(str::to_owned).collect();
    let at = lines[5].find("\"payload\":\"").unwrap() + 60;
    let other = if lines[5].as_bytes()[at] == b'A' { "B" } else { "A" };
    lines[5].replace_range(at..=at, other);
    std::fs::write(estate.path("altered.jsonl"), lines.join("\n")).unwrap();
    estate.run(&["verify", "altered.jsonl"]).exits(4).says(&["EV-07"]);
    std::fs::write(estate.path("receipt.json"), &lines[5]).unwrap();
    estate.run(&["verify", "receipt.json"]).exits(4).says(&["EV-07"]);
    std::fs::write(estate.path("receipt.json"), whole.lines().nth(5).unwrap()).unwrap();
    estate.run(&["verify", "receipt.json"]).exits(0).says(&["verifies"]);

    let stranger = proven();
    let key = stranger.path("state/signing.pub");
    estate.run(&["verify", "ledger.jsonl", "--key", key.to_str().unwrap()]).exits(4);
    std::fs::write(estate.path("empty.jsonl"), "").unwrap();
    estate.run(&["verify", "empty.jsonl"]).exits(4).says(&["EV-01"]);
    estate.run(&["verify", "no-such.jsonl"]).exits(10);
}

#[test]
fn check_finds_a_flipped_bit_only_by_reading() {
    let estate = proven();
    estate.run(&["check"]).exits(0).says(&["no errors", "--read-data reads every byte"]);
    // What was read and is whole is sealed; a look at the structure has shown nothing of the bytes.
    let receipts = || estate.run(&["receipts", "list"]).exits(0).out.matches("read back").count();
    assert_eq!(receipts(), 0);
    estate.run(&["check", "--read-data"]).exits(0);
    assert_eq!(receipts(), 1);
    let largest =
        estate.objects("data").into_iter().max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap();
    flip(&largest);
    estate.run(&["status", "papers"]).exits(0);
    let found = estate.run(&["check", "--read-data"]).exits(4);
    estate.run(&["status", "papers"]).exits(4).says(&["BROKEN", "RP-01"]);
    estate.run(&["verify"]).exits(0);
    assert!(
        found.out.contains("RP-0") && found.out.contains("files/noise.bin") && found.out.contains("ERRORS"),
        "{found}"
    );
    let report = estate.run(&["check", "--read-data", "--json"]).exits(4).json();
    assert_eq!(report["sound"], false);
    estate.run(&["drill", "papers"]).exits(5).says(&["FAIL", "RP-0"]);
    estate.run(&["status", "papers"]).exits(4);
    estate.run(&["check", "--read-data-share", "ten"]).exits(2).hints();
    estate.run(&["check", "elsewhere"]).exits(2).hints();
}

#[test]
fn keys_come_and_go_but_never_the_last_one() {
    let estate = proven();
    estate.secret("second", "another-password");
    let reference = format!("file:{}", estate.path("second").display());
    let dry = estate.run(&["keys", "add", "--password", &reference, "--dry-run"]).exits(0);
    assert!(dry.err.contains("would add"), "{dry}");
    estate.run(&["keys", "add", "--password", &reference]).exits(0);
    let rows = estate.run(&["keys", "list", "--json"]).exits(4).json();
    let rows = rows["data"].as_array().unwrap().clone();
    assert_eq!(rows.len(), 2);
    let id = |current: bool| {
        rows.iter().find(|row| row["current"] == current).unwrap()["id"].as_str().unwrap().to_owned()
    };
    let refused = estate.run(&["keys", "remove", &id(true)]);
    assert_eq!(refused.code, 20, "{refused}");
    estate.run(&["keys", "remove", &id(false), "--dry-run"]).exits(0);
    estate.run(&["keys", "remove", &id(false)]).exits(0);
    assert_eq!(estate.run(&["keys", "list", "--json"]).json()["data"].as_array().unwrap().len(), 1);
    estate.run(&["keys", "remove", "zzz"]).exits(2).hints();
    estate.run(&["keys", "add", "--password", CANARY]).exits(2);
    estate.run(&["backup"]).exits(0);
}

#[test]
fn the_catalogue_comes_back_from_an_exported_ledger() {
    let estate = proven();
    estate.run(&["receipts", "export", "ledger.jsonl"]).exits(0);
    let before = estate.run(&["points"]).exits(0).out.lines().count();
    for name in ["catalogue.sqlite", "catalogue.sqlite-wal", "catalogue.sqlite-shm"] {
        let path = estate.path("state").join(name);
        if path.exists() {
            std::fs::remove_file(path).unwrap();
        }
    }
    estate.run(&["status"]).exits(10).hints();
    estate.run(&["catalogue", "rebuild", "--receipts", "ledger.jsonl"]).exits(0).says(&["8 receipts"]);
    estate.run(&["status"]).exits(0).says(&["2 ready"]);
    assert_eq!(estate.run(&["points"]).exits(0).out.lines().count(), before);
    estate.run(&["verify"]).exits(0).says(&["8 of 8"]);
    estate.run(&["backup"]).exits(0);
}

/// Removes everything in the state directory but the keys.
fn forget_everything_but(estate: &Estate, kept: &[&str]) {
    for entry in std::fs::read_dir(estate.path("state")).unwrap() {
        let path = entry.unwrap().path();
        if kept.contains(&path.file_name().unwrap().to_str().unwrap()) {
            continue;
        }
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.unwrap();
    }
}

/// Runs the stock restic on the estate's repository.
fn restic(estate: &Estate, arguments: &[&str]) -> String {
    let mut command = std::process::Command::new(&seaworthy_testkit::components::restics().unwrap()[0]);
    command.args(["--no-cache", "-r"]).arg(estate.path("repository")).args(arguments);
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", estate.path(""))
        .env("RESTIC_PASSWORD", CANARY);
    let ran = command.output().unwrap();
    assert!(ran.status.success(), "restic {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

#[test]
fn the_catalogue_comes_back_from_the_repositories_alone() {
    let estate = proven();
    restic(&estate, &["backup", "--host", "elsewhere", estate.path("files").to_str().unwrap()]);
    forget_everything_but(&estate, &["signing.key"]);
    estate.run(&["status"]).exits(10).hints();
    estate.run(&["catalogue", "rebuild", "--dry-run"]).exits(0).says(&[
        "3 snapshots; 2 would be entered, 0 would be marked gone, 1 of other programs",
        "would be entered: papers/files as of",
    ]);
    assert_eq!(std::fs::read_dir(estate.path("state")).unwrap().count(), 1, "a rehearsal makes nothing");

    let rebuilt = estate.run(&["catalogue", "rebuild"]).exits(0);
    assert!(rebuilt.out.contains("3 snapshots; 2 entered, 0 marked gone, 1 of other programs"), "{rebuilt}");
    let points = estate.run(&["points", "--json"]).exits(0).json();
    let points = points["data"].as_array().unwrap();
    assert_eq!(points.len(), 2, "{points:?}");
    for point in points {
        assert_eq!(point["standing"], "unproven", "{point}");
        assert_eq!(point["outcome"], "complete", "{point}");
        assert!(point["witness"].is_string() && point["restore_bytes"].as_u64() > Some(0), "{point}");
    }
    estate.run(&["status"]).exits(7).says(&["2 not yet proven"]);
    estate.run(&["restore", "papers", "--to", "back"]).exits(0);
    assert_eq!(text(&estate.path("back/letter.txt")), text(&estate.path("files/letter.txt")));
    estate.run(&["drill", "-q"]).exits(0);
    estate.run(&["status"]).exits(0).says(&["2 ready"]);
    estate.run(&["receipts"]).exits(0).says(&["found", "which no receipt had made"]);
    let found = estate.run(&["receipts", "show", "1", "--json"]).exits(0).json();
    assert!(found["act"]["found"]["source_identity"].is_string(), "{found}");

    let head = estate.run(&["verify", "--json"]).exits(0).json();
    estate.run(&["catalogue", "rebuild"]).exits(0).says(&["3 snapshots; 0 entered, 0 marked gone"]);
    assert_eq!(
        estate.run(&["verify", "--json"]).exits(0).json()["head"],
        head["head"],
        "a second time changes nothing"
    );
    estate.run(&["status"]).exits(0).says(&["2 ready"]);
    estate.run(&["backup"]).exits(0);
}

#[test]
fn a_copy_that_is_gone_is_claimed_no_longer() {
    let estate = proven();
    std::fs::write(estate.path("files/more.txt"), "more").unwrap();
    estate.run(&["backup", "papers"]).exits(0);
    let copies = |state: &str| -> Vec<String> {
        let points = estate.run(&["points", "papers", "--json"]).exits(0).json();
        points["data"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|point| point["standing"].get("gone").is_some() == (state == "gone"))
            .map(|point| point["copy"].as_str().unwrap().to_owned())
            .collect()
    };
    let made = copies("there");
    assert_eq!(made.len(), 2);
    restic(&estate, &["forget", &made[1]]);
    let head = estate.run(&["verify", "--json"]).exits(0).json();
    estate.run(&["catalogue", "rebuild", "--dry-run"]).exits(0).says(&["1 would be marked gone"]);
    assert_eq!(estate.run(&["verify", "--json"]).exits(0).json()["head"], head["head"]);
    estate.run(&["catalogue", "rebuild"]).exits(0).says(&["0 entered, 1 marked gone"]);
    assert_eq!((copies("there"), copies("gone")), (vec![made[0].clone()], vec![made[1].clone()]));
    estate.run(&["points"]).exits(0).says(&["GONE from its repository"]);
    let status = estate.run(&["status", "papers", "--json"]).exits(0).json();
    assert_eq!(status["data"][0]["sources"][0]["copy"], made[0].as_str(), "{status}");
    estate.run(&["restore", "papers", "--point", &made[1], "--to", "back"]).exits(10).hints();
    estate.run(&["drill", "papers"]).exits(0).says(&["PASS"]);

    restic(&estate, &["forget", &made[0]]);
    estate.run(&["status", "papers"]).exits(0);
    estate.run(&["catalogue", "rebuild"]).exits(0).says(&["0 entered, 1 marked gone"]);
    estate.run(&["status", "papers"]).exits(7).says(&["there is no complete copy"]);
    estate.run(&["catalogue", "rebuild"]).exits(0).says(&["0 entered, 0 marked gone"]);
    estate.run(&["verify"]).exits(0);
}

#[test]
fn a_repository_that_cannot_be_looked_through_makes_no_copy_gone() {
    let estate = proven();
    std::fs::rename(estate.path("repository"), estate.path("away")).unwrap();
    estate.run(&["catalogue", "rebuild"]).exits(10).hints().says(&["NOT LOOKED THROUGH"]);
    estate.run(&["catalogue", "rebuild", "--ledger-only"]).exits(0);
    estate.run(&["points"]).exits(0).says(&["A4"]);
    std::fs::rename(estate.path("away"), estate.path("repository")).unwrap();
    // Copies of ours of which nothing can be read are reported, and neither entered nor gone.
    forget_everything_but(&estate, &["signing.key"]);
    for pack in estate.objects("data") {
        std::fs::remove_file(pack).unwrap();
    }
    estate.run(&["catalogue", "rebuild"]).exits(4).says(&["2 snapshots; 0 entered, 0 marked gone", "RP-"]);
}

#[test]
fn with_the_signing_key_lost_copies_can_be_restored_and_with_its_public_half_be_proven() {
    let estate = proven();
    std::fs::copy(estate.path("state/signing.pub"), estate.path("old.pub")).unwrap();
    forget_everything_but(&estate, &[]);
    estate.run(&["catalogue", "rebuild"]).exits(0).hints().says(&["2 entered", "which is not known here"]);
    estate.run(&["restore", "papers", "--to", "back"]).exits(0).says(&["nobody known here has signed it"]);
    let drilled = estate.run(&["drill", "papers"]).exits(7);
    assert!(drilled.out.contains("INCONCLUSIVE"), "{drilled}");
    forget_everything_but(&estate, &[]);
    let rebuilt = estate.run(&["catalogue", "rebuild", "--key", "old.pub"]).exits(0).says(&["2 entered"]);
    assert!(!rebuilt.err.contains("not known here"), "{rebuilt}");
    estate.run(&["drill", "papers"]).exits(0).says(&["PASS A4"]);
}

#[test]
fn the_demo_proves_and_catches_without_postgresql() {
    let estate = Estate::empty();
    let demo = estate.run(&["demo", "--no-postgres"]).exits(0).says(&["PASS", "FAIL", "seaworthy init"]);
    assert!(demo.took < Duration::from_secs(60), "{demo}");
}

#[test]
fn help_topics_completions_and_man_pages_are_there() {
    let estate = Estate::empty();
    let codes = estate.run(&["help", "exit-codes"]).exits(0);
    for code in ["   0 ", "   3 ", "   5 ", "  12 ", " 130 "] {
        assert!(codes.out.contains(code), "{code} in {codes}");
    }
    estate.run(&["help", "findings"]).exits(0).says(&["CT-02", "seaworthy check --read-data"]);
    estate.run(&["help", "levels"]).exits(0).says(&["A4"]);
    estate.run(&["help", "drill"]).exits(0).says(&["--report"]);
    estate.run(&["help", "nonsense"]).exits(2).hints();
    estate.run(&["completions", "bash"]).exits(0).says(&["_seaworthy"]);
    std::fs::create_dir(estate.path("man")).unwrap();
    estate.run(&["man", "man"]).exits(0);
    assert!(estate.path("man/seaworthy-drill.1").exists());
    estate.run(&["--version"]).exits(0);
    estate.run(&[]).exits(2);
}

// Bad input: a clear message that says what to do, the documented exit code, nothing lost, no secret printed (every run
// is searched for the canary).

#[test]
fn a_wrong_password_is_said_to_be_one() {
    let estate = proven();
    estate.secret("password", "not the password");
    for call in
        [&["backup"][..], &["drill"], &["check"], &["keys", "list"], &["restore", "papers", "--to", "out"]]
    {
        let run = estate.run(call);
        assert_eq!(run.code, 12, "{run}");
        run.hints();
    }
    estate.run(&["doctor"]).exits(4).says(&["✗ repository local", "KY-01"]);
    // A machine learns it too, and so does a person who asked for silence.
    let events = estate.run(&["backup", "--json"]).exits(12);
    assert!(events.out.lines().any(|line| line.contains("seaworthy.error/1")), "{events}");
    let quiet = estate.run(&["drill", "-q"]).exits(12);
    assert!(quiet.err.contains("NOT DRILLED"), "{quiet}");
    estate.secret("password", CANARY);
    estate.run(&["backup"]).exits(0);
}

#[test]
fn a_missing_repository_is_never_made_in_passing() {
    let estate = proven();
    std::fs::rename(estate.path("repository"), estate.path("elsewhere")).unwrap();
    estate.run(&["backup"]).exits(10).hints();
    estate.run(&["drill"]).exits(10);
    estate.run(&["check"]).exits(10).hints();
    estate.run(&["doctor"]).exits(4).says(&["--missing-repositories"]);
    assert!(!estate.path("repository").exists());
    std::fs::rename(estate.path("elsewhere"), estate.path("repository")).unwrap();
    estate.run(&["drill"]).exits(0);
}

#[test]
fn the_second_repository_is_served_where_the_first_one_fails() {
    let estate = Estate::empty();
    estate.sources();
    let root = estate.path("");
    let root = root.display();
    estate.configure(&format!(
        "\n[repositories.away]\nlocation = \"{root}away\"\npassword = \"file:{root}password\"\nsite = \"there\"\n"
    ));
    estate.run(&["init", "--missing-repositories"]).exits(0);
    std::fs::rename(estate.path("away"), estate.path("hidden")).unwrap();
    let run = estate.run(&["backup", "papers"]).exits(10);
    assert!(
        run.out.contains("✓ backed up papers/files") && run.err.contains("✗ NOT REPLICATED local to away"),
        "{run}"
    );
    std::fs::rename(estate.path("hidden"), estate.path("away")).unwrap();
    std::fs::rename(estate.path("repository"), estate.path("hidden")).unwrap();
    let run = estate.run(&["backup", "papers"]).exits(10);
    assert!(
        run.out.contains("✓ backed up papers/files")
            && run.out.contains(" in away")
            && run.err.contains("✗ FAILED papers/files"),
        "{run}"
    );
}

#[test]
fn a_truncated_pack_is_found_and_named() {
    let estate = proven();
    let largest =
        estate.objects("data").into_iter().max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap();
    std::fs::set_permissions(&largest, std::fs::Permissions::from_mode(0o600)).unwrap();
    let length = std::fs::metadata(&largest).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&largest).unwrap().set_len(length / 2).unwrap();
    estate.run(&["check"]).exits(4).says(&["RP-0"]);
    // The pack may hold the witness too; then equality is not known. Either way it is no pass, and the damage is named.
    let drill = estate.run(&["drill", "papers"]).says(&["RP-0"]);
    assert!(drill.code == 5 || drill.code == 7, "{drill}");
    let restore = estate.run(&["restore", "papers", "--to", "out"]);
    assert_ne!(restore.code, 0, "{restore}");
    restore.hints();
    // What is not touched by the damage is still proven.
    std::fs::remove_file(&largest).unwrap();
    estate.run(&["check"]).exits(4).says(&["RP-02"]);
}

/// Runs `script` with a small file system of its own mounted over `place`.
fn with_small_disk(estate: &Estate, place: &str, script: &str) -> support::Run {
    let mut command = std::process::Command::new("unshare");
    command.args(if rustix::process::geteuid().is_root() {
        &["--mount"][..]
    } else {
        &["--mount", "--map-root-user"]
    });
    let prelude = "set -u; mount -t tmpfs -o size=4m,mode=0700 small \"$2\" || exit 99; sw() { \"$1\" --state-dir \"$root/state\" --scratch-dir \"$root/s\" \"${@:2}\"; }; bin=$1; root=$3; cd \"$root\";\n";
    command.args(["bash", "-c", &format!("{prelude}{script}"), "bash", env!("CARGO_BIN_EXE_seaworthy")]);
    command.arg(estate.path(place)).arg(estate.path("").to_str().unwrap().trim_end_matches('/'));
    command.current_dir(estate.path("")).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(command.spawn().unwrap(), format!("a full {place}"))
}

#[test]
fn a_full_repository_loses_nothing_and_works_again_with_room() {
    let estate = Estate::empty();
    estate.sources();
    estate.configure("");
    std::fs::create_dir(estate.path("repository")).unwrap();
    let run = with_small_disk(
        &estate,
        "repository",
        "sw $bin init --missing-repositories; echo init $?
         sw $bin backup shop; echo first $?
         head -c 10m /dev/zero > repository/filler 2>/dev/null
         sw $bin backup papers; echo full $?
         rm repository/filler
         sw $bin check --read-data; echo sound $?
         sw $bin backup papers; echo again $?
         sw $bin check --read-data; echo whole $?",
    );
    for line in ["init 0", "first 0", "full 1", "sound 0", "again 0", "whole 0"] {
        assert!(run.out.lines().any(|found| found == line), "{line}: {run}");
    }
    run.says(&["IO-ENOSPC"]).hints();
}

#[test]
fn a_full_state_directory_is_said_and_works_again_with_room() {
    let estate = Estate::new();
    let run = with_small_disk(
        &estate,
        "state",
        "sw $bin backup shop; echo first $?
         head -c 10m /dev/zero > state/filler 2>/dev/null
         sw $bin backup shop; sw $bin backup shop; sw $bin backup shop; sw $bin backup shop; echo full $?
         rm state/filler
         sw $bin backup shop; echo again $?
         sw $bin verify; echo verified $?
         sw $bin drill shop; echo drilled $?",
    );
    for line in ["first 0", "full 1", "again 0", "verified 0", "drilled 0"] {
        assert!(run.out.lines().any(|found| found == line), "{line}: {run}");
    }
    run.hints();
}

#[test]
fn an_unreadable_file_makes_the_copy_incomplete_and_is_named() {
    let estate = Estate::new();
    let locked = estate.path("files/locked.txt");
    std::fs::write(&locked, "nobody reads this").unwrap();
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o000)).unwrap();
    let call = ["backup", "papers"];
    let run = if rustix::process::geteuid().is_root() {
        // Root without the capabilities that read everything.
        let plain = estate.command(&call);
        let mut command = std::process::Command::new("setpriv");
        command
            .arg("--bounding-set=-dac_override,-dac_read_search")
            .arg(plain.get_program())
            .args(plain.get_args());
        command
            .current_dir(estate.path(""))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        finish(command.spawn().unwrap(), "backup papers, without capabilities".to_owned())
    } else {
        estate.run(&call)
    };
    let run = run.exits(3);
    assert!(
        run.out.contains("INCOMPLETE") && run.out.contains("FS-05") && run.out.contains("locked.txt"),
        "{run}"
    );
    estate.run(&["points"]).exits(0).says(&["INCOMPLETE"]);
}

#[test]
fn a_database_that_does_not_answer_or_refuses_is_told_from_each_other() {
    let server = Server::start(&["password_encryption=scram-sha-256"]).unwrap();
    server.sql("postgres", &format!("CREATE ROLE keeper LOGIN SUPERUSER PASSWORD '{CANARY}'")).unwrap();
    server.create("shop", &[]).unwrap();
    server
        .sql("shop", "CREATE TABLE sale(id int PRIMARY KEY); INSERT INTO sale SELECT generate_series(1, 100)")
        .unwrap();
    let hba = server.sql("postgres", "SHOW hba_file").unwrap();
    let hba = Path::new(hba.trim());
    let open = text(hba);
    std::fs::write(hba, format!("local all keeper scram-sha-256\n{open}")).unwrap();
    server.sql("postgres", "SELECT pg_reload_conf()").unwrap();

    let estate = Estate::empty();
    estate.sources();
    let root = estate.path("");
    let root = root.display();
    let service = |name: &str, host: &str, port: u16, password: &str| {
        format!(
            "\n[services.{name}.sources.database]\nkind = \"postgres\"\nhost = \"{host}\"\nport = {port}\nuser = \"keeper\"\ndatabase = \"shop\"\npassword = \"file:{root}{password}\"\n"
        )
    };
    let host = server.host();
    estate.configure(&format!(
        "{}{}{}",
        service("good", &host, server.port(), "password"),
        service("wrong", &host, server.port(), "other"),
        service("gone", "/nonexistent", 5432, "password")
    ));
    estate.secret("other", "not-the-canary");
    estate.run(&["init", "--missing-repositories"]).exits(0);
    estate.run(&["backup", "good"]).exits(0);
    estate.run(&["drill", "good"]).exits(0).says(&["PASS"]);
    estate.run(&["backup", "wrong"]).exits(1).says(&["AUTH-DENIED"]).hints();
    estate.run(&["backup", "gone"]).exits(1).says(&["IO-UNREACHABLE"]).hints();
    // What would keep a restore from beginning is known before anything is fetched.
    estate.run(&["restore", "good", "--to", "postgres:new", "--dry-run"]).exits(0).says(&["would restore"]);
    estate
        .run(&["restore", "good", "--to", "postgres:shop", "--dry-run"])
        .exits(20)
        .says(&["it exists", "EV-12"]);
    let nowhere = "postgres:///nonexistent:5432/new";
    estate.run(&["restore", "good", "--to", nowhere, "--dry-run"]).exits(1).says(&["IO-UNREACHABLE"]).hints();
    estate.run(&["doctor"]).exits(4).says(&["AUTH-DENIED", "IO-UNREACHABLE"]);
    estate.run(&["receipts", "export", "ledger.jsonl"]).exits(0);
    assert!(!text(&estate.path("ledger.jsonl")).contains(CANARY));
    let shown = estate.run(&["config", "show"]).exits(0);
    assert!(shown.out.contains("file:"), "{shown}");
}

#[test]
fn a_read_only_state_directory_is_said() {
    let estate = Estate::new();
    let run = with_small_disk(
        &estate,
        "state",
        "mount -o remount,ro state; sw $bin backup shop; echo ended $?; sw $bin points; echo points $?",
    );
    assert!(run.out.contains("ended 1"), "{run}");
    run.hints();
}

#[test]
fn directories_that_are_missing_or_empty_are_not_backed_up_as_nothing() {
    let estate = Estate::new();
    std::fs::rename(estate.path("files"), estate.path("gone")).unwrap();
    let missing = estate.run(&["backup", "papers"]);
    assert_ne!(missing.code, 0, "{missing}");
    missing.says(&["files"]).hints();
    std::fs::create_dir(estate.path("files")).unwrap();
    estate.run(&["backup", "papers"]).exits(3).says(&["IMPLAUSIBLE", "RP-11", "files", "→"]);
    std::fs::remove_file(estate.path("shop.db")).unwrap();
    let missing = estate.run(&["backup", "shop"]);
    assert_ne!(missing.code, 0, "{missing}");
    missing.says(&["shop.db"]).hints();
    assert!(!estate.path("shop.db").exists(), "a backup made the database that it should read");
    let points = estate.run(&["points"]).exits(0);
    assert!(!points.out.contains("shop/database"), "{points}");
}

#[test]
fn a_configuration_is_refused_with_every_problem_at_once() {
    let estate = Estate::new();
    let good = text(&estate.path("seaworthy.toml"));
    let path = estate.path("seaworthy.toml");
    std::fs::write(&path, &good[..good.len() / 2]).unwrap();
    estate.run(&["backup"]).exits(2);
    std::fs::write(&path, good.replace("password = \"file:", &format!("password = \"{CANARY} file:")))
        .unwrap();
    estate.run(&["config", "check"]).exits(2).says(&["password"]).hints();
    estate.run(&["config", "check", "--json"]).exits(2);
    std::fs::write(
        &path,
        good.replace("tier = ", "teir = ").replace("kind = \"files\"", "kind = \"folder\""),
    )
    .unwrap();
    let two = estate.run(&["config", "check"]).exits(2).says(&["teir", "folder"]);
    assert!(two.err.contains("problems"), "{two}");
    std::fs::remove_file(&path).unwrap();
    estate.run(&["backup"]).exits(2).hints();
    std::fs::write(&path, [0xff, 0xfe, 0]).unwrap();
    estate.run(&["backup"]).exits(2);
    std::fs::write(&path, "").unwrap();
    let nothing = estate.run(&["backup"]);
    assert_ne!(nothing.code, 0, "{nothing}");
}

#[test]
fn keys_that_others_can_read_are_refused() {
    let estate = proven();
    let open = |name: &str, mode| {
        std::fs::set_permissions(estate.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open("password", 0o644);
    estate.run(&["backup"]).exits(20).says(&["KY-05"]).hints();
    open("password", 0o600);
    open("state/signing.key", 0o644);
    estate.run(&["backup"]).exits(20).says(&["KY-05"]).hints();
    estate.run(&["doctor"]).exits(4).says(&["KY-05"]);
    open("state/signing.key", 0o600);
    open("state", 0o755);
    estate.run(&["backup"]).exits(20).hints();
    open("state", 0o700);
    estate.run(&["backup"]).exits(0);
}

#[test]
fn hostile_names_on_the_command_line_are_shown_not_obeyed() {
    let estate = proven();
    for name in ["a'b", "a\"b", "two\nlines", "../../etc", "-rf", "$(id)", "a;b", "\u{1b}[2J", ""] {
        for verb in [
            &["backup", "--", name][..],
            &["drill", "--", name],
            &["status", "--", name],
            &["points", "--", name],
            &["restore", "--to", "x", "--", name],
        ] {
            let run = estate.run(verb).exits(2);
            assert!(!run.err.contains("two\nlines") && !run.err.contains('\u{1b}'), "{run}");
        }
    }
    let long = "x".repeat(10_000);
    estate.run(&["backup", &long]).exits(2);
    estate.run(&["restore", "papers", "--to", "a\nb\u{1b}[2J", "--dry-run"]).exits(0);
}

#[test]
fn signals_end_a_run_and_the_next_one_works() {
    let estate = Estate::new();
    for number in 0..40 {
        std::fs::write(estate.path(&format!("files/big-{number}")), support::noise(2_000_000 + number))
            .unwrap();
    }
    for (verb, after) in [("backup", 250), ("backup", 700), ("drill", 300), ("drill", 600)] {
        if verb == "drill" {
            estate.run(&["backup", "papers"]).exits(0);
        }
        let child = estate.start(&[verb, "papers"]);
        std::thread::sleep(Duration::from_millis(after));
        let pid = rustix::process::Pid::from_child(&child);
        let began = Instant::now();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let run = finish(child, format!("{verb} papers, interrupted"));
        assert!(began.elapsed() < Duration::from_secs(12), "{run}");
        assert!(run.code == 130 || run.code == 0, "{run}");
        assert!(run.code == 0 || !run.err.is_empty(), "{run}");
    }
    estate.run(&["backup", "papers"]).exits(0);
    estate.run(&["drill", "papers"]).exits(0);
    estate.run(&["check", "--read-data"]).exits(0);
    estate.run(&["verify"]).exits(0);
}

#[test]
fn a_timeout_leaves_the_question_open() {
    let estate = Estate::new();
    let path = estate.path("seaworthy.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    // A question that takes longer than anybody waits: how fast this machine is decides nothing.
    let slow = "checks = [{ kind = \"command\", name = \"slow\", argv = [\"/bin/sleep\", \"60\"], timeout = \"2m\" }]\n";
    std::fs::write(&path, format!("{config}{slow}")).unwrap();
    estate.run(&["backup", "papers"]).exits(0);
    estate.run(&["drill", "papers", "--timeout", "1s"]).exits(7);
    estate.run(&["drill", "papers", "--timeout", "soon"]).exits(2).hints();
    std::fs::write(&path, config).unwrap();
    estate.run(&["drill", "papers"]).exits(0);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let estate = proven();
    for call in [
        &["points"][..],
        &["receipts"],
        &["help", "findings"],
        &["status"],
        &["--help"],
        &["completions", "bash"],
    ] {
        let mut child = estate.start(call);
        drop(child.stdout.take());
        let run = finish(child, format!("{} | head -0", call.join(" ")));
        assert_eq!(run.code, 0, "{run}");
        assert!(run.err.is_empty(), "{run}");
    }
}

#[test]
fn without_a_home_the_state_must_be_named() {
    let estate = Estate::new();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_seaworthy"));
    command
        .env_clear()
        .current_dir(estate.path(""))
        .arg("status")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let run = finish(command.spawn().unwrap(), "status without HOME".to_owned());
    assert!(run.code == 2 || run.code == 10, "{run}");
    run.hints();
}

#[test]
fn a_ledger_that_somebody_holds_is_exit_11() {
    let estate = proven();
    let holder = rusqlite::Connection::open(estate.path("state/catalogue.sqlite")).unwrap();
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let run = estate.run(&["backup", "papers"]);
    assert_eq!(run.code, 11, "{run}");
    run.hints();
    estate.run(&["status"]);
    holder.execute_batch("ROLLBACK").unwrap();
    estate.run(&["backup"]).exits(0);
}

/// Everything below a directory: kind, mode, time of change and content.
fn everything(
    root: &Path,
) -> std::collections::BTreeMap<std::path::PathBuf, (u32, std::time::SystemTime, Vec<u8>)> {
    let mut found = std::collections::BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let facts = std::fs::symlink_metadata(&path).unwrap();
        let content = if facts.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            Vec::new()
        } else if facts.is_symlink() {
            std::fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else {
            std::fs::read(&path).unwrap()
        };
        found.insert(path, (facts.permissions().mode(), facts.modified().unwrap(), content));
    }
    found
}

#[test]
fn a_dry_run_of_any_verb_changes_nothing_at_all() {
    let estate = proven();
    estate.run(&["receipts", "export", "ledger.jsonl"]).exits(0);
    estate.secret("second", "another password");
    estate.run(&["keys", "add", "--password", &format!("file:{}", estate.path("second").display())]).exits(0);
    let keys = estate.run(&["keys", "list", "--json"]).exits(4).json();
    let other = keys["data"].as_array().unwrap().iter().find(|key| key["current"] == false).unwrap();
    let other = other["id"].as_str().unwrap();
    let second = format!("file:{}", estate.path("second").display());
    let drills = estate.run(&["drill", "list", "--json"]).exits(0).json();
    let run = drills["data"][0]["run"].as_str().unwrap();
    // An old layout of the state directory, a crash's leftovers: neither is a reason to write.
    std::fs::create_dir(estate.path("s/run-left-over")).unwrap();
    let forgotten = estate.objects("snapshots").pop().unwrap();
    let calls: &[&[&str]] = &[
        &["demo", "--no-postgres"],
        &["demo", "--directory", "demo"],
        &[
            "init",
            "--config",
            "other.toml",
            "--files",
            "files",
            "--sqlite",
            "shop.db",
            "--repository",
            "other",
        ],
        &["init", "--missing-repositories"],
        &["doctor"],
        &["config", "check"],
        &["config", "show"],
        &["config", "schema"],
        &["lint"],
        &["lint", "files"],
        &["backup"],
        &["backup", "papers", "--repository", "local"],
        &["replicate"],
        &["adopt", "files"],
        &["retain"],
        &["retain", "--apply"],
        &["retain", "--simulate", "90d"],
        &["hold", "list"],
        &["hold", "add", "papers", "--reason", "a case"],
        &["prune"],
        &["drill"],
        &["drill", "run", "papers", "--report", "reports"],
        &["drill", "list"],
        &["drill", "show", run],
        &["status"],
        &["restore", "papers", "--to", "out"],
        &["restore", "shop", "--to", "out", "--point", "latest-proven"],
        &["points"],
        &["wal", "stream", "papers"],
        &["wal", "status", "papers"],
        &["wal", "serve", "papers", "--socket", "wal.sock"],
        &["wal", "push", "papers", "seaworthy.toml"],
        &["wal", "get", "papers", "00000002.history", "got"],
        &["receipts"],
        &["receipts", "show", "1"],
        &["receipts", "export", "again.jsonl"],
        &["verify"],
        &["verify", "ledger.jsonl"],
        &["comply"],
        &["comply", "papers", "--report", "reports"],
        &["check"],
        &["check", "--read-data"],
        &["posture"],
        &["keys", "list"],
        &["keys", "add", "--password", &second],
        &["keys", "rotate", "--password", &second],
        &["keys", "rotate", "--password", &second, "--now"],
        &["keys", "check", "safe"],
        &["drill", "papers", "--independent"],
        &["kit", "--output", "kit.html"],
        &["keys", "remove", other],
        &["catalogue", "rebuild"],
        &["catalogue", "rebuild", "--ledger-only"],
        &["catalogue", "rebuild", "--receipts", "ledger.jsonl"],
        &["completions", "bash"],
        &["man", "pages"],
        &["man"],
        &["help", "exit-codes"],
    ];
    let help = estate.run(&["--help"]).exits(0).out;
    let verbs =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    for verb in verbs.filter_map(|line| line.split_whitespace().next()) {
        // Continued lines of a description begin with more blanks than a verb.
        if help.contains(&format!("\n  {verb} ")) {
            assert!(calls.iter().any(|call| call[0] == verb), "`{verb}` is not tried");
        }
    }
    let before = everything(&estate.path(""));
    for call in calls {
        let mut dry = call.to_vec();
        dry.push("--dry-run");
        // With one repository there is nowhere to replicate to, see below for two; nobody is registered as a holder of its keys.
        let code = match *call {
            ["replicate", ..] | ["keys", "check", ..] => 2,
            ["keys", "list", ..] => 4,
            // A tree of files has no log, and no server may take that for its end.
            ["wal", "get", ..] => 200,
            // The repository is no object store, and what lies among the files is no copy that is known.
            ["posture", ..] | ["adopt", ..] => 10,
            _ => 0,
        };
        estate.run(&dry).exits(code);
        let after = everything(&estate.path(""));
        for (path, facts) in &before {
            assert_eq!(after.get(path), Some(facts), "{call:?} changed {}", path.display());
        }
        let new: Vec<_> = after.keys().filter(|path| !before.contains_key(*path)).collect();
        assert!(new.is_empty(), "{call:?} made {new:?}");
    }
    estate.run(&["backup", "--dry-run"]).exits(0).says(&["would back up papers/files (files) into local"]);
    estate.run(&["backup", "--repository", "elsewhere", "--dry-run"]).exits(2).hints();
    estate.run(&["restore", "papers", "--to", "files", "--dry-run"]).exits(20).hints();
    estate.run(&["demo", "--dry-run"]).exits(0).says(&["would then damage"]);
    // The same where nothing has run yet: there is no state directory, and none is made.
    std::fs::remove_file(forgotten).unwrap();
    std::fs::remove_dir_all(estate.path("state")).unwrap();
    for call in [&["catalogue", "rebuild"][..], &["backup"], &["doctor"]] {
        let mut dry = call.to_vec();
        dry.push("--dry-run");
        let ran = estate.run(&dry);
        assert!(!estate.path("state").exists(), "{ran}");
    }
}

#[test]
fn v_says_each_step_and_no_secret() {
    let mut estate = Estate::new();
    estate.set("PASSWORD_IN_THE_ENVIRONMENT", CANARY);
    let text = text(&estate.path("seaworthy.toml"));
    let by_environment = text.replace(
        &format!("file:{}/password", estate.path("").display().to_string().trim_end_matches('/')),
        "env:PASSWORD_IN_THE_ENVIRONMENT",
    );
    assert_ne!(by_environment, text);
    std::fs::write(estate.path("seaworthy.toml"), by_environment).unwrap();
    // Each run is searched for the canary by `finish`.
    let quiet = estate.run(&["backup", "papers", "--no-progress"]).exits(0);
    assert!(!quiet.err.contains("capture"), "{quiet}");
    let steps = estate.run(&["backup", "papers", "-v", "--no-progress"]).exits(0).says(&[
        "read the configuration",
        "papers/files: open repository local",
        "papers/files: capture",
        "papers/files: commit",
        "papers/files: sealed receipt 4 sha256:",
    ]);
    assert!(!steps.err.contains("took"), "{steps}");
    let detailed = estate.run(&["drill", "papers", "-vv"]).exits(0).says(&[
        "state in",
        "chose copy",
        "`latest`, 2 candidates",
        "papers/files: restore",
        "papers/files: checks",
        "papers/files: control took",
    ]);
    assert!(!detailed.out.contains("sealed receipt"), "steps are talk, not data: {detailed}");
    for verb in [
        &["doctor"][..],
        &["config", "show", "--origin"],
        &["status"],
        &["restore", "papers", "--to", "out"],
        &["check", "--read-data"],
        &["keys", "list"],
        &["catalogue", "rebuild"],
        &["backup", "--json"],
        &["drill", "shop", "--json"],
    ] {
        // Nobody is registered as a holder of its keys.
        let allowed = if verb[0] == "keys" { [4, 4] } else { [0, 7] };
        let mut loud = verb.to_vec();
        loud.push("-vv");
        let ran = estate.run(&loud);
        assert!(ran.err.contains("read the configuration"), "{ran}");
        assert!(allowed.contains(&ran.code), "{ran}");
    }
    // A password that is refused is not printed either.
    estate.set("PASSWORD_IN_THE_ENVIRONMENT", &format!("{CANARY}-wrong"));
    estate.run(&["backup", "-vv"]).exits(12).hints();
    let silent = estate.run(&["status", "-vv", "-q"]);
    assert!(!silent.err.contains("read the configuration"), "{silent}");
}

#[test]
fn quiet_says_only_what_is_wrong() {
    let estate = Estate::new();
    let backup = estate.run(&["backup", "-q"]).exits(0);
    assert_eq!((backup.out.as_str(), backup.err.as_str()), ("", ""));
    let drill = estate.run(&["drill", "-q"]).exits(0);
    assert_eq!((drill.out.as_str(), drill.err.as_str()), ("", ""));
    for pack in estate.objects("data") {
        flip(&pack);
    }
    let failed = estate.run(&["drill", "papers", "-q"]).exits(5);
    assert!(failed.out.contains("FAIL") && failed.out.contains("RP-01"), "{failed}");
}

#[test]
fn colour_follows_the_flag_then_the_environment_then_the_configuration() {
    let mut estate = proven();
    let is_coloured = |estate: &Estate, flags: &[&str]| {
        let mut call = vec!["drill", "papers"];
        call.extend(flags);
        estate.run(&call).exits(0).out.contains('\u{1b}')
    };
    assert!(!is_coloured(&estate, &[]) && is_coloured(&estate, &["--color", "always"]));
    let sound = text(&estate.path("seaworthy.toml"));
    std::fs::write(estate.path("seaworthy.toml"), format!("color = \"always\"\n{sound}")).unwrap();
    assert!(is_coloured(&estate, &[]) && !is_coloured(&estate, &["--color", "never"]));
    estate.set("SEAWORTHY_COLOR", "never");
    assert!(!is_coloured(&estate, &[]) && is_coloured(&estate, &["--color", "always"]));
    estate.set("SEAWORTHY_COLOR", "auto");
    estate.set("CLICOLOR_FORCE", "1");
    std::fs::write(estate.path("seaworthy.toml"), sound).unwrap();
    assert!(is_coloured(&estate, &[]));
    estate.set("CLICOLOR_FORCE", "0");
    estate.set("NO_COLOR", "1");
    assert!(!is_coloured(&estate, &[]));
}

#[test]
fn an_init_that_found_nothing_says_where_to_go_on() {
    let estate = Estate::empty();
    let ran = estate.run(&["init", "--yes"]).exits(0).says(&["0 services", "it holds examples"]);
    assert!(!ran.err.contains("seaworthy backup"), "{ran}");
}

#[test]
fn a_drill_says_when_the_next_one_is_due() {
    let estate = Estate::new();
    estate.run(&["backup", "papers"]).exits(0);
    let due = |estate: &Estate, code: i32| {
        let ran = estate.run(&["drill", "papers", "--json"]).exits(code).json();
        let instant =
            |name: &str| ran["drill"][name].as_str().map(|text| text.parse::<jiff::Timestamp>().unwrap());
        (instant("finished").unwrap(), instant("next_due"))
    };
    // Without a schedule: when the proof no longer counts.
    let (finished, next) = due(&estate, 0);
    let days = next.unwrap().duration_since(finished).as_hours() / 24;
    assert!((7..=400).contains(&days), "{days}");
    // With one: its next time, on the wall clock of its zone.
    estate.configure(
        "\n[services.papers.drill]\nschedule = { cron = \"30 4 * * SUN\", zone = \"Europe/Berlin\" }\n",
    );
    let (finished, next) = due(&estate, 0);
    let wall = next.unwrap().in_tz("Europe/Berlin").unwrap();
    assert_eq!((wall.hour(), wall.minute(), wall.weekday()), (4, 30, jiff::civil::Weekday::Sunday));
    assert!(next.unwrap() > finished && next.unwrap().duration_since(finished).as_hours() <= 7 * 24 + 1);
    estate.run(&["drill", "papers", "--report", "reports"]).exits(0);
    let report = std::fs::read_dir(estate.path("reports")).unwrap().map(|entry| entry.unwrap().path());
    let markdown = report.into_iter().find(|path| path.extension().unwrap() == "md").unwrap();
    let day = next.unwrap().strftime("%Y-%m-%d").to_string();
    assert!(text(&markdown).lines().any(|line| line.contains("NEXT_DUE") && line.contains(&day)));
    // A drill that has proven nothing does not put the next one off.
    estate.configure("");
    for pack in estate.objects("data") {
        flip(&pack);
    }
    let (_, next) = due(&estate, 5);
    assert_eq!(next, None);
}

/// Whoever has checks of their own learns which of them can fail, and which has not been shown to.
#[test]
fn a_drill_is_shown_to_fail_and_so_are_the_checks_that_can() {
    let estate = Estate::new();
    let path = estate.path("seaworthy.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let source = "kind = \"sqlite\"\n";
    let checks = "checks = [\n  { name = \"has-sales\", kind = \"minimum-rows\", table = \"sale\", rows = 400 },\n  \
                  { name = \"always\", kind = \"sql\", query = \"SELECT 1\" },\n]\n";
    std::fs::write(&path, text.replacen(source, &format!("{source}{checks}"), 1)).unwrap();
    estate.run(&["backup", "shop"]).exits(0);
    let shown = estate.run(&["drill", "shop", "--prove-the-drill=6"]).exits(0);
    let shown = shown.says(&[
        "6 of 6 damages caught",
        "deleted all 500 rows of sale: caught as CT-01",
        "noticed by `has-sales`",
        "your check `has-sales` noticed 3 of 6",
        "your check `always` noticed none of 6: nothing shows that it can fail",
    ]);
    assert!(!shown.out.contains("NOT CAUGHT"), "{shown}");
    // Each of them was a drill with a receipt of its own.
    let listed = estate.run(&["drill", "list", "shop"]).exits(0);
    assert_eq!(listed.out.lines().count(), 6, "{listed}");
    estate.run(&["verify"]).exits(0);
    let told = estate.run(&["--json", "drill", "shop", "--prove-the-drill=2"]).exits(0).json();
    assert_eq!(
        (&told["event"], &told["caught"], &told["noticed_by"]["has-sales"]),
        (&"summary".into(), &2.into(), &1.into())
    );
    estate.run(&["drill", "papers", "--prove-the-drill"]).exits(10).hints();
    estate.run(&["backup", "papers"]).exits(0);
    estate
        .run(&["drill", "papers", "--prove-the-drill=2"])
        .exits(0)
        .says(&["you have no checks of your own"]);
}

/// A call that leads to no run has proven nothing, whatever it was asked for.
#[test]
fn drilling_nothing_is_no_pass() {
    let estate = Estate::new();
    estate.configure(
        "\n[services.cache]\nrpo = \"not-applicable\"\nrationale = \"is rebuilt from the shop\"\n",
    );
    estate.run(&["backup"]).exits(0);
    estate.run(&["drill", "cache"]).exits(7).hints().says(&[
        "drilled nothing",
        "EV-01",
        "declares no source",
    ]);
    let moment = estate.run(&["drill", "--until", "latest"]).exits(7).hints();
    moment.says(&[
        "left out shop/database",
        "left out papers/files",
        "EV-01",
        "no source of `shop`, `papers`, `cache` holds a log",
    ]);
    estate.run(&["drill", "cache", "--prove-the-drill=2"]).exits(7).hints().says(&["EV-01"]);
    assert!(estate.run(&["drill", "list"]).exits(0).out.trim().is_empty());
    estate.run(&["drill", "cache", "papers"]).exits(0);
}

/// A connection that leads to another server makes copies of another server: that is said, once, and is no failure.
#[test]
fn a_source_that_has_become_another_system_is_said_once() {
    let servers = [Server::start(&[]).unwrap(), Server::start(&[]).unwrap()];
    let estate = Estate::new();
    let leading_to = |server: &Server| {
        estate.configure(&format!(
            "\n[services.books.sources.database]\nkind = \"postgres\"\nhost = \"{}\"\nport = {}\nuser = \"postgres\"\n\
             database = \"books\"\nbin_dir = \"{}\"\n",
            server.host(),
            server.port(),
            server.programs().display()
        ));
    };
    for server in &servers {
        server.create("books", &[]).unwrap();
        server.sql("books", "CREATE TABLE book AS SELECT 1 AS id").unwrap();
    }
    leading_to(&servers[0]);
    for _ in 0..2 {
        assert!(!estate.run(&["backup", "books"]).exits(0).out.contains("EV-14"));
    }
    leading_to(&servers[1]);
    let told = estate.run(&["backup", "books", "--json"]).exits(0).json();
    assert_eq!(told["backup"]["findings"][0]["code"], "EV-14", "{told:#}");
    assert!(!estate.run(&["backup", "books"]).exits(0).out.contains("EV-14"));
}

/// A key that was replaced has signed what it has signed; a stranger's has not.
#[test]
fn what_an_earlier_key_has_signed_is_still_believed() {
    let estate = Estate::new();
    estate.run(&["backup", "shop"]).exits(0);
    std::fs::remove_file(estate.path("state/signing.key")).unwrap();
    estate.run(&["drill", "shop"]).exits(0);
    estate.run(&["verify"]).exits(0);
    let kept = std::fs::read_dir(estate.path("state/trusted-keys")).unwrap().count();
    assert_eq!(kept, 1);
    std::fs::remove_dir_all(estate.path("state/trusted-keys")).unwrap();
    estate.run(&["drill", "shop"]).exits(7).says(&["EV-07", "catalogue rebuild --key"]);
    estate.run(&["verify"]).exits(4).says(&["EV-07"]);
}

/// Another repository in the place of ours is told as such, and one that is not there as well.
#[test]
fn another_repository_in_the_place_of_ours_is_not_a_lack_of_points() {
    let estate = Estate::new();
    estate.run(&["backup", "shop"]).exits(0);
    std::fs::rename(estate.path("repository"), estate.path("away")).unwrap();
    estate.run(&["drill", "shop"]).exits(10).says(&["IO-UNREACHABLE"]).hints();
    estate.run(&["init", "--missing-repositories"]).exits(0);
    let shown =
        estate.run(&["drill", "shop"]).exits(10).says(&["EV-04", "is not the repository `local`"]).hints();
    assert!(!shown.err.contains("no recovery point"), "{shown}");
    std::fs::write(estate.path("password"), "").unwrap();
    estate.run(&["drill", "shop"]).exits(2).says(&["KY-02"]).hints();
}

#[test]
fn retention_is_shown_with_every_reason_and_removes_nothing() {
    let estate = Estate::new();
    let with = |policy: &str| {
        let path = estate.path("seaworthy.toml");
        let is_ours = |line: &&str| !line.starts_with("retention") && *line != "[services.papers]";
        let told = text(&path).lines().filter(is_ours).collect::<Vec<_>>().join("\n");
        let source = "[services.papers.sources.files]";
        let changed = told.replace(source, &format!("[services.papers]\nretention = {policy}\n{source}"));
        std::fs::write(path, changed).unwrap();
    };
    for _ in 0..4 {
        estate.run(&["backup", "papers", "-q"]).exits(0);
    }
    let before = estate.objects("snapshots").len();
    // Without a policy nothing goes.
    estate.run(&["retain", "papers"]).exits(0).says(&["4 copies kept, 0 may go"]);
    with("{ last = 1 }");
    let plan = estate.run(&["retain", "papers"]).exits(0).says(&[
        "may go: ",
        "is newer (not yet proven)",
        "not marked yet",
    ]);
    assert!(!plan.out.contains("kept: "), "{plan}");
    estate.run(&["retain", "papers", "--all"]).exits(0).says(&["kept: ", "the newest"]);
    // A proven copy is not replaced by one that nobody has restored.
    estate.run(&["drill", "papers", "-q"]).exits(0);
    estate.run(&["backup", "papers", "-q"]).exits(0);
    let json = estate.run(&["retain", "papers", "--json"]).exits(0).json();
    assert_eq!(
        (&json["schema"], json["plan"]["decisions"].as_array().unwrap().len()),
        (&"seaworthy.retain/1".into(), 5)
    );
    with("{ daily = 2, monthly = 3 }");
    estate.run(&["retain", "papers", "--simulate", "400d"]).exits(0).says(&["copies left at", "●"]);
    estate.run(&["retain", "papers", "--simulate", "4 moons"]).exits(2).hints();
    // What the ledger knows and the repository does not hold lets nothing go, and is a finding.
    let gone = estate.objects("snapshots").remove(0);
    std::fs::remove_file(gone).unwrap();
    let doubt = estate.run(&["retain", "papers"]).exits(4);
    assert!(doubt.out.contains("RT-01") && doubt.out.contains("R5"), "{doubt}");
    assert_eq!(estate.objects("snapshots").len(), before, "one more backup, one taken away by hand");
}

#[test]
fn a_rehearsal_of_a_replication_changes_nothing() {
    let estate = Estate::empty();
    estate.sources();
    let root = estate.path("").display().to_string();
    estate.configure(&format!(
        "\n[repositories.away]\nlocation = \"{root}away\"\npassword = \"file:{root}password\"\nsite = \"there\"\n"
    ));
    estate.run(&["init", "--missing-repositories"]).exits(0);
    estate.run(&["backup", "papers", "--no-replicate"]).exits(0);
    let before = everything(&estate.path(""));
    estate
        .run(&["replicate", "--dry-run"])
        .exits(0)
        .says(&["would replicate papers/files", "from local to away"]);
    assert_eq!(everything(&estate.path("")), before);
    estate.run(&["replicate", "--from", "nowhere"]).exits(2).hints();
    estate.run(&["replicate", "--to", "nowhere"]).exits(2).hints();
    estate.run(&["replicate"]).exits(0).says(&["✓ replicated papers/files", "to away", "read back"]);
    estate.run(&["replicate"]).exits(0).says(&["✓ away has everything that is in local"]);
    estate.run(&["receipts"]).exits(0).says(&["replicate", "from local to away"]);
    estate.run(&["verify"]).exits(0);
    // One repository under two names is one place: what is in it is not in another.
    std::fs::remove_dir_all(estate.path("away")).unwrap();
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(estate.path("repository"))
        .arg(estate.path("away"))
        .status();
    assert!(copied.unwrap().success());
    estate.run(&["replicate"]).exits(20).says(&["are one repository"]);
}

#[test]
fn lint_reads_runbooks_and_says_where_why_and_what_mends_it() {
    let estate = Estate::empty();
    // Nothing to read, and no configuration either.
    estate.run(&["lint"]).exits(2).hints();
    let write = |name: &str, text: &str| {
        let path = estate.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("docs/b.md", "# Copies\n\n```sh\npg_basebackup -D /srv/base -z\n```\n");
    write("docs/a.md", "Run `pg_restore -D /srv/pgdata /srv/base` now.\n");
    write(
        "docs/.github/workflows/dump.yml",
        "jobs:\n  a:\n    steps:\n      - run: pg_dump shop | gzip > shop-$D.gz\n",
    );
    write("docs/.hidden/c.md", "`pg_basebackup -D /srv/base -z`\n");
    write("docs/pack.bin", "x");
    write("docs/blob", "\0\0");
    write("docs/job", "#!/bin/sh\nrestic backup /srv || true\n");
    std::os::unix::fs::symlink("..", estate.path("docs/loop")).unwrap();
    let found = estate.run(&["lint", "docs"]).exits(4).says(&[
        "docs/a.md:1:6: critical[LN-04]: ",
        "docs/b.md:4:1: critical[LN-03]: ",
        "4 | pg_basebackup -D /srv/base -z\n  | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  why: ",
        "\n  fix: ",
        "4 defects in 4 files: 4 critical",
        "passed over: 1 binary, 1 hidden, 1 of kinds that it does not read, 1 symbolic links",
    ]);
    let places: Vec<&str> = found.out.lines().filter(|line| line.contains("[LN-")).collect();
    assert!(places[0].starts_with("docs/.github/") && places[1].starts_with("docs/a.md"), "{found}");
    assert!(!found.out.contains('\u{1b}'), "{found}");

    let report = estate.run(&["lint", "docs", "--json"]).exits(4).json();
    assert_eq!(report["schema"], "seaworthy.lint/1");
    assert_eq!(report["defects"][2]["code"], "LN-03");
    assert_eq!(report["defects"][2]["place"]["line"], 4);
    assert_eq!(report["files"], 4);

    write(
        "docs/b.md",
        "<!-- seaworthy: allow LN-03 because the server is older -->\n\n```sh\npg_basebackup -D /srv/base -z\n```\n",
    );
    estate
        .run(&["lint", "docs/b.md"])
        .exits(0)
        .says(&["nothing known to be bad in 1 file; 1 allowed on purpose"]);
    let quiet = estate.run(&["lint", "docs/b.md", "-q"]).exits(0);
    assert_eq!((quiet.out.as_str(), quiet.err.as_str()), ("", ""));
    write("docs/b.md", "<!-- seaworthy: allow LN-03 because the server is older -->\n\nnothing\n");
    estate
        .run(&["lint", "docs/b.md"])
        .exits(0)
        .says(&["docs/b.md:1: the exception for LN-03 allows nothing here"]);
}

#[test]
fn what_lint_could_not_read_is_never_clean() {
    let estate = Estate::empty();
    std::fs::write(estate.path("good.md"), "# Nothing\n").unwrap();
    std::fs::write(estate.path("long.md"), "words \n".repeat(200_000)).unwrap();
    std::fs::write(estate.path("blob.md"), "\0").unwrap();
    estate.run(&["lint", "good.md"]).exits(0);
    for (path, why) in [
        ("no-such.md", "No such file"),
        ("long.md", "only its first 1.00 MiB were read"),
        ("blob.md", "it is binary"),
        ("/dev/null", "neither a file nor a directory"),
    ] {
        let ran = estate.run(&["lint", "good.md", path]).exits(1).says(&[why, "1 not read"]);
        assert!(!ran.out.contains("✓"), "{ran}");
        let json = estate.run(&["lint", path, "--json"]).exits(1).json();
        assert_eq!(json["unread"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn lint_compares_with_the_configuration_where_there_is_one() {
    let estate = Estate::new();
    estate.run(&["lint"]).exits(0).says(&["nothing known to be bad in the configuration"]);
    let table = "| Service | RTO |\n|---|---|\n| papers | 7 minutes |\n";
    std::fs::write(estate.path("promises.md"), table).unwrap();
    estate.run(&["lint", "promises.md"]).exits(4).says(&[
        "LN-50",
        "an RTO of 7 min for `papers`",
        "; compared with the configuration",
    ]);
    estate.run(&["lint", "promises.md", "--config", "no-such.toml"]).exits(2);
    std::fs::write(estate.path("bad.toml"), "nonsense = 1\n").unwrap();
    estate.run(&["lint", "promises.md", "--config", "bad.toml"]).exits(2).says(&["nonsense"]);
}

#[test]
fn lint_reads_a_tree_of_a_thousand_files() {
    let estate = Estate::empty();
    let page = "# Backup\n\nDaily at 2am CET.\n\n```sh\nset -e\npg_dump -Fc shop -f /b/shop-$D.dump\nrsync -a /b/ nas:/b/\n```\n\n| a | b |\n|---|---|\n".repeat(20);
    for number in 0..1000 {
        let directory = estate.path(&format!("tree/{}", number % 10));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(format!("{number}.md")), &page).unwrap();
    }
    estate.run(&["lint", "tree"]).exits(4).says(&["1000 defects in 1000 files: 1000 to be read tomorrow"]);
}

#[test]
fn the_projects_own_documents_are_clean() {
    let estate = Estate::empty();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let paths: Vec<String> = ["docs", "README.md", "CONTRIBUTING.md", "SECURITY.md", "ARCHITECTURE.md"]
        .iter()
        .map(|name| root.join(name).display().to_string())
        .collect();
    let mut call = vec!["lint"];
    call.extend(paths.iter().map(String::as_str));
    let ran = estate.run(&call).exits(0);
    assert!(!ran.err.contains("allows nothing"), "{ran}");
}
