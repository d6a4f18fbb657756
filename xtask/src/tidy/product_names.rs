//! The engine and the simulator are general: no other scheduler's name in their code. A named policy is
//! data of ours; the one exception is the folder of trace readers, since formats have names. A comment may
//! say where a rule comes from, and a test may be named after the peer whose rule it shows.

use super::Finding;
use crate::tree::Tree;

const GUARDED: &[&str] = &["engine/src", "sim/src"];
const READERS: &str = "sim/src/trace";

/// In lower case, without separators.
const PRODUCTS: &[&str] = &[
    "gavel",
    "helios",
    "hived",
    "hpcsim",
    "hyperqueue",
    "kubernetes",
    "kueue",
    "lucid",
    "nomad",
    "openpbs",
    "philly",
    "rlscheduler",
    "slurm",
    "tiresias",
    "volcano",
    "yarn",
];

const WHY: &str =
    "the engine and the simulator serve every policy; a branch for one peer would be a lie about the rest";
const FIX: &str = "name the behaviour, or move a format's reader to sim/src/trace/";

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for folder in GUARDED {
        for file in tree.under(folder).filter(|file| !file.path.starts_with(&format!("{READERS}/"))) {
            let path_line = std::iter::once((0, file.path.as_str()));
            let lines = file.text.lines().enumerate().map(|(number, line)| (number + 1, line));
            for (number, line) in path_line.chain(lines).filter(|(_, line)| !line.trim_start().starts_with("//")) {
                for product in products_in(line) {
                    let what = format!("the name `{product}` of another product");
                    findings.push(Finding::new(&file.path, number, what, WHY, FIX));
                }
            }
        }
    }
    findings
}

/// The products named in a line, as a word or as part of an identifier.
fn products_in(line: &str) -> Vec<&'static str> {
    let mut found = Vec::new();
    for identifier in line.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '-') {
        let words = words_of(identifier);
        let pairs = words.windows(2).map(|pair| pair.concat());
        let whole = std::iter::once(identifier.to_lowercase());
        for word in words.iter().cloned().chain(pairs).chain(whole) {
            found.extend(PRODUCTS.iter().filter(|product| **product == word));
        }
    }
    found.sort();
    found.dedup();
    found
}

/// `readTiresias_csv` has the words read, tiresias and csv.
fn words_of(identifier: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut after_lower = false;
    for c in identifier.chars() {
        let separates = c == '_' || c == '-';
        if separates || after_lower && c.is_uppercase() {
            words.push(String::new());
        }
        if !separates {
            words.last_mut().expect("there is always a word").extend(c.to_lowercase());
        }
        after_lower = c.is_lowercase();
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::brief;
    use crate::tree::made_up;

    #[test]
    fn names_are_found_in_identifiers_and_paths() {
        for line in ["// like Slurm does", "fn readTiresias_csv()", "RLScheduler", "rl_scheduler", "HiveD", "k-kueue-x"]
        {
            assert_eq!(products_in(line).len(), 1, "{line}");
        }
        for line in ["archived", "elucidate", "monad nomadic", "philanthropy", "yarns"] {
            assert_eq!(products_in(line).len(), 0, "{line}");
        }
    }

    #[test]
    fn only_readers_of_traces_tests_and_comments_may_name_a_peer() {
        let tree = made_up(&[
            ("engine/src/slurm.rs", ""),
            ("engine/tests/slurm.rs", "fn slurm() {}"),
            ("sim/src/world.rs", "// of philly\nfn philly() {}"),
            ("sim/src/trace/philly.rs", "// philly"),
            ("docs/a.md", "Slurm"),
            ("sim/tests/a.rs", "lucid"),
        ]);
        assert_eq!(
            brief(&check(&tree)),
            [
                "engine/src/slurm.rs:0 the name `slurm` of another product",
                "sim/src/world.rs:2 the name `philly` of another product"
            ]
        );
    }
}
