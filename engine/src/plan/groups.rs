//! What waits, grouped by what decides: a queue of thousands in a few lines, from one cycle.

use super::brief::Briefs;
use super::explain::Reason;
use crate::state::State;
use crate::state::job::JobRecord;
use muster_common::job::{GroupRequest, Scheduling};
use muster_common::{GangId, Name, Time};
use std::collections::{BTreeMap, BTreeSet};

/// Gangs that wait for the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The next cycle starts them.
    pub starts_now: bool,
    /// `None` where they start, or nothing was seen in their way.
    pub reason: Option<Reason>,
    /// Whose limit or quota, which model, which level; empty where the reason says all.
    pub what: String,
    pub gangs: u64,
    pub devices: u64,
    pub jobs: u64,
    /// Since when the first of them waits.
    pub oldest: Time,
    /// The one that has waited longest.
    pub example: GangId,
    /// Why that one waits, for a person.
    pub detail: String,
}

/// What does not start, why, and what that is about.
type Key = (bool, Option<Reason>, String);

/// Groups of all that waits, those with most devices first.
pub fn groups(state: &State, briefs: &Briefs) -> Vec<Group> {
    let mut groups: BTreeMap<Key, (Group, BTreeSet<muster_common::JobId>)> = BTreeMap::new();
    let mut add = |gang: GangId, gangs: u32, (starts_now, reason): (bool, Option<Reason>), detail: &str| {
        let Some(job) = state.job(gang.job) else { return };
        let scheduling = state.scheduling(job);
        let since = state.gang(gang).map_or(job.submitted_at, |record| record.queued_at);
        let what = reason.map_or(String::new(), |reason| what(reason, job, scheduling));
        let (group, jobs) = groups.entry((!starts_now, reason, what.clone())).or_insert_with(|| {
            let none = Group {
                starts_now,
                reason,
                what,
                gangs: 0,
                devices: 0,
                jobs: 0,
                oldest: Time::NEVER,
                example: gang,
                detail: String::new(),
            };
            (none, BTreeSet::new())
        });
        group.gangs += u64::from(gangs);
        group.devices += u64::from(gangs) * scheduling.devices();
        jobs.insert(gang.job);
        if since < group.oldest {
            (group.oldest, group.example, group.detail) = (since, gang, detail.to_owned());
        }
    };
    for brief in &briefs.order {
        let (reason, detail) =
            brief.reason.as_ref().map_or((None, ""), |(reason, detail)| (Some(*reason), detail.as_str()));
        add(brief.gang, brief.gangs, (brief.starts_now, reason), detail);
    }
    for (job, (blocker, gangs)) in briefs.apart.iter().filter(|(_, (_, gangs))| *gangs > 0) {
        add(GangId::new(*job, 0), *gangs, (false, Some(blocker.reason)), &blocker.detail);
    }
    let counted = groups.into_values().map(|(group, jobs)| Group { jobs: jobs.len() as u64, ..group });
    let mut groups: Vec<Group> = counted.collect();
    groups.sort_by_key(|group| std::cmp::Reverse((group.devices, group.gangs)));
    groups
}

/// What a reason is about, as far as it is the same for many.
fn what(reason: Reason, job: &JobRecord, scheduling: &Scheduling) -> String {
    let of_groups = |tell: &dyn Fn(&GroupRequest) -> Vec<String>| {
        let all: BTreeSet<String> = scheduling.groups.iter().flat_map(tell).collect();
        all.into_iter().collect::<Vec<_>>().join(", ")
    };
    let models = |group: &GroupRequest| {
        let names: Vec<&str> = group.models.iter().map(Name::as_str).collect();
        if names.is_empty() || group.devices() == 0 { Vec::new() } else { vec![names.join(" | ")] }
    };
    match reason {
        Reason::UserLimit => format!("{} in {}", job.principal.0, scheduling.account),
        Reason::AccountLimit | Reason::Budget | Reason::OwedCells => scheduling.account.to_string(),
        Reason::Quota => {
            let models = of_groups(&models);
            let of = if models.is_empty() { String::new() } else { format!(" of {models}") };
            format!("{}{of}", scheduling.account)
        }
        Reason::Nodes | Reason::GpuModel | Reason::NeverFits => of_groups(&models),
        Reason::Topology => of_groups(&|group| {
            let levels = group.topology.iter().map(|request| &request.level);
            let cuts = group.segment.iter().map(|cut| &cut.level).chain(group.spread.iter().map(|cut| &cut.level));
            levels.chain(cuts).chain(scheduling.together.iter().map(|wish| &wish.level)).map(Name::to_string).collect()
        }),
        Reason::Label => of_groups(&|group| group.labels.iter().map(|(key, value)| format!("{key}={value}")).collect()),
        _ => String::new(),
    }
}
