//! A server's own file: addresses, paths and limits. Everything else is replicated state.

use muster_common::Name;
use muster_common::heartbeat::Heartbeat;
use muster_common::topology::{FabricSpec, TreeSpec};
use serde::Deserialize;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;

/// Longest that a hook may take.
const HOOK_TIMEOUT_MS_MAX: u64 = 600_000;

/// `server.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// Unique in the cluster's whole life.
    pub id: u64,
    pub name: String,
    pub cluster_id: String,
    /// Data folder: log, snapshots, history.
    pub dir: PathBuf,
    /// Folder with this server's certificate and key, and the cluster's CA.
    pub identity: PathBuf,
    pub listen: SocketAddr,
    /// `/metrics` and `/healthz` in plain HTTP, for scrapers without a certificate. Absent = only on `listen`.
    pub metrics_listen: Option<SocketAddr>,
    /// The first servers of the cluster, this one included; with `join`, those there were when it was made.
    pub members: Vec<Member>,
    /// This server waits to be added to a cluster that is there, and never forms one.
    #[serde(default)]
    pub join: bool,
    #[serde(default)]
    pub timing: Timing,
    /// Entries between snapshots.
    pub snapshot_every: Option<u64>,
    /// Most that the decision log takes on disk, in MiB; 0 = none is kept.
    #[serde(default = "decision_log_mib")]
    pub decision_log_mib: u32,
    /// How agents may renew their leases: `quic` (UDP, and the control stream where that does not
    /// get through) or `grpc` (the control stream only).
    #[serde(default)]
    pub heartbeat: Heartbeat,
    /// UDP port for `quic`; left out: the number of `listen`.
    pub heartbeat_port: Option<NonZeroU16>,
    /// How machines are switched while this server leads.
    pub elastic: Option<ElasticConfig>,
}

/// The program that puts machines to sleep and wakes them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ElasticConfig {
    /// Run as `HOOK sleep NODE...` and `HOOK wake NODE...`.
    pub hook: PathBuf,
    /// It is killed after so long.
    #[serde(default = "hook_timeout_ms")]
    pub timeout_ms: u64,
}

const fn hook_timeout_ms() -> u64 {
    60_000
}

const fn decision_log_mib() -> u32 {
    256
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    pub id: u64,
    pub name: String,
    /// `host:port`, as the other servers, agents and users reach it.
    pub address: String,
}

/// Elections. Longer on slow disks or between sites.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timing {
    pub heartbeat_ms: u64,
    pub election_min_ms: u64,
    pub election_max_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        let timing = crate::consensus::Timing::default();
        Self {
            heartbeat_ms: timing.heartbeat_ms,
            election_min_ms: timing.election_min_ms,
            election_max_ms: timing.election_max_ms,
        }
    }
}

/// Why a server's file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerConfigError {
    #[error("`members` has no server with this server's id {0}; add it")]
    NotAMember(u64),
    #[error("`members` lists id {0} twice; ids are unique in the cluster's whole life")]
    TwiceId(u64),
    #[error(
        "`metrics_listen` is {0}, which is every network of this machine; name one address, such as 127.0.0.1:9470"
    )]
    MetricsEverywhere(SocketAddr),
    #[error("`elastic.hook` is {}, which is not a whole path; name it from the root on", .0.display())]
    HookPath(PathBuf),
    #[error("`elastic.timeout_ms` is {0}; it must be between 1000 and {HOOK_TIMEOUT_MS_MAX}")]
    HookTimeout(u64),
    #[error("`members` lists {0} servers; use 1, 3 or 5, so that a majority is clear")]
    Count(usize),
}

impl ServerConfig {
    /// Where datagrams are taken, if they are.
    pub fn datagram_address(&self) -> Option<SocketAddr> {
        let port = self.heartbeat_port.map_or(self.listen.port(), NonZeroU16::get);
        (self.heartbeat == Heartbeat::Quic).then(|| SocketAddr::new(self.listen.ip(), port))
    }

    pub fn validate(&self) -> Result<(), ServerConfigError> {
        let mut ids: Vec<u64> = self.members.iter().map(|member| member.id).collect();
        ids.sort_unstable();
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ServerConfigError::TwiceId(pair[0]));
        }
        if !ids.contains(&self.id) {
            return Err(ServerConfigError::NotAMember(self.id));
        }
        if let Some(address) = self.metrics_listen.filter(|address| address.ip().is_unspecified()) {
            return Err(ServerConfigError::MetricsEverywhere(address));
        }
        if let Some(elastic) = &self.elastic {
            if !elastic.hook.is_absolute() {
                return Err(ServerConfigError::HookPath(elastic.hook.clone()));
            }
            if !(1_000..=HOOK_TIMEOUT_MS_MAX).contains(&elastic.timeout_ms) {
                return Err(ServerConfigError::HookTimeout(elastic.timeout_ms));
            }
        }
        if !self.join && !matches!(ids.len(), 1 | 3 | 5) {
            return Err(ServerConfigError::Count(ids.len()));
        }
        Ok(())
    }
}

/// The fabric a cluster starts with: one network of leaves.
pub fn default_fabric() -> FabricSpec {
    let tree = TreeSpec { name: Name::literal("network"), levels: vec![Name::literal("leaf")] };
    FabricSpec { trees: vec![tree] }
}
