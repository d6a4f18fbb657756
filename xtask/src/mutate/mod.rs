//! `cargo xtask mutate`: takes each rule of the safety protocol away, once in the small model and
//! once in the code, and names the test that then fails. A rule whose removal no test notices is
//! not held.

mod cargo;
mod code;
mod copy;
mod model;
mod report;
mod table;

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::tree::root;
use report::Report;

/// What the command line asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// Only the mutations of this id, in the model and in the code.
    only: Option<String>,
    model: bool,
    code: bool,
    list: bool,
    /// How long one test run, its build included, may take.
    limit: Duration,
}

const LIMIT_S: u64 = 900;

impl Options {
    /// Reads the arguments after `mutate`; the error says what is wrong with them.
    pub fn parse(args: &[String]) -> Result<Options, String> {
        let limit = Duration::from_secs(LIMIT_S);
        let mut options = Options { only: None, model: false, code: false, list: false, limit };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--only" => options.only = Some(args.next().ok_or("--only needs an id")?.clone()),
                "--model" => options.model = true,
                "--code" => options.code = true,
                "--list" => options.list = true,
                "--limit-s" => {
                    let seconds = args.next().and_then(|value| value.parse().ok()).filter(|seconds| *seconds > 0);
                    options.limit = Duration::from_secs(seconds.ok_or("--limit-s needs a number of seconds")?);
                }
                other => return Err(format!("mutate does not know `{other}`")),
            }
        }
        if options.model && options.code {
            return Err("--model and --code exclude each other; without either both run".to_string());
        }
        Ok(options)
    }

    fn wants(&self, id: &str) -> bool {
        self.only.as_ref().is_none_or(|only| report::short(only) == report::short(id))
    }
}

/// Runs the mutations asked for; true if a test noticed each of them.
pub fn run(options: &Options) -> Result<bool> {
    let root = root();
    let mut report = Report::default();
    let mutations = if options.model { Vec::new() } else { table::read(&root)? };
    let clauses = if options.code { Vec::new() } else { model::clauses(&root)? };
    let mutations: Vec<_> = mutations.into_iter().filter(|mutation| options.wants(&mutation.id)).collect();
    let clauses: Vec<_> = clauses.into_iter().filter(|clause| options.wants(&clause.id)).collect();
    if mutations.is_empty() && clauses.is_empty() {
        match &options.only {
            Some(id) => bail!("no mutation has the id `{id}`; `cargo xtask mutate --list` names them all"),
            None => bail!("there is no mutation to run; add rows to {}", table::PATH),
        }
    }
    if options.list {
        clauses.iter().for_each(|clause| println!("model {}: {}", clause.id, clause.rule));
        mutations.iter().for_each(|mutation| println!("code  {}: {}", mutation.id, mutation.rule));
        return Ok(true);
    }
    let _alone = alone(&root)?;
    if !clauses.is_empty() {
        model::run(&root, &clauses, options.limit, &mut report)?;
    }
    if !mutations.is_empty() {
        code::run(&root, &mutations, options.limit, &mut report)?;
    }
    Ok(report.close(options.only.is_none()))
}

/// Two runs would patch the same copy of the tree. Held until the file is closed.
fn alone(root: &Path) -> Result<File> {
    let home = root.join("target/mutate");
    std::fs::create_dir_all(&home).with_context(|| format!("making {}", home.display()))?;
    let lock = File::create(home.join("lock")).context("making the lock of target/mutate")?;
    if lock.try_lock().is_err() {
        bail!("another `cargo xtask mutate` runs in this tree; wait for its end");
    }
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_at_once_are_refused() {
        let root = std::env::temp_dir().join(format!("mutate-lock-{}", std::process::id()));
        let first = alone(&root).unwrap();
        assert!(alone(&root).is_err());
        drop(first);
        assert!(alone(&root).is_ok());
        std::fs::remove_dir_all(root).unwrap();
    }

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(&line.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn flags_are_read() {
        let options = parse("--only 4.6a --code --limit-s 5").expect("these flags exist");
        assert_eq!(options.only.as_deref(), Some("4.6a"));
        assert!(options.code && !options.model && !options.list);
        assert_eq!(options.limit, Duration::from_secs(5));
        assert!(options.wants("4.6a") && options.wants("6a") && !options.wants("4.6"));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for line in ["--fast", "--only", "--limit-s x", "--limit-s 0", "--model --code", "4.6a"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
