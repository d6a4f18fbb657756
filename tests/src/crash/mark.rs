//! What the recorded process tells the record: what it begins and what was acknowledged.

use super::dice::hash_of;
use muster_scheduler::consensus::{LogPos, Record, SavedVote};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Mark {
    /// The stores are open and this is in them.
    Opened(Opened),
    /// The call is about to be made. Numbers rise.
    Began { number: u64, what: Op },
    /// It was acknowledged.
    Done { number: u64 },
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Opened {
    pub vote: Option<SavedVote>,
    pub committed: Option<LogPos>,
    pub purged: Option<LogPos>,
    pub entries: Vec<Stored>,
    pub snapshot: Option<(LogPos, u64)>,
    /// The history was found damaged and an empty one begun.
    pub history_moved: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Op {
    Vote(SavedVote),
    Append(Vec<Stored>),
    Truncate(Option<LogPos>),
    Purge(LogPos),
    Committed(LogPos),
    /// A snapshot ending there, with the hash of its state.
    Snapshot(LogPos, u64),
    /// The record of that index, or a gap through it.
    History {
        index: u64,
        gap: bool,
    },
    /// A sync of the history.
    HistorySync {
        through: Option<u64>,
    },
}

/// An entry, its body by length and hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    pub pos: LogPos,
    pub bytes: usize,
    pub hash: u64,
}

impl Stored {
    pub fn of(record: &Record) -> Self {
        Self { pos: record.pos, bytes: record.body.len(), hash: hash_of(&record.body) }
    }
}

type PutMark = unsafe extern "C" fn(*const u8, usize);

/// Puts marks into the record of this process; does nothing in a process that is not recorded.
#[derive(Clone, Copy)]
pub struct Marker(Option<PutMark>);

impl Marker {
    pub fn find() -> Self {
        // SAFETY: a C string; the answer is checked for null.
        let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"muster_crash_mark".as_ptr()) };
        if symbol.is_null() {
            return Self(None);
        }
        // SAFETY: the recorder exports it with this signature.
        Self(Some(unsafe { std::mem::transmute::<*mut libc::c_void, PutMark>(symbol) }))
    }

    pub fn put(self, mark: &Mark) {
        if let Some(put) = self.0 {
            let bytes = serde_json::to_vec(mark).expect("numbers always encode");
            // SAFETY: the bytes live through the call.
            unsafe { put(bytes.as_ptr(), bytes.len()) };
        }
    }
}
