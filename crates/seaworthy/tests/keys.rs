//! Keys, the recovery kit and the drill without us, as their user meets them: the real binary, real restic.

#![expect(clippy::unwrap_used, reason = "helpers of tests: what cannot be unwrapped is a failed test")]

#[expect(dead_code, reason = "shared with the other tests of the face, which use other parts of it")]
mod support;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::{Path, PathBuf};

use support::{CANARY, Estate, flip};

/// The password of the key in escrow.
const HELD: &str = "held by somebody else";

/// The digits of each key file of a repository.
fn key_files(repository: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(repository.join("keys"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// What the ledger says of keys, oldest first.
fn sealed(estate: &Estate) -> Vec<serde_json::Value> {
    let rows = estate.run(&["receipts", "list", "--json"]).exits(0).json();
    rows["data"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["act"] == "key")
        .map(|row| {
            let sequence = row["sequence"].to_string();
            estate.run(&["receipts", "show", &sequence, "--json"]).exits(0).json()["act"]["key"].clone()
        })
        .collect()
}

/// An estate with a repository at home and one away, a key in escrow of the latter, and a register.
///
/// The register names the key that `id` holds, once it was added.
fn kept(checks: &str) -> (Estate, String) {
    let estate = Estate::empty();
    estate.sources();
    estate.secret("held", HELD);
    let register = |id: &str| {
        let root = estate.path("").display().to_string();
        estate.configure(&format!(
            "{checks}\n[repositories.away]\nlocation = \"{root}away\"\npassword = \"file:{root}password\"\nsite = \"there\"\n\n\
             [repositories.away.keys.daily]\ncustody = \"online\"\nholder = \"operations\"\n\n\
             [repositories.away.keys.safe]\ncustody = \"escrow\"\nholder = \"head of finance\"\nplace = \"safe, room 2\"\n{id}\n"
        ));
    };
    register("");
    estate.run(&["init", "--missing-repositories"]).exits(0);
    let held = reference(&estate, "held");
    estate
        .run(&["keys", "add", "--repository", "away", "--name", "safe", "--password", &held])
        .exits(0)
        .says(&["next: write id", "seaworthy keys check safe"]);
    let added = sealed(&estate).pop().unwrap();
    let id = added["key"].as_str().unwrap().to_owned();
    // Again, as after a start that was cut off: neither a second key nor a second receipt.
    estate
        .run(&["keys", "add", "--repository", "away", "--name", "safe", "--password", &held])
        .exits(0)
        .says(&["is there already"]);
    assert_eq!((sealed(&estate).len(), key_files(&estate.path("away")).len()), (1, 2));
    assert_eq!(
        (&added["deed"], &added["name"], &added["holder"]),
        (&"added".into(), &"safe".into(), &"head of finance".into())
    );
    register(&format!("id = \"{}\"", &id[..16]));
    (estate, id)
}

fn reference(estate: &Estate, name: &str) -> String {
    format!("file:{}", estate.path(name).display())
}

#[test]
fn a_holder_shows_that_the_key_works_and_the_ledger_keeps_it() {
    let (estate, id) = kept("");
    estate.run(&["backup"]).exits(0);
    let list = estate.run(&["keys", "list", "--repository", "away"]).exits(4);
    let list = list.says(&[
        "safe (escrow)",
        "head of finance; safe, room 2",
        &id[..8],
        "KY-07",
        "has never shown",
        "KY-04",
    ]);
    assert!(!list.out.contains("KY-08") && !list.out.contains("KY-03"), "{list}");
    let held = reference(&estate, "held");
    let shown = estate.run(&["keys", "check", "safe", "--password", &held]).exits(0);
    let shown = shown.says(&["opens repository away", "head of finance holds a password that works"]);
    assert!(!shown.out.contains(HELD) && !shown.err.contains(HELD), "{shown}");
    let receipt = sealed(&estate).pop().unwrap();
    assert_eq!(
        (&receipt["deed"], &receipt["key"], &receipt["name"]),
        (&"checked".into(), &id.as_str().into(), &"safe".into())
    );
    assert!(receipt["read"].as_str().unwrap().starts_with("snapshot "), "{receipt}");
    assert_eq!(receipt["keys"].as_array().unwrap().len(), 2);
    let list = estate.run(&["keys", "list", "--repository", "away"]).exits(4).says(&["shown to open it"]);
    assert!(!list.out.contains("KY-07"), "{list}");

    // A wrong password, another key's password, and nobody to type one.
    estate.secret("wrong", "not it");
    let wrong = reference(&estate, "wrong");
    estate.run(&["keys", "check", "safe", "--password", &wrong]).exits(12).says(&["KY-01"]).hints();
    let receipt = sealed(&estate).pop().unwrap();
    assert_eq!(
        (&receipt["key"], &receipt["findings"][0]["code"]),
        (&serde_json::Value::Null, &"KY-01".into())
    );
    estate
        .run(&["keys", "list", "--repository", "away"])
        .exits(4)
        .says(&["KY-07", "when its holder last tried"]);
    let ours = reference(&estate, "password");
    estate.run(&["keys", "check", "safe", "--password", &ours]).exits(4).says(&[
        "KY-08",
        "the register says",
        "NOT what head of finance should hold",
    ]);
    estate.run(&["keys", "check", "safe"]).exits(2).says(&["nobody is here to type"]).hints();
    // What somebody holds apart does not become what this program uses.
    estate
        .run(&["keys", "rotate", "--repository", "away", "--password", &held])
        .exits(20)
        .says(&["head of finance holds in escrow"])
        .hints();
    estate.run(&["keys", "check", "stick"]).exits(2).hints();
    estate.run(&["verify"]).exits(0);
    estate
        .run(&["receipts"])
        .exits(0)
        .says(&["opens NOTHING in repository away", "was added to repository away"]);
    // Every repository, where none is named; and one that cannot be looked at is said.
    estate.run(&["keys", "list"]).exits(4).says(&["repository local", "repository away", "KY-03"]);
    std::fs::rename(estate.path("away"), estate.path("gone")).unwrap();
    estate.run(&["keys", "list"]).exits(10).says(&["NOT LOOKED AT", "repository local"]);
}

#[test]
fn a_rotation_leaves_a_key_that_works_whenever_it_stops() {
    let estate = Estate::new();
    estate.run(&["backup", "papers"]).exits(0);
    estate.secret("new", "a new password");
    let new = reference(&estate, "new");
    let data = estate.objects("data");
    let before = key_files(&estate.path("repository"));
    estate.run(&["keys", "rotate", "--password", &new, "--dry-run"]).exits(0).says(&["would add a key"]);
    assert_eq!(key_files(&estate.path("repository")), before);

    // The first step: both work. What a crash would leave is what it leaves.
    estate
        .run(&["keys", "rotate", "--password", &new])
        .exits(0)
        .says(&["which opens repository", "stays until"]);
    assert_eq!(key_files(&estate.path("repository")).len(), 2);
    estate.run(&["backup", "papers"]).exits(0);
    // Again, before anybody has changed the configuration: nothing is added, nothing is lost.
    estate.run(&["keys", "rotate", "--password", &new]).exits(0).says(&["stays until"]);
    assert_eq!(key_files(&estate.path("repository")).len(), 2);

    let path = estate.path("seaworthy.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("/password\"", "/new\"")).unwrap();
    estate.run(&["backup", "papers"]).exits(0);
    estate
        .run(&["keys", "rotate", "--password", &new])
        .exits(0)
        .says(&["removed the old key", "can still read"]);
    let after = key_files(&estate.path("repository"));
    assert!(after.len() == 1 && after != before, "{after:?}");
    estate.run(&["keys", "rotate", "--password", &new]).exits(0).says(&["is gone already"]);
    estate.run(&["backup", "papers"]).exits(0);
    estate.run(&["drill", "papers", "-q"]).exits(0);
    assert!(data.iter().all(|pack| pack.exists()), "no pack was rewritten");
    let deeds: Vec<String> =
        sealed(&estate).iter().map(|act| act["deed"].as_str().unwrap().to_owned()).collect();
    assert_eq!(deeds, ["added", "removed"]);

    // At once: this program is locked out until it is told the new password, and says so.
    estate.secret("newer", "a newer password");
    let newer = reference(&estate, "newer");
    estate.run(&["keys", "rotate", "--password", &newer, "--now"]).exits(0).says(&["NOTHING RUNS HERE"]);
    estate.run(&["backup", "papers"]).exits(12).hints();
    std::fs::write(&path, text.replace("/password\"", "/newer\"")).unwrap();
    estate.run(&["backup", "papers"]).exits(0);
    // A password that is in use already is no new one.
    estate.run(&["keys", "add", "--password", &newer]).exits(20).hints();
}

#[test]
fn what_custody_finds_in_files_is_found_in_files() {
    let (estate, _) = kept("");
    let has =
        |code: &str, place: &str| {
            let list = estate.run(&["keys", "list", "--json"]);
            let findings = list.json()["findings"].clone();
            findings.as_array().unwrap().iter().any(|one| {
                one["code"] == code && format!("{}{}", one["subject"], one["detail"]).contains(place)
            })
        };
    // The password of the estate lies on the disk of both repositories, and in neither of them.
    assert!(has("KY-04", "same disk") && !has("KY-04", "lies inside"));
    let path = estate.path("seaworthy.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    for place in ["repository/password", "files/password"] {
        estate.secret(place, CANARY);
        std::fs::write(
            &path,
            text.replace("/password\"\nsite = \"here\"", &format!("/{place}\"\nsite = \"here\"")),
        )
        .unwrap();
        assert!(
            has("KY-04", if place.starts_with("files") { "is copied with" } else { "lies inside" }),
            "{place}"
        );
    }
    std::fs::write(&path, &text).unwrap();
    // A password file, or a directory that leads to it, which others could read or exchange.
    std::fs::set_permissions(estate.path("password"), PermissionsExt::from_mode(0o644)).unwrap();
    estate.run(&["keys", "list"]).exits(20).says(&["KY-05"]).hints();
    std::fs::set_permissions(estate.path("password"), PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::set_permissions(estate.path(""), PermissionsExt::from_mode(0o733)).unwrap();
    estate.run(&["keys", "list"]).exits(20).says(&["KY-05", "others could exchange it"]);
    std::fs::set_permissions(estate.path(""), PermissionsExt::from_mode(0o711)).unwrap();
    estate.run(&["doctor"]).exits(0).says(&[
        "keys of away",
        "seaworthy keys list --repository away",
        "0 failed",
    ]);
}

fn restic() -> PathBuf {
    seaworthy_testkit::components::restics().unwrap().pop().unwrap()
}

/// The commands of a kit, as they stand there, do what it says: by a stock restic that knows nothing else.
#[test]
fn a_kit_is_enough_to_bring_everything_back() {
    let (estate, id) = kept("");
    estate.run(&["backup"]).exits(0);
    estate.run(&["drill", "--from", "away", "-q"]).exits(0);
    let restic = restic();
    let program = restic.to_str().unwrap();
    let write = |name: &str, more: &[&str]| {
        let mut call = vec!["kit", "--repository", "away", "--output", name, "--restic", program];
        call.extend(more);
        estate.run(&call)
    };
    write("kit.txt", &[]).exits(0).says(&["2 of 2 sources have a copy", "holds no password"]);
    let kit = std::fs::read_to_string(estate.path("kit.txt")).unwrap();
    assert_eq!(std::fs::metadata(estate.path("kit.txt")).unwrap().mode() & 0o777, 0o600);
    assert!(!kit.contains(HELD) && !kit.contains(CANARY), "{kit}");
    for words in [
        "safe, room 2",
        "head of finance",
        &id[..16],
        "proven A4 Equal",
        "500 rows",
        "BEGIN PUBLIC KEY",
        "SHA-256",
        "a drill took",
    ] {
        assert!(kit.contains(words), "`{words}` is missing in\n{kit}");
    }

    // On an empty machine: nothing but the page, the password and restic.
    let machine = tempfile::tempdir().unwrap();
    let run = |words: &[&str]| {
        let ran = std::process::Command::new(&restic)
            .args(words)
            .arg("--no-cache")
            .current_dir(machine.path())
            .env_clear()
            .env("HOME", machine.path())
            .env(
                "RESTIC_REPOSITORY",
                kit.lines().find_map(|line| line.trim().strip_prefix("export RESTIC_REPOSITORY=")).unwrap(),
            )
            .env("RESTIC_PASSWORD", HELD)
            .output()
            .unwrap();
        assert!(ran.status.success(), "{words:?}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap()
    };
    let config = run(&["cat", "config"]);
    let repository =
        serde_json::from_str::<serde_json::Value>(&config).unwrap()["id"].as_str().unwrap().to_owned();
    assert!(kit.contains(&repository));
    let mut restored = 0;
    for line in kit.lines().filter_map(|line| line.trim().strip_prefix("restic restore ")) {
        let mut words = vec!["restore"];
        words.extend(line.split_whitespace());
        run(&words);
        restored += 1;
    }
    assert_eq!(restored, 2);
    let root = estate.path("files");
    let back = machine.path().join(format!("restored/papers-files{}", root.display()));
    assert_eq!(
        std::fs::read(back.join("noise.bin")).unwrap(),
        std::fs::read(root.join("noise.bin")).unwrap()
    );
    let database = kit.lines().find_map(|line| line.trim().strip_prefix("sqlite3 ")).unwrap();
    let database = machine.path().join(database.split_whitespace().next().unwrap());
    let open = rusqlite::Connection::open(database).unwrap();
    assert_eq!(open.query_row("SELECT count(*) FROM sale", [], |row| row.get::<_, u32>(0)).unwrap(), 500);

    // The page says the same, with codes; nothing of it comes from elsewhere.
    write("kit.html", &[]).exits(0);
    let page = std::fs::read_to_string(estate.path("kit.html")).unwrap();
    assert!(
        page.matches("<svg").count() >= 2 && !page.contains("<script") && !page.contains("src="),
        "{page}"
    );
    assert!(!page.contains(HELD) && page.contains("restic restore"));
    write("kit.md", &[]).exits(0);
    // The same facts, the same words: but for the date.
    write("again.txt", &[]).exits(0);
    let again = std::fs::read_to_string(estate.path("again.txt")).unwrap();
    let undated =
        |text: &str| text.lines().filter(|line| !line.starts_with("Made ")).collect::<Vec<_>>().join("\n");
    assert_eq!(undated(&again), undated(&kit));

    // A password only where it was asked for, and only one that opens.
    let held = reference(&estate, "held");
    write("full.html", &["--with-password", &held]).exits(0).says(&["IT HOLDS A PASSWORD"]);
    let page = std::fs::read_to_string(estate.path("full.html")).unwrap();
    assert!(page.contains(HELD) && page.contains("THIS PAGE HOLDS A PASSWORD"));
    estate.secret("wrong", "not it");
    write("wrong.html", &["--with-password", &reference(&estate, "wrong")]).exits(12).hints();
    assert!(!estate.path("wrong.html").exists());
    // Never over a file, never into what it is for, never without saying how.
    write("kit.txt", &[]).exits(20).says(&["is there already"]).hints();
    write("away/kit.txt", &[]).exits(20).says(&["KY-04"]).hints();
    write("files/deep/kit.txt", &[]).exits(20).says(&["KY-04"]).hints();
    write("kit.pdf", &[]).exits(2).hints();
    estate.run(&["kit", "--output", "x.txt"]).exits(2).says(&["several repositories"]).hints();
}

const CHECKS: &str = "\n[[services.papers.sources.files.checks]]\nkind = \"command\"\nname = \"there\"\nargv = [\"/usr/bin/true\"]\n";

fn drilled(estate: &Estate, more: &[&str], code: i32) -> serde_json::Value {
    let restic = restic();
    let held = reference(estate, "held");
    let mut call = vec!["drill", "papers", "--independent", "--json"];
    if !more.contains(&"--password") {
        call.extend(["--password", held.as_str()]);
    }
    if !more.contains(&"--restic") {
        call.extend(["--restic", restic.to_str().unwrap()]);
    }
    call.extend(more);
    estate.run(&call).exits(code).json()["drill"].clone()
}

/// The level of a pass; empty for anything else.
fn level(drill: &serde_json::Value) -> String {
    drill["verdict"]["level"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_copy_that_comes_back_without_us_is_independent() {
    let (estate, id) = kept(CHECKS);
    estate.run(&["backup"]).exits(0);
    let drill = drilled(&estate, &[], 0);
    assert_eq!(level(&drill), "A6", "{drill:#}");
    let shown = &drill["independence"];
    assert_eq!(
        (&shown["key"], &shown["key_name"], &shown["custody"]),
        (&id.as_str().into(), &"safe".into(), &"escrow".into())
    );
    assert!(shown["absent"].as_array().unwrap().iter().all(|one| one["is_shown"] == true), "{shown:#}");
    assert!(drill["phases"].as_array().unwrap().iter().any(|phase| phase["name"] == "restic"));
    assert_eq!(drill["repository"]["name"], "away");
    estate.run(&["verify"]).exits(0);
    estate.run(&["drill", "show", drill["run"].as_str().unwrap()]).exits(0).says(&[
        "PASS A6",
        "without us by restic",
        "signing key",
    ]);
    // The escrow has been shown by it, and nothing of it is left behind.
    let list = estate.run(&["keys", "list", "--repository", "away"]).exits(4);
    assert!(!list.out.contains("KY-07"), "{list}");
    assert_eq!(
        std::fs::read_dir(estate.path("s"))
            .unwrap()
            .filter(|entry| { entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("sw-") })
            .count(),
        0
    );
    // A database too, without a question of ours: A5 at most, and it says why.
    let restic = restic();
    let held = reference(&estate, "held");
    let shop = estate
        .run(&["drill", "shop", "--independent", "--password", &held, "--restic", restic.to_str().unwrap()])
        .exits(0);
    shop.says(&["PASS A4", "not A6: you have no check of your own"]);
}

#[test]
fn what_is_less_than_independent_is_never_called_so() {
    let (estate, _) = kept(CHECKS);
    estate.run(&["backup"]).exits(0);
    // The key that this program itself uses.
    let ours = reference(&estate, "password");
    let drill = drilled(&estate, &["--password", &ours], 0);
    assert_eq!(level(&drill), "A5", "{drill:#}");
    // The copy at home, which is lost with the source.
    estate.run(&["keys", "add", "--repository", "local", "--password", &reference(&estate, "held")]).exits(0);
    let drill = drilled(&estate, &["--from", "local"], 0);
    assert_eq!(level(&drill), "A5", "{drill:#}");
    let told = estate.run(&["drill", "show", drill["run"].as_str().unwrap()]).exits(0);
    told.says(&["not A6: the copy lies at `here`", "not A6: the register names no holder"]);
    // A wrong password says nothing of the copy.
    estate.secret("wrong", "not it");
    let drill = drilled(&estate, &["--password", &reference(&estate, "wrong")], 7);
    assert!(drill.to_string().contains("KY-01"), "{drill:#}");
    estate.run(&["drill", "papers", "--password", "env:X"]).exits(2);
    estate.run(&["verify"]).exits(0);
}

/// Programs that say that all went well.
#[test]
fn a_restic_that_lies_is_not_believed_and_does_not_blame_the_copy() {
    let (estate, _) = kept(CHECKS);
    estate.run(&["backup"]).exits(0);
    let real = restic();
    let lying = |name: &str, script: &str| {
        let path = estate.path(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path.display().to_string()
    };
    let nothing = lying("nothing", "[ \"$1\" = version ] && echo 'restic 9.9.9'; exit 0");
    let drill = drilled(&estate, &["--restic", &nothing], 7);
    assert_eq!(level(&drill), "", "{drill:#}");
    estate.run(&["status", "papers"]).says(&["papers"]);
    let points = estate.run(&["points", "papers", "--json"]).exits(0).json();
    assert!(!points.to_string().contains("failed"), "the copy is not blamed: {points}");
    // One that opens the repository, hands out the witness, and then restores nothing, half, or something older.
    estate.run(&["backup", "papers"]).exits(0);
    let away = estate.path("away");
    let newest = drill["copy"].as_str().unwrap();
    for (name, restore) in [
        ("idle", "exit 0".to_owned()),
        ("half", "/usr/bin/restic \"$@\" --include /.seaworthy; exit 0".to_owned()),
        ("older", format!("shift 2; shift; exec /usr/bin/restic --no-cache restore {newest} \"$@\"")),
    ] {
        let script = format!(
            "case \"$2\" in version) exec /usr/bin/restic version;; restore) {restore};; esac\n[ \"$1\" = version ] && exec /usr/bin/restic version\nexec /usr/bin/restic \"$@\""
        );
        std::fs::write(estate.path("files/letter.txt"), name).unwrap();
        estate.run(&["backup", "papers"]).exits(0);
        let drill = drilled(&estate, &["--restic", &lying(name, &script)], 7);
        assert_eq!(level(&drill), "", "{name}: {drill:#}");
        assert!(
            drill["findings"].to_string().contains("it is the program, not the copy"),
            "{name}: {drill:#}"
        );
        let points = estate.run(&["points", "papers", "--json"]).exits(0).json();
        assert!(!points.to_string().contains("failed"), "{name} blames the copy: {points}");
    }
    assert!(away.exists());
    // Not a restic at all.
    let other = lying("other", "echo hello");
    estate
        .run(&[
            "drill",
            "papers",
            "--independent",
            "--password",
            &reference(&estate, "held"),
            "--restic",
            &other,
        ])
        .exits(2)
        .says(&["does not say that it is restic"]);
    assert!(real.exists());
}

/// A restore that a question of the user's finds unusable is that whoever has brought it back.
#[test]
fn what_a_users_check_fails_is_not_blamed_on_the_program() {
    let (estate, _) = kept(&CHECKS.replace("/usr/bin/true", "/usr/bin/false"));
    estate.run(&["backup", "papers"]).exits(0);
    let drill = drilled(&estate, &[], 5);
    assert!(drill.to_string().contains("CT-21"), "{drill:#}");
    assert!(!drill["findings"].to_string().contains("it is the program"), "{drill:#}");
    assert!(estate.run(&["points", "papers", "--json"]).out.contains("failed"));
}

#[test]
fn a_damaged_copy_fails_without_us_too() {
    let (estate, _) = kept(CHECKS);
    estate.run(&["backup", "papers"]).exits(0);
    let mut packs = Vec::new();
    let mut todo = vec![estate.path("away/data")];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            packs.push(path);
        }
    }
    let largest = packs.into_iter().max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap();
    flip(&largest);
    let restic = restic();
    let held = reference(&estate, "held");
    let ran = estate.run(&[
        "drill",
        "papers",
        "--independent",
        "--password",
        &held,
        "--restic",
        restic.to_str().unwrap(),
    ]);
    assert!(matches!(ran.code, 5 | 7), "{ran}");
    assert!(!ran.out.contains("PASS"), "{ran}");
    estate.run(&["drill", "papers", "--from", "away"]).exits(5);
}
