//! Several starts booked at a time: none of them moves later, and nobody is started in their way.

use crate::plan_support;
use crate::property;

use muster_common::topology::TopologyMode::Required;
use muster_common::{DeviceId, GangId, NodeId, Time};
use muster_engine::command::{Command, CommitPlan, ConfigChange, Entry, PlanStep};
use muster_engine::forecast::{CycleEvery, Hooks, InstantOrder, Player, World};
use muster_engine::outcome::Outcome;
use muster_engine::policy::{Backfill, Domains, Order, Policy, RESERVE_DEPTH_MAX, RuntimeSource};
use muster_engine::state::reservation::{Reservation, ReservationKind};
use muster_engine::{Cycle, ENGINE_VERSION, State};
use plan_support::*;
use property::cases;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn booking(reserve_depth: u32) -> Policy {
    Policy {
        order: Order::Fifo,
        backfill: Backfill { reserve_depth, ..Backfill::default() },
        runtime: vec![RuntimeSource::Limit],
        ..Policy::default()
    }
}

/// Gangs with a booking, with its start in seconds and the nodes of its witness.
fn booked(cluster: &Cluster) -> Vec<(GangId, u64, BTreeSet<NodeId>)> {
    let known = cluster.player.state.reservations().values();
    let nodes = |known: &Reservation| known.witness.iter().map(|device| device.node).collect();
    known.map(|known| (known.gang, known.start.0 / 1000, nodes(known))).collect()
}

#[test]
fn depths_beyond_the_largest_are_refused() {
    assert!(booking(RESERVE_DEPTH_MAX).validate().is_ok());
    let refused = booking(RESERVE_DEPTH_MAX + 1).validate().unwrap_err().to_string();
    assert_eq!(refused, "backfill.reserve_depth is 129; it must be between 0 and 128");
}

#[test]
fn small_fillers_run_around_a_whole_node_that_is_booked() {
    for depth in [1, 4] {
        let mut cluster = Cluster::new(booking(depth));
        let all = cluster.nodes(2, 8);
        cluster.submit(lasting(job(nodes(1, 7)), 100));
        cluster.submit(lasting(job(nodes(1, 7)), 1000));
        cluster.decide();
        let whole = cluster.submit(lasting(job(nodes(1, 8)), 50));
        let fillers = [150, 100, 2000].map(|run_s| cluster.submit(lasting(job(nodes(1, 1)), run_s)));
        cluster.decide();
        assert_eq!(booked(&cluster)[0], (whole, 100, BTreeSet::from([all[0]])), "depth {depth}");
        let starts = fillers.map(|gang| cluster.start_s(gang));
        // The first stays on the node that is not booked, the second is gone in time, the third has no room.
        assert_eq!(starts, [Some(0), Some(0), None], "depth {depth}");
        assert_eq!(cluster.held(fillers[0])[0].0, all[1]);
        assert_eq!(cluster.held(fillers[1])[0].0, all[0]);
    }
}

#[test]
fn a_leaf_that_is_booked_takes_only_what_ends_in_time() {
    let mut cluster = Cluster::new(booking(4));
    cluster.fabric(&["leaf"]);
    let mut leaves = Vec::new();
    for at in 0..8 {
        let leaf = if at < 4 { "a" } else { "b" };
        leaves.push(cluster.node(&format!("n{at}"), inventory("H100", 4, &[leaf])));
    }
    // One node of each leaf is taken, for longer in the second.
    for (name, run_s) in [("n0", 200), ("n4", 900)] {
        let mut holder = lasting(job(nodes(1, 4)), run_s);
        let others = (0..8).map(|at| plan_support::name(&format!("n{at}")));
        holder.groups[0].exclude = others.filter(|other| other.as_str() != name).collect();
        cluster.submit(holder);
    }
    cluster.decide();
    let gang = cluster.submit(within(lasting(job(nodes(4, 4)), 100), "leaf", Required, 1));
    // Six nodes are free: three may be kept beyond the booked start, the others until then.
    let long = [0, 1, 2, 3].map(|_| cluster.submit(lasting(job(nodes(1, 4)), 500)));
    let short = [200, 201].map(|run_s| cluster.submit(lasting(job(nodes(1, 4)), run_s)));
    cluster.decide();
    let start = booked(&cluster).into_iter().find(|known| known.0 == gang).unwrap();
    assert_eq!((start.1, start.2), (200, leaves[..4].iter().copied().collect()));
    assert_eq!(long.map(|gang| cluster.start_s(gang).is_some()), [true, true, true, false]);
    assert_eq!(short.map(|gang| cluster.start_s(gang).is_some()), [true, false]);
    assert!(leaves[1..4].contains(&cluster.held(short[0])[0].0), "on a node that is booked for later");
    cluster.run();
    assert_eq!(cluster.start_s(gang), Some(200));
}

#[test]
fn bookings_stand_behind_each_other_and_in_gaps() {
    let mut cluster = Cluster::new(booking(8));
    let all = cluster.nodes(1, 4);
    cluster.submit(lasting(job(nodes(1, 3)), 100));
    cluster.decide();
    let gangs = [(4, 100), (2, 100), (2, 300), (1, 100)]
        .map(|(devices, run_s)| cluster.submit(lasting(job(nodes(1, devices)), run_s)));
    cluster.decide();
    let starts: BTreeMap<GangId, u64> = booked(&cluster).into_iter().map(|(gang, start, _)| (gang, start)).collect();
    let wanted = [(gangs[0], 100), (gangs[1], 200), (gangs[2], 200)];
    assert_eq!(starts, BTreeMap::from(wanted));
    assert_eq!(cluster.start_s(gangs[3]), Some(0), "in the gap before the first");
    let entries = cluster.player.stats().entries;
    cluster.decide();
    assert_eq!(cluster.player.stats().entries, entries, "nothing changed, nothing is written");
    cluster.run();
    assert_eq!(gangs.map(|gang| cluster.start_s(gang)), [Some(100), Some(200), Some(200), Some(0)]);
    assert_eq!(all.len(), 1);
}

#[test]
fn only_so_many_are_booked_and_the_next_when_one_has_started() {
    let mut cluster = Cluster::new(booking(2));
    cluster.nodes(1, 4);
    cluster.submit(lasting(job(nodes(1, 4)), 100));
    cluster.decide();
    let gangs = [100, 101, 102].map(|run_s| cluster.submit(lasting(job(nodes(1, 4)), run_s)));
    cluster.decide();
    let names =
        |cluster: &Cluster| booked(cluster).into_iter().map(|(gang, start, _)| (gang, start)).collect::<Vec<_>>();
    assert_eq!(names(&cluster), [(gangs[0], 100), (gangs[1], 200)]);
    cluster.player.step(&mut cluster.seen).unwrap();
    assert_eq!(cluster.start_s(gangs[0]), Some(100));
    assert_eq!(names(&cluster), [(gangs[1], 200), (gangs[2], 301)]);
}

#[test]
fn a_node_like_none_before_it_brings_a_booked_start_forward() {
    let mut cluster = Cluster::new(booking(1));
    cluster.nodes(2, 8);
    for run_s in [1000, 5000] {
        cluster.submit(lasting(job(nodes(1, 8)), run_s));
    }
    cluster.decide();
    let gang = cluster.submit(lasting(job(nodes(2, 8)), 100));
    cluster.decide();
    assert_eq!(booked(&cluster)[0].1, 5000);
    let mut machine = inventory("H100", 8, &[]);
    machine.labels.insert(name("bought"), "later".into());
    cluster.node("n02", machine);
    cluster.decide();
    let known = booked(&cluster);
    assert_eq!((known[0].0, known[0].1), (gang, 1000), "with the new node and the first that is free");
}

/// Four nodes of four devices; a window of time on the first two for a job that begins later.
#[test]
fn nobody_is_started_into_a_window_of_time_that_is_not_its_own() {
    for depth in [0, 1, 4] {
        let mut cluster = Cluster::new(booking(depth));
        let all = cluster.nodes(4, 4);
        let mut later = lasting(job(nodes(2, 4)), 100);
        later.begin_at_ms = Some(100_000);
        let owner = cluster.submit(later);
        let device = |node: &NodeId, slot| DeviceId { node: *node, slot };
        let witness = all[..2].iter().flat_map(|node| (0..4).map(move |slot| device(node, slot))).collect();
        let (start, end) = (Time(100_000), Time(900_000));
        let window = Reservation { gang: owner, kind: ReservationKind::Advance, start, end, domain: None, witness };
        let state = &cluster.player.state;
        let plan = CommitPlan {
            made_at: state.applied_index(),
            now: cluster.now(),
            policy_version: state.config_version(),
            engine_version: ENGINE_VERSION,
            steps: vec![PlanStep::Reserve(window)],
        };
        cluster.commit(Command::CommitPlan(Box::new(plan)));
        let long = [1, 2, 3].map(|_| cluster.submit(lasting(job(nodes(1, 4)), 500)));
        let short = cluster.submit(lasting(job(nodes(1, 4)), 100));
        cluster.decide();
        assert_eq!(long.map(|gang| cluster.start_s(gang).is_some()), [true, true, false], "depth {depth}");
        let nodes: BTreeSet<NodeId> = long[..2].iter().map(|gang| cluster.held(*gang)[0].0).collect();
        assert_eq!(nodes, all[2..].iter().copied().collect());
        assert!(all[..2].contains(&cluster.held(short)[0].0), "it is gone when the window begins");
        cluster.run();
        assert_eq!(cluster.start_s(owner), Some(100), "depth {depth}");
    }
}

/// What was booked for each gang, and whether any of it moved later.
#[derive(Default)]
struct Promises {
    exact: Exact,
    booked: BTreeMap<GangId, Time>,
}

impl Hooks for Promises {
    fn run_ms(&mut self, state: &State, gang: GangId) -> Option<u64> {
        self.exact.run_ms(state, gang)
    }

    fn on_entry(&mut self, state: &State, entry: &Entry, outcome: &Outcome) -> Result<(), String> {
        self.exact.on_entry(state, entry, outcome)
    }

    fn on_cycle(&mut self, state: &State, now: Time, decided: &Cycle) {
        self.exact.compare_with_fresh(state, now, decided);
        let steps = decided.commands.iter().filter_map(|command| match command {
            Command::CommitPlan(plan) => Some(&plan.steps),
            _ => None,
        });
        for step in steps.flatten() {
            let PlanStep::Reserve(Reservation { gang, start, .. }) = step else { continue };
            let known = *self.booked.entry(*gang).or_insert(*start);
            if *start > known {
                self.exact.wrong =
                    Some(format!("{gang} was to start at {known} and is now to start at {start}, decided at {now}"));
            }
            self.booked.insert(*gang, *start);
        }
    }
}

/// All is submitted at once; everything ends as early as it likes, and nothing fails.
fn booked_starts_hold(
    given: &[(u32, u64, u64, u8)],
    reserve_depth: u32,
    (spare, rematch): (bool, bool),
    [anywhere, every_event]: [bool; 2],
) -> Result<(), String> {
    let mut policy = booking(reserve_depth);
    (policy.backfill.spare, policy.backfill.rematch) = (spare, rematch);
    policy.domains = if anywhere { Domains::Anywhere } else { Domains::LowestFit };
    let cycle_every = if every_event { CycleEvery::Event } else { CycleEvery::Instant };
    let world = World { at_one_instant: InstantOrder::EndsFirst, cycle_every, kept_work: true };
    let mut player = Player::new(State::new("test"), world);
    let mut seen = Promises { exact: Exact { check: true, ..Exact::default() }, ..Promises::default() };
    player.commit(Time(0), configure(ConfigChange::Policy(policy)), &mut seen).unwrap();
    player.commit(Time(0), configure(ConfigChange::Fabric(fabric(&["leaf"]))), &mut seen).unwrap();
    for (at, leaf) in ["a", "a", "b", "b", "b"].iter().enumerate() {
        let node = register(&format!("n{at}"), inventory("H100", 4, &[leaf]));
        player.commit(Time(0), node, &mut seen).unwrap();
    }
    for (at, &(size, run_s, more_s, kind)) in given.iter().enumerate() {
        let wish = match kind {
            0 => job(nodes(1 + size % 5, 4)),
            1 => job(nodes(1 + size % 3, 1 + size % 4)),
            2 => within(job(nodes(1 + size % 3, 1 + size % 4)), "leaf", Required, 1),
            _ => job(total(size)),
        };
        let wish = limited(wish, run_s, run_s + 1 + more_s);
        player.commit(Time(0), submit(&format!("job-{at}"), wish), &mut seen).unwrap();
    }
    player.decide(Time(0), &mut seen).map_err(|error| format!("{error:?}"))?;
    player.run(&mut seen, 100_000).map_err(|error| format!("{error:?}"))?;
    if let Some(wrong) = seen.exact.wrong {
        return Err(wrong);
    }
    assert_eq!(seen.exact.ends.len(), given.len());
    for (gang, promised) in &seen.booked {
        let started = seen.exact.starts[gang][0];
        if started > *promised {
            return Err(format!("{gang} promised {promised}, started {started}"));
        }
    }
    Ok(())
}

/// Found by chance: a booking was moved forward, a gang was started where it had stood, and that filled the cluster.
#[test]
fn a_booking_that_is_bettered_in_a_cycle_that_fills_the_cluster_is_written() {
    let given = [
        (11, 217, 37, 3),
        (14, 88, 45, 2),
        (6, 46, 0, 0),
        (5, 115, 134, 3),
        (9, 245, 214, 3),
        (19, 233, 20, 1),
        (10, 251, 217, 1),
        (3, 1, 197, 0),
        (7, 166, 162, 3),
        (14, 1, 241, 0),
        (10, 220, 47, 3),
        (11, 15, 227, 3),
        (6, 177, 32, 0),
        (9, 1, 267, 3),
        (1, 215, 40, 3),
        (5, 27, 65, 2),
        (1, 104, 114, 1),
        (4, 284, 176, 3),
        (8, 200, 26, 1),
        (13, 31, 1, 0),
        (1, 1, 0, 0),
        (12, 5, 213, 3),
        (4, 226, 131, 3),
        (1, 1, 0, 0),
        (11, 1, 0, 0),
        (1, 1, 0, 0),
        (1, 1, 0, 0),
        (3, 211, 146, 0),
        (1, 73, 284, 0),
        (1, 24, 194, 0),
    ];
    booked_starts_hold(&given, 8, (false, false), [true, false]).unwrap();
}

proptest! {
    #![proptest_config(cases(300))]
    #[test]
    fn no_booked_start_ever_moves_later(
        given in proptest::collection::vec((1u32..20, 1u64..300, 0u64..300, 0u8..6), 2..40),
        reserve_depth in 2u32..9,
        anywhere in any::<bool>(),
        filling in prop_oneof![Just((false, false)), Just((true, false)), Just((true, true))],
        every_event in any::<bool>(),
    ) {
        let held = booked_starts_hold(&given, reserve_depth, filling, [anywhere, every_event]);
        prop_assert!(held.is_ok(), "{}", held.unwrap_err());
    }
}
