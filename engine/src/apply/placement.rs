//! Committing a plan: each gang is checked as a whole against the present state, with the
//! predicates the cycle used, and placed whole or not at all.

use super::Applying;
use crate::command::{CommitPlan, PlacedPart, Placement, PlanStep};
use crate::outcome::{Event, Rejection, Response};
use crate::plan::{feasible, limits};
use crate::state::change::Key;
use crate::state::gang::{Allocation, Attempt, GangRecord, GangState, Parked, PartState};
use crate::state::job::JobRecord;
use crate::state::node::{Holder, NodeRecord};
use crate::state::reservation::Reservation;
use crate::state::timer::Timer;
use muster_common::job::Scheduling;
use muster_common::money::{MicroUsd, device_cost};
use muster_common::time::HOUR_MS;
use muster_common::{AttemptNo, GangId, Time};
use std::sync::Arc;

impl Applying<'_> {
    pub(super) fn commit_plan(&mut self, plan: &CommitPlan) -> Response {
        let mut accepted = 0;
        let mut rejected = Vec::new();
        for step in &plan.steps {
            match step {
                PlanStep::Place(placement) => match self.check_place(placement, plan.now) {
                    Ok(scheduling) => {
                        self.place(placement, &scheduling);
                        accepted += 1;
                    }
                    Err(why) => {
                        self.note_rejection(placement.gang, plan, &why);
                        rejected.push((placement.gang, why));
                    }
                },
                PlanStep::Stop { gang, attempt, by, why } => {
                    accepted += u32::from(self.preempt(*gang, *attempt, *by, *why));
                }
                PlanStep::Reserve(reservation) => accepted += u32::from(self.reserve(reservation)),
                PlanStep::Unreserve { gang } => {
                    self.forget_reservation(*gang);
                    accepted += 1;
                }
                PlanStep::Consolidate(wanted) => match self.check_consolidation(wanted) {
                    Ok(()) => accepted += self.consolidate(wanted),
                    Err(why) => {
                        self.note_rejection(wanted.room.gang, plan, &why);
                        rejected.push((wanted.room.gang, why));
                    }
                },
            }
        }
        Response::Plan { accepted, rejected }
    }

    /// `made`: the moment of the plan, from which its run times count.
    fn check_place(&self, placement: &Placement, made: Time) -> Result<Arc<Scheduling>, Rejection> {
        let job = self.state.jobs.get(&placement.gang.job).ok_or(Rejection::NotWaiting)?;
        let scheduling = self.check_waiting(job, placement)?;
        let scopes = limits::scopes(self.state, &scheduling.account, &job.principal, self.now());
        if let Some(over) = limits::over(&scopes, &scheduling) {
            return Err(Rejection::Limit(over.to_string()));
        }
        feasible::check_placement_shape(&scheduling, placement, self.state)?;
        for part in &placement.parts {
            self.check_part(part, placement.gang)?;
            // A plan may have waited for its turn in the log; its runs begin now.
            self.check_windows(part, placement.gang, &scheduling, made.max(self.now()))?;
        }
        let first = placement.parts.first().ok_or_else(|| Rejection::Shape("no node".into()))?;
        let node = self.state.nodes.get(&first.node).ok_or(Rejection::NodeChanged(first.node))?;
        node.free_port().ok_or(Rejection::Port(first.node))?;
        Ok(scheduling)
    }

    fn check_waiting(&self, job: &JobRecord, placement: &Placement) -> Result<Arc<Scheduling>, Rejection> {
        let gang = placement.gang;
        if job.held || job.cancelled {
            return Err(Rejection::Held);
        }
        let revision = job.revision();
        let scheduling = self.state.interned(revision.scheduling).scheduling.clone();
        if self.state.is_idle(job, &scheduling) {
            return Err(Rejection::Waits);
        }
        let expected = match self.state.gangs.get(&gang) {
            Some(record) => match record.state {
                GangState::Queued { not_before } if not_before <= self.now() => AttemptNo(record.attempt.0 + 1),
                _ => return Err(Rejection::NotWaiting),
            },
            None if job.unstarted.contains(gang.ordinal) => AttemptNo(1),
            None => return Err(Rejection::NotWaiting),
        };
        if expected != placement.attempt || revision.number != placement.revision {
            return Err(Rejection::NotWaiting);
        }
        if scheduling.begin_at_ms.is_some_and(|at| at > self.now().0) {
            return Err(Rejection::NotWaiting);
        }
        let at_once = scheduling.array.as_ref().and_then(|array| array.at_once);
        if at_once.is_some_and(|most| job.gangs_active >= most) {
            return Err(Rejection::AtOnce);
        }
        Ok(scheduling)
    }

    fn check_part(&self, part: &PlacedPart, gang: GangId) -> Result<(), Rejection> {
        let node = self.state.nodes.get(&part.node).ok_or(Rejection::NodeChanged(part.node))?;
        if node.epoch != part.epoch {
            return Err(Rejection::NodeChanged(part.node));
        }
        if !node.is_open() {
            return Err(Rejection::NodeClosed(part.node));
        }
        if !node.free_amount().covers(&part.amount) {
            return Err(Rejection::Amount(part.node));
        }
        let reserved = |slot: u16| {
            self.state.reservations.values().any(|reservation| {
                reservation.gang != gang
                    && reservation.kind.keeps_devices()
                    && reservation.witness.iter().any(|device| device.node == part.node && device.slot == slot)
            })
        };
        for (at, (slot, milli)) in part.devices.iter().enumerate() {
            let twice = part.devices[..at].iter().any(|(other, _)| other == slot);
            let taken = Rejection::DeviceTaken { node: part.node, slot: *slot };
            let device = node.devices.get(usize::from(*slot)).ok_or_else(|| taken.clone())?;
            // A token is per entry, so one entry gives a device to one gang only (rule 3).
            let same_entry = device.holders().iter().any(|holder| holder.token == self.token());
            if twice || *milli == 0 || device.free_milli() < *milli || same_entry || reserved(*slot) {
                return Err(taken);
            }
        }
        Ok(())
    }

    fn check_windows(
        &self,
        part: &PlacedPart,
        gang: GangId,
        scheduling: &Scheduling,
        made: Time,
    ) -> Result<(), Rejection> {
        if self.state.windows.is_empty() {
            return Ok(());
        }
        let node = self.state.nodes.get(&part.node).ok_or(Rejection::NodeChanged(part.node))?;
        match self.kept_out_by(node, gang, scheduling, made) {
            Some(window) => Err(Rejection::Reserved { node: part.node, window }),
            None => Ok(()),
        }
    }

    fn place(&mut self, placement: &Placement, scheduling: &Scheduling) {
        let now = self.now();
        let gang = placement.gang;
        let token = self.token();
        self.forget_waiting(gang);
        let parts = allocations(placement, scheduling);
        let port = self.hold_parts(gang, placement.attempt, &parts);
        let hourly = self.hourly(&parts);
        let attempt = Attempt {
            number: placement.attempt,
            token,
            placed_at: now,
            started_at: None,
            stopping_at: None,
            checkpoint_at: None,
            hourly,
            set_aside: limits::until_limit(hourly, scheduling),
            master_port: port,
            world_size: parts.iter().map(|part| part.ranks).sum(),
            parts,
        };
        self.event(Event::GangPlaced {
            gang,
            attempt: attempt.number,
            token,
            nodes: attempt.parts.iter().map(|part| part.node).collect(),
            devices: attempt.devices(),
        });
        let start_by = now.plus_ms(self.state.settings.start_within_ms);
        self.set_timer(start_by, Timer::StartDeadline { gang, attempt: attempt.number });
        self.enter_starting(gang, placement.revision, attempt);
    }

    /// What an hour of the parts costs at the prices in force.
    fn hourly(&self, parts: &[Allocation]) -> MicroUsd {
        let document = self.state.accounts.document();
        if document.prices.is_empty() {
            return MicroUsd(0);
        }
        let of_part = |part: &Allocation| -> u64 {
            let Some(node) = self.state.nodes.get(&part.node) else { return 0 };
            let of_device = |(slot, milli): &(u16, u16)| {
                let price = document.price_of(&node.inventory.devices[usize::from(*slot)].model);
                device_cost(u128::from(*milli) * u128::from(HOUR_MS), price).0
            };
            part.devices.iter().map(of_device).fold(0, u64::saturating_add)
        };
        MicroUsd(parts.iter().map(of_part).fold(0, u64::saturating_add))
    }

    fn enter_starting(&mut self, gang: GangId, revision: u32, attempt: Attempt) {
        let holding = attempt.holding();
        let job = self.state.jobs.get_mut(&gang.job).expect("checked before placing");
        let first = job.unstarted.remove(gang.ordinal);
        job.gangs_active += 1;
        if first {
            job.gangs_live += 1;
            let queued_at = job.submitted_at;
            let record = GangRecord {
                id: gang,
                revision,
                attempt: attempt.number,
                state: GangState::Starting(Box::new(attempt)),
                queued_at,
                infra_used: 0,
                app_used: 0,
                preempted: 0,
                excluded: Vec::new(),
                past: Vec::new(),
                served_ms: 0,
            };
            self.state.gangs.insert(gang, record);
        } else {
            let record = self.state.gangs.get_mut(&gang).expect("a gang that was placed before has a record");
            record.attempt = attempt.number;
            record.revision = revision;
            let before = std::mem::replace(&mut record.state, GangState::Starting(Box::new(attempt)));
            if let GangState::Queued { not_before } = before {
                // It is due, and whatever expires what is due may not have come to it yet.
                self.drop_timer(not_before, Timer::NotBefore { gang });
            }
        }
        let payer = self.payer_of(gang);
        self.state.usage.take(&self.state.accounts, &payer, holding);
        self.state.touch(Key::Gang(gang));
        self.state.touch(Key::Job(gang.job));
    }

    /// Makes the gang the holder of its devices, CPU, memory and port. Returns the port.
    fn hold_parts(&mut self, gang: GangId, attempt: AttemptNo, parts: &[Allocation]) -> u16 {
        let token = self.token();
        let mut port = 0;
        for (at, part) in parts.iter().enumerate() {
            let node = self.node_mut(part.node);
            node.gangs.insert(gang);
            node.used = node.used.plus(&part.amount);
            for (slot, milli) in &part.devices {
                hold_device(node, *slot, Holder { gang, attempt, token, milli: *milli });
            }
            if at == 0 {
                port = node.free_port().expect("checked before placing");
                node.ports.insert(port, gang);
            }
        }
        port
    }

    /// A plan refused by the very state it was made from is the planner's fault: twice, and the gang
    /// is parked. A stale plan is normal and counts for nothing.
    ///
    /// So is one that was made for a moment that this state has not come to: after a quiet spell its time catches up entry
    /// by entry, and what a new period of a budget lets start waits until it has.
    fn note_rejection(&mut self, gang: GangId, plan: &CommitPlan, why: &Rejection) {
        let made_at = plan.made_at;
        if made_at + 1 != self.entry.index || plan.now > self.now() || !self.is_waiting(gang) {
            return;
        }
        let times = self.state.parked.get(&gang).map_or(0, |parked| parked.times);
        self.state.parked.insert(gang, Parked { made_at, times: times + 1, why: why.clone() });
        self.state.touch(Key::Gang(gang));
    }

    pub(super) fn is_waiting(&self, gang: GangId) -> bool {
        match self.state.gangs.get(&gang) {
            Some(record) => matches!(record.state, GangState::Queued { .. }),
            None => self.state.jobs.get(&gang.job).is_some_and(|job| job.unstarted.contains(gang.ordinal)),
        }
    }

    fn reserve(&mut self, reservation: &Reservation) -> bool {
        let gang = reservation.gang;
        if !self.is_waiting(gang) {
            return false;
        }
        self.keep(reservation.clone());
        true
    }

    /// In place of whatever was kept for the gang before.
    pub(super) fn keep(&mut self, reservation: Reservation) {
        let (gang, start) = (reservation.gang, reservation.start);
        self.forget_reservation(gang);
        self.set_timer(reservation.end, Timer::Reservation { gang });
        self.state.reservations.insert(gang, reservation);
        self.state.touch(Key::Gang(gang));
        self.event(Event::Reserved { gang, start });
    }

    pub(super) fn forget_reservation(&mut self, gang: GangId) {
        if let Some(reservation) = self.state.reservations.remove(&gang) {
            self.drop_timer(reservation.end, Timer::Reservation { gang });
            self.state.touch(Key::Gang(gang));
            self.event(Event::Unreserved { gang });
        }
    }
}

fn hold_device(node: &mut NodeRecord, slot: u16, holder: Holder) {
    use crate::state::node::DeviceState;
    match &mut node.devices[usize::from(slot)] {
        DeviceState::Ok(holders) => holders.push(holder),
        other => unreachable!("a device in state {other:?} was placed on"),
    }
}

fn allocations(placement: &Placement, scheduling: &Scheduling) -> Vec<Allocation> {
    let mut rank_base = 0;
    let allocate = |part: &PlacedPart| {
        let ranks = scheduling.groups[usize::from(part.group)].ranks_on(part.devices.len() as u32);
        let allocation = Allocation {
            group: part.group,
            node: part.node,
            epoch: part.epoch,
            devices: part.devices.clone(),
            amount: part.amount,
            rank_base,
            ranks,
            state: PartState::Placed,
            exits: vec![None; ranks as usize],
        };
        rank_base += ranks;
        allocation
    };
    placement.parts.iter().map(allocate).collect()
}
