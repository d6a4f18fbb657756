//! Who holds what a group could have.

use super::blockers::name;
use super::explain::NAMED_MAX;
use super::feasible::{DomainName, device_allowed, domain_of, node_allowed};
use crate::state::State;
use crate::state::gang::GangRecord;
use crate::state::node::NodeRecord;
use muster_common::job::{Count, GroupRequest};
use muster_common::topology::TopologyMode;
use muster_common::{GangId, NodeId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Gangs on nodes that the group takes, those with most of the devices that it takes first, and in words how many each
/// holds there.
pub(super) fn told(state: &State, group: &GroupRequest, excluded: &[NodeId]) -> (String, Vec<GangId>) {
    let nodes = accepted(state, group, excluded);
    let holds = |gang: &GangRecord| {
        let parts = gang.current().into_iter().flat_map(|attempt| &attempt.parts);
        let here = parts.filter_map(|part| {
            let node = nodes.get(&part.node).filter(|node| node.gangs.contains(&gang.id))?;
            let taken = |slot: u16| {
                let device = node.inventory.devices.get(usize::from(slot));
                group.devices() > 0 && device.is_some_and(|device| device_allowed(group, device))
            };
            Some(part.devices.iter().filter(|(slot, _)| taken(*slot)).count())
        });
        // On a node for CPU alone it is in the way of whoever asks for CPU alone.
        here.reduce(|sum, more| sum + more).filter(|sum| *sum > 0 || group.devices() == 0)
    };
    let all = state.gangs().values().filter_map(|gang| Some((holds(gang)?, gang.id)));
    let mut all: Vec<(usize, GangId)> = all.collect();
    all.sort_by_key(|(devices, gang)| (Reverse(*devices), *gang));
    all.truncate(NAMED_MAX);
    let words = all.iter().filter(|(devices, _)| *devices > 0);
    let words: Vec<String> = words.map(|(devices, gang)| format!("{} holds {devices}", name(state, *gang))).collect();
    let words = if words.is_empty() { String::new() } else { format!("; {}", words.join(", ")) };
    (words, all.into_iter().map(|(_, gang)| gang).collect())
}

/// Nodes that the group could be given if nothing ran: open, by name, labels and models, with devices enough, and in
/// domains that are large enough.
fn accepted<'s>(state: &'s State, group: &GroupRequest, excluded: &[NodeId]) -> BTreeMap<NodeId, &'s NodeRecord> {
    let devices =
        |node: &NodeRecord| node.inventory.devices.iter().filter(|device| device_allowed(group, device)).count();
    let least = match &group.count {
        Count::Nodes { per_node, .. } => *per_node,
        Count::Total(total) => total.per_node_min.max(1).min(total.devices),
    };
    let takes = |node: &&NodeRecord| {
        node.is_open()
            && !excluded.contains(&node.id)
            && node_allowed(group, &node.name, &node.inventory)
            && devices(node) >= least as usize
    };
    let mut nodes: BTreeMap<NodeId, &NodeRecord> =
        state.nodes().values().filter(takes).map(|node| (node.id, node)).collect();
    let strict = group.topology.iter().filter(|wish| wish.mode == TopologyMode::Required && wish.at_most <= 1);
    for wish in strict {
        let domain = |node: &'s NodeRecord| domain_of(state.fabric(), wish.level.as_str(), node.id, &node.inventory);
        let mut sizes: BTreeMap<DomainName, (u64, u64)> = BTreeMap::new();
        for node in nodes.values() {
            if let Some(domain) = domain(node) {
                let size = sizes.entry(domain).or_default();
                *size = (size.0 + 1, size.1 + devices(node) as u64);
            }
        }
        let holds_all = |(nodes, devices): (u64, u64)| match &group.count {
            Count::Nodes { nodes: wanted, .. } => nodes >= u64::from(*wanted),
            Count::Total(total) => devices >= u64::from(total.devices),
        };
        let large: BTreeSet<DomainName> =
            sizes.into_iter().filter(|(_, size)| holds_all(*size)).map(|(at, _)| at).collect();
        nodes.retain(|_, node| domain(node).is_some_and(|domain| large.contains(&domain)));
    }
    nodes
}
