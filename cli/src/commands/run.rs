//! `muster run`: a command as a job, its output here, its exit code as ours.

use super::follow::{self, Streams};
use super::submit::{self, Options};
use crate::context::{Context, request_id};
use crate::error::CliError;
use crate::jobfile::{self, Source};
use clap::Args;
use muster_common::job::file::{
    Command, DurationText, Gang, JobFile, Limits, NodeCount, Ranks, Retry, SizeText, reads_as_number,
};
use muster_proto::client::{CancelRequest, Job, JobRef};
use muster_proto::convert::error::ErrorCode;
use std::collections::BTreeMap;

/// Ours, when the job has no exit code of its own.
const FAILED_OURSELVES: u8 = 125;

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Nodes, all or none
    #[arg(short = 'N', long, default_value_t = 1)]
    pub nodes: u32,
    /// GPUs on each node
    #[arg(short, long, default_value_t = 0)]
    pub gpus_per_node: u32,
    /// GPU models, the preferred first: "H100 | H200"
    #[arg(long)]
    pub gpu: Option<String>,
    /// CPUs on each node
    #[arg(long)]
    pub cpus_per_node: Option<u32>,
    /// Memory on each node, such as 64GiB
    #[arg(long)]
    pub memory_per_node: Option<String>,
    /// Ranks on each node, or `gpu` for one per GPU
    #[arg(long, default_value = "1")]
    pub ranks_per_node: String,
    /// Hard stop, such as 2h
    #[arg(long)]
    pub time: Option<String>,
    /// The job's name; the program's unless given
    #[arg(long)]
    pub name: Option<String>,
    /// Where it waits
    #[arg(long)]
    pub queue: Option<String>,
    /// Who is charged
    #[arg(long)]
    pub account: Option<String>,
    /// Its priority class: low, normal, high or one of the cluster's
    #[arg(long)]
    pub priority: Option<String>,
    /// Absolute folder on the nodes
    #[arg(long)]
    pub workdir: Option<String>,
    /// A variable for the ranks, as NAME=VALUE (may be repeated)
    #[arg(short, long = "env", value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

pub async fn run(context: &Context, args: RunArgs) -> Result<u8, CliError> {
    let loaded = jobfile::check(job_file(args)?, Source::none("the command line"))?;
    let ours = |mut error: CliError| {
        for report in error.reports_mut() {
            report.info.exit_code = FAILED_OURSELVES;
        }
        error
    };
    let client = context.client().map_err(ours)?;
    let reply = submit::send(context, &client, &loaded, Options::default()).await.map_err(ours)?;
    let job = reply.job.unwrap_or_default();
    context.printer.say(&format!("job {} {}", job.id, submit::asks(&job)));
    let reference = JobRef { id: job.id, ..JobRef::default() };
    let ended = tokio::select! {
        ended = follow::logs_to_end(context, &client, &reference, Streams::Apart) => ended.map_err(ours)?,
        _ = tokio::signal::ctrl_c() => {
            let request = CancelRequest { request_id: request_id(), job: Some(reference.clone()), reason: "interrupted by the user".into() };
            client.call(async |mut api| api.cancel(request.clone()).await).await.map_err(ours)?;
            return Err(CliError::new(ErrorCode::Interrupted, format!("interrupted; job {} is cancelled", job.id)));
        }
    };
    if ended.state != "SUCCEEDED" {
        context.printer.say(&submit::ending(&ended));
    }
    Ok(exit_code(&ended))
}

/// The job's own code, as a shell would give it.
pub fn exit_code(job: &Job) -> u8 {
    match (job.exit_code, job.state.as_str()) {
        (_, "SUCCEEDED") => 0,
        // A job that did not succeed must not look as if it had.
        (Some(code), _) if code & 0xff != 0 => (code & 0xff) as u8,
        (_, "TIMED_OUT") => 124,
        _ => FAILED_OURSELVES,
    }
}

fn job_file(args: RunArgs) -> Result<JobFile, CliError> {
    let usage = |message: String| CliError::new(ErrorCode::Usage, message);
    let mut env = BTreeMap::new();
    for pair in &args.env {
        let (name, value) =
            pair.split_once('=').ok_or_else(|| usage(format!("--env {pair}: write it as NAME=VALUE")))?;
        env.insert(name.to_owned(), value.to_owned());
    }
    let ranks = match args.ranks_per_node.as_str() {
        "gpu" => Ranks::PerGpu,
        text => Ranks::Fixed(text.parse().map_err(|_| usage(format!("--ranks-per-node {text}: a number or `gpu`")))?),
    };
    let duration = |text: String| DurationText::new(&text).map_err(|error| usage(format!("--time: {error}")));
    let size = |text: String| SizeText::new(&text).map_err(|error| usage(format!("--memory-per-node: {error}")));
    let program = args.command.first().and_then(|word| word.rsplit('/').next()).unwrap_or_default().to_owned();
    let gang = Gang {
        nodes: Some(NodeCount::Fixed(args.nodes)),
        gpus_per_node: Some(args.gpus_per_node),
        gpu: args.gpu,
        cpus_per_node: args.cpus_per_node,
        memory_per_node: args.memory_per_node.map(size).transpose()?,
        ranks_per_node: Some(ranks),
        run: Some(Command::Argv(args.command)),
        ..Gang::default()
    };
    Ok(JobFile {
        name: args.name.or_else(|| name_of(program)),
        queue: args.queue,
        account: args.account,
        priority: args.priority,
        workdir: args.workdir,
        env,
        gang: Some(gang),
        limits: Limits { time: args.time.map(duration).transpose()?, ..Limits::default() },
        retry: Retry::default(),
        ..JobFile::default()
    })
}

/// The program's name, where it can be a job's.
fn name_of(program: String) -> Option<String> {
    muster_common::Name::new(program).ok().map(|name| name.to_string()).filter(|name| !reads_as_number(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(state: &str, exit_code: Option<i32>) -> Job {
        Job { state: state.into(), exit_code, ..Job::default() }
    }

    #[test]
    fn the_jobs_own_code_is_ours_and_a_failure_is_never_zero() {
        assert_eq!(exit_code(&ended("SUCCEEDED", Some(0))), 0);
        assert_eq!(exit_code(&ended("FAILED", Some(3))), 3);
        assert_eq!(exit_code(&ended("FAILED", Some(137))), 137);
        assert_eq!(exit_code(&ended("FAILED", Some(0))), 125);
        assert_eq!(exit_code(&ended("FAILED", Some(256))), 125);
        assert_eq!(exit_code(&ended("CANCELLED", None)), 125);
        assert_eq!(exit_code(&ended("TIMED_OUT", None)), 124);
    }
}
