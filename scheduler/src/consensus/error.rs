//! What can go wrong, told so that the caller knows whether to go elsewhere, try again, or stop.

use std::io;
use std::path::PathBuf;

use super::identity::IdentityError;
use super::snapshot::SnapshotError;
use super::wal::OpenError;

/// Why a server could not start. None of these is cured by trying again.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting that cannot work.
    #[error("consensus setting {setting}: {why}")]
    Config {
        /// Its name.
        setting: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The data folder cannot be made.
    #[error("cannot make the folder {}: {cause}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The folder belongs to someone else, or the log in it was lost.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The snapshots cannot be used.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The state cannot be rebuilt from snapshot and log.
    #[error("the state cannot be rebuilt from the snapshot and the log in {}: {why}", dir.display())]
    Recovery {
        /// The data folder.
        dir: PathBuf,
        /// What openraft or the machine said.
        why: String,
    },
}

/// Why a proposal has no answer.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProposeError {
    /// Another server leads; nothing was appended here. Propose there.
    #[error("server {} leads at {}; this one does not", leader.0, leader.1)]
    NotLeader {
        /// Its id and address.
        leader: (u64, String),
    },
    /// No server led for the whole time a proposal is retried; nothing was appended.
    #[error("the cluster has no leader at the moment; try again, and see `muster cluster status` if it stays so")]
    NoLeader,
    /// The term the proposal was bound to is over; nothing was changed.
    #[error("this server no longer leads in term {wanted} (now {now})")]
    StaleTerm {
        /// The term asked for.
        wanted: u64,
        /// The present one.
        now: u64,
    },
    /// The payload is over the limit; nothing was appended.
    #[error("the entry has {bytes} bytes; the limit is {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// This server is going down; nothing is known to have been appended.
    #[error("this server is shutting down; ask another one")]
    ShuttingDown,
    /// The entry was appended, but whether it will be committed is not known. Repeat it with the same key.
    #[error("the outcome of the proposal is unknown: {why}; repeat it with the same idempotency key")]
    Unknown {
        /// What happened.
        why: String,
    },
}

/// Why a read has no barrier.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReadError {
    /// This server does not lead.
    #[error("this server does not lead{}", leader.as_ref().map(|(id, addr)| format!("; server {id} at {addr} does")).unwrap_or_default())]
    NotLeader {
        /// Who does, if it is known.
        leader: Option<(u64, String)>,
    },
    /// No quorum confirmed a leader in time.
    #[error("no quorum confirmed the leader in time: {why}; try again, and see `muster cluster status` if it stays so")]
    NoQuorum {
        /// What was heard.
        why: String,
    },
    /// The barrier is known, but this server has not applied that far in time.
    #[error("this server has not applied entry {index} in time; ask another one")]
    Behind {
        /// The entry a read must include.
        index: u64,
    },
    /// This server is going down.
    #[error("this server is shutting down; ask another one")]
    ShuttingDown,
}

/// Why the set of servers could not be changed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum MembershipError {
    /// Another server leads, or none.
    #[error("this server does not lead{}", leader.as_ref().map(|(id, addr)| format!("; ask server {id} at {addr}")).unwrap_or_default())]
    NotLeader {
        /// Who does, if it is known.
        leader: Option<(u64, String)>,
    },
    /// The cluster has been initialised before.
    #[error("this cluster is already initialised; add servers to it instead")]
    AlreadyInitialised,
    /// The server to add is not fit to be added.
    #[error("server {id} at {addr} cannot be added: {why}")]
    Unfit {
        /// Its id.
        id: u64,
        /// Its address.
        addr: String,
        /// What is wrong.
        why: String,
    },
    /// Refused by the consensus itself, e.g. because another change is under way.
    #[error("the members cannot be changed now: {why}")]
    Refused {
        /// What it said.
        why: String,
    },
    /// This server is going down.
    #[error("this server is shutting down; ask another one")]
    ShuttingDown,
}
