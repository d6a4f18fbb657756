//! What operators do to nodes.

use super::{Applying, Result};
use crate::command::{NodeAction, Principal};
use crate::outcome::{Event, Evidence, Refusal, Response};
use crate::state::gang::Cause;
use crate::state::node::{Closed, DeviceState, Drain, Liveness};
use crate::state::timer::Timer;
use muster_common::NodeId;

impl Applying<'_> {
    pub(super) fn node_admin(&mut self, node: NodeId, action: &NodeAction, by: &Principal) -> Result {
        if !self.state.nodes.contains(&node) {
            return Err(Refusal::UnknownNode(node));
        }
        let changed = match action {
            NodeAction::Cordon { reason } => self.close(node, reason, by, None),
            NodeAction::Drain { reason, deadline_ms } => self.drain(node, reason, by, *deadline_ms),
            NodeAction::Uncordon | NodeAction::Undrain => self.open(node),
            NodeAction::StateReleased { .. } => self.state_released(node)?,
            NodeAction::EndQuarantine { slot, .. } => self.end_quarantine(node, *slot)?,
            NodeAction::Remove { .. } => self.remove_node(node)?,
        };
        if !changed {
            return Ok(Response::Noop);
        }
        self.event(Event::NodeAdmin { node, action: action.clone(), by: by.clone() });
        Ok(Response::Done)
    }

    fn close(&mut self, node: NodeId, reason: &str, by: &Principal, drain: Option<Drain>) -> bool {
        let at = self.now();
        self.drop_drain_timer(node);
        let record = self.node_mut(node);
        record.closed = Some(Closed { reason: reason.into(), by: by.clone(), at, drain });
        true
    }

    fn drain(&mut self, node: NodeId, reason: &str, by: &Principal, deadline_ms: Option<u64>) -> bool {
        let deadline = deadline_ms.map(|ms| self.now().plus_ms(ms));
        self.close(node, reason, by, Some(Drain { deadline }));
        match deadline {
            Some(at) if at <= self.now() => self.evict_all(node),
            Some(at) => self.set_timer(at, Timer::DrainDeadline { node }),
            None => {}
        }
        true
    }

    fn drop_drain_timer(&mut self, node: NodeId) {
        let closed = self.state.nodes.get(&node).and_then(|record| record.closed.as_ref());
        if let Some(deadline) = closed.and_then(|closed| closed.drain).and_then(|drain| drain.deadline) {
            self.drop_timer(deadline, Timer::DrainDeadline { node });
        }
    }

    fn open(&mut self, node: NodeId) -> bool {
        self.drop_drain_timer(node);
        self.note_idle(node);
        self.node_mut(node).closed.take().is_some()
    }

    /// Evidence by word of an operator: whatever was on the silent node is gone.
    fn state_released(&mut self, node: NodeId) -> Result<bool> {
        let record = self.state.nodes.get(&node).expect("seen by the caller");
        if record.liveness == Liveness::Up {
            let why = "the node is up; its own agent says what runs there. This statement is for silent nodes";
            return Err(Refusal::Invalid(why.into()));
        }
        for gang in record.gangs.clone() {
            self.stop(gang, Cause::NodeLost { node });
            self.release_on(node, gang, Evidence::Operator);
        }
        let orphans = self.state.nodes.get(&node).map(|record| record.orphans.clone()).unwrap_or_default();
        for orphan in &orphans {
            self.release_orphan(node, orphan.gang, orphan.token, Evidence::Operator);
        }
        Ok(true)
    }

    /// Releases a live gang's part on the node and ends the attempt if that was the last.
    pub(super) fn release_on(&mut self, node: NodeId, gang: muster_common::GangId, evidence: Evidence) {
        let attempt = self.state.gangs.get(&gang).and_then(|record| record.current());
        if let Some(at) = attempt.and_then(|attempt| attempt.part_on(node)) {
            self.release_part(gang, at, evidence);
        }
        self.finish_if_settled(gang);
    }

    fn end_quarantine(&mut self, node: NodeId, slot: u16) -> Result<bool> {
        let now = self.now();
        let record = self.node_mut(node);
        let orphaned = record.orphans.iter().any(|orphan| orphan.devices.iter().any(|(held, _)| *held == slot));
        let device = record.devices.get_mut(usize::from(slot)).ok_or(Refusal::NotQuarantined)?;
        let DeviceState::Quarantined { holders, .. } = device else {
            return Err(Refusal::NotQuarantined);
        };
        let holders = std::mem::take(holders);
        let free = holders.is_empty();
        *device = if orphaned { DeviceState::Unknown { since: now, holders } } else { DeviceState::Ok(holders) };
        if free {
            self.event(Event::DevicesFree { node, slots: vec![slot], evidence: Evidence::Operator });
        }
        Ok(true)
    }

    fn remove_node(&mut self, node: NodeId) -> Result<bool> {
        let record = self.state.nodes.get(&node).expect("seen by the caller");
        if !record.gangs.is_empty() || !record.orphans.is_empty() {
            return Err(Refusal::NodeBusy);
        }
        let name = record.name.clone();
        self.drop_drain_timer(node);
        self.drop_power_timer(node);
        self.node_mut(node);
        self.state.nodes.remove(&node);
        self.state.node_names.remove(&name);
        Ok(true)
    }
}
