//! What a server hands over file by file is kept, and handed to one that recovers; a hole is never the end of the log.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use seaworthy_testkit::postgres::{Server, programs, server_user, shop};
use seaworthy_testkit::product::{Product, Ran, run, wait};

const PROGRAM: &str = env!("CARGO_BIN_EXE_seaworthy");

struct Estate {
    server: Server,
    product: Product,
    /// Files that the server has archived, by its own means.
    archive: PathBuf,
    source: String,
}

impl Estate {
    fn new(programs: PathBuf) -> Self {
        Self::with(programs, &["wal_keep_size=1GB"])
    }

    fn with(programs: PathBuf, settings: &[&str]) -> Self {
        let server = Server::start_from(programs, settings).unwrap();
        server.create("shop", &[]).unwrap();
        server.sql("shop", &shop(500)).unwrap();
        server.sql("shop", "CREATE TABLE marks (n int)").unwrap();
        let source = format!(
            "[services.shop.sources.cluster]\nkind = \"postgres\"\nmode = \"continuous\"\nbase_every = \"1d\"\nhost = \"{}\"\nport = {}\n\
             user = \"postgres\"\ndatabase = \"shop\"\nbin_dir = \"{}\"\n\n",
            server.host(),
            server.port(),
            server.programs().display()
        );
        let product = Product::new(PROGRAM, &source).unwrap();
        let archive = server.path().join("data/pg_wal");
        product.run(&["backup", "shop"]).unwrap().expect(0).unwrap();
        Self { server, product, archive, source }
    }

    /// Writes a mark and ends the file of the log that it is in: the file's name.
    fn mark(&self, number: u32) -> String {
        let write =
            format!("INSERT INTO marks VALUES ({number}); SELECT pg_walfile_name(pg_current_wal_lsn())");
        let name = self.server.sql("shop", &write).unwrap().trim().to_owned();
        self.server.sql("shop", "SELECT pg_switch_wal(); CHECKPOINT").unwrap();
        name
    }

    /// Runs it as the server does: in its data directory.
    fn here(&self, arguments: &[&str]) -> Ran {
        let mut command: Command = self.product.command(arguments);
        command.current_dir(self.server.path().join("data"));
        run(command).unwrap()
    }

    fn push(&self, name: &str) -> Ran {
        self.here(&["wal", "push", "shop", &format!("pg_wal/{name}"), "--json"])
    }

    fn get(&self, name: &str) -> (Ran, PathBuf) {
        let to = self.product.path().join("got");
        if to.exists() {
            std::fs::remove_file(&to).unwrap();
        }
        (self.here(&["wal", "get", "shop", name, to.to_str().unwrap()]), to)
    }
}

fn after(name: &str, by: u64) -> String {
    let (head, tail) = name.split_at(16);
    format!("{head}{:08X}", u64::from_str_radix(tail, 16).unwrap() + by)
}

#[test]
fn what_is_pushed_is_handed_to_a_server_that_recovers_and_a_hole_stops_it() {
    for programs in [programs().unwrap(), seaworthy_testkit::components::second_postgres_bin().unwrap()] {
        let estate = Estate::new(programs);
        let names: Vec<String> = (1..=4).map(|number| estate.mark(number)).collect();
        let last = names.last().unwrap();
        for name in &names {
            let pushed = estate.push(name).expect(0).unwrap();
            assert!(pushed.contains("\"stored\":"), "{pushed}");
            // Again, as a server does that has crashed before it knew: nothing more is stored.
            let again = estate.push(name).expect(0).unwrap();
            assert!(again.contains("\"stored\":0"), "{again}");
        }
        for name in &names {
            let (ran, to) = estate.get(name);
            ran.expect(0).unwrap();
            assert!(
                std::fs::read(&to).unwrap() == std::fs::read(estate.archive.join(name)).unwrap(),
                "{name}"
            );
        }
        // Behind the end: the one code that means it.
        for beyond in [after(last, 1), after(last, 40), "00000002.history".to_owned()] {
            let (ran, to) = estate.get(&beyond);
            assert_eq!(ran.code, Some(1), "{beyond}: {ran:?}");
            assert!(!to.exists());
        }
        // Nothing else may look like it.
        let elsewhere = estate.product.path().join("nowhere/got");
        let mut others: Vec<Vec<&str>> = vec![
            vec!["wal", "get", "shop"],
            vec!["wal", "get", "nobody", last, "got"],
            vec!["wal", "get", "shop", "no-name-of-a-file", "got"],
            vec!["wal", "get", "shop", last, elsewhere.to_str().unwrap()],
            vec!["wal", "get", "shop", last, "got", "--from", "nowhere"],
            vec!["wal", "get", "shop", last, "got", "--point", "ffffffff"],
            vec!["wal", "get", "shop", last, "got", "--no-such-option"],
            vec!["wal", "get", "shop", last, "got", "--config", "/nowhere.toml"],
        ];
        let before_all = after(&names[0], 0).replace(&names[0][16..], "00000001");
        others.push(vec!["wal", "get", "shop", &before_all, "got"]);
        for words in others {
            let ran = estate.here(&words);
            assert_eq!(ran.code, Some(200), "{words:?}: {ran:?}");
        }

        // What is in a copy is handed over from there.
        let second = estate.product.backup("shop").unwrap();
        assert_eq!(second["findings"].as_array().map(Vec::len), Some(0), "{second:#}");
        let third = estate.product.backup("shop").unwrap();
        assert!(third["copy"].is_string());
        let (ran, to) = estate.get(&names[1]);
        ran.expect(0).unwrap();
        assert!(std::fs::read(&to).unwrap() == std::fs::read(estate.archive.join(&names[1])).unwrap());

        // Whoever knows of no copies cannot say where the log ends.
        let mut elsewhere = estate.product.command(&["wal", "get", "shop", &after(last, 40), "got"]);
        elsewhere.args(["--dry-run"]);
        let words: Vec<String> = elsewhere
            .get_args()
            .map(|word| word.to_str().unwrap().to_owned())
            .map(|word| {
                if word == estate.product.state().to_str().unwrap() {
                    format!("{word}-of-another")
                } else {
                    word
                }
            })
            .collect();
        let mut elsewhere = Command::new(PROGRAM);
        elsewhere
            .args(words)
            .env_clear()
            .envs(estate.product.environment())
            .current_dir(estate.product.path());
        let ran = run(elsewhere).unwrap();
        assert!(ran.code == Some(200) && ran.stderr.contains("there is no catalogue"), "{ran:?}");

        // Nor whoever knows of fewer than there are.
        let (state, aside) = (estate.product.state(), estate.product.path().join("state-of-now"));
        let copy = |from: &Path, to: &Path| {
            let mut command = Command::new("cp");
            assert!(command.arg("-a").arg(from).arg(to).status().unwrap().success());
        };
        copy(&state, &aside);
        estate.product.backup("shop").unwrap();
        let newer = estate.product.path().join("state-of-later");
        std::fs::rename(&state, &newer).unwrap();
        copy(&aside, &state);
        let (ran, _) = estate.get(&after(last, 40));
        assert!(ran.code == Some(200) && ran.stderr.contains("are not known here"), "{ran:?}");
        std::fs::remove_dir_all(&state).unwrap();
        std::fs::rename(&newer, &state).unwrap();
        assert_eq!(estate.get(&after(last, 40)).0.code, Some(1));

        // A hole: the one after next is pushed, the next is not.
        let (left_out, kept) = (estate.mark(5), estate.mark(6));
        estate.push(&kept).expect(0).unwrap();
        let (ran, _) = estate.get(&left_out);
        assert_eq!(ran.code, Some(200), "{ran:?}");
        assert!(ran.stderr.contains("is missing, and more is kept"), "{}", ran.stderr);
        estate.push(&left_out).expect(0).unwrap();

        // Recovered by the server itself with what it is handed, file by file, as a standby or a person without this program's restore does.
        let to = estate.server.path().join("recovered");
        let id = &third["copy"].as_str().unwrap()[..12];
        let restore = ["restore", "shop", "--point", id, "--to", to.to_str().unwrap()];
        estate.product.run(&restore).unwrap().expect(0).unwrap();
        let handed = estate.server.path().join("handed");
        std::fs::create_dir(&handed).unwrap();
        let mut name = names[0].clone();
        loop {
            let (ran, got) = estate.get(&name);
            if ran.code == Some(1) {
                break;
            }
            ran.expect(0).unwrap();
            std::fs::copy(&got, handed.join(&name)).unwrap();
            name = after(&name, 1);
        }
        let conf = to.join("data/postgresql.auto.conf");
        let text = std::fs::read_to_string(&conf).unwrap();
        let own: String = text
            .lines()
            .filter(|line| !line.starts_with("recovery_target") && !line.starts_with("restore_command"))
            .map(|line| format!("{line}\n"))
            .collect();
        std::fs::write(&conf, format!("{own}restore_command = 'cp {}/%f %p'\n", handed.display())).unwrap();
        let beside = estate.server.start_beside(&to).unwrap();
        let marks = beside.sql("shop", "SELECT string_agg(n::text, ',' ORDER BY n) FROM marks").unwrap();
        assert_eq!(marks.trim(), "1,2,3,4,5,6");

        // The newest copy is a dump, which holds no log and hides none.
        let dump = estate.source.replace("mode = \"continuous\"\nbase_every = \"1d\"\n", "");
        estate.product.configure(&dump).unwrap();
        estate.product.run(&["backup", "shop"]).unwrap().expect(0).unwrap();
        estate.product.configure(&estate.source).unwrap();
        let (ran, to) = estate.get(&names[1]);
        ran.expect(0).unwrap();
        assert!(std::fs::read(&to).unwrap() == std::fs::read(estate.archive.join(&names[1])).unwrap());
        assert_eq!(estate.get(&after(last, 40)).0.code, Some(1));
    }
}

#[test]
fn what_does_not_belong_is_not_kept() {
    let estate = Estate::new(programs().unwrap());
    let name = estate.mark(1);
    estate.push(&name).expect(0).unwrap();
    let place = estate.product.path().join("pg_wal");
    std::fs::create_dir(&place).unwrap();
    let put = |name: &str, bytes: &[u8]| -> String {
        std::fs::write(place.join(name), bytes).unwrap();
        place.join(name).to_str().unwrap().to_owned()
    };
    let refused = |path: &str, words: &str| {
        let ran = estate.product.run(&["wal", "push", "shop", path]).unwrap();
        assert!(ran.code != Some(0) && ran.stderr.contains(words), "{path}: {ran:?}");
    };
    let whole = std::fs::read(estate.archive.join(&name)).unwrap();
    // The same name, and something else in it: a record whose checksum is right and that was never written there cannot be made here, so
    // that zeros behind a switch stand for it.
    let mut other = whole.clone();
    let last = other.len() - 1;
    other[last] = 1;
    refused(&put(&name, &other), "other bytes are kept");
    let next = estate.mark(2);
    let bytes = std::fs::read(estate.archive.join(&next)).unwrap();
    let mut flipped = bytes.clone();
    flipped[200] ^= 1;
    refused(&put(&next, &flipped), &next);
    refused(&put(&next, &bytes[..bytes.len() / 2]), &next);
    refused(&put(&after(&next, 7), &bytes), &after(&next, 7));
    refused(&put("postgresql.conf", b"port = 1"), "postgresql.conf");
    refused(&put("00000002.history", b"no history"), "history of timeline 2");
    // Of another cluster.
    let foreign = Estate::new(programs().unwrap());
    let theirs = foreign.mark(1);
    refused(foreign.archive.join(&theirs).to_str().unwrap(), "cluster");
    let ran = foreign.here(&["wal", "push", "shop", &format!("pg_wal/{theirs}")]);
    ran.expect(0).unwrap();
    // None of it was kept.
    let (ran, _) = estate.get(&next);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    estate.push(&next).expect(0).unwrap();

    // A history is kept under its name, and is what it was.
    let history = "1\t0/5000000\tno recovery target specified\n";
    let path = put("00000002.history", history.as_bytes());
    for _ in 0..2 {
        estate.product.run(&["wal", "push", "shop", &path]).unwrap().expect(0).unwrap();
    }
    let (ran, to) = estate.get("00000002.history");
    ran.expect(0).unwrap();
    assert_eq!(std::fs::read_to_string(to).unwrap(), history);
    refused(&put("00000002.history", b"1\t0/6000000\tno recovery target specified\n"), "another one is kept");
    let (ran, _) = estate.get("00000003.history");
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(Path::new(&path).exists());
}

/// `wal serve`; killed when dropped.
struct Open(Child);

impl Open {
    /// Begins it; the server's user may write to the socket.
    fn begin(estate: &Estate, socket: &Path) -> Self {
        let mut command =
            estate.product.command(&["wal", "serve", "shop", "--socket", socket.to_str().unwrap()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let began = Instant::now();
        while UnixStream::connect(socket).is_err() {
            assert!(child.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(10));
        }
        if let Some(user) = server_user().unwrap() {
            std::os::unix::fs::chown(socket, Some(user.uid), Some(user.gid)).unwrap();
        }
        Self(child)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.kill().expect("a child of ours can be killed");
        self.0.wait().expect("a child of ours can be waited for");
    }
}

/// Runs it in the server's data directory, without a configuration, a key, or anything else of the product's.
fn bare(estate: &Estate, socket: &Path, verb: &str, words: &[&str]) -> Ran {
    let mut command = Command::new(PROGRAM);
    command.args(["wal", verb, "--socket"]).arg(socket).args(words);
    command.env_clear().env("HOME", "/nonexistent").current_dir(estate.server.path().join("data"));
    run(command).unwrap()
}

#[test]
fn a_server_archives_and_recovers_over_a_socket_without_a_key() {
    for programs in [programs().unwrap(), seaworthy_testkit::components::second_postgres_bin().unwrap()] {
        let estate = Estate::with(programs, &["archive_mode=on"]);
        let server = &estate.server;
        let socket = server.path().join("wal.sock");
        let own = server.path().join("seaworthy");
        std::fs::copy(PROGRAM, &own).unwrap();
        let first = estate.product.backup("shop").unwrap();
        let (own, at) = (own.display(), socket.display());
        server
            .sql(
                "shop",
                &format!("ALTER SYSTEM SET archive_command = '{own} wal push --socket {at} shop \"%p\"'"),
            )
            .unwrap();
        server.sql("shop", "SELECT pg_reload_conf()").unwrap();
        let archived = |name: &str| {
            let began = Instant::now();
            let ask = "SELECT coalesce(max(last_archived_wal), '') FROM pg_stat_archiver";
            while server.sql("shop", ask).unwrap().trim() < name {
                let told = "SELECT last_failed_wal, failed_count FROM pg_stat_archiver";
                assert!(
                    began.elapsed() < Duration::from_secs(90),
                    "{name}: {}",
                    server.sql("shop", told).unwrap()
                );
                std::thread::sleep(Duration::from_millis(50));
            }
        };
        // Nobody answers: the server keeps its log. Then somebody does, is killed, and is there again.
        let mut last = estate.mark(1);
        for round in 2..5 {
            let open = Open::begin(&estate, &socket);
            archived(&last);
            drop(open);
            last = estate.mark(round);
        }
        let mut open = Open::begin(&estate, &socket);
        archived(&last);
        let told = estate.product.run(&["wal", "status", "shop", "--json"]).unwrap().expect(0).unwrap();
        assert!(told.contains("\"holes\":0"), "{told}");

        // What others store meanwhile is seen: the log that was pushed is in a copy now, and no longer in the journal.
        let got = estate.product.path().join("got");
        let got = got.to_str().unwrap();
        bare(&estate, &socket, "get", &["shop", &last, got]).expect(0).unwrap();
        for _ in 0..2 {
            let copy = estate.product.backup("shop").unwrap();
            assert_eq!(copy["findings"].as_array().map(Vec::len), Some(0), "{copy:#}");
        }
        bare(&estate, &socket, "get", &["shop", &last, got]).expect(0).unwrap();
        let beyond = bare(&estate, &socket, "get", &["shop", &after(&last, 40), got]);
        assert_eq!(beyond.code, Some(1), "{beyond:?}");

        // Nothing else may look like the end of the log.
        let nowhere = server.path().join("nowhere.sock");
        for (socket, words, told) in [
            (&nowhere, vec!["shop", &last, got], "nobody listens there"),
            (&socket, vec!["other", &last, got], "this is shop/cluster in"),
            (&socket, vec!["shop", &last, got, "--source", "other"], "this is shop/cluster in"),
            (&socket, vec!["shop", &last, got, "--from", "other"], "this is shop/cluster in"),
            (&socket, vec!["shop", "no-name-of-a-file", got], "understand the name"),
            (&socket, vec!["shop", &last, got, "--point", "ffffffff"], "0 copies are called"),
        ] {
            let ran = bare(&estate, socket, "get", &words);
            assert!(ran.code == Some(200) && ran.stderr.contains(told), "{words:?}: {ran:?}");
        }
        let ran = bare(&estate, &nowhere, "push", &["shop", &format!("pg_wal/{last}")]);
        assert!(ran.code == Some(1) && ran.stderr.contains("nobody listens there"), "{ran:?}");
        let ran = bare(&estate, &socket, "push", &["shop", "postgresql.conf"]);
        assert!(ran.code == Some(20) && ran.stderr.contains("understand the name"), "{ran:?}");

        // Whoever says something else, or nothing more, harms nobody.
        for words in [&b"GET / HTTP/1.0\r\n\r\n"[..], &[2, 0, 0, 0, b'{', b'}'], &[9, 0, 0, 0, b'{'], &[]] {
            let mut stream = UnixStream::connect(&socket).unwrap();
            stream.write_all(words).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            assert_eq!(stream.read_to_end(&mut answer).unwrap_or(0), 0);
        }
        // Another version is told so.
        let other =
            "{\"schema\":\"seaworthy.wal-call/0\",\"wish\":\"hand\",\"service\":\"shop\",\"name\":\"x\"}";
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(&u32::try_from(other.len()).unwrap().to_le_bytes()).unwrap();
        stream.write_all(other.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(String::from_utf8_lossy(&answer).contains("both sides must be the same version"));
        // Two of them at one place: the second says so. What is no socket is not touched.
        let second = ["wal", "serve", "shop", "--socket", socket.to_str().unwrap()];
        estate.product.run(&second).unwrap().expect(11).unwrap();
        let file = server.path().join("data/postgresql.conf");
        let third = ["wal", "serve", "shop", "--socket", file.to_str().unwrap()];
        estate.product.run(&third).unwrap().expect(20).unwrap();
        assert!(file.exists());

        // The server recovers by itself, to the last row, from the first copy on.
        let expected = server.sql("shop", "SELECT count(*), sum(n) FROM marks").unwrap();
        let to = server.path().join("recovered");
        let id = &first["copy"].as_str().unwrap()[..12];
        let restore = ["restore", "shop", "--point", id, "--to", to.to_str().unwrap()];
        estate.product.run(&restore).unwrap().expect(0).unwrap();
        let conf = to.join("data/postgresql.auto.conf");
        let text = std::fs::read_to_string(&conf).unwrap();
        let kept: String = text
            .lines()
            .filter(|line| {
                !["recovery_target", "restore_command", "archive"].iter().any(|name| line.starts_with(name))
            })
            .map(|line| format!("{line}\n"))
            .collect();
        let command =
            format!("restore_command = '{own} wal get --socket {at} shop %f \"%p\"'\narchive_mode = off\n");
        std::fs::write(&conf, format!("{kept}{command}")).unwrap();
        let beside = server.start_beside(&to).unwrap();
        assert_eq!(beside.sql("shop", "SELECT count(*), sum(n) FROM marks").unwrap(), expected);
        assert_eq!(
            beside.sql("shop", "SELECT count(*) FROM orders").unwrap(),
            server.sql("shop", "SELECT count(*) FROM orders").unwrap()
        );

        // A copy that cannot be read is named, and hides nothing of the others.
        let snapshot = estate.product.repository().join("snapshots").join(first["copy"].as_str().unwrap());
        let aside = estate.product.path().join("snapshot");
        std::fs::rename(&snapshot, &aside).unwrap();
        let ran = estate.product.run(&["wal", "status", "shop"]).unwrap();
        assert!(ran.code == Some(7) && ran.stdout.contains(id), "{ran:?}");
        assert!(ran.stdout.contains("any moment from"), "{}", ran.stdout);
        std::fs::rename(&aside, &snapshot).unwrap();
        estate.product.run(&["wal", "status", "shop"]).unwrap().expect(0).unwrap();

        // Asked to stop, it goes and takes its socket with it.
        let pid = rustix::process::Pid::from_child(&open.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let ended = wait(&mut open.0, Duration::from_secs(20)).unwrap().unwrap();
        assert_eq!((ended.code(), socket.exists()), (Some(0), false));
    }
}

#[test]
fn a_standby_made_of_copies_follows_its_primary_and_the_repository() {
    for programs in [programs().unwrap(), seaworthy_testkit::components::second_postgres_bin().unwrap()] {
        let estate = Estate::with(programs, &["archive_mode=on", "max_connections=120"]);
        let (server, socket) = (&estate.server, estate.server.path().join("wal.sock"));
        // A copy of the program that the server's user can run.
        let own = server.path().join("sea worthy");
        std::fs::copy(PROGRAM, &own).unwrap();
        let archive = format!("\"{}\" wal push --socket {} shop \"%p\"", own.display(), socket.display());
        server.sql("shop", &format!("ALTER SYSTEM SET archive_command = '{archive}'")).unwrap();
        server.sql("shop", "SELECT pg_reload_conf()").unwrap();
        let open = Open::begin(&estate, &socket);
        let restore = |words: &[&str]| {
            let mut command = Command::new(&own);
            command.args(estate.product.arguments(&[&["restore", "shop", "--standby"], words].concat()));
            command.env_clear().envs(estate.product.environment()).current_dir(estate.product.path());
            run(command).unwrap()
        };
        let (lone, near) = (server.path().join("lone"), server.path().join("near"));
        let primary = format!("host={} port=5432 user=postgres", server.host());
        let at = |path: &Path| path.to_str().unwrap().to_owned();
        for (words, told) in [
            (vec!["--to", &at(&lone)], "where the standby gets"),
            (vec!["--to", &at(&lone), "--primary", "host=a password=b"], "holds a password"),
            (vec!["--to", &at(&lone), "--primary", &primary, "--until", "latest"], "cannot be used with"),
            (vec!["--primary", &primary], "--to"),
            (vec!["--to", &at(&lone), "--slot", "s", "--socket", "s"], "--primary"),
        ] {
            let ran = restore(&words);
            assert!(ran.code == Some(2) && ran.stderr.contains(told) && !lone.exists(), "{words:?}: {ran:?}");
        }
        let count = |beside: &seaworthy_testkit::postgres::Beside<'_>, wanted: &str| {
            let began = Instant::now();
            let ask = "SELECT coalesce(string_agg(n::text, ',' ORDER BY n), '') FROM marks";
            // One that has not come so far lets nobody in.
            while beside.sql("shop", ask).map_or(true, |told| told.trim() != wanted) {
                assert!(began.elapsed() < Duration::from_secs(60), "{wanted}: {:?}", beside.sql("shop", ask));
                std::thread::sleep(Duration::from_millis(100));
            }
        };
        estate.mark(1);
        // From the repository alone, file by file.
        let rehearsed = restore(&["--to", &at(&lone), "--socket", &at(&socket), "--dry-run"]);
        assert!(rehearsed.stdout.contains("would make a standby of shop/cluster"), "{rehearsed:?}");
        restore(&["--to", &at(&lone), "--socket", &at(&socket)]).expect(0).unwrap();
        let alone = server.begin_beside(&lone).unwrap();
        count(&alone, "1");
        estate.mark(2);
        count(&alone, "1,2");
        // From the primary too: what is in no file yet that has ended.
        let words = ["--to", &at(&near), "--socket", &at(&socket), "--primary", &primary, "--slot", "near"];
        server.sql("shop", "SELECT pg_create_physical_replication_slot('near')").unwrap();
        restore(&words).expect(0).unwrap();
        let follower = server.begin_beside(&near).unwrap();
        server.sql("shop", "INSERT INTO marks VALUES (3)").unwrap();
        count(&follower, "1,2,3");
        assert_eq!(
            server
                .sql("shop", "SELECT active FROM pg_replication_slots WHERE slot_name = 'near'")
                .unwrap()
                .trim(),
            "t"
        );
        // It has what its primary has, as far as a standby must.
        assert_eq!(follower.sql("shop", "SHOW max_connections").unwrap().trim(), "120");
        // The primary is gone, and the one takes its place; the other knows nothing of what was in no file.
        server.stop().unwrap();
        follower.sql("shop", "SELECT pg_promote()").unwrap();
        follower.sql("shop", "INSERT INTO marks VALUES (4)").unwrap();
        count(&follower, "1,2,3,4");
        assert_eq!(alone.sql("shop", "SELECT pg_is_in_recovery()").unwrap().trim(), "t");
        // Where nobody answers it stops, rather than take that for the end of the log.
        drop(open);
        let began = Instant::now();
        while let Ok(told) = alone.sql("shop", "SELECT pg_is_in_recovery()") {
            assert!(told.trim() == "t" && began.elapsed() < Duration::from_secs(60), "{told}");
            std::thread::sleep(Duration::from_millis(100));
        }
        let log = std::fs::read_to_string(lone.join("server.log")).unwrap();
        assert!(log.contains("exited with exit code 200"), "{log}");
    }
}

#[test]
fn what_is_left_of_a_data_directory_is_not_fetched_again() {
    let estate = Estate::with(programs().unwrap(), &["archive_mode=off"]);
    let server = &estate.server;
    let place = server.path().join("space");
    std::fs::create_dir_all(&place).unwrap();
    if let Some(user) = server_user().unwrap() {
        std::os::unix::fs::chown(&place, Some(user.uid), Some(user.gid)).unwrap();
    }
    server.sql("shop", &format!("CREATE TABLESPACE apart LOCATION '{}'", place.display())).unwrap();
    server.sql("shop", "CREATE TABLE far TABLESPACE apart AS SELECT i, repeat(md5(i::text), 9) t FROM generate_series(1, 20000) i").unwrap();
    estate.product.run(&["backup", "shop"]).unwrap().expect(0).unwrap();
    let before = server.fingerprint("shop").unwrap();
    // Written since, and then lost: half of a table, and a whole one.
    server
        .sql("shop", "UPDATE orders SET note = 'changed' WHERE id % 2 = 0; DROP TABLE marks; CHECKPOINT")
        .unwrap();
    server.stop().unwrap();
    let (old, to) = (server.path().join("data"), server.path().join("new"));
    let at = |path: &Path| path.to_str().unwrap().to_owned();
    let restore = ["restore", "shop", "--to", &at(&to), "--reuse", &at(&old)];
    let told = estate.product.run(&restore).unwrap().expect(0).unwrap();
    assert!(told.contains("were the same in"), "{told}");
    let json: serde_json::Value = {
        let to = server.path().join("again");
        let words = ["restore", "shop", "--to", &at(&to), "--reuse", &at(&old), "--json"];
        let told = estate.product.run(&words).unwrap().expect(0).unwrap();
        serde_json::from_str(told.lines().last().unwrap()).unwrap()
    };
    let (written, fetched) = (&json["restore"]["written_bytes"], &json["restore"]["fetched_bytes"]);
    assert!(fetched.as_u64().unwrap() * 10 < written.as_u64().unwrap(), "{json:#}");
    let beside = server.start_beside(&to).unwrap();
    assert_eq!(beside.fingerprint("shop").unwrap(), before);
    drop(beside);
    // What cannot be taken from there is said before anything is done.
    let nowhere = server.path().join("nowhere");
    let never = server.path().join("never");
    let (to, old) = (at(&never), at(&nowhere));
    for more in [&[][..], &["--dry-run"]] {
        let words = [&["restore", "shop", "--to", &to, "--reuse", &old][..], more].concat();
        let ran = estate.product.run(&words).unwrap();
        assert!(ran.code == Some(10) && ran.stderr.contains("to be reused") && !never.exists(), "{ran:?}");
    }
}
