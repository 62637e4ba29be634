//! Base backups and the log between them: every copy is proven, whatever it was made of, and costs what was written since.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use std::path::Path;

use seaworthy_testkit::load::{DEPOT, Load, PARCELS, TILL, prove};
use seaworthy_testkit::postgres::{Server, position, programs, shop};
use seaworthy_testkit::product::Product;
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_seaworthy");

fn source(server: &Server, every: &str) -> String {
    format!(
        "[services.shop.sources.cluster]\nkind = \"postgres\"\nmode = \"continuous\"\nbase_every = \"{every}\"\nhost = \"{}\"\nport = {}\n\
         user = \"postgres\"\ndatabase = \"shop\"\nbin_dir = \"{}\"\n\n",
        server.host(),
        server.port(),
        server.programs().display()
    )
}

/// What the witness of a copy says of it as a base backup.
fn physical(product: &Product, copy: &Value) -> Value {
    let arguments = ["dump", copy.as_str().unwrap(), "/.seaworthy/witness.json"];
    let witness = product.restic(Path::new("restic"), &arguments).unwrap();
    serde_json::from_str::<Value>(&witness).unwrap()["witness"]["physical"].clone()
}

fn slots(server: &Server) -> String {
    server
        .sql("shop", "SELECT string_agg(slot_name || ' ' || active, ',') FROM pg_replication_slots")
        .unwrap()
}

#[test]
fn the_log_since_the_copy_before_is_a_copy_and_every_one_is_proven_under_write_load() {
    for programs in [programs().unwrap(), seaworthy_testkit::components::second_postgres_bin().unwrap()] {
        let server = Server::start_from(programs, &["autovacuum_naptime=1s"]).unwrap();
        server.create("shop", &[]).unwrap();
        server.sql("shop", &shop(1_000)).unwrap();
        server.sql("shop", PARCELS).unwrap();
        let product = Product::new(PROGRAM, &source(&server, "1d")).unwrap();
        let mut load = Load::begin(&server, "shop", &[TILL, TILL, DEPOT]);
        let first = prove(&product, "shop", 0);
        let base = physical(&product, &first["copy"]);
        for round in 1..4 {
            let next = prove(&product, "shop", round);
            load.still_writes();
            let now = physical(&product, &next["copy"]);
            assert_eq!(now["base"], base["base"], "no new base backup");
            assert_eq!((&now["from"], &now["manifest"]), (&base["from"], &base["manifest"]));
            assert!(now["log"].as_object().unwrap().len() >= base["log"].as_object().unwrap().len());
            let bytes = |of: &Value| of.as_u64().unwrap();
            let (read, all) = (bytes(&next["sizes"]["read_bytes"]), bytes(&next["sizes"]["restore_bytes"]));
            let log = all - bytes(&base["base"]["bytes"]);
            assert!(read <= log, "only the log is read: {read} of {log} in {all}");
        }
        assert_eq!(slots(&server).matches("seaworthy_").count(), 1, "{}", slots(&server));
    }
}

fn busy_server() -> Server {
    let server = Server::start(&["autovacuum_naptime=1s", "archive_timeout=0"]).unwrap();
    server.create("shop", &[]).unwrap();
    server.sql("shop", &shop(1_000)).unwrap();
    // Otherwise the newest that the data hold is older than is promised.
    server.sql("shop", "INSERT INTO orders (customer, placed) VALUES (1, now())").unwrap();
    server
}

fn backup(product: &Product) -> Value {
    product.backup("shop").unwrap_or_else(|error| panic!("{error}"))
}

fn codes_of(backup: &Value) -> Vec<String> {
    let findings = backup["findings"].as_array().unwrap();
    findings.iter().map(|finding| finding["code"].as_str().unwrap().to_owned()).collect()
}

/// Whether a copy has a base backup of its own, and the log since the copy before beside it.
fn kind(product: &Product, backup: &Value) -> (bool, bool) {
    let physical = physical(product, &backup["copy"]);
    (physical["base"]["at"] == backup["point"], physical.get("between").is_some())
}

#[test]
fn an_idle_server_and_one_that_ended_its_file_of_the_log_are_followed() {
    let server = busy_server();
    let product = Product::new(PROGRAM, &source(&server, "1d")).unwrap();
    assert_eq!(kind(&product, &prove(&product, "shop", 0)), (true, false));
    // Nothing at all has been written since.
    assert_eq!(kind(&product, &prove(&product, "shop", 1)), (false, false));
    for round in 2..4 {
        server.sql("shop", "SELECT pg_switch_wal()").unwrap();
        assert_eq!(kind(&product, &prove(&product, "shop", round)), (false, false));
    }
    server.sql("shop", "INSERT INTO orders (customer, placed) SELECT 1, now() FROM generate_series(1, 100000); SELECT pg_switch_wal()").unwrap();
    assert_eq!(kind(&product, &prove(&product, "shop", 4)), (false, false));
    server.restart("immediate").unwrap();
    assert_eq!(kind(&product, &prove(&product, "shop", 5)), (false, false));
}

#[test]
fn a_base_backup_that_is_due_brings_the_log_since_the_copy_before() {
    let server = busy_server();
    let product = Product::new(PROGRAM, &source(&server, "1s")).unwrap();
    let mut load = Load::begin(&server, "shop", &[TILL]);
    let first = prove(&product, "shop", 0);
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    server.sql("shop", "SELECT pg_switch_wal()").unwrap();
    let second = prove(&product, "shop", 1);
    load.still_writes();
    assert_eq!(kind(&product, &second), (true, true));
    let between = physical(&product, &second["copy"])["between"].clone();
    assert_eq!(between["since"], first["point"]);
    assert_eq!(between["from"], physical(&product, &first["copy"])["until"]);
}

#[test]
fn where_the_log_is_not_to_be_had_a_base_backup_is_taken_and_the_gap_is_told() {
    let server = busy_server();
    let product = Product::new(PROGRAM, &source(&server, "1d")).unwrap();
    prove(&product, "shop", 0);
    let doctor = product.run(&["doctor"]).unwrap();
    assert!(doctor.stdout.contains("max_slot_wal_keep_size is -1"), "{}", doctor.stdout);
    let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots";
    server.sql("shop", drop).unwrap();
    let second = backup(&product);
    assert_eq!((kind(&product, &second), codes_of(&second)), ((true, false), vec!["TM-10".to_owned()]));
    // It has made a slot again.
    assert_eq!(kind(&product, &prove(&product, "shop", 2)), (false, false));
}

#[test]
fn a_server_that_cannot_load_its_compiler_is_backed_up() {
    // What is installed here of it beside the system's own lacks the library.
    let programs = seaworthy_testkit::components::second_postgres_bin().unwrap();
    let server = Server::start_from(programs, &["jit=on"]).unwrap();
    server.create("shop", &[]).unwrap();
    server.sql("shop", &shop(1_000)).unwrap();
    server.sql("shop", "ALTER SYSTEM SET jit_above_cost = 10; SELECT pg_reload_conf()").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    let asked = server.sql("shop", "SELECT sum(id) FROM orders");
    assert!(asked.is_err_and(|error| error.to_string().contains("could not load library")), "it can compile");
    let product = Product::new(PROGRAM, &source(&server, "1d")).unwrap();
    backup(&product);
}

#[test]
fn doctor_says_what_to_change_so_that_the_promise_can_be_kept() {
    let server = busy_server();
    let continuous = source(&server, "1d");
    let logical = continuous.replace("mode = \"continuous\"\n", "").replace("base_every = \"1d\"\n", "");
    let of = |promise: &str, source: &str| {
        let product = Product::new(PROGRAM, &format!("[services.shop]\n{promise}\n{source}")).unwrap();
        let said = product.run(&["doctor"]).unwrap().expect(0).unwrap();
        said.lines().filter(|line| line.contains("TM-12")).map(str::to_owned).collect::<Vec<_>>()
    };
    let strict = "rpo = \"15m\"\nrto = \"10m\"\n";
    let said = of(strict, &logical);
    assert_eq!(said.len(), 2, "{said:#?}");
    assert!(
        said[0].contains("mode = \"continuous\"") && said[1].contains("mode = \"physical\""),
        "{said:#?}"
    );
    assert!(of(strict, &continuous).is_empty());
    assert!(of("rpo = \"1d\"\nrto = \"4h\"\n", &logical).is_empty());
    // Once a drill has shown that it is fast enough.
    let product =
        Product::new(PROGRAM, &format!("[services.shop]\nrpo = \"1d\"\nrto = \"10m\"\n{logical}")).unwrap();
    let doctor = || product.run(&["doctor"]).unwrap().expect(0).unwrap();
    assert!(doctor().contains("TM-12"));
    backup(&product);
    product.run(&["drill", "shop"]).unwrap().expect(0).unwrap();
    assert!(!doctor().contains("TM-12"));
}

#[test]
fn a_tablespace_that_was_made_meanwhile_needs_a_base_backup_and_loses_no_moment_before_it() {
    let server = busy_server();
    let product = Product::new(PROGRAM, &source(&server, "1d")).unwrap();
    prove(&product, "shop", 0);
    let place = server.path().join("space");
    std::fs::create_dir(&place).unwrap();
    if let Some(user) = seaworthy_testkit::postgres::server_user().unwrap() {
        std::os::unix::fs::chown(&place, Some(user.uid), Some(user.gid)).unwrap();
    }
    let make = format!("CREATE TABLESPACE fast LOCATION '{}'", place.display());
    server.sql("shop", "CREATE TABLE marks (n int)").unwrap();
    server.sql("shop", &make).unwrap();
    let made = mark(&server, 1).time;
    server.sql("shop", "CREATE TABLE quick (n int) TABLESPACE fast; INSERT INTO quick VALUES (1)").unwrap();
    let second = prove(&product, "shop", 1);
    assert_eq!(kind(&product, &second), (true, true));
    // The log that leads from the first copy to the second would make it where the source has it.
    let error = until(&product, &server, &made, "never").unwrap_err();
    assert!(error.contains("a tablespace is made at"), "{error}");
    // Made and dropped: nothing tells it but the log.
    let other = server.path().join("other");
    std::fs::rename(&place, &other).ok();
    server.sql("shop", "DROP TABLE quick").unwrap();
    std::fs::rename(&other, &place).ok();
    server.sql("shop", "DROP TABLESPACE fast").unwrap();
    prove(&product, "shop", 2);
    server.sql("shop", &make).unwrap();
    server.sql("shop", "DROP TABLESPACE fast").unwrap();
    let fourth = prove(&product, "shop", 3);
    assert_eq!(kind(&product, &fourth), (true, true));
}

#[test]
fn a_copy_that_was_shown_to_be_bad_is_not_built_upon() {
    let server = busy_server();
    let product = Product::new(PROGRAM, &source(&server, "1d")).unwrap();
    prove(&product, "shop", 0);
    let second = backup(&product);
    assert_eq!(kind(&product, &second), (false, false));
    // A pack of the first copy's is damaged: the second is as bad.
    let mut packs: Vec<_> = walk(&product.repository().join("data"));
    packs.sort_by_key(|path| std::cmp::Reverse(std::fs::metadata(path).unwrap().len()));
    let mut bytes = std::fs::read(&packs[0]).unwrap();
    bytes[5_000] ^= 1;
    writable(&packs[0]);
    std::fs::write(&packs[0], bytes).unwrap();
    product.drill("shop", 5).unwrap();
    let third = backup(&product);
    assert_eq!(kind(&product, &third), (true, false));
}

fn writable(path: &Path) {
    let mut mode = std::fs::metadata(path).unwrap().permissions();
    #[expect(clippy::permissions_set_readonly_false, reason = "a test's own file")]
    mode.set_readonly(false);
    std::fs::set_permissions(path, mode).unwrap();
}

fn walk(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}

/// Restores to a moment, and starts what came of it.
fn until(product: &Product, server: &Server, moment: &str, name: &str) -> Result<String, String> {
    let to = server.path().join(name);
    let ran = product.run(&["restore", "shop", "--until", moment, "--to", to.to_str().unwrap()]).unwrap();
    if ran.code != Some(0) {
        assert!(!to.exists() || std::fs::read_dir(&to).unwrap().next().is_none(), "nothing is left of it");
        return Err(ran.stderr);
    }
    let beside = server.start_beside(&to).unwrap();
    assert_eq!(beside.sql("shop", "SELECT timeline_id FROM pg_control_checkpoint()").unwrap().trim(), "2");
    let marks = beside.sql("shop", "SELECT string_agg(n::text, ',' ORDER BY n) FROM marks").unwrap();
    // It can be written to.
    beside.sql("shop", "INSERT INTO marks VALUES (1000)").unwrap();
    drop(beside);
    std::fs::remove_dir_all(&to).unwrap();
    Ok(marks.trim().to_owned())
}

/// What is known of the moment right after a mark was set.
struct Mark {
    time: String,
    lsn: String,
    xid: String,
}

fn mark(server: &Server, number: u32) -> Mark {
    let xid = server
        .sql(
            "shop",
            &format!("BEGIN; INSERT INTO marks VALUES ({number}); SELECT pg_current_xact_id(); COMMIT;"),
        )
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    let now = server
        .sql("shop", "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') || ' ' || pg_current_wal_insert_lsn()")
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    let (time, lsn) = now.trim().split_once(' ').unwrap();
    Mark { time: time.to_owned(), lsn: lsn.to_owned(), xid: xid.trim().to_owned() }
}

#[test]
fn any_moment_since_the_first_copy_comes_back_to_the_row() {
    for programs in [programs().unwrap(), seaworthy_testkit::components::second_postgres_bin().unwrap()] {
        let server = Server::start_from(programs, &[]).unwrap();
        server.create("shop", &[]).unwrap();
        server.sql("shop", &shop(1_000)).unwrap();
        server.sql("shop", "CREATE TABLE marks (n int)").unwrap();
        let product = Product::new(PROGRAM, &source(&server, "1d")).unwrap();
        let before = mark(&server, 1);
        backup(&product);
        let (two, three) = (mark(&server, 2), mark(&server, 3));
        server.sql("shop", "SELECT pg_create_restore_point('before the deploy')").unwrap();
        mark(&server, 4);
        let second = backup(&product);
        let five = mark(&server, 5);
        server.sql("shop", "SELECT pg_switch_wal()").unwrap();
        let six = mark(&server, 6);
        // A base backup of its own from here on: what lies between is beside it.
        product.configure(&source(&server, "1s")).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1_100));
        let third = backup(&product);
        assert_eq!(kind(&product, &third), (true, true));
        let seven = mark(&server, 7);
        let tell = |moment: &str, name: &str| until(&product, &server, moment, name);
        for (number, (moment, expected)) in [
            (two.time.clone(), "1,2"),
            (three.time.clone(), "1,2,3"),
            (five.time.clone(), "1,2,3,4,5"),
            (six.time.clone(), "1,2,3,4,5,6"),
            ("latest".to_owned(), "1,2,3,4,5,6"),
            // The next record is the restore point, and the end of the file.
            (format!("lsn:{}", three.lsn), "1,2,3"),
            (format!("lsn:{}", five.lsn), "1,2,3,4,5"),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(tell(&moment, &format!("r{number}")).as_deref(), Ok(expected), "{moment}");
        }
        // Of what is named otherwise, nobody knows which copy holds it: one is named, or the newest is taken.
        let second = second["copy"].as_str().unwrap();
        let of = |moment: &str, copy: &str, name: &str| {
            let to = server.path().join(name);
            let ran = product
                .run(&["restore", "shop", "--until", moment, "--point", copy, "--to", to.to_str().unwrap()])
                .unwrap();
            ran.expect(0).unwrap();
            let beside = server.start_beside(&to).unwrap();
            beside
                .sql("shop", "SELECT string_agg(n::text, ',' ORDER BY n) FROM marks")
                .unwrap()
                .trim()
                .to_owned()
        };
        assert_eq!(of(&format!("xid:{}", two.xid), second, "x1"), "1,2");
        assert_eq!(of("name:before the deploy", second, "x2"), "1,2,3");
        assert_eq!(of("immediate", second, "x3"), "1");
        for (moment, said) in [
            (seven.time.as_str(), "while the server lives: seaworthy backup shop"),
            (before.time.as_str(), "the oldest moment is"),
            ("2026-11-30T12:00:00", "does not say its time zone"),
            ("name:never", "before it comes"),
            ("xid:4000000000", "before it comes"),
            ("lsn:FFFF/0", "while the server lives"),
        ] {
            let error = tell(moment, "never").unwrap_err();
            assert!(error.contains(said), "{moment}: {error}");
        }
    }
}

#[test]
fn a_server_that_is_given_the_moment_itself_stops_where_we_do() {
    let server = Server::start(&[]).unwrap();
    server.create("shop", &[]).unwrap();
    server.sql("shop", &shop(1_000)).unwrap();
    server.sql("shop", "CREATE TABLE marks (n int)").unwrap();
    let product = Product::new(PROGRAM, &source(&server, "1d")).unwrap();
    backup(&product);
    let mut load = Load::begin(
        &server,
        "shop",
        &[
            "INSERT INTO marks VALUES (i + 10)",
            "INSERT INTO marks VALUES (-i); IF i % 3 = 0 THEN ROLLBACK; END IF",
        ],
    );
    let marks: Vec<Mark> = (1..4).map(|number| mark(&server, number)).collect();
    load.still_writes();
    server.sql("shop", "SELECT pg_create_restore_point('here')").unwrap();
    mark(&server, 4);
    drop(load);
    backup(&product);
    let rows = |beside: &seaworthy_testkit::postgres::Beside<'_>| {
        beside.sql("shop", "SELECT count(*), sum(n), sum(n::int8 * n) FROM marks").unwrap()
    };
    for (number, (moment, setting)) in [
        (marks[0].time.clone(), format!("recovery_target_time = '{}'", marks[0].time.replace('Z', "+00"))),
        (marks[2].time.clone(), format!("recovery_target_time = '{}'", marks[2].time.replace('Z', "+00"))),
        (format!("xid:{}", marks[1].xid), format!("recovery_target_xid = '{}'", marks[1].xid)),
        (format!("lsn:{}", marks[1].lsn), format!("recovery_target_lsn = '{}'", marks[1].lsn)),
        ("name:here".to_owned(), "recovery_target_name = 'here'".to_owned()),
        ("immediate".to_owned(), "recovery_target = 'immediate'".to_owned()),
    ]
    .into_iter()
    .enumerate()
    {
        let (ours, theirs) =
            (server.path().join(format!("o{number}")), server.path().join(format!("t{number}")));
        for (until, to) in [(moment.as_str(), &ours), ("latest", &theirs)] {
            product
                .run(&[
                    "restore",
                    "shop",
                    "--until",
                    until,
                    "--point",
                    "latest",
                    "--to",
                    to.to_str().unwrap(),
                ])
                .unwrap()
                .expect(0)
                .unwrap();
        }
        let conf = theirs.join("data/postgresql.auto.conf");
        let text = std::fs::read_to_string(&conf).unwrap();
        let kept: String = text
            .lines()
            .filter(|line| !line.starts_with("recovery_target_lsn"))
            .map(|line| format!("{line}\n"))
            .collect();
        std::fs::write(&conf, format!("{kept}{setting}\n")).unwrap();
        let expected = rows(&server.start_beside(&theirs).unwrap());
        assert_eq!(rows(&server.start_beside(&ours).unwrap()), expected, "{moment}");
    }
}

#[test]
fn what_is_kept_of_the_log_and_damaged_is_told_and_a_base_backup_is_taken() {
    let server = busy_server();
    let product = Product::new(PROGRAM, &source(&server, "1d")).unwrap();
    prove(&product, "shop", 0);
    let receiver = Receiver::begin(&product);
    for _ in 0..3 {
        server
            .sql(
                "shop",
                "INSERT INTO orders (customer, placed) SELECT 1, now() FROM generate_series(1, 2000)",
            )
            .unwrap();
        server.sql("shop", "SELECT pg_switch_wal()").unwrap();
        wait_for(&product, &server);
    }
    // What was acknowledged is let go of: the slot says so once it is not in use any more.
    drop(receiver);
    for path in walk(&product.repository().join("journal")) {
        let mut bytes = std::fs::read(&path).unwrap();
        // Behind the words about it.
        let last = bytes.len() - 20;
        bytes[last] ^= 1;
        writable(&path);
        std::fs::write(&path, bytes).unwrap();
    }
    let second = backup(&product);
    assert_eq!((kind(&product, &second), codes_of(&second)), ((true, false), vec!["TM-10".to_owned()]));
    assert_eq!(kind(&product, &prove(&product, "shop", 2)), (false, false));
}

/// A stream of the log; killed when dropped.
struct Receiver(std::process::Child);

impl Receiver {
    fn begin(product: &Product) -> Self {
        let mut command = product.command(&["wal", "stream", "shop"]);
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.0.kill().expect("a child of ours can be killed");
        self.0.wait().expect("a child of ours can be waited for");
    }
}

/// Up to where copies and the journal hold the log, and how many holes there are.
fn kept(product: &Product) -> (u64, u64) {
    let told = product.run(&["wal", "status", "shop", "--json"]).unwrap().expect(0).unwrap();
    let told: Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
    let ends = told["data"].as_array().unwrap().iter().map(|row| position(row["to"].as_str().unwrap()));
    (ends.max().unwrap_or(0), told["holes"].as_u64().unwrap())
}

fn wait_for(product: &Product, server: &Server) {
    let wanted = position(&server.sql("shop", "SELECT pg_current_wal_flush_lsn()").unwrap());
    let began = std::time::Instant::now();
    while kept(product).0 < wanted {
        assert!(began.elapsed() < std::time::Duration::from_secs(60), "{:?} of {wanted:x}", kept(product));
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

#[test]
fn a_log_that_is_received_all_the_time_is_there_to_the_last_byte_whoever_is_killed() {
    for programs in [programs().unwrap(), seaworthy_testkit::components::second_postgres_bin().unwrap()] {
        let server = Server::start_from(programs, &["autovacuum_naptime=1s"]).unwrap();
        server.create("shop", &[]).unwrap();
        server.sql("shop", &shop(1_000)).unwrap();
        server.sql("shop", "CREATE TABLE marks (n int)").unwrap();
        server.sql("shop", "INSERT INTO orders (customer, placed) VALUES (1, now())").unwrap();
        let product = Product::new(PROGRAM, &source(&server, "1d")).unwrap();
        // Without a copy there is nothing that it would go on from.
        let refused = product.run(&["wal", "stream", "shop"]).unwrap();
        assert!(refused.stderr.contains("take a copy first"), "{}", refused.stderr);
        prove(&product, "shop", 0);
        let mut load = Load::begin(&server, "shop", &[TILL, TILL]);
        // Killed while it receives, again and again; the server lets go of what was acknowledged.
        for round in 0..8_u32 {
            let receiver = Receiver::begin(&product);
            std::thread::sleep(std::time::Duration::from_millis(300 + u64::from(round % 4) * 250));
            server.sql("shop", "SELECT pg_switch_wal()").unwrap();
            server.sql("shop", "CHECKPOINT").unwrap();
            drop(receiver);
        }
        let receiver = Receiver::begin(&product);
        std::thread::sleep(std::time::Duration::from_secs(1));
        load.still_writes();
        // A copy is made meanwhile, of what the server has let go of too.
        assert_eq!(kind(&product, &prove(&product, "shop", 1)), (false, false));
        drop(load);
        // A crash of the server is survived by both.
        server.restart("immediate").unwrap();
        let marks: Vec<Mark> = (1..4).map(|number| mark(&server, number)).collect();
        wait_for(&product, &server);
        let told = product.run(&["wal", "status", "shop"]).unwrap().expect(0).unwrap();
        assert_eq!(kept(&product).1, 0, "no hole: {told}");
        let expected = |beside: &dyn Fn(&str) -> String| {
            beside("SELECT count(*), sum(id), (SELECT count(*) FROM marks) FROM orders")
        };
        let there = expected(&|sql| server.sql("shop", sql).unwrap());
        drop(receiver);
        // The disaster: nothing of the server is asked any more.
        for (moment, marked) in [("latest", 3), (marks[1].time.as_str(), 2)] {
            let to = server.path().join(format!("r{marked}"));
            product
                .run(&["restore", "shop", "--until", moment, "--to", to.to_str().unwrap()])
                .unwrap()
                .expect(0)
                .unwrap();
            let beside = server.start_beside(&to).unwrap();
            let found = expected(&|sql| beside.sql("shop", sql).unwrap());
            assert_eq!(found.trim().rsplit('|').next(), Some(marked.to_string().as_str()), "{moment}");
            if moment == "latest" {
                assert_eq!(found, there);
            }
        }
        let error = until(&product, &server, "2099-01-01T00:00:00Z", "never").unwrap_err();
        assert!(error.contains("the log is there from"), "{error}");
        // Copies go on from what is kept, and what they hold is let go of.
        let before = product.run(&["wal", "status", "shop", "--json"]).unwrap().expect(0).unwrap();
        for round in 2..4 {
            assert_eq!(kind(&product, &prove(&product, "shop", round)), (false, false));
        }
        let after = product.run(&["wal", "status", "shop", "--json"]).unwrap().expect(0).unwrap();
        assert!(after.len() < before.len() || after != before, "{before} {after}");
    }
}

/// The drill to a moment: its receipt, and how the command ended.
fn drill_until(product: &Product, moment: &str) -> (Value, Option<i32>) {
    let ran = product.run(&["drill", "shop", "--until", moment, "--json"]).unwrap();
    let last = ran.stdout.lines().last().unwrap_or_else(|| panic!("{moment}: {ran:?}"));
    (serde_json::from_str::<Value>(last).unwrap()["drill"].clone(), ran.code)
}

fn check<'d>(drill: &'d Value, name: &str) -> &'d Value {
    let checks = drill["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{name}: {drill:#}"))
}

/// Says so unless it has shown that the copy is its witness's and that the log leads to the moment.
fn is_shown(drill: &Value, code: Option<i32>, moment: &str) {
    assert_eq!(code, Some(0), "{moment}: {drill:#}");
    assert!(seaworthy_testkit::load::is_equal(drill), "{moment}: {drill:#}");
    assert_eq!(check(drill, "moment")["outcome"], "passed");
    assert_eq!(drill["reached"]["target"], drill["until"]);
}

#[test]
fn a_drill_goes_on_to_a_moment_behind_its_copy_and_tells_a_log_that_does_not_lead_there() {
    let both = [programs().unwrap(), seaworthy_testkit::components::second_postgres_bin().unwrap()];
    for (programs, is_last) in both.into_iter().zip([false, true]) {
        let server = Server::start_from(programs, &["autovacuum_naptime=1s"]).unwrap();
        server.create("shop", &[]).unwrap();
        server.sql("shop", &shop(1_000)).unwrap();
        server.sql("shop", PARCELS).unwrap();
        server.sql("shop", "CREATE TABLE marks (n int)").unwrap();
        let product = Product::new(PROGRAM, &source(&server, "1d")).unwrap();
        let mut load = Load::begin(&server, "shop", &[TILL, TILL, DEPOT]);
        prove(&product, "shop", 0);
        let early = mark(&server, 1);
        let second = prove(&product, "shop", 1);
        let receiver = Receiver::begin(&product);
        let late = mark(&server, 2);
        server.sql("shop", "SELECT pg_switch_wal()").unwrap();
        load.still_writes();
        drop(load);
        mark(&server, 3);
        let end = position(&server.sql("shop", "SELECT pg_current_wal_flush_lsn()").unwrap());
        wait_for(&product, &server);
        drop(receiver);

        // Within the newest copy, behind it, and to the end of what was received.
        let mut reached = Vec::new();
        for moment in [early.time, format!("lsn:{}", early.lsn), late.time, "latest".to_owned()] {
            let (drill, code) = drill_until(&product, &moment);
            is_shown(&drill, code, &moment);
            assert_eq!(drill["copy"], second["copy"], "{moment}");
            reached.push(position(drill["reached"]["position"].as_str().unwrap()));
        }
        let (early, late) = (reached[0].max(reached[1]), reached[2]);
        assert!(early < late && late < reached[3], "{reached:x?}");
        assert!(reached[3] >= end, "to the last byte: {:x} of {end:x}", reached[3]);

        if !is_last {
            continue;
        }
        // A moment that is nowhere decides nothing, and does not speak against the copy.
        let (drill, code) = drill_until(&product, "2099-01-01T00:00:00Z");
        assert_eq!((&drill["verdict"]["word"], code), (&Value::from("inconclusive"), Some(7)), "{drill:#}");
        assert_eq!(check(&drill, "moment")["outcome"], "inconclusive");

        // A piece that is damaged, and one that is missing between others, are told; and the copy is as good as it was.
        let pieces = walk(&product.repository().join("journal"));
        assert!(pieces.len() > 3, "{pieces:?}");
        let kept: Vec<Vec<u8>> = pieces.iter().map(|path| std::fs::read(path).unwrap()).collect();
        let until = physical(&product, &second["copy"])["until"].clone();
        let at = between(&product, &pieces, position(until.as_str().unwrap()));
        for damage in ["flipped", "missing"] {
            let mut bytes = kept[at].clone();
            let last = bytes.len() - 20;
            bytes[last] ^= 1;
            writable(&pieces[at]);
            if damage == "flipped" {
                std::fs::write(&pieces[at], &bytes).unwrap();
            } else {
                std::fs::remove_file(&pieces[at]).unwrap();
            }
            let (drill, code) = drill_until(&product, "latest");
            assert_eq!(
                (&drill["verdict"]["word"], code),
                (&Value::from("fail"), Some(5)),
                "{damage}: {drill:#}"
            );
            let failed: Vec<&Value> = drill["checks"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|check| check["outcome"] != "passed")
                .collect();
            assert_eq!(failed.len(), 1, "{damage}: {failed:#?}");
            assert_eq!(failed[0]["findings"][0]["code"], "TM-11", "{damage}: {failed:#?}");
            let status = product.run(&["status", "--json"]).unwrap();
            assert!(
                status.stdout.contains("TM-11") && !status.stdout.contains("\"broken\""),
                "{}",
                status.stdout
            );
            std::fs::write(&pieces[at], &kept[at]).unwrap();
        }
        let (drill, code) = drill_until(&product, "latest");
        is_shown(&drill, code, "latest, mended");
    }
}

/// A piece behind a position, with others behind it. A file says nothing of where it belongs, so the one whose absence makes a hole
/// there is looked for.
fn between(product: &Product, pieces: &[std::path::PathBuf], behind: u64) -> usize {
    let makes_a_hole = |at: usize| {
        let aside = product.path().join("aside");
        std::fs::rename(&pieces[at], &aside).unwrap();
        let ran = product.run(&["wal", "status", "shop", "--json"]).unwrap();
        std::fs::rename(&aside, &pieces[at]).unwrap();
        // What goes on behind a hole is a finding.
        let told = if ran.code == Some(4) { ran.stdout } else { ran.expect(0).unwrap() };
        let told: Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
        let rows = told["data"].as_array().unwrap();
        rows.len() > 1 && position(rows[0]["to"].as_str().unwrap()) > behind
    };
    (0..pieces.len()).find(|at| makes_a_hole(*at)).unwrap()
}

#[test]
fn an_idle_server_loses_nothing_while_time_goes_by() {
    let server = busy_server();
    let product = Product::new(PROGRAM, &source(&server, "1d")).unwrap();
    backup(&product);
    let receiver = Receiver::begin(&product);
    let told = || -> Value {
        let told = product.run(&["wal", "status", "shop", "--json"]).unwrap().expect(0).unwrap();
        serde_json::from_str::<Value>(told.lines().last().unwrap()).unwrap()["data"][0].clone()
    };
    let complete = || told()["last_moment"].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
    server.sql("shop", "INSERT INTO orders (customer, placed) VALUES (1, now())").unwrap();
    wait_for(&product, &server);
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(120);
    // Three marks, of which one is kept: each replaces the one before.
    let mut marks = std::collections::BTreeSet::new();
    let mut files = Vec::new();
    while marks.len() < 4 {
        assert!(std::time::Instant::now() < limit, "{marks:?}");
        std::thread::sleep(std::time::Duration::from_millis(500));
        marks.extend(complete());
        files.push(walk(&product.repository().join("journal")).len());
    }
    let (first, last) = (marks.first().unwrap(), marks.last().unwrap());
    assert!(last.duration_since(*first).as_secs() >= 20, "{marks:?}");
    // One more while a mark is replaced, and one for what an idle server writes by itself.
    assert!(files.iter().max().unwrap() - files.first().unwrap() <= 3, "{files:?}");
    drop(receiver);
    let (drill, code) = drill_until(&product, "latest");
    is_shown(&drill, code, "latest");
    assert_eq!(drill["reached"]["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap(), *last);
    let lost = drill["rpo"]["exposure"]["measured_ms"].as_u64().unwrap();
    assert!(lost < 30_000, "{lost}");
    // Up to then nothing was written; what may have been written since is not known.
    let later = |seconds: i64| (*last + jiff::SignedDuration::from_secs(seconds)).to_string();
    let (drill, code) = drill_until(&product, &later(-3));
    is_shown(&drill, code, "before the mark");
    let (drill, code) = drill_until(&product, &later(1));
    assert_eq!((&drill["verdict"]["word"], code), (&Value::from("inconclusive"), Some(7)), "{drill:#}");
}

/// Where a mark is among those that a restore brings back.
fn has(marks: &str, number: u32) -> bool {
    marks.split(',').any(|mark| mark == number.to_string())
}

#[test]
fn a_server_that_was_put_back_is_received_on_and_what_it_had_written_before_is_not_lost() {
    // Whether it has written more by then than it had before it was put back, and whether it had let go of the log from before.
    for (is_longer, is_let_go) in [(false, false), (true, false), (false, true), (true, true)] {
        let server = busy_server();
        server.sql("shop", "CREATE TABLE IF NOT EXISTS marks (n int)").unwrap();
        let product = Product::new(PROGRAM, &source(&server, "1d")).unwrap();
        backup(&product);
        let receiver = is_let_go.then(|| Receiver::begin(&product));
        mark(&server, 1);
        if is_let_go {
            server.sql("shop", "SELECT pg_switch_wal()").unwrap();
            wait_for(&product, &server);
        }
        drop(receiver);
        let (data, aside) = (server.path().join("data"), server.path().join("aside"));
        let copy = |from: &Path, to: &Path| {
            let mut command = std::process::Command::new("cp");
            assert!(command.arg("-a").arg(from).arg(to).status().unwrap().success());
        };
        server.stop().unwrap();
        copy(&data, &aside);
        server.restart("fast").unwrap();
        let receiver = Receiver::begin(&product);
        let lost = mark(&server, 2);
        // A transaction behind a time shows that the log has reached it.
        mark(&server, 5);
        wait_for(&product, &server);
        drop(receiver);
        server.stop().unwrap();
        std::fs::remove_dir_all(&data).unwrap();
        copy(&aside, &data);
        server.restart("fast").unwrap();
        if is_longer {
            let more = "INSERT INTO orders (customer, placed) SELECT 1, now() FROM generate_series(1, 5000)";
            server.sql("shop", more).unwrap();
        }
        mark(&server, 3);
        let refused = product.run(&["wal", "stream", "shop"]).unwrap();
        assert_ne!(refused.code, Some(0));
        // The first position to be received lies behind the end of what the server has, or what is there is something else.
        let told = if is_longer { "was put back" } else { "receive the log" };
        assert!(refused.stderr.contains(told), "{is_longer}: {}", refused.stderr);
        let second = backup(&product);
        if is_let_go {
            assert_eq!(
                (kind(&product, &second), codes_of(&second)),
                ((true, false), vec!["TM-10".to_owned()])
            );
            assert!(second.to_string().contains("put back"), "{second:#}");
        } else {
            // The copy before is as much of what the server is now.
            assert_eq!((kind(&product, &second), codes_of(&second)), ((false, false), vec![]), "{second:#}");
        }
        // It is received on, and drilled to its end.
        let receiver = Receiver::begin(&product);
        let later = mark(&server, 4);
        server.sql("shop", "INSERT INTO orders (customer, placed) VALUES (1, now())").unwrap();
        wait_for(&product, &server);
        drop(receiver);
        let (drill, code) = drill_until(&product, "latest");
        is_shown(&drill, code, "latest");
        let marks = until(&product, &server, &later.time, "later").unwrap();
        assert!(has(&marks, 3) && has(&marks, 4) && !has(&marks, 2), "{marks}");
        let told = product.run(&["wal", "status", "shop"]).unwrap().expect(0).unwrap();
        assert!(told.contains("from before the server was put back"), "{told}");
        if !is_let_go {
            continue;
        }
        // What was written before is where the first copy leads to.
        let marks = until(&product, &server, &lost.time, "lost").unwrap();
        assert!(has(&marks, 1) && has(&marks, 2) && !has(&marks, 3), "{marks}");
        // The next copy follows, and lets go of what copies hold only.
        assert_eq!(kind(&product, &prove(&product, "shop", 2)), (false, false));
        let marks = until(&product, &server, &lost.time, "lost").unwrap();
        assert!(has(&marks, 2) && !has(&marks, 3), "{marks}");
    }
}

#[test]
fn what_was_received_before_a_hole_stays_where_no_copy_holds_it() {
    let server = busy_server();
    server.sql("shop", "CREATE TABLE marks (n int)").unwrap();
    let product = Product::new(PROGRAM, &source(&server, "1d")).unwrap();
    backup(&product);
    let receiver = Receiver::begin(&product);
    let kept = mark(&server, 1);
    mark(&server, 2);
    wait_for(&product, &server);
    drop(receiver);
    server.sql("shop", "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots").unwrap();
    let lost = mark(&server, 3);
    server.sql("shop", "SELECT pg_switch_wal()").unwrap();
    mark(&server, 4);
    assert_eq!(codes_of(&backup(&product)), ["TM-10"]);
    for _ in 0..3 {
        mark(&server, 5);
        server.sql("shop", "SELECT pg_switch_wal()").unwrap();
        server.sql("shop", "INSERT INTO orders (customer, placed) VALUES (1, now())").unwrap();
        assert_eq!(kind(&product, &backup(&product)), (false, false));
        let marks = until(&product, &server, &kept.time, "kept").unwrap();
        assert!(has(&marks, 1) && !has(&marks, 2), "{marks}");
        let error = until(&product, &server, &lost.time, "lost").unwrap_err();
        assert!(error.contains("ends at"), "{error}");
    }
}

#[test]
fn log_behind_a_copy_that_is_bad_is_not_let_go_of_and_its_absence_from_copies_is_told() {
    let server = busy_server();
    server.sql("shop", "CREATE TABLE marks (n int)").unwrap();
    let product = Product::new(PROGRAM, &source(&server, "1d")).unwrap();
    let first = backup(&product);
    let receiver = Receiver::begin(&product);
    mark(&server, 1);
    backup(&product);
    // The second one is shown to be bad, by a question that it answers wrongly.
    let question = "[[services.shop.sources.cluster.checks]]\nkind = \"sql\"\nname = \"never\"\nquery = \"SELECT false\"\n";
    product.configure(&format!("{}{question}", source(&server, "1d"))).unwrap();
    product.drill("shop", 5).unwrap();
    product.configure(&source(&server, "1d")).unwrap();
    let late = mark(&server, 2);
    mark(&server, 3);
    wait_for(&product, &server);
    let third = backup(&product);
    assert_eq!(
        (kind(&product, &third), codes_of(&third)),
        ((true, false), vec!["TM-10".to_owned()]),
        "{third:#}"
    );
    mark(&server, 4);
    wait_for(&product, &server);
    assert_eq!(codes_of(&backup(&product)), Vec::<String>::new());
    drop(receiver);
    // From the first one, and what was received: in no copy.
    let to = server.path().join("from-the-first");
    let id = &first["copy"].as_str().unwrap()[..12];
    let ran =
        product.run(&["restore", "shop", "--point", id, "--until", &late.time, "--to", to.to_str().unwrap()]);
    ran.unwrap().expect(0).unwrap();
    let beside = server.start_beside(&to).unwrap();
    let marks = beside.sql("shop", "SELECT string_agg(n::text, ',' ORDER BY n) FROM marks").unwrap();
    assert!(has(marks.trim(), 2) && !has(marks.trim(), 4), "{marks}");
}

#[test]
fn a_copy_that_was_named_and_does_not_lead_to_the_moment_is_refused_and_nothing_is_blamed() {
    let server = busy_server();
    server.sql("shop", "CREATE TABLE marks (n int)").unwrap();
    let product = Product::new(PROGRAM, &source(&server, "1d")).unwrap();
    let first = backup(&product)["copy"].as_str().unwrap()[..12].to_owned();
    let receiver = Receiver::begin(&product);
    for number in 1..4 {
        mark(&server, number);
        server.sql("shop", "SELECT pg_switch_wal()").unwrap();
        wait_for(&product, &server);
        backup(&product);
    }
    let ran = product.run(&["drill", "shop", "--point", &first, "--until", "latest"]).unwrap();
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("leave --point out"), "{}", ran.stderr);
    drop(receiver);
    let (drill, code) = drill_until(&product, "latest");
    is_shown(&drill, code, "latest");
}

#[test]
fn a_receiver_waits_for_whoever_receives_before_it() {
    let server = busy_server();
    server.sql("shop", "CREATE TABLE marks (n int)").unwrap();
    let product = Product::new(PROGRAM, &source(&server, "1d")).unwrap();
    backup(&product);
    let first = Receiver::begin(&product);
    mark(&server, 1);
    wait_for(&product, &server);
    let mut second = Receiver::begin(&product);
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(second.0.try_wait().unwrap().is_none(), "it goes on trying");
    drop(first);
    mark(&server, 2);
    wait_for(&product, &server);
}

#[test]
fn settings_that_were_larger_for_a_while_do_not_speak_against_a_copy() {
    let server = busy_server();
    let product = Product::new(PROGRAM, &source(&server, "1d")).unwrap();
    prove(&product, "shop", 0);
    server.sql("shop", "ALTER SYSTEM SET max_connections = 230").unwrap();
    server.restart("fast").unwrap();
    server.sql("shop", "ALTER SYSTEM RESET max_connections").unwrap();
    server.restart("fast").unwrap();
    server.sql("shop", "INSERT INTO orders (customer, placed) VALUES (1, now())").unwrap();
    let second = prove(&product, "shop", 1);
    assert_eq!(physical(&product, &second["copy"])["settings"]["max_connections"], "230");
    // And behind the copy.
    let receiver = Receiver::begin(&product);
    server.sql("shop", "ALTER SYSTEM SET max_connections = 260").unwrap();
    server.restart("fast").unwrap();
    server.sql("shop", "INSERT INTO orders (customer, placed) VALUES (1, now())").unwrap();
    wait_for(&product, &server);
    drop(receiver);
    let (drill, code) = drill_until(&product, "latest");
    is_shown(&drill, code, "latest");
}

#[test]
fn a_server_that_was_put_back_is_told_also_where_what_was_received_ends_with_a_file() {
    let server = busy_server();
    server.sql("shop", "CREATE TABLE marks (n int)").unwrap();
    let product = Product::new(PROGRAM, &source(&server, "1d")).unwrap();
    backup(&product);
    let (data, aside) = (server.path().join("data"), server.path().join("aside"));
    let copy = |from: &Path, to: &Path| {
        let mut command = std::process::Command::new("cp");
        assert!(command.arg("-a").arg(from).arg(to).status().unwrap().success());
    };
    server.stop().unwrap();
    copy(&data, &aside);
    server.restart("fast").unwrap();
    let receiver = Receiver::begin(&product);
    mark(&server, 1);
    server.sql("shop", "SELECT pg_switch_wal()").unwrap();
    wait_for(&product, &server);
    drop(receiver);
    let (end, _) = kept(&product);
    server.stop().unwrap();
    std::fs::remove_dir_all(&data).unwrap();
    copy(&aside, &data);
    server.restart("fast").unwrap();
    // It writes farther than it had before.
    while position(&server.sql("shop", "SELECT pg_current_wal_flush_lsn()").unwrap()) <= end + (1 << 20) {
        let more = "INSERT INTO orders (customer, placed) SELECT 1, now() FROM generate_series(1, 20000)";
        server.sql("shop", more).unwrap();
    }
    let restart = "SELECT restart_lsn FROM pg_replication_slots";
    let before = server.sql("shop", restart).unwrap();
    let refused = product.run(&["wal", "stream", "shop"]).unwrap();
    assert!(refused.code != Some(0) && refused.stderr.contains("was put back"), "{refused:?}");
    assert_eq!(server.sql("shop", restart).unwrap(), before, "nothing was acknowledged");
    backup(&product);
    server.sql("shop", "INSERT INTO orders (customer, placed) VALUES (1, now())").unwrap();
    prove(&product, "shop", 1);
}

#[test]
fn numbers_that_recovery_would_give_again_are_told() {
    for programs in [programs().unwrap(), seaworthy_testkit::components::second_postgres_bin().unwrap()] {
        let server = Server::start_from(programs, &[]).unwrap();
        server.create("shop", &[]).unwrap();
        server.sql("shop", &shop(92)).unwrap();
        server.sql("shop", "UPDATE orders SET placed = now() WHERE id = 1").unwrap();
        let product = Product::new(PROGRAM, &source(&server, "1d")).unwrap();
        prove(&product, "shop", 0);
        // Numbers are written to the log before they are taken, 32 at once: whatever was taken is not given again.
        for (round, taken) in [(1, 1), (2, 35), (3, 31)] {
            let take = format!("SELECT max(nextval('orders_id_seq')) FROM generate_series(1, {taken})");
            server.sql("shop", &take).unwrap();
            prove(&product, "shop", round);
        }
        // A database that is made from another one gets its sequences as they stand, without what was written before for them
        // (PostgreSQL 15 and later): what is taken next is forgotten by every recovery, the server's own too.
        server.sql("shop", "SELECT setval('orders_id_seq', 500); SELECT nextval('orders_id_seq')").unwrap();
        server.sql("postgres", "CREATE DATABASE made TEMPLATE shop").unwrap();
        server.sql("made", "SELECT nextval('orders_id_seq') FROM generate_series(1, 3)").unwrap();
        product.backup("shop").unwrap();
        let drill = product.drill("shop", 5).unwrap();
        let sequences = check(&drill, "made/sequences");
        assert_eq!(sequences["findings"][0]["code"], "CT-07", "{drill:#}");
        assert!(
            sequences["findings"][0]["detail"].as_str().unwrap().contains("stands at 501"),
            "{sequences}"
        );
        // Set once, it is written down.
        server
            .sql("made", "SELECT setval('orders_id_seq', last_value, is_called) FROM orders_id_seq")
            .unwrap();
        prove(&product, "shop", 4);
    }
}
