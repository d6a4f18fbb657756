//! `muster retry`: the same job again, as a new one.

use super::submit;
use crate::context::{Context, request_id};
use crate::error::CliError;
use clap::Args;
use muster_proto::client::RetryRequest;

#[derive(Debug, Args)]
pub struct RetryArgs {
    /// Job: 4711, a name, or `-`
    pub job: String,
    /// Do not start it before `muster release`
    #[arg(long)]
    pub hold: bool,
}

pub async fn run(context: &Context, args: RetryArgs) -> Result<u8, CliError> {
    let request = RetryRequest {
        request_id: request_id(),
        job: Some(context.job(&args.job)?),
        key_made_at_ms: context.now_ms(),
        hold: args.hold,
    };
    let client = context.client()?;
    let reply = client.call(async |mut api| api.retry(request.clone()).await).await?;
    if let Some(job) = &reply.job {
        context.last_job().set(job.id);
    }
    let style = context.style();
    context.printer.answer(|| submit::document(&reply, false), || submit::render(&reply, false, &style))?;
    Ok(0)
}
