//! Whether the way in which a PostgreSQL source is backed up can keep the promise that was made for it, and what to change if not.
//!
//! Nothing here has failed: it is what would be missed on the day. What drills have measured counts more than a rule of thumb.

use std::fmt::Display;

use jiff::SignedDuration;

use crate::finding::{Finding, FindingCode};
use crate::forecast::Forecast;
use crate::objective::{Objective, RecoveryObjective};
use crate::source::PostgresMode;

/// A promise to lose less than this is kept by the log as it is written, and by no copy now and then.
const RPO_OF_COPIES: SignedDuration = SignedDuration::from_hours(1);
/// A promise to be back sooner than this is not left to a dump, whose indexes are built anew, unless drills have shown it.
const RTO_OF_DUMPS: SignedDuration = SignedDuration::from_mins(30);
/// The same of a database that is larger than this, in bytes.
const SIZE_OF_DUMPS: u64 = 10_000_000_000;
/// Log that a restore replays is worth a word from here on, in bytes, where it is also more than twice the data.
const REPLAY: u64 = 10_000_000_000;
/// How long the server should keep the log for a backup that does not come.
const KEPT_FOR: SignedDuration = SignedDuration::from_hours(24);

/// What is known of a source.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// `service/source`, for people.
    pub subject: &'a str,
    /// How it is backed up.
    pub mode: PostgresMode,
    /// What was promised.
    pub objective: RecoveryObjective,
    /// Bytes that a restore needs.
    pub size_bytes: u64,
    /// Bytes of log that the server writes in an hour, on average; unknown of old servers and of those that have just started.
    pub log_bytes_per_hour: Option<u64>,
    /// What drills say of a restore of the newest copy.
    pub forecast: Option<&'a Forecast>,
}

fn hours(per_hour: u64, duration: SignedDuration) -> u64 {
    let seconds = u128::from(duration.as_secs().unsigned_abs());
    u64::try_from(u128::from(per_hour) * seconds / 3_600).unwrap_or(u64::MAX)
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} kB", bytes / 1_000),
        1_000_000..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{}.{} GB", bytes / 1_000_000_000, bytes / 100_000_000 % 10),
    }
}

fn within(objective: Objective) -> Option<SignedDuration> {
    match objective {
        Objective::Within(bound) => Some(bound),
        Objective::NotApplicable => None,
    }
}

/// What to change so that the promise can be kept; nothing where nothing says that it cannot.
#[must_use]
pub fn advise(asked: &Asked<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |detail: &dyn Display| {
        findings.push(Finding::new(FindingCode::MethodUnfit, asked.subject, detail.to_string()));
    };
    let is_continuous = matches!(asked.mode, PostgresMode::Continuous { .. });
    if let Some(rpo) = within(asked.objective.rpo).filter(|rpo| *rpo < RPO_OF_COPIES && !is_continuous) {
        add(&format_args!(
            "{rpo:#} is all that may be lost, and between two copies everything is; set mode = \"continuous\" and run `seaworthy wal stream` \
             as a service"
        ));
    }
    if let Some(rto) = within(asked.objective.rto) {
        let to = asked
            .forecast
            .map(|forecast| SignedDuration::from_millis(i64::try_from(forecast.to_ms).unwrap_or(i64::MAX)));
        let change = if asked.mode == PostgresMode::Logical {
            "set mode = \"physical\": a base backup is restored as fast as it is read"
        } else {
            "bring a copy nearer, or give the machine that restores more disks, or take base backups more often"
        };
        match to {
            Some(to) if to > rto => add(&format_args!(
                "a restore will take up to {:#} before anybody has checked it, and {rto:#} is promised; {change}",
                to.round(jiff::Unit::Second).unwrap_or(to)
            )),
            None if asked.mode == PostgresMode::Logical && rto < RTO_OF_DUMPS => add(&format_args!(
                "{rto:#} is promised, no drill has shown that a restore of {} takes no longer, and a dump builds every index anew; drill it, \
                 or {change}",
                size(asked.size_bytes)
            )),
            None if asked.mode == PostgresMode::Logical && asked.size_bytes > SIZE_OF_DUMPS => {
                add(&format_args!(
                    "{} are restored from a dump, which builds every index anew, and no drill has shown that it takes no longer than \
                     the promised {rto:#}; drill it, or {change}",
                    size(asked.size_bytes)
                ));
            }
            _ => {}
        }
    }
    if let (PostgresMode::Continuous { base_every }, Some(rate)) = (asked.mode, asked.log_bytes_per_hour) {
        let replay = hours(rate, base_every);
        if replay > REPLAY.max(asked.size_bytes.saturating_mul(2)) {
            add(&format_args!(
                "{} of log an hour are {} until a base backup is due, which a restore replays, for {} of data; set base_every = \"{:#}\" \
                 or less",
                size(rate),
                size(replay),
                size(asked.size_bytes),
                base_every / 2
            ));
        }
    }
    findings
}

/// How much of its log a server should keep at least for a backup that does not come for a day, in words for its setting.
#[must_use]
pub fn to_keep(log_bytes_per_hour: Option<u64>) -> Option<String> {
    let bytes = hours(log_bytes_per_hour?, KEPT_FOR);
    Some(format!("{}GB", bytes.div_ceil(1 << 30).max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);
    const CONTINUOUS: PostgresMode = PostgresMode::Continuous { base_every: SignedDuration::from_hours(24) };

    fn asked(mode: PostgresMode, rpo: SignedDuration, rto: SignedDuration) -> Asked<'static> {
        let objective = RecoveryObjective { rpo: Objective::Within(rpo), rto: Objective::Within(rto) };
        Asked {
            subject: "shop/db",
            mode,
            objective,
            size_bytes: 5_000_000_000,
            log_bytes_per_hour: None,
            forecast: None,
        }
    }

    fn forecast(to: SignedDuration) -> Forecast {
        Forecast {
            drills: vec![1],
            from_ms: 1,
            to_ms: u64::try_from(to.as_millis()).unwrap(),
            is_of_repository: true,
            is_stretched: false,
        }
    }

    fn words(asked: &Asked<'_>) -> Vec<String> {
        advise(asked).into_iter().map(|finding| finding.detail).collect()
    }

    #[test]
    fn a_promise_below_an_hour_needs_the_log_as_it_is_written() {
        let almost = HOUR - SignedDuration::from_secs(1);
        for mode in [PostgresMode::Logical, PostgresMode::Physical] {
            assert!(words(&asked(mode, HOUR, HOUR)).is_empty());
            let said = words(&asked(mode, almost, HOUR));
            assert!(said.len() == 1 && said[0].contains("mode = \"continuous\""), "{said:?}");
        }
        assert!(words(&asked(CONTINUOUS, almost, HOUR)).is_empty());
        let none = RecoveryObjective { rpo: Objective::NotApplicable, rto: Objective::NotApplicable };
        assert!(advise(&Asked { objective: none, ..asked(PostgresMode::Logical, HOUR, HOUR) }).is_empty());
    }

    #[test]
    fn a_dump_is_doubted_until_a_drill_has_shown_it_and_a_drill_counts_more() {
        let half = SignedDuration::from_mins(30);
        let soon = half - SignedDuration::from_secs(1);
        assert!(words(&asked(PostgresMode::Logical, HOUR, half)).is_empty());
        let said = words(&asked(PostgresMode::Logical, HOUR, soon));
        assert!(said.len() == 1 && said[0].contains("restore of 5.0 GB"), "{said:?}");
        assert!(words(&asked(PostgresMode::Physical, HOUR, soon)).is_empty());
        let large = Asked { size_bytes: 10_000_000_001, ..asked(PostgresMode::Logical, HOUR, HOUR) };
        assert_eq!(words(&large).len(), 1);
        assert!(words(&Asked { size_bytes: 10_000_000_000, ..large }).is_empty());
        assert!(words(&Asked { mode: PostgresMode::Physical, ..large }).is_empty());
        let fast = forecast(soon);
        assert!(words(&Asked { forecast: Some(&fast), ..large }).is_empty());
        assert!(
            words(&Asked { forecast: Some(&fast), ..asked(PostgresMode::Logical, HOUR, soon) }).is_empty()
        );
        let slow = forecast(HOUR + SignedDuration::from_millis(1));
        for (mode, change) in [(PostgresMode::Logical, "physical"), (CONTINUOUS, "nearer")] {
            let said = words(&Asked { forecast: Some(&slow), ..asked(mode, HOUR, HOUR) });
            assert!(said.len() == 1 && said[0].contains("up to 1h") && said[0].contains(change), "{said:?}");
        }
        let exactly = forecast(HOUR);
        assert!(words(&Asked { forecast: Some(&exactly), ..asked(CONTINUOUS, HOUR, HOUR) }).is_empty());
    }

    #[test]
    fn a_log_that_outgrows_its_data_wants_a_base_backup_sooner() {
        let of = |rate: u64, size_bytes: u64| {
            let asked = asked(CONTINUOUS, SignedDuration::from_mins(5), HOUR);
            words(&Asked { log_bytes_per_hour: Some(rate), size_bytes, ..asked })
        };
        // 24 times a gigabyte.
        let said = of(1_000_000_000, 11_000_000_000);
        assert!(said.len() == 1 && said[0].contains("24.0 GB") && said[0].contains("\"12h\""), "{said:?}");
        assert!(of(1_000_000_000, 12_000_000_000).is_empty());
        // Little is little, whatever it is beside.
        assert!(of(400_000_000, 1_000).is_empty());
        assert_eq!(of(420_000_000, 1_000).len(), 1);
        let other = asked(PostgresMode::Physical, HOUR, HOUR);
        assert!(words(&Asked { log_bytes_per_hour: Some(u64::MAX), ..other }).is_empty());
    }

    #[test]
    fn a_day_of_log_is_what_a_server_should_keep() {
        assert_eq!(to_keep(None), None);
        assert_eq!(to_keep(Some(0)).as_deref(), Some("1GB"));
        assert_eq!(to_keep(Some(1 << 30)).as_deref(), Some("24GB"));
        assert_eq!(to_keep(Some((1 << 30) + 1)).as_deref(), Some("25GB"));
        assert_eq!([size(999_999), size(999_999_999), size(1_960_000_000)], ["999 kB", "999 MB", "1.9 GB"]);
    }
}
