//! Replication to real emulators over lines that fail: throttled, reset, answers lost and cut short, and the program killed.
//! Nothing is lost, and nothing is called replicated that is not.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use seaworthy_testkit::emulator::{Emulator, Kind};
use seaworthy_testkit::gateway::{Gateway, Hurt};
use seaworthy_testkit::product::{Product, Ran, run};
use serde_json::Value;

/// One request in so many is hurt.
const EVERY: u32 = 7;

struct Estate<'a> {
    product: Product,
    environment: [(&'static str, &'static str); 2],
    lines: [&'a Gateway; 2],
}

impl Estate<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.product.command(arguments);
        command.envs(self.environment);
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        run(self.command(arguments)).unwrap()
    }

    fn done(&self, arguments: &[&str]) -> String {
        self.run(arguments).expect(0).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.product.path().join("files").join(name), text).unwrap();
    }

    fn hurts(&self, every: u32) {
        for line in self.lines {
            line.hurts(every);
        }
    }

    fn asked(&self) -> u64 {
        self.lines.iter().map(|line| line.asked()).sum()
    }

    /// Runs a verb over lines that fail until it ends well; what it says on the way must be an error with a known code.
    fn insists(&self, arguments: &[&str]) {
        for _ in 0..8 {
            let ran = self.run(arguments);
            if ran.code == Some(0) {
                return;
            }
            // Out of reach, or a lock that could not be told from somebody else's.
            assert!(
                matches!(ran.code, Some(1 | 7 | 10 | 11)),
                "{arguments:?}: {:?} {} {}",
                ran.code,
                ran.stdout,
                ran.stderr
            );
        }
        panic!("{arguments:?} has not ended well in eight runs");
    }

    /// Kills a verb after so many more requests.
    fn killed(&self, arguments: &[&str], after: u64) -> bool {
        let until = self.asked() + after;
        let mut child = self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while self.asked() < until && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        let was_running = child.try_wait().unwrap().is_none();
        child.kill().ok();
        child.wait().unwrap();
        was_running
    }

    /// Every copy that a receipt of a replication names is there, and is what was backed up.
    fn nothing_false_was_claimed(&self, repository: &str) -> usize {
        let points = self.done(&["points", "--json"]);
        let points: Value = serde_json::from_str(points.lines().last().unwrap()).unwrap();
        let copies: Vec<&str> = points["data"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|point| point["repository"]["name"] == repository)
            .map(|point| point["copy"].as_str().unwrap())
            .collect();
        for copy in &copies {
            self.done(&["drill", "docs", "--from", repository, "--point", copy]);
        }
        copies.len()
    }
}

fn is_equal(one: &Path, other: &Path) {
    let found = Command::new("diff").arg("-r").arg(one).arg(other).output().unwrap();
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stdout));
}

#[test]
fn lines_that_fail_cost_time_and_nothing_else() {
    let localstack = Emulator::start(Kind::LocalStack, "first").unwrap();
    let azurite = Emulator::start(Kind::Azurite, "first").unwrap();
    let lines = [Gateway::start(localstack.port()).unwrap(), Gateway::start(azurite.port()).unwrap()];
    // Each once as the one that is lost.
    for (round, bucket) in ["first", "second"].into_iter().enumerate() {
        if round > 0 {
            localstack.make(bucket).unwrap();
            azurite.make(bucket).unwrap();
        }
        let estate = Estate {
            product: Product::new(env!("CARGO_BIN_EXE_seaworthy"), "").unwrap(),
            environment: [localstack.environment(), ("AZURE_KEY", azurite.environment().1)],
            lines: [&lines[0], &lines[1]],
        };
        let path = estate.product.path().display().to_string();
        let password = format!("password = \"file:{path}/password\"\ntimeout = \"5s\"\n");
        let mut tables = [
            format!(
                "site = \"s3\"\nlocation = \"{}/ships\"\n{}",
                localstack.location(bucket),
                localstack.configuration_at(&lines[0].endpoint())
            ),
            format!(
                "site = \"azure\"\nlocation = \"{}/ships\"\n{}",
                azurite.location(bucket),
                azurite.configuration_at(&lines[1].endpoint()).replace("EMULATOR_KEY", "AZURE_KEY")
            ),
        ];
        tables.rotate_left(round);
        let [original, replica] = &tables;
        let text = format!(
            "[defaults]\nowner = \"crew\"\ntier = \"low\"\n\n[repositories.original]\n{password}{original}\n\
             [repositories.replica]\n{password}{replica}\n[services.docs]\nrepositories = [\"original\", \"replica\"]\n\
             [services.docs.sources.files]\nkind = \"files\"\npaths = [\"{path}/files\"]\n"
        );
        fs::write(estate.product.path().join("seaworthy.toml"), text).unwrap();
        fs::create_dir(estate.product.path().join("files")).unwrap();
        for n in 0..12_u32 {
            estate.write(
                &format!("file-{n}"),
                &format!("{n} of {bucket} ").repeat(400 * usize::try_from(n).unwrap()),
            );
        }
        estate.done(&["init", "--missing-repositories"]);
        estate.hurts(EVERY);
        estate.insists(&["backup"]);
        let mut kills = 0;
        for after in [2, 12, 25] {
            estate.write("file-3", &format!("before kill {after}"));
            estate.insists(&["backup", "--no-replicate"]);
            kills += usize::from(estate.killed(&["replicate"], after));
        }
        assert!(kills >= 2, "only {kills} runs were killed");
        estate.insists(&["replicate"]);
        estate.hurts(0);
        estate.done(&["replicate"]);
        assert!(estate.nothing_false_was_claimed("replica") >= 4);
        estate.done(&["check", "replica", "--read-data"]);
        if round == 0 {
            localstack.remove(bucket).unwrap();
        } else {
            azurite.remove(bucket).unwrap();
        }
        assert_ne!(estate.run(&["drill", "--from", "original"]).code, Some(0), "it is gone");
        estate.hurts(EVERY);
        let to = estate.product.path().join("back");
        // A restore that was cut off leaves what it has written, and goes to a new place only.
        let restored = (0..8).any(|_| {
            if to.exists() {
                fs::remove_dir_all(&to).unwrap();
            }
            estate.run(&["restore", "docs", "--from", "replica", "--to", to.to_str().unwrap()]).code
                == Some(0)
        });
        assert!(restored, "no restore has ended well");
        estate.hurts(0);
        is_equal(&estate.product.path().join("files"), &to);
        estate.done(&["verify"]);
    }
    let hurt: Vec<Hurt> = lines.iter().flat_map(Gateway::hurt).collect();
    for kind in [Hurt::Throttled, Hurt::Reset, Hurt::AnswerLost, Hurt::Truncated, Hurt::Broken] {
        assert!(hurt.iter().filter(|one| **one == kind).count() >= 5, "{kind:?}: {hurt:?}");
    }
}
