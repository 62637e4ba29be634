//! The laws of schedules: whoever looks, and whenever, the same runs come due; every civil day has exactly one run of a daily
//! schedule, however its clocks are changed.

#![expect(clippy::unwrap_used, reason = "helpers of tests: what cannot be unwrapped is a failed test")]

use jiff::civil::{Date, date};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use seaworthy_model::service::ScheduleSpec;

/// With and without summer time, north and south, of half an hour too, before and after Greenwich, with changes at midnight.
const ZONES: [&str; 40] = [
    "Africa/Cairo",
    "Africa/Casablanca",
    "Africa/Johannesburg",
    "Africa/Lagos",
    "America/Anchorage",
    "America/Asuncion",
    "America/Bogota",
    "America/Chicago",
    "America/Godthab",
    "America/Halifax",
    "America/Havana",
    "America/Los_Angeles",
    "America/New_York",
    "America/Phoenix",
    "America/Santiago",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Asia/Beirut",
    "Asia/Gaza",
    "Asia/Jerusalem",
    "Asia/Kathmandu",
    "Asia/Kolkata",
    "Asia/Shanghai",
    "Asia/Tehran",
    "Asia/Tokyo",
    "Atlantic/Azores",
    "Australia/Adelaide",
    "Australia/Lord_Howe",
    "Australia/Sydney",
    "Europe/Berlin",
    "Europe/Dublin",
    "Europe/Istanbul",
    "Europe/Lisbon",
    "Europe/London",
    "Europe/Moscow",
    "Pacific/Apia",
    "Pacific/Auckland",
    "Pacific/Chatham",
    "Pacific/Kiritimati",
    "UTC",
];

fn schedule(cron: &str, zone: &str) -> ScheduleSpec {
    ScheduleSpec { cron: cron.to_owned(), zone: zone.to_owned() }
}

/// Everything that comes due after one instant and not after another.
fn due(schedule: &ScheduleSpec, after: Timestamp, until: Timestamp) -> Vec<Timestamp> {
    let next = |from: &Timestamp| schedule.next_after(*from).filter(|next| *next <= until);
    std::iter::successors(next(&after), next).collect()
}

/// The changes of a zone's clocks between two years.
fn changes(zone: &TimeZone, from: i16, until: i16) -> Vec<Timestamp> {
    let instant = |year: i16| date(year, 1, 1).to_zoned(TimeZone::UTC).unwrap().timestamp();
    zone.following(instant(from))
        .map(|change| change.timestamp())
        .take_while(|at| *at < instant(until))
        .collect()
}

#[test]
fn every_civil_day_around_a_change_of_clocks_has_exactly_one_run() {
    let (mut seen, mut put_off) = (0, 0);
    for name in ZONES {
        let zone = TimeZoneDatabase::bundled().get(name).unwrap();
        for change in changes(&zone, 2024, 2041) {
            for cron in ["0 0 * * *", "30 0 * * *", "30 1 * * *", "15 2 * * *", "59 2 * * *", "59 23 * * *"] {
                let around = SignedDuration::from_hours(72);
                let (from, until) = (change - around, change + around);
                let runs = due(&schedule(cron, name), from, until);
                let mut days: Vec<Date> = runs.iter().map(|at| at.to_zoned(zone.clone()).date()).collect();
                // A run that the last hour of a day skips comes right after the gap, which is the next day's first moment.
                for at in 1..days.len() {
                    if days[at] == days[at - 1] && runs[at - 1] == change {
                        days[at - 1] = days[at - 1].yesterday().unwrap();
                        put_off += 1;
                    }
                }
                for pair in days.windows(2) {
                    assert_eq!(
                        pair[1],
                        pair[0].checked_add(1.day()).unwrap(),
                        "{name}, {cron}, around {change}"
                    );
                }
                assert!(days.len() >= 5, "{name}, {cron}, around {change}: {days:?}");
                seen += 1;
            }
        }
    }
    assert!(seen > 4_000 && put_off > 0, "only {seen} changes were looked at, {put_off} put a run off");
}

#[test]
fn looking_twice_finds_what_looking_once_finds() {
    let (mut with_runs, mut with_a_change) = (0, 0);
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let place = (0..ZONES.len(), any::<prop::sample::Index>(), 0_i64..90, 1_i64..200, 0_i64..200);
    let given = ((0_u32..60, 0_u32..24, 0_usize..5), place);
    let counts = std::cell::RefCell::new((&mut with_runs, &mut with_a_change));
    type Given = ((u32, u32, usize), (usize, prop::sample::Index, i64, i64, i64));
    let law = |((minute, hour, kind), (zone, change, before, length, split)): Given| {
        let cron = [
            format!("{minute} {hour} * * *"),
            format!("{minute} */3 * * *"),
            format!("*/{} * * * *", 20 + minute % 30),
            format!("{minute} {hour} * * 1,3"),
            "@daily".to_owned(),
        ][kind]
            .clone();
        let zone = TimeZoneDatabase::bundled().get(ZONES[zone]).unwrap();
        let schedule = schedule(&cron, zone.iana_name().unwrap());
        let changes = changes(&zone, 2024, 2030);
        let start = match changes.is_empty() {
            true => "2026-03-01T00:00:00Z".parse::<Timestamp>().unwrap(),
            false => changes[change.index(changes.len())] - SignedDuration::from_hours(before),
        };
        let until = start + SignedDuration::from_hours(length);
        let between = (start + SignedDuration::from_mins(split * 37)).min(until);
        let whole = due(&schedule, start, until);
        // At any instant, and at the very instant of a run.
        for middle in [Some(between), whole.get(whole.len() / 2).copied()].into_iter().flatten() {
            let mut parts = due(&schedule, start, middle);
            parts.extend(due(&schedule, middle, until));
            prop_assert_eq!(&whole, &parts, "{} in {:?}, split at {}", cron, zone.iana_name(), middle);
        }
        let mut counts = counts.borrow_mut();
        *counts.0 += u32::from(!whole.is_empty());
        *counts.1 += u32::from(changes.iter().any(|change| start < *change && *change < until));
        Ok(())
    };
    runner.run(&given, law).unwrap();
    // A law says nothing where its premise never holds.
    assert!(
        with_runs >= 200 && with_a_change >= 60,
        "{with_runs} with runs, {with_a_change} with a change of clocks"
    );
}
