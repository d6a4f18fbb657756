//! What the recorded process does: opens the stores as a server does and drives them from a seed, marking what it begins
//! and what was acknowledged.

use super::dice::{Dice, hash_of};
use super::engine::{Engine, all_entries};
use super::mark::{Mark, Marker, Op, Opened, Stored};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use muster_scheduler::consensus::{LogEngine, LogPos, OnDurable, Record, SavedVote, SnapshotProbe};
use muster_scheduler::history::{self, HistoryStore};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Longest entry, bytes.
const BODY_BYTES_MAX: u64 = 256 << 10;
/// Appends and votes that may wait for the disk at once.
const WAITING_MAX: usize = 12;
/// Where a snapshot to be installed is made first; outside the watched folder.
const ELSEWHERE: &str = "elsewhere";

/// What one life does.
#[derive(Debug, Clone)]
pub struct Life {
    pub engine: Engine,
    pub seed: u64,
    pub ops: u64,
    pub file_bytes: u64,
    pub with_history: bool,
    /// Known to be committed from an earlier life, whatever the log remembers.
    pub committed: Option<LogPos>,
}

impl Life {
    /// As arguments of the recorded program.
    pub fn arguments(&self) -> Vec<String> {
        let committed = self.committed.map_or("-".to_owned(), |pos| format!("{}:{}", pos.term, pos.index));
        vec![
            self.engine.to_string(),
            self.seed.to_string(),
            self.ops.to_string(),
            self.file_bytes.to_string(),
            self.with_history.to_string(),
            committed,
        ]
    }

    /// Reads what [`Life::arguments`] wrote.
    pub fn parse(arguments: &[String]) -> Result<Self> {
        let [engine, seed, ops, file_bytes, with_history, committed] = arguments else {
            bail!("a life takes six arguments");
        };
        let committed = match committed.split_once(':') {
            Some((term, index)) => Some(LogPos { term: term.parse()?, index: index.parse()? }),
            None => None,
        };
        Ok(Self {
            engine: engine.parse()?,
            seed: seed.parse()?,
            ops: ops.parse()?,
            file_bytes: file_bytes.parse()?,
            with_history: with_history.parse()?,
            committed,
        })
    }
}

/// The folders of the stores below the watched one.
pub fn folders(data: &Path) -> [PathBuf; 3] {
    ["log", "snapshots", "history"].map(|name| data.join(name))
}

/// The history's record of an index is always the same one.
pub fn history_record(index: u64) -> history::Record {
    let mut dice = Dice::for_use(index, 7);
    let length = if dice.percent(5) { dice.between(40_000, 130_000) } else { dice.between(20, 600) };
    let mut bytes = vec![0; length as usize];
    dice.fill(&mut bytes);
    history::Record { ordinal: 0, kind: 1, job: Some(index % 7), bytes: bytes.into() }
}

/// Counts what waits for the disk.
#[derive(Default)]
struct Waiting {
    count: Mutex<usize>,
    fewer: Condvar,
}

impl Waiting {
    fn until_at_most(&self, most: usize) {
        let count = self.count.lock().expect("no thread panics with it");
        let patience = Duration::from_secs(60);
        let (count, waited) =
            self.fewer.wait_timeout_while(count, patience, |count| *count > most).expect("no thread panics with it");
        drop(count);
        assert!(!waited.timed_out(), "the engine did not call back within {patience:?}");
    }
}

struct Driver {
    life: Life,
    dice: Dice,
    marker: Marker,
    engine: Box<dyn LogEngine>,
    snapshots: SnapshotProbe,
    history: Option<HistoryStore>,
    elsewhere: PathBuf,
    waiting: Arc<Waiting>,
    number: u64,
    term: u64,
    /// Terms of the entries in the log.
    terms: BTreeMap<u64, u64>,
    last: Option<LogPos>,
    committed: Option<LogPos>,
    purged: Option<LogPos>,
    snapshot: Option<LogPos>,
    /// Next index for the history.
    recorded: u64,
}

/// Runs one life in `data`; a miss of the stores at open is an error.
pub fn run(data: &Path, life: Life) -> Result<()> {
    let mut driver = Driver::open(data, life)?;
    for _ in 0..driver.life.ops {
        driver.step()?;
    }
    // The rest of what waits is left to the engine's own end.
    Ok(())
}

impl Driver {
    fn open(data: &Path, life: Life) -> Result<Self> {
        let [log, snapshots, history] = folders(data);
        let engine = life.engine.open(&log, life.file_bytes)?;
        let state = engine.state();
        let snapshots = SnapshotProbe::open(&snapshots, state.purged)?;
        let history = life.with_history.then(|| HistoryStore::open(&history)).transpose()?;
        let entries = all_entries(engine.as_ref())?;
        let newest = snapshots.newest()?;
        let snapshot = newest.as_ref().map(|(last, _)| *last);
        let marker = Marker::find();
        marker.put(&Mark::Opened(Opened {
            vote: state.vote,
            committed: state.committed,
            purged: state.purged,
            entries: entries.iter().map(Stored::of).collect(),
            snapshot: newest.map(|(last, bytes)| (last, hash_of(&bytes))),
            history_moved: history.as_ref().is_some_and(|history| history.moved_aside().is_some()),
        }));
        let committed = state.committed.max(life.committed).max(snapshot).max(state.purged);
        let term = state.vote.map_or(0, |vote| vote.term).max(state.last.map_or(0, |last| last.term)) + 1;
        // As a server does: what is not in the newest snapshot is applied, and so recorded, once more.
        let recorded = snapshot.map_or(0, |snapshot| snapshot.index + 1);
        let mut driver = Driver {
            dice: Dice::new(life.seed),
            marker,
            engine,
            snapshots,
            history,
            elsewhere: data.with_file_name(ELSEWHERE),
            waiting: Arc::default(),
            number: 0,
            term,
            terms: entries.iter().map(|entry| (entry.pos.index, entry.pos.term)).collect(),
            last: state.last,
            committed,
            purged: state.purged,
            snapshot,
            recorded,
            life,
        };
        // As consensus does: a snapshot was adopted, and the power went before the log was purged.
        if let Some(snapshot) = snapshot.filter(|snapshot| driver.last.is_none_or(|last| last.index < snapshot.index)) {
            driver.purge(snapshot)?;
        }
        driver.restore_history()?;
        driver.record_history()?;
        Ok(driver)
    }

    /// As a server does when it starts from a snapshot: entries up to there that were not recorded are a gap.
    fn restore_history(&mut self) -> Result<()> {
        let Some(snapshot) = self.snapshot.filter(|_| self.history.is_some()) else { return Ok(()) };
        self.began(Op::History { index: snapshot.index, gap: true });
        Ok(self.history.as_ref().map_or(Ok(()), |history| history.note_restore(snapshot.index))?)
    }

    fn step(&mut self) -> Result<()> {
        match self.dice.below(100) {
            0..55 => self.append()?,
            55..64 => self.vote()?,
            64..69 => self.truncate()?,
            69..80 => self.commit()?,
            80..88 => self.record_history()?,
            88..96 => self.take_snapshot()?,
            96..98 => self.install_snapshot()?,
            _ => self.waiting.until_at_most(0),
        }
        // Sometimes all is quiet for a moment.
        if self.dice.percent(3) {
            self.waiting.until_at_most(0);
            std::thread::sleep(Duration::from_millis(self.dice.below(60)));
        }
        Ok(())
    }

    fn began(&mut self, what: Op) -> u64 {
        self.number += 1;
        self.marker.put(&Mark::Began { number: self.number, what });
        self.number
    }

    fn done(&self, number: u64) {
        self.marker.put(&Mark::Done { number });
    }

    /// A callback that marks the acknowledgement.
    fn on_durable(&self, number: u64) -> OnDurable {
        *self.waiting.count.lock().expect("no thread panics with it") += 1;
        let (marker, waiting) = (self.marker, self.waiting.clone());
        OnDurable::new(move |result| {
            result.unwrap_or_else(|error| panic!("call {number} failed: {error}"));
            marker.put(&Mark::Done { number });
            *waiting.count.lock().expect("no thread panics with it") -= 1;
            waiting.fewer.notify_all();
        })
    }

    fn wait_sometimes(&mut self) {
        let most = if self.dice.percent(50) { 0 } else { WAITING_MAX };
        self.waiting.until_at_most(most);
    }

    fn append(&mut self) -> Result<()> {
        let count = if self.dice.percent(70) { 1 } else { self.dice.between(2, 8) };
        let first = self.last.map_or(0, |last| last.index + 1);
        let records: Vec<Record> = (first..first + count).map(|index| self.record(index)).collect();
        let number = self.began(Op::Append(records.iter().map(Stored::of).collect()));
        self.last = records.last().map(|record| record.pos);
        self.terms.extend(records.iter().map(|record| (record.pos.index, record.pos.term)));
        let done = self.on_durable(number);
        self.engine.append(records, done)?;
        self.wait_sometimes();
        Ok(())
    }

    fn record(&mut self, index: u64) -> Record {
        let length = match self.dice.below(100) {
            0..70 => self.dice.between(10, 300),
            70..92 => self.dice.between(300, 6_000),
            92..98 => self.dice.between(6_000, 40_000),
            _ => self.dice.between(40_000, BODY_BYTES_MAX),
        };
        let mut body = vec![0; length as usize];
        match self.dice.below(4) {
            // Bodies that look like nothing was written, or like the end of a log.
            0 => {}
            1 => body.fill(0xFF),
            _ => self.dice.fill(&mut body),
        }
        Record { pos: LogPos { term: self.term, index }, body: Bytes::from(body) }
    }

    fn vote(&mut self) -> Result<()> {
        let committed = self.dice.percent(50);
        if !committed || self.engine.state().vote.is_none_or(|vote| vote.term != self.term) {
            self.term += 1;
        }
        let vote = SavedVote { term: self.term, committed, server: 1 };
        if self.engine.state().vote >= Some(vote) {
            return Ok(());
        }
        let number = self.began(Op::Vote(vote));
        let done = self.on_durable(number);
        self.engine.save_vote(vote, done)?;
        self.wait_sometimes();
        Ok(())
    }

    fn at(&self, index: u64) -> Option<LogPos> {
        self.terms.get(&index).map(|term| LogPos { term: *term, index })
    }

    fn truncate(&mut self) -> Result<()> {
        let Some(last) = self.last.filter(|last| Some(*last) > self.committed) else { return Ok(()) };
        let low = self.committed.map_or(0, |pos| pos.index + 1);
        // The first index to go.
        let cut = self.dice.between(low, last.index);
        let keep = cut.checked_sub(1).and_then(|index| self.at(index)).or(self.purged);
        let number = self.began(Op::Truncate(keep));
        let done = self.on_durable(number);
        self.engine.truncate_after(keep, done)?;
        self.terms.split_off(&cut);
        self.last = keep;
        self.term += 1;
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        let Some(last) = self.last.filter(|last| Some(*last) > self.committed) else { return Ok(()) };
        // Only what is durable on a quorum is committed.
        self.waiting.until_at_most(0);
        let low = self.committed.map_or(0, |pos| pos.index + 1);
        let low = low.max(self.purged.map_or(0, |pos| pos.index + 1));
        let index = self.dice.between(low.min(last.index), last.index);
        if let Some(upto) = self.at(index) {
            self.began(Op::Committed(upto));
            self.engine.save_committed(upto)?;
            self.committed = Some(upto);
        }
        Ok(())
    }

    /// Records what was committed since.
    fn record_history(&mut self) -> Result<()> {
        let (Some(upto), Some(_)) = (self.committed, &self.history) else { return Ok(()) };
        while self.recorded <= upto.index {
            let index = self.recorded;
            let gap = !self.terms.contains_key(&index);
            // A stretch the log no longer has is told of in one go.
            let through = if gap { self.terms.keys().next().map_or(upto.index, |first| first - 1) } else { index };
            let through = through.clamp(index, upto.index);
            self.began(Op::History { index: through, gap });
            let history = self.history.as_ref().expect("looked at above");
            if gap {
                history.note_restore(through)?;
            } else {
                history.append(index, &[history_record(index)])?;
            }
            self.recorded = through + 1;
        }
        Ok(())
    }

    /// As a server does: history durable, snapshot published, log purged up to the older of the two kept.
    fn take_snapshot(&mut self) -> Result<()> {
        let Some(at) = self.committed.filter(|at| Some(*at) > self.snapshot) else { return Ok(()) };
        self.record_history()?;
        self.sync_history()?;
        let state = self.state();
        let number = self.began(Op::Snapshot(at, hash_of(&state)));
        self.snapshots.write(at, &state)?;
        self.done(number);
        self.snapshot = Some(at);
        match self.snapshots.fallback() {
            Some(upto) if self.dice.percent(80) => self.purge(upto),
            _ => Ok(()),
        }
    }

    fn sync_history(&mut self) -> Result<()> {
        let Some(through) = self.history.as_ref().map(HistoryStore::watermark) else { return Ok(()) };
        let number = self.began(Op::HistorySync { through });
        self.history.as_ref().expect("looked at above").flush_durable()?;
        self.done(number);
        Ok(())
    }

    /// Another server's snapshot, beyond the end of the log.
    fn install_snapshot(&mut self) -> Result<()> {
        self.waiting.until_at_most(0);
        let beyond = self.last.or(self.purged).map_or(0, |last| last.index) + self.dice.between(1, 30);
        self.term += 1;
        let at = LogPos { term: self.term, index: beyond };
        let state = self.state();
        let number = self.began(Op::Snapshot(at, hash_of(&state)));
        std::fs::create_dir_all(&self.elsewhere)?;
        let other = SnapshotProbe::open(&self.elsewhere, None)?;
        other.write(at, &state)?;
        self.snapshots.install(&other, 10_000)?;
        self.done(number);
        std::fs::remove_dir_all(&self.elsewhere).context("cannot clear the other server's folder")?;
        self.snapshot = Some(at);
        self.committed = Some(at);
        self.purge(at)
    }

    fn state(&mut self) -> Vec<u8> {
        let mut state = vec![0; self.dice.between(1, 60_000) as usize];
        self.dice.fill(&mut state);
        state
    }

    fn purge(&mut self, upto: LogPos) -> Result<()> {
        if self.purged >= Some(upto) {
            return Ok(());
        }
        self.began(Op::Purge(upto));
        self.engine.purge(upto)?;
        self.terms = self.terms.split_off(&(upto.index + 1));
        self.purged = Some(upto);
        self.last = self.last.max(Some(upto));
        Ok(())
    }
}
