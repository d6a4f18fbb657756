//! One play of the present with a change made in it: the loop of the forecast, watched, and ended as
//! soon as it has told what it was played for.

use crate::command::{Command, Entry};
use crate::cycle::Memo;
use crate::forecast::{Hooks, Player, World};
use crate::outcome::{Event, Outcome, Response};
use crate::plan::ledger::Ledger;
use crate::plan::runtime::run_ms;
use crate::state::State;
use muster_common::{GangId, Time};
use std::collections::BTreeMap;

/// What to play for.
pub(super) struct Trial<'a> {
    /// The gang that is to start sooner than in another play.
    sooner: Option<(GangId, &'a Played)>,
    work_max: u64,
}

impl<'a> Trial<'a> {
    /// Everything, as far as the work goes.
    pub fn to_the_end(work_max: u64) -> Self {
        Self { sooner: None, work_max }
    }

    /// Whether a gang starts sooner than in `base`, and then who of those who start there starts later.
    pub fn of(gang: GangId, base: &'a Played, work_max: u64) -> Self {
        Self { sooner: Some((gang, base)), work_max }
    }
}

/// What a play showed.
pub(super) struct Played {
    /// First starts, in the play.
    pub starts: BTreeMap<GangId, Time>,
    /// After the first decision, where it is played to the end: State, and what is free.
    pub decided: Option<(State, Ledger)>,
    /// It was played as far as it was asked for.
    pub is_told: bool,
    /// The work ended before.
    pub is_cut: bool,
    upto: Time,
    pub work: u64,
}

impl Played {
    pub fn start_of(&self, gang: GangId) -> Option<Time> {
        self.starts.get(&gang).copied()
    }

    /// When the gang starts, or a moment at which it still waits where that is not known.
    pub fn bound_of(&self, gang: GangId) -> Time {
        let unknown = if self.is_cut { self.upto } else { Time::NEVER };
        self.start_of(gang).unwrap_or(unknown)
    }
}

#[derive(Default)]
struct Starts(BTreeMap<GangId, Time>);

impl Hooks for Starts {
    fn run_ms(&mut self, state: &State, gang: GangId) -> Option<u64> {
        let job = state.job(gang.job)?;
        run_ms(state.policy(), job, &state.scheduling_of(gang)?.limits)
    }

    fn on_entry(&mut self, _state: &State, entry: &Entry, outcome: &Outcome) -> Result<(), String> {
        for event in &outcome.events {
            if let Event::GangStarted { gang, .. } = event {
                self.0.entry(*gang).or_insert(entry.at);
            }
        }
        Ok(())
    }
}

/// Plays the present with a change in it. `None` when the change is refused, or changes nothing. `memo`: what
/// is known of the present.
pub(super) fn play(state: &State, memo: &Memo, now: Time, change: &[Command], trial: Trial) -> Option<Played> {
    let mut player = Player::new(state.clone(), World::default()).unhurried();
    let mut starts = Starts::default();
    player.commit(now, Command::Nothing, &mut starts).ok()?;
    for command in change {
        match player.commit(now, command.clone(), &mut starts).ok()?.response {
            Response::Refused(_) | Response::Noop => return None,
            _ => {}
        }
    }
    player.memo = memo.clone();
    let begun = player.adopt(now, &mut starts).and_then(|()| player.decide(now, &mut starts));
    let decided = trial.sooner.is_none().then(|| {
        let ledger = player.memo.known(&player.state, now).ledger.clone();
        (player.state.clone(), ledger)
    });
    let mut upto = now;
    let mut is_cut = begun.is_err();
    let mut is_told = false;
    while !is_cut {
        if is_over(&trial, &starts.0, upto) {
            is_told = true;
            break;
        }
        is_cut = player.stats().work() > trial.work_max;
        let Some(next) = player.next_at().filter(|_| !is_cut) else {
            is_told = !is_cut;
            break;
        };
        upto = next;
        is_cut = player.step(&mut starts).is_err();
    }
    Some(Played { decided, is_told, is_cut, upto, work: player.stats().work(), starts: starts.0 })
}

/// Has the play told all that it was played for?
fn is_over(trial: &Trial, starts: &BTreeMap<GangId, Time>, upto: Time) -> bool {
    let Some((gang, base)) = trial.sooner else { return false };
    if !starts.contains_key(&gang) {
        return upto >= base.bound_of(gang);
    }
    base.starts.keys().all(|other| starts.contains_key(other))
}
