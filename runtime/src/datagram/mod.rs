//! Datagrams between two known parties: QUIC with mutual TLS 1.3, and nothing of QUIC but its
//! datagrams. They may be lost and overtake each other; nobody but the other side can make or read
//! them. Streams are refused, connections without a certificate too.

mod bucket;
mod connection;
mod dial;
mod listener;
mod settings;

#[cfg(test)]
mod tests;

pub use connection::{DatagramConnection, DatagramError};
pub use dial::dial;
pub use listener::{DatagramListener, PortStats};
pub use settings::{DATAGRAM_BYTES_MAX, DatagramLimits};
