//! First figures of a real cluster on this machine, for docs/BENCHMARKS.md: three servers with their
//! own fsync, agents with simulated devices, mutual TLS, real ranks.
//!
//! `cargo run --release -p muster-tests --bin muster-measure [start] [submit] [failover]`; all of them when none is named.

use muster_proto::client::SubmitRequest;
use muster_tests::cluster::people::{Person, wall_ms};
use muster_tests::cluster::{Options, TestCluster};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const GANGS: [u32; 4] = [1, 2, 4, 8];
const GANG_RUNS: usize = 15;
const FAILOVERS: usize = 10;
const FLOOD: Duration = Duration::from_secs(5);
const CONNECTIONS: [usize; 2] = [1, 8];

fn median(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[0], values[values.len() / 2], values[values.len() - 1])
}

fn row(what: &str, unit: &str, values: Vec<f64>) {
    let runs = values.len();
    let (min, middle, max) = median(values);
    println!("{what:<58} {middle:>9.1} {unit:<9} (min {min:.1}, max {max:.1}, {runs} runs)");
}

fn gang(name: &str, nodes: u32, run: &str) -> Value {
    json!({ "name": name, "gang": { "nodes": nodes, "gpus_per_node": 1, "run": run } })
}

#[tokio::main]
async fn main() {
    muster_runtime::identity::install_crypto();
    let mut cluster =
        TestCluster::start(3, 8, Options { fence_after_ms: 60_000, calm_elections: false, ..Options::default() }).await;
    println!("3 servers, 8 agents, one machine");
    let named: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &str| named.is_empty() || named.iter().any(|argument| argument == name);
    if wanted("start") {
        start_times(&cluster).await;
    }
    if wanted("failover") {
        failovers(&mut cluster).await;
    }
    if wanted("submit") {
        durable_submits(&cluster.user, &cluster).await;
    }
}

/// From the call to the first instruction of the last rank.
async fn start_times(cluster: &TestCluster) {
    for nodes in GANGS {
        let mut took = Vec::new();
        for run in 0..GANG_RUNS {
            let spec = gang(&format!("start-{nodes}-{run}"), nodes, "date +%s%N");
            let begun_ns = wall_ns();
            let id = cluster.user.submit_job(&spec).await;
            cluster.user.ended(id).await;
            let logs = cluster.user.logs(id, 1).await;
            assert_eq!(logs.len() as u32, nodes, "a rank wrote nothing");
            let last_ns = logs.values().map(|text| text.trim().parse::<u128>().expect("a number")).max();
            took.push((last_ns.expect("there are ranks") - begun_ns) as f64 / 1e6);
        }
        row(&format!("submit to the last rank's first instruction, {nodes} node(s)"), "ms", took);
    }
}

fn wall_ns() -> u128 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("the clock is past 1970").as_nanos()
}

/// Acknowledged submits of held jobs, each its own key, on so many connections.
async fn durable_submits(user: &Person, cluster: &TestCluster) {
    let leader = cluster.addresses[cluster.leader().await].clone();
    for connections in CONNECTIONS {
        let ends = Instant::now() + FLOOD;
        let begun = Instant::now();
        let floods = (0..connections).map(|connection| {
            let mut api = user.api(&leader);
            tokio::spawn(async move {
                let mut took_ms = Vec::new();
                while Instant::now() < ends {
                    let spec = gang("flood", 1, "true");
                    let key = format!("flood-{connections}-{connection}-{}", took_ms.len());
                    let request = SubmitRequest { spec_json: spec.to_string(), key, hold: true, ..Default::default() };
                    let asked = Instant::now();
                    api.submit(request).await.expect("the leader takes submits");
                    took_ms.push(asked.elapsed().as_secs_f64() * 1e3);
                }
                took_ms
            })
        });
        let mut all = Vec::new();
        for flood in floods.collect::<Vec<_>>() {
            all.extend(flood.await.expect("a flood ends"));
        }
        let rate = all.len() as f64 / begun.elapsed().as_secs_f64();
        println!(
            "durable submits, {connections} connection(s): {rate:.0}/s over {:.1} s",
            begun.elapsed().as_secs_f64()
        );
        row("  each", "ms", all);
    }
}

/// From `kill -9` of the leader to the next acknowledged submit.
async fn failovers(cluster: &mut TestCluster) {
    let mut took = Vec::new();
    for run in 0..FAILOVERS {
        let leader = cluster.leader().await;
        cluster.settled().await;
        cluster.servers[leader].kill_9();
        let begun_ms = wall_ms();
        let spec = gang("failover", 1, "true").to_string();
        let request =
            SubmitRequest { spec_json: spec, key: format!("failover-{run}"), hold: true, ..Default::default() };
        cluster.user.call("submit", async |mut api| api.submit(request.clone()).await).await;
        took.push((wall_ms() - begun_ms) as f64);
        cluster.servers[leader].start();
    }
    row("kill -9 of the leader to the next acknowledged submit", "ms", took);
}
