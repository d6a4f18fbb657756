//! Devices that are kept, in the time to come: a start is booked on them only behind the run of whom they are kept for,
//! or whatever was booked on what victims leave would move later when the gang that they leave it to takes it.

use super::keep::{Kept, comes_with, what_became_of};
use super::{Masked, Taken};
use crate::command::PlacedPart;
use crate::plan::backfill::expected_end;
use crate::plan::bookings::BookedPart;
use crate::plan::round::Round;
use crate::state::reservation::{Reservation, ReservationKind, slots_by_node};
use muster_common::resources::Amount;
use muster_common::{DeviceId, GangId, Time};
use std::cmp::Reverse;

/// What is kept of one node for one gang.
#[derive(Debug)]
pub struct KeptAhead {
    /// From when on its CPU and memory are kept too: they come free with the devices.
    from: Time,
    /// The end of that gang's run.
    until: Time,
    devices: BookedPart,
    amount: BookedPart,
}

impl KeptAhead {
    /// What there is of it at a moment, each with the time for which it is kept.
    pub fn parts(&self) -> [(Time, Time, &BookedPart); 2] {
        [(Time::ZERO, self.until, &self.devices), (self.from, self.until, &self.amount)]
    }
}

impl Round<'_> {
    /// Sets what is kept apart on the timelines too, once those are served that can be.
    pub(super) fn keep_ahead(&mut self, all: &[&Reservation]) {
        for known in all {
            let has_not_gone = known.kind.outlasts_attempt() && self.running(known.gang).is_some();
            let waits = self.waits_for_kept(known.gang) && !self.placed.contains(&known.gang);
            // What was given up in this cycle is masked no longer.
            if (has_not_gone || waits) && self.taking.masked.contains_key(&known.gang) {
                self.keep_ahead_of(known);
            }
        }
    }

    fn keep_ahead_of(&mut self, known: &Reservation) {
        let from = self.begins_at(known).max(self.now);
        let until = self.left_again(known.gang).map_or(Time::NEVER, |left_ms| from.plus_ms(left_ms));
        self.keep_until((from, until), known.witness.iter().copied());
        // What is free and set aside is given back by nobody else.
        let masked = self.taking.masked.get(&known.gang).into_iter().flatten();
        let part = |part: &Masked| {
            let devices = part.slots.iter().filter(|(_, milli)| *milli > 0).copied().collect();
            PlacedPart { group: 0, node: part.node, epoch: 0, devices, amount: part.amount }
        };
        let parts: Vec<PlacedPart> = masked.map(part).collect();
        self.give_back_at(until, parts);
    }

    /// As of what is placed in this cycle.
    fn give_back_at(&mut self, until: Time, parts: Vec<PlacedPart>) {
        for part in parts.into_iter().filter(|_| until < Time::NEVER) {
            self.own.entry(part.node).or_default().push((until, part));
        }
    }

    /// Nobody else is told a start on what this cycle has victims leave, and what else is taken with it: `free`, what of
    /// that is free.
    pub(super) fn keep_chosen(&mut self, gang: GangId, gone_by: Time, taken: &Taken, free: Vec<PlacedPart>) {
        let left = |gang: GangId| self.waiting.item_of(self.state, gang).and_then(|item| item.left_ms);
        let leaves = |holder: &GangId| !self.taking.victims.contains(holder) && !taken.victims.contains(holder);
        let released = |device: DeviceId| {
            let holders = self.state.node(device.node)?.devices.get(usize::from(device.slot))?.holders();
            let any = holders.iter().any(|holder| leaves(&holder.gang));
            self.times.line(device.node)?.released_at(device.slot).filter(|_| any)
        };
        let from = taken.devices().filter_map(released).chain([gone_by]).max().unwrap_or(gone_by);
        let until = left(gang).map_or(Time::NEVER, |left_ms| from.plus_ms(left_ms));
        self.keep_until((from, until), taken.devices());
        self.give_back_at(until, free);
    }

    /// What is free of such parts.
    pub(super) fn free_of(&self, parts: &[PlacedPart]) -> Vec<PlacedPart> {
        let of_part = |part: &PlacedPart| {
            let view = self.ledger.node(part.node)?;
            let free = |slot: u16| view.free.get(usize::from(slot)).copied().unwrap_or(0);
            let devices: Vec<(u16, u16)> = part.devices.iter().map(|&(slot, _)| (slot, free(slot))).collect();
            let devices: Vec<(u16, u16)> = devices.into_iter().filter(|(_, milli)| *milli > 0).collect();
            let amount = Amount {
                cpu_milli: part.amount.cpu_milli.min(view.amount.cpu_milli),
                memory_bytes: part.amount.memory_bytes.min(view.amount.memory_bytes),
            };
            Some(PlacedPart { devices, amount, ..part.clone() })
        };
        parts.iter().filter_map(of_part).collect()
    }

    fn keep_until(&mut self, (from, until): (Time, Time), witness: impl Iterator<Item = DeviceId>) {
        for (node, mut slots) in slots_by_node(witness) {
            // A machine that has come back with fewer devices has no more to keep.
            let there = self.ledger.node(node).map_or(0, |view| view.free.len());
            slots.retain(|slot| usize::from(*slot) < there);
            let part = |devices, amount| BookedPart { devices, amount, free: Vec::new(), left: Amount::default() };
            let amount = part(Vec::new(), comes_with(self.state, node, &slots));
            let devices = part(slots.into_iter().map(|slot| (slot, 1000)).collect(), Amount::default());
            self.taking.ahead.entry(node).or_default().push(KeptAhead { from, until, devices, amount });
        }
    }

    /// When whoever is in its way is expected to be gone; where that is unknown, by when it is kept no longer.
    fn begins_at(&self, known: &Reservation) -> Time {
        if let (ReservationKind::Moved, Some(record)) = (known.kind, self.state.gang(known.gang))
            && record.current().is_some()
        {
            return expected_end(self.state, record, self.now);
        }
        if known.kind != ReservationKind::Victims {
            return known.end;
        }
        if what_became_of(self.state, known, |_| false) == Kept::Lost {
            // They have not been told to leave yet.
            return known.start;
        }
        let released = |device: &DeviceId| self.times.line(device.node)?.released_at(device.slot);
        known.witness.iter().filter_map(released).max().unwrap_or(known.end)
    }

    fn left_again(&self, gang: GangId) -> Option<u64> {
        match self.waiting.item_of(self.state, gang) {
            Some(item) => item.left_ms,
            None => self.item_again(gang)?.left_ms,
        }
    }

    /// Is any of these kept for others beyond a moment?
    pub fn is_kept_beyond(&self, at: Time, witness: &[DeviceId]) -> bool {
        let kept = |device: &DeviceId| {
            let kept = self.taking.ahead.get(&device.node).into_iter().flatten().filter(|kept| kept.until > at);
            let mut slots = kept.flat_map(|kept| &kept.devices.devices);
            slots.any(|(slot, _)| *slot == device.slot)
        };
        !self.taking.ahead.is_empty() && witness.iter().any(kept)
    }

    /// Takes out of what is given back at a moment what is kept for others beyond it, with its share of CPU and memory,
    /// and tells when that can be had.
    pub fn put_off_kept(&self, part: &mut PlacedPart, end: Time, mut later: impl FnMut(Time, PlacedPart)) {
        let Some(kept) = self.taking.ahead.get(&part.node) else { return };
        let mut beyond: Vec<&KeptAhead> = kept.iter().filter(|kept| kept.until > end).collect();
        // Of what several keep, the last to let go of it has the word.
        beyond.sort_by_key(|kept| Reverse(kept.until));
        for KeptAhead { until, devices, .. } in beyond {
            let all = part.devices.len().max(1) as u64;
            let is_kept = |slot: u16| devices.devices.iter().any(|(other, _)| *other == slot);
            let taken: Vec<(u16, u16)> = part.devices.extract_if(.., |(slot, _)| is_kept(*slot)).collect();
            if taken.is_empty() {
                continue;
            }
            let share = |of: u64| of / all * taken.len() as u64;
            let Amount { cpu_milli, memory_bytes } = part.amount;
            let amount = Amount { cpu_milli: share(cpu_milli), memory_bytes: share(memory_bytes) };
            part.amount = part.amount.minus(&amount).unwrap_or_default();
            if *until < Time::NEVER {
                later(*until, PlacedPart { devices: taken, amount, ..part.clone() });
            }
        }
    }
}
