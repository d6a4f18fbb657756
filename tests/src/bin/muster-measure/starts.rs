//! What starts cost the leader on a large cluster: virtual agents that say at once that what they are told was done, so
//! nothing but the servers' own work is measured.

use crate::idle::{join, keep_renewing};
use crate::memory::used;
use muster_proto::client::SubmitRequest;
use muster_tests::cluster::{Options, TestCluster};
use muster_tests::virtual_agent::Obeying;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

const AGENTS: usize = 1_000;
const GPUS: usize = 8;
/// Submitted behind a gang that holds all nodes: nodes of each in turn.
const MIX: [usize; 5] = [1, 2, 4, 8, 32];
const QUEUED: usize = 5_000;
const LANES: usize = 8;

/// Prints a line for each load: the rate, and what it took of the leader's processor.
pub async fn on_many_nodes(arguments: &[String]) {
    let agents = arguments.first().map_or(AGENTS, |text| text.parse().expect("a number"));
    // As in production: nobody is lost because this machine is slow to let a thousand agents in.
    let options = Options { suspect_after_ms: 600_000, fence_after_ms: 1_300_000, ..Options::default() };
    let cluster = TestCluster::start(3, 0, options).await;
    let sessions = join(&cluster, agents, GPUS).await;
    let held = Arc::new(AtomicBool::new(false));
    let mut obeying: Vec<Obeying> = Vec::new();
    for agent in &sessions {
        obeying.push(agent.obey(held.clone()));
    }
    let renewing = keep_renewing(sessions, &Arc::default()).await;
    println!("3 servers, {agents} virtual agents of {GPUS} GPUs that answer at once");
    fill(&cluster, agents, 1).await;
    fill(&cluster, agents / 8, 8).await;
    behind_a_blocker(&cluster, agents, &held).await;
    assert!(renewing.iter().all(|task| !task.is_finished()), "every session lives to the end");
    assert!(obeying.iter().all(|agent| !agent.is_finished()), "every agent answers to the end");
}

/// Gangs that take the whole cluster, from the first submit to the last end.
async fn fill(cluster: &TestCluster, gangs: usize, nodes: usize) {
    let leader = cluster.servers[cluster.leader().await].pid().expect("the leader runs");
    let before = used(leader).cpu_s;
    let (gangs, each, gpus) = (gangs.to_string(), nodes.to_string(), GPUS.to_string());
    super::bench(cluster, &["drain", "--gangs", &gangs, "--nodes", &each, "--gpus-per-node", &gpus]).await;
    let spent_ms = (used(leader).cpu_s - before) * 1e3;
    let count: f64 = gangs.parse().expect("a number");
    println!("{:<44} {:>9.2} ms of the leader's processor for each gang, submit to end", "", spent_ms / count);
}

/// Gangs of a mixture of sizes are submitted while one gang holds all nodes, each looked at by the cycles on its way.
async fn behind_a_blocker(cluster: &TestCluster, agents: usize, held: &AtomicBool) {
    held.store(true, Ordering::Release);
    let blocker = cluster.user.submit_job(&gang("blocker", agents)).await;
    muster_tests::cluster::wait::until("the blocker runs", async || {
        (cluster.user.job(blocker).await.state == "RUNNING").then_some(())
    })
    .await;
    let at = cluster.leader().await;
    let leader = cluster.servers[at].pid().expect("the leader runs");
    let (before, began) = (used(leader), Instant::now());
    let mut lanes = tokio::task::JoinSet::new();
    for lane in 0..LANES {
        let mut api = cluster.user.api(&cluster.addresses[at]);
        lanes.spawn(async move {
            for number in (lane..QUEUED).step_by(LANES) {
                let spec_json = gang("queued", MIX[number % MIX.len()].min(agents)).to_string();
                let request = SubmitRequest { spec_json, key: format!("queued-{number}"), ..SubmitRequest::default() };
                api.submit(request).await.expect("the leader takes it");
            }
        });
    }
    lanes.join_all().await;
    let (seconds, after) = (began.elapsed().as_secs_f64(), used(leader));
    let each_ms = (after.cpu_s - before.cpu_s) * 1e3 / QUEUED as f64;
    println!(
        "{QUEUED} gangs submitted behind a blocker             {:>9.1} /s   {each_ms:.2} ms of the leader's processor each, {:.0} MiB",
        QUEUED as f64 / seconds,
        after.rss_mib,
    );
}

fn gang(name: &str, nodes: usize) -> Value {
    json!({"name": name, "gang": {"nodes": nodes, "gpus_per_node": GPUS, "run": "true"}, "limits": {"time": "1h"}})
}
