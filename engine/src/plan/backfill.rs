//! Filling around the first gang that cannot start: when it could start at the latest, on which
//! devices, and who may run until then without being in its way.

use super::explain::Reason;
use super::ledger::Ledger;
use super::round::{Round, Tried};
use super::runtime::run_ms;
use super::waiting::{Item, is_fungible};
use crate::command::{PlacedPart, PlanStep};
use crate::policy::{Admission, Edge};
use crate::state::State;
use crate::state::gang::{GangRecord, GangState};
use crate::state::node::DeviceState;
use crate::state::reservation::{Reservation, ReservationKind};
use muster_common::resources::Amount;
use muster_common::time::MINUTE_MS;
use muster_common::topology::FabricSpec;
use muster_common::{DeviceId, GangId, Name, NodeId, Time};
use std::collections::BTreeMap;

/// A booked start is written again only when it moves by this much.
const MOVED_MS: u64 = MINUTE_MS;

/// The first blocked gang's start, and what stays free beside it from then on.
#[derive(Debug, Clone)]
pub struct Booking {
    pub gang: GangId,
    pub start: Time,
    pub witness: Vec<DeviceId>,
    pub domain: Option<(u16, Vec<Name>)>,
    /// On the nodes of the witness: what others may hold beyond `start`.
    slack: BTreeMap<NodeId, Slack>,
}

#[derive(Debug, Clone)]
struct Slack {
    free: Vec<u16>,
    amount: Amount,
}

/// When a gang that holds devices is expected to let go of them.
///
/// A gang past its expected end is given a minute more, then twice as much each time: what is booked behind
/// it moves seldom, not with every cycle. One without any known run time never ends.
pub fn expected_end(state: &State, gang: &GangRecord, now: Time) -> Time {
    let Some(job) = state.job(gang.id.job) else { return Time::NEVER };
    let Some(attempt) = gang.current() else { return now };
    let limits = &state.scheduling(job).limits;
    let end = match &gang.state {
        GangState::Stopping(..) => {
            attempt.stopping_at.unwrap_or(now).plus_ms(state.scheduling(job).checkpoint.grace_ms)
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

/// Parts that are given back at one moment.
type Releases<'a> = Vec<(Time, Vec<&'a GangRecord>)>;

impl<'a> Round<'a> {
    fn releases(&self) -> Releases<'a> {
        let mut by_end: BTreeMap<Time, Vec<&GangRecord>> = BTreeMap::new();
        for id in &self.waiting.active {
            if let Some(gang) = self.state.gang(*id) {
                by_end.entry(expected_end(self.state, gang, self.now)).or_default().push(gang);
            }
        }
        by_end.remove(&Time::NEVER);
        by_end.into_iter().collect()
    }

    /// Ends of gangs placed earlier in this cycle.
    fn own_releases(&self) -> Vec<(Time, Vec<PlacedPart>)> {
        let placed = self.steps.iter().filter_map(|step| match step {
            PlanStep::Place(placement) => Some(placement),
            _ => None,
        });
        placed
            .filter_map(|placement| {
                let job = self.state.job(placement.gang.job)?;
                let limits = &self.state.scheduling(job).limits;
                let run = run_ms(self.state.policy(), job, limits)?;
                let served = self
                    .state
                    .gang(placement.gang)
                    .filter(|_| limits.exact_ms == Some(run))
                    .map_or(0, |gang| gang.served_ms);
                Some((self.now.plus_ms(run.saturating_sub(served)), placement.parts.clone()))
            })
            .collect()
    }

    /// The earliest moment at which the gang fits, by what is known of those that run. `None` when
    /// no such moment can be foreseen.
    pub fn book(&mut self, gang: GangId, item: &Item) -> Option<Booking> {
        if self.is_over_quota(item) || self.no_booking.contains(&item.wanted()) {
            return None;
        }
        let mut events: BTreeMap<Time, Vec<PlacedPart>> = BTreeMap::new();
        for (end, gangs) in self.releases() {
            let parts = gangs.iter().flat_map(|gang| held_parts(gang));
            events.entry(end).or_default().extend(parts);
        }
        for (end, parts) in self.own_releases() {
            events.entry(end).or_default().extend(parts);
        }
        let mark = self.ledger.mark();
        let mut future = Future { events: events.into_iter().collect(), marks: vec![mark] };
        let found = self.earliest_fit(gang, item, &mut future);
        let booking = found.map(|at| {
            let parts = self.witness(gang, item, &mut future, at + 1);
            self.booking(gang, item, future.events[at].0, &parts)
        });
        self.ledger.rollback(mark);
        if booking.is_none() {
            self.no_booking.insert(item.wanted());
        }
        booking
    }

    /// The first index whose releases, with all before, make room. Doubling, then halving: what is
    /// freed later never takes room away.
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
                return Some(high);
            }
        }
        None
    }

    fn fits_after(&mut self, gang: GangId, item: &Item, future: &mut Future, events: usize) -> bool {
        self.spent += future.go_to(self.state, self.ledger, events);
        self.search(gang, item).is_some()
    }

    /// One set of devices that will do. A gang that takes any devices is set on those that are
    /// busy now, so that what is free now stays for fillers.
    fn witness(&mut self, gang: GangId, item: &Item, future: &mut Future, events: usize) -> Vec<PlacedPart> {
        future.go_to(self.state, self.ledger, 0);
        let free_now: BTreeMap<NodeId, Vec<u16>> =
            self.ledger.with_free().iter().filter_map(|&id| Some((id, self.ledger.node(id)?.free.clone()))).collect();
        self.spent += future.go_to(self.state, self.ledger, events);
        let parts = self.search(gang, item).unwrap_or_default();
        if !is_fungible(&item.scheduling) || self.state.policy().domains != crate::policy::Domains::Anywhere {
            return parts;
        }
        let mut slots: Vec<(bool, std::cmp::Reverse<DeviceId>)> = Vec::new();
        for &id in self.ledger.with_free() {
            let Some(view) = self.ledger.node(id) else { continue };
            for slot in (0..view.free.len()).filter(|&slot| view.free[slot] == 1000) {
                let now = free_now.get(&id).is_some_and(|free| free[slot] == 1000);
                slots.push((now, std::cmp::Reverse(DeviceId { node: id, slot: slot as u16 })));
            }
        }
        slots.sort_unstable();
        slots.truncate(item.scheduling.devices() as usize);
        let mut by_node: BTreeMap<NodeId, Vec<(u16, u16)>> = BTreeMap::new();
        for (_, std::cmp::Reverse(device)) in slots {
            by_node.entry(device.node).or_default().push((device.slot, 1000));
        }
        let group = &item.scheduling.groups[0];
        let part = |(node, devices): (NodeId, Vec<(u16, u16)>)| {
            let facts = &self.ledger.node(node)?.facts;
            let amount = super::feasible::amount_on(group, &facts.inventory, devices.len() as u32);
            Some(PlacedPart { group: 0, node, epoch: facts.epoch, devices, amount })
        };
        by_node.into_iter().filter_map(part).collect()
    }

    /// Called with the ledger as it will be at `start`.
    fn booking(&mut self, gang: GangId, item: &Item, start: Time, parts: &[PlacedPart]) -> Booking {
        self.take(parts);
        let slack = parts
            .iter()
            .filter_map(|part| self.ledger.node(part.node))
            .map(|view| (view.facts.id, Slack { free: view.free.clone(), amount: view.amount }))
            .collect();
        let witness = parts
            .iter()
            .flat_map(|part| part.devices.iter().map(|&(slot, _)| DeviceId { node: part.node, slot }))
            .collect();
        let wants_place = item.scheduling.wants_place();
        let domain = wants_place.then(|| common_domain(self.state, parts)).flatten();
        Booking { gang, start, witness, domain, slack }
    }

    /// Starts a gang behind the booked one, if that does not delay it.
    pub fn try_fill(&mut self, gang: GangId, item: &Item, booking: &mut Booking) -> Tried {
        let policy = self.state.policy();
        let served = self
            .state
            .gang(gang)
            .filter(|_| item.scheduling.limits.exact_ms == item.run_ms)
            .map_or(0, |gang| gang.served_ms);
        let end = item.run_ms.map_or(Time::NEVER, |run| self.now.plus_ms(run.saturating_sub(served)));
        let in_time = match policy.backfill.edge {
            Edge::Before => end < booking.start,
            Edge::AtOrBefore => end <= booking.start,
        };
        if in_time {
            return self.try_start(gang, item);
        }
        let known = self.no_spare_fit.contains(&item.wanted());
        // What does not fit beside nobody does not fit beside the booked gang.
        if !policy.backfill.spare || known || self.find(gang, item).is_none() {
            return Tried::Waits(Reason::Backfill);
        }
        let mark = self.ledger.mark();
        for (&node, slack) in &booking.slack {
            self.ledger.change(node, |view| {
                view.free.iter_mut().zip(&slack.free).for_each(|(free, left)| *free = (*free).min(*left));
                view.amount.cpu_milli = view.amount.cpu_milli.min(slack.amount.cpu_milli);
                view.amount.memory_bytes = view.amount.memory_bytes.min(slack.amount.memory_bytes);
            });
        }
        let parts = self.search(gang, item);
        self.ledger.rollback(mark);
        let Some(parts) = parts else {
            if self.state.gang(gang).is_none_or(|record| record.excluded.is_empty()) {
                self.no_spare_fit.insert(item.wanted());
            }
            return Tried::Waits(Reason::Backfill);
        };
        booking.spend(&parts);
        self.take(&parts);
        self.place(gang, parts);
        Tried::Placed
    }

    /// Writes the booking where it differs in substance from what State holds.
    pub fn write_booking(&mut self, booking: &Booking) {
        let kind = match self.state.policy().admission {
            Admission::HeadOfLine { sticky: true } => ReservationKind::Head,
            _ => ReservationKind::Booked,
        };
        let known = self.state.reservations().get(&booking.gang);
        let same = known.is_some_and(|known| {
            known.kind == kind
                && known.domain == booking.domain
                && known.start.since_ms(booking.start).max(booking.start.since_ms(known.start)) < MOVED_MS
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

impl Booking {
    /// A filler that stays beyond the start uses up what is left beside the booked gang.
    fn spend(&mut self, parts: &[PlacedPart]) {
        for part in parts {
            let Some(slack) = self.slack.get_mut(&part.node) else { continue };
            for &(slot, milli) in &part.devices {
                let free = &mut slack.free[usize::from(slot)];
                *free = free.saturating_sub(milli);
            }
            slack.amount = slack.amount.minus(&part.amount).unwrap_or_default();
        }
    }
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

/// The narrowest domain of the first tree that holds all parts.
pub(super) fn common_domain(state: &State, parts: &[PlacedPart]) -> Option<(u16, Vec<Name>)> {
    let fabric: &FabricSpec = state.fabric();
    let tree = fabric.trees.first()?;
    let mut common: Option<Vec<Name>> = None;
    for part in parts {
        let path = state.node(part.node)?.inventory.place.get(&tree.name)?;
        common = Some(match common {
            None => path.clone(),
            Some(known) => known.iter().zip(path).take_while(|(a, b)| a == b).map(|(name, _)| name.clone()).collect(),
        });
    }
    common.map(|path| (0, path))
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
