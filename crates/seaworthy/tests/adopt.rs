//! Copies of other tools as their new user meets them: look at a directory, adopt it, drill it, and see what is wrong.

#![expect(clippy::unwrap_used, reason = "helpers of tests: what cannot be unwrapped is a failed test")]

#[expect(dead_code, reason = "shared with the other tests of the face")]
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use seaworthy_testkit::postgres::{Server, shop};
use support::Estate;

/// A server with a shop, and a directory of dumps of it beside an estate.
struct Adopting {
    estate: Estate,
    server: Server,
    days: Vec<String>,
}

impl Adopting {
    fn new() -> Self {
        let server = Server::start(&[]).unwrap();
        server.create("shop", &[]).unwrap();
        server.sql("shop", &shop(20)).unwrap();
        let estate = Estate::empty();
        std::fs::create_dir(estate.path("dumps")).unwrap();
        let now = jiff::Timestamp::now();
        let days = (0..4_i64).rev().map(|back| {
            let day = now - jiff::SignedDuration::from_hours(24 * back);
            day.strftime("%Y%m%d").to_string()
        });
        let days = days.collect();
        let adopting = Self { estate, server, days };
        adopting.configure("");
        adopting
    }

    fn configure(&self, more: &str) {
        if !self.estate.path("state").exists() {
            use std::os::unix::fs::DirBuilderExt as _;
            std::fs::DirBuilder::new().mode(0o700).create(self.estate.path("state")).unwrap();
        }
        let text = format!(
            "[services.shop]\nowner = \"tests\"\nrpo = \"not-applicable\"\n\
             rationale = \"sample data\"\n\n[services.shop.adopted.nightly]\nkind = \"pg_dump\"\n\
             location = \"{}\"\npattern = \"shop_{{year}}{{month}}{{day}}*\"\nzone = \"UTC\"\n{more}",
            self.estate.path("dumps").display()
        );
        std::fs::write(self.estate.path("seaworthy.toml"), text).unwrap();
    }

    /// A dump of today's shop under the name of a day that was so many days ago.
    fn dump(&self, back: usize, end: &str, options: &[&str]) -> PathBuf {
        let name = format!("shop_{}{end}", self.days[self.days.len() - 1 - back]);
        let made = self.server.path().join(&name);
        let file = format!("--file={}", made.display());
        let mut all = options.to_vec();
        all.extend([file.as_str(), "shop"]);
        self.server.run("pg_dump", &all, "").unwrap();
        let path = self.estate.path("dumps").join(name);
        std::fs::copy(made, &path).unwrap();
        path
    }

    fn with_digest(path: &Path) {
        let said = Command::new("sha256sum").arg(path).output().unwrap();
        let text = String::from_utf8(said.stdout).unwrap();
        std::fs::write(format!("{}.sha256", path.display()), text).unwrap();
    }
}

#[test]
fn a_directory_of_dumps_is_recognised_adopted_and_drilled() {
    let adopting = Adopting::new();
    let estate = &adopting.estate;
    for back in [2, 1, 0] {
        Adopting::with_digest(&adopting.dump(back, ".sql", &[]));
    }
    std::fs::write(estate.path("dumps/notes.txt"), "hello").unwrap();
    let seen = estate.run(&["adopt", "dumps"]).exits(0);
    let seen = seen.says(&[
        "3 copies in 1 set, 1 not recognised",
        "shop_{year}{month}{day}.sql",
        "3 of 3",
        "pg_dump, SQL",
        "[services.SERVICE.adopted.shop]",
        "sidecar = \"required\"",
    ]);
    let json = estate.run(&["adopt", "dumps", "--json"]).exits(0).json();
    assert_eq!(
        (json["data"][0]["copies"].as_u64(), json["data"][0]["set"].as_str()),
        (Some(3), Some("shop")),
        "{seen}"
    );

    estate.run(&["adopt", "dumps", "--write"]).exits(2);
    let dry = estate.run(&["adopt", "dumps", "--service", "shop", "--write", "--dry-run"]).exits(0);
    dry.says(&["would add"]);
    estate
        .run(&["adopt", "dumps", "--service", "shop", "--write"])
        .exits(0)
        .says(&["added 1 set", "seaworthy drill shop"]);
    estate.run(&["config", "check"]).exits(0);
    let shown = estate.run(&["config", "show"]).exits(0);
    assert!(shown.out.contains("[services.shop.adopted.shop]"), "{shown}");
    estate.run(&["adopt"]).exits(0).says(&["shop/nightly", "shop/shop"]);
    estate.run(&["adopt", "nowhere"]).exits(10).hints();

    estate.run(&["drill", "shop", "--dry-run"]).exits(0).says(&["would drill shop/shop"]);
    estate.run(&["drill", "--adopted", "other"]).exits(2).hints();
    // Nothing could notice a damage where there is no witness, and that is no pass.
    let doubted = estate.run(&["drill", "--prove-the-drill=2"]).exits(7).hints();
    doubted.says(&["left out shop/shop", "EV-01", "adopted copies only"]);
    let drilled = estate.run(&["drill", "--adopted", "shop", "--report", "reports"]).exits(0).says(&[
        "PASS A3 Restored",
        "CT-18",
        "control",
        "caught",
        "sidecar",
        "the transfer was whole, no more",
    ]);
    assert!(drilled.out.contains("rows of"), "{drilled}");
    estate.run(&["points", "shop"]).exits(0).says(&["shop/shop", "A3 Restored"]);
    estate.run(&["verify"]).exits(0);
    let status = estate.run(&["status"]);
    assert_ne!(status.code, 0, "A3 is no READY, and one set was never drilled: {status}");
    let again = estate.run(&["drill", "--adopted", "shop", "--json"]).exits(0).json();
    assert_eq!(again["drill"]["verdict"]["level"], "A3");
    assert_eq!(again["drill"]["control"]["caught"], true);
}

#[test]
fn what_is_wrong_with_a_copy_fails_its_drill() {
    let adopting = Adopting::new();
    let estate = &adopting.estate;
    estate.run(&["drill"]).exits(10).hints().says(&["TM-03"]);
    // Another day's dump under today's name: it restores well, and is not what it says.
    let old = adopting.dump(0, ".dump", &["-Fc"]);
    let mut bytes = std::fs::read(&old).unwrap();
    // The month of the archive's date: signature 5, version 3, sizes and format 3, compression 5 (or 1), four numbers of 5.
    let month = if bytes[6] >= 15 { 11 + 1 + 20 } else { 11 + 5 + 20 };
    bytes[month + 1] = (bytes[month + 1] + 11) % 12;
    std::fs::write(&old, &bytes).unwrap();
    let failed = estate.run(&["drill", "--adopted", "nightly"]).exits(5);
    failed.says(&["FAIL", "RP-06", "the dump itself was begun"]);
    std::fs::remove_file(&old).unwrap();

    let good = adopting.dump(0, ".dump", &["-Fc"]);
    Adopting::with_digest(&good);
    estate.run(&["drill", "-q"]).exits(0);
    // One byte of the copy is another: only the digest beside it can say so in any case.
    let mut bytes = std::fs::read(&good).unwrap();
    let last = bytes.len() - 40;
    bytes[last] ^= 1;
    std::fs::write(&good, &bytes).unwrap();
    estate.run(&["drill"]).exits(5).says(&["FAIL", "RP-01", "sidecar"]);
    std::fs::remove_file(format!("{}.sha256", good.display())).unwrap();
    adopting.configure("sidecar = \"required\"\n");
    estate.run(&["adopt"]).exits(4).says(&["AD-03"]);
    std::fs::remove_file(&good).unwrap();

    // A copy of the day before yesterday is restored, and is too old.
    adopting.configure("stale_after = \"26h\"\n");
    adopting.dump(2, ".dump", &["-Fp"]);
    std::fs::remove_dir_all(estate.path("dumps")).unwrap();
    std::fs::create_dir(estate.path("dumps")).unwrap();
    let sql = adopting.dump(2, ".sql", &[]);
    let two_days_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 86_400);
    std::fs::File::options().append(true).open(&sql).unwrap().set_modified(two_days_ago).unwrap();
    estate.run(&["adopt"]).exits(4).says(&["TM-03"]);
    estate.run(&["drill"]).exits(6).says(&["PASS A3", "TM-03"]);
    // A copy that shrank.
    for back in [3, 2, 1] {
        adopting.dump(back, ".sql", &[]);
    }
    adopting.dump(0, ".sql", &["-s"]);
    estate.run(&["adopt"]).exits(4).says(&["AD-04"]);
    estate.run(&["drill"]).exits(5).says(&["RP-11", "AD-04"]);
}

#[test]
fn an_adoption_that_cannot_be_read_is_refused_with_every_problem() {
    let adopting = Adopting::new();
    let text = std::fs::read_to_string(adopting.estate.path("seaworthy.toml")).unwrap();
    let text = text.replace("zone = \"UTC\"\n", "").replace("\"pg_dump\"", "\"pg_dumb\"");
    std::fs::write(adopting.estate.path("seaworthy.toml"), format!("{text}decrypt = \"hunter2\"\n")).unwrap();
    adopting.estate.run(&["config", "check"]).exits(2).says(&[
        "without the zone",
        "did you mean \"pg_dump\"",
        "decrypt",
    ]);
}
