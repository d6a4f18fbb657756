//! Durations and sizes as people write them.

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use thiserror::Error;

use crate::time::{DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS};

/// Why a text is not a duration or a size.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TextError {
    #[error("`{0}` is not a duration; write for example \"90s\", \"36h\", \"1h30m\" or \"1-12:00:00\"")]
    Duration(String),
    #[error("`{0}` is not a size; write for example \"64GiB\", \"512MiB\" or \"80GB\"")]
    Size(String),
    #[error("`{0}` is not a moment; write for example \"2026-12-01T08:00:00Z\" or \"2026-12-01T09:00:00+01:00\"")]
    Moment(String),
    #[error("`{0}` is too large")]
    TooLarge(String),
}

/// Milliseconds of `90s`, `36h`, `1h30m`, `2d`, `250ms`, `12:00:00` or `1-12:00:00`.
///
/// A bare number has no unit and is refused: some schedulers read minutes, others seconds.
pub fn parse_duration_ms(text: &str) -> Result<u64, TextError> {
    let trimmed = text.trim();
    let parsed = if trimmed.contains(':') { clock_ms(trimmed) } else { units_ms(trimmed) };
    parsed.unwrap_or_else(|| Err(TextError::Duration(text.to_owned())))
}

/// `1h30m`. `None` = not of this form.
fn units_ms(text: &str) -> Option<Result<u64, TextError>> {
    let mut total: u64 = 0;
    let mut rest = text;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, unit, after) = split_number(rest)?;
        let unit_ms = match unit {
            "ms" => 1,
            "s" | "sec" => SECOND_MS,
            "m" | "min" => MINUTE_MS,
            "h" => HOUR_MS,
            "d" => DAY_MS,
            "w" => 7 * DAY_MS,
            _ => return None,
        };
        let Some(sum) = number.checked_mul(unit_ms).and_then(|ms| total.checked_add(ms)) else {
            return Some(Err(TextError::TooLarge(text.to_owned())));
        };
        total = sum;
        rest = after.trim_start();
    }
    Some(Ok(total))
}

/// `[days-]hours:minutes[:seconds]`.
fn clock_ms(text: &str) -> Option<Result<u64, TextError>> {
    let (days, clock) = match text.split_once('-') {
        Some((days, clock)) => (whole(days)?, clock),
        None => (0, text),
    };
    let parts: Vec<u64> = clock.split(':').map(whole).collect::<Option<_>>()?;
    let (hours, minutes, seconds) = match parts[..] {
        [hours, minutes] => (hours, minutes, 0),
        [hours, minutes, seconds] => (hours, minutes, seconds),
        _ => return None,
    };
    if minutes > 59 || seconds > 59 {
        return None;
    }
    let sum = |scaled: [Option<u64>; 4]| scaled.into_iter().try_fold(0u64, |sum, part| sum.checked_add(part?));
    let total = sum([
        days.checked_mul(DAY_MS),
        hours.checked_mul(HOUR_MS),
        Some(minutes * MINUTE_MS),
        Some(seconds * SECOND_MS),
    ]);
    Some(total.ok_or_else(|| TextError::TooLarge(text.to_owned())))
}

/// Bytes of `64GiB`, `80GB`, `512M`. `G` alone is read as `GiB`, as schedulers do.
pub fn parse_size_bytes(text: &str) -> Result<u64, TextError> {
    let wrong = || TextError::Size(text.to_owned());
    let (number, unit, after) = split_number(text.trim()).ok_or_else(wrong)?;
    if !after.is_empty() {
        return Err(wrong());
    }
    let scale: u64 = match unit {
        "B" => 1,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "T" | "TiB" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(scale).ok_or_else(|| TextError::TooLarge(text.to_owned()))
}

fn whole(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// `90s rest` as (90, "s", " rest").
fn split_number(text: &str) -> Option<(u64, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number = whole(&text[..digits])?;
    let rest = text[digits..].trim_start();
    let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    Some((number, &rest[..letters], &rest[letters..]))
}

macro_rules! text_value {
    ($(#[$doc:meta])* $name:ident, $unit:ident, $parse:ident, $expecting:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name {
            text: String,
            $unit: u64,
        }

        impl $name {
            pub fn new(text: &str) -> Result<Self, TextError> {
                Ok(Self { $unit: $parse(text)?, text: text.to_owned() })
            }

            pub fn $unit(&self) -> u64 {
                self.$unit
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.text)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::new(text).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}

text_value! {
    /// A duration as it was written.
    DurationText, ms, parse_duration_ms, "a duration in quotes, such as \"36h\" or \"90s\""
}

text_value! {
    /// An amount of memory as it was written.
    SizeText, bytes, parse_size_bytes, "a size in quotes, such as \"64GiB\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_every_documented_form() {
        let table = [
            ("90s", 90 * SECOND_MS),
            ("36h", 36 * HOUR_MS),
            ("1h30m", 90 * MINUTE_MS),
            ("1h 30m", 90 * MINUTE_MS),
            ("3d", 3 * DAY_MS),
            ("250ms", 250),
            ("12:00:00", 12 * HOUR_MS),
            ("1-12:00:00", 36 * HOUR_MS),
            ("1-12:30", 36 * HOUR_MS + 30 * MINUTE_MS),
        ];
        for (text, ms) in table {
            assert_eq!(parse_duration_ms(text), Ok(ms), "{text}");
        }
    }

    #[test]
    fn a_duration_without_a_unit_or_with_a_wrong_one_is_refused() {
        for text in ["", "36", "36 hours", "-5m", "1.5h", "h", "12:61:00", "1-", "::", "5m!"] {
            assert!(matches!(parse_duration_ms(text), Err(TextError::Duration(_))), "{text:?}");
        }
        assert!(matches!(parse_duration_ms("999999999999999999w"), Err(TextError::TooLarge(_))));
        assert!(matches!(parse_duration_ms("999999999999999999-00:00"), Err(TextError::TooLarge(_))));
    }

    #[test]
    fn sizes_are_read_in_binary_and_decimal_units() {
        let table =
            [("64GiB", 64 << 30), ("64G", 64 << 30), ("80GB", 80_000_000_000), ("512 MiB", 512 << 20), ("7B", 7)];
        for (text, bytes) in table {
            assert_eq!(parse_size_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "64", "64gib", "GiB", "1.5GiB", "64GiB/s"] {
            assert!(matches!(parse_size_bytes(text), Err(TextError::Size(_))), "{text:?}");
        }
        assert!(matches!(parse_size_bytes("99999999999TiB"), Err(TextError::TooLarge(_))));
    }
}
