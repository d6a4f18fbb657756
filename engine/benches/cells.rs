//! What shaped quota costs: the same work where twenty of forty accounts own cells of three levels, and where all own
//! numbers only. Half of the work may not be stopped.

mod support;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use muster_engine::Memo;
use muster_engine::command::ConfigChange;
use muster_engine::cycle;
use muster_engine::forecast::Player;
use muster_engine::organisation::{Account, CellQuota, Organisation, Quota};
use std::sync::Arc;
use std::time::Duration;
use support::plan_support::{configure, job, name, nodes};
use support::{Busy, Silent, cluster, easy, one_job, tell};

const NODES: usize = 10_000;
const WAITING: usize = 10_000;

/// An account's part of each model; `cells`: with a shape for most of its H100.
fn account(at: u32, cells: bool) -> Account {
    let quota = |model: &str, nominal| (name(model), Quota { nominal, borrow_limit: None, lend_limit: None });
    let of = |level: &str, nodes, number| CellQuota { model: name("H100"), level: name(level), nodes, gpus: 8, number };
    let owns = cells && at < 20;
    let wide = if at < 5 { vec![of("block", 32, 1)] } else { Vec::new() };
    Account {
        name: name(&format!("team-{at}")),
        parent: None,
        weight: 1,
        priority: 0,
        quota: [quota("H100", 1200), quota("A100", 400), quota("H200", 400)].into(),
        limits: Default::default(),
        user_limits: Default::default(),
        users: Default::default(),
        cells: if owns { [wide, vec![of("leaf", 16, 3), of("node", 1, 32)]].concat() } else { Vec::new() },
        budget: None,
        reclaim_within_ms: owns.then_some(300_000),
    }
}

fn organised(cells: bool) -> Player {
    let mut player = cluster(NODES, easy(1));
    let accounts = (0..40).map(|at| account(at, cells)).collect();
    let document = Arc::new(Organisation { accounts, ..Organisation::default() });
    let outcome = player.commit(player.state.now(), configure(ConfigChange::Organisation(document)), &mut Silent);
    assert_eq!(outcome.unwrap().response, muster_engine::Response::Done);
    player
}

/// Full, with a queue.
fn busy(cells: bool) -> Busy {
    let mut busy = Busy::on(organised(cells));
    let mut dice = support::Dice(11);
    let mut asked = 0;
    while asked < NODES as u64 * 8 * 6 / 5 {
        let mut wish = one_job(&mut dice);
        wish.preemptible = dice.below(2) == 0;
        asked += wish.devices();
        busy.submit(wish);
    }
    busy.decide();
    for _ in 0..WAITING {
        let mut wish = one_job(&mut dice);
        wish.preemptible = dice.below(2) == 0;
        busy.submit(wish);
    }
    busy.decide();
    busy
}

fn cells(c: &mut Criterion) {
    let mut group = c.benchmark_group("cells");
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    for (what, owned) in [("numbers", false), ("cells", true)] {
        let mut player = None;
        group.bench_function(format!("place_1000_that_stay/{what}"), |b| {
            let player = player.get_or_insert_with(|| {
                let mut busy = Busy::on(organised(owned));
                for at in 0..1000 {
                    let mut wish = job(nodes(1, 8));
                    (wish.account, wish.preemptible) = (name(&format!("team-{}", 20 + at % 20)), false);
                    busy.submit(wish);
                }
                busy.player
            });
            b.iter_batched(
                Memo::default,
                |mut memo| cycle(&player.state, &mut memo, player.state.now()),
                BatchSize::PerIteration,
            );
        });
        let mut full: Option<Busy> = None;
        let mut samples = Vec::new();
        group.bench_function(format!("one_end/{what}"), |b| {
            let busy = full.get_or_insert_with(|| busy(owned));
            b.iter_custom(|rounds| {
                let from = samples.len();
                samples.extend((0..rounds).map(|_| busy.decide_one()));
                samples[from..].iter().sum()
            });
        });
        tell(&format!("cells/one_end/{what}"), &mut samples);
    }
    group.finish();
}

criterion_group!(benches, cells);
criterion_main!(benches);
