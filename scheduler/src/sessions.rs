//! The agents connected to this server, and the way to their logs.

use crate::consensus::ConsensusHandle;
use crate::leases::LeasesHandle;
use crate::liveness::Liveness;
use crate::machine::EngineMachine;
use crate::proposer::Proposer;
use crate::reports::ReportsHandle;
use crate::session::Outgoing;
use muster_common::NodeId;
use muster_proto::agent as wire;
use muster_runtime::actor::Depth;
use muster_runtime::clock::Clock;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use thiserror::Error;
use tokio::sync::mpsc;

/// Log streams through one agent at a time.
const LOGS_PER_NODE_MAX: usize = 64;
/// Chunks on their way to one reader. A reader that lets more pile up is cut off, because the
/// control stream carries leases as well.
const CHUNKS_MAX: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LogError {
    #[error("the node's agent is not connected")]
    NotConnected,
    #[error("{LOGS_PER_NODE_MAX} log streams of this node are open already; close one")]
    TooMany,
}

/// What a session needs of the server.
pub(crate) struct Services {
    pub consensus: ConsensusHandle<EngineMachine>,
    pub proposer: Proposer,
    pub clock: Arc<dyn Clock>,
    pub liveness: Liveness,
    pub leases: LeasesHandle,
    pub reports: ReportsHandle,
    pub cluster_id: String,
}

struct Connected {
    session: u64,
    boot_id: String,
    outgoing: Outgoing,
    logs: BTreeMap<u64, mpsc::Sender<wire::LogChunk>>,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct SessionsHandle {
    pub(crate) services: Arc<Services>,
    connected: Arc<Mutex<BTreeMap<NodeId, Connected>>>,
    numbers: Arc<AtomicU64>,
}

impl SessionsHandle {
    /// Session numbers count from `first`, which must differ between servers and between lives of
    /// one server: a renewal that names another's session is none of ours.
    pub(crate) fn new(services: Services, first: u64) -> Self {
        Self { services: Arc::new(services), connected: Arc::default(), numbers: Arc::new(AtomicU64::new(first)) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Connected>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn next_session(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// The node's one session; an older one is ended.
    pub(crate) fn enter(&self, node: NodeId, session: u64, boot_id: String, outgoing: Outgoing) {
        let connected = Connected { session, boot_id, outgoing, logs: BTreeMap::new() };
        if let Some(older) = self.lock().insert(node, connected) {
            older.outgoing.end("the agent has connected again");
        }
    }

    pub(crate) fn leave(&self, node: NodeId, session: u64) {
        let mut connected = self.lock();
        if connected.get(&node).is_some_and(|now| now.session == session) {
            connected.remove(&node);
        }
    }

    /// Does another boot of the node still talk to this server?
    pub(crate) fn other_boot_connected(&self, node: NodeId, boot_id: &str) -> bool {
        self.lock().get(&node).is_some_and(|now| now.boot_id != boot_id)
    }

    /// How many agents are connected.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// How full the mailboxes behind the sessions are.
    pub fn depths(&self) -> [Depth; 2] {
        [self.services.leases.depth(), self.services.reports.depth()]
    }

    pub fn connected(&self, node: NodeId) -> bool {
        self.lock().contains_key(&node)
    }

    /// Asks the node's agent for logs. The stream ends when the agent has sent its last chunk, the
    /// agent is gone, or the receiver is dropped.
    pub async fn logs(
        &self,
        node: NodeId,
        mut request: wire::LogRequest,
    ) -> Result<mpsc::Receiver<wire::LogChunk>, LogError> {
        let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
        let mut connected = self.lock();
        let now = connected.get_mut(&node).ok_or(LogError::NotConnected)?;
        now.logs.retain(|_, reader| !reader.is_closed());
        if now.logs.len() >= LOGS_PER_NODE_MAX {
            return Err(LogError::TooMany);
        }
        request.request = self.next_session();
        now.logs.insert(request.request, sender);
        now.outgoing.try_send(wire::server_message::Body::Log(request));
        Ok(receiver)
    }

    /// Passes a chunk on. A reader that is gone, or too slow, is told to the agent.
    pub(crate) fn chunk(&self, node: NodeId, session: u64, chunk: wire::LogChunk) {
        let request = chunk.request;
        let mut connected = self.lock();
        let Some(now) = connected.get_mut(&node).filter(|now| now.session == session) else { return };
        let sent = now.logs.get(&request).map(|reader| reader.try_send(chunk));
        if matches!(sent, Some(Ok(()))) {
            return;
        }
        now.logs.remove(&request);
        let cancel = wire::LogRequest { request, cancel: true, ..Default::default() };
        now.outgoing.try_send(wire::server_message::Body::Log(cancel));
    }
}
