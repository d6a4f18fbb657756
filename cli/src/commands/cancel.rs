//! `muster cancel`: stop jobs, or take them out of the queue.

use super::several::Several;
use crate::context::{Context, request_id};
use crate::error::CliError;
use crate::output::table::cell;
use crate::output::{Style, human};
use clap::Args;
use muster_proto::client::{CancelReply, CancelRequest, Job};
use serde_json::Value;

/// More than this at once is asked about.
const UNASKED_MAX: usize = 20;

#[derive(Debug, Args)]
pub struct CancelArgs {
    /// Jobs: 4711, 4711_3, a name, or `-`
    #[arg(required = true)]
    pub jobs: Vec<String>,
    /// Kept with the job
    #[arg(long, default_value = "")]
    pub reason: String,
}

pub async fn run(context: &Context, args: CancelArgs) -> Result<u8, CliError> {
    let jobs = args.jobs.iter().map(|job| context.job(job)).collect::<Result<Vec<_>, _>>()?;
    if jobs.len() > UNASKED_MAX {
        context.confirm(&format!("{} jobs will be cancelled", jobs.len()))?;
    }
    let client = context.client()?;
    let cancelled = Several::call(&jobs, async |job| {
        let request = CancelRequest { request_id: request_id(), job: Some(job.clone()), reason: args.reason.clone() };
        client.call(async |mut api| api.cancel(request.clone()).await).await
    });
    let cancelled = cancelled.await;
    let style = context.style();
    context.printer.answer_some(&cancelled.done, document, |replies| render(replies, &style))?;
    cancelled.check()?;
    Ok(0)
}

pub fn render(replies: &[CancelReply], style: &Style) -> String {
    let empty = Job::default();
    let line = |reply: &CancelReply| {
        let job = reply.job.as_ref().unwrap_or(&empty);
        let (id, name) = (style.bold(&job.id.to_string()), cell(&job.name));
        match reply.gangs {
            0 => format!("{id} {name} had ended already: {}\n", style.state(&cell(&job.state))),
            1 => format!(
                "{id} {name} is {}; used {} GPU-hours\n",
                style.state(&cell(&job.state)),
                human::gpu_hours(job.device_ms)
            ),
            gangs => {
                format!("{id} {name}: {gangs} elements cancelled; used {} GPU-hours\n", human::gpu_hours(job.device_ms))
            }
        }
    };
    replies.iter().map(line).collect()
}

pub fn document(replies: &[CancelReply]) -> Value {
    muster_proto::document::cancelled(replies)
}
