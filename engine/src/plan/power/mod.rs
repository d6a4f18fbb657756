//! Elastic pools: which nodes could be woken, and which could be put to sleep. Kept up from the ring of changes, so
//! that no cycle looks at all nodes for it.

mod sleep;
mod trial;
mod wake;

pub(crate) use wake::Search;

use super::round::Round;
use crate::command::Command;
use crate::policy::ElasticPool;
use crate::state::State;
use crate::state::node::{NodeRecord, Power};
use muster_common::{NodeId, Time};
use std::collections::{BTreeMap, BTreeSet};

/// Nodes of elastic pools, by what power has to do with them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Powers {
    /// In the order of the policy's pools.
    pools: Vec<Pool>,
    known: BTreeMap<NodeId, (usize, Seen)>,
}

#[derive(Debug, Clone, Default)]
struct Pool {
    rules: ElasticPool,
    /// Awake with nothing to do since then, or left alone until then.
    idle: BTreeSet<(Time, NodeId)>,
    asleep: BTreeSet<NodeId>,
    waking: BTreeSet<NodeId>,
    awake: u32,
    changing: u32,
}

/// How a node was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Busy,
    /// Awake and of no use: silent, or closed.
    Away,
    /// When it may be put to sleep.
    Idle(Time),
    Falling,
    Asleep,
    Waking,
}

impl Seen {
    fn of(record: &NodeRecord, rules: &ElasticPool) -> Self {
        match record.power {
            Power::Awake { stays_until } if record.may_sleep() => {
                Seen::Idle(record.idle_since().plus_ms(rules.idle_ms).max(stays_until))
            }
            Power::Awake { .. } if record.is_open() => Seen::Busy,
            Power::Awake { .. } => Seen::Away,
            Power::FallingAsleep { .. } => Seen::Falling,
            Power::Asleep { .. } => Seen::Asleep,
            Power::Waking { .. } => Seen::Waking,
        }
    }
}

impl Pool {
    fn count(&mut self, node: NodeId, seen: Seen, there: bool) {
        let set = |set: &mut BTreeSet<NodeId>| if there { set.insert(node) } else { set.remove(&node) };
        let number = |number: &mut u32| if there { *number += 1 } else { *number -= 1 };
        match seen {
            Seen::Busy => number(&mut self.awake),
            Seen::Away => {}
            Seen::Idle(at) => {
                number(&mut self.awake);
                if there {
                    self.idle.insert((at, node))
                } else {
                    self.idle.remove(&(at, node))
                };
            }
            Seen::Falling => number(&mut self.changing),
            Seen::Asleep => _ = set(&mut self.asleep),
            Seen::Waking => {
                set(&mut self.waking);
                number(&mut self.changing);
            }
        }
    }
}

impl Powers {
    pub fn of(state: &State) -> Self {
        let pools = state.policy().elastic_pools().into_iter();
        let pools = pools.map(|(_, rules)| Pool { rules: rules.clone(), ..Pool::default() }).collect();
        let mut powers = Self { pools, known: BTreeMap::new() };
        if !powers.pools.is_empty() {
            state.nodes().keys().for_each(|node| powers.refresh(state, *node));
        }
        powers
    }

    /// Takes over what State says of a node now.
    pub fn refresh(&mut self, state: &State, node: NodeId) {
        if self.pools.is_empty() {
            return;
        }
        if let Some((at, seen)) = self.known.remove(&node) {
            self.pools[at].count(node, seen, false);
        }
        let Some(record) = state.node(node) else { return };
        if let Some((at, rules)) = state.policy().elastic_of(&record.name, &record.inventory) {
            let seen = Seen::of(record, rules);
            self.pools[at].count(node, seen, true);
            self.known.insert(node, (at, seen));
        }
    }

    /// What a cycle asks of nodes once it has placed what it could, and when that would be something else.
    pub fn decide(&self, round: &mut Round) -> (Vec<Command>, Option<Time>) {
        if self.pools.is_empty() {
            return (Vec::new(), None);
        }
        round.put_back();
        let mut commands = Vec::new();
        let (woken, waited_for) = self.wake(round, &mut commands);
        let slept = self.sleep(round, &mut commands, &waited_for);
        (commands, woken.into_iter().chain(slept).filter(|at| *at < Time::NEVER).min())
    }
}
