//! Who goes first, judged against orders written down a second time, in floats and by hand.

use crate::plan_support;
use crate::property;

use muster_common::{GangId, Time};
use muster_engine::command::{Command, PlanStep};
use muster_engine::policy::{Admission, Backfill, Domains, Order, Policy, Replan, Taking};
use muster_engine::{Memo, cycle};
use plan_support::*;
use property::cases;
use proptest::prelude::*;

fn no_backfill() -> Backfill {
    Backfill { reserve_depth: 0, ..Backfill::default() }
}

/// One job of the model: submit time, devices, run time (0 = unknown), class.
type Given = (u64, u32, u64, u8);

const CLASSES: [(&str, f64); 3] = [("low", -1.0), ("normal", 0.0), ("high", 1.0)];

fn score(order: &Order, (submit_s, devices, run_s, class): Given, now_s: u64) -> f64 {
    let run = if run_s == 0 { f64::INFINITY } else { run_s as f64 };
    let (submit, devices) = (submit_s as f64, f64::from(devices));
    let class = CLASSES[usize::from(class)].1;
    let log10 = |value: f64| libm::log10(if value == 0.0 { 0.1 } else { value });
    match order {
        Order::Fifo => submit,
        Order::Priority { hours_per_class } => submit - class * f64::from(*hours_per_class) * 3600.0,
        Order::Default => submit - class * 24.0 * 3600.0,
        Order::Sjf | Order::Srtf => run,
        Order::Smallest => devices,
        Order::F1 => log10(run) * devices + 870.0 * log10(submit),
        Order::Formula(_) => -(now_s as f64 - submit) / run * devices,
        Order::Wfp3 => -((now_s as f64 - submit) / run).powi(3) * devices,
        Order::Unicep => -(now_s as f64 - submit) / (libm::log2(devices + 1e-15) * run),
        Order::Qssf => run * devices,
        other => panic!("{other:?} has tests of its own"),
    }
}

fn placed(commands: &[Command]) -> Vec<GangId> {
    let steps = commands.iter().flat_map(|command| match command {
        Command::CommitPlan(plan) => plan.steps.clone(),
        _ => Vec::new(),
    });
    steps.filter_map(|step| if let PlanStep::Place(placement) = step { Some(placement.gang) } else { None }).collect()
}

fn orders() -> impl Strategy<Value = Order> {
    prop_oneof![
        Just(Order::Fifo),
        Just(Order::Default),
        (1u32..50).prop_map(|hours_per_class| Order::Priority { hours_per_class }),
        Just(Order::Sjf),
        Just(Order::Srtf),
        Just(Order::Smallest),
        Just(Order::F1),
        Just(Order::Formula("-wait / run * devices".into())),
        Just(Order::Unicep),
        Just(Order::Qssf),
    ]
}

proptest! {
    #![proptest_config(cases(500))]
    #[test]
    fn gangs_are_placed_in_the_order_of_the_policy(
        order in orders(),
        mut given in proptest::collection::vec((0u64..200_000, 1u32..8, 0u64..5000, 0u8..3), 1..20),
    ) {
        given.sort_by_key(|job| job.0);
        let mut cluster = Cluster::new(Policy { order: order.clone(), backfill: no_backfill(), ..Policy::default() });
        let mut ids = Vec::new();
        for (at, (submit_s, devices, run_s, class)) in given.iter().enumerate() {
            let mut wish = job(nodes(1, *devices));
            wish.limits.exact_ms = (*run_s > 0).then_some(run_s * 1000);
            wish.class = name(CLASSES[usize::from(*class)].0);
            let submit = submit(&format!("job-{at}"), wish);
            let outcome = cluster.player.commit(Time(submit_s * 1000), submit, &mut cluster.seen).unwrap();
            if let muster_engine::Response::Submitted { job, .. } = outcome.response {
                ids.push(GangId::new(job, 0));
            }
        }
        cluster.nodes(20, 8);
        let now = cluster.now();
        let decided = cycle(&cluster.player.state, &mut Memo::default(), now);
        let mut expected: Vec<usize> = (0..given.len()).collect();
        let key = |at: usize| score(&order, given[at], now.0 / 1000);
        expected.sort_by(|&a, &b| {
            // 0/inf and the like have no place in the order: last.
            let rank = |value: f64| if value.is_nan() { f64::INFINITY } else { value };
            rank(key(a)).total_cmp(&rank(key(b))).then(given[a].0.cmp(&given[b].0)).then(a.cmp(&b))
        });
        let expected: Vec<GangId> = expected.into_iter().map(|at| ids[at]).collect();
        prop_assert_eq!(placed(&decided.commands), expected);
    }
}

#[test]
fn a_strict_queue_waits_behind_its_head_and_a_lenient_one_does_not() {
    let start = |admission| {
        let mut cluster =
            Cluster::new(Policy { order: Order::Fifo, admission, backfill: no_backfill(), ..Policy::default() });
        cluster.nodes(1, 8);
        let gangs = [exact(total(6), 10), exact(total(4), 10), exact(total(2), 10)].map(|wish| cluster.submit(wish));
        cluster.decide();
        cluster.run();
        gangs.map(|gang| cluster.start_s(gang).unwrap())
    };
    assert_eq!(start(Admission::HeadOfLine { sticky: false }), [0, 10, 10]);
    assert_eq!(start(Admission::Skip), [0, 10, 0]);
}

#[test]
fn a_sticky_head_keeps_its_place_against_a_better_one() {
    let start = |sticky| {
        let admission = Admission::HeadOfLine { sticky };
        let mut cluster =
            Cluster::new(Policy { order: Order::Sjf, admission, backfill: no_backfill(), ..Policy::default() });
        cluster.nodes(1, 8);
        cluster.submit_at(0, exact(total(8), 100));
        cluster.submit_at(1, exact(total(8), 50));
        cluster.submit_at(2, exact(total(8), 5));
        cluster.run();
        cluster.seen.starts.values().map(|starts| starts[0].0 / 1000).collect::<Vec<_>>()
    };
    assert_eq!(start(true), [0, 100, 150]);
    assert_eq!(start(false), [0, 105, 100]);
}

#[test]
fn what_can_never_run_holds_nobody_up() {
    let mut cluster = Cluster::new(Policy {
        order: Order::Fifo,
        admission: Admission::HeadOfLine { sticky: true },
        ..Policy::default()
    });
    cluster.nodes(1, 8);
    let giant = cluster.submit(exact(nodes(64, 8), 10));
    let small = cluster.submit(exact(nodes(1, 8), 10));
    cluster.decide();
    assert_eq!((cluster.start_s(giant), cluster.start_s(small)), (None, Some(0)));
}

#[test]
fn refilling_stops_the_long_for_the_short_and_loses_no_work() {
    let mut cluster = Cluster::new(Policy {
        order: Order::Srtf,
        backfill: no_backfill(),
        domains: Domains::Anywhere,
        replan: Replan::Refill { min_run_ms: 0, max_victims_per_cycle: 10 },
        ..Policy::default()
    });
    cluster.nodes(1, 8);
    cluster.submit_at(0, exact(total(8), 100));
    cluster.submit_at(10, exact(total(4), 20));
    cluster.run();
    let ends: Vec<u64> = cluster.seen.ends.values().map(|at| at.0 / 1000).collect();
    let starts: Vec<Vec<u64>> =
        cluster.seen.starts.values().map(|all| all.iter().map(|at| at.0 / 1000).collect()).collect();
    assert_eq!((starts, ends), (vec![vec![0, 30], vec![10]], vec![120, 30]));
}

/// The fast node is free after 10 s and again after 100 s: first the second gang moves there, then the third. The fourth
/// would fit beside the third, but nobody passes who finds no room before it.
#[test]
fn refilling_moves_what_runs_to_the_model_it_prefers() {
    let mut cluster = Cluster::new(Policy {
        order: Order::Fifo,
        admission: Admission::HeadOfLine { sticky: false },
        backfill: no_backfill(),
        domains: Domains::Anywhere,
        replan: Replan::Refill { min_run_ms: 0, max_victims_per_cycle: 10 },
        taking: Taking { upgrade: true, ..Taking::default() },
        ..Policy::default()
    });
    cluster.node("fast", inventory("H100", 8, &[]));
    cluster.node("slow", inventory("A100", 8, &[]));
    let wish = |devices, run_s| {
        let mut wish = exact(total(devices), run_s);
        wish.groups[0].models = vec![name("H100"), name("A100")];
        wish
    };
    for (devices, run_s) in [(8, 10), (8, 100), (6, 100), (8, 10), (2, 10)] {
        cluster.submit_at(0, wish(devices, run_s));
    }
    cluster.run();
    let seconds = |times: &[Time]| times.iter().map(|at| at.0 / 1000).collect::<Vec<_>>();
    let starts: Vec<Vec<u64>> = cluster.seen.starts.values().map(|all| seconds(all)).collect();
    let ends: Vec<u64> = cluster.seen.ends.values().map(|at| at.0 / 1000).collect();
    assert_eq!(starts, [vec![0], vec![0, 10], vec![10, 100], vec![100], vec![100]]);
    assert_eq!(ends, [10, 100, 110, 110, 110]);
}

#[test]
fn a_gang_starts_again_once_the_device_it_lacks_is_out_of_quarantine() {
    let replan = Replan::Refill { min_run_ms: 0, max_victims_per_cycle: 10 };
    let mut cluster = Cluster::new(Policy { replan, ..Policy::default() });
    let node = cluster.nodes(1, 8)[0];
    cluster.commit(device_lost(node, 1));
    let gang = cluster.submit(exact(nodes(1, 8), 10));
    cluster.decide();
    assert_eq!(cluster.start_s(gang), None);
    cluster.commit(device_mended(node));
    cluster.decide();
    assert_eq!(cluster.start_s(gang), Some(0));
}

#[test]
fn refilling_spares_the_young_and_those_that_may_not_be_stopped() {
    let end_of_short = |min_run_ms, preemptible| {
        let mut cluster = Cluster::new(Policy {
            order: Order::Srtf,
            backfill: no_backfill(),
            replan: Replan::Refill { min_run_ms, max_victims_per_cycle: 10 },
            ..Policy::default()
        });
        cluster.nodes(1, 8);
        let mut long = exact(nodes(1, 8), 100);
        long.preemptible = preemptible;
        cluster.submit_at(0, long);
        cluster.submit_at(10, exact(nodes(1, 4), 20));
        cluster.run();
        cluster.seen.ends.values().last().unwrap().0 / 1000
    };
    assert_eq!(end_of_short(0, true), 30);
    assert_eq!(end_of_short(60_000, true), 80, "stopped when its minute is over, without any other event");
    assert_eq!(end_of_short(0, false), 120);
}

/// Found by a bench whose 12,000 jobs each have a limit of their own: a decision took 4 ms in place of 60 us.
#[test]
fn those_that_can_never_run_are_not_looked_at_one_by_one() {
    let mut policy = Policy { order: Order::Fifo, ..Policy::default() };
    policy.budget.depth = 3;
    let mut cluster = Cluster::new(policy);
    cluster.nodes(1, 2);
    (0..10).for_each(|more_s| _ = cluster.submit(exact(nodes(5, 2), 100 + more_s)));
    let fits = cluster.submit(exact(nodes(1, 2), 100));
    let decided = cycle(&cluster.player.state, &mut Memo::default(), cluster.now());
    assert_eq!((placed(&decided.commands), decided.truncated), (vec![fits], 0));
}

#[test]
fn a_cycle_ends_at_its_depth_and_says_so() {
    let mut policy = Policy { backfill: no_backfill(), ..Policy::default() };
    policy.budget.depth = 3;
    let mut cluster = Cluster::new(policy);
    cluster.nodes(1, 2);
    cluster.submit(job(nodes(1, 2)));
    (0..10).for_each(|_| _ = cluster.submit(job(nodes(1, 2))));
    (2..10).for_each(|count| _ = cluster.submit(job(nodes(count, 2))));
    let decided = cycle(&cluster.player.state, &mut Memo::default(), cluster.now());
    // One that fits, one of ten that lack the same, one more; seven are not looked at.
    assert_eq!((placed(&decided.commands).len(), decided.truncated), (1, 7));
}
