//! The same figures for groups of jobs: by size, account and user.

use super::{JobResult, JobState, Spread, seconds};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    pub name: String,
    pub jobs: u64,
    pub succeeded: u64,
    pub wait_s: Spread,
    pub turnaround_s: Spread,
    pub bsld: Spread,
    /// Time its attempts ran, times devices.
    pub served_gpu_h: f64,
    pub preemptions: u64,
    pub attempts: u64,
}

impl Group {
    fn of(name: String, jobs: &[&JobResult]) -> Self {
        let ended = || jobs.iter().filter(|job| job.end.is_some());
        Self {
            name,
            jobs: jobs.len() as u64,
            succeeded: jobs.iter().filter(|job| job.state == JobState::Succeeded).count() as u64,
            wait_s: Spread::of(ended().filter_map(|job| job.wait_ms()).map(seconds)),
            turnaround_s: Spread::of(ended().filter_map(|job| job.turnaround_ms()).map(seconds)),
            bsld: Spread::of(ended().filter_map(|job| job.bsld())),
            served_gpu_h: jobs.iter().map(|job| job.gpu_h(job.served_ms)).sum(),
            preemptions: jobs.iter().map(|job| u64::from(job.preemptions)).sum(),
            attempts: jobs.iter().map(|job| u64::from(job.attempts)).sum(),
        }
    }
}

/// Size classes, by devices.
pub const SIZES: [&str; 5] = ["0", "1", "2-8", "9-64", ">64"];

pub const fn size_class(devices: u32) -> usize {
    match devices {
        0 => 0,
        1 => 1,
        2..=8 => 2,
        9..=64 => 3,
        _ => 4,
    }
}

fn grouped<K: Ord>(results: &[JobResult], key: impl Fn(&JobResult) -> K) -> BTreeMap<K, Vec<&JobResult>> {
    let mut groups: BTreeMap<K, Vec<&JobResult>> = BTreeMap::new();
    for result in results {
        groups.entry(key(result)).or_default().push(result);
    }
    groups
}

pub fn by_size(results: &[JobResult]) -> Vec<Group> {
    let groups = grouped(results, |result| size_class(result.job.devices));
    groups.into_iter().map(|(class, jobs)| Group::of(SIZES[class].to_owned(), &jobs)).collect()
}

pub fn by_account(results: &[JobResult]) -> Vec<Group> {
    let groups = grouped(results, JobResult::account);
    groups.into_iter().map(|(name, jobs)| Group::of(name, &jobs)).collect()
}

pub fn by_user(results: &[JobResult]) -> Vec<Group> {
    let groups = grouped(results, |result| result.job.user.clone().unwrap_or_default());
    groups.into_iter().map(|(name, jobs)| Group::of(name, &jobs)).collect()
}
