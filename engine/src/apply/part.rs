//! What one part of an attempt holds on its node, and how it lets go.

use super::Applying;
use crate::outcome::{Event, Evidence};
use crate::state::change::Key;
use crate::state::gang::{Allocation, PartState};
use crate::state::node::{DeviceState, Holder, NodeRecord, Orphan};
use muster_common::{AttemptNo, GangId, NodeId, Token};

impl Applying<'_> {
    pub(super) fn node_mut(&mut self, node: NodeId) -> &mut NodeRecord {
        self.state.touch(Key::Node(node));
        self.state.nodes.get_mut(&node).expect("the node is in State")
    }

    /// Nothing of this part is left on the node: its devices, CPU, memory and port are free.
    pub(super) fn release_part(&mut self, gang: GangId, at: usize, evidence: Evidence) {
        let Some((part, number, token, port)) = self.unsettled(gang, at) else {
            return;
        };
        let node = self.node_mut(part.node);
        node.gangs.remove(&gang);
        if at == 0 {
            node.ports.remove(&port);
        }
        let key = Holder { gang, attempt: number, token, milli: 0 };
        let freed = free_devices(node, &part.devices, &key);
        node.used = node.used.minus(&part.amount).expect("a part's amount was added when it was placed");
        self.settle(gang, at, PartState::Released);
        self.note_idle(part.node);
        if !freed.is_empty() {
            self.event(Event::DevicesFree { node: part.node, slots: freed, evidence });
        }
    }

    /// The fencing wait is over: the attempt goes on without this part, but what it occupied stays
    /// occupied until there is evidence (rule 8).
    pub(super) fn fence_part(&mut self, gang: GangId, at: usize) {
        self.orphan_part(gang, at, PartState::Fenced);
        let (node, slots) = self.part_slots(gang, at);
        let now = self.now();
        let record = self.node_mut(node);
        for slot in &slots {
            if let Some(state @ DeviceState::Ok(_)) = record.devices.get_mut(usize::from(*slot)) {
                let holders = state.holders().to_vec();
                *state = DeviceState::Unknown { since: now, holders };
            }
        }
        self.event(Event::DevicesUnknown { node, slots });
    }

    /// What runs there cannot be ended (rule 12).
    pub(super) fn quarantine_part(&mut self, gang: GangId, at: usize, slots: &[u16], why: &str) {
        self.orphan_part(gang, at, PartState::Quarantined);
        let (node, mut held) = self.part_slots(gang, at);
        held.extend(slots.iter().filter(|slot| !held.contains(slot)).copied().collect::<Vec<_>>());
        held.into_iter().for_each(|slot| self.quarantine_device(node, slot, why));
    }

    /// The same of a part whose attempt has ended already. False when there is no such orphan.
    pub(super) fn quarantine_orphan(
        &mut self,
        node: NodeId,
        gang: GangId,
        token: Token,
        slots: &[u16],
        why: &str,
    ) -> bool {
        let orphans = self.state.nodes.get(&node).map_or(&[][..], |record| &record.orphans);
        let Some(orphan) = orphans.iter().find(|orphan| orphan.gang == gang && orphan.token == token) else {
            return false;
        };
        let mut bad: Vec<u16> = orphan.devices.iter().map(|(slot, _)| *slot).collect();
        bad.extend(slots);
        bad.into_iter().for_each(|slot| self.quarantine_device(node, slot, why));
        true
    }

    pub(super) fn quarantine_device(&mut self, node: NodeId, slot: u16, why: &str) {
        let now = self.now();
        let record = self.node_mut(node);
        let Some(state) = record.devices.get_mut(usize::from(slot)) else {
            return;
        };
        if matches!(state, DeviceState::Quarantined { .. }) {
            return;
        }
        let holders = state.holders().to_vec();
        *state = DeviceState::Quarantined { since: now, why: why.into(), holders };
        self.event(Event::DeviceQuarantined { node, slot, why: why.into() });
    }

    fn part_slots(&self, gang: GangId, at: usize) -> (NodeId, Vec<u16>) {
        let attempt = self.state.gangs.get(&gang).and_then(|record| record.current()).expect("the attempt is live");
        let part = &attempt.parts[at];
        (part.node, part.devices.iter().map(|(slot, _)| *slot).collect())
    }

    fn orphan_part(&mut self, gang: GangId, at: usize, state: PartState) {
        let Some((part, number, token, port)) = self.unsettled(gang, at) else {
            return;
        };
        let grace_ms = self.scheduling_of(gang).checkpoint.grace_ms;
        let node = self.node_mut(part.node);
        node.gangs.remove(&gang);
        node.orphans.push(Orphan {
            gang,
            attempt: number,
            token,
            devices: part.devices,
            amount: part.amount,
            port: (at == 0).then_some(port),
            grace_ms,
        });
        self.settle(gang, at, state);
    }

    /// Evidence that an orphan is gone. False when there is no such orphan.
    pub(super) fn release_orphan(&mut self, node: NodeId, gang: GangId, token: Token, evidence: Evidence) -> bool {
        let record = self.node_mut(node);
        let Some(at) = record.orphans.iter().position(|orphan| orphan.gang == gang && orphan.token == token) else {
            return false;
        };
        let orphan = record.orphans.remove(at);
        record.used = record.used.minus(&orphan.amount).expect("an orphan's amount was added when it was placed");
        if let Some(port) = orphan.port {
            record.ports.remove(&port);
        }
        let key = Holder { gang, attempt: orphan.attempt, token, milli: 0 };
        let freed = free_devices(record, &orphan.devices, &key);
        self.note_idle(node);
        if !freed.is_empty() {
            self.event(Event::DevicesFree { node, slots: freed, evidence });
        }
        true
    }

    fn unsettled(&self, gang: GangId, at: usize) -> Option<(Allocation, AttemptNo, Token, u16)> {
        let attempt = self.state.gangs.get(&gang)?.current()?;
        let part = attempt.parts.get(at).filter(|part| !part.state.is_settled())?;
        Some((part.clone(), attempt.number, attempt.token, attempt.master_port))
    }

    fn settle(&mut self, gang: GangId, at: usize, state: PartState) {
        let attempt = self.gang_mut(gang).current_mut().expect("an unsettled part has an attempt");
        attempt.parts[at].state = state;
    }
}

/// Takes one holder off the devices; returns the slots that nobody holds any more.
fn free_devices(node: &mut NodeRecord, devices: &[(u16, u16)], gone: &Holder) -> Vec<u16> {
    let orphans: Vec<(GangId, Token)> = node.orphans.iter().map(|orphan| (orphan.gang, orphan.token)).collect();
    let mut freed = Vec::new();
    for (slot, _) in devices {
        let Some(state) = node.devices.get_mut(usize::from(*slot)) else {
            continue;
        };
        let mut holders = state.holders().to_vec();
        holders.retain(|holder| holder.gang != gone.gang || holder.token != gone.token);
        let empty = holders.is_empty();
        match state {
            DeviceState::Ok(now) => *now = holders,
            DeviceState::Quarantined { holders: now, .. } => *now = holders,
            DeviceState::Unknown { holders: now, .. } => {
                // Another share's holder may still be unaccounted for.
                if holders.iter().any(|holder| orphans.contains(&(holder.gang, holder.token))) {
                    *now = holders;
                    continue;
                }
                *state = DeviceState::Ok(holders);
            }
        }
        if empty && matches!(state, DeviceState::Ok(_)) {
            freed.push(*slot);
        }
    }
    freed
}
