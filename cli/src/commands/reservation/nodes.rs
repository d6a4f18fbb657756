//! Names of nodes as people list them: `n1,n2` and `n[001-016,020]`.

use crate::error::CliError;
use muster_proto::convert::error::ErrorCode;

/// Most names that one list may mean; the server takes no more either.
const NAMES_MAX: usize = 1000;

/// The names that a list means, in its order.
///
/// # Errors
/// Brackets that do not close, a range that runs backwards or has other digits at its end, too many names.
pub fn expanded(list: &str) -> Result<Vec<String>, CliError> {
    let mut names = Vec::new();
    for item in items(list)? {
        let (stem, ranges) = match item.split_once('[') {
            None => {
                names.push(item.to_owned());
                continue;
            }
            Some((stem, rest)) => (stem, rest.strip_suffix(']').ok_or_else(|| unreadable(list, "`]` ends a name"))?),
        };
        for range in ranges.split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let number = |text: &str| {
                let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
                digits.and_then(|text| text.parse::<u32>().ok()).ok_or_else(|| unreadable(list, "ranges are numbers"))
            };
            let (from, to) = (number(first)?, number(last)?);
            if from > to || first.len() > last.len() || first.len() < last.len() && first.starts_with('0') {
                return Err(unreadable(
                    list,
                    "a range goes upwards, with as many digits at both ends if it begins with 0",
                ));
            }
            if (to - from) as usize >= NAMES_MAX {
                return Err(too_many());
            }
            names.extend((from..=to).map(|number| format!("{stem}{number:0width$}", width = first.len())));
        }
        if names.len() > NAMES_MAX {
            return Err(too_many());
        }
    }
    Ok(names)
}

/// Split at the commas that are not in brackets.
fn items(list: &str) -> Result<Vec<&str>, CliError> {
    let (mut found, mut from, mut inside) = (Vec::new(), 0, false);
    for (at, c) in list.char_indices() {
        match c {
            '[' if !inside => inside = true,
            ']' if inside => inside = false,
            '[' | ']' => return Err(unreadable(list, "brackets open and close once in a name")),
            ',' if !inside => {
                found.push(list[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(unreadable(list, "a bracket is not closed"));
    }
    found.push(list[from..].trim());
    if found.iter().any(|name| name.is_empty()) {
        return Err(unreadable(list, "a name is empty"));
    }
    Ok(found)
}

fn unreadable(list: &str, why: &str) -> CliError {
    CliError::new(ErrorCode::Usage, format!("--nodes `{list}`: {why}")).hint("such as --nodes n001,n[003-016]")
}

fn too_many() -> CliError {
    let message = format!("--nodes: that is more than {NAMES_MAX} names");
    CliError::new(ErrorCode::Usage, message).hint("name their domain (`--domain`), or take all (`--all-nodes`)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_mean_what_they_print() {
        assert_eq!(expanded("n033, n[001-003,010],gpu").unwrap(), ["n033", "n001", "n002", "n003", "n010", "gpu"]);
        assert_eq!(expanded("n[8-10]").unwrap(), ["n8", "n9", "n10"]);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for wrong in ["", "a,,b", "n[1-", "n[1]]", "n[[1]]", "n[2-1]", "n[08-10", "n[a-b]", "n[1]x", "n[1-4294967295]"]
        {
            assert!(expanded(wrong).is_err(), "{wrong}");
        }
    }
}
