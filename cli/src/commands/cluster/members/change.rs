//! Adding, removing and replacing a server. A change that was cut short is repeated as it is and goes on where it was.

use super::prepare::named;
use crate::client::Client;
use crate::commands::cluster::{status, transfer};
use crate::context::{Context, request_id};
use crate::error::CliError;
use crate::output::{Style, json};
use clap::Args;
use muster_proto::client::{
    ChangeMembersReply, ChangeMembersRequest, ClusterStatusReply, ClusterStatusRequest, Member,
};
use muster_proto::convert::error::ErrorCode;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Entries a server may lack when it gets its vote; the leader asks for no less.
const NEARLY: u64 = 500;
const LOOK_EVERY: Duration = Duration::from_millis(500);
const SAY_EVERY: Duration = Duration::from_secs(5);
/// Beyond the servers' own patience with a change.
const CHANGE_MS: u64 = 25_000;

#[derive(Debug, Args)]
pub struct AddArgs {
    /// The new server, as NAME=HOST:PORT; it runs there already, on an empty folder
    #[arg(value_name = "NAME=HOST:PORT")]
    pub member: String,
    /// Leave it without a vote
    #[arg(long)]
    pub learner: bool,
    /// How long the server may take to receive the log
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    pub catch_up: String,
}

#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// Its name
    #[arg(value_name = "NAME")]
    pub member: String,
}

#[derive(Debug, Args)]
pub struct ReplaceArgs {
    /// The name of the server that leaves; it need not run any more
    pub old: String,
    /// The new server, as NAME=HOST:PORT; it runs there already, on an empty folder
    #[arg(value_name = "NAME=HOST:PORT")]
    pub new: String,
    /// How long the new server may take to receive the log
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    pub catch_up: String,
}

pub async fn add(context: &Context, args: AddArgs) -> Result<u8, CliError> {
    let (name, address) = named(&args.member)?;
    let catch_up = patience(&args.catch_up)?;
    let client = context.client()?;
    let mut reply = send(&client, "add", name, address, "").await?;
    if !args.learner {
        wait_for_log(context, &client, name, catch_up).await?;
        let added = reply.changed;
        reply = send(&client, "promote", name, "", "").await?;
        reply.changed |= added;
    }
    print(context, &reply)
}

pub async fn remove(context: &Context, args: RemoveArgs) -> Result<u8, CliError> {
    let client = context.client()?;
    context.confirm(&format!("server {} leaves the cluster for good: its id is never given again", args.member))?;
    step_down(context, &client, &args.member).await?;
    let reply = send(&client, "remove", &args.member, "", "").await?;
    print(context, &reply)?;
    context.printer.say(&format!("stop server {} now, and never start it again on its folder", args.member));
    Ok(0)
}

pub async fn replace(context: &Context, args: ReplaceArgs) -> Result<u8, CliError> {
    let (name, address) = named(&args.new)?;
    let catch_up = patience(&args.catch_up)?;
    let client = context.client()?;
    let before = members(&client).await?;
    let known = |name: &str| before.members.iter().any(|member| member.name == name);
    if !known(&args.old) && !known(name) {
        return Err(CliError::new(ErrorCode::ServerNotFound, format!("there is no server `{}`", args.old))
            .hint("`muster cluster members` lists the servers"));
    }
    context.confirm(&format!("server {name} takes the place of {}, which leaves for good", args.old))?;
    send(&client, "add", name, address, "").await?;
    wait_for_log(context, &client, name, catch_up).await?;
    step_down(context, &client, &args.old).await?;
    let reply = send(&client, "promote", name, "", &args.old).await?;
    print(context, &reply)
}

fn patience(text: &str) -> Result<Duration, CliError> {
    let parsed = muster_common::job::file::parse_duration_ms(text);
    let parsed = parsed.map_err(|error| CliError::new(ErrorCode::Usage, format!("--catch-up: {error}")))?;
    Ok(Duration::from_millis(parsed))
}

/// A leader cannot take itself out: another one leads first.
async fn step_down(context: &Context, client: &Client, name: &str) -> Result<(), CliError> {
    let status = members(client).await?;
    let leads = status.members.iter().any(|member| member.id == status.leader_id && member.name == name);
    if leads {
        let moved = transfer::send(client, "").await?;
        context.printer.say(&format!("{name} led; {} leads now", moved.leader_name));
    }
    Ok(())
}

async fn members(client: &Client) -> Result<ClusterStatusReply, CliError> {
    client.call(async |mut api| api.cluster_status(ClusterStatusRequest { local: false }).await).await
}

async fn send(
    client: &Client,
    action: &str,
    server: &str,
    address: &str,
    replaces: &str,
) -> Result<ChangeMembersReply, CliError> {
    let request = ChangeMembersRequest {
        request_id: request_id(),
        action: action.to_owned(),
        server: server.to_owned(),
        address: address.to_owned(),
        replaces: replaces.to_owned(),
    };
    client.call_within(CHANGE_MS, async |mut api| api.change_members(request.clone()).await).await
}

/// Waits until the server has nearly the whole log, and says how far it is.
async fn wait_for_log(context: &Context, client: &Client, name: &str, patience: Duration) -> Result<(), CliError> {
    let begun = Instant::now();
    let mut said = begun;
    loop {
        let status = members(client).await?;
        let member = status.members.iter().find(|member| member.name == name);
        let lag = member.and_then(|member| member.lag);
        if member.is_some_and(|member| member.voter) || lag.is_some_and(|lag| lag <= NEARLY) {
            return Ok(());
        }
        if begun.elapsed() > patience {
            let message = format!("server {name} has not received the log in {} s", patience.as_secs());
            return Err(CliError::new(ErrorCode::TimedOut, message).hint(
                "it goes on receiving; repeat the command to give it its vote, with a longer --catch-up if need be",
            ));
        }
        if said.elapsed() > SAY_EVERY {
            said = Instant::now();
            let far = lag.map_or("nothing of the log yet".to_owned(), |lag| format!("all but {lag} entries"));
            context.printer.say(&format!("{name} has {far}"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn print(context: &Context, reply: &ChangeMembersReply) -> Result<u8, CliError> {
    let style = context.style();
    context.printer.answer(|| document(reply), || render(reply, &style))?;
    Ok(0)
}

pub fn render(reply: &ChangeMembersReply, style: &Style) -> String {
    let leader = reply.members.iter().find(|member| member.state == "leader").map_or(0, |member| member.id);
    let shown = ClusterStatusReply { members: reply.members.clone(), leader_id: leader, ..Default::default() };
    let voters = reply.members.iter().filter(|member: &&Member| member.voter).count();
    let even = if voters.is_multiple_of(2) && voters > 0 {
        format!("{voters} servers have a vote: no more of them may be lost than of {}.\n", voters - 1)
    } else {
        String::new()
    };
    let what = if reply.changed { "" } else { "nothing to change\n" };
    format!("{what}{}{even}", status::members(&shown, style))
}

pub fn document(reply: &ChangeMembersReply) -> Value {
    json::document("muster.members/1", reply)
}
