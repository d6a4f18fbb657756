//! Moments as people write them: RFC 3339, with its offset from UTC.

use super::text::TextError;
use crate::calendar::Date;
use crate::time::{DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

/// `2026-12-01T08:00:00Z` as milliseconds since 1970 in UTC. Written back in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MomentText(u64);

impl MomentText {
    pub const fn of_ms(ms: u64) -> Self {
        Self(ms)
    }

    pub const fn ms(&self) -> u64 {
        self.0
    }
}

/// Milliseconds since 1970 of a moment such as `2026-12-01T08:00:00Z` or `2026-12-01T09:30:00.250+01:30`.
///
/// A moment without its offset is refused: servers, nodes and people need not share a time zone.
///
/// # Errors
/// What the text is instead, with an example.
pub fn parse_moment_ms(text: &str) -> Result<u64, TextError> {
    moment_ms(text.trim()).ok_or_else(|| TextError::Moment(text.to_owned()))
}

fn moment_ms(text: &str) -> Option<u64> {
    let (date, rest) = text.split_at_checked(10)?;
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (clock, offset_ms) = split_offset(rest)?;
    let days = u64::try_from(days_of(date)?).ok()?;
    let local_ms = i64::try_from(days.checked_mul(DAY_MS)?.checked_add(clock_ms(clock)?)?).ok()?;
    u64::try_from(local_ms.checked_sub(offset_ms)?).ok()
}

/// `08:00:00+01:30` as the clock and how far it is ahead of UTC.
fn split_offset(text: &str) -> Option<(&str, i64)> {
    if let Some(clock) = text.strip_suffix(['Z', 'z']) {
        return Some((clock, 0));
    }
    let at = text.rfind(['+', '-'])?;
    let (clock, offset) = text.split_at(at);
    let (hours, minutes) = offset[1..].split_once(':')?;
    let ms = number(hours, 2, 23)? * HOUR_MS + number(minutes, 2, 59)? * MINUTE_MS;
    let ms = i64::try_from(ms).ok()?;
    Some((clock, if offset.starts_with('-') { -ms } else { ms }))
}

fn clock_ms(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let mut parts = whole.split(':');
    let (hours, minutes) = (number(parts.next()?, 2, 23)?, number(parts.next()?, 2, 59)?);
    let seconds = parts.next().map_or(Some(0), |text| number(text, 2, 59))?;
    let plain = !fraction.is_empty() && fraction.len() <= 9 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    if parts.next().is_some() || !plain {
        return None;
    }
    let fraction_ms: u64 = format!("{fraction:0<3}")[..3].parse().ok()?;
    Some(hours * HOUR_MS + minutes * MINUTE_MS + seconds * SECOND_MS + fraction_ms)
}

/// Days since 1970-01-01 of `2026-12-01`.
fn days_of(text: &str) -> Option<i64> {
    let mut parts = text.split('-');
    let year = number(parts.next()?, 4, 9999)? as i64;
    let (month, day) = (number(parts.next()?, 2, 12)? as i64, number(parts.next()?, 2, 31)? as i64);
    let date = Date { year, month, day };
    if parts.next().is_some() { None } else { date.days() }
}

fn number(text: &str, digits: usize, most: u64) -> Option<u64> {
    let plain = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|value| plain && *value <= most)
}

impl fmt::Display for MomentText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Date { year, month, day }, clock_ms) = (Date::of(self.0 / DAY_MS), self.0 % DAY_MS);
        let (hours, minutes) = (clock_ms / HOUR_MS, clock_ms % HOUR_MS / MINUTE_MS);
        let (seconds, ms) = (clock_ms % MINUTE_MS / SECOND_MS, clock_ms % SECOND_MS);
        write!(f, "{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}")?;
        if ms > 0 { write!(f, ".{ms:03}Z") } else { f.write_str("Z") }
    }
}

impl Serialize for MomentText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MomentText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_moment_ms(&text).map(MomentText).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_with_their_offset_and_written_in_utc() {
        let cases = [
            ("1970-01-01T00:00:00Z", 0, "1970-01-01T00:00:00Z"),
            ("2000-02-29T23:59:59Z", 951_868_799_000, "2000-02-29T23:59:59Z"),
            ("2026-12-01T08:00:00Z", 1_796_112_000_000, "2026-12-01T08:00:00Z"),
            ("2026-12-01 09:30+01:30", 1_796_112_000_000, "2026-12-01T08:00:00Z"),
            ("2026-11-30T20:00:00.25-12:00", 1_796_112_000_250, "2026-12-01T08:00:00.250Z"),
            ("2100-03-01T00:00:00Z", 4_107_542_400_000, "2100-03-01T00:00:00Z"),
        ];
        for (text, ms, back) in cases {
            assert_eq!(parse_moment_ms(text), Ok(ms), "{text}");
            assert_eq!(MomentText::of_ms(ms).to_string(), back);
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        let wrong = [
            "",
            "tomorrow",
            "2026-12-01",
            "2026-12-01T08:00:00",
            "2026-13-01T08:00:00Z",
            "2026-02-29T08:00:00Z",
            "2026-12-01T24:00:00Z",
            "2026-12-01T08:00:60Z",
            "1969-12-31T23:59:59Z",
            "2026-12-01T08:00:00.Z",
            "2026-12-01T08:00:00+1:00",
            "２026-12-01T08:00:00Z",
        ];
        for text in wrong {
            assert!(parse_moment_ms(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_day_comes_back() {
        for day in (0..110_000).step_by(7) {
            let ms = day * DAY_MS + 12_345;
            assert_eq!(parse_moment_ms(&MomentText::of_ms(ms).to_string()), Ok(ms));
        }
    }
}
