//! Everything outside a server that it reaches, in one place: a process gets the machine's own, a simulated cluster its
//! pretended ones.

use crate::config::ServerConfig;
use crate::consensus::{LogEngine, MemDisk};
use crate::decisions::DecisionLog;
use crate::history::{HistoryStore, MemHistory};
use crate::machine::Witness;
use crate::server::ServerError;
use muster_runtime::clock::{Clock, SystemClock};
use muster_runtime::identity::{Authority, Credentials, Network, TlsNetwork};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What a server is put together from.
pub struct Seams {
    pub clock: Arc<dyn Clock>,
    pub network: Arc<dyn Network>,
    pub disk: Disk,
    /// Who this server is towards others, and the cluster's authority.
    pub credentials: Credentials,
    pub authority: Arc<Authority>,
    /// Told of every applied entry.
    pub witness: Option<Witness>,
}

/// Where the log and the history are kept. Small sealed files and snapshots, which are synced before anybody hears of
/// them, are always in the server's folder.
pub enum Disk {
    /// In the server's folder.
    Folder,
    /// In memory that forgets what was not synced.
    Memory { log: MemDisk, history: MemHistory },
}

impl Seams {
    /// The machine's own clock, network and disk.
    pub fn of_machine(credentials: Credentials, authority: Arc<Authority>) -> Self {
        let (clock, network) = (Arc::new(SystemClock), Arc::new(TlsNetwork));
        Self { clock, network, disk: Disk::Folder, credentials, authority, witness: None }
    }
}

impl Disk {
    /// None when consensus opens its own in the server's folder.
    pub(crate) fn log(&self) -> Option<Box<dyn LogEngine>> {
        match self {
            Disk::Folder => None,
            Disk::Memory { log, .. } => Some(Box::new(log.open())),
        }
    }

    /// None in memory, and where the settings want none.
    pub(crate) fn decisions(&self, config: &ServerConfig) -> Option<DecisionLog> {
        match self {
            Disk::Folder => open_decisions(config),
            Disk::Memory { .. } => None,
        }
    }

    pub(crate) fn history(&self, config: &ServerConfig) -> Result<HistoryStore, ServerError> {
        let folder = config.dir.join("history");
        let opened = match self {
            Disk::Folder => open_history(&folder),
            Disk::Memory { history, .. } => HistoryStore::open_memory(history.clone()),
        };
        opened.map_err(|cause| ServerError::History { folder: folder.display().to_string(), cause })
    }
}

fn open_decisions(config: &ServerConfig) -> Option<DecisionLog> {
    let bytes_max = u64::from(config.decision_log_mib) << 20;
    if bytes_max == 0 {
        return None;
    }
    match DecisionLog::open(&config.dir.join("decisions"), bytes_max) {
        Ok(log) => Some(log),
        // Nothing of the cluster depends on it.
        Err(error) => {
            tracing::warn!(%error, "the decision log cannot be opened; decisions of this server cannot be made again");
            None
        }
    }
}

fn open_history(folder: &Path) -> io::Result<HistoryStore> {
    HistoryStore::open(folder).map_err(|cause| io::Error::other(cause.to_string()))
}
