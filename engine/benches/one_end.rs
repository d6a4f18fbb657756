//! One gang ends on a full cluster: deciding what starts, by length of the queue.

mod support;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::time::Duration;
use support::{Busy, easy, tell};

fn one_end(c: &mut Criterion) {
    let mut group = c.benchmark_group("one_end");
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    for waiting in [1_000, 10_000, 100_000] {
        // Building such a cluster takes longer than measuring it: only when it is asked for.
        let mut busy: Option<Busy> = None;
        let mut samples = Vec::new();
        group.bench_function(BenchmarkId::new("easy", waiting), |b| {
            let busy = busy.get_or_insert_with(|| Busy::new(10_000, waiting, easy(1)));
            b.iter_custom(|rounds| {
                let from = samples.len();
                samples.extend((0..rounds).map(|_| busy.decide_one()));
                samples[from..].iter().sum()
            });
        });
        tell(&format!("one_end/easy/{waiting}"), &mut samples);
        if let Some(busy) = busy {
            println!("{} steps a cycle", busy.spent / busy.cycles.max(1));
        }
    }
    group.finish();
}

criterion_group!(benches, one_end);
criterion_main!(benches);
