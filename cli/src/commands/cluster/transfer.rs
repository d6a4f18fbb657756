//! `muster cluster transfer`: another server leads.

use crate::client::Client;
use crate::context::{Context, request_id};
use crate::error::CliError;
use crate::output::json;
use crate::output::table::cell;
use clap::Args;
use muster_proto::client::{TransferLeaderReply, TransferLeaderRequest};
use serde_json::Value;

#[derive(Debug, Args)]
pub struct TransferArgs {
    /// The server that is to lead; unless given, the one that has most of the log
    #[arg(long, value_name = "NAME")]
    pub to: Option<String>,
}

pub async fn run(context: &Context, args: TransferArgs) -> Result<u8, CliError> {
    let client = context.client()?;
    let reply = send(&client, args.to.as_deref().unwrap_or_default()).await?;
    context.printer.answer(|| document(&reply), || render(&reply))?;
    Ok(0)
}

/// A named server leads after a repeat too; an unnamed one may move once more, which harms nobody.
pub async fn send(client: &Client, to: &str) -> Result<TransferLeaderReply, CliError> {
    let request = TransferLeaderRequest { request_id: request_id(), to: to.to_owned() };
    client.call(async |mut api| api.transfer_leader(request.clone()).await).await
}

pub fn render(reply: &TransferLeaderReply) -> String {
    let led = if reply.changed { "leads now" } else { "led already" };
    format!("{} ({}) {led}\n", cell(&reply.leader_name), cell(&reply.leader_address))
}

pub fn document(reply: &TransferLeaderReply) -> Value {
    json::document("muster.transferred/1", reply)
}
