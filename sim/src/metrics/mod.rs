//! What users of a scheduler feel, in figures: per job and over all of them.

pub mod fairness;
pub mod groups;
pub mod usage;

use fairness::Fairness;
use groups::Group;
use usage::Usage;

use crate::calibration::Calibration;
use crate::estimates::{Estimate, Sample, StartEstimates};
use crate::faults::Faults;
use crate::play::Played;
use crate::prices::Bill;
use crate::sleepers::PowerCounts;
use crate::trace::TraceJob;
use muster_common::Time;
use muster_engine::state::gang::{Allocation, AttemptRecord, Cause};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A run shorter than this counts as this long in the bounded slowdown.
pub const BSLD_BOUND_S: f64 = 10.0;

/// How a job of the trace ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum JobState {
    Succeeded,
    Failed,
    Cancelled,
    TimedOut,
    /// The cluster could never hold it, however empty.
    Unplaceable,
    /// Nothing more would ever have happened, and it had not ended.
    Unfinished,
}

impl JobState {
    pub const fn word(self) -> &'static str {
        match self {
            JobState::Succeeded => "SUCCEEDED",
            JobState::Failed => "FAILED",
            JobState::Cancelled => "CANCELLED",
            JobState::TimedOut => "TIMED_OUT",
            JobState::Unplaceable => "UNPLACEABLE",
            JobState::Unfinished => "UNFINISHED",
        }
    }
}

/// How the running time of attempts was spent. The parts sum to the time served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Used {
    /// Starting up again and writing checkpoints.
    pub overhead_ms: u64,
    /// Work that did not have to be done again.
    pub kept_ms: u64,
    /// Work that was lost with an attempt.
    pub lost_ms: u64,
    /// Nothing was done any more, and the scheduler did not know yet.
    pub stalled_ms: u64,
}

impl Used {
    pub(crate) fn add(&mut self, attempt: &AttemptResult) {
        self.overhead_ms += attempt.overhead_ms;
        self.kept_ms += attempt.kept_ms;
        self.lost_ms += attempt.lost_ms;
        self.stalled_ms += attempt.stalled_ms;
    }
}

/// One attempt, from its placement to its end.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptResult {
    /// Position of the job in the trace.
    pub job: usize,
    pub number: u32,
    pub placed: Time,
    pub started: Option<Time>,
    pub stopping: Option<Time>,
    pub ended: Time,
    pub cause: &'static str,
    /// Positions of nodes, and devices on each.
    pub nodes: Vec<(u32, u16)>,
    pub overhead_ms: u64,
    pub kept_ms: u64,
    pub lost_ms: u64,
    pub stalled_ms: u64,
    /// 1 = as fast as recorded.
    pub slowdown: f64,
}

impl AttemptResult {
    pub(crate) fn new(job: usize, record: &AttemptRecord, faults: &Faults) -> Self {
        let attempt = &record.attempt;
        let node = |part: &Allocation| {
            let at = faults.position(part.node).expect("nodes of the world are all known");
            (at as u32, part.devices.len() as u16)
        };
        Self {
            job,
            number: attempt.number.0,
            placed: attempt.placed_at,
            started: attempt.started_at,
            stopping: attempt.stopping_at,
            ended: record.ended_at,
            cause: cause_word(&record.cause),
            nodes: attempt.parts.iter().map(node).collect(),
            overhead_ms: 0,
            kept_ms: 0,
            lost_ms: 0,
            stalled_ms: 0,
            slowdown: 1.0,
        }
    }
}

/// Why an attempt ended, for tables.
const fn cause_word(cause: &Cause) -> &'static str {
    match cause {
        Cause::Completed => "COMPLETED",
        Cause::RankFailed { .. } => "RANK_FAILED",
        Cause::Cancelled { .. } => "CANCELLED",
        Cause::TimeLimit => "TIME_LIMIT",
        Cause::Preempted { .. } => "PREEMPTED",
        Cause::Drained { .. } => "DRAINED",
        Cause::NodeLost { .. } => "NODE_LOST",
        Cause::LeaseLost { .. } => "LEASE_LOST",
        Cause::DeviceFailed { .. } => "DEVICE_FAILED",
        Cause::PrepareFailed { .. } => "PREPARE_FAILED",
        Cause::StartTimeout { .. } => "START_TIMEOUT",
        Cause::Vanished { .. } => "VANISHED",
    }
}

/// One job's way through the run.
#[derive(Debug, Clone, PartialEq)]
pub struct JobResult {
    pub job: TraceJob,
    pub first_start: Option<Time>,
    /// What the engine said of its first start.
    pub estimate: Estimate,
    pub end: Option<Time>,
    /// Time its attempts ran, all together.
    pub served_ms: u64,
    pub used: Used,
    pub preemptions: u32,
    pub attempts: u32,
    pub state: JobState,
}

impl JobResult {
    pub(crate) fn new(job: TraceJob) -> Self {
        Self {
            job,
            first_start: None,
            estimate: Estimate::NotAsked,
            end: None,
            served_ms: 0,
            used: Used::default(),
            preemptions: 0,
            attempts: 0,
            state: JobState::Unfinished,
        }
    }

    /// Devices, a share of one counted as that share.
    pub fn gpus(&self) -> f64 {
        self.job.milli() as f64 / 1000.0
    }

    pub fn gpu_h(&self, ms: u64) -> f64 {
        seconds(ms) / 3600.0 * self.gpus()
    }

    pub fn account(&self) -> String {
        self.job.account.as_ref().map_or_else(|| "default".to_owned(), ToString::to_string)
    }

    /// From submit to end.
    pub fn turnaround_ms(&self) -> Option<u64> {
        self.end.map(|end| end.since_ms(Time(self.job.submit_ms)))
    }

    /// The part of the turnaround in which it did not run.
    pub fn wait_ms(&self) -> Option<u64> {
        self.turnaround_ms().map(|turnaround_ms| turnaround_ms.saturating_sub(self.served_ms))
    }

    /// The run time of what succeeded, as publications count it; of other ends no more than it really ran.
    fn worked_ms(&self) -> u64 {
        match self.state {
            JobState::Succeeded => self.job.run_ms,
            _ => self.job.run_ms.min(self.served_ms),
        }
    }

    /// Bounded slowdown: turnaround over run time, both as if no run were shorter than the bound,
    /// never below 1.
    pub fn bsld(&self) -> Option<f64> {
        let wait_s = seconds(self.wait_ms()?);
        let run_s = seconds(self.job.run_ms);
        Some(((wait_s + run_s) / run_s.max(BSLD_BOUND_S)).max(1.0))
    }
}

pub(crate) fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// Mean and tail of one figure over the jobs that ended.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Spread {
    pub mean: f64,
    pub median: f64,
    pub p95: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Spread {
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        if values.is_empty() {
            return Self::default();
        }
        // Before sorting, so that the sum is taken in the order of the trace.
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        let at = |share: f64| values[((values.len() as f64 * share).ceil() as usize).clamp(1, values.len()) - 1];
        Self { mean, median, p95: at(0.95), p99: at(0.99), p999: at(0.999), max: at(1.0) }
    }
}

/// A run in figures. Means are over the jobs that ended; all others are counted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    pub schema: &'static str,
    /// False when the run was stopped before its end.
    pub complete: bool,
    pub jobs: u64,
    pub succeeded: u64,
    /// Failed, cancelled or timed out.
    pub ended_otherwise: u64,
    pub unplaceable: u64,
    pub unfinished: u64,
    pub wait_s: Spread,
    pub turnaround_s: Spread,
    pub bsld: Spread,
    pub bsld_bound_s: f64,
    /// From the first submit to the last end.
    pub makespan_s: f64,
    pub utilisation: Utilisation,
    pub preemptions: u64,
    pub attempts: u64,
    /// Of attempts, by what ended them.
    pub causes: BTreeMap<&'static str, u64>,
    pub failures: Failures,
    pub power: PowerCounts,
    pub usage: Usage,
    pub fairness: Fairness,
    pub by_size: Vec<Group>,
    pub by_account: Vec<Group>,
    /// What no user is known of is under the empty name.
    pub by_user: Vec<Group>,
    /// Where they were asked for.
    pub start_estimates: Option<StartEstimates>,
    /// Where the trace knows when jobs started.
    pub calibration: Option<Calibration>,
    /// Where there is a price list.
    pub cost: Option<Bill>,
}

/// What the world broke, whether or not a job noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Failures {
    pub gpu: u64,
    pub node: u64,
    pub software: u64,
    pub leaf: u64,
    /// Spot machines that their owner took away.
    pub evictions: u64,
}

/// Work done over devices times a span that begins with the first submit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Utilisation {
    /// The span ends with the last first start: leaves out the tail, as some publications do.
    pub until_last_start: f64,
    /// The span ends with the last end.
    pub full_span: f64,
}

impl Summary {
    /// Jobs that came to an end, whichever.
    pub(crate) const fn ended(&self) -> u64 {
        self.succeeded + self.ended_otherwise
    }

    pub(crate) fn of(played: &Played, sample: Sample) -> Self {
        let Played { results, attempts, meter, faults, sleepers, .. } = played;
        let devices = faults.machines.iter().map(|machine| u64::from(machine.devices)).sum();
        let mut summary = Self::of_jobs(results, devices);
        for attempt in attempts {
            *summary.causes.entry(attempt.cause).or_default() += 1;
        }
        let [gpu, node, software, leaf] = faults.counts;
        summary.failures = Failures { gpu, node, software, leaf, evictions: faults.evictions() };
        summary.power = sleepers.counts;
        summary.usage = Usage::of(results, meter);
        summary.start_estimates = StartEstimates::of(results, sample);
        summary.calibration = Calibration::of(results);
        summary
    }

    fn of_jobs(results: &[JobResult], devices: u64) -> Self {
        let count = |wanted: &[JobState]| {
            let found = results.iter().filter(|result| wanted.contains(&result.state));
            found.count() as u64
        };
        let ended = || results.iter().filter(|result| result.end.is_some());
        let first_ms = results.iter().map(|result| result.job.submit_ms).min().unwrap_or(0);
        let since_first = |time: Option<Time>| time.map_or(0.0, |time| seconds(time.since_ms(Time(first_ms))));
        let makespan_s = since_first(ended().filter_map(|result| result.end).max());
        let last_start_s = since_first(results.iter().filter_map(|result| result.first_start).max());
        let work_s: f64 = ended().map(|result| seconds(result.worked_ms()) * result.gpus()).sum();
        let share = |span_s: f64| {
            let capacity = span_s * devices as f64;
            if capacity > 0.0 { work_s / capacity } else { 0.0 }
        };
        Self {
            schema: "muster.sim.summary/1",
            complete: true,
            start_estimates: None,
            calibration: None,
            cost: None,
            jobs: results.len() as u64,
            succeeded: count(&[JobState::Succeeded]),
            ended_otherwise: count(&[JobState::Failed, JobState::Cancelled, JobState::TimedOut]),
            unplaceable: count(&[JobState::Unplaceable]),
            unfinished: count(&[JobState::Unfinished]),
            wait_s: Spread::of(ended().filter_map(JobResult::wait_ms).map(seconds)),
            turnaround_s: Spread::of(ended().filter_map(JobResult::turnaround_ms).map(seconds)),
            bsld: Spread::of(ended().filter_map(JobResult::bsld)),
            bsld_bound_s: BSLD_BOUND_S,
            makespan_s,
            utilisation: Utilisation { until_last_start: share(last_start_s), full_span: share(makespan_s) },
            preemptions: results.iter().map(|result| u64::from(result.preemptions)).sum(),
            attempts: results.iter().map(|result| u64::from(result.attempts)).sum(),
            causes: BTreeMap::new(),
            failures: Failures::default(),
            power: PowerCounts::default(),
            usage: Usage::default(),
            fairness: Fairness::of(results, devices),
            by_size: groups::by_size(results),
            by_account: groups::by_account(results),
            by_user: groups::by_user(results),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(submit_s: u64, start_s: u64, run_s: u64, devices: u32) -> JobResult {
        let job = TraceJob {
            id: "1".into(),
            submit_ms: submit_s * 1000,
            run_ms: run_s * 1000,
            requested_ms: run_s * 1000,
            devices,
            ..TraceJob::default()
        };
        JobResult {
            first_start: Some(Time(start_s * 1000)),
            end: Some(Time((start_s + run_s) * 1000)),
            served_ms: run_s * 1000,
            attempts: 1,
            state: JobState::Succeeded,
            ..JobResult::new(job)
        }
    }

    #[test]
    fn slowdown_is_bounded_on_both_sides() {
        assert_eq!(result(0, 0, 1, 1).bsld(), Some(1.0));
        assert_eq!(result(0, 19, 1, 1).bsld(), Some(2.0));
        assert_eq!(result(0, 100, 100, 1).bsld(), Some(2.0));
    }

    #[test]
    fn utilisation_is_given_over_both_spans() {
        let results = [result(0, 0, 10, 2), result(5, 10, 30, 1)];
        let summary = Summary::of_jobs(&results, 2);
        assert_eq!(summary.makespan_s, 40.0);
        assert_eq!(summary.utilisation.until_last_start, 50.0 / 20.0);
        assert_eq!(summary.utilisation.full_span, 50.0 / 80.0);
        assert_eq!((summary.wait_s.mean, summary.wait_s.max), (2.5, 5.0));
    }

    /// Else the policy that loses more jobs would use the machines better.
    #[test]
    fn only_what_ran_is_used() {
        let given_up = JobResult {
            first_start: None,
            end: Some(Time(50_000)),
            served_ms: 0,
            state: JobState::TimedOut,
            ..result(0, 0, 1_000, 1)
        };
        let failed =
            JobResult { end: Some(Time(5_000)), served_ms: 5_000, state: JobState::Failed, ..result(0, 0, 900, 1) };
        let summary = Summary::of_jobs(&[result(0, 5, 95, 1), given_up, failed], 1);
        assert_eq!((summary.makespan_s, summary.utilisation.full_span), (100.0, 1.0));
    }

    #[test]
    fn jobs_are_summed_up_by_user_too() {
        let of = |user: &str, start_s: u64| {
            let mut result = result(0, start_s, 10, 1);
            result.job.user = Some(user.to_owned()).filter(|user| !user.is_empty());
            result
        };
        let summary = Summary::of_jobs(&[of("bob", 30), of("ann", 0), of("bob", 10), of("", 5)], 1);
        let told: Vec<_> =
            summary.by_user.iter().map(|group| (group.name.as_str(), group.jobs, group.wait_s.max)).collect();
        assert_eq!(told, [("", 1, 5.0), ("ann", 1, 0.0), ("bob", 2, 30.0)]);
    }

    #[test]
    fn a_job_that_never_ran_is_counted_and_not_averaged() {
        let mut never = result(0, 0, 10, 64);
        never.state = JobState::Unplaceable;
        (never.first_start, never.end) = (None, None);
        let summary = Summary::of_jobs(&[never, result(0, 0, 10, 1)], 1);
        assert_eq!((summary.jobs, summary.succeeded, summary.unplaceable), (2, 1, 1));
        assert_eq!(summary.turnaround_s.mean, 10.0);
        assert_eq!(summary.utilisation.full_span, 1.0);
    }
}
