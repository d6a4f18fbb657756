//! CPUs, NUMA nodes and memory, from sysfs and procfs.

use super::{InventoryError, cpulist};
use muster_common::node::NumaNode;
use std::path::Path;

/// What a node offers besides devices and NICs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    pub cpu_milli: u64,
    pub memory_bytes: u64,
    /// Only nodes that own CPUs: Grace machines show their GPUs' memory as NUMA nodes too.
    pub numa: Vec<NumaNode>,
}

impl Host {
    pub fn read(sysfs_root: &Path, proc_root: &Path) -> Result<Self, InventoryError> {
        let online = sysfs_root.join("devices/system/cpu/online");
        let cpus = parse_cpus(&online, &read(&online)?)?;
        let meminfo = proc_root.join("meminfo");
        let memory_bytes = mem_total_bytes(&read(&meminfo)?)
            .ok_or_else(|| InventoryError::unreadable(&meminfo, "it has no line `MemTotal: ... kB`"))?;
        let mut numa = numa_nodes(&sysfs_root.join("devices/system/node"))?;
        if numa.is_empty() {
            // Kernels without NUMA have no such folder: one node with everything.
            numa.push(NumaNode { id: 0, cpus: cpulist::format(&cpus), memory_bytes });
        }
        Ok(Self { cpu_milli: cpus.len() as u64 * 1000, memory_bytes, numa })
    }
}

fn numa_nodes(folder: &Path) -> Result<Vec<NumaNode>, InventoryError> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Ok(Vec::new());
    };
    let mut nodes = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.strip_prefix("node")).and_then(|id| id.parse::<u16>().ok());
        let Some(id) = id else { continue };
        let list = entry.path().join("cpulist");
        let cpus = parse_cpus(&list, &read(&list)?)?;
        if cpus.is_empty() {
            continue;
        }
        let memory_bytes =
            read(&entry.path().join("meminfo")).ok().and_then(|text| mem_total_bytes(&text)).unwrap_or(0);
        nodes.push(NumaNode { id, cpus: cpulist::format(&cpus), memory_bytes });
    }
    nodes.sort_by_key(|node| node.id);
    Ok(nodes)
}

/// The total of either form: `MemTotal: 16 kB`, or `Node 0 MemTotal: 16 kB`.
fn mem_total_bytes(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.contains("MemTotal:"))?;
    let (_, value) = line.split_once("MemTotal:")?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn parse_cpus(path: &Path, text: &str) -> Result<Vec<u32>, InventoryError> {
    cpulist::parse(text).map_err(|cause| InventoryError::unreadable(path, cause))
}

fn read(path: &Path) -> Result<String, InventoryError> {
    std::fs::read_to_string(path).map_err(|error| InventoryError::unreadable(path, error))
}
