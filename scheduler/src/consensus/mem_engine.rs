//! A log engine in memory, for simulated clusters: it loses unsynced writes on [`MemDisk::crash`], and nothing else.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use super::engine::{EngineState, LogEngine, OnDurable, Record};
use super::types::{LogPos, SavedVote};

#[derive(Clone, Debug, Default)]
struct Image {
    state: EngineState,
    entries: BTreeMap<u64, Record>,
}

#[derive(Clone, Debug)]
enum Write {
    Vote(SavedVote),
    Append(Vec<Record>),
    Truncate(Option<LogPos>),
    Purge(LogPos),
    Committed(LogPos),
}

impl Image {
    fn write(&mut self, write: &Write) {
        match write {
            Write::Vote(vote) => self.state.vote = Some(*vote),
            Write::Committed(upto) => self.state.committed = Some(*upto),
            Write::Append(records) => {
                for record in records {
                    self.entries.insert(record.pos.index, record.clone());
                    self.state.last = Some(record.pos);
                }
            }
            Write::Truncate(keep) => {
                self.entries.split_off(&keep.map_or(0, |pos| pos.index + 1));
                if self.state.last > *keep {
                    self.state.last = (*keep).max(self.state.purged);
                }
            }
            Write::Purge(upto) => {
                self.entries = self.entries.split_off(&(upto.index + 1));
                self.state.purged = self.state.purged.max(Some(*upto));
                self.state.last = self.state.last.max(Some(*upto));
            }
        }
    }
}

#[derive(Default)]
struct Disk {
    /// Raised by every crash; an engine of an older life is dead.
    life: u64,
    hold: bool,
    lie: bool,
    voted: Option<SavedVote>,
    durable: Image,
    unsynced: VecDeque<Write>,
    waiting: Vec<OnDurable>,
}

/// The disk behind a [`MemEngine`]; it outlives the engine as a disk outlives a process.
#[derive(Clone, Default)]
pub struct MemDisk(Arc<Mutex<Disk>>);

impl MemDisk {
    /// An empty disk that syncs every write at once.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens what was durable. Engines opened earlier on this disk stop working.
    pub fn open(&self) -> MemEngine {
        self.crash();
        let disk = self.lock();
        MemEngine { disk: self.clone(), life: disk.life, now: disk.durable.clone() }
    }

    /// Forgets every unsynced write, as a power cut does; their callbacks report a failure.
    pub fn crash(&self) {
        self.crash_keeping(0);
    }

    /// Writes that a crash now would lose.
    pub fn unsynced(&self) -> usize {
        self.lock().unsynced.len()
    }

    /// The same, but for the first `kept` unsynced writes: a power cut may spare some, and the death of a process alone
    /// spares all.
    pub fn crash_keeping(&self, kept: usize) {
        let lost = {
            let mut disk = self.lock();
            disk.life += 1;
            let spared: Vec<_> = std::mem::take(&mut disk.unsynced).into_iter().take(kept).collect();
            spared.iter().for_each(|write| disk.durable.write(write));
            std::mem::take(&mut disk.waiting)
        };
        // Outside the lock: a callback may call back into the disk.
        drop(lost);
    }

    /// While held, writes stay unsynced until [`MemDisk::sync`].
    pub fn hold_syncs(&self, hold: bool) {
        self.lock().hold = hold;
    }

    /// A disk that says of every vote given to a candidate that it is durable, and keeps none. For checking checkers.
    pub fn lie_about_votes(&self, lie: bool) {
        self.lock().lie = lie;
    }

    /// The vote written last, durable or not.
    pub fn last_vote(&self) -> Option<SavedVote> {
        self.lock().voted
    }

    /// Makes every write so far durable and calls its callback.
    pub fn sync(&self) {
        let done = {
            let mut disk = self.lock();
            while let Some(write) = disk.unsynced.pop_front() {
                disk.durable.write(&write);
            }
            std::mem::take(&mut disk.waiting)
        };
        for callback in done {
            callback.report(Ok(()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().expect("no code panics while it holds the disk")
    }
}

/// An engine on a [`MemDisk`].
pub struct MemEngine {
    disk: MemDisk,
    life: u64,
    now: Image,
}

impl MemEngine {
    fn write(&mut self, write: Write, done: Option<OnDurable>) -> io::Result<()> {
        let hold = {
            let mut disk = self.disk.lock();
            if disk.life != self.life {
                return Err(io::Error::other("this engine's process has crashed; open the disk again"));
            }
            if let Write::Vote(vote) = &write {
                disk.voted = Some(*vote);
            }
            let lost = disk.lie && matches!(&write, Write::Vote(vote) if !vote.committed);
            if !lost {
                disk.unsynced.push_back(write.clone());
            }
            disk.hold
        };
        self.now.write(&write);
        let Some(done) = done else { return Ok(()) };
        self.disk.lock().waiting.push(done);
        if !hold {
            self.disk.sync();
        }
        Ok(())
    }
}

fn refuse(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

impl LogEngine for MemEngine {
    fn state(&self) -> EngineState {
        self.now.state
    }

    fn save_vote(&mut self, vote: SavedVote, done: OnDurable) -> io::Result<()> {
        if self.now.state.vote > Some(vote) {
            return Err(refuse(format!("vote {vote:?} would undo {:?}", self.now.state.vote)));
        }
        self.write(Write::Vote(vote), Some(done))
    }

    fn append(&mut self, records: Vec<Record>, done: OnDurable) -> io::Result<()> {
        let mut last = self.now.state.last;
        for record in &records {
            if !record.pos.may_follow(last) {
                return Err(refuse(format!("entry {} does not follow {last:?}", record.pos)));
            }
            last = Some(record.pos);
        }
        self.write(Write::Append(records), Some(done))
    }

    fn truncate_after(&mut self, keep: Option<LogPos>, done: OnDurable) -> io::Result<()> {
        if keep < self.now.state.committed {
            return Err(refuse(format!("truncating after {keep:?} would remove committed entries")));
        }
        self.write(Write::Truncate(keep), Some(done))
    }

    fn purge(&mut self, upto: LogPos) -> io::Result<()> {
        self.write(Write::Purge(upto), Some(OnDurable::new(|_| {})))
    }

    fn save_committed(&mut self, upto: LogPos) -> io::Result<()> {
        self.write(Write::Committed(upto), None)
    }

    fn read(&self, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<Record>> {
        let mut bytes = 0;
        let records = self.now.entries.range(from..to.max(from)).map(|(_, record)| record.clone());
        Ok(records
            .take_while(|Record { body, .. }: &Record| {
                let room = bytes == 0 || bytes < max_bytes;
                bytes += Bytes::len(body).max(1);
                room
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(index: u64) -> Record {
        Record { pos: LogPos { term: 1, index }, body: Bytes::from_static(b"body") }
    }

    #[test]
    fn a_crash_loses_unsynced_writes_and_nothing_else() {
        let disk = MemDisk::new();
        let mut engine = disk.open();
        let vote = SavedVote { term: 1, committed: false, server: 1 };
        engine.save_vote(vote, OnDurable::new(|result| assert!(result.is_ok()))).unwrap();
        engine.append(vec![record(0), record(1)], OnDurable::new(|result| assert!(result.is_ok()))).unwrap();
        disk.hold_syncs(true);
        let (tx, rx) = std::sync::mpsc::sync_channel(1);
        engine.append(vec![record(2)], OnDurable::new(move |result| tx.send(result.is_err()).unwrap())).unwrap();
        assert_eq!(engine.state().last.map(|pos| pos.index), Some(2), "readable before it is durable");
        disk.crash();
        assert!(rx.recv().unwrap(), "the lost write was reported as durable");
        assert!(engine.append(vec![record(3)], OnDurable::new(|_| {})).is_err(), "a dead engine still writes");
        let engine = disk.open();
        assert_eq!(engine.state().vote, Some(vote));
        assert_eq!(engine.read(0, 9, usize::MAX).unwrap(), vec![record(0), record(1)]);
    }

    #[test]
    fn a_crash_may_spare_the_first_of_the_unsynced_writes() {
        let disk = MemDisk::new();
        let mut engine = disk.open();
        disk.hold_syncs(true);
        for index in 0..3 {
            engine.append(vec![record(index)], OnDurable::new(|result| assert!(result.is_err()))).unwrap();
        }
        assert_eq!(disk.unsynced(), 3);
        disk.crash_keeping(2);
        assert_eq!(disk.open().read(0, 9, usize::MAX).unwrap(), vec![record(0), record(1)]);
    }

    #[test]
    fn reads_stop_at_the_byte_limit_but_never_empty() {
        let mut engine = MemDisk::new().open();
        engine.append((0..5).map(record).collect(), OnDurable::new(|_| {})).unwrap();
        assert_eq!(engine.read(0, 5, 1).unwrap().len(), 1);
        assert_eq!(engine.read(0, 5, 8).unwrap().len(), 2);
        assert_eq!(engine.read(0, 5, 9).unwrap().len(), 3);
    }
}
