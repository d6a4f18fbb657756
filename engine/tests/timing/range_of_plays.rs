//! What a play itself brings about is no past, and what is past in it brings about nothing.

use crate::plan_support;

use muster_common::Time;
use muster_engine::command::{Cancel, Command, Principal};
use muster_engine::forecast::{CycleEvery, NoRange, World, start_range};
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

/// It was to end by itself at 100 s, and was cancelled long before.
#[test]
fn the_end_of_an_attempt_that_is_over_is_no_reason_to_decide() {
    for cycle_every in [CycleEvery::Event, CycleEvery::Instant] {
        let mut cluster = Cluster::in_world(Policy::default(), World { cycle_every, ..World::default() });
        cluster.nodes(1, 8);
        let gang = cluster.submit(exact(nodes(1, 8), 100));
        cluster.decide();
        let by = Principal("test".into());
        let cancel = Command::Cancel(Cancel { job: gang.job, ordinal: None, reason: "test".into(), by });
        cluster.player.at(Time(10_000), cancel);
        let mut decided_at = Vec::new();
        while let Some(at) = cluster.player.next_at().filter(|at| *at <= Time(100_000)) {
            let before = cluster.player.stats().cycles;
            cluster.player.step(&mut cluster.seen).unwrap();
            decided_at.extend((cluster.player.stats().cycles > before).then_some(at));
        }
        assert_eq!(decided_at, [Time(10_000)], "{cycle_every:?}");
    }
}
