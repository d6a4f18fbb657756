//! Opens an image with the real stores and judges what is found.

use super::dice::hash_of;
use super::engine::{Engine, all_entries};
use super::expect::Expect;
use super::mark::Stored;
use super::workload::{folders, history_record};
use anyhow::Result;
use bytes::Bytes;
use muster_scheduler::consensus::{EngineState, LogEngine, LogPos, OnDurable, Record, SavedVote, SnapshotProbe};
use muster_scheduler::history::HistoryStore;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

/// What came of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Everything acknowledged is there; the history may have said that it must be rebuilt.
    Whole { history_moved: bool },
    /// A store refused to open. Right only if something durable was damaged.
    Refused(String),
    /// Something acknowledged is gone without a word, or a store does not work on.
    Missed(String),
}

/// Judges the image in `data`; opening changes it.
pub fn judge(data: &Path, engine: Engine, with_history: bool, expect: &Expect, damaged: bool) -> Result<Verdict> {
    let [log, snapshots, history] = folders(data);
    let before = files(&log)?;
    let opened = match engine.open(&log, 1 << 20) {
        Ok(opened) => opened,
        Err(error) => {
            let why = format!("{error:#}");
            let changed = files(&log)? != before;
            return Ok(if changed {
                Verdict::Missed(format!("a log was changed and refused: {why}"))
            } else {
                Verdict::Refused(why)
            });
        }
    };
    let state = opened.state();
    let entries = all_entries(opened.as_ref())?;
    let stored: Vec<Stored> = entries.iter().map(Stored::of).collect();
    if let Err(miss) = expect.check_log(&state, &stored) {
        return Ok(Verdict::Missed(miss));
    }
    let opened_snapshots = match SnapshotProbe::open(&snapshots, state.purged) {
        Ok(opened) => opened,
        Err(error) => return Ok(Verdict::Refused(error.to_string())),
    };
    let newest = opened_snapshots.newest()?.map(|(last, bytes)| (last, hash_of(&bytes)));
    let start =
        Start { snapshot: newest.map(|(last, _)| last.index), entries: entries.iter().map(|e| e.pos.index).collect() };
    if let Err(miss) = expect.check_snapshot(newest, damaged) {
        return Ok(Verdict::Missed(miss));
    }
    let mut history_moved = false;
    if with_history {
        match check_history(&history, &start, expect)? {
            Ok(moved) => history_moved = moved,
            Err(miss) => return Ok(Verdict::Missed(miss)),
        }
    }
    Ok(match works_on(opened, engine, &log, &state, &entries)? {
        Ok(()) => Verdict::Whole { history_moved },
        Err(miss) => Verdict::Missed(miss),
    })
}

/// What a server starts from: the newest snapshot and the entries of its log.
struct Start {
    snapshot: Option<u64>,
    entries: Vec<u64>,
}

/// True if it said that it must be rebuilt. Otherwise every record is there, or is told to be missing, once a server has
/// started: entries after its snapshot are applied and recorded once more, and what is missing before it is a gap.
fn check_history(dir: &Path, start: &Start, expect: &Expect) -> Result<Result<bool, String>> {
    let store = HistoryStore::open(dir)?;
    if store.moved_aside().is_some() {
        return Ok(Ok(true));
    }
    let Some(synced) = expect.history_synced else { return Ok(Ok(false)) };
    if let Some(snapshot) = start.snapshot {
        store.note_restore(snapshot)?;
    }
    let again = start.entries.iter().filter(|index| Some(**index) > start.snapshot && **index <= synced);
    for index in again.filter(|index| expect.history.get(index).is_some_and(|recorded| *recorded)) {
        store.append(*index, &[history_record(*index)])?;
    }
    if store.watermark() < Some(synced) {
        return Ok(Err(format!("history ends at {:?}, although it was synced through {synced}", store.watermark())));
    }
    let found: BTreeMap<u64, _> = match read_all(&store) {
        Ok(found) => found.into_iter().collect(),
        // It has marked itself; the next start moves it aside.
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => return Ok(Ok(true)),
        Err(error) => return Err(error.into()),
    };
    let gaps = store.gaps()?;
    for (index, recorded) in expect.history.range(..=synced) {
        let excused = !recorded || gaps.iter().any(|gap| (gap.from..=gap.to).contains(index));
        if found.get(index) != Some(&history_record(*index)) && !excused {
            return Ok(Err(format!("history has not the record of entry {index}, synced through {synced}")));
        }
    }
    Ok(Ok(false))
}

fn read_all(store: &HistoryStore) -> std::io::Result<Vec<(u64, muster_scheduler::history::Record)>> {
    let mut all = Vec::new();
    let mut next = 0;
    loop {
        let part = store.read_range(next, 1_000)?;
        let Some((last, _)) = part.last() else { return Ok(all) };
        next = last + 1;
        all.extend(part);
    }
}

/// The log takes new writes, and all of them are there when it is opened again.
fn works_on(
    mut engine: Box<dyn LogEngine>,
    kind: Engine,
    log: &Path,
    state: &EngineState,
    entries: &[Record],
) -> Result<Result<(), String>> {
    const MORE: u64 = 3;
    let term = state.vote.map_or(0, |vote| vote.term).max(state.last.map_or(0, |last| last.term)) + 1;
    let vote = SavedVote { term, committed: true, server: 1 };
    let first = state.last.map_or(0, |last| last.index + 1);
    let body = |index: u64| Bytes::from(vec![index as u8; 700 * index as usize % 5_000]);
    let more: Vec<Record> =
        (first..first + MORE).map(|index| Record { pos: LogPos { term, index }, body: body(index) }).collect();
    let (tx, rx) = mpsc::sync_channel(2);
    let done = |tx: mpsc::SyncSender<std::io::Result<()>>| OnDurable::new(move |result| drop(tx.send(result)));
    let begun = engine.save_vote(vote, done(tx.clone())).and_then(|()| engine.append(more.clone(), done(tx)));
    if let Err(error) = begun {
        return Ok(Err(format!("the log that was opened takes no writes: {error}")));
    }
    for _ in 0..2 {
        match rx.recv_timeout(Duration::from_secs(60)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Ok(Err(format!("the log that was opened cannot write: {error}"))),
            Err(_) => return Ok(Err("the log that was opened never acknowledges".to_owned())),
        }
    }
    drop(engine);
    let again = match kind.open(log, 1 << 20) {
        Ok(again) => again,
        Err(error) => return Ok(Err(format!("the log opens once and not twice: {error:#}"))),
    };
    let all = all_entries(again.as_ref())?;
    let whole = all.iter().eq(entries.iter().chain(&more)) && again.state().vote == Some(vote);
    Ok(if whole { Ok(()) } else { Err("what was written after opening is not there the next time".to_owned()) })
}

/// All files of a folder, to see whether anything changed.
fn files(folder: &Path) -> Result<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // A lock is no part of the log.
        if !name.eq_ignore_ascii_case("lock") && !name.ends_with(".lock") {
            found.insert(name, hash_of(&fs::read(entry.path())?));
        }
    }
    Ok(found)
}
