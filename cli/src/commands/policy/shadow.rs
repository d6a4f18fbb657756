//! `muster policy shadow`: a second policy on each State of the live cluster, without any effect.

use super::{read, show};
use crate::context::{Context, request_id};
use crate::error::CliError;
use crate::output::human;
use crate::output::table::cell;
use clap::{Args, Subcommand};
use muster_proto::client::{ConfigureRequest, PolicyShadow, ShowPolicyReply};
use serde_json::Value;
use std::path::PathBuf;

/// What a shadow can say, and what it cannot.
pub const SAYS: &str = "at each State on which the policy in force was asked, whom this one would have started there; \
                        nothing of what would have followed: neither waits, nor use, nor cost";
const SHOWN_MAX: usize = 10;

#[derive(Debug, Subcommand)]
pub enum ShadowCommand {
    /// Have the leader run a policy beside the one in force
    Set(SetArgs),
    /// Run none any more
    Clear(ClearArgs),
    /// Show how often both agree, and in what they differ
    Report(ReportArgs),
}

#[derive(Debug, Args)]
pub struct SetArgs {
    /// TOML file with the policy
    pub file: PathBuf,
}

#[derive(Debug, Args)]
pub struct ClearArgs {}

#[derive(Debug, Args)]
pub struct ReportArgs {}

pub async fn run(context: &Context, command: ShadowCommand) -> Result<u8, CliError> {
    match command {
        ShadowCommand::Set(args) => {
            change(context, serde_json::to_string(&read(&args.file)?).unwrap_or_default()).await
        }
        ShadowCommand::Clear(_) => change(context, "null".to_owned()).await,
        ShadowCommand::Report(_) => {
            let reply = show(context).await?;
            context.printer.answer(|| document(&reply), || render(&reply))?;
            Ok(0)
        }
    }
}

async fn change(context: &Context, json: String) -> Result<u8, CliError> {
    let request = ConfigureRequest { request_id: request_id(), kind: "shadow".into(), json, plan_only: false };
    let client = context.client()?;
    client.call(async |mut api| api.configure(request.clone()).await).await?;
    let reply = show(context).await?;
    context.printer.answer(|| document(&reply), || render(&reply))?;
    Ok(0)
}

pub fn render(reply: &ShowPolicyReply) -> String {
    let Some(shadow) = &reply.shadow else { return "no policy is run in the shadow\n".into() };
    let mut text =
        format!("shadow: {SAYS}\n  set          by {}, {}\n", cell(&shadow.by), human::moment(shadow.set_at_ms));
    match shadow.counted_since_at_ms {
        Some(since) => text.push_str(&format!("  counted      by this leader since {}\n", human::moment(since))),
        None => text.push_str("  counted      nothing yet by this leader\n"),
    }
    text.push_str(&format!(
        "  cycles       {}: {} compared, {} passed over because the shadow was busy, {} cut short after {} steps\n  \
         agreement    {} of {}\n",
        shadow.cycles,
        shadow.compared,
        shadow.skipped,
        shadow.truncated,
        shadow.steps_max,
        shadow.agree,
        shadow.compared
    ));
    for kind in &shadow.kinds {
        text.push_str(&format!("  {:>12} {}\n", kind.cycles, cell(&kind.text)));
    }
    text + &latest(shadow)
}

fn latest(shadow: &PolicyShadow) -> String {
    let named = |gangs: &[String]| match gangs {
        [] => "none".to_owned(),
        some => some.iter().map(|gang| cell(gang)).collect::<Vec<_>>().join(" "),
    };
    let line = |difference: &muster_proto::client::ShadowDifference| {
        let moment = human::moment(difference.decided_at_ms);
        let (real, other) = (named(&difference.only_in_force), named(&difference.only_shadow));
        let kind = cell(&difference.kind);
        format!("  {moment} entry {}, {kind}: only in force {real}; only shadow {other}\n", difference.index)
    };
    shadow.latest.iter().take(SHOWN_MAX).map(line).collect()
}

pub fn document(reply: &ShowPolicyReply) -> Value {
    let mut document = super::history::document(reply);
    document["shadow_says"] = SAYS.into();
    document
}
