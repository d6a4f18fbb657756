//! The seam to the network: streams that come with the verified identity of their other end.
//!
//! [`TlsNetwork`] is TLS 1.3 over TCP. A simulated world supplies its own streams and names.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Channel;
use tonic::transport::server::Connected;

use super::{ConnectInfo, Credentials, Expect, IdentityError, ListenLimits, TlsIncoming, connect};
use crate::shutdown::Shutdown;

/// A boxed wait for a listener.
pub type Listening<'a> = Pin<Box<dyn Future<Output = io::Result<Incoming>> + Send + 'a>>;

/// How processes of a cluster reach each other.
pub trait Network: Send + Sync + Debug + 'static {
    /// Binds `address` and accepts, showing `credentials`, until `shutdown` or until the result is dropped.
    ///
    /// # Errors
    /// An address that cannot be bound, or an identity that cannot be used.
    fn listen<'a>(
        &'a self,
        address: SocketAddr,
        credentials: Credentials,
        limits: ListenLimits,
        shutdown: &'a Shutdown,
    ) -> Listening<'a>;

    /// A channel to a server of the own cluster. It connects when used, and again when cut.
    ///
    /// # Errors
    /// An address that is not `host:port`.
    fn channel(&self, address: &str, credentials: &Credentials, expect: Expect) -> Result<Channel, IdentityError>;

    /// Whether [`crate::datagram`] works on it: it does on the machine's own network alone.
    fn has_datagrams(&self) -> bool {
        false
    }
}

/// Mutual TLS over TCP.
#[derive(Debug, Clone, Copy, Default)]
pub struct TlsNetwork;

impl Network for TlsNetwork {
    fn listen<'a>(
        &'a self,
        address: SocketAddr,
        credentials: Credentials,
        limits: ListenLimits,
        shutdown: &'a Shutdown,
    ) -> Listening<'a> {
        Box::pin(async move {
            let incoming = TlsIncoming::bind(address, credentials, limits, shutdown).await?;
            let local_addr = incoming.local_addr();
            let streams = incoming.map(|io| {
                io.map(|io| {
                    let info = io.connect_info();
                    Io::new(io, info)
                })
            });
            Ok(Incoming::new(streams, local_addr))
        })
    }

    fn channel(&self, address: &str, credentials: &Credentials, expect: Expect) -> Result<Channel, IdentityError> {
        connect(address, credentials, expect)
    }

    fn has_datagrams(&self) -> bool {
        true
    }
}

/// Accepted connections, as tonic's `serve_with_incoming` wants them.
pub struct Incoming {
    streams: Pin<Box<dyn Stream<Item = io::Result<Io>> + Send>>,
    local_addr: SocketAddr,
}

impl Incoming {
    /// Connections as they come in at `local_addr`.
    pub fn new(streams: impl Stream<Item = io::Result<Io>> + Send + 'static, local_addr: SocketAddr) -> Self {
        Self { streams: Box::pin(streams), local_addr }
    }

    /// The address it is bound to, with the port that was chosen if 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }
}

impl Stream for Incoming {
    type Item = io::Result<Io>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.streams.as_mut().poll_next(cx)
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

/// One accepted connection, whatever carries it.
pub struct Io {
    stream: Pin<Box<dyn Duplex>>,
    info: ConnectInfo,
}

impl Io {
    /// A connection whose other end is known to be `info`.
    pub fn new(stream: impl AsyncRead + AsyncWrite + Send + 'static, info: ConnectInfo) -> Self {
        Self { stream: Box::pin(stream), info }
    }
}

impl Connected for Io {
    type ConnectInfo = ConnectInfo;

    fn connect_info(&self) -> ConnectInfo {
        self.info.clone()
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(cx)
    }
}
