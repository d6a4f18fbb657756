//! Crash images on demand: `cargo run -p muster-tests --bin muster-crash-images -- --images 10000 --seed 1`.
//!
//! The tests of `crash_images` make 200. A miss prints the command that makes the same image again. `live` is the recorded
//! process itself.

use anyhow::{Context, Result, bail};
use muster_tests::crash::engine::Engine;
use muster_tests::crash::series::{Plan, Tally, repeat, run};
use muster_tests::crash::workload::{self, Life};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const HELP: &str = "\
Usage: muster-crash-images [--engine NAME] [--images N] [--seed N] [--damage-percent N] [--no-history] [--threads N]
                           [--ops N] [--keep DIR]
       muster-crash-images --repeat DIR --life N --image N [--to DIR] [the options of the run that missed it]

Cuts the power under the real stores and opens what could be left. Ends with 1 if anything acknowledged was missed.
";
/// Images of one series.
const SERIES: u64 = 90;

struct Options {
    plan: Plan,
    seed: u64,
    threads: u64,
    repeat: Option<(PathBuf, u64, u64)>,
    to: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.split_first() {
        Some((command, rest)) if command == "live" => live(rest).map(|()| true),
        Some((help, [])) if help == "--help" || help == "-h" => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => Options::parse(&arguments).and_then(|options| images(&options)),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("muster-crash-images: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn live(arguments: &[String]) -> Result<()> {
    let (data, life) = arguments.split_first().context("live takes a folder")?;
    workload::run(data.as_ref(), Life::parse(life)?)
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Options {
            plan: Plan {
                program: std::env::current_exe()?,
                engine: Engine::Wal,
                with_history: true,
                ops: 150,
                images: 10_000,
                damage_percent: 25,
                keep: Some(std::env::temp_dir().join("muster-crash-images")),
            },
            seed: 1,
            threads: 2,
            repeat: None,
            to: None,
        };
        let (mut kept, mut life, mut image) = (None, None, None);
        let mut rest = arguments.iter();
        while let Some(name) = rest.next() {
            if name == "--no-history" {
                options.plan.with_history = false;
                continue;
            }
            let value = rest.next().with_context(|| format!("{name} wants a value, or is no option\n\n{HELP}"))?;
            match name.as_str() {
                "--engine" => options.plan.engine = value.parse()?,
                "--images" => options.plan.images = value.parse()?,
                "--ops" => options.plan.ops = value.parse()?,
                "--damage-percent" => options.plan.damage_percent = value.parse()?,
                "--keep" => options.plan.keep = Some(value.into()),
                "--seed" => options.seed = value.parse()?,
                "--threads" => options.threads = value.parse()?,
                "--repeat" => kept = Some(PathBuf::from(value)),
                "--life" => life = Some(value.parse()?),
                "--image" => image = Some(value.parse()?),
                "--to" => options.to = Some(value.into()),
                other => bail!("there is no option {other}\n\n{HELP}"),
            }
        }
        options.repeat = match (kept, life, image) {
            (Some(kept), Some(life), Some(image)) => Some((kept, life, image)),
            (None, None, None) => None,
            _ => bail!("--repeat, --life and --image belong together"),
        };
        Ok(options)
    }
}

/// True if nothing was missed.
fn images(options: &Options) -> Result<bool> {
    if let Some((kept, life, image)) = &options.repeat {
        let tally = repeat(&options.plan, kept, *life, *image, options.to.as_deref())?;
        tell(&tally);
        return Ok(tally.misses.is_empty());
    }
    println!("engine {}, {} images, seed {}", options.plan.engine, options.plan.images, options.seed);
    let begun = Instant::now();
    let series = options.plan.images.div_ceil(SERIES);
    let next = AtomicU64::new(0);
    let total = Mutex::new(Tally::default());
    let work = || -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= series {
                return Ok(());
            }
            let images = SERIES.min(options.plan.images - number * SERIES);
            let seed = options.seed.wrapping_mul(1_000_003).wrapping_add(number);
            let tally = run(&Plan { images, ..options.plan.clone() }, seed)?;
            for miss in &tally.misses {
                println!("MISS seed {seed}: {}\n     {}", miss.what, miss.repeat);
            }
            let mut total = total.lock().expect("no thread panics with it");
            total.add(tally);
            if number % 10 == 9 {
                println!("{:>6.0} s: {total}", begun.elapsed().as_secs_f64());
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.threads.max(1)).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a thread of images panicked"))
    })?;
    let total = total.into_inner().expect("no thread panicked");
    println!("{:>6.0} s: {total}", begun.elapsed().as_secs_f64());
    Ok(total.misses.is_empty())
}

fn tell(tally: &Tally) {
    println!("{tally}");
    for miss in &tally.misses {
        println!("MISS {}\n     {}", miss.what, miss.repeat);
    }
}
