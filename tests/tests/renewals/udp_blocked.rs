//! UDP blocked in the middle of a run, in a network namespace that the test makes for itself.

use muster_proto::client::{ClusterStatusRequest, EventsRequest, Node};
use muster_tests::cluster::people::wall_ms;
use muster_tests::cluster::wait::until;
use muster_tests::cluster::{Options, TestCluster, alone};
use serde_json::json;
use std::process::Command;
use std::time::Duration;

/// Set in the process that runs inside the namespace.
const INSIDE: &str = "MUSTER_TEST_IN_NAMESPACE";
const NAME: &str = "udp_blocked::udp_blocked_in_the_middle_of_a_run_loses_no_lease_and_the_fast_way_returns";
const AGENTS: usize = 2;

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| format!("ip: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// Loopback, with the rule for local addresses behind a place where others can go before it.
fn set_up() -> Result<(), String> {
    ip(&["link", "set", "lo", "up"])?;
    ip(&["rule", "add", "pref", "200", "lookup", "local"])?;
    ip(&["rule", "del", "pref", "0"])?;
    block(true)?;
    block(false)
}

/// Every UDP packet is refused by the kernel, or none.
fn block(blocked: bool) -> Result<(), String> {
    match blocked {
        true => ip(&["rule", "add", "pref", "100", "ipproto", "udp", "prohibit"]),
        false => ip(&["rule", "del", "pref", "100"]),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn udp_blocked_in_the_middle_of_a_run_loses_no_lease_and_the_fast_way_returns() {
    if std::env::var_os(INSIDE).is_some() {
        set_up().expect("tried outside before");
        return inside().await;
    }
    let rule = ["--net", "ip", "rule", "add", "pref", "100", "ipproto", "udp", "prohibit"];
    let refused = match Command::new("unshare").args(rule).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(error.to_string()),
    };
    if let Some(why) = refused {
        println!("SKIPPED: no network namespace with a rule against UDP can be made here: {why}");
        return;
    }
    let _machine = alone().await;
    let own = std::env::current_exe().expect("a running program has a file");
    let mut again = tokio::process::Command::new("unshare");
    again.arg("--net").arg(own).args(["--exact", NAME, "--nocapture"]).env(INSIDE, "1").kill_on_drop(true);
    let output = again.output().await.expect("it was tried before");
    println!("{}", String::from_utf8_lossy(&output.stdout));
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "inside the namespace: {}\n{talk}", output.status);
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "nothing was run inside");
}

async fn nodes(cluster: &TestCluster) -> Vec<Node> {
    let mut nodes = Vec::new();
    for place in &cluster.places {
        nodes.push(cluster.user.node(&place.name).await);
    }
    nodes
}

async fn until_all(cluster: &TestCluster, what: &str, is: impl Fn(&Node) -> bool) -> Vec<Node> {
    until(what, async || {
        let nodes = nodes(cluster).await;
        nodes.iter().all(&is).then_some(nodes)
    })
    .await
}

async fn inside() {
    // An election and a new session on a busy machine fit into it.
    let fence_after_ms = 15_000;
    let mut cluster = TestCluster::start(3, AGENTS, Options { fence_after_ms, ..Options::default() }).await;
    let gate = cluster.gate("through");
    let spec = json!({
        "name": "through",
        "gang": {"nodes": AGENTS, "gpus_per_node": 2, "ranks_per_node": "gpu", "run": gate.script()},
    });
    let id = cluster.user.submit_job(&spec).await;
    let ranks = cluster.ranks_running(id, 1, 2 * AGENTS).await;
    until_all(&cluster, "renewals over QUIC", |node| node.heartbeat == "quic").await;
    let busy = |node: &Node| node.devices.iter().filter(|device| device.busy_percent >= Some(80)).count() == 2;
    let sampled = until_all(&cluster, "telemetry of the devices that work", busy).await;
    assert!(sampled.iter().all(|node| node.devices.iter().all(|device| device.sampled_at_ms.is_some())));

    block(true).expect("it was tried before");
    println!("UDP is blocked");
    until_all(&cluster, "renewals over the stream", |node| node.heartbeat == "stream").await;
    // Longer than the time after which their work would have been given up.
    let long = |node: &Node| node.udp_lost_at_ms.is_some_and(|at_ms| at_ms + fence_after_ms * 4 / 3 < wall_ms());
    let lost = until_all(&cluster, "a long time without UDP", long).await;
    assert!(lost.iter().all(|node| node.heartbeat == "stream" && node.state == "UP"), "{lost:?}");
    let request = ClusterStatusRequest::default();
    let status = cluster.user.call("status", async |mut api| api.cluster_status(request).await).await;
    let ways = status.heartbeats.expect("the leader is reached");
    assert_eq!((ways.quic, ways.stream, ways.udp_lost), (0, AGENTS as u32, AGENTS as u32));
    let shown = cluster.user.run(&["node", "show", "n0"]).await;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("stream (udp lost "), "{shown}");
    assert_eq!(cluster.ranks_of(id), ranks, "the very same ranks run on");

    block(false).expect("it was tried before");
    println!("UDP is allowed again");
    until_all(&cluster, "the fast way again", |node| node.heartbeat == "quic").await;

    // And to another leader.
    let leader = cluster.leader().await;
    cluster.servers[leader].kill_9();
    until_all(&cluster, "the fast way to the next leader", |node| node.heartbeat == "quic").await;
    cluster.servers[leader].start();

    gate.open();
    let job = cluster.user.ended(id).await;
    assert_eq!((job.state.as_str(), job.attempt), ("SUCCEEDED", 1), "{job:?}");
    let request = EventsRequest { from_index: Some(0), limit: 1_000, ..EventsRequest::default() };
    let mut events = cluster.user.call("events", async |mut api| api.events(request.clone()).await).await;
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_secs(10), events.message()).await.expect("an end") {
        assert_ne!(event.kind, "node_fenced", "{}", event.text);
    }
}
