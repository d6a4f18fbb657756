//! A node's own certificate is renewed before it runs out, and no connection outlives one.

use muster_runtime::identity::{DAY_MS, Identity, Role};
use muster_tests::cluster::people::wall_ms;
use muster_tests::cluster::wait::until;
use muster_tests::cluster::{Options, TestCluster};
use muster_tests::virtual_agent::{authority, issue};

/// Longer than an agent takes to start here.
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
