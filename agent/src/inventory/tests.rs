//! Inventories of made-up machines: a tree of folders that looks like `/sys` and `/proc`.

use super::*;
use crate::device::fixture::{self, Fixture};
use crate::device::{DeviceEvent, Load, SimulatedProbe};
use muster_common::node::Link;
use muster_proto::datagram::Sample;
use std::fs;
use std::os::unix::fs::symlink;
use tempfile::TempDir;

/// A `/sys` and a `/proc` that grow by the test's orders.
struct Tree {
    folder: TempDir,
}

impl Tree {
    /// Two NUMA nodes with CPUs, one with memory only.
    fn new() -> Self {
        let tree = Self { folder: tempfile::tempdir().unwrap() };
        tree.file("sys/devices/system/cpu/online", "0-7\n");
        for (node, cpus, kib) in [(0, "0-3", 4096), (1, "4-7", 8192), (2, "", 16384)] {
            tree.file(&format!("sys/devices/system/node/node{node}/cpulist"), &format!("{cpus}\n"));
            let meminfo = format!("Node {node} MemTotal:       {kib} kB\nNode {node} MemFree: 1 kB\n");
            tree.file(&format!("sys/devices/system/node/node{node}/meminfo"), &meminfo);
        }
        tree.file("sys/devices/system/node/online", "0-2\n");
        tree.file("proc/meminfo", "MemTotal:       28672 kB\nMemFree:   1 kB\n");
        tree.file("proc/sys/kernel/random/boot_id", "6a1f6f5e-0000-4000-8000-000000000001\n");
        tree.file("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
        tree
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(self.folder.path().join(target), path).unwrap();
    }

    /// A PCI function at `place` below `sys/devices`, linked from the bus.
    fn pci(&self, place: &str, numa: i32) {
        let address = place.rsplit('/').next().unwrap();
        self.file(&format!("sys/devices/{place}/numa_node"), &format!("{numa}\n"));
        self.link(&format!("sys/bus/pci/devices/{address}"), &format!("sys/devices/{place}"));
    }

    fn rdma(&self, name: &str, place: &str, numa: i32, rate: &str) {
        self.pci(place, numa);
        self.link(&format!("sys/class/infiniband/{name}/device"), &format!("sys/devices/{place}"));
        self.file(&format!("sys/class/infiniband/{name}/ports/1/rate"), rate);
    }

    fn card(&self, name: &str, place: &str, numa: i32, mbps: &str) {
        self.pci(place, numa);
        self.link(&format!("sys/class/net/{name}/device"), &format!("sys/devices/{place}"));
        self.file(&format!("sys/class/net/{name}/speed"), mbps);
    }

    fn default_route(&self, interface: &str) {
        let header = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        let route = format!("{interface}\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n");
        self.file("proc/net/route", &format!("{header}{route}"));
    }

    fn config(&self) -> InventoryConfig {
        InventoryConfig {
            address: Some("10.0.0.7".to_owned()),
            pid_namespace: true,
            sysfs_root: self.folder.path().join("sys"),
            proc_root: self.folder.path().join("proc"),
            machine_id_path: self.folder.path().join("etc/machine-id"),
            ..InventoryConfig::new(Name::literal("node-1"))
        }
    }
}

/// The devices of a fixture, but on a real machine: no numa, no NICs, no machine of its own.
#[derive(Debug)]
struct Bare(SimulatedProbe);

impl Probe for Bare {
    fn devices(&mut self) -> Result<DeviceReport, ProbeError> {
        let mut report = self.0.devices()?;
        for device in &mut report.devices {
            device.numa = None;
            device.nearest_nics.clear();
        }
        Ok(report)
    }
    fn events(&mut self, _: u64) -> Vec<DeviceEvent> {
        Vec::new()
    }
    fn processes(&self, slot: u16) -> Result<Vec<u32>, ProbeError> {
        self.0.processes(slot)
    }
    fn samples(&mut self, load: &Load, now_ms: u64) -> Result<Vec<Sample>, ProbeError> {
        self.0.samples(load, now_ms)
    }
    fn describe(&self) -> String {
        "bare".to_owned()
    }
}

fn none(tree: &Tree) -> Inventory {
    collect(&DeviceSource::None, &tree.config()).unwrap()
}

#[test]
fn a_cpu_only_node_reports_cpus_memory_and_numa() {
    let tree = Tree::new();
    let inventory = none(&tree);
    assert_eq!(inventory.cpu_milli, 8_000);
    assert_eq!(inventory.memory_bytes, 28_672 * 1024);
    let numa: Vec<_> = inventory.numa.iter().map(|node| (node.id, node.cpus.as_str(), node.memory_bytes)).collect();
    assert_eq!(numa, [(0, "0-3", 4096 * 1024), (1, "4-7", 8192 * 1024)], "the memory-only node is left out");
    assert_eq!(inventory.boot_id, "6a1f6f5e-0000-4000-8000-000000000001");
    assert_eq!(inventory.address, "10.0.0.7");
    assert!(inventory.devices.is_empty() && !inventory.weak_fencing);
}

#[test]
fn storage_ports_and_the_default_route_are_not_for_compute() {
    let tree = Tree::new();
    tree.rdma("mlx5_10", "pci0000:15/0000:15:01.0/0000:18:00.0", 0, "400 Gb/sec (4X NDR)\n");
    tree.rdma("mlx5_2", "pci0000:25/0000:25:01.0/0000:29:00.0", 1, "400 Gb/sec (4X NDR)\n");
    tree.card("eth0", "pci0000:35/0000:35:01.0/0000:36:00.0", 0, "25000\n");
    tree.card("eth1", "pci0000:45/0000:45:01.0/0000:46:00.0", -1, "-1\n");
    tree.default_route("eth0");
    let guest = "pci0000:15/0000:15:01.0/0000:18:00.1";
    tree.rdma("mlx5_11", guest, 0, "400 Gb/sec (4X NDR)\n");
    tree.file(&format!("sys/devices/{guest}/physfn/numa_node"), "0\n");
    let inventory = none(&tree);
    let nics: Vec<_> =
        inventory.nics.iter().map(|nic| (nic.name.as_str(), nic.rate_gbps, nic.numa, nic.compute)).collect();
    assert_eq!(
        nics,
        [
            ("mlx5_2", 400, Some(1), true),
            ("mlx5_10", 400, Some(0), true),
            ("eth0", 25, Some(0), false),
            ("eth1", 0, None, false)
        ]
    );
}

#[test]
fn a_node_with_one_plain_card_computes_over_it() {
    let tree = Tree::new();
    tree.card("eth0", "pci0000:35/0000:35:01.0/0000:36:00.0", 0, "25000\n");
    tree.link("sys/class/net/lo", "sys/devices/virtual/net/lo");
    tree.default_route("eth0");
    let inventory = none(&tree);
    assert_eq!(inventory.nics.len(), 1);
    assert!(inventory.nics[0].compute);
}

/// Lays a fixture's machine out as a device tree: a switch's ports under one another, so that one
/// shared switch is PIX, switches of one root port PXB, and roots without a switch PHB.
fn lay_out(tree: &Tree, machine: &Fixture, nic_roots: &[&str]) {
    let mut roots: Vec<&str> = machine.gpus.iter().map(|gpu| gpu.pcie_root.as_str()).collect();
    roots.dedup();
    let root_of = |name: &str| 0x10 + roots.iter().position(|root| *root == name).unwrap();
    let switch_number = |name: &str| 0x40 + name.bytes().fold(0u32, |sum, byte| (sum * 31 + u32::from(byte)) % 0x3f);
    let place = |root: &str, switch: &Option<String>, address: &str| {
        let root = root_of(root);
        let port = u8::from_str_radix(&address[5..7], 16).unwrap() % 32;
        match switch {
            Some(switch) => {
                let switch = switch_number(switch);
                format!(
                    "pci0000:{root:02x}/0000:{root:02x}:01.0/0000:{switch:02x}:00.0/0000:{switch:02x}:{port:02x}.1/{address}"
                )
            }
            None => format!("pci0000:{root:02x}/0000:{root:02x}:{port:02x}.2/{address}"),
        }
    };
    for gpu in &machine.gpus {
        tree.pci(&place(&gpu.pcie_root, &gpu.pcie_switch, &gpu.pci_bus_id), i32::from(gpu.numa_node));
    }
    for (nic, root) in machine.nics.iter().zip(nic_roots) {
        let place = place(root, &nic.pcie_switch, &nic.pci_bus_id);
        tree.rdma(&nic.name, &place, i32::from(nic.numa_node), &format!("{} Gb/sec", nic.rate_gbps));
    }
}

#[test]
fn distances_in_a_laid_out_pcie_box_equal_its_matrices() {
    let machine = Fixture::load("pcie-8x", None).unwrap();
    let tree = Tree::new();
    lay_out(&tree, &machine, &["rc0", "rc2"]);
    let config = tree.config();
    let mut probe = Bare(SimulatedProbe::new("pcie-8x", None, "node-1").unwrap());
    let report = probe.devices().unwrap();
    let inventory = inventory_of(&probe, &report, &config).unwrap();
    let ports = nics::read(&config.sysfs_root, &config.proc_root);
    for (at, gpu) in machine.gpus.iter().enumerate() {
        let device = &inventory.devices[at];
        assert_eq!(device.pci_address, gpu.pci_bus_id);
        assert_eq!(device.numa, Some(gpu.numa_node));
        assert_eq!(device.nearest_nics, gpu.nearest_nics, "GPU {at}");
        let expected: Vec<Link> =
            machine.matrix_gpu_nic[at].iter().map(|cell| fixture::parse_link(cell).unwrap()).collect();
        assert_eq!(nics::distances(&config.sysfs_root, device, &ports), expected, "GPU {at}");
        for (other, level) in machine.matrix_pci_level[at].iter().enumerate().filter(|(other, _)| *other != at) {
            let one = pci::PciPlace::read(&config.sysfs_root, &gpu.pci_bus_id).unwrap();
            let two = pci::PciPlace::read(&config.sysfs_root, &machine.gpus[other].pci_bus_id).unwrap();
            let link = [(10, Link::Pix), (20, Link::Pxb), (30, Link::Phb), (40, Link::Node), (50, Link::Sys)];
            let expected = link.iter().find(|(number, _)| number == level).unwrap().1;
            assert_eq!(one.distance(&two), expected, "GPU {at} and {other}");
        }
    }
}

#[test]
fn without_a_device_tree_numa_comes_from_the_cpus_near_a_device() {
    let tree = Tree::new();
    tree.file("sys/devices/system/cpu/online", "0-127\n");
    tree.file("sys/devices/system/node/node0/cpulist", "0-31,64-95\n");
    tree.file("sys/devices/system/node/node1/cpulist", "32-63,96-127\n");
    let mut probe = Bare(SimulatedProbe::new("pcie-8x", None, "node-1").unwrap());
    let report = probe.devices().unwrap();
    let inventory = inventory_of(&probe, &report, &tree.config()).unwrap();
    let numa: Vec<_> = inventory.devices.iter().map(|device| device.numa.unwrap()).collect();
    assert_eq!(numa, [0, 0, 0, 0, 1, 1, 1, 1]);
}

#[test]
fn the_hardware_id_survives_a_reboot_and_tells_machines_apart() {
    let tree = Tree::new();
    let first = none(&tree);
    tree.file("proc/sys/kernel/random/boot_id", "ffffffff-0000-4000-8000-000000000002\n");
    let rebooted = none(&tree);
    assert_eq!(first.hardware_id, rebooted.hardware_id);
    assert_ne!(first.boot_id, rebooted.boot_id);
    tree.file("etc/machine-id", "ffffffffffffffffffffffffffffffff\n");
    assert_ne!(first.hardware_id, none(&tree).hardware_id);
    tree.file("sys/class/dmi/id/product_uuid", "4c4c4544-0000-1000-8000-000000000000\n");
    let board = none(&tree).hardware_id;
    tree.file("etc/machine-id", "a new installation\n");
    assert_eq!(board, none(&tree).hardware_id, "the board's UUID counts, where it can be read");
}

#[test]
fn four_simulated_nodes_on_one_machine_are_four_machines() {
    let tree = Tree::new();
    let source: DeviceSource = "simulated:dgx-h100".parse().unwrap();
    let ids: BTreeSet<String> = ["a", "b", "c", "d"]
        .map(|node| InventoryConfig { node: Name::literal(node), address: None, ..tree.config() })
        .iter()
        .map(|config| {
            let inventory = collect(&source, config).unwrap();
            assert_eq!(inventory.address, "127.0.0.1");
            assert_eq!((inventory.cpu_milli, inventory.memory_bytes), (224_000, 2048 << 30));
            assert_eq!(inventory.nics.iter().filter(|nic| nic.compute).count(), 8);
            inventory.hardware_id
        })
        .collect();
    assert_eq!(ids.len(), 4);
}

#[test]
fn the_operators_labels_win_over_found_ones() {
    let tree = Tree::new();
    let mut config = tree.config();
    let source: DeviceSource = "simulated:gb200-nvl72/3".parse().unwrap();
    let found = collect(&source, &config).unwrap().labels;
    assert_eq!(found[&Name::literal("nvlink-domain")], "7a1c0e52-9d3b-4f60-8e21-5b6f0c9d7a11.32766");
    assert_eq!(found[&Name::literal("simulated")], "gb200-nvl72/3");
    config.labels.insert(Name::literal("nvlink-domain"), "mine".to_owned());
    assert_eq!(collect(&source, &config).unwrap().labels[&Name::literal("nvlink-domain")], "mine");
}

#[test]
fn unusable_settings_are_refused_with_what_to_do() {
    let tree = Tree::new();
    let with = |change: &dyn Fn(&mut InventoryConfig)| {
        let mut config = tree.config();
        change(&mut config);
        collect(&DeviceSource::None, &config).unwrap_err().to_string()
    };
    let cases = [
        (with(&|config| config.port_base = 80), "no range for gangs"),
        (with(&|config| config.port_count = 0), "no range for gangs"),
        (with(&|config| config.port_base = 65_000), "no range for gangs"),
        (with(&|config| config.address = Some("10.0.0.1:80".to_owned())), "without a port"),
        (with(&|config| config.address = Some("0.0.0.0".to_owned())), "without a port"),
        (with(&|config| config.address = Some("a\u{1b}[2J".to_owned())), "\\u{1b}"),
        (with(&|config| config.proc_root = PathBuf::from("/nonexistent")), "boot_id"),
        (with(&|config| config.machine_id_path = PathBuf::from("/nonexistent")), "systemd-machine-id-setup"),
    ];
    for (error, part) in cases {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn the_shown_inventory_is_aligned() {
    let tree = Tree::new();
    let source: DeviceSource = "simulated:hgx-b200-degraded".parse().unwrap();
    let mut config = tree.config();
    config.place.insert(Name::literal("network"), vec![Name::literal("pod-1"), Name::literal("leaf-2")]);
    let text = describe(&collect(&source, &config).unwrap());
    for part in [
        "cpus          224\n",
        "place         network: pod-1 / leaf-2\n",
        "2      NODE  NODE  X     NODE  SYS   SYS   SYS   SYS\n",
        "gang ports    20000-20999\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert!(text.lines().all(|line| line == line.trim_end()));
}

#[test]
fn a_node_offers_the_cpus_it_is_told_to_and_never_more_than_it_has() {
    let tree = Tree::new();
    let offered = |cpus| {
        let config = InventoryConfig { cpus, ..tree.config() };
        collect(&DeviceSource::None, &config).unwrap().cpu_milli
    };
    assert_eq!([offered(None), offered(Some(3)), offered(Some(99))], [8_000, 3_000, 8_000]);
}
