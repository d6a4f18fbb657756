//! What more bookings at a time do to makespan and waits: the same work, played to its end.

mod support;

use muster_common::job::Scheduling;
use muster_common::{GangId, Time};
use muster_engine::forecast::{Hooks, Player};
use muster_engine::outcome::{Event, Outcome};
use muster_engine::policy::{Order, Policy, RuntimeSource};
use muster_engine::{Cycle, Entry, Memo, State, cycle};
use std::time::{Duration, Instant};
use support::plan_support::submit;
use support::{Dice, cluster, easy, one_job};

const NODES: usize = 1_000;
const JOBS: usize = 12_000;
/// Every so many cycles one is timed.
const TIMED: u64 = 20;

#[derive(Default)]
struct Watch {
    waits_ms: Vec<u64>,
    last_end: Time,
    cycles: u64,
    memo: Memo,
    took: Vec<Duration>,
}

impl Hooks for Watch {
    fn run_ms(&mut self, state: &State, gang: GangId) -> Option<u64> {
        state.scheduling(state.job(gang.job)?).limits.exact_ms
    }

    fn on_entry(&mut self, state: &State, entry: &Entry, outcome: &Outcome) -> Result<(), String> {
        for event in &outcome.events {
            match event {
                Event::GangStarted { gang, .. } => {
                    let submitted = state.job(gang.job).map_or(entry.at, |job| job.submitted_at);
                    self.waits_ms.push(entry.at.since_ms(submitted));
                }
                Event::GangEnded { .. } => self.last_end = entry.at,
                _ => {}
            }
        }
        Ok(())
    }

    fn on_cycle(&mut self, state: &State, now: Time, _cycle: &Cycle) {
        self.cycles += 1;
        if self.cycles.is_multiple_of(TIMED) {
            // Once to catch up, once as a cycle that follows another.
            let _ = cycle(state, &mut self.memo, now);
            let began = Instant::now();
            let _ = cycle(state, &mut self.memo, now);
            self.took.push(began.elapsed());
        }
    }
}

/// Its limit is from one to five times its run.
fn work(dice: &mut Dice) -> Scheduling {
    let mut wish = one_job(dice);
    let run_ms = 60_000 * (1 + dice.below(240));
    wish.limits.exact_ms = Some(run_ms);
    wish.limits.time_ms = Some(run_ms * (100 + dice.below(400)) / 100 + 1000);
    wish
}

fn play(depth: u32, rematch: bool) {
    let mut policy = Policy { order: Order::Fifo, runtime: vec![RuntimeSource::Limit], ..easy(depth) };
    policy.backfill.rematch = rematch;
    let mut player: Player = cluster(NODES, policy);
    let (mut dice, mut watch) = (Dice(11), Watch::default());
    let mut at = 0;
    for number in 0..JOBS {
        // A third more than the cluster can do, so that a queue builds up.
        at += dice.below(5_000);
        player.at(Time(at), submit(&format!("job-{number}"), work(&mut dice)));
    }
    player.run(&mut watch, u64::MAX).unwrap_or_else(|why| panic!("{why:?}"));
    watch.waits_ms.sort_unstable();
    watch.took.sort_unstable();
    let at = |part: usize| watch.waits_ms[(watch.waits_ms.len() - 1) * part / 100] / 1000;
    let took = |part: usize| watch.took[(watch.took.len() - 1) * part / 100];
    let mean = watch.waits_ms.iter().sum::<u64>() / watch.waits_ms.len() as u64 / 1000;
    println!(
        "| {depth} | {rematch} | {} | {mean} | {} | {:?} | {:?} | {} |",
        watch.last_end.0 / 1000,
        at(99),
        took(50),
        took(99),
        watch.cycles
    );
}

/// `cargo bench --bench depth -- 8 32` plays those depths only, each without and with `rematch`.
fn main() {
    let asked: Vec<u32> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let depths = if asked.is_empty() { vec![1, 8, 32, 128] } else { asked };
    println!("{NODES} nodes, {JOBS} jobs");
    println!("| depth | rematch | makespan s | mean wait s | p99 wait s | decision median | p99 | cycles |");
    println!("|---|---|---|---|---|---|---|---|");
    for depth in depths {
        [false, true].into_iter().for_each(|rematch| play(depth, rematch));
    }
}
