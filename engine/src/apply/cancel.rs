//! Cancel and hold.

use super::{Applying, Result};
use crate::command::{Cancel, Principal};
use crate::outcome::{Event, Refusal, Response};
use crate::state::change::Key;
use crate::state::gang::{Cause, End, GangState};
use muster_common::{GangId, JobId};

impl Applying<'_> {
    pub(super) fn cancel(&mut self, cancel: &Cancel) -> Result {
        let job = self.state.jobs.get(&cancel.job).ok_or(Refusal::UnknownJob(cancel.job))?;
        if let Some(ordinal) = cancel.ordinal {
            let gang = GangId::new(cancel.job, ordinal);
            if !job.unstarted.contains(ordinal) && !self.state.gangs.contains(&gang) {
                return Err(Refusal::UnknownElement { job: cancel.job, ordinal });
            }
        }
        self.event(Event::JobCancelled {
            job: cancel.job,
            ordinal: cancel.ordinal,
            by: cancel.by.clone(),
            reason: cancel.reason.clone(),
        });
        let gangs = match cancel.ordinal {
            Some(ordinal) => self.cancel_element(GangId::new(cancel.job, ordinal), &cancel.reason),
            None => self.end_all(cancel.job, End::Cancelled, &cancel.reason),
        };
        self.end_job_if_over(cancel.job);
        Ok(Response::Cancelled { gangs })
    }

    fn cancel_element(&mut self, gang: GangId, reason: &str) -> u32 {
        let job = self.state.jobs.get_mut(&gang.job).expect("seen by the caller");
        if job.unstarted.remove(gang.ordinal) {
            job.tally.cancelled += 1;
            self.state.touch(Key::Job(gang.job));
            self.forget_waiting(gang);
            return 1;
        }
        u32::from(self.end_or_stop(gang, End::Cancelled, reason) || self.cancel_next_attempt(gang, reason))
    }

    /// A gang that is stopping to be tried again is not tried again. Of a whole job that is noted at the job.
    fn cancel_next_attempt(&mut self, gang: GangId, reason: &str) -> bool {
        let Some(GangState::Stopping(attempt, cause)) = self.state.gangs.get(&gang).map(|record| &record.state) else {
            return false;
        };
        if matches!(**cause, Cause::Completed | Cause::Cancelled { .. } | Cause::TimeLimit) {
            return false;
        }
        let attempt = attempt.clone();
        let cancelled = Box::new(Cause::Cancelled { reason: reason.into() });
        self.gang_mut(gang).state = GangState::Stopping(attempt, cancelled);
        true
    }

    /// Ends what waits and stops what runs, of one job.
    pub(super) fn end_all(&mut self, id: JobId, end: End, reason: &str) -> u32 {
        let Some(job) = self.state.jobs.get_mut(&id) else {
            return 0;
        };
        job.cancelled = true;
        let mut ended = self.give_up_unstarted(id, end);
        for gang in self.gangs_of(id) {
            ended += u32::from(self.end_or_stop(gang, end, reason));
        }
        ended
    }

    fn end_or_stop(&mut self, gang: GangId, end: End, reason: &str) -> bool {
        match self.state.gangs.get(&gang).map(|record| &record.state) {
            Some(GangState::Queued { .. }) => {
                self.end_gang(gang, end);
                true
            }
            Some(_) => {
                let stopped = self.stop(gang, Cause::Cancelled { reason: reason.into() });
                self.finish_if_settled(gang);
                stopped
            }
            None => false,
        }
    }

    pub(super) fn gangs_of(&self, id: JobId) -> Vec<GangId> {
        self.state
            .gangs
            .range_from(&GangId::new(id, 0))
            .map(|(gang, _)| *gang)
            .take_while(|gang| gang.job == id)
            .collect()
    }

    pub(super) fn hold(&mut self, id: JobId, hold: bool, by: &Principal) -> Result {
        let released_at = self.released_at();
        let job = self.state.jobs.get_mut(&id).ok_or(Refusal::UnknownJob(id))?;
        if job.held == hold {
            return Ok(Response::Noop);
        }
        job.held = hold;
        if !hold {
            job.released_at = released_at;
        }
        self.state.touch(Key::Job(id));
        self.state.parked.retain(|gang, _| gang.job != id);
        self.event(Event::JobHeld { job: id, hold, by: by.clone() });
        Ok(Response::Done)
    }
}
