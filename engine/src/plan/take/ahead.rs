//! Devices that are kept, in the time to come: a start is booked on them only behind the run of whom they are kept for,
//! or whatever was booked on what victims leave would move later when the gang that they leave it to takes it.

use super::keep::comes_with;
use crate::command::PlacedPart;
use crate::plan::backfill::expected_end;
use crate::plan::bookings::BookedPart;
use crate::plan::round::Round;
use crate::state::reservation::{Reservation, ReservationKind};
use muster_common::resources::Amount;
use muster_common::{DeviceId, GangId, NodeId, Time};
use std::collections::BTreeMap;

/// What is kept of one node for one gang.
#[derive(Debug)]
pub struct KeptAhead {
    /// The end of that gang's run.
    pub until: Time,
    /// With the CPU and memory that come free with the devices.
    pub share: BookedPart,
}

impl Round<'_> {
    /// Sets what is kept apart on the timelines too, once those are served that can be.
    pub(super) fn keep_ahead(&mut self, all: &[&Reservation]) {
        for known in all {
            let moves = known.kind == ReservationKind::Moved && self.running(known.gang).is_some();
            let stays = self.waits_for_kept(known.gang) && !self.placed.contains(&known.gang);
            if moves || stays {
                self.keep_ahead_of(known);
            }
        }
    }

    fn keep_ahead_of(&mut self, known: &Reservation) {
        let until = self.left_again(known.gang).map_or(Time::NEVER, |left_ms| self.begins_at(known).plus_ms(left_ms));
        self.keep_until(until, known.witness.iter().copied());
        let Some(masked) = self.taking.masked.get(&known.gang).filter(|_| until < Time::NEVER) else { return };
        // What is free and set aside is given back by nobody else.
        for part in masked {
            let devices = part.slots.iter().filter(|(_, milli)| *milli > 0).copied().collect();
            let (group, node, epoch, amount) = (0, part.node, 0, part.amount);
            let part = PlacedPart { group, node, epoch, devices, amount };
            self.own.entry(node).or_default().push((until, part));
        }
    }

    /// Nobody else is told a start on these before then.
    pub(super) fn keep_until(&mut self, until: Time, witness: impl Iterator<Item = DeviceId>) {
        let mut by_node: BTreeMap<NodeId, Vec<(u16, u16)>> = BTreeMap::new();
        for device in witness {
            by_node.entry(device.node).or_default().push((device.slot, 1000));
        }
        for (node, devices) in by_node {
            let slots: Vec<u16> = devices.iter().map(|(slot, _)| *slot).collect();
            let amount = comes_with(self.state, node, &slots);
            let share = BookedPart { devices, amount, free: Vec::new(), left: Amount::default() };
            self.taking.ahead.entry(node).or_default().push(KeptAhead { until, share });
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
        let released = |device: &DeviceId| self.times.line(device.node)?.released_at(device.slot);
        known.witness.iter().filter_map(released).max().unwrap_or(known.end)
    }

    fn left_again(&self, gang: GangId) -> Option<u64> {
        match self.waiting.item_of(self.state, gang) {
            Some(item) => item.left_ms,
            None => self.item_again(gang)?.left_ms,
        }
    }

    /// Takes out of what is given back at a moment what is kept for others beyond it, and tells when that can be had.
    pub fn put_off_kept(&self, part: &mut PlacedPart, end: Time, mut later: impl FnMut(Time, PlacedPart)) {
        let Some(kept) = self.taking.ahead.get(&part.node) else { return };
        for KeptAhead { until, share } in kept.iter().filter(|kept| kept.until > end) {
            let is_kept = |slot: u16| share.devices.iter().any(|(other, _)| *other == slot);
            let devices = part.devices.extract_if(.., |(slot, _)| is_kept(*slot)).collect();
            if *until < Time::NEVER {
                later(*until, PlacedPart { devices, amount: Amount::default(), ..part.clone() });
            }
        }
    }
}
