//! Marks of unfinished work, skipped tests and unbounded mailboxes.

use super::{Finding, RustFile};
use crate::source::line_of;

/// (name, why, what to do).
const LEFTOVERS: &[(&str, &str, &str)] = &[
    ("todo!", UNFINISHED, FINISH),
    ("unimplemented!", UNFINISHED, FINISH),
    ("dbg!", "debug output is not for users", "remove it, or make it a tracing event"),
    ("unbounded_channel", UNBOUNDED, BOUND),
    ("UnboundedSender", UNBOUNDED, BOUND),
    ("UnboundedReceiver", UNBOUNDED, BOUND),
];

const UNFINISHED: &str = "a command that panics when used is not there";
const FINISH: &str = "finish it, or refuse with a typed error that says so";
const UNBOUNDED: &str = "there is a limit on everything; a full mailbox must push back, not grow";
const BOUND: &str = "use a bounded channel, or a watch where only the latest fact counts";

pub fn check(files: &[RustFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| !file.is_under("xtask")) {
        for name in &file.names {
            for (left, why, fix) in LEFTOVERS.iter().filter(|(left, ..)| name.mentions(left)) {
                findings.push(Finding::new(file.path, name.line, format!("`{left}` left behind"), why, fix));
            }
        }
        for (at, _) in file.code.match_indices("#[ignore") {
            findings.push(Finding::new(
                file.path,
                line_of(&file.code, at),
                "`#[ignore]` left behind".to_string(),
                "a test that does not run proves nothing",
                "make it fit to run always, or move it to a command of its own",
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::brief;
    use crate::tidy::rust_files::rust_files;
    use crate::tree::made_up;

    #[test]
    fn leftovers_are_found_in_tests_too_and_not_in_words() {
        let text = "// todo!()\n#[cfg(test)]\nmod tests {\n #[test]\n #[ignore = \"slow\"]\n fn a() { todo!() }\n}\nuse tokio::sync::mpsc::{channel, unbounded_channel};\n";
        let tree = made_up(&[("a/src/lib.rs", text), ("xtask/src/a.rs", "fn a() { todo!() }")]);
        assert_eq!(
            brief(&check(&rust_files(&tree))),
            [
                "a/src/lib.rs:6 `todo!` left behind",
                "a/src/lib.rs:8 `unbounded_channel` left behind",
                "a/src/lib.rs:5 `#[ignore]` left behind",
            ]
        );
    }
}
