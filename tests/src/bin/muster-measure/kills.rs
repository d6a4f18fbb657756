//! `kill -9` of the leader, again and again, in the middle of a flood of submits.

use muster_tests::cluster::TestCluster;
use muster_tests::cluster::flood::{Flood, all_jobs};
use std::collections::BTreeSet;
use std::time::Duration;

const KILLS: u64 = 20;
const LANES: usize = 8;
/// Between two kills, so that the cluster is whole again; varied so that the kill meets every phase.
const BETWEEN_MS: u64 = 700;

/// Prints how many acknowledged submits were lost, how many ids came twice, and how long nobody was answered.
pub async fn of_the_leader(cluster: &mut TestCluster) {
    let flood = Flood::start(&cluster.user, "kills", LANES);
    let mut gaps_ms = Vec::new();
    for kill in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(BETWEEN_MS + kill * 37 % 300)).await;
        let leader = cluster.leader().await;
        cluster.servers[leader].kill_9();
        let killed_us = flood.now_us();
        let answered_us = loop {
            // What was on its way when the leader died may still arrive.
            let last_us = flood.last_us();
            if last_us > killed_us + 20_000 {
                break last_us;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        gaps_ms.push((answered_us - killed_us) as f64 / 1e3);
        cluster.servers[leader].start();
        cluster.settled_enough().await;
    }
    let answered = flood.stop().await;
    let there = all_jobs(&cluster.user).await;
    let lost = answered.jobs.iter().filter(|(key, id)| there.get(id) != Some(key)).count();
    let ids: BTreeSet<u64> = answered.jobs.values().copied().collect();
    gaps_ms.sort_by(f64::total_cmp);
    println!(
        "{KILLS} x kill -9 of the leader in a flood: {} acknowledged, {lost} lost, {} ids given twice; \
         nobody answered for {:.0} ms in the median, {:.0} at most",
        answered.jobs.len(),
        answered.jobs.len() - ids.len(),
        gaps_ms[gaps_ms.len() / 2],
        gaps_ms[gaps_ms.len() - 1],
    );
}
