//! `muster node token`.

use crate::context::{Context, request_id};
use crate::error::CliError;
use crate::output::human;
use clap::Args;
use muster_common::job::file::parse_duration_ms;
use muster_proto::client::{NodeTokenReply, NodeTokenRequest};
use muster_proto::convert::error::ErrorCode;
use muster_proto::join_token::JoinToken;
use serde_json::Value;

#[derive(Debug, Args)]
pub struct TokenArgs {
    /// Only for the node of this name
    #[arg(long)]
    pub node: Option<String>,
    /// How long it may be used
    #[arg(long, default_value = "1h")]
    pub ttl: String,
}

pub async fn run(context: &Context, args: TokenArgs) -> Result<u8, CliError> {
    let ttl_ms =
        parse_duration_ms(&args.ttl).map_err(|error| CliError::new(ErrorCode::Usage, format!("--ttl: {error}")))?;
    // A zero on the wire means that nothing was said.
    if ttl_ms == 0 {
        return Err(CliError::new(ErrorCode::Usage, "--ttl: a token needs time to be used").hint("such as --ttl 1h"));
    }
    let request = NodeTokenRequest { request_id: request_id(), node: args.node.unwrap_or_default(), ttl_ms };
    let client = context.client()?;
    let reply = client.call(async |mut api| api.node_token(request.clone()).await).await?;
    let now_ms = context.now_ms();
    context.printer.answer(|| document(&reply), || render(&reply))?;
    context.printer.say(&format!(
        "valid once, until {}; on the node: muster agent join --token -",
        human::moment_and_distance(reply.expires_at_ms, now_ms)
    ));
    Ok(0)
}

/// Only the token, so that it can be piped.
pub fn render(reply: &NodeTokenReply) -> String {
    JoinToken::of(reply).encode() + "\n"
}

pub fn document(reply: &NodeTokenReply) -> Value {
    muster_proto::document::node_token(reply)
}
