//! Starts that are booked count on nothing that is kept for others until those are through with it.

use crate::plan_support;
use crate::taking_support;

use crate::taking::lose;
use muster_common::job::Scheduling;
use muster_common::node::Inventory;
use muster_common::{GangId, NodeId, Time};
use muster_engine::policy::{Backfill, Policy};
use muster_engine::state::reservation::ReservationKind;
use plan_support::{exact, inventory, nodes};
use taking_support::*;

const RELEASE_S: u64 = 40;

fn booking(depth: u32) -> Policy {
    Policy { backfill: Backfill { reserve_depth: depth, ..Backfill::default() }, ..preempting() }
}

fn node_for(run_s: u64, of: &str) -> Scheduling {
    let mut job = class(exact(nodes(1, 8), run_s), of);
    job.checkpoint.grace_ms = RELEASE_S * 1000;
    job
}

/// Two nodes: the victim's, and one that comes free later. Whoever is third, and when its start is booked.
fn third(depth: u32, run_s: u64) -> (Cluster, GangId) {
    let mut cluster = Cluster::new(booking(depth));
    cluster.racks(1, 2, 8);
    cluster.watch.release_ms = RELEASE_S * 1000;
    cluster.submit(node_for(2000, "high"));
    cluster.submit(node_for(9000, "low"));
    cluster.submit(node_for(run_s, "high"));
    let third = cluster.submit(node_for(100, "normal"));
    assert_eq!(cluster.stopped().len(), 1);
    (cluster, third)
}

fn booked(cluster: &Cluster, gang: GangId) -> Option<Time> {
    let state = &cluster.player.state;
    let known = state.reservations().get(&gang)?;
    matches!(known.kind, ReservationKind::Head | ReservationKind::Booked).then_some(known.start)
}

#[test]
fn no_start_is_booked_on_what_victims_leave_to_another() {
    for depth in [1, 8] {
        let (mut cluster, third) = third(depth, 5000);
        assert_eq!(booked(&cluster, third), Some(Time(2_000_000)), "depth {depth}");
        cluster.pass(2 * RELEASE_S);
        assert_eq!(booked(&cluster, third), Some(Time(2_000_000)), "depth {depth}");
        cluster.pass(2000);
        assert!(cluster.runs(third));
    }
}

/// Told in the cycle in which the victim is told to stop.
#[test]
fn nor_in_the_cycle_that_chooses_the_victims() {
    let mut cluster = Cluster::new(booking(8));
    cluster.racks(1, 1, 8);
    cluster.watch.release_ms = RELEASE_S * 1000;
    cluster.submit(node_for(2000, "low"));
    cluster.only_submit(node_for(5000, "high"));
    let third = cluster.submit(node_for(100, "normal"));
    assert_eq!(cluster.stopped().len(), 1);
    let end = Time((RELEASE_S + 5000) * 1000);
    assert_eq!(booked(&cluster, third), Some(end));
    cluster.pass(2 * RELEASE_S);
    assert_eq!(booked(&cluster, third), Some(end));
}

#[test]
fn a_start_is_booked_behind_whom_the_devices_are_kept_for() {
    for depth in [1, 8] {
        let (mut cluster, third) = third(depth, 500);
        let end = Time((RELEASE_S + 500) * 1000);
        assert_eq!(booked(&cluster, third), Some(end), "depth {depth}");
        cluster.pass(2 * RELEASE_S);
        assert_eq!(booked(&cluster, third), Some(end), "depth {depth}");
    }
}

/// A gang on two nodes, on a cluster of so many, of which the second is lost; nobody else fits meanwhile.
fn wounded(nodes_in_all: usize) -> (Cluster, Vec<NodeId>, GangId) {
    let mut policy = booking(1);
    policy.taking.preempt = None;
    policy.taking.wounded_ms = 600_000;
    let mut cluster = Cluster::new(policy);
    let racks = cluster.racks(1, nodes_in_all, 8);
    let mut wide = exact(nodes(nodes_in_all as u32, 8), 1000);
    wide.retry.infra = 3;
    let wide = cluster.submit(wide);
    cluster.pass(100);
    (cluster, racks.into_iter().flatten().collect(), wide)
}

/// What a wounded gang keeps is free and yet nobody else's: a start behind its run is foreseen all the same.
#[test]
fn a_start_is_booked_behind_a_wounded_gang() {
    let (mut cluster, all, wide) = wounded(2);
    lose(&mut cluster, all[1]);
    cluster.pass(1);
    assert!(cluster.kept(wide, ReservationKind::Wounded).is_some());
    let next = cluster.submit(node_for(100, "normal"));
    let start = booked(&cluster, next).expect("it is foreseen");
    assert!(start > cluster.now().plus_ms(890_000), "{start}");
}

/// While its other ranks take their time to stop they hold what is kept for it.
#[test]
fn nor_on_what_a_gang_keeps_that_has_not_gone_yet() {
    let (mut cluster, all, wide) = wounded(2);
    cluster.watch.release_ms = 30_000;
    let next = cluster.submit(node_for(100, "normal"));
    assert_eq!(booked(&cluster, next), Some(Time(1_000_000)), "nothing is lost yet");
    lose(&mut cluster, all[1]);
    cluster.pass(1);
    assert!(cluster.word(wide) == "STOPPING" && cluster.kept(wide, ReservationKind::Wounded).is_some());
    let told = booked(&cluster, next).expect("it is foreseen");
    assert!(told > Time(1_000_000), "{told}");
    cluster.pass(60);
    assert!(cluster.kept(wide, ReservationKind::Wounded).is_some());
    assert!(booked(&cluster, next).is_some_and(|start| start <= told));
}

#[test]
fn a_kept_machine_that_comes_back_with_fewer_devices_breaks_nothing() {
    let (mut cluster, all, wide) = wounded(3);
    lose(&mut cluster, all[2]);
    cluster.pass(1);
    assert!(cluster.kept(wide, ReservationKind::Wounded).is_some());
    cluster.node("r0n0", inventory("H100", 7, &["r0"]));
    let next = cluster.submit(node_for(100, "normal"));
    assert!(booked(&cluster, next).is_some());
}

/// One node: what a start needs of CPU beside a victim is there before the victim goes, and nobody takes it away.
#[test]
fn what_is_booked_beside_a_victim_keeps_its_cpu() {
    let mut cluster = Cluster::new(booking(8));
    cluster.node("n", Inventory { cpu_milli: 64_000, ..inventory("H100", 8, &["r0"]) });
    cluster.watch.release_ms = RELEASE_S * 1000;
    let part = |gpus, cpu_milli, run_s, of: &str| {
        let mut job = class(exact(nodes(1, gpus), run_s), of);
        job.groups[0].cpu_milli_per_node = Some(cpu_milli);
        job.checkpoint.grace_ms = RELEASE_S * 1000;
        job
    };
    cluster.submit(part(4, 32_000, 9000, "normal"));
    cluster.submit(part(3, 24_000, 5, "high"));
    let third = cluster.submit(part(4, 32_000, 100, "normal"));
    assert_eq!(booked(&cluster, third), Some(Time(5000)));
    let mut high = part(4, 32_000, 500, "high");
    high.preemptible = false;
    cluster.submit(high);
    assert_eq!(booked(&cluster, third), Some(Time(5000)), "{:?}", cluster.stopped());
}

/// Half of what is taken is free: with the other half it is given back at the end of the run, in the same cycle too.
#[test]
fn what_is_free_of_a_place_is_given_back_with_the_rest() {
    let mut cluster = Cluster::new(booking(8));
    cluster.racks(1, 1, 8);
    cluster.watch.release_ms = RELEASE_S * 1000;
    let mut low = class(exact(nodes(1, 4), 9000), "low");
    low.checkpoint.grace_ms = RELEASE_S * 1000;
    cluster.submit(low);
    cluster.only_submit(node_for(500, "high"));
    let third = cluster.submit(node_for(100, "normal"));
    assert_eq!(cluster.stopped().len(), 1);
    assert_eq!(booked(&cluster, third), Some(Time((RELEASE_S + 500) * 1000)));
}
