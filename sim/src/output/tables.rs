//! The tables of a run, each as CSV and as Parquet. Columns have their unit in their name; times are
//! seconds on the trace's clock; what is not known is empty (null in Parquet), never -1.

use super::write_with;
use crate::SimError;
use crate::columnar::{self, Column, flag, optional, real, seconds, text, whole};
use crate::faults::{Faults, Machine};
use crate::meter::{Cell, Meter, Use};
use crate::metrics::groups::{Group, by_account, by_size, by_user};
use crate::metrics::usage::gpu_h;
use crate::metrics::{AttemptResult, JobResult};
use crate::play::Played;
use crate::power::Watts;
use crate::trace::RecordedEnd;
use crate::world::World;
use crate::world::failures::Kind;
use std::path::Path;

/// Writes all of them.
pub(super) fn write<'a>(
    folder: &Path,
    world: &World,
    watts: Option<Watts>,
    played: &'a Played,
) -> Result<(), SimError> {
    let Played { results, attempts, meter, faults, .. } = played;
    both(folder, "jobs", &job_columns(), results.iter())?;
    let of_attempt = |attempt: &'a AttemptResult| AttemptRow { attempt, result: &results[attempt.job], faults };
    both(folder, "attempts", &attempt_columns(), attempts.iter().map(of_attempt))?;
    let parts = attempts.iter().flat_map(|attempt| attempt.nodes.iter().map(move |part| (attempt, part)));
    let of_part = |(attempt, &(node, devices)): (&'a AttemptResult, &(u32, u16))| PartRow {
        attempt,
        result: &results[attempt.job],
        machine: &faults.machines[node as usize],
        devices,
    };
    both(folder, "placements", &part_columns(), parts.map(of_part))?;
    let cells = meter.cells.iter().enumerate();
    both(folder, "samples", &sample_columns(), cells.map(|(at, cell)| SampleRow::new(meter, at, cell, watts)))?;
    let groups = world.nodes.iter().flat_map(|group| (0..group.count).map(|_| group.name.as_str()));
    let nodes = faults.machines.iter().zip(groups);
    let of_node = |(machine, group): (&'a Machine, _)| {
        let (held, asleep_ms) = (meter.held_time(machine.node), played.sleepers.asleep_ms(machine.node));
        NodeRow { machine, group, held, asleep_ms }
    };
    both(folder, "nodes", &node_columns(), nodes.map(of_node))?;
    let grouped = [("size", by_size(results)), ("account", by_account(results)), ("user", by_user(results))];
    let groups = grouped.iter().flat_map(|(by, groups)| groups.iter().map(move |group| (*by, group)));
    both(folder, "groups", &group_columns(), groups)
}

fn both<'a, R>(
    folder: &Path,
    name: &str,
    columns: &[Column<'a, R>],
    rows: impl Iterator<Item = R> + Clone,
) -> Result<(), SimError> {
    let schema = [("muster.schema", format!("muster.sim.{name}/1"))];
    write_with(folder.join(format!("{name}.csv")), |file| columnar::csv(columns, rows.clone(), file))?;
    write_with(folder.join(format!("{name}.parquet")), |file| columnar::parquet(columns, rows, &schema, file))
}

fn job_columns<'a>() -> Vec<Column<'a, &'a JobResult>> {
    vec![
        text("job_id", |row| Some(row.job.id.as_str().into())),
        seconds("submit_s", |row| Some(row.job.submit_ms)),
        optional(seconds("start_s", |row| row.first_start.map(|at| at.0))),
        optional(seconds("estimated_start_s", |row| row.estimate.told().map(|at| at.0))),
        optional(seconds("end_s", |row| row.end.map(|at| at.0))),
        optional(seconds("wait_s", |row| row.wait_ms())),
        seconds("run_s", |row| Some(row.job.run_ms)),
        whole("devices", |row| Some(row.job.devices.into())),
        whole("preemptions", |row| Some(row.preemptions.into())),
        whole("attempts", |row| Some(row.attempts.into())),
        optional(real("bsld", 6, |row| row.bsld())),
        text("state", |row| Some(row.state.word().into())),
        text("account", |row| Some(row.account().into())),
        optional(text("user", |row| row.job.user.as_deref().map(Into::into))),
        whole("share_milli", |row| Some(row.job.share_milli.into())),
        seconds("served_s", |row| Some(row.served_ms)),
        seconds("kept_s", |row| Some(row.used.kept_ms)),
        seconds("lost_s", |row| Some(row.used.lost_ms)),
        seconds("overhead_s", |row| Some(row.used.overhead_ms)),
        seconds("stalled_s", |row| Some(row.used.stalled_ms)),
        optional(text("recorded_end", |row| match row.job.recorded_end {
            RecordedEnd::Unknown => None,
            known => Some(known.word().into()),
        })),
    ]
}

#[derive(Clone, Copy)]
struct AttemptRow<'a> {
    attempt: &'a AttemptResult,
    result: &'a JobResult,
    faults: &'a Faults,
}

fn attempt_columns<'a>() -> Vec<Column<'a, AttemptRow<'a>>> {
    vec![
        text("job_id", |row| Some(row.result.job.id.as_str().into())),
        whole("attempt", |row| Some(row.attempt.number.into())),
        seconds("placed_s", |row| Some(row.attempt.placed.0)),
        optional(seconds("start_s", |row| row.attempt.started.map(|at| at.0))),
        optional(seconds("stop_s", |row| row.attempt.stopping.map(|at| at.0))),
        seconds("end_s", |row| Some(row.attempt.ended.0)),
        text("cause", |row| Some(row.attempt.cause.into())),
        whole("devices", |row| Some(row.attempt.nodes.iter().map(|(_, devices)| u64::from(*devices)).sum())),
        whole("nodes", |row| Some(row.attempt.nodes.len() as u64)),
        optional(text("first_node", |row| {
            let (node, _) = row.attempt.nodes.first()?;
            Some(row.faults.machines[*node as usize].name.as_str().into())
        })),
        seconds("kept_s", |row| Some(row.attempt.kept_ms)),
        seconds("lost_s", |row| Some(row.attempt.lost_ms)),
        seconds("overhead_s", |row| Some(row.attempt.overhead_ms)),
        seconds("stalled_s", |row| Some(row.attempt.stalled_ms)),
        real("slowdown", 4, |row| Some(row.attempt.slowdown)),
    ]
}

/// One line for each node of each attempt: from its placement to its release.
struct PartRow<'a> {
    attempt: &'a AttemptResult,
    result: &'a JobResult,
    machine: &'a Machine,
    devices: u16,
}

fn part_columns<'a>() -> Vec<Column<'a, PartRow<'a>>> {
    vec![
        text("job_id", |row| Some(row.result.job.id.as_str().into())),
        whole("attempt", |row| Some(row.attempt.number.into())),
        text("node", |row| Some(row.machine.name.as_str().into())),
        whole("devices", |row| Some(row.devices.into())),
        seconds("from_s", |row| Some(row.attempt.placed.0)),
        seconds("to_s", |row| Some(row.attempt.ended.0)),
    ]
}

/// Means over one cell of the grid.
struct SampleRow<'a> {
    from_ms: u64,
    to_ms: u64,
    cell: &'a Cell,
    watts: Option<Watts>,
}

impl<'a> SampleRow<'a> {
    fn new(meter: &Meter, at: usize, cell: &'a Cell, watts: Option<Watts>) -> Self {
        let from = meter.begin().plus_ms(at as u64 * meter.cell_ms);
        Self { from_ms: from.0, to_ms: from.plus_ms(meter.cell_ms).min(meter.now()).0, cell, watts }
    }

    fn mean(&self, sum: u128) -> f64 {
        sum as f64 / self.to_ms.saturating_sub(self.from_ms).max(1) as f64
    }

    fn gpus(&self, uses: &[Use]) -> Option<f64> {
        let milli_ms: u128 = uses.iter().map(|of| self.cell.device_time[*of as usize]).sum();
        Some(self.mean(milli_ms) / 1000.0)
    }
}

fn sample_columns<'a>() -> Vec<Column<'a, SampleRow<'a>>> {
    const HELD: [Use; 3] = [Use::Starting, Use::Running, Use::Stopping];
    const FREE: [Use; 3] = [Use::IdleNoDemand, Use::Fragmented, Use::IdleWaiting];
    vec![
        seconds("from_s", |row| Some(row.from_ms)),
        seconds("to_s", |row| Some(row.to_ms)),
        real("gpus_up", 3, |row: &SampleRow| row.gpus(&[HELD, FREE].concat())),
        real("gpus_allocated", 3, |row: &SampleRow| row.gpus(&HELD)),
        real("gpus_running", 3, |row: &SampleRow| row.gpus(&[Use::Running])),
        real("gpus_free", 3, |row: &SampleRow| row.gpus(&FREE)),
        real("gpus_fragmented", 3, |row: &SampleRow| Some(row.mean(row.cell.fragment) / 1000.0)),
        real("gpus_down", 3, |row: &SampleRow| row.gpus(&[Use::Down])),
        real("gpus_asleep", 3, |row: &SampleRow| row.gpus(&[Use::Asleep])),
        real("waiting_gangs", 3, |row: &SampleRow| Some(row.mean(row.cell.waiting_gangs))),
        real("waiting_gpus", 3, |row: &SampleRow| Some(row.mean(row.cell.waiting_devices))),
        real("gpus_switching", 3, |row: &SampleRow| row.gpus(&[Use::Switching])),
        optional(real("power_kw", 3, |row: &SampleRow| {
            Some(row.watts?.kw(row.cell, row.to_ms.saturating_sub(row.from_ms)))
        })),
    ]
}

struct NodeRow<'a> {
    machine: &'a Machine,
    group: &'a str,
    /// Device-milli-milliseconds.
    held: u128,
    asleep_ms: u64,
}

impl NodeRow<'_> {
    fn failures(&self, kind: Kind) -> Option<u64> {
        Some(self.machine.failures[kind as usize])
    }
}

fn node_columns<'a>() -> Vec<Column<'a, NodeRow<'a>>> {
    vec![
        text("node", |row: &NodeRow<'a>| Some(row.machine.name.as_str().into())),
        text("group", |row: &NodeRow<'a>| Some(row.group.into())),
        whole("devices", |row| Some(row.machine.devices.into())),
        real("held_gpu_h", 3, |row| Some(gpu_h(row.held))),
        seconds("down_s", |row| Some(row.machine.down_ms)),
        whole("failures_gpu", |row| row.failures(Kind::Gpu)),
        whole("failures_node", |row| row.failures(Kind::Node)),
        whole("failures_software", |row| row.failures(Kind::Software)),
        whole("failures_leaf", |row| row.failures(Kind::Leaf)),
        flag("lemon", |row| Some(row.machine.lemon)),
        whole("evictions", |row| Some(row.machine.spot.as_ref().map_or(0, |spot| spot.evictions))),
        seconds("away_s", |row| Some(row.machine.spot.as_ref().map_or(0, |spot| spot.away_ms))),
        seconds("asleep_s", |row| Some(row.asleep_ms)),
    ]
}

type GroupRow<'a> = (&'static str, &'a Group);

fn group_columns<'a>() -> Vec<Column<'a, GroupRow<'a>>> {
    const fn s<'a>(name: &'static str, of: fn(&GroupRow<'a>) -> Option<f64>) -> Column<'a, GroupRow<'a>> {
        real(name, 3, of)
    }
    vec![
        text("by", |row: &GroupRow<'a>| Some(row.0.into())),
        text("name", |row: &GroupRow<'a>| Some(row.1.name.as_str().into())),
        whole("jobs", |row| Some(row.1.jobs)),
        whole("succeeded", |row| Some(row.1.succeeded)),
        s("served_gpu_h", |row| Some(row.1.served_gpu_h)),
        whole("preemptions", |row| Some(row.1.preemptions)),
        whole("attempts", |row| Some(row.1.attempts)),
        s("wait_mean_s", |row| Some(row.1.wait_s.mean)),
        s("wait_median_s", |row| Some(row.1.wait_s.median)),
        s("wait_p95_s", |row| Some(row.1.wait_s.p95)),
        s("wait_p99_s", |row| Some(row.1.wait_s.p99)),
        s("wait_max_s", |row| Some(row.1.wait_s.max)),
        s("turnaround_mean_s", |row| Some(row.1.turnaround_s.mean)),
        s("turnaround_p95_s", |row| Some(row.1.turnaround_s.p95)),
        s("bsld_mean", |row| Some(row.1.bsld.mean)),
        s("bsld_median", |row| Some(row.1.bsld.median)),
        s("bsld_p95", |row| Some(row.1.bsld.p95)),
        s("bsld_max", |row| Some(row.1.bsld.max)),
        s("wait_p999_s", |row| Some(row.1.wait_s.p999)),
        s("turnaround_median_s", |row| Some(row.1.turnaround_s.median)),
        s("turnaround_p99_s", |row| Some(row.1.turnaround_s.p99)),
        s("turnaround_p999_s", |row| Some(row.1.turnaround_s.p999)),
        s("turnaround_max_s", |row| Some(row.1.turnaround_s.max)),
        s("bsld_p99", |row| Some(row.1.bsld.p99)),
        s("bsld_p999", |row| Some(row.1.bsld.p999)),
    ]
}
