//! `muster sim`: policies on recorded work, through the engine that also runs clusters.

use crate::context::Context;
use crate::error::CliError;
use crate::output::human;
use crate::output::table::cell;
use clap::{Args, Subcommand, ValueEnum};
use muster_proto::convert::error::ErrorCode;
use muster_sim::trace::{BadRows, Card};
use muster_sim::{Manifest, Progress, RunArgs, SimError, Summary};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Between two remarks on a long run.
const TELL_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug, Subcommand)]
pub enum SimCommand {
    /// Run one policy on one trace
    Run(SimRunArgs),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnBadRows {
    Refuse,
    Skip,
}

#[derive(Debug, Args)]
pub struct SimRunArgs {
    /// TOML file with the policy
    #[arg(long, value_name = "FILE")]
    pub policy: PathBuf,
    /// TOML file with the world: nodes, delays, the rules of time
    #[arg(long, value_name = "FILE")]
    pub world: PathBuf,
    /// The recorded work
    #[arg(long, value_name = "FILE")]
    pub trace: PathBuf,
    /// Folder for jobs.csv, summary.json and manifest.json; empty, or not there yet
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// First job of a window, counted from 0
    #[arg(long, default_value_t = 0)]
    pub start_job: usize,
    /// Jobs of the window; to the end of the trace unless given
    #[arg(long)]
    pub jobs: Option<usize>,
    /// Check every invariant after every step; slow
    #[arg(long)]
    pub check: bool,
    /// What to do with rows that cannot be read
    #[arg(long, value_enum, default_value_t = OnBadRows::Refuse)]
    pub bad_rows: OnBadRows,
}

pub fn run(context: &Context, command: SimCommand) -> Result<u8, CliError> {
    let SimCommand::Run(args) = command;
    let args = RunArgs {
        policy: args.policy,
        world: args.world,
        trace: args.trace,
        output: args.output,
        start_job: args.start_job,
        jobs: args.jobs,
        check: args.check,
        bad_rows: match args.bad_rows {
            OnBadRows::Refuse => BadRows::Refuse,
            OnBadRows::Skip => BadRows::Skip,
        },
    };
    let mut told = Instant::now();
    let mut tell = |progress: Progress| {
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            context.printer.say(&format!("{} of {} jobs ended", progress.ended, progress.jobs));
        }
    };
    let report = muster_sim::run(&args, &mut tell).map_err(failed)?;
    context.printer.say(&said(&report.card));
    context
        .printer
        .answer(|| document(&report.summary, &report.manifest), || render(&report.summary, &report.manifest))?;
    context.printer.say(&format!("results in {}", args.output.display()));
    Ok(0)
}

fn failed(error: SimError) -> CliError {
    let code = match &error {
        SimError::Read { source, .. } | SimError::Write { source, .. } => match source.kind() {
            std::io::ErrorKind::NotFound => ErrorCode::FileNotFound,
            std::io::ErrorKind::PermissionDenied => ErrorCode::FileDenied,
            _ => ErrorCode::FileUnusable,
        },
        SimError::OutputNotEmpty { .. } => ErrorCode::Conflict,
        _ if error.is_input() => ErrorCode::ConfigInvalid,
        _ => ErrorCode::Internal,
    };
    CliError::new(code, error.to_string())
}

/// What was read, so that nobody takes a cut trace for a whole one.
fn said(card: &Card) -> String {
    let left_out = card.dropped.iter().map(|noted| noted.rows).sum::<u64>() + card.bad_rows;
    let mut text = format!(
        "read {} of {}, {left_out} left out; {} jobs taken, over {}",
        human::count(card.rows, "row"),
        card.format,
        card.jobs,
        human::duration((card.span_s * 1000.0) as u64)
    );
    for noted in card.dropped.iter().chain(&card.changed) {
        let rows = human::count(noted.rows, "row");
        text.push_str(&format!("\n  {rows} from line {} on: {}", noted.first_line, noted.why));
    }
    for row in &card.bad {
        text.push_str(&format!("\n  bad row on line {}: {}", row.line, row.why));
    }
    text
}

pub fn render(summary: &Summary, manifest: &Manifest) -> String {
    let wait = &summary.wait_s;
    format!(
        "{} on {}\n  jobs         {} succeeded, {} ended otherwise, {} unplaceable, {} unfinished\n  \
         wait         mean {:.1} s, median {:.1} s, p95 {:.1} s, p99 {:.1} s, max {:.1} s\n  \
         turnaround   mean {:.1} s\n  slowdown     mean {:.3} (bounded at {} s)\n  \
         utilisation  {:.4}, until the last start {:.4}\n  makespan     {:.1} s\n  preemptions  {}\n  \
         load         {:.3}\n",
        cell(&manifest.policy_file.name),
        cell(&manifest.trace_file.name),
        summary.succeeded,
        summary.ended_otherwise,
        summary.unplaceable,
        summary.unfinished,
        wait.mean,
        wait.median,
        wait.p95,
        wait.p99,
        wait.max,
        summary.turnaround_s.mean,
        summary.bsld.mean,
        summary.bsld_bound_s,
        summary.utilisation.full_span,
        summary.utilisation.until_last_start,
        summary.makespan_s,
        summary.preemptions,
        manifest.load,
    )
}

pub fn document(summary: &Summary, manifest: &Manifest) -> Value {
    json!({
        "schema": "muster.sim/1",
        "summary": serde_json::to_value(summary).unwrap_or_default(),
        "manifest": serde_json::to_value(manifest).unwrap_or_default(),
    })
}
