//! Recorded work: readers of trace formats, each with a data card that says what was read, what
//! was left out and why.

mod rows;
mod swf;
mod tiresias;

use crate::SimError;
use flate2::read::MultiGzDecoder;
use rows::Rows;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Largest trace, unpacked.
pub const TRACE_BYTES_MAX: u64 = 1 << 30;
/// Bad rows named one by one; all are counted.
pub const BAD_ROWS_NAMED_MAX: usize = 10;

/// One job of a trace that takes part. Times are whole milliseconds on the trace's own clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceJob {
    /// As the trace names it.
    pub id: String,
    pub submit_ms: u64,
    /// How long it ran.
    pub run_ms: u64,
    /// How long its user said it would run.
    pub requested_ms: u64,
    pub devices: u32,
}

/// A trace, its jobs by submit time and then by their order in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    pub jobs: Vec<TraceJob>,
    pub card: Card,
}

/// What is to happen with a row that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadRows {
    /// Nothing is simulated until they are corrected.
    #[default]
    Refuse,
    /// They are counted, named in the data card and left out.
    Skip,
}

/// What was read: printed before every run and kept in its manifest.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Card {
    pub format: &'static str,
    /// Rows with content, headers and comments left out.
    pub rows: u64,
    pub jobs: u64,
    /// Rows left out by a rule of the format.
    pub dropped: Vec<Noted>,
    /// Rows taken with a changed value.
    pub changed: Vec<Noted>,
    pub bad_rows: u64,
    /// The first of the bad rows.
    pub bad: Vec<BadRow>,
    /// Devices of the recorded machine, where the trace says so.
    pub recorded_devices: Option<u32>,
    pub first_submit_s: f64,
    pub last_submit_s: f64,
    /// From the first submit to the last.
    pub span_s: f64,
    pub device_s: f64,
    /// Devices that would be busy on average if the work were spread over the span.
    pub mean_devices: f64,
    pub largest_job_devices: u32,
}

/// Rows treated alike by one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Noted {
    pub why: &'static str,
    pub rows: u64,
    pub first_line: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BadRow {
    pub line: u64,
    pub why: String,
}

/// How a trace is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Standard Workload Format 2.
    Swf,
    /// The CSV of the Tiresias simulator.
    Tiresias,
}

fn rows(format: Format, text: &str) -> Result<Rows, String> {
    match format {
        Format::Swf => swf::parse(text),
        Format::Tiresias => tiresias::parse(text),
    }
}

/// Reads a trace that is text already; bad rows are left out.
///
/// # Errors
/// What keeps the text from being one of that format.
pub fn read_lenient(format: Format, text: &str) -> Result<Trace, String> {
    Ok(rows(format, text)?.into_trace())
}

/// Reads a trace by the ending of its name: `.swf` or `.csv`, each also with `.gz`.
pub fn read(path: &Path, bad_rows: BadRows) -> Result<Trace, SimError> {
    let trace_error = |why: String| SimError::Trace { path: path.to_path_buf(), why };
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let bare = name.strip_suffix(".gz").unwrap_or(&name);
    let format = match bare.rsplit_once('.').map(|(_, ending)| ending) {
        Some("swf") => Format::Swf,
        Some("csv") => Format::Tiresias,
        _ => {
            return Err(trace_error(
                "the format of a trace is told by its name; it must end in .swf, .swf.gz, .csv or .csv.gz".into(),
            ));
        }
    };
    let text = read_text(path, name.ends_with(".gz"))?;
    let rows = rows(format, &text).map_err(trace_error)?;
    if rows.bad_rows > 0 && bad_rows == BadRows::Refuse {
        return Err(SimError::BadRows { path: path.to_path_buf(), count: rows.bad_rows, first: rows.bad });
    }
    let trace = rows.into_trace();
    if trace.jobs.is_empty() {
        return Err(trace_error(format!(
            "no job is left of {} rows; see the rules of the format in `muster sim run --help`",
            trace.card.rows
        )));
    }
    Ok(trace)
}

impl Trace {
    /// `jobs` jobs from the `start`-th on, counted from 0; `None` = all that follow.
    pub fn window(mut self, start: usize, jobs: Option<usize>) -> Result<Trace, SimError> {
        if jobs == Some(0) {
            return Err(SimError::EmptyWindow);
        }
        let known = self.jobs.len();
        if start >= known {
            return Err(SimError::Window { start, jobs: known });
        }
        let end = jobs.map_or(known, |jobs| start.saturating_add(jobs).min(known));
        self.jobs.truncate(end);
        self.jobs.drain(..start);
        self.card.measure(&self.jobs);
        Ok(self)
    }
}

fn read_text(path: &Path, packed: bool) -> Result<String, SimError> {
    let read_error = |source| SimError::Read { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(read_error)?;
    let mut reader: Box<dyn Read> = if packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut text = String::new();
    let bytes = reader.by_ref().take(TRACE_BYTES_MAX + 1).read_to_string(&mut text).map_err(read_error)?;
    if bytes as u64 > TRACE_BYTES_MAX {
        return Err(SimError::TooLarge { path: path.to_path_buf(), limit_bytes: TRACE_BYTES_MAX });
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
