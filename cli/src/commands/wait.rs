//! `muster wait`: until jobs have ended.

use super::several::Several;
use super::{follow, submit};
use crate::context::Context;
use crate::error::CliError;
use crate::output::{Style, json};
use clap::Args;
use muster_common::job::file::parse_duration_ms;
use muster_proto::client::Job;
use muster_proto::convert::error::ErrorCode;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

#[derive(Debug, Args)]
pub struct WaitArgs {
    /// Jobs: 4711, 4711_3, a name, or `-`
    #[arg(required = true)]
    pub jobs: Vec<String>,
}

/// 0 when all succeeded, 8 when one did not, 124 when the time given was not enough.
pub async fn run(context: &Context, args: WaitArgs) -> Result<u8, CliError> {
    let jobs = args.jobs.iter().map(|job| context.job(job)).collect::<Result<Vec<_>, _>>()?;
    let limit = context.flags.timeout.as_deref().map(parse_duration_ms).transpose();
    let limit = limit.map_err(|error| CliError::new(ErrorCode::Usage, format!("--timeout: {error}")))?;
    let client = context.client()?;
    let started = Instant::now();
    let ended = Several::call(&jobs, async |job| {
        let left = limit.map(|limit| Duration::from_millis(limit).saturating_sub(started.elapsed()));
        follow::to_end(&client, job, left).await
    });
    let mut ended = ended.await;
    let style = context.style();
    context.printer.answer_some(&ended.done, document, |jobs| render(jobs, &style))?;
    let done = std::mem::take(&mut ended.done);
    ended.check()?;
    Ok(if done.iter().all(|job| job.state == "SUCCEEDED") { 0 } else { 8 })
}

pub fn render(jobs: &[Job], _style: &Style) -> String {
    jobs.iter().map(|job| submit::ending(job) + "\n").collect()
}

pub fn document(jobs: &[Job]) -> Value {
    json!({"schema": "muster.ended/1", "jobs": json::plain(&jobs)})
}
