//! The listening side: TLS handshakes beside each other, bounded in number and time, and the peer handed to handlers.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tonic::transport::server::Connected;

use super::counts::{Counts, Place};
use super::end::End;
use super::handshakes::Handshakes;
use super::{Credentials, Identity, IdentityError, Peer, Role, server_config};
use crate::clock::{Clock, SystemClock};
use crate::shutdown::Shutdown;

const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// Finished handshakes that wait to be served.
const READY_QUEUE: usize = 64;
/// How long accepting rests after a fault such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Between two words in the log about connections that are dropped, so that whoever floods the port does not fill it.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// How long and how much is read from a refused client, so that it sees the reason and not a reset.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES: u64 = 64 << 10;

const HTTP2_KEEPALIVE: Duration = Duration::from_secs(10);
const MOST_STREAMS: u32 = 1_024;
const LARGEST_HEADERS_BYTES: u32 = 32 << 10;

/// Bounds of one listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenLimits {
    /// A handshake that is not done by then is dropped.
    pub handshake_timeout_ms: u64,
    /// Handshakes at one time; for a further one the oldest of the address with the most, of IPv6 of the /64, is dropped.
    pub max_handshakes: usize,
    /// Handshakes at one time from one address; further ones from it are dropped, so that it cannot keep others out.
    pub max_handshakes_per_address: usize,
    /// Open connections; at the limit no more are accepted until one closes.
    pub max_connections: usize,
    /// Open connections of one certificate's role and name; further ones are dropped, so that one user or node cannot
    /// keep the others out.
    pub max_connections_per_name: usize,
    /// Open connections without a certificate; further ones are dropped, so that strangers cannot use up the rest.
    pub max_anonymous: usize,
    /// A connection without a certificate is cut after this time: joining is short.
    pub anonymous_life_ms: u64,
}

impl Default for ListenLimits {
    fn default() -> Self {
        Self {
            handshake_timeout_ms: 5_000,
            // An unfinished handshake holds some tens of KiB at the most, so all of them hold less than 100 MiB.
            max_handshakes: 1_024,
            // An eighth: no few addresses fill them all. A site whose thousand agents have one address between them
            // gets in too, after a change of the leader: an honest handshake is done in milliseconds, and an agent
            // that was dropped comes again after 100 ms, then after twice that, each at another moment.
            max_handshakes_per_address: 128,
            max_connections: 16_384,
            max_connections_per_name: 512,
            max_anonymous: 512,
            anonymous_life_ms: 30_000,
        }
    }
}

/// Who is at the other end of a request's connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectInfo {
    /// Its address.
    pub peer_addr: SocketAddr,
    /// Its verified certificate; `None` if it showed none, which is allowed for joining only.
    pub peer: Option<Peer>,
}

/// Reads the caller of a request from its extensions.
pub fn connect_info(extensions: &http::Extensions) -> Option<&ConnectInfo> {
    extensions.get::<ConnectInfo>()
}

/// A tonic server with the keepalive and the bounds that every Muster port has.
pub fn server_builder() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(HTTP2_KEEPALIVE))
        .http2_keepalive_timeout(Some(HTTP2_KEEPALIVE))
        .max_concurrent_streams(MOST_STREAMS)
        .http2_max_header_list_size(LARGEST_HEADERS_BYTES)
}

/// A listener as the stream of connections that tonic's `serve_with_incoming` wants. It closes its port when the
/// [`Shutdown`] is triggered or when it is dropped.
#[derive(Debug)]
pub struct TlsIncoming {
    ready: mpsc::Receiver<TlsIo>,
    local_addr: SocketAddr,
    _stop: StopOnDrop,
}

#[derive(Debug)]
struct StopOnDrop(Shutdown);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.trigger();
    }
}

impl TlsIncoming {
    /// Binds `address` and begins to accept.
    ///
    /// # Errors
    /// An address that cannot be bound, or an identity that cannot be used.
    pub async fn bind(
        address: SocketAddr,
        credentials: Credentials,
        limits: ListenLimits,
        shutdown: &Shutdown,
    ) -> io::Result<Self> {
        Self::from_listener(TcpListener::bind(address).await?, credentials, limits, shutdown)
    }

    /// Begins to accept on a listener that is there already.
    ///
    /// # Errors
    /// An identity that cannot be used.
    pub fn from_listener(
        listener: TcpListener,
        credentials: Credentials,
        limits: ListenLimits,
        shutdown: &Shutdown,
    ) -> io::Result<Self> {
        let local_addr = listener.local_addr()?;
        let (to, ready) = mpsc::channel(READY_QUEUE);
        let stop = shutdown.child();
        let gate = Gate::new(credentials, limits).map_err(io::Error::other)?;
        let accepting = stop.clone();
        tokio::spawn(async move {
            accepting.unless(gate.accept(&listener, &to, &accepting)).await;
        });
        Ok(Self { ready, local_addr, _stop: StopOnDrop(stop) })
    }

    /// The address it is bound to, with the port the system chose if 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }
}

impl Stream for TlsIncoming {
    type Item = io::Result<TlsIo>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.ready.poll_recv(cx).map(|io| io.map(Ok))
    }
}

/// What the accept loop needs: settings made from the current identity, and the counters of its bounds.
struct Gate {
    credentials: Credentials,
    identity: Arc<Identity>,
    config: Arc<ServerConfig>,
    limits: ListenLimits,
    handshakes: Handshakes,
    connections: Arc<Semaphore>,
    bounds: Bounds,
    /// Connections dropped since that was told last.
    dropped: u64,
    told: Option<Instant>,
}

/// What finished handshakes are counted by.
#[derive(Clone)]
struct Bounds {
    limits: ListenLimits,
    anonymous: Arc<Semaphore>,
    by_name: Counts<(Role, String)>,
}

impl Gate {
    fn new(credentials: Credentials, limits: ListenLimits) -> Result<Self, IdentityError> {
        let identity = credentials.current();
        Ok(Self {
            config: server_config(&identity, &ALPN)?,
            credentials,
            identity,
            limits,
            handshakes: Handshakes::new(limits.max_handshakes, limits.max_handshakes_per_address),
            connections: Arc::new(Semaphore::new(limits.max_connections)),
            bounds: Bounds {
                limits,
                anonymous: Arc::new(Semaphore::new(limits.max_anonymous)),
                by_name: Counts::default(),
            },
            dropped: 0,
            told: None,
        })
    }

    async fn accept(mut self, listener: &TcpListener, to: &mpsc::Sender<TlsIo>, stop: &Shutdown) {
        loop {
            let Ok(connection) = self.connections.clone().acquire_owned().await else { return };
            // Accepted before there is a place for its handshake: in the kernel's queue nobody could be told apart.
            match listener.accept().await {
                Ok((stream, from)) => self.begin(stream, from, connection, to, stop),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// One handshake beside the others, if the bounds allow it.
    fn begin(
        &mut self,
        stream: TcpStream,
        from: SocketAddr,
        connection: OwnedSemaphorePermit,
        to: &mpsc::Sender<TlsIo>,
        stop: &Shutdown,
    ) {
        let cut = stop.child();
        let Some(turn) = self.handshakes.enter(from.ip(), cut.clone()) else {
            return self.tell_dropped(from);
        };
        tune(&stream);
        self.refresh();
        let limit = Duration::from_millis(self.limits.handshake_timeout_ms);
        let work = shake(stream, from, self.config.clone(), self.identity.clone());
        let (bounds, to) = (self.bounds.clone(), to.clone());
        tokio::spawn(async move {
            let done = cut.unless(tokio::time::timeout(limit, work)).await;
            drop(turn);
            match done {
                // Nobody to hand it to: the listener is gone.
                Some(Ok(Some((stream, info)))) => {
                    if let Some(io) = TlsIo::new(stream, info, connection, &bounds) {
                        to.send(io).await.unwrap_or_default();
                    }
                }
                Some(Err(_elapsed)) => tracing::debug!(%from, "handshake timed out"),
                Some(Ok(None)) => {}
                None => tracing::debug!(%from, "handshake ended: the listener stops, or others had to get in"),
            }
        });
    }

    fn tell_dropped(&mut self, from: SocketAddr) {
        self.dropped += 1;
        if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            tracing::warn!(%from, dropped = self.dropped, "dropped: too many unfinished handshakes from this address");
            (self.dropped, self.told) = (0, Some(Instant::now()));
        }
    }

    /// Follows a replaced identity; one that cannot be used leaves the old settings in force.
    fn refresh(&mut self) {
        let identity = self.credentials.current();
        if Arc::ptr_eq(&identity, &self.identity) {
            return;
        }
        match server_config(&identity, &ALPN) {
            Ok(config) => self.config = config,
            Err(error) => tracing::error!(%error, "the renewed identity cannot be used"),
        }
        self.identity = identity;
    }
}

/// Small requests must not wait for more bytes. A peer that vanished is noticed by HTTP/2 pings first; the kernel only backs them up.
pub(super) fn tune(stream: &TcpStream) {
    stream.set_nodelay(true).ok();
    setsockopt(stream, sockopt::KeepAlive, &true).ok();
}

async fn shake(
    stream: TcpStream,
    peer_addr: SocketAddr,
    config: Arc<ServerConfig>,
    identity: Arc<Identity>,
) -> Option<(TlsStream<TcpStream>, ConnectInfo)> {
    let stream = match TlsAcceptor::from(config).accept(stream).into_fallible().await {
        Ok(stream) => stream,
        Err((error, stream)) => {
            tracing::debug!(%peer_addr, %error, "handshake refused");
            linger(stream).await;
            return None;
        }
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let peer = match certificate.map(|der| Peer::from_der(der)).transpose() {
        Ok(peer) => peer,
        Err(error) => {
            tracing::warn!(%peer_addr, %error, "connection refused");
            return None;
        }
    };
    if let Some(stranger) = peer.as_ref().filter(|peer| peer.cluster != identity.name().cluster) {
        tracing::warn!(%peer_addr, cluster = %stranger.cluster, "connection refused: another cluster's certificate");
        return None;
    }
    Some((stream, ConnectInfo { peer_addr, peer }))
}

/// Closing a socket with unread bytes resets it, and the reset can overtake the alert that says why.
async fn linger(mut stream: TcpStream) {
    let drained = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    tokio::time::timeout(LINGER, drained).await.ok();
}

/// One accepted connection after its handshake.
#[derive(Debug)]
pub struct TlsIo {
    stream: TlsStream<TcpStream>,
    info: ConnectInfo,
    /// Its share of the bound on connections.
    _connection: OwnedSemaphorePermit,
    _share: Share,
    /// When the certificate runs out, whatever streams are open; much sooner without one.
    end: End,
}

/// Its share of what its kind may have.
#[derive(Debug)]
enum Share {
    Anonymous { _permit: OwnedSemaphorePermit },
    Named { _place: Place<(Role, String)> },
}

impl TlsIo {
    fn new(
        stream: TlsStream<TcpStream>,
        info: ConnectInfo,
        connection: OwnedSemaphorePermit,
        bounds: &Bounds,
    ) -> Option<Self> {
        let limits = &bounds.limits;
        let (share, end) = match &info.peer {
            None => {
                let Ok(permit) = bounds.anonymous.clone().try_acquire_owned() else {
                    tracing::warn!(from = %info.peer_addr, "dropped: too many connections without a certificate");
                    return None;
                };
                (Share::Anonymous { _permit: permit }, End::after(limits.anonymous_life_ms))
            }
            Some(peer) => {
                let key = (peer.role, peer.name.clone());
                let Some(place) = bounds.by_name.enter(key, limits.max_connections_per_name) else {
                    tracing::warn!(from = %info.peer_addr, peer = %peer.as_name().uri(), "dropped: too many connections of one name");
                    return None;
                };
                (Share::Named { _place: place }, End::at(peer.not_after_ms, SystemClock.wall_ms()))
            }
        };
        Some(Self { stream, info, _connection: connection, _share: share, end })
    }

    /// Asked before each read and each write: whoever takes nothing in holds the writes up, and behind those HTTP/2
    /// reads nothing either.
    fn over(&mut self, cx: &mut Context<'_>) -> bool {
        self.end.has_come(cx, || SystemClock.wall_ms())
    }
}

fn timed_out<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
}

impl Connected for TlsIo {
    type ConnectInfo = ConnectInfo;

    fn connect_info(&self) -> ConnectInfo {
        self.info.clone()
    }
}

impl AsyncRead for TlsIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.over(cx) {
            return timed_out();
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.over(cx) {
            return timed_out();
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.over(cx) {
            return timed_out();
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.over(cx) {
            return timed_out();
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The last words are tried after the end too, but nobody keeps a place by not taking them in.
        let done = Pin::new(&mut self.stream).poll_shutdown(cx);
        if done.is_pending() && self.over(cx) { timed_out() } else { done }
    }
}
