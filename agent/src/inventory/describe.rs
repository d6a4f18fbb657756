//! The inventory as text for people.

use muster_common::node::{Inventory, Link};
use std::fmt::Write;

const GIB: u64 = 1 << 30;
const ACROSS: &str = "-";

/// What `muster agent --show-inventory` prints: aligned columns, the link matrix as `nvidia-smi topo -m` shows it.
pub fn describe(inventory: &Inventory) -> String {
    let mut text = String::new();
    facts(inventory, &mut text);
    numa(inventory, &mut text);
    devices(inventory, &mut text);
    links(inventory, &mut text);
    nics(inventory, &mut text);
    text
}

fn facts(inventory: &Inventory, text: &mut String) {
    let last_port = u32::from(inventory.port_base) + u32::from(inventory.port_count) - 1;
    let fencing = if inventory.weak_fencing { "weaker: no PID namespace" } else { "PID namespace" };
    let mut rows = vec![
        ("cpus", milli(inventory.cpu_milli)),
        ("memory", gib(inventory.memory_bytes)),
        ("devices", inventory.devices.len().to_string()),
        ("address", inventory.address.clone()),
        ("gang ports", format!("{}-{last_port}", inventory.port_base)),
        ("fencing", fencing.to_owned()),
        ("hardware id", inventory.hardware_id.clone()),
        ("boot id", inventory.boot_id.clone()),
        ("agent", inventory.agent_version.clone()),
    ];
    for (tree, path) in &inventory.place {
        let path: Vec<&str> = path.iter().map(|domain| domain.as_str()).collect();
        rows.push(("place", format!("{tree}: {}", path.join(" / "))));
    }
    for (name, value) in &inventory.labels {
        rows.push(("label", format!("{name} = {}", value.escape_debug())));
    }
    for (name, value) in rows {
        line(text, &format!("{name:<12}  {value}"));
    }
}

fn numa(inventory: &Inventory, text: &mut String) {
    let mut rows = vec![["NUMA", "CPUS", "MEMORY"].map(str::to_owned)];
    rows.extend(inventory.numa.iter().map(|node| [node.id.to_string(), node.cpus.clone(), gib(node.memory_bytes)]));
    table(text, rows);
}

fn devices(inventory: &Inventory, text: &mut String) {
    if inventory.devices.is_empty() {
        return;
    }
    let mut rows =
        vec![["SLOT", "MODEL", "MEMORY", "PCI", "NUMA", "PART OF", "NEAREST NICS", "UUID"].map(str::to_owned)];
    for (slot, device) in inventory.devices.iter().enumerate() {
        rows.push([
            slot.to_string(),
            device.model.to_string(),
            gib(device.memory_bytes),
            or_dash(device.pci_address.clone()),
            number(device.numa),
            number(device.parent),
            or_dash(device.nearest_nics.join(",")),
            device.uuid.clone(),
        ]);
    }
    table(text, rows);
}

fn links(inventory: &Inventory, text: &mut String) {
    if inventory.links.len() < 2 {
        return;
    }
    let header = std::iter::once("LINKS".to_owned()).chain((0..inventory.links.len()).map(|slot| slot.to_string()));
    let mut rows: Vec<Vec<String>> = vec![header.collect()];
    for (slot, row) in inventory.links.iter().enumerate() {
        rows.push(std::iter::once(slot.to_string()).chain(row.iter().copied().map(link)).collect());
    }
    table(text, rows);
}

fn nics(inventory: &Inventory, text: &mut String) {
    if inventory.nics.is_empty() {
        return;
    }
    let mut rows = vec![["NIC", "NETDEV", "PCI", "NUMA", "RATE", "RAIL", "USE"].map(str::to_owned)];
    for nic in &inventory.nics {
        rows.push([
            nic.name.clone(),
            or_dash(nic.netdev.clone().unwrap_or_default()),
            nic.pci_address.clone(),
            number(nic.numa),
            format!("{} Gb/s", nic.rate_gbps),
            number(nic.rail),
            if nic.compute { "compute" } else { "other" }.to_owned(),
        ]);
    }
    table(text, rows);
}

/// One word for a link, as `nvidia-smi topo -m` has it.
fn link(link: Link) -> String {
    match link {
        Link::Same => "X".to_owned(),
        Link::NvLink(links) => format!("NV{links}"),
        Link::Pix => "PIX".to_owned(),
        Link::Pxb => "PXB".to_owned(),
        Link::Phb => "PHB".to_owned(),
        Link::Node => "NODE".to_owned(),
        Link::Sys => "SYS".to_owned(),
    }
}

fn table<R: AsRef<[String]>>(text: &mut String, rows: Vec<R>) {
    let columns = rows.first().map_or(0, |row| row.as_ref().len());
    let width = |column: usize| rows.iter().map(|row| row.as_ref()[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    text.push('\n');
    for row in &rows {
        let cells = row.as_ref().iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        line(text, &cells.collect::<Vec<_>>().join("  "));
    }
}

fn line(text: &mut String, content: &str) {
    writeln!(text, "{}", content.trim_end()).expect("a String takes every write");
}

fn gib(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) / GIB;
    if tenths.is_multiple_of(10) {
        format!("{} GiB", tenths / 10)
    } else {
        format!("{}.{} GiB", tenths / 10, tenths % 10)
    }
}

fn milli(amount: u64) -> String {
    if amount.is_multiple_of(1000) { (amount / 1000).to_string() } else { format!("{}m", amount) }
}

fn number(value: Option<u16>) -> String {
    value.map_or_else(|| ACROSS.to_owned(), |value| value.to_string())
}

fn or_dash(text: String) -> String {
    if text.is_empty() { ACROSS.to_owned() } else { text }
}
