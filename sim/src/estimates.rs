//! How far start estimates are off. When a job of the sample is submitted and does not start at
//! once, the engine's own forecast says when it will; later its real start is held against that.
//! A forecast plays everything that waits forward, so that only a sample of jobs is asked about.

use crate::metrics::JobResult;
use crate::metrics::groups::{SIZES, size_class};
use muster_common::{GangId, JobId, Time};
use muster_engine::State;
use muster_engine::forecast::forecast;
use serde::{Deserialize, Serialize};

/// What was said of a job's start at its submit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Estimate {
    /// It is not of the sample, or was never submitted.
    #[default]
    NotAsked,
    /// It started at that moment: there was nothing to estimate.
    AtOnce,
    Told(Time),
    /// No start could be foreseen, or not within the bound of one forecast.
    NotTold,
}

impl Estimate {
    pub const fn told(self) -> Option<Time> {
        match self {
            Estimate::Told(at) => Some(at),
            _ => None,
        }
    }
}

/// One job in so many is asked about, in the order of the trace; 0 = none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sample {
    pub every: usize,
}

impl Sample {
    /// At most `wanted` of `jobs`.
    pub fn of(jobs: usize, wanted: usize) -> Self {
        Self { every: if wanted == 0 { 0 } else { jobs.div_ceil(wanted).max(1) } }
    }

    pub fn has(self, index: usize) -> bool {
        self.every > 0 && index.is_multiple_of(self.every)
    }
}

/// What the engine says of jobs that wait, all at this moment.
pub(crate) fn ask(state: &State, jobs: impl Iterator<Item = JobId>) -> Vec<Estimate> {
    let told = forecast(state, state.now());
    let of = |job: JobId| match told.starts.get(&GangId::new(job, 0)) {
        Some(Some(at)) => Estimate::Told(*at),
        _ => Estimate::NotTold,
    };
    jobs.map(of).collect()
}

/// What came less what was told, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Errors {
    pub jobs: u64,
    pub abs_median_s: f64,
    pub abs_p90_s: f64,
    /// Mean; above 0, jobs start later than they were told.
    pub bias_s: f64,
    /// Jobs that started later than told, in percent.
    pub late_percent: f64,
}

impl Errors {
    pub(crate) fn of(errors: &[f64]) -> Self {
        if errors.is_empty() {
            return Self::default();
        }
        let mut sizes: Vec<f64> = errors.iter().map(|error| error.abs()).collect();
        sizes.sort_by(f64::total_cmp);
        let at = |share: f64| sizes[((sizes.len() as f64 * share).ceil() as usize).clamp(1, sizes.len()) - 1];
        let late = errors.iter().filter(|error| **error > 0.0).count();
        Self {
            jobs: errors.len() as u64,
            abs_median_s: at(0.5),
            abs_p90_s: at(0.9),
            bias_s: errors.iter().sum::<f64>() / errors.len() as f64,
            late_percent: late as f64 * 100.0 / errors.len() as f64,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SizeErrors {
    pub size: &'static str,
    #[serde(flatten)]
    pub errors: Errors,
}

/// The estimates of a run against what came of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StartEstimates {
    /// One job in so many of the trace was asked about.
    pub every: u64,
    pub asked: u64,
    /// Of those asked about: started at their submit, which says nothing of estimates.
    pub at_once: u64,
    pub not_told: u64,
    /// Told a start, and never started.
    pub never_started: u64,
    /// Of those that were told a start and started.
    pub all: Errors,
    pub by_size: Vec<SizeErrors>,
}

impl StartEstimates {
    /// `None` when nothing was asked for.
    pub(crate) fn of(results: &[JobResult], sample: Sample) -> Option<Self> {
        if sample.every == 0 {
            return None;
        }
        let count = |wanted: fn(&JobResult) -> bool| results.iter().filter(|result| wanted(result)).count() as u64;
        let mut by_size: [Vec<f64>; SIZES.len()] = Default::default();
        let mut all = Vec::new();
        for result in results {
            let Some((told, real)) = result.estimate.told().zip(result.first_start) else { continue };
            let error_s = (real.0 as f64 - told.0 as f64) / 1000.0;
            all.push(error_s);
            by_size[size_class(result.job.devices)].push(error_s);
        }
        let sizes = SIZES.iter().zip(&by_size).filter(|(_, errors)| !errors.is_empty());
        Some(Self {
            every: sample.every as u64,
            asked: count(|result| result.estimate != Estimate::NotAsked),
            at_once: count(|result| result.estimate == Estimate::AtOnce),
            not_told: count(|result| result.estimate == Estimate::NotTold),
            never_started: count(|result| result.estimate.told().is_some() && result.first_start.is_none()),
            all: Errors::of(&all),
            by_size: sizes.map(|(size, errors)| SizeErrors { size, errors: Errors::of(errors) }).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_by_size_and_direction() {
        let errors = Errors::of(&[-10.0, 0.0, 20.0, 30.0]);
        assert_eq!((errors.jobs, errors.abs_median_s, errors.abs_p90_s), (4, 10.0, 30.0));
        assert_eq!((errors.bias_s, errors.late_percent), (10.0, 50.0));
    }

    #[test]
    fn a_sample_is_never_larger_than_wanted() {
        for (jobs, wanted) in [(10, 3), (1, 5), (1_692, 200), (7, 7)] {
            let sample = Sample::of(jobs, wanted);
            let asked = (0..jobs).filter(|index| sample.has(*index)).count();
            assert!(asked <= wanted && asked > 0 && asked * 2 >= wanted.min(jobs), "{asked} of {jobs}");
        }
        assert!(!Sample::of(10, 0).has(0));
    }
}
