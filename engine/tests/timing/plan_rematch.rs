//! `backfill.rematch`: a filler may have what a booking counts on, if the booked gang finds as much elsewhere in
//! its own domain and no later.

use crate::plan_support;

use muster_common::job::Scheduling;
use muster_common::topology::TopologyMode::Required;
use muster_common::topology::{FabricSpec, TreeSpec};
use muster_common::{GangId, NodeId};
use muster_engine::command::ConfigChange;
use muster_engine::policy::{Backfill, Order, Policy};
use muster_engine::state::reservation::Reservation;
use plan_support::*;
use std::collections::{BTreeMap, BTreeSet};

fn booking(reserve_depth: u32, rematch: bool) -> Policy {
    Policy {
        order: Order::Fifo,
        backfill: Backfill { reserve_depth, rematch, ..Backfill::default() },
        ..Policy::default()
    }
}

/// On none but the named ones of `n0`, `n1`, ...
fn only_on(mut wish: Scheduling, all: usize, on: &[usize]) -> Scheduling {
    wish.groups[0].exclude = (0..all).filter(|at| !on.contains(at)).map(|at| name(&format!("n{at}"))).collect();
    wish
}

/// Nodes of four devices in leaves, with so many seconds for which the first of them are taken.
fn cluster(policy: Policy, leaves: &[&str], taken_s: &[u64]) -> (Cluster, Vec<NodeId>) {
    let mut cluster = Cluster::new(policy);
    cluster.fabric(&["leaf"]);
    let nodes_of: Vec<NodeId> =
        (0..leaves.len()).map(|at| cluster.node(&format!("n{at}"), inventory("H100", 4, &[leaves[at]]))).collect();
    for (at, run_s) in taken_s.iter().enumerate() {
        cluster.submit(only_on(exact(nodes(1, 4), *run_s), leaves.len(), &[at]));
    }
    cluster.decide();
    (cluster, nodes_of)
}

/// By gang, the start in seconds and the nodes.
fn booked(cluster: &Cluster) -> BTreeMap<GangId, (u64, BTreeSet<NodeId>)> {
    let of = |known: &Reservation| (known.start.0 / 1000, known.witness.iter().map(|device| device.node).collect());
    cluster.player.state.reservations().values().map(|known| (known.gang, of(known))).collect()
}

fn set(all: &[NodeId], at: &[usize]) -> BTreeSet<NodeId> {
    at.iter().map(|at| all[*at]).collect()
}

#[test]
fn without_room_to_spare_there_is_nothing_to_swap() {
    let mut policy = booking(1, true);
    assert_eq!(policy.validate(), Ok(()));
    policy.backfill.spare = false;
    let refused = policy.validate().unwrap_err().to_string();
    assert!(refused.starts_with("backfill.rematch is true and backfill.spare is false"), "{refused}");
}

/// A gang of three nodes is to start at 100 s on the two that are taken and on `n2`; `n3` is free as well.
#[test]
fn a_filler_takes_a_booked_device_only_with_rematch() {
    for depth in [1, 4] {
        for rematch in [false, true] {
            let (mut cluster, all) = cluster(booking(depth, rematch), &["a"; 4], &[100, 100]);
            let gang = cluster.submit(exact(nodes(3, 4), 100));
            cluster.decide();
            assert_eq!(booked(&cluster)[&gang], (100, set(&all, &[0, 1, 2])), "depth {depth}");
            let filler = cluster.submit(only_on(exact(nodes(1, 4), 500), 4, &[2]));
            cluster.decide();
            assert_eq!(cluster.start_s(filler), rematch.then_some(0), "depth {depth}");
            if rematch && depth > 1 {
                assert_eq!(booked(&cluster)[&gang], (100, set(&all, &[0, 1, 3])), "what was found instead is written");
            }
            cluster.run();
            assert_eq!(cluster.start_s(gang), Some(100), "depth {depth}, rematch {rematch}");
        }
    }
}

#[test]
fn with_nothing_else_for_the_booked_gang_the_filler_waits() {
    for depth in [1, 4] {
        let (mut cluster, _) = cluster(booking(depth, true), &["a"; 4], &[100, 100]);
        let gang = cluster.submit(exact(nodes(3, 4), 100));
        let spare = cluster.submit(only_on(exact(nodes(1, 4), 500), 4, &[3]));
        let filler = cluster.submit(only_on(exact(nodes(1, 4), 500), 4, &[2]));
        cluster.decide();
        assert_eq!([spare, filler].map(|gang| cluster.start_s(gang)), [Some(0), None], "depth {depth}");
        let short = cluster.submit(only_on(exact(nodes(1, 4), 100), 4, &[2]));
        cluster.decide();
        assert_eq!(cluster.start_s(short), Some(0), "it is gone in time");
        cluster.run();
        assert_eq!(cluster.start_s(gang), Some(100), "depth {depth}");
    }
}

/// The other leaf would hold it, but that is another domain.
#[test]
fn a_booked_gang_stays_in_its_domain() {
    for rematch_in_leaf in [false, true] {
        let leaves = if rematch_in_leaf { ["a", "a", "a", "a", "b", "b"] } else { ["a", "a", "a", "b", "b", "b"] };
        let (mut cluster, all) = cluster(booking(4, true), &leaves, &[100]);
        // Both leaves are short of one node until then.
        let other = if rematch_in_leaf { 4 } else { 3 };
        let second = only_on(exact(nodes(1, 4), if rematch_in_leaf { 300 } else { 100 }), 6, &[other]);
        cluster.submit(second);
        let third = only_on(exact(nodes(1, 4), 100), 6, &[1]);
        cluster.submit(third);
        cluster.decide();
        let gang = cluster.submit(within(exact(nodes(3, 4), 100), "leaf", Required, 1));
        cluster.decide();
        assert_eq!(booked(&cluster)[&gang], (100, set(&all, &[0, 1, 2])));
        let filler = cluster.submit(only_on(exact(nodes(1, 4), 500), 6, &[2]));
        cluster.decide();
        assert_eq!(cluster.start_s(filler).is_some(), rematch_in_leaf);
        let expected = if rematch_in_leaf { [0, 1, 3] } else { [0, 1, 2] };
        assert_eq!(booked(&cluster)[&gang], (100, set(&all, &expected)));
        cluster.run();
        assert_eq!(cluster.start_s(gang), Some(100));
    }
}

/// As in the test before, but the domains are racks of NVLink, a tree of their own across the leaves of the network.
#[test]
fn a_booked_gang_stays_in_its_domain_of_another_tree() {
    for racks in [["x", "x", "x", "x", "y", "y"], ["x", "x", "x", "y", "y", "y"]] {
        let mut cluster = Cluster::new(booking(4, true));
        let level = |tree: &str, level: &str| TreeSpec { name: name(tree), levels: vec![name(level)] };
        let trees = vec![level("network", "leaf"), level("links", "nvl")];
        cluster.commit(configure(ConfigChange::Fabric(FabricSpec { trees })));
        let node = |at: usize| {
            let mut machine = inventory("H100", 4, &[&format!("leaf{}", at % 2)]);
            machine.place.insert(name("links"), vec![name(racks[at])]);
            machine
        };
        let all: Vec<NodeId> = (0..6).map(|at| cluster.node(&format!("n{at}"), node(at))).collect();
        // Both racks are short of nodes until then; the second one for no longer than the first where it is large enough.
        let is_large = racks[3] == "x";
        let other = if is_large { (4, 300) } else { (3, 100) };
        for (at, run_s) in [(0, 100), (1, 100), other] {
            cluster.submit(only_on(exact(nodes(1, 4), run_s), 6, &[at]));
        }
        cluster.decide();
        // In whatever leaves: that it must be in one rack says which tree counts.
        let wish = within(exact(nodes(3, 4), 100), "leaf", Required, 2);
        let gang = cluster.submit(within(wish, "nvl", Required, 1));
        cluster.decide();
        assert_eq!(booked(&cluster)[&gang], (100, set(&all, &[0, 1, 2])));
        let known = cluster.player.state.reservations()[&gang].domain.clone();
        assert_eq!(known, Some((1, vec![name("x")])));
        let filler = cluster.submit(only_on(exact(nodes(1, 4), 500), 6, &[2]));
        cluster.decide();
        assert_eq!(cluster.start_s(filler).is_some(), is_large);
        let expected = if is_large { [0, 1, 3] } else { [0, 1, 2] };
        assert_eq!(booked(&cluster)[&gang], (100, set(&all, &expected)));
        cluster.run();
        assert_eq!(cluster.start_s(gang), Some(100));
    }
}

#[test]
fn every_booking_that_is_hit_finds_other_devices_or_none_gives_way() {
    for room in [4, 5] {
        // The second booking needs all of the four nodes when there are no more.
        let (mut cluster, all) = cluster(booking(4, true), &["a"; 5][..room], &[100, 100]);
        let first = cluster.submit(exact(nodes(room as u32 - 1, 4), 100));
        let second = cluster.submit(exact(nodes(4, 4), 100));
        cluster.decide();
        let starts = |cluster: &Cluster| [first, second].map(|gang| booked(cluster)[&gang].0);
        assert_eq!(starts(&cluster), [100, 200]);
        let filler = cluster.submit(only_on(exact(nodes(1, 4), 500), room, &[2]));
        cluster.decide();
        assert_eq!(cluster.start_s(filler).is_some(), room == 5, "{room} nodes");
        assert_eq!(starts(&cluster), [100, 200], "none starts later");
        let on = booked(&cluster);
        assert_eq!([first, second].map(|gang| on[&gang].1.contains(&all[2])), [room == 4; 2]);
        cluster.run();
        assert_eq!([first, second].map(|gang| cluster.start_s(gang)), [Some(100), Some(200)]);
    }
}

/// Of two nodes that would do, only the one of which the booked gang can do without.
#[test]
fn a_filler_goes_where_a_booking_can_give_way() {
    let (mut cluster, all) = cluster(booking(4, true), &["a"; 5], &[100, 100]);
    // One that is bound to `n2`, and one that is free to go elsewhere.
    let bound = cluster.submit(only_on(exact(nodes(3, 4), 50), 5, &[0, 1, 2]));
    let free = cluster.submit(only_on(exact(nodes(3, 4), 50), 5, &[0, 1, 3, 4]));
    cluster.decide();
    assert_eq!(booked(&cluster)[&bound], (100, set(&all, &[0, 1, 2])));
    assert_eq!(booked(&cluster)[&free], (150, set(&all, &[0, 1, 3])));
    let filler = cluster.submit(only_on(exact(nodes(1, 4), 500), 5, &[2, 3]));
    cluster.decide();
    assert_eq!(cluster.held(filler).first().map(|part| part.0), Some(all[3]));
    assert_eq!(booked(&cluster)[&free], (150, set(&all, &[0, 1, 4])));
    cluster.run();
    assert_eq!([bound, free].map(|gang| cluster.start_s(gang)), [Some(100), Some(150)]);
}

/// Several groups are searched for on the ledger as it will be, not added up from nodes.
#[test]
fn a_booking_that_is_searched_for_gives_way_too() {
    for blocked in [false, true] {
        let (mut cluster, all) = cluster(booking(4, true), &["a"; 4], &[100, 100]);
        let mut wish = exact(nodes(2, 4), 100);
        wish.groups.push(muster_common::job::GroupRequest { name: name("second"), ..wish.groups[0].clone() });
        wish.groups[1].count = nodes(1, 4);
        let gang = cluster.submit(wish);
        cluster.decide();
        let (start, before) = booked(&cluster)[&gang].clone();
        let free: Vec<usize> = [2, 3].into_iter().filter(|at| before.contains(&all[*at])).collect();
        let [needed] = free[..] else { panic!("{before:?}") };
        let other = 5 - needed;
        if blocked {
            let spare = cluster.submit(only_on(exact(nodes(1, 4), 500), 4, &[other]));
            cluster.decide();
            assert_eq!(cluster.start_s(spare), Some(0));
        }
        let filler = cluster.submit(only_on(exact(nodes(1, 4), 500), 4, &[needed]));
        cluster.decide();
        assert_eq!(cluster.start_s(filler).is_some(), !blocked);
        let after = booked(&cluster)[&gang].clone();
        assert_eq!(after.0, start);
        assert_eq!(after.1.contains(&all[other]), !blocked);
        cluster.run();
        assert_eq!(cluster.start_s(gang), Some(100));
    }
}
