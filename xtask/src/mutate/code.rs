//! The rules taken out of the code: one patch at a time, in a copy of the project.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::cargo::{Verdict, test};
use super::copy::sync;
use super::report::{Outcome, Report};
use super::table::Mutation;
use crate::tree::list;

/// The copy and its build folder, both below `target/mutate`.
struct Bench {
    root: PathBuf,
    tree: PathBuf,
    paths: Vec<String>,
    limit: Duration,
}

pub fn run(root: &Path, mutations: &[Mutation], limit: Duration, report: &mut Report) -> Result<()> {
    let home = root.join("target/mutate");
    let bench = Bench { root: root.to_path_buf(), tree: home.join("tree"), paths: list(root)?, limit };
    bench.restore()?;
    let mut proven: Vec<(&str, &str, &str)> = Vec::new();
    for mutation in mutations {
        let wanted = (mutation.package.as_str(), mutation.suite.as_str(), mutation.test.as_str());
        let doubt = if proven.contains(&wanted) { None } else { bench.doubt(mutation)? };
        let outcome = match doubt {
            Some(doubt) => Outcome::Invalid(doubt),
            None => {
                proven.push(wanted);
                bench.outcome(mutation)?
            }
        };
        report.add("code", &mutation.id, &mutation.rule, outcome);
    }
    Ok(())
}

impl Bench {
    /// Undoes every patch, one left by an interrupted run included.
    fn restore(&self) -> Result<()> {
        sync(&self.root, &self.tree, &self.paths).map(|_| ())
    }

    /// Why the test proves nothing: it fails without the mutation too, or it does not exist.
    fn doubt(&self, mutation: &Mutation) -> Result<Option<String>> {
        Ok(match self.test(mutation, "unmutated")? {
            Verdict::Passed(0) => Some(format!("no test is named `{}` in {}", mutation.test, mutation.package)),
            Verdict::Passed(_) => None,
            other => Some(format!("`{}` does not pass before the mutation: {other:?}", mutation.test)),
        })
    }

    fn outcome(&self, mutation: &Mutation) -> Result<Outcome> {
        let verdict = match self.patch(mutation) {
            Ok(()) => self.test(mutation, "mutated"),
            Err(problem) => return Ok(Outcome::Invalid(problem)),
        };
        self.restore()?;
        Ok(Outcome::of(verdict?))
    }

    /// Writes all edits, or none if one cannot be made; two may be in the same file.
    fn patch(&self, mutation: &Mutation) -> Result<(), String> {
        let mut texts: Vec<(&str, String)> = Vec::new();
        for edit in &mutation.edits {
            let at = match texts.iter().position(|(file, _)| *file == edit.file) {
                Some(at) => at,
                None => {
                    let text = std::fs::read_to_string(self.tree.join(&edit.file))
                        .map_err(|error| format!("cannot read {}: {error}", edit.file))?;
                    texts.push((&edit.file, text));
                    texts.len() - 1
                }
            };
            texts[at].1 = edit.apply(&texts[at].1)?;
        }
        for (file, text) in texts {
            std::fs::write(self.tree.join(file), text).map_err(|error| format!("cannot write {file}: {error}"))?;
        }
        Ok(())
    }

    fn test(&self, mutation: &Mutation, step: &str) -> Result<Verdict> {
        if !mutation.build.is_empty() {
            let build = ["build", "--locked", "--package", &mutation.build];
            match self.cargo(&build, mutation, &format!("{step}-build"))? {
                Verdict::Passed(_) => {}
                other => return Ok(other),
            }
        }
        let mut args = vec!["test", "--locked", "--package", &mutation.package];
        match mutation.suite.as_str() {
            "" => {}
            "lib" => args.push("--lib"),
            suite => args.extend(["--test", suite]),
        }
        args.push(&mutation.test);
        self.cargo(&args, mutation, step)
    }

    fn cargo(&self, args: &[&str], mutation: &Mutation, step: &str) -> Result<Verdict> {
        let home = self.tree.parent().context("the copy lies in a folder")?;
        let mut command = Command::new("cargo");
        command.args(args).current_dir(&self.tree).env("CARGO_TARGET_DIR", home.join("target"));
        // What cargo tells xtask about its own package is not for the copy.
        command.env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO_PKG_NAME");
        test(command, self.limit, &home.join("log").join(format!("{}-{step}.log", mutation.id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutate::table::Edit;

    fn edit(file: &str, find: &str, replace: &str) -> Edit {
        Edit { file: file.into(), find: find.into(), replace: replace.into() }
    }

    #[test]
    fn a_patch_is_made_whole_or_not_at_all_and_undone() {
        let base = std::env::temp_dir().join(format!("xtask-patch-{}", std::process::id()));
        let (root, tree) = (base.join("root"), base.join("tree"));
        std::fs::create_dir_all(&root).expect("the temporary folder can be written");
        std::fs::write(root.join("a.rs"), "one two").expect("the file can be written");
        let bench = Bench { root, tree: tree.clone(), paths: vec!["a.rs".into()], limit: Duration::ZERO };
        bench.restore().expect("the copy can be made");
        let mutation = |edits| Mutation {
            id: "4.1a".into(),
            rule: "r".into(),
            edits,
            package: "p".into(),
            build: String::new(),
            suite: String::new(),
            test: "t".into(),
        };
        let read = || std::fs::read_to_string(tree.join("a.rs")).expect("the copy exists");

        let half = mutation(vec![edit("a.rs", "one", "1"), edit("a.rs", "three", "3")]);
        assert!(bench.patch(&half).is_err());
        assert_eq!(read(), "one two");

        let whole = mutation(vec![edit("a.rs", "one", "1"), edit("a.rs", "two", "2")]);
        bench.patch(&whole).expect("both texts are there once");
        assert_eq!(read(), "1 2");
        bench.restore().expect("the copy can be restored");
        assert_eq!(read(), "one two");
        std::fs::remove_dir_all(&base).expect("the temporary folder can be removed");
    }
}
