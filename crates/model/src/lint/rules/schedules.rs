//! When things happen: clocks that are changed, jobs that meet, frequencies and dates that do not agree.

use std::collections::BTreeMap;
use std::ops::Range;

use jiff::ToSpan as _;
use jiff::civil::Date;
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};

use super::{all, quoted, speaks_of_copies};
use crate::finding::FindingCode;
use crate::lint::read::{Document, Job, Script};
use crate::lint::words::{clocks, dates, is_refusal, place_of_zone, spans};
use crate::lint::{Draft, Out};

pub(super) fn apply(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    clock_changes(text, document, out);
    cleanup_meets_backup(text, document, out);
    lightsail(text, document, out);
    day_counts(text, document, out);
    last_and_next(text, document, out);
    frequencies(text, document, out);
}

/// Years whose changes of clocks are looked at. Rules change seldom, and a fixed span keeps one text's findings the same
/// from day to day.
const YEARS: Range<i16> = 2026..2028;

/// The first civil times at which a zone skips or repeats `hour:minute`: the day that it skips it, and that it repeats it.
fn changes(zone: &TimeZone, hour: i8, minute: i8) -> (Option<Date>, Option<Date>) {
    let (mut skipped, mut repeated) = (None, None);
    let Ok(start) = Date::new(YEARS.start, 1, 1).and_then(|day| day.at(0, 0, 0, 0).to_zoned(TimeZone::UTC))
    else {
        return (None, None);
    };
    // 20: no zone changes its clocks more often in two years; Morocco does it four times in one.
    for change in zone.following(start.timestamp()).take(20) {
        let day = change.timestamp().to_zoned(zone.clone()).date();
        if !YEARS.contains(&day.year()) {
            break;
        }
        // The civil day of the change may be another one before it than after it.
        for day in [day.yesterday().ok(), Some(day), day.tomorrow().ok()].into_iter().flatten() {
            match zone.to_ambiguous_timestamp(day.at(hour, minute, 0, 0)).offset() {
                AmbiguousOffset::Unambiguous { .. } => {}
                AmbiguousOffset::Gap { .. } => skipped = skipped.or(Some(day)),
                AmbiguousOffset::Fold { .. } => repeated = repeated.or(Some(day)),
            }
        }
    }
    (skipped, repeated)
}

/// What happens to a time of day in a zone. Each is looked up once for all texts: to read a zone's rules takes longer than
/// to read a page.
fn change_words(out: &mut Out<'_>, zone: &str, hour: i8, minute: i8) -> Option<String> {
    let key = (zone.to_owned(), hour, minute);
    if let Some(known) = out.clock_changes.get(&key) {
        return known.clone();
    }
    // 5,000: more than anybody has schedules; then a text is made to hurt.
    if out.clock_changes.len() >= 5000 {
        return None;
    }
    let words = look_up(zone, hour, minute);
    out.clock_changes.insert(key, words.clone());
    words
}

fn look_up(zone: &str, hour: i8, minute: i8) -> Option<String> {
    let place = place_of_zone(zone)?;
    let (skipped, repeated) = changes(&TimeZoneDatabase::bundled().get(place).ok()?, hour, minute);
    let words = match (skipped, repeated) {
        (Some(skipped), Some(repeated)) => format!(
            "{hour:02}:{minute:02} does not exist on {skipped} and comes twice on {repeated} in {place}"
        ),
        (Some(skipped), None) => format!("{hour:02}:{minute:02} does not exist on {skipped} in {place}"),
        (None, Some(repeated)) => format!("{hour:02}:{minute:02} comes twice on {repeated} in {place}"),
        (None, None) => return None,
    };
    Some(words)
}

fn clock_changes(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    const FIX: &str = "write the time in UTC, or move it out of that hour; seaworthy's schedules name a zone, run a skipped time right after the gap and a repeated one once";
    let mut found: Vec<((i8, i8, String), Draft)> = Vec::new();
    for index in document.prose_lines() {
        let lower = document.lower(index);
        if !["daily", "schedule", "nightly", "weekly", "every", "backup", "cron", "runs at", "each"]
            .iter()
            .any(|word| lower.contains(word))
        {
            continue;
        }
        let start = document.lines.get(index).map_or(0, |line| line.span.start);
        for clock in clocks(document.line(index)) {
            let Some(zone) = clock.zone.clone() else { continue };
            let span = start + clock.span.start..start + clock.span.end;
            let key = (clock.hour, clock.minute, zone.clone());
            if let Some(position) = found.iter().position(|(other, _)| *other == key) {
                let (key, draft) = found.swap_remove(position);
                found.push((key, draft.with(text, span, "")));
            } else if let Some(words) = change_words(out, &zone, clock.hour, clock.minute) {
                let draft = Draft::new(FindingCode::LintClockChange, text, span, zone)
                    .says("what is scheduled here is skipped or done twice when the clocks change")
                    .because(words)
                    .mend(FIX);
                found.push((key, draft));
            }
        }
    }
    for (_, draft) in found {
        draft.report(out);
    }
    for job in document.jobs.iter().take(1000) {
        let Some(zone) = job.zone.as_deref() else { continue };
        let (Ok(minute), Ok(hour)) = (job.fields[0].parse(), job.fields[1].parse()) else { continue };
        if let Some(words) = change_words(out, zone, hour, minute) {
            Draft::new(FindingCode::LintClockChange, text, job.span.clone(), zone)
                .says("this job is skipped or run twice when the clocks change")
                .because(words)
                .mend(FIX)
                .report(out);
        }
    }
}

/// A claim of a time: which work, at which time.
struct Said {
    span: Range<usize>,
    minute_of_day: i32,
    is_cleanup: bool,
    what: String,
}

/// The end of what stands before a time: a clause is no longer than 200 bytes, and a line may be a megabyte.
fn tail(before: &str) -> &str {
    let mut from = before.len().saturating_sub(200);
    while !before.is_char_boundary(from) {
        from += 1;
    }
    before.get(from..).unwrap_or_default()
}

/// In one text: the cleanup at the time of a backup.
fn cleanup_meets_backup(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    const CLEANUP: [&str; 7] =
        ["cleanup", "clean up", "clean-up", "prune", "expire", "retention job", "delete old"];
    const WORK: [&str; 9] =
        ["files", "file backup", "database", "pg_dump", "borg", "restic", "backup", "dump", "snapshot"];
    let mut said: Vec<Said> = Vec::new();
    for index in document.prose_lines() {
        let line = document.line(index);
        let start = document.lines.get(index).map_or(0, |line| line.span.start);
        // 1,000: a table of a year; more would cost their square below.
        for clock in clocks(line) {
            if said.len() >= 1000 {
                break;
            }
            // What the time is of stands before it, up to the comma before.
            let before = tail(document.lower(index).get(..clock.span.start).unwrap_or_default());
            let clause = before.rsplit([',', ';', '.', '(']).next().unwrap_or(before);
            if is_refusal(clause) {
                continue;
            }
            let is_cleanup = CLEANUP.iter().any(|word| clause.contains(word));
            let is_work = !is_cleanup && WORK.iter().any(|word| clause.contains(word));
            if is_cleanup || is_work {
                let minute_of_day = i32::from(clock.hour) * 60 + i32::from(clock.minute);
                let what = WORK.iter().find(|word| clause.contains(*word)).copied().unwrap_or("backup");
                said.push(Said {
                    span: start + clock.span.start..start + clock.span.end,
                    minute_of_day,
                    is_cleanup,
                    what: what.to_owned(),
                });
            }
        }
    }
    for cleanup in said.iter().filter(|said| said.is_cleanup) {
        let mut met =
            said.iter().filter(|other| !other.is_cleanup && other.minute_of_day == cleanup.minute_of_day);
        if let Some(first) = met.next() {
            let mut draft = Draft::new(FindingCode::LintJobsCollide, text, cleanup.span.clone(), "cleanup")
                .says(format!("the cleanup begins at the time of the backup of {}", first.what))
                .because("a repository that is being pruned is locked, so one of the two fails or waits; and what is deleted may be what a backup is about to build on")
                .mend("let the cleanup follow the backup, in the same job")
                .with(text, first.span.clone(), format!("{} at the same time", first.what));
            for other in met {
                draft = draft.with(text, other.span.clone(), format!("{} at the same time", other.what));
            }
            draft.report(out);
        }
    }
}

/// The repository or the directory that a script's calls work on.
fn targets(script: &Script) -> Vec<String> {
    let mut targets = Vec::new();
    for call in &script.calls {
        match call.program.as_str() {
            "borg" => targets.extend(
                call.words
                    .iter()
                    .filter(|word| word.text.contains("::") || word.text.starts_with('/'))
                    .take(1)
                    .map(|word| word.text.split("::").next().unwrap_or_default().to_owned()),
            ),
            "restic" => targets.extend(call.value(&["--repo"], Some('r'), "rpof")),
            _ => targets.extend(
                call.words
                    .iter()
                    .filter(|word| word.text.starts_with('/') && speaks_of_copies(&word.text))
                    .map(|word| word.text.clone()),
            ),
        }
    }
    targets.retain(|target| !target.is_empty() && !target.contains(".log"));
    targets
}

/// A job of one minute: its text, itself, what it works on.
type Timed<'d> = (usize, &'d Job, Vec<String>);

/// Between all crontabs: two jobs of one time on one target.
pub(super) fn between(documents: &[Document<'_>], out: &mut Out<'_>) {
    // By time first, so that only jobs of one time are compared.
    let mut jobs: BTreeMap<(String, String), Vec<Timed<'_>>> = BTreeMap::new();
    for (text, document) in documents.iter().enumerate() {
        for job in &document.jobs {
            let Some(script) = job.script.and_then(|script| document.scripts.get(script)) else { continue };
            let is_fixed = job.fields[0].chars().all(|c| c.is_ascii_digit())
                && job.fields[1].chars().all(|c| c.is_ascii_digit());
            let list = jobs.entry((job.fields[0].clone(), job.fields[1].clone())).or_default();
            // 100: nobody has more jobs at one minute, and they are compared with each other.
            if is_fixed && list.len() < 100 {
                list.push((text, job, targets(script)));
            }
        }
    }
    for list in jobs.values() {
        for (position, (text, job, target)) in list.iter().enumerate() {
            for (other_text, other, other_target) in list.iter().take(position) {
                let days_meet = (2..5).all(|field| {
                    let (a, b) = (job.fields[field].as_str(), other.fields[field].as_str());
                    a == "*" || b == "*" || a == b
                });
                let shared = target.iter().find(|one| other_target.contains(one));
                if let Some(shared) = shared.filter(|_| days_meet && job.zone == other.zone) {
                    Draft::new(FindingCode::LintJobsCollide, *text, job.span.clone(), shared)
                        .says(format!("two jobs begin at the same minute on {}", quoted(shared)))
                        .because("one of them finds it locked and fails, or both change it at once")
                        .mend("put both into one job, one after the other; or take a lock: flock FILE …")
                        .with(*other_text, other.span.clone(), "the other job")
                        .report(out);
                }
            }
        }
    }
}

fn lightsail(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    let draft = |span: Range<usize>, hour: i8| {
        Draft::new(FindingCode::LintProviderTime, text, span, "Lightsail")
            .says("Lightsail takes automatic snapshots at full hours only")
            .because("its API documents the time of day as \"HH:00\", an hourly increment in UTC; a snapshot begins within 45 minutes after it")
            .mend(format!("write {hour:02}:00 or {:02}:00 (UTC)", (hour + 1) % 24))
    };
    for index in document.prose_lines() {
        let lower = document.lower(index);
        if !lower.contains("lightsail") || !lower.contains("snapshot") || is_refusal(lower) {
            continue;
        }
        let start = document.lines.get(index).map_or(0, |line| line.span.start);
        if let Some(clock) = clocks(document.line(index)).into_iter().find(|clock| clock.minute != 0) {
            draft(start + clock.span.start..start + clock.span.end, clock.hour).report(out);
        }
    }
    for (_, _, _, call) in all(document) {
        if !call.is(&["aws"]) || !call.says(&["lightsail"]) {
            continue;
        }
        let word =
            call.words.iter().find(|word| word.text.to_ascii_lowercase().contains("snapshottimeofday"));
        if let Some((word, clock)) = word.and_then(|word| {
            clocks(&word.text.replace("=", " "))
                .into_iter()
                .find(|clock| clock.minute != 0)
                .map(|clock| (word, clock))
        }) {
            draft(word.span.clone(), clock.hour).report(out);
        }
    }
}

/// `Next test: DATE (90 days from …)`, with the other date beside it or in the lines before.
fn day_counts(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    // 4: a list of facts about one event.
    const BACK: usize = 4;
    let mut earlier: Vec<(usize, Range<usize>, Date)> = Vec::new();
    for index in document.prose_lines() {
        let line = document.line(index);
        let start = document.lines.get(index).map_or(0, |line| line.span.start);
        let here = dates(line);
        let lower = document.lower(index);
        let days: Vec<u64> = spans(lower)
            .into_iter()
            .filter(|(span, _)| {
                lower.get(span.clone()).is_some_and(|unit| unit.ends_with("day") || unit.ends_with("days"))
            })
            .map(|(_, seconds)| seconds / 86_400)
            .collect();
        let is_due =
            ["next", "due", "until", "expires", "follow-up", "valid"].iter().any(|word| lower.contains(word));
        if let ([(span, date)], [count], true) = (here.as_slice(), days.as_slice(), is_due) {
            let from = earlier.iter().rev().find(|(line, _, _)| *line + BACK >= index);
            let expected = from.and_then(|(_, _, from)| {
                from.checked_add(i64::try_from(*count).ok()?.min(100_000).days()).ok()
            });
            if let (Some((_, place, from)), Some(expected)) = (from, expected)
                && expected != *date
                && date > from
            {
                Draft::new(
                    FindingCode::LintDateArithmetic,
                    text,
                    start + span.start..start + span.end,
                    "dates",
                )
                .says(format!("{date} is not {count} days after {from}: that is {expected}"))
                .because("days are counted here, not months; a quarter has 90 to 92")
                .mend(format!("write {expected}, or say \"quarterly\" and mean the calendar"))
                .with(text, place.clone(), format!("{from} is counted from"))
                .report(out);
            }
        }
        earlier
            .extend(here.into_iter().map(|(span, date)| (index, start + span.start..start + span.end, date)));
        if earlier.len() > 64 {
            earlier.drain(..32);
        }
    }
}

/// Two dates of the last (or next) of the same thing.
fn last_and_next(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    for which in ["last", "next"] {
        for thing in ["drill", "restore test", "recertification"] {
            let mut first: Option<(Range<usize>, Date)> = None;
            let mut heading_line = None;
            for index in document.prose_lines() {
                let lower = document.lower(index);
                let names = lower.find(which).is_some_and(|at| {
                    let rest = lower.get(at..).unwrap_or_default();
                    rest.find(thing).is_some_and(|distance| distance <= 24)
                }) && !lower.contains("annual")
                    && !lower.contains("yearly");
                let is_heading = document.lines.get(index).is_some_and(|line| line.is_heading);
                if is_heading {
                    heading_line = names.then_some(index);
                }
                // Under a heading that names it, the line that says `Date:`.
                let is_dated = heading_line.is_some_and(|heading| index <= heading + 4)
                    && lower.trim_start_matches(['-', '*', ' ']).starts_with("date");
                if is_heading || !(names || is_dated) {
                    continue;
                }
                let start = document.lines.get(index).map_or(0, |line| line.span.start);
                let found = dates(document.line(index));
                let [(span, date)] = found.as_slice() else { continue };
                let place = start + span.start..start + span.end;
                match &first {
                    None => first = Some((place, *date)),
                    Some((other, earlier)) if earlier != date => {
                        Draft::new(FindingCode::LintDateArithmetic, text, place, format!("{which} {thing}"))
                            .says(format!("the {which} {thing} is on {date} here and on {earlier} elsewhere in this text"))
                            .because("what is typed twice is kept up once")
                            .mend("say it in one place; seaworthy status and seaworthy drill list say it from receipts")
                            .with(text, other.clone(), format!("{earlier} here"))
                            .report(out);
                        break;
                    }
                    Some(_) => {}
                }
            }
        }
    }
}

/// How often, in days: of a heading or of a line that says it.
fn frequency(lower: &str) -> Option<(u32, &'static str)> {
    let words: [(&str, u32, &str); 14] = [
        ("every day", 1, "daily"),
        ("daily", 1, "daily"),
        ("every week", 7, "weekly"),
        ("weekly", 7, "weekly"),
        ("of each month", 30, "monthly"),
        ("of every month", 30, "monthly"),
        ("every month", 30, "monthly"),
        ("monthly", 30, "monthly"),
        ("every 90 days", 90, "every 90 days"),
        ("quarterly", 90, "quarterly"),
        ("every quarter", 90, "quarterly"),
        ("every 30 days", 30, "every 30 days"),
        ("annually", 365, "annually"),
        ("every year", 365, "annually"),
    ];
    let mut found = words.iter().filter(|(word, _, _)| crate::lint::words::has_word(lower, word));
    let first = found.next()?;
    // Two frequencies in one line are a list of them, not a claim.
    found.all(|(_, days, _)| *days == first.1).then_some((first.1, first.2))
}

/// Two headings about drills with two frequencies.
fn frequencies(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    let is_drill = |lower: &str| {
        lower.contains("drill")
            && !["next", "last", "history", "type", "tabletop", "partial", "full"]
                .iter()
                .any(|word| lower.contains(word))
    };
    let mut first: Option<(u32, &'static str, Range<usize>)> = None;
    for index in document.prose_lines() {
        let lower = document.lower(index);
        let is_heading = document.lines.get(index).is_some_and(|line| line.is_heading);
        let said = if is_heading {
            frequency(lower).filter(|_| is_drill(lower))
        } else {
            let label = lower.trim_start_matches(['-', '*', ' ', '_']);
            let is_label = ["frequency", "schedule"].iter().any(|word| {
                label.strip_prefix(word).is_some_and(|rest| rest.trim_start_matches('*').starts_with(':'))
            });
            frequency(lower).filter(|_| {
                is_label && !lower.trim_start().starts_with('|') && is_drill(document.heading(index))
            })
        };
        let Some((days, words)) = said else { continue };
        let start = document.lines.get(index).map_or(0, |line| line.span.start);
        let span = start..start + document.line(index).trim_end().len();
        match &first {
            None => first = Some((days, words, span)),
            Some((other, other_words, place)) if *other != days => {
                Draft::new(FindingCode::LintTwoFrequencies, text, span, "drills")
                    .says(format!("drills are {words} here and {other_words} elsewhere in this text"))
                    .because(
                        "two duties are two promises to an auditor, and one of them is broken every time",
                    )
                    .mend(
                        "decide for one, and write it once: [services.NAME.drill] schedule in seaworthy.toml",
                    )
                    .with(text, place.clone(), format!("{other_words} here"))
                    .report(out);
                return;
            }
            Some(_) => {}
        }
    }
}
