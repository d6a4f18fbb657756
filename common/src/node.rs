//! What an agent reports about its machine.

use crate::Name;
use crate::resources::Amount;
use crate::topology::Place;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Longest value of a label that is asked for.
pub const LABEL_VALUE_BYTES_MAX: usize = 256;

pub fn is_label_value(text: &str) -> bool {
    text.len() <= LABEL_VALUE_BYTES_MAX && !text.chars().any(char::is_control)
}

/// Everything the scheduler needs to know of a machine. Sent at registration; a changed
/// inventory is a new registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    pub cpu_milli: u64,
    pub memory_bytes: u64,
    pub numa: Vec<NumaNode>,
    /// In slot order; the slot is the index in this list and never changes while the node keeps
    /// its epoch. Agents order devices by PCI address.
    pub devices: Vec<Device>,
    /// How devices are joined, `links[a][b]`, symmetric, `Link::Same` on the diagonal.
    pub links: Vec<Vec<Link>>,
    pub nics: Vec<Nic>,
    pub labels: BTreeMap<Name, String>,
    pub place: Place,
    /// Identity of the hardware (machine id and device serials), to tell a rebooted machine from
    /// another one under the same name.
    pub hardware_id: String,
    /// The kernel's random boot id.
    pub boot_id: String,
    pub agent_version: String,
    /// Address other ranks can reach, for `MASTER_ADDR`.
    pub address: String,
    /// Ports that gangs may lease on this node.
    pub port_base: u16,
    pub port_count: u16,
    /// True when ranks outlive a dead shim (no PID namespace): fencing is weaker, and shown.
    pub weak_fencing: bool,
}

impl Inventory {
    pub fn amount(&self) -> Amount {
        Amount { cpu_milli: self.cpu_milli, memory_bytes: self.memory_bytes }
    }

    /// Slots of devices that are split into instances: nobody is placed on them, only on what they are split into.
    pub fn split_slots(&self) -> BTreeSet<u16> {
        self.devices.iter().filter_map(|device| device.parent).collect()
    }

    /// Devices that may be placed on, by slot.
    pub fn usable(&self) -> impl Iterator<Item = (u16, &Device)> {
        let split = self.split_slots();
        (0u16..).zip(&self.devices).filter(move |(slot, _)| !split.contains(slot))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumaNode {
    pub id: u16,
    /// A kernel cpulist, such as `0-55,112-167`.
    pub cpus: String,
    pub memory_bytes: u64,
}

/// One accelerator, or one MIG instance of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// `GPU-...` or `MIG-...`; what `CUDA_VISIBLE_DEVICES` takes.
    pub uuid: String,
    /// Short model name, such as `H100`.
    pub model: Name,
    /// The name the driver gives, such as `NVIDIA H100 80GB HBM3`.
    pub product: String,
    pub memory_bytes: u64,
    /// `0000:1b:00.0`; empty when the platform has none.
    pub pci_address: String,
    pub numa: Option<u16>,
    /// For a MIG instance, the slot of the device it is a part of.
    pub parent: Option<u16>,
    /// NICs at the best PCI distance, by name.
    pub nearest_nics: Vec<String>,
}

/// How two devices of one node are joined, from the best to the worst (the field's words, as
/// `nvidia-smi topo -m` prints them).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Link {
    /// The device itself.
    Same,
    /// NVLink with that many bonded links.
    NvLink(u8),
    /// One PCI bridge between them.
    Pix,
    /// Several PCI bridges, no host bridge.
    Pxb,
    /// A host bridge.
    Phb,
    /// Host bridges of one NUMA node.
    Node,
    /// Across sockets.
    Sys,
}

impl Link {
    /// A rough bandwidth rank for choosing device sets: higher is better. NVLink counts its
    /// bonded links; PCI levels follow NCCL's order of preference.
    pub const fn quality(self) -> u32 {
        match self {
            Link::Same => 1000,
            Link::NvLink(links) => 100 + links as u32,
            Link::Pix => 50,
            Link::Pxb => 40,
            Link::Phb => 30,
            Link::Node => 20,
            Link::Sys => 10,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    pub name: String,
    pub netdev: Option<String>,
    pub pci_address: String,
    pub numa: Option<u16>,
    pub rate_gbps: u32,
    /// Which rail of the fabric it is on, when known.
    pub rail: Option<u16>,
    /// False for storage and management ports.
    pub compute: bool,
}
