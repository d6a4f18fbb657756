//! Which lines of a file are test code, and which files are test modules of their own.

use super::{after_matching, line_of};

/// Inclusive, 1-based ranges of lines under `#[cfg(test)]`.
pub struct TestLines(Vec<(usize, usize)>);

impl TestLines {
    pub fn contains(&self, line: usize) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&line))
    }
}

/// The lines of the items under `#[cfg(test)]` or `#[cfg(all(test, ...))]`, in masked code.
pub fn test_lines(code: &str) -> TestLines {
    let ranges = test_items(code).map(|(start, end)| (line_of(code, start), line_of(code, end.saturating_sub(1))));
    TestLines(ranges.collect())
}

/// Names of the modules declared as `#[cfg(test)] mod name;`, whose code lies in another file.
pub fn test_modules(code: &str) -> Vec<String> {
    let mut modules = Vec::new();
    for (start, end) in test_items(code) {
        let Some(item) = code[start..end].strip_suffix(';') else {
            continue;
        };
        let words: Vec<&str> = item.split_whitespace().collect();
        if let [.., "mod", name] = words.as_slice() {
            modules.push(name.to_string());
        }
    }
    modules
}

/// (start of the attribute, end of the item) of each test item.
fn test_items(code: &str) -> impl Iterator<Item = (usize, usize)> {
    let bytes = code.as_bytes();
    code.match_indices("#[").filter_map(move |(start, _)| {
        let end = after_matching(bytes, start + 1);
        let attribute: String = code[start + 2..end - 1].split_whitespace().collect();
        let test_only = attribute == "cfg(test)" || attribute.starts_with("cfg(all(test,");
        test_only.then(|| (start, item_end(bytes, end)))
    })
}

/// The end of the item that follows: its closing brace or its semicolon, past further attributes.
fn item_end(code: &[u8], mut at: usize) -> usize {
    while at < code.len() {
        match code[at] {
            b'{' => return after_matching(code, at),
            b';' => return at + 1,
            b'(' | b'[' => at = after_matching(code, at) - 1,
            _ => {}
        }
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_module_is_found_with_its_attributes() {
        let lines = test_lines("fn a() {}\n#[cfg(test)]\n#[rustfmt::skip]\nmod tests {\n fn b() {}\n}\nfn c() {}\n");
        let marked: Vec<usize> = (1..=7).filter(|line| lines.contains(*line)).collect();
        assert_eq!(marked, [2, 3, 4, 5, 6]);
    }

    #[test]
    fn all_of_test_counts_and_any_of_test_does_not() {
        assert!(test_lines("#[cfg(all(test, unix))]\nfn a() {}").contains(2));
        assert!(!test_lines("#[cfg(any(test, feature))]\nfn a() {}").contains(2));
        assert!(!test_lines("#[cfg(not(test))]\nfn a() {}").contains(2));
    }

    #[test]
    fn modules_in_other_files_are_named() {
        assert_eq!(test_modules("#[cfg(test)]\npub(crate) mod naive;\n#[cfg(test)]\nuse a::b;\nmod c;"), ["naive"]);
    }
}
