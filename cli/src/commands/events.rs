//! `muster events`: what happened, in order, resumable.

use super::follow;
use crate::client::{Client, status_error};
use crate::context::Context;
use crate::error::CliError;
use crate::output::table::cell;
use crate::output::{Style, human, json};
use clap::Args;
use muster_proto::client::{Event, EventsRequest};
use serde_json::Value;
use std::time::Duration;
use tonic::Status;

const BREAKS_MAX: u32 = 30;
const BREAK_PAUSE: Duration = Duration::from_millis(300);

#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Go on as more happens
    #[arg(short, long)]
    pub follow: bool,
    /// From this log index on
    #[arg(long, value_name = "INDEX")]
    pub from: Option<u64>,
    /// Only of this job
    #[arg(long)]
    pub job: Option<String>,
    /// Only of this node
    #[arg(long)]
    pub node: Option<String>,
    /// Only of these kinds, such as gang_placed,node_silent
    #[arg(long, value_delimiter = ',')]
    pub kind: Vec<String>,
    /// At most so many, when not following
    #[arg(long, default_value_t = 1000)]
    pub limit: u32,
}

pub async fn run(context: &Context, args: EventsArgs) -> Result<u8, CliError> {
    tell(context, &context.client()?, args).await
}

pub async fn tell(context: &Context, client: &Client, args: EventsArgs) -> Result<u8, CliError> {
    let job = match args.job.as_deref() {
        Some(job) => Some(follow::pinned(client, &context.job(job)?).await?),
        None => None,
    };
    let from_index = match args.from {
        // A stream that breaks before its first event must go on where it began, not where the next one begins.
        None if args.follow => next_index(client).await?,
        from => from,
    };
    let mut request = EventsRequest {
        from_index,
        follow: args.follow,
        kinds: args.kind,
        job,
        node: args.node.unwrap_or_default(),
        limit: args.limit,
    };
    let mut last: Option<(u64, u32)> = None;
    let mut breaks = 0;
    loop {
        let mut events = client.call(async |mut api| api.events(request.clone()).await).await?;
        loop {
            match events.message().await {
                Ok(Some(event)) => {
                    let at = (event.index, event.ordinal);
                    // After a break the stream begins with the entry it broke in.
                    if last.is_some_and(|last| at <= last) {
                        continue;
                    }
                    (last, breaks) = (Some(at), 0);
                    print(context, &event)?;
                }
                Ok(None) => return Ok(0),
                Err(status) => {
                    broken(client, &status, &mut breaks).await?;
                    break;
                }
            }
        }
        request.from_index = last.map(|(index, _)| index).or(request.from_index);
    }
}

/// Of the entry behind the last that told anything; `None` where none is known to have.
async fn next_index(client: &Client) -> Result<Option<u64>, CliError> {
    let request = EventsRequest { limit: 1, ..EventsRequest::default() };
    let mut breaks = 0;
    loop {
        let mut events = client.call(async |mut api| api.events(request.clone()).await).await?;
        match events.message().await {
            Ok(last) => return Ok(last.map(|event| event.index + 1)),
            Err(status) => broken(client, &status, &mut breaks).await?,
        }
    }
}

/// Whether to open a stream again, at another server: this one may go away, or its history lack something.
async fn broken(client: &Client, status: &Status, breaks: &mut u32) -> Result<(), CliError> {
    let error = status_error(status);
    *breaks += 1;
    if !error.info().retryable || *breaks > BREAKS_MAX {
        return Err(error);
    }
    client.elsewhere();
    tokio::time::sleep(BREAK_PAUSE).await;
    Ok(())
}

fn print(context: &Context, event: &Event) -> Result<(), CliError> {
    if context.printer.json {
        return context.printer.line(&document(event).to_string());
    }
    context.printer.line(&render(event, &context.style()))
}

pub fn render(event: &Event, style: &Style) -> String {
    format!(
        "{}  {}  {:<18} {}",
        human::moment(event.at_ms),
        style.paint("2", &format!("{:>8}.{}", event.index, event.ordinal)),
        cell(&event.kind),
        cell(&event.text)
    )
}

pub fn document(event: &Event) -> Value {
    json::document("muster.event/1", event)
}
