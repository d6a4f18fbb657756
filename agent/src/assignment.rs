//! What a server tells this node to do, checked: the typed form of the wire's `Desired`.

use muster_common::job::{Hash, RANKS_PER_NODE_MAX, StopSignal};
use muster_common::{AttemptNo, GangId, Token};
use muster_proto::agent as wire;
use muster_proto::convert::agent::{Invalid, invalid, stop_signal_of};
use serde::{Deserialize, Serialize};
use std::fmt;

/// More allocations or peers than this in one message are refused.
const ALLOCATIONS_MAX: usize = 1024;
const PEERS_MAX: usize = 16_384;

/// Names one allocation of this node for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    pub gang: GangId,
    pub attempt: AttemptNo,
    pub token: Token,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}-{}", self.gang, self.attempt, self.token)
    }
}

/// How new a `Desired` is: generation, then term, then applied index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Position {
    pub generation: u32,
    pub term: u64,
    pub applied_index: u64,
}

impl Position {
    /// Whether a server this far has seen the entry that made `token`.
    pub fn covers(self, token: Token) -> bool {
        Token { generation: self.generation, index: self.applied_index } >= token
    }
}

/// Everything the node must do. What is not in it is not stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    pub cluster_id: String,
    pub position: Position,
    /// This node's registration, in the generation of `position`.
    pub epoch: u64,
    pub assignments: Vec<Assignment>,
}

impl Desired {
    /// Tokens below it are of an earlier registration.
    pub fn floor(&self) -> Token {
        Token { generation: self.position.generation, index: self.epoch }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Prepare,
    Run,
    Stop,
    Forget,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    pub key: Key,
    pub wanted: Wanted,
    pub stop: StopRules,
    /// Absent when there is only something to stop.
    pub run: Option<RunPart>,
    /// Why there is nothing to run although that is wanted: it means nothing to this agent.
    pub unreadable: Option<String>,
}

/// How ranks are told to end.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StopRules {
    pub signal: Option<StopSignal>,
    pub grace_ms: u64,
    pub cause: String,
}

/// What it takes to run this node's part of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunPart {
    pub devices: Vec<DeviceShare>,
    /// NUMA nodes of the devices, and the NICs nearest to them, where the machine says.
    pub numa: Vec<u16>,
    pub nics: Vec<String>,
    pub cpu_milli: u64,
    pub memory_bytes: u64,
    pub rank_base: u32,
    pub ranks: u32,
    pub world_size: u32,
    pub node_rank: u32,
    /// In rank order; this node is `peers[node_rank]`.
    pub peers: Vec<PeerPart>,
    pub master_port: u16,
    pub launch: Hash,
    /// How long ranks may outlive the last extended renewal.
    pub lease_ms: u64,
    pub array_index: Option<u32>,
    pub user: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceShare {
    pub slot: u16,
    pub uuid: String,
    pub milli: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerPart {
    pub node_name: String,
    pub address: String,
    pub devices: u32,
    pub ranks: u32,
    /// Number of its group.
    pub group: u16,
}

impl RunPart {
    /// The number of the group that this node serves.
    pub fn group(&self) -> usize {
        self.peers.get(self.node_rank as usize).map_or(0, |own| usize::from(own.group))
    }

    /// Whether both mean the same work on the same devices. Addresses and leases may change.
    pub fn same_content(&self, other: &RunPart) -> bool {
        self.devices == other.devices
            && (self.rank_base, self.ranks, self.world_size) == (other.rank_base, other.ranks, other.world_size)
            && (self.node_rank, self.master_port) == (other.node_rank, other.master_port)
            && (self.launch, self.array_index) == (other.launch, other.array_index)
    }
}

impl TryFrom<wire::Desired> for Desired {
    type Error = Invalid;

    fn try_from(wire: wire::Desired) -> Result<Self, Invalid> {
        let position = wire.position.ok_or_else(|| invalid("position", "it is missing"))?;
        if wire.allocations.len() > ALLOCATIONS_MAX {
            return Err(invalid("allocations", format!("more than {ALLOCATIONS_MAX}")));
        }
        Ok(Self {
            cluster_id: wire.cluster_id,
            position: position.into(),
            epoch: wire.epoch,
            assignments: wire.allocations.into_iter().filter_map(understood).collect(),
        })
    }
}

impl From<wire::Position> for Position {
    fn from(wire: wire::Position) -> Self {
        Self { generation: wire.generation, term: wire.term, applied_index: wire.applied_index }
    }
}

impl From<Position> for wire::Position {
    fn from(position: Position) -> Self {
        Self { generation: position.generation, term: position.term, applied_index: position.applied_index }
    }
}

impl TryFrom<wire::Allocation> for Assignment {
    type Error = Invalid;

    fn try_from(wire: wire::Allocation) -> Result<Self, Invalid> {
        let (key, wanted) = named(&wire)?;
        let signal = stop_signal_of(&wire.stop_signal)?;
        let stop = StopRules { signal, grace_ms: wire.stop_grace_ms, cause: wire.stop_cause.clone() };
        let run = if wire.launch_hash.is_empty() { None } else { Some(run_part(wire)?) };
        if run.is_none() && matches!(wanted, Wanted::Prepare | Wanted::Run) {
            return Err(invalid("launch_hash", "there is nothing to run"));
        }
        Ok(Self { key, wanted, stop, run, unreadable: None })
    }
}

fn named(wire: &wire::Allocation) -> Result<(Key, Wanted), Invalid> {
    let gang = wire.gang.ok_or_else(|| invalid("gang", "it is missing"))?;
    let token = wire.token.ok_or_else(|| invalid("token", "it is missing"))?;
    let wanted = match wire.phase() {
        wire::Phase::Prepare => Wanted::Prepare,
        wire::Phase::Run => Wanted::Run,
        wire::Phase::Stop => Wanted::Stop,
        wire::Phase::Forget => Wanted::Forget,
        wire::Phase::Unspecified => return Err(invalid("phase", "it is not one this agent knows")),
    };
    Ok((Key { gang: gang.into(), attempt: AttemptNo(wire.attempt), token: token.into() }, wanted))
}

/// What means nothing must not cost this node everything else: such a part is reported as failed, or stopped if that is
/// wanted. What does not even say its name or phase is passed over, which kills nothing.
fn understood(wire: wire::Allocation) -> Option<Assignment> {
    let named = named(&wire);
    let (grace_ms, cause) = (wire.stop_grace_ms, wire.stop_cause.clone());
    let error = match Assignment::try_from(wire) {
        Ok(assignment) => return Some(assignment),
        Err(error) => error,
    };
    let Ok((key, wanted)) = named else {
        tracing::error!(%error, "a part of what the server wants is passed over");
        return None;
    };
    tracing::error!(allocation = %key, %error, "a part of what the server wants means nothing and is not begun");
    // A run of what is not here is refused, and the refusal is reported.
    let wanted = if wanted == Wanted::Prepare { Wanted::Run } else { wanted };
    let stop = StopRules { signal: None, grace_ms, cause };
    Some(Assignment { key, wanted, stop, run: None, unreadable: Some(error.to_string()) })
}

fn run_part(wire: wire::Allocation) -> Result<RunPart, Invalid> {
    let hash: [u8; 32] = wire.launch_hash[..].try_into().map_err(|_| invalid("launch_hash", "it is not 32 bytes"))?;
    if wire.ranks == 0 || wire.ranks > RANKS_PER_NODE_MAX {
        return Err(invalid("ranks", format!("{} is not within 1 and {RANKS_PER_NODE_MAX}", wire.ranks)));
    }
    if wire.rank_base.checked_add(wire.ranks).is_none_or(|end| end > wire.world_size) {
        return Err(invalid("rank_base", "ranks lie outside the gang"));
    }
    if wire.peers.len() > PEERS_MAX || wire.peers.len() <= wire.node_rank as usize {
        return Err(invalid("peers", "this node is not among them, or they are too many"));
    }
    let port = |port| u16::try_from(port).map_err(|_| invalid("master_port", "it is above 65535"));
    Ok(RunPart {
        devices: wire.devices.into_iter().map(device_share).collect::<Result<_, _>>()?,
        numa: wire.numa.into_iter().map(|node| small("numa", node)).collect::<Result<_, _>>()?,
        nics: wire.nics,
        cpu_milli: wire.cpu_milli,
        memory_bytes: wire.memory_bytes,
        rank_base: wire.rank_base,
        ranks: wire.ranks,
        world_size: wire.world_size,
        node_rank: wire.node_rank,
        peers: wire.peers.into_iter().map(peer).collect::<Result<_, _>>()?,
        master_port: port(wire.master_port)?,
        launch: Hash(hash),
        lease_ms: wire.lease_ms,
        array_index: wire.in_array.then_some(wire.array_index),
        user: wire.user,
    })
}

fn device_share(wire: wire::DeviceShare) -> Result<DeviceShare, Invalid> {
    let slot = u16::try_from(wire.slot).map_err(|_| invalid("devices.slot", "it is above 65535"))?;
    match u16::try_from(wire.milli) {
        Ok(milli @ 1..=1000) => Ok(DeviceShare { slot, uuid: wire.uuid, milli }),
        _ => Err(invalid("devices.milli", "a share is 1 to 1000")),
    }
}

fn peer(wire: wire::Peer) -> Result<PeerPart, Invalid> {
    let group = small("peers.group", wire.group)?;
    Ok(PeerPart { node_name: wire.node_name, address: wire.address, devices: wire.devices, ranks: wire.ranks, group })
}

fn small(field: &'static str, number: u32) -> Result<u16, Invalid> {
    u16::try_from(number).map_err(|_| invalid(field, "it is above 65535"))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use muster_common::JobId;

    /// An allocation of gang `job` on whole devices `slots`.
    pub fn allocation(job: u64, index: u64, phase: wire::Phase, slots: &[u32]) -> wire::Allocation {
        wire::Allocation {
            gang: Some(wire::Gang { job, ordinal: 0 }),
            attempt: 1,
            token: Some(wire::Token { generation: 1, index }),
            phase: phase.into(),
            devices: slots
                .iter()
                .map(|&slot| wire::DeviceShare { slot, uuid: format!("GPU-{slot}"), milli: 1000 })
                .collect(),
            ranks: 2,
            world_size: 4,
            rank_base: 2,
            node_rank: 1,
            peers: ["a", "b"]
                .map(|name| wire::Peer { node_name: name.into(), address: name.into(), devices: 2, ranks: 2, group: 0 })
                .to_vec(),
            master_port: 20_000,
            launch_hash: vec![7; 32].into(),
            lease_ms: 60_000,
            ..wire::Allocation::default()
        }
    }

    pub fn assignment(job: u64, index: u64, phase: wire::Phase, slots: &[u32]) -> Assignment {
        Assignment::try_from(allocation(job, index, phase, slots)).expect("valid")
    }

    #[test]
    fn nonsense_is_refused_with_its_field() {
        type Change = fn(&mut wire::Allocation);
        let changes: [(&str, Change); 9] = [
            ("gang", |it| it.gang = None),
            ("token", |it| it.token = None),
            ("phase", |it| it.phase = 99),
            ("launch_hash", |it| it.launch_hash = vec![1; 31].into()),
            ("ranks", |it| it.ranks = 0),
            ("ranks", |it| it.ranks = RANKS_PER_NODE_MAX + 1),
            ("rank_base", |it| it.rank_base = u32::MAX),
            ("peers", |it| it.node_rank = 2),
            ("devices.milli", |it| it.devices[0].milli = 1001),
        ];
        for (field, change) in changes {
            let mut wire = allocation(1, 5, wire::Phase::Prepare, &[0]);
            change(&mut wire);
            assert_eq!(Assignment::try_from(wire).expect_err(field).field, field);
        }
    }

    #[test]
    fn a_part_that_means_nothing_does_not_cost_the_others() {
        let many =
            |index, phase| wire::Allocation { ranks: 2000, world_size: 4000, ..allocation(2, index, phase, &[1]) };
        let nameless = wire::Allocation { gang: None, ..allocation(3, 7, wire::Phase::Run, &[2]) };
        let good = allocation(1, 8, wire::Phase::Prepare, &[0]);
        let allocations = vec![many(5, wire::Phase::Prepare), many(6, wire::Phase::Stop), nameless, good];
        let position = wire::Position { generation: 1, term: 1, applied_index: 9 };
        let wire = wire::Desired { cluster_id: "c".into(), position: Some(position), epoch: 1, allocations };
        let desired = Desired::try_from(wire).expect("the rest is valid");
        let seen = |it: &Assignment| (it.key.token.index, it.wanted, it.run.is_some());
        let seen: Vec<_> = desired.assignments.iter().map(seen).collect();
        assert_eq!(seen, [(5, Wanted::Run, false), (6, Wanted::Stop, false), (8, Wanted::Prepare, true)]);
    }

    #[test]
    fn a_stop_needs_no_more_than_a_name() {
        let wire = wire::Allocation { launch_hash: Vec::new().into(), ..allocation(1, 5, wire::Phase::Stop, &[]) };
        let assignment = Assignment::try_from(wire).expect("valid");
        assert_eq!((assignment.wanted, assignment.run), (Wanted::Stop, None));
        assert_eq!(assignment.key.gang, GangId::new(JobId(1), 0));
    }

    #[test]
    fn a_new_generation_is_newer_than_any_term() {
        let old = Position { generation: 1, term: 9, applied_index: 900 };
        let new = Position { generation: 2, term: 1, applied_index: 3 };
        assert!(new > old);
        assert!(new.covers(Token { generation: 1, index: 5_000 }));
        assert!(!old.covers(Token { generation: 1, index: 901 }));
    }
}
