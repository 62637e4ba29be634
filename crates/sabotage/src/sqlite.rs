//! Wrong copies of a SQLite database.

use std::fs;

use seaworthy_testkit::estate::Dice;

use crate::Outcome;
use crate::case::{Ask, Case, Layer};
use crate::forge::{Files, forge_files};
use crate::stage::Stage;

/// The path of the database in the copy.
pub(crate) fn database(files: &Files) -> Outcome<Vec<u8>> {
    files
        .keys()
        .find(|path| path.ends_with(b".sqlite"))
        .cloned()
        .ok_or_else(|| "the copy holds no database".into())
}

/// The copy with other bytes for the database.
pub(crate) fn forged(stage: &Stage, bytes: Vec<u8>) -> Outcome<Ask> {
    let mut files = stage.whole.clone();
    let path = database(&files)?;
    if files[&path] == bytes {
        return Err("the mutation changed nothing".into());
    }
    files.insert(path, bytes);
    forge_files(&stage.product, &stage.original, &files)?;
    Ok(Ask::drill())
}

/// The database of the original copy after a script.
pub(crate) fn altered(stage: &Stage, script: &str) -> Outcome<Vec<u8>> {
    let scratch = stage.scrap().join("altered.sqlite");
    fs::write(&scratch, &stage.whole[&database(&stage.whole)?])?;
    let connection = rusqlite::Connection::open(&scratch)?;
    connection.execute_batch(script)?;
    drop(connection);
    Ok(fs::read(&scratch)?)
}

fn content(name: &str, what: &str, sql: &'static str, expected: &[&'static str]) -> Case {
    Case::new(name, Layer::Content, what, expected, move |stage, dice| {
        let n = 1 + dice.below(25);
        let bytes = altered(stage, &sql.replace("{n}", &n.to_string()))?;
        forged(stage, bytes)
    })
}

fn bytes(
    name: &str,
    what: &str,
    expected: &[&'static str],
    change: impl Fn(&mut Vec<u8>, &mut Dice) -> Outcome + Send + Sync + 'static,
) -> Case {
    Case::new(name, Layer::Dump, what, expected, move |stage, dice| {
        let mut bytes = stage.whole[&database(&stage.whole)?].clone();
        change(&mut bytes, dice)?;
        forged(stage, bytes)
    })
}

const PAGE: usize = 4096;

/// Every case.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![
        content("row-deleted", "a row is missing", "DELETE FROM \"order\" WHERE id = {n}", &["CT-01"]),
        content("row-added", "a row too many", "INSERT INTO audit VALUES ({n}, 'intruder')", &["CT-01"]),
        content("rows-gone", "a table is empty", "DELETE FROM \"order\"", &["CT-01"]),
        content("one-cent", "one cent", "UPDATE \"order\" SET cents = cents + 1 WHERE id = {n}", &["CT-02"]),
        content(
            "number-for-text",
            "a number for a text",
            "UPDATE customer SET note = 5 WHERE id = {n}",
            &["CT-02"],
        ),
        content(
            "text-for-blob",
            "a text for a blob",
            "UPDATE customer SET photo = CAST(x'414243' AS TEXT) WHERE id = {n}",
            &["CT-02"],
        ),
        content(
            "null-for-value",
            "a NULL for a value",
            "UPDATE setting SET value = NULL WHERE key = 'limit'",
            &["CT-02"],
        ),
        content(
            "empty-for-null",
            "an empty text for a NULL",
            "UPDATE setting SET value = '' WHERE key = 'nothing'",
            &["CT-02"],
        ),
        content(
            "integer-for-real",
            "1 for 1.0",
            "UPDATE setting SET value = 1.0 WHERE key = 'limit'",
            &["CT-02"],
        ),
        content(
            "names-exchanged",
            "two values exchanged",
            "UPDATE customer SET name = CASE id WHEN {n} THEN 'Customer 26' ELSE 'Customer ' || ({n} - 1) END WHERE id IN ({n}, 27)",
            &["CT-02"],
        ),
        content(
            "lost-and-doubled",
            "one row lost, another twice",
            "DELETE FROM letters WHERE rowid = {n}; INSERT INTO letters SELECT body FROM letters WHERE rowid = {n} + 1",
            &["CT-02"],
        ),
        content(
            "row-renumbered",
            "a row has another number",
            "UPDATE \"order\" SET id = id + 100000 WHERE id = {n}",
            &["CT-02"],
        ),
        content("index-gone", "an index is missing", "DROP INDEX order_large", &["CT-05"]),
        content(
            "index-otherwise",
            "an index without its condition",
            "DROP INDEX order_large; CREATE INDEX order_large ON \"order\"(cents)",
            &["CT-05"],
        ),
        content("trigger-gone", "a trigger is missing", "DROP TRIGGER order_audit", &["CT-17", "CT-03"]),
        content(
            "trigger-otherwise",
            "a trigger does nothing",
            "DROP TRIGGER order_audit; CREATE TRIGGER order_audit AFTER INSERT ON \"order\" WHEN new.cents > 990000 BEGIN SELECT 1; END",
            &["CT-17", "CT-04"],
        ),
        content("view-gone", "a view is missing", "DROP VIEW turnover", &["CT-03"]),
        content(
            "view-otherwise",
            "a view computes otherwise",
            "DROP VIEW turnover; CREATE VIEW turnover AS SELECT customer, sum(cents) * 2 AS cents FROM \"order\" GROUP BY customer",
            &["CT-04"],
        ),
        content("table-gone", "a table is missing", "DROP TABLE setting", &["CT-03"]),
        content("table-too-many", "a table too many", "CREATE TABLE intruder (a)", &["CT-03", "FS-08"]),
        content("column-too-many", "a column too many", "ALTER TABLE audit ADD COLUMN extra", &["CT-04"]),
        content(
            "user-version",
            "another version of the application's",
            "PRAGMA user_version = 16",
            &["CT-16", "CT-04"],
        ),
        content(
            "application-id",
            "the file of another application",
            "PRAGMA application_id = 7",
            &["CT-16", "CT-04"],
        ),
        content(
            "sequence-back",
            "AUTOINCREMENT begins anew",
            "UPDATE sqlite_sequence SET seq = 0 WHERE name = 'customer'",
            &["CT-07", "CT-02"],
        ),
        content(
            "search-index-stale",
            "a full-text index does not fit its table",
            "DELETE FROM letters_data WHERE id > 10",
            &["CT-02", "CT-01", "CT-13", "CT-15"],
        ),
        content(
            "index-entry-lost",
            "an index lost its entries, the table is whole",
            "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'order_large') WHERE name = 'order_by_customer'; PRAGMA writable_schema = OFF",
            &["CT-13"],
        ),
        bytes(
            "cut-at-a-page",
            "the file is cut off at a page",
            &["CT-13", "CT-01", "RP-04"],
            |bytes, dice| {
                let pages = bytes.len() / PAGE;
                bytes.truncate((pages / 4 + dice.below(pages as u64 / 2) as usize) * PAGE);
                Ok(())
            },
        ),
        bytes(
            "cut-in-a-page",
            "the file is cut off in a page",
            &["CT-13", "CT-01", "RP-04"],
            |bytes, dice| {
                let cut = bytes.len() / 4 + dice.below(bytes.len() as u64 / 2) as usize;
                bytes.truncate(cut | 1);
                Ok(())
            },
        ),
        bytes("page-of-zeroes", "a page of zeroes", &["CT-13", "CT-01", "CT-02"], |bytes, dice| {
            let pages = bytes.len() / PAGE;
            // Free pages are nobody's; a database without changes has none.
            let page = 1 + dice.below(pages as u64 - 1) as usize;
            bytes[page * PAGE..(page + 1) * PAGE].fill(0);
            Ok(())
        }),
        bytes("emptied", "the file is empty", &["CT-13", "CT-03", "RP-04", "RP-11"], |bytes, _| {
            bytes.clear();
            Ok(())
        }),
        bytes("not-a-database", "the file is something else", &["CT-13", "RP-04"], |bytes, dice| {
            dice.fill(bytes);
            Ok(())
        }),
        bytes("missing-header", "the header is overwritten", &["CT-13", "RP-04"], |bytes, dice| {
            dice.fill(&mut bytes[..100]);
            Ok(())
        }),
        bytes(
            "pages-exchanged",
            "two pages are exchanged",
            &["CT-13", "CT-01", "CT-02", "CT-05"],
            |bytes, dice| {
                let pages = bytes.len() / PAGE;
                let one = 1 + dice.below(pages as u64 / 2 - 1) as usize;
                let other = pages / 2 + dice.below((pages - pages / 2) as u64) as usize;
                for offset in 0..PAGE {
                    bytes.swap(one * PAGE + offset, other * PAGE + offset);
                }
                Ok(())
            },
        ),
    ];
    cases.push(Case::new(
        "older-page",
        Layer::Dump,
        "a page of an older state, as many rows",
        &["CT-02", "CT-13"],
        |stage, dice| {
            let now = stage.whole[&database(&stage.whole)?].clone();
            let n = 1 + dice.below(25);
            let then = altered(stage, &format!("UPDATE \"order\" SET cents = cents + 1 WHERE id = {n}"))?;
            let pages: Vec<usize> = (1..now.len().min(then.len()) / PAGE)
                .filter(|page| now[page * PAGE..(page + 1) * PAGE] != then[page * PAGE..(page + 1) * PAGE])
                .collect();
            let page = *pages.first().ok_or("no page differs")?;
            let mut bytes = now;
            bytes[page * PAGE..(page + 1) * PAGE].copy_from_slice(&then[page * PAGE..(page + 1) * PAGE]);
            forged(stage, bytes)
        },
    ));
    cases.push(Case::new(
        "copied-without-its-log",
        Layer::Dump,
        "the file of a live database was copied without its log",
        &["CT-01"],
        |stage, _| {
            // What the database is now is what was backed up; the file of a while ago is what `cp` would have taken.
            let bytes =
                altered(stage, "DELETE FROM \"order\" WHERE id > (SELECT max(id) - 20 FROM \"order\")")?;
            forged(stage, bytes)
        },
    ));
    cases
}
