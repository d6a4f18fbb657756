//! Consensus: replicates opaque payloads by Raft and drives a [`Machine`] with them, in the same order on every server.
//!
//! Everything of openraft stays inside this module. It is compiled once: the machine's types are erased below
//! [`ConsensusHandle`].

mod clocks;
mod config;
mod engine;
mod entry;
mod error;
mod founding;
pub(crate) mod fuzz;
mod gather;
mod handle;
mod identity;
mod log_store;
mod machine;
mod mem_engine;
mod members;
mod network;
mod reads;
mod refill;
mod seeded;
mod service;
mod snapshot;
mod state_machine;
mod status;
mod types;
mod wal;
mod watching;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use tokio_util::sync::CancellationToken;

pub use config::{ConsensusConfig, Timing};
pub use engine::{EngineState, LogEngine, OnDurable, Record};
pub use error::{MembershipError, ProposeError, ReadError, StartError};
pub use founding::found_again;
pub use handle::{Applied, ConsensusHandle};
pub use identity::IdentityError;
pub use machine::{FlushBeforePurge, Machine, MachineError, Viewed};
pub use mem_engine::{MemDisk, MemEngine};
pub use network::{Lane, PeerConnector};
pub use refill::RefillError;
pub use seeded::seed_this_thread;
pub use service::{CallerCheck, PeerService, refusal_of};
pub use snapshot::{SnapshotError, SnapshotProbe};
pub use status::{MemberStatus, Role, Status};
pub use types::{LogPos, Member, SavedVote};
pub use wal::{OnSync, OpenError, WalEngine, WalLimits};
pub use watching::Leadership;

/// Starts a server's consensus.
pub struct Consensus;

impl Consensus {
    /// Opens the data folder, rebuilds the machine from snapshot and log, and joins the cluster. The caller serves
    /// [`ConsensusHandle::peer_service`]; until it does, no other server is heard.
    pub async fn start<M: Machine>(
        config: ConsensusConfig,
        machine: M,
        connector: Arc<dyn PeerConnector>,
    ) -> Result<ConsensusHandle<M>, StartError> {
        config.validate()?;
        let dir = config.dir.join("log");
        folder(&dir)?;
        let (limits, instruments) = (config.log, config.instruments.clone());
        let on_sync = OnSync::new(move |took, entries, bytes| instruments.log_synced(took, entries, bytes));
        let open = muster_runtime::aside::run(move || WalEngine::open(&dir, limits, on_sync)).await;
        let engine =
            open.map_err(|error| StartError::Recovery { dir: config.dir.clone(), why: error.to_string() })??;
        Self::start_on(config, Box::new(engine), machine, connector).await
    }

    /// The same on a log engine the caller has opened.
    pub async fn start_on<M: Machine>(
        config: ConsensusConfig,
        engine: Box<dyn LogEngine>,
        machine: M,
        connector: Arc<dyn PeerConnector>,
    ) -> Result<ConsensusHandle<M>, StartError> {
        let flush = machine.flush_before_purge();
        let (machine, views) = machine::Erased::new(machine);
        let core = start_core(config, engine, Box::new(machine), flush, connector).await?;
        Ok(ConsensusHandle { core: Arc::new(core), views })
    }
}

async fn start_core(
    config: ConsensusConfig,
    engine: Box<dyn LogEngine>,
    machine: Box<dyn machine::AnyMachine>,
    flush: FlushBeforePurge,
    connector: Arc<dyn PeerConnector>,
) -> Result<handle::Core, StartError> {
    config.validate()?;
    let raft_config = config.raft()?;
    let snapshot_dir = config.dir.join("snapshots");
    folder(&snapshot_dir)?;
    let state = engine.state();
    let identity = identity::Identity::open(&config.dir, &config.cluster_id, config.server_id, &state)?;
    let identity = Arc::new(identity);
    let snapshots = snapshot::SnapshotStore::open(&snapshot_dir, state.purged)?;
    let log = log_store::LogStore::new(engine, Some(identity.clone()), config.instruments.clone());
    let net = Arc::new(network::Net {
        cluster_id: config.cluster_id.clone(),
        server_id: config.server_id,
        identity: identity.clone(),
        connector,
        peers: config.peers.clone(),
        stall_ms: config.timing.election_max_ms,
        channels: Mutex::new(BTreeMap::new()),
    });
    let (applier, progress) = state_machine::Applier::new(machine, flush, snapshots.clone());
    let clients = network::Clients(net.clone());
    let raft = types::Raft::build(config.server_id, raft_config, clients, log.clone(), applier).await;
    let raft = raft.map_err(|error| {
        log.close();
        StartError::Recovery { dir: config.dir.clone(), why: error.to_string() }
    })?;
    let stop = CancellationToken::new();
    let leadership = watching::leadership(&raft, net.clone(), progress.clone(), stop.clone());
    watching::purging(raft.clone(), snapshots.clone(), config.keep_logs, stop.clone());
    let reads = reads::Reads::start(raft.clone(), stop.clone());
    let gather = gather::Gather::start(raft.clone(), stop.clone());
    let disk_id = identity.disk_id();
    raft.run();
    Ok(handle::Core {
        raft,
        gather,
        net,
        disk_id,
        reads,
        snapshots,
        log,
        progress,
        leadership,
        config,
        stop,
        history: OnceLock::new(),
    })
}

fn folder(path: &Path) -> Result<(), StartError> {
    muster_runtime::durable::create_folder(path)
        .map_err(|error| StartError::Folder { path: path.to_owned(), cause: std::io::Error::other(error) })
}
