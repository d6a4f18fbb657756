//! What comes often and is never replicated: by which way agents renew, and how their devices are
//! doing. The leader's, as agents talk to it; bounded by its sessions and their devices.

mod port;
mod table;

pub use port::DatagramPort;
pub use table::{DeviceSeen, Heartbeats, NodeSeen, Way, WayCounts};

use crate::consensus::ConsensusHandle;
use crate::machine::EngineMachine;
use muster_common::NodeId;
use muster_engine::State;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the datagram port has counted since the server began.
#[derive(Debug, Default)]
pub struct DatagramCounters {
    /// Renewals that named a session of this server.
    pub renewals: AtomicU64,
    /// Renewals and telemetry that named another's session.
    pub not_here: AtomicU64,
    pub telemetry: AtomicU64,
    /// Of a version not spoken here.
    pub versions: AtomicU64,
    pub malformed: AtomicU64,
    /// Above a connection's rate.
    pub dropped: AtomicU64,
    /// Connections that were no agent's, or whose certificate ran out.
    pub turned_away: AtomicU64,
    /// Open now.
    pub connections: AtomicU64,
}

impl DatagramCounters {
    pub(crate) fn add(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
    }

    /// Each under the name that metrics give it.
    pub fn all(&self) -> [(&'static str, u64); 8] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("renewals", read(&self.renewals)),
            ("not_here", read(&self.not_here)),
            ("telemetry", read(&self.telemetry)),
            ("versions", read(&self.versions)),
            ("malformed", read(&self.malformed)),
            ("dropped", read(&self.dropped)),
            ("turned_away", read(&self.turned_away)),
            ("connections", read(&self.connections)),
        ]
    }
}

/// Devices a node may have samples of.
fn devices_of(state: &State, node: NodeId) -> usize {
    state.node(node).map_or(0, |record| record.devices.len())
}

/// The bound for one node's samples, as of now.
pub(crate) fn slots_of(consensus: &ConsensusHandle<EngineMachine>, node: NodeId) -> usize {
    devices_of(&consensus.view(), node)
}
