//! Rows of large tables are copied out of the repository: equal, heaviest first, and never quietly cut.

use std::sync::atomic::Ordering;

use super::*;

/// A database with two large tables, the heavier one made last, a large object and small things. The owner of
/// one has no right to it left, which must not keep its rows out.
const LARGE: &str = "CREATE ROLE maker LOGIN CREATEDB; CREATE SCHEMA ours AUTHORIZATION maker; SET ROLE maker; \
    SET search_path = ours; CREATE TABLE a_heavy AS SELECT i, repeat(md5(i::text), 4) AS b FROM generate_series(1, 70000) i; \
    ALTER TABLE a_heavy ADD PRIMARY KEY (i); CREATE TABLE small AS SELECT i FROM generate_series(1, 100) i; \
    CREATE TABLE z_heaviest AS SELECT i, repeat(md5(i::text), 8) AS b FROM generate_series(1, 90000) i; \
    ALTER TABLE z_heaviest ADD PRIMARY KEY (i); \
    SELECT lo_from_bytea(0, (SELECT string_agg(sha512(i::text::bytea), '') FROM generate_series(1, 140000) i)); \
    RESET ROLE; REVOKE ALL ON ours.a_heavy FROM maker;";

/// A view whose rows its owner may read only once the grants are there; one that a dump makes after all constraints, with a
/// grant of its own; what later tables grant by default; an index whose function its owner may not call any more.
const GRANTED: &str = "CREATE ROLE reader; GRANT USAGE, CREATE ON SCHEMA ours TO reader; GRANT SELECT ON ours.small TO reader; \
    SET ROLE reader; CREATE MATERIALIZED VIEW ours.sums AS SELECT sum(i) FROM ours.small; RESET ROLE; \
    CREATE TABLE ours.keyed (id int PRIMARY KEY, name text); INSERT INTO ours.keyed VALUES (1, 'one'); \
    CREATE MATERIALIZED VIEW ours.grouped AS SELECT id, name, count(*) FROM ours.keyed GROUP BY id; \
    GRANT SELECT ON ours.grouped TO reader; \
    ALTER DEFAULT PRIVILEGES IN SCHEMA ours GRANT UPDATE ON TABLES TO reader; \
    CREATE FUNCTION ours.folded(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)'; \
    CREATE INDEX ON ours.keyed (ours.folded(name)); REVOKE ALL ON FUNCTION ours.folded(text) FROM PUBLIC, postgres;";

async fn large(server: &Server, bin_dir: Option<String>) -> Copied {
    large_and(server, bin_dir, "").await
}

async fn large_and(server: &Server, bin_dir: Option<String>, more: &str) -> Copied {
    server.create("large", &[]).unwrap();
    server.sql("large", LARGE).unwrap();
    server.sql("large", more).unwrap();
    let spec = spec(server, "large");
    capture(PostgresSpec { bin_dir: bin_dir.or(spec.bin_dir.clone()), ..spec }).await
}

/// Sizes of the files of rows that were opened as streams, in their order.
fn opened(copy: &DiskCopy) -> Vec<u64> {
    let paths = copy.opened.lock().unwrap();
    let rows = paths.iter().filter(|path| !path.as_bytes().ends_with(b"toc.dat"));
    rows.map(|path| std::fs::metadata(copy.at(path)).unwrap().len()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_copied_are_equal_and_the_heaviest_came_first() {
    // The next major has another pg_restore, whose parts must come in the same order.
    for server in [Server::start(&[]).unwrap(), Server::start_from(second(), &[]).unwrap()] {
        loaded(&server).await;
    }
}

async fn loaded(server: &Server) {
    let copied = large_and(server, None, GRANTED).await;
    let sandbox = OpenSandbox::new();
    let restored = copied.restored_in(&sandbox).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(findings(&*restored, &copied.captured.witness).await, []);
    let sizes = opened(&copied.copy);
    assert_eq!(sizes.len(), 2, "two tables: {sizes:?}");
    // Two workers begin at once, in whichever order.
    assert!(
        sizes[..2].contains(&sizes.iter().copied().max().unwrap()),
        "the heaviest is not last: {sizes:?}"
    );
    for entry in std::fs::read_dir(sandbox.root().join("copy")).unwrap() {
        let entry = entry.unwrap();
        let is_object = entry.file_name().to_str().is_some_and(|name| name.starts_with("blob_"));
        let size = entry.metadata().unwrap().len();
        assert!(is_object || size < 8 << 20, "{} lies on the disk", entry.path().display());
    }
    restored.close(&Cx::unbounded()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_damaged_is_damage_and_never_an_early_end() {
    let server = Server::start(&[]).unwrap();
    let copied = large(&server, None).await;
    for sound in [0, 1, 3_000_000, 9_000_000] {
        copied.copy.sound.store(sound, Ordering::SeqCst);
        let error = copied.try_restored().await.map(|_| ()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Corrupt, "{sound}: {}", chain(&error));
        assert_eq!(error.code, Some(FindingCode::ObjectDamaged), "{sound}: {}", chain(&error));
        let (host, port, user, tables) = (None, None, None, Vec::new());
        let to = NewTarget::Database { host, port, user, database: "never".to_owned(), tables };
        let (witness, from) = (&copied.captured.witness, Arc::<DiskCopy>::clone(&copied.copy));
        let error =
            copied.source.deliver(&Cx::unbounded(), witness, from, &to).await.map(|_| ()).unwrap_err();
        assert_eq!(error.code, Some(FindingCode::ObjectDamaged), "{sound}: {}", chain(&error));
        let left = "SELECT count(*) FROM pg_database WHERE datname = 'never'";
        assert_eq!(server.sql("postgres", left).unwrap().trim(), "0", "nothing half is left");
    }
    copied.copy.sound.store(u64::MAX, Ordering::SeqCst);
    assert_eq!(copied.findings().await, [], "whole again");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_the_server_refuses_are_named_by_their_table_alone() {
    let server = Server::start(&[]).unwrap();
    let copied = large(&server, None).await;
    let heaviest = std::fs::read_dir(copied.copy.root.join("database"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max_by_key(|path| std::fs::metadata(path).unwrap().len())
        .unwrap();
    let whole = std::fs::read(&heaviest).unwrap();
    let mut broken = whole.clone();
    broken[1_000_000..1_000_100].fill(b'\t');
    std::fs::write(&heaviest, &broken).unwrap();
    let error = copied.try_restored().await.map(|_| ()).unwrap_err();
    assert_eq!((error.kind, error.code), (ErrorKind::Corrupt, Some(FindingCode::RelationMissing)));
    let words = chain(&error);
    assert!(words.contains("ours.z_heaviest") && words.contains("SQLSTATE 22P04"), "{words}");
    // Cut between two rows: for COPY a whole file, for the witness not.
    let rows = whole[..whole.len() / 2].iter().rposition(|byte| *byte == b'\n').unwrap();
    std::fs::write(&heaviest, &whole[..=rows]).unwrap();
    assert!(codes(&copied.findings().await).contains(&FindingCode::RowCount), "cut between two rows");
    std::fs::write(&heaviest, &whole).unwrap();
    assert_eq!(copied.findings().await, [], "whole again");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_objects_without_any_table_come_back() {
    let server = Server::start(&[]).unwrap();
    server.create("objects", &[]).unwrap();
    let objects = "SELECT lo_from_bytea(0, (SELECT string_agg(sha512(i::text::bytea), '') \
                   FROM generate_series(1, 140000) i)); SELECT lo_from_bytea(0, 'small')";
    server.sql("objects", objects).unwrap();
    let copied = capture(PostgresSpec { may_be_empty: true, ..spec(&server, "objects") }).await;
    assert_eq!(copied.findings().await, []);
    assert!(opened(&copied.copy).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_attempt_copies_again() {
    let server = Server::start(&[]).unwrap();
    let programs = deadlock_with(&server, "--jobs=2");
    let copied = large(&server, Some(programs.path().display().to_string())).await;
    assert_eq!(copied.findings().await, [], "one worker is tried next");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_database_is_delivered_to_whoever_may_make_one() {
    let server = Server::start(&[]).unwrap();
    let copied = large(&server, None).await;
    let rows = "SELECT count(*), sum(hashtext(t::text)) FROM ours.z_heaviest t";
    for (user, database) in [("postgres", "by_postgres"), ("maker", "by_maker")] {
        copied.copy.opened.lock().unwrap().clear();
        let (host, port, tables) = (None, None, Vec::new());
        let to = NewTarget::Database {
            host,
            port,
            user: Some(user.to_owned()),
            database: database.to_owned(),
            tables,
        };
        let (witness, from) = (&copied.captured.witness, Arc::<DiskCopy>::clone(&copied.copy));
        let delivered = copied.source.deliver(&Cx::unbounded(), witness, from, &to).await;
        let delivered = delivered.unwrap_or_else(|error| panic!("{user}: {}", chain(&error)));
        assert_eq!(server.sql(database, rows).unwrap(), server.sql("large", rows).unwrap(), "{user}");
        assert_eq!(opened(&copied.copy).len(), 2, "{user}");
        let stored: u64 = std::fs::read_dir(copied.copy.root.join("database"))
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert_eq!(delivered.written.bytes, stored, "{user}");
    }
    copied.copy.opened.lock().unwrap().clear();
    let to = NewTarget::Database {
        host: None,
        port: None,
        user: None,
        database: "one".to_owned(),
        tables: vec!["ours.a_heavy".to_owned()],
    };
    let (witness, from) = (&copied.captured.witness, Arc::<DiskCopy>::clone(&copied.copy));
    let delivered = copied.source.deliver(&Cx::unbounded(), witness, from, &to).await.unwrap();
    let fetched = opened(&copied.copy);
    assert_eq!(fetched.len(), 1, "what nobody asks for is not fetched");
    let written = delivered.written.bytes;
    assert!((fetched[0]..fetched[0] + (1 << 20)).contains(&written), "{written} is said of {fetched:?}");
}

/// A statement that our session cannot say: the rows lie on the disk, also when nobody asks for another table.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_table_with_a_name_of_another_encoding_is_restored_alone() {
    let server = Server::start(&[]).unwrap();
    let create = ["--encoding=LATIN1", "--locale=C", "--template=template0"];
    server.create("latin", &create).unwrap();
    let make = "SET client_encoding = 'UTF8'; \
        CREATE TABLE big AS SELECT i AS \"größe\", repeat(md5(i::text), 4) AS b FROM generate_series(1, 70000) i; \
        CREATE TABLE other AS SELECT i, repeat(md5(i::text), 4) AS b FROM generate_series(1, 70000) i";
    server.sql("latin", make).unwrap();
    let copied = capture(spec(&server, "latin")).await;
    assert_eq!(copied.findings().await, []);
    copied.copy.opened.lock().unwrap().clear();
    let (host, port, user, tables) = (None, None, None, vec!["public.big".to_owned()]);
    let to = NewTarget::Database { host, port, user, database: "alone".to_owned(), tables };
    let (witness, from) = (&copied.captured.witness, Arc::<DiskCopy>::clone(&copied.copy));
    let delivered = copied.source.deliver(&Cx::unbounded(), witness, from, &to).await;
    delivered.unwrap_or_else(|error| panic!("{}", chain(&error)));
    let rows = "SELECT count(*), sum(hashtext(b)) FROM big";
    assert_eq!(server.sql("alone", rows).unwrap(), server.sql("latin", rows).unwrap());
    assert!(opened(&copied.copy).is_empty(), "it came by way of the disk");
}
