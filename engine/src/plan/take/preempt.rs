//! Preemption by priority class: who may have others stopped, and whom.

use super::{Offers, Price};
use crate::plan::round::Round;
use crate::plan::running::Runs;
use crate::plan::waiting::Item;
use crate::policy::Preempt;
use crate::state::State;
use muster_common::job::Hash;
use muster_common::time::HOUR_MS;
use muster_common::{GangId, Time};

impl Round<'_> {
    /// Gangs of low enough classes; `None` when nobody may be stopped for this one now.
    pub(super) fn priority_offers(&mut self, gang: GangId, item: &Item) -> Option<Offers> {
        let state = self.state;
        let preempt = state.policy().taking.preempt.as_ref()?;
        let class = state.policy().class_rank(&item.scheduling.class).unwrap_or(0);
        let below = i64::from(class) - i64::from(preempt.class_gap);
        if !self.waiting.running.has_class_upto(below) {
            return None;
        }
        if let Some(at) = not_before(state, preempt, gang, item, self.now) {
            self.retry(at);
            return None;
        }
        let (left, opens_at) = left_this_hour(state, preempt, self.now);
        let left = left.saturating_sub(self.taking.preempted);
        // More may be stopped then than now, and no entry will say so.
        opens_at.into_iter().for_each(|at| self.retry(at));
        let mut offers = Offers::default();
        let mut protected = None;
        for (other, runs) in self.waiting.running.iter() {
            if runs.leaving || self.taking.victims.contains(&other) {
                offers.leaving.insert(other);
            } else if left > 0
                && i64::from(runs.class) <= below
                && runs.may_be_stopped()
                && self.is_fair_game(item, other, &mut offers)
            {
                match stoppable_at(preempt, runs, self.now) {
                    Some(at) if at <= self.now => {
                        let loss = runs.loss(&state.policy().taking, self.now);
                        offers.prices.insert(other, Price { rank: i64::from(runs.class), loss });
                    }
                    Some(at) => protected = protected.into_iter().chain([at]).min(),
                    None => {}
                }
            }
        }
        if let Some(at) = protected {
            self.retry(at);
        }
        self.spent += self.waiting.active.len() as u64;
        offers.victims_max = left;
        (!offers.prices.is_empty()).then_some(offers)
    }

    fn retry(&mut self, at: Time) {
        if at < Time::NEVER {
            self.taking.look_again_at(at);
        }
    }
}

/// When others may be stopped for the gang, if that is not now.
fn not_before(state: &State, preempt: &Preempt, gang: GangId, item: &Item, now: Time) -> Option<Time> {
    let job = state.job(gang.job)?;
    let queued_at = state.gang(gang).map_or(job.submitted_at, |record| record.queued_at);
    let waited = queued_at.plus_ms(preempt.wait_ms);
    let settled = last_preempted(state, item.shape).map(|at| at.plus_ms(preempt.settle_ms));
    settled.into_iter().chain([waited]).max().filter(|at| *at > now)
}

/// When something that asks for just this was last stopped for a higher class.
fn last_preempted(state: &State, shape: Hash) -> Option<Time> {
    state.preempted().iter().rev().find(|(_, known)| **known == shape).map(|((at, _), _)| *at)
}

/// How many may be stopped yet, and when the first of this hour is an hour old.
fn left_this_hour(state: &State, preempt: &Preempt, now: Time) -> (usize, Option<Time>) {
    let lately = state.preempted().keys().rev().map(|(at, _)| *at).take_while(|at| now.since_ms(*at) < HOUR_MS);
    let (used, first) = lately.fold((0, None), |(used, _), at| (used + 1, Some(at)));
    ((preempt.per_hour as usize).saturating_sub(used), first.map(|at: Time| at.plus_ms(HOUR_MS)))
}

/// From when on a gang may be stopped; `None` = not any more.
fn stoppable_at(preempt: &Preempt, runs: &Runs, now: Time) -> Option<Time> {
    if preempt.per_victim > 0 && runs.preempted >= preempt.per_victim {
        return None;
    }
    // What has not started has no work to lose, but is protected from then on.
    Some(runs.started_at.map_or(now, |at| at.plus_ms(preempt.min_run_ms)))
}
