//! Takes the steps that `reconcile` finds.

use super::Core;
use super::saving::Effect;
use crate::assignment::{Desired, Key, RunPart, StopRules};
use crate::reconcile::{Observed, Progress, Step, reconcile};
use crate::runner::Beginning;
use crate::store::rank_logs::{kept_attempts, remove_logs};
use crate::store::{Held, Refusal, ReportBody, prune_files};
use std::collections::{BTreeMap, BTreeSet};

/// A driver that does not answer must not keep leases from being passed on: all devices together are waited for so long.
const ASK_WITHIN_MS: u64 = 3_000;
/// A driver that has not answered is left alone for so long, unless something is to begin.
pub(super) const ASK_AGAIN_MS: u64 = 10_000;
/// Kept launch parts; the longest unused go first.
const KEPT_LAUNCHES: usize = 1_000;

/// A step without the desired state it came from.
enum Task {
    Accept(Key, RunPart, StopRules),
    Refuse(Key, Option<RunPart>, Refusal),
    Go(Key),
    Stop(Key, StopRules),
    ConfirmReleased(Key, Option<RunPart>),
    TellEnd(Key),
    Forget(Key),
}

impl Core {
    /// Takes every step between the newest desired state and what is here.
    pub(super) async fn reconcile(&mut self) {
        let Some(desired) = self.desired.take() else { return };
        let foreign = self.foreign(&desired).await;
        let tasks: Vec<Task> = self.steps(&desired, &foreign).into_iter().map(Task::from).collect();
        self.desired = Some(desired);
        for task in tasks {
            self.take(task);
        }
    }

    fn steps<'a>(&self, desired: &'a Desired, foreign: &BTreeMap<u16, Option<u32>>) -> Vec<Step<'a>> {
        let store = &self.parts.store;
        let unacknowledged: BTreeSet<Key> = store.reports().values().filter_map(|report| report.key).collect();
        let observed = Observed {
            cluster_id: store.cluster_id(),
            seen: store.seen(),
            ledger: store.ledger(),
            held: store.held(),
            ends: store.ends(),
            progress: &self.progress,
            swept: self.swept,
            has_lease: self.renewed_ms.is_some(),
            devices: self.parts.devices.uuids(),
            foreign,
            unacknowledged: &unacknowledged,
        };
        reconcile(desired, &observed)
    }

    /// Slots whose processes decide about a step, and whether something is to begin. Those of live allocations are left
    /// out: processes are on them by right.
    fn asked(&self, desired: &Desired) -> (BTreeSet<u16>, bool) {
        let (store, devices) = (&self.parts.store, &self.parts.devices);
        let slots_of = |run: &RunPart| -> Vec<u16> {
            run.devices.iter().filter_map(|share| devices.slot_of(&share.uuid)).collect()
        };
        let (mut slots, mut begins) = (BTreeSet::new(), false);
        for step in self.steps(desired, &BTreeMap::new()) {
            match step {
                Step::Accept(_, run) => {
                    begins = true;
                    slots.extend(slots_of(run));
                }
                Step::ConfirmReleased(assignment) if self.must_tell_release(&assignment.key) => match &assignment.run {
                    Some(run) => slots.extend(slots_of(run)),
                    None => slots.extend(0..devices.uuids().len() as u16),
                },
                _ => {}
            }
        }
        for slot in store.held().values().filter(|held| !held.gone).flat_map(|held| slots_of(&held.run)) {
            slots.remove(&slot);
        }
        (slots, begins)
    }

    /// Processes on devices that no live allocation of ours holds, where it matters for this
    /// desired state. What cannot be known counts as a process.
    async fn foreign(&mut self, desired: &Desired) -> BTreeMap<u16, Option<u32>> {
        let (slots, begins) = self.asked(desired);
        let mut foreign = BTreeMap::new();
        self.look_again_ms = None;
        if slots.is_empty() {
            return foreign;
        }
        let (devices, clock) = (self.parts.devices.clone(), self.parts.clock.clone());
        // A release that cannot be confirmed comes up again with every message, and when it is time to look again.
        let mut is_late = !begins && clock.boottime_ms() < self.ask_again_ms;
        let mut late = clock.sleep_ms(ASK_WITHIN_MS);
        for slot in slots {
            let answer = tokio::select! {
                answer = devices.processes(slot), if !is_late => answer.map_err(|error| error.to_string()),
                () = &mut late, if !is_late => {
                    is_late = true;
                    self.ask_again_ms = clock.boottime_ms().saturating_add(ASK_AGAIN_MS);
                    Err("no answer in time".to_owned())
                }
                else => Err("the driver has not answered in time before".to_owned()),
            };
            match answer {
                Ok(pids) => foreign.extend(pids.first().map(|pid| (slot, Some(*pid)))),
                Err(error) => {
                    tracing::warn!(slot, %error, "the processes on a device are not known");
                    foreign.insert(slot, None);
                }
            }
        }
        if !foreign.is_empty() {
            let later_ms = clock.boottime_ms().saturating_add(ASK_AGAIN_MS);
            self.look_again_ms = Some(if is_late { self.ask_again_ms } else { later_ms });
        }
        foreign
    }

    fn take(&mut self, task: Task) {
        match task {
            Task::Accept(key, run, stop) => self.accept(key, run, stop),
            Task::Refuse(key, run, refusal) => self.refuse(key, run, &refusal),
            Task::Go(key) => self.effects.push(Effect::Go(key)),
            Task::Stop(key, rules) => self.stop(key, rules),
            Task::ConfirmReleased(key, run) => self.confirm_released(key, run),
            Task::TellEnd(key) => self.tell_end(key),
            Task::Forget(key) => {
                self.parts.store.forget(&key);
                self.progress.remove(&key);
                self.released_at.remove(&key);
                // Read again from an older file it is forgotten again: it is known to be gone there.
                self.may_save();
                self.effects.push(Effect::Remove(key));
            }
        }
    }

    /// Rule 4: on disk before anything is created.
    fn accept(&mut self, key: Key, run: RunPart, stop: StopRules) {
        let Some(renewed_ms) = self.renewed_ms else { return };
        let first_deadline_ms = renewed_ms.saturating_add(run.lease_ms);
        // After a cut the lease may be over, or end before the next renewal is acknowledged; that one begins it instead.
        if self.parts.clock.boottime_ms().saturating_add(run.lease_ms / 2) > first_deadline_ms {
            self.lapsed = true;
            return;
        }
        let boot_id = self.parts.workplace.boot_id.clone();
        self.parts.store.accept(key, Held::new(run, stop, first_deadline_ms, boot_id));
        self.progress.insert(key, Progress::Preparing);
        self.must_save();
        tracing::info!(allocation = %key, "accepted");
        self.effects.push(Effect::Start(key, Beginning::Fresh { deadline_ms: first_deadline_ms }));
    }

    fn refuse(&mut self, key: Key, run: Option<RunPart>, refusal: &Refusal) {
        if !self.refused.insert(key) {
            return;
        }
        tracing::warn!(allocation = %key, %refusal, "refused");
        let store = &mut self.parts.store;
        // Work that is held under this very name keeps its token.
        if let Some(run) = run.filter(|_| !store.held().contains_key(&key)) {
            store.ledger_mut().spend(key, &run);
        }
        store.report(Some(key), ReportBody::Failed { infra: true, why: format!("refused: {refusal}") });
        self.must_save();
    }

    fn stop(&mut self, key: Key, rules: StopRules) {
        let must_tell = self.must_tell_release(&key);
        let store = &mut self.parts.store;
        let Some(held) = store.held_mut(&key) else { return };
        if held.gone {
            if must_tell {
                held.released_reported = true;
                let lease_expired = held.lease_expired;
                store.report(Some(key), ReportBody::Released { lease_expired });
                self.must_save();
            }
            return;
        }
        if held.stop_wanted && held.stop == rules {
            return;
        }
        tracing::info!(allocation = %key, cause = %rules.cause, "stopping");
        (held.stop_wanted, held.stop) = (true, rules.clone());
        self.must_save();
        self.effects.push(Effect::Stop(key, rules));
    }

    fn confirm_released(&mut self, key: Key, run: Option<RunPart>) {
        if !self.must_tell_release(&key) {
            return;
        }
        let store = &mut self.parts.store;
        if let Some(run) = run {
            store.ledger_mut().spend(key, &run);
        }
        store.report(Some(key), ReportBody::Released { lease_expired: false });
        self.must_save();
    }

    /// Once so many have ended that the limit may be passed by a sixteenth: looking for old logs means looking at all.
    pub(super) fn prune_sometimes(&mut self) {
        self.ended += 1;
        if self.ended * 16 >= self.parts.kept_logs {
            self.ended = 0;
            self.prune();
        }
    }

    /// Keeps the newest launch parts, and the newest logs of ended attempts up to the configured number.
    pub(super) fn prune(&self) {
        prune_files(&self.parts.workplace.paths.launches(), KEPT_LAUNCHES);
        let live = self.live.borrow().clone();
        let mut ended = kept_attempts(self.parts.workplace.paths.log_root());
        ended.retain(|key| !live.contains(key));
        let excess = ended.len().saturating_sub(self.parts.kept_logs);
        for key in ended.into_iter().take(excess) {
            remove_logs(&self.parts.workplace.paths.logs(&key));
        }
    }
}

impl From<Step<'_>> for Task {
    fn from(step: Step<'_>) -> Self {
        match step {
            Step::Accept(assignment, run) => Task::Accept(assignment.key, run.clone(), assignment.stop.clone()),
            Step::Refuse(assignment, refusal) => Task::Refuse(assignment.key, assignment.run.clone(), refusal),
            Step::Go(key) => Task::Go(key),
            Step::Stop(assignment) => Task::Stop(assignment.key, assignment.stop.clone()),
            Step::ConfirmReleased(assignment) => Task::ConfirmReleased(assignment.key, assignment.run.clone()),
            Step::TellEnd(key) => Task::TellEnd(key),
            Step::Forget(key) => Task::Forget(key),
        }
    }
}
