//! Smaller gangs: the largest that fits on what is free, the largest that fits once the next gang has
//! ended, one step less, and half.

use super::ground::{Ground, largest_below};
use super::{Change, Kind};
use muster_common::job::{Count, GroupRequest};
use std::collections::BTreeSet;

pub(super) fn smaller(ground: &Ground) -> Vec<Change> {
    (0..ground.scheduling.groups.len()).flat_map(|at| of_group(ground, at)).collect()
}

fn of_group(ground: &Ground, at: usize) -> Vec<Change> {
    let group = &ground.scheduling.groups[at];
    let units = units(group);
    let with = |units: u64| {
        let mut scheduling = (*ground.scheduling).clone();
        scheduling.groups[at] = sized(group, units);
        scheduling
    };
    let now = largest_below(units, |units| ground.fits(&with(units)));
    let later = largest_below(units, |units| ground.fits_later(&with(units)));
    let others = [units.checked_sub(1), Some(units / 2)];
    let all: BTreeSet<u64> = [now, later].into_iter().chain(others).flatten().filter(|units| *units > 0).collect();
    let changes = all.into_iter().rev().filter_map(|units| {
        let smaller = sized(group, units);
        let (key, value, text) = told(group, &smaller);
        ground.set_group(Kind::Size, text, (at, key, &value), smaller)
    });
    changes.collect()
}

/// Of what a group's size is a multiple; a gang on one node shrinks by devices.
fn unit(group: &GroupRequest) -> u32 {
    match &group.count {
        Count::Nodes { .. } => group.segment.as_ref().map_or(1, |segment| segment.nodes.max(1)),
        Count::Total(total) => total.step.max(1),
    }
}

fn units(group: &GroupRequest) -> u64 {
    let size = match &group.count {
        Count::Nodes { nodes: 1, per_node } => *per_node,
        Count::Nodes { nodes, .. } => *nodes,
        Count::Total(total) => total.devices,
    };
    u64::from(size / unit(group))
}

fn sized(group: &GroupRequest, units: u64) -> GroupRequest {
    let size = u32::try_from(units).unwrap_or(u32::MAX).saturating_mul(unit(group));
    let mut sized = group.clone();
    match &mut sized.count {
        Count::Nodes { nodes: 1, per_node } => *per_node = size,
        Count::Nodes { nodes, .. } => *nodes = size,
        Count::Total(total) => total.devices = size,
    }
    sized
}

/// Key and value of the job file, and words.
fn told(before: &GroupRequest, after: &GroupRequest) -> (&'static str, String, String) {
    let of = |count: u32, what: &str| if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") };
    match (&before.count, &after.count) {
        (Count::Nodes { nodes: 1, per_node: before }, Count::Nodes { per_node, .. }) => {
            ("gpus_per_node", per_node.to_string(), format!("{} instead of {before}", of(*per_node, "GPU")))
        }
        (Count::Nodes { nodes: before, .. }, Count::Nodes { nodes, .. }) => {
            ("nodes", nodes.to_string(), format!("{} instead of {before}", of(*nodes, "node")))
        }
        (_, Count::Total(total)) => {
            let text = format!("{} instead of {}", of(total.devices, "GPU"), before.devices());
            ("gpus", total.devices.to_string(), text)
        }
        (Count::Total(_), Count::Nodes { nodes, .. }) => ("nodes", nodes.to_string(), of(*nodes, "node")),
    }
}
