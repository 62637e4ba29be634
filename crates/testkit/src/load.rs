//! Writers that do not rest, and the proof that a copy made meanwhile is whole.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use std::process::Child;

use serde_json::Value;

use crate::postgres::Server;
use crate::product::{Product, codes};

/// Whether a drill has shown that the content is equal, and the control line that a difference would have been seen.
#[must_use]
pub fn is_equal(drill: &Value) -> bool {
    let level = drill["verdict"]["level"].as_str().unwrap_or_default();
    let checks = drill["expected_checks"].as_array().map_or(0, Vec::len);
    drill["verdict"]["word"] == "pass"
        && matches!(level, "A4" | "A5" | "A6")
        && codes(drill).is_empty()
        && drill["control"]["caught"] == true
        && checks > 0
}

/// Backs up and drills; anything but a proof is a false alarm, told in full.
///
/// # Panics
///
/// Where it is not proven.
#[expect(clippy::panic, reason = "the assertion of a test")]
pub fn prove(product: &Product, service: &str, round: u64) -> Value {
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
    backup
}

/// Writers that do not rest; killed when dropped.
#[derive(Debug)]
pub struct Load(Vec<Child>);

impl Load {
    /// Begins a writer for each body of a loop, in PL/pgSQL with `i` and `n`.
    #[must_use]
    pub fn begin(server: &Server, database: &str, scripts: &[&str]) -> Self {
        let writer = |body: &&str| {
            let script = format!(
                "DO $load$ DECLARE n bigint; i bigint; BEGIN FOR i IN 1..1000000000 LOOP {body}; COMMIT; PERFORM pg_sleep(0.002); END LOOP; END $load$"
            );
            server.begin(database, &script).unwrap()
        };
        Self(scripts.iter().map(writer).collect())
    }

    /// Says so where a writer has ended.
    pub fn still_writes(&mut self) {
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
pub const TILL: &str = "
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
pub const PARCELS: &str = "CREATE TABLE parcels (id bigserial PRIMARY KEY, label text NOT NULL, sent timestamptz NOT NULL DEFAULT now()); \
     INSERT INTO parcels (label) SELECT repeat(md5(i::text), 3) FROM generate_series(1, 90000) i; ANALYZE parcels";

/// What a depot does to them: one comes, one is changed, one goes.
pub const DEPOT: &str = "
  INSERT INTO parcels (label) VALUES (repeat(md5(i::text), 3)) RETURNING id INTO n;
  UPDATE parcels SET label = reverse(label), sent = clock_timestamp() WHERE id = n - (i::bigint * 7919) % 90000;
  DELETE FROM parcels WHERE id = n - 90000";
