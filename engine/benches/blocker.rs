//! A gang that holds all of 1,000 nodes ends with 20,000 gangs waiting: one cycle considers each of them.

mod support;

use muster_common::Time;
use muster_common::time::HOUR_MS;
use muster_engine::command::{Command, PlanStep};
use muster_engine::{Cycle, Memo, cycle};
use std::time::{Duration, Instant};
use support::plan_support::{job, nodes};
use support::{Busy, cluster, easy};

const NODES: usize = 1_000;
const WAITING: u64 = 20_000;
/// Nodes of a gang, one kind as often as another.
const SIZES: [u32; 5] = [1, 2, 4, 8, 32];
const ROUNDS: usize = 5;

fn steps(decided: &Cycle, is: impl Fn(&PlanStep) -> bool) -> usize {
    let plans = decided.commands.iter().filter_map(|command| match command {
        Command::CommitPlan(plan) => Some(&plan.steps),
        _ => None,
    });
    plans.flatten().filter(|step| is(step)).count()
}

fn play(depth: u32) {
    let mut busy = Busy::on(cluster(NODES, easy(depth)));
    let submit = |busy: &mut Busy, nodes_wanted: u32, hours: u64| {
        let mut wish = job(nodes(nodes_wanted, 8));
        wish.limits.time_ms = Some(hours * HOUR_MS);
        busy.submit(wish);
    };
    submit(&mut busy, NODES as u32, 24);
    busy.decide();
    busy.now = Time(300_000);
    for at in 0..WAITING {
        submit(&mut busy, SIZES[at as usize % SIZES.len()], 1 + at % 12);
    }
    busy.decide();
    busy.end_one();
    let (state, kept) = (&busy.player.state, &busy.player.memo);
    let timed = |fresh: bool| -> (Duration, Cycle) {
        let mut memo = if fresh { Memo::default() } else { kept.clone() };
        let began = Instant::now();
        let decided = cycle(state, &mut memo, busy.now);
        (began.elapsed(), decided)
    };
    let median = |fresh: bool| {
        let mut rounds: Vec<(Duration, Cycle)> = (0..ROUNDS).map(|_| timed(fresh)).collect();
        rounds.sort_by_key(|(took, _)| *took);
        rounds.swap_remove(ROUNDS / 2)
    };
    let (took, decided) = median(false);
    let (first, _) = median(true);
    let starts = steps(&decided, |step| matches!(step, PlanStep::Place(_)));
    let booked = steps(&decided, |step| matches!(step, PlanStep::Reserve(_)));
    println!(
        "| {depth} | {starts} | {booked} | {} | {} | {took:?} | {:?} | {first:?} |",
        decided.truncated,
        decided.spent,
        took / starts.max(1) as u32
    );
}

fn main() {
    println!("{NODES} nodes, {WAITING} waiting gangs of {SIZES:?} nodes");
    println!("| bookings | starts | booked | not considered | steps | the cycle | for each start | by a new leader |");
    println!("|---|---|---|---|---|---|---|---|");
    [1, 32, 128].into_iter().for_each(play);
}
