//! Consolidation: small gangs move for a larger one that fits nowhere though as much is free, once everything else has
//! been decided. Nobody is stopped unless that one then fits and each of them has a new place, all at once. See ADR 9.

use super::places::NewPlace;
use super::{Offers, Price, Taken};
use crate::command::{Consolidation, Move, PlacedPart, PlanStep, StopFor};
use crate::cycle::sticky_head;
use crate::plan::backfill::common_domain;
use crate::plan::bookings::Booking;
use crate::plan::explain::Reason;
use crate::plan::lanes::Sought;
use crate::plan::round::Round;
use crate::plan::waiting::Item;
use crate::plan::walk::Walk;
use crate::policy::{Admission, Consolidate};
use crate::state::reservation::{Reservation, ReservationKind};
use muster_common::time::{DAY_MS, HOUR_MS, MINUTE_MS};
use muster_common::{DeviceId, GangId, NodeId, Time};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Most places of the order that one cycle looks at for this, and most gangs that it looks for room for.
const LOOKS_MAX: u32 = 1024;
const TRIES_MAX: u32 = 8;
/// Most choices of gangs to move for one, each without somebody of those before who found no new place.
const CHOICES_MAX: usize = 4;
/// Most devices of a gang that others are moved for: it and they stand in one step of a plan.
pub(super) const DEVICES_MAX: u64 = 1024;

/// What a gang that was looked at means for others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Go,
    /// Of the same place in the order none is looked at any more.
    Leave,
    /// Nor of any that asks for the same.
    LeaveKind,
    Stop,
}

/// One cycle's looking for gangs to move others for.
struct Search {
    rules: Consolidate,
    /// Nobody is looked at behind one that could start here and cannot now.
    strict: bool,
    looked: u32,
    tried: u32,
    /// Whose turn it is, where anything is owed to anybody: who is within what its account owns, or who is not.
    own: Option<bool>,
}

impl Round<'_> {
    /// Looks through what still waits, in the order, for gangs that others could move for.
    pub fn consolidate(&mut self) {
        let Some(rules) = self.state.policy().taking.consolidate.clone() else { return };
        self.put_back();
        if self.ledger.free_total() == 0 {
            return;
        }
        self.count_kept();
        let strict = matches!(self.state.policy().admission, Admission::HeadOfLine { .. });
        let mut search = Search { rules, strict, looked: 0, tried: 0, own: None };
        if let Some((gang, item)) = sticky_head(self)
            && search.look(self, gang, &item) == Then::Stop
        {
            return;
        }
        let waiting = self.waiting;
        // What an account owns goes before what it would borrow, as in the order itself.
        let turns = if self.has_quotas() { &[Some(true), Some(false)][..] } else { &[None] };
        for own in turns {
            search.own = *own;
            let mut walk = waiting.by_order.walk(Sought { now: self.now, most_ms: u64::MAX });
            while let Some(item) = walk.next() {
                if !search.look_at(self, item, &mut walk) {
                    return;
                }
            }
        }
    }

    /// How many more may be moved within this hour, and when that will be more.
    fn moves_left(&self, rules: &Consolidate) -> (usize, Option<Time>) {
        let lately = self.state.moved().iter().rev().take_while(|(at, _)| self.now.since_ms(*at) < HOUR_MS);
        let lately: Vec<Time> = lately.map(|(at, _)| *at).collect();
        let now: usize = self.steps.iter().map(moved_by).sum();
        let left = (rules.per_hour as usize).saturating_sub(lately.len() + now);
        (left, lately.last().map(|at| at.plus_ms(HOUR_MS)).filter(|_| left == 0))
    }

    fn look_again(&mut self, at: Time) {
        if at > self.now && at < Time::NEVER {
            self.taking.look_again_at(at);
        }
    }

    /// Gangs that might be moved for one, and those that leave anyway.
    fn movable(&mut self, item: &Item, rules: &Consolidate) -> Offers {
        let (left, more_at) = self.moves_left(rules);
        more_at.into_iter().for_each(|at| self.look_again(at));
        let mut offers = Offers { victims_max: left.min(rules.gangs_max as usize), moved: true, ..Offers::default() };
        let (taking, loss_max) = (&self.state.policy().taking, loss_max(rules, item));
        let small = item.scheduling.devices() * 1000;
        let mut ripe_at = None;
        for (other, runs) in self.waiting.running.iter() {
            if runs.leaving || self.taking.victims.contains(&other) {
                offers.leaving.insert(other);
                continue;
            }
            let spent = runs.preempted >= rules.per_victim;
            let Some(started_at) = runs.started_at.filter(|_| runs.may_be_stopped() && !spent) else { continue };
            let loss = runs.loss(taking, self.now);
            if left == 0 || runs.held_milli() == 0 || runs.held_milli() >= small || loss > loss_max {
                continue;
            }
            match started_at.plus_ms(rules.min_run_ms) {
                ripe if ripe > self.now => ripe_at = Some(ripe_at.map_or(ripe, |known: Time| known.min(ripe))),
                _ => _ = offers.prices.insert(other, Price { rank: 0, loss }),
            }
        }
        ripe_at.into_iter().for_each(|at| self.look_again(at));
        self.spent += self.waiting.active.len() as u64;
        offers.prices.retain(|other, _| self.has_somewhere(*other));
        offers
    }

    /// When it is foreseen to start without anybody's moving, if that is by then.
    fn starts_by(&mut self, gang: GangId, item: &Arc<Item>, own: Option<&Arc<Booking>>, by: Time) -> Option<Time> {
        match own {
            Some(own) => Some(own.start).filter(|start| *start <= by),
            None => self.book(gang, item, by.plus_ms(1)).map(|booking| booking.start),
        }
    }

    /// Nodes on which others are to start before the end of a gang that starts then, and such in windows that it may run
    /// on into.
    pub(super) fn in_the_way(&self, item: &Item, from: Time) -> BTreeSet<NodeId> {
        let mut nodes = self.booked.nodes_before(from.plus_ms(item.left()), &BTreeSet::new());
        nodes.extend(self.put_aside(item, from));
        nodes
    }

    /// Room for the gang, and a new place for each of those that make it.
    fn find_moves(&mut self, gang: GangId, item: &Arc<Item>, rules: &Consolidate, own: Option<&Arc<Booking>>) -> Found {
        let mut offers = self.movable(item, rules);
        if offers.prices.is_empty() {
            return Found::Nothing;
        }
        let gone_by = self.gone_by(&offers);
        if let Some(start) = self.starts_by(gang, item, own, gone_by.plus_ms(rules.gain_ms)) {
            // Should it not start then, after all.
            self.look_again(start.plus_ms(MINUTE_MS));
            return Found::Soon;
        }
        let found = self.as_when_all_left(|round| round.choose_moves(gang, item, rules, &mut offers));
        found.map_or(Found::Nothing, |(taken, places)| Found::Room(taken, places))
    }

    fn choose_moves(
        &mut self,
        gang: GangId,
        item: &Item,
        rules: &Consolidate,
        offers: &mut Offers,
    ) -> Option<(Taken, Vec<NewPlace>)> {
        let item = &*self.within_quota(item)?;
        let from = self.gone_by(offers);
        let avoid = self.in_the_way(item, from);
        let loss_max = loss_max(rules, item);
        for _ in 0..CHOICES_MAX {
            self.taking.stuck = None;
            if let Some(taken) = self.choose(gang, item, offers, &avoid) {
                let lost = taken.victims.iter().filter_map(|victim| offers.prices.get(victim));
                let lost = lost.fold(0u64, |sum, price| sum.saturating_add(price.loss));
                let places = self.taking.places.take()?;
                return (lost <= loss_max).then_some((taken, places));
            }
            let stuck = self.taking.stuck.take()?;
            offers.prices.remove(&stuck);
        }
        None
    }

    fn move_for(&mut self, gang: GangId, taken: &Taken, places: Vec<NewPlace>) {
        let state = self.state;
        let room: Vec<DeviceId> = taken.devices().collect();
        let holders = |device: &DeviceId| {
            let node = state.node(device.node);
            let known = node.and_then(|node| node.devices.get(usize::from(device.slot)));
            known.into_iter().flat_map(|device| device.holders().iter().map(|holder| holder.gang)).collect::<Vec<_>>()
        };
        let leave = room.iter().flat_map(holders).chain(taken.victims.iter().copied());
        let grace_ms = leave.filter_map(|gang| Some(self.running(gang)?.scheduling.checkpoint.grace_ms)).max();
        let start = self.now.plus_ms(grace_ms.unwrap_or(0));
        let end = start.plus_ms(state.settings().kill_bound_ms).plus_ms(state.policy().taking.release_ms);
        let kept = |gang: GangId, kind: ReservationKind, parts: &[PlacedPart]| {
            let witness = parts.iter().flat_map(PlacedPart::device_ids).collect();
            Reservation { gang, kind, start, end, domain: common_domain(state, gang, parts), witness }
        };
        let mut moves = Vec::new();
        for NewPlace { gang, parts } in &places {
            let Some(record) = state.gang(*gang) else { continue };
            moves.push(Move { attempt: record.attempt, place: kept(*gang, ReservationKind::Moved, parts) });
        }
        let room = kept(gang, ReservationKind::Victims, &taken.parts);
        self.steps.push(PlanStep::Consolidate(Consolidation { room, moves }));
        for NewPlace { gang, parts } in &places {
            self.taking.victims.insert(*gang);
            self.ledger.set_gone(*gang, true);
            self.keep_place(*gang, parts);
        }
        self.set_apart(gang, taken);
        self.taking.counted.insert(gang);
        self.count_against_limits(gang);
    }
}

/// What came of looking for gangs to move.
enum Found {
    Room(Taken, Vec<NewPlace>),
    /// It will start soon without that.
    Soon,
    Nothing,
}

impl Search {
    /// False when nobody else is to be looked at.
    fn look_at(&mut self, round: &mut Round, item: &Arc<Item>, walk: &mut Walk) -> bool {
        if self.own.is_some_and(|own| own != round.is_within_own(item)) {
            walk.leave_payer();
            return true;
        }
        for gang in item.gangs(round.state) {
            match self.look(round, gang, item) {
                Then::Go => {}
                Then::Leave => break,
                Then::LeaveKind => {
                    walk.leave_kind();
                    break;
                }
                Then::Stop => return false,
            }
        }
        true
    }

    fn look(&mut self, round: &mut Round, gang: GangId, item: &Arc<Item>) -> Then {
        if round.placed.contains(&gang) || round.waits_for_kept(gang) {
            return Then::Go;
        }
        self.looked += 1;
        if self.looked > LOOKS_MAX || round.spent >= round.state.policy().budget.steps {
            return Then::Stop;
        }
        match round.not_eligible(gang, item) {
            None if round.fills_array(gang, item) => return Then::Leave,
            None => {}
            Some(Reason::Parked) => return Then::Go,
            Some(_) => return Then::Leave,
        }
        // Who cannot start now keeps back those behind it, as in the order itself, but for who never can.
        let last = self.strict && round.could_ever(gang, item);
        let then = self.look_for_room(round, gang, item);
        if last && then != Then::Go { Then::Stop } else { then }
    }

    fn look_for_room(&mut self, round: &mut Round, gang: GangId, item: &Arc<Item>) -> Then {
        let asked = item.scheduling.devices();
        let whole = item.scheduling.groups.iter().all(|group| group.share.is_whole());
        if asked == 0
            || !whole
            || asked > DEVICES_MAX
            || asked > round.ledger.free_total()
            || !round.ever.fits(round.state, item)
        {
            return Then::LeaveKind;
        }
        let job = round.state.job(gang.job);
        let queued_at = round.state.gang(gang).map(|record| record.queued_at);
        let Some(since) = queued_at.or(job.map(|job| job.submitted_at)) else { return Then::Leave };
        let ripe_at = since.plus_ms(self.rules.wait_ms);
        if ripe_at > round.now {
            round.look_again(ripe_at);
            return Then::Leave;
        }
        // Whoever has a window of time of its own waits for that.
        if !round.booked.fixed_for(gang.job).is_empty() || !round.is_worth_a_search(item, StopFor::Consolidation) {
            return Then::Leave;
        }
        self.tried += 1;
        if self.tried > TRIES_MAX {
            return Then::Stop;
        }
        self.try_to_move(round, gang, item)
    }

    fn try_to_move(&mut self, round: &mut Round, gang: GangId, item: &Arc<Item>) -> Then {
        let before = round.spent;
        round.put_back();
        let own = round.booked.remove(gang);
        let found = round.within_own(gang, |round| round.find_moves(gang, item, &self.rules, own.as_ref()));
        round.put_back();
        match found {
            Found::Room(taken, places) => {
                round.move_for(gang, &taken, places);
                return Then::Go;
            }
            Found::Nothing if round.excluded(gang).is_empty() => round.note_in_vain(item, StopFor::Consolidation),
            Found::Nothing | Found::Soon => {}
        }
        round.taking.vain_steps += round.spent - before;
        own.into_iter().for_each(|own| round.booked.insert(own));
        Then::Leave
    }
}

/// Most that may be lost for a gang, in device-milliseconds. Whose run time nobody knows counts as running for a day.
fn loss_max(rules: &Consolidate, item: &Item) -> u64 {
    let run_ms = item.run_ms.unwrap_or(DAY_MS);
    let most = u128::from(item.scheduling.devices()) * u128::from(run_ms) * u128::from(rules.loss_max_percent) / 100;
    most.min(u128::from(u64::MAX)) as u64
}

fn moved_by(step: &PlanStep) -> usize {
    match step {
        PlanStep::Consolidate(wanted) => wanted.moves.len(),
        _ => 0,
    }
}
