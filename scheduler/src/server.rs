//! A scheduler server: wires the actors, serves one port, stops when one of them cannot go on.

use crate::agents::AgentsService;
use crate::certificate::{self, OwnCertificate};
use crate::config::{ServerConfig, ServerConfigError};
use crate::consensus::{
    CallerCheck, Consensus, ConsensusConfig, ConsensusHandle, Lane, Member, MembershipError, PeerConnector, StartError,
};
use crate::context::{Context, MemberInfo, ServerName};
use crate::coordinator::{Coordinator, WallClocks};
use crate::decisions::DecisionLog;
use crate::door::Door;
use crate::elastic::Switcher;
use crate::farewell;
use crate::gateway::Gateway;
use crate::gateway::hurry::Hurried;
use crate::health::{Health, any_certificate};
use crate::heartbeats::{DatagramPort, Heartbeats};
use crate::history::HistoryStore;
use crate::leases::Leases;
use crate::liveness::Liveness;
use crate::machine::EngineMachine;
use crate::metrics::{self, Metrics};
use crate::news;
use crate::proposer::Proposer;
use crate::reports::Reports;
use crate::seams::Seams;
use crate::sessions::{Services, SessionsHandle};
use crate::shadow::ShadowHandle;
use crate::silence::SilenceObserver;
use crate::watch::WatchHandle;
use muster_proto::CLIENT_DESCRIPTORS;
use muster_proto::agent::Datagrams;
use muster_proto::agent::agents_server::AgentsServer;
use muster_proto::client::muster_server::MusterServer;
use muster_proto::datagram;
use muster_runtime::clock::{Clock, SystemClock};
use muster_runtime::datagram::{DatagramLimits, DatagramListener};
use muster_runtime::identity::{
    self, Authority, ConnectInfo, Credentials, Expect, Identity, IdentityError, ListenLimits, Network, Role,
};
use muster_runtime::shutdown::Shutdown;
use muster_runtime::supervisor::{Cause, Supervisor};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use thiserror::Error;
use tonic::Status;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic_reflection::server as reflection;

/// Hello messages with an inventory, and batches of reports.
const AGENT_MESSAGE_BYTES_MAX: usize = 4 << 20;
/// A job file and what goes with it, with room for its escapes.
const CLIENT_MESSAGE_BYTES_MAX: usize = 1 << 20;
const STOP_GRACE_MS: u64 = 5_000;

/// Why a server does not start, or stopped.
#[derive(Debug, Error)]
pub enum ServerError {
    #[error("server.toml: {0}")]
    Config(#[from] ServerConfigError),
    #[error("{0}")]
    Identity(#[from] IdentityError),
    #[error("the certificate in {folder} is of {found}; this server is {wanted}")]
    WrongIdentity { folder: String, found: String, wanted: String },
    #[error("{0}")]
    Start(#[from] StartError),
    #[error("history in {folder}: {cause}")]
    History { folder: String, cause: io::Error },
    #[error("cannot listen on {address}: {cause}; is another process there?")]
    Listen { address: SocketAddr, cause: io::Error },
    #[error(
        "cannot take datagrams on UDP {address}: {cause}; is another process there? Name another port as \
         `heartbeat_port`, or do without UDP by `heartbeat = \"grpc\"`"
    )]
    Datagrams { address: SocketAddr, cause: io::Error },
    #[error("stopped: {0}")]
    Stopped(#[from] Cause),
}

/// Channels to other servers, one per lane.
struct Peers {
    network: Arc<dyn Network>,
    credentials: Credentials,
    names: BTreeMap<u64, String>,
}

impl PeerConnector for Peers {
    fn channel(&self, id: u64, addr: &str, _lane: Lane) -> Channel {
        let expect = match self.names.get(&id) {
            Some(name) => Expect::server().named(name.clone()),
            None => Expect::server(),
        };
        // The address comes from the configuration or the replicated membership and was checked there.
        self.network
            .channel(addr, &self.credentials, expect)
            .unwrap_or_else(|error| unreachable!("the address of server {id} is not one: {error}"))
    }
}

/// Runs until told to stop, or until something fails that only a restart can cure.
pub async fn run(config: ServerConfig, shutdown: Shutdown) -> Result<(), ServerError> {
    config.validate()?;
    let (credentials, authority) = identities(&config, SystemClock.wall_ms())?;
    run_on(config, Seams::of_machine(credentials, authority), shutdown).await
}

/// The same on a clock, a network and a disk of the caller's choice.
pub async fn run_on(config: ServerConfig, seams: Seams, shutdown: Shutdown) -> Result<(), ServerError> {
    let Seams { clock, network, disk, credentials, authority, witness } = seams;
    let history = Arc::new(disk.history(&config)?);
    let watch = WatchHandle::default();
    let decisions = disk.decisions(&config);
    let machine = EngineMachine::new(history.clone(), watch.clone()).witnessed(witness).remembered(decisions.clone());
    let names = config.members.iter().map(|member| (member.id, member.name.clone())).collect();
    let peers = Arc::new(Peers { network: network.clone(), credentials: credentials.clone(), names });
    let settings = ConsensusConfig { clock: clock.clone(), ..consensus_config(&config) };
    let consensus = match disk.log() {
        None => Consensus::start(settings, machine, peers).await?,
        Some(engine) => Consensus::start_on(settings, engine, machine, peers).await?,
    };
    // Of the parts: they go on while this server, asked to stop, hands over.
    let serving = Shutdown::new();
    let supervisor = Supervisor::new(serving.clone(), clock.clone());
    let own = OwnCertificate {
        credentials: credentials.clone(),
        authority: authority.clone(),
        folder: config.identity.clone(),
        clock: clock.clone(),
    };
    supervisor.spawn("identity", own.run(serving.clone()));
    let outside = Outside { clock, network, credentials };
    let context = wire_up(&config, &supervisor, consensus, outside, Kept { history, decisions }, watch);
    serve(&config, &supervisor, context.clone(), authority).await?;
    if serving.unless(shutdown.triggered()).await.is_some() {
        farewell::hand_over(&context.consensus, &*context.clock).await;
        serving.trigger();
    }
    let stopped = supervisor.wait(STOP_GRACE_MS).await;
    context.consensus.shutdown().await;
    Ok(stopped?)
}

fn identities(config: &ServerConfig, now_ms: u64) -> Result<(Credentials, Arc<Authority>), ServerError> {
    let found = Identity::read(&config.identity)?;
    let peer = found.peer();
    if peer.cluster != config.cluster_id || !peer.is_named(Role::Server, &config.name) {
        return Err(ServerError::WrongIdentity {
            folder: config.identity.display().to_string(),
            found: found.name().uri(),
            wanted: format!("server `{}` of cluster `{}`", config.name, config.cluster_id),
        });
    }
    let authority = Authority::load(&config.identity, now_ms)?;
    let identity = certificate::at_start(found, &authority, &config.identity, now_ms)?;
    Ok((Credentials::new(identity), Arc::new(authority)))
}

fn consensus_config(config: &ServerConfig) -> ConsensusConfig {
    let mut consensus = ConsensusConfig::new(config.cluster_id.clone(), config.id, config.dir.clone());
    consensus.peers = config.members.iter().map(|member| (member.id, member.address.clone())).collect();
    consensus.timing = crate::consensus::Timing {
        heartbeat_ms: config.timing.heartbeat_ms,
        election_min_ms: config.timing.election_min_ms,
        election_max_ms: config.timing.election_max_ms,
    };
    if let Some(snapshot_every) = config.snapshot_every {
        consensus.snapshot_every = snapshot_every;
        consensus.keep_logs = snapshot_every;
    }
    consensus
}

/// What actors and services reach of the outside.
struct Outside {
    clock: Arc<dyn Clock>,
    network: Arc<dyn Network>,
    credentials: Credentials,
}

/// What is kept of the past.
struct Kept {
    history: Arc<HistoryStore>,
    decisions: Option<DecisionLog>,
}

/// Starts the actors and hands out what services share.
fn wire_up(
    config: &ServerConfig,
    supervisor: &Supervisor,
    consensus: ConsensusHandle<EngineMachine>,
    outside: Outside,
    kept: Kept,
    watch: WatchHandle,
) -> Arc<Context> {
    let Kept { history, decisions } = kept;
    let Outside { clock, network, credentials } = outside;
    let shutdown = supervisor.shutdown().clone();
    let proposer = Proposer::new(consensus.clone(), clock.clone());
    let liveness = Liveness::default();
    let (leases, leases_actor) = Leases::new(consensus.clone(), liveness.clone());
    let (reports, reports_actor) = Reports::new(proposer.clone(), clock.clone());
    let observer = SilenceObserver::new(consensus.clone(), proposer.clone(), clock.clone(), liveness.clone());
    let shadow = decide(config, supervisor, &consensus, &proposer, &clock);
    supervisor.spawn("leases", leases_actor.run(shutdown.clone()));
    supervisor.spawn("reports", reports_actor.run(shutdown.clone()));
    supervisor.spawn("silence", observer.run(shutdown.clone()));
    supervisor.spawn("consensus", consensus_stops(consensus.clone(), shutdown.clone()));
    let (whole, of, until) = (consensus.clone(), history.clone(), shutdown.clone());
    supervisor.spawn("history", async move {
        until.unless(whole.keep_history_whole(of)).await;
        Ok::<(), io::Error>(())
    });
    supervisor.spawn("bootstrap", bootstrap(config.clone(), consensus.clone()));
    let heartbeats = Heartbeats::new(clock.clone());
    let services = Services {
        consensus: consensus.clone(),
        proposer: proposer.clone(),
        clock: clock.clone(),
        liveness,
        leases,
        reports,
        heartbeats: heartbeats.clone(),
        datagrams: datagram_address(config, network.as_ref()).map(offer),
        cluster_id: config.cluster_id.clone(),
    };
    // Milliseconds leave room for a thousand servers.
    let sessions = SessionsHandle::new(services, clock.wall_ms() * 1024 + config.id % 1024);
    supervisor.spawn("news", news::follow(sessions.clone(), shutdown.clone()));
    switch(config, supervisor, &sessions);
    let member = |member: &crate::config::Member| {
        (member.id, MemberInfo { name: member.name.clone(), address: member.address.clone() })
    };
    let members: BTreeMap<u64, MemberInfo> = config.members.iter().map(member).collect();
    let address = members.get(&config.id).map(|member| member.address.clone()).unwrap_or_default();
    Arc::new(Context {
        consensus,
        proposer,
        history,
        decisions,
        watch,
        shadow,
        sessions,
        heartbeats,
        clock,
        network,
        credentials,
        server: ServerName { id: config.id, name: config.name.clone(), address },
        members,
        elastic: config.elastic.clone(),
        version: env!("CARGO_PKG_VERSION"),
    })
}

/// Starts who has machines switched.
fn switch(config: &ServerConfig, supervisor: &Supervisor, sessions: &SessionsHandle) {
    let Services { consensus, proposer, clock, .. } = sessions.services.as_ref();
    let switcher = Switcher {
        consensus: consensus.clone(),
        proposer: proposer.clone(),
        sessions: sessions.clone(),
        clock: clock.clone(),
        cluster: config.cluster_id.clone(),
        config: config.elastic.clone(),
    };
    supervisor.spawn("elastic", switcher.run(supervisor.shutdown().clone()));
}

/// Starts who decides, and who only tries.
fn decide(
    config: &ServerConfig,
    supervisor: &Supervisor,
    consensus: &ConsensusHandle<EngineMachine>,
    proposer: &Proposer,
    clock: &Arc<dyn Clock>,
) -> ShadowHandle {
    let (shadow, shadow_actor) = ShadowHandle::new();
    let (consensus, clock, id) = (consensus.clone(), clock.clone(), config.cluster_id.clone());
    let clocks = wall_clocks(consensus.clone(), clock.clone());
    let coordinator = Coordinator::new(consensus, proposer.clone(), clock, clocks, id, shadow.clone());
    supervisor.spawn("shadow", shadow_actor.run(supervisor.shutdown().clone()));
    supervisor.spawn("coordinator", coordinator.run(supervisor.shutdown().clone()));
    shadow
}

/// Where this server takes datagrams: nowhere when the settings or the network have none.
fn datagram_address(config: &ServerConfig, network: &dyn Network) -> Option<SocketAddr> {
    config.datagram_address().filter(|_| network.has_datagrams())
}

fn take_datagrams(config: &ServerConfig, supervisor: &Supervisor, context: &Context) -> Result<(), ServerError> {
    let Some(address) = datagram_address(config, context.network.as_ref()) else { return Ok(()) };
    let (credentials, limits, shutdown) =
        (context.credentials.clone(), DatagramLimits::default(), supervisor.shutdown());
    let listener = DatagramListener::bind(address, credentials, datagram::ALPN, limits, shutdown)
        .map_err(|cause| ServerError::Datagrams { address, cause })?;
    let port = DatagramPort::new(listener, context.sessions.clone(), context.clock.clone());
    supervisor.spawn("datagrams", port.run(shutdown.clone()));
    Ok(())
}

/// What agents are told of it.
fn offer(address: SocketAddr) -> Datagrams {
    Datagrams {
        port: address.port().into(),
        oldest_version: datagram::OLDEST.into(),
        newest_version: datagram::NEWEST.into(),
    }
}

#[derive(Debug, Error)]
#[error("consensus stopped: {0}")]
struct ConsensusStopped(String);

/// A failed sync or an entry that cannot be read takes the process down.
async fn consensus_stops(
    consensus: ConsensusHandle<EngineMachine>,
    shutdown: Shutdown,
) -> Result<(), ConsensusStopped> {
    match shutdown.unless(consensus.stopped()).await {
        Some(why) => Err(ConsensusStopped(why)),
        None => Ok(()),
    }
}

/// The server with the lowest id forms the cluster, once in its life.
async fn bootstrap(config: ServerConfig, consensus: ConsensusHandle<EngineMachine>) -> Result<(), MembershipError> {
    if config.join || config.members.iter().any(|member| member.id < config.id) {
        return Ok(());
    }
    let member = |member: &crate::config::Member| {
        (member.id, Member { name: member.name.clone(), addr: member.address.clone() })
    };
    let members = config.members.iter().map(member).collect();
    match consensus.initialize(members).await {
        Ok(()) | Err(MembershipError::AlreadyInitialised | MembershipError::ShuttingDown) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Asks a majority of servers, this one included, for their wall clocks.
fn wall_clocks(consensus: ConsensusHandle<EngineMachine>, clock: Arc<dyn Clock>) -> WallClocks {
    Arc::new(move || {
        let (consensus, clock) = (consensus.clone(), clock.clone());
        Box::pin(async move { consensus.wall_clocks(clock.wall_ms()).await })
    })
}

async fn serve(
    config: &ServerConfig,
    supervisor: &Supervisor,
    context: Arc<Context>,
    authority: Arc<Authority>,
) -> Result<(), ServerError> {
    let shutdown = supervisor.shutdown().clone();
    let listen = |cause| ServerError::Listen { address: config.listen, cause };
    let (credentials, limits) = (context.credentials.clone(), ListenLimits::default());
    let incoming = context.network.listen(config.listen, credentials, limits, &shutdown).await.map_err(listen)?;
    take_datagrams(config, supervisor, &context)?;
    tracing::info!(address = %config.listen, server = config.name, "serving");
    let (reporter, health_checks) = tonic_health::server::health_reporter();
    let (health, ready) = Health::new(context.clone(), reporter);
    supervisor.spawn("health", health.run(shutdown.clone()));
    let gateway = Gateway::new(context.clone());
    let metrics = Metrics::new(context.clone(), gateway.clone(), ready);
    if let Some(address) = config.metrics_listen {
        let bound = metrics::listen(address, metrics.clone(), shutdown.clone()).await;
        let (bound, scrapes) = bound.map_err(|cause| ServerError::Listen { address, cause })?;
        tracing::info!(address = %bound, "serving metrics in plain HTTP");
        supervisor.spawn("metrics", scrapes);
    }
    let health_checks = InterceptedService::new(health_checks, any_certificate(&context));
    let door = Door::new(gateway.clone(), only_servers(context.clock.clone()));
    let routes = routes(&context, gateway, metrics, authority, &shutdown).add_service(health_checks);
    let router = identity::server_builder().accept_http1(true).add_routes(door.before(routes));
    supervisor.spawn("port", async move {
        router.serve_with_incoming_shutdown(incoming, async move { shutdown.triggered().await }).await
    });
    Ok(())
}

/// Everything that is answered on the one port, but for health checks.
fn routes(
    context: &Arc<Context>,
    gateway: Gateway,
    metrics: Metrics,
    authority: Arc<Authority>,
    shutdown: &Shutdown,
) -> Routes {
    let agents = AgentsServer::new(AgentsService::new(context.clone(), authority))
        .max_decoding_message_size(AGENT_MESSAGE_BYTES_MAX);
    let peers = context.consensus.peer_service(only_servers(context.clock.clone()));
    let clients = MusterServer::new(gateway.clone());
    let clients = Hurried(clients.max_decoding_message_size(CLIENT_MESSAGE_BYTES_MAX));
    let known = any_certificate(context);
    // Old clients ask by the older name.
    let describe = || reflection::Builder::configure().register_encoded_file_descriptor_set(CLIENT_DESCRIPTORS);
    let v1 = describe().build_v1().expect("the build wrote the descriptors");
    let v1alpha = describe().build_v1alpha().expect("the build wrote the descriptors");
    Routes::from(crate::http::routes(gateway, metrics, shutdown.clone()))
        .add_service(peers)
        .add_service(agents)
        .add_service(clients)
        .add_service(InterceptedService::new(v1, known.clone()))
        .add_service(InterceptedService::new(v1alpha, known))
}

fn only_servers(clock: Arc<dyn Clock>) -> CallerCheck {
    Arc::new(move |extensions| {
        let peer = extensions.get::<ConnectInfo>().and_then(|info| info.peer.as_ref());
        match peer {
            Some(peer) if peer.expired(clock.wall_ms()) => {
                Err(Status::unauthenticated(format!("the certificate of {} {} has expired", peer.role, peer.name)))
            }
            Some(peer) if peer.is(Role::Server) => Ok(()),
            Some(peer) => Err(Status::permission_denied(format!("this call is for servers, not for a {}", peer.role))),
            None => Err(Status::unauthenticated("this call needs a server's certificate")),
        }
    })
}
