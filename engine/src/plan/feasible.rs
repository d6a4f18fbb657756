//! The predicates that `cycle`, `apply` and `explain` share: what a gang may use, and whether a
//! placement is what it asked for.

use muster_common::job::{DeviceTotal, GroupRequest};
use muster_common::node::{Device, Inventory};
use muster_common::resources::Amount;
use muster_common::topology::FabricSpec;
use muster_common::{Name, NodeId};

pub use super::request::{GANG_DEVICES_MAX, GANG_NODES_MAX, check_request};
pub use super::shape::{check_placement_shape, check_topology};
use crate::state::node::NodeRecord;

/// CPU and memory that a part with so many devices sets aside on a node.
///
/// Without a wish for CPU it is the node's CPU in proportion to the devices taken (and to the
/// share of each), and at least one CPU for each rank.
pub fn part_amount(group: &GroupRequest, node: &NodeRecord, devices: u32) -> Amount {
    amount_on(group, &node.inventory, devices)
}

/// [`part_amount`] on a machine known by its inventory alone. An exclusive group takes all of it, which
/// leaves nothing to anybody else: every part takes CPU.
pub fn amount_on(group: &GroupRequest, inventory: &Inventory, devices: u32) -> Amount {
    if group.exclusive {
        return inventory.amount();
    }
    let cpu_milli = group.cpu_milli_per_node.unwrap_or_else(|| {
        let total = inventory.devices.len().max(1) as u64;
        let share = u64::from(group.share.0.min(1000));
        // Long division is slow, and hardly ever needed.
        let proportional = match inventory.cpu_milli.checked_mul(u64::from(devices) * share) {
            Some(product) => product / (total * 1000),
            None => {
                let product = u128::from(inventory.cpu_milli) * u128::from(devices) * u128::from(share);
                (product / (u128::from(total) * 1000)) as u64
            }
        };
        proportional.max(u64::from(group.ranks_on(devices)) * 1000)
    });
    Amount { cpu_milli, memory_bytes: group.memory_bytes_per_node.unwrap_or(0) }
}

/// Does the node carry the labels and none to keep off, and is it none of those to keep off by name?
pub fn node_allowed(group: &GroupRequest, name: &Name, inventory: &Inventory) -> bool {
    !group.exclude.contains(name) && labels_match(group, inventory)
}

pub fn labels_match(group: &GroupRequest, inventory: &Inventory) -> bool {
    let carries = |(key, value): (&Name, &String)| inventory.labels.get(key) == Some(value);
    group.labels.iter().all(carries) && !group.avoid.iter().any(carries)
}

/// May the group have this device, by its model? An empty list of models takes any device but an
/// instance of one: who can live with a slice says so by naming it.
pub fn device_allowed(group: &GroupRequest, device: &Device) -> bool {
    if group.models.is_empty() { device.parent.is_none() } else { group.models.contains(&device.model) }
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
