//! Microsoft Philly (ATC 2019): its own log, a JSON list of jobs with their attempts, and the table
//! that others made of it. Times are wall clocks without a zone, taken as they stand.

use super::fields::{devices, duration_ms, id, moment_ms, name, user, whole};
use super::rows::{Row, Rows};
use super::table::{self, Layout};
use super::{RECORD_BYTES_MAX, RecordedEnd, TraceJob};
use serde::Deserialize;
use serde::de::{DeserializeSeed, SeqAccess, Visitor};
use std::cell::Cell;
use std::fmt;
use std::io::{self, BufRead, Read};

const LAYOUT: Layout = Layout {
    format: "philly-table",
    delimiter: b',',
    required: &["timestamp", "duration", "num_gpus", "cluster"],
    optional: &[],
};

/// `timestamp, duration, num_gpus, gpu_time, cluster`. There are no ids: the line is one.
pub(super) fn parse_table(input: &mut dyn BufRead) -> Result<Rows, String> {
    table::read(&LAYOUT, input, |_, line, fields| {
        let submit_ms = moment_ms("timestamp", fields.get("timestamp"))?;
        let run_ms = duration_ms("duration", fields.get("duration"))?;
        let count = whole("num_gpus", fields.get("num_gpus"))?;
        if run_ms == 0 {
            return Ok(Row::Dropped("run time 0"));
        }
        if count == 0 {
            return Ok(Row::Dropped("no devices"));
        }
        Ok(Row::job(TraceJob {
            id: line.to_string(),
            submit_ms,
            run_ms,
            requested_ms: run_ms,
            devices: devices(count)?,
            account: name(fields.get("cluster")),
            ..TraceJob::default()
        }))
    })
}

#[derive(Deserialize)]
struct Job {
    jobid: String,
    status: String,
    vc: String,
    submitted_time: Option<String>,
    user: Option<String>,
    #[serde(default)]
    attempts: Vec<Attempt>,
}

#[derive(Deserialize)]
struct Attempt {
    start_time: Option<String>,
    end_time: Option<String>,
    #[serde(default)]
    detail: Vec<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    #[serde(default)]
    gpus: Vec<serde_json::Value>,
}

/// A job's run time is the sum over its attempts, its devices those of the largest one. What is
/// named as a line is the number of the job in the list.
pub(super) fn parse_log(input: &mut dyn BufRead) -> Result<Rows, String> {
    let mut rows = Rows::new("philly-log");
    let left = Cell::new(RECORD_BYTES_MAX);
    let mut reader = serde_json::Deserializer::from_reader(OfOneJob { read: input, left: &left });
    let jobs = Jobs { rows: &mut rows, left: &left };
    jobs.deserialize(&mut reader).map_err(|error| format!("no list of jobs: {error}"))?;
    Ok(rows)
}

/// Refuses a job that is too long, so that none has to be held. It is read byte by byte.
struct OfOneJob<'a> {
    read: &'a mut dyn BufRead,
    left: &'a Cell<usize>,
}

impl Read for OfOneJob<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.read.read(buffer)?;
        let Some(left) = self.left.get().checked_sub(read) else {
            let why = format!("a job is longer than {RECORD_BYTES_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        };
        self.left.set(left);
        Ok(read)
    }
}

struct Jobs<'a> {
    rows: &'a mut Rows,
    left: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Jobs<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Jobs<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list of jobs")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut jobs: A) -> Result<(), A::Error> {
        let mut number = 0;
        while let Some(job) = jobs.next_element::<serde_json::Value>()? {
            number += 1;
            self.left.set(RECORD_BYTES_MAX);
            let job = serde_json::from_value::<Job>(job).map_err(|error| error.to_string());
            self.rows.add(number, job.and_then(|job| row(&job))).map_err(serde::de::Error::custom)?;
        }
        Ok(())
    }
}

fn row(job: &Job) -> Result<Row, String> {
    let Some(submitted) = job.submitted_time.as_deref().filter(|time| *time != "None") else {
        return Ok(Row::Dropped("no submit time"));
    };
    let mut run_ms = 0;
    for attempt in &job.attempts {
        let known = |time: &Option<String>| time.clone().filter(|time| time != "None" && !time.is_empty());
        let (Some(start), Some(end)) = (known(&attempt.start_time), known(&attempt.end_time)) else { continue };
        let (start_ms, end_ms) = (moment_ms("start_time", &start)?, moment_ms("end_time", &end)?);
        run_ms += end_ms.checked_sub(start_ms).ok_or("an attempt ends before it starts")?;
    }
    let devices_of = |attempt: &Attempt| attempt.detail.iter().map(|detail| detail.gpus.len()).sum::<usize>();
    let count = job.attempts.iter().map(devices_of).max().unwrap_or(0);
    if run_ms == 0 {
        return Ok(Row::Dropped("never ran"));
    }
    if count == 0 {
        return Ok(Row::Dropped("no devices"));
    }
    Ok(Row::job(TraceJob {
        id: id(&job.jobid)?,
        submit_ms: moment_ms("submitted_time", submitted)?,
        run_ms,
        requested_ms: run_ms,
        devices: devices(count as i64)?,
        user: job.user.as_deref().and_then(user),
        account: name(&job.vc),
        recorded_end: match job.status.as_str() {
            "Pass" => RecordedEnd::Succeeded,
            "Killed" => RecordedEnd::Cancelled,
            "Failed" => RecordedEnd::Failed,
            _ => RecordedEnd::Unknown,
        },
        ..TraceJob::default()
    }))
}
