//! The event loop with ideal agents: plays the present forward. A simulator wraps [`Player`] and
//! adds delays, faults and money; it writes no second loop.

mod agents;
mod coarse;
mod estimate;
mod power;
mod range;

pub use estimate::{Assume, Forecast, Foreseen, Start, forecast, forecast_within, foresee};
pub use range::{NoRange, RUNS, StartRange, start_range};

use crate::apply::apply;
use crate::command::{Command, Entry, Exit, NodeReport, STEP_MS_MAX};
use crate::cycle::{Cycle, Memo, cycle};
use crate::outcome::Outcome;
use crate::state::State;
use muster_common::time::HOUR_MS;
use muster_common::{AttemptNo, GangId, NodeId, Time};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// What belongs to the world that is played, never to the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct World {
    pub at_one_instant: InstantOrder,
    pub cycle_every: CycleEvery,
    /// Does an attempt go on where the one before it was stopped?
    pub kept_work: bool,
}

impl Default for World {
    fn default() -> Self {
        Self { at_one_instant: InstantOrder::EndsFirst, cycle_every: CycleEvery::Instant, kept_work: true }
    }
}

/// Ends of one instant keep the order of their starts, arrivals the order in which they were given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstantOrder {
    EndsFirst,
    ArrivalsFirst,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CycleEvery {
    /// After each arrival and each end, with what agents answer at once.
    Event,
    /// After all that happens at one instant.
    Instant,
}

/// What the world knows and the engine does not, and whoever watches.
pub trait Hooks {
    /// How long the whole work of the gang that starts now takes; `None` = it never ends by itself.
    fn run_ms(&mut self, state: &State, gang: GangId) -> Option<u64>;

    /// After every entry. An error stops the play; `State::check` belongs here.
    fn on_entry(&mut self, _state: &State, _entry: &Entry, _outcome: &Outcome) -> Result<(), String> {
        Ok(())
    }

    /// Right before every cycle, for whoever times it.
    fn before_cycle(&mut self) {}

    /// After every cycle, before its commands are committed.
    fn on_cycle(&mut self, _state: &State, _now: Time, _cycle: &Cycle) {}

    /// When and how the attempt that runs now ends by itself, where that is more than the rest of
    /// `run_ms` and an exit with 0: other machines, failures. `None` = as `run_ms` says.
    fn attempt_end(&mut self, _state: &State, _gang: GangId) -> Option<AttemptEnd> {
        None
    }

    /// The moment has come for which the world asked with this number; see [`Player::call_at`].
    fn called(&mut self, _state: &State, _at: Time, _call: u64) -> Vec<Act> {
        Vec::new()
    }

    /// From placement until all parts have prepared. 0 = before the next cycle.
    fn prepare_ms(&mut self, _state: &State, _gang: GangId) -> u64 {
        0
    }

    /// From the order to stop until all parts are released. 0 = before the next cycle.
    fn release_ms(&mut self, _state: &State, _gang: GangId) -> u64 {
        0
    }

    /// From the order to sleep until the node is off; `None` = it cannot be switched off.
    fn sleep_ms(&mut self, _state: &State, _node: NodeId) -> Option<u64> {
        Some(0)
    }

    /// From the order to wake until the node is back; `None` = it does not come.
    fn wake_ms(&mut self, state: &State, node: NodeId) -> Option<u64> {
        let record = state.node(node)?;
        let pool = state.policy().elastic_of(&record.name, &record.inventory);
        Some(pool.map_or(0, |(_, pool)| pool.wake_ms))
    }
}

/// How an attempt ends by itself; `at` = [`Time::NEVER`]: it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptEnd {
    pub at: Time,
    /// Of every rank when it is a success, else of the first one, and the others are stopped.
    pub exit: Exit,
}

/// What a world does to the cluster at a moment of its own choosing.
#[derive(Debug, Clone)]
pub enum Act {
    Commit(Command),
    /// By a node's agent; the number is given when it is sent.
    Report(NodeReport),
    /// Nothing is heard of the node any more, and nothing that runs there ends by itself.
    Mute(NodeId),
    Unmute(NodeId),
    CallAt(Time, u64),
}

/// Why a play cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlayError {
    #[error("after entry {index}: {why}")]
    Broken { index: u64, why: String },
    #[error("at {at} more than {rounds} cycles in a row decided something; the policy does not settle")]
    Unsettled { at: Time, rounds: u32 },
    #[error("stopped after {entries} entries")]
    TooLong { entries: u64 },
}

/// Wakes without a decision and with nothing left to happen, after which nothing more is expected: an hour of
/// steps of an order.
const IDLE_WAKES_MAX: u32 = 60;

/// Most cycles at one instant.
const ROUNDS_MAX: u32 = 10_000;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub entries: u64,
    pub cycles: u64,
    pub spent: u64,
    pub truncated: u64,
}

/// What an entry and a cycle cost beside the steps of the cycle, in such steps.
const ENTRY_WORK: u64 = 8;
const CYCLE_WORK: u64 = 16;

impl Stats {
    /// Steps of work of all that was played, by which plays for an answer are bounded.
    pub fn work(&self) -> u64 {
        self.spent + ENTRY_WORK * self.entries + CYCLE_WORK * self.cycles
    }
}

#[derive(Debug, Clone)]
enum Happening {
    Arrival(Box<Command>),
    End {
        gang: GangId,
        attempt: AttemptNo,
        exit: Exit,
    },
    /// A delayed answer of agents.
    Prepare {
        gang: GangId,
        attempt: AttemptNo,
    },
    Release {
        gang: GangId,
        attempt: AttemptNo,
    },
    /// A machine that was asked at that moment is off, or back.
    Asleep {
        node: NodeId,
        asked: Time,
    },
    Awake {
        node: NodeId,
        asked: Time,
    },
    /// The world is to act.
    Call(u64),
}

/// What the world does comes after all else of an instant.
const CALLS: u8 = 3;

/// A State, its future, and the loop over both.
#[derive(Debug)]
pub struct Player {
    pub state: State,
    pub memo: Memo,
    pub world: World,
    /// By moment, kind and order of insertion.
    queue: BTreeMap<(Time, u8, u64), Happening>,
    inserted: u64,
    wake: Option<Time>,
    /// No cycle sooner than this after one at an earlier moment; when the last one was, and after which entry.
    gap_ms: u64,
    decided: Option<(Time, u64)>,
    /// Wakes in turn at which nothing was decided, with nothing left to happen.
    idle_wakes: u32,
    /// Steps of an order in turn at which nothing happened and nothing was decided, of who looks ever more rarely then.
    quiet_steps: Option<u32>,
    /// When the last cycle would have woken but for such steps.
    named: Option<Time>,
    /// Report numbers used, by node.
    numbers: BTreeMap<NodeId, u64>,
    /// Nodes of which nothing is heard.
    mute: BTreeSet<NodeId>,
    /// Calls in `queue`.
    calls: usize,
    stats: Stats,
}

impl Player {
    pub fn new(state: State, world: World) -> Self {
        Self {
            state,
            memo: Memo::default(),
            world,
            queue: BTreeMap::new(),
            inserted: 0,
            wake: None,
            gap_ms: 0,
            decided: None,
            idle_wakes: 0,
            quiet_steps: None,
            named: None,
            numbers: BTreeMap::new(),
            mute: BTreeSet::new(),
            calls: 0,
            stats: Stats::default(),
        }
    }

    /// With at least so much time between the moments at which is decided.
    pub fn spaced(self, gap_ms: u64) -> Self {
        Self { gap_ms, ..self }
    }

    /// For answers that must not take for ever: after an hour of steps of an order at which nothing happened and nothing
    /// was decided, the next ones come ever more rarely until something does.
    pub fn unhurried(self) -> Self {
        Self { quiet_steps: Some(0), ..self }
    }

    /// A command that somebody will propose at a moment: a submit, a node, a cancel.
    pub fn at(&mut self, at: Time, command: Command) {
        let rank = match self.world.at_one_instant {
            InstantOrder::ArrivalsFirst => 0,
            InstantOrder::EndsFirst => 2,
        };
        self.insert(at, rank, Happening::Arrival(Box::new(command)));
    }

    /// Asks for [`Hooks::called`] at a moment. Calls alone never keep a play going on: see
    /// [`Player::only_calls_left`].
    pub fn call_at(&mut self, at: Time, call: u64) {
        self.calls += 1;
        self.insert(at, CALLS, Happening::Call(call));
    }

    /// Nothing but the world's own doings is still to happen.
    pub fn only_calls_left(&self) -> bool {
        self.queue.len() == self.calls && self.wake.is_none()
    }

    fn insert(&mut self, at: Time, rank: u8, happening: Happening) {
        self.inserted += 1;
        self.queue.insert((at, rank, self.inserted), happening);
    }

    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The next moment at which something happens.
    pub fn next_at(&self) -> Option<Time> {
        let queued = self.queue.keys().next().map(|key| key.0);
        queued.into_iter().chain(self.wake).min()
    }

    /// Applies a command at a moment, and whatever ideal agents answer at once.
    pub fn commit(&mut self, at: Time, command: Command, hooks: &mut dyn Hooks) -> Result<Outcome, PlayError> {
        if at.since_ms(self.state.now()) > STEP_MS_MAX {
            self.append(at, Command::AdvanceTime { to: at }, hooks)?;
        }
        let outcome = self.append(at, command, hooks)?;
        self.answer(&outcome, at, hooks)?;
        Ok(outcome)
    }

    fn append(&mut self, at: Time, command: Command, hooks: &mut dyn Hooks) -> Result<Outcome, PlayError> {
        let (index, term) = (self.state.applied_index() + 1, self.state.applied_term().max(1));
        let entry = Entry { index, term, at, command };
        let outcome = apply(&mut self.state, &entry);
        self.stats.entries += 1;
        match hooks.on_entry(&self.state, &entry, &outcome) {
            Ok(()) => Ok(outcome),
            Err(why) => Err(PlayError::Broken { index, why }),
        }
    }

    /// Plays the next event or instant, with its cycles. False when nothing is left to happen.
    pub fn step(&mut self, hooks: &mut dyn Hooks) -> Result<bool, PlayError> {
        let Some(at) = self.next_at() else { return Ok(false) };
        let before = self.stats.entries;
        let mut happened = self.happen(at, hooks)?;
        // What changes nothing, as the end of an attempt that is over already, is nothing to decide on.
        while happened && (self.world.cycle_every == CycleEvery::Instant || before == self.stats.entries) {
            happened = self.happen(at, hooks)?;
        }
        let quiet = before == self.stats.entries;
        if quiet && self.wake.is_none_or(|wake| wake > at) {
            return Ok(true);
        }
        if self.rests(at) {
            return Ok(true);
        }
        let (events, entries) = (self.queue.len(), self.stats.entries);
        self.decide(at, hooks)?;
        self.decided = Some((at, self.stats.entries)).filter(|_| self.gap_ms > 0);
        // An order that moves with time wakes for ever beside what never ends.
        self.idle_wakes = if events == 0 && entries == self.stats.entries { self.idle_wakes + 1 } else { 0 };
        if self.idle_wakes >= IDLE_WAKES_MAX {
            self.wake = None;
        }
        self.look_more_rarely(at, quiet && entries == self.stats.entries);
        Ok(true)
    }

    fn look_more_rarely(&mut self, at: Time, idle: bool) {
        let Some(quiet) = &mut self.quiet_steps else { return };
        *quiet = if idle { *quiet + 1 } else { 0 };
        let Some(twice) = quiet.checked_sub(IDLE_WAKES_MAX) else { return };
        if self.wake != self.named {
            // Twice as long each time, so that even the end of time is near.
            let rarely = Some(at.plus_ms(HOUR_MS << twice.min(40))).filter(|rarely| *rarely < Time::NEVER);
            self.wake = self.named.into_iter().chain(rarely).min();
        }
    }

    /// Is it too early for another cycle, or has nothing changed? What has changed is decided on when it is time.
    fn rests(&mut self, at: Time) -> bool {
        let Some((before, entries)) = self.decided else { return false };
        let woken = self.wake.is_some_and(|wake| wake <= at);
        if !woken && entries == self.stats.entries {
            return true;
        }
        let open_at = before.plus_ms(self.gap_ms);
        if at > before && at < open_at {
            self.wake = Some(open_at);
            return true;
        }
        false
    }

    /// One queued happening of this very moment.
    fn happen(&mut self, at: Time, hooks: &mut dyn Hooks) -> Result<bool, PlayError> {
        let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= at) else { return Ok(false) };
        match entry.remove() {
            Happening::Arrival(command) => {
                self.commit(at, *command, hooks)?;
            }
            Happening::End { gang, attempt, exit } => self.report_end(gang, attempt, exit, at, hooks)?,
            Happening::Prepare { gang, attempt } => self.report_prepared(gang, attempt, at, hooks)?,
            Happening::Release { gang, attempt } => self.report_released(gang, attempt, at, hooks)?,
            Happening::Asleep { node, asked } => self.fell_asleep((node, asked), at, hooks)?,
            Happening::Awake { node, asked } => self.woke_up((node, asked), at, hooks)?,
            Happening::Call(call) => {
                self.calls -= 1;
                for act in hooks.called(&self.state, at, call) {
                    self.act(act, at, hooks)?;
                }
            }
        }
        Ok(true)
    }

    fn act(&mut self, act: Act, at: Time, hooks: &mut dyn Hooks) -> Result<(), PlayError> {
        match act {
            Act::Commit(command) => drop(self.commit(at, command, hooks)?),
            Act::Report(report) => self.send(vec![report], at, hooks)?,
            Act::Mute(node) => drop(self.mute.insert(node)),
            Act::Unmute(node) => drop(self.mute.remove(&node)),
            Act::CallAt(at, call) => self.call_at(at, call),
        }
        Ok(())
    }

    /// Cycles until nothing more is decided.
    pub fn decide(&mut self, at: Time, hooks: &mut dyn Hooks) -> Result<(), PlayError> {
        for _ in 0..ROUNDS_MAX {
            hooks.before_cycle();
            let decided = cycle(&self.state, &mut self.memo, at);
            self.stats.cycles += 1;
            self.stats.spent += decided.spent;
            self.stats.truncated += u64::from(decided.truncated);
            hooks.on_cycle(&self.state, at, &decided);
            (self.wake, self.named) = (decided.wake_at, decided.named_at);
            if decided.commands.is_empty() {
                return Ok(());
            }
            for command in decided.commands {
                self.commit(at, command, hooks)?;
            }
        }
        Err(PlayError::Unsettled { at, rounds: ROUNDS_MAX })
    }

    /// Plays until nothing is left to happen.
    pub fn run(&mut self, hooks: &mut dyn Hooks, entries_max: u64) -> Result<(), PlayError> {
        while self.step(hooks)? {
            if self.stats.entries > entries_max {
                return Err(PlayError::TooLong { entries: self.stats.entries });
            }
        }
        Ok(())
    }

    fn number(&mut self, node: NodeId) -> u64 {
        let applied = self.state.node(node).map_or(0, |record| record.reports_applied);
        let number = self.numbers.entry(node).or_insert(applied);
        *number = (*number).max(applied) + 1;
        *number
    }
}

/// A report without its number, which is given when it is sent.
type Unsent = Vec<NodeReport>;
