//! The orders by name, against numbers worked out by hand.

use crate::plan_support;

use muster_common::job::Scheduling;
use muster_common::time::DAY_MS;
use muster_common::{GangId, Time};
use muster_engine::command::{Command, ConfigChange, PlanStep, Principal, Submit};
use muster_engine::organisation::{Account, Organisation};
use muster_engine::policy::{
    Admission, Backfill, Domains, Gittins, Las, Multifactor, Order, Policy, Replan, Stability,
};
use muster_engine::{Memo, cycle};
use plan_support::*;
use std::collections::BTreeMap;
use std::sync::Arc;

fn policy(order: Order) -> Policy {
    Policy { order, backfill: Backfill { reserve_depth: 0, ..Backfill::default() }, ..Policy::default() }
}

fn placed(cluster: &Cluster, now: Time) -> Vec<GangId> {
    let decided = cycle(&cluster.player.state, &mut Memo::default(), now);
    let steps = decided.commands.into_iter().flat_map(|command| match command {
        Command::CommitPlan(plan) => plan.steps,
        _ => Vec::new(),
    });
    steps.filter_map(|step| if let PlanStep::Place(placement) = step { Some(placement.gang) } else { None }).collect()
}

/// Submits at each moment and says in which order they would be placed at `now_s`.
fn order_of(order: Order, now_s: u64, wishes: Vec<(u64, Scheduling)>) -> Vec<usize> {
    let mut cluster = Cluster::new(policy(order));
    let mut gangs = Vec::new();
    for (at, (submit_s, wish)) in wishes.into_iter().enumerate() {
        let outcome = cluster
            .player
            .commit(Time(submit_s * 1000), submit(&format!("job-{at}"), wish), &mut cluster.seen)
            .unwrap();
        if let muster_engine::Response::Submitted { job, .. } = outcome.response {
            gangs.push(GangId::new(job, 0));
        }
    }
    cluster.nodes(20, 8);
    let placed = placed(&cluster, Time(now_s * 1000));
    placed.iter().map(|gang| gangs.iter().position(|known| known == gang).unwrap()).collect()
}

fn runs(devices: u32, run_s: u64) -> Scheduling {
    exact(nodes(1, devices), run_s)
}

#[test]
fn wfp3_is_the_cube_of_wait_over_run_times_devices() {
    // Waits 100, 80, 50 s: (100/10)^3 x 1 = 1000, (80/10)^3 x 4 = 2048, (50/5)^3 x 1 = 1000.
    let wishes = vec![(0, runs(1, 10)), (20, runs(4, 10)), (50, runs(1, 5))];
    assert_eq!(order_of(Order::Wfp3, 100, wishes), [1, 0, 2]);
}

#[test]
fn unicep_is_wait_over_the_logarithm_of_devices_times_run() {
    // 100/(3 x 10) = 3.33, 80/(1 x 10) = 8, 90/(2 x 4) = 11.25; one device divides by almost nothing.
    let wishes = vec![(0, runs(8, 10)), (20, runs(2, 10)), (10, runs(4, 4)), (99, runs(1, 1000))];
    assert_eq!(order_of(Order::Unicep, 100, wishes), [3, 2, 1, 0]);
}

#[test]
fn qssf_is_run_time_times_devices() {
    // 40, 30, 36.
    assert_eq!(order_of(Order::Qssf, 10, vec![(0, runs(4, 10)), (1, runs(1, 30)), (2, runs(6, 6))]), [1, 2, 0]);
}

#[test]
fn the_earliest_deadline_goes_first_and_none_last() {
    let by = |deadline_s: Option<u64>| {
        let mut wish = runs(1, 10);
        wish.deadline_at_ms = deadline_s.map(|s| s * 1000);
        wish
    };
    let wishes = vec![(0, by(None)), (1, by(Some(900))), (2, by(Some(500))), (3, by(None))];
    assert_eq!(order_of(Order::Deadline, 10, wishes), [2, 1, 0, 3]);
}

#[test]
fn the_gittins_index_is_the_chance_to_end_over_the_time_it_takes() {
    let gittins = Gittins { quantum: 10, services: vec![40, 10, 20] };
    // All three outlast 0; one ends within 10; they take 10 each: (1/3) / (30/3).
    assert_eq!(gittins.index(0.0), 1.0 / 30.0);
    // 20 and 40 outlast 10; one ends; 10 each.
    assert_eq!(gittins.index(10.0), 1.0 / 20.0);
    // 20 and 40 outlast 15; 20 ends after 5, 40 takes 10.
    assert_eq!(gittins.index(15.0), 1.0 / 15.0);
    // Only 40 outlasts 25, and does not end; nothing outlasts 40.
    assert_eq!((gittins.index(25.0), gittins.index(40.0)), (0.0, 0.0));
}

fn account(text: &str, priority: u32) -> Account {
    Account {
        name: name(text),
        parent: None,
        weight: 1,
        priority,
        quota: BTreeMap::new(),
        limits: Default::default(),
        user_limits: Default::default(),
        users: BTreeMap::new(),
        cells: Vec::new(),
        budget: None,
        reclaim_within_ms: None,
    }
}

fn multifactor(change: impl FnOnce(&mut Multifactor)) -> Order {
    let mut factors = Multifactor { full_size: 8, ..Multifactor::default() };
    change(&mut factors);
    Order::Multifactor(factors)
}

/// Class 0/0.5/1 of low, normal, high; age over seven days; devices over 8.
#[test]
fn multifactor_is_the_sum_of_weights_times_factors() {
    let of = |class: &str, devices| {
        let mut wish = job(nodes(1, devices));
        wish.class = name(class);
        wish
    };
    let day_s = DAY_MS / 1000;
    let order = multifactor(|factors| (factors.class, factors.age, factors.size) = (1000, 700, 80));
    let wishes = vec![
        (0, of("low", 1)),             // 0    + 700 (14 days, capped) + 10 = 710
        (3 * day_s, of("low", 4)),     // 0    + 700 (11 days, capped) + 40 = 740
        (9 * day_s, of("normal", 1)),  // 500  + 500 + 10 = 1010
        (10 * day_s, of("normal", 8)), // 500  + 400 + 80 = 980
        (13 * day_s, of("high", 2)),   // 1000 + 100 + 20 = 1120
    ];
    assert_eq!(order_of(order, 14 * day_s, wishes), [4, 2, 3, 1, 0]);
}

#[test]
fn multifactor_ages_at_most_to_its_cap_and_favours_small_when_asked() {
    let day_s = DAY_MS / 1000;
    let order = || multifactor(|factors| (factors.age, factors.size, factors.favor_small) = (70, 8, true));
    let wishes = || vec![(0, runs(4, 1)), (day_s, runs(1, 1))];
    // 4 devices: 4 of 8; 1 device: 7 of 8. After 2 days: 20 + 4 against 10 + 7.
    assert_eq!(order_of(order(), 2 * day_s, wishes()), [0, 1]);
    // After 8 days both are of full age: 70 + 4 against 70 + 7.
    assert_eq!(order_of(order(), 8 * day_s, wishes()), [1, 0]);
}

#[test]
fn multifactor_counts_the_account_and_its_use() {
    let mut cluster = Cluster::new(policy(multifactor(|factors| (factors.account, factors.fair) = (100, 0))));
    let document = Organisation { accounts: vec![account("a", 1), account("b", 4)], ..Organisation::default() };
    cluster.commit(configure(ConfigChange::Organisation(Arc::new(document))));
    let of = |text: &str| {
        let mut wish = runs(8, 1000);
        wish.account = name(text);
        wish
    };
    cluster.nodes(1, 8);
    // 25 against 100.
    let [of_a, of_b] = ["a", "b"].map(|text| cluster.submit(of(text)));
    assert_eq!(placed(&cluster, cluster.now()), [of_b]);
    cluster.decide();
    let mine = cluster.submit(of("b"));
    // b runs, so by use a has rank 2 of 2 and b 1 of 2: 25 + 200 against 100 + 100.
    let order = multifactor(|factors| (factors.account, factors.fair) = (100, 200));
    cluster.commit(configure(ConfigChange::Policy(policy(order))));
    cluster.run();
    assert!(cluster.start_s(of_a) < cluster.start_s(mine));
    assert_eq!(cluster.start_s(of_b), Some(0));
}

#[test]
fn a_policy_with_a_negative_weight_is_refused_with_its_place() {
    let error = policy(multifactor(|factors| factors.fair = -5)).validate().unwrap_err();
    assert_eq!(error.to_string(), "order.multifactor.fair: a weight of -5; it is between 0 and 1000000000");
    let error = policy(Order::Las(Las { limits: vec![5, 5], promote_after: None })).validate().unwrap_err();
    assert!(error.to_string().starts_with("order.las.limits: [5, 5]; they are 1 to 16 rising"), "{error}");
    let error = policy(Order::Gittins(Gittins::default())).validate().unwrap_err();
    assert_eq!(error.to_string(), "order.gittins.quantum: 0 device-seconds; it is at least 1");
}

fn preemptive(order: Order) -> Policy {
    Policy {
        order,
        admission: Admission::Skip,
        backfill: Backfill { reserve_depth: 0, ..Backfill::default() },
        domains: Domains::Anywhere,
        replan: Replan::Refill { min_run_ms: 0, max_victims_per_cycle: 10 },
        ..Policy::default()
    }
}

/// One 8-device node. The first job reaches 80 device-seconds after 10 s and falls behind the second,
/// which has waited since 1 s; at 11 s that one has ended and the first goes on.
#[test]
fn las_puts_what_has_attained_its_limit_behind_what_has_not() {
    let las = Las { limits: vec![80], promote_after: None };
    let mut cluster = Cluster::new(preemptive(Order::Las(las)));
    cluster.nodes(1, 8);
    cluster.submit_at(0, exact(total(8), 100));
    cluster.submit_at(1, exact(total(8), 5));
    cluster.run();
    let starts: Vec<Vec<u64>> =
        cluster.seen.starts.values().map(|all| all.iter().map(|at| at.0 / 1000).collect()).collect();
    let ends: Vec<u64> = cluster.seen.ends.values().map(|at| at.0 / 1000).collect();
    assert_eq!(
        (starts, ends),
        (vec![vec![0, 15], vec![10]], vec![105, 15]),
        "at its limit it stops, without any event"
    );
}

#[test]
fn las_gives_a_gang_that_has_waited_long_enough_another_turn() {
    let end_of_first = |promote_after| {
        let mut cluster = Cluster::new(preemptive(Order::Las(Las { limits: vec![80], promote_after })));
        cluster.nodes(1, 8);
        cluster.submit_at(0, exact(total(8), 20));
        (0..20).for_each(|n| cluster.submit_at(1 + n, exact(total(8), 9)));
        cluster.run();
        cluster.seen.ends.values().next().unwrap().0 / 1000
    };
    // Behind twenty that take 9 s each; or once it has waited 3 x 10 s, behind those nine that began to wait before it.
    assert_eq!((end_of_first(None), end_of_first(Some(3))), (200, 101));
}

/// One node of eight; the second job asks for all of it. When it comes, the first has attained so many device-seconds, and
/// goes on if its index is better than that of one that has attained nothing.
#[test]
fn gittins_ranks_by_what_a_gang_has_attained_on_all_its_devices() {
    let starts = |services: &[u64], devices, at_s| {
        let gittins = Gittins { quantum: 80, services: services.to_vec() };
        let mut cluster = Cluster::new(preemptive(Order::Gittins(gittins)));
        cluster.nodes(1, 8);
        cluster.submit_at(0, exact(total(devices), 100));
        cluster.submit_at(at_s, exact(total(8), 5));
        cluster.run();
        let of = |all: &Vec<Time>| all.iter().map(|at| at.0 / 1000).collect::<Vec<_>>();
        cluster.seen.starts.values().map(of).collect::<Vec<_>>()
    };
    // New: one of two ends within 80, (1/2) / 80. 160 attained: the other needs 800, 0.
    assert_eq!(starts(&[80, 800], 8, 20), [vec![0, 25], vec![20]]);
    // 60 attained on four devices: one of two ends after 20, (1/2) / ((20 + 80) / 2).
    assert_eq!(starts(&[80, 800], 4, 15), [vec![0], vec![100]]);
    // 120 on eight: 0.
    assert_eq!(starts(&[80, 800], 8, 15), [vec![0, 20], vec![15]]);
    // All need 240. New: nobody ends within 80. 160 attained: it ends after 80.
    assert_eq!(starts(&[240], 8, 20), [vec![0], vec![100]]);
}

#[test]
fn every_order_says_how_it_moves() {
    use Stability::{ByLane, Static, Timed};
    let las = |promote_after| Order::Las(Las { limits: vec![1], promote_after });
    for (order, stability) in [
        (Order::Fifo, Static),
        (Order::Fair, ByLane),
        (multifactor(|_| ()), ByLane),
        (las(None), Static),
        (las(Some(2)), Timed),
        (Order::Gittins(Gittins { quantum: 1, services: vec![1] }), Static),
        (Order::Wfp3, Timed),
        (Order::Unicep, Timed),
        (Order::Qssf, Static),
        (Order::Deadline, Static),
        (Order::Formula("run".into()), Static),
        (Order::Formula("wait".into()), Timed),
    ] {
        assert_eq!(order.stability(), stability, "{order:?}");
    }
}

#[test]
fn run_times_seen_before_order_what_nobody_said_anything_about() {
    let mut learned = policy(Order::Sjf);
    learned.runtime = vec![muster_engine::policy::RuntimeSource::Learned];
    let mut cluster = Cluster::new(learned);
    cluster.nodes(1, 8);
    let mut next = 0;
    let mut named = |text: &str, run_s: u64| {
        next += 1;
        let Command::Submit(inner) = submit(&format!("{text}-{next}"), exact(nodes(1, 8), run_s)) else { panic!() };
        Command::Submit(Box::new(Submit { name: name(text), principal: Principal("alice".into()), ..*inner }))
    };
    for (text, run_s) in [("long", 900), ("long", 1000), ("long", 1100), ("short", 9), ("short", 10), ("short", 11)] {
        cluster.commit(named(text, run_s));
    }
    cluster.decide();
    cluster.run();
    let sketch = cluster.player.state.run_times().get(&Principal("alice".into()), &name("long")).unwrap();
    let median = sketch.quantile_ms(500).unwrap() as f64;
    assert!((median / 1e6 - 1.0).abs() < 0.07 && sketch.count() == 3, "{median}");
    let submitted = |outcome: muster_engine::Outcome| match outcome.response {
        muster_engine::Response::Submitted { job, .. } => GangId::new(job, 0),
        other => panic!("{other:?}"),
    };
    let [new, long, short] =
        [named("new", 1), named("long", 1), named("short", 1)].map(|job| submitted(cluster.commit(job)));
    assert_eq!(placed(&cluster, cluster.now()), [short]);
    cluster.run();
    cluster.decide();
    cluster.run();
    assert!(cluster.start_s(short) < cluster.start_s(long) && cluster.start_s(long) < cluster.start_s(new));
}
