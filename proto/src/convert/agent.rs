//! The agent protocol's messages and the vocabulary they carry.

use crate::agent as wire;
use muster_common::job::StopSignal;
use muster_common::node::{Device, Inventory, Link, Nic, NumaNode};
use muster_common::topology::Place;
use muster_common::{GangId, JobId, Name, Token};
use std::collections::BTreeMap;

/// More devices on one node are refused.
pub const DEVICES_MAX: usize = 256;
/// More NICs, NUMA nodes, labels or trees on one node are refused.
pub const ENTRIES_MAX: usize = 1024;

/// A message that does not mean anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the field `{field}` of a message is not valid: {why}")]
pub struct Invalid {
    pub field: &'static str,
    pub why: String,
}

/// Shorthand for [`Invalid`].
pub fn invalid(field: &'static str, why: impl ToString) -> Invalid {
    Invalid { field, why: why.to_string() }
}

impl From<Token> for wire::Token {
    fn from(token: Token) -> Self {
        Self { generation: token.generation, index: token.index }
    }
}

impl From<wire::Token> for Token {
    fn from(token: wire::Token) -> Self {
        Self { generation: token.generation, index: token.index }
    }
}

impl From<GangId> for wire::Gang {
    fn from(gang: GangId) -> Self {
        Self { job: gang.job.0, ordinal: gang.ordinal }
    }
}

impl From<wire::Gang> for GangId {
    fn from(gang: wire::Gang) -> Self {
        GangId::new(JobId(gang.job), gang.ordinal)
    }
}

/// `USR1`, as on the wire and in job files; no signal is the empty text.
pub fn stop_signal_text(signal: Option<StopSignal>) -> &'static str {
    match signal {
        None => "",
        Some(StopSignal::Usr1) => "USR1",
        Some(StopSignal::Usr2) => "USR2",
        Some(StopSignal::Term) => "TERM",
        Some(StopSignal::Int) => "INT",
        Some(StopSignal::Hup) => "HUP",
    }
}

/// The opposite of [`stop_signal_text`].
pub fn stop_signal_of(text: &str) -> Result<Option<StopSignal>, Invalid> {
    Ok(Some(match text {
        "" => return Ok(None),
        "USR1" => StopSignal::Usr1,
        "USR2" => StopSignal::Usr2,
        "TERM" => StopSignal::Term,
        "INT" => StopSignal::Int,
        "HUP" => StopSignal::Hup,
        other => return Err(invalid("stop_signal", format!("`{other}` is no signal a job may choose"))),
    }))
}

/// `same`, `nv18`, `pix`, `pxb`, `phb`, `node` or `sys`.
pub fn link_text(link: Link) -> String {
    match link {
        Link::Same => "same".to_owned(),
        Link::NvLink(links) => format!("nv{links}"),
        Link::Pix => "pix".to_owned(),
        Link::Pxb => "pxb".to_owned(),
        Link::Phb => "phb".to_owned(),
        Link::Node => "node".to_owned(),
        Link::Sys => "sys".to_owned(),
    }
}

/// The opposite of [`link_text`].
pub fn link_of(text: &str) -> Result<Link, Invalid> {
    Ok(match text {
        "same" => Link::Same,
        "pix" => Link::Pix,
        "pxb" => Link::Pxb,
        "phb" => Link::Phb,
        "node" => Link::Node,
        "sys" => Link::Sys,
        other => match other.strip_prefix("nv").and_then(|links| links.parse().ok()) {
            Some(links) => Link::NvLink(links),
            None => return Err(invalid("links", format!("`{other}` is no kind of link"))),
        },
    })
}

impl From<&Inventory> for wire::Inventory {
    fn from(inventory: &Inventory) -> Self {
        Self {
            cpu_milli: inventory.cpu_milli,
            memory_bytes: inventory.memory_bytes,
            numa: inventory.numa.iter().map(numa_to_wire).collect(),
            devices: inventory.devices.iter().map(device_to_wire).collect(),
            links: inventory.links.iter().flatten().map(|link| link_text(*link)).collect(),
            nics: inventory.nics.iter().map(nic_to_wire).collect(),
            labels: inventory.labels.iter().map(|(key, value)| (key.to_string(), value.clone())).collect(),
            place: inventory.place.iter().map(tree_to_wire).collect(),
            hardware_id: inventory.hardware_id.clone(),
            boot_id: inventory.boot_id.clone(),
            agent_version: inventory.agent_version.clone(),
            address: inventory.address.clone(),
            port_base: inventory.port_base.into(),
            port_count: inventory.port_count.into(),
            weak_fencing: inventory.weak_fencing,
        }
    }
}

impl TryFrom<wire::Inventory> for Inventory {
    type Error = Invalid;

    fn try_from(wire: wire::Inventory) -> Result<Self, Invalid> {
        let count = wire.devices.len();
        bounded("devices", count, DEVICES_MAX)?;
        bounded("numa", wire.numa.len(), ENTRIES_MAX)?;
        bounded("nics", wire.nics.len(), ENTRIES_MAX)?;
        bounded("labels", wire.labels.len(), ENTRIES_MAX)?;
        bounded("place", wire.place.len(), ENTRIES_MAX)?;
        Ok(Self {
            cpu_milli: wire.cpu_milli,
            memory_bytes: wire.memory_bytes,
            numa: wire.numa.into_iter().map(numa_of).collect::<Result<_, _>>()?,
            devices: wire.devices.into_iter().map(|device| device_of(device, count)).collect::<Result<_, _>>()?,
            links: links_of(&wire.links, count)?,
            nics: wire.nics.into_iter().map(nic_of).collect::<Result<_, _>>()?,
            labels: labels_of(wire.labels)?,
            place: place_of(wire.place)?,
            hardware_id: wire.hardware_id,
            boot_id: wire.boot_id,
            agent_version: wire.agent_version,
            address: wire.address,
            port_base: small("port_base", wire.port_base)?,
            port_count: small("port_count", wire.port_count)?,
            weak_fencing: wire.weak_fencing,
        })
    }
}

fn bounded(field: &'static str, count: usize, most: usize) -> Result<(), Invalid> {
    if count > most { Err(invalid(field, format!("{count} entries are more than {most}"))) } else { Ok(()) }
}

fn small(field: &'static str, value: u32) -> Result<u16, Invalid> {
    u16::try_from(value).map_err(|_| invalid(field, format!("{value} is above 65535")))
}

fn name(field: &'static str, text: String) -> Result<Name, Invalid> {
    Name::new(text).map_err(|error| invalid(field, error))
}

fn numa_to_wire(numa: &NumaNode) -> wire::Numa {
    wire::Numa { id: numa.id.into(), cpus: numa.cpus.clone(), memory_bytes: numa.memory_bytes }
}

fn numa_of(wire: wire::Numa) -> Result<NumaNode, Invalid> {
    Ok(NumaNode { id: small("numa", wire.id)?, cpus: wire.cpus, memory_bytes: wire.memory_bytes })
}

fn device_to_wire(device: &Device) -> wire::Device {
    wire::Device {
        uuid: device.uuid.clone(),
        model: device.model.to_string(),
        product: device.product.clone(),
        memory_bytes: device.memory_bytes,
        pci_address: device.pci_address.clone(),
        numa: device.numa.map(Into::into),
        parent: device.parent.map(Into::into),
        nearest_nics: device.nearest_nics.clone(),
    }
}

fn device_of(wire: wire::Device, count: usize) -> Result<Device, Invalid> {
    let parent = wire.parent.map(|parent| small("devices.parent", parent)).transpose()?;
    if parent.is_some_and(|parent| usize::from(parent) >= count) {
        return Err(invalid("devices.parent", "there is no such slot"));
    }
    Ok(Device {
        uuid: wire.uuid,
        model: name("devices.model", wire.model)?,
        product: wire.product,
        memory_bytes: wire.memory_bytes,
        pci_address: wire.pci_address,
        numa: wire.numa.map(|numa| small("devices.numa", numa)).transpose()?,
        parent,
        nearest_nics: wire.nearest_nics,
    })
}

fn links_of(texts: &[String], count: usize) -> Result<Vec<Vec<Link>>, Invalid> {
    if texts.len() != count * count {
        return Err(invalid("links", format!("{} entries for {count} devices", texts.len())));
    }
    if count == 0 {
        return Ok(Vec::new());
    }
    texts.chunks(count).map(|row| row.iter().map(|text| link_of(text)).collect()).collect()
}

fn nic_to_wire(nic: &Nic) -> wire::Nic {
    wire::Nic {
        name: nic.name.clone(),
        netdev: nic.netdev.clone(),
        pci_address: nic.pci_address.clone(),
        numa: nic.numa.map(Into::into),
        rate_gbps: nic.rate_gbps,
        rail: nic.rail.map(Into::into),
        compute: nic.compute,
    }
}

fn nic_of(wire: wire::Nic) -> Result<Nic, Invalid> {
    Ok(Nic {
        name: wire.name,
        netdev: wire.netdev,
        pci_address: wire.pci_address,
        numa: wire.numa.map(|numa| small("nics.numa", numa)).transpose()?,
        rate_gbps: wire.rate_gbps,
        rail: wire.rail.map(|rail| small("nics.rail", rail)).transpose()?,
        compute: wire.compute,
    })
}

fn labels_of(labels: impl IntoIterator<Item = (String, String)>) -> Result<BTreeMap<Name, String>, Invalid> {
    labels.into_iter().map(|(key, value)| Ok((name("labels", key)?, value))).collect()
}

fn tree_to_wire((name, domains): (&Name, &Vec<Name>)) -> wire::Tree {
    wire::Tree { name: name.to_string(), domains: domains.iter().map(Name::to_string).collect() }
}

fn place_of(trees: Vec<wire::Tree>) -> Result<Place, Invalid> {
    let mut place = Place::new();
    for tree in trees {
        let domains = tree.domains.into_iter().map(|domain| name("place", domain)).collect::<Result<_, _>>()?;
        if place.insert(name("place", tree.name)?, domains).is_some() {
            return Err(invalid("place", "a tree is named twice"));
        }
    }
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory() -> Inventory {
        let device = |parent| Device {
            uuid: format!("GPU-{parent:?}"),
            model: Name::literal("H100"),
            product: "NVIDIA H100".to_owned(),
            memory_bytes: 80,
            pci_address: "0000:1b:00.0".to_owned(),
            numa: Some(1),
            parent,
            nearest_nics: vec!["mlx5_0".to_owned()],
        };
        Inventory {
            cpu_milli: 64_000,
            memory_bytes: 1 << 40,
            numa: vec![NumaNode { id: 1, cpus: "0-55".to_owned(), memory_bytes: 9 }],
            devices: vec![device(None), device(Some(0))],
            links: vec![vec![Link::Same, Link::NvLink(18)], vec![Link::NvLink(18), Link::Same]],
            nics: vec![Nic {
                name: "mlx5_0".to_owned(),
                netdev: None,
                pci_address: String::new(),
                numa: Some(0),
                rate_gbps: 400,
                rail: Some(3),
                compute: true,
            }],
            labels: BTreeMap::from([(Name::literal("zone"), "a b".to_owned())]),
            place: BTreeMap::from([(Name::literal("network"), vec![Name::literal("pod-1"), Name::literal("leaf-2")])]),
            hardware_id: "hw".to_owned(),
            boot_id: "boot".to_owned(),
            agent_version: "0.1.0".to_owned(),
            address: "10.0.0.1".to_owned(),
            port_base: 20_000,
            port_count: 1_000,
            weak_fencing: true,
        }
    }

    #[test]
    fn an_inventory_survives_the_wire() {
        let inventory = inventory();
        assert_eq!(Inventory::try_from(wire::Inventory::from(&inventory)), Ok(inventory));
    }

    #[test]
    fn what_an_agent_must_not_say_is_refused_with_its_field() {
        type Change = fn(&mut wire::Inventory);
        let changes: [(&str, Change); 6] = [
            ("links", |inventory| drop(inventory.links.pop())),
            ("links", |inventory| inventory.links[1] = "nvx".to_owned()),
            ("devices.parent", |inventory| inventory.devices[0].parent = Some(2)),
            ("devices.model", |inventory| inventory.devices[0].model = "\x1b[31m".to_owned()),
            ("port_base", |inventory| inventory.port_base = 70_000),
            ("place", |inventory| inventory.place.push(inventory.place[0].clone())),
        ];
        for (field, change) in changes {
            let mut wire = wire::Inventory::from(&inventory());
            change(&mut wire);
            assert_eq!(Inventory::try_from(wire).expect_err(field).field, field);
        }
    }

    #[test]
    fn signals_and_links_read_as_they_print() {
        use StopSignal::{Hup, Int, Term, Usr1, Usr2};
        for signal in [None, Some(Usr1), Some(Usr2), Some(Term), Some(Int), Some(Hup)] {
            assert_eq!(stop_signal_of(stop_signal_text(signal)), Ok(signal));
        }
        assert!(stop_signal_of("KILL").is_err());
        for link in [Link::Same, Link::NvLink(4), Link::Pix, Link::Pxb, Link::Phb, Link::Node, Link::Sys] {
            assert_eq!(link_of(&link_text(link)), Ok(link));
        }
    }
}
