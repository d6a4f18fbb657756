//! A follower that is far behind catches up, by the log or by a snapshot, while the leader goes on serving.
//! `MUSTER_BEHIND=1000000` sets how far.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use super::cluster::{Cluster, Handle};
use crate::consensus::{ConsensusConfig, Timing};

const ENTRIES: u64 = 20_000;
const IN_FLIGHT: u64 = 256;
/// Like a submit's entry.
const ENTRY_BYTES: usize = 200;
/// For a million, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(900);

fn entries() -> u64 {
    std::env::var("MUSTER_BEHIND").ok().and_then(|text| text.parse().ok()).unwrap_or(ENTRIES)
}

fn calm(config: &mut ConsensusConfig) {
    config.timing = Timing { heartbeat_ms: 100, election_min_ms: 1_500, election_max_ms: 3_000 };
    config.leader_wait_ms = 20_000;
}

fn by_log(config: &mut ConsensusConfig) {
    calm(config);
    config.snapshot_every = u64::MAX / 4;
}

fn by_snapshot(config: &mut ConsensusConfig) {
    calm(config);
    (config.snapshot_every, config.keep_logs) = (5_000, 100);
}

/// On whichever of the servers leads.
async fn propose(handles: &[Handle], text: &Bytes) {
    for handle in handles.iter().cycle() {
        match handle.propose(text.clone()).await {
            Ok(_) => return,
            Err(error) => println!("{error}"),
        }
    }
}

async fn flood(handles: &[Handle], count: u64) {
    let left = Arc::new(AtomicU64::new(count));
    let lanes = (0..IN_FLIGHT).map(|_| {
        let (left, handles) = (left.clone(), handles.to_vec());
        tokio::spawn(async move {
            let text = Bytes::from(vec![7; ENTRY_BYTES]);
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                propose(&handles, &text).await;
            }
        })
    });
    for lane in lanes.collect::<Vec<_>>() {
        timeout(PATIENCE, lane).await.expect("the flood ends").expect("no panic");
    }
}

/// One proposal after the other; returns how many there were and how long the slowest took.
async fn serve(handles: Vec<Handle>, stop: Arc<AtomicBool>) -> (u64, Duration) {
    let (mut served, mut slowest) = (0, Duration::ZERO);
    while !stop.load(Ordering::Acquire) || served < 100 {
        let begun = Instant::now();
        propose(&handles, &Bytes::from_static(b"meanwhile")).await;
        (served, slowest) = (served + 1, slowest.max(begun.elapsed()));
    }
    (served, slowest)
}

/// Returns the status of the one that was away, once it has everything.
async fn catch_up(how: &str, tune: fn(&mut ConsensusConfig)) -> crate::consensus::Status {
    let entries = entries();
    let mut cluster = Cluster::start(3, tune).await;
    let leader = cluster.leader().await;
    let away = leader % 3 + 1;
    cluster.propose("before").await;
    cluster.kill(away).await;
    let handles: Vec<Handle> = cluster.servers.values().map(|server| server.handle.clone()).collect();
    let begun = Instant::now();
    flood(&handles, entries).await;
    let flooded = begun.elapsed();
    let behind = handles.iter().map(|handle| handle.applied_index()).max().unwrap_or(0);
    assert!(behind >= entries);

    let stop = Arc::new(AtomicBool::new(false));
    let serving = tokio::spawn(serve(handles, stop.clone()));
    let begun = Instant::now();
    cluster.boot(away).await.unwrap();
    let mut applied = cluster.handle(away).applied();
    let there = applied.wait_for(|at| at.is_some_and(|at| at.index >= behind));
    timeout(PATIENCE, there).await.expect("it catches up").unwrap();
    let took = begun.elapsed();
    stop.store(true, Ordering::Release);
    let (served, slowest) = serving.await.expect("no panic");
    println!(
        "{entries} entries behind (written in {flooded:.1?}), caught up by the {how} in {took:.2?}; meanwhile {served} \
         proposals, the slowest took {slowest:.1?}"
    );
    let index = cluster.propose("after").await;
    cluster.agree(index).await;
    cluster.handle(away).status()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_follower_far_behind_catches_up_by_the_log_while_the_leader_serves() {
    let status = catch_up("log", by_log).await;
    assert_eq!((status.snapshot, status.purged), (None, None), "no snapshot was needed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_follower_far_behind_catches_up_by_a_snapshot_while_the_leader_serves() {
    let status = catch_up("snapshot", by_snapshot).await;
    assert!(status.snapshot.is_some_and(|at| at.index >= entries() / 2), "{status:?}");
}
