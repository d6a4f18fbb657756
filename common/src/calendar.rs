//! Days, months and years of the Gregorian calendar, in UTC.

use crate::Time;
use crate::time::DAY_MS;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A day of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    pub year: i64,
    /// From 1.
    pub month: i64,
    /// From 1.
    pub day: i64,
}

impl Date {
    /// The day that is so many days after 1970-01-01.
    pub fn of(days: u64) -> Self {
        let mut days = days as i64;
        // The mean year is a little longer than 365 days, so the guess is never too early by more than one.
        let mut year = 1970 + days * 400 / 146_097;
        while days_before(year + 1) - days_before(1970) <= days {
            year += 1;
        }
        while days_before(year) - days_before(1970) > days {
            year -= 1;
        }
        days -= days_before(year) - days_before(1970);
        let mut month = 1;
        while days >= days_in(year, month) {
            days -= days_in(year, month);
            month += 1;
        }
        Self { year, month, day: days + 1 }
    }

    /// Days since 1970-01-01; `None` where there is no such day.
    pub fn days(self) -> Option<i64> {
        let Self { year, month, day } = self;
        if !(1..=12).contains(&month) || day == 0 || day > days_in(year, month) {
            return None;
        }
        let before: i64 = (1..month).map(|month| days_in(year, month)).sum();
        Some(days_before(year) - days_before(1970) + before + day - 1)
    }
}

/// Days from the year 1 to the first of January of `year`.
fn days_before(year: i64) -> i64 {
    let past = year - 1;
    past * 365 + past / 4 - past / 100 + past / 400
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// A stretch of the calendar that comes again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    Day,
    /// From Monday.
    Week,
    Month,
    Quarter,
    Year,
}

/// Days are counted no further, so that no sum runs over.
const DAYS_MAX: u64 = 10_000 * 366;

impl Period {
    pub const fn word(self) -> &'static str {
        match self {
            Period::Day => "day",
            Period::Week => "week",
            Period::Month => "month",
            Period::Quarter => "quarter",
            Period::Year => "year",
        }
    }

    /// The period that a moment is in, half open: its first moment, and the first of the next.
    pub fn around(self, at: Time) -> (Time, Time) {
        let today = (at.0 / DAY_MS).min(DAYS_MAX);
        let (from, until) = match self {
            Period::Day => (today, today + 1),
            Period::Week => {
                // 1970-01-01 was a Thursday; its week began before time does.
                let until = (today + 3) / 7 * 7 + 4;
                (until.saturating_sub(7), until)
            }
            Period::Month => months(today, 1),
            Period::Quarter => months(today, 3),
            Period::Year => months(today, 12),
        };
        (Time(from * DAY_MS), Time(until * DAY_MS))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// First days of the so many months around a day and of those after them.
fn months(today: u64, count: i64) -> (u64, u64) {
    let Date { year, month, .. } = Date::of(today);
    let first = (month - 1) / count * count + 1;
    let start = |year, month| Date { year, month, day: 1 }.days().expect("every month has a first day") as u64;
    let next = if first + count > 12 { start(year + 1, 1) } else { start(year, first + count) };
    (start(year, first), next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::file::parse_moment_ms;

    #[test]
    fn periods_begin_and_end_where_the_calendar_says() {
        use Period::{Day, Month, Quarter, Week, Year};
        for (period, at, from, until) in [
            (Day, "2026-12-01T08:00:00Z", "2026-12-01", "2026-12-02"),
            // A Tuesday.
            (Week, "2026-12-01T08:00:00Z", "2026-11-30", "2026-12-07"),
            (Week, "2026-11-30T00:00:00Z", "2026-11-30", "2026-12-07"),
            (Week, "2026-11-29T23:59:59Z", "2026-11-23", "2026-11-30"),
            (Week, "1970-01-02T00:00:00Z", "1970-01-01", "1970-01-05"),
            (Month, "2024-02-29T23:59:59.999Z", "2024-02-01", "2024-03-01"),
            (Month, "2026-12-31T00:00:00Z", "2026-12-01", "2027-01-01"),
            (Quarter, "2026-05-17T00:00:00Z", "2026-04-01", "2026-07-01"),
            (Quarter, "2026-12-31T00:00:00Z", "2026-10-01", "2027-01-01"),
            (Year, "2100-03-01T00:00:00Z", "2100-01-01", "2101-01-01"),
        ] {
            let moment = |day: &str| Time(parse_moment_ms(&format!("{day}T00:00:00Z")).unwrap());
            let around = period.around(Time(parse_moment_ms(at).unwrap()));
            assert_eq!(around, (moment(from), moment(until)), "{period} of {at}");
        }
    }

    #[test]
    fn each_moment_is_in_its_period_and_the_next_begins_where_it_ends() {
        for period in [Period::Day, Period::Week, Period::Month, Period::Quarter, Period::Year] {
            let mut at = Time(0);
            for _ in 0..600 {
                let (from, until) = period.around(at);
                assert!(from <= at && at < until, "{period} {at}");
                assert_eq!(period.around(Time(until.0 - 1)), (from, until));
                at = until;
            }
            // A clock that has gone mad panics nobody.
            assert!(period.around(Time::NEVER).1 > Time(0));
        }
    }
}
