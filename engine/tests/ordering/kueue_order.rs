//! Kueue's order within a cycle: work that fits within nominal quota goes before work that borrows, and inside each
//! of the two the policy's order decides (peers: kubernetes-sigs/kueue, concepts/cluster_queue.md).

use crate::plan_support;
use crate::taking_support;

use muster_common::GangId;
use muster_common::job::Scheduling;
use muster_engine::plan::explain::Reason;
use muster_engine::policy::{Backfill, Order, Policy, Reclaim, Taking};
use muster_engine::{Memo, cycle};
use plan_support::{array, inventory, nodes};
use taking_support::*;

/// Nothing is taken back, so that only the order tells who starts.
fn policy() -> Policy {
    let reclaim = Reclaim { on: false, ..Reclaim::default() };
    Policy { taking: Taking { reclaim, ..Taking::default() }, ..Policy::default() }
}

/// Two accounts that own 16 of four machines' 32 H100.
fn two(policy: Policy) -> Cluster {
    let mut cluster = Cluster::new(policy);
    cluster.racks(2, 2, 8);
    cluster.organise(vec![account("red", None, (16, None, None)), account("blue", None, (16, None, None))]);
    cluster
}

fn of(account: &str, count: u32) -> Scheduling {
    charged(forever(nodes(count, 8)), account)
}

#[test]
fn kueue_work_within_nominal_quota_goes_before_work_that_borrows() {
    let mut cluster = two(policy());
    cluster.submit(of("red", 2));
    // Red's next would borrow; blue's owns what it asks for, and comes later.
    let red = cluster.only_submit(of("red", 2));
    let blue = cluster.only_submit(of("blue", 2));
    cluster.decide();
    assert!(cluster.runs(blue) && !cluster.runs(red));
}

#[test]
fn kueue_a_higher_class_that_borrows_still_goes_after() {
    let mut cluster = two(policy());
    cluster.submit(of("red", 2));
    let red = cluster.only_submit(class(of("red", 1), "high"));
    let blue = cluster.only_submit(class(of("blue", 2), "low"));
    cluster.decide();
    assert!(cluster.runs(blue) && !cluster.runs(red));
}

#[test]
fn kueue_inside_each_of_the_two_the_order_decides() {
    let mut cluster = two(policy());
    cluster.submit(of("red", 2));
    let low = cluster.only_submit(class(of("blue", 1), "low"));
    let high = cluster.only_submit(class(of("blue", 2), "high"));
    cluster.decide();
    assert!(cluster.runs(high) && !cluster.runs(low), "blue owns enough for either");

    let mut cluster = two(policy());
    cluster.submit(of("red", 2));
    let low = cluster.only_submit(class(of("red", 2), "low"));
    let high = cluster.only_submit(class(of("red", 1), "high"));
    cluster.decide();
    assert!(cluster.runs(high) && !cluster.runs(low), "both borrow");
}

#[test]
fn kueue_what_nobody_needs_is_borrowed_in_the_same_cycle() {
    let mut cluster = two(policy());
    let red: Vec<GangId> = (0..4).map(|_| cluster.only_submit(of("red", 1))).collect();
    let blue = cluster.only_submit(of("blue", 1));
    cluster.decide();
    assert_eq!(red.iter().map(|gang| cluster.runs(*gang)).collect::<Vec<_>>(), [true, true, true, false]);
    assert!(cluster.runs(blue));
    assert_eq!(cluster.why(red[3]).blockers[0].reason, Reason::Quota, "nobody has anything left to lend");
}

/// Elements of one array are one place in the order, and not all of them are within what is owned.
#[test]
fn kueue_an_array_is_within_quota_as_far_as_that_goes() {
    let mut cluster = two(policy());
    let red = cluster.only_submit(array(of("red", 1), 4, None));
    let blue = cluster.only_submit(of("blue", 2));
    cluster.decide();
    let runs = |cluster: &Cluster| (0..4).map(|at| cluster.runs(GangId::new(red.job, at))).collect::<Vec<_>>();
    assert_eq!(runs(&cluster), [true, true, false, false]);
    assert!(cluster.runs(blue));
}

#[test]
fn kueue_what_a_cohort_owns_is_borrowed_by_those_in_it() {
    let mut cluster = Cluster::new(policy());
    cluster.racks(2, 2, 8);
    cluster.organise(vec![
        account("org", None, (16, None, None)),
        account("nlp", Some("org"), (16, None, None)),
        account("vision", Some("org"), (0, None, None)),
    ]);
    cluster.submit(of("vision", 2));
    let vision = cluster.only_submit(of("vision", 1));
    let nlp = cluster.only_submit(of("nlp", 2));
    cluster.decide();
    assert!(cluster.runs(nlp) && !cluster.runs(vision));
}

/// With several models one that the account owns is enough.
#[test]
fn kueue_either_model_may_be_within_quota() {
    let mut cluster = Cluster::new(policy());
    cluster.racks(1, 1, 8);
    cluster.node("a", inventory("A100", 8, &["r0"]));
    cluster.organise(vec![account("red", None, (8, None, None)), account("blue", None, (0, None, None))]);
    let either = |account: &str| {
        let mut wish = of(account, 1);
        wish.groups[0].models = vec![plan_support::name("A100"), plan_support::name("H100")];
        wish
    };
    let mut only = of("blue", 1);
    only.groups[0].models = vec![plan_support::name("H100")];
    let blue = cluster.only_submit(only);
    let red = [cluster.only_submit(either("red")), cluster.only_submit(either("red"))];
    cluster.decide();
    assert!(cluster.runs(red[0]), "it owns H100");
    assert_eq!([blue, red[1]].iter().filter(|gang| cluster.runs(**gang)).count(), 1);
}

/// Whole machines are wanted, and a small job is on each: the one start that is told is of work within quota.
#[test]
fn kueue_the_first_booking_is_of_work_within_nominal_quota() {
    let mut cluster = Cluster::new(Policy { order: Order::Fifo, ..policy() });
    cluster.racks(1, 2, 8);
    cluster.organise(vec![account("red", None, (2, None, None)), account("blue", None, (14, None, None))]);
    let limited = |mut wish: Scheduling, run_s: u64| {
        wish.limits.exact_ms = Some(run_s * 1000);
        wish
    };
    for other in ["r0n1", "r0n0"] {
        let mut small = limited(charged(forever(nodes(1, 1)), "red"), 100);
        small.groups[0].exclude = vec![plan_support::name(other)];
        cluster.submit(small);
    }
    let red = cluster.only_submit(limited(of("red", 1), 50));
    cluster.decide();
    let booked = |cluster: &Cluster| cluster.player.state.reservations().keys().copied().collect::<Vec<_>>();
    assert_eq!(booked(&cluster), [red]);
    let blue = cluster.only_submit(limited(of("blue", 1), 50));
    cluster.decide();
    assert_eq!(booked(&cluster), [blue]);
    cluster.pass(100);
    assert!(cluster.runs(blue) && cluster.runs(red), "there is room for both then");
}

#[test]
fn kueue_a_longer_queue_that_borrows_costs_no_more_steps() {
    let each = |waiting: u64, depth: u32| {
        let backfill = Backfill { reserve_depth: depth, ..Backfill::default() };
        let mut cluster = two(Policy { backfill, ..policy() });
        cluster.watch.exact.check = false;
        let limited = |mut wish: Scheduling, run_s: u64| {
            wish.limits.exact_ms = Some(run_s * 1000);
            wish
        };
        (0..4).for_each(|at| _ = cluster.only_submit(limited(of("red", 1), 1000 + at)));
        cluster.decide();
        for at in 0..waiting {
            let account = if at % 2 == 0 { "red" } else { "blue" };
            cluster.only_submit(limited(of(account, 1 + at as u32 % 4), 100_000 + at));
        }
        cluster.decide();
        cluster.player.step(&mut cluster.watch).unwrap();
        let now = cluster.now();
        let again = cycle(&cluster.player.state, &mut cluster.player.memo, now);
        assert_eq!(again, cycle(&cluster.player.state, &mut Memo::default(), now));
        again.spent
    };
    for depth in [0, 1, 8] {
        let (short, long) = (each(100, depth), each(2000, depth));
        assert!(long <= short + 20, "depth {depth}: {short} steps with 100 waiting, {long} with 2000");
    }
}
