//! What an operator wants to know about the cluster's servers.

use openraft::async_runtime::WatchReceiver;
use openraft::{Instant, ServerState};
use serde::Serialize;

use super::handle::Core;
use super::types::LogPos;

/// What a server is to the cluster at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Receives the log but has no vote.
    Learner,
    /// Votes and follows.
    Follower,
    /// Stands for election.
    Candidate,
    /// Decides the order of the log.
    Leader,
    /// Has stopped for good.
    Stopped,
}

/// One member as this server sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberStatus {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Its address.
    pub addr: String,
    /// Whether it votes.
    pub voter: bool,
    /// Whether it leads.
    pub leader: bool,
    /// The last entry known to be on its disk; only the leader knows.
    pub matched: Option<u64>,
    /// Entries it lacks; only the leader knows.
    pub lag: Option<u64>,
    /// Since when the leader has heard nothing from it, in milliseconds; only the leader knows.
    pub silent_ms: Option<u64>,
}

/// One server's view of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The cluster.
    pub cluster_id: String,
    /// This server.
    pub server_id: u64,
    /// Its disk.
    pub disk_id: String,
    /// What it is at the moment.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// The leader it knows.
    pub leader: Option<u64>,
    /// The last entry of its log.
    pub last_log: Option<u64>,
    /// The last entry it knows to be committed.
    pub committed: Option<u64>,
    /// The last entry it has applied.
    pub applied: Option<u64>,
    /// The last entry in its newest snapshot.
    pub snapshot: Option<LogPos>,
    /// Entries up to here are purged.
    pub purged: Option<u64>,
    /// All members, by id.
    pub members: Vec<MemberStatus>,
    /// Why consensus has stopped on this server, if it has.
    pub stopped: Option<String>,
}

pub(crate) fn status(core: &Core) -> Status {
    let metrics = core.raft.metrics();
    let metrics = metrics.borrow_watched();
    let voters: Vec<u64> = metrics.membership_config.voter_ids().collect();
    let last_log = metrics.last_log_index;
    let heard = |id: &u64| {
        let at = metrics.heartbeat.as_ref()?.get(id)?.as_ref()?;
        Some(u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX))
    };
    let member = |(id, member): (&u64, &super::types::Member)| {
        let replicated = metrics.replication.as_ref().and_then(|peers| peers.get(id));
        let own = *id == core.net.server_id;
        let matched = if own { last_log } else { replicated.and_then(|at| at.as_ref()).map(|at| at.index) };
        let known = own || replicated.is_some();
        let next = |index: Option<u64>| index.map_or(0, |index| index + 1);
        MemberStatus {
            id: *id,
            name: member.name.clone(),
            addr: core.net.addr(*id, member).to_owned(),
            voter: voters.contains(id),
            leader: metrics.current_leader == Some(*id),
            matched: matched.filter(|_| known),
            lag: known.then(|| next(last_log).saturating_sub(next(matched))),
            silent_ms: if own { known.then_some(0) } else { heard(id) },
        }
    };
    Status {
        cluster_id: core.net.cluster_id.clone(),
        server_id: core.net.server_id,
        disk_id: core.disk_id.clone(),
        role: match metrics.state {
            ServerState::Learner => Role::Learner,
            ServerState::Follower => Role::Follower,
            ServerState::Candidate => Role::Candidate,
            ServerState::Leader => Role::Leader,
            ServerState::Shutdown => Role::Stopped,
        },
        term: metrics.current_term,
        leader: metrics.current_leader,
        last_log,
        committed: metrics.local_committed.as_ref().map(|at| at.index),
        applied: metrics.last_applied.as_ref().map(|at| at.index),
        snapshot: metrics.snapshot.as_ref().map(LogPos::of),
        purged: metrics.purged.as_ref().map(|at| at.index),
        members: metrics.membership_config.nodes().map(member).collect(),
        stopped: metrics.running_state.as_ref().err().map(|error| error.to_string()),
    }
}
