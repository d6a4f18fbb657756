//! What a cycle looks at must follow from what changed, not from how large the cluster is.

use crate::plan_support;

use muster_common::Time;
use muster_common::topology::TopologyMode::Required;
use muster_engine::command::ConfigChange;
use muster_engine::forecast::{Player, World};
use muster_engine::plan::brief::briefs;
use muster_engine::plan::explain::Reason;
use muster_engine::policy::{Backfill, Policy};
use muster_engine::{Memo, State, cycle};
use plan_support::*;

/// Racks of sixteen machines of eight devices, all taken by gangs of four machines.
fn full_cluster(racks: usize) -> (Player, Exact) {
    let mut player = Player::new(State::new("test"), World::default());
    let mut seen = Exact::default();
    player.commit(Time(0), configure(ConfigChange::Policy(Policy::default())), &mut seen).unwrap();
    player.commit(Time(0), configure(ConfigChange::Fabric(fabric(&["rack"]))), &mut seen).unwrap();
    for rack in 0..racks {
        for at in 0..16 {
            let machine = inventory("H100", 8, &[&format!("r{rack}")]);
            player.commit(Time(0), register(&format!("r{rack}-{at}"), machine), &mut seen).unwrap();
        }
    }
    for at in 0..racks * 4 {
        let run_s = 1000 + at as u64;
        player.commit(Time(0), submit(&format!("full-{at}"), exact(nodes(4, 8), run_s)), &mut seen).unwrap();
    }
    player.decide(Time(0), &mut seen).unwrap();
    (player, seen)
}

#[test]
fn a_cycle_on_a_full_cluster_costs_its_waiting_shapes_not_its_nodes() {
    let spent = |racks: usize| {
        let (mut player, mut seen) = full_cluster(racks);
        for at in 0..200 {
            let wish = within(exact(nodes(2 + at % 3, 8), 100), "rack", Required, 1);
            player.commit(Time(0), submit(&format!("wait-{at}"), wish), &mut seen).unwrap();
        }
        player.decide(Time(0), &mut seen).unwrap();
        let again = cycle(&player.state, &mut player.memo, Time(0));
        assert_eq!(again.commands, []);
        assert_eq!(again, cycle(&player.state, &mut Memo::default(), Time(0)));
        again.spent
    };
    let (small, large) = (spent(4), spent(16));
    assert!(large <= small && large < 1000, "{small} steps on 64 nodes, {large} on 256");
}

#[test]
fn one_end_on_a_full_cluster_touches_the_nodes_it_frees() {
    let (mut player, mut seen) = full_cluster(16);
    for at in 0..2000 {
        let wish = exact(nodes(1 + at % 4, 8), 100 + u64::from(at));
        player.commit(Time(0), submit(&format!("wait-{at}"), wish), &mut seen).unwrap();
    }
    player.decide(Time(0), &mut seen).unwrap();
    let before = player.stats();
    player.step(&mut seen).unwrap();
    let after = player.stats();
    assert!(after.cycles > before.cycles && seen.ends.len() == 1);
    let each = (after.spent - before.spent) / (after.cycles - before.cycles);
    assert!(each < 10_000, "{each} steps a cycle with 2000 waiting");
}

#[test]
fn a_longer_queue_that_asks_for_the_same_costs_no_more_steps() {
    let each = |waiting: u64, depth: u32| {
        let (mut player, mut seen) = full_cluster(8);
        let backfill = Backfill { reserve_depth: depth, ..Backfill::default() };
        let policy = Policy { backfill, ..Policy::default() };
        player.commit(Time(0), configure(ConfigChange::Policy(policy)), &mut seen).unwrap();
        for at in 0..waiting {
            // None of them is short enough to fill, and some may not begin yet.
            let mut wish = exact(nodes(5 + at as u32 % 4, 8), 100_000 + at);
            wish.begin_at_ms = (at % 3 == 1).then_some(1_000_000_000);
            player.commit(Time(0), submit(&format!("wait-{at}"), wish), &mut seen).unwrap();
        }
        player.decide(Time(0), &mut seen).unwrap();
        player.step(&mut seen).unwrap();
        let again = cycle(&player.state, &mut player.memo, player.state.now());
        assert_eq!(again, cycle(&player.state, &mut Memo::default(), player.state.now()));
        again.spent
    };
    for depth in [0, 1, 8] {
        let (short, long) = (each(200, depth), each(4000, depth));
        assert!(long <= short + 20, "depth {depth}: {short} steps with 200 waiting, {long} with 4000");
    }
}

#[test]
fn ten_thousand_waiting_gangs_are_explained_by_one_cycle() {
    let (mut player, mut seen) = full_cluster(16);
    for at in 0..10_000 {
        let wish = exact(nodes(1 + at % 64, 8), 100 + u64::from(at));
        player.commit(Time(0), submit(&format!("wait-{at}"), wish), &mut seen).unwrap();
    }
    let all = briefs(&player.state, &mut player.memo, Time(0));
    assert_eq!(all.order.len(), 10_000);
    assert!(all.order.iter().all(|brief| brief.reason.as_ref().is_some_and(|(reason, _)| *reason == Reason::Nodes)));
}
