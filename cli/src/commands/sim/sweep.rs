//! `muster sim sweep`: one policy over declared values of its parameters.

use super::{SimSceneArgs, Teller, failed, interrupts, threads};
use crate::context::Context;
use crate::error::CliError;
use crate::output::table::cell;
use clap::Args;
use muster_sim::figures::position;
use muster_sim::sweep::{Axis, Sweep, SweepArgs};
use serde_json::Value;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct SimSweepArgs {
    /// TOML file with the policy to begin from
    #[arg(long, value_name = "FILE")]
    pub policy: PathBuf,
    #[command(flatten)]
    pub scene: SimSceneArgs,
    /// A parameter and its values, such as policy.backfill.reserve_depth=0,1; also world. and truth.
    #[arg(long, value_name = "KEY=VALUE,...", required = true, value_parser = Axis::parse)]
    pub grid: Vec<Axis>,
    /// Runs of each combination
    #[arg(long, default_value_t = 1)]
    pub seeds: u64,
    /// Runs at once; all CPUs unless given
    #[arg(long)]
    pub threads: Option<usize>,
    /// Folder for sweep.csv, sweep.json and report.html; empty, or not there yet
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
}

pub fn run(context: &Context, args: SimSweepArgs) -> Result<u8, CliError> {
    let stop = interrupts()?;
    let args = SweepArgs {
        policy: args.policy,
        scene: args.scene.scene(),
        grid: args.grid,
        seeds: args.seeds,
        threads: threads(args.threads),
        output: args.output,
    };
    let mut teller = Teller::new(context);
    let told = |done: usize, all: usize| teller.tell(done as u64, all as u64, "runs");
    let sweep = muster_sim::sweep::sweep(&args, &stop, told).map_err(failed)?;
    context.printer.answer(|| document(&sweep), || render(&sweep))?;
    context.printer.say(&format!("report in {}", args.output.join("report.html").display()));
    Ok(if sweep.complete { 0 } else { super::INTERRUPTED })
}

pub fn render(sweep: &Sweep) -> String {
    let figure = |name: &str, figures: &[f64]| position(name).map_or(0.0, |at| figures[at]);
    let mut text = format!("{}: mean wait, p95, longest; utilisation; kept work\n", sweep.keys.join(", "));
    for point in &sweep.points {
        let of = |name: &str| figure(name, &point.figures);
        text.push_str(&format!(
            "{} {}: {:.1} s, {:.1} s, {:.1} s; {:.4}; {:.4}\n",
            if point.pareto { "*" } else { " " },
            cell(&point.values.join(", ")),
            of("wait_mean_s"),
            of("wait_p95_s"),
            of("wait_max_s"),
            of("utilisation"),
            of("goodput")
        ));
    }
    text.push_str("* nothing is better in both p95 of waiting and kept work\n");
    text
}

pub fn document(sweep: &Sweep) -> Value {
    serde_json::to_value(sweep).unwrap_or_default()
}
