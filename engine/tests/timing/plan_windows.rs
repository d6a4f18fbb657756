//! Windows of time that are put aside for a job: whichever way a gang comes to devices, nobody else holds those of a
//! window while it lasts, and estimates know of it.

use crate::plan_support;
use crate::property;

use muster_common::job::Scheduling;
use muster_common::topology::TopologyMode::Required;
use muster_common::{DeviceId, GangId, NodeId, Time};
use muster_engine::command::{Command, CommitPlan, ConfigChange, Entry, NodeAction, PlanStep, Principal};
use muster_engine::forecast::{Hooks, Player, World, forecast};
use muster_engine::outcome::{Outcome, Response};
use muster_engine::policy::{Backfill, Order, Policy, Preempt, Taking};
use muster_engine::state::reservation::{Reservation, ReservationKind};
use muster_engine::{Cycle, ENGINE_VERSION, State};
use plan_support::*;
use property::cases;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Puts all devices of some nodes aside for a waiting gang.
fn put_aside(state: &State, gang: GangId, nodes: &[NodeId], (start_s, end_s): (u64, u64)) -> Command {
    let devices = |node: &NodeId| state.node(*node).map_or(0, |record| record.devices.len() as u16);
    let device = |node: &NodeId| {
        let node = *node;
        (0..devices(&node)).map(move |slot| DeviceId { node, slot }).collect::<Vec<_>>()
    };
    let window = Reservation {
        gang,
        kind: ReservationKind::Advance,
        start: Time(start_s * 1000),
        end: Time(end_s * 1000),
        domain: None,
        witness: nodes.iter().flat_map(device).collect(),
    };
    Command::CommitPlan(Box::new(CommitPlan {
        made_at: state.applied_index(),
        now: state.now(),
        policy_version: state.config_version(),
        engine_version: ENGINE_VERSION,
        steps: vec![PlanStep::Reserve(window)],
    }))
}

fn beginning(mut wish: Scheduling, at_s: u64) -> Scheduling {
    wish.begin_at_ms = Some(at_s * 1000);
    wish
}

fn only_on(mut wish: Scheduling, count: usize, on: &[usize]) -> Scheduling {
    wish.groups[0].exclude = (0..count).filter(|at| !on.contains(at)).map(|at| name(&format!("n{at:02}"))).collect();
    wish
}

#[test]
fn a_machine_whose_devices_are_all_put_aside_takes_no_work_without_devices_either() {
    for depth in [0, 1, 4] {
        let backfill = Backfill { reserve_depth: depth, ..Backfill::default() };
        let mut cluster = Cluster::new(Policy { order: Order::Fifo, backfill, ..Policy::default() });
        let all = cluster.nodes(2, 4);
        let owner = cluster.submit(beginning(exact(nodes(1, 4), 100), 100));
        cluster.commit(put_aside(&cluster.player.state.clone(), owner, &all[..1], (100, 300)));
        let long = cluster.submit(only_on(exact(nodes(1, 0), 101), 2, &[0]));
        let short = cluster.submit(only_on(exact(nodes(1, 0), 100), 2, &[0]));
        let beside = cluster.submit(exact(nodes(1, 0), 1000));
        cluster.decide();
        assert_eq!([long, short, beside].map(|gang| cluster.start_s(gang)), [None, Some(0), Some(0)], "depth {depth}");
        assert_eq!(cluster.held(beside)[0].0, all[1]);
        cluster.run();
        assert_eq!(cluster.start_s(owner), Some(100), "depth {depth}");
        assert!(cluster.start_s(long) >= Some(100), "when the owner is in, there is room beside it");
    }
}

#[test]
fn a_gang_that_lost_a_node_does_not_come_back_into_a_window() {
    for run_s in [90, 200] {
        let taking = Taking { wounded_ms: 60_000, ..Taking::default() };
        let mut cluster = Cluster::new(Policy { order: Order::Fifo, taking, ..Policy::default() });
        let all = cluster.nodes(4, 4);
        let gang = cluster.submit(exact(nodes(2, 4), run_s));
        cluster.decide();
        let on = |cluster: &Cluster| cluster.held(gang).into_iter().map(|part| part.0).collect::<Vec<_>>();
        assert_eq!(on(&cluster), all[..2]);
        let owner = cluster.submit(beginning(exact(nodes(1, 4), 100), 100));
        cluster.commit(put_aside(&cluster.player.state.clone(), owner, &all[1..2], (100, 300)));
        // It was there first, and is not stopped for the window.
        let drain = NodeAction::Drain { reason: "test".into(), deadline_ms: Some(0) };
        let by = Principal("op".into());
        cluster.player.at(Time(1000), Command::NodeAdmin { node: all[0], action: drain, by });
        while cluster.now() < Time(1000) {
            cluster.player.step(&mut cluster.seen).unwrap();
        }
        // With a shorter run it is gone in time, and stays where it was; else it looks for another node in its place too.
        assert_eq!(on(&cluster).contains(&all[1]), run_s < 100, "{run_s} s");
        assert_eq!(on(&cluster).len(), 2, "{run_s} s");
        cluster.run();
        assert_eq!(cluster.start_s(owner), Some(100));
    }
}

/// A window for a job of its own.
#[derive(Debug, Clone)]
struct Window {
    owner: GangId,
    nodes: BTreeSet<NodeId>,
    start: Time,
    end: Time,
}

#[derive(Default)]
struct Watch {
    exact: Exact,
    windows: Vec<Window>,
}

impl Hooks for Watch {
    fn run_ms(&mut self, state: &State, gang: GangId) -> Option<u64> {
        self.exact.run_ms(state, gang)
    }

    fn on_entry(&mut self, state: &State, entry: &Entry, outcome: &Outcome) -> Result<(), String> {
        self.exact.on_entry(state, entry, outcome)
    }

    /// By then all that ends at this instant has ended.
    fn on_cycle(&mut self, state: &State, now: Time, _decided: &Cycle) {
        let lasts = |window: &&Window| {
            let kept = state.reservations().get(&window.owner);
            window.start <= now && now < window.end && kept.is_some_and(|kept| kept.kind == ReservationKind::Advance)
        };
        for window in self.windows.iter().filter(lasts) {
            for gang in state.gangs().values().filter(|gang| gang.id != window.owner) {
                let parts = gang.current().map_or(&[][..], |attempt| &attempt.parts);
                let inside = parts.iter().find(|part| !part.state.is_settled() && window.nodes.contains(&part.node));
                if let Some(part) = inside {
                    let (id, node) = (gang.id, part.node);
                    self.exact.wrong = Some(format!("at {now} {id} is on {node}, which is put aside: {window:?}"));
                }
            }
        }
    }
}

/// Shape, two sizes, run time in seconds, class.
type Given = (u8, u32, u32, u64, u8);

fn wish((shape, a, b, run_s, class): Given) -> Scheduling {
    let mut wish = match shape {
        0 => exact(nodes(1 + a % 5, 4), run_s),
        1 => exact(nodes(1 + a % 3, 1 + b % 4), run_s),
        2 => within(exact(nodes(1 + a % 3, 1 + b % 4), run_s), "leaf", Required, 1),
        3 => exact(nodes(1, 0), run_s),
        4 => {
            let mut two = exact(nodes(1, 1 + b % 4), run_s);
            two.groups.push(muster_common::job::GroupRequest { name: name("second"), ..two.groups[0].clone() });
            two.groups[1].count = nodes(1 + a % 2, 4);
            two
        }
        _ => exact(total(1 + a % 16), run_s),
    };
    wish.class = name(["low", "normal", "high"][usize::from(class % 3)]);
    wish
}

fn policy((reserve_depth, rematch): (u32, bool), preempts: bool) -> Policy {
    let preempt = Preempt { settle_ms: 20_000, ..Preempt::default() };
    let taking = Taking { preempt: preempts.then_some(preempt), wounded_ms: 60_000, ..Taking::default() };
    let backfill = Backfill { reserve_depth, rematch, ..Backfill::default() };
    Policy { backfill, taking, ..Policy::default() }
}

/// Six nodes in two leaves, windows on the first four of them, then the work.
fn build(policy: Policy, windows: &[(u64, u64, bool)], given: &[Given], watch: &mut Watch) -> Player {
    let mut player = Player::new(State::new("test"), World::default());
    player.commit(Time(0), configure(ConfigChange::Policy(policy)), watch).unwrap();
    player.commit(Time(0), configure(ConfigChange::Fabric(fabric(&["leaf"]))), watch).unwrap();
    let mut all = Vec::new();
    for (at, leaf) in ["a", "a", "b", "b", "b", "a"].iter().enumerate() {
        let command = register(&format!("n{at}"), inventory("H100", 4, &[leaf]));
        let Response::Registered { node, .. } = player.commit(Time(0), command, watch).unwrap().response else {
            panic!("a node is registered")
        };
        all.push(node);
    }
    for (at, &(start_s, lasts_s, wide)) in windows.iter().enumerate() {
        let on = &all[at * 2..at * 2 + 1 + usize::from(wide)];
        let owner = beginning(exact(nodes(on.len() as u32, 4), lasts_s / 2 + 1), start_s);
        let command = submit(&format!("owner-{at}"), owner);
        let Response::Submitted { job, .. } = player.commit(Time(0), command, watch).unwrap().response else {
            panic!("the owner is submitted")
        };
        let (owner, end_s) = (GangId::new(job, 0), start_s + lasts_s);
        let command = put_aside(&player.state, owner, on, (start_s, end_s));
        player.commit(Time(0), command, watch).unwrap();
        let (start, end) = (Time(start_s * 1000), Time(end_s * 1000));
        watch.windows.push(Window { owner, nodes: on.iter().copied().collect(), start, end });
    }
    for (at, given) in given.iter().enumerate() {
        player.commit(Time(0), submit(&format!("job-{at}"), wish(*given)), watch).unwrap();
    }
    player
}

fn given() -> impl Strategy<Value = Vec<Given>> {
    proptest::collection::vec((0u8..7, 0u32..100, 0u32..100, 1u64..200, any::<u8>()), 1..30)
}

fn windows() -> impl Strategy<Value = Vec<(u64, u64, bool)>> {
    proptest::collection::vec((1u64..300, 2u64..200, any::<bool>()), 1..3)
}

fn depths() -> impl Strategy<Value = (u32, bool)> {
    (prop_oneof![Just(0u32), Just(1), 2u32..7], any::<bool>())
}

/// Every owner starts when its window does.
fn owners_start(policy: Policy, windows: &[(u64, u64, bool)], given: &[Given]) {
    let mut watch = Watch { exact: Exact { check: true, ..Exact::default() }, ..Watch::default() };
    let mut player = build(policy, windows, given, &mut watch);
    player.decide(Time(0), &mut watch).unwrap();
    player.run(&mut watch, 50_000).unwrap();
    for window in &watch.windows {
        assert_eq!(watch.exact.starts[&window.owner][0], window.start, "{window:?}");
    }
}

#[test]
fn the_owner_of_a_window_starts_with_it_though_others_are_stopped_meanwhile() {
    let given = [(4, 29, 0, 1, 51), (0, 38, 0, 4, 68), (5, 46, 0, 101, 32), (1, 20, 33, 91, 53), (3, 0, 0, 145, 113)];
    let given = [&given[..], &[(1, 10, 11, 40, 13)]].concat();
    owners_start(policy((2, false), true), &[(106, 2, false)], &given);
}

/// Somebody ahead of it asks for the same, and may not have what is put aside.
#[test]
fn the_owner_of_a_window_starts_with_it_though_another_with_the_same_wish_may_not() {
    let given = [(4, 0, 0, 48, 44), (0, 86, 0, 48, 95), (1, 9, 0, 48, 0)];
    owners_start(policy((0, false), false), &[(1, 32, true), (1, 2, false)], &given);
}

proptest! {
    #![proptest_config(cases(300))]

    /// Through preemption, drained nodes, gangs that keep what they have left, and bookings around all that.
    #[test]
    fn nobody_else_is_in_a_window_while_it_lasts(
        given in given(),
        windows in windows(),
        depth in depths(),
        preempts in any::<bool>(),
        drains in proptest::collection::vec((0u64..300, 0usize..6, any::<bool>()), 0..6),
    ) {
        let mut watch = Watch { exact: Exact { check: true, ..Exact::default() }, ..Watch::default() };
        let mut player = build(policy(depth, preempts), &windows, &given, &mut watch);
        let all: Vec<NodeId> = player.state.nodes().keys().copied().collect();
        for &(at_s, which, back) in &drains {
            let (node, by) = (all[which], Principal("op".into()));
            let action = match back {
                true => NodeAction::Undrain,
                false => NodeAction::Drain { reason: "test".into(), deadline_ms: Some(0) },
            };
            player.at(Time(at_s * 1000), Command::NodeAdmin { node, action, by: by.clone() });
            player.at(Time(400_000), Command::NodeAdmin { node, action: NodeAction::Undrain, by });
        }
        watch.exact.lenient = true;
        player.decide(Time(0), &mut watch).unwrap();
        let played = player.run(&mut watch, 50_000);
        prop_assert!(played.is_ok(), "{}", played.unwrap_err());
        prop_assert_eq!(watch.exact.wrong, None);
        if drains.is_empty() {
            for window in &watch.windows {
                let started = watch.exact.starts.get(&window.owner).map(|starts| starts[0]);
                prop_assert_eq!(started, Some(window.start));
            }
        }
    }

    /// With nothing else to come, what is told of every gang is what happens.
    #[test]
    fn estimates_know_of_windows(
        given in given(),
        windows in windows(),
        depth in depths(),
        preempts in any::<bool>(),
        later in 0usize..40,
    ) {
        let mut watch = Watch { exact: Exact { check: true, ..Exact::default() }, ..Watch::default() };
        let mut player = build(policy(depth, preempts), &windows, &given, &mut watch);
        let told = forecast(&player.state, Time(0));
        prop_assert!(told.complete);
        player.decide(Time(0), &mut watch).unwrap();
        for _ in 0..later {
            player.step(&mut watch).unwrap();
        }
        let started: BTreeMap<GangId, usize> =
            watch.exact.starts.iter().map(|(gang, starts)| (*gang, starts.len())).collect();
        let again = forecast(&player.state, player.state.now());
        player.run(&mut watch, 50_000).unwrap();
        prop_assert_eq!(watch.exact.wrong, None);
        let starts = &watch.exact.starts;
        for (gang, at) in &told.starts {
            prop_assert_eq!(starts.get(gang).map(|starts| starts[0]), *at, "{} as told at first", gang);
        }
        for (gang, at) in &again.starts {
            let before = started.get(gang).copied().unwrap_or(0);
            let came = starts.get(gang).and_then(|starts| starts.get(before)).copied();
            prop_assert_eq!(came, *at, "{} as told at {}", gang, player.state.now());
        }
    }
}
