//! Who is who: the cluster's own certificate authority, names inside certificates, and TLS 1.3 on both ends of a wire.
//!
//! A certificate carries exactly one name, `muster://<cluster>/<role>/<name>`, compared whole and never by prefix.
//! Times given as `now_ms` are wall-clock milliseconds since the Unix epoch.

mod authority;
mod counts;
mod dial;
mod end;
mod error;
mod folder;
mod handshakes;
mod listen;
mod name;
mod network;
mod peer;
mod request;
mod secret;
mod tls;

#[cfg(test)]
mod tests;

pub use authority::{Authority, CA_VALID_MS, DAY_MS, LEAF_VALID_MS, Sans};
pub use dial::{DialError, channel_over, connect, connect_anonymous, connect_pinned, explain_transport};
pub use error::IdentityError;
pub use folder::{Credentials, Identity};
pub use listen::{ConnectInfo, ListenLimits, TlsIncoming, TlsIo, connect_info, server_builder};
pub use name::{Name, Role, check_word};
pub use network::{Incoming, Io, Listening, Network, TlsNetwork};
pub use peer::{Fingerprint, Peer};
pub use request::KeyRequest;
pub use secret::random_secret;
pub use tls::{Expect, Trust, client_config, install_crypto, server_config, server_config_of_known};
