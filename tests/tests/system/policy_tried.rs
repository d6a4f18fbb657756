//! A policy in the shadow of a live cluster, a policy in force on the word of a simulation.

use super::{job, of_class, plain};
use muster_tests::cluster::wait::until;
use muster_tests::cluster::{Options, TestCluster};
use serde_json::{Value, json};

/// One job at a time, and what waits is not started in the order in which it came.
async fn contend(cluster: &TestCluster) {
    let user = &cluster.user;
    let gate = cluster.gate("first");
    let first = user.submit_job(&job("first", 1, 8, &gate.script())).await;
    cluster.ranks_running(first, 1, 8).await;
    let mut jobs = vec![first];
    for class in ["low", "high", "low", "high"] {
        jobs.push(user.submit_job(&of_class(&format!("{class}-{}", jobs.len()), class, "sleep 0.1")).await);
    }
    gate.open();
    for id in jobs {
        assert_eq!(user.ended(id).await.state, "SUCCEEDED");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_policy_is_tried_in_the_shadow_and_put_in_force_with_its_evidence() {
    let mut cluster = TestCluster::start(3, 1, Options::default()).await;
    let (user, admin) = (cluster.user.clone(), cluster.admin.clone());
    let fifo = cluster.folder().join("fifo.toml");
    std::fs::write(&fifo, "order = \"fifo\"\n").expect("written");

    // Setting is for admins, looking for everybody.
    let refused = user.run(&["policy", "shadow", "set", plain(&fifo)]).await;
    assert_eq!(refused.status.code(), Some(4), "{}", String::from_utf8_lossy(&refused.stderr));
    let none = user.json(&["policy", "shadow", "report"]).await;
    assert_eq!((&none["shadow"], &none["history"]), (&Value::Null, &json!([])), "{none:#}");
    admin.json(&["policy", "shadow", "set", plain(&fifo)]).await;
    contend(&cluster).await;
    let report = until("the shadow to have seen the last of it", async || {
        let report = user.json(&["policy", "shadow", "report"]).await;
        let shadow = &report["shadow"];
        let seen = shadow["compared"].as_u64()? + shadow["skipped"].as_u64()?;
        (seen == shadow["cycles"].as_u64()? && shadow["agree"].as_u64() > Some(3)).then_some(report)
    })
    .await;
    let shadow = &report["shadow"];
    let kinds = shadow["kinds"].as_array().expect("kinds");
    assert!(kinds.iter().any(|kind| kind["kind"] == "other_gangs"), "{report:#}");
    assert!(!shadow["latest"].as_array().expect("differences").is_empty(), "{report:#}");
    assert!(report["shadow_says"].as_str().is_some_and(|says| says.contains("nothing of what would have followed")));
    assert_eq!(report["history"], json!([]), "the one in force was never changed");

    // It outlives its leader, who takes his counts with him.
    let leader = cluster.leader().await;
    cluster.servers[leader].kill_9();
    let after = until("the next leader to try it", async || {
        let report = user.json(&["policy", "shadow", "report"]).await;
        report["shadow"]["compared"].as_u64().filter(|count| *count > 0)
    })
    .await;
    assert!(after > 0);
    cluster.servers[leader].start();
    admin.json(&["policy", "shadow", "clear"]).await;
    assert_eq!(user.json(&["policy", "shadow", "report"]).await["shadow"], Value::Null);

    // The same days under the other policy, and then that one in force.
    let (file, days) = (cluster.folder().join("a.backup"), cluster.folder().join("days"));
    admin.json(&["cluster", "backup", plain(&file)]).await;
    user.json(&["sim", "import", "--from", &format!("backup:{}", plain(&file)), "-o", plain(&days)]).await;
    let out = cluster.folder().join("fifo-run");
    let (world, trace) = (days.join("world.toml"), days.join("trace.jsonl"));
    let scene = ["--world", plain(&world), "--trace", plain(&trace), "--policy", plain(&fifo), "-o", plain(&out)];
    user.json(&[&["sim", "run"], &scene[..]].concat()).await;
    let refused = user.run(&["policy", "promote", plain(&out), "--yes"]).await;
    assert_eq!(refused.status.code(), Some(4), "{}", String::from_utf8_lossy(&refused.stderr));
    let unasked = admin.run(&["policy", "promote", plain(&out)]).await;
    assert_eq!(
        unasked.status.code(),
        Some(2),
        "no terminal, no question: {}",
        String::from_utf8_lossy(&unasked.stderr)
    );
    let policy = days.join("policy.toml");
    let other = admin.run(&["policy", "promote", plain(&out), "--policy", plain(&policy), "--yes"]).await;
    assert!(String::from_utf8_lossy(&other.stderr).contains("another policy"), "{other:?}");
    let promoted = admin.json(&["policy", "promote", plain(&out), "--yes"]).await;
    assert_eq!(promoted["changes"][0]["path"], "order", "{promoted:#}");
    let history = user.json(&["policy", "history"]).await;
    let newest = &history["history"][0];
    assert_eq!((&newest["version"], &newest["by"]), (&promoted["version"], &json!("admin")), "{history:#}");
    assert_eq!(newest["evidence"]["manifest_sha256"], promoted["manifest_sha256"]);
    let names: Vec<&str> = figures(&newest["evidence"]).collect();
    assert!(names.contains(&"wait_p95_s") && names.contains(&"trace"), "{names:?}");
    let in_force = user.json(&["policy", "history"]).await;
    assert!(in_force["policy_json"].as_str().is_some_and(|text| text.contains("\"fifo\"")), "{in_force:#}");

    // What another engine decided is no evidence here, whoever asks.
    let manifest = out.join("manifest.json");
    let text = std::fs::read_to_string(&manifest).expect("a manifest");
    let version = promoted["engine_version"].as_u64().expect("a version");
    let field = format!("\"engine_version\": {version}");
    assert!(text.contains(&field), "{text}");
    std::fs::write(&manifest, text.replace(&field, &format!("\"engine_version\": {}", version + 1))).expect("written");
    let other = admin.run(&["policy", "promote", plain(&out), "--yes"]).await;
    assert!(String::from_utf8_lossy(&other.stderr).contains("engine version"), "{other:?}");
    assert_eq!(user.json(&["policy", "history"]).await["history"].as_array().map(Vec::len), Some(1));
}

fn figures(evidence: &Value) -> impl Iterator<Item = &str> {
    evidence["figures"].as_array().into_iter().flatten().filter_map(|figure| figure["name"].as_str())
}
