//! What the engine knows of a job. Equal parts are interned in State, so an array of a million
//! elements or a user's thousand alike jobs cost one record.

use crate::resources::Share;
use crate::topology::{LabelWish, SegmentRequest, SpreadRequest, TopologyRequest};
use crate::{JobId, Name};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The queue and the account of a job that names none.
pub const DEFAULT_NAME: &str = "default";

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Scheduling {
    pub queue: Name,
    pub account: Name,
    /// Priority class.
    pub class: Name,
    /// The roles inside one gang, in rank order, at most [`GROUPS_MAX`]. A node serves one of them.
    pub groups: Vec<GroupRequest>,
    /// What holds for the nodes of all groups together: one domain of each of these levels.
    pub together: Vec<TopologyRequest>,
    pub array: Option<ArraySpec>,
    pub limits: Limits,
    pub retry: RetryBudget,
    pub checkpoint: CheckpointSpec,
    /// May be stopped for the sake of others.
    pub preemptible: bool,
    /// How long a silent node keeps its ranks before they count as lost. `None` = the cluster's.
    pub fence_after_ms: Option<u64>,
    /// Not to start before this moment of state time, in ms.
    pub begin_at_ms: Option<u64>,
    /// To have ended by this moment of state time, in ms: what cannot is given up.
    pub deadline_at_ms: Option<u64>,
    pub after: Dependencies,
}

/// Other jobs that this one waits for; all of it must hold. The meanings are those of Slurm's `--dependency`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Dependencies {
    /// Started, or ended without.
    pub started: Vec<JobId>,
    /// Ended, however.
    pub any: Vec<JobId>,
    /// Every gang succeeded.
    pub ok: Vec<JobId>,
    /// Ended otherwise than with success.
    pub not_ok: Vec<JobId>,
    /// Every job of the same user and name that was submitted before has ended.
    pub singleton: bool,
    /// Cancelled as soon as it is known that it can never start; otherwise it waits for somebody to decide.
    pub or_cancel: bool,
}

/// What another job must have come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DependencyKind {
    Started,
    Any,
    Ok,
    NotOk,
}

impl DependencyKind {
    /// The key in `[after]` of a job file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Any => "any",
            Self::Ok => "ok",
            Self::NotOk => "not_ok",
        }
    }
}

impl Dependencies {
    /// Most jobs that one waits for.
    pub const COUNT_MAX: usize = 256;

    /// Every job named, with what it must have come to.
    pub fn iter(&self) -> impl Iterator<Item = (DependencyKind, JobId)> + '_ {
        let kinds = [
            (DependencyKind::Started, &self.started),
            (DependencyKind::Any, &self.any),
            (DependencyKind::Ok, &self.ok),
            (DependencyKind::NotOk, &self.not_ok),
        ];
        kinds.into_iter().flat_map(|(kind, jobs)| jobs.iter().map(move |job| (kind, *job)))
    }

    pub fn is_none(&self) -> bool {
        self.iter().next().is_none() && !self.singleton
    }
}

/// Most groups of one gang.
pub const GROUPS_MAX: usize = 32;

impl Scheduling {
    /// How many gangs the job has: one, or one per array element.
    pub fn gangs(&self) -> u32 {
        self.array.as_ref().map_or(1, |array| array.count)
    }

    /// Does any part of the request say where in the fabric it wants to be?
    pub fn wants_place(&self) -> bool {
        let wants =
            |group: &GroupRequest| !group.topology.is_empty() || group.segment.is_some() || group.spread.is_some();
        !self.together.is_empty() || self.groups.iter().any(wants)
    }

    /// Devices of one gang.
    pub fn devices(&self) -> u64 {
        self.groups.iter().map(GroupRequest::devices).sum()
    }
}

/// One role of a gang: how many devices, of which kind, how far apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupRequest {
    pub name: Name,
    pub count: Count,
    /// Acceptable models, the preferred first; the group gets one of them, unless `mixed_models`.
    /// Empty = any devices, of several models if need be. MIG instances only go to who names them.
    pub models: Vec<Name>,
    /// The group may get devices of several of its models.
    pub mixed_models: bool,
    /// Share of each device; less than whole only with `Count::Nodes`.
    pub share: Share,
    /// Per node. `None` = the node's CPUs in proportion to the devices taken, at least one CPU a rank.
    pub cpu_milli_per_node: Option<u64>,
    /// Per node. `None` = no memory is set aside.
    pub memory_bytes_per_node: Option<u64>,
    /// All CPU and memory of each node, and nobody else beside the group.
    pub exclusive: bool,
    pub topology: Vec<TopologyRequest>,
    pub segment: Option<SegmentRequest>,
    pub spread: Option<SpreadRequest>,
    /// Labels a node must carry, with equal value.
    pub labels: BTreeMap<Name, String>,
    /// A node that carries one of these, with equal value, is not used.
    pub avoid: BTreeMap<Name, String>,
    pub prefers: Vec<LabelWish>,
    /// Nodes never to use, by name.
    pub exclude: Vec<Name>,
    /// Ranks on each node: 1 for a launcher per node, or one per device.
    pub ranks: RanksPerNode,
    /// Share of the run time that goes into communication, in percent, as far as it is known.
    pub communication_percent: Option<u8>,
}

/// Most ranks on one node: what an agent takes.
pub const RANKS_PER_NODE_MAX: u32 = 1024;

/// How ranks are laid out on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RanksPerNode {
    /// So many on every node.
    Fixed(u32),
    /// As many as devices taken on that node.
    PerDevice,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Count {
    /// Exactly so many nodes with exactly so many devices on each. `per_node` 0 = CPU only.
    Nodes { nodes: u32, per_node: u32 },
    /// So many devices in all, spread as fits.
    Total(DeviceTotal),
}

/// A number of devices, with what each node may carry of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeviceTotal {
    pub devices: u32,
    pub per_node_min: u32,
    pub per_node_max: u32,
    /// Devices on a node come in multiples of this, except the remainder on one node.
    pub step: u32,
}

impl GroupRequest {
    /// A group that asks for nothing but its size.
    pub fn of(count: Count) -> Self {
        Self {
            name: Name::literal("main"),
            count,
            models: Vec::new(),
            mixed_models: false,
            share: Share::WHOLE,
            cpu_milli_per_node: None,
            memory_bytes_per_node: None,
            exclusive: false,
            topology: Vec::new(),
            segment: None,
            spread: None,
            labels: BTreeMap::new(),
            avoid: BTreeMap::new(),
            prefers: Vec::new(),
            exclude: Vec::new(),
            ranks: RanksPerNode::Fixed(1),
            communication_percent: None,
        }
    }

    pub fn devices(&self) -> u64 {
        match &self.count {
            Count::Nodes { nodes, per_node } => u64::from(*nodes) * u64::from(*per_node),
            Count::Total(total) => u64::from(total.devices),
        }
    }

    /// The most ranks the group can have, however its devices are spread.
    pub fn ranks_most(&self) -> u64 {
        match &self.count {
            Count::Nodes { nodes, per_node } => u64::from(*nodes) * u64::from(self.ranks_on(*per_node)),
            Count::Total(total) => match self.ranks {
                RanksPerNode::PerDevice => u64::from(total.devices.max(1)),
                RanksPerNode::Fixed(ranks) => u64::from(ranks),
            },
        }
    }

    /// Ranks on a node that gives `devices` of its devices.
    pub fn ranks_on(&self, devices: u32) -> u32 {
        match self.ranks {
            RanksPerNode::Fixed(ranks) => ranks,
            RanksPerNode::PerDevice => devices.max(1),
        }
    }
}

/// Elements `0..count`; each is a gang of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ArraySpec {
    pub count: u32,
    /// At most so many at a time.
    pub at_once: Option<u32>,
    /// After so many failed elements nothing more of the array is started.
    pub stop_after_failures: Option<u32>,
}

impl ArraySpec {
    pub const COUNT_MAX: u32 = 1_000_000;
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Hard stop of an attempt.
    pub time_ms: Option<u64>,
    /// What the user expects; for backfill and estimates, never kills.
    pub expected_ms: Option<u64>,
    /// Give up queueing after this.
    pub wait_ms: Option<u64>,
    /// The run time a simulator knows exactly. Never set by users of a live cluster.
    pub exact_ms: Option<u64>,
}

/// How often a gang may be tried again. Attempts = 1 + what is used of both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RetryBudget {
    /// After faults that are not the job's: a node, a device, a preparation that failed.
    pub infra: u32,
    /// After a rank ended other than with 0.
    pub app: u32,
    /// Keep later attempts off the node where one failed.
    pub exclude_failed_node: bool,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { infra: 3, app: 0, exclude_failed_node: false }
    }
}

/// How a gang is told to stop: `signal` first (when given), then SIGTERM, then after `grace_ms`
/// SIGKILL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CheckpointSpec {
    pub signal: Option<StopSignal>,
    pub grace_ms: u64,
}

impl Default for CheckpointSpec {
    fn default() -> Self {
        Self { signal: None, grace_ms: 30_000 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum StopSignal {
    Usr1,
    Usr2,
    Term,
    Int,
    Hup,
}
