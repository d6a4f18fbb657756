//! The log engine on disk: a write-ahead log of our own, made so that a power cut and damage can be told apart.
//!
//! - [`sector`]: 512 bytes that prove what they are; [`record`]: what is written; [`segment`]: files and their headers.
//! - [`writer`]: one thread gathers what waits into batches and syncs each before it begins the next.
//! - [`recover`]: a batch that is not whole is dropped only if nothing proves that it was ever synced.
//!
//! When nothing more is to be written, an empty batch seals the last one after a moment. Until then, and only then, a last
//! batch that the disk later gives back as zeros looks like one that was torn.

mod error;
mod index;
pub(super) mod record;
mod recover;
pub(super) mod sector;
mod segment;
mod spans;
mod writer;

#[cfg(test)]
mod tests;

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

pub use error::OpenError;

use super::engine::{EngineState, LogEngine, OnDurable, Record};
use super::types::{LogPos, SavedVote};
use record::{BODY_BYTES_MAX, Change};
use segment::{HEADER_BYTES, Header};
use writer::{Shared, Writer};

/// How much the log keeps in memory, in one file and in one write.
#[derive(Clone, Copy, Debug)]
pub struct WalLimits {
    /// Length of a file. Files are removed whole, once every entry in them is purged.
    pub segment_bytes: u64,
    /// The tail of the log kept in memory, so that replication does not read the disk.
    pub cache_bytes: usize,
    /// A batch takes no more changes once it is this long.
    pub batch_bytes: usize,
    /// How long the log waits for more before it seals the last batch, in milliseconds.
    pub seal_after_ms: u64,
}

impl Default for WalLimits {
    fn default() -> Self {
        WalLimits { segment_bytes: 8 << 20, cache_bytes: 32 << 20, batch_bytes: 1 << 20, seal_after_ms: 20 }
    }
}

/// Told of each completed sync: how long it took, and how many entries and bytes (sector heads and padding included) it made
/// durable. Called on the log's thread, so it must be quick.
#[derive(Clone)]
pub struct OnSync(Arc<dyn Fn(Duration, u64, u64) + Send + Sync>);

impl OnSync {
    /// Runs `call` with each sync.
    pub fn new(call: impl Fn(Duration, u64, u64) + Send + Sync + 'static) -> Self {
        OnSync(Arc::new(call))
    }

    /// For whoever does not count.
    pub fn ignored() -> Self {
        OnSync::new(|_, _, _| {})
    }
}

/// A log on disk. A failed write or sync is final: every later call fails as well.
pub struct WalEngine {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
    /// Held as long as the log is open.
    _lock: File,
}

impl WalEngine {
    /// Opens the log in `dir`, which must exist. A batch torn by a crash at the very end is dropped; any other damage is refused
    /// and left as it is. Blocks.
    pub fn open(dir: &Path, limits: WalLimits, on_sync: OnSync) -> Result<Self, OpenError> {
        let io = |cause| OpenError::Io { dir: dir.to_owned(), cause };
        let lock = File::options().write(true).create(true).truncate(false).open(dir.join("LOCK")).map_err(io)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => OpenError::InUse { dir: dir.to_owned() },
            TryLockError::Error(cause) => io(cause),
        })?;
        let mut recovered = recover::recover(dir, limits.cache_bytes)?;
        let state = recovered.index.state;
        let mut segments: Vec<_> = recovered.segments.into_iter().collect();
        let active = match segments.pop_if(|_| recovered.last_is_empty) {
            Some(empty) => {
                // Who made it may have been killed before its name was durable.
                segment::sync_folder(dir).map_err(io)?;
                empty
            }
            None => {
                let previous = segments.last().map_or(0, |last| last.header.number);
                let first_batch = recovered.next_batch;
                let header = Header { number: previous + 1, previous, first_batch, state };
                segment::create(dir, header, limits.segment_bytes.max(HEADER_BYTES as u64)).map_err(io)?
            }
        };
        recovered.index.has_file(active.header.number, Arc::new(active.file.try_clone().map_err(io)?));
        let mut names: std::collections::VecDeque<_> =
            segments.into_iter().map(|segment| (segment.header.number, segment.path)).collect();
        names.push_back((active.header.number, active.path.clone()));
        let shared = Arc::new(Shared::new(recovered.index));
        let writer = Writer {
            shared: shared.clone(),
            on_sync,
            dir: dir.to_owned(),
            limits,
            segments: names,
            active,
            offset: HEADER_BYTES as u64,
            next_batch: recovered.next_batch,
            state,
            spans: recovered.spans,
        };
        let writer = std::thread::Builder::new().name("log".into()).spawn(move || writer.run()).map_err(io)?;
        Ok(WalEngine { shared, writer: Some(writer), _lock: lock })
    }
}

fn refuse(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

impl LogEngine for WalEngine {
    fn state(&self) -> EngineState {
        self.shared.index().state
    }

    fn save_vote(&mut self, vote: SavedVote, done: OnDurable) -> io::Result<()> {
        let before = self.state().vote;
        if before > Some(vote) {
            return Err(refuse(format!("vote {vote:?} would undo {before:?}")));
        }
        self.shared.push(vec![Change::Vote(vote)], Some(done))
    }

    fn append(&mut self, records: Vec<Record>, done: OnDurable) -> io::Result<()> {
        let mut last = self.state().last;
        for record in &records {
            if !record.pos.may_follow(last) {
                return Err(refuse(format!("entry {} does not follow {last:?}", record.pos)));
            }
            if record.body.len() > BODY_BYTES_MAX {
                return Err(refuse(format!("entry {} is longer than the log can hold", record.pos)));
            }
            last = Some(record.pos);
        }
        self.shared.push(records.into_iter().map(Change::Entry).collect(), Some(done))
    }

    fn truncate_after(&mut self, keep: Option<LogPos>, done: OnDurable) -> io::Result<()> {
        // With nothing to remove, `done` still waits for what was written before.
        let goes = keep < self.state().last;
        self.shared.push(goes.then_some(Change::Truncate(keep)).into_iter().collect(), Some(done))
    }

    fn purge(&mut self, upto: LogPos) -> io::Result<()> {
        if self.state().purged >= Some(upto) {
            return Ok(());
        }
        self.shared.push(vec![Change::Purge(upto)], None)
    }

    fn save_committed(&mut self, upto: LogPos) -> io::Result<()> {
        self.shared.push(vec![Change::Committed(upto)], None)
    }

    fn read(&self, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<Record>> {
        let found = self.shared.index().find(from, to, max_bytes);
        found.into_iter().map(index::Found::read).collect()
    }
}

impl Drop for WalEngine {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has already failed every callback.
            let _ = writer.join();
        }
    }
}
