//! Killed at any moment, the product leaves the old or the new state, and the next run goes on without a human: what was
//! acknowledged restores, the ledger verifies, nothing is left running, locked or lying about.
//!
//! `SEAWORTHY_KILLS` says how often each act is killed at a random moment; `SEAWORTHY_SEED` which moments those are.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use seaworthy_testkit::components::{program, restics};
use seaworthy_testkit::estate::{self, Dice};
use seaworthy_testkit::postgres::{Server, shop};
use seaworthy_testkit::product::{Product, run, wait};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_seaworthy");

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// After so many trials an estate is judged to its end and a new one begun: what a judge does after each grows with all before.
const TRIALS: u64 = 50;

/// A small estate and the product that backs it up.
struct Estate {
    product: Product,
    server: Option<Server>,
    /// Trials so far: each leaves something new to back up.
    changes: u64,
}

impl Estate {
    fn new(with_postgres: bool) -> Self {
        let product = Product::new(PROGRAM, "").unwrap();
        let (files, database) = (product.path().join("files"), product.path().join("live.sqlite"));
        fs::create_dir(&files).unwrap();
        estate::mixed_tree(&files, 60, 3 << 20, 5).unwrap();
        estate::sqlite::shop(&database, estate::sqlite::Journal::Wal, 2_000, 7).unwrap();
        let mut services = format!(
            "[services.files]\nretention = {{ last = 1 }}\n\n[services.files.sources.tree]\nkind = \"files\"\npaths = [\"{}\"]\n\n\
             [services.bookings.sources.database]\nkind = \"sqlite\"\npath = \"{}\"\n\n",
            files.display(),
            database.display()
        );
        let server = with_postgres.then(|| {
            let server = Server::start(&[]).unwrap();
            server.create("shop", &[]).unwrap();
            server.sql("shop", &shop(300)).unwrap();
            server.sql("shop", "UPDATE orders SET placed = now() WHERE id = 1").unwrap();
            services.push_str(&format!(
                "[services.shop.sources.database]\nkind = \"postgres\"\nhost = \"{}\"\nport = {}\nuser = \"postgres\"\ndatabase = \"shop\"\n",
                server.host(),
                server.port()
            ));
            server
        });
        product.configure(&services).unwrap();
        Self { product, server, changes: 0 }
    }

    /// Another one, now and then: the one before has been judged to its end.
    fn renewed(self, trial: u64) -> Self {
        if trial == 0 || !trial.is_multiple_of(TRIALS) {
            return self;
        }
        self.every_acknowledged_copy_restores();
        let other = Self::new(self.server.is_some());
        other.product.run(&["backup"]).unwrap().expect(0).unwrap();
        Self { changes: self.changes, ..other }
    }

    /// Makes something that only the next backup will hold.
    fn change(&mut self) {
        self.changes += 1;
        let number = self.changes;
        let mut bytes = vec![0; 200_000];
        Dice::new(number).fill(&mut bytes);
        fs::write(self.product.path().join(format!("files/new-{}", number % 5)), bytes).unwrap();
        let connection = rusqlite::Connection::open(self.product.path().join("live.sqlite")).unwrap();
        connection
            .execute("INSERT INTO audit VALUES (?1, randomblob(50000))", [number.cast_signed()])
            .unwrap();
        if let Some(server) = &self.server {
            server
                .sql(
                    "shop",
                    &format!(
                        "UPDATE orders SET note = repeat(md5('{number}'), 50) WHERE id % 7 = {number} % 7"
                    ),
                )
                .unwrap();
        }
    }

    /// Runs a verb and kills it after a while; whether it had not ended before.
    fn kill_after(&self, arguments: &[&str], delay: Duration) -> bool {
        let mut command = self.product.command(arguments);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let began = Instant::now();
        while began.elapsed() < delay {
            std::thread::sleep(Duration::from_micros(200));
        }
        let was_running = child.try_wait().unwrap().is_none();
        child.kill().unwrap();
        wait(&mut child, Duration::from_secs(30)).unwrap().expect("a killed process ends");
        was_running
    }

    /// Copies that were acknowledged: a receipt says so. Service and copy.
    fn acknowledged(&self) -> BTreeSet<(String, String)> {
        let mut found = BTreeSet::new();
        let ran = self.product.run(&["points", "--json"]).unwrap();
        let points: Value = serde_json::from_str(&ran.expect(0).unwrap()).unwrap();
        for point in points["data"].as_array().unwrap() {
            found.insert((
                point["service"].as_str().unwrap().to_owned(),
                point["copy"].as_str().unwrap().to_owned(),
            ));
        }
        found
    }

    /// How many copies of the files are said to be there.
    fn acknowledged_there(&self) -> usize {
        let ran = self.product.run(&["points", "files", "--json"]).unwrap();
        let points: Value = serde_json::from_str(&ran.expect(0).unwrap()).unwrap();
        let is_there = |point: &&Value| point["standing"].get("gone").is_none();
        points["data"].as_array().unwrap().iter().filter(is_there).count()
    }

    /// What must hold the moment after a crash, before anything of ours has run again.
    fn holds_as_it_lies(&self, what: &str, acknowledged_before: &BTreeSet<(String, String)>) {
        let left = self.product.quiet(Duration::from_secs(10)).unwrap();
        assert!(left.is_empty(), "{what}: still running: {left:#?}");
        let restic = &restics().unwrap()[0];
        // The dead process's lock is still there; a judge that only reads may ignore it.
        self.product
            .restic(restic, &["check", "--no-lock"])
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let said = self.product.restic(restic, &["snapshots", "--no-lock", "--json"]).unwrap();
        let snapshots: Value = serde_json::from_str(&said).unwrap();
        let stored: BTreeSet<&str> =
            snapshots.as_array().unwrap().iter().filter_map(|snapshot| snapshot["id"].as_str()).collect();
        let verified = self.product.run(&["verify", "--json"]).unwrap();
        assert_eq!(verified.code, Some(0), "{what}: {verified:?}");
        let acknowledged = self.acknowledged();
        assert!(acknowledged.is_superset(acknowledged_before), "{what}: an acknowledged copy was forgotten");
        for (service, copy) in &acknowledged {
            assert!(
                stored.contains(copy.as_str()),
                "{what}: {service} {copy} was acknowledged and is not stored"
            );
        }
    }

    /// What must hold after one more run that nobody disturbs.
    fn converges(&self, what: &str, arguments: &[&str]) {
        let ran = self.product.run(arguments).unwrap();
        assert_eq!(ran.code, Some(0), "{what}: the next run: {ran:?}");
        let left = self.product.left_in_scratch().unwrap();
        assert!(left.is_empty(), "{what}: left in scratch: {left:#?}");
        let verified = self.product.run(&["verify", "--json"]).unwrap().expect(0).unwrap();
        let report: Value = serde_json::from_str(&verified).unwrap();
        assert_eq!(report["open"], 0, "{what}: {report:#}");
        // A judge that takes an exclusive lock finds none of ours in its way.
        let restic = &restics().unwrap()[0];
        self.product.restic(restic, &["check"]).unwrap_or_else(|error| panic!("{what}: {error}"));
        let left = self.product.quiet(Duration::from_secs(5)).unwrap();
        assert!(left.is_empty(), "{what}: still running: {left:#?}");
    }

    /// Every acknowledged copy comes back, and the newest of each service is proven.
    fn every_acknowledged_copy_restores(&self) {
        self.product.judged(&["check", "--read-data"]).unwrap();
        let place = self.product.path().join("back");
        for (service, copy) in self.acknowledged() {
            if place.exists() {
                fs::remove_dir_all(&place).unwrap();
            }
            let to = place.display().to_string();
            let ran = self.product.run(&["restore", &service, "--point", &copy, "--to", &to]).unwrap();
            assert_eq!(ran.code, Some(0), "{service} {copy}: {ran:?}");
        }
        let ran = self.product.run(&["drill"]).unwrap();
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
}

/// How long an undisturbed run takes: the shorter of two, because one of them may have waited for something else.
fn takes(estate: &Estate, arguments: &[&str]) -> Duration {
    let run = || {
        let began = Instant::now();
        estate.product.run(arguments).unwrap().expect(0).unwrap();
        began.elapsed()
    };
    run().min(run())
}

#[test]
fn a_backup_killed_at_any_moment_loses_nothing_that_was_acknowledged() {
    let mut estate = Estate::new(true);
    let seed = number("SEAWORTHY_SEED", 1);
    let mut dice = Dice::new(seed);
    takes(&estate, &["backup"]);
    let usual = takes(&estate, &["backup"]);
    let kills = number("SEAWORTHY_KILLS", 40);
    let mut killed = 0;
    for trial in 0..kills {
        estate = estate.renewed(trial);
        estate.change();
        let before = estate.acknowledged();
        let delay = usual.mul_f64(dice.below(1_000) as f64 / 950.0);
        let what = format!("seed {seed}, trial {trial}: backup killed after {delay:?}");
        killed += u64::from(estate.kill_after(&["backup"], delay));
        estate.holds_as_it_lies(&what, &before);
        estate.converges(&what, &["backup", "files"]);
    }
    assert!(killed * 3 > kills * 2, "only {killed} of {kills} runs were killed: the others had ended");
    estate.every_acknowledged_copy_restores();
    println!("figure: backup: killed at {kills} random moments, {killed} times before its end");
}

#[test]
fn a_drill_killed_at_any_moment_leaves_nothing_behind() {
    let mut estate = Estate::new(true);
    let seed = number("SEAWORTHY_SEED", 2);
    let mut dice = Dice::new(seed);
    let backup = takes(&estate, &["backup"]);
    assert!(backup > Duration::ZERO);
    let services = ["files", "bookings", "shop"];
    let usual: BTreeMap<&str, Duration> =
        services.iter().map(|service| (*service, takes(&estate, &["drill", service]))).collect();
    let kills = number("SEAWORTHY_KILLS", 40);
    let mut killed = 0;
    for trial in 0..kills {
        estate = estate.renewed(trial);
        estate.changes += 1;
        let service = services[trial as usize % services.len()];
        let before = estate.acknowledged();
        let delay = usual[service].mul_f64(dice.below(1_000) as f64 / 950.0);
        let what = format!("seed {seed}, trial {trial}: drill of {service} killed after {delay:?}");
        killed += u64::from(estate.kill_after(&["drill", service], delay));
        estate.holds_as_it_lies(&what, &before);
        estate.converges(&what, &["drill", "bookings"]);
    }
    assert!(killed * 3 > kills * 2, "only {killed} of {kills} runs were killed: the others had ended");
    estate.every_acknowledged_copy_restores();
    println!("figure: drill: killed at {kills} random moments, {killed} times before its end");
}

/// Calls that change what is on the disk.
const MUTATING: &[&str] = &[
    "write",
    "pwrite64",
    "writev",
    "fsync",
    "fdatasync",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "ftruncate",
    "fchmod",
    "sync_file_range",
    "copy_file_range",
    "flock",
    "fcntl",
];

/// How often any one thread of an undisturbed run makes each of the calls.
fn calls(product: &Product, arguments: &[String]) -> BTreeMap<String, u64> {
    let log = product.path().join("calls");
    let mut command = traced(
        product,
        arguments,
        &["-o", &log.display().to_string(), "-e", &format!("trace={}", MUTATING.join(","))],
    );
    let ran = command.stdout(Stdio::null()).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let mut by_thread: BTreeMap<(String, String), u64> = BTreeMap::new();
    for line in fs::read_to_string(log).unwrap().lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((call, _)) = rest.trim_start().split_once('(') else { continue };
        *by_thread.entry((call.to_owned(), thread.to_owned())).or_default() += 1;
    }
    let mut most = BTreeMap::new();
    for ((call, _), count) in by_thread {
        let known = most.entry(call).or_insert(0);
        *known = count.max(*known);
    }
    most
}

fn traced(product: &Product, arguments: &[String], options: &[&str]) -> Command {
    let mut command = Command::new(program("strace").unwrap());
    // Without --seccomp-bpf, although it is faster: with it, strace 6.1 injects at a thread's first call only.
    command.args(["-f", "-qq"]).args(options).arg(PROGRAM).args(arguments);
    command.env_clear().current_dir(product.path()).stdin(Stdio::null());
    for (name, value) in product.environment() {
        command.env(name, value);
    }
    command
}

/// The same run, killed when any of its threads makes its `at`-th call of this kind.
fn killed_at(product: &Product, arguments: &[String], call: &str, at: u64) -> Command {
    let trace = format!("trace={call}");
    let inject = format!("inject={call}:signal=SIGKILL:when={at}");
    traced(product, arguments, &["-o", "/dev/null", "-e", &trace, "-e", &inject])
}

#[test]
fn an_init_killed_at_any_call_that_changes_the_disk_is_finished_by_the_next_one() {
    let product = Product::new(PROGRAM, "").unwrap();
    let files = product.path().join("files");
    fs::create_dir(&files).unwrap();
    fs::write(files.join("letter.txt"), "dear reader").unwrap();
    let fresh = product.path().join("fresh");
    let path = |name: &str| fresh.join(name).display().to_string();
    let arguments = |verb: &[&str]| -> Vec<String> {
        let (config, state, scratch) = (path("seaworthy.toml"), path("state"), path("s"));
        let common = ["--config", &config, "--state-dir", &state, "--scratch-dir", &scratch, "--no-progress"];
        verb.iter().chain(&common).map(|word| (*word).to_owned()).collect()
    };
    let (place, sources) = (path("repository"), files.display().to_string());
    let init = arguments(&["init", "--yes", "--files", &sources, "--repository", &place]);
    let empty = || {
        if fresh.exists() {
            fs::remove_dir_all(&fresh).unwrap();
        }
        fs::create_dir(&fresh).unwrap();
    };
    empty();
    let most = calls(&product, &init);
    assert!(most.keys().any(|call| call.starts_with("link")), "{most:?}");
    let mut moments = BTreeSet::new();
    for (call, count) in &most {
        // Of the 256 directories of packs a few stand for all; every other call is killed at.
        let step = if call.starts_with("mkdir") { count.div_ceil(4) } else { 1 };
        moments.extend((1..=*count).step_by(step as usize).map(|at| (call.clone(), at)));
    }
    let (mut killed, mut unfinished) = (0, 0);
    for (number, (call, at)) in moments.iter().enumerate() {
        let what = format!("init killed at {call} number {at} of a thread");
        empty();
        let mut command = killed_at(&product, &init, call, *at);
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        killed += u64::from(!status.success());
        let has =
            |name: &str| fs::read_dir(fresh.join(name)).is_ok_and(|mut entries| entries.next().is_some());
        let keys = fs::read_dir(fresh.join("repository/keys")).into_iter().flatten();
        let has_key = keys.flatten().any(|entry| !entry.file_name().to_string_lossy().contains("-tmp-"));
        let is_unfinished = has_key && !fresh.join("repository/config").exists();
        unfinished += u64::from(is_unfinished);
        assert!(!has("repository/snapshots"), "{what}");
        let was_done = fresh.join("seaworthy.toml").exists();
        let mut again = Command::new(PROGRAM);
        again.args(&init).env_clear().current_dir(product.path()).stdin(Stdio::null());
        again.envs(product.environment());
        let ran = run(again).unwrap();
        // A configuration that is there is whole, and is not written over.
        assert_eq!(ran.code, Some(if was_done { 20 } else { 0 }), "{what}: {ran:?}");
        if number % 4 != 0 && !is_unfinished {
            continue;
        }
        let mut backup = Command::new(PROGRAM);
        backup.args(arguments(&["backup"])).env_clear().current_dir(product.path()).stdin(Stdio::null());
        backup.envs(product.environment());
        let ran = run(backup).unwrap();
        assert_eq!(ran.code, Some(0), "{what}: {ran:?}");
        let mut judge = Command::new(&restics().unwrap()[0]);
        judge.args(["--no-cache", "-r", &place, "check"]).env_clear().env("HOME", &fresh);
        judge.env("RESTIC_PASSWORD_FILE", path("state/repository.key"));
        let ran = run(judge).unwrap();
        assert_eq!(ran.code, Some(0), "{what}: {ran:?}");
    }
    assert!(killed * 2 > moments.len() as u64, "only {killed} of {} runs were killed", moments.len());
    assert!(unfinished > 0, "no run was killed between the key and the config");
    println!("figure: init: killed before {killed} of {} calls that change the disk", moments.len());
}

/// What lies in a repository and in the ledger, to be put back.
fn exchange(product: &Product, from: &str, to: &str) {
    for name in ["repository", "state"] {
        let (from, to) =
            (product.path().join(format!("{from}{name}")), product.path().join(format!("{to}{name}")));
        if to.exists() {
            fs::remove_dir_all(&to).unwrap();
        }
        let done = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
        assert!(done.success());
    }
}

#[test]
fn a_retention_killed_at_any_call_that_changes_the_disk_is_ended_by_the_next_one() {
    let mut estate = Estate::new(false);
    for _ in 0..3 {
        estate.change();
        estate.product.run(&["backup", "files"]).unwrap().expect(0).unwrap();
    }
    estate.product.run(&["retain", "files", "--apply"]).unwrap().expect(0).unwrap();
    // A day later what was marked goes.
    let library = seaworthy_testkit::components::libfaketime().unwrap();
    estate.product.set("LD_PRELOAD", library.display().to_string());
    estate.product.set("FAKETIME", "+25h");
    estate.product.set("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let product = &estate.product;
    exchange(product, "", "saved-");
    let retain = product.arguments(&["retain", "files", "--apply"]);
    let most = calls(product, &retain);
    assert!(most.keys().any(|call| call.starts_with("unlink")), "{most:?}");
    let all: Vec<(String, u64)> =
        most.iter().flat_map(|(call, count)| (1..=*count).map(move |at| (call.clone(), at))).collect();
    let total = all.len() as u64;
    let wanted = number("SEAWORTHY_CALLS", 24).min(total);
    let mut moments: BTreeSet<(String, u64)> = most.keys().map(|call| (call.clone(), 1)).collect();
    moments.extend((0..wanted).map(|index| all[(index * total / wanted) as usize].clone()));
    let snapshots = || fs::read_dir(product.repository().join("snapshots")).unwrap().count();
    let (mut killed, mut owed) = (0, 0);
    for (call, at) in &moments {
        exchange(product, "saved-", "");
        let what = format!("retention killed at {call} number {at} of a thread");
        let status = killed_at(product, &retain, call, *at)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        killed += u64::from(!status.success());
        let left = snapshots();
        assert!(left == 2 || left == 3, "{what}: {left} copies are left");
        let verified = product.run(&["verify"]).unwrap();
        assert_eq!(verified.code, Some(0), "{what}: {verified:?}");
        // Gone in the repository, and nobody has said so yet.
        let known = estate.acknowledged_there();
        assert!(known >= left, "{what}: {known} are known and {left} are there");
        owed += u64::from(known > left);
        let again = product.run(&["retain", "files", "--apply"]).unwrap();
        assert_eq!(again.code, Some(0), "{what}: the next run: {again:?}");
        assert_eq!((snapshots(), estate.acknowledged_there()), (2, 2), "{what}: {again:?}");
        let verified = product.run(&["verify"]).unwrap();
        assert_eq!(verified.code, Some(0), "{what}: {verified:?}");
        let restic = &restics().unwrap()[0];
        product.restic(restic, &["check"]).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    assert!(killed * 2 > moments.len() as u64, "only {killed} of {} runs were killed", moments.len());
    println!(
        "figure: retention: killed before {killed} of {} calls that change the disk, {owed} times between removing and saying so",
        moments.len()
    );
}

#[test]
fn a_backup_killed_at_any_call_that_changes_the_disk_loses_nothing() {
    let mut estate = Estate::new(false);
    takes(&estate, &["backup"]);
    estate.change();
    let backup = estate.product.arguments(&["backup"]);
    let most = calls(&estate.product, &backup);
    assert!(
        most.contains_key("rename")
            || most.contains_key("renameat")
            || most.contains_key("renameat2")
            || most.contains_key("linkat"),
        "{most:?}"
    );
    assert!(most.keys().any(|call| call.contains("sync")), "{most:?}");
    // A thread's share of the work differs from run to run, so that the later half of its calls is often not reached.
    let mut moments: BTreeSet<(String, u64)> =
        most.iter().flat_map(|(call, count)| [(call.clone(), 1), (call.clone(), 2.min(*count))]).collect();
    let all: Vec<(String, u64)> = most
        .iter()
        .flat_map(|(call, count)| (1..=count.div_ceil(2)).map(move |at| (call.clone(), at)))
        .collect();
    let total = all.len() as u64;
    let wanted = number("SEAWORTHY_CALLS", 24).min(total);
    // Evenly over all calls, and at least the first two of each kind.
    moments.extend((0..wanted).map(|index| all[(index * total / wanted) as usize].clone()));
    let (mut killed, mut later) = (0, 0);
    for ((call, latest), trial) in moments.iter().zip(0..) {
        estate = estate.renewed(trial);
        let backup = estate.product.arguments(&["backup"]);
        // strace counts per thread, and the share of each thread differs: where the call was not reached, an earlier one.
        let mut at = *latest;
        loop {
            estate.change();
            let before = estate.acknowledged();
            let what = format!("killed at {call} number {at} of a thread");
            let mut command = killed_at(&estate.product, &backup, call, at);
            let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
            estate.holds_as_it_lies(&what, &before);
            estate.converges(&what, &["backup", "files"]);
            if !status.success() {
                killed += 1;
                later += usize::from(at > 1);
                break;
            }
            if at == 1 {
                break;
            }
            at /= 2;
        }
    }
    assert!(killed * 5 > moments.len() * 4, "only {killed} of {} runs were killed", moments.len());
    assert!(later * 3 > moments.len(), "only {later} of {} were killed at a later call", moments.len());
    estate.every_acknowledged_copy_restores();
    println!("figure: backup: killed before {killed} of {} calls that change the disk", moments.len());
}

/// What a disk may answer to a call. Not to `write`: that is also how threads wake one another, which no disk disturbs; a disk
/// that is full is met in the tests of full disks.
fn errors_of(call: &str) -> &'static [&'static str] {
    match call {
        "pwrite64" | "ftruncate" | "copy_file_range" => &["ENOSPC", "EIO"],
        "fsync" | "fdatasync" | "sync_file_range" => &["EIO"],
        "rename" | "renameat" | "renameat2" | "link" | "linkat" | "mkdir" | "mkdirat" => &["ENOSPC", "EROFS"],
        "unlink" | "unlinkat" => &["EROFS"],
        _ => &[],
    }
}

/// Moments at which a call fails, once or from then on: evenly over all of them.
fn failing_moments(most: &BTreeMap<String, u64>) -> Vec<String> {
    let mut all = Vec::new();
    for (call, count) in most {
        for error in errors_of(call) {
            for at in 1..=*count {
                all.push(format!("inject={call}:error={error}:when={at}"));
                all.push(format!("inject={call}:error={error}:when={at}+"));
            }
        }
    }
    let total = all.len() as u64;
    let wanted = number("SEAWORTHY_CALLS", 24).div_ceil(3).min(total);
    (0..wanted).map(|index| all[((2 * index + 1) * total / (2 * wanted)) as usize].clone()).collect()
}

/// The same run, with an error where `inject` says.
fn failing(product: &Product, arguments: &[String], inject: &str) -> seaworthy_testkit::product::Ran {
    let call = inject.trim_start_matches("inject=").split(':').next().unwrap();
    let trace = format!("trace={call}");
    let ran = run(traced(product, arguments, &["-o", "/dev/null", "-e", &trace, "-e", inject])).unwrap();
    assert!(ran.code.is_some_and(|code| code != 101), "{inject}: {ran:?}");
    assert!(!ran.stderr.contains("panicked"), "{inject}: {ran:?}");
    ran
}

#[test]
fn a_backup_whose_disk_fails_at_any_call_loses_nothing() {
    let mut estate = Estate::new(false);
    takes(&estate, &["backup"]);
    estate.change();
    let backup = estate.product.arguments(&["backup"]);
    let moments = failing_moments(&calls(&estate.product, &backup));
    let mut failed = 0;
    for (inject, trial) in moments.iter().zip(0..) {
        estate = estate.renewed(trial);
        estate.change();
        let before = estate.acknowledged();
        let ran = failing(&estate.product, &estate.product.arguments(&["backup"]), inject);
        failed += usize::from(ran.code != Some(0));
        estate.holds_as_it_lies(inject, &before);
        estate.converges(inject, &["backup", "files"]);
    }
    assert!(failed * 3 > moments.len(), "only {failed} of {} runs failed", moments.len());
    estate.every_acknowledged_copy_restores();
    println!(
        "figure: backup: its disk failed at {} calls, once and from then on; {failed} runs ended with an error",
        moments.len()
    );
}

#[test]
fn a_drill_whose_disk_fails_at_any_call_never_blames_the_copy() {
    let mut estate = Estate::new(false);
    takes(&estate, &["backup"]);
    for service in ["files", "bookings"] {
        let drill = estate.product.arguments(&["drill", service]);
        let moments = failing_moments(&calls(&estate.product, &drill));
        let mut failed = 0;
        for (inject, trial) in moments.iter().zip(0..) {
            estate = estate.renewed(trial);
            let before = estate.acknowledged();
            let ran = failing(&estate.product, &estate.product.arguments(&["drill", service]), inject);
            assert_ne!(ran.code, Some(5), "{service}, {inject}: {ran:#?}");
            failed += usize::from(ran.code != Some(0));
            estate.holds_as_it_lies(inject, &before);
        }
        estate.converges("after all failures", &["drill", service]);
        assert!(failed * 4 > moments.len(), "only {failed} of {} drills of {service} failed", moments.len());
        println!(
            "figure: drill of {service}: its disk failed at {} calls, once and from then on; {failed} drills ended without a pass, none blamed the copy",
            moments.len()
        );
    }
}

/// Whether a process may write a core dump; `None` where it has ended.
fn may_dump(process: u32) -> Option<bool> {
    let limits = fs::read_to_string(format!("/proc/{process}/limits")).ok()?;
    let line = limits.lines().find(|line| line.starts_with("Max core file size"))?;
    Some(line.contains("unlimited"))
}

/// Starts a program that may dump as much as it likes into `place`, aborts it after a while, and says whether it has dumped. One
/// that says itself that it may not is given the time to say so.
fn aborted(
    product: &Product,
    place: &Path,
    words: &[String],
    after: Duration,
    has_secrets: bool,
) -> Option<bool> {
    let mut command = Command::new(program("prlimit").unwrap());
    command.arg("--core=unlimited").args(words).env_clear().current_dir(place).envs(product.environment());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while has_secrets && may_dump(child.id()) == Some(true) {
        assert!(Instant::now() < until, "it may dump after a minute");
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(after);
    let signal =
        Command::new(program("kill").unwrap()).args(["-ABRT", &child.id().to_string()]).status().unwrap();
    let status = wait(&mut child, Duration::from_secs(60)).unwrap().expect("an aborted process ends");
    (signal.success() && status.signal() == Some(6)).then(|| status.core_dumped())
}

#[test]
fn a_run_that_crashes_leaves_no_memory_with_its_secrets() {
    let estate = Estate::new(false);
    let whole = takes(&estate, &["backup"]);
    // It has said so before it opens anything that could hold a secret.
    let log = estate.product.path().join("opened");
    let options = ["-o", &log.display().to_string(), "-e", "trace=openat,open,prctl"];
    let mut traced = traced(&estate.product, &estate.product.arguments(&["backup"]), &options);
    assert!(traced.stdout(Stdio::null()).status().unwrap().success());
    let told = fs::read_to_string(log).unwrap();
    let own = estate.product.path().display().to_string();
    let at = |what: &dyn Fn(&str) -> bool| told.lines().position(what).expect("it is called");
    let is_private = at(&|line| line.contains("PR_SET_DUMPABLE, SUID_DUMP_DISABLE"));
    let is_opened = at(&|line| line.contains("open") && line.contains(&own));
    assert!(is_private < is_opened, "{told}");

    let place = estate.product.path().join("cores");
    fs::create_dir(&place).unwrap();
    let dumps = || fs::read_dir(&place).unwrap().count();
    // What may dump does, where this machine writes core dumps at all.
    let sleep = vec![program("sleep").unwrap().display().to_string(), "60".to_owned()];
    let is_dumping = aborted(&estate.product, &place, &sleep, Duration::from_millis(200), false).unwrap();
    let before = dumps();
    let (mut words, mut died) = (vec![PROGRAM.to_owned()], 0);
    words.extend(estate.product.arguments(&["backup"]));
    for part in 1..=12 {
        if let Some(has_dumped) = aborted(&estate.product, &place, &words, whole * part / 14, true) {
            assert!(!has_dumped, "a core dump was written");
            died += 1;
        }
    }
    assert!(died >= 3, "only {died} runs were aborted");
    assert_eq!(dumps(), before);
    println!(
        "figure: {died} runs aborted, no core dump (a program without secrets dumps here: {is_dumping})"
    );
}

/// The same run, in which no file may grow beyond so many bytes: the kernel writes what still fits, a part of what was asked
/// for, and refuses the rest.
fn cut_short(product: &Product, arguments: &[String], bytes: u64) -> seaworthy_testkit::product::Ran {
    let mut command = Command::new(program("env").unwrap());
    command.args(["--ignore-signal=XFSZ", "prlimit", &format!("--fsize={bytes}"), PROGRAM]).args(arguments);
    command.env_clear().current_dir(product.path()).envs(product.environment());
    let ran = run(command).unwrap();
    assert!(ran.code.is_some_and(|code| code != 101), "{bytes} bytes: {ran:?}");
    assert!(!ran.stderr.contains("panicked"), "{bytes} bytes: {ran:?}");
    ran
}

/// Sizes up to 8 MiB, most of them small.
fn sizes(dice: &mut Dice) -> Vec<u64> {
    let wanted = number("SEAWORTHY_CALLS", 24).div_ceil(2);
    (0..wanted).map(|_| (1 << dice.below(23)) + dice.below(1 << 12)).collect()
}

#[test]
fn a_run_whose_writes_are_cut_short_loses_nothing_and_blames_no_copy() {
    let mut estate = Estate::new(false);
    takes(&estate, &["backup"]);
    let mut dice = Dice::new(number("SEAWORTHY_SEED", 1));
    let (mut backups, mut drills) = (0, 0);
    let sizes = sizes(&mut dice);
    for (bytes, trial) in sizes.iter().zip(0..) {
        estate = estate.renewed(trial);
        let (backup, drill) = (estate.product.arguments(&["backup"]), estate.product.arguments(&["drill"]));
        estate.change();
        let before = estate.acknowledged();
        let what = format!("no file beyond {bytes} bytes");
        let ran = cut_short(&estate.product, &backup, *bytes);
        backups += usize::from(ran.code != Some(0));
        estate.holds_as_it_lies(&what, &before);
        estate.converges(&what, &["backup"]);
        let before = estate.acknowledged();
        let ran = cut_short(&estate.product, &drill, *bytes);
        assert_ne!(ran.code, Some(5), "{what}: {ran:#?}");
        drills += usize::from(ran.code != Some(0));
        estate.holds_as_it_lies(&what, &before);
    }
    assert!(
        backups * 3 > sizes.len() && drills * 3 > sizes.len(),
        "{backups} and {drills} of {}",
        sizes.len()
    );
    estate.every_acknowledged_copy_restores();
    println!(
        "figure: writes cut short at {} sizes of a file: {backups} backups and {drills} drills ended with an error, none blamed a copy",
        sizes.len()
    );
}

#[test]
fn a_rebuild_or_a_change_of_keys_killed_at_any_moment_is_repeated_without_a_human() {
    let estate = Estate::new(false);
    takes(&estate, &["backup"]);
    let seed = number("SEAWORTHY_SEED", 3);
    let mut dice = Dice::new(seed);
    let second = estate.product.path().join("second");
    fs::write(&second, "battery staple").unwrap();
    fs::set_permissions(&second, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let reference = format!("file:{}", second.display());
    let add = ["keys", "add", "--password", &reference];
    let keys = || -> Vec<String> {
        // 4: nobody is registered as a holder of any of them.
        let said = estate.product.run(&["keys", "list", "--json"]).unwrap().expect(4).unwrap();
        let list: Value = serde_json::from_str(&said).unwrap();
        let all = list["data"].as_array().unwrap_or_else(|| panic!("{list:#}"));
        all.iter().map(|key| key["id"].as_str().unwrap().to_owned()).collect()
    };
    let first = keys();
    let usual = [takes(&estate, &["catalogue", "rebuild"]), takes(&estate, &add)];
    let mut killed = 0;
    let kills = number("SEAWORTHY_KILLS", 40) / 2;
    for trial in 0..kills {
        let before = estate.acknowledged();
        let (verb, usual): (&[&str], _) =
            if trial % 2 == 0 { (&["catalogue", "rebuild"], usual[0]) } else { (&add, usual[1]) };
        let delay = usual.mul_f64(dice.below(1_000) as f64 / 950.0);
        let what = format!("seed {seed}, trial {trial}: {verb:?} killed after {delay:?}");
        killed += u64::from(estate.kill_after(verb, delay));
        estate.holds_as_it_lies(&what, &before);
        estate.converges(&what, verb);
        assert_eq!(estate.acknowledged(), before, "{what}");
        // Every key that is there opens the repository, and the first one always does.
        let now = keys();
        assert!(first.iter().all(|key| now.contains(key)), "{what}: {now:?}");
        for key in now.iter().filter(|key| !first.contains(key)) {
            let removed = estate.product.run(&["keys", "remove", key]).unwrap();
            assert_eq!(removed.code, Some(0), "{what}: {removed:?}");
        }
    }
    assert!(killed * 3 > kills * 2, "only {killed} of {kills} runs were killed: the others had ended");
    estate.every_acknowledged_copy_restores();
    println!(
        "figure: catalogue rebuild and change of keys: killed at {kills} random moments, {killed} times before their end"
    );
}

/// Kills every `program` that was given `word` in its environment; how many there were.
fn kill_clients(program: &str, word: &str) -> usize {
    let mut killed = 0;
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let read = |name: &str| {
            fs::read(entry.path().join(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        };
        let (Ok(arguments), Ok(environment)) = (read("cmdline"), read("environ")) else { continue };
        let pid = entry.file_name().into_string().unwrap_or_default();
        // The server's own processes bear the word too.
        if arguments.split('\0').next().is_some_and(|first| first.ends_with(program))
            && environment.contains(word)
        {
            let mut command = Command::new("kill");
            command.args(["-9", &pid]);
            killed += usize::from(run(command).unwrap().code == Some(0));
        }
    }
    killed
}

#[test]
fn a_dump_tool_that_is_killed_leaves_no_copy_and_the_next_backup_works() {
    let server = Server::start(&[]).unwrap();
    server.create("shop", &[]).unwrap();
    server.sql("shop", &shop(500)).unwrap();
    server.sql("shop", "UPDATE orders SET placed = now() WHERE id = 1").unwrap();
    let services = format!(
        "[services.shop.sources.database]\nkind = \"postgres\"\nhost = \"{}\"\nport = {}\nuser = \"postgres\"\ndatabase = \"shop\"\n",
        server.host(),
        server.port()
    );
    let product = Product::new(PROGRAM, &services).unwrap();
    product.backup("shop").unwrap();
    server.sql("shop", "CREATE TABLE wide AS SELECT i, repeat(md5(i::text), 20) AS filler FROM generate_series(1, 60000) i").unwrap();
    let host = server.host();
    let mut caught = 0;
    for _ in 0..3 {
        let child = product
            .command(&["backup", "shop"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        let mut killed = 0;
        while killed == 0 && Instant::now() < until {
            killed = kill_clients("pg_dump", &host);
        }
        let ran = seaworthy_testkit::product::finish(child, "backup").unwrap();
        if killed > 0 {
            caught += 1;
            assert!(!matches!(ran.code, Some(0 | 3)), "{ran:?}");
            let points: Value =
                serde_json::from_str(&product.run(&["points", "--json"]).unwrap().expect(0).unwrap())
                    .unwrap();
            assert_eq!(
                points["data"].as_array().unwrap().len(),
                1,
                "a copy was made without its dump: {points:#}"
            );
        }
    }
    assert!(caught > 0, "no dump was caught at work");
    let staging: PathBuf = product.scratch();
    product.backup("shop").unwrap();
    product.drill("shop", 0).unwrap();
    product.judged(&["check", "--read-data"]).unwrap();
    assert_eq!(product.left_in_scratch().unwrap(), Vec::<String>::new(), "{}", staging.display());
    assert_eq!(
        server
            .sql("shop", "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
            .unwrap()
            .trim(),
        "1"
    );
    println!("figure: dump: the tool was killed while it wrote, {caught} times in three backups");
}
