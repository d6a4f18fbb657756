//! The Raft type configuration and the small conversions between openraft's words and ours.

use std::any::Any;
use std::fmt;

use bytes::Bytes;
use openraft::alias::{CommittedLeaderIdOf, EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf};
use openraft::vote::RaftLeaderId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::snapshot::SnapshotFile;
use super::state_machine::Applier;

openraft::declare_raft_types!(
    /// One leader a term (`leader_id_std`), so that a term alone is a fencing token.
    pub TypeConfig:
        D = Payload,
        R = Reply,
        NodeId = u64,
        Node = Member,
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
        AsyncRuntime = super::seeded::Runtime,
);

pub(crate) type Raft = openraft::Raft<TypeConfig, Applier>;
pub(crate) type LogId = LogIdOf<TypeConfig>;
pub(crate) type Entry = EntryOf<TypeConfig>;
pub(crate) type Vote = VoteOf<TypeConfig>;
pub(crate) type StoredMembership = StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = SnapshotMetaOf<TypeConfig>;
pub(crate) type Snapshot = SnapshotOf<TypeConfig, SnapshotFile>;

/// A member of the cluster, as the replicated membership names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// As its certificate names it.
    pub name: String,
    /// Where the other servers reach it, `host:port`.
    pub addr: String,
}

/// What is replicated: bytes the consensus never looks into.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// Valid only if its log entry has this term; 0 for any term.
    pub in_term: u64,
    /// The machine's own encoding.
    pub bytes: Bytes,
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "payload of {} bytes", self.bytes.len())
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What `apply` answered. It stays in this process, so its type is erased and it is never serialised.
pub struct Reply(pub(crate) Answer);

/// The three ways an applied entry can answer its proposer.
pub(crate) enum Answer {
    /// The machine's own response.
    Machine(Box<dyn Any + Send + Sync>),
    /// The entry was bound to another term and therefore changed nothing.
    StaleTerm,
    /// A blank or membership entry.
    Nothing,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Answer::Machine(_) => "Reply(machine)",
            Answer::StaleTerm => "Reply(stale term)",
            Answer::Nothing => "Reply(nothing)",
        })
    }
}

// openraft asks for serde on the response although nothing here ever sends one.
impl Serialize for Reply {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for Reply {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <()>::deserialize(deserializer).map(|()| Reply(Answer::Nothing))
    }
}

/// A place in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogPos {
    /// The term of the entry there.
    pub term: u64,
    /// Its index; the first entry of a cluster has index 0.
    pub index: u64,
}

impl fmt::Display for LogPos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

impl LogPos {
    /// Whether an entry here continues a log that ends at `last`.
    pub(crate) fn may_follow(self, last: Option<LogPos>) -> bool {
        last.is_none_or(|last| last.index + 1 == self.index && last.term <= self.term)
    }

    pub(crate) fn of(id: &LogId) -> Self {
        LogPos { term: id.leader_id.term, index: id.index }
    }

    pub(crate) fn of_opt(id: Option<&LogId>) -> Option<Self> {
        id.map(Self::of)
    }

    pub(crate) fn log_id(self) -> LogId {
        LogId::new(leader_of(self.term), self.index)
    }
}

fn leader_of(term: u64) -> CommittedLeaderIdOf<TypeConfig> {
    // The committed id of `leader_id_std` is the term alone; the server id given here is dropped.
    openraft::impls::leader_id_std::LeaderId::new(term, 0u64).to_committed()
}

/// A vote as the log stores it. The order is the order in which votes may follow each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SavedVote {
    /// The term voted in.
    pub term: u64,
    /// Whether a quorum made the server the leader of that term.
    pub committed: bool,
    /// The server voted for.
    pub server: u64,
}

impl SavedVote {
    pub(crate) fn of(vote: &Vote) -> Self {
        let leader = vote.leader_id();
        SavedVote { term: leader.term, committed: vote.is_committed(), server: leader.voted_for }
    }

    pub(crate) fn vote(self) -> Vote {
        if self.committed { Vote::new_committed(self.term, self.server) } else { Vote::new(self.term, self.server) }
    }
}
