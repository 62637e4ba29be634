//! How often a schedule comes due: the longest and the shortest pause between two runs.
//!
//! Counted on the wall clock of the schedule's own zone, so that the day with 25 hours in autumn does not turn a daily
//! schedule into a broken promise. Exact, from the set of minutes, hours and days; nothing is sampled.

use croner::parser::{CronParser, Seconds, Year};
use croner::time::Weekday;
use jiff::civil::{Date, date};
use jiff::tz::TimeZoneDatabase;
use jiff::{SignedDuration, Timestamp};

/// Pauses between the runs of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cadence {
    pub(super) longest: SignedDuration,
    pub(super) shortest: SignedDuration,
}

/// Why a cron expression is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CronError {
    #[error("a cron expression has five fields (minute hour day month weekday), this one has {0}")]
    Fields(usize),
    #[error("{0}")]
    Field(String),
    #[error("this never comes: no day matches")]
    Never,
}

/// Reads a cron expression of five fields and measures its pauses.
pub(super) fn cadence(cron: &str) -> Result<Cadence, CronError> {
    let fields = cron.split_whitespace().count();
    if fields != 5 && !cron.trim_start().starts_with('@') {
        return Err(CronError::Fields(fields));
    }
    let parsed = CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build()
        .parse(cron)
        .map_err(|error| {
            CronError::Field(field_error(cron).unwrap_or_else(|| lower_first(&error.to_string())))
        })?;
    let pattern = parsed.pattern;
    let minutes = pattern.minutes.values();
    let times: Vec<i64> = pattern
        .hours
        .values()
        .into_iter()
        .flat_map(|hour| minutes.iter().map(move |minute| i64::from(hour) * 60 + i64::from(*minute)))
        .collect();
    let (Some(first), Some(last)) = (times.first().copied(), times.last().copied()) else {
        return Err(CronError::Never);
    };
    let mut pauses: Vec<i64> = times.iter().zip(times.iter().skip(1)).map(|(a, b)| b - a).collect();

    let mut previous: Option<i64> = None;
    let mut number: i64 = 0;
    let mut day = date(2024, 1, 1);
    // Nine years hold two 29ths of February and every way that weekdays fall on a month.
    let end = date(2033, 1, 1);
    while day < end {
        let matches = pattern.month_match(month(day)).unwrap_or(false)
            && pattern
                .day_match(day.year().into(), month(day), day_of_month(day), weekday(day))
                .unwrap_or(false);
        if matches {
            pauses.extend(previous.map(|previous| (number - previous) * 1_440 - last + first));
            previous = Some(number);
        }
        number += 1;
        day = day.tomorrow().map_err(|_| CronError::Never)?;
    }
    let (Some(longest), Some(shortest)) = (pauses.iter().max(), pauses.iter().min()) else {
        return Err(CronError::Never);
    };
    Ok(Cadence {
        longest: SignedDuration::from_mins(*longest),
        shortest: SignedDuration::from_mins(*shortest),
    })
}

/// The first time after `instant` that a schedule comes due in its zone.
pub(crate) fn next_after(cron: &str, zone: &str, instant: Timestamp) -> Option<Timestamp> {
    let parsed =
        CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build().parse(cron).ok()?;
    // The zones of this program, which the configuration was checked against: a machine's own may be older, or not there.
    let from = instant.to_zoned(TimeZoneDatabase::bundled().get(zone).ok()?);
    parsed.find_next_occurrence(&from, false).ok().map(|next: jiff::Zoned| next.timestamp())
}

fn month(day: Date) -> u32 {
    u32::from(day.month().unsigned_abs())
}

fn day_of_month(day: Date) -> u32 {
    u32::from(day.day().unsigned_abs())
}

fn weekday(day: Date) -> Weekday {
    match day.weekday() {
        jiff::civil::Weekday::Monday => Weekday::Monday,
        jiff::civil::Weekday::Tuesday => Weekday::Tuesday,
        jiff::civil::Weekday::Wednesday => Weekday::Wednesday,
        jiff::civil::Weekday::Thursday => Weekday::Thursday,
        jiff::civil::Weekday::Friday => Weekday::Friday,
        jiff::civil::Weekday::Saturday => Weekday::Saturday,
        jiff::civil::Weekday::Sunday => Weekday::Sunday,
    }
}

/// Which field is wrong, found by reading each alone.
fn field_error(cron: &str) -> Option<String> {
    const FIELDS: [(&str, &str); 5] = [
        ("minute", "0 to 59"),
        ("hour", "0 to 23"),
        ("day of the month", "1 to 31, L, W"),
        ("month", "1 to 12, JAN to DEC"),
        ("day of the week", "0 to 7, SUN to SAT, MON#1, L"),
    ];
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    let fields: Vec<&str> = cron.split_whitespace().collect();
    fields.iter().zip(FIELDS).enumerate().find_map(|(position, (written, (name, range)))| {
        let mut alone = ["*"; 5];
        *alone.get_mut(position)? = written;
        let shown: String = written.chars().take(20).collect();
        parser.parse(&alone.join(" ")).is_err().then(|| format!("`{shown}` is no {name} ({range})"))
    })
}

fn lower_first(sentence: &str) -> String {
    let sentence = sentence.trim_end_matches('.');
    let mut characters = sentence.chars();
    characters.next().map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hours(cron: &str) -> (i64, i64) {
        let cadence = cadence(cron).unwrap();
        (cadence.longest.as_hours(), cadence.shortest.as_hours())
    }

    #[test]
    fn pauses_are_those_a_person_would_count() {
        assert_eq!(hours("0 * * * *"), (1, 1));
        assert_eq!(hours("0 2 * * *"), (24, 24));
        assert_eq!(hours("0 9-17 * * MON-FRI"), (64, 1));
        assert_eq!(hours("0 3 * * SUN"), (168, 168));
        assert_eq!(hours("0 3 1 * *"), (31 * 24, 28 * 24));
        assert_eq!(hours("0 9 * * MON#1"), (35 * 24, 28 * 24));
        assert_eq!(hours("0 3 L * *"), (31 * 24, 28 * 24));
        assert_eq!(hours("0 3 29 2 *"), ((366 + 3 * 365) * 24, (366 + 3 * 365) * 24));
        assert_eq!(cadence("*/15 * * * *").unwrap().longest, SignedDuration::from_mins(15));
    }

    #[test]
    fn what_is_no_schedule_says_why() {
        assert_eq!(cadence("0 2 * *"), Err(CronError::Fields(4)));
        assert_eq!(cadence("0 0 2 * * *"), Err(CronError::Fields(6)));
        assert_eq!(cadence("0 3 30 2 *"), Err(CronError::Never));
        assert!(matches!(cadence("0 25 * * *"), Err(CronError::Field(_))));
        assert!(matches!(cadence("a b c d e"), Err(CronError::Field(_))));
    }

    #[test]
    fn the_next_time_is_counted_on_the_wall_clock_of_the_zone() {
        let next = |cron: &str, zone: &str, from: &str| {
            next_after(cron, zone, from.parse().unwrap()).map(|next| next.to_string())
        };
        let berlin = "Europe/Berlin";
        assert_eq!(
            next("0 3 * * SUN", "UTC", "2026-11-21T12:00:00Z").as_deref(),
            Some("2026-11-22T03:00:00Z")
        );
        assert_eq!(
            next("0 3 * * *", "UTC", "2026-11-21T03:00:00Z").as_deref(),
            Some("2026-11-22T03:00:00Z"),
            "after, not at"
        );
        assert_eq!(
            next("0 3 * * *", berlin, "2026-11-21T12:00:00Z").as_deref(),
            Some("2026-11-22T02:00:00Z")
        );
        assert_eq!(
            next("0 3 * * *", berlin, "2026-07-01T12:00:00Z").as_deref(),
            Some("2026-07-02T01:00:00Z")
        );
        assert_eq!(
            next("0 3 1 * *", berlin, "2026-11-21T12:00:00Z").as_deref(),
            Some("2026-12-01T02:00:00Z")
        );
        // On 2026-03-29 the clock of Berlin goes from 02:00 to 03:00, on 2026-10-25 from 03:00 back to 02:00.
        let skipped = next("30 2 * * *", berlin, "2026-03-28T12:00:00Z").unwrap();
        assert_eq!(skipped, "2026-03-29T01:00:00Z", "right after the gap");
        let first = next("30 2 * * *", berlin, "2026-10-24T12:00:00Z").unwrap();
        let second = next("30 2 * * *", berlin, &first).unwrap();
        assert!(first.starts_with("2026-10-25T") && second.starts_with("2026-10-26T"), "{first} {second}");
        assert_eq!(next("0 3 30 2 *", "UTC", "2026-11-21T12:00:00Z"), None);
    }

    proptest! {
        /// The oracle walks the occurrences one by one, which this module never does.
        #[test]
        fn the_longest_pause_is_never_exceeded(minute in 0_u32..60, hour in 0_u32..24, weekday in 0_u32..7, step in 1_u32..24) {
            for cron in [
                format!("{minute} {hour} * * {weekday}"),
                format!("{minute} */{step} * * *"),
                format!("{minute} {hour} {} * *", weekday + 20),
            ] {
                let measured = cadence(&cron).unwrap();
                let parsed: croner::Cron = cron.parse().unwrap();
                let times: Vec<_> = parsed.iter_after(date(2025, 1, 1).at(0, 0, 0, 0)).take(60).collect();
                let pauses: Vec<_> = times.windows(2).map(|pair| pair[1].duration_since(pair[0])).collect();
                prop_assert!(pauses.iter().all(|pause| *pause <= measured.longest && *pause >= measured.shortest));
                prop_assert!(pauses.contains(&measured.longest), "{} never pauses for {:?}", cron, measured.longest);
            }
        }
    }
}
