//! What the exit codes mean: one table for the reference, the manual page and the tests.

pub const CODES: &[(u8, &str)] = &[
    (0, "done"),
    (1, "failed"),
    (2, "the command line, a job file or a settings file is wrong"),
    (3, "not found"),
    (4, "not logged in, or not allowed"),
    (5, "conflict: the state is not what the call was made for"),
    (6, "refused: it can never run here"),
    (
        7,
        "nobody answers or nobody leads; the same command may be repeated, unless it says that it may have taken effect",
    ),
    (8, "the job that was waited for did not succeed"),
    (9, "`plan --exit-code`: something would wait; `apply --dry-run`: something would change"),
    (124, "timed out"),
    (125, "`muster run` failed before the job did"),
    (130, "interrupted"),
    (141, "whoever read the output went away"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use muster_proto::convert::error::ErrorCode;
    use std::path::Path;

    fn reference() -> String {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/cli.md");
        std::fs::read_to_string(file).expect("the reference")
    }

    #[test]
    fn the_reference_has_the_same_table() {
        let text = reference();
        let table: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("| code |")).skip(2).collect();
        let rows: Vec<String> = CODES.iter().map(|(code, meaning)| format!("| {code} | {meaning} |")).collect();
        assert_eq!(table[..rows.len()], rows, "docs/reference/cli.md, `Exit codes`");
        assert!(!table[rows.len()].starts_with('|'), "docs/reference/cli.md has a code that is not in the table");
    }

    #[test]
    fn every_error_ends_with_a_code_of_the_table_and_stands_in_the_reference() {
        let text = reference();
        for code in ErrorCode::ALL {
            assert!(CODES.iter().any(|(known, _)| *known == code.exit_code()), "{code}");
            let row = format!("| {code} | `{}` | {} |", code.name(), code.exit_code());
            assert!(text.contains(&row), "docs/reference/cli.md lacks {row}");
        }
    }
}
