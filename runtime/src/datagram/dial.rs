//! The calling side.

use super::connection::{DatagramConnection, words};
use super::settings::{DatagramLimits, client};
use crate::identity::{Credentials, DialError, Expect, IdentityError, Peer};
use http::uri::Authority as Address;
use quinn::{ConnectionError, Endpoint};
use rustls_pki_types::CertificateDer;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// From the first packet to the end of the handshake.
const CONNECT_LIMIT_MS: u64 = 3_000;

/// Connects to `port` at the host of `address` (`host:port`), showing `credentials`, if the server
/// there is the expected one.
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
    let own = credentials.current();
    let role = expect.role;
    let expect = match &expect.cluster {
        Some(_) => expect,
        None => expect.of_cluster(own.name().cluster.clone()),
    };
    let config = client(&own, expect, alpn)?;
    let parsed: Address = address.parse().map_err(|_| IdentityError::BadAddress(address.to_owned()))?;
    let host = parsed.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let shown = format!("{}:{port} (UDP)", parsed.host());
    let unreachable = |cause| DialError::Unreachable { address: shown.clone(), cause };
    let work = async {
        let found = tokio::net::lookup_host((host.as_str(), port)).await.map_err(unreachable)?.next();
        let to = found.ok_or_else(|| unreachable(io::ErrorKind::NotFound.into()))?;
        let any: SocketAddr = match to {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let endpoint = Endpoint::client(any).map_err(unreachable)?;
        let connecting = endpoint.connect_with(config, to, &role.dns());
        let connecting = connecting.map_err(|error| unreachable(io::Error::other(error)))?;
        let connection = connecting.await.map_err(|error| match error {
            ConnectionError::TimedOut => DialError::Slow { address: shown.clone(), limit_ms: CONNECT_LIMIT_MS },
            ConnectionError::TransportError(_)
            | ConnectionError::ConnectionClosed(_)
            | ConnectionError::ApplicationClosed(_) => {
                DialError::Refused { address: shown.clone(), why: words(&error) }
            }
            other => unreachable(io::Error::other(other)),
        })?;
        let peer = peer_of(&connection)?;
        Ok(DatagramConnection::new(connection, peer, &DatagramLimits::default(), Some(endpoint), None))
    };
    let slow = || DialError::Slow { address: shown.clone(), limit_ms: CONNECT_LIMIT_MS };
    tokio::time::timeout(Duration::from_millis(CONNECT_LIMIT_MS), work).await.map_err(|_| slow())?
}

/// Who is at the other end of a connection whose handshake is done.
pub(super) fn peer_of(connection: &quinn::Connection) -> Result<Peer, IdentityError> {
    let identity = connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let leaf = identity.as_deref().and_then(|chain| chain.first());
    Peer::from_der(leaf.ok_or(IdentityError::NotMuster("the other side showed no certificate"))?)
}
