//! Machines for the unit tests of this folder.

use super::ledger::{Facts, NodeView, ROOT};
use muster_common::job::{GroupRequest, Scheduling};
use muster_common::node::{Device, Inventory, Link};
use muster_common::{Name, NodeId};
use std::collections::BTreeMap;
use std::sync::Arc;

pub fn inventory_with_links(links: Vec<Vec<Link>>) -> Inventory {
    let device = |slot: usize| Device {
        uuid: format!("GPU-{slot}"),
        model: Name::literal("H100"),
        product: String::new(),
        memory_bytes: 0,
        pci_address: String::new(),
        numa: None,
        parent: None,
        nearest_nics: Vec::new(),
    };
    Inventory {
        cpu_milli: 64_000,
        memory_bytes: 1 << 40,
        numa: Vec::new(),
        devices: (0..links.len()).map(device).collect(),
        links,
        nics: Vec::new(),
        labels: BTreeMap::new(),
        place: BTreeMap::new(),
        hardware_id: "hw".into(),
        boot_id: "boot".into(),
        agent_version: "0".into(),
        address: "127.0.0.1".into(),
        port_base: 20_000,
        port_count: 1000,
        weak_fencing: false,
    }
}

pub fn view_of(inventory: Inventory) -> NodeView {
    let devices = inventory.devices.len();
    let facts = Facts {
        id: NodeId(1),
        name: Name::literal("n1"),
        epoch: 1,
        class: 0,
        domains: vec![ROOT],
        usable: vec![true; devices],
        even_links: false,
        varied: false,
        islands: super::islands::of(&inventory),
        inventory: Arc::new(inventory),
    };
    NodeView {
        open: true,
        free: vec![1000; devices],
        amount: facts.inventory.amount(),
        ports: 1000,
        sizes: 0,
        whole: devices as u32,
        facts: Arc::new(facts),
    }
}

pub fn scheduling(group: GroupRequest) -> Scheduling {
    Scheduling {
        queue: Name::literal("main"),
        account: Name::literal("me"),
        class: Name::literal("normal"),
        groups: vec![group],
        together: Vec::new(),
        array: None,
        limits: Default::default(),
        retry: Default::default(),
        checkpoint: Default::default(),
        preemptible: true,
        fence_after_ms: None,
        begin_at_ms: None,
        deadline_at_ms: None,
        after: Default::default(),
    }
}
