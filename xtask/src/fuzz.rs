//! `cargo xtask fuzz`: builds the fuzz targets with the compiler's coverage counters and runs them, two at a time.
//!
//! The counters go into the house's own crates only: cargo builds a workspace's members through this program
//! (`RUSTC_WORKSPACE_WRAPPER`), which adds the flags, and all dependencies are those of an ordinary build.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;

use anyhow::{Context, Result, bail};

use crate::tree::root;

const SECONDS: u64 = 60;
/// Targets run at once.
const AT_ONCE: usize = 2;
/// Set while cargo builds through this program.
const WRAPPING: &str = "MUSTER_XTASK_COVERAGE";
/// Never counted: the engine that counts, and the chores.
const NOT_COVERED: &[&str] = &["muster_fuzz", "muster_xtask", "build_script_build"];
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=3",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=4",
];

/// What the command line asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    seconds: u64,
    /// A run of so many at most is repeatable: it begins with the inputs under version control only.
    executions: Option<u64>,
    /// Another one at every run, if none is given.
    seed: Option<u64>,
    minimise: bool,
    list: bool,
    /// All, if none is named.
    targets: Vec<String>,
}

impl Options {
    /// Reads the arguments after `fuzz`; the error says what is wrong with them.
    pub fn parse(args: &[String]) -> Result<Options, String> {
        let mut options = Options {
            seconds: SECONDS,
            executions: None,
            seed: None,
            minimise: false,
            list: false,
            targets: Vec::new(),
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--seconds" => {
                    let seconds = args.next().and_then(|value| value.parse().ok()).filter(|seconds| *seconds > 0);
                    options.seconds = seconds.ok_or("--seconds needs a number above 0")?;
                }
                "--executions" => {
                    let executions = args.next().and_then(|value| value.parse().ok());
                    options.executions = Some(executions.ok_or("--executions needs a number")?);
                }
                "--seed" => {
                    let seed = args.next().and_then(|value| value.parse().ok());
                    options.seed = Some(seed.ok_or("--seed needs a number")?);
                }
                "--minimise" => options.minimise = true,
                "--list" => options.list = true,
                other if other.starts_with('-') => return Err(format!("fuzz does not know `{other}`")),
                target => options.targets.push(target.to_owned()),
            }
        }
        Ok(options)
    }
}

/// Builds and runs; true if no target found anything.
pub fn run(options: &Options) -> Result<bool> {
    let program = build()?;
    let listed = Command::new(&program).arg("list").output().context("cannot ask for the targets")?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    if options.list {
        print!("{listed}");
        return Ok(true);
    }
    let all: Vec<String> =
        listed.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    if let Some(unknown) = options.targets.iter().find(|target| !all.contains(target)) {
        bail!("there is no target `{unknown}`; there is: {}", all.join(", "));
    }
    let wanted = if options.targets.is_empty() { all } else { options.targets.clone() };
    let seconds = options.seconds.to_string();
    let given = [("--executions", options.executions), ("--seed", options.seed)];
    let given = given.map(|(option, value)| (option, value.map(|value| value.to_string())));
    let mut args: Vec<&str> = if options.minimise { vec!["--minimise"] } else { vec!["--seconds", &seconds] };
    for (option, value) in given.iter().filter(|_| !options.minimise) {
        args.extend(value.iter().flat_map(|value| [*option, value.as_str()]));
    }
    let queue = Mutex::new(wanted);
    let clean: Vec<Result<bool>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(|| work(&program, &args, &queue))).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).collect()
    });
    clean.into_iter().try_fold(true, |all, one| Ok(one? && all))
}

/// Takes targets off the queue until it is empty.
fn work(program: &Path, args: &[&str], queue: &Mutex<Vec<String>>) -> Result<bool> {
    let mut clean = true;
    loop {
        let next = queue.lock().expect("no worker panics").pop();
        let Some(target) = next else { return Ok(clean) };
        let output = Command::new(program).arg(&target).args(args).output();
        let output = output.with_context(|| format!("cannot run {}", program.display()))?;
        print!("{}", String::from_utf8_lossy(&output.stdout));
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        clean &= output.status.success();
    }
}

fn build() -> Result<PathBuf> {
    let this = std::env::current_exe().context("cannot find this program")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.current_dir(root()).args(["build", "--package", "muster-fuzz", "--bin", "muster-fuzz"]);
    command.env("RUSTC_WORKSPACE_WRAPPER", this).env(WRAPPING, "1");
    if !command.status().context("cannot start cargo")?.success() {
        bail!("the fuzz targets do not build");
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    Ok(target.join("debug").join("muster-fuzz"))
}

/// The compiler's answer, if cargo called this program in the compiler's place.
pub fn compile_in_place() -> Option<ExitCode> {
    std::env::var_os(WRAPPING)?;
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let (rustc, rest) = args.split_first()?;
    if Path::new(rustc).file_stem()? != "rustc" {
        return None;
    }
    let mut command = Command::new(rustc);
    command.args(rest);
    if is_covered(rest) {
        command.args(FLAGS);
    }
    let code = command.status().ok().and_then(|status| status.code());
    Some(ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

fn is_covered(args: &[OsString]) -> bool {
    let named = args.windows(2).find(|pair| pair[0] == "--crate-name").map(|pair| &pair[1]);
    named.is_some_and(|name| name != "___" && !NOT_COVERED.iter().any(|not| name == not))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_command_line_is_read() {
        let options = Options::parse(&words("--seconds 5 --executions 9 --seed 7 entry apply")).expect("right");
        assert_eq!((options.seconds, options.executions), (5, Some(9)));
        assert_eq!((options.seed, options.targets), (Some(7), words("entry apply")));
        for wrong in ["--seconds", "--seconds 0", "--second 5", "--seed", "--seed x", "--executions x"] {
            assert!(Options::parse(&words(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_houses_crates_are_covered_and_the_engine_is_not() {
        let covered = |text: &str| is_covered(&words(text).into_iter().map(OsString::from).collect::<Vec<_>>());
        assert!(covered("--crate-name muster_engine --edition=2024"));
        assert!(!covered("--crate-name muster_fuzz --edition=2024"));
        assert!(!covered("--crate-name build_script_build"));
        assert!(!covered("-vV"));
    }
}
