//! Where gangs are put: levels, nodes, devices, ranks.

use crate::plan_support;

use muster_common::node::Link;
use muster_common::resources::Share;
use muster_common::topology::TopologyMode::{Preferred, Required};
use muster_common::{GangId, NodeId};
use muster_engine::command::{Command, NodeAction, Principal};
use muster_engine::policy::{DeviceChoice, Domains, Policy, Score};
use plan_support::*;

/// Two pods of two leaves of four nodes with eight devices; nodes in fabric order.
fn pods() -> (Cluster, Vec<NodeId>) {
    let mut cluster = Cluster::new(Policy::default());
    cluster.fabric(&["pod", "leaf"]);
    let mut all = Vec::new();
    for (pod, leaf) in [("p0", "l0"), ("p0", "l1"), ("p1", "l0"), ("p1", "l1")] {
        for at in 0..4 {
            all.push(cluster.node(&format!("{pod}-{leaf}-{at}"), inventory("H100", 8, &[pod, leaf])));
        }
    }
    (cluster, all)
}

fn nodes_of(cluster: &Cluster, gang: GangId) -> Vec<NodeId> {
    cluster.held(gang).into_iter().map(|(node, _)| node).collect()
}

#[test]
fn a_small_gang_goes_to_the_fullest_node_that_holds_it() {
    let mut cluster = Cluster::new(Policy::default());
    let all = cluster.nodes(3, 8);
    let first = cluster.submit(job(nodes(1, 3)));
    cluster.decide();
    assert_eq!(nodes_of(&cluster, first), [all[0]]);
    let second = cluster.submit(job(nodes(1, 6)));
    cluster.decide();
    assert_eq!(nodes_of(&cluster, second), [all[1]]);
    let third = cluster.submit(job(nodes(1, 2)));
    cluster.decide();
    assert_eq!(nodes_of(&cluster, third), [all[1]], "two are free there, five on the first, eight on the last");
}

#[test]
fn a_gang_without_a_wish_goes_to_the_lowest_level_that_holds_it() {
    let (mut cluster, all) = pods();
    let corner = cluster.submit(job(nodes(1, 8)));
    cluster.decide();
    assert_eq!(nodes_of(&cluster, corner), [all[0]]);
    let three = cluster.submit(job(nodes(3, 8)));
    cluster.decide();
    assert_eq!(nodes_of(&cluster, three), all[1..4], "the leaf with the least that suffices");
    let six = cluster.submit(job(nodes(6, 8)));
    cluster.decide();
    assert_eq!(nodes_of(&cluster, six), all[8..14], "one pod, its first leaf whole");
}

#[test]
fn a_required_level_waits_and_a_preferred_one_spreads() {
    let (mut cluster, all) = pods();
    (0..4).for_each(|_| _ = cluster.submit(job(nodes(3, 8))));
    cluster.decide();
    let waits = cluster.submit(within(job(nodes(2, 8)), "leaf", Required, 1));
    let spreads = cluster.submit(within(job(nodes(2, 8)), "leaf", Preferred, 1));
    cluster.decide();
    assert_eq!(cluster.held(waits), []);
    assert_eq!(
        nodes_of(&cluster, spreads),
        [all[3], all[7]],
        "one node of each leaf is left; one pod is better than two"
    );
}

#[test]
fn at_most_two_leaves_are_two_leaves() {
    let (mut cluster, all) = pods();
    let one_each: Vec<GangId> = (0..4).map(|_| cluster.submit(job(nodes(3, 8)))).collect();
    cluster.decide();
    assert!(one_each.iter().all(|gang| cluster.held(*gang).len() == 3), "one node of each leaf is left");
    let three = cluster.submit(within(job(nodes(3, 8)), "leaf", Required, 2));
    let two = cluster.submit(within(job(nodes(2, 8)), "leaf", Required, 2));
    cluster.decide();
    assert_eq!(cluster.held(three), []);
    assert_eq!(nodes_of(&cluster, two), [all[3], all[7]]);
}

#[test]
fn ranks_follow_the_fabric_whatever_the_order_of_registration() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.fabric(&["leaf"]);
    let mut by_leaf = Vec::new();
    for (at, leaf) in ["b", "a", "b", "a"].iter().enumerate() {
        by_leaf.push((*leaf, cluster.node(&format!("host{at}"), inventory("H100", 8, &[leaf]))));
    }
    let gang = cluster.submit(job(nodes(4, 8)));
    cluster.decide();
    by_leaf.sort();
    assert_eq!(nodes_of(&cluster, gang), by_leaf.iter().map(|(_, node)| *node).collect::<Vec<_>>());
    assert!(cluster.held(gang).iter().all(|(_, slots)| slots.iter().copied().eq(0..8)));
}

#[test]
fn the_preferred_model_is_taken_while_it_lasts() {
    let mut cluster = Cluster::new(Policy::default());
    let old = cluster.node("old", inventory("A100", 8, &[]));
    let new = cluster.node("new", inventory("H100", 8, &[]));
    let mut wish = job(nodes(1, 8));
    wish.groups[0].models = vec![name("H100"), name("A100")];
    let (first, second) = (cluster.submit(wish.clone()), cluster.submit(wish.clone()));
    cluster.decide();
    assert_eq!((nodes_of(&cluster, first), nodes_of(&cluster, second)), (vec![new], vec![old]));
}

#[test]
fn labels_names_and_closed_nodes_are_kept_off() {
    let mut cluster = Cluster::new(Policy::default());
    let mut labelled = inventory("H100", 8, &[]);
    labelled.labels.insert(name("disk"), "nvme".into());
    let plain = cluster.node("plain", inventory("H100", 8, &[]));
    let fast = cluster.node("fast", labelled.clone());
    cluster.node("faster", labelled);
    let by = Principal("op".into());
    cluster.commit(Command::NodeAdmin { node: plain, action: NodeAction::Cordon { reason: "test".into() }, by });
    let mut wish = job(nodes(1, 1));
    wish.groups[0].labels.insert(name("disk"), "nvme".into());
    wish.groups[0].exclude = vec![name("faster")];
    let gangs: Vec<GangId> = (0..9).map(|_| cluster.submit(wish.clone())).collect();
    cluster.decide();
    assert!(gangs[..8].iter().all(|gang| nodes_of(&cluster, *gang) == [fast]));
    assert_eq!(cluster.held(gangs[8]), []);
}

#[test]
fn cpu_and_memory_bound_what_devices_alone_would_allow() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.nodes(2, 8);
    let mut wish = job(nodes(1, 1));
    wish.groups[0].cpu_milli_per_node = Some(24_000);
    let gangs: Vec<GangId> = (0..5).map(|_| cluster.submit(wish.clone())).collect();
    cluster.decide();
    let started = gangs.iter().filter(|gang| !cluster.held(**gang).is_empty()).count();
    assert_eq!(started, 4, "two of 24 CPUs on each node of 64");
}

#[test]
fn shares_fill_a_device_before_they_open_another() {
    let mut cluster = Cluster::new(Policy::default());
    let all = cluster.nodes(2, 2);
    let mut wish = job(nodes(1, 1));
    wish.groups[0].share = Share(400);
    let gangs: Vec<GangId> = (0..5).map(|_| cluster.submit(wish.clone())).collect();
    cluster.decide();
    let held: Vec<_> = gangs.iter().flat_map(|gang| cluster.held(*gang)).collect();
    let on = |slot: u16| (all[0], vec![slot]);
    assert_eq!(held, [on(0), on(0), on(1), on(1), (all[1], vec![0])]);
}

#[test]
fn a_gang_of_processors_keeps_off_the_devices() {
    let mut cluster = Cluster::new(Policy::default());
    let with = cluster.node("a-gpu", inventory("H100", 8, &[]));
    let without = cluster.node("b-cpu", inventory("H100", 0, &[]));
    let gang = cluster.submit(job(nodes(1, 0)));
    let both = cluster.submit(job(nodes(2, 0)));
    cluster.decide();
    assert_eq!(nodes_of(&cluster, gang), [without]);
    assert_eq!(nodes_of(&cluster, both), [with, without]);
}

#[test]
fn a_total_takes_as_few_nodes_as_will_do() {
    let mut cluster = Cluster::new(Policy::default());
    let all = cluster.nodes(3, 8);
    let corner = cluster.submit(job(nodes(1, 5)));
    cluster.decide();
    let gang = cluster.submit(job(total(11)));
    cluster.decide();
    assert_eq!(nodes_of(&cluster, corner), [all[0]]);
    let held = cluster.held(gang);
    assert_eq!(held.iter().map(|(node, slots)| (*node, slots.len())).collect::<Vec<_>>(), [(all[0], 3), (all[1], 8)]);
}

#[test]
fn one_node_else_whole_nodes_and_one_for_the_rest() {
    let mut cluster = Cluster::new(Policy { domains: Domains::NodeThenLevel, ..Policy::default() });
    let all = cluster.nodes(4, 8);
    let five = cluster.submit(job(total(5)));
    cluster.decide();
    let twenty = cluster.submit(job(total(19)));
    cluster.decide();
    assert_eq!(cluster.held(five), [(all[0], vec![0, 1, 2, 3, 4])]);
    let sizes: Vec<_> = cluster.held(twenty).iter().map(|(node, slots)| (*node, slots.len())).collect();
    assert_eq!(sizes, [(all[0], 3), (all[1], 8), (all[2], 8)]);
    let never_split = cluster.submit(job(total(8)));
    let waits = cluster.submit(job(total(1)));
    cluster.decide();
    assert_eq!(nodes_of(&cluster, never_split), [all[3]]);
    assert_eq!(cluster.held(waits), []);
}

#[test]
fn anywhere_takes_the_lowest_devices_and_spread_the_emptiest_node() {
    let mut cluster = Cluster::new(Policy { domains: Domains::Anywhere, ..Policy::default() });
    let all = cluster.nodes(2, 4);
    let gang = cluster.submit(job(total(6)));
    cluster.decide();
    assert_eq!(cluster.held(gang), [(all[0], vec![0, 1, 2, 3]), (all[1], vec![0, 1])]);

    let mut cluster = Cluster::new(Policy { score: Score::Spread, ..Policy::default() });
    let all = cluster.nodes(3, 4);
    let gangs: Vec<GangId> = (0..3).map(|_| cluster.submit(job(nodes(1, 1)))).collect();
    cluster.decide();
    assert_eq!(gangs.iter().flat_map(|gang| nodes_of(&cluster, *gang)).collect::<Vec<_>>(), all);
}

#[test]
fn devices_inside_a_node_are_chosen_by_their_links() {
    // The pairs (0,1) and (2,3) have NVLink on this machine; all else crosses sockets.
    let mut machine = inventory("H100", 4, &[]);
    for a in 0..4 {
        for b in 0..4 {
            machine.links[a][b] = match (a, b) {
                _ if a == b => Link::Same,
                _ if a / 2 == b / 2 => Link::NvLink(12),
                _ => Link::Sys,
            };
        }
    }
    let pair_after_one = |device| {
        let mut cluster = Cluster::new(Policy { device, ..Policy::default() });
        cluster.node("box", machine.clone());
        cluster.submit(job(nodes(1, 1)));
        cluster.decide();
        let pair = cluster.submit(job(nodes(1, 2)));
        cluster.decide();
        cluster.held(pair).remove(0).1
    };
    assert_eq!(pair_after_one(DeviceChoice::Links), [2, 3]);
    assert_eq!(pair_after_one(DeviceChoice::FirstFit), [1, 2]);
}

#[test]
fn a_lost_link_makes_seven_and_one() {
    // One device of a machine of eight has lost its NVLink: seven belong together.
    let mut machine = inventory("B200", 8, &[]);
    for other in (0..8).filter(|other| *other != 2) {
        machine.links[2][other] = Link::Node;
        machine.links[other][2] = Link::Node;
    }
    let mut cluster = Cluster::new(Policy::default());
    let node = cluster.node("degraded", machine);
    let single = cluster.submit(job(nodes(1, 1)));
    let four = cluster.submit(job(nodes(1, 4)));
    cluster.decide();
    assert_eq!(cluster.held(single), [(node, vec![2])]);
    assert_eq!(cluster.held(four), [(node, vec![0, 1, 3, 4])]);
}

#[test]
fn arrays_start_as_many_as_they_may() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.nodes(4, 8);
    let first = cluster.submit(array(exact(nodes(1, 8), 100), 6, Some(2)));
    cluster.decide();
    let running = |cluster: &Cluster| -> Vec<u32> {
        (0..6).filter(|at| !cluster.held(GangId::new(first.job, *at)).is_empty()).collect()
    };
    assert_eq!(running(&cluster), [0, 1]);
    cluster.run();
    assert_eq!(cluster.seen.ends.len(), 6);
    let mut at_once: Vec<u64> = cluster.seen.starts.values().map(|starts| starts[0].0 / 1000).collect();
    at_once.sort_unstable();
    assert_eq!(at_once, [0, 0, 100, 100, 200, 200]);
}
