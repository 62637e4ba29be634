//! The PostgreSQL source against a real server: what it captures comes back equal, and what is wrong is found.
#![cfg(feature = "postgres")]
#![expect(clippy::unwrap_used, reason = "a test: what cannot be unwrapped fails it")]

#[path = "support/loading.rs"]
mod loading;
mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use seaworthy_drivers::source::postgres::PostgresSource;
use seaworthy_interface::{
    Captured, Cx, DriverError, ErrorKind, NewTarget, Restored, Sandbox as _, Source as _,
};
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::receipt::is_found;
use seaworthy_model::source::{PostgresMode, PostgresSpec, Tls};
use seaworthy_model::verdict::CheckOutcome;
use seaworthy_model::witness::Witness;
use seaworthy_model::witness::postgres::PostgresWitness;
use seaworthy_testkit::postgres::{SHAPES, Server, every_kind, shop, sql_at};
use support::{DiskCopy, OpenSandbox};

fn spec(server: &Server, database: &str) -> PostgresSpec {
    PostgresSpec {
        host: server.host(),
        port: server.port(),
        user: "postgres".to_owned(),
        mode: PostgresMode::Logical,
        database: database.to_owned(),
        password: None,
        tls: Tls::LocalOnly,
        exclude_schemas: Vec::new(),
        exclude_tables: Vec::new(),
        lock_timeout: SignedDuration::from_secs(10),
        bin_dir: Some(server.programs().display().to_string()),
        may_be_empty: false,
    }
}

struct Copied {
    captured: Captured,
    copy: Arc<DiskCopy>,
    source: PostgresSource,
    _directory: tempfile::TempDir,
}

impl Copied {
    fn witness(&self) -> &PostgresWitness {
        match &self.captured.witness {
            Witness::Postgres(witness) => witness,
            Witness::Sqlite(_) | Witness::Files(_) => panic!("a PostgreSQL witness"),
        }
    }

    async fn restored(&self) -> Box<dyn Restored> {
        self.try_restored().await.unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    async fn try_restored(&self) -> Result<Box<dyn Restored>, DriverError> {
        self.restored_in(&OpenSandbox::new()).await
    }

    async fn restored_in(&self, sandbox: &Arc<OpenSandbox>) -> Result<Box<dyn Restored>, DriverError> {
        let (copy, sandbox) = (Arc::clone(&self.copy), Arc::clone(sandbox));
        self.source.restore(&Cx::unbounded(), &self.captured.witness, copy, sandbox).await
    }

    /// Findings of a drill of this copy: restore, measure, compare.
    async fn findings(&self) -> Vec<Finding> {
        let restored = self.restored().await;
        let mut findings = findings(&*restored, &self.captured.witness).await;
        findings.extend(restored.findings());
        restored.close(&Cx::unbounded()).await.unwrap();
        findings
    }
}

fn chain(error: &DriverError) -> String {
    let mut text = format!("{error} [{:?}] hint: {:?}", error.code, error.hint);
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}

async fn findings(restored: &dyn Restored, witness: &Witness) -> Vec<Finding> {
    let reports =
        restored.compare(&Cx::unbounded(), witness).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    let executed: Vec<String> = reports.iter().map(|report| report.name.clone()).collect();
    assert_eq!(executed, witness.checks());
    for report in &reports {
        assert_eq!(report.outcome == CheckOutcome::Passed, report.findings.is_empty(), "{report:?}");
    }
    reports.into_iter().flat_map(|report| report.findings).collect()
}

fn codes(findings: &[Finding]) -> BTreeSet<FindingCode> {
    findings.iter().map(|finding| finding.code).collect()
}

async fn try_capture(spec: PostgresSpec) -> Result<Copied, DriverError> {
    let source = PostgresSource::new(spec, None, Vec::new())?;
    let directory = tempfile::tempdir().unwrap();
    let copy = Arc::new(DiskCopy::new(&directory.path().join("copy")));
    let captured = source.capture(&Cx::unbounded(), Arc::<DiskCopy>::clone(&copy)).await?;
    assert_eq!(copy.unfinished.load(std::sync::atomic::Ordering::SeqCst), 0);
    Ok(Copied { captured, copy, source, _directory: directory })
}

async fn capture(spec: PostgresSpec) -> Copied {
    try_capture(spec).await.unwrap_or_else(|error| panic!("{}", chain(&error)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_comes_back_equal() {
    let server = Server::start(&[]).unwrap();
    server.create("shop", &[]).unwrap();
    server.sql("shop", &shop(500)).unwrap();
    let copied = capture(spec(&server, "shop")).await;
    assert_eq!(copied.captured.findings, []);
    assert!(copied.captured.is_complete);
    assert_eq!(copied.witness().tables["public.orders"].rows, 500);
    assert_eq!(copied.findings().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_common_kind_of_object_comes_back_equal() {
    let server = Server::start(&[]).unwrap();
    let name = "every \"kind\" é";
    server.create(name, &["--locale-provider=icu", "--icu-locale=de", "--template=template0"]).unwrap();
    server.sql(name, &every_kind(&name.replace('"', "\"\""))).unwrap();
    let copied = capture(spec(&server, name)).await;
    assert!(copied.captured.is_complete, "{:?}", copied.captured.findings);
    let flaws: Vec<String> = copied.captured.findings.iter().map(ToString::to_string).collect();
    assert_eq!(flaws, ["CT-20 app.checked: later: is NOT VALID: rows older than it may break it"]);
    let witness = copied.witness();
    let empty: Vec<_> = seaworthy_model::witness::postgres::ObjectClass::ALL
        .iter()
        .filter(|class| witness.objects[class].is_empty())
        .collect();
    assert!(empty.is_empty(), "the sample has no {empty:?}");
    assert_eq!(witness.large_objects.count, 4);
    let text = serde_json::to_string(&copied.captured.witness).unwrap();
    assert!(!text.contains("canary-password") && !text.contains("it''s") && !text.contains("Asia/Tokyo"));
    assert_eq!(copied.findings().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn expressions_of_every_shape_come_back_equal() {
    let server = Server::start(&[]).unwrap();
    server.create("shapes", &[]).unwrap();
    server.sql("shapes", SHAPES).unwrap();
    let copied = capture(PostgresSpec { may_be_empty: true, ..spec(&server, "shapes") }).await;
    assert_eq!(copied.findings().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_is_left_out_and_named() {
    let server = Server::start(&[]).unwrap();
    server.create("shop", &[]).unwrap();
    server.sql("shop", &shop(10)).unwrap();
    let subscription = "CREATE SUBSCRIPTION sub CONNECTION 'host=192.0.2.1 password=canary' PUBLICATION p \
                        WITH (connect = false, slot_name = NONE)";
    server.sql("shop", subscription).unwrap();
    let copied = capture(spec(&server, "shop")).await;
    let found: Vec<String> = copied.captured.findings.iter().map(|finding| finding.subject.clone()).collect();
    assert_eq!(found, ["sub"]);
    assert_eq!(codes(&copied.captured.findings), BTreeSet::from([FindingCode::ScopeNarrow]));
    assert_eq!(copied.findings().await, []);
    for entry in std::fs::read_dir(copied.copy.root.join("database")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"canary"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_lies_about_its_end_is_never_a_copy() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = Server::start(&[]).unwrap();
    server.create("shop", &[]).unwrap();
    server.sql("shop", &shop(600)).unwrap();
    let real = seaworthy_testkit::postgres::programs().unwrap().join("pg_dump").display().to_string();
    let directory = tempfile::tempdir().unwrap();
    let stub = directory.path().join("pg_dump");
    for (case, body, is_good) in [
        ("says nothing and succeeds", "exit 0".to_owned(), false),
        ("writes everything and fails", format!("{real} \"$@\"; exit 1"), false),
        ("is cut and succeeds", format!("{real} \"$@\" | /usr/bin/head -c 90000; exit 0"), false),
        ("goes on after its end", format!("{real} \"$@\"; echo more; exit 0"), false),
        ("leaves a table out", format!("{real} \"$@\" --exclude-table=orders; exit 0"), false),
        ("leaves a table's rows out", format!("{real} \"$@\" --exclude-table-data=orders; exit 0"), false),
        ("leaves large objects out", format!("{real} \"$@\" --no-blobs; exit 0"), false),
        ("is honest", format!("exec {real} \"$@\""), true),
    ] {
        server.sql("shop", "SELECT lo_from_bytea(0, 'x')").unwrap();
        let script =
            format!("#!/bin/sh\nif [ \"$1\" = --version ]; then exec {real} --version; fi\n{body}\n");
        std::fs::write(&stub, script).unwrap();
        std::fs::set_permissions(&stub, std::fs::Permissions::from_mode(0o755)).unwrap();
        let bin_dir = Some(directory.path().display().to_string());
        let result = try_capture(PostgresSpec { bin_dir, ..spec(&server, "shop") }).await;
        let is_kept = result.as_ref().is_ok_and(|copied| copied.captured.is_complete);
        assert_eq!(is_kept, is_good, "{case}: {:?}", result.map(|copied| copied.captured.findings));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_encodings_come_back_equal() {
    let server = Server::start(&[]).unwrap();
    server.create("latin", &["--encoding=LATIN1", "--locale=C", "--template=template0"]).unwrap();
    let latin = "CREATE TABLE \"tä\" (a text, \"ö\" int DEFAULT 1); INSERT INTO \"tä\" VALUES ('é ü ÿ'), (''); \
                 COMMENT ON TABLE \"tä\" IS 'ß';";
    server.sql("latin", latin).unwrap();
    server.create("ascii", &["--encoding=SQL_ASCII", "--locale=C", "--template=template0"]).unwrap();
    server.sql("ascii", "CREATE TABLE raw (a text); INSERT INTO raw VALUES (E'\\xe9\\xff'), ('é');").unwrap();
    for name in ["latin", "ascii"] {
        let copied = capture(spec(&server, name)).await;
        assert_eq!(copied.captured.findings, [], "{name}");
        assert_eq!(copied.witness().rows(), 2, "{name}");
        assert_eq!(copied.findings().await, [], "{name}");
    }
}

/// A script that says statements in bytes, which `psql` and this file cannot hold as text, to a SQL_ASCII or a LATIN1
/// database.
fn in_bytes(encoding: &str, statements: &[&[u8]]) -> String {
    let block = |statement: &&[u8]| {
        let digits: String = statement.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("DO $$BEGIN EXECUTE convert_from('\\x{digits}', '{encoding}'); END$$;\n")
    };
    statements.iter().map(block).collect()
}

/// Roles with all that belongs to them, as bytes in hexadecimal digits; asked by statements of the test's own.
const ROLES_IN_BYTES: &str = "SELECT encode(r.rolname::text::bytea, 'hex'), encode(shobj_description(r.oid, 'pg_authid')::bytea, 'hex'), \
     (SELECT string_agg(encode(g.rolname::text::bytea, 'hex'), ',' ORDER BY g.rolname::text COLLATE \"C\") FROM pg_auth_members m \
     JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid), (SELECT string_agg(encode(replace(s.setconfig::text, '\\', '')::bytea, 'hex'), ',' \
     ORDER BY s.setconfig::text COLLATE \"C\") FROM pg_db_role_setting s WHERE s.setrole = r.oid AND s.setdatabase = 0) FROM pg_roles r \
     WHERE r.rolname !~ '^pg_' ORDER BY r.rolname::text COLLATE \"C\"";

#[tokio::test(flavor = "multi_thread")]
async fn names_that_were_made_in_another_encoding_come_back_equal() {
    let server = Server::start(&[]).unwrap();
    for encoding in ["UTF8", "LATIN1", "WIN1252", "SQL_ASCII", "EUC_JP"] {
        let encoding = format!("--encoding={encoding}");
        let name =
            if encoding.contains("EUC") { "euc ß" } else { encoding.trim_start_matches("--encoding=") };
        server.create(name, &[&encoding, "--locale=C", "--template=template0"]).unwrap();
    }
    // Made in a UTF8 database, as most roles are: `Á` has a byte that WIN1252 and EUC_JP do not know.
    let roles = "CREATE ROLE \"Álvaro\"; CREATE ROLE \"ié ié\" LOGIN; GRANT \"Álvaro\" TO \"ié ié\" WITH ADMIN OPTION; \
                 COMMENT ON ROLE \"Álvaro\" IS 'ßá'; ALTER ROLE \"Álvaro\" SET app.word = 'ü=Á'; \
                 ALTER ROLE \"ié ié\" SET search_path = \"$user\", \"tä\"; COMMENT ON DATABASE \"LATIN1\" IS 'Á';";
    server.sql("postgres", roles).unwrap();
    // Made in a LATIN1 database: one byte for `é`, which is no UTF-8.
    let latin_roles: [&[u8]; 4] = [
        b"CREATE ROLE \"Andr\xe9\"",
        b"COMMENT ON ROLE \"Andr\xe9\" IS '\xdf'",
        b"ALTER ROLE \"Andr\xe9\" SET app.word = '\xfc=\"'",
        b"GRANT \"Andr\xe9\" TO \"\xc3\x81lvaro\"",
    ];
    server.sql("LATIN1", &in_bytes("LATIN1", &latin_roles)).unwrap();
    for name in ["UTF8", "LATIN1", "WIN1252", "SQL_ASCII"] {
        // Bytes as they are: what a client sends whose encoding is the database's own.
        let mut script = format!(
            "SET client_encoding = SQL_ASCII; CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2); CREATE TABLE u (a int); \
             ALTER TABLE t OWNER TO \"Álvaro\"; GRANT SELECT ON t TO \"ié ié\"; CREATE POLICY p ON t TO \"ié ié\", \"Álvaro\"; \
             ALTER DEFAULT PRIVILEGES FOR ROLE \"Álvaro\" GRANT SELECT ON TABLES TO \"ié ié\"; SELECT lo_create(7); \
             ALTER LARGE OBJECT 7 OWNER TO \"Álvaro\"; ALTER DATABASE \"{name}\" OWNER TO \"Álvaro\"; \
             GRANT CREATE ON DATABASE \"{name}\" TO \"ié ié\" WITH GRANT OPTION; \
             ALTER ROLE \"ié ié\" IN DATABASE \"{name}\" SET app.word = 'ö';"
        );
        if name == "LATIN1" || name == "SQL_ASCII" {
            let grant: [&[u8]; 2] =
                [b"ALTER TABLE u OWNER TO \"Andr\xe9\"", b"GRANT SELECT ON t TO \"Andr\xe9\""];
            script.push_str(&in_bytes(name, &grant));
        }
        server.sql(name, &script).unwrap();
    }
    server.sql("euc ß", "CREATE TABLE t AS SELECT 1 AS a").unwrap();
    for name in ["UTF8", "LATIN1", "WIN1252", "SQL_ASCII", "euc ß"] {
        let copied = capture(spec(&server, name)).await;
        assert_eq!(copied.captured.findings, [], "{name}");
        assert!(copied.witness().roles.contains_key("Álvaro"), "{name}: {:?}", copied.witness().roles);
        assert_eq!(copied.witness().database.name, name);
        let sandbox = OpenSandbox::new();
        let restored =
            copied.restored_in(&sandbox).await.unwrap_or_else(|error| panic!("{name}: {}", chain(&error)));
        assert_eq!(restored.findings(), [], "{name}");
        assert_eq!(findings(&*restored, &copied.captured.witness).await, [], "{name}");
        // An empty database without an encoding shows the bytes of both clusters as they are.
        sql_at(
            sandbox.root(),
            "template1",
            "CREATE DATABASE bytes TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'",
        )
        .unwrap();
        let roles = server.sql("SQL_ASCII", ROLES_IN_BYTES).unwrap();
        assert!(roles.contains("416e6472e9") && roles.contains("c3816c7661726f"), "{roles}");
        assert_eq!(sql_at(sandbox.root(), "bytes", ROLES_IN_BYTES).unwrap(), roles, "{name}");
        restored.close(&Cx::unbounded()).await.unwrap();
        if name == "LATIN1" {
            let to = NewTarget::Database {
                host: None,
                port: None,
                user: None,
                database: "again".to_owned(),
                tables: Vec::new(),
            };
            let delivered = copied
                .source
                .deliver(
                    &Cx::unbounded(),
                    &copied.captured.witness,
                    Arc::<DiskCopy>::clone(&copied.copy),
                    &to,
                )
                .await;
            assert_eq!(
                delivered.unwrap_or_else(|error| panic!("{}", chain(&error))).findings,
                [],
                "delivered"
            );
            // For people: the script makes the same bytes wherever a database can hold them.
            let other = Server::start(&[]).unwrap();
            other.create("bytes", &["--encoding=SQL_ASCII", "--locale=C", "--template=template0"]).unwrap();
            let script = other.path().join("globals.sql");
            std::fs::copy(copied.copy.root.join("globals.sql"), &script).unwrap();
            std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
            let file = script.display().to_string();
            let without = ["-X", "-q", "-d", "bytes", "-f", &file];
            other.run("psql", &without, "").unwrap();
            assert_eq!(other.sql("bytes", ROLES_IN_BYTES).unwrap(), roles);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_an_encoding_may_name_things_in_any() {
    let server = Server::start(&[]).unwrap();
    server.create("ascii", &["--encoding=SQL_ASCII", "--locale=C", "--template=template0"]).unwrap();
    let statements: [&[u8]; 10] = [
        b"CREATE SCHEMA \"s\xe9\"",
        b"CREATE TABLE \"s\xe9\".\"t\xe9\"\"\\\" (id serial PRIMARY KEY, \"c\xff'\" text DEFAULT 'x\xe9', at timestamptz DEFAULT now() CHECK (at > '2000-01-01'))",
        b"INSERT INTO \"s\xe9\".\"t\xe9\"\"\\\" (\"c\xff'\") SELECT 'row \xfe ' || i FROM generate_series(1, 50) i",
        b"COMMENT ON TABLE \"s\xe9\".\"t\xe9\"\"\\\" IS '\xff\xfe'",
        b"CREATE INDEX \"i\xe9\" ON \"s\xe9\".\"t\xe9\"\"\\\" (\"c\xff'\") WHERE \"c\xff'\" <> '\xe9'",
        b"CREATE FUNCTION \"f\xe9\"() RETURNS text LANGUAGE sql AS 'SELECT ''\xe9''::text'",
        b"CREATE VIEW \"v\xe9\" AS SELECT \"c\xff'\" AS \"d\xe9\" FROM \"s\xe9\".\"t\xe9\"\"\\\" WHERE \"c\xff'\" IN ('\xe9', 'a')",
        b"CREATE TYPE \"e\xe9\" AS ENUM ('a', '\xe9')",
        b"CREATE SEQUENCE \"q\xe9\" START 5",
        "CREATE TABLE \"tä\" AS SELECT 'ä'::text AS a".as_bytes(),
    ];
    server.sql("ascii", &in_bytes("SQL_ASCII", &statements)).unwrap();
    let copied = capture(spec(&server, "ascii")).await;
    assert_eq!(copied.captured.findings, []);
    assert_eq!(copied.witness().rows(), 51);
    assert!(copied.witness().tables.contains_key("public.\"tä\""), "{:?}", copied.witness().tables);
    let restored = copied.restored().await;
    assert_eq!(findings(&*restored, &copied.captured.witness).await, []);
    assert!(restored.newest(&Cx::unbounded()).await.unwrap().is_some());
    let probe = restored.write_probe(&Cx::unbounded()).await.unwrap();
    assert_eq!(probe.outcome, CheckOutcome::Passed, "{probe:?}");
    restored.close(&Cx::unbounded()).await.unwrap();
    let mut kinds = BTreeSet::new();
    for seed in [0, 1, 2, 4] {
        let restored = copied.restored().await;
        let damage = restored.damage(&Cx::unbounded(), &copied.captured.witness, seed).await.unwrap();
        let found = findings(&*restored, &copied.captured.witness).await;
        assert!(
            damage.expected.iter().any(|code| codes(&found).contains(code)),
            "seed {seed}: {damage:?}: {found:?}"
        );
        assert!(!damage.description.contains('\u{10ffe9}'), "{damage:?}");
        kinds.extend(damage.expected);
        restored.close(&Cx::unbounded()).await.unwrap();
    }
    assert!(kinds.len() >= 2, "{kinds:?}");
}

/// The programs of another major than the machine's own.
fn second() -> std::path::PathBuf {
    seaworthy_testkit::components::second_postgres_bin().unwrap_or_else(|error| panic!("{error}"))
}

/// Restores, compares, damages and compares again: both lines of a drill.
async fn prove(copied: &Copied, what: &str) {
    let sandbox = OpenSandbox::new();
    let restored =
        copied.restored_in(&sandbox).await.unwrap_or_else(|error| panic!("{what}: {}", chain(&error)));
    assert_eq!(restored.findings(), [], "{what}");
    assert_eq!(findings(&*restored, &copied.captured.witness).await, [], "{what}");
    let cx = Cx::unbounded();
    let probe = restored.write_probe(&cx).await.unwrap();
    assert_eq!(probe.outcome, CheckOutcome::Passed, "{what}: {probe:?}");
    let before = copied.witness().server.version_num;
    let major = format!("PostgreSQL {}.", before / 10_000);
    assert!(restored.summary().contains(&major), "{what}: {}", restored.summary());
    for seed in 0..3 {
        let damage = restored.damage(&cx, &copied.captured.witness, seed).await.unwrap();
        let found = codes(&findings(&*restored, &copied.captured.witness).await);
        assert!(damage.expected.iter().any(|code| found.contains(code)), "{what}: {damage:?}: {found:?}");
    }
    restored.close(&cx).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_major_is_backed_up_and_proven() {
    let server = Server::start_from(second(), &[]).unwrap();
    let name = "every \"kind\" é";
    server.create(name, &["--locale-provider=icu", "--icu-locale=de", "--template=template0"]).unwrap();
    server.sql(name, &every_kind(&name.replace('"', "\"\""))).unwrap();
    let copied = capture(spec(&server, name)).await;
    assert!(copied.captured.is_complete, "{:?}", copied.captured.findings);
    let own = Server::start(&[]).unwrap();
    own.create("own", &[]).unwrap();
    let of_own = capture(PostgresSpec { may_be_empty: true, ..spec(&own, "own") }).await;
    assert_ne!(copied.witness().server.major(), of_own.witness().server.major(), "there is only one major");
    prove(&copied, "every kind").await;
    server.create("shapes", &[]).unwrap();
    server.sql("shapes", SHAPES).unwrap();
    prove(&capture(PostgresSpec { may_be_empty: true, ..spec(&server, "shapes") }).await, "shapes").await;
    server.create("latin", &["--encoding=LATIN1", "--locale=C", "--template=template0"]).unwrap();
    server.sql("latin", &shop(100).replace("“ä€😀”", "ä")).unwrap();
    prove(&capture(spec(&server, "latin")).await, "latin").await;
    if copied.witness().server.major() >= 17 {
        let builtin = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--template=template0"];
        server.create("builtin", &builtin).unwrap();
        server.sql("builtin", &shop(100)).unwrap();
        prove(&capture(spec(&server, "builtin")).await, "builtin").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_server_is_backed_up_and_restored_by_a_newer_client() {
    let (one, other) = (seaworthy_testkit::postgres::programs().unwrap(), second());
    let major =
        |bin: &Path| -> u32 { bin.parent().unwrap().file_name().unwrap().to_str().unwrap().parse().unwrap() };
    let (older, newer) = if major(&one) < major(&other) { (one, other) } else { (other, one) };
    let server = Server::start_from(older.clone(), &[]).unwrap();
    server.create("kinds", &["--locale-provider=icu", "--icu-locale=de", "--template=template0"]).unwrap();
    server.sql("kinds", &every_kind("kinds")).unwrap();
    // The newer clients are named, and the older ones are not in reach, but the engine is of the older major.
    let clients = tempfile::tempdir().unwrap();
    for program in ["pg_dump", "pg_restore"] {
        std::os::unix::fs::symlink(newer.join(program), clients.path().join(program)).unwrap();
    }
    std::os::unix::fs::symlink(older.join("postgres"), clients.path().join("postgres")).unwrap();
    std::os::unix::fs::symlink(older.join("initdb"), clients.path().join("initdb")).unwrap();
    std::process::Command::new("/bin/chmod").args(["a+rx"]).arg(clients.path()).status().unwrap();
    let bin_dir = Some(clients.path().display().to_string());
    let copied = capture(PostgresSpec { bin_dir, ..spec(&server, "kinds") }).await;
    assert!(copied.captured.is_complete, "{:?}", copied.captured.findings);
    let dumped = copied.witness().scope.dump_version.clone();
    assert!(dumped.starts_with(&format!("{}.", major(&newer))), "dumped by {dumped}");
    prove(&copied, "by a newer client").await;
    let cx = Cx::unbounded();
    let deliver = async |server: &Server| {
        let to = NewTarget::Database {
            host: Some(server.host()),
            port: Some(server.port()),
            user: None,
            database: "new".to_owned(),
            tables: Vec::new(),
        };
        let copy = Arc::<DiskCopy>::clone(&copied.copy);
        copied.source.deliver(&cx, &copied.captured.witness, copy, &to).await
    };
    let same = deliver(&server).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(same.findings, []);
    // To a newer server: what it holds is not compared across majors, and that is said.
    let upgraded = Server::start_from(newer, &[]).unwrap();
    let without = deliver(&upgraded).await.unwrap_err();
    assert!(without.hint.as_deref().is_some_and(|hint| hint.contains("globals.sql")), "{}", chain(&without));
    let roles = std::fs::read_to_string(copied.copy.root.join("globals.sql")).unwrap();
    upgraded.sql("postgres", &roles).unwrap();
    let up = deliver(&upgraded).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    let count = "SELECT count(*), max(id) FROM app.kinds";
    assert_eq!(upgraded.sql("new", count).unwrap(), server.sql("kinds", count).unwrap());
    assert_eq!(up.findings.len(), 1, "{:?}", up.findings);
    assert!(up.findings[0].detail.contains("number of rows alone"), "{:?}", up.findings);
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_during_the_capture_raise_no_alarm() {
    let server = Server::start(&["max_connections=50"]).unwrap();
    server.create("busy", &[]).unwrap();
    server.sql("busy", &shop(2000)).unwrap();
    server.run("pgbench", &["-i", "-s", "2", "-q", "busy"], "").unwrap();
    let script = server.path().join("script");
    let statements = "\\set c random(1, 400)\nBEGIN;\nINSERT INTO orders (customer, placed, note) VALUES (:c, now(), 'busy');\n\
        UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :c;\n\
        DELETE FROM order_lines WHERE ctid = (SELECT ctid FROM order_lines LIMIT 1);\n\
        SELECT lo_from_bytea(0, '\\x0102');\nCOMMIT;\n";
    std::fs::write(&script, statements).unwrap();
    let server = Arc::new(server);
    let writer = {
        let server = Arc::clone(&server);
        let script = script.display().to_string();
        std::thread::spawn(move || {
            server.run("pgbench", &["-n", "-c", "4", "-T", "12", "-f", &script, "busy"], "")
        })
    };
    let mut moved = 0;
    for _ in 0..3 {
        let copied = capture(spec(&server, "busy")).await;
        let now: u64 = server.sql("busy", "SELECT count(*) FROM orders").unwrap().trim().parse().unwrap();
        moved += now - copied.witness().tables["public.orders"].rows;
        assert_eq!(copied.findings().await, []);
    }
    assert!(moved > 0, "nobody wrote while it was captured: the test shows nothing");
    writer.join().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_that_change_during_the_capture_raise_no_alarm() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let server = Arc::new(Server::start(&["max_connections=50"]).unwrap());
    server.create("busy", &[]).unwrap();
    server.sql("busy", &shop(2000)).unwrap();
    server.run("pgbench", &["-i", "-s", "3", "-q", "busy"], "").unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let changer = {
        let (server, over) = (Arc::clone(&server), Arc::clone(&over));
        std::thread::spawn(move || {
            let mut round = 0;
            while !over.load(Ordering::SeqCst) {
                round += 1;
                let script = format!(
                    "CREATE OR REPLACE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.note := {round}; \
                     RETURN NEW; END'; COMMENT ON VIEW revenue IS '{round}'; CREATE TABLE later_{round} (a int); \
                     INSERT INTO later_{round} VALUES (1); GRANT SELECT ON later_{round} TO PUBLIC; \
                     CREATE OR REPLACE VIEW changing AS SELECT {round} AS a;"
                );
                server.sql("busy", &script).unwrap();
            }
            round
        })
    };
    let mut changed = 0;
    for _ in 0..4 {
        let copied = capture(spec(&server, "busy")).await;
        changed +=
            usize::from(copied.witness().scope.notes.iter().any(|note| note.contains("two lawful forms")));
        assert_eq!(copied.findings().await, []);
    }
    over.store(true, Ordering::SeqCst);
    assert!(changer.join().unwrap() > 10 && changed > 0, "nothing changed while it was captured");
}

/// A `pg_dump` that lets something happen before it begins, and the directory that it is in.
fn dump_after(server: &Server, happening: &str) -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let stub = directory.path().join("pg_dump");
    let (programs, host) = (server.programs().display(), server.host());
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" != --version ]; then {programs}/psql -X -q -h {host} -U postgres -d $PGDATABASE -c \"{happening}\" || exit 9; fi\n\
         exec {programs}/pg_dump \"$@\"\n"
    );
    std::fs::write(&stub, script).unwrap();
    std::fs::set_permissions(&stub, std::fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

/// A `pg_restore` whose workers come to wait for each other after they have made the tables, with that many of them.
fn deadlock_with(server: &Server, jobs: &str) -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let everybody = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory.path(), everybody.clone()).unwrap();
    let stub = directory.path().join("pg_restore");
    let programs = server.programs().display();
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *{jobs}*) {programs}/pg_restore --section=pre-data \"$@\"\n\
         echo 'pg_restore: error: could not execute query: ERROR:  deadlock detected' >&2; exit 1;; esac\n\
         exec {programs}/pg_restore \"$@\"\n"
    );
    std::fs::write(&stub, script).unwrap();
    std::fs::set_permissions(&stub, everybody).unwrap();
    directory
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_of_pg_restore_that_wait_for_each_other_do_not_blame_the_copy() {
    let server = Server::start(&[]).unwrap();
    server.create("shop", &[]).unwrap();
    server.sql("shop", &shop(100)).unwrap();
    let programs = deadlock_with(&server, "--jobs=2");
    let bin_dir = Some(programs.path().display().to_string());
    let copied = capture(PostgresSpec { bin_dir, ..spec(&server, "shop") }).await;
    assert_eq!(copied.findings().await, [], "one worker is tried next");
    let (host, port, user, tables) = (None, None, None, Vec::new());
    let to = NewTarget::Database { host, port, user, database: "again".to_owned(), tables };
    let (witness, from) = (&copied.captured.witness, Arc::<DiskCopy>::clone(&copied.copy));
    let delivered = copied.source.deliver(&Cx::unbounded(), witness, from, &to).await;
    assert_eq!(delivered.unwrap_or_else(|error| panic!("{}", chain(&error))).findings, [], "delivered");
    let programs = deadlock_with(&server, "--jobs=");
    let bin_dir = Some(programs.path().display().to_string());
    let copied = capture(PostgresSpec { bin_dir, ..spec(&server, "shop") }).await;
    let error = copied.try_restored().await.map(|_| ()).unwrap_err();
    assert_eq!(error.code, Some(FindingCode::EnvOther), "{}", chain(&error));
    let (host, port, user, tables) = (None, None, None, Vec::new());
    let to = NewTarget::Database { host, port, user, database: "never".to_owned(), tables };
    let (witness, from) = (&copied.captured.witness, Arc::<DiskCopy>::clone(&copied.copy));
    let error = copied.source.deliver(&Cx::unbounded(), witness, from, &to).await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict, "{}", chain(&error));
    let left = "SELECT count(*) FROM pg_database WHERE datname = 'never'";
    assert_eq!(server.sql("shop", left).unwrap().trim(), "0", "nothing half is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_emptied_or_rewritten_after_the_snapshot_is_never_copied_as_empty() {
    let server = Server::start(&[]).unwrap();
    server.create("busy", &[]).unwrap();
    // Large enough that both workers are busy with them while the victim changes; the largest are measured first.
    for name in ["wide_a", "wide_b"] {
        let table = format!(
            "CREATE TABLE {name} (b text); ALTER TABLE {name} ALTER b SET STORAGE PLAIN; \
             INSERT INTO {name} SELECT repeat(chr(97 + i % 26), 7000) FROM generate_series(1, 12000) i"
        );
        server.sql("busy", &table).unwrap();
    }
    for (happening, is_copied) in [
        ("TRUNCATE victim", false),
        ("ALTER TABLE victim ALTER a TYPE bigint", false),
        ("BEGIN; TRUNCATE victim; INSERT INTO victim VALUES (1); COMMIT", false),
        ("VACUUM FULL victim", true),
        ("DELETE FROM victim", true),
        ("INSERT INTO victim VALUES (99)", true),
    ] {
        let victim = "DROP TABLE IF EXISTS victim; CREATE TABLE victim (a int); INSERT INTO victim SELECT generate_series(1, 50)";
        server.sql("busy", victim).unwrap();
        let programs = dump_after(&server, happening);
        let bin_dir = Some(programs.path().display().to_string());
        let result = try_capture(PostgresSpec { bin_dir, ..spec(&server, "busy") }).await;
        match result {
            Ok(copied) => {
                let rows = copied.witness().tables["public.victim"].rows;
                assert!(is_copied && rows == 50, "{happening}: {rows} rows");
                if happening.starts_with("VACUUM") {
                    assert_eq!(copied.findings().await, [], "{happening}");
                }
            }
            Err(error) => {
                assert!(!is_copied, "{happening}: {}", chain(&error));
                // On a slow machine the victim is measured first; then the dump has fewer rows than the witness.
                // One whose columns have other types meanwhile cannot be hashed as it was listed.
                let is_clear =
                    matches!(error.kind, ErrorKind::Conflict | ErrorKind::Corrupt | ErrorKind::Other);
                assert!(
                    is_clear && error.to_string().contains("public.victim"),
                    "{happening}: {}",
                    chain(&error)
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_restarts_during_the_dump_leaves_no_copy_and_the_next_one_is_whole() {
    let server = Arc::new(Server::start(&[]).unwrap());
    server.create("shop", &[]).unwrap();
    server.run("pgbench", &["-i", "-s", "20", "-q", "shop"], "").unwrap();
    for mode in ["fast", "immediate"] {
        let source = PostgresSource::new(spec(&server, "shop"), None, Vec::new()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let copy = Arc::new(DiskCopy::new(&directory.path().join("cut")));
        let restart = {
            let (server, files) = (Arc::clone(&server), copy.root.join("database"));
            std::thread::spawn(move || {
                let deadline = std::time::Instant::now() + Duration::from_secs(30);
                while !files.exists() && std::time::Instant::now() < deadline {
                    std::thread::yield_now();
                }
                server.restart(mode)
            })
        };
        let error =
            source.capture(&Cx::unbounded(), Arc::<DiskCopy>::clone(&copy)).await.map(|_| ()).unwrap_err();
        restart.join().unwrap().unwrap();
        let is_told =
            error.kind == ErrorKind::Unreachable || error.code == Some(FindingCode::StreamUnfinished);
        assert!(is_told, "{mode}: {}", chain(&error));
        assert!(!copy.root.join("database/toc.dat").exists(), "{mode}");
        let copied = capture(spec(&server, "shop")).await;
        assert_eq!(copied.captured.findings, [], "{mode}");
        assert_eq!(copied.findings().await, [], "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_definitions_ends_in_a_whole_copy_or_in_a_clear_error() {
    let gentle = storm(false).await;
    assert!(gentle > 0, "no capture came to its end under a gentle storm, so nothing was compared");
    storm(true).await;
}

/// Captures during a storm, and how many of them were whole; a copy that is whole and not equal fails the test.
async fn storm(is_heavy: bool) -> u32 {
    use std::sync::atomic::{AtomicBool, Ordering};
    let server =
        Arc::new(Server::start(&["max_locks_per_transaction=256", "deadlock_timeout=200ms"]).unwrap());
    server.create("busy", &[]).unwrap();
    server.sql("busy", &shop(1000)).unwrap();
    let steady = "CREATE TABLE steady (a int PRIMARY KEY, b text); INSERT INTO steady SELECT i, 'b' || i FROM generate_series(1, 500) i; \
                  CREATE TABLE typed (a int, b int); INSERT INTO typed SELECT i, i FROM generate_series(1, 300) i; CREATE SCHEMA side;";
    server.sql("busy", steady).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let storms: Vec<_> = (0..2_u64)
        .map(|storm| {
            let (server, over) = (Arc::clone(&server), Arc::clone(&over));
            std::thread::spawn(move || {
                let mut round = storm;
                while !over.load(Ordering::SeqCst) {
                    round += 2;
                    // What waits for the dump's own locks gives up; what fails is passed over.
                    server.run("psql", &["-X", "-q", "-d", "busy"], &storm_script(round, is_heavy)).unwrap();
                }
                round
            })
        })
        .collect();
    let (mut whole, mut told) = (0, Vec::new());
    for _ in 0..storm_captures() {
        match try_capture(spec(&server, "busy")).await {
            Ok(copied) if copied.captured.is_complete => {
                assert_eq!(copied.findings().await, [], "{:?}", copied.witness().scope.notes);
                whole += 1;
            }
            Ok(copied) => told.push(format!("{:?}", copied.captured.findings)),
            Err(error) => {
                let is_clear =
                    matches!(error.kind, ErrorKind::Conflict | ErrorKind::NotFound | ErrorKind::Other);
                assert!(is_clear, "{}", chain(&error));
                told.push(chain(&error));
            }
        }
    }
    over.store(true, Ordering::SeqCst);
    let rounds: u64 = storms.into_iter().map(|storm| storm.join().unwrap()).sum();
    assert!(rounds > 5, "there was no storm: {rounds} rounds, {whole} whole, {told:#?}");
    // When it is over, nothing of it stands in the way.
    assert_eq!(capture(spec(&server, "busy")).await.findings().await, []);
    whole
}

/// How many captures the storm goes on for; more by hand.
fn storm_captures() -> u32 {
    std::env::var("SEAWORTHY_LOOPS").ok().map_or(5, |text| text.parse().unwrap())
}

/// Definitions that come, change and go. Of a heavy storm's a dump rarely survives one: tables and columns that it is
/// about to read go away.
fn storm_script(round: u64, is_heavy: bool) -> String {
    let (before, kind) = (round.saturating_sub(4), if round % 4 < 2 { "int" } else { "bigint" });
    let heavy = format!(
        "DROP INDEX IF EXISTS again; CREATE INDEX again ON steady (a, (a + {round}));
         ALTER TABLE orders DROP CONSTRAINT IF EXISTS again; ALTER TABLE orders ADD CONSTRAINT again CHECK (customer > -{round}) NOT VALID; ALTER TABLE orders VALIDATE CONSTRAINT again;
         DROP TRIGGER IF EXISTS again ON orders; CREATE TRIGGER again BEFORE UPDATE ON orders FOR EACH ROW WHEN (NEW.id > {round}) EXECUTE FUNCTION touch();
         DROP POLICY IF EXISTS p{before} ON customers; ALTER TABLE typed RENAME COLUMN n{round} TO m{round}; ALTER TABLE side.t{round} RENAME CONSTRAINT k TO l;
         DROP TABLE IF EXISTS side.t{before}; ALTER TABLE steady DROP COLUMN IF EXISTS c{before}; ALTER TABLE typed ALTER a TYPE {kind};
         ALTER TABLE typed DROP COLUMN IF EXISTS m{before}; DROP FUNCTION IF EXISTS side.f{before}(int); TRUNCATE side.t{round}; INSERT INTO side.t{round} VALUES (1);
         DROP VIEW IF EXISTS side.v; DROP SEQUENCE IF EXISTS side.s; DROP TYPE IF EXISTS side.e;
         ALTER TABLE typed ADD COLUMN g int GENERATED ALWAYS AS (b + 1) STORED; ALTER TABLE typed DROP COLUMN g;"
    );
    format!(
        "SET lock_timeout = '300ms';
         CREATE TABLE side.t{round} (a int PRIMARY KEY, b text DEFAULT 'x{round}' CHECK (b <> '{round}'), c int REFERENCES steady);
         INSERT INTO side.t{round} SELECT i, 'r{round}' FROM generate_series(1, 20) i; CREATE INDEX i{round} ON side.t{round} (b) WHERE a > {round};
         ALTER TABLE steady ADD COLUMN c{round} int DEFAULT {round}; ALTER TABLE typed ALTER b SET DEFAULT {round}; ALTER TABLE typed ADD COLUMN n{round} text;
         CREATE FUNCTION side.f{round}(a int) RETURNS int LANGUAGE sql AS 'SELECT {round} + a';
         CREATE OR REPLACE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.note := {round}; RETURN NEW; END';
         CREATE OR REPLACE VIEW side.v AS SELECT a + {round} AS a FROM steady WHERE a BETWEEN {round} AND 400 AND b IN ('b1', 'b{round}');
         CREATE SEQUENCE IF NOT EXISTS side.s START {round}; ALTER SEQUENCE side.s INCREMENT {round}; CREATE TYPE side.e AS ENUM ('a'); ALTER TYPE side.e ADD VALUE 'b{round}';
         CREATE INDEX j{round} ON side.t{round} (a, (a + {round})); ALTER TABLE side.t{round} ADD CONSTRAINT k CHECK (a > -{round}) NOT VALID; ALTER TABLE side.t{round} VALIDATE CONSTRAINT k;
         CREATE TRIGGER g{round} BEFORE UPDATE ON side.t{round} FOR EACH ROW EXECUTE FUNCTION touch(); CREATE POLICY p{round} ON customers USING (id > {round}); ALTER TABLE order_lines ALTER quantity SET STATISTICS {statistics};
         COMMENT ON TABLE steady IS 'round {round}'; COMMENT ON INDEX orders_open IS '{round}'; GRANT SELECT ON side.t{round} TO PUBLIC; ALTER TABLE products SET (fillfactor = {fill});
         {heavy} SELECT pg_sleep({pause});",
        statistics = round % 1000,
        fill = 50 + round % 50,
        pause = if is_heavy { 0.02 } else { 0.25 },
        heavy = if is_heavy { heavy } else { String::new() }
    )
}

/// A table of every type that is hashed as it is, of one that is not, and of more columns than a chain has links; a copy
/// of it without any null, whose rows take the shorter way; and one with values out of line.
const HASHED: &str = "
CREATE TABLE hashed (id int PRIMARY KEY, yes bool, i2 int2, i4 int4, i8 int8, o oid, t text, v varchar(30), c char(6),
    u uuid, n numeric, d text COLLATE \"C\");
INSERT INTO hashed VALUES
    (1, true, 1, 1, 1, 1, 'one', 'one', 'one', '00000000-0000-0000-0000-000000000001', 1, '1'),
    (2, false, 2, 2, 2, 2, 'two', 'two', 'two', '00000000-0000-0000-0000-000000000002', 2, '2'),
    (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    (4, false, 0, 0, 0, 0, '', '', '', '00000000-0000-0000-0000-000000000000', 0, ''),
    (5, false, 0, 0, -1, 0, '', NULL, '', NULL, 0, NULL);
CREATE TABLE full_of_values (LIKE hashed);
INSERT INTO full_of_values SELECT * FROM hashed WHERE id < 3;
DO $$ DECLARE c text; BEGIN FOR c IN SELECT attname FROM pg_attribute WHERE attrelid = 'full_of_values'::regclass
    AND attnum > 0 LOOP EXECUTE format('ALTER TABLE full_of_values ALTER %I SET NOT NULL', c); END LOOP; END $$;
DO $$ BEGIN EXECUTE (SELECT 'CREATE TABLE many (' || string_agg(format('c%s int4', i), ',') || ')'
    FROM generate_series(1, 200) i); END $$;
DO $$ BEGIN EXECUTE (SELECT 'INSERT INTO many VALUES (' || string_agg(i::text, ',') || ')'
    FROM generate_series(1, 200) i); END $$;
INSERT INTO many SELECT FROM generate_series(1, 2);
CREATE TABLE out_of_line (id int, t text, j jsonb);
INSERT INTO out_of_line SELECT i, string_agg(md5((i * 1000 + g)::text), ''), jsonb_build_object('k', i)
    FROM generate_series(1, 20) i, generate_series(1, 300) g GROUP BY i;
CREATE TABLE without_columns ();
INSERT INTO without_columns SELECT FROM generate_series(1, 3);";

#[tokio::test(flavor = "multi_thread")]
async fn every_two_values_of_every_hashed_type_are_told_apart() {
    let server = Server::start(&[]).unwrap();
    server.create("hashed", &[]).unwrap();
    server.sql("hashed", HASHED).unwrap();
    let copied = capture(spec(&server, "hashed")).await;
    let sandbox = OpenSandbox::new();
    let restored = copied.restored_in(&sandbox).await.unwrap();
    assert_eq!(findings(&*restored, &copied.captured.witness).await, []);
    assert_eq!(copied.witness().tables["public.without_columns"].rows, 3);
    let mut changes: Vec<String> = [
        // What a hash that folds 64 bits into 32 takes for equal.
        "UPDATE hashed SET i8 = 4294967296 WHERE id = 1",
        "UPDATE full_of_values SET i8 = 4294967296 WHERE id = 1",
        "UPDATE hashed SET i8 = 0 WHERE id = 5",
        // A value in another column, in another row, or twice instead of two values once.
        "UPDATE hashed SET t = v, v = t || 'x' WHERE id = 2",
        "UPDATE hashed SET t = CASE id WHEN 1 THEN 'two' ELSE 'one' END WHERE id < 3",
        "UPDATE full_of_values SET i4 = 3 - i4",
        "UPDATE full_of_values SET i2 = CASE id WHEN 1 THEN 2 ELSE 1 END",
        "UPDATE full_of_values SET yes = true, i4 = 1",
        "UPDATE hashed SET v = '', u = NULL, d = NULL WHERE id = 4",
        "UPDATE hashed SET n = 1.0 WHERE id = 1",
        "UPDATE hashed SET t = 'one ' WHERE id = 1",
        "UPDATE hashed SET c = ' one' WHERE id = 1",
        "UPDATE hashed SET d = 'B' || d WHERE id = 1",
        "UPDATE many SET c99 = 0 WHERE c99 IS NULL",
        "UPDATE many SET c1 = 0 WHERE c1 IS NULL",
        "UPDATE many SET c2 = c3, c3 = c2 WHERE c1 IS NOT NULL",
        "UPDATE out_of_line SET t = overlay(t placing '!' from 9000) WHERE id = 7",
        "UPDATE out_of_line SET t = left(t, -1) WHERE id = 8",
    ]
    .map(str::to_owned)
    .to_vec();
    let types = [
        ("yes", "false"),
        ("i2", "0"),
        ("i4", "0"),
        ("i8", "0"),
        ("o", "0"),
        ("t", "''"),
        ("v", "''"),
        ("c", "''"),
        ("u", "'00000000-0000-0000-0000-000000000000'"),
        ("n", "0"),
        ("d", "''"),
    ];
    for (column, nothing) in types {
        changes.push(format!("UPDATE hashed SET {column} = {nothing} WHERE id = 3"));
        changes.push(format!("UPDATE hashed SET {column} = NULL WHERE id = 1"));
    }
    for change in changes {
        let table = change.split(' ').nth(1).unwrap();
        // The rows as they were come back afterwards, in another order, which changes nothing.
        let keep = format!("CREATE SCHEMA kept; CREATE TABLE kept.rows AS TABLE {table}; {change}");
        sql_at(sandbox.root(), "hashed", &keep).unwrap();
        let found = codes(&findings(&*restored, &copied.captured.witness).await);
        assert!(found.contains(&FindingCode::RowContent), "{change}: {found:?}");
        let undo = format!(
            "DELETE FROM {table}; INSERT INTO {table} SELECT * FROM kept.rows; DROP SCHEMA kept CASCADE"
        );
        sql_at(sandbox.root(), "hashed", &undo).unwrap();
    }
    assert_eq!(findings(&*restored, &copied.captured.witness).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_table_is_measured_in_parts_that_add_up() {
    let server = Server::start(&[]).unwrap();
    server.create("large", &[]).unwrap();
    // One row for each page: the cheapest table of more than two parts.
    let table = "CREATE TABLE wide (b text, a int, c numeric); ALTER TABLE wide ALTER b SET STORAGE PLAIN; \
                 INSERT INTO wide SELECT repeat(chr(97 + i % 26), 7000), i, i / 2.0 FROM generate_series(1, 50000) i; \
                 DELETE FROM wide WHERE a % 1000 = 0;";
    server.sql("large", table).unwrap();
    let copied = capture(spec(&server, "large")).await;
    // A numeric is hashed by its text, so that the server cannot share the scan out to its own workers.
    let whole = "SELECT count(*), sum(hashtextextended(b COLLATE \"C\", hashint4extended(a, \
                 hashtextextended(ROW(c)::text COLLATE \"C\", 7640891576956012808)))) FROM wide";
    let facts = &copied.witness().tables["public.wide"];
    assert_eq!(server.sql("large", whole).unwrap().trim(), format!("{}|{}", facts.rows, facts.sums[0]));
    let sandbox = OpenSandbox::new();
    let restored = copied.restored_in(&sandbox).await.unwrap();
    assert_eq!(findings(&*restored, &copied.captured.witness).await, []);
    for row in [1, 16_401, 33_001, 49_999] {
        let change = |b: &str| format!("UPDATE wide SET b = {b} WHERE a = {row}");
        sql_at(sandbox.root(), "large", &change("overlay(b placing '!' from 1)")).unwrap();
        let found = codes(&findings(&*restored, &copied.captured.witness).await);
        assert_eq!(found, BTreeSet::from([FindingCode::RowContent]), "row {row}");
        sql_at(sandbox.root(), "large", &change("repeat(chr(97 + a % 26), 7000)")).unwrap();
    }
    assert_eq!(findings(&*restored, &copied.captured.witness).await, []);
}

/// Statements that break a restored shop, and the code that each must raise.
fn sabotages() -> Vec<(&'static str, FindingCode)> {
    use FindingCode as C;
    vec![
        ("UPDATE products SET price = price + 0.01 WHERE sku = 'SKU-7'", C::RowContent),
        (
            "DELETE FROM events WHERE ctid = (SELECT min(ctid) FROM events WHERE b = 'one'); \
          INSERT INTO events SELECT * FROM events WHERE b = 'two' LIMIT 1",
            C::RowContent,
        ),
        (
            "WITH gone AS (DELETE FROM twin_a WHERE a = 1 RETURNING *), came AS (DELETE FROM twin_b WHERE a = 2 RETURNING *), \
          x AS (INSERT INTO twin_b SELECT * FROM gone) INSERT INTO twin_a SELECT * FROM came",
            C::RowContent,
        ),
        ("UPDATE kept SET j = '{\"a\":1}'", C::RowContent),
        ("UPDATE kept SET f = '-0'", C::RowContent),
        ("UPDATE kept SET at = at + interval '1 microsecond'", C::RowContent),
        ("UPDATE kept SET note = '' WHERE note IS NULL", C::RowContent),
        ("UPDATE kept SET n = 1.0", C::RowContent),
        ("UPDATE kept SET tail = tail || ' '", C::RowContent),
        ("DELETE FROM order_lines WHERE order_id = 3 AND line = 1", C::RowCount),
        ("INSERT INTO events VALUES (9, 'nine')", C::RowCount),
        ("TRUNCATE events", C::RowCount),
        ("DROP TABLE twin_a", C::RelationMissing),
        ("CREATE TABLE intruder (a int)", C::RelationMissing),
        ("DROP VIEW revenue", C::RelationMissing),
        ("DROP STATISTICS related", C::RelationMissing),
        ("DROP PUBLICATION pub", C::RelationMissing),
        ("ALTER TABLE order_lines DROP CONSTRAINT order_lines_sku_fkey", C::ConstraintOrIndex),
        (
            "ALTER TABLE order_lines DROP CONSTRAINT order_lines_sku_fkey, ADD CONSTRAINT order_lines_sku_fkey \
          FOREIGN KEY (sku) REFERENCES products NOT VALID",
            C::ConstraintOrIndex,
        ),
        ("ALTER TABLE products DROP CONSTRAINT products_price_check", C::ConstraintOrIndex),
        ("ALTER TABLE order_lines DROP CONSTRAINT order_lines_pkey", C::ConstraintOrIndex),
        ("ALTER DOMAIN email DROP CONSTRAINT email_check", C::ConstraintOrIndex),
        ("DROP INDEX orders_open", C::ConstraintOrIndex),
        ("DROP INDEX orders_open; CREATE INDEX orders_open ON orders (placed)", C::ConstraintOrIndex),
        (
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'orders_open'::regclass",
            C::ConstraintOrIndex,
        ),
        ("ALTER TABLE orders DISABLE TRIGGER orders_touch", C::RoutineOrTrigger),
        ("DROP TRIGGER orders_touch ON orders", C::RoutineOrTrigger),
        (
            "CREATE OR REPLACE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
            C::RoutineOrTrigger,
        ),
        (
            "CREATE OR REPLACE VIEW revenue AS SELECT o.id, sum(l.total) * 2 AS total FROM orders o \
          JOIN order_lines l ON l.order_id = o.id GROUP BY o.id",
            C::DefinitionDiffers,
        ),
        ("REFRESH MATERIALIZED VIEW best WITH NO DATA", C::DefinitionDiffers),
        ("ALTER TABLE orders ALTER state DROP DEFAULT", C::DefinitionDiffers),
        ("ALTER TABLE products ALTER title DROP NOT NULL", C::DefinitionDiffers),
        ("ALTER TABLE twin_a ALTER a TYPE bigint", C::DefinitionDiffers),
        ("ALTER TABLE customers ALTER id DROP IDENTITY", C::DefinitionDiffers),
        ("ALTER TABLE kept DISABLE ROW LEVEL SECURITY", C::DefinitionDiffers),
        ("ALTER TABLE kept SET (fillfactor = 50)", C::DefinitionDiffers),
        ("ALTER TYPE order_state ADD VALUE 'lost'", C::DefinitionDiffers),
        ("COMMENT ON TABLE kept IS 'otherwise'", C::DefinitionDiffers),
        ("REVOKE SELECT ON kept FROM reader", C::OwnersOrGrants),
        ("GRANT DELETE ON kept TO reader", C::OwnersOrGrants),
        ("ALTER TABLE kept OWNER TO reader", C::OwnersOrGrants),
        ("DROP POLICY mine ON kept", C::OwnersOrGrants),
        ("ALTER POLICY mine ON kept USING (true)", C::OwnersOrGrants),
        ("ALTER ROLE reader BYPASSRLS", C::OwnersOrGrants),
        ("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader", C::OwnersOrGrants),
        ("SELECT setval('orders_id_seq', 1, false)", C::SequencePosition),
        ("SELECT nextval('orders_id_seq')", C::SequencePosition),
        ("SELECT lo_put(70001, 1, '\\xee')", C::LargeObjects),
        ("SELECT lo_unlink(70001)", C::LargeObjects),
        ("GRANT SELECT ON LARGE OBJECT 70001 TO PUBLIC", C::LargeObjects),
        ("DROP EXTENSION hstore", C::Extension),
        ("ALTER DATABASE shop SET work_mem = '1MB'", C::SettingsDiffer),
        ("ALTER ROLE reader SET statement_timeout = '1s'", C::SettingsDiffer),
        ("ALTER ROLE reader RESET ALL", C::SettingsDiffer),
        ("ALTER DATABASE shop CONNECTION LIMIT 3", C::SettingsDiffer),
        ("REVOKE CONNECT ON DATABASE shop FROM PUBLIC", C::OwnersOrGrants),
    ]
}

const SHOP_EXTRAS: &str = "CREATE EXTENSION hstore; CREATE ROLE reader; ALTER ROLE reader SET lock_timeout = '3s';
    CREATE TABLE events (a int, b text); INSERT INTO events VALUES (1, 'one'), (1, 'one'), (2, 'two');
    CREATE TABLE twin_a (a int, b text); CREATE TABLE twin_b (a int, b text);
    INSERT INTO twin_a VALUES (1, 'x'); INSERT INTO twin_b VALUES (2, 'x');
    CREATE TABLE kept (j json, f float8, at timestamptz, note text, n numeric, tail text);
    INSERT INTO kept VALUES ('{\"a\": 1}', 0, '2020-01-01', NULL, 1.00, 'x');
    ALTER TABLE kept ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON kept USING (n > 0); GRANT SELECT ON kept TO reader;
    CREATE STATISTICS related ON a, b FROM events; CREATE TABLE published (a int PRIMARY KEY); CREATE PUBLICATION pub FOR TABLE published;
    SELECT lo_from_bytea(70001, '\\x0102ff');";

/// A restored shop that can be made anew from a pristine copy of itself.
async fn sabotaged_shop(server: &Server) -> (Copied, Arc<OpenSandbox>, Box<dyn Restored>) {
    server.create("shop", &[]).unwrap();
    server.sql("shop", &shop(60)).unwrap();
    server.sql("shop", SHOP_EXTRAS).unwrap();
    let copied = capture(spec(server, "shop")).await;
    let sandbox = OpenSandbox::new();
    let restored = copied.restored_in(&sandbox).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(findings(&*restored, &copied.captured.witness).await, []);
    sql_at(sandbox.root(), "postgres", "ALTER DATABASE shop RENAME TO pristine").unwrap();
    (copied, sandbox, restored)
}

fn anew(root: &Path) {
    let script = "DROP DATABASE IF EXISTS shop WITH (FORCE); CREATE DATABASE shop TEMPLATE pristine; \
                  ALTER ROLE reader NOBYPASSRLS; ALTER ROLE reader RESET ALL; ALTER ROLE reader SET lock_timeout = '3s';";
    for statement in script.split_inclusive(';') {
        sql_at(root, "postgres", statement).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sabotage_is_found_under_its_code() {
    let server = Server::start(&[]).unwrap();
    let (copied, sandbox, restored) = sabotaged_shop(&server).await;
    let mut missed = Vec::new();
    for (sabotage, expected) in sabotages() {
        anew(sandbox.root());
        sql_at(sandbox.root(), "shop", sabotage).unwrap();
        let found = findings(&*restored, &copied.captured.witness).await;
        if !codes(&found).contains(&expected) {
            missed.push(format!("{sabotage}: expected {expected}, found {found:?}"));
        }
    }
    assert!(sabotages().len() >= 50);
    assert!(missed.is_empty(), "{missed:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn healthy_variations_raise_no_alarm() {
    let server = Server::start(&[]).unwrap();
    let (copied, sandbox, restored) = sabotaged_shop(&server).await;
    for variation in [
        "SELECT 1",
        "VACUUM FULL",
        "ANALYZE",
        "REINDEX DATABASE shop",
        "CLUSTER orders USING orders_by_customer; ALTER TABLE orders SET WITHOUT CLUSTER",
        "UPDATE order_lines SET line = line; UPDATE events SET a = a",
        "REFRESH MATERIALIZED VIEW best",
        "INSERT INTO events VALUES (5, 'gone'); DELETE FROM events WHERE a = 5",
        "ALTER TABLE kept ADD COLUMN gap int; ALTER TABLE kept DROP COLUMN gap",
        "DROP INDEX orders_open; CREATE INDEX orders_open ON orders (placed) WHERE state IN ('new', 'paid')",
        "ALTER TABLE customers DROP CONSTRAINT customers_tier_check, ADD CONSTRAINT customers_tier_check \
         CHECK (tier::text = ANY (ARRAY['basic'::varchar::text, 'plus'::varchar::text, 'gold'::varchar::text]))",
        "REVOKE SELECT ON kept FROM reader; GRANT SELECT ON kept TO reader",
    ] {
        anew(sandbox.root());
        sql_at(sandbox.root(), "shop", variation).unwrap();
        assert_eq!(findings(&*restored, &copied.captured.witness).await, [], "{variation}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damage_made_on_purpose_is_always_found() {
    let server = Server::start(&[]).unwrap();
    let (copied, sandbox, restored) = sabotaged_shop(&server).await;
    let mut kinds = BTreeSet::new();
    for seed in 0..30 {
        anew(sandbox.root());
        let damage = restored.damage(&Cx::unbounded(), &copied.captured.witness, seed).await.unwrap();
        let found = restored.compare(&Cx::unbounded(), &copied.captured.witness).await.unwrap();
        let is_found = is_found(&found, &damage.expected, &damage.checks);
        assert!(is_found && !damage.checks.is_empty(), "seed {seed}: {damage:?}: {found:?}");
        kinds.extend(damage.expected);
    }
    assert_eq!(kinds.len(), 4, "rows changed, rows deleted, definitions dropped, sequences moved: {kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ruin_is_always_found_and_hits_what_a_question_names() {
    use seaworthy_model::check::{Question, UserCheck};
    use seaworthy_model::id::CheckName;
    let server = Server::start(&[]).unwrap();
    let (copied, sandbox, restored) = sabotaged_shop(&server).await;
    let checks = [UserCheck {
        name: CheckName::new("orders").unwrap(),
        question: Question::MinimumRows { table: "public.orders".to_owned(), rows: 1 },
        timeout: SignedDuration::from_secs(5),
    }];
    let mut others = 0;
    for seed in [1, 3, 5, 7, 9, 11] {
        anew(sandbox.root());
        let (cx, witness) = (Cx::unbounded(), &copied.captured.witness);
        let damage = restored.ruin(&cx, witness, &checks, seed).await.unwrap();
        let found = codes(&findings(&*restored, witness).await);
        assert!(
            damage.expected.iter().all(|code| found.contains(code)),
            "seed {seed}: {damage:?}: {found:?}"
        );
        assert!(damage.description.starts_with("deleted all "), "{damage:?}");
        let is_asked = damage.description.ends_with(" rows of public.orders");
        assert!(is_asked || seed / 2 % 2 == 1, "seed {seed}: {damage:?}");
        others += u32::from(!is_asked);
    }
    assert!(others > 0, "no question that names nothing would ever be doubted");
}

/// Whoever leaves it out says that the data are older than they are.
#[tokio::test(flavor = "multi_thread")]
async fn the_newest_value_counts_also_where_it_lies_in_a_large_table_without_an_index() {
    let server = Server::start(&[]).unwrap();
    server.create("log", &[]).unwrap();
    let script = "CREATE TABLE old (at timestamptz PRIMARY KEY); INSERT INTO old VALUES ('2024-01-06 03:20Z'); \
        CREATE TABLE large (at timestamptz, before timestamp, filler text); ALTER TABLE large ALTER filler SET STORAGE PLAIN; \
        INSERT INTO large SELECT now() - interval '1 year', now() - interval '2 years', repeat('x', 8000) FROM generate_series(1, 9000); \
        INSERT INTO large VALUES (now(), now() + interval '1 year')";
    server.sql("log", script).unwrap();
    assert!(
        server.sql("log", "SELECT pg_relation_size('large')").unwrap().trim().parse::<u64>().unwrap()
            > 64 << 20
    );
    let copied = capture(spec(&server, "log")).await;
    let restored = copied.restored().await;
    let newest = restored.newest(&Cx::unbounded()).await.unwrap().unwrap();
    let age = copied.captured.point.duration_since(newest);
    assert!(age >= SignedDuration::ZERO && age < SignedDuration::from_mins(1), "{age}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_restore_answers_questions_and_can_be_written_to() {
    use CheckOutcome::{Failed, Inconclusive, Passed};
    use seaworthy_model::check::{Question, UserCheck};
    use seaworthy_model::id::CheckName;
    let server = Server::start(&[]).unwrap();
    server.create("shop", &[]).unwrap();
    server.sql("shop", &shop(60)).unwrap();
    server
        .sql(
            "shop",
            "CREATE TABLE alembic_version (version_num text); INSERT INTO alembic_version VALUES ('abc'); \
        CREATE TABLE seen (at timestamptz); INSERT INTO seen VALUES (now()), (now() + interval '10 years'), ('infinity'); \
        CREATE TABLE plans (at timestamptz, day date, local timestamp, word text, later timestamptz); \
        INSERT INTO plans SELECT at, at, at, at, now() + interval '9 years' FROM (VALUES (now() - interval '3 days'), \
        (now() + interval '10 years')) t (at); \
        ALTER DATABASE shop SET statement_timeout = '100ms'; ALTER DATABASE shop SET lock_timeout = '100ms'; \
        CREATE FUNCTION fails(state text) RETURNS bool LANGUAGE plpgsql \
        AS $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = state; END $$",
        )
        .unwrap();
    let copied = capture(spec(&server, "shop")).await;
    let restored = copied.restored().await;
    let cx = Cx::unbounded();
    assert_eq!(findings(&*restored, &copied.captured.witness).await, []);
    let probe = restored.write_probe(&cx).await.unwrap();
    assert_eq!(probe.outcome, Passed, "{probe:?}");
    assert_eq!(findings(&*restored, &copied.captured.witness).await, [], "the write probe is undone");
    let newest = restored.newest(&cx).await.unwrap().unwrap();
    let age = copied.captured.point.duration_since(newest);
    assert!(age >= SignedDuration::ZERO && age < SignedDuration::from_mins(1), "{age}");
    let sql = |query: &str, expect: Option<&str>| Question::Sql {
        database: None,
        query: query.to_owned(),
        expect: expect.map(str::to_owned),
    };
    let minimum = |rows| Question::MinimumRows { table: "orders".to_owned(), rows };
    let fresh =
        |within| Question::Freshness { table: "public.seen".to_owned(), column: "at".to_owned(), within };
    let migration =
        |revision: &str| Question::Migration { tool: "alembic".to_owned(), revision: revision.to_owned() };
    let stale =
        |within| Question::Freshness { table: "orders".to_owned(), column: "placed".to_owned(), within };
    let plans = |column: &str, days: i64| Question::Freshness {
        table: "plans".to_owned(),
        column: column.to_owned(),
        within: SignedDuration::from_hours(24 * days),
    };
    for (question, expected) in [
        (sql("SELECT count(*) = 60 FROM orders", None), Passed),
        (sql("SELECT count(*) FROM orders;", Some("60")), Passed),
        (sql("SELECT count(*) FROM orders", Some("61")), Failed),
        (sql("SELECT false", None), Failed),
        (sql("SELECT NULL::bool", None), Failed),
        (sql("SELECT 1, 2", None), Failed),
        (sql("DELETE FROM orders RETURNING true", None), Failed),
        (sql("SELECT true; DROP TABLE orders", None), Failed),
        (sql("SELECT pg_sleep(30)", None), Inconclusive),
        (minimum(60), Passed),
        (minimum(61), Failed),
        // The limit that was restored with the database is not the question's, and what fails of the machine is not the copy's.
        (sql("SELECT true FROM pg_sleep(1)", None), Passed),
        (sql("SELECT public.fails('53100')", None), Inconclusive),
        (sql("SELECT public.fails('55P03')", None), Inconclusive),
        (sql("SELECT public.fails('57014')", None), Inconclusive),
        (sql("SELECT public.fails('58030')", None), Inconclusive),
        (sql("SELECT public.fails('P0001')", None), Failed),
        // An expiry keeps nothing fresh, and where there is nothing else there is nothing.
        (plans("at", 4), Passed),
        (plans("at", 2), Failed),
        (plans("day", 5), Passed),
        (plans("day", 2), Failed),
        (plans("local", 4), Passed),
        (plans("local", 2), Failed),
        (plans("word", 4), Passed),
        (plans("word", 2), Failed),
        (plans("later", 4), Failed),
        (fresh(SignedDuration::from_hours(1)), Passed),
        (stale(SignedDuration::from_hours(1)), Failed),
        (migration("abc"), Passed),
        (migration("abd"), Failed),
        (Question::Command { argv: vec!["/bin/false".to_owned()] }, Failed),
        (Question::Command { argv: vec!["/bin/true".to_owned()] }, Passed),
        (Question::Http { url: "http://localhost".to_owned(), status: 200 }, Inconclusive),
    ] {
        let check = UserCheck {
            name: CheckName::new("check").unwrap(),
            question,
            timeout: SignedDuration::from_secs(3),
        };
        let report = restored.answer(&cx, &check, copied.captured.point).await.unwrap();
        assert_eq!(report.outcome, expected, "{check:?}: {report:?}");
    }
    assert_ne!(restored.engine_identity().unwrap(), copied.witness().server.system_identifier);
    restored.close(&cx).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_cannot_see_everything_fails_loudly() {
    let server = Server::start(&[]).unwrap();
    server.create("shop", &[]).unwrap();
    server.sql("shop", &shop(60)).unwrap();
    server
        .sql("shop", "CREATE ROLE backup LOGIN; CREATE ROLE nobody LOGIN; GRANT pg_read_all_data TO backup")
        .unwrap();
    let as_role = |role: &str| PostgresSpec { user: role.to_owned(), ..spec(&server, "shop") };
    let copied = capture(as_role("backup")).await;
    assert!(copied.captured.is_complete);
    assert_eq!(copied.findings().await, [], "a least-privileged role is enough");
    let error = try_capture(as_role("nobody")).await.map(|_| ()).unwrap_err();
    assert_eq!(
        (error.kind, error.code),
        (ErrorKind::PermissionDenied, Some(FindingCode::ScopeNarrow)),
        "{error}"
    );
    server
        .sql(
            "shop",
            "ALTER TABLE orders ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON orders USING (id < 10)",
        )
        .unwrap();
    let error = try_capture(as_role("backup")).await.map(|_| ()).unwrap_err();
    assert_eq!(error.code, Some(FindingCode::RowsFiltered), "{}", chain(&error));
    let source = PostgresSource::new(as_role("backup"), None, Vec::new()).unwrap();
    let facts = source.probe(&Cx::unbounded()).await.unwrap();
    assert!(codes(&facts.findings).contains(&FindingCode::RowsFiltered), "{facts:?}");
    server.sql("shop", "ALTER ROLE backup BYPASSRLS").unwrap();
    assert_eq!(capture(as_role("backup")).await.findings().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_declared_to_be_left_out_is_left_out_and_recorded() {
    let server = Server::start(&[]).unwrap();
    server.create("shop", &[]).unwrap();
    server.sql("shop", &shop(60)).unwrap();
    server
        .sql(
            "shop",
            "CREATE SCHEMA logs; CREATE TABLE logs.a (x int); CREATE TABLE \"Od\"\"d.\" (id serial, t text)",
        )
        .unwrap();
    let narrow = PostgresSpec {
        exclude_schemas: vec!["logs".to_owned()],
        exclude_tables: vec!["public.\"Od\"\"d.\"".to_owned()],
        ..spec(&server, "shop")
    };
    let copied = capture(narrow).await;
    assert!(copied.captured.is_complete, "{:?}", copied.captured.findings);
    let witness = copied.witness();
    assert!(!witness.tables.keys().any(|name| name.contains("logs") || name.contains("Od")));
    assert_eq!(witness.scope.exclude_schemas, ["logs"]);
    assert!(witness.scope.dump_options.iter().any(|option| option == "--exclude-schema=\"logs\""));
    assert_eq!(copied.findings().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_is_left_out_whatever_the_encoding() {
    let server = Server::start(&[]).unwrap();
    for encoding in ["LATIN1", "SQL_ASCII", "UTF8"] {
        server
            .create(encoding, &[&format!("--encoding={encoding}"), "--locale=C", "--template=template0"])
            .unwrap();
        let tables = "SET client_encoding = UTF8; CREATE SCHEMA \"ß\"; CREATE TABLE \"ß\".a (a int); CREATE TABLE \"tä\" (id serial); CREATE TABLE kept AS SELECT 1 AS a";
        server.sql(encoding, tables).unwrap();
        let narrow = PostgresSpec {
            exclude_schemas: vec!["ß".to_owned()],
            exclude_tables: vec!["public.tä".to_owned()],
            ..spec(&server, encoding)
        };
        let copied = capture(narrow).await;
        assert_eq!(copied.captured.findings, [], "{encoding}");
        assert_eq!(copied.witness().tables.len(), 1, "{encoding}");
        assert_eq!(copied.findings().await, [], "{encoding}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_is_a_finding_unless_declared() {
    let server = Server::start(&[]).unwrap();
    server.create("none", &[]).unwrap();
    let copied = capture(spec(&server, "none")).await;
    assert_eq!(codes(&copied.captured.findings), BTreeSet::from([FindingCode::PointImplausible]));
    assert_eq!(codes(&copied.findings().await), BTreeSet::from([FindingCode::PointImplausible]));
    let declared = capture(PostgresSpec { may_be_empty: true, ..spec(&server, "none") }).await;
    assert_eq!(declared.findings().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_was_tampered_with_never_comes_back_equal() {
    let server = Server::start(&[]).unwrap();
    server.create("shop", &[]).unwrap();
    server.sql("shop", &shop(60)).unwrap();
    server.sql("shop", "CREATE TABLE plain AS SELECT i AS a, 'word'::text AS b, 'x'::text AS c FROM generate_series(1, 90) i").unwrap();
    let copied = capture(spec(&server, "shop")).await;
    let archive = copied.copy.root.join("database");
    let of_plain = std::fs::read_dir(&archive)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| std::fs::read(path).unwrap().windows(8).any(|window| window == b"\tword\tx\n"))
        .unwrap();
    let whole = std::fs::read(&of_plain).unwrap();
    let text = String::from_utf8(whole.clone()).unwrap();
    let half: String = text.split_inclusive('\n').take(30).collect();
    std::fs::write(&of_plain, &half).unwrap();
    assert!(codes(&copied.findings().await).contains(&FindingCode::RowCount), "cut between two rows");
    std::fs::write(&of_plain, text.replacen("word", "ward", 1)).unwrap();
    assert_eq!(
        codes(&copied.findings().await),
        BTreeSet::from([FindingCode::RowContent]),
        "one word changed"
    );
    std::fs::write(&of_plain, &whole[..whole.len() / 2 / 10 * 10 + 4]).unwrap();
    assert!(copied.try_restored().await.is_err(), "cut inside a row");
    std::fs::remove_file(&of_plain).unwrap();
    assert!(copied.try_restored().await.is_err(), "a file removed");
    std::fs::write(&of_plain, &whole).unwrap();
    assert_eq!(copied.findings().await, [], "whole again");
    let toc = archive.join("toc.dat");
    let bytes = std::fs::read(&toc).unwrap();
    std::fs::write(&toc, &bytes[..bytes.len() / 2]).unwrap();
    let error = copied.try_restored().await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt, "{}", chain(&error));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_that_fails_or_is_stopped_leaves_nothing_behind() {
    let server = Arc::new(Server::start(&[]).unwrap());
    server.create("shop", &[]).unwrap();
    server.run("pgbench", &["-i", "-s", "20", "-q", "shop"], "").unwrap();
    let source = PostgresSource::new(spec(&server, "shop"), None, Vec::new()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let sessions =
        || server.sql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop'").unwrap();
    let gone = || async {
        for _ in 0..100 {
            if sessions().trim() == "0" {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    };
    // A full disk is the copy's own error, not pg_dump's.
    let full = Arc::new(DiskCopy::new(&directory.path().join("full")));
    full.room.store(1 << 20, std::sync::atomic::Ordering::SeqCst);
    let error = source.capture(&Cx::unbounded(), full).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Exhausted, "{}", chain(&error));
    assert!(gone().await, "sessions are left: {}", sessions());
    // Cancelled in the middle of the dump.
    let (cx, token) = Cx::unbounded().child();
    let copy = Arc::new(DiskCopy::new(&directory.path().join("stopped")));
    let stop = async {
        let dat = directory.path().join("stopped/database");
        while !dat.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        token.cancel();
    };
    let begun = std::time::Instant::now();
    let (result, ()) = tokio::join!(source.capture(&cx, Arc::<DiskCopy>::clone(&copy)), stop);
    assert!(matches!(result.unwrap_err().kind, ErrorKind::Stopped(_)));
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(!copy.root.join("database/toc.dat").exists());
    assert!(gone().await, "sessions are left: {}", sessions());
    // pg_dump's connection is cut.
    let cut = {
        let server = Arc::clone(&server);
        std::thread::spawn(move || {
            for _ in 0..2000 {
                let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                           WHERE query LIKE 'COPY public.pgbench_accounts%'";
                if server.sql("postgres", cut).unwrap().trim() != "0" {
                    return true;
                }
            }
            false
        })
    };
    let copy = Arc::new(DiskCopy::new(&directory.path().join("cut")));
    let error = source.capture(&Cx::unbounded(), Arc::<DiskCopy>::clone(&copy)).await.map(|_| ());
    assert!(cut.join().unwrap(), "the connection was never cut");
    let error = error.unwrap_err();
    assert!(error.code == Some(FindingCode::StreamUnfinished), "{}", chain(&error));
    assert!(!copy.root.join("database/toc.dat").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_held_too_long_is_named() {
    let server = Arc::new(Server::start(&[]).unwrap());
    server.create("shop", &[]).unwrap();
    server.sql("shop", &shop(10)).unwrap();
    let holder = {
        let server = Arc::clone(&server);
        std::thread::spawn(move || server.sql("shop", "BEGIN; LOCK TABLE orders; SELECT pg_sleep(6); COMMIT"))
    };
    while server.sql("shop", "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation = 'orders'::regclass").unwrap().trim() == "0" {}
    let hasty = PostgresSpec { lock_timeout: SignedDuration::from_millis(300), ..spec(&server, "shop") };
    let error = try_capture(hasty).await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict, "{}", chain(&error));
    holder.join().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_delivered_to_new_places_only() {
    let server = Server::start(&[]).unwrap();
    server.create("shop", &[]).unwrap();
    server.sql("shop", &shop(60)).unwrap();
    server.sql("shop", SHOP_EXTRAS).unwrap();
    let copied = capture(spec(&server, "shop")).await;
    let cx = Cx::unbounded();
    let deliver = async |to: &NewTarget| {
        copied.source.deliver(&cx, &copied.captured.witness, Arc::<DiskCopy>::clone(&copied.copy), to).await
    };
    let database = |name: &str, tables: &[&str]| NewTarget::Database {
        host: None,
        port: None,
        user: None,
        database: name.to_owned(),
        tables: tables.iter().map(|table| (*table).to_owned()).collect(),
    };
    let refused = deliver(&database("shop", &[])).await.unwrap_err();
    assert_eq!((refused.kind, refused.code), (ErrorKind::Conflict, Some(FindingCode::LiveTarget)));
    let whole =
        deliver(&database("shop \"2\"", &[])).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(whole.findings, []);
    assert_eq!(server.sql("shop \"2\"", "SELECT count(*) FROM orders").unwrap().trim(), "60");
    let part = deliver(&database("part", &["public.orders"]))
        .await
        .unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(part.findings, []);
    assert_eq!(server.sql("part", "SELECT count(*), max(id) FROM orders").unwrap().trim(), "60|60");
    assert_eq!(server.sql("part", "SELECT nextval('orders_id_seq')").unwrap().trim(), "61");
    let unknown = deliver(&database("unknown", &["public.nowhere"])).await.unwrap_err();
    assert_eq!(unknown.kind, ErrorKind::NotFound);
    let directory = tempfile::tempdir().unwrap();
    let to = directory.path().join("new");
    let delivered = deliver(&NewTarget::Directory(to.clone())).await.unwrap();
    assert!(delivered.written.files > 5 && to.join("globals.sql").is_file());
    let again = deliver(&NewTarget::Directory(to.clone())).await.unwrap_err();
    assert_eq!(again.kind, ErrorKind::Conflict);
    // What was delivered needs nothing of ours: a person restores it with PostgreSQL's own tools.
    let other = Server::start(&[]).unwrap();
    let script = std::fs::read_to_string(to.join("globals.sql")).unwrap();
    other.sql("postgres", &script).unwrap();
    let archive = to.join("database").display().to_string();
    std::process::Command::new("/bin/chmod").args(["-R", "a+rX"]).arg(directory.path()).status().unwrap();
    other
        .run(
            "pg_restore",
            &["--format=directory", "--jobs=2", "--exit-on-error", "--dbname=shop", &archive],
            "",
        )
        .unwrap();
    assert_eq!(other.sql("shop", "SELECT count(*) FROM order_lines").unwrap().trim(), "180");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_and_never_shown() {
    let server = Server::start(&[]).unwrap();
    server.sql("postgres", "CREATE ROLE secret LOGIN PASSWORD 'right-canary'").unwrap();
    let hba = server.path().join("data/pg_hba.conf");
    std::fs::write(&hba, "local all secret scram-sha-256\nlocal all all trust\n").unwrap();
    server
        .sql(
            "postgres",
            "SELECT pg_reload_conf(); GRANT pg_read_all_data TO secret; CREATE TABLE t AS SELECT 1 AS a",
        )
        .unwrap();
    let with = |password: &str| {
        let asked = PostgresSpec { user: "secret".to_owned(), ..spec(&server, "postgres") };
        PostgresSource::new(asked, Some(secrecy::SecretString::from(password.to_owned())), Vec::new())
            .unwrap()
    };
    let directory = tempfile::tempdir().unwrap();
    let copy = || Arc::new(DiskCopy::new(&directory.path().join("copy")));
    let error = with("wrong-canary").capture(&Cx::unbounded(), copy()).await.unwrap_err();
    assert_eq!((error.kind, error.code), (ErrorKind::Unauthenticated, Some(FindingCode::AuthDenied)));
    assert!(!format!("{} {error:?} {:?}", chain(&error), with("wrong-canary")).contains("canary"));
    with("right-canary").capture(&Cx::unbounded(), copy()).await.unwrap();
}

#[test]
fn what_is_not_local_or_not_a_name_is_refused() {
    let spec = |host: &str, database: &str| PostgresSpec {
        host: host.to_owned(),
        port: 5432,
        user: "postgres".to_owned(),
        mode: PostgresMode::Logical,
        database: database.to_owned(),
        password: None,
        tls: Tls::LocalOnly,
        exclude_schemas: Vec::new(),
        exclude_tables: Vec::new(),
        lock_timeout: SignedDuration::from_secs(1),
        bin_dir: None,
        may_be_empty: false,
    };
    let kind = |spec| PostgresSource::new(spec, None, Vec::new()).map(|_| ()).map_err(|error| error.kind);
    assert_eq!(kind(spec("/tmp", "shop")), Ok(()));
    assert_eq!(kind(spec("127.0.0.1", "we\"ird name")), Ok(()));
    assert_eq!(kind(spec("db.example.org", "shop")), Err(ErrorKind::Refused));
    for database in ["", "a\0b", "host=evil", "postgres://evil/x", "-rf"] {
        assert_eq!(kind(spec("/tmp", database)), Err(ErrorKind::Refused), "{database:?}");
    }
    let tls = PostgresSpec { tls: Tls::VerifyFull, ..spec("db.example.org", "shop") };
    assert_eq!(kind(tls), Err(ErrorKind::Unsupported));
    let unnamed = PostgresSpec { exclude_tables: vec!["orders".to_owned()], ..spec("/tmp", "shop") };
    assert_eq!(kind(unnamed), Err(ErrorKind::Refused));
}

/// Prints what a capture, a restore and a proof cost beside PostgreSQL's own tools; run by hand with `--release`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, not a test"]
async fn measure_the_cost() {
    let server = Server::start(&["shared_buffers=512MB", "max_wal_size=8GB"]).unwrap();
    server.create("bench", &[]).unwrap();
    server.run("pgbench", &["-i", "-s", "100", "-q", "bench"], "").unwrap();
    let time =
        |what: &str, begun: std::time::Instant| println!("{what}: {:.2} s", begun.elapsed().as_secs_f64());
    for _ in 0..2 {
        let begun = std::time::Instant::now();
        server.run("pg_dump", &["-Fc", "-Z0", "--no-sync", "-f", "/dev/null", "bench"], "").unwrap();
        time("pg_dump -Fc -Z0 > /dev/null", begun);
        let begun = std::time::Instant::now();
        let copied = capture(spec(&server, "bench")).await;
        time("capture to files", begun);
        println!("of that, witness beyond the dump: {:?}", copied.captured.witness_took);
        let begun = std::time::Instant::now();
        let restored = copied.restored().await;
        time("restore", begun);
        let begun = std::time::Instant::now();
        assert_eq!(findings(&*restored, &copied.captured.witness).await, []);
        time("proof", begun);
        let begun = std::time::Instant::now();
        let damage = restored.damage(&Cx::unbounded(), &copied.captured.witness, 1).await.unwrap();
        assert!(codes(&findings(&*restored, &copied.captured.witness).await).contains(&damage.expected[0]));
        time("control", begun);
        restored.close(&Cx::unbounded()).await.unwrap();
    }
}

/// A standby of a server, on the same sockets' directory.
struct Standby<'a> {
    server: &'a Server,
    data: String,
}

/// The port of the standby.
const STANDBY_PORT: u16 = 5778;

impl<'a> Standby<'a> {
    fn of(server: &'a Server) -> Self {
        let place = server.path().join("standby").display().to_string();
        let host = server.host();
        server
            .run("pg_basebackup", &["-R", "-c", "fast", "-D", &place, "-h", &host, "-U", "postgres"], "")
            .unwrap();
        let standby = Self { server, data: place };
        standby.start();
        standby
    }

    fn start(&self) {
        let options =
            format!("-p {STANDBY_PORT} -k {} -c listen_addresses= -c fsync=off", self.server.host());
        let log = self.server.path().join("standby.log").display().to_string();
        self.server
            .run("pg_ctl", &["-D", &self.data, "-o", &options, "-w", "-s", "-l", &log, "start"], "")
            .unwrap_or_else(|error| panic!("{error}: {}", std::fs::read_to_string(&log).unwrap()));
    }

    fn stop(&self) {
        self.server.run("pg_ctl", &["-D", &self.data, "-m", "fast", "-w", "-s", "stop"], "").unwrap();
    }

    fn sql(&self, sql: &str) -> String {
        let port = STANDBY_PORT.to_string();
        let arguments = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-p", &port, "-d", "shop"];
        self.server.run("psql", &arguments, sql).unwrap().trim().to_owned()
    }

    /// Waits until a question is answered with yes.
    fn wait(&self, sql: &str) {
        let began = std::time::Instant::now();
        while self.sql(sql) != "t" {
            assert!(began.elapsed() < Duration::from_secs(60), "{sql}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until all that the primary has written is replayed.
    fn wait_for_primary(&self) {
        let written = self.server.sql("shop", "SELECT pg_current_wal_lsn()").unwrap();
        let written = written.trim();
        self.wait(&format!(
            "SELECT pg_last_wal_replay_lsn() >= '{written}' AND count(*) = 1 FROM pg_stat_wal_receiver \
             WHERE status = 'streaming' AND last_msg_send_time <> last_msg_receipt_time"
        ));
    }

    fn last_commit(&self) -> jiff::Timestamp {
        let form = "'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'";
        let sql = format!("SELECT to_char(pg_last_xact_replay_timestamp() AT TIME ZONE 'UTC', {form})");
        self.sql(&sql).parse().unwrap()
    }
}

impl Drop for Standby<'_> {
    fn drop(&mut self) {
        // One that is stopped already has nothing to stop.
        self.server.run("pg_ctl", &["-D", &self.data, "-m", "immediate", "-s", "stop"], "").ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_dated_by_what_it_has_replayed() {
    let server = Server::start(&[]).unwrap();
    server.create("shop", &[]).unwrap();
    server.sql("shop", &shop(60)).unwrap();
    let set_up = "CREATE ROLE keeper LOGIN; GRANT pg_read_all_data TO keeper; CREATE TABLE log (what text)";
    server.sql("shop", set_up).unwrap();
    let standby = Standby::of(&server);
    let as_role =
        |user: &str| PostgresSpec { port: STANDBY_PORT, user: user.to_owned(), ..spec(&server, "shop") };
    let outlook = async |user: &str| {
        let source = PostgresSource::new(as_role(user), None, Vec::new()).unwrap();
        let found = source.probe(&Cx::unbounded()).await.unwrap().findings;
        let told = found.into_iter().find(|finding| finding.code == FindingCode::StandbyBehind);
        told.map(|finding| finding.detail)
    };

    // A healthy one, with an idle primary, is of now.
    server.sql("shop", "INSERT INTO log (what) VALUES ('fed')").unwrap();
    standby.wait_for_primary();
    let last = standby.last_commit();
    let before = jiff::Timestamp::now();
    let copied = capture(as_role("postgres")).await;
    assert_eq!(copied.captured.findings, []);
    assert!(copied.captured.point >= before && copied.captured.point <= jiff::Timestamp::now());
    assert!(copied.witness().snapshot.on_standby);
    assert_eq!(copied.witness().snapshot.at, copied.captured.point);
    assert_eq!(copied.findings().await, []);
    assert_eq!(outlook("postgres").await, None);
    // A role that may not see what was heard cannot say so, and that is no alarm while the primary is in use.
    let copied = capture(as_role("keeper")).await;
    assert_eq!(copied.captured.findings, []);
    assert!(copied.captured.point >= last && copied.captured.point <= standby.last_commit());
    assert!(outlook("keeper").await.unwrap().contains("GRANT pg_read_all_stats"));
    server.sql("shop", "GRANT pg_read_all_stats TO keeper; CHECKPOINT").unwrap();
    standby.wait_for_primary();
    assert!(capture(as_role("keeper")).await.captured.point > last);
    assert_eq!(outlook("keeper").await, None);

    // What was received and not replayed is not held.
    standby.sql("SELECT pg_wal_replay_pause()");
    standby.wait("SELECT pg_get_wal_replay_pause_state() = 'paused'");
    let last = standby.last_commit();
    server.sql("shop", "INSERT INTO log (what) VALUES ('not replayed')").unwrap();
    standby.wait("SELECT pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()");
    let copied = capture(as_role("postgres")).await;
    assert_eq!((copied.captured.point, &*copied.captured.findings), (last, &[][..]));
    standby.sql("SELECT pg_wal_replay_resume()");
    standby.wait_for_primary();

    // Without its primary it stands still, and its clock does not.
    server.stop().unwrap();
    standby.wait(
        "SELECT pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() AND count(*) = 0 FROM pg_stat_wal_receiver",
    );
    let last = standby.last_commit();
    for user in ["postgres", "keeper"] {
        let copied = capture(as_role(user)).await;
        assert_eq!(copied.captured.point, last);
        assert_eq!(codes(&copied.captured.findings), [FindingCode::StandbyBehind].into());
        assert!(copied.captured.is_complete);
        assert_eq!(copied.findings().await, []);
        assert!(outlook(user).await.unwrap().contains("receives nothing"));
    }

    // Started again it does not know of any commit.
    standby.sql("CHECKPOINT");
    standby.stop();
    standby.start();
    assert_eq!(standby.sql("SELECT pg_last_xact_replay_timestamp() IS NULL"), "t");
    let error = try_capture(as_role("postgres")).await.map(|_| ()).unwrap_err();
    assert_eq!((error.kind, error.code), (ErrorKind::Refused, Some(FindingCode::StandbyBehind)));
    assert!(error.hint.is_some(), "{}", chain(&error));
    assert!(outlook("postgres").await.unwrap().contains("would be refused"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_pg_dump_leaves_out_without_a_word_comes_back_or_is_named() {
    let server = Server::start(&[]).unwrap();
    server.create("shop", &[]).unwrap();
    server.sql("shop", &shop(20)).unwrap();
    server
        .sql(
            "shop",
            "CREATE ROLE keeper LOGIN; GRANT pg_read_all_data TO keeper; CREATE ROLE \"the clerk\"; \
             GRANT SET ON PARAMETER log_statement TO \"the clerk\"; GRANT SET ON PARAMETER my.own TO PUBLIC; \
             GRANT ALTER SYSTEM ON PARAMETER work_mem TO \"the clerk\" WITH GRANT OPTION; \
             CREATE FOREIGN DATA WRAPPER far; CREATE SERVER away FOREIGN DATA WRAPPER far; \
             CREATE USER MAPPING FOR postgres SERVER away OPTIONS (\"user\" 'x', password 'canary-password'); \
             CREATE USER MAPPING FOR PUBLIC SERVER away; GRANT USAGE ON FOREIGN SERVER away TO keeper; \
             CREATE USER MAPPING FOR keeper SERVER away OPTIONS (password 'canary-password'); \
             CREATE TABLE of_plpgsql AS SELECT 1 AS a; ALTER EXTENSION plpgsql ADD TABLE of_plpgsql; \
             CREATE TABLE empty (a int); ALTER EXTENSION plpgsql ADD TABLE empty;",
        )
        .unwrap();
    let copied = capture(spec(&server, "shop")).await;
    assert!(copied.captured.is_complete);
    let named = |copied: &Copied| -> Vec<String> {
        assert_eq!(codes(&copied.captured.findings), [FindingCode::ScopeNarrow].into());
        copied.captured.findings.iter().map(|finding| finding.subject.clone()).collect()
    };
    assert_eq!(named(&copied), ["public.of_plpgsql"]);
    assert_eq!(
        copied.witness().database.parameters.as_deref().unwrap(),
        ["log_statement: \"the clerk\"=SET", "my.own: PUBLIC=SET", "work_mem: \"the clerk\"=ALTER SYSTEM*"]
    );
    let text = serde_json::to_string(&copied.captured.witness).unwrap();
    assert!(!text.contains("canary-password"));
    // A role that may not see all options says of which.
    let of_keeper = capture(PostgresSpec { user: "keeper".to_owned(), ..spec(&server, "shop") }).await;
    assert_eq!(
        named(&of_keeper),
        ["mapping of PUBLIC on away", "mapping of postgres on away", "public.of_plpgsql"]
    );
    assert_eq!(of_keeper.findings().await, [], "what it could not see is not compared");

    let sandbox = OpenSandbox::new();
    let restored = copied.restored_in(&sandbox).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(restored.findings(), []);
    assert_eq!(findings(&*restored, &copied.captured.witness).await, []);
    for (wrong, code, undo) in [
        (
            "REVOKE SET ON PARAMETER log_statement FROM \"the clerk\"",
            FindingCode::OwnersOrGrants,
            "GRANT SET ON PARAMETER log_statement TO \"the clerk\"",
        ),
        (
            "GRANT ALTER SYSTEM ON PARAMETER shared_buffers TO keeper",
            FindingCode::OwnersOrGrants,
            "REVOKE ALL ON PARAMETER shared_buffers FROM keeper",
        ),
        (
            "ALTER USER MAPPING FOR postgres SERVER away OPTIONS (DROP password)",
            FindingCode::DefinitionDiffers,
            "ALTER USER MAPPING FOR postgres SERVER away OPTIONS (password 'another')",
        ),
    ] {
        sql_at(sandbox.root(), "shop", wrong).unwrap();
        let found = findings(&*restored, &copied.captured.witness).await;
        assert_eq!(codes(&found), [code].into(), "{wrong}: {found:?}");
        // A witness from before they were said is compared as it was.
        let mut before = copied.captured.witness.clone();
        let Witness::Postgres(witness) = &mut before else { panic!("a PostgreSQL witness") };
        (witness.database.parameters, witness.database.mappings) = (None, None);
        assert_eq!(findings(&*restored, &before).await, [], "{wrong}");
        sql_at(sandbox.root(), "shop", undo).unwrap();
    }
    assert_eq!(findings(&*restored, &copied.captured.witness).await, []);
    restored.close(&Cx::unbounded()).await.unwrap();
}
