//! Is a placement what the gang asked for? Everything but whether the devices are free. Asked by `cycle`
//! of its own result and by `apply` of every plan.

use super::feasible::{device_allowed, domain_of, node_allowed, part_amount, total_allowed};
use super::islands;
use crate::command::{PlacedPart, Placement};
use crate::outcome::Rejection;
use crate::state::State;
use crate::state::node::NodeRecord;
use muster_common::job::{Count, GroupRequest, Scheduling};
use muster_common::node::Inventory;
use muster_common::topology::{FabricSpec, TopologyMode, TopologyRequest};
use muster_common::{Name, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// # Errors
/// The first thing that is not as asked: nodes, counts, shares, models, labels, CPU and memory, required
/// topology, segments, spread.
pub fn check_placement_shape(scheduling: &Scheduling, placement: &Placement, state: &State) -> Result<(), Rejection> {
    let mut seen = BTreeSet::new();
    for part in &placement.parts {
        state.node(part.node).ok_or(Rejection::NodeChanged(part.node))?;
        if !seen.insert(part.node) {
            return shape(format!("node {} is named twice", part.node));
        }
    }
    let failed_on = state.gang(placement.gang).map_or(&[][..], |gang| &gang.excluded);
    if let Some(node) = failed_on.iter().find(|node| seen.contains(node)) {
        return shape(format!("node {node} failed this gang before"));
    }
    if !placement.parts.is_sorted_by_key(|part| part.group) {
        return shape("parts are not in the order of their groups".into());
    }
    if placement.parts.last().is_some_and(|part| usize::from(part.group) >= scheduling.groups.len()) {
        return shape("a part is for a group that is not there".into());
    }
    for (number, group) in scheduling.groups.iter().enumerate() {
        let from = placement.parts.partition_point(|part| usize::from(part.group) < number);
        let upto = placement.parts.partition_point(|part| usize::from(part.group) <= number);
        check_group(group, &placement.parts[from..upto], state)?;
    }
    let nodes = placement.parts.iter().filter_map(|part| state.node(part.node));
    let all = nodes.map(|node| (node.id, &*node.inventory));
    check_levels(&scheduling.together, state.fabric(), all).map_err(spans)
}

fn check_group(group: &GroupRequest, parts: &[PlacedPart], state: &State) -> Result<(), Rejection> {
    let mut nodes = Vec::with_capacity(parts.len());
    for part in parts {
        let node = state.node(part.node).ok_or(Rejection::NodeChanged(part.node))?;
        check_part(group, part, node)?;
        nodes.push((node.id, &*node.inventory));
    }
    check_counts(group, parts)?;
    check_models(group, parts, state)?;
    check_topology(group, state.fabric(), nodes.iter().copied())
}

fn shape<T>(why: String) -> Result<T, Rejection> {
    Err(Rejection::Shape(why))
}

fn spans(request: &TopologyRequest) -> Rejection {
    Rejection::Shape(format!("it spans more than {} domains of level `{}`", request.at_most, request.level))
}

fn check_part(group: &GroupRequest, part: &PlacedPart, node: &NodeRecord) -> Result<(), Rejection> {
    if !node_allowed(group, &node.name, &node.inventory) {
        return shape(format!("node {} is excluded or lacks a label", part.node));
    }
    let mut slots = BTreeSet::new();
    for &(slot, milli) in &part.devices {
        let Some(device) = node.inventory.devices.get(usize::from(slot)) else {
            return shape(format!("node {} has no device {slot}", part.node));
        };
        if !slots.insert(slot) {
            return shape(format!("device {slot} of node {} is named twice", part.node));
        }
        if milli != group.share.0.min(1000) {
            return shape(format!("a share of {milli} thousandths of device {slot}"));
        }
        if !device_allowed(group, device) {
            return shape(format!("device {slot} of node {} is a {}", part.node, device.model));
        }
        if node.inventory.devices.iter().any(|other| other.parent == Some(slot)) {
            return shape(format!("device {slot} of node {} is split into instances", part.node));
        }
    }
    if !islands::of(&node.inventory).holds_in_one(&slots) {
        return shape(format!("devices of node {} are not joined with each other", part.node));
    }
    if part.amount != part_amount(group, node, part.devices.len() as u32) {
        return shape(format!("CPU or memory of node {} is not as asked", part.node));
    }
    Ok(())
}

fn check_counts(group: &GroupRequest, parts: &[PlacedPart]) -> Result<(), Rejection> {
    match &group.count {
        Count::Nodes { nodes, per_node } => {
            if parts.len() as u64 != u64::from(*nodes) {
                return shape(format!("{} nodes instead of {nodes}", parts.len()));
            }
            match parts.iter().find(|part| part.devices.len() as u64 != u64::from(*per_node)) {
                Some(part) => {
                    shape(format!("{} devices on node {} instead of {per_node}", part.devices.len(), part.node))
                }
                None => Ok(()),
            }
        }
        Count::Total(total) => {
            let taken: Vec<u32> = parts.iter().map(|part| part.devices.len() as u32).collect();
            if total_allowed(total, &taken) { Ok(()) } else { shape(format!("devices per node {taken:?}")) }
        }
    }
}

/// All devices of one of the models, unless the group takes a mixture.
fn check_models(group: &GroupRequest, parts: &[PlacedPart], state: &State) -> Result<(), Rejection> {
    if group.models.is_empty() || group.mixed_models {
        return Ok(());
    }
    let mut models: BTreeSet<&Name> = BTreeSet::new();
    for part in parts {
        let node = state.node(part.node).ok_or(Rejection::NodeChanged(part.node))?;
        let devices = part.devices.iter().filter_map(|(slot, _)| node.inventory.devices.get(usize::from(*slot)));
        models.extend(devices.map(|device| &device.model));
    }
    if models.len() > 1 { shape(format!("devices of {} models in one group", models.len())) } else { Ok(()) }
}

/// What the group requires of the fabric: levels, segments, spread.
///
/// # Errors
/// The first requirement that the nodes break.
pub fn check_topology<'a>(
    group: &'a GroupRequest,
    fabric: &FabricSpec,
    nodes: impl Iterator<Item = (NodeId, &'a Inventory)> + Clone,
) -> Result<(), Rejection> {
    check_levels(&group.topology, fabric, nodes.clone()).map_err(spans)?;
    if let Some(segment) = &group.segment {
        let per_domain = per_domain(segment.level.as_str(), fabric, nodes.clone())?;
        let whole = |&count: &u32| if segment.apart { count == segment.nodes } else { count % segment.nodes == 0 };
        if !per_domain.values().all(whole) {
            return shape(format!(
                "segments of {} nodes are cut by domains of level `{}`",
                segment.nodes, segment.level
            ));
        }
    }
    if let Some(spread) = &group.spread {
        let per_domain = per_domain(spread.level.as_str(), fabric, nodes)?;
        if per_domain.values().any(|&count| count > spread.nodes) {
            return shape(format!("more than {} nodes in one domain of level `{}`", spread.nodes, spread.level));
        }
    }
    Ok(())
}

fn per_domain<'a>(
    level: &str,
    fabric: &FabricSpec,
    nodes: impl Iterator<Item = (NodeId, &'a Inventory)>,
) -> Result<BTreeMap<super::feasible::DomainName<'a>, u32>, Rejection> {
    let mut counts = BTreeMap::new();
    for (id, inventory) in nodes {
        let Some(domain) = domain_of(fabric, level, id, inventory) else {
            return shape(format!("node {id} is in no domain of level `{level}`"));
        };
        *counts.entry(domain).or_default() += 1;
    }
    Ok(counts)
}

/// The first required level whose bound the nodes break.
fn check_levels<'a>(
    requests: &'a [TopologyRequest],
    fabric: &FabricSpec,
    nodes: impl Iterator<Item = (NodeId, &'a Inventory)> + Clone,
) -> Result<(), &'a TopologyRequest> {
    for request in requests.iter().filter(|request| request.mode == TopologyMode::Required) {
        let mut domains = BTreeSet::new();
        for (id, inventory) in nodes.clone() {
            match domain_of(fabric, request.level.as_str(), id, inventory) {
                Some(domain) => domains.insert(domain),
                None => return Err(request),
            };
        }
        if domains.len() as u64 > u64::from(request.at_most.max(1)) {
            return Err(request);
        }
    }
    Ok(())
}
