//! Proof 4: a backup, all servers wiped, a restore: what the backup knows goes on where it runs, what it does not know is
//! stopped by name, and nothing that was acknowledged before the backup is lost.

use super::{job, others, plain};
use muster_proto::client::{ClusterStatusReply, ListJobsRequest};
use muster_tests::cluster::ranks::check_lines;
use muster_tests::cluster::wait::until;
use muster_tests::cluster::{Options, TestCluster};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

fn agree(all: &[ClusterStatusReply]) {
    assert!(all.iter().all(|status| status.state_hash == all[0].state_hash), "{all:#?}");
}

async fn jobs(cluster: &TestCluster) -> BTreeMap<u64, (String, String)> {
    let request = ListJobsRequest::default();
    let reply = cluster.user.call("ps", async |mut api| api.list_jobs(request.clone()).await).await;
    reply.jobs.into_iter().map(|job| (job.id, (job.name, job.state))).collect()
}

/// Kills all servers and takes away everything they knew.
fn wipe(cluster: &mut TestCluster) {
    cluster.servers.iter_mut().for_each(|server| server.kill_9());
    for server in 0..3 {
        std::fs::remove_dir_all(cluster.data_dir(server)).expect("it is there");
    }
}

/// As an operator does it: each server's folder is put where its settings say.
async fn restore(cluster: &TestCluster, file: &Path, name: &str) -> Value {
    let made = cluster.folder().join(name);
    let restored = cluster.admin.json(&["cluster", "restore", plain(file), plain(&made)]).await;
    for server in 0..3 {
        std::fs::rename(made.join(format!("s{}", server + 1)), cluster.data_dir(server)).expect("renamed");
    }
    restored
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_restored_cluster_adopts_what_the_backup_knows_and_stops_what_it_does_not() {
    let options = Options { fence_after_ms: 120_000, ..Options::default() };
    let mut cluster = TestCluster::start(3, 4, options).await;
    let (user, admin) = (cluster.user.clone(), cluster.admin.clone());
    let (known_gate, ends_gate, later_gate) = (cluster.gate("known"), cluster.gate("ends"), cluster.gate("later"));
    let known = user.submit_job(&job("known", 2, 2, &known_gate.script())).await;
    let ends = user.submit_job(&job("ends", 1, 1, &ends_gate.script())).await;
    let done = user.submit_job(&job("done", 1, 1, "true")).await;
    user.ended(done).await;
    let before = cluster.ranks_running(known, 1, 4).await;
    cluster.ranks_running(ends, 1, 1).await;
    let waits = user.submit_job(&job("waits", 4, 8, "true")).await;
    until("both to run", async || {
        let jobs = jobs(&cluster).await;
        (jobs[&known].1 == "RUNNING" && jobs[&ends].1 == "RUNNING").then_some(())
    })
    .await;
    let listed = jobs(&cluster).await;

    let file = cluster.folder().join("the.backup");
    let refused = user.run(&["cluster", "backup", plain(&file)]).await;
    assert_eq!((refused.status.code(), file.exists()), (Some(4), false), "only admins make backups");
    // Nothing else goes on, so that the state of the backup is the one that servers show.
    let (backup, shown) = until("a backup of a quiet cluster", async || {
        let _ = std::fs::remove_file(&file);
        let backup = admin.json(&["cluster", "backup", plain(&file)]).await;
        let shown = cluster.settled().await;
        (backup["index"] == shown[0].applied_index).then_some((backup, shown))
    })
    .await;
    assert_eq!(backup["state_hash"], json!(shown[0].state_hash), "the backup is the state at its index");
    assert!(backup["history_records"].as_u64() > Some(5), "{backup}");
    assert_eq!(admin.run(&["cluster", "backup", plain(&file)]).await.status.code(), Some(5), "never over another");

    // Behind the backup: work that it does not know, and an end that it does not know.
    let later = user.submit_job(&job("later", 2, 3, &later_gate.script())).await;
    cluster.ranks_running(later, 1, 6).await;
    ends_gate.open();
    user.ended(ends).await;

    let half = cluster.folder().join("half.backup");
    let whole = std::fs::read(&file).expect("it is there");
    std::fs::write(&half, &whole[..whole.len() / 2]).expect("written");
    wipe(&mut cluster);
    let made = cluster.folder().join("from-half");
    let cut = admin.run(&["cluster", "restore", plain(&half), plain(&made)]).await;
    assert_eq!((cut.status.code(), made.exists()), (Some(1), false), "{}", String::from_utf8_lossy(&cut.stderr));
    let used = admin.run(&["cluster", "restore", plain(&file), plain(cluster.folder())]).await;
    assert_eq!(used.status.code(), Some(5), "{}", String::from_utf8_lossy(&used.stderr));

    let restored = restore(&cluster, &file, "restored").await;
    assert_eq!((&restored["backup_state_hash"], &restored["generation"]), (&backup["state_hash"], &json!(2)));
    cluster.servers.iter_mut().for_each(|server| server.start());
    cluster.all_up().await;

    // What the backup does not know ends, and only that.
    until("the work that nobody knows to end", async || cluster.ranks_of(later).is_empty().then_some(())).await;
    assert_eq!(cluster.ranks_of(known), before, "the same processes");
    let ended = user.ended(ends).await;
    assert_eq!((ended.state.as_str(), ended.attempt), ("SUCCEEDED", 1), "its end is told again: {}", ended.cause_text);
    let shown = user.job(known).await;
    assert_eq!((shown.state.as_str(), shown.attempt), ("RUNNING", 1));
    let all = cluster.settled().await;
    agree(&all);
    assert!(all.iter().all(|status| status.generation == 2 && status.applied_index > later + 1_000_000));
    let now = jobs(&cluster).await;
    let still = |id: &u64| *id != ends;
    assert!(now.keys().eq(listed.keys().filter(|id| still(id))), "{now:?} of {listed:?}");
    assert_eq!(user.job(done).await.state, "SUCCEEDED", "the history is there");
    let again = user.submit(&job("waits", 4, 8, "true"), "test-waits").await;
    assert!(again.existing && again.job.map(|job| job.id) == Some(waits), "keys are remembered");

    // Everything is free again in the end, and new work gets tokens of the new generation.
    known_gate.open();
    for id in [known, waits] {
        assert_eq!(user.ended(id).await.state, "SUCCEEDED");
    }
    for (rank, text) in user.logs(known, 1).await {
        assert!(check_lines(rank, &text) > 10, "rank {rank} printed through the restore");
    }
    let off = others(&cluster, "n1");
    let last = user.submit_job(&super::job_off("last", 1, 8, "true", &off)).await;
    let last = user.ended(last).await;
    assert!(last.gangs[0].attempts[0].token.starts_with("2."), "{:?}", last.gangs[0].attempts[0].token);
    let all = cluster.settled().await;
    agree(&all);
    let free = all[0].devices.as_ref().expect("they are counted");
    assert_eq!((free.free, free.unknown), (free.total, 0));

    // The same backup once more: its generation was used by the first restore, and agents have seen it.
    wipe(&mut cluster);
    restore(&cluster, &file, "restored-again").await;
    cluster.servers.iter_mut().for_each(|server| server.start());
    cluster.all_up().await;
    let all = cluster.settled().await;
    agree(&all);
    assert!(all[0].generation > 2, "generation {} was used before", all[0].generation);
    for id in [known, ends, waits] {
        let ended = user.ended(id).await;
        assert_eq!(ended.state, "SUCCEEDED", "{id} after a second restore: {ended:#?}");
    }
}
