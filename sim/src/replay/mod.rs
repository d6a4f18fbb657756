//! A recorded log once more: State is rebuilt entry by entry, and a judge sees each decision beside the State it was
//! made from. What such a replay can say and what it cannot is in docs/how-to/try-a-policy.md.

pub mod counterfactual;
pub mod shadow;
#[cfg(test)]
mod tests;
pub mod verify;

use muster_common::Time;
use muster_common::job::Hash;
use muster_engine::command::{CommitPlan, Entry};
use muster_engine::outcome::Outcome;
use muster_engine::{Command, State, apply};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};

/// Entries looked ahead for the decision that a State led to; a leader has one plan in flight.
const AHEAD: usize = 1_024;
/// Gaps named one by one; all are counted.
const GAPS_NAMED_MAX: usize = 20;

/// One cycle's plan, as it was committed.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Of its first entry.
    pub index: u64,
    pub plans: Vec<CommitPlan>,
}

impl Decision {
    pub fn now(&self) -> Time {
        self.plans[0].now
    }

    pub fn engine_version(&self) -> u32 {
        self.plans[0].engine_version
    }
}

/// Who looks at a log as it is replayed.
pub trait Judge {
    /// A decision, and the State it was made from.
    fn decision(&mut self, state: &State, decision: &Decision);

    /// An entry was applied.
    fn applied(&mut self, state: &State, entry: &Entry, outcome: &Outcome);

    /// What comes next does not follow what came before.
    fn interrupted(&mut self);
}

/// What was replayed, and what could not be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Account {
    /// The first index whose State is known; `None` when no State is.
    pub from_index: Option<u64>,
    pub to_index: u64,
    pub from_ms: u64,
    pub to_ms: u64,
    pub entries: u64,
    /// Cycles that committed a plan.
    pub decisions: u64,
    /// Those whose State is not in the log.
    pub out_of_reach: u64,
    /// Stretches of the log that are missing, both ends included.
    pub gaps: Vec<(u64, u64)>,
    pub gaps_count: u64,
    /// Parts that are damaged, or that this version cannot read.
    pub unreadable: Vec<String>,
    pub unreadable_count: u64,
    /// Recorded States that were compared with the one rebuilt from the entries before them.
    pub states_compared: u64,
    pub states_differ: Vec<u64>,
}

/// A replay under way.
#[derive(Debug)]
pub struct Replay<J> {
    judge: J,
    state: Option<State>,
    ahead: VecDeque<Entry>,
    /// Of the decisions ahead, by the index they were made at.
    decisions: BTreeMap<u64, Vec<Decision>>,
    /// Recorded States ahead: their hash, by index.
    recorded: BTreeMap<u64, Hash>,
    /// The last index handed in, of what can be rebuilt.
    last: Option<u64>,
    /// The first missing index of a gap that no State has ended yet.
    gap_from: Option<u64>,
    seen: u64,
    account: Account,
}

impl<J: Judge> Replay<J> {
    pub fn new(judge: J) -> Self {
        Self {
            judge,
            state: None,
            ahead: VecDeque::new(),
            decisions: BTreeMap::new(),
            recorded: BTreeMap::new(),
            last: None,
            gap_from: None,
            seen: 0,
            account: Account::default(),
        }
    }

    /// A State of the log: where a replay can begin, or what it must have come to.
    pub fn begin(&mut self, state: State) {
        let index = state.applied_index();
        match self.last {
            // Another beginning of what is known: after a restart, entries are applied once more.
            Some(last) if index <= last => {
                let present = self.state.as_ref().map_or(u64::MAX, State::applied_index);
                if index > present {
                    self.recorded.insert(index, state.hash());
                }
            }
            _ => {
                if let Some(from) = self.gap_from.take().or(self.last.map(|last| last + 1)) {
                    self.gap(from, index);
                }
                self.drain(0);
                if self.state.is_some() {
                    self.judge.interrupted();
                }
                if self.account.from_index.is_none() {
                    self.account.from_index = Some(index);
                    self.account.from_ms = state.now().0;
                }
                self.out_of_reach_below(index);
                self.last = Some(index);
                self.state = Some(state);
            }
        }
    }

    /// The next entry; one that is known already is passed over.
    pub fn entry(&mut self, entry: Entry) {
        self.seen = self.seen.max(entry.index);
        let Some(last) = self.last else { return self.unplaced(&entry) };
        if entry.index <= last {
            return;
        }
        if entry.index > last + 1 {
            // Nothing can be rebuilt before the next State.
            self.gap_from = Some(last + 1);
            self.drain(0);
            self.state = None;
            self.last = None;
            self.judge.interrupted();
            return self.unplaced(&entry);
        }
        self.last = Some(entry.index);
        if let Command::CommitPlan(plan) = &entry.command {
            self.expect(entry.index, plan);
        }
        self.ahead.push_back(entry);
        self.drain(AHEAD);
    }

    /// A part of the log that cannot be read.
    pub fn unreadable(&mut self, why: String) {
        self.account.unreadable_count += 1;
        if self.account.unreadable.len() < GAPS_NAMED_MAX {
            self.account.unreadable.push(why);
        }
    }

    /// The judge, and what it has seen.
    pub fn finish(mut self) -> (J, Account) {
        self.drain(0);
        self.out_of_reach_below(u64::MAX);
        if let Some(from) = self.gap_from {
            self.gap(from, self.seen);
        }
        (self.judge, self.account)
    }

    fn unplaced(&mut self, entry: &Entry) {
        if matches!(entry.command, Command::CommitPlan(_)) {
            self.account.decisions += 1;
            self.account.out_of_reach += 1;
        }
    }

    fn gap(&mut self, from: u64, to: u64) {
        self.account.gaps_count += 1;
        if self.account.gaps.len() < GAPS_NAMED_MAX {
            self.account.gaps.push((from, to));
        }
    }

    fn expect(&mut self, index: u64, plan: &CommitPlan) {
        let of_state = self.decisions.entry(plan.made_at).or_default();
        match of_state.last_mut().filter(|last| last.now() == plan.now) {
            Some(last) => last.plans.push(plan.clone()),
            None => {
                self.account.decisions += 1;
                of_state.push(Decision { index, plans: vec![plan.clone()] });
            }
        }
    }

    /// Applies what is ahead, all but the last `keep` entries.
    fn drain(&mut self, keep: usize) {
        while self.ahead.len() > keep {
            self.judge_here();
            let (Some(state), Some(entry)) = (self.state.as_mut(), self.ahead.pop_front()) else { return };
            let outcome = apply(state, &entry);
            self.account.entries += 1;
            (self.account.to_index, self.account.to_ms) = (entry.index, state.now().0);
            if let Some(recorded) = self.recorded.remove(&entry.index) {
                self.account.states_compared += 1;
                if state.hash() != recorded {
                    self.account.states_differ.push(entry.index);
                }
            }
            self.judge.applied(state, &entry, &outcome);
        }
    }

    /// What was decided on the present State.
    fn judge_here(&mut self) {
        let Some(state) = &self.state else { return };
        let index = state.applied_index();
        while let Some(first) = self.decisions.first_entry().filter(|first| *first.key() <= index) {
            let (made_at, decisions) = first.remove_entry();
            if made_at < index {
                self.account.out_of_reach += decisions.len() as u64;
                continue;
            }
            for decision in &decisions {
                self.judge.decision(state, decision);
            }
        }
    }

    fn out_of_reach_below(&mut self, index: u64) {
        while let Some(first) = self.decisions.first_entry().filter(|first| *first.key() < index) {
            self.account.out_of_reach += first.remove().len() as u64;
        }
    }
}
