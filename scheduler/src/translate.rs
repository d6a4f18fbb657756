//! Between the engine's words and the agent protocol's.

use muster_common::node::Inventory;
use muster_common::resources::Amount;
use muster_common::{AttemptNo, GangId, Name, NodeId, Token};
use muster_engine::command::{Exit, HeldToken, NodeReport, Occupied, Registration, ReportBody};
use muster_engine::desired::{Desired, DesiredPart, Phase, RunPart};
use muster_proto::agent as wire;
use muster_proto::convert::agent::{Invalid, invalid, stop_signal_text};
use muster_proto::datagram::Sample;
use std::sync::Arc;

/// Longer reasons are cut.
const WHY_BYTES_MAX: usize = 512;
/// Devices one report may name.
const DEVICES_MAX: usize = 256;
/// Tokens one agent may hold.
const HELD_MAX: usize = 4096;

/// The registration in a hello, and the boot it was made on.
pub fn registration(hello: wire::Hello) -> Result<(Registration, String), Invalid> {
    if hello.held.len() > HELD_MAX {
        return Err(invalid("held", format!("{} tokens; at most {HELD_MAX}", hello.held.len())));
    }
    let inventory: Inventory = hello.inventory.ok_or_else(|| invalid("inventory", "missing"))?.try_into()?;
    let boot_id = inventory.boot_id.clone();
    let registration = Registration {
        name: Name::new(hello.node_name).map_err(|error| invalid("node_name", error))?,
        inventory: Arc::new(inventory),
        store_id: bounded("store_id", hello.store_id)?,
        instance: bounded("instance", hello.instance)?,
        store_lost: hello.store_lost,
        old_boot_silent: false,
        held: hello.held.into_iter().map(held).collect::<Result<_, _>>()?,
    };
    Ok((registration, boot_id))
}

fn bounded(field: &'static str, text: String) -> Result<String, Invalid> {
    if text.is_empty() || text.len() > Name::LENGTH_MAX {
        return Err(invalid(field, format!("{} bytes long; 1 to {} are allowed", text.len(), Name::LENGTH_MAX)));
    }
    Ok(text)
}

fn gang_of(gang: Option<wire::Gang>) -> Result<GangId, Invalid> {
    gang.map(GangId::from).ok_or_else(|| invalid("gang", "missing"))
}

fn token_of(token: Option<wire::Token>) -> Result<Token, Invalid> {
    token.map(Token::from).ok_or_else(|| invalid("token", "missing"))
}

fn held(held: wire::Held) -> Result<HeldToken, Invalid> {
    let live = held.live.map(occupied).transpose()?;
    Ok(HeldToken { gang: gang_of(held.gang)?, attempt: AttemptNo(held.attempt), token: token_of(held.token)?, live })
}

fn occupied(live: wire::Occupied) -> Result<Occupied, Invalid> {
    if live.devices.len() > DEVICES_MAX {
        return Err(invalid("held.devices", format!("{} devices; at most {DEVICES_MAX}", live.devices.len())));
    }
    let share = |share: wire::DeviceShare| match u16::try_from(share.milli) {
        Ok(milli @ 1..=1000) => Ok((slot_of(share.slot)?, milli)),
        _ => Err(invalid("held.milli", "a share is 1 to 1000")),
    };
    Ok(Occupied {
        devices: live.devices.into_iter().map(share).collect::<Result<_, _>>()?,
        amount: Amount { cpu_milli: live.cpu_milli, memory_bytes: live.memory_bytes },
        grace_ms: live.grace_ms,
    })
}

/// One report, stamped with the node its session belongs to.
pub fn report(node: NodeId, epoch: u64, report: wire::Report) -> Result<NodeReport, Invalid> {
    use wire::report::Body;
    let body = match report.body.ok_or_else(|| invalid("report", "empty"))? {
        Body::Prepared(_) => ReportBody::Prepared,
        Body::Failed(failed) => ReportBody::PrepareFailed { infra: failed.infra, why: cut(failed.why) },
        Body::Exited(exited) => ReportBody::Exited { rank: exited.rank, exit: exit(&exited), why: cut(exited.why) },
        Body::Released(released) => ReportBody::Released { lease_expired: released.lease_expired },
        Body::Quarantined(quarantined) if quarantined.slots.len() > DEVICES_MAX => {
            return Err(invalid("slots", format!("{} slots; at most {DEVICES_MAX}", quarantined.slots.len())));
        }
        Body::Quarantined(quarantined) => ReportBody::Quarantined {
            slots: quarantined.slots.iter().map(|slot| slot_of(*slot)).collect::<Result<_, _>>()?,
            why: cut(quarantined.why),
        },
        Body::DeviceFault(fault) => ReportBody::DeviceFault {
            slot: slot_of(fault.slot)?,
            xid: fault.xid,
            why: cut(fault.why),
            fatal: fault.fatal,
        },
        Body::Checkpointed(_) => ReportBody::Checkpointed,
        Body::Started(_) | Body::StoreLost(_) => ReportBody::Informational,
    };
    let gang = report.gang.map(GangId::from).unwrap_or_default();
    let token = report.token.map(Token::from).unwrap_or_default();
    Ok(NodeReport { node, epoch, number: report.number, gang, attempt: AttemptNo(report.attempt), token, body })
}

/// UUID of the device that a report is about; empty where it does not say.
pub fn device_of(report: &wire::Report) -> String {
    match &report.body {
        Some(wire::report::Body::DeviceFault(fault)) => fault.uuid.clone(),
        _ => String::new(),
    }
}

/// A report in State's slots. Of a device that State does not have there is nothing to say. `device` is what
/// [`device_of`] found in it.
pub fn in_states_slots(body: ReportBody, device: &str, registered: &Inventory, known: &Inventory) -> ReportBody {
    match body {
        ReportBody::DeviceFault { slot, xid, why, fatal } => {
            let slot = if device.is_empty() { states_slot(slot, registered, known) } else { slot_with(device, known) };
            slot.map_or(ReportBody::Informational, |slot| ReportBody::DeviceFault { slot, xid, why, fatal })
        }
        other => other,
    }
}

/// Devices that the agent registered and State does not have.
pub fn unregistered(registered: &Inventory, known: &Inventory) -> Vec<String> {
    let uuids = registered.devices.iter().map(|device| &device.uuid);
    uuids.filter(|uuid| slot_with(uuid, known).is_none()).cloned().collect()
}

/// Samples in State's slots, without those of devices that State does not have.
pub fn samples_in_states_slots(samples: &[Sample], registered: &Inventory, known: &Inventory) -> Vec<Sample> {
    let moved = |sample: &Sample| Some(Sample { slot: states_slot(sample.slot, registered, known)?, ..*sample });
    samples.iter().filter_map(moved).collect()
}

/// Where State has the device that the agent registered in `slot`: while work is on a node it keeps the slots of an
/// earlier registration, and the agent counts as it found its devices when it started.
fn states_slot(slot: u16, registered: &Inventory, known: &Inventory) -> Option<u16> {
    let wanted = &registered.devices.get(usize::from(slot))?.uuid;
    if known.devices.get(usize::from(slot)).is_some_and(|same| same.uuid == *wanted) {
        return Some(slot);
    }
    slot_with(wanted, known)
}

fn slot_with(uuid: &str, known: &Inventory) -> Option<u16> {
    (0u16..).zip(&known.devices).find(|(_, device)| device.uuid == uuid).map(|(at, _)| at)
}

fn exit(exited: &wire::Exited) -> Exit {
    match (exited.signal, exited.code) {
        (0, code) if code >= 0 => Exit::Code(code),
        (0, _) => Exit::Unknown,
        (signal, _) => Exit::Signal(signal),
    }
}

fn slot_of(slot: u32) -> Result<u16, Invalid> {
    u16::try_from(slot).map_err(|_| invalid("slot", format!("{slot} is no slot")))
}

fn cut(mut why: String) -> String {
    if why.len() > WHY_BYTES_MAX {
        let end = (0..=WHY_BYTES_MAX).rev().find(|at| why.is_char_boundary(*at)).unwrap_or(0);
        why.truncate(end);
    }
    why
}

pub fn desired(cluster_id: &str, desired: &Desired) -> wire::Desired {
    let position =
        wire::Position { generation: desired.generation, term: desired.term, applied_index: desired.applied_index };
    wire::Desired {
        cluster_id: cluster_id.into(),
        position: Some(position),
        epoch: desired.epoch,
        allocations: desired.parts.iter().map(allocation).collect(),
    }
}

fn allocation(part: &DesiredPart) -> wire::Allocation {
    let phase = match part.phase {
        Phase::Prepare => wire::Phase::Prepare,
        Phase::Run => wire::Phase::Run,
        Phase::Stop => wire::Phase::Stop,
    };
    let known = wire::Allocation {
        gang: Some(part.gang.into()),
        attempt: part.attempt.0,
        token: Some(part.token.into()),
        phase: phase.into(),
        stop_signal: stop_signal_text(part.stop.signal).into(),
        stop_grace_ms: part.stop.grace_ms,
        stop_cause: part.stop.cause.into(),
        ..Default::default()
    };
    match &part.run {
        Some(run) => with_run(known, run),
        None => known,
    }
}

fn with_run(known: wire::Allocation, run: &RunPart) -> wire::Allocation {
    let share = |(slot, uuid, milli): &(u16, String, u16)| wire::DeviceShare {
        slot: u32::from(*slot),
        uuid: uuid.clone(),
        milli: u32::from(*milli),
    };
    let peer = |peer: &muster_engine::desired::PeerPart| wire::Peer {
        node_name: peer.node_name.clone(),
        address: peer.address.clone(),
        devices: peer.devices,
        ranks: peer.ranks,
        group: u32::from(peer.group),
    };
    wire::Allocation {
        devices: run.devices.iter().map(share).collect(),
        numa: run.numa.iter().map(|node| u32::from(*node)).collect(),
        nics: run.nics.clone(),
        cpu_milli: run.amount.cpu_milli,
        memory_bytes: run.amount.memory_bytes,
        rank_base: run.rank_base,
        ranks: run.ranks,
        world_size: run.world_size,
        node_rank: run.node_rank,
        peers: run.peers.iter().map(peer).collect(),
        master_port: u32::from(run.master_port),
        launch_hash: run.launch.0.to_vec().into(),
        lease_ms: run.lease_ms,
        array_index: run.array_index.unwrap_or(0),
        in_array: run.array_index.is_some(),
        user: run.user.to_string(),
        ..known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::tests::fixture;

    fn with(uuids: &[&str]) -> Inventory {
        let mut inventory = fixture::inventory(uuids.len(), "leaf-a");
        for (device, uuid) in inventory.devices.iter_mut().zip(uuids) {
            device.uuid = (*uuid).to_owned();
        }
        inventory
    }

    #[test]
    fn faults_and_samples_are_of_the_device_that_the_agent_meant_although_slots_have_moved() {
        let (registered, known) = (with(&["GPU-0", "MIG-a", "GPU-1"]), with(&["GPU-0", "GPU-1"]));
        let fault = |slot| ReportBody::DeviceFault { slot, xid: 79, why: "lost".to_owned(), fatal: true };
        let moved = |slot| in_states_slots(fault(slot), "", &registered, &known);
        assert_eq!(moved(0), fault(0));
        assert_eq!(moved(2), fault(1), "the fault of another GPU");
        assert_eq!((moved(1), moved(3)), (ReportBody::Informational, ReportBody::Informational));
        let told = ReportBody::Quarantined { slots: vec![2], why: "as State counts".to_owned() };
        assert_eq!(in_states_slots(told.clone(), "", &registered, &known), told);
        let sample =
            |slot| Sample { slot, busy_percent: Some(7), memory_used_bytes: None, temperature_c: None, power_mw: None };
        let samples = [sample(0), sample(1), sample(2), sample(9)];
        assert_eq!(samples_in_states_slots(&samples, &registered, &known), [sample(0), sample(1)]);
    }

    #[test]
    fn a_fault_that_names_its_device_is_of_that_one_also_when_the_agent_has_it_no_more() {
        let (registered, known) = (with(&["GPU-1", "GPU-2"]), with(&["GPU-0", "GPU-1", "GPU-2"]));
        let fault = |slot| ReportBody::DeviceFault { slot, xid: 79, why: "lost".to_owned(), fatal: true };
        let moved = |slot, device| in_states_slots(fault(slot), device, &registered, &known);
        assert_eq!(moved(0, "GPU-1"), fault(1));
        assert_eq!(moved(65_535, "GPU-0"), fault(0), "it is lost, and State keeps it while work is on the node");
        assert_eq!(moved(65_535, ""), ReportBody::Informational);
        assert_eq!(moved(0, "GPU-9"), ReportBody::Informational, "the slot is another device's");
        let report = |slot, uuid: &str| {
            let fault = wire::DeviceFault { slot, xid: 79, uuid: uuid.to_owned(), ..Default::default() };
            wire::Report { body: Some(wire::report::Body::DeviceFault(fault)), ..Default::default() }
        };
        assert_eq!(device_of(&report(0, "GPU-1")), "GPU-1");
    }

    #[test]
    fn an_agent_is_told_which_of_its_devices_state_does_not_have() {
        let (registered, known) = (with(&["GPU-0", "MIG-a", "GPU-1"]), with(&["GPU-0", "GPU-1", "GPU-2"]));
        assert_eq!(unregistered(&registered, &known), ["MIG-a"]);
        assert_eq!(unregistered(&registered, &registered), [""; 0]);
    }
}
