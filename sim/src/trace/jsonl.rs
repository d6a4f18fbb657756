//! Our own format, `muster.trace/1`: a first line with the schema, then one job a line. Times are
//! whole milliseconds.

use super::fields::{devices, id};
use super::input::each_line;
use super::rows::{Row, Rows};
use super::{RecordedEnd, TraceJob, Work};
use muster_common::Name;
use muster_common::job::{GROUPS_MAX, Scheduling};
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, Write};

pub const SCHEMA: &str = "muster.trace/1";
/// Of a user's name, and of a kind of work.
const TEXT_BYTES_MAX: usize = 255;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    schema: String,
    /// Of the machine it was recorded on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    devices: Option<u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    pub job_id: String,
    pub submit_ms: u64,
    pub run_ms: u64,
    /// The run time, unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_ms: Option<u64>,
    pub devices: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_milli: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_milli: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Name>,
    #[serde(default, skip_serializing_if = "is_unknown")]
    pub recorded_end: RecordedEnd,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded_start_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<Work>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<Box<Scheduling>>,
}

fn is_unknown(end: &RecordedEnd) -> bool {
    *end == RecordedEnd::Unknown
}

pub(super) fn parse(input: &mut dyn BufRead) -> Result<Rows, String> {
    let mut rows = Rows::new("muster");
    each_line(input, |number, line| {
        if line == Ok("") {
            return Ok(());
        }
        if number == 1 {
            return line.and_then(header).map(|header| rows.recorded_devices = header.devices);
        }
        rows.add(number, line.and_then(line_of).and_then(row))
    })?;
    Ok(rows)
}

fn header(line: &str) -> Result<Header, String> {
    let header: Header =
        serde_json::from_str(line).map_err(|error| format!("line 1 must be {{\"schema\":\"{SCHEMA}\"}}: {error}"))?;
    if header.schema != SCHEMA {
        return Err(format!("its schema is `{}`; this version reads {SCHEMA}", super::fields::short(&header.schema)));
    }
    Ok(header)
}

fn line_of(text: &str) -> Result<Line, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

pub(super) fn row(line: Line) -> Result<Row, String> {
    if line.run_ms == 0 {
        return Ok(Row::Dropped("run time 0"));
    }
    let start_ms = line.recorded_start_ms.unwrap_or(line.submit_ms);
    if line.submit_ms.max(line.run_ms).max(start_ms) > 1_000_000_000_000_000 {
        return Err("a time is beyond what a trace can hold".into());
    }
    if start_ms < line.submit_ms {
        return Err("recorded_start_ms is before submit_ms".into());
    }
    if line.devices > 0 {
        devices(i64::from(line.devices))?;
    }
    let share_milli = line.share_milli.unwrap_or(1000);
    if !(1..=1000).contains(&share_milli) || (share_milli < 1000 && line.devices != 1) {
        return Err("share_milli is from 1 to 1000, and less than 1000 only of one device".into());
    }
    let texts = [("user", line.user.as_deref()), ("work.kind", line.work.as_ref().map(|work| work.kind.as_str()))];
    for (key, text) in texts {
        if text.is_some_and(|text| text.len() > TEXT_BYTES_MAX) {
            return Err(format!("{key} is longer than {TEXT_BYTES_MAX} bytes"));
        }
    }
    if let Some(known) = &line.scheduling {
        check(known, line.devices)?;
    }
    Ok(Row::job(TraceJob {
        id: id(&line.job_id)?,
        submit_ms: line.submit_ms,
        run_ms: line.run_ms,
        requested_ms: line.requested_ms.unwrap_or(line.run_ms),
        devices: line.devices,
        share_milli,
        cpu_milli: line.cpu_milli,
        memory_bytes: line.memory_bytes,
        models: line.models,
        user: line.user,
        account: line.account,
        recorded_end: line.recorded_end,
        recorded_start_ms: line.recorded_start_ms,
        work: line.work,
        name: line.name,
        scheduling: line.scheduling,
    }))
}

/// One gang, of the devices that its line says.
fn check(known: &Scheduling, devices: u32) -> Result<(), String> {
    if known.groups.is_empty() || known.groups.len() > GROUPS_MAX || known.array.is_some() {
        return Err(format!("scheduling asks for one gang of 1 to {GROUPS_MAX} groups, and no array"));
    }
    if known.devices() != u64::from(devices) {
        return Err(format!("scheduling asks for {} devices, not {devices}", known.devices()));
    }
    Ok(())
}

/// Writes jobs in this format.
///
/// # Errors
/// Those of the output.
pub fn write(output: &mut dyn Write, jobs: &[TraceJob], recorded_devices: Option<u32>) -> io::Result<()> {
    let header = Header { schema: SCHEMA.into(), devices: recorded_devices };
    writeln!(output, "{}", serde_json::to_string(&header)?)?;
    for job in jobs {
        let line = Line {
            job_id: job.id.clone(),
            submit_ms: job.submit_ms,
            run_ms: job.run_ms,
            requested_ms: Some(job.requested_ms).filter(|ms| *ms != job.run_ms),
            devices: job.devices,
            share_milli: Some(job.share_milli).filter(|milli| *milli != 1000),
            cpu_milli: job.cpu_milli,
            memory_bytes: job.memory_bytes,
            models: job.models.clone(),
            user: job.user.clone(),
            account: job.account.clone(),
            recorded_end: job.recorded_end,
            recorded_start_ms: job.recorded_start_ms,
            work: job.work.clone(),
            name: job.name.clone(),
            scheduling: job.scheduling.clone(),
        };
        writeln!(output, "{}", serde_json::to_string(&line)?)?;
    }
    output.flush()
}
