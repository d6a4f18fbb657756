//! Slurm's backfill (peers: SchedMD/slurm, doc/html/sched_config.shtml): in priority order each job starts now if that
//! delays no higher one, else the resources are booked for all of its run from the earliest start that limits allow;
//! with `bf_job_part_count_reserve` only the first ones are booked. Whole nodes for part-node jobs are not copied.

use crate::plan_support;

use muster_common::{GangId, Time};
use muster_engine::policy::{Backfill, Domains, Order, Policy, RuntimeSource};
use plan_support::windows::limited;
use plan_support::*;

fn backfill(reserve_depth: u32) -> Policy {
    let backfill = Backfill { reserve_depth, ..Backfill::default() };
    Policy { order: Order::Fifo, domains: Domains::Anywhere, backfill, ..Policy::default() }
}

/// So many machines with one GPU each, and jobs of so many machines and seconds in order: their starts.
fn starts<const N: usize>(machines: usize, reserve_depth: u32, jobs: [(u32, u64); N]) -> [Option<u64>; N] {
    let mut cluster = Cluster::new(backfill(reserve_depth));
    cluster.nodes(machines, 1);
    let gangs = jobs.map(|(count, run_s)| cluster.submit(exact(nodes(count, 1), run_s)));
    cluster.decide();
    cluster.run();
    gangs.map(|gang| cluster.start_s(gang))
}

fn booked(cluster: &Cluster, gang: GangId) -> Option<Time> {
    cluster.player.state.reservations().get(&gang).map(|known| known.start)
}

#[test]
fn slurm_a_lower_job_starts_now_only_if_it_delays_no_higher_one() {
    // The third machine is idle until the job of three starts at 100.
    let jobs = [(2, 100), (3, 50), (2, 50), (1, 100), (1, 101)];
    assert_eq!(starts(3, 8, jobs), [0, 100, 150, 0, 150].map(Some));
}

/// A machine is left over beside the first booking; the second one needs it.
#[test]
fn slurm_only_what_is_booked_is_not_delayed() {
    let jobs = [(2, 100), (1, 200), (2, 10), (4, 10), (1, 1000)];
    assert_eq!(starts(4, 8, jobs), [0, 0, 100, 200, 210].map(Some));
    assert_eq!(starts(4, 1, jobs), [0, 0, 100, 1000, 0].map(Some), "bf_job_part_count_reserve=1");
}

/// Starts are planned by time limits, and come sooner when jobs end sooner.
#[test]
fn slurm_a_planned_start_goes_by_limits_and_comes_forward() {
    let mut cluster = Cluster::new(Policy { runtime: vec![RuntimeSource::Limit], ..backfill(8) });
    cluster.nodes(2, 1);
    cluster.submit(limited(job(nodes(2, 1)), 60, 100));
    let second = cluster.submit(limited(job(nodes(2, 1)), 60, 100));
    let third = cluster.submit(limited(job(nodes(2, 1)), 60, 100));
    cluster.decide();
    assert_eq!([second, third].map(|gang| booked(&cluster, gang)), [100_000, 200_000].map(|ms| Some(Time(ms))));
    cluster.run();
    assert_eq!([second, third].map(|gang| cluster.start_s(gang)), [60, 120].map(Some));
}

/// "The backfill scheduler reserves whole nodes for jobs, even if jobs don't require whole nodes": not here.
#[test]
fn slurm_a_part_of_a_node_is_booked_as_a_part() {
    let mut cluster = Cluster::new(backfill(8));
    cluster.nodes(1, 8);
    let [_, second, small] =
        [(6, 100), (4, 100), (2, 1000)].map(|(devices, run_s)| cluster.submit(exact(nodes(1, devices), run_s)));
    cluster.decide();
    assert_eq!(booked(&cluster, second), Some(Time(100_000)));
    assert_eq!(cluster.start_s(small), Some(0), "four of six are enough for the booked one");
}
