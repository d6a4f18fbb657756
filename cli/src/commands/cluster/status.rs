//! `muster cluster status`.

use crate::context::Context;
use crate::error::CliError;
use crate::output::human::{self, NONE};
use crate::output::table::{Align, Table, cell};
use crate::output::{Style, json};
use clap::Args;
use muster_proto::client::{ClusterStatusReply, ClusterStatusRequest};
use serde_json::Value;
use std::fmt::Write as _;

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// What the asked server itself knows, even without a leader
    #[arg(long)]
    pub local: bool,
}

pub async fn run(context: &Context, args: StatusArgs) -> Result<u8, CliError> {
    let reply = ask(context, args.local).await?;
    let style = context.style();
    context.printer.answer(|| document(&reply), || render(&reply, &style))?;
    Ok(0)
}

pub async fn ask(context: &Context, local: bool) -> Result<ClusterStatusReply, CliError> {
    let client = context.client()?;
    client.call(async |mut api| api.cluster_status(ClusterStatusRequest { local }).await).await
}

pub fn render(reply: &ClusterStatusReply, style: &Style) -> String {
    let mut text = format!("cluster {}\n", style.bold(&cell(&reply.cluster_id)));
    let mut line = |label: &str, value: String| {
        let _ = writeln!(text, "  {label:<10} {value}");
    };
    let leader = reply.members.iter().find(|member| member.id == reply.leader_id && reply.leader_id != 0);
    line(
        "leader",
        leader.map_or_else(
            || if reply.leader_id == 0 { "none".to_owned() } else { reply.leader_id.to_string() },
            |member| format!("{} ({}), term {}", cell(&member.name), cell(&member.address), reply.term),
        ),
    );
    line(
        "log",
        format!(
            "applied {}, committed {}, snapshot {}",
            reply.applied_index, reply.committed_index, reply.snapshot_index
        ),
    );
    line(
        "format",
        format!(
            "generation {}, feature level {}, configuration {}, policy {}",
            reply.generation,
            reply.feature_level,
            reply.config_version,
            cell(&reply.policy)
        ),
    );
    if let Some(jobs) = &reply.jobs {
        line(
            "jobs",
            format!(
                "{} running, {} starting, {} stopping, {} queued ({} held)",
                jobs.running, jobs.starting, jobs.stopping, jobs.queued, jobs.held
            ),
        );
    }
    if let Some(nodes) = &reply.nodes {
        line(
            "nodes",
            format!(
                "{} of {} up, {} silent, {} fenced, {} closed",
                nodes.up, nodes.total, nodes.silent, nodes.fenced, nodes.closed
            ),
        );
    }
    if let Some(gpus) = &reply.devices {
        line(
            "GPUs",
            format!(
                "{} of {} free, {} held, {} unknown, {} quarantined",
                gpus.free, gpus.total, gpus.held, gpus.unknown, gpus.quarantined
            ),
        );
    }
    if let Some(ways) = &reply.heartbeats {
        let lost = match ways.udp_lost {
            0 => String::new(),
            lost => format!(" (udp lost by {}; is it blocked?)", human::count(lost.into(), "agent")),
        };
        line("heartbeat", format!("{} over quic, {} over the stream{lost}", ways.quic, ways.stream));
    }
    line("time", human::moment(reply.now_ms));
    line("state", cell(&reply.state_hash));
    text.push_str(&members(reply, style));
    text
}

pub fn members(reply: &ClusterStatusReply, style: &Style) -> String {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("ID", Right),
        ("SERVER", Left),
        ("ADDRESS", Left),
        ("STATE", Left),
        ("LAG", Right),
        ("VERSION", Left),
    ]);
    for member in &reply.members {
        let learner = if member.voter || member.state == "learner" { "" } else { " (learner)" };
        table.row([
            member.id.to_string(),
            cell(&member.name),
            cell(&member.address),
            style.state(&cell(&member.state)) + learner,
            member.lag.map_or(NONE.to_owned(), |lag| lag.to_string()),
            cell(&member.version),
        ]);
    }
    table.text()
}

pub fn document(reply: &ClusterStatusReply) -> Value {
    json::document("muster.cluster/1", reply)
}
