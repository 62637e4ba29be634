//! Judgements of a set: which copy is the newest, how old it is, whether its size and the digest beside it fit.
//!
//! A name can be given to anything, and a time of modification can be set to anything. What a dump says of itself outranks
//! its name, its name outranks the file's times, and where two of them contradict each other that is said. Of two readings
//! the older one is taken.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::pattern::{self, Window};
use super::recognise::DumpHead;
use super::{AdoptedSet, SidecarRule};
use crate::finding::{Finding, FindingCode};
use crate::receipt::CLOCK_STEP;
use crate::verdict::{CheckOutcome, CheckReport};

/// How far a name may be from the instant at which its dump began: scripts take the date before a long dump or after it, and some
/// run around midnight. Less than the shortest usual pause between two copies of one name, a day, by far.
const NAMING_SLACK: SignedDuration = SignedDuration::from_hours(6);
/// Share of the median size, in percent, below which the newest copy is smaller than usual.
const SMALL_PERCENT: u64 = 40;
/// Copies that make a median.
const MEDIAN_OF: usize = 30;
/// Fewest copies that one more can be compared with.
const MEDIAN_MIN: usize = 3;

/// A copy as it lies in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lying {
    /// Its name.
    pub name: String,
    /// Bytes; of a directory, of all its files.
    pub size: u64,
    /// When the file was last written, by the clock of whoever wrote it.
    pub modified: Timestamp,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// Whether a `NAME.sha256` lies beside it.
    pub has_sidecar: bool,
}

/// What an instant rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatedBy {
    /// What the dump says of itself.
    Content,
    /// The name.
    Name,
    /// The file's time of modification.
    FileTime,
}

impl DatedBy {
    /// For people: `by its content`.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Content => "by what the dump says of itself",
            Self::Name => "by its name",
            Self::FileTime => "by the file's time only",
        }
    }
}

/// When a copy is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dated {
    /// The instant; of several readings the cautious one.
    pub at: Timestamp,
    /// What it rests on.
    pub by: DatedBy,
    /// What contradicts it.
    pub findings: Vec<Finding>,
}

/// The set's zone, where it names one.
#[must_use]
pub fn zone_of(set: &AdoptedSet) -> Option<TimeZone> {
    set.zone.as_deref().and_then(pattern::zone)
}

/// The instants that a name of the set can mean; `None` where it says none.
#[must_use]
pub fn named(set: &AdoptedSet, name: &str) -> Option<Window> {
    let written = set.pattern.read(name)?;
    written.window(&zone_of(set).unwrap_or(TimeZone::UTC))
}

/// Dates a copy by its name, its content as far as that is known, and as a last resort the file's time.
#[must_use]
pub fn dated(set: &AdoptedSet, copy: &Lying, content: Option<&DumpHead>) -> Dated {
    let mut findings = Vec::new();
    let mut add = |code, detail: String| findings.push(Finding::new(code, copy.name.clone(), detail));
    let name = named(set, &copy.name);
    if set.pattern.is_dated() && name.is_none() {
        add(FindingCode::DateDoubtful, "its name is of a day that does not exist".to_owned());
    }
    let created = content.and_then(|head| head.created);
    let content = created.and_then(|created| match zone_of(set) {
        Some(zone) => pattern::on_the_clock(created, &zone),
        None => pattern::on_any_clock(created),
    });
    let (at, by) = match (name, content) {
        (Some(name), Some(content)) => {
            let before = name.earliest.duration_since(content.latest);
            let after = content.earliest.duration_since(name.latest);
            if before > NAMING_SLACK {
                add(
                    FindingCode::PointRolledBack,
                    format!(
                        "its name says {}, the dump itself was begun {} before that, at {}",
                        whole(name.earliest),
                        hours(before),
                        whole(content.latest)
                    ),
                );
            } else if after > NAMING_SLACK {
                add(
                    FindingCode::DateDoubtful,
                    format!(
                        "its name says {}, the dump itself was begun {} after that, at {}",
                        whole(name.latest),
                        hours(after),
                        whole(content.earliest)
                    ),
                );
            }
            // Where the dump's clock has no zone, its name narrows what it can mean.
            let at = content.earliest.max(name.earliest.min(content.latest));
            (at, DatedBy::Content)
        }
        (None, Some(content)) => (content.earliest, DatedBy::Content),
        (Some(name), None) if name.earliest.duration_since(copy.modified) > NAMING_SLACK => {
            add(
                FindingCode::DateDoubtful,
                format!(
                    "its name says {}, but the file was last written {} before that, at {}: it may be an older copy under \
                     a new name",
                    whole(name.earliest),
                    hours(name.earliest.duration_since(copy.modified)),
                    whole(copy.modified)
                ),
            );
            (copy.modified, DatedBy::FileTime)
        }
        // Within its day the file's time is the best guess; beyond it, a touch makes nothing newer.
        (Some(name), None) => (copy.modified.clamp(name.earliest, name.latest), DatedBy::Name),
        (None, None) => {
            if !set.pattern.is_dated() {
                add(
                    FindingCode::DateDoubtful,
                    "neither its name nor its content says when it is of; a file's time can be set to anything".to_owned(),
                );
            }
            (copy.modified, DatedBy::FileTime)
        }
    };
    Dated { at, by, findings }
}

fn whole(at: Timestamp) -> String {
    at.round(jiff::Unit::Second).unwrap_or(at).to_string()
}

/// `26h`, `31d`: whole units, for people.
fn hours(span: SignedDuration) -> String {
    match span.as_hours() {
        0 => format!("{} min", span.as_mins()),
        hours @ 1..72 => format!("{hours} h"),
        hours => format!("{} d", hours / 24),
    }
}

/// The copies of a set, oldest first by what their names say, then by the file's time, then by name.
///
/// Copies that the names do not order (a date that does not exist) come first: they are never the newest.
#[must_use]
pub fn in_order(set: &AdoptedSet, mut copies: Vec<Lying>) -> Vec<Lying> {
    copies.retain(|copy| set.pattern.read(&copy.name).is_some());
    copies.sort_by_cached_key(|copy| {
        let at = if set.pattern.is_dated() {
            named(set, &copy.name).map(|window| window.latest)
        } else {
            Some(copy.modified)
        };
        (at, copy.modified, copy.name.clone())
    });
    copies
}

/// What is wrong with the age of a copy at `now`.
#[must_use]
pub fn aged(set: &AdoptedSet, name: &str, at: Timestamp, now: Timestamp) -> Option<Finding> {
    let age = now.duration_since(at);
    if -age > CLOCK_STEP {
        return Some(Finding::new(
            FindingCode::FutureDated,
            name,
            format!("is of {}, which is {} from now, so its age is not known", whole(at), hours(-age)),
        ));
    }
    (age > set.stale_after).then(|| {
        Finding::new(
            FindingCode::Stale,
            name,
            format!("is {} old, at most {} allowed", hours(age), hours(set.stale_after)),
        )
    })
}

/// What is wrong with the size of the newest copy, beside the ones before it (in order, oldest first).
#[must_use]
pub fn sized(newest: &Lying, before: &[Lying]) -> Option<Finding> {
    if newest.size == 0 {
        return Some(Finding::new(FindingCode::PointImplausible, newest.name.clone(), "has 0 bytes"));
    }
    let mut sizes: Vec<u64> = before.iter().rev().take(MEDIAN_OF).map(|copy| copy.size).collect();
    if sizes.len() < MEDIAN_MIN {
        return None;
    }
    sizes.sort_unstable();
    let median = sizes[sizes.len() / 2];
    let percent = newest.size.saturating_mul(100) / median.max(1);
    (percent < SMALL_PERCENT).then(|| {
        Finding::new(
            FindingCode::SmallerThanUsual,
            newest.name.clone(),
            format!(
                "has {} bytes, {percent} % of the median of the {} before it ({median} bytes)",
                newest.size,
                sizes.len()
            ),
        )
    })
}

/// What lies beside a copy under the name of its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sidecar {
    /// Nothing.
    Absent,
    /// A file that cannot be read; why.
    Unreadable(String),
    /// Its text.
    Text(String),
}

/// Name of the check.
pub const SIDECAR: &str = "sidecar";

/// Judges the digest beside a copy against that of the bytes that were restored; `None` where it is not asked for.
///
/// A digest that lies beside a copy and is signed by nobody shows that the copy was transferred whole. Whoever can replace the
/// copy can replace it, too.
#[must_use]
pub fn beside(rule: SidecarRule, name: &str, sidecar: &Sidecar, sha256_hex: &str) -> Option<CheckReport> {
    let report = |outcome, detail: String, code: Option<FindingCode>| {
        let findings = code.map(|code| Finding::new(code, name, detail.clone())).into_iter().collect();
        Some(CheckReport { name: SIDECAR.to_owned(), outcome, detail, findings })
    };
    match (rule, sidecar) {
        (SidecarRule::Ignored, _) => None,
        (SidecarRule::Optional, Sidecar::Absent) => report(
            CheckOutcome::Passed,
            "there is no digest beside it, and none is required".to_owned(),
            None,
        ),
        (SidecarRule::Required, Sidecar::Absent) => report(
            CheckOutcome::Inconclusive,
            format!("`{name}.sha256` is required and not there"),
            Some(FindingCode::SidecarMissing),
        ),
        (_, Sidecar::Unreadable(why)) => report(
            CheckOutcome::Inconclusive,
            format!("`{name}.sha256` cannot be read: {why}"),
            Some(FindingCode::SidecarMissing),
        ),
        (_, Sidecar::Text(text)) => match digest_in(text, name) {
            None => report(
                CheckOutcome::Inconclusive,
                format!("`{name}.sha256` holds no SHA-256 of `{name}`"),
                Some(FindingCode::SidecarMissing),
            ),
            Some(digest) if digest == sha256_hex => report(
                CheckOutcome::Passed,
                format!(
                    "the bytes are those of `{name}.sha256`, which nobody signed: the transfer was whole, no more"
                ),
                None,
            ),
            Some(digest) => report(
                CheckOutcome::Failed,
                format!(
                    "the bytes have SHA-256 {}…, `{name}.sha256` says {}…",
                    short(sha256_hex),
                    short(&digest)
                ),
                Some(FindingCode::ObjectDamaged),
            ),
        },
    }
}

fn short(hex: &str) -> &str {
    hex.get(..12).unwrap_or(hex)
}

/// The digest of `name` in a file that `sha256sum`, `shasum -a 256` or `openssl dgst` wrote, in lower case.
fn digest_in(text: &str, name: &str) -> Option<String> {
    let is_digest = |word: &str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_name = |path: &str| path.rsplit('/').next() == Some(name);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    for line in &lines {
        // `SHA256 (name) = digest`, `SHA2-256(name)= digest`.
        if let Some((left, right)) = line.rsplit_once('=')
            && is_digest(right.trim())
            && let Some((_, inside)) = left.split_once('(')
            && is_name(inside.trim().trim_end_matches(')'))
        {
            return Some(right.trim().to_ascii_lowercase());
        }
        // `digest  name`, `digest *name`.
        if let Some((digest, path)) = line.split_once(char::is_whitespace)
            && is_digest(digest)
            && is_name(path.trim_start().trim_start_matches('*'))
        {
            return Some(digest.to_ascii_lowercase());
        }
    }
    // A digest alone can only be that of the file beside it.
    match lines.as_slice() {
        [only] if is_digest(only) => Some(only.to_ascii_lowercase()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adopt::{AdoptedKind, Pattern};
    use crate::id::SourceName;

    fn set(pattern: &str, zone: Option<&str>) -> AdoptedSet {
        AdoptedSet {
            name: SourceName::new("nightly").unwrap(),
            kind: AdoptedKind::PgDump,
            location: "/backups".to_owned(),
            pattern: Pattern::new(pattern).unwrap(),
            zone: zone.map(str::to_owned),
            decrypt: None,
            iterations: 10_000,
            sidecar: SidecarRule::Optional,
            stale_after: SignedDuration::from_hours(26),
            without_rows: Vec::new(),
            may_be_empty: false,
            bin_dir: None,
            checks: Vec::new(),
        }
    }

    fn lying(name: &str, modified: &str) -> Lying {
        Lying {
            name: name.to_owned(),
            size: 100,
            modified: modified.parse().unwrap(),
            is_directory: false,
            has_sidecar: false,
        }
    }

    fn head(created: &str) -> DumpHead {
        DumpHead { created: Some(created.parse().unwrap()), ..DumpHead::default() }
    }

    fn codes(findings: &[Finding]) -> Vec<&'static str> {
        findings.iter().map(|finding| finding.code.as_str()).collect()
    }

    #[test]
    fn an_old_dump_under_a_new_name_is_found_by_its_content() {
        let set = set("shop-{date}.dump", Some("Europe/Amsterdam"));
        let today = lying("shop-2026-11-29.dump", "2026-11-29T02:00:00Z");
        let fresh = dated(&set, &today, Some(&head("2026-11-29T02:50:00")));
        assert_eq!((fresh.at.to_string().as_str(), fresh.by), ("2026-11-29T01:50:00Z", DatedBy::Content));
        assert!(fresh.findings.is_empty());
        for (created, wanted) in [
            ("2026-11-28T02:50:00", vec!["RP-06"]),
            ("2026-10-29T02:50:00", vec!["RP-06"]),
            // Begun before midnight, named after it; begun and named around midnight.
            ("2026-11-28T22:50:00", vec![]),
            ("2026-11-30T00:00:05", vec![]),
            ("2026-11-30T12:00:00", vec!["AD-05"]),
        ] {
            assert_eq!(codes(&dated(&set, &today, Some(&head(created))).findings), wanted, "{created}");
        }
        // Of an unknown zone only what no zone can explain is said.
        let unknown = self::set("shop-{epoch}.dump", None);
        let copy = lying("shop-1795917000.dump", "2026-11-29T02:00:00Z");
        assert!(dated(&unknown, &copy, Some(&head("2026-11-29T15:00:00"))).findings.is_empty());
        assert_eq!(codes(&dated(&unknown, &copy, Some(&head("2026-11-01T02:50:00"))).findings), ["RP-06"]);
    }

    #[test]
    fn a_touch_makes_nothing_newer_and_a_rename_is_doubted() {
        let set = set("shop-{date}.sql.gz", Some("UTC"));
        let at = |name: &str, modified: &str| {
            let dated = dated(&set, &lying(name, modified), None);
            (dated.at.to_string(), codes(&dated.findings).join(" "))
        };
        let clean = |instant: &str| (instant.to_owned(), String::new());
        assert_eq!(at("shop-2026-11-20.sql.gz", "2026-11-29T08:00:00Z"), clean("2026-11-20T23:59:59Z"));
        assert_eq!(at("shop-2026-11-20.sql.gz", "2026-11-20T02:51:00Z"), clean("2026-11-20T02:51:00Z"));
        assert_eq!(at("shop-2026-11-20.sql.gz", "2026-11-19T23:51:00Z"), clean("2026-11-20T00:00:00Z"));
        assert_eq!(
            at("shop-2026-11-20.sql.gz", "2026-10-20T02:51:00Z"),
            ("2026-10-20T02:51:00Z".to_owned(), "AD-05".to_owned())
        );
        assert_eq!(at("shop-2026-11-31.sql.gz", "2026-11-20T02:51:00Z").1, "AD-05", "no such day");
        let undated = self::set("latest.sql", None);
        assert_eq!(
            codes(&dated(&undated, &lying("latest.sql", "2026-11-29T00:00:00Z"), None).findings),
            ["AD-05"]
        );
    }

    #[test]
    fn stale_and_future_copies_are_told_from_fresh_ones() {
        let set = set("shop-{date}.sql", Some("UTC"));
        let now: Timestamp = "2026-11-29T12:00:00Z".parse().unwrap();
        let code = |at: &str| aged(&set, "x", at.parse().unwrap(), now).map(|finding| finding.code.as_str());
        assert_eq!(code("2026-11-28T10:01:00Z"), None, "25 h 59 min");
        assert_eq!(code("2026-11-28T09:59:00Z"), Some("TM-03"), "26 h 1 min");
        assert_eq!(code("2026-11-29T12:01:00Z"), None, "a clock steps");
        assert_eq!(code("2026-11-29T13:00:00Z"), Some("TM-02"));
    }

    #[test]
    fn the_newest_is_the_newest_by_name_and_not_by_time() {
        let set = set("shop-{date}.sql", Some("UTC"));
        let copies = vec![
            lying("shop-2026-11-29.sql", "2026-11-01T00:00:00Z"),
            lying("shop-2026-11-27.sql", "2026-11-29T00:00:00Z"),
            lying("shop-2026-11-28.sql", "2026-11-28T00:00:00Z"),
            lying("shop-2026-11-31.sql", "2026-11-30T00:00:00Z"),
            lying("shop-2026-11-29.sql.sha256", "2026-11-29T00:00:00Z"),
        ];
        let names: Vec<String> = in_order(&set, copies).into_iter().map(|copy| copy.name).collect();
        assert_eq!(
            names,
            ["shop-2026-11-31.sql", "shop-2026-11-27.sql", "shop-2026-11-28.sql", "shop-2026-11-29.sql"]
        );
    }

    #[test]
    fn a_copy_that_shrank_is_said() {
        let of = |size| Lying { size, ..lying("x", "2026-11-29T00:00:00Z") };
        let before = [of(1000), of(1010), of(990), of(1005)];
        let code = |size| sized(&of(size), &before).map(|finding| finding.code.as_str());
        assert_eq!((code(1000), code(410), code(390), code(0)), (None, None, Some("AD-04"), Some("RP-11")));
        assert_eq!(sized(&of(1), &before[..2]), None, "two are no median");
    }

    #[test]
    fn a_digest_beside_a_copy_is_held_against_its_bytes() {
        let (digest, other) = ("ab".repeat(32), "cd".repeat(32));
        let outcome = |rule, sidecar: &Sidecar| {
            beside(rule, "shop.sql.gz", sidecar, &digest)
                .map(|report| (report.outcome, codes(&report.findings).join(" ")))
        };
        let text = |text: String| Sidecar::Text(text);
        let passed = Some((CheckOutcome::Passed, String::new()));
        for good in [
            digest.clone(),
            format!("{digest}\n"),
            format!("{digest}  shop.sql.gz\n"),
            format!("{} */backups/shop.sql.gz\r\n", digest.to_uppercase()),
            format!("SHA256 (shop.sql.gz) = {digest}"),
            format!("SHA2-256(shop.sql.gz)= {digest}"),
            format!("{other}  another.sql.gz\n{digest}  shop.sql.gz\n"),
        ] {
            assert_eq!(outcome(SidecarRule::Required, &text(good.clone())), passed, "{good}");
        }
        let failed = Some((CheckOutcome::Failed, "RP-01".to_owned()));
        assert_eq!(outcome(SidecarRule::Optional, &text(format!("{other}  shop.sql.gz"))), failed);
        let unknown = Some((CheckOutcome::Inconclusive, "AD-03".to_owned()));
        for useless in ["", "hello", &format!("{digest}  another.sql.gz"), &format!("{digest}\n{other}")] {
            assert_eq!(outcome(SidecarRule::Optional, &text((*useless).to_owned())), unknown, "{useless}");
        }
        assert_eq!(outcome(SidecarRule::Required, &Sidecar::Absent), unknown);
        assert_eq!(outcome(SidecarRule::Required, &Sidecar::Unreadable("no".to_owned())), unknown);
        assert_eq!(outcome(SidecarRule::Optional, &Sidecar::Absent), passed);
        assert_eq!(outcome(SidecarRule::Ignored, &text(other)), None);
    }
}
