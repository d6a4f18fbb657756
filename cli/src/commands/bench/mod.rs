//! `muster bench`: loads for a cluster, to be run where the answer matters.
//!
//! Everything a load submits is named `bench-...`, is cancelled or ends by itself, and is charged to the caller like other work.

mod distribution;
mod drain;
mod start;
mod submit;

use crate::client::Client;
use crate::context::{Context, request_id};
use crate::error::CliError;
use crate::output::table::{Align, Table};
use clap::{Args, Subcommand};
pub use distribution::Distribution;
use muster_proto::client::{CancelRequest, JobRef, SubmitRequest};
use muster_proto::convert::error::ErrorCode;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;

#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Durable submits of held jobs: how many a second, and how long each takes
    Submit(submit::SubmitArgs),
    /// From submit to the first instruction of the last rank, for gangs of several sizes
    Start(start::StartArgs),
    /// Submit many gangs at once and wait until all have succeeded
    Drain(drain::DrainArgs),
    /// One submit of a large array
    Array(submit::ArrayArgs),
}

/// What every load asks for.
#[derive(Debug, Clone, Args)]
pub struct Shape {
    /// GPUs on each node of a gang
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub gpus_per_node: u32,
    /// Queue to submit to
    #[arg(long)]
    pub queue: Option<String>,
}

impl Shape {
    /// A job file, as JSON, of one gang that runs `command` on so many nodes.
    fn job(&self, name: &str, nodes: u32, command: &str) -> Value {
        let mut job = json!({
            "name": name,
            "gang": {"nodes": nodes, "gpus_per_node": self.gpus_per_node, "run": command},
        });
        if let Some(queue) = &self.queue {
            job["queue"] = json!(queue);
        }
        job
    }
}

/// One measured load.
#[derive(Debug)]
pub struct Measured {
    /// What was done, such as `submit, 8 connections`.
    pub load: String,
    /// How often.
    pub count: usize,
    pub seconds: f64,
    /// Of each, in milliseconds; empty when only the whole was timed.
    pub each_ms: Distribution,
}

impl Measured {
    fn per_second(&self) -> f64 {
        self.count as f64 / self.seconds
    }
}

pub async fn run(context: &Context, command: BenchCommand) -> Result<u8, CliError> {
    let measured = match command {
        BenchCommand::Submit(args) => submit::run(context, args).await?,
        BenchCommand::Start(args) => start::run(context, args).await?,
        BenchCommand::Drain(args) => drain::run(context, args).await?,
        BenchCommand::Array(args) => submit::array(context, args).await?,
    };
    context.printer.answer(|| document(&measured), || render(&measured))?;
    Ok(0)
}

pub fn render(measured: &[Measured]) -> String {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("LOAD", Left),
        ("COUNT", Right),
        ("SECONDS", Right),
        ("PER SECOND", Right),
        ("MEDIAN MS", Right),
        ("P99 MS", Right),
        ("MIN", Right),
        ("MAX", Right),
    ]);
    let figure = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
    for one in measured {
        let each = &one.each_ms;
        table.row([
            one.load.clone(),
            one.count.to_string(),
            format!("{:.3}", one.seconds),
            format!("{:.1}", one.per_second()),
            figure(each.quantile(0.5)),
            figure(each.quantile(0.99)),
            figure(each.quantile(0.0)),
            figure(each.quantile(1.0)),
        ]);
    }
    table.text()
}

pub fn document(measured: &[Measured]) -> Value {
    let loads: Vec<Value> = measured
        .iter()
        .map(|one| {
            let each = &one.each_ms;
            json!({
                "load": one.load,
                "count": one.count,
                "seconds": one.seconds,
                "per_second": one.per_second(),
                "median_ms": each.quantile(0.5),
                "p99_ms": each.quantile(0.99),
                "min_ms": each.quantile(0.0),
                "max_ms": each.quantile(1.0),
            })
        })
        .collect();
    json!({"schema": "muster.bench/1", "loads": loads})
}

/// A name that no earlier run has used.
fn run_name() -> String {
    let id = request_id();
    format!("bench-{}", &id[id.len() - 12..])
}

/// Submits one job; the answer comes after its entry is durable on a majority of the servers.
async fn submit_one(client: &Client, job: &Value, key: String, hold: bool) -> Result<u64, CliError> {
    let request = SubmitRequest { spec_json: job.to_string(), key, hold, ..SubmitRequest::default() };
    let reply = client.call(async |mut api| api.submit(request.clone()).await).await?;
    Ok(reply.job.map(|job| job.id).unwrap_or_default())
}

/// A connection of its own for each lane, all made before the clock starts.
async fn connections(context: &Context, count: usize) -> Result<Vec<Arc<Client>>, CliError> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        let client = context.client()?;
        let request = muster_proto::client::VersionRequest::default();
        client.call(async |mut api| api.version(request).await).await?;
        clients.push(Arc::new(client));
    }
    Ok(clients)
}

/// Takes held jobs out of the queue again, a few at a time.
async fn clean_up(context: &Context, clients: &[Arc<Client>], jobs: Vec<u64>) -> Result<(), CliError> {
    context.printer.say(&format!("cancelling {} jobs of this run", jobs.len()));
    let lanes = clients.len().max(1);
    let mut tasks = Vec::new();
    for (lane, client) in clients.iter().enumerate() {
        let (client, jobs) = (client.clone(), jobs.iter().skip(lane).step_by(lanes).copied().collect::<Vec<_>>());
        tasks.push(tokio::task::spawn_local(async move {
            for id in jobs {
                let job = Some(JobRef { id, ..JobRef::default() });
                let request = CancelRequest { request_id: request_id(), job, reason: "end of a bench".into() };
                client.call(async |mut api| api.cancel(request.clone()).await).await?;
            }
            Ok::<(), CliError>(())
        }));
    }
    for task in tasks {
        task.await.map_err(|error| broken(error.to_string()))??;
    }
    Ok(())
}

/// What should not happen to a load.
fn broken(why: impl Into<String>) -> CliError {
    CliError::new(ErrorCode::Internal, why)
}

fn seconds_since(began: Instant) -> f64 {
    began.elapsed().as_secs_f64()
}
