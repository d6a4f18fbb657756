//! `muster policy history`.

use super::show;
use crate::context::Context;
use crate::error::CliError;
use crate::output::table::cell;
use crate::output::{human, json};
use clap::Args;
use muster_proto::client::{PolicyRecord, ShowPolicyReply};
use serde_json::Value;

#[derive(Debug, Args)]
pub struct HistoryArgs {}

pub async fn run(context: &Context, _args: HistoryArgs) -> Result<u8, CliError> {
    let reply = show(context).await?;
    context.printer.answer(|| document(&reply), || render(&reply))?;
    if reply.history.is_empty() {
        context.printer.say("no change of the policy is on record");
    }
    Ok(0)
}

pub fn render(reply: &ShowPolicyReply) -> String {
    reply.history.iter().enumerate().map(|(at, record)| one(record, at == 0)).collect()
}

fn one(record: &PolicyRecord, in_force: bool) -> String {
    let mut text = format!(
        "version {} by {}, {}{}\n",
        record.version,
        cell(&record.by),
        human::moment(record.set_at_ms),
        if in_force { ", in force" } else { "" }
    );
    let Some(evidence) = &record.evidence else {
        text.push_str("  no evidence was given\n");
        return text;
    };
    text.push_str(&format!(
        "  evidence {} (manifest {}, engine version {})\n",
        cell(&evidence.run),
        cell(&evidence.manifest_sha256),
        evidence.engine_version
    ));
    for figure in &evidence.figures {
        text.push_str(&format!("    {:<16} {}\n", cell(&figure.name), cell(&figure.value)));
    }
    text
}

pub fn document(reply: &ShowPolicyReply) -> Value {
    json::document("muster.policy/1", reply)
}
