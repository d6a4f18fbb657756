//! What a run leaves behind: a table of jobs, a summary, and a manifest that says from what.

mod tables;
#[cfg(test)]
mod tests;

use crate::SimError;
use crate::metrics::Summary;
use crate::play::Played;
use crate::power::Watts;
use crate::prices::Prices;
use crate::trace::{BadRows, Card};
use crate::world::World;
use crate::world::truth::Truth;
use muster_common::Time;
use muster_common::job::Hash;
use muster_engine::Entry;
use muster_engine::outcome::Event;
use muster_engine::policy::Policy;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Everything that the results depend on, and what the run came to. No clock and no path of a
/// machine is in it, so that equal inputs give equal bytes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Manifest {
    pub schema: &'static str,
    pub engine_version: u32,
    /// False when the run was stopped before its end.
    pub complete: bool,
    pub policy_file: Input,
    pub world_file: Input,
    pub trace_file: Input,
    pub start_job: usize,
    pub jobs: Option<usize>,
    pub bad_rows: BadRows,
    pub truth_file: Option<Input>,
    pub throughputs_file: Option<Input>,
    pub prices_file: Option<Input>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organisation_file: Option<Input>,
    /// Jobs whose start was to be estimated.
    pub estimates: usize,
    /// Of what is drawn at random; without failures and noise, nothing is.
    pub seed: u64,
    pub policy: Policy,
    pub world: World,
    pub truth: Truth,
    pub prices: Option<Prices>,
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

/// Writes everything, the manifest last: a folder without one is not whole.
pub(crate) fn write(folder: &Path, manifest: &Manifest, summary: &Summary, played: &Played) -> Result<(), SimError> {
    create(folder)?;
    let watts = Watts::of(manifest.prices.as_ref(), &manifest.world);
    tables::write(folder, &manifest.world, watts, played)?;
    write_file(folder.join("summary.json"), &json(summary))?;
    write_file(folder.join("manifest.json"), &json(manifest))
}

pub(crate) fn create(folder: &Path) -> Result<(), SimError> {
    fs::create_dir_all(folder).map_err(|source| SimError::Write { path: folder.to_path_buf(), source })
}

/// Whole or not there: written beside its place first.
pub(crate) fn write_file(path: PathBuf, content: &[u8]) -> Result<(), SimError> {
    write_with(path, |file| file.write_all(content))
}

/// As [`write_file`], of content that is made on the way.
pub(crate) fn write_with(
    path: PathBuf,
    content: impl FnOnce(&mut BufWriter<fs::File>) -> io::Result<()>,
) -> Result<(), SimError> {
    let partial = path.with_extension("partial");
    let written = fs::File::create(&partial).and_then(|file| {
        let mut file = BufWriter::new(file);
        content(&mut file)?;
        file.flush()?;
        fs::rename(&partial, &path)
    });
    written.map_err(|source| SimError::Write { path, source })
}

pub(crate) fn json(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("names and numbers always encode");
    bytes.push(b'\n');
    bytes
}

/// Every event of a run, one JSON document a line.
pub(crate) struct Events {
    path: PathBuf,
    file: BufWriter<fs::File>,
}

#[derive(Serialize)]
struct EventLine<'a> {
    index: u64,
    t_s: f64,
    event: &'a Event,
}

impl Events {
    pub fn create(folder: &Path) -> Result<Self, SimError> {
        create(folder)?;
        let path = folder.join("events.ndjson");
        let file = fs::File::create(&path).map_err(|source| SimError::Write { path: path.clone(), source })?;
        Ok(Self { path, file: BufWriter::new(file) })
    }

    pub fn write(&mut self, entry: &Entry, now: Time, events: &[Event]) -> Result<(), String> {
        for event in events {
            let line = EventLine { index: entry.index, t_s: now.0 as f64 / 1000.0, event };
            serde_json::to_writer(&mut self.file, &line)
                .map_err(io::Error::from)
                .and_then(|()| self.file.write_all(b"\n"))
                .map_err(|error| format!("cannot write {}: {error}", self.path.display()))?;
        }
        Ok(())
    }

    pub fn finish(mut self) -> Result<(), SimError> {
        self.file.flush().map_err(|source| SimError::Write { path: self.path, source })
    }
}
