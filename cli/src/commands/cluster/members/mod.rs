//! `muster cluster members`: the scheduler servers, and taking them in and out of the cluster.

pub mod change;
pub mod prepare;

use super::status::{ask, members as table};
use crate::context::Context;
use crate::error::CliError;
use crate::output::{Style, json};
use clap::{Args, Subcommand};
use muster_proto::client::ClusterStatusReply;
use serde_json::{Value, json};

#[derive(Debug, Args)]
pub struct MembersArgs {
    #[command(subcommand)]
    pub command: Option<MembersCommand>,
}

#[derive(Debug, Subcommand)]
pub enum MembersCommand {
    /// Make the folder of a server that is to be added: identity and settings
    Prepare(prepare::PrepareArgs),
    /// Add a server that runs on an empty folder, and give it a vote once it has the log
    Add(change::AddArgs),
    /// Take a server out for good
    Remove(change::RemoveArgs),
    /// Let a new server take the place of another in one change
    Replace(change::ReplaceArgs),
}

pub async fn run(context: &Context, args: MembersArgs) -> Result<u8, CliError> {
    match args.command {
        Some(MembersCommand::Prepare(args)) => return prepare::run(context, args).await,
        Some(MembersCommand::Add(args)) => return change::add(context, args).await,
        Some(MembersCommand::Remove(args)) => return change::remove(context, args).await,
        Some(MembersCommand::Replace(args)) => return change::replace(context, args).await,
        None => {}
    }
    let reply = ask(context, false).await?;
    let style = context.style();
    context.printer.answer(|| document(&reply), || render(&reply, &style))?;
    Ok(0)
}

pub fn render(reply: &ClusterStatusReply, style: &Style) -> String {
    let voters = reply.members.iter().filter(|member| member.voter).count();
    let answers = reply.members.iter().filter(|member| member.voter && member.state != "unreachable").count();
    let mut text = table(reply, style);
    text.push_str(&format!(
        "{answers} of {voters} with a vote answer; {} are needed. The next server has the id {}.\n",
        voters / 2 + 1,
        reply.next_server_id
    ));
    text
}

pub fn document(reply: &ClusterStatusReply) -> Value {
    json!({
        "schema": "muster.members/1", "members": json::plain(&reply.members), "changed": false,
        "leader_id": reply.leader_id, "term": reply.term, "next_server_id": reply.next_server_id,
    })
}
