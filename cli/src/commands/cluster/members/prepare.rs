//! `muster cluster members prepare`: the folder of a server that is to join.

use crate::commands::cluster::init::{listen, refuse_used};
use crate::commands::cluster::status::ask;
use crate::context::Context;
use crate::error::CliError;
use crate::layout::{Layout, Member, SERVER_FILE};
use clap::Args;
use muster_proto::client::ClusterStatusReply;
use muster_proto::convert::error::ErrorCode;
use muster_runtime::identity::{Authority, check_word};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub struct PrepareArgs {
    /// The new server, as NAME=HOST:PORT
    #[arg(value_name = "NAME=HOST:PORT")]
    pub member: String,
    /// Folder to make; it must not exist or be empty
    pub dir: PathBuf,
    /// The folder `ca` that `muster cluster init` made
    #[arg(long, value_name = "DIR")]
    pub ca: PathBuf,
    /// Where the server will keep its data and keys, if not beside its settings file, such as /var/lib/muster/server
    #[arg(long, value_name = "DIR")]
    pub server_dir: Option<PathBuf>,
}

pub async fn run(context: &Context, args: PrepareArgs) -> Result<u8, CliError> {
    let (name, address) = named(&args.member)?;
    refuse_used(&args.dir)?;
    let authority = Authority::load(&args.ca, context.now_ms())?;
    let reply = ask(context, false).await?;
    let member = newcomer(&reply, authority.cluster(), name, address)?;
    let mut members: Vec<Member> = reply.members.iter().map(known).collect();
    members.push(member.clone());
    let layout = Layout { authority: &authority, members: &members, now_ms: context.now_ms() };
    let dir = std::path::absolute(&args.dir)?;
    layout.joining(&dir, &member, listen(&member.address)?, args.server_dir.as_deref())?;
    context.printer.answer(|| document(&dir, &member), || render(&dir, &member))?;
    Ok(0)
}

/// Name and address of `NAME=HOST:PORT`.
pub fn named(text: &str) -> Result<(&str, &str), CliError> {
    let usage = |why: &str| {
        CliError::new(ErrorCode::Usage, format!("`{text}`: {why}")).hint("write for example s4=10.0.0.4:7070")
    };
    let (name, address) = text.split_once('=').ok_or_else(|| usage("no `=`"))?;
    check_word("server name", name)?;
    listen(address)?;
    Ok((name, address))
}

fn known(member: &muster_proto::client::Member) -> Member {
    Member { id: member.id, name: member.name.clone(), address: member.address.clone() }
}

fn newcomer(reply: &ClusterStatusReply, cluster: &str, name: &str, address: &str) -> Result<Member, CliError> {
    if reply.cluster_id != cluster {
        let message = format!("the CA is of cluster `{cluster}`; the servers are of `{}`", reply.cluster_id);
        return Err(CliError::new(ErrorCode::Conflict, message).hint("give --ca the folder of this cluster"));
    }
    if let Some(known) = reply.members.iter().find(|member| member.name == name || member.address == address) {
        let message = format!("server `{}` at {} is there already", known.name, known.address);
        return Err(CliError::new(ErrorCode::Conflict, message).hint("names and addresses are each server's own"));
    }
    Ok(Member { id: reply.next_server_id, name: name.to_owned(), address: address.to_owned() })
}

pub fn render(dir: &Path, member: &Member) -> String {
    let file = dir.join(SERVER_FILE);
    format!(
        "Server {} (id {}) in {}\nOn {}, with the folder copied there:\n  muster server --config {}\nThen here:\n  \
         muster cluster members add {}={}\n",
        member.name,
        member.id,
        dir.display(),
        member.address,
        file.display(),
        member.name,
        member.address
    )
}

pub fn document(dir: &Path, member: &Member) -> Value {
    json!({
        "schema": "muster.server_prepared/1", "id": member.id, "name": member.name, "address": member.address,
        "config": dir.join(SERVER_FILE),
    })
}
