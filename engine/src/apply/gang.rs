//! A gang's way from stopping to its end or its next attempt, and a job's to its own.

use super::Applying;
use crate::outcome::Event;
use crate::state::change::Key;
use crate::state::gang::{Attempt, AttemptRecord, Blame, Cause, End, GangRecord, GangState, PAST_MAX};
use crate::state::timer::Timer;
use crate::state::usage::Payer;
use muster_common::job::Scheduling;
use muster_common::{GangId, JobId, Time};
use std::sync::Arc;

impl Applying<'_> {
    pub(super) fn scheduling_of(&self, gang: GangId) -> Arc<Scheduling> {
        self.state.scheduling_of(gang).expect("a live gang's job is live").clone()
    }

    pub(super) fn gang_mut(&mut self, gang: GangId) -> &mut GangRecord {
        self.state.touch(Key::Gang(gang));
        self.state.gangs.get_mut(&gang).expect("the gang is in State")
    }

    /// Starting or Running becomes Stopping. The first cause in log order wins; a later one is a
    /// no-op, as is stopping a gang that only waits.
    pub(super) fn stop(&mut self, gang: GangId, cause: Cause) -> bool {
        let now = self.now();
        let Some(record) = self.state.gangs.get(&gang) else {
            return false;
        };
        let mut attempt = match &record.state {
            GangState::Starting(attempt) | GangState::Running(attempt) => attempt.clone(),
            GangState::Queued { .. } | GangState::Stopping(..) => return false,
        };
        let number = attempt.number;
        self.drop_attempt_timers(gang, &attempt);
        attempt.stopping_at = Some(now);
        self.gang_mut(gang).state = GangState::Stopping(attempt, Box::new(cause.clone()));
        self.event(Event::GangStopping { gang, attempt: number, cause: cause.clone() });
        self.keep_healthy(gang, &cause);
        true
    }

    fn drop_attempt_timers(&mut self, gang: GangId, attempt: &Attempt) {
        let number = attempt.number;
        let start_by = attempt.placed_at.plus_ms(self.state.settings.start_within_ms);
        self.drop_timer(start_by, Timer::StartDeadline { gang, attempt: number });
        if let (Some(started), Some(limit_ms)) = (attempt.started_at, self.scheduling_of(gang).limits.time_ms) {
            self.drop_timer(started.plus_ms(limit_ms), Timer::TimeLimit { gang, attempt: number });
        }
    }

    /// Ends the attempt once every part is settled (rule 5).
    pub(super) fn finish_if_settled(&mut self, gang: GangId) {
        let Some(record) = self.state.gangs.get(&gang) else {
            return;
        };
        let GangState::Stopping(attempt, cause) = &record.state else {
            return;
        };
        if !attempt.parts.iter().all(|part| part.state.is_settled()) {
            return;
        }
        let (attempt, cause) = ((**attempt).clone(), (**cause).clone());
        self.end_attempt(gang, attempt, cause);
    }

    fn end_attempt(&mut self, gang: GangId, attempt: Attempt, cause: Cause) {
        let now = self.now();
        let holding = attempt.holding();
        let device_ms = now.since_ms(holding.placed_at).saturating_mul(holding.milli) / 1000;
        let served_ms = match (attempt.started_at, attempt.stopping_at) {
            (Some(started), Some(stopping)) => stopping.since_ms(started),
            _ => 0,
        };
        let payer = self.payer_of(gang);
        self.state.usage.charge(&self.state.accounts, &payer, holding, now, device_ms);
        self.learn(gang, &cause, served_ms);
        let failed_on = cause.node();
        let ended = Arc::new(AttemptRecord { attempt, cause: cause.clone(), ended_at: now, device_ms });
        let exclude = self.scheduling_of(gang).retry.exclude_failed_node && cause.blame() != Blame::Nobody;
        let record = self.gang_mut(gang);
        record.served_ms = record.served_ms.saturating_add(served_ms);
        record.past.push(ended.clone());
        if record.past.len() > PAST_MAX {
            record.past.remove(0);
        }
        if let Some(node) = failed_on.filter(|node| exclude && !record.excluded.contains(node)) {
            record.excluded.push(node);
        }
        self.event(Event::AttemptEnded { gang, record: ended });
        if let Some(job) = self.state.jobs.get_mut(&gang.job) {
            job.gangs_active -= 1;
        }
        self.state.touch(Key::Job(gang.job));
        match self.verdict(gang, &cause) {
            Some(end) => self.end_gang(gang, end),
            None => self.queue_again(gang, &cause),
        }
    }

    /// Keeps how long an attempt ran that ended by its own doing, not by others'.
    fn learn(&mut self, gang: GangId, cause: &Cause, ran_ms: u64) {
        if ran_ms == 0 || !matches!(cause, Cause::Completed | Cause::RankFailed { .. } | Cause::TimeLimit) {
            return;
        }
        let job = self.state.jobs.get(&gang.job).expect("a live gang's job is live");
        let kind = (job.principal.clone(), job.name.clone());
        self.state.run_times.add(kind, ran_ms, self.entry.index);
    }

    /// Whom a gang charges by the revision it has.
    pub(super) fn payer_of(&self, gang: GangId) -> Payer {
        let job = self.state.jobs.get(&gang.job).expect("a live gang's job is live");
        (self.scheduling_of(gang).account.clone(), job.principal.clone())
    }

    /// How the gang ends after this cause; `None` = it is tried again.
    fn verdict(&mut self, gang: GangId, cause: &Cause) -> Option<End> {
        let retry = self.scheduling_of(gang).retry.clone();
        let cancelled = self.state.jobs.get(&gang.job).is_none_or(|job| job.cancelled);
        let record = self.gang_mut(gang);
        match cause {
            Cause::Completed => return Some(End::Succeeded),
            Cause::Cancelled { .. } => return Some(End::Cancelled),
            Cause::TimeLimit => return Some(End::TimedOut),
            _ => {}
        }
        let spent = match cause.blame() {
            Blame::Nobody => false,
            Blame::App => {
                record.app_used += 1;
                record.app_used > retry.app
            }
            Blame::Infra => {
                record.infra_used += 1;
                record.infra_used > retry.infra
            }
        };
        if spent {
            return Some(End::Failed);
        }
        if cancelled {
            return Some(End::Cancelled);
        }
        self.is_too_late(gang).then_some(End::TimedOut)
    }

    fn queue_again(&mut self, gang: GangId, cause: &Cause) {
        let now = self.now();
        let settings = self.state.settings;
        let record = self.gang_mut(gang);
        let tries = record.infra_used + record.app_used;
        let wait_ms = match cause.blame() {
            Blame::Nobody => {
                record.preempted += 1;
                0
            }
            _ => (settings.backoff_ms << tries.saturating_sub(1).min(20)).min(settings.backoff_max_ms),
        };
        let not_before = now.plus_ms(wait_ms);
        record.state = GangState::Queued { not_before };
        record.queued_at = now;
        let next = muster_common::AttemptNo(record.attempt.0 + 1);
        if wait_ms > 0 {
            self.set_timer(not_before, Timer::NotBefore { gang });
        }
        self.event(Event::GangQueued { gang, next, not_before });
        self.keep_for_now(gang);
    }

    /// The back-off of the first element may end at the moment that its job's `begin` names: one timer for both.
    pub(super) fn set_not_before(&mut self, gang: GangId) {
        let waits = self.state.gangs.get(&gang).and_then(|record| match record.state {
            GangState::Queued { not_before } => Some(not_before),
            _ => None,
        });
        let job = self.state.jobs.get(&gang.job).filter(|_| gang.ordinal == 0);
        let begins = job.and_then(|job| self.state.scheduling(job).begin_at_ms).map(Time);
        for at in waits.into_iter().chain(begins).filter(|at| *at > self.state.now) {
            self.state.timers.insert((at, Timer::NotBefore { gang }), ());
        }
    }

    /// Removes a gang that is queued again or has just ended its last attempt.
    pub(super) fn end_gang(&mut self, gang: GangId, end: End) {
        let record = self.state.gangs.remove(&gang).expect("the gang is in State");
        if let GangState::Queued { not_before } = record.state {
            self.drop_timer(not_before, Timer::NotBefore { gang });
            self.set_not_before(gang);
        }
        self.forget_waiting(gang);
        self.state.touch(Key::Gang(gang));
        self.event(Event::GangEnded { gang, end });
        let stop_after = self.scheduling_for_job(gang.job).array.as_ref().and_then(|array| array.stop_after_failures);
        let job = self.state.jobs.get_mut(&gang.job).expect("a live gang's job is live");
        job.gangs_live -= 1;
        match end {
            End::Succeeded => job.tally.succeeded += 1,
            End::Failed => job.tally.failed += 1,
            End::Cancelled => job.tally.cancelled += 1,
            End::TimedOut => job.tally.timed_out += 1,
        }
        if stop_after.is_some_and(|limit| job.tally.failed >= limit) {
            self.give_up_unstarted(gang.job, End::Cancelled);
        }
        self.end_job_if_over(gang.job);
    }

    fn scheduling_for_job(&self, job: JobId) -> Arc<Scheduling> {
        let job = self.state.jobs.get(&job).expect("the job is in State");
        self.state.scheduling(job).clone()
    }

    /// What only a waiting gang has: a reservation, a parking note.
    pub(super) fn forget_waiting(&mut self, gang: GangId) {
        self.state.parked.remove(&gang);
        if let Some(reservation) = self.state.reservations.remove(&gang) {
            self.drop_timer(reservation.end, Timer::Reservation { gang });
        }
    }

    /// Elements that never started end as `end`, without a record each.
    pub(super) fn give_up_unstarted(&mut self, job_id: JobId, end: End) -> u32 {
        let waiting: Vec<GangId> = self
            .state
            .reservations
            .keys()
            .chain(self.state.parked.keys())
            .filter(|gang| gang.job == job_id && !self.state.gangs.contains(gang))
            .copied()
            .collect();
        waiting.into_iter().for_each(|gang| self.forget_waiting(gang));
        let job = self.state.jobs.get_mut(&job_id).expect("the job is in State");
        let count = job.unstarted.len();
        job.unstarted.clear();
        match end {
            End::TimedOut => job.tally.timed_out += count,
            _ => job.tally.cancelled += count,
        }
        self.state.touch(Key::Job(job_id));
        count
    }

    pub(super) fn end_job_if_over(&mut self, id: JobId) {
        if !self.state.jobs.get(&id).is_some_and(|job| job.is_over()) {
            return;
        }
        let job = self.state.jobs.remove(&id).expect("just seen");
        let payer = self.state.payer(&job);
        self.state.usage.job_goes(&self.state.accounts, &payer);
        self.state.touch(Key::Job(id));
        let scheduling = self.state.scheduling(&job).clone();
        let launch = self.state.launch(&job.revision().launch);
        let launch = launch.expect("counted by the job").clone();
        let wait_ms = scheduling.limits.wait_ms;
        let wait_by = wait_ms.map_or(Time::NEVER, |ms| job.submitted_at.plus_ms(ms));
        let begin_at = scheduling.begin_at_ms;
        self.drop_timer(wait_by, Timer::WaitLimit { job: id });
        self.drop_deadline(id, &scheduling);
        if let Some(at) = begin_at {
            self.drop_timer(Time(at), Timer::NotBefore { gang: GangId::new(id, 0) });
        }
        for revision in &job.revisions {
            self.release_parts_of_spec(revision.scheduling, revision.launch);
        }
        let tally = job.tally;
        let end = match tally {
            _ if tally.failed > 0 => End::Failed,
            _ if tally.timed_out > 0 => End::TimedOut,
            _ if tally.cancelled > 0 => End::Cancelled,
            _ => End::Succeeded,
        };
        let at = self.now();
        self.job_ended(&job, end);
        self.event(Event::JobEnded { record: job, scheduling, launch, end, tally, at });
    }

    pub(super) fn release_parts_of_spec(
        &mut self,
        scheduling: muster_common::job::Hash,
        launch: muster_common::job::Hash,
    ) {
        let interned = self.state.schedulings.get_mut(&scheduling).expect("counted by the job");
        interned.count -= 1;
        if interned.count == 0 {
            self.state.schedulings.remove(&scheduling);
        }
        let kept = self.state.launches.get_mut(&launch).expect("counted by the job");
        kept.count -= 1;
        if kept.count == 0 {
            self.state.launches.remove(&launch);
        }
    }
}
