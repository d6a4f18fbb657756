//! How fast the cluster takes work in: held jobs, so that nothing starts.

use super::{Distribution, Measured, Shape, broken, clean_up, connections, run_name, seconds_since, submit_one};
use crate::client::Client;
use crate::context::Context;
use crate::error::CliError;
use clap::Args;
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;

#[derive(Debug, Args)]
pub struct SubmitArgs {
    /// Jobs to submit
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub jobs: u32,
    /// Connections of their own
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub connections: u32,
    /// Submits in flight on each connection
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub in_flight: u32,
    /// Bytes of environment that each job carries
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=65_536))]
    pub job_bytes: u32,
    /// Leave the held jobs in the queue
    #[arg(long)]
    pub keep: bool,
    #[command(flatten)]
    pub shape: Shape,
}

#[derive(Debug, Args)]
pub struct ArrayArgs {
    /// Elements of the array
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub elements: u32,
    /// How often
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub runs: u32,
    #[command(flatten)]
    pub shape: Shape,
}

pub async fn run(context: &Context, args: SubmitArgs) -> Result<Vec<Measured>, CliError> {
    let clients = connections(context, args.connections as usize).await?;
    let name = run_name();
    let mut job = args.shape.job(&name, 1, "true");
    if args.job_bytes > 0 {
        job["env"] = json!({"BENCH_PADDING": "x".repeat(args.job_bytes as usize)});
    }
    let job = Arc::new(job);
    let lanes = args.connections * args.in_flight;
    let began = Instant::now();
    let mut tasks = Vec::new();
    for lane in 0..lanes {
        let (client, job) = (clients[(lane % args.connections) as usize].clone(), job.clone());
        let keys: Vec<String> = (lane..args.jobs).step_by(lanes as usize).map(|at| format!("{name}-{at}")).collect();
        tasks.push(tokio::task::spawn_local(one_lane(client, job, keys)));
    }
    let (mut jobs, mut each_ms) = (Vec::new(), Vec::new());
    for task in tasks {
        for (job, took_ms) in task.await.map_err(|error| broken(error.to_string()))?? {
            jobs.push(job);
            each_ms.push(took_ms);
        }
    }
    let seconds = seconds_since(began);
    let load = format!("submit, {} connections x {} in flight", args.connections, args.in_flight);
    let measured = Measured { load, count: jobs.len(), seconds, each_ms: Distribution::new(each_ms) };
    if !args.keep {
        clean_up(context, &clients, jobs).await?;
    }
    Ok(vec![measured])
}

async fn one_lane(
    client: Arc<Client>,
    job: Arc<serde_json::Value>,
    keys: Vec<String>,
) -> Result<Vec<(u64, f64)>, CliError> {
    let mut done = Vec::with_capacity(keys.len());
    for key in keys {
        let asked = Instant::now();
        let id = submit_one(&client, &job, key, true).await?;
        done.push((id, asked.elapsed().as_secs_f64() * 1e3));
    }
    Ok(done)
}

pub async fn array(context: &Context, args: ArrayArgs) -> Result<Vec<Measured>, CliError> {
    let clients = connections(context, 1).await?;
    let (mut jobs, mut each_ms) = (Vec::new(), Vec::new());
    for at in 0..args.runs {
        let name = run_name();
        let mut job = args.shape.job(&name, 1, "true");
        job["array"] = json!({"range": format!("0-{}", args.elements - 1)});
        let asked = Instant::now();
        jobs.push(submit_one(&clients[0], &job, format!("{name}-{at}"), true).await?);
        each_ms.push(asked.elapsed().as_secs_f64() * 1e3);
    }
    let seconds = each_ms.iter().sum::<f64>() / 1e3;
    let load = format!("one array of {}", args.elements);
    let measured = Measured { load, count: jobs.len(), seconds, each_ms: Distribution::new(each_ms) };
    clean_up(context, &clients, jobs).await?;
    Ok(vec![measured])
}
