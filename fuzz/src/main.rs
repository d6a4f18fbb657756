//! `muster-fuzz`: runs one target; started by `cargo xtask fuzz`.

use anyhow::{Context, Result, bail};
use muster_fuzz::engine::run::{Options, Summary, minimised, run, write_crash};
use muster_fuzz::engine::{corpus, supervise};
use muster_fuzz::targets::{ALL, Target};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant, SystemTime};

const HELP: &str = "\
Usage: muster-fuzz list
       muster-fuzz TARGET --seconds N [--executions N] [--seed N]
                                          run; new inputs and crashes go to target/fuzz/TARGET
       muster-fuzz TARGET --input FILE    run one input and let it panic
       muster-fuzz TARGET --minimise      rewrite fuzz/corpus/TARGET from all inputs known
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
        ["run", name, rest @ ..] => worker(find(name)?, Bounds::read(rest)?),
        [name, rest @ ..] => supervised(find(name)?, Bounds::read(rest)?),
        [] => bail!("no target is named"),
    }
}

/// How far a run goes, and what it draws from.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    seconds: u64,
    executions: Option<u64>,
    seed: u64,
}

impl Bounds {
    fn read(words: &[&str]) -> Result<Self> {
        let mut bounds = Self { seconds: 0, executions: None, seed: now_ns() };
        for pair in words.chunks(2) {
            let [option, value] = pair else { bail!("`{}` needs a number", pair[0]) };
            let number = value.parse::<u64>().with_context(|| format!("`{value}` is not a number"))?;
            match *option {
                "--seconds" => bounds.seconds = number,
                "--executions" => bounds.executions = Some(number),
                "--seed" => bounds.seed = number,
                other => bail!("there is no option `{other}`"),
            }
        }
        if bounds.seconds == 0 {
            bail!("--seconds needs a number above 0");
        }
        Ok(bounds)
    }

    fn words(&self) -> Vec<String> {
        let mut words = vec![format!("--seconds={}", self.seconds), format!("--seed={}", self.seed)];
        words.extend(self.executions.map(|executions| format!("--executions={executions}")));
        words.iter().flat_map(|word| word.split('=').map(str::to_owned)).collect()
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
fn supervised(target: &Target, bounds: Bounds) -> Result<bool> {
    let this = std::env::current_exe().context("cannot find this program")?;
    let output = Command::new(this).args(["run", target.name]).args(bounds.words()).output();
    let output = output.context("cannot start a worker")?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    if matches!(output.status.code(), Some(0 | 1)) {
        return Ok(output.status.success());
    }
    let path = write_crash(&work(target), &supervise::last_input(&work(target))?)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{}: FAILED, seed {}: {}: {}", target.name, bounds.seed, output.status, said.trim());
    println!("    muster-fuzz {} --input {}", target.name, path.display());
    Ok(false)
}

fn worker(target: &Target, bounds: Bounds) -> Result<bool> {
    let Bounds { seconds, executions, seed } = bounds;
    let options = Options { time: Duration::from_secs(seconds), executions, seed, work: work(target) };
    let started = Instant::now();
    let summary = run(target, &options)?;
    let Summary { executions, inputs, edges, edges_total, panics } = &summary;
    let per_second = executions / started.elapsed().as_secs().max(1);
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
