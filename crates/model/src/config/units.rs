//! Durations and sizes as people write them: `90d`, `1h 30m`, `512 MiB`.
//!
//! A duration is a count of seconds, and a day is 24 hours. A calendar span (`3 months`, `quarterly`) is another thing:
//! its length depends on when it begins, so it is refused where a duration is wanted, with the day count that was
//! probably meant.

use jiff::SignedDuration;

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Nothing, or no number where one is wanted.
    #[error("a duration is a number and a unit, e.g. `90d`, `24h`, `1h 30m`")]
    Malformed,
    /// A number without a unit.
    #[error("`{0}` has no unit")]
    NoUnit(u64),
    /// A unit that does not exist.
    #[error("`{0}` is not a unit of time (s, m, h, d, w)")]
    Unit(String),
    /// A calendar span, whose length depends on when it begins.
    #[error("a calendar span has no fixed length; a duration is wanted here")]
    Calendar {
        /// The number of days that was probably meant.
        days: u64,
    },
    /// Below zero.
    #[error("a duration cannot be negative")]
    Negative,
    /// More than a hundred years.
    #[error("a duration may be at most 100 years (36500d)")]
    TooLong,
}

impl DurationError {
    /// What to write instead, where that can be told.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoUnit(number) => {
                Some(format!("write \"{number}s\", \"{number}m\", \"{number}h\" or \"{number}d\""))
            }
            Self::Calendar { days } => Some(format!("write \"{days}d\" if that is what you mean")),
            Self::Malformed | Self::Unit(_) | Self::Negative | Self::TooLong => None,
        }
    }
}

// 100 years: beyond it a promise is a mistake, and every sum of two durations stays far from overflow.
const LONGEST_SECONDS: u64 = 36_500 * 86_400;

/// Reads a duration: numbers with units `ms s m h d w` (or their English words), added up. A day is 24 hours.
pub fn parse_duration(text: &str) -> Result<SignedDuration, DurationError> {
    let mut rest = text.trim();
    if rest.starts_with('-') {
        return Err(DurationError::Negative);
    }
    if rest.is_empty() || !rest.starts_with(|character: char| character.is_ascii_digit()) {
        return Err(
            calendar_word(rest).map_or(DurationError::Malformed, |days| DurationError::Calendar { days })
        );
    }
    let mut total_ms: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        if number.is_empty() {
            return Err(DurationError::Malformed);
        }
        let number: u64 = number.parse().map_err(|_| DurationError::TooLong)?;
        let after = after.trim_start();
        let letters = after.find(|character: char| !character.is_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        if unit.is_empty() {
            return Err(if after.is_empty() {
                DurationError::NoUnit(number)
            } else {
                DurationError::Malformed
            });
        }
        let unit_ms: u64 = match unit.to_lowercase().as_str() {
            "ms" | "millisecond" | "milliseconds" => 1,
            "s" | "sec" | "secs" | "second" | "seconds" => 1_000,
            "m" | "min" | "mins" | "minute" | "minutes" => 60_000,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3_600_000,
            "d" | "day" | "days" => 86_400_000,
            "w" | "week" | "weeks" => 7 * 86_400_000,
            "mo" | "mon" | "month" | "months" => {
                // 30.4 days, rounded up: a bound that is meant to cover a month must cover a long one.
                return Err(DurationError::Calendar {
                    days: number.saturating_mul(365).div_ceil(12).max(number.min(1) * 31),
                });
            }
            "q" | "quarter" | "quarters" => {
                return Err(DurationError::Calendar { days: number.saturating_mul(92) });
            }
            "y" | "yr" | "year" | "years" => {
                return Err(DurationError::Calendar { days: number.saturating_mul(366) });
            }
            _ => return Err(DurationError::Unit(unit.chars().take(20).collect())),
        };
        total_ms = number
            .checked_mul(unit_ms)
            .and_then(|ms| total_ms.checked_add(ms))
            .ok_or(DurationError::TooLong)?;
        rest = after.trim_start().trim_start_matches(',').trim_start();
    }
    if total_ms > LONGEST_SECONDS * 1_000 {
        return Err(DurationError::TooLong);
    }
    let ms = i64::try_from(total_ms).map_err(|_| DurationError::TooLong)?;
    Ok(SignedDuration::from_millis(ms))
}

fn calendar_word(text: &str) -> Option<u64> {
    match text.to_lowercase().as_str() {
        "hourly" | "daily" => Some(1),
        "weekly" => Some(7),
        "monthly" => Some(31),
        "quarterly" => Some(92),
        "yearly" | "annually" => Some(366),
        _ => None,
    }
}

/// Writes a duration so that [`parse_duration`] reads the same one, in the units a person would choose: `24h`, `90d`, `1h 30m`.
#[must_use]
pub fn format_duration(duration: SignedDuration) -> String {
    let total_ms = duration.as_millis().max(0);
    // Up to four days hours are how objectives are spoken of (24h, 72h); beyond, days.
    if total_ms > 0 && total_ms % 3_600_000 == 0 && total_ms <= 96 * 3_600_000 {
        return format!("{}h", total_ms / 3_600_000);
    }
    let mut parts = Vec::new();
    let mut rest = total_ms;
    for (unit_ms, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")] {
        if rest >= unit_ms {
            parts.push(format!("{}{unit}", rest / unit_ms));
            rest %= unit_ms;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// Why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Not a whole number and a unit.
    #[error("a size is a whole number and a unit, e.g. `512MiB`, `20 GB`")]
    Malformed,
    /// A unit that does not exist.
    #[error("`{0}` is not a unit of size (B, KB, MB, GB, TB, KiB, MiB, GiB, TiB)")]
    Unit(String),
    /// More than 2^64 bytes.
    #[error("a size must fit into 64 bits")]
    TooLarge,
}

/// Reads a size in bytes: `KiB` is 1,024 bytes, `KB` is 1,000; no unit is refused.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let text = text.trim();
    let digits = text.find(|character: char| !character.is_ascii_digit()).ok_or(SizeError::Malformed)?;
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(SizeError::Malformed);
    }
    let number: u64 = number.parse().map_err(|_| SizeError::TooLarge)?;
    let unit_bytes: u64 = match unit.trim().to_lowercase().as_str() {
        "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        other if other.starts_with('.') || other.starts_with(',') => return Err(SizeError::Malformed),
        other => return Err(SizeError::Unit(other.chars().take(20).collect())),
    };
    number.checked_mul(unit_bytes).ok_or(SizeError::TooLarge)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_counts_of_seconds() {
        for (text, seconds) in [
            ("90d", 90 * 86_400),
            ("24h", 86_400),
            ("1h 30m", 5_400),
            ("1h30m", 5_400),
            ("15 minutes", 900),
            ("2w", 14 * 86_400),
            ("0s", 0),
            ("1 day, 2 hours", 93_600),
        ] {
            assert_eq!(parse_duration(text), Ok(SignedDuration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn calendar_spans_are_told_apart_and_the_day_count_is_offered() {
        for (text, days) in [
            ("3 months", 92),
            ("1 month", 31),
            ("1mo", 31),
            ("1y", 366),
            ("quarterly", 92),
            ("monthly", 31),
            ("2 quarters", 184),
        ] {
            assert_eq!(parse_duration(text), Err(DurationError::Calendar { days }), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_says_why() {
        assert_eq!(parse_duration("90"), Err(DurationError::NoUnit(90)));
        assert_eq!(parse_duration("-1h"), Err(DurationError::Negative));
        assert_eq!(parse_duration(""), Err(DurationError::Malformed));
        assert_eq!(parse_duration("1.5h"), Err(DurationError::Malformed));
        assert_eq!(parse_duration("3 fortnights"), Err(DurationError::Unit("fortnights".to_owned())));
        assert_eq!(parse_duration("99999999999999999999h"), Err(DurationError::TooLong));
        assert_eq!(parse_duration("36501d"), Err(DurationError::TooLong));
    }

    #[test]
    fn durations_are_written_in_the_units_of_objectives() {
        for (seconds, text) in
            [(86_400, "24h"), (72 * 3_600, "72h"), (90 * 86_400, "90d"), (5_400, "1h 30m"), (0, "0s")]
        {
            assert_eq!(format_duration(SignedDuration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn sizes_keep_the_thousand_and_the_1024_apart() {
        assert_eq!(parse_size("512MiB"), Ok(512 << 20));
        assert_eq!(parse_size("20 GB"), Ok(20_000_000_000));
        assert_eq!(parse_size("20"), Err(SizeError::Malformed));
        assert_eq!(parse_size("1.5GB"), Err(SizeError::Malformed));
        assert_eq!(parse_size("3 parsec"), Err(SizeError::Unit("parsec".to_owned())));
        assert_eq!(parse_size("18446744073709551615 TiB"), Err(SizeError::TooLarge));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(ms in 0_i64..(36_500 * 86_400_000)) {
            let duration = SignedDuration::from_millis(ms);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in any::<String>()) {
            if let Ok(duration) = parse_duration(&text) {
                prop_assert!(!duration.is_negative());
            }
            prop_assert!(parse_size(&text).is_err() || text.trim().starts_with(|first: char| first.is_ascii_digit()));
        }
    }
}
