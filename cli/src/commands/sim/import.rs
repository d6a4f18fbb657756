//! `muster sim import`: recorded work into our own format, with a data card.

use super::{OnBadRows, cluster, failed, format_named, said};
use crate::context::Context;
use crate::error::CliError;
use clap::Args;
use muster_common::job::file::parse_duration_ms;
use muster_sim::ImportArgs;
use muster_sim::trace::{Card, Format};
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct SimImportArgs {
    /// The recorded work; `.gz` is unpacked
    #[arg(value_name = "TRACE", required_unless_present = "from")]
    pub trace: Option<PathBuf>,
    /// A Muster cluster's own past: `live:TIME` asks its servers, `backup:FILE` reads a backup. -o is a folder then, for
    /// trace, world, policy and organisation
    #[arg(long, value_name = "SOURCE", value_parser = cluster::stretch, conflicts_with_all = ["trace", "format", "throughputs", "bad_rows", "start_job", "jobs"])]
    pub from: Option<cluster::Stretch>,
    /// With --from: no more than so long before the end, such as 7d
    #[arg(long, value_name = "TIME", requires = "from")]
    pub last: Option<String>,
    /// How it is written; told by its name and header unless given
    #[arg(long, value_parser = format_named)]
    pub format: Option<Format>,
    /// JSON table of steps a second, for traces that count jobs in steps
    #[arg(long, value_name = "FILE")]
    pub throughputs: Option<PathBuf>,
    /// What to do with rows that cannot be read
    #[arg(long, value_enum, default_value_t = OnBadRows::Refuse)]
    pub bad_rows: OnBadRows,
    /// First job of a window, counted from 0
    #[arg(long, default_value_t = 0)]
    pub start_job: usize,
    /// Jobs of the window; to the end of the trace unless given
    #[arg(long)]
    pub jobs: Option<usize>,
    /// File to write, `.jsonl`, `.jsonl.gz` or `.parquet`; without it, only the data card is printed
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

pub fn run(context: &Context, args: &SimImportArgs) -> Result<u8, CliError> {
    if let Some(from) = &args.from {
        return cluster::run(context, &within(from, args.last.as_deref())?, args.output.as_deref());
    }
    let trace = args.trace.clone().ok_or_else(|| cluster::usage("name a trace, or a cluster with --from"))?;
    let import = ImportArgs {
        trace,
        format: args.format,
        throughputs: args.throughputs.clone(),
        bad_rows: args.bad_rows.into(),
        start_job: args.start_job,
        jobs: args.jobs,
        output: args.output.clone(),
    };
    let card = muster_sim::import(&import).map_err(failed)?;
    context.printer.answer(|| document(&card), || format!("{}\n", render(&card)))?;
    if let Some(output) = &args.output {
        context.printer.say(&format!("written to {}", output.display()));
    }
    Ok(0)
}

/// `--last` beside a source.
pub fn within(from: &cluster::Stretch, last: Option<&str>) -> Result<cluster::Stretch, CliError> {
    let Some(last) = last else { return Ok(from.clone()) };
    if from.last_ms.is_some() {
        return Err(cluster::usage("say how long once: in the source, such as live:30d, or with --last"));
    }
    let last_ms = parse_duration_ms(last).map_err(|error| cluster::usage(&format!("--last: {error}")))?;
    Ok(cluster::Stretch { last_ms: Some(last_ms), ..from.clone() })
}

pub fn render(card: &Card) -> String {
    format!(
        "{}\n  submits      from {} s to {} s of the trace's clock\n  work         {:.1} GPU-hours, \
         {:.2} GPUs busy on average if spread over the span\n  largest job  {} GPUs",
        said(card),
        card.first_submit_s,
        card.last_submit_s,
        card.device_s / 3600.0,
        card.mean_devices,
        card.largest_job_devices
    )
}

pub fn document(card: &Card) -> Value {
    json!({"schema": "muster.sim_card/1", "card": serde_json::to_value(card).unwrap_or_default()})
}
