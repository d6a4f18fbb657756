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
            0 => format!("{id} {name} {}\n", untouched(job, style)),
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

/// Why nothing was told to stop.
fn untouched(job: &Job, style: &Style) -> String {
    let state = style.state(&cell(&job.state));
    // An element that was given up with others ended at no moment of its own.
    let has_ended = matches!(job.state.as_str(), "SUCCEEDED" | "FAILED" | "CANCELLED" | "TIMED_OUT");
    match job.counts.as_ref().map_or(0, |counts| counts.stopping) {
        _ if job.ended_at_ms.is_some() || has_ended => format!("had ended already: {state}"),
        1.. if job.array && job.state != "STOPPING" => {
            "is cancelled already; what is left of it is stopping".to_owned()
        }
        _ => format!("is {state} already; it is not tried again"),
    }
}

pub fn document(replies: &[CancelReply]) -> Value {
    muster_proto::document::cancelled(replies)
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_proto::client::GangCounts;

    #[test]
    fn only_what_has_ended_is_said_to_have_ended() {
        let told = |job: Job| {
            let reply = CancelReply { job: Some(Job { id: 7, name: "train".into(), ..job }), gangs: 0 };
            render(&[reply], &Style { color: false, now_ms: 0 })
        };
        let job = |state: &str| Job { state: state.into(), ..Job::default() };
        let failed = Job { ended_at_ms: Some(1), ..job("FAILED") };
        assert_eq!(told(failed), "7 train had ended already: FAILED\n");
        assert_eq!(told(job("STOPPING")), "7 train is STOPPING already; it is not tried again\n");
        let counts = || Some(GangCounts { total: 9, stopping: 3, ..GangCounts::default() });
        let array = |state: &str| Job { array: true, counts: counts(), ..job(state) };
        assert_eq!(told(array("RUNNING")), "7 train is cancelled already; what is left of it is stopping\n");
        // Of one element.
        assert_eq!(told(array("STOPPING")), "7 train is STOPPING already; it is not tried again\n");
        assert_eq!(told(array("CANCELLED")), "7 train had ended already: CANCELLED\n");
    }
}
