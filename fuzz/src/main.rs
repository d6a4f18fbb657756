//! `muster-fuzz`: runs one target; started by `cargo xtask fuzz`.

use anyhow::{Context, Result, bail};
use muster_fuzz::engine::run::{Options, Summary, minimised, run, write_crash};
use muster_fuzz::engine::{corpus, supervise};
use muster_fuzz::targets::{ALL, Target};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, SystemTime};

const HELP: &str = "\
Usage: muster-fuzz list
       muster-fuzz TARGET --seconds N [--seed N]     run; new inputs and crashes go to target/fuzz/TARGET
       muster-fuzz TARGET --input FILE               run one input and let it panic
       muster-fuzz TARGET --minimise                 rewrite fuzz/corpus/TARGET from all inputs known
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match start(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("muster-fuzz: {error:#}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

fn start(args: &[String]) -> Result<bool> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().with_context(|| format!("`{text}` is not a number"));
    match words.as_slice() {
        ["list"] => {
            ALL.iter().for_each(|target| println!("{:<12} {}", target.name, target.what));
            Ok(true)
        }
        [name, "--input", path] => {
            let input = std::fs::read(path).with_context(|| format!("cannot read {path}"))?;
            (find(name)?.run)(&input);
            Ok(true)
        }
        [name, "--minimise"] => minimise(find(name)?),
        [name, "--seconds", seconds] => supervised(find(name)?, number(seconds)?, now_ns()),
        [name, "--seconds", seconds, "--seed", seed] => supervised(find(name)?, number(seconds)?, number(seed)?),
        ["run", name, seconds, seed] => worker(find(name)?, number(seconds)?, number(seed)?),
        _ => bail!("cannot read the command line"),
    }
}

fn now_ns() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

fn find(name: &str) -> Result<&'static Target> {
    let names = || ALL.iter().map(|target| target.name).collect::<Vec<_>>().join(", ");
    ALL.iter().find(|target| target.name == name).with_context(|| format!("no target `{name}`; there is: {}", names()))
}

fn work(target: &Target) -> PathBuf {
    let repository = corpus::folder().join("../..");
    let base = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository.join("target"), PathBuf::from);
    base.join("fuzz").join(target.name)
}

/// Runs a worker process and keeps the input it dies of.
fn supervised(target: &Target, seconds: u64, seed: u64) -> Result<bool> {
    let this = std::env::current_exe().context("cannot find this program")?;
    let (seconds, seed) = (seconds.to_string(), seed.to_string());
    let output = Command::new(this).args(["run", target.name, &seconds, &seed]).output();
    let output = output.context("cannot start a worker")?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    if matches!(output.status.code(), Some(0 | 1)) {
        return Ok(output.status.success());
    }
    let path = write_crash(&work(target), &supervise::last_input(&work(target))?)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{}: FAILED, seed {seed}: {}: {}", target.name, output.status, said.trim());
    println!("    muster-fuzz {} --input {}", target.name, path.display());
    Ok(false)
}

fn worker(target: &Target, seconds: u64, seed: u64) -> Result<bool> {
    let options = Options { time: Duration::from_secs(seconds), seed, work: work(target) };
    let summary = run(target, &options)?;
    let Summary { executions, inputs, edges, edges_total, panics } = &summary;
    let per_second = executions / seconds.max(1);
    println!(
        "{:<12} {executions} executions ({per_second}/s), {edges} of {edges_total} edges, {inputs} inputs, {} panics, \
         seed {seed}",
        target.name,
        panics.len()
    );
    for (message, path) in panics {
        println!("    {message}\n    muster-fuzz {} --input {}", target.name, path.display());
    }
    Ok(panics.is_empty())
}

/// Most bytes of a target's inputs in version control, as hex.
const KEPT_BYTES_MAX: usize = 48 * 1024;

fn minimise(target: &Target) -> Result<bool> {
    let kept = corpus::folder().join(target.name);
    let known = [corpus::read(&kept)?, corpus::read(&work(target).join("found"))?].concat();
    let count = known.len();
    let mut inputs = minimised(target, known);
    let mut bytes = 0;
    // The smallest first: a few large inputs may not push out the many.
    inputs.retain(|input| {
        bytes += 2 * input.len() + 1;
        bytes <= KEPT_BYTES_MAX
    });
    corpus::write(&kept, &inputs)?;
    println!("{}: {} of {count} inputs kept", target.name, inputs.len());
    Ok(true)
}
