//! Recorded work: readers of trace formats, each with a data card that says what was read, what
//! was left out and why.

mod fields;
mod gavel;
pub mod generate;
mod helios;
mod input;
pub mod jsonl;
mod openb;
pub mod parquet_table;
mod philly;
pub(crate) mod rows;
mod sacct;
mod swf;
mod table;
pub mod throughputs;
mod tiresias;

use crate::SimError;
use crate::columnar::read::Table;
pub(crate) use fields::SECONDS_MAX;
use flate2::read::MultiGzDecoder;
use muster_common::Name;
use muster_common::job::Scheduling;
pub(crate) use rows::Rows;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, Read};
use std::path::Path;
use throughputs::Throughputs;

/// Longest line of a trace.
pub const LINE_BYTES_MAX: usize = 1 << 20;
/// Largest job of a format in which it may take more than one line.
pub const RECORD_BYTES_MAX: usize = 4 << 20;
/// Most jobs of a trace. Its size in bytes does not matter: it is read line by line.
pub const JOBS_MAX: usize = 10_000_000;
/// Largest table of throughputs, unpacked.
pub const TABLE_BYTES_MAX: u64 = 256 << 20;
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
    /// 0 = CPU only.
    pub devices: u32,
    /// Of its one device, when it shares it.
    pub share_milli: u16,
    /// On each node; `None` = in proportion to the devices.
    pub cpu_milli: Option<u64>,
    pub memory_bytes: Option<u64>,
    /// Models it may run on, the preferred first; empty = any.
    pub models: Vec<Name>,
    pub user: Option<String>,
    /// Who is charged: a virtual cluster, a group, an account.
    pub account: Option<Name>,
    pub recorded_end: RecordedEnd,
    /// When it first started where it was recorded; a run is held against it.
    pub recorded_start_ms: Option<u64>,
    /// What it does, where run times follow from a table of throughputs.
    pub work: Option<Work>,
    /// As its user called it; run times are learned by it.
    pub name: Option<Name>,
    /// All that was asked for, where the trace knows it; it counts for more than what is above.
    pub scheduling: Option<Box<Scheduling>>,
}

impl Default for TraceJob {
    fn default() -> Self {
        Self {
            id: String::new(),
            submit_ms: 0,
            run_ms: 0,
            requested_ms: 0,
            devices: 1,
            share_milli: 1000,
            cpu_milli: None,
            memory_bytes: None,
            models: Vec::new(),
            user: None,
            account: None,
            recorded_end: RecordedEnd::Unknown,
            recorded_start_ms: None,
            work: None,
            name: None,
            scheduling: None,
        }
    }
}

impl TraceJob {
    /// Thousandths of devices that it holds while it runs.
    pub fn milli(&self) -> u64 {
        match &self.scheduling {
            Some(known) => known.groups.iter().map(|group| group.devices() * u64::from(group.share.0)).sum(),
            None => u64::from(self.devices) * u64::from(self.share_milli),
        }
    }

    /// Devices times run time; a share of one counts as that share.
    pub fn device_ms(&self) -> u128 {
        u128::from(self.run_ms) * u128::from(self.milli()) / 1000
    }
}

/// How the job ended where it was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordedEnd {
    #[default]
    Unknown,
    Succeeded,
    Failed,
    Cancelled,
}

impl RecordedEnd {
    pub const fn word(self) -> &'static str {
        match self {
            RecordedEnd::Unknown => "",
            RecordedEnd::Succeeded => "SUCCEEDED",
            RecordedEnd::Failed => "FAILED",
            RecordedEnd::Cancelled => "CANCELLED",
        }
    }
}

/// So many steps of a kind of work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// A row of the table of throughputs.
    pub kind: String,
    pub steps: u64,
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
    /// Rows that come earlier than the row before them; jobs are played in order all the same.
    pub unsorted_rows: u64,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Standard Workload Format 2.
    Swf,
    /// The CSV of the Tiresias simulator.
    Tiresias,
    /// The log of Microsoft Philly, and the table others made of it.
    PhillyLog,
    PhillyTable,
    /// Pods of Alibaba's GPU cluster trace of 2023.
    Openb,
    Helios,
    Acme,
    /// Jobs counted in steps; needs a table of throughputs.
    Gavel,
    /// `sacct --parsable2`.
    Sacct,
    /// Our own, one JSON document a line.
    Muster,
    /// The same as a table.
    Parquet,
}

impl Format {
    pub const ALL: [Format; 11] = [
        Format::Swf,
        Format::Tiresias,
        Format::PhillyLog,
        Format::PhillyTable,
        Format::Openb,
        Format::Helios,
        Format::Acme,
        Format::Gavel,
        Format::Sacct,
        Format::Muster,
        Format::Parquet,
    ];

    pub const fn word(self) -> &'static str {
        match self {
            Format::Swf => "swf",
            Format::Tiresias => "tiresias",
            Format::PhillyLog => "philly-log",
            Format::PhillyTable => "philly-table",
            Format::Openb => "openb",
            Format::Helios => "helios",
            Format::Acme => "acme",
            Format::Gavel => "gavel",
            Format::Sacct => "sacct",
            Format::Muster => "muster",
            Format::Parquet => "parquet",
        }
    }

    /// By the ending of the name, `.gz` left out, and of a table by its header.
    fn told(path: &Path) -> Result<Self, SimError> {
        let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
        let bare = name.strip_suffix(".gz").unwrap_or(&name);
        let unknown = |what: &str| SimError::Trace {
            path: path.to_path_buf(),
            why: format!("{what}; name its format with `--format`: {}", Format::ALL.map(Format::word).join(", ")),
        };
        match bare.rsplit_once('.').map(|(_, ending)| ending) {
            Some("swf") => Ok(Format::Swf),
            Some("jsonl" | "ndjson") => Ok(Format::Muster),
            Some("json") => Ok(Format::PhillyLog),
            Some("trace") => Ok(Format::Gavel),
            Some("parquet") if bare.len() < name.len() => Err(SimError::Trace {
                path: path.to_path_buf(),
                why: "Parquet is packed inside; unpack the file and name that".into(),
            }),
            Some("parquet") => Ok(Format::Parquet),
            Some("csv" | "psv" | "txt") => {
                let read_error = |source| SimError::Read { path: path.to_path_buf(), source };
                let mut header = String::new();
                let mut input = input::open(path).map_err(read_error)?;
                input.read_line(&mut header).map_err(read_error)?;
                Self::of_header(&header).ok_or_else(|| unknown("its header is that of no format known here"))
            }
            _ => Err(unknown("its name does not tell its format")),
        }
    }

    fn of_header(header: &str) -> Option<Self> {
        let delimiter = if header.contains('|') { '|' } else { ',' };
        let columns: Vec<&str> = header.trim_start_matches('\u{feff}').split(delimiter).map(str::trim).collect();
        let has = |wanted: &[&str]| wanted.iter().all(|name| columns.contains(name));
        match () {
            () if delimiter == '|' => has(&["JobID"]).then_some(Format::Sacct),
            () if has(&["gpu_num", "vc"]) => Some(Format::Helios),
            () if has(&["gpu_num", "type"]) => Some(Format::Acme),
            () if has(&["num_gpu", "gpu_milli"]) => Some(Format::Openb),
            () if has(&["timestamp", "num_gpus"]) => Some(Format::PhillyTable),
            () if has(&["job_id"]) || has(&["num_gpu"]) => Some(Format::Tiresias),
            () => None,
        }
    }
}

/// What reading a trace may need.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reading<'a> {
    /// `None` = told by name and header.
    pub format: Option<Format>,
    pub bad_rows: BadRows,
    pub throughputs: Option<&'a Throughputs>,
}

fn rows(format: Format, input: &mut dyn BufRead, throughputs: Option<&Throughputs>) -> Result<Rows, String> {
    match format {
        Format::Swf => swf::parse(input),
        Format::Tiresias => tiresias::parse(input),
        Format::PhillyLog => philly::parse_log(input),
        Format::PhillyTable => philly::parse_table(input),
        Format::Openb => openb::parse(input),
        Format::Helios => helios::parse_helios(input),
        Format::Acme => helios::parse_acme(input),
        Format::Gavel => gavel::parse(input, throughputs),
        Format::Sacct => sacct::parse(input),
        Format::Muster => jsonl::parse(input),
        Format::Parquet => Err("a table of Parquet is no text; it is read from a file of its own".into()),
    }
}

/// Reads a trace that is text already; bad rows are left out.
///
/// # Errors
/// What keeps the text from being one of that format.
pub fn read_lenient(format: Format, text: &str, throughputs: Option<&Throughputs>) -> Result<Trace, String> {
    let bytes = std::io::Cursor::new(text.as_bytes().to_vec());
    Ok(rows(format, &mut input::limited(bytes), throughputs)?.into_trace())
}

/// Reads a trace, packed or not.
///
/// # Errors
/// Files that cannot be read to their end, formats that are not known, and bad rows unless they
/// are to be skipped.
pub fn read(path: &Path, reading: Reading) -> Result<Trace, SimError> {
    let trace_error = |why: String| SimError::Trace { path: path.to_path_buf(), why };
    let format = reading.format.map_or_else(|| Format::told(path), Ok)?;
    let read_error = |source| SimError::Read { path: path.to_path_buf(), source };
    let rows = if format == Format::Parquet {
        let file = File::open(path).map_err(read_error)?;
        Table::open(file).and_then(|table| parquet_table::parse(&table))
    } else {
        let mut input = input::open(path).map_err(read_error)?;
        rows(format, &mut input, reading.throughputs)
    };
    let rows = rows.map_err(trace_error)?;
    if rows.bad_rows > 0 && reading.bad_rows == BadRows::Refuse {
        return Err(SimError::BadRows { path: path.to_path_buf(), count: rows.bad_rows, first: rows.bad });
    }
    let trace = rows.into_trace();
    if trace.jobs.is_empty() {
        let Card { rows, dropped, bad_rows, .. } = &trace.card;
        let left_out: Vec<String> = dropped.iter().map(|noted| format!("{} with {}", noted.rows, noted.why)).collect();
        return Err(trace_error(format!(
            "no job is left of {rows} rows ({bad_rows} bad; left out: {}); is it really of the format `{}`?",
            if left_out.is_empty() { "none".to_owned() } else { left_out.join(", ") },
            format.word()
        )));
    }
    Ok(trace)
}

impl Trace {
    /// Jobs that were never in a file, in the order of their submit times.
    pub(crate) fn invented(jobs: Vec<TraceJob>, devices: u32) -> Self {
        let mut rows = Rows::new("generated");
        rows.recorded_devices = Some(devices);
        for (line, job) in (1..).zip(jobs) {
            rows.add(line, Ok(rows::Row::job(job))).expect("the generator has the same limit");
        }
        rows.into_trace()
    }

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

/// A whole small file, packed or not.
fn read_text(path: &Path) -> Result<String, SimError> {
    let read_error = |source| SimError::Read { path: path.to_path_buf(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(read_error)?;
    let packed = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gz"));
    let mut input: Box<dyn Read> = if packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let bytes = input.by_ref().take(TABLE_BYTES_MAX + 1).read_to_string(&mut text).map_err(read_error)?;
    if bytes as u64 > TABLE_BYTES_MAX {
        return Err(SimError::TooLarge { path: path.to_path_buf(), limit_bytes: TABLE_BYTES_MAX });
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
