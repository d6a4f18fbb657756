//! Many gangs at once, until the last has ended.

use super::{Distribution, Measured, Shape, broken, connections, run_name, seconds_since, submit_one};
use crate::client::{Client, status_error};
use crate::context::Context;
use crate::error::CliError;
use clap::Args;
use muster_proto::client::{Event, EventsRequest};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;
use tonic::Streaming;

#[derive(Debug, Args)]
pub struct DrainArgs {
    /// Gangs to run
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub gangs: u32,
    /// Nodes of each
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub nodes: u32,
    /// Submit them as one array in place of a job each
    #[arg(long)]
    pub array: bool,
    /// Connections that submit
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub connections: u32,
    /// What each rank runs
    #[arg(long, default_value = "true")]
    pub command: String,
    #[command(flatten)]
    pub shape: Shape,
}

pub async fn run(context: &Context, args: DrainArgs) -> Result<Vec<Measured>, CliError> {
    let clients = connections(context, args.connections as usize).await?;
    let name = run_name();
    let job = args.shape.job(&name, args.nodes, &args.command);
    let watched = watch(&clients[0]).await?;
    let began = Instant::now();
    let (jobs, how) = if args.array {
        let mut job = job;
        job["array"] = json!({"range": format!("0-{}", args.gangs - 1)});
        (vec![submit_one(&clients[0], &job, name, false).await?], "one array")
    } else {
        (submit_all(&clients, job, &name, args.gangs).await?, "one job each")
    };
    let submitted = seconds_since(began);
    context.printer.say(&format!("submitted after {submitted:.2} s"));
    all_ended(context, watched, jobs).await?;
    let seconds = seconds_since(began);
    let load = format!("drain, {} gangs of {}, {how}", args.gangs, args.nodes);
    Ok(vec![Measured { load, count: args.gangs as usize, seconds, each_ms: Distribution::default() }])
}

async fn submit_all(
    clients: &[Arc<Client>],
    job: serde_json::Value,
    name: &str,
    gangs: u32,
) -> Result<Vec<u64>, CliError> {
    let job = Arc::new(job);
    let mut tasks = Vec::new();
    for (lane, client) in clients.iter().enumerate() {
        let (client, job) = (client.clone(), job.clone());
        let keys: Vec<String> = (lane as u32..gangs).step_by(clients.len()).map(|at| format!("{name}-{at}")).collect();
        tasks.push(tokio::task::spawn_local(async move {
            let mut jobs = Vec::new();
            for key in keys {
                jobs.push(submit_one(&client, &job, key, false).await?);
            }
            Ok::<_, CliError>(jobs)
        }));
    }
    let mut jobs = Vec::new();
    for task in tasks {
        jobs.extend(task.await.map_err(|error| broken(error.to_string()))??);
    }
    Ok(jobs)
}

/// Ends of jobs from now on.
async fn watch(client: &Client) -> Result<Streaming<Event>, CliError> {
    let request = EventsRequest { follow: true, kinds: vec!["job_ended".into()], ..EventsRequest::default() };
    client.call(async |mut api| api.events(request.clone()).await).await
}

/// Jobs may end before their submit is answered, so ends of unknown jobs are remembered.
async fn all_ended(context: &Context, mut ends: Streaming<Event>, jobs: Vec<u64>) -> Result<(), CliError> {
    let total = jobs.len();
    let mut open: BTreeSet<u64> = jobs.into_iter().collect();
    let mut failed: BTreeMap<u64, String> = BTreeMap::new();
    while !open.is_empty() {
        let event = ends.message().await.map_err(|status| status_error(&status))?;
        let event = event.ok_or_else(|| broken("the stream of events ended"))?;
        let Some(job) = event.job.filter(|job| open.remove(job)) else { continue };
        if !event.text.ends_with("SUCCEEDED") {
            failed.insert(job, event.text);
        }
        if open.len().is_multiple_of(100) {
            context.printer.say(&format!("{} of {total} ended", total - open.len()));
        }
    }
    match failed.first_key_value() {
        None => Ok(()),
        Some((_, why)) => Err(broken(format!("{} of {total} did not succeed, such as {why}", failed.len()))),
    }
}
