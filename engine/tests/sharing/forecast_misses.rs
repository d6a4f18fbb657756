//! An unhurried play misses no moment that the engine itself names, other
//! than the steps of the order.

use crate::plan_support::{exact, name, nodes};
use crate::taking_support::*;
use muster_common::time::{DAY_MS, HOUR_MS, MINUTE_MS};
use muster_engine::forecast::forecast;
use muster_engine::policy::{Admission, Order, Policy, Preempt};

const DAY_S: u64 = DAY_MS / 1000;

fn policy(order: Order, min_run_ms: u64) -> Policy {
    let preempt = Preempt { min_run_ms, settle_ms: 0, ..Preempt::default() };
    Policy { order, admission: Admission::HeadOfLine { sticky: false }, ..with(preempt) }
}

/// The victim may be stopped after 70 hours; the play looks at 64 and then at 128 hours.
#[test]
fn a_forecast_sees_a_preemption_beside_an_order_that_moves() {
    let mut cluster = Cluster::new(policy(Order::Fair, 70 * HOUR_MS));
    cluster.racks(1, 2, 4);
    let low = cluster.submit(class(exact(nodes(1, 4), 365 * DAY_S), "low"));
    assert!(cluster.runs(low));
    let high = cluster.submit(class(exact(nodes(2, 4), 3600), "high"));
    assert!(!cluster.runs(high));
    let foreseen = forecast(&cluster.player.state, cluster.now()).start(high).expect("it starts");
    let in_h = foreseen.at.since_ms(cluster.now()).div_ceil(HOUR_MS);
    cluster.pass(70 * 3600 + 60);
    assert!(cluster.runs(high), "the situation is as meant");
    assert!(in_h <= 71, "foreseen in {in_h} h, it starts in 70");
}

/// Ends at which nothing is decided are no quiet: something happens each minute. Fifo: the order never wakes.
#[test]
fn ends_that_decide_nothing_are_not_counted_as_quiet() {
    let mut cluster = Cluster::new(policy(Order::Fifo, 63 * MINUTE_MS));
    cluster.racks(1, 1, 62);
    cluster.node("a", crate::plan_support::inventory("A100", 4, &["r0"]));
    let of = |mut job: muster_common::job::Scheduling, model: &str| {
        job.groups[0].models = vec![name(model)];
        job
    };
    let low = cluster.submit(of(class(exact(nodes(1, 4), 365 * DAY_S), "low"), "A100"));
    assert!(cluster.runs(low));
    for minute in 1..=62 {
        let short = cluster.submit(of(class(exact(nodes(1, 1), 60 * minute), "high"), "H100"));
        assert!(cluster.runs(short));
    }
    let high = cluster.submit(of(class(exact(nodes(1, 4), 3600), "high"), "A100"));
    let foreseen = forecast(&cluster.player.state, cluster.now()).start(high).expect("it starts");
    let in_min = foreseen.at.since_ms(cluster.now()).div_ceil(MINUTE_MS);
    cluster.pass(64 * 60);
    assert!(cluster.runs(high), "the situation is as meant");
    assert!(in_min <= 64, "foreseen in {in_min} min, it starts in 63");
}
