//! Whoever has devices kept for it is told all the same what the job itself, limits and quota say.

use crate::plan_support;
use crate::taking::lose;
use crate::taking_support;

use muster_common::GangId;
use muster_engine::command::{Command, Principal};
use muster_engine::organisation::{Account, Caps};
use muster_engine::plan::explain::Reason;
use muster_engine::policy::Policy;
use plan_support::*;
use taking_support::{Cluster, account, charged, forever};

fn reasons(cluster: &mut Cluster, gang: GangId) -> Vec<Reason> {
    cluster.why(gang).blockers.iter().map(|blocker| blocker.reason).collect()
}

#[test]
fn a_wounded_gang_that_is_held_says_so_first() {
    let mut cluster = Cluster::new(Policy::default());
    let racks = cluster.racks(1, 4, 8);
    let wide = cluster.submit(forever(nodes(4, 8)));
    lose(&mut cluster, racks[0][1]);
    cluster.pass(10);
    let hold = |hold| Command::Hold { job: wide.job, hold, by: Principal("op".into()) };
    cluster.commit(hold(true));
    assert_eq!(reasons(&mut cluster, wide), [Reason::Hold, Reason::Wounded]);
    let told = cluster.why(wide);
    let asked = [Reason::Dependency, Reason::Nodes, Reason::GpuModel, Reason::Topology, Reason::Priority];
    assert!(asked.iter().all(|reason| !told.rules_out(*reason)), "it lacks a node: {told:?}");
    cluster.node("new", inventory("H100", 8, &["r0"]));
    cluster.decide();
    assert!(!cluster.runs(wide), "it is held");
    cluster.commit(hold(false));
    cluster.decide();
    assert!(cluster.runs(wide));
}

/// `lab` may hold so many GPUs, and its users may run one gang.
fn limited(cluster: &mut Cluster, gpus: u32) {
    let limits = Caps { gpus: Some(gpus), ..Caps::default() };
    let user_limits = Caps { running: Some(1), ..Caps::default() };
    let lab = account("lab", None, (0, None, None));
    cluster.organise(vec![Account { quota: Default::default(), limits, user_limits, ..lab }]);
}

#[test]
fn a_wounded_gang_hears_of_a_limit_that_was_lowered_meanwhile() {
    let mut cluster = Cluster::new(Policy::default());
    let racks = cluster.racks(1, 4, 8);
    limited(&mut cluster, 32);
    let wide = cluster.submit(charged(forever(nodes(4, 8)), "lab"));
    lose(&mut cluster, racks[0][1]);
    cluster.pass(10);
    assert_eq!(reasons(&mut cluster, wide), [Reason::Wounded]);
    limited(&mut cluster, 16);
    assert_eq!(reasons(&mut cluster, wide), [Reason::AccountLimit, Reason::Wounded]);
}

#[test]
fn a_users_and_an_accounts_limit_are_both_told() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.racks(1, 2, 8);
    limited(&mut cluster, 4);
    let [first, second] = [4, 4].map(|gpus| cluster.only_submit(charged(forever(nodes(1, gpus)), "lab")));
    let both = [Reason::UserLimit, Reason::AccountLimit];
    assert!(cluster.why(first).starts_now);
    assert_eq!(reasons(&mut cluster, second), both, "what this very cycle starts counts");
    cluster.decide();
    assert!(cluster.runs(first));
    assert_eq!(reasons(&mut cluster, second), both);
}
