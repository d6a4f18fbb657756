//! A leader that does what the test says: it welcomes, acknowledges renewals, collects what agents
//! tell it and passes on what the test wants.

use muster_common::Name;
use muster_common::job::{Launch, LogLimits, Run};
use muster_proto::agent as wire;
use muster_proto::agent::agents_server::{Agents, AgentsServer};
use muster_runtime::clock::{Clock, SystemClock};
use muster_runtime::identity::{
    Authority, Credentials, LEAF_VALID_MS, ListenLimits, Name as CertificateName, Role, Sans, TlsIncoming,
    server_builder,
};
use muster_runtime::shutdown::Shutdown;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use wire::agent_message::Body as FromAgent;
use wire::server_message::Body as ToAgent;

type Out = mpsc::Sender<Result<wire::ServerMessage, Status>>;

/// What the leader knows and does.
#[derive(Default)]
pub struct World {
    pub hellos: Vec<wire::Hello>,
    /// By number, once each.
    pub reports: BTreeMap<u64, wire::Report>,
    /// How often each report number came.
    pub arrivals: BTreeMap<u64, u32>,
    pub chunks: Vec<wire::LogChunk>,
    pub launches: BTreeMap<Vec<u8>, Vec<u8>>,
    pub acknowledge: bool,
    pub extend: bool,
    pub fetches: u32,
    pub redirect_to: Option<String>,
    /// What the welcome says of datagrams; nobody listens there.
    pub datagrams: Option<wire::Datagrams>,
    /// Renewals on the stream.
    pub renewals: u64,
    pub telemetry: Option<wire::Telemetry>,
    sessions: u64,
    desired: Option<wire::Desired>,
    current: Option<Out>,
}

#[derive(Clone)]
pub struct Leader {
    pub world: Arc<Mutex<World>>,
    pub address: String,
}

pub const CLUSTER: &str = "test";

/// A cluster's authority, and the identity folder of its agent `node`.
pub fn authority(node: &str, identity_dir: &Path) -> Authority {
    let now_ms = SystemClock.wall_ms();
    let authority = Authority::create(CLUSTER, now_ms).expect("made");
    let name = CertificateName::new(CLUSTER, Role::Agent, node).expect("valid");
    let identity = authority.issue(&name, &Sans::default(), now_ms, LEAF_VALID_MS).expect("issued");
    muster_runtime::durable::create_folder(identity_dir).expect("made");
    identity.save(identity_dir).expect("saved");
    authority
}

impl Leader {
    pub async fn start(authority: &Authority) -> Self {
        let now_ms = SystemClock.wall_ms();
        let name = CertificateName::new(CLUSTER, Role::Server, "s1").expect("valid");
        let sans = Sans { ip: vec!["127.0.0.1".parse().expect("an address")], ..Sans::default() };
        let identity = authority.issue(&name, &sans, now_ms, LEAF_VALID_MS).expect("issued");
        let shutdown = Shutdown::new();
        let address = "127.0.0.1:0".parse().expect("an address");
        let incoming = TlsIncoming::bind(address, Credentials::new(identity), ListenLimits::default(), &shutdown);
        let incoming = incoming.await.expect("bound");
        let world = World { acknowledge: true, extend: true, ..World::default() };
        let leader = Self { world: Arc::new(Mutex::new(world)), address: incoming.local_addr().to_string() };
        let service = AgentsServer::new(leader.clone());
        tokio::spawn(async move {
            let served = server_builder().add_service(service).serve_with_incoming(incoming);
            shutdown.unless(served).await
        });
        leader
    }

    pub fn with<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        look(&mut self.world.lock().expect("no test panicked with it"))
    }

    /// Keeps a launch part; returns its hash.
    pub fn launch(&self, script: &str) -> Vec<u8> {
        let launch = Launch {
            name: Name::literal("test"),
            run: Run::Script(script.to_owned()),
            env: BTreeMap::new(),
            groups: Vec::new(),
            workdir: None,
            logs: LogLimits::default(),
            elements: Vec::new(),
        };
        let mut bytes = vec![1];
        bytes.extend(postcard::to_stdvec(&launch).expect("plain data"));
        let hash = Sha256::digest(&bytes).to_vec();
        self.with(|world| world.launches.insert(hash.clone(), bytes));
        hash
    }

    /// Tells the agent, now and in every later session.
    pub fn desire(&self, applied_index: u64, allocations: Vec<wire::Allocation>) {
        let position = Some(wire::Position { generation: 1, term: 1, applied_index });
        let desired = wire::Desired { cluster_id: CLUSTER.to_owned(), position, epoch: 1, allocations };
        self.with(|world| world.desired = Some(desired.clone()));
        self.tell(ToAgent::Desired(desired));
    }

    pub fn tell(&self, body: ToAgent) {
        let current = self.with(|world| world.current.clone());
        if let Some(current) = current {
            // A session that has just ended hears it in the next one.
            let _ = current.try_send(Ok(wire::ServerMessage { body: Some(body) }));
        }
    }

    /// Ends the present session, as a leader that steps down does.
    pub fn hang_up(&self) {
        self.with(|world| world.current = None);
    }

    /// Reports so far: what, without what is only informational.
    pub fn told(&self) -> Vec<String> {
        self.with(|world| world.reports.values().filter_map(word).collect())
    }
}

fn word(report: &wire::Report) -> Option<String> {
    use wire::report::Body;
    let job = report.gang.map_or(0, |gang| gang.job);
    let what = match report.body.as_ref()? {
        Body::Prepared(_) => "prepared".to_owned(),
        Body::Failed(failed) => format!("failed({})", failed.why),
        Body::Exited(exited) => format!("exited({},{},{})", exited.rank, exited.code, exited.signal),
        Body::Released(released) => format!("released({})", released.lease_expired),
        Body::Quarantined(_) => "quarantined".to_owned(),
        Body::DeviceFault(fault) => format!("fault({})", fault.xid),
        Body::Checkpointed(_) => "checkpointed".to_owned(),
        Body::StoreLost(_) | Body::Started(_) => return None,
    };
    Some(format!("{job}:{what}"))
}

#[tonic::async_trait]
impl Agents for Leader {
    type ControlStream = ReceiverStream<Result<wire::ServerMessage, Status>>;

    async fn join(&self, _: Request<wire::JoinRequest>) -> Result<Response<wire::JoinReply>, Status> {
        Err(Status::unimplemented("not in these tests"))
    }

    async fn renew(&self, _: Request<wire::RenewRequest>) -> Result<Response<wire::JoinReply>, Status> {
        Err(Status::unimplemented("not in these tests"))
    }

    async fn fetch_launch(
        &self,
        request: Request<wire::FetchLaunchRequest>,
    ) -> Result<Response<wire::FetchLaunchReply>, Status> {
        let hash = request.into_inner().hash.to_vec();
        let launch = self.with(|world| {
            world.fetches += 1;
            world.launches.get(&hash).cloned()
        });
        let launch = launch.ok_or_else(|| Status::not_found("no such launch part"))?;
        Ok(Response::new(wire::FetchLaunchReply { launch: launch.into() }))
    }

    async fn control(
        &self,
        request: Request<Streaming<wire::AgentMessage>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let (out, receiver) = mpsc::channel(256);
        tokio::spawn(self.clone().serve(request.into_inner(), out));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

impl Leader {
    async fn serve(self, mut incoming: Streaming<wire::AgentMessage>, out: Out) {
        let send = |body| out.try_send(Ok(wire::ServerMessage { body: Some(body) })).is_ok();
        let Ok(Some(wire::AgentMessage { body: Some(FromAgent::Hello(hello)) })) = incoming.message().await else {
            return;
        };
        let (redirect, session, desired) = self.with(|world| {
            world.hellos.push(hello);
            world.sessions += 1;
            let redirect = world.redirect_to.clone();
            if redirect.is_none() {
                world.current = Some(out.clone());
            }
            (redirect, world.sessions, world.desired.clone())
        });
        if let Some(leader_address) = redirect {
            send(ToAgent::Redirect(wire::Redirect { leader_address, why: "a test".to_owned() }));
            return;
        }
        let (cluster_id, lease_ms) = (CLUSTER.to_owned(), 60_000);
        let renew_every_ms = 50;
        let datagrams = self.with(|world| world.datagrams);
        let (node_id, epoch) = (1, 1);
        send(ToAgent::Welcome(wire::Welcome {
            node_id,
            epoch,
            session,
            cluster_id,
            lease_ms,
            renew_every_ms,
            datagrams,
            unregistered: Vec::new(),
        }));
        if let Some(desired) = desired {
            send(ToAgent::Desired(desired));
        }
        while self.with(|world| world.current.as_ref().is_some_and(|current| current.same_channel(&out))) {
            let message = match tokio::time::timeout(std::time::Duration::from_millis(20), incoming.message()).await {
                Ok(Ok(Some(message))) => message,
                Ok(_) => return,
                Err(_) => continue,
            };
            match message.body {
                Some(FromAgent::Renewal(renewal)) if self.with(|world| world.extend) => {
                    self.with(|world| world.renewals += 1);
                    let (session, number) = (renewal.session, renewal.number);
                    send(ToAgent::Lease(wire::LeaseExtended { session, number }));
                }
                Some(FromAgent::Reports(reports)) => {
                    let acknowledge = self.with(|world| world.take(reports.reports));
                    acknowledge.map(|number| send(ToAgent::Acknowledged(wire::Acknowledged { number })));
                }
                Some(FromAgent::Telemetry(telemetry)) => self.with(|world| world.telemetry = Some(telemetry)),
                Some(FromAgent::Log(chunk)) => self.with(|world| world.chunks.push(chunk)),
                _ => {}
            }
        }
    }
}

impl World {
    fn take(&mut self, reports: Vec<wire::Report>) -> Option<u64> {
        for report in reports {
            *self.arrivals.entry(report.number).or_default() += 1;
            self.reports.insert(report.number, report);
        }
        self.acknowledge.then(|| self.reports.last_key_value().map(|(number, _)| *number)).flatten()
    }
}
