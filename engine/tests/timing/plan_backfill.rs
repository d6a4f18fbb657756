//! Filling around the first gang that cannot start, and never in its way.

use crate::plan_support;
use crate::property;

use muster_common::topology::TopologyMode::Required;
use muster_common::{GangId, Time};
use muster_engine::command::{Command, Entry, Exit, NodeReport, PlanStep, ReportBody};
use muster_engine::forecast::{CycleEvery, Hooks, InstantOrder, Player, World};
use muster_engine::outcome::Outcome;
use muster_engine::policy::{Admission, Backfill, Domains, Edge, FillerOrder, Order, Policy};
use muster_engine::state::reservation::ReservationKind;
use muster_engine::{Cycle, State};
use plan_support::*;
use property::cases;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn easy(edge: Edge, spare: bool) -> Policy {
    Policy {
        order: Order::Fifo,
        domains: Domains::Anywhere,
        backfill: Backfill { reserve_depth: 1, filler_order: FillerOrder::Policy, edge, spare, rematch: false },
        ..Policy::default()
    }
}

/// Eight devices, six of them taken for 100 s; a gang of eight waits; then the fillers.
fn around_eight(policy: Policy, fillers: &[(u32, u64)]) -> Vec<Option<u64>> {
    let mut cluster = Cluster::new(policy);
    cluster.nodes(2, 4);
    cluster.submit(exact(total(6), 100));
    cluster.submit(exact(total(8), 100));
    let gangs: Vec<GangId> =
        fillers.iter().map(|&(devices, run_s)| cluster.submit(exact(total(devices), run_s))).collect();
    cluster.decide();
    gangs.into_iter().map(|gang| cluster.start_s(gang)).collect()
}

#[test]
fn a_filler_must_end_before_the_booked_start() {
    assert_eq!(around_eight(easy(Edge::AtOrBefore, true), &[(1, 101), (1, 100), (1, 5)]), [None, Some(0), Some(0)]);
    assert_eq!(around_eight(easy(Edge::Before, true), &[(1, 100), (1, 99)]), [None, Some(0)]);
}

#[test]
fn fillers_may_stay_where_the_booked_gang_needs_nothing() {
    let start = |spare| {
        let mut cluster = Cluster::new(easy(Edge::AtOrBefore, spare));
        cluster.nodes(2, 4);
        cluster.submit(exact(total(6), 100));
        cluster.submit(exact(total(7), 100));
        let gangs = [exact(total(1), 1000), exact(total(1), 1000)].map(|wish| cluster.submit(wish));
        cluster.decide();
        let booked: Vec<Time> = cluster.player.state.reservations().values().map(|known| known.start).collect();
        assert_eq!(booked, [Time(100_000)]);
        gangs.map(|gang| cluster.start_s(gang))
    };
    assert_eq!(start(true), [Some(0), None], "eight devices less seven: one to spare");
    assert_eq!(start(false), [None, None]);
}

#[test]
fn fillers_go_by_policy_or_by_submit_time() {
    let first = |filler_order| {
        let mut policy = easy(Edge::AtOrBefore, true);
        policy.order = Order::Sjf;
        policy.admission = Admission::HeadOfLine { sticky: true };
        policy.backfill.filler_order = filler_order;
        let mut cluster = Cluster::new(policy);
        cluster.nodes(2, 4);
        cluster.submit(exact(total(6), 100));
        cluster.decide();
        let head = cluster.submit(exact(total(8), 1));
        let gangs = [exact(total(2), 50), exact(total(2), 20)].map(|wish| cluster.submit(wish));
        cluster.decide();
        assert_eq!(cluster.start_s(head), None);
        gangs.map(|gang| cluster.start_s(gang).is_some())
    };
    assert_eq!(first(FillerOrder::Policy), [false, true]);
    assert_eq!(first(FillerOrder::Submit), [true, false]);
}

#[test]
fn one_that_never_ends_gives_no_booking_and_a_limit_does() {
    let booked = |limit_ms| {
        let mut cluster = Cluster::new(easy(Edge::AtOrBefore, true));
        cluster.nodes(1, 4);
        let mut holder = job(total(3));
        holder.limits.time_ms = limit_ms;
        cluster.submit(holder);
        cluster.submit(exact(total(4), 10));
        cluster.decide();
        cluster.player.state.reservations().values().map(|known| known.start).next()
    };
    assert_eq!(booked(None), None);
    assert_eq!(booked(Some(7000)), Some(Time(7000)));
}

#[test]
fn a_booking_is_written_once_and_taken_back_with_its_reason() {
    let mut cluster = Cluster::new(easy(Edge::AtOrBefore, true));
    cluster.nodes(1, 4);
    cluster.submit(exact(total(3), 100));
    let booked = cluster.submit(exact(total(4), 10));
    cluster.decide();
    let known = cluster.player.state.reservations()[&booked].clone();
    assert_eq!((known.kind, known.witness.len()), (ReservationKind::Booked, 4));
    let entries = cluster.player.stats().entries;
    cluster.decide();
    assert_eq!(cluster.player.stats().entries, entries, "nothing changed, nothing is written");
    cluster.commit(Command::Hold { job: booked.job, hold: true, by: muster_engine::command::Principal("op".into()) });
    cluster.decide();
    assert!(cluster.player.state.reservations().is_empty());
}

/// Every moment a gang was booked for, and when it really started.
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

    fn on_cycle(&mut self, _state: &State, _now: Time, cycle: &Cycle) {
        for command in &cycle.commands {
            let Command::CommitPlan(plan) = command else { continue };
            for step in &plan.steps {
                if let PlanStep::Reserve(reservation) = step {
                    let known = self.booked.entry(reservation.gang).or_insert(reservation.start);
                    *known = (*known).min(reservation.start);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(400))]
    /// With exact run times and an order that newcomers cannot upset.
    #[test]
    fn no_booked_gang_starts_later_than_it_was_promised(
        given in proptest::collection::vec((0u64..300, 1u32..20, 1u64..200, 0u8..6), 2..40),
        strict in any::<bool>(),
        policy_order in any::<bool>(),
        before in any::<bool>(),
        (spare, rematch) in prop_oneof![Just((false, false)), Just((true, false)), Just((true, true))],
        anywhere in any::<bool>(),
        every_event in any::<bool>(),
        reserve_depth in prop_oneof![Just(1u32), 2u32..8],
    ) {
        let policy = Policy {
            order: Order::Fifo,
            admission: if strict { Admission::HeadOfLine { sticky: true } } else { Admission::Skip },
            backfill: Backfill {
                reserve_depth,
                filler_order: if policy_order { FillerOrder::Policy } else { FillerOrder::Submit },
                edge: if before { Edge::Before } else { Edge::AtOrBefore },
                spare,
                rematch,
            },
            domains: if anywhere { Domains::Anywhere } else { Domains::LowestFit },
            ..Policy::default()
        };
        let world = World {
            at_one_instant: InstantOrder::EndsFirst,
            cycle_every: if every_event { CycleEvery::Event } else { CycleEvery::Instant },
            kept_work: true,
        };
        let mut player = Player::new(State::new("test"), world);
        let mut seen = Promises { exact: Exact { check: true, ..Exact::default() }, ..Promises::default() };
        use muster_engine::command::ConfigChange;
        player.commit(Time(0), configure(ConfigChange::Policy(policy)), &mut seen).unwrap();
        player.commit(Time(0), configure(ConfigChange::Fabric(fabric(&["leaf"]))), &mut seen).unwrap();
        for (at, leaf) in ["a", "a", "b", "b", "b"].iter().enumerate() {
            let node = register(&format!("n{at}"), inventory("H100", 4, &[leaf]));
            player.commit(Time(0), node, &mut seen).unwrap();
        }
        for (at, &(submit_s, size, run_s, kind)) in given.iter().enumerate() {
            let wish = match kind {
                0 => exact(nodes(1 + size % 5, 4), run_s),
                1 => exact(nodes(1 + size % 3, 1 + size % 4), run_s),
                2 => within(exact(nodes(1 + size % 3, 1 + size % 4), run_s), "leaf", Required, 1),
                _ => exact(total(size), run_s),
            };
            player.at(Time(submit_s * 1000), submit(&format!("job-{at}"), wish));
        }
        player.run(&mut seen, 100_000).unwrap();
        for (gang, promised) in &seen.booked {
            // A head without a foreseeable start has promised nothing.
            let started = seen.exact.starts.get(gang).map(|starts| starts[0]);
            prop_assert!(started.is_some_and(|at| at <= *promised), "{} promised {}, started {:?}", gang, promised, started);
        }
    }
}

/// An agent tells the last exit first, and a moment later that nothing is left of the ranks.
#[test]
fn nobody_slips_in_between_the_last_exit_and_the_release_of_what_the_head_is_booked_for() {
    let mut cluster = Cluster::new(easy(Edge::AtOrBefore, true));
    cluster.nodes(2, 8);
    let ends = cluster.submit(exact(nodes(1, 8), 100));
    cluster.decide();
    let head = cluster.submit(exact(nodes(2, 8), 100));
    cluster.decide();
    let attempt = cluster.player.state.gang(ends).unwrap().current().unwrap().clone();
    let part = attempt.parts[0].clone();
    let epoch = cluster.player.state.node(part.node).unwrap().epoch;
    let exited = |rank: u32| NodeReport {
        node: part.node,
        epoch,
        number: 1000 + u64::from(rank),
        gang: ends,
        attempt: attempt.number,
        token: attempt.token,
        body: ReportBody::Exited { rank, exit: Exit::Code(0), why: String::new() },
    };
    cluster.commit(Command::Reports { reports: (0..part.ranks).map(exited).collect() });
    assert!(cluster.player.state.gang(ends).unwrap().current().unwrap().stopping_at.is_some());
    let [long, short] = [20, 1].map(|run_s| cluster.submit(exact(nodes(1, 8), run_s)));
    cluster.decide();
    assert_eq!([head, long, short].map(|gang| cluster.start_s(gang)), [None, None, Some(0)]);
}
