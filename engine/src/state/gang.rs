//! The gang table: the all-or-nothing unit, its attempts and what they hold.

use super::usage::Holding;
use crate::command::{Exit, StopFor};
use crate::outcome::Rejection;
use muster_common::money::MicroUsd;
use muster_common::resources::Amount;
use muster_common::{AttemptNo, GangId, NodeId, Time, Token};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A gang that has been placed at least once. Until then it is a number in its job's `unstarted`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GangRecord {
    pub id: GangId,
    pub revision: u32,
    /// The attempt now, or the last one while queued.
    pub attempt: AttemptNo,
    pub state: GangState,
    /// Since when it waits, for the order and the wait shown.
    pub queued_at: Time,
    /// Retries used up, by whose fault.
    pub infra_used: u32,
    pub app_used: u32,
    pub preempted: u32,
    /// Nodes later attempts keep off.
    pub excluded: Vec<NodeId>,
    /// Ended attempts, the newest last, at most [`PAST_MAX`].
    pub past: Vec<Arc<AttemptRecord>>,
    /// Run time of all ended attempts.
    pub served_ms: u64,
}

/// Ended attempts a gang keeps; older ones are in history only.
pub const PAST_MAX: usize = 32;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum GangState {
    /// Waiting for another attempt, not before the given moment.
    Queued {
        not_before: Time,
    },
    /// Placed; some parts have not prepared yet.
    Starting(Box<Attempt>),
    Running(Box<Attempt>),
    /// Ending; some parts are not proven gone yet.
    Stopping(Box<Attempt>, Box<Cause>),
}

impl GangState {
    pub const fn word(&self) -> &'static str {
        match self {
            GangState::Queued { .. } => "QUEUED",
            GangState::Starting(_) => "STARTING",
            GangState::Running(_) => "RUNNING",
            GangState::Stopping(..) => "STOPPING",
        }
    }
}

impl GangRecord {
    pub fn current(&self) -> Option<&Attempt> {
        match &self.state {
            GangState::Queued { .. } => None,
            GangState::Starting(attempt) | GangState::Running(attempt) | GangState::Stopping(attempt, _) => {
                Some(attempt)
            }
        }
    }

    pub fn current_mut(&mut self) -> Option<&mut Attempt> {
        match &mut self.state {
            GangState::Queued { .. } => None,
            GangState::Starting(attempt) | GangState::Running(attempt) | GangState::Stopping(attempt, _) => {
                Some(attempt)
            }
        }
    }
}

/// One execution of a gang that has not ended yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    pub number: AttemptNo,
    pub token: Token,
    pub placed_at: Time,
    pub started_at: Option<Time>,
    pub stopping_at: Option<Time>,
    /// The newest checkpoint that a rank has reported.
    pub checkpoint_at: Option<Time>,
    /// What an hour of it costs, at the prices of when it was placed.
    pub hourly: MicroUsd,
    /// What it costs until its time limit.
    pub set_aside: MicroUsd,
    /// Leased on the first part's node for as long as the attempt lives.
    pub master_port: u16,
    pub world_size: u32,
    /// In rank order.
    pub parts: Vec<Allocation>,
}

impl Attempt {
    pub fn part_on(&self, node: NodeId) -> Option<usize> {
        self.parts.iter().position(|part| part.node == node)
    }

    pub fn devices(&self) -> u32 {
        self.parts.iter().map(|part| part.devices.len() as u32).sum()
    }

    /// What it is charged for from its placement to its end.
    pub fn holding(&self) -> Holding {
        let devices = self.parts.iter().flat_map(|part| &part.devices);
        Holding {
            milli: devices.map(|(_, milli)| u64::from(*milli)).sum(),
            placed_at: self.placed_at,
            hourly: self.hourly,
            set_aside: self.set_aside,
        }
    }
}

/// The part of an attempt on one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Allocation {
    /// Which of the gang's groups this is for, by number.
    pub group: u16,
    pub node: NodeId,
    pub epoch: u64,
    pub devices: Vec<(u16, u16)>,
    pub amount: Amount,
    pub rank_base: u32,
    pub ranks: u32,
    pub state: PartState,
    /// Of ranks `rank_base..`, as they are reported.
    pub exits: Vec<Option<Exit>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PartState {
    /// Committed; the agent has not said that it is prepared.
    Placed,
    Prepared,
    /// Proven gone; its devices are free.
    Released,
    /// The node fell silent for the whole fencing wait; its devices are unknown.
    Fenced,
    /// What runs there cannot be ended; its devices are quarantined.
    Quarantined,
}

impl PartState {
    /// Nothing more is awaited of this part (rule 5).
    pub const fn is_settled(self) -> bool {
        matches!(self, PartState::Released | PartState::Fenced | PartState::Quarantined)
    }
}

/// Why an attempt ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// Every rank ended with 0.
    Completed,
    RankFailed {
        rank: u32,
        node: NodeId,
        exit: Exit,
    },
    Cancelled {
        reason: String,
    },
    TimeLimit,
    Preempted {
        by: Option<GangId>,
        why: StopFor,
    },
    /// Moved off a node that is being drained.
    Drained {
        node: NodeId,
    },
    NodeLost {
        node: NodeId,
    },
    /// The agent killed the ranks because it could not renew its lease.
    LeaseLost {
        node: NodeId,
    },
    DeviceFailed {
        node: NodeId,
        slot: u16,
    },
    PrepareFailed {
        node: NodeId,
        infra: bool,
        why: String,
    },
    StartTimeout {
        node: NodeId,
    },
    /// The node came back without this allocation.
    Vanished {
        node: NodeId,
    },
}

/// Whose budget a cause is charged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    Nobody,
    App,
    Infra,
}

impl Cause {
    pub fn blame(&self) -> Blame {
        match self {
            Cause::Completed
            | Cause::Cancelled { .. }
            | Cause::TimeLimit
            | Cause::Preempted { .. }
            | Cause::Drained { .. } => Blame::Nobody,
            Cause::RankFailed { .. } | Cause::PrepareFailed { infra: false, .. } => Blame::App,
            Cause::NodeLost { .. }
            | Cause::LeaseLost { .. }
            | Cause::DeviceFailed { .. }
            | Cause::PrepareFailed { infra: true, .. }
            | Cause::StartTimeout { .. }
            | Cause::Vanished { .. } => Blame::Infra,
        }
    }

    /// The node to keep off in later attempts, if the job asks for that.
    pub fn node(&self) -> Option<NodeId> {
        match self {
            Cause::RankFailed { node, .. }
            | Cause::Drained { node }
            | Cause::NodeLost { node }
            | Cause::LeaseLost { node }
            | Cause::DeviceFailed { node, .. }
            | Cause::PrepareFailed { node, .. }
            | Cause::StartTimeout { node }
            | Cause::Vanished { node } => Some(*node),
            _ => None,
        }
    }
}

/// An attempt that has ended, as history keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptRecord {
    pub attempt: Attempt,
    pub cause: Cause,
    pub ended_at: Time,
    /// Device-milliseconds charged: from placement to the end, each device once.
    pub device_ms: u64,
}

/// How a gang, or a job of one gang, ended for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum End {
    Succeeded,
    Failed,
    Cancelled,
    TimedOut,
}

impl End {
    pub const fn word(self) -> &'static str {
        match self {
            End::Succeeded => "SUCCEEDED",
            End::Failed => "FAILED",
            End::Cancelled => "CANCELLED",
            End::TimedOut => "TIMED_OUT",
        }
    }
}

/// A gang whose plans `apply` refused twice at one index: something is wrong with the planner, and
/// it is shown instead of retried for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// State index of the last plan refused.
    pub made_at: u64,
    pub times: u32,
    pub why: Rejection,
}

impl Parked {
    /// No longer tried, until somebody holds and releases the job.
    pub const fn is_parked(&self) -> bool {
        self.times >= 2
    }
}
