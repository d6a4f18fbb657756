//! A node comes, or comes again: a new epoch, and evidence about what ran before.

use super::{Applying, Result};
use crate::command::{HeldToken, Occupied, Registration};
use crate::outcome::{Event, Evidence, Refusal, Response};
use crate::state::NODES_MAX;
use crate::state::gang::Cause;
use crate::state::node::{DeviceState, Holder, Liveness, NodeRecord, Orphan, Power};
use muster_common::node::Inventory;
use muster_common::resources::{Amount, Share};
use muster_common::{GangId, NodeId, Time, Token};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Most devices on one node.
pub const DEVICES_MAX: usize = 256;

impl Applying<'_> {
    pub(super) fn register(&mut self, registration: &Registration) -> Result {
        check_inventory(&registration.inventory)?;
        match self.state.node_names.get(&registration.name).copied() {
            None => self.register_new(registration),
            Some(node) => self.register_again(node, registration),
        }
    }

    fn register_new(&mut self, registration: &Registration) -> Result {
        if self.state.nodes.len() as u64 >= NODES_MAX {
            return Err(Refusal::Full { what: "nodes".into(), limit: NODES_MAX });
        }
        let node = NodeId(self.entry.index);
        let devices = registration.inventory.devices.len();
        self.state.node_names.insert(registration.name.clone(), node);
        self.state.nodes.insert(
            node,
            NodeRecord {
                id: node,
                name: registration.name.clone(),
                epoch: self.entry.index,
                registered_at: self.now(),
                store_id: registration.store_id.clone(),
                instance: registration.instance.clone(),
                inventory: registration.inventory.clone(),
                liveness: Liveness::Up,
                closed: None,
                power: Power::AWAKE,
                worked_until: Time::ZERO,
                devices: vec![DeviceState::Ok(Vec::new()); devices],
                used: Amount::default(),
                ports: BTreeMap::new(),
                gangs: BTreeSet::new(),
                orphans: Vec::new(),
                store_since: self.token(),
                reports_applied: 0,
                from_backup: false,
            },
        );
        self.stop_unknown(node, &registration.held);
        Ok(self.registered(node, registration, false))
    }

    fn register_again(&mut self, node: NodeId, registration: &Registration) -> Result {
        let record = self.state.nodes.get(&node).expect("named by the name table");
        let rebooted = record.inventory.boot_id != registration.inventory.boot_id;
        let same_hardware = record.inventory.hardware_id == registration.inventory.hardware_id;
        let same_process = record.instance == registration.instance;
        let idle = record.gangs.is_empty() && record.orphans.is_empty();
        if !idle && !same_hardware {
            let why = format!(
                "node name `{}` belongs to other hardware whose work is not proven gone; \
                 state it released with `muster node state-released`, or register under another name",
                registration.name
            );
            return Err(Refusal::Invalid(why));
        }
        if !idle && rebooted && registration.old_boot_silent {
            self.settle_all(node, Evidence::Reboot, |_, _| true, Cause::NodeLost { node });
        } else if !idle && !rebooted && !is_new_store(record, registration) {
            // What was placed before the store existed may run without its knowledge.
            let (held, since) = (registration.held.clone(), record.store_since);
            self.settle_all(
                node,
                Evidence::NeverHeld,
                move |gang, token| token > since && !holds(&held, gang, token),
                Cause::Vanished { node },
            );
        } else if !idle {
            // No evidence: the agent is told to stop what it can no longer name, and answers.
            for gang in self.state.nodes.get(&node).map(|record| record.gangs.clone()).unwrap_or_default() {
                self.stop(gang, Cause::Vanished { node });
            }
        }
        let works = registration.held.iter().any(|held| held.live.is_some());
        self.found_awake(node, rebooted || works, same_process);
        self.renew_record(node, registration);
        self.stop_unknown(node, &registration.held);
        Ok(self.registered(node, registration, rebooted))
    }

    fn settle_all(&mut self, node: NodeId, evidence: Evidence, gone: impl Fn(GangId, Token) -> bool, cause: Cause) {
        let record = self.state.nodes.get(&node).expect("seen by the caller");
        let orphans: Vec<(GangId, Token)> = record.orphans.iter().map(|orphan| (orphan.gang, orphan.token)).collect();
        for gang in record.gangs.clone() {
            let token = self.state.gangs.get(&gang).and_then(|record| record.current()).map(|attempt| attempt.token);
            if token.is_some_and(|token| gone(gang, token)) {
                self.stop(gang, cause.clone());
                self.release_on(node, gang, evidence);
            }
        }
        for (gang, token) in orphans {
            if gone(gang, token) {
                self.release_orphan(node, gang, token, evidence);
            }
        }
    }

    /// What an agent runs and State does not know, because it was placed after the backup that State comes from, or
    /// because an operator called it gone: it is told to stop by its token, and its devices are unknown until it is gone.
    fn stop_unknown(&mut self, node: NodeId, held: &[HeldToken]) {
        for held in held {
            let Some(live) = held.live.as_ref().filter(|_| !self.knows(node, held)) else { continue };
            let slots = self.occupy(node, held, live);
            self.event(Event::DevicesUnknown { node, slots });
        }
    }

    fn knows(&self, node: NodeId, held: &HeldToken) -> bool {
        let record = self.state.nodes.get(&node).expect("it registers now");
        let attempt = self.state.gangs.get(&held.gang).and_then(|gang| gang.current());
        let live = record.gangs.contains(&held.gang) && attempt.is_some_and(|attempt| attempt.token == held.token);
        live || record.orphans.iter().any(|orphan| orphan.gang == held.gang && orphan.token == held.token)
    }

    /// Returns the slots that became unknown. What cannot be, as State counts, is left out: the agent's word about its
    /// own devices must not break anybody else's.
    fn occupy(&mut self, node: NodeId, held: &HeldToken, live: &Occupied) -> Vec<u16> {
        let since = self.now();
        let HeldToken { gang, attempt, token, .. } = *held;
        let record = self.node_mut(node);
        let mut devices: Vec<(u16, u16)> = Vec::new();
        for (slot, milli) in live.devices.iter().copied() {
            let Some(state) = record.devices.get_mut(usize::from(slot)) else { continue };
            let mut holders = state.holders().to_vec();
            let taken: u32 = holders.iter().map(|holder| u32::from(holder.milli)).sum();
            let fits = milli > 0 && taken + u32::from(milli) <= u32::from(Share::WHOLE.0);
            if !fits || devices.iter().any(|(known, _)| *known == slot) {
                continue;
            }
            holders.push(Holder { gang, attempt, token, milli });
            match state {
                DeviceState::Quarantined { holders: now, .. } => *now = holders,
                _ => *state = DeviceState::Unknown { since, holders },
            }
            devices.push((slot, milli));
        }
        let fits = record.inventory.amount().covers(&record.used.plus(&live.amount));
        let amount = if fits { live.amount } else { Amount::default() };
        record.used = record.used.plus(&amount);
        let slots = devices.iter().map(|(slot, _)| *slot).collect();
        record.orphans.push(Orphan { gang, attempt, token, devices, amount, port: None, grace_ms: live.grace_ms });
        slots
    }

    fn renew_record(&mut self, node: NodeId, registration: &Registration) {
        let (epoch, now, token) = (self.entry.index, self.now(), self.token());
        let record = self.node_mut(node);
        let idle = record.gangs.is_empty() && record.orphans.is_empty();
        if record.store_id != registration.store_id {
            record.reports_applied = 0;
        }
        if is_new_store(record, registration) {
            record.store_since = token;
        }
        record.epoch = epoch;
        record.registered_at = now;
        record.store_id = registration.store_id.clone();
        record.instance = registration.instance.clone();
        record.liveness = Liveness::Up;
        record.from_backup = false;
        let same_devices = uuids(&record.inventory).eq(uuids(&registration.inventory));
        if same_devices {
            self.renew_inventory(node, &registration.inventory);
            return;
        }
        if idle {
            record.devices = quarantine_kept(record, &registration.inventory);
            record.inventory = registration.inventory.clone();
            return;
        }
        self.keep_slots(node, &registration.inventory);
    }

    /// A part that has all CPU and memory of its node, as every exclusive one has, keeps others away only while there is
    /// no more: what the node has gained counts from the registration that finds the part gone.
    fn renew_inventory(&mut self, node: NodeId, inventory: &Arc<Inventory>) {
        let filled = self.is_filled_by_one(node);
        let record = self.node_mut(node);
        record.inventory = if filled {
            let Amount { cpu_milli, memory_bytes } = record.inventory.amount();
            Arc::new(Inventory { cpu_milli, memory_bytes, ..(**inventory).clone() })
        } else {
            no_smaller(inventory, record.used)
        };
    }

    fn is_filled_by_one(&self, node: NodeId) -> bool {
        let record = self.state.nodes.get(&node).expect("it registers now");
        let part = |gang: &GangId| {
            let attempt = self.state.gangs.get(gang)?.current()?;
            attempt.part_on(node).map(|at| attempt.parts[at].amount)
        };
        let parts = record.gangs.iter().filter_map(part);
        let all = record.inventory.amount();
        parts.chain(record.orphans.iter().map(|orphan| orphan.amount)).any(|amount| amount == all)
    }

    /// Slots stay as they are while anything is held; a device that is gone, or was cut into instances, is quarantined.
    fn keep_slots(&mut self, node: NodeId, inventory: &Arc<Inventory>) {
        let present: BTreeSet<&str> = uuids(inventory).collect();
        let split = inventory.split_slots();
        let split: BTreeSet<&str> =
            (0u16..).zip(uuids(inventory)).filter(|(slot, _)| split.contains(slot)).map(|(_, uuid)| uuid).collect();
        let record = self.state.nodes.get(&node).expect("it registers now");
        let split_before = record.inventory.split_slots();
        let lost = |(slot, uuid): (u16, &str)| {
            if !present.contains(uuid) {
                return Some((slot, "missing from the inventory"));
            }
            let cut = split.contains(uuid) && !split_before.contains(&slot);
            cut.then_some((slot, "cut into instances"))
        };
        let lost: Vec<(u16, &str)> = (0u16..).zip(uuids(&record.inventory)).filter_map(lost).collect();
        let mut kept = (**inventory).clone();
        kept.devices = record.inventory.devices.clone();
        kept.links = record.inventory.links.clone();
        self.renew_inventory(node, &Arc::new(kept));
        for (slot, why) in lost {
            let holders =
                self.state.nodes.get(&node).map(|record| record.devices[usize::from(slot)].holders().to_vec());
            for holder in holders.unwrap_or_default() {
                self.stop(holder.gang, Cause::DeviceFailed { node, slot });
            }
            self.quarantine_device(node, slot, why);
        }
    }

    fn registered(&mut self, node: NodeId, registration: &Registration, rebooted: bool) -> Response {
        self.state.touch(crate::state::change::Key::Node(node));
        let devices = registration.inventory.devices.len() as u16;
        let epoch = self.entry.index;
        self.event(Event::NodeRegistered { node, name: registration.name.clone(), epoch, devices, rebooted });
        Response::Registered { node, epoch }
    }
}

fn uuids(inventory: &Inventory) -> impl Iterator<Item = &str> {
    inventory.devices.iter().map(|device| device.uuid.as_str())
}

/// A store the node has not registered with before says nothing about what it never saw.
fn is_new_store(record: &NodeRecord, registration: &Registration) -> bool {
    let lost_again = registration.store_lost && registration.instance != record.instance;
    lost_again || registration.store_id != record.store_id
}

/// The devices of an idle node as it comes with others: one in quarantine stays there in whatever
/// slot it is found (rule 12).
fn quarantine_kept(record: &NodeRecord, inventory: &Inventory) -> Vec<DeviceState> {
    let before: BTreeMap<&str, &DeviceState> = uuids(&record.inventory).zip(&record.devices).collect();
    let state = |uuid| match before.get(uuid) {
        Some(quarantined @ DeviceState::Quarantined { .. }) => (*quarantined).clone(),
        _ => DeviceState::Ok(Vec::new()),
    };
    uuids(inventory).map(state).collect()
}

/// A node that comes back with less than its work was given has nothing free; what it really has counts from the
/// registration that finds it with less used.
fn no_smaller(inventory: &Arc<Inventory>, used: Amount) -> Arc<Inventory> {
    if inventory.amount().covers(&used) {
        return inventory.clone();
    }
    let cpu_milli = inventory.cpu_milli.max(used.cpu_milli);
    let memory_bytes = inventory.memory_bytes.max(used.memory_bytes);
    Arc::new(Inventory { cpu_milli, memory_bytes, ..(**inventory).clone() })
}

fn holds(held: &[HeldToken], gang: GangId, token: Token) -> bool {
    held.iter().any(|known| known.gang == gang && known.token == token)
}

fn check_inventory(inventory: &Inventory) -> Result<()> {
    let devices = inventory.devices.len();
    if devices > DEVICES_MAX {
        return Err(Refusal::Invalid(format!("{devices} devices; at most {DEVICES_MAX} are allowed on a node")));
    }
    let square = inventory.links.len() == devices && inventory.links.iter().all(|row| row.len() == devices);
    if !square {
        return Err(Refusal::Invalid(format!("the link matrix is not {devices} x {devices}")));
    }
    let distinct: BTreeSet<&str> = uuids(inventory).collect();
    if distinct.len() != devices {
        return Err(Refusal::Invalid("two devices have one UUID".into()));
    }
    Ok(())
}
