//! `kill -9` of the leader, again and again, in the middle of a flood of submits.

use muster_proto::client::{ListJobsRequest, SubmitRequest};
use muster_tests::cluster::TestCluster;
use muster_tests::cluster::people::Person;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const KILLS: u64 = 20;
const LANES: usize = 8;
/// Between two kills, so that the cluster is whole again; varied so that the kill meets every phase.
const BETWEEN_MS: u64 = 700;

#[derive(Default)]
struct Flood {
    stop: AtomicBool,
    /// When the last submit was acknowledged, in microseconds since the flood began.
    last_us: AtomicU64,
    /// Key to job.
    acknowledged: Mutex<BTreeMap<String, u64>>,
}

/// Prints how many acknowledged submits were lost, how many ids came twice, and how long nobody was answered.
pub async fn of_the_leader(cluster: &mut TestCluster) {
    let flood = Arc::new(Flood::default());
    let began = Instant::now();
    let lanes: Vec<_> =
        (0..LANES).map(|lane| tokio::spawn(one_lane(flood.clone(), cluster.user.clone(), lane, began))).collect();
    let mut gaps_ms = Vec::new();
    for kill in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(BETWEEN_MS + kill * 37 % 300)).await;
        let leader = cluster.leader().await;
        cluster.servers[leader].kill_9();
        let killed_us = began.elapsed().as_micros() as u64;
        let answered_us = loop {
            // What was on its way when the leader died may still arrive.
            let last_us = flood.last_us.load(Ordering::Acquire);
            if last_us > killed_us + 20_000 {
                break last_us;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        gaps_ms.push((answered_us - killed_us) as f64 / 1e3);
        cluster.servers[leader].start();
        cluster.settled_enough().await;
    }
    flood.stop.store(true, Ordering::Release);
    for lane in lanes {
        lane.await.expect("no panic");
    }
    let acknowledged = flood.acknowledged.lock().expect("no panic").clone();
    let there = all_jobs(&cluster.user).await;
    let lost = acknowledged.iter().filter(|(key, id)| there.get(id) != Some(key)).count();
    let ids: BTreeSet<u64> = acknowledged.values().copied().collect();
    gaps_ms.sort_by(f64::total_cmp);
    println!(
        "{KILLS} x kill -9 of the leader in a flood: {} acknowledged, {lost} lost, {} ids given twice; \
         nobody answered for {:.0} ms in the median, {:.0} at most",
        acknowledged.len(),
        acknowledged.len() - ids.len(),
        gaps_ms[gaps_ms.len() / 2],
        gaps_ms[gaps_ms.len() - 1],
    );
}

/// Submits held jobs one after the other, each until it is acknowledged, always under the same key.
async fn one_lane(flood: Arc<Flood>, user: Person, lane: usize, began: Instant) {
    let servers = user.servers.clone();
    let mut at = lane % servers.len();
    let mut api = user.api(&servers[at]);
    for count in 0_u64.. {
        let key = format!("kills-{lane}-{count}");
        let spec = json!({"name": "kills", "gang": {"nodes": 1, "gpus_per_node": 1, "run": "true"}});
        let request =
            SubmitRequest { spec_json: spec.to_string(), key: key.clone(), hold: true, ..SubmitRequest::default() };
        let id = loop {
            if flood.stop.load(Ordering::Acquire) {
                return;
            }
            match tokio::time::timeout(Duration::from_secs(2), api.submit(request.clone())).await {
                Ok(Ok(reply)) => break reply.into_inner().job.map_or(0, |job| job.id),
                _ => {
                    at = (at + 1) % servers.len();
                    api = user.api(&servers[at]);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        };
        flood.last_us.store(began.elapsed().as_micros() as u64, Ordering::Release);
        flood.acknowledged.lock().expect("no panic").insert(key, id);
    }
}

/// Every live job of this user: id to key.
async fn all_jobs(user: &Person) -> BTreeMap<u64, String> {
    let mut jobs = BTreeMap::new();
    let mut page = String::new();
    loop {
        let request = ListJobsRequest { limit: 1_000, page: page.clone(), ..ListJobsRequest::default() };
        let reply = user.call("ps", async |mut api| api.list_jobs(request.clone()).await).await;
        jobs.extend(reply.jobs.into_iter().map(|job| (job.id, job.key)));
        page = reply.next_page;
        if page.is_empty() {
            return jobs;
        }
    }
}
