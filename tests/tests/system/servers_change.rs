//! Proof 8, and servers that come and go: leadership moves and servers are replaced in a flood of submits, and none is lost.

use muster_tests::cluster::flood::{Answered, Flood, all_jobs, spec};
use muster_tests::cluster::process::Daemon;
use muster_tests::cluster::wait::until;
use muster_tests::cluster::{Options, TestCluster, free_addresses};
use std::collections::BTreeSet;

const LANES: usize = 8;

/// Nothing acknowledged is lost, no id stands for two jobs, and a key that is sent again gives its job again.
async fn nothing_lost(cluster: &TestCluster, answered: &Answered) {
    let there = all_jobs(&cluster.user).await;
    let lost: Vec<_> = answered.jobs.iter().filter(|(key, id)| there.get(id) != Some(key)).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), answered.jobs.len());
    let ids: BTreeSet<u64> = answered.jobs.values().copied().collect();
    assert_eq!(ids.len(), answered.jobs.len(), "an id stands for two jobs");
    for (key, id) in answered.jobs.iter().rev().take(20) {
        let again = cluster.user.submit(&spec(), key).await;
        assert_eq!((again.existing, again.job.map(|job| job.id)), (true, Some(*id)), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn leadership_is_handed_over_under_load_and_no_submit_is_lost() {
    const TRANSFERS: usize = 6;
    let cluster = TestCluster::start(3, 1, Options::default()).await;
    let flood = Flood::start(&cluster.user, "transfer", LANES);
    flood.more(100).await;
    let mut windows = Vec::new();
    for _ in 0..TRANSFERS {
        let old = cluster.leader().await;
        let to = format!("s{}", (old + 1) % 3 + 1);
        let from_us = flood.now_us();
        let moved = cluster.admin.json(&["cluster", "transfer", "--to", &to]).await;
        assert_eq!((moved["leader_name"].as_str(), moved["changed"].as_bool()), (Some(to.as_str()), Some(true)));
        flood.more(50).await;
        windows.push((from_us, flood.now_us()));
        assert_eq!(cluster.leader().await, (old + 1) % 3);
        let again = cluster.admin.json(&["cluster", "transfer", "--to", &to]).await;
        assert_eq!(again["changed"].as_bool(), Some(false), "a repeat finds it done");
    }
    let answered = flood.stop().await;
    let mut gaps_ms: Vec<f64> = windows.iter().map(|(from, to)| answered.longest_gap_ms(*from, *to)).collect();
    gaps_ms.sort_by(f64::total_cmp);
    let (median, most) = (gaps_ms[TRANSFERS / 2], gaps_ms[TRANSFERS - 1]);
    println!("{TRANSFERS} transfers: nobody was answered for {median:.1} ms in the median, {most:.1} at most");
    nothing_lost(&cluster, &answered).await;
    let refused = cluster.user.run(&["cluster", "transfer"]).await;
    assert_eq!(refused.status.code(), Some(4), "only admins hand leadership over");
    let unknown = cluster.admin.run(&["cluster", "transfer", "--to", "s9"]).await;
    assert_eq!(unknown.status.code(), Some(3), "{}", String::from_utf8_lossy(&unknown.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_is_replaced_and_another_removed_in_a_flood_by_commands_alone() {
    let mut cluster = TestCluster::start(3, 1, Options::default()).await;
    let flood = Flood::start(&cluster.user, "replace", LANES);
    flood.more(100).await;
    let (admin, address) = (cluster.admin.clone(), free_addresses(1).remove(0));
    let dir = cluster.folder().join("cluster/servers/s4");
    let (folder, ca) = (dir.to_str().expect("plain"), cluster.folder().join("cluster/ca"));
    let named = format!("s4={address}");
    let prepare = ["cluster", "members", "prepare", &named, folder, "--ca", ca.to_str().expect("plain")];
    let prepared = admin.json(&prepare).await;
    assert_eq!(prepared["id"], 4);
    let unready = admin.run(&["--timeout", "2s", "cluster", "members", "add", &named]).await;
    assert_ne!(unready.status.code(), Some(0), "nobody is there yet");

    let file = dir.join("server.toml");
    let log = cluster.folder().join("logs/s4");
    let arguments = ["server", "--config", file.to_str().expect("plain")];
    let mut fourth = Daemon::new("s4", muster_tests::binary::muster(), &arguments, log);
    fourth.start();
    // The leader itself is replaced: another one leads first.
    let old = cluster.leader().await;
    let gone = format!("s{}", old + 1);
    let replace = ["--yes", "cluster", "members", "replace", &gone, &named];
    let changed = until("the server to be up", async || {
        let done = admin.run(&[&replace[..], &["--json"]].concat()).await;
        println!("replace: {}", String::from_utf8_lossy(&done.stderr));
        done.status.success().then_some(done.stdout)
    })
    .await;
    let changed: serde_json::Value = serde_json::from_slice(&changed).expect("a document");
    let names: BTreeSet<&str> =
        changed["members"].as_array().into_iter().flatten().filter_map(|member| member["name"].as_str()).collect();
    assert!(names.contains("s4") && !names.contains(gone.as_str()) && names.len() == 3, "{names:?}");
    cluster.servers[old].kill_9();
    flood.more(100).await;

    // With the new one a majority of three is there when another old one dies.
    let other = (old + 1) % 3;
    cluster.servers[other].kill_9();
    flood.more(100).await;
    let removed = admin.run(&["--yes", "cluster", "members", "remove", &format!("s{}", other + 1)]).await;
    assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
    let last = admin.run(&["--yes", "cluster", "members", "remove", "s9"]).await;
    assert!(last.status.success(), "to remove what is not there is done already");
    let answered = flood.stop().await;
    nothing_lost(&cluster, &answered).await;
    let listed = admin.run(&["cluster", "members"]).await;
    println!("{}", String::from_utf8_lossy(&listed.stdout));
    assert_eq!(admin.json(&["cluster", "members"]).await["next_server_id"], 5, "ids are never given twice");
}
