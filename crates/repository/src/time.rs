//! Instants as Go writes them: RFC 3339, at most nine fraction digits, trailing zeros cut, the writer's offset kept.
//!
//! What we write ourselves is always UTC, so that the same directory has the same tree id whatever the time zone.

use std::fmt;

/// An instant with the offset of whoever wrote it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Time {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// Nanoseconds within the second, below 10⁹.
    pub nanos: u32,
    /// Seconds east of Greenwich.
    pub offset: i32,
}

impl Default for Time {
    /// Go's zero time, 0001-01-01T00:00:00Z.
    fn default() -> Self {
        Self { seconds: -62_135_596_800, nanos: 0, offset: 0 }
    }
}

// Years 0000 and 9999, the range that RFC 3339 can write.
const MIN: i64 = -62_167_219_200;
const MAX: i64 = 253_402_300_799;

impl Time {
    /// An instant in UTC, clamped to the years 0 to 9999.
    #[must_use]
    pub fn from_unix(seconds: i64, nanos: u32) -> Self {
        if seconds < MIN {
            return Self { seconds: MIN, nanos: 0, offset: 0 };
        }
        if seconds > MAX {
            return Self { seconds: MAX, nanos: 999_999_999, offset: 0 };
        }
        Self { seconds, nanos: nanos.min(999_999_999), offset: 0 }
    }

    /// Now, in UTC.
    #[must_use]
    pub fn now() -> Self {
        let now = jiff::Timestamp::now();
        Self::from_unix(now.as_second(), u32::try_from(now.subsec_nanosecond()).unwrap_or(0))
    }

    /// Nanoseconds since 1970; instants compare by this, whatever their offset.
    #[must_use]
    pub fn unix_nanos(&self) -> i128 {
        i128::from(self.seconds) * 1_000_000_000 + i128::from(self.nanos)
    }

    /// Parses RFC 3339; the zone is mandatory and more than nine fraction digits are cut.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let b = text.as_bytes();
        if b.len() < 20 || b[4] != b'-' || b[7] != b'-' || b[10] != b'T' || b[13] != b':' || b[16] != b':' {
            return None;
        }
        let number = |from: usize, to: usize| -> Option<i64> {
            b[from..to].iter().try_fold(0i64, |n, d| d.is_ascii_digit().then(|| n * 10 + i64::from(d - b'0')))
        };
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        if !(1..=12).contains(&month)
            || day < 1
            || day > days_in(year, month)
            || hour > 23
            || minute > 59
            || second > 59
        {
            return None;
        }
        let mut at = 19;
        let mut nanos = 0u32;
        if b[at] == b'.' || b[at] == b',' {
            at += 1;
            let start = at;
            let mut scale = 100_000_000;
            while at < b.len() && b[at].is_ascii_digit() {
                nanos += u32::from(b[at] - b'0') * scale;
                scale /= 10;
                at += 1;
            }
            if at == start {
                return None;
            }
        }
        let offset = match b.get(at)? {
            b'Z' if at + 1 == b.len() => 0,
            sign @ (b'+' | b'-') if at + 6 == b.len() && b[at + 3] == b':' => {
                let (h, m) = (number(at + 1, at + 3)?, number(at + 4, at + 6)?);
                if h > 24 || m > 59 {
                    return None;
                }
                let value = i32::try_from(h * 3600 + m * 60).ok()?;
                if *sign == b'-' { -value } else { value }
            }
            _ => return None,
        };
        let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second
            - i64::from(offset);
        Some(Self { seconds, nanos, offset })
    }

    pub(crate) fn push(&self, out: &mut Vec<u8>) {
        let local = (self.seconds + i64::from(self.offset)).clamp(MIN, MAX);
        let (year, month, day) = civil_from_days(local.div_euclid(86_400));
        let second = local.rem_euclid(86_400);
        let pad = |out: &mut Vec<u8>, n: i64, width: usize| {
            let mut digits = [b'0'; 9];
            let mut n = n;
            for d in digits[..width].iter_mut().rev() {
                *d = b'0' + u8::try_from(n % 10).unwrap_or(0);
                n /= 10;
            }
            out.extend_from_slice(&digits[..width]);
        };
        pad(out, year, 4);
        out.push(b'-');
        pad(out, month, 2);
        out.push(b'-');
        pad(out, day, 2);
        out.push(b'T');
        pad(out, second / 3600, 2);
        out.push(b':');
        pad(out, second / 60 % 60, 2);
        out.push(b':');
        pad(out, second % 60, 2);
        if self.nanos != 0 {
            out.push(b'.');
            pad(out, i64::from(self.nanos), 9);
            while out.last() == Some(&b'0') {
                out.pop();
            }
        }
        let minutes = self.offset / 60;
        if self.offset == 0 {
            out.push(b'Z');
        } else {
            out.push(if minutes < 0 { b'-' } else { b'+' });
            pad(out, i64::from(minutes.abs() / 60), 2);
            out.push(b':');
            pad(out, i64::from(minutes.abs() % 60), 2);
        }
    }
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y - era * 400;
    let doy = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    era * 146_097 + doe - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z - era * 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, day)
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Vec::with_capacity(36);
        self.push(&mut out);
        f.write_str(&String::from_utf8_lossy(&out))
    }
}

impl<'de> serde::Deserialize<'de> for Time {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Time;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time in RFC 3339 with a zone")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Time, E> {
                Time::parse(text).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_writes_round_trips() {
        for text in [
            "2026-02-02T10:00:00+01:00",
            "2026-11-21T13:03:57.26038039Z",
            "1959-12-31T23:59:59.999999999Z",
            "2300-01-01T00:00:00Z",
            "0001-01-01T00:00:00Z",
            "0000-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999999999Z",
            "2024-02-29T12:00:00.1-03:30",
        ] {
            assert_eq!(Time::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Time::parse("0001-01-01T00:00:00Z"), Some(Time::default()));
    }

    /// Trap 12.
    #[test]
    fn the_offset_is_mandatory_and_instants_compare_whatever_it_is() {
        for bad in [
            "2026-01-01T00:00:00",
            "2026-01-01 00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2025-02-29T00:00:00Z",
            "",
        ] {
            assert_eq!(Time::parse(bad), None, "{bad}");
        }
        let a = Time::parse("2026-02-02T10:00:00+01:00").unwrap();
        let b = Time::parse("2026-02-02T09:00:00.000000000999Z").unwrap();
        assert_eq!(a.unix_nanos(), b.unix_nanos());
    }

    #[test]
    fn years_are_clamped() {
        assert_eq!(Time::from_unix(i64::MAX, 5).to_string(), "9999-12-31T23:59:59.999999999Z");
        assert_eq!(Time::from_unix(i64::MIN, 5).to_string(), "0000-01-01T00:00:00Z");
    }

    #[test]
    fn the_calendar_agrees_with_jiff() {
        for day in (-719_000i64..2_900_000).step_by(37) {
            let ours = Time::from_unix(day * 86_400 + 3661, 0).to_string();
            assert_eq!(ours, jiff::Timestamp::from_second(day * 86_400 + 3661).unwrap().to_string());
            assert_eq!(Time::parse(&ours).unwrap().seconds, day * 86_400 + 3661);
        }
    }
}
