//! Proof 6: every server dies, and comes back later than the silence that servers tolerate.

use super::{job, job_off};
use muster_proto::client::{ClusterStatusReply, ListJobsRequest};
use muster_tests::cluster::ranks::check_lines;
use muster_tests::cluster::wait::until;
use muster_tests::cluster::{Options, SUSPECT_AFTER_MS, TestCluster};
use std::collections::BTreeMap;
use std::time::Duration;

/// The first server writes snapshots all the time, the others never: after a restart it continues
/// from a snapshot and the tail of its log, and they from their whole logs.
const SNAPSHOT_EVERY: [u64; 3] = [8, 1_000_000, 1_000_000];

fn assert_equal(statuses: &[ClusterStatusReply]) {
    let first = &statuses[0];
    for status in statuses {
        println!(
            "{}: applied {}, snapshot {}, state {}",
            status.server_name, status.applied_index, status.snapshot_index, status.state_hash
        );
        assert_eq!((status.applied_index, &status.state_hash), (first.applied_index, &first.state_hash));
    }
    assert!(first.snapshot_index > 0, "the first server has a snapshot");
    assert!(statuses[1..].iter().all(|status| status.snapshot_index == 0), "the others have their whole logs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_ranks_do_not_notice_that_all_servers_were_gone_and_nothing_acknowledged_is_lost() {
    let options = Options { fence_after_ms: 30_000, snapshot_every: SNAPSHOT_EVERY.to_vec(), ..Options::default() };
    let mut cluster = TestCluster::start(3, 4, options).await;
    let (user, gate, side_gate) = (cluster.user.clone(), cluster.gate("runs"), cluster.gate("side"));
    let id = user.submit_job(&job("runs", 4, 2, &gate.script())).await;
    let side = user.submit_job(&job("side", 1, 2, &side_gate.script())).await;
    cluster.ranks_running(id, 1, 8).await;
    cluster.ranks_running(side, 1, 2).await;
    // Too big to start beside the others.
    let mut acknowledged = BTreeMap::from([(id, "runs".to_owned()), (side, "side".to_owned())]);
    for number in 0..5 {
        let name = format!("waits-{number}");
        acknowledged.insert(user.submit_job(&job(&name, 4, 8, "true")).await, name);
    }
    assert_equal(&cluster.settled().await);

    let (leader, moment) = cluster.freeze_with_report_pending(|| side_gate.open_for(1, 0)).await;
    let before = cluster.ranks_of(id);
    moment.stands_for("SIGKILL to all servers");
    cluster.servers[leader].kill_9();
    cluster.servers.iter_mut().for_each(|server| server.kill_9());
    tokio::time::sleep(Duration::from_millis(3 * SUSPECT_AFTER_MS)).await;
    assert_eq!(cluster.ranks_of(id), before, "the ranks run on without a server");
    cluster.servers.iter_mut().for_each(|server| server.start());

    cluster.all_up().await;
    assert_equal(&cluster.settled().await);
    let request = ListJobsRequest::default();
    let jobs = user.call("ps", async |mut api| api.list_jobs(request.clone()).await).await.jobs;
    let found: BTreeMap<u64, String> = jobs.iter().map(|job| (job.id, job.name.clone())).collect();
    assert_eq!(found, acknowledged);
    let again = user.submit(&job("waits-0", 4, 8, "true"), "test-waits-0").await;
    assert!(again.existing, "a key is remembered");
    until("the report that waited", async || {
        let side = user.job(side).await;
        let exits = side.gangs[0].attempts[0].parts.iter().flat_map(|part| &part.exits);
        exits.map(|exit| (exit.rank, exit.code)).eq([(1, Some(0))]).then_some(())
    })
    .await;
    let running = user.job(id).await;
    assert_eq!((running.state.as_str(), running.attempt), ("RUNNING", 1));
    assert_eq!(cluster.ranks_of(id), before, "the same processes");

    gate.open();
    side_gate.open();
    for id in acknowledged.keys() {
        let job = user.ended(*id).await;
        assert_eq!((job.state.as_str(), job.attempt), ("SUCCEEDED", 1), "{}", job.name);
    }
    for (rank, text) in user.logs(id, 1).await {
        assert!(check_lines(rank, &text) > 30, "rank {rank} printed through the outage");
    }
    let off: Vec<&str> = cluster.places[1..].iter().map(|place| place.name.as_str()).collect();
    user.ended(user.submit_job(&job_off("after", 1, 1, "true", &off)).await).await;
    assert_equal(&cluster.settled().await);
}
