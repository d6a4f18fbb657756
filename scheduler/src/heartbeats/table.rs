//! The latest of every connected agent.

use super::DatagramCounters;
use muster_common::NodeId;
use muster_proto::datagram::Sample;
use muster_runtime::clock::Clock;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Renewals that may be missing before a way counts as lost, and what they may be late.
const MISSED_RENEWALS: u64 = 2;
const LATE_MS: u64 = 500;

/// How renewals come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Quic,
    Stream,
}

impl Way {
    pub const fn word(self) -> &'static str {
        match self {
            Way::Quic => "quic",
            Way::Stream => "stream",
        }
    }
}

/// What is known of one connected agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSeen {
    pub way: Way,
    /// For how long nothing came over UDP, though both sides would use it.
    pub udp_lost_ms: Option<u64>,
    /// In order of slots.
    pub devices: Vec<DeviceSeen>,
}

/// The latest sample of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceSeen {
    pub sample: Sample,
    pub age_ms: u64,
}

/// Connected agents by way. `udp_lost` are those of `stream` that would use QUIC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WayCounts {
    pub quic: u32,
    pub stream: u32,
    pub udp_lost: u32,
}

/// Cheap to clone. Read by whoever shows nodes and metrics.
#[derive(Clone)]
pub struct Heartbeats {
    clock: Arc<dyn Clock>,
    nodes: Arc<Mutex<BTreeMap<NodeId, Entry>>>,
    counters: Arc<DatagramCounters>,
}

impl fmt::Debug for Heartbeats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Heartbeats")
    }
}

#[derive(Debug)]
struct Entry {
    session: u64,
    began_ms: u64,
    renew_every_ms: u64,
    /// Both sides speak datagrams.
    may_use_udp: bool,
    udp_ms: Option<u64>,
    samples: BTreeMap<u16, (Sample, u64)>,
}

impl Entry {
    fn way(&self, now_ms: u64) -> (Way, Option<u64>) {
        let patience_ms = self.renew_every_ms * MISSED_RENEWALS + LATE_MS;
        let quiet_ms = now_ms.saturating_sub(self.udp_ms.unwrap_or(self.began_ms));
        let lost = self.may_use_udp && quiet_ms > patience_ms;
        match self.udp_ms {
            Some(_) if !lost => (Way::Quic, None),
            _ => (Way::Stream, lost.then_some(quiet_ms)),
        }
    }
}

impl Heartbeats {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, nodes: Arc::default(), counters: Arc::default() }
    }

    pub fn counters(&self) -> &DatagramCounters {
        &self.counters
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Entry>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session began; what an older one told is forgotten.
    pub(crate) fn enter(&self, node: NodeId, session: u64, may_use_udp: bool, renew_every_ms: u64) {
        let began_ms = self.clock.boottime_ms();
        let entry = Entry { session, began_ms, renew_every_ms, may_use_udp, udp_ms: None, samples: BTreeMap::new() };
        self.lock().insert(node, entry);
    }

    pub(crate) fn leave(&self, node: NodeId, session: u64) {
        let mut nodes = self.lock();
        if nodes.get(&node).is_some_and(|entry| entry.session == session) {
            nodes.remove(&node);
        }
    }

    pub(crate) fn renewed_by_datagram(&self, node: NodeId) {
        let now_ms = self.clock.boottime_ms();
        if let Some(entry) = self.lock().get_mut(&node) {
            entry.udp_ms = Some(now_ms);
        }
    }

    /// Keeps the latest of each device; a slot from `slots` on is not the node's.
    pub(crate) fn sampled(&self, node: NodeId, samples: &[Sample], slots: usize) {
        let now_ms = self.clock.boottime_ms();
        let mut nodes = self.lock();
        let Some(entry) = nodes.get_mut(&node) else { return };
        for sample in samples.iter().filter(|sample| usize::from(sample.slot) < slots) {
            entry.samples.insert(sample.slot, (*sample, now_ms));
        }
    }

    /// `None` when the node's agent is not connected to this server.
    pub fn of(&self, node: NodeId) -> Option<NodeSeen> {
        let now_ms = self.clock.boottime_ms();
        let nodes = self.lock();
        let entry = nodes.get(&node)?;
        let (way, udp_lost_ms) = entry.way(now_ms);
        let seen =
            |(sample, at_ms): &(Sample, u64)| DeviceSeen { sample: *sample, age_ms: now_ms.saturating_sub(*at_ms) };
        Some(NodeSeen { way, udp_lost_ms, devices: entry.samples.values().map(seen).collect() })
    }

    /// The nodes whose agents are connected to this server.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.lock().keys().copied().collect()
    }

    pub fn counts(&self) -> WayCounts {
        let now_ms = self.clock.boottime_ms();
        let mut counts = WayCounts::default();
        for entry in self.lock().values() {
            let (way, lost_ms) = entry.way(now_ms);
            match way {
                Way::Quic => counts.quic += 1,
                Way::Stream => counts.stream += 1,
            }
            counts.udp_lost += u32::from(lost_ms.is_some());
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_runtime::clock::{ManualClock, ManualTime};

    const NODE: NodeId = NodeId(3);

    fn table() -> (ManualTime, Heartbeats) {
        let time = ManualTime::new(0);
        let clock: ManualClock = time.clock();
        (time, Heartbeats::new(Arc::new(clock)))
    }

    fn way(heartbeats: &Heartbeats) -> (Way, Option<u64>) {
        let seen = heartbeats.of(NODE).expect("connected");
        (seen.way, seen.udp_lost_ms)
    }

    #[test]
    fn the_way_is_shown_and_a_lost_one_with_its_age() {
        let (time, heartbeats) = table();
        assert_eq!(heartbeats.of(NODE), None);
        heartbeats.enter(NODE, 7, true, 3_000);
        assert_eq!(way(&heartbeats), (Way::Stream, None), "nothing came yet, and nothing is late");
        heartbeats.renewed_by_datagram(NODE);
        time.advance(6_500);
        assert_eq!(way(&heartbeats), (Way::Quic, None));
        time.advance(5_500);
        assert_eq!(way(&heartbeats), (Way::Stream, Some(12_000)));
        assert_eq!(heartbeats.counts(), WayCounts { quic: 0, stream: 1, udp_lost: 1 });
        heartbeats.renewed_by_datagram(NODE);
        assert_eq!(way(&heartbeats), (Way::Quic, None), "the fast way is back");
    }

    #[test]
    fn an_agent_that_uses_no_datagrams_misses_none() {
        let (time, heartbeats) = table();
        heartbeats.enter(NODE, 7, false, 3_000);
        time.advance(1_000_000);
        assert_eq!(way(&heartbeats), (Way::Stream, None));
    }

    #[test]
    fn samples_are_the_latest_of_the_nodes_own_slots_and_go_with_the_session() {
        let (time, heartbeats) = table();
        let of = |slot, busy| Sample { slot, busy_percent: Some(busy), ..Sample::default() };
        heartbeats.sampled(NODE, &[of(0, 1)], 2);
        heartbeats.enter(NODE, 7, true, 3_000);
        heartbeats.sampled(NODE, &[of(0, 10), of(1, 20), of(2, 30), of(u16::MAX, 40)], 2);
        time.advance(4_000);
        heartbeats.sampled(NODE, &[of(1, 25)], 2);
        let devices = heartbeats.of(NODE).expect("connected").devices;
        let old = DeviceSeen { sample: of(0, 10), age_ms: 4_000 };
        assert_eq!(devices, [old, DeviceSeen { sample: of(1, 25), age_ms: 0 }]);
        heartbeats.leave(NODE, 6);
        assert!(heartbeats.of(NODE).is_some(), "another session's end");
        heartbeats.leave(NODE, 7);
        assert_eq!((heartbeats.of(NODE), heartbeats.nodes()), (None, Vec::new()));
    }
}
