//! Which way lease renewals and telemetry travel.

use serde::{Deserialize, Serialize};

/// The `heartbeat` key of agents' and servers' settings. Renewals go over QUIC only where both say
/// `quic`; the control stream carries them whenever QUIC does not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Heartbeat {
    /// Datagrams over QUIC first: no stalled stream delays them.
    #[default]
    Quic,
    /// The control stream only, for sites that block UDP.
    Grpc,
}
