//! Could a gang run here if nothing else did? Against the whole inventory, closed nodes included.

use super::feasible::{amount_on, device_allowed, labels_match, per_node_max};
use super::ledger::{Ledger, Suppose};
use super::place::{Request, place};
use crate::state::State;
use crate::state::node::NodeRecord;
use muster_common::Name;
use muster_common::job::{Count, GroupRequest, Scheduling};
use muster_common::topology::TopologyMode;
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// Why this cluster can never run a gang.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what}; {have}")]
pub struct NeverFits {
    /// What was asked for, as in "64 devices on one node".
    pub what: String,
    /// What there is instead.
    pub have: String,
    /// What to change.
    pub hint: String,
}

/// Looks at the cluster as if it were empty and all of it open.
pub fn fits_ever(state: &State, scheduling: &Scheduling) -> Result<(), NeverFits> {
    fits_on(state, scheduling, &Ledger::of(state, Suppose::NOTHING_RUNS))
}

/// [`fits_ever`] on a ledger that was emptied before, for who need not know why.
pub fn could_fit(state: &State, scheduling: &Scheduling, empty: &Ledger) -> bool {
    place(empty, state.fabric(), state.policy(), Request::of(scheduling, &[]), &mut 0).is_some()
}

/// [`fits_ever`] on a ledger that was emptied before.
pub fn fits_on(state: &State, scheduling: &Scheduling, empty: &Ledger) -> Result<(), NeverFits> {
    let fits = |request: Request| place(empty, state.fabric(), state.policy(), request, &mut 0).is_some();
    if could_fit(state, scheduling, empty) {
        return Ok(());
    }
    let nodes: Vec<&NodeRecord> = state.nodes().values().collect();
    let alone = |group: &&GroupRequest| {
        let groups = std::slice::from_ref(*group);
        !fits(Request { groups, together: &[], ..Request::of(scheduling, &[]) })
    };
    match scheduling.groups.iter().find(alone) {
        Some(group) => why_not(group, state, &nodes).map_err(|why| named(why, group, scheduling)),
        None => together(scheduling),
    }
}

/// Which of several groups it is that never fits.
fn named(why: NeverFits, group: &GroupRequest, scheduling: &Scheduling) -> NeverFits {
    match scheduling.groups.len() {
        1 => why,
        _ => NeverFits { what: format!("{} (group `{}`)", why.what, group.name), ..why },
    }
}

/// Each group would fit alone.
fn together(scheduling: &Scheduling) -> Result<(), NeverFits> {
    let groups = scheduling.groups.len();
    match scheduling.together.first() {
        Some(level) => never(
            format!("{groups} groups in one domain of level `{}`", level.level),
            "no domain of that level is large enough for all of them",
            "name a wider level, or ask for less",
        ),
        None => never(
            format!("{groups} groups at once, each on nodes of its own"),
            "each would fit alone, not all of them",
            "ask for less in some of the groups",
        ),
    }
}

/// Always an error: the group does not fit, and this says why.
fn why_not(group: &GroupRequest, state: &State, nodes: &[&NodeRecord]) -> Result<(), NeverFits> {
    check_inventory(group, nodes)?;
    check_levels(group, state)?;
    check_numbers(group, nodes)?;
    check_cuts(group)?;
    match group.topology.iter().find(|request| request.mode == TopologyMode::Required) {
        Some(level) => never(
            format!("{} in at most {} of level `{}`", size(group), level.at_most, level.level),
            "no domain of that level is large enough",
            "prefer the level instead of requiring it, name a wider one, or ask for less",
        ),
        None => never(
            size(group),
            "the nodes that match its models, labels, CPU and memory are too few",
            "ask for less per node, or loosen models and labels",
        ),
    }
}

fn never<T>(what: impl Into<String>, have: impl Into<String>, hint: impl Into<String>) -> Result<T, NeverFits> {
    Err(NeverFits { what: what.into(), have: have.into(), hint: hint.into() })
}

fn size(group: &GroupRequest) -> String {
    match &group.count {
        Count::Nodes { nodes, per_node: 0 } => format!("{nodes} nodes"),
        Count::Nodes { nodes, per_node } => format!("{nodes} nodes with {per_node} devices each"),
        Count::Total(total) => format!("{} devices", total.devices),
    }
}

/// Models and labels that nobody has.
fn check_inventory(group: &GroupRequest, nodes: &[&NodeRecord]) -> Result<(), NeverFits> {
    if nodes.is_empty() {
        return never(size(group), "the cluster has no nodes yet", "join nodes with `muster agent join`");
    }
    let models: BTreeSet<&str> =
        nodes.iter().flat_map(|node| &node.inventory.devices).map(|device| device.model.as_str()).collect();
    let known = group.models.is_empty() || group.models.iter().any(|model| models.contains(model.as_str()));
    if !known && group.devices() > 0 {
        let wanted: Vec<&str> = group.models.iter().map(|model| model.as_str()).collect();
        let have: Vec<&str> = models.into_iter().collect();
        let have = if have.is_empty() { "no devices at all".to_owned() } else { format!("only {}", have.join(", ")) };
        let hint = format!("name one of the models there are: {have}");
        return never(format!("device model {}", wanted.join(" or ")), format!("the cluster has {have}"), hint);
    }
    if !nodes.iter().any(|node| labels_match(group, &node.inventory)) {
        let but = if group.avoid.is_empty() { String::new() } else { format!(" and not {}", pairs(&group.avoid)) };
        let labels = if group.labels.is_empty() { "in any way".to_owned() } else { pairs(&group.labels) };
        return never(
            format!("nodes labelled {labels}{but}"),
            "no node is labelled so",
            "see `muster node ls` for the labels there are",
        );
    }
    Ok(())
}

/// `key=value`, for people.
pub(super) fn pairs(labels: &BTreeMap<Name, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ")
}

fn check_cuts(group: &GroupRequest) -> Result<(), NeverFits> {
    if let Some(segment) = &group.segment {
        let apart = if segment.apart { ", each in a domain of its own" } else { "" };
        return never(
            format!("{} in segments of {} inside level `{}`{apart}", size(group), segment.nodes, segment.level),
            "its domains do not hold that many segments",
            "ask for smaller segments, or fewer of them",
        );
    }
    match &group.spread {
        Some(spread) => never(
            format!("{} with at most {} in one domain of level `{}`", size(group), spread.nodes, spread.level),
            "there are too few domains of that level with nodes that match",
            "allow more nodes in a domain, or ask for fewer",
        ),
        None => Ok(()),
    }
}

fn check_levels(group: &GroupRequest, state: &State) -> Result<(), NeverFits> {
    let fabric = state.fabric();
    let unknown = group
        .topology
        .iter()
        .find(|request| request.level.as_str() != "node" && fabric.find_level(request.level.as_str()).is_none());
    match unknown {
        Some(request) => never(
            format!("topology level `{}`", request.level),
            format!("the fabric has the levels {}", fabric.level_names().join(", ")),
            "name one of these levels",
        ),
        None => Ok(()),
    }
}

/// Devices of a node, of the cluster, CPU and memory.
fn check_numbers(group: &GroupRequest, nodes: &[&NodeRecord]) -> Result<(), NeverFits> {
    let usable = |node: &NodeRecord| {
        let devices = &node.inventory.devices;
        let split = |slot: usize| devices.iter().any(|other| other.parent.map(usize::from) == Some(slot));
        let usable = |&slot: &usize| device_allowed(group, &devices[slot]) && !split(slot);
        (0..devices.len()).filter(usable).count() as u64
    };
    let matching: Vec<&&NodeRecord> = nodes.iter().filter(|node| labels_match(group, &node.inventory)).collect();
    let largest = matching.iter().map(|node| usable(node)).max().unwrap_or(0);
    let all: u64 = matching.iter().map(|node| usable(node)).sum();
    let (per_node, wanted_nodes) = match &group.count {
        Count::Nodes { nodes, per_node } => (u64::from(*per_node), u64::from(*nodes)),
        Count::Total(total) => (u64::from(total.per_node_min.min(per_node_max(total))), 1),
    };
    if per_node > largest {
        let hint = if largest == 0 {
            "ask for a model and labels that go together".to_owned()
        } else {
            format!("ask for {} nodes with {largest} each, or a total", group.devices().div_ceil(largest))
        };
        return never(format!("{per_node} devices on one node"), format!("the largest node has {largest}"), hint);
    }
    if group.devices() > all {
        return never(
            format!("{} devices", group.devices()),
            format!("the cluster has {all} that match"),
            "ask for fewer devices",
        );
    }
    let covers =
        |node: &NodeRecord| node.inventory.amount().covers(&amount_on(group, &node.inventory, per_node.max(1) as u32));
    if !matching.iter().any(|node| usable(node) >= per_node && covers(node)) {
        let cpu = matching.iter().map(|node| node.inventory.cpu_milli).max().unwrap_or(0);
        let memory = matching.iter().map(|node| node.inventory.memory_bytes).max().unwrap_or(0);
        return never(
            "the CPU and memory on each node".to_owned(),
            format!("the largest node has {} CPUs and {} MiB", cpu / 1000, memory >> 20),
            "ask for less CPU or memory, or fewer ranks on each node",
        );
    }
    let fitting = matching.iter().filter(|node| usable(node) >= per_node).count() as u64;
    if fitting < wanted_nodes {
        return never(size(group), format!("{fitting} nodes have {per_node} matching devices"), "ask for fewer nodes");
    }
    Ok(())
}
