//! Filling around the first gang that cannot start: when it could start at the latest, on which
//! devices, and who may run until then without being in its way.

use super::bookings::{BookedPart, Booking};
use super::earliest::{Foresight, Start};
use super::explain::Reason;
use super::foreseen::{Foreseen, Ground};
use super::ledger::{Ledger, NodeView};
use super::round::{Round, Tried};
use super::runtime::run_ms;
use super::scope;
use super::waiting::Item;
use crate::command::{PlacedPart, PlanStep};
use crate::policy::Edge;
use crate::state::State;
use crate::state::gang::{Cause, GangRecord, GangState};
use crate::state::node::DeviceState;
use crate::state::reservation::{Reservation, ReservationKind};
use muster_common::resources::Amount;
use muster_common::time::{MINUTE_MS, SECOND_MS};
use muster_common::{GangId, Name, NodeId, Time};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A booked start is written again only when it moves by this much.
pub(super) const MOVED_MS: u64 = MINUTE_MS;

/// From the exit of the last rank until its devices are given back: whoever found that long would slip in ahead of whom
/// they are booked for.
const TIDIED_MS: u64 = SECOND_MS;

/// When a gang that holds devices is expected to let go of them.
///
/// A gang past its expected end is given a minute more, then twice as much each time: what is booked behind
/// it moves seldom, not with every cycle. One without any known run time never ends.
pub fn expected_end(state: &State, gang: &GangRecord, now: Time) -> Time {
    let Some(job) = state.job(gang.id.job) else { return Time::NEVER };
    let Some(attempt) = gang.current() else { return now };
    let Some(scheduling) = state.scheduling_of(gang.id) else { return Time::NEVER };
    let limits = &scheduling.limits;
    let end = match &gang.state {
        GangState::Stopping(_, cause) => {
            let ranks_are_gone = matches!(**cause, Cause::Completed);
            let grace_ms = scheduling.checkpoint.grace_ms;
            attempt.stopping_at.unwrap_or(now).plus_ms(if ranks_are_gone { TIDIED_MS } else { grace_ms })
        }
        _ => match run_ms(state.policy(), job, limits) {
            // Only an exact run time says what is left after earlier attempts.
            Some(run) if limits.exact_ms == Some(run) => {
                attempt.started_at.unwrap_or(attempt.placed_at).plus_ms(run.saturating_sub(gang.served_ms))
            }
            Some(run) => attempt.started_at.unwrap_or(attempt.placed_at).plus_ms(run),
            None => return Time::NEVER,
        },
    };
    if end < now { put_off(end, now) } else { end }
}

/// The next end to expect of what should have ended before `now`.
fn put_off(end: Time, now: Time) -> Time {
    let late = now.since_ms(end);
    let more = std::iter::successors(Some(MINUTE_MS), |more| more.checked_mul(2)).find(|more| *more > late);
    more.map_or(Time::NEVER, |more| end.plus_ms(more))
}

/// What is given back when, and how far the ledger has been moved along it.
struct Future {
    events: Vec<(Time, Vec<PlacedPart>)>,
    /// The ledger's mark after the first so many events.
    marks: Vec<usize>,
}

impl Future {
    /// Moves the ledger to where the first `events` have happened. Returns the steps it took.
    fn go_to(&mut self, state: &State, ledger: &mut Ledger, events: usize) -> u64 {
        let mut steps = 0;
        if events < self.marks.len() {
            self.marks.truncate(events + 1);
            ledger.rollback(self.marks[events]);
        }
        while self.marks.len() <= events {
            for part in &self.events[self.marks.len() - 1].1 {
                give_back(state, ledger, part);
                steps += 1;
            }
            self.marks.push(ledger.mark());
        }
        steps
    }
}

impl Round<'_> {
    /// Everything that will be given back, by moment and from one moment on; not what is booked for later.
    fn releases(&self, from: Time) -> Vec<(Time, Vec<PlacedPart>)> {
        let mut events: BTreeMap<Time, Vec<PlacedPart>> = BTreeMap::new();
        if from > self.now {
            events.insert(from, Vec::new());
        }
        for (end, gang) in self.times.by_end() {
            for mut part in self.state.gang(gang).into_iter().flat_map(held_parts) {
                self.put_off_kept(&mut part, end, |until, kept| events.entry(until.max(from)).or_default().push(kept));
                events.entry(end.max(from)).or_default().push(part);
            }
        }
        for (end, mut part) in self.own.values().flatten().cloned() {
            self.put_off_kept(&mut part, end, |until, kept| events.entry(until.max(from)).or_default().push(kept));
            events.entry(end.max(from)).or_default().push(part);
        }
        for part in events.values_mut().flatten() {
            let booked = |slot: u16| {
                let mut later = self.booked.on(part.node).filter(|(booking, _)| booking.end > from);
                later.any(|(_, share)| share.devices.iter().any(|(other, _)| *other == slot))
            };
            part.devices.retain(|(slot, _)| !booked(*slot));
        }
        events.into_iter().collect()
    }

    /// The earliest moment at which the gang fits, by what is known of those that run, with what is
    /// booked for others left as it is. `None` when no such moment can be foreseen before the one given.
    pub fn book(&mut self, gang: GangId, item: &Arc<Item>, before: Time) -> Option<Arc<Booking>> {
        self.put_back();
        if before <= self.now || self.no_booking.contains(&item.asked()) {
            return None;
        }
        let allowed = match self.within_quota(item)? {
            Cow::Borrowed(_) => item.clone(),
            Cow::Owned(less) => Arc::new(less),
        };
        let booking = match self.is_plain(&allowed) {
            true => self.foresee(gang, &allowed, before),
            false => self.book_by_search(gang, &allowed).map(Arc::new),
        };
        // Who keeps off nodes where it failed says nothing of others that ask for the same.
        if booking.is_none() && before == Time::NEVER && self.excluded(gang).is_empty() {
            self.no_booking.insert(item.asked());
        }
        booking
    }

    /// The earliest start of a plain request before some moment, unless it is known from an earlier cycle.
    fn foresee(&mut self, gang: GangId, item: &Arc<Item>, before: Time) -> Option<Arc<Booking>> {
        let known = self.times.answers.foreseen.get(&gang);
        let known = known.filter(|known| known.answers((item, before, self.now), self.booked.iter()));
        if let Some(known) = known.filter(|known| !self.rests_on_touched(&known.ground)) {
            self.spent += known.steps;
            return known.booking.clone();
        }
        let spent = self.spent;
        let Foresight { start, ground } = self.earliest(gang, item, before, None)?;
        let booking = start.map(|start| Arc::new(self.booking(gang, item, start)));
        if !self.rests_on_touched(&ground) {
            let too_late = |other: &Booking| Time(other.start.0.saturating_sub(other.run_beside(item))).plus_ms(1);
            let moments = self.booked.iter().flat_map(|other| [too_late(other), other.end]);
            let until = moments.filter(|at| *at > self.now).min().unwrap_or(Time::NEVER);
            let (steps, beside) = (self.spent - spent, self.booked.iter().cloned().collect());
            let (item, booking) = (item.clone(), booking.clone());
            let known = Foreseen { item, before, beside, ground, until, booking, steps };
            self.times.answers.foreseen.insert(gang, known);
        }
        booking
    }

    /// Has this cycle changed a node on which it rests?
    fn rests_on_touched(&self, ground: &Ground) -> bool {
        self.ledger.touched().any(|node| self.times.rests_on(ground, node))
    }

    /// For requests whose room does not simply add up: the ledger is moved along the future, first
    /// without anything that is booked, then to when all that is booked is over.
    fn book_by_search(&mut self, gang: GangId, item: &Item) -> Option<Booking> {
        let ends = self.booked.iter().map(|booking| booking.end).filter(|end| *end < Time::NEVER);
        let over = ends.max();
        // What is put aside for later is in nobody's way who is gone by then.
        let windows = self.booked.remove_windows();
        let before = self.search_ahead(gang, item, Time::ZERO);
        let before = before.filter(|start| {
            let nodes: Vec<NodeId> = start.parts.iter().map(|part| part.node).collect();
            !self.is_met(&windows, &nodes, start.at, item)
        });
        let any = !windows.is_empty();
        windows.into_iter().for_each(|booking| self.booked.insert(booking));
        let start = match before {
            None if any => self.search_ahead(gang, item, Time::ZERO),
            before => before,
        };
        let start = start.or_else(|| self.search_ahead(gang, item, over?))?;
        Some(self.booking(gang, item, start))
    }

    /// The earliest start from a moment on, on nothing that is booked for later.
    fn search_ahead(&mut self, gang: GangId, item: &Item, from: Time) -> Option<Start> {
        let mark = self.ledger.mark();
        let mut future = self.unbooked_future(from);
        let found = self.earliest_fit(gang, item, &mut future);
        let start = found.map(|at| self.start_here(gang, item, future.events[at].0));
        self.ledger.rollback(mark);
        start
    }

    /// As [`Self::search_ahead`], at one moment that is still to come.
    pub(super) fn search_at(&mut self, gang: GangId, item: &Item, at: Time) -> Option<Start> {
        let mark = self.ledger.mark();
        let mut future = self.unbooked_future(at);
        let is_then = future.events.first().is_some_and(|(first, _)| *first == at);
        let fits = is_then && self.fits_after(gang, item, &mut future, 1);
        let start = fits.then(|| self.start_here(gang, item, at));
        self.ledger.rollback(mark);
        start
    }

    /// What is given back from a moment on. Takes all that is booked for later off the ledger.
    fn unbooked_future(&mut self, from: Time) -> Future {
        let later = |booking: &&Arc<Booking>| booking.end > from;
        for booking in self.booked.iter().filter(later) {
            for (node, share) in booking.on.iter() {
                self.ledger.change(*node, |view| {
                    share.devices.iter().for_each(|(slot, _)| view.free[usize::from(*slot)] = 0);
                    view.amount = view.amount.minus(&share.amount).unwrap_or_default();
                });
            }
        }
        Future { events: self.releases(from), marks: vec![self.ledger.mark()] }
    }

    /// A start on the ledger as it is then.
    fn start_here(&mut self, gang: GangId, item: &Item, at: Time) -> Start {
        let parts = self.search(gang, item).unwrap_or_default();
        let views = parts.iter().filter_map(|part| self.ledger.node(part.node)).cloned().collect();
        Start { at, parts, views }
    }

    /// The first index whose releases, with all before, make room. Doubling, then halving: what is
    /// freed later never takes room away. Leaves the ledger as it is then.
    fn earliest_fit(&mut self, gang: GangId, item: &Item, future: &mut Future) -> Option<usize> {
        let whole = item.scheduling.groups.iter().all(|group| group.share.is_whole());
        let wanted = if whole { item.scheduling.devices() } else { 0 };
        let mut have = self.ledger.free_total();
        let enough = |(_, parts): &(Time, Vec<PlacedPart>)| {
            have += parts.iter().map(|part| part.devices.len() as u64).sum::<u64>();
            have >= wanted
        };
        let first = future.events.iter().position(enough)?;
        if self.fits_after(gang, item, future, first + 1) {
            return Some(first);
        }
        let last = future.events.len() - 1;
        let (mut high, mut step) = (first, 1);
        while high < last {
            let mut low = high + 1;
            high = (high + step).min(last);
            step *= 2;
            if self.fits_after(gang, item, future, high + 1) {
                while low < high {
                    let middle = low + (high - low) / 2;
                    if self.fits_after(gang, item, future, middle + 1) { high = middle } else { low = middle + 1 }
                }
                self.spent += future.go_to(self.state, self.ledger, high + 1);
                return Some(high);
            }
        }
        None
    }

    fn fits_after(&mut self, gang: GangId, item: &Item, future: &mut Future, events: usize) -> bool {
        self.spent += future.go_to(self.state, self.ledger, events);
        self.search(gang, item).is_some()
    }

    pub(super) fn booking(&self, gang: GangId, item: &Item, start: Start) -> Booking {
        let Start { at, parts, views } = start;
        let share = |(part, view): (&PlacedPart, NodeView)| {
            (part.node, BookedPart::of(part.devices.clone(), part.amount, &view))
        };
        let on = parts.iter().zip(views).map(share).collect();
        let witness = parts.iter().flat_map(PlacedPart::device_ids).collect();
        let wants_place = item.scheduling.wants_place();
        let domain = wants_place.then(|| common_domain(self.state, gang, &parts)).flatten();
        Booking { gang, start: at, end: at.plus_ms(item.left()), witness, domain, on, fixed: false }
    }

    /// Starts a gang where that delays nobody whose start is booked.
    pub fn try_fill(&mut self, gang: GangId, item: &Item) -> Tried {
        let asked = item.asked();
        let known = self.no_spare_fit.get(&asked).is_some_and(|most_ms| item.left() > *most_ms)
            || self
                .no_fit_outside
                .get(&asked)
                .is_some_and(|(left_ms, longest_ms)| item.left() >= *left_ms && item.longest() >= *longest_ms);
        if known && !self.booked.is_empty() && self.inside.is_empty() {
            return Tried::Waits(Reason::Backfill);
        }
        self.try_anew(gang, item)
    }

    /// As [`Self::try_fill`], whatever is known of others that asked for the same.
    pub fn try_anew(&mut self, gang: GangId, item: &Item) -> Tried {
        let hit = self.hit_by(item);
        let overruns = self.may_overrun(item, hit);
        if hit == 0 && !overruns {
            return self.try_start(gang, item);
        }
        let no_spare = self.fills && !self.state.policy().backfill.spare;
        if no_spare && !self.booked.are_fixed(hit) {
            return Tried::Waits(Reason::Backfill);
        }
        if let Some(parts) = self.search_beside(gang, item, hit) {
            self.put_back();
            self.booked.spend(hit, &parts);
            self.take(&parts);
            self.place(gang, item, parts);
            return Tried::Placed;
        }
        if self.try_rematch(gang, item, hit) {
            return Tried::Placed;
        }
        if !self.excluded(gang).is_empty() {
            return Tried::Waits(Reason::Backfill);
        }
        if overruns {
            self.no_fit_outside.insert(item.asked(), (item.left(), item.longest()));
        } else if hit > 0 {
            // What ends before the last of these starts is in the way of fewer.
            let most_ms = self.longest_beside(hit - 1).unwrap_or(0);
            self.no_spare_fit.insert(item.asked(), most_ms);
        }
        Tried::Waits(Reason::Backfill)
    }

    /// The longest run that the booking with so many before it allows; `None` = not even one of no length.
    pub fn longest_beside(&self, before: usize) -> Option<u64> {
        let start = self.booked.nth(before)?.start;
        let until = start.since_ms(self.now);
        match self.edge() {
            Edge::AtOrBefore if start >= self.now => Some(until),
            Edge::AtOrBefore => None,
            Edge::Before => until.checked_sub(1),
        }
    }

    /// Who is told a start of its own is no filler, and may end where another begins.
    pub(super) fn edge(&self) -> Edge {
        if self.fills { self.state.policy().backfill.edge } else { Edge::AtOrBefore }
    }

    /// How many bookings a gang runs into that starts now.
    pub(super) fn hit_by(&self, item: &Item) -> usize {
        self.booked.hit_by(self.now.plus_ms(item.left()), self.edge())
    }

    /// Leaves on the ledger what all bookings that it would run into leave to a gang that starts now.
    pub fn set_aside_for(&mut self, item: &Item) {
        self.set_aside(self.hit_by(item));
    }

    /// Leaves on the ledger what the first so many bookings leave to those that run on beyond them.
    pub(super) fn set_aside(&mut self, hit: usize) {
        self.put_back_beyond(hit);
        if self.aside.len() >= hit {
            return;
        }
        let more: Vec<Arc<Booking>> = self.booked.between(self.aside.len(), hit).cloned().collect();
        // Nothing becomes free by being set aside.
        let some: Option<Vec<NodeId>> = (self.waiting.cpu_only == 0)
            .then(|| self.ledger.with_free().union(self.ledger.partial()).copied().collect());
        for booking in more {
            self.aside.push(self.ledger.mark());
            match &some {
                Some(some) if some.len() < booking.on.len() => {
                    some.iter()
                        .filter(|node| booking.on.contains_key(node))
                        .for_each(|node| self.leave_beside(&booking, *node));
                }
                _ => booking.on.keys().for_each(|node| self.leave_beside(&booking, *node)),
            }
        }
    }

    /// Leaves on the ledger what a booking and those beside it leave of a node, where anything of it could be had.
    fn leave_beside(&mut self, booking: &Booking, node: NodeId) {
        let Some(view) = self.ledger.node(node) else { return };
        if self.waiting.cpu_only == 0 && view.free.iter().all(|milli| *milli == 0) {
            return;
        }
        let Some((slots, left)) = self.booked.leaves(booking, node) else { return };
        let less = |(slot, left): &(u16, u16)| view.free[usize::from(*slot)] > *left;
        if view.amount.cpu_milli <= left.cpu_milli
            && view.amount.memory_bytes <= left.memory_bytes
            && !slots.iter().any(less)
        {
            return;
        }
        leave_no_more(self.ledger, node, slots, left);
    }

    /// Puts back what all but the first so many bookings leave.
    pub(super) fn put_back_beyond(&mut self, hit: usize) {
        if self.aside.len() > hit {
            self.ledger.rollback(self.aside[hit]);
            self.aside.truncate(hit);
        }
    }

    /// Nodes of a booking of which something could be had. Where nothing is free there is nothing to keep from
    /// anybody.
    pub(super) fn kept_from_others(&self, booking: &Booking) -> Vec<NodeId> {
        let (whole, part) = (self.ledger.with_free(), self.ledger.partial());
        if self.waiting.cpu_only == 0 && whole.len() + part.len() < booking.on.len() {
            return whole.union(part).filter(|node| booking.on.contains_key(node)).copied().collect();
        }
        let any = |node: &&NodeId| {
            let free = self.ledger.node(**node).map(|view| &view.free);
            free.is_some_and(|free| self.waiting.cpu_only > 0 || free.iter().any(|milli| *milli > 0))
        };
        booking.on.keys().filter(any).copied().collect()
    }

    /// The ledger without anything kept for those whose start is booked.
    pub fn put_back(&mut self) {
        if let Some(first) = self.aside.first().copied() {
            self.ledger.rollback(first);
            self.aside.clear();
        }
    }

    /// Writes the booking where it differs in substance from what State holds.
    pub fn write_booking(&mut self, booking: &Booking, kind: ReservationKind) {
        let near = |known: &Reservation| {
            known.start.since_ms(booking.start).max(booking.start.since_ms(known.start)) < MOVED_MS
        };
        // One that is worked out anew by every cycle is told where it differs in substance only.
        let anew = self.state.policy().backfill.reserve_depth <= 1;
        let same = self.state.reservations().get(&booking.gang).is_some_and(|known| {
            let as_told = if anew { known.domain == booking.domain } else { known.witness == booking.witness };
            // Else one on a lost node would be worked out again by every cycle.
            known.kind == kind && as_told && near(known) && (!anew || self.stands(known))
        });
        if !same {
            self.steps.push(PlanStep::Reserve(Reservation {
                gang: booking.gang,
                kind,
                start: booking.start,
                end: Time::NEVER,
                domain: booking.domain.clone(),
                witness: booking.witness.clone(),
            }));
        }
    }
}

/// Leaves on the ledger no more of a node than so much of some of its devices, and of CPU and memory.
pub(super) fn leave_no_more(ledger: &mut Ledger, node: NodeId, slots: Vec<(u16, u16)>, left: Amount) {
    ledger.change(node, |view| {
        for (slot, left) in slots {
            let free = &mut view.free[usize::from(slot)];
            *free = (*free).min(left);
        }
        view.amount.cpu_milli = view.amount.cpu_milli.min(left.cpu_milli);
        view.amount.memory_bytes = view.amount.memory_bytes.min(left.memory_bytes);
    });
}

/// The record of a head of the queue whose start nobody can foresee.
pub fn head_without_start(gang: GangId) -> Reservation {
    let kind = ReservationKind::Head;
    Reservation { gang, kind, start: Time::NEVER, end: Time::NEVER, domain: None, witness: Vec::new() }
}

/// The ledger as it will be without this part. Devices that are not in order stay taken.
pub fn give_back(state: &State, ledger: &mut Ledger, part: &PlacedPart) {
    let Some(record) = state.node(part.node) else { return };
    ledger.change(part.node, |view| {
        for &(slot, milli) in &part.devices {
            let at = usize::from(slot);
            let in_order = matches!(record.devices.get(at), Some(DeviceState::Ok(_)));
            if in_order && view.facts.usable[at] {
                view.free[at] = view.free[at].saturating_add(milli).min(1000);
            }
        }
        view.amount = view.amount.plus(&part.amount);
        view.ports = (view.ports + 1).min(u32::from(record.inventory.port_count));
    });
}

/// What a gang still holds and will give back.
pub fn held_parts(gang: &GangRecord) -> impl Iterator<Item = PlacedPart> + '_ {
    let parts = gang.current().map(|attempt| attempt.parts.as_slice()).unwrap_or_default();
    parts.iter().filter(|part| !part.state.is_settled()).map(|part| PlacedPart {
        group: part.group,
        node: part.node,
        epoch: part.epoch,
        devices: part.devices.clone(),
        amount: part.amount,
    })
}

/// The narrowest domain that holds all parts, of the tree that the gang's topology wish is about.
pub(super) fn common_domain(state: &State, gang: GangId, parts: &[PlacedPart]) -> Option<(u16, Vec<Name>)> {
    let scheduling = state.scheduling(state.job(gang.job)?);
    let at = scope::tree_wished(scheduling, state.fabric());
    let tree = state.fabric().trees.get(usize::from(at))?;
    let mut common: Option<Vec<Name>> = None;
    for part in parts {
        let path = state.node(part.node)?.inventory.place.get(&tree.name)?;
        common = Some(match common {
            None => path.clone(),
            Some(known) => known.iter().zip(path).take_while(|(a, b)| a == b).map(|(name, _)| name.clone()).collect(),
        });
    }
    common.map(|path| (at, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_late_is_put_off_ever_more_seldom() {
        let end = Time(1_000_000);
        let late = |ms| put_off(end, end.plus_ms(ms)).since_ms(end) / MINUTE_MS;
        assert_eq!([1, 59_999, 60_000, 119_999, 120_000, 3_600_000].map(late), [1, 1, 2, 2, 4, 64]);
        assert_eq!(put_off(Time(0), Time(u64::MAX)), Time::NEVER, "nothing overflows");
    }
}
