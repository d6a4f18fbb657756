//! One policy with parameters changed over declared values: every combination, every seed.

use crate::figures::{Better, FIGURES, figures};
use crate::output;
use crate::run::{Going, Scene, SceneArgs};
use crate::variant::{self, Base};
use crate::{SimError, batch, compare::RUNS_MAX};
use muster_engine::policy::Policy;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug, Clone)]
pub struct SweepArgs {
    pub policy: PathBuf,
    pub scene: SceneArgs,
    pub grid: Vec<Axis>,
    pub seeds: u64,
    pub threads: usize,
    pub output: PathBuf,
}

/// One parameter and the values it takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Axis {
    /// `policy.`, `world.` or `truth.`, then the key in that file, with dots.
    pub key: String,
    /// As TOML.
    pub values: Vec<String>,
}

impl Axis {
    /// `policy.backfill.reserve_depth=0,1`. A comma inside brackets or quotes does not separate.
    ///
    /// # Errors
    /// What is missing.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (key, values) = variant::declared(text, &["policy", "world", "truth"])?;
        Ok(Self { key: key.to_owned(), values: variant::choices(key, values)? })
    }
}

/// One combination of values, with the means of its figures over the seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    pub values: Vec<String>,
    /// Seeds that were run.
    pub seeds: u64,
    /// In the order of [`FIGURES`].
    pub figures: Vec<f64>,
    /// No other point is at least as good in both p95 of wait and goodput, and better in one.
    pub pareto: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sweep {
    pub schema: &'static str,
    /// False when it was stopped: what was done is here.
    pub complete: bool,
    pub keys: Vec<String>,
    pub figures: Vec<&'static str>,
    pub points: Vec<Point>,
}

/// Runs every combination and writes `sweep.csv`, `sweep.json` and `report.html`.
///
/// # Errors
/// A combination that is no policy or world, before anything is run; a run that breaks off.
pub fn sweep(args: &SweepArgs, stop: &AtomicBool, mut told: impl FnMut(usize, usize)) -> Result<Sweep, SimError> {
    let combinations = combinations(&args.grid);
    let seeds = args.seeds as usize;
    let count = combinations.len().saturating_mul(seeds);
    if args.grid.is_empty() || count == 0 || count > RUNS_MAX {
        return Err(SimError::Arguments(format!("{count} runs; there must be a grid, and from 1 to {RUNS_MAX} runs")));
    }
    output::check_output(&args.output)?;
    let base = Base::read(&args.policy, &args.scene)?;
    let keys: Vec<&str> = args.grid.iter().map(|axis| axis.key.as_str()).collect();
    let scenes: Vec<(Policy, Scene)> =
        combinations.iter().map(|values| base.with(&keys, values)).collect::<Result<_, SimError>>()?;
    let going = || if stop.load(Ordering::Relaxed) { Going::Stop } else { Going::On };
    let work = |number: usize| {
        let (policy, scene) = &scenes[number / seeds];
        scene.play(policy, (number % seeds) as u64, None, &mut |_| going()).map(|(_, summary)| summary)
    };
    let results = batch::all(count, args.threads, stop, work, |done| told(done, count));
    let mut points = Vec::new();
    for (values, of) in combinations.into_iter().zip(results.chunks(seeds)) {
        let mut sums = vec![0.0; FIGURES.len()];
        let mut ran = 0;
        for result in of.iter().flatten() {
            let summary = result.as_ref().map_err(|error| SimError::Play(error.to_string()))?;
            if summary.complete {
                ran += 1;
                sums.iter_mut().zip(figures(summary)).for_each(|(sum, value)| *sum += value);
            }
        }
        if ran > 0 {
            sums.iter_mut().for_each(|sum| *sum /= ran as f64);
            points.push(Point { values, seeds: ran, figures: sums, pareto: false });
        }
    }
    mark_pareto(&mut points);
    let sweep = Sweep {
        schema: "muster.sim.sweep/1",
        complete: !stop.load(Ordering::Relaxed),
        keys: args.grid.iter().map(|axis| axis.key.clone()).collect(),
        figures: FIGURES.iter().map(|figure| figure.name).collect(),
        points,
    };
    output::create(&args.output)?;
    output::write_file(args.output.join("sweep.csv"), &csv(&sweep))?;
    output::write_file(args.output.join("report.html"), crate::report::sweep(&sweep).as_bytes())?;
    output::write_file(args.output.join("sweep.json"), &output::json(&sweep))?;
    Ok(sweep)
}

fn combinations(grid: &[Axis]) -> Vec<Vec<String>> {
    let mut all: Vec<Vec<String>> = vec![Vec::new()];
    for axis in grid {
        if all.len().saturating_mul(axis.values.len()) > RUNS_MAX {
            // Too many already; the caller counts and refuses.
            return vec![Vec::new(); RUNS_MAX + 1];
        }
        let with = |known: &Vec<String>| -> Vec<Vec<String>> {
            axis.values.iter().map(|value| known.iter().chain([value]).cloned().collect()).collect()
        };
        all = all.iter().flat_map(with).collect();
    }
    all
}

fn mark_pareto(points: &mut [Point]) {
    let at = |name| crate::figures::position(name).expect("a figure of ours");
    let (wait, goodput) = (at("wait_p95_s"), at("goodput"));
    debug_assert!(FIGURES[wait].better == Better::Lower && FIGURES[goodput].better == Better::Higher);
    let values: Vec<(f64, f64)> = points.iter().map(|point| (point.figures[wait], point.figures[goodput])).collect();
    for (point, own) in points.iter_mut().zip(&values) {
        let beaten = |other: &(f64, f64)| other.0 <= own.0 && other.1 >= own.1 && other != own;
        point.pareto = !values.iter().any(beaten);
    }
}

fn csv(sweep: &Sweep) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let head = sweep.keys.iter().map(String::as_str).chain(["seeds", "pareto"]).chain(sweep.figures.iter().copied());
    writer.write_record(head).expect("memory takes every record");
    for point in &sweep.points {
        let row = point.values.iter().cloned().chain([point.seeds.to_string(), point.pareto.to_string()]);
        writer
            .write_record(row.chain(point.figures.iter().map(ToString::to_string)))
            .expect("memory takes every record");
    }
    writer.into_inner().expect("memory takes every record")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::given::files_in;

    #[test]
    fn only_what_nothing_beats_is_on_the_front() {
        let point = |wait: f64, goodput: f64| {
            let mut figures = vec![0.0; FIGURES.len()];
            figures[crate::figures::position("wait_p95_s").unwrap()] = wait;
            figures[crate::figures::position("goodput").unwrap()] = goodput;
            Point { values: Vec::new(), seeds: 1, figures, pareto: false }
        };
        let mut points = vec![point(1.0, 0.5), point(2.0, 0.6), point(2.0, 0.5), point(3.0, 0.6)];
        mark_pareto(&mut points);
        assert_eq!(points.iter().map(|point| point.pareto).collect::<Vec<_>>(), [true, true, false, false]);
    }

    /// Whoever repeats a sweep gets the same bytes, on however many cores.
    #[test]
    fn a_sweep_is_the_same_on_one_thread_and_on_four() {
        let folder = tempfile::tempdir().unwrap();
        let file = files_in(folder.path());
        let jobs: String =
            (0..60).map(|at| format!("{at},{},{},{}\n", 1 + at % 8, at * 50, 300 + at * 97 % 900)).collect();
        let world = "[[nodes]]\ncount = 3\ndevices = 8\n\n[failures.software]\nper_1000_days = 50000.0\n";
        let trace = file("t.csv", &format!("job_id,num_gpu,submit_time,duration\n{jobs}"));
        let scene = SceneArgs { check: true, ..SceneArgs::of(file("world.toml", world), trace) };
        let policy = file("policy.toml", "");
        let bytes = |threads: usize| {
            let output = folder.path().join(format!("on-{threads}"));
            let grid = vec![
                Axis::parse("policy.order=fifo,smallest,sjf").unwrap(),
                Axis::parse("policy.backfill.reserve_depth=0,1").unwrap(),
            ];
            let args = SweepArgs {
                policy: policy.clone(),
                scene: scene.clone(),
                grid,
                seeds: 3,
                threads,
                output: output.clone(),
            };
            let swept = sweep(&args, &AtomicBool::new(false), |_, _| ()).unwrap();
            let wait = crate::figures::position("wait_mean_s").unwrap();
            let waits: std::collections::BTreeSet<u64> =
                swept.points.iter().map(|point| point.figures[wait].to_bits()).collect();
            assert!(waits.len() > 2, "the points differ");
            ["sweep.csv", "sweep.json", "report.html"].map(|name| std::fs::read(output.join(name)).unwrap())
        };
        assert!(bytes(1) == bytes(4));
    }
}
