//! The rules taken out of the small model. The model keeps its clauses in a table and leaves one out
//! when an environment variable names it; its search must then find a state that breaks a rule.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use super::cargo::{Verdict, test};
use super::report::{Outcome, Report};
use crate::source::{after_matching, mask};
use crate::tree::Tree;

const PACKAGE: &str = "muster-tests";
/// Searches the model and fails where an invariant breaks.
const RULES_TEST: &str = "all_rules_hold";
const WITHOUT: &str = "MUSTER_MODEL_WITHOUT";
const FOLDER: &str = "tests/src/model";
const TABLE: &str = "const CLAUSES";

#[derive(Debug, PartialEq, Eq)]
pub struct Clause {
    pub id: String,
    pub rule: String,
}

/// The clauses of the model's table, read from its source; none where there is no model.
pub fn clauses(root: &Path) -> Result<Vec<Clause>> {
    let tree = Tree::read(root)?;
    let mut sources = tree.under(FOLDER).peekable();
    if sources.peek().is_none() {
        println!("mutate: there is no model in {FOLDER}");
        return Ok(Vec::new());
    }
    let Some(source) = sources.find(|file| mask(&file.text).contains(TABLE)) else {
        bail!("no file of {FOLDER} holds the table `{TABLE}`");
    };
    match in_table(&source.text) {
        clauses if clauses.is_empty() => bail!("the table `{TABLE}` of {} has no row to read", source.path),
        clauses => Ok(clauses),
    }
}

/// The rows of the table: of each element the first two string literals, its id and its text.
fn in_table(text: &str) -> Vec<Clause> {
    let code = mask(text);
    let bytes = code.as_bytes();
    let Some(table) = code.find(TABLE) else {
        return Vec::new();
    };
    let Some(open) = code[table..].find('=').and_then(|at| code[table + at..].find('[').map(|more| table + at + more))
    else {
        return Vec::new();
    };
    let close = after_matching(bytes, open) - 1;
    let mut found = Vec::new();
    let mut at = open + 1;
    while let Some(element) = code[at..close].find(['(', '{']).map(|offset| at + offset) {
        at = after_matching(bytes, element);
        let mut literals = literals(&text[element..at], &code[element..at]);
        if let (Some(id), Some(rule)) = (literals.next(), literals.next()) {
            found.push(Clause { id, rule });
        }
    }
    found
}

/// The plain string literals of a piece of source; `code` is the same piece masked.
fn literals<'a>(text: &'a str, code: &'a str) -> impl Iterator<Item = String> + 'a {
    let mut at = 0;
    std::iter::from_fn(move || {
        let quote = |from: usize| text[from..].find('"').map(|offset| from + offset);
        let open = quote(at).filter(|open| code.as_bytes()[*open] == b' ')?;
        let mut close = quote(open + 1)?;
        while text[..close].ends_with('\\') {
            close = quote(close + 1)?;
        }
        at = close + 1;
        Some(text[open + 1..close].replace("\\\"", "\""))
    })
}

pub fn run(root: &Path, clauses: &[Clause], limit: Duration, report: &mut Report) -> Result<()> {
    let logs = root.join("target/mutate/log");
    match test(command(root, RULES_TEST, None), limit, &logs.join("model-whole.log"))? {
        Verdict::Passed(0) => bail!("no test is named `{RULES_TEST}` in {PACKAGE}"),
        Verdict::Passed(_) => {}
        other => bail!("the whole model does not pass: {other:?}"),
    }
    for clause in clauses {
        let log = logs.join(format!("model-{}.log", clause.id));
        let verdict = test(command(root, RULES_TEST, Some(&clause.id)), limit, &log)?;
        report.add("model", &clause.id, &clause.rule, Outcome::of(verdict));
    }
    Ok(())
}

fn command(root: &Path, name: &str, without: Option<&str>) -> Command {
    let mut command = Command::new("cargo");
    command.args(["test", "--locked", "--package", PACKAGE, "--lib", name]).current_dir(root);
    match without {
        Some(id) => command.env(WITHOUT, id),
        None => command.env_remove(WITHOUT),
    };
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clauses_are_read_from_the_table_in_either_shape() {
        let text = r#"
const OTHER: &[u8] = b"x";
// "a comment"
pub const CLAUSES: &[Clause] = &[
    clause("3a", "a \"lower\" token, refused (always)", "s", |r| { r.x = false }),
    Clause { id: "6b", text: "leases end", remove: f },
];
const AFTER: &[(&str, &str)] = &[("no", "no")];
"#;
        let clause = |id: &str, rule: &str| Clause { id: id.into(), rule: rule.into() };
        let expected = [clause("3a", "a \"lower\" token, refused (always)"), clause("6b", "leases end")];
        assert_eq!(in_table(text), expected);
    }

    #[test]
    fn a_file_without_the_table_has_no_clauses() {
        assert_eq!(in_table("// const CLAUSES = [(\"a\", \"b\")]"), []);
    }
}
