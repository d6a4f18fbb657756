//! The agents connected to this server, and the way to their logs.

use crate::consensus::ConsensusHandle;
use crate::heartbeats::{self, Heartbeats};
use crate::leases::{Answer, LeasesHandle, Renewed};
use crate::liveness::Liveness;
use crate::machine::EngineMachine;
use crate::news::News;
use crate::proposer::Proposer;
use crate::reports::ReportsHandle;
use crate::session::{Outgoing, inventory_of, see_node_back};
use crate::translate;
use muster_common::NodeId;
use muster_common::node::Inventory;
use muster_engine::State;
use muster_proto::agent as wire;
use muster_proto::datagram::{Renewal, Sample};
use muster_runtime::actor::Depth;
use muster_runtime::clock::Clock;
use muster_runtime::datagram::DatagramConnection;
use std::collections::{BTreeMap, BTreeSet};
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
    pub heartbeats: Heartbeats,
    /// Where this server takes datagrams; `None` when it takes none.
    pub datagrams: Option<wire::Datagrams>,
    pub cluster_id: String,
}

/// One agent's session of this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    pub node: NodeId,
    pub epoch: u64,
    pub session: u64,
}

struct Connected {
    member: Member,
    /// As in the agent's certificate.
    name: String,
    boot_id: String,
    /// What the agent registered with.
    inventory: Arc<Inventory>,
    outgoing: Outgoing,
    logs: BTreeMap<u64, mpsc::Sender<wire::LogChunk>>,
}

#[derive(Default)]
struct Table {
    by_node: BTreeMap<NodeId, Connected>,
    /// Nodes by the number of their session.
    by_session: BTreeMap<u64, NodeId>,
}

impl Table {
    fn of_session(&self, node: NodeId, session: u64) -> Option<&Connected> {
        self.by_node.get(&node).filter(|now| now.member.session == session)
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub struct SessionsHandle {
    pub(crate) services: Arc<Services>,
    connected: Arc<Mutex<Table>>,
    numbers: Arc<AtomicU64>,
    news: Arc<News>,
}

impl SessionsHandle {
    /// Session numbers count from `first`, which must differ between servers and between lives of
    /// one server: a renewal that names another's session is none of ours.
    pub(crate) fn new(services: Services, first: u64) -> Self {
        let news = Arc::new(News::from(services.consensus.view()));
        Self { services: Arc::new(services), connected: Arc::default(), numbers: Arc::new(AtomicU64::new(first)), news }
    }

    /// What agents are to be told from.
    pub(crate) fn view(&self) -> Arc<State> {
        self.news.view()
    }

    /// Has agents told of `view`, those whom it concerns.
    pub(crate) fn go_on_to(&self, view: Arc<State>) {
        self.news.go_on_to(view, self);
    }

    pub(crate) fn wake_all(&self) {
        self.lock().by_node.values().for_each(|now| now.outgoing.wake());
    }

    pub(crate) fn wake(&self, nodes: &BTreeSet<NodeId>) {
        let table = self.lock();
        nodes.iter().filter_map(|node| table.by_node.get(node)).for_each(|now| now.outgoing.wake());
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn next_session(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// The node's one session; an older one is ended.
    pub(crate) fn enter(
        &self,
        member: Member,
        name: String,
        boot_id: String,
        inventory: Arc<Inventory>,
        outgoing: Outgoing,
    ) {
        let connected = Connected { member, name, boot_id, inventory, outgoing, logs: BTreeMap::new() };
        let mut table = self.lock();
        if let Some(older) = table.by_node.insert(member.node, connected) {
            table.by_session.remove(&older.member.session);
            older.outgoing.end("the agent has connected again");
        }
        table.by_session.insert(member.session, member.node);
    }

    pub(crate) fn leave(&self, node: NodeId, session: u64) {
        let mut table = self.lock();
        if table.of_session(node, session).is_some() {
            table.by_node.remove(&node);
            table.by_session.remove(&session);
        }
    }

    /// Does another boot of the node still talk to this server?
    pub(crate) fn other_boot_connected(&self, node: NodeId, boot_id: &str) -> bool {
        self.lock().by_node.get(&node).is_some_and(|now| now.boot_id != boot_id)
    }

    /// Has the node's agent connect again, if it is connected.
    pub(crate) fn end(&self, node: NodeId, why: &'static str) {
        if let Some(now) = self.lock().by_node.get(&node) {
            now.outgoing.end(why);
        }
    }

    /// How many agents are connected.
    pub fn count(&self) -> usize {
        self.lock().by_node.len()
    }

    /// How full the mailboxes behind the sessions are.
    pub fn depths(&self) -> [Depth; 2] {
        [self.services.leases.depth(), self.services.reports.depth()]
    }

    pub fn connected(&self, node: NodeId) -> bool {
        self.lock().by_node.contains_key(&node)
    }

    /// A renewal of a session of this server, by whichever way it came. `named` is the session that
    /// it names itself.
    pub(crate) fn renew(&self, member: Member, named: u64, number: u64, answer: Answer) {
        let Member { node, epoch, session } = member;
        if named == session {
            see_node_back(self, member, &self.services.consensus.view());
        }
        self.services.leases.renew(Renewed { node, epoch, named, session, number, answer });
    }

    /// The session of that number, if it is of this server and of the node in the certificate.
    fn of_certificate(&self, name: &str, session: u64) -> Option<(Member, Outgoing)> {
        let table = self.lock();
        let node = table.by_session.get(&session)?;
        let now = table.by_node.get(node)?;
        (now.name == name && !now.outgoing.is_over()).then(|| (now.member, now.outgoing.clone()))
    }

    /// False when the session it names is not one of this server with the node of that name: a sign
    /// of life for nobody, and never answered as a renewal.
    pub(crate) fn renew_by_datagram(&self, name: &str, renewal: Renewal, connection: &DatagramConnection) -> bool {
        let Some((member, outgoing)) = self.of_certificate(name, renewal.session) else { return false };
        self.services.liveness.heard(member.node, self.services.clock.boottime_ms());
        self.services.heartbeats.renewed_by_datagram(member.node);
        let answer = Answer { outgoing, datagrams: Some(connection.clone()) };
        self.renew(member, renewal.session, renewal.number, answer);
        true
    }

    /// False when the session is not one of this server with the node of that name.
    pub(crate) fn sampled_by_datagram(&self, name: &str, session: u64, samples: &[Sample]) -> bool {
        let Some((member, _)) = self.of_certificate(name, session) else { return false };
        let registered = self.lock().of_session(member.node, session).map(|now| now.inventory.clone());
        let known = inventory_of(&self.services, member.node);
        let (Some(registered), Some(known)) = (registered, known) else { return true };
        let samples = translate::samples_in_states_slots(samples, &registered, &known);
        let slots = heartbeats::slots_of(&self.services.consensus, member.node);
        self.services.heartbeats.sampled(member.node, &samples, slots);
        true
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
        let now = connected.by_node.get_mut(&node).ok_or(LogError::NotConnected)?;
        let outgoing = &now.outgoing;
        now.logs.retain(|request, reader| {
            let reads = !reader.is_closed();
            if !reads {
                // The agent, too, has room for only so many, and hears of nobody who left a quiet rank.
                outgoing.try_send(wire::server_message::Body::Log(cancelled(*request)));
            }
            reads
        });
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
        let Some(now) = connected.by_node.get_mut(&node).filter(|now| now.member.session == session) else { return };
        let sent = now.logs.get(&request).map(|reader| reader.try_send(chunk));
        if matches!(sent, Some(Ok(()))) {
            return;
        }
        now.logs.remove(&request);
        now.outgoing.try_send(wire::server_message::Body::Log(cancelled(request)));
    }
}

fn cancelled(request: u64) -> wire::LogRequest {
    wire::LogRequest { request, cancel: true, ..Default::default() }
}
