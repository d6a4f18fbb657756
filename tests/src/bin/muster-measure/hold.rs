//! A cluster for another program, which asks for things a line at a time.

use crate::kills;
use muster_tests::cluster::TestCluster;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

/// Prints one line of JSON about the cluster, then one for each line of input, until the input ends:
/// `about` says again where it is and who leads, `kills N` ends the leader so often in a flood of submits.
pub async fn until_input_ends(cluster: &mut TestCluster) {
    println!("{}", about(cluster).await);
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    // Whatever ends the input, an error too, ends the cluster.
    while let Ok(Some(line)) = lines.next_line().await {
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match words[..] {
            ["about"] => about(cluster).await,
            ["kills", count] => match count.parse() {
                Ok(count) => kills::of_the_leader(cluster, count).await.document(),
                Err(_) => json!({"error": format!("`{count}` is no number of kills")}),
            },
            _ => json!({"error": format!("`{line}` is neither `about` nor `kills N`")}),
        };
        println!("{answer}");
    }
}

async fn about(cluster: &TestCluster) -> Value {
    let leader = cluster.leader().await;
    let pids: Vec<Option<u32>> = cluster.servers.iter().map(|server| server.pid()).collect();
    json!({
        "muster": muster_tests::binary::muster(),
        "server": cluster.addresses.join(","),
        "identity": cluster.user.identity_dir,
        "server_pids": pids,
        "agent_pids": cluster.agents.iter().map(|agent| agent.pid()).collect::<Vec<_>>(),
        "leader": leader,
        "folder": cluster.folder(),
    })
}
