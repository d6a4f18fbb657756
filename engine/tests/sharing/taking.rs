//! Preemption by priority class, and gangs that lost a node.

use crate::plan_support;
use crate::taking_support;

use muster_common::node::Inventory;
use muster_common::topology::TopologyMode::Required;
use muster_common::{GangId, NodeId};
use muster_engine::command::{Command, NodeAction, PlanStep, Principal, ReportBody, StopFor};
use muster_engine::plan::explain::Reason;
use muster_engine::policy::{Order, Policy, Preempt, Taking};
use muster_engine::state::reservation::ReservationKind;
use plan_support::{inventory, nodes, total, within};
use taking_support::*;

#[test]
fn nobody_is_stopped_unless_the_policy_says_so() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.racks(1, 1, 8);
    let low = cluster.submit(class(forever(nodes(1, 8)), "low"));
    let high = cluster.submit(class(forever(nodes(1, 8)), "high"));
    assert!(cluster.runs(low) && !cluster.runs(high) && cluster.stopped().is_empty());
}

#[test]
fn the_victim_is_who_loses_least_since_its_last_checkpoint() {
    let mut cluster = Cluster::new(preempting());
    cluster.racks(1, 3, 8);
    let old = cluster.submit(class(forever(nodes(1, 8)), "low"));
    cluster.pass(1000);
    let middle = cluster.submit(class(forever(nodes(1, 8)), "low"));
    cluster.pass(1000);
    let young = cluster.submit(class(forever(nodes(1, 8)), "low"));
    cluster.pass(1000);
    let first = cluster.submit(class(forever(nodes(1, 8)), "high"));
    assert!(cluster.runs(first));
    assert_eq!(cluster.stopped(), [young]);
    // A checkpoint makes the oldest the cheapest.
    cluster.report(old, ReportBody::Checkpointed);
    let second = cluster.submit(class(forever(nodes(1, 8)), "high"));
    assert!(cluster.runs(second) && cluster.runs(middle));
    assert_eq!(cluster.stopped(), [young, old]);
}

#[test]
fn a_lower_class_goes_before_a_smaller_loss() {
    let mut cluster = Cluster::new(preempting());
    cluster.racks(1, 2, 8);
    let low = cluster.submit(class(forever(nodes(1, 8)), "low"));
    cluster.pass(10_000);
    let normal = cluster.submit(forever(nodes(1, 8)));
    let high = cluster.submit(class(forever(nodes(1, 8)), "high"));
    assert!(cluster.runs(high) && cluster.runs(normal) && !cluster.runs(low));
}

#[test]
fn the_domain_is_chosen_first_and_victims_only_inside_it() {
    let mut cluster = Cluster::new(preempting());
    let racks = cluster.racks(2, 2, 8);
    // Rack 0: very old and brand new. Rack 1: two of middle age. The two newest are in different racks.
    let fill = |cluster: &mut Cluster, node: &str| {
        let mut job = class(forever(nodes(1, 8)), "low");
        let all = ["r0n0", "r0n1", "r1n0", "r1n1"];
        job.groups[0].exclude = all.iter().filter(|name| **name != node).map(|name| plan_support::name(name)).collect();
        cluster.submit(job)
    };
    let ancient = fill(&mut cluster, "r0n0");
    cluster.pass(100_000);
    let aged = [fill(&mut cluster, "r1n0"), fill(&mut cluster, "r1n1")];
    cluster.pass(10_000);
    let new = fill(&mut cluster, "r0n1");
    cluster.pass(10);
    let high = cluster.submit(class(within(forever(nodes(2, 8)), "rack", Required, 1), "high"));
    assert_eq!(cluster.nodes_of(high), racks[1]);
    assert!(cluster.runs(ancient) && cluster.runs(new));
    let mut stopped = cluster.stopped();
    stopped.sort();
    assert_eq!(stopped, aged);
}

#[test]
fn no_victim_is_stopped_that_is_not_needed() {
    let mut cluster = Cluster::new(preempting());
    cluster.racks(1, 1, 8);
    let mut small: Vec<GangId> = Vec::new();
    for _ in 0..4 {
        small.push(cluster.submit(class(forever(nodes(1, 2)), "low")));
        cluster.pass(100);
    }
    let high = cluster.submit(class(forever(nodes(1, 4)), "high"));
    assert!(cluster.runs(high));
    assert_eq!(cluster.stopped(), [small[2], small[3]]);
}

#[test]
fn a_gang_of_many_nodes_is_stopped_whole_or_spared_whole() {
    let mut cluster = Cluster::new(preempting());
    cluster.racks(1, 4, 8);
    let wide = cluster.submit(class(forever(nodes(3, 8)), "low"));
    let single = cluster.submit(class(forever(nodes(1, 8)), "low"));
    cluster.pass(10);
    let one = cluster.submit(class(forever(nodes(1, 8)), "high"));
    assert!(cluster.runs(one) && cluster.runs(wide) && !cluster.runs(single));
    let two = cluster.submit(class(forever(nodes(2, 8)), "high"));
    assert!(cluster.runs(two) && !cluster.runs(wide));
}

#[test]
fn nobody_is_stopped_when_the_gang_would_not_fit_all_the_same() {
    let mut cluster = Cluster::new(preempting());
    cluster.racks(2, 2, 8);
    // One gang that may not be stopped in each rack.
    for rack in ["r0n0", "r1n0"] {
        let mut safe = class(forever(nodes(1, 8)), "low");
        safe.preemptible = false;
        safe.groups[0].exclude =
            ["r0n0", "r0n1", "r1n0", "r1n1"].iter().filter(|n| **n != rack).map(|n| plan_support::name(n)).collect();
        cluster.submit(safe);
    }
    let lows = [cluster.submit(class(forever(nodes(1, 8)), "low")), cluster.submit(class(forever(nodes(1, 8)), "low"))];
    let high = cluster.submit(class(within(forever(nodes(2, 8)), "rack", Required, 1), "high"));
    assert!(lows.iter().all(|low| cluster.runs(*low)) && !cluster.runs(high));
    assert!(cluster.stopped().is_empty());
    // Without the wish for one rack the two nodes will do.
    let anywhere = cluster.submit(class(forever(nodes(2, 8)), "high"));
    assert!(cluster.runs(anywhere) && cluster.stopped().len() == 2);
}

#[test]
fn what_victims_leave_is_kept_for_the_preemptor_and_why_says_who_leaves() {
    let mut cluster = Cluster::new(preempting());
    let racks = cluster.racks(2, 2, 8);
    cluster.watch.release_ms = 20_000;
    let lows: Vec<GangId> = (0..4).map(|_| cluster.submit(class(forever(nodes(1, 8)), "low"))).collect();
    cluster.pass(10);
    let high = cluster.submit(class(within(forever(nodes(2, 8)), "rack", Required, 1), "high"));
    let kept = cluster.kept(high, ReservationKind::Victims).expect("the choice is held").clone();
    assert_eq!(kept.witness.len(), 16);
    assert!(kept.domain.is_some());
    let stopped = cluster.stopped();
    assert_eq!(stopped.len(), 2);
    let why = cluster.why(high);
    assert_eq!(why.blockers.len(), 1);
    assert_eq!((why.blockers[0].reason, &why.blockers[0].gangs), (Reason::Victims, &stopped));
    assert!(why.blockers[0].until.is_some());
    // Others that would fit do not get it, nor does the choice move, whatever else comes free.
    let small = cluster.submit(class(forever(nodes(1, 8)), "normal"));
    cluster.pass(5);
    assert_eq!(cluster.kept(high, ReservationKind::Victims), Some(&kept));
    assert_eq!(cluster.steps(), []);
    cluster.pass(20);
    assert!(cluster.runs(high));
    let rack = racks.iter().find(|rack| rack.contains(&kept.witness[0].node)).unwrap();
    assert_eq!(&cluster.nodes_of(high), rack);
    let _ = (small, lows);
}

#[test]
fn a_hold_for_victims_that_never_go_ends_and_a_stop_that_comes_late_is_nothing() {
    let mut cluster = Cluster::new(preempting());
    cluster.racks(1, 1, 8);
    let low = cluster.submit(class(forever(nodes(1, 8)), "low"));
    cluster.watch.release_ms = 10_000_000;
    let high = cluster.submit(class(forever(nodes(1, 8)), "high"));
    let attempt = cluster.player.state.gang(low).unwrap().attempt;
    let end = cluster.kept(high, ReservationKind::Victims).unwrap().end;
    cluster.pass(end.since_ms(cluster.now()) / 1000 + 1);
    assert!(cluster.kept(high, ReservationKind::Victims).is_none());
    assert_eq!(cluster.stopped(), [low]);
    // The same order again: it is ending already, so nothing happens.
    let stop = PlanStep::Stop { gang: low, attempt, by: Some(high), why: StopFor::Priority };
    let before = cluster.player.state.gang(low).cloned();
    let state = &cluster.player.state;
    let plan = muster_engine::plan::steps::commands(state, state.now(), vec![stop]);
    plan.into_iter().for_each(|plan| drop(cluster.commit(plan)));
    assert_eq!(cluster.player.state.gang(low).cloned(), before);
}

#[test]
fn a_young_gang_is_left_alone_until_it_has_run_long_enough() {
    let mut cluster = Cluster::new(with(Preempt { min_run_ms: 600_000, ..Preempt::default() }));
    cluster.racks(1, 1, 8);
    let low = cluster.submit(class(forever(nodes(1, 8)), "low"));
    cluster.pass(100);
    let high = cluster.submit(class(forever(nodes(1, 8)), "high"));
    assert!(cluster.runs(low));
    cluster.pass(499);
    assert!(cluster.runs(low));
    // Without anything else happening: the cycle asked to be woken.
    cluster.pass(2);
    assert!(cluster.runs(high));
}

#[test]
fn a_gang_waits_for_free_room_first_if_the_policy_says_so() {
    let mut cluster = Cluster::new(with(Preempt { wait_ms: 60_000, ..Preempt::default() }));
    cluster.racks(1, 1, 8);
    let low = cluster.submit(class(forever(nodes(1, 8)), "low"));
    let high = cluster.submit(class(forever(nodes(1, 8)), "high"));
    cluster.pass(59);
    assert!(cluster.runs(low));
    cluster.pass(2);
    assert!(cluster.runs(high));
}

#[test]
fn a_class_gap_is_respected() {
    let mut cluster = Cluster::new(with(Preempt { class_gap: 2, ..Preempt::default() }));
    cluster.racks(1, 2, 8);
    let normal = cluster.submit(forever(nodes(1, 8)));
    let low = cluster.submit(class(forever(nodes(1, 8)), "low"));
    let high = cluster.submit(class(forever(nodes(1, 8)), "high"));
    let again = cluster.submit(class(forever(nodes(1, 8)), "high"));
    assert!(cluster.runs(high) && cluster.runs(normal) && !cluster.runs(low) && !cluster.runs(again));
}

#[test]
fn victims_are_bounded_by_the_hour_and_for_each_gang() {
    let mut cluster = Cluster::new(with(Preempt { per_hour: 2, settle_ms: 0, ..Preempt::default() }));
    cluster.racks(1, 4, 8);
    for _ in 0..4 {
        cluster.submit(class(forever(nodes(1, 8)), "low"));
    }
    let highs: Vec<GangId> = (0..3).map(|_| cluster.submit(class(forever(nodes(1, 8)), "high"))).collect();
    let running = |cluster: &Cluster| highs.iter().filter(|high| cluster.runs(**high)).count();
    assert_eq!((running(&cluster), cluster.stopped().len()), (2, 2));
    cluster.pass(3601);
    cluster.submit(class(forever(nodes(1, 1)), "low"));
    assert_eq!(running(&cluster), 3);

    let mut cluster = Cluster::new(with(Preempt { per_victim: 1, ..Preempt::default() }));
    cluster.racks(1, 1, 8);
    let low = cluster.submit(class(forever(nodes(1, 8)), "low"));
    let mut high = class(forever(nodes(1, 8)), "high");
    high.limits.exact_ms = Some(10_000);
    cluster.submit(high.clone());
    cluster.pass(11);
    assert!(cluster.runs(low));
    let second = cluster.submit(high);
    assert!(cluster.runs(low) && !cluster.runs(second));
}

#[test]
fn a_preempted_job_resubmitted_at_once_stops_nobody() {
    // `normal` falls to `high`; the room of `low` would do for it, and it is not stopped for it.
    for again in [false, true] {
        let mut cluster = Cluster::new(preempting());
        cluster.racks(1, 2, 8);
        let mut safe = class(forever(nodes(1, 8)), "low");
        safe.groups[0].exclude = vec![plan_support::name("r0n1")];
        let low = cluster.submit(safe);
        let normal_job = forever(nodes(1, 8));
        let normal = cluster.submit(normal_job.clone());
        let mut high = class(forever(nodes(1, 8)), "high");
        high.groups[0].exclude = vec![plan_support::name("r0n0")];
        let high = cluster.submit(high);
        assert!(cluster.runs(high));
        if again {
            cluster.submit(normal_job);
        }
        cluster.pass(60);
        assert_eq!(cluster.stopped(), [normal]);
        assert!(cluster.runs(low));
        cluster.pass(600);
        assert_eq!(cluster.stopped(), [normal, low], "once things have settled, class counts again");
    }
}

#[test]
fn a_total_of_devices_takes_the_cheapest_devices() {
    let mut cluster = Cluster::new(preempting());
    cluster.racks(1, 2, 8);
    let old = cluster.submit(class(forever(nodes(1, 8)), "low"));
    cluster.pass(1000);
    let young: Vec<GangId> = (0..4).map(|_| cluster.submit(class(forever(nodes(1, 2)), "low"))).collect();
    let high = cluster.submit(class(forever(total(3)), "high"));
    assert!(cluster.runs(high) && cluster.runs(old));
    assert_eq!(young.iter().filter(|gang| cluster.runs(**gang)).count(), 2);
}

#[test]
fn where_a_start_is_booked_for_another_nobody_is_stopped_for_a_third() {
    let mut cluster = Cluster::new(preempting());
    cluster.racks(1, 2, 8);
    // Not preemptible, and known to end: its node is booked for the head.
    let mut ends = class(forever(nodes(1, 8)), "low");
    (ends.preemptible, ends.limits.exact_ms) = (false, Some(1_000_000));
    cluster.submit(ends);
    let low = cluster.submit(class(forever(nodes(1, 8)), "low"));
    let mut head = class(forever(nodes(2, 8)), "high");
    head.limits.exact_ms = Some(10_000);
    cluster.submit(head);
    assert!(cluster.runs(low), "two nodes are not to be had, so none is taken");
}

// Wounded gangs

pub fn lose(cluster: &mut Cluster, node: NodeId) {
    let epoch = cluster.player.state.node(node).unwrap().epoch;
    let term = cluster.player.state.applied_term();
    cluster.commit(Command::NodeSilent { node, epoch, term });
    cluster.commit(Command::NodeFenced { node, epoch, term, waited_ms: 600_000 });
}

#[test]
fn a_gang_that_lost_a_node_keeps_the_others_and_has_the_first_claim_on_a_replacement() {
    let mut cluster = Cluster::new(Policy::default());
    let racks = cluster.racks(1, 4, 8);
    cluster.watch.release_ms = 5000;
    let wide = cluster.submit(forever(nodes(4, 8)));
    let small: Vec<GangId> = (0..3).map(|_| cluster.submit(class(forever(nodes(1, 8)), "high"))).collect();
    lose(&mut cluster, racks[0][1]);
    cluster.pass(10);
    let kept = cluster.kept(wide, ReservationKind::Wounded).expect("the healthy nodes are kept");
    assert_eq!(kept.witness.len(), 24);
    assert!(small.iter().all(|gang| !cluster.runs(*gang)));
    let why = cluster.why(wide);
    assert_eq!(why.blockers[0].reason, Reason::Wounded);
    assert!(why.blockers[0].until.is_some());
    // The replacement goes to it, although others are of a higher class; every rank stays where it was.
    let new = cluster.node("new", inventory("H100", 8, &["r0"]));
    cluster.decide();
    assert!(cluster.runs(wide));
    assert_eq!(cluster.nodes_of(wide), [racks[0][0], new, racks[0][2], racks[0][3]]);
}

#[test]
fn a_wounded_gang_without_a_replacement_lets_go_in_the_end_and_waits_like_others() {
    let mut cluster = Cluster::new(Policy::default());
    let racks = cluster.racks(1, 4, 8);
    let wide = cluster.submit(forever(nodes(4, 8)));
    let small = cluster.submit(forever(nodes(3, 8)));
    lose(&mut cluster, racks[0][3]);
    cluster.decide();
    cluster.pass(299);
    assert!(!cluster.runs(small));
    cluster.pass(2);
    assert!(cluster.kept(wide, ReservationKind::Wounded).is_none());
    assert!(cluster.runs(small), "all or nothing: three of four nodes are of no use to it");
}

#[test]
fn a_kept_node_that_comes_back_too_small_is_of_no_use() {
    let mut cluster = Cluster::new(Policy::default());
    let racks = cluster.racks(1, 2, 8);
    let mut wide = forever(nodes(2, 8));
    wide.groups[0].cpu_milli_per_node = Some(2000);
    let wide = cluster.submit(wide);
    lose(&mut cluster, racks[0][1]);
    cluster.pass(1);
    assert!(cluster.kept(wide, ReservationKind::Wounded).is_some());
    let whole = inventory("H100", 8, &["r0"]);
    cluster.node("r0n0", Inventory { cpu_milli: 1000, ..whole.clone() });
    cluster.node("r0n2", whole.clone());
    cluster.decide();
    assert!(!cluster.runs(wide));
    let new = cluster.node("r0n3", whole);
    cluster.decide();
    assert!(cluster.runs(wide) && cluster.nodes_of(wide).contains(&new));
}

#[test]
fn nothing_is_kept_by_who_is_not_tried_again() {
    for policy in
        [Policy::default(), Policy { taking: Taking { wounded_ms: 0, ..Taking::default() }, ..Policy::default() }]
    {
        let off = policy.taking.wounded_ms == 0;
        let mut cluster = Cluster::new(policy);
        let racks = cluster.racks(1, 2, 8);
        let mut wide = forever(nodes(2, 8));
        wide.retry.infra = u32::from(off);
        cluster.submit(wide);
        let small = cluster.submit(forever(nodes(1, 8)));
        lose(&mut cluster, racks[0][1]);
        cluster.decide();
        assert!(cluster.runs(small));
    }
}

#[test]
fn a_gang_moved_off_a_drained_node_keeps_its_other_nodes() {
    let mut cluster = Cluster::new(Policy::default());
    let racks = cluster.racks(2, 2, 8);
    let wide = cluster.submit(forever(nodes(2, 8)));
    assert_eq!(cluster.nodes_of(wide), racks[0]);
    let action = NodeAction::Drain { reason: "test".into(), deadline_ms: Some(0) };
    cluster.commit(Command::NodeAdmin { node: racks[0][0], action, by: Principal("op".into()) });
    cluster.decide();
    assert!(cluster.runs(wide));
    assert_eq!(cluster.nodes_of(wide), [racks[1][0], racks[0][1]]);
}

/// In the order of submits the higher class stands behind a gang that nobody can be stopped for.
#[test]
fn whoever_may_stop_others_is_looked_at_behind_a_start_that_is_booked() {
    let mut cluster = Cluster::new(Policy { order: Order::Fifo, ..preempting() });
    cluster.racks(1, 2, 8);
    let lasting = |count: u32, run_s: u64| {
        let mut wish = forever(nodes(count, 8));
        wish.limits.exact_ms = Some(run_s * 1000);
        wish
    };
    let low = cluster.submit(class(lasting(1, 1000), "low"));
    cluster.submit(lasting(1, 1000));
    let both = cluster.submit(lasting(2, 1000));
    cluster.pass(1);
    assert!(cluster.kept(both, ReservationKind::Booked).is_some());
    // It is gone before that start.
    let high = cluster.submit(class(lasting(1, 100), "high"));
    assert!(cluster.runs(high));
    assert_eq!(cluster.stopped(), [low]);
}
