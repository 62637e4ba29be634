//! A small estate to show the main job on: a tree of files and a SQLite database under write load, made by ourselves.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// A repeatable stream of numbers (SplitMix64, Steele, Lea and Flood 2014): sample data need no secrecy.
#[derive(Debug)]
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

const WORDS: &[&str] = &[
    "anchor",
    "ballast",
    "compass",
    "draught",
    "ebb",
    "fathom",
    "galley",
    "harbour",
    "isobar",
    "jetty",
    "keel",
    "lighthouse",
    "mooring",
    "neap",
    "oakum",
    "pilot",
    "quay",
    "rudder",
    "sextant",
    "tide",
    "upwind",
    "voyage",
    "winch",
    "yawl",
];

fn failed(what: &Path) -> impl Fn(std::io::Error) -> Failure + '_ {
    move |error| Failure::because(Exit::Unexpected, format!("make the sample `{}`", what.display()), &error)
}

/// Makes a tree with what real trees have: many small files, some large ones, links, holes, odd names, odd modes.
pub(crate) fn files(root: &Path) -> Outcome<()> {
    let mut numbers = Numbers(7);
    let put = |path: PathBuf, bytes: &[u8]| std::fs::write(&path, bytes).map_err(failed(&path));
    for folder in ["invoices", "configuration", "photos", "empty"] {
        let path = root.join(folder);
        std::fs::create_dir_all(&path).map_err(failed(&path))?;
    }
    for number in 0..600 {
        let lines: String = (0..20 + numbers.below(40))
            .map(|line| {
                let word = WORDS[numbers.below(WORDS.len() as u64) as usize];
                format!(
                    "{line:03};{word};{};{}.{:02}\n",
                    numbers.below(90) + 1,
                    numbers.below(900),
                    numbers.below(100)
                )
            })
            .collect();
        put(root.join(format!("invoices/2026-{number:04}.csv")), lines.as_bytes())?;
    }
    for number in 0..6 {
        let picture: Vec<u8> = (0..96 * 1024).flat_map(|_| numbers.next().to_le_bytes()).collect();
        put(root.join(format!("photos/quay-{number}.jpg")), &picture)?;
    }
    let secret = root.join("configuration/shop.env");
    put(secret.clone(), b"SHOP_CURRENCY=EUR\nSHOP_PORT=8080\n")?;
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).map_err(failed(&secret))?;
    put(root.join(std::ffi::OsStr::from_bytes(b"configuration/caf\xe9.conf")), b"charset = latin1\n")?;
    put(root.join("configuration/a name with \"quotes\" and a\nnewline.txt"), b"still a file\n")?;
    let link = root.join("configuration/current");
    symlink("shop.env", &link).map_err(failed(&link))?;
    let twin = root.join("photos/twin.jpg");
    std::fs::hard_link(root.join("photos/quay-0.jpg"), &twin).map_err(failed(&twin))?;
    let hole = root.join("photos/disk.img");
    let file = std::fs::File::create(&hole).map_err(failed(&hole))?;
    file.set_len(4 * 1024 * 1024).map_err(failed(&hole))?;
    put(root.join("empty/.keep"), b"")?;
    Ok(())
}

/// A SQLite database in WAL mode with a writer that never rests while this lives.
#[derive(Debug)]
pub(crate) struct LiveSqlite {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    writer: Option<JoinHandle<Result<(), rusqlite::Error>>>,
}

impl LiveSqlite {
    /// Makes the database at `path` and starts writing to it.
    pub(crate) fn start(path: &Path) -> Outcome<Self> {
        let failed = |error: rusqlite::Error| {
            Failure::because(Exit::Unexpected, format!("make the sample `{}`", path.display()), &error)
        };
        let mut connection = Connection::open(path).map_err(failed)?;
        fill(&mut connection).map_err(failed)?;
        let stop = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(0));
        let writer = {
            let stop = Arc::clone(&stop);
            let written = Arc::clone(&written);
            std::thread::spawn(move || write_until(&mut connection, &stop, &written))
        };
        Ok(Self { stop, written, writer: Some(writer) })
    }

    /// Transactions committed by the writer so far.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Stops the writer.
    pub(crate) fn stop(&mut self) -> Outcome<()> {
        self.stop.store(true, Ordering::Relaxed);
        let Some(writer) = self.writer.take() else { return Ok(()) };
        writer
            .join()
            .map_err(|_| Failure::new(Exit::Unexpected, "the sample's writer panicked"))?
            .map_err(|error| Failure::because(Exit::Unexpected, "write to the sample database", &error))
    }
}

impl Drop for LiveSqlite {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn fill(connection: &mut Connection) -> Result<(), rusqlite::Error> {
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.execute_batch(
        "PRAGMA application_id = 1397047630; PRAGMA user_version = 3;
         CREATE TABLE customer(id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT);
         CREATE TABLE booking(id INTEGER PRIMARY KEY AUTOINCREMENT, customer_id INTEGER NOT NULL REFERENCES customer(id),
           berth TEXT NOT NULL, nights INTEGER CHECK (nights > 0), price REAL, note BLOB, made_at TEXT NOT NULL);
         CREATE INDEX booking_by_customer ON booking(customer_id);
         CREATE TABLE audit(booking_id INTEGER, what TEXT, at TEXT);
         CREATE TRIGGER booking_audit AFTER INSERT ON booking BEGIN
           INSERT INTO audit VALUES (new.id, 'made', new.made_at); END;
         CREATE VIEW income AS SELECT berth, sum(price) AS total FROM booking GROUP BY berth;",
    )?;
    let mut numbers = Numbers(11);
    let transaction = connection.transaction()?;
    for id in 1..=2_000_i64 {
        let word = WORDS[numbers.below(WORDS.len() as u64) as usize];
        transaction.execute(
            "INSERT INTO customer VALUES (?1, ?2, ?3)",
            (id, format!("{word} {id}"), (id % 7 != 0).then_some("Sample Harbour")),
        )?;
    }
    for _ in 0..20_000 {
        book(&transaction, &mut numbers)?;
    }
    transaction.commit()
}

fn book(connection: &Connection, numbers: &mut Numbers) -> Result<(), rusqlite::Error> {
    let nights = numbers.below(14) + 1;
    connection.prepare_cached("INSERT INTO booking(customer_id, berth, nights, price, note, made_at) VALUES (?1, ?2, ?3, ?4, ?5, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))")?.execute((
        (numbers.below(2_000) + 1) as i64,
        format!("{}-{}", WORDS[numbers.below(WORDS.len() as u64) as usize], numbers.below(40)),
        nights as i64,
        nights as f64 * 41.5,
        (numbers.below(3) == 0).then(|| numbers.next().to_le_bytes().to_vec()),
    ))?;
    Ok(())
}

fn write_until(
    connection: &mut Connection,
    stop: &AtomicBool,
    written: &AtomicU64,
) -> Result<(), rusqlite::Error> {
    let mut numbers = Numbers(13);
    while !stop.load(Ordering::Relaxed) {
        let transaction = connection.transaction()?;
        for _ in 0..5 {
            book(&transaction, &mut numbers)?;
        }
        transaction.execute(
            "UPDATE customer SET city = 'Moved' WHERE id = ?1",
            [(numbers.below(2_000) + 1) as i64],
        )?;
        transaction.commit()?;
        written.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// The sample shop for PostgreSQL: what a shop's database has, in the project's own words.
pub(crate) const SHOP: &str = "
CREATE SCHEMA shop;
CREATE TYPE shop.state AS ENUM ('open', 'paid', 'shipped', 'returned');
CREATE DOMAIN shop.amount AS numeric(12,2) CHECK (VALUE >= 0);
CREATE TABLE shop.customer (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL, email text UNIQUE, joined date NOT NULL, profile jsonb NOT NULL DEFAULT '{}');
CREATE TABLE shop.product (
  sku text PRIMARY KEY, title text NOT NULL, price shop.amount NOT NULL, tags text[] NOT NULL DEFAULT '{}', sheet bytea);
CREATE TABLE shop.purchase (
  id bigserial, customer_id bigint NOT NULL REFERENCES shop.customer, state shop.state NOT NULL DEFAULT 'open',
  placed_at timestamptz NOT NULL, PRIMARY KEY (id, placed_at)) PARTITION BY RANGE (placed_at);
CREATE TABLE shop.purchase_old PARTITION OF shop.purchase FOR VALUES FROM (MINVALUE) TO ('2026-07-01');
CREATE TABLE shop.purchase_new PARTITION OF shop.purchase FOR VALUES FROM ('2026-07-01') TO (MAXVALUE);
CREATE TABLE shop.line (
  purchase_id bigint NOT NULL, position int NOT NULL, sku text NOT NULL REFERENCES shop.product,
  quantity int NOT NULL CHECK (quantity > 0), price shop.amount NOT NULL,
  total numeric GENERATED ALWAYS AS (quantity * price) STORED, PRIMARY KEY (purchase_id, position));
CREATE INDEX line_by_sku ON shop.line (sku);
CREATE INDEX customer_by_lower_name ON shop.customer (lower(name));
CREATE VIEW shop.turnover AS SELECT sku, sum(total) AS total FROM shop.line GROUP BY sku;
CREATE MATERIALIZED VIEW shop.best AS SELECT sku, sum(quantity) AS sold FROM shop.line GROUP BY sku;
CREATE FUNCTION shop.touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.title := btrim(NEW.title); RETURN NEW; END $$;
CREATE TRIGGER product_touch BEFORE INSERT OR UPDATE ON shop.product FOR EACH ROW EXECUTE FUNCTION shop.touch();
COMMENT ON TABLE shop.customer IS 'who buys';
INSERT INTO shop.customer (name, email, joined, profile)
  SELECT 'customer ' || n, 'c' || n || '@shop.example', DATE '2024-01-01' + n % 900, jsonb_build_object('level', n % 5)
  FROM generate_series(1, 3000) n;
INSERT INTO shop.product
  SELECT 'SKU-' || n, ' product ' || n, (n % 500) + 0.99, ARRAY['t' || n % 7, 't' || n % 11], decode(md5(n::text), 'hex')
  FROM generate_series(1, 500) n;
INSERT INTO shop.purchase (customer_id, state, placed_at)
  SELECT 1 + n % 3000, (enum_range(NULL::shop.state))[1 + n % 4], TIMESTAMPTZ '2026-01-01 00:00+00' + n * interval '20 min'
  FROM generate_series(1, 20000) n;
INSERT INTO shop.line (purchase_id, position, sku, quantity, price)
  SELECT 1 + n / 3, n % 3, 'SKU-' || (1 + n % 500), 1 + n % 4, (n % 500) + 0.99 FROM generate_series(0, 59999) n;
REFRESH MATERIALIZED VIEW shop.best;
SELECT lo_from_bytea(0, decode(repeat('5ea0', 4000), 'hex'));
";

/// One sale, repeated by the sample's writer while the backup runs.
pub(crate) const SALE: &str = "
WITH bought AS (
  INSERT INTO shop.purchase (customer_id, placed_at) VALUES (1 + floor(random() * 3000)::int, clock_timestamp()) RETURNING id)
INSERT INTO shop.line (purchase_id, position, sku, quantity, price)
  SELECT id, 0, 'SKU-' || (1 + floor(random() * 500)::int), 1, 9.99 FROM bought;
";
