//! Wrong copies of a PostgreSQL shop.

use std::fs;

use seaworthy_testkit::estate::Dice;

use crate::Outcome;
use crate::case::{Ask, Case, Layer};
use crate::forge::{Files, copy_of, files_of, forge_files, opened};
use crate::stage::{Stage, remove};

/// Fills `{n}` with a number of 1 to 40, and `{m}` with another one.
fn filled(template: &str, dice: &mut Dice) -> String {
    let n = 1 + dice.below(40);
    let m = 1 + (n + dice.below(39)) % 40;
    template.replace("{n}", &n.to_string()).replace("{m}", &m.to_string())
}

/// The archive that `pg_dump` makes of the shop as it is now, and the rest of the original copy.
pub(crate) fn dumped(stage: &Stage, options: &[&str]) -> Outcome<Files> {
    let server = stage.server()?;
    let place = server.path().join("dump");
    remove(&place)?;
    let target = place.display().to_string();
    let mut arguments = vec!["--format=directory", "--compress=0", "--file", &target, "-d", "shop"];
    arguments.extend(options);
    server.run("pg_dump", &arguments, "")?;
    let mut files: Files = stage
        .whole
        .iter()
        .filter(|(path, _)| !path.starts_with(b"database/"))
        .map(|(a, b)| (a.clone(), b.clone()))
        .collect();
    for entry in fs::read_dir(&place)? {
        let entry = entry?;
        let mut path = b"database/".to_vec();
        path.extend(entry.file_name().as_encoded_bytes());
        files.insert(path, fs::read(entry.path())?);
    }
    remove(&place)?;
    Ok(files)
}

/// The shop was changed by a statement before it was dumped: a sound dump of other content.
fn content(name: &str, what: &str, sql: &'static str, expected: &[&'static str]) -> Case {
    Case::new(name, Layer::Content, what, expected, move |stage, dice| {
        stage.server()?.sql("shop", &filled(sql, dice))?;
        forge_files(&stage.product, &stage.original, &dumped(stage, &[])?)?;
        Ok(Ask::drill())
    })
}

/// The same where roles and settings are changed, which the archive does not hold: copied by the product.
fn globals(name: &str, what: &str, sql: &'static str, expected: &[&'static str]) -> Case {
    Case::new(name, Layer::Content, what, expected, move |stage, dice| {
        stage.server()?.sql("shop", &filled(sql, dice))?;
        let altered = stage.product.backup("it")?;
        let files = files_of(&opened(&stage.product)?, &copy_of(&altered)?)?;
        forge_files(&stage.product, &stage.original, &files)?;
        Ok(Ask::drill())
    })
}

/// The tool was told, or took it upon itself, to leave something out.
fn options(name: &str, what: &str, words: &'static [&'static str], expected: &[&'static str]) -> Case {
    Case::new(name, Layer::Dump, what, expected, move |stage, _| {
        forge_files(&stage.product, &stage.original, &dumped(stage, words)?)?;
        Ok(Ask::drill())
    })
}

/// The bytes of the original archive are changed.
fn bytes(
    name: &str,
    what: &str,
    expected: &[&'static str],
    change: impl Fn(&mut Files, &mut Dice) -> Outcome + Send + Sync + 'static,
) -> Case {
    Case::new(name, Layer::Dump, what, expected, move |stage, dice| {
        let mut files = stage.whole.clone();
        change(&mut files, dice)?;
        if files == stage.whole {
            return Err("the mutation changed nothing".into());
        }
        forge_files(&stage.product, &stage.original, &files)?;
        Ok(Ask::drill())
    })
}

/// The file of a table's rows: the one whose content holds the marker.
fn rows<'a>(files: &'a mut Files, marker: &str) -> Outcome<(Vec<u8>, &'a mut Vec<u8>)> {
    let found = files.iter_mut().find(|(path, bytes)| {
        path.ends_with(b".dat")
            && !path.ends_with(b"toc.dat")
            && bytes.windows(marker.len()).any(|part| part == marker.as_bytes())
    });
    found.map(|(path, bytes)| (path.clone(), bytes)).ok_or_else(|| format!("no rows with `{marker}`").into())
}

const PLAIN: &str = "\trow 13\n";
const LINES: &str = "\tSKU-63\t";
const PRODUCTS: &str = "SKU-42\tProduct 42";
const ORDERS: &str = "2025-06-01 12:22:00";

/// The start of a random line but the first.
fn line_start(bytes: &[u8], dice: &mut Dice) -> Outcome<usize> {
    let ends: Vec<usize> =
        bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
    // The last three lines of a file of rows are its end marker and two empty ones; the last end begins nothing.
    let usable = ends.len().saturating_sub(4);
    ends.get(dice.below(usable as u64) as usize).copied().ok_or_else(|| "too few lines".into())
}

fn blob(files: &mut Files) -> Outcome<(Vec<u8>, &mut Vec<u8>)> {
    let found = files.iter_mut().find(|(path, _)| {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        name.starts_with(b"blob_") && name.ends_with(b".dat")
    });
    found.map(|(path, bytes)| (path.clone(), bytes)).ok_or_else(|| "no large object".into())
}

/// Every case.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = rows_and_values();
    cases.extend(definitions());
    cases.extend(owners_and_settings());
    cases.extend(dumps());
    cases
}

fn rows_and_values() -> Vec<Case> {
    vec![
        content(
            "row-deleted",
            "a row is missing",
            "DELETE FROM order_lines WHERE order_id = {n} AND line = 2",
            &["CT-01"],
        ),
        content("row-added", "a row too many", "INSERT INTO events VALUES ({n}, 'nine')", &["CT-01"]),
        content("rows-gone", "a table is empty", "TRUNCATE events", &["CT-01"]),
        content(
            "one-cent",
            "one cent in one price",
            "UPDATE products SET price = price + 0.01 WHERE sku = 'SKU-{n}'",
            &["CT-02"],
        ),
        content(
            "names-exchanged",
            "two values exchanged",
            "UPDATE products SET title = CASE sku WHEN 'SKU-{n}' THEN 'Product {m}' ELSE 'Product {n}' END WHERE sku IN ('SKU-{n}', 'SKU-{m}')",
            &["CT-02"],
        ),
        content(
            "null-for-empty",
            "an empty text for a NULL",
            "UPDATE orders SET note = '' WHERE id = 3 * (1 + {n} % 15)",
            &["CT-02"],
        ),
        content(
            "value-for-null",
            "a NULL for a value",
            "UPDATE cargo SET word = NULL WHERE id = {n}",
            &["CT-02"],
        ),
        content(
            "lost-and-doubled",
            "one row lost, another twice",
            "DELETE FROM events WHERE ctid = (SELECT min(ctid) FROM events WHERE b = 'one'); INSERT INTO events SELECT * FROM events WHERE b = 'two' LIMIT 1",
            &["CT-02"],
        ),
        content(
            "twins-exchanged",
            "rows of two tables exchanged",
            "WITH gone AS (DELETE FROM twin_a WHERE a = 1 RETURNING *), came AS (DELETE FROM twin_b WHERE a = 2 RETURNING *), x AS (INSERT INTO twin_b SELECT * FROM gone) INSERT INTO twin_a SELECT * FROM came",
            &["CT-02"],
        ),
        content(
            "json-spelling",
            "the same JSON, spelled otherwise",
            "UPDATE kept SET j = '{\"a\":1}'",
            &["CT-02"],
        ),
        content("minus-zero", "-0 for 0", "UPDATE kept SET f = '-0'", &["CT-02"]),
        content(
            "one-microsecond",
            "one microsecond",
            "UPDATE kept SET at = at + interval '1 microsecond'",
            &["CT-02"],
        ),
        content(
            "one-second",
            "a shift of one second in every row",
            "UPDATE orders SET placed = placed + interval '1 second'",
            &["CT-02"],
        ),
        content("trailing-zero", "1.0 for 1.00", "UPDATE kept SET n = 1.0", &["CT-02"]),
        content(
            "trailing-space",
            "a space at the end of a text",
            "UPDATE kept SET tail = tail || ' '",
            &["CT-02"],
        ),
        content(
            "one-bit-of-bytea",
            "one bit in a binary value",
            "UPDATE cargo SET seal = set_bit(seal, {n}, 1 - get_bit(seal, {n})) WHERE id = {m}",
            &["CT-02"],
        ),
        content(
            "last-digit-of-float",
            "the last digit of a float",
            "UPDATE cargo SET weight = weight * (1 + 2.3e-16) WHERE id = {n}",
            &["CT-02"],
        ),
        content(
            "one-day",
            "one day in a date",
            "UPDATE cargo SET loaded = loaded + 1 WHERE id = {n}",
            &["CT-02"],
        ),
        content(
            "element-of-array",
            "the order in an array",
            "UPDATE products SET tags = ARRAY[tags[2], tags[1]] WHERE sku = 'SKU-{n}'",
            &["CT-02"],
        ),
        content(
            "jsonb-value",
            "a number in a jsonb",
            "UPDATE products SET about = jsonb_set(about, '{weight}', '0') WHERE sku = 'SKU-{n}'",
            &["CT-02"],
        ),
        content(
            "enum-value",
            "another state",
            "UPDATE orders SET state = CASE state WHEN 'paid' THEN 'shipped'::order_state ELSE 'paid' END WHERE id = {n}",
            &["CT-02"],
        ),
        content(
            "case-of-text",
            "upper case for lower case",
            "UPDATE cargo SET word = upper(word) WHERE word <> upper(word)",
            &["CT-02"],
        ),
        content(
            "orphan",
            "a reference to nothing, the constraint dropped and made anew without validation",
            "ALTER TABLE order_lines DROP CONSTRAINT order_lines_sku_fkey; UPDATE order_lines SET sku = 'SKU-0' WHERE order_id = {n} AND line = 1; ALTER TABLE order_lines ADD CONSTRAINT order_lines_sku_fkey FOREIGN KEY (sku) REFERENCES products NOT VALID",
            &["CT-02", "CT-05", "CT-06"],
        ),
        content(
            "rls-filtered",
            "row security filtered the dump",
            "DELETE FROM guarded WHERE tenant <> 3",
            &["CT-01", "CT-09"],
        ),
        content(
            "stale",
            "an older state under a newer name",
            "DELETE FROM order_lines WHERE order_id > 20 + {n} % 30; DELETE FROM orders WHERE id > 20 + {n} % 30",
            &["CT-01", "CT-08"],
        ),
        content(
            "emptied",
            "a healthy dump of nothing",
            "TRUNCATE order_lines, orders, products, customers, cargo, plain, events, guarded, kept, twin_a, twin_b",
            &["CT-01"],
        ),
        content(
            "large-object-altered",
            "a byte of a large object",
            "SELECT lo_put(70001, {n} * 190, '\\x01')",
            &["CT-10"],
        ),
        content(
            "large-object-short",
            "a large object cut off",
            "SELECT lo_truncate(lo_open(70001, 131072), 15000 + {n})",
            &["CT-10"],
        ),
        content("large-object-gone", "a large object is missing", "SELECT lo_unlink(70001)", &["CT-10"]),
        content(
            "sequence-back",
            "a sequence hands out used values",
            "SELECT setval('orders_id_seq', {n}, false)",
            &["CT-07"],
        ),
        content(
            "sequence-ahead",
            "a sequence stands where it never stood",
            "SELECT nextval('orders_id_seq')",
            &["CT-07"],
        ),
        content(
            "sequence-of-identity",
            "an identity column begins anew",
            "ALTER TABLE customers ALTER id RESTART",
            &["CT-07"],
        ),
    ]
}

fn definitions() -> Vec<Case> {
    vec![
        content("table-gone", "a table is missing", "DROP TABLE twin_a", &["CT-03"]),
        content("table-too-many", "a table too many", "CREATE TABLE intruder (a int)", &["CT-03"]),
        content("view-gone", "a view is missing", "DROP VIEW revenue", &["CT-03"]),
        content("matview-gone", "a materialized view is missing", "DROP MATERIALIZED VIEW best", &["CT-03"]),
        content(
            "matview-empty",
            "a materialized view is not populated",
            "REFRESH MATERIALIZED VIEW best WITH NO DATA",
            &["CT-04"],
        ),
        content("statistics-gone", "extended statistics are missing", "DROP STATISTICS related", &["CT-03"]),
        content("publication-gone", "a publication is missing", "DROP PUBLICATION pub", &["CT-03"]),
        content(
            "foreign-key-gone",
            "a foreign key is missing",
            "ALTER TABLE orders DROP CONSTRAINT orders_customer_fkey",
            &["CT-05"],
        ),
        content(
            "foreign-key-not-validated",
            "a foreign key is not validated",
            "ALTER TABLE orders DROP CONSTRAINT orders_customer_fkey; ALTER TABLE orders ADD CONSTRAINT orders_customer_fkey FOREIGN KEY (customer) REFERENCES customers NOT VALID",
            &["CT-05"],
        ),
        content(
            "check-gone",
            "a check is missing",
            "ALTER TABLE products DROP CONSTRAINT products_price_check",
            &["CT-05"],
        ),
        content(
            "primary-key-gone",
            "a primary key is missing",
            "ALTER TABLE order_lines DROP CONSTRAINT order_lines_pkey",
            &["CT-05"],
        ),
        content(
            "unique-gone",
            "a unique constraint is missing",
            "ALTER TABLE customers DROP CONSTRAINT customers_mail_key",
            &["CT-05"],
        ),
        content(
            "domain-check-gone",
            "the check of a domain is missing",
            "ALTER DOMAIN email DROP CONSTRAINT email_check",
            &["CT-05"],
        ),
        content("index-gone", "an index is missing", "DROP INDEX orders_open", &["CT-05"]),
        content(
            "index-otherwise",
            "an index without its condition",
            "DROP INDEX orders_open; CREATE INDEX orders_open ON orders (placed)",
            &["CT-05"],
        ),
        content(
            "trigger-asleep",
            "a trigger is disabled",
            "ALTER TABLE orders DISABLE TRIGGER orders_touch",
            &["CT-17"],
        ),
        content("trigger-gone", "a trigger is missing", "DROP TRIGGER orders_touch ON orders", &["CT-17"]),
        content(
            "function-hollow",
            "a function does nothing",
            "CREATE OR REPLACE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$",
            &["CT-17"],
        ),
        content(
            "view-otherwise",
            "a view computes otherwise",
            "CREATE OR REPLACE VIEW revenue AS SELECT o.id, sum(l.total) * 2 AS total FROM orders o JOIN order_lines l ON l.order_id = o.id GROUP BY o.id",
            &["CT-04"],
        ),
        content(
            "default-gone",
            "a default is missing",
            "ALTER TABLE customers ALTER tier DROP DEFAULT",
            &["CT-04"],
        ),
        content(
            "not-null-gone",
            "NOT NULL is missing",
            "ALTER TABLE products ALTER title DROP NOT NULL",
            &["CT-04"],
        ),
        content("type-wider", "a type is wider", "ALTER TABLE twin_a ALTER a TYPE bigint", &["CT-04"]),
        content(
            "identity-gone",
            "an identity is missing",
            "ALTER TABLE customers ALTER id DROP IDENTITY",
            &["CT-04"],
        ),
        content("column-gone", "a column is missing", "ALTER TABLE cargo DROP COLUMN loaded", &["CT-04"]),
        content(
            "row-security-off",
            "row security is off",
            "ALTER TABLE kept DISABLE ROW LEVEL SECURITY",
            &["CT-04"],
        ),
        content(
            "storage-option",
            "another fill factor",
            "ALTER TABLE kept SET (fillfactor = 50)",
            &["CT-04"],
        ),
        content(
            "enum-longer",
            "a type has a value more",
            "ALTER TYPE order_state ADD VALUE 'lost'",
            &["CT-04"],
        ),
        content(
            "comment-otherwise",
            "another comment",
            "COMMENT ON TABLE customers IS 'who sells {n}'",
            &["CT-04"],
        ),
        content("comment-gone", "a comment is missing", "COMMENT ON TABLE customers IS NULL", &["CT-04"]),
        content("extension-gone", "an extension is missing", "DROP EXTENSION hstore", &["CT-12"]),
    ]
}

fn owners_and_settings() -> Vec<Case> {
    vec![
        content("grant-gone", "a grant is missing", "REVOKE SELECT ON kept FROM reader", &["CT-11"]),
        content("grant-too-many", "everybody may read", "GRANT SELECT ON customers TO PUBLIC", &["CT-11"]),
        content("owner-otherwise", "another owner", "ALTER TABLE kept OWNER TO reader", &["CT-11"]),
        content("policy-gone", "a policy is missing", "DROP POLICY mine ON kept", &["CT-11"]),
        content(
            "policy-open",
            "a policy lets everybody through",
            "ALTER POLICY tenants ON guarded USING (true)",
            &["CT-11"],
        ),
        content(
            "default-privileges",
            "another default privilege",
            "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader",
            &["CT-11"],
        ),
        content(
            "large-object-grant",
            "another grant on a large object",
            "GRANT SELECT ON LARGE OBJECT 70001 TO PUBLIC",
            &["CT-10"],
        ),
        globals(
            "role-attribute",
            "a role may bypass row security",
            "ALTER ROLE reader BYPASSRLS",
            &["CT-11"],
        ),
        globals(
            "role-setting",
            "another setting of a role",
            "ALTER ROLE reader SET statement_timeout = '{n}s'",
            &["CT-16"],
        ),
        globals("role-setting-gone", "a role lost its settings", "ALTER ROLE reader RESET ALL", &["CT-16"]),
        globals(
            "database-setting",
            "another setting of the database",
            "ALTER DATABASE shop SET work_mem = '{n}MB'",
            &["CT-16"],
        ),
        globals(
            "connection-limit",
            "another limit of connections",
            "ALTER DATABASE shop CONNECTION LIMIT {n}",
            &["CT-16"],
        ),
        globals(
            "connect-revoked",
            "nobody may connect",
            "REVOKE CONNECT ON DATABASE shop FROM PUBLIC",
            &["CT-11"],
        ),
        Case::new(
            "wrong-encoding",
            Layer::Content,
            "the database has another encoding",
            &["CT-14"],
            |stage, _| {
                let server = stage.server()?;
                server.sql("postgres", "DROP DATABASE shop WITH (FORCE)")?;
                server.create("shop", &["-T", "template0", "-E", "SQL_ASCII", "--locale=C"])?;
                server.sql("shop", "CREATE TABLE events AS SELECT 1 AS a")?;
                let altered = stage.product.backup("it")?;
                let mut files = stage.whole.clone();
                let other = files_of(&opened(&stage.product)?, &copy_of(&altered)?)?;
                let globals = other
                    .into_iter()
                    .find(|(path, _)| path.ends_with(b"globals.json"))
                    .ok_or("the copy holds no globals.json")?;
                files.insert(globals.0, globals.1);
                forge_files(&stage.product, &stage.original, &files)?;
                Ok(Ask::drill())
            },
        ),
    ]
}

fn dumps() -> Vec<Case> {
    vec![
        options(
            "no-post-data",
            "indexes, constraints and triggers were not dumped",
            &["--section=pre-data", "--section=data"],
            &["CT-05"],
        ),
        options("no-data", "no rows were dumped", &["--schema-only"], &["CT-01"]),
        options("no-large-objects", "no large objects were dumped", &["--no-blobs"], &["CT-10"]),
        options("no-grants", "no grants were dumped", &["--no-acl"], &["CT-11"]),
        options("no-comments", "no comments were dumped", &["--no-comments"], &["CT-04"]),
        options("no-publications", "no publications were dumped", &["--no-publications"], &["CT-03"]),
        options("table-excluded", "a table was excluded", &["--exclude-table=events"], &["CT-03"]),
        options(
            "table-data-excluded",
            "a table's rows were excluded",
            &["--exclude-table-data=cargo"],
            &["CT-01"],
        ),
        options("one-table-only", "only one table was dumped", &["--table=orders"], &["CT-03"]),
        Case::new(
            "other-database",
            Layer::Dump,
            "a dump of the test system under the name of production",
            &["CT-01", "CT-02"],
            |stage, _| {
                let server = stage.server()?;
                server.sql("shop", "UPDATE orders SET note = 'test'; UPDATE customers SET name = 'Test ' || id, mail = 't' || id || '@example.org'")?;
                forge_files(&stage.product, &stage.original, &dumped(stage, &[])?)?;
                Ok(Ask::drill())
            },
        ),
        bytes("digit-in-rows", "one digit in the rows of a table", &["CT-02"], |files, dice| {
            let (_, rows) = rows(files, PLAIN)?;
            let at = rows.windows(5).enumerate().filter(|(_, part)| *part == b"\trow ").map(|(at, _)| at + 5);
            let places: Vec<usize> = at.collect();
            let at = places[dice.below(places.len() as u64) as usize];
            rows[at] = if rows[at] == b'9' { b'8' } else { rows[at] + 1 };
            Ok(())
        }),
        bytes("rows-cut-at-a-line", "rows cut off at the end of one", &["CT-01"], |files, dice| {
            let (_, rows) = rows(files, LINES)?;
            let end = line_start(rows, dice)?;
            rows.truncate(end);
            Ok(())
        }),
        bytes(
            "rows-cut-in-a-line",
            "rows cut off in the middle of one",
            &["RP-04", "CT-01", "CT-02", "CT-03"],
            |files, dice| {
                let (_, rows) = rows(files, ORDERS)?;
                let start = line_start(rows, dice)?;
                rows.truncate(start + 5);
                Ok(())
            },
        ),
        bytes("rows-emptied", "the rows of a table are an empty file", &["CT-01"], |files, _| {
            rows(files, PLAIN)?.1.clear();
            Ok(())
        }),
        bytes(
            "rows-missing",
            "the file of a table's rows is missing",
            &["RP-02", "RP-04", "CT-01", "CT-03"],
            |files, _| {
                let (path, _) = rows(files, PLAIN)?;
                files.remove(&path);
                Ok(())
            },
        ),
        bytes(
            "rows-exchanged",
            "the rows of two tables are exchanged",
            &["RP-04", "CT-01", "CT-02", "CT-03"],
            |files, _| {
                let (one, products) = rows(files, PRODUCTS)?;
                let products = products.clone();
                let (other, orders) = rows(files, ORDERS)?;
                let orders = std::mem::replace(orders, products);
                if one == other {
                    return Err("one file for two tables".into());
                }
                files.insert(one, orders);
                Ok(())
            },
        ),
        bytes("row-doubled", "a line of rows is there twice", &["CT-01"], |files, dice| {
            let (_, rows) = rows(files, PLAIN)?;
            let start = line_start(rows, dice)?;
            let end = start + rows[start..].iter().position(|byte| *byte == b'\n').ok_or("no line")? + 1;
            let line = rows[start..end].to_vec();
            rows.splice(start..start, line);
            Ok(())
        }),
        bytes(
            "end-marker-early",
            "an end marker in the middle of the rows",
            &["CT-01", "RP-04", "CT-03"],
            |files, dice| {
                let (_, rows) = rows(files, LINES)?;
                let start = line_start(rows, dice)?;
                rows.splice(start..start, *b"\\.\n");
                Ok(())
            },
        ),
        bytes(
            "zero-byte-in-rows",
            "a zero byte in the rows",
            &["CT-01", "CT-02", "RP-04", "CT-03"],
            |files, dice| {
                let (_, rows) = rows(files, LINES)?;
                let start = line_start(rows, dice)?;
                rows.insert(start + 1, 0);
                Ok(())
            },
        ),
        bytes("contents-cut", "the table of contents is cut off", &["RP-04"], |files, dice| {
            let contents = files.get_mut(b"database/toc.dat".as_slice()).ok_or("no table of contents")?;
            let keep = contents.len() / 10 + dice.below(contents.len() as u64 * 8 / 10) as usize;
            contents.truncate(keep);
            Ok(())
        }),
        bytes("contents-missing", "the table of contents is missing", &["RP-02", "RP-04"], |files, _| {
            files.remove(b"database/toc.dat".as_slice());
            Ok(())
        }),
        bytes("large-object-flipped", "a byte of a large object's file", &["CT-10"], |files, dice| {
            let (_, bytes) = blob(files)?;
            let at = dice.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << dice.below(8);
            Ok(())
        }),
        bytes(
            "large-object-missing",
            "the file of a large object is missing",
            &["CT-10", "RP-02", "RP-04", "CT-03"],
            |files, _| {
                let (path, _) = blob(files)?;
                files.remove(&path);
                Ok(())
            },
        ),
        bytes(
            "globals-missing",
            "roles and settings are missing",
            &["RP-02", "RP-04", "CT-11", "CT-16"],
            |files, _| {
                let path = named(files, b"globals.json")?;
                files.remove(&path);
                Ok(())
            },
        ),
        bytes(
            "globals-without-a-setting",
            "a setting is missing in what makes the roles",
            &["CT-16"],
            |files, _| {
                let path = named(files, b"globals.json")?;
                let text = String::from_utf8(files[&path].clone())?;
                let without = text.replace("lock_timeout", "log_statement_sample_rate").replace("3s", "0.5");
                files.insert(path, without.into_bytes());
                Ok(())
            },
        ),
        bytes(
            "globals-script-missing",
            "the script that stock tools need for the roles is missing",
            &["RP-02", "RP-04", "CT-11"],
            |files, _| {
                let path = named(files, b"globals.sql")?;
                files.remove(&path);
                Ok(())
            },
        ),
        bytes(
            "globals-script-otherwise",
            "the script that stock tools need for the roles makes another role",
            &["CT-11", "RP-07", "RP-04"],
            |files, _| {
                let path = named(files, b"globals.sql")?;
                let text = String::from_utf8(files[&path].clone())?;
                files.insert(path, text.replace("reader", "raider").into_bytes());
                Ok(())
            },
        ),
    ]
}

fn named(files: &Files, name: &[u8]) -> Outcome<Vec<u8>> {
    files
        .keys()
        .find(|path| path.ends_with(name))
        .cloned()
        .ok_or_else(|| "the copy holds no such file".into())
}
