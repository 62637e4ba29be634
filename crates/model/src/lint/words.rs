//! What words claim: times of day, dates, spans of time, regions; and whether a sentence claims or refuses something.

use std::ops::Range;

use jiff::civil::Date;

/// Whether a sentence (in lower case) speaks against what it mentions: such a mention is no instruction.
pub(super) fn is_refusal(lower: &str) -> bool {
    const WORDS: [&str; 32] = [
        " not ",
        "never",
        "n't ",
        "n’t ",
        "avoid",
        "instead of",
        "rather than",
        "no longer",
        "wrong",
        "deprecated",
        "removed in",
        "was removed",
        "forbid",
        "anti-pattern",
        "❌",
        "✗",
        "refuse",
        "fails",
        "reject",
        "must not",
        "obsolete",
        "cannot",
        "without ",
        "unsafe",
        "dangerous",
        "mistake",
        "is no ",
        "are no ",
        "beware",
        "broken",
        "warning",
        "replaced by",
    ];
    WORDS.iter().any(|word| lower.contains(word)) || lower.trim_start().starts_with("not ")
}

/// Whether a word stands in a text with no letter or digit beside it.
pub(super) fn has_word(lower: &str, word: &str) -> bool {
    find_word(lower, word).is_some()
}

/// Where a word stands with no letter or digit beside it.
pub(super) fn find_word(lower: &str, word: &str) -> Option<usize> {
    lower.match_indices(word).map(|(at, _)| at).find(|at| {
        let before = lower.get(..*at).and_then(|before| before.chars().next_back());
        let after = lower.get(at + word.len()..).and_then(|after| after.chars().next());
        !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
    })
}

/// A time of day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clock {
    /// Where it stands.
    pub(super) span: Range<usize>,
    /// Hour, 0 to 23.
    pub(super) hour: i8,
    /// Minute.
    pub(super) minute: i8,
    /// The zone behind it, as written.
    pub(super) zone: Option<String>,
}

/// The times of day in a line: `2am`, `1:30 am`, `02:00`, `06:30 UTC`. A time with seconds or behind a date's `T` is an
/// instant of something that was, and is left out.
pub(super) fn clocks(line: &str) -> Vec<Clock> {
    let bytes = line.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if !bytes[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        let start = at;
        let hours = digits(bytes, &mut at);
        let before = start.checked_sub(1).and_then(|before| bytes.get(before)).copied().unwrap_or(b' ');
        let is_inside =
            before.is_ascii_alphanumeric() || matches!(before, b':' | b'.' | b'-' | b'_' | b'/' | b'$');
        let mut minute = None;
        if bytes.get(at) == Some(&b':') && bytes.get(at + 1).is_some_and(u8::is_ascii_digit) {
            let mut next = at + 1;
            let minutes = digits(bytes, &mut next);
            if next - at == 3 {
                minute = Some(minutes);
            }
            at = next;
            if bytes.get(at) == Some(&b':') {
                // With seconds.
                while bytes.get(at).is_some_and(|byte| byte.is_ascii_digit() || *byte == b':') {
                    at += 1;
                }
                continue;
            }
        }
        if is_inside || hours > 24 || minute.is_some_and(|minute| minute > 59) {
            continue;
        }
        let rest = line.get(at..).unwrap_or_default();
        let gap = rest.len() - rest.trim_start_matches(' ').len();
        let lower = rest.trim_start_matches(' ').get(..2).unwrap_or_default().to_ascii_lowercase();
        let ends_there = |length: usize| {
            !rest.get(gap + length..).and_then(|rest| rest.chars().next()).is_some_and(char::is_alphanumeric)
        };
        let half = match lower.as_str() {
            "am" if gap <= 1 && ends_there(2) => Some(0),
            "pm" if gap <= 1 && ends_there(2) => Some(12),
            _ => None,
        };
        let hour = match (half, minute) {
            (Some(_), _) if hours == 0 || hours > 12 => continue,
            (Some(half), _) => hours % 12 + half,
            (None, Some(_)) if hours < 24 => hours,
            _ => continue,
        };
        if half.is_some() {
            at += gap + 2;
        }
        let (Ok(hour), Ok(minute)) = (i8::try_from(hour), i8::try_from(minute.unwrap_or(0))) else {
            continue;
        };
        let zone = zone_after(line.get(at..).unwrap_or_default());
        found.push(Clock { span: start..at, hour, minute, zone });
    }
    found
}

fn digits(bytes: &[u8], at: &mut usize) -> u32 {
    let mut value = 0_u32;
    while let Some(digit) = bytes.get(*at).filter(|byte| byte.is_ascii_digit()) {
        value = value.saturating_mul(10).saturating_add(u32::from(digit - b'0'));
        *at += 1;
    }
    value
}

/// The zone that stands right behind a time: `CET`, `(UTC)`, `Europe/Berlin`.
fn zone_after(rest: &str) -> Option<String> {
    let word: String = rest
        .trim_start_matches([' ', '('])
        .chars()
        .take(40)
        .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '_'))
        .collect();
    (place_of_zone(&word).is_some() || word == "UTC" || word == "GMT").then_some(word)
}

/// The IANA zone whose clocks people mean by a word; `None` for one that is none, or has no changes of clocks.
pub(super) fn place_of_zone(word: &str) -> Option<&str> {
    Some(match word {
        "CET" | "CEST" | "MEZ" | "MESZ" => "Europe/Berlin",
        "EET" | "EEST" => "Europe/Athens",
        "WET" | "WEST" => "Europe/Lisbon",
        "BST" => "Europe/London",
        "EST" | "EDT" | "ET" => "America/New_York",
        "CST" | "CDT" => "America/Chicago",
        "MDT" | "MST" => "America/Denver",
        "PST" | "PDT" | "PT" => "America/Los_Angeles",
        place if place.contains('/') && place.starts_with(|c: char| c.is_ascii_uppercase()) => place,
        _ => return None,
    })
}

/// Dates in a line, ISO (`2026-02-25`) or in English (`February 24, 2026`, `24 February 2026`).
pub(super) fn dates(line: &str) -> Vec<(Range<usize>, Date)> {
    let mut found = Vec::new();
    let bytes = line.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at].is_ascii_digit() {
            let start = at;
            let mut end = at;
            let year = digits(bytes, &mut end);
            let is_free = start.checked_sub(1).and_then(|before| bytes.get(before)).is_none_or(|before| {
                !before.is_ascii_alphanumeric() && !matches!(before, b'_' | b'-' | b'/')
            });
            if end - start == 4 && is_free && bytes.get(end) == Some(&b'-') {
                let mut next = end + 1;
                let month = digits(bytes, &mut next);
                if bytes.get(next) == Some(&b'-') {
                    let mut last = next + 1;
                    let day = digits(bytes, &mut last);
                    if next - end == 3
                        && last - next == 3
                        && let Some(date) = date(year, month, day)
                    {
                        found.push((start..last, date));
                    }
                    end = last;
                }
            }
            at = end.max(at + 1);
        } else if bytes[at].is_ascii_uppercase() {
            let start = at;
            while bytes.get(at).is_some_and(u8::is_ascii_alphabetic) {
                at += 1;
            }
            let Some(month) = line.get(start..at).and_then(month_of) else { continue };
            let mut next = at;
            while bytes.get(next) == Some(&b' ') {
                next += 1;
            }
            let first = digits(bytes, &mut next);
            if first == 0 {
                continue;
            }
            if bytes.get(next) == Some(&b',') {
                next += 1;
            }
            let (before_year, mut end) = (next, next);
            while bytes.get(end) == Some(&b' ') {
                end += 1;
            }
            let second = digits(bytes, &mut end);
            if end > before_year
                && second >= 1900
                && let Some(date) = date(second, month, first)
            {
                found.push((start..end, date));
                at = end;
            } else if first >= 1900
                && let Some((day_start, day)) = day_before(line, start)
                && let Some(date) = date(first, month, day)
            {
                found.push((day_start..next, date));
                at = next;
            }
        } else {
            at += 1;
        }
    }
    found
}

fn day_before(line: &str, at: usize) -> Option<(usize, u32)> {
    let before = line.get(..at)?.trim_end_matches(' ');
    let start = before.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    before.get(start..)?.parse().ok().map(|day| (start, day))
}

fn date(year: u32, month: u32, day: u32) -> Option<Date> {
    Date::new(i16::try_from(year).ok()?, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()
}

fn month_of(word: &str) -> Option<u32> {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    // `May` is also a word; with a day and a year behind it, it is a month.
    let index =
        MONTHS.iter().position(|month| *month == word || (word.len() == 3 && month.starts_with(word)))?;
    u32::try_from(index + 1).ok()
}

/// Spans of time in a line (lower case), in seconds: `< 1 hour`, `30-45 minutes` (its end), `24h`, `8 seconds`, `90 days`.
pub(super) fn spans(lower: &str) -> Vec<(Range<usize>, u64)> {
    const UNITS: [(&str, u64); 16] = [
        ("seconds", 1),
        ("second", 1),
        ("secs", 1),
        ("sec", 1),
        ("minutes", 60),
        ("minute", 60),
        ("mins", 60),
        ("min", 60),
        ("hours", 3600),
        ("hour", 3600),
        ("hrs", 3600),
        ("days", 86_400),
        ("day", 86_400),
        ("h", 3600),
        ("m", 60),
        ("s", 1),
    ];
    let bytes = lower.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if !bytes[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        let start = at;
        let number = u64::from(digits(bytes, &mut at));
        let before = start.checked_sub(1).and_then(|before| bytes.get(before)).copied().unwrap_or(b' ');
        if before.is_ascii_alphanumeric() || matches!(before, b'.' | b':' | b'_') {
            continue;
        }
        let rest = lower.get(at..).unwrap_or_default();
        let gap = rest.len() - rest.trim_start_matches([' ', '-']).len();
        let word = rest.get(gap..).unwrap_or_default();
        let unit = UNITS.iter().find(|(unit, _)| {
            gap <= 1
                && word
                    .strip_prefix(unit)
                    .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
                && (unit.len() > 1 || gap == 0)
        });
        if let Some((unit, seconds)) = unit {
            at += gap + unit.len();
            found.push((start..at, number.saturating_mul(*seconds)));
        }
    }
    found
}

/// Regions of providers outside the European Union, as words of a line in lower case.
pub(super) fn foreign_regions(lower: &str) -> Vec<Range<usize>> {
    const AMAZON: [&str; 8] = ["us-", "ap-", "ca-", "sa-", "af-", "me-", "il-", "mx-"];
    const AZURE: [&str; 12] = [
        "eastus",
        "eastus2",
        "westus",
        "westus2",
        "westus3",
        "centralus",
        "southcentralus",
        "northcentralus",
        "eastasia",
        "southeastasia",
        "japaneast",
        "uksouth",
    ];
    let mut found = Vec::new();
    let mut at = 0;
    for word in lower.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')) {
        let span = at..at + word.len();
        at = span.end;
        // Separators are one byte here or more; find where the next word begins.
        let is_amazon = AMAZON.iter().any(|start| word.starts_with(start)) && {
            let parts: Vec<&str> = word.split('-').collect();
            parts.len() >= 3
                && parts
                    .last()
                    .is_some_and(|last| last.len() == 1 && last.chars().all(|c| c.is_ascii_digit()))
                && parts.iter().any(|part| {
                    ["east", "west", "north", "south", "central", "northeast", "southeast"].contains(part)
                })
        };
        let is_google = ["us-", "asia-", "australia-", "northamerica-", "southamerica-", "me-", "africa-"]
            .iter()
            .any(|start| word.starts_with(start))
            && word.ends_with(|c: char| c.is_ascii_digit())
            && ["east", "west", "central", "north", "south"].iter().any(|part| word.contains(part));
        if is_amazon || is_google || AZURE.contains(&word) {
            found.push(span.clone());
        }
        at += lower.get(at..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
    }
    found
}

/// The cells of a row of a table: where each stands in the line, blanks left out. `None` for a line that is no row, or that
/// only draws a rule.
pub(super) fn cells(line: &str) -> Option<Vec<Range<usize>>> {
    let trimmed = line.trim();
    if !trimmed.starts_with('|') || trimmed.len() < 3 {
        return None;
    }
    if trimmed.chars().all(|c| matches!(c, '|' | '-' | ':' | ' ' | '+')) {
        return None;
    }
    let mut cells = Vec::new();
    let mut at = line.find('|')? + 1;
    let end = line.trim_end().len();
    let body = line.get(at..end)?.strip_suffix('|').unwrap_or(line.get(at..end)?);
    for piece in body.split('|') {
        let lead = piece.len() - piece.trim_start().len();
        let length = piece.trim().len();
        cells.push(at + lead..at + lead + length);
        at += piece.len() + 1;
    }
    Some(cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_day_are_told_from_instants_and_ports() {
        let read = |line: &str| -> Vec<(i8, i8, Option<String>)> {
            clocks(line).into_iter().map(|clock| (clock.hour, clock.minute, clock.zone)).collect()
        };
        assert_eq!(read("daily at 1:30am CET"), [(1, 30, Some("CET".to_owned()))]);
        assert_eq!(read("2am CET, files 3 AM"), [(2, 0, Some("CET".to_owned())), (3, 0, None)]);
        assert_eq!(
            read("at 06:30 UTC daily, 12pm, 12 am"),
            [(6, 30, Some("UTC".to_owned())), (12, 0, None), (0, 0, None)]
        );
        for nothing in [
            "11:28:22 UTC",
            "2024-01-15T14:00:00Z",
            "localhost:3001",
            "127.0.0.1:80",
            "postgres:15",
            "v2.30",
            "ratio 3:2:1",
            "13am",
        ] {
            assert!(clocks(nothing).is_empty(), "{nothing}: {:?}", clocks(nothing));
        }
    }

    #[test]
    fn dates_are_read_in_both_ways() {
        let read = |line: &str| -> Vec<String> {
            dates(line).into_iter().map(|(_, date)| date.to_string()).collect()
        };
        assert_eq!(read("from 2025-11-25 to February 24, 2026"), ["2025-11-25", "2026-02-24"]);
        assert_eq!(read("on 24 February 2026 and Nov 26, 2025"), ["2026-02-24", "2025-11-26"]);
        for nothing in ["2026-02-31", "dr_2025-11-25", "20251125", "May 2026", "v1-2026-01-02", "March on"] {
            assert!(dates(nothing).is_empty(), "{nothing}");
        }
    }

    #[test]
    fn spans_of_time_have_units() {
        let read = |line: &str| -> Vec<u64> { spans(line).into_iter().map(|(_, span)| span).collect() };
        assert_eq!(read("< 1 hour, 30-45 minutes, 24h, 8 seconds"), [3600, 45 * 60, 86_400, 8]);
        assert!(read("3 masters, v2h, 5 %").is_empty());
    }

    #[test]
    fn regions_outside_the_union_are_known() {
        let read = |line: &str| -> Vec<String> {
            foreign_regions(line).into_iter().map(|span| line.get(span).unwrap().to_owned()).collect()
        };
        assert_eq!(
            read("s3_region=us-east-1  # us-west-2, asia-east1"),
            ["us-east-1", "us-west-2", "asia-east1"]
        );
        assert!(read("eu-west-1, nl-ams1, us-only, me-and-you, europe-west4, use-east-1").is_empty());
    }

    #[test]
    fn cells_know_their_places() {
        let row = "| WAL | local |";
        let found = cells(row).unwrap();
        assert_eq!(found.iter().map(|cell| &row[cell.clone()]).collect::<Vec<_>>(), ["WAL", "local"]);
        assert!(cells("|---|:-:|").is_none() && cells("no row").is_none());
    }
}
