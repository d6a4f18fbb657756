//! What a cycle looks at must follow from what changed, not from how large the cluster is.

mod plan_support;

use muster_common::Time;
use muster_common::topology::TopologyMode::Required;
use muster_engine::command::ConfigChange;
use muster_engine::forecast::{Player, World};
use muster_engine::plan::brief::briefs;
use muster_engine::plan::explain::Reason;
use muster_engine::policy::Policy;
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
