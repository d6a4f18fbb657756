//! openraft's own conformance suite for storage, on both engines.

use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

use super::toy::Toy;
use crate::consensus::engine::LogEngine;
use crate::consensus::log_store::LogStore;
use crate::consensus::machine::Erased;
use crate::consensus::snapshot::SnapshotStore;
use crate::consensus::state_machine::Applier;
use crate::consensus::types::TypeConfig;
use crate::consensus::{MemDisk, OnSync, WalEngine, WalLimits};
use crate::instruments::Instruments;

enum Kind {
    Disk,
    Memory,
}

impl StoreBuilder<TypeConfig, LogStore, Applier, TempDir> for Kind {
    async fn build(&self) -> Result<(TempDir, LogStore, Applier), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let engine: Box<dyn LogEngine> = match self {
            Kind::Disk => Box::new(WalEngine::open(dir.path(), WalLimits::default(), OnSync::ignored()).unwrap()),
            Kind::Memory => Box::new(MemDisk::new().open()),
        };
        let snapshots = dir.path().join("snapshots");
        std::fs::create_dir(&snapshots).unwrap();
        let snapshots = SnapshotStore::open(&snapshots, None).unwrap();
        let (machine, _views) = Erased::new(Toy::default());
        let (applier, _progress) = Applier::new(Box::new(machine), Arc::new(|_| Ok(())), snapshots);
        Ok((dir, LogStore::new(engine, None, Instruments::default()), applier))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_on_disk_passes_the_storage_suite() {
    Suite::test_all(Kind::Disk).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_in_memory_passes_the_storage_suite() {
    Suite::test_all(Kind::Memory).await.unwrap();
}
