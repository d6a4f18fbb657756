//! What only an operator can change: closed nodes, limits and quota.

use super::ground::Ground;
use super::raise::raised;
use super::{Change, Kind};
use crate::command::{Command, NodeAction};
use crate::plan::feasible::{device_allowed, node_allowed};
use crate::state::node::{Liveness, NodeRecord};

/// Closed nodes that are tried one by one.
const NODES_MAX: usize = 3;
/// Most nodes in one command line.
const NAMED_MAX: usize = 16;

pub(super) fn of_operators(ground: &Ground) -> Vec<Change> {
    let mut changes = opened(ground);
    changes.extend(raised(ground));
    changes
}

/// Nodes that would serve the gang and take no new work, the emptiest first; each alone, and all.
fn opened(ground: &Ground) -> Vec<Change> {
    let serves = |node: &&NodeRecord| {
        let closed = node.closed.is_some() && node.liveness == Liveness::Up && !node.from_backup;
        let allowed = |group: &muster_common::job::GroupRequest| {
            let device = |device| group.devices() == 0 || device_allowed(group, device);
            node_allowed(group, &node.name, &node.inventory)
                && (group.devices() == 0 || node.inventory.devices.iter().any(device))
        };
        closed && ground.scheduling.groups.iter().any(allowed)
    };
    let mut closed: Vec<&NodeRecord> = ground.decided.nodes().values().filter(serves).collect();
    closed.sort_by_key(|node| (std::cmp::Reverse(node.free_devices()), node.id));
    let mut changes: Vec<Change> = closed.iter().take(NODES_MAX).map(|node| open(ground, &[*node])).collect();
    if (2..=NAMED_MAX).contains(&closed.len()) {
        changes.push(open(ground, &closed));
    }
    changes
}

fn open(ground: &Ground, nodes: &[&NodeRecord]) -> Change {
    let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    let text = match nodes {
        [node] => {
            let why = node.closed.as_ref().map_or("", |closed| closed.reason.as_str());
            format!("node {} takes new work again (closed: {why})", node.name)
        }
        _ => format!("nodes {} take new work again", names.join(", ")),
    };
    let drained = |node: &NodeRecord| node.closed.as_ref().is_some_and(|closed| closed.drain.is_some());
    let word = |node| if drained(node) { "undrain" } else { "uncordon" };
    let command: Vec<String> = nodes.iter().map(|node| format!("muster node {} {}", word(node), node.name)).collect();
    let entry =
        |node: &&NodeRecord| Command::NodeAdmin { node: node.id, action: NodeAction::Undrain, by: ground.operator() };
    Change { kind: Kind::Uncordon, text, command: command.join(" && "), entries: nodes.iter().map(entry).collect() }
}
