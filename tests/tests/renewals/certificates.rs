//! A node's own certificate is renewed before it runs out, and so is a server's; no connection outlives one.

use super::ANSWER;
use muster_runtime::config;
use muster_runtime::identity::{Authority, Credentials, DAY_MS, Identity, LEAF_VALID_MS, Role};
use muster_runtime::shutdown::Shutdown;
use muster_scheduler::config::ServerConfig;
use muster_scheduler::seams::Seams;
use muster_scheduler::server::run_on;
use muster_tests::cluster::people::{Person, wall_ms};
use muster_tests::cluster::wait::until;
use muster_tests::cluster::{Options, TestCluster, alone, free_addresses};
use muster_tests::virtual_agent::{VirtualAgent, agent_identity, authority, hello, issue};
use std::path::Path;
use std::sync::Arc;

/// Longer than an agent or a server takes to start here.
const SHORT_MS: u64 = 15_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_lived_certificate_is_renewed_in_time_and_renewals_go_on_after_its_end() {
    let mut cluster = TestCluster::start(1, 1, Options::default()).await;
    let folder = cluster.places[0].state_dir.with_file_name("identity");
    let load = || Identity::load(&folder, wall_ms());
    let before = load().expect("the node has joined");
    cluster.agents[0].kill_9();
    let short = issue(&authority(cluster.folder()), Role::Agent, "n0", wall_ms(), SHORT_MS);
    let (ends_ms, old_key) = (short.not_after_ms(), short.key_pem().to_owned());
    short.save(&folder).expect("it can be written");
    cluster.agents[0].start();

    let renewed = until("a new certificate", async || load().ok().filter(|now| now.not_after_ms() > ends_ms)).await;
    assert!(wall_ms() < ends_ms, "only renewed when it had run out: too late for a real one");
    assert_eq!(renewed.name(), before.name());
    assert_ne!(renewed.key_pem(), old_key, "the key is new as well");
    assert!(renewed.not_after_ms() > wall_ms() + DAY_MS);

    // Whatever was opened with the old certificate is over by now.
    until("the old certificate's end", async || (wall_ms() > ends_ms + 1_000).then_some(())).await;
    until("renewals over QUIC with the new one", async || {
        let node = cluster.user.node("n0").await;
        (node.state == "UP" && node.heartbeat == "quic").then_some(())
    })
    .await;

    // And the files are whole: the next agent starts from them.
    let epoch = cluster.user.node("n0").await.epoch;
    cluster.agents[0].kill_9();
    cluster.agents[0].start();
    until("the node back with its new certificate", async || {
        let node = cluster.user.node("n0").await;
        (node.epoch > epoch && node.state == "UP" && node.heartbeat == "quic").then_some(())
    })
    .await;
}

/// Settings of a server that is a cluster of its own.
fn alone_at(address: &str, folder: &Path) -> ServerConfig {
    let file = format!(
        "id = 1\nname = \"s1\"\ncluster_id = \"testing\"\ndir = {:?}\nidentity = {:?}\nlisten = \"{address}\"\n\
         [[members]]\nid = 1\nname = \"s1\"\naddress = \"{address}\"\n",
        folder.join("data"),
        folder.join("identity"),
    );
    config::parse("server.toml", &file).expect("sound settings")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_renews_its_own_certificate_while_it_runs_and_answers_after_the_end_of_the_old_one() {
    let _machine = alone().await;
    let folder = tempfile::tempdir().expect("a temp folder");
    let address = free_addresses(1).remove(0);
    let authority = Arc::new(Authority::create("testing", wall_ms()).expect("a CA"));
    let (identity_dir, admin_dir) = (folder.path().join("identity"), folder.path().join("admin"));
    issue(&authority, Role::Admin, "root", wall_ms(), LEAF_VALID_MS).save(&admin_dir).expect("saved");
    authority.save(&identity_dir).expect("saved");
    let short = issue(&authority, Role::Server, "s1", wall_ms(), SHORT_MS);
    let (ends_ms, old_key) = (short.not_after_ms(), short.key_pem().to_owned());
    short.save(&identity_dir).expect("saved");

    // As of a server that has run for a while: what it would do about its certificate at its start is left out.
    let (seams, shutdown) = (Seams::of_machine(Credentials::new(short), authority.clone()), Shutdown::new());
    let serving = tokio::spawn(run_on(alone_at(&address, folder.path()), seams, shutdown.clone()));
    let load = || Identity::load(&identity_dir, wall_ms()).ok();
    let renewed = until("a new certificate", async || load().filter(|now| now.not_after_ms() > ends_ms)).await;
    assert!(wall_ms() < ends_ms, "only renewed when it had run out: too late for a real one");
    assert_eq!(renewed.name().name, "s1");
    assert_ne!(renewed.key_pem(), old_key, "the key is new as well");
    assert!(renewed.not_after_ms() > wall_ms() + DAY_MS);

    until("the old certificate's end", async || (wall_ms() > ends_ms + 1_000).then_some(())).await;
    let admin = Person::new(vec![address.clone()], &admin_dir);
    let shown = until("an answer to a person", async || {
        let status = admin.status_of(&address).await?;
        (status.leader_id == status.server_id).then_some(status.condition?.certificate_expires_at_ms)
    })
    .await;
    assert_eq!(shown, renewed.not_after_ms());
    let agent = Credentials::new(agent_identity(&authority, "v1"));
    until("an answer to an agent", async || VirtualAgent::try_connect(&address, &agent, hello("v1", "a")).await.ok())
        .await;
    shutdown.trigger();
    let ended = tokio::time::timeout(ANSWER, serving).await.expect("it stops");
    ended.expect("no panic").expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_certificate_has_run_out_issues_itself_another_at_its_start() {
    let mut cluster = TestCluster::start(1, 1, Options::default()).await;
    let folder = cluster.folder().join("cluster/servers/s1/identity");
    let before = Identity::load(&folder, wall_ms()).expect("of `cluster init`");
    cluster.servers[0].kill_9();
    let over = authority(cluster.folder())
        .issue(before.name(), &before.sans(), wall_ms() - 2 * DAY_MS, DAY_MS)
        .expect("it can be issued");
    over.save(&folder).expect("it can be written");
    cluster.servers[0].start();

    // A person's job on an agent's node: both speak with the server again.
    let job = cluster.user.submit_job(&serde_json::json!({"name": "after", "gang": {"run": "true"}})).await;
    assert_eq!(cluster.user.ended(job).await.state, "SUCCEEDED");
    let renewed = Identity::load(&folder, wall_ms()).expect("good again");
    assert_eq!((renewed.name(), renewed.sans()), (before.name(), before.sans()));
    assert!(renewed.not_after_ms() > wall_ms() + DAY_MS);
}
