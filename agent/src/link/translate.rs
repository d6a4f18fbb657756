//! The agent's facts in the words of the wire.

use crate::assignment::{DeviceShare, Key};
use crate::core::{Introduction, Occupied};
use crate::store::{Report, ReportBody};
use muster_common::node::Inventory;
use muster_proto::agent as wire;
use wire::report::Body;

/// The protocol this agent speaks.
pub const PROTOCOL_VERSION: u32 = 1;

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

pub fn report(number: u64, report: &Report) -> wire::Report {
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
            Body::DeviceFault(wire::DeviceFault { slot: slot.into(), xid, why, fatal })
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
