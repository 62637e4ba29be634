//! Never a false alarm, never a false pass: what is whole is proven under write load every time, and what was altered
//! behind the product's back is found with the code that names it.
//!
//! `SEAWORTHY_LOOPS` says how often each live source is backed up and drilled; 200 is what a release is held to.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]
#![expect(clippy::type_complexity, reason = "a table of damages reads best where it is used")]
#![expect(clippy::needless_pass_by_value, reason = "`join` has made the path for this call alone")]

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use seaworthy_catalog::{Catalog as _, OpenMode, SqliteCatalog};
use seaworthy_model::id::{CopyId, RunId};
use seaworthy_model::receipt::{Act, ActKind, Backup, Due, seal};
use seaworthy_model::signature::SigningKey;
use seaworthy_repository::{
    Control, Cuts, FileMeta, NodeKind, OpenOptions, Repository, Session, SessionOptions, SnapshotId,
    SnapshotPath, TreeOptions, open_store,
};
use seaworthy_testkit::estate::{self, odd_tree};
use seaworthy_testkit::postgres::{Server, every_kind, shop};
use seaworthy_testkit::product::{PASSWORD, Product, codes};
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

fn sqlite(service: &str, path: &Path) -> String {
    format!("[services.{service}.sources.database]\nkind = \"sqlite\"\npath = \"{}\"\n\n", path.display())
}

fn tree(service: &str, path: &Path) -> String {
    format!("[services.{service}.sources.tree]\nkind = \"files\"\npaths = [\"{}\"]\n\n", path.display())
}

/// Whether a drill has shown that the content is equal, and the control line that a difference would have been seen.
fn is_equal(drill: &Value) -> bool {
    let level = drill["verdict"]["level"].as_str().unwrap_or_default();
    let checks = drill["expected_checks"].as_array().map_or(0, Vec::len);
    drill["verdict"]["word"] == "pass"
        && matches!(level, "A4" | "A5" | "A6")
        && codes(drill).is_empty()
        && drill["control"]["caught"] == true
        && checks > 0
}

/// Backs up and drills; anything but a proof is a false alarm, told in full.
fn prove(product: &Product, service: &str, round: u64) {
    let backup =
        product.backup(service).unwrap_or_else(|error| panic!("round {round} of {service}: {error}"));
    // What the source itself has wrong is said, and is no alarm about its copy.
    let flaws = backup["findings"]
        .as_array()
        .map_or(1, |all| all.iter().filter(|finding| finding["code"] != "CT-20").count());
    assert_eq!(flaws, 0, "round {round} of {service}: {}", backup["findings"]);
    let drill =
        product.drill(service, 0).unwrap_or_else(|error| panic!("round {round} of {service}: {error}"));
    assert!(is_equal(&drill), "round {round} of {service}: {drill:#}");
    assert_eq!(drill["copy"], backup["copy"]);
}

/// Writers that do not rest; killed when dropped.
struct Load(Vec<Child>);

impl Load {
    fn begin(server: &Server, database: &str, scripts: &[&str]) -> Self {
        let writer = |body: &&str| {
            let script = format!(
                "DO $load$ DECLARE n bigint; i bigint; BEGIN FOR i IN 1..1000000000 LOOP {body}; COMMIT; PERFORM pg_sleep(0.002); END LOOP; END $load$"
            );
            server.begin(database, &script).unwrap()
        };
        Self(scripts.iter().map(writer).collect())
    }

    fn still_writes(&mut self) {
        for child in &mut self.0 {
            if let Some(status) = child.try_wait().unwrap() {
                let mut said = String::new();
                std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
                panic!("a writer ended with {status}: {said}");
            }
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().expect("a child of ours can be killed");
            child.wait().expect("a child of ours can be waited for");
        }
    }
}

/// What a till does: a sale, a change of price, a return, a purge, a gap in a sequence, a large object, the removal of old
/// ones. But for the first four thousand orders it removes what it makes, so that round 200 takes hardly longer than round 10.
const TILL: &str = "
  INSERT INTO orders (customer, placed, note) VALUES (1 + floor(random() * 100)::int, clock_timestamp(), repeat('x', (random() * 3000)::int)) RETURNING id INTO n;
  INSERT INTO order_lines (order_id, line, sku, quantity, price) VALUES (n, 1, 'SKU-' || 1 + floor(random() * 100)::int, 1 + i % 4, i % 100);
  UPDATE products SET price = (price + 1) % 1000, tags = tags[1:3] || i::text WHERE sku = 'SKU-' || 1 + floor(random() * 100)::int;
  UPDATE orders SET state = 'returned' WHERE id = n - 7;
  DELETE FROM orders WHERE id BETWEEN 5001 AND n - 60;
  PERFORM nextval('orders_id_seq');
  IF i % 20 = 0 THEN PERFORM lo_from_bytea(0, convert_to(repeat(i::text, 900), 'UTF8')); END IF;
  IF i % 20 = 10 AND pg_try_advisory_xact_lock(1) THEN
    PERFORM lo_unlink(oid) FROM (SELECT oid FROM pg_largeobject_metadata ORDER BY oid DESC OFFSET 40) old;
  END IF;
  IF i % 50 = 0 THEN REFRESH MATERIALIZED VIEW best; END IF";

/// A table whose rows are copied by us, because its file in the archive has more than 8 MiB.
const PARCELS: &str = "CREATE TABLE parcels (id bigserial PRIMARY KEY, label text NOT NULL, sent timestamptz NOT NULL DEFAULT now()); \
     INSERT INTO parcels (label) SELECT repeat(md5(i::text), 3) FROM generate_series(1, 90000) i; ANALYZE parcels";

/// What a depot does to them: one comes, one is changed, one goes.
const DEPOT: &str = "
  INSERT INTO parcels (label) VALUES (repeat(md5(i::text), 3)) RETURNING id INTO n;
  UPDATE parcels SET label = reverse(label), sent = clock_timestamp() WHERE id = n - (i * 7919) % 90000;
  DELETE FROM parcels WHERE id = n - 90000";

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

// ---- sabotage ---------------------------------------------------------------------------------------------------------

/// The files of a copy: what a wrong copy is made from.
type Files = BTreeMap<Vec<u8>, Vec<u8>>;

fn opened(product: &Product) -> Repository {
    let store = open_store(product.repository()).unwrap();
    Repository::open(&store, PASSWORD.as_bytes(), &OpenOptions::default(), &Control::new()).unwrap()
}

fn copy_of(backup: &Value) -> SnapshotId {
    SnapshotId::parse(backup["copy"].as_str().unwrap()).unwrap()
}

fn files_of(repository: &Repository, copy: &SnapshotId) -> Files {
    let mut paths = Vec::new();
    let root = SnapshotPath::new("").unwrap();
    repository
        .list(copy, &root, &Control::new(), |entry| {
            if entry.node.kind == NodeKind::File {
                paths.push(entry.path.join(&b'/'));
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    let read = |path: Vec<u8>| {
        let bytes =
            repository.read_file(copy, &SnapshotPath::new(&path).unwrap(), 1 << 30, &Control::new()).unwrap();
        (path, bytes)
    };
    paths.into_iter().map(read).collect()
}

fn put(session: &Session, path: &[u8], bytes: &[u8]) {
    let mut file =
        session.file(&SnapshotPath::new(path).unwrap(), FileMeta::default(), Cuts::ContentDefined).unwrap();
    file.write(bytes).unwrap();
    file.finish().unwrap();
}

/// Stores a copy with the content that `fill` gives it and the witness of `original`, and seals a receipt with the
/// product's own key which says that a backup made it: what a fault between a source and its copy would leave.
fn forge(product: &Product, original: &Value, fill: impl FnOnce(&Session)) {
    forge_with(product, original, |manifest| manifest, fill);
}

/// The same, with another manifest of files than the original's.
fn forge_with(
    product: &Product,
    original: &Value,
    change: impl FnOnce(Vec<u8>) -> Vec<u8>,
    fill: impl FnOnce(&Session),
) {
    let repository = opened(product);
    let options = SessionOptions {
        hostname: "forger".to_owned(),
        paths: vec!["/forged".to_owned()],
        ..SessionOptions::default()
    };
    let session = repository.begin(options, &Control::new()).unwrap();
    fill(&session);
    let witness = SnapshotPath::new(".seaworthy/witness.json").unwrap();
    let bytes = repository.read_file(&copy_of(original), &witness, 1 << 30, &Control::new()).unwrap();
    put(&session, b".seaworthy/witness.json", &bytes);
    if original["source_kind"] == "files" {
        let manifest = SnapshotPath::new(".seaworthy/manifest.tsv").unwrap();
        let bytes = repository.read_file(&copy_of(original), &manifest, 1 << 30, &Control::new()).unwrap();
        put(&session, b".seaworthy/manifest.tsv", &change(bytes));
    }
    let copy = session.commit(&Control::new()).unwrap().id;

    let mut backup: Backup = serde_json::from_value(original.clone()).unwrap();
    let now = Timestamp::now();
    backup.run = RunId(format!("backup-forged-{}", now.as_nanosecond()));
    backup.copy = Some(CopyId(copy.hex()));
    let due = Due {
        run: backup.run.clone(),
        service: backup.service.clone(),
        source: backup.source.clone(),
        act: ActKind::Backup,
        due_at: now,
    };
    let pem = fs::read_to_string(product.state().join("signing.key")).unwrap();
    let key = SigningKey::from_pem(&pem).unwrap();
    let catalogue =
        SqliteCatalog::open(&product.state().join("catalogue.sqlite"), OpenMode::Existing).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let head = catalogue.head().await.unwrap();
        let envelope = seal(&Act::Due(due), now, head.as_ref(), &key).unwrap();
        let head = catalogue.append(head.as_ref(), vec![envelope.to_json()], None).await.unwrap();
        backup.due = Some(head.sequence);
        let envelope = seal(&Act::Backup(Box::new(backup)), now, Some(&head), &key).unwrap();
        catalogue.append(Some(&head), vec![envelope.to_json()], None).await.unwrap();
    });
}

fn forge_files(product: &Product, original: &Value, files: &Files) {
    forge(product, original, |session| {
        for (path, bytes) in files.iter().filter(|(path, _)| !path.starts_with(b".seaworthy/")) {
            put(session, path, bytes);
        }
    });
}

/// The drill of a forged copy fails with one of the codes that name the damage.
fn is_caught(product: &Product, service: &str, what: &str, expected: &[&str], missed: &mut Vec<String>) {
    let ran = product.run(&["--json", "drill", service]).unwrap();
    let summary = ran
        .stdout
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|event| event["event"] == "summary");
    let found = summary.as_ref().map(|summary| codes(&summary["drill"])).unwrap_or_default();
    if ran.code != Some(5) || !found.iter().any(|code| expected.contains(&code.as_str())) {
        missed.push(format!(
            "{what}: exit {:?}, found {found:?}, expected one of {expected:?}\n{}",
            ran.code, ran.stderr
        ));
    }
}

/// Changes behind the back of a shop, and the codes of which one has to name each.
const SHOP_DAMAGES: &[(&str, &str, &[&str])] = &[
    ("a row deleted", "DELETE FROM order_lines WHERE order_id = 7 AND line = 2", &["CT-01"]),
    ("one digit of a price", "UPDATE products SET price = price + 0.01 WHERE sku = 'SKU-7'", &["CT-02"]),
    (
        "two names exchanged",
        "UPDATE customers SET name = CASE id WHEN 3 THEN 'Customer 4' ELSE 'Customer 3' END WHERE id IN (3, 4)",
        &["CT-02"],
    ),
    ("an empty text for a NULL", "UPDATE orders SET note = '' WHERE id = 3", &["CT-02"]),
    (
        "one row lost, another twice",
        "ALTER TABLE plain DISABLE TRIGGER USER; DELETE FROM plain WHERE a = 5; INSERT INTO plain SELECT * FROM plain WHERE a = 6",
        &["CT-02"],
    ),
    ("a partial index lost", "DROP INDEX orders_open", &["CT-05"]),
    ("a foreign key lost", "ALTER TABLE orders DROP CONSTRAINT orders_customer_fkey", &["CT-05"]),
    (
        "a foreign key not validated",
        "ALTER TABLE orders DROP CONSTRAINT orders_customer_fkey; ALTER TABLE orders ADD CONSTRAINT orders_customer_fkey FOREIGN KEY (customer) REFERENCES customers NOT VALID",
        &["CT-05"],
    ),
    (
        "another body of a function",
        "CREATE OR REPLACE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$",
        &["CT-17"],
    ),
    ("a trigger asleep", "ALTER TABLE orders DISABLE TRIGGER orders_touch", &["CT-17"]),
    ("a default lost", "ALTER TABLE customers ALTER tier DROP DEFAULT", &["CT-04"]),
    (
        "another view",
        "CREATE OR REPLACE VIEW revenue AS SELECT o.id, sum(l.price) AS total FROM orders o JOIN order_lines l ON l.order_id = o.id GROUP BY o.id",
        &["CT-04"],
    ),
    ("a sequence set back", "SELECT setval('orders_id_seq', 1)", &["CT-07"]),
    ("a grant to everybody", "GRANT SELECT ON customers TO PUBLIC", &["CT-11"]),
    ("a materialized view lost", "DROP MATERIALIZED VIEW best", &["CT-03"]),
    ("a table too many", "CREATE TABLE intruder (a int)", &["CT-03"]),
    ("a large object altered", "SELECT lo_put(70001, 0, '\\x00')", &["CT-10"]),
    ("a comment altered", "COMMENT ON TABLE customers IS 'who sells'", &["CT-04"]),
];

/// The file of a table's rows in a directory archive: the one whose content begins so.
fn rows_of(files: &Files, marker: &str) -> Vec<u8> {
    let found = files.iter().find(|(path, bytes)| {
        path.ends_with(b".dat")
            && !path.ends_with(b"toc.dat")
            && bytes.windows(marker.len()).any(|part| part == marker.as_bytes())
    });
    found
        .unwrap_or_else(|| {
            panic!(
                "no rows with `{marker}` in {:?}",
                files.keys().map(|path| path.escape_ascii().to_string()).collect::<Vec<_>>()
            )
        })
        .0
        .clone()
}

#[test]
fn a_wrong_copy_of_a_shop_is_caught_by_its_drill() {
    let server = Server::start(&[]).unwrap();
    server.create("pristine", &[]).unwrap();
    server.sql("pristine", &shop(200)).unwrap();
    server
        .sql(
            "pristine",
            "CREATE TABLE plain AS SELECT i AS a, 'row ' || i AS b FROM generate_series(1, 20) i; COMMENT ON TABLE customers IS 'who buys'; UPDATE orders SET placed = now() WHERE id = 1;
             SELECT lo_from_bytea(70001, decode(repeat('5ea0', 4000), 'hex'));",
        )
        .unwrap();
    let anew = || {
        server
            .sql("postgres", "DROP DATABASE IF EXISTS shop WITH (FORCE)")
            .and_then(|_| server.create("shop", &["-T", "pristine"]))
            .unwrap();
    };
    anew();
    let product = Product::new(PROGRAM, &postgres("shop", &server, "shop")).unwrap();
    let original = product.backup("shop").unwrap();
    let whole = files_of(&opened(&product), &copy_of(&original));
    // A forgery of the same content passes: what fails below fails because of its content.
    forge_files(&product, &original, &whole);
    let control = product.drill("shop", 0).unwrap();
    assert!(is_equal(&control), "{control:#}");

    let mut missed = Vec::new();
    for (what, script, expected) in SHOP_DAMAGES {
        anew();
        server.sql("shop", script).unwrap();
        let altered = product.backup("shop").unwrap();
        forge_files(&product, &original, &files_of(&opened(&product), &copy_of(&altered)));
        is_caught(&product, "shop", what, expected, &mut missed);
    }

    let products = rows_of(&whole, "SKU-42\tProduct 42");
    let orders = rows_of(&whole, "2025-06-01 12:22:00");
    let plain = rows_of(&whole, "row 13");
    let lines = rows_of(&whole, "\tSKU-63\t");
    let mut doctored = |what: &str, expected: &[&str], change: &dyn Fn(&mut Files)| {
        let mut files = whole.clone();
        change(&mut files);
        assert!(files != whole, "{what} changes something");
        forge_files(&product, &original, &files);
        is_caught(&product, "shop", what, expected, &mut missed);
    };
    doctored("one digit in the rows of a table", &["CT-02"], &|files| {
        let rows = files.get_mut(&plain).unwrap();
        let at = rows.windows(6).position(|part| part == b"row 13").unwrap();
        rows[at + 5] = b'4';
    });
    doctored("rows cut off at the end of one", &["CT-01"], &|files| {
        let rows = files.get_mut(&lines).unwrap();
        let half = rows.len() / 2;
        let end = half + rows[half..].iter().position(|byte| *byte == b'\n').unwrap() + 1;
        rows.truncate(end);
    });
    doctored("rows cut off in the middle of one", &["CT-01", "CT-02", "RP-04", "CT-03"], &|files| {
        let rows = files.get_mut(&orders).unwrap();
        rows.truncate(rows.len() / 2 + 3);
    });
    doctored("the rows of a table emptied", &["CT-01"], &|files| files.get_mut(&plain).unwrap().clear());
    doctored("the rows of a table missing", &["CT-01", "CT-03", "RP-02", "RP-04"], &|files| {
        drop(files.remove(&plain));
    });
    doctored("the rows of two tables exchanged", &["CT-01", "CT-02", "CT-03", "RP-04"], &|files| {
        let (one, other) = (files[&products].clone(), files[&orders].clone());
        files.insert(products.clone(), other);
        files.insert(orders.clone(), one);
    });
    doctored("the table of contents cut off", &["RP-04", "CT-03", "RP-01"], &|files| {
        let contents = files.get_mut(b"database/toc.dat".as_slice()).unwrap();
        contents.truncate(contents.len() / 2);
    });
    assert!(
        missed.is_empty(),
        "{} damages were not caught as they should:\n{}",
        missed.len(),
        missed.join("\n")
    );
}

#[test]
fn a_wrong_copy_of_a_sqlite_database_is_caught_by_its_drill() {
    let product = Product::new(PROGRAM, "").unwrap();
    let live = product.path().join("live.sqlite");
    estate::sqlite::shop(&live, estate::sqlite::Journal::Rollback, 500, 3).unwrap();
    product.configure(&sqlite("shop", &live)).unwrap();
    let original = product.backup("shop").unwrap();
    let whole = files_of(&opened(&product), &copy_of(&original));
    let name = whole.keys().find(|path| path.ends_with(b".sqlite")).unwrap().clone();
    forge_files(&product, &original, &whole);
    let control = product.drill("shop", 0).unwrap();
    assert!(is_equal(&control), "{control:#}");

    let damages: &[(&str, &str, &[&str])] = &[
        ("a row deleted", "DELETE FROM \"order\" WHERE id = 7", &["CT-01"]),
        ("one cent", "UPDATE \"order\" SET cents = cents + 1 WHERE id = 9", &["CT-02"]),
        (
            "a number for a text",
            "UPDATE customer SET note = 5 WHERE id = 2; UPDATE customer SET photo = CAST(photo AS TEXT) WHERE id = 4",
            &["CT-02"],
        ),
        ("a NULL for a value", "UPDATE setting SET value = NULL WHERE key = 'limit'", &["CT-02"]),
        ("an index lost", "DROP INDEX order_large", &["CT-05"]),
        ("a trigger lost", "DROP TRIGGER order_audit", &["CT-17", "CT-03"]),
        ("a view lost", "DROP VIEW turnover", &["CT-03", "CT-04"]),
        ("a table too many", "CREATE TABLE intruder (a)", &["CT-03", "FS-08"]),
        ("another version of the application's", "PRAGMA user_version = 16", &["CT-16", "CT-04"]),
    ];
    let mut missed = Vec::new();
    for (what, script, expected) in damages {
        let scratch = product.path().join("altered.sqlite");
        fs::write(&scratch, &whole[&name]).unwrap();
        let connection = rusqlite::Connection::open(&scratch).unwrap();
        connection.execute_batch(script).unwrap();
        drop(connection);
        let mut files = whole.clone();
        files.insert(name.clone(), fs::read(&scratch).unwrap());
        forge_files(&product, &original, &files);
        is_caught(&product, "shop", what, expected, &mut missed);
    }
    let bytes: &[(&str, &dyn Fn(&mut Vec<u8>), &[&str])] = &[
        (
            "cut off at a page",
            &|bytes| bytes.truncate(bytes.len() / 8192 * 4096),
            &["CT-13", "CT-01", "RP-04"],
        ),
        ("a page of zeroes", &|bytes| bytes[3 * 4096..4 * 4096].fill(0), &["CT-13", "CT-01", "CT-02"]),
        ("emptied", &Vec::clear, &["CT-13", "CT-03", "RP-04", "RP-11"]),
    ];
    for (what, change, expected) in bytes {
        let mut files = whole.clone();
        change(files.get_mut(&name).unwrap());
        forge_files(&product, &original, &files);
        is_caught(&product, "shop", what, expected, &mut missed);
    }
    assert!(
        missed.is_empty(),
        "{} damages were not caught as they should:\n{}",
        missed.len(),
        missed.join("\n")
    );
}

/// A change of a tree by hand.
type Change = fn(&Path);

#[test]
fn a_wrong_copy_of_a_tree_is_caught_by_its_drill() {
    let product = Product::new(PROGRAM, "").unwrap();
    let root = product.path().join("tree");
    let began = SystemTime::now() - Duration::from_secs(3_600);
    let make = || {
        if root.exists() {
            fs::remove_dir_all(&root).unwrap();
        }
        fs::create_dir_all(root.join("inner")).unwrap();
        for name in ["ledger.csv", "inner/notes.txt", "empty", "other"] {
            fs::write(root.join(name), name.repeat(if name == "empty" { 0 } else { 500 })).unwrap();
            xattr::set(root.join(name), "user.origin", b"test").unwrap();
        }
        std::os::unix::fs::symlink("ledger.csv", root.join("current")).unwrap();
        fs::hard_link(root.join("other"), root.join("inner/twin")).unwrap();
        let then = began;
        for name in ["ledger.csv", "inner/notes.txt", "empty", "other", "inner", "."] {
            let file = fs::File::open(root.join(name)).unwrap();
            file.set_modified(then).unwrap();
        }
    };
    make();
    product.configure(&tree("files", &root)).unwrap();
    let original = product.backup("files").unwrap();
    let forged = || {
        forge(&product, &original, |session| {
            session.tree(&root, &TreeOptions::default(), &mut |_| {}).unwrap();
        });
    };
    forged();
    let control = product.drill("files", 0).unwrap();
    assert!(is_equal(&control), "{control:#}");

    /// Changes content in place and puts the times back, so that only the bytes tell.
    fn alter(path: PathBuf, change: impl FnOnce(&mut Vec<u8>)) {
        let then = fs::metadata(&path).unwrap().modified().unwrap();
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
        fs::File::open(&path).unwrap().set_modified(then).unwrap();
    }
    let damages: &[(&str, Change, &[&str])] = &[
        ("one byte", |root| alter(root.join("ledger.csv"), |bytes| bytes[77] ^= 1), &["FS-02"]),
        (
            "a byte short",
            |root| alter(root.join("inner/notes.txt"), |bytes| bytes.truncate(bytes.len() - 1)),
            &["FS-02"],
        ),
        ("a file lost", |root| fs::remove_file(root.join("empty")).unwrap(), &["FS-01"]),
        ("a file too many", |root| fs::write(root.join("intruder"), "x").unwrap(), &["FS-01"]),
        (
            "another mode",
            |root| fs::set_permissions(root.join("ledger.csv"), fs::Permissions::from_mode(0o777)).unwrap(),
            &["FS-03"],
        ),
        (
            "another nanosecond",
            |root| {
                let file = fs::File::open(root.join("ledger.csv")).unwrap();
                let then = file.metadata().unwrap().modified().unwrap();
                file.set_modified(then + Duration::from_nanos(1)).unwrap();
            },
            &["FS-03"],
        ),
        ("an attribute lost", |root| xattr::remove(root.join("other"), "user.origin").unwrap(), &["FS-03"]),
        (
            "a link that points elsewhere",
            |root| {
                fs::remove_file(root.join("current")).unwrap();
                std::os::unix::fs::symlink("other", root.join("current")).unwrap();
            },
            &["FS-04"],
        ),
        (
            "a file for a link",
            |root| {
                fs::remove_file(root.join("current")).unwrap();
                fs::write(root.join("current"), "ledger.csv").unwrap();
            },
            &["FS-04"],
        ),
        (
            "a hard link broken",
            |root| {
                let twin = root.join("inner/twin");
                let bytes = fs::read(&twin).unwrap();
                let then = fs::metadata(&twin).unwrap().modified().unwrap();
                fs::remove_file(&twin).unwrap();
                fs::write(&twin, bytes).unwrap();
                xattr::set(&twin, "user.origin", b"test").unwrap();
                fs::File::open(&twin).unwrap().set_modified(then).unwrap();
                fs::File::open(root.join("inner")).unwrap().set_modified(then).unwrap();
            },
            &["FS-07"],
        ),
        (
            "another owner",
            |root| std::os::unix::fs::chown(root.join("ledger.csv"), Some(12345), None).unwrap(),
            &["FS-03"],
        ),
    ];
    let mut missed = Vec::new();
    for (what, change, expected) in damages {
        make();
        change(&root);
        forged();
        is_caught(&product, "files", what, expected, &mut missed);
    }
    // The manifest lies in the copy: whoever can write one can write the other, and the receipt knows better.
    make();
    fs::write(root.join("ledger.csv"), "nothing is owed").unwrap();
    let blanked = |manifest: Vec<u8>| {
        let text = String::from_utf8(manifest).unwrap();
        text.split_inclusive('\n').filter(|line| !line.ends_with("ledger.csv\n")).collect::<String>().into()
    };
    forge_with(&product, &original, blanked, |session| {
        session.tree(&root, &TreeOptions::default(), &mut |_| {}).unwrap();
    });
    is_caught(&product, "files", "a manifest without the file that changed", &["RP-05"], &mut missed);
    assert!(
        missed.is_empty(),
        "{} damages were not caught as they should:\n{}",
        missed.len(),
        missed.join("\n")
    );
    assert!(root.as_os_str().as_bytes().starts_with(b"/var/tmp/swt-"));
}
