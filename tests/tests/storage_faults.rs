//! Disks that fail under a running server: it stops and says why, acknowledges nothing that is not durable, and comes back
//! with all that it had acknowledged.

use muster_proto::client::SubmitRequest;
use muster_tests::cluster::small_disk::SmallDisk;
use muster_tests::cluster::wait::{PATIENCE, until};
use muster_tests::cluster::{Options, TestCluster};
use muster_tests::crash::preload;
use muster_tests::crash::record::{Event, parse};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A job that takes its node for itself, so that the next ones wait, with so much ballast.
fn blocking_job(name: &str, ballast: usize) -> Value {
    let run = format!("sleep 1000 # {}", "x".repeat(ballast));
    json!({ "name": name, "gang": { "nodes": 1, "gpus_per_node": 8, "run": run } })
}

/// Submits once, to one server; the id if it was acknowledged.
async fn submit_once(cluster: &TestCluster, server: usize, name: &str, ballast: usize) -> Option<u64> {
    let request = SubmitRequest {
        spec_json: blocking_job(name, ballast).to_string(),
        key: format!("key-{name}"),
        ..SubmitRequest::default()
    };
    let mut api = cluster.user.api(&cluster.addresses[server]);
    let answer = tokio::time::timeout(Duration::from_secs(3), api.submit(request)).await;
    answer.ok()?.ok()?.into_inner().job.map(|job| job.id)
}

/// Submits until the server is gone; the ids that were acknowledged.
async fn flood_until_it_stops(cluster: &mut TestCluster, server: usize, ballast: usize) -> BTreeSet<u64> {
    let begun = std::time::Instant::now();
    let mut acknowledged = BTreeSet::new();
    for number in 0.. {
        if !cluster.servers[server].is_running() {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "the server still runs after {number} submits");
        acknowledged.extend(submit_once(cluster, server, &format!("flood-{number}"), ballast).await);
    }
    acknowledged
}

async fn assert_all_there(cluster: &TestCluster, acknowledged: &BTreeSet<u64>) {
    for id in acknowledged {
        assert_eq!(cluster.user.job(*id).await.id, *id);
    }
}

fn said(cluster: &TestCluster, server: usize) -> String {
    fs::read_to_string(&cluster.servers[server].log).unwrap_or_default()
}

/// Waits until the server has ended by itself; it must not have called that a success.
fn assert_ended_badly(cluster: &mut TestCluster, server: usize) {
    let ended = cluster.servers[server].ended_within(PATIENCE).expect("it stops by itself");
    assert!(!ended.success(), "it ended with {ended}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_stops_the_server_at_once_and_is_never_tried_again() {
    let mut cluster = TestCluster::start(3, 1, Options::default()).await;
    let victim = cluster.leader().await;
    let log_dir = cluster.data_dir(victim).join("log");
    let (record, wish) = (cluster.folder().join("record"), cluster.folder().join("fail-a-sync"));
    let mut environment = preload::recorded(&log_dir, &record);
    environment.push(preload::failing_once(&wish));
    cluster.servers[victim].kill_9();
    cluster.servers[victim].set_environment(environment);
    cluster.servers[victim].start();
    cluster.settled().await;
    let before = submit_once(&cluster, victim, "before", 0).await.expect("all is well so far");

    fs::write(&wish, "").unwrap();
    let mut acknowledged = flood_until_it_stops(&mut cluster, victim, 0).await;
    acknowledged.insert(before);
    assert!(!wish.exists(), "no sync failed");
    assert_ended_badly(&mut cluster, victim);
    let said = said(&cluster, victim);
    assert!(said.contains("Input/output error"), "it does not say why it stopped");
    assert_nothing_after_the_failure(&record);

    // The others go on, and a start on a sound disk brings it back.
    acknowledged.insert(cluster.user.submit_job(&blocking_job("meanwhile", 0)).await);
    cluster.servers[victim].set_environment(Vec::new());
    cluster.servers[victim].start();
    cluster.settled().await;
    assert_all_there(&cluster, &acknowledged).await;
}

/// After the sync that failed, neither was it repeated nor anything else written into the log's files.
fn assert_nothing_after_the_failure(record: &Path) {
    let events = parse(&fs::read(record).unwrap()).unwrap();
    let failed = events.iter().position(|event| matches!(event, Event::SyncEnded { good: false, .. }));
    let after = &events[failed.expect("a sync failed")..];
    let later: Vec<&Event> = after
        .iter()
        .filter(|event| matches!(event, Event::SyncBegan { .. } | Event::Written { .. } | Event::Renamed { .. }))
        .collect();
    assert!(later.is_empty(), "after a failed sync the log was still used: {later:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_the_server_and_loses_nothing_that_was_acknowledged() {
    const DISK_MIB: u32 = 48;
    const BALLAST: usize = 60_000;
    let mut cluster = TestCluster::start(1, 1, Options { fence_after_ms: 120_000, ..Options::default() }).await;
    cluster.servers[0].kill_9();
    let disk = SmallDisk::over(&cluster.data_dir(0), DISK_MIB);
    cluster.servers[0].set_wrapper(&disk.entry());
    cluster.servers[0].start();
    let before = cluster.user.submit_job(&blocking_job("before", 0)).await;

    disk.fill();
    let mut acknowledged = flood_until_it_stops(&mut cluster, 0, BALLAST).await;
    acknowledged.insert(before);
    assert_ended_badly(&mut cluster, 0);
    assert!(said(&cluster, 0).contains("No space left on device"), "it does not say why it stopped");

    // Without room it does not pretend to work.
    cluster.servers[0].start();
    assert_ended_badly(&mut cluster, 0);

    disk.make_room();
    cluster.servers[0].start();
    cluster.leader().await;
    println!("{} jobs were acknowledged on a full disk", acknowledged.len() - 1);
    assert_all_there(&cluster, &acknowledged).await;
    cluster.user.submit_job(&blocking_job("after", BALLAST)).await;
}

/// The newest snapshot of a server.
fn newest_snapshot(data: &Path) -> Option<PathBuf> {
    let listed = fs::read_dir(data.join("snapshots")).ok()?;
    let names = listed.flatten().map(|entry| entry.path());
    names.filter(|path| path.extension().is_some_and(|extension| extension == "snap")).max()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_cut_in_the_middle_is_moved_aside_and_the_state_is_the_same() {
    let mut cluster = TestCluster::start(1, 1, Options { snapshot_every: vec![20], ..Options::default() }).await;
    let mut jobs = BTreeSet::new();
    let data = cluster.data_dir(0);
    let first = until("a snapshot", async || {
        jobs.insert(cluster.user.submit_job(&blocking_job(&format!("first-{}", jobs.len()), 0)).await);
        newest_snapshot(&data)
    })
    .await;
    until("another", async || {
        jobs.insert(cluster.user.submit_job(&blocking_job(&format!("second-{}", jobs.len()), 0)).await);
        newest_snapshot(&data).filter(|newest| *newest != first)
    })
    .await;
    cluster.servers[0].kill_9();
    let newest = newest_snapshot(&data).expect("there are two");
    let whole = fs::read(&newest).unwrap();
    fs::write(&newest, &whole[..whole.len() / 2]).unwrap();
    cluster.servers[0].start();
    cluster.leader().await;
    assert!(newest.with_extension("damaged").exists(), "what was cut is kept for a look");
    assert_all_there(&cluster, &jobs).await;
}
