//! QUIC's many settings, for small datagrams alone.

use super::listener::LARGEST_HANDSHAKE_BYTES;
use crate::identity::{Expect, Identity, IdentityError, Trust, client_config, server_config_of_known};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt};
use std::sync::Arc;
use std::time::Duration;

/// The longest datagram. It fits into the smallest packet that every path takes, without discovery.
pub const DATAGRAM_BYTES_MAX: usize = 1_099;
/// Both ends give a silent path up after this; whoever needs it sends at least that often.
const IDLE_MS: u32 = 10_000;
/// A few of the longest, in either direction. More means that somebody does not keep up.
const BUFFER_BYTES: usize = 8 * 1024;
/// Streams are not used. What little is left keeps a peer from making us hold gaps in them.
const WINDOW_BYTES: u32 = 1024;
const RETRY_TOKEN_LIFE: Duration = Duration::from_secs(10);

/// Bounds of one listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatagramLimits {
    /// A handshake that is not done by then is dropped.
    pub handshake_timeout_ms: u64,
    /// Handshakes at one time, all of proven addresses; further ones are refused.
    pub max_handshakes: usize,
    /// Handshakes at one time from one address.
    pub max_handshakes_per_address: usize,
    /// Open connections; further ones are refused.
    pub max_connections: usize,
    /// Datagrams a second from one connection, after a burst. Further ones are dropped.
    pub per_second: u32,
    pub burst: u32,
}

impl Default for DatagramLimits {
    fn default() -> Self {
        Self {
            handshake_timeout_ms: 5_000,
            max_handshakes: 256,
            max_handshakes_per_address: 128,
            max_connections: 16_384,
            per_second: 50,
            burst: 200,
        }
    }
}

fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(WINDOW_BYTES))
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .send_window(WINDOW_BYTES.into())
        .crypto_buffer_size(LARGEST_HANDSHAKE_BYTES)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MS))))
        .datagram_receive_buffer_size(Some(BUFFER_BYTES))
        .datagram_send_buffer_size(BUFFER_BYTES)
        // Datagrams are small: nothing is gained by larger packets or by several in one call.
        .mtu_discovery_config(None)
        .enable_segmentation_offload(false);
    Arc::new(transport)
}

pub(super) fn server(
    identity: &Identity,
    alpn: &'static [u8],
    limits: &DatagramLimits,
) -> Result<ServerConfig, IdentityError> {
    let tls = server_config_of_known(identity, &[alpn])?;
    let crypto = QuicServerConfig::try_from(tls)
        .map_err(|error| IdentityError::Crypto { doing: "use the TLS settings for QUIC", cause: error.to_string() })?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(transport())
        // A node that gets another address makes another connection.
        .migration(false)
        .max_incoming(limits.max_handshakes)
        .incoming_buffer_size(LARGEST_HANDSHAKE_BYTES as u64)
        .incoming_buffer_size_total((limits.max_handshakes * LARGEST_HANDSHAKE_BYTES) as u64)
        .retry_token_lifetime(RETRY_TOKEN_LIFE);
    config.validation_token.sent(0);
    Ok(config)
}

pub(super) fn client(own: &Identity, expect: Expect, alpn: &'static [u8]) -> Result<ClientConfig, IdentityError> {
    let trust = Trust::Ca(own.ca_pem().to_owned());
    let tls = client_config(Some(own), &trust, expect, &[alpn])?;
    let crypto = QuicClientConfig::try_from(tls)
        .map_err(|error| IdentityError::Crypto { doing: "use the TLS settings for QUIC", cause: error.to_string() })?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport());
    Ok(config)
}
