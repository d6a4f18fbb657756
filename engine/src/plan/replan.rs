//! Filling the order again from an empty cluster: what runs and falls out is stopped, what waits
//! and is selected starts as soon as its devices are free.

use super::backfill::{give_back, held_parts};
use super::lanes::Place;
use super::ledger::Ledger;
use super::order::{OrderKey, Scorer};
use super::round::{Round, not_eligible};
use super::waiting::{Item, is_fungible};
use crate::command::{PlacedPart, PlanStep, StopFor};
use crate::policy::Domains;
use crate::state::gang::{GangRecord, GangState};
use crate::state::node::DeviceState;
use muster_common::node::Inventory;
use muster_common::{GangId, JobId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One gang in the common order of those that run and those that wait.
enum Candidate<'a> {
    Runs(&'a GangRecord, bool),
    Waits(GangId, Arc<Item>),
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
        for (_, _, candidate) in &order {
            self.spent += 1;
            match candidate {
                Candidate::Runs(gang, _) => {
                    if self.keeps(&mut room, gang) {
                        kept.insert(gang.id);
                    }
                }
                Candidate::Waits(gang, item) => {
                    if self.selects(&mut room, *gang, item) {
                        wanted.push((*gang, item.clone()));
                    }
                }
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
            let scheduling = self.state.scheduling(job);
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
                let of_job = counted.entry(gang.job).or_default();
                if not_eligible(self.state, job, gang, &item.scheduling, *of_job, self.now).is_some()
                    || !self.could_ever(item)
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
        let runs = |id: &GangId| self.state.job(id.job).is_some_and(|job| is_fungible(self.state.scheduling(job)));
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
                if let Some(parts) = self.search_outside(gang, item) {
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
        let entered = self.enter_windows(gang);
        let mark = self.ledger.mark();
        self.shut(item, 0);
        let parts = self.search(gang, item);
        self.ledger.rollback(mark);
        self.leave_windows(entered);
        parts
    }
}

fn own_is_free(ledger: &Ledger, part: &PlacedPart) -> bool {
    let Some(view) = ledger.node(part.node) else { return true };
    let free = |&(slot, milli): &(u16, u16)| view.free.get(usize::from(slot)).is_some_and(|free| *free >= milli);
    !view.open || (part.devices.iter().all(free) && view.amount.covers(&part.amount))
}

fn occupy(ledger: &mut Ledger, parts: &[PlacedPart]) {
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
