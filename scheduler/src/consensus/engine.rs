//! The seam under the replicated log: what a storage engine must do for the vote and the entries.
//!
//! Two implementations: [`super::wal::WalEngine`] on disk, and
//! [`super::mem_engine::MemEngine`], which forgets unsynced writes when it is told to crash.

use std::io;

use bytes::Bytes;

use super::types::{LogPos, SavedVote};

/// One log entry as it is stored: its place and its versioned body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it stands.
    pub pos: LogPos,
    /// See [`super::entry`] for the format.
    pub body: Bytes,
}

/// What an engine remembers besides the entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineState {
    /// The last vote saved.
    pub vote: Option<SavedVote>,
    /// How far the log was known to be committed; may lag behind after a crash.
    pub committed: Option<LogPos>,
    /// Entries up to here are gone.
    pub purged: Option<LogPos>,
    /// The last entry, or `purged` if there is none.
    pub last: Option<LogPos>,
}

/// Called once the write it came with, and every earlier one, is on stable storage. Dropping it uncalled reports a
/// failure, so that a dying engine never leaves its caller waiting.
pub struct OnDurable(Option<Box<dyn FnOnce(io::Result<()>) + Send>>);

impl OnDurable {
    /// Runs `call` with the result of the sync.
    pub fn new(call: impl FnOnce(io::Result<()>) + Send + 'static) -> Self {
        OnDurable(Some(Box::new(call)))
    }

    /// Reports the result.
    pub fn report(mut self, result: io::Result<()>) {
        if let Some(call) = self.0.take() {
            call(result);
        }
    }
}

impl Drop for OnDurable {
    fn drop(&mut self) {
        if let Some(call) = self.0.take() {
            call(Err(io::Error::other("the log engine stopped before this write was durable")));
        }
    }
}

/// Storage for one server's vote and log.
///
/// Writes take effect for readers at once and reach the disk in the order of the calls; an error is final for the
/// server. There are never holes: `append` continues at the last entry (or anywhere, if there is none).
pub trait LogEngine: Send + 'static {
    /// The present state, unsynced writes included.
    fn state(&self) -> EngineState;

    /// Saves the vote; `done` is called when it is durable.
    fn save_vote(&mut self, vote: SavedVote, done: OnDurable) -> io::Result<()>;

    /// Appends consecutive entries; `done` is called when they are durable.
    fn append(&mut self, records: Vec<Record>, done: OnDurable) -> io::Result<()>;

    /// Removes every entry after `keep`; all of them for `None`. `done` is called when they are gone for good.
    fn truncate_after(&mut self, keep: Option<LogPos>, done: OnDurable) -> io::Result<()>;

    /// Removes every entry up to `upto`, which may lie beyond the last one.
    fn purge(&mut self, upto: LogPos) -> io::Result<()>;

    /// Remembers how far the log is committed; need not be durable.
    fn save_committed(&mut self, upto: LogPos) -> io::Result<()>;

    /// Entries of `[from, to)` in order, stopping once `max_bytes` of bodies are read. At least one, if there is one.
    fn read(&self, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<Record>>;
}
