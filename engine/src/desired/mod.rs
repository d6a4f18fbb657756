//! What a node's agent must be running now.

mod touched;

pub use touched::{Touched, touched};

use crate::state::State;
use crate::state::gang::{Allocation, Attempt, Cause, GangRecord, GangState, PartState};
use crate::state::node::{NodeRecord, Orphan};
use muster_common::job::{CheckpointSpec, Hash, StopSignal};
use muster_common::resources::Amount;
use muster_common::{AttemptNo, GangId, NodeId, Time, Token};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Everything one agent must do. What is not in it is not stopped: absence never kills (rule 10).
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    pub generation: u32,
    pub term: u64,
    pub applied_index: u64,
    pub epoch: u64,
    pub parts: Vec<DesiredPart>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct DesiredPart {
    pub gang: GangId,
    pub attempt: AttemptNo,
    pub token: Token,
    pub phase: Phase,
    /// `None` for what is only to be stopped.
    pub run: Option<Box<RunPart>>,
    pub stop: StopRule,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Prepare,
    Run,
    Stop,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopRule {
    pub signal: Option<StopSignal>,
    pub grace_ms: u64,
    /// Short, for the log: `cancelled`, `time limit`.
    pub cause: &'static str,
}

/// What it takes to run a part.
#[derive(Debug, Clone, PartialEq)]
pub struct RunPart {
    /// Slot, UUID and share.
    pub devices: Vec<(u16, String, u16)>,
    /// NUMA nodes of the devices, and the NICs nearest to them, as far as the machine says.
    pub numa: Vec<u16>,
    pub nics: Vec<String>,
    pub amount: Amount,
    pub rank_base: u32,
    pub ranks: u32,
    pub world_size: u32,
    pub node_rank: u32,
    pub peers: Vec<PeerPart>,
    pub master_port: u16,
    pub launch: Hash,
    pub lease_ms: u64,
    pub array_index: Option<u32>,
    pub user: Arc<str>,
    pub placed_at: Time,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerPart {
    pub node_name: String,
    pub address: String,
    pub devices: u32,
    pub ranks: u32,
    /// Number of its group.
    pub group: u16,
}

/// What `node` must be running. An unknown node must be running nothing.
pub fn desired(state: &State, node: NodeId) -> Desired {
    let record = state.node(node);
    let parts = record.map_or_else(Vec::new, |record| {
        let live = record.gangs.iter().filter_map(|gang| live_part(state, record, *gang));
        let orphans = record.orphans.iter().map(orphan_part);
        live.chain(orphans).collect()
    });
    Desired {
        generation: state.cluster().generation,
        term: state.applied_term(),
        applied_index: state.applied_index(),
        epoch: record.map_or(0, |record| record.epoch),
        parts,
    }
}

fn live_part(state: &State, node: &NodeRecord, gang: GangId) -> Option<DesiredPart> {
    let record = state.gang(gang)?;
    let attempt = record.current()?;
    let at = attempt.part_on(node.id)?;
    let part = &attempt.parts[at];
    let (phase, cause) = phase(record)?;
    let CheckpointSpec { signal, grace_ms } = state.scheduling_of(gang)?.checkpoint;
    let run = (phase != Phase::Stop || part.state == PartState::Prepared)
        .then(|| run_part(state, node, record, attempt, at, part))
        .flatten()
        .map(Box::new);
    Some(DesiredPart {
        gang,
        attempt: attempt.number,
        token: attempt.token,
        phase,
        run,
        stop: StopRule { signal, grace_ms, cause },
    })
}

/// What its agents are to do with a gang, and why it ends.
fn phase(gang: &GangRecord) -> Option<(Phase, &'static str)> {
    match &gang.state {
        GangState::Starting(_) => Some((Phase::Prepare, "")),
        GangState::Running(_) => Some((Phase::Run, "")),
        GangState::Stopping(_, cause) => Some((Phase::Stop, cause_word(cause))),
        GangState::Queued { .. } => None,
    }
}

fn run_part(
    state: &State,
    node: &NodeRecord,
    record: &GangRecord,
    attempt: &Attempt,
    at: usize,
    part: &Allocation,
) -> Option<RunPart> {
    let job = state.job(record.id.job)?;
    let revision = job.revisions.iter().find(|revision| revision.number == record.revision)?;
    let scheduling = &state.interned(revision.scheduling).scheduling;
    let device = |(slot, milli): &(u16, u16)| {
        let uuid = node.inventory.devices.get(usize::from(*slot)).map(|device| device.uuid.clone());
        (*slot, uuid.unwrap_or_default(), *milli)
    };
    let used = || part.devices.iter().filter_map(|(slot, _)| node.inventory.devices.get(usize::from(*slot)));
    let numa: BTreeSet<u16> = used().filter_map(|device| device.numa).collect();
    let nics: BTreeSet<&String> = used().flat_map(|device| &device.nearest_nics).collect();
    Some(RunPart {
        devices: part.devices.iter().map(device).collect(),
        numa: numa.into_iter().collect(),
        nics: nics.into_iter().cloned().collect(),
        amount: part.amount,
        rank_base: part.rank_base,
        ranks: part.ranks,
        world_size: attempt.world_size,
        node_rank: at as u32,
        peers: attempt.parts.iter().map(|part| peer(state, part)).collect(),
        master_port: attempt.master_port,
        launch: revision.launch,
        lease_ms: state.settings().lease_ms(scheduling.fence_after_ms),
        array_index: scheduling.array.is_some().then_some(record.id.ordinal),
        user: job.principal.0.clone(),
        placed_at: attempt.placed_at,
    })
}

fn peer(state: &State, part: &Allocation) -> PeerPart {
    let node = state.node(part.node);
    PeerPart {
        node_name: node.map(|node| node.name.to_string()).unwrap_or_default(),
        address: node.map(|node| node.inventory.address.clone()).unwrap_or_default(),
        devices: part.devices.len() as u32,
        ranks: part.ranks,
        group: part.group,
    }
}

fn orphan_part(orphan: &Orphan) -> DesiredPart {
    DesiredPart {
        gang: orphan.gang,
        attempt: orphan.attempt,
        token: orphan.token,
        phase: Phase::Stop,
        run: None,
        stop: StopRule { signal: None, grace_ms: orphan.grace_ms, cause: "attempt ended elsewhere" },
    }
}

const fn cause_word(cause: &Cause) -> &'static str {
    match cause {
        Cause::Completed => "completed",
        Cause::RankFailed { .. } => "a rank failed",
        Cause::Cancelled { .. } => "cancelled",
        Cause::TimeLimit => "time limit",
        Cause::Preempted { .. } => "preempted",
        Cause::Drained { .. } => "drained",
        Cause::NodeLost { .. } => "a node was lost",
        Cause::LeaseLost { .. } => "a lease ran out",
        Cause::DeviceFailed { .. } => "a device failed",
        Cause::PrepareFailed { .. } => "preparation failed",
        Cause::StartTimeout { .. } => "not prepared in time",
        Cause::Vanished { .. } => "a node lost its part",
    }
}
