//! Network ports and their distance to the devices.

use super::pci::PciPlace;
use muster_common::node::{Device, Link, Nic};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Ports of one node; more are not reported.
const NICS_MAX: usize = 64;

/// A port as the kernel shows it, before anyone has judged what it is for.
#[derive(Debug, Clone)]
pub(super) struct Port {
    nic: Nic,
    place: PciPlace,
    rdma: bool,
    /// Amazon's fabric adapter, which exists for nothing but compute.
    efa: bool,
    default_route: bool,
}

/// RDMA devices from `class/infiniband`, then plain network cards from `class/net`. Virtual
/// interfaces have no PCI place and are left out.
pub(super) fn read(sysfs_root: &Path, proc_root: &Path) -> Vec<Port> {
    let default_route = default_route_interface(proc_root);
    let mut ports = Vec::new();
    for (name, folder) in sorted(&sysfs_root.join("class/infiniband")) {
        let Some(place) = place_of(&folder) else { continue };
        let netdevs = sorted(&folder.join("device/net"));
        let netdev = netdevs.first().map(|(name, _)| name.clone());
        let default_route =
            default_route.is_some() && netdevs.iter().any(|(name, _)| Some(name) == default_route.as_ref());
        let rate_gbps = rdma_rate_gbps(&folder);
        let nic = nic(name.clone(), netdev, &place, rate_gbps);
        ports.push(Port { nic, place, rdma: true, efa: name.starts_with("efa"), default_route });
    }
    let covered: BTreeSet<String> = ports.iter().map(|port| port.nic.pci_address.clone()).collect();
    for (name, folder) in sorted(&sysfs_root.join("class/net")) {
        let Some(place) = place_of(&folder) else { continue };
        if covered.contains(place.address()) {
            continue;
        }
        let default_route = default_route.as_ref() == Some(&name);
        let nic = nic(name.clone(), Some(name), &place, net_rate_gbps(&folder));
        ports.push(Port { nic, place, rdma: false, efa: false, default_route });
    }
    ports.truncate(NICS_MAX);
    ports
}

fn nic(name: String, netdev: Option<String>, place: &PciPlace, rate_gbps: u32) -> Nic {
    let pci_address = place.address().to_owned();
    Nic { name, netdev, pci_address, numa: place.numa, rate_gbps, rail: None, compute: false }
}

/// Judges which ports are for compute: RDMA ports that do not carry the default route and, if the
/// node has devices with a known NUMA node, stand on one of theirs. Without such ports every plain card
/// counts, but the default route's only when it is the last one left.
pub(super) fn choose_compute(ports: &mut [Port], devices: &[Device]) {
    let homes: BTreeSet<u16> = devices.iter().filter_map(|device| device.numa).collect();
    for port in ports.iter_mut().filter(|port| port.rdma) {
        let near = homes.is_empty() || port.nic.numa.is_none_or(|numa| homes.contains(&numa));
        port.nic.compute = port.efa || (near && !port.default_route);
    }
    if ports.iter().any(|port| port.nic.compute) {
        return;
    }
    let spare = ports.iter().any(|port| !port.default_route);
    for port in ports.iter_mut() {
        port.nic.compute = !(spare && port.default_route);
    }
}

/// The levels between one device and all ports, in their order.
pub(super) fn distances(sysfs_root: &Path, device: &Device, ports: &[Port]) -> Vec<Link> {
    let place = PciPlace::read(sysfs_root, &device.pci_address);
    let far = |port: &Port| match device.numa {
        Some(numa) if port.nic.numa == Some(numa) => Link::Node,
        _ => Link::Sys,
    };
    ports.iter().map(|port| place.as_ref().map_or_else(|| far(port), |place| place.distance(&port.place))).collect()
}

/// Names of the compute ports at the best level, ties kept.
pub(super) fn nearest(ports: &[Port], distances: &[Link]) -> Vec<String> {
    let compute = || ports.iter().zip(distances).filter(|(port, _)| port.nic.compute);
    let Some(best) = compute().map(|(_, link)| link.quality()).max() else {
        return Vec::new();
    };
    compute().filter(|(_, link)| link.quality() == best).map(|(port, _)| port.nic.name.clone()).collect()
}

pub(super) fn into_nics(ports: Vec<Port>) -> Vec<Nic> {
    ports.into_iter().map(|port| port.nic).collect()
}

/// Entries of a class folder by name, with numbers in their natural order (`mlx5_2` before `mlx5_10`).
fn sorted(folder: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let named = entries.flatten().filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())));
    let mut named: Vec<(String, PathBuf)> = named.collect();
    named.sort_by_key(|(name, _)| {
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = name[stem.len()..].parse::<u64>().unwrap_or(0);
        (stem.to_owned(), number, name.clone())
    });
    named
}

/// `None` for interfaces without hardware, and for virtual functions beside their physical one, which
/// are lent to guests.
fn place_of(folder: &Path) -> Option<PciPlace> {
    let device = std::fs::canonicalize(folder.join("device")).ok()?;
    if device.join("physfn").exists() { None } else { PciPlace::of(&device) }
}

/// `400 Gb/sec (4X NDR)` of the fastest port; 0 when none is told.
fn rdma_rate_gbps(folder: &Path) -> u32 {
    let rate = |port: &Path| -> Option<u32> {
        let text = std::fs::read_to_string(port.join("rate")).ok()?;
        text.split_whitespace().next()?.parse::<f32>().ok().map(|rate| rate as u32)
    };
    sorted(&folder.join("ports")).iter().filter_map(|(_, port)| rate(port)).max().unwrap_or(0)
}

/// `speed` is in Mb/s, and -1 or unreadable while the link is down.
fn net_rate_gbps(folder: &Path) -> u32 {
    let text = std::fs::read_to_string(folder.join("speed")).unwrap_or_default();
    text.trim().parse::<i64>().ok().and_then(|mbps| u32::try_from(mbps / 1000).ok()).unwrap_or(0)
}

/// The interface of the route to 0.0.0.0 with the lowest metric.
fn default_route_interface(proc_root: &Path) -> Option<String> {
    let text = std::fs::read_to_string(proc_root.join("net/route")).ok()?;
    let routes = text.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let default = fields.get(1) == Some(&"00000000") && fields.get(7) == Some(&"00000000");
        let metric = fields.get(6)?.parse::<u32>().ok()?;
        default.then(|| (metric, fields[0].to_owned()))
    });
    routes.min().map(|(_, name)| name)
}
