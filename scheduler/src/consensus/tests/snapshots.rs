//! Snapshots bound the log, bring laggards up, and survive damage.

use std::path::PathBuf;

use super::cluster::{Cluster, within};
use crate::consensus::{ConsensusConfig, Member, WalLimits};

fn small(config: &mut ConsensusConfig) {
    config.snapshot_every = 20;
    config.keep_logs = 5;
    config.log = WalLimits { segment_bytes: 8192, ..WalLimits::default() };
}

fn files(dir: PathBuf, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.sort();
    files
}

async fn fill(cluster: &Cluster, count: usize) -> u64 {
    let mut index = 0;
    for number in 0..count {
        index = cluster.propose(&format!("{number} {}", "x".repeat(200))).await;
    }
    index
}

async fn purged_beyond(cluster: &Cluster, id: u64, index: u64) {
    within("the purge", async {
        while cluster.handle(id).status().purged.unwrap_or(0) <= index {
            cluster.handle(id).snapshot_now().await.unwrap();
            cluster.propose("more").await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_laggard_catches_up_by_snapshot() {
    let mut cluster = Cluster::start(3, small).await;
    let missed = fill(&cluster, 5).await;
    cluster.agree(missed).await;
    let leader = cluster.leader().await;
    let lagging = (1..=3).find(|id| *id != leader).unwrap();
    cluster.kill(lagging).await;
    fill(&cluster, 120).await;
    for id in (1..=3).filter(|id| *id != lagging) {
        purged_beyond(&cluster, id, missed + 10).await;
    }
    cluster.boot(lagging).await.unwrap();
    let index = cluster.propose("all three").await;
    let state = cluster.agree(index).await;
    assert!(state.count > 120);
    assert!(cluster.handle(lagging).status().purged.unwrap() > missed, "it came by the log, not by a snapshot");
    // And again from its own disk.
    cluster.kill(lagging).await;
    cluster.boot(lagging).await.unwrap();
    assert_eq!(cluster.agree(index).await.hash, state.hash);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_snapshots_and_the_log_since_the_older_are_kept() {
    let mut cluster = Cluster::start(1, small).await;
    fill(&cluster, 100).await;
    purged_beyond(&cluster, 1, 20).await;
    let index = cluster.propose("last").await;
    let before = cluster.agree(index).await;
    let status = cluster.handle(1).status();
    // A third is there for a moment: the newest is published before the oldest goes.
    let snapshots = within("the oldest snapshot's removal", async {
        loop {
            let found = files(cluster.dir(1).join("snapshots"), "snap");
            if found.len() <= 2 {
                return found;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(snapshots.len(), 2, "{snapshots:?}");
    let older = cluster.handle(1).core.snapshots.fallback().unwrap();
    assert!(status.purged.unwrap() <= older.index, "{status:?} purged beyond the older snapshot {older}");
    cluster.kill(1).await;
    // The newest is damaged: the older one and the log behind it give the same state.
    let newest = snapshots.last().unwrap();
    let mut bytes = std::fs::read(newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(newest, bytes).unwrap();
    cluster.boot(1).await.unwrap();
    assert_eq!(files(cluster.dir(1).join("snapshots"), "damaged").len(), 1);
    let after = cluster.agree(index).await;
    assert_eq!((after.hash, after.count), (before.hash, before.count));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_waits_for_what_must_be_durable_first() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use crate::consensus::{Consensus, FlushBeforePurge, Machine, MachineError, MemDisk};

    struct Watched(super::toy::Toy, Arc<AtomicU64>);
    impl Machine for Watched {
        type Response = u64;
        type View = Arc<super::toy::State>;
        fn apply(&mut self, index: u64, term: u64, payload: &[u8]) -> Result<u64, MachineError> {
            self.0.apply(index, term, payload)
        }
        fn skip(&mut self, index: u64, term: u64) -> Result<(), MachineError> {
            self.0.skip(index, term)
        }
        fn view(&self) -> Self::View {
            self.0.view()
        }
        fn encode(view: &Self::View) -> Result<Vec<u8>, MachineError> {
            super::toy::Toy::encode(view)
        }
        fn restore(&mut self, index: u64, bytes: &[u8]) -> Result<(), MachineError> {
            self.0.restore(index, bytes)
        }
        fn flush_before_purge(&self) -> FlushBeforePurge {
            let flushed = self.1.clone();
            Arc::new(move |index| {
                flushed.store(index, Ordering::SeqCst);
                Ok(())
            })
        }
    }

    let dir = tempfile::tempdir().unwrap();
    let flushed = Arc::new(AtomicU64::new(0));
    let machine = Watched(super::toy::Toy::default(), flushed.clone());
    let connector = Arc::new(super::cluster::Plain { own: 1, cuts: Default::default() });
    let config = ConsensusConfig::new("test", 1, dir.path());
    let engine = Box::new(MemDisk::new().open());
    let handle = Consensus::start_on(config, engine, machine, connector).await.unwrap();
    let alone = Member { name: "s1".into(), addr: "127.0.0.1:1".into() };
    handle.initialize([(1, alone)].into()).await.unwrap();
    let index = handle.propose("x".into()).await.unwrap().index;
    let snapshot = within("the snapshot", handle.snapshot_now()).await.unwrap().unwrap();
    assert!(snapshot.index >= index && flushed.load(Ordering::SeqCst) >= index);
    handle.shutdown().await;
}
