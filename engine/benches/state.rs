//! State and Memo: a view, the first cycle of a new leader, and what a record takes.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};
use muster_common::Time;
use muster_engine::forecast::forecast;
use muster_engine::{Memo, cycle};
use std::time::{Duration, Instant};
use support::{Busy, easy};

fn state(c: &mut Criterion) {
    let mut group = c.benchmark_group("state");
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    let mut busy: Option<Busy> = None;
    group.bench_function("view/100000", |b| {
        let busy = busy.get_or_insert_with(|| Busy::new(10_000, 100_000, easy(1)));
        b.iter(|| busy.player.state.clone());
    });
    group.bench_function("first_cycle/100000", |b| {
        let busy = busy.get_or_insert_with(|| Busy::new(10_000, 100_000, easy(1)));
        b.iter_with_large_drop(|| {
            let mut memo = Memo::default();
            (cycle(&busy.player.state, &mut memo, Time(300_000)), memo)
        });
    });
    group.finish();
    if let Some(busy) = busy {
        play(&busy);
        memory();
    }
}

/// The present played forward, a few times.
fn play(busy: &Busy) {
    for _ in 0..3 {
        let began = Instant::now();
        let played = forecast(&busy.player.state, Time(300_000));
        let known = played.starts.values().filter(|start| start.is_some()).count();
        println!("forecast/100000: {:?}, {known} starts, complete: {}", began.elapsed(), played.complete);
    }
}

/// Resident bytes that a hundred thousand waiting jobs add.
fn memory() {
    let resident = || -> u64 {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0) * 4096
    };
    let mut player = support::cluster(10, easy(1));
    let before = resident();
    let mut dice = support::Dice(3);
    for at in 0..100_000 {
        let command = support::plan_support::submit(&format!("memory-{at}"), support::one_job(&mut dice));
        player.commit(Time(0), command, &mut support::Silent).unwrap();
    }
    println!("state: {} bytes a waiting job", resident().saturating_sub(before) / 100_000);
}

criterion_group!(benches, state);
criterion_main!(benches);
