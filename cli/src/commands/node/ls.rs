//! `muster node ls`.

use crate::context::Context;
use crate::error::CliError;
use crate::output::human::{self, NONE};
use crate::output::table::{Align, Table, cell};
use crate::output::{Style, json};
use clap::Args;
use muster_proto::client::{DeviceCounts, ListNodesReply, ListNodesRequest, Node};
use serde_json::Value;

/// Gangs named in a row.
const GANGS_SHOWN: usize = 4;

#[derive(Debug, Args)]
pub struct LsArgs {
    /// Only these nodes
    pub names: Vec<String>,
    /// Only in these states, such as UP,DRAINING
    #[arg(long, value_delimiter = ',')]
    pub state: Vec<String>,
}

pub async fn run(context: &Context, args: LsArgs) -> Result<u8, CliError> {
    let states = args.state.iter().map(|state| state.to_uppercase()).collect();
    let request = ListNodesRequest { names: args.names, states };
    let all = request.states.is_empty();
    let client = context.client()?;
    let reply = client.call(async |mut api| api.list_nodes(request.clone()).await).await?;
    let style = context.style();
    context.printer.answer(|| document(&reply), || render(&reply, &style))?;
    if reply.nodes.is_empty() {
        context.printer.say(match all {
            true => "no nodes; a machine joins with: muster node token | ssh NODE muster agent join --token -",
            false => "no nodes in such a state",
        });
    }
    Ok(0)
}

pub fn render(reply: &ListNodesReply, style: &Style) -> String {
    if reply.nodes.is_empty() {
        return String::new();
    }
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("NODE", Left),
        ("STATE", Left),
        ("GPUS", Left),
        ("FREE", Right),
        ("CPUS", Right),
        ("MEMORY", Right),
        ("PLACE", Left),
        ("RUNS", Left),
        ("REASON", Left),
    ]);
    for node in &reply.nodes {
        table.row(row(node, style));
    }
    table.text()
}

fn row(node: &Node, style: &Style) -> [String; 9] {
    let none = DeviceCounts::default();
    let counts = node.counts.as_ref().unwrap_or(&none);
    let gpus = match counts.total {
        0 => NONE.to_owned(),
        total => format!("{total} {}", cell(&node.models.join("/"))),
    };
    let mut runs = node.gangs.iter().take(GANGS_SHOWN).map(|gang| cell(gang)).collect::<Vec<_>>().join(" ");
    // An older server does not tell how many there are beyond those it names.
    let all = node.gangs.len().max(node.gangs_total as usize);
    if all > GANGS_SHOWN {
        runs.push_str(&format!(" +{}", all - GANGS_SHOWN));
    }
    [
        cell(&node.name),
        style.state(&cell(&node.state)),
        gpus,
        free(counts),
        human::cpus(node.cpu_milli),
        human::bytes(node.memory_bytes),
        if node.place.is_empty() { NONE.to_owned() } else { cell(&node.place.join("; ")) },
        if runs.is_empty() { NONE.to_owned() } else { runs },
        cell(&node.reason),
    ]
}

/// Free GPUs, and those that are neither free nor held.
pub fn free(counts: &DeviceCounts) -> String {
    let mut text = counts.free.to_string();
    for (count, word) in [(counts.unknown, "unknown"), (counts.quarantined, "quarantined")] {
        if count > 0 {
            text.push_str(&format!(" ({count} {word})"));
        }
    }
    text
}

pub fn document(reply: &ListNodesReply) -> Value {
    json::document("muster.nodes/1", reply)
}
