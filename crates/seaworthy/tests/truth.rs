//! Never a false alarm: what is whole is proven under write load every time. That what is wrong is found is in `sabotage`.
//!
//! `SEAWORTHY_LOOPS` says how often each live source is backed up and drilled; 200 is what a release is held to.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use seaworthy_testkit::estate::{self, odd_tree};
use seaworthy_testkit::load::{DEPOT, Load, PARCELS, TILL, is_equal, prove};
use seaworthy_testkit::postgres::{Server, every_kind, shop};
use seaworthy_testkit::product::Product;
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_seaworthy");

fn loops() -> u64 {
    let named = std::env::var("SEAWORTHY_LOOPS").ok();
    named.map_or(5, |text| text.parse().expect("SEAWORTHY_LOOPS is a number"))
}

fn postgres(service: &str, server: &Server, database: &str) -> String {
    format!(
        "[services.{service}.sources.database]\nkind = \"postgres\"\nhost = \"{}\"\nport = {}\nuser = \"postgres\"\ndatabase = {}\nbin_dir = \"{}\"\n\n",
        server.host(),
        server.port(),
        Value::String(database.to_owned()),
        server.programs().display()
    )
}

/// The whole cluster, as a base backup.
fn cluster(service: &str, server: &Server, database: &str) -> String {
    postgres(service, server, database).replace("kind =", "mode = \"physical\"\nkind =")
}

fn sqlite(service: &str, path: &Path) -> String {
    format!("[services.{service}.sources.database]\nkind = \"sqlite\"\npath = \"{}\"\n\n", path.display())
}

fn tree(service: &str, path: &Path) -> String {
    format!("[services.{service}.sources.tree]\nkind = \"files\"\npaths = [\"{}\"]\n\n", path.display())
}

#[test]
fn a_shop_under_write_load_is_proven_every_time() {
    let server = Server::start(&["autovacuum_naptime=1s"]).unwrap();
    server.create("shop", &[]).unwrap();
    server.sql("shop", &shop(1_000)).unwrap();
    server.sql("shop", PARCELS).unwrap();
    let product = Product::new(PROGRAM, &postgres("shop", &server, "shop")).unwrap();
    let mut load = Load::begin(&server, "shop", &[TILL, TILL, DEPOT]);
    let count = || server.sql("shop", "SELECT last_value FROM orders_id_seq").unwrap();
    for round in 0..loops() {
        let before = count();
        prove(&product, "shop", round);
        load.still_writes();
        assert_ne!(before, count(), "nobody wrote in round {round}");
        println!("round {}: proven", round + 1);
    }
}

#[test]
fn base_backups_of_a_server_under_write_load_are_proven_every_time() {
    for programs in [
        seaworthy_testkit::postgres::programs().unwrap(),
        seaworthy_testkit::components::second_postgres_bin().unwrap(),
    ] {
        let server = Server::start_from(programs, &["autovacuum_naptime=1s"]).unwrap();
        server.create("shop", &[]).unwrap();
        server.sql("shop", &shop(1_000)).unwrap();
        server.sql("shop", PARCELS).unwrap();
        let product = Product::new(PROGRAM, &cluster("shop", &server, "shop")).unwrap();
        let mut load = Load::begin(&server, "shop", &[TILL, TILL, DEPOT]);
        for round in 0..loops().div_ceil(3) {
            prove(&product, "shop", round);
            load.still_writes();
            println!("round {}: proven", round + 1);
        }
    }
}

#[test]
fn databases_of_every_kind_and_encoding_are_proven_under_write_load() {
    let server = Server::start(&[]).unwrap();
    let odd = "we\"ird 'näme'\n\u{1f6a2}; DROP -- $(x) %s \\";
    // Its roles have names that a database of another encoding would read otherwise.
    server.create("kinds", &[]).unwrap();
    server.sql("kinds", &every_kind("kinds")).unwrap();
    server.create("latin", &["-T", "template0", "-E", "LATIN1", "--lc-collate=C", "--lc-ctype=C"]).unwrap();
    server.sql("latin", "SET client_encoding = 'UTF8'; CREATE TABLE \"größe\" (id int PRIMARY KEY, \"naïve\" text DEFAULT 'é'); INSERT INTO \"größe\" SELECT i, 'Ærø ' || chr(160 + i % 90) FROM generate_series(1, 500) i;").unwrap();
    server
        .create("bytes", &["-T", "template0", "-E", "SQL_ASCII", "--lc-collate=C", "--lc-ctype=C"])
        .unwrap();
    server.sql("bytes", r"CREATE TABLE raw (id serial PRIMARY KEY, word text); INSERT INTO raw (word) SELECT E'\x80\xff\xfe' || i FROM generate_series(1, 500) i; CREATE INDEX raw_word ON raw (word);").unwrap();
    server.create(odd, &[]).unwrap();
    server.sql(odd, ODD).unwrap();
    let names = [("kinds", "kinds"), ("latin", "latin"), ("bytes", "bytes"), ("odd", odd)];
    let services: String =
        names.iter().map(|(service, database)| postgres(service, &server, database)).collect();
    let product = Product::new(PROGRAM, &services).unwrap();
    let mut loads = [
        Load::begin(
            &server,
            "kinds",
            &[
                "INSERT INTO app.parent VALUES (i, 'p'); INSERT INTO app.child VALUES (i, 'c', i); INSERT INTO app.turned VALUES (i, 't', 4); PERFORM nextval('app.placed')",
            ],
        ),
        Load::begin(&server, "latin", &["INSERT INTO \"größe\" VALUES (1000 + i, chr(233) || i)"]),
        Load::begin(
            &server,
            "bytes",
            &[r"INSERT INTO raw (word) VALUES (E'\xc3' || i); DELETE FROM raw WHERE id = i"],
        ),
        Load::begin(
            &server,
            odd,
            &[
                "INSERT INTO \"a \"\"b\"\"\n\u{1f6a2}\".\"t'; --\" VALUES (DEFAULT, repeat('\u{1f6a2}', i::int % 50))",
            ],
        ),
    ];
    for round in 0..loops().div_ceil(3) {
        for (service, _) in names {
            prove(&product, service, round);
        }
        loads.iter_mut().for_each(Load::still_writes);
    }
}

#[test]
fn a_second_major_outside_of_usr_is_proven_under_write_load() {
    let programs = seaworthy_testkit::components::second_postgres_bin().unwrap();
    let server = Server::start_from(programs, &[]).unwrap();
    server.create("shop", &[]).unwrap();
    server.sql("shop", &shop(500)).unwrap();
    let product = Product::new(PROGRAM, &postgres("shop", &server, "shop")).unwrap();
    let mut load = Load::begin(&server, "shop", &[TILL]);
    for round in 0..loops().div_ceil(3) {
        prove(&product, "shop", round);
        load.still_writes();
    }
}

/// Names that need every kind of quoting.
const ODD: &str = "
CREATE SCHEMA \"a \"\"b\"\"\n\u{1f6a2}\";
CREATE TABLE \"a \"\"b\"\"\n\u{1f6a2}\".\"t'; --\" (\"i d\" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \"\u{1f6a2} \"\"q\"\"\" text DEFAULT E'it''s\\n');
INSERT INTO \"a \"\"b\"\"\n\u{1f6a2}\".\"t'; --\" SELECT FROM generate_series(1, 100);
CREATE INDEX \"\\ %s $1\" ON \"a \"\"b\"\"\n\u{1f6a2}\".\"t'; --\" (\"\u{1f6a2} \"\"q\"\"\");
CREATE VIEW \"select\" AS SELECT \"\u{1f6a2} \"\"q\"\"\" AS \"from\" FROM \"a \"\"b\"\"\n\u{1f6a2}\".\"t'; --\";
CREATE TYPE \"ty'pe\" AS ENUM ('a''b', '\u{1f6a2}', '\"');
CREATE TABLE \"UPPER\" (a \"ty'pe\" DEFAULT 'a''b', b text COLLATE \"C\"); INSERT INTO \"UPPER\" VALUES ('\u{1f6a2}', E'\\t\\\\N'), (DEFAULT, '\\N');
COMMENT ON TABLE \"UPPER\" IS E'line\\nline ''q'' \u{1f6a2}';
";

#[test]
fn sqlite_databases_under_write_load_are_proven_every_time() {
    use estate::sqlite::{Journal, Writer, shop};
    let product = Product::new(PROGRAM, "").unwrap();
    let path = |name: &str| product.path().join(name);
    let live =
        [("wal", path("wal.sqlite"), Journal::Wal), ("rollback", path("rollback.sqlite"), Journal::Rollback)];
    let mut writers = Vec::new();
    for (_, path, journal) in &live {
        shop(path, *journal, 2_000, 3).unwrap();
        writers.push(Writer::start(path.clone(), Duration::from_millis(1)));
    }
    product.configure(&live.iter().map(|(name, path, _)| sqlite(name, path)).collect::<String>()).unwrap();
    for round in 0..loops() {
        let before: Vec<u64> = writers.iter().map(Writer::committed).collect();
        for (service, _, _) in &live {
            prove(&product, service, round);
        }
        for (before, writer) in before.iter().zip(&writers) {
            assert!(writer.committed() > *before, "nobody wrote in round {round}");
        }
    }
    for writer in writers {
        writer.stop().unwrap();
    }
}

#[test]
fn a_tree_that_changes_between_its_backups_is_proven_every_time() {
    let product = Product::new(PROGRAM, "").unwrap();
    let root = product.path().join("tree");
    fs::create_dir(&root).unwrap();
    odd_tree(&root, 11).unwrap();
    product.configure(&tree("files", &root)).unwrap();
    let mut dice = estate::Dice::new(17);
    for round in 0..loops() {
        for number in 0..20 {
            let name = root.join(format!("new-{}", dice.below(40)));
            if number % 5 == 4 && name.exists() {
                fs::remove_file(&name).unwrap();
            } else {
                let mut bytes = vec![0; dice.below(100_000) as usize];
                dice.fill(&mut bytes);
                fs::write(&name, bytes).unwrap();
            }
        }
        prove(&product, "files", round);
    }
}

/// A hole is told where it was lost, and none is invented; what a person restores has them too.
#[test]
fn holes_come_back_as_holes() {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};
    let product = Product::new(PROGRAM, "").unwrap();
    let root = product.path().join("tree");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("whole"), vec![7; 300_000]).unwrap();
    let disk = fs::File::create(root.join("disk.img")).unwrap();
    disk.write_all_at(b"boot", 0).unwrap();
    disk.write_all_at(b"tail", 64 << 20).unwrap();
    product.configure(&tree("files", &root)).unwrap();
    product.backup("files").unwrap();
    let drill = product.drill("files", 0).unwrap();
    assert!(is_equal(&drill), "{drill:#}");
    let checks = drill["checks"].as_array().unwrap();
    let links = checks.iter().find(|check| check["name"] == "hardlinks").unwrap();
    let told = links["detail"].as_str().unwrap();
    assert!(told.ends_with("1 sparse files, 0 came back filled"), "{told}");
    let to = product.path().join("back");
    product.run(&["restore", "files", "--to", to.to_str().unwrap()]).unwrap().expect(0).unwrap();
    let back = fs::metadata(to.join("disk.img")).unwrap();
    assert_eq!(back.len(), (64 << 20) + 4);
    assert!(back.blocks() * 512 < 16 << 20, "{} bytes are allocated", back.blocks() * 512);
    assert_eq!(fs::read(to.join("disk.img")).unwrap(), fs::read(root.join("disk.img")).unwrap());
}

#[test]
fn a_tree_that_changes_during_its_backup_is_proven_or_said_to_be_incomplete() {
    let product = Product::new(PROGRAM, "").unwrap();
    let root = product.path().join("tree");
    fs::create_dir(&root).unwrap();
    estate::mixed_tree(&root, 200, 4 << 20, 5).unwrap();
    product.configure(&tree("files", &root)).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (halt, place) = (Arc::clone(&stop), root);
    let writer = std::thread::spawn(move || {
        let mut dice = estate::Dice::new(23);
        while !halt.load(Ordering::Relaxed) {
            let name = place.join(format!("hot-{}", dice.below(30)));
            match dice.below(4) {
                0 => drop(fs::remove_file(&name)),
                1 => drop(fs::rename(&name, place.join(format!("hot-{}", dice.below(30))))),
                _ => fs::write(&name, vec![dice.below(256) as u8; dice.below(50_000) as usize]).unwrap(),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    for round in 0..loops() {
        let ran = product.run(&["backup", "files"]).unwrap();
        assert!(matches!(ran.code, Some(0 | 3)), "round {round}: {ran:?}");
        if ran.code == Some(3) {
            assert!(ran.stdout.contains("INCOMPLETE"), "round {round}: {ran:?}");
        }
        let points: Value =
            serde_json::from_str(&product.run(&["points", "--json", "files"]).unwrap().expect(0).unwrap())
                .unwrap();
        let copy = points["data"]
            .as_array()
            .and_then(|all| all.last())
            .unwrap_or_else(|| panic!("{points:#}"))["copy"]
            .clone();
        let drilled = product.run(&["--json", "drill", "files", "--point", copy.as_str().unwrap()]).unwrap();
        // What was stored is what was read, whether or not it was everything: no alarm about the copy, and no proof of one
        // that does not hold everything.
        let lawful: &[i32] = if ran.code == Some(0) { &[0] } else { &[0, 7] };
        assert!(drilled.code.is_some_and(|code| lawful.contains(&code)), "round {round}: {drilled:#?}");
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
}
