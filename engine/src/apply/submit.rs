//! Submit: one entry, one job; a repeated key gives the same job.

use super::{Applying, Result};
use crate::command::Submit;
use crate::digest;
use crate::outcome::{Event, Refusal, Response};
use crate::plan::feasible;
use crate::state::change::Key;
use crate::state::depend::Waits;
use crate::state::job::{JobRecord, KeyRecord, Ranges, Revision, Tally};
use crate::state::timer::Timer;
use crate::state::usage::{PAYERS_MAX, Payer};
use crate::state::{Interned, JOBS_MAX, LaunchRecord};
use muster_common::job::{Hash, Launch, Scheduling};
use muster_common::{JobId, Time};
use std::sync::Arc;

/// Fewer earlier run times teach nothing.
const LEARNED_FROM: u32 = 3;

impl Applying<'_> {
    pub(super) fn submit(&mut self, submit: &Submit) -> Result {
        if let Some(known) = self.state.keys.get(submit.key.as_str()) {
            if known.body_hash != submit.body_hash {
                return Err(Refusal::KeyReused { job: known.job });
            }
            return Ok(Response::Submitted { job: known.job, existing: true });
        }
        let horizon_ms = self.state.settings.key_horizon_ms;
        if submit.key_made_at.is_some_and(|made| made.plus_ms(horizon_ms) < self.now()) {
            return Err(Refusal::KeyTooOld { horizon_ms });
        }
        if self.state.jobs.len() as u64 >= JOBS_MAX {
            return Err(Refusal::Full { what: "jobs".into(), limit: JOBS_MAX });
        }
        let scheduling = self.organised(&submit.scheduling, &submit.principal, None)?;
        self.check_payer(&(scheduling.account.clone(), submit.principal.clone()))?;
        self.check_scheduling(&scheduling)?;
        self.check_deadline(&scheduling)?;
        let waits = self.waits_of(&scheduling.after)?;
        Ok(self.accept(submit, &scheduling, waits))
    }

    pub(super) fn check_payer(&self, payer: &Payer) -> Result<()> {
        if self.state.usage.is_full_for(payer) {
            return Err(Refusal::Full { what: "users of accounts".into(), limit: PAYERS_MAX });
        }
        Ok(())
    }

    pub(super) fn check_scheduling(&self, scheduling: &Scheduling) -> Result<()> {
        if self.state.policy.class_rank(&scheduling.class).is_none() {
            let known: Vec<&str> = self.state.policy.classes.keys().map(|name| name.as_str()).collect();
            let known = if known.is_empty() { "low, normal, high".into() } else { known.join(", ") };
            return Err(Refusal::Invalid(format!(
                "priority: there is no priority class `{}`; there is: {known}",
                scheduling.class
            )));
        }
        feasible::check_request(scheduling, &self.state.fabric).map_err(Refusal::Invalid)
    }

    fn accept(&mut self, submit: &Submit, scheduling: &Scheduling, waits: Option<Box<Waits>>) -> Response {
        let id = JobId(self.entry.index);
        let now = self.now();
        let revision =
            Revision { number: 1, scheduling: self.intern(scheduling), launch: self.keep_launch(&submit.launch) };
        let gangs = scheduling.gangs();
        if let Some(wait_ms) = scheduling.limits.wait_ms {
            self.set_timer(now.plus_ms(wait_ms), Timer::WaitLimit { job: id });
        }
        if let Some(begin_at_ms) = scheduling.begin_at_ms.filter(|at| *at > now.0) {
            self.set_timer(Time(begin_at_ms), Timer::NotBefore { gang: muster_common::GangId::new(id, 0) });
        }
        self.set_deadline(id, scheduling);
        waits.iter().for_each(|waits| self.add_dependent(id, waits));
        self.add_namesake(submit, id);
        self.remember(&submit.key, KeyRecord { job: id, body_hash: submit.body_hash, at: now });
        self.state.jobs.insert(
            id,
            JobRecord {
                id,
                name: submit.name.clone(),
                principal: submit.principal.clone(),
                key: submit.key.clone(),
                body_hash: submit.body_hash,
                submitted_at: now,
                revisions: vec![revision],
                held: submit.hold,
                cancelled: false,
                unstarted: Ranges::upto(gangs),
                gangs_live: 0,
                gangs_active: 0,
                tally: Tally::default(),
                retry_of: submit.retry_of,
                started: false,
                waits,
                learned_ms: self.learned_ms(submit),
                released_at: Time::ZERO,
            },
        );
        let payer = (scheduling.account.clone(), submit.principal.clone());
        self.state.usage.job_comes(&self.state.accounts, &payer);
        self.state.touch(Key::Job(id));
        self.event(Event::JobSubmitted {
            job: id,
            name: submit.name.clone(),
            principal: submit.principal.clone(),
            gangs,
        });
        Response::Submitted { job: id, existing: false }
    }

    fn learned_ms(&self, submit: &Submit) -> Option<u64> {
        let sketch = self.state.run_times.get(&submit.principal, &submit.name)?;
        (sketch.count() >= LEARNED_FROM).then(|| sketch.quantile_ms(500)).flatten()
    }

    pub(super) fn intern(&mut self, scheduling: &Scheduling) -> Hash {
        let key = digest::of(scheduling);
        match self.state.schedulings.get_mut(&key) {
            Some(interned) => interned.count += 1,
            None => {
                let interned = Interned { scheduling: Arc::new(scheduling.clone()), count: 1 };
                self.state.schedulings.insert(key, interned);
            }
        }
        key
    }

    pub(super) fn keep_launch(&mut self, launch: &Arc<Launch>) -> Hash {
        let hash = digest::launch_hash(launch);
        match self.state.launches.get_mut(&hash) {
            Some(record) => record.count += 1,
            None => {
                self.state.launches.insert(hash, LaunchRecord { launch: launch.clone(), count: 1 });
            }
        }
        hash
    }

    /// Keeps what a key stands for, until the horizon.
    pub(super) fn remember(&mut self, key: &str, record: KeyRecord) {
        let (now, key): (Time, Arc<str>) = (record.at, key.into());
        if self.state.keys.is_empty() {
            self.set_timer(now.plus_ms(self.state.settings.key_horizon_ms), Timer::Keys);
        }
        self.state.keys.insert(key.clone(), record);
        self.state.key_ages.insert((now, key), ());
    }

    /// Forgets keys past the horizon, and comes back when the next one is due.
    pub(super) fn forget_old_keys(&mut self) {
        let horizon_ms = self.state.settings.key_horizon_ms;
        while let Some(((at, key), ())) = self.state.key_ages.first().map(|(k, v)| (k.clone(), *v)) {
            let due = at.plus_ms(horizon_ms);
            if due > self.now() {
                self.set_timer(due, Timer::Keys);
                return;
            }
            self.state.keys.remove(&key);
            self.state.key_ages.remove(&(at, key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, Entry, Principal};
    use crate::state::State;
    use muster_common::Name;
    use muster_common::job::file::{Command as Line, Gang, JobFile, compile};

    fn submit(account: &str) -> Command {
        let gang = Gang { run: Some(Line::Script("true".into())), ..Gang::default() };
        let file = JobFile { account: Some(account.into()), gang: Some(gang), ..JobFile::default() };
        let (scheduling, launch) = compile(&file).unwrap();
        Command::Submit(Box::new(Submit {
            key: account.into(),
            key_made_at: None,
            principal: Principal("alice".into()),
            name: launch.name.clone(),
            scheduling,
            launch: Arc::new(launch),
            body_hash: Hash([1; 32]),
            hold: false,
            retry_of: None,
        }))
    }

    #[test]
    fn payers_are_bounded_and_known_ones_go_on() {
        let mut state = State::new("test");
        for n in 0..PAYERS_MAX {
            let payer = (Name::new(format!("a{n}")).unwrap(), Principal("alice".into()));
            state.usage.job_comes(&state.accounts, &payer);
        }
        let mut respond = |index, account| {
            let entry = Entry { index, term: 1, at: Time(1), command: submit(account) };
            crate::apply(&mut state, &entry).response
        };
        assert!(matches!(respond(1, "a5"), Response::Submitted { .. }));
        let full = Response::Refused(Refusal::Full { what: "users of accounts".into(), limit: PAYERS_MAX });
        assert_eq!(respond(2, "one-more"), full);
    }
}
