//! The tables of a run. Columns have their unit in their name; times are seconds on the trace's
//! clock; what is not known is empty, never -1.

use crate::faults::Faults;
use crate::meter::{Cell, Meter, Use};
use crate::metrics::groups::{Group, by_account, by_size, by_user};
use crate::metrics::usage::gpu_h;
use crate::metrics::{AttemptResult, JobResult};
use crate::world::World;
use crate::world::failures::Kind;
use muster_common::Time;

fn table(columns: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(columns).expect("memory takes every record");
    for row in rows {
        writer.write_record(row).expect("memory takes every record");
    }
    writer.into_inner().expect("memory takes every record")
}

/// Whole seconds without a fraction, others with three digits.
fn seconds(ms: u64) -> String {
    match ms % 1000 {
        0 => (ms / 1000).to_string(),
        fraction => format!("{}.{fraction:03}", ms / 1000),
    }
}

fn moment(time: Option<Time>) -> String {
    time.map_or_else(String::new, |time| seconds(time.0))
}

const JOBS: [&str; 20] = [
    "job_id",
    "submit_s",
    "start_s",
    "end_s",
    "wait_s",
    "run_s",
    "devices",
    "preemptions",
    "attempts",
    "bsld",
    "state",
    "account",
    "user",
    "share_milli",
    "served_s",
    "kept_s",
    "lost_s",
    "overhead_s",
    "stalled_s",
    "recorded_end",
];

pub(super) fn jobs(results: &[JobResult]) -> Vec<u8> {
    let row = |result: &JobResult| {
        vec![
            result.job.id.clone(),
            seconds(result.job.submit_ms),
            moment(result.first_start),
            moment(result.end),
            result.wait_ms().map_or_else(String::new, seconds),
            seconds(result.job.run_ms),
            result.job.devices.to_string(),
            result.preemptions.to_string(),
            result.attempts.to_string(),
            result.bsld().map_or_else(String::new, |bsld| format!("{bsld:.6}")),
            result.state.word().into(),
            result.account(),
            result.job.user.clone().unwrap_or_default(),
            result.job.share_milli.to_string(),
            seconds(result.served_ms),
            seconds(result.used.kept_ms),
            seconds(result.used.lost_ms),
            seconds(result.used.overhead_ms),
            seconds(result.used.stalled_ms),
            result.job.recorded_end.word().into(),
        ]
    };
    table(&JOBS, results.iter().map(row))
}

const ATTEMPTS: [&str; 15] = [
    "job_id",
    "attempt",
    "placed_s",
    "start_s",
    "stop_s",
    "end_s",
    "cause",
    "devices",
    "nodes",
    "first_node",
    "kept_s",
    "lost_s",
    "overhead_s",
    "stalled_s",
    "slowdown",
];

pub(super) fn attempts(attempts: &[AttemptResult], results: &[JobResult], faults: &Faults) -> Vec<u8> {
    let row = |attempt: &AttemptResult| {
        let first = attempt.nodes.first().map(|(node, _)| faults.machines[*node as usize].name.clone());
        vec![
            results[attempt.job].job.id.clone(),
            attempt.number.to_string(),
            seconds(attempt.placed.0),
            moment(attempt.started),
            moment(attempt.stopping),
            seconds(attempt.ended.0),
            attempt.cause.into(),
            attempt.nodes.iter().map(|(_, devices)| u32::from(*devices)).sum::<u32>().to_string(),
            attempt.nodes.len().to_string(),
            first.unwrap_or_default(),
            seconds(attempt.kept_ms),
            seconds(attempt.lost_ms),
            seconds(attempt.overhead_ms),
            seconds(attempt.stalled_ms),
            format!("{:.4}", attempt.slowdown),
        ]
    };
    table(&ATTEMPTS, attempts.iter().map(row))
}

const PLACEMENTS: [&str; 6] = ["job_id", "attempt", "node", "devices", "from_s", "to_s"];

/// One line for each node of each attempt: from its placement to its release.
pub(super) fn placements(attempts: &[AttemptResult], results: &[JobResult], faults: &Faults) -> Vec<u8> {
    let rows = attempts.iter().flat_map(|attempt| {
        attempt.nodes.iter().map(|(node, devices)| {
            vec![
                results[attempt.job].job.id.clone(),
                attempt.number.to_string(),
                faults.machines[*node as usize].name.clone(),
                devices.to_string(),
                seconds(attempt.placed.0),
                seconds(attempt.ended.0),
            ]
        })
    });
    table(&PLACEMENTS, rows)
}

const SAMPLES: [&str; 10] = [
    "from_s",
    "to_s",
    "gpus_up",
    "gpus_allocated",
    "gpus_running",
    "gpus_free",
    "gpus_fragmented",
    "gpus_down",
    "waiting_gangs",
    "waiting_gpus",
];

/// Means over each cell of the grid.
pub(super) fn samples(meter: &Meter) -> Vec<u8> {
    let row = |(at, cell): (usize, &Cell)| {
        let from = meter.begin().plus_ms(at as u64 * meter.cell_ms);
        let to = from.plus_ms(meter.cell_ms).min(meter.now());
        let width = to.since_ms(from).max(1) as f64;
        let gpus = |milli_ms: u128| format!("{:.3}", milli_ms as f64 / 1000.0 / width);
        let of = |which: Use| cell.device_time[which as usize];
        let all: u128 = cell.device_time.iter().sum();
        vec![
            seconds(from.0),
            seconds(to.0),
            gpus(all - of(Use::Down)),
            gpus(of(Use::Starting) + of(Use::Running) + of(Use::Stopping)),
            gpus(of(Use::Running)),
            gpus(of(Use::IdleNoDemand) + of(Use::Fragmented) + of(Use::IdleWaiting)),
            gpus(cell.fragment),
            gpus(of(Use::Down)),
            format!("{:.3}", cell.waiting_gangs as f64 / width),
            format!("{:.3}", cell.waiting_devices as f64 / width),
        ]
    };
    table(&SAMPLES, meter.cells.iter().enumerate().map(row))
}

const NODES: [&str; 10] = [
    "node",
    "group",
    "devices",
    "held_gpu_h",
    "down_s",
    "failures_gpu",
    "failures_node",
    "failures_software",
    "failures_leaf",
    "lemon",
];

pub(super) fn nodes(world: &World, faults: &Faults, meter: &Meter) -> Vec<u8> {
    let groups = world.nodes.iter().flat_map(|group| (0..group.count).map(move |_| group.name.to_string()));
    let row = |(machine, group): (&crate::faults::Machine, String)| {
        let failures = |kind: Kind| machine.failures[kind as usize].to_string();
        vec![
            machine.name.clone(),
            group,
            machine.devices.to_string(),
            format!("{:.3}", gpu_h(meter.held_time(machine.node))),
            seconds(machine.down_ms),
            failures(Kind::Gpu),
            failures(Kind::Node),
            failures(Kind::Software),
            failures(Kind::Leaf),
            machine.lemon.to_string(),
        ]
    };
    table(&NODES, faults.machines.iter().zip(groups).map(row))
}

const GROUPS: [&str; 18] = [
    "by",
    "name",
    "jobs",
    "succeeded",
    "served_gpu_h",
    "preemptions",
    "attempts",
    "wait_mean_s",
    "wait_median_s",
    "wait_p95_s",
    "wait_p99_s",
    "wait_max_s",
    "turnaround_mean_s",
    "turnaround_p95_s",
    "bsld_mean",
    "bsld_median",
    "bsld_p95",
    "bsld_max",
];

pub(super) fn groups(results: &[JobResult]) -> Vec<u8> {
    let row = |by: &'static str, group: &Group| {
        let s = |value: f64| format!("{value:.3}");
        vec![
            by.to_owned(),
            group.name.clone(),
            group.jobs.to_string(),
            group.succeeded.to_string(),
            s(group.served_gpu_h),
            group.preemptions.to_string(),
            group.attempts.to_string(),
            s(group.wait_s.mean),
            s(group.wait_s.median),
            s(group.wait_s.p95),
            s(group.wait_s.p99),
            s(group.wait_s.max),
            s(group.turnaround_s.mean),
            s(group.turnaround_s.p95),
            s(group.bsld.mean),
            s(group.bsld.median),
            s(group.bsld.p95),
            s(group.bsld.max),
        ]
    };
    let all = [("size", by_size(results)), ("account", by_account(results)), ("user", by_user(results))];
    table(&GROUPS, all.iter().flat_map(|(by, groups)| groups.iter().map(|group| row(by, group))))
}
