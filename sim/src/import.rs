//! Recorded or invented work into our own format.

use crate::SimError;
use crate::trace::generate::GenArgs;
use crate::trace::throughputs::Throughputs;
use crate::trace::{self, BadRows, Card, Format, Reading, Trace, jsonl, parquet_table};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// What is imported, and where it goes.
#[derive(Debug, Clone)]
pub struct ImportArgs {
    pub trace: PathBuf,
    pub format: Option<Format>,
    pub throughputs: Option<PathBuf>,
    pub bad_rows: BadRows,
    pub start_job: usize,
    pub jobs: Option<usize>,
    /// A file that is not there yet; packed if its name ends in `.gz`, a table if in `.parquet`.
    /// `None` = only look.
    pub output: Option<PathBuf>,
}

/// Reads a trace and says what is in it.
///
/// # Errors
/// Those of [`trace::read`]; an output that is there already or cannot be written.
pub fn import(args: &ImportArgs) -> Result<Card, SimError> {
    args.output.as_deref().map_or(Ok(()), refuse_existing)?;
    let throughputs = args.throughputs.as_deref().map(Throughputs::read).transpose()?;
    let reading = Reading { format: args.format, bad_rows: args.bad_rows, throughputs: throughputs.as_ref() };
    let trace = trace::read(&args.trace, reading)?.window(args.start_job, args.jobs)?;
    if let Some(output) = &args.output {
        write(output, &trace)?;
    }
    Ok(trace.card)
}

/// Invents work.
///
/// # Errors
/// Arguments out of range; an output that is there already or cannot be written.
pub fn generate(args: &GenArgs, output: &Path) -> Result<Card, SimError> {
    refuse_existing(output)?;
    let jobs = trace::generate::generate(args).map_err(SimError::Generate)?;
    let trace = Trace::invented(jobs, args.devices);
    write(output, &trace)?;
    Ok(trace.card)
}

fn refuse_existing(path: &Path) -> Result<(), SimError> {
    if path.exists() { Err(SimError::FileExists { path: path.to_path_buf() }) } else { Ok(()) }
}

pub(crate) fn write(path: &Path, trace: &Trace) -> Result<(), SimError> {
    let written = File::create(path).and_then(|file| {
        let devices = trace.card.recorded_devices;
        let mut file = BufWriter::new(file);
        let ends_in = |wanted: &str| path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case(wanted));
        if ends_in("parquet") {
            parquet_table::write(&mut file, &trace.jobs, devices)
        } else if ends_in("gz") {
            let mut packer = GzEncoder::new(&mut file, Compression::default());
            jsonl::write(&mut packer, &trace.jobs, devices)?;
            packer.finish().map(drop)
        } else {
            jsonl::write(&mut file, &trace.jobs, devices)
        }?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.flush()
    });
    written.map_err(|source| SimError::Write { path: path.to_path_buf(), source })
}
