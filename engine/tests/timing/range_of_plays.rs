//! What a play of a start range itself brings about is no past.

use crate::plan_support;

use muster_engine::forecast::{NoRange, start_range};
use muster_engine::policy::{Order, Policy};
use plan_support::*;

#[test]
fn ends_that_only_the_play_has_are_no_earlier_jobs() {
    let mut cluster = Cluster::new(Policy { order: Order::Fifo, ..Policy::default() });
    cluster.nodes(1, 8);
    let hour = || {
        let mut wish = job(nodes(1, 8));
        wish.limits.time_ms = Some(3_600_000);
        wish
    };
    for _ in 0..9 {
        cluster.submit(hour());
    }
    cluster.decide();
    let last = cluster.submit(hour());
    assert!(cluster.player.state.run_times().is_empty());
    assert_eq!(start_range(&cluster.player.state, last, cluster.now()), Err(NoRange::NothingLearned));
}
