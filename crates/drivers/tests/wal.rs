//! The write-ahead log of real servers, read as they read it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use seaworthy_drivers::source::postgres::wal::page::{Expected, Link, Wrong, origin, walk};
use seaworthy_model::wal::{Lsn, Segment, SegmentSize, WalFile};
use seaworthy_testkit::components;
use seaworthy_testkit::estate::Dice;
use seaworthy_testkit::postgres::{Server, programs};

/// A server's whole segments, oldest first.
struct Log {
    segments: Vec<(Segment, Vec<u8>)>,
    size: SegmentSize,
    system: u64,
}

/// Something of everything: small records, records of many pages, one that is longer than two segments, full-page images, a segment
/// that was ended early.
fn log_of(server: &Server) -> Log {
    server.create("log", &[]).unwrap();
    server
        .sql(
            "log",
            "CREATE TABLE t (id int PRIMARY KEY, body text); CREATE INDEX ON t (body);
             INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, 20000) i; CHECKPOINT;
             UPDATE t SET body = body || ' again' WHERE id % 3 = 0; SELECT pg_switch_wal();
             INSERT INTO t SELECT i, repeat(md5(i::text), 60) FROM generate_series(20001, 26000) i;
             SELECT pg_logical_emit_message(false, 'long', repeat('0123456789', 3700000));
             DELETE FROM t WHERE id % 2 = 0; VACUUM t; CHECKPOINT; SELECT pg_switch_wal();
             DROP TABLE t;",
        )
        .unwrap();
    let say = |query: &str| server.sql("log", query).unwrap().trim().to_owned();
    let size: u32 = say("SELECT setting FROM pg_settings WHERE name = 'wal_segment_size'").parse().unwrap();
    let size = SegmentSize::try_from(size).unwrap();
    let current = say("SELECT pg_walfile_name(pg_current_wal_lsn())");
    let system = say("SELECT system_identifier FROM pg_control_system()").parse().unwrap();
    let place = PathBuf::from(say("SHOW data_directory")).join("pg_wal");
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(place).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        // Later names are files that were used before and wait for their turn.
        if let (Ok(WalFile::Segment(segment)), true) = (WalFile::parse(&name, size), name < current) {
            found.insert(segment, fs::read(entry.path()).unwrap());
        }
    }
    Log { segments: found.into_iter().collect(), size, system }
}

impl Log {
    fn expected(&self, index: usize) -> Expected {
        Expected { segment: self.segments[index].0, size: self.size, system: Some(self.system) }
    }

    fn wrong(&self, index: usize, bytes: &[u8], link: &Link) -> Option<Wrong> {
        walk(bytes, &self.expected(index), link).err()
    }
}

fn servers() -> [Server; 2] {
    let settings: &[&str] = &["wal_keep_size=1GB", "max_wal_size=2GB", "wal_level=logical"];
    [programs().unwrap(), components::second_postgres_bin().unwrap()]
        .map(|programs| Server::start_from(programs, settings).unwrap())
}

#[test]
fn every_record_is_read_and_they_are_as_many_as_pg_waldump_counts() {
    for server in servers() {
        let log = log_of(&server);
        assert!(log.segments.len() >= 5, "{} segments", log.segments.len());
        let (mut link, mut records, mut switched, mut long) = (Link::default(), 0, 0, 0);
        for (index, (segment, bytes)) in log.segments.iter().enumerate() {
            let name = segment.name(log.size);
            let walked =
                walk(bytes, &log.expected(index), &link).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
            records += walked.records;
            switched += u32::from(walked.is_switched);
            assert!(walked.is_switched || walked.until == segment.end(log.size), "{name}: {walked:?}");
            link = walked.link;
            long += u32::from(link.begun.as_ref().is_some_and(|begun| begun.bytes.len() > 16 << 20));
            // By itself it is right too, but for what it shares with the one before it.
            walk(bytes, &log.expected(index), &Link::default()).unwrap();
        }
        assert!(switched >= 2 && long >= 1, "{switched} switches, {long} long records");
        let (first, last) = (log.segments[0].0, log.segments.last().unwrap().0);
        let place = server.sql("log", "SHOW data_directory").unwrap();
        let place = format!("{}/pg_wal", place.trim());
        let told = server
            .run("pg_waldump", &["-p", &place, &first.name(log.size), &last.name(log.size)], "")
            .unwrap();
        assert_eq!(records, told.lines().filter(|line| line.starts_with("rmgr:")).count() as u64);
    }
}

#[test]
fn nothing_that_was_altered_passes() {
    let [server, other] = servers();
    let (log, foreign) = (log_of(&server), log_of(&other));
    // The link into each segment.
    let mut links = vec![Link::default()];
    for (index, (_, bytes)) in log.segments.iter().enumerate() {
        links.push(walk(bytes, &log.expected(index), &links[index]).unwrap().link);
    }
    let whole = 1;
    let (segment, bytes) = &log.segments[whole];
    let link = &links[whole];
    let start = segment.start(log.size);
    let altered = |alter: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = bytes.clone();
        alter(&mut bytes);
        log.wrong(whole, &bytes, link)
    };
    let page = 8_192;
    let at = |page_number: u64| Lsn(start.0 + page_number * 8_192);
    assert_eq!(altered(&|_| ()), None);
    // Cut off, empty, empty from somewhere on.
    let cut = altered(&|bytes| bytes.truncate(9_000));
    assert_eq!(cut, Some(Wrong::Short(9_000, log.size.bytes())));
    assert_eq!(altered(&|bytes| bytes.fill(0)), Some(Wrong::Magic(Lsn(0), 0)));
    assert_eq!(altered(&|bytes| bytes[5 * page..].fill(0)), Some(Wrong::Magic(at(5), 0)));
    assert!(altered(&|bytes| bytes[5 * page + 4_000..6 * page].fill(0)).is_some());
    // Pages exchanged, doubled, of an older log in the same file.
    let exchanged = altered(&|bytes| {
        let (front, back) = bytes.split_at_mut(7 * page);
        front[3 * page..4 * page].swap_with_slice(&mut back[..page]);
    });
    assert_eq!(exchanged, Some(Wrong::Address(at(3), at(7))));
    // Another place, another cluster, another major, another timeline.
    let next = &log.segments[whole + 1];
    assert_eq!(log.wrong(whole, &next.1, link), Some(Wrong::Place(next.0.start(log.size), start)));
    let stranger = foreign.segments.iter().find(|other| other.0 == *segment).unwrap();
    assert_eq!(log.wrong(whole, &stranger.1, link), Some(Wrong::System(foreign.system, log.system)));
    let magic = |bytes: &mut Vec<u8>| bytes[2 * page..2 * page + 2].copy_from_slice(&stranger.1[..2]);
    assert!(matches!(altered(&magic), Some(Wrong::Major(here, ..)) if here == at(2)));
    assert_eq!(altered(&|bytes| bytes[2 * page + 4] = 9), Some(Wrong::Line(at(2), 9, segment.timeline)));
    assert_eq!(
        altered(&|bytes| bytes[2 * page + 3] = 0x80),
        Some(Wrong::Flags(at(2), 0x8000 | u16::from(bytes[2 * page + 2])))
    );
    // A segment that is missing before it.
    let long = links.iter().position(|link| link.begun.is_some()).unwrap();
    let skipped = log.wrong(long + 1, &log.segments[long + 1].1, &links[long]);
    assert!(matches!(skipped, Some(Wrong::Continued(..) | Wrong::Previous(..))), "{skipped:?}");
    assert_eq!(origin(&bytes[..30]), Err(Wrong::Short(30, 8_192)));
    assert_eq!(origin(&bytes[page..]).unwrap_err(), Wrong::Anonymous);

    // Any bit at all: found, or one of the few that nobody reads.
    let until = usize::try_from(walk(bytes, &log.expected(whole), link).unwrap().until.0 - start.0).unwrap();
    let mut dice = Dice::new(11);
    let (mut found, mut unread) = (0, 0);
    for _ in 0..400 {
        let (byte, bit) = (usize::try_from(dice.below(until as u64)).unwrap(), dice.below(8));
        match altered(&|bytes| bytes[byte] ^= 1 << bit) {
            Some(_) => found += 1,
            None => {
                unread += 1;
                let within = byte % page;
                // The padding of a page's header, or of a record.
                assert!((20..24).contains(&within) || bytes[byte] == 0, "byte {byte}, bit {bit}");
            }
        }
    }
    assert!(found >= 360, "{found} found, {unread} in bytes that nobody reads");
}
