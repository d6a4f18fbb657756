//! A job's deadline: what can no longer end by it is given up.

use super::{Applying, Result};
use crate::outcome::Refusal;
use crate::state::gang::{Cause, End, GangState};
use crate::state::timer::Timer;
use muster_common::job::Scheduling;
use muster_common::{GangId, JobId, Time};

impl Applying<'_> {
    /// # Errors
    /// A deadline that the time limit does not fit before.
    pub(super) fn check_deadline(&self, scheduling: &Scheduling) -> Result<()> {
        match latest_start(scheduling) {
            Some(at) if at <= self.now() => Err(Refusal::Invalid(
                "deadline: started now, the job could run into its time limit only after it".into(),
            )),
            _ => Ok(()),
        }
    }

    pub(super) fn set_deadline(&mut self, job: JobId, scheduling: &Scheduling) {
        if let Some(at) = moments(scheduling).find(|at| *at > self.now()) {
            self.set_timer(at, Timer::Deadline { job });
        }
    }

    pub(super) fn drop_deadline(&mut self, job: JobId, scheduling: &Scheduling) {
        moments(scheduling).for_each(|at| self.drop_timer(at, Timer::Deadline { job }));
    }

    /// Would another attempt, which follows the newest revision, end after the deadline?
    pub(super) fn is_too_late(&self, gang: GangId) -> bool {
        let job = self.state.jobs.get(&gang.job);
        let latest = job.and_then(|job| latest_start(self.state.scheduling(job)));
        latest.is_some_and(|at| at <= self.now())
    }

    /// What waits is given up. What runs has its time limit; without one it is stopped at the deadline itself.
    pub(super) fn deadline_passed(&mut self, id: JobId) {
        let Some(job) = self.state.jobs.get(&id) else { return };
        let scheduling = self.state.scheduling(job).clone();
        let is_over = scheduling.deadline_at_ms.is_some_and(|ms| Time(ms) <= self.now());
        self.give_up_unstarted(id, End::TimedOut);
        for gang in self.gangs_of(id) {
            match self.state.gangs.get(&gang).map(|record| &record.state) {
                Some(GangState::Queued { .. }) => self.end_gang(gang, End::TimedOut),
                // It may run at an older revision, with a limit or without.
                Some(GangState::Starting(_) | GangState::Running(_))
                    if self.scheduling_of(gang).limits.time_ms.is_none() =>
                {
                    if is_over {
                        self.stop(gang, Cause::TimeLimit);
                        self.finish_if_settled(gang);
                    } else {
                        self.set_deadline(id, &scheduling);
                    }
                }
                _ => {}
            }
        }
        self.end_job_if_over(id);
    }
}

/// When something is to be seen to: the latest start, and the deadline for what runs without a limit.
fn moments(scheduling: &Scheduling) -> impl Iterator<Item = Time> {
    latest_start(scheduling).into_iter().chain(scheduling.deadline_at_ms.map(Time))
}

/// From this moment on a start would be too late: the deadline, less the time limit if there is one.
pub(super) fn latest_start(scheduling: &Scheduling) -> Option<Time> {
    let deadline_ms = scheduling.deadline_at_ms?;
    Some(Time(deadline_ms.saturating_sub(scheduling.limits.time_ms.unwrap_or(0))))
}
