//! The cluster as a whole.

use super::node;
use crate::consensus::{MemberStatus, Status};
use crate::context::MemberInfo;
use muster_engine::State;
use muster_engine::state::gang::GangState;
use muster_engine::state::node::Liveness;
use muster_proto::client as pb;
use std::collections::BTreeMap;

/// Jobs by what their gangs do; a job that has gangs in several states counts once, as it is listed.
pub fn jobs(state: &State) -> pb::JobCounts {
    let mut counts = pb::JobCounts::default();
    let mut words: BTreeMap<u64, Vec<&GangState>> = BTreeMap::new();
    for (gang, record) in state.gangs().iter() {
        words.entry(gang.job.0).or_default().push(&record.state);
    }
    for job in state.jobs().values() {
        let gangs = words.get(&job.id.0).map_or(&[][..], Vec::as_slice);
        let array = state.scheduling(job).array.is_some();
        let active = gangs.iter().find(|state| !matches!(state, GangState::Queued { .. }));
        counts.held += u64::from(job.held);
        match active {
            None => counts.queued += 1,
            Some(_) if array => counts.running += 1,
            Some(GangState::Starting(_)) => counts.starting += 1,
            Some(GangState::Stopping(..)) => counts.stopping += 1,
            Some(_) => counts.running += 1,
        }
    }
    counts
}

pub fn nodes(state: &State) -> pb::NodeCounts {
    let mut counts = pb::NodeCounts::default();
    for node in state.nodes().values() {
        counts.total += 1;
        match node.liveness {
            Liveness::Up => counts.up += 1,
            Liveness::Silent { .. } => counts.silent += 1,
            Liveness::Fenced { .. } => counts.fenced += 1,
        }
        counts.closed += u32::from(node.closed.is_some());
    }
    counts
}

pub fn devices(state: &State) -> pb::DeviceCounts {
    node::counts(state.nodes().values())
}

/// `default@3`: the order and the version of the configuration it came with.
pub fn policy(state: &State) -> String {
    let order = state.policy().order.word();
    format!("{order}@{}", state.config_version())
}

/// What consensus says of a server; `state` stays what it was when it is asked for more.
pub fn member(status: &MemberStatus, known: Option<&MemberInfo>) -> pb::Member {
    let state = match (status.leader, status.voter) {
        (true, _) => "leader",
        (false, true) => "follower",
        (false, false) => "learner",
    };
    pb::Member {
        id: status.id,
        name: known.map_or_else(|| status.name.clone(), |known| known.name.clone()),
        address: known.map_or_else(|| status.addr.clone(), |known| known.address.clone()),
        state: state.into(),
        matched_index: status.matched,
        lag: status.lag,
        version: String::new(),
        voter: status.voter,
    }
}

/// Everything but what has to be asked of other servers.
pub fn status(state: &State, consensus: &Status, members: &BTreeMap<u64, MemberInfo>) -> pb::ClusterStatusReply {
    let leader = consensus.members.iter().find(|member| Some(member.id) == consensus.leader);
    let address = |member: &MemberStatus| {
        members.get(&member.id).map_or_else(|| member.addr.clone(), |known| known.address.clone())
    };
    let own = consensus.members.iter().find(|member| member.id == consensus.server_id);
    let own = own.map(|own| member(own, members.get(&own.id)));
    let cluster = state.cluster();
    pb::ClusterStatusReply {
        cluster_id: if cluster.id.is_empty() { consensus.cluster_id.clone() } else { cluster.id.clone() },
        server_id: consensus.server_id,
        server_name: own.map(|own| own.name).unwrap_or_default(),
        leader_id: consensus.leader.unwrap_or(0),
        leader_address: leader.map(address).unwrap_or_default(),
        term: consensus.term,
        applied_index: state.applied_index(),
        committed_index: consensus.committed.unwrap_or(0),
        generation: cluster.generation,
        feature_level: cluster.feature_level,
        state_hash: state.hash().to_string(),
        now_ms: state.now().0,
        members: consensus.members.iter().map(|status| member(status, members.get(&status.id))).collect(),
        jobs: Some(jobs(state)),
        nodes: Some(nodes(state)),
        devices: Some(devices(state)),
        config_version: state.config_version(),
        policy: policy(state),
        snapshot_index: consensus.snapshot.map_or(0, |at| at.index),
        heartbeats: None,
        next_server_id: 0,
        condition: None,
    }
}
