//! A run held against what really was: starts that a cluster recorded, and those of the run.

use crate::estimates::Errors;
use crate::metrics::{JobResult, Spread, seconds};
use crate::report::svg::span;
use serde::{Deserialize, Serialize};

/// Recorded against simulated first starts. Under the policy that was in force, what is apart is the simulator's own error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Jobs whose start was recorded, and that started in the run too.
    pub jobs: u64,
    /// Recorded to have started, and did not in the run.
    pub not_started: u64,
    /// From submit to first start.
    pub recorded_wait_s: Spread,
    pub simulated_wait_s: Spread,
    /// Simulated start less the recorded one.
    pub difference: Errors,
    /// The most jobs that start in one order in both.
    pub same_order: u64,
}

impl Calibration {
    /// `None` where no start was recorded.
    pub(crate) fn of(results: &[JobResult]) -> Option<Self> {
        let recorded = || results.iter().filter_map(|result| Some((result, result.job.recorded_start_ms?)));
        recorded().next()?;
        let both = || recorded().filter_map(|(result, ms)| Some((result.job.submit_ms, ms, result.first_start?.0)));
        let differences: Vec<f64> =
            both().map(|(_, recorded, simulated)| (simulated as f64 - recorded as f64) / 1000.0).collect();
        let wait_s = |start: u64, submit: u64| seconds(start.saturating_sub(submit));
        Some(Self {
            jobs: differences.len() as u64,
            not_started: (recorded().count() - differences.len()) as u64,
            recorded_wait_s: Spread::of(both().map(|(submit, recorded, _)| wait_s(recorded, submit))),
            simulated_wait_s: Spread::of(both().map(|(submit, _, simulated)| wait_s(simulated, submit))),
            difference: Errors::of(&differences),
            same_order: same_order(both().map(|(_, recorded, simulated)| (recorded, simulated)).collect()),
        })
    }

    pub fn words(&self) -> String {
        let Self { jobs, not_started, recorded_wait_s, simulated_wait_s, difference, same_order } = self;
        if *jobs == 0 {
            return format!("none of {not_started} recorded starts came in the run");
        }
        let more = match not_started {
            0 => String::new(),
            more => format!("; {more} more did not start here"),
        };
        format!(
            "{jobs} recorded starts: median wait {} there, {} here; starts are {} apart in the median, {} at the 90th \
             percentile; {same_order} of them come in the same order{more}",
            span(recorded_wait_s.median),
            span(simulated_wait_s.median),
            span(difference.abs_median_s),
            span(difference.abs_p90_s),
        )
    }
}

/// How many can be kept so that both starts only rise: one job out of its place moves no other. Starts of one moment
/// are in any order.
fn same_order(mut starts: Vec<(u64, u64)>) -> u64 {
    starts.sort_unstable();
    // By length less one: the least last start of a rising row that long.
    let mut last: Vec<u64> = Vec::new();
    for (_, simulated) in starts {
        let at = last.partition_point(|known| *known <= simulated);
        match last.get_mut(at) {
            Some(known) => *known = simulated,
            None => last.push(simulated),
        }
    }
    last.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::TraceJob;
    use muster_common::Time;

    fn started(submit_s: u64, recorded_s: Option<u64>, simulated_s: Option<u64>) -> JobResult {
        let job = TraceJob {
            submit_ms: submit_s * 1000,
            recorded_start_ms: recorded_s.map(|s| s * 1000),
            ..TraceJob::default()
        };
        JobResult { first_start: simulated_s.map(|s| Time(s * 1000)), ..JobResult::new(job) }
    }

    #[test]
    fn recorded_starts_are_held_against_those_of_the_run() {
        let results = [
            started(0, Some(0), Some(0)),
            started(10, Some(20), Some(50)),
            started(20, Some(60), Some(40)),
            started(30, Some(70), None),
            started(40, None, Some(90)),
        ];
        let known = Calibration::of(&results).unwrap();
        assert_eq!((known.jobs, known.not_started, known.same_order), (3, 1, 2));
        assert_eq!((known.recorded_wait_s.median, known.simulated_wait_s.median), (10.0, 20.0));
        assert_eq!((known.difference.abs_median_s, known.difference.abs_p90_s), (20.0, 30.0));
        assert!(known.words().contains("1 more did not start here"), "{}", known.words());
        assert_eq!(Calibration::of(&results[4..]), None);
        let none = Calibration::of(&results[3..]).unwrap();
        assert_eq!((none.jobs, none.words().as_str()), (0, "none of 1 recorded starts came in the run"));
    }

    #[test]
    fn one_job_out_of_its_place_moves_no_other() {
        let orders = |starts: &[(u64, u64)]| same_order(starts.to_vec());
        assert_eq!(orders(&[(1, 9), (2, 2), (3, 3), (4, 4)]), 3);
        assert_eq!(orders(&[(1, 4), (2, 3), (3, 2)]), 1);
        assert_eq!(orders(&[(1, 5), (1, 4), (1, 6), (2, 6)]), 4);
        assert_eq!(orders(&[]), 0);
    }
}
