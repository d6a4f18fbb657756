//! Nodes and their devices.

use super::words::{at_ms, gang_name, plain};
use muster_common::{GangId, Time};
use muster_engine::State;
use muster_engine::plan::runtime::run_ms;
use muster_engine::state::gang::GangState;
use muster_engine::state::node::{DeviceState, Holder, Liveness, NodeRecord, Power};
use muster_proto::client as pb;
use muster_proto::convert::agent::link_text;
use std::collections::BTreeMap;

/// Gangs named on one line.
const GANGS_SHOWN_MAX: usize = 64;

/// Power first, then liveness; an operator's word only of a node that is up.
pub fn word(node: &NodeRecord) -> &'static str {
    match (&node.liveness, &node.closed) {
        _ if !node.power.is_awake() => match node.power {
            Power::FallingAsleep { .. } => "FALLING_ASLEEP",
            Power::Waking { .. } => "WAKING",
            _ => "ASLEEP",
        },
        (Liveness::Silent { .. }, _) => "SILENT",
        (Liveness::Fenced { .. }, _) => "FENCED",
        (Liveness::Up, None) => "UP",
        (Liveness::Up, Some(closed)) if closed.drain.is_none() => "CORDONED",
        (Liveness::Up, Some(_)) if node.gangs.is_empty() && node.orphans.is_empty() => "DRAINED",
        (Liveness::Up, Some(_)) => "DRAINING",
    }
}

/// One line of a list.
pub fn summary(state: &State, node: &NodeRecord) -> pb::Node {
    let inventory = &node.inventory;
    let closed = node.closed.as_ref();
    let drain = closed.and_then(|closed| closed.drain);
    let silent_at = match node.liveness {
        Liveness::Up => None,
        Liveness::Silent { since } | Liveness::Fenced { since } => Some(since.0),
    };
    let power = power_reason(state, node);
    let reason = match (closed, &power) {
        (Some(closed), _) => plain(&closed.reason),
        (None, Some((reason, _))) => reason.clone(),
        (None, None) => liveness_reason(node.liveness),
    };
    pb::Node {
        id: node.id.0,
        name: node.name.to_string(),
        state: word(node).into(),
        schedulable: node.is_open(),
        reason,
        reason_by: closed.map(|closed| closed.by.0.to_string()).unwrap_or_default(),
        reason_at_ms: closed.map(|closed| closed.at).or(power.map(|(_, since)| since)).map(|at| at.0),
        drain_deadline_at_ms: drain.and_then(|drain| drain.deadline).and_then(at_ms),
        silent_at_ms: silent_at,
        registered_at_ms: node.registered_at.0,
        epoch: node.epoch,
        address: plain(&inventory.address),
        agent_version: plain(&inventory.agent_version),
        boot_id: plain(&inventory.boot_id),
        weak_fencing: inventory.weak_fencing,
        cpu_milli: inventory.cpu_milli,
        cpu_milli_used: node.used.cpu_milli,
        memory_bytes: inventory.memory_bytes,
        memory_bytes_used: node.used.memory_bytes,
        counts: Some(counts(std::iter::once(node))),
        models: models(node),
        gangs_total: u32::try_from(node.gangs.len()).unwrap_or(u32::MAX),
        gangs: node.gangs.iter().take(GANGS_SHOWN_MAX).map(|gang| gang_name(state, *gang)).collect(),
        labels: inventory.labels.iter().map(|(key, value)| (key.to_string(), plain(value))).collect(),
        place: inventory.place.iter().map(|(tree, path)| place(tree.as_str(), path)).collect(),
        free_estimate_at_ms: free_estimate(state, node),
        ..pb::Node::default()
    }
}

/// Why the node is not awake, and since when.
fn power_reason(state: &State, node: &NodeRecord) -> Option<(String, Time)> {
    let (reason, since) = match node.power {
        Power::Awake { .. } => return None,
        Power::FallingAsleep { since, .. } => ("it had nothing to do".into(), since),
        Power::Asleep { since, rests_until } if rests_until <= state.now() => ("it had nothing to do".into(), since),
        Power::Asleep { since, .. } => ("it did not wake, and is left alone for a while".into(), since),
        Power::Waking { since, gang, .. } => (format!("for {}", gang_name(state, gang)), since),
    };
    Some((reason, since))
}

fn liveness_reason(liveness: Liveness) -> String {
    match liveness {
        Liveness::Up => String::new(),
        Liveness::Silent { .. } => "its agent is silent".into(),
        Liveness::Fenced { .. } => "its agent was silent for the whole fencing wait".into(),
    }
}

fn place(tree: &str, path: &[muster_common::Name]) -> String {
    let path: Vec<&str> = path.iter().map(|name| name.as_str()).collect();
    format!("{tree}: {}", path.join(" / "))
}

/// The most frequent first.
fn models(node: &NodeRecord) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    node.inventory.devices.iter().for_each(|device| *counts.entry(device.model.as_str()).or_default() += 1);
    let mut models: Vec<(&str, usize)> = counts.into_iter().collect();
    models.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    models.into_iter().map(|(model, _)| model.to_owned()).collect()
}

pub fn counts<'a>(nodes: impl Iterator<Item = &'a NodeRecord>) -> pb::DeviceCounts {
    let mut counts = pb::DeviceCounts::default();
    for device in nodes.flat_map(|node| &node.devices) {
        counts.total += 1;
        match device {
            DeviceState::Ok(holders) if holders.is_empty() => counts.free += 1,
            DeviceState::Ok(_) => counts.held += 1,
            DeviceState::Unknown { .. } => counts.unknown += 1,
            DeviceState::Quarantined { .. } => counts.quarantined += 1,
        }
    }
    counts
}

/// When the last gang here should end, by what its user expects or its limit; unknown if one never says.
fn free_estimate(state: &State, node: &NodeRecord) -> Option<u64> {
    let ends = node.gangs.iter().map(|gang| expected_end(state, *gang));
    let ends: Option<Vec<Time>> = ends.collect();
    ends?.into_iter().max().map(|at| at.0)
}

/// When a gang that runs should end.
pub fn expected_end(state: &State, gang: GangId) -> Option<Time> {
    let record = state.gang(gang)?;
    let attempt = record.current()?;
    let job = state.job(gang.job)?;
    if let GangState::Stopping(..) = record.state {
        return Some(state.now());
    }
    let run_ms = run_ms(state.policy(), job, &state.scheduling_of(gang)?.limits)?;
    Some(attempt.started_at.unwrap_or(attempt.placed_at).plus_ms(run_ms).max(state.now()))
}

/// With devices, links, NICs and NUMA nodes.
pub fn whole(state: &State, node: &NodeRecord) -> pb::Node {
    let inventory = &node.inventory;
    let nic = |nic: &muster_common::node::Nic| pb::NodeNic {
        name: plain(&nic.name),
        netdev: nic.netdev.as_deref().map(plain).unwrap_or_default(),
        rate_gbps: nic.rate_gbps,
        numa: nic.numa.map(Into::into),
        rail: nic.rail.map(Into::into),
        compute: nic.compute,
    };
    let numa = |numa: &muster_common::node::NumaNode| pb::NodeNuma {
        id: numa.id.into(),
        cpus: plain(&numa.cpus),
        memory_bytes: numa.memory_bytes,
    };
    pb::Node {
        devices: (0..node.devices.len()).map(|slot| device(state, node, slot)).collect(),
        links: inventory.links.iter().flatten().map(|link| link_text(*link)).collect(),
        nics: inventory.nics.iter().map(nic).collect(),
        numa: inventory.numa.iter().map(numa).collect(),
        ..summary(state, node)
    }
}

fn device(state: &State, node: &NodeRecord, slot: usize) -> pb::NodeDevice {
    let (word, why, since) = match &node.devices[slot] {
        DeviceState::Ok(holders) if holders.is_empty() => ("FREE", String::new(), None),
        DeviceState::Ok(holders) if holders.iter().any(|holder| holder.milli < 1000) => ("SHARED", String::new(), None),
        DeviceState::Ok(_) => ("HELD", String::new(), None),
        DeviceState::Unknown { since, .. } => ("UNKNOWN", "what ran here is not proven gone".into(), Some(since.0)),
        DeviceState::Quarantined { since, why, .. } => ("QUARANTINED", plain(why), Some(since.0)),
    };
    let holder = |holder: &Holder| pb::DeviceHolder {
        gang: gang_name(state, holder.gang),
        attempt: holder.attempt.0,
        milli: holder.milli.into(),
        token: holder.token.to_string(),
    };
    let known = node.inventory.devices.get(slot);
    pb::NodeDevice {
        slot: slot as u32,
        uuid: known.map(|device| plain(&device.uuid)).unwrap_or_default(),
        model: known.map(|device| device.model.to_string()).unwrap_or_default(),
        product: known.map(|device| plain(&device.product)).unwrap_or_default(),
        memory_bytes: known.map_or(0, |device| device.memory_bytes),
        pci_address: known.map(|device| plain(&device.pci_address)).unwrap_or_default(),
        numa: known.and_then(|device| device.numa).map(Into::into),
        state: word.into(),
        why,
        since_at_ms: since,
        holders: node.devices[slot].holders().iter().map(holder).collect(),
        ..pb::NodeDevice::default()
    }
}
