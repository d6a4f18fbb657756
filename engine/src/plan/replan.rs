//! Filling the order again from an empty cluster: what runs and falls out is stopped, what waits
//! and is selected starts as soon as its devices are free.

use super::backfill::{give_back, held_parts};
use super::lanes::Place;
use super::ledger::Ledger;
use super::order::{OrderKey, Scorer};
use super::place::{Request, place};
use super::quota;
use super::round::{Round, not_eligible};
use super::waiting::{Item, is_fungible};
use crate::command::{PlacedPart, PlanStep, StopFor};
use crate::policy::{Admission, Domains};
use crate::state::gang::{GangRecord, GangState};
use crate::state::node::DeviceState;
use crate::state::window::longest_ms;
use muster_common::job::Scheduling;
use muster_common::node::Inventory;
use muster_common::{GangId, JobId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One gang in the common order of those that run and those that wait.
enum Candidate<'a> {
    Runs(&'a GangRecord, bool),
    Waits(GangId, Arc<Item>),
}

/// Where a gang that runs belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stays {
    Here,
    /// On devices of a model that it prefers, or because an earlier one takes its own.
    Elsewhere,
    Nowhere,
}

/// How the selection counts what is left.
enum Room {
    /// Any so many devices are as good as any others: only their number.
    Count(u64),
    /// The cluster without the gangs selected so far.
    Nodes(Box<Ledger>),
}

impl<'a> Round<'a> {
    pub fn refill(&mut self, scorer: &Scorer, min_run_ms: u64, max_victims: u32) {
        let mut order = self.candidates(scorer, min_run_ms);
        order.sort_by_key(|candidate| (candidate.0, candidate.1));
        let mut room = self.room(&order);
        let mut kept: BTreeSet<GangId> = BTreeSet::new();
        let mut wanted = Vec::new();
        let strict = matches!(self.state.policy().admission, Admission::HeadOfLine { .. });
        for (_, _, candidate) in &order {
            self.spent += 1;
            let fits = match candidate {
                Candidate::Runs(gang, safe) => {
                    let stays = self.stays(&mut room, gang, *safe);
                    if stays == Stays::Here {
                        kept.insert(gang.id);
                    }
                    stays != Stays::Nowhere
                }
                Candidate::Waits(gang, item) => {
                    let selected = self.selects(&mut room, *gang, item);
                    if selected {
                        wanted.push((*gang, item.clone()));
                    }
                    selected
                }
            };
            if strict && !fits {
                break;
            }
        }
        if matches!(room, Room::Count(_)) {
            for (gang, item) in &wanted {
                self.try_start(*gang, item);
            }
        }
        let first_wanted = wanted.iter().map(|(gang, _)| *gang).find(|gang| !self.placed.contains(gang));
        let victims = order.iter().rev().filter_map(|(_, _, candidate)| match candidate {
            Candidate::Runs(gang, false) if !kept.contains(&gang.id) => Some(*gang),
            _ => None,
        });
        for gang in victims.take(max_victims as usize) {
            self.steps.push(PlanStep::Stop {
                gang: gang.id,
                attempt: gang.attempt,
                by: first_wanted,
                why: StopFor::Order,
            });
        }
    }

    /// Everything that runs or may run, with its place: those that may not be stopped come first.
    fn candidates(&mut self, scorer: &Scorer, min_run_ms: u64) -> Vec<(bool, Place, Candidate<'a>)> {
        let mut order = Vec::new();
        for id in &self.waiting.active {
            let Some(gang) = self.state.gang(*id) else { continue };
            if matches!(gang.state, GangState::Stopping(..)) {
                continue;
            }
            let (Some(job), Some(attempt)) = (self.state.job(id.job), gang.current()) else { continue };
            // It runs on with what it was placed with.
            let Some(scheduling) = self.state.scheduling_of(*id) else { continue };
            let young = self.now.since_ms(attempt.started_at.unwrap_or(self.now)) < min_run_ms;
            let safe = young || !scheduling.preemptible;
            let key = scorer.key(self.state.policy(), job, scheduling, (*id, Some(gang)), self.state, self.now);
            order.push((!safe, self.waiting.by_order.place(&key), Candidate::Runs(gang, safe)));
        }
        let waiting = self.waiting;
        let mut counted: BTreeMap<JobId, u32> = BTreeMap::new();
        for item in waiting.by_order.values() {
            for gang in item.gangs(self.state) {
                if !self.may_look() {
                    return order;
                }
                if self.placed.contains(&gang) || self.waits_for_kept(gang) {
                    continue;
                }
                let Some(job) = self.state.job(gang.job).filter(|job| !self.expiring.contains(&job.id)) else { break };
                let started = self.placed_of(gang.job);
                let of_job = counted.entry(gang.job).or_insert(started);
                if not_eligible(self.state, job, gang, &item.scheduling, *of_job, self.now).is_some()
                    || !self.ever.fits(self.state, item)
                    || self.is_over_quota(item)
                {
                    break;
                }
                *of_job += 1;
                let place = waiting.by_order.place(&OrderKey { gang, ..item.key });
                order.push((true, place, Candidate::Waits(gang, item.clone())));
            }
        }
        order
    }

    fn room(&self, order: &[(bool, Place, Candidate)]) -> Room {
        // With a CPU for each device, what is set aside for devices never lacks CPU.
        let enough_cpu = |machine: &Inventory| machine.cpu_milli >= 1000 * machine.devices.len() as u64;
        let runs = |id: &GangId| self.state.scheduling_of(*id).is_some_and(|own| is_fungible(own));
        let waits = |candidate: &Candidate| match candidate {
            Candidate::Waits(_, item) => is_fungible(&item.scheduling),
            Candidate::Runs(..) => true,
        };
        let fungible = self.state.policy().domains == Domains::Anywhere
            && self.state.windows().is_empty()
            && self.ledger.open_classes().all(enough_cpu)
            && self.waiting.active.iter().all(runs)
            && order.iter().all(|(_, _, candidate)| waits(candidate));
        let active = || self.waiting.active.iter().filter_map(|id| self.state.gang(*id)).flat_map(held_parts);
        if fungible {
            let held: u64 = active().map(|part| self.devices_in_order(&part)).sum();
            return Room::Count(self.ledger.free_total() + held);
        }
        let mut empty = self.ledger.clone();
        active().for_each(|part| give_back(self.state, &mut empty, &part));
        Room::Nodes(Box::new(empty))
    }

    /// Devices of a part that somebody else could have.
    fn devices_in_order(&self, part: &PlacedPart) -> u64 {
        let Some(node) = self.state.node(part.node).filter(|node| node.is_open()) else { return 0 };
        let in_order = |slot: u16| matches!(node.devices.get(usize::from(slot)), Some(DeviceState::Ok(_)));
        part.devices.iter().filter(|(slot, _)| in_order(*slot)).count() as u64
    }

    fn stays(&mut self, room: &mut Room, gang: &GangRecord, safe: bool) -> Stays {
        if let Room::Nodes(empty) = room
            && self.state.policy().taking.upgrade
            && !safe
        {
            return self.best_place(empty, gang);
        }
        if self.keeps(room, gang) { Stays::Here } else { Stays::Nowhere }
    }

    /// Of a gang that may be moved for the sake of models.
    fn best_place(&mut self, empty: &mut Ledger, gang: &GangRecord) -> Stays {
        let own: Vec<PlacedPart> = held_parts(gang).collect();
        let free = own.iter().all(|part| own_is_free(empty, part));
        let Some(job) = self.state.job(gang.id.job) else { return Stays::Nowhere };
        let Some(runs_as) = self.state.scheduling_of(gang.id) else { return Stays::Nowhere };
        // Elsewhere it would start with the newest revision.
        let scheduling = self.state.scheduling(job).clone();
        let found = self.search_on(empty, gang.id, &scheduling);
        let better = |parts: &[PlacedPart]| self.dislike(&scheduling, parts) < self.dislike(runs_as, &own);
        match found {
            Some(parts) if !free || better(&parts) => {
                occupy(empty, &parts);
                self.take(&parts);
                Stays::Elsewhere
            }
            _ if free => {
                occupy(empty, &own);
                Stays::Here
            }
            _ => Stays::Nowhere,
        }
    }

    /// Parts for a gang on another ledger than the round's.
    fn search_on(&mut self, ledger: &mut Ledger, gang: GangId, scheduling: &Scheduling) -> Option<Vec<PlacedPart>> {
        let within = quota::allowed(&self.ledger.quotas, scheduling).ok()?;
        let request = Request::of(within.as_ref().unwrap_or(scheduling), self.excluded(gang)).for_gang(gang);
        std::mem::swap(self.ledger, ledger);
        let parts = self.outside_windows(gang, scheduling, |round| {
            place(round.ledger, round.state.fabric(), round.state.policy(), request, &mut round.spent)
        });
        std::mem::swap(self.ledger, ledger);
        parts
    }

    /// How far down in the lists of models its devices are, summed up.
    fn dislike(&self, scheduling: &Scheduling, parts: &[PlacedPart]) -> u64 {
        let of_part = |part: &PlacedPart| {
            let models = &scheduling.groups.get(usize::from(part.group)).map_or(&[][..], |group| &group.models);
            let node = self.state.node(part.node);
            let place = |slot: u16| {
                let device = node.and_then(|node| node.inventory.devices.get(usize::from(slot)));
                device.and_then(|device| models.iter().position(|model| *model == device.model)).unwrap_or(0) as u64
            };
            part.devices.iter().map(|(slot, _)| place(*slot)).sum::<u64>()
        };
        parts.iter().map(of_part).sum()
    }

    fn keeps(&self, room: &mut Room, gang: &GangRecord) -> bool {
        let parts: Vec<PlacedPart> = held_parts(gang).collect();
        match room {
            Room::Count(left) => {
                let devices = parts.iter().map(|part| self.devices_in_order(part)).sum();
                let fits = devices <= *left;
                *left -= if fits { devices } else { 0 };
                fits
            }
            Room::Nodes(ledger) => {
                let free = parts.iter().all(|part| own_is_free(ledger, part));
                if free {
                    occupy(ledger, &parts);
                }
                free
            }
        }
    }

    /// How much it would dislike what it could have if all that comes after it were gone; no matter = any will do.
    fn best_dislike(&mut self, empty: &mut Ledger, gang: GangId, item: &Item) -> u64 {
        if !self.state.policy().taking.upgrade {
            return u64::MAX;
        }
        let found = self.search_on(empty, gang, &item.scheduling);
        found.map_or(u64::MAX, |parts| self.dislike(&item.scheduling, &parts))
    }

    fn selects(&mut self, room: &mut Room, gang: GangId, item: &Item) -> bool {
        if self.over_limit(gang, item).is_some() {
            return false;
        }
        match room {
            Room::Count(left) => {
                let fits = item.scheduling.devices() <= *left;
                *left -= if fits { item.scheduling.devices() } else { 0 };
                if fits {
                    self.count_against_limits(gang);
                }
                fits
            }
            Room::Nodes(empty) => {
                // What is free already, and claimed by nobody before it, is as good as what a
                // victim would have to give.
                let best = self.best_dislike(empty, gang, item);
                let here = self.search_outside(gang, item);
                if let Some(parts) = here.filter(|parts| self.dislike(&item.scheduling, parts) <= best) {
                    occupy(empty, &parts);
                    self.take(&parts);
                    self.place(gang, item, parts);
                    return true;
                }
                std::mem::swap(self.ledger, empty);
                let parts = self.search_outside(gang, item);
                std::mem::swap(self.ledger, empty);
                if let Some(parts) = &parts {
                    occupy(empty, parts);
                    self.take(parts);
                    self.count_against_limits(gang);
                }
                parts.is_some()
            }
        }
    }

    /// Parts for the gang on nothing that is put aside for others.
    fn search_outside(&mut self, gang: GangId, item: &Item) -> Option<Vec<PlacedPart>> {
        self.outside_windows(gang, &item.scheduling, |round| round.search(gang, item))
    }

    fn outside_windows<T>(&mut self, gang: GangId, of: &Scheduling, find: impl FnOnce(&mut Self) -> T) -> T {
        self.within_own(gang, |round| {
            let mark = round.ledger.mark();
            round.shut(longest_ms(of), 0);
            let found = find(round);
            round.ledger.rollback(mark);
            found
        })
    }
}

fn own_is_free(ledger: &Ledger, part: &PlacedPart) -> bool {
    let Some(view) = ledger.node(part.node) else { return true };
    let free = |&(slot, milli): &(u16, u16)| view.free.get(usize::from(slot)).is_some_and(|free| *free >= milli);
    !view.open || (part.devices.iter().all(free) && view.amount.covers(&part.amount))
}

pub(super) fn occupy(ledger: &mut Ledger, parts: &[PlacedPart]) {
    for part in parts {
        ledger.change(part.node, |view| {
            for &(slot, milli) in &part.devices {
                let free = &mut view.free[usize::from(slot)];
                *free = free.saturating_sub(milli);
            }
            view.amount = view.amount.minus(&part.amount).unwrap_or_default();
        });
    }
}
