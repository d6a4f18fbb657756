//! What the leader knows of a connected agent beyond State.

use crate::heartbeats::{NodeSeen, WayCounts};
use muster_proto::client as pb;

/// By which way the agent renews, and the latest sample of each device.
pub fn add(node: &mut pb::Node, seen: &NodeSeen, now_ms: u64) {
    node.heartbeat = seen.way.word().into();
    node.udp_lost_at_ms = seen.udp_lost_ms.map(|lost_ms| now_ms.saturating_sub(lost_ms));
    for device in &seen.devices {
        let sample = &device.sample;
        let Some(shown) = node.devices.get_mut(usize::from(sample.slot)) else { continue };
        shown.sampled_at_ms = Some(now_ms.saturating_sub(device.age_ms));
        shown.busy_percent = sample.busy_percent.map(Into::into);
        shown.memory_used_bytes = sample.memory_used_bytes;
        shown.temperature_c = sample.temperature_c.map(Into::into);
        shown.power_mw = sample.power_mw;
    }
}

pub fn counts(counts: WayCounts) -> pb::HeartbeatCounts {
    pb::HeartbeatCounts { quic: counts.quic, stream: counts.stream, udp_lost: counts.udp_lost }
}
