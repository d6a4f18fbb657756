//! Settings of one server's consensus.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use muster_runtime::clock::{Clock, SystemClock};
use openraft::SnapshotPolicy;

use super::error::StartError;
use super::wal::WalLimits;
use crate::instruments::Instruments;

/// Entries in one append call; their bytes are bounded as well.
const PAYLOAD_ENTRIES_MAX: u64 = 512;
const APPEND_ENTRIES_MAX: u64 = 1024;
const API_QUEUE: u64 = 4096;
const SNAPSHOT_TRANSFER_MS: u64 = 120_000;
/// Nothing may be configured beyond this: it is what the wire and the log can carry.
const ENTRY_BYTES_CEILING: usize = 1 << 20;

/// When a silent leader is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The leader shows itself this often.
    pub heartbeat_ms: u64,
    /// A follower that hears nothing stands for election after a random time from here ...
    pub election_min_ms: u64,
    /// ... to here. Also the time a leader is trusted for after its last contact with a quorum.
    pub election_max_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Timing { heartbeat_ms: 50, election_min_ms: 150, election_max_ms: 300 }
    }
}

/// Settings of one server's consensus.
#[derive(Clone, Debug)]
pub struct ConsensusConfig {
    /// Which cluster this server belongs to. Servers of different clusters refuse each other.
    pub cluster_id: String,
    /// Unique in the cluster's whole life: never given to another server, nor to this one with another disk.
    pub server_id: u64,
    /// The data folder; made if missing.
    pub dir: PathBuf,
    /// Addresses of servers by id. They win over the addresses in the replicated membership.
    pub peers: BTreeMap<u64, String>,
    /// Heartbeats and elections.
    pub timing: Timing,
    /// Entries applied between two snapshots.
    pub snapshot_every: u64,
    /// Entries kept behind a snapshot at least, so that a server that was away shortly needs no snapshot.
    pub keep_logs: u64,
    /// Largest payload of [`super::ConsensusHandle::propose`].
    pub entry_bytes_max: usize,
    /// Largest payload of [`super::ConsensusHandle::propose_large`].
    pub large_entry_bytes_max: usize,
    /// How long a proposal or a read waits for a leader to be there.
    pub leader_wait_ms: u64,
    /// How long a proposal waits for its answer before its outcome is called unknown.
    pub answer_wait_ms: u64,
    /// The log on disk.
    pub log: WalLimits,
    /// Where syncs and proposals are counted.
    pub instruments: Instruments,
    /// Whose wall time the other servers are told.
    pub clock: Arc<dyn Clock>,
}

impl ConsensusConfig {
    /// The usual settings.
    pub fn new(cluster_id: impl Into<String>, server_id: u64, dir: impl Into<PathBuf>) -> Self {
        ConsensusConfig {
            cluster_id: cluster_id.into(),
            server_id,
            dir: dir.into(),
            peers: BTreeMap::new(),
            timing: Timing::default(),
            snapshot_every: 10_000,
            keep_logs: 10_000,
            entry_bytes_max: 64 << 10,
            large_entry_bytes_max: 320 << 10,
            leader_wait_ms: 2_000,
            answer_wait_ms: 10_000,
            log: WalLimits::default(),
            instruments: Instruments::default(),
            clock: Arc::new(SystemClock),
        }
    }

    pub(crate) fn validate(&self) -> Result<(), StartError> {
        let refuse = |setting, why: &str| Err(StartError::Config { setting, why: why.to_owned() });
        if self.cluster_id.is_empty() {
            return refuse("cluster_id", "it is empty");
        }
        if self.server_id == 0 {
            return refuse("server_id", "0 stands for no server; count from 1");
        }
        if self.snapshot_every == 0 {
            return refuse("snapshot_every", "it must be at least 1");
        }
        for (setting, bytes) in
            [("entry_bytes_max", self.entry_bytes_max), ("large_entry_bytes_max", self.large_entry_bytes_max)]
        {
            if bytes == 0 || bytes > ENTRY_BYTES_CEILING {
                return refuse(setting, "it must be between 1 byte and 1 MiB");
            }
        }
        Ok(())
    }

    pub(crate) fn raft(&self) -> Result<Arc<openraft::Config>, StartError> {
        let config = openraft::Config {
            cluster_name: self.cluster_id.clone(),
            heartbeat_interval: self.timing.heartbeat_ms,
            election_timeout_min: self.timing.election_min_ms,
            election_timeout_max: self.timing.election_max_ms,
            install_snapshot_timeout: SNAPSHOT_TRANSFER_MS,
            max_payload_entries: PAYLOAD_ENTRIES_MAX,
            max_append_entries: Some(APPEND_ENTRIES_MAX),
            api_channel_size: Some(API_QUEUE),
            replication_lag_threshold: self.snapshot_every.saturating_mul(2),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_every),
            // The log is purged by us, up to the older of the two snapshots kept.
            max_in_snapshot_log_to_keep: u64::MAX,
            backoff: "50ms 100ms 200ms ...1s".to_owned(),
            enable_pre_vote: Some(true),
            // A restarted leader is elected anew, so that leading always begins with a new term.
            enable_leader_restore: Some(false),
            allow_log_reversion: Some(false),
            ..openraft::Config::default()
        };
        let config = config.validate();
        config.map(Arc::new).map_err(|error| StartError::Config { setting: "timing", why: error.to_string() })
    }
}
