//! Numbers, times and names as traces write them.

use muster_common::Name;

/// Largest time in a trace, in seconds; above it a number is taken for damage.
pub(crate) const SECONDS_MAX: f64 = 1e12;
/// Most devices of one job.
const DEVICES_MAX: i64 = 1_000_000;

/// Seconds, whole or with a fraction, as milliseconds.
pub(super) fn milliseconds(field: &str, text: &str) -> Result<i64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{field} is `{}`, not a number of seconds", short(text)))?;
    if !seconds.is_finite() || seconds.abs() > SECONDS_MAX {
        return Err(format!("{field} is {seconds} s, beyond what a trace can hold"));
    }
    Ok((seconds * 1000.0).round() as i64)
}

/// A time that is not negative.
pub(super) fn duration_ms(field: &str, text: &str) -> Result<u64, String> {
    let ms = milliseconds(field, text)?;
    u64::try_from(ms).map_err(|_| format!("{field} {} is negative", short(text)))
}

/// A submit time, never before the trace's clock began.
pub(super) fn submit_ms(text: &str) -> Result<u64, String> {
    let ms = milliseconds("submit time", text)?;
    u64::try_from(ms).map_err(|_| format!("submit time {text} is before the trace's clock began"))
}

pub(super) fn whole(field: &str, text: &str) -> Result<i64, String> {
    // Some tables write whole numbers with a fraction.
    let text = text.strip_suffix(".0").unwrap_or(text);
    text.parse().map_err(|_| format!("{field} is `{}`, not a whole number", short(text)))
}

pub(super) fn devices(count: i64) -> Result<u32, String> {
    if !(1..=DEVICES_MAX).contains(&count) {
        return Err(format!("the job has {count} devices; it must have from 1 to {DEVICES_MAX}"));
    }
    Ok(count as u32)
}

pub(super) fn id(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 63 {
        return Err("the job's id must have from 1 to 63 characters".into());
    }
    Ok(text.to_owned())
}

/// A name, with whatever a name cannot hold replaced; `None` of an empty text.
pub(super) fn name(text: &str) -> Option<Name> {
    let kept = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' };
    let text: String = text.chars().take(Name::LENGTH_MAX).map(kept).collect();
    let text = text.trim_start_matches(['.', '-']);
    Name::new(text).ok()
}

/// A user's name; `None` of an empty text.
pub(super) fn user(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| short(text))
}

/// `2020-06-09 18:41:01`, also with `T`, a fraction, or `Z`, `+08:00` or `+0800` behind: milliseconds since
/// 1970. Without a zone the clock is taken as it stands.
pub(super) fn moment_ms(field: &str, text: &str) -> Result<u64, String> {
    parse_moment(text)
        .and_then(|ms| u64::try_from(ms).ok())
        .ok_or_else(|| format!("{field} is `{}`, not a date and time since 1970", short(text)))
}

fn parse_moment(text: &str) -> Option<i64> {
    let text = text.trim();
    let (date, rest) = text.split_once(['T', ' '])?;
    let mut parts = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let (clock, zone) = match rest.find(['+', '-', 'Z']) {
        Some(at) => rest.split_at(at),
        None => (rest, "Z"),
    };
    let ms = clock_ms(clock)?;
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let offset_ms = match zone {
        "Z" => 0,
        _ => {
            let digits = zone.strip_prefix(['+', '-'])?;
            let (hours, minutes) = match digits.split_once(':') {
                Some(parts) => parts,
                // `+0800`, as Slurm and C write it.
                None if digits.len() == 4 && digits.is_ascii() => digits.split_at(2),
                None => (digits, "0"),
            };
            let (hours, minutes) = (hours.parse::<i64>().ok()?, minutes.parse::<i64>().ok()?);
            if !(0..24).contains(&hours) || !(0..60).contains(&minutes) {
                return None;
            }
            sign * (hours * 60 + minutes) * 60_000
        }
    };
    Some(days_since_1970(year, month, day) * 86_400_000 + ms - offset_ms)
}

fn clock_ms(text: &str) -> Option<i64> {
    let mut parts = text.trim().split(':');
    let (hours, minutes) = (parts.next()?.parse::<i64>().ok()?, parts.next()?.parse::<i64>().ok()?);
    let seconds: f64 = parts.next().map_or(Some(0.0), |part| part.parse().ok())?;
    let sound = (0..24).contains(&hours) && (0..60).contains(&minutes) && (0.0..61.0).contains(&seconds);
    (sound && parts.next().is_none()).then(|| (hours * 60 + minutes) * 60_000 + (seconds * 1000.0).round() as i64)
}

/// Days from 1970-01-01 in the Gregorian calendar, by counting years that begin in March.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// `[days-]hours:minutes:seconds[.fraction]` or `minutes:seconds`.
pub(super) fn clock_duration_ms(field: &str, text: &str) -> Result<u64, String> {
    let parse = || {
        let (days, rest) = match text.split_once('-') {
            Some((days, rest)) => (days.parse::<u64>().ok()?, rest),
            None => (0, text),
        };
        let parts: Vec<&str> = rest.split(':').collect();
        let (hours, minutes, seconds) = match parts.as_slice() {
            [hours, minutes, seconds] => (*hours, *minutes, *seconds),
            [minutes, seconds] => ("0", *minutes, *seconds),
            _ => return None,
        };
        let (hours, minutes) = (hours.parse::<u64>().ok()?, minutes.parse::<u64>().ok()?);
        let seconds: f64 = seconds.parse().ok().filter(|seconds| (0.0..61.0).contains(seconds))?;
        let minutes = days.checked_mul(24)?.checked_add(hours)?.checked_mul(60)?.checked_add(minutes)?;
        minutes.checked_mul(60_000)?.checked_add((seconds * 1000.0).round() as u64)
    };
    let ms = parse().filter(|ms| *ms as f64 <= SECONDS_MAX * 1000.0);
    ms.ok_or_else(|| format!("{field} is `{}`, not a duration such as 1-02:03:04", short(text)))
}

/// Enough of a text to recognise it, printable.
pub(super) fn short(text: &str) -> String {
    text.chars().take(40).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        assert_eq!(moment_ms("t", "1970-01-02 00:00:01").unwrap(), 86_401_000);
        assert_eq!(moment_ms("t", "2023-03-01T00:18:22+08:00").unwrap(), 1_677_601_102_000);
        assert_eq!(moment_ms("t", "2023-02-28T16:18:22Z").unwrap(), 1_677_601_102_000);
        for zone in ["+0800", "+08"] {
            assert_eq!(moment_ms("t", &format!("2023-03-01T00:18:22{zone}")).unwrap(), 1_677_601_102_000, "{zone}");
        }
        assert_eq!(moment_ms("t", "2023-02-28T11:18:22-0500").unwrap(), 1_677_601_102_000);
        for zone in ["Z08", "+800:00", "+80000", "+08:60", "+-8:00", "+"] {
            assert!(moment_ms("t", &format!("2023-03-01T00:18:22{zone}")).is_err(), "{zone}");
        }
        assert_eq!(moment_ms("t", "2024-02-29 12:00:00.5").unwrap(), 1_709_208_000_500);
        for wrong in ["", "today", "2023-13-01 00:00:00", "1969-12-31 23:59:59", "2023-03-01 25:00:00", "2023-03-01"] {
            assert!(moment_ms("t", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(clock_duration_ms("t", "1-02:03:04").unwrap(), 93_784_000);
        assert_eq!(clock_duration_ms("t", "02:03.250").unwrap(), 123_250);
        for wrong in ["", "UNLIMITED", "1:2:3:4", "99999999999999999999-00:00:00", "1:99x"] {
            assert!(clock_duration_ms("t", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_keep_what_they_can() {
        assert_eq!(name("-research/nlp").unwrap().as_str(), "research_nlp");
        assert_eq!(name(""), None);
        assert_eq!(name("é").unwrap().as_str(), "_");
    }
}
