//! How the devices are joined: NVLink where links are up, else the PCI level.

use super::raw::{LinkEnd, link_end};
use super::read::Reading;
use muster_common::node::Link;
use nvml_wrapper::enum_wrappers::device::TopologyLevel;
use nvml_wrapper::{Device, Nvml};
use std::collections::BTreeMap;

/// The links one device can have; the array's length in the driver's header.
const LINKS_MAX: u32 = 18;

/// The links of one device that are up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct NvLinks {
    /// Up, by the PCI address of the GPU at the far end.
    direct: BTreeMap<String, u8>,
    /// Up, and ending in a switch.
    switched: u8,
    /// The device has links at all.
    present: bool,
}

impl NvLinks {
    pub fn read(nvml: &Nvml, device: &Device<'_>) -> Self {
        let mut links = Self::default();
        for number in 0..LINKS_MAX {
            let link = device.link_wrapper_for(number);
            // A number past the device's last link is an error, as is a device without NVLink.
            let Ok(active) = link.is_active() else { continue };
            links.present = true;
            if !active {
                continue;
            }
            match link_end(nvml, device, number) {
                Some(LinkEnd::Switch) => links.switched += 1,
                Some(LinkEnd::Gpu) => {
                    if let Ok(remote) = link.remote_pci_info() {
                        *links.direct.entry(super::read::pci_address(&remote)).or_default() += 1;
                    }
                }
                // Links to a CPU join no two devices.
                Some(LinkEnd::Other) => {}
                // Old drivers do not tell the kind. A switch has an address that no GPU has, which
                // `pair` cannot match, so what is not a GPU of this node counts as a switch there.
                None => match link.remote_pci_info() {
                    Ok(remote) => *links.direct.entry(super::read::pci_address(&remote)).or_default() += 1,
                    Err(_) => links.switched += 1,
                },
            }
        }
        links
    }

    /// Links that are up; `None` for a device without NVLink.
    pub fn active(&self) -> Option<u8> {
        self.present.then(|| self.switched + self.direct.values().sum::<u8>())
    }

    fn through_switches(&self, gpus: &[&str]) -> u8 {
        let strangers = self.direct.iter().filter(|(address, _)| !gpus.contains(&address.as_str()));
        self.switched + strangers.map(|(_, count)| *count).sum::<u8>()
    }
}

/// The matrix over all readings, in their order.
pub(super) fn matrix(nvml: &Nvml, readings: &[Reading<'_>]) -> Vec<Vec<Link>> {
    let gpus: Vec<&str> = readings.iter().map(|reading| reading.device.pci_address.as_str()).collect();
    let mut matrix = vec![vec![Link::Same; readings.len()]; readings.len()];
    for (a, first) in readings.iter().enumerate() {
        for (b, second) in readings.iter().enumerate().skip(a + 1) {
            let link = pair(nvml, first, second, &gpus);
            matrix[a][b] = link;
            matrix[b][a] = link;
        }
    }
    matrix
}

fn pair(nvml: &Nvml, first: &Reading<'_>, second: &Reading<'_>, gpus: &[&str]) -> Link {
    if first.gpu_uuid == second.gpu_uuid {
        // MIG instances of one GPU: no peer access, but no farther apart than one bridge.
        return Link::Pix;
    }
    // MIG instances cannot use NVLink.
    if !first.is_instance() && !second.is_instance() {
        let bonded = match first.links.direct.get(&second.device.pci_address) {
            Some(direct) => *direct,
            None => first.links.through_switches(gpus).min(second.links.through_switches(gpus)),
        };
        if bonded > 0 {
            return Link::NvLink(bonded);
        }
    }
    let (Some(one), Some(other)) = (&first.gpu, &second.gpu) else {
        return Link::Sys;
    };
    match nvml.topology_common_ancestor(one, other) {
        Ok(TopologyLevel::Internal | TopologyLevel::Single) => Link::Pix,
        Ok(TopologyLevel::Multiple) => Link::Pxb,
        Ok(TopologyLevel::HostBridge) => Link::Phb,
        Ok(TopologyLevel::Node) => Link::Node,
        // The worst is the safe answer where the driver has none, as in most virtual machines.
        Ok(TopologyLevel::System) | Err(_) => Link::Sys,
    }
}
