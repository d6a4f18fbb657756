//! The replicated state: ordered tables, changed only by `apply`.

pub mod account;
pub mod change;
pub mod check;
pub mod decay;
pub mod declarations;
pub mod depend;
pub mod gang;
pub mod job;
pub mod node;
pub mod policies;
pub mod reservation;
pub mod runtime;
pub mod spending;
pub mod timer;
pub mod usage;
pub mod window;

use crate::command::{Principal, Settings};
use crate::policy::Policy;
use crate::table::Table;
use account::Accounts;
use change::{Changes, Key};
use declarations::Declarations;
use depend::Tombstone;
use gang::{GangRecord, Parked};
use job::{JobRecord, KeyRecord};
use muster_common::job::{Hash, Launch, Scheduling};
use muster_common::topology::FabricSpec;
use muster_common::{GangId, JobId, Name, NodeId, Time};
use node::NodeRecord;
use policies::Policies;
use reservation::Reservation;
use runtime::RunTimes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use timer::Timer;
use usage::Usage;
use window::Windows;

/// Everything replicated. A clone is a cheap, consistent view.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct State {
    pub(crate) applied_index: u64,
    pub(crate) applied_term: u64,
    pub(crate) now: Time,
    pub(crate) cluster: Cluster,
    pub(crate) policy: Arc<Policy>,
    pub(crate) policies: Arc<Policies>,
    pub(crate) fabric: Arc<FabricSpec>,
    pub(crate) settings: Settings,
    pub(crate) accounts: Accounts,
    /// Counts every change of policy, fabric, settings and organisation.
    pub(crate) config_version: u32,
    pub(crate) jobs: Table<JobId, JobRecord>,
    pub(crate) gangs: Table<GangId, GangRecord>,
    pub(crate) nodes: Table<NodeId, NodeRecord>,
    pub(crate) node_names: Table<Name, NodeId>,
    /// By digest.
    pub(crate) schedulings: Table<Hash, Interned>,
    pub(crate) launches: Table<Hash, LaunchRecord>,
    pub(crate) reservations: BTreeMap<GangId, Reservation>,
    pub(crate) parked: BTreeMap<GangId, Parked>,
    /// Gangs stopped for a higher class within the last hour, and the scheduling part of each.
    pub(crate) preempted: BTreeMap<(Time, GangId), Hash>,
    /// Gangs moved for others within the last hour.
    pub(crate) moved: BTreeSet<(Time, GangId)>,
    pub(crate) keys: Table<Arc<str>, KeyRecord>,
    pub(crate) key_ages: Table<(Time, Arc<str>), ()>,
    /// (job waited for, job that waits), of every condition that does not hold yet.
    pub(crate) dependents: Table<(JobId, JobId), ()>,
    /// Live jobs by user and name.
    pub(crate) namesakes: Table<(Principal, Name, JobId), ()>,
    pub(crate) ended: Table<JobId, Tombstone>,
    pub(crate) ended_ages: Table<(Time, JobId), ()>,
    pub(crate) tokens: BTreeMap<Hash, JoinToken>,
    pub(crate) timers: Table<(Time, Timer), ()>,
    pub(crate) usage: Usage,
    pub(crate) run_times: RunTimes,
    /// What people have put aside.
    pub(crate) windows: Arc<Windows>,
    pub(crate) declarations: Arc<Declarations>,
    /// Rolling hash of all events.
    pub(crate) events_hash: Hash,
    #[serde(skip)]
    pub(crate) changes: Changes,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cluster {
    pub id: String,
    /// Raised by a restore; the high part of every fencing token.
    pub generation: u32,
    /// What `apply` may compute; raised explicitly once every server can.
    pub feature_level: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interned {
    pub scheduling: Arc<Scheduling>,
    /// Revisions that point here.
    pub count: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchRecord {
    pub launch: Arc<Launch>,
    pub count: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    pub node: Option<Name>,
    pub expires_at: Time,
}

/// Most live jobs, nodes and join tokens in State.
pub const JOBS_MAX: u64 = 2_000_000;
pub const NODES_MAX: u64 = 100_000;
pub const TOKENS_MAX: u64 = 10_000;
/// Most accounts in one document.
pub const ACCOUNTS_MAX: u64 = 10_000;

impl State {
    pub fn new(cluster_id: impl Into<String>) -> Self {
        let cluster = Cluster { id: cluster_id.into(), generation: 1, feature_level: crate::apply::FEATURE_LEVEL };
        Self { cluster, ..Self::default() }
    }

    pub fn applied_index(&self) -> u64 {
        self.applied_index
    }

    pub fn applied_term(&self) -> u64 {
        self.applied_term
    }

    pub fn now(&self) -> Time {
        self.now
    }

    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// Policies before, and the one that is only tried.
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    pub fn fabric(&self) -> &Arc<FabricSpec> {
        &self.fabric
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    pub fn config_version(&self) -> u32 {
        self.config_version
    }

    pub fn jobs(&self) -> &Table<JobId, JobRecord> {
        &self.jobs
    }

    pub fn gangs(&self) -> &Table<GangId, GangRecord> {
        &self.gangs
    }

    pub fn nodes(&self) -> &Table<NodeId, NodeRecord> {
        &self.nodes
    }

    pub fn job(&self, id: JobId) -> Option<&JobRecord> {
        self.jobs.get(&id)
    }

    pub fn gang(&self, id: GangId) -> Option<&GangRecord> {
        self.gangs.get(&id)
    }

    pub fn node(&self, id: NodeId) -> Option<&NodeRecord> {
        self.nodes.get(&id)
    }

    pub fn node_named(&self, name: &Name) -> Option<&NodeRecord> {
        self.nodes.get(self.node_names.get(name)?)
    }

    pub fn reservations(&self) -> &BTreeMap<GangId, Reservation> {
        &self.reservations
    }

    /// Stopped for a higher class within the last hour, by moment.
    pub fn preempted(&self) -> &BTreeMap<(Time, GangId), Hash> {
        &self.preempted
    }

    /// Moved for others within the last hour, by moment.
    pub fn moved(&self) -> &BTreeSet<(Time, GangId)> {
        &self.moved
    }

    pub fn parked(&self, gang: GangId) -> Option<&Parked> {
        self.parked.get(&gang)
    }

    pub fn launch(&self, hash: &Hash) -> Option<&Arc<Launch>> {
        self.launches.get(hash).map(|record| &record.launch)
    }

    /// The scheduling part a job has now.
    pub fn scheduling(&self, job: &JobRecord) -> &Arc<Scheduling> {
        &self.interned(job.revision().scheduling).scheduling
    }

    /// The scheduling part that a gang was last placed with; the job's own where it never was. An edit of the job may
    /// pass by what runs.
    pub fn scheduling_of(&self, gang: GangId) -> Option<&Arc<Scheduling>> {
        let job = self.jobs.get(&gang.job)?;
        let own = self.gangs.get(&gang).map(|record| record.revision);
        let own = own.and_then(|own| job.revisions.iter().find(|revision| revision.number == own));
        Some(&self.interned(own.unwrap_or(job.revision()).scheduling).scheduling)
    }

    pub(crate) fn interned(&self, key: Hash) -> &Interned {
        self.schedulings.get(&key).expect("a revision points to an interned scheduling part")
    }

    /// Deadlines, the nearest first.
    pub fn timers(&self) -> impl Iterator<Item = (Time, Timer)> + '_ {
        self.timers.keys().copied()
    }

    pub fn tokens(&self) -> &BTreeMap<Hash, JoinToken> {
        &self.tokens
    }

    /// Run times seen, by user and job name.
    pub fn run_times(&self) -> &RunTimes {
        &self.run_times
    }

    /// What was declared as a whole.
    pub fn declarations(&self) -> &Declarations {
        &self.declarations
    }

    /// Advance reservations.
    pub fn windows(&self) -> &Windows {
        &self.windows
    }

    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    pub fn events_hash(&self) -> Hash {
        self.events_hash
    }

    /// What an idempotency key stands for, while it is kept.
    pub fn key(&self, key: &str) -> Option<&KeyRecord> {
        self.keys.get(key)
    }

    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    pub(crate) fn touch(&mut self, key: Key) {
        self.changes.push(self.applied_index, key);
    }

    /// SHA-256 of the whole state. Servers with an equal applied index must agree on it.
    pub fn hash(&self) -> Hash {
        crate::digest::of(self)
    }

    /// The bytes of a snapshot.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        bytes.extend(postcard::to_stdvec(self).expect("State always encodes"));
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<State, String> {
        let (&format, rest) = bytes.split_first().ok_or("the snapshot is empty")?;
        if format != FORMAT {
            return Err(format!("the snapshot has format {format}; this version reads {FORMAT}"));
        }
        let mut state: State =
            postcard::from_bytes(rest).map_err(|error| format!("the snapshot is damaged: {error}"))?;
        state.changes.restart(state.applied_index);
        state.accounts.restore();
        Ok(state)
    }
}

/// Version byte in front of entries and snapshots.
pub const FORMAT: u8 = 1;
