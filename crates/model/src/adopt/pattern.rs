//! Names with a date in them: which names belong to a set, and which instants one of them can mean.
//!
//! A name is written by a wall clock. It means a span, not an instant: a day, a minute, a second; on the night on which
//! the clocks go back a minute means two, an hour apart; on the night on which they go forward some name no minute at all.

use std::fmt;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Most `*` of a pattern: each multiplies the ways in which a name can be read.
const STARS_MAX: usize = 3;
/// Longest pattern and longest name, in bytes; longer names exist on no common file system.
const BYTES_MAX: usize = 255;

/// A part of a date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    Epoch,
}

impl Field {
    const ALL: [Self; 7] =
        [Self::Year, Self::Month, Self::Day, Self::Hour, Self::Minute, Self::Second, Self::Epoch];

    fn word(self) -> &'static str {
        match self {
            Self::Year => "year",
            Self::Month => "month",
            Self::Day => "day",
            Self::Hour => "hour",
            Self::Minute => "minute",
            Self::Second => "second",
            Self::Epoch => "epoch",
        }
    }

    /// How many digits it has.
    fn digits(self) -> usize {
        match self {
            Self::Year => 4,
            Self::Month | Self::Day | Self::Hour | Self::Minute | Self::Second => 2,
            // Ten digits from 2001 to 2286.
            Self::Epoch => 10,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Any,
    Field(Field),
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing, or too long.
    #[error("a pattern has 1 to 255 bytes, this one has {0}")]
    Length(usize),
    /// A `/` or a control character.
    #[error("a pattern is of a name, not of a path: it holds {0:?}")]
    Character(char),
    /// `{` without `}`.
    #[error("a `{{` is not closed")]
    Open,
    /// A word in braces that is no part of a date.
    #[error("`{{{0}}}` is no part of a date")]
    Unknown(String),
    /// A part of a date that stands twice.
    #[error("`{{{0}}}` stands twice")]
    Twice(&'static str),
    /// A date with a gap.
    #[error("`{{{0}}}` says nothing without `{{{1}}}`")]
    Without(&'static str, &'static str),
    /// `{epoch}` beside another part.
    #[error("`{{epoch}}` is a whole instant: no other part may stand beside it")]
    EpochBeside,
    /// Too many `*`.
    #[error("a pattern has at most 3 `*`")]
    Stars,
    /// `**`.
    #[error("two `*` side by side are one")]
    TwoStars,
}

/// Which names are copies of a set: text, `*` for any text, and `{year} {month} {day} {hour} {minute} {second}` or `{epoch}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    text: String,
    parts: Vec<Part>,
}

/// The digits that a name has where its pattern has parts of a date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    year: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    hour: Option<i64>,
    minute: Option<i64>,
    second: Option<i64>,
    epoch: Option<i64>,
}

/// The instants that a name can mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The first.
    pub earliest: Timestamp,
    /// The last.
    pub latest: Timestamp,
}

impl Pattern {
    /// Reads a pattern.
    pub fn new(text: impl Into<String>) -> Result<Self, PatternError> {
        let text = text.into();
        if text.is_empty() || text.len() > BYTES_MAX {
            return Err(PatternError::Length(text.len()));
        }
        if let Some(wrong) = text.chars().find(|character| *character == '/' || character.is_control()) {
            return Err(PatternError::Character(wrong));
        }
        let mut parts: Vec<Part> = Vec::new();
        let mut rest = text.as_str();
        while let Some(at) = rest.find(['{', '*']) {
            if at > 0 {
                parts.push(Part::Literal(rest[..at].to_owned()));
            }
            if rest[at..].starts_with('*') {
                if parts.last() == Some(&Part::Any) {
                    return Err(PatternError::TwoStars);
                }
                parts.push(Part::Any);
                rest = &rest[at + 1..];
                continue;
            }
            let end = rest[at..].find('}').ok_or(PatternError::Open)?;
            let word = &rest[at + 1..at + end];
            rest = &rest[at + end + 1..];
            // A common spelling for the three parts of a day.
            if word == "date" {
                for (position, field) in [Field::Year, Field::Month, Field::Day].into_iter().enumerate() {
                    if position > 0 {
                        parts.push(Part::Literal("-".to_owned()));
                    }
                    parts.push(Part::Field(field));
                }
                continue;
            }
            let field = Field::ALL
                .into_iter()
                .find(|field| field.word() == word)
                .ok_or_else(|| PatternError::Unknown(word.to_owned()))?;
            parts.push(Part::Field(field));
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        if parts.iter().filter(|part| **part == Part::Any).count() > STARS_MAX {
            return Err(PatternError::Stars);
        }
        let count = |field| parts.iter().filter(|part| **part == Part::Field(field)).count();
        for field in Field::ALL {
            if count(field) > 1 {
                return Err(PatternError::Twice(field.word()));
            }
        }
        if count(Field::Epoch) > 0
            && Field::ALL.into_iter().any(|field| field != Field::Epoch && count(field) > 0)
        {
            return Err(PatternError::EpochBeside);
        }
        // A month and a day are dated together, and a finer part needs the coarser one.
        for (fine, coarse) in [
            (Field::Year, Field::Month),
            (Field::Month, Field::Day),
            (Field::Day, Field::Year),
            (Field::Hour, Field::Day),
            (Field::Minute, Field::Hour),
            (Field::Second, Field::Minute),
        ] {
            if count(fine) > 0 && count(coarse) == 0 {
                return Err(PatternError::Without(fine.word(), coarse.word()));
            }
        }
        Ok(Self { text, parts })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether its names are written by a wall clock, so that a zone is needed to read them.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.parts.contains(&Part::Field(Field::Day))
    }

    /// Whether its names say when.
    #[must_use]
    pub fn is_dated(&self) -> bool {
        self.is_local() || self.parts.contains(&Part::Field(Field::Epoch))
    }

    /// What a name of the set has written where the pattern has a date; `None` for a name that is not of the set.
    ///
    /// Of several ways to read a name the first is taken in which the `*` stand for as little as possible, from the left.
    #[must_use]
    pub fn read(&self, name: &str) -> Option<Written> {
        (name.len() <= BYTES_MAX).then(|| read(&self.parts, name.as_bytes(), Written::default())).flatten()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;
    fn try_from(text: String) -> Result<Self, PatternError> {
        Self::new(text)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.text
    }
}

fn read(parts: &[Part], name: &[u8], written: Written) -> Option<Written> {
    let Some((part, others)) = parts.split_first() else { return name.is_empty().then_some(written) };
    match part {
        Part::Literal(text) => read(others, name.strip_prefix(text.as_bytes())?, written),
        Part::Any => (0..=name.len()).find_map(|taken| read(others, &name[taken..], written)),
        Part::Field(field) => {
            let (digits, rest) = name.split_at_checked(field.digits())?;
            let digits = std::str::from_utf8(digits).ok()?;
            if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            let mut written = written;
            let value = Some(digits.parse().ok()?);
            match field {
                Field::Year => written.year = value,
                Field::Month => written.month = value,
                Field::Day => written.day = value,
                Field::Hour => written.hour = value,
                Field::Minute => written.minute = value,
                Field::Second => written.second = value,
                Field::Epoch => written.epoch = value,
            }
            // Digits that are no date belong to something else; a `*` before them may stand for more.
            written.is_possible().then(|| read(others, rest, written)).flatten()
        }
    }
}

/// The zone of this name, from the table that is part of the program.
#[must_use]
pub fn zone(name: &str) -> Option<TimeZone> {
    TimeZoneDatabase::bundled().get(name).ok()
}

impl Written {
    fn is_possible(self) -> bool {
        let within =
            |value: Option<i64>, least, most| value.is_none_or(|value| (least..=most).contains(&value));
        within(self.year, 1970, 2200)
            && within(self.month, 1, 12)
            && within(self.day, 1, 31)
            && within(self.hour, 0, 23)
            && within(self.minute, 0, 59)
            && within(self.second, 0, 60)
    }

    fn date(self) -> Option<Date> {
        let (year, month, day) = (self.year?, self.month?, self.day?);
        Date::new(i16::try_from(year).ok()?, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()
    }

    /// Whether there is a day of this name, e.g. not a 31st of November.
    #[must_use]
    pub fn is_a_day(self) -> bool {
        self.epoch.is_some() || self.day.is_none() || self.date().is_some()
    }

    /// The instants that it can mean on the wall clock of `zone`; `None` where the name says no date, or none that exists.
    #[must_use]
    pub fn window(self, zone: &TimeZone) -> Option<Window> {
        if let Some(epoch) = self.epoch {
            let at = Timestamp::from_second(epoch).ok()?;
            return Some(Window { earliest: at, latest: at });
        }
        let date = self.date()?;
        let part = |value: Option<i64>, otherwise: i8| -> Option<i8> {
            value.map_or(Some(otherwise), |value| i8::try_from(value.min(59)).ok())
        };
        let first = Time::new(part(self.hour, 0)?, part(self.minute, 0)?, part(self.second, 0)?, 0).ok()?;
        let last = Time::new(part(self.hour, 23)?, part(self.minute, 59)?, part(self.second, 59)?, 0).ok()?;
        Some(Window {
            earliest: on_the_clock(date.to_datetime(first), zone)?.earliest,
            latest: on_the_clock(date.to_datetime(last), zone)?.latest,
        })
    }
}

/// The instants at which the wall clock of `zone` shows `time`: one, or two on the night on which it goes back. A time that
/// it skips means the hour before and after the gap: whoever wrote it had another clock.
#[must_use]
pub fn on_the_clock(time: DateTime, zone: &TimeZone) -> Option<Window> {
    let ambiguous = zone.to_ambiguous_timestamp(time);
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } => {
            let at = ambiguous.unambiguous().ok()?;
            Some(Window { earliest: at, latest: at })
        }
        AmbiguousOffset::Gap { before, after } | AmbiguousOffset::Fold { before, after } => {
            let (one, other) = (before.to_timestamp(time).ok()?, after.to_timestamp(time).ok()?);
            Some(Window { earliest: one.min(other), latest: one.max(other) })
        }
    }
}

/// The instants that a wall clock of an unknown zone can mean: zones lie between 14 hours ahead and 12 behind.
#[must_use]
pub fn on_any_clock(time: DateTime) -> Option<Window> {
    let at = TimeZone::UTC.to_timestamp(time).ok()?;
    Some(Window {
        earliest: at.checked_sub(SignedDuration::from_hours(14)).ok()?,
        latest: at.checked_add(SignedDuration::from_hours(12)).ok()?,
    })
}

/// The pattern that a name seems to be made by: the date in it, where one stands there, as parts.
///
/// `None` for a name that cannot be a pattern (it holds `{`, `*` or is not text).
#[must_use]
pub fn suggest(name: &str) -> Option<Pattern> {
    if name.contains(['{', '*']) {
        return None;
    }
    let bytes = name.as_bytes();
    let number = |at: usize, count: usize| -> Option<i64> {
        let digits = std::str::from_utf8(bytes.get(at..at + count)?).ok()?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
    };
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    for start in 0..bytes.len() {
        if !is_digit(start) || (start > 0 && is_digit(start - 1)) {
            continue;
        }
        let end = (start..).find(|at| !is_digit(*at)).unwrap_or(bytes.len());
        let (before, run) = (&name[..start], end - start);
        // Ten digits from 2001 on, and nothing else of the kind.
        if run == 10
            && number(start, 10).is_some_and(|epoch| (1_000_000_000..=4_000_000_000).contains(&epoch))
        {
            // 2026112902 is a day and an hour as well: a date is likelier.
            if written_at(bytes, start).is_none() {
                return Pattern::new(format!("{before}{{epoch}}{}", &name[end..])).ok();
            }
        }
        if let Some((parts, length)) = written_at(bytes, start) {
            return Pattern::new(format!("{before}{parts}{}", &name[start + length..])).ok();
        }
    }
    Pattern::new(name).ok()
}

/// The date that is written at `start`: as parts of a pattern, and how many bytes it has.
fn written_at(bytes: &[u8], start: usize) -> Option<(String, usize)> {
    let two = |at: usize, least: u8, most: u8| -> bool {
        let (Some(tens), Some(ones)) = (bytes.get(at), bytes.get(at + 1)) else { return false };
        tens.is_ascii_digit()
            && ones.is_ascii_digit()
            && (least..=most).contains(&((tens - b'0') * 10 + ones - b'0'))
    };
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let mut at = start;
    let mut parts = String::from("{year}");
    if !(two(at, 19, 20) && is_digit(at + 2) && is_digit(at + 3)) {
        return None;
    }
    at += 4;
    let separator = bytes.get(at).copied().filter(|byte| b"-_.".contains(byte));
    for (word, most) in [("month", 12), ("day", 31)] {
        if let Some(separator) = separator {
            if bytes.get(at) != Some(&separator) {
                return None;
            }
            parts.push(char::from(separator));
            at += 1;
        }
        if !two(at, 1, most) {
            return None;
        }
        parts.push_str(&format!("{{{word}}}"));
        at += 2;
    }
    let day = (parts.clone(), at - start);
    // A time of day: after one separator, or at once.
    let gap = bytes.get(at).copied().filter(|byte| b"-_.T ".contains(byte));
    let mut time = at + usize::from(gap.is_some());
    if two(time, 0, 23) {
        if let Some(gap) = gap {
            parts.push(char::from(gap));
        }
        parts.push_str("{hour}");
        time += 2;
        let colon = bytes.get(time).copied().filter(|byte| b":-_.h".contains(byte));
        for word in ["minute", "second"] {
            let next = time + usize::from(colon.is_some());
            let is_separated = colon.is_none_or(|colon| bytes.get(time) == Some(&colon));
            if !is_separated || !two(next, 0, 59) {
                break;
            }
            if let Some(colon) = colon {
                parts.push(char::from(colon));
            }
            parts.push_str(&format!("{{{word}}}"));
            time = next + 2;
        }
        if !is_digit(time) && parts.contains("minute") {
            return Some((parts, time - start));
        }
    }
    (!is_digit(start + day.1)).then_some(day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn window(text: &str, name: &str, in_zone: &str) -> Option<(String, String)> {
        let window = pattern(text).read(name)?.window(&zone(in_zone).unwrap())?;
        Some((window.earliest.to_string(), window.latest.to_string()))
    }

    fn pair(one: &str, other: &str) -> Option<(String, String)> {
        Some((one.to_owned(), other.to_owned()))
    }

    #[test]
    fn a_name_means_the_span_that_it_is_written_to() {
        let minute = "shop_db_{year}{month}{day}_{hour}{minute}*.dump.gpg";
        assert_eq!(
            window(minute, "shop_db_20261129_0250-a.dump.gpg", "Europe/Amsterdam"),
            pair("2026-11-29T01:50:00Z", "2026-11-29T01:50:59Z")
        );
        assert_eq!(
            window("shop-{date}*.sql.gz", "shop-2026-11-29.sql.gz", "Europe/Amsterdam"),
            pair("2026-11-28T23:00:00Z", "2026-11-29T22:59:59Z"),
            "a day"
        );
        assert_eq!(
            window("x{epoch}", "x1764380000", "UTC"),
            pair("2025-11-29T01:33:20Z", "2025-11-29T01:33:20Z")
        );
        assert_eq!(window("x-{date}", "x-2026-02-31", "UTC"), None, "there is no such day");
        assert!(pattern("x-{date}").read("x-2026-02-31").is_some_and(|written| !written.is_a_day()));
        assert_eq!(window("latest.dump", "latest.dump", "UTC"), None);
    }

    #[test]
    fn nights_on_which_the_clocks_change_are_read_right() {
        let text = "d{year}{month}{day}{hour}{minute}";
        // 25 October 2026: 02:30 is shown twice.
        assert_eq!(
            window(text, "d202610250230", "Europe/Amsterdam"),
            pair("2026-10-25T00:30:00Z", "2026-10-25T01:30:59Z")
        );
        // 29 March 2026: 02:30 is skipped.
        assert_eq!(
            window(text, "d202603290230", "Europe/Amsterdam"),
            pair("2026-03-29T00:30:00Z", "2026-03-29T01:30:59Z")
        );
        // Such days have 25 and 23 hours.
        for (name, hours) in [("d-2026-10-25", 25), ("d-2026-03-29", 23), ("d-2026-11-29", 24)] {
            let day =
                pattern("d-{date}").read(name).unwrap().window(&zone("Europe/Amsterdam").unwrap()).unwrap();
            assert_eq!(day.latest.duration_since(day.earliest).as_secs() + 1, hours * 3600, "{name}");
        }
        assert_eq!(
            window("d-{date}", "d-2028-02-29", "UTC"),
            pair("2028-02-29T00:00:00Z", "2028-02-29T23:59:59Z"),
            "a leap day"
        );
    }

    #[test]
    fn a_name_of_another_set_is_not_read() {
        let dump = pattern("shop_{year}{month}{day}.dump");
        for other in [
            "shop_20261129.dump.sha256",
            "shop_2026129.dump",
            "xshop_20261129.dump",
            "shop_20261329.dump",
            "",
        ] {
            assert!(dump.read(other).is_none(), "{other}");
        }
        assert!(dump.read(&"x".repeat(4096)).is_none());
        // The star takes as much as it must for the rest to be a date.
        let star = pattern("*{year}{month}{day}.dump");
        assert!(star.read("db1_99999_20261129.dump").is_some());
    }

    #[test]
    fn a_pattern_that_cannot_be_read_is_refused() {
        for (text, wanted) in [
            ("", PatternError::Length(0)),
            ("a/b", PatternError::Character('/')),
            ("{year", PatternError::Open),
            ("{yaer}", PatternError::Unknown("yaer".to_owned())),
            ("{date}{year}", PatternError::Twice("year")),
            ("{year}{month}", PatternError::Without("month", "day")),
            ("{date}{minute}", PatternError::Without("minute", "hour")),
            ("{hour}", PatternError::Without("hour", "day")),
            ("{epoch}{date}", PatternError::EpochBeside),
            ("*a*b*c*", PatternError::Stars),
            ("a**", PatternError::TwoStars),
        ] {
            assert_eq!(Pattern::new(text), Err(wanted), "{text}");
        }
        assert!(pattern("{date}").is_local() && pattern("{epoch}").is_dated());
        assert!(!pattern("{epoch}").is_local() && !pattern("*.dump").is_dated());
    }

    #[test]
    fn a_pattern_is_suggested_from_a_name() {
        for (name, wanted) in [
            (
                "takumi_db_20261129_025001.sql.gz",
                "takumi_db_{year}{month}{day}_{hour}{minute}{second}.sql.gz",
            ),
            ("shop-2026-11-29.dump", "shop-{year}-{month}-{day}.dump"),
            ("shop-2026-11-29T02-50.dump.gpg", "shop-{year}-{month}-{day}T{hour}-{minute}.dump.gpg"),
            ("2026-11-29_02.50.01_x.tar", "{year}-{month}-{day}_{hour}.{minute}.{second}_x.tar"),
            ("x202611290250.dump", "x{year}{month}{day}{hour}{minute}.dump"),
            ("db15-20261129.dump", "db15-{year}{month}{day}.dump"),
            ("x-1764380000.tar", "x-{epoch}.tar"),
            ("latest.dump", "latest.dump"),
            ("v2.10.3.tar", "v2.10.3.tar"),
            ("x-20261129-7.dump", "x-{year}{month}{day}-7.dump"),
        ] {
            let found = suggest(name).unwrap();
            assert_eq!(found.as_str(), wanted, "{name}");
            assert!(found.read(name).is_some(), "{name}");
        }
        assert!(suggest("a{b}").is_none());
    }

    #[test]
    fn a_clock_without_a_zone_means_a_day_and_more() {
        let window = on_any_clock("2026-11-29T12:00:00".parse().unwrap()).unwrap();
        assert_eq!(window.latest.duration_since(window.earliest), SignedDuration::from_hours(26));
    }
}
