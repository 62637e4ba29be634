//! `comply` as people and scripts see it: real directories, object stores of our own, one that is dead, one that lies.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

#[expect(dead_code, reason = "shared with the tests of the face, which use all of it")]
mod support;

use std::collections::BTreeMap;
use std::path::Path;

use seaworthy_testkit::bucket::{Bucket, Operation, Plan, Settings, Wrong};
use serde_json::Value;

use crate::support::{Estate, Run};

const KEY: &str = "AKIDTEST";
const SECRET: &str = "secret-of-the-bucket";

fn bucket(name: &str) -> Bucket {
    let keys = BTreeMap::from([(KEY.to_owned(), SECRET.to_owned())]);
    Bucket::new(name, Settings { keys, ..Settings::default() }).unwrap()
}

/// An estate whose live data is in one data centre, with a repository in each bucket; `more` says where the second one is.
fn estate(one: &Bucket, other: &Bucket, policy: &str, more: &str) -> Estate {
    let mut estate = Estate::empty();
    estate.sources();
    estate.set("KEY", KEY);
    estate.set("SECRET", SECRET);
    configure(&estate, one, other, policy, more);
    estate.run(&["init", "--missing-repositories"]).exits(0);
    estate
}

fn configure(estate: &Estate, one: &Bucket, other: &Bucket, policy: &str, more: &str) {
    estate.configure("");
    let root = estate.path("").display().to_string();
    let table = |name: &str, bucket: &Bucket| {
        format!(
            "[repositories.{name}]\nlocation = \"s3://{name}/ships\"\nendpoint = \"{}\"\naccess_key = \"env:KEY\"\n\
             secret_key = \"env:SECRET\"\npassword = \"file:{root}password\"\ntimeout = \"5s\"\n",
            bucket.endpoint()
        )
    };
    let text = format!(
        "[defaults]\nowner = \"tests\"\n\
         production = {{ site = \"de-fra1\", region = \"eu-de\", account = \"works\", medium = \"disk\" }}\n\
         policy = {{ {policy} }}\n{}site = \"de-fra1\"\nregion = \"us-east-1\"\naccount = \"works\"\n{}{more}\n\
         [services.papers.sources.files]\nkind = \"files\"\npaths = [\"{root}files\"]\n",
        table("one", one),
        table("other", other)
    );
    std::fs::write(estate.path("seaworthy.toml"), text).unwrap();
}

/// The bucket checks the region that it is asked for, so that both are in the region that it is in.
const AWAY: &str = "site = \"nl-ams1\"\nregion = \"us-east-1\"\naccount = \"vault\"\n";

fn rule<'a>(json: &'a Value, rule: &str) -> &'a str {
    let rules = json["comply"]["sources"][0]["placement"]["rules"].as_array().unwrap();
    rules.iter().find(|one| one["rule"] == rule).unwrap()["answer"].as_str().unwrap()
}

#[track_caller]
fn has(json: &Value, code: &str) {
    let text = json["comply"].to_string();
    assert!(text.contains(&format!("\"code\":\"{code}\"")), "no {code} in {text}");
}

#[test]
fn copies_that_are_apart_are_seen_sealed_and_verified_by_somebody_else() {
    let (one, other) = (bucket("one"), bucket("other"));
    let estate = estate(&one, &other, "copies = 3", AWAY);
    // Nothing is there yet: that is seen, and is no unknown.
    estate.run(&["comply"]).exits(4).says(&["PL-01", "PL-08", "it holds no copy", "VIOLATED"]);
    estate.run(&["backup"]).exits(0);
    let screen = estate.run(&["comply", "--report", "reports"]).exits(0).says(&[
        "met",
        "live data",
        "nl-ams1",
        "read back",
        "site de-fra1 is lost",
        "account works is taken over",
        "the password of one, other is lost",
        "receipt ",
    ]);
    assert!(!screen.out.contains("PL-"), "{screen}");
    let json = estate.run(&["comply", "--json"]).exits(0).json();
    assert_eq!(json["schema"], "seaworthy.comply/1");
    assert_eq!((rule(&json, "offsite"), rule(&json, "one-disaster")), ("met", "met"));
    assert_eq!(
        json["comply"]["sources"][0]["placement"]["newest"]["repositories"].as_array().unwrap().len(),
        2
    );
    // The auditor has an export, the public key, and nothing else.
    estate.run(&["receipts", "export", "ledger.jsonl"]).exits(0);
    std::fs::remove_dir_all(estate.path("state")).unwrap();
    drop((one, other));
    estate.run(&["verify", "ledger.jsonl", "--key", "signing.pub"]).exits(0).says(&["receipts verified"]);
    let report = std::fs::read_dir(estate.path("reports")).unwrap();
    let mut kinds = Vec::new();
    for entry in report {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("sha256:") && text.contains("nl-ams1"), "{}", path.display());
        assert!(!text.contains("s3://") && !text.contains(SECRET), "{}", path.display());
        let is_page = path.extension().unwrap() == "html";
        assert!(!is_page || !(text.contains("<script") || text.contains("http://")), "{}", path.display());
        kinds.push(path.extension().unwrap().to_owned());
    }
    kinds.sort();
    assert_eq!(kinds, ["html", "json", "md"]);
}

#[test]
fn a_second_bucket_in_the_same_account_or_room_is_told() {
    let (one, other) = (bucket("one"), bucket("other"));
    let same = "site = \"nl-ams1\"\nregion = \"us-east-1\"\naccount = \"works\"\n";
    let estate = estate(&one, &other, "copies = 3", same);
    estate.run(&["backup"]).exits(0);
    let json = estate.run(&["comply", "--json"]).exits(4).json();
    assert_eq!((rule(&json, "copies"), rule(&json, "offsite")), ("met", "met"));
    assert_eq!(rule(&json, "other-account"), "violated");
    has(&json, "PL-04");
    has(&json, "PL-08");
    // Asked for less, it is enough; at the same site, it is not.
    configure(&estate, &one, &other, "other_account = 0", same);
    estate.run(&["comply", "-q"]).exits(0);
    let room = "site = \"DE-fra1\"\nregion = \"us-east-1\"\naccount = \"vault\"\nmedium = \"nas\"\n";
    configure(&estate, &one, &other, "copies = 3", room);
    estate.run(&["comply"]).exits(4).says(&[
        "PL-03",
        "at the live data's site (de-fra1)",
        "a NAS in the same room",
    ]);
    // What is not said is not known.
    configure(&estate, &one, &other, "copies = 3", "site = \"nl-ams1\"\nregion = \"us-east-1\"\n");
    estate.run(&["comply"]).exits(7).says(&["PL-10", "the account of other is not said", "UNKNOWN"]);
    // What may be in the EU only is written nowhere else.
    configure(&estate, &one, &other, "regions = [\"eu-*\"]", AWAY);
    for verb in ["backup", "comply"] {
        estate.run(&[verb]).exits(2).says(&["PL-06", "us-east-1", "eu-*"]).hints();
    }
}

#[test]
fn a_dead_repository_is_unknown_and_keeps_no_other_waiting() {
    let (one, other) = (bucket("one"), bucket("other"));
    let estate = estate(&one, &other, "copies = 3", AWAY);
    estate.run(&["backup"]).exits(0);
    let dead = [Operation::Get, Operation::Head, Operation::List];
    other.plan(dead.map(|operation| Plan::every(operation, Wrong::Silent)).to_vec());
    let run = estate.run(&["comply", "--json", "--within", "8s"]).exits(7);
    assert!(run.took.as_secs() < 60, "{run}");
    let json = run.json();
    has(&json, "IO-UNREACHABLE");
    assert_eq!((rule(&json, "reachable"), rule(&json, "copies")), ("unknown", "unknown"));
    let rows = json["comply"]["sources"][0]["placement"]["rows"].as_array().unwrap().clone();
    assert_eq!((&rows[0]["counts"], &rows[1]["counts"]), (&"met".into(), &"unknown".into()));
    estate.run(&["comply", "--within", "5s"]).exits(7).says(&["? did not answer", "not known"]);
    estate.run(&["comply", "--within", "soon"]).exits(2).hints();
    // The wrong key is as silent, and says why.
    estate.secret("password", "another");
    estate.run(&["comply"]).exits(7).says(&["KY-01"]);
}

#[test]
fn a_damaged_piece_is_found_told_and_sealed() {
    let (one, other) = (bucket("one"), bucket("other"));
    let estate = estate(&one, &other, "copies = 3", AWAY);
    // One file of one piece, so that the random piece is this one.
    for entry in std::fs::read_dir(estate.path("files")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
    }
    std::fs::write(estate.path("files/only.bin"), support::noise(200_000)).unwrap();
    estate.run(&["backup"]).exits(0);
    other.plan(vec![Plan { key: "/data/", ..Plan::every(Operation::Get, Wrong::Corrupt(64)) }]);
    let json = estate.run(&["comply", "--json"]).exits(4).json();
    assert_eq!(rule(&json, "reachable"), "violated");
    has(&json, "RP-01");
    estate.run(&["receipts"]).exits(0).says(&["comply", "3-2-1 VIOLATED", "repository other read back"]);
    estate.run(&["points"]).exits(0).says(&["FAILED RP-01"]);
    estate.run(&["status"]).exits(4).says(&["RP-01"]);
}

/// With a directory beside the live data, and one that is said to be elsewhere.
fn directories(more: &str) -> Estate {
    let estate = Estate::empty();
    estate.sources();
    let root = estate.path("").display().to_string();
    estate.configure(&format!(
        "\n[repositories.away]\nlocation = \"{root}away\"\npassword = \"file:{root}password\"\nsite = \"there\"\naccount = \"vault\"\n\
         medium = \"nas\"\n"
    ));
    let path = estate.path("seaworthy.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let said = "[defaults]\nproduction = { site = \"here\", account = \"works\", medium = \"disk\" }\n";
    std::fs::write(&path, text.replacen("[defaults]\n", said, 1) + more).unwrap();
    estate.run(&["init", "--missing-repositories"]).exits(0);
    estate.run(&["backup"]).exits(0);
    estate
}

#[test]
fn two_directories_of_one_disk_are_no_second_site_whatever_is_said_of_them() {
    let estate = directories("");
    let run = estate.run(&["comply", "papers"]).exits(4);
    let run = run.says(&[
        "PL-11",
        "same file system as the live data",
        "PL-08",
        "free",
        "seaworthy comply --report",
    ]);
    assert!(!run.out.contains("shop/database"), "{run}");
    let json = estate.run(&["comply", "--json"]).exits(4).json();
    assert_eq!(json["comply"]["sources"].as_array().unwrap().len(), 2);
    let space = &json["comply"]["repositories"][0]["space"];
    assert!(space["free_bytes"].as_u64().unwrap() > 0 && space["days_left"].is_null(), "{space}");
}

#[test]
fn a_repository_that_was_emptied_or_left_behind_is_told() {
    let estate = directories("");
    let path = estate.path("seaworthy.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    for snapshot in files(&estate.path("away/snapshots")) {
        std::fs::remove_file(snapshot).unwrap();
    }
    let run: Run = estate.run(&["comply", "papers"]).exits(4);
    run.says(&["PL-13", "1 copy that receipts put into away", "PL-12", "it holds no copy"]);
    // A copy that is too old counts for nothing.
    let stale = text.replacen("[defaults]\n", "[defaults]\nstale_after = \"1s\"\n", 1);
    std::fs::write(&path, stale).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    estate.run(&["comply", "papers"]).exits(4).says(&["its newest good copy is of", "allowed are 1s"]);
    // A repository that is not there any more is not an empty one.
    std::fs::write(&path, text).unwrap();
    std::fs::remove_dir_all(estate.path("repository")).unwrap();
    estate.run(&["comply", "papers"]).exits(4).says(&["IO-UNREACHABLE", "its location"]);
}

#[test]
fn status_tells_of_a_repository_that_holds_no_copy_of_what_it_should() {
    let estate = directories("");
    assert!(!estate.run(&["status"]).out.contains("PL-12"));
    let root = estate.path("").display().to_string();
    let path = estate.path("seaworthy.toml");
    let third = format!(
        "\n[repositories.third]\nlocation = \"{root}third\"\npassword = \"file:{root}password\"\nsite = \"third\"\n"
    );
    std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + &third).unwrap();
    let run = estate.run(&["status"]).exits(7).says(&["PL-12", "third: no complete copy is known there"]);
    assert!(!run.out.contains("away: "), "{run}");
    estate.run(&["init", "--missing-repositories"]).exits(0);
    estate.run(&["replicate", "-q"]).exits(0);
    assert!(!estate.run(&["status"]).out.contains("PL-12"));
}

fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn status_says_what_the_last_look_has_shown() {
    let (one, other) = (bucket("one"), bucket("other"));
    let estate = estate(&one, &other, "evidence_age = \"1d\"", AWAY);
    estate.run(&["backup", "-q"]).exits(0);
    estate.run(&["status"]).exits(7).says(&["3-2-1: never looked at", "seaworthy comply"]);
    estate.run(&["comply", "-q"]).exits(0);
    estate.run(&["status"]).exits(7).says(&["3-2-1: met"]);
    let json = estate.run(&["status", "--json"]).exits(7).json();
    assert_eq!(json["placement"]["answer"], "met");
    estate.run(&["status", "--as-of", "2020-01-01T00:00:00Z"]).exits(7).says(&["3-2-1: never looked at"]);
    estate.run(&["status", "--as-of", "2099-01-01T00:00:00Z"]).says(&["PL-15", "allowed are 1d"]);
}
