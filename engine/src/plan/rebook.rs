//! Bookings that outlive a cycle: taken over from State as long as they can be kept, and moved only
//! where that makes them better. So none of them ever moves later by what others do.

use super::backfill::MOVED_MS;
use super::bookings::{BookedPart, Booking};
use super::feasible::amount_on;
use super::foreseen::Held;
use super::round::{Round, Tried};
use super::waiting::Item;
use crate::state::node::DeviceState;
use crate::state::reservation::{Reservation, ReservationKind};
use muster_common::{DeviceId, GangId, NodeId, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl Round<'_> {
    /// Takes over what somebody has put aside for a window of time.
    pub fn take_over_fixed(&mut self) {
        let ours = |known: &&Reservation| known.kind == ReservationKind::Advance && known.end > self.now;
        let known: Vec<&Reservation> = self.state.reservations().values().filter(ours).collect();
        for known in known {
            let booking = self.put_by_hand(known);
            self.booked.insert(Arc::new(booking));
        }
    }

    /// Where nothing is booked, what is put aside is nobody's until its window is over.
    pub fn withhold_fixed(&mut self) {
        for booking in self.booked.iter().filter(|booking| !booking.is_window()) {
            for (node, share) in booking.on.iter() {
                self.ledger.change(*node, |view| {
                    share.devices.iter().for_each(|(slot, _)| view.free[usize::from(*slot)] = 0);
                });
            }
        }
    }

    /// Takes over what earlier cycles have booked, as far as it can still be kept, the earliest first.
    pub fn take_over_bookings(&mut self) {
        if self.state.policy().backfill.reserve_depth <= 1 {
            return;
        }
        let ours = |known: &&Reservation| {
            matches!(known.kind, ReservationKind::Head | ReservationKind::Booked) && known.start < Time::NEVER
        };
        let mut known: Vec<&Reservation> = self.state.reservations().values().filter(ours).collect();
        known.sort_by_key(|known| (known.start, known.gang));
        for known in known {
            let gang = known.gang;
            let Some(item) = self.waiting.item_of(self.state, gang).cloned() else { continue };
            let settled = self.placed.contains(&gang) || self.waits_for_kept(gang);
            if settled || self.not_eligible(gang, &item).is_some() || self.is_over_quota(&item) {
                continue;
            }
            if let Some(booking) = self.within_own(gang, |round| round.taken_over(known, &item)) {
                self.booked.insert(booking);
                self.unseen.insert(gang);
            }
        }
    }

    /// Are the devices that a booking counts on in order, on nodes that take work, and kept for nobody else beyond its start?
    pub fn stands(&self, known: &Reservation) -> bool {
        let in_order = |device: &DeviceId| {
            let record = self.state.node(device.node);
            let known = record.and_then(|record| record.devices.get(usize::from(device.slot)));
            let is_open = self.ledger.node(device.node).is_some_and(|view| view.open);
            is_open && matches!(known, Some(DeviceState::Ok(_)))
        };
        known.witness.iter().all(in_order) && !self.is_kept_beyond(known.start, &known.witness)
    }

    fn taken_over(&mut self, known: &Reservation, item: &Arc<Item>) -> Option<Arc<Booking>> {
        let gang = known.gang;
        let rests_on = |booking: &Booking| self.ledger.touched().any(|node| booking.on.contains_key(&node));
        let held = self.times.answers.held.get(&gang);
        let held = held.filter(|held| held.holds((item, known, self.now), self.booked.by_start()));
        if let Some(held) = held.filter(|held| !rests_on(&held.booking)) {
            return Some(held.booking.clone());
        }
        let booking = self.kept(gang, item, known.start, &known.witness)?;
        let booking = Arc::new(Booking { domain: known.domain.clone(), ..booking });
        if !rests_on(&booking) {
            let (item, known, beside) = (item.clone(), known.clone(), self.booked.by_start().cloned().collect());
            self.times.answers.held.insert(gang, Held { item, known, beside, booking: booking.clone() });
        }
        Some(booking)
    }

    /// The whole devices that somebody has put aside, from a moment on, for one job.
    fn put_by_hand(&self, known: &Reservation) -> Booking {
        let mut on: BTreeMap<NodeId, BookedPart> = BTreeMap::new();
        for DeviceId { node, slot } in &known.witness {
            let Some(view) = self.ledger.node(*node).filter(|view| usize::from(*slot) < view.free.len()) else {
                continue;
            };
            let share = on.entry(*node).or_insert_with(|| BookedPart {
                devices: Vec::new(),
                amount: Default::default(),
                free: vec![1000; view.free.len()],
                left: view.facts.inventory.amount(),
            });
            share.devices.push((*slot, 1000));
        }
        for (node, share) in &mut on {
            let Some(facts) = self.ledger.node(*node).map(|view| &view.facts) else { continue };
            let is_put = |slot: usize| share.devices.iter().any(|(other, _)| usize::from(*other) == slot);
            // With all of its devices the machine itself is put aside, for those too who ask for none.
            if (0..facts.usable.len()).all(|slot| !facts.usable[slot] || is_put(slot)) {
                share.amount = facts.inventory.amount();
            }
        }
        let Reservation { gang, start, end, witness, domain, .. } = known.clone();
        Booking { gang, start, end, witness, domain, on: on.into_iter().collect(), fixed: true }
    }

    /// A start on just these devices, or a later one if that moment is over; `None` where they are not
    /// all to be had for the whole run.
    fn kept(&self, gang: GangId, item: &Item, start: Time, witness: &[DeviceId]) -> Option<Booking> {
        let start = start.max(self.now);
        let groups = &item.scheduling.groups;
        let milli = groups.iter().map(|group| group.share.0.min(1000)).max().unwrap_or(1000);
        let mut by_node: BTreeMap<NodeId, Vec<(u16, u16)>> = BTreeMap::new();
        for device in witness {
            by_node.entry(device.node).or_default().push((device.slot, milli));
        }
        let excluded = self.excluded(gang);
        let mut on = Vec::with_capacity(by_node.len());
        for (node, devices) in by_node {
            let (before, beside) = self.view_at(node, start, item).filter(|(view, _)| view.open && view.ports > 0)?;
            let view = beside.as_ref().unwrap_or(&before);
            let amounts = groups.iter().map(|group| amount_on(group, &view.facts.inventory, devices.len() as u32));
            let amount = amounts.max_by_key(|amount| (amount.cpu_milli, amount.memory_bytes))?;
            let is_free =
                |(slot, milli): &(u16, u16)| view.free.get(usize::from(*slot)).is_some_and(|free| free >= milli);
            if excluded.contains(&node) || !devices.iter().all(is_free) || !view.amount.covers(&amount) {
                return None;
            }
            on.push((node, BookedPart::of(devices, amount, &before)));
        }
        let end = start.plus_ms(item.left());
        let on = on.into_iter().collect();
        let booking = Booking { gang, start, end, witness: witness.to_vec(), domain: None, on, fixed: false };
        (!witness.is_empty()).then_some(booking)
    }

    /// The order has come to a gang: its booking, taken out of those that it must not delay.
    pub fn seen(&mut self, gang: GangId) -> Option<Arc<Booking>> {
        if !self.unseen.remove(&gang) {
            return None;
        }
        self.put_back();
        self.booked.remove(gang)
    }

    /// Starts a gang if it fits. One that has been told a start delays nobody else who has; one that has
    /// not may break what is booked for those behind it.
    pub fn try_beside_bookings(&mut self, gang: GangId, item: &Item, own: Option<&Booking>) -> Tried {
        let by_hand = self.booked.fixed_for(gang.job);
        if !by_hand.is_empty() {
            self.put_back();
            let put: Vec<Arc<Booking>> = by_hand.into_iter().filter_map(|gang| self.booked.remove(gang)).collect();
            let tried = self.try_anew(gang, item);
            self.put_back();
            put.into_iter().for_each(|booking| self.booked.insert(booking));
            return tried;
        }
        if own.is_none() && self.unseen.is_empty() {
            return self.try_fill(gang, item);
        }
        // Most of what is looked at here does not fit at all.
        self.put_back();
        if self.find(gang, item).is_none() {
            return Tried::Waits(super::explain::Reason::Nodes);
        }
        if own.is_some() {
            return self.try_anew(gang, item);
        }
        let behind: Vec<Arc<Booking>> = self.unseen.iter().filter_map(|gang| self.booked.remove(*gang)).collect();
        let tried = self.try_fill(gang, item);
        self.put_back();
        for booking in behind {
            let holds = match tried {
                Tried::Placed => self.within_own(booking.gang, |round| round.holds_still(booking)),
                Tried::Waits(_) => Some(booking),
            };
            holds.into_iter().for_each(|booking| self.booked.insert(booking));
        }
        let booked: BTreeSet<GangId> = self.booked.iter().map(|booking| booking.gang).collect();
        self.unseen.retain(|gang| booked.contains(gang));
        tried
    }

    pub(super) fn holds_still(&self, booking: Arc<Booking>) -> Option<Arc<Booking>> {
        let item = self.waiting.item_of(self.state, booking.gang)?.clone();
        let again = self.kept(booking.gang, &item, booking.start, &booking.witness)?;
        Some(Arc::new(Booking { domain: booking.domain.clone(), ..again }))
    }

    /// Books a start for a gang, or moves the one it has where that is worth it. False when nobody can
    /// foresee one.
    pub fn book_or_improve(&mut self, gang: GangId, item: &Arc<Item>, own: Option<Arc<Booking>>) -> bool {
        self.put_back();
        // What is not better by so much leaves the booking where it is.
        let worth = own.as_ref().map_or(Time::NEVER, |own| Time(own.start.0.saturating_sub(MOVED_MS - 1)));
        let better = self.book(gang, item, worth).filter(|found| found.start < worth).or(own);
        let foreseen = better.is_some();
        better.into_iter().for_each(|booking| self.booked.insert(booking));
        foreseen
    }

    /// Gives up what is booked for those that the order has not come to.
    pub fn forget_unseen(&mut self) {
        self.put_back();
        for gang in std::mem::take(&mut self.unseen) {
            self.booked.remove(gang);
        }
    }
}
