//! A cluster for another program.

use muster_tests::cluster::TestCluster;
use serde_json::json;
use tokio::io::AsyncReadExt;

/// Prints one line of JSON and waits.
pub async fn until_input_ends(cluster: &TestCluster) {
    let leader = cluster.leader().await;
    let pids: Vec<Option<u32>> = cluster.servers.iter().map(|server| server.pid()).collect();
    let about = json!({
        "muster": muster_tests::binary::muster(),
        "server": cluster.addresses.join(","),
        "identity": cluster.user.identity_dir,
        "server_pids": pids,
        "leader": leader,
        "folder": cluster.folder(),
    });
    println!("{about}");
    let mut nothing = Vec::new();
    // Whatever ends the input, an error too, ends the cluster.
    let _ = tokio::io::stdin().read_to_end(&mut nothing).await;
}
