//! What a run leaves behind: a table of jobs, a summary, and a manifest that says from what.

use crate::SimError;
use crate::metrics::{JobResult, Summary};
use crate::trace::{BadRows, Card};
use crate::world::World;
use muster_common::Time;
use muster_common::job::Hash;
use muster_engine::policy::Policy;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Everything that the results depend on, and what the run came to. No clock and no path of a
/// machine is in it, so that equal inputs give equal bytes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Manifest {
    pub schema: &'static str,
    pub engine_version: u32,
    pub policy_file: Input,
    pub world_file: Input,
    pub trace_file: Input,
    pub start_job: usize,
    pub jobs: Option<usize>,
    pub bad_rows: BadRows,
    /// Nothing in a run of recorded work is drawn at random.
    pub seed: Option<u64>,
    pub policy: Policy,
    pub world: World,
    /// Of the jobs in the window.
    pub card: Card,
    /// Devices that the work would keep busy on average, over the devices of the world.
    pub load: f64,
    pub entries: u64,
    pub cycles: u64,
    /// Steps of work of all cycles.
    pub steps: u64,
    /// Gangs that cycles left out for their budget.
    pub truncated: u64,
    pub final_state_hash: String,
    /// Rolling hash of every event of the run.
    pub events_hash: String,
}

/// An input by name and content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Input {
    pub name: String,
    pub sha256: String,
}

pub(crate) fn input(path: &Path, content: &[u8]) -> Input {
    Input { name: name_of(path), sha256: Hash(Sha256::digest(content).into()).to_string() }
}

pub(crate) fn input_file(path: &Path) -> Result<Input, SimError> {
    let mut sha256 = Sha256::new();
    fs::File::open(path)
        .and_then(|mut file| io::copy(&mut file, &mut sha256))
        .map_err(|source| SimError::Read { path: path.to_path_buf(), source })?;
    Ok(Input { name: name_of(path), sha256: Hash(sha256.finalize().into()).to_string() })
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Results never mix with those of another run.
pub(crate) fn check_output(folder: &Path) -> Result<(), SimError> {
    match fs::read_dir(folder) {
        Ok(mut files) => match files.next() {
            None => Ok(()),
            Some(_) => Err(SimError::OutputNotEmpty { path: folder.to_path_buf() }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(SimError::Read { path: folder.to_path_buf(), source }),
    }
}

pub(crate) fn write(
    folder: &Path,
    manifest: &Manifest,
    summary: &Summary,
    results: &[JobResult],
) -> Result<(), SimError> {
    fs::create_dir_all(folder).map_err(|source| SimError::Write { path: folder.to_path_buf(), source })?;
    write_file(folder.join("jobs.csv"), &jobs_csv(results))?;
    write_file(folder.join("summary.json"), &json(summary))?;
    write_file(folder.join("manifest.json"), &json(manifest))
}

/// Whole or not there: written beside its place first.
fn write_file(path: PathBuf, content: &[u8]) -> Result<(), SimError> {
    let beside = path.with_extension("partial");
    let written = fs::File::create(&beside)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| fs::rename(&beside, &path));
    written.map_err(|source| SimError::Write { path, source })
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("reports hold only what JSON can");
    text.push(b'\n');
    text
}

const COLUMNS: [&str; 11] = [
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
];

fn jobs_csv(results: &[JobResult]) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(COLUMNS).expect("memory takes every record");
    for result in results {
        writer.write_record(record(result)).expect("memory takes every record");
    }
    writer.into_inner().expect("memory takes every record")
}

fn record(result: &JobResult) -> [String; 11] {
    let moment = |time: Option<Time>| time.map_or_else(String::new, |time| seconds(time.0));
    [
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
    ]
}

/// Whole seconds without a fraction, others with three digits.
fn seconds(ms: u64) -> String {
    match ms % 1000 {
        0 => (ms / 1000).to_string(),
        fraction => format!("{}.{fraction:03}", ms / 1000),
    }
}
