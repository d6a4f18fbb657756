//! What an answer to `why` costs: the blockers of one waiting gang, what would help it, the range of its
//! start, and all that waits in groups.

mod support;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use muster_common::GangId;
use muster_engine::forecast::start_range;
use muster_engine::plan::brief::briefs;
use muster_engine::plan::explain::explain;
use muster_engine::plan::groups::groups;
use muster_engine::remedy::remedies;
use muster_engine::{Memo, State};
use std::hint::black_box;
use std::time::{Duration, Instant};
use support::{Busy, easy, tell};

/// Gangs from all over the queue.
fn asked(state: &State) -> Vec<GangId> {
    let waiting: Vec<GangId> =
        state.jobs().values().filter(|job| !job.unstarted.is_empty()).map(|job| GangId::new(job.id, 0)).collect();
    let step = (waiting.len() / 16).max(1);
    waiting.into_iter().step_by(step).collect()
}

fn why(c: &mut Criterion) {
    let mut group = c.benchmark_group("why");
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    for size in [1_000, 10_000] {
        let mut busy: Option<Busy> = None;
        let mut measure = |what: &str, answer: &dyn Fn(&State, &mut Memo, GangId)| {
            let mut samples = Vec::new();
            group.bench_function(BenchmarkId::new(what, size), |b| {
                let busy = busy.get_or_insert_with(|| Busy::new(size, size, easy(1)));
                let state = &busy.player.state;
                let gangs = asked(state);
                let mut memo = Memo::default();
                let mut next = 0;
                b.iter_custom(|rounds| {
                    let from = samples.len();
                    for _ in 0..rounds {
                        next = (next + 1) % gangs.len();
                        let began = Instant::now();
                        answer(state, &mut memo, gangs[next]);
                        samples.push(began.elapsed());
                    }
                    samples[from..].iter().sum()
                });
            });
            tell(&format!("why/{what}/{size}"), &mut samples);
        };
        measure("blockers", &|state, memo, gang| drop(black_box(explain(state, memo, gang, state.now()))));
        measure("would_help", &|state, _, gang| drop(black_box(remedies(state, gang, state.now()))));
        measure("range", &|state, _, gang| _ = black_box(start_range(state, gang, state.now())));
        measure("all", &|state, memo, _| drop(black_box(groups(state, &briefs(state, memo, state.now())))));
    }
    group.finish();
}

criterion_group!(benches, why);
criterion_main!(benches);
