//! The devices of `muster node show`.

use crate::output::Style;
use crate::output::human::{self, NONE};
use crate::output::table::{Align, Table, cell};
use muster_proto::client::{Node, NodeDevice};

use Align::{Left, Right};

const FIRST: &[(&str, Align)] = &[("SLOT", Right), ("MODEL", Left), ("STATE", Left), ("MEMORY", Right)];
/// Only where a device was sampled.
const SAMPLED: &[(&str, Align)] =
    &[("USED", Right), ("BUSY", Right), ("TEMP", Right), ("POWER", Right), ("AGE", Right)];
const LAST: &[(&str, Align)] = &[("NUMA", Right), ("PCI", Left), ("HELD BY / WHY", Left)];

/// The table, with the devices' telemetry if there is any.
pub fn table(node: &Node, style: &Style) -> String {
    let sampled = node.devices.iter().any(|device| device.sampled_at_ms.is_some());
    let middle = if sampled { SAMPLED } else { &[] };
    let mut table = Table::new(&[FIRST, middle, LAST].concat());
    for device in &node.devices {
        let first = [
            device.slot.to_string(),
            cell(&device.model),
            style.state(&cell(&device.state)),
            human::bytes(device.memory_bytes),
        ];
        let middle = if sampled { sample(device, style).to_vec() } else { Vec::new() };
        let last =
            [device.numa.map(|numa| numa.to_string()).unwrap_or_default(), cell(&device.pci_address), holders(device)];
        table.row(first.into_iter().chain(middle).chain(last));
    }
    table.text()
}

fn sample(device: &NodeDevice, style: &Style) -> [String; 5] {
    let shown = |value: Option<String>| value.unwrap_or_else(|| NONE.to_owned());
    [
        shown(device.memory_used_bytes.map(human::bytes)),
        shown(device.busy_percent.map(|busy| format!("{busy}%"))),
        shown(device.temperature_c.map(|celsius| format!("{celsius}C"))),
        shown(device.power_mw.map(|milliwatts| format!("{}W", (milliwatts + 500) / 1000))),
        shown(device.sampled_at_ms.map(|at_ms| human::duration(style.now_ms.saturating_sub(at_ms)))),
    ]
}

fn holders(device: &NodeDevice) -> String {
    let mut words: Vec<String> = device
        .holders
        .iter()
        .map(|holder| match holder.milli {
            0 | 1000 => format!("{}@{}", cell(&holder.gang), holder.attempt),
            milli => format!("{}@{} ({milli}/1000)", cell(&holder.gang), holder.attempt),
        })
        .collect();
    if !device.why.is_empty() {
        words.push(cell(&device.why));
    }
    words.join("  ")
}
