//! What applying an entry returns: the answer to whoever proposed it, and the facts.

use crate::command::{Exit, NodeAction, Principal};
use crate::state::gang::{AttemptRecord, Cause, End};
use crate::state::job::{JobRecord, Tally};
use muster_common::job::{DependencyKind, Launch, Scheduling};
use muster_common::{AttemptNo, GangId, JobId, Name, NodeId, Time, Token};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use thiserror::Error;

#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub response: Response,
    /// In order; an event's id is (log index, position here).
    pub events: Vec<Event>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Response {
    Done,
    /// Committed, but somebody was there first; nothing changed.
    Noop,
    Refused(Refusal),
    Submitted {
        job: JobId,
        existing: bool,
    },
    Cancelled {
        gangs: u32,
    },
    Registered {
        node: NodeId,
        epoch: u64,
    },
    Reports {
        applied: u32,
    },
    Plan {
        accepted: u32,
        rejected: Vec<(GangId, Rejection)>,
    },
    Expired {
        timers: u32,
    },
    /// `existing`: the request was known, and this is what it did.
    Edited {
        revision: u32,
        existing: bool,
    },
    /// `existing`: it was there. `crossing`: some of those that may hold its nodes beyond its start.
    WindowMade {
        number: u32,
        nodes: u32,
        existing: bool,
        crossing: Vec<Crossing>,
        crossing_total: u32,
    },
}

/// A gang on nodes of an advance reservation, and its latest end; `None` = nothing ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crossing {
    pub gang: GangId,
    pub ends: Option<Time>,
}

/// Why a command changed nothing. Each is an answer to a person or a program, never a panic.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Refusal {
    #[error("job {0} is not known; it never existed or has ended")]
    UnknownJob(JobId),
    #[error("job {job} has no element {ordinal}")]
    UnknownElement { job: JobId, ordinal: u32 },
    #[error("node {0} is not known")]
    UnknownNode(NodeId),
    #[error("the key was used for job {job} with another body")]
    KeyReused { job: JobId },
    #[error("the key was made more than {horizon_ms} ms ago and may have been used; submit again with a new one")]
    KeyTooOld { horizon_ms: u64 },
    #[error("{0}")]
    Invalid(String),
    #[error("node {node} is registered again since; its epoch is {epoch}")]
    OldEpoch { node: NodeId, epoch: u64 },
    #[error("proposed in term {proposed}, committed in term {term}")]
    OldTerm { proposed: u64, term: u64 },
    #[error("the node has running work; drain it first")]
    NodeBusy,
    #[error("the device is not in quarantine")]
    NotQuarantined,
    #[error("the join token is not known, has been used, or has run out; make another with `muster node token`")]
    Token,
    #[error("the join token is for node `{0}`")]
    TokenNode(Name),
    #[error("State holds its limit of {limit} {what}")]
    Full { what: String, limit: u64 },
    #[error("job {job} is at revision {revision} by now")]
    OldRevision { job: JobId, revision: u32 },
    /// The job as it stands does not allow that change.
    #[error("{0}")]
    NotNow(String),
    #[error("the cluster's feature level is {level}; this needs {needed}")]
    FeatureLevel { level: u32, needed: u32 },
    /// An account or a user has as much as it may.
    #[error("{0}")]
    OverLimit(String),
    #[error("there is no reservation `{name}`; {help}")]
    UnknownWindow { name: Name, help: String },
    #[error("node {node} is in reservation `{other}` then")]
    Overlaps { node: Name, other: Name },
    #[error("there is a reservation `{0}` already, and it is another")]
    NameTaken(Name),
    #[error("the configuration is at version {version} by now; look at what differs again")]
    OldConfiguration { version: u32 },
}

/// Why a gang of a plan was not placed; the whole gang is then left as it was.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Rejection {
    #[error("the gang is not waiting at that attempt and revision")]
    NotWaiting,
    #[error("node {0} is not known or was registered again")]
    NodeChanged(NodeId),
    #[error("node {0} takes no new work")]
    NodeClosed(NodeId),
    #[error("device {slot} of node {node} is not free")]
    DeviceTaken { node: NodeId, slot: u16 },
    #[error("node {0} has not enough CPU or memory left")]
    Amount(NodeId),
    #[error("node {0} has no port left to lease")]
    Port(NodeId),
    #[error("the placement is not what the gang asked for: {0}")]
    Shape(String),
    #[error("the job waits for other jobs")]
    Waits,
    #[error("the job is held")]
    Held,
    #[error("the array runs its most at once already")]
    AtOnce,
    #[error("{0}")]
    Limit(String),
    #[error("node {node} is kept for others by reservation `{window}`")]
    Reserved { node: NodeId, window: Name },
}

/// A fact, kept in history. Wake-up hints for those who watch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    JobSubmitted {
        job: JobId,
        name: Name,
        principal: Principal,
        gangs: u32,
    },
    JobHeld {
        job: JobId,
        hold: bool,
        by: Principal,
    },
    JobCancelled {
        job: JobId,
        ordinal: Option<u32>,
        by: Principal,
        reason: String,
    },
    GangPlaced {
        gang: GangId,
        attempt: AttemptNo,
        token: Token,
        nodes: Vec<NodeId>,
        devices: u32,
    },
    GangStarted {
        gang: GangId,
        attempt: AttemptNo,
    },
    RankExited {
        gang: GangId,
        attempt: AttemptNo,
        rank: u32,
        node: NodeId,
        exit: Exit,
    },
    GangStopping {
        gang: GangId,
        attempt: AttemptNo,
        cause: Cause,
    },
    AttemptEnded {
        gang: GangId,
        record: Arc<AttemptRecord>,
    },
    /// Waiting again, for the next attempt.
    GangQueued {
        gang: GangId,
        next: AttemptNo,
        not_before: Time,
    },
    GangEnded {
        gang: GangId,
        end: End,
    },
    /// The job has left State; this is its whole record, with the specs it points to.
    JobEnded {
        record: Arc<JobRecord>,
        scheduling: Arc<Scheduling>,
        launch: Arc<Launch>,
        end: End,
        tally: Tally,
        at: Time,
    },
    Reserved {
        gang: GangId,
        start: Time,
    },
    Unreserved {
        gang: GangId,
    },
    NodeRegistered {
        node: NodeId,
        name: Name,
        epoch: u64,
        devices: u16,
        rebooted: bool,
    },
    NodeSeen {
        node: NodeId,
    },
    NodeSilent {
        node: NodeId,
    },
    NodeFenced {
        node: NodeId,
    },
    NodeAdmin {
        node: NodeId,
        action: NodeAction,
        by: Principal,
    },
    DevicesUnknown {
        node: NodeId,
        slots: Vec<u16>,
    },
    DevicesFree {
        node: NodeId,
        slots: Vec<u16>,
        evidence: Evidence,
    },
    DeviceQuarantined {
        node: NodeId,
        slot: u16,
        why: String,
    },
    DeviceFault {
        node: NodeId,
        slot: u16,
        xid: u32,
        why: String,
    },
    /// An operator's or a policy's change; the new value is in State.
    Configured {
        what: String,
        by: Principal,
        version: u32,
    },
    TokenIssued {
        node: Option<Name>,
        expires_at: Time,
        by: Principal,
    },
    TokenUsed {
        node: Name,
    },
    TokenExpired,
    /// A condition on which the job was to start can never hold.
    DependencyBroken {
        job: JobId,
        kind: DependencyKind,
        on: JobId,
        end: End,
    },
    /// The job has another revision.
    JobEdited {
        job: JobId,
        revision: u32,
        by: Principal,
        /// Its names before and from now on, when they differ.
        renamed: Option<(Name, Name)>,
        before: Arc<Scheduling>,
        after: Arc<Scheduling>,
        /// The command or its surroundings changed too.
        launch: bool,
    },
    WindowMade {
        name: Name,
        start: Time,
        end: Time,
        nodes: u32,
        by: Principal,
    },
    /// `by`: whoever ended it; `None` = its time was over.
    WindowEnded {
        name: Name,
        by: Option<Principal>,
    },
    /// They are to be woken.
    NodesRequested {
        gang: GangId,
        nodes: Vec<NodeId>,
    },
    /// They are to be put to sleep.
    NodesSleeping {
        nodes: Vec<NodeId>,
    },
    NodeAsleep {
        node: NodeId,
    },
    /// It was asleep, or about to be.
    NodeAwake {
        node: NodeId,
    },
    /// It could not be woken, or (`waking` false) put to sleep, and is left alone until then.
    NodePowerFailed {
        node: NodeId,
        waking: bool,
        why: String,
        until: Time,
    },
}

/// What proved that nothing runs on a device any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Evidence {
    /// The agent's `Released`.
    Released,
    /// Another boot of the same hardware.
    Reboot,
    /// The agent's intact store never held the token.
    NeverHeld,
    /// An operator's statement.
    Operator,
}
