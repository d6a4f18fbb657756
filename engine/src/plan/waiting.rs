//! The waiting gangs in order, and those that hold devices: kept up from the ring of changes.

use super::lanes::{Handle, Lanes};
use super::order::{OrderKey, Scorer};
use super::owed::InTime;
use super::running::Running;
use super::runtime::run_ms;
use crate::command::Principal;
use crate::policy::{FillerOrder, Order};
use crate::state::State;
use crate::state::gang::{GangRecord, GangState};
use crate::state::job::JobRecord;
use muster_common::job::{ArraySpec, Count, GroupRequest, Hash, RanksPerNode, Scheduling};
use muster_common::resources::Share;
use muster_common::topology::TopologyRequest;
use muster_common::{GangId, JobId, Name, Time};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One place in the order: a gang that waits for another attempt, or all elements of a job that
/// have never been placed (a lane; alike in every respect, taken in turn).
#[derive(Debug, Clone)]
pub struct Item {
    pub key: OrderKey,
    pub lane: bool,
    /// What it asks for, as its lanes number that.
    pub kind: KindAt,
    pub scheduling: Arc<Scheduling>,
    pub shape: Hash,
    pub run_ms: Option<u64>,
    /// What is left of its run, as far as that is known.
    pub left_ms: Option<u64>,
    /// It does not start before; never = only after somebody has changed something of its job.
    pub ripe_at: Time,
}

/// Since when a gang waits that could have started: not while it was held, nor before it asked to begin.
pub fn waits_since(state: &State, gang: GangId, scheduling: &Scheduling) -> Option<Time> {
    let job = state.job(gang.job)?;
    let queued_at = state.gang(gang).map_or(job.submitted_at, |record| record.queued_at);
    let begins_at = scheduling.begin_at_ms.map_or(Time::ZERO, Time);
    Some(queued_at.max(begins_at).max(job.released_at))
}

/// On whose account, as far as that decides what may start.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Payer {
    account: Option<Name>,
    user: Option<Principal>,
    /// It may not be stopped, or not in time.
    firm: bool,
    class: i32,
}

/// What of a payer counts, as things are set.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    quota: bool,
    caps: bool,
    class: bool,
    submit: bool,
    in_time: InTime,
}

impl Counts {
    fn of(state: &State) -> Self {
        let (policy, accounts) = (state.policy(), state.accounts());
        Self {
            quota: accounts.document().accounts.iter().any(|account| !account.quota.is_empty()),
            caps: accounts.have_caps(),
            class: policy.taking.preempt.is_some(),
            submit: policy.backfill.filler_order == FillerOrder::Submit
                || matches!(policy.order, Order::Multifactor(_)),
            in_time: InTime::of(state),
        }
    }

    fn payer(self, state: &State, job: &JobRecord, scheduling: &Scheduling) -> Payer {
        Payer {
            account: (self.quota || self.caps).then(|| scheduling.account.clone()),
            user: self.caps.then(|| job.principal.clone()),
            firm: self.quota && self.in_time.is_firm(scheduling),
            class: if self.class { state.policy().class_rank(&scheduling.class).unwrap_or(0) } else { 0 },
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct Waiting {
    pub by_order: Lanes,
    /// Kept only for those who ask for it.
    pub by_submit: BTreeMap<(Time, GangId), Arc<Item>>,
    counts: Counts,
    queued: BTreeMap<GangId, Handle>,
    lanes: BTreeMap<JobId, Handle>,
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
        let mut waiting = Self { counts: Counts::of(state), ..Self::default() };
        let (mut all, mut lanes) = (Vec::with_capacity(state.jobs().len()), Vec::new());
        for job in state.jobs().values() {
            let scheduling = state.scheduling(job);
            let idle = state.is_idle(job, scheduling);
            all.push((job.id, (job.revision().number, idle)));
            if !idle {
                lanes.extend(waiting.lane(state, scorer, job, scheduling, now).map(|handle| (job.id, handle)));
            }
        }
        // In ascending order already, which a map is built from at once.
        (waiting.seen, waiting.lanes) = (all.into_iter().collect(), lanes.into_iter().collect());
        for gang in state.gangs().values() {
            waiting.put_gang(state, scorer, gang, now);
        }
        waiting
    }

    /// True when all gangs of the job had to be looked at again.
    pub fn refresh_job(&mut self, state: &State, scorer: &Scorer, id: JobId, now: Time) -> bool {
        self.drop_lane(id);
        let Some(job) = state.job(id) else {
            self.seen.remove(&id);
            self.drop_gangs(id);
            return false;
        };
        let scheduling = state.scheduling(job);
        let idle = state.is_idle(job, scheduling);
        if !idle && let Some(handle) = self.lane(state, scorer, job, scheduling, now) {
            self.lanes.insert(id, handle);
        }
        let seen = (job.revision().number, idle);
        let again = self.seen.insert(id, seen).is_some_and(|before| before != seen);
        if again {
            self.drop_gangs(id);
            let from = GangId::new(id, 0);
            for (_, gang) in state.gangs().range_from(&from).take_while(|(gang, _)| gang.job == id) {
                self.put_gang(state, scorer, gang, now);
            }
        }
        again
    }

    /// Gangs of a job with a present attempt.
    pub fn active_of(&self, job: JobId) -> impl Iterator<Item = GangId> + '_ {
        self.active.range(GangId::new(job, 0)..=GangId::new(job, u32::MAX)).copied()
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
        lanes.into_iter().for_each(|job| _ = self.refresh_job(state, scorer, job, now));
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
                true => _ = self.refresh_job(state, scorer, gang.job, now),
                false => self.refresh_gang(state, scorer, gang, now),
            }
        }
    }

    /// Lists all elements of a job that were never placed.
    fn lane(
        &mut self,
        state: &State,
        scorer: &Scorer,
        job: &JobRecord,
        scheduling: &Arc<Scheduling>,
        now: Time,
    ) -> Option<Handle> {
        let first = job.unstarted.first()?;
        let item = item(state, scorer, (job, scheduling), (GangId::new(job.id, first), None), now);
        Some(self.insert(state, job, item))
    }

    fn put_gang(&mut self, state: &State, scorer: &Scorer, gang: &GangRecord, now: Time) {
        if !matches!(gang.state, GangState::Queued { .. }) {
            self.active.insert(gang.id);
            self.running.put(state, gang);
            return;
        }
        let Some(job) = state.job(gang.id.job) else { return };
        let scheduling = state.scheduling(job);
        if state.is_idle(job, scheduling) {
            return;
        }
        let item = item(state, scorer, (job, scheduling), (gang.id, Some(gang)), now);
        let handle = self.insert(state, job, item);
        self.queued.insert(gang.id, handle);
    }

    fn insert(&mut self, state: &State, job: &JobRecord, item: Item) -> Handle {
        self.cpu_only += usize::from(item.wants_no_device_somewhere());
        let payer = self.counts.payer(state, job, &item.scheduling);
        let (handle, item) = self.by_order.insert(item, payer);
        if self.counts.submit {
            self.by_submit.insert((item.key.submitted_at, item.key.gang), item);
        }
        handle
    }

    fn remove(&mut self, handle: Handle) {
        if self.counts.submit {
            self.by_submit.remove(&(handle.key.submitted_at, handle.key.gang));
        }
        if let Some(item) = self.by_order.remove(&handle) {
            self.cpu_only -= usize::from(item.wants_no_device_somewhere());
        }
    }

    fn drop_lane(&mut self, job: JobId) {
        if let Some(handle) = self.lanes.remove(&job) {
            self.remove(handle);
        }
    }

    fn drop_gang(&mut self, gang: GangId) {
        self.active.remove(&gang);
        self.running.remove(gang);
        if let Some(handle) = self.queued.remove(&gang) {
            self.remove(handle);
        }
    }

    fn drop_gangs(&mut self, job: JobId) {
        let range = GangId::new(job, 0)..=GangId::new(job, u32::MAX);
        let known: Vec<GangId> = self.queued.range(range).map(|(gang, _)| *gang).collect();
        let active: Vec<GangId> = self.active_of(job).collect();
        known.into_iter().chain(active).for_each(|gang| self.drop_gang(gang));
    }

    /// The item in which a gang waits.
    pub fn item_of(&self, state: &State, gang: GangId) -> Option<&Arc<Item>> {
        let handle = match self.queued.get(&gang) {
            Some(handle) => handle,
            None => self
                .lanes
                .get(&gang.job)
                .filter(|_| state.job(gang.job).is_some_and(|job| job.unstarted.contains(gang.ordinal)))?,
        };
        self.by_order.get(handle)
    }
}

fn item(
    state: &State,
    scorer: &Scorer,
    (job, scheduling): (&JobRecord, &Arc<Scheduling>),
    gang: (GangId, Option<&GangRecord>),
    now: Time,
) -> Item {
    let run_ms = run_ms(state.policy(), job, &scheduling.limits);
    let served_ms = match gang.1 {
        // Only an exact run time says what is left after earlier attempts.
        Some(record) if scheduling.limits.exact_ms == run_ms => record.served_ms,
        _ => 0,
    };
    Item {
        key: scorer.key(state.policy(), job, scheduling, gang, state, now),
        lane: gang.1.is_none(),
        kind: KindAt::NONE,
        shape: job.revision().scheduling,
        run_ms,
        left_ms: run_ms.map(|run| run.saturating_sub(served_ms)),
        ripe_at: ripe_at(job, scheduling, gang.1),
        scheduling: scheduling.clone(),
    }
}

/// Before which moment nothing of it starts, whatever is free.
fn ripe_at(job: &JobRecord, scheduling: &Scheduling, gang: Option<&GangRecord>) -> Time {
    let shut = scheduling.array.as_ref().is_some_and(|array| is_full(array, job) || has_failed(array, job));
    if shut && gang.is_none() {
        return Time::NEVER;
    }
    let backoff = gang.map_or(Time::ZERO, |record| match &record.state {
        GangState::Queued { not_before } => *not_before,
        _ => Time::ZERO,
    });
    backoff.max(Time(scheduling.begin_at_ms.unwrap_or(0)))
}

/// Do as many elements run as may at once?
pub fn is_full(array: &ArraySpec, job: &JobRecord) -> bool {
    array.at_once.is_some_and(|most| job.gangs_active >= most)
}

/// Did so many elements fail that no other one begins?
pub fn has_failed(array: &ArraySpec, job: &JobRecord) -> bool {
    array.stop_after_failures.is_some_and(|most| job.tally.failed >= most)
}

/// What gangs ask of the cluster: equal for equal requests, whatever else differs between their jobs.
#[derive(Debug, Clone)]
pub struct Wanted(Arc<Scheduling>);

impl Wanted {
    /// What differs most often, and is compared at once, comes first.
    fn key(&self) -> (Option<(&Count, Share)>, &[GroupRequest], &[TopologyRequest]) {
        let first = self.0.groups.first().map(|group| (&group.count, group.share));
        (first, &self.0.groups, &self.0.together)
    }
}

impl Ord for Wanted {
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { self.key().cmp(&other.key()) }
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

/// The number of what items ask for, as long as any of them waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KindAt(pub u32);

impl KindAt {
    /// Of what nobody waits for just so.
    pub const NONE: KindAt = KindAt(u32::MAX);
}

/// What gangs ask for, as one cycle tells requests apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    Kind(KindAt),
    /// A request that was cut down.
    Other(Wanted),
}

impl Item {
    pub fn wanted(&self) -> Wanted {
        Wanted(self.scheduling.clone())
    }

    pub fn asked(&self) -> Asked {
        if self.kind == KindAt::NONE { Asked::Other(self.wanted()) } else { Asked::Kind(self.kind) }
    }

    /// The same gang with another request.
    pub fn asking(&self, scheduling: Scheduling) -> Item {
        Item { scheduling: Arc::new(scheduling), kind: KindAt::NONE, ..self.clone() }
    }

    /// What is left of its run; without end when nobody knows.
    pub fn left(&self) -> u64 {
        self.left_ms.unwrap_or(u64::MAX)
    }

    /// May a part of it be put where no device is free?
    fn wants_no_device_somewhere(&self) -> bool {
        let groups = &self.scheduling.groups;
        groups.iter().any(|group| matches!(group.count, Count::Nodes { per_node: 0, .. }))
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
