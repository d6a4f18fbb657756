//! What users of a scheduler feel, in figures: per job and over all of them.

use crate::trace::TraceJob;
use muster_common::Time;
use serde::Serialize;

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

/// One job's way through the run.
#[derive(Debug, Clone, PartialEq)]
pub struct JobResult {
    pub job: TraceJob,
    pub first_start: Option<Time>,
    pub end: Option<Time>,
    /// Time its attempts ran, all together.
    pub served_ms: u64,
    pub preemptions: u32,
    pub attempts: u32,
    pub state: JobState,
}

impl JobResult {
    pub(crate) fn new(job: TraceJob) -> Self {
        Self {
            job,
            first_start: None,
            end: None,
            served_ms: 0,
            preemptions: 0,
            attempts: 0,
            state: JobState::Unfinished,
        }
    }

    /// From submit to end.
    pub fn turnaround_ms(&self) -> Option<u64> {
        self.end.map(|end| end.since_ms(Time(self.job.submit_ms)))
    }

    /// The part of the turnaround in which it did not run.
    pub fn wait_ms(&self) -> Option<u64> {
        self.turnaround_ms().map(|turnaround_ms| turnaround_ms.saturating_sub(self.served_ms))
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
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Spread {
    pub mean: f64,
    pub median: f64,
    pub p95: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
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
    pub(crate) fn of(results: &[JobResult], devices: u64) -> Self {
        let count = |wanted: &[JobState]| {
            let found = results.iter().filter(|result| wanted.contains(&result.state));
            found.count() as u64
        };
        let ended = || results.iter().filter(|result| result.end.is_some());
        let first_ms = results.iter().map(|result| result.job.submit_ms).min().unwrap_or(0);
        let since_first = |time: Option<Time>| time.map_or(0.0, |time| seconds(time.since_ms(Time(first_ms))));
        let makespan_s = since_first(ended().filter_map(|result| result.end).max());
        let last_start_s = since_first(results.iter().filter_map(|result| result.first_start).max());
        let work_s: f64 = ended().map(|result| seconds(result.job.run_ms) * f64::from(result.job.devices)).sum();
        let share = |span_s: f64| {
            let capacity = span_s * devices as f64;
            if capacity > 0.0 { work_s / capacity } else { 0.0 }
        };
        Self {
            schema: "muster.sim.summary/1",
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
        let summary = Summary::of(&results, 2);
        assert_eq!(summary.makespan_s, 40.0);
        assert_eq!(summary.utilisation.until_last_start, 50.0 / 20.0);
        assert_eq!(summary.utilisation.full_span, 50.0 / 80.0);
        assert_eq!((summary.wait_s.mean, summary.wait_s.max), (2.5, 5.0));
    }

    #[test]
    fn a_job_that_never_ran_is_counted_and_not_averaged() {
        let mut never = result(0, 0, 10, 64);
        never.state = JobState::Unplaceable;
        (never.first_start, never.end) = (None, None);
        let summary = Summary::of(&[never, result(0, 0, 10, 1)], 1);
        assert_eq!((summary.jobs, summary.succeeded, summary.unplaceable), (2, 1, 1));
        assert_eq!(summary.turnaround_s.mean, 10.0);
        assert_eq!(summary.utilisation.full_span, 1.0);
    }
}
