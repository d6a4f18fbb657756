//! New places for gangs that are to move: found by the placer, each as the gang will ask for it when it starts again,
//! beside the room that is made and beside each other.

use super::{Offers, Taken};
use crate::command::PlacedPart;
use crate::plan::round::Round;
use crate::plan::runtime::run_ms;
use crate::plan::waiting::{Item, KindAt};
use crate::state::gang::GangRecord;
use crate::state::job::JobRecord;
use muster_common::job::{Hash, Scheduling};
use muster_common::{GangId, Time};

/// Where a gang that is moved goes on.
#[derive(Debug, Clone)]
pub(super) struct NewPlace {
    pub gang: GangId,
    pub parts: Vec<PlacedPart>,
}

/// Requests of which a cycle asks whether they would find any other place.
const SHAPES_MAX: usize = 64;
/// Most devices that are kept for those moved for one gang.
const DEVICES_MAX: usize = 4096;

impl Round<'_> {
    /// As it is, or, of gangs that are to move, if each finds a new place: these are left in `taking`, or the one that
    /// found none.
    pub(super) fn if_all_have_places(&mut self, gang: GangId, offers: &Offers, taken: Taken) -> Option<Taken> {
        if !offers.moved {
            return Some(taken);
        }
        let mark = self.ledger.mark();
        let from = self.gone_by(offers);
        let places = self.places(gang, &taken, from);
        self.ledger.rollback(mark);
        self.taking.places = Some(places?);
        Some(taken)
    }

    fn places(&mut self, gang: GangId, taken: &Taken, from: Time) -> Option<Vec<NewPlace>> {
        for victim in &taken.victims {
            self.ledger.set_gone(*victim, true);
            self.uncharge(*victim, -1);
        }
        self.occupy(gang, &taken.parts);
        if !self.affords_all(gang, &taken.victims) {
            return None;
        }
        let mut order = taken.victims.clone();
        let held = |gang: &GangId| self.running(*gang).map_or(0, |runs| runs.held_milli());
        // The largest first: what is left suits the small ones sooner.
        order.sort_by_key(|victim| (std::cmp::Reverse(held(victim)), *victim));
        let (mut places, mut devices) = (Vec::new(), 0);
        for victim in order {
            let Some(parts) = self.place_again(victim, from) else {
                self.taking.stuck = Some(victim);
                return None;
            };
            devices += parts.iter().map(|part| part.devices.len()).sum::<usize>();
            if devices > DEVICES_MAX {
                return None;
            }
            self.occupy(victim, &parts);
            places.push(NewPlace { gang: victim, parts });
        }
        Some(places)
    }

    /// Would budgets bear another attempt of each, beside what is set aside for the present one?
    fn affords_all(&self, gang: GangId, victims: &[GangId]) -> bool {
        let state = self.state;
        let gangs = victims.iter().copied().chain([gang]).filter_map(|gang| state.job(gang.job));
        let wanted: Vec<&Scheduling> = gangs.map(|job| &**state.scheduling(job)).collect();
        self.room.affords(state, &wanted, self.now)
    }

    /// Nobody else's on the ledger, and charged to the gang.
    fn occupy(&mut self, gang: GangId, parts: &[PlacedPart]) {
        self.take(parts);
        self.keep_whole(parts);
        self.charge(gang, parts, 1);
        self.hold_cells(gang, parts, 1);
    }

    /// From now on its new place is nobody else's, for the rest of the cycle, nor what limits leave to it.
    pub(super) fn keep_place(&mut self, gang: GangId, parts: &[PlacedPart]) {
        self.count_against_limits(gang);
        self.taking.masked_slots.extend(parts.iter().flat_map(PlacedPart::device_ids));
        self.take(parts);
        self.keep_whole(parts);
        self.charge_kept(gang, parts);
        self.keep_cells(gang, parts);
    }

    /// Would a running gang find a place on what is free, if only it had to move? Looked into once for each request, and
    /// for so many; of more it is not known.
    pub(super) fn has_somewhere(&mut self, gang: GangId) -> bool {
        let Some(item) = self.item_again(gang) else { return false };
        let asked = (item.shape, self.excluded(gang).to_vec());
        if let Some(known) = self.taking.somewhere.get(&asked) {
            return *known;
        }
        if self.taking.somewhere.len() >= SHAPES_MAX {
            return true;
        }
        let mark = self.ledger.mark();
        self.ledger.set_gone(gang, true);
        if !self.leaves(gang) {
            self.uncharge(gang, -1);
        }
        let found = self.place_again(gang, self.now).is_some();
        self.ledger.rollback(mark);
        self.taking.somewhere.insert(asked, found);
        found
    }

    /// A place for a gang that starts again at a moment, on whole devices: a share beside another's cannot be kept.
    fn place_again(&mut self, gang: GangId, from: Time) -> Option<Vec<PlacedPart>> {
        let item = self.item_again(gang).filter(|item| is_in_time(item, from))?;
        self.within_own(gang, |round| {
            let mark = round.ledger.mark();
            let avoid = round.in_the_way(&item, from);
            round.spent += avoid.len() as u64;
            avoid.into_iter().for_each(|node| round.ledger.shut(node));
            if item.scheduling.groups.iter().any(|group| !group.share.is_whole()) {
                round.shut_shared();
            }
            let parts = round.search(gang, &item);
            round.ledger.rollback(mark);
            parts
        })
    }

    /// Nothing is to be had of devices that somebody has a share of.
    fn shut_shared(&mut self) {
        let shared: Vec<_> = self.ledger.partial().iter().copied().collect();
        self.spent += shared.len() as u64;
        for node in shared {
            self.ledger
                .change(node, |view| view.free.iter_mut().filter(|free| **free < 1000).for_each(|free| *free = 0));
        }
    }

    /// What a running gang asks for when it starts again; `None` = it would not, or not at once.
    pub(super) fn item_again(&self, gang: GangId) -> Option<Item> {
        let (job, record) = (self.state.job(gang.job)?, self.state.gang(gang)?);
        let scheduling = self.state.scheduling(job).clone();
        let waits =
            job.held || job.cancelled || self.expiring.contains(&job.id) || self.state.is_idle(job, &scheduling);
        let begins = scheduling.begin_at_ms.is_some_and(|at| at > self.now.0);
        if waits || begins || !self.room.lets_go_on(self.state, job, &scheduling, self.now) {
            return None;
        }
        let run_ms = run_ms(self.state.policy(), job, &scheduling.limits);
        Some(Item {
            key: crate::plan::order::OrderKey::of_gang(gang),
            lane: false,
            kind: KindAt::NONE,
            shape: shape(job),
            run_ms,
            left_ms: run_ms.map(|run| run.saturating_sub(served_ms(record, run, scheduling.limits.exact_ms))),
            ripe_at: Time::ZERO,
            scheduling,
        })
    }
}

fn shape(job: &JobRecord) -> Hash {
    job.revision().scheduling
}

/// Only an exact run time says what is left after earlier attempts. What this one did may be lost.
fn served_ms(record: &GangRecord, run_ms: u64, exact_ms: Option<u64>) -> u64 {
    if exact_ms == Some(run_ms) { record.served_ms } else { 0 }
}

/// Would it be let start then, or be given up for its deadline?
fn is_in_time(item: &Item, from: Time) -> bool {
    let limit_ms = item.scheduling.limits.time_ms.unwrap_or(0);
    item.scheduling.deadline_at_ms.is_none_or(|deadline| deadline.saturating_sub(limit_ms) > from.0)
}
