//! Start estimates as a range, from what was learned of run times.

use crate::plan_support;

use muster_engine::forecast::{NoRange, forecast, start_range};
use muster_engine::policy::{Order, Policy};
use plan_support::*;

/// One node, and a past of twenty jobs that ran from 100 s to 2000 s.
fn with_a_past() -> Cluster {
    let mut cluster = Cluster::new(Policy { order: Order::Fifo, ..Policy::default() });
    cluster.nodes(1, 8);
    for at in 1..=20 {
        cluster.submit(exact(nodes(1, 8), at * 100));
    }
    cluster.decide();
    cluster.run();
    cluster
}

#[test]
fn the_range_holds_the_middle_of_what_was_seen_and_never_moves() {
    let mut cluster = with_a_past();
    let begun = cluster.now();
    // Of the same user and name, and nobody knows for how long.
    cluster.submit(job(nodes(1, 8)));
    cluster.decide();
    let next = cluster.submit(job(nodes(1, 8)));
    let state = &cluster.player.state;
    let range = start_range(state, next, begun).unwrap();
    let s = |at: muster_common::Time| at.since_ms(begun) / 1000;
    let late = range.late.unwrap();
    assert!(
        (100..=700).contains(&s(range.early)) && (1400..=2100).contains(&s(late)),
        "{} to {}",
        s(range.early),
        s(late)
    );
    assert_eq!((range.drawn, range.fixed), (1, 0));
    assert_eq!(start_range(state, next, begun), Ok(range));
    let likely = forecast(state, begun).starts[&next].unwrap();
    assert!(range.early <= likely && likely <= late);
}

#[test]
fn what_has_run_for_long_is_expected_to_run_on_as_those_did_that_ran_longer() {
    let mut cluster = with_a_past();
    let begun = cluster.now();
    cluster.submit(job(nodes(1, 8)));
    cluster.decide();
    let next = cluster.submit(job(nodes(1, 8)));
    let later = begun.plus_ms(1_500_000);
    let range = start_range(&cluster.player.state, next, later).unwrap();
    let (early, late) = (range.early.since_ms(begun) / 1000, range.late.unwrap().since_ms(begun) / 1000);
    assert!(early > 1500 && late <= 2100, "{early} to {late}");
}

#[test]
fn without_a_past_there_is_a_reason_and_no_range() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.nodes(1, 8);
    cluster.submit(exact(nodes(1, 8), 100));
    cluster.decide();
    let next = cluster.submit(exact(nodes(1, 8), 100));
    let none = start_range(&cluster.player.state, next, cluster.now());
    assert_eq!(none, Err(NoRange::NothingLearned));
    assert!(none.unwrap_err().text().starts_with("no range: too few earlier jobs"));
}

#[test]
fn a_start_that_nobody_can_foresee_has_no_range() {
    let mut cluster = with_a_past();
    cluster.submit(job(nodes(1, 8)));
    cluster.decide();
    let giant = cluster.submit(exact(nodes(9, 8), 1));
    let none = start_range(&cluster.player.state, giant, cluster.now());
    assert_eq!(none, Err(NoRange::Unforeseen));
}
