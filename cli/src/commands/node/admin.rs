//! Changes to a node: first what they touch, then the change.

use crate::client::{Client, MaybeDone};
use crate::context::{Context, request_id};
use crate::error::CliError;
use crate::output::human;
use crate::output::table::cell;
use crate::output::{Style, json};
use clap::Args;
use muster_common::job::file::parse_duration_ms;
use muster_proto::client::{Affected, Node, NodeAdminReply, NodeAdminRequest};
use muster_proto::convert::error::ErrorCode;
use serde_json::Value;
use std::fmt::Write as _;

#[derive(Debug, Args)]
pub struct NodeArgs {
    pub node: String,
}

#[derive(Debug, Args)]
pub struct ReasonArgs {
    pub node: String,
    /// Why; kept with the node and in the record of events
    #[arg(long)]
    pub reason: String,
}

#[derive(Debug, Args)]
pub struct DrainArgs {
    pub node: String,
    /// Why; kept with the node and in the record of events
    #[arg(long)]
    pub reason: String,
    /// After this, what still runs is stopped and queued again; without it, it may end by itself
    #[arg(long)]
    pub deadline: Option<String>,
}

#[derive(Debug, Args)]
pub struct QuarantineArgs {
    pub node: String,
    /// The GPU's slot, as `muster node show` prints it
    #[arg(long)]
    pub slot: u32,
    /// Why; kept in the record of events
    #[arg(long)]
    pub reason: String,
}

/// One change, as it is sent.
#[derive(Debug, Clone)]
pub struct Change {
    request: NodeAdminRequest,
    /// Asked about even when nothing runs there.
    dangerous: bool,
}

impl Change {
    pub fn plain(action: &str, args: NodeArgs) -> Self {
        let request = NodeAdminRequest { node: args.node, action: action.to_owned(), ..NodeAdminRequest::default() };
        Self { request, dangerous: false }
    }

    pub fn reasoned(action: &str, args: ReasonArgs) -> Self {
        let mut change = Self::plain(action, NodeArgs { node: args.node });
        change.request.reason = args.reason;
        change
    }

    pub fn drain(args: DrainArgs) -> Result<Self, CliError> {
        let deadline = args.deadline.as_deref().map(parse_duration_ms).transpose();
        let deadline = deadline.map_err(|error| CliError::new(ErrorCode::Usage, format!("--deadline: {error}")))?;
        let mut change = Self::reasoned("drain", ReasonArgs { node: args.node, reason: args.reason });
        change.request.deadline_ms = deadline;
        Ok(change)
    }

    pub fn quarantine(args: QuarantineArgs) -> Self {
        let mut change = Self::reasoned("end-quarantine", ReasonArgs { node: args.node, reason: args.reason });
        change.request.slot = Some(args.slot);
        change
    }

    pub fn dangerous(self) -> Self {
        Self { dangerous: true, ..self }
    }
}

pub async fn run(context: &Context, change: Change) -> Result<u8, CliError> {
    let client = context.client()?;
    let mut request = NodeAdminRequest { request_id: request_id(), ..change.request };
    // What only opens a node again touches no job.
    if change.dangerous || request.action == "drain" {
        let plan = send(&client, NodeAdminRequest { plan_only: true, ..request.clone() }).await?;
        if change.dangerous || !plan.affected.is_empty() {
            let style = context.style();
            context.printer.say(plan_text(&plan, &style).trim_end());
            context.confirm(&format!("{} {}", request.action, request.node))?;
        }
    }
    request.plan_only = false;
    let action = request.action.clone();
    let reply = send(&client, request).await?;
    let style = context.style();
    context.printer.answer(|| document(&reply), || render(&reply, &action, &style))?;
    Ok(0)
}

pub async fn send(client: &Client, request: NodeAdminRequest) -> Result<NodeAdminReply, CliError> {
    let gone = MaybeDone::default();
    let sent = client.call(async |mut api| gone.watch(api.node_admin(request.clone())).await).await;
    sent.or_else(|error| match error.code() {
        // An earlier try of this call has removed it, and its answer was lost.
        ErrorCode::NodeNotFound if request.action == "remove" && !request.plan_only && gone.get() => {
            let node = Some(Node { name: request.node.clone(), ..Node::default() });
            Ok(NodeAdminReply { node, changed: true, ..NodeAdminReply::default() })
        }
        _ => Err(error),
    })
}

pub fn plan_text(reply: &NodeAdminReply, style: &Style) -> String {
    let name = reply.node.as_ref().map(|node| cell(&node.name)).unwrap_or_default();
    if reply.affected.is_empty() {
        return format!("nothing runs on {name}\n");
    }
    reply.affected.iter().map(|affected| affected_line(&name, affected, style)).collect()
}

fn affected_line(node: &str, affected: &Affected, style: &Style) -> String {
    let mut line = format!(
        "{node} runs {} {} ({}, {})",
        cell(&affected.gang),
        cell(&affected.name),
        human::count(affected.nodes.into(), "node"),
        cell(&affected.user)
    );
    if let Some(end) = affected.expected_end_at_ms {
        let _ = write!(line, "; expected to end {}", human::moment_and_distance(end, style.now_ms));
    }
    if !affected.text.is_empty() {
        let _ = write!(line, "; {}", cell(&affected.text));
    }
    line.push('\n');
    line
}

pub fn render(reply: &NodeAdminReply, action: &str, style: &Style) -> String {
    let empty = Node::default();
    let node = reply.node.as_ref().unwrap_or(&empty);
    let unchanged = if reply.changed { "" } else { " (as before)" };
    let mut text = match action {
        "remove" => format!("{} is removed{unchanged}\n", style.bold(&cell(&node.name))),
        _ => format!("{} is {}{unchanged}\n", style.bold(&cell(&node.name)), style.state(&cell(&node.state))),
    };
    for affected in &reply.affected {
        text.push_str("  ");
        text.push_str(&affected_line(&cell(&node.name), affected, style));
    }
    text
}

pub fn document(reply: &NodeAdminReply) -> Value {
    json::document("muster.node_change/1", reply)
}
