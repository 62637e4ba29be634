//! The log of a server that writes all the time, for long: what is restored to any place of it is what a standby holds there, and
//! whoever is killed meanwhile, nothing that was acknowledged is lost, and no hole is hidden.
//!
//! `SEAWORTHY_ROUNDS` says how often a standby is compared, `SEAWORTHY_LOAD_S` for how many seconds everything is killed, and
//! `SEAWORTHY_SEED` in which order.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use seaworthy_testkit::estate::Dice;
use seaworthy_testkit::load::{DEPOT, Load, PARCELS, TILL, is_equal, prove};
use seaworthy_testkit::postgres::{Server, position, programs, server_user, shop};
use seaworthy_testkit::product::Product;
use seaworthy_testkit::proxy::{Fault, FaultProxy};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_seaworthy");

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn majors() -> [PathBuf; 2] {
    [programs().unwrap(), seaworthy_testkit::components::second_postgres_bin().unwrap()]
}

fn continuous(server: &Server, host: &str, port: u16) -> String {
    format!(
        "[services.shop.sources.cluster]\nkind = \"postgres\"\nmode = \"continuous\"\nbase_every = \"1d\"\nhost = \"{host}\"\nport = {port}\n\
         user = \"postgres\"\ndatabase = \"shop\"\nbin_dir = \"{}\"\n\n",
        server.programs().display()
    )
}

fn dump(service: &str, server: &Server, host: &Path) -> String {
    format!(
        "[services.{service}.sources.database]\nkind = \"postgres\"\nhost = \"{}\"\nport = 5432\nuser = \"postgres\"\n\
         database = \"shop\"\nbin_dir = \"{}\"\n\n",
        host.display(),
        server.programs().display()
    )
}

/// Up to where copies and the journal hold the log, and how many holes there are in it from `since` on.
fn kept(product: &Product, since: u64) -> (u64, usize) {
    let told = product.run(&["wal", "status", "shop", "--json"]).unwrap().expect(0).unwrap();
    let told: Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
    assert_eq!(told["apart"], 0, "no server was put back: {told}");
    let ends = told["data"].as_array().unwrap().iter().map(|row| position(row["to"].as_str().unwrap()));
    let ends: Vec<u64> = ends.filter(|end| *end > since).collect();
    (ends.iter().copied().max().unwrap_or(0), ends.len().saturating_sub(1))
}

fn wait_until_kept(product: &Product, wanted: u64) {
    let began = Instant::now();
    while kept(product, 0).0 < wanted {
        assert!(began.elapsed() < Duration::from_secs(90), "{:x?} of {wanted:x}", kept(product, 0));
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A process of the product that goes on until it is killed, which dropping does.
struct Going {
    child: Child,
    words: Vec<String>,
}

impl Going {
    fn begin(product: &Product, words: &[&str]) -> Self {
        let mut command = product.command(words);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Self { child: command.spawn().unwrap(), words: words.iter().map(|word| (*word).to_owned()).collect() }
    }

    /// Says so where it has ended by itself: nothing that happens here is a reason.
    fn still_goes(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            let mut said = String::new();
            std::io::Read::read_to_string(&mut self.child.stderr.take().unwrap(), &mut said).unwrap();
            panic!("{:?} ended with {status}: {said}", self.words);
        }
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        self.child.kill().expect("a child of ours can be killed");
        self.child.wait().expect("a child of ours can be waited for");
    }
}

/// What a witness says of the content: everything but when and where it was taken, and how much room it takes, which maps of free room are
/// part of that no log tells of.
fn content(product: &Product, service: &str) -> Value {
    let backup = product.backup(service).unwrap();
    let arguments = ["dump", backup["copy"].as_str().unwrap(), "/.seaworthy/witness.json"];
    let witness = product.restic(Path::new("restic"), &arguments).unwrap();
    let mut witness = serde_json::from_str::<Value>(&witness).unwrap()["witness"].take();
    let all = witness.as_object_mut().unwrap();
    for name in ["snapshot", "beside"] {
        all.remove(name);
    }
    all["database"].as_object_mut().unwrap().remove("size_bytes").unwrap();
    witness
}

/// Where two texts of lines differ, in a few lines.
fn difference(one: &str, other: &str) -> String {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (one, other) = (lines(one), lines(other));
    one.symmetric_difference(&other).take(8).cloned().collect::<Vec<_>>().join("\n")
}

/// Stops what a standby replays, at a place at which it can be read; where the last record begins that it has applied, which is how a
/// moment is named, and where it ends.
fn stopped(what: &str, server: &Server, ask: &dyn Fn(&str) -> String) -> (String, String) {
    let began = Instant::now();
    let wait = || {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}: it does not stop");
        std::thread::sleep(Duration::from_millis(5));
    };
    loop {
        ask("SELECT pg_wal_replay_pause()");
        while ask("SELECT pg_get_wal_replay_pause_state()") != "paused" {
            wait();
        }
        // Where the source was in the middle of exchanging a table, nobody reads it until it goes on.
        let locks = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted";
        if ask(locks) == "0" {
            let end = ask("SELECT pg_last_wal_replay_lsn()");
            let begin = format!(
                "SELECT start_lsn FROM pg_get_wal_records_info(pg_lsn '{end}' - 200000, '{end}') WHERE end_lsn = '{end}'"
            );
            // Behind the end of a file that was ended early there is nothing to look for it in.
            if let Ok(begin) = server.sql("shop", &begin)
                && !begin.trim().is_empty()
            {
                return (begin.trim().to_owned(), end);
            }
        }
        ask("SELECT pg_wal_replay_resume()");
        wait();
    }
}

#[test]
fn what_is_restored_to_a_place_of_the_log_is_what_a_standby_holds_that_stopped_there() {
    let rounds = number("SEAWORTHY_ROUNDS", 2);
    for (programs, rounds) in majors().into_iter().zip([rounds.div_ceil(2), rounds / 2]) {
        let server = Server::start_from(programs, &["autovacuum_naptime=1s", "wal_keep_size=1GB"]).unwrap();
        server.create("shop", &[]).unwrap();
        server.sql("shop", &shop(1_000)).unwrap();
        server.sql("shop", PARCELS).unwrap();
        server.sql("shop", "CREATE EXTENSION pg_walinspect").unwrap();
        let (apart, back) = (server.path().join("s"), server.path().join("r"));
        let services = continuous(&server, &server.host(), server.port())
            + &dump("apart", &server, &apart)
            + &dump("back", &server, &back);
        let product = Product::new(PROGRAM, &services).unwrap();
        let mut load = Load::begin(&server, "shop", &[TILL, TILL, DEPOT]);
        prove(&product, "shop", 0);
        let mut receiver = Going::begin(&product, &["wal", "stream", "shop"]);
        let standby = server.standby(&apart).unwrap();
        // While it goes on, what it replays may take away what a question reads.
        let ask = |sql: &str| {
            let began = Instant::now();
            loop {
                match standby.sql("shop", sql) {
                    Ok(told) => return told.trim().to_owned(),
                    Err(error) => assert!(began.elapsed() < Duration::from_secs(60), "{sql}: {error}"),
                }
            }
        };
        for round in 1..=rounds {
            let what = format!("round {round} of {}", server.programs().display());
            let (begin, end) = stopped(&what, &server, &ask);
            let moment = format!("lsn:{begin}");
            wait_until_kept(&product, position(&end));
            // From the copy before or from this one, and from what was received behind it.
            if round % 2 == 0 {
                prove(&product, "shop", round);
            }
            let restore = ["restore", "shop", "--until", &moment, "--to", back.to_str().unwrap()];
            product.run(&restore).unwrap().expect(0).unwrap();
            let restored = server.start_beside(&back).unwrap();
            let (here, there) = (standby.fingerprint("shop").unwrap(), restored.fingerprint("shop").unwrap());
            assert!(here == there, "{what}: {moment}: {}", difference(&here, &there));
            let (here, there) = (content(&product, "apart"), content(&product, "back"));
            assert!(
                here == there,
                "{what}: {moment}: {}",
                difference(&format!("{here:#}"), &format!("{there:#}"))
            );
            assert_eq!(ask("SELECT pg_last_wal_replay_lsn()"), end, "{what}: it has gone on");
            drop(restored);
            std::fs::remove_dir_all(&back).unwrap();
            let ran = product.run(&["drill", "shop", "--until", &moment, "--json"]).unwrap();
            let drill: Value = serde_json::from_str(ran.stdout.lines().last().unwrap()).unwrap();
            assert!(ran.code == Some(0) && is_equal(&drill["drill"]), "{what}: {ran:?}");
            assert_eq!(drill["drill"]["reached"]["position"], end, "{what}");
            ask("SELECT pg_wal_replay_resume()");
            load.still_writes();
            receiver.still_goes();
            println!("{what}: {moment} is equal");
        }
    }
    println!(
        "figure: a place in the log, under write load: what a standby held that was stopped there equals what was restored to it, {rounds} \
         times, by the witness and by an oracle of its own; as many drills to it, and half as many of copies, raised no alarm"
    );
}

/// The lines of a fingerprint, and apart from them where each sequence stands.
fn apart(fingerprint: &str) -> (String, BTreeMap<String, u64>) {
    let (mut rest, mut sequences) = (String::new(), BTreeMap::new());
    for line in fingerprint.lines() {
        let words: Vec<&str> = line.split('|').collect();
        match words[..] {
            [name, at, _] if name.ends_with("_seq") => {
                sequences.insert(name.to_owned(), at.parse().unwrap());
            }
            _ => {
                rest.push_str(line);
                rest.push('\n');
            }
        }
    }
    (rest, sequences)
}

/// What a server hands its log to, and what it is followed by; all of it is killed, and begun again.
struct Followed<'a> {
    server: &'a Server,
    product: &'a Product,
    proxy: &'a FaultProxy,
    socket: PathBuf,
    /// Files that a push has acknowledged, and each as it was then.
    oracle: PathBuf,
    receiver: Option<Going>,
    open: Option<Going>,
    load: Option<Load>,
    /// Where the log of the first copy begins, in the file of that position. What lies before leads to nothing and from nothing, and is
    /// not kept for long.
    since: u64,
    /// The highest position that the receiver has acknowledged.
    acknowledged: u64,
    /// Pushed files that were looked at.
    seen: BTreeSet<String>,
    done: BTreeMap<&'static str, u64>,
}

impl Followed<'_> {
    fn receive(&mut self) {
        self.receiver = Some(Going::begin(self.product, &["wal", "stream", "shop"]));
    }

    /// Opens the repository for the server's own commands, which its user may write to.
    fn open(&mut self) {
        let socket = self.socket.to_str().unwrap();
        let mut going = Going::begin(self.product, &["wal", "serve", "shop", "--socket", socket]);
        let began = Instant::now();
        while UnixStream::connect(&self.socket).is_err() {
            going.still_goes();
            assert!(began.elapsed() < Duration::from_secs(60), "nobody listens");
            std::thread::sleep(Duration::from_millis(10));
        }
        if let Some(user) = server_user().unwrap() {
            std::os::unix::fs::chown(&self.socket, Some(user.uid), Some(user.gid)).unwrap();
        }
        self.open = Some(going);
    }

    fn write(&mut self) {
        self.load = Some(Load::begin(self.server, "shop", &[TILL, TILL, DEPOT]));
    }

    /// What the server knows to be acknowledged: it has let go of it, or may.
    fn ask(&mut self) {
        let sql = "SELECT coalesce(max(restart_lsn), '0/0') FROM pg_replication_slots WHERE slot_name LIKE 'seaworthy%'";
        self.acknowledged = self.acknowledged.max(position(&self.server.sql("shop", sql).unwrap()));
    }

    /// The files that pushes have acknowledged.
    fn pushed(&self) -> Vec<String> {
        let told = std::fs::read_to_string(self.oracle.join("acknowledged")).unwrap_or_default();
        let mut names: Vec<String> = told.lines().map(str::to_owned).collect();
        names.sort();
        names.dedup();
        names
    }

    /// One of them is killed, or the line fails.
    fn strike(&mut self, dice: &mut Dice) {
        let what = match dice.below(10) {
            0..=2 => {
                self.receiver.as_mut().unwrap().still_goes();
                self.receiver = None;
                self.receive();
                "the receiver"
            }
            3 | 4 => {
                self.open.as_mut().unwrap().still_goes();
                self.open = None;
                std::thread::sleep(Duration::from_millis(dice.below(400)));
                self.open();
                "the archiver"
            }
            5 => {
                self.ask();
                self.server.kill().unwrap();
                self.load = None;
                self.server.revive().unwrap();
                self.write();
                "the server"
            }
            6 | 7 => {
                let at = dice.below(3 << 20);
                let faults = [Fault::Cut(at), Fault::Reset(at), Fault::BlackHole(at)];
                self.proxy.set(faults[usize::try_from(dice.below(3)).unwrap()]);
                std::thread::sleep(Duration::from_millis(500 + dice.below(2_500)));
                self.proxy.set(Fault::None);
                "the network"
            }
            _ => {
                let mut backup = Going::begin(self.product, &["backup", "shop"]);
                // Some end before they are killed.
                seaworthy_testkit::product::wait(&mut backup.child, Duration::from_millis(dice.below(4_000)))
                    .unwrap();
                "a backup"
            }
        };
        *self.done.entry(what).or_default() += 1;
    }

    /// What was acknowledged is there, byte for byte, and no hole is.
    fn look(&mut self, what: &str) {
        self.ask();
        let (end, holes) = kept(self.product, self.since);
        assert_eq!(holes, 0, "{what}");
        assert!(
            end >= self.acknowledged,
            "{what}: {:x} was acknowledged, {end:x} is there",
            self.acknowledged
        );
        let got = self.product.path().join("got");
        for name in self.pushed() {
            let number = |digits: &str| u64::from_str_radix(digits, 16).unwrap();
            let is_before =
                name.len() == 24 && (number(&name[8..16]) << 32 | number(&name[16..]) << 24) < self.since;
            // Looked at once: what was kept is not changed by anybody.
            if is_before || !self.seen.insert(name.clone()) {
                continue;
            }
            if got.exists() {
                std::fs::remove_file(&got).unwrap();
            }
            let get = ["wal", "get", "shop", &name, got.to_str().unwrap()];
            let ran = self.product.run(&get).unwrap();
            let status = || self.product.run(&["wal", "status", "shop", "--json"]).unwrap().stdout;
            assert_eq!(ran.code, Some(0), "{what}: {name}: {}\n{}", ran.stderr, status());
            let here = self.oracle.join(&name);
            assert!(
                std::fs::read(&got).unwrap() == std::fs::read(&here).unwrap(),
                "{what}: {name} is not what was pushed"
            );
            std::fs::remove_file(here).unwrap();
        }
    }
}

#[test]
fn whoever_is_killed_meanwhile_no_acknowledged_byte_of_the_log_is_lost_and_no_hole_is_hidden() {
    let seconds = number("SEAWORTHY_LOAD_S", 20);
    let seed = number("SEAWORTHY_SEED", 5);
    let (mut done, mut written) = (BTreeMap::<&str, u64>::new(), 0);
    for (index, programs) in majors().into_iter().enumerate() {
        let server = Server::start_from(programs, &["autovacuum_naptime=1s", "archive_mode=on"]).unwrap();
        server.create("shop", &[]).unwrap();
        server.sql("shop", &shop(1_000)).unwrap();
        server.sql("shop", PARCELS).unwrap();
        let proxy = FaultProxy::start(&server.path().join(".s.PGSQL.5432")).unwrap();
        let product = Product::new(PROGRAM, &continuous(&server, "127.0.0.1", proxy.port())).unwrap();
        let (own, oracle, socket) =
            (server.path().join("seaworthy"), server.path().join("oracle"), server.path().join("wal.sock"));
        std::fs::copy(PROGRAM, &own).unwrap();
        std::fs::create_dir(&oracle).unwrap();
        if let Some(user) = server_user().unwrap() {
            std::os::unix::fs::chown(&oracle, Some(user.uid), Some(user.gid)).unwrap();
        }
        let copy = prove(&product, "shop", 0);
        let words = ["dump", copy["copy"].as_str().unwrap(), "/.seaworthy/witness.json"];
        let witness: Value =
            serde_json::from_str(&product.restic(Path::new("restic"), &words).unwrap()).unwrap();
        let since = position(witness["witness"]["physical"]["from"].as_str().unwrap()) >> 24 << 24;
        let (own, at, kept_in) = (own.display(), socket.display(), oracle.display());
        let archive = format!(
            "cp \"%p\" {kept_in}/%f && {own} wal push --socket {at} shop \"%p\" && echo %f >> {kept_in}/acknowledged"
        );
        server.sql("shop", &format!("ALTER SYSTEM SET archive_command = '{archive}'")).unwrap();
        server.sql("shop", "SELECT pg_reload_conf()").unwrap();
        let mut followed = Followed {
            server: &server,
            product: &product,
            proxy: &proxy,
            socket,
            oracle,
            receiver: None,
            open: None,
            load: None,
            since,
            acknowledged: 0,
            seen: BTreeSet::new(),
            done: BTreeMap::new(),
        };
        followed.open();
        followed.receive();
        followed.write();
        let first = position(&server.sql("shop", "SELECT pg_current_wal_flush_lsn()").unwrap());
        let mut dice = Dice::new(seed + index as u64);
        let began = Instant::now();
        let mut strikes = 0_u64;
        while began.elapsed() < Duration::from_secs(seconds) / 2 {
            std::thread::sleep(Duration::from_millis(50 + dice.below(750)));
            strikes += 1;
            followed.strike(&mut dice);
            if strikes.is_multiple_of(8) {
                server.sql("shop", "SELECT pg_switch_wal(); CHECKPOINT").unwrap();
                followed.look(&format!("seed {seed}, after {strikes} strikes: {:?}", followed.done));
            }
        }
        // The disaster: what was written to the end is there, and nothing of the server is asked any more.
        followed.load = None;
        server.sql("shop", "SELECT pg_switch_wal()").unwrap();
        let last = position(&server.sql("shop", "SELECT pg_current_wal_flush_lsn()").unwrap());
        wait_until_kept(&product, last);
        followed.look(&format!("seed {seed}, at the end"));
        let there = server.fingerprint("shop").unwrap();
        assert!(!followed.seen.is_empty(), "nothing was pushed");
        followed.receiver = None;
        followed.open = None;
        for (what, times) in &followed.done {
            *done.entry(*what).or_default() += times;
        }
        drop(followed);
        let to = server.path().join("r");
        let restore = ["restore", "shop", "--until", "latest", "--to", to.to_str().unwrap()];
        product.run(&restore).unwrap().expect(0).unwrap();
        let restored = server.start_beside(&to).unwrap();
        let here = restored.fingerprint("shop").unwrap();
        let ((here, far), (there, near)) = (apart(&here), apart(&there));
        assert!(here == there, "seed {seed}: {}", difference(&here, &there));
        // A sequence's position is written ahead of its use, 32 values at once.
        for (name, near) in &near {
            assert!(
                (*near..=near + 32).contains(&far[name]),
                "seed {seed}: {name}: {near} became {}",
                far[name]
            );
        }
        // And nobody needs a human.
        prove(&product, "shop", 1);
        product.judged(&["check"]).unwrap();
        written += last - first;
    }
    let told: Vec<String> = done.iter().map(|(what, times)| format!("{what} {times}")).collect();
    println!(
        "figure: the log of a server under load, received and pushed, for {seconds} s: struck were {} times; of {} MB of log no byte that \
         was acknowledged was lost, no hole was there, and what was restored in the end was the server's, row by row",
        told.join(", "),
        written >> 20
    );
}
