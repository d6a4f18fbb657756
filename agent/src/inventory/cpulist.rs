//! The kernel's way to write sets of CPUs: `0-55,112-167`.

/// CPUs of a list with more are refused; far above any machine of today.
const CPUS_MAX: usize = 65_536;

/// The CPUs of a list, ascending and once each. An empty text is an empty set, as for a memory-only
/// NUMA node.
pub fn parse(text: &str) -> Result<Vec<u32>, String> {
    let mut cpus = std::collections::BTreeSet::new();
    for part in text.trim().split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let number = |digits: &str| digits.parse::<u32>().map_err(|_| format!("`{part}` is not part of a CPU list"));
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if last < first || (last - first) as usize >= CPUS_MAX {
            return Err(format!("`{part}` is not a range of CPUs"));
        }
        cpus.extend(first..=last);
    }
    if cpus.len() > CPUS_MAX {
        return Err(format!("a CPU list of more than {CPUS_MAX} CPUs"));
    }
    Ok(cpus.into_iter().collect())
}

/// Writes ascending CPUs as a list with ranges.
pub fn format(cpus: &[u32]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut rest = cpus;
    while let Some(&first) = rest.first() {
        let run = (0u32..).zip(rest).take_while(|(step, cpu)| first.checked_add(*step) == Some(**cpu)).count();
        let last = rest[run - 1];
        parts.push(if first == last { first.to_string() } else { format!("{first}-{last}") });
        rest = &rest[run..];
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_read_and_write_back() {
        for text in ["0", "0-3", "0-55,112-167", "0,3-9,11-17", ""] {
            assert_eq!(format(&parse(text).unwrap()), text);
        }
        assert_eq!(parse("3,1-2\n").unwrap(), vec![1, 2, 3]);
    }

    #[test]
    fn nonsense_is_refused_and_never_exhausts_memory() {
        for text in ["a", "3-1", "0-4294967295", "1-", "-1", "0x1"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
