//! `muster hold` and `muster release`.

use super::several::Several;
use crate::context::{Context, request_id};
use crate::error::CliError;
use crate::output::Style;
use crate::output::table::cell;
use clap::Args;
use muster_proto::client::{HoldReply, HoldRequest, Job};
use serde_json::Value;

#[derive(Debug, Args)]
pub struct HoldArgs {
    /// Jobs: 4711, a name, or `-`
    #[arg(required = true)]
    pub jobs: Vec<String>,
}

pub async fn run(context: &Context, args: HoldArgs, hold: bool) -> Result<u8, CliError> {
    let jobs = args.jobs.iter().map(|job| context.job(job)).collect::<Result<Vec<_>, _>>()?;
    let client = context.client()?;
    let held = Several::call(&jobs, async |job| {
        let request = HoldRequest { request_id: request_id(), job: Some(job.clone()), hold };
        client.call(async |mut api| api.hold(request.clone()).await).await
    });
    let held = held.await;
    let style = context.style();
    context.printer.answer_some(&held.done, document, |replies| render(replies, &style))?;
    held.check()?;
    Ok(0)
}

pub fn render(replies: &[HoldReply], style: &Style) -> String {
    let empty = Job::default();
    let line = |reply: &HoldReply| {
        let job = reply.job.as_ref().unwrap_or(&empty);
        let what = match (job.held, job.state.as_str()) {
            (true, "QUEUED") => "is held",
            (true, _) => "runs on; it is held should it be queued again",
            (false, _) => "is not held",
        };
        format!("{} {} {what}\n", style.bold(&job.id.to_string()), cell(&job.name))
    };
    replies.iter().map(line).collect()
}

pub fn document(replies: &[HoldReply]) -> Value {
    muster_proto::document::held(replies)
}
