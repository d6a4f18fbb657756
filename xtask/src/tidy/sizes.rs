//! No file above 600 lines of shipped code, no shipped function above 70.

use super::{Finding, RustFile};
use crate::source::functions;

const FILE_LINES: usize = 600;
const FUNCTION_LINES: usize = 70;

/// Files or functions that may be longer, each with the reason: (path, function or "", reason).
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

pub fn check(files: &[RustFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| !file.test) {
        let lines = (1..=file.code.lines().count()).filter(|line| !file.is_test(*line)).count();
        if lines > FILE_LINES && !is_excepted(file.path, "") {
            findings.push(Finding::new(
                file.path,
                0,
                format!("{lines} lines outside tests, more than {FILE_LINES}"),
                "a file should be readable in one sitting",
                "split it by concern; a dispatcher first",
            ));
        }
        for function in functions(&file.code) {
            let too_long = function.lines() > FUNCTION_LINES && !file.is_test(function.first_line);
            if too_long && !is_excepted(file.path, &function.name) {
                findings.push(Finding::new(
                    file.path,
                    function.first_line,
                    format!("`fn {}` has {} lines, more than {FUNCTION_LINES}", function.name, function.lines()),
                    "a function should fit on a screen",
                    "name its phases and make each a function",
                ));
            }
        }
    }
    findings
}

fn is_excepted(path: &str, function: &str) -> bool {
    EXCEPTIONS.iter().any(|(file, name, _)| *file == path && *name == function)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::brief;
    use crate::tidy::rust_files::rust_files;
    use crate::tree::made_up;

    #[test]
    fn the_line_after_the_limit_is_one_too_many() {
        let fits = "// x\n".repeat(FILE_LINES);
        let long = "// x\n".repeat(FILE_LINES + 1);
        let tested = format!("{fits}#[cfg(test)]\nmod tests {{\n{long}}}\n");
        let tree = made_up(&[
            ("a/src/fits.rs", &fits),
            ("a/src/long.rs", &long),
            ("a/src/tested.rs", &tested),
            ("a/src/tests.rs", &long),
            ("a/tests/it.rs", &long),
        ]);
        assert_eq!(brief(&check(&rust_files(&tree))), ["a/src/long.rs:0 601 lines outside tests, more than 600"]);
    }

    #[test]
    fn long_functions_are_named() {
        let body = |lines: usize| format!("{{\n{}}}\n", "    g();\n".repeat(lines));
        let text = format!("fn fits() {}\nfn long() {}", body(FUNCTION_LINES - 2), body(FUNCTION_LINES - 1));
        let tree = made_up(&[("a/src/lib.rs", &text)]);
        assert_eq!(brief(&check(&rust_files(&tree))), ["a/src/lib.rs:72 `fn long` has 71 lines, more than 70"]);
    }

    #[test]
    fn every_exception_has_a_reason() {
        assert!(EXCEPTIONS.iter().all(|(path, _, reason)| !path.is_empty() && reason.len() > 10));
    }
}
