//! An agent without a machine: a real control session with a real server, for tests and
//! measurements of what agents send.

use crate::cluster::people::{describe, wall_ms};
use crate::cluster::wait::until;
use muster_agent::heartbeat::{Backoff, Carrier, QuicCarrier, Renewal, StreamCarrier, Way};
use muster_common::Name;
use muster_common::node::{Device, Inventory, Link, NumaNode};
use muster_proto::agent as wire;
use muster_proto::agent::agents_client::AgentsClient;
use muster_proto::datagram;
use muster_runtime::clock::{Clock, SystemClock};
use muster_runtime::identity::{
    Authority, Credentials, Expect, Identity, LEAF_VALID_MS, Name as CertificateName, Role, Sans, connect,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use wire::agent_message::Body as ToServer;
use wire::server_message::Body as FromServer;

/// Far above what a test waits.
const SEND_WITHIN_MS: u64 = 10_000;

/// One control session.
pub struct VirtualAgent {
    pub name: String,
    /// Of the server that took it.
    pub address: String,
    pub welcome: wire::Welcome,
    pub credentials: Credentials,
    outgoing: mpsc::Sender<wire::AgentMessage>,
    answers: watch::Sender<Option<mpsc::Sender<Renewal>>>,
    ended: watch::Receiver<Option<String>>,
    desired: watch::Receiver<Option<wire::Desired>>,
}

/// A task that does what an agent is told, as far as servers can see.
pub type Obeying = tokio::task::JoinHandle<()>;

/// The cluster's own authority, as a server of a test cluster keeps it.
///
/// # Panics
/// When the folder is no server's identity.
pub fn authority(cluster: &Path) -> Authority {
    let folder = cluster.join("cluster/servers/s1/identity");
    Authority::load(&folder, wall_ms()).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
}

/// A certificate that begins at `from_ms` and is valid for `valid_ms`.
pub fn issue(authority: &Authority, role: Role, name: &str, from_ms: u64, valid_ms: u64) -> Identity {
    let name = CertificateName::new(authority.cluster(), role, name).expect("a valid name");
    authority.issue(&name, &Sans::default(), from_ms, valid_ms).expect("it can be issued")
}

/// Of a node, valid now.
pub fn agent_identity(authority: &Authority, node: &str) -> Identity {
    issue(authority, Role::Agent, node, wall_ms(), LEAF_VALID_MS)
}

/// What a node of this name says at first. `instance` is the agent process.
pub fn hello(node: &str, instance: &str) -> wire::Hello {
    hello_with(node, instance, 1)
}

/// The same of a node with so many devices.
pub fn hello_with(node: &str, instance: &str, devices: usize) -> wire::Hello {
    wire::Hello {
        protocol_version: 1,
        node_name: node.to_owned(),
        inventory: Some((&inventory(node, devices)).into()),
        seen: Some(wire::Position::default()),
        first_report: 1,
        store_id: format!("store-{node}"),
        instance: instance.to_owned(),
        datagram_version: datagram::NEWEST.into(),
        ..wire::Hello::default()
    }
}

fn inventory(node: &str, devices: usize) -> Inventory {
    let device = |slot: usize| Device {
        uuid: format!("GPU-{node}-{slot}"),
        model: Name::literal("H100"),
        product: "NVIDIA H100 80GB HBM3".to_owned(),
        memory_bytes: 80 << 30,
        pci_address: format!("0000:{:02x}:00.0", slot + 1),
        numa: Some(0),
        parent: None,
        nearest_nics: Vec::new(),
    };
    Inventory {
        cpu_milli: 8_000,
        memory_bytes: 64 << 30,
        numa: vec![NumaNode { id: 0, cpus: "0-7".to_owned(), memory_bytes: 64 << 30 }],
        devices: (0..devices).map(device).collect(),
        links: (0..devices).map(|row| (0..devices).map(|at| link(row, at)).collect()).collect(),
        nics: Vec::new(),
        labels: BTreeMap::new(),
        place: [(Name::literal("network"), vec![Name::literal("leaf-a")])].into(),
        hardware_id: format!("hardware-{node}"),
        boot_id: format!("boot-{node}"),
        agent_version: "0.1.0".to_owned(),
        address: "127.0.0.1".to_owned(),
        port_base: 30_000,
        port_count: 10,
        weak_fencing: false,
    }
}

fn link(one: usize, other: usize) -> Link {
    if one == other { Link::Same } else { Link::Sys }
}

impl VirtualAgent {
    /// Says hello to one server.
    ///
    /// # Errors
    /// What the server answers instead of a welcome; a redirect as `Unavailable`.
    pub async fn try_connect(address: &str, credentials: &Credentials, hello: wire::Hello) -> Result<Self, Status> {
        let channel = connect(address, credentials, Expect::server()).expect("an address");
        let mut client = AgentsClient::new(channel);
        let (outgoing, messages) = mpsc::channel(1024);
        let name = hello.node_name.clone();
        outgoing.try_send(wire::AgentMessage { body: Some(ToServer::Hello(hello)) }).expect("there is room");
        let mut incoming = client.control(ReceiverStream::new(messages)).await?.into_inner();
        let first = incoming.message().await?.and_then(|message| message.body);
        let welcome = match first {
            Some(FromServer::Welcome(welcome)) => welcome,
            Some(FromServer::Redirect(to)) => return Err(Status::unavailable(to.leader_address)),
            other => return Err(Status::internal(format!("no welcome but {other:?}"))),
        };
        let (answers, wanted) = watch::channel(None::<mpsc::Sender<Renewal>>);
        let (end, ended) = watch::channel(None);
        let (tell, desired) = watch::channel(None);
        tokio::spawn(async move {
            // The client keeps the connection.
            let _client = client;
            let why = loop {
                match incoming.message().await {
                    Ok(Some(wire::ServerMessage { body: Some(FromServer::Lease(lease)) })) => {
                        let answer = Renewal { session: lease.session, number: lease.number };
                        if let Some(to) = wanted.borrow().as_ref() {
                            let _ = to.try_send(answer);
                        }
                    }
                    Ok(Some(wire::ServerMessage { body: Some(FromServer::Desired(all)) })) => {
                        tell.send_replace(Some(all));
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => break "the server closed the stream".to_owned(),
                    Err(status) => break describe(&status),
                }
            };
            end.send_replace(Some(why));
        });
        Ok(Self {
            name,
            address: address.to_owned(),
            welcome,
            credentials: credentials.clone(),
            outgoing,
            answers,
            ended,
            desired,
        })
    }

    /// From now on says of all that it is told that it is done: prepared, started, ended with 0 by each rank and released,
    /// at once, but for what runs while `held` is set, which goes on until it is stopped.
    pub fn obey(&self, held: Arc<AtomicBool>) -> Obeying {
        let mut obeying = Obedience { outgoing: self.outgoing.clone(), held, number: 0, said: BTreeMap::new() };
        let mut desired = self.desired.clone();
        tokio::spawn(async move {
            while desired.changed().await.is_ok() {
                let all = desired.borrow_and_update().clone();
                for allocation in all.iter().flat_map(|all| &all.allocations) {
                    if !obeying.take(allocation).await {
                        return;
                    }
                }
            }
        })
    }

    /// Finds the leader among `addresses`.
    ///
    /// # Panics
    /// When none takes it for a long while.
    pub async fn connect(addresses: &[String], identity: Identity, hello: wire::Hello) -> Self {
        let credentials = Credentials::new(identity);
        until(&format!("a session of {}", hello.node_name), async || {
            for address in addresses {
                if let Ok(agent) = Self::try_connect(address, &credentials, hello.clone()).await {
                    return Some(agent);
                }
            }
            None
        })
        .await
    }

    pub fn session(&self) -> u64 {
        self.welcome.session
    }

    /// Sends one message on the control stream.
    ///
    /// # Panics
    /// When the session is over.
    pub async fn say(&self, body: ToServer) {
        self.outgoing.send(wire::AgentMessage { body: Some(body) }).await.expect("the session lives");
    }

    /// Why the session ended, if it did.
    pub fn ended(&self) -> Option<String> {
        self.ended.borrow().clone()
    }

    /// A way for this session's renewals, connected.
    pub async fn carrier(&self, way: Way) -> Box<dyn Carrier> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        match way {
            Way::Stream => {
                let (carrier, answers) = StreamCarrier::new(self.outgoing.clone(), clock, SEND_WITHIN_MS);
                self.answers.send_replace(Some(answers));
                Box::new(carrier)
            }
            Way::Quic => Box::new(quic(&self.address, self.credentials.clone()).await),
        }
    }
}

/// What one obeying agent has said, by the token's index.
struct Obedience {
    outgoing: mpsc::Sender<wire::AgentMessage>,
    held: Arc<AtomicBool>,
    number: u64,
    said: BTreeMap<u64, wire::Phase>,
}

impl Obedience {
    /// False when the session is over.
    async fn take(&mut self, allocation: &wire::Allocation) -> bool {
        use wire::report::Body;
        let phase = allocation.phase();
        let index = allocation.token.map_or(0, |token| token.index);
        if self.said.get(&index).is_some_and(|said| *said >= phase) {
            return true;
        }
        self.said.insert(index, phase);
        let ranks = allocation.rank_base..allocation.rank_base + allocation.ranks;
        let exited = ranks.map(|rank| Body::Exited(wire::Exited { rank, ..wire::Exited::default() }));
        let bodies = match phase {
            wire::Phase::Prepare => vec![Body::Prepared(wire::Prepared {})],
            wire::Phase::Run if self.held.load(Ordering::Acquire) => vec![Body::Started(wire::Started {})],
            wire::Phase::Run => std::iter::once(Body::Started(wire::Started {})).chain(exited).collect(),
            wire::Phase::Stop => vec![Body::Released(wire::Released { lease_expired: false })],
            wire::Phase::Forget => {
                self.said.remove(&index);
                Vec::new()
            }
            wire::Phase::Unspecified => Vec::new(),
        };
        let report = |body: Body| {
            self.number += 1;
            let (gang, attempt, token) = (allocation.gang, allocation.attempt, allocation.token);
            wire::Report { number: self.number, gang, attempt, token, body: Some(body) }
        };
        let reports: Vec<wire::Report> = bodies.into_iter().map(report).collect();
        if reports.is_empty() {
            return true;
        }
        let body = Some(ToServer::Reports(wire::Reports { reports }));
        self.outgoing.send(wire::AgentMessage { body }).await.is_ok()
    }
}

/// Datagrams to the server at this address, once there is a connection. Servers of test clusters
/// take them at the number of their TCP port.
pub async fn quic(address: &str, credentials: Credentials) -> QuicCarrier {
    let mut carrier =
        QuicCarrier::start(address, port_of(address), credentials, Arc::new(SystemClock), Backoff::new(1));
    let connected = tokio::time::timeout(std::time::Duration::from_secs(20), carrier.connected()).await;
    connected.unwrap_or_else(|_| panic!("no datagrams to {address}"));
    carrier
}

/// # Panics
/// When the address names no port.
pub fn port_of(address: &str) -> u16 {
    address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("host:port")
}
