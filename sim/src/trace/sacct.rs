//! `sacct --parsable` or `--parsable2`: columns by name, `|` between them. Job steps, jobs that
//! never ran or still run, and jobs without GPUs are left out.

use super::fields::{clock_duration_ms, devices, duration_ms, id, moment_ms, name, user, whole};
use super::helios::recorded_end;
use super::rows::{Row, Rows};
use super::table::{self, Fields, Layout};
use super::{RecordedEnd, TraceJob};
use std::io::BufRead;

const LAYOUT: Layout = Layout {
    format: "sacct",
    delimiter: b'|',
    required: &["JobID", "Submit", "State"],
    optional: &[
        "Start",
        "End",
        "ElapsedRaw",
        "Elapsed",
        "AllocTRES",
        "ReqTRES",
        "Timelimit",
        "TimelimitRaw",
        "User",
        "Account",
    ],
};

pub(super) fn parse(input: &mut dyn BufRead) -> Result<Rows, String> {
    table::read(&LAYOUT, input, |rows, line, fields| {
        let job = fields.get("JobID");
        if job.contains('.') {
            return Ok(Row::Dropped("a job's step"));
        }
        if matches!(fields.get("State"), "RUNNING" | "PENDING" | "SUSPENDED" | "REQUEUED") {
            return Ok(Row::Dropped("had not ended"));
        }
        let Some(run_ms) = run_ms(fields)? else { return Ok(Row::Dropped("never ran")) };
        if run_ms == 0 {
            return Ok(Row::Dropped("run time 0"));
        }
        let tres = Some(fields.get("AllocTRES")).filter(|tres| !tres.is_empty()).unwrap_or(fields.get("ReqTRES"));
        let (count, model) = gpus(tres)?;
        if count == 0 {
            return Ok(Row::Dropped("no devices"));
        }
        let requested_ms = match limit_ms(fields)? {
            Some(limit_ms) => limit_ms,
            None => {
                rows.changed(line, "there was no time limit; requested time became the run time");
                run_ms
            }
        };
        Ok(Row::job(TraceJob {
            id: id(job)?,
            submit_ms: moment_ms("Submit", fields.get("Submit"))?,
            run_ms,
            requested_ms,
            devices: devices(count)?,
            models: model.and_then(name).into_iter().collect(),
            user: user(fields.get("User")),
            account: name(fields.get("Account")),
            recorded_end: match recorded_end(fields.get("State")) {
                RecordedEnd::Unknown if fields.get("State") == "PREEMPTED" => RecordedEnd::Cancelled,
                end => end,
            },
            ..TraceJob::default()
        }))
    })
}

/// `None` of a job that never ran.
fn run_ms(fields: &Fields) -> Result<Option<u64>, String> {
    if matches!(fields.get("Start"), "Unknown" | "None") {
        return Ok(None);
    }
    if !fields.get("ElapsedRaw").is_empty() {
        return duration_ms("ElapsedRaw", fields.get("ElapsedRaw")).map(Some);
    }
    if !fields.get("Elapsed").is_empty() {
        return clock_duration_ms("Elapsed", fields.get("Elapsed")).map(Some);
    }
    if !fields.has("Start") || !fields.has("End") {
        return Err("there is neither ElapsedRaw nor Elapsed nor Start and End".into());
    }
    let start_ms = moment_ms("Start", fields.get("Start"))?;
    let end_ms = moment_ms("End", fields.get("End"))?;
    end_ms.checked_sub(start_ms).map(Some).ok_or_else(|| "it ends before it starts".into())
}

fn limit_ms(fields: &Fields) -> Result<Option<u64>, String> {
    let unlimited = |text: &str| matches!(text, "" | "UNLIMITED" | "Partition_Limit");
    let raw = fields.get("TimelimitRaw");
    if !unlimited(raw) {
        let minutes = whole("TimelimitRaw", raw)?;
        return Ok(u64::try_from(minutes).ok().map(|minutes| minutes.saturating_mul(60_000)));
    }
    let limit = fields.get("Timelimit");
    if unlimited(limit) { Ok(None) } else { clock_duration_ms("Timelimit", limit).map(Some) }
}

/// GPUs of `cpu=8,gres/gpu=4,gres/gpu:a100=4`, and their model.
fn gpus(tres: &str) -> Result<(i64, Option<&str>), String> {
    let (mut all, mut typed, mut model) = (None, 0, None);
    for (key, count) in tres.split(',').filter_map(|part| part.split_once('=')) {
        if key == "gres/gpu" {
            all = Some(whole("gres/gpu", count)?);
        } else if let Some(kind) = key.strip_prefix("gres/gpu:") {
            typed += whole("gres/gpu", count)?;
            model = Some(kind);
        }
    }
    Ok((all.unwrap_or(typed), model))
}
