//! From trace, world and policy to the engine's loop, and from its events to results.

use crate::SimError;
use crate::metrics::{JobResult, JobState};
use crate::run::Progress;
use crate::trace::TraceJob;
use crate::world::{CycleAfter, World};
use muster_common::job::{Hash, Launch, LogLimits, Run};
use muster_common::{GangId, JobId, Name, Time};
use muster_engine::command::{ConfigChange, Entry, Principal, Settings, Submit};
use muster_engine::forecast::{CycleEvery, Hooks, InstantOrder, PlayError, Player, Stats, World as Clockwork};
use muster_engine::outcome::{Event, Outcome, Response};
use muster_engine::plan::never::fits_ever;
use muster_engine::policy::Policy;
use muster_engine::state::gang::{Cause, End};
use muster_engine::{Command, State};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Entries after which a run is broken off; what has not ended by then is unfinished.
pub(crate) const ENTRIES_MAX: u64 = 200_000_000;
/// Entries between two reports of progress.
const PROGRESS_EVERY: u64 = 4_096;

pub(crate) struct Played {
    /// In the order of the trace.
    pub results: Vec<JobResult>,
    pub state: State,
    pub stats: Stats,
}

/// Plays the jobs to their end.
pub(crate) fn play(
    jobs: Vec<TraceJob>,
    world: &World,
    policy: &Policy,
    check: bool,
    progress: &mut dyn FnMut(Progress),
) -> Result<Played, SimError> {
    let clockwork = Clockwork {
        at_one_instant: if world.events.ends_first { InstantOrder::EndsFirst } else { InstantOrder::ArrivalsFirst },
        cycle_every: match world.events.cycle_after {
            CycleAfter::Entry => CycleEvery::Event,
            CycleAfter::Instant => CycleEvery::Instant,
        },
        kept_work: world.preemption.keeps_work,
    };
    let mut player = Player::new(State::new("simulated"), clockwork);
    let mut recorder = Recorder::new(jobs, world, check, progress);
    let begin = Time(world.on_tick(recorder.results.first().map_or(0, |result| result.job.submit_ms)));
    for command in set_up(world, policy) {
        let outcome =
            player.commit(begin, command, &mut recorder).map_err(|error| SimError::Play(error.to_string()))?;
        if let Response::Refused(refusal) = outcome.response {
            return Err(SimError::Play(format!("setting up the world: {refusal}")));
        }
    }
    // Requests differ in nothing but their size, so each size is asked about once.
    let mut fits: BTreeMap<u32, bool> = BTreeMap::new();
    for index in 0..recorder.results.len() {
        let job = &recorder.results[index].job;
        let scheduling = world.scheduling(job);
        let fits = fits.entry(job.devices);
        if !*fits.or_insert_with(|| fits_ever(&player.state, &scheduling).is_ok()) {
            recorder.results[index].state = JobState::Unplaceable;
            continue;
        }
        let at = Time(world.on_tick(job.submit_ms));
        let submit = submit(job, scheduling, &recorder.launch);
        recorder.arrivals.push(index);
        player.at(at, Command::Submit(Box::new(submit)));
    }
    recorder.arrivals.reverse();
    match player.run(&mut recorder, ENTRIES_MAX) {
        Ok(()) | Err(PlayError::TooLong { .. }) => {}
        Err(error) => return Err(SimError::Play(error.to_string())),
    }
    recorder.report();
    Ok(Played { results: recorder.results, stats: player.stats(), state: player.state })
}

fn operator() -> Principal {
    Principal("simulator".into())
}

fn set_up(world: &World, policy: &Policy) -> Vec<Command> {
    let configure = |change| Command::Configure { change: Box::new(change), by: operator() };
    // Keys are never repeated here: not forgetting them spares a timer a day.
    let settings = Settings { key_horizon_ms: Time::NEVER.0, ..Settings::default() };
    let mut commands = vec![
        configure(ConfigChange::Settings(settings)),
        configure(ConfigChange::Policy(policy.clone())),
        configure(ConfigChange::Fabric(world.fabric.clone())),
    ];
    commands.extend(world.registrations().map(|registration| Command::RegisterNode(Box::new(registration))));
    commands
}

fn submit(job: &TraceJob, scheduling: muster_common::job::Scheduling, launch: &Arc<Launch>) -> Submit {
    Submit {
        key: job.id.clone(),
        key_made_at: None,
        principal: operator(),
        name: Name::literal("recorded"),
        scheduling,
        launch: launch.clone(),
        body_hash: Hash::default(),
        hold: false,
        retry_of: None,
    }
}

/// Knows how long the recorded jobs run, and notes what becomes of them.
struct Recorder<'a> {
    results: Vec<JobResult>,
    /// Positions in `results` of the jobs still to be submitted, the next one last.
    arrivals: Vec<usize>,
    of_job: BTreeMap<JobId, usize>,
    launch: Arc<Launch>,
    world: &'a World,
    check: bool,
    progress: &'a mut dyn FnMut(Progress),
    entries: u64,
    ended: u64,
    now: Time,
}

impl<'a> Recorder<'a> {
    fn new(jobs: Vec<TraceJob>, world: &'a World, check: bool, progress: &'a mut dyn FnMut(Progress)) -> Self {
        let launch = Launch {
            name: Name::literal("recorded"),
            run: Run::Argv(Vec::new()),
            env: BTreeMap::new(),
            groups: Vec::new(),
            workdir: None,
            logs: LogLimits::default(),
            elements: Vec::new(),
        };
        Self {
            results: jobs.into_iter().map(JobResult::new).collect(),
            arrivals: Vec::new(),
            of_job: BTreeMap::new(),
            launch: Arc::new(launch),
            world,
            check,
            progress,
            entries: 0,
            ended: 0,
            now: Time::ZERO,
        }
    }

    fn report(&mut self) {
        (self.progress)(Progress {
            entries: self.entries,
            jobs: self.results.len() as u64,
            ended: self.ended,
            now: self.now,
        });
    }

    fn result(&mut self, gang: GangId) -> Result<&mut JobResult, String> {
        let index = self.of_job.get(&gang.job);
        let index = index.ok_or_else(|| format!("an event names job {}, which was never submitted", gang.job))?;
        Ok(&mut self.results[*index])
    }

    fn note(&mut self, event: &Event, now: Time) -> Result<(), String> {
        match event {
            Event::GangStarted { gang, .. } => {
                let result = self.result(*gang)?;
                result.attempts += 1;
                result.first_start.get_or_insert(now);
            }
            Event::AttemptEnded { gang, record } => {
                let result = self.result(*gang)?;
                if let (Some(started), Some(stopping)) = (record.attempt.started_at, record.attempt.stopping_at) {
                    result.served_ms += stopping.since_ms(started);
                }
                result.preemptions += u32::from(matches!(record.cause, Cause::Preempted { .. }));
            }
            Event::GangEnded { gang, end } => {
                let result = self.result(*gang)?;
                result.end = Some(now);
                result.state = match end {
                    End::Succeeded => JobState::Succeeded,
                    End::Failed => JobState::Failed,
                    End::Cancelled => JobState::Cancelled,
                    End::TimedOut => JobState::TimedOut,
                };
                self.ended += 1;
            }
            _ => {}
        }
        Ok(())
    }
}

impl Hooks for Recorder<'_> {
    fn run_ms(&mut self, state: &State, gang: GangId) -> Option<u64> {
        let index = self.of_job.get(&gang.job)?;
        let stopped = state.gang(gang).map_or(0, |record| u64::from(record.preempted));
        let cost_ms = self.world.preemption.cost_ms.saturating_mul(stopped);
        let run_ms = self.results[*index].job.run_ms.saturating_add(cost_ms);
        Some(self.world.on_tick(run_ms))
    }

    fn on_entry(&mut self, state: &State, entry: &Entry, outcome: &Outcome) -> Result<(), String> {
        self.entries += 1;
        self.now = state.now();
        if let Command::Submit(submit) = &entry.command {
            let index = self.arrivals.pop().ok_or("more jobs were submitted than recorded")?;
            match &outcome.response {
                Response::Submitted { job, existing: false } => self.of_job.insert(*job, index),
                Response::Refused(refusal) => return Err(format!("job {}: {refusal}", submit.key)),
                other => return Err(format!("job {}: {other:?}", submit.key)),
            };
        }
        for event in &outcome.events {
            self.note(event, state.now())?;
        }
        if self.entries.is_multiple_of(PROGRESS_EVERY) {
            self.report();
        }
        if self.check {
            state.check().map_err(|broken| format!("after entry {}: {broken:?}", entry.index))?;
        }
        Ok(())
    }
}
