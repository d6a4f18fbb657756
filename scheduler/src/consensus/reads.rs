//! Read barriers on the leader, many readers to one round.

use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::error::ReadError;
use super::types::{Raft, TypeConfig};

const WAITING_MAX: usize = 4096;

type Answer = Result<u64, ReadError>;

/// Asks a quorum whether this server still leads. Readers that come while a round is under way share the next one: a
/// round only counts for those who were there when it began.
#[derive(Clone)]
pub(crate) struct Reads(mpsc::Sender<oneshot::Sender<Answer>>);

impl Reads {
    pub(crate) fn start(raft: Raft, stop: CancellationToken) -> Self {
        let (tx, rx) = mpsc::channel(WAITING_MAX);
        tokio::spawn(run(raft, rx, stop));
        Reads(tx)
    }

    /// The index a read must include, confirmed by a quorum after this call.
    pub(crate) async fn index(&self) -> Answer {
        let (tx, rx) = oneshot::channel();
        self.0.send(tx).await.map_err(|_| ReadError::ShuttingDown)?;
        rx.await.unwrap_or(Err(ReadError::ShuttingDown))
    }
}

async fn run(raft: Raft, mut waiting: mpsc::Receiver<oneshot::Sender<Answer>>, stop: CancellationToken) {
    let mut readers = Vec::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            count = waiting.recv_many(&mut readers, WAITING_MAX) => if count == 0 { return },
        }
        let answer = round(&raft).await;
        for reader in readers.drain(..) {
            // A reader that has gone away needs no answer.
            let _ = reader.send(answer.clone());
        }
    }
}

async fn round(raft: &Raft) -> Answer {
    match raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
        Ok(linearizer) => Ok(linearizer.read_log_id().log_id().index),
        Err(RaftError::Fatal(_)) => Err(ReadError::ShuttingDown),
        Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
            Err(ReadError::NotLeader { leader: leader(forward) })
        }
        Err(RaftError::APIError(error @ LinearizableReadError::QuorumNotEnough(_))) => {
            Err(ReadError::NoQuorum { why: error.to_string() })
        }
    }
}

pub(crate) fn leader(forward: openraft::errors::ForwardToLeader<TypeConfig>) -> Option<(u64, String)> {
    // A lease that ran out is no other server's leadership: nobody is known to lead.
    if forward.reason == openraft::errors::ForwardReason::LeaseExpired {
        return None;
    }
    Some((forward.leader_id?, forward.leader_node?.addr))
}
