//! `cargo xtask tidy`: the house rules that neither the compiler nor clippy can hold.

mod adrs;
mod edges;
mod engine_bans;
mod leftovers;
mod libraries;
mod links;
mod machine_words;
mod manifests;
mod product_names;
mod rust_files;
mod seams;
mod sizes;

use anyhow::Result;

use crate::tree::{Tree, root};
use rust_files::{RustFile, rust_files};

/// One broken rule at one place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    pub path: String,
    /// 1-based; 0 speaks of the file as a whole.
    pub line: usize,
    pub what: String,
    pub why: &'static str,
    pub fix: &'static str,
}

impl Finding {
    fn new(path: &str, line: usize, what: String, why: &'static str, fix: &'static str) -> Finding {
        Finding { path: path.to_string(), line, what, why, fix }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Finding { path, line, what, why, fix } = self;
        write!(f, "{path}:{line}: {what}\n    why: {why}\n    do:  {fix}")
    }
}

/// Checks the working tree; true if nothing was found.
pub fn run() -> Result<bool> {
    let tree = Tree::read(&root())?;
    let findings = check(&tree);
    for finding in &findings {
        println!("{finding}");
    }
    let files = tree.files.len();
    match findings.len() {
        0 => println!("tidy: {files} files checked, no findings"),
        count => println!("tidy: {files} files checked, {count} findings"),
    }
    Ok(findings.is_empty())
}

/// All findings, ordered by place.
fn check(tree: &Tree) -> Vec<Finding> {
    let rust = rust_files(tree);
    let mut findings = edges::check(tree);
    findings.extend(manifests::check(tree));
    findings.extend(sizes::check(&rust));
    findings.extend(engine_bans::check(&rust));
    findings.extend(seams::check(&rust));
    findings.extend(leftovers::check(&rust));
    findings.extend(libraries::check(&rust));
    findings.extend(product_names::check(tree));
    findings.extend(links::check(tree));
    findings.extend(machine_words::check(tree));
    findings.extend(adrs::check(tree));
    findings.sort();
    findings.dedup();
    findings
}

/// "path:line what" of each finding: what the checks' own tests compare.
#[cfg(test)]
fn brief(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(|finding| format!("{}:{} {}", finding.path, finding.line, finding.what)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::made_up;

    #[test]
    fn findings_are_ordered_and_say_what_to_do() {
        let tree = made_up(&[("engine/src/b.rs", "fn f() { dbg!(1) }"), ("engine/src/a.rs", "use rand::Rng;")]);
        let findings = check(&tree);
        assert_eq!(
            brief(&findings),
            ["engine/src/a.rs:1 `rand` in the engine", "engine/src/b.rs:1 `dbg!` left behind"]
        );
        let text = findings[0].to_string();
        assert!(text.contains("why: ") && text.contains("do:  "), "{text}");
    }

    #[test]
    fn an_empty_tree_has_no_findings() {
        assert_eq!(check(&made_up(&[])), []);
    }
}
