//! What runs, as taking back sees it: whose it is, what it holds, and what stopping it would lose.
//! Kept up from the ring of changes.

use crate::policy::Taking;
use crate::state::State;
use crate::state::gang::{GangRecord, GangState};
use muster_common::job::Scheduling;
use muster_common::{GangId, Name, Time};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, Clone, Default)]
pub struct Running {
    gangs: BTreeMap<GangId, Arc<Runs>>,
    /// Gangs that may be stopped, by class.
    classes: BTreeMap<i32, u32>,
}

/// A gang that holds devices, CPU or memory.
#[derive(Debug, Clone)]
pub struct Runs {
    pub scheduling: Arc<Scheduling>,
    pub class: i32,
    /// It is ending already, or has been told to.
    pub leaving: bool,
    pub placed_at: Time,
    pub started_at: Option<Time>,
    pub checkpoint_at: Option<Time>,
    /// How often it was taken back before.
    pub preempted: u32,
    /// Thousandths of devices held, by model.
    pub held: BTreeMap<Name, u64>,
}

impl Running {
    pub fn put(&mut self, state: &State, gang: &GangRecord) {
        self.remove(gang.id);
        let Some(runs) = Runs::of(state, gang) else { return };
        if runs.may_be_stopped() {
            *self.classes.entry(runs.class).or_default() += 1;
        }
        self.gangs.insert(gang.id, Arc::new(runs));
    }

    pub fn remove(&mut self, gang: GangId) {
        let Some(runs) = self.gangs.remove(&gang) else { return };
        if runs.may_be_stopped()
            && let Some(count) = self.classes.get_mut(&runs.class)
        {
            *count -= 1;
            if *count == 0 {
                self.classes.remove(&runs.class);
            }
        }
    }

    pub fn get(&self, gang: GangId) -> Option<&Runs> {
        self.gangs.get(&gang).map(|runs| &**runs)
    }

    pub fn iter(&self) -> impl Iterator<Item = (GangId, &Runs)> {
        self.gangs.iter().map(|(gang, runs)| (*gang, &**runs))
    }

    /// Does anything run that may be stopped and is of this class or a lower one?
    pub fn has_class_upto(&self, class: i64) -> bool {
        self.classes.first_key_value().is_some_and(|(lowest, _)| i64::from(*lowest) <= class)
    }
}

impl Runs {
    fn of(state: &State, gang: &GangRecord) -> Option<Self> {
        let attempt = gang.current()?;
        let scheduling = state.scheduling_of(gang.id)?.clone();
        let mut held: BTreeMap<Name, u64> = BTreeMap::new();
        for part in attempt.parts.iter().filter(|part| !part.state.is_settled()) {
            let Some(node) = state.node(part.node) else { continue };
            for (slot, milli) in &part.devices {
                let Some(device) = node.inventory.devices.get(usize::from(*slot)) else { continue };
                match held.get_mut(&device.model) {
                    Some(sum) => *sum += u64::from(*milli),
                    None => _ = held.insert(device.model.clone(), u64::from(*milli)),
                }
            }
        }
        Some(Self {
            class: state.policy().class_rank(&scheduling.class).unwrap_or(0),
            leaving: matches!(gang.state, GangState::Stopping(..)),
            placed_at: attempt.placed_at,
            started_at: attempt.started_at,
            checkpoint_at: attempt.checkpoint_at,
            preempted: gang.preempted,
            held,
            scheduling,
        })
    }

    pub fn may_be_stopped(&self) -> bool {
        self.scheduling.preemptible && !self.leaving
    }

    pub fn held_milli(&self) -> u64 {
        self.held.values().sum()
    }

    /// For how long it has run.
    pub fn ran_ms(&self, now: Time) -> u64 {
        self.started_at.map_or(0, |at| now.since_ms(at))
    }

    /// What is lost when it stops now, in device-milliseconds: the work since its last checkpoint,
    /// or since its start, and what starting again costs.
    pub fn loss(&self, taking: &Taking, now: Time) -> u64 {
        let kept = self.started_at.max(self.checkpoint_at);
        let lost_ms = kept.map_or(0, |at| now.since_ms(at)).saturating_add(taking.restart_ms);
        (u128::from(lost_ms) * u128::from(self.held_milli()) / 1000).min(u128::from(u64::MAX)) as u64
    }
}
