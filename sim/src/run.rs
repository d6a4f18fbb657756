//! One run, from files to files.

use crate::metrics::{JobResult, Summary};
use crate::report::{self, Manifest};
use crate::trace::{self, BadRows, Card};
use crate::world::World;
use crate::{SimError, play};
use muster_common::Time;
use muster_engine::policy::Policy;
use std::path::{Path, PathBuf};

/// What a run is made from, and where its results go.
#[derive(Debug, Clone)]
pub struct RunArgs {
    /// A policy as TOML, such as a cluster is given.
    pub policy: PathBuf,
    pub world: PathBuf,
    pub trace: PathBuf,
    /// A folder that is empty or not there yet.
    pub output: PathBuf,
    /// First job of the window, counted from 0.
    pub start_job: usize,
    /// Jobs in the window; `None` = to the end of the trace.
    pub jobs: Option<usize>,
    /// Check every invariant of State after every entry.
    pub check: bool,
    pub bad_rows: BadRows,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    pub entries: u64,
    pub jobs: u64,
    pub ended: u64,
    /// On the trace's clock.
    pub now: Time,
}

#[derive(Debug)]
pub struct RunReport {
    pub card: Card,
    pub summary: Summary,
    pub manifest: Manifest,
    pub results: Vec<JobResult>,
}

/// Plays a trace and writes `jobs.csv`, `summary.json` and, last, `manifest.json`: a folder
/// without a manifest is not whole. Equal inputs give equal bytes.
///
/// # Errors
/// Every refusal of the inputs comes before anything is written.
pub fn run(args: &RunArgs, progress: &mut dyn FnMut(Progress)) -> Result<RunReport, SimError> {
    let (policy, policy_text) = read_policy(&args.policy)?;
    let (world, world_text) = World::read(&args.world)?;
    report::check_output(&args.output)?;
    let trace = trace::read(&args.trace, args.bad_rows)?.window(args.start_job, args.jobs)?;
    let played = play::play(trace.jobs, &world, &policy, args.check, progress)?;
    let summary = Summary::of(&played.results, world.devices());
    let manifest = Manifest {
        schema: "muster.sim.manifest/1",
        engine_version: muster_engine::ENGINE_VERSION,
        policy_file: report::input(&args.policy, policy_text.as_bytes()),
        world_file: report::input(&args.world, world_text.as_bytes()),
        trace_file: report::input_file(&args.trace)?,
        start_job: args.start_job,
        jobs: args.jobs,
        bad_rows: args.bad_rows,
        seed: None,
        policy,
        load: load(&trace.card, &world),
        world,
        card: trace.card.clone(),
        entries: played.stats.entries,
        cycles: played.stats.cycles,
        steps: played.stats.spent,
        truncated: played.stats.truncated,
        final_state_hash: played.state.hash().to_string(),
        events_hash: played.state.events_hash().to_string(),
    };
    report::write(&args.output, &manifest, &summary, &played.results)?;
    Ok(RunReport { card: trace.card, summary, manifest, results: played.results })
}

/// Offered work per device and span.
fn load(card: &Card, world: &World) -> f64 {
    card.mean_devices / world.devices() as f64
}

fn read_policy(path: &Path) -> Result<(Policy, String), SimError> {
    let text = std::fs::read_to_string(path).map_err(|source| SimError::Read { path: path.to_path_buf(), source })?;
    let policy_error = |why| SimError::Policy { path: path.to_path_buf(), why };
    let policy: Policy = toml::from_str(&text).map_err(|error| policy_error(error.to_string()))?;
    policy.validate().map_err(|error| policy_error(error.to_string()))?;
    Ok((policy, text))
}
