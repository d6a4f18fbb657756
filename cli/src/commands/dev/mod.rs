//! `muster dev`: a whole cluster on this machine, every server and agent a process of its own, with
//! simulated GPUs and a throw-away PKI.

mod files;
mod leftovers;
mod processes;
pub mod reaper;

use super::agent::check_devices;
use super::follow::{self, Streams};
use super::{run, submit};
use crate::client::Client;
use crate::context::{Context, request_id};
use crate::error::CliError;
use crate::jobfile;
use crate::settings::{self, Flags};
use clap::Args;
use files::Files;
use muster_proto::client::{CancelRequest, ClusterStatusReply, ClusterStatusRequest, JobRef, ListJobsRequest};
use muster_proto::convert::error::ErrorCode;
use muster_runtime::shutdown::Shutdown;
use processes::Processes;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const READY_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(150);
const JOBS_STOP_WITHIN: Duration = Duration::from_secs(15);
const AGENTS_MAX: u32 = 64;

#[derive(Debug, Args)]
pub struct DevArgs {
    /// Submit this job file, stream its logs, end with its exit code
    #[arg(long, value_name = "FILE")]
    pub run: Option<String>,
    /// Override a value of that job file, such as gang.nodes=2 (may be repeated)
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "run")]
    pub sets: Vec<String>,
    /// Scheduler servers: 1, 3 or 5
    #[arg(long, default_value_t = 3)]
    pub servers: u32,
    /// Nodes
    #[arg(long, default_value_t = 4)]
    pub agents: u32,
    /// The GPUs of each node: none or simulated:FIXTURE
    #[arg(long, default_value = "simulated:dgx-h100")]
    pub devices: String,
    /// Folder to use and keep, in place of a temporary one
    #[arg(long)]
    pub dir: Option<PathBuf>,
}

pub async fn run(context: &Context, args: DevArgs) -> Result<u8, CliError> {
    if !matches!(args.servers, 1 | 3 | 5) || !(1..=AGENTS_MAX).contains(&args.agents) {
        let message = format!("{} servers and {} agents", args.servers, args.agents);
        return Err(
            CliError::new(ErrorCode::Usage, message).hint(format!("1, 3 or 5 servers, 1 to {AGENTS_MAX} agents"))
        );
    }
    check_devices(&args.devices)?;
    // A job file with a mistake should not cost the start of a cluster.
    let job = args.run.as_deref().map(|file| jobfile::load(file, &args.sets)).transpose()?;
    let shutdown = Shutdown::new();
    shutdown.on_signals()?;
    let (dir, temporary) = folder(args.dir)?;
    let files = Files::make(&dir, args.servers, args.agents, &args.devices, context.now_ms())?;
    let reaper = reaper::Reaper::start(&dir)?;
    let mut processes = Processes::start(&files)?;
    let client = client_of(context, &files)?;
    let work = async {
        let status = ready(&client, &mut processes, args.agents).await?;
        match &job {
            None => {
                announce(context, &files, &status, processes.pids())?;
                Ok(Some(idle(&mut processes).await?))
            }
            Some(job) => Ok(Some(run_job(context, &client, job).await?)),
        }
    };
    let outcome: Result<Option<u8>, CliError> = shutdown.unless(work).await.unwrap_or(Ok(None));
    let interrupted = shutdown.is_triggered();
    stop_jobs(&client).await;
    processes.stop().await;
    leftovers::end(&dir);
    reaper.dismiss().await;
    if outcome.is_err() {
        context.printer.say(&format!("logs of the processes: {}", dir.join("logs").display()));
        if let Some(temporary) = temporary {
            let _ = temporary.keep();
        }
    }
    match outcome? {
        Some(code) => Ok(code),
        None if interrupted && job.is_some() => Ok(ErrorCode::Interrupted.exit_code()),
        None => Ok(0),
    }
}

fn folder(dir: Option<PathBuf>) -> Result<(PathBuf, Option<tempfile::TempDir>), CliError> {
    match dir {
        Some(dir) => {
            let dir = std::path::absolute(dir)?;
            if std::fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_some()) {
                return Err(CliError::new(ErrorCode::Conflict, format!("{} is not empty", dir.display()))
                    .hint("give a folder that does not exist yet"));
            }
            Ok((dir, None))
        }
        None => {
            let temporary = tempfile::Builder::new().prefix("muster-dev-").tempdir()?;
            Ok((temporary.path().to_owned(), Some(temporary)))
        }
    }
}

fn client_of(context: &Context, files: &Files) -> Result<Client, CliError> {
    let flags =
        Flags { config: Some(files.client_config()), timeout: context.flags.timeout.clone(), ..Flags::default() };
    Client::open(&settings::load(&flags, &[])?)
}

/// Until there is a leader and every node is up.
async fn ready(client: &Client, processes: &mut Processes, agents: u32) -> Result<ClusterStatusReply, CliError> {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        processes.check_alive()?;
        let asked = client.call(async |mut api| api.cluster_status(ClusterStatusRequest { local: false }).await).await;
        let state = match asked {
            Ok(status) => {
                let up = status.nodes.as_ref().map_or(0, |nodes| nodes.up);
                if status.leader_id != 0 && up >= agents {
                    return Ok(status);
                }
                format!("leader {}, {up} of {agents} nodes up", status.leader_id)
            }
            Err(error) if error.info().retryable => error.info().message.clone(),
            Err(error) => return Err(error),
        };
        if Instant::now() > deadline {
            return Err(CliError::new(ErrorCode::TimedOut, format!("the cluster is not ready: {state}")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn announce(
    context: &Context,
    files: &Files,
    status: &ClusterStatusReply,
    pids: Vec<(String, u32)>,
) -> Result<(), CliError> {
    let (dir, config) = (files.dir(), files.client_config());
    context.printer.answer(
        || document(dir, &config, serde_json::to_value(files.members()).unwrap_or_default(), status, &pids),
        || render(dir, &config, &pids),
    )
}

pub fn render(dir: &Path, config: &Path, pids: &[(String, u32)]) -> String {
    format!(
        "A cluster runs in {}: {}.\nTalk to it from another terminal:\n  export MUSTER_CONFIG={}\n  muster node ls\n  \
         muster submit examples/allreduce.toml --follow\nCtrl-C stops it.\n",
        dir.display(),
        pids.iter().map(|(name, pid)| format!("{name} (pid {pid})")).collect::<Vec<_>>().join(", "),
        config.display(),
    )
}

pub fn document(
    dir: &Path,
    config: &Path,
    servers: Value,
    status: &ClusterStatusReply,
    pids: &[(String, u32)],
) -> Value {
    let processes: Vec<_> = pids.iter().map(|(name, pid)| json!({"name": name, "pid": pid})).collect();
    json!({
        "schema": "muster.dev/1", "dir": dir, "config": config, "cluster_id": status.cluster_id,
        "servers": servers, "leader_id": status.leader_id, "processes": processes,
    })
}

/// Only the end of a process, or of us, ends this.
async fn idle(processes: &mut Processes) -> Result<u8, CliError> {
    loop {
        processes.say_ended();
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn run_job(context: &Context, client: &Client, job: &jobfile::Loaded) -> Result<u8, CliError> {
    let reply = submit::send(context, client, job, submit::Options::default()).await?;
    let job = reply.job.unwrap_or_default();
    context.printer.say(&format!("job {} {}: {}", job.id, job.name, submit::asks(&job)));
    let reference = JobRef { id: job.id, ..JobRef::default() };
    let ended = if job.array {
        follow::to_end(client, &reference, None).await?
    } else {
        follow::logs_to_end(context, client, &reference, Streams::Apart).await?
    };
    context.printer.say(&submit::ending(&ended));
    Ok(run::exit_code(&ended))
}

/// Ranks outlive agents by design, so jobs are ended before the agents are. A cluster that does not
/// answer is not waited for: what is left is found by its folder.
async fn stop_jobs(client: &Client) {
    let deadline = Instant::now() + JOBS_STOP_WITHIN;
    loop {
        let live = client
            .call_within(2_000, async |mut api| {
                api.list_jobs(ListJobsRequest { all_users: true, limit: 1000, ..ListJobsRequest::default() }).await
            })
            .await;
        let Ok(live) = live else { return };
        if live.jobs.is_empty() || Instant::now() > deadline {
            return;
        }
        for job in live.jobs.iter().filter(|job| job.state != "STOPPING") {
            let reference = JobRef { id: job.id, ..JobRef::default() };
            let request =
                CancelRequest { request_id: request_id(), job: Some(reference), reason: "the cluster stops".into() };
            let _ = client.call(async |mut api| api.cancel(request.clone()).await).await;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
