//! Knows how long the recorded jobs really run, and notes what becomes of them.

use crate::SimError;
use crate::estimates::{self, Estimate};
use crate::faults::{Call, Faults, admin};
use crate::meter::Meter;
use crate::metrics::{AttemptResult, JobResult, JobState};
use crate::output::Events;
use crate::play::{Play, Played, operator, planned};
use crate::progress::{NORMAL, Pace};
use crate::run::{Going, Progress};
use crate::sleepers::Sleepers;
use crate::stopwatch::Stopwatch;
use crate::trace::{RecordedEnd, TraceJob};
use crate::world::planned::UserFailure;
use crate::world::truth;
use muster_common::time::SECOND_MS;
use muster_common::{GangId, JobId, NodeId, Time};
use muster_engine::command::{Cancel, Entry, Exit, NodeAction};
use muster_engine::forecast::{Act, AttemptEnd, Hooks, Player};
use muster_engine::outcome::{Event, Outcome, Refusal, Response};
use muster_engine::state::gang::{Allocation, AttemptRecord, Cause, End};
use muster_engine::{Command, Cycle, State};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Entries between two reports of progress.
const PROGRESS_EVERY: u64 = 4_096;

/// What a job has done and owes.
#[derive(Debug, Clone, Copy, Default)]
struct Standing {
    job: Option<JobId>,
    /// Its real run time, and how much of that is done for good.
    work_ms: u64,
    done_ms: u64,
    /// Before the next attempt gets on.
    lead_ms: u64,
    waiting: bool,
    user_failures: u32,
}

/// How a running attempt gets on.
#[derive(Debug, Clone, Copy)]
struct Running {
    pace: Pace,
    left_ms: u64,
}

pub(crate) struct Recorder<'a> {
    play: &'a Play<'a>,
    pub results: Vec<JobResult>,
    standings: Vec<Standing>,
    attempts: Vec<AttemptResult>,
    /// Positions in `results` of the jobs still to be submitted, the next one last.
    arrivals: Vec<usize>,
    of_job: BTreeMap<JobId, usize>,
    running: BTreeMap<GangId, Running>,
    /// Of the sample, submitted since the last decision.
    to_estimate: Vec<usize>,
    user_failures: BTreeMap<String, UserFailure>,
    faults: Faults,
    sleepers: Sleepers,
    meter: Meter,
    stopwatch: Stopwatch,
    progress: &'a mut dyn FnMut(Progress) -> Going,
    events: Option<Events>,
    stopped: bool,
    entries: u64,
    live: u64,
    active: u64,
    ended: u64,
    now: Time,
}

impl<'a> Recorder<'a> {
    pub fn new(
        play: &'a Play<'a>,
        jobs: Vec<TraceJob>,
        (faults, sleepers): (Faults, Sleepers),
        meter: Meter,
        events: Option<Events>,
        progress: &'a mut dyn FnMut(Progress) -> Going,
    ) -> Self {
        let work_ms = |(number, job): (u64, &TraceJob)| play.truth.run_ms(job.run_ms, play.seed, number);
        let standings = (0..).zip(&jobs).map(|job| Standing { work_ms: work_ms(job), ..Standing::default() }).collect();
        let failures = play.world.user_failures.iter().map(|failure| (failure.job.clone(), failure.clone()));
        Self {
            play,
            results: jobs.into_iter().map(JobResult::new).collect(),
            standings,
            attempts: Vec::new(),
            arrivals: Vec::new(),
            of_job: BTreeMap::new(),
            running: BTreeMap::new(),
            to_estimate: Vec::new(),
            user_failures: failures.collect(),
            faults,
            sleepers,
            meter,
            stopwatch: Stopwatch::start(),
            progress,
            events,
            stopped: false,
            entries: 0,
            live: 0,
            active: 0,
            ended: 0,
            now: Time::ZERO,
        }
    }

    pub fn expect(&mut self, index: usize) {
        self.arrivals.push(index);
    }

    pub fn expect_in_order(&mut self) {
        self.arrivals.reverse();
    }

    /// What the world will do of its own.
    pub fn begin(&mut self, begin: Time) -> Vec<(Time, u64)> {
        let mut calls = self.faults.begin(begin);
        for (at, call) in planned(self.play.world, &self.results, begin) {
            calls.push((at, self.faults.call(call)));
        }
        calls
    }

    /// Everything that was to be submitted has come and gone.
    pub fn is_over(&self) -> bool {
        self.arrivals.is_empty() && self.live == 0
    }

    /// Nothing runs, nothing is to be repaired: what waits now will wait for ever.
    pub fn nothing_can_change(&self) -> bool {
        self.active == 0 && self.faults.all_up()
    }

    /// The same, and nothing is to come: only machines are switched, in vain.
    pub fn waits_for_machines(&self) -> bool {
        self.nothing_can_change() && self.arrivals.is_empty()
    }

    /// Somebody asked to stop.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// What the engine calls a job of the trace, once it was submitted.
    pub fn job_of(&self, index: usize) -> Option<JobId> {
        self.standings[index].job
    }

    /// What the trace calls a job of the engine.
    pub fn name_of(&self, job: JobId) -> String {
        self.of_job.get(&job).map_or_else(|| job.to_string(), |index| self.results[*index].job.id.clone())
    }

    pub fn finish(mut self, player: Player) -> Result<Played, SimError> {
        self.events.take().map_or(Ok(()), Events::finish)?;
        self.meter.advance(player.state.now());
        self.close_running(&player.state);
        self.faults.finish(player.state.now());
        self.sleepers.finish(player.state.now());
        self.report();
        Ok(Played {
            complete: !self.stopped,
            results: self.results,
            attempts: self.attempts,
            meter: self.meter,
            faults: self.faults,
            sleepers: self.sleepers,
            stats: player.stats(),
            timing: self.stopwatch.stop(),
            state: player.state,
        })
    }

    /// Asks about the jobs of the sample that came and still wait, now that the moment is decided.
    pub fn estimate(&mut self, state: &State) {
        if self.to_estimate.is_empty() {
            return;
        }
        let asked = std::mem::take(&mut self.to_estimate);
        let (wait, gone): (Vec<usize>, Vec<usize>) =
            asked.into_iter().partition(|index| self.standings[*index].waiting);
        for index in gone {
            self.results[index].estimate = Estimate::AtOnce;
        }
        if !wait.is_empty() {
            let jobs = wait.iter().filter_map(|index| self.standings[*index].job);
            for (index, estimate) in wait.iter().zip(estimates::ask(state, jobs)) {
                self.results[*index].estimate = estimate;
            }
        }
    }

    /// Attempts that the end of the play found running: what they did counts as in progress.
    fn close_running(&mut self, state: &State) {
        for (gang, running) in std::mem::take(&mut self.running) {
            let attempt = state.gang(gang).and_then(|record| record.current());
            let (Some(attempt), Some(&index)) = (attempt, self.of_job.get(&gang.job)) else { continue };
            let Some(started) = attempt.started_at else { continue };
            let ran_ms = attempt.stopping_at.unwrap_or(state.now()).since_ms(started);
            let halted = self.faults.halted.get(&gang).map_or(ran_ms, |at| at.since_ms(started)).min(ran_ms);
            let spent = running.pace.spent(halted, running.left_ms);
            let used = &mut self.results[index].used;
            used.overhead_ms += spent.lead_ms + spent.checkpoint_ms;
            used.kept_ms += spent.working_ms;
            used.stalled_ms += ran_ms - halted;
        }
    }

    fn report(&mut self) {
        let going = (self.progress)(Progress {
            entries: self.entries,
            jobs: self.results.len() as u64,
            ended: self.ended,
            now: self.now,
        });
        self.stopped |= going == Going::Stop;
    }

    fn index(&self, gang: GangId) -> Result<usize, String> {
        let index = self.of_job.get(&gang.job).copied();
        index.ok_or_else(|| format!("an event names job {}, which was never submitted", gang.job))
    }

    fn waits(&mut self, index: usize, waits: bool) {
        if self.standings[index].waiting != waits {
            self.standings[index].waiting = waits;
            self.meter.waits(u64::from(self.results[index].job.devices), waits);
        }
    }

    fn note(&mut self, event: &Event, now: Time) -> Result<(), String> {
        match event {
            Event::GangPlaced { gang, .. } => {
                let index = self.index(*gang)?;
                self.waits(index, false);
                self.active += 1;
            }
            Event::GangStarted { gang, .. } => {
                let index = self.index(*gang)?;
                let result = &mut self.results[index];
                result.attempts += 1;
                result.first_start.get_or_insert(now);
            }
            Event::AttemptEnded { gang, record } => {
                self.active -= 1;
                self.attempt_ended(*gang, record)?;
            }
            Event::GangQueued { gang, .. } => {
                let index = self.index(*gang)?;
                self.waits(index, true);
            }
            Event::GangEnded { gang, end } => {
                let index = self.index(*gang)?;
                self.end(index, *end, now);
            }
            // A job that never started has no gang to end.
            Event::JobEnded { record, end, .. } => {
                if let Some(&index) = self.of_job.get(&record.id)
                    && self.results[index].end.is_none()
                {
                    self.end(index, *end, now);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, index: usize, end: End, now: Time) {
        self.waits(index, false);
        let result = &mut self.results[index];
        result.end = Some(now);
        result.state = match end {
            End::Succeeded => JobState::Succeeded,
            End::Failed => JobState::Failed,
            End::Cancelled => JobState::Cancelled,
            End::TimedOut => JobState::TimedOut,
        };
        if let Some(last) = self.attempts.last_mut().filter(|last| end == End::Failed && last.job == index) {
            // Nobody does it again.
            let undone_ms = std::mem::take(&mut last.lost_ms);
            last.kept_ms += undone_ms;
            result.used.lost_ms -= undone_ms;
            result.used.kept_ms += undone_ms;
        }
        self.ended += 1;
        self.live -= 1;
    }

    fn attempt_ended(&mut self, gang: GangId, record: &Arc<AttemptRecord>) -> Result<(), String> {
        let index = self.index(gang)?;
        let running = self.running.remove(&gang);
        let halted = self.faults.halted.remove(&gang);
        let (result, standing) = (&mut self.results[index], &mut self.standings[index]);
        let mut of_attempt = AttemptResult::new(index, record, &self.faults);
        let times = record.attempt.started_at.zip(record.attempt.stopping_at);
        if let (Some((started, stopping)), Some(running)) = (times, running) {
            let ran_ms = stopping.since_ms(started);
            let worked_ms = halted.map_or(ran_ms, |at| at.since_ms(started)).min(ran_ms);
            let spent = running.pace.spent(worked_ms, running.left_ms);
            let world = self.play.world;
            let (checkpoint_ms, grace_ms) = (world.delays.checkpoint_ms, world.preemption.grace_ms);
            let keeps_all = match record.cause {
                Cause::Completed | Cause::Cancelled { .. } | Cause::TimeLimit => true,
                Cause::Preempted { .. } => world.preemption.keeps_work && checkpoint_ms <= grace_ms,
                Cause::Drained { node } => {
                    let notice_ms = self.faults.notice_ms(node, started).unwrap_or(u64::MAX);
                    world.preemption.keeps_work && checkpoint_ms <= grace_ms.min(notice_ms)
                }
                _ => false,
            };
            let (kept_ms, done_ms) =
                if keeps_all { (spent.working_ms, spent.work_done) } else { (spent.saved_ms, spent.work_saved) };
            of_attempt.overhead_ms = spent.lead_ms + spent.checkpoint_ms;
            of_attempt.kept_ms = kept_ms;
            of_attempt.lost_ms = spent.working_ms - kept_ms;
            of_attempt.stalled_ms = ran_ms - worked_ms;
            of_attempt.slowdown = running.pace.slowdown as f64 / NORMAL as f64;
            result.served_ms += ran_ms;
            result.used.add(&of_attempt);
            standing.done_ms += done_ms;
            let preempted = matches!(record.cause, Cause::Preempted { .. });
            standing.lead_ms = world.delays.restart_ms + if preempted { world.preemption.cost_ms } else { 0 };
        }
        result.preemptions += u32::from(matches!(record.cause, Cause::Preempted { .. }));
        self.attempts.push(of_attempt);
        Ok(())
    }

    /// In parts of [`NORMAL`]: where it was placed, on what, against where it was recorded.
    fn slowdown(&self, state: &State, gang: GangId, job: &TraceJob, parts: &[Allocation]) -> u64 {
        let placed = self.play.truth.slowdown(state, gang, parts);
        let Some((table, work)) = self.play.throughputs.zip(job.work.as_ref()) else { return placed };
        let models = truth::models(state, parts);
        let on = |model: &&muster_common::Name| table.run_ms(work, model.as_str(), parts.len() > 1);
        let slowest = models.iter().filter_map(on).max();
        let Some(run_ms) = slowest else { return placed };
        let relative = u128::from(run_ms) * u128::from(placed) / u128::from(job.run_ms.max(1));
        u64::try_from(relative).unwrap_or(u64::MAX)
    }

    fn drain(&self, state: &State, number: usize, ends: bool) -> Vec<Act> {
        let drain = &self.play.world.drains[number];
        let Some(node) = state.node_named(&drain.node) else { return Vec::new() };
        let deadline_ms = drain.deadline_s.map(|s| s.saturating_mul(SECOND_MS));
        let action =
            if ends { NodeAction::Undrain } else { NodeAction::Drain { reason: "planned".into(), deadline_ms } };
        vec![Act::Commit(admin(node.id, action))]
    }

    fn cancel(&self, index: usize) -> Vec<Act> {
        let live = self.results[index].end.is_none();
        let Some(job) = self.standings[index].job.filter(|_| live) else { return Vec::new() };
        let cancel = Cancel { job, ordinal: None, reason: "as planned".into(), by: operator() };
        vec![Act::Commit(Command::Cancel(cancel))]
    }
}

impl Hooks for Recorder<'_> {
    /// Never asked: [`Hooks::attempt_end`] says more.
    fn run_ms(&mut self, _state: &State, _gang: GangId) -> Option<u64> {
        None
    }

    fn attempt_end(&mut self, state: &State, gang: GangId) -> Option<AttemptEnd> {
        let &index = self.of_job.get(&gang.job)?;
        let attempt = state.gang(gang)?.current()?;
        let started = attempt.started_at?;
        let delays = self.play.world.delays;
        let slowdown = self.slowdown(state, gang, &self.results[index].job, &attempt.parts);
        let (result, standing) = (&self.results[index], &mut self.standings[index]);
        let pace = Pace {
            lead_ms: standing.lead_ms,
            slowdown,
            checkpoint_every_ms: delays.checkpoint_every_ms,
            checkpoint_ms: delays.checkpoint_ms,
        };
        let left_ms = standing.work_ms.saturating_sub(standing.done_ms);
        self.running.insert(gang, Running { pace, left_ms });
        let run_ms = self.play.world.on_tick(pace.run_ms(left_ms));
        let failure = self.user_failures.get(&result.job.id);
        if let Some(failure) = failure.filter(|failure| standing.user_failures < failure.attempts) {
            let after_ms = failure.after_s.saturating_mul(SECOND_MS);
            if after_ms < run_ms {
                standing.user_failures += 1;
                return Some(AttemptEnd { at: started.plus_ms(after_ms), exit: Exit::Code(failure.exit) });
            }
        }
        let exit = match result.job.recorded_end {
            RecordedEnd::Failed if self.play.world.jobs.recorded_ends => Exit::Code(1),
            RecordedEnd::Cancelled if self.play.world.jobs.recorded_ends => Exit::Signal(15),
            _ => Exit::Code(0),
        };
        Some(AttemptEnd { at: started.plus_ms(run_ms), exit })
    }

    fn called(&mut self, state: &State, at: Time, call: u64) -> Vec<Act> {
        match self.faults.take(call) {
            None => Vec::new(),
            Some(Call::Drain(number)) => self.drain(state, number, false),
            Some(Call::Undrain(number)) => self.drain(state, number, true),
            Some(Call::Cancel(index)) => self.cancel(index),
            Some(call) => {
                let acts = self.faults.act(state, at, call);
                if let Call::Notice(which) | Call::Taken(which) | Call::Given(which) = call {
                    let (node, away) = self.faults.away(which);
                    self.meter.set_away(at, node, away);
                }
                acts
            }
        }
    }

    fn prepare_ms(&mut self, _state: &State, _gang: GangId) -> u64 {
        self.play.world.delays.start_ms
    }

    fn release_ms(&mut self, _state: &State, _gang: GangId) -> u64 {
        self.play.world.delays.stop_ms
    }

    fn sleep_ms(&mut self, _state: &State, node: NodeId) -> Option<u64> {
        self.sleepers.sleep_ms(node)
    }

    /// A machine that is down does not come back for an order to wake.
    fn wake_ms(&mut self, _state: &State, node: NodeId) -> Option<u64> {
        let machine = self.faults.position(node).map(|at| &self.faults.machines[at]);
        let there = machine.is_none_or(|machine| machine.is_there());
        self.sleepers.wake_ms(node).filter(|_| there)
    }

    fn before_cycle(&mut self) {
        self.stopwatch.cycle_begins();
    }

    fn on_cycle(&mut self, _state: &State, _now: Time, _cycle: &Cycle) {
        self.stopwatch.cycle_ends();
    }

    fn on_entry(&mut self, state: &State, entry: &Entry, outcome: &Outcome) -> Result<(), String> {
        self.entries += 1;
        self.stopwatch.events += outcome.events.len() as u64;
        self.now = state.now();
        self.meter.advance(self.now);
        if let Command::Submit(submit) = &entry.command {
            let index = self.arrivals.pop().ok_or("more jobs were submitted than recorded")?;
            match &outcome.response {
                Response::Submitted { job, existing: false } => {
                    self.of_job.insert(*job, index);
                    self.standings[index].job = Some(*job);
                    self.live += 1;
                    self.waits(index, true);
                    self.to_estimate.extend(self.play.estimates.has(index).then_some(index));
                }
                // Accounts may hold only so much at a time, and how much waits depends on the policy.
                Response::Refused(Refusal::OverLimit(_)) => {
                    self.results[index].state = JobState::Unplaceable;
                    self.ended += 1;
                }
                Response::Refused(refusal) => return Err(format!("job {}: {refusal}", submit.key)),
                other => return Err(format!("job {}: {other:?}", submit.key)),
            }
        }
        for event in &outcome.events {
            self.note(event, state.now())?;
        }
        for (node, away) in self.sleepers.note(state, &outcome.events, self.now) {
            self.meter.set_away(self.now, node, away);
        }
        self.meter.note(state, entry, outcome);
        if let Some(events) = &mut self.events {
            events.write(entry, state.now(), &outcome.events)?;
        }
        if self.entries.is_multiple_of(PROGRESS_EVERY) {
            self.report();
        }
        if self.play.check {
            state.check().map_err(|broken| format!("after entry {}: {broken:?}", entry.index))?;
        }
        Ok(())
    }
}
