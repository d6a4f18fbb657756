//! Another revision of a job's spec. What waits takes it; what runs takes it as long as nothing it
//! was started with differs, else it stays at the revision it runs.

use super::deadline::latest_start;
use super::guarantees::owes_no_more;
use super::{Applying, Result};
use crate::command::Edit;
use crate::digest;
use crate::outcome::{Event, Refusal, Response};
use crate::state::change::Key;
use crate::state::gang::{Attempt, GangState};
use crate::state::job::{JobRecord, KeyRecord, Revision};
use crate::state::timer::Timer;
use muster_common::job::{Hash, Scheduling};
use muster_common::{GangId, JobId, Time};
use std::sync::Arc;

/// From this feature level on, all servers can apply an edit.
pub const EDIT_LEVEL: u32 = 2;

/// Keys of edits live among those of submits; people cannot write this character into one.
const EDIT_KEY: char = '\u{1}';

impl Applying<'_> {
    pub(super) fn edit(&mut self, edit: &Edit) -> Result {
        self.needs_level(EDIT_LEVEL)?;
        let key = format!("{EDIT_KEY}{}", edit.request_id);
        let launch = digest::launch_hash(&edit.launch);
        let body_hash = digest::of(&(edit.job, edit.from_revision, &edit.name, &edit.scheduling, &launch));
        if let Some(known) = self.state.keys.get(key.as_str()) {
            if known.body_hash != body_hash {
                return Err(Refusal::KeyReused { job: known.job });
            }
            return Ok(Response::Edited { revision: edit.from_revision + 1, existing: true });
        }
        let job = self.state.jobs.get(&edit.job).ok_or(Refusal::UnknownJob(edit.job))?;
        let (revision, before) = (job.revision().clone(), self.state.scheduling(job).clone());
        let renamed = (job.name != edit.name).then(|| (job.name.clone(), edit.name.clone()));
        if revision.number != edit.from_revision {
            return Err(Refusal::OldRevision { job: job.id, revision: revision.number });
        }
        let relaunched = launch != revision.launch;
        let asked = self.organised(&edit.scheduling, &job.principal, Some(&before))?;
        if renamed.is_none() && *before == asked && !relaunched {
            return Ok(Response::Noop);
        }
        self.check_payer(&(asked.account.clone(), job.principal.clone()))?;
        self.check_scheduling(&asked)?;
        let steady = !relaunched && runs_alike(&before, &asked);
        self.check_edit(job, &before, &asked, steady)?;
        self.check_firmer(edit, &asked)?;
        let waits = self.edited_waits(job, &asked, &edit.name)?;
        self.remember(&key, KeyRecord { job: edit.job, body_hash, at: self.now() });
        let number = revision.number + 1;
        self.rename(edit.job, &edit.name);
        self.revise(edit, &asked, number);
        waits.into_iter().for_each(|waits| self.take_edited_waits(edit.job, waits));
        let after = self.state.scheduling(self.state.jobs.get(&edit.job).expect("just revised")).clone();
        self.move_job_timers(edit.job, &before, &after);
        if before != after {
            self.forget_bookings_of(edit.job, is_placed_alike(&before, &after));
        }
        self.state.parked.retain(|gang, _| gang.job != edit.job);
        self.move_gangs(edit.job, number);
        self.prune_revisions(edit.job);
        self.state.touch(Key::Job(edit.job));
        self.event(Event::JobEdited {
            job: edit.job,
            revision: number,
            by: edit.by.clone(),
            renamed,
            before,
            after,
            launch: relaunched,
        });
        Ok(Response::Edited { revision: number, existing: false })
    }

    /// What the job as it stands cannot take.
    fn check_edit(&self, job: &JobRecord, before: &Scheduling, after: &Scheduling, steady: bool) -> Result<()> {
        let no = |why: String| Err(Refusal::NotNow(why));
        let (id, now) = (job.id, self.now());
        if job.cancelled {
            return no(format!("job {id} is being ended"));
        }
        let count = |scheduling: &Scheduling| scheduling.array.as_ref().map(|array| array.count);
        if count(before) != count(after) {
            return no(format!("job {id}: the number of elements of an array is fixed when it is submitted"));
        }
        let waits = !job.unstarted.is_empty() || job.gangs_live > job.gangs_active;
        if !steady && !waits {
            return no(format!(
                "job {id} runs; until it waits again only its name, priority, limits, retries, checkpoint and `at_once` can change"
            ));
        }
        let array = after.array.as_ref();
        if array.and_then(|array| array.at_once).is_some_and(|most| job.gangs_active > most) {
            return no(format!("{} elements of job {id} run; `at_once` cannot be less", job.gangs_active));
        }
        let failed = job.tally.failed;
        if waits && array.and_then(|array| array.stop_after_failures).is_some_and(|most| failed >= most) {
            return no(format!("{failed} elements of job {id} have failed already; cancel it to start no more"));
        }
        let waited_out = after.limits.wait_ms.is_some_and(|ms| job.submitted_at.plus_ms(ms) <= now);
        if waits && waited_out && after.limits.wait_ms != before.limits.wait_ms {
            return no(format!("job {id} has waited for longer than that; cancel it instead"));
        }
        let (deadline_before, deadline) = (latest_start(before), latest_start(after));
        let too_late = deadline.is_some_and(|at| at <= now) && (waits || after.limits.time_ms.is_none());
        if too_late && deadline != deadline_before {
            return no(format!("job {id} could not end by that deadline; cancel it instead"));
        }
        self.check_time_limit(job, after)?;
        self.check_longer_runs(id, after)?;
        self.check_budgets(job, after)
    }

    /// A limit that has passed already would stop what runs, which is `cancel`'s business.
    fn check_time_limit(&self, job: &JobRecord, after: &Scheduling) -> Result<()> {
        let Some(limit_ms) = after.limits.time_ms else { return Ok(()) };
        let now = self.now();
        for gang in self.gangs_of(job.id) {
            let record = self.state.gangs.get(&gang).expect("listed just now");
            let GangState::Running(attempt) = &record.state else { continue };
            let own = self.scheduling_of(gang);
            let Some(started) = attempt.started_at else { continue };
            if runs_alike(&own, after) && own.limits.time_ms != Some(limit_ms) && started.plus_ms(limit_ms) <= now {
                let ran_s = now.since_ms(started) / 1000;
                return Err(Refusal::NotNow(format!(
                    "{gang} has run for {ran_s} s; that time limit has passed, cancel it instead"
                )));
            }
        }
        Ok(())
    }

    fn revise(&mut self, edit: &Edit, scheduling: &Scheduling, number: u32) {
        let scheduling = self.intern(scheduling);
        let launch = self.keep_launch(&edit.launch);
        let before = self.state.payer(self.state.jobs.get(&edit.job).expect("seen by the caller"));
        let job = self.state.jobs.get_mut(&edit.job).expect("seen by the caller");
        job.revisions.push(Revision { number, scheduling, launch });
        let after = self.state.payer(self.state.jobs.get(&edit.job).expect("seen by the caller"));
        self.state.usage.job_comes(&self.state.accounts, &after);
        self.state.usage.job_goes(&self.state.accounts, &before);
    }

    fn move_job_timers(&mut self, id: JobId, before: &Scheduling, after: &Scheduling) {
        let job = self.state.jobs.get(&id).expect("seen by the caller");
        let (submitted_at, now) = (job.submitted_at, self.now());
        let wait_by = |scheduling: &Scheduling| scheduling.limits.wait_ms.map(|ms| submitted_at.plus_ms(ms));
        if wait_by(before) != wait_by(after) {
            wait_by(before).into_iter().for_each(|at| self.drop_timer(at, Timer::WaitLimit { job: id }));
            wait_by(after)
                .into_iter()
                .filter(|at| *at > now)
                .for_each(|at| self.set_timer(at, Timer::WaitLimit { job: id }));
        }
        self.drop_deadline(id, before);
        self.set_deadline(id, after);
        if before.begin_at_ms != after.begin_at_ms {
            let timer = Timer::NotBefore { gang: GangId::new(id, 0) };
            before.begin_at_ms.into_iter().for_each(|at| self.drop_timer(Time(at), timer));
            self.set_not_before(GangId::new(id, 0));
        }
    }

    /// Moves to the newest revision whatever may take it.
    fn move_gangs(&mut self, id: JobId, number: u32) {
        let job = self.state.jobs.get(&id).expect("seen by the caller");
        let (after, launch) = (self.state.scheduling(job).clone(), job.revision().launch);
        for gang in self.gangs_of(id) {
            let own = self.scheduling_of(gang);
            let waits =
                matches!(self.state.gangs.get(&gang).map(|record| &record.state), Some(GangState::Queued { .. }));
            if !waits && !self.runs_on(gang, &after, launch) {
                continue;
            }
            let running = match &self.state.gangs.get(&gang).expect("listed just now").state {
                GangState::Running(attempt) => Some(attempt.clone()),
                _ => None,
            };
            self.set_aside_anew(gang, &after);
            if let Some(attempt) = running {
                self.move_time_limit(gang, &attempt, own.limits.time_ms, after.limits.time_ms);
            }
            self.gang_mut(gang).revision = number;
        }
    }

    /// Does it run, and go on under that spec?
    fn runs_on(&self, gang: GangId, after: &Scheduling, launch: Hash) -> bool {
        let record = self.state.gangs.get(&gang);
        let runs = record.is_some_and(|gang| matches!(gang.state, GangState::Starting(_) | GangState::Running(_)));
        runs && runs_alike(&self.scheduling_of(gang), after) && self.launch_of(gang) == launch
    }

    /// What runs on what others are owed stays what they can have back.
    fn check_firmer(&self, edit: &Edit, after: &Scheduling) -> Result<()> {
        let launch = digest::launch_hash(&edit.launch);
        let firmer = |gang: &GangId| {
            let own = self.scheduling_of(*gang);
            let stays = own.preemptible && !after.preemptible;
            let takes_longer = own.checkpoint.grace_ms < after.checkpoint.grace_ms;
            (stays || takes_longer) && self.runs_on(*gang, after, launch)
        };
        if !self.gangs_of(edit.job).iter().any(firmer) {
            return Ok(());
        }
        let mut edited = self.state.clone();
        let mut trial = Applying { state: &mut edited, entry: self.entry, events: Vec::new(), ended: Vec::new() };
        trial.revise(edit, after, edit.from_revision + 1);
        trial.move_gangs(edit.job, edit.from_revision + 1);
        match owes_no_more(self.state, &edited) {
            true => Ok(()),
            false => Err(Refusal::NotNow(format!(
                "job {} runs on what is owed to others, who could not have it back in time then; leave `preemptible` and \
                 the grace as they are while it runs, or cancel it",
                edit.job
            ))),
        }
    }

    fn move_time_limit(&mut self, gang: GangId, attempt: &Attempt, before_ms: Option<u64>, after_ms: Option<u64>) {
        let Some(started) = attempt.started_at else { return };
        let timer = Timer::TimeLimit { gang, attempt: attempt.number };
        before_ms.into_iter().for_each(|ms| self.drop_timer(started.plus_ms(ms), timer));
        after_ms.into_iter().for_each(|ms| self.set_timer(started.plus_ms(ms), timer));
    }

    fn launch_of(&self, gang: GangId) -> Hash {
        let job = self.state.jobs.get(&gang.job).expect("a live gang's job is live");
        let number = self.state.gangs.get(&gang).map_or(job.revision().number, |record| record.revision);
        job.revisions.iter().find(|revision| revision.number == number).unwrap_or(job.revision()).launch
    }

    /// What was booked was for the job as it was. `alike`: what is kept for it serves it still.
    fn forget_bookings_of(&mut self, id: JobId, alike: bool) {
        let of_job = self.state.reservations.iter().filter(|(gang, _)| gang.job == id);
        let booked = of_job.filter(|(_, known)| !(alike && known.kind.keeps_devices()));
        let booked: Vec<GangId> = booked.map(|(gang, _)| *gang).collect();
        booked.into_iter().for_each(|gang| self.forget_reservation(gang));
    }

    /// A revision that nothing runs any more is only history.
    fn prune_revisions(&mut self, id: JobId) {
        let gangs = self.gangs_of(id);
        let used: Vec<u32> = gangs.iter().filter_map(|gang| Some(self.state.gangs.get(gang)?.revision)).collect();
        let job = self.state.jobs.get_mut(&id).expect("seen by the caller");
        let newest = job.revision().number;
        let (kept, pruned): (Vec<Revision>, Vec<Revision>) = std::mem::take(&mut job.revisions)
            .into_iter()
            .partition(|revision| revision.number == newest || used.contains(&revision.number));
        job.revisions = kept;
        for revision in pruned {
            self.release_parts_of_spec(revision.scheduling, revision.launch);
        }
    }
}

/// Do both ask for the same, where the same may be had?
fn is_placed_alike(one: &Arc<Scheduling>, other: &Scheduling) -> bool {
    runs_alike(one, other) && one.together == other.together && one.preemptible == other.preemptible
}

/// Could a gang that was started with the one go on under the other? What it was placed by, what
/// its lease rests on and who is charged must be equal.
pub(super) fn runs_alike(one: &Arc<Scheduling>, other: &Scheduling) -> bool {
    one.queue == other.queue
        && one.account == other.account
        && one.groups == other.groups
        && one.fence_after_ms == other.fence_after_ms
        && one.begin_at_ms == other.begin_at_ms
}
