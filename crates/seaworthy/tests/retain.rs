//! Copies are let go: marked, a day later removed, and only while something newer is there. The clock is moved ahead by
//! libfaketime, so that days pass in seconds; every run of one estate has a later clock than the one before.

#![expect(clippy::unwrap_used, reason = "helpers of tests: what cannot be unwrapped is a failed test")]

#[expect(dead_code, reason = "what other tests of the face use")]
mod support;

use support::{CANARY, Estate, Run, finish};

/// An estate of which only the papers are asked about.
struct Ship {
    estate: Estate,
    hours: u32,
}

impl Ship {
    fn new(policy: &str) -> Self {
        let estate = Estate::new();
        let ship = Self { estate, hours: 0 };
        ship.policy(policy);
        ship
    }

    fn policy(&self, policy: &str) {
        let path = self.estate.path("seaworthy.toml");
        let is_ours = |line: &&str| !line.starts_with("retention") && *line != "[services.papers]";
        let text = std::fs::read_to_string(&path).unwrap();
        let told = text.lines().filter(is_ours).collect::<Vec<_>>().join("\n");
        let source = "[services.papers.sources.files]";
        let changed = told.replace(source, &format!("[services.papers]\nretention = {policy}\n{source}"));
        std::fs::write(path, changed).unwrap();
    }

    /// Lets hours pass.
    fn later(&mut self, hours: u32) {
        self.hours += hours;
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Run {
        let mut command = self.estate.command(arguments);
        if self.hours > 0 {
            let library = seaworthy_testkit::components::libfaketime().unwrap();
            command
                .env("LD_PRELOAD", library)
                .env("FAKETIME", format!("+{}h", self.hours))
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        let child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn();
        finish(child.unwrap(), format!("{} (+{} h)", arguments.join(" "), self.hours))
    }

    /// A backup of something that no backup before has stored.
    fn backup(&self) {
        let number = self.estate.objects("snapshots").len();
        let fresh = self.estate.path("files").join(format!("fresh-{number}-{}.bin", self.hours));
        let bytes = support::noise(40_000 + number * 1_000);
        std::fs::write(fresh, bytes).unwrap();
        self.run(&["backup", "papers", "-q"]).exits(0);
    }

    fn snapshots(&self) -> usize {
        self.estate.objects("snapshots").len()
    }

    /// Ids of the copies that are there, newest first.
    fn copies(&self) -> Vec<String> {
        let points = self.run(&["points", "papers", "--json"]).exits(0).json();
        let mut rows: Vec<_> = points["data"].as_array().unwrap().clone();
        rows.retain(|row| row["standing"].as_object().is_none_or(|standing| !standing.contains_key("gone")));
        rows.sort_by_key(|row| std::cmp::Reverse(row["sequence"].as_u64().unwrap()));
        rows.iter().map(|row| row["copy"].as_str().unwrap().to_owned()).collect()
    }

    fn restic(&self, arguments: &[&str]) {
        let program = std::env::var_os("SEAWORTHY_TEST_RESTIC").unwrap_or_else(|| "restic".into());
        let done = std::process::Command::new(program)
            .args(["--no-cache", "-r"])
            .arg(self.estate.path("repository"))
            .args(arguments)
            .env("RESTIC_PASSWORD", CANARY)
            .output()
            .unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

#[test]
fn a_copy_is_marked_and_a_day_later_it_goes_and_then_its_space() {
    let mut ship = Ship::new("{ last = 1 }");
    for _ in 0..6 {
        ship.backup();
    }
    // Looking changes nothing.
    ship.run(&["retain", "papers"]).exits(0).says(&["may go", "not marked yet", "nothing was changed"]);
    let first = ship.run(&["retain", "papers", "--apply"]).exits(0);
    let first = first.says(&["1 marked", "0 removed", "goes at the earliest", "for their turn", "--approve"]);
    assert!(first.out.contains("R4"), "{first}");
    ship.later(23);
    ship.run(&["retain", "papers", "--apply"]).exits(0).says(&["0 marked", "1 waiting", "0 removed"]);
    assert_eq!(ship.snapshots(), 6);
    let oldest = ship.copies().pop().unwrap();
    ship.later(2);
    let gone = ship.run(&["retain", "papers", "--apply"]).exits(0);
    gone.says(&["1 removed", "seaworthy prune local"]);
    assert_eq!(ship.snapshots(), 5);
    assert!(!ship.copies().contains(&oldest));
    ship.run(&["receipts"]).exits(0).says(&["retain ", "1 to be removed", "is no longer in local"]);
    ship.run(&["verify"]).exits(0);
    ship.run(&["check", "--read-data"]).exits(0);
    ship.restic(&["check", "--read-data"]);
    // All at once, after somebody has said so. The newest is read back first: it must be as proven as those that go.
    ship.backup();
    ship.run(&["check", "--read-data"]).exits(0);
    let plan = ship.run(&["retain", "papers", "--json"]).exits(0).json();
    let digest = plan["digest"].as_str().unwrap().trim_start_matches("sha256:")[..12].to_owned();
    ship.run(&["retain", "papers", "--approve", "ffffffffffff", "--reason", "x"]).exits(10).hints();
    ship.run(&["retain", "papers", "--approve", &digest]).exits(2);
    ship.run(&["retain", "papers", "--approve", &digest, "--reason", "moved to another scheme"])
        .exits(0)
        .says(&["approved", "need not wait"]);
    ship.run(&["retain", "papers", "--apply"]).exits(0).says(&["5 marked"]);
    ship.later(25);
    ship.run(&["retain", "papers", "--apply"]).exits(0).says(&["5 removed"]);
    assert_eq!((ship.snapshots(), ship.copies().len()), (1, 1));
    let before = size(&ship);
    ship.run(&["prune", "--dry-run"]).exits(0).says(&["would be removed a day later"]);
    assert_eq!(size(&ship), before);
    ship.run(&["prune"]).exits(0).says(&["out of the index", "receipt"]);
    ship.restic(&["check", "--read-data"]);
    // The files themselves are dated by a clock that nobody has moved, so that the newest of them looks two days old.
    ship.backup();
    ship.run(&["drill", "papers"]).exits(6).says(&["PASS A4", "MISSED"]);
    // The age of what is out of the index is told by the store's clock, which libfaketime does not move.
    ship.run(&["verify"]).exits(0);
}

fn size(ship: &Ship) -> u64 {
    ship.estate.objects("data").iter().map(|path| path.metadata().unwrap().len()).sum()
}

#[test]
fn what_is_held_stays_until_it_is_released() {
    let mut ship = Ship::new("{ last = 1 }");
    for _ in 0..3 {
        ship.backup();
    }
    let oldest = ship.copies().pop().unwrap();
    ship.run(&["hold", "list"]).exits(0).says(&["nothing is held"]);
    ship.run(&["retain", "papers", "--apply"]).exits(0).says(&["1 marked"]);
    ship.run(&["hold", "add", "papers", "--point", &oldest[..12], "--reason", " "]).exits(2).hints();
    ship.run(&["hold", "add", "papers", "--point", "latest", "--reason", "case 7"]).exits(2).hints();
    ship.run(&["hold", "add", "papers", "--point", "0123456789", "--reason", "case 7"]).exits(10).hints();
    ship.run(&["hold", "add", "papers", "--until", "2020-01-01T00:00:00Z", "--reason", "case 7"]).exits(2);
    let held = ship.run(&["hold", "add", "papers", "--point", &oldest[..12], "--reason", "case 7"]).exits(0);
    held.says(&["is held; hold "]);
    let listed = ship.run(&["hold", "list", "--json"]).exits(0).json();
    let number = listed["data"][0]["hold"].as_u64().unwrap().to_string();
    ship.run(&["hold", "list"]).exits(0).says(&[&number, "papers", "case 7", "until it is released"]);
    ship.later(25);
    // It was marked before it was held: the mark is taken away, and another one is marked.
    ship.run(&["retain", "papers", "--all"]).exits(0).says(&["held: case 7"]);
    ship.run(&["retain", "papers", "--apply"]).exits(0).says(&["1 marked", "1 unmarked", "0 removed"]);
    ship.run(&["hold", "release", "99999", "--reason", "over"]).exits(10).hints();
    ship.run(&["hold", "release", &number, "--reason", "case 7 is over"]).exits(0).says(&["has ended"]);
    ship.run(&["hold", "release", &number, "--reason", "again"]).exits(10);
    ship.run(&["hold", "list"]).exits(0).says(&["nothing is held"]);
    ship.backup();
    ship.later(25);
    ship.run(&["retain", "papers", "--apply"]).exits(0).says(&["1 removed"]);
    assert!(ship.copies().contains(&oldest), "the one that was marked later has gone");
    ship.run(&["verify"]).exits(0);
}

#[test]
fn nothing_goes_for_a_newer_copy_that_is_not_all_there() {
    let mut ship = Ship::new("{ last = 1 }");
    ship.backup();
    let before = ship.estate.objects("data");
    ship.backup();
    ship.run(&["retain", "papers", "--apply"]).exits(0).says(&["1 marked"]);
    let of_newest = ship.estate.objects("data").into_iter().find(|pack| !before.contains(pack)).unwrap();
    let away = ship.estate.path("away.pack");
    std::fs::rename(&of_newest, &away).unwrap();
    ship.later(25);
    let refused = ship.run(&["retain", "papers", "--apply"]).exits(4);
    refused.says(&["NOTHING GOES", "RT-03", "is missing", "check --read-data"]);
    assert_eq!(ship.snapshots(), 2);
    // Too short is not there either.
    let bytes = std::fs::read(&away).unwrap();
    std::fs::write(&of_newest, &bytes[..bytes.len() / 2]).unwrap();
    ship.run(&["retain", "papers", "--apply"]).exits(4).says(&["RT-03"]);
    assert_eq!(ship.snapshots(), 2);
    std::fs::remove_file(&of_newest).unwrap();
    std::fs::rename(&away, &of_newest).unwrap();
    ship.run(&["retain", "papers", "--apply"]).exits(0).says(&["1 removed"]);
}

#[test]
fn a_policy_that_keeps_less_begins_three_days_later() {
    let mut ship = Ship::new("{ last = 9 }");
    for _ in 0..3 {
        ship.backup();
    }
    ship.run(&["retain", "papers", "--apply"]).exits(0).says(&["3 copies kept", "0 marked"]);
    ship.policy("{ last = 1 }");
    ship.run(&["retain", "papers", "--apply"]).exits(0).says(&["0 marked", "stays by R11"]);
    ship.later(47);
    ship.run(&["retain", "papers", "--apply"]).exits(0).says(&["0 marked", "stays by R11"]);
    ship.backup();
    ship.later(26);
    ship.run(&["retain", "papers", "--apply"]).exits(0).says(&["1 marked"]);
}

#[test]
fn what_is_in_doubt_lets_nothing_go() {
    let mut ship = Ship::new("{ last = 1 }");
    for _ in 0..3 {
        ship.backup();
    }
    ship.run(&["retain", "papers", "--apply"]).exits(0).says(&["1 marked"]);
    ship.later(25);
    // Somebody else has removed a copy.
    let newest = ship.copies().remove(0);
    let file = ship.estate.path("repository/snapshots").join(&newest);
    let away = ship.estate.path("away.snapshot");
    std::fs::rename(&file, &away).unwrap();
    ship.run(&["retain", "papers", "--apply"]).exits(4).says(&["RT-01", "R5", "was not listed", "0 removed"]);
    assert_eq!(ship.snapshots(), 2);
    ship.run(&["prune"]).exits(20).hints().says(&["that should be in repository", "is not listed"]);
    std::fs::rename(&away, &file).unwrap();
    // The source has not been backed up for too long.
    ship.later(30);
    ship.run(&["retain", "papers", "--apply"]).exits(4).says(&["RT-01", "R2", "too long ago"]);
    ship.backup();
    assert_eq!(ship.snapshots(), 4);
    // The catalogue says that somebody has proven a copy, and no receipt does.
    let database = ship.estate.path("state/catalogue.sqlite");
    let connection = rusqlite::Connection::open(&database).unwrap();
    connection.execute_batch("DROP TRIGGER receipt_is_never_changed").unwrap();
    let changed = connection
        .execute("UPDATE receipt SET line = replace(line, 'payload', 'payLoad') WHERE sequence = 4", []);
    assert_eq!(changed.unwrap(), 1);
    drop(connection);
    ship.run(&["retain", "papers", "--apply"]).exits(20).hints().says(&["does not verify"]);
    ship.run(&["prune"]).exits(20).hints();
    assert_eq!(ship.snapshots(), 4);
}

#[test]
fn a_repository_keeps_what_it_is_told_and_what_is_kept_for_ever_it_keeps_too() {
    let ship = Ship::new("{ last = 9 }");
    let path = ship.estate.path("seaworthy.toml");
    let told = std::fs::read_to_string(&path).unwrap();
    let here = told.replace("site = \"here\"", "site = \"here\"\nretention = { last = 1 }");
    std::fs::write(&path, here).unwrap();
    for _ in 0..3 {
        ship.backup();
    }
    ship.run(&["retain", "papers"]).exits(0).says(&["may go"]);
    ship.policy("{ forever = true }");
    let told = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, told.replace("site = \"here\"", "site = \"here\"\nretention = { last = 1 }"))
        .unwrap();
    ship.run(&["retain", "papers"]).exits(0).says(&["3 copies kept, 0 may go"]);
}
