//! The snapshots without a Raft above them, for tests that cut the power under them.

use std::path::Path;

use super::{SnapshotError, SnapshotStore};
use crate::consensus::types::{LogPos, SnapshotMeta, StoredMembership};

/// A [`SnapshotStore`] whose states are plain bytes. All calls block.
pub struct SnapshotProbe(SnapshotStore);

impl SnapshotProbe {
    /// Opens the folder as a server does whose log begins behind `purged`.
    pub fn open(dir: &Path, purged: Option<LogPos>) -> Result<Self, SnapshotError> {
        SnapshotStore::open(dir, purged).map(SnapshotProbe)
    }

    /// Writes and publishes a snapshot.
    pub fn write(&self, last: LogPos, state: &[u8]) -> Result<(), SnapshotError> {
        let meta = SnapshotMeta { last_log_id: Some(last.log_id()), last_membership: StoredMembership::default() };
        self.0.write(&meta, state).map(drop)
    }

    /// Takes over the newest snapshot of another store, in parts of so many bytes, as from another server.
    pub fn install(&self, from: &SnapshotProbe, part_bytes: usize) -> Result<(), SnapshotError> {
        let Some(source) = from.0.newest() else { return Ok(()) };
        let mut incoming = self.0.receive(source.file_bytes())?;
        let mut at = 0;
        while at < source.file_bytes() {
            let part = source.read_at(at, part_bytes).map_err(|cause| source.io(cause))?;
            at += part.len() as u64;
            incoming.write(&part)?;
        }
        let received = incoming.finish()?;
        self.0.adopt(&received).map(drop)
    }

    /// The last entry in the newest snapshot, and its state.
    pub fn newest(&self) -> Result<Option<(LogPos, Vec<u8>)>, SnapshotError> {
        let Some(newest) = self.0.newest() else { return Ok(None) };
        let state = newest.state()?;
        Ok(newest.last().map(|last| (last, state)))
    }

    /// The log must reach back to here.
    pub fn fallback(&self) -> Option<LogPos> {
        self.0.fallback()
    }
}
