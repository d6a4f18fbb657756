//! Figures of a real cluster on this machine, for docs/BENCHMARKS.md: three servers with their own fsync, eight agents with
//! simulated devices, mutual TLS, real ranks. The loads themselves are `muster bench`.
//!
//! `cargo run --release -p muster-tests --bin muster-measure [start] [submit] [drain] [gangs] [array] [kills] [transfers] [memory]`;
//! all of them when none is named. `hold` starts the cluster, says where it is and keeps it until its input ends, so that
//! another program can put loads on it and on something else in turn. `idle [AGENTS] [SECONDS]` says what agents without
//! work cost the leader, `starts [AGENTS]` what starts on many nodes do.

mod hold;
mod idle;
mod kills;
mod memory;
mod starts;
mod transfers;

use muster_tests::cluster::{Options, TestCluster};
use serde_json::Value;
use std::time::Duration;

/// For one load, on a slow machine.
const LONGEST: Duration = Duration::from_secs(600);

/// Loads of `muster bench`, by the name they have here.
const LOADS: [(&str, &[&[&str]]); 5] = [
    ("start", &[&["start", "--runs", "15"]]),
    (
        "submit",
        &[
            &["submit", "--connections", "1"],
            &["submit", "--connections", "8"],
            &["submit", "--connections", "8", "--in-flight", "8", "--jobs", "10000"],
        ],
    ),
    ("drain", &[&["drain"], &["drain", "--array"]]),
    ("gangs", &[&["drain", "--gangs", "200", "--nodes", "4"], &["drain", "--gangs", "200", "--nodes", "8"]]),
    ("array", &[&["array"]]),
];

#[tokio::main]
async fn main() {
    muster_runtime::identity::install_crypto();
    let named: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &str| named.is_empty() || named.iter().any(|argument| argument == name);
    let options =
        Options { fence_after_ms: 60_000, calm_elections: false, runtime_in_memory: true, ..Options::default() };
    if named.first().is_some_and(|name| name == "idle") {
        return idle::agents(&named[1..]).await;
    }
    if named.first().is_some_and(|name| name == "starts") {
        return starts::on_many_nodes(&named[1..]).await;
    }
    let mut cluster = TestCluster::start(3, 8, options).await;
    if named.iter().any(|name| name == "hold") {
        return hold::until_input_ends(&mut cluster).await;
    }
    println!("3 servers, 8 agents, one machine");
    for (_, runs) in LOADS.iter().filter(|(name, _)| wanted(name)) {
        for arguments in *runs {
            bench(&cluster, arguments).await;
        }
    }
    if wanted("memory") {
        memory::of_a_long_queue(&cluster).await;
    }
    if wanted("transfers") {
        transfers::of_leadership(&cluster).await;
    }
    if wanted("kills") {
        kills::of_the_leader(&mut cluster, kills::KILLS).await.print();
    }
}

/// Runs one load and prints its table row by row.
async fn bench(cluster: &TestCluster, arguments: &[&str]) {
    let mut command = tokio::process::Command::from(cluster.user.muster(&[&["--json", "bench"], arguments].concat()));
    let ended = tokio::time::timeout(LONGEST, command.kill_on_drop(true).output()).await;
    let output = ended.expect("a load ends").expect("muster starts");
    assert!(output.status.success(), "muster bench: {}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).expect("a document");
    for load in answer["loads"].as_array().into_iter().flatten() {
        let figure = |key: &str| load[key].as_f64().map_or("-".to_owned(), |value| format!("{value:.1}"));
        println!(
            "{:<44} {:>9} /s   median {:>7} ms (min {}, p99 {}, max {})",
            load["load"].as_str().unwrap_or_default(),
            figure("per_second"),
            figure("median_ms"),
            figure("min_ms"),
            figure("p99_ms"),
            figure("max_ms"),
        );
    }
    assert!(matches!(answer["loads"], Value::Array(_)), "no loads in {answer}");
}
