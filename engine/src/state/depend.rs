//! Which jobs wait for which, and what has become of those that ended lately.

use super::State;
use super::gang::End;
use super::job::JobRecord;
use crate::command::Principal;
use muster_common::job::{DependencyKind, Scheduling};
use muster_common::{JobId, Name, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What a job still waits for. Without it nothing of the job is offered to a cycle.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Waits {
    /// In the order in which they were written.
    pub unmet: Vec<(DependencyKind, JobId)>,
    /// What can never hold any more: the job named ended like that.
    pub broken: Vec<(DependencyKind, JobId, End)>,
}

/// What stays of an ended job for those that are to wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    pub end: End,
    pub at: Time,
}

/// Ended jobs that are remembered; beyond it those that ended first go.
pub const TOMBSTONES_MAX: usize = 500_000;
/// Most jobs that wait for one job: all of them are looked at in the entry that ends it.
pub const DEPENDENTS_MAX: usize = 10_000;

/// Does a job's end make a condition on it hold?
pub fn holds_at_end(kind: DependencyKind, end: End) -> bool {
    match kind {
        DependencyKind::Started | DependencyKind::Any => true,
        DependencyKind::Ok => end == End::Succeeded,
        DependencyKind::NotOk => end != End::Succeeded,
    }
}

impl State {
    /// What became of a job that ended within the horizon of idempotency keys.
    pub fn tombstone(&self, job: JobId) -> Option<&Tombstone> {
        self.ended.get(&job)
    }

    /// Jobs that still wait for this one.
    pub fn dependents(&self, job: JobId) -> impl Iterator<Item = JobId> + '_ {
        let from = self.dependents.range_from(&(job, JobId(0)));
        from.map(|(edge, ())| *edge).take_while(move |(upstream, _)| *upstream == job).map(|(_, downstream)| downstream)
    }

    /// The job that a `singleton` waits for: the first of its user and name that was submitted before it.
    pub fn namesake_before(&self, job: &JobRecord) -> Option<JobId> {
        if !self.scheduling(job).after.singleton {
            return None;
        }
        self.first_namesake(&job.principal, &job.name).filter(|first| *first < job.id)
    }

    /// The first live job of a user and name.
    pub(crate) fn first_namesake(&self, principal: &Principal, name: &Name) -> Option<JobId> {
        self.namesakes(principal, name, JobId(0)).next()
    }

    /// The live jobs of a user and name from one on, as they were submitted.
    pub(crate) fn namesakes(&self, principal: &Principal, name: &Name, from: JobId) -> impl Iterator<Item = JobId> {
        let from = self.namesakes.range_from(&(principal.clone(), name.clone(), from));
        from.map(|(key, ())| key)
            .take_while(move |(by, called, _)| by == principal && called == name)
            .map(|(_, _, job)| *job)
    }

    /// Every condition that does not hold yet is listed under the job it names, and every live job under its name.
    pub(crate) fn check_dependencies(&self) -> Result<(), String> {
        let mut edges: BTreeSet<(JobId, JobId)> = BTreeSet::new();
        for job in self.jobs.values() {
            for (_, upstream) in job.waits.iter().flat_map(|waits| &waits.unmet) {
                if !self.jobs.contains(upstream) {
                    return Err(format!("job {} waits for job {upstream}, which is not live", job.id));
                }
                edges.insert((*upstream, job.id));
            }
            if job.waits.as_ref().is_some_and(|waits| waits.unmet.is_empty() && waits.broken.is_empty()) {
                return Err(format!("job {} waits for nothing and is kept waiting", job.id));
            }
            if !self.namesakes.contains(&(job.principal.clone(), job.name.clone(), job.id)) {
                return Err(format!("job {} is not under its name", job.id));
            }
        }
        if !self.dependents.keys().copied().eq(edges) || self.namesakes.len() != self.jobs.len() {
            return Err("jobs that wait for jobs are misfiled".into());
        }
        let ages = self.ended_ages.keys().all(|(at, job)| self.ended.get(job).is_some_and(|stone| stone.at == *at));
        if !ages || self.ended.len() != self.ended_ages.len() {
            return Err("ended jobs and their ages differ".into());
        }
        Ok(())
    }

    /// Nothing of the job may start, whatever is free, until something happens to a job. `scheduling`: its own.
    pub fn is_idle(&self, job: &JobRecord, scheduling: &Scheduling) -> bool {
        let behind = || scheduling.after.singleton && self.namesake_before(job).is_some();
        job.held || job.cancelled || job.waits.is_some() || behind()
    }
}
