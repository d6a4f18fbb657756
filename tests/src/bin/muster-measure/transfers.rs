//! Leadership handed over, again and again, in the middle of a flood of submits.

use muster_proto::client::TransferLeaderRequest;
use muster_tests::cluster::TestCluster;
use muster_tests::cluster::flood::{Flood, all_jobs};
use std::time::Duration;

const TRANSFERS: u64 = 40;
const LANES: usize = 8;
/// What follows a transfer and still counts to it, in microseconds.
const AFTER_US: u64 = 200_000;

/// Prints how many submits were lost, and the longest time without an answer around each transfer.
pub async fn of_leadership(cluster: &TestCluster) {
    let flood = Flood::start(&cluster.user, "transfers", LANES);
    flood.more(200).await;
    let calm_from_us = flood.now_us();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let calm_to_us = flood.now_us();
    let mut windows = Vec::new();
    for transfer in 0..TRANSFERS {
        tokio::time::sleep(Duration::from_millis(400 + transfer * 37 % 200)).await;
        let from_us = flood.now_us();
        let request = TransferLeaderRequest { request_id: format!("t{transfer}"), ..TransferLeaderRequest::default() };
        let moved = cluster.admin.call("transfer", async |mut api| api.transfer_leader(request.clone()).await).await;
        assert!(moved.changed, "another server leads");
        windows.push((from_us, flood.now_us() + AFTER_US));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let answered = flood.stop().await;
    let there = all_jobs(&cluster.user).await;
    let lost = answered.jobs.iter().filter(|(key, id)| there.get(id) != Some(key)).count();
    let mut gaps_ms: Vec<f64> = windows.iter().map(|(from, to)| answered.longest_gap_ms(*from, *to)).collect();
    gaps_ms.sort_by(f64::total_cmp);
    println!(
        "{TRANSFERS} x leadership handed over in a flood: {} acknowledged, {lost} lost; nobody answered for {:.1} ms in \
         the median, {:.1} at most ({:.1} at most in two seconds without a transfer)",
        answered.jobs.len(),
        gaps_ms[gaps_ms.len() / 2],
        gaps_ms[gaps_ms.len() - 1],
        answered.longest_gap_ms(calm_from_us, calm_to_us),
    );
}
