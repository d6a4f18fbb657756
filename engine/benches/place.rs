//! Placing: ten thousand gangs at once, and one large one.

mod support;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use muster_common::Time;
use muster_engine::{Memo, cycle};
use std::time::Duration;
use support::plan_support::{job, nodes, submit};
use support::{Silent, cluster, easy};

fn place(c: &mut Criterion) {
    let mut group = c.benchmark_group("place");
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    group.bench_function("10000_one_node_gangs", |b| {
        let mut player = cluster(10_000, easy(1));
        for at in 0..10_000 {
            player.commit(Time(0), submit(&format!("job-{at}"), job(nodes(1, 8))), &mut Silent).unwrap();
        }
        let warm = || {
            let mut memo = Memo::default();
            let _ = cycle(&player.state, &mut memo, Time(0));
            memo
        };
        b.iter_batched(warm, |mut memo| cycle(&player.state, &mut memo, Time(0)), BatchSize::PerIteration);
    });
    group.bench_function("one_gang_of_1024_nodes", |b| {
        let mut player = cluster(10_000, easy(1));
        player.commit(Time(0), submit("large", job(nodes(1024, 8))), &mut Silent).unwrap();
        let mut memo = Memo::default();
        let _ = cycle(&player.state, &mut memo, Time(0));
        b.iter(|| cycle(&player.state, &mut memo, Time(0)));
    });
    group.finish();
}

criterion_group!(benches, place);
criterion_main!(benches);
