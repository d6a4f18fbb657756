//! The handle everything else in a server holds: propose, read, watch.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use muster_proto::peer as pb;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, ForwardReason, ForwardToLeader};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::config::ConsensusConfig;
use super::error::{ProposeError, ReadError};
use super::gather::Gather;
use super::log_store::LogStore;
use super::machine::{Machine, Viewed};
use super::network::{Lane, Net};
use super::reads::{self, Reads};
use super::refill::{self, RefillError};
use super::service::{CallerCheck, PeerService};
use super::snapshot::SnapshotStore;
use super::status::{self, Status};
use super::types::{Answer, LogPos, Payload, Raft, Reply, TypeConfig};
use super::watching::Leadership;
use crate::history::HistoryStore;
use crate::instruments::Instruments;

/// Between two tries while there is no leader.
const RETRY_MS: u64 = 10;

/// What a proposal became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied<R> {
    /// The entry's index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// What the machine answered.
    pub response: R,
}

/// Everything about a server's consensus that does not depend on the machine.
pub(crate) struct Core {
    pub(crate) raft: Raft,
    pub(crate) gather: Gather,
    pub(crate) net: Arc<Net>,
    pub(crate) disk_id: String,
    pub(crate) reads: Reads,
    pub(crate) snapshots: SnapshotStore,
    pub(crate) log: LogStore,
    pub(crate) progress: watch::Receiver<Option<LogPos>>,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) config: ConsensusConfig,
    pub(crate) stop: CancellationToken,
    pub(crate) history: OnceLock<Arc<HistoryStore>>,
}

/// A server's consensus. Cheap to clone.
pub struct ConsensusHandle<M: Machine> {
    pub(crate) core: Arc<Core>,
    pub(crate) views: watch::Receiver<Viewed<M::View>>,
}

impl<M: Machine> Clone for ConsensusHandle<M> {
    fn clone(&self) -> Self {
        ConsensusHandle { core: self.core.clone(), views: self.views.clone() }
    }
}

impl<M: Machine> ConsensusHandle<M> {
    /// Replicates a payload and answers once it is applied here.
    pub async fn propose(&self, bytes: Bytes) -> Result<Applied<M::Response>, ProposeError> {
        let limit = self.core.config.entry_bytes_max;
        self.answer(self.core.propose(Payload { in_term: 0, bytes }, limit).await)
    }

    /// The same for the few payloads that may be larger.
    pub async fn propose_large(&self, bytes: Bytes) -> Result<Applied<M::Response>, ProposeError> {
        let limit = self.core.config.large_entry_bytes_max;
        self.answer(self.core.propose(Payload { in_term: 0, bytes }, limit).await)
    }

    /// Replicates a payload that is void in any other term: refused here at once, or passed over when it is applied.
    pub async fn propose_in_term(&self, term: u64, bytes: Bytes) -> Result<Applied<M::Response>, ProposeError> {
        let now = self.core.leadership.borrow().clone();
        if now.term != term || !now.is_leader {
            return Err(ProposeError::StaleTerm { wanted: term, now: now.term });
        }
        let limit = self.core.config.entry_bytes_max;
        self.answer(self.core.propose(Payload { in_term: term, bytes }, limit).await).map_err(|error| match error {
            ProposeError::StaleTerm { now, .. } => ProposeError::StaleTerm { wanted: term, now },
            other => other,
        })
    }

    fn answer(&self, reply: Result<(LogPos, Reply), ProposeError>) -> Result<Applied<M::Response>, ProposeError> {
        let (at, reply) = reply?;
        match reply.0 {
            Answer::Machine(response) => {
                let response = response.downcast().expect("one machine answers all proposals of a server");
                Ok(Applied { index: at.index, term: at.term, response: *response })
            }
            Answer::StaleTerm => Err(ProposeError::StaleTerm { wanted: 0, now: at.term }),
            Answer::Nothing => Err(ProposeError::Unknown { why: "the entry came back empty".to_owned() }),
        }
    }

    /// Waits until this server's view includes everything acknowledged before the call, on any server. Returns the index
    /// the view includes. On a follower the leader is asked.
    pub async fn read_barrier(&self) -> Result<u64, ReadError> {
        self.core.read_barrier().await
    }

    /// The same, but only if this server leads; nobody else is asked.
    pub async fn leader_read_barrier(&self) -> Result<u64, ReadError> {
        let index = self.core.reads.index().await?;
        self.core.applied_to(index).await?;
        Ok(index)
    }

    /// What this server counts about itself.
    pub fn instruments(&self) -> &Instruments {
        &self.core.config.instruments
    }

    /// Who leads.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.core.leadership.clone()
    }

    /// The last entry applied; the view of that entry is already out.
    pub fn applied(&self) -> watch::Receiver<Option<LogPos>> {
        self.core.progress.clone()
    }

    /// The index of the last entry applied; 0 before the first.
    pub fn applied_index(&self) -> u64 {
        self.core.progress.borrow().map_or(0, |at| at.index)
    }

    /// The machine's state after the last entry applied here.
    pub fn view(&self) -> M::View {
        self.views.borrow().view.clone()
    }

    /// The state together with the entry it includes, and a way to wait for the next.
    pub fn views(&self) -> watch::Receiver<Viewed<M::View>> {
        self.views.clone()
    }

    /// Where log, snapshots and identity are.
    pub fn data_dir(&self) -> &Path {
        &self.core.config.dir
    }

    /// What this server knows of the cluster.
    pub fn status(&self) -> Status {
        status::status(&self.core)
    }

    /// Makes a snapshot of everything applied so far and waits until it is on disk.
    pub async fn snapshot_now(&self) -> Result<Option<LogPos>, ReadError> {
        let want = *self.core.progress.borrow();
        self.core.raft.trigger().snapshot().await.map_err(|_| ReadError::ShuttingDown)?;
        let mut metrics = self.core.raft.data_metrics();
        loop {
            let have = metrics.borrow_watched().snapshot.as_ref().map(LogPos::of);
            if have >= want {
                return Ok(have);
            }
            metrics.changed().await.map_err(|_| ReadError::ShuttingDown)?;
        }
    }

    /// Lets the other servers fetch from this history what theirs lack. The first call counts.
    pub fn serve_history(&self, history: Arc<HistoryStore>) {
        // A second history would be a mistake of the caller, and the first one is as good.
        let _ = self.core.history.set(history);
    }

    /// Fetches from the other servers what `history` lacks; returns how many records came. Needed after
    /// [`Machine::restore`] has noted a gap there.
    pub async fn refill_history(&self, history: &Arc<HistoryStore>) -> Result<u64, RefillError> {
        refill::refill(&self.core, history).await
    }

    /// Serves this history to the other servers and fills its gaps from theirs, until this server shuts down.
    pub async fn keep_history_whole(&self, history: Arc<HistoryStore>) {
        self.serve_history(history.clone());
        refill::keep_whole(&self.core, &history).await;
    }

    /// The service the other servers call. `check` says by the connection whether a caller is a scheduler server.
    pub fn peer_service(&self, check: CallerCheck) -> pb::peer_server::PeerServer<PeerService> {
        PeerService::server(self.core.clone(), check)
    }

    /// Waits until consensus has stopped on this server, and says why. After a failure the process must go down: a
    /// failed sync or an entry that cannot be applied is never survived.
    pub async fn stopped(&self) -> String {
        let mut metrics = self.core.raft.metrics();
        loop {
            if let Err(error) = &metrics.borrow_watched().running_state {
                return error.to_string();
            }
            if metrics.changed().await.is_err() {
                return "raft stopped".to_owned();
            }
        }
    }

    /// Stops consensus on this server and lets go of its files. The data stays.
    pub async fn shutdown(&self) {
        self.core.stop.cancel();
        if let Err(error) = self.core.raft.shutdown().await {
            tracing::warn!(%error, "consensus did not stop cleanly");
        }
        let log = self.core.log.clone();
        // Joins the engine's flush worker.
        if muster_runtime::aside::run(move || log.close()).await.is_err() {
            tracing::warn!("the log engine panicked while it was closed");
        }
    }
}

impl Core {
    pub(super) fn known_leader(&self) -> Option<(u64, String)> {
        let now = self.leadership.borrow();
        Some((now.leader?, now.leader_addr.clone()?)).filter(|(id, _)| *id != self.net.server_id)
    }

    async fn propose(&self, payload: Payload, limit: usize) -> Result<(LogPos, Reply), ProposeError> {
        let bytes = payload.bytes.len();
        if bytes > limit {
            return Err(ProposeError::TooLarge { bytes, limit });
        }
        let start = Instant::now();
        let answer_by = start + Duration::from_millis(self.config.answer_wait_ms);
        let leader_by = start + Duration::from_millis(self.config.leader_wait_ms);
        loop {
            let written = timeout_at(answer_by, self.gather.write(payload.clone())).await;
            let Ok(written) = written else {
                let why = format!("no quorum answered in {} ms", self.config.answer_wait_ms);
                return Err(ProposeError::Unknown { why });
            };
            match written {
                Ok(Ok(reply)) => return Ok((LogPos::of(&reply.log_id), reply.response)),
                Ok(Err(ClientWriteError::ForwardToLeader(forward))) => {
                    if let Some(leader) = self.other_leader(forward) {
                        return Err(ProposeError::NotLeader { leader });
                    }
                    // Rejected before it was appended, so it is safe to try again.
                    if Instant::now() >= leader_by {
                        return Err(ProposeError::NoLeader);
                    }
                    sleep(Duration::from_millis(RETRY_MS)).await;
                }
                Ok(Err(error)) => return Err(ProposeError::Unknown { why: error.to_string() }),
                Err(_) if self.stop.is_cancelled() => return Err(ProposeError::ShuttingDown),
                Err(why) => return Err(ProposeError::Unknown { why }),
            }
        }
    }

    /// The leader to go to; none if it is not known, or was this server a moment ago.
    pub(super) fn other_leader(&self, forward: ForwardToLeader<TypeConfig>) -> Option<(u64, String)> {
        // The target of a transfer does not lead yet.
        if forward.reason == ForwardReason::LeadershipTransfer {
            return None;
        }
        let (id, addr) = reads::leader(forward)?;
        (id != self.net.server_id).then(|| (id, self.net.peers.get(&id).cloned().unwrap_or(addr)))
    }

    async fn read_barrier(&self) -> Result<u64, ReadError> {
        let give_up = Instant::now() + Duration::from_millis(self.config.leader_wait_ms);
        loop {
            let error = match self.any_read_index().await {
                Ok(index) => {
                    self.applied_to(index).await?;
                    return Ok(index);
                }
                Err(ReadError::ShuttingDown) => return Err(ReadError::ShuttingDown),
                Err(error) => error,
            };
            if Instant::now() >= give_up {
                return Err(error);
            }
            sleep(Duration::from_millis(RETRY_MS)).await;
        }
    }

    async fn any_read_index(&self) -> Result<u64, ReadError> {
        let leader = match self.reads.index().await {
            Err(ReadError::NotLeader { leader: Some(leader) }) if leader.0 != self.net.server_id => leader,
            answer => return answer,
        };
        let (id, addr) = leader;
        let addr = self.net.peers.get(&id).cloned().unwrap_or(addr);
        let mut client = self.net.client(id, &addr, Lane::Heartbeat);
        let mut request = tonic::Request::new(pb::ReadIndexRequest { envelope: Some(self.net.envelope(id)) });
        let within = Duration::from_millis(self.config.leader_wait_ms);
        request.set_timeout(within);
        let no_quorum = |why: String| ReadError::NoQuorum { why };
        let reply = timeout(within, client.read_index(request)).await;
        let reply = reply.map_err(|_| no_quorum(format!("server {id} did not answer")))?;
        let reply = reply.map_err(|status| no_quorum(format!("server {id}: {}", status.message())))?;
        match reply.into_inner().outcome {
            Some(pb::read_index_reply::Outcome::Index(index)) => Ok(index),
            Some(pb::read_index_reply::Outcome::NoQuorum(why)) => Err(no_quorum(why)),
            _ => Err(ReadError::NotLeader { leader: None }),
        }
    }

    async fn applied_to(&self, index: u64) -> Result<(), ReadError> {
        let within = Duration::from_millis(self.config.answer_wait_ms);
        let mut progress = self.progress.clone();
        let there = progress.wait_for(|at| at.is_some_and(|at| at.index >= index));
        match timeout(within, there).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ReadError::ShuttingDown),
            Err(_) => Err(ReadError::Behind { index }),
        }
    }
}
