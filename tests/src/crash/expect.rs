//! What must be on a disk, from the marks before the cut.
//!
//! Writes reach the disk in the order of the calls, so the log found is the log after some number of calls: at least the
//! acknowledged ones, at most those that had begun. The vote likewise.

use super::mark::{Mark, Op, Opened, Stored};
use muster_scheduler::consensus::{EngineState, LogPos, SavedVote};
use std::collections::{BTreeMap, BTreeSet};

/// A log, as the calls leave it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    pub entries: BTreeMap<u64, Stored>,
    pub purged: Option<LogPos>,
    pub last: Option<LogPos>,
}

#[derive(Debug, Clone)]
enum LogCall {
    Entry(Stored),
    Truncate(Option<LogPos>),
    Purge(LogPos),
}

impl Log {
    fn call(&mut self, call: &LogCall) {
        match call {
            LogCall::Entry(entry) => {
                self.entries.insert(entry.pos.index, *entry);
                self.last = Some(entry.pos);
            }
            LogCall::Truncate(keep) => {
                self.entries.split_off(&keep.map_or(0, |pos| pos.index + 1));
                if self.last > *keep {
                    self.last = (*keep).max(self.purged);
                }
            }
            LogCall::Purge(upto) => {
                self.entries = self.entries.split_off(&(upto.index + 1));
                self.purged = self.purged.max(Some(*upto));
                self.last = self.last.max(Some(*upto));
            }
        }
    }

    /// The first difference from what was found, in words.
    fn difference(&self, found: &Log) -> Option<String> {
        if self.purged != found.purged {
            return Some(format!("purged is {:?} and not {:?}", found.purged, self.purged));
        }
        let indexes: BTreeSet<&u64> = self.entries.keys().chain(found.entries.keys()).collect();
        for index in indexes {
            match (self.entries.get(index), found.entries.get(index)) {
                (Some(want), None) => return Some(format!("entry {} is missing", want.pos)),
                (None, Some(more)) => return Some(format!("entry {} should not be there", more.pos)),
                (Some(want), Some(got)) if want != got => {
                    return Some(format!("entry {} is another: {got:?} and not {want:?}", want.pos));
                }
                _ => {}
            }
        }
        (self.last != found.last).then(|| format!("last is {:?} and not {:?}", found.last, self.last))
    }
}

/// The calls of a life up to a cut, on top of what the life began with.
#[derive(Debug, Clone, Default)]
pub struct Expect {
    base: Log,
    calls: Vec<LogCall>,
    acked_calls: usize,
    votes: Vec<Option<SavedVote>>,
    acked_votes: usize,
    commits: BTreeSet<LogPos>,
    snapshots: Vec<(LogPos, u64)>,
    acked_snapshot: Option<LogPos>,
    /// What the history was given: true where its record is, false where it was told of a gap.
    pub history: BTreeMap<u64, bool>,
    pub history_synced: Option<u64>,
    /// Per call begun: how many log calls, votes and snapshots there were with it, and what it synced of the history.
    begun: BTreeMap<u64, Begun>,
}

#[derive(Debug, Clone, Copy)]
struct Begun {
    calls: usize,
    votes: usize,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Log,
    Snapshot(LogPos),
    History(Option<u64>),
}

impl Expect {
    /// A server's first life: empty folders.
    pub fn nothing() -> Self {
        Self { votes: vec![None], ..Self::default() }
    }

    /// Takes in the next mark of the life.
    pub fn step(&mut self, mark: &Mark) {
        match mark {
            Mark::Opened(opened) => self.begin_anew(opened),
            Mark::Began { number, what } => self.begin(*number, what),
            Mark::Done { number } => self.acknowledge(*number),
        }
    }

    fn begin(&mut self, number: u64, what: &Op) {
        let mut kind = Kind::Log;
        match what {
            Op::Vote(vote) => self.votes.push(Some(*vote)),
            Op::Append(entries) => self.calls.extend(entries.iter().copied().map(LogCall::Entry)),
            Op::Truncate(keep) => self.calls.push(LogCall::Truncate(*keep)),
            Op::Purge(upto) => self.calls.push(LogCall::Purge(*upto)),
            Op::Committed(upto) => drop(self.commits.insert(*upto)),
            Op::Snapshot(last, hash) => {
                self.snapshots.push((*last, *hash));
                kind = Kind::Snapshot(*last);
            }
            Op::History { index, gap } => {
                if *gap {
                    let from = self.history.last_key_value().map_or(0, |(last, _)| last + 1);
                    self.history.extend((from..=*index).map(|index| (index, false)));
                } else {
                    self.history.insert(*index, true);
                }
            }
            Op::HistorySync { through } => kind = Kind::History(*through),
        }
        // Counted from one vote before any was cast.
        self.begun.insert(number, Begun { calls: self.calls.len(), votes: self.votes.len() - 1, kind });
    }

    /// An acknowledgement covers the call and every earlier one of the same store.
    fn acknowledge(&mut self, number: u64) {
        let Some(begun) = self.begun.get(&number).copied() else { return };
        match begun.kind {
            Kind::Log => {
                self.acked_calls = self.acked_calls.max(begun.calls);
                self.acked_votes = self.acked_votes.max(begun.votes);
            }
            Kind::Snapshot(last) => self.acked_snapshot = self.acked_snapshot.max(Some(last)),
            Kind::History(through) => self.history_synced = self.history_synced.max(through),
        }
    }

    /// What a new life found is what it answers for: others were told.
    fn begin_anew(&mut self, opened: &Opened) {
        let entries = opened.entries.iter().map(|entry| (entry.pos.index, *entry)).collect::<BTreeMap<_, _>>();
        let last = opened.entries.last().map(|entry| entry.pos).max(opened.purged);
        self.base = Log { entries, purged: opened.purged, last };
        self.calls.clear();
        self.acked_calls = 0;
        self.votes = vec![opened.vote];
        self.acked_votes = 0;
        self.begun.clear();
        self.acked_snapshot = opened.snapshot.map(|(last, _)| last);
        if opened.history_moved {
            self.history.clear();
            self.history_synced = None;
        }
    }

    /// Judges a log that was opened.
    pub fn check_log(&self, state: &EngineState, found: &[Stored]) -> Result<(), String> {
        let found = Log {
            entries: found.iter().map(|entry| (entry.pos.index, *entry)).collect(),
            purged: state.purged,
            last: state.last,
        };
        let mut log = self.base.clone();
        self.calls[..self.acked_calls].iter().for_each(|call| log.call(call));
        let acknowledged = log.difference(&found);
        let mut later = self.calls[self.acked_calls..].iter();
        let mut difference = acknowledged.clone();
        while difference.is_some()
            && let Some(call) = later.next()
        {
            log.call(call);
            difference = log.difference(&found);
        }
        if difference.is_some() {
            let what = acknowledged.unwrap_or_default();
            return Err(format!("the log is as after no call since the last acknowledged one: {what}"));
        }
        if !self.votes[self.acked_votes..].contains(&state.vote) {
            let want = self.votes[self.acked_votes];
            return Err(format!("the vote is {:?}, although {want:?} was acknowledged", state.vote));
        }
        match state.committed {
            Some(upto) if !self.commits.contains(&upto) => Err(format!("{upto} was never saved as committed")),
            _ => Ok(()),
        }
    }

    /// Judges the newest snapshot; a damaged disk may give back an older one.
    pub fn check_snapshot(&self, newest: Option<(LogPos, u64)>, damaged: bool) -> Result<(), String> {
        let found = newest.map(|(last, _)| last);
        if found < self.acked_snapshot && !damaged {
            return Err(format!(
                "the newest snapshot ends at {found:?}, although {:?} was published",
                self.acked_snapshot
            ));
        }
        match newest {
            Some(newest) if !self.snapshots.contains(&newest) => {
                Err(format!("the snapshot at {} is not what was written", newest.0))
            }
            _ => Ok(()),
        }
    }

    /// The highest index that was ever called committed.
    pub fn committed(&self) -> Option<LogPos> {
        self.commits.last().copied()
    }
}
