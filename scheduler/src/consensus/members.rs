//! Which servers there are: forming the cluster, adding, promoting and removing servers, and handing leadership over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_proto::peer as pb;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, InitializeError, RaftError};
use openraft::{ChangeMembers, Precondition};
use tokio::time::timeout;

use super::error::MembershipError;
use super::handle::{ConsensusHandle, Core};
use super::machine::Machine;
use super::network::Lane;
use super::types::{Member, TypeConfig};

const IDENTIFY_MS: u64 = 3_000;

impl<M: Machine> ConsensusHandle<M> {
    /// Forms the cluster. Called once in its life, on one server; `members` are all first voters.
    pub async fn initialize(&self, members: BTreeMap<u64, Member>) -> Result<(), MembershipError> {
        match self.core.raft.initialize(members).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Err(MembershipError::AlreadyInitialised),
            Err(RaftError::APIError(error)) => Err(MembershipError::Refused { why: error.to_string() }),
            Err(RaftError::Fatal(_)) => Err(MembershipError::ShuttingDown),
        }
    }

    /// The id of the server that answers at an address and may be added: running, of this cluster, and new, or a member
    /// already.
    pub async fn newcomer_at(&self, addr: &str) -> Result<u64, MembershipError> {
        let reply = self.core.identify(0, addr).await?;
        self.core.check_newcomer(reply.server_id, addr, &reply)?;
        Ok(reply.server_id)
    }

    /// The lowest id that no server has had as far as this one knows: ids are never given twice.
    pub fn next_server_id(&self) -> u64 {
        let metrics = self.core.raft.metrics();
        let metrics = metrics.borrow_watched();
        let members = metrics.membership_config.nodes().map(|(id, _)| *id);
        members.chain([self.core.net.server_id, self.core.net.identity.highest_met()]).max().unwrap_or(0) + 1
    }

    /// Adds a server that receives the log but does not vote yet; with `wait`, returns once it has nearly all of it. It
    /// must be running, of this cluster, and new: one that has voted before is refused.
    pub async fn add_learner(&self, id: u64, member: Member, wait: bool) -> Result<(), MembershipError> {
        let reply = self.core.identify(id, &member.addr).await?;
        self.core.check_newcomer(id, &member.addr, &reply)?;
        let met = self.core.net.identity.meet(id, &reply.disk_id);
        met.map_err(|error| MembershipError::Unfit { id, addr: member.addr.clone(), why: error.to_string() })?;
        let added = self.core.raft.add_learner(id, member, wait).await;
        added.map(drop).map_err(|error| self.core.not_changed(error))
    }

    /// Takes a server out that has no vote.
    pub async fn remove_learner(&self, id: u64) -> Result<(), MembershipError> {
        self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id]))).await
    }

    /// Makes exactly these servers the voters; each new one must have been added as a learner. Others leave the cluster.
    pub async fn change_membership(&self, voters: BTreeSet<u64>) -> Result<(), MembershipError> {
        self.change(ChangeMembers::ReplaceAllVoters(voters)).await
    }

    async fn change(&self, change: ChangeMembers<u64, Member>) -> Result<(), MembershipError> {
        let known = *self.core.raft.metrics().borrow_watched().membership_config.log_id();
        // Two changes at once could otherwise interleave.
        let only_if = [Precondition::LastMembershipLogId { last_membership_log_id: known }];
        let changed = self.core.raft.change_membership_if(change, false, only_if).await;
        changed.map(drop).map_err(|error| self.core.not_changed(error))
    }

    /// Asks server `to` to lead, and waits until this server has seen another leader. Leader only.
    pub async fn transfer_leader(&self, to: u64) -> Result<(), MembershipError> {
        let mut leadership = self.leadership();
        if !leadership.borrow().is_leader {
            let leader = self.core.known_leader();
            return Err(MembershipError::NotLeader { leader });
        }
        self.core.raft.trigger().transfer_leader(to).await.map_err(|_| MembershipError::ShuttingDown)?;
        let within = Duration::from_millis(self.core.config.leader_wait_ms);
        let moved = timeout(within, leadership.wait_for(|now| now.leader == Some(to))).await;
        match moved {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(MembershipError::ShuttingDown),
            Err(_) => Err(MembershipError::Refused { why: format!("server {to} did not take over in time") }),
        }
    }
}

impl Core {
    async fn identify(&self, id: u64, addr: &str) -> Result<pb::IdentifyReply, MembershipError> {
        let unfit = |why: String| MembershipError::Unfit { id, addr: addr.to_owned(), why };
        let mut client = self.net.client(id, addr, Lane::Heartbeat);
        let request = pb::IdentifyRequest { cluster_id: self.net.cluster_id.clone(), source_id: self.net.server_id };
        let reply = timeout(Duration::from_millis(IDENTIFY_MS), client.identify(request)).await;
        let reply = reply.map_err(|_| unfit(format!("it did not answer in {IDENTIFY_MS} ms")))?;
        Ok(reply.map_err(|status| unfit(status.message().to_owned()))?.into_inner())
    }

    fn check_newcomer(&self, id: u64, addr: &str, reply: &pb::IdentifyReply) -> Result<(), MembershipError> {
        let unfit = |why: String| MembershipError::Unfit { id, addr: addr.to_owned(), why };
        if reply.server_id != id {
            return Err(unfit(format!("server {} answers there", reply.server_id)));
        }
        let known = self.net.identity.disk_of(id);
        if !known.is_empty() && known != reply.disk_id {
            return Err(unfit("another disk has had this id before; ids are never used again".to_owned()));
        }
        let member = self.raft.metrics().borrow_watched().membership_config.get_node(&id).is_some();
        if reply.has_voted && !member {
            return Err(unfit("it has voted before; start it with a new id and an empty folder".to_owned()));
        }
        Ok(())
    }

    fn not_changed(&self, error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> MembershipError {
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
                MembershipError::NotLeader { leader: self.other_leader(forward) }
            }
            RaftError::APIError(error) => MembershipError::Refused { why: error.to_string() },
            RaftError::Fatal(_) => MembershipError::ShuttingDown,
        }
    }
}
