//! Servers in one process: real files, real loopback gRPC, and a switch that cuts a server off.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::codegen::Service;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint};

use super::toy::{State, Toy};
use crate::consensus::{Consensus, ConsensusConfig, ConsensusHandle, Lane, Member, PeerConnector, StartError};

pub const DEADLINE: Duration = Duration::from_secs(30);

pub type Handle = ConsensusHandle<Toy>;

/// Fails the test if `what` takes longer than the deadline.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

/// Servers that are cut off: nothing reaches them and nothing leaves them.
#[derive(Clone, Default)]
pub struct Cuts(Arc<Mutex<Switches>>);

#[derive(Default)]
struct Switches {
    cut: BTreeSet<u64>,
    /// Raised when a server is killed: its connections die with it, as they do with a process.
    lives: BTreeMap<u64, u64>,
}

impl Cuts {
    pub fn cut(&self, id: u64) {
        self.0.lock().unwrap().cut.insert(id);
    }

    pub fn heal(&self, id: u64) {
        self.0.lock().unwrap().cut.remove(&id);
    }

    fn end_life(&self, id: u64) {
        *self.0.lock().unwrap().lives.entry(id).or_default() += 1;
    }

    /// The lives of both ends, or an error while one is cut off.
    fn lives(&self, ends: [u64; 2]) -> io::Result<[u64; 2]> {
        let switches = self.0.lock().unwrap();
        if ends.iter().any(|end| switches.cut.contains(end)) {
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "cut off"));
        }
        Ok(ends.map(|end| switches.lives.get(&end).copied().unwrap_or(0)))
    }
}

/// Plain TCP to the other servers; broken while either end is cut off.
pub struct Plain {
    pub own: u64,
    pub cuts: Cuts,
}

impl PeerConnector for Plain {
    fn channel(&self, id: u64, addr: &str, _lane: Lane) -> Channel {
        let dial = Dial { ends: [self.own, id], addr: addr.to_owned(), cuts: self.cuts.clone() };
        let endpoint = Endpoint::try_from(format!("http://{addr}")).unwrap();
        endpoint.connect_timeout(Duration::from_millis(500)).connect_with_connector_lazy(dial)
    }
}

#[derive(Clone)]
struct Dial {
    ends: [u64; 2],
    addr: String,
    cuts: Cuts,
}

impl Service<http::Uri> for Dial {
    type Response = TokioIo<Wire>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Wire>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let dial = self.clone();
        Box::pin(async move {
            let lives = dial.cuts.lives(dial.ends)?;
            let stream = TcpStream::connect(&dial.addr).await?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(Wire { dial, lives, stream }))
        })
    }
}

struct Wire {
    dial: Dial,
    lives: [u64; 2],
    stream: TcpStream,
}

impl Wire {
    fn check(&self) -> io::Result<()> {
        if self.dial.cuts.lives(self.dial.ends)? == self.lives {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::ConnectionReset, "the server was killed"))
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

pub struct Server {
    pub id: u64,
    pub handle: Handle,
    task: JoinHandle<()>,
}

impl Server {
    async fn serve(id: u64, handle: Handle, listener: TcpListener) -> Server {
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let service = handle.peer_service(Arc::new(|_| Ok(())));
        let serve = tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming);
        let task = tokio::spawn(async move { serve.await.unwrap() });
        Server { id, handle, task }
    }

    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
        self.handle.shutdown().await;
    }
}

pub struct Cluster {
    root: TempDir,
    addrs: BTreeMap<u64, String>,
    pub servers: BTreeMap<u64, Server>,
    pub cuts: Cuts,
    tune: fn(&mut ConsensusConfig),
}

impl Cluster {
    /// Starts and initialises `count` servers.
    pub async fn start(count: u64, tune: fn(&mut ConsensusConfig)) -> Cluster {
        let mut cluster = Cluster::empty(count, tune).await;
        for id in 1..=count {
            cluster.boot(id).await.unwrap();
        }
        let members = (1..=count).map(|id| (id, cluster.member(id))).collect();
        cluster.servers[&1].handle.initialize(members).await.unwrap();
        cluster.leader().await;
        cluster
    }

    /// Addresses for `count` servers, none of them started.
    pub async fn empty(count: u64, tune: fn(&mut ConsensusConfig)) -> Cluster {
        let root = tempfile::tempdir().unwrap();
        let mut cluster =
            Cluster { root, addrs: BTreeMap::new(), servers: BTreeMap::new(), cuts: Cuts::default(), tune };
        for id in 1..=count {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            cluster.addrs.insert(id, listener.local_addr().unwrap().to_string());
        }
        cluster
    }

    pub fn dir(&self, id: u64) -> PathBuf {
        self.root.path().join(id.to_string())
    }

    pub fn addr(&self, id: u64) -> String {
        self.addrs[&id].clone()
    }

    pub fn member(&self, id: u64) -> Member {
        Member { name: format!("s{id}"), addr: self.addr(id) }
    }

    pub fn config(&self, id: u64) -> ConsensusConfig {
        let mut config = ConsensusConfig::new("test", id, self.dir(id));
        (self.tune)(&mut config);
        config
    }

    /// Starts a server on its folder, for the first time or again.
    pub async fn boot(&mut self, id: u64) -> Result<(), StartError> {
        let cuts = self.cuts.clone();
        let connector = Arc::new(Plain { own: id, cuts });
        let handle = Consensus::start(self.config(id), Toy::default(), connector).await?;
        let addr: SocketAddr = self.addrs[&id].parse().unwrap();
        let listener = within("binding the old port", async {
            loop {
                match TcpListener::bind(addr).await {
                    Ok(listener) => break listener,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        })
        .await;
        self.servers.insert(id, Server::serve(id, handle, listener).await);
        Ok(())
    }

    pub async fn kill(&mut self, id: u64) {
        self.cuts.end_life(id);
        self.servers.remove(&id).unwrap().kill().await;
    }

    pub fn handle(&self, id: u64) -> &Handle {
        &self.servers[&id].handle
    }

    /// The server that leads, by its own and a quorum's account, once it has applied an entry of its term.
    pub async fn leader(&self) -> u64 {
        self.leader_but(&[]).await
    }

    pub async fn leader_but(&self, not: &[u64]) -> u64 {
        within("a leader", async {
            loop {
                for (id, server) in &self.servers {
                    let ready = server.handle.leadership().borrow().first_index_of_term_applied;
                    if ready && !not.contains(id) && server.handle.leader_read_barrier().await.is_ok() {
                        return *id;
                    }
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }

    /// Proposes on whoever leads until it is applied; returns its index.
    pub async fn propose(&self, text: &str) -> u64 {
        within("a proposal", async {
            loop {
                let leader = self.leader().await;
                match self.handle(leader).propose(Bytes::copy_from_slice(text.as_bytes())).await {
                    Ok(applied) => return applied.index,
                    Err(error) => println!("proposing {text:?} on {leader}: {error}"),
                }
            }
        })
        .await
    }

    /// Waits until every running server has applied `index`; their states must be equal. Returns it.
    pub async fn agree(&self, index: u64) -> Arc<State> {
        let mut states = Vec::new();
        for server in self.servers.values() {
            let mut views = server.handle.views();
            let there = views.wait_for(|seen| seen.applied.is_some_and(|at| at.index >= index));
            let seen = within(&format!("server {} applying {index}", server.id), there).await.unwrap();
            states.push(seen.view.clone());
        }
        let newest = states.iter().map(|state| state.index).max().unwrap();
        if states.iter().any(|state| state.index < newest) {
            return Box::pin(self.agree(newest)).await;
        }
        assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "servers differ: {states:?}");
        states.swap_remove(0)
    }
}
