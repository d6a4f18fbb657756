//! What a booking rests on, for whom one is made, and what moves it.

use crate::plan_support;
use crate::taking_support::account;

use muster_common::job::Scheduling;
use muster_common::{DeviceId, GangId, NodeId};
use muster_engine::command::{Command, ConfigChange, NodeAction, Principal};
use muster_engine::organisation::Organisation;
use muster_engine::policy::{Backfill, Order, Policy, RuntimeSource};
use plan_support::*;
use std::collections::BTreeMap;
use std::sync::Arc;

fn booking(reserve_depth: u32, order: Order) -> Policy {
    Policy {
        order,
        backfill: Backfill { reserve_depth, ..Backfill::default() },
        runtime: vec![RuntimeSource::Limit],
        ..Policy::default()
    }
}

/// Nodes `n00`, `n01`, ... of eight devices.
fn cluster(policy: Policy, count: usize) -> (Cluster, Vec<NodeId>) {
    let mut cluster = Cluster::new(policy);
    let all = cluster.nodes(count, 8);
    (cluster, all)
}

/// On just one of `all` nodes.
fn on(mut wish: Scheduling, all: usize, at: usize) -> Scheduling {
    wish.groups[0].exclude = (0..all).filter(|other| *other != at).map(|at| name(&format!("n{at:02}"))).collect();
    wish
}

/// By gang, the start in seconds and the first node of the witness.
fn booked(cluster: &Cluster) -> BTreeMap<GangId, (u64, NodeId)> {
    let known = cluster.player.state.reservations().values();
    let first = |witness: &[DeviceId]| witness.first().map_or(NodeId(u64::MAX), |device| device.node);
    known.map(|known| (known.gang, (known.start.0 / 1000, first(&known.witness)))).collect()
}

/// Slurm's `bf_resolution`: State is written for what is better by a minute, not for less.
#[test]
fn a_booking_moves_for_a_minute_and_not_for_less() {
    for (other_s, expected) in [(941, (1000, 0)), (940, (940, 1))] {
        let (mut cluster, all) = cluster(booking(4, Order::Fifo), 2);
        cluster.submit(on(lasting(job(nodes(1, 8)), 1000), 2, 0));
        cluster.submit(on(lasting(job(nodes(1, 4)), other_s), 2, 1));
        cluster.submit(on(limited(job(nodes(1, 4)), 100, 2000), 2, 1));
        cluster.decide();
        let gang = cluster.submit(lasting(job(nodes(1, 8)), 50));
        cluster.decide();
        assert_eq!(booked(&cluster)[&gang], (1000, all[0]));
        // The last one ends long before its limit.
        while cluster.now().0 < 100_000 {
            cluster.player.step(&mut cluster.seen).unwrap();
        }
        assert_eq!(cluster.now().0, 100_000);
        let (start_s, node) = expected;
        assert_eq!(booked(&cluster)[&gang], (start_s, all[node]), "where the other node is free at {other_s} s");
    }
}

#[test]
fn whoever_goes_first_may_break_the_booking_of_who_does_not() {
    for (class, breaks) in [("high", true), ("normal", false)] {
        let (mut cluster, _) = cluster(booking(4, Order::Priority { hours_per_class: 24 }), 2);
        cluster.submit(on(lasting(job(nodes(1, 8)), 100), 2, 0));
        cluster.decide();
        let wide = cluster.submit(lasting(job(nodes(2, 8)), 50));
        cluster.decide();
        assert_eq!(booked(&cluster)[&wide].0, 100);
        let mut wish = lasting(job(nodes(1, 8)), 500);
        wish.class = name(class);
        let other = cluster.submit(wish);
        cluster.decide();
        assert_eq!(cluster.start_s(other), breaks.then_some(0), "{class}");
        assert_eq!(booked(&cluster)[&wide].0, if breaks { 500 } else { 100 }, "{class}");
        cluster.run();
        let starts = if breaks { [500, 0] } else { [100, 150] };
        assert_eq!([wide, other].map(|gang| cluster.start_s(gang)), starts.map(Some), "{class}");
    }
}

/// What runs on it may run on for ever, and a device that is out of order comes back when somebody mends it.
#[test]
fn nothing_is_booked_on_devices_of_which_nobody_knows() {
    for depth in [1, 4] {
        for lost in [false, true] {
            let (mut cluster, all) = cluster(booking(depth, Order::Fifo), 2);
            cluster.submit(on(lasting(job(nodes(1, 8)), 100), 2, 0));
            cluster.submit(on(lasting(job(nodes(1, 8)), 300), 2, 1));
            cluster.decide();
            let gang = cluster.submit(lasting(job(nodes(1, 8)), 50));
            cluster.decide();
            assert_eq!(booked(&cluster)[&gang], (100, all[0]), "depth {depth}");
            let (node, state) = (all[0], &cluster.player.state);
            let (epoch, term) = (state.node(node).unwrap().epoch, state.applied_term());
            if lost {
                let number = state.node(node).unwrap().reports_applied + 1;
                cluster.commit(device_lost(node, number));
            } else {
                cluster.commit(Command::NodeSilent { node, epoch, term });
                cluster.commit(Command::NodeFenced { node, epoch, term, waited_ms: u64::MAX });
            }
            cluster.decide();
            assert_eq!(booked(&cluster)[&gang], (300, all[1]), "depth {depth}, lost {lost}");
        }
    }
}

/// The other node is free less than a minute later, so the start alone would not be written anew.
#[test]
fn a_booking_leaves_a_node_that_is_closed_and_is_worked_out_once() {
    let (mut cluster, all) = cluster(booking(1, Order::Fifo), 2);
    cluster.submit(on(lasting(job(nodes(1, 8)), 100), 2, 0));
    cluster.submit(on(lasting(job(nodes(1, 8)), 130), 2, 1));
    cluster.decide();
    let gang = cluster.submit(lasting(job(nodes(1, 8)), 50));
    cluster.decide();
    assert_eq!(booked(&cluster)[&gang], (100, all[0]));
    let action = NodeAction::Cordon { reason: "broken".into() };
    cluster.commit(Command::NodeAdmin { node: all[0], action, by: Principal("test".into()) });
    cluster.decide();
    assert_eq!(booked(&cluster)[&gang], (130, all[1]));
    let entries = cluster.player.stats().entries;
    cluster.decide();
    assert_eq!(cluster.player.stats().entries, entries, "nothing changed, nothing is written");
    cluster.run();
    assert_eq!((cluster.start_s(gang), cluster.held(gang)), (Some(130), Vec::new()));
}

/// One node is taken for 100 s and the other closed. Whoever waits for more than a place is told no start, and keeps none that
/// it was told.
#[test]
fn who_may_not_start_whatever_is_free_is_told_no_start() {
    for depth in [1, 4] {
        let (mut cluster, all) = cluster(booking(depth, Order::Fifo), 2);
        let accounts =
            [("me", 16), ("poor", 0)].map(|(owner, gpus)| account(owner, None, (gpus, Some(0), None))).into();
        let document = Organisation { accounts, ..Organisation::default() };
        cluster.commit(configure(ConfigChange::Organisation(Arc::new(document))));
        let by = || Principal("test".into());
        let action = NodeAction::Cordon { reason: "broken".into() };
        cluster.commit(Command::NodeAdmin { node: all[1], action, by: by() });
        let first = cluster.submit(lasting(job(nodes(1, 8)), 100));
        cluster.decide();
        let whole = || lasting(job(nodes(1, 8)), 100);
        let mut later = whole();
        later.begin_at_ms = Some(5_000_000);
        let mut after = whole();
        after.after.ok = vec![first.job];
        let mut beyond = whole();
        beyond.account = name("poor");
        let blocked = [later, after, beyond].map(|wish| cluster.submit(wish));
        cluster.decide();
        assert_eq!(booked(&cluster), BTreeMap::new(), "depth {depth}");
        let [one, two] = [whole(), whole()].map(|wish| cluster.submit(wish));
        cluster.decide();
        assert_eq!(booked(&cluster)[&one].0, 100, "depth {depth}");
        assert!(!blocked.iter().any(|gang| booked(&cluster).contains_key(gang)), "depth {depth}");
        cluster.commit(Command::Hold { job: one.job, hold: true, by: by() });
        cluster.decide();
        let now: Vec<(GangId, u64)> = booked(&cluster).into_iter().map(|(gang, (start, _))| (gang, start)).collect();
        assert_eq!(now, [(two, 100)], "depth {depth}");
    }
}
