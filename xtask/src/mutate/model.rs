//! The rules taken out of the small model. The model lists its clauses itself and leaves one out
//! when an environment variable names it; its search must then find a state that breaks a rule.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::cargo::{Verdict, test};
use super::report::{Outcome, Report};

const PACKAGE: &str = "muster-tests";
/// Prints one line for each clause: `clause ID: what it says`.
const LIST_TEST: &str = "list_clauses";
/// Searches the model and fails where an invariant breaks.
const RULES_TEST: &str = "all_rules_hold";
const WITHOUT: &str = "MUSTER_MODEL_WITHOUT";
const FOLDER: &str = "tests/src/model";

#[derive(Debug, PartialEq, Eq)]
pub struct Clause {
    pub id: String,
    pub rule: String,
}

/// Asks the model for its clauses; none where there is no model.
pub fn clauses(root: &Path) -> Result<Vec<Clause>> {
    if !root.join(FOLDER).exists() && !root.join(format!("{FOLDER}.rs")).exists() {
        println!("mutate: there is no model in {FOLDER}");
        return Ok(Vec::new());
    }
    let output = command(root, LIST_TEST, None)
        .output()
        .context("cannot start cargo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!(
            "the model cannot list its clauses:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let clauses: Vec<Clause> = text.lines().filter_map(clause).collect();
    if clauses.is_empty() {
        bail!("the test `{LIST_TEST}` of {PACKAGE} printed no line `clause ID: rule`");
    }
    Ok(clauses)
}

/// libtest may put its own `test name ... ` before the first line that a test prints.
fn clause(line: &str) -> Option<Clause> {
    let after_name = line.split_once(" ... ").map_or(line, |(_, rest)| rest);
    let (id, rule) = after_name.strip_prefix("clause ")?.split_once(": ")?;
    Some(Clause {
        id: id.to_string(),
        rule: rule.to_string(),
    })
}

pub fn run(root: &Path, clauses: &[Clause], limit: Duration, report: &mut Report) -> Result<()> {
    let logs = root.join("target/mutate/log");
    match test(
        command(root, RULES_TEST, None),
        limit,
        &logs.join("model-whole.log"),
    )? {
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
    command
        .args(["test", "--locked", "--package", PACKAGE, "--lib", name])
        .current_dir(root);
    command.args(["--", "--nocapture", "--test-threads=1"]);
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
    fn clauses_are_read_from_among_other_lines() {
        let text = "running 1 test\ntest model::list_clauses ... clause 4.3a: lower tokens: refused\nclause 4.6b: leases end\nok\n";
        let clauses: Vec<Clause> = text.lines().filter_map(clause).collect();
        assert_eq!(clauses.len(), 2);
        assert_eq!(
            clauses[0],
            Clause {
                id: "4.3a".into(),
                rule: "lower tokens: refused".into()
            }
        );
        assert_eq!(clauses[1].id, "4.6b");
    }
}
