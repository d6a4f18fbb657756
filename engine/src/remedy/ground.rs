//! What candidates are made from: the cluster as the next cycle leaves it, and what would fit on it.

use crate::command::{Command, Edit, Principal};
use crate::plan::backfill::{expected_end, give_back, held_parts};
use crate::plan::ledger::Ledger;
use crate::plan::limits;
use crate::plan::place::{Request, place};
use crate::plan::quota;
use crate::remedy::{Change, Kind};
use crate::state::State;
use crate::state::job::JobRecord;
use muster_common::job::{GroupRequest, Scheduling};
use muster_common::{GangId, NodeId, Time};
use std::sync::Arc;

pub(super) struct Ground<'a> {
    pub state: &'a State,
    /// After the next cycle.
    pub decided: &'a State,
    pub gang: GangId,
    pub job: &'a JobRecord,
    pub scheduling: Arc<Scheduling>,
    pub now: Time,
    ledger: Ledger,
    /// As the ledger, with what ends next given back.
    later: Ledger,
}

impl<'a> Ground<'a> {
    /// `decided`: the state after the next cycle, and what is free then.
    pub fn new(state: &'a State, decided: (&'a State, Ledger), gang: GangId, now: Time) -> Option<Self> {
        let job = state.job(gang.job)?;
        let (decided, ledger) = decided;
        let later = after_the_next_end(decided, ledger.clone(), now);
        let scheduling = state.scheduling(job).clone();
        Some(Self { state, decided, gang, job, scheduling, now, ledger, later })
    }

    /// Would this start on what the next cycle leaves free, but for those who go first?
    pub fn fits(&self, scheduling: &Scheduling) -> bool {
        self.fits_on(&self.ledger, scheduling)
    }

    /// And on what is free once the next gang has ended?
    pub fn fits_later(&self, scheduling: &Scheduling) -> bool {
        self.fits_on(&self.later, scheduling)
    }

    fn fits_on(&self, ledger: &Ledger, scheduling: &Scheduling) -> bool {
        let scopes = limits::scopes(self.decided, &scheduling.account, &self.job.principal, self.now);
        if limits::over(&scopes, scheduling).is_some() {
            return false;
        }
        let Ok(left) = quota::allowed(&self.ledger.quotas, scheduling) else { return false };
        let request = Request::of(left.as_ref().unwrap_or(scheduling), self.excluded()).for_gang(self.gang);
        place(ledger, self.decided.fabric(), self.decided.policy(), request, &mut 0).is_some()
    }

    fn excluded(&self) -> &[NodeId] {
        self.decided.gang(self.gang).map_or(&[], |record| &record.excluded)
    }

    /// An edit of the job to another scheduling part.
    pub fn edit(&self, kind: Kind, text: String, command: String, scheduling: Scheduling) -> Option<Change> {
        let revision = self.job.revision();
        let launch = self.state.launch(&revision.launch)?.clone();
        let edit = Edit {
            request_id: format!("remedy-{}-{text}", self.state.applied_index()),
            job: self.job.id,
            from_revision: revision.number,
            name: self.job.name.clone(),
            scheduling,
            launch,
            by: self.job.principal.clone(),
        };
        Some(Change { kind, text, command, entries: vec![Command::Edit(Box::new(edit))] })
    }

    /// An edit of one value of the job file. `value` is TOML.
    pub fn set(&self, kind: Kind, text: String, (key, value): (&str, &str), scheduling: Scheduling) -> Option<Change> {
        let id = self.job.id;
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let command = match value {
            // What no shell takes as it is written here is typed in an editor.
            _ if value.contains('\'') || value.contains(char::is_control) => format!("muster edit {id}"),
            _ if value.chars().all(plain) => format!("muster edit {id} --set {key}={value}"),
            _ => format!("muster edit {id} --set '{key}={value}'"),
        };
        self.edit(kind, text, command, scheduling)
    }

    /// An edit of one value of one group.
    pub fn set_group(
        &self,
        kind: Kind,
        text: String,
        (at, key, value): (usize, &str, &str),
        group: GroupRequest,
    ) -> Option<Change> {
        let mut scheduling = (*self.scheduling).clone();
        let name = group.name.clone();
        scheduling.groups[at] = group;
        match scheduling.groups.len() {
            1 => self.set(kind, text, (&format!("gang.{key}"), value), scheduling),
            // `--set` does not reach into a list.
            _ => self.edit(kind, format!("group `{name}`: {text}"), format!("muster edit {}", self.job.id), scheduling),
        }
    }

    /// Somebody who may do what operators do.
    pub fn operator(&self) -> Principal {
        Principal("operator".into())
    }
}

/// The largest number below `most` that is good enough, if the ones below a good one are good too.
pub(super) fn largest_below(most: u64, mut fits: impl FnMut(u64) -> bool) -> Option<u64> {
    let (mut good, mut bad) = (0, most);
    while bad > good + 1 {
        let middle = good + (bad - good) / 2;
        if fits(middle) {
            good = middle;
        } else {
            bad = middle;
        }
    }
    (good > 0).then_some(good)
}

fn after_the_next_end(state: &State, mut ledger: Ledger, now: Time) -> Ledger {
    let ends = state.gangs().values().filter(|gang| gang.current().is_some());
    let ends: Vec<_> = ends.map(|gang| (expected_end(state, gang, now), gang)).collect();
    let next = ends.iter().map(|(end, _)| *end).filter(|end| *end > now && *end < Time::NEVER).min();
    for (_, gang) in ends.iter().filter(|(end, _)| Some(*end) == next) {
        held_parts(gang).for_each(|part| give_back(state, &mut ledger, &part));
    }
    ledger
}
