//! Searches declared ranges of a policy's parameters for the setting that is best in one figure, under limits on
//! others: by successive halving, over parts of the trace and seeds.

mod goal;
mod halving;
mod race;
mod range;
#[cfg(test)]
mod tests;
mod words;

pub use goal::{Constraint, Goal, Limit};
pub use range::Range;

use crate::SimError;
use crate::compare::{self, RUNS_MAX};
use crate::figures::FIGURES;
use crate::output::{self, Input};
use crate::run::SceneArgs;
use crate::variant::Base;
use halving::Course;
use race::{Race, Setting};
use serde::Serialize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug, Clone)]
pub struct TuneArgs {
    /// What is begun from; it is one of the settings that are tried.
    pub policy: PathBuf,
    pub scene: SceneArgs,
    pub ranges: Vec<Range>,
    pub goal: Goal,
    pub constraints: Vec<Constraint>,
    /// The most runs, of a part or of the whole trace.
    pub budget: usize,
    /// So many seeds from 0; `None` = as many as a verdict needs, and one where nothing is drawn.
    pub seeds: Option<u64>,
    /// Windows of equally many jobs into which the trace is cut for the first stages.
    pub parts: usize,
    pub threads: usize,
    pub output: PathBuf,
}

/// The file with the policy that came out.
pub const TUNED_FILE: &str = "tuned.toml";
/// The folder with its comparison to the policy as it was.
pub const COMPARED_FOLDER: &str = "compared";

/// One setting, and how far it came.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trial {
    /// 0 is the policy as it is.
    pub number: usize,
    /// In the order of the keys; empty for the policy as it is.
    pub values: Vec<String>,
    /// The last stage at which it was judged, counted from 1; 0 = it never was.
    pub stage: usize,
    /// By how many runs it was judged there.
    pub runs: usize,
    /// Means over these runs, in the order of [`FIGURES`]; empty where it never was judged.
    pub figures: Vec<f64>,
    pub meets: bool,
    /// Sum of what limits are missed by, each as a part of its bound.
    pub shortfall: f64,
    /// Why it could not be played.
    pub failed: Option<String>,
}

/// How much each of so many settings was played at one stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageCard {
    pub settings: usize,
    /// Runs of each by which they were judged.
    pub runs_each: usize,
    pub whole_trace: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tuned {
    pub schema: &'static str,
    /// False when it was stopped: what was done is here.
    pub complete: bool,
    /// The policy's file.
    pub base: Input,
    pub goal: Goal,
    pub constraints: Vec<Constraint>,
    /// As they were declared.
    pub ranges: Vec<String>,
    pub keys: Vec<String>,
    pub seeds: u64,
    pub parts: usize,
    pub budget: usize,
    /// Runs that were made.
    pub runs: usize,
    pub stages: Vec<StageCard>,
    pub figures: Vec<&'static str>,
    /// Those that came furthest first, the best of them first.
    pub trials: Vec<Trial>,
    /// Settings that are no policy, and why the first of them is none.
    pub refused: usize,
    pub refused_first: Option<String>,
    /// Number of the best one that meets every limit.
    pub chosen: Option<usize>,
    pub verdict: String,
    /// In the same folder; `None` where nothing meets the limits.
    pub policy_file: Option<&'static str>,
    /// In the same folder, against the policy as it was; for `policy promote`.
    pub compared: Option<&'static str>,
    pub world: Input,
    pub trace: Input,
    pub engine_version: u32,
}

/// Searches, and writes `tune.json`, `tune.csv`, and what came out of it: `tuned.toml`, and `compared` where it is
/// another policy. `told` has the runs that are done, and those there will be at most.
///
/// # Errors
/// Whatever is wrong with an input, before anything is run; a run of the policy as it is that breaks off.
pub fn tune(args: &TuneArgs, stop: &AtomicBool, mut told: impl FnMut(usize, usize)) -> Result<Tuned, SimError> {
    check_wishes(args)?;
    output::check_output(&args.output)?;
    let base = Base::read(&args.policy, &args.scene)?;
    let seeds = compare::seeds(args.seeds, &base.scene);
    let course = course(args, seeds)?;
    let base_text =
        std::fs::read(&args.policy).map_err(|source| SimError::Read { path: args.policy.clone(), source })?;
    let keys: Vec<&str> = args.ranges.iter().map(|range| range.key.as_str()).collect();
    let field = entrants(args, &base, &keys, course)?;
    let mut race = Race::new(args, course, &base.scene, field.settings)?;
    race.run(stop, &mut told)?;
    let (stage, ranked) = race.result()?;
    let best = ranked.first().copied().filter(|&at| race.standing(at).shortfall == 0.0);
    let mut tuned = Tuned {
        schema: "muster.sim.tune/1",
        complete: !stop.load(Ordering::Relaxed),
        base: output::input(&args.policy, &base_text),
        goal: args.goal,
        constraints: args.constraints.clone(),
        ranges: args.ranges.iter().map(|range| range.text.clone()).collect(),
        keys: keys.iter().map(ToString::to_string).collect(),
        seeds,
        parts: args.parts,
        budget: args.budget,
        runs: race.runs_made(),
        stages: race.cards.clone(),
        figures: FIGURES.iter().map(|figure| figure.name).collect(),
        trials: race.trials(),
        refused: field.refused,
        refused_first: field.refused_first,
        chosen: best,
        verdict: String::new(),
        policy_file: None,
        compared: None,
        world: base.scene.world_file.clone(),
        trace: base.scene.trace_file.clone(),
        engine_version: muster_engine::ENGINE_VERSION,
    };
    tuned.verdict = words::verdict(&tuned);
    output::create(&args.output)?;
    if let Some(best) = best {
        let text = words::policy_file(&tuned, &base.policy_text(&keys, &race.settings[best].values)?);
        let path = args.output.join(TUNED_FILE);
        output::write_file(path.clone(), text.as_bytes())?;
        tuned.policy_file = Some(TUNED_FILE);
        if best != 0 && tuned.complete {
            let pair = [(0, tuned.base.clone()), (best, output::input(&path, text.as_bytes()))];
            let policies = pair.map(|(at, input)| (race.settings[at].policy.clone(), input));
            let summaries = race.by_seed(stage, best);
            let comparison = compare::conclude(&base.scene, &policies, &summaries, true);
            compare::write(&args.output.join(COMPARED_FOLDER), &policies, &summaries, &comparison)?;
            tuned.compared = Some(COMPARED_FOLDER);
        }
    }
    output::write_file(args.output.join("tune.csv"), &words::csv(&tuned))?;
    output::write_file(args.output.join("tune.json"), &output::json(&tuned))?;
    Ok(tuned)
}

/// What needs no file to be refused.
fn check_wishes(args: &TuneArgs) -> Result<(), SimError> {
    let refuse = |why: String| Err(SimError::Arguments(why));
    if args.ranges.is_empty() {
        return refuse("there is no range to search; declare one with --range KEY=LOW..HIGH".into());
    }
    for (at, range) in args.ranges.iter().enumerate() {
        if args.ranges[..at].iter().any(|earlier| earlier.key == range.key) {
            return refuse(format!("`{}` has two ranges; leave one out", range.key));
        }
    }
    if !(1..=RUNS_MAX).contains(&args.budget) {
        return refuse(format!("a budget of {} runs; it is from 1 to {RUNS_MAX}", args.budget));
    }
    Ok(())
}

/// What every setting is played on.
fn course(args: &TuneArgs, seeds: u64) -> Result<Course, SimError> {
    let refuse = |why: String| Err(SimError::Arguments(why));
    let (parts, seeds) = (args.parts, usize::try_from(seeds).unwrap_or(usize::MAX));
    if parts == 0 || seeds == 0 || parts.saturating_mul(seeds) > RUNS_MAX {
        let why = format!("{parts} parts and {seeds} seeds; there is at least 1 of each, and at most {RUNS_MAX} pairs");
        return refuse(why);
    }
    let course = Course { parts, seeds };
    if course.settings(args.budget) < 2 {
        return refuse(format!(
            "a budget of {} runs is too small: the policy as it is and one other setting take {}; raise --budget, or ask \
             for fewer --parts or --seeds",
            args.budget,
            course.runs(0, 2)
        ));
    }
    Ok(course)
}

/// All settings that are tried, the policy as it is first.
struct Field {
    settings: Vec<Setting>,
    refused: usize,
    refused_first: Option<String>,
}

fn entrants(args: &TuneArgs, base: &Base, keys: &[&str], course: Course) -> Result<Field, SimError> {
    let (as_it_is, _) = base.with(&[], &[])?;
    let mut field = Field { settings: vec![Setting::new(Vec::new(), as_it_is)], refused: 0, refused_first: None };
    for values in range::settings(&args.ranges, course.settings(args.budget) - 1) {
        match base.with(keys, &values) {
            Ok((policy, _)) => {
                let known = |setting: &Setting| setting.policy == policy;
                if !field.settings.iter().any(known) {
                    field.settings.push(Setting::new(values, policy));
                }
            }
            Err(error) => {
                field.refused += 1;
                field.refused_first.get_or_insert(error.to_string());
            }
        }
    }
    if field.settings.len() == 1 {
        let why = field.refused_first.unwrap_or_else(|| "all of them are the policy as it is".to_owned());
        return Err(SimError::Arguments(format!("the ranges hold no other policy to try: {why}")));
    }
    Ok(field)
}
