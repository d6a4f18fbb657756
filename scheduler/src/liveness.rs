//! When this leader last heard each node, shared by sessions, lease acknowledgements and the
//! observer of silence.

use muster_common::NodeId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Heard {
    at_ms: u64,
    /// From deciding to propose silence or fencing until the outcome is applied, nothing from the
    /// node is acknowledged (rule 7).
    deciding: bool,
}

/// Cheap to clone. Boot-clock milliseconds of this server.
#[derive(Debug, Clone, Default)]
pub struct Liveness {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Nothing counts as silence from before this moment: a new leader, or a late tick, starts
    /// every wait again.
    waits_from_ms: u64,
    nodes: BTreeMap<NodeId, Heard>,
}

impl Liveness {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn restart_waits(&self, now_ms: u64) {
        let mut inner = self.lock();
        inner.waits_from_ms = now_ms;
        inner.nodes.values_mut().for_each(|heard| heard.deciding = false);
    }

    /// A message of the node's own session arrived.
    pub fn heard(&self, node: NodeId, now_ms: u64) {
        let mut inner = self.lock();
        let heard = inner.nodes.entry(node).or_default();
        heard.at_ms = heard.at_ms.max(now_ms);
    }

    /// For how long nothing was heard.
    pub fn silent_ms(&self, node: NodeId, now_ms: u64) -> u64 {
        let inner = self.lock();
        let at_ms = inner.nodes.get(&node).map_or(0, |heard| heard.at_ms);
        now_ms.saturating_sub(at_ms.max(inner.waits_from_ms))
    }

    /// Marks that the node's silence is about to be proposed, if it is still silent. From here on
    /// nothing of it is acknowledged.
    pub fn decide(&self, node: NodeId, now_ms: u64, at_least_ms: u64) -> Option<u64> {
        let mut inner = self.lock();
        let waits_from_ms = inner.waits_from_ms;
        let heard = inner.nodes.entry(node).or_default();
        let silent_ms = now_ms.saturating_sub(heard.at_ms.max(waits_from_ms));
        (silent_ms >= at_least_ms).then(|| {
            heard.deciding = true;
            silent_ms
        })
    }

    pub fn decided(&self, node: NodeId) {
        if let Some(heard) = self.lock().nodes.get_mut(&node) {
            heard.deciding = false;
        }
    }

    pub fn may_acknowledge(&self, node: NodeId) -> bool {
        !self.lock().nodes.get(&node).is_some_and(|heard| heard.deciding)
    }

    /// Nodes that State no longer has.
    pub fn forget(&self, keep: impl Fn(NodeId) -> bool) {
        self.lock().nodes.retain(|node, _| keep(*node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(7);

    #[test]
    fn rule_7_nothing_is_acknowledged_while_silence_is_being_decided() {
        let liveness = Liveness::default();
        liveness.heard(NODE, 1000);
        assert_eq!(liveness.decide(NODE, 2000, 5000), None);
        assert!(liveness.may_acknowledge(NODE));
        assert_eq!(liveness.decide(NODE, 7000, 5000), Some(6000));
        liveness.heard(NODE, 7001);
        assert!(!liveness.may_acknowledge(NODE), "a renewal that came late may not undo the decision");
        liveness.decided(NODE);
        assert!(liveness.may_acknowledge(NODE));
    }

    #[test]
    fn rule_7_a_new_leader_and_a_late_tick_start_every_wait_again() {
        let liveness = Liveness::default();
        liveness.heard(NODE, 1000);
        liveness.restart_waits(60_000);
        assert_eq!(liveness.silent_ms(NODE, 61_000), 1000);
        assert_eq!(liveness.silent_ms(NodeId(8), 61_000), 1000, "a node never heard waits too");
    }
}
