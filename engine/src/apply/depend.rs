//! Jobs that wait for jobs: conditions are checked when they are made, and settled by the entry in which the job they
//! name starts or ends.

use super::{Applying, Result};
use crate::command::{Principal, Submit};
use crate::outcome::{Event, Refusal};
use crate::state::State;
use crate::state::change::Key;
use crate::state::depend::{DEPENDENTS_MAX, TOMBSTONES_MAX, Tombstone, Waits, holds_at_end};
use crate::state::gang::End;
use crate::state::job::JobRecord;
use muster_common::job::{Dependencies, DependencyKind, Scheduling};
use muster_common::{JobId, Name};
use std::collections::{BTreeMap, BTreeSet};

/// Jobs looked at for a circle of waiting before an edit is refused.
const LOOKED_AT_MAX: usize = 100_000;

impl Applying<'_> {
    /// What of the conditions does not hold yet.
    ///
    /// # Errors
    /// A job that is named twice, is not known, or has ended so that the condition can never hold.
    pub(super) fn waits_of(&self, after: &Dependencies) -> Result<Option<Box<Waits>>> {
        let count = after.iter().count();
        if count > Dependencies::COUNT_MAX {
            let most = Dependencies::COUNT_MAX;
            return Err(Refusal::Invalid(format!("`after` names {count} jobs; at most {most} are possible")));
        }
        let (mut waits, mut named) = (Waits::default(), BTreeSet::new());
        for (kind, job) in after.iter() {
            // It is kept once under the job named, and would be lost with the first condition that holds.
            if !named.insert(job) {
                return Err(Refusal::Invalid(format!(
                    "after.{}: job {job} is named twice in `[after]`; one condition a job is possible, take one out",
                    kind.word()
                )));
            }
            match self.state.jobs.get(&job) {
                Some(record) if kind == DependencyKind::Started && record.started => {}
                Some(_) if self.state.dependents(job).take(DEPENDENTS_MAX).count() == DEPENDENTS_MAX => {
                    return Err(Refusal::Full {
                        what: format!("jobs that wait for job {job}"),
                        limit: DEPENDENTS_MAX as u64,
                    });
                }
                Some(_) => waits.unmet.push((kind, job)),
                None => self.check_ended(kind, job)?,
            }
        }
        Ok((!waits.unmet.is_empty()).then(|| Box::new(waits)))
    }

    fn check_ended(&self, kind: DependencyKind, job: JobId) -> Result<()> {
        let path = format!("after.{}", kind.word());
        match self.state.ended.get(&job) {
            Some(stone) if holds_at_end(kind, stone.end) => Ok(()),
            Some(stone) => Err(Refusal::Invalid(format!(
                "{path}: job {job} has ended already, {}; the condition can never hold",
                stone.end.word()
            ))),
            None => {
                let hours = self.state.settings.key_horizon_ms / muster_common::time::HOUR_MS;
                Err(Refusal::Invalid(format!(
                    "{path}: job {job} is not known; it never was, or ended more than {hours} h ago"
                )))
            }
        }
    }

    pub(super) fn add_dependent(&mut self, id: JobId, waits: &Waits) {
        for (_, upstream) in &waits.unmet {
            self.state.dependents.insert((*upstream, id), ());
        }
    }

    fn remove_dependent(&mut self, id: JobId) {
        let waits = self.state.jobs.get_mut(&id).and_then(|job| job.waits.take());
        for (_, upstream) in waits.iter().flat_map(|waits| &waits.unmet) {
            self.state.dependents.remove(&(*upstream, id));
        }
    }

    pub(super) fn add_namesake(&mut self, submit: &Submit, id: JobId) {
        self.state.namesakes.insert((submit.principal.clone(), submit.name.clone(), id), ());
    }

    /// The next of the name may be free to start now.
    fn remove_namesake(&mut self, job: &JobRecord, name: &Name) {
        self.state.namesakes.remove(&(job.principal.clone(), name.clone(), job.id));
        if let Some(next) = self.state.first_namesake(&job.principal, name) {
            self.state.touch(Key::Job(next));
        }
    }

    /// The first gang of a job has started.
    pub(super) fn job_started(&mut self, id: JobId) {
        let Some(job) = self.state.jobs.get_mut(&id).filter(|job| !job.started) else { return };
        job.started = true;
        let dependents: Vec<JobId> = self.state.dependents(id).collect();
        dependents.into_iter().for_each(|job| self.settle_condition(job, id, None));
    }

    /// A job has left State. What waits for it is settled once the entry's own work is done.
    pub(super) fn job_ended(&mut self, job: &JobRecord, end: End) {
        let (id, at) = (job.id, self.now());
        for (_, upstream) in job.waits.iter().flat_map(|waits| &waits.unmet) {
            self.state.dependents.remove(&(*upstream, id));
        }
        self.remove_namesake(job, &job.name.clone());
        self.state.ended.insert(id, Tombstone { end, at });
        self.state.ended_ages.insert((at, id), ());
        let horizon_ms = self.state.settings.key_horizon_ms;
        while let Some((oldest, gone)) = self.state.ended_ages.first().map(|(age, ())| *age) {
            if oldest.plus_ms(horizon_ms) > at && self.state.ended.len() <= TOMBSTONES_MAX {
                break;
            }
            self.state.ended_ages.remove(&(oldest, gone));
            self.state.ended.remove(&gone);
        }
        self.ended.push((id, end));
    }

    /// Ends of this entry, and of the jobs that are cancelled because of them, in turn.
    pub(super) fn settle_dependents(&mut self) {
        let mut next = 0;
        while let Some(&(ended, end)) = self.ended.get(next) {
            next += 1;
            let dependents: Vec<JobId> = self.state.dependents(ended).collect();
            dependents.into_iter().for_each(|job| self.settle_condition(job, ended, Some(end)));
        }
    }

    /// `upstream` has started, or ended as told: what does that mean for a job that waits for it?
    fn settle_condition(&mut self, id: JobId, upstream: JobId, end: Option<End>) {
        let holds = |kind| end.map_or(kind == DependencyKind::Started, |end| holds_at_end(kind, end));
        let released_at = self.released_at();
        let Some(job) = self.state.jobs.get_mut(&id) else { return };
        let Some(waits) = job.waits.as_mut() else { return };
        let Some(at) = waits.unmet.iter().position(|(_, job)| *job == upstream) else { return };
        let kind = waits.unmet[at].0;
        let broken = end.filter(|_| !holds(kind));
        if !holds(kind) && broken.is_none() {
            return;
        }
        waits.unmet.remove(at);
        waits.broken.extend(broken.map(|end| (kind, upstream, end)));
        if waits.unmet.is_empty() && waits.broken.is_empty() {
            (job.waits, job.released_at) = (None, released_at);
        }
        let by = job.principal.clone();
        self.state.dependents.remove(&(upstream, id));
        self.state.touch(Key::Job(id));
        let Some(end) = broken else { return };
        self.event(Event::DependencyBroken { job: id, kind, on: upstream, end });
        let or_cancel = self.state.jobs.get(&id).is_some_and(|job| self.state.scheduling(job).after.or_cancel);
        if or_cancel {
            let reason = format!("it was to start after job {upstream} ({}), which ended {}", kind.word(), end.word());
            self.event(Event::JobCancelled { job: id, ordinal: None, by, reason: reason.clone() });
            self.end_all(id, End::Cancelled, &reason);
            self.end_job_if_over(id);
        }
    }

    /// What an edit asks of other jobs. `None` = as before. `name`: what the job would be called.
    ///
    /// # Errors
    /// As [`Self::waits_of`]; a job that has started already; jobs that would wait for each other.
    pub(super) fn edited_waits(
        &self,
        job: &JobRecord,
        asked: &Scheduling,
        name: &Name,
    ) -> Result<Option<Option<Box<Waits>>>> {
        let after = &asked.after;
        let changed = *after != self.state.scheduling(job).after;
        if !changed && *name == job.name {
            return Ok(None);
        }
        if changed && (job.started || job.gangs_live > 0) {
            return Err(Refusal::NotNow(format!(
                "job {} has been started; what it waits for can no longer change",
                job.id
            )));
        }
        let waits = changed.then(|| self.waits_of(after)).transpose()?;
        let unmet = waits.as_ref().unwrap_or(&job.waits).iter().flat_map(|waits| &waits.unmet);
        let unmet = unmet.map(|(kind, upstream)| (kind.word(), *upstream));
        let before = self.state.namesakes(&job.principal, name, JobId(0));
        let before = before.take_while(|upstream| after.singleton && *upstream < job.id);
        let mut circle = Circle::new(self.state, job, name);
        for (key, upstream) in unmet.chain(before.map(|upstream| ("singleton", upstream))) {
            if circle.closes_at(upstream)? {
                let (id, none) = (job.id, "neither would ever start");
                return Err(Refusal::Invalid(if changed {
                    format!("after.{key}: job {upstream} itself waits for job {id}; {none}")
                } else {
                    format!("name: called `{name}`, jobs {id} and {upstream} would wait for each other; {none}")
                }));
            }
        }
        Ok(waits)
    }

    pub(super) fn take_edited_waits(&mut self, id: JobId, waits: Option<Box<Waits>>) {
        self.remove_dependent(id);
        if let Some(waits) = &waits {
            self.add_dependent(id, waits);
        }
        if let Some(job) = self.state.jobs.get_mut(&id) {
            job.waits = waits;
        }
    }

    pub(super) fn rename(&mut self, id: JobId, name: &Name) {
        let Some(job) = self.state.jobs.get(&id).filter(|job| job.name != *name).cloned() else { return };
        self.remove_namesake(&job, &job.name);
        self.state.namesakes.insert((job.principal.clone(), name.clone(), id), ());
        if let Some(job) = self.state.jobs.get_mut(&id) {
            job.name = name.clone();
        }
        if let Some(next) = self.state.first_namesake(&job.principal, name) {
            self.state.touch(Key::Job(next));
        }
    }
}

/// Looks for a circle of waiting through a job as an edit would leave it. A new one can only lead through that job.
struct Circle<'a> {
    state: &'a State,
    job: &'a JobRecord,
    /// What the job would be called: from its place on, singletons of that name would wait for it.
    name: &'a Name,
    seen: BTreeSet<JobId>,
    /// Up to which job those of a user and name have been seen, so that a row of singletons is gone through once.
    upto: BTreeMap<(&'a Principal, &'a Name), JobId>,
}

impl<'a> Circle<'a> {
    fn new(state: &'a State, job: &'a JobRecord, name: &'a Name) -> Self {
        Self { state, job, name, seen: BTreeSet::new(), upto: BTreeMap::new() }
    }

    /// Does `from`, or whatever it waits for, wait for the job?
    ///
    /// # Errors
    /// There are more of them than are looked at.
    fn closes_at(&mut self, from: JobId) -> Result<bool> {
        let (state, own) = (self.state, self.job);
        let mut open: Vec<JobId> = self.seen.insert(from).then_some(from).into_iter().collect();
        while let Some(id) = open.pop() {
            if id == own.id {
                return Ok(true);
            }
            if self.seen.len() > LOOKED_AT_MAX {
                let why = format!("job {} would wait for more than {LOOKED_AT_MAX} jobs in a chain", own.id);
                return Err(Refusal::Invalid(format!("{why}; whether they wait for it was not looked into")));
            }
            let Some(job) = state.jobs.get(&id) else { continue };
            let unmet = job.waits.iter().flat_map(|waits| &waits.unmet).map(|(_, upstream)| *upstream);
            open.extend(unmet.filter(|upstream| self.seen.insert(*upstream)));
            if !state.scheduling(job).after.singleton {
                continue;
            }
            if own.id < id && job.principal == own.principal && job.name == *self.name {
                return Ok(true);
            }
            self.add_namesakes(job, &mut open);
        }
        Ok(false)
    }

    /// What a singleton waits for. The edited job is not looked up: it may be there under the name that it gives up.
    fn add_namesakes(&mut self, singleton: &'a JobRecord, open: &mut Vec<JobId>) {
        let (by, name, end, own) = (&singleton.principal, &singleton.name, singleton.id, self.job.id);
        let from = self.upto.get(&(by, name)).copied().unwrap_or(JobId(0));
        if from < end {
            self.upto.insert((by, name), end);
            let before = self.state.namesakes(by, name, from).take_while(|job| *job < end).take(LOOKED_AT_MAX + 1);
            open.extend(before.filter(|job| *job != own && self.seen.insert(*job)));
        }
    }
}
