//! What happens at given times: drains, outages, cancellations, failures of users' own.

use super::World;
use super::failures::REPAIR_S_MAX;
use crate::trace::{SECONDS_MAX, TraceJob};
use muster_common::Name;
use muster_common::text::nearest;
use muster_common::time::SECOND_MS;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A node taken out of service for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedDrain {
    pub node: Name,
    /// On the trace's clock.
    pub at_s: u64,
    /// What still runs so long after is moved; without it, it may end by itself.
    pub deadline_s: Option<u64>,
    /// When the node is back; without it, never.
    pub until_s: Option<u64>,
}

/// A machine that goes down, and what runs there with it; back as another boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedOutage {
    pub node: Name,
    /// On the trace's clock.
    pub at_s: u64,
    /// Without it, it never comes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_s: Option<u64>,
}

impl PlannedOutage {
    /// When the node is back, if ever.
    pub(crate) fn until_s(&self) -> Option<u64> {
        self.for_s.map(|for_s| self.at_s.saturating_add(for_s))
    }
}

/// Those of one node, by time: what begins before the one before it is over, or just then, is one with it.
pub(crate) fn joined(mut outages: Vec<PlannedOutage>) -> Vec<PlannedOutage> {
    outages.sort_by_key(|outage| outage.at_s);
    let mut joined: Vec<PlannedOutage> = Vec::new();
    for outage in outages {
        match joined.last_mut().filter(|last| last.until_s().is_none_or(|until_s| outage.at_s <= until_s)) {
            Some(last) => {
                let until_s = last.until_s().zip(outage.until_s()).map(|(one, other)| one.max(other));
                last.for_s = until_s.map(|until_s| until_s - last.at_s);
            }
            None => joined.push(outage),
        }
    }
    joined
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cancellation {
    /// As the trace names it.
    pub job: String,
    pub at_s: u64,
}

/// A job that exits other than with 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserFailure {
    pub job: String,
    /// Of running, in each attempt that fails.
    pub after_s: u64,
    /// Attempts that fail, the first ones.
    #[serde(default = "one")]
    pub attempts: u32,
    #[serde(default = "exit")]
    pub exit: i32,
}

const fn one() -> u32 {
    1
}

const fn exit() -> i32 {
    1
}

pub(super) fn check(world: &World) -> Result<(), String> {
    let names: BTreeSet<Name> = world.registrations().map(|registration| registration.name).collect();
    for drain in &world.drains {
        if !names.contains(&drain.node) {
            return Err(format!("drains: there is no node `{}`", drain.node));
        }
        if drain.until_s.is_some_and(|until_s| until_s <= drain.at_s) {
            return Err(format!("drains: node `{}` is back before it goes", drain.node));
        }
        check_time("drains", &drain.node, drain.until_s.unwrap_or(drain.at_s))?;
    }
    check_outages(world, &names)?;
    let mut failing = BTreeSet::new();
    for failure in &world.user_failures {
        if failure.exit == 0 {
            return Err(format!("user_failures: job {} exits with 0, which is no failure", failure.job));
        }
        if !failing.insert(&failure.job) {
            return Err(format!("user_failures: job {} is named twice", failure.job));
        }
    }
    Ok(())
}

/// Is it one that a trace could hold?
fn check_time(of: &str, node: &Name, at_s: u64) -> Result<(), String> {
    if at_s as f64 > SECONDS_MAX {
        return Err(format!("{of}: node `{node}`: {at_s} s is beyond what a trace can hold, which is {SECONDS_MAX}"));
    }
    Ok(())
}

fn check_outages(world: &World, names: &BTreeSet<Name>) -> Result<(), String> {
    let mut of_node: BTreeMap<&Name, Vec<&PlannedOutage>> = BTreeMap::new();
    for outage in &world.outages {
        if !names.contains(&outage.node) {
            return Err(format!("outages: there is no node `{}`", outage.node));
        }
        if outage.for_s == Some(0) {
            return Err(format!("outages: node `{}` is down for 0 s; leave it out", outage.node));
        }
        if outage.for_s.is_some_and(|for_s| for_s > REPAIR_S_MAX) {
            return Err(format!(
                "outages: node `{}`: for_s is at most {REPAIR_S_MAX}; leave it out if the node never comes back",
                outage.node
            ));
        }
        check_time("outages", &outage.node, outage.at_s)?;
        of_node.entry(&outage.node).or_default().push(outage);
    }
    for (node, mut outages) in of_node {
        outages.sort_by_key(|outage| outage.at_s);
        for pair in outages.windows(2) {
            let (before, at_s) = (pair[0], pair[1].at_s);
            let until = match before.until_s() {
                Some(until_s) if until_s <= at_s => continue,
                Some(until_s) => format!("until {until_s} s"),
                None => "for good".to_owned(),
            };
            return Err(format!(
                "outages: node `{node}` goes down at {at_s} s, and is down from {} s {until} already",
                before.at_s
            ));
        }
    }
    Ok(())
}

/// Is every job that the world names one of the trace, and cancelled no sooner than it comes?
///
/// # Errors
/// The first that is not, and which may be meant.
pub(crate) fn check_jobs(world: &World, jobs: &[TraceJob]) -> Result<(), String> {
    if world.cancellations.is_empty() && world.user_failures.is_empty() {
        return Ok(());
    }
    let submits: BTreeMap<&str, u64> = jobs.iter().map(|job| (job.id.as_str(), job.submit_ms)).collect();
    let submit_ms = |of: &str, id: &str| {
        submits.get(id).copied().ok_or_else(|| {
            let near = nearest(id, submits.keys().copied()).map(|near| format!("; did you mean `{near}`?"));
            format!("{of}: the trace has no job `{id}`, or leaves it out{}", near.unwrap_or_default())
        })
    };
    for Cancellation { job, at_s } in &world.cancellations {
        let submit_ms = submit_ms("cancellations", job)?;
        if at_s.saturating_mul(SECOND_MS) < submit_ms {
            let submit_s = crate::metrics::seconds(submit_ms);
            return Err(format!("cancellations: job `{job}` is cancelled at {at_s} s and comes at {submit_s} s"));
        }
    }
    world.user_failures.iter().try_for_each(|failure| submit_ms("user_failures", &failure.job).map(drop))
}
