//! `muster cluster doctor` on a real cluster, well and ill.

use muster_tests::cluster::wait::until;
use muster_tests::cluster::{Options, TestCluster};
use serde_json::Value;

/// Exit code and findings that are no better than a level.
async fn visit(cluster: &TestCluster) -> (Option<i32>, Vec<(String, String, String)>) {
    let output = cluster.admin.run(&["--json", "cluster", "doctor"]).await;
    let document: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let word = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let findings = document["findings"].as_array().into_iter().flatten();
    let findings = findings.map(|it| (word(it, "check"), word(it, "level"), word(it, "where"))).collect();
    (output.status.code(), findings)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_doctor_finds_a_dead_server_and_a_silent_agent_and_nothing_on_a_cluster_that_is_well() {
    let mut cluster = TestCluster::start(3, 1, Options { fence_after_ms: 120_000, ..Options::default() }).await;
    let (code, well) = visit(&cluster).await;
    assert_eq!(code, Some(0), "{well:?}");
    let checks =
        ["certificate", "reach", "leader", "quorum", "clock", "disk", "state", "agents", "version", "log", "udp"];
    for check in checks {
        assert!(well.iter().any(|(name, ..)| name == check), "{check} was not looked at: {well:?}");
    }
    for check in ["reach", "leader", "quorum", "clock", "state", "agents", "version", "history"] {
        let found: Vec<_> = well.iter().filter(|(name, level, _)| name == check && level != "ok").collect();
        assert!(found.is_empty(), "{found:?}");
    }

    let dead = (cluster.leader().await + 1) % 3;
    cluster.servers[dead].kill_9();
    cluster.agents[0].freeze();
    let name = format!("s{}", dead + 1);
    let (code, ill) = until("the agent to be silent", async || {
        let (code, ill) = visit(&cluster).await;
        ill.iter().any(|(check, level, _)| check == "agents" && level == "warning").then_some((code, ill))
    })
    .await;
    assert_eq!(code, Some(1), "{ill:?}");
    let has = |check: &str, level: &str, place: &str| ill.contains(&(check.into(), level.into(), place.into()));
    assert!(
        has("reach", "bad", &name) && has("quorum", "warning", "cluster") && has("leader", "ok", "cluster"),
        "{ill:?}"
    );
    cluster.agents[0].thaw();

    cluster.servers.iter_mut().for_each(|server| server.kill_9());
    let nobody = cluster.admin.run(&["--timeout", "1s", "cluster", "doctor"]).await;
    assert_eq!(nobody.status.code(), Some(7), "{}", String::from_utf8_lossy(&nobody.stderr));
}
