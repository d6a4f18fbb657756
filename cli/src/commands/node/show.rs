//! `muster node show`.

use super::devices;
use super::ls::free;
use crate::context::Context;
use crate::error::CliError;
use crate::output::human;
use crate::output::table::cell;
use crate::output::{Style, json};
use clap::Args;
use muster_proto::client::{DeviceCounts, Node, ShowNodeRequest};
use serde_json::Value;
use std::fmt::Write as _;

#[derive(Debug, Args)]
pub struct ShowArgs {
    pub name: String,
}

pub async fn run(context: &Context, args: ShowArgs) -> Result<u8, CliError> {
    let request = ShowNodeRequest { name: args.name };
    let client = context.client()?;
    let node = client.call(async |mut api| api.show_node(request.clone()).await).await?;
    let style = context.style();
    context.printer.answer(|| document(&node), || render(&node, &style))?;
    Ok(0)
}

pub fn render(node: &Node, style: &Style) -> String {
    let none = DeviceCounts::default();
    let counts = node.counts.as_ref().unwrap_or(&none);
    let mut text = format!("{}  {}\n", style.bold(&cell(&node.name)), style.state(&cell(&node.state)));
    let mut line = |label: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(text, "  {label:<10} {value}");
        }
    };
    line("reason", reason(node, style));
    line("silent", node.silent_at_ms.map(|at| human::moment_and_distance(at, style.now_ms)).unwrap_or_default());
    line("GPUs", format!("{} of {} free", free(counts), counts.total));
    line("CPUs", format!("{} of {} in use", human::cpus(node.cpu_milli_used), human::cpus(node.cpu_milli)));
    line(
        "memory",
        format!("{} of {} set aside", human::bytes(node.memory_bytes_used), human::bytes(node.memory_bytes)),
    );
    line("place", cell(&node.place.join("; ")));
    line(
        "labels",
        node.labels.iter().map(|(key, value)| format!("{}={}", cell(key), cell(value))).collect::<Vec<_>>().join(" "),
    );
    line("runs", runs(node));
    line(
        "free at",
        node.free_estimate_at_ms.map(|at| human::moment_and_distance(at, style.now_ms)).unwrap_or_default(),
    );
    line("address", cell(&node.address));
    line(
        "agent",
        format!(
            "version {}, registered {}, epoch {}",
            cell(&node.agent_version),
            human::moment_and_distance(node.registered_at_ms, style.now_ms),
            node.epoch
        ),
    );
    line("heartbeat", heartbeat(node, style));
    line("boot", cell(&node.boot_id));
    if node.weak_fencing {
        line(
            "fencing",
            "weaker: ranks can outlive a killed shim, because the agent may not make PID namespaces".into(),
        );
    }
    for numa in &node.numa {
        line("numa", format!("{}: CPUs {}, {}", numa.id, cell(&numa.cpus), human::bytes(numa.memory_bytes)));
    }
    for nic in &node.nics {
        let use_ = if nic.compute { "compute" } else { "other" };
        let rail = nic.rail.map(|rail| format!(", rail {rail}")).unwrap_or_default();
        let rate = match nic.rate_gbps {
            0 => "speed unknown".to_owned(),
            rate => format!("{rate} Gbit/s"),
        };
        line("nic", format!("{} {rate}, {use_}{rail}", cell(&nic.name)));
    }
    if !node.devices.is_empty() {
        text.push_str(&devices::table(node, style));
    }
    text
}

/// Those that have a part here; older servers do not tell how many they did not name.
fn runs(node: &Node) -> String {
    let named = cell(&node.gangs.join(" "));
    match (node.gangs_total as usize).saturating_sub(node.gangs.len()) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// The way its renewals come; that UDP is lost is worth an operator's look.
fn heartbeat(node: &Node, style: &Style) -> String {
    let lost = node.udp_lost_at_ms.map(|at_ms| human::duration(style.now_ms.saturating_sub(at_ms)));
    let lost = lost.map(|ago| format!(" (udp lost {ago} ago)")).unwrap_or_default();
    cell(&node.heartbeat) + &lost
}

fn reason(node: &Node, style: &Style) -> String {
    if node.reason.is_empty() {
        return String::new();
    }
    let mut text = cell(&node.reason);
    if !node.reason_by.is_empty() {
        let _ = write!(text, " (by {}", cell(&node.reason_by));
        if let Some(at) = node.reason_at_ms {
            let _ = write!(text, ", {}", human::moment_and_distance(at, style.now_ms));
        }
        text.push(')');
    }
    if let Some(deadline) = node.drain_deadline_at_ms {
        let _ = write!(text, "; what runs is moved at {}", human::moment_and_distance(deadline, style.now_ms));
    }
    text
}

pub fn document(node: &Node) -> Value {
    json::document("muster.node/1", node)
}
