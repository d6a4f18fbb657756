//! Start estimates: the present, played forward with expected run times.

use super::coarse::coarse;
use super::{Hooks, PlayError, Player, World};
use crate::command::{Command, Entry};
use crate::outcome::{Event, Outcome};
use crate::plan::ledger::{Ledger, Suppose};
use crate::plan::never::{NeverFits, fits_on};
use crate::plan::runtime::run_ms;
use crate::state::State;
use crate::state::gang::Allocation;
use muster_common::job::Hash;
use muster_common::{GangId, JobId, Time};
use std::collections::{BTreeMap, BTreeSet};

/// When what waits will start, if nothing new comes and everything runs as long as expected.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Forecast {
    /// `None`: no start can be foreseen (a hold, or behind something without a known end). An
    /// array's elements beyond the play's bound are missing.
    pub starts: BTreeMap<GangId, Option<Time>>,
    /// Of what runs now or starts in the play; `None` = its run time is not known.
    pub ends: BTreeMap<GangId, Option<Time>>,
    /// Of those that wait still where the play was cut: reckoned from the work ahead. Of an array's elements that
    /// were never placed, of the first.
    pub coarse: BTreeMap<GangId, Time>,
    /// Could not even run on an empty cluster.
    pub unplaceable: BTreeMap<JobId, NeverFits>,
    /// False when the play was cut short, so that a missing start means nothing.
    pub complete: bool,
}

/// An estimated start, and how it was come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    pub at: Time,
    /// The play did not reach it.
    pub coarse: bool,
}

impl Forecast {
    /// The start as it was played, else as it was reckoned.
    pub fn start(&self, gang: GangId) -> Option<Start> {
        let played = self.starts.get(&gang).copied().flatten().map(|at| Start { at, coarse: false });
        played.or_else(|| self.coarse.get(&gang).map(|at| Start { at: *at, coarse: true }))
    }
}

/// Most entries of one play.
const ENTRIES_MAX: u64 = 200_000;

/// How long a play takes everything to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assume {
    /// As the policy's sources of run times say.
    Expected,
    /// Each to its time limit; what has none never ends.
    Limits,
}

impl Assume {
    pub(super) fn run_ms(self, state: &State, gang: GangId) -> Option<u64> {
        let job = state.job(gang.job)?;
        let limits = &state.scheduling_of(gang)?.limits;
        match self {
            Assume::Expected => run_ms(state.policy(), job, limits),
            Assume::Limits => limits.time_ms,
        }
    }
}

/// A forecast, and where some gangs would be placed in it at first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Foreseen {
    pub forecast: Forecast,
    /// In rank order; of gangs that start in the play.
    pub places: BTreeMap<GangId, Vec<Allocation>>,
}

struct Watch<'a> {
    assume: Assume,
    watched: &'a BTreeSet<GangId>,
    forecast: Forecast,
    places: BTreeMap<GangId, Vec<Allocation>>,
}

impl Hooks for Watch<'_> {
    fn run_ms(&mut self, state: &State, gang: GangId) -> Option<u64> {
        self.assume.run_ms(state, gang)
    }

    fn on_entry(&mut self, state: &State, entry: &Entry, outcome: &Outcome) -> Result<(), String> {
        for event in &outcome.events {
            match event {
                Event::GangStarted { gang, .. } => {
                    self.forecast.starts.entry(*gang).or_insert(None).get_or_insert(entry.at);
                    self.forecast.ends.insert(*gang, None);
                    let attempt = state.gang(*gang).and_then(|gang| gang.current());
                    if let Some(attempt) = attempt.filter(|_| self.watched.contains(gang)) {
                        self.places.entry(*gang).or_insert_with(|| attempt.parts.clone());
                    }
                }
                Event::GangEnded { gang, .. } => {
                    self.forecast.ends.insert(*gang, Some(entry.at));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Plays the state forward from `now` until nothing more happens, within bounds.
pub fn forecast(state: &State, now: Time) -> Forecast {
    forecast_within(state, now, ENTRIES_MAX)
}

/// As [`forecast`], cut after so many entries.
pub fn forecast_within(state: &State, now: Time, entries_max: u64) -> Forecast {
    play(state, now, (&BTreeSet::new(), Assume::Expected), entries_max).forecast
}

/// As [`forecast`], with the places of some gangs, and under an assumption about run times.
pub fn foresee(state: &State, now: Time, watched: &BTreeSet<GangId>, assume: Assume) -> Foreseen {
    play(state, now, (watched, assume), ENTRIES_MAX)
}

fn play(state: &State, now: Time, (watched, assume): (&BTreeSet<GangId>, Assume), entries_max: u64) -> Foreseen {
    let mut watch = Watch { assume, watched, forecast: Forecast::default(), places: BTreeMap::new() };
    for gang in state.gangs().values() {
        match gang.current() {
            Some(_) => drop(watch.forecast.ends.insert(gang.id, None)),
            None => drop(watch.forecast.starts.insert(gang.id, None)),
        }
    }
    let empty = Ledger::of(state, Suppose::NOTHING_RUNS);
    let mut known: BTreeMap<Hash, Option<NeverFits>> = BTreeMap::new();
    for job in state.jobs().values() {
        if let Some(first) = job.unstarted.first() {
            watch.forecast.starts.insert(GangId::new(job.id, first), None);
            let shape = job.revision().scheduling;
            let never = known.entry(shape).or_insert_with(|| fits_on(state, state.scheduling(job), &empty).err());
            if let Some(never) = never {
                watch.forecast.unplaceable.insert(job.id, never.clone());
            }
        }
    }
    let mut player = Player::new(state.clone(), World::default()).unhurried();
    let begun = player.commit(now, Command::Nothing, &mut watch).and_then(|_| player.adopt(now, &mut watch));
    let played = begun.and_then(|()| player.decide(now, &mut watch)).and_then(|()| player.run(&mut watch, entries_max));
    watch.forecast.complete = played.is_ok();
    if matches!(played, Err(PlayError::TooLong { .. })) {
        watch.forecast.coarse = coarse(&mut player, &watch.forecast, assume);
    }
    Foreseen { forecast: watch.forecast, places: watch.places }
}
