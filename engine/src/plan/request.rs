//! Is a request one that could be met by some cluster with this fabric? Asked when a job is submitted;
//! whether this cluster could ever meet it is `never::fits_ever`.

use super::feasible::per_node_max;
use muster_common::Name;
use muster_common::job::{Count, DeviceTotal, GROUPS_MAX, GroupRequest, RANKS_PER_NODE_MAX, RanksPerNode, Scheduling};
use muster_common::topology::{FabricSpec, LabelWish, TopologyMode, TopologyRequest};
use std::collections::BTreeSet;

/// Most nodes, and most devices, of one gang: its placement is one log entry, and so is its
/// booking.
pub const GANG_NODES_MAX: u32 = 4_096;
pub const GANG_DEVICES_MAX: u64 = 32_768;
/// Most ranks of one gang: State keeps the exit of each, and counts them in 32 bits.
const GANG_RANKS_MAX: u64 = 4_000_000;
const PREFERS_MAX: usize = 64;

/// # Errors
/// What cannot be meant, for a person.
pub fn check_request(scheduling: &Scheduling, fabric: &FabricSpec) -> Result<(), String> {
    if scheduling.groups.is_empty() || scheduling.groups.len() > GROUPS_MAX {
        return Err(format!("a gang has from 1 to {GROUPS_MAX} groups, not {}", scheduling.groups.len()));
    }
    if scheduling.array.as_ref().is_some_and(|array| array.count == 0 || array.at_once == Some(0)) {
        return Err("array: `count` and `at_once` must be at least 1".into());
    }
    let mut names: BTreeSet<&Name> = BTreeSet::new();
    for group in &scheduling.groups {
        if !names.insert(&group.name) {
            return Err(format!("there are two groups `{}`", group.name));
        }
        let of = |why| if scheduling.groups.len() > 1 { format!("group `{}`: {why}", group.name) } else { why };
        check_group(group, fabric).map_err(of)?;
    }
    let nodes: u64 = scheduling.groups.iter().map(nodes_of).sum();
    if nodes > u64::from(GANG_NODES_MAX) {
        return Err(format!("a gang has at most {GANG_NODES_MAX} nodes, not {nodes}"));
    }
    if scheduling.devices() > GANG_DEVICES_MAX {
        return Err(format!("a gang has at most {GANG_DEVICES_MAX} devices, not {}", scheduling.devices()));
    }
    let ranks: u64 = scheduling.groups.iter().map(ranks_of).sum();
    if ranks > GANG_RANKS_MAX {
        return Err(format!("a gang has at most {GANG_RANKS_MAX} ranks, and this one could have {ranks}"));
    }
    check_levels(&scheduling.together, fabric)?;
    if scheduling.together.iter().any(|wish| wish.mode != TopologyMode::Required || wish.at_most != 1) {
        return Err("groups are kept together in one domain of a level, which is required, or not at all".into());
    }
    if scheduling.groups.len() > 1 && scheduling.together.iter().any(|wish| wish.level.as_str() == "node") {
        return Err("several groups cannot share one node: each node serves one group".into());
    }
    Ok(())
}

/// The fewest nodes a group takes.
fn nodes_of(group: &GroupRequest) -> u64 {
    match &group.count {
        Count::Nodes { nodes, .. } => u64::from(*nodes),
        Count::Total(_) => 1,
    }
}

/// The most ranks a group can have: a total of devices may come from as many nodes as its minimum per node lets it.
fn ranks_of(group: &GroupRequest) -> u64 {
    let nodes = match &group.count {
        Count::Nodes { nodes, .. } => *nodes,
        Count::Total(total) => total.devices.saturating_sub(1) / total.per_node_min.max(1) + 1,
    };
    match group.ranks {
        RanksPerNode::Fixed(ranks) => u64::from(nodes) * u64::from(ranks),
        RanksPerNode::PerDevice => group.devices().max(nodes.into()),
    }
}

fn check_group(group: &GroupRequest, fabric: &FabricSpec) -> Result<(), String> {
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
    if let RanksPerNode::Fixed(ranks) = group.ranks
        && (ranks == 0 || ranks > RANKS_PER_NODE_MAX)
    {
        return Err(format!("a node of a gang has from 1 to {RANKS_PER_NODE_MAX} ranks, not {ranks}"));
    }
    if group.exclusive && !group.share.is_whole() {
        return Err("whole nodes (`exclusive`) and a share of a device contradict each other".into());
    }
    if group.communication_percent.is_some_and(|percent| percent > 100) {
        return Err("communication takes at most all of the run time".into());
    }
    if group.prefers.len() > PREFERS_MAX {
        return Err(format!("at most {PREFERS_MAX} labels can be preferred"));
    }
    if group.prefers.iter().any(|wish| wish.weight == 0 || wish.weight > LabelWish::WEIGHT_MAX) {
        return Err(format!("the weight of a preferred label is from 1 to {}", LabelWish::WEIGHT_MAX));
    }
    check_levels(&group.topology, fabric)?;
    check_cuts(group, fabric)
}

fn check_levels(requests: &[TopologyRequest], fabric: &FabricSpec) -> Result<(), String> {
    for request in requests {
        check_level(&request.level, fabric)?;
        if request.at_most == 0 {
            return Err(format!("topology level `{}`: `at_most` must be at least 1", request.level));
        }
    }
    Ok(())
}

fn check_level(level: &Name, fabric: &FabricSpec) -> Result<(), String> {
    if level.as_str() == "node" || fabric.find_level(level.as_str()).is_some() {
        return Ok(());
    }
    Err(format!("there is no topology level `{level}`; there is: {}", fabric.level_names().join(", ")))
}

/// Segments and spread.
fn check_cuts(group: &GroupRequest, fabric: &FabricSpec) -> Result<(), String> {
    let level = match (&group.segment, &group.spread) {
        (Some(_), Some(_)) => return Err("`segments` and `spread` contradict each other; use `segments.apart`".into()),
        (Some(segment), None) => &segment.level,
        (None, Some(spread)) => &spread.level,
        (None, None) => return Ok(()),
    };
    let Count::Nodes { nodes, .. } = group.count else {
        return Err("`segments` and `spread` need a number of nodes, not a total of GPUs".into());
    };
    check_level(level, fabric)?;
    if level.as_str() == "node" {
        return Err("`segments` and `spread` need a level above `node`".into());
    }
    if let Some(segment) = &group.segment
        && (segment.nodes == 0 || nodes % segment.nodes != 0)
    {
        return Err(format!("{nodes} nodes cannot be cut into segments of {}", segment.nodes));
    }
    if group.spread.as_ref().is_some_and(|spread| spread.nodes == 0) {
        return Err("`spread.nodes` must be at least 1".into());
    }
    let tree = |level: &Name| fabric.find_level(level.as_str()).map(|(tree, _)| tree);
    let few = group.topology.iter().find(|wish| wish.at_most > 1 && tree(&wish.level) != tree(level));
    match few {
        Some(wish) => Err(format!(
            "`{}` and `{level}` are levels of different trees; beside segments or spread, `at_most` and `prefer` above 1 need a level of the same tree",
            wish.level
        )),
        None => Ok(()),
    }
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
