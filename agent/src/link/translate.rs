//! The agent's facts in the words of the wire.

use crate::assignment::{DeviceShare, Key};
use crate::core::{Introduction, Occupied};
use crate::store::{Report, ReportBody};
use muster_common::node::{Device, Inventory};
use muster_proto::agent as wire;
use wire::report::Body;

/// The protocol this agent speaks.
pub const PROTOCOL_VERSION: u32 = 1;
/// No device is in it.
const NO_SLOT: u16 = u16::MAX;

pub fn hello(introduction: Introduction, inventory: &Inventory, node: &str, instance: &str) -> wire::Hello {
    wire::Hello {
        protocol_version: PROTOCOL_VERSION,
        node_name: node.to_owned(),
        inventory: Some(inventory.into()),
        seen: Some(introduction.seen.into()),
        held: introduction.held.into_iter().map(|(key, state, live)| held(key, state, live)).collect(),
        store_lost: introduction.store_lost,
        first_report: introduction.first_report,
        store_id: introduction.store_id,
        instance: instance.to_owned(),
        datagram_version: 0,
        unreachable_leader: String::new(),
    }
}

fn held(key: Key, state: &str, live: Option<Occupied>) -> wire::Held {
    let (gang, token) = (Some(key.gang.into()), Some(key.token.into()));
    wire::Held { gang, attempt: key.attempt.0, token, state: state.to_owned(), live: live.map(occupied) }
}

fn occupied(live: Occupied) -> wire::Occupied {
    let share = |share: DeviceShare| wire::DeviceShare {
        slot: u32::from(share.slot),
        uuid: share.uuid,
        milli: u32::from(share.milli),
    };
    let devices = live.devices.into_iter().map(share).collect();
    wire::Occupied { devices, cpu_milli: live.cpu_milli, memory_bytes: live.memory_bytes, grace_ms: live.grace_ms }
}

/// `devices` are those that this agent registers with: it may have others than the one that noted the report.
pub fn report(number: u64, report: &Report, devices: &[Device]) -> wire::Report {
    let body = match report.body.clone() {
        ReportBody::Prepared => Body::Prepared(wire::Prepared {}),
        ReportBody::Failed { infra, why } => Body::Failed(wire::Failed { infra, why }),
        ReportBody::Started => Body::Started(wire::Started {}),
        ReportBody::Checkpointed => Body::Checkpointed(wire::Checkpointed {}),
        ReportBody::Exited(exit) => Body::Exited(wire::Exited {
            rank: exit.rank,
            code: exit.code,
            signal: exit.signal,
            why: exit.why,
            wall_ms: exit.wall_ms,
        }),
        ReportBody::Released { lease_expired } => Body::Released(wire::Released { lease_expired }),
        ReportBody::Quarantined { slots, why } => {
            Body::Quarantined(wire::Quarantined { slots: slots.into_iter().map(u32::from).collect(), why })
        }
        ReportBody::DeviceFault { slot, xid, why, fatal } => {
            let slot = report.device.as_deref().map_or(slot, |uuid| slot_of(uuid, devices)).into();
            let uuid = report.device.clone().unwrap_or_default();
            Body::DeviceFault(wire::DeviceFault { slot, xid, why, fatal, uuid })
        }
    };
    wire::Report {
        number,
        gang: report.key.map(|key| key.gang.into()),
        attempt: report.key.map_or(0, |key| key.attempt.0),
        token: report.key.map(|key| key.token.into()),
        body: Some(body),
    }
}

/// Servers that know no UUIDs in faults take such a slot for that of a device they do not have.
fn slot_of(uuid: &str, devices: &[Device]) -> u16 {
    (0u16..).zip(devices).find(|(_, device)| device.uuid == uuid).map_or(NO_SLOT, |(slot, _)| slot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::Name;

    fn device(uuid: &str) -> Device {
        Device {
            uuid: uuid.to_owned(),
            model: Name::literal("H100"),
            product: String::new(),
            memory_bytes: 80 << 30,
            pci_address: String::new(),
            numa: None,
            parent: None,
            nearest_nics: Vec::new(),
        }
    }

    #[test]
    fn a_fault_is_sent_with_the_slot_that_its_device_has_now() {
        let devices = ["GPU-1", "GPU-2"].map(device);
        let sent = |uuid: Option<&str>| {
            let body = ReportBody::DeviceFault { slot: 1, xid: 79, why: "lost".to_owned(), fatal: true };
            let noted = Report { key: None, body, device: uuid.map(str::to_owned) };
            match report(7, &noted, &devices).body {
                Some(Body::DeviceFault(fault)) => (fault.slot, fault.uuid),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(sent(Some("GPU-1")), (0, "GPU-1".to_owned()));
        assert_eq!(sent(Some("GPU-2")), (1, "GPU-2".to_owned()));
        assert_eq!(sent(Some("GPU-9")), (65_535, "GPU-9".to_owned()), "a device that is gone");
        assert_eq!(sent(None), (1, String::new()), "what an earlier agent noted");
    }
}
