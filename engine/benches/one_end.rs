//! One gang ends on a full cluster: deciding what starts, by length of the queue and by nodes.

mod support;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use muster_engine::policy::{Order, Policy};
use std::time::Duration;
use support::{Busy, easy, tell};

/// Under `fair`.
const ACCOUNTS: u64 = 2_000;
/// Unless the row is about them.
const NODES: usize = 10_000;

fn one_end(c: &mut Criterion) {
    let mut group = c.benchmark_group("one_end");
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    let easy_of = [1_000, 10_000, 100_000, 1_000_000].map(|waiting| ("easy", NODES, 1, waiting));
    let nodes_of = [1_000, 4_000, 10_000, 20_000].map(|nodes| ("nodes", nodes, 1, 10_000));
    let booked_of = [8, 32, 128].map(|depth| ("booked", NODES, depth, 100_000));
    // Each end changes what an account has used, and with it the ranks of all.
    let fair = ("fair", NODES, 1, 100_000);
    for (name, nodes, depth, waiting) in easy_of.into_iter().chain(nodes_of).chain(booked_of).chain([fair]) {
        // Building such a cluster takes longer than measuring it: only when it is asked for.
        let mut busy: Option<Busy> = None;
        let mut samples = Vec::new();
        let id = match name {
            "nodes" => format!("{nodes}/{waiting}"),
            "booked" => format!("{depth}/{waiting}"),
            _ => format!("{waiting}"),
        };
        group.bench_function(BenchmarkId::new(name, &id), |b| {
            let busy = busy.get_or_insert_with(|| match name {
                "fair" => Busy::of(nodes, waiting, Policy { order: Order::Fair, ..easy(depth) }, ACCOUNTS),
                _ => Busy::new(nodes, waiting, easy(depth)),
            });
            b.iter_custom(|rounds| {
                let from = samples.len();
                samples.extend((0..rounds).map(|_| busy.decide_one()));
                samples[from..].iter().sum()
            });
        });
        tell(&format!("one_end/{name}/{id}"), &mut samples);
        if let Some(busy) = busy {
            println!(
                "{} steps a cycle, {} booked",
                busy.spent / busy.cycles.max(1),
                busy.player.state.reservations().len()
            );
        }
    }
    group.finish();
}

criterion_group!(benches, one_end);
criterion_main!(benches);
