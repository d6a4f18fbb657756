//! The one thread that writes the log: everything that waits becomes one batch, one write and one sync.

use std::collections::VecDeque;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use std::{fs, io};

use super::index::{Index, Place};
use super::record::{Change, body_at};
use super::sector::{batch_bytes, lay_out};
use super::segment::{self, HEADER_BYTES, Header, Segment};
use super::spans::Spans;
use super::{OnSync, WalLimits};
use crate::consensus::engine::{EngineState, OnDurable};

/// A change, or who waits for the changes before.
type Waiting = (Option<Change>, Option<OnDurable>);

/// Changes on their way to the disk.
#[derive(Default)]
struct Queue {
    changes: VecDeque<Waiting>,
    /// Somebody waits for one of them.
    urgent: bool,
    closing: bool,
    failed: Option<String>,
}

/// What the engine and its writer share.
pub(crate) struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    index: Mutex<Index>,
}

impl Shared {
    pub(crate) fn new(index: Index) -> Self {
        Shared { queue: Mutex::default(), work: Condvar::new(), index: Mutex::new(index) }
    }

    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().expect("no code panics while it holds the index")
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no code panics while it holds the queue")
    }

    /// Takes changes in, for readers at once and for the disk soon; `done` is called when they are there.
    pub(crate) fn push(&self, changes: Vec<Change>, done: Option<OnDurable>) -> io::Result<()> {
        let mut queue = self.queue();
        if let Some(why) = &queue.failed {
            return Err(io::Error::other(format!("the log failed earlier: {why}")));
        }
        {
            let mut index = self.index();
            changes.iter().for_each(|change| index.apply(change, None));
        }
        let urgent = done.is_some();
        queue.changes.extend(changes.into_iter().map(|change| (Some(change), None)));
        if let Some(done) = done {
            queue.urgent = true;
            queue.changes.push_back((None, Some(done)));
        }
        drop(queue);
        if urgent {
            self.work.notify_one();
        }
        Ok(())
    }

    pub(crate) fn close(&self) {
        self.queue().closing = true;
        self.work.notify_one();
    }

    /// Waits for work; `None` once the engine is closed and all is written. An empty batch is a seal.
    fn next(&self, unsealed: bool, limits: &WalLimits) -> Option<Vec<Waiting>> {
        let mut queue = self.queue();
        while !queue.urgent && !queue.closing {
            if unsealed || !queue.changes.is_empty() {
                let wait = Duration::from_millis(limits.seal_after_ms);
                let (back, timeout) = self.work.wait_timeout(queue, wait).expect("no code panics with the queue");
                queue = back;
                if timeout.timed_out() {
                    break;
                }
            } else {
                queue = self.work.wait(queue).expect("no code panics while it holds the queue");
            }
        }
        if queue.closing && queue.changes.is_empty() {
            return None;
        }
        let mut batch = Vec::new();
        let mut bytes = 0;
        while bytes < limits.batch_bytes
            && let Some((change, done)) = queue.changes.pop_front()
        {
            bytes += change.as_ref().map_or(0, Change::bytes);
            batch.push((change, done));
        }
        queue.urgent = queue.changes.iter().any(|(_, done)| done.is_some());
        Some(batch)
    }

    fn fail(&self, error: &io::Error) -> VecDeque<Waiting> {
        let mut queue = self.queue();
        queue.failed = Some(error.to_string());
        std::mem::take(&mut queue.changes)
    }
}

/// Owns the files.
pub(crate) struct Writer {
    pub shared: Arc<Shared>,
    pub on_sync: OnSync,
    pub dir: PathBuf,
    pub limits: WalLimits,
    /// All files, oldest first; the last is being written.
    pub segments: VecDeque<(u64, PathBuf)>,
    pub active: Segment,
    pub offset: u64,
    pub next_batch: u64,
    /// What is durable.
    pub state: EngineState,
    pub spans: Spans,
}

impl Writer {
    /// Writes until the engine is closed or the disk fails. A failed write or sync is never tried again: after one, nobody
    /// knows what the disk holds.
    pub(crate) fn run(mut self) {
        let mut unsealed = false;
        while let Some(batch) = self.shared.next(unsealed, &self.limits) {
            unsealed = !batch.is_empty();
            let (changes, done): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            let changes: Vec<Change> = changes.into_iter().flatten().collect();
            let result = self.commit(&changes);
            let failure = result.as_ref().err().map(|error| (error.kind(), error.to_string()));
            if let Err(error) = result {
                tracing::error!(%error, "the log cannot be written");
                // Dropped callbacks report a failure.
                drop(self.shared.fail(&error));
            }
            for done in done.into_iter().flatten() {
                done.report(match &failure {
                    None => Ok(()),
                    Some((kind, why)) => Err(io::Error::new(*kind, why.clone())),
                });
            }
            if failure.is_some() {
                return;
            }
        }
    }

    fn commit(&mut self, changes: &[Change]) -> io::Result<()> {
        let mut payload = Vec::with_capacity(changes.iter().map(Change::bytes).sum());
        let mut bodies = Vec::new();
        for change in changes {
            if let Change::Entry(record) = change {
                bodies.push((record.pos, body_at(payload.len())));
            }
            change.write(&mut payload);
        }
        let length = batch_bytes(payload.len()) as u64;
        if self.offset + length > self.active.bytes {
            self.next_segment(length)?;
        }
        let number = self.active.header.number;
        let sectors = lay_out(number, self.next_batch, &payload);
        self.active.file.write_all_at(&sectors, self.offset)?;
        let began = Instant::now();
        self.active.file.sync_data()?;
        (self.on_sync.0)(began.elapsed(), bodies.len() as u64, length);
        self.written(changes, &bodies);
        if changes.iter().any(|change| matches!(change, Change::Purge(_))) {
            self.remove_purged()?;
        }
        Ok(())
    }

    /// The batch is durable.
    fn written(&mut self, changes: &[Change], bodies: &[(crate::consensus::types::LogPos, usize)]) {
        let (segment, batch, offset) = (self.active.header.number, self.next_batch, self.offset);
        for change in changes {
            change.apply(&mut self.state);
            self.spans.apply(change, segment);
        }
        self.offset += batch_bytes(changes.iter().map(Change::bytes).sum()) as u64;
        self.next_batch += 1;
        let mut index = self.shared.index();
        for (pos, body) in bodies {
            index.placed(*pos, Place { segment, batch, offset, body: *body });
        }
        index.forget();
    }

    fn next_segment(&mut self, batch_bytes: u64) -> io::Result<()> {
        let header = Header {
            number: self.active.header.number + 1,
            previous: self.active.header.number,
            first_batch: self.next_batch,
            state: self.state,
        };
        let bytes = self.limits.segment_bytes.max(HEADER_BYTES as u64 + batch_bytes);
        let segment = segment::create(&self.dir, header, bytes)?;
        self.shared.index().has_file(header.number, Arc::new(segment.file.try_clone()?));
        self.segments.push_back((header.number, segment.path.clone()));
        self.active = segment;
        self.offset = HEADER_BYTES as u64;
        Ok(())
    }

    /// Removes the files that hold only purged entries. A crash may bring any of them back; the next opening removes it.
    fn remove_purged(&mut self) -> io::Result<()> {
        let needed = self.spans.oldest().unwrap_or(self.active.header.number);
        while self.segments.front().is_some_and(|(number, _)| *number < needed)
            && let Some((number, path)) = self.segments.pop_front()
        {
            self.shared.index().lost_file(number);
            fs::remove_file(path)?;
        }
        Ok(())
    }
}
