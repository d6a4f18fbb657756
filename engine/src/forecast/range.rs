//! A start estimate as a range. The error model: every gang runs as long as one, drawn by chance, of its
//! user's earlier jobs of that name did; what runs already, as one of those that ran longer. Where fewer
//! than [`SEEN_MIN`] were seen, as long as the policy's sources say. The present is played forward so
//! [`RUNS`] times by the very engine, with fixed seeds.

use super::{Hooks, Player, World};
use crate::command::{Command, Entry};
use crate::cycle::Memo;
use crate::mix::mixed;
use crate::outcome::{Event, Outcome};
use crate::plan::runtime::run_ms;
use crate::state::State;
use crate::state::runtime::{RunTimes, Sketch};
use muster_common::{GangId, Time};
use std::collections::BTreeSet;

/// Plays.
pub const RUNS: u64 = 21;
/// Run times of a user and name from which on they are drawn from.
pub const SEEN_MIN: u32 = 5;
/// Steps of work of all plays together.
const WORK_MAX: u64 = 400_000;

/// Where the start lies in four plays of five.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartRange {
    pub early: Time,
    /// `None`: in more than a tenth of the plays it does not start.
    pub late: Option<Time>,
    /// Gangs ahead whose run time was drawn, in the first play.
    pub drawn: u32,
    /// Gangs ahead whose run time was not.
    pub fixed: u32,
}

/// Why there is no range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRange {
    /// Of nothing ahead enough earlier run times are known.
    NothingLearned,
    /// Too much is ahead to play it forward so often.
    TooMuch,
    /// In most plays it never starts.
    Unforeseen,
}

impl NoRange {
    pub const fn text(self) -> &'static str {
        match self {
            NoRange::NothingLearned => "no range: too few earlier jobs of the same users and names are known",
            NoRange::TooMuch => "no range: too much is ahead to play it forward that often",
            NoRange::Unforeseen => "no range: what is ahead mostly has no known end",
        }
    }
}

/// The 10th and the 90th percentile of a waiting gang's start.
///
/// # Errors
/// Why no range can be told.
pub fn start_range(state: &State, gang: GangId, now: Time) -> Result<StartRange, NoRange> {
    let mut starts: Vec<Time> = Vec::new();
    let mut left = WORK_MAX;
    let (mut drawn, mut fixed) = (0, 0);
    let mut memo = Memo::default();
    // Every play asks that too.
    memo.known(state, now).ever.emptied(state);
    let seen = state.run_times();
    for run in 0..RUNS {
        let mut draws = Draws { seen, run, gang, now, start: None, drawn: BTreeSet::new(), fixed: BTreeSet::new() };
        left = left.checked_sub(play(state, &memo, now, &mut draws, left)).ok_or(NoRange::TooMuch)?;
        if run == 0 {
            (drawn, fixed) = (draws.drawn.len() as u32, draws.fixed.len() as u32);
            if drawn == 0 {
                return Err(NoRange::NothingLearned);
            }
        }
        starts.push(draws.start.unwrap_or(Time::NEVER));
    }
    starts.sort_unstable();
    let at = |tenths: usize| starts[(starts.len() - 1) * tenths / 10];
    let (early, late) = (at(1), Some(at(9)).filter(|late| *late < Time::NEVER));
    if early == Time::NEVER { Err(NoRange::Unforeseen) } else { Ok(StartRange { early, late, drawn, fixed }) }
}

/// Plays until the gang has started. The work it took; more than `work_max` when it was cut. `memo`: what is
/// known of the present.
fn play(state: &State, memo: &Memo, now: Time, draws: &mut Draws<'_>, work_max: u64) -> u64 {
    let mut player = Player::new(state.clone(), World::default()).unhurried();
    player.memo = memo.clone();
    let begun = player.commit(now, Command::Nothing, draws).and_then(|_| player.adopt(now, draws));
    let mut goes_on = begun.and_then(|()| player.decide(now, draws)).is_ok();
    loop {
        let work = player.stats().work();
        if !goes_on || draws.start.is_some() || work > work_max {
            return work;
        }
        goes_on = player.step(draws).unwrap_or(false);
    }
}

struct Draws<'a> {
    /// Before the play, which adds the ends that it invents.
    seen: &'a RunTimes,
    run: u64,
    gang: GangId,
    now: Time,
    start: Option<Time>,
    drawn: BTreeSet<GangId>,
    fixed: BTreeSet<GangId>,
}

impl Hooks for Draws<'_> {
    fn run_ms(&mut self, state: &State, gang: GangId) -> Option<u64> {
        let job = state.job(gang.job)?;
        let limits = &state.scheduling_of(gang)?.limits;
        let sketch = self.seen.get(&job.principal, &job.name).filter(|sketch| sketch.count() >= SEEN_MIN);
        let ahead = gang != self.gang;
        let Some(sketch) = sketch.filter(|_| limits.exact_ms.is_none()) else {
            self.fixed.extend(ahead.then_some(gang));
            return run_ms(state.policy(), job, limits);
        };
        self.drawn.extend(ahead.then_some(gang));
        let record = state.gang(gang)?;
        let started = record.current().and_then(|attempt| attempt.started_at).unwrap_or(self.now);
        let ran_ms = self.now.since_ms(started);
        let part = chance(self.run, gang, record.attempt.0);
        let lasts_ms = longer_than(sketch, ran_ms, part).min(limits.time_ms.unwrap_or(u64::MAX));
        // The player takes off what earlier attempts have done; what is drawn is an attempt.
        Some(lasts_ms.saturating_add(record.served_ms))
    }

    fn on_entry(&mut self, _state: &State, entry: &Entry, outcome: &Outcome) -> Result<(), String> {
        let started = |event: &Event| matches!(event, Event::GangStarted { gang, .. } if *gang == self.gang);
        if outcome.events.iter().any(started) {
            self.start.get_or_insert(entry.at);
        }
        Ok(())
    }
}

/// A run time longer than what has passed, at so many thousandths of those that are.
fn longer_than(sketch: &Sketch, ran_ms: u64, part: u32) -> u64 {
    let at = |thousandths: u32| sketch.quantile_ms(thousandths).unwrap_or(0);
    let (mut low, mut high) = (0, 1001);
    while low < high {
        let middle = low + (high - low) / 2;
        if at(middle) > ran_ms { high = middle } else { low = middle + 1 }
    }
    match low {
        // It has outlived all that was seen: as long again at most.
        1001 => ran_ms.saturating_add(ran_ms.saturating_mul(u64::from(part)) / 1000),
        _ => at(low + (1001 - low) * part / 1001),
    }
}

/// A number below 1001 that is the same whenever it is asked for.
fn chance(run: u64, gang: GangId, attempt: u32) -> u32 {
    let seed = run.wrapping_mul(0xd134_2543_de82_ef95) ^ gang.job.0.rotate_left(32) ^ u64::from(gang.ordinal);
    (mixed(seed ^ u64::from(attempt).rotate_left(48)) % 1001) as u32
}
