//! From the world file to node registrations.

use super::{NodeGroup, World, elastic, planned, spot};
use muster_common::Name;
use muster_common::node::{Device, Inventory, Link};
use muster_common::topology::Place;
use muster_engine::command::Registration;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Most nodes of a world.
pub const NODES_MAX: u64 = 100_000;
/// Most devices of a node.
pub const NODE_DEVICES_MAX: u16 = 256;
const CPUS_PER_DEVICE: u32 = 8;
/// As agents have them by default. Every gang leases one, those without devices too.
const PORT_BASE: u16 = 20_000;
const PORTS: u16 = 1_000;

impl World {
    pub(super) fn checked(self) -> Result<Self, String> {
        let nodes: u64 = self.nodes.iter().map(|group| u64::from(group.count)).sum();
        if nodes == 0 || nodes > NODES_MAX {
            return Err(format!("the world has {nodes} nodes; it must have from 1 to {NODES_MAX}"));
        }
        let (mut names, mut given) = (BTreeSet::new(), BTreeSet::new());
        for group in &self.nodes {
            if group.devices == 0 || group.devices > NODE_DEVICES_MAX {
                return Err(format!(
                    "nodes `{}`: {} devices; a node has from 1 to {NODE_DEVICES_MAX}",
                    group.name, group.devices
                ));
            }
            if group.cpus.is_some_and(|cpus| cpus < u32::from(group.devices)) {
                return Err(format!("nodes `{}`: fewer CPUs than devices; every rank needs one", group.name));
            }
            if !group.names.is_empty() && group.names.len() != group.count as usize {
                let known = group.names.len();
                return Err(format!("nodes `{}`: {known} names for {} nodes", group.name, group.count));
            }
            if let Some(name) = group.names.iter().find(|name| !given.insert(*name)) {
                return Err(format!("two nodes are called `{name}`"));
            }
            let of_agent = group.inventory.as_ref().map(|inventory| inventory.devices.len());
            if of_agent.is_some_and(|devices| devices != usize::from(group.devices)) {
                return Err(format!("nodes `{}`: `devices` is not what its inventory lists", group.name));
            }
            if !names.insert(&group.name) {
                return Err(format!("two groups of nodes are called `{}`", group.name));
            }
            node_name(group, group.count)?;
        }
        if self.jobs.step == 0 || self.jobs.step > self.largest_node() {
            return Err(format!("jobs.step is {}; it must be from 1 to the devices of a node", self.jobs.step));
        }
        self.check_places()?;
        self.failures.rates()?;
        planned::check(&self)?;
        spot::check(&self)?;
        elastic::check(&self)?;
        Ok(self)
    }

    fn check_places(&self) -> Result<(), String> {
        let mut levels: BTreeSet<&str> = BTreeSet::new();
        for group in &self.nodes {
            for (tree, counts) in group
                .place
                .iter()
                .map(|(tree, path)| (tree, path.len()))
                .chain(group.place_every.iter().map(|(tree, every)| (tree, every.len())))
            {
                let Some(spec) = self.fabric.trees.iter().find(|spec| spec.name == *tree) else {
                    return Err(format!("nodes `{}`: the fabric has no tree `{tree}`", group.name));
                };
                if spec.levels.len() != counts {
                    return Err(format!(
                        "nodes `{}`: tree `{tree}` has {} levels, not {counts}",
                        group.name,
                        spec.levels.len()
                    ));
                }
                levels.extend(spec.levels.iter().map(Name::as_str));
            }
            if group.place_every.values().flatten().any(|every| *every == 0) {
                return Err(format!("nodes `{}`: place_every counts nodes, at least 1", group.name));
            }
            if group.place_every.keys().any(|tree| group.place.contains_key(tree)) {
                return Err(format!("nodes `{}`: place and place_every name the same tree", group.name));
            }
        }
        match &self.failures.leaf_level {
            Some(level) if !levels.contains(level.as_str()) => {
                Err(format!("failures.leaf_level `{level}` is no level that a node has a place in"))
            }
            _ => Ok(()),
        }
    }

    /// One registration for each node, in the order of the file.
    pub(crate) fn registrations(&self) -> impl Iterator<Item = Registration> + '_ {
        self.nodes.iter().flat_map(move |group| {
            (0..group.count).map(move |number| {
                let name = node_name(group, number).expect("checked for the highest number");
                registration(group, name, self.place(group, number))
            })
        })
    }
}

impl World {
    /// What the nodes of a group are called.
    pub(super) fn names_of(&self, group: &NodeGroup) -> Vec<Name> {
        (0..group.count).filter_map(|number| node_name(group, number).ok()).collect()
    }

    fn place(&self, group: &NodeGroup, number: u32) -> Place {
        let mut place = group.place.clone();
        for (tree, every) in &group.place_every {
            let Some(spec) = self.fabric.trees.iter().find(|spec| spec.name == *tree) else { continue };
            let domain = |(level, every): (&Name, &u32)| {
                let name = format!("{}-{level}-{}", group.name, number / every);
                Name::new(name).unwrap_or_else(|_| level.clone())
            };
            place.insert(tree.clone(), spec.levels.iter().zip(every).map(domain).collect());
        }
        place
    }
}

fn node_name(group: &NodeGroup, number: u32) -> Result<Name, String> {
    if let Some(name) = group.names.get(number as usize) {
        return Ok(name.clone());
    }
    Name::new(format!("{}-{number}", group.name)).map_err(|error| format!("nodes `{}`: {error}", group.name))
}

fn registration(group: &NodeGroup, name: Name, place: Place) -> Registration {
    let inventory = match &group.inventory {
        Some(known) => of_agent(known, &name),
        None => invented(group, &name, place),
    };
    Registration {
        name: name.clone(),
        inventory: Arc::new(inventory),
        store_id: name.to_string(),
        instance: name.to_string(),
        store_lost: false,
        old_boot_silent: false,
        held: Vec::new(),
    }
}

/// As it was reported, for a node of this name.
fn of_agent(known: &Inventory, name: &Name) -> Inventory {
    let mut inventory = known.clone();
    (inventory.hardware_id, inventory.address) = (name.to_string(), name.to_string());
    inventory.boot_id = "simulated".into();
    for (slot, device) in inventory.devices.iter_mut().enumerate() {
        device.uuid = format!("{name}-{slot}");
    }
    inventory
}

fn invented(group: &NodeGroup, name: &Name, place: Place) -> Inventory {
    let devices = (0..group.devices)
        .map(|slot| Device {
            uuid: format!("{name}-{slot}"),
            model: group.model.clone(),
            product: group.model.to_string(),
            memory_bytes: 0,
            pci_address: String::new(),
            numa: None,
            parent: None,
            nearest_nics: Vec::new(),
        })
        .collect();
    Inventory {
        cpu_milli: u64::from(group.cpus.unwrap_or(CPUS_PER_DEVICE * u32::from(group.devices))) * 1000,
        memory_bytes: u64::from(group.memory_gib) << 30,
        numa: Vec::new(),
        devices,
        links: alike_links(group.devices),
        nics: Vec::new(),
        labels: group.labels.clone(),
        place,
        hardware_id: name.to_string(),
        boot_id: "simulated".into(),
        agent_version: String::new(),
        address: name.to_string(),
        port_base: PORT_BASE,
        port_count: PORTS,
        weak_fencing: false,
    }
}

/// Every device as near to every other.
fn alike_links(devices: u16) -> Vec<Vec<Link>> {
    let link = |a, b| if a == b { Link::Same } else { Link::Node };
    (0..devices).map(|a| (0..devices).map(|b| link(a, b)).collect()).collect()
}
