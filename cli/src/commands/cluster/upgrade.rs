//! `muster cluster upgrade`: the last step of an upgrade, after which no server goes back.

use crate::client::Client;
use crate::context::{Context, request_id};
use crate::error::CliError;
use clap::Args;
use muster_engine::apply::FEATURE_LEVEL;
use muster_proto::client::{ConfigureReply, ConfigureRequest};
use serde_json::Value;

const KIND: &str = "feature_level";

#[derive(Debug, Args)]
pub struct UpgradeArgs {
    /// The feature level; the highest that this program knows unless given
    pub level: Option<u32>,
    /// Only say whether every server could take part
    #[arg(long)]
    pub dry_run: bool,
}

pub async fn run(context: &Context, args: UpgradeArgs) -> Result<u8, CliError> {
    let level = args.level.unwrap_or(FEATURE_LEVEL);
    let client = context.client()?;
    let mut reply = send(&client, level, true).await?;
    let before = reply.json.clone();
    if reply.changed && !args.dry_run {
        let what = format!(
            "raise the feature level from {before} to {level}; servers of the version before cannot go on then"
        );
        context.confirm(&what)?;
        reply = send(&client, level, false).await?;
    }
    context.printer.answer(|| document(&reply), || render(&reply, &before, level, args.dry_run))?;
    Ok(0)
}

async fn send(client: &Client, level: u32, plan_only: bool) -> Result<ConfigureReply, CliError> {
    let request = ConfigureRequest { request_id: request_id(), kind: KIND.into(), json: level.to_string(), plan_only };
    client.call(async |mut api| api.configure(request.clone()).await).await
}

pub fn render(reply: &ConfigureReply, before: &str, level: u32, dry_run: bool) -> String {
    match (reply.changed, dry_run) {
        (false, _) => format!("feature level {before}, as before; configuration {}\n", reply.version),
        (true, true) => format!("feature level {before}; every server can compute {level}\n"),
        (true, false) => format!("feature level {level}, raised from {before}; configuration {}\n", reply.version),
    }
}

pub fn document(reply: &ConfigureReply) -> Value {
    muster_proto::document::configuration(KIND, reply)
}
