//! The replication protocol against real servers: what is sent is what `pg_verifybackup` accepts, and what is refused is told.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use seaworthy_drivers::source::postgres::PostgresSource;
use seaworthy_drivers::source::postgres::relation;
use seaworthy_drivers::source::postgres::replication::tar::{Part, TarError, TarKind, Untar};
use seaworthy_drivers::source::postgres::replication::{BackupOptions, Ended, Event, Received, Replication};
use seaworthy_interface::{Cx, DriverError, ErrorKind, Stop};
use seaworthy_model::finding::FindingCode;
use seaworthy_model::source::{PostgresMode, PostgresSpec, Tls};
use seaworthy_model::wal::{Lsn, Segment, SegmentSize, Timeline};
use seaworthy_testkit::components;
use seaworthy_testkit::postgres::{Server, programs, server_user, shop};

fn spec(server: &Server, user: &str) -> PostgresSpec {
    PostgresSpec {
        host: server.host(),
        port: server.port(),
        user: user.to_owned(),
        mode: PostgresMode::Logical,
        database: "shop".to_owned(),
        password: None,
        tls: Tls::LocalOnly,
        exclude_schemas: Vec::new(),
        exclude_tables: Vec::new(),
        lock_timeout: SignedDuration::from_secs(10),
        bin_dir: None,
        may_be_empty: false,
    }
}

fn source(server: &Server, user: &str, password: Option<&str>) -> PostgresSource {
    PostgresSource::new(spec(server, user), password.map(|text| text.to_owned().into()), Vec::new()).unwrap()
}

fn servers() -> [Server; 2] {
    [programs().unwrap(), components::second_postgres_bin().unwrap()]
        .map(|programs| Server::start_from(programs, &["fsync=off"]).unwrap())
}

fn chain(error: &DriverError) -> String {
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        words.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    words
}

fn options() -> BackupOptions {
    BackupOptions { label: "a test's".to_owned(), fast: true, max_rate: None, wait: false }
}

fn owned(path: &Path) {
    if let Some(user) = server_user().unwrap() {
        chown(path, Some(user.uid), Some(user.gid)).unwrap();
    }
}

/// Takes a backup into a directory, as a server expects it there; where the log begins and ends that is needed.
async fn into(connection: &mut Replication, place: &Path) -> (Lsn, Ended) {
    let cx = Cx::unbounded();
    let mut backup =
        connection.base_backup(&cx, &options()).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    let from = backup.from;
    let data = place.join("data");
    let spaces: BTreeMap<u32, _> = backup
        .tablespaces
        .iter()
        .map(|space| (space.oid, place.join(format!("space-{}", space.oid))))
        .collect();
    for directory in spaces.values().chain([&data]) {
        fs::create_dir(directory).unwrap();
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).unwrap();
        owned(directory);
    }
    let mut open: Option<(Untar, std::path::PathBuf)> = None;
    let mut file: Option<fs::File> = None;
    let mut manifest: Option<Vec<u8>> = None;
    loop {
        match backup.next(&cx).await.unwrap_or_else(|error| panic!("{}", chain(&error))) {
            Some(Event::Archive(of)) => {
                if let Some((untar, _)) = &open {
                    untar.finish().unwrap();
                }
                let root = of.map_or_else(|| data.clone(), |oid| spaces[&oid].clone());
                open = Some((Untar::default(), root));
            }
            Some(Event::Manifest) => {
                open.take().unwrap().0.finish().unwrap();
                manifest = Some(Vec::new());
            }
            Some(Event::Data(bytes)) => match (&mut manifest, &mut open) {
                (Some(manifest), _) => manifest.extend_from_slice(&bytes),
                (None, Some((untar, root))) => untar
                    .push::<TarError>(&bytes, &mut |part| {
                        match part {
                            Part::Entry(entry) => {
                                let name = String::from_utf8(entry.path).unwrap();
                                let path = root.join(name);
                                match entry.kind {
                                    TarKind::Directory if path.exists() => {}
                                    TarKind::Directory => fs::create_dir(&path).unwrap(),
                                    TarKind::File => file = Some(fs::File::create_new(&path).unwrap()),
                                    // With a map of them, links are not sent.
                                    TarKind::Symlink(_) => panic!("a link"),
                                }
                                fs::set_permissions(&path, fs::Permissions::from_mode(entry.mode)).unwrap();
                                owned(&path);
                            }
                            Part::Data(bytes) => file.as_mut().unwrap().write_all(bytes).unwrap(),
                            Part::Whole => file = None,
                        }
                        Ok(())
                    })
                    .unwrap(),
                (None, None) => panic!("bytes of nothing"),
            },
            Some(Event::Ended(ended)) => {
                assert_eq!(backup.next(&cx).await.unwrap(), None);
                fs::write(data.join("backup_manifest"), manifest.unwrap()).unwrap();
                owned(&data.join("backup_manifest"));
                for (oid, place) in &spaces {
                    symlink(place, data.join(format!("pg_tblspc/{oid}"))).unwrap();
                }
                return (from, ended);
            }
            None => panic!("it ended without saying so"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_sends_is_whole_by_its_own_manifest() {
    for server in servers() {
        server.create("shop", &[]).unwrap();
        server.sql("shop", &shop(500)).unwrap();
        let space = server.path().join("fast");
        fs::create_dir(&space).unwrap();
        owned(&space);
        server.sql("shop", &format!("CREATE TABLESPACE fast LOCATION '{}'", space.display())).unwrap();
        server
            .sql("shop", "CREATE TABLE quick TABLESPACE fast AS SELECT generate_series(1, 50000) n")
            .unwrap();
        let cx = Cx::unbounded();
        let mut connection = source(&server, "postgres", None).replication(&cx).await.unwrap();
        let said = server.sql("shop", "SELECT system_identifier FROM pg_control_system()").unwrap();
        let identity = connection.identify(&cx).await.unwrap();
        assert_eq!((identity.system.to_string().as_str(), identity.timeline), (said.trim(), Timeline::FIRST));
        assert_eq!(connection.show(&cx, "wal_segment_size").await.unwrap(), "16MB");
        assert_eq!(connection.history(&cx, Timeline::FIRST).await.unwrap().switches, []);
        let place = server.path().join("copy");
        fs::create_dir(&place).unwrap();
        owned(&place);
        let (from, ended) = into(&mut connection, &place).await;
        assert!(identity.position <= from && from < ended.until, "{identity:?} {from} {ended:?}");
        let copy = place.join("data");
        server.run("pg_verifybackup", &["-n", "-q", copy.to_str().unwrap()], "").unwrap();
        assert!(copy.join("backup_label").exists() && copy.join("tablespace_map").exists());
        // The judge can fail.
        let victim = fs::read_dir(place.join("data/base/1")).unwrap().flatten().find(|entry| {
            entry.metadata().unwrap().len() > 8_192 && !entry.file_name().to_string_lossy().contains('_')
        });
        let victim = victim.unwrap().path();
        let mut bytes = fs::read(&victim).unwrap();
        bytes[5_000] ^= 1;
        fs::write(&victim, bytes).unwrap();
        assert!(server.run("pg_verifybackup", &["-n", "-q", copy.to_str().unwrap()], "").is_err());
        // The connection is of use again.
        assert_eq!(connection.identify(&cx).await.unwrap().system, identity.system);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_needs_the_right_to_replicate_its_password_and_nothing_else() {
    let [server, _] = servers();
    server.create("shop", &[]).unwrap();
    server
        .sql(
            "shop",
            "SET password_encryption = 'scram-sha-256'; CREATE ROLE keeper LOGIN REPLICATION PASSWORD 'canary-1';
             CREATE ROLE reader LOGIN PASSWORD 'canary-1';
             SET password_encryption = 'md5'; CREATE ROLE older LOGIN REPLICATION PASSWORD 'canary-2';",
        )
        .unwrap();
    let hba = server.sql("shop", "SHOW hba_file").unwrap();
    let rules = "local all postgres trust\nlocal replication keeper scram-sha-256\nlocal replication reader scram-sha-256\n\
                 local replication older md5\n";
    fs::write(hba.trim(), rules).unwrap();
    server.sql("shop", "SELECT pg_reload_conf()").unwrap();
    let cx = Cx::unbounded();
    for (user, password) in [("keeper", "canary-1"), ("older", "canary-2")] {
        let mut connection = source(&server, user, Some(password))
            .replication(&cx)
            .await
            .unwrap_or_else(|error| panic!("{user}: {}", chain(&error)));
        let place = server.path().join(user);
        fs::create_dir(&place).unwrap();
        into(&mut connection, &place).await;
    }
    for (user, password, kind, code) in [
        ("keeper", Some("canary-x"), ErrorKind::Unauthenticated, FindingCode::AuthDenied),
        ("keeper", None, ErrorKind::Unauthenticated, FindingCode::AuthDenied),
        ("older", Some("canary-x"), ErrorKind::Unauthenticated, FindingCode::AuthDenied),
        ("reader", Some("canary-1"), ErrorKind::PermissionDenied, FindingCode::ScopeNarrow),
        ("postgres", None, ErrorKind::Unauthenticated, FindingCode::AuthDenied),
    ] {
        let error = source(&server, user, password).replication(&cx).await.unwrap_err();
        assert_eq!((error.kind, error.code), (kind, Some(code)), "{user}: {}", chain(&error));
        assert!(error.hint.is_some() && !chain(&error).contains("canary"), "{user}: {}", chain(&error));
    }
    let nowhere =
        PostgresSource::new(PostgresSpec { port: 1, ..spec(&server, "keeper") }, None, Vec::new()).unwrap();
    let error = nowhere.replication(&cx).await.unwrap_err();
    assert_eq!(
        (error.kind, error.code),
        (ErrorKind::NotFound, Some(FindingCode::Unreachable)),
        "{}",
        chain(&error)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_stopped_leaves_nothing_running_on_the_server() {
    let [server, _] = servers();
    server.create("shop", &[]).unwrap();
    let (cx, token) = Cx::unbounded().child();
    let mut connection = source(&server, "postgres", None).replication(&cx).await.unwrap();
    let slow = BackupOptions { max_rate: Some(32), ..options() };
    let mut backup = connection.base_backup(&cx, &slow).await.unwrap();
    assert_eq!(backup.next(&cx).await.unwrap(), Some(Event::Archive(None)));
    let stopping = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        token.cancel();
    });
    let error = loop {
        if let Err(error) = backup.next(&cx).await {
            break error;
        }
    };
    assert_eq!(error.kind, ErrorKind::Stopped(Stop::Cancelled));
    stopping.await.unwrap();
    drop(connection);
    let until = Instant::now() + Duration::from_secs(20);
    let running = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'";
    while server.sql("shop", running).unwrap().trim() != "0" {
        assert!(Instant::now() < until, "the server still sends");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Every page of every relation of a data directory.
fn pages_of(data: &Path, tell: &mut dyn FnMut(&str, u32, &[u8; relation::PAGE])) {
    let mut open = vec![data.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let name = path.strip_prefix(data).unwrap().to_str().unwrap().to_owned();
            let Some(file) = relation::RelationFile::of(name.as_bytes()) else { continue };
            let bytes = fs::read(&path).unwrap();
            assert!(bytes.len().is_multiple_of(relation::PAGE), "{name}");
            for (number, page) in bytes.chunks_exact(relation::PAGE).enumerate() {
                tell(&name, file.block(u32::try_from(number).unwrap()), page.try_into().unwrap());
            }
        }
    }
}

#[test]
fn checksums_of_pages_are_those_that_the_server_computes() {
    for server in servers() {
        let data = server.path().join("summed");
        let place = data.to_str().unwrap();
        server.run("initdb", &["-k", "--no-sync", "-U", "postgres", "-D", place], "").unwrap();
        let mut pages = 0;
        pages_of(&data, &mut |name, block, page| {
            pages += 1;
            relation::judge(page, block, Lsn(u64::MAX)).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
        });
        assert!(pages > 2_000, "{pages} pages");
        server.run("pg_checksums", &["--check", "-D", place], "").unwrap();
        // One bit, found by both.
        let victim = data.join("base/1/1259");
        let mut bytes = fs::read(&victim).unwrap();
        bytes[relation::PAGE + 5_000] ^= 4;
        fs::write(&victim, bytes).unwrap();
        let mut wrong = Vec::new();
        pages_of(&data, &mut |name, block, page| {
            if relation::judge(page, block, Lsn(u64::MAX)).is_err() {
                wrong.push((name.to_owned(), block));
            }
        });
        assert_eq!(wrong, [("base/1/1259".to_owned(), 1)]);
        assert!(server.run("pg_checksums", &["--check", "-D", place], "").is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_received_is_the_log_and_only_what_is_durable_is_let_go() {
    for server in servers() {
        server.create("shop", &[]).unwrap();
        let say = |query: &str| server.sql("shop", query).unwrap().trim().to_owned();
        let cx = Cx::unbounded();
        let mut connection = source(&server, "postgres", None).replication(&cx).await.unwrap();
        connection.create_slot(&cx, "keeper").await.unwrap();
        let again = source(&server, "postgres", None)
            .replication(&cx)
            .await
            .unwrap()
            .create_slot(&cx, "keeper")
            .await;
        assert!(chain(&again.unwrap_err()).contains("already exists"));
        assert!(connection.create_slot(&cx, "Keeper; DROP").await.is_err());
        // The slot keeps the log from here on.
        let kept: Lsn =
            say("SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'keeper'").parse().unwrap();
        let size = SegmentSize::USUAL;
        let segment = Segment::of(Timeline::FIRST, kept, size);
        let mut stream =
            connection.stream(&cx, Some("keeper"), Timeline::FIRST, segment.start(size)).await.unwrap();
        let (mut bytes, mut stopped) = (Vec::new(), 0);
        let mut wanted = Lsn(u64::MAX);
        while stream.position() < wanted {
            if stopped == 5 && wanted == Lsn(u64::MAX) {
                server.sql("shop", &shop(300)).unwrap();
                server.sql("shop", "SELECT pg_switch_wal()").unwrap();
                wanted = say("SELECT pg_current_wal_lsn()").parse().unwrap();
            }
            // Whoever stops waiting and asks again misses nothing.
            match stream.next(&cx.within(Duration::from_micros(20))).await {
                Ok(Some(Received::Piece { at, bytes: piece, end, .. })) => {
                    assert!(Lsn(at.0 + piece.len() as u64) <= end);
                    bytes.extend(piece);
                }
                Ok(Some(Received::Alive { .. })) => {}
                Err(error) if matches!(error.kind, ErrorKind::Stopped(_)) => stopped += 1,
                other => panic!("{other:?}"),
            }
        }
        let data = say("SHOW data_directory");
        let file = fs::read(Path::new(&data).join("pg_wal").join(segment.name(size))).unwrap();
        let whole = usize::try_from(size.bytes()).unwrap();
        assert!(bytes.len() >= whole && bytes[..whole] == file[..], "{} bytes", bytes.len());
        // Nothing was acknowledged yet, and nothing let go.
        let flushed = "SELECT coalesce(flush_lsn::text, '-') FROM pg_stat_replication";
        let restart = "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'keeper'";
        assert_eq!(say(restart), kept.to_string());
        let now = jiff::Timestamp::now().as_microsecond();
        stream.acknowledge(&cx, segment.end(size), now, false).await.unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while say(flushed) != segment.end(size).to_string() || say(restart) != segment.end(size).to_string() {
            assert!(Instant::now() < until, "{} {}", say(flushed), say(restart));
            std::thread::sleep(Duration::from_millis(50));
        }
        drop(connection);
        let mut other = source(&server, "postgres", None).replication(&cx).await.unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while let Err(error) = other.drop_slot(&cx, "keeper").await {
            // The server takes a moment to see that nobody listens any more.
            assert!(Instant::now() < until, "{}", chain(&error));
            std::thread::sleep(Duration::from_millis(50));
            other = source(&server, "postgres", None).replication(&cx).await.unwrap();
        }
        assert_eq!(say("SELECT count(*) FROM pg_replication_slots"), "0");
    }
}
