//! Placing: ten thousand gangs at once, and one large one.

mod support;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use muster_common::Time;
use muster_engine::command::{Command, PlanStep};
use muster_engine::policy::{Policy, Preempt, Taking};
use muster_engine::{Memo, cycle};
use std::time::Duration;
use support::plan_support::{job, name, nodes, submit};
use support::{Busy, Silent, cluster, easy};

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
    group.bench_function("preempt_for_64_nodes", |b| {
        let taking = Taking { preempt: Some(Preempt::default()), ..Taking::default() };
        let mut busy = Busy::new(10_000, 0, Policy { taking, ..easy(1) });
        let mut wish = job(nodes(64, 8));
        wish.class = name("high");
        // Of the other models some are still free.
        wish.groups[0].models = vec![name("H100")];
        busy.submit(wish);
        let mut memo = Memo::default();
        let decided = cycle(&busy.player.state, &mut memo, busy.now);
        if let Some(Command::CommitPlan(plan)) = decided.commands.first() {
            let stops = plan.steps.iter().filter(|step| matches!(step, PlanStep::Stop { .. })).count();
            println!("{} steps, {stops} stopped", decided.spent);
        }
        b.iter(|| cycle(&busy.player.state, &mut memo, busy.now));
    });
    group.finish();
}

criterion_group!(benches, place);
criterion_main!(benches);
