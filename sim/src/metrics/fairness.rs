//! Are some served worse than others?

use super::{JobResult, seconds};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Fairness {
    /// Jain's index (Jain, Chiu and Hawe, DEC-TR-301, 1984) of accounts' mean speed, run time over
    /// turnaround: 1 = all alike, 1/n = one of n has everything.
    pub jain_accounts: f64,
    pub jain_users: f64,
    /// Finish-time fairness (Mahajan et al., NSDI 2020): turnaround over what it would have been
    /// on the job's own share of the cluster, run time times the demand on each device while it
    /// was there (at least 1). Above 1: worse off than alone on its share.
    pub rho_mean: f64,
    pub rho_p95: f64,
    pub rho_max: f64,
    /// Jobs above 1, in percent.
    pub rho_above_1_percent: f64,
}

impl Fairness {
    pub(crate) fn of(results: &[JobResult], devices: u64) -> Self {
        let mut rho = finish_time_fairness(results, devices);
        if rho.is_empty() {
            return Self::default();
        }
        let mean = rho.iter().sum::<f64>() / rho.len() as f64;
        let above = rho.iter().filter(|rho| **rho > 1.0).count();
        rho.sort_by(f64::total_cmp);
        let at = |share: f64| rho[((rho.len() as f64 * share).ceil() as usize).clamp(1, rho.len()) - 1];
        Self {
            jain_accounts: jain(results, JobResult::account),
            jain_users: jain(results, |result| result.job.user.clone().unwrap_or_default()),
            rho_mean: mean,
            rho_p95: at(0.95),
            rho_max: at(1.0),
            rho_above_1_percent: above as f64 * 100.0 / rho.len() as f64,
        }
    }
}

fn jain(results: &[JobResult], key: impl Fn(&JobResult) -> String) -> f64 {
    let mut speeds: BTreeMap<String, (f64, u64)> = BTreeMap::new();
    for result in results {
        let Some(turnaround_ms) = result.turnaround_ms().filter(|ms| *ms > 0) else { continue };
        let entry = speeds.entry(key(result)).or_default();
        entry.0 += result.served_ms as f64 / turnaround_ms as f64;
        entry.1 += 1;
    }
    index(speeds.into_values().map(|(sum, count)| sum / count as f64))
}

fn index(values: impl Iterator<Item = f64>) -> f64 {
    let (mut count, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for value in values {
        count += 1.0;
        sum += value;
        squares += value * value;
    }
    if squares == 0.0 { 1.0 } else { sum * sum / (count * squares) }
}

/// Of every job that ended and ran, in the order of the trace.
fn finish_time_fairness(results: &[JobResult], devices: u64) -> Vec<f64> {
    let demand = Demand::of(results);
    let rho = |result: &JobResult| {
        let (end, turnaround_ms) = (result.end?.0, result.turnaround_ms()?);
        let run_ms = result.job.run_ms;
        if turnaround_ms == 0 || run_ms == 0 || result.served_ms == 0 {
            return None;
        }
        let wanted = demand.until(end) - demand.until(result.job.submit_ms);
        let contention = (wanted / turnaround_ms as f64 / devices.max(1) as f64).max(1.0);
        Some(seconds(turnaround_ms) / (seconds(run_ms) * contention))
    };
    results.iter().filter_map(rho).collect()
}

/// Devices asked for by all jobs that are there, as an integral over time.
struct Demand {
    /// Moment, integral until then, demand from then on.
    steps: Vec<(u64, f64, f64)>,
}

impl Demand {
    fn of(results: &[JobResult]) -> Self {
        let mut changes: BTreeMap<u64, i64> = BTreeMap::new();
        for result in results {
            let Some(end) = result.end else { continue };
            *changes.entry(result.job.submit_ms).or_default() += i64::from(result.job.devices);
            *changes.entry(end.0).or_default() -= i64::from(result.job.devices);
        }
        let (mut steps, mut sum, mut now, mut last) = (Vec::with_capacity(changes.len()), 0.0, 0, 0);
        for (at, change) in changes {
            sum += now as f64 * (at - last) as f64;
            now += change;
            last = at;
            steps.push((at, sum, now as f64));
        }
        Self { steps }
    }

    fn until(&self, at: u64) -> f64 {
        let upto = self.steps.partition_point(|step| step.0 <= at);
        upto.checked_sub(1).map_or(0.0, |known| {
            let (from, sum, demand) = self.steps[known];
            sum + demand * (at - from) as f64
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::TraceJob;
    use muster_common::Time;

    #[test]
    fn the_index_is_one_for_equals_and_a_share_for_one() {
        assert_eq!(index([0.5, 0.5, 0.5].into_iter()), 1.0);
        assert_eq!(index([1.0, 0.0, 0.0, 0.0].into_iter()), 0.25);
    }

    #[test]
    fn waiting_behind_an_equal_is_fair_and_waiting_alone_is_not() {
        let job = |submit_ms, end, run_ms| JobResult {
            end: Some(Time(end)),
            served_ms: run_ms,
            ..JobResult::new(TraceJob { submit_ms, run_ms, devices: 4, ..TraceJob::default() })
        };
        // Two jobs that each want the whole cluster: one runs 0-10, the other 10-20.
        let rho = finish_time_fairness(&[job(0, 10, 10), job(0, 20, 10)], 4);
        assert!((rho[0] - 0.5).abs() < 1e-9 && (rho[1] - 20.0 / 15.0).abs() < 1e-9, "{rho:?}");
        // Alone, and kept waiting all the same.
        assert_eq!(finish_time_fairness(&[job(0, 20, 10)], 4), [2.0]);
    }
}
