//! The world file: which machines there are, and the rules by which time passes. What a policy
//! may decide is never in here, and nothing in here is policy.

pub mod elastic;
pub mod failures;
mod machines;
pub mod planned;
pub mod spot;
pub mod truth;

use crate::SimError;
use crate::trace::TraceJob;
use elastic::Elastic;
use failures::Failures;
use muster_common::Name;
use muster_common::job::{
    CheckpointSpec, Count, Dependencies, DeviceTotal, GroupRequest, Limits, RetryBudget, Scheduling,
};
use muster_common::node::Inventory;
use muster_common::resources::Share;
use muster_common::topology::FabricSpec;
use planned::{Cancellation, PlannedDrain, PlannedOutage, UserFailure};
use serde::{Deserialize, Serialize};
use spot::Spot;
use std::collections::BTreeMap;
use std::path::Path;

/// An invented cluster and its clockwork.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct World {
    pub nodes: Vec<NodeGroup>,
    #[serde(default)]
    pub fabric: FabricSpec,
    #[serde(default)]
    pub events: Events,
    #[serde(default)]
    pub preemption: Preemption,
    #[serde(default)]
    pub jobs: Jobs,
    #[serde(default)]
    pub delays: Delays,
    #[serde(default)]
    pub failures: Failures,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spot: Vec<Spot>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elastic: Vec<Elastic>,
    #[serde(default)]
    pub drains: Vec<PlannedDrain>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outages: Vec<PlannedOutage>,
    #[serde(default)]
    pub cancellations: Vec<Cancellation>,
    #[serde(default)]
    pub user_failures: Vec<UserFailure>,
}

/// So many machines of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeGroup {
    /// Nodes are called by this and a number from 0.
    #[serde(default = "node")]
    pub name: Name,
    pub count: u32,
    /// Devices on each node.
    pub devices: u16,
    #[serde(default = "device")]
    pub model: Name,
    /// CPUs of each node; by default eight for each device.
    pub cpus: Option<u32>,
    #[serde(default)]
    pub memory_gib: u32,
    #[serde(default)]
    pub labels: BTreeMap<Name, String>,
    /// Where all of them stand: per fabric tree, the domain at each level, widest first.
    #[serde(default)]
    pub place: BTreeMap<Name, Vec<Name>>,
    /// In place of `place`: per fabric tree, how many nodes follow each other in one domain of
    /// each level, widest first. Domains are called by their level and a number.
    #[serde(default)]
    pub place_every: BTreeMap<Name, Vec<u32>>,
    /// What the nodes are called, where that is not `name` and a number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<Name>,
    /// What an agent reported of each of them; it counts for more than what is above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory: Option<Box<Inventory>>,
}

fn node() -> Name {
    Name::literal("node")
}

fn device() -> Name {
    Name::literal("device")
}

/// In which order things happen, and how often decisions are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Events {
    /// At one instant: ends before arrivals, or arrivals before ends. Ends of one instant come in
    /// the order in which their jobs started, arrivals in the order of the trace.
    pub ends_first: bool,
    pub cycle_after: CycleAfter,
    /// Arrivals and ends are noticed at whole multiples of this; 0 = at once.
    pub tick_ms: u64,
    /// No decision sooner than this after one at an earlier moment; what happens in between waits for it.
    pub cycle_gap_ms: u64,
}

impl Default for Events {
    fn default() -> Self {
        Self { ends_first: true, cycle_after: CycleAfter::Instant, tick_ms: 0, cycle_gap_ms: 0 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CycleAfter {
    /// After every single arrival and end.
    Entry,
    /// Once everything of an instant has happened.
    Instant,
}

/// What it costs a job to be stopped for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Preemption {
    /// Added to the run time for each time it was stopped.
    pub cost_ms: u64,
    /// The next attempt goes on where the last one stopped, instead of from its last checkpoint.
    pub keeps_work: bool,
    /// Between the warning and the end; a checkpoint that takes longer is not finished.
    pub grace_ms: u64,
}

impl Default for Preemption {
    fn default() -> Self {
        Self { cost_ms: 0, keeps_work: true, grace_ms: CheckpointSpec::default().grace_ms }
    }
}

/// Time that is not work. None of it by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Delays {
    /// From placement until the ranks run: images, data.
    pub start_ms: u64,
    /// At the start of every attempt but a job's first, before it gets on: reading the checkpoint,
    /// warming up.
    pub restart_ms: u64,
    /// From the order to stop until the devices are free.
    pub stop_ms: u64,
    /// Work between two checkpoints; 0 = none are made, and a failure takes all work.
    pub checkpoint_every_ms: u64,
    /// How long each one stops the work.
    pub checkpoint_ms: u64,
}

/// How a job of a trace becomes a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Jobs {
    pub request: Request,
    /// Only with `request = "total"`: devices on a node come in multiples of this.
    pub step: u32,
    /// May be stopped for others, where the policy does that.
    pub preemptible: bool,
    /// Attempts after failures that are not the job's own, and after its own.
    pub retry_infra: u32,
    pub retry_app: u32,
    /// A job that is recorded as failed or cancelled fails at the end of its run time, instead of succeeding.
    pub recorded_ends: bool,
    /// A job that has not started so long after its submit is given up; 0 = never.
    pub wait_limit_ms: u64,
}

impl Default for Jobs {
    fn default() -> Self {
        let RetryBudget { infra, app, .. } = RetryBudget::default();
        Self {
            request: Request::Total,
            step: 1,
            preemptible: true,
            retry_infra: infra,
            retry_app: app,
            recorded_ends: false,
            wait_limit_ms: 0,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// So many devices in all, spread as the policy likes.
    Total,
    /// So many nodes with one device on each.
    Nodes,
    /// All devices on one node.
    OneNode,
}

impl World {
    /// These machines, and the usual rules of time.
    pub fn of(nodes: Vec<NodeGroup>) -> Self {
        Self {
            nodes,
            fabric: FabricSpec::default(),
            events: Events::default(),
            preemption: Preemption::default(),
            jobs: Jobs::default(),
            delays: Delays::default(),
            failures: Failures::default(),
            spot: Vec::new(),
            elastic: Vec::new(),
            drains: Vec::new(),
            outages: Vec::new(),
            cancellations: Vec::new(),
            user_failures: Vec::new(),
        }
    }

    pub fn read(path: &Path) -> Result<(Self, String), SimError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| SimError::Read { path: path.to_path_buf(), source })?;
        let world = Self::parse(&text).map_err(|why| SimError::World { path: path.to_path_buf(), why })?;
        Ok((world, text))
    }

    /// # Errors
    /// What is wrong with the text, and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string()).and_then(|world: World| world.checked())
    }

    pub fn devices(&self) -> u64 {
        self.nodes.iter().map(|group| u64::from(group.count) * u64::from(group.devices)).sum()
    }

    fn largest_node(&self) -> u32 {
        self.nodes.iter().map(|group| u32::from(group.devices)).max().unwrap_or(0)
    }

    /// Later by less than one tick, so that it falls on one.
    pub(crate) fn on_tick(&self, ms: u64) -> u64 {
        match self.events.tick_ms {
            0 => ms,
            tick_ms => ms.div_ceil(tick_ms).saturating_mul(tick_ms),
        }
    }

    /// What is submitted for a job of the trace. The engine may know the run time exactly
    /// (`exact`) and as its user said (`expected`); which of them it uses is policy.
    pub(crate) fn scheduling(&self, job: &TraceJob) -> Scheduling {
        if let Some(known) = &job.scheduling {
            // What was not known to the cluster it ran on is not known here either.
            return Scheduling { array: None, after: Dependencies::default(), ..(**known).clone() };
        }
        let one_share = Count::Nodes { nodes: 1, per_node: job.devices.min(1) };
        let count = match self.jobs.request {
            _ if job.devices == 0 || job.share_milli < Share::WHOLE.0 => one_share,
            Request::Total => Count::Total(DeviceTotal {
                devices: job.devices,
                per_node_min: 1,
                // No bound but the node's own size.
                per_node_max: 0,
                step: self.jobs.step,
            }),
            Request::Nodes => Count::Nodes { nodes: job.devices, per_node: 1 },
            Request::OneNode => Count::Nodes { nodes: 1, per_node: job.devices },
        };
        let group = GroupRequest {
            models: job.models.clone(),
            share: Share(job.share_milli),
            cpu_milli_per_node: job.cpu_milli,
            memory_bytes_per_node: job.memory_bytes,
            ..GroupRequest::of(count)
        };
        Scheduling {
            queue: Name::literal("default"),
            account: job.account.clone().unwrap_or_else(|| Name::literal("default")),
            class: Name::literal("normal"),
            groups: vec![group],
            together: Vec::new(),
            array: None,
            limits: Limits {
                expected_ms: Some(job.requested_ms),
                exact_ms: Some(job.run_ms),
                wait_ms: Some(self.jobs.wait_limit_ms).filter(|ms| *ms > 0),
                ..Limits::default()
            },
            retry: RetryBudget { infra: self.jobs.retry_infra, app: self.jobs.retry_app, ..RetryBudget::default() },
            checkpoint: CheckpointSpec { grace_ms: self.preemption.grace_ms, ..CheckpointSpec::default() },
            preemptible: self.jobs.preemptible,
            fence_after_ms: None,
            begin_at_ms: None,
            deadline_at_ms: None,
            after: Default::default(),
        }
    }
}

#[cfg(test)]
mod tests;
