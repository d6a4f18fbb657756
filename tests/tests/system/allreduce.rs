//! Proof 1: a gang of eight ranks on four nodes meets, computes and ends.

use muster_tests::cluster::{Options, TestCluster};
use std::path::Path;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn allreduce_over_four_nodes_ends_with_the_right_sum_at_every_rank_in_the_order_of_the_fabric() {
    let cluster = TestCluster::start(3, 4, Options::default()).await;
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/allreduce.toml");
    let file = example.canonicalize().expect("the example is there");
    let done = cluster.user.run(&["submit", "--wait", "--json", file.to_str().unwrap()]).await;
    let talk = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(0), "{talk}");
    let answer: serde_json::Value = serde_json::from_slice(&done.stdout).expect("one document");
    let id = answer["job"]["id"].as_u64().expect("an id");

    let job = cluster.user.job(id).await;
    assert_eq!((job.state.as_str(), job.exit_code, job.ranks), ("SUCCEEDED", Some(0), 8));
    let parts = &job.gangs[0].attempts[0].parts;
    assert_eq!(parts.len(), 4);
    let bases: Vec<(u32, u32)> = parts.iter().map(|part| (part.rank_base, part.ranks)).collect();
    assert_eq!(bases, [(0, 2), (2, 2), (4, 2), (6, 2)]);
    let leaf = |node: &str| cluster.places[cluster.agent_named(node)].leaf.clone();
    let mut leaves: Vec<String> = parts.iter().map(|part| leaf(&part.node)).collect();
    leaves.dedup();
    assert_eq!(leaves.len(), 2, "the ranks of one leaf follow each other: {leaves:?}");

    let logs = cluster.user.logs(id, 1).await;
    assert_eq!(logs.len(), 8);
    for (rank, text) in logs {
        let node = &parts[rank as usize / 2].node;
        assert!(text.contains(&format!("rank {rank}/8 on {node} sum ok")), "rank {rank} said:\n{text}");
    }
}
