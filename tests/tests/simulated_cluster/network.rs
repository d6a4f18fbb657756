//! The network of simulated machines: turmoil's streams. Each end says who it is, and is believed.

use crate::planted::{Forger, Planted};
use hyper_util::rt::TokioIo;
use muster_runtime::identity::{
    ConnectInfo, Credentials, Expect, Fingerprint, IdentityError, Incoming, Io, ListenLimits, Listening, Name, Network,
    Peer, channel_over,
};
use muster_runtime::shutdown::Shutdown;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::Service;
use tonic::transport::Channel;
use turmoil::net::{TcpListener, TcpStream};

/// As long as a handshake may take.
const GREETING: Duration = Duration::from_secs(4);
const READY: usize = 64;

/// One machine's network.
#[derive(Debug, Clone)]
pub struct SimNetwork {
    own: Name,
    /// Somebody answers renewals in the servers' place.
    forged: bool,
}

impl SimNetwork {
    pub fn of(own: Name) -> Self {
        Self { own, forged: false }
    }

    /// The network of an agent in a world where this is planted.
    pub fn with(self, planted: Planted) -> Self {
        Self { forged: planted == Planted::RenewalsFromATimer, ..self }
    }
}

/// Sends the own name and learns the other end's.
async fn greet(stream: &mut TcpStream, own: &Name) -> io::Result<Peer> {
    let uri = own.uri();
    let length = u8::try_from(uri.len()).expect("names are short");
    stream.write_u8(length).await?;
    stream.write_all(uri.as_bytes()).await?;
    let mut theirs = vec![0; usize::from(stream.read_u8().await?)];
    stream.read_exact(&mut theirs).await?;
    let uri = String::from_utf8(theirs).map_err(io::Error::other)?;
    let Name { cluster, role, name } = Name::from_uri(&uri).map_err(io::Error::other)?;
    Ok(Peer { cluster, role, name, fingerprint: Fingerprint([0; 32]), not_after_ms: u64::MAX })
}

impl Network for SimNetwork {
    fn listen<'a>(
        &'a self,
        address: SocketAddr,
        _credentials: Credentials,
        _limits: ListenLimits,
        _shutdown: &'a Shutdown,
    ) -> Listening<'a> {
        Box::pin(async move {
            let listener = TcpListener::bind(address).await?;
            let (to, ready) = mpsc::channel(READY);
            let own = self.own.clone();
            tokio::spawn(async move {
                while let Ok((mut stream, peer_addr)) = listener.accept().await {
                    let (own, to) = (own.clone(), to.clone());
                    tokio::spawn(async move {
                        if let Ok(Ok(peer)) = tokio::time::timeout(GREETING, greet(&mut stream, &own)).await {
                            let info = ConnectInfo { peer_addr, peer: Some(peer) };
                            // Nobody to hand it to: the server is stopping.
                            let _ = to.send(Io::new(stream, info)).await;
                        }
                    });
                }
            });
            Ok(Incoming::new(ReceiverStream::new(ready).map(Ok), address))
        })
    }

    fn channel(&self, address: &str, _credentials: &Credentials, expect: Expect) -> Result<Channel, IdentityError> {
        let dialer = Dialer { address: address.to_owned(), own: self.own.clone(), expect };
        if self.forged { channel_over(address, Forger::before(dialer)) } else { greeted_channel(dialer) }
    }
}

/// A channel whose ends know each other's names.
pub fn greeted_channel(dialer: Dialer) -> Result<Channel, IdentityError> {
    channel_over(&dialer.address.clone(), dialer)
}

#[derive(Clone)]
pub struct Dialer {
    address: String,
    own: Name,
    expect: Expect,
}

impl Dialer {
    async fn dial(self) -> io::Result<TokioIo<TcpStream>> {
        let mut stream = TcpStream::connect(self.address.as_str()).await?;
        let peer = greet(&mut stream, &self.own).await?;
        let wanted = peer.role == self.expect.role && self.expect.name.is_none_or(|name| name == peer.name);
        if !wanted || peer.cluster != self.own.cluster {
            return Err(io::Error::other(format!("{} answers at {}", peer.as_name(), self.address)));
        }
        Ok(TokioIo::new(stream))
    }
}

impl Service<http::Uri> for Dialer {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<TcpStream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move {
            let dialed = tokio::time::timeout(GREETING, dialer.dial()).await;
            dialed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        })
    }
}
