//! Runs `cargo test` under a time limit and reads from its output what happened.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// What a test run showed.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All tests that ran passed; how many there were.
    Passed(usize),
    /// The names of the tests that failed, at least one.
    Failed(Vec<String>),
    /// No test ran to a result: the code does not build, or the test binary died. The last lines.
    Broken(String),
    /// The limit passed; the test that was running, where the output tells.
    TimedOut(Option<String>),
}

/// Runs a prepared `cargo test`, its output into `log`, and kills all of it when the limit passes.
pub fn test(mut command: Command, limit: Duration, log: &Path) -> Result<Verdict> {
    if let Some(folder) = log.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let output = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    // A group of its own lets the kill reach what the tests started.
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
    let mut child = command.spawn().context("cannot start cargo")?;
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() >= deadline {
            let group = format!("-{}", child.id());
            Command::new("kill").args(["-KILL", "--", &group]).status().context("cannot stop the tests")?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let text = String::from_utf8_lossy(&std::fs::read(log)?).into_owned();
    Ok(match status {
        Some(status) => verdict(&text, status.success()),
        None => Verdict::TimedOut(running(&text)),
    })
}

/// What the output of a finished `cargo test` says.
pub fn verdict(text: &str, success: bool) -> Verdict {
    let mut failed = listed_failures(text);
    if failed.is_empty() {
        failed = text.lines().filter_map(failed_test).map(String::from).collect();
    }
    let passed = text.lines().filter_map(passed_count).sum();
    match (success, failed.is_empty()) {
        (true, true) => Verdict::Passed(passed),
        (_, false) => Verdict::Failed(failed),
        (false, true) => Verdict::Broken(last_lines(text)),
    }
}

/// The names below the last `failures:` of each test binary; complete even where tests print freely.
fn listed_failures(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut section: Option<Vec<String>> = None;
    for line in text.lines() {
        if line == "failures:" {
            section = Some(Vec::new());
        } else if line.starts_with("test result:") {
            found.extend(section.take().unwrap_or_default());
        } else if let (Some(names), Some(name)) = (&mut section, line.strip_prefix("    ")) {
            let is_name = !name.is_empty() && !name.contains(char::is_whitespace);
            names.extend(is_name.then(|| name.to_string()));
        }
    }
    found
}

/// The name in `test path::name ... FAILED`: what there is when a binary dies before its list.
fn failed_test(line: &str) -> Option<&str> {
    let name = line.strip_prefix("test ")?.strip_suffix("... FAILED")?.trim_end();
    Some(name.strip_suffix(" - should panic").unwrap_or(name))
}

/// The number in `test result: ok. 3 passed; ...`.
fn passed_count(line: &str) -> Option<usize> {
    let (_, rest) = line.strip_prefix("test result: ")?.split_once(". ")?;
    rest.split_once(" passed")?.0.parse().ok()
}

/// The test that libtest called slow, or that began a line and did not end it.
fn running(text: &str) -> Option<String> {
    let slow = |line: &str| Some(line.strip_prefix("test ")?.split_once(" has been running")?.0.to_string());
    let open = |line: &str| Some(line.strip_prefix("test ")?.strip_suffix(" ...")?.to_string());
    text.lines().rev().find_map(|line| slow(line).or_else(|| open(line.trim_end())))
}

fn last_lines(text: &str) -> String {
    const KEPT: usize = 12;
    let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("error")).take(KEPT).collect();
    if !errors.is_empty() {
        return errors.join("\n");
    }
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(KEPT)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failing_tests_are_named() {
        let text = "running 3 tests\ntest a::b ... ok\ntest c::d ... FAILED\ntest e - should panic ... FAILED\n\nfailures:\n\n---- c::d stdout ----\n    noise\n\nfailures:\n    c::d\n    e\n\ntest result: FAILED. 1 passed; 2 failed; 0 ignored\nerror: test failed, to rerun pass `--lib`\n";
        assert_eq!(verdict(text, false), Verdict::Failed(vec!["c::d".into(), "e".into()]));
    }

    #[test]
    fn a_test_that_prints_freely_is_still_named() {
        let text = "test a::b ... seed 7\nFAILED\n\nfailures:\n\nfailures:\n    a::b\n\ntest result: FAILED. 0 passed; 1 failed\n";
        assert_eq!(verdict(text, false), Verdict::Failed(vec!["a::b".into()]));
        assert_eq!(verdict("test a::b ... FAILED\nerror: died\n", false), Verdict::Failed(vec!["a::b".into()]));
    }

    #[test]
    fn passing_tests_are_counted_over_all_binaries() {
        let text = "running 2 tests\ntest result: ok. 2 passed; 0 failed; 0 ignored\nrunning 0 tests\ntest result: ok. 0 passed; 0 failed\n";
        assert_eq!(verdict(text, true), Verdict::Passed(2));
        assert_eq!(verdict("test result: ok. 0 passed; 0 failed\n", true), Verdict::Passed(0));
    }

    #[test]
    fn code_that_does_not_build_is_no_failing_test() {
        let text = "   Compiling a\nerror[E0425]: cannot find value `x`\n --> a.rs:1\nerror: could not compile `a`\n";
        let Verdict::Broken(why) = verdict(text, false) else { panic!("no test ran") };
        assert_eq!(why, "error[E0425]: cannot find value `x`\nerror: could not compile `a`");
    }

    #[test]
    fn a_test_binary_that_dies_is_no_failing_test() {
        let text = "running 1 test\nthread panicked\n";
        assert!(matches!(verdict(text, false), Verdict::Broken(_)));
    }

    #[test]
    fn the_test_that_hung_is_named() {
        assert_eq!(running("test a ... ok\ntest b::c has been running for over 60 seconds\n"), Some("b::c".into()));
        assert_eq!(running("running 1 test\ntest b::c ... "), Some("b::c".into()));
        assert_eq!(running("Compiling\n"), None);
    }

    #[test]
    fn a_run_beyond_its_limit_is_killed_with_its_children() {
        let log = std::env::temp_dir().join(format!("xtask-limit-{}.log", std::process::id()));
        let mut command = Command::new("sh");
        command.args(["-c", "echo 'test a::b ...'; sleep 600 & wait"]);
        let verdict = test(command, Duration::from_millis(300), &log).expect("sh can be started");
        assert_eq!(verdict, Verdict::TimedOut(Some("a::b".into())));
        std::fs::remove_file(&log).expect("the log was written");
    }
}
