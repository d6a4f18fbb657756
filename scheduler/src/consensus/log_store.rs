//! openraft's log storage over any [`LogEngine`].

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::Stream;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::engine::{EngineState, LogEngine, OnDurable};
use super::entry;
use super::identity::Identity;
use super::types::{Entry, LogId, LogPos, SavedVote, TypeConfig, Vote};
use crate::instruments::Instruments;

/// Bytes of entry bodies in one append call, and in one step of a long read.
pub(crate) const READ_BYTES_MAX: usize = 1 << 20;

/// Shared by openraft's core, its replication tasks and the handle.
#[derive(Clone)]
pub(crate) struct LogStore {
    engine: Arc<Mutex<Option<Box<dyn LogEngine>>>>,
    identity: Option<Arc<Identity>>,
    instruments: Instruments,
}

impl LogStore {
    /// With an identity, every new term voted in is also recorded there, so that a lost log is noticed.
    pub(crate) fn new(engine: Box<dyn LogEngine>, identity: Option<Arc<Identity>>, instruments: Instruments) -> Self {
        LogStore { engine: Arc::new(Mutex::new(Some(engine))), identity, instruments }
    }

    /// Lets go of the engine and its files, whoever still holds a clone of this store.
    pub(crate) fn close(&self) {
        let engine = self.engine.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        drop(engine);
    }

    pub(crate) fn state(&self) -> io::Result<EngineState> {
        self.with(|engine| Ok(engine.state()))
    }

    fn with<T>(&self, call: impl FnOnce(&mut dyn LogEngine) -> io::Result<T>) -> io::Result<T> {
        let mut guard: MutexGuard<'_, Option<Box<dyn LogEngine>>> =
            self.engine.lock().map_err(|_| io::Error::other("the log engine panicked"))?;
        match guard.as_deref_mut() {
            Some(engine) => call(engine),
            None => Err(io::Error::other("the log is closed: this server is shutting down")),
        }
    }

    fn read(&self, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let records = self.with(|engine| engine.read(from, to, max_bytes))?;
        let entries: Result<Vec<_>, _> = records.iter().map(entry::decode).collect();
        Ok(entries?)
    }
}

fn span(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(from) => *from,
        Bound::Excluded(from) => from.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(to) => to.saturating_add(1),
        Bound::Excluded(to) => *to,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (from, to) = span(&range);
        self.read(from, to, usize::MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.state()?.vote.map(SavedVote::vote))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, READ_BYTES_MAX)
    }

    /// Reads as it goes, so that applying a long stretch never holds all of it in memory.
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = span(&range);
        let cursor = Cursor { store: self.clone(), next: from, to, ready: Vec::new().into_iter(), failed: false };
        Box::pin(futures::stream::iter(cursor))
    }
}

struct Cursor {
    store: LogStore,
    next: u64,
    to: u64,
    ready: std::vec::IntoIter<Entry>,
    failed: bool,
}

impl Iterator for Cursor {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        if self.ready.as_slice().is_empty() && self.next < self.to {
            match self.store.read(self.next, self.to, READ_BYTES_MAX) {
                Ok(entries) => self.ready = entries.into_iter(),
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            }
        }
        let entry = self.ready.next()?;
        self.next = entry.log_id.index + 1;
        Some(Ok(entry))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let state = self.state()?;
        Ok(LogState {
            last_purged_log_id: state.purged.map(LogPos::log_id),
            last_log_id: state.last.map(LogPos::log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let vote = SavedVote::of(vote);
        let (tx, rx) = oneshot::channel();
        self.with(|engine| engine.save_vote(vote, OnDurable::new(move |result| drop(tx.send(result)))))?;
        rx.await.map_err(|_| io::Error::other("the log engine dropped a vote"))??;
        // After the log, never before: a crash in between must not make a whole log look like a lost one.
        if let Some(identity) = &self.identity {
            identity.record_vote(vote.term)?;
        }
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let Some(upto) = LogPos::of_opt(committed.as_ref()) else {
            return Ok(());
        };
        self.with(|engine| engine.save_committed(upto))
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.state()?.committed.map(LogPos::log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records = entries.into_iter().map(|entry| entry::encode(&entry)).collect();
        let (instruments, begun) = (self.instruments.clone(), Instant::now());
        let done = OnDurable::new(move |result| {
            if result.is_ok() {
                instruments.appended(begun.elapsed());
            }
            callback.io_completed(result);
        });
        self.with(|engine| engine.append(records, done))
    }

    async fn truncate_after(&mut self, keep: Option<LogId>) -> io::Result<()> {
        let keep = LogPos::of_opt(keep.as_ref());
        let (tx, rx) = oneshot::channel();
        self.with(|engine| engine.truncate_after(keep, OnDurable::new(move |result| drop(tx.send(result)))))?;
        // Waited for: a snapshot that ends inside the old tail may be durable next, and behind it that tail makes no log.
        rx.await.map_err(|_| io::Error::other("the log engine dropped a truncation"))?
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.with(|engine| engine.purge(LogPos::of(&upto)))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc;

    use bytes::Bytes;

    use super::*;
    use crate::consensus::engine::Record;
    use crate::consensus::{OnSync, WalEngine, WalLimits};

    #[tokio::test]
    async fn a_truncation_is_on_the_disk_before_openraft_hears_of_it() {
        let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        // Long enough that nothing but a waiting caller makes the log write.
        let limits = WalLimits { seal_after_ms: 60_000, ..WalLimits::default() };
        let open = |dir: &Path| WalEngine::open(dir, limits, OnSync::ignored()).unwrap();
        let pos = |index| LogPos { term: 1, index };
        let mut engine = open(dir.path());
        let records = (0..4).map(|index| Record { pos: pos(index), body: Bytes::from_static(b"body") }).collect();
        let (tx, rx) = mpsc::sync_channel(1);
        engine.append(records, OnDurable::new(move |result| tx.send(result).unwrap())).unwrap();
        rx.recv().unwrap().unwrap();
        let mut store = LogStore::new(Box::new(engine), None, Instruments::default());
        store.truncate_after(Some(pos(1).log_id())).await.unwrap();
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        assert_eq!(open(copy.path()).state().last, Some(pos(1)));
    }
}
