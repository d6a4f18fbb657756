//! The calling side.

use super::connection::{DatagramConnection, words};
use super::settings::{DatagramLimits, client};
use crate::identity::{Credentials, DialError, Expect, IdentityError, Peer, Role};
use http::uri::Authority as Address;
use quinn::{ClientConfig, ConnectionError, Endpoint};
use rustls_pki_types::CertificateDer;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::task::JoinSet;

/// From the first packet to the end of the handshake.
const CONNECT_LIMIT_MS: u64 = 3_000;
/// A name with more addresses is tried at the first of them.
const ADDRESSES_MAX: usize = 8;
/// Where nobody listens, nobody says so: what is sent there is lost. So the next address is tried soon, while those
/// before it may still answer.
const NEXT_AFTER: Duration = Duration::from_millis(200);

/// Connects to `port` at the host of `address` (`host:port`), showing `credentials`, if the server
/// there is the expected one. Of a host with several addresses, the first that answers is taken.
///
/// # Errors
/// Nobody there, another than expected, or one that refuses our certificate.
pub async fn dial(
    address: &str,
    port: u16,
    credentials: &Credentials,
    expect: Expect,
    alpn: &'static [u8],
) -> Result<DatagramConnection, DialError> {
    let parsed: Address = address.parse().map_err(|_| IdentityError::BadAddress(address.to_owned()))?;
    let host = parsed.host().trim_start_matches('[').trim_end_matches(']');
    let shown = format!("{}:{port} (UDP)", parsed.host());
    let found = async {
        let found = tokio::net::lookup_host((host, port)).await?;
        Ok::<Vec<SocketAddr>, io::Error>(found.take(ADDRESSES_MAX).collect())
    };
    dial_found(found, shown, credentials, expect, alpn).await
}

/// The same, at the addresses that were found.
pub(super) async fn dial_found(
    found: impl Future<Output = io::Result<Vec<SocketAddr>>>,
    shown: String,
    credentials: &Credentials,
    expect: Expect,
    alpn: &'static [u8],
) -> Result<DatagramConnection, DialError> {
    let own = credentials.current();
    let role = expect.role;
    let expect = match &expect.cluster {
        Some(_) => expect,
        None => expect.of_cluster(own.name().cluster.clone()),
    };
    let call = Call { config: client(&own, expect, alpn)?, role, shown };
    let mut why = None;
    let work = async {
        let found = found.await.map_err(|cause| call.unreachable(cause))?;
        Ok::<Option<DatagramConnection>, DialError>(call.first_of(found, &mut why).await)
    };
    let done = tokio::time::timeout(Duration::from_millis(CONNECT_LIMIT_MS), work).await;
    let in_time = done.is_ok();
    if let Some(connection) = done.unwrap_or(Ok(None))? {
        return Ok(connection);
    }
    // At the limit the others may just be slow; who refused was there.
    let why = why.filter(|why| in_time || matches!(why, DialError::Refused { .. }));
    Err(why.unwrap_or_else(|| call.slow()))
}

/// What is the same at every address.
#[derive(Clone)]
struct Call {
    config: ClientConfig,
    role: Role,
    shown: String,
}

impl Call {
    /// The first connection that is made; without any, why is told by the `why` of a server that refused, or else of
    /// the first address that failed.
    async fn first_of(&self, addresses: Vec<SocketAddr>, why: &mut Option<DialError>) -> Option<DatagramConnection> {
        if addresses.is_empty() {
            *why = Some(self.unreachable(io::ErrorKind::NotFound.into()));
        }
        let mut tries = JoinSet::new();
        for (before, to) in (0u32..).zip(addresses) {
            let call = self.clone();
            tries.spawn(async move {
                tokio::time::sleep(NEXT_AFTER * before).await;
                call.connect(to).await
            });
        }
        // The tries that are left end with the set.
        while let Some(tried) = tries.join_next().await {
            match tried.unwrap_or_else(|lost| Err(self.unreachable(io::Error::other(lost)))) {
                Ok(connection) => return Some(connection),
                Err(error) if why.is_none() || matches!(error, DialError::Refused { .. }) => *why = Some(error),
                Err(_) => {}
            }
        }
        None
    }

    async fn connect(&self, to: SocketAddr) -> Result<DatagramConnection, DialError> {
        let any: SocketAddr = match to {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let endpoint = Endpoint::client(any).map_err(|cause| self.unreachable(cause))?;
        let connecting = endpoint.connect_with(self.config.clone(), to, &self.role.dns());
        let connecting = connecting.map_err(|error| self.unreachable(io::Error::other(error)))?;
        let connection = connecting.await.map_err(|error| match error {
            ConnectionError::TimedOut => self.slow(),
            ConnectionError::TransportError(_)
            | ConnectionError::ConnectionClosed(_)
            | ConnectionError::ApplicationClosed(_) => {
                DialError::Refused { address: self.shown.clone(), why: words(&error) }
            }
            other => self.unreachable(io::Error::other(other)),
        })?;
        let peer = peer_of(&connection)?;
        Ok(DatagramConnection::new(connection, peer, &DatagramLimits::default(), Some(endpoint), None))
    }

    fn unreachable(&self, cause: io::Error) -> DialError {
        DialError::Unreachable { address: self.shown.clone(), cause }
    }

    fn slow(&self) -> DialError {
        DialError::Slow { address: self.shown.clone(), limit_ms: CONNECT_LIMIT_MS }
    }
}

/// Who is at the other end of a connection whose handshake is done.
pub(super) fn peer_of(connection: &quinn::Connection) -> Result<Peer, IdentityError> {
    let identity = connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let leaf = identity.as_deref().and_then(|chain| chain.first());
    Peer::from_der(leaf.ok_or(IdentityError::NotMuster("the other side showed no certificate"))?)
}
