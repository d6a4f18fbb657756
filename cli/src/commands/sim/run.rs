//! `muster sim run`: one policy on one trace.

use super::{SimSceneArgs, Teller, failed, interrupts, said};
use crate::context::Context;
use crate::error::CliError;
use crate::output::human::bytes;
use crate::output::table::cell;
use clap::Args;
use muster_sim::estimates::Errors;
use muster_sim::stopwatch::Timing;
use muster_sim::{Manifest, RunArgs, Summary};
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct SimRunArgs {
    /// TOML file with the policy
    #[arg(long, value_name = "FILE")]
    pub policy: PathBuf,
    #[command(flatten)]
    pub scene: SimSceneArgs,
    /// Of failures, repairs and whatever else is drawn at random
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Write every event to events.ndjson too
    #[arg(long)]
    pub events: bool,
    /// Of about so many jobs spread over the trace, ask the engine at their submit when those that wait will start, and tell
    /// how far it was off; each asks for one play of all that waits
    #[arg(long, value_name = "JOBS", default_value_t = 0)]
    pub estimates: usize,
    /// Folder for tables, summary and manifest; empty, or not there yet
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
}

pub fn run(context: &Context, args: SimRunArgs) -> Result<u8, CliError> {
    let args = RunArgs {
        policy: args.policy,
        scene: args.scene.scene(),
        seed: args.seed,
        output: args.output,
        events: args.events,
        estimates: args.estimates,
    };
    let stop = interrupts()?;
    let mut teller = Teller::new(context);
    let report = muster_sim::run(&args, &mut |progress| teller.ended(progress, &stop)).map_err(failed)?;
    context.printer.say(&said(&report.card));
    context.printer.answer(
        || document(&report.summary, &report.manifest, &report.timing),
        || render(&report.summary, &report.manifest),
    )?;
    context.printer.say(&timed(&report.timing));
    context.printer.say(&format!("results in {}", args.output.display()));
    if !report.summary.complete {
        context.printer.say("it was stopped before its end; what had happened until then was kept");
        return Ok(super::INTERRUPTED);
    }
    Ok(0)
}

pub fn render(summary: &Summary, manifest: &Manifest) -> String {
    let wait = &summary.wait_s;
    format!(
        "{} on {}\n  jobs         {} succeeded, {} ended otherwise, {} unplaceable, {} unfinished\n  \
         wait         mean {:.1} s, median {:.1} s, p95 {:.1} s, p99 {:.1} s, max {:.1} s\n  \
         turnaround   mean {:.1} s\n  slowdown     mean {:.3} (bounded at {} s)\n  \
         utilisation  {:.4}, until the last start {:.4}\n  makespan     {:.1} s\n  preemptions  {}\n  \
         load         {:.3}\n  GPU-time     {:.1} % kept work, {:.1} % allocated; {}\n{}{}{}",
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
        summary.usage.goodput * 100.0,
        summary.usage.allocated * 100.0,
        spent(summary),
        estimates(summary),
        calibration(summary),
        cost(summary),
    )
}

/// What the rest went to, the most first.
fn spent(summary: &Summary) -> String {
    let mut parts: Vec<_> = summary.usage.parts[1..].iter().filter(|part| part.percent >= 0.05).collect();
    parts.sort_by(|a, b| b.percent.total_cmp(&a.percent));
    let word = |part: &&muster_sim::metrics::usage::Part| {
        format!("{:.1} % {}", part.percent, part.category.word().replace('_', " "))
    };
    parts.iter().take(4).map(word).collect::<Vec<_>>().join(", ")
}

fn estimates(summary: &Summary) -> String {
    let Some(told) = &summary.start_estimates else { return String::new() };
    let Errors { jobs, abs_median_s, abs_p90_s, bias_s, .. } = told.all;
    format!(
        "  estimates    {} asked, {} started at once, {} not told; error of {jobs} starts: median {abs_median_s:.1} s, \
         p90 {abs_p90_s:.1} s, bias {bias_s:+.1} s\n",
        told.asked, told.at_once, told.not_told
    )
}

fn calibration(summary: &Summary) -> String {
    summary.calibration.as_ref().map_or_else(String::new, |known| format!("  calibration  {}\n", known.words()))
}

fn cost(summary: &Summary) -> String {
    let Some(bill) = &summary.cost else { return String::new() };
    format!(
        "  cost         ${:.2}, ${:.2} for each GPU-hour of kept work; {:.1} kWh\n",
        bill.total_usd, bill.usd_per_kept_gpu_h, bill.energy_kwh
    )
}

/// What it cost on this machine.
fn timed(timing: &Timing) -> String {
    let Timing { decisions, decision_p50_us, decision_p99_us, decision_max_us, play_s, events_per_s, .. } = timing;
    let memory =
        timing.peak_memory_bytes.map_or_else(String::new, |peak| format!("; {} of memory at most", bytes(peak)));
    format!(
        "{decisions} decisions in {play_s:.1} s: {decision_p50_us:.0} us in the median, p99 {decision_p99_us:.0} us, max \
         {decision_max_us:.0} us; {events_per_s:.0} events a second{memory}"
    )
}

pub fn document(summary: &Summary, manifest: &Manifest, timing: &Timing) -> Value {
    json!({
        "schema": "muster.sim/1",
        "summary": serde_json::to_value(summary).unwrap_or_default(),
        "manifest": serde_json::to_value(manifest).unwrap_or_default(),
        "timing": serde_json::to_value(timing).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_cost_is_said_in_one_line() {
        let timing = Timing {
            decisions: 1_200,
            decision_p50_us: 41.2,
            decision_p99_us: 900.0,
            decision_max_us: 12_345.6,
            play_s: 2.5,
            events: 5_000,
            events_per_s: 2_000.0,
            peak_memory_bytes: Some(64 << 20),
        };
        let said = timed(&timing);
        assert!(said.starts_with("1200 decisions in 2.5 s: 41 us in the median, p99 900 us, max 12346 us"), "{said}");
        assert!(said.contains("2000 events a second; ") && said.ends_with(" of memory at most"), "{said}");
        let elsewhere = Timing { peak_memory_bytes: None, ..timing };
        assert!(timed(&elsewhere).ends_with("2000 events a second"));
    }
}
