//! `muster sim tune`: the best setting of a policy's parameters, under limits.

use super::{SimSceneArgs, Teller, failed, interrupts, threads};
use crate::context::Context;
use crate::error::CliError;
use crate::output::human;
use crate::output::table::cell;
use clap::{ArgGroup, Args};
use muster_sim::tune::{Constraint, Goal, Range, StageCard, Trial, TuneArgs, Tuned};
use serde_json::Value;
use std::path::PathBuf;

/// Exit code where nothing that was tried keeps to the limits.
const NOTHING_MEETS: u8 = 1;
const SHOWN_MAX: usize = 10;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("goal").required(true).args(["minimize", "maximize"]))]
pub struct SimTuneArgs {
    /// TOML file with the policy to begin from; it is one of those that are tried
    #[arg(long, value_name = "FILE")]
    pub policy: PathBuf,
    #[command(flatten)]
    pub scene: SimSceneArgs,
    /// A parameter and what it may be: LOW..HIGH, LOW..HIGH:log, or values between commas
    #[arg(long, value_name = "KEY=RANGE", required = true, value_parser = Range::parse)]
    pub range: Vec<Range>,
    /// The figure to make as low as can be, such as wait_p95_s
    #[arg(long, value_name = "FIGURE", value_parser = Goal::minimize)]
    pub minimize: Option<Goal>,
    /// The figure to make as high as can be, such as goodput
    #[arg(long, value_name = "FIGURE", value_parser = Goal::maximize)]
    pub maximize: Option<Goal>,
    /// Limits to keep to, such as utilisation>=0.85,wait_max_s<=base; base = as the policy has it now
    #[arg(long, value_name = "LIMIT,...", value_delimiter = ',', value_parser = Constraint::parse)]
    pub subject_to: Vec<Constraint>,
    /// The most runs, of a part or of the whole trace
    #[arg(long, default_value_t = 200)]
    pub budget: usize,
    /// Runs of each setting on the same work, each with its own draws of failures and run times; 6 unless given, 1 where
    /// nothing is drawn
    #[arg(long)]
    pub seeds: Option<u64>,
    /// Windows of the trace on which settings are tried before the whole trace
    #[arg(long, default_value_t = 4)]
    pub parts: usize,
    /// Runs at once; all CPUs unless given
    #[arg(long)]
    pub threads: Option<usize>,
    /// Folder for tuned.toml, tune.json, tune.csv and compared; empty, or not there yet
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
}

pub fn run(context: &Context, args: SimTuneArgs) -> Result<u8, CliError> {
    let goal = args.minimize.or(args.maximize).ok_or_else(|| super::cluster::usage("name a figure with --minimize"))?;
    let stop = interrupts()?;
    let args = TuneArgs {
        policy: args.policy,
        scene: args.scene.scene(),
        ranges: args.range,
        goal,
        constraints: args.subject_to,
        budget: args.budget,
        seeds: args.seeds,
        parts: args.parts,
        threads: threads(args.threads),
        output: args.output,
    };
    let mut teller = Teller::new(context);
    let told = |done: usize, all: usize| teller.tell(done as u64, all as u64, "runs at most");
    let tuned = muster_sim::tune::tune(&args, &stop, told).map_err(failed)?;
    context.printer.answer(|| document(&tuned), || render(&tuned))?;
    if let Some(file) = tuned.policy_file {
        context.printer.say(&format!("policy in {}", args.output.join(file).display()));
    }
    if let Some(folder) = tuned.compared {
        let folder = args.output.join(folder);
        context.printer.say(&format!("evidence in {0}; in force with: muster policy promote {0}", folder.display()));
    }
    Ok(match (tuned.complete, tuned.chosen) {
        (false, _) => super::INTERRUPTED,
        (true, None) => NOTHING_MEETS,
        (true, Some(_)) => 0,
    })
}

pub fn render(tuned: &Tuned) -> String {
    let mut text = format!("{}\n", cell(&tuned.verdict));
    for (number, stage) in (1..).zip(&tuned.stages) {
        text.push_str(&format!("  stage {number}: {}\n", of_stage(stage)));
    }
    if tuned.refused > 0 {
        let why = tuned.refused_first.as_deref().unwrap_or_default();
        text.push_str(&format!("  no policy: {}: {}\n", human::count(tuned.refused as u64, "setting"), cell(why)));
    }
    let failed = tuned.trials.iter().filter_map(|trial| trial.failed.as_deref()).collect::<Vec<_>>();
    if let Some(why) = failed.first() {
        text.push_str(&format!("  not played: {}: {}\n", human::count(failed.len() as u64, "setting"), cell(why)));
    }
    text.push_str(&format!(
        "{}: {}; mean wait, p95, longest; utilisation; kept work\n",
        tuned.keys.join(", "),
        tuned.goal.figure
    ));
    let shown = tuned.trials.iter().filter(|trial| !trial.figures.is_empty());
    for trial in shown.clone().take(SHOWN_MAX) {
        text.push_str(&line(tuned, trial));
    }
    let more = shown.count().saturating_sub(SHOWN_MAX);
    if more > 0 {
        text.push_str(&format!("  and {more} more in tune.csv\n"));
    }
    text.push_str("* chosen; ! misses a limit\n");
    if !tuned.complete {
        text.push_str("it was stopped before its end; stages that were over count\n");
    }
    text
}

fn of_stage(stage: &StageCard) -> String {
    let on = if stage.whole_trace { "the whole trace" } else { "parts of the trace" };
    let settings = human::count(stage.settings as u64, "setting");
    format!("{settings}, {} of each on {on}", human::count(stage.runs_each as u64, "run"))
}

fn line(tuned: &Tuned, trial: &Trial) -> String {
    let of = |name: &str| tuned.figure(trial, name).unwrap_or_default();
    let mark = match (tuned.chosen == Some(trial.number), trial.meets) {
        (true, _) => '*',
        (false, true) => ' ',
        (false, false) => '!',
    };
    let values = if trial.number == 0 { "as it is".to_owned() } else { trial.values.join(", ") };
    format!(
        "{mark} {}: {:.4}; {:.1} s, {:.1} s, {:.1} s; {:.4}; {:.4} (stage {})\n",
        cell(&values),
        of(tuned.goal.figure),
        of("wait_mean_s"),
        of("wait_p95_s"),
        of("wait_max_s"),
        of("utilisation"),
        of("goodput"),
        trial.stage
    )
}

pub fn document(tuned: &Tuned) -> Value {
    serde_json::to_value(tuned).unwrap_or_default()
}
