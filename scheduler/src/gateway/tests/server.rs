//! One real server in this process: consensus on a disk in memory, history on a real one, and the
//! coordinator; agents are played by the test.

use super::fixture::{fabric, principal, registration};
use super::roles::connection;
use crate::config::ElasticConfig;
use crate::consensus::{Consensus, ConsensusConfig, Lane, MemDisk, Member, PeerConnector};
use crate::context::{Context, MemberInfo, ServerName};
use crate::coordinator::Coordinator;
use crate::elastic::Switcher;
use crate::gateway::Gateway;
use crate::heartbeats::Heartbeats;
use crate::history::HistoryStore;
use crate::leases::Leases;
use crate::liveness::Liveness;
use crate::machine::EngineMachine;
use crate::proposer::Proposer;
use crate::reports::Reports;
use crate::sessions::{Services, SessionsHandle};
use crate::watch::WatchHandle;
use muster_common::{GangId, NodeId};
use muster_engine::command::{ConfigChange, Exit, NodeReport, ReportBody};
use muster_engine::state::gang::GangState;
use muster_engine::{Command, Response as Applied};
use muster_runtime::clock::{Clock, SystemClock};
use muster_runtime::identity::{Authority, Credentials, LEAF_VALID_MS, Name, Role, Sans, TlsNetwork};
use muster_runtime::shutdown::Shutdown;
use muster_runtime::supervisor::Supervisor;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::timeout;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

const DEADLINE: Duration = Duration::from_secs(30);

/// There is nobody else to reach.
struct Alone;

impl PeerConnector for Alone {
    fn channel(&self, _id: u64, _addr: &str, _lane: Lane) -> Channel {
        Endpoint::from_static("http://127.0.0.1:1").connect_lazy()
    }
}

pub struct Server {
    pub gateway: Gateway,
    pub ctx: Arc<Context>,
    shutdown: Shutdown,
    supervisor: Supervisor,
    /// Until it is begun.
    coordinator: Mutex<Option<Coordinator>>,
    _dir: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

/// Fails the test if `what` takes longer than the deadline.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

impl Server {
    /// Leads a cluster of one, with `nodes` nodes of two devices.
    pub async fn start(nodes: usize) -> Self {
        let server = Self::start_without_time(nodes).await;
        server.begin();
        server
    }

    /// The same, with a hook that switches machines.
    pub async fn start_with(nodes: usize, elastic: ElasticConfig) -> Self {
        let server = Self::start_without(nodes, Some(elastic.clone())).await;
        let switcher = Switcher {
            consensus: server.ctx.consensus.clone(),
            proposer: server.ctx.proposer.clone(),
            sessions: server.ctx.sessions.clone(),
            clock: server.ctx.clock.clone(),
            cluster: "dev".into(),
            config: Some(elastic),
        };
        server.supervisor.spawn("elastic", switcher.run(server.shutdown.clone()));
        server.begin();
        server
    }

    /// The same, whose cluster does not know yet what time it is.
    pub async fn start_without_time(nodes: usize) -> Self {
        Self::start_without(nodes, None).await
    }

    async fn start_without(nodes: usize, elastic: Option<ElasticConfig>) -> Self {
        Self::start_on(nodes, elastic, Arc::new(SystemClock)).await
    }

    /// The same on another clock.
    pub async fn start_on(nodes: usize, elastic: Option<ElasticConfig>, clock: Arc<dyn Clock>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let history = Arc::new(HistoryStore::open(&dir.path().join("history")).unwrap());
        let watch = WatchHandle::default();
        let machine = EngineMachine::new(history.clone(), watch.clone());
        let config = ConsensusConfig::new("dev", 1, dir.path().to_owned());
        let engine = Box::new(MemDisk::new().open());
        let consensus = Consensus::start_on(config, engine, machine, Arc::new(Alone)).await.unwrap();
        let proposer = Proposer::new(consensus.clone(), clock.clone());
        let liveness = Liveness::default();
        let (leases, _) = Leases::new(consensus.clone(), liveness.clone());
        let (reports, _) = Reports::new(proposer.clone(), clock.clone());
        let shutdown = Shutdown::new();
        let supervisor = Supervisor::new(shutdown.clone(), clock.clone());
        let of_wall = clock.clone();
        let clocks = Arc::new(move || -> futures::future::BoxFuture<'static, Vec<u64>> {
            let clock = of_wall.clone();
            Box::pin(async move { vec![clock.wall_ms()] })
        });
        let (shadow, _) = crate::shadow::ShadowHandle::new();
        let coordinator =
            Coordinator::new(consensus.clone(), proposer.clone(), clock.clone(), clocks, "dev".into(), shadow.clone());
        let heartbeats = Heartbeats::new(clock.clone());
        let services = Services {
            consensus: consensus.clone(),
            proposer: proposer.clone(),
            clock: clock.clone(),
            liveness,
            leases,
            reports,
            heartbeats: heartbeats.clone(),
            datagrams: None,
            cluster_id: "dev".into(),
        };
        let sessions = SessionsHandle::new(services, 1);
        let now_ms = clock.wall_ms();
        let authority = Authority::create("dev", now_ms).unwrap();
        let name = Name::new("dev", Role::Server, "s1").unwrap();
        let identity = authority.issue(&name, &Sans::default(), now_ms, LEAF_VALID_MS).unwrap();
        let address = "127.0.0.1:1".to_owned();
        let members = BTreeMap::from([(1, MemberInfo { name: "s1".into(), address: address.clone() })]);
        let ctx = Arc::new(Context {
            consensus: consensus.clone(),
            proposer,
            history,
            decisions: None,
            watch,
            shadow,
            sessions,
            heartbeats,
            clock,
            network: Arc::new(TlsNetwork),
            elastic,
            credentials: Credentials::new(identity),
            server: ServerName { id: 1, name: "s1".into(), address: address.clone() },
            members,
            version: "0.0.0-test",
        });
        let alone = Member { name: "s1".into(), addr: address };
        consensus.initialize(BTreeMap::from([(1, alone)])).await.unwrap();
        let mut leadership = consensus.leadership();
        within("a leader", leadership.wait_for(|now| now.first_index_of_term_applied)).await.unwrap();
        let (gateway, coordinator) = (Gateway::new(ctx.clone()), Mutex::new(Some(coordinator)));
        let server = Self { gateway, ctx, shutdown, supervisor, coordinator, _dir: dir };
        // The coordinator does so too, later; before it the cluster is at no feature level.
        let change = Box::new(ConfigChange::Cluster { id: "dev".into() });
        server.propose(Command::Configure { change, by: principal("root") }).await;
        server.propose(fabric()).await;
        for n in 1..=nodes {
            server.propose(Command::RegisterNode(Box::new(registration(&format!("n{n}"), 2)))).await;
        }
        server
    }

    /// From now on it leads in earnest.
    pub fn begin(&self) {
        if let Some(coordinator) = self.coordinator.lock().unwrap().take() {
            self.supervisor.spawn("coordinator", coordinator.run(self.shutdown.clone()));
        }
    }

    pub async fn propose(&self, command: Command) -> Applied {
        within("a proposal", self.ctx.proposer.propose(command)).await.unwrap().response
    }

    /// A call by a certificate of that role; its name is `the-<role>`.
    pub fn call<T>(role: Role, message: T) -> Request<T> {
        let mut request = Request::new(message);
        // Never expires while the test runs.
        let mut info = connection(Some(role));
        info.peer.as_mut().unwrap().not_after_ms = u64::MAX;
        request.extensions_mut().insert(info);
        request
    }

    /// Waits until the gang is in a state, and plays no agent meanwhile.
    pub async fn until(&self, gang: GangId, what: &str, is: impl Fn(Option<&GangState>) -> bool) {
        let mut views = self.ctx.consensus.views();
        let seen = views.wait_for(|viewed| is(viewed.view.gang(gang).map(|gang| &gang.state)));
        within(what, seen).await.unwrap();
    }

    /// Plays the agents: prepares every part, so that the gang runs.
    pub async fn prepare(&self, gang: GangId) {
        self.until(gang, "a placement", |state| matches!(state, Some(GangState::Starting(_)))).await;
        for node in self.nodes_of(gang) {
            self.report(node, gang, ReportBody::Prepared).await;
        }
    }

    /// Every rank ends alike, and everything is released.
    pub async fn finish(&self, gang: GangId, exit: Exit) {
        for node in self.nodes_of(gang) {
            let view = self.ctx.view();
            let Some(attempt) = view.gang(gang).and_then(|gang| gang.current()) else { return };
            let part = &attempt.parts[attempt.part_on(node).unwrap()];
            for rank in part.rank_base..part.rank_base + part.ranks {
                self.report(node, gang, ReportBody::Exited { rank, exit, why: String::new() }).await;
            }
        }
        for node in self.nodes_of(gang) {
            self.report(node, gang, ReportBody::Released { lease_expired: false }).await;
        }
    }

    fn nodes_of(&self, gang: GangId) -> Vec<NodeId> {
        let view = self.ctx.view();
        let attempt = view.gang(gang).and_then(|gang| gang.current());
        attempt.map(|attempt| attempt.parts.iter().map(|part| part.node).collect()).unwrap_or_default()
    }

    async fn report(&self, node: NodeId, gang: GangId, body: ReportBody) {
        let view = self.ctx.view();
        let attempt = view.gang(gang).and_then(|gang| gang.current()).unwrap();
        let record = view.node(node).unwrap();
        let report = NodeReport {
            node,
            epoch: record.epoch,
            number: record.reports_applied + 1,
            gang,
            attempt: attempt.number,
            token: attempt.token,
            body,
        };
        self.propose(Command::Reports { reports: vec![report] }).await;
    }
}
