//! Civil periods: a copy may stand for its day, its ISO week, its month, its year.

use std::fmt;

use jiff::civil::Date;
use serde::Serialize;

/// How long the periods of a rung are, the shortest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rung {
    /// Civil days.
    Daily,
    /// ISO weeks, from Monday to Sunday.
    Weekly,
    /// Calendar months.
    Monthly,
    /// Calendar years.
    Yearly,
}

impl Rung {
    /// Every rung, the shortest periods first.
    pub const ALL: [Self; 4] = [Self::Daily, Self::Weekly, Self::Monthly, Self::Yearly];

    /// The only period of this rung that holds a civil day.
    #[must_use]
    pub fn bucket(self, day: Date) -> Bucket {
        match self {
            Self::Daily => Bucket::Day(day),
            Self::Weekly => {
                let week = day.iso_week_date();
                Bucket::Week { year: week.year(), week: week.week() }
            }
            Self::Monthly => Bucket::Month { year: day.year(), month: day.month() },
            Self::Yearly => Bucket::Year(day.year()),
        }
    }
}

/// One civil period, written `2026-12-31`, `2026-W53`, `2026-12` or `2026`; of one rung the later is the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub enum Bucket {
    /// A civil day.
    Day(Date),
    /// An ISO week; its year is not always that of its days.
    Week {
        /// The year to which the week belongs.
        year: i16,
        /// 1 to 53.
        week: i8,
    },
    /// A calendar month.
    Month {
        /// The year.
        year: i16,
        /// 1 to 12.
        month: i8,
    },
    /// A calendar year.
    Year(i16),
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Day(day) => write!(f, "{day}"),
            Self::Week { year, week } => write!(f, "{year:04}-W{week:02}"),
            Self::Month { year, month } => write!(f, "{year:04}-{month:02}"),
            Self::Year(year) => write!(f, "{year:04}"),
        }
    }
}

impl From<Bucket> for String {
    fn from(bucket: Bucket) -> Self {
        bucket.to_string()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use jiff::civil::date;
    use jiff::tz::TimeZoneDatabase;

    use super::*;

    fn names(day: Date) -> [String; 4] {
        Rung::ALL.map(|rung| rung.bucket(day).to_string())
    }

    #[test]
    fn a_day_belongs_to_one_period_of_each_rung() {
        assert_eq!(names(date(2026, 11, 29)), ["2026-11-29", "2026-W48", "2026-11", "2026"]);
        assert_eq!(names(date(2028, 2, 29)), ["2028-02-29", "2028-W09", "2028-02", "2028"], "a leap day");
        assert_eq!(names(date(9999, 12, 31)), ["9999-12-31", "9999-W52", "9999-12", "9999"]);
        assert_eq!(names(date(2038, 1, 19)), ["2038-01-19", "2038-W03", "2038-01", "2038"]);
    }

    #[test]
    fn week_53_of_2026_reaches_into_2027_and_belongs_to_2026() {
        assert_eq!(names(date(2026, 12, 27))[1], "2026-W52");
        let days = [date(2026, 12, 28), date(2026, 12, 31), date(2027, 1, 1), date(2027, 1, 3)];
        assert!(days.iter().all(|day| names(*day)[1] == "2026-W53"));
        assert_eq!(names(date(2027, 1, 4))[1], "2027-W01");
        assert!(Rung::Weekly.bucket(date(2027, 1, 3)) < Rung::Weekly.bucket(date(2027, 1, 4)));
        assert!(Rung::Yearly.bucket(date(2026, 12, 31)) < Rung::Yearly.bucket(date(2027, 1, 1)));
        assert!(Rung::Monthly.bucket(date(2026, 12, 31)) < Rung::Monthly.bucket(date(2027, 1, 1)));
    }

    fn day(zone: &str, instant: &str) -> String {
        let zone = TimeZoneDatabase::bundled().get(zone).unwrap();
        let instant: Timestamp = instant.parse().unwrap();
        Rung::Daily.bucket(zone.to_datetime(instant).date()).to_string()
    }

    #[test]
    fn the_day_that_apia_left_out_holds_nothing() {
        // At the end of 29 December 2011 Samoa went over the date line.
        assert_eq!(day("Pacific/Apia", "2011-12-30T09:59:59Z"), "2011-12-29");
        assert_eq!(day("Pacific/Apia", "2011-12-30T10:00:00Z"), "2011-12-31");
    }

    #[test]
    fn lord_howe_changes_its_clocks_by_half_an_hour_and_no_day_is_doubled() {
        // 2026-04-05 is half an hour longer than a day, 2026-10-04 is half an hour shorter.
        assert_eq!(day("Australia/Lord_Howe", "2026-04-04T12:59:59Z"), "2026-04-04");
        assert_eq!(day("Australia/Lord_Howe", "2026-04-04T13:00:00Z"), "2026-04-05");
        assert_eq!(day("Australia/Lord_Howe", "2026-04-05T13:29:59Z"), "2026-04-05");
        assert_eq!(day("Australia/Lord_Howe", "2026-04-05T13:30:00Z"), "2026-04-06");
        assert_eq!(day("Australia/Lord_Howe", "2026-10-03T13:30:00Z"), "2026-10-04");
        assert_eq!(day("Australia/Lord_Howe", "2026-10-04T13:00:00Z"), "2026-10-05");
    }

    #[test]
    fn a_bucket_is_serialized_as_it_is_written() {
        let written = Rung::ALL.map(|rung| serde_json::to_value(rung.bucket(date(2027, 1, 1))).unwrap());
        assert_eq!(written, ["2027-01-01", "2026-W53", "2027-01", "2027"]);
        assert!(Rung::ALL.is_sorted());
    }
}
