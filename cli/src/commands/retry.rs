//! `muster retry`: the same job again, as a new one.

use super::several::Several;
use super::{follow, submit};
use crate::client::MaybeDone;
use crate::context::{Context, request_id};
use crate::error::CliError;
use clap::Args;
use muster_proto::client::RetryRequest;

#[derive(Debug, Args)]
pub struct RetryArgs {
    /// Jobs: 4711, a name, or `-`
    #[arg(required = true)]
    pub jobs: Vec<String>,
    /// Do not start them before `muster release`
    #[arg(long)]
    pub hold: bool,
}

pub async fn run(context: &Context, args: RetryArgs) -> Result<u8, CliError> {
    let jobs = args.jobs.iter().map(|job| context.job(job)).collect::<Result<Vec<_>, _>>()?;
    let client = context.client()?;
    let retried = Several::call(&jobs, async |job| {
        let request = RetryRequest {
            request_id: request_id(),
            // A repeat of the call must not take the new job for the one that ended.
            job: Some(follow::pinned(&client, job).await?),
            key_made_at_ms: context.now_ms(),
            hold: args.hold,
        };
        let taken = MaybeDone::default();
        let sent = client.call(async |mut api| taken.watch(api.retry(request.clone())).await).await;
        sent.map_err(|error| match taken.get() && error.code().is_retryable() {
            // Typed again, the command would have another request id.
            true => error.hint("it may have taken effect: look with `muster ps` before you repeat it"),
            false => error,
        })
    });
    let retried = retried.await;
    if let Some(job) = retried.done.last().and_then(|reply| reply.job.as_ref()) {
        context.last_job().set(job.id);
    }
    let style = context.style();
    // One document a job, as a submit of each would print.
    for reply in &retried.done {
        context.printer.answer(|| submit::document(reply, false), || submit::render(reply, false, &style))?;
    }
    retried.check()?;
    Ok(0)
}
