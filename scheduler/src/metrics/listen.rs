//! A port for scrapers that have no certificate: `/metrics` and `/healthz`, nothing else, in plain HTTP. Off unless the
//! configuration names an address.

use super::{CONTENT_TYPE, Metrics};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use futures::stream::unfold;
use http::{HeaderValue, StatusCode, header};
use muster_runtime::identity;
use muster_runtime::shutdown::Shutdown;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Poller, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::service::Routes;
use tonic::transport::server::Connected;

/// Connections at one time; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;

/// Binds the address; the returned work serves it until `shutdown`.
///
/// # Errors
/// An address that cannot be bound.
pub async fn listen(
    address: SocketAddr,
    metrics: Metrics,
    shutdown: Shutdown,
) -> io::Result<(SocketAddr, impl Future<Output = Result<(), tonic::transport::Error>>)> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    let gate = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = Box::pin(unfold((listener, gate), |(listener, gate)| async move {
        // Never closed.
        let permit = gate.clone().acquire_owned().await.ok()?;
        let accepted = listener.accept().await.map(|(stream, _)| Connection { stream, _permit: permit });
        Some((accepted, (listener, gate)))
    }));
    let routes = Router::new().route("/metrics", get(scrape)).route("/healthz", get(health)).with_state(metrics);
    let server = identity::server_builder().accept_http1(true).add_routes(Routes::from(routes));
    let work = async move {
        server.serve_with_incoming_shutdown(connections, async move { shutdown.triggered().await }).await
    };
    Ok((bound, work))
}

async fn scrape(State(metrics): State<Metrics>) -> Response {
    scraped(&metrics).await
}

async fn health(State(metrics): State<Metrics>) -> Response {
    healthy(&metrics)
}

/// The answer to a scrape.
pub async fn scraped(metrics: &Metrics) -> Response {
    let mut response = Response::new(Body::from(metrics.text().await.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    response
}

/// 200 or 503.
pub fn healthy(metrics: &Metrics) -> Response {
    let (status, text) = match metrics.ready() {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready: no leader with a quorum, or behind it\n"),
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}

/// A connection with its share of the bound.
struct Connection {
    stream: TcpStream,
    _permit: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Poller<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Poller<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
