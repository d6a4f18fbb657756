//! Machines that sleep: how long they take, which of them do not come back, and what that adds up to.

use crate::draw::Draw;
use crate::world::World;
use crate::world::elastic::Elastic;
use muster_common::{NodeId, Time};
use muster_engine::apply::ORDERED_MAX;
use muster_engine::command::PowerAnswer;
use muster_engine::outcome::Event;
use muster_engine::state::node::Power;
use muster_engine::{Command, State};
use serde::Serialize;
use std::collections::BTreeMap;

/// What was asked of machines in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct PowerCounts {
    pub sleeps: u64,
    pub wakes: u64,
    /// Machines that did not come back in time.
    pub failed_wakes: u64,
}

#[derive(Debug, Clone)]
struct Sleeper {
    rule: Elastic,
    draw: Draw,
    since: Option<Time>,
    asleep_ms: u64,
}

/// Those that can be switched, by node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sleepers {
    of_node: BTreeMap<NodeId, Sleeper>,
    pub counts: PowerCounts,
}

impl Sleepers {
    /// `nodes` are the registered ones, in the order of the world.
    pub fn new(world: &World, seed: u64, nodes: &[NodeId], begin: Time) -> Self {
        let rules = world.nodes.iter().flat_map(|group| {
            let rule = world.elastic.iter().find(|elastic| elastic.nodes == group.name);
            (0..group.count).map(move |_| rule)
        });
        let sleeper = |(number, (rule, node)): (u64, (Option<&Elastic>, &NodeId))| {
            let rule = rule?.clone();
            let since = rule.starts_asleep.then_some(begin);
            Some((*node, Sleeper { rule, draw: Draw::of(seed, "wake", number), since, asleep_ms: 0 }))
        };
        let of_node = (0..).zip(rules.zip(nodes)).filter_map(sleeper).collect();
        Self { of_node, counts: PowerCounts::default() }
    }

    /// Puts to sleep what is asleep when the run begins.
    pub fn first_orders(&self, state: &State) -> Vec<Command> {
        let first = self.of_node.iter().filter(|(_, sleeper)| sleeper.rule.starts_asleep).map(|(node, _)| *node);
        let first: Vec<NodeId> = first.collect();
        let epoch = |node: &NodeId| state.node(*node).map(|record| (*node, record.epoch));
        let nodes: Vec<(NodeId, u64)> = first.iter().filter_map(epoch).collect();
        let answers =
            nodes.iter().map(|&(node, epoch)| Command::NodePower { node, epoch, answer: PowerAnswer::Asleep });
        let orders = nodes.chunks(ORDERED_MAX).map(|nodes| Command::SleepNodes { nodes: nodes.to_vec() });
        orders.chain(answers).collect()
    }

    pub fn sleep_ms(&self, node: NodeId) -> Option<u64> {
        Some(self.of_node.get(&node)?.rule.sleep_ms())
    }

    /// `None`: it does not come.
    pub fn wake_ms(&mut self, node: NodeId) -> Option<u64> {
        let sleeper = self.of_node.get_mut(&node)?;
        // Nothing is drawn where nothing is left to chance.
        let fails = sleeper.rule.fail_percent > 0.0 && sleeper.draw.unit() * 100.0 <= sleeper.rule.fail_percent;
        (!fails).then(|| sleeper.rule.wake_ms())
    }

    /// Takes note of what an entry says of power; returns the nodes that are from now on paid for, or no longer.
    pub fn note(&mut self, state: &State, events: &[Event], now: Time) -> Vec<(NodeId, bool)> {
        let mut changed = Vec::new();
        for event in events {
            let nodes = match event {
                Event::NodesRequested { nodes, .. } => {
                    self.counts.wakes += nodes.len() as u64;
                    nodes.clone()
                }
                Event::NodesSleeping { nodes } => {
                    // What is asleep from the beginning was not put to sleep in the run.
                    let awake = |node: &&NodeId| self.of_node.get(node).is_none_or(|sleeper| sleeper.since.is_none());
                    self.counts.sleeps += nodes.iter().filter(awake).count() as u64;
                    Vec::new()
                }
                Event::NodePowerFailed { node, waking, .. } => {
                    self.counts.failed_wakes += u64::from(*waking);
                    vec![*node]
                }
                Event::NodeAsleep { node } | Event::NodeAwake { node } => vec![*node],
                _ => continue,
            };
            changed.extend(nodes.into_iter().filter_map(|node| self.turned(state, node, now)));
        }
        changed
    }

    fn turned(&mut self, state: &State, node: NodeId, now: Time) -> Option<(NodeId, bool)> {
        let asleep = matches!(state.node(node)?.power, Power::Asleep { .. });
        let sleeper = self.of_node.get_mut(&node)?;
        if let Some(since) = sleeper.since.take() {
            sleeper.asleep_ms += now.since_ms(since);
        }
        sleeper.since = asleep.then_some(now);
        (!sleeper.rule.paid_asleep).then_some((node, asleep))
    }

    /// Closes the books of a run.
    pub fn finish(&mut self, at: Time) {
        for sleeper in self.of_node.values_mut() {
            if let Some(since) = sleeper.since.take() {
                sleeper.asleep_ms += at.since_ms(since);
            }
        }
    }

    pub fn asleep_ms(&self, node: NodeId) -> u64 {
        self.of_node.get(&node).map_or(0, |sleeper| sleeper.asleep_ms)
    }
}
