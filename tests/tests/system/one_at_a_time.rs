//! Proof 7: gangs that fit only one at a time.

use super::{job, observe};
use muster_proto::client::ListNodesRequest;
use muster_tests::cluster::wait::until;
use muster_tests::cluster::{Options, TestCluster};
use std::collections::{BTreeMap, BTreeSet};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gangs_that_fit_only_one_at_a_time_never_hold_half_each_and_all_end() {
    let cluster = TestCluster::start(3, 4, Options::default()).await;
    let user = &cluster.user;
    let observer = observe(&cluster);
    let specs = ["a", "b", "c"].map(|name| job(name, 3, 8, "sleep 1"));
    let (a, b, c) = tokio::join!(user.submit_job(&specs[0]), user.submit_job(&specs[1]), user.submit_job(&specs[2]));
    let (mut looks, mut held) = (0, BTreeSet::new());
    until("the end of all gangs", async || {
        // One reply is one moment of State.
        let request = ListNodesRequest::default();
        let nodes = user.call("node ls", async |mut api| api.list_nodes(request.clone()).await).await.nodes;
        let mut holders: BTreeMap<String, u32> = BTreeMap::new();
        for gang in nodes.iter().flat_map(|node| &node.gangs) {
            *holders.entry(gang.clone()).or_default() += 1;
        }
        assert!(holders.len() <= 1, "two gangs hold devices at once: {holders:?}");
        looks += 1;
        held.extend(holders.keys().cloned());
        let mut ended = true;
        for id in [a, b, c] {
            let job = user.job(id).await;
            ended &= job.ended_at_ms.is_some();
        }
        ended.then_some(())
    })
    .await;
    println!("{looks} looks; {held:?} held devices, one after the other");
    assert_eq!(held.len(), 3, "every gang was seen with its devices");
    for id in [a, b, c] {
        let job = user.job(id).await;
        assert_eq!((job.state.as_str(), job.attempt), ("SUCCEEDED", 1));
        assert_eq!(job.gangs[0].attempts[0].parts.len(), 3, "all of its nodes or none");
    }
    until("the end of all ranks", async || cluster.ranks().is_empty().then_some(())).await;
    let seen = observer.finish();
    seen.assert_devices_never_shared();
    let mut spans = [a, b, c].map(|id| (seen.first(id, 1), seen.last(id, 1)));
    spans.sort();
    for pair in spans.windows(2) {
        assert!(pair[0].1.1 < pair[1].0.1, "ranks of two gangs lived at once: {spans:?}");
    }
}
