//! What this node is: the report an agent registers with.
//!
//! Everything is read below `sysfs_root` and `proc_root`, so a made-up tree is as good as a machine. With
//! simulated devices, CPUs, memory and NICs come from the same fixture.

pub mod cpulist;
mod describe;
mod host;
mod identity;
mod namespace;
mod nics;
pub mod pci;
#[cfg(test)]
mod tests;

pub use describe::describe;
pub use namespace::pid_namespace_permitted;

use crate::device::{DeviceReport, DeviceSource, Probe, ProbeError, SimulatedMachine};
use host::Host;
use muster_common::Name;
use muster_common::node::{Device, Inventory, NumaNode};
use muster_common::topology::Place;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Below this, binding a port takes privileges that ranks do not have.
const PORT_MIN: u16 = 1024;

/// What the operator says about the node, and where to read the rest.
#[derive(Debug, Clone)]
pub struct InventoryConfig {
    pub node: Name,
    pub labels: BTreeMap<Name, String>,
    pub place: Place,
    /// What other ranks connect to; found by itself if `None`.
    pub address: Option<String>,
    /// CPUs offered to jobs; all of them if `None`.
    pub cpus: Option<u32>,
    /// Ports `port_base .. port_base + port_count` may be leased to gangs.
    pub port_base: u16,
    pub port_count: u16,
    /// True when the launcher puts ranks into a PID namespace of their own.
    pub pid_namespace: bool,
    pub sysfs_root: PathBuf,
    pub proc_root: PathBuf,
    pub machine_id_path: PathBuf,
}

impl InventoryConfig {
    /// The real machine under that name, no labels, ports 20000 to 20999, fencing as the kernel permits.
    pub fn new(node: Name) -> Self {
        Self {
            node,
            labels: BTreeMap::new(),
            place: Place::new(),
            address: None,
            cpus: None,
            port_base: 20_000,
            port_count: 1_000,
            pid_namespace: pid_namespace_permitted(),
            sysfs_root: PathBuf::from("/sys"),
            proc_root: PathBuf::from("/proc"),
            machine_id_path: PathBuf::from("/etc/machine-id"),
        }
    }
}

/// Why a node cannot tell what it is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InventoryError {
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error("`{}` cannot be used for the inventory: {cause}", path.display())]
    Unreadable { path: PathBuf, cause: String },
    #[error(
        "this machine has no identity: no board UUID, no network card, and nothing in `{}`\n  \
         help: write 32 hex digits to that file, once, for instance with `systemd-machine-id-setup`",
        path.display()
    )]
    NoIdentity { path: PathBuf },
    #[error(
        "`{address}` is no address other nodes can reach\n  help: give a host name or an IP address without a port"
    )]
    BadAddress { address: String },
    #[error("no address of this node was found\n  help: set `address` in the agent's configuration")]
    NoAddress,
    #[error(
        "ports {base} to {base} + {count} are no range for gangs\n  help: choose at least one port from {PORT_MIN} to 65535"
    )]
    BadPorts { base: u16, count: u16 },
}

impl InventoryError {
    fn unreadable(path: &Path, cause: impl fmt::Display) -> Self {
        Self::Unreadable { path: path.to_owned(), cause: cause.to_string() }
    }
}

/// An opened node: the probe for later questions, and the first answers.
#[derive(Debug)]
pub struct Survey {
    pub inventory: Inventory,
    pub report: DeviceReport,
    pub probe: Box<dyn Probe>,
}

/// The inventory alone, for showing it. An agent uses [`survey`] and keeps the probe.
pub fn collect(source: &DeviceSource, config: &InventoryConfig) -> Result<Inventory, InventoryError> {
    survey(source, config).map(|survey| survey.inventory)
}

/// Opens the devices and reads the whole node once. Blocks, for as long as a driver takes to start.
pub fn survey(source: &DeviceSource, config: &InventoryConfig) -> Result<Survey, InventoryError> {
    let mut probe = source.open(config.node.as_str(), &config.sysfs_root)?;
    let report = probe.devices()?;
    for device in &report.unreadable {
        tracing::error!(%device, "a device is left out of the inventory, as it cannot be read");
    }
    let inventory = inventory_of(probe.as_ref(), &report, config)?;
    Ok(Survey { inventory, report, probe })
}

/// The inventory for a report already at hand, such as after devices changed.
pub fn inventory_of(
    probe: &dyn Probe,
    report: &DeviceReport,
    config: &InventoryConfig,
) -> Result<Inventory, InventoryError> {
    check_ports(config)?;
    let machine = probe.machine();
    let simulated = machine.is_some();
    let address = identity::address(config.address.as_deref(), simulated)?;
    let hardware_id = identity::hardware_id(config, simulated, &report.serials)?;
    let boot_id = identity::boot_id(&config.proc_root)?;
    let surroundings = match machine {
        Some(machine) => Surroundings::simulated(machine, report),
        None => Surroundings::real(config, report)?,
    };
    Ok(Inventory {
        cpu_milli: config.cpus.map_or(u64::MAX, |cpus| u64::from(cpus) * 1000).min(surroundings.host.cpu_milli),
        memory_bytes: surroundings.host.memory_bytes,
        numa: surroundings.host.numa,
        devices: surroundings.devices,
        links: report.links.clone(),
        nics: surroundings.nics,
        labels: labels(config, report, surroundings.labels),
        place: config.place.clone(),
        hardware_id,
        boot_id,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        address,
        port_base: config.port_base,
        port_count: config.port_count,
        weak_fencing: !config.pid_namespace,
    })
}

/// The machine around the devices, and the devices with what only the machine knows of them.
struct Surroundings {
    host: Host,
    devices: Vec<Device>,
    nics: Vec<muster_common::node::Nic>,
    labels: BTreeMap<String, String>,
}

impl Surroundings {
    fn simulated(machine: SimulatedMachine, report: &DeviceReport) -> Self {
        let SimulatedMachine { cpu_milli, memory_bytes, numa, nics, labels } = machine;
        Self { host: Host { cpu_milli, memory_bytes, numa }, devices: report.devices.clone(), nics, labels }
    }

    fn real(config: &InventoryConfig, report: &DeviceReport) -> Result<Self, InventoryError> {
        let host = Host::read(&config.sysfs_root, &config.proc_root)?;
        let mut devices = report.devices.clone();
        for (device, affinity) in devices.iter_mut().zip(&report.affinity) {
            device.numa = device_numa(&config.sysfs_root, device, affinity, &host.numa);
        }
        let mut ports = nics::read(&config.sysfs_root, &config.proc_root);
        nics::choose_compute(&mut ports, &devices);
        for device in &mut devices {
            let distances = nics::distances(&config.sysfs_root, device, &ports);
            device.nearest_nics = nics::nearest(&ports, &distances);
        }
        Ok(Self { host, devices, nics: nics::into_nics(ports), labels: BTreeMap::new() })
    }
}

/// The kernel's word for the PCI device; else the NUMA node that owns all CPUs the driver calls near.
fn device_numa(sysfs_root: &Path, device: &Device, affinity: &str, nodes: &[NumaNode]) -> Option<u16> {
    let told = pci::PciPlace::read(sysfs_root, &device.pci_address).and_then(|place| place.numa);
    // A memory-only node, as on Grace, owns no CPUs and is not where a rank is to run.
    if let Some(told) = told.filter(|told| nodes.iter().any(|node| node.id == *told)) {
        return Some(told);
    }
    let near: BTreeSet<u32> = cpulist::parse(affinity).ok()?.into_iter().collect();
    let home = nodes.iter().find(|node| {
        let cpus = cpulist::parse(&node.cpus).unwrap_or_default();
        !near.is_empty() && near.iter().all(|cpu| cpus.binary_search(cpu).is_ok())
    })?;
    Some(home.id)
}

/// What the agent found out, under what the operator says.
fn labels(config: &InventoryConfig, report: &DeviceReport, found: BTreeMap<String, String>) -> BTreeMap<Name, String> {
    let mut labels = BTreeMap::new();
    for (name, value) in found {
        labels.extend(Name::new(name).ok().map(|name| (name, value)));
    }
    labels.extend(report.nvlink_domain.clone().map(|domain| (Name::literal("nvlink-domain"), domain)));
    labels.extend(config.labels.clone());
    labels
}

fn check_ports(config: &InventoryConfig) -> Result<(), InventoryError> {
    let (base, count) = (config.port_base, config.port_count);
    let end = u32::from(base) + u32::from(count);
    if base < PORT_MIN || count == 0 || end > u32::from(u16::MAX) + 1 {
        return Err(InventoryError::BadPorts { base, count });
    }
    Ok(())
}
