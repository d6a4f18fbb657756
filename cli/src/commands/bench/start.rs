//! From submit to the first instruction of the last rank, by the clocks of the nodes.

use super::{Distribution, Measured, Shape, broken, connections, run_name, submit_one};
use crate::client::{Client, status_error};
use crate::commands::follow;
use crate::context::Context;
use crate::error::CliError;
use clap::Args;
use muster_proto::client::{JobRef, LogsRequest};
use std::collections::BTreeMap;

/// What each rank does: says when it began, in nanoseconds since 1970.
const STAMP: &str = "date +%s%N";

#[derive(Debug, Args)]
pub struct StartArgs {
    /// Sizes of gangs, in nodes
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4, 8], value_parser = clap::value_parser!(u32).range(1..))]
    pub nodes: Vec<u32>,
    /// Gangs of each size, one after the other
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub runs: u32,
    #[command(flatten)]
    pub shape: Shape,
}

/// The nodes' clocks must agree with this machine's to within what is measured.
pub async fn run(context: &Context, args: StartArgs) -> Result<Vec<Measured>, CliError> {
    let client = connections(context, 1).await?.remove(0);
    let mut measured = Vec::new();
    for nodes in &args.nodes {
        let mut each_ms = Vec::new();
        for run in 0..args.runs {
            context.printer.say(&format!("{nodes} nodes, {} of {}", run + 1, args.runs));
            let name = run_name();
            let job = args.shape.job(&name, *nodes, STAMP);
            let asked_ms = context.now_ms();
            let id = submit_one(&client, &job, name, false).await?;
            let job = JobRef { id, ..JobRef::default() };
            let ended = follow::to_end(&client, &job, None).await?;
            if ended.state != "SUCCEEDED" {
                let why = if ended.cause_text.is_empty() { &ended.state } else { &ended.cause_text };
                return Err(broken(format!("a gang of {nodes} nodes did not succeed: {why}")));
            }
            each_ms.push(last_stamp_ms(&client, &job).await? - asked_ms as f64);
        }
        let seconds = each_ms.iter().sum::<f64>() / 1e3;
        let load = format!("start, gang of {nodes}");
        measured.push(Measured { load, count: each_ms.len(), seconds, each_ms: Distribution::new(each_ms) });
    }
    Ok(measured)
}

async fn last_stamp_ms(client: &Client, job: &JobRef) -> Result<f64, CliError> {
    let request = LogsRequest { job: Some(job.clone()), ..LogsRequest::default() };
    let mut chunks = client.call(async |mut api| api.logs(request.clone()).await).await?;
    let mut texts: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    while let Some(chunk) = chunks.message().await.map_err(|status| status_error(&status))? {
        if chunk.stream == "stdout" {
            texts.entry(chunk.rank).or_default().extend_from_slice(&chunk.data);
        }
    }
    let stamps = texts.values().map(|text| {
        let text = String::from_utf8_lossy(text);
        text.trim().parse::<f64>().map_err(|_| broken(format!("a rank printed `{}`", text.trim())))
    });
    let last = stamps.collect::<Result<Vec<_>, _>>()?.into_iter().max_by(f64::total_cmp);
    last.map(|ns| ns / 1e6).ok_or_else(|| broken("no rank printed anything"))
}
