//! Advance reservations on a live cluster: what would run into one waits and says so, what ends before
//! runs, an account's own jobs go in, and once it is ended everybody may.

use super::job;
use muster_tests::cluster::wait::until;
use muster_tests::cluster::{Options, TestCluster};
use serde_json::{Value, json};

/// With a time limit.
fn limited(name: &str, nodes: u32, run: &str, limit: &str) -> Value {
    let mut job = job(name, nodes, 8, run);
    job["limits"] = json!({"time": limit});
    job
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_would_run_into_a_maintenance_waits_and_starts_once_it_is_ended() {
    let cluster = TestCluster::start(3, 2, Options::default()).await;
    let (user, admin) = (cluster.user.clone(), cluster.admin.clone());
    // Making one is for admins, looking for everybody.
    let create = ["reservation", "create", "firmware", "--start", "+30m", "--duration", "4h", "--all-nodes"];
    let refused = user.run(&create).await;
    assert_eq!(refused.status.code(), Some(4), "{}", String::from_utf8_lossy(&refused.stderr));
    // Who is there already is told, and not stopped.
    let gate = cluster.gate("there");
    let there = user.submit_job(&limited("there", 1, &gate.script(), "2h")).await;
    cluster.ranks_running(there, 1, 8).await;
    let planned = admin.json(&[&create[..], &["--dry-run"]].concat()).await;
    assert_eq!(planned["reservation"]["crossing"][0]["gang"], there.to_string(), "{planned:#}");
    assert_eq!(user.json(&["reservation", "ls"]).await["reservations"], json!([]), "a dry run makes nothing");
    let made = admin.json(&[&create[..], &["--reason", "new switches"]].concat()).await;
    assert_eq!((&made["changed"], &made["reservation"]["nodes_total"]), (&json!(true), &json!(2)), "{made:#}");
    let twice =
        admin.run(&["reservation", "create", "other", "--duration", "1h", "--start", "+1h", "--nodes", "n[0-1]"]);
    let said = String::from_utf8_lossy(&twice.await.stderr).into_owned();
    assert!(said.contains("node n0 is in reservation `firmware` then"), "{said}");

    let long = user.submit_job(&limited("long", 1, "echo long", "1h")).await;
    let why = until("the reason to be told", async || {
        let why = user.json(&["why", &long.to_string()]).await;
        (why["blockers"][0]["reason"] == "reserved").then_some(why)
    })
    .await;
    let text = why["blockers"][0]["text"].as_str().expect("a text");
    assert!(text.contains("firmware") && text.contains("time limit of 1h"), "{why:#}");
    let shown = user.json(&["reservation", "show", "firmware"]).await;
    assert_eq!((&shown["state"], &shown["by"]), (&json!("UPCOMING"), &json!("admin")), "{shown:#}");
    // What ends before it begins goes past.
    let short = user.submit_job(&limited("short", 1, "echo short", "5m")).await;
    assert_eq!(user.ended(short).await.state, "SUCCEEDED");
    assert_eq!(user.job(long).await.state, "QUEUED");

    // It outlives its leader.
    let leader = cluster.leader().await;
    let (mut cluster, name) = (cluster, "firmware");
    cluster.servers[leader].kill_9();
    until("the next leader to know it", async || {
        let list = user.json(&["reservation", "ls"]).await;
        (list["reservations"][0]["name"] == name).then_some(())
    })
    .await;
    cluster.servers[leader].start();
    assert_eq!(user.job(long).await.state, "QUEUED");
    let ended = admin.json(&["reservation", "delete", name]).await;
    assert_eq!(ended["reservation"]["name"], name, "{ended:#}");
    assert_eq!(user.ended(long).await.state, "SUCCEEDED");
    gate.open();
    assert_eq!(user.ended(there).await.state, "SUCCEEDED");
    let gone = user.run(&["reservation", "show", name]).await;
    assert_eq!(gone.status.code(), Some(3), "{}", String::from_utf8_lossy(&gone.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_accounts_jobs_run_in_its_reservation_and_it_ends_by_itself() {
    let cluster = TestCluster::start(1, 1, Options::default()).await;
    let (user, admin) = (cluster.user.clone(), cluster.admin.clone());
    let create = ["reservation", "create", "nips", "--duration", "30s", "--count", "1", "--within", "leaf"];
    admin.json(&[&create[..], &["--account", "nlp"]].concat()).await;
    let stranger = user.submit_job(&limited("stranger", 1, "echo stranger", "5m")).await;
    // Beyond its end it would be in the way of the stranger's booked start.
    let mut own = limited("own", 1, "echo own", "10s");
    own["account"] = json!("nlp");
    let own = user.submit_job(&own).await;
    assert_eq!(user.ended(own).await.state, "SUCCEEDED");
    assert_eq!(user.job(stranger).await.state, "QUEUED");
    assert_eq!(user.ended(stranger).await.state, "SUCCEEDED");
    let (own, stranger) = (user.job(own).await, user.job(stranger).await);
    let started = |job: &muster_proto::client::Job| job.gangs[0].attempts[0].started_at_ms;
    assert!(started(&own) < started(&stranger), "{own:?} {stranger:?}");
    let list = user.json(&["reservation", "ls"]).await;
    assert_eq!(list["reservations"], json!([]), "nobody has ended it");
}
