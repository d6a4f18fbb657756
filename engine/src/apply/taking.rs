//! Taking back: gangs stopped for others, and what a gang keeps that lost a node.

use super::Applying;
use crate::command::StopFor;
use crate::policy::PER_HOUR_MAX;
use crate::state::gang::{Blame, Cause, GangRecord, PartState};
use crate::state::reservation::{Reservation, ReservationKind};
use muster_common::time::HOUR_MS;
use muster_common::{AttemptNo, DeviceId, GangId, Time};

impl Applying<'_> {
    /// Stops the attempt a plan meant; one that has ended or is ending already is left alone.
    pub(super) fn preempt(&mut self, gang: GangId, attempt: AttemptNo, by: Option<GangId>, why: StopFor) -> bool {
        let same = self.state.gangs.get(&gang).is_some_and(|record| record.attempt == attempt);
        if !same || !self.stop(gang, Cause::Preempted { by, why }) {
            return false;
        }
        if why == StopFor::Priority {
            self.remember_preemption(gang);
        }
        true
    }

    fn remember_preemption(&mut self, gang: GangId) {
        let now = self.now();
        let known = &mut self.state.preempted;
        let is_old = |(at, _): &(Time, GangId)| now.since_ms(*at) >= HOUR_MS;
        while known.keys().next().is_some_and(is_old) || known.len() >= PER_HOUR_MAX as usize {
            known.pop_first();
        }
        let job = self.state.jobs.get(&gang.job).expect("a live gang's job is live");
        self.state.preempted.insert((now, gang), job.revision().scheduling);
    }

    /// A gang of several nodes of which one fails keeps the others for its next attempt: from now on,
    /// so that nobody takes them while the rest of it is still being stopped.
    pub(super) fn keep_healthy(&mut self, gang: GangId, cause: &Cause) {
        let hold_ms = self.state.policy.taking.wounded_ms;
        if hold_ms == 0 || !is_wound(cause) || !self.is_tried_again(gang, cause) {
            return;
        }
        let record = self.state.gangs.get(&gang).expect("it was just stopped");
        let witness = self.healthy(record, cause);
        if witness.is_empty() {
            return;
        }
        let now = self.now();
        let fence_after_ms = self.scheduling_of(gang).fence_after_ms;
        // Until the attempt has ended, at the latest by when its lost node has been fenced.
        let end = now.plus_ms(self.state.settings.fence_after_ms(fence_after_ms)).plus_ms(hold_ms);
        let kind = ReservationKind::Wounded;
        self.keep(Reservation { gang, kind, start: now, end, domain: None, witness });
    }

    /// From the end of the attempt the hold is for so long and no longer.
    pub(super) fn keep_for_now(&mut self, gang: GangId) {
        let Some(known) = self.state.reservations.get(&gang).cloned() else { return };
        let (now, taking) = (self.now(), &self.state.policy.taking);
        let end = match known.kind {
            // It has gone at last: the place does not end in that moment.
            ReservationKind::Moved => known.end.max(now.plus_ms(taking.release_ms)),
            _ => now.plus_ms(taking.wounded_ms),
        };
        self.keep(Reservation { end, ..known });
    }

    fn is_tried_again(&self, gang: GangId, cause: &Cause) -> bool {
        let record = self.state.gangs.get(&gang).expect("it was just stopped");
        let cancelled = self.state.jobs.get(&gang.job).is_none_or(|job| job.cancelled);
        let spent = cause.blame() == Blame::Infra && record.infra_used >= self.scheduling_of(gang).retry.infra;
        !cancelled && !spent
    }

    /// Whole devices of the attempt on nodes that take work and are not the one that failed.
    fn healthy(&self, gang: &GangRecord, cause: &Cause) -> Vec<DeviceId> {
        let failed = cause.node();
        let parts = gang.current().map_or(&[][..], |attempt| &attempt.parts);
        let is_open = |node| self.state.nodes.get(&node).is_some_and(|record| record.is_open());
        let kept = parts.iter().filter(|part| {
            let gone = matches!(part.state, PartState::Fenced | PartState::Quarantined);
            Some(part.node) != failed && !gone && is_open(part.node)
        });
        let devices = kept.flat_map(|part| part.devices.iter().map(|(slot, milli)| (part.node, *slot, *milli)));
        devices.filter(|device| device.2 == 1000).map(|(node, slot, _)| DeviceId { node, slot }).collect()
    }
}

/// Is it a node that is at fault, and not the job?
fn is_wound(cause: &Cause) -> bool {
    cause.node().is_some() && (cause.blame() == Blame::Infra || matches!(cause, Cause::Drained { .. }))
}
