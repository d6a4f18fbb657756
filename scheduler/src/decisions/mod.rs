//! The decision log: a State and the entries that were applied after it, kept by every server beside its history, so
//! that each decision of the recent past can be made again from the very State it was made from.
//!
//! A folder of segments. Each begins with a whole State and goes on with the entries that follow, so that the oldest one
//! can be removed at any time. Nothing of the cluster depends on it: it is written on a thread of its own, without a
//! sync, and what that thread cannot take is left out; the next segment then begins with the State as it is by then.
//! See docs/adr/0006-decision-log.md.

mod chapters;
mod segments;
#[cfg(test)]
mod tests;

pub use chapters::{Chapter, Chapters, each_part};
pub(crate) use segments::file_of;
pub use segments::{BEGIN, DAMAGED, ENTRIES, STATE, pack};

use muster_engine::State;
use segments::Segments;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

/// Entries on their way to the thread that writes.
const QUEUE_ENTRIES: usize = 4_096;
const QUEUE_BYTES: usize = 32 << 20;
/// A small entry weighs as if it had this many, so that the queue is half empty by weight when it is by number.
const WEIGHT_MIN: usize = QUEUE_BYTES / QUEUE_ENTRIES;
/// What was applied is in the file after so long.
const WRITE_WITHIN: Duration = Duration::from_millis(500);

/// An entry as it was committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub index: u64,
    pub term: u64,
    /// None of one that holds nothing for State but its index: a leader's blank, a membership.
    pub payload: Option<Vec<u8>>,
}

/// Of the queue's bytes, what an entry takes from when it is handed in until it is written.
fn weight(payload: Option<&[u8]>) -> usize {
    payload.map_or(0, <[u8]>::len).max(WEIGHT_MIN)
}

enum Message {
    Begin(Box<State>),
    Entry(Kept),
    /// Answered once everything before it is in the files.
    Written(SyncSender<io::Result<Vec<PathBuf>>>),
}

/// Where applied entries are handed in. Cheap to clone; with the last one the thread ends.
#[derive(Clone)]
pub struct DecisionLog {
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The present segment is full, or there is none.
    full: AtomicBool,
    /// Entries were left out: the next one can only follow a whole State.
    gap: AtomicBool,
    /// By [`weight`].
    queued_bytes: AtomicUsize,
}

impl DecisionLog {
    /// Goes on in `dir`, made if missing, with at most about `bytes_max` in all segments together.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub fn open(dir: &Path, bytes_max: u64) -> io::Result<Self> {
        let segments = Segments::open(dir, bytes_max)?;
        let (queue, messages) = sync_channel(QUEUE_ENTRIES);
        let shared = Arc::new(Shared { gap: AtomicBool::new(true), ..Shared::default() });
        let of_thread = shared.clone();
        std::thread::Builder::new().name("decisions".into()).spawn(move || write(segments, &messages, &of_thread))?;
        Ok(Self { queue, shared })
    }

    /// Whether [`DecisionLog::begin`] should come before the next entry. Not while more than half of the queue waits: a
    /// State is far more work than the entry that found no room, and each one costs older segments their place.
    pub fn wants_state(&self) -> bool {
        let wanted = self.shared.full.load(Ordering::Acquire) || self.shared.gap.load(Ordering::Acquire);
        wanted && self.shared.queued_bytes.load(Ordering::Acquire) <= QUEUE_BYTES / 2
    }

    /// The State before the entry that comes next.
    pub fn begin(&self, state: State) {
        // Before it is sent: the thread may at once want another.
        let full = self.shared.full.swap(false, Ordering::AcqRel);
        let gap = self.shared.gap.swap(false, Ordering::AcqRel);
        // A thread that is gone wants none; one that is busy is asked again at the next entry.
        if matches!(self.queue.try_send(Message::Begin(Box::new(state))), Err(TrySendError::Full(_))) {
            self.shared.full.fetch_or(full, Ordering::AcqRel);
            self.shared.gap.fetch_or(gap, Ordering::AcqRel);
        }
    }

    /// The State has jumped: what comes next does not follow what came before.
    pub fn interrupt(&self) {
        self.shared.gap.store(true, Ordering::Release);
    }

    /// An entry that was applied. Never waits: what there is no room for is a gap.
    pub fn entry(&self, index: u64, term: u64, payload: Option<&[u8]>) {
        if self.shared.gap.load(Ordering::Acquire) {
            return;
        }
        let weight = weight(payload);
        let waiting = self.shared.queued_bytes.fetch_add(weight, Ordering::AcqRel);
        let kept = Kept { index, term, payload: payload.map(<[u8]>::to_vec) };
        let sent = match waiting + weight > QUEUE_BYTES {
            true => Err(TrySendError::Full(Message::Entry(kept))),
            false => self.queue.try_send(Message::Entry(kept)),
        };
        let Err(failed) = sent else { return };
        self.shared.queued_bytes.fetch_sub(weight, Ordering::AcqRel);
        if matches!(failed, TrySendError::Full(_)) {
            tracing::warn!(index, "the decision log cannot keep up; it has a gap here");
            self.interrupt();
        }
    }

    /// The files with everything handed in so far, the oldest first. Waits for the disk.
    ///
    /// # Errors
    /// The folder cannot be read, or the thread is gone. What cannot be written is a gap.
    pub fn written(&self) -> io::Result<Vec<PathBuf>> {
        let (answer, answered) = sync_channel(1);
        let gone = || io::Error::other("the decision log is closed");
        self.queue.send(Message::Written(answer)).map_err(|_| gone())?;
        answered.recv().map_err(|_| gone())?
    }
}

/// Until nobody is left to hand anything in.
fn write(segments: Segments, messages: &Receiver<Message>, shared: &Shared) {
    let mut writer = Writer { segments, asked: true, due: None };
    loop {
        let message = match writer.due {
            None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) => messages.recv_timeout(due.saturating_duration_since(Instant::now())),
        };
        match message {
            Ok(message) => writer.take(message, shared),
            Err(RecvTimeoutError::Timeout) => writer.write_out(),
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if writer.due.is_some_and(|due| due <= Instant::now()) {
            writer.write_out();
        }
        if writer.segments.want_state() && !writer.asked {
            writer.asked = true;
            shared.full.store(true, Ordering::Release);
        }
    }
    writer.write_out();
}

struct Writer {
    segments: Segments,
    /// Once for each State that is to come: entries before it may still be waiting here.
    asked: bool,
    /// When what was taken last must be in the file.
    due: Option<Instant>,
}

impl Writer {
    fn take(&mut self, message: Message, shared: &Shared) {
        match message {
            Message::Begin(state) => {
                self.asked = false;
                self.due = None;
                let begun = self.segments.begin(&state);
                self.done(begun);
            }
            Message::Entry(kept) => {
                shared.queued_bytes.fetch_sub(weight(kept.payload.as_deref()), Ordering::AcqRel);
                self.due.get_or_insert_with(|| Instant::now() + WRITE_WITHIN);
                let kept = self.segments.entry(kept);
                self.done(kept);
            }
            Message::Written(answer) => {
                self.write_out();
                // Whoever asked may have gone away.
                drop(answer.send(self.segments.files()));
            }
        }
    }

    fn write_out(&mut self) {
        self.due = None;
        let written = self.segments.write_out();
        self.done(written);
    }

    fn done(&mut self, done: io::Result<()>) {
        if let Err(error) = done {
            tracing::warn!(%error, "the decision log cannot be written; it has a gap here");
            self.segments.failed();
        }
    }
}
