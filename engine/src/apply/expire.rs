//! Deadlines: the cycle proposes, this checks again against State's own time.

use super::Applying;
use crate::outcome::{Event, Response};
use crate::state::gang::{Cause, End, GangState, PartState};
use crate::state::timer::Timer;
use muster_common::{GangId, JobId, NodeId, Time};
use std::collections::BTreeSet;

impl Applying<'_> {
    pub(super) fn expire(&mut self, timers: &[Timer]) -> Response {
        let wanted: BTreeSet<&Timer> = timers.iter().collect();
        let now = self.now();
        let due: Vec<(Time, Timer)> = self
            .state
            .timers
            .keys()
            .take_while(|(at, _)| *at <= now)
            .filter(|(_, timer)| wanted.contains(timer))
            .copied()
            .collect();
        for (at, timer) in &due {
            self.drop_timer(*at, *timer);
            self.expire_one(*timer);
        }
        Response::Expired { timers: due.len() as u32 }
    }

    fn expire_one(&mut self, timer: Timer) {
        match timer {
            Timer::StartDeadline { gang, .. } => self.start_timed_out(gang),
            Timer::TimeLimit { gang, .. } => {
                self.stop(gang, Cause::TimeLimit);
                self.finish_if_settled(gang);
            }
            Timer::WaitLimit { job } => self.wait_timed_out(job),
            Timer::Deadline { job } => self.deadline_passed(job),
            Timer::NotBefore { gang } => {
                self.state.touch(crate::state::change::Key::Gang(gang));
                self.state.touch(crate::state::change::Key::Job(gang.job));
            }
            Timer::DrainDeadline { node } => self.evict_all(node),
            Timer::JoinToken { hash } => {
                if self.state.tokens.remove(&hash).is_some() {
                    self.event(Event::TokenExpired);
                }
            }
            Timer::Reservation { gang } => self.forget_reservation(gang),
            Timer::Keys => self.forget_old_keys(),
            Timer::Window { number } => self.forget_window(number, None),
            Timer::Wake { node } => self.wake_timed_out(node),
            Timer::FallAsleep { node } => self.sleep_timed_out(node),
        }
    }

    fn start_timed_out(&mut self, gang: GangId) {
        let Some(GangState::Starting(attempt)) = self.state.gangs.get(&gang).map(|record| &record.state) else {
            return;
        };
        let late = attempt.parts.iter().find(|part| part.state == PartState::Placed).unwrap_or(&attempt.parts[0]);
        let node = late.node;
        self.stop(gang, Cause::StartTimeout { node });
        self.finish_if_settled(gang);
    }

    /// The job has waited as long as its owner would: what has not started never will.
    fn wait_timed_out(&mut self, id: JobId) {
        let Some(job) = self.state.jobs.get(&id) else {
            return;
        };
        if job.gangs_active > 0 && job.unstarted.is_empty() {
            return;
        }
        self.give_up_unstarted(id, End::TimedOut);
        for gang in self.gangs_of(id) {
            if matches!(self.state.gangs.get(&gang).map(|record| &record.state), Some(GangState::Queued { .. })) {
                self.end_gang(gang, End::TimedOut);
            }
        }
        self.end_job_if_over(id);
    }

    pub(super) fn evict_all(&mut self, node: NodeId) {
        let Some(record) = self.state.nodes.get(&node) else {
            return;
        };
        for gang in record.gangs.clone() {
            self.stop(gang, Cause::Drained { node });
        }
    }
}
