//! `wake_at` is "the next moment at which a cycle could decide something without any further entry".
use crate::plan_support;

use muster_common::Time;
use muster_engine::command::{Command, PlanStep};
use muster_engine::policy::{Backfill, Order, Policy};
use muster_engine::{Cycle, Memo, cycle};
use plan_support::*;

fn places(decided: &Cycle) -> usize {
    let steps = decided.commands.iter().flat_map(|command| match command {
        Command::CommitPlan(plan) => plan.steps.as_slice(),
        _ => &[],
    });
    steps.filter(|step| matches!(step, PlanStep::Place(_))).count()
}

fn policy(order: Order) -> Policy {
    Policy { order, backfill: Backfill { reserve_depth: 1, ..Backfill::default() }, ..Policy::default() }
}

/// What is decided later without an entry is decided no later than a wake says.
fn wakes_by(cluster: &Cluster, later: Time) {
    let now = cluster.now();
    let decided = cycle(&cluster.player.state, &mut Memo::default(), now);
    assert!(decided.commands.is_empty(), "{decided:?}");
    let then = cycle(&cluster.player.state, &mut Memo::default(), later);
    assert_eq!(places(&then), 1, "the situation is as meant: {then:?}");
    assert!(decided.wake_at.is_some_and(|at| at <= later), "{:?}", decided.wake_at);
}

/// A holder that outlives what its user expects puts the booked start off, which lets a filler in.
#[test]
fn it_wakes_when_what_runs_is_late() {
    let mut cluster = Cluster::new(policy(Order::Fifo));
    cluster.nodes(1, 4);
    let mut holder = job(total(3));
    holder.limits.expected_ms = Some(100_000);
    cluster.submit(holder);
    cluster.submit(exact(total(4), 10));
    cluster.decide();
    cluster.player.commit(Time(70_000), Command::Nothing, &mut cluster.seen).unwrap();
    cluster.submit(exact(total(1), 40));
    cluster.decide();
    wakes_by(&cluster, Time(100_001));
}
