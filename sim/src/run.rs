//! One run, from files to files.

use crate::SimError;
use crate::estimates::Sample;
use crate::metrics::{JobResult, Summary};
use crate::output::{self, Events, Input, Manifest};
use crate::play::{Play, Played};
use crate::prices::{Bill, Prices, bill};
use crate::stopwatch::Timing;
use crate::trace::throughputs::Throughputs;
use crate::trace::{self, BadRows, Card, Format, Reading, Trace};
use crate::world::elastic::Elastic;
use crate::world::truth::Truth;
use crate::world::{World, planned};
use muster_common::{Name, Time};
use muster_engine::organisation::Organisation;
use muster_engine::policy::Policy;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a run is made from, and where its results go.
#[derive(Debug, Clone)]
pub struct RunArgs {
    /// A policy as TOML, such as a cluster is given.
    pub policy: PathBuf,
    pub scene: SceneArgs,
    /// Of all that is drawn at random: failures, repairs, run times.
    pub seed: u64,
    /// A folder that is empty or not there yet.
    pub output: PathBuf,
    /// Write every event too.
    pub events: bool,
    /// About so many waiting jobs are told a start at their submit, which is held against the real one; 0 = none.
    pub estimates: usize,
}

/// All of a run but its policy and seed.
#[derive(Debug, Clone)]
pub struct SceneArgs {
    pub world: PathBuf,
    pub trace: PathBuf,
    /// Of the trace; told by its name unless given.
    pub format: Option<Format>,
    /// How the world really is, where that differs from the trace.
    pub truth: Option<PathBuf>,
    /// Steps a second of each kind of work on each model.
    pub throughputs: Option<PathBuf>,
    pub prices: Option<PathBuf>,
    /// Accounts and queues as TOML, such as a cluster is given.
    pub organisation: Option<PathBuf>,
    /// First job of the window, counted from 0.
    pub start_job: usize,
    /// Jobs in the window; `None` = to the end of the trace.
    pub jobs: Option<usize>,
    /// Check every invariant of State after every entry.
    pub check: bool,
    pub bad_rows: BadRows,
}

impl SceneArgs {
    /// The whole trace in a world that is as the trace tells it, without prices and accounts; bad rows are refused.
    pub fn of(world: PathBuf, trace: PathBuf) -> Self {
        Self {
            world,
            trace,
            format: None,
            truth: None,
            throughputs: None,
            prices: None,
            organisation: None,
            start_job: 0,
            jobs: None,
            check: false,
            bad_rows: BadRows::Refuse,
        }
    }
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

/// What is said to a report of progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Going {
    On,
    /// What has happened so far is kept, and marked as not complete.
    Stop,
}

#[derive(Debug)]
pub struct RunReport {
    pub card: Card,
    pub summary: Summary,
    pub manifest: Manifest,
    pub results: Vec<JobResult>,
    /// What it cost here; the only part of it that another run would not have the same.
    pub timing: Timing,
}

/// Everything but policy and seed, read and checked once for any number of runs.
#[derive(Debug, Clone)]
pub struct Scene {
    pub trace: Arc<Trace>,
    pub world: World,
    pub(crate) truth: Truth,
    pub(crate) prices: Option<Prices>,
    pub(crate) organisation: Option<Organisation>,
    pub(crate) throughputs: Option<Arc<Throughputs>>,
    pub(crate) args: SceneArgs,
    pub(crate) world_file: Input,
    pub(crate) trace_file: Input,
    pub(crate) truth_file: Option<Input>,
    pub(crate) prices_file: Option<Input>,
    pub(crate) organisation_file: Option<Input>,
    pub(crate) throughputs_file: Option<Input>,
}

impl Scene {
    /// # Errors
    /// Whatever is wrong with one of the files.
    pub fn read(args: &SceneArgs) -> Result<Self, SimError> {
        let (world, world_text) = World::read(&args.world)?;
        let truth = args.truth.as_deref().map(|path| read_truth(path, &world)).transpose()?;
        let (truth, truth_file) = truth.map_or_else(Default::default, |(truth, input)| (truth, Some(input)));
        let prices = args.prices.as_deref().map(|path| read_prices(path, &world)).transpose()?;
        let (prices, prices_file) = prices.unzip();
        let organisation = args.organisation.as_deref().map(|path| read_organisation(path, &world)).transpose()?;
        let (organisation, organisation_file) = organisation.unzip();
        let throughputs = args.throughputs.as_deref().map(Throughputs::read).transpose()?;
        let reading = Reading { format: args.format, bad_rows: args.bad_rows, throughputs: throughputs.as_ref() };
        let trace = trace::read(&args.trace, reading)?;
        // Before the window: a job that it leaves out is no mistake.
        planned::check_jobs(&world, &trace.jobs).map_err(|why| SimError::World { path: args.world.clone(), why })?;
        let trace = trace.window(args.start_job, args.jobs)?;
        Ok(Self {
            trace: Arc::new(trace),
            truth,
            prices,
            organisation,
            organisation_file,
            args: args.clone(),
            world_file: output::input(&args.world, world_text.as_bytes()),
            trace_file: output::input_file(&args.trace)?,
            truth_file,
            prices_file,
            throughputs_file: args.throughputs.as_deref().map(output::input_file).transpose()?,
            world,
            throughputs: throughputs.map(Arc::new),
        })
    }

    /// The same work in another world. Fails with why organisation or trace do not fit that world.
    pub(crate) fn changed(&self, world: World, truth: Truth) -> Result<Self, String> {
        self.organisation.as_ref().map_or(Ok(()), |known| check_organisation(known, &world))?;
        // As they were read, they were held against the whole trace.
        if world.cancellations != self.world.cancellations || world.user_failures != self.world.user_failures {
            planned::check_jobs(&world, &self.trace.jobs)?;
        }
        Ok(Self { world, truth, ..self.clone() })
    }

    /// A window of the same work in the same world.
    pub(crate) fn part(&self, start: usize, jobs: usize) -> Result<Self, SimError> {
        let trace = Trace::clone(&self.trace).window(start, Some(jobs))?;
        Ok(Self { trace: Arc::new(trace), ..self.clone() })
    }

    /// Does anything depend on the seed?
    pub fn is_random(&self) -> bool {
        self.truth.run_time_sigma_percent > 0
            || !self.world.failures.is_none()
            || !self.world.spot.is_empty()
            || self.world.elastic.iter().any(Elastic::is_random)
    }

    /// Plays it under a policy.
    pub(crate) fn play(
        &self,
        policy: &Policy,
        seed: u64,
        events: Option<Events>,
        progress: &mut dyn FnMut(Progress) -> Going,
    ) -> Result<(Played, Summary), SimError> {
        self.play_asking(policy, seed, Sample::default(), events, progress)
    }

    /// As [`Scene::play`], with start estimates of a sample of jobs.
    fn play_asking(
        &self,
        policy: &Policy,
        seed: u64,
        estimates: Sample,
        events: Option<Events>,
        progress: &mut dyn FnMut(Progress) -> Going,
    ) -> Result<(Played, Summary), SimError> {
        let play = Play {
            world: &self.world,
            truth: &self.truth,
            policy,
            organisation: self.organisation.as_ref(),
            throughputs: self.throughputs.as_deref(),
            seed,
            bounds: self.prices.as_ref().map_or_else(Vec::new, Prices::bounds),
            watts: self.prices.as_ref().map_or_else(Vec::new, |prices| prices.watts(&self.world)),
            estimates,
            check: self.args.check,
        };
        let played = play.run(self.trace.jobs.clone(), events, progress)?;
        let mut summary = Summary::of(&played, estimates);
        summary.complete = played.complete;
        summary.cost = self.bill(&played);
        Ok((played, summary))
    }

    fn bill(&self, played: &Played) -> Option<Bill> {
        let prices = self.prices.as_ref()?;
        Some(bill(prices, &self.world, &played.results, &played.attempts, &played.meter))
    }

    /// Offered work per device and span.
    pub fn load(&self) -> f64 {
        self.trace.card.mean_devices / self.world.devices() as f64
    }

    fn manifest(&self, policy: &Policy, policy_file: Input, seed: u64, played: &Played) -> Manifest {
        Manifest {
            schema: "muster.sim.manifest/1",
            engine_version: muster_engine::ENGINE_VERSION,
            complete: played.complete,
            policy_file,
            world_file: self.world_file.clone(),
            trace_file: self.trace_file.clone(),
            truth_file: self.truth_file.clone(),
            throughputs_file: self.throughputs_file.clone(),
            prices_file: self.prices_file.clone(),
            organisation_file: self.organisation_file.clone(),
            start_job: self.args.start_job,
            jobs: self.args.jobs,
            bad_rows: self.args.bad_rows,
            estimates: 0,
            seed,
            policy: policy.clone(),
            load: self.load(),
            world: self.world.clone(),
            truth: self.truth.clone(),
            prices: self.prices.clone(),
            card: self.trace.card.clone(),
            entries: played.stats.entries,
            cycles: played.stats.cycles,
            steps: played.stats.spent,
            truncated: played.stats.truncated,
            final_state_hash: played.state.hash().to_string(),
            events_hash: played.state.events_hash().to_string(),
        }
    }
}

/// Plays a trace and writes its tables, `summary.json`, `manifest.json` (a folder without one is
/// not whole) and, made from these, `report.html`. Equal inputs give equal bytes.
///
/// # Errors
/// Every refusal of the inputs comes before anything is written.
pub fn run(args: &RunArgs, progress: &mut dyn FnMut(Progress) -> Going) -> Result<RunReport, SimError> {
    let (policy, policy_text) = read_policy(&args.policy)?;
    output::check_output(&args.output)?;
    let scene = Scene::read(&args.scene)?;
    let events = args.events.then(|| Events::create(&args.output)).transpose()?;
    let estimates = Sample::of(scene.trace.jobs.len(), args.estimates);
    let (played, summary) = scene.play_asking(&policy, args.seed, estimates, events, progress)?;
    let policy_file = output::input(&args.policy, policy_text.as_bytes());
    let manifest = Manifest { estimates: args.estimates, ..scene.manifest(&policy, policy_file, args.seed, &played) };
    output::write(&args.output, &manifest, &summary, &played)?;
    crate::report::report(&args.output)?;
    Ok(RunReport { card: scene.trace.card.clone(), summary, manifest, results: played.results, timing: played.timing })
}

pub(crate) fn read_policy(path: &Path) -> Result<(Policy, String), SimError> {
    let text = std::fs::read_to_string(path).map_err(|source| SimError::Read { path: path.to_path_buf(), source })?;
    let policy_error = |why| SimError::Policy { path: path.to_path_buf(), why };
    let policy: Policy = toml::from_str(&text).map_err(|error| policy_error(error.to_string()))?;
    policy.validate().map_err(|error| policy_error(error.to_string()))?;
    Ok((policy, text))
}

pub(crate) fn read_truth(path: &Path, world: &World) -> Result<(Truth, Input), SimError> {
    let (truth, text) = Truth::read(path)?;
    truth.check(&world.fabric).map_err(|why| SimError::World { path: path.to_path_buf(), why })?;
    Ok((truth, output::input(path, text.as_bytes())))
}

fn read_prices(path: &Path, world: &World) -> Result<(Prices, Input), SimError> {
    let (prices, text) = Prices::read(path, world)?;
    Ok((prices, output::input(path, text.as_bytes())))
}

pub(crate) fn read_organisation(path: &Path, world: &World) -> Result<(Organisation, Input), SimError> {
    let text = std::fs::read_to_string(path).map_err(|source| SimError::Read { path: path.to_path_buf(), source })?;
    let document: Result<Organisation, String> = toml::from_str(&text).map_err(|error| error.to_string());
    let checked = document.and_then(|known| check_organisation(&known, world).map(|()| known));
    let document = checked.map_err(|why| SimError::World { path: path.to_path_buf(), why })?;
    Ok((document, output::input(path, text.as_bytes())))
}

/// As the engine will check it once the world's nodes have joined.
fn check_organisation(known: &Organisation, world: &World) -> Result<(), String> {
    let mut capacity: BTreeMap<Name, u64> = BTreeMap::new();
    for node in world.registrations() {
        for device in &node.inventory.devices {
            *capacity.entry(device.model.clone()).or_default() += 1;
        }
    }
    known.validate(&capacity).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
