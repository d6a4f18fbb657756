//! `muster sim compare`: policies against each other, with a verdict.

use super::{SimSceneArgs, Teller, failed, interrupts, threads};
use crate::context::Context;
use crate::error::CliError;
use crate::output::table::cell;
use clap::Args;
use muster_sim::compare::{CompareArgs, Comparison};
use serde_json::Value;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct SimCompareArgs {
    /// TOML files with policies; the others are measured against the first
    #[arg(value_name = "POLICY", num_args = 2.., required = true)]
    pub policies: Vec<PathBuf>,
    #[command(flatten)]
    pub scene: SimSceneArgs,
    /// Runs of each policy, each with its own draws of failures and run times; 6 unless given, 1 where nothing is drawn
    #[arg(long)]
    pub seeds: Option<u64>,
    /// Runs at once; all CPUs unless given
    #[arg(long)]
    pub threads: Option<usize>,
    /// Folder for compare.json, runs.csv and report.html; empty, or not there yet
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
}

pub fn run(context: &Context, args: SimCompareArgs) -> Result<u8, CliError> {
    let stop = interrupts()?;
    let args = CompareArgs {
        policies: args.policies,
        scene: args.scene.scene(),
        seeds: args.seeds,
        threads: threads(args.threads),
        output: args.output,
        past: None,
    };
    let mut teller = Teller::new(context);
    let told = |done: usize, all: usize| teller.tell(done as u64, all as u64, "runs");
    let comparison = muster_sim::compare::compare(&args, &stop, told).map_err(failed)?;
    context.printer.answer(|| document(&comparison), || render(&comparison))?;
    context.printer.say(&format!("report in {}", args.output.join("report.html").display()));
    Ok(if comparison.complete { 0 } else { super::INTERRUPTED })
}

pub fn render(comparison: &Comparison) -> String {
    let mut text = String::new();
    for against in &comparison.against {
        text.push_str(&format!(
            "{} against {}, {} seeds\n  {}\n",
            cell(&against.policy),
            cell(&comparison.base),
            comparison.seeds.len(),
            against.verdict
        ));
    }
    for note in &comparison.notes {
        text.push_str(&format!("{note}\n"));
    }
    text
}

pub fn document(comparison: &Comparison) -> Value {
    serde_json::to_value(comparison).unwrap_or_default()
}
