//! What the engine and the vocabulary may not name: anything that would make a decision depend on
//! more than the replicated state.

use super::{Finding, RustFile};

/// (name, why it is banned from shipped code of the engine).
const ENGINE: &[(&str, &str)] = &[
    ("std::time::Instant", CLOCK),
    ("Instant::now", CLOCK),
    ("SystemTime", CLOCK),
    ("std::fs", OUTSIDE),
    ("std::net", OUTSIDE),
    ("std::env", OUTSIDE),
    ("io::stdin", OUTSIDE),
    ("io::stdout", OUTSIDE),
    ("io::stderr", OUTSIDE),
    ("std::process", OUTSIDE),
    ("std::os", OUTSIDE),
    ("println!", OUTSIDE),
    ("print!", OUTSIDE),
    ("eprintln!", OUTSIDE),
    ("eprint!", OUTSIDE),
    ("std::thread", "a decision must not depend on how threads interleave"),
    ("tokio", "a decision must not depend on how tasks interleave"),
    ("rand", "a decision must be the same on every replica; a seed in State is the only randomness"),
    ("HashMap", ORDER),
    ("HashSet", ORDER),
    ("unsafe", "undefined behaviour would differ between replicas"),
];

const CLOCK: &str = "a decision must be the same at every replay; time is an argument";
const OUTSIDE: &str = "the engine is pure; the outside belongs to its callers";
const ORDER: &str = "its order differs from run to run and would leak into decisions";

pub fn check(files: &[RustFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        if file.is_under("engine/src") {
            check_names(file, ENGINE, "in the engine", &mut findings);
        }
        if file.is_under("common/src") {
            check_names(file, &[("HashMap", ORDER), ("HashSet", ORDER)], "in the vocabulary", &mut findings);
        }
        if file.is_under("engine/src/state") || file.is_under("engine/src/apply") {
            let why = "State and apply are bit-equal on every replica; floats round";
            check_names(file, &[("f32", why), ("f64", why)], "in State or apply", &mut findings);
            check_literals(file, why, &mut findings);
        }
    }
    findings
}

fn check_names(file: &RustFile, bans: &[(&str, &'static str)], place: &str, findings: &mut Vec<Finding>) {
    for name in file.shipped_names() {
        for (banned, why) in bans.iter().filter(|(banned, _)| name.mentions(banned)) {
            findings.push(Finding::new(file.path, name.line, format!("`{banned}` {place}"), why, fix_for(banned)));
        }
    }
}

/// A float can also hide in an untyped literal such as `0.5`.
fn check_literals(file: &RustFile, why: &'static str, findings: &mut Vec<Finding>) {
    for (number, line) in file.code.lines().enumerate() {
        if !file.is_test(number + 1) && has_float_literal(line) {
            let what = "a float literal in State or apply".to_string();
            findings.push(Finding::new(file.path, number + 1, what, why, fix_for("f64")));
        }
    }
}

/// Digits, a dot, digits; `self.0.1` is no float since a field comes before it.
fn has_float_literal(line: &str) -> bool {
    let bytes = line.as_bytes();
    (1..bytes.len().saturating_sub(1)).any(|dot| {
        let around = bytes[dot] == b'.' && bytes[dot - 1].is_ascii_digit() && bytes[dot + 1].is_ascii_digit();
        let before = bytes[..dot].iter().rev().find(|byte| !byte.is_ascii_digit() && **byte != b'_');
        around && !before.is_some_and(|byte| *byte == b'.' || crate::source::is_word(*byte))
    })
}

fn fix_for(banned: &str) -> &'static str {
    match banned {
        "HashMap" => "use BTreeMap",
        "HashSet" => "use BTreeSet",
        "f32" | "f64" => "use fixed point integers, or move the computation into plan/",
        "std::time::Instant" | "Instant::now" | "SystemTime" => "take `now` as an argument",
        "println!" | "print!" | "eprintln!" | "eprint!" => "return the fact as data",
        _ => "move it to the crate that calls the engine",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::brief;
    use crate::tidy::rust_files::rust_files;
    use crate::tree::made_up;

    fn found(path: &str, text: &str) -> Vec<String> {
        brief(&check(&rust_files(&made_up(&[(path, text)]))))
    }

    #[test]
    fn every_ban_is_met_even_inside_a_group() {
        let text = "use std::{fs, time::{Duration, Instant}};\nuse std::collections::HashMap;\nfn f() { println!(); }\nunsafe fn g() {}\n";
        assert_eq!(
            found("engine/src/plan/mod.rs", text),
            [
                "engine/src/plan/mod.rs:1 `std::fs` in the engine",
                "engine/src/plan/mod.rs:1 `std::time::Instant` in the engine",
                "engine/src/plan/mod.rs:2 `HashMap` in the engine",
                "engine/src/plan/mod.rs:3 `println!` in the engine",
                "engine/src/plan/mod.rs:4 `unsafe` in the engine",
            ]
        );
    }

    #[test]
    fn each_banned_name_alone_is_a_finding() {
        for (banned, _) in ENGINE {
            let text = if banned.ends_with('!') { format!("{banned}()") } else { format!("{banned}::x()") };
            assert!(!found("engine/src/a.rs", &text).is_empty(), "{banned}");
        }
    }

    #[test]
    fn words_tests_and_other_crates_are_free() {
        let text = "// HashMap, std::fs\nconst A: &str = \"rand\";\n#[cfg(test)]\nmod tests { use std::collections::HashSet; }\n";
        assert_eq!(found("engine/src/lib.rs", text), [""; 0]);
        assert_eq!(found("sim/src/lib.rs", "use std::collections::HashMap;"), [""; 0]);
        assert_eq!(found("engine/src/state/job.rs", "use common::Brand; let operand = brand;"), [""; 0]);
    }

    #[test]
    fn floats_are_banned_from_state_and_apply_only() {
        let text = "fn f(x: f64) {}\nlet a = 0.5;\nlet b = c.0.1;\nlet d = 1..2;\n";
        assert_eq!(
            found("engine/src/state/usage.rs", text),
            [
                "engine/src/state/usage.rs:1 `f64` in State or apply",
                "engine/src/state/usage.rs:2 a float literal in State or apply"
            ]
        );
        assert_eq!(found("engine/src/plan/rank.rs", text), [""; 0]);
    }

    #[test]
    fn the_vocabulary_has_no_unordered_maps() {
        assert_eq!(found("common/src/a.rs", "use std::collections::HashMap;").len(), 1);
    }
}
