//! Job tables of SenseTime Helios (SC 2021) and of Acme (NSDI 2024), which share their columns.
//! Jobs without GPUs are left out. Times without a zone are taken as they stand.

use super::fields::{devices, duration_ms, id, moment_ms, name, user, whole};
use super::rows::{Row, Rows};
use super::table::{self, Fields, Layout};
use super::{RecordedEnd, TraceJob};
use std::io::BufRead;

const HELIOS: Layout = Layout {
    format: "helios",
    delimiter: b',',
    required: &["job_id", "user", "vc", "gpu_num", "state", "submit_time", "duration"],
    optional: &[],
};

const ACME: Layout = Layout {
    format: "acme",
    delimiter: b',',
    required: &["job_id", "user", "gpu_num", "type", "state", "submit_time", "duration"],
    optional: &[],
};

pub(super) fn parse_helios(input: &mut dyn BufRead) -> Result<Rows, String> {
    table::read(&HELIOS, input, |_, _, fields| row(fields, "vc"))
}

/// The kind of work takes the place of the account.
pub(super) fn parse_acme(input: &mut dyn BufRead) -> Result<Rows, String> {
    table::read(&ACME, input, |_, _, fields| row(fields, "type"))
}

fn row(fields: &Fields, account: &str) -> Result<Row, String> {
    let count = whole("gpu_num", fields.get("gpu_num"))?;
    if count == 0 {
        return Ok(Row::Dropped("no devices"));
    }
    if fields.get("duration").is_empty() {
        return Ok(Row::Dropped("never ran"));
    }
    let run_ms = duration_ms("duration", fields.get("duration"))?;
    if run_ms == 0 {
        return Ok(Row::Dropped("run time 0"));
    }
    Ok(Row::job(TraceJob {
        id: id(fields.get("job_id"))?,
        submit_ms: moment_ms("submit_time", fields.get("submit_time"))?,
        run_ms,
        requested_ms: run_ms,
        devices: devices(count)?,
        user: user(fields.get("user")),
        account: name(fields.get(account)),
        recorded_end: recorded_end(fields.get("state")),
        ..TraceJob::default()
    }))
}

/// Slurm's words for states, as both tables and `sacct` use them.
pub(super) fn recorded_end(state: &str) -> RecordedEnd {
    match state.split_whitespace().next().unwrap_or("") {
        "COMPLETED" => RecordedEnd::Succeeded,
        "CANCELLED" => RecordedEnd::Cancelled,
        "FAILED" | "TIMEOUT" | "NODE_FAIL" | "OUT_OF_MEMORY" | "BOOT_FAIL" | "DEADLINE" => RecordedEnd::Failed,
        _ => RecordedEnd::Unknown,
    }
}
