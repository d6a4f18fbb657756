//! Devices kept for a gang: for its victims to leave them, or since it lost a node. Nobody else gets
//! them, and it is offered them before anybody is offered anything.

use super::Masked;
use crate::command::{PlacedPart, Placement, PlanStep};
use crate::cycle::foresees;
use crate::plan::feasible::{amount_on, part_amount};
use crate::plan::ledger::Ledger;
use crate::plan::round::Round;
use crate::plan::shape::check_placement_shape;
use crate::plan::waiting::Item;
use crate::state::State;
use crate::state::gang::GangState;
use crate::state::node::{DeviceState, NodeRecord, Power};
use crate::state::reservation::{Reservation, ReservationKind, slots_by_node};
use muster_common::job::Count;
use muster_common::resources::Amount;
use muster_common::{AttemptNo, DeviceId, GangId, JobId, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// What has come of devices that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// All are free, or will be.
    Coming,
    /// Some cannot be had any more.
    Lost,
}

impl Round<'_> {
    /// Sets aside what is kept, then offers it to those it is kept for.
    pub fn serve_kept(&mut self) {
        let kept = |known: &&Reservation| known.kind.keeps_devices();
        let all: Vec<&Reservation> = self.state.reservations().values().filter(kept).collect();
        all.iter().for_each(|known| self.mask(known));
        for known in &all {
            self.serve(known);
        }
        if foresees(self.state) {
            self.keep_ahead(&all);
        }
    }

    /// Nobody else's, with the CPU and memory that go with them.
    fn mask(&mut self, known: &Reservation) {
        let by_node = slots_by_node(known.witness.iter().copied());
        let part = |(node, slots): (&NodeId, &Vec<u16>)| PlacedPart {
            group: 0,
            node: *node,
            epoch: 0,
            devices: slots.iter().map(|slot| (*slot, 1000)).collect(),
            amount: Amount::default(),
        };
        let parts: Vec<PlacedPart> = by_node.iter().map(part).collect();
        self.charge_kept(known.gang, &parts);
        // What will be its own for good counts for it before it is free.
        let takes = self.keep_cells(known.gang, &parts);
        if !takes.is_empty() {
            self.taking.cells.insert(known.gang, takes);
        }
        let masked = hide(self.state, self.ledger, known);
        self.taking.masked_slots.extend(known.witness.iter().copied());
        self.taking.masked.insert(known.gang, masked);
    }

    /// The quota is kept with the devices, or others would borrow it while they come free: of those that nobody
    /// holds now. What is still held counts for its holder.
    pub(super) fn charge_kept(&mut self, gang: GangId, parts: &[PlacedPart]) {
        let split = |free: bool| -> Vec<PlacedPart> {
            let of_part = |part: &PlacedPart| {
                let is_free = |&&(slot, _): &&(u16, u16)| self.is_free(DeviceId { node: part.node, slot }) == free;
                PlacedPart { devices: part.devices.iter().filter(is_free).copied().collect(), ..part.clone() }
            };
            parts.iter().map(of_part).filter(|part| !part.devices.is_empty()).collect()
        };
        let (free, coming) = (split(true), split(false));
        self.charge(gang, &free, 1);
        self.taking.charged.insert(gang, free);
        self.taking.coming.insert(gang, coming);
    }

    pub fn is_free(&self, device: DeviceId) -> bool {
        let node = self.state.node(device.node);
        node.and_then(|node| node.devices.get(usize::from(device.slot))).is_some_and(DeviceState::is_free)
    }

    pub(super) fn unmask(&mut self, gang: GangId) {
        if let Some(parts) = self.taking.charged.get(&gang).cloned() {
            self.charge(gang, &parts, -1);
        }
        let takes = self.taking.cells.get(&gang).into_iter().flatten();
        takes.for_each(|take| self.ledger.hold_cells(*take, -1));
        let Some(masked) = self.taking.masked.get(&gang) else { return };
        // A device that leaves one gang may be kept for another, and that one's node be lost meanwhile: both then keep it.
        let others =
            self.state.reservations().values().filter(|known| known.gang != gang && known.kind.keeps_devices());
        let of_others: BTreeSet<DeviceId> = others.flat_map(|known| known.witness.iter().copied()).collect();
        for Masked { node, slots, amount } in masked {
            let own = slots.iter().filter(|(slot, _)| !of_others.contains(&DeviceId { node: *node, slot: *slot }));
            self.ledger.change(*node, |view| {
                own.for_each(|(slot, free)| view.free[usize::from(*slot)] = *free);
                view.amount = view.amount.plus(amount);
            });
        }
    }

    /// It is anybody's again, its own too.
    fn give_up(&mut self, known: &Reservation) {
        let gang = known.gang;
        self.steps.push(PlanStep::Unreserve { gang });
        self.unmask(gang);
        self.ledger.owed.forget_kept(gang);
        let taking = &mut self.taking;
        taking.masked.remove(&gang);
        taking.charged.remove(&gang);
        taking.coming.remove(&gang);
        taking.cells.remove(&gang);
        let kept = self.state.reservations().values().filter(|other| taking.masked.contains_key(&other.gang));
        taking.masked_slots = kept.flat_map(|other| other.witness.iter().copied()).collect();
    }

    fn serve(&mut self, known: &Reservation) {
        let gang = known.gang;
        let Some(item) = self.waiting.item_of(self.state, gang).cloned() else {
            // Until all of it has gone, others of its payer leave it what it will start with.
            if known.kind == ReservationKind::Moved && self.running(gang).is_some() {
                self.count_against_limits(gang);
            }
            // Who may not start has nobody told to leave for it.
            if known.kind == ReservationKind::Victims && what_became_of(self.state, known, |_| false) == Kept::Lost {
                self.give_up(known);
            }
            return;
        };
        let choice = match what_became_of(self.state, known, |_| false) {
            Kept::Coming => None,
            Kept::Lost => {
                let waits = self.not_eligible(gang, &item).is_none();
                let choice = match waits {
                    true => self.within_own(gang, |round| round.still_takes(known, &item)),
                    false => None,
                };
                if choice.is_none() {
                    self.give_up(known);
                    return;
                }
                choice
            }
        };
        self.taking.waiting.insert(gang);
        self.note_own_work(gang, false);
        if self.not_eligible(gang, &item).is_some() {
            return;
        }
        if let Some(parts) = self.within_own(gang, |round| round.kept_parts(known, &item)) {
            // It is charged for what it takes, no longer for what was kept.
            self.taking.coming.remove(&gang);
            if let Some(kept) = self.taking.charged.remove(&gang) {
                self.charge(gang, &kept, -1);
            }
            let kept = self.taking.cells.remove(&gang).unwrap_or_default();
            kept.into_iter().for_each(|take| self.ledger.hold_cells(take, -1));
            self.ledger.owed.forget_kept(gang);
            self.take(&parts);
            self.place(gang, &item, parts);
        } else if let Some(choice) = choice {
            self.take_when_ripe(known, choice);
        } else if self.came_in_vain(known, &item) {
            self.give_up(known);
        }
    }

    /// Has everybody left for a gang that may not start there any more, for its account's quota or others' cells? Others
    /// have taken that meanwhile, and what is kept keeps whoever owns it waiting.
    fn came_in_vain(&mut self, known: &Reservation, item: &Item) -> bool {
        if known.kind != ReservationKind::Victims || !known.witness.iter().all(|device| self.is_free(*device)) {
            return false;
        }
        let mark = self.ledger.mark();
        self.unmask(known.gang);
        // What is put aside for others is no reason to give up what is kept.
        self.set_aside_for(item);
        self.shut(item.longest(), 0);
        let firm = self.ledger.owed.is_on() && self.ledger.owed.is_firm(&item.scheduling);
        let anywhere = |round: &mut Self| {
            let item = round.within_quota(item).map(std::borrow::Cow::into_owned);
            item.is_some_and(|item| round.placed_anywhere(known.gang, &item).is_some())
        };
        let vain = self.is_over_quota(item) || firm && anywhere(self);
        self.put_back();
        self.ledger.rollback(mark);
        vain
    }

    /// What the gang has now of that, and of all else.
    fn kept_parts(&mut self, known: &Reservation, item: &Item) -> Option<Vec<PlacedPart>> {
        let mark = self.ledger.mark();
        self.unmask(known.gang);
        // What is put aside for others stays so, even where it is kept for this one.
        self.set_aside_for(item);
        self.shut(item.longest(), 0);
        let parts = match known.kind {
            ReservationKind::Wounded => self.mended(known, item),
            _ => None,
        };
        let parts = parts.or_else(|| self.search(known.gang, item)).or_else(|| self.found_on_kept(known, item));
        self.put_back();
        self.ledger.rollback(mark);
        parts
    }

    /// The nodes that a wounded gang has kept, each rank on its own, and others for those it lost.
    fn mended(&mut self, known: &Reservation, item: &Item) -> Option<Vec<PlacedPart>> {
        let state = self.state;
        let gang = known.gang;
        let record = state.gang(gang)?;
        let [group] = item.scheduling.groups.as_slice() else { return None };
        let Count::Nodes { per_node, .. } = group.count else { return None };
        let before = &record.past.last()?.attempt.parts;
        let kept: BTreeSet<DeviceId> = known.witness.iter().copied().collect();
        let mut parts: Vec<Option<PlacedPart>> = Vec::new();
        for part in before {
            let node = state.node(part.node).filter(|node| node.is_open() && !record.excluded.contains(&node.id));
            let is_free = |&(slot, milli): &(u16, u16)| {
                let free = node.and_then(|node| node.devices.get(usize::from(slot))).is_some_and(DeviceState::is_free);
                free && milli == 1000 && kept.contains(&DeviceId { node: part.node, slot })
            };
            let whole = part.devices.iter().all(is_free) && part.devices.len() as u32 == per_node;
            let amount = node.map(|node| part_amount(group, node, per_node)).unwrap_or_default();
            let affords = self.ledger.node(part.node).is_some_and(|view| {
                let is_whole = |(slot, _): &(u16, u16)| view.free.get(usize::from(*slot)) == Some(&1000);
                view.amount.covers(&amount) && part.devices.iter().all(is_whole)
            });
            let mended = |node: &NodeRecord| PlacedPart { epoch: node.epoch, amount, ..placed(part) };
            parts.push(node.filter(|_| whole && affords).map(mended));
        }
        let missing = parts.iter().filter(|part| part.is_none()).count() as u32;
        if missing as usize == parts.len() {
            return None;
        }
        let mut new = Vec::new();
        if missing > 0 {
            let mut scheduling = (*item.scheduling).clone();
            scheduling.groups[0].count = Count::Nodes { nodes: missing, per_node };
            let rest = item.asking(scheduling);
            let own: Vec<NodeId> = parts.iter().flatten().map(|part| part.node).collect();
            let mark = self.ledger.mark();
            own.iter().for_each(|node| self.ledger.change(*node, |view| view.free.fill(0)));
            // What it keeps is its own: the rest is to leave everybody's cells beside it.
            let keeps: Vec<PlacedPart> = parts.iter().flatten().cloned().collect();
            self.hold_cells(gang, &keeps, 1);
            self.charge(gang, &keeps, 1);
            let found = self.search(gang, &rest);
            self.ledger.rollback(mark);
            new = found?;
        }
        let mut new = new.into_iter();
        let parts = parts.into_iter().map(|part| part.or_else(|| new.next())).collect::<Option<Vec<_>>>()?;
        // Devices are kept for it; the port of its first node is not, and others may have the last one.
        self.ledger.node(parts.first()?.node).filter(|view| view.ports > 0)?;
        let revision = state.job(gang.job)?.revision().number;
        let placement = Placement { gang, attempt: AttemptNo(record.attempt.0 + 1), revision, parts };
        check_placement_shape(&item.scheduling, &placement, state).ok()?;
        Some(placement.parts)
    }

    /// What is kept for gangs counts against limits as if they ran.
    pub fn count_kept(&mut self) {
        let counted = |gang: &&GangId| self.placed.contains(gang) || self.taking.counted.contains(gang);
        let waiting: Vec<GangId> = self.taking.waiting.iter().filter(|gang| !counted(gang)).copied().collect();
        self.taking.counted.extend(waiting.iter().copied());
        waiting.into_iter().for_each(|gang| self.count_against_limits(gang));
    }

    /// Gangs of a job that wait for what is kept for them, and are not placed in this cycle.
    pub fn kept_of(&self, job: JobId) -> u32 {
        let waiting = self.taking.waiting.range(GangId::new(job, 0)..=GangId::new(job, u32::MAX));
        waiting.filter(|gang| !self.placed.contains(gang)).count() as u32
    }

    /// From now on, for the rest of the cycle, these are nobody else's.
    pub fn keep_for(&mut self, gang: GangId, witness: &[DeviceId]) {
        let known = Reservation {
            gang,
            kind: ReservationKind::Woken,
            start: self.now,
            end: self.now,
            domain: None,
            witness: witness.to_vec(),
        };
        self.mask(&known);
        self.taking.waiting.insert(gang);
        self.taking.counted.insert(gang);
        self.count_against_limits(gang);
    }

    /// Does it wait for what is kept for it, and for nothing else?
    pub fn waits_for_kept(&self, gang: GangId) -> bool {
        self.taking.waiting.contains(&gang)
    }
}

/// Takes what is kept off the ledger: the devices, with the CPU and memory that go with them.
pub fn hide(state: &State, ledger: &mut Ledger, known: &Reservation) -> Vec<Masked> {
    let job = state.job(known.gang.job);
    let groups = job.map_or(&[][..], |job| &state.scheduling(job).groups);
    let mut masked = Vec::new();
    for (node, slots) in slots_by_node(known.witness.iter().copied()) {
        let comes = comes_with(state, node, &slots);
        ledger.change(node, |view| {
            let inventory = &view.facts.inventory;
            let asked = groups.iter().map(|group| amount_on(group, inventory, slots.len() as u32));
            let cpu_milli = asked.clone().map(|amount| amount.cpu_milli).max().unwrap_or(0);
            let memory_bytes = asked.map(|amount| amount.memory_bytes).max().unwrap_or(0);
            let amount = Amount {
                cpu_milli: cpu_milli.saturating_sub(comes.cpu_milli).min(view.amount.cpu_milli),
                memory_bytes: memory_bytes.saturating_sub(comes.memory_bytes).min(view.amount.memory_bytes),
            };
            let mut free = Vec::new();
            for slot in &slots {
                if let Some(milli) = view.free.get_mut(usize::from(*slot)) {
                    free.push((*slot, std::mem::take(milli)));
                }
            }
            view.amount = view.amount.minus(&amount).unwrap_or_default();
            masked.push(Masked { node, slots: free, amount });
        });
    }
    masked
}

/// CPU and memory that come free with devices, by whoever still holds them: others' are not kept in their place.
pub(super) fn comes_with(state: &State, node: NodeId, slots: &[u16]) -> Amount {
    let mut slots_of: BTreeMap<GangId, u64> = BTreeMap::new();
    let known = state.node(node).map_or(&[][..], |node| &node.devices);
    let devices = slots.iter().filter_map(|slot| known.get(usize::from(*slot)));
    devices.flat_map(|device| device.holders()).for_each(|holder| *slots_of.entry(holder.gang).or_default() += 1);
    let mut comes = Amount::default();
    for (gang, slots) in slots_of {
        let attempt = state.gang(gang).and_then(|record| record.current());
        let parts = attempt.iter().flat_map(|attempt| &attempt.parts);
        for part in parts.filter(|part| part.node == node && !part.state.is_settled()) {
            let devices = part.devices.len().max(1) as u64;
            comes.cpu_milli += part.amount.cpu_milli / devices * slots;
            comes.memory_bytes += part.amount.memory_bytes / devices * slots;
        }
    }
    comes
}

/// Victims leave, or have left, or may still be told to; what a wounded gang keeps is of use while any of it can be had.
pub(super) fn what_became_of(state: &State, known: &Reservation, may_go: impl Fn(GangId) -> bool) -> Kept {
    let comes = |device: &DeviceId| {
        let comes = |node: &&NodeRecord| node.is_open() || is_woken(known, node);
        let Some(node) = state.node(device.node).filter(comes) else { return false };
        let Some(DeviceState::Ok(holders)) = node.devices.get(usize::from(device.slot)) else { return false };
        let leaves =
            |gang: GangId| state.gang(gang).is_some_and(|record| matches!(record.state, GangState::Stopping(..)));
        holders.iter().all(|holder| leaves(holder.gang) || may_go(holder.gang))
    };
    let all_come = match known.kind {
        ReservationKind::Wounded => known.witness.iter().any(comes),
        _ => known.witness.iter().all(comes),
    };
    if all_come { Kept::Coming } else { Kept::Lost }
}

/// On its way, for the gang itself or for another that has room beside it.
fn is_woken(known: &Reservation, node: &NodeRecord) -> bool {
    known.kind == ReservationKind::Woken && node.is_in_service() && matches!(node.power, Power::Waking { .. })
}

fn placed(part: &crate::state::gang::Allocation) -> PlacedPart {
    PlacedPart {
        group: part.group,
        node: part.node,
        epoch: part.epoch,
        devices: part.devices.clone(),
        amount: part.amount,
    }
}
