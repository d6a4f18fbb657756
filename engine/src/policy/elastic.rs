//! Elastic pools: nodes that are put to sleep while there is nothing for them to do, and woken for a gang that waits
//! and would be placed with them. Owned nodes save power so; rented ones are not paid for while they are gone.

use super::{MS_MAX, Policy, PolicyError, within};
use muster_common::Name;
use muster_common::node::Inventory;
use muster_common::time::{DAY_MS, MINUTE_MS};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Most pools of a policy.
pub const POOLS_MAX: usize = 8;
/// Most labels of a pool, and most nodes that one leaves out.
const LABELS_MAX: usize = 16;
const EXCEPT_MAX: usize = 1024;

/// What a policy says of one pool. A node is in the first that has it: those with the shorter `wake_after_ms` come
/// first, then by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ElasticPool {
    /// Nodes with all of these labels; without any, every node.
    pub labels: BTreeMap<Name, String>,
    /// Nodes that are never put to sleep.
    pub except: BTreeSet<Name>,
    /// How long a node has nothing to do before it is put to sleep.
    pub idle_ms: u64,
    /// The waiting budget: nodes are woken only for a gang that has waited so long.
    pub wake_after_ms: u64,
    /// A node that nobody has said by then to be off counts as one that could not be put to sleep.
    pub sleep_timeout_ms: u64,
    /// How long waking usually takes. A gang whose start is booked sooner than that wakes nothing.
    pub wake_ms: u64,
    /// A node that is not back by then counts as not woken.
    pub wake_timeout_ms: u64,
    /// How long a node is left alone that could not be put to sleep or woken.
    pub retry_ms: u64,
    /// So many nodes stay awake.
    pub keep_awake: u32,
    /// Most nodes between awake and asleep at a time. A gang that needs more is served when there are none; while it
    /// waits for that, nobody behind it has nodes of the pool woken, and none is put to sleep.
    pub nodes_at_once: u32,
}

impl Default for ElasticPool {
    fn default() -> Self {
        Self {
            labels: BTreeMap::new(),
            except: BTreeSet::new(),
            idle_ms: 30 * MINUTE_MS,
            wake_after_ms: 0,
            sleep_timeout_ms: 5 * MINUTE_MS,
            wake_ms: 5 * MINUTE_MS,
            wake_timeout_ms: 15 * MINUTE_MS,
            retry_ms: 30 * MINUTE_MS,
            keep_awake: 0,
            nodes_at_once: 64,
        }
    }
}

impl ElasticPool {
    pub(super) fn validate(&self, name: &Name) -> Result<(), PolicyError> {
        let within =
            |key: &str, value: u64, from: u64, to: u64| within(format_args!("elastic.{name}.{key}"), value, from, to);
        within("idle_ms", self.idle_ms, 1_000, MS_MAX)?;
        within("wake_after_ms", self.wake_after_ms, 0, MS_MAX)?;
        within("sleep_timeout_ms", self.sleep_timeout_ms, 1_000, DAY_MS)?;
        within("wake_timeout_ms", self.wake_timeout_ms, 1_000, DAY_MS)?;
        within("wake_ms", self.wake_ms, 0, self.wake_timeout_ms)?;
        // One that fails at once would else be asked again at once, for ever.
        within("retry_ms", self.retry_ms, 1_000, MS_MAX)?;
        within("nodes_at_once", u64::from(self.nodes_at_once), 1, 4096)?;
        within("labels", self.labels.len() as u64, 0, LABELS_MAX as u64)?;
        within("except", self.except.len() as u64, 0, EXCEPT_MAX as u64)
    }

    fn has(&self, name: &Name, inventory: &Inventory) -> bool {
        let labelled = self.labels.iter().all(|(key, value)| inventory.labels.get(key) == Some(value));
        labelled && !self.except.contains(name)
    }
}

impl Policy {
    /// Elastic pools in the order in which nodes are woken from them.
    pub fn elastic_pools(&self) -> Vec<(&Name, &ElasticPool)> {
        let mut pools: Vec<(&Name, &ElasticPool)> = self.elastic.iter().collect();
        pools.sort_by_key(|(name, pool)| (pool.wake_after_ms, *name));
        pools
    }

    /// The pool that a node is in, by its place in [`Self::elastic_pools`].
    pub fn elastic_of(&self, name: &Name, inventory: &Inventory) -> Option<(usize, &ElasticPool)> {
        if self.elastic.is_empty() {
            return None;
        }
        let pools = self.elastic_pools();
        pools.into_iter().map(|(_, pool)| pool).enumerate().find(|(_, pool)| pool.has(name, inventory))
    }
}
