//! The waiting gangs in order, and those that hold devices: kept up from the ring of changes.

use super::lanes::Lanes;
use super::order::{OrderKey, Scorer};
use super::running::Running;
use super::runtime::run_ms;
use crate::state::State;
use crate::state::gang::{GangRecord, GangState};
use crate::state::job::JobRecord;
use muster_common::job::{Count, GroupRequest, Hash, RanksPerNode, Scheduling};
use muster_common::topology::TopologyRequest;
use muster_common::{GangId, JobId, Time};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One place in the order: a gang that waits for another attempt, or all elements of a job that
/// have never been placed (a lane; alike in every respect, taken in turn).
#[derive(Debug, Clone)]
pub struct Item {
    pub key: OrderKey,
    pub lane: bool,
    pub scheduling: Arc<Scheduling>,
    pub shape: Hash,
    pub run_ms: Option<u64>,
}

#[derive(Debug, Default)]
pub struct Waiting {
    pub by_order: Lanes,
    pub by_submit: BTreeMap<(Time, GangId), Arc<Item>>,
    queued: BTreeMap<GangId, OrderKey>,
    lanes: BTreeMap<JobId, OrderKey>,
    /// Gangs with a present attempt.
    pub active: BTreeSet<GangId>,
    /// What they hold, and what stopping them would lose.
    pub running: Running,
    /// Revision, and whether nothing of the job may start.
    seen: BTreeMap<JobId, (u32, bool)>,
    /// Items that ask for no device.
    pub cpu_only: usize,
}

impl Waiting {
    pub fn of(state: &State, scorer: &Scorer, now: Time) -> Self {
        let mut waiting = Self::default();
        for job in state.jobs().values() {
            waiting.seen.insert(job.id, seen(state, job));
            waiting.put_lane(state, scorer, job, now);
        }
        for gang in state.gangs().values() {
            waiting.put_gang(state, scorer, gang, now);
        }
        waiting
    }

    pub fn refresh_job(&mut self, state: &State, scorer: &Scorer, id: JobId, now: Time) {
        self.drop_lane(id);
        let Some(job) = state.job(id) else {
            self.seen.remove(&id);
            return self.drop_gangs(id);
        };
        self.put_lane(state, scorer, job, now);
        if self.seen.insert(id, seen(state, job)).is_some_and(|before| before != seen(state, job)) {
            self.drop_gangs(id);
            let from = GangId::new(id, 0);
            for (_, gang) in state.gangs().range_from(&from).take_while(|(gang, _)| gang.job == id) {
                self.put_gang(state, scorer, gang, now);
            }
        }
    }

    pub fn refresh_gang(&mut self, state: &State, scorer: &Scorer, id: GangId, now: Time) {
        self.drop_gang(id);
        if let Some(gang) = state.gang(id) {
            self.put_gang(state, scorer, gang, now);
        }
    }

    /// Scores everything again, for an order that moves with time.
    pub fn rescore(&mut self, state: &State, scorer: &Scorer, now: Time) {
        let queued: Vec<GangId> = self.queued.keys().copied().collect();
        let lanes: Vec<JobId> = self.lanes.keys().copied().collect();
        queued.into_iter().for_each(|gang| self.refresh_gang(state, scorer, gang, now));
        lanes.into_iter().for_each(|job| self.refresh_job(state, scorer, job, now));
    }

    /// Looks again at what was submitted in a half-open range.
    pub fn refresh_submitted(&mut self, state: &State, scorer: &Scorer, (from, to): (Time, Time), now: Time) {
        let first = |at: Time| (at, GangId::new(JobId(0), 0));
        let items: Vec<(GangId, bool)> = match from < to {
            true => self.by_submit.range(first(from)..first(to)).map(|(key, item)| (key.1, item.lane)).collect(),
            false => Vec::new(),
        };
        for (gang, lane) in items {
            match lane {
                true => self.refresh_job(state, scorer, gang.job, now),
                false => self.refresh_gang(state, scorer, gang, now),
            }
        }
    }

    fn put_lane(&mut self, state: &State, scorer: &Scorer, job: &JobRecord, now: Time) {
        let Some(first) = job.unstarted.first().filter(|_| !state.is_idle(job)) else { return };
        let item = self.item(state, scorer, job, (GangId::new(job.id, first), None), now);
        self.lanes.insert(job.id, item.key);
        self.insert(item);
    }

    fn put_gang(&mut self, state: &State, scorer: &Scorer, gang: &GangRecord, now: Time) {
        if !matches!(gang.state, GangState::Queued { .. }) {
            self.active.insert(gang.id);
            self.running.put(state, gang);
            return;
        }
        let Some(job) = state.job(gang.id.job).filter(|job| !state.is_idle(job)) else { return };
        let item = self.item(state, scorer, job, (gang.id, Some(gang)), now);
        self.queued.insert(gang.id, item.key);
        self.insert(item);
    }

    fn item(
        &self,
        state: &State,
        scorer: &Scorer,
        job: &JobRecord,
        gang: (GangId, Option<&GangRecord>),
        now: Time,
    ) -> Item {
        let scheduling = state.scheduling(job).clone();
        Item {
            key: scorer.key(state.policy(), job, &scheduling, gang, state, now),
            lane: gang.1.is_none(),
            shape: job.revision().scheduling,
            run_ms: run_ms(state.policy(), job, &scheduling.limits),
            scheduling,
        }
    }

    fn insert(&mut self, item: Item) {
        let item = Arc::new(item);
        self.cpu_only += usize::from(item.is_cpu_only());
        self.by_submit.insert((item.key.submitted_at, item.key.gang), item.clone());
        self.by_order.insert(item);
    }

    fn remove(&mut self, key: OrderKey) {
        self.by_submit.remove(&(key.submitted_at, key.gang));
        if let Some(item) = self.by_order.remove(&key) {
            self.cpu_only -= usize::from(item.is_cpu_only());
        }
    }

    fn drop_lane(&mut self, job: JobId) {
        if let Some(key) = self.lanes.remove(&job) {
            self.remove(key);
        }
    }

    fn drop_gang(&mut self, gang: GangId) {
        self.active.remove(&gang);
        self.running.remove(gang);
        if let Some(key) = self.queued.remove(&gang) {
            self.remove(key);
        }
    }

    fn drop_gangs(&mut self, job: JobId) {
        let range = GangId::new(job, 0)..=GangId::new(job, u32::MAX);
        let known: Vec<GangId> = self.queued.range(range.clone()).map(|(gang, _)| *gang).collect();
        let active: Vec<GangId> = self.active.range(range).copied().collect();
        known.into_iter().chain(active).for_each(|gang| self.drop_gang(gang));
    }

    /// The item in which a gang waits.
    pub fn item_of(&self, state: &State, gang: GangId) -> Option<&Arc<Item>> {
        let key = match self.queued.get(&gang) {
            Some(key) => key,
            None => self
                .lanes
                .get(&gang.job)
                .filter(|_| state.job(gang.job).is_some_and(|job| job.unstarted.contains(gang.ordinal)))?,
        };
        self.by_order.get(key)
    }
}

/// What gangs ask of the cluster: equal for equal requests, whatever else differs between their jobs.
#[derive(Debug, Clone)]
pub struct Wanted(Arc<Scheduling>);

impl Wanted {
    fn key(&self) -> (&[GroupRequest], &[TopologyRequest]) {
        (&self.0.groups, &self.0.together)
    }
}

impl Ord for Wanted {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Wanted {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Wanted {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Wanted {}

impl Item {
    pub fn wanted(&self) -> Wanted {
        Wanted(self.scheduling.clone())
    }

    pub fn is_cpu_only(&self) -> bool {
        self.scheduling.devices() == 0
    }

    /// Gangs of the item in turn.
    pub fn gangs<'a>(&'a self, state: &'a State) -> Box<dyn Iterator<Item = GangId> + 'a> {
        let id = self.key.gang;
        match state.job(id.job) {
            Some(job) if self.lane => Box::new(job.unstarted.iter().map(move |ordinal| GangId::new(id.job, ordinal))),
            _ => Box::new(std::iter::once(id)),
        }
    }
}

/// Are any so many free devices as good as any others, as far as the gang goes?
pub fn is_fungible(scheduling: &Scheduling) -> bool {
    scheduling.groups.len() == 1
        && scheduling.groups.iter().all(|group| {
            let Count::Total(total) = &group.count else { return false };
            total.step <= 1
                && total.per_node_min <= 1
                && (total.per_node_max == 0 || total.per_node_max >= total.devices)
                && group.models.is_empty()
                && group.labels.is_empty()
                && group.topology.is_empty()
                && group.prefers.is_empty()
                && !group.exclusive
                && group.exclude.is_empty()
                && group.cpu_milli_per_node.is_none()
                && group.memory_bytes_per_node.is_none()
                && matches!(group.ranks, RanksPerNode::PerDevice | RanksPerNode::Fixed(1))
        })
}

fn seen(state: &State, job: &JobRecord) -> (u32, bool) {
    (job.revision().number, state.is_idle(job))
}
