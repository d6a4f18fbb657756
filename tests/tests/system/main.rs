//! The whole system on one machine: real servers, agents, shims and ranks, and what happens when
//! they are killed. Every fault test prints what ran, and what no server had acknowledged, at the
//! moment of its kill; a run in which either is empty fails.

mod agent_killed;
mod all_servers_killed;
mod allreduce;
mod applied;
mod backup_restored;
mod dev;
mod doctor;
mod elastic;
mod examples;
#[cfg(feature = "real-time")]
mod fidelity;
mod http;
mod leader_killed;
mod node_lost;
mod one_at_a_time;
mod policy_tried;
mod rank_killed;
mod refusals;
mod replayed;
mod reservations;
mod roles;
mod rolling_upgrade;
mod servers_change;

use muster_tests::cluster::TestCluster;
use muster_tests::cluster::observer::Observer;
use serde_json::{Value, json};
use std::path::Path;

/// A job of `nodes` nodes with `per_node` GPUs each, one rank per GPU.
fn job(name: &str, nodes: u32, per_node: u32, run: &str) -> Value {
    json!({
        "name": name,
        "gang": {"nodes": nodes, "gpus_per_node": per_node, "ranks_per_node": "gpu", "run": run},
        "checkpoint": {"grace": "2s"},
    })
}

/// One node's eight GPUs, at a priority class.
fn of_class(name: &str, class: &str, run: &str) -> Value {
    let mut job = job(name, 1, 8, run);
    job["priority"] = json!(class);
    job
}

/// As [`job`], only on nodes other than these.
fn job_off(name: &str, nodes: u32, per_node: u32, run: &str, exclude: &[&str]) -> Value {
    let mut job = job(name, nodes, per_node, run);
    job["gang"]["exclude"] = json!(exclude);
    job
}

/// A path of a test's own folder, as a word of a command line.
fn plain(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// All nodes of a cluster but one, by name.
fn others<'a>(cluster: &'a TestCluster, node: &str) -> Vec<&'a str> {
    cluster.places.iter().map(|place| place.name.as_str()).filter(|name| *name != node).collect()
}

fn observe(cluster: &TestCluster) -> Observer {
    Observer::start(env!("CARGO_BIN_EXE_muster-observer"), cluster.folder())
}
