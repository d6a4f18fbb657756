//! Which of the nodes that would do, by each score.

use crate::plan_support;

use muster_common::job::Scheduling;
use muster_common::resources::Share;
use muster_common::{GangId, NodeId};
use muster_engine::policy::{CostBelief, DeviceChoice, Policy, PolicyError, Score, TypicalShape};
use plan_support::*;

fn with(score: Score) -> Cluster {
    Cluster::new(Policy { score, ..Policy::default() })
}

fn node_of(cluster: &Cluster, gang: GangId) -> NodeId {
    cluster.held(gang)[0].0
}

fn place(cluster: &mut Cluster, wish: Scheduling) -> GangId {
    let gang = cluster.submit(wish);
    cluster.decide();
    assert!(!cluster.held(gang).is_empty(), "it fits");
    gang
}

fn share(milli: u16) -> Scheduling {
    let mut wish = job(nodes(1, 1));
    wish.groups[0].share = Share(milli);
    wish.groups[0].cpu_milli_per_node = Some(1000);
    wish
}

fn shape(gpus: u32, share_milli: u16, weight: u32) -> TypicalShape {
    TypicalShape { gpus, share_milli, cpu_milli: Some(1000), memory_bytes: 0, models: Vec::new(), weight }
}

#[test]
fn packing_breaks_into_idle_nodes_last() {
    let mut cluster = with(Score::Pack);
    cluster.node("a", inventory("H100", 2, &[]));
    let big = cluster.node("b", inventory("H100", 8, &[]));
    let mut pinned = job(nodes(1, 1));
    pinned.groups[0].exclude = vec![name("a")];
    place(&mut cluster, pinned);
    let one = place(&mut cluster, job(nodes(1, 1)));
    assert_eq!(node_of(&cluster, one), big, "best fit would take the small idle node");
    let half = place(&mut cluster, share(500));
    let other = place(&mut cluster, share(400));
    assert_eq!(cluster.held(half), cluster.held(other), "a device in use before a whole one");
}

#[test]
fn the_least_left_counts_cpu_as_much_as_devices() {
    let mut cluster = with(Score::LeastLeft);
    let mut lean = inventory("H100", 8, &[]);
    lean.cpu_milli = 16_000;
    cluster.node("rich", inventory("H100", 8, &[]));
    let lean = cluster.node("lean", lean);
    let mut wish = job(nodes(1, 1));
    wish.groups[0].cpu_milli_per_node = Some(4000);
    let gang = place(&mut cluster, wish);
    assert_eq!(node_of(&cluster, gang), lean);
}

#[test]
fn clustering_puts_like_sizes_together() {
    let mut cluster = with(Score::Clustering);
    let all = cluster.nodes(3, 8);
    let two = place(&mut cluster, job(nodes(1, 2)));
    let four = place(&mut cluster, job(nodes(1, 4)));
    let again = place(&mut cluster, job(nodes(1, 2)));
    let fourth = place(&mut cluster, job(nodes(1, 4)));
    let of = |gang| node_of(&cluster, gang);
    assert_eq!((of(two), of(again)), (all[0], all[0]));
    assert_eq!((of(four), of(fourth)), (all[1], all[1]));
}

#[test]
fn fragmentation_gradient_descent_spares_what_others_need() {
    let workload = vec![shape(8, 1000, 60), shape(1, 500, 40)];
    let policy = Policy { score: Score::Fgd, device: DeviceChoice::FgdBest, workload, ..Policy::default() };
    let mut cluster = Cluster::new(policy);
    let all = cluster.nodes(2, 8);
    let first = place(&mut cluster, share(500));
    let second = place(&mut cluster, share(500));
    assert_eq!(cluster.held(first), cluster.held(second), "two halves of one device");
    let third = place(&mut cluster, job(nodes(1, 3)));
    assert_eq!(node_of(&cluster, third), all[0], "the broken node, so that eight stay free");
    let whole = place(&mut cluster, job(nodes(1, 8)));
    assert_eq!(node_of(&cluster, whole), all[1]);
}

#[test]
fn the_typical_workload_is_learned_from_what_waits_and_runs() {
    let chosen = |whole_nodes_wait: bool| {
        let mut cluster = Cluster::new(Policy { score: Score::Fgd, ..Policy::default() });
        let all = cluster.nodes(2, 8);
        let mut pinned = share(500);
        pinned.groups[0].exclude = vec![name("n00")];
        place(&mut cluster, pinned);
        for _ in 0..if whole_nodes_wait { 30 } else { 0 } {
            let mut later = job(nodes(1, 8));
            later.begin_at_ms = Some(u64::MAX / 2);
            cluster.submit(later);
        }
        let three = place(&mut cluster, job(nodes(1, 3)));
        all.iter().position(|node| *node == node_of(&cluster, three)).unwrap()
    };
    assert_eq!(chosen(false), 0, "for such as run, both nodes are as good, and the lowest is taken");
    assert_eq!(chosen(true), 1, "whole nodes are wanted, and one is broken already");
}

/// Two leaves of four nodes, of which the first has one left and the second three, and a leaf that is whole.
fn leaves(score: Score) -> (Cluster, Vec<Vec<NodeId>>) {
    let mut cluster = with(score);
    cluster.fabric(&["leaf"]);
    let leaf = |at: usize| {
        (0..4).map(|n| cluster.node(&format!("l{at}-{n}"), inventory("H100", 8, &[&format!("l{at}")]))).collect()
    };
    let all: Vec<Vec<NodeId>> = (0..3).map(leaf).collect();
    for (at, used) in [(0, 3), (1, 2)] {
        for n in 0..used {
            let mut pinned = job(nodes(1, 8));
            pinned.groups[0].exclude = (0..3)
                .flat_map(|leaf| (0..4).map(move |node| (leaf, node)))
                .filter(|other| *other != (at, n))
                .map(|(leaf, node)| name(&format!("l{leaf}-{node}")))
                .collect();
            place(&mut cluster, pinned);
        }
    }
    (cluster, all)
}

#[test]
fn topology_cost_weighs_distance_by_what_a_job_communicates() {
    let spread_over = |percent: u8| {
        let (mut cluster, all) = leaves(Score::TopologyCost);
        let mut wish = job(nodes(3, 8));
        wish.groups[0].communication_percent = Some(percent);
        let gang = place(&mut cluster, wish);
        let held = cluster.held(gang);
        all.iter().map(|leaf| held.iter().filter(|(node, _)| leaf.contains(node)).count()).collect::<Vec<_>>()
    };
    assert_eq!(spread_over(60), [0, 0, 3], "much is said, so one leaf, and one node of it is stranded");
    assert_eq!(spread_over(1), [1, 2, 0], "little is said, so the leftovers, and a leaf stays whole");
    let (mut cluster, all) = leaves(Score::BestFit);
    let gang = place(&mut cluster, job(nodes(3, 8)));
    assert!(cluster.held(gang).iter().all(|(node, _)| all[2].contains(node)), "best fit never asks");
}

#[test]
fn chance_repeats_itself_and_differs_by_seed() {
    let order = |seed: u64| -> Vec<NodeId> {
        let mut cluster = with(Score::Random { seed });
        cluster.nodes(16, 1);
        let gangs: Vec<GangId> = (0..16).map(|_| place(&mut cluster, job(nodes(1, 1)))).collect();
        gangs.into_iter().map(|gang| node_of(&cluster, gang)).collect()
    };
    assert_eq!(order(1), order(1));
    assert_ne!(order(1), order(2));
    assert!(
        order(1) != {
            let mut sorted = order(1);
            sorted.sort();
            sorted
        }
    );
}

#[test]
fn a_policy_that_makes_no_sense_is_refused() {
    let bad = Policy { workload: vec![shape(1, 0, 1)], ..Policy::default() };
    assert_eq!(bad.validate(), Err(PolicyError::Workload));
    let cost = Box::new(CostBelief { nvlink_gbytes: 0, ..CostBelief::default() });
    assert_eq!(Policy { cost, ..Policy::default() }.validate(), Err(PolicyError::Cost("nvlink_gbytes")));
    assert_eq!(Policy { workload: vec![shape(8, 1000, 3)], ..Policy::default() }.validate(), Ok(()));
}
