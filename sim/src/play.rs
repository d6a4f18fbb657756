//! From trace, world and policy to the engine's loop, and from its events to results.

use crate::SimError;
use crate::estimates::Sample;
use crate::faults::{Call, Faults};
use crate::meter::{Meter, Shape, Watts};
use crate::metrics::{AttemptResult, JobResult, JobState};
use crate::output::Events;
use crate::recorder::Recorder;
use crate::run::{Going, Progress};
use crate::sleepers::Sleepers;
use crate::stopwatch::Timing;
use crate::trace::TraceJob;
use crate::trace::throughputs::Throughputs;
use crate::world::planned::{PlannedOutage, joined};
use crate::world::truth::Truth;
use crate::world::{CycleAfter, Request, World};
use muster_common::job::{GroupRequest, Hash, Launch, LogLimits, Run, Scheduling};
use muster_common::time::SECOND_MS;
use muster_common::topology::TopologyRequest;
use muster_common::{Name, NodeId, Time};
use muster_engine::command::{ConfigChange, Principal, Settings, Submit};
use muster_engine::forecast::{CycleEvery, Hooks, InstantOrder, PlayError, Player, Stats, World as Clockwork};
use muster_engine::organisation::Organisation;
use muster_engine::outcome::Response;
use muster_engine::plan::never::fits_ever;
use muster_engine::policy::{ElasticPool, Policy};
use muster_engine::{Command, State};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Entries after which a run is broken off; what has not ended by then is unfinished.
pub(crate) const ENTRIES_MAX: u64 = 200_000_000;
/// The least share of requests that typical shapes cover, in percent.
const SHAPES_COVER_PERCENT: u64 = 95;

/// What a run is made of.
pub(crate) struct Play<'a> {
    pub world: &'a World,
    pub truth: &'a Truth,
    pub policy: &'a Policy,
    /// Accounts and queues; without it, every name is taken.
    pub organisation: Option<&'a Organisation>,
    pub throughputs: Option<&'a Throughputs>,
    pub seed: u64,
    /// When prices change.
    pub bounds: Vec<Time>,
    /// What a device of each group draws, where there is a price list.
    pub watts: Vec<Watts>,
    /// Whose start is estimated at submit.
    pub estimates: Sample,
    /// Check every invariant after every entry.
    pub check: bool,
}

pub(crate) struct Played {
    /// False when somebody stopped it.
    pub complete: bool,
    /// In the order of the trace.
    pub results: Vec<JobResult>,
    /// In the order of their ends.
    pub attempts: Vec<AttemptResult>,
    pub meter: Meter,
    pub faults: Faults,
    pub sleepers: Sleepers,
    pub state: State,
    pub stats: Stats,
    /// Of this machine, and no part of the results.
    pub timing: Timing,
}

/// Somebody who looks on while a run is played.
pub(crate) trait Watch {
    /// After everything of one instant; `next` is when something happens again.
    fn after(&mut self, state: &State, recorder: &Recorder, next: Option<Time>) -> Going;
}

/// Nobody.
struct Unwatched;

impl Watch for Unwatched {
    fn after(&mut self, _state: &State, _recorder: &Recorder, _next: Option<Time>) -> Going {
        Going::On
    }
}

/// Nothing happens while the world is set up.
struct Idle;

impl Hooks for Idle {
    fn run_ms(&mut self, _state: &State, _gang: muster_common::GangId) -> Option<u64> {
        None
    }
}

impl Play<'_> {
    /// Plays the jobs to their end.
    ///
    /// # Errors
    /// A broken invariant, a refusal by the engine, or a file of events that cannot be written.
    pub fn run(
        &self,
        jobs: Vec<TraceJob>,
        events: Option<Events>,
        progress: &mut dyn FnMut(Progress) -> Going,
    ) -> Result<Played, SimError> {
        self.run_watched(jobs, events, progress, &mut Unwatched)
    }

    /// The same, before somebody's eyes.
    ///
    /// # Errors
    /// As [`Play::run`].
    pub fn run_watched(
        &self,
        jobs: Vec<TraceJob>,
        events: Option<Events>,
        progress: &mut dyn FnMut(Progress) -> Going,
        watch: &mut dyn Watch,
    ) -> Result<Played, SimError> {
        let world = self.world;
        let mut player = Player::new(State::new("simulated"), clockwork(world)).spaced(world.events.cycle_gap_ms);
        let begin = Time(world.on_tick(jobs.first().map_or(0, |job| job.submit_ms)));
        let nodes = self.set_up(&mut player, begin)?;
        let rates = world.failures.rates().map_err(SimError::Play)?;
        let faults = Faults::new(world, rates, self.seed, &nodes);
        let sleepers = Sleepers::new(world, self.seed, &nodes, begin);
        let asleep = sleepers.first_orders(&player.state);
        let classes: Vec<u32> = world.nodes.iter().map(|group| group.count).collect();
        let meter = Meter::new(&player.state, shapes(&jobs, world), &classes, &self.bounds, begin);
        let meter = meter.drawing(self.watts.clone());
        let mut recorder = Recorder::new(self, jobs, (faults, sleepers), meter, events, progress);
        for order in asleep {
            player.commit(begin, order, &mut recorder).map_err(|error| SimError::Play(error.to_string()))?;
        }
        self.arrivals(&mut player, &mut recorder);
        for (at, call) in recorder.begin(begin) {
            player.call_at(at, call);
        }
        let patience_ms = patience_ms(self.policy);
        let mut quiet_since = None;
        loop {
            let quiet = recorder.waits_for_machines();
            let now = player.state.now();
            quiet_since = if quiet { quiet_since.or(Some(now)) } else { None };
            let in_vain = quiet_since.is_some_and(|since: Time| now > since.plus_ms(patience_ms));
            let stuck = in_vain || player.only_calls_left() && recorder.nothing_can_change();
            if recorder.is_over() || recorder.is_stopped() || stuck || player.stats().entries > ENTRIES_MAX {
                break;
            }
            match player.step(&mut recorder) {
                Ok(true) => {
                    recorder.estimate(&player.state);
                    if watch.after(&player.state, &recorder, player.next_at()) == Going::Stop {
                        recorder.stop();
                    }
                }
                Ok(false) | Err(PlayError::TooLong { .. }) => break,
                Err(error) => return Err(SimError::Play(error.to_string())),
            }
        }
        recorder.finish(player)
    }

    fn set_up(&self, player: &mut Player, begin: Time) -> Result<Vec<NodeId>, SimError> {
        let configure = |change| Command::Configure { change: Box::new(change), by: operator() };
        // Keys are never repeated here: not forgetting them spares a timer a day.
        let settings = Settings { key_horizon_ms: Time::NEVER.0, ..Settings::default() };
        let mut commands = vec![
            configure(ConfigChange::Settings(settings)),
            configure(ConfigChange::Policy(self.policy.clone())),
            configure(ConfigChange::Fabric(self.world.fabric.clone())),
        ];
        let registrations = self.world.registrations();
        commands.extend(registrations.map(|registration| Command::RegisterNode(Box::new(registration))));
        // Last: quotas are checked against the devices there are.
        let document = self.organisation.map(|known| ConfigChange::Organisation(Arc::new(known.clone())));
        commands.extend(document.map(configure));
        let mut nodes = Vec::new();
        for command in commands {
            let outcome =
                player.commit(begin, command, &mut Idle).map_err(|error| SimError::Play(error.to_string()))?;
            match outcome.response {
                Response::Refused(refusal) => {
                    return Err(SimError::Play(format!("setting up the world: {refusal}")));
                }
                Response::Registered { node, .. } => nodes.push(node),
                _ => {}
            }
        }
        Ok(nodes)
    }

    /// Submits to come. What could never fit is not submitted.
    fn arrivals(&self, player: &mut Player, recorder: &mut Recorder) {
        let launch = Arc::new(launch());
        let mut fits: BTreeMap<(Vec<GroupRequest>, Vec<TopologyRequest>), bool> = BTreeMap::new();
        for index in 0..recorder.results.len() {
            let job = &recorder.results[index].job;
            let scheduling = self.world.scheduling(job);
            let asked = (scheduling.groups.clone(), scheduling.together.clone());
            let fits = *fits.entry(asked).or_insert_with(|| fits_ever(&player.state, &scheduling).is_ok());
            if !fits {
                recorder.results[index].state = JobState::Unplaceable;
                continue;
            }
            let at = Time(self.world.on_tick(job.submit_ms));
            let submit = submit_of(job, scheduling, &launch);
            recorder.expect(index);
            player.at(at, submit);
        }
        recorder.expect_in_order();
    }
}

/// Machines that nobody can switch are tried again and again. Where nothing has run for so long and nothing more
/// comes, what waits will wait for ever; machines that come only now and then have had their chances.
fn patience_ms(policy: &Policy) -> u64 {
    const CHANCES: u64 = 20;
    let round = |pool: &ElasticPool| {
        let once_ms = [pool.idle_ms, pool.sleep_timeout_ms, pool.wake_timeout_ms, pool.retry_ms];
        once_ms.into_iter().sum::<u64>().saturating_mul(CHANCES).saturating_add(pool.wake_after_ms)
    };
    policy.elastic.values().map(round).max().unwrap_or(u64::MAX)
}

fn submit_of(job: &TraceJob, scheduling: Scheduling, launch: &Arc<Launch>) -> Command {
    Command::Submit(Box::new(Submit {
        key: job.id.clone(),
        key_made_at: None,
        principal: job.user.as_deref().map_or_else(operator, |user| Principal(user.into())),
        name: job.name.clone().unwrap_or_else(|| Name::literal("recorded")),
        scheduling,
        launch: launch.clone(),
        body_hash: Hash::default(),
        hold: false,
        retry_of: None,
    }))
}

fn clockwork(world: &World) -> Clockwork {
    Clockwork {
        at_one_instant: if world.events.ends_first { InstantOrder::EndsFirst } else { InstantOrder::ArrivalsFirst },
        cycle_every: match world.events.cycle_after {
            CycleAfter::Entry => CycleEvery::Event,
            CycleAfter::Instant => CycleEvery::Instant,
        },
        kept_work: world.preemption.keeps_work,
    }
}

pub(crate) fn operator() -> Principal {
    Principal("simulator".into())
}

fn launch() -> Launch {
    Launch {
        name: Name::literal("recorded"),
        run: Run::Argv(Vec::new()),
        env: BTreeMap::new(),
        groups: Vec::new(),
        workdir: None,
        logs: LogLimits::default(),
        elements: Vec::new(),
    }
}

/// Typical requests, the most frequent first, until enough of all jobs are covered.
fn shapes(jobs: &[TraceJob], world: &World) -> Vec<Shape> {
    let largest = world.nodes.iter().map(|group| u32::from(group.devices)).max().unwrap_or(0);
    let mut counts: BTreeMap<(u32, u16, u64), u64> = BTreeMap::new();
    for job in jobs {
        let shared = job.devices == 1 && job.share_milli < 1000;
        let devices = match world.jobs.request {
            _ if shared => 0,
            Request::Nodes => job.devices.min(1),
            Request::Total | Request::OneNode => job.devices.min(largest),
        };
        let shape = (devices, if shared { job.share_milli } else { 0 }, job.cpu_milli.unwrap_or(0));
        *counts.entry(shape).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    let enough = (jobs.len() as u64 * SHAPES_COVER_PERCENT).div_ceil(100);
    let mut covered = 0;
    counts.retain(|(_, count)| {
        let wanted = covered < enough;
        covered += if wanted { count } else { &0 };
        wanted
    });
    let shape = |((devices, milli, cpu_milli), count): ((u32, u16, u64), u64)| Shape {
        devices,
        milli,
        cpu_milli,
        weight: count * 1_000_000 / covered.max(1),
    };
    counts.into_iter().map(shape).collect()
}

/// Calls at given times: drains, outages and cancellations.
pub(crate) fn planned(world: &World, results: &[JobResult], begin: Time) -> Vec<(Time, Call)> {
    let at = |s: u64| Time(s.saturating_mul(SECOND_MS));
    let mut calls = Vec::new();
    for (number, drain) in world.drains.iter().enumerate() {
        calls.push((at(drain.at_s), Call::Drain(number)));
        calls.extend(drain.until_s.map(|until_s| (at(until_s), Call::Undrain(number))));
    }
    calls.extend(outages(world, begin));
    let of_id: BTreeMap<&str, usize> =
        results.iter().enumerate().map(|(index, result)| (result.job.id.as_str(), index)).collect();
    for cancellation in &world.cancellations {
        if let Some(&index) = of_id.get(cancellation.job.as_str()) {
            calls.push((at(cancellation.at_s), Call::Cancel(index)));
        }
    }
    calls
}

/// As far as they are not over when the run begins.
fn outages(world: &World, begin: Time) -> Vec<(Time, Call)> {
    let machines: BTreeMap<Name, usize> =
        world.registrations().enumerate().map(|(number, registration)| (registration.name, number)).collect();
    let mut of_machine: BTreeMap<usize, Vec<PlannedOutage>> = BTreeMap::new();
    for outage in &world.outages {
        if let Some(&machine) = machines.get(&outage.node) {
            of_machine.entry(machine).or_default().push(outage.clone());
        }
    }
    let at = |s: u64| Time(s.saturating_mul(SECOND_MS));
    let call = move |machine: usize, outage: &PlannedOutage| {
        let from = at(outage.at_s).max(begin);
        let for_ms = outage.until_s().map(|until_s| at(until_s).since_ms(from));
        (for_ms != Some(0)).then_some((from, Call::Outage(machine, for_ms)))
    };
    let joined = of_machine.into_iter().map(|(machine, outages)| (machine, joined(outages)));
    joined.flat_map(|(machine, outages)| outages.into_iter().filter_map(move |outage| call(machine, &outage))).collect()
}

#[cfg(test)]
mod elastic;
#[cfg(test)]
mod estimates;
#[cfg(test)]
mod tests;
