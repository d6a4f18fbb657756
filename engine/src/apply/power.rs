//! Nodes that are put to sleep and woken: a cycle asks, whoever switches machines answers, and the node's own agent
//! says that it is back.

use super::{Applying, Result};
use crate::command::{PowerAnswer, RequestNodes};
use crate::outcome::{Event, Refusal, Response};
use crate::state::node::{DeviceState, Power};
use crate::state::reservation::{Reservation, ReservationKind};
use crate::state::timer::Timer;
use muster_common::time::MINUTE_MS;
use muster_common::{DeviceId, NodeId, Time};
use std::collections::BTreeSet;

/// From this feature level on, nodes may sleep.
pub const POWER_LEVEL: u32 = 7;
/// From this feature level on, falling asleep has a deadline, and one that is to wake is not taken for awake because it
/// is heard on its way down.
pub const HOOK_LEVEL: u32 = 8;
/// Most nodes of one command.
pub const ORDERED_MAX: usize = 4096;
/// So long after it is said to be off a machine may still be heard, without anything having woken it.
pub const GOING_MS: u64 = 2 * MINUTE_MS;
/// Longest reason that is kept.
const WHY_CHARS_MAX: usize = 256;

impl Applying<'_> {
    /// All of what was asked for, or nothing.
    pub(super) fn request_nodes(&mut self, asked: &RequestNodes) -> Result {
        self.needs_level(POWER_LEVEL)?;
        let RequestNodes { gang, nodes, witness } = asked;
        let now = self.now();
        if nodes.len() > ORDERED_MAX || !self.is_waiting(*gang) {
            return Err(Refusal::NotNow(format!("gang {gang} does not wait for nodes any more")));
        }
        let (mut wake_ms, mut by) = (0, now);
        for node in nodes {
            let record = self.state.nodes.get(node).filter(|record| record.may_wake(now));
            let record = record.ok_or_else(|| Refusal::NotNow(format!("node {node} cannot be woken now")))?;
            let pool = self.state.policy.elastic_of(&record.name, &record.inventory);
            let (_, pool) = pool.ok_or_else(|| Refusal::NotNow(format!("node {node} is in no elastic pool")))?;
            (wake_ms, by) = (wake_ms.max(pool.wake_ms), by.max(now.plus_ms(pool.wake_timeout_ms)));
        }
        let asked: BTreeSet<NodeId> = nodes.iter().copied().collect();
        self.check_kept(asked.len() == nodes.len(), witness, &asked)?;
        for node in witness.iter().filter_map(|device| self.state.nodes.get(&device.node)) {
            if let Power::Waking { by: then, .. } = node.power {
                by = by.max(then);
            }
        }
        for &node in nodes {
            self.node_mut(node).power = Power::Waking { since: now, by, gang: *gang };
            self.set_timer(by, Timer::Wake { node });
        }
        if !nodes.is_empty() {
            self.event(Event::NodesRequested { gang: *gang, nodes: nodes.clone() });
        }
        self.keep(Reservation {
            gang: *gang,
            kind: ReservationKind::Woken,
            start: now.plus_ms(wake_ms),
            end: by,
            domain: None,
            witness: witness.clone(),
        });
        Ok(Response::Done)
    }

    /// Each device there and free, on a node that is awake or will be, and kept for nobody else.
    fn check_kept(&self, distinct: bool, witness: &[DeviceId], asked: &BTreeSet<NodeId>) -> Result<()> {
        let kept = self.state.reservations.values().filter(|known| known.kind.keeps_devices());
        let kept: BTreeSet<DeviceId> = kept.flat_map(|known| known.witness.iter().copied()).collect();
        for device in witness {
            let record = self.state.nodes.get(&device.node);
            let free = record.is_some_and(|record| {
                let comes = record.is_in_service()
                    && (asked.contains(&record.id)
                        || matches!(record.power, Power::Waking { .. } | Power::Awake { .. }));
                comes && record.devices.get(usize::from(device.slot)).is_some_and(DeviceState::is_free)
            });
            if !free || kept.contains(device) {
                return Err(Refusal::NotNow(format!("device {} of node {} is not free", device.slot, device.node)));
            }
        }
        // Who asks for no device has nothing kept, and is offered the cluster first all the same.
        if !distinct || asked.is_empty() && witness.is_empty() {
            return Err(Refusal::Invalid("nodes are woken once each, or devices kept on such as are".into()));
        }
        Ok(())
    }

    /// Those of them that are still idle, and that nobody has a claim on.
    pub(super) fn sleep_nodes(&mut self, nodes: &[(NodeId, u64)]) -> Result {
        self.needs_level(POWER_LEVEL)?;
        if nodes.len() > ORDERED_MAX {
            return Err(Refusal::Invalid(format!("{} nodes at once; at most {ORDERED_MAX}", nodes.len())));
        }
        let claimed: BTreeSet<NodeId> =
            self.state.reservations.values().flat_map(|known| &known.witness).map(|device| device.node).collect();
        let since = self.now();
        let mut going = Vec::new();
        for &(node, epoch) in nodes {
            let record = self.state.nodes.get(&node);
            if record.is_some_and(|record| record.epoch == epoch && record.may_sleep()) && !claimed.contains(&node) {
                let by = self.sleep_by(node);
                self.node_mut(node).power = Power::FallingAsleep { since, by };
                self.set_timer(by, Timer::FallAsleep { node });
                going.push(node);
            }
        }
        if going.is_empty() {
            return Ok(Response::Noop);
        }
        self.event(Event::NodesSleeping { nodes: going });
        Ok(Response::Done)
    }

    fn sleep_by(&self, node: NodeId) -> Time {
        let record = self.state.nodes.get(&node);
        let pool = record.and_then(|record| self.state.policy.elastic_of(&record.name, &record.inventory));
        let bounded = pool.filter(|_| self.state.cluster.feature_level >= HOOK_LEVEL);
        bounded.map_or(Time::NEVER, |(_, pool)| self.now().plus_ms(pool.sleep_timeout_ms))
    }

    pub(super) fn node_power(&mut self, node: NodeId, epoch: u64, answer: &PowerAnswer) -> Result {
        self.needs_level(POWER_LEVEL)?;
        self.check_epoch(node, epoch)?;
        let power = self.state.nodes.get(&node).map(|record| record.power);
        let since = self.now();
        match (power, answer) {
            (Some(Power::FallingAsleep { .. }), PowerAnswer::Asleep) => {
                self.drop_power_timer(node);
                self.node_mut(node).power = Power::Asleep { since, rests_until: Time::ZERO };
                self.event(Event::NodeAsleep { node });
            }
            (Some(Power::FallingAsleep { .. }), PowerAnswer::NotAsleep { why }) => self.did_not_sleep(node, why),
            (Some(Power::Waking { .. }), PowerAnswer::NotWoken { why }) => self.did_not_wake(node, why),
            _ => return Ok(Response::Noop),
        }
        Ok(Response::Done)
    }

    fn retry_at(&self, node: NodeId) -> Time {
        let record = self.state.nodes.get(&node);
        let pool = record.and_then(|record| self.state.policy.elastic_of(&record.name, &record.inventory));
        self.now().plus_ms(pool.map_or(0, |(_, pool)| pool.retry_ms))
    }

    fn did_not_sleep(&mut self, node: NodeId, why: &str) {
        let until = self.retry_at(node);
        self.drop_power_timer(node);
        self.node_mut(node).power = Power::Awake { stays_until: until };
        self.event(Event::NodePowerFailed { node, waking: false, why: short(why), until });
    }

    fn did_not_wake(&mut self, node: NodeId, why: &str) {
        let (since, until) = (self.now(), self.retry_at(node));
        self.drop_power_timer(node);
        self.node_mut(node).power = Power::Asleep { since, rests_until: until };
        self.event(Event::NodePowerFailed { node, waking: true, why: short(why), until });
    }

    pub(super) fn wake_timed_out(&mut self, node: NodeId) {
        let power = self.state.nodes.get(&node).map(|record| record.power);
        if matches!(power, Some(Power::Waking { .. })) {
            self.did_not_wake(node, "it did not come back in time");
        }
    }

    pub(super) fn sleep_timed_out(&mut self, node: NodeId) {
        let power = self.state.nodes.get(&node).map(|record| record.power);
        if matches!(power, Some(Power::FallingAsleep { .. })) {
            self.did_not_sleep(node, "nobody said in time that it is off");
        }
    }

    pub(super) fn drop_power_timer(&mut self, node: NodeId) {
        match self.state.nodes.get(&node).map(|record| record.power) {
            Some(Power::Waking { by, .. }) => self.drop_timer(by, Timer::Wake { node }),
            Some(Power::FallingAsleep { by, .. }) => self.drop_timer(by, Timer::FallAsleep { node }),
            _ => {}
        }
    }

    /// Its agent has registered. One that is going down may do so once more before it is gone; `for_certain`: it has
    /// booted since, or runs something; `same`: it is the agent's process that was there before.
    pub(super) fn found_awake(&mut self, node: NodeId, for_certain: bool, same: bool) {
        let Some(record) = self.state.nodes.get(&node) else { return };
        let is_back = match record.power {
            Power::Awake { .. } => false,
            Power::Waking { since, .. } => {
                let may_be_going = same && self.state.cluster.feature_level >= HOOK_LEVEL;
                for_certain || !may_be_going || since.plus_ms(GOING_MS) <= self.now()
            }
            Power::FallingAsleep { .. } => for_certain,
            Power::Asleep { since, .. } => for_certain || since.plus_ms(GOING_MS) <= self.now(),
        };
        if is_back {
            self.drop_power_timer(node);
            self.node_mut(node).power = Power::AWAKE;
            self.event(Event::NodeAwake { node });
        }
    }

    /// What is noted of a job that is let go now.
    pub(super) fn released_at(&self) -> Time {
        if self.state.cluster.feature_level < HOOK_LEVEL { Time::ZERO } else { self.now() }
    }

    /// Work has left the node.
    pub(super) fn note_idle(&mut self, node: NodeId) {
        let now = self.now();
        if self.state.cluster.feature_level < POWER_LEVEL {
            return;
        }
        let record = self.node_mut(node);
        if record.gangs.is_empty() && record.orphans.is_empty() {
            record.worked_until = now;
        }
    }
}

fn short(why: &str) -> String {
    why.chars().take(WHY_CHARS_MAX).collect()
}
