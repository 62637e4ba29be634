//! Base backups of real servers under load: what is recovered equals the witness row for row, and what is wrong is found.
#![cfg(feature = "postgres")]
#![expect(clippy::unwrap_used, reason = "a test: what cannot be unwrapped fails it")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::SignedDuration;
use seaworthy_drivers::source::postgres::PostgresSource;
use seaworthy_interface::{Captured, Cx, DriverError, NewTarget, Restored, Source as _};
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::source::{PostgresMode, PostgresSpec, Tls};
use seaworthy_model::verdict::CheckOutcome;
use seaworthy_model::witness::postgres::PostgresWitness;
use seaworthy_model::witness::{PhysicalFacts, Witness};
use seaworthy_testkit::components;
use seaworthy_testkit::postgres::{Server, programs, server_user, shop};
use support::{DiskCopy, OpenSandbox};

fn spec(server: &Server, user: &str) -> PostgresSpec {
    PostgresSpec {
        host: server.host(),
        port: server.port(),
        user: user.to_owned(),
        mode: PostgresMode::Physical,
        database: "shop".to_owned(),
        password: None,
        tls: Tls::LocalOnly,
        exclude_schemas: Vec::new(),
        exclude_tables: Vec::new(),
        lock_timeout: SignedDuration::from_secs(10),
        bin_dir: Some(server.programs().display().to_string()),
        may_be_empty: false,
    }
}

fn servers() -> [Server; 2] {
    [programs().unwrap(), components::second_postgres_bin().unwrap()]
        .map(|programs| Server::start_from(programs, &["max_prepared_transactions=4"]).unwrap())
}

fn owned(path: &Path) {
    if let Some(user) = server_user().unwrap() {
        chown(path, Some(user.uid), Some(user.gid)).unwrap();
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

struct Copied {
    captured: Captured,
    copy: Arc<DiskCopy>,
    source: PostgresSource,
    directory: tempfile::TempDir,
}

async fn capture(server: &Server, user: &str) -> Copied {
    let source = PostgresSource::new(spec(server, user), None, Vec::new()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let copy = Arc::new(DiskCopy::new(&directory.path().join("copy")));
    let captured = source
        .capture(&Cx::unbounded(), Arc::<DiskCopy>::clone(&copy))
        .await
        .unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(copy.unfinished.load(Ordering::SeqCst), 0);
    Copied { captured, copy, source, directory }
}

impl Copied {
    fn witness(&self) -> &PostgresWitness {
        match &self.captured.witness {
            Witness::Postgres(witness) => witness,
            Witness::Sqlite(_) | Witness::Files(_) => panic!("a PostgreSQL witness"),
        }
    }

    fn physical(&self) -> &PhysicalFacts {
        self.witness().physical.as_ref().unwrap()
    }

    async fn try_restored(&self, copy: &Arc<DiskCopy>) -> Result<Box<dyn Restored>, DriverError> {
        let sandbox = OpenSandbox::new();
        self.source
            .restore(&Cx::unbounded(), &self.captured.witness, Arc::<DiskCopy>::clone(copy), sandbox)
            .await
    }

    /// The codes that a drill of a copy finds, whether it ends in a comparison or before.
    async fn codes(&self, copy: &Arc<DiskCopy>) -> BTreeSet<FindingCode> {
        match self.try_restored(copy).await {
            Ok(restored) => {
                let findings = findings(&*restored, &self.captured.witness).await;
                restored.close(&Cx::unbounded()).await.unwrap();
                findings.iter().map(|finding| finding.code).collect()
            }
            Err(error) => [error.code.unwrap_or_else(|| panic!("{}", chain(&error)))].into(),
        }
    }

    /// The same copy once more, for something to be done to it.
    fn again(&self, name: &str) -> Arc<DiskCopy> {
        let to = self.directory.path().join(name);
        fs::create_dir(&to).unwrap();
        let from = self.copy.root.display().to_string();
        let copied = std::process::Command::new("cp")
            .args(["-a", &format!("{from}/."), to.to_str().unwrap()])
            .status();
        assert!(copied.unwrap().success());
        Arc::new(DiskCopy::new(&to))
    }
}

async fn findings(restored: &dyn Restored, witness: &Witness) -> Vec<Finding> {
    let reports =
        restored.compare(&Cx::unbounded(), witness).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    let executed: Vec<String> = reports.iter().map(|report| report.name.clone()).collect();
    assert_eq!(executed, witness.checks());
    for report in &reports {
        assert_eq!(report.outcome == CheckOutcome::Passed, report.findings.is_empty(), "{report:?}");
    }
    let mut all: Vec<Finding> = reports.into_iter().flat_map(|report| report.findings).collect();
    all.extend(restored.findings());
    all
}

/// What a busy shop does, until it is told to stop: several sessions, each a transaction a millisecond.
const WRITES: &str = "
DO $$ BEGIN FOR i IN 1..400 LOOP
    INSERT INTO log (what, at) VALUES (md5(random()::text), now());
    UPDATE counters SET n = n + 1 WHERE id = 1 + i % 7;
    PERFORM nextval('numbers');
    IF i % 50 = 0 THEN DELETE FROM log WHERE id % 97 = 0; END IF;
    IF i % 13 = 0 THEN ROLLBACK; ELSE COMMIT; END IF;
END LOOP; END $$;";

fn busy(server: &Server) {
    server.create("shop", &[]).unwrap();
    server.sql("shop", &shop(300)).unwrap();
    server
        .sql(
            "shop",
            "CREATE TABLE log (id bigserial PRIMARY KEY, what text, at timestamptz);
             CREATE TABLE counters (id int PRIMARY KEY, n bigint NOT NULL);
             INSERT INTO counters SELECT i, 0 FROM generate_series(1, 7) i;
             CREATE SEQUENCE numbers INCREMENT BY 3;
             CREATE UNLOGGED TABLE scratch AS SELECT generate_series(1, 1000) n;
             SELECT lo_from_bytea(0, 'a large object');",
        )
        .unwrap();
}

/// Runs while several sessions write.
async fn under_load<T>(server: &Server, work: impl AsyncFnOnce() -> T) -> T {
    let (host, port, psql) = (server.host(), server.port().to_string(), server.programs().join("psql"));
    let mut writers = Vec::new();
    for _ in 0..3 {
        let mut command = std::process::Command::new(&psql);
        command.args(["-qX", "-h", &host, "-p", &port, "-U", "postgres", "-d", "shop", "-c", WRITES]);
        let done = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&done);
        let thread = std::thread::spawn(move || {
            let mut rounds = 0;
            while !told.load(Ordering::SeqCst) {
                assert!(command.status().unwrap().success());
                rounds += 1;
            }
            rounds
        });
        writers.push((done, thread));
    }
    let worked = work().await;
    let mut rounds = 0;
    for (done, thread) in writers {
        done.store(true, Ordering::SeqCst);
        rounds += tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
    }
    assert!(rounds > 0);
    worked
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_written_to_all_the_time_comes_back_equal_at_the_copys_own_end() {
    for server in servers() {
        busy(&server);
        let space = server.path().join("fast");
        fs::create_dir(&space).unwrap();
        owned(&space);
        server.sql("shop", &format!("CREATE TABLESPACE fast LOCATION '{}'", space.display())).unwrap();
        server
            .sql("shop", "CREATE TABLE quick TABLESPACE fast AS SELECT generate_series(1, 20000) n")
            .unwrap();
        let copied = under_load(&server, async || capture(&server, "postgres").await).await;
        let physical = copied.physical();
        assert_eq!(copied.captured.findings, []);
        assert!(physical.from < physical.consistent && physical.consistent <= physical.until, "{physical:?}");
        assert_eq!(physical.others.keys().collect::<Vec<_>>(), ["postgres"]);
        assert!(copied.witness().tables["public.log"].rows > 0);
        assert!(!copied.witness().tables.contains_key("public.scratch"));
        let restored =
            copied.try_restored(&copied.copy).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
        assert_eq!(findings(&*restored, &copied.captured.witness).await, []);
        // The source has gone on, so that this is no comparison with what it holds by now.
        let now: u64 = server.sql("shop", "SELECT count(*) FROM log").unwrap().trim().parse().unwrap();
        assert_ne!(copied.witness().tables["public.log"].rows, now);
        let source = server.sql("shop", "SELECT system_identifier FROM pg_control_system()").unwrap();
        let identity = restored.engine_identity().unwrap();
        assert!(identity.starts_with(source.trim()) && identity.contains("timeline 2"), "{identity}");
        let probe = restored.write_probe(&Cx::unbounded()).await.unwrap();
        assert_eq!(probe.outcome, CheckOutcome::Passed, "{probe:?}");
        // The control line: what is damaged on purpose is found.
        let damage = restored.damage(&Cx::unbounded(), &copied.captured.witness, 7).await.unwrap();
        let found: BTreeSet<FindingCode> =
            findings(&*restored, &copied.captured.witness).await.iter().map(|finding| finding.code).collect();
        assert!(damage.expected.iter().any(|code| found.contains(code)), "{damage:?} {found:?}");
        restored.close(&Cx::unbounded()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_directory_starts_by_itself_and_ends_where_the_copy_does() {
    let [server, _] = servers();
    busy(&server);
    let copied = under_load(&server, async || capture(&server, "postgres").await).await;
    let to = server.path().join("again");
    let delivered = copied
        .source
        .deliver(
            &Cx::unbounded(),
            &copied.captured.witness,
            Arc::<DiskCopy>::clone(&copied.copy),
            &NewTarget::Directory(to.clone()),
        )
        .await
        .unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(delivered.findings, []);
    // The server recovers with settings that are smaller than the source's, too.
    let beside = server.start_beside(&to).unwrap();
    let rows: u64 = beside.sql("shop", "SELECT count(*) FROM log").unwrap().trim().parse().unwrap();
    assert_eq!(rows, copied.witness().tables["public.log"].rows);
    let line = beside.sql("shop", "SELECT timeline_id FROM pg_control_checkpoint()").unwrap();
    assert_eq!(line.trim(), "2", "what it writes is never taken for the source's");
}

fn relation(server: &Server, table: &str) -> String {
    server.sql("shop", &format!("SELECT pg_relation_filepath('{table}')")).unwrap().trim().to_owned()
}

fn changed(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_base_backup_is_found_and_named() {
    let [server, foreign] = servers();
    busy(&server);
    server
        .sql("shop", "CREATE TABLE wide AS SELECT i, md5(i::text) t FROM generate_series(1, 5000) i")
        .unwrap();
    server.sql("shop", "CREATE INDEX wide_t ON wide (t)").unwrap();
    let (table, index, other) =
        (relation(&server, "wide"), relation(&server, "wide_t"), relation(&server, "orders"));
    let copied = capture(&server, "postgres").await;
    assert_eq!(copied.codes(&copied.copy).await, [].into());
    let names: Vec<String> = copied.physical().log.keys().cloned().collect();
    let segment = names.last().unwrap();
    drop(foreign);
    type Change<'a> = Box<dyn Fn(&Path) + 'a>;
    let data = |root: &Path, name: &str| -> PathBuf { root.join("data").join(name) };
    let wal = |root: &Path| data(root, &format!("pg_wal/{segment}"));
    let from = usize::try_from(copied.physical().from.0 % (16 << 20)).unwrap();
    let last = usize::try_from(copied.physical().last.0 % (16 << 20)).unwrap();
    let cases: Vec<(&str, FindingCode, Change<'_>)> = vec![
        ("segment missing", FindingCode::ObjectMissing, Box::new(|root| fs::remove_file(wal(root)).unwrap())),
        (
            "segment zeroed",
            FindingCode::ObjectSwapped,
            Box::new(|root| changed(&wal(root), |bytes| bytes.fill(0))),
        ),
        (
            "segment cut",
            FindingCode::ObjectSwapped,
            Box::new(|root| changed(&wal(root), |bytes| bytes.truncate(last))),
        ),
        (
            "record flipped",
            FindingCode::ObjectSwapped,
            Box::new(|root| changed(&wal(root), |bytes| bytes[from + 30] ^= 4)),
        ),
        (
            "last record gone",
            FindingCode::ObjectSwapped,
            Box::new(|root| changed(&wal(root), |bytes| bytes[last..].fill(0))),
        ),
        (
            "label removed",
            FindingCode::FileMissing,
            Box::new(|root| fs::remove_file(data(root, "backup_label")).unwrap()),
        ),
        (
            "page flipped",
            FindingCode::FileContent,
            Box::new(|root| changed(&data(root, &table), |bytes| bytes[9_000] ^= 1)),
        ),
        (
            "page zeroed",
            FindingCode::FileContent,
            Box::new(|root| changed(&data(root, &table), |bytes| bytes[8_192..16_384].fill(0))),
        ),
        (
            "table cut",
            FindingCode::FileContent,
            Box::new(|root| changed(&data(root, &table), |bytes| bytes.truncate(16_384))),
        ),
        (
            "table missing",
            FindingCode::FileMissing,
            Box::new(|root| fs::remove_file(data(root, &table)).unwrap()),
        ),
        (
            "table empty",
            FindingCode::FileContent,
            Box::new(|root| fs::write(data(root, &table), "").unwrap()),
        ),
        (
            "index flipped",
            FindingCode::FileContent,
            Box::new(|root| changed(&data(root, &index), |bytes| bytes[8_500] ^= 1)),
        ),
        (
            "two tables exchanged",
            FindingCode::FileContent,
            Box::new(|root| {
                let (one, two) = (data(root, &table), data(root, &other));
                let kept = fs::read(&one).unwrap();
                fs::copy(&two, &one).unwrap();
                fs::write(&two, kept).unwrap();
            }),
        ),
        (
            "commits damaged",
            FindingCode::FileContent,
            Box::new(|root| changed(&data(root, "pg_xact/0000"), |bytes| bytes[100] ^= 0x55)),
        ),
        (
            "a file too many",
            FindingCode::FileMissing,
            Box::new(|root| fs::write(data(root, "base/1/99999"), "").unwrap()),
        ),
        (
            "manifest gone",
            FindingCode::FileMissing,
            Box::new(|root| fs::remove_file(data(root, "backup_manifest")).unwrap()),
        ),
        (
            "manifest changed",
            FindingCode::ObjectSwapped,
            Box::new(|root| changed(&data(root, "backup_manifest"), |bytes| bytes[400] ^= 1)),
        ),
        (
            "control file damaged",
            FindingCode::FileContent,
            Box::new(|root| changed(&data(root, "global/pg_control"), |bytes| bytes[40] ^= 1)),
        ),
    ];
    // Whoever follows what a copy links to reads without end.
    let cases = cases.into_iter().chain([(
        "a link to elsewhere",
        FindingCode::FileType,
        Box::new(|root: &Path| {
            fs::remove_file(data(root, &table)).unwrap();
            std::os::unix::fs::symlink("/dev/zero", data(root, &table)).unwrap();
        }) as Change<'_>,
    )]);
    // A person is told, too: a server would start on it. And nothing is restored over anything.
    let deliver = async |copy: &Arc<DiskCopy>, to: &Path| {
        let copy = Arc::<DiskCopy>::clone(copy);
        let to = NewTarget::Directory(to.to_path_buf());
        copied.source.deliver(&Cx::unbounded(), &copied.captured.witness, copy, &to).await
    };
    let short = copied.again("short");
    fs::remove_file(wal(&short.root)).unwrap();
    let place = copied.directory.path().join("place");
    assert_eq!(deliver(&short, &place).await.unwrap_err().code, Some(FindingCode::ObjectMissing));
    // The log is looked at first: nothing else was fetched, and the place is as empty as it was.
    assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
    deliver(&copied.copy, &place).await.unwrap();
    assert_eq!(deliver(&copied.copy, &place).await.unwrap_err().code, Some(FindingCode::LiveTarget));
    for (name, code, change) in cases {
        let copy = copied.again(name);
        change(&copy.root);
        let found = copied.codes(&copy).await;
        assert!(found.contains(&code), "{name}: {found:?}");
        fs::remove_dir_all(&copy.root).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_replicate_and_read_is_enough_and_one_that_may_not_is_told() {
    let [server, _] = servers();
    busy(&server);
    server
        .sql(
            "shop",
            "CREATE ROLE keeper LOGIN REPLICATION; GRANT pg_read_all_data TO keeper;
             CREATE ROLE reader LOGIN; GRANT pg_read_all_data TO reader;
             GRANT SELECT ON ALL TABLES IN SCHEMA public TO keeper;
             DO $$ DECLARE o oid; BEGIN FOR o IN SELECT oid FROM pg_largeobject_metadata LOOP
                 EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO keeper', o); END LOOP; END $$",
        )
        .unwrap();
    let copied = under_load(&server, async || capture(&server, "keeper").await).await;
    assert_eq!(copied.captured.findings, []);
    assert_eq!(copied.codes(&copied.copy).await, [].into());
    let facts = copied.source.probe(&Cx::unbounded()).await.unwrap();
    assert_eq!(facts.findings, []);
    assert!(facts.summary.contains("the cluster of shop"), "{}", facts.summary);
    let source = PostgresSource::new(spec(&server, "reader"), None, Vec::new()).unwrap();
    let facts = source.probe(&Cx::unbounded()).await.unwrap();
    assert!(facts.findings.iter().any(|finding| finding.code == FindingCode::ScopeNarrow), "{facts:?}");
    let copy = Arc::new(DiskCopy::new(&copied.directory.path().join("none")));
    let error = source.capture(&Cx::unbounded(), copy).await.unwrap_err();
    assert_eq!(error.code, Some(FindingCode::ScopeNarrow), "{}", chain(&error));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_replays_all_the_time_is_a_source_too() {
    let [server, _] = servers();
    busy(&server);
    let place = server.path().join("standby");
    let data = place.to_str().unwrap();
    server
        .run("pg_basebackup", &["-R", "-c", "fast", "-D", data, "-h", &server.host(), "-U", "postgres"], "")
        .unwrap();
    let options = format!(
        "-p 5777 -k {} -c listen_addresses= -c fsync=off -c max_prepared_transactions=4",
        server.host()
    );
    let log = server.path().join("standby.log");
    server
        .run("pg_ctl", &["-D", data, "-o", &options, "-w", "-s", "-l", log.to_str().unwrap(), "start"], "")
        .unwrap_or_else(|error| panic!("{error}: {}", fs::read_to_string(&log).unwrap()));
    let of_standby = PostgresSpec { port: 5777, ..spec(&server, "postgres") };
    let source = PostgresSource::new(of_standby, None, Vec::new()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let copy = Arc::new(DiskCopy::new(&directory.path().join("copy")));
    let captured = under_load(&server, async || {
        source
            .capture(&Cx::unbounded(), Arc::<DiskCopy>::clone(&copy))
            .await
            .unwrap_or_else(|error| panic!("{}", chain(&error)))
    })
    .await;
    let copied = Copied { captured, copy, source, directory };
    assert!(copied.witness().snapshot.on_standby);
    assert_eq!(copied.codes(&copied.copy).await, [].into());
    // Promoted, it goes on along a timeline of its own, whose history the copy has to bring.
    server.run("pg_ctl", &["-D", data, "-w", "-s", "promote"], "").unwrap();
    let copy = Arc::new(DiskCopy::new(&copied.directory.path().join("promoted")));
    let captured = copied.source.capture(&Cx::unbounded(), Arc::<DiskCopy>::clone(&copy)).await;
    let captured = captured.unwrap_or_else(|error| panic!("{}", chain(&error)));
    let promoted = Copied { captured, copy, ..copied };
    assert_eq!(promoted.physical().timeline.number(), 2);
    assert_eq!(promoted.codes(&promoted.copy).await, [].into());
    server.run("pg_ctl", &["-D", data, "-m", "immediate", "-s", "stop"], "").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn healthy_oddities_raise_no_alarm() {
    for server in servers() {
        busy(&server);
        // Written into a file that travels with the data directory: a scratch engine must obey none of it.
        for setting in [
            "synchronous_commit = off",
            "archive_command = 'touch /tmp/seaworthy-was-here'",
            "shared_preload_libraries = 'nowhere_to_be_found'",
            "restore_command = 'touch /tmp/seaworthy-was-here'",
            "port = 1",
        ] {
            server.sql("shop", &format!("ALTER SYSTEM SET {setting}")).unwrap();
        }
        server.sql("shop", "SELECT pg_reload_conf()").unwrap();
        // Prepared and never ended; running all the time; nested; an index that is not valid; another database.
        server
            .sql("shop", "BEGIN; INSERT INTO log (what) VALUES ('prepared'); PREPARE TRANSACTION 'later';")
            .unwrap();
        server.create("other", &[]).unwrap();
        server.sql("other", "CREATE TABLE t AS SELECT generate_series(1, 100) n").unwrap();
        let mut idle = server
            .begin("shop", "BEGIN; INSERT INTO log (what) VALUES ('open'); SAVEPOINT one; INSERT INTO log (what) VALUES ('nested'); SELECT pg_sleep(600);")
            .unwrap();
        let copied = under_load(&server, async || capture(&server, "postgres").await).await;
        assert_eq!(copied.captured.findings, []);
        assert_eq!(copied.physical().others.keys().collect::<Vec<_>>(), ["other", "postgres"]);
        assert_eq!(copied.physical().others["other"].tables["public.t"].rows, 100);
        assert_eq!(copied.codes(&copied.copy).await, [].into());
        // What the witness of another database does not say is found there.
        let mut witness = copied.captured.witness.clone();
        let Witness::Postgres(postgres) = &mut witness else { panic!("a PostgreSQL witness") };
        let other = postgres.physical.as_mut().unwrap().others.get_mut("other").unwrap();
        other.tables.get_mut("public.t").unwrap().rows = 101;
        let restored =
            copied.try_restored(&copied.copy).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
        let found = findings(&*restored, &witness).await;
        assert_eq!(found.iter().map(|finding| finding.code).collect::<Vec<_>>(), [FindingCode::RowCount]);
        assert_eq!(found[0].subject, "other: public.t");
        restored.close(&Cx::unbounded()).await.unwrap();
        assert!(!Path::new("/tmp/seaworthy-was-here").exists());
        idle.kill().unwrap();
        idle.wait().unwrap();
    }
}
