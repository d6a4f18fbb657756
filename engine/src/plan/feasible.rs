//! The predicates that `cycle`, `apply` and `explain` share: what a gang may use, and whether a
//! placement is what it asked for.

use crate::command::{PlacedPart, Placement};
use crate::outcome::Rejection;
use crate::state::State;
use crate::state::node::NodeRecord;
use muster_common::job::{Count, DeviceTotal, GroupRequest, RanksPerNode, Scheduling};
use muster_common::node::Inventory;
use muster_common::resources::Amount;
use muster_common::topology::{FabricSpec, TopologyMode, TopologyRequest};
use muster_common::{Name, NodeId};
use std::collections::BTreeSet;

/// CPU and memory that a part with so many devices sets aside on a node.
///
/// Without a wish for CPU it is the node's CPU in proportion to the devices taken (and to the
/// share of each), and at least one CPU for each rank.
pub fn part_amount(group: &GroupRequest, node: &NodeRecord, devices: u32) -> Amount {
    amount_on(group, &node.inventory, devices)
}

/// [`part_amount`] on a machine known by its inventory alone.
pub fn amount_on(group: &GroupRequest, inventory: &Inventory, devices: u32) -> Amount {
    let cpu_milli = group.cpu_milli_per_node.unwrap_or_else(|| {
        let total = inventory.devices.len().max(1) as u64;
        let share = u64::from(group.share.0.min(1000));
        let proportional =
            u128::from(inventory.cpu_milli) * u128::from(devices) * u128::from(share) / (u128::from(total) * 1000);
        (proportional as u64).max(u64::from(group.ranks_on(devices)) * 1000)
    });
    Amount { cpu_milli, memory_bytes: group.memory_bytes_per_node.unwrap_or(0) }
}

/// Does the node carry the labels, and is it none of those to keep off by name?
pub fn node_allowed(group: &GroupRequest, name: &Name, inventory: &Inventory) -> bool {
    !group.exclude.contains(name) && labels_match(group, inventory)
}

pub fn labels_match(group: &GroupRequest, inventory: &Inventory) -> bool {
    group.labels.iter().all(|(key, value)| inventory.labels.get(key) == Some(value))
}

/// An empty list of models takes any.
pub fn model_allowed(group: &GroupRequest, model: &Name) -> bool {
    group.models.is_empty() || group.models.contains(model)
}

/// Is the placement what the gang asked for? Everything but whether the devices are free: counts,
/// shares, models, labels, CPU and memory, required topology. Asked by `cycle` of its own result
/// and by `apply` of every plan.
pub fn check_placement_shape(scheduling: &Scheduling, placement: &Placement, state: &State) -> Result<(), Rejection> {
    let [group] = scheduling.groups.as_slice() else {
        return Err(Rejection::Shape(format!("{} groups; one is supported", scheduling.groups.len())));
    };
    let mut nodes = Vec::with_capacity(placement.parts.len());
    let mut seen = BTreeSet::new();
    for part in &placement.parts {
        let node = state.node(part.node).ok_or(Rejection::NodeChanged(part.node))?;
        if !seen.insert(part.node) {
            return shape(format!("node {} is named twice", part.node));
        }
        check_part(group, part, node)?;
        nodes.push(node);
    }
    let failed_on = state.gang(placement.gang).map_or(&[][..], |gang| &gang.excluded);
    if let Some(node) = failed_on.iter().find(|node| seen.contains(node)) {
        return shape(format!("node {node} failed this gang before"));
    }
    check_counts(group, &placement.parts)?;
    check_topology(group, state.fabric(), nodes.iter().map(|node| (node.id, &*node.inventory))).map_err(|request| {
        Rejection::Shape(format!("it spans more than {} domains of level `{}`", request.at_most, request.level))
    })
}

fn shape<T>(why: String) -> Result<T, Rejection> {
    Err(Rejection::Shape(why))
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
        if !model_allowed(group, &device.model) {
            return shape(format!("device {slot} of node {} is a {}", part.node, device.model));
        }
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

/// May a total be spread like this? Every node gives from `per_node_min` to `per_node_max` devices
/// in multiples of `step`; one node may give less for the remainder.
pub fn total_allowed(total: &DeviceTotal, taken: &[u32]) -> bool {
    let sum: u64 = taken.iter().map(|&n| u64::from(n)).sum();
    let max = per_node_max(total);
    let odd = taken.iter().filter(|&&n| n < total.per_node_min || n % total.step.max(1) != 0).count();
    sum == u64::from(total.devices) && taken.iter().all(|&n| n >= 1 && n <= max) && odd <= 1
}

/// The most devices of one node; a maximum of 0 sets no bound.
pub fn per_node_max(total: &DeviceTotal) -> u32 {
    if total.per_node_max == 0 { u32::MAX } else { total.per_node_max }
}

/// The first required level whose bound the nodes break.
pub fn check_topology<'a>(
    group: &'a GroupRequest,
    fabric: &FabricSpec,
    nodes: impl Iterator<Item = (NodeId, &'a Inventory)> + Clone,
) -> Result<(), &'a TopologyRequest> {
    for request in group.topology.iter().filter(|request| request.mode == TopologyMode::Required) {
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

/// A domain by its whole path; the node itself when the level is `node`.
pub type DomainName<'a> = (usize, &'a [Name], Option<NodeId>);

/// The domain of a level that a node is in; `None` when the node's place does not say, or the
/// level does not exist.
pub fn domain_of<'a>(fabric: &FabricSpec, level: &str, id: NodeId, inventory: &'a Inventory) -> Option<DomainName<'a>> {
    if level == "node" {
        return Some((0, &[], Some(id)));
    }
    let (tree, depth) = fabric.find_level(level)?;
    let path = inventory.place.get(&fabric.trees[tree].name)?;
    Some((tree, path.get(..depth)?, None))
}

/// Most nodes, and most devices, of one gang: its placement is one log entry, and so is its
/// booking.
pub const GANG_NODES_MAX: u32 = 4_096;
pub const GANG_DEVICES_MAX: u64 = 32_768;

/// Is the request one that could be met by some cluster with this fabric? Asked when a job is
/// submitted; whether this cluster could ever meet it is `fits_ever`.
pub fn check_request(scheduling: &Scheduling, fabric: &FabricSpec) -> Result<(), String> {
    let [group] = scheduling.groups.as_slice() else {
        return Err(format!("the job has {} groups; exactly one is supported so far", scheduling.groups.len()));
    };
    if scheduling.array.as_ref().is_some_and(|array| array.count == 0 || array.at_once == Some(0)) {
        return Err("array: `count` and `at_once` must be at least 1".into());
    }
    if group.share.0 == 0 || group.share.0 > 1000 {
        return Err(format!("the share of a device is {} thousandths; it must be from 1 to 1000", group.share.0));
    }
    match &group.count {
        Count::Nodes { nodes, .. } if *nodes == 0 || *nodes > GANG_NODES_MAX => {
            return Err(format!("a gang has from 1 to {GANG_NODES_MAX} nodes, not {nodes}"));
        }
        Count::Total(_) if !group.share.is_whole() => {
            return Err("a share of a device needs a number of nodes and of devices per node".into());
        }
        Count::Total(total) => check_total(total)?,
        Count::Nodes { .. } => {}
    }
    if group.devices() > GANG_DEVICES_MAX {
        return Err(format!("a gang has at most {GANG_DEVICES_MAX} devices, not {}", group.devices()));
    }
    if group.ranks == RanksPerNode::Fixed(0) {
        return Err("a node of a gang has at least one rank".into());
    }
    for request in &group.topology {
        if request.level.as_str() != "node" && fabric.find_level(request.level.as_str()).is_none() {
            let known = fabric.level_names().join(", ");
            return Err(format!("there is no topology level `{}`; there is: {known}", request.level));
        }
        if request.at_most == 0 {
            return Err(format!("topology level `{}`: `at_most` must be at least 1", request.level));
        }
    }
    Ok(())
}

fn check_total(total: &DeviceTotal) -> Result<(), String> {
    if total.devices == 0 || total.step == 0 {
        return Err("a total of devices and its step must be at least 1".into());
    }
    let max = per_node_max(total);
    if max < total.per_node_min.max(1) || max < total.step {
        return Err(format!("at most {max} devices per node is less than the minimum or the step"));
    }
    Ok(())
}
