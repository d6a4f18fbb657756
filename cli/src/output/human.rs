//! Times, sizes and node names for people.

use muster_common::time::{DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS};
use time::OffsetDateTime;
use time::macros::format_description;

/// Nothing to show.
pub const NONE: &str = "–";

/// The two largest units: `2d 4h`, `1h 12m`, `5m`, `12s`, `250ms`.
pub fn duration(ms: u64) -> String {
    let two = |whole: u64, unit: &str, part: u64, small: &str| match part {
        0 => format!("{whole}{unit}"),
        _ => format!("{whole}{unit} {part}{small}"),
    };
    match ms {
        0 => "0s".to_owned(),
        _ if ms < SECOND_MS => format!("{ms}ms"),
        _ if ms < MINUTE_MS => format!("{}s", ms / SECOND_MS),
        _ if ms < HOUR_MS => two(ms / MINUTE_MS, "m", ms % MINUTE_MS / SECOND_MS, "s"),
        _ if ms < DAY_MS => two(ms / HOUR_MS, "h", ms % HOUR_MS / MINUTE_MS, "m"),
        _ => two(ms / DAY_MS, "d", ms % DAY_MS / HOUR_MS, "h"),
    }
}

pub fn maybe_duration(ms: Option<u64>) -> String {
    ms.map_or_else(|| NONE.to_owned(), duration)
}

/// `2026-03-01 18:40:05` in UTC.
pub fn moment(at_ms: u64) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    i64::try_from(at_ms / 1000)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|moment| moment.format(&format).ok())
        .unwrap_or_else(|| NONE.to_owned())
}

/// With the distance from now: `2026-03-01 18:40:05 (5m ago)`.
pub fn moment_and_distance(at_ms: u64, now_ms: u64) -> String {
    let distance = if at_ms <= now_ms {
        format!("{} ago", duration(now_ms - at_ms))
    } else {
        format!("in {}", duration(at_ms - now_ms))
    };
    format!("{} ({distance})", moment(at_ms))
}

/// Binary units, one digit: `64 GiB`, `1.5 TiB`, `512 B`.
pub fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    let mut scaled = bytes as f64;
    while scaled >= 1024.0 && unit + 1 < units.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && scaled < 100.0 && scaled.fract() >= 0.05);
    format!("{scaled:.digits$} {}", units[unit])
}

/// Thousandths of a CPU: `32`, `0.5`.
pub fn cpus(milli: u64) -> String {
    if milli.is_multiple_of(1000) { (milli / 1000).to_string() } else { format!("{:.1}", milli as f64 / 1000.0) }
}

/// Thousandths of a GPU: `8`, `0.25`.
pub fn gpus(milli: u64) -> String {
    match milli % 1000 {
        0 => (milli / 1000).to_string(),
        part => format!("{}.{part:03}", milli / 1000).trim_end_matches('0').to_owned(),
    }
}

/// Device-milliseconds as GPU-hours.
pub fn gpu_hours(device_ms: u64) -> String {
    let hours = device_ms as f64 / HOUR_MS as f64;
    if hours < 10.0 { format!("{hours:.2}") } else { format!("{hours:.0}") }
}

/// `1 node`, `2 nodes`.
pub fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// `n[033-048],n051` from names that end in numbers of one width.
pub fn node_set(names: &[String]) -> String {
    let mut sorted: Vec<(&str, &str)> = names.iter().map(|name| split_digits(name)).collect();
    sorted.sort_by_key(|(stem, digits)| (*stem, digits.len(), digits.parse::<u64>().unwrap_or(0)));
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for (stem, digits) in sorted {
        match groups.last_mut() {
            Some((last, members)) if *last == stem && members[0].len() == digits.len() => members.push(digits),
            _ => groups.push((stem, vec![digits])),
        }
    }
    let shown = groups.iter().map(|(stem, members)| match members[..] {
        [one] => format!("{stem}{one}"),
        _ => format!("{stem}[{}]", runs(members)),
    });
    shown.collect::<Vec<_>>().join(",")
}

/// `0-3,6` from ascending numbers.
pub fn numbers(numbers: &[u32]) -> String {
    let texts: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    runs(&texts.iter().map(String::as_str).collect::<Vec<_>>())
}

fn split_digits(name: &str) -> (&str, &str) {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    name.split_at(stem.len())
}

/// `033-048,051` from ascending members.
fn runs(members: &[&str]) -> String {
    let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX - 1);
    let mut shown: Vec<(&str, &str)> = Vec::new();
    for member in members {
        match shown.last_mut() {
            Some((_, last)) if number(last) + 1 == number(member) => *last = member,
            _ => shown.push((member, member)),
        }
    }
    let text = shown.iter().map(|(from, to)| if from == to { (*from).to_owned() } else { format!("{from}-{to}") });
    text.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_show_their_two_largest_units() {
        for (ms, text) in
            [(0, "0s"), (250, "250ms"), (12_300, "12s"), (300_000, "5m"), (4_320_000, "1h 12m"), (187_200_000, "2d 4h")]
        {
            assert_eq!(duration(ms), text);
        }
    }

    #[test]
    fn gpus_show_the_shares_of_one() {
        for (milli, text) in [(0, "0"), (1, "0.001"), (250, "0.25"), (1000, "1"), (10_000, "10"), (64_500, "64.5")] {
            assert_eq!(gpus(milli), text);
        }
    }

    #[test]
    fn sizes_show_one_digit_when_it_matters() {
        for (size, text) in [(512, "512 B"), (64 << 30, "64 GiB"), (3 << 39, "1.5 TiB"), (85_899_345_920, "80 GiB")] {
            assert_eq!(bytes(size), text);
        }
    }

    #[test]
    fn node_names_fold_into_ranges_of_one_width() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(node_set(&names(&["n034", "n033", "n035", "n051"])), "n[033-035,051]");
        assert_eq!(node_set(&names(&["n9", "n10", "gpu"])), "gpu,n9,n10");
        assert_eq!(node_set(&[]), "");
    }

    #[test]
    fn moments_are_utc_and_survive_any_number() {
        assert_eq!(moment_and_distance(1_700_000_000_000, 1_700_000_300_000), "2023-11-14 22:13:20 (5m ago)");
        assert_eq!(moment(u64::MAX), NONE);
    }
}
