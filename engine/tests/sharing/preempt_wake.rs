//! The leader wakes when the hour's budget of victims is open again.

use crate::plan_support::nodes;
use crate::taking_support::*;
use muster_common::Time;
use muster_common::time::HOUR_MS;
use muster_engine::policy::Preempt;
use muster_engine::{Memo, cycle};

#[test]
fn it_wakes_when_the_hour_of_the_first_victim_is_over() {
    let mut cluster = Cluster::new(with(Preempt { per_hour: 1, settle_ms: 0, ..Preempt::default() }));
    cluster.racks(1, 2, 8);
    for _ in 0..2 {
        cluster.submit(class(forever(nodes(1, 8)), "low"));
    }
    cluster.submit(class(forever(nodes(1, 8)), "high"));
    let second = cluster.submit(class(forever(nodes(1, 8)), "high"));
    assert!(cluster.stopped().len() == 1 && !cluster.runs(second));
    let at = cluster.watch.stops[0].3;
    let decided = cycle(&cluster.player.state, &mut Memo::default(), cluster.now());
    assert!(decided.wake_at.is_some_and(|wake| wake <= Time(at.0 + HOUR_MS)), "{:?}", decided.wake_at);
    // `pass` steps by `wake_at` alone and decides at the end; nothing is submitted in between.
    let until = Time(at.0 + HOUR_MS + 60_000);
    while cluster.player.next_at().is_some_and(|at| at <= until) {
        cluster.player.step(&mut cluster.watch).unwrap();
    }
    assert!(cluster.runs(second));
}
