//! Proof 5: a node is lost for good, or cut off.

use super::{job, observe};
use muster_proto::client::Node;
use muster_tests::cluster::observer::Sightings;
use muster_tests::cluster::wait::{boot_ms, until};
use muster_tests::cluster::{Options, SUSPECT_AFTER_MS, TestCluster};

/// Agents renew their leases at least so often in these clusters, so that a server may have heard
/// the last of a node so long before its death.
const RENEWAL_MS: u64 = SUSPECT_AFTER_MS / 5;
/// Resolution of the clock that the observer starts from, and of its looks.
const BLUR_MS: u64 = 50;

struct Lost {
    cluster: TestCluster,
    job: u64,
    node: String,
    killed_at_ms: u64,
    seen: Sightings,
}

/// Runs a gang on two whole nodes, kills on one of them, and waits for the gang's end elsewhere.
async fn lose_a_node(with_shims: bool) -> Lost {
    let mut cluster = TestCluster::start(3, 4, Options::default()).await;
    let (user, gate, side_gate) = (cluster.user.clone(), cluster.gate("moved"), cluster.gate("side"));
    let observer = observe(&cluster);
    let id = user.submit_job(&job("moved", 2, 8, &gate.script())).await;
    let node = cluster.ranks_running(id, 1, 16).await[0].node.clone();
    let side = user.submit_job(&job("side", 1, 2, &side_gate.script())).await;
    cluster.ranks_running(side, 1, 2).await;

    let (leader, moment) = cluster.freeze_with_report_pending(|| side_gate.open_for(1, 0)).await;
    let what = if with_shims { "the agent and the shims" } else { "the agent alone" };
    moment.stands_for(&format!("SIGKILL to {what} of {node}"));
    let agent = cluster.agent_named(&node);
    let killed_at_ms = boot_ms();
    cluster.agents[agent].kill_9();
    if with_shims {
        cluster.kill_below(&node);
    }
    cluster.servers[leader].thaw();

    let second = cluster.ranks_running(id, 2, 16).await;
    assert!(second.iter().all(|rank| rank.node != node), "attempt 2 runs elsewhere: {second:?}");
    let lost = user.node(&node).await;
    assert_eq!(lost.state, "FENCED", "{lost:?}");
    assert_eq!(device_states(&lost), ["UNKNOWN"; 8], "not free before there is evidence");
    gate.open();
    side_gate.open();
    let job = user.ended(id).await;
    assert_eq!((job.state.as_str(), job.exit_code, job.attempt), ("SUCCEEDED", Some(0), 2));
    assert_eq!(job.gangs[0].attempts[0].cause, "node_lost");
    until("the end of all ranks", async || cluster.ranks().is_empty().then_some(())).await;
    let seen = observer.finish();
    Lost { cluster, job: id, node, killed_at_ms, seen }
}

fn device_states(node: &Node) -> Vec<&str> {
    node.devices.iter().map(|device| device.state.as_str()).collect()
}

impl Lost {
    fn assert_waited(&self) {
        self.seen.assert_attempts_apart(self.job, 1);
        self.seen.assert_devices_never_shared();
        let waited_ms = self.seen.first(self.job, 2).0.saturating_sub(self.killed_at_ms);
        let fence_after_ms = self.cluster.options.fence_after_ms;
        println!("attempt 2 started {waited_ms} ms after the kill; the fencing wait is {fence_after_ms} ms");
        assert!(waited_ms + RENEWAL_MS + BLUR_MS >= fence_after_ms, "only {waited_ms} ms after the kill");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_of_a_lost_node_moves_after_the_fencing_wait_and_its_devices_stay_unknown_until_there_is_evidence() {
    let mut lost = lose_a_node(true).await;
    lost.assert_waited();
    let node = lost.cluster.user.node(&lost.node).await;
    assert_eq!((node.state.as_str(), device_states(&node)), ("FENCED", vec!["UNKNOWN"; 8]), "time alone frees nothing");
    // The agent comes back with its store and proves that nothing is left.
    let agent = lost.cluster.agent_named(&lost.node);
    lost.cluster.agents[agent].start();
    until("free devices", async || {
        let node = lost.cluster.user.node(&lost.node).await;
        (node.state == "UP" && device_states(&node) == ["FREE"; 8]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranks_of_a_cut_off_node_are_ended_by_their_shims_before_the_work_starts_elsewhere() {
    let lost = lose_a_node(false).await;
    lost.assert_waited();
    let ends = lost.seen.of(lost.job, 1).filter(|seen| seen.node == lost.node).filter_map(|seen| seen.gone);
    let last = ends.map(|gone| gone.0).max().expect("ranks of the node were seen");
    // They outlive their agent as long as the lease allows, and no longer: the lease is the fencing
    // wait without the time for killing (1000 ms) and for drifting clocks (500 ms).
    let lease_ms = lost.cluster.options.fence_after_ms - 1_500;
    let ended_ms = last.saturating_sub(lost.killed_at_ms);
    println!("the last rank of {} ended {ended_ms} ms after its agent was killed", lost.node);
    assert!(ended_ms + 1_000 >= lease_ms, "ended early, after {ended_ms} ms");
    assert!(ended_ms <= lost.cluster.options.fence_after_ms, "ended late, after {ended_ms} ms");
}
