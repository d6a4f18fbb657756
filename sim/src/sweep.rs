//! One policy with parameters changed over declared values: every combination, every seed.

use crate::figures::{Better, FIGURES, figures};
use crate::output;
use crate::run::{Going, Scene, SceneArgs};
use crate::world::World;
use crate::world::truth::Truth;
use crate::{SimError, batch, compare::RUNS_MAX};
use muster_engine::policy::Policy;
use serde::Serialize;
use std::path::{Path, PathBuf};
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
        let (key, values) =
            text.split_once('=').ok_or_else(|| format!("`{text}` has no `=`; write key=value,value"))?;
        let file = key.split('.').next().unwrap_or("");
        if !matches!(file, "policy" | "world" | "truth") || !key.contains('.') {
            return Err(format!("`{key}` must begin with policy., world. or truth."));
        }
        let values = split(values);
        if values.iter().any(String::is_empty) {
            return Err(format!("`{key}` has an empty value"));
        }
        Ok(Self { key: key.to_owned(), values })
    }
}

fn split(text: &str) -> Vec<String> {
    let (mut parts, mut depth, mut quoted) = (vec![String::new()], 0i32, false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            '{' | '[' | '(' if !quoted => depth += 1,
            '}' | ']' | ')' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().expect("there is a first one").push(c);
    }
    parts.into_iter().map(|part| part.trim().to_owned()).collect()
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
    let base = Base::read(args)?;
    let scenes: Vec<(Policy, Scene)> =
        combinations.iter().map(|values| base.with(&args.grid, values)).collect::<Result<_, SimError>>()?;
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

/// The files as they are, to be changed.
struct Base {
    policy: (PathBuf, toml::Table),
    world: (PathBuf, toml::Table),
    truth: (PathBuf, toml::Table),
    scene: Scene,
}

impl Base {
    fn read(args: &SweepArgs) -> Result<Self, SimError> {
        let table = |path: &Path| -> Result<(PathBuf, toml::Table), SimError> {
            let text =
                std::fs::read_to_string(path).map_err(|source| SimError::Read { path: path.to_path_buf(), source })?;
            let table = text.parse().map_err(|error: toml::de::Error| SimError::World {
                path: path.to_path_buf(),
                why: error.to_string(),
            })?;
            Ok((path.to_path_buf(), table))
        };
        let truth = args.scene.truth.as_deref().map(table).transpose()?;
        Ok(Self {
            policy: table(&args.policy)?,
            world: table(&args.scene.world)?,
            truth: truth.unwrap_or_default(),
            scene: Scene::read(&args.scene)?,
        })
    }

    fn with(&self, grid: &[Axis], values: &[String]) -> Result<(Policy, Scene), SimError> {
        let (mut policy, mut world, mut truth) = (self.policy.1.clone(), self.world.1.clone(), self.truth.1.clone());
        for (axis, value) in grid.iter().zip(values) {
            let (file, key) = axis.key.split_once('.').expect("checked when it was parsed");
            let table = match file {
                "policy" => &mut policy,
                "world" => &mut world,
                _ => &mut truth,
            };
            set(table, key, value).map_err(|why| SimError::Arguments(format!("{}={value}: {why}", axis.key)))?;
        }
        let named = |why: String| {
            let pairs: Vec<String> =
                grid.iter().zip(values).map(|(axis, value)| format!("{}={value}", axis.key)).collect();
            SimError::Arguments(format!("with {}: {why}", pairs.join(" ")))
        };
        let policy: Policy = policy.try_into().map_err(|error: toml::de::Error| named(error.to_string()))?;
        policy.validate().map_err(|error| named(error.to_string()))?;
        let world = World::parse(&world.to_string()).map_err(named)?;
        let truth: Truth = truth.try_into().map_err(|error: toml::de::Error| named(error.to_string()))?;
        truth.check(&world.fabric).map_err(named)?;
        Ok((policy, self.scene.changed(world, truth).map_err(named)?))
    }
}

fn set(table: &mut toml::Table, key: &str, value: &str) -> Result<(), String> {
    let parsed = format!("x = {value}").parse::<toml::Table>().ok().and_then(|mut table| table.remove("x"));
    let value = parsed.unwrap_or_else(|| toml::Value::String(value.to_owned()));
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
            Ok(())
        }
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            let inner = inner.as_table_mut().ok_or_else(|| format!("`{first}` is no table"))?;
            set(inner, rest, &value.to_string())
        }
    }
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

    #[test]
    fn axes_are_parsed_and_set() {
        let axis = Axis::parse("policy.admission=skip,{ head_of_line = { sticky = true, x = [1,2] } }").unwrap();
        assert_eq!(axis.values.len(), 2);
        let mut table = "[backfill]\nedge = \"before\"\n".parse::<toml::Table>().unwrap();
        set(&mut table, "backfill.reserve_depth", "1").unwrap();
        set(&mut table, "order", "sjf").unwrap();
        set(&mut table, "replan", "{ refill = { min_run_ms = 5 } }").unwrap();
        assert_eq!(table["backfill"]["reserve_depth"].as_integer(), Some(1));
        assert_eq!(
            (table["order"].as_str(), table["replan"]["refill"]["min_run_ms"].as_integer()),
            (Some("sjf"), Some(5))
        );
        assert!(set(&mut table, "order.deep", "1").unwrap_err().contains("no table"));
        assert!(Axis::parse("backfill=1").unwrap_err().contains("must begin"));
        assert!(Axis::parse("policy.x").unwrap_err().contains('='));
    }

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
        let file = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).unwrap();
            folder.path().join(name)
        };
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
