//! What has changed lately, so that a `Memo` can keep up instead of starting anew. Outside of hash
//! and snapshot: losing it only costs time.

use muster_common::{GangId, JobId, NodeId};
use std::collections::VecDeque;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Job(JobId),
    Gang(GangId),
    Node(NodeId),
    /// Policy, fabric, settings: everything derived from them is void.
    Config,
}

/// Enough for a few cycles of a busy cluster.
const RING_MAX: usize = 8192;

/// A bounded ring of (log index, touched key), the oldest first.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    ring: VecDeque<(u64, Key)>,
    /// Everything up to and including this index may have been dropped.
    dropped_upto: u64,
}

impl Changes {
    pub(crate) fn push(&mut self, index: u64, key: Key) {
        if self.ring.back() == Some(&(index, key)) {
            return;
        }
        if self.ring.len() == RING_MAX
            && let Some((dropped, _)) = self.ring.pop_front()
        {
            self.dropped_upto = dropped;
        }
        self.ring.push_back((index, key));
    }

    /// After a snapshot was installed: nothing before `index` is known.
    pub(crate) fn restart(&mut self, index: u64) {
        self.ring.clear();
        self.dropped_upto = index;
    }

    /// Keys touched after `index`; `None` when the ring does not reach back that far.
    pub fn since(&self, index: u64) -> Option<impl Iterator<Item = Key> + '_> {
        if index < self.dropped_upto {
            return None;
        }
        let from = self.ring.partition_point(|(at, _)| *at <= index);
        Some(self.ring.iter().skip(from).map(|(_, key)| *key))
    }
}
